//! What holds for every message of the wire: it reads back as itself, in one form only; nothing shorter or longer passes for
//! it; and no bytes whatever make a decoder panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks")]

mod call;
mod frame;
mod packet;
mod relay;
mod terminal;

use happy_crypto::DeviceId;
use happy_wire::WireError;
use proptest::prelude::*;

/// Any device id: they are not checked to be keys here.
fn device() -> impl Strategy<Value = DeviceId> {
    any::<[u8; 32]>().prop_map(DeviceId::from_bytes)
}

/// Text that fits a `str8`, up to its limit in bytes and with characters of every length.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,60}", "[a-z]{250,255}", Just("é".repeat(127))]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..=most)
}

/// Reads a message and everything that is a little more or less. `recode` decodes and encodes again, because what a decoder
/// gives borrows from its input.
///
/// `open` says that the message ends with a field that runs to the end, of so many bytes: shortening that field gives another
/// message, and so does lengthening it. Everything else must be refused.
fn holds(
    encoded: &[u8],
    open: Option<usize>,
    recode: impl Fn(&[u8]) -> Result<Vec<u8>, WireError>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(recode(encoded), Ok(encoded.to_vec()));
    let fixed = encoded.len() - open.unwrap_or(0);
    for cut in 0..encoded.len() {
        if let Ok(other) = recode(&encoded[..cut]) {
            prop_assert!(open.is_some() && cut >= fixed, "cut to {} bytes it reads as {:?}", cut, other);
            prop_assert_eq!(&other[..], &encoded[..cut]);
        }
    }
    let longer = [encoded, &[0]].concat();
    let expected = if open.is_some() { Ok(longer.clone()) } else { Err(WireError::Trailing) };
    prop_assert_eq!(recode(&longer), expected);
    Ok(())
}
