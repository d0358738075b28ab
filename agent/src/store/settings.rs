//! `settings.json`: what a person has chosen. Written by hand, but for the relay, which `--relay` keeps
//! here; a missing file means the defaults (`docs/LOCAL.md`). The environment comes before it. Its schema is
//! `docs/settings.schema.json`, which a test compares with these types.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::holder::spec::KEEP;
use crate::store::fit_name;

/// The port of the local API unless told otherwise.
pub const API_PORT: u16 = 64875;
/// The port of the relay inside the daemon unless told otherwise.
pub const RELAY_PORT: u16 = 64876;

/// The settings; each is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Whether there is a local API; yes when missing.
    pub api: Option<bool>,
    /// The address that the local API listens at; 127.0.0.1 when missing, and no other without a password.
    pub api_listen: Option<std::net::IpAddr>,
    /// More names under which the local API may be reached, as `box.example` or with a port.
    pub api_names: Option<Vec<String>>,
    /// The key that leaves `happy attach`, as `ctrl-]`.
    pub detach_key: Option<String>,
    /// How much output a session keeps, as `10M`: from `64K` to `1G`.
    #[cfg_attr(test, schemars(with = "Option<String>", regex(pattern = "^[0-9]+[kKmMgG]?$")))]
    pub keep: Option<Keep>,
    /// Whether sessions of another version go on with this one; yes when missing.
    pub upgrade_sessions: Option<bool>,
    /// Whether sessions of the user's tmux are listed; yes when missing.
    pub tmux: Option<bool>,
    /// The folders that `file.*` and `git.*` may touch; the home and the folders of sessions when missing.
    pub roots: Option<Vec<PathBuf>>,
    /// Whether sessions from elsewhere have the environment of a login shell; when a service manager has started the daemon, if missing.
    pub login_environment: Option<bool>,
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what would be right, to be followed by the point that it lacks.
    pub fn read(text: &[u8]) -> Result<Settings, String> {
        // A list would be taken for the fields in their order.
        if text.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
            return Err(r#"it is not an object like {"name": "box"}"#.into());
        }
        let settings: Settings = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether each field can mean something. The relay is looked at when it is used: another may have been given in its place.
    fn check(&self) -> Result<(), String> {
        if self.name.as_deref().is_some_and(|name| fit_name(name).is_empty()) {
            return Err("`name` is empty; give a name, or leave it out for the host name".into());
        }
        let is_rooted = |root: &&PathBuf| root.is_absolute() || root.starts_with("~");
        if let Some(root) = self.roots.iter().flatten().find(|root| !is_rooted(root)) {
            return Err(format!("{root:?} in `roots` is a relative path; begin it with `/` or `~/`"));
        }
        if let Some(name) = self.api_names.iter().flatten().find(|name| !is_api_name(name)) {
            return Err(format!(
                "{name:?} in `api_names` is no name of a host; write it as `box.example`, or `box.example:8443` with a port"
            ));
        }
        match self.detach_key.as_deref() {
            Some(key) if detach_key(key).is_none() => {
                Err(format!("`detach_key` is {key:?}, which is no control key; write it as `ctrl-]` or `^]`"))
            }
            _ => Ok(()),
        }
    }

    /// The names of the variables that come before the file. `HAPPY_SERVER_URL`, which does so for the relay, is beside the flags.
    pub const VARIABLES: &[&str] = &[
        "HAPPY_NAME",
        "HAPPY_RELAY_PORT",
        "HAPPY_API_PORT",
        "HAPPY_DETACH_KEY",
        "HAPPY_KEEP",
        "HAPPY_UPGRADE_SESSIONS",
        "HAPPY_TMUX",
    ];

    /// These with what the environment says in the place of what the file says. An empty variable says nothing.
    ///
    /// # Errors
    /// A sentence with the name of the variable that cannot be read.
    pub fn below(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
        let variable = |name: &'static str| Some((name, variable(name).filter(|value| !value.is_empty())?));
        fn read<T: std::str::FromStr>(given: (&str, String), wanted: &str) -> Result<Option<T>, String> {
            let (name, value) = given;
            value.parse().map(Some).map_err(|_| format!("the variable {name} is {wanted}, and not {value:?}"))
        }
        if let Some((variable, name)) = variable("HAPPY_NAME") {
            if fit_name(&name).is_empty() {
                return Err(format!("the variable {variable} is a name, and not {name:?}"));
            }
            self.name = Some(name);
        }
        if let Some(port) = variable("HAPPY_RELAY_PORT") {
            self.relay_port = read(port, "a port")?;
        }
        if let Some(port) = variable("HAPPY_API_PORT") {
            self.api_port = read(port, "a port")?;
        }
        if let Some((variable, key)) = variable("HAPPY_DETACH_KEY") {
            if detach_key(&key).is_none() {
                return Err(format!("the variable {variable} is a control key, as `ctrl-]`, and not {key:?}"));
            }
            self.detach_key = Some(key);
        }
        if let Some(keep) = variable("HAPPY_KEEP") {
            self.keep = read(keep, "an amount from 64K to 1G, as 10M")?;
        }
        if let Some(upgrade) = variable("HAPPY_UPGRADE_SESSIONS") {
            self.upgrade_sessions = read(upgrade, "true or false")?;
        }
        if let Some(tmux) = variable("HAPPY_TMUX") {
            self.tmux = read(tmux, "true or false")?;
        }
        Ok(self)
    }
}

