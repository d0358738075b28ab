//! What came of it, and whether it is within its bounds.

use std::collections::BTreeMap;

use anyhow::Result;

use super::ledger::Ledger;
use super::sample::{Sample, Weight, slope};
use super::typist::{Typist, compare};
use super::{Part, Plan, Quiet, recorded, recorded_in_time};
use crate::goal::goal;

/// Daemon and relay: 1 MiB in an hour is what a kilobyte for each visit would come to, and an hour can tell it from the noise of an allocator.
const PROCESS_SLOPE: f64 = 1_024.0;
/// Each holder: a sixteenth of that, 16 pages.
const HOLDER_SLOPE: f64 = 64.0;

/// What came of it.
pub struct Report {
    /// How often each thing was done.
    pub done: BTreeMap<&'static str, u64>,
    /// What must not have happened, in words.
    pub wrong: Vec<String>,
    /// Lines that were typed and not read or not seen.
    pub lost: u64,
    /// Lines that were read or seen twice, or that nobody has typed.
    pub doubled: u64,
    troubles: Vec<String>,
    sessions: usize,
    is_long: bool,
    warm_up: f64,
    samples: Vec<Sample>,
    quiets: Vec<Quiet>,
}

/// One of three kinds of processes.
struct Kind {
    name: &'static str,
    of: fn(&Sample) -> Weight,
    index: usize,
}

const KINDS: [Kind; 3] = [
    Kind { name: "daemon", of: |sample| sample.daemon, index: 0 },
    Kind { name: "relay", of: |sample| sample.relay, index: 1 },
    Kind { name: "holders", of: |sample| sample.held, index: 2 },
];

/// Which counts are higher than they were.
pub(super) fn grown(first: &Sample, now: &Sample) -> Vec<String> {
    let mut grown = Vec::new();
    for Kind { name, of, .. } in &KINDS {
        let (first, now) = (of(first), of(now));
        if now.descriptors > first.descriptors {
            grown.push(format!("{name}: {} descriptors instead of {}", now.descriptors, first.descriptors));
        }
        if now.threads > first.threads {
            grown.push(format!("{name}: {} threads instead of {}", now.threads, first.threads));
        }
    }
    grown
}

impl Report {
    pub(super) fn new(
        plan: &Plan,
        parts: &[Part],
        ledger: &Ledger,
        typists: &[Typist],
        samples: Vec<Sample>,
        quiets: Vec<Quiet>,
    ) -> Result<Report> {
        let (mut lost, mut doubled) = (0, 0);
        for part in parts {
            match part.kind {
                Some("echo") => {
                    let typed: Vec<_> = typists
                        .iter()
                        .filter(|typist| typist.session == part.id)
                        .flat_map(|typist| typist.lines().collect::<Vec<_>>())
                        .collect();
                    let mut read = BTreeMap::new();
                    for line in recorded_in_time(&part.record, typed.len())? {
                        *read.entry(line).or_default() += 1;
                    }
                    let (missing, surplus) = compare(typed.into_iter(), &read);
                    lost += missing;
                    doubled += surplus;
                }
                Some("dialog") => {
                    let lines = recorded(&part.record)?;
                    let read: Vec<_> = lines.iter().filter_map(|line| answer_of(line)).collect();
                    let (missing, surplus) = ledger.compare_answers(part.id, &read);
                    lost += missing;
                    doubled += surplus + (lines.len() - read.len()) as u64;
                }
                _ => {}
            }
        }
        for typist in typists {
            // Of others it has seen what had come until it left.
            let others = typists.iter().filter(|other| other.session == typist.session);
            let all = others.flat_map(|other| other.lines().collect::<Vec<_>>());
            doubled += compare(all, typist.seen()).1;
            lost += compare(typist.lines(), typist.seen()).0;
        }
        Ok(Report {
            done: ledger.done(),
            wrong: ledger.wrongs(),
            lost,
            doubled,
            troubles: ledger.troubles(),
            sessions: plan.sessions,
            is_long: plan.is_long(),
            warm_up: plan.warm_up().as_secs_f64(),
            samples,
            quiets,
        })
    }

    /// The slope of a memory after the warm-up, KiB in an hour: of the times when nobody was there, and of all others.
    fn slopes(&self, kind: &Kind) -> [f64; 2] {
        let quiet = self.quiets.iter().filter(|quiet| quiet.at >= self.warm_up);
        let quiet: Vec<_> = quiet.map(|quiet| (quiet.at / 3600.0, quiet.memory[kind.index] as f64)).collect();
        let busy = self.samples.iter().filter(|sample| !sample.quiet && sample.at >= self.warm_up);
        let busy: Vec<_> = busy.map(|sample| (sample.at / 3600.0, (kind.of)(sample).pss as f64)).collect();
        [quiet, busy].map(|points| slope(&points).unwrap_or(f64::NAN))
    }

