//! Vectors that others have published, through the code that this crate uses: RFCs in `vectors/rfc`, Project Wycheproof in
//! `vectors/wycheproof`. Where we are stricter than a vector, the test says so and counts how often.

mod rfc;
mod wycheproof;

use serde_json::Value;
use x25519_dalek::StaticSecret;

use crate::{
    agreement::{AgreementKey, agree},
    suite::{Cipher, TAG},
    testing::hex,
};

/// A field in hexadecimal digits, empty when it is not there.
fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex(case[field].as_str().unwrap_or_default())
}

/// A field of exactly so many bytes; `None` when it has another length, which is what our types refuse.
fn array<const N: usize>(case: &Value, field: &str) -> Option<[u8; N]> {
    bytes(case, field).try_into().ok()
}

/// X25519 as we do it: `None` when we refuse the public key or the result.
fn x25519(scalar: [u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    let key = AgreementKey::decode(public).ok()?;
    agree(&StaticSecret::from(scalar), &key).ok().map(|shared| shared.to_bytes())
}

/// Seals and opens as we do it.
fn aead_agrees(case: &Value, plaintext: &str, ciphertext: &str, cipher: &Cipher, tag: &[u8; TAG]) {
    let (aad, plaintext, ciphertext) = (bytes(case, "aad"), bytes(case, plaintext), bytes(case, ciphertext));
    let mut buffer = plaintext.clone();
    assert_eq!(cipher.seal(&aad, &mut buffer).unwrap(), *tag, "{case}");
    assert_eq!(buffer, ciphertext, "{case}");
    assert!(cipher.open(&aad, &mut buffer, tag), "{case}");
    assert_eq!(buffer, plaintext, "{case}");
}
