//! `relay-keys.json`: what a relay at a bare address has proved once, so that another one in its place is noticed.
//!
//! No authority vouches for the relay inside another machine's daemon, so its certificate says nothing but its key. The key that it
//! had when its machine was joined is kept here, and no other is believed afterwards. Links do not depend on it: what passes
//! is sealed and authenticated end to end.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use happy_pairing::Origin;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::{Home, file};
use crate::trouble::Trouble;

/// How a relay shows who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum RelayKey {
    /// An authority that this system believes vouches for its certificate.
    Vouched,
    /// Its certificate is its own; this is the SHA-256 of the public key in it, as a SubjectPublicKeyInfo.
    Own([u8; 32]),
}

const VOUCHED: &str = "authority";
const OWN: &str = "sha256:";

impl RelayKey {
    /// Of a public key, as a certificate holds it.
    pub fn of(subject_public_key_info: &[u8]) -> RelayKey {
        RelayKey::Own(Sha256::digest(subject_public_key_info).into())
    }
}

impl fmt::Display for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RelayKey::Vouched => f.write_str(VOUCHED),
            RelayKey::Own(hash) => {
                f.write_str(OWN)?;
                hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl From<RelayKey> for String {
    fn from(key: RelayKey) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for RelayKey {
    type Error = String;

    fn try_from(text: String) -> Result<RelayKey, String> {
        if text == VOUCHED {
            return Ok(RelayKey::Vouched);
        }
        let digits = text.strip_prefix(OWN).map(str::as_bytes).unwrap_or_default();
        let mut hash = [0; 32];
        let pairs = digits.as_chunks::<2>().0;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if digits.len() != 64 {
            return Err(format!("`{text}` is no key of a relay"));
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Err(format!("`{text}` is no key of a relay"));
            };
            *byte = (high << 4 | low) as u8;
        }
        Ok(RelayKey::Own(hash))
    }
}

/// The keys, by the origin of the relay. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct RelayKeys(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    keys: Mutex<BTreeMap<String, RelayKey>>,
}

impl RelayKeys {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read: without it any relay would be believed again.
    pub fn open(home: &Home) -> Result<RelayKeys, Trouble> {
        let path = home.relay_keys();
        let keys = match file::read(&path)? {
            None => BTreeMap::new(),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Trouble::new(
                    format!("The keys of relays in {} cannot be read: {error}.", path.display()),
                    "Correct the file; or move it aside, and each relay is believed once more.",
                )
            })?,
        };
        Ok(RelayKeys(Arc::new(Shared { path, keys: Mutex::new(keys) })))
    }

    /// What a relay has to prove.
    pub fn get(&self, relay: &Origin) -> Option<RelayKey> {
        self.lock().get(relay.as_str()).cloned()
    }

    /// Keeps what a relay has to prove from now on. Gives what it was before.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn put(&self, relay: &Origin, key: RelayKey) -> Result<Option<RelayKey>, Trouble> {
        let mut keys = self.lock();
        let mut changed = keys.clone();
        let before = changed.insert(relay.as_str().to_owned(), key);
        if changed != *keys {
            file::replace(&self.0.path, &serde_json::to_vec_pretty(&changed).unwrap_or_default(), file::PRIVATE)?;
            *keys = changed;
        }
        Ok(before)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, RelayKey>> {
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_and_a_damaged_file_is_not_started_over() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_owned()).unwrap();
        let relay = Origin::parse("https://192.0.2.2:64876").unwrap();
        let keys = RelayKeys::open(&home).unwrap();
        assert_eq!(keys.put(&relay, RelayKey::of(b"a key")).unwrap(), None);
        let keys = RelayKeys::open(&home).unwrap();
        assert_eq!(keys.get(&relay), Some(RelayKey::of(b"a key")));
        assert_eq!(keys.put(&relay, RelayKey::Vouched).unwrap(), Some(RelayKey::of(b"a key")));
        assert_eq!(RelayKeys::open(&home).unwrap().get(&relay), Some(RelayKey::Vouched));
        for damaged in ["", "[]", r#"{"https://192.0.2.2:64876": "sha256:00"}"#, r#"{"x": "md5"}"#] {
            std::fs::write(home.relay_keys(), damaged).unwrap();
            assert!(RelayKeys::open(&home).is_err(), "{damaged}");
        }
    }
}