    /// By how much a count is higher at the most than it was at first.
    fn growth(&self, count: impl Fn(&Sample) -> u64) -> f64 {
        let counts: Vec<u64> = self.quiets.iter().map(|quiet| count(&quiet.lowest)).collect();
        let most = counts.iter().max().copied().unwrap_or_default();
        counts.first().map_or(f64::NAN, |first| (most - first) as f64)
    }

    fn bound(&self, kind: &Kind) -> f64 {
        if kind.name == "holders" { HOLDER_SLOPE * self.sessions as f64 } else { PROCESS_SLOPE }
    }

    /// Whether it is within its bounds.
    pub fn holds(&self) -> bool {
        let flat = KINDS.iter().all(|kind| {
            let of = kind.of;
            let is_level = !self.is_long || self.slopes(kind)[0] <= self.bound(kind);
            is_level
                && self.growth(|sample| of(sample).descriptors) <= 0.0
                && self.growth(|sample| of(sample).threads) <= 0.0
        });
        flat && self.lost + self.doubled == 0 && self.wrong.is_empty()
    }

    /// Prints tables, and a line for each goal.
    pub fn show(&self) {
        anstream::println!("\n{:<34}{:>10}", "what was done", "times");
        for (what, times) in &self.done {
            anstream::println!("{what:<34}{times:>10}");
        }
        for trouble in &self.troubles {
            anstream::println!("{trouble}");
        }
        for wrong in &self.wrong {
            anstream::println!("wrong: {wrong}");
        }
        anstream::println!(
            "\n{:<10}{:>24}{:>24}{:>12}{:>12}{:>16}{:>16}",
            "",
            "descriptors",
            "threads",
            "first MiB",
            "last MiB",
            "KiB/h, nobody",
            "KiB/h, others"
        );
        for kind in &KINDS {
            let of = kind.of;
            let span = |count: fn(Weight) -> u64| {
                let all = |quiet: bool| {
                    let counts: Vec<u64> = self
                        .samples
                        .iter()
                        .filter(|sample| sample.quiet == quiet)
                        .map(|sample| count(of(sample)))
                        .collect();
                    let (least, most) = (counts.iter().min(), counts.iter().max());
                    format!("{}–{}", least.copied().unwrap_or_default(), most.copied().unwrap_or_default())
                };
                format!("{} ({})", all(true), all(false))
            };
            let memory =
                |quiet: Option<&Quiet>| quiet.map_or(f64::NAN, |quiet| quiet.memory[kind.index] as f64 / 1024.0);
            let first = self.quiets.iter().find(|quiet| quiet.at >= self.warm_up);
            let [nobody, others] = self.slopes(kind);
            anstream::println!(
                "{:<10}{:>24}{:>24}{:>12.1}{:>12.1}{:>16.0}{:>16.0}",
                kind.name,
                span(|weight| weight.descriptors),
                span(|weight| weight.threads),
                memory(first),
                memory(self.quiets.last()),
                nobody,
                others
            );
        }
        anstream::println!(
            "counts while nobody was there, (and while phones came and went); {} times nobody was\n",
            self.quiets.len()
        );
        for kind in &KINDS {
            let of = kind.of;
            if self.is_long {
                goal(&format!("soak-{}-memory", kind.name), self.slopes(kind)[0], "KiB/h", self.bound(kind));
            }
            let descriptors = self.growth(|sample| of(sample).descriptors);
            goal(&format!("soak-{}-descriptors-more", kind.name), descriptors, "descriptors", 0.0);
            goal(&format!("soak-{}-threads-more", kind.name), self.growth(|sample| of(sample).threads), "threads", 0.0);
        }
        goal("soak-input-lost", self.lost as f64, "lines", 0.0);
        goal("soak-input-doubled", self.doubled as f64, "lines", 0.0);
        goal("soak-wrong", self.wrong.len() as f64, "times", 0.0);
    }
}

/// The number of a question and the key that answered it.
fn answer_of(line: &str) -> Option<(u64, char)> {
    let (number, key) = line.split_once(' ')?;
    let mut keys = key.chars();
    let key = keys.next()?;
    keys.next().is_none().then_some(())?;
    Some((number.parse().ok()?, key))
}
