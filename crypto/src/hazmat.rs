//! For tests only: watches which keys seal what. **Never enable the feature `hazmat` in a program that handles secrets.**
//!
//! A thread that [records](record) gets a note of every message and record that is sealed on it. The notes hold hashes, no keys and no
//! text, but they tell which plaintexts are equal and when which key was used, and making them leaves copies of secrets in the
//! working memory of the hash. Without the feature nothing of this is compiled, and no other part of the crate depends on it.
//!
//! What it is for: the claim that no key and nonce ever meet two plaintexts cannot be tested from outside, because both are derived
//! and dropped within one call.

use std::cell::RefCell;

use crate::{labelled_hash, mac::MacKey, suite::TAG};

/// One use of the cipher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The label of the derivation: `happy/1 header`, `happy/1 body` or `happy/1 seal`.
    pub label: String,
    /// Names the key that went into the derivation, such as a message key, before the salt.
    pub input_key: [u8; 32],
    /// Names the key and the nonce that came out of it.
    pub key_and_nonce: [u8; 32],
    /// Names the plaintext.
    pub plaintext: [u8; 32],
    /// The tag that was made, by which to find the message.
    pub tag: [u8; TAG],
}

/// Runs `body` and returns, with its result, what this thread sealed meanwhile. Recordings do not nest: the inner one takes all.
pub fn record<T>(body: impl FnOnce() -> T) -> (T, Vec<Seal>) {
    SEALS.set(Some(Vec::new()));
    let result = body();
    (result, SEALS.take().unwrap_or_default())
}

thread_local! {
    static SEALS: RefCell<Option<Vec<Seal>>> = const { RefCell::new(None) };
}

/// What a cipher was derived from, while somebody records.
pub(crate) struct Derivation {
    label: String,
    input_key: [u8; 32],
    key_and_nonce: [u8; 32],
}

impl Derivation {
    pub fn of(key: &MacKey, info: &[&[u8]], okm: &[u8; 44]) -> Option<Self> {
        SEALS.with_borrow(Option::is_some).then(|| Self {
            label: info.first().map(|label| String::from_utf8_lossy(label).into_owned()).unwrap_or_default(),
            // Under the key itself, so that the note is of use only to somebody who has it.
            input_key: key.code(&[b"happy hazmat input key"]),
            key_and_nonce: labelled_hash("happy hazmat key and nonce", &[okm]),
        })
    }

    pub fn sealed(&self, plaintext: [u8; 32], tag: [u8; TAG]) {
        let Self { label, input_key, key_and_nonce } = self;
        SEALS.with_borrow_mut(|seals| {
            let seal =
                Seal { label: label.clone(), input_key: *input_key, key_and_nonce: *key_and_nonce, plaintext, tag };
            seals.as_mut().map(|seals| seals.push(seal))
        });
    }
}

/// The name of a plaintext and what goes with it.
pub(crate) fn plaintext(associated_data: &[u8], plaintext: &[u8]) -> [u8; 32] {
    let length = (associated_data.len() as u64).to_be_bytes();
    labelled_hash("happy hazmat plaintext", &[&length, associated_data, plaintext])
}
