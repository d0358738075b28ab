//! The handshake (PROTOCOL 5): X3DH, then a fresh ephemeral of the responder, then confirmation by both sides.
//!
//! X3DH alone lets its first message be replayed, which is no way to start programs. So a Hello only opens the conversation:
//! a session exists when the responder's own ephemeral is mixed in and each side has proved to the other that it knows the key.
//! Beside the agreements stands ML-KEM-768 with a key that the initiator makes for this one handshake, and beside both what the
//! two devices [share](Shared) already: who records everything and breaks X25519 one day has nothing yet.
//!
//! ```text
//!  initiator                                            responder
//!  Initiator::start      ── Hello, mac_1 ────────────►  Responder::answer     mac_1 proves DH1..DH4 and what they share
//!  Initiator::welcome    ◄─ Welcome, mac_2 ───────────                        mac_2 proves both ephemerals and the KEM
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
mod shared;
#[cfg(test)]
mod tests;

pub use established::Established;
pub use hello::{HelloView, Purpose, hello_hash};
pub use initiator::Initiator;
pub use refused::{Refused, RefusedError};
pub use responder::Responder;
pub use shared::{InvitationKey, PairSecret, Shared};

use crate::kem;

/// Bytes of a Welcome.
pub const WELCOME_LEN: usize = 2 + 16 + 32 + kem::CIPHERTEXT + 32 + 16 + 1 + 32;
/// Bytes of a Confirm.
pub const CONFIRM_LEN: usize = 16 + 32;
/// The largest Hello: its context is as long as it may be.
pub const MAX_HELLO_LEN: usize = HELLO_LEN + MAX_CONTEXT;
/// Bytes of a Hello without its context.
const HELLO_LEN: usize = 3 + 129 + 32 + 32 + kem::KEY + 4 + 4 + 8 + 16 + 2 + 32;
/// The longest context of a Hello.
pub const MAX_CONTEXT: usize = 255;
