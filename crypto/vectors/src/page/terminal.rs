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

/// Frame; base (all ones: none) and the oldest row, part and parts.
#[must_use]
pub fn frame(offset: u64, numbers: [u64; 2], parts: [u16; 2], bytes: &[u8]) -> Vec<u8> {
    let (numbers, parts) = (numbers.map(u64::to_be_bytes), parts.map(u16::to_be_bytes));
    message(0x07, offset, &[numbers.as_flattened(), parts.as_flattened(), bytes])
}

/// History.
#[must_use]
pub fn history(first: u64, kept_from: u64, bytes: &[u8]) -> Vec<u8> {
    message(0x08, first, &[&kept_from.to_be_bytes(), bytes])
}

/// Drawn.
#[must_use]
pub fn drawn(offset: u64) -> Vec<u8> {
    message(0x12, offset, &[])
}

/// HistoryWanted.
#[must_use]
pub fn history_wanted(before: u64, rows: u16) -> Vec<u8> {
    message(0x13, before, &[&rows.to_be_bytes()])
}

/// Input.
#[must_use]
pub fn input(offset: u64, bytes: &[u8]) -> Vec<u8> {
    message(0x11, offset, &[bytes])
}
