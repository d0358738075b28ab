//! A ratchet message as bytes: version, salt, sealed header, sealed body.

use crate::{
    EncryptError, OpenError, VERSION,
    mac::MacKey,
    secret::{HeaderKey, MessageKey},
    suite::{Cipher, TAG},
};

pub(super) const SALT: usize = 16;
/// Ratchet key, PN, N.
const HEADER: usize = 32 + 4 + 4;
const SEALED_HEADER: usize = HEADER + TAG;
/// Where the sealed header and the sealed body begin.
const SEALED_HEADER_AT: usize = 1 + SALT;
pub(super) const BODY: usize = SEALED_HEADER_AT + SEALED_HEADER;
const SESSION_ID: usize = 16;

/// What only the other side may see of a message besides its body.
pub(super) struct Header {
    pub ratchet_key: [u8; 32],
    /// PN: how many messages the sender's previous chain had.
    pub previous_length: u32,
    /// N: the number of this message in its chain.
    pub number: u32,
}

impl Header {
    fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..32].copy_from_slice(&self.ratchet_key);
        bytes[32..36].copy_from_slice(&self.previous_length.to_be_bytes());
        bytes[36..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER]) -> Self {
        let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { ratchet_key: std::array::from_fn(|i| bytes[i]), previous_length: number(32), number: number(36) }
    }
}

/// Appends a message to `out`; on failure `out` is as it was.
pub(super) fn seal(
    session_id: &[u8; SESSION_ID],
    salt: &[u8; SALT],
    header_key: &HeaderKey,
    header: &Header,
    message_key: &MessageKey,
    plaintext: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncryptError> {
    let associated = Associated::new(session_id, salt);
    let mut sealed_header = [0; SEALED_HEADER];
    let (text, tag) = sealed_header.split_at_mut(HEADER);
    text.copy_from_slice(&header.encode());
    tag.copy_from_slice(
        &header_cipher(header_key, salt).seal(associated.of_header(), text).ok_or(EncryptError::TooLong)?,
    );

    out.reserve(BODY + plaintext.len() + TAG);
    let start = out.len();
    out.push(VERSION);
    out.extend_from_slice(salt);
    out.extend_from_slice(&sealed_header);
    out.extend_from_slice(plaintext);
    let body = &mut out[start + BODY..];
    let Some(tag) = body_cipher(message_key, salt).seal(&associated.of_body(&sealed_header), body) else {
        zeroize::Zeroize::zeroize(body);
        out.truncate(start);
        return Err(EncryptError::TooLong);
    };
    out.extend_from_slice(&tag);
    Ok(())
}

/// A message that was cut into its parts and not opened.
pub(super) struct Sealed<'a> {
    associated: Associated,
    salt: &'a [u8; SALT],
    header: &'a [u8; SEALED_HEADER],
    body: &'a [u8],
    tag: &'a [u8; TAG],
}

impl<'a> Sealed<'a> {
    pub fn parse(session_id: &[u8; SESSION_ID], message: &'a [u8]) -> Option<Self> {
        let (&version, rest) = message.split_first()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (header, rest) = rest.split_first_chunk()?;
        let (body, tag) = rest.split_last_chunk()?;
        (version == VERSION).then(|| Self { associated: Associated::new(session_id, salt), salt, header, body, tag })
    }

    /// The header, if this is its key. Costs one derivation and 40 bytes of cipher, and nothing on the heap.
    pub fn open_header(&self, key: &HeaderKey) -> Option<Header> {
        let (text, tag) = self.header.split_last_chunk()?;
        let mut text: [u8; HEADER] = *text.first_chunk()?;
        let opened = header_cipher(key, self.salt).open(self.associated.of_header(), &mut text, tag);
        opened.then(|| Header::decode(&text))
    }

    /// Appends the body to `out`, if this is its key; otherwise `out` is as it was.
    #[must_use]
    pub fn open_body(&self, key: &MessageKey, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.extend_from_slice(self.body);
        let cipher = body_cipher(key, self.salt);
        let opened = cipher.open(&self.associated.of_body(self.header), &mut out[start..], self.tag);
        if !opened {
            out.truncate(start);
        }
        opened
    }
}

/// `session id ‖ version ‖ salt`, and the sealed header after it where the body is concerned.
struct Associated([u8; SESSION_ID + SEALED_HEADER_AT]);

impl Associated {
    fn new(session_id: &[u8; SESSION_ID], salt: &[u8; SALT]) -> Self {
        let mut bytes = [0; SESSION_ID + SEALED_HEADER_AT];
        bytes[..SESSION_ID].copy_from_slice(session_id);
        bytes[SESSION_ID] = VERSION;
        bytes[SESSION_ID + 1..].copy_from_slice(salt);
        Self(bytes)
    }

    fn of_header(&self) -> &[u8] {
        &self.0
    }

    fn of_body(&self, sealed_header: &[u8; SEALED_HEADER]) -> [u8; SESSION_ID + BODY] {
        let mut bytes = [0; SESSION_ID + BODY];
        let (prefix, header) = bytes.split_at_mut(self.0.len());
        prefix.copy_from_slice(&self.0);
        header.copy_from_slice(sealed_header);
        bytes
    }
}

// The salt makes two messages from one cloned state differ in key and nonce.

fn header_cipher(key: &HeaderKey, salt: &[u8; SALT]) -> Cipher {
    Cipher::derive(key.scheduled(), &[b"happy/1 header", salt])
}

fn body_cipher(key: &MessageKey, salt: &[u8; SALT]) -> Cipher {
    Cipher::derive(&MacKey::new(key.as_bytes()), &[b"happy/1 body", salt])
}

impl super::chain::MissingKeys {
    /// Opens a message that came late, and only then gives its key away.
    pub fn open(&mut self, sealed: &Sealed<'_>, number: u32, out: &mut Vec<u8>) -> Result<(), OpenError> {
        let (index, key) = self.find(number).ok_or(OpenError::Repeated)?;
        if !sealed.open_body(key, out) {
            return Err(OpenError::CannotBeOpened);
        }
        self.remove(index);
        Ok(())
    }
}
