//! Tells the agent the hash of the phone app that stands in the same tree, so that a machine can say over the link which app its
//! phones should run. A tree without a built app has none. And the version that it says it has: the package's, unless whoever builds
//! it has named another one in `HAPPY_BUILD_VERSION`, as a distribution does for its own builds.

use std::fs;
use std::path::Path;

fn main() {
    let manifest = Path::new("../phone/dist/manifest.json");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../phone/dist");
    let text = fs::read_to_string(manifest).unwrap_or_default();
    let hash = text.split("\"bundle\"").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap_or_default();
    println!("cargo::rustc-env=HAPPY_APP_HASH={hash}");

    let version =
        std::env::var("HAPPY_BUILD_VERSION").or_else(|_| std::env::var("CARGO_PKG_VERSION")).unwrap_or_default();
    println!("cargo::rerun-if-env-changed=HAPPY_BUILD_VERSION");
    println!("cargo::rustc-env=HAPPY_VERSION={version}");
}
