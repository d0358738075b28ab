//! A daemon with its sessions for an hour, and phones that come and go: does anything grow, and is anything lost? `cargo xtask soak` runs it at
//! length, a test in short.
//!
//! Every few minutes everybody leaves, so that like is compared with like: the same sessions, and nobody who looks at them.

mod dashboard;
mod ledger;
pub mod program;
mod report;
mod sample;
mod typist;
mod visitor;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use uuid::Uuid;

pub use report::Report;

use crate::chaos::{Chaos, Weather};
use crate::load::metric;
use crate::phone::Phone;
use crate::process::{Home, Relay, holders_in, wait_until};
use dashboard::Dashboard;
use ledger::{Ledger, Phase};
use sample::Sample;
use visitor::Visitor;

/// What is done.
pub struct Plan {
    /// For how long.
    pub minutes: f64,
    /// How many sessions run all the time.
    pub sessions: usize,
    /// How many phones come and go.
    pub phones: usize,
    /// What runs in the sessions: `PROGRAM act …`, see [`program`].
    pub actor: PathBuf,
    /// The folder of `samples.csv`.
    pub out: PathBuf,
}

impl Plan {
    fn lasts(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }

    /// Whether it is long enough for a slope.
    fn is_long(&self) -> bool {
        self.minutes >= 30.0
    }

    /// Before this nothing is taken for growth: tables and buffers get their size. Ten minutes of an hour.
    fn warm_up(&self) -> Duration {
        self.lasts() / 6
    }

    /// Between two samples.
    fn every(&self) -> Duration {
        if self.is_long() { Duration::from_secs(10) } else { Duration::from_secs(2) }
    }

    /// Between two times at which everybody leaves.
    fn between_quiets(&self) -> Duration {
        (self.lasts() / 2).min(Duration::from_secs(180))
    }
}

/// Threads that wait for work in vain end after ten seconds, so a long run looks for longer than that.
const QUIET_FOR: Duration = Duration::from_secs(12);
/// A short one does not wait for them the first time.
const QUIET_FOR_SHORT: Duration = Duration::from_secs(4);
/// And if it is more than it was before, for as long as this.
const QUIET_AT_MOST: Duration = Duration::from_secs(90);
/// How long phones on broken lines may take to notice, and the relay that they are gone.
const LEAVING: Duration = Duration::from_secs(300);

/// So often it is tried to pair a phone.
const PAIRINGS: u32 = 20;

/// Of ten sessions each plays one of these; a shell where none is named.
const PARTS: [Option<&str>; 10] =
    [None, None, None, None, Some("slow"), Some("slow"), Some("slow"), Some("burst"), Some("dialog"), Some("echo")];

/// One session that runs all the time.
struct Part {
    id: Uuid,
    kind: Option<&'static str>,
    record: PathBuf,
}

/// When nobody was there.
struct Quiet {
    /// Seconds since the beginning.
    at: f64,
    /// The least of each count that was seen.
    lowest: Sample,
    /// The median of the memory of daemon, relay and holders, KiB.
    memory: [u64; 3],
}

/// Runs the plan.
///
/// # Errors
/// When something of it cannot be run; what grew or was lost is in the report.
pub fn run(plan: &Plan) -> Result<Report> {
    ensure!(plan.sessions >= PARTS.len() && plan.phones >= 2, "10 sessions and 2 phones are the least");
    fs::create_dir_all(&plan.out)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let relay = Relay::start()?;
    let home = Home::start(&relay.origin())?;
    let parts = begin(&home, plan)?;
    let of = |kind: &[Option<&str>]| {
        parts.iter().filter(|part| kind.contains(&part.kind)).map(|part| part.id).collect::<Vec<_>>()
    };
    let (phase, phases) = watch::channel(Phase::Quiet);
    let ledger = Arc::new(Ledger::new(phases, of(&[None, Some("slow"), Some("burst")]), of(&[Some("echo")])));
    let mut visitors = Vec::new();
    for number in 0..plan.phones {
        let away = runtime.block_on(pair(&home, &format!("phone {number}")))?.leave();
        let away = runtime.block_on(away);
        let line = runtime.block_on(Chaos::start(None, relay.address(), Weather::default()))?;
        visitors.push(runtime.spawn(Visitor::new(number, away, line, number % 3 == 1, ledger.clone()).run()));
    }
    let status = home.json(["daemon", "status"])?;
    let dashboard = Dashboard {
        port: u16::try_from(status["api_port"].as_u64().context("no local API")?)?,
        token: fs::read_to_string(home.path().join("api.token"))?.trim().to_owned(),
        sessions: plan.sessions,
    };
    let dashboard = runtime.spawn(dashboard.run(ledger.clone()));
    let daemon = u32::try_from(status["pid"].as_u64().context("no daemon")?)?;

    let file = File::create(plan.out.join("samples.csv"))?;
    let mut soak = Soak {
        plan,
        home: &home,
        relay: &relay,
        daemon,
        ledger: &ledger,
        phase,
        parts: &parts,
        began: Instant::now(),
        file,
        samples: Vec::new(),
        quiets: Vec::new(),
    };
    soak.live()?;
    let Soak { samples, quiets, phase, .. } = soak;
    phase.send_replace(Phase::End);
    let typists = finish(&runtime, visitors)?;
    runtime.block_on(dashboard)?;
    Report::new(plan, &parts, &ledger, &typists, samples, quiets)
}

