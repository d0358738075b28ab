//! What one device sends another through the relay (`PROTOCOL 8`).

use crate::reader::{Reader, WireError};

/// The length of a session id, bytes.
pub const SESSION_ID: usize = 16;
/// What stands before the ratchet message in a Sealed packet, bytes.
pub const SEALED_PREFIX: usize = 1 + SESSION_ID;

/// Why an invitation can no longer be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gone {
    /// Another device has used it.
    Used,
    /// Its time is over.
    Expired,
    /// The machine took it back.
    Cancelled,
}

/// A packet. The handshake bodies are opaque here; `happy-crypto` reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The first handshake message.
    Hello(&'a [u8]),
    /// The second.
    Welcome(&'a [u8]),
    /// The third.
    Confirm(&'a [u8]),
    /// A signed refusal.
    Refused(&'a [u8]),
    /// A ratchet message of a session.
    Sealed {
        /// Which session.
        session: [u8; SESSION_ID],
        /// The ratchet message.
        message: &'a [u8],
    },
    /// "I do not know that session": a hint, not authenticated.
    UnknownSession([u8; SESSION_ID]),
    /// A guest asks for the bundle.
    BundleRequest,
    /// The bundle, to be checked against the hash in the invitation.
    Bundle(&'a [u8]),
    /// The invitation can no longer be used: a hint, not authenticated.
    InvitationGone(Gone),
}

impl<'a> Packet<'a> {
    /// Appends the packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body): (u8, &[u8]) = match self {
            Packet::Hello(body) => (0x01, body),
            Packet::Welcome(body) => (0x02, body),
            Packet::Confirm(body) => (0x03, body),
            Packet::Refused(body) => (0x04, body),
            Packet::Sealed { session, message } => {
                put_sealed_prefix(out, session);
                return out.extend_from_slice(message);
            }
            Packet::UnknownSession(session) => (0x06, session),
            Packet::BundleRequest => (0x10, &[]),
            Packet::Bundle(body) => (0x11, body),
            Packet::InvitationGone(Gone::Used) => (0x12, &[1]),
            Packet::InvitationGone(Gone::Expired) => (0x12, &[2]),
            Packet::InvitationGone(Gone::Cancelled) => (0x12, &[3]),
        };
        out.push(kind);
        out.extend_from_slice(body);
    }

    /// The packet as bytes of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`WireError`] for an empty, cut or unknown packet.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let packet = match r.u8()? {
            0x01 => Packet::Hello(r.rest()),
            0x02 => Packet::Welcome(r.rest()),
            0x03 => Packet::Confirm(r.rest()),
            0x04 => Packet::Refused(r.rest()),
            0x05 => Packet::Sealed { session: r.array()?, message: r.rest() },
            0x06 => Packet::UnknownSession(r.array()?),
            0x10 => Packet::BundleRequest,
            0x11 => Packet::Bundle(r.rest()),
            0x12 => Packet::InvitationGone(match r.u8()? {
                1 => Gone::Used,
                2 => Gone::Expired,
                3 => Gone::Cancelled,
                _ => return Err(WireError::Field("reason")),
            }),
            other => return Err(WireError::UnknownType(other)),
        };
        r.end()?;
        Ok(packet)
    }
}

/// Appends what stands before the ratchet message in a Sealed packet, so that a sender can encrypt behind it in place.
pub fn put_sealed_prefix(out: &mut Vec<u8>, session: &[u8; SESSION_ID]) {
    out.push(0x05);
    out.extend_from_slice(session);
}
