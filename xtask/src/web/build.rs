//! The steps of the build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::manifest::{self, Manifest};
use crate::{report, root, tools};

/// The wasm modules: name and features of `happy-phone`.
const MODULES: &[(&str, &str)] = &[("core", "core"), ("scan", "scan")];
/// Files below this size are not worth a second copy.
const COMPRESS_FROM: usize = 1024;
/// The generated TypeScript types.
const TYPES: &str = "phone/app/rpc.ts";
/// Remembers which lock file the installed packages belong to.
const INSTALLED: &str = "node_modules/.happy-lock";

pub fn run(check: bool) -> Result<()> {
    let begun = Instant::now();
    let root = root();
    let phone = root.join("phone");
    tools::require(&[tools::NODE, tools::NPM])?;
    tools::require_rust_parts()?;

    types(&root, check)?;
    for (name, features) in MODULES {
        report::step(&format!("wasm: {name}"));
        bindings(&wasm(&root, name, features)?, &phone.join("build").join(name))?;
    }
    packages(&phone)?;
    report::step("tsc");
    node(&phone, "typescript/bin/tsc", &[])?;
    report::step("vite build");
    let dist = phone.join(if check { "build/dist" } else { "dist" });
    let out = dist.to_str().context("the path of this folder is not UTF-8")?;
    node(&phone, "vite/bin/vite.js", &["build", "--logLevel", "warn", "--outDir", out])?;
    compress(&dist)?;
    let fresh = Manifest::describe(&root, &dist, rustc()?)?;
    fresh.write(&dist)?;

    if check {
        compare(&fresh, &Manifest::read(&phone.join("dist"))?)?;
    }
    sizes(&dist, &fresh)?;
    report::done(if check { "phone/dist is what these sources give" } else { "phone/dist" }, begun.elapsed());
    Ok(())
}

/// Builds one module, beside those of the app.
pub fn module(name: &str, features: &str) -> Result<PathBuf> {
    let root = root();
    tools::require_rust_parts()?;
    let out = root.join("phone/build").join(name);
    bindings(&wasm(&root, name, features)?, &out)?;
    Ok(out)
}

/// Writes the TypeScript types of the calls, or compares them with those that are there.
fn types(root: &Path, check: bool) -> Result<()> {
    let path = root.join(TYPES);
    let fresh = happy_rpc::typescript();
    if std::fs::read_to_string(&path).is_ok_and(|old| old == fresh) {
        return Ok(());
    }
    if check {
        bail!("{TYPES} is not what happy-rpc gives; run `cargo xtask web`");
    }
    std::fs::write(path, fresh).with_context(|| format!("{TYPES} cannot be written"))
}

/// Compiles `happy-phone` for the browser.
fn wasm(root: &Path, name: &str, features: &str) -> Result<PathBuf> {
    // A folder of its own, so that this build and the native ones do not wait for each other.
    let target = root.join("target/wasm").join(name);
    let mut command = tools::cargo();
    command.current_dir(root);
    crate::wasm::without_folders(&mut command)?;
    command.args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "happy-phone",
        "--profile",
        "wasm",
        "--no-default-features",
    ]);
    command.args(["--target", "wasm32-unknown-unknown", "--features", features, "--target-dir"]).arg(&target);
    succeed(&mut command, "the wasm build")?;
    Ok(target.join("wasm32-unknown-unknown/wasm/happy_phone.wasm"))
}

/// Writes the JavaScript beside the wasm.
fn bindings(wasm: &Path, out: &Path) -> Result<()> {
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(wasm)
        .web(true)?
        .omit_default_module_path(true)
        .remove_name_section(true)
        .remove_producers_section(true)
        .typescript(true)
        .generate(out)
        .context("wasm-bindgen failed")
}

/// Installs exactly what `package-lock.json` says, unless that is what is there.
fn packages(phone: &Path) -> Result<()> {
    let lock = std::fs::read(phone.join("package-lock.json")).context("phone/package-lock.json cannot be read")?;
    let stamp = phone.join(INSTALLED);
    if std::fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    report::step("npm ci");
    succeed(Command::new("npm").current_dir(phone).args(["ci", "--no-audit", "--no-fund"]), "npm ci")?;
    std::fs::write(stamp, lock).context("node_modules cannot be written to")
}

/// Runs a program of an installed package, without the shell that `npx` would put in between.
fn node(phone: &Path, script: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("node");
    command.current_dir(phone).arg(Path::new("node_modules").join(script)).args(arguments);
    succeed(&mut command, script)
}

/// Puts a brotli copy beside every file that gains by it, so that no server needs an encoder.
fn compress(dist: &Path) -> Result<()> {
    for (path, bytes) in read_all(dist)? {
        let gains = ["html", "js", "css", "wasm", "svg"].iter().any(|end| path.extension().is_some_and(|e| e == *end));
        if !gains || bytes.len() < COMPRESS_FROM {
            continue;
        }
        let mut name = path.into_os_string();
        name.push(".br");
        std::fs::write(name, brotli(&bytes)?).context("a compressed copy cannot be written")?;
    }
    Ok(())
}

fn brotli(bytes: &[u8]) -> Result<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, ..Default::default() };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut out, &parameters).context("brotli failed")?;
    Ok(out)
}

fn compare(fresh: &Manifest, committed: &Manifest) -> Result<()> {
    if fresh == committed {
        return Ok(());
    }
    let mut wrong = Vec::new();
    if fresh.rustc != committed.rustc {
        wrong.push(format!("built by {}, here is {}", committed.rustc, fresh.rustc));
    }
    for name in fresh.files.keys().chain(committed.files.keys()).collect::<std::collections::BTreeSet<_>>() {
        match (fresh.files.get(name), committed.files.get(name)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => wrong.push(format!("{name} differs")),
            (Some(_), None) => wrong.push(format!("{name} is new")),
            (None, _) => wrong.push(format!("{name} is no longer made")),
        }
    }
    if fresh.inputs != committed.inputs {
        wrong.push("the sources have changed".to_owned());
    }
    bail!("phone/dist is not what these sources give; run `cargo xtask web`\n  {}", wrong.join("\n  "))
}

/// Says what a phone has to fetch.
fn sizes(dist: &Path, manifest: &Manifest) -> Result<()> {
    let mut sizes = BTreeMap::new();
    for name in manifest.files.keys() {
        let length = std::fs::metadata(dist.join(name)).with_context(|| format!("{name} has gone"))?.len();
        sizes.insert(name.as_str(), length);
    }
    for (name, length) in &sizes {
        if let Some(compressed) = sizes.get(format!("{name}.br").as_str()) {
            report::step(&format!("{name}: {length} bytes, {compressed} as brotli"));
        }
    }
    Ok(())
}

fn read_all(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    manifest::files_below(folder)?.into_iter().map(|path| Ok((path.clone(), manifest::read(&path)?))).collect()
}

fn rustc() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc cannot be started")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what} cannot be started"))?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}
