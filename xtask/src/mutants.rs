//! `cargo xtask mutants`: changes the cryptography and the key storage in a thousand small ways, one at a time, and sees that a test turns red.
//!
//! `cargo-mutants` makes the changes, in a copy of the tree. What no test notices is a survivor, and each survivor has to stand in
//! `docs/MUTANTS.md` with the reason why it may live. An endless loop is noticed by the clock and counts as caught; what the
//! compiler refuses counts as nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{report, root, tools};

/// What is installed when there is none. The names of mutants may change with the version, and the page lists names.
const VERSION: &str = "27.1.0";
/// Caught, of those that were built, in each group.
const GOAL: f64 = 95.0;
/// Where the survivors are explained.
const PAGE: &str = "docs/MUTANTS.md";
/// In seconds. An unchanged suite takes five. A suite that is only slow, on a machine that has other things to do, must not count as caught.
const TIMEOUT: &str = "120";
/// Where the fast suite saves its time: these take longer than all others together, and take it by doing often what others do once.
const TOO_LONG: [&str; 3] = [
    "a_hundred_thousand_forgeries_leave_the_state_as_it_was",
    "ten_thousand_hostile_chains_need_no_more_memory_than_five",
    "memory_stays_bounded_over_many_chains_with_losses",
];
/// Starts the test programs. The first failure decides, and `--fail-fast`, which saves half of the time, is for nightly compilers
/// unless the test program is told so. The compiler is not.
const RUNNER: &str = r#"--config=target."cfg(all())".runner=["env","RUSTC_BOOTSTRAP=1"]"#;

/// The parts of the tree that the page has figures of.
const GROUPS: [(&str, &[&str]); 6] = [
    ("ratchet", &["crypto/src/ratchet/"]),
    ("handshake", &["crypto/src/handshake/"]),
    ("durable", &["crypto/src/durable/"]),
    ("what these stand on", &["crypto/src/"]),
    (
        "key storage of the agent",
        &[
            "agent/src/store/file.rs",
            "agent/src/store/key.rs",
            "agent/src/store/lines.rs",
            "agent/src/store/lock.rs",
            "agent/src/store/pair_secrets.rs",
            "agent/src/store/prekeys.rs",
            "agent/src/store/state.rs",
        ],
    ),
    ("commands of the agent", &["agent/src/store/commands.rs"]),
];

/// A package, what of it is changed, and the tests that have to notice.
struct Suite {
    package: &'static str,
    /// The files below these are changed.
    places: &'static [&'static str],
    /// What the test program is told.
    tests: &'static [&'static str],
}

const SUITES: [Suite; 3] = [
    Suite { package: "happy-crypto", places: &["crypto/src/"], tests: &[] },
    Suite { package: "happy", places: GROUPS[4].1, tests: &["store::"] },
    Suite { package: "happy", places: GROUPS[5].1, tests: &["store::commands::"] },
];

/// What is not changed.
const LEFT_OUT: [&str; 1] = [
    // Watches the cipher for the tests, and no program contains it.
    "crypto/src/hazmat.rs",
];

/// What to change.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these files, such as `crypto/src/ratchet/chain.rs`; all without one.
    files: Vec<String>,
}

/// Changes, tests, and compares what survived with the page.
///
/// # Errors
/// When too little is caught, or something survives that is not explained.
pub fn run(arguments: Arguments) -> Result<()> {
    let start = Instant::now();
    let explained = explained()?;
    for file in &arguments.files {
        ensure!(root().join(file).is_file(), "there is no file {file}; name it as seen from the root of the workspace");
        ensure!(SUITES.iter().any(|suite| suite.has(file)), "{file} is not among what is changed");
    }
    install()?;
    let mut tried = Vec::new();
    for suite in &SUITES {
        let mine: Vec<_> = arguments.files.iter().map(String::as_str).filter(|file| suite.has(file)).collect();
        match arguments.files.is_empty() {
            true => tried.extend(suite.run(suite.places)?),
            false if mine.is_empty() => {}
            false => tried.extend(suite.run(&mine)?),
        }
    }
    let enough = figures(&tried);
    let unexplained = compare(&tried, &explained);
    for name in &unexplained {
        report::problem(&format!("survives: {name}"));
    }
    ensure!(unexplained.is_empty(), "{} survivors are not explained in {PAGE}", unexplained.len());
    ensure!(enough, "less than {GOAL} % are caught");
    report::done("every survivor is explained,", start.elapsed());
    Ok(())
}

