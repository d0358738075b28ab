//! The difference between two byte strings, made for snapshots of one screen at two times (PROTOCOL 10.1, Differences).
//!
//! What has moved is found by its first bytes: the new string is looked for in the old one six bytes at a time. What has scrolled is then
//! one copy, and so is each stretch of a row that has not changed.

use crate::codec::{Malformed, Reader, Writer};
use crate::snapshot::{MAX_SNAPSHOT, SnapshotError};

/// A copy takes three to five bytes, and as many again to interrupt what is inserted; shorter ones are not worth it.
const MIN_COPY: usize = 6;
/// Places that are remembered of a long string; more would not fit into a cache.
const MAX_PLACES: usize = 1 << 16;

/// The difference that makes `new` from `old`. Of the order of both lengths in time.
pub fn diff(old: &[u8], new: &[u8]) -> Vec<u8> {
    let places = Places::new(old);
    let mut script = Script::new(old, new);
    let mut at = 0;
    while at < new.len() {
        // Where it would be if nothing had moved since the last copy, and the last place where the old string has these first bytes.
        let unmoved = script.copied + (at - script.at);
        let moved = places.find(&new[at..]);
        let length = |from: usize| script.common(from, at);
        let best = [Some(unmoved), moved].into_iter().flatten().max_by_key(|from| (length(*from), *from == unmoved));
        match best.map(|from| (from, length(from))) {
            Some((from, length))
                if length >= MIN_COPY || (length > 0 && length == new.len() - at && length >= MIN_TAIL) =>
            {
                script.copy(from, at, length);
                at += length;
            }
            _ => at += 1,
        }
    }
    script.finish()
}

/// At the end a copy interrupts nothing.
const MIN_TAIL: usize = 4;

/// Where a string has which bytes, as many as a copy has at least.
struct Places {
    /// By a hash of the bytes, the last place and 1 more; 0 for none.
    table: Vec<u32>,
    shift: u32,
}

impl Places {
    fn new(old: &[u8]) -> Self {
        let size = old.len().next_power_of_two().clamp(16, MAX_PLACES);
        let mut places = Self { table: vec![0; size], shift: u64::BITS - size.trailing_zeros() };
        for (at, bytes) in old.windows(MIN_COPY).enumerate() {
            if let Some(place) = places.place(bytes) {
                // Strings are at most as long as a snapshot.
                places.table[place] = at as u32 + 1;
            }
        }
        places
    }

    fn place(&self, bytes: &[u8]) -> Option<usize> {
        let mut first = [0; size_of::<u64>()];
        first[..MIN_COPY].copy_from_slice(bytes.get(..MIN_COPY)?);
        let first = u64::from_le_bytes(first);
        // Fibonacci hashing: the upper bits depend on all others.
        Some((first.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize)
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        (self.table[self.place(bytes)?] as usize).checked_sub(1)
    }
}

/// Makes the new string from the old one. The difference may be anybody's: more than [`MAX_SNAPSHOT`] bytes are not made.
///
/// # Errors
/// [`SnapshotError::Malformed`] when the steps do not make what they announce.
pub fn apply(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    Ok(apply_steps(old, delta)?)
}

fn apply_steps(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut input = Reader(delta);
    let length = input.count(MAX_SNAPSHOT)?;
    let (mut new, mut copied) = (Vec::new(), 0_u64);
    while !input.is_empty() {
        let step = input.varint()?;
        let size = usize::try_from(step / 2).map_err(|_| Malformed)?;
        // INVARIANT: `new` never gets longer than `length`.
        if size == 0 || size > length - new.len() {
            return Err(Malformed);
        }
        let bytes = if step % 2 == 0 {
            input.take(size)?
        } else {
            let from = copied.checked_add_signed(unfold(input.varint()?)).ok_or(Malformed)?;
            copied = from + size as u64;
            let from = usize::try_from(from).map_err(|_| Malformed)?;
            old.get(from..).and_then(|rest| rest.get(..size)).ok_or(Malformed)?
        };
        new.extend_from_slice(bytes);
    }
    if new.len() == length { Ok(new) } else { Err(Malformed) }
}

/// 0, −1, 1, −2, … as 0, 1, 2, 3, …, so that short distances either way take one byte.
fn fold(distance: i64) -> u64 {
    (distance.unsigned_abs() << 1).wrapping_sub(u64::from(distance < 0))
}

fn unfold(folded: u64) -> i64 {
    // A varint has 63 bits, so half of it fits.
    let half = (folded >> 1) as i64;
    if folded & 1 == 0 { half } else { -half - 1 }
}

/// The steps so far.
struct Script<'a> {
    old: &'a [u8],
    new: &'a [u8],
    out: Writer,
    /// What the steps make ends here in `new`.
    at: usize,
    /// The last copy ended here in `old`.
    copied: usize,
}

