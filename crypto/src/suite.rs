//! Suite 1: SHA-256, HMAC, HKDF and ChaCha20-Poly1305, in the notation of PROTOCOL 1.

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::secret::{PseudoRandomKey, Secret32};

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
#[must_use]
pub fn labelled_key(secret: &[u8], label: &str) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    expand(&extract(&[], &[secret]), &[label.as_bytes()], &mut *key);
    key
}

/// `HMAC(key, parts)`.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = keyed(key);
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Two codes over one byte each under the same key, as the chain step needs them: the key is scheduled once.
pub(crate) fn hmac_pair(key: &[u8; 32], first: u8, second: u8) -> ([u8; 32], [u8; 32]) {
    let mac = keyed(key);
    let one = |byte| mac.clone().chain_update([byte]).finalize().into_bytes().into();
    (one(first), one(second))
}

/// `Extract(salt, ikm)`. An empty salt is the same as 32 zeros (RFC 5869).
pub(crate) fn extract(salt: &[u8], ikm: &[&[u8]]) -> PseudoRandomKey {
    let mut mac = keyed(salt);
    for part in ikm {
        mac.update(part);
    }
    PseudoRandomKey::take(&mut mac.finalize().into_bytes().into())
}

/// `Expand(prk, info, output.len())`; the output has at most 255 blocks of 32 bytes.
pub(crate) fn expand(prk: &PseudoRandomKey, info: &[&[u8]], output: &mut [u8]) {
    expand_from(prk.as_bytes(), info, output);
}

/// [`expand`] from a key that is uniformly random already.
pub(crate) fn expand_from(key: &[u8; 32], info: &[&[u8]], output: &mut [u8]) {
    let hkdf = hkdf::Hkdf::<Sha256>::from_prk(key).expect("32 bytes are a whole hash");
    hkdf.expand_multi_info(info, output).expect("no output in this protocol is longer than 192 bytes");
}

/// A cipher with its nonce, for one message.
pub(crate) struct Cipher {
    cipher: ChaCha20Poly1305,
    nonce: Nonce,
}

impl Cipher {
    /// `key, nonce = Expand(key, info, 44)`.
    pub fn derive(key: &[u8; 32], info: &[&[u8]]) -> Self {
        let mut okm = [0; 44];
        expand_from(key, info, &mut okm);
        let (key, nonce) = okm.split_at(32);
        // The conversions cannot fail: 44 = 32 + 12.
        let cipher = ChaCha20Poly1305::new(&Key::try_from(key).expect("32 bytes"));
        let nonce = Nonce::try_from(nonce).expect("12 bytes");
        okm.zeroize();
        Self { cipher, nonce }
    }

    /// Encrypts in place. `None` when the cipher cannot take so many bytes (256 GiB).
    pub fn seal(&self, associated_data: &[u8], buffer: &mut [u8]) -> Option<[u8; TAG]> {
        self.cipher.encrypt_inout_detached(&self.nonce, associated_data, buffer.into()).ok().map(Into::into)
    }

    /// Decrypts in place if the tag holds; otherwise the buffer keeps the ciphertext.
    #[must_use]
    pub fn open(&self, associated_data: &[u8], buffer: &mut [u8], tag: &[u8; TAG]) -> bool {
        let tag = Tag::from(*tag);
        self.cipher.decrypt_inout_detached(&self.nonce, associated_data, buffer.into(), &tag).is_ok()
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of every length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn hkdf_agrees_with_rfc_5869_case_1() {
        let prk = extract(&hex("000102030405060708090a0b0c"), &[&[0x0b; 22]]);
        assert_eq!(prk.as_bytes()[..], hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"));
        let mut okm = [0; 42];
        expand(&prk, &[&hex("f0f1f2f3f4"), &hex("f5f6f7f8f9")], &mut okm);
        assert_eq!(
            okm[..],
            hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
        );
    }

    #[test]
    fn an_empty_salt_is_a_salt_of_zeros() {
        assert_eq!(extract(&[], &[b"x"]).as_bytes(), extract(&[0; 32], &[b"x"]).as_bytes());
    }

    #[test]
    fn chacha20poly1305_agrees_with_rfc_8439_2_8_2() {
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let cipher = Cipher {
            cipher: ChaCha20Poly1305::new(&Key::from(key)),
            nonce: Nonce::try_from(&hex("070000004041424344454647")[..]).unwrap(),
        };
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".to_vec();
        let tag = cipher.seal(&hex("50515253c0c1c2c3c4c5c6c7"), &mut text).unwrap();
        assert_eq!(tag[..], hex("1ae10b594f09e26a7e902ecbd0600691"));
        assert_eq!(text[..4], hex("d31a8d34"));
    }

    #[test]
    fn both_codes_of_a_pair_are_the_single_ones() {
        let key = [7; 32];
        assert_eq!(hmac_pair(&key, 1, 2), (hmac(&key, &[&[1]]), hmac(&key, &[&[2]])));
    }
}
