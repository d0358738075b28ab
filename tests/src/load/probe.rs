//! Honest devices beside an attack: new ones that log in all the time, and a pair that exchanges frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use happy_wire::relay::{FromRelay, ToRelay};
use tokio::time::timeout;

use super::device::{Device, Socket, heard, tell};
use super::{Report, address, beside, joined, percentile};

/// Where honest devices come from.
const BLOCK: u8 = 9;
/// Between two new ones.
const EVERY: Duration = Duration::from_millis(40);
/// Between two frames of the pair.
const FRAME_EVERY: Duration = Duration::from_millis(10);
/// A device or a frame that takes longer is given up, and counts as if it had taken so long.
const LONGEST: Duration = Duration::from_secs(15);

/// Devices that dial, log in and leave, and what that took, until it is stopped.
pub struct Probe {
    stop: Arc<AtomicBool>,
    connects: JoinHandle<Result<(Vec<Duration>, u32)>>,
    frames: JoinHandle<Result<Vec<Duration>>>,
}

impl Probe {
    pub fn start(relay: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { connects: beside(connects(relay, stop.clone())), frames: beside(frames(relay, stop.clone())), stop }
    }

    /// Says how they fared.
    pub fn end(self, name: &str, report: &mut Report) -> Result<()> {
        self.stop.store(true, Relaxed);
        let (mut times, attempts) = joined(self.connects)?;
        let mut trips = joined(self.frames)?;
        report.fact(format!(
            "{name}: {} honest devices came in {attempts} attempts, median {:.0} ms; {} frames of an honest pair, median {:.1} ms",
            times.len(),
            1e3 * percentile(&mut times, 50),
            trips.len(),
            1e3 * percentile(&mut trips, 50),
        ));
        report.time_at_most(&format!("{name}-honest-connect-p99"), percentile(&mut times, 99), "s", 1.0);
        report.time_at_most(&format!("{name}-honest-frame-p99"), percentile(&mut trips, 99), "s", 1.0);
        report.at_most(
            &format!("{name}-honest-frames-lost"),
            trips.iter().filter(|t| **t >= LONGEST).count() as f64,
            "",
            0.0,
        );
        Ok(())
    }
}

async fn connects(relay: SocketAddr, stop: Arc<AtomicBool>) -> Result<(Vec<Duration>, u32)> {
    let mut coming = Vec::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        coming.push(tokio::spawn(async move {
            let begun = Instant::now();
            let mut device = Device::new();
            let came = timeout(LONGEST, device.persist(address(BLOCK, n), relay)).await;
            (begun.elapsed(), came.map_or(1, |came| 1 + came.cut + came.sent_away))
        }));
        tokio::time::sleep(EVERY).await;
    }
    let (mut times, mut all) = (Vec::new(), 0);
    for device in coming {
        let (time, attempts) = device.await?;
        times.push(time);
        all += attempts;
    }
    Ok((times, all))
}

/// Two devices that name each other and know that the other is here.
pub async fn pair(relay: SocketAddr) -> Result<[(Device, Box<Socket>); 2]> {
    let (mut one, mut other) = (Device::new(), Device::new());
    let mut mine = one.persist(address(BLOCK, 0), relay).await.socket;
    let mut theirs = other.persist(address(BLOCK, 1), relay).await.socket;
    tell(&mut mine, &ToRelay::Peers(vec![other.id()])).await?;
    tell(&mut theirs, &ToRelay::Peers(vec![one.id()])).await?;
    for socket in [&mut mine, &mut theirs] {
        let frame = timeout(LONGEST, heard(socket)).await?.context("the pair was cut")?;
        anyhow::ensure!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Presence { here: true, .. })), "no presence");
    }
    Ok([(one, mine), (other, theirs)])
}

async fn frames(relay: SocketAddr, stop: Arc<AtomicBool>) -> Result<Vec<Duration>> {
    let [(one, mut mine), (other, mut theirs)] = pair(relay).await?;
    let back = one.id();
    tokio::spawn(async move {
        while let Some(frame) = heard(&mut theirs).await {
            if let Ok(FromRelay::Deliver { payload, .. }) = FromRelay::decode(&frame) {
                tell(&mut theirs, &ToRelay::Send { to: back, tag: 0, payload }).await?;
            }
        }
        anyhow::Ok(())
    });
    let mut trips = Vec::new();
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        tell(&mut mine, &ToRelay::Send { to: other.id(), tag: 0, payload: &[1; 64] }).await?;
        let frame = timeout(LONGEST, heard(&mut mine)).await;
        if let Ok(frame) = frame {
            let frame = frame.context("the honest pair was cut")?;
            anyhow::ensure!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Deliver { .. })), "not the echo");
        }
        trips.push(begun.elapsed());
        tokio::time::sleep(FRAME_EVERY).await;
    }
    Ok(trips)
}
