//! Which relays are believed to be the ones that they were.
//!
//! | the relay's address | its certificate |
//! |---|---|
//! | a name | an authority that this system believes must vouch for it |
//! | a bare address | the same; or its own, as relays inside daemons have it, and then always the one that was met first |
//!
//! An invitation carries no key of its relay, so the first meeting is taken on trust, as a phone takes it after its warning. What that
//! costs: somebody in between, in that moment, learns who speaks when and how much, and can cut the connection. What it
//! cannot cost: a word of what is said, or a false peer; both are sealed and proved end to end by the keys in the invitation.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use happy_link::driver::RelayUrl;
use happy_pairing::Origin;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use tokio::sync::Notify;

use crate::store::{RelayKey, RelayKeys};
use crate::trouble::Trouble;

/// What a relay has to prove.
#[derive(Debug, Clone)]
pub enum Expected {
    /// The key that is kept for it, or any while there is none.
    Kept(RelayKeys),
    /// A person gives a link to it just now: any, but the same one until the end of this connection.
    First,
}

/// Decides about the certificates of one relay.
#[derive(Debug)]
pub struct RelayVerifier {
    relay: Origin,
    is_address: bool,
    expected: Expected,
    provider: Arc<CryptoProvider>,
    /// None when this system knows no authority.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    state: Mutex<State>,
    refusal: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What the certificate says; nothing has been signed with it yet.
    shown: Option<RelayKey>,
    proved: Option<RelayKey>,
    refused: Option<&'static str>,
}

impl RelayVerifier {
    /// For a relay that is reached over TLS.
    ///
    /// # Errors
    /// When the relay has a name and this system knows no authority that could vouch for it.
    pub fn new(relay: &Origin, url: &RelayUrl, expected: Expected) -> Result<RelayVerifier, Trouble> {
        let provider = Arc::new(ring::default_provider());
        let authorities = authorities(&provider);
        let is_address = url.host().parse::<IpAddr>().is_ok();
        if authorities.is_none() && !is_address {
            return Err(Trouble::new(
                format!("No certificates are installed on this system with which {relay} could prove itself."),
                "Install the system's package of CA certificates, or set SSL_CERT_FILE to a file of them.",
            ));
        }
        let (relay, state, refusal) = (relay.clone(), Mutex::default(), Notify::new());
        Ok(RelayVerifier { relay, is_address, expected, provider, authorities, state, refusal })
    }

    /// What the relay has proved; none for one with a name, which proves itself anew each time.
    pub fn proved(&self) -> Option<RelayKey> {
        self.lock().proved.clone().filter(|_| self.is_address)
    }

    /// Keeps what the relay has proved, if nothing is kept for it yet.
    pub fn keep(&self) {
        let Expected::Kept(keys) = &self.expected else { return };
        if let Some(key) = self.proved().filter(|_| keys.get(&self.relay).is_none()) {
            tracing::info!(relay = %self.relay, %key, "this relay must show the same key from now on");
            if let Err(trouble) = keys.put(&self.relay, key) {
                tracing::warn!(%trouble, "the key of a relay is not kept");
            }
        }
    }

    /// Why the last certificate was refused, in words for a person, if `trouble` of the connection comes from that.
    pub fn explain(&self, trouble: Option<String>) -> Option<String> {
        let refused = self.lock().refused;
        match (refused, trouble) {
            (Some(why), Some(trouble)) if trouble.contains(why) => Some(why.to_owned()),
            (_, trouble) => trouble,
        }
    }

