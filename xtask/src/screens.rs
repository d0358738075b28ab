//! `cargo xtask screens`: takes the pictures in `docs/screens` anew, by running the browser test.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test::{build_programs, prepare_browser};
use crate::{report, root};

/// Takes the pictures. Look at them before they are committed.
///
/// # Errors
/// When a tool is missing, or the browser test fails.
pub fn run() -> Result<()> {
    prepare_browser()?;
    build_programs()?;
    report::step("taking the pictures");
    let status = Command::new("node")
        .args(["--test", "--test-reporter=spec", "tests/browser/"])
        .env("HAPPY_SCREENS", root().join("docs/screens"))
        .current_dir(root())
        .status()
        .context("cannot start node")?;
    if !status.success() {
        bail!("the browser test failed, so the pictures are not to be trusted");
    }
    Ok(())
}
