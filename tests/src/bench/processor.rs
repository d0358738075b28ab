//! Processor time of processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Of a process, all its threads.
pub fn time_of(process: u32) -> Result<Duration> {
    let mut all = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("it has ended")? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).context("a thread has ended")?;
        all += text.split(' ').next().context("no schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(all))
}

/// Of this process, threads that have ended among them.
pub fn own_time() -> Result<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}
