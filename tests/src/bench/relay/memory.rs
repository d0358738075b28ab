//! What a connection weighs that does nothing, and what is left of a burst.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::device::{Device, SCRATCH};
use super::machine::Cores;
use super::poll::Poll;
use super::server::{Kind, Server};

/// The burst: so many payloads of so many bytes, each way.
const BURST: usize = 32;
const BURST_PAYLOAD: usize = 1024;
/// After it, memory is to be back within this.
const BACK: Duration = Duration::from_secs(30);
/// By this factor, of what a fresh connection weighs.
pub const BACK_TO: f64 = 1.5;
/// While connecting, those that are there answer the relay's pings now and then.
const ATTEND: usize = 100;
/// What is measured settles for so long.
const SETTLE: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(60);

/// Many devices.
pub struct Crowd {
    pub devices: Vec<Device>,
    poll: Poll,
    scratch: Vec<u8>,
    arrived: u64,
}

impl Crowd {
    pub fn connect(server: &Server, count: usize) -> Result<Crowd> {
        let mut crowd =
            Crowd { devices: Vec::with_capacity(count), poll: Poll::new()?, scratch: vec![0; SCRATCH], arrived: 0 };
        while crowd.devices.len() < count {
            let device = Device::connect(server)?;
            crowd.poll.add(&device, crowd.devices.len())?;
            crowd.devices.push(device);
            if crowd.devices.len().is_multiple_of(ATTEND) {
                crowd.attend(Duration::ZERO)?;
            }
        }
        Ok(crowd)
    }

    /// Reads what comes for a while.
    pub fn attend(&mut self, time: Duration) -> Result<()> {
        let began = Instant::now();
        let mut ready = Vec::new();
        loop {
            let left = time.saturating_sub(began.elapsed());
            self.poll.wait(left, &mut ready)?;
            for &number in &ready {
                self.arrived += self.devices[number].read(&mut self.scratch)?.payloads;
            }
            if left.is_zero() && ready.is_empty() {
                return Ok(());
            }
        }
    }

    /// Every two devices send each other a burst.
    fn burst(&mut self) -> Result<()> {
        for number in (0..self.devices.len()).step_by(2) {
            if let Some([one, other]) = self.devices.get_mut(number..number + 2) {
                Device::pair(one, other)?;
            }
        }
        let wanted = self.arrived + (self.devices.len() * BURST) as u64;
        let mut left: Vec<usize> = Vec::new();
        let mut rows = Vec::new();
        for number in 0..self.devices.len() {
            let frames = self.devices[number].prepare(&self.devices[number ^ 1].key, BURST_PAYLOAD, BURST);
            let row = frames.row(0, BURST * frames.frame()).to_vec();
            let written = self.devices[number].write(&row)?;
            left.push(written);
            // Whoever has written everything needs its row no more.
            rows.push(if written < row.len() { row } else { Vec::new() });
        }
        let began = Instant::now();
        while self.arrived < wanted {
            ensure!(began.elapsed() < PATIENCE, "{} of {wanted} payloads arrived", self.arrived);
            for (number, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.is_empty()) {
                left[number] += self.devices[number].write(&row[left[number]..])?;
                if left[number] == row.len() {
                    *row = Vec::new();
                }
            }
            self.attend(Duration::ZERO)?;
        }
        Ok(())
    }
}

/// Bytes of the server's memory for each connection.
pub struct Weight {
    pub idle: f64,
    /// At most half a minute after a burst, where one was made.
    pub after: Option<f64>,
}

/// Starts a server of its own and weighs connections to it.
pub fn weigh(kind: Kind, cores: Cores, count: usize, burst: bool) -> Result<Weight> {
    let server = Server::start(kind, cores)?;
    let empty = server.resident()?;
    let each = |resident: f64| (resident - empty) / count as f64;
    let mut crowd = Crowd::connect(&server, count)?;
    crowd.attend(SETTLE)?;
    let idle = each(server.resident()?);
    if !burst {
        return Ok(Weight { idle, after: None });
    }
    let before = server.books()?;
    crowd.burst()?;
    let frames = (count * BURST) as u64;
    server.check(before, frames, frames)?;
    let began = Instant::now();
    let mut after = each(server.resident()?);
    while after > idle * BACK_TO && began.elapsed() < BACK {
        crowd.attend(LOOK)?;
        after = each(server.resident()?);
    }
    Ok(Weight { idle, after: Some(after) })
}
