//! PROTOCOL 9: to which length a frame is filled.

use happy_wire::frame::padded;

use crate::{json::Json, object, page};

pub fn vectors() -> Json {
    for length in 0..=10_000 {
        assert_eq!(padded(length), page::padded(length), "{length}");
    }
    let lengths = [0, 1, 63, 64, 65, 128, 129, 511, 512, 513, 1_023, 1_024, 1_025, 2_048, 2_049, 16_384, 16_385];
    let cases = lengths.map(|length| object! { "bytes": length as u64, "padded": padded(length) as u64 });
    object! { "section": "PROTOCOL 9", "cases": cases.to_vec() }
}
