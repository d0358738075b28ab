//! `cargo xtask up`: from a clone to a QR code.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{report, root, tools};

/// What `happy up` is told.
#[derive(clap::Args)]
pub struct Arguments {
    /// Passed on to `happy up`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the agent and becomes it.
///
/// # Errors
/// When the build fails, or the agent cannot be started.
pub fn run(arguments: Arguments) -> Result<()> {
    report::step("building (the first time takes five to twenty minutes)");
    let built = tools::cargo()
        .args(["build", "--release", "--package", "happy"])
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    if !built.success() {
        bail!("the build ended with {built}; the compiler's words above say why");
    }
    let happy = tools::target().join("release").join(format!("happy{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(&happy);
    command.arg("up").args(arguments.rest);
    become_it(command).with_context(|| format!("cannot start {}", happy.display()))
}

/// Replaces this process, so that the terminal, Ctrl-C and the exit code are the agent's own.
#[cfg(unix)]
fn become_it(mut command: Command) -> std::io::Result<()> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn become_it(mut command: Command) -> std::io::Result<()> {
    let status = command.status()?;
    std::process::exit(status.code().unwrap_or(1));
}
