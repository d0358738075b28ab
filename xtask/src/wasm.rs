//! What every build for the browser has in common.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::root;

/// Takes the folders of this machine out of what panics say: they would make the bytes differ from one machine to the next.
pub fn without_folders(command: &mut Command) -> Result<()> {
    let mut prefixes = vec![(root(), "/happy".to_owned())];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).context("there is no home directory")?;
    if let Ok(registries) = std::fs::read_dir(home.join("registry/src")) {
        for registry in registries {
            prefixes.push((registry?.path(), "/crates".to_owned()));
        }
    }
    // The rounds of both hashes as loops: 2.1 KB less to download, for microseconds a message.
    let mut flags = OsString::from("--cfg=sha2_backend_soft=\"compact\"");
    for (from, to) in prefixes {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push(format!("={to}"));
    }
    // Incremental builds cut the code into other units and give other bytes.
    command.env("CARGO_INCREMENTAL", "0");
    command.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", flags);
    Ok(())
}
