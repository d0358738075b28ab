//! What JavaScript is told, as JSON. The TypeScript side is `app/core.ts`.

use happy_crypto::DeviceId;
use happy_pairing::{Invitation, Origin, Role};
use happy_rpc::{MachineMetadata, MachineState};
use serde::{Serialize, Serializer};

use crate::state::{Keys, Machine};

/// Something happened.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CoreEvent {
    /// Whether there is a connection to a relay. `last`: no further attempt is made.
    Relay { origin: String, up: bool, why: String, last: bool },
    /// What a relay says of a machine.
    Presence {
        #[serde(serialize_with = "display")]
        device: DeviceId,
        here: bool,
    },
    /// Whether frames pass between this device and a machine.
    Link {
        #[serde(serialize_with = "display")]
        device: DeviceId,
        up: bool,
        why: String,
    },
    /// A machine refuses this device, signed.
    Refused {
        #[serde(serialize_with = "display")]
        device: DeviceId,
        reason: String,
    },
    /// A machine tells something: JSON in JSON, for only TypeScript looks into it.
    Event {
        #[serde(serialize_with = "display")]
        device: DeviceId,
        body: String,
    },
    /// What a machine says of itself, over its link or in records that it left at its relay (PROTOCOL 7.1); what is not there was not said.
    Record {
        #[serde(serialize_with = "display")]
        device: DeviceId,
        /// Its last sign of life as the relay says, Unix ms, 0 when it does not know; none over a link.
        #[serde(skip_serializing_if = "Option::is_none")]
        last_seen: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<MachineMetadata>,
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<MachineState>,
    },
    /// A code to be typed at the machine.
    Code {
        code: String,
        machine: String,
        #[serde(serialize_with = "display")]
        role: Role,
    },
    /// A machine is paired.
    Paired {
        #[serde(serialize_with = "display")]
        device: DeviceId,
    },
    /// A pairing came to nothing.
    PairingFailed { message: String },
    /// The list of commands is another one: see `Core.outbox`.
    Outbox,
    /// The state has to be stored.
    State,
    /// A person should know.
    Notice { text: String },
}

/// A machine for a person to look at.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    #[serde(serialize_with = "display")]
    device: DeviceId,
    name: String,
    #[serde(serialize_with = "display")]
    role: Role,
    relays: Vec<String>,
    paired_at: u64,
    outdated: bool,
}

impl From<&Machine> for Peer {
    fn from(machine: &Machine) -> Self {
        Self {
            device: machine.record.device_id(),
            name: machine.name.clone(),
            role: machine.my_role,
            relays: machine.relays.iter().map(ToString::to_string).collect(),
            paired_at: machine.paired_at,
            outdated: matches!(machine.keys, Keys::Outdated(_)),
        }
    }
}

/// An invitation for a person to look at.
#[derive(Serialize)]
pub struct InvitationView {
    origin: String,
    #[serde(serialize_with = "display")]
    role: Role,
    expires: u32,
}

impl InvitationView {
    pub fn new(origin: &Origin, invitation: &Invitation) -> Self {
        Self { origin: origin.to_string(), role: invitation.role(), expires: invitation.expires() }
    }
}

fn display<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
