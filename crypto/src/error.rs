//! What can go wrong, one enum per operation.

use thiserror::Error;

/// A public structure could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the structure needs.
    #[error("the bytes end too early")]
    Truncated,
    /// More bytes than the structure has (PROTOCOL 1).
    #[error("there are bytes after the end")]
    TrailingBytes,
    /// Made by another version of the protocol.
    #[error("protocol version {0} is not understood; update the older side")]
    UnsupportedVersion(u8),
    /// Made for another set of algorithms.
    #[error("suite {0} is not understood; update the older side")]
    UnsupportedSuite(u8),
    /// A public key that is not canonical.
    #[error("a public key is not valid")]
    Key,
    /// A signature that does not hold.
    #[error("a signature does not hold")]
    Signature,
    /// A field has a value that the protocol does not allow.
    #[error("the field `{0}` has a value that is not allowed")]
    Field(&'static str),
}

/// A signature does not hold, or its key is not one that may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the signature does not hold")]
pub struct SignatureError;

impl From<SignatureError> for DecodeError {
    fn from(_: SignatureError) -> Self {
        Self::Signature
    }
}

/// A text is not a device id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a device id is 43 characters of base64url")]
pub struct ParseDeviceIdError;

/// A handshake message was refused, or could not be made. The state that refused it is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message is not one.
    #[error("not a handshake message: {0}")]
    Malformed(#[from] DecodeError),
    /// The Hello names another responder, or the Welcome or Confirm belongs to another handshake.
    #[error("the message belongs to another handshake")]
    NotMine,
    /// The Hello comes from this very device: somebody sends our own messages back.
    #[error("a device cannot shake hands with itself")]
    Reflected,
    /// The Hello was made for a prekey that is not the one given.
    #[error("the prekey is unknown")]
    UnknownPrekey,
    /// The Hello is for a pairing and the secret given is that of a link, or the other way round.
    #[error("the message is for another purpose")]
    WrongPurpose,
    /// The Hello was made with a pair secret that is not the one given.
    #[error("the pair secret is another one")]
    UnknownSecret,
    /// The context is longer than 255 bytes.
    #[error("the context is longer than 255 bytes")]
    ContextTooLong,
    /// A key agreement gave all zeros: the other side's key is of low order.
    #[error("a public key is too weak to be used")]
    WeakKey,
    /// The authentication code does not hold.
    #[error("the message is not authentic")]
    NotAuthentic,
}

/// A message could not be encrypted; nothing was changed or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncryptError {
    /// The responder has not received a first message yet (PROTOCOL 6).
    #[error("the first message must come from the other side")]
    NotYet,
    /// 2³²−1 messages were sent without a reply.
    #[error("too many messages without a reply: make a new handshake")]
    Exhausted,
    /// The plaintext is longer than the cipher can take.
    #[error("the message is too long to be encrypted")]
    TooLong,
}

/// A message did not open; nothing was changed or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It was opened before (or is so old that its key was dropped): its key is gone.
    #[error("the message is a repetition")]
    Repeated,
    /// Everything else. There is deliberately one reason only.
    #[error("the message cannot be opened")]
    CannotBeOpened,
}
