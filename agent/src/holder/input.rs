//! What is to be typed into the program: numbered per writer, each byte once and in order, and never more than is bounded.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes that wait for the program to read them. When it is reached no more is read from viewers, so that a pasted heredoc waits in
/// the viewers' own buffers; one frame may overshoot it.
pub const MAX_PENDING: usize = 256 * 1024;

/// Writers whose offsets are remembered. One is forgotten when so many others have come since and it is not attached: far more
/// than the devices of one person.
pub const MAX_WRITERS: usize = 256;

/// A viewer skipped input bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("input is expected at offset {expected} and came at {got}")]
pub struct InputGap {
    /// What would have been right.
    pub expected: u64,
    /// What was sent.
    pub got: u64,
}

/// The input of a session.
#[derive(Default, Serialize, Deserialize)]
pub struct Input {
    /// Raw in a handover.
    #[serde(skip)]
    pending: VecDeque<u8>,
    /// Whose the pending bytes are, in order.
    pieces: VecDeque<Piece>,
    writers: HashMap<Uuid, Writer>,
    /// Counts attachments; says which writer was used least recently.
    clock: u64,
    /// How many bytes writers and answers of people have brought in all.
    #[serde(default)]
    typed: u64,
}

#[derive(Serialize, Deserialize)]
struct Piece {
    /// `None` for answers to the program's own queries.
    writer: Option<Uuid>,
    left: usize,
}

#[derive(Serialize, Deserialize)]
struct Writer {
    accepted: u64,
    taken: u64,
    used: u64,
    attached: bool,
}

impl Input {
    /// A viewer is here; the offset that it must go on from as a writer. It becomes one when it types: who only looks takes no
    /// place in the table, and makes nobody's offset forgotten.
    pub fn attach(&mut self, writer: Uuid) -> u64 {
        self.clock += 1;
        let Some(entry) = self.writers.get_mut(&writer) else { return 0 };
        entry.used = self.clock;
        entry.attached = true;
        entry.accepted
    }

    /// The writer's entry, made when it types for the first time.
    fn writer(&mut self, writer: Uuid) -> &mut Writer {
        if !self.writers.contains_key(&writer) && self.writers.len() >= MAX_WRITERS {
            let absent = self.writers.iter().filter(|(_, writer)| !writer.attached);
            if let Some(oldest) = absent.min_by_key(|(_, writer)| writer.used).map(|(id, _)| *id) {
                self.writers.remove(&oldest);
            }
        }
        let used = self.clock;
        self.writers.entry(writer).or_insert(Writer { accepted: 0, taken: 0, used, attached: true })
    }

    /// A writer has gone; what it typed is still delivered, and it may come back.
    pub fn detach(&mut self, writer: Uuid) {
        if let Some(entry) = self.writers.get_mut(&writer) {
            entry.attached = false;
        }
    }

    /// Takes what a writer types: an overlap with what it typed before is trimmed.
    ///
    /// # Errors
    /// [`InputGap`]; nothing is taken then.
    pub fn type_in(&mut self, writer: Uuid, offset: u64, bytes: &[u8]) -> Result<(), InputGap> {
        let accepted = self.writers.get(&writer).map_or(0, |writer| writer.accepted);
        // PROTOCOL 10.1: what overlaps is trimmed, what leaves a gap is refused.
        let Some(known) = accepted.checked_sub(offset) else {
            return Err(InputGap { expected: accepted, got: offset });
        };
        let fresh = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
        if fresh.is_empty() {
            return Ok(());
        }
        self.writer(writer).accepted += fresh.len() as u64;
        self.typed += fresh.len() as u64;
        self.pending.extend(fresh);
        self.pieces.push_back(Piece { writer: Some(writer), left: fresh.len() });
        Ok(())
    }

    /// Answers a query of the program. An answer that finds [`MAX_PENDING`] bytes unread is dropped: the program asks and does not
    /// listen. Whether it was kept.
    #[must_use]
    pub fn answer(&mut self, bytes: &[u8]) -> bool {
        if self.pending.len() + bytes.len() > MAX_PENDING {
            return false;
        }
        self.pending.extend(bytes);
        self.pieces.push_back(Piece { writer: None, left: bytes.len() });
        true
    }

    /// Types for a person what answers a question; like [`Input::answer`], but it counts as typed.
    #[must_use]
    pub fn press(&mut self, keys: &[u8]) -> bool {
        let is_kept = self.answer(keys);
        if is_kept {
            self.typed += keys.len() as u64;
        }
        is_kept
    }

    /// How many bytes were typed in all: what writers have sent, each byte once however often it came, and answers that people gave to
    /// questions; not what the terminal itself answers to the program.
    pub fn typed(&self) -> u64 {
        self.typed
    }

    /// Whether viewers may send more.
    pub fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// Bytes for the program, as many as lie together; empty when there are none.
    pub fn front(&self) -> &[u8] {
        self.pending.as_slices().0
    }

    /// The program's terminal has taken the first `count` bytes of [`Input::front`].
    pub fn wrote(&mut self, count: usize) {
        self.pending.drain(..count.min(self.pending.len()));
        let mut left = count;
        while left > 0 {
            let Some(piece) = self.pieces.front_mut() else { return };
            let now = piece.left.min(left);
            piece.left -= now;
            left -= now;
            if let Some(writer) = piece.writer.and_then(|id| self.writers.get_mut(&id)) {
                writer.taken += now as u64;
            }
            if piece.left == 0 {
                self.pieces.pop_front();
            }
        }
    }

