//! `cargo xtask vectors`: writes the test vectors in `crypto/vectors`, or compares them with what the code gives, natively or in
//! wasm.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{root, tools};

/// What to do with the vectors.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only compare.
    #[arg(long)]
    check: bool,
    /// Compare with what wasm gives, under node, and say how large the core is.
    #[arg(long)]
    wasm: bool,
}

/// Writes or compares the vectors.
///
/// # Errors
/// When they differ, or when a tool or a build fails.
pub fn run(arguments: Arguments) -> Result<()> {
    if arguments.wasm {
        return wasm();
    }
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "happy-vectors", "--bin", "vectors"]);
    if arguments.check {
        command.args(["--", "--check"]);
    }
    succeed(command, "the generator")
}

fn wasm() -> Result<()> {
    tools::require(&[tools::NODE])?;
    tools::require_rust_parts()?;
    // A folder of its own, so that this build and the native ones do not wait for each other.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let target = target.join("wasm/vectors");
    for what in [&["--lib"][..], &["--example", "core"]] {
        let mut command = cargo();
        crate::wasm::without_folders(&mut command)?;
        command.args(["build", "--quiet", "--locked", "--package", "happy-vectors", "--profile", "wasm"]);
        command.args(["--target", "wasm32-unknown-unknown", "--target-dir"]).arg(&target).args(what);
        succeed(command, "the wasm build")?;
    }
    let built = target.join("wasm32-unknown-unknown/wasm");
    let mut node = Command::new("node");
    node.arg(root().join("crypto/vectors/check.mjs"));
    node.arg(built.join("happy_vectors.wasm")).arg(built.join("examples/core.wasm"));
    succeed(node, "the comparison")
}

fn cargo() -> Command {
    let mut command = tools::cargo();
    command.current_dir(root());
    command
}

fn succeed(mut command: Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} cannot be started"))?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}
