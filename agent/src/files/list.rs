//! `file.list`.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use happy_rpc::{CallError, FILE_PAGE, FileEntry, FileKind, FileList, FileListing};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::error::{json_length, said};
use super::read::{mode, modified_at, size};
use super::roots::Roots;

/// The bytes of names on one page, as JSON: with what else an entry has, the answer fits a message.
const PAGE_NAMES: usize = 128 * 1024;

/// Lists a folder, or the folders that are open.
///
/// # Errors
/// When it cannot be opened or read.
pub fn list(roots: &Roots, params: &FileList) -> Result<FileListing, CallError> {
    let after = params.after.as_deref().unwrap_or_default();
    let Some(path) = &params.path else {
        let all = roots.folders().into_iter().filter_map(|path| path.into_os_string().into_string().ok());
        return Ok(page(String::new(), 0, all.filter(|path| path.as_str() > after), |path| {
            entry(path.clone(), rustix::fs::stat(&path).ok())
        }));
    };
    let folder = roots.folder(path)?;
    let failed = |error: rustix::io::Errno| said("read", path, &error.into());
    // However many there are, no more than one page of them and one more is held.
    let (mut first, mut unnameable) = (BTreeMap::new(), 0);
    // The folder may be open for its path only.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = rustix::fs::openat(&folder.dir, ".", flags, Mode::empty()).map_err(failed)?;
    for found in rustix::fs::Dir::new(readable).map_err(failed)? {
        let found = found.map_err(failed)?;
        match found.file_name().to_str() {
            Ok("." | "..") => {}
            Ok(name) if name > after => {
                first.insert(name.to_owned(), ());
                if first.len() > FILE_PAGE + 1 {
                    first.pop_last();
                }
            }
            Ok(_) => {}
            Err(_) => unnameable += 1,
        }
    }
    let whole = String::from_utf8_lossy(folder.path.as_os_str().as_bytes()).into_owned();
    Ok(page(whole, unnameable, first.into_keys(), |name| {
        let facts = rustix::fs::statat(&folder.dir, &name, AtFlags::SYMLINK_NOFOLLOW).ok();
        entry(name, facts)
    }))
}

fn page(
    path: String,
    unnameable: u64,
    names: impl Iterator<Item = String>,
    look: impl Fn(String) -> FileEntry,
) -> FileListing {
    let (mut names, mut bytes, mut entries) = (names.peekable(), 0, Vec::new());
    while let Some(name) = names.peek()
        && entries.len() < FILE_PAGE
        // The first one fits, whatever it is.
        && (entries.is_empty() || bytes + json_length(name) <= PAGE_NAMES)
    {
        bytes += json_length(name);
        entries.extend(names.next().map(&look));
    }
    FileListing { path, entries, more: names.peek().is_some(), unnameable }
}

/// What is gone by now is shown as nothing that can be opened.
fn entry(name: String, facts: Option<Stat>) -> FileEntry {
    let Some(facts) = facts else {
        return FileEntry { name, kind: FileKind::Special, size: 0, modified_at: 0, mode: 0 };
    };
    let kind = match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Folder,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Special,
    };
    let size = if kind == FileKind::File { size(&facts) } else { 0 };
    FileEntry { name, kind, size, modified_at: modified_at(&facts), mode: mode(&facts) }
}
