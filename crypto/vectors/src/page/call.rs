//! PROTOCOL 10: messages on channel 0.

/// A request is 1, a response 2, an event 3 and a cancel 4.
#[must_use]
pub fn message(kind: u8, id: u64, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &id.to_be_bytes(), body].concat()
}
