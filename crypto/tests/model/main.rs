//! The state machine as a whole (`docs/THREAT-MODEL.md`, A18 to A21): two devices with durable ratchets and pair secrets,
//! a network that does what it likes, storage that fails at every step, copies, thieves and a second writer.
//!
//! A run is a [`Schedule`] drawn from a seed; `cargo xtask fuzz-model` plays a million of them. What must hold in each:
//!
//! - no message is delivered twice, none is altered, none that was forged is opened;
//! - no key and nonce seal two plaintexts, and no message key seals two messages that left, unless a copy was alive that nobody could know of;
//! - a message that could not be stored is opened when it comes again;
//! - the two are in step when nothing is lost any more, at once when nothing was restored and the session stands, else after
//!   one handshake; only where a whole device was set back may it take a new pairing;
//! - a revoked device never gets in, and a pair secret older than the previous one is never accepted;
//! - an old record is refused when the application knows a later generation, and a second writer is found when the storage compares.
//!
//! # Seen to fail
//!
//! Each of these was done to the code, and what this model said within its first schedules is what stands beside it. The tests beside
//! the code found all of them too that are in the library.
//!
//! | broken | what the model said |
//! |---|---|
//! | `send` lets the message out and commits later | two writers have written |
//! | `receive` lets the plaintext out and commits later | out of step although nothing was restored |
//! | `receive` keeps the new state when the commit was refused | a message that could not be stored is lost |
//! | `send` leaves the message in the outbox when the commit was refused | the record cannot be read |
//! | a lease outlives a turn of the ratchet | out of step although nothing was restored |
//! | commits write the state in memory, not that at the end of the lease | a message key was used for two messages |
//! | `load` ignores the generation that is known | an old copy was loaded |
//! | the wrong generation is expected of the storage | a conflict without a second writer |
//! | the value goes on after an unknown outcome | a value went on that does not know what is stored |
//! | `renew` keeps the new ratchet when the commit was refused | a session that was not stored has begun |
//! | the ratchet commits before the tag of the body held | the key of a message is gone that was never opened |
//! | the salt of a message is constant | one key and nonce sealed two plaintexts |
//! | the machine drops the older pair secret at once | one handshake did not help |
//! | the machine takes any pair secret that there was | an old pair secret was accepted |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what it has to say by failing and printing"
)]

mod device;
mod disk;
mod schedule;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use schedule::{Schedule, shrink};
use world::{Counts, Outcome, run};

/// What an ordinary test run plays.
const ORDINARY: u64 = 10_000;
/// What `cargo xtask fuzz-model` plays unless told otherwise.
const MILLION: u64 = 1_000_000;
/// Situations that a long run must have met, or it has shown nothing about them.
const MUST_MEET: &[&str] = &[
    "acknowledged",
    "came again after a crash",
    "commit refused",
    "confirmed too late",
    "crash after handling",
    "crash after the commit",
    "crash before handling",
    "crash before the commit",
    "crash between two steps",
    "crash in the commit",
    "drop",
    "duplicate",
    "forge: damaged",
    "forge: sent back",
    "handshake of a revoked device refused",
    "handshake started while another waits",
    "hello not authentic",
    "in step after a new pairing",
    "in step after one handshake",
    "in step at once",
    "message key used by two copies, with other nonces",
    "message of a revoked device",
    "old copy not recognised",
    "older pair secret tried",
    "old copy recognised",
    "pair secret before it deleted",
    "pair secret moved on",
    "repetition told apart",
    "reset asked for",
    "restore: the device",
    "restore: the record",
    "revoked and stays out",
    "second writer found",
    "send: lease",
    "send: outbox",
    "sent again",
    "session not stored",
    "shuffle",
    "sync failed",
    "thief with an old copy",
    "two writers",
    "unknown pair secret refused",
];

#[test]
fn whatever_happens_nothing_is_said_twice_and_both_come_back_in_step() {
    play(number("HAPPY_MODEL_SEED", 1), ORDINARY);
}

#[test]
#[ignore = "takes long: `cargo xtask fuzz-model` runs it optimised"]
fn a_million_schedules() {
    play(number("HAPPY_MODEL_SEED", 1), number("HAPPY_MODEL_SCHEDULES", MILLION));
}

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
        Err(_) => otherwise,
    }
}

/// Plays so many schedules, from this seed on, on all cores.
fn play(first: u64, schedules: u64) {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None::<u64>);
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut counts = Counts::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= schedules || failed.lock().unwrap().is_some() {
                return counts;
            }
            if index > 0 && index.is_multiple_of(20_000) {
                let rate = index as f64 / began.elapsed().as_secs_f64();
                println!("{index} of {schedules} schedules, {rate:.0} a second");
            }
            let seed = first.wrapping_add(index);
            let (outcome, more) = guarded(&Schedule::draw(seed));
            merge(&mut counts, more);
            if outcome.is_err() {
                *failed.lock().unwrap() = Some(seed);
            }
        }
    };
    let mut counts = Counts::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().for_each(|worker| merge(&mut counts, worker.join().expect("workers catch what panics")));
    });
    if let Some(seed) = *failed.lock().unwrap() {
        explain(seed);
    }
    report(&counts, schedules, began.elapsed());
    if schedules >= ORDINARY {
        let missed: Vec<_> = MUST_MEET.iter().filter(|what| !counts.contains_key(*what)).collect();
        assert!(missed.is_empty(), "no schedule met: {missed:?}");
    }
}

/// A run in which a panic is a failure like any other.
fn guarded(schedule: &Schedule) -> (Outcome, Counts) {
    catch_unwind(AssertUnwindSafe(|| run(schedule)))
        .unwrap_or_else(|_| (Err("a panic, see above".to_owned()), Counts::new()))
}

fn merge(counts: &mut Counts, more: Counts) {
    more.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
}

fn report(counts: &Counts, schedules: u64, took: Duration) {
    counts.iter().for_each(|(what, count)| println!("{count:>12}  {what}"));
    let seconds = took.as_secs_f64();
    println!("{schedules} schedules in {seconds:.1} s, {:.0} a second", schedules as f64 / seconds);
}

/// Fails with the shortest schedule that fails as this seed does.
fn explain(seed: u64) {
    let schedule = Schedule::draw(seed);
    let shortest = shrink(&schedule, |candidate| guarded(candidate).0.is_err());
    let why = guarded(&shortest).0.err().unwrap_or_default();
    let events: String = shortest.events.iter().map(|event| format!("\n    {event:?}")).collect();
    panic!(
        "seed {seed}: {why}\n  storage compares: {}\n  {} of {} events:{events}\n  again: HAPPY_MODEL_SEED={seed}",
        shortest.compares,
        shortest.events.len(),
        schedule.events.len()
    );
}
