//! Random worlds for the asynchronous drivers: the driver for tokio, as programs use it, on a machine and its phones, and the relay, as it is
//! served, over simulated TCP in virtual time. Keys, websockets and frames are the real ones.
//!
//! `cargo xtask sim --drivers` runs as many as are wanted; a failure names its seed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod device;
mod people;
mod rough;
mod seeded;
mod world;

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Instant;

use world::{Counts, Outcome};

/// What a suite must have met, so that its being well proves something.
const MET: &[&str] = &[
    "call answered",
    "call cancelled",
    "call ended with its driver (LinkGone)",
    "call indeterminate",
    "call past its deadline",
    "callee told of a cancelled call",
    "closed in order",
    "command asked again",
    "command delivered",
    "driver shut down and started",
    "emit waited",
    "event",
    "fault: connection reset",
    "fault: latency changed",
    "fault: one way lost from the relay",
    "fault: one way lost to the relay",
    "fault: partition",
    "fault: process killed",
    "fault: relay killed",
    "fault: relay restarted in order",
    "fault: slept",
    "fault: stalled",
    "link down",
    "message",
    "new session",
    "probe call answered",
    "queue full",
    "resumed session",
    "secrets stored",
    "send given up and begun again",
    "send waited",
];

thread_local! {
    /// What a task of this thread has panicked with. The runtimes catch it, and nobody else would hear of it.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this is the thread of a world.
    static IN_WORLD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Panics of worlds are kept for their seed to be printed with; all others go where they went.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if IN_WORLD.get() {
                PANICKED.with_borrow_mut(|first| first.get_or_insert_with(|| info.to_string()).len());
            } else {
                usual(info);
            }
        }));
    });
}

/// Runs a seed on a thread of its own, where everything that belongs to a thread is new.
fn run(seed: u64) -> Result<Outcome, String> {
    run_prepared(seed, || {})
}

fn run_prepared(seed: u64, prepare: impl FnOnce() + Send + 'static) -> Result<Outcome, String> {
    listen_for_panics();
    let world = move || {
        IN_WORLD.set(true);
        seeded::seed_thread(seed);
        prepare();
        let panicked = || PANICKED.with_borrow(Clone::clone);
        let ran = panic::catch_unwind(AssertUnwindSafe(|| world::run(seed, &panicked)));
        match (ran, panicked()) {
            (Ok(Err(why)), _) => Err(why),
            (_, Some(panic)) => Err(panic),
            (Ok(Ok(outcome)), None) => Ok(outcome),
            (Err(_), None) => Err("it panicked".into()),
        }
    };
    let thread = thread::Builder::new().name(format!("seed {seed}")).stack_size(8 << 20).spawn(world);
    thread.expect("a thread starts").join().unwrap_or_else(|_| Err("its thread died".into()))
}

fn add(sum: &mut Counts, counts: &Counts) {
    for (what, count) in counts {
        *sum.entry(what).or_default() += count;
    }
}

