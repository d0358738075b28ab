//! `cargo xtask load`: a relay under strangers, floods, crowds and frozen readers, with a bound on each line.

use anyhow::{Context, Result, ensure};

use crate::{root, tools};

/// What is passed on to the loader.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// See `cargo xtask load --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds the relay and the loader optimised, and loads the one with the other.
///
/// # Errors
/// When they cannot be built, or a bound does not hold.
pub fn run(arguments: Arguments) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), std::path::PathBuf::from);
    let built = tools::cargo()
        .args(["build", "--release", "--package", "happy-relay"])
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "the build failed");
    let status = tools::cargo()
        .args(["run", "--quiet", "--release", "--package", "happy-tests", "--bin", "load", "--"])
        .args(arguments.options)
        .env("HAPPY_TEST_PROGRAMS", target.join("release"))
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the load ended with {status}");
    Ok(())
}
