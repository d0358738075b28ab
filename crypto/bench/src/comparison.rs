//! Whether the time of a comparison tells where two codes differ (dudect: Reparaz, Balasch, Verbauwhede, 2017).

use std::hint::black_box;

use anstream::println;
use rand_core::Rng;

use crate::{
    measure::cpu_time,
    ours::{self, Pairing},
};

/// Measurements in all.
const MEASUREMENTS: usize = 40_000;
/// Calls in one measurement, so that reading the clock does not drown them.
const CALLS: usize = 16;
/// Of the measurements the slowest are left out: in those it was something else that took the time.
const KEPT: f64 = 0.9;
/// More than this is taken for a difference (dudect).
const SUSPICIOUS: f64 = 4.5;

/// Measures `Responder::confirm` with the first and with the last byte of the code wrong, in an order that is left to chance.
pub fn run() {
    let (confirm, _, responder) = Pairing::new().up_to_confirm();
    let wrong = [16, confirm.len() - 1].map(|at| {
        let mut confirm = confirm.clone();
        confirm[at] ^= 1;
        confirm
    });
    let mut rng = ours::rng();
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..MEASUREMENTS {
        let class = (rng.next_u32() & 1) as usize;
        // From one place, so that only the content differs.
        let confirm = black_box(wrong[class].clone());
        let began = cpu_time();
        for _ in 0..CALLS {
            assert!(black_box(responder.confirm(&confirm)).is_err(), "the code is wrong");
        }
        times[class].push(cpu_time() - began);
    }
    let t = welch(times.map(Sample::of));
    let verdict =
        if t.abs() < SUSPICIOUS { "no difference seen" } else { "DIFFERENT: the comparison may not be constant-time" };
    println!("refusing a Confirm, first byte wrong against last: Welch's t = {t:.2}; {verdict} (bound ±{SUSPICIOUS})");
}

struct Sample {
    count: f64,
    mean: f64,
    variance: f64,
}

impl Sample {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_unstable_by(f64::total_cmp);
        times.truncate((times.len() as f64 * KEPT) as usize);
        let count = times.len() as f64;
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { count, mean, variance }
    }
}

fn welch([one, other]: [Sample; 2]) -> f64 {
    (one.mean - other.mean) / (one.variance / one.count + other.variance / other.count).sqrt()
}
