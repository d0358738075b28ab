//! `settings.json`: what a person has chosen. Written by hand or by nobody; a missing file means the defaults.

use serde::{Deserialize, Serialize};

/// The port of the local API unless told otherwise.
pub const API_PORT: u16 = 64875;
/// The port of the relay inside the daemon unless told otherwise.
pub const RELAY_PORT: u16 = 64876;

/// The settings; each is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The machine's name, as other devices see it; the host name when missing.
    pub name: Option<String>,
    /// The relay to use, as `https://HOST`; the one inside the daemon when missing.
    pub relay: Option<String>,
    /// The port of the relay inside the daemon; 0 for any free one.
    pub relay_port: Option<u16>,
    /// The port of the local API; 0 for any free one.
    pub api_port: Option<u16>,
    /// The key that leaves `happy attach`, as `ctrl-]`.
    pub detach_key: Option<String>,
}
