//! `cargo xtask fuzz`: searches for bytes that the targets of `fuzz/` do not bear.
//!
//! The targets are built with a nightly compiler, libFuzzer's counters and the address sanitizer. What a search finds new ways with is kept in
//! `fuzz/corpus`, as few inputs as do, and `cargo test -p happy-fuzz` replays it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{report, root, tools};

/// The same as in `fuzz/src/lib.rs`, which a test compares.
const TARGETS: [&str; 15] = [
    "records",
    "handshake",
    "ratchet",
    "storage",
    "invitation",
    "pairing",
    "wire",
    "link",
    "screen",
    "delta",
    "holder",
    "cast",
    "rpc",
    "bus",
    "websocket",
];
/// For every crate; counters and sanitizer are for those that `fuzz/libfuzzer/Cargo.toml` chooses.
const FLAGS: &str = "--cfg fuzzing -Ccodegen-units=1";
/// The largest input, which is more than any structure but a snapshot needs.
const MAX_LEN: u32 = 8 * 1_024;

/// What to search.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these targets; all without one.
    targets: Vec<String>,
    /// How long to search each, in seconds.
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    time: u64,
    /// Only build the targets.
    #[arg(long)]
    build: bool,
    /// Leave fuzz/corpus as it is.
    #[arg(long)]
    keep_corpus: bool,
}

/// Builds, searches, and keeps what was learned.
///
/// # Errors
/// When there is no nightly compiler, or something was found.
pub fn run(arguments: Arguments) -> Result<()> {
    for name in &arguments.targets {
        ensure!(TARGETS.contains(&name.as_str()), "there is no target {name}; there are {}", TARGETS.join(", "));
    }
    let programs = build()?;
    if arguments.build {
        return Ok(());
    }
    let chosen =
        TARGETS.iter().filter(|name| arguments.targets.is_empty() || arguments.targets.iter().any(|it| it == *name));
    let mut found = Vec::new();
    let mut searched = Duration::ZERO;
    for name in chosen {
        let start = Instant::now();
        match search(&programs, name, &arguments) {
            Ok(runs) => report::done(&format!("{name}: {runs} inputs,"), start.elapsed()),
            Err(error) => {
                report::problem(&format!("{name}: {error:#}"));
                found.push(*name);
            }
        }
        searched += start.elapsed();
    }
    ensure!(found.is_empty(), "inputs that do harm were found for {}", found.join(", "));
    report::done("nothing was found in", searched);
    Ok(())
}

fn build() -> Result<PathBuf> {
    let start = Instant::now();
    report::step("building the fuzz targets with the nightly compiler");
    let host = host()?;
    let folder = root().join("target/fuzz");
    let status = tools::cargo()
        .args(["+nightly", "build", "--release", "--quiet", "--target", &host, "--manifest-path"])
        .arg(root().join("fuzz/libfuzzer/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("starting cargo")?;
    ensure!(
        status.success(),
        "the targets do not build; `rustup toolchain install nightly` gives the compiler for them"
    );
    report::done("the fuzz targets are built", start.elapsed());
    Ok(folder.join(host).join("release"))
}

/// The platform that the compiler runs on; sanitizers want it named.
fn host() -> Result<String> {
    let said = Command::new("rustc").arg("-vV").output().context("starting rustc")?;
    let said = String::from_utf8(said.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

fn search(programs: &Path, name: &str, arguments: &Arguments) -> Result<String> {
    let working = root().join("target/fuzz/corpus").join(name);
    let findings = root().join("target/fuzz/found").join(name);
    for folder in [&working, &findings] {
        std::fs::create_dir_all(folder)?;
    }
    corpus("unpack", name, &working)?;
    let output = Command::new(programs.join(name))
        .arg(format!("-max_total_time={}", arguments.time))
        .args([&format!("-max_len={MAX_LEN}"), "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        // An input that takes longer than others is chosen less often.
        .arg("-entropic_scale_per_exec_time=1")
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(&working)
        .stdout(Stdio::null())
        .output()
        .context("starting the target")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let reason = said.lines().rfind(|line| line.contains("panicked") || line.contains("ERROR")).unwrap_or("?");
        bail!("{reason}; the input is in {}", findings.display());
    }
    if !arguments.keep_corpus {
        keep(programs, name, &working)?;
    }
    let runs = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    Ok(runs.unwrap_or("?").trim().to_owned())
}

/// Fills the folder with what is kept, or keeps what is in it.
fn corpus(what: &str, name: &str, folder: &Path) -> Result<()> {
    let status = tools::cargo()
        .args(["run", "--quiet", "--package", "happy-fuzz", "--example", "corpus", "--", what, name])
        .arg(folder)
        .current_dir(root())
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "`corpus {what} {name}` failed");
    Ok(())
}

/// Keeps the smallest set of inputs that reaches what all of them reach.
fn keep(programs: &Path, name: &str, working: &Path) -> Result<()> {
    let smallest = working.with_extension("smallest");
    let _ = std::fs::remove_dir_all(&smallest);
    std::fs::create_dir_all(&smallest)?;
    let status = Command::new(programs.join(name))
        .args(["-merge=1", "-rss_limit_mb=2048", &format!("-max_len={MAX_LEN}")])
        .args([&smallest, working])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(status.success(), "the corpus could not be made smaller");
    corpus("pack", name, &smallest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_binary_and_is_listed_on_both_sides() {
        let library = std::fs::read_to_string(root().join("fuzz/src/lib.rs")).unwrap();
        for name in TARGETS {
            assert!(library.contains(&format!("(\"{name}\", {name})")), "{name}");
            assert!(root().join(format!("fuzz/libfuzzer/src/bin/{name}.rs")).exists(), "{name}");
        }
        assert!(library.contains(&format!("[(&str, Target); {}]", TARGETS.len())));
    }
}
