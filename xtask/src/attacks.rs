//! `cargo xtask attacks`: takes out each defence of `docs/THREAT-MODEL.md` by itself and sees that its test turns red.
//!
//! The list stands in `xtask/attacks.json`. Each entry names an attack, the tests that stand for it, and a change of the source that takes
//! the defence out. It all happens in a copy under `target/attacks`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{report, root, tools};

/// What to try.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only these attacks, such as `A12`.
    only: Vec<String>,
}

/// One attack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    id: String,
    package: String,
    /// What cargo calls the test binary: `lib`, or the name of an integration test.
    target: String,
    test: String,
    /// Nothing where the claim is that something does not exist.
    #[serde(default)]
    defence: Option<Defence>,
}

/// A change of the source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Defence {
    file: String,
    without: String,
    with: String,
}

/// Runs the list.
///
/// # Errors
/// When a test is red with its defence or green without it.
pub fn run(arguments: Arguments) -> Result<()> {
    let attacks: Vec<_> =
        list()?.into_iter().filter(|it| arguments.only.is_empty() || arguments.only.contains(&it.id)).collect();
    ensure!(!attacks.is_empty(), "there is no such attack in xtask/attacks.json");
    let copy = copy_tree()?;
    let mut wrong = Vec::new();
    for attack in &attacks {
        let start = Instant::now();
        let name = format!("{} {}", attack.id, attack.test);
        match try_one(&copy, attack) {
            Ok(()) if attack.defence.is_some() => {
                report::done(&format!("{name}: red without its defence,"), start.elapsed())
            }
            Ok(()) => report::done(&format!("{name}: green,"), start.elapsed()),
            Err(error) => {
                report::problem(&format!("{name}: {error:#}"));
                wrong.push(attack.id.as_str());
            }
        }
    }
    ensure!(wrong.is_empty(), "these tests do not show what they claim: {}", wrong.join(", "));
    Ok(())
}

fn list() -> Result<Vec<Attack>> {
    let path = root().join("xtask/attacks.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).context("xtask/attacks.json")
}

/// The files that git knows or would know, without the built app.
fn copy_tree() -> Result<PathBuf> {
    let copy = root().join("target/attacks/tree");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("starting git")?;
    ensure!(listed.status.success(), "git does not list the files of this folder");
    for file in listed.stdout.split(|byte| *byte == 0).filter(|file| !file.is_empty()) {
        let file = std::str::from_utf8(file)?;
        let (from, to) = (root().join(file), copy.join(file));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        // What has not changed keeps its time, so that it is not built again.
        if std::fs::read(&to).is_ok_and(|there| there == bytes) {
            continue;
        }
        std::fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        std::fs::write(&to, bytes)?;
    }
    Ok(copy)
}

fn try_one(copy: &Path, attack: &Attack) -> Result<()> {
    let Some(defence) = &attack.defence else {
        return match test(copy, attack)? {
            Outcome::Green => Ok(()),
            other => bail!("{other:?}"),
        };
    };
    let path = copy.join(&defence.file);
    let whole = std::fs::read_to_string(root().join(&defence.file))?;
    let broken = take_out(&whole, defence)?;
    std::fs::write(&path, broken)?;
    let without = test(copy, attack);
    std::fs::write(&path, &whole)?;
    match without? {
        Outcome::Red => {}
        Outcome::Green => bail!("green although its defence was taken out of {}", defence.file),
        Outcome::NotBuilt => bail!("the change of {} does not compile", defence.file),
    }
    match test(copy, attack)? {
        Outcome::Green => Ok(()),
        other => bail!("with its defence: {other:?}"),
    }
}

fn take_out(whole: &str, defence: &Defence) -> Result<String> {
    let count = whole.matches(&defence.without).count();
    ensure!(count > 0, "{} does not contain {:?} any more", defence.file, defence.without);
    Ok(whole.replace(&defence.without, &defence.with))
}

#[derive(Debug)]
enum Outcome {
    Green,
    Red,
    NotBuilt,
}

fn test(copy: &Path, attack: &Attack) -> Result<Outcome> {
    let mut cargo = tools::cargo();
    cargo.args(["test", "--quiet", "--package", &attack.package]);
    match attack.target.as_str() {
        "lib" => cargo.arg("--lib"),
        name => cargo.args(["--test", name]),
    };
    cargo
        .args(["--", "--exact", &attack.test])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", root().join("target/attacks/build"));
    let output = cargo.output().context("starting cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(match () {
        () if said.contains("test result: FAILED") => Outcome::Red,
        () if output.status.success() && said.contains("test result: ok. 1 passed") => Outcome::Green,
        () if output.status.success() => bail!("there is no test of this name"),
        () => Outcome::NotBuilt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slow part is a task of its own; this one sees that the list has not gone stale.
    #[test]
    fn every_attack_names_a_test_and_a_line_that_exist() {
        let attacks = list().unwrap();
        for number in 1..=37 {
            assert!(attacks.iter().any(|attack| attack.id == format!("A{number}")), "A{number} is missing");
        }
        for attack in &attacks {
            if let Some(defence) = &attack.defence {
                let whole = std::fs::read_to_string(root().join(&defence.file)).unwrap();
                assert!(take_out(&whole, defence).unwrap() != whole, "{}", attack.id);
            }
        }
        let page = std::fs::read_to_string(root().join("docs/THREAT-MODEL.md")).unwrap();
        for attack in &attacks {
            let test = attack.test.rsplit("::").next().unwrap();
            assert!(page.contains(test), "{}: docs/THREAT-MODEL.md does not name {test}", attack.id);
        }
    }
}
