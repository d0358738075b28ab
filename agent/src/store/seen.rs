//! `seen/<device id>`: the sessions of another machine as they were last seen, so that a short id says which one is meant while
//! there is no link (`docs/LOCAL.md`).
//!
//! One line that says what it is and whose, with the hash of what follows: a damaged name must not lead to another session. Then
//! JSON. Nothing but names is in it and a link brings all of them anew, so a file that cannot be read is as good as none.

use std::collections::BTreeMap;
use std::path::Path;

use happy_crypto::DeviceId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::file;
use crate::trouble::Trouble;

/// The most sessions of one machine that are remembered by name.
const MAX_SEEN: usize = 4096;
/// The longest name that is remembered, bytes: with it a list has 1 MiB. A machine keeps names below that, and a longer one is only
/// not found by its name.
const MAX_NAME: usize = 200;
const MAGIC: &str = "happy seen";
/// What this version writes.
const VERSION: u32 = 1;

/// Sessions of a machine, by id, with their names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen(BTreeMap<Uuid, String>);

impl Seen {
    /// These sessions; of more than [`MAX_SEEN`] the first.
    pub fn all(sessions: impl IntoIterator<Item = (Uuid, String)>) -> Seen {
        let mut seen = Seen::default();
        for (id, name) in sessions {
            seen.see(id, name);
        }
        seen
    }

    /// A session is there, under this name. True when that is news.
    pub fn see(&mut self, id: Uuid, name: String) -> bool {
        let name = if name.len() > MAX_NAME { String::new() } else { name };
        if self.0.len() >= MAX_SEEN && !self.0.contains_key(&id) || self.0.get(&id) == Some(&name) {
            return false;
        }
        self.0.insert(id, name);
        true
    }

    /// A session is gone. True when that is news.
    pub fn miss(&mut self, id: &Uuid) -> bool {
        self.0.remove(id).is_some()
    }

    /// Ids and names.
    pub fn iter(&self) -> impl Iterator<Item = (&Uuid, &String)> {
        self.0.iter()
    }

    /// Reads what was seen of a machine; nothing when there is no file, or none that can be read.
    pub fn read(folder: &Path, device: &DeviceId) -> Seen {
        let path = folder.join(device.to_string());
        let bytes = file::read(&path).unwrap_or_else(|trouble| {
            tracing::warn!(%trouble, "the sessions that were seen cannot be read");
            None
        });
        let Some(bytes) = bytes else { return Seen::default() };
        decode(device, &bytes).unwrap_or_else(|| {
            tracing::warn!(path = %path.display(), "the sessions that were seen are damaged, or of another version");
            Seen::default()
        })
    }

    /// Writes it in the place of what was written before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path, device: &DeviceId) -> Result<(), Trouble> {
        // Plain data with string keys: serialising it cannot fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        let mut bytes = head(device, &json).into_bytes();
        bytes.extend_from_slice(&json);
        file::replace(&folder.join(device.to_string()), &bytes, file::PRIVATE)
    }
}

fn head(device: &DeviceId, json: &[u8]) -> String {
    let hash: String = Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{MAGIC} {VERSION} {device} {hash}\n")
}

fn decode(device: &DeviceId, bytes: &[u8]) -> Option<Seen> {
    let end = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let (first, json) = bytes.split_at(end);
    if first != head(device, json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok().filter(|seen: &Seen| seen.0.len() <= MAX_SEEN)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn machine() -> DeviceId {
        DeviceId::from_bytes([7; 32])
    }

    fn id(number: usize) -> Uuid {
        Uuid::from_u128(number as u128)
    }

    #[test]
    fn what_was_seen_is_there_again_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Seen::read(folder.path(), &machine()), Seen::default());
        let mut seen = Seen::all([(id(1), "build".to_owned()), (id(2), "x".repeat(MAX_NAME + 1))]);
        assert!(!seen.see(id(1), "build".into()), "no news");
        assert!(seen.see(id(1), "deploy".into()) && seen.see(id(3), String::new()) && seen.miss(&id(3)));
        assert!(!seen.miss(&id(3)));
        seen.write(folder.path(), &machine()).unwrap();
        let again = Seen::read(folder.path(), &machine());
        assert_eq!(again, seen);
        let names: Vec<_> = again.iter().map(|(id, name)| (*id, name.as_str())).collect();
        assert_eq!(names, [(id(1), "deploy"), (id(2), "")]);
        let mode = std::fs::metadata(folder.path().join(machine().to_string())).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_list_has_a_bound_and_what_is_in_it_is_kept_up_to_date() {
        let mut seen = Seen::all((0..MAX_SEEN + 1).map(|number| (id(number), String::new())));
        assert_eq!(seen.iter().count(), MAX_SEEN);
        assert!(!seen.see(id(MAX_SEEN), "late".into()));
        assert!(seen.see(id(0), "renamed".into()));
        assert!(seen.miss(&id(0)) && seen.see(id(MAX_SEEN), "late".into()));
        assert_eq!(seen.iter().count(), MAX_SEEN);
    }

    #[test]
    fn a_damaged_list_names_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Seen::all([(id(1), "build".to_owned())]);
        seen.write(folder.path(), &machine()).unwrap();
        let path = folder.path().join(machine().to_string());
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for bytes in [&flipped[..], &whole[..at]] {
                std::fs::write(&path, bytes).unwrap();
                assert_eq!(Seen::read(folder.path(), &machine()), Seen::default(), "{at}");
            }
        }
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Seen::read(folder.path(), &machine()), seen);
        let other = DeviceId::from_bytes([8; 32]);
        std::fs::rename(&path, folder.path().join(other.to_string())).unwrap();
        assert_eq!(Seen::read(folder.path(), &other), Seen::default(), "it is that of another machine");
    }
}
