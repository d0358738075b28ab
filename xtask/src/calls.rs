//! `cargo xtask calls`: writes `docs/CALLS.md`, the table of calls and roles, from the code.

use anyhow::{Context, Result};

use crate::{report, root};

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub fn run() -> Result<()> {
    let path = root().join("docs/CALLS.md");
    std::fs::write(&path, happy_rpc::calls_page()).with_context(|| format!("{} cannot be written", path.display()))?;
    report::step("docs/CALLS.md");
    Ok(())
}
