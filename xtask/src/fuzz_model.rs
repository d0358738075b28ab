//! `cargo xtask fuzz-model`: plays the state machine of the cryptography with random schedules, optimised, on all cores.

use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{report, root, tools};

/// How many schedules, and which.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many schedules.
    #[arg(long, default_value_t = 1_000_000)]
    schedules: u64,
    /// The seed of the first; the next ones have the seeds after it. A failure names the seed of the schedule that failed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Builds the model optimised and plays it. It prints its progress, how often each event came up, and of a failure the seed and
/// the shortest schedule that fails.
///
/// # Errors
/// When a schedule failed, or the model cannot be built.
pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { schedules, seed } = arguments;
    report::step(&format!("{schedules} schedules from seed {seed}"));
    let began = Instant::now();
    let status = tools::cargo()
        .args(["test", "--quiet", "--release", "--package", "happy-crypto", "--test", "model", "--"])
        .args(["--ignored", "--nocapture", "--exact", "a_million_schedules"])
        .env("HAPPY_MODEL_SCHEDULES", schedules.to_string())
        .env("HAPPY_MODEL_SEED", seed.to_string())
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the model ended with {status}; the seed and the schedule stand above");
    }
    report::done("fuzz-model", began.elapsed());
    Ok(())
}
