//! How many devices a second can log in: a connection, an upgrade, a challenge and its signature each.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use happy_crypto::Identity;
use happy_link::driver::rng;

use super::device::Device;
use super::server::Server;

/// Devices that log in at once, over and over.
const AT_ONCE: usize = 16;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_secs(1);

/// Logins a second, and how much of its core the server used.
pub fn measure(server: &Server) -> Result<(f64, f64)> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let target = &server.target;
        let device = || -> Result<()> {
            let identity = Identity::generate(&mut rng());
            while !stop.load(Relaxed) {
                let tcp = TcpStream::connect(("127.0.0.1", target.port))?;
                Device::connect_as(target, &identity, tcp)?.reset()?;
                done.fetch_add(1, Relaxed);
            }
            Ok(())
        };
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(device)).collect();
        std::thread::sleep(WARM_UP);
        let (began, before, used) = (Instant::now(), done.load(Relaxed), server.processor_time()?);
        std::thread::sleep(MEASURED);
        let took = began.elapsed().as_secs_f64();
        let (logins, used) = (done.load(Relaxed) - before, server.processor_time()? - used);
        stop.store(true, Relaxed);
        for thread in threads {
            thread.join().ok().context("a thread panicked")??;
        }
        Ok((logins as f64 / took, used.as_secs_f64() / took))
    })
}
