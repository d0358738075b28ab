//! A daemon with its sessions for an hour, and phones that come and go: `cargo xtask soak`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use happy_tests::soak::{Plan, program, run};

/// Lets a relay, a daemon with sessions, phones that come and go and a dashboard run together, and says what grew and what was lost. It ends by
/// itself.
#[derive(Parser)]
#[command(name = "cargo xtask soak", bin_name = "cargo xtask soak", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// For how long. Below 30 the slope of memory is told and not judged.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// How many sessions run all the time, 10 at least.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// How many phones come and go, 2 at least; every third has a bad line.
    #[arg(long, default_value_t = 6)]
    phones: usize,
    /// A folder for `samples.csv`; a new one in the folder for temporary files when missing.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// What runs in the sessions.
    #[command(hide = true)]
    Act(program::Arguments),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Role::Act(act)) = arguments.role {
        program::act(&act)?;
        return Ok(ExitCode::SUCCESS);
    }
    let out = match arguments.out {
        Some(out) => out,
        None => tempfile::Builder::new().prefix("happy-soak").tempdir()?.keep(),
    };
    let plan = Plan {
        minutes: arguments.minutes,
        sessions: arguments.sessions,
        phones: arguments.phones,
        actor: std::env::current_exe()?,
        out,
    };
    let report = run(&plan)?;
    report.show();
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
