//! PROTOCOL 10.1: messages of a terminal channel.

use super::fields::str8;

fn message(kind: u8, offset: u64, fields: &[&[u8]]) -> Vec<u8> {
    [&[kind][..], &offset.to_be_bytes(), &fields.concat()].concat()
}

/// Snapshot; columns, rows, part and parts.
#[must_use]
pub fn snapshot(offset: u64, numbers: [u16; 4], bytes: &[u8]) -> Vec<u8> {
    message(0x01, offset, &[numbers.map(u16::to_be_bytes).as_flattened(), bytes])
}

/// Output.
#[must_use]
pub fn output(offset: u64, bytes: &[u8]) -> Vec<u8> {
    message(0x02, offset, &[bytes])
}

/// Gap.
#[must_use]
pub fn gap(from: u64, to: u64) -> Vec<u8> {
    message(0x03, from, &[&to.to_be_bytes()])
}

/// Resized; columns and rows.
#[must_use]
pub fn resized(offset: u64, size: [u16; 2], you_control: u8, controller: &str) -> Vec<u8> {
    message(0x04, offset, &[size.map(u16::to_be_bytes).as_flattened(), &[you_control], &str8(controller)])
}

/// Exited.
#[must_use]
pub fn exited(offset: u64, how: u8, value: u32) -> Vec<u8> {
    message(0x05, offset, &[&[how], &value.to_be_bytes()])
}

/// InputTaken.
#[must_use]
pub fn input_taken(offset: u64) -> Vec<u8> {
    message(0x06, offset, &[])
}

/// Input.
#[must_use]
pub fn input(offset: u64, bytes: &[u8]) -> Vec<u8> {
    message(0x11, offset, &[bytes])
}
