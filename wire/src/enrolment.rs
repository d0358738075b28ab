//! The key by which the operator of a relay admits machines (`PROTOCOL 7`, Access).
//!
//! The operator gives a secret text to the owners of machines. A machine makes an [`EnrolmentKey`] of it, once; the relay
//! knows the [`EnrolmentPublic`] only.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signer, SigningKey};
use happy_crypto::{DeviceId, SignatureError};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The label of an enrolment's signature; the bytes that follow are those of [`login_message`](crate::relay::login_message).
pub const ENROLMENT_LABEL: &str = "happy/1 relay enrolment";

/// Names one of a relay's enrolment keys: the first bytes of the hash of its public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// From bytes as they stand in a login.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// As they stand in a login.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// The half that a machine keeps. It does not print, and is wiped when it is dropped.
#[derive(Clone)]
pub struct EnrolmentKey(SigningKey);

impl EnrolmentKey {
    /// From the seed that the secret was stretched to.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// What [`Self::from_seed`] makes it of again, for whoever keeps it.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The half that the relay is configured with.
    pub fn public(&self) -> EnrolmentPublic {
        EnrolmentPublic(DeviceId::from_bytes(self.0.verifying_key().to_bytes()))
    }

    /// Signs a login, behind [`ENROLMENT_LABEL`].
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(&[ENROLMENT_LABEL.as_bytes(), message].concat()).to_bytes()
    }
}

impl fmt::Debug for EnrolmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EnrolmentKey").finish_non_exhaustive()
    }
}

/// The half that a relay is configured with. Printed and read in the form of a device id, since it is the same kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnrolmentPublic(DeviceId);

impl EnrolmentPublic {
    /// What a login calls it.
    pub fn id(&self) -> KeyId {
        let hash = Sha256::digest(self.0.as_bytes());
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        KeyId(id)
    }

    /// Checks a signature of [`EnrolmentKey::sign`].
    ///
    /// # Errors
    /// When it is not by this key.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), SignatureError> {
        self.0.verify(ENROLMENT_LABEL, message, signature)
    }
}

impl fmt::Display for EnrolmentPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for EnrolmentPublic {
    type Err = <DeviceId as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
