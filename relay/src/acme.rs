//! Certificates from an authority by ACME (RFC 8555), proven at the relay's own port (TLS-ALPN-01, RFC 8737).
//!
//! What must outlive the program is kept in a folder: the account at the authority, and the certificate with its key. The relay starts with what is
//! there and asks in the background for what is not; while it has none, it listens and refuses handshakes.

mod folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::folder::Folder;
use crate::causes::whole;
use crate::certificates::{Certificates, Found, host_of, now};
use crate::config::authority;

/// Let's Encrypt.
pub const PRODUCTION: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Let's Encrypt's authority for trials.
pub const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

/// What an authority says when it has lost or closed the account (RFC 8555, 6.7).
const ACCOUNT_GONE: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
/// What an authority says of a nonce that it does not take (RFC 8555, 6.5).
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// So often a certificate is ordered before a refused nonce counts as a failure. An authority may refuse any nonce, and each is followed by
/// a good one; the library tries a request three times, and behind several front ends of one authority that has been too few.
const NONCE_TRIES: usize = 4;
/// The longest sleep before a renewal.
const STEP: Duration = Duration::from_secs(60 * 60);

/// The waits. Tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// After the first failure. Each further one waits for three times as long: Let's Encrypt takes five failures an hour for a name, and these
    /// come after 0, 1, 4, 13 and 40 minutes.
    pub retry: Duration,
    /// At most so long after a failure.
    pub longest_retry: Duration,
    /// Between two certificates at least, however short they are.
    pub renewal: Duration,
    /// One order with all that belongs to it.
    pub order: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(60),
            longest_retry: Duration::from_secs(60 * 60),
            renewal: Duration::from_secs(60 * 60),
            order: Duration::from_secs(5 * 60),
        }
    }
}

/// Why there is no certificate, or none to ask for.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// Nothing to ask for.
    #[error("there is no name that a certificate could be for; give `name`")]
    NoName,
    /// Authorities give certificates for names in the DNS.
    #[error("an authority gives no certificate for `{0}`; give the name in the DNS under which devices dial the relay")]
    NotDns(String),
    /// No address.
    #[error("`acme_directory` must be an https address, not `{0}`")]
    Directory(String),
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}: {said}; `acme_dir` must be a folder that the relay's user can write to", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        said: std::io::Error,
    },
    /// Somebody else could read the keys.
    #[error("others can read {}; take that right away: chmod -R go= {}", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// The certificate of the authority itself.
    #[error("`acme_root` {} is no certificate in PEM", .0.display())]
    Root(PathBuf),
    /// The authority or the way to it.
    #[error("the authority {directory} cannot be used: {}", whole(said))]
    Authority {
        /// Where it is.
        directory: String,
        /// What went wrong.
        said: instant_acme::Error,
    },
    /// The authority did not see the proof.
    #[error("the authority could not see at port 443 of {name} that it leads here: {said}")]
    Unproven {
        /// Which name.
        name: String,
        /// In its words.
        said: String,
    },
    /// The order came to nothing.
    #[error("the authority {0} did not do what was ordered")]
    Refused(String),
    /// It took too long.
    #[error("the authority {0} did not answer in time")]
    Late(String),
    /// What came is no certificate for the key.
    #[error("what the authority gave cannot be used: {0}")]
    Unfit(crate::tls::TlsError),
    /// A key or a request cannot be made.
    #[error("cannot make a request: {0}")]
    NotMade(rcgen::Error),
}

/// Gets certificates for some names and renews them.
#[derive(Debug, Clone)]
pub struct Acme {
    /// Without ports, in lower case, each once.
    names: Vec<String>,
    folder: Folder,
    directory: String,
    email: Option<String>,
    root: Option<PathBuf>,
    /// The waits.
    pub waits: Waits,
}

