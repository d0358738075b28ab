//! Prekeys (PROTOCOL 3): agreement keys that a device publishes ahead of time.

use std::fmt;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{
    DecodeError, DeviceId, Identity, SUITE, VERSION,
    agreement::{self, AgreementKey},
    reader::Reader,
};

pub(crate) const LABEL: &str = "happy/1 signed prekey";

/// The prekey that a device keeps for some time and signs.
pub struct SignedPrekey {
    secret: StaticSecret,
    public: AgreementKey,
    id: u32,
    made_at: u64,
    signer: DeviceId,
    signature: [u8; 64],
}

impl SignedPrekey {
    /// Bytes of [`SignedPrekey::to_bytes`].
    pub const STORED_LEN: usize = 44;

    /// A new prekey; `id` counts from 1, `made_at_unix` is in seconds.
    ///
    /// # Panics
    /// When `id` is 0, which means "no prekey" on the wire.
    pub fn generate(rng: &mut impl CryptoRng, me: &Identity, id: u32, made_at_unix: u64) -> Self {
        assert!(id != 0, "the ids of prekeys count from 1");
        Self::certify(me, agreement::generate(rng), id, made_at_unix)
    }

    fn certify(me: &Identity, secret: StaticSecret, id: u32, made_at: u64) -> Self {
        let public = AgreementKey::of(&secret);
        let signature = me.sign(LABEL, &signed_bytes(me.device_id(), id, &public, made_at));
        Self { secret, public, id, made_at, signer: me.device_id(), signature }
    }

    /// Secret, id and time, to be sealed (PROTOCOL 14) before they are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::STORED_LEN]> {
        let mut bytes = Zeroizing::new([0; Self::STORED_LEN]);
        bytes[..32].copy_from_slice(self.secret.as_bytes());
        bytes[32..36].copy_from_slice(&self.id.to_be_bytes());
        bytes[36..].copy_from_slice(&self.made_at.to_be_bytes());
        bytes
    }

    /// The prekey of this device that [`SignedPrekey::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are not such a prekey.
    pub fn from_bytes(me: &Identity, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let secret = StaticSecret::from(*reader.array()?);
        let id = reader.u32()?;
        let made_at = reader.u64()?;
        reader.finish()?;
        if id == 0 {
            return Err(DecodeError::Field("signed prekey id"));
        }
        Ok(Self::certify(me, secret, id, made_at))
    }

    /// Never 0.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// When it was made, Unix seconds.
    #[must_use]
    pub fn made_at_unix(&self) -> u64 {
        self.made_at
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    pub(crate) fn public(&self) -> &AgreementKey {
        &self.public
    }

    pub(crate) fn signer(&self) -> DeviceId {
        self.signer
    }

    pub(crate) fn signature(&self) -> &[u8; 64] {
        &self.signature
    }
}

impl Clone for SignedPrekey {
    fn clone(&self) -> Self {
        Self { secret: self.secret.clone(), ..*self }
    }
}

impl fmt::Debug for SignedPrekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedPrekey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A prekey for one invitation. It is dropped when the handshake that used it succeeded or the invitation ended.
pub struct OneTimePrekey {
    secret: StaticSecret,
    public: AgreementKey,
    id: u32,
}

impl OneTimePrekey {
    /// A new prekey.
    ///
    /// # Panics
    /// When `id` is 0, which means "no prekey" on the wire.
    pub fn generate(rng: &mut impl CryptoRng, id: u32) -> Self {
        assert!(id != 0, "the ids of prekeys count from 1");
        let secret = agreement::generate(rng);
        Self { public: AgreementKey::of(&secret), secret, id }
    }

    /// Never 0.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    pub(crate) fn public(&self) -> &AgreementKey {
        &self.public
    }
}

impl fmt::Debug for OneTimePrekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneTimePrekey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// PROTOCOL 3: device id ‖ version ‖ suite ‖ id ‖ key ‖ made at.
pub(crate) fn signed_bytes(signer: DeviceId, id: u32, key: &AgreementKey, made_at: u64) -> Vec<u8> {
    [signer.as_bytes(), &[VERSION, SUITE][..], &id.to_be_bytes(), key.as_bytes(), &made_at.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn a_stored_prekey_comes_back() {
        let me = Identity::generate(&mut rng(1));
        let prekey = SignedPrekey::generate(&mut rng(2), &me, 7, 1_234);
        let again = SignedPrekey::from_bytes(&me, &*prekey.to_bytes()).unwrap();
        assert_eq!((again.id(), again.made_at_unix(), again.signature()), (7, 1_234, prekey.signature()));
        assert!(SignedPrekey::from_bytes(&me, &prekey.to_bytes()[1..]).is_err());
        let mut zero_id = *prekey.to_bytes();
        zero_id[32..36].fill(0);
        assert_eq!(SignedPrekey::from_bytes(&me, &zero_id).unwrap_err(), DecodeError::Field("signed prekey id"));
    }

    #[test]
    fn secrets_do_not_print() {
        let me = Identity::generate(&mut rng(1));
        assert_eq!(format!("{:?}", SignedPrekey::generate(&mut rng(2), &me, 7, 1)), "SignedPrekey { id: 7, .. }");
        assert_eq!(format!("{:?}", OneTimePrekey::generate(&mut rng(2), 7)), "OneTimePrekey { id: 7, .. }");
    }
}
