//! Calls about the devices that a machine knows.

use serde::{Deserialize, Serialize};

use crate::Role;

/// Asks for the devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct DeviceList {}

/// Removes a device for good: its link is cut, and its key never comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct DeviceRevoke {
    /// Its id, base64url.
    pub device: String,
}

/// Gives a device another name at this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct DeviceRename {
    /// Its id, base64url.
    pub device: String,
    /// The name, at most 64 bytes; characters that steer a terminal are refused.
    pub name: String,
}

/// What is known of where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Presence {
    /// A link to it is up.
    Here,
    /// The relay says that it is not connected.
    Away,
    /// There is no relay to ask.
    Unknown,
}

/// A device as a machine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Device {
    /// Its id, base64url.
    pub device: String,
    /// The name given to it in pairing.
    pub name: String,
    /// What it is to the machine.
    pub role: Role,
    /// Sixty digits; the same number stands in the device's own list.
    pub safety_number: String,
    /// Unix milliseconds.
    pub added_at: u64,
    /// Unix milliseconds; none while it is allowed in.
    pub removed_at: Option<u64>,
    /// Where it is.
    pub presence: Presence,
    /// Whether it is the caller.
    pub you: bool,
}
