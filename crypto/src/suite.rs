//! The symmetric part of the suite: SHA-256, HMAC, HKDF and ChaCha20-Poly1305, in the notation of PROTOCOL 1.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    mac::MacKey,
    secret::{PseudoRandomKey, Secret32},
    wipe::Wiped,
};

/// Bytes that the cipher adds.
pub(crate) const TAG: usize = 16;

/// `H(label ‖ parts)`: SHA-256 under a label, so that no hash of one purpose is a hash of another.
///
/// The caller sees to it that the parts have fixed lengths or length prefixes.
#[must_use]
pub fn labelled_hash(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// `Expand(Extract(salt = "", ikm = secret), label, 32)`: a key of one purpose from a secret of at least 16 random bytes.
///
/// # Panics
/// When the label, a constant, is longer than 86 bytes.
#[must_use]
pub fn labelled_key(secret: &[u8], label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    expand(&extract(&[], &[secret]), &[label.as_bytes()], &mut *key);
    key
}

/// `HMAC(key, parts)`.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    MacKey::new(key).code(parts)
}

/// `Extract(salt, ikm)`. An empty salt is the same as 32 zeros (RFC 5869).
pub(crate) fn extract(salt: &[u8], ikm: &[&[u8]]) -> PseudoRandomKey {
    PseudoRandomKey::take(&mut MacKey::new(salt).code(ikm))
}

/// `Expand(prk, info, output.len())`; the output has at most 255 blocks of 32 bytes.
pub(crate) fn expand(prk: &PseudoRandomKey, info: &[&[u8]], output: &mut [u8]) {
    expand_from(prk.as_bytes(), info, output);
}

/// [`expand`] from a key that is uniformly random already.
pub(crate) fn expand_from(key: &[u8; 32], info: &[&[u8]], output: &mut [u8]) {
    MacKey::new(key).expand(info, output);
}

/// A cipher with its nonce, for one message.
pub(crate) struct Cipher {
    cipher: ChaCha20Poly1305,
    nonce: Nonce,
    /// `None` while nobody records.
    #[cfg(feature = "hazmat")]
    derivation: Option<crate::hazmat::Derivation>,
}

impl Cipher {
    /// `key, nonce = Expand(key, info, 44)`.
    pub fn derive(key: &MacKey, info: &[&[u8]]) -> Self {
        let mut okm = Wiped([0; 44]);
        key.expand(info, &mut okm.0);
        #[cfg(feature = "hazmat")]
        let derivation = crate::hazmat::Derivation::of(key, info, &okm.0);
        let (key, nonce) = okm.0.split_at(32);
        // The conversions cannot fail: 44 = 32 + 12.
        let cipher = Self::new(key.try_into().expect("32 bytes"), nonce.try_into().expect("12 bytes"));
        #[cfg(feature = "hazmat")]
        let cipher = Self { derivation, ..cipher };
        cipher
    }

    /// For this key and nonce, which must never come together again.
    pub(crate) fn new(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(<&Key>::from(key)),
            nonce: Nonce::from(*nonce),
            #[cfg(feature = "hazmat")]
            derivation: None,
        }
    }

    /// Encrypts in place. `None` when the cipher cannot take so many bytes (256 GiB).
    pub fn seal(&self, associated_data: &[u8], buffer: &mut [u8]) -> Option<[u8; TAG]> {
        #[cfg(feature = "hazmat")]
        let recorded = self.derivation.as_ref().map(|of| (of, crate::hazmat::plaintext(associated_data, buffer)));
        let tag = self.cipher.encrypt_inout_detached(&self.nonce, associated_data, buffer.into()).ok()?.into();
        #[cfg(feature = "hazmat")]
        if let Some((derivation, plaintext)) = recorded {
            derivation.sealed(plaintext, tag);
        }
        Some(tag)
    }

    /// Decrypts in place if the tag holds; otherwise the buffer keeps the ciphertext.
    #[must_use]
    pub fn open(&self, associated_data: &[u8], buffer: &mut [u8], tag: &[u8; TAG]) -> bool {
        let tag = Tag::from(*tag);
        self.cipher.decrypt_inout_detached(&self.nonce, associated_data, buffer.into(), &tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_salt_is_a_salt_of_zeros() {
        assert_eq!(extract(&[], &[b"x"]).as_bytes(), extract(&[0; 32], &[b"x"]).as_bytes());
    }

    /// RFC 5869 as a library has it, with an empty salt.
    #[test]
    fn a_labelled_key_is_an_extraction_and_an_expansion_under_the_label() {
        let mut theirs = [0; 32];
        hkdf::Hkdf::<Sha256>::new(None, b"secret of 16 bytes").expand(b"label", &mut theirs).unwrap();
        assert_eq!(*labelled_key(b"secret of 16 bytes", "label"), theirs);
    }
}
