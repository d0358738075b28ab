//! What the fuzz targets reach of the inside. Nothing else may use it.

use bytes::Bytes;

use crate::bus::batch;

pub use crate::config::{authority, web_origin};

/// Reads a batch (`PROTOCOL 15`) and writes what was read. None when it has no head of this version.
pub fn batch_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let batch = batch::Batch::read(Bytes::copy_from_slice(bytes))?;
    let mut again = Vec::new();
    batch::begin(&mut again, batch.from, batch.unix_ms);
    batch.map_while(Result::ok).for_each(|record| batch::push(&mut again, &record));
    Some(again)
}