    /// Resolves with the reason once a certificate has been refused.
    pub async fn refused(&self) -> &'static str {
        loop {
            let refusal = self.refusal.notified();
            if let Some(why) = self.lock().refused {
                return why;
            }
            refusal.await;
        }
    }

    fn judge(&self, certificate: &CertificateDer<'_>, vouched: Result<(), &'static str>) -> Result<(), &'static str> {
        let shown = match vouched {
            Ok(()) => RelayKey::Vouched,
            Err(why) if !self.is_address => return Err(why),
            Err(_) => {
                let parsed = ParsedCertificate::try_from(certificate).map_err(|_| "its certificate cannot be read")?;
                RelayKey::of(parsed.subject_public_key_info().as_ref())
            }
        };
        let mut state = self.lock();
        let expected = match &self.expected {
            Expected::Kept(keys) => keys.get(&self.relay),
            Expected::First => state.proved.clone(),
        };
        match (&shown, expected) {
            // What an authority vouches for is as good at an address as it is at a name.
            (RelayKey::Vouched, _) | (_, None) => {}
            (_, Some(RelayKey::Vouched)) => return Err(NO_LONGER_VOUCHED),
            (_, Some(expected)) if expected != shown => return Err(ANOTHER_KEY),
            (_, Some(_)) => {}
        }
        state.shown = Some(shown);
        Ok(())
    }

    /// The server has the key of the certificate that it has shown.
    fn signed(&self, outcome: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        let mut state = self.lock();
        let shown = state.shown.take();
        if outcome.is_ok() {
            (state.proved, state.refused) = (shown, None);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Said of a relay that had another key before.
const ANOTHER_KEY: &str = "its key is not the one that is remembered for it, so either it was set up anew or somebody is in \
                           between; if it was set up anew, join that machine again with a new link, or take the relay's line \
                           out of relay-keys.json and restart the daemon";

/// Said of a relay for whose certificate an authority vouched before.
const NO_LONGER_VOUCHED: &str = "no authority vouches for its certificate any more, so either it was set up anew or somebody is in \
                                 between; if it was set up anew, join that machine again with a new link, or take the relay's line \
                                 out of relay-keys.json and restart the daemon";

/// A refusal as the TLS library carries it.
#[derive(Debug)]
struct Refused(&'static str);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Refused {}

/// Those that the system believes, or `SSL_CERT_FILE`.
fn authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "some certificates of the system were not read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(native.certs);
    // It fails only for an empty store.
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().ok()
}

fn words(error: &Error) -> &'static str {
    match error {
        // The second is one that bears an authority's name and not its signature.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "no authority that this system believes vouches for its certificate"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired, or the clock of this machine is wrong"
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "its certificate is not valid yet, or the clock of this machine is wrong"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is made out to another name",
        Error::InvalidCertificate(CertificateError::Revoked) => "its certificate has been revoked",
        _ => "its certificate is damaged or made for another purpose",
    }
}

impl ServerCertVerifier for RelayVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let vouched = match &self.authorities {
            Some(authorities) => authorities
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
                .map_err(|error| {
                    tracing::debug!(relay = %self.relay, %error, "no authority vouches for a relay");
                    words(&error)
                })
                .map(|_| ()),
            None => Err("this system knows no authority that could vouch for its certificate"),
        };
        self.judge(certificate, vouched).map_err(|why| {
            tracing::warn!(relay = %self.relay, why, "the certificate of a relay is refused");
            let mut state = self.lock();
            (state.shown, state.refused) = (None, Some(why));
            drop(state);
            self.refusal.notify_waiters();
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(why)))))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(verify_tls12_signature(message, certificate, signed, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        self.signed(verify_tls13_signature(message, certificate, signed, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Home;
    use rustls::pki_types::pem::PemObject;

    fn certificate() -> (CertificateDer<'static>, RelayKey) {
        let (pem, _) = happy_relay::tls::self_signed(&["192.0.2.2".into()]).unwrap();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = RelayKey::of(ParsedCertificate::try_from(&certificate).unwrap().subject_public_key_info().as_ref());
        (certificate, key)
    }

    #[test]
    fn a_certificate_of_its_own_counts_at_an_address_only_and_only_with_the_key_that_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let keys = RelayKeys::open(&Home::at(folder.path().to_owned()).unwrap()).unwrap();
        let origin = Origin::parse("https://192.0.2.2:64876").unwrap();
        let url = RelayUrl::parse(&origin.websocket_url()).unwrap();
        let ((own, key), (_, other)) = (certificate(), certificate());
        let verifier = RelayVerifier::new(&origin, &url, Expected::Kept(keys.clone())).unwrap();
        let name = ServerName::try_from("192.0.2.2").unwrap();
        let verify = || verifier.verify_server_cert(&own, &[], &name, &[], UnixTime::now()).map(|_| ());
        for (kept, refused) in [
            (None, None),
            (Some(key), None),
            (Some(other), Some(ANOTHER_KEY)),
            (Some(RelayKey::Vouched), Some(NO_LONGER_VOUCHED)),
        ] {
            if let Some(kept) = kept {
                keys.put(&origin, kept).unwrap();
            }
            let outcome = verify().map_err(|error| verifier.explain(Some(error.to_string())).unwrap());
            assert_eq!(outcome.err().as_deref(), refused);
            // Whoever only shows a certificate has proved nothing.
            verifier.keep();
            assert_eq!(verifier.proved(), None);
        }
    }
}
