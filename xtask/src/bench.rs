//! `cargo xtask bench NAME`: builds the benchmarks optimised and runs one.

use anyhow::{Context, Result, bail};

use crate::{root, tools};

/// Which benchmark.
#[derive(clap::Args)]
pub struct Arguments {
    /// `latency`: keystroke echo through the whole path. `link`: what passes through a link and what it costs. `relay`: a relay beside servers that only forward. `terminal`: a session beside a bare PTY, tmux and ssh. `crypto`: the cryptography beside vodozemac and its primitives. `parse`: the phone's screen beside xterm.js, in Chromium.
    name: String,
    /// Passed on to the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs a benchmark.
///
/// # Errors
/// When it cannot be built, is not known, or misses a goal.
pub fn run(arguments: Arguments) -> Result<()> {
    if arguments.name == "parse" {
        return parse(&arguments.rest);
    }
    let target = tools::target();
    let run = |words: &[&str]| {
        let mut command = tools::cargo();
        command.args(words).env(tools::PROGRAMS, target.join("release")).current_dir(root());
        command.status().context("cannot start cargo")
    };
    let rest = arguments.rest.iter().map(String::as_str);
    if arguments.name == "crypto" {
        // A workspace of its own, so that nobody builds vodozemac who does not run this.
        let target =
            target.join("crypto-bench").into_os_string().into_string().ok().context("the path is not UTF-8")?;
        let mut words = vec!["run", "--quiet", "--release", "--locked", "--manifest-path", "crypto/bench/Cargo.toml"];
        words.extend(["--target-dir", &target, "--"]);
        words.extend(rest);
        return ended(run(&words)?);
    }
    // The benchmark starts these as processes, so they must be there, and as fast as they get.
    if !run(&["build", "--release", "--package", "happy", "--package", "happy-relay"])?.success() {
        bail!("the build failed");
    }
    let mut words =
        vec!["run", "--quiet", "--release", "--package", "happy-tests", "--bin", "bench", "--", &arguments.name];
    words.extend(rest);
    ended(run(&words)?)
}

/// The phone's screen and xterm.js take the same bytes in the same page.
#[cfg(feature = "web")]
fn parse(rest: &[String]) -> Result<()> {
    crate::test::prepare_browser()?;
    tools::npm_ci(&root().join("tests/terminal"))?;
    let module = crate::web::module("parse", "parse")?;
    let mut command = std::process::Command::new("node");
    command.arg("tests/terminal/parse.mjs").arg(module).args(rest).current_dir(root());
    ended(command.status().context("cannot start node")?)
}

#[cfg(not(feature = "web"))]
fn parse(rest: &[String]) -> Result<()> {
    let rest = rest.iter().map(String::as_str);
    crate::web::again(&["bench", "parse"].into_iter().chain(rest).collect::<Vec<_>>())
}

fn ended(status: std::process::ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("the benchmark ended with {status}");
    }
    Ok(())
}
