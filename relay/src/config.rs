//! What an operator or the agent decides about a relay.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use happy_wire::relay as wire;

use crate::access::{Access, MAX_KEYS, Policy};
use crate::bus::Bus;
use crate::rates::MIN_RATE;
use crate::tap::Tap;

/// The most names one relay may have: each is one more signature check for a login that fits none of them.
pub const MAX_NAMES: usize = 16;

/// How a relay behaves. [`Config::default`] is fit for one node that serves the app to everybody who may reach it.
#[derive(Clone)]
pub struct Config {
    /// The authorities under which devices dial this relay, `host` or `host:port`. Without any, the `Host` header of each
    /// connection is taken, which lets another relay pass logins on to this one: name a relay that is reachable from
    /// the internet.
    pub names: Vec<String>,
    /// Web origins, besides the relay's own, whose pages may open the websocket, such as `https://app.example`.
    pub origins: Vec<String>,
    /// The phone app served at `/`.
    pub app: App,
    /// Whether `/metrics` answers where devices connect.
    pub metrics: bool,
    /// Who may use the relay.
    pub access: Access,
    /// Devices connected at once, guests included.
    pub max_connections: u32,
    /// Sockets that have not proven a device: TLS and HTTP before the upgrade, and the login after it.
    pub max_unproven: u32,
    /// How many of these one address may have (IPv6: one network of 64 bits). 0 tells no addresses apart, for a relay that strangers reach
    /// through a proxy; those that come from this machine or from a private network are never told apart.
    pub max_unproven_per_address: u32,
    /// Logins checked each second; devices beyond are told when to come again. 0 for no limit.
    pub max_logins: u32,
    /// Bytes a second that are read from one connection after a burst of a megabyte; 0 for no limit.
    pub max_rate: u32,
    /// The waits of `PROTOCOL 7`.
    pub timings: Timings,
    /// The way to other nodes; none for a relay of one node.
    pub bus: Option<Arc<dyn Bus>>,
    /// Sees every frame. For tests only: no flag or variable of the binary reaches it.
    pub tap: Option<Arc<dyn Tap>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            origins: Vec::new(),
            app: App::Embedded,
            metrics: true,
            access: Access::default(),
            max_connections: 10_000,
            // A home's worth of phones never comes near it, and 1,024 half-open TLS sockets are about 30 MiB.
            max_unproven: 1_024,
            // An office behind one address never has so many between its sockets and its logins at once.
            max_unproven_per_address: 128,
            // A core checks some 5,600 logins a second; a part of it is left for the frames of those that are here.
            max_logins: 4_000,
            max_rate: 0,
            timings: Timings::default(),
            bus: None,
            tap: None,
        }
    }
}

/// Where the phone app comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum App {
    /// From inside the binary.
    Embedded,
    /// From a folder, read anew for every request: for work on the app.
    Folder(PathBuf),
    /// It is not served.
    Off,
}

