//! `file.read`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use happy_rpc::{CallError, ErrorCode, FilePart, FileRead, MAX_READ, MAX_WHOLE, USUAL_READ};
use rustix::fs::Stat;
use sha2::{Digest, Sha256};

use super::error::{refuse, said};
use super::roots::Roots;

/// No system's clock ticks more slowly.
const TICK: Duration = Duration::from_millis(20);
/// How often it is looked whether a file is left alone.
const TRIES: u32 = 5;
/// What is read at once to be hashed, bytes.
const CHUNK: usize = 64 * 1024;

/// Reads a part of a file.
///
/// # Errors
/// When it cannot be opened, or changes meanwhile.
pub fn read(roots: &Roots, params: &FileRead) -> Result<FilePart, CallError> {
    let path = params.path.as_str();
    let (file, _) = roots.file(path)?;
    let before = settled(&file, path)?;
    let stamp = stamp(&before);
    let changed =
        || refuse(ErrorCode::Conflict, path, "the file has changed since its first part was read; read it again");
    if params.stamp.as_ref().is_some_and(|wanted| *wanted != stamp) {
        return Err(changed());
    }
    let size = size(&before);
    if params.offset > size {
        let what = format!("it has {size} bytes, and what was asked for begins behind them");
        return Err(refuse(ErrorCode::Malformed, path, &what));
    }
    let failed = |error: io::Error| said("read", path, &error);
    let length = u64::from(params.length.unwrap_or(USUAL_READ).min(MAX_READ)).min(size - params.offset);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let filled = fill(&file, &mut bytes, params.offset).map_err(failed)?;
    let hash = match params.offset == 0 && size <= MAX_WHOLE {
        true => Some(hash_of(&file, size).map_err(failed)?.ok_or_else(changed)?),
        false => None,
    };
    let after = rustix::fs::fstat(&file).map_err(|error| failed(error.into()))?;
    if filled < bytes.len() || self::stamp(&after) != stamp {
        return Err(refuse(ErrorCode::Conflict, path, "the file was written to while it was read; read it again"));
    }
    Ok(FilePart {
        offset: params.offset,
        end: params.offset + length == size,
        bytes: STANDARD.encode(&bytes),
        size,
        stamp,
        hash,
        modified_at: modified_at(&before),
        mode: mode(&before),
    })
}

/// What is true of a file that nobody has written to for a moment. The time of the last change is as coarse as the system's clock ticks, so only from then on does
/// every further change show in it.
///
/// # Errors
/// When it is written to again and again.
pub(super) fn settled(file: &File, path: &str) -> Result<Stat, CallError> {
    for _ in 0..TRIES {
        let facts = rustix::fs::fstat(file).map_err(|error| said("look at", path, &error.into()))?;
        let since = crate::store::unix_ms().checked_sub(changed_at(&facts));
        // One of the future is by another clock, of a server of files, and says nothing.
        if since.is_none_or(|since| since > TICK.as_millis() as u64) {
            return Ok(facts);
        }
        std::thread::sleep(TICK);
    }
    Err(refuse(ErrorCode::Conflict, path, "the file is written to all the time; try again when that has ended"))
}

/// Reads from a place until the buffer is full or the file ends; how much there was.
pub(super) fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Hexadecimal SHA-256 of a file that has so many bytes; `None` when it has fewer by now.
pub(super) fn hash_of(file: &File, size: u64) -> io::Result<Option<String>> {
    let (mut hash, mut at, mut chunk) = (Sha256::new(), 0, vec![0; CHUNK]);
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        if fill(file, &mut chunk[..wanted], at)? < wanted {
            return Ok(None);
        }
        hash.update(&chunk[..wanted]);
        at += wanted as u64;
    }
    Ok(Some(hex(&hash.finalize())))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another one whenever a file was written to, replaced, or had its permissions changed.
#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
pub(super) fn stamp(facts: &Stat) -> String {
    let parts = [
        facts.st_dev as u64,
        facts.st_ino as u64,
        facts.st_size as u64,
        facts.st_mtime as u64,
        facts.st_mtime_nsec as u64,
        facts.st_ctime as u64,
        facts.st_ctime_nsec as u64,
    ];
    parts.map(|part| format!("{part:x}")).join(".")
}

pub(super) fn size(facts: &Stat) -> u64 {
    u64::try_from(facts.st_size).unwrap_or_default()
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
pub(super) fn mode(facts: &Stat) -> u32 {
    facts.st_mode as u32 & 0o7777
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
pub(super) fn modified_at(facts: &Stat) -> u64 {
    unix_ms(facts.st_mtime as i64, facts.st_mtime_nsec as u64)
}

#[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
fn changed_at(facts: &Stat) -> u64 {
    unix_ms(facts.st_ctime as i64, facts.st_ctime_nsec as u64)
}

fn unix_ms(seconds: i64, nanoseconds: u64) -> u64 {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}
