//! PROTOCOL 8: packets.

/// What a packet is.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Type {
    /// Hello.
    Hello = 0x01,
    /// Welcome.
    Welcome = 0x02,
    /// Confirm.
    Confirm = 0x03,
    /// Refused.
    Refused = 0x04,
    /// Sealed; see [`sealed`].
    Sealed = 0x05,
    /// UnknownSession: its body is the session id.
    UnknownSession = 0x06,
    /// BundleRequest: without a body.
    BundleRequest = 0x10,
    /// Bundle.
    Bundle = 0x11,
    /// InvitationGone: its body is the reason.
    InvitationGone = 0x12,
}

/// A packet.
#[must_use]
pub fn packet(kind: Type, body: &[u8]) -> Vec<u8> {
    [&[kind as u8][..], body].concat()
}

/// Sealed.
#[must_use]
pub fn sealed(session: &[u8; 16], message: &[u8]) -> Vec<u8> {
    packet(Type::Sealed, &[&session[..], message].concat())
}
