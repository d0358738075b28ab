//! Calls and events that exist on the daemon's socket only: whoever holds the socket is the person at this machine.

use happy_rpc::{CallError, ErrorCode, Role};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::daemon::queue::{
    Queue, QueueCancel, QueueClear, QueueCleared, QueueEntry, QueueGive, QueueList, QueueSessions, QueueWait,
    QueueWaited, SeenSession,
};

/// A request that no other device can make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", content = "params")]
pub enum LocalRequest {
    /// Makes an invitation; one that is live ends.
    #[serde(rename = "pair.start")]
    PairStart(PairStart),
    /// What the invitation is waiting for.
    #[serde(rename = "pair.status")]
    PairStatus(PairStatus),
    /// The code that the other device shows.
    #[serde(rename = "pair.code")]
    PairCode(PairCode),
    /// Ends the invitation.
    #[serde(rename = "pair.cancel")]
    PairCancel(PairCancel),
    /// Takes up another machine's invitation; its progress comes as events.
    #[serde(rename = "join")]
    Join(Join),
    /// The machines that this one can speak to.
    #[serde(rename = "machines")]
    Machines(Machines),
    /// The devices, with what only the person at this machine is told.
    #[serde(rename = "devices")]
    Devices(Devices),
    /// Removes every device and gives this machine new keys; the daemon starts anew then.
    #[serde(rename = "devices.revoke_all")]
    RevokeAll(RevokeAll),
    /// Takes a command for another machine.
    #[serde(rename = "queue.give")]
    QueueGive(QueueGive),
    /// The commands for other machines.
    #[serde(rename = "queue.list")]
    QueueList(QueueList),
    /// Waits a while for the outcome of one.
    #[serde(rename = "queue.wait")]
    QueueWait(QueueWait),
    /// Takes one back.
    #[serde(rename = "queue.cancel")]
    QueueCancel(QueueCancel),
    /// Drops those that are over.
    #[serde(rename = "queue.clear")]
    QueueClear(QueueClear),
    /// The sessions of another machine that were last seen.
    #[serde(rename = "queue.sessions")]
    QueueSessions(QueueSessions),
    /// Asks people on behalf of a program in a session.
    #[serde(rename = "hook.ask")]
    HookAsk(HookAsk),
    /// A program in a session needs somebody.
    #[serde(rename = "hook.call")]
    HookCall(HookCall),
    /// An address that lets one browser into the dashboard.
    #[serde(rename = "dashboard.open")]
    DashboardOpen(DashboardOpen),
    /// There is a new key for a relay.
    #[serde(rename = "relay.enrolled")]
    RelayEnrolled(RelayEnrolled),
    /// What the daemon is.
    #[serde(rename = "daemon.status")]
    Status(Status),
    /// Ends the daemon; sessions go on.
    #[serde(rename = "daemon.stop")]
    Stop(Stop),
}

/// A local call: its parameters are the type itself.
pub trait LocalCall: Into<LocalRequest> {
    /// What a successful call gives back.
    type Output: Serialize + DeserializeOwned;
}

macro_rules! local_calls {
    ($($variant:ident($params:ident) -> $output:ty;)*) => {
        $(
            impl From<$params> for LocalRequest {
                fn from(params: $params) -> Self { LocalRequest::$variant(params) }
            }
            impl LocalCall for $params {
                type Output = $output;
            }
        )*
    };
}

local_calls! {
    PairStart(PairStart) -> Invited;
    PairStatus(PairStatus) -> PairState;
    PairCode(PairCode) -> CodeAnswer;
    PairCancel(PairCancel) -> happy_rpc::Done;
    Join(Join) -> happy_rpc::Done;
    Machines(Machines) -> Vec<MachineEntry>;
    Devices(Devices) -> Vec<DeviceEntry>;
    RevokeAll(RevokeAll) -> Renewed;
    QueueGive(QueueGive) -> QueueEntry;
    QueueList(QueueList) -> Queue;
    QueueWait(QueueWait) -> QueueWaited;
    QueueCancel(QueueCancel) -> QueueEntry;
    QueueClear(QueueClear) -> QueueCleared;
    QueueSessions(QueueSessions) -> Vec<SeenSession>;
    HookAsk(HookAsk) -> Option<HookAnswer>;
    HookCall(HookCall) -> happy_rpc::Done;
    DashboardOpen(DashboardOpen) -> DashboardAddress;
    RelayEnrolled(RelayEnrolled) -> happy_rpc::Done;
    Status(Status) -> DaemonStatus;
    Stop(Stop) -> happy_rpc::Done;
}

