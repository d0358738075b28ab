//! How a machine and its sessions are, sampled when somebody asks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Progress;

/// Asks how a machine and its sessions are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MetricsGet {}

/// The most sessions in one answer: with all their figures they stay below what a message may have.
pub const MAX_METRICS: usize = 512;

/// How a machine and its sessions are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Metrics {
    /// When this was found out, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub at: u64,
    /// When the daemon started, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub started_at: u64,
    /// Of all sessions, also those that are left out below.
    pub total: MetricsTotal,
    /// The newest [`MAX_METRICS`] sessions, oldest first.
    pub sessions: Vec<SessionMetrics>,
    /// How many are not listed.
    pub left_out: u32,
    /// The relays in use.
    pub relays: Vec<RelayHealth>,
    /// What went wrong since the daemon started, each kind once.
    pub errors: Vec<ErrorCount>,
    /// What the daemon did about it, the newest last.
    pub recoveries: Vec<Recovery>,
}

/// Sums over all sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MetricsTotal {
    /// How many there are.
    pub sessions: u32,
    /// How many of them run, whatever they do.
    pub running: u32,
    /// How many ended badly.
    pub failed: u32,
    /// Bytes that were typed into them.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub bytes_in: u64,
    /// Bytes that they have printed.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub bytes_out: u64,
    /// How many are looking.
    pub viewers: u32,
    /// Processor time of the programs that run, milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub cpu_ms: u64,
    /// Resident memory of the programs that run, bytes; what they share counts for each.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub memory: u64,
}

/// How a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionMetrics {
    /// Which.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// What it does.
    pub status: SessionStatus,
    /// Bytes that were typed into it: what viewers sent and people answered, each byte once; not what the terminal itself answers to the
    /// program. Machines of before do not count them.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub bytes_in: u64,
    /// Bytes that it has printed.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub bytes_out: u64,
    /// How many are looking.
    pub viewers: u32,
    /// How far it says it is; missing when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub progress: Option<Progress>,
    /// Its program and all processes below it; missing when that cannot be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub usage: Option<Usage>,
}

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum SessionStatus {
    /// It began a moment ago and has printed nothing.
    Initializing,
    /// It prints.
    Running,
    /// It has printed nothing for a while.
    Idle,
    /// It waits for a person.
    Waiting,
    /// Its program is stopped.
    Paused,
    /// It ended badly: with another code than 0, by a signal, or nobody knows how.
    Error,
    /// It ended well, or because somebody wanted it to.
    Exited,
}

/// What processes use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Usage {
    /// Processor time, milliseconds. That of processes that have ended counts where somebody has waited for them.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub cpu_ms: u64,
    /// Resident memory, bytes; what they share counts for each.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub memory: u64,
    /// How many there are.
    pub processes: u32,
}

/// How the way to a relay is. The next attempt to reach it has the number `failures` + 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct RelayHealth {
    /// Its origin.
    pub origin: String,
    /// See there.
    pub breaker: Breaker,
    /// Attempts that have failed in a row.
    pub failures: u32,
    /// Why there is no connection, in words, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub trouble: Option<String>,
    /// When the next attempt begins, Unix milliseconds. Missing while there is a connection or an attempt is under way, and when none follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "number"))]
    pub next_at: Option<u64>,
    /// How long that is after the attempt before, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "number"))]
    pub pause_ms: Option<u64>,
}

/// The circuit breaker in front of a relay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Breaker {
    /// There is a connection.
    Closed,
    /// It is tried again and again, with pauses that grow up to half a minute.
    #[default]
    HalfOpen,
    /// The relay has refused this machine for a reason that does not go away by itself, or a newer connection of it took over: it is left
    /// alone for a minute, for ten minutes, or for good.
    Open,
}

/// Something that went wrong, once or more often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct ErrorCount {
    /// What, in words.
    pub what: String,
    /// How often.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub count: u64,
    /// For the first time, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub first_at: u64,
    /// For the last time, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub last_at: u64,
}

/// Something that the daemon did about what went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Recovery {
    /// When, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub at: u64,
    /// What, in words.
    pub what: String,
}
