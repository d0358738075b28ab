//! Who may do what.

use serde::{Deserialize, Serialize};

/// What a device is to a machine; given in pairing, kept in a signed statement (`docs/PROTOCOL.md` §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Everything, and may remove other devices.
    Owner,
    /// Everything that concerns sessions, files and repositories.
    Operator,
    /// May look, not touch.
    Viewer,
    /// Another machine of the same person: its sessions and no files.
    Machine,
}

/// As what somebody calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A device, or the person at the machine, who is its owner.
    Role(Role),
    /// A program inside of one of the machine's own sessions, that calls over the local socket (`docs/LOCAL.md`).
    Inside,
}

impl Standing {
    /// Each of them, in the order of the table.
    pub const ALL: [Standing; 5] = [
        Standing::Role(Role::Owner),
        Standing::Role(Role::Operator),
        Standing::Role(Role::Machine),
        Standing::Role(Role::Viewer),
        Standing::Inside,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Role(Role::Owner) => "owner",
            Standing::Role(Role::Operator) => "operator",
            Standing::Role(Role::Viewer) => "viewer",
            Standing::Role(Role::Machine) => "machine",
            Standing::Inside => "inside",
        }
    }
}

impl From<Role> for Standing {
    fn from(role: Role) -> Self {
        Standing::Role(role)
    }
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// See sessions, output and devices.
    View,
    /// Start sessions, type into them, answer what their programs ask, decide their size. Input on a terminal channel needs it too.
    Act,
    /// Name, pause, record and end sessions.
    Steer,
    /// See files and repositories.
    Read,
    /// Change files, commit and push.
    Write,
    /// Add, rename and remove devices.
    Roster,
    /// End the machine's daemon.
    Stop,
}

/// Whether a capability is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Grant {
    /// It is.
    Yes,
    /// For calls that name the caller's own session, and no others.
    OwnSession,
    /// It is not.
    No,
}

impl Capability {
    /// The one table of who may do what; `docs/CALLS.md` is printed from it.
    pub fn grant(self, to: impl Into<Standing>) -> Grant {
        use Role::{Machine, Operator, Owner, Viewer};
        use Standing::Inside;
        match (self, to.into()) {
            (Capability::View, Standing::Role(Owner | Operator | Viewer | Machine) | Inside) => Grant::Yes,
            (Capability::Act | Capability::Steer, Standing::Role(Owner | Operator | Machine)) => Grant::Yes,
            (Capability::Act | Capability::Steer, Standing::Role(Viewer)) => Grant::No,
            // An agent may name or end the session that it runs in, and touches no other. What it or a program that it has started could type
            // there would approve what it asks.
            (Capability::Steer, Inside) => Grant::OwnSession,
            (Capability::Act, Inside) => Grant::No,
            // The person who uses a machine of the fleet has it in hand; that a machine has been taken over opens no files elsewhere.
            (Capability::Read | Capability::Write, Standing::Role(Owner | Operator)) => Grant::Yes,
            (Capability::Read | Capability::Write, Standing::Role(Viewer | Machine) | Inside) => Grant::No,
            (Capability::Roster | Capability::Stop, Standing::Role(Owner)) => Grant::Yes,
            (Capability::Roster | Capability::Stop, Standing::Role(Operator | Viewer | Machine) | Inside) => Grant::No,
        }
    }

    /// Whether a device with this role has the capability.
    pub fn granted_to(self, role: Role) -> bool {
        self.grant(role) == Grant::Yes
    }

    /// What it lets its holder do, behind "may".
    pub fn lets(self) -> &'static str {
        match self {
            Capability::View => "look",
            Capability::Act => "start sessions, type into them or answer for them",
            Capability::Steer => "steer or end sessions",
            Capability::Read => "see files",
            Capability::Write => "change files, commit or push",
            Capability::Roster => "add, rename or remove devices",
            Capability::Stop => "stop the machine",
        }
    }
}
