//! What the whole-system tests and benchmarks share: the real programs as processes, with homes of their own.
//!
//! Nothing here waits for time to pass: it waits for a line, an answer or an end, each with a deadline, and says what it was
//! waiting for when the deadline passes.

pub mod chaos;
pub mod goal;
pub mod load;
pub mod phone;
pub mod process;
pub mod record;
pub mod soak;
pub mod survive;

/// How long anything may take before a test gives up on it. Generous: two cores build and test at the same time.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
