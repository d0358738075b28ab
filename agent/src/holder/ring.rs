//! The raw log of a session: the last bytes that the program printed, by absolute offset.

use std::collections::VecDeque;
use std::io;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};

use super::blocks::{self, BLOCK, Blocks};

/// So many blocks are in our own memory, where most viewers read; the older ones lie in [`Blocks`].
const NEWEST: usize = 4;

/// What is kept, whatever happens to the older blocks.
const KEPT_IN_MEMORY: u64 = ((NEWEST - 1) * BLOCK) as u64;

/// A ring of bytes that knows the absolute offset of each.
pub struct Ring {
    // INVARIANT: at most NEWEST blocks, each but the last of exactly BLOCK bytes, and none is empty.
    newest: VecDeque<Vec<u8>>,
    /// The number of the first of `newest`: a block holds the bytes from its number times BLOCK on.
    first: u64,
    start: u64,
    end: u64,
    capacity: u64,
    older: Option<Blocks>,
    /// The newest of the older blocks could not be written.
    is_short: bool,
    has_warned: bool,
}

/// What the next program needs besides the blocks.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    start: u64,
    end: u64,
    capacity: u64,
    first: u64,
    older: Option<blocks::Saved>,
}

impl Ring {
    /// How many older blocks a ring of this capacity needs room for.
    pub fn slots(capacity: usize) -> u64 {
        capacity.div_ceil(BLOCK) as u64 + 1
    }

    /// A ring that keeps at least the last `capacity` bytes, and at most a block more; without room for older blocks, or when they
    /// cannot be written, only the last 192 KiB.
    pub fn new(capacity: usize, older: Option<Blocks>) -> Self {
        Self {
            newest: VecDeque::new(),
            first: 0,
            start: 0,
            end: 0,
            capacity: capacity as u64,
            is_short: older.is_none(),
            older,
            has_warned: false,
        }
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
        if self.is_short { self.capacity.min(KEPT_IN_MEMORY) } else { self.capacity }
    }

