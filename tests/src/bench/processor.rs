//! Processor time: what processes took of it, and who gives way to whom.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::gettid;

/// From now on this thread runs only when nobody else wants its processor (`SCHED_IDLE`, `sched(7)`), and leaves it at once when somebody does. A
/// nice value, however large, lets it go on to the end of its slice: 4 ms where the kernel ticks 250 times a second.
pub fn give_way() -> Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let set = Command::new("chrt").args(["--idle", "--pid", "0", &thread]).output();
    let set = set.context("`chrt`, of util-linux, cannot be run")?;
    ensure!(set.status.success(), "a thread cannot give way: {}", String::from_utf8_lossy(&set.stderr));
    Ok(())
}

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
