//! The cryptography of Happy Remote: who a device is, how two of them agree on a key, and how they talk.
//!
//! A library on its own. It knows no sockets, no storage and no clock: bytes and randomness go in, bytes come out. The bytes
//! are those of `docs/PROTOCOL.md`, sections 1 to 6 and 14, and each module names the section that it fulfils.
//!
//! | module | what it is |
//! |---|---|
//! | [`Identity`], [`IdentityRecord`], [`DeviceId`] | a device is an Ed25519 key that certifies an X25519 key |
//! | [`SignedPrekey`], [`OneTimePrekey`], [`Bundle`] | what a device publishes so that others can reach it |
//! | [`handshake`] | X3DH with a fresh ephemeral of the responder and confirmation by both sides |
//! | [`Ratchet`] | the double ratchet with header encryption |
//! | [`safety_number()`] | sixty digits that two people compare |
//! | [`seal`] | records at rest |
//! | [`durable`] | a ratchet at rest, for who needs one: the product does not |
//!
//! ```
//! use happy_crypto::{Bundle, Identity, SignedPrekey, handshake::{Initiator, InvitationKey, Responder, Shared}};
//! # use rand_core::SeedableRng;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let rng = &mut rand_chacha::ChaCha20Rng::seed_from_u64(1);
//! let (phone, machine) = (Identity::generate(rng), Identity::generate(rng));
//! let prekey = SignedPrekey::generate(rng, &machine, 1, 1_700_000_000);
//! let bundle = Bundle::new(&machine, &prekey, None);
//! let key = InvitationKey::new([7; 32].into()); // out of the QR code
//!
//! let (initiator, hello) = Initiator::start(rng, &phone, &bundle, Shared::Invitation(&key), [1; 16], b"")?;
//! let (responder, welcome) = Responder::answer(rng, &machine, &prekey, None, &hello, ([2; 16], 0), Shared::Invitation(&key))?;
//! let (mut at_phone, confirm) = initiator.welcome(rng, &welcome)?;
//! let mut at_machine = responder.confirm(&confirm)?;
//!
//! let (mut message, mut opened) = (Vec::new(), Vec::new());
//! at_phone.ratchet.encrypt(rng, b"hello", &mut message)?;
//! at_machine.ratchet.decrypt(&message, &mut opened)?;
//! assert_eq!(opened, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! What it refuses to do: negotiate, use a key that is weak or not canonical, accept a structure with bytes left over, say why
//! a message could not be opened, or take randomness from anywhere but its caller.

mod agreement;
mod base64url;
mod bundle;
pub mod durable;
mod error;
pub mod handshake;
#[cfg(feature = "hazmat")]
pub mod hazmat;
mod identity;
mod kem;
mod mac;
mod prekey;
#[cfg(test)]
mod published;
mod ratchet;
mod reader;
mod safety_number;
pub mod seal;
mod secret;
mod suite;
#[cfg(test)]
mod testing;
mod wipe;

pub use bundle::Bundle;
pub use error::{DecodeError, EncryptError, HandshakeError, OpenError, ParseDeviceIdError, SignatureError};
pub use identity::{DeviceId, Identity, IdentityRecord};
pub use prekey::{OneTimePrekey, SignedPrekey};
pub use ratchet::Ratchet;
pub use safety_number::safety_number;
pub use suite::{labelled_hash, labelled_key};

/// The protocol version that this crate speaks (PROTOCOL 1).
pub const VERSION: u8 = 1;
/// Its only suite: X25519 with ML-KEM-768, Ed25519, ChaCha20-Poly1305, SHA-256 (PROTOCOL 1).
pub const SUITE: u8 = 2;
