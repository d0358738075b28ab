//! What the command line and the daemon say to each other about commands for other machines.

use happy_rpc::{CallError, Request};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Gives a command for another machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueGive {
    /// Which machine, by name or by the beginning of its id.
    pub machine: String,
    /// What shall be done there.
    pub request: Request,
    /// It shall begin within so many ms, by the clock there.
    pub within: u64,
    /// When the person gave it, Unix milliseconds, from which that counts; now without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_at: Option<u64>,
}

/// Asks for the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueList {}

/// Waits a while for the outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueWait {
    /// Which.
    pub number: u64,
}

/// Takes a command back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCancel {
    /// Which.
    pub number: u64,
}

/// Drops the commands that are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueClear {}

/// Asks which sessions of another machine were last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSessions {
    /// Which machine.
    pub machine: String,
}

/// What became of a command so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    /// It is not on the disk yet.
    Draft,
    /// It waits for a link, or for its turn.
    Queued,
    /// It was sent, or may have been.
    Sent,
    /// The machine has it.
    Delivered,
    /// It was done.
    Done,
    /// It was refused, or could not be done.
    Failed,
    /// The machine ended while it ran it.
    Indeterminate,
    /// It was not begun in time.
    Expired,
    /// It was taken back.
    Cancelled,
}

impl QueueState {
    /// Whether nothing will change any more.
    pub fn is_over(self) -> bool {
        !matches!(self, QueueState::Draft | QueueState::Queued | QueueState::Sent | QueueState::Delivered)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its number.
    pub number: u64,
    /// What became of it.
    pub state: QueueState,
    /// Why it was not done, or what the machine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CallError>,
    /// The id of the machine.
    pub machine: String,
    /// Its name here.
    pub machine_name: String,
    /// Whether there is a link to it.
    pub link_up: bool,
    /// What shall be done there.
    pub request: Request,
    /// When it was given, Unix milliseconds.
    pub given_at: u64,
    /// Later it does not begin, Unix milliseconds by the clock here.
    pub until: u64,
    /// When it was over, Unix milliseconds.
    pub ended_at: Option<u64>,
}

/// The commands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// In the order in which they were given.
    pub entries: Vec<QueueEntry>,
    /// What is wrong with lists that cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A command somebody waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueWaited {
    /// The command.
    pub entry: QueueEntry,
    /// The answer, if it came in this life of the daemon and is not long: the body of a response.
    pub answer: Option<serde_json::Value>,
}

/// How many were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCleared {
    /// So many.
    pub dropped: usize,
}

/// A session as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenSession {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}
