//! Records real programs in a real terminal: `cargo xtask recordings`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Records real programs in a pseudoterminal, with a keyboard that follows a script.
#[derive(Parser)]
#[command(name = "cargo xtask recordings", bin_name = "cargo xtask recordings")]
struct Arguments {
    /// Where the recordings are kept.
    #[arg(long)]
    to: PathBuf,
    /// Where the coding agents are installed.
    #[arg(long)]
    agents: PathBuf,
    /// The program that stands in for a language model.
    #[arg(long)]
    model: PathBuf,
    /// Shows what stands on the screen at every mark.
    #[arg(long)]
    show: bool,
    /// Only these, or those that begin so; all of them without it.
    names: Vec<String>,
}

fn main() -> Result<()> {
    let Arguments { to, agents, model, show, names } = Arguments::parse();
    happy_tests::record::run(&happy_tests::record::Job { to, agents, model, show, names })
}
