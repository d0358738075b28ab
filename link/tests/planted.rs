//! The simulation must find each bug that is planted into the link, or it would prove little.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use happy_link::planted::{Bug, plant};
use model::cast::{null_peer, null_suite};
use model::plan::Plan;

/// Each has to show within so many seeds.
const SEEDS: u64 = 2000;

/// The first seed that fails with a bug, and how.
fn find(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (0..SEEDS).find_map(|seed| Some((seed, Plan::of(seed).try_run(null_suite, null_peer).err()?)));
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    // What a planted bug says is printed below; the panics of all the seeds that fail are not.
    std::panic::set_hook(Box::new(|_| {}));
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let first = find(*bug);
                    found.lock().unwrap().push((*bug, first));
                }
            });
        }
    });
    drop(std::panic::take_hook());
    let mut found = found.into_inner().unwrap();
    found.sort_by_key(|(bug, _)| *bug);
    for (bug, first) in &found {
        match first {
            Some((seed, why)) => {
                let why: String = why.lines().next().unwrap_or_default().chars().take(90).collect();
                println!("{:<24} seed {seed:>4}  {why}", format!("{bug:?}"));
            }
            None => println!("{:<24} NOT FOUND", format!("{bug:?}")),
        }
    }
    let missed: Vec<_> = found.iter().filter(|(_, first)| first.is_none()).map(|(bug, _)| bug).collect();
    assert!(missed.is_empty(), "the simulation does not find {missed:?} within {SEEDS} seeds");
}