/// Runs seeds on all cores and adds up what they met.
fn run_all(first: u64, seeds: u64) -> Counts {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (sum, failed) = (Mutex::new(Counts::new()), Mutex::new(None));
    let began = Instant::now();
    let told = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= seeds {
                        break;
                    }
                    match run(seed) {
                        Ok(outcome) => {
                            let mut sum = sum.lock().unwrap();
                            add(&mut sum, &outcome.counts);
                            *sum.entry("seeds").or_default() += 1;
                        }
                        Err(why) => {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().unwrap().get_or_insert((seed, why));
                        }
                    }
                    let step = began.elapsed().as_secs() / 15;
                    if told.fetch_max(step, Ordering::Relaxed) < step {
                        println!("progress {} seeds, {} s", seed - first, began.elapsed().as_secs());
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failed.into_inner().unwrap() {
        panic!("seed {seed} fails: {why}\nrun it again: cargo xtask sim --drivers --first-seed {seed} --seeds 1");
    }
    sum.into_inner().unwrap()
}

fn check_met(counts: &Counts, least: u64) {
    for what in MET {
        assert!(counts.get(what).is_some_and(|count| *count >= least), "too few of “{what}”: {counts:#?}");
    }
}

/// Two runs of a seed tell the same.
#[cfg(target_os = "linux")]
fn check_twice(seed: u64) {
    let [first, second] = [(); 2].map(|()| run(seed).unwrap_or_else(|why| panic!("seed {seed} fails: {why}")));
    let differs = first.trace.iter().zip(&second.trace).position(|(one, other)| one != other);
    if let Some(at) = differs {
        let around = |trace: &[String]| trace[at.saturating_sub(5)..(at + 2).min(trace.len())].join("\n");
        panic!("seed {seed} ran differently:\n{}\n\n{}", around(&first.trace), around(&second.trace));
    }
    assert_eq!(first.hash, second.hash, "seed {seed} ran differently");
}

fn faults(counts: &Counts) -> u64 {
    counts.iter().filter(|(what, _)| what.starts_with("fault: ")).map(|(_, count)| count).sum()
}

#[test]
fn the_drivers_keep_every_promise() {
    let counts = run_all(0, 48);
    check_met(&counts, 5);
}

#[test]
#[cfg(target_os = "linux")]
fn a_seed_tells_the_whole_story() {
    for seed in 0..4 {
        check_twice(seed);
    }
}

/// Each planted bug has to show within so many seeds.
#[cfg(feature = "planted")]
const SEEDS_FOR_A_BUG: u64 = 200;

/// Without finding bugs that are there, finding none would prove little.
#[test]
#[cfg(feature = "planted")]
fn every_bug_that_is_planted_into_the_driver_is_found() {
    use happy_link::planted::{Bug, plant};
    let (next, found) = (std::sync::atomic::AtomicUsize::new(0), Mutex::new(Vec::new()));
    let find = |bug: Bug| {
        let fails = |seed: u64| run_prepared(seed, move || plant(Some(bug))).err().map(|why| (seed, why));
        (0..SEEDS_FOR_A_BUG).find_map(fails)
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = Bug::OF_THE_DRIVER.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let first = find(*bug);
                    found.lock().unwrap().push((*bug, first));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(bug, _)| *bug);
    for (bug, first) in &found {
        let (bug, why) = (format!("{bug:?}"), first.as_ref().map(|(_, why)| why.as_str()).unwrap_or("NOT FOUND"));
        let seed = first.as_ref().map_or(SEEDS_FOR_A_BUG, |(seed, _)| *seed);
        let lines: Vec<&str> = why.lines().take(2).collect();
        println!("{bug:<24} seed {seed:>4}  {}", lines.join(" ").chars().take(150).collect::<String>());
    }
    let missed: Vec<_> = found.iter().filter(|(_, first)| first.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "the simulation does not find {missed:?} within {SEEDS_FOR_A_BUG} seeds");
}

/// `cargo xtask sim --drivers` runs this with the numbers that it was given.
#[test]
#[ignore = "takes as long as it is asked to"]
fn as_many_as_asked_for() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, seeds) = (asked("HAPPY_SIM_FIRST").unwrap_or(0), asked("HAPPY_SIM_SEEDS").unwrap_or(1));
    let counts = run_all(first, seeds);
    if seeds >= 48 {
        check_met(&counts, 5);
    }
    for (what, count) in &counts {
        println!("count {count:>12}  {what}");
    }
    #[cfg(target_os = "linux")]
    for number in 0..(seeds / 50).clamp(1, 100) {
        check_twice(first + number * seeds / (seeds / 50).clamp(1, 100));
    }
    println!("sum {seeds} seeds, {} faults, {} virtual hours", faults(&counts), counts["virtual seconds"] / 3600);
    println!("sum 0 violations");
}
