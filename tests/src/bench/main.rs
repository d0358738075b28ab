//! The benchmarks: `cargo xtask bench NAME`. Each measures its baselines in the same run, prints ratios, and ends with a line
//! per goal: `goal NAME VALUE UNIT BOUND met|missed`.

mod baseline;
mod latency;
mod link;
mod processor;
#[cfg(target_os = "linux")]
mod relay;
mod sample;
#[cfg(target_os = "linux")]
mod terminal;

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
    /// The relay beside servers that only forward: frames, round trips, memory, logins, stuck readers, two nodes.
    #[cfg(target_os = "linux")]
    Relay(relay::Arguments),
    /// A session's terminal beside a bare PTY, tmux and ssh: echo, floods, attaching, memory.
    #[cfg(target_os = "linux")]
    Terminal(terminal::Arguments),
    /// A server that only forwards, for `relay` to start.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Bare(relay::BareArguments),
    /// Passes on what comes, between its two ends, for `terminal` to start.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Hop,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Arguments::parse().benchmark {
        Benchmark::Latency(arguments) => latency::run(arguments).await,
        Benchmark::Link(arguments) => link::run(arguments).await,
        #[cfg(target_os = "linux")]
        Benchmark::Relay(arguments) => relay::run(arguments),
        #[cfg(target_os = "linux")]
        Benchmark::Terminal(arguments) => terminal::run(arguments).await,
        #[cfg(target_os = "linux")]
        Benchmark::Bare(arguments) => relay::run_bare(arguments).await,
        #[cfg(target_os = "linux")]
        Benchmark::Hop => terminal::hop(),
    }
}
