//! Whether everything that git reads of a repository lies below the folders that are open. A `.git` can lead anywhere, and so can `commondir`, symbolic links in
//! it, and a list of other repositories whose objects it borrows.

use std::collections::HashSet;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use happy_rpc::{CallError, ErrorCode};

use crate::files::error::refuse;
use crate::files::roots::Roots;

/// How many repositories may be borrowed from, one by way of the other or side by side.
const MAX_ALTERNATES: usize = 32;

/// How many files and folders of a repository are looked at for links.
const MAX_ENTRIES: usize = 200_000;

/// The longest list of other repositories, bytes.
const MAX_LIST: usize = 16 * 1024;

/// Files and folders of a repository that git reads by these names.
const READ: [&str; 7] = ["HEAD", "index", "packed-refs", "config", "objects", "refs", "logs"];

/// Looks at a repository, and at the one that has its objects and branches: another one for a linked working tree. Waits for the disk.
///
/// # Errors
/// When something of it is outside, a link, or too much to look at.
pub(super) fn is_open(roots: &Roots, repository: &Path, common: &Path) -> Result<(), CallError> {
    for folder in [repository, common] {
        roots.folder(&folder.to_string_lossy())?;
        for name in READ {
            is_no_link(&folder.join(name))?;
        }
        no_links_in(&folder.join("refs"))?;
    }
    let mut wanted = vec![common.join("objects")];
    let mut seen = HashSet::new();
    while let Some(objects) = wanted.pop() {
        if !seen.insert(objects.clone()) {
            continue;
        }
        let shown = objects.to_string_lossy();
        if seen.len() > MAX_ALTERNATES {
            return Err(refuse(ErrorCode::NotPermitted, &shown, "the repository borrows objects from too many others"));
        }
        roots.folder(&shown)?;
        no_links_in(&objects)?;
        let list = alternates(&objects.join("info/alternates"))?;
        let others = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        wanted.extend(others.map(|line| objects.join(line)));
    }
    Ok(())
}

/// The list of other repositories; empty when there is none.
fn alternates(path: &Path) -> Result<String, CallError> {
    let failed = |error: io::Error| {
        let what = format!("it cannot be read: {}", crate::trouble::reason(&error));
        refuse(ErrorCode::Failed, &path.to_string_lossy(), &what)
    };
    // Opening a pipe would wait for whoever writes into it.
    let opened =
        std::fs::OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as _).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut list = Vec::new();
    let is_file = file.metadata().map_err(failed)?.is_file();
    file.take(MAX_LIST as u64).read_to_end(&mut list).map_err(failed)?;
    if !is_file || list.len() >= MAX_LIST {
        return Err(refuse(
            ErrorCode::NotPermitted,
            &path.to_string_lossy(),
            "it is no list of other repositories, or too long",
        ));
    }
    Ok(String::from_utf8_lossy(&list).into_owned())
}

fn is_no_link(path: &Path) -> Result<(), CallError> {
    match path.symlink_metadata() {
        Ok(facts) if facts.is_symlink() => Err(a_link(path)),
        // What is not there leads nowhere.
        _ => Ok(()),
    }
}

fn a_link(path: &Path) -> CallError {
    let what = "it is a symbolic link within a repository, which may lead anywhere, and is not followed";
    refuse(ErrorCode::NotPermitted, &path.to_string_lossy(), what)
}

/// Refuses a folder of a repository with symbolic links in it.
fn no_links_in(folder: &Path) -> Result<(), CallError> {
    let mut left = MAX_ENTRIES;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            left = left.saturating_sub(1);
            if left == 0 {
                return Err(refuse(
                    ErrorCode::TooMany,
                    &folder.to_string_lossy(),
                    "the repository has too many files; `git gc` packs them",
                ));
            }
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => return Err(a_link(&entry.path())),
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(())
}