fn install() -> Result<()> {
    let installed = tools::cargo().args(["mutants", "--version"]).stderr(Stdio::null()).output();
    if installed.is_ok_and(|said| said.status.success()) {
        return Ok(());
    }
    report::step(&format!("installing cargo-mutants {VERSION}"));
    tools::quiet(tools::cargo().args(["install", "--locked", "--version", VERSION, "cargo-mutants"]))
}

impl Suite {
    fn has(&self, file: &str) -> bool {
        self.places.iter().any(|place| file.starts_with(place)) && !LEFT_OUT.contains(&file)
    }

    /// Lets `cargo-mutants` work, and reads what it found.
    fn run(&self, places: &[&str]) -> Result<Vec<Tried>> {
        let start = Instant::now();
        report::step(&format!("changing {}; this takes a while", self.package));
        let output = root().join("target/mutants").join(self.package);
        std::fs::create_dir_all(&output)?;
        let mut cargo = tools::cargo();
        cargo.args(["mutants", "--profile=mutants", "--no-times", "--timeout", TIMEOUT]);
        // Given to the build as well, which otherwise makes every test program of the package each time.
        cargo.args(["--package", self.package, "--cargo-arg=--lib", "--cargo-arg", RUNNER]);
        for place in places {
            cargo.args(["--file", &if place.ends_with('/') { format!("{place}**") } else { (*place).to_owned() }]);
        }
        for file in LEFT_OUT {
            cargo.args(["--exclude", file]);
        }
        cargo
            .arg("--output")
            .arg(&output)
            .args(["--", "--", "-Zunstable-options", "--fail-fast"])
            .args(TOO_LONG.iter().flat_map(|test| ["--skip", test]))
            .args(self.tests)
            .current_dir(root())
            // One folder for the copies of all runs, so that only what was changed is built.
            .env("CARGO_TARGET_DIR", root().join("target/mutants/build"))
            // That a property fails is enough: neither the smallest example nor the way to it matters.
            .envs([("PROPTEST_CASES", "32"), ("PROPTEST_MAX_SHRINK_ITERS", "0"), ("RUST_BACKTRACE", "0")]);
        let status = cargo.status().context("starting cargo")?;
        // 2: something survived, 3: something ran out of time. Both are read below.
        ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo-mutants ended with {status}; its words stand above");
        let tried = read(&output.join("mutants.out/outcomes.json"))?;
        report::done(&format!("{}: {} mutants,", self.package, tried.len()), start.elapsed());
        Ok(tried)
    }
}

/// A mutant and what became of it.
struct Tried {
    file: String,
    /// File and change, without the line, because lines move. Several may share a name.
    name: String,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Caught,
    Survived,
    /// The compiler refused it.
    Unviable,
}

