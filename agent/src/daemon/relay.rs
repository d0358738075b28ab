//! The relay inside the daemon: on one network a single binary is the whole product.
//!
//! It listens on every interface at one port. Without TLS it answers this machine only; everybody else speaks TLS under a
//! certificate of our own, which is a trial: whoever controls the network could put another page in its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use happy_relay::listen::ListenError;
use happy_relay::{Config, Door, Listening, PlainHttp, Relay};
use zeroize::Zeroizing;

use crate::store::{Home, file, unix_seconds};
use crate::trouble::Trouble;

/// A certificate is made anew at this age; it is good for 800 days.
const RENEW_AFTER_DAYS: u64 = 700;
/// The most addresses of this machine that are offered.
const MAX_ADDRESSES: usize = 4;

/// A relay that runs inside the daemon.
pub struct EmbeddedRelay {
    relay: Relay,
    listening: Listening,
}

impl EmbeddedRelay {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken, or the certificate cannot be kept.
    pub async fn start(home: &Home, port: u16) -> Result<EmbeddedRelay, Trouble> {
        let (certificate, key) = certificate(home)?;
        let tls = happy_relay::tls::from_pem(&certificate, &key).map_err(|error| {
            Trouble::new(
                format!("The relay's certificate in {} cannot be used: {error}.", home.relay_pem().display()),
                "Move the file aside; a new one is made at the next start.",
            )
        })?;
        let relay = Relay::new(Config::default()).map_err(|error| {
            Trouble::new(format!("The relay inside the daemon cannot start: {error}."), "Please report this.")
        })?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listening = relay.listen(address, Door::tls(tls, PlainHttp::Loopback)).await.map_err(|error| match error {
            ListenError::InUse(_) => Trouble::new(
                format!("The port {port} of the relay is used by another program."),
                "Choose another with `--relay-port PORT` (0 for any free one), or use a relay elsewhere with `--relay https://HOST`.",
            ),
            ListenError::NotAllowed(_) => Trouble::new(
                format!("This user may not listen at port {port}."),
                "Choose a port above 1023 with `--relay-port PORT`.",
            ),
            other => Trouble::new(
                format!("The relay inside the daemon cannot listen: {other}."),
                "Choose another port with `--relay-port PORT`.",
            ),
        })?;
        Ok(EmbeddedRelay { relay, listening })
    }

    /// The port that it has.
    pub fn port(&self) -> u16 {
        self.listening.address().port()
    }

    /// The origin for programs on this machine.
    pub fn local_origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// The origins for this network, the address of the default route first. Asked anew each time: machines move.
    pub fn network_origins(&self) -> Vec<String> {
        addresses().into_iter().map(|address| format!("https://{address}:{}", self.port())).collect()
    }

    /// Ends it.
    pub async fn shut_down(&self) {
        self.relay.shutdown(std::time::Duration::from_secs(2)).await;
    }
}

/// The addresses under which others on the network can reach this machine.
fn addresses() -> Vec<Ipv4Addr> {
    let mut found: Vec<Ipv4Addr> = default_route().into_iter().collect();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let IpAddr::V4(address) = interface.ip() else { continue };
        // Bridges of containers and virtual machines lead nowhere from outside.
        let inner = ["docker", "br-", "veth", "virbr", "cni", "podman"].iter().any(|p| interface.name.starts_with(p));
        if !inner && !address.is_loopback() && !address.is_link_local() && !found.contains(&address) {
            found.push(address);
        }
    }
    found.truncate(MAX_ADDRESSES);
    found
}

/// The address that packets to the world would bear. Connecting a datagram socket sends nothing.
fn default_route() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

/// Certificate and key, made anew when they are old or an address has been added.
fn certificate(home: &Home) -> Result<(String, Zeroizing<String>), Trouble> {
    let path = home.relay_pem();
    let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into()];
    names.extend(addresses().iter().map(ToString::to_string));
    if let Some(kept) = file::read_private(&path)?
        && let Some(kept) = Kept::parse(&kept)
    {
        let fresh = unix_seconds() < kept.made_at.saturating_add(RENEW_AFTER_DAYS * 24 * 60 * 60);
        if fresh && names.iter().all(|name| kept.names.contains(name)) {
            return Ok((kept.certificate, kept.key));
        }
    }
    let (certificate, key) = happy_relay::tls::self_signed(&names).map_err(|error| {
        Trouble::new(format!("A certificate for the relay cannot be made: {error}."), "Please report this.")
    })?;
    let heading = format!("happy/1 relay {} {}\n", unix_seconds(), names.join(","));
    let mut text = Zeroizing::new(String::with_capacity(heading.len() + certificate.len() + key.len() + 2));
    text.push_str(&heading);
    text.push_str(&certificate);
    text.push('\n');
    text.push_str(&key);
    file::replace(&path, text.as_bytes(), file::PRIVATE)?;
    Ok((certificate, key))
}

/// What `relay.pem` holds: a heading with the time and the names, then both in PEM.
struct Kept {
    made_at: u64,
    names: Vec<String>,
    certificate: String,
    key: Zeroizing<String>,
}

impl Kept {
    fn parse(bytes: &[u8]) -> Option<Kept> {
        let (heading, pem) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let (made_at, names) = heading.strip_prefix("happy/1 relay ")?.split_once(' ')?;
        let key_at = pem.find("-----BEGIN PRIVATE KEY-----")?;
        Some(Kept {
            made_at: made_at.parse().ok()?,
            names: names.split(',').map(str::to_owned).collect(),
            certificate: pem[..key_at].to_owned(),
            key: Zeroizing::new(pem[key_at..].to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_kept_as_long_as_it_fits() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_owned()).unwrap();
        home.prepare().unwrap();
        let (first, _) = certificate(&home).unwrap();
        let (second, key) = certificate(&home).unwrap();
        assert_eq!(first.trim(), second.trim());
        happy_relay::tls::from_pem(&second, &key).unwrap();
        // One that was made long ago is replaced.
        let text = std::fs::read_to_string(home.relay_pem()).unwrap();
        let (heading, pem) = text.split_once('\n').unwrap();
        let names = heading.rsplit(' ').next().unwrap();
        std::fs::write(home.relay_pem(), format!("happy/1 relay 1000 {names}\n{pem}")).unwrap();
        assert_ne!(certificate(&home).unwrap().0.trim(), first.trim());
    }
}