/// The byte of a key that leaves a session, written as `ctrl-]` or `^]`; nothing for what is no control key.
pub fn detach_key(text: &str) -> Option<u8> {
    let lower = text.to_ascii_lowercase();
    let key = lower.strip_prefix("ctrl-").or_else(|| lower.strip_prefix("ctrl+")).or_else(|| lower.strip_prefix('^'));
    match key?.as_bytes() {
        &[letter @ (b'a'..=b'z' | b'[' | b'\\' | b']' | b'^' | b'_' | b'@')] => Some(letter & 0x1f),
        _ => None,
    }
}

/// Whether a browser can send this as the host that it speaks to: a name or an address, with a port or without.
fn is_api_name(text: &str) -> bool {
    let Ok(authority) = text.parse::<axum::http::uri::Authority>() else { return false };
    let whole = match authority.port() {
        Some(port) => format!("{}:{}", authority.host(), port.as_str()),
        None => authority.host().to_owned(),
    };
    // What else an address may have, as `user@`, is in neither.
    !authority.host().is_empty() && whole == text
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
    fn the_environment_comes_before_the_file_and_what_it_cannot_mean_is_told() {
        let text = br#"{"name": "vm", "keep": "1M", "api_port": 7, "tmux": true}"#;
        let file: Settings = serde_json::from_slice(text).unwrap();
        assert_eq!(file.clone().below(|_| None), Ok(file.clone()));
        assert_eq!(file.clone().below(|_| Some(String::new())), Ok(file.clone()), "empty says nothing");
        let set = |name: &str| {
            let values = [
                ("HAPPY_NAME", "other"),
                ("HAPPY_RELAY_PORT", "0"),
                ("HAPPY_API_PORT", "8"),
                ("HAPPY_DETACH_KEY", "ctrl-a"),
                ("HAPPY_KEEP", "2M"),
                ("HAPPY_UPGRADE_SESSIONS", "false"),
                ("HAPPY_TMUX", "false"),
            ];
            values.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let wanted = Settings {
            name: Some("other".into()),
            relay: None,
            relay_port: Some(0),
            api_port: Some(8),
            detach_key: Some("ctrl-a".into()),
            keep: "2M".parse().ok(),
            upgrade_sessions: Some(false),
            tmux: Some(false),
            ..Settings::default()
        };
        assert_eq!(file.clone().below(set), Ok(wanted));
        for name in Settings::VARIABLES.iter().copied().filter(|name| *name != "HAPPY_NAME") {
            let error = file.clone().below(|asked| (asked == name).then(|| "-1\n".into())).unwrap_err();
            assert!(error.contains(name) && error.contains(r#""-1\n""#), "{error}");
        }
        let error = file.below(|asked| (asked == "HAPPY_NAME").then(|| " ".into())).unwrap_err();
        assert!(error.contains("HAPPY_NAME"), "{error}");
        assert!(Settings::VARIABLES.iter().all(|name| set(name).is_some()));
    }

    #[test]
    fn what_can_mean_nothing_is_refused_with_what_would_be_right() {
        for (text, words) in [
            ("[]", r#"an object like {"name""#),
            (" null", "an object"),
            (r#"{"name": " "}"#, "`name` is empty"),
            (r#"{"roots": ["/srv", "work"]}"#, r#""work" in `roots` is a relative path"#),
            (r#"{"roots": ["~bob/work"]}"#, "relative"),
            (r#"{"roots": [""]}"#, "relative"),
            (r#"{"detach_key": "x"}"#, "write it as `ctrl-]`"),
        ] {
            let error = Settings::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        for name in
            ["", "http://box.example", "box.example/", "a b", "me@box.example", "box:x", "box:65536", ":80", "bö"]
        {
            let text = serde_json::json!({ "api_names": ["good.example", name] }).to_string();
            let error = Settings::read(text.as_bytes()).expect_err(name);
            assert!(error.contains(&format!("{name:?} in `api_names`")), "{error}");
        }
        let good = br#"
            {"name": "vm", "roots": ["~", "~/work", "/srv"], "detach_key": "^A",
             "api_names": ["box.example", "box:8443", "192.0.2.1", "[2001:db8::1]:80"]}"#;
        assert_eq!(Settings::read(good).unwrap().name.as_deref(), Some("vm"));
        assert_eq!(Settings::read(b"{}").unwrap(), Settings::default());
    }

    #[test]
    fn detach_keys_are_control_keys() {
        let keys = ["ctrl-]", "^\\", "Ctrl-A", "^@"].map(detach_key);
        assert_eq!(keys, [Some(0x1d), Some(0x1c), Some(1), Some(0)]);
        for text in ["x", "", "ctrl-", "ctrl-é", "ctrl-ab"] {
            assert_eq!(detach_key(text), None, "{text}");
        }
    }

    /// `HAPPY_WRITE_DOCS=1 cargo test -p happy schema` writes the page anew.
    #[test]
    fn the_schema_in_the_documents_is_that_of_these_types() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        for (name, schema) in [
            ("settings.schema.json", schemars::schema_for!(Settings)),
            ("project.schema.json", schemars::schema_for!(super::super::project::Project)),
        ] {
            let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
            if std::env::var_os("HAPPY_WRITE_DOCS").is_some() {
                std::fs::write(folder.join(name), &text).unwrap();
            }
            let page = std::fs::read_to_string(folder.join(name)).unwrap();
            assert!(page == text, "docs/{name} is not what the code says; HAPPY_WRITE_DOCS=1 writes it anew");
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
