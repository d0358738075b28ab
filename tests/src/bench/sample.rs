//! A set of measured times, and goals.

use std::time::Duration;

pub use happy_tests::goal::{goal, goal_at_least};

/// Times of one kind of thing.
#[derive(Default)]
pub struct Sample(Vec<Duration>);

impl Sample {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// Adds one, unless it was only to warm up.
    pub fn add_if(&mut self, counts: bool, time: Duration) {
        if counts {
            self.add(time);
        }
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
