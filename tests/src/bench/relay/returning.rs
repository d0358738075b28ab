//! A crowd of devices that come back by themselves, as links do (`PROTOCOL 9` and `13`): at one node first, and at another one from when that one
//! sends them away or is lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_tests::load::device::{Device, below, heard};
use happy_wire::relay::FromRelay;

use super::server::{NAME, Server};
use crate::processor;

/// Addresses that they come from, so that none has more sockets than one address may.
const ADDRESSES: usize = 200;
/// So many come each second at first; faster would only make them wait for each other.
const AT_FIRST: u64 = 3_000;
/// How long all of them may take.
const LONGEST: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// A login: when, and how often the relay had named a time before.
#[derive(Clone, Copy)]
pub struct Arrival {
    pub at: Instant,
    pub sent_away: u32,
}

#[derive(Default)]
struct Log {
    stop: AtomicBool,
    arrivals: Mutex<Vec<Arrival>>,
}

impl Log {
    fn arrivals(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The crowd, on a thread of its own.
pub struct Crowd {
    count: usize,
    log: Arc<Log>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Crowd {
    /// Connects so many to `first`, and waits until all are there. Later they go to `then`.
    pub fn connect(count: usize, first: &Server, then: &Server) -> Result<Crowd> {
        let nodes = [first, then].map(|server| SocketAddr::from((Ipv4Addr::LOCALHOST, server.target.port)));
        let log = Arc::new(Log::default());
        let of = log.clone();
        let thread = std::thread::spawn(move || {
            // To whoever measures on the same core: the work of the crowd itself is no relay's.
            processor::give_way()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(live(count, nodes, of))
        });
        let mut crowd = Crowd { count, log, thread: Some(thread) };
        crowd.returned(|| Ok(()))?;
        Ok(crowd)
    }

    /// How many have logged in since the last return of all.
    pub fn here(&self) -> usize {
        self.log.arrivals().len()
    }

    pub fn is_whole(&self) -> bool {
        self.here() >= self.count
    }

    /// Does something again and again until all have logged in, and gives their arrivals.
    pub fn returned(&mut self, mut meanwhile: impl FnMut() -> Result<()>) -> Result<Vec<Arrival>> {
        let began = Instant::now();
        while !self.is_whole() {
            ensure!(began.elapsed() < LONGEST, "{} of {} devices came in {LONGEST:?}", self.here(), self.count);
            meanwhile()?;
            std::thread::sleep(LOOK);
        }
        Ok(std::mem::take(&mut *self.log.arrivals()))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.log.stop.store(true, Relaxed);
        // What its thread had to say would have been missed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn live(count: usize, nodes: [SocketAddr; 2], log: Arc<Log>) -> Result<()> {
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(one(n, count, nodes, log.clone()))).collect();
    while !log.stop.load(Relaxed) {
        tokio::time::sleep(LOOK).await;
    }
    for task in tasks {
        task.abort();
        match task.await {
            Err(error) if error.is_cancelled() => {}
            ended => ended.context("a device ended")?,
        }
    }
    Ok(())
}

async fn one(n: usize, count: usize, [mut node, then]: [SocketAddr; 2], log: Arc<Log>) {
    let from = Ipv4Addr::new(127, 0, 7, (n % ADDRESSES) as u8 + 1);
    let mut device = Device::called(NAME);
    let mut named = Some(below(Duration::from_millis(1_000 * count as u64 / AT_FIRST)));
    loop {
        let mut arrived = device.return_to(from, node, named).await;
        log.arrivals().push(Arrival { at: Instant::now(), sent_away: arrived.sent_away });
        named = None;
        while let Some(frame) = heard(&mut arrived.socket).await {
            if let Ok(FromRelay::Goaway { retry_after_ms, .. }) = FromRelay::decode(&frame) {
                named = Some(Duration::from_millis(retry_after_ms.into()));
                break;
            }
        }
        node = then;
    }
}
