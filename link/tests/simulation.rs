//! Random worlds: whatever the network does, every message arrives once and in order while its session lives, every call runs
//! at most once and is answered exactly once, and when the network is well again so is everything else.
//!
//! `cargo xtask sim` runs as many as are wanted; a failure names its seed, and the smallest plan that fails as well.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use model::cast::{null_peer, null_suite, real_peer, real_suite};
use model::plan::{Plan, add};

type Counts = BTreeMap<&'static str, u64>;

/// What a run must have met, so that its being well proves something.
const MET: [&str; 36] = [
    "answered",
    "closed by the device",
    "closed in order",
    "command: asked again",
    "command: delivered",
    "command: nobody knows",
    "deadline passed",
    "fault: a frame of a later version",
    "fault: a write failed, and was done",
    "fault: cut",
    "fault: died after storing",
    "fault: died while storing",
    "fault: displaced",
    "fault: half open",
    "fault: process restart",
    "fault: quick restart",
    "fault: relay restart",
    "fault: slept",
    "fault: stalled from the relay",
    "fault: stalled to the relay",
    "fault: the disk was full",
    "indeterminate",
    "message",
    "packet garbled",
    "packet lost",
    "packet overtaken",
    "packet repeated",
    "packet withheld",
    "queue full",
    "relay died after forwarding",
    "relay died before forwarding",
    "resumed",
    "session",
    "stored",
    "the relay lies",
    "writable",
];

/// Runs plans on all cores until one fails or `done` says that it is enough; adds up what they counted.
fn run_all(first: u64, done: impl Fn(u64, &Counts) -> bool + Sync, plan: fn(u64) -> Plan, run: Run) -> Counts {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let (sum, failed) = (Mutex::new(Counts::new()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if done(seed, &sum.lock().unwrap()) {
                        break;
                    }
                    match run(&plan(seed)) {
                        Ok(counts) => {
                            let mut sum = sum.lock().unwrap();
                            add(&mut sum, &counts);
                            *sum.entry("seeds").or_default() += 1;
                        }
                        Err(why) => {
                            stop.store(true, Ordering::Relaxed);
                            failed.lock().unwrap().get_or_insert((seed, why));
                        }
                    }
                }
            });
        }
    });
    if let Some((seed, why)) = failed.into_inner().unwrap() {
        let plan = plan(seed).shrink(|plan| run(plan).is_err());
        panic!("seed {seed} fails: {why}\nthe smallest plan that fails as well: {plan:#?}");
    }
    sum.into_inner().unwrap()
}

type Run = fn(&Plan) -> Result<Counts, String>;

fn null_world(plan: &Plan) -> Result<Counts, String> {
    plan.try_run(null_suite, null_peer).map(|world| world.counts)
}

fn real_world(plan: &Plan) -> Result<Counts, String> {
    plan.try_run(real_suite, real_peer).map(|world| world.counts)
}

fn link_faults(counts: &Counts) -> u64 {
    counts.iter().filter(|(what, _)| what.starts_with("fault: ")).map(|(_, count)| count).sum()
}

fn check_met(counts: &Counts, least: u64) {
    for what in MET {
        assert!(counts.get(what).is_some_and(|count| *count >= least), "too few of “{what}”: {counts:#?}");
    }
}

#[test]
fn nothing_is_lost_doubled_or_stuck() {
    let counts = run_all(0, |seed, _| seed >= 600, Plan::of, null_world);
    check_met(&counts, 20);
}

#[test]
fn the_same_holds_with_real_keys() {
    run_all(0, |seed, _| seed >= 12, Plan::small, real_world);
}

#[test]
fn a_seed_tells_the_whole_story() {
    for seed in 0..24 {
        let trace = || Plan::of(seed).run(null_suite, null_peer).trace;
        assert_eq!(trace(), trace(), "seed {seed} ran differently the second time");
    }
}

/// `cargo xtask sim` runs this with the numbers that it was given.
#[test]
#[ignore = "takes as long as it is asked to"]
fn as_many_as_asked_for() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = asked("HAPPY_SIM_FIRST").unwrap_or(0);
    let (seeds, faults) = (asked("HAPPY_SIM_SEEDS"), asked("HAPPY_SIM_FAULTS"));
    let began = Instant::now();
    let told = AtomicU64::new(0);
    let done = |seed: u64, counts: &Counts| {
        let ran = seed - first;
        let so_far = link_faults(counts);
        let step = began.elapsed().as_secs() / 15;
        if told.fetch_max(step, Ordering::Relaxed) < step {
            println!("progress {ran} seeds, {so_far} faults, {} s", began.elapsed().as_secs());
        }
        seeds.is_some_and(|seeds| ran >= seeds) || faults.is_some_and(|faults| so_far >= faults)
    };
    let plan = if asked("HAPPY_SIM_LONG").is_some() { Plan::long } else { Plan::of };
    let counts = run_all(first, done, plan, null_world);
    let ran = counts["seeds"];
    if ran >= 1000 {
        check_met(&counts, 20);
    }
    for (what, count) in &counts {
        println!("count {count:>12}  {what}");
    }
    let with_real_keys = run_all(first, |seed, _| seed - first >= (ran / 500).max(2), Plan::small, real_world);
    // Of seeds spread over the range.
    let twice = (ran / 250).clamp(2, 5000);
    for number in 0..twice {
        let seed = first + number * ran / twice;
        let trace = || plan(seed).run(null_suite, null_peer).trace;
        assert_eq!(trace(), trace(), "seed {seed} ran differently the second time");
    }
    println!("sum {ran} seeds");
    println!("sum {} link faults and crashes", link_faults(&counts));
    println!("sum {} seeds with real keys, {} faults", with_real_keys["seeds"], link_faults(&with_real_keys));
    println!("sum {twice} seeds run twice with equal traces");
    println!("sum 0 violations");
}
