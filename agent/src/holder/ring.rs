//! The raw log of a session: the last bytes that the program printed, by absolute offset.

use std::collections::VecDeque;

/// Memory is taken and given back in pieces of this size, so that a quiet session costs what it has printed and no more.
const BLOCK: usize = 64 * 1024;

/// A ring of bytes that knows the absolute offset of each.
pub struct Ring {
    // INVARIANT: every block but the last holds exactly BLOCK bytes, and none is empty.
    blocks: VecDeque<Vec<u8>>,
    start: u64,
    end: u64,
    capacity: u64,
}

impl Ring {
    /// A ring that keeps at least the last `capacity` bytes, and at most a block more.
    pub fn new(capacity: usize) -> Self {
        Self { blocks: VecDeque::new(), start: 0, end: 0, capacity: capacity as u64 }
    }

    /// The oldest offset still kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// The offset of the next byte.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes are kept whatever comes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Appends, and lets go of what is too old.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.end += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.blocks.back().is_none_or(|block| block.len() == BLOCK) {
                self.blocks.push_back(Vec::new());
            }
            let Some(block) = self.blocks.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
            block.extend_from_slice(now);
            bytes = later;
        }
        while self.end - self.start >= self.capacity + BLOCK as u64 {
            self.blocks.pop_front();
            self.start += BLOCK as u64;
        }
    }

    /// Bytes from `offset` on, as many as lie together and at most `max`; empty at the end and outside of the ring.
    pub fn slice(&self, offset: u64, max: usize) -> &[u8] {
        if offset < self.start || offset >= self.end {
            return &[];
        }
        let distance = (offset - self.start) as usize;
        let block = &self.blocks[distance / BLOCK][distance % BLOCK..];
        &block[..block.len().min(max)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every position has its own byte, so that a wrong offset shows.
    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(2_654_435_761) >> 13) as u8
    }

    #[test]
    fn offsets_stay_true_while_the_ring_turns() {
        let mut ring = Ring::new(200_000);
        let mut written = 0u64;
        for round in 0..500 {
            let piece: Vec<u8> = (0..(round * 37) % 9_001).map(|i| byte(written + i)).collect();
            ring.push(&piece);
            written += piece.len() as u64;
            assert_eq!(ring.end(), written);
            assert!(written - ring.start() >= written.min(ring.capacity()), "less is kept than was promised");
            assert!(ring.end() - ring.start() <= ring.capacity() + BLOCK as u64, "memory is not bounded");
            let mut at = ring.start();
            while at < written {
                let slice = ring.slice(at, 10_000);
                assert!(!slice.is_empty() && slice.len() <= 10_000);
                assert!(slice.iter().zip(at..).all(|(&found, offset)| found == byte(offset)), "wrong bytes at {at}");
                at += slice.len() as u64;
            }
        }
        assert!(ring.start() > 0, "the ring never turned");
        assert!(ring.slice(ring.start() - 1, 9).is_empty() && ring.slice(ring.end(), 9).is_empty());
        assert!(ring.slice(u64::MAX, 9).is_empty());
    }
}
