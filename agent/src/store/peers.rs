//! `peers.json`: how devices are reached. Public data; who is a member stands in the [roster](super::Roster)'s log.

use std::collections::BTreeMap;
use std::path::Path;

use happy_crypto::{Bundle, DeviceId, IdentityRecord};
use happy_pairing::{Origin, Role};
use serde::{Deserialize, Serialize};

use crate::store::file;
use crate::store::roster::damaged;
use crate::trouble::Trouble;

/// How a device is reached.
#[derive(Clone)]
pub struct Peer {
    /// Its id.
    pub device: DeviceId,
    /// Its keys.
    pub record: IdentityRecord,
    /// Its name here.
    pub name: String,
    /// What this machine is there.
    pub my_role: Role,
    /// This machine joined that one, and so it begins the handshakes.
    pub joined: bool,
    /// What a handshake begins with, where this machine begins it; none when the one that is stored cannot be read by this version.
    pub bundle: Option<Bundle>,
    /// That one, as it is stored.
    pub(super) unread_bundle: Option<String>,
    /// The relays through which it can be reached; the first is the one it was joined through.
    pub relays: Vec<Origin>,
    /// It has told this machine, signed, that it removed it.
    pub removed_us: bool,
    /// What it was let in as by an invitation of this machine; none when this machine has only joined it.
    pub let_in: Option<Role>,
}

/// A line of `peers.json`.
#[derive(Serialize, Deserialize)]
struct StoredPeer {
    identity: String,
    name: String,
    my_role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bundle: Option<String>,
    #[serde(default)]
    relays: Vec<String>,
    #[serde(default)]
    removed_us: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    let_in: Option<String>,
}

/// Reads the file; empty when there is none.
///
/// # Errors
/// When it is damaged.
pub(super) fn open(path: &Path) -> Result<BTreeMap<DeviceId, Peer>, Trouble> {
    let Some(bytes) = file::read(path)? else { return Ok(BTreeMap::new()) };
    let stored: Vec<StoredPeer> = serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    let read = |stored: StoredPeer| stored.read().map(|peer| (peer.device, peer));
    stored.into_iter().map(read).collect::<Option<_>>().ok_or_else(|| damaged(path, "an entry cannot be read"))
}

/// Writes the file in one step.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(path: &Path, peers: &BTreeMap<DeviceId, Peer>) -> Result<(), Trouble> {
    let stored: Vec<_> = peers.values().map(StoredPeer::of).collect();
    file::replace(path, &serde_json::to_vec_pretty(&stored).unwrap_or_default(), file::PRIVATE)
}

impl StoredPeer {
    fn of(peer: &Peer) -> StoredPeer {
        StoredPeer {
            identity: hex(peer.record.as_bytes()),
            name: peer.name.clone(),
            my_role: peer.my_role.to_string(),
            bundle: peer.bundle.as_ref().map(|bundle| hex(bundle.as_bytes())).or_else(|| peer.unread_bundle.clone()),
            relays: peer.relays.iter().map(ToString::to_string).collect(),
            removed_us: peer.removed_us,
            let_in: peer.let_in.map(|role| role.to_string()),
        }
    }

    fn read(self) -> Option<Peer> {
        let record = IdentityRecord::decode(&unhex(&self.identity)?).ok()?;
        let bundle = self.bundle.as_deref().and_then(|bundle| Bundle::decode(&unhex(bundle)?).ok());
        Some(Peer {
            device: record.device_id(),
            record,
            name: self.name,
            my_role: self.my_role.parse().ok()?,
            joined: self.bundle.is_some(),
            // It may be one of an older version. That machine must be joined again; everything else goes on.
            unread_bundle: self.bundle.filter(|_| bundle.is_none()),
            bundle,
            relays: self.relays.iter().map(|relay| Origin::parse(relay)).collect::<Result<_, _>>().ok()?,
            removed_us: self.removed_us,
            let_in: match self.let_in {
                Some(role) => Some(role.parse().ok()?),
                None => None,
            },
        })
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}
