//! The bytes between a device and a relay, and between two devices (`docs/PROTOCOL.md` §7–§10).
//!
//! Everything here is a plain encoder or decoder: no sockets, no clocks. A decoder borrows from its input, never
//! allocates in proportion to a length it was told, and answers every malformed input with a [`WireError`].
//!
//! - [`relay`]: frames between a device and a relay,
//! - [`enrolment`]: the key by which a relay's operator admits machines,
//! - [`packet`]: what one device sends another through the relay,
//! - [`frame`]: what stands inside a sealed packet, the link's own frames and records,
//! - [`call`]: requests, responses and events on channel 0,
//! - [`terminal`]: messages of a terminal channel,
//! - [`record`]: what is in a machine record,
//! - [`code`]: why a connection, link or channel ended.

pub mod call;
pub mod code;
pub mod enrolment;
pub mod frame;
pub mod packet;
mod reader;
pub mod record;
pub mod relay;
pub mod terminal;

pub use code::Code;
pub use reader::WireError;

/// The only protocol version this crate speaks (`PROTOCOL 1`).
pub const VERSION: u8 = 1;
