//! Loads real relays on loopback and says which bounds held: `cargo xtask load`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use happy_tests::load::{Size, run};

/// Strangers, floods, crowds and frozen readers against a relay on loopback. It ends by itself.
#[derive(Parser)]
#[command(name = "cargo xtask load", bin_name = "cargo xtask load")]
struct Arguments {
    /// Half a minute instead of some five.
    #[arg(long)]
    short: bool,
    /// Silent and slow sockets at once.
    #[arg(long)]
    sockets: Option<usize>,
    /// Devices that come back at once.
    #[arg(long)]
    devices: Option<usize>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let size = if arguments.short { Size::SHORT } else { Size::FULL };
    let size = Size {
        sockets: arguments.sockets.unwrap_or(size.sockets),
        devices: arguments.devices.unwrap_or(size.devices),
        ..size
    };
    let report = run(size)?;
    if report.violated().is_empty() {
        anstream::println!("every bound held");
        return Ok(ExitCode::SUCCESS);
    }
    anstream::println!("violated: {}", report.violated().join(", "));
    Ok(ExitCode::FAILURE)
}
