//! The short form of `cargo xtask load`: strangers, floods, crowds and frozen readers against real relays, within bounds.

use anyhow::{Result, ensure};
use happy_tests::load::{Size, run};

#[test]
fn a_relay_keeps_its_bounds_under_load() -> Result<()> {
    let report = run(Size::SHORT)?;
    ensure!(report.violated().is_empty(), "violated: {}", report.violated().join(", "));
    Ok(())
}
