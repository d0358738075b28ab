//! PROTOCOL 11: pairing messages, the bodies of Sealed packets.

use super::fields::{bytes16, str8};

/// Offer.
#[must_use]
pub fn offer(role: u8, machine: &str) -> Vec<u8> {
    [&[0x01, role][..], &str8(machine)].concat()
}

/// Greeting.
#[must_use]
pub fn greeting(device: &str) -> Vec<u8> {
    [&[0x02][..], &str8(device)].concat()
}

/// Added.
#[must_use]
pub fn added(device: &str, statement: &[u8], bundle: &[u8], relays: &[&str]) -> Vec<u8> {
    let count = u8::try_from(relays.len()).expect("they are few");
    let relays = relays.iter().flat_map(|relay| str8(relay)).collect::<Vec<_>>();
    [&[0x03][..], &str8(device), &bytes16(statement), &bytes16(bundle), &[count], &relays].concat()
}

/// Accepted.
#[must_use]
pub fn accepted(statement: &[u8]) -> Vec<u8> {
    [&[0x04][..], &bytes16(statement)].concat()
}

/// Failed.
#[must_use]
pub fn failed(reason: u8) -> Vec<u8> {
    vec![0x05, reason]
}

/// Done.
#[must_use]
pub fn done() -> Vec<u8> {
    vec![0x06]
}

/// The confirmation code as I shows it.
#[must_use]
pub fn shown_code(code: u64) -> String {
    let digits = format!("{code:06}");
    format!("{} {}", &digits[..3], &digits[3..])
}
