//! The memory of a relay while it is loaded, and the bound of it that `docs/OPERATE.md` names under Limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// `OPERATE`, Limits: what the relay takes by itself, KiB.
const BASE_KIB: u64 = 32 * 1024;
/// For each socket that has not proven a device.
const UNPROVEN_KIB: u64 = 24;
/// For each device.
const DEVICE_KIB: u64 = 24;
/// For each device that does not read what is sent to it, in addition.
const STUCK_KIB: u64 = 512;

/// The bound, in MiB.
pub fn bound(unproven: usize, devices: usize, stuck: usize) -> f64 {
    let kib = BASE_KIB + UNPROVEN_KIB * unproven as u64 + DEVICE_KIB * devices as u64 + STUCK_KIB * stuck as u64;
    kib as f64 / 1024.0
}

/// Looks at a process from time to time.
pub struct Watch {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub fn start(process: u32) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (peak, stop) = (peak.clone(), stop.clone());
            move || {
                while !stop.load(Relaxed) {
                    peak.fetch_max(resident_kib(process).unwrap_or(0), Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { peak, stop, thread }
    }

    /// The most that was seen, in MiB.
    pub fn peak(self) -> f64 {
        self.stop.store(true, Relaxed);
        let _ = self.thread.join();
        self.peak.load(Relaxed) as f64 / 1024.0
    }
}

/// What a process has in memory, KiB. None where there is no `/proc`.
fn resident_kib(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
