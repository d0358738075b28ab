//! `cargo xtask load`: a relay under strangers, floods, crowds and frozen readers, with a bound on each line.

use anyhow::Result;

use crate::tools;

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
    tools::drive("load", &["happy-relay"], &arguments.options)
}
