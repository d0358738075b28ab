//! The handshake (PROTOCOL 5): X3DH, then a fresh ephemeral of the responder, then confirmation by both sides.
//!
//! X3DH alone lets its first message be replayed, which is no way to start programs. So a Hello only opens the conversation:
//! a session exists when the responder's own ephemeral is mixed in and each side has proved to the other that it knows the key.
//!
//! ```text
//!  initiator                                            responder
//!  Initiator::start      ── Hello, mac_1 ────────────►  Responder::answer     mac_1 proves DH1..DH4 and the invitation
//!  Initiator::welcome    ◄─ Welcome, mac_2 ───────────                        mac_2 proves both ephemerals
//!    = Established       ── Confirm, mac_3 ──────────►  Responder::confirm
//!                                                         = Established
//! ```
//!
//! A state that refuses a message is unchanged and waits for the right one.

mod established;
mod hello;
mod initiator;
mod key_schedule;
mod refused;
mod responder;
#[cfg(test)]
mod tests;

pub use established::Established;
pub use hello::{HelloView, Purpose, hello_hash};
pub use initiator::Initiator;
pub use refused::{Refused, RefusedError};
pub use responder::Responder;

use crate::HandshakeError;

/// Bytes of a Welcome.
pub const WELCOME_LEN: usize = 2 + 16 + 32 + 32 + 16 + 32;
/// Bytes of a Confirm.
pub const CONFIRM_LEN: usize = 16 + 32;
/// The largest Hello: its context is as long as it may be.
pub const MAX_HELLO_LEN: usize = 256 + MAX_CONTEXT;
/// The longest context of a Hello.
pub const MAX_CONTEXT: usize = 255;

/// A pairing is keyed by its invitation, a link never is: a Hello that claims one and is keyed as the other is refused
/// before anything is computed.
fn check_purpose(purpose: Purpose, psk: Option<&[u8; 32]>) -> Result<(), HandshakeError> {
    match (purpose, psk) {
        (Purpose::Pairing, Some(_)) | (Purpose::Link, None) => Ok(()),
        _ => Err(HandshakeError::WrongPurpose),
    }
}
