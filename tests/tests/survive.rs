//! The short form of `cargo xtask survive`. The other build is a copy of this one that takes itself for another version.

use std::io::Write as _;

use anyhow::{Result, ensure};
use happy_tests::process::program;
use happy_tests::survive::{Plan, run};

#[test]
fn sessions_and_their_viewers_outlive_daemons_that_are_killed_upgraded_and_stopped() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let other = folder.path().join("other");
    std::fs::copy(program("happy")?, &other)?;
    let mut file = std::fs::OpenOptions::new().append(true).open(&other)?;
    writeln!(file, "\nhappy-pretence {{\"version\": \"9.9.9\"}}")?;
    drop(file);
    let printer = env!("CARGO_BIN_EXE_survive").into();
    // More than a page of the list.
    let plan = Plan { program: program("happy")?, other, printer, rounds: 3, crowd: 120 };
    let report = run(&plan)?;
    report.show();
    ensure!(report.bytes > 1_000_000 && report.endings == 9 && report.blackouts.len() == 15);
    Ok(())
}