    /// Appends, and lets go of what is too old.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.newest.back().is_none_or(|block| block.len() == BLOCK) {
                let block = self.free_block();
                self.newest.push_back(block);
            }
            let Some(block) = self.newest.back_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - block.len()));
            block.extend_from_slice(now);
            self.end += now.len() as u64;
            bytes = later;
        }
        while self.end - self.start >= self.capacity + BLOCK as u64 {
            self.start += BLOCK as u64;
        }
    }

    /// An empty block, if need be that of the oldest, which is put with the older ones.
    fn free_block(&mut self) -> Vec<u8> {
        if self.newest.len() < NEWEST {
            return Vec::new();
        }
        let Some(mut oldest) = self.newest.pop_front() else { return Vec::new() };
        let number = self.first;
        self.first += 1;
        let written = match &mut self.older {
            Some(older) => older.write(number, &mut oldest),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        self.is_short = written.is_err();
        if let Err(error) = written {
            // What is older than the gap is of no use to anybody: the log has no holes.
            self.start = self.start.max(self.first * BLOCK as u64);
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!("the raw log is short, its older part cannot be kept: {error}");
            }
        }
        oldest.clear();
        oldest
    }

    /// Appends bytes from `offset` on to `out`: as many as lie together, at most `max`; how many. None at the end and outside of
    /// the ring.
    ///
    /// # Errors
    /// When an older block cannot be read; `out` is as it was then.
    pub fn read(&self, offset: u64, max: usize, out: &mut BytesMut) -> io::Result<usize> {
        if offset < self.start || offset >= self.end {
            return Ok(0);
        }
        let (number, from) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        let length = left.min(BLOCK - from).min(max);
        match number.checked_sub(self.first) {
            Some(index) => out.extend_from_slice(&self.newest[index as usize][from..from + length]),
            None => match &self.older {
                Some(older) => older.read(number, from, length, out)?,
                None => return Err(io::ErrorKind::Unsupported.into()),
            },
        }
        Ok(length)
    }

    /// The older blocks.
    pub fn older(&self) -> Option<&Blocks> {
        self.older.as_ref()
    }

    /// What [`Ring::resume`] needs besides the older blocks' descriptor, and the newest bytes.
    pub fn save(&self) -> (Saved, Vec<u8>) {
        let Self { start, end, capacity, first, .. } = *self;
        let older = self.older.as_ref().map(Blocks::save);
        (Saved { start, end, capacity, first, older }, self.newest.iter().flatten().copied().collect())
    }

    /// Goes on with a log that another program has kept; `None` when its parts do not belong together.
    pub fn resume(saved: Saved, newest: &[u8], descriptor: Option<std::os::fd::OwnedFd>) -> Option<Self> {
        let Saved { start, end, capacity, first, older } = saved;
        let begin = first.checked_mul(BLOCK as u64)?;
        let fits = begin.checked_add(newest.len() as u64)? == end && start <= end && newest.len() <= NEWEST * BLOCK;
        if !fits || older.is_some() != descriptor.is_some() {
            return None;
        }
        let older = older.zip(descriptor).map(|(saved, descriptor)| Blocks::resume(saved, descriptor));
        if older.is_none() && start < begin {
            return None;
        }
        let newest = newest.chunks(BLOCK).map(<[u8]>::to_vec).collect();
        Some(Self { newest, first, start, end, capacity, is_short: older.is_none(), older, has_warned: false })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::blocks::Place;
    use super::*;

    /// Every position has its own byte, so that a wrong offset shows.
    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(2_654_435_761) >> 13) as u8
    }

    fn bytes(from: u64, count: u64) -> Vec<u8> {
        (from..from + count).map(byte).collect()
    }

    fn ring(capacity: usize, place: Place) -> Ring {
        let dir = tempfile::tempdir().unwrap();
        let older = Blocks::open(place, dir.path(), Ring::slots(capacity)).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has a name");
        Ring::new(capacity, Some(older))
    }

    /// Everything that is kept is what was written.
    fn check(ring: &Ring) {
        let (mut at, mut out) = (ring.start(), BytesMut::new());
        while at < ring.end() {
            out.clear();
            let count = ring.read(at, 10_000, &mut out).unwrap();
            assert!(count > 0 && count <= 10_000 && out.len() == count);
            assert!(out.iter().zip(at..).all(|(&found, offset)| found == byte(offset)), "wrong bytes at {at}");
            at += count as u64;
        }
    }

    fn turn(mut ring: Ring) {
        let mut written = 0;
        for round in 0..500u64 {
            let count = (round * 37) % 9_001;
            ring.push(&bytes(written, count));
            written += count;
            assert_eq!(ring.end(), written);
            assert!(written - ring.start() >= written.min(ring.capacity()), "less is kept than was promised");
            assert!(ring.end() - ring.start() <= ring.capacity() + BLOCK as u64, "memory is not bounded");
            assert!(ring.newest.len() <= NEWEST);
            if round % 20 == 0 {
                check(&ring);
            }
        }
        check(&ring);
        assert!(ring.start() > 0, "the ring never turned");
        let mut out = BytesMut::new();
        for offset in [ring.start() - 1, ring.end(), u64::MAX] {
            assert_eq!(ring.read(offset, 9, &mut out).unwrap(), 0);
        }
    }

    #[test]
    fn offsets_stay_true_while_the_ring_turns() {
        turn(ring(600_000, Place::Memory));
        turn(ring(200_000, Place::Memory));
    }

    #[test]
    fn offsets_stay_true_in_a_sealed_file() {
        turn(ring(600_000, Place::Sealed));
    }

    #[test]
    fn only_the_newest_blocks_are_in_our_memory_and_no_plain_byte_in_a_sealed_file() {
        for place in [Place::Memory, Place::Sealed] {
            let mut ring = ring(2_000_000, place);
            ring.push(&b"a secret that is easily found ".repeat(50_000));
            assert_eq!(ring.newest.iter().map(Vec::capacity).sum::<usize>(), NEWEST * BLOCK);
            let file = File::from(ring.older().unwrap().descriptor().try_clone_to_owned().unwrap());
            let mut stored = vec![0; 1_000_000];
            std::os::unix::fs::FileExt::read_exact_at(&file, &mut stored, 0).unwrap();
            let found = stored.windows(8).any(|window| window == b"a secret");
            assert_eq!(found, place == Place::Memory);
        }
    }

    #[test]
    fn a_block_that_was_changed_or_is_an_older_one_is_an_error_and_leaves_no_bytes() {
        let mut ring = ring(2_000_000, Place::Sealed);
        ring.push(&bytes(0, 1_000_000));
        let file = File::from(ring.older().unwrap().descriptor().try_clone_to_owned().unwrap());
        let at = |number: u64| number * (BLOCK as u64 + 16);
        let mut block = vec![0; BLOCK + 16];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut block, at(0)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &block, at(1)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", at(2) + 9).unwrap();
        let mut out = BytesMut::from(&b"before"[..]);
        for number in [1, 2] {
            assert!(ring.read(number * BLOCK as u64, 100, &mut out).is_err());
            assert_eq!(&out[..], b"before");
        }
        assert_eq!(ring.read(3 * BLOCK as u64, 100, &mut out).unwrap(), 100);
    }

    #[test]
    fn without_room_for_older_blocks_the_newest_are_kept() {
        // Every write to this one fails with ENOSPC.
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        let saved: blocks::Saved = serde_json::from_str(r#"{"slots": 20, "key": null}"#).unwrap();
        for older in [None, Some(Blocks::resume(saved, full.into()))] {
            let mut ring = Ring::new(1_000_000, older);
            let mut written = 0;
            for _ in 0..400 {
                ring.push(&bytes(written, 7_001));
                written += 7_001;
                assert!(written - ring.start() >= written.min(KEPT_IN_MEMORY));
                check(&ring);
            }
            assert_eq!(ring.capacity(), KEPT_IN_MEMORY);
            assert!(ring.start() > written - 300_000);
        }
    }

    #[test]
    fn another_program_goes_on_where_this_one_stopped() {
        for place in [Place::Memory, Place::Sealed] {
            let mut ring = ring(600_000, place);
            let mut written = 0;
            for _ in 0..100 {
                ring.push(&bytes(written, 30_011));
                written += 30_011;
                let (saved, newest) = ring.save();
                let saved = serde_json::from_slice(&serde_json::to_vec(&saved).unwrap()).unwrap();
                let descriptor = ring.older().unwrap().descriptor().try_clone_to_owned().unwrap();
                let next = Ring::resume(saved, &newest, Some(descriptor)).unwrap();
                assert_eq!((next.start(), next.end(), next.capacity()), (ring.start(), ring.end(), ring.capacity()));
                ring = next;
                check(&ring);
            }
        }
        let parts_of_two = Saved { start: 0, end: 10, capacity: 100, first: 0, older: None };
        assert!(Ring::resume(parts_of_two, b"nine byte", None).is_none());
    }
}
