//! Who may do what.

use serde::{Deserialize, Serialize};

/// What a device is to a machine; given in pairing, kept in a signed statement (`docs/PROTOCOL.md` §11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Role {
    /// Everything, and may remove other devices.
    Owner,
    /// Everything that concerns sessions.
    Operator,
    /// May look, not touch.
    Viewer,
    /// Another machine of the same person.
    Machine,
}

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// See sessions, output and devices.
    View,
    /// Start, steer and end sessions. Input on a terminal channel needs it too.
    Act,
    /// Add and remove devices.
    Roster,
}

impl Capability {
    /// Whether a device with this role has the capability.
    pub fn granted_to(self, role: Role) -> bool {
        match (self, role) {
            (Capability::View, Role::Owner | Role::Operator | Role::Viewer | Role::Machine) => true,
            (Capability::Act, Role::Owner | Role::Operator | Role::Machine) => true,
            (Capability::Act, Role::Viewer) => false,
            (Capability::Roster, Role::Owner) => true,
            (Capability::Roster, Role::Operator | Role::Viewer | Role::Machine) => false,
        }
    }
}