impl LocalRequest {
    /// Whether a body names one of these methods.
    pub fn is_named_by(body: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Named {
            method: String,
        }
        serde_json::from_slice::<Named>(body).is_ok_and(|named| {
            let method = named.method.as_str();
            ["pair.", "daemon.", "devices.", "queue.", "relay.", "hook.", "dashboard."]
                .iter()
                .any(|family| method.starts_with(family))
                || matches!(method, "join" | "machines" | "devices")
        })
    }

    /// Whether it changes something that a program inside of a session must leave alone.
    pub fn is_for_person(&self) -> bool {
        match self {
            LocalRequest::PairStart(_)
            | LocalRequest::PairCode(_)
            | LocalRequest::PairCancel(_)
            | LocalRequest::Join(_)
            | LocalRequest::RevokeAll(_)
            | LocalRequest::QueueGive(_)
            | LocalRequest::QueueCancel(_)
            | LocalRequest::QueueClear(_)
            // Whoever is let in there is the owner.
            | LocalRequest::DashboardOpen(_)
            | LocalRequest::RelayEnrolled(_)
            | LocalRequest::Stop(_) => true,
            LocalRequest::PairStatus(_)
            | LocalRequest::Machines(_)
            | LocalRequest::Devices(_)
            | LocalRequest::QueueList(_)
            | LocalRequest::QueueWait(_)
            | LocalRequest::QueueSessions(_)
            // What a hook asks for is decided by a person; that is its use.
            | LocalRequest::HookAsk(_)
            | LocalRequest::HookCall(_)
            | LocalRequest::Status(_) => false,
        }
    }

    /// The name on the wire.
    pub fn method(&self) -> &'static str {
        match self {
            LocalRequest::PairStart(_) => "pair.start",
            LocalRequest::PairStatus(_) => "pair.status",
            LocalRequest::PairCode(_) => "pair.code",
            LocalRequest::PairCancel(_) => "pair.cancel",
            LocalRequest::Join(_) => "join",
            LocalRequest::Machines(_) => "machines",
            LocalRequest::Devices(_) => "devices",
            LocalRequest::RevokeAll(_) => "devices.revoke_all",
            LocalRequest::QueueGive(_) => "queue.give",
            LocalRequest::QueueList(_) => "queue.list",
            LocalRequest::QueueWait(_) => "queue.wait",
            LocalRequest::QueueCancel(_) => "queue.cancel",
            LocalRequest::QueueClear(_) => "queue.clear",
            LocalRequest::QueueSessions(_) => "queue.sessions",
            LocalRequest::HookAsk(_) => "hook.ask",
            LocalRequest::HookCall(_) => "hook.call",
            LocalRequest::DashboardOpen(_) => "dashboard.open",
            LocalRequest::RelayEnrolled(_) => "relay.enrolled",
            LocalRequest::Status(_) => "daemon.status",
            LocalRequest::Stop(_) => "daemon.stop",
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`ErrorCode::Malformed`] with a sentence.
    pub fn parse(body: &[u8]) -> Result<LocalRequest, CallError> {
        serde_json::from_slice(body)
            .map_err(|error| CallError::new(ErrorCode::Malformed, format!("the request cannot be read: {error}")))
    }
}

/// The body of a response.
pub fn answer<T: Serialize>(outcome: &Result<T, CallError>) -> Vec<u8> {
    match outcome {
        Ok(output) => serde_json::to_vec(&serde_json::json!({ "ok": output })).unwrap_or_default(),
        Err(error) => happy_rpc::refusal(error),
    }
}

/// Asks people on behalf of a program; answered when somebody has chosen, or with nothing when the time is over. It ends with the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAsk {
    /// In which session the program runs.
    pub session: uuid::Uuid,
    /// What is asked.
    pub question: String,
    /// What can be chosen.
    pub choices: Vec<String>,
    /// For how long, milliseconds; at most ten minutes.
    pub wait_ms: u64,
}

/// What somebody chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAnswer {
    /// The number of the choice, from 0.
    pub choice: u32,
    /// Who.
    pub by: String,
}

/// Tells that a program needs somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// In which session it runs.
    pub session: uuid::Uuid,
    /// Its words.
    pub text: String,
}

/// Asks for an address of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DashboardOpen {}

/// An address of the dashboard. Whoever has it is let in once: it is shown, never logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DashboardAddress {
    /// With the secret behind the `#`.
    pub link: String,
    /// How long it lives.
    pub seconds_left: u64,
}

