//! What a relay on the open internet meets, all of it on loopback against real processes: `cargo xtask load`.
//!
//! Each part prints what it did, and a line for each bound: `bound NAME VALUE UNIT at most|at least BOUND ok|violated`. The loader runs
//! on the cores of the relay that it loads, so its figures are worse than those of a relay by itself.

mod crowd;
pub mod device;
mod flood;
mod memory;
mod probe;
mod readers;
mod strangers;

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Addresses from which an attack comes.
const ADDRESSES: usize = 200;

/// How much.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Silent and slow sockets at once.
    pub sockets: usize,
    /// How long wrong logins are tried at full speed, and from how many addresses, 200 at most.
    pub flood: (Duration, usize),
    /// Devices that come back at once.
    pub devices: usize,
    /// What the relay of that crowd checks each second.
    pub logins: usize,
    /// Readers that have stopped reading.
    pub frozen: usize,
    /// Whether what waits most of the time may do so at the same time.
    pub together: bool,
    /// Whether a time that is too long violates its bound. Beside other work of the machine it says nothing about the relay.
    pub times_count: bool,
}

impl Size {
    /// What is promised.
    pub const FULL: Size = Size {
        sockets: 8_000,
        flood: (Duration::from_secs(20), ADDRESSES),
        devices: 8_000,
        logins: 400,
        frozen: 64,
        together: false,
        times_count: true,
    };
    /// What fits into half a minute.
    pub const SHORT: Size = Size {
        sockets: 600,
        flood: (Duration::from_secs(3), 20),
        devices: 500,
        logins: 100,
        frozen: 8,
        together: true,
        times_count: false,
    };
}

/// What was found.
#[derive(Debug)]
pub struct Report {
    violated: Vec<String>,
    times_count: bool,
}

impl Report {
    fn new(times_count: bool) -> Self {
        Self { violated: Vec::new(), times_count }
    }

    fn fact(&self, what: impl Display) {
        anstream::println!("{what}");
    }

    fn at_most(&mut self, name: &str, value: f64, unit: &str, bound: f64) {
        self.bound(name, value, unit, "at most", bound, value <= bound);
    }

    fn at_least(&mut self, name: &str, value: f64, unit: &str, bound: f64) {
        self.bound(name, value, unit, "at least", bound, value >= bound);
    }

    /// For what a busy machine alone can violate.
    fn time_at_most(&mut self, name: &str, value: f64, unit: &str, bound: f64) {
        match self.times_count {
            true => self.at_most(name, value, unit, bound),
            false => self.fact(format!("time {name} {value:.3} {unit}, whose bound of {bound:.3} does not count here")),
        }
    }

    /// A value that is no number keeps no bound.
    fn bound(&mut self, name: &str, value: f64, unit: &str, which: &str, bound: f64, holds: bool) {
        let verdict = if holds { "ok" } else { "violated" };
        anstream::println!("bound {name} {value:.3} {unit} {which} {bound} {verdict}");
        if !holds {
            self.violated.push(name.to_owned());
        }
    }

    /// The names of the bounds that did not hold.
    #[must_use]
    pub fn violated(&self) -> &[String] {
        &self.violated
    }
}

/// Runs all of it.
///
/// # Errors
/// When a relay does not start or says what makes no sense; a bound that does not hold is in the report.
pub fn run(size: Size) -> Result<Report> {
    let files = raise_file_limit();
    let mut report = Report::new(size.times_count);
    report.fact(format!("this process and each relay may have {files} files open"));
    // The relay's end and ours are files of two processes.
    let sockets = size.sockets.min(files.saturating_sub(500));
    let devices = size.devices.min(files.saturating_sub(500));
    let waiting: [Part; 3] =
        [&|report| strangers::held(sockets, report), &|report| strangers::too_many(sockets, report), &|report| {
            readers::run(size.frozen, report)
        }];
    let (lasts, addresses) = size.flood;
    let busy: [Part; 2] =
        [&|report| flood::run(addresses, lasts, report), &|report| crowd::run(devices, size.logins, report)];
    match size.together {
        true => together(&waiting, &mut report)?,
        false => waiting.iter().try_for_each(|part| part(&mut report))?,
    }
    busy.iter().try_for_each(|part| part(&mut report))?;
    Ok(report)
}

type Part<'a> = &'a (dyn Fn(&mut Report) -> Result<()> + Sync);

fn together(parts: &[Part<'_>], report: &mut Report) -> Result<()> {
    std::thread::scope(|scope| {
        let times_count = report.times_count;
        let run = move |part: Part<'_>| {
            let mut report = Report::new(times_count);
            part(&mut report).map(|()| report.violated)
        };
        let threads: Vec<_> = parts.iter().map(|part| scope.spawn(move || run(*part))).collect();
        for thread in threads {
            let violated = thread.join().map_err(|_| anyhow::anyhow!("a part panicked"))??;
            report.violated.extend(violated);
        }
        Ok(())
    })
}

/// Allows as many open files as the system lets us, and says how many. Processes that are started later inherit it.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // It stays as it is where that is not permitted.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// One of the addresses of an attack. Not 127.0.0.1, where proxies come from.
fn address(block: u8, n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, block, (n % ADDRESSES) as u8 + 1)
}

/// Runs something on a thread of its own, so that what others do there does not delay it.
fn beside<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> std::thread::JoinHandle<Result<T>> {
    std::thread::spawn(move || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

/// The result of such a thread.
fn joined<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
}

/// The value of a sample of a relay's metrics.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let wanted = format!("happy_relay_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&wanted));
    line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

/// The time that `percent` of the times are not above, in seconds.
fn percentile(times: &mut [Duration], percent: usize) -> f64 {
    times.sort_unstable();
    let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(index).map_or(f64::NAN, Duration::as_secs_f64)
}
