//! PROTOCOL 9: frames and their records.

use super::{
    fields::{bytes16, str8},
    padded,
};

/// A frame, filled to the length that the page wants.
#[must_use]
pub fn frame(number: Option<u64>, acknowledgement: u64, records: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = number.map_or_else(|| vec![0], |number| [&[1][..], &number.to_be_bytes()].concat());
    frame.extend(acknowledgement.to_be_bytes());
    frame.extend(records.concat());
    frame.resize(padded(frame.len()), 0);
    frame
}

/// Open.
#[must_use]
pub fn open(channel: u32, class: u8, limit: u64, label: &str) -> Vec<u8> {
    [&[0x01][..], &channel.to_be_bytes(), &[class], &limit.to_be_bytes(), &str8(label)].concat()
}

/// Data.
#[must_use]
pub fn data(channel: u32, flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&[0x02][..], &channel.to_be_bytes(), &[flags], &bytes16(bytes)].concat()
}

/// Limit.
#[must_use]
pub fn limit(channel: u32, limit: u64) -> Vec<u8> {
    [&[0x03][..], &channel.to_be_bytes(), &limit.to_be_bytes()].concat()
}

/// Close.
#[must_use]
pub fn close(channel: u32, code: u16, reason: &str) -> Vec<u8> {
    [&[0x04][..], &channel.to_be_bytes(), &code.to_be_bytes(), &str8(reason)].concat()
}

/// Ping.
#[must_use]
pub fn ping(number: u64) -> Vec<u8> {
    [&[0x05][..], &number.to_be_bytes()].concat()
}

/// Pong.
#[must_use]
pub fn pong(number: u64) -> Vec<u8> {
    [&[0x06][..], &number.to_be_bytes()].concat()
}

/// Resume.
#[must_use]
pub fn resume() -> Vec<u8> {
    vec![0x07]
}

/// Goodbye.
#[must_use]
pub fn goodbye(code: u16, reason: &str) -> Vec<u8> {
    [&[0x08][..], &code.to_be_bytes(), &str8(reason)].concat()
}

/// PairSecret.
#[must_use]
pub fn pair_secret(session: &[u8; 16]) -> Vec<u8> {
    [&[0x09][..], session].concat()
}
