//! What two devices share before a handshake, and what it leaves for the next one.

use std::fmt;

use zeroize::Zeroizing;

use crate::{
    DecodeError, labelled_hash,
    reader::Reader,
    secret::{PairKey, Secret32},
};

use super::Purpose;

/// What the two devices share already. It goes into every key, and it decides what the handshake is for: a pairing cannot be
/// keyed as a link, nor a link as a pairing.
#[derive(Debug, Clone, Copy)]
pub enum Shared<'a> {
    /// They meet for the first time: the key of the invitation (PROTOCOL 4, `psk`).
    Invitation(&'a InvitationKey),
    /// They connect again: what their last handshake left.
    Pair(&'a PairSecret),
}

impl Shared<'_> {
    pub(super) fn purpose(self) -> Purpose {
        match self {
            Self::Invitation(_) => Purpose::Pairing,
            Self::Pair(_) => Purpose::Link,
        }
    }

    /// How many handshakes there were before.
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Invitation(_) => 0,
            Self::Pair(secret) => secret.number,
        }
    }

    /// The name that Hello carries.
    pub(super) fn name(self) -> [u8; 8] {
        match self {
            Self::Invitation(_) => [0; 8],
            Self::Pair(secret) => secret.name(),
        }
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        match self {
            Self::Invitation(key) => &key.0,
            Self::Pair(secret) => secret.key.as_bytes(),
        }
    }
}

/// The key of an invitation: known to whoever made it and to whoever saw it.
pub struct InvitationKey(Zeroizing<[u8; 32]>);

impl InvitationKey {
    /// Takes the key over.
    #[must_use]
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self(key)
    }
}

impl fmt::Debug for InvitationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationKey(..)")
    }
}

/// What two paired devices share between two handshakes (PROTOCOL 5): each handshake mixes it in and leaves the next one.
///
/// So who once copied the storage of a device has something of worth until its next handshake only, even if nobody notices, and
/// a stolen identity alone opens no session.
#[derive(Clone)]
pub struct PairSecret {
    number: u64,
    key: PairKey,
}

impl PairSecret {
    /// Bytes of [`PairSecret::to_bytes`].
    pub const STORED_LEN: usize = 40;

    pub(super) fn new(number: u64, key: PairKey) -> Self {
        Self { number, key }
    }

    /// How many handshakes there were between the two; the pairing is the first. Never 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// What Hello calls it: the first bytes of `H("happy/1 pair secret name" ‖ key)`, which say nothing to anybody else.
    #[must_use]
    pub fn name(&self) -> [u8; 8] {
        let hash = labelled_hash("happy/1 pair secret name", &[self.key.as_bytes()]);
        std::array::from_fn(|i| hash[i])
    }

    /// Number and key, to be sealed (PROTOCOL 14) before they are stored.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::STORED_LEN]> {
        let mut bytes = Zeroizing::new([0; Self::STORED_LEN]);
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..].copy_from_slice(self.key.as_bytes());
        bytes
    }

    /// The secret that [`PairSecret::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are not such a secret.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let number = reader.u64()?;
        let mut key = *reader.array()?;
        reader.finish()?;
        if number == 0 {
            return Err(DecodeError::Field("pair secret number"));
        }
        Ok(Self { number, key: PairKey::take(&mut key) })
    }
}

impl fmt::Debug for PairSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairSecret").field("number", &self.number).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_secret_comes_back() {
        let secret = PairSecret::new(7, PairKey::take(&mut [9; 32]));
        let again = PairSecret::from_bytes(&*secret.to_bytes()).unwrap();
        assert_eq!((again.number(), again.key.as_bytes()), (7, &[9; 32]));
        assert_eq!(PairSecret::from_bytes(&secret.to_bytes()[1..]).unwrap_err(), DecodeError::Truncated);
        assert_eq!(PairSecret::from_bytes(&[0; 40]).unwrap_err(), DecodeError::Field("pair secret number"));
        assert_eq!(PairSecret::from_bytes(&[1; 41]).unwrap_err(), DecodeError::TrailingBytes);
    }

    #[test]
    fn secrets_do_not_print() {
        let (secret, key) = (PairSecret::new(7, PairKey::take(&mut [9; 32])), InvitationKey::new([9; 32].into()));
        assert_eq!(format!("{:?}", Shared::Pair(&secret)), "Pair(PairSecret { number: 7, .. })");
        assert_eq!(format!("{:?}", Shared::Invitation(&key)), "Invitation(InvitationKey(..))");
    }
}
