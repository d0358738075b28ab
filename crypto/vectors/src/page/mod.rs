//! The protocol as `docs/PROTOCOL.md` has it, from the primitives up. Nothing of [`happy_crypto`] is used here.
//!
//! [`happy_crypto`]: ../../happy_crypto/index.html

pub mod call;
mod device;
mod durable;
mod fields;
pub mod frame;
mod handshake;
mod invitation;
mod membership;
pub mod message;
pub mod packet;
mod padding;
mod primitives;
mod ratchet;
pub mod relay;
mod seal;
pub mod terminal;

pub use device::{Device, OneTime, Prekey, SignedPrekey, base64url, bundle, bundle_hash, refused, safety_number};
pub use durable::Durable;
pub use handshake::{HelloFields, HelloKeys, SessionKeys, hello_without_mac, secret_name, welcome_without_mac};
pub use invitation::Invitation;
pub use membership::{Change, Log, Member, Statement};
pub use padding::padded;
pub use primitives::{Key, expand, extract, hash, hmac, kem};
pub use ratchet::{Opened, Ratchet, Sent, Turn};
pub use seal::Sealed;

/// PROTOCOL 1.
pub const VERSION: u8 = 1;
/// PROTOCOL 1.
pub const SUITE: u8 = 2;
