//! A signed refusal, so that nobody between two devices can tell one that it was removed.

use thiserror::Error;

use crate::{DecodeError, DeviceId, Identity, SignatureError, VERSION, reader::Reader};

use super::hello_hash;

const LABEL: &str = "happy/1 refused";
/// Version, reason and hello hash.
const SIGNED: usize = 2 + 32;

/// The answer of a responder that does not want to shake hands.
pub struct Refused;

impl Refused {
    /// The device was removed.
    pub const REVOKED: u8 = 1;
    /// The device is not known.
    pub const UNKNOWN_DEVICE: u8 = 2;
    /// The prekey is not known (any more).
    pub const UNKNOWN_PREKEY: u8 = 3;
    /// Come back later.
    pub const BUSY: u8 = 4;
    /// The version of the Hello is not spoken here.
    pub const UNSUPPORTED_VERSION: u8 = 5;

    /// The pair secret is not known (any more).
    pub const UNKNOWN_SECRET: u8 = 6;

    /// Bytes of a refusal.
    pub const LEN: usize = SIGNED + 64;

    /// Refuses a Hello.
    #[must_use]
    pub fn sign(me: &Identity, reason: u8, hello: &[u8]) -> Vec<u8> {
        let mut refused = Vec::with_capacity(Self::LEN);
        refused.extend_from_slice(&[VERSION, reason]);
        refused.extend_from_slice(&hello_hash(hello));
        let signature = me.sign(LABEL, &refused);
        refused.extend_from_slice(&signature);
        refused
    }

    /// The reason, if it was this responder that refused this Hello. Reasons that are not listed here may come.
    ///
    /// # Errors
    /// When it was not; then the refusal is to be ignored.
    pub fn verify(responder: &DeviceId, hello_hash: &[u8; 32], refused: &[u8]) -> Result<u8, RefusedError> {
        let mut reader = Reader::new(refused);
        reader.version()?;
        let reason = reader.u8()?;
        let named: &[u8; 32] = reader.array()?;
        let signature = reader.array()?;
        reader.finish()?;
        if named != hello_hash {
            return Err(RefusedError::AnotherHello);
        }
        responder.verify(LABEL, &refused[..SIGNED], signature)?;
        Ok(reason)
    }
}

/// A refusal that is to be ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RefusedError {
    /// The bytes are not a refusal.
    #[error("not a refusal: {0}")]
    Malformed(#[from] DecodeError),
    /// It refuses another Hello: an old one, played again.
    #[error("the refusal is about another hello")]
    AnotherHello,
    /// Somebody else wrote it.
    #[error("the refusal is not signed by the responder")]
    Signature(#[from] SignatureError),
}
