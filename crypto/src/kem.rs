//! ML-KEM-768 (FIPS 203): the part of the handshake that a quantum computer does not break.
//!
//! Its keys live for one handshake. So there is nothing to store, nothing to rotate and nothing to be stolen later, which a
//! prekey of this kind would be for as long as it is kept.

use ml_kem::{B32, EncapsulationKey768, MlKem768, Seed, kem::Decapsulate};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    DecodeError,
    secret::{KemShared, Secret32},
};

/// Bytes of an encapsulation key (FIPS 203, table 3).
pub(crate) const KEY: usize = 1_184;
/// Bytes of a ciphertext.
pub(crate) const CIPHERTEXT: usize = 1_088;

/// A decapsulation key. It wipes itself.
pub(crate) struct KemSecret(ml_kem::DecapsulationKey<MlKem768>);

impl KemSecret {
    /// From 64 bytes of randomness: `d ‖ z`.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Seed::default();
        rng.fill_bytes(&mut seed);
        let key = ml_kem::DecapsulationKey::from_seed(seed);
        seed.zeroize();
        Self(key)
    }

    /// The key to send.
    pub fn public(&self) -> [u8; KEY] {
        ml_kem::KeyExport::to_bytes(self.0.encapsulation_key()).into()
    }

    /// The shared secret. FIPS 203 has no failure: a ciphertext that nobody made gives a secret that nobody knows.
    pub fn decapsulate(&self, ciphertext: &[u8; CIPHERTEXT]) -> KemShared {
        take(self.0.decapsulate(&(*ciphertext).into()))
    }
}

/// The expanded form (FIPS 203, 7.1), which we never store or read. Published vectors have it.
#[cfg(test)]
#[expect(deprecated, reason = "the replacement is the seed, which is what we use")]
impl KemSecret {
    pub fn from_expanded(bytes: &[u8; 2_400]) -> Option<Self> {
        ml_kem::DecapsulationKey::from_expanded(&(*bytes).into()).ok().map(Self)
    }

    pub fn to_expanded(&self) -> Vec<u8> {
        ml_kem::ExpandedKeyEncoding::to_expanded_bytes(&self.0).to_vec()
    }
}

/// An encapsulation key of somebody else, checked to be canonical (FIPS 203, 7.2).
pub(crate) struct KemKey(EncapsulationKey768);

impl KemKey {
    pub fn decode(bytes: &[u8; KEY]) -> Result<Self, DecodeError> {
        EncapsulationKey768::new(&(*bytes).into()).map(Self).map_err(|_| DecodeError::Field("KEM key"))
    }

    /// From 32 bytes of randomness: a ciphertext and the secret that it carries.
    pub fn encapsulate(&self, rng: &mut impl CryptoRng) -> ([u8; CIPHERTEXT], KemShared) {
        let mut randomness = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *randomness);
        let mut message = B32::from(*randomness);
        let (ciphertext, shared) = self.0.encapsulate_deterministic(&message);
        message.zeroize();
        (ciphertext.into(), take(shared))
    }
}

fn take(mut shared: B32) -> KemShared {
    KemShared::take(&mut shared.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn both_sides_get_the_same_secret() {
        let secret = KemSecret::generate(&mut rng(1));
        let key = KemKey::decode(&secret.public()).unwrap();
        let (ciphertext, shared) = key.encapsulate(&mut rng(2));
        assert_eq!(secret.decapsulate(&ciphertext).as_bytes(), shared.as_bytes());
        let (_, other) = key.encapsulate(&mut rng(3));
        assert_ne!(other.as_bytes(), shared.as_bytes());
    }

    #[test]
    fn a_damaged_ciphertext_gives_another_secret() {
        let secret = KemSecret::generate(&mut rng(1));
        let (mut ciphertext, shared) = KemKey::decode(&secret.public()).unwrap().encapsulate(&mut rng(2));
        ciphertext[500] ^= 1;
        assert_ne!(secret.decapsulate(&ciphertext).as_bytes(), shared.as_bytes());
    }

    #[test]
    fn a_key_that_is_not_canonical_is_refused() {
        let mut key = KemSecret::generate(&mut rng(1)).public();
        // The first coefficient becomes 4095, and q is 3329.
        (key[0], key[1]) = (0xFF, key[1] | 0x0F);
        assert_eq!(KemKey::decode(&key).err(), Some(DecodeError::Field("KEM key")));
    }
}
