//! Waits for many devices at once.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::Result;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// Events taken at once.
const EVENTS: usize = 256;

/// Which devices can be read or written.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    pub fn new() -> Result<Poll> {
        Ok(Poll { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches a device that is to be read.
    pub fn add(&self, device: &impl AsFd, number: usize) -> Result<()> {
        Ok(epoll::add(&self.epoll, device, EventData::new_u64(number as u64), EventFlags::IN)?)
    }

    /// Whether it waits for room to write as well.
    pub fn writes(&self, device: &impl AsFd, number: usize, waits: bool) -> Result<()> {
        let flags = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, device, EventData::new_u64(number as u64), flags)?)
    }

    /// The numbers of those where something can be done.
    pub fn wait(&mut self, patience: Duration, ready: &mut Vec<usize>) -> Result<()> {
        ready.clear();
        self.events.clear();
        let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&patience)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let data = event.data;
            data.u64() as usize
        }));
        Ok(())
    }
}
