//! `cargo xtask survive`: sessions under a daemon that is killed, upgraded to another version, and stopped, again and again.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::{report, root, tools};

/// What is passed on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Arguments {
    /// See `cargo xtask survive --help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// The version of the other build.
const OTHER: &str = "0.0.0-other";

/// Builds the agent twice, with two versions, and the rest once; all optimised.
///
/// # Errors
/// When they cannot be built, or something does not survive.
pub fn run(arguments: Arguments) -> Result<()> {
    let asks =
        |word: &str| arguments.options.iter().any(|option| option == word || option.starts_with(&format!("{word}=")));
    let mut options = arguments.options.clone();
    if !asks("--other") && !asks("--help") {
        report::step(&format!("building the agent as version {OTHER}"));
        build(&["--package", "happy"], Some(OTHER))?;
        let other = target().join("survive-other");
        // A new file, since the old one may be running.
        let _ = std::fs::remove_file(&other);
        std::fs::copy(target().join("happy"), &other).context("the other build cannot be copied")?;
        options.extend(["--other".into(), other.to_string_lossy().into_owned()]);
    }
    build(&["--package", "happy", "--package", "happy-relay"], None)?;
    let status = tools::cargo()
        .args(["run", "--quiet", "--release", "--package", "happy-tests", "--bin", "survive", "--"])
        .args(options)
        .env(tools::PROGRAMS, target())
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

fn target() -> PathBuf {
    tools::target().join("release")
}

fn build(packages: &[&str], version: Option<&str>) -> Result<()> {
    let mut cargo = tools::cargo();
    cargo.args(["build", "--release"]).args(packages).envs(version.map(|version| ("HAPPY_BUILD_VERSION", version)));
    ensure!(cargo.current_dir(root()).status().context("cannot start cargo")?.success(), "the build failed");
    Ok(())
}
