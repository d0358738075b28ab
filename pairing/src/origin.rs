//! Where a relay and its app are found (PROTOCOL 4).

use std::{fmt, net::Ipv6Addr, str::FromStr};

use thiserror::Error;

/// Bytes of an origin: it travels as the context of a Hello, which has at most 255.
const MAX_ORIGIN: usize = 255;

/// Scheme and authority, lower case, without a default port: `https://relay.example` or `http://127.0.0.1:3000`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(String);

impl Origin {
    /// Reads an address that a person or a program wrote. `happy://` means `https://`; one slash at the end does not matter.
    ///
    /// # Errors
    /// When it is no address, or one that keys must not be entrusted to.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        let text = text.trim();
        if text.len() > MAX_ORIGIN {
            return Err(OriginError::TooLong);
        }
        let text = text.to_ascii_lowercase();
        let (scheme, rest) = text.split_once("://").ok_or(OriginError::NotAnAddress)?;
        let authority = Authority::parse(rest.strip_suffix('/').unwrap_or(rest))?;
        match scheme {
            "https" | "happy" => Ok(Self(format!("https://{}", authority.without_default_port(443)))),
            // Whoever is between could change the page, and the page holds the keys.
            "http" if authority.is_loopback() => Ok(Self(format!("http://{}", authority.without_default_port(80)))),
            "http" => Err(OriginError::PlainHttp),
            _ => Err(OriginError::Scheme),
        }
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `host` or `host:port`: the name by which a relay knows itself in a login (PROTOCOL 7).
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// Whether it is encrypted; if not it is on this machine.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Where a device connects: `wss://host/v1/ws`.
    #[must_use]
    pub fn websocket_url(&self) -> String {
        let scheme = if self.is_https() { "wss" } else { "ws" };
        format!("{scheme}://{}/v1/ws", self.authority())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// An address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OriginError {
    /// There is no `://`, or no host, or something that does not belong into an address.
    #[error("this is not an address like https://relay.example")]
    NotAnAddress,
    /// Neither https, happy nor (on this machine) http.
    #[error("an address begins with https:// or happy://")]
    Scheme,
    /// Plain http to another machine.
    #[error("plain http:// is only allowed to this very machine; use https://")]
    PlainHttp,
    /// The port is no number from 1 to 65,535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// Longer than 255 bytes.
    #[error("the address is longer than 255 characters")]
    TooLong,
}

/// Host and port, in lower case.
struct Authority<'a> {
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    fn parse(text: &'a str) -> Result<Self, OriginError> {
        let host_end = if text.starts_with('[') {
            text.find(']').map(|end| end + 1).ok_or(OriginError::NotAnAddress)?
        } else {
            text.find(':').unwrap_or(text.len())
        };
        let (host, port) = text.split_at(host_end);
        let port = match port.strip_prefix(':') {
            Some(digits) => Some(parse_port(digits)?),
            None if port.is_empty() => None,
            None => return Err(OriginError::NotAnAddress),
        };
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // One text per address, or two devices would disagree about the name of one relay.
            Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|parsed| parsed.to_string() == address),
            None => is_domain_or_ipv4(host),
        };
        if is_host { Ok(Self { host, port }) } else { Err(OriginError::NotAnAddress) }
    }

    fn is_loopback(&self) -> bool {
        matches!(self.host, "127.0.0.1" | "localhost" | "[::1]")
    }

    fn without_default_port(&self, default: u16) -> String {
        match self.port {
            Some(port) if port != default => format!("{}:{port}", self.host),
            _ => self.host.to_owned(),
        }
    }
}

fn parse_port(digits: &str) -> Result<u16, OriginError> {
    let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().map_err(|_| OriginError::Port) } else { Err(OriginError::Port) }
}

fn is_domain_or_ipv4(host: &str) -> bool {
    // International names come as punycode, which is what a browser sends too.
    let is_label = |label: &str| {
        let harmless = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        !label.is_empty() && label.len() <= 63 && harmless && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_get_one_form() {
        for (text, origin) in [
            ("https://relay.example", "https://relay.example"),
            (" HTTPS://Relay.Example:443/\n", "https://relay.example"),
            ("happy://relay.example:8443", "https://relay.example:8443"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:3000/", "http://[::1]:3000"),
            ("https://192.168.1.7:64876", "https://192.168.1.7:64876"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().as_str(), origin, "{text}");
        }
    }

    #[test]
    fn addresses_that_are_refused() {
        use OriginError::{NotAnAddress, PlainHttp, Port, Scheme, TooLong};
        for (text, error) in [
            ("relay.example", NotAnAddress),
            ("https://", NotAnAddress),
            ("https://user@relay.example", NotAnAddress),
            ("https://relay.example/path", NotAnAddress),
            ("https://relay.example?x", NotAnAddress),
            ("https://relay..example", NotAnAddress),
            ("https://-relay.example", NotAnAddress),
            ("https://rélay.example", NotAnAddress),
            ("https://[2001:0db8::1]", NotAnAddress),
            ("https://[::1", NotAnAddress),
            ("https://[::1]x", NotAnAddress),
            ("http://relay.example", PlainHttp),
            ("http://127.0.0.2", PlainHttp),
            ("http://localhost.example", PlainHttp),
            ("ftp://relay.example", Scheme),
            ("javascript://relay.example", Scheme),
            ("https://relay.example:", Port),
            ("https://relay.example:0", Port),
            ("https://relay.example:080", Port),
            ("https://relay.example:65536", Port),
            ("https://relay.example:+80", Port),
            ("https://a:80:90", Port),
        ] {
            assert_eq!(Origin::parse(text), Err(error), "{text}");
        }
        assert_eq!(Origin::parse(&format!("https://{}", "a".repeat(300))), Err(TooLong));
    }

    #[test]
    fn parts() {
        let origin = Origin::parse("https://relay.example:8443").unwrap();
        assert_eq!(origin.authority(), "relay.example:8443");
        assert_eq!(origin.websocket_url(), "wss://relay.example:8443/v1/ws");
        assert_eq!(Origin::parse("http://localhost:1").unwrap().websocket_url(), "ws://localhost:1/v1/ws");
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "(https|http|happy)?(://)?[a-zA-Z0-9.:/\\[\\]@%é_-]{0,40}") {
            if let Ok(origin) = Origin::parse(&text) {
                prop_assert_eq!(Origin::parse(origin.as_str()), Ok(origin.clone()));
                prop_assert!(origin.as_str().len() <= 255);
            }
        }
    }
}
