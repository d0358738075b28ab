//! `file.write`: aside, synced, and renamed into place in one step.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use happy_rpc::{CallError, ErrorCode, FileRange, FileWrite, FileWritten, MAX_WHOLE, MAX_WRITE, Over};
use rustix::fs::{Access, AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::{refuse, said};
use super::read::{fill, hex, mode, settled, size, stamp};
use super::roots::{Named, Roots};

/// Writes a file.
///
/// # Errors
/// When it cannot be written, or another one is there than the caller knows; it is as it was then.
pub fn write(roots: &Roots, params: &FileWrite) -> Result<FileWritten, CallError> {
    let path = params.path.as_str();
    let bytes = STANDARD
        .decode(&params.bytes)
        .map_err(|error| CallError::new(ErrorCode::Malformed, format!("the content is not base64: {error}")))?;
    if bytes.len() > MAX_WRITE {
        let what = format!("at most {MAX_WRITE} bytes are written at once; write the file in several ranges");
        return Err(refuse(ErrorCode::TooMany, path, &what));
    }
    let named = roots.named(path)?;
    let old = match roots.open_named(&named, path)? {
        Some((file, _)) => {
            let facts = settled(&file, path)?;
            Some((file, facts))
        }
        None => None,
    };
    let content = match (&old, &params.over) {
        (Some(_), Over::Nothing) => {
            return Err(refuse(
                ErrorCode::Conflict,
                path,
                "there is such a file already; read it, or give it another name",
            ));
        }
        (None, Over::Hash(_)) => {
            return Err(refuse(ErrorCode::Conflict, path, "the file that was read is not there any more"));
        }
        (None, Over::Nothing | Over::Anything) => match params.range {
            None | Some(FileRange { offset: 0, length: 0 }) => bytes,
            Some(_) => return Err(refuse(ErrorCode::Conflict, path, "there is no such file to write a part of")),
        },
        (Some((file, facts)), over) => {
            check_writable(&named, facts, path)?;
            let before = match (over, params.range) {
                (Over::Anything, None) => Vec::new(),
                _ => whole(file, facts, path)?,
            };
            if let Over::Hash(wanted) = over
                && !hex(&Sha256::digest(&before)).eq_ignore_ascii_case(wanted)
            {
                return Err(refuse(ErrorCode::Conflict, path, "the file has changed since it was read; read it again"));
            }
            match params.range {
                None => bytes,
                Some(range) => splice(before, range, &bytes, path)?,
            }
        }
    };
    if content.len() as u64 > MAX_WHOLE {
        let what =
            format!("a file that is written here has {} MiB at most; use a session for larger ones", MAX_WHOLE >> 20);
        return Err(refuse(ErrorCode::TooMany, path, &what));
    }
    let facts = old.map(|(_, facts)| facts);
    put(&named, facts.as_ref(), &content).map_err(|error| match error {
        PutError::Io(error) => said("write", path, &error),
        PutError::Group => refuse(
            ErrorCode::NotPermitted,
            path,
            "it belongs to a group that the user of this machine is not in, which it would lose; write it in a session",
        ),
        PutError::Changed => {
            refuse(ErrorCode::Conflict, path, "the file was changed while it was written; read it again")
        }
    })?;
    let facts = rustix::fs::statat(&named.folder.dir, &named.name, AtFlags::SYMLINK_NOFOLLOW);
    let mode = facts.map_err(|error| said("look at", path, &error.into())).map(|facts| mode(&facts))?;
    Ok(FileWritten { size: content.len() as u64, hash: hex(&Sha256::digest(&content)), mode })
}

/// A rename asks the folder only, so it would replace what may not be written.
fn check_writable(named: &Named, facts: &Stat, path: &str) -> Result<(), CallError> {
    if facts.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refuse(
            ErrorCode::NotPermitted,
            path,
            "it belongs to another user, and would be ours if it were written; write it in a session",
        ));
    }
    let may = rustix::fs::accessat(&named.folder.dir, &named.name, Access::WRITE_OK, AtFlags::EACCESS);
    if let Err(error @ Errno::ROFS) = may {
        return Err(said("write", path, &error.into()));
    }
    // The superuser may everything; that a file is marked as read-only is heeded all the same.
    if may.is_err() || mode(facts) & 0o200 == 0 {
        let what = format!("it is read-only (mode {:04o}); `chmod u+w` it first", mode(facts));
        return Err(refuse(ErrorCode::NotPermitted, path, &what));
    }
    Ok(())
}