fn read(path: &Path) -> Result<Vec<Tried>> {
    #[derive(Deserialize)]
    struct Outcomes {
        outcomes: Vec<Outcome>,
    }
    #[derive(Deserialize)]
    struct Outcome {
        scenario: Scenario,
        summary: String,
    }
    #[derive(Deserialize)]
    enum Scenario {
        Baseline,
        Mutant { name: String, file: String },
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let Outcomes { outcomes } = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let mut tried = Vec::new();
    for Outcome { scenario, summary } in outcomes {
        let Scenario::Mutant { name, file } = scenario else { continue };
        let fate = match summary.as_str() {
            "CaughtMutant" | "Timeout" => Fate::Caught,
            "MissedMutant" => Fate::Survived,
            "Unviable" => Fate::Unviable,
            other => bail!("{name} ended as {other:?}"),
        };
        tried.push(Tried { name: without_line(&name).context("a mutant without a line")?, file, fate });
    }
    Ok(tried)
}

/// `file:line:column: change` without the middle.
fn without_line(name: &str) -> Option<String> {
    let (place, change) = name.split_once(": ")?;
    Some(format!("{}: {change}", place.split(':').next()?))
}

/// Prints a line for each group that was tried and says whether all reach the goal.
fn figures(tried: &[Tried]) -> bool {
    anstream::println!(
        "{:<26} {:>7} {:>7} {:>9} {:>9} {:>8}",
        "",
        "mutants",
        "caught",
        "unviable",
        "survived",
        "caught"
    );
    let mut enough = true;
    for (index, (title, _)) in GROUPS.iter().enumerate() {
        let count = |fate| tried.iter().filter(|one| one.fate == fate && group_of(&one.file) == Some(index)).count();
        let (caught, unviable, survived) = (count(Fate::Caught), count(Fate::Unviable), count(Fate::Survived));
        let built = caught + survived;
        if built + unviable == 0 {
            continue;
        }
        let percent = if built == 0 { 100.0 } else { 100.0 * caught as f64 / built as f64 };
        enough &= percent >= GOAL;
        let mutants = built + unviable;
        anstream::println!("{title:<26} {mutants:>7} {caught:>7} {unviable:>9} {survived:>9} {percent:>6.1} %");
    }
    enough
}

/// The first group that has the file; the later ones hold the rest.
fn group_of(file: &str) -> Option<usize> {
    GROUPS.iter().position(|(_, places)| places.iter().any(|place| file.starts_with(place)))
}

/// The survivors that the page explains, and how often each: two changes of one kind in one function share a name, and need a line each.
fn explained() -> Result<BTreeMap<String, usize>> {
    let text = std::fs::read_to_string(root().join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let mut explained = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("- `")) {
        let (name, reason) = line.split_once("`: ").with_context(|| format!("{PAGE}: no reason in {line:?}"))?;
        ensure!(name.contains(": ") && !reason.trim().is_empty(), "{PAGE}: no change or no reason in {name:?}");
        *explained.entry(name.to_owned()).or_default() += 1;
    }
    Ok(explained)
}

/// The survivors that the page does not explain. What it explains and a test caught is told, because such a line is out of date.
fn compare(tried: &[Tried], explained: &BTreeMap<String, usize>) -> Vec<String> {
    let mut survivors = BTreeMap::<&str, usize>::new();
    for one in tried {
        *survivors.entry(&one.name).or_default() += usize::from(one.fate == Fate::Survived);
    }
    let mut unexplained = Vec::new();
    for (name, count) in survivors {
        let reasons = explained.get(name).copied().unwrap_or_default();
        unexplained.extend(std::iter::repeat_n(name.to_owned(), count.saturating_sub(reasons)));
        if reasons > count {
            report::step(&format!("{PAGE} explains what does not survive: {name}"));
        }
    }
    unexplained
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow part is a task of its own; this one sees that the page has not gone stale.
    #[test]
    fn every_explained_mutant_is_of_a_file_and_a_function_that_exist() {
        for name in explained().unwrap().keys() {
            let (file, change) = name.split_once(": ").unwrap();
            assert!(SUITES.iter().any(|suite| suite.has(file)), "{name}");
            let source = std::fs::read_to_string(root().join(file)).unwrap();
            let function = function(change).unwrap();
            assert!(source.contains(&format!("fn {function}")), "{name}: there is no {function}");
        }
    }

    /// The last name in `replace + with - in Type::function`, or in `replace Type::function -> bool with true`.
    fn function(change: &str) -> Option<&str> {
        let path = match change.rsplit_once(" in ") {
            Some((_, path)) => path,
            None => {
                let path = change.strip_prefix("replace ")?.split(" -> ").next()?;
                path.split(" with ").next()?
            }
        };
        path.rsplit("::").next()
    }

    #[test]
    fn what_is_changed_and_what_is_skipped_exist() {
        for (_, places) in GROUPS {
            assert!(places.iter().all(|place| root().join(place).exists()));
        }
        let source = |file: &str| std::fs::read_to_string(root().join("crypto/src/ratchet").join(file)).unwrap();
        let tests = source("attacks.rs") + &source("tests.rs");
        assert!(TOO_LONG.iter().all(|test| tests.contains(&format!("fn {test}()"))));
    }

    #[test]
    fn a_survivor_needs_a_line_of_its_own() {
        let survivor = |name: &str| Tried { file: String::new(), name: name.to_owned(), fate: Fate::Survived };
        let page = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(compare(&[survivor("a"), survivor("b"), survivor("b")], &page), Vec::<String>::new());
        assert_eq!(compare(&[survivor("a"), survivor("a"), survivor("c")], &page), ["a", "c"]);
    }

    #[test]
    fn a_name_has_no_line() {
        let name = "crypto/src/seal.rs:12:5: replace OVERHEAD::f -> A with ::B";
        assert_eq!(without_line(name).unwrap(), "crypto/src/seal.rs: replace OVERHEAD::f -> A with ::B");
    }
}
