//! The machine: one core for the server and one for the load, and whether anybody else used them meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::processor;

/// What other processes may take of the machine, in cores, before a cell counts for nothing.
const OTHERS_AT_MOST: f64 = 0.15;
/// How often a cell is tried before the machine counts as too busy.
const ATTEMPTS: usize = 12;
/// After a cell that was disturbed.
const PAUSE: Duration = Duration::from_millis(500);

/// The two cores that are measured on.
#[derive(Clone, Copy)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// The first two that this process may use, with this thread and all that it starts pinned to the second.
    pub fn take() -> Result<Cores> {
        let may = sched_getaffinity(None)?;
        let mut free = (0..CpuSet::MAX_CPU).filter(|core| may.is_set(*core));
        let (Some(server), Some(load)) = (free.next(), free.next()) else {
            bail!("server and load need a core each, and there is only one");
        };
        pin(load)?;
        Ok(Cores { server, load })
    }

    /// Does something, such as starting a process, on the core of the server. What is started stays there.
    pub fn on_server<T>(self, action: impl FnOnce() -> Result<T>) -> Result<T> {
        pin(self.server)?;
        let done = action();
        pin(self.load)?;
        done
    }
}

fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).with_context(|| format!("core {core} cannot be chosen"))
}

/// Lets this process, and those that it starts, open as many sockets as it may at all.
pub fn open_many() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Resident memory of a process, bytes.
pub fn resident(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("it has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0)
}

/// What the processors of the machine did since it started.
fn busy() -> Result<Busy> {
    let text = fs::read_to_string("/proc/stat")?;
    let mut numbers = text.lines().next().context("empty /proc/stat")?.split_whitespace().skip(1);
    let mut next = || numbers.next().and_then(|number| number.parse::<f64>().ok()).context("short /proc/stat");
    let (user, nice, system, _idle, _wait) = (next()?, next()?, next()?, next()?, next()?);
    let (irq, softirq, steal) = (next()?, next()?, next()?);
    let hertz = rustix::param::clock_ticks_per_second() as f64;
    Ok(Busy { all: (user + nice + system + irq + softirq + steal) / hertz, stolen: steal / hertz })
}

/// Seconds of all processors.
struct Busy {
    /// In which they were not idle.
    all: f64,
    /// Of those, the ones that other machines on the same host had, while ours wanted them.
    stolen: f64,
}

/// Watches what others take while something is measured.
pub struct Watch {
    ours: Vec<u32>,
    began: Instant,
    busy: Busy,
    used: f64,
}

impl Watch {
    /// From now on. `ours` are the processes that are measured; this one is always among them.
    pub fn begin(ours: &[u32]) -> Result<Watch> {
        Ok(Watch { began: Instant::now(), busy: busy()?, used: used(ours)?, ours: ours.to_vec() })
    }

    /// Cores that others took since.
    pub fn others(&self) -> Result<f64> {
        let theirs = (busy()?.all - self.busy.all) - (used(&self.ours)? - self.used);
        Ok((theirs / self.began.elapsed().as_secs_f64()).max(0.0))
    }

    /// Cores that other machines took since; part of [`Watch::others`].
    pub fn stolen(&self) -> Result<f64> {
        Ok((busy()?.stolen - self.busy.stolen) / self.began.elapsed().as_secs_f64())
    }
}

/// What these and this process took so far. What is left of a process that has ended is in the account of its parent, this one, and what is left
/// of a thread of the load in that of its process.
fn used(ours: &[u32]) -> Result<f64> {
    let lives = |process: &&u32| fs::exists(format!("/proc/{process}")).unwrap_or(false);
    let alive =
        ours.iter().filter(lives).map(|process| Ok(processor::time_of(*process)?.as_secs_f64())).sum::<Result<f64>>();
    Ok(alive? + processor::own_time()?.as_secs_f64() + of_children()?)
}

/// What the children of this process took that have ended and were waited for.
fn of_children() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may contain anything, stand the state and numbers.
    let (_, numbers) = text.rsplit_once(')').context("no stat")?;
    let ticks = |number: Option<&str>| number.and_then(|ticks| ticks.parse::<f64>().ok()).context("short stat");
    // cutime is field 16, and the first number here is field 3, the state (proc_pid_stat(5)).
    let mut numbers = numbers.split_whitespace().skip(13);
    let (user, system) = (ticks(numbers.next())?, ticks(numbers.next())?);
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// Counts the cells that were thrown away, and decides.
pub struct Judge {
    /// Takes cells as they come.
    pub lenient: bool,
    pub thrown_away: usize,
}

impl Judge {
    /// Measures until nobody disturbed it.
    pub fn undisturbed<T>(&mut self, what: &str, ours: &[u32], mut measure: impl FnMut() -> Result<T>) -> Result<T> {
        self.watched(what, || {
            let watch = Watch::begin(ours)?;
            Ok((measure()?, watch.others()?))
        })
    }

    /// The same where the measurement itself says what others took while it counted.
    pub fn watched<T>(&mut self, what: &str, mut measure: impl FnMut() -> Result<(T, f64)>) -> Result<T> {
        for _ in 0..ATTEMPTS {
            let (value, others) = measure().with_context(|| what.to_owned())?;
            if self.lenient || others <= OTHERS_AT_MOST {
                return Ok(value);
            }
            self.thrown_away += 1;
            std::thread::sleep(PAUSE);
        }
        bail!(
            "{what}: others took more than {OTHERS_AT_MOST} core {ATTEMPTS} times; the machine is too busy to measure"
        )
    }
}

/// What each of some values is to the one that was measured beside it.
pub fn ratios(values: &[f64], beside: &[f64]) -> Vec<f64> {
    values.iter().zip(beside).map(|(value, beside)| value / beside).collect()
}

/// The middle one of what was measured.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