fn finish(
    runtime: &Runtime,
    visitors: Vec<tokio::task::JoinHandle<Vec<typist::Typist>>>,
) -> Result<Vec<typist::Typist>> {
    let mut typists = Vec::new();
    for visitor in visitors {
        typists.extend(runtime.block_on(visitor)?);
    }
    Ok(typists)
}

/// Lets a phone pair. A guest waits for its machine for a few seconds only, which a busy machine may need, so it is tried again.
async fn pair(home: &Home, name: &str) -> Result<Phone> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match home.let_pair("owner", name).await {
            Err(error) if attempts < PAIRINGS => {
                anstream::println!("{name} is paired again: {error:#}");
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Starts the sessions that run all the time.
fn begin(home: &Home, plan: &Plan) -> Result<Vec<Part>> {
    let actor = plan.actor.to_str().context("a path")?;
    let folder = home.path().join("soak");
    fs::create_dir_all(&folder)?;
    let mut parts = Vec::new();
    for (number, kind) in PARTS.iter().cycle().take(plan.sessions).enumerate() {
        let record = folder.join(number.to_string());
        let record_path = record.to_string_lossy().into_owned();
        let name = format!("{} {number}", kind.unwrap_or("shell"));
        // Where much is printed, little is kept, so that it is full before anybody measures.
        let keep = if *kind == Some("echo") { "10M" } else { "64K" };
        let mut words = vec!["run", "--detach", "--keep", keep, "--name", &name];
        // A question stands for longer in a long run.
        let pause = if plan.is_long() { "20" } else { "1" };
        match kind {
            None => words.extend(["env", "PS1=$ ", "sh", "-i"]),
            Some(kind) => words.extend([actor, "act", kind, "--record", &record_path, "--pause", pause]),
        }
        let session = home.json(words)?;
        let id = session["id"].as_str().context("no session")?.parse()?;
        parts.push(Part { id, kind: *kind, record });
    }
    Ok(parts)
}

/// A run that goes on.
struct Soak<'a> {
    plan: &'a Plan,
    home: &'a Home,
    relay: &'a Relay,
    daemon: u32,
    ledger: &'a Ledger,
    phase: watch::Sender<Phase>,
    parts: &'a [Part],
    began: Instant,
    file: File,
    samples: Vec<Sample>,
    quiets: Vec<Quiet>,
}

impl Soak<'_> {
    fn live(&mut self) -> Result<()> {
        writeln!(self.file, "{}", Sample::HEAD)?;
        self.phase.send_replace(Phase::Run);
        let mut next_quiet = self.plan.between_quiets();
        let mut next_line = Duration::ZERO;
        while self.began.elapsed() < self.plan.lasts() {
            sleep(self.plan.every());
            self.sample(false)?;
            let now = self.began.elapsed();
            if now >= next_quiet {
                next_quiet = now + self.plan.between_quiets();
                self.quiet()?;
                self.phase.send_replace(Phase::Run);
            }
            if now >= next_line {
                next_line = now + Duration::from_secs(60);
                self.tell();
            }
        }
        self.quiet()?;
        self.tell();
        Ok(())
    }

    fn sample(&mut self, quiet: bool) -> Result<Sample> {
        let phones = self.ledger.phones.load(Relaxed);
        let at = self.began.elapsed().as_secs_f64();
        let sample = Sample::take(at, quiet, phones, self.daemon, self.relay.id(), self.home.path())?;
        writeln!(self.file, "{sample}")?;
        self.samples.push(sample);
        Ok(sample)
    }

    /// Lets everybody leave, waits until that has come to an end everywhere, and weighs what is left.
    fn quiet(&mut self) -> Result<()> {
        self.phase.send_replace(Phase::Quiet);
        wait_long("phones to leave", || {
            let Ledger { phones, expected, dashboards, .. } = self.ledger;
            Ok([phones, expected, dashboards].iter().all(|count| count.load(Relaxed) == 0))
        })?;
        // The daemon's own is left.
        wait_long("the relay to notice", || Ok(metric(&self.relay.get("/metrics")?, "connections") <= 1.0))?;
        wait_long("viewers to be gone, and sessions that phones have begun", || {
            let mut is_clean = true;
            for session in self.home.json(["ls"])?.as_array().into_iter().flatten() {
                let id = session["id"].as_str().context("no id")?;
                if !self.parts.iter().any(|part| part.id.to_string() == id) {
                    is_clean = false;
                    // A phone whose line broke has left it. It may have ended meanwhile.
                    let _ = self.home.json(["kill", id]);
                }
                is_clean &= session["viewers"].as_u64() == Some(0);
            }
            Ok(is_clean && holders_in(self.home.path()).len() == self.parts.len())
        })?;
        let (began, mut seen) = (Instant::now(), Vec::new());
        loop {
            seen.push(self.sample(true)?);
            let lowest = lowest(&seen).context("no sample")?;
            let is_more = self.quiets.first().is_some_and(|first| !report::grown(&first.lowest, &lowest).is_empty());
            let enough = match (is_more, self.plan.is_long()) {
                (true, _) => QUIET_AT_MOST,
                (false, true) => QUIET_FOR,
                (false, false) => QUIET_FOR_SHORT,
            };
            if began.elapsed() >= enough {
                let all = |of: fn(&Sample) -> u64| median(seen.iter().map(of).collect());
                let memory = [all(|at| at.daemon.pss), all(|at| at.relay.pss), all(|at| at.held.pss)];
                self.quiets.push(Quiet { lowest, at: began.duration_since(self.began).as_secs_f64(), memory });
                break;
            }
            sleep(Duration::from_secs(1));
        }
        let first = self.quiets.first().context("no quiet")?.lowest;
        let grown = report::grown(&first, &self.quiets.last().context("no quiet")?.lowest);
        if !grown.is_empty() {
            anstream::println!("more than at first: {}", grown.join(", "));
            self.show_descriptors();
        }
        Ok(())
    }

    /// What daemon and relay have open, for whoever looks for the cause.
    fn show_descriptors(&self) {
        for process in [self.daemon, self.relay.id()] {
            let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            let files: Vec<_> = files.filter_map(|file| fs::read_link(file.path()).ok()).collect();
            anstream::println!("{process} has open: {files:?}");
        }
    }

    fn tell(&self) {
        let Some(Sample { at, daemon, relay, holders, held, .. }) = self.samples.last() else { return };
        let done = self.ledger.done();
        let count = |what: &str| done.get(what).copied().unwrap_or_default();
        anstream::println!(
            "minute {:>4.1}: daemon {:.1} MiB, {} descriptors, {} threads; relay {:.1} MiB, {}, {}; {holders} holders {:.1} MiB, {}, {}; {} visits, {} \
             lines typed, {} prompts answered, {} troubles",
            at / 60.0,
            mib(daemon.pss),
            daemon.descriptors,
            daemon.threads,
            mib(relay.pss),
            relay.descriptors,
            relay.threads,
            mib(held.pss),
            held.descriptors,
            held.threads,
            count("visits"),
            count("lines typed"),
            count("prompts answered"),
            done.iter().filter(|(what, _)| what.starts_with("troubles")).map(|(_, times)| times).sum::<u64>(),
        );
    }
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The least of each count.
fn lowest(samples: &[Sample]) -> Option<Sample> {
    samples.iter().copied().reduce(|mut lowest, sample| {
        for (least, weight) in
            [(&mut lowest.daemon, sample.daemon), (&mut lowest.relay, sample.relay), (&mut lowest.held, sample.held)]
        {
            least.descriptors = least.descriptors.min(weight.descriptors);
            least.threads = least.threads.min(weight.threads);
        }
        lowest
    })
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Asks until the answer is yes.
fn wait_long(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LEAVING;
    while !ask()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// What the program of a session has read.
fn recorded(path: &Path) -> Result<Vec<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a program has recorded so many lines, or long enough.
fn recorded_in_time(path: &Path, lines: usize) -> Result<Vec<String>> {
    // Who misses some is told of in the report.
    let _ = wait_until("the program to read", || Ok(recorded(path)?.len() >= lines));
    recorded(path)
}