fn whole(file: &File, facts: &Stat, path: &str) -> Result<Vec<u8>, CallError> {
    let size = size(facts);
    if size > MAX_WHOLE {
        let what = format!(
            "it has {size} bytes; a file of more than {} MiB cannot be checked for changes and is not written to. Use a session",
            MAX_WHOLE >> 20
        );
        return Err(refuse(ErrorCode::TooMany, path, &what));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    let filled = fill(file, &mut bytes, 0).map_err(|error| said("read", path, &error))?;
    bytes.truncate(filled);
    Ok(bytes)
}

fn splice(mut whole: Vec<u8>, range: FileRange, bytes: &[u8], path: &str) -> Result<Vec<u8>, CallError> {
    let size = whole.len() as u64;
    let end = range.offset.checked_add(range.length).filter(|end| *end <= size);
    let Some(end) = end else {
        let what = format!("it has {size} bytes, and the range that shall be replaced ends behind them");
        return Err(refuse(ErrorCode::Malformed, path, &what));
    };
    // Both are at most the length of the vector.
    whole.splice(range.offset as usize..end as usize, bytes.iter().copied());
    Ok(whole)
}

enum PutError {
    Io(io::Error),
    Group,
    Changed,
}

impl From<Errno> for PutError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<io::Error> for PutError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Puts content in the place of the file that was there, or of none.
fn put(named: &Named, old: Option<&Stat>, content: &[u8]) -> Result<(), PutError> {
    let dir = named.folder.dir.as_fd();
    let aside = Aside { dir: &named.folder.dir, name: format!(".happy-{}.new", Uuid::new_v4().simple()) };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its permissions; a new file gets what this process gives to new files.
    let first_mode = if old.is_some() { 0o600 } else { 0o666 };
    let file = rustix::fs::openat(dir, &aside.name, flags, Mode::from_raw_mode(first_mode))?;
    let mut file = File::from(file);
    file.write_all(content)?;
    if let Some(old) = old {
        if rustix::fs::fstat(&file)?.st_gid != old.st_gid {
            let group = rustix::process::Gid::from_raw(old.st_gid);
            rustix::fs::fchown(&file, None, Some(group)).map_err(|_| PutError::Group)?;
        }
        // After the owner, whose change takes bits away.
        rustix::fs::fchmod(&file, Mode::from_raw_mode((old.st_mode & 0o7777) as _))?;
    }
    file.sync_all()?;
    let now = match rustix::fs::statat(dir, &named.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) => Some(facts),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(error.into()),
    };
    if now.as_ref().map(stamp) != old.map(stamp) {
        return Err(PutError::Changed);
    }
    match old {
        Some(_) => rustix::fs::renameat(dir, &aside.name, dir, &named.name)?,
        // A link, unlike a rename, takes no place that somebody else has taken meanwhile; the other name goes with `aside`.
        None => match rustix::fs::linkat(dir, &aside.name, dir, &named.name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(PutError::Changed),
            // A disk without links. Nothing was there a moment ago.
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                rustix::fs::renameat(dir, &aside.name, dir, &named.name)?;
            }
            Err(error) => return Err(error.into()),
        },
    }
    drop(aside);
    // `dir` may be open for its path only.
    let folder = rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::fsync(folder)?;
    Ok(())
}

/// A file that is not in its place yet; what is left of it goes when this is dropped.
struct Aside<'a> {
    dir: &'a cap_std::fs::Dir,
    name: String,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // Once it was renamed there is nothing of that name.
        let _ = rustix::fs::unlinkat(self.dir.as_fd(), &self.name, AtFlags::empty());
    }
}
