//! The core of the phone app, for the browser.
//!
//! Protocol, cryptography and terminal live in the crates below; here is only what binds them to JavaScript, and the few
//! things that are the phone's own: what it remembers, following a session from one offset to the next and a machine's events from one number to the next, and the form in which
//! rows cross over. Those are plain Rust and tested natively.

#[cfg(feature = "core")]
pub mod answers;
#[cfg(feature = "core")]
pub mod clocks;
#[cfg(feature = "core")]
pub mod drawn;
#[cfg(feature = "core")]
pub mod follow;
#[cfg(any(feature = "core", feature = "parse"))]
pub mod input;
#[cfg(feature = "core")]
pub mod keys;
#[cfg(feature = "core")]
pub mod questions;
#[cfg(feature = "core")]
pub mod state;
#[cfg(any(feature = "core", feature = "parse"))]
pub mod viewer;

#[cfg(all(feature = "core", target_arch = "wasm32"))]
mod bridge;
#[cfg(feature = "parse")]
mod parse;
#[cfg(feature = "scan")]
mod scan;
