//! What the tasks need besides Rust: found, or installed where that is possible.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{report, root};

/// A program that a task needs.
pub struct Tool {
    /// The name of the program.
    pub program: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What it is for, for the person who has to install it.
    pub purpose: &'static str,
}

/// The browser that the phone app is tested in.
pub const CHROMIUM: Tool = Tool { program: "chromium", package: "chromium", purpose: "the browser tests" };
/// The terminal that the QR code is read from.
pub const TMUX: Tool = Tool { program: "tmux", package: "tmux", purpose: "the tests in a real terminal" };
/// The editor of the scan-to-shell test.
pub const VIM: Tool = Tool { program: "vim", package: "vim", purpose: "the test of a full-screen program" };
/// Makes the certificate of the relay in the browser tests.
pub const OPENSSL: Tool = Tool { program: "openssl", package: "openssl", purpose: "the certificate of a test relay" };
/// What the nodes of a relay share; `redis-cli` comes with it.
pub const REDIS: Tool =
    Tool { program: "redis-server", package: "redis-server", purpose: "the tests of a relay of several nodes" };
/// Runs the browser tests and builds the phone app.
pub const NODE: Tool = Tool { program: "node", package: "nodejs", purpose: "the phone app and the browser tests" };
/// Installs the packages that the phone app is built with.
pub const NPM: Tool = Tool { program: "npm", package: "npm", purpose: "the phone app and the browser tests" };

/// Checks the unit of the relay.
pub const SYSTEMD_ANALYZE: Tool =
    Tool { program: "systemd-analyze", package: "systemd", purpose: "checking the units of relay and daemon" };
/// Gives a program another time.
pub const FAKETIME: Tool = Tool { program: "faketime", package: "faketime", purpose: "the test of a clock that jumps" };
/// Gives a program a file system of its own.
pub const UNSHARE: Tool = Tool { program: "unshare", package: "util-linux", purpose: "the tests of a full disk" };
/// What the calls for repositories run.
pub const GIT: Tool = Tool { program: "git", package: "git", purpose: "the tests of the calls for repositories" };
/// Checks rules and queries of Prometheus.
pub const PROMTOOL: Tool = Tool { program: "promtool", package: "prometheus", purpose: "checking deploy/prometheus" };
/// Checks its own configuration.
pub const CADDY: Tool = Tool { program: "caddy", package: "caddy", purpose: "checking deploy/Caddyfile" };
/// A certificate authority to test with.
pub const PEBBLE: Tool = Tool { program: "pebble", package: "pebble", purpose: "the tests of certificates by ACME" };

/// Cargo, as somebody at a prompt starts it. What the cargo that runs this very program said of its package is taken out of the
/// environment: build scripts look at that, ring's among them, and would run again, and be followed by all that depends on them,
/// whenever another package's program had been the last to build.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Makes sure that all of these are there. Installs what is missing with `apt-get` when this is Debian and we are root.
///
/// # Errors
/// Names every program that is missing and cannot be installed here, with what it is for.
pub fn require(tools: &[Tool]) -> Result<()> {
    let missing = || tools.iter().filter(|tool| find(tool.program).is_none()).collect::<Vec<_>>();
    let absent = missing();
    if absent.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_some() && is_root() {
        let packages = absent.iter().map(|tool| tool.package).collect::<Vec<_>>();
        report::step(&format!("installing {}", packages.join(", ")));
        apt_get(&["update"])?;
        apt_get(&[&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat())?;
    }
    let absent = missing();
    if absent.is_empty() {
        return Ok(());
    }
    let list = absent.iter().map(|tool| format!("  {} for {} (Debian: {})", tool.program, tool.purpose, tool.package));
    bail!("these programs are missing; please install them:\n{}", list.collect::<Vec<_>>().join("\n"))
}

/// Makes sure that the toolchain has the wasm target and the components that the checks use.
///
/// # Errors
/// When `rustup` is there and cannot add them. Without `rustup` the compiler is somebody else's business.
pub fn require_rust_parts() -> Result<()> {
    if find("rustup").is_none() {
        return Ok(());
    }
    quiet(Command::new("rustup").args(["target", "add", "wasm32-unknown-unknown"]))?;
    quiet(Command::new("rustup").args(["component", "add", "clippy", "rustfmt"]))
}

/// Makes sure that `cargo nextest` is there, which runs tests of different programs side by side.
///
/// # Errors
/// When it is not, and cannot be installed.
pub fn require_nextest() -> Result<()> {
    if quiet(cargo().args(["nextest", "--version"])).is_ok() {
        return Ok(());
    }
    report::step("installing cargo-nextest");
    quiet(cargo().args(["install", "--locked", "cargo-nextest"]))
        .context("`cargo install --locked cargo-nextest` failed")
}

/// Installs the Node packages that the lock file in this folder names, unless they are there already.
///
/// # Errors
/// When `npm` fails; its output is shown.
pub fn npm_ci(folder: &Path) -> Result<()> {
    let (lock, installed) = (folder.join("package-lock.json"), folder.join("node_modules/.package-lock.json"));
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if let (Some(lock), Some(installed)) = (modified(&lock), modified(&installed))
        && installed >= lock
    {
        return Ok(());
    }
    report::step(&format!("npm ci in {}", folder.file_name().unwrap_or_default().display()));
    quiet(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(folder))
}

/// Says to tests where the programs are that they start, so that they need not build them. The suite `rust` builds them with all that is tested,
/// and so with other features of some libraries than they have alone: building them once more takes minutes from nothing.
pub const PROGRAMS: &str = "HAPPY_TEST_PROGRAMS";

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), Into::into)
}

/// Runs a command and shows its output only when it fails.
///
/// # Errors
/// When it cannot be started, or ends with another code than 0.
pub fn quiet(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{name} ended with {}:\n{out}{err}", output.status);
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    quiet(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn is_root() -> bool {
    // `id` rather than a system call: this is the only place in the tasks that asks.
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Builds packages optimised, then runs a program of `happy-tests` that drives them, with the options it was given.
///
/// # Errors
/// When they cannot be built, or the program ends with another status than 0.
pub fn drive(program: &str, packages: &[&str], options: &[String]) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release"]).args(packages.iter().flat_map(|package| ["--package", package]));
    let built = build.current_dir(root()).status().context("cannot start cargo")?;
    ensure!(built.success(), "the build failed");
    let status = cargo()
        .args(["run", "--quiet", "--release", "--package", "happy-tests", "--bin", program, "--"])
        .args(options)
        .env(PROGRAMS, target().join("release"))
        .current_dir(root())
        .status()
        .context("cannot start cargo")?;
    ensure!(status.success(), "the {program} ended with {status}");
    Ok(())
}
