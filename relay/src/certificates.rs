//! The certificate that a listener shows, which may change while it listens.
//!
//! A change concerns handshakes that begin from then on. Connections that are there keep what they agreed on, so nobody notices.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::tls::TlsError;

/// The protocol by which an authority asks for the proof of a name (RFC 8737).
pub(crate) const PROOF_PROTOCOL: &[u8] = b"acme-tls/1";
/// How often files are looked at for a change.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const DAY: i64 = 24 * 60 * 60;

/// A certificate that can be shown, and what it says of itself.
pub struct Found {
    shown: Arc<CertifiedKey>,
    /// From and until when it is good, seconds since 1970.
    pub(crate) good: (i64, i64),
}

impl Found {
    /// From PEM: the chain with the server's certificate first, and its key.
    ///
    /// # Errors
    /// [`TlsError`] speaks of the two paths.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8], chain_path: &Path, key_path: &Path) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).filter_map(Result::ok).collect();
        let Some(first) = chain.first() else { return Err(TlsError::NoCertificate(chain_path.to_owned())) };
        let (_, parsed) =
            x509_parser::parse_x509_certificate(first).map_err(|_| TlsError::NoCertificate(chain_path.to_owned()))?;
        let validity = parsed.validity();
        let good = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey(key_path.to_owned()))?;
        let shown = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(TlsError::Unfit)?;
        Ok(Self { shown: Arc::new(shown), good })
    }

    /// Whether devices that dial this `host` or `host:port` accept it.
    pub fn is_for(&self, name: &str) -> bool {
        let host = host_of(name);
        let (Some(certificate), Ok(host)) = (self.shown.cert.first(), ServerName::try_from(host)) else { return false };
        ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &host).is_ok())
    }

    /// Whole days until it ends; negative when it has ended.
    pub fn days_left(&self) -> i64 {
        (self.good.1 - now()).div_euclid(DAY)
    }
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`.
pub(crate) fn host_of(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => name.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(name, |(host, _)| host),
    }
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// The certificate of a listener.
#[derive(Default)]
pub struct Certificates {
    shown: RwLock<Option<Arc<CertifiedKey>>>,
    /// While an authority asks: for each name, what proves that we are it.
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    /// For the metrics: when the shown one ends (0 without one), and how often one was taken into use or could not be.
    pub(crate) ends: AtomicI64,
    pub(crate) taken: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Certificates {
    /// With one from files, or with one from an authority, which may come later.
    pub fn new(first: Option<Found>) -> Arc<Self> {
        let certificates = Self::default();
        first.into_iter().for_each(|found| certificates.show(found));
        Arc::new(certificates)
    }

    /// Shows another one from now on.
    pub fn show(&self, found: Found) {
        self.ends.store(found.good.1, Relaxed);
        self.taken.fetch_add(1, Relaxed);
        *self.shown.write() = Some(found.shown);
    }

    /// Whether there is one to show.
    pub fn has_any(&self) -> bool {
        self.shown.read().is_some()
    }

    pub(crate) fn note_failure(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Proves a name to whoever asks by the protocol for it, or no longer does.
    pub(crate) fn prove(&self, name: &str, proof: Option<Arc<CertifiedKey>>) {
        let name = name.to_ascii_lowercase();
        let mut proofs = self.proofs.write();
        match proof {
            Some(proof) => proofs.insert(name, proof),
            None => proofs.remove(&name),
        };
    }

    /// How a listener with these certificates speaks TLS.
    ///
    /// # Errors
    /// [`TlsError::Unfit`] when the library knows no version of TLS, which it does.
    pub fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unfit)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec(), PROOF_PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737, 3: who asks for a proof offers this protocol and no other, and gets the proof or nothing.
        if hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PROOF_PROTOCOL)) {
            let name = hello.server_name()?.to_ascii_lowercase();
            return self.proofs.read().get(&name).cloned();
        }
        self.shown.read().clone()
    }
}

/// A certificate and its key in files, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, the server's certificate first.
    pub chain: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// What tells one state of the files from another.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub fn read(&self) -> Result<Found, TlsError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|said| TlsError::Unreadable { path: path.to_owned(), said });
        let (chain, key) = (read(&self.chain)?, Zeroizing::new(read(&self.key)?));
        Found::from_pem(&chain, &key, &self.chain, &self.key)
    }

    fn stamp(&self) -> Stamp {
        [&self.chain, &self.key].map(|path| path.metadata().and_then(|meta| Ok((meta.modified()?, meta.len()))).ok())
    }

    /// Reads them to show them, and gives what keeps that up to date.
    ///
    /// # Errors
    /// As [`Files::read`].
    pub fn show(self) -> Result<(Arc<Certificates>, Following), TlsError> {
        // Before they are read: a change in between is then seen as one.
        let stamp = self.stamp();
        let certificates = Certificates::new(Some(self.read()?));
        let following = Following { files: self, shown: stamp, complained: stamp, certificates: certificates.clone() };
        Ok((certificates, following))
    }
}

/// What shows a certificate anew when its files change.
#[derive(Debug)]
pub struct Following {
    files: Files,
    certificates: Arc<Certificates>,
    /// The files as they were when they were shown, and when it was said that they make no sense.
    shown: Stamp,
    complained: Stamp,
}

impl Following {
    /// Looks every 10 s, and when it is asked to, for ever. Files that make no sense, as when one of the two is written already and the other is
    /// not, change nothing; they are read again until they do.
    pub async fn keep(mut self, asked: Arc<Notify>) {
        loop {
            let wanted = tokio::select! {
                () = asked.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            self.look(wanted);
        }
    }

    fn look(&mut self, wanted: bool) {
        let stamp = self.files.stamp();
        if !wanted && stamp == self.shown {
            return;
        }
        match self.files.read() {
            Ok(found) => {
                tracing::info!(days = found.days_left(), "showing the certificate from {}", self.files.chain.display());
                self.certificates.show(found);
                self.shown = stamp;
            }
            // Said once for each state of the files.
            Err(error) if wanted || stamp != self.complained => {
                tracing::error!("{error}; the relay goes on with the certificate that it has");
                self.certificates.note_failure();
                self.complained = stamp;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{self_signed, self_signed_with};

    fn found(names: &[&str]) -> Found {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let (chain, key) = self_signed(&names).unwrap();
        Found::from_pem(chain.as_bytes(), key.as_bytes(), Path::new("chain"), Path::new("key")).unwrap()
    }

    #[test]
    fn a_certificate_says_for_whom_and_how_long_it_is() {
        let found = found(&["relay.example", "10.0.0.7", "fe80::1"]);
        for name in ["relay.example", "relay.example:8443", "10.0.0.7:443", "[fe80::1]:443", "fe80::1"] {
            assert!(found.is_for(name), "{name}");
        }
        for name in ["other.example", "10.0.0.8", "x.relay.example", "", "a b"] {
            assert!(!found.is_for(name), "{name}");
        }
        assert_eq!(found.days_left(), crate::tls::SELF_SIGNED_DAYS as i64);
    }

    #[test]
    fn files_are_read_when_they_change_and_a_half_written_pair_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { chain: folder.path().join("chain.pem"), key: folder.path().join("key.pem") };
        let (chain, key) = self_signed(&["a.example".into()]).unwrap();
        std::fs::write(&files.chain, chain).unwrap();
        std::fs::write(&files.key, &key).unwrap();
        let (certificates, mut following) = files.clone().show().unwrap();
        let shows = |name: &str| Found { shown: certificates.shown.read().clone().unwrap(), good: (0, 0) }.is_for(name);
        let counts = || (certificates.taken.load(Relaxed), certificates.failed.load(Relaxed));
        following.look(false);
        assert_eq!(counts(), (1, 0), "nothing has changed");

        // The new key is there and its certificate is not. It is longer, since the clock of the disk may be coarse.
        let (_, other) = self_signed(&["b.example".into()]).unwrap();
        std::fs::write(&files.key, format!("{}\n", other.as_str())).unwrap();
        following.look(false);
        following.look(false);
        assert_eq!(counts(), (1, 1), "it is told once");
        assert!(shows("a.example"));

        std::fs::write(&files.chain, self_signed_with(&["b.example".into()], &other).unwrap() + "\n").unwrap();
        following.look(false);
        assert_eq!(counts(), (2, 1));
        assert!(shows("b.example") && !shows("a.example"));
        following.look(true);
        assert_eq!(counts(), (3, 1), "who asks gets it");
    }
}