/// Tells of a key for a relay that was written to the home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayEnrolled {
    /// The relay's address.
    pub origin: String,
}

/// Asks for an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStart {
    /// What the new device shall be to this machine.
    pub role: Role,
    /// Its name, when the person gave one already.
    pub name: Option<String>,
}

/// An invitation. Whoever has a link of it may answer it once: it is shown, never logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// Names this invitation in the events.
    pub invitation: u64,
    /// What the new device will be.
    pub role: Role,
    /// Where it can be taken up, the most useful first.
    pub links: Vec<InvitedLink>,
    /// How long it lives.
    pub seconds_left: u64,
    /// Why nobody can take it up now: the relay is not reached, and is tried on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_trouble: Option<String>,
}

/// One way to take up an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvitedLink {
    /// Scheme and authority.
    pub origin: String,
    /// The whole link.
    pub link: String,
    /// Who can reach it.
    pub reach: Reach,
}

/// Who can reach an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Programs on this machine only.
    ThisMachine,
    /// This network, under a certificate of our own: a trial.
    ThisNetwork,
    /// Wherever the relay can be reached.
    Relay,
}

/// Asks for the state of the invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairStatus {}

/// What the invitation is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PairState {
    /// There is none.
    None,
    /// For a device to take it up.
    Waiting,
    /// A device has proved the secret; its greeting is on the way.
    Proven {
        /// Short id.
        device: String,
    },
    /// For the code.
    CodeWanted {
        /// Short id.
        device: String,
        /// What the device calls itself.
        name: String,
    },
    /// The code was right; the statements are on their way.
    Confirmed,
    /// The device is paired.
    Paired {
        /// Its id.
        device: String,
        /// Its name here.
        name: String,
        /// What it is to this machine.
        role: Role,
    },
    /// It ended without a pairing.
    Ended {
        /// As a program wants it.
        why: PairEnd,
    },
}

/// Why an invitation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairEnd {
    /// Its time was up.
    Expired,
    /// Three wrong codes.
    WrongCode,
    /// Somebody cancelled it, or made a new one.
    Cancelled,
    /// The device went silent or broke the protocol.
    Failed,
    /// The relay did not open a rendezvous.
    NoRendezvous,
    /// The device came from an address that does not stand in the links.
    WrongOrigin,
    /// It could not be written to the disk.
    NotStored,
    /// The device was removed here for good.
    RemovedDevice,
}

/// The code as typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCode {
    /// Six digits; spaces do not matter.
    pub code: String,
    /// The name for the device, when the person wants another than its own.
    pub name: Option<String>,
}

/// What the code was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum CodeAnswer {
    /// Right.
    Right {},
    /// Wrong, with so many tries left.
    Wrong {
        /// Tries left.
        left: u8,
    },
    /// No device waits for a code yet.
    NotYet {},
    /// The invitation is over.
    Ended {},
}

/// Ends the invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairCancel {}

/// Takes up an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// As the other machine printed it.
    pub link: String,
    /// What this machine calls itself there.
    pub name: Option<String>,
}

/// How a join goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JoinState {
    /// On the way to the relay in the link.
    Connecting,
    /// Show this code; it is to be typed at the other machine.
    ShowCode {
        /// `123 456`.
        code: String,
        /// The other machine's name.
        machine: String,
        /// What this machine will be there.
        role: Role,
    },
    /// Done.
    Joined {
        /// The other machine's id.
        device: String,
        /// Its name.
        name: String,
        /// What this machine is there.
        role: Role,
        /// The key of the relay, when no authority vouches for it: it was believed this time, and no other will be.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        relay_key: Option<String>,
        /// It had another one before.
        #[serde(default)]
        relay_key_changed: bool,
    },
    /// It did not work.
    Failed {
        /// What is wrong.
        why: String,
        /// What to do about it.
        #[serde(default)]
        remedy: String,
    },
}

/// Asks for the machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machines {}

/// Another machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineEntry {
    /// Its id.
    pub device: String,
    /// Its name here.
    pub name: String,
    /// What this machine is there.
    pub your_role: Role,
    /// Whether the link is up.
    pub link_up: bool,
    /// Whether it has removed this machine.
    pub removed_us: bool,
    /// Why it has to be joined again, if it has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_again: Option<PairAgain>,
    /// Through which relay it is reached.
    pub relay: String,
    /// What its daemon said last that it does; none when nothing was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<happy_rpc::MachineState>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<happy_rpc::MachineMetadata>,
    /// Its last sign of life at its relay, Unix milliseconds, while it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<u64>,
    /// The versions of its metadata and state that were seen last.
    #[serde(default)]
    pub versions: [u64; 2],
}

