//! Certificates: from files, or made here for a network without an authority.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use zeroize::Zeroizing;

use crate::certificates::{Certificates, Found};

/// How long a certificate of [`self_signed`] is good. Some phones refuse one that is good for more than 825 days.
pub const SELF_SIGNED_DAYS: u64 = 800;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why TLS cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}: {said}; the user of the relay must be able to read it", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        said: io::Error,
    },
    /// There is no certificate in it.
    #[error("{} holds no certificate; it must be PEM, the server's certificate first", .0.display())]
    NoCertificate(PathBuf),
    /// There is no key in it.
    #[error("{} holds no private key; it must be PEM and not encrypted", .0.display())]
    NoKey(PathBuf),
    /// They are readable but not fit.
    #[error("the certificate and the key cannot be used: {0}; do they belong together?")]
    Unfit(rustls::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    NotMade(rcgen::Error),
}

/// TLS with a certificate chain and its key, both PEM, that do not change. For those that do there are [`crate::certificates`].
///
/// # Errors
/// [`TlsError`], which speaks of the files `certificate` and `key`.
pub fn from_pem(certificate: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let found = Found::from_pem(certificate.as_bytes(), key.as_bytes(), Path::new("certificate"), Path::new("key"))?;
    Certificates::new(Some(found)).config()
}

/// Makes a key and a certificate signed by itself, for the given DNS names and IP addresses, and gives both as PEM.
/// Whoever keeps the key must keep it as a secret.
///
/// # Errors
/// [`TlsError::NotMade`] for a name that no certificate can carry.
pub fn self_signed(names: &[String]) -> Result<(String, Zeroizing<String>), TlsError> {
    let key = KeyPair::generate().map_err(TlsError::NotMade)?;
    Ok((certify(names, &key)?, Zeroizing::new(key.serialize_pem())))
}

/// The same with a key that was made before, for those who know the relay by it. Gives the certificate.
///
/// # Errors
/// [`TlsError::NotMade`] for a name that no certificate can carry, or when the key cannot be read.
pub fn self_signed_with(names: &[String], key: &str) -> Result<String, TlsError> {
    certify(names, &KeyPair::from_pem(key).map_err(TlsError::NotMade)?)
}

fn certify(names: &[String], key: &KeyPair) -> Result<String, TlsError> {
    let mut params = CertificateParams::new(names.to_vec()).map_err(TlsError::NotMade)?;
    params.distinguished_name.push(DnType::CommonName, "Happy Remote");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A phone's clock may be a little behind.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * SELF_SIGNED_DAYS as u32).into();
    Ok(params.self_signed(key).map_err(TlsError::NotMade)?.pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_made_here_can_be_served() {
        let (certificate, key) = self_signed(&["localhost".into(), "192.168.1.7".into()]).unwrap();
        from_pem(&certificate, &key).unwrap();
        let again = self_signed_with(&["relay.example".into()], &key).unwrap();
        assert_ne!(again, certificate);
        from_pem(&again, &key).unwrap();
        assert!(matches!(self_signed_with(&["localhost".into()], &again), Err(TlsError::NotMade(_))));
    }

    #[test]
    fn a_key_that_belongs_to_another_certificate_is_refused() {
        let (certificate, _) = self_signed(&["localhost".into()]).unwrap();
        let (_, key) = self_signed(&["localhost".into()]).unwrap();
        assert!(matches!(from_pem(&certificate, &key), Err(TlsError::Unfit(_))));
    }

    #[test]
    fn errors_say_which_file_it_is() {
        let missing = PathBuf::from("/nowhere/cert.pem");
        let files = crate::certificates::Files { chain: missing.clone(), key: missing };
        let error = files.read().err().unwrap().to_string();
        assert!(error.contains("/nowhere/cert.pem"), "{error}");
        let (certificate, key) = self_signed(&["localhost".into()]).unwrap();
        assert!(matches!(from_pem(&key, &key), Err(TlsError::NoCertificate(_))));
        assert!(matches!(from_pem(&certificate, &certificate), Err(TlsError::NoKey(_))));
    }
}
