//! Puts the phone app (`phone/dist`) into the binary, so that a relay is one file.
//!
//! The table is written out as `include_bytes!` lines. A tree without a built app still builds: the relay then says so
//! to whoever opens it in a browser.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let dist = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../phone/dist");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", dist.display());

    let mut files = Vec::new();
    if dist.is_dir() {
        collect(&dist, String::new(), &mut files)?;
    }
    files.sort();

    // The compiler reads copies: the app may be built anew between this script and the compiler's turn.
    let copies = out.join("app");
    fs::create_dir_all(&copies)?;
    let mut table = String::from("/// Path below the root of the app, and its bytes; sorted by path.\n");
    table.push_str("pub(super) static FILES: &[(&str, &[u8])] = &[\n");
    for (n, (name, path)) in files.iter().enumerate() {
        // Not `fs::copy`: the copy's time of change must not be that of the original.
        fs::write(copies.join(n.to_string()), fs::read(path)?)?;
        writeln!(table, "    ({name:?}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/app/{n}\"))),")
            .map_err(io::Error::other)?;
    }
    table.push_str("];\n");
    fs::write(out.join("app.rs"), table)
}

/// Lists the files below `folder`. Names that are not UTF-8 cannot be asked for by a URL we serve, so they are left out.
fn collect(folder: &Path, prefix: String, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
        let path = entry.path();
        if path.is_dir() {
            collect(&path, format!("{name}/"), files)?;
        } else {
            files.push((name, path));
        }
    }
    Ok(())
}
