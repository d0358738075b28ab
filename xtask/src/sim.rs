//! `cargo xtask sim`: random worlds in virtual time against the link, as many as are wanted, and the bugs that it must find.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::{report, root, tools};

/// From so many seeds on an optimised build pays.
const MANY: u64 = 200_000;
/// From so many faults on.
const MANY_FAULTS: u64 = 10_000_000;

/// How much, and of what.
#[derive(clap::Args)]
pub struct Arguments {
    /// How many seeds: one is one run. 50,000 when neither this nor --faults is given.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Go on until so many link faults and crashes have happened, in long storms.
    #[arg(long, conflicts_with = "seeds")]
    faults: Option<u64>,
    /// Ten minutes of storm in each run, instead of one: to run again a seed of --faults that failed.
    #[arg(long)]
    long: bool,
    /// The asynchronous drivers and the relay itself over simulated TCP, instead of the link without its sockets. 300 seeds unless --seeds says otherwise.
    #[arg(long, conflicts_with_all = ["faults", "long"])]
    drivers: bool,
    /// Also plant each known bug and see that it is found within 2,000 seeds, with --drivers within 200.
    #[arg(long)]
    planted: bool,
}

/// Runs the simulation. It prints its progress, what it met, and of a failure the seed and the smallest plan that fails as well.
///
/// # Errors
/// When a promise was broken, a seed ran differently the second time, or a planted bug was not found.
pub fn run(arguments: Arguments) -> Result<()> {
    let began = Instant::now();
    let Arguments { seeds, first_seed, faults, long, drivers, planted } = arguments;
    if drivers {
        return run_drivers(seeds.unwrap_or(300), first_seed, planted);
    }
    let seeds = seeds.or(faults.is_none().then_some(50_000));
    let what = match (seeds, faults) {
        (Some(seeds), _) => format!("{seeds} seeds from {first_seed}"),
        (_, faults) => format!("{} faults from seed {first_seed}", faults.unwrap_or_default()),
    };
    report::step(&what);
    let mut command = cargo();
    if seeds.is_some_and(|seeds| seeds > MANY) || faults.is_some_and(|faults| faults > MANY_FAULTS) {
        command.arg("--release");
    }
    command.args(["--test", "simulation", "--", "--ignored", "--nocapture", "--exact", "as_many_as_asked_for"]);
    command.env("HAPPY_SIM_FIRST", first_seed.to_string());
    let long = (long || faults.is_some()).then_some(1);
    let limits = [("HAPPY_SIM_SEEDS", seeds), ("HAPPY_SIM_FAULTS", faults), ("HAPPY_SIM_LONG", long)];
    for (name, limit) in limits {
        match limit {
            Some(limit) => command.env(name, limit.to_string()),
            None => command.env_remove(name),
        };
    }
    ensure!(command.status().context("cannot start cargo")?.success(), "the seed and the plan that fails stand above");
    report::done("the promises hold", began.elapsed());
    if planted {
        let began = Instant::now();
        report::step("bugs that the simulation must find");
        let status = cargo()
            .args(["--features", "planted", "--test", "planted", "--", "--nocapture"])
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "a planted bug was not found");
        report::done("each planted bug was found", began.elapsed());
    }
    Ok(())
}

fn run_drivers(seeds: u64, first_seed: u64, planted: bool) -> Result<()> {
    let began = Instant::now();
    report::step(&format!("{seeds} seeds from {first_seed}, with drivers and relay"));
    let status = cargo_test()
        .args(["--package", "happy-tests", "--test", "turmoil", "--", "--ignored", "--nocapture", "--exact"])
        .arg("as_many_as_asked_for")
        .env("HAPPY_SIM_FIRST", first_seed.to_string())
        .env("HAPPY_SIM_SEEDS", seeds.to_string())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the seed that fails stands above");
    report::done("the drivers keep the promises", began.elapsed());
    if planted {
        let began = Instant::now();
        report::step("bugs of the driver that the simulation must find");
        let status = cargo_test()
            .args(["--package", "happy-tests", "--features", "planted", "--test", "turmoil", "--", "--nocapture"])
            .args(["--exact", "every_bug_that_is_planted_into_the_driver_is_found"])
            .status()
            .context("cannot start cargo")?;
        ensure!(status.success(), "a planted bug was not found");
        report::done("each planted bug was found", began.elapsed());
    }
    Ok(())
}

fn cargo() -> Command {
    let mut command = cargo_test();
    command.args(["--package", "happy-link", "--features", "tokio"]);
    command
}

fn cargo_test() -> Command {
    let mut command = tools::cargo();
    command.args(["test", "--quiet"]).current_dir(root());
    command
}
