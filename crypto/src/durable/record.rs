//! The layout of a durable record (PROTOCOL 6.2).

use std::{collections::VecDeque, fmt};

use zeroize::Zeroizing;

use crate::{DecodeError, DeviceId, VERSION, reader::Reader};

use super::{MAX_KEPT, MAX_KEPT_BYTES};

/// What the record is sealed as (PROTOCOL 14).
pub(super) const KIND: &str = "durable ratchet";

/// Version, generation, peer and the length of the state.
const FIXED: usize = 1 + 8 + DeviceId::LEN + 4;
/// Id and length.
const ENTRY: usize = 8 + 4;

/// Bytes that are kept until somebody has seen to them: a message to be sent, or a plaintext to be handled.
pub struct Kept {
    id: u64,
    bytes: Zeroizing<Vec<u8>>,
}

impl Kept {
    /// The generation that stored it: larger than that of everything before it, and never given twice.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The message to send as it stands here, or the plaintext to handle.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("id", &self.id).field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

/// What is kept, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    // INVARIANT: ids ascend; at most MAX_KEPT, and at most MAX_KEPT_BYTES in all.
    kept: VecDeque<Kept>,
    bytes: usize,
}

impl Queue {
    pub fn has_room_for(&self, length: usize) -> bool {
        self.kept.len() < MAX_KEPT && length <= MAX_KEPT_BYTES - self.bytes
    }

    pub fn push(&mut self, id: u64, bytes: Zeroizing<Vec<u8>>) {
        self.bytes += bytes.len();
        self.kept.push_back(Kept { id, bytes });
    }

    /// Takes back what was pushed last.
    pub fn pop(&mut self) {
        self.bytes -= self.kept.pop_back().map_or(0, |kept| kept.bytes.len());
    }

    pub fn last(&self) -> Option<&Kept> {
        self.kept.back()
    }

    pub fn remove(&mut self, id: u64) -> bool {
        let Ok(index) = self.kept.binary_search_by_key(&id, |kept| kept.id) else { return false };
        self.bytes -= self.kept.remove(index).map_or(0, |kept| kept.bytes.len());
        true
    }

    pub fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    fn encoded_len(&self) -> usize {
        2 + self.kept.len() * ENTRY + self.bytes
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.kept.len() as u16).to_be_bytes()); // at most MAX_KEPT
        for Kept { id, bytes } in &self.kept {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&(bytes.len() as u32).to_be_bytes()); // at most MAX_KEPT_BYTES
            out.extend_from_slice(bytes);
        }
    }

    fn decode(reader: &mut Reader<'_>, generation: u64, field: &'static str) -> Result<Self, DecodeError> {
        let mut queue = Self::default();
        for _ in 0..reader.u16()? {
            let id = reader.u64()?;
            let length = reader.u32()? as usize;
            let ascending = queue.last().is_none_or(|last| last.id < id);
            if !ascending || id > generation || !queue.has_room_for(length) {
                return Err(DecodeError::Field(field));
            }
            queue.push(id, Zeroizing::new(reader.slice(length)?.to_vec()));
        }
        Ok(queue)
    }
}

/// The record before it is sealed.
pub(super) fn encode(
    generation: u64,
    peer: DeviceId,
    state: &[u8],
    outbox: &Queue,
    inbox: &Queue,
) -> Zeroizing<Vec<u8>> {
    // As large as it gets, because a vector that grows leaves copies of secrets behind.
    let length = FIXED + state.len() + outbox.encoded_len() + inbox.encoded_len();
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    out.push(VERSION);
    out.extend_from_slice(&generation.to_be_bytes());
    out.extend_from_slice(peer.as_bytes());
    out.extend_from_slice(&(state.len() as u32).to_be_bytes()); // a state has at most 50 KB
    out.extend_from_slice(state);
    outbox.encode(&mut out);
    inbox.encode(&mut out);
    debug_assert_eq!(out.len(), length);
    out
}

/// A record that was read.
pub(super) struct Decoded<'a> {
    pub generation: u64,
    pub peer: DeviceId,
    pub state: &'a [u8],
    pub outbox: Queue,
    pub inbox: Queue,
}

/// Reads what [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.version()?;
    let generation = reader.u64()?;
    let peer = DeviceId::from_bytes(*reader.array()?);
    let length = reader.u32()? as usize;
    let state = reader.slice(length)?;
    let outbox = Queue::decode(&mut reader, generation, "outbox")?;
    let inbox = Queue::decode(&mut reader, generation, "inbox")?;
    reader.finish()?;
    Ok(Decoded { generation, peer, state, outbox, inbox })
}
