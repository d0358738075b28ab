//! `settings.json`: what a person has chosen. Written by hand, but for the relay, which `--relay` keeps
//! here; a missing file means the defaults (`docs/LOCAL.md`).

use serde::{Deserialize, Serialize};

use crate::holder::spec::KEEP;

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
    /// How much output a session keeps, as `10M`.
    pub keep: Option<Keep>,
    /// Whether sessions of another version go on with this one; yes when missing.
    pub upgrade_sessions: Option<bool>,
    /// Whether sessions of the user's tmux are listed; yes when missing.
    pub tmux: Option<bool>,
}

/// An amount of output that a session may keep, as people write it: bytes, or with K, M or G.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Keep {
    text: String,
    /// Within [`KEEP`].
    pub bytes: u64,
}

/// An amount as people write it: bytes, or with K, M or G.
pub fn amount(text: &str) -> Option<u64> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1u64),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

impl std::str::FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount from 64K to 1G; write it as 10M");
        let bytes = amount(text).filter(|bytes| KEEP.contains(bytes)).ok_or_else(wrong)?;
        Ok(Self { text: text.to_owned(), bytes })
    }
}

impl TryFrom<String> for Keep {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.text
    }
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
    fn an_amount_is_read_as_people_write_it_and_has_bounds() {
        for (text, bytes) in
            [("64K", 65_536), ("65536", 65_536), ("10M", 10 << 20), ("1g", 1 << 30), ("1024m", 1 << 30)]
        {
            let read: Settings = serde_json::from_str(&format!("{{\"keep\": \"{text}\"}}")).unwrap();
            assert_eq!(read.keep.unwrap().bytes, bytes);
        }
        for wrong in ["", "K", "63K", "65535", "1025M", "2G", "1.5M", "-1M", "10MB", "18446744073709551615G", "ä"] {
            let error = wrong.parse::<Keep>().unwrap_err();
            assert!(error.contains("64K to 1G"), "{error}");
        }
    }

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
