//! `cargo xtask soak`: a daemon with its sessions for an hour, and phones that come and go.

use anyhow::Result;

use crate::tools;

/// What is passed on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// See `cargo xtask soak --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Builds the programs optimised, and lets them run.
///
/// # Errors
/// When they cannot be built, or a bound does not hold.
pub fn run(arguments: Arguments) -> Result<()> {
    tools::drive("soak", &["happy", "happy-relay"], &arguments.options)
}
