//! The primitives of PROTOCOL 1.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
use ed25519_dalek::{Signer, SigningKey};
use hmac::Mac;
use sha2::{Digest, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

/// `H(parts)`.
#[must_use]
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

/// `HMAC(key, parts)`.
#[must_use]
pub fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mac = <hmac::Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("every length will do");
    mac.chain_update(parts.concat()).finalize().into_bytes().into()
}

/// `Extract(salt, ikm)`, RFC 5869 2.2.
#[must_use]
pub fn extract(salt: &[u8], ikm: &[&[u8]]) -> [u8; 32] {
    hmac(salt, ikm)
}

/// `Expand(prk, info, N)`, RFC 5869 2.3.
#[must_use]
pub fn expand<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> [u8; N] {
    let (mut okm, mut last, mut counter) = (Vec::new(), Vec::new(), 1_u8);
    while okm.len() < N {
        last = hmac(prk, &[&last, &info.concat(), &[counter]]).to_vec();
        okm.extend_from_slice(&last);
        counter += 1;
    }
    std::array::from_fn(|i| okm[i])
}

/// The `i`th 32 bytes.
pub(super) fn part(okm: &[u8], i: usize) -> [u8; 32] {
    std::array::from_fn(|at| okm[32 * i + at])
}

/// An X25519 key. A weak one is a public key without a secret, whose agreements are all zero: whoever plays it is hostile.
#[derive(Clone, Copy)]
pub struct Key {
    secret: Option<[u8; 32]>,
    /// What the others see.
    pub public: [u8; 32],
}

impl Key {
    /// The key of a secret.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret: Some(secret), public: x25519(secret, X25519_BASEPOINT_BYTES) }
    }

    /// A point of low order.
    #[must_use]
    pub fn weak(public: [u8; 32]) -> Self {
        Self { secret: None, public }
    }

    /// The secret as it was given.
    ///
    /// # Panics
    /// When the key is weak.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        self.secret.expect("a weak key has no secret")
    }

    /// `DH(self, public)`, without the refusals of the page.
    #[must_use]
    pub fn dh(&self, public: &[u8; 32]) -> [u8; 32] {
        self.secret.map_or([0; 32], |secret| x25519(secret, *public))
    }
}

/// `Sign` with the key of this seed.
pub(super) fn sign(seed: &[u8; 32], parts: &[&[u8]]) -> [u8; 64] {
    SigningKey::from_bytes(seed).sign(&parts.concat()).to_bytes()
}

/// The public key of this seed.
pub(super) fn signing_public(seed: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(seed).verifying_key().to_bytes()
}

/// `AEAD`, the tag appended.
pub(super) fn seal(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = plaintext.to_vec();
    ChaCha20Poly1305::new(key.into()).encrypt_in_place(nonce.into(), ad, &mut buffer).expect("it is short");
    buffer
}

/// What [`seal`] sealed.
pub(super) fn open(key: &[u8; 32], nonce: &[u8; 12], ad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = sealed.to_vec();
    ChaCha20Poly1305::new(key.into()).decrypt_in_place(nonce.into(), ad, &mut buffer).ok()?;
    Some(buffer)
}

/// Key and nonce out of 44 bytes.
pub(super) fn cipher(key: &[u8; 32], info: &[&[u8]]) -> ([u8; 32], [u8; 12]) {
    let okm = expand::<44>(key, info);
    (part(&okm, 0), std::array::from_fn(|i| okm[32 + i]))
}

/// ML-KEM-768, FIPS 203.
pub mod kem {
    use ml_kem::{DecapsulationKey, EncapsulationKey768, KeyExport, MlKem768, kem::Decapsulate};

    fn secret(seed: &[u8; 64]) -> DecapsulationKey<MlKem768> {
        DecapsulationKey::from_seed((*seed).into())
    }

    /// The encapsulation key of `d ‖ z`.
    #[must_use]
    pub fn public(seed: &[u8; 64]) -> [u8; 1_184] {
        secret(seed).encapsulation_key().to_bytes().into()
    }

    /// Ciphertext and shared secret of a message.
    ///
    /// # Panics
    /// When the key is not canonical.
    #[must_use]
    pub fn encapsulate(public: &[u8; 1_184], message: &[u8; 32]) -> ([u8; 1_088], [u8; 32]) {
        let key = EncapsulationKey768::new(&(*public).into()).expect("the key is canonical");
        let (ciphertext, shared) = key.encapsulate_deterministic(&(*message).into());
        (ciphertext.into(), shared.into())
    }

    /// The shared secret of a ciphertext.
    #[must_use]
    pub fn decapsulate(seed: &[u8; 64], ciphertext: &[u8; 1_088]) -> [u8; 32] {
        secret(seed).decapsulate(&(*ciphertext).into()).into()
    }
}
