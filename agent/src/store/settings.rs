//! `settings.json`: what a person has chosen. Written by hand, but for the relay, which `--relay` keeps
//! here; a missing file means the defaults (`docs/LOCAL.md`).

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
    /// The relay to use, as `https://HOST`; the one inside the daemon when missing or `inside`.
    pub relay: Option<String>,
    /// The port of the relay inside the daemon; 0 for any free one.
    pub relay_port: Option<u16>,
    /// The port of the local API; 0 for any free one.
    pub api_port: Option<u16>,
    /// The key that leaves `happy attach`, as `ctrl-]`.
    pub detach_key: Option<String>,
}

/// The text of settings with another relay, or none; `text` was read as [`Settings`] before.
pub fn with_relay(text: Option<&[u8]>, relay: Option<&str>) -> Vec<u8> {
    let mut fields: serde_json::Map<String, serde_json::Value> =
        text.and_then(|text| serde_json::from_slice(text).ok()).unwrap_or_default();
    match relay {
        Some(relay) => fields.insert("relay".into(), relay.into()),
        None => fields.remove("relay"),
    };
    // Plain data with string keys: serialising it cannot fail.
    let mut text = serde_json::to_vec_pretty(&fields).unwrap_or_default();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_relay_leaves_the_other_fields_as_they_are() {
        let text = br#"{"name": "vm", "relay": "https://a.example", "api_port": 0}"#;
        let read = |text: &[u8]| serde_json::from_slice::<Settings>(text).unwrap();
        let before = read(text);
        let other = with_relay(Some(text), Some("https://b.example"));
        assert_eq!(read(&other), Settings { relay: Some("https://b.example".into()), ..before.clone() });
        assert_eq!(read(&with_relay(Some(&other), None)), Settings { relay: None, ..before });
        assert_eq!(read(&with_relay(None, Some("x"))), Settings { relay: Some("x".into()), ..Settings::default() });
        assert_eq!(with_relay(None, None), b"{}\n");
    }
}
