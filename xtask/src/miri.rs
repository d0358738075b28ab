//! `cargo xtask miri`: runs tests of the codecs and of the ratchet in an interpreter that sees undefined behaviour.
//!
//! Our own code has no `unsafe`, so this watches what it makes of that of others: the ciphers, the wiping of secrets, the arrays. Miri is some
//! thousand times slower than the processor, and one agreement on a curve takes it seconds; so the tests are named that come by with few of them,
//! and properties are tried with few cases. What is left out is for the other tests and the address sanitizer of `cargo xtask fuzz`.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::{report, root, tools};

/// The portable form of all arithmetic: Miri knows few of the vector instructions.
const FLAGS: &str = "--cfg curve25519_dalek_backend=\"serial\" --cfg chacha20_backend=\"soft\" \
    --cfg poly1305_backend=\"soft\" --cfg sha2_backend=\"soft\" --cfg keccak_backend=\"soft\"";
/// Pointers are never made from numbers, and nothing is aligned by luck. The tests stay isolated from this machine: they see neither clock nor
/// files, and only the variables that are set here. Properties keep no file of what failed, and are tried with few cases.
const MIRI_FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-symbolic-alignment-check \
    -Zmiri-env-set=PROPTEST_CASES=2 -Zmiri-env-set=PROPTEST_DISABLE_FAILURE_PERSISTENCE=1";

/// Tests of one package.
struct Part {
    package: &'static str,
    /// Which of its programs.
    target: &'static [&'static str],
    /// Their names, or the beginnings of their names; all when there is none.
    tests: &'static [&'static str],
    /// Not these.
    skip: &'static [&'static str],
}

const PARTS: [Part; 2] = [
    Part {
        package: "happy-wire",
        target: &["--test", "wire"],
        tests: &[],
        // It reads a list of peers cut at each of its two thousand bytes, which takes minutes.
        skip: &["relay::frames_to_a_relay_hold"],
    },
    Part {
        package: "happy-crypto",
        target: &["--lib"],
        tests: &[
            "base64url::",
            "mac::",
            "seal::",
            "suite::",
            "identity::tests::text_form",
            "kem::tests::a_key_that_is_not_canonical_is_refused",
            "handshake::shared::",
            "durable::tests::the_record_is_that_of_the_page_and_nothing_else_is_read",
            "durable::tests::what_was_not_stored_was_not_sent",
            "ratchet::tests::a_message_is_as_long_as_promised_and_is_appended",
            "ratchet::tests::a_repetition_is_told_apart_and_changes_nothing",
            "ratchet::tests::a_body_does_not_open_under_another_header",
            "ratchet::tests::receiving_is_deterministic",
            "ratchet::attacks::keys_wipe_themselves",
        ],
        skip: &[],
    },
];

/// Which packages.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these packages; all without one.
    packages: Vec<String>,
}

/// Installs Miri where it may, and runs the tests in it.
///
/// # Errors
/// When Miri cannot be had, or a test failed.
pub fn run(arguments: Arguments) -> Result<()> {
    let names = PARTS.map(|part| part.package);
    for name in &arguments.packages {
        ensure!(names.contains(&name.as_str()), "Miri runs no tests of {name}, but of {}", names.join(" and "));
    }
    install()?;
    let began = Instant::now();
    let chosen = |part: &&Part| arguments.packages.is_empty() || arguments.packages.iter().any(|it| it == part.package);
    for part in PARTS.iter().filter(chosen) {
        report::step(&format!("{} in Miri", part.package));
        let (build, tests) = part.run()?;
        report::done(&format!("{} is built for Miri in", part.package), build);
        report::done(&format!("{} shows no undefined behaviour in", part.package), tests);
    }
    report::done("miri", began.elapsed());
    Ok(())
}

/// The nightly compiler with Miri and the sources of the standard library, which Miri interprets too.
fn install() -> Result<()> {
    let there = tools::cargo().args(["+nightly", "miri", "--version"]).output();
    if there.is_ok_and(|said| said.status.success()) {
        return Ok(());
    }
    report::step("installing Miri");
    let parts = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];
    tools::quiet(Command::new("rustup").args(parts)).context("Miri comes with the nightly compiler from rustup")
}

impl Part {
    /// How long it took to build the tests, and to run them.
    fn run(&self) -> Result<(Duration, Duration)> {
        let (began, build) = (Instant::now(), self.cargo(&["--no-run"], "the build")?);
        ensure!(build, "the tests of {} do not build for Miri", self.package);
        let (built, began) = (began.elapsed(), Instant::now());
        if !self.cargo(&[], "Miri")? {
            bail!("a test of {} failed in Miri; what it did stands above", self.package);
        }
        Ok((built, began.elapsed()))
    }

    fn cargo(&self, more: &[&str], what: &str) -> Result<bool> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target/miri"), Into::into);
        let mut command = tools::cargo();
        command.args(["+nightly", "miri", "test", "--quiet", "--package", self.package]).args(self.target).args(more);
        let status = command
            .arg("--")
            .args(self.tests)
            .args(self.skip.iter().flat_map(|test| ["--skip", test]))
            .current_dir(root())
            .env("CARGO_TARGET_DIR", target)
            .env("RUSTFLAGS", FLAGS)
            .env("MIRIFLAGS", MIRI_FLAGS)
            // Else the tasks' own compiler, which started this, would be the one.
            .env_remove("RUSTC")
            .env_remove("RUSTUP_TOOLCHAIN")
            .status()
            .with_context(|| format!("{what} cannot be started"))?;
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that was given another name would be left out in silence.
    #[test]
    fn every_named_test_is_there() {
        for part in PARTS {
            let folder = root().join(part.package.trim_start_matches("happy-")).join("src");
            for test in part.tests {
                let path: Vec<&str> = test.trim_end_matches("::").split("::").collect();
                let (first, last) = (folder.join(path[0]), path[path.len() - 1]);
                let sources: String = if first.is_dir() {
                    let files = std::fs::read_dir(first).unwrap().map(|file| file.unwrap().path());
                    files.map(|file| std::fs::read_to_string(file).unwrap()).collect()
                } else {
                    std::fs::read_to_string(first.with_extension("rs")).unwrap()
                };
                let named = test.ends_with("::") || sources.contains(&format!("fn {last}()"));
                assert!(named, "{test} is not there");
            }
        }
    }
}
