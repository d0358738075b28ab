//! PROTOCOL 14.

use super::{
    VERSION,
    primitives::{cipher, seal},
};

/// A sealed record.
pub struct Sealed {
    /// Key and nonce of the cipher.
    pub cipher: ([u8; 32], [u8; 12]),
    /// What is authenticated beside it.
    pub associated_data: Vec<u8>,
    /// The record.
    pub bytes: Vec<u8>,
}

impl Sealed {
    /// Seals.
    #[must_use]
    pub fn new(key: &[u8; 32], nonce: &[u8; 24], kind: &str, plaintext: &[u8]) -> Self {
        let length = u8::try_from(kind.len()).expect("a kind is short");
        let associated_data = [b"happy/1 seal", &[length][..], kind.as_bytes()].concat();
        let cipher = cipher(key, &[b"happy/1 seal", nonce]);
        let sealed = seal(&cipher.0, &cipher.1, &associated_data, plaintext);
        Self { cipher, associated_data, bytes: [&[VERSION][..], nonce, &sealed].concat() }
    }
}