    /// Every byte of this writer before the offset has reached the program's terminal.
    pub fn taken(&self, writer: Uuid) -> u64 {
        self.writers.get(&writer).map_or(0, |writer| writer.taken)
    }

    /// All bytes that wait.
    pub fn pending(&self) -> Vec<u8> {
        self.pending.iter().copied().collect()
    }

    /// Puts the bytes back that were waiting in another program; whether they are as many as it had.
    #[must_use]
    pub fn resume(&mut self, pending: &[u8]) -> bool {
        self.pending = pending.iter().copied().collect();
        self.pieces.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece.left)) == Some(pending.len())
    }

    /// The program has ended; nobody reads any more.
    pub fn discard(&mut self) {
        self.pending = VecDeque::new();
        self.pieces = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take_all(input: &mut Input) -> Vec<u8> {
        let mut all = Vec::new();
        while !input.front().is_empty() {
            let some = input.front().len().min(3);
            all.extend_from_slice(&input.front()[..some]);
            input.wrote(some);
        }
        all
    }

    #[test]
    fn what_was_typed_before_is_trimmed_and_a_gap_is_refused() {
        let (mut input, me) = (Input::default(), Uuid::new_v4());
        assert_eq!(input.attach(me), 0);
        input.type_in(me, 0, b"hello").unwrap();
        input.type_in(me, 0, b"hello").unwrap();
        input.type_in(me, 3, b"lo wor").unwrap();
        assert_eq!(input.type_in(me, 10, b"x"), Err(InputGap { expected: 9, got: 10 }));
        assert_eq!(input.type_in(me, u64::MAX, b""), Err(InputGap { expected: 9, got: u64::MAX }));
        input.type_in(me, 9, b"ld").unwrap();
        assert_eq!(input.taken(me), 0);
        assert_eq!(take_all(&mut input), b"hello world");
        assert_eq!(input.taken(me), 11);
        // Later, by another connection: the offset goes on.
        input.detach(me);
        assert_eq!(input.attach(me), 11);
    }

    #[test]
    fn writers_count_for_themselves_and_answers_for_nobody() {
        let (mut input, me, you) = (Input::default(), Uuid::new_v4(), Uuid::new_v4());
        input.type_in(me, 0, b"aa").unwrap();
        assert!(input.answer(b"\x1b[0n"));
        input.type_in(you, 0, b"b").unwrap();
        input.wrote(3);
        assert_eq!((input.taken(me), input.taken(you)), (2, 0));
        assert_eq!(take_all(&mut input), b"[0nb");
        assert_eq!((input.taken(me), input.taken(you)), (2, 1));
    }

    #[test]
    fn each_byte_that_somebody_types_is_counted_once_and_answers_of_the_terminal_are_not() {
        let (mut input, me, you) = (Input::default(), Uuid::new_v4(), Uuid::new_v4());
        input.type_in(me, 0, b"hello").unwrap();
        input.type_in(me, 3, b"lo wor").unwrap();
        input.type_in(me, 99, b"gap").unwrap_err();
        input.type_in(you, 0, b"b").unwrap();
        assert!(input.answer(b"\x1b[?62;22c"));
        assert_eq!(input.typed(), 10);
        assert!(input.press(b"y\r"));
        assert_eq!(input.typed(), 12);
        assert!(!input.press(&[b'x'; MAX_PENDING]), "what is not typed does not count");
        // Neither the program's reading nor its end changes what was typed.
        take_all(&mut input);
        input.discard();
        assert_eq!(input.typed(), 12);
    }

    #[test]
    fn the_table_of_writers_is_bounded_and_keeps_those_who_are_here() {
        let (mut input, here) = (Input::default(), Uuid::new_v4());
        input.attach(here);
        input.type_in(here, 0, b"abc").unwrap();
        for _ in 0..3 * MAX_WRITERS {
            let passing = Uuid::new_v4();
            input.attach(passing);
            input.type_in(passing, 0, b"x").unwrap();
            input.detach(passing);
            assert!(input.writers.len() <= MAX_WRITERS);
        }
        assert_eq!(input.attach(here), 3);
    }

    #[test]
    fn who_only_looks_makes_nobody_forgotten() {
        let (mut input, absent) = (Input::default(), Uuid::new_v4());
        input.attach(absent);
        input.type_in(absent, 0, b"abc").unwrap();
        input.detach(absent);
        for _ in 0..3 * MAX_WRITERS {
            let passing = Uuid::new_v4();
            assert_eq!(input.attach(passing), 0);
            input.type_in(passing, 0, b"").unwrap();
            input.type_in(passing, 1, b"x").unwrap_err();
            input.detach(passing);
        }
        assert_eq!((input.attach(absent), input.writers.len()), (3, 1));
    }

    #[test]
    fn a_program_that_asks_and_never_reads_does_not_grow_us() {
        let mut input = Input::default();
        let kept = (0..100_000).filter(|_| input.answer(b"\x1b[?62;22c")).count();
        assert!(kept < 100_000 && input.pending.len() <= MAX_PENDING);
        assert!(input.front().len() <= MAX_PENDING);
    }
}
