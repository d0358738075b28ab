//! `cargo xtask web`: builds the phone app into `phone/dist`, which is committed so that a machine with only Rust has the
//! whole product.
//!
//! The steps: the crate `happy-phone` to wasm, twice (the core, and the QR reader that only a browser without one of its
//! own loads); bindings by wasm-bindgen as a library, so that its version is the one in `Cargo.lock`; TypeScript types from
//! `happy-rpc`; then `npm ci`, `tsc` and Vite; at last a manifest of hashes. All of it is reproducible: the same toolchain
//! gives the same bytes in another folder, which is what `--check` relies on.

#[cfg(feature = "web")]
mod build;
#[cfg(any(feature = "web", test))]
mod manifest;

use anyhow::Result;

/// Options of `cargo xtask web`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Build elsewhere and compare with what is committed.
    #[arg(long)]
    check: bool,
}

/// Builds a wasm module of the phone and its JavaScript; gives the folder they are in.
///
/// # Errors
/// When it does not build.
#[cfg(feature = "web")]
pub fn module(name: &str, features: &str) -> Result<std::path::PathBuf> {
    build::module(name, features)
}

/// Builds the app, or compares a fresh build with the committed one.
///
/// # Errors
/// The step that failed, with what to do; with `--check` also the files that differ.
#[cfg(feature = "web")]
pub fn run(arguments: Arguments) -> Result<()> {
    build::run(arguments.check)
}

/// Starts itself again with the libraries that the build needs, which would slow down every other task.
///
/// # Errors
/// When cargo cannot be started or the build fails.
#[cfg(not(feature = "web"))]
pub fn run(arguments: Arguments) -> Result<()> {
    let check = arguments.check.then_some("--check");
    again(&[&["web"], check.as_slice()].concat())
}

/// Starts this program again, with the libraries that building for the web needs.
///
/// # Errors
/// When cargo cannot be started, or what it started fails.
#[cfg(not(feature = "web"))]
pub fn again(words: &[&str]) -> Result<()> {
    use anyhow::{Context, bail};

    let mut command = crate::tools::cargo();
    command.current_dir(crate::root());
    command.args(["run", "--quiet", "--package", "xtask", "--features", "web", "--"]).args(words);
    if !command.status().context("cargo cannot be started")?.success() {
        bail!("`cargo xtask {}` did not succeed", words.join(" "))
    }
    Ok(())
}
