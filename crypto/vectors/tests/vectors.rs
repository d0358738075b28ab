//! The files are what both implementations give.

use std::path::Path;

#[test]
fn the_committed_vectors_are_what_the_code_gives() {
    for file in happy_vectors::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file.name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == file.text, "{} differs; run `cargo xtask vectors` and look at what changed", file.name);
    }
}
