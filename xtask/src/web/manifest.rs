//! `phone/dist/manifest.json`: the hash of every file of the built app, one hash over all of them (by which a phone and its
//! machine compare what they have), the hash of what it was built from, and the version of the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name of the manifest in the folder that it describes.
pub const FILE: &str = "manifest.json";

/// The crates that the wasm is made of.
const CRATES: &[&str] = &["crypto", "wire", "rpc", "screen", "pairing", "link", "phone"];
/// What else decides the result, under `phone/`.
const PHONE_FILES: &[&str] = &[".npmrc", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];

/// The manifest.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the protocol that the app speaks.
    pub protocol: u8,
    /// The compiler: only the same one gives the same bytes.
    pub rustc: String,
    /// SHA-256 over everything that the app is built from.
    pub inputs: String,
    /// SHA-256 over the lines `HASH  PATH` of the files as a browser sees them, in order of path; compressed copies are left out.
    pub bundle: String,
    /// SHA-256 of every file beside this one, by path.
    pub files: BTreeMap<String, String>,
}

impl Manifest {
    /// Describes the files in `dist`, built from the sources in `root`.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn describe(root: &Path, dist: &Path, rustc: String) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in files_below(dist)? {
            let name = relative(dist, &path)?;
            if name != FILE {
                files.insert(name, hash(&read(&path)?));
            }
        }
        let mut bundle = Sha256::new();
        for (name, hash) in files.iter().filter(|(name, _)| !name.ends_with(".br")) {
            bundle.update(format!("{hash}  {name}\n"));
        }
        let bundle = hexadecimal(&bundle.finalize());
        Ok(Self { protocol: protocol(root)?, rustc, inputs: inputs(root)?, bundle, files })
    }

    /// Reads the manifest in `dist`.
    ///
    /// # Errors
    /// When it is not there or damaged.
    pub fn read(dist: &Path) -> Result<Self> {
        serde_json::from_slice(&read(&dist.join(FILE))?)
            .context("the manifest of the phone app cannot be read; run `cargo xtask web`")
    }

    /// Writes it into `dist`.
    ///
    /// # Errors
    /// When the file cannot be written.
    #[cfg(feature = "web")]
    pub fn write(&self, dist: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(dist.join(FILE), text).context("the manifest cannot be written")
    }
}

/// One hash over every source that decides what the app is.
///
/// # Errors
/// When a file cannot be read.
pub fn inputs(root: &Path) -> Result<String> {
    let phone = root.join("phone");
    let mut paths: Vec<PathBuf> = PHONE_FILES.iter().map(|name| phone.join(name)).collect();
    paths.extend(files_below(&phone.join("app"))?);
    for name in CRATES {
        paths.push(root.join(name).join("Cargo.toml"));
        paths.extend(files_below(&root.join(name).join("src"))?);
    }
    paths.sort();

    let mut hasher = Sha256::new();
    for path in paths {
        hasher.update(format!("{}  {}\n", hash(&read(&path)?), relative(root, &path)?));
    }
    // Of the two files that everybody edits only what concerns the phone counts, or the app would look stale whenever the
    // relay gets a dependency.
    let lock = text(&root.join("Cargo.lock"))?;
    hasher.update(locked(&lock, "happy-phone").join("\n"));
    let workspace = text(&root.join("Cargo.toml"))?;
    hasher.update(workspace.find("[profile.").and_then(|start| workspace.get(start..)).unwrap_or_default());
    Ok(hexadecimal(&hasher.finalize()))
}

/// The entries of a lock file that `package` can reach, sorted.
fn locked<'a>(lock: &'a str, package: &str) -> Vec<&'a str> {
    let entries: Vec<&str> = lock.split("[[package]]").skip(1).map(str::trim).collect();
    let field = |entry: &'a str, key: &str| {
        entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"'))
    };
    let mut reached = BTreeSet::new();
    let mut open = vec![package];
    while let Some(wanted) = open.pop() {
        // A dependency is written as `name`, or as `name version` when there are several.
        let (name, version) = wanted.split_once(' ').map_or((wanted, None), |(name, version)| (name, Some(version)));
        for entry in &entries {
            let same = field(entry, "name") == Some(name) && version.is_none_or(|v| field(entry, "version") == Some(v));
            if same && reached.insert(*entry) {
                let listed = entry.lines().skip_while(|line| *line != "dependencies = [").skip(1);
                open.extend(listed.map_while(|line| line.trim().strip_prefix('"')?.strip_suffix("\",")));
            }
        }
    }
    reached.into_iter().collect()
}

/// The version of the protocol, from the one place where it is written.
fn protocol(root: &Path) -> Result<u8> {
    let source = text(&root.join("wire/src/lib.rs"))?;
    let digits = source.lines().find_map(|line| line.strip_prefix("pub const VERSION: u8 = ")?.strip_suffix(';'));
    digits.and_then(|digits| digits.parse().ok()).context("wire/src/lib.rs names no protocol version")
}

pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() { open.push(entry.path()) } else { files.push(entry.path()) }
        }
    }
    files.sort();
    Ok(files)
}

fn relative(root: &Path, path: &Path) -> Result<String> {
    match path.strip_prefix(root).ok().and_then(Path::to_str) {
        Some(name) => Ok(name.replace('\\', "/")),
        None => bail!("{} has a name that is not UTF-8", path.display()),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_app_is_what_its_manifest_says() {
        let root = crate::root();
        let dist = root.join("phone/dist");
        let written = Manifest::read(&dist).unwrap();
        let found = Manifest::describe(&root, &dist, written.rustc.clone()).unwrap();
        assert_eq!(found.files, written.files, "phone/dist was changed by hand; run `cargo xtask web`");
        assert_eq!(found.bundle, written.bundle);
        assert_eq!(
            found.protocol, written.protocol,
            "the app speaks another version of the protocol; run `cargo xtask web`"
        );
    }

    #[test]
    fn the_committed_app_was_built_from_these_sources() {
        let root = crate::root();
        let written = Manifest::read(&root.join("phone/dist")).unwrap();
        assert_eq!(
            inputs(&root).unwrap(),
            written.inputs,
            "phone/dist is older than its sources; run `cargo xtask web`"
        );
    }

    #[test]
    fn only_locked_packages_that_can_be_reached_count() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b 2.0.0\",\n \"c\",\n]\n\n\
                    [[package]]\nname = \"b\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.0.0\"\n\n\
                    [[package]]\nname = \"c\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"d\"\nversion = \"1.0.0\"\n";
        let names: Vec<_> = locked(lock, "a").iter().map(|entry| entry.lines().take(2).collect::<String>()).collect();
        assert_eq!(
            names,
            ["name = \"a\"version = \"1.0.0\"", "name = \"b\"version = \"2.0.0\"", "name = \"c\"version = \"1.0.0\""]
        );
    }
}
