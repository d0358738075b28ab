//! Which program an executable file is.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::protocol::Build;

/// This very program, by the file it was started from, whatever stands at its path by now.
pub fn own() -> Build {
    let metadata = match cfg!(target_os = "linux") {
        true => std::fs::metadata("/proc/self/exe"),
        false => std::env::current_exe().and_then(std::fs::metadata),
    };
    // One without a file is like no other, and is upgraded at the first occasion.
    Build { version: version(), id: metadata.map(|metadata| id(&metadata)).unwrap_or_default() }
}

/// The id of the program at a path.
///
/// # Errors
/// What the file system says.
pub fn id_of(path: &Path) -> io::Result<String> {
    std::fs::metadata(path).map(|metadata| id(&metadata))
}

/// Reading some megabytes at every start for a hash would tell no more: an installer writes a file anew.
fn id(metadata: &Metadata) -> String {
    format!("{:x}-{:x}.{:x}", metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

/// The version that it says it has.
pub fn version() -> String {
    super::pretence::get().version.unwrap_or_else(|| crate::VERSION.into())
}
