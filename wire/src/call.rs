//! The envelope of calls, on channel 0 of a link and on the daemon's local socket (`PROTOCOL 10`).

use crate::reader::{Reader, WireError};

/// The most calls that one caller may have outstanding.
pub const MAX_OUTSTANDING: usize = 1024;

/// A message on channel 0. Bodies are JSON, except in a cancel, which has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallMessage<'a> {
    /// Please do this.
    Request {
        /// Chosen by the caller, counted from 1 in its life.
        id: u64,
        /// Method and parameters.
        body: &'a [u8],
    },
    /// It is done, or refused.
    Response {
        /// The id of the request.
        id: u64,
        /// Result or error.
        body: &'a [u8],
    },
    /// Something happened.
    Event(&'a [u8]),
    /// The caller no longer waits.
    Cancel {
        /// The id of the request.
        id: u64,
    },
}

impl<'a> CallMessage<'a> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, id, body): (u8, u64, &[u8]) = match self {
            CallMessage::Request { id, body } => (1, *id, body),
            CallMessage::Response { id, body } => (2, *id, body),
            CallMessage::Event(body) => (3, 0, body),
            CallMessage::Cancel { id } => (4, *id, &[]),
        };
        out.push(kind);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(body);
    }

    /// The message as bytes of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for a cut message, an unknown kind, or an id that its kind cannot have.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let (kind, id, body) = (r.u8()?, r.u64()?, r.rest());
        match (kind, id) {
            (1, 1..) => Ok(CallMessage::Request { id, body }),
            (2, 1..) => Ok(CallMessage::Response { id, body }),
            (3, 0) => Ok(CallMessage::Event(body)),
            (4, 1..) if body.is_empty() => Ok(CallMessage::Cancel { id }),
            (4, 1..) => Err(WireError::Trailing),
            (1..=4, _) => Err(WireError::Field("id of a call")),
            (other, _) => Err(WireError::UnknownType(other)),
        }
    }
}