/// The waits of the protocol. Tests shorten them; devices count on the defaults.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    /// From the upgrade to a valid login.
    pub login: Duration,
    /// Without a received frame for this long, Ping is sent.
    pub ping_after: Duration,
    /// After that Ping, this much longer until the connection counts as dead.
    pub pong_grace: Duration,
    /// A connection that takes no byte for this long is closed.
    pub write: Duration,
    /// How long a guest stays admitted.
    pub guest: Duration,
    /// How long the node of a guest's host may take to admit it. It answers at once, if it is there.
    pub admission: Duration,
    /// How often it is asked whether a device that was let in by vouching is still vouched for.
    pub vouch: Duration,
    /// How long a token lasts, in whole seconds.
    pub token: Duration,
    /// How often a machine with records is noted to be alive.
    pub alive: Duration,
    /// TLS handshakes, and each request's head.
    pub handshake: Duration,
    /// At most this long goes by between Goaway and the end of the socket.
    pub farewell: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            login: Duration::from_secs(wire::LOGIN_SECONDS),
            ping_after: Duration::from_secs(wire::PING_AFTER_SECONDS),
            pong_grace: Duration::from_secs(wire::PONG_GRACE_SECONDS),
            write: Duration::from_secs(wire::WRITE_SECONDS),
            guest: Duration::from_secs(wire::GUEST_SECONDS),
            admission: Duration::from_secs(2),
            vouch: Duration::from_secs(wire::VOUCH_SECONDS),
            token: Duration::from_secs(wire::TOKEN_SECONDS),
            alive: Duration::from_secs(wire::ALIVE_SECONDS),
            handshake: Duration::from_secs(5),
            farewell: Duration::from_secs(1),
        }
    }
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A name with a scheme, path, space or upper-case oddity that no authority has.
    #[error(
        "`{0}` is not a relay name; give `host` or `host:port` as devices dial it, without https:// and without a path"
    )]
    Name(String),
    /// Too many names.
    #[error("a relay has at most {MAX_NAMES} names")]
    TooManyNames,
    /// An origin without a scheme.
    #[error("`{0}` is not a web origin; give it like `https://app.example`, without a path")]
    Origin(String),
    /// A policy that needs keys, and none are there.
    #[error(
        "access `{0}` lets nobody in without an enrolment key; make one with `happy-relay new-key` and give what it prints as `enrol_key`"
    )]
    NoKeys(&'static str),
    /// Too many keys.
    #[error("a relay has at most {} enrolment keys", crate::access::MAX_KEYS)]
    TooManyKeys,
    /// Without it there is no key for tokens, nor a challenge for a login.
    #[error("the operating system has no randomness")]
    NoRandomness,
    /// A rate at which frames would not get through.
    #[error("`max_rate` must be {} bytes a second at least, or 0 for no limit", crate::rates::MIN_RATE)]
    Rate,
    /// A limit of zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// The same with names and origins in the form in which they are compared.
    pub(crate) fn checked(mut self) -> Result<Self, ConfigError> {
        self.names = checked_names(self.names)?;
        for origin in &mut self.origins {
            *origin = web_origin(origin).ok_or_else(|| ConfigError::Origin(origin.clone()))?;
        }
        let Access { policy, keys } = &self.access;
        if *policy != Policy::Open && keys.is_empty() {
            return Err(ConfigError::NoKeys(policy.name()));
        }
        if keys.len() > MAX_KEYS {
            return Err(ConfigError::TooManyKeys);
        }
        // The semaphores of tokio hold less than this; no machine holds more sockets.
        self.max_connections = self.max_connections.min(16_000_000);
        self.max_unproven = self.max_unproven.min(1_000_000);
        if (1..MIN_RATE).contains(&self.max_rate) {
            return Err(ConfigError::Rate);
        }
        match (self.max_connections, self.max_unproven) {
            (0, _) => Err(ConfigError::Zero("max_connections")),
            (_, 0) => Err(ConfigError::Zero("max_unproven")),
            _ => Ok(self),
        }
    }
}

/// Names in the form in which they are compared.
pub(crate) fn checked_names(mut names: Vec<String>) -> Result<Vec<String>, ConfigError> {
    if names.len() > MAX_NAMES {
        return Err(ConfigError::TooManyNames);
    }
    for name in &mut names {
        *name = authority(name).ok_or_else(|| ConfigError::Name(name.clone()))?;
    }
    Ok(names)
}

/// An authority as devices sign it (`PROTOCOL 7`): lower case, without a default port. None when it cannot be one.
pub fn authority(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix(":443").or_else(|| lower.strip_suffix(":80")).unwrap_or(&lower);
    is_authority(bare).then(|| bare.to_owned())
}

fn is_authority(text: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    !text.is_empty() && text.len() <= 255 && text.chars().all(known)
}

/// A web origin as browsers send it: scheme and authority, lower case, without a default port.
pub fn web_origin(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://")?;
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    let rest = rest.strip_suffix(default_port).unwrap_or(rest);
    is_authority(rest).then(|| format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_devices_sign_them() {
        let config = Config { names: vec!["Relay.Example:443".into(), "10.0.0.7:8443".into()], ..Config::default() };
        assert_eq!(config.checked().unwrap().names, ["relay.example", "10.0.0.7:8443"]);
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for name in ["https://relay.example", "relay.example/path", "", "a b"] {
            let config = Config { names: vec![name.into()], ..Config::default() };
            assert_eq!(config.checked().err(), Some(ConfigError::Name(name.into())));
        }
    }

    #[test]
    fn a_rate_lets_frames_through_or_is_no_limit() {
        let with = |max_rate| Config { max_rate, ..Config::default() }.checked().err();
        assert_eq!(
            [with(0), with(MIN_RATE), with(1), with(MIN_RATE - 1)].map(|error| error.is_some()),
            [false, false, true, true]
        );
    }

    #[test]
    fn an_origin_needs_its_scheme() {
        assert_eq!(web_origin("HTTPS://App.Example:443"), Some("https://app.example".into()));
        assert_eq!(web_origin("app.example"), None);
        assert_eq!(web_origin("null"), None);
    }
}
