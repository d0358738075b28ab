//! Frames of other devices that wait for one connection, bounded in bytes.

use std::collections::VecDeque;
use std::time::Duration;

use happy_wire::relay::{QUEUE_BYTES, Undelivered};

use super::FRAME_COST;
use crate::wait::Watch;
use crate::websocket;

/// Frames are queued behind one another as they go onto the socket, in batches of this size; a frame that is larger by itself is one alone. Larger
/// batches are fewer writes; control frames wait for the one that is being written. Four frames of 16 KiB find room in it, and allocators
/// have a class of this size.
const BATCH: usize = 80 * 1024;
/// A batch that is larger than this has the room of a full one.
const SMALL: usize = BATCH / 4;
/// Bytes in front of the frames of a batch. TLS copies what it encrypts to behind a head of a few bytes, and both buffers are large enough to begin
/// with a page: AMD's processors of today copy at a twentieth of their speed, with the instruction that the C library chooses for a few
/// kilobytes, where the target lies 1 to 15 bytes further in its page than the source (glibc bug 30994). With so much in front it lies before
/// it, and the frames that are copied into the batch, each of which is a few bytes shorter than it was, do not meet that either.
const LEAD: usize = 256;

/// A number of frames, and of bytes in their payloads.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, more: Count) {
        self.frames += more.frames;
        self.bytes += more.bytes;
    }
}

/// Deliver frames behind one another, as they go onto the socket.
#[derive(Default)]
pub(crate) struct Batch {
    /// Behind [`LEAD`] bytes without a meaning.
    bytes: Vec<u8>,
    pub(crate) held: Count,
    cost: usize,
}

impl Batch {
    /// Makes room for so many bytes more. The first batch of a device that keeps up is small. A device that lets one grow is slow, and so is one for
    /// which a batch `follows` another: such a batch will be full, and has its room at once. Doubled until there, it would leave holes in the heap that
    /// cost as much as the queue itself.
    fn make_room(&mut self, more: usize, follows: bool) {
        let needed = self.bytes.len().max(LEAD) + more;
        if needed > self.bytes.capacity() {
            let room = if follows || needed > SMALL { needed.max(BATCH) } else { needed.next_power_of_two() };
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        if self.bytes.is_empty() {
            self.bytes.resize(LEAD, 0);
        }
    }

    /// The frames, one behind the other.
    pub(crate) fn frames(&self) -> &[u8] {
        self.bytes.get(LEAD..).unwrap_or_default()
    }

    /// The same as an owned buffer, and where in it they begin.
    pub(crate) fn into_frames(self) -> (Vec<u8>, usize) {
        let at = self.bytes.len().min(LEAD);
        (self.bytes, at)
    }

    /// Whether so many bytes more belong into another one.
    fn is_full(&self, more: usize) -> bool {
        !self.bytes.is_empty() && self.bytes.len() + more > BATCH
    }

    /// Gives back room that nothing will fill, if it is worth the copy.
    fn close(&mut self) {
        if self.bytes.capacity() - self.bytes.len() > BATCH / 4 {
            self.bytes.shrink_to_fit();
        }
    }
}

/// The queue of one connection.
#[derive(Default)]
pub(super) struct Bulk {
    batches: VecDeque<Batch>,
    /// What the frames in `batches` cost, and those that are being written.
    cost: usize,
    /// What those cost that are being written.
    writing: usize,
    watch: Watch,
}

impl Bulk {
    /// Queues a frame, given in its two parts. `PROTOCOL 7`: 224 KiB, summed over all senders. True when nothing waited before.
    pub(super) fn push(&mut self, head: &[u8], payload: &[u8]) -> Result<bool, Undelivered> {
        let length = head.len() + payload.len();
        let cost = length + FRAME_COST;
        if self.cost + cost > QUEUE_BYTES {
            return Err(Undelivered::QueueFull);
        }
        let first = self.batches.is_empty();
        let room = websocket::MAX_HEAD + length;
        if self.batches.back().is_none_or(|last| last.is_full(room)) {
            self.batches.back_mut().into_iter().for_each(Batch::close);
            self.batches.push_back(Batch::default());
        }
        let follows = self.batches.len() > 1;
        if let Some(last) = self.batches.back_mut() {
            last.make_room(room, follows);
            websocket::put_head(&mut last.bytes, length);
            last.bytes.extend_from_slice(head);
            last.bytes.extend_from_slice(payload);
            last.held += Count { frames: 1, bytes: payload.len() as u64 };
            last.cost += cost;
        }
        self.watch.pushed(self.batches.len() - 1);
        self.cost += cost;
        Ok(first)
    }

    /// The batch that was given last is written.
    pub(super) fn written(&mut self) {
        self.cost -= std::mem::take(&mut self.writing);
    }

    /// The next batch to write.
    pub(super) fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.watch.popped();
        self.writing = batch.cost;
        Some(batch)
    }

    /// Empties the queue, and says what was in it. What is being written goes on to count.
    pub(super) fn discard(&mut self) -> Count {
        let mut lost = Count::default();
        self.batches.iter().for_each(|batch| lost += batch.held);
        *self = Self { cost: self.writing, writing: self.writing, ..Self::default() };
        lost
    }

    /// How long a frame that was watched has waited, once.
    pub(super) fn waited(&mut self) -> Option<Duration> {
        self.watch.take()
    }

    #[cfg(test)]
    pub(super) fn cost(&self) -> (usize, usize) {
        (self.cost, self.writing)
    }
}
