//! PROTOCOL 9.

/// To 64 bytes, above that to the next power of two, above 1,024 to the next multiple of 1,024.
#[must_use]
pub fn padded(length: usize) -> usize {
    let mut size = 64;
    while size < length {
        size += if size < 1_024 { size } else { 1_024 };
    }
    size
}
