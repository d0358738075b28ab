//! What a search has kept: one file for each target in `fuzz/corpus`, its inputs one after the other, each behind its length (`u32`).

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where the corpus of a target stands.
#[must_use]
pub fn file(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target; none when nothing was kept yet.
///
/// # Errors
/// When the file cannot be read, or ends in the middle of an input.
pub fn read(target: &str) -> io::Result<Vec<Vec<u8>>> {
    let bytes = match fs::read(file(target)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "a corpus ends in the middle of an input");
    let mut rest = bytes.as_slice();
    let mut inputs = Vec::new();
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let (input, behind) = behind.split_at_checked(length).ok_or_else(cut)?;
        inputs.push(input.to_vec());
        rest = behind;
    }
    Ok(inputs)
}

/// Makes the files of a folder the corpus of a target, in the order of their names.
///
/// # Errors
/// When a file cannot be read or the corpus not be written.
pub fn write(target: &str, folder: &Path) -> io::Result<()> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    let mut bytes = Vec::new();
    for path in paths {
        let input = fs::read(path)?;
        bytes.extend_from_slice(&(input.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&input);
    }
    fs::write(file(target), bytes)
}