impl Acme {
    /// For relay names, `host` or `host:port`, with a folder for what is kept and the directory of an authority. `root` is the authority's
    /// own certificate, when it is not one that everybody trusts.
    ///
    /// # Errors
    /// [`AcmeError`] when no authority could give such a certificate.
    pub fn new(
        names: &[String],
        folder: &Path,
        directory: String,
        email: Option<String>,
        root: Option<PathBuf>,
    ) -> Result<Self, AcmeError> {
        let mut hosts = Vec::new();
        for name in names {
            let name = authority(name).ok_or_else(|| AcmeError::NotDns(name.clone()))?;
            let host = host_of(&name).to_owned();
            if !host.contains('.') || host.parse::<std::net::IpAddr>().is_ok() || host.contains(':') {
                return Err(AcmeError::NotDns(name));
            }
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            return Err(AcmeError::NoName);
        }
        let place = directory.strip_prefix("https://").and_then(|rest| rest.split('/').next()).and_then(authority);
        // Each authority has a folder of its own, so that a trial does not mix with what is real.
        let place = place.ok_or_else(|| AcmeError::Directory(directory.clone()))?.replace([':', '[', ']'], "_");
        let folder = Folder::new(folder.join(place));
        Ok(Self { names: hosts, folder, directory, email, root, waits: Waits::default() })
    }

    /// Whether the folder can be used, which makes it, and the root can be read.
    ///
    /// # Errors
    /// [`AcmeError`] says what cannot be.
    pub fn check(&self) -> Result<(), AcmeError> {
        self.folder.open()?;
        self.account_builder().map(|_| ())
    }

    /// Whether the root can be read and the folder might be used, without touching it: who looks may be another user than the relay's. Gives what
    /// there is to say about that.
    ///
    /// # Errors
    /// [`AcmeError`] says what cannot be, whoever runs the relay.
    pub fn look(&self) -> Result<Option<String>, AcmeError> {
        self.account_builder()?;
        self.folder.look()
    }

    /// The certificate that was kept, if it has not ended and is for one of the names at least: until one for all of them has come, it is
    /// better than none.
    pub fn kept(&self) -> Option<Found> {
        let found = self.folder.certificate()?;
        (self.names.iter().any(|name| found.is_for(name)) && found.good.1 > now()).then_some(found)
    }

    /// Sees to it that there is a certificate, for ever.
    pub async fn keep(self, certificates: Arc<Certificates>) {
        let complete = |found: &Found| self.names.iter().all(|name| found.is_for(name));
        let mut good = self.kept().filter(complete).map(|found| found.good);
        let mut failures = 0;
        // Never two orders without a pause, whatever clocks and certificates say.
        let mut earliest = Instant::now();
        loop {
            let due = good.map_or(Duration::ZERO, |good| renewal_in(good, now()));
            let wait = due.max(earliest.saturating_duration_since(Instant::now()));
            if !wait.is_zero() {
                // In steps, since the clock by which certificates end may be set anew.
                tokio::time::sleep(wait.min(STEP)).await;
                continue;
            }
            let order = tokio::time::timeout(self.waits.order, self.obtain(&certificates));
            let ended = order.await.unwrap_or_else(|_| Err(AcmeError::Late(self.directory.clone())));
            self.names.iter().for_each(|name| certificates.prove(name, None));
            let pause = match ended {
                Ok(found) => {
                    failures = 0;
                    tracing::info!(days = found.days_left(), "a new certificate for {}", self.names.join(", "));
                    good = Some(found.good);
                    certificates.show(found);
                    self.waits.renewal
                }
                Err(error) => {
                    failures += 1;
                    certificates.note_failure();
                    let consequence = match certificates.has_any() {
                        true => "the relay goes on with the one that it has",
                        false => "nobody can connect until there is one",
                    };
                    let again = self.retry_after(failures);
                    tracing::error!("no new certificate: {error}; {consequence}; next try in {} s", again.as_secs());
                    again
                }
            };
            earliest = Instant::now() + pause;
        }
    }

    fn retry_after(&self, failures: u32) -> Duration {
        let wait = self.waits.retry.saturating_mul(3_u32.saturating_pow(failures.saturating_sub(1)));
        wait.min(self.waits.longest_retry)
    }

