//! The relay inside the daemon: on one network a single binary is the whole product.
//!
//! It listens on every interface at one port. Without TLS it answers this machine only; everybody else speaks TLS under a
//! certificate of our own, which is a trial: whoever controls the network could put another page in its place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use happy_relay::listen::ListenError;
use happy_relay::{Config, ConfigError, Door, Listening, PlainHttp, Relay};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::ParsedCertificate;
use tokio::task::AbortHandle;
use zeroize::Zeroizing;

use crate::store::{Home, RelayKey, file, unix_seconds};
use crate::trouble::Trouble;

/// A certificate is made anew at this age; it is good for 800 days.
const RENEW_AFTER_DAYS: u64 = 700;
/// The most addresses of this machine that are offered. With the three of the machine itself they stay below the names that
/// a relay may have.
const MAX_ADDRESSES: usize = 4;
/// Devices connected at once. A person's phones and machines are a handful, and each costs the daemon a descriptor that its
/// sessions and links need too.
const MAX_CONNECTIONS: u32 = 64;
/// Sockets that have not proven a device: a page takes about six. Whoever is on the network can hold this many, so that it
/// must be few beside the 1,024 descriptors that a process commonly has.
const MAX_UNPROVEN: u32 = 32;
/// How often the addresses of this machine are looked at: a device that learned a new one is refused until then.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// A relay that runs inside the daemon.
pub struct EmbeddedRelay {
    relay: Relay,
    listening: Listening,
    following: AbortHandle,
    key: Option<RelayKey>,
}

impl EmbeddedRelay {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken, or the certificate cannot be kept.
    pub async fn start(home: &Home, port: u16) -> Result<EmbeddedRelay, Trouble> {
        let (certificate, _) = certificate(home)?;
        let tls = tls(home)?;
        let cannot_start = |error: ConfigError| {
            Trouble::new(format!("The relay inside the daemon cannot start: {error}."), "Please report this.")
        };
        // Named from the first connection on: a relay without names believes the Host header of each (PROTOCOL 7).
        let relay = Relay::new(config(port)).map_err(cannot_start)?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listening = relay.listen(address, Door::tls(tls, PlainHttp::Loopback)).await.map_err(|error| match error {
            ListenError::InUse(_) => Trouble::new(
                format!("The port {port} of the relay is used by another program."),
                "Choose another with `--relay-port PORT` of `happy up` or `happy daemon start` (0 for any free one), or `relay_port` in settings.json.",
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
        // The port that was asked for may have been 0.
        let port = listening.address().port();
        relay.set_names(names(port, &addresses())).map_err(cannot_start)?;
        let following = tokio::spawn(follow_addresses(relay.clone(), port)).abort_handle();
        Ok(EmbeddedRelay { relay, listening, following, key: key_of(&certificate) })
    }

    /// The key in its certificate, by which other machines know it again.
    pub fn key(&self) -> Option<&RelayKey> {
        self.key.as_ref()
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
        let addresses = addresses();
        // What is offered now must be believed now.
        set_names(&self.relay, self.port(), &addresses);
        addresses.into_iter().map(|address| format!("https://{address}:{}", self.port())).collect()
    }

    /// Ends it.
    pub async fn shut_down(&self) {
        self.relay.shutdown(Duration::from_secs(2)).await;
    }
}

impl Drop for EmbeddedRelay {
    fn drop(&mut self) {
        self.following.abort();
    }
}

/// What the relay inside allows. The defaults are those of a machine that is nothing but a relay.
fn config(port: u16) -> Config {
    Config {
        names: names(port, &addresses()),
        max_connections: MAX_CONNECTIONS,
        max_unproven: MAX_UNPROVEN,
        ..Config::default()
    }
}

/// The names under which the relay is dialled. A login that was signed for any other was meant for another relay, which
/// is passing it on.
fn names(port: u16, addresses: &[Ipv4Addr]) -> Vec<String> {
    let own = ["127.0.0.1", "localhost", "[::1]"].map(|host| format!("{host}:{port}"));
    own.into_iter().chain(addresses.iter().map(|address| format!("{address}:{port}"))).collect()
}

fn set_names(relay: &Relay, port: u16, addresses: &[Ipv4Addr]) {
    if let Err(error) = relay.set_names(names(port, addresses)) {
        tracing::warn!(%error, "the relay keeps the names that it had");
    }
}

/// Keeps the names of the relay true when the machine moves to another network.
async fn follow_addresses(relay: Relay, port: u16) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        set_names(&relay, port, &addresses());
    }
}

/// The addresses under which others on the network can reach this machine.
pub fn addresses() -> Vec<Ipv4Addr> {
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

/// Other machines know the relay by this.
fn key_of(certificate: &str) -> Option<RelayKey> {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
    let parsed = ParsedCertificate::try_from(&certificate).ok()?;
    Some(RelayKey::of(parsed.subject_public_key_info().as_ref()))
}

/// TLS with the certificate of this machine, for what else it serves to its network.
///
/// # Errors
/// When it cannot be kept.
pub fn tls(home: &Home) -> Result<std::sync::Arc<rustls::ServerConfig>, Trouble> {
    let (certificate, key) = certificate(home)?;
    happy_relay::tls::from_pem(&certificate, &key).map_err(|error| {
        Trouble::new(
            format!("The certificate in {} cannot be used: {error}.", home.relay_pem().display()),
            "Move the file aside; a new one is made at the next start.",
        )
    })
}

/// Certificate and key. The certificate is made anew when it is old or an address has been added; the key stays, because
/// machines that have joined this one know it by that.
fn certificate(home: &Home) -> Result<(String, Zeroizing<String>), Trouble> {
    let path = home.relay_pem();
    let mut names: Vec<String> = vec!["localhost".into(), "127.0.0.1".into()];
    names.extend(addresses().iter().map(ToString::to_string));
    let kept = file::read_private(&path)?.and_then(|bytes| Kept::parse(&bytes));
    let is_good = |kept: &Kept| {
        let fresh = unix_seconds() < kept.made_at.saturating_add(RENEW_AFTER_DAYS * 24 * 60 * 60);
        fresh && names.iter().all(|name| kept.names.contains(name))
    };
    let kept = match kept {
        Some(kept) if is_good(&kept) => return Ok((kept.certificate, kept.key)),
        kept => kept,
    };
    let made = match kept {
        Some(kept) => happy_relay::tls::self_signed_with(&names, &kept.key).map(|certificate| (certificate, kept.key)),
        None => happy_relay::tls::self_signed(&names),
    };
    let (certificate, key) = made.map_err(|error| {
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
    fn the_relay_inside_has_names_and_few_sockets() {
        let config = config(4810);
        for name in ["127.0.0.1:4810", "localhost:4810", "[::1]:4810"] {
            assert!(config.names.iter().any(|known| known == name), "{name}");
        }
        assert!(config.max_connections + config.max_unproven < 128, "a usual process has 1,024 descriptors");
        let many = [Ipv4Addr::new(192, 168, 1, 2); MAX_ADDRESSES];
        let relay = Relay::new(config).unwrap();
        relay.set_names(names(4810, &many)).unwrap();
        assert_eq!(names(4810, &many).last().map(String::as_str), Some("192.168.1.2:4810"));
    }

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
        let (third, _) = certificate(&home).unwrap();
        assert_ne!(third.trim(), first.trim());
        assert!(key_of(&first).is_some());
        assert_eq!(key_of(&third), key_of(&first), "those who know the relay by its key know it still");
    }
}