/// Why two devices have to be paired again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairAgain {
    /// This machine has no keys for it: they were made by an older version, or are lost.
    NoKeys,
    /// It does not know the keys of this machine: they are an old copy, or somebody has used a copy.
    NotBelieved,
}

/// Asks for the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {}

/// A device, and what only the person at this machine is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceEntry {
    /// What everybody is told.
    #[serde(flatten)]
    pub device: happy_rpc::Device,
    /// It cannot connect before it is paired again.
    #[serde(default)]
    pub pair_again: bool,
    /// When somebody came last as this device with keys that are not known, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stranger_at: Option<u64>,
}

/// Removes every device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeAll {}

/// This machine has new keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// Its new id.
    pub device: String,
}

/// Asks what the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}

/// What the daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The process.
    pub pid: u32,
    /// Of the agent.
    pub version: String,
    /// This machine's id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Where its files are.
    pub home: String,
    /// Unix milliseconds.
    pub started_at: u64,
    /// The port of the local API; none when it does not run.
    pub api_port: Option<u16>,
    /// The address that it listens at, when that is not one of this machine alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<std::net::IpAddr>,
    /// Why the local API does not run, if it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_trouble: Option<String>,
    /// The relays it uses.
    pub relays: Vec<RelayStatus>,
    /// Sessions whose program runs.
    pub sessions_running: usize,
    /// Devices that are allowed in.
    pub devices: usize,
    /// Links that are up.
    pub links_up: usize,
    /// What went wrong since it started, each kind once.
    #[serde(default)]
    pub errors: Vec<happy_rpc::ErrorCount>,
    /// What it did about it, the newest last.
    #[serde(default)]
    pub recoveries: Vec<happy_rpc::Recovery>,
}

/// A relay as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its origin as dialled.
    pub origin: String,
    /// Whether this machine is logged in there.
    pub up: bool,
    /// Why not, when it is known.
    pub trouble: Option<String>,
    /// When it is tried again, Unix milliseconds, if this machine stays away from it for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<u64>,
    /// Attempts to reach it that have failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// See there.
    #[serde(default)]
    pub breaker: happy_rpc::Breaker,
    /// When the next attempt begins, Unix milliseconds; none while there is a connection or an attempt is under way, and when none follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<u64>,
    /// How long that is after the attempt before, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// Whether it runs inside the daemon.
    pub embedded: bool,
    /// The key of its own certificate, as `sha256:` and hex; `authority` when one vouches for it. None before it was reached, and
    /// where a name in the origin says it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The origins that other devices use for it.
    pub origins: Vec<String>,
}

/// Ends the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {}

/// What the daemon tells its local clients besides the events of `happy-rpc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
pub enum LocalEvent {
    /// The invitation has a new state.
    #[serde(rename = "pair.changed")]
    PairChanged {
        /// Which.
        invitation: u64,
        /// Its state.
        #[serde(flatten)]
        state: PairState,
    },
    /// A join has a new state.
    #[serde(rename = "join.changed")]
    JoinChanged(JoinState),
    /// A relay went up or down.
    #[serde(rename = "relay.changed")]
    RelayChanged(RelayStatus),
    /// Another machine has said something of itself, or its relay has.
    #[serde(rename = "machine.seen")]
    MachineSeen(MachineEntry),
    /// The daemon ends.
    #[serde(rename = "daemon.stopping")]
    Stopping {},
}

impl LocalEvent {
    /// The body of an event message.
    pub fn to_body(&self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_methods_are_told_apart_from_those_of_a_link() {
        let local = serde_json::to_vec(&LocalRequest::from(Status {})).unwrap();
        assert!(LocalRequest::is_named_by(&local));
        assert_eq!(LocalRequest::parse(&local), Ok(Status {}.into()));
        for method in happy_rpc::Request::METHODS {
            let body = format!(r#"{{"method":"{method}","params":{{}}}}"#);
            assert!(!LocalRequest::is_named_by(body.as_bytes()), "{method}");
        }
        // A device that calls it over a link is told that there is no such method.
        assert_eq!(happy_rpc::Request::parse(&local).unwrap_err().code, ErrorCode::UnknownMethod);
    }

    #[test]
    fn events_read_as_they_were_written() {
        let event = LocalEvent::PairChanged { invitation: 3, state: PairState::Ended { why: PairEnd::Expired } };
        assert_eq!(serde_json::from_slice::<LocalEvent>(&event.to_body()).unwrap(), event);
    }
}