    /// Orders a certificate, and again at once when only a nonce was in the way.
    async fn obtain(&self, certificates: &Certificates) -> Result<Found, AcmeError> {
        for _ in 1..NONCE_TRIES {
            match self.order(certificates).await {
                Err(AcmeError::Authority { said, .. }) if is_problem(&said, BAD_NONCE) => {}
                ended => return ended,
            }
        }
        self.order(certificates).await
    }

    async fn order(&self, certificates: &Certificates) -> Result<Found, AcmeError> {
        let said = |said| AcmeError::Authority { directory: self.directory.clone(), said };
        self.folder.open()?;
        let identifiers: Vec<_> = self.names.iter().cloned().map(Identifier::Dns).collect();
        let wanted = NewOrder::new(&identifiers);
        let mut order = match self.account().await?.new_order(&wanted).await {
            Err(error) if is_problem(&error, ACCOUNT_GONE) => {
                tracing::warn!("the authority {} no longer knows the account; making a new one", self.directory);
                self.folder.forget_account()?;
                self.account().await?.new_order(&wanted).await
            }
            order => order,
        }
        .map_err(said)?;
        self.prove(&mut order, certificates).await?;
        let key = KeyPair::generate().map_err(AcmeError::NotMade)?;
        let mut wanted = CertificateParams::new(self.names.clone()).map_err(AcmeError::NotMade)?;
        wanted.distinguished_name = DistinguishedName::new();
        let request = wanted.serialize_request(&key).map_err(AcmeError::NotMade)?;
        order.finalize_csr(request.der()).await.map_err(said)?;
        let chain = order.poll_certificate(&RetryPolicy::default()).await.map_err(said)?;
        let key = Zeroizing::new(key.serialize_pem());
        let (chain_path, key_path) = (Path::new("the certificate"), Path::new("the key"));
        let found =
            Found::from_pem(chain.as_bytes(), key.as_bytes(), chain_path, key_path).map_err(AcmeError::Unfit)?;
        // Kept before it is shown: one that is lost has to be ordered again, of which there are few a week.
        self.folder.keep_certificate(&chain, &key)?;
        Ok(found)
    }

    /// Proves each name that the authority asks about.
    async fn prove(&self, order: &mut Order, certificates: &Certificates) -> Result<(), AcmeError> {
        let said = |said| AcmeError::Authority { directory: self.directory.clone(), said };
        let mut asked = order.authorizations();
        while let Some(authorization) = asked.next().await {
            let mut authorization = authorization.map_err(said)?;
            match authorization.status {
                // It remembers the proof of an earlier order.
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(AcmeError::Refused(self.directory.clone())),
            }
            let mut challenge = authorization
                .challenge(ChallengeType::TlsAlpn01)
                .ok_or_else(|| said(instant_acme::Error::Unsupported("tls-alpn-01")))?;
            let name = challenge.identifier().to_string();
            let proof = proof(&name, challenge.key_authorization().digest().as_ref())?;
            certificates.prove(&name, Some(proof));
            challenge.set_ready().await.map_err(said)?;
        }
        match order.poll_ready(&RetryPolicy::default()).await {
            Ok(OrderStatus::Invalid) => {
                Err(self.why_unproven(order).await.unwrap_or_else(|| AcmeError::Refused(self.directory.clone())))
            }
            Ok(_) => Ok(()),
            // Some put what is wrong with a name at the order as well, without the name.
            Err(error @ instant_acme::Error::Api(_)) => Err(self.why_unproven(order).await.unwrap_or(said(error))),
            Err(error) => Err(said(error)),
        }
    }

