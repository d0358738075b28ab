//! `cargo xtask chaos`: a bad network in front of a relay, for real programs.

use anyhow::{Context, Result, ensure};

use crate::{root, tools};

/// What is passed on to the proxy.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// See `cargo xtask chaos --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Runs the proxy until it is ended.
///
/// # Errors
/// When it cannot be built, or ends with an error.
pub fn run(arguments: Arguments) -> Result<()> {
    let status = tools::cargo()
        .args(["run", "--quiet", "--package", "happy-tests", "--bin", "chaos", "--"])
        .args(arguments.options)
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the proxy ended with {status}");
    Ok(())
}
