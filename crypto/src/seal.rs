//! Sealed records (PROTOCOL 14): keys and state at rest.

use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    VERSION,
    mac::MacKey,
    suite::{Cipher, TAG},
};

const LABEL: &str = "happy/1 seal";
const NONCE: usize = 24;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = 1 + NONCE + TAG;

/// A sealed record could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// Sealed by a newer version of this program.
    #[error("the record was sealed by another version ({0}) of this program")]
    UnsupportedVersion(u8),
    /// Another key, another kind, or damaged bytes: these cannot be told apart.
    #[error("the record is damaged, or was sealed with another key")]
    CannotBeOpened,
}

/// Seals a record. `kind` says what it is, and a record of one kind does not open as another.
///
/// # Panics
/// When `kind` is longer than 255 bytes.
#[must_use]
pub fn seal(rng: &mut impl CryptoRng, key: &[u8; 32], kind: &str, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(OVERHEAD + plaintext.len());
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    sealed.push(VERSION);
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plaintext);
    let tag = cipher(key, &nonce)
        .seal(&associated_data(kind), &mut sealed[1 + NONCE..])
        .expect("a record in memory is shorter than 256 GiB");
    sealed.extend_from_slice(&tag);
    sealed
}

/// Opens a record of this kind.
///
/// # Errors
/// When the version is another one, or when key, kind or bytes are.
pub fn open(key: &[u8; 32], kind: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
    let (&version, rest) = sealed.split_first().ok_or(UnsealError::CannotBeOpened)?;
    if version != VERSION {
        return Err(UnsealError::UnsupportedVersion(version));
    }
    let (nonce, rest) = rest.split_first_chunk().ok_or(UnsealError::CannotBeOpened)?;
    let (ciphertext, tag) = rest.split_last_chunk().ok_or(UnsealError::CannotBeOpened)?;
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    if !cipher(key, nonce).open(&associated_data(kind), &mut plaintext, tag) {
        return Err(UnsealError::CannotBeOpened);
    }
    Ok(plaintext)
}

fn cipher(key: &[u8; 32], nonce: &[u8; NONCE]) -> Cipher {
    Cipher::derive(&MacKey::new(key), &[LABEL.as_bytes(), nonce])
}

fn associated_data(kind: &str) -> Vec<u8> {
    let length = u8::try_from(kind.len()).expect("a kind is a short name in the source code");
    [LABEL.as_bytes(), &[length], kind.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn what_is_sealed_can_be_opened() {
        let sealed = seal(&mut rng(1), &[5; 32], "identity", b"secret");
        assert_eq!(sealed.len(), OVERHEAD + 6);
        assert_eq!(open(&[5; 32], "identity", &sealed).unwrap()[..], b"secret"[..]);
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn another_key_kind_or_bit_does_not_open() {
        let sealed = seal(&mut rng(1), &[5; 32], "identity", b"secret");
        assert_eq!(open(&[6; 32], "identity", &sealed), Err(UnsealError::CannotBeOpened));
        assert_eq!(open(&[5; 32], "prekey", &sealed), Err(UnsealError::CannotBeOpened));
        // Miri takes seconds for what the processor does in no time.
        let step = if cfg!(miri) { 61 } else { 1 };
        for bit in (0..sealed.len() * 8).step_by(step) {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&[5; 32], "identity", &damaged).is_err(), "bit {bit}");
        }
        for length in (0..sealed.len()).step_by(step) {
            assert!(open(&[5; 32], "identity", &sealed[..length]).is_err());
        }
    }

    #[test]
    fn a_newer_record_says_so() {
        assert_eq!(open(&[5; 32], "identity", &[2]), Err(UnsealError::UnsupportedVersion(2)));
    }
}
