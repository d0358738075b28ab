//! How time is measured: in rounds, in each of which every case has its turn, so that all of them meet the same weather; by the
//! CPU time of this thread, so that other programs do not count; and by medians, so that an interruption does not either.

use rustix::time::{ClockId, clock_gettime};

/// Something to measure.
pub trait Task {
    /// Gets ready for `count` operations. This is not measured.
    fn prepare(&mut self, count: usize) {
        let _ = count;
    }

    /// Does `count` operations.
    fn run(&mut self, count: usize);
}

impl<F: FnMut()> Task for F {
    fn run(&mut self, count: usize) {
        for _ in 0..count {
            self();
        }
    }
}

struct Case {
    name: &'static str,
    task: Box<dyn Task>,
    /// Operations in one turn.
    count: usize,
    /// Nanoseconds of one operation, by round.
    rounds: Vec<f64>,
}

/// A set of cases that are measured together.
#[derive(Default)]
pub struct Cases(Vec<Case>);

/// How much to measure.
#[derive(Clone, Copy, clap::Args)]
pub struct Effort {
    /// Turns of each case.
    #[arg(long, default_value_t = 101)]
    rounds: usize,
    /// Milliseconds of one turn.
    #[arg(long, default_value_t = 5.0)]
    turn: f64,
}

impl Cases {
    /// Adds a case; its name must be new.
    pub fn add(&mut self, name: &'static str, task: impl Task + 'static) {
        debug_assert!(self.0.iter().all(|case| case.name != name), "there is a {name} already");
        self.0.push(Case { name, task: Box::new(task), count: 1, rounds: Vec::new() });
    }

    /// Measures them all.
    pub fn measure(&mut self, effort: Effort) {
        for case in &mut self.0 {
            case.calibrate(effort.turn * 1e6);
        }
        for round in 0..effort.rounds {
            // Another one begins each time, because the first turn after a pause is slower.
            let first = round % self.0.len().max(1);
            self.0.rotate_left(first);
            for case in &mut self.0 {
                let took = case.turn();
                case.rounds.push(took / case.count as f64);
            }
            self.0.rotate_right(first);
        }
    }

    /// Nanoseconds of one operation.
    pub fn median(&self, name: &str) -> f64 {
        median(self.rounds(name).to_vec())
    }

    /// How many times as long as `of` something takes: the median of the rounds' own ratios.
    pub fn ratio(&self, name: &str, of: &str) -> f64 {
        median(self.rounds(name).iter().zip(self.rounds(of)).map(|(one, other)| one / other).collect())
    }

    fn rounds(&self, name: &str) -> &[f64] {
        self.0.iter().find(|case| case.name == name).map_or(&[], |case| &case.rounds)
    }
}

impl Case {
    /// Nanoseconds of one turn.
    fn turn(&mut self) -> f64 {
        self.task.prepare(self.count);
        let began = cpu_time();
        self.task.run(self.count);
        cpu_time() - began
    }

    /// Finds out how many operations fill a turn. That also warms up.
    fn calibrate(&mut self, turn: f64) {
        loop {
            let took = self.turn();
            if took >= turn / 2.0 || self.count > 1 << 20 {
                self.count = ((self.count as f64 * turn / took) as usize).max(1);
                return;
            }
            self.count *= 2;
        }
    }
}

/// Nanoseconds that this thread has spent on a CPU.
pub fn cpu_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// The middle one; not a number when there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
