//! What a machine says of itself in its records, to those who may look (`docs/PROTOCOL.md` §7.1).

use serde::{Deserialize, Serialize};

/// Asks a machine for its records, and for the key that opens them while it is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineRecordsGet {}

/// The records of a machine, and the key that opens them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineRecords {
    /// Counts the keys; another one after each revocation.
    pub generation: u32,
    /// The key, 64 hexadecimal digits. A secret of the machine and those who may look.
    pub key: String,
    /// Of the metadata; a record with a lower one is an old one.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub metadata_version: u64,
    /// What the machine is.
    pub metadata: MachineMetadata,
    /// Of the state.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub state_version: u64,
    /// What it is doing.
    pub state: MachineState,
}

/// The key is a secret.
impl std::fmt::Debug for MachineRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineRecords")
            .field("generation", &self.generation)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a machine is: record kind 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineMetadata {
    /// Its name, a label.
    pub name: String,
    /// The name that its network knows it by.
    pub host: String,
    /// For instance `linux`.
    pub platform: String,
    /// Of the agent.
    pub version: String,
    /// The home directory of its user.
    pub home: String,
    /// Where the agent keeps its files.
    pub happy_home: String,
}

/// What a machine is doing: record kind 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineState {
    /// Its daemon.
    pub status: MachineStatus,
    /// The daemon's process.
    pub pid: u32,
    /// The port of its local API.
    pub port: u16,
    /// When the daemon started, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub started_at: u64,
    /// When somebody asked it to end, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "number"))]
    pub shutdown_requested_at: Option<u64>,
    /// Who did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub shutdown_source: Option<StopSource>,
}

impl MachineState {
    /// Whether this is an earlier word of the same life of a daemon, which goes from *running* to *offline* and not back. A relay may have an earlier one than
    /// was told over a link.
    pub fn is_before(&self, other: &MachineState) -> bool {
        (self.started_at, self.pid) == (other.started_at, other.pid) && self.status < other.status
    }
}

/// What a daemon is doing, as it said last: one that crashed said nothing, and its last sign of life is what the relay has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum MachineStatus {
    /// It serves.
    Running,
    /// It was asked to end and says goodbye; its sessions go on.
    ShuttingDown,
    /// It has ended.
    Offline,
}

/// Who asked a daemon to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum StopSource {
    /// A device, over a link.
    Call,
    /// A command at the machine.
    Cli,
    /// A signal: a service manager, a terminal that was closed, a machine that goes down.
    Signal,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_of_a_daemon_goes_one_way() {
        let of = |started_at, status| MachineState {
            status,
            pid: 7,
            port: 0,
            started_at,
            shutdown_requested_at: None,
            shutdown_source: None,
        };
        assert!(of(1, MachineStatus::Running).is_before(&of(1, MachineStatus::ShuttingDown)));
        assert!(of(1, MachineStatus::ShuttingDown).is_before(&of(1, MachineStatus::Offline)));
        assert!(!of(1, MachineStatus::Offline).is_before(&of(1, MachineStatus::Running)));
        assert!(!of(1, MachineStatus::Offline).is_before(&of(1, MachineStatus::Offline)));
        assert!(!of(2, MachineStatus::Running).is_before(&of(1, MachineStatus::Offline)), "it was started again");
    }
}