    /// What the authority says of the name that it could not see proven.
    async fn why_unproven(&self, order: &mut Order) -> Option<AcmeError> {
        let mut asked = order.authorizations();
        while let Some(Ok(mut authorization)) = asked.next().await {
            let state = match authorization.refresh().await {
                Ok(state) => state,
                Err(said) if is_problem(&said, BAD_NONCE) => {
                    return Some(AcmeError::Authority { directory: self.directory.clone(), said });
                }
                Err(_) => continue,
            };
            let name = state.identifier().to_string();
            if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
                return Some(AcmeError::Unproven { name, said: problem.to_string() });
            }
        }
        None
    }

    fn account_builder(&self) -> Result<instant_acme::AccountBuilder, AcmeError> {
        match &self.root {
            Some(root) => Account::builder_with_root(root).map_err(|_| AcmeError::Root(root.clone())),
            None => Account::builder().map_err(|said| AcmeError::Authority { directory: self.directory.clone(), said }),
        }
    }

    /// The account that was kept, or a new one.
    async fn account(&self) -> Result<Account, AcmeError> {
        let said = |said| AcmeError::Authority { directory: self.directory.clone(), said };
        if let Some(credentials) = self.folder.account() {
            return self.account_builder()?.from_credentials(credentials).await.map_err(said);
        }
        let contact = self.email.as_ref().map(|email| format!("mailto:{email}"));
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) =
            self.account_builder()?.create(&wanted, self.directory.clone(), None).await.map_err(said)?;
        self.folder.keep_account(&credentials)?;
        Ok(account)
    }
}

/// Whether an authority said this, one of the types of RFC 8555, 6.7.
fn is_problem(error: &instant_acme::Error, kind: &str) -> bool {
    matches!(error, instant_acme::Error::Api(problem) if problem.r#type.as_deref() == Some(kind))
}

/// When a certificate should be renewed: when a third of its time is left.
fn renewal_in((from, until): (i64, i64), now: i64) -> Duration {
    let due = until - (until - from) / 3;
    Duration::from_secs((due - now).max(0).unsigned_abs())
}

/// A certificate that proves a name (RFC 8737, 3).
fn proof(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, AcmeError> {
    let key = KeyPair::generate().map_err(AcmeError::NotMade)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(AcmeError::NotMade)?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(AcmeError::NotMade)?;
    let der = PrivatePkcs8KeyDer::from(key.serialize_der());
    let signer = ring::sign::any_supported_type(&der.into());
    let signer = signer.map_err(|said| AcmeError::Unfit(crate::tls::TlsError::Unfit(said)))?;
    // Not `from_der`, which would stumble over the extension: it is marked critical, so that nobody else takes the proof for a certificate.
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme(names: &[&str], directory: &str) -> Result<Acme, AcmeError> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        Acme::new(&names, Path::new("/tmp/x"), directory.into(), None, None)
    }

    #[test]
    fn only_names_of_the_dns_are_asked_for_and_each_once() {
        let made = acme(&["Relay.Example:443", "relay.example:8443", "b.example"], PRODUCTION).unwrap();
        assert_eq!(made.names, ["relay.example", "b.example"]);
        for name in ["10.0.0.1", "[fe80::1]:443", "localhost"] {
            assert!(matches!(acme(&[name], PRODUCTION), Err(AcmeError::NotDns(_))), "{name}");
        }
        assert!(matches!(acme(&[], PRODUCTION), Err(AcmeError::NoName)));
        for directory in ["http://a.example/d", "a.example", "https://"] {
            assert!(matches!(acme(&["a.example"], directory), Err(AcmeError::Directory(_))), "{directory}");
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_time_is_left() {
        let day = 24 * 60 * 60;
        assert_eq!(renewal_in((0, 90 * day), 0).as_secs() as i64, 60 * day);
        assert_eq!(renewal_in((0, 90 * day), 59 * day).as_secs() as i64, day);
        for late in [60 * day, 100 * day] {
            assert_eq!(renewal_in((0, 90 * day), late), Duration::ZERO);
        }
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_not_for_ever_later() {
        let acme = acme(&["a.example"], PRODUCTION).unwrap();
        let waits: Vec<_> = (1..7).map(|failures| acme.retry_after(failures).as_secs() / 60).collect();
        assert_eq!(waits, [1, 3, 9, 27, 60, 60]);
        assert_eq!(acme.retry_after(u32::MAX), acme.waits.longest_retry);
    }
}
