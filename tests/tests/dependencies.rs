//! `docs/DEPENDENCIES.md` says of every direct dependency why it was chosen.

use std::path::Path;

use anyhow::Result;

#[test]
fn every_direct_dependency_is_explained() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/DEPENDENCIES.md"))?;
    let manifest = std::fs::read_to_string(root.join("Cargo.toml"))?;
    let crates = manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path = "))
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name.to_owned()));
    let packages: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(root.join("phone/package.json"))?)?;
    let packages = ["dependencies", "devDependencies"]
        .into_iter()
        .filter_map(|kind| packages[kind].as_object())
        .flat_map(|names| names.keys().cloned());
    let unexplained = crates.chain(packages).filter(|name| !page.contains(&format!("`{name}`"))).collect::<Vec<_>>();
    assert!(unexplained.is_empty(), "docs/DEPENDENCIES.md has no line for {unexplained:?}");
    Ok(())
}
