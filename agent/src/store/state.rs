//! `daemon.state.json`: where the running daemon is, for people and scripts. Written at its start, removed at its end.

use serde::{Deserialize, Serialize};

/// The facts of a running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonState {
    /// The process.
    pub pid: u32,
    /// Of the agent.
    pub version: String,
    /// Unix milliseconds.
    pub started_at: u64,
    /// The port of the local API; none when it does not run.
    pub api_port: Option<u16>,
    /// The port of the relay inside it; none when it uses another relay.
    pub relay_port: Option<u16>,
}
