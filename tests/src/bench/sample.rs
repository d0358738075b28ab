//! A set of measured times, and goals.

use std::time::Duration;

/// Times of one kind of thing.
#[derive(Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// The time that `percent` of the sample stay below, in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Prints whether a goal is met: `goal NAME VALUE UNIT BOUND met|missed`.
pub fn goal(name: &str, value: f64, unit: &str, at_most: f64) {
    let verdict = if value <= at_most { "met" } else { "missed" };
    anstream::println!("goal {name} {value:.3} {unit} {at_most} {verdict}");
}

/// The same for what should be large.
pub fn goal_at_least(name: &str, value: f64, unit: &str, at_least: f64) {
    let verdict = if value >= at_least { "met" } else { "missed" };
    anstream::println!("goal {name} {value:.3} {unit} {at_least} {verdict}");
}
