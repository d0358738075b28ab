//! Many devices that come back at once: after the relay was killed, and after it was told to stop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use happy_wire::relay::FromRelay;

use super::device::{Device, below, heard};
use super::{Report, address, beside, joined, memory, percentile};
use crate::process::Relay;

/// How long the first arrival of all, or the return, may take before it is given up.
const LONGEST: Duration = Duration::from_secs(120);

/// One login: when, and how often the device was sent away before.
type Login = (Instant, u32);

/// The logins of all of them.
#[derive(Default)]
struct Log(Mutex<Vec<Login>>);

impl Log {
    fn logins(&self) -> MutexGuard<'_, Vec<Login>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, login: Login) {
        self.logins().push(login);
    }

    fn take(&self) -> Vec<Login> {
        std::mem::take(&mut *self.logins())
    }
}

/// `logins` is what the relay may check in a second.
pub fn run(devices: usize, logins: usize, report: &mut Report) -> Result<()> {
    let limit = logins.to_string();
    let limits = ["--no-app", "--log", "warn", "--max-connections", "20000", "--max-logins", &limit];
    let mut relay = Relay::start_with(&limits)?;
    let (log, stop) = (Arc::new(Log::default()), Arc::new(AtomicBool::new(false)));
    let crowd = beside(all(devices, relay.address(), log.clone(), stop.clone()));
    wait(&log, devices)?;
    log.take();

    relay.kill_and_restart()?;
    let memory = memory::Watch::start(relay.id());
    let back = Instant::now();
    wait(&log, devices)?;
    let returned = Returned::new(back, log.take());
    report.fact(format!("crowd: {devices} devices after kill -9, {logins} logins a second: {returned}"));
    report.at_most("crowd-all-back", returned.all_after, "s", 60.0);
    // A tenth more at once is what the relay allows, and a tenth of a second may pass between what it admits and what is seen here.
    report.time_at_most("crowd-logins-in-a-second", returned.most() as f64, "logins", 1.2 * logins as f64);
    let (unevenness, most) = returned.unevenness(3);
    report.time_at_most("crowd-most-to-mean", unevenness, "", most);
    report.at_most("crowd-sent-away-p99", returned.sent_away_p99, "times", 2.0);
    report.at_most("crowd-memory", memory.peak(), "MiB", memory::bound(1_024, devices, 0));

    let stopping = Instant::now();
    relay.stop_and_restart()?;
    wait(&log, devices)?;
    let returned = Returned::new(stopping, log.take());
    report.fact(format!("drain: {devices} devices after SIGTERM: {returned}"));
    report.at_most("drain-all-back", returned.all_after, "s", 60.0);
    let (unevenness, most) = returned.unevenness(2);
    report.time_at_most("drain-most-to-mean", unevenness, "", most);
    stop.store(true, Relaxed);
    joined(crowd)
}

fn wait(log: &Log, devices: usize) -> Result<()> {
    let begun = Instant::now();
    while log.logins().len() < devices {
        ensure!(begun.elapsed() < LONGEST, "{} of {devices} devices came in {LONGEST:?}", log.logins().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// How a crowd came back.
struct Returned {
    all_after: f64,
    /// Logins in each second.
    each: Vec<usize>,
    sent_away_p99: f64,
}

impl Returned {
    fn new(since: Instant, logins: Vec<Login>) -> Self {
        let mut times: Vec<_> = logins.iter().map(|(at, _)| at.saturating_duration_since(since)).collect();
        let all_after = percentile(&mut times, 100);
        let mut each = vec![0; all_after as usize + 1];
        times.iter().for_each(|time| each[time.as_secs() as usize] += 1);
        let mut sent_away: Vec<_> = logins.iter().map(|(_, sent_away)| *sent_away).collect();
        sent_away.sort_unstable();
        let sent_away_p99 = sent_away.get(sent_away.len() * 99 / 100).copied().unwrap_or(0).into();
        Self { all_after, each, sent_away_p99 }
    }

    fn most(&self) -> usize {
        self.each.iter().copied().max().unwrap_or(0)
    }

    /// The fullest second to the mean one: a second wave would be such a second. Without the first ones, in which those come to whom nothing was
    /// promised or whose time was over before the relay was back, and the last tenth, which thins out. And the most that this may be:
    /// a tenth, and three standard deviations of so many that come each at a time of chance, a quarter in all for 400 a second.
    fn unevenness(&self, first: usize) -> (f64, f64) {
        let last = self.each.len() * 9 / 10;
        let middle = self.each.get(first..last).unwrap_or_default();
        let mean = middle.iter().sum::<usize>() as f64 / middle.len() as f64;
        (middle.iter().copied().max().unwrap_or(0) as f64 / mean, 1.1 + 3.0 / mean.sqrt())
    }
}

impl std::fmt::Display for Returned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "all were back after {:.1} s; each second {:?}", self.all_after, self.each)
    }
}

async fn all(devices: usize, relay: SocketAddr, log: Arc<Log>, stop: Arc<AtomicBool>) -> Result<()> {
    let tasks: Vec<_> = (0..devices)
        .map(|n| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut device = Device::new();
                // At first they come one after another.
                let mut named = Some(below(Duration::from_millis(2 * devices as u64)));
                loop {
                    let mut arrived = device.return_to(address(5, n), relay, named).await;
                    log.push((Instant::now(), arrived.sent_away));
                    named = None;
                    while let Some(frame) = heard(&mut arrived.socket).await {
                        if let Ok(FromRelay::Goaway { retry_after_ms, .. }) = FromRelay::decode(&frame) {
                            named = Some(Duration::from_millis(retry_after_ms.into()));
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    while !stop.load(Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}
