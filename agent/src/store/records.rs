//! `records`: the key of this machine's records and the versions that they have had; and `records-seen`: the same of other machines, with what
//! they said last. Both 0600, JSON, replaced in one step. Versions only grow, so they are on the disk before a record is sent.

use std::collections::BTreeMap;

use happy_rpc::{MachineMetadata, MachineState};
use happy_wire::record::RecordKey;
use serde::{Deserialize, Serialize};

use super::{Home, file};
use crate::trouble::Trouble;

/// What is kept of this machine's own records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRecords {
    /// The key, and with it its generation.
    #[serde(with = "key_text")]
    pub key: Option<RecordKey>,
    /// The key before, by which this machine knows what it left at a relay.
    #[serde(with = "key_text")]
    pub before: Option<RecordKey>,
    /// The last versions of metadata and state.
    pub versions: [u64; 2],
}

/// What another machine said last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SeenMachine {
    /// The key that it gave.
    #[serde(with = "key_text")]
    pub key: Option<RecordKey>,
    /// The newest versions that were seen of metadata and state.
    pub versions: [u64; 2],
    /// What it is.
    pub metadata: Option<MachineMetadata>,
    /// What it was doing.
    pub state: Option<MachineState>,
    /// Its last sign of life, Unix milliseconds, as its relay says; 0 when that is not known.
    pub last_seen: u64,
}

impl OwnRecords {
    /// Reads them; a home without has none yet.
    ///
    /// # Errors
    /// When the file cannot be read or understood: a version that was used before must not be used again.
    pub fn open(home: &Home) -> Result<OwnRecords, Trouble> {
        let path = home.records();
        let Some(bytes) = file::read_private(&path)? else { return Ok(OwnRecords::default()) };
        serde_json::from_slice(&bytes).map_err(|_| {
            Trouble::new(
                format!("The file {} is damaged.", path.display()),
                "Move it aside; paired devices see this machine as it was last until they are connected again.",
            )
        })
    }

    /// Writes them.
    ///
    /// # Errors
    /// When that does not work.
    pub fn write(&self, home: &Home) -> Result<(), Trouble> {
        write(&home.records(), self)
    }
}

/// Reads what other machines said; a file that cannot be read is as good as none, for a link brings all of it anew.
pub fn read_seen(home: &Home) -> BTreeMap<String, SeenMachine> {
    let read = file::read_private(&home.records_seen()).unwrap_or_else(|trouble| {
        tracing::warn!(%trouble, "what other machines said of themselves cannot be read");
        None
    });
    read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes it.
///
/// # Errors
/// When that does not work.
pub fn write_seen(home: &Home, seen: &BTreeMap<String, SeenMachine>) -> Result<(), Trouble> {
    write(&home.records_seen(), seen)
}

fn write(path: &std::path::Path, what: &impl Serialize) -> Result<(), Trouble> {
    // Plain data with string keys: serialising it cannot fail.
    let text = zeroize::Zeroizing::new(serde_json::to_vec(what).unwrap_or_default());
    file::replace(path, &text, file::PRIVATE)
}

mod key_text {
    use happy_wire::record::RecordKey;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(key: &Option<RecordKey>, to: S) -> Result<S::Ok, S::Error> {
        key.as_ref().map(|key| (key.generation, key.secret_text())).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<RecordKey>, D::Error> {
        let Some((generation, text)) = Option::<(u32, String)>::deserialize(from)? else { return Ok(None) };
        RecordKey::from_text(generation, &text).map(Some).ok_or_else(|| D::Error::custom("no key"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_a_damaged_file_is_not_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        assert_eq!(OwnRecords::open(&home).unwrap(), OwnRecords::default());
        let key = Some(RecordKey { generation: 7, secret: std::array::from_fn(|at| at as u8 * 8) });
        let own = OwnRecords { key, before: None, versions: [3, u64::MAX] };
        own.write(&home).unwrap();
        assert_eq!(OwnRecords::open(&home).unwrap(), own);
        assert_eq!(std::fs::metadata(home.records()).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(home.records(), "{").unwrap();
        assert!(OwnRecords::open(&home).unwrap_err().what.contains("damaged"));
    }
}
