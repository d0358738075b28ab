//! Calls about the machine itself.

use serde::{Deserialize, Serialize};

use crate::Role;

/// Asks what this machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineInfo {}

/// Ends the daemon: devices are told goodbye, sessions go on, and whoever started it may start it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct MachineStop {}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Machine {
    /// Its device id, base64url.
    pub device: String,
    /// Its name, a label.
    pub name: String,
    /// For instance `linux`.
    pub os: String,
    /// Of the agent.
    pub version: String,
    /// Of the protocol.
    pub protocol: u8,
    /// What the caller is to it.
    pub role: Role,
    /// The relays through which it can be reached now, as origins.
    pub relays: Vec<String>,
    /// Hash of the phone app that this version of the agent was built with, hexadecimal SHA-256; a phone that runs another
    /// one was given it by somebody else.
    pub app_hash: String,
    /// What time it is there, Unix milliseconds.
    #[cfg_attr(feature = "typescript", ts(type = "number"))]
    pub now: u64,
    /// Where new sessions start unless told otherwise.
    pub home: String,
}
