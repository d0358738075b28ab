//! The benchmarks: `cargo xtask bench NAME`. Each measures its baselines in the same run, prints ratios, and ends with a line
//! per goal: `goal NAME VALUE UNIT BOUND met|missed`.

mod baseline;
mod latency;
mod link;
mod sample;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures, beside a baseline in the same run.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Keystroke echo through phone, relay, daemon, holder and PTY.
    Latency(latency::Arguments),
    /// Goodput, cost of a frame, calls beside a flood, and memory of a link through a relay.
    Link(link::Arguments),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Latency(arguments) => latency::run(arguments).await,
        Benchmark::Link(arguments) => link::run(arguments).await,
    }
}
