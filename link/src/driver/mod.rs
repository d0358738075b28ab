//! The thin loops that give an [`Endpoint`](crate::Endpoint) a socket and a clock: one for tokio, one for the browser.

#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(all(feature = "web", target_arch = "wasm32"))]
pub mod web;

use std::net::IpAddr;

/// The randomness of the operating system or the browser. Without it there is no security, so its failure ends the program.
pub type Rng = rand_core::UnwrapErr<getrandom::SysRng>;

/// A source of the randomness that the drivers use.
pub fn rng() -> Rng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

/// Where a relay's websocket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    secure: bool,
    authority: String,
    path: String,
}

/// Why a text is not the address of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RelayUrlError {
    /// There is another scheme, or none.
    #[error("the address of a relay begins with wss:// or https://, or on this machine with ws:// or http://")]
    Scheme,
    /// The host or the port cannot be read.
    #[error("the address of a relay needs a host, and a port from 1 to 65535 if it has one")]
    Authority,
    /// It would carry logins and sizes over a network in the clear.
    #[error("an address with ws:// or http:// is only used on the same machine; use wss:// or https://")]
    NotLoopback,
}

impl RelayUrl {
    /// Reads `wss://host[:port][/path]`, and `ws://` for loopback hosts. `https` and `http` stand for the same. Without a path it is
    /// that of `PROTOCOL 7`.
    ///
    /// # Errors
    /// [`RelayUrlError`].
    pub fn parse(text: &str) -> Result<Self, RelayUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RelayUrlError::Scheme)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "wss" | "https" => true,
            "ws" | "http" => false,
            _ => return Err(RelayUrlError::Scheme),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = authority.to_ascii_lowercase();
        let default_port = if secure { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(&authority).to_owned();
        let path = if path.len() > 1 { path } else { happy_wire::relay::PATH };
        let url = Self { secure, authority, path: path.to_owned() };
        let (host, port) = url.split().ok_or(RelayUrlError::Authority)?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"@?#\\\"<>".contains(&byte);
        if host.is_empty() || port == 0 || !url.authority.bytes().chain(url.path.bytes()).all(is_plain) {
            return Err(RelayUrlError::Authority);
        }
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if !secure && !loopback {
            return Err(RelayUrlError::NotLoopback);
        }
        Ok(url)
    }

    /// Whether the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The name of the relay in logins: `host` or `host:port`, lower case, no default port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.split().map_or("", |(host, _)| host)
    }

    /// The port, also when it is the default one.
    pub fn port(&self) -> u16 {
        self.split().map_or(0, |(_, port)| port)
    }

    fn split(&self) -> Option<(&str, u16)> {
        let default_port = if self.secure { 443 } else { 80 };
        let (host, port) = match self.authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match self.authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (self.authority.as_str(), None),
            },
        };
        Some((host, port.map_or(Some(default_port), |port| port.parse().ok())?))
    }
}

impl std::fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "wss" } else { "ws" }, self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_into_one_form() {
        for (text, url, authority, port) in [
            ("wss://Relay.Example", "wss://relay.example/v1/ws", "relay.example", 443),
            ("https://relay.example:443/", "wss://relay.example/v1/ws", "relay.example", 443),
            (
                "wss://relay.example:8443/happy/v1/ws",
                "wss://relay.example:8443/happy/v1/ws",
                "relay.example:8443",
                8443,
            ),
            ("http://127.0.0.1:3005", "ws://127.0.0.1:3005/v1/ws", "127.0.0.1:3005", 3005),
            ("ws://localhost", "ws://localhost/v1/ws", "localhost", 80),
            ("ws://[::1]:7/v1/ws", "ws://[::1]:7/v1/ws", "[::1]:7", 7),
        ] {
            let parsed = RelayUrl::parse(text).unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.authority(), parsed.port()), (url, authority, port));
        }
        assert_eq!(RelayUrl::parse("ws://[::1]:7").unwrap().host(), "::1");
    }

    #[test]
    fn plain_connections_stay_on_this_machine() {
        for text in ["ws://relay.example", "http://192.168.1.5:3005", "ws://127.0.0.1.example.com", "ws://[fe80::1]"] {
            assert_eq!(RelayUrl::parse(text), Err(RelayUrlError::NotLoopback), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "relay.example", "ftp://relay.example"] {
            assert_eq!(RelayUrl::parse(text), Err(RelayUrlError::Scheme), "{text}");
        }
        for text in [
            "wss://",
            "wss:///v1/ws",
            "wss://a:0",
            "wss://a:70000",
            "wss://a:b",
            "wss://u@a",
            "wss://a b",
            "wss://[::1",
            "wss://a/\r\nx",
        ] {
            assert_eq!(RelayUrl::parse(text), Err(RelayUrlError::Authority), "{text}");
        }
    }
}
