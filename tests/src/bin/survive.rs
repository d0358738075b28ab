//! Sessions under a daemon that is killed, upgraded and stopped again and again: `cargo xtask survive`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use happy_tests::survive::{MAX_SESSIONS, Plan, program, run};

/// Kills, upgrades, stops and starts the daemon of running sessions, and checks every byte that their viewers see. It ends by itself.
#[derive(Parser)]
#[command(name = "cargo xtask survive", bin_name = "cargo xtask survive", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// How often the daemon is killed, how often upgraded, and how often stopped and started.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Another build of the agent to upgrade to and back from; the last release, say. One with another version is built when it is missing.
    #[arg(long)]
    other: Option<PathBuf>,
    /// How many sessions there are at once afterwards; 0 for none.
    #[arg(long, default_value_t = MAX_SESSIONS)]
    crowd: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// What runs in the sessions.
    #[command(hide = true)]
    Print(program::Arguments),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Role::Print(print)) = arguments.role {
        program::print(&print)?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan {
        program: happy_tests::process::program("happy")?,
        other: arguments.other.context("`cargo xtask survive` names the other build")?,
        printer: std::env::current_exe()?,
        rounds: arguments.rounds,
        crowd: arguments.crowd,
    };
    let report = run(&plan)?;
    report.show();
    Ok(ExitCode::SUCCESS)
}