impl<'a> Script<'a> {
    fn new(old: &'a [u8], new: &'a [u8]) -> Self {
        let mut out = Writer::default();
        out.varint(new.len() as u64);
        Self { old, new, out, at: 0, copied: 0 }
    }

    /// How many bytes are the same from here on.
    fn common(&self, from: usize, start: usize) -> usize {
        let old = self.old.get(from..).unwrap_or_default();
        old.iter().zip(&self.new[start..]).take_while(|(old, new)| old == new).count()
    }

    fn copy(&mut self, mut from: usize, mut start: usize, mut length: usize) {
        while start > self.at && from > 0 && self.old[from - 1] == self.new[start - 1] {
            (from, start, length) = (from - 1, start - 1, length + 1);
        }
        self.insert_until(start);
        self.out.varint(2 * length as u64 + 1);
        // Lengths of slices fit into an i64.
        self.out.varint(fold(from as i64 - self.copied as i64));
        (self.at, self.copied) = (start + length, from + length);
    }

    fn insert_until(&mut self, end: usize) {
        let bytes = &self.new[self.at..end];
        if !bytes.is_empty() {
            self.out.varint(2 * bytes.len() as u64);
            self.out.0.extend_from_slice(bytes);
            self.at = end;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.insert_until(self.new.len());
        self.out.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(old: &[u8], new: &[u8]) -> usize {
        let delta = diff(old, new);
        assert_eq!(apply(old, &delta).as_deref(), Ok(new));
        delta.len()
    }

    #[test]
    fn what_has_scrolled_is_one_copy() {
        let lines = |numbers: std::ops::Range<u32>| -> Vec<u8> {
            numbers.flat_map(|n| format!("line {n} of something longer\r\n").into_bytes()).collect()
        };
        assert!(round(&lines(0..40), &lines(3..43)) < 3 * 32 + 16, "three lines, and a copy");
        assert!(round(&lines(3..43), &lines(0..40)) < 3 * 32 + 16, "and the other way");
    }

    #[test]
    fn a_digit_in_the_middle_of_a_row_costs_little() {
        let row = |n: u32| format!("\x1b[32mtasks\x1b[m: {n} running, and all the others sleep\r\n").into_bytes();
        let screen = |n: u32| [row(1), row(n), row(3)].concat();
        assert!(round(&screen(22222), &screen(22322)) <= 16);
    }

    #[test]
    fn nothing_against_nothing_and_all_against_nothing() {
        assert_eq!(diff(b"", b""), [0]);
        assert_eq!(apply(b"", &[0]), Ok(vec![]));
        assert_eq!(round(b"", b"whole"), 1 + 1 + 5);
        assert_eq!(round(b"gone", b""), 1);
    }

    #[test]
    fn distances_fold_and_unfold() {
        for (distance, folded) in [(0, 0), (-1, 1), (1, 2), (-2, 3), (1 << 40, 1 << 41)] {
            assert_eq!((fold(distance), unfold(folded)), (folded, distance));
        }
    }

    #[test]
    fn hostile_differences_are_refused() {
        let mut far = Writer::default();
        [9, 2 * 4 + 1, (1 << 63) - 2].iter().for_each(|n| far.varint(*n));
        let mut bomb = Writer::default();
        bomb.varint(MAX_SNAPSHOT as u64 + 1);
        for (bytes, what) in [
            (&[][..], "no length"),
            (&[3, 4, b'a', b'b'], "too short"),
            (&[1, 4, b'a', b'b'], "too long"),
            (&[2, 4, b'a'], "cut"),
            (&[1, 0, 2, b'a'], "an empty step"),
            (&[4, 9, 1], "before the beginning"),
            (&[4, 9, 2], "past the end"),
            (&[5, 11, 0], "longer than the old string"),
            (&[0, 2, b'a'], "more than was announced"),
            (&far.0, "far away"),
            (&bomb.0, "too much"),
        ] {
            assert_eq!(apply(b"four", bytes), Err(SnapshotError::Malformed), "{what}");
        }
    }
}
