//! The short form of `cargo xtask soak`: nothing that phones leave behind stays, and what they type is read and seen once.

use anyhow::{Result, ensure};
use happy_tests::soak::{Plan, run};

#[test]
fn nothing_stays_of_phones_that_come_and_go_and_nothing_they_type_is_lost() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let actor = env!("CARGO_BIN_EXE_soak").into();
    let report = run(&Plan { minutes: 0.6, sessions: 10, phones: 3, actor, out: folder.path().to_owned() })?;
    report.show();
    ensure!(report.holds(), "a bound does not hold");
    for what in ["visits", "looks", "lines typed", "lists seen by the dashboard"] {
        ensure!(report.done.get(what).is_some_and(|times| *times > 0), "{what}: {:?}", report.done);
    }
    ensure!(std::fs::read_to_string(folder.path().join("samples.csv"))?.lines().count() > 10, "hardly a sample");
    Ok(())
}
