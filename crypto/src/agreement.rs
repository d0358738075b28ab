//! X25519 with the strictness of PROTOCOL 1: canonical keys only, and no agreement that gives zeros.

use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};

use crate::DecodeError;

/// A public key that is canonical. Whether it is of low order shows at the first agreement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct AgreementKey([u8; 32]);

impl AgreementKey {
    pub fn decode(bytes: &[u8; 32]) -> Result<Self, DecodeError> {
        // X25519 itself ignores the high bit and reduces, so one key would have several encodings and a signed or hashed
        // transcript could be changed without changing the agreement.
        if bytes[31] & 0x80 != 0 || !below_field_prime(bytes) {
            return Err(DecodeError::Key);
        }
        Ok(Self(*bytes))
    }

    pub fn of(secret: &StaticSecret) -> Self {
        Self(PublicKey::from(secret).to_bytes())
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The other key is of low order, so the result would be known to everybody.
#[derive(Debug)]
pub(crate) struct WeakKey;

impl From<WeakKey> for crate::HandshakeError {
    fn from(_: WeakKey) -> Self {
        Self::WeakKey
    }
}

/// `DH(mine, theirs)`; an all-zero result is refused.
pub(crate) fn agree(mine: &StaticSecret, theirs: &AgreementKey) -> Result<SharedSecret, WeakKey> {
    let shared = mine.diffie_hellman(&PublicKey::from(theirs.0));
    if shared.was_contributory() { Ok(shared) } else { Err(WeakKey) }
}

pub(crate) fn generate(rng: &mut impl CryptoRng) -> StaticSecret {
    StaticSecret::random_from_rng(rng)
}

/// Whether the low 255 bits, little-endian, are less than p = 2²⁵⁵ − 19.
pub(crate) fn below_field_prime(bytes: &[u8; 32]) -> bool {
    let all_ones = bytes[31] & 0x7F == 0x7F && bytes[1..31].iter().all(|byte| *byte == 0xFF);
    !(all_ones && bytes[0] >= 0xED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LOW_ORDER, hex32};

    #[test]
    fn agreement_agrees_with_rfc_7748_6_1() {
        let alice = StaticSecret::from(hex32("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
        let bob = hex32("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = agree(&alice, &AgreementKey::decode(&bob).unwrap()).unwrap();
        assert_eq!(shared.to_bytes(), hex32("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"));
    }

    #[test]
    fn every_low_order_point_is_refused() {
        let mine = StaticSecret::from([9; 32]);
        for point in LOW_ORDER {
            let refused = AgreementKey::decode(&point).map_or(true, |key| agree(&mine, &key).is_err());
            assert!(refused, "{point:02x?}");
        }
    }

    #[test]
    fn a_key_has_one_encoding() {
        let mut key = *AgreementKey::of(&StaticSecret::from([9; 32])).as_bytes();
        assert!(AgreementKey::decode(&key).is_ok());
        key[31] |= 0x80;
        assert!(AgreementKey::decode(&key).is_err());
    }

    #[test]
    fn the_largest_canonical_key_is_two_below_the_last_refused() {
        let mut key = [0xFF; 32];
        (key[0], key[31]) = (0xEC, 0x7F);
        assert!(AgreementKey::decode(&key).is_ok());
        key[0] = 0xED;
        assert!(AgreementKey::decode(&key).is_err());
        key[0] = 0xFF;
        assert!(AgreementKey::decode(&key).is_err());
    }
}
