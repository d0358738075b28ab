//! The difference between two byte strings, made for snapshots of one screen at two times (PROTOCOL 10.1, Differences).
//!
//! In a snapshot a row ends with a line feed and a change of colour begins with an escape. Between these the old string is cut into
//! *pieces*, and a piece of the new one is looked for among them: what has scrolled is then one copy, and so is each stretch
//! of a row that has not changed.

use std::collections::HashMap;

use crate::codec::{Malformed, Reader, Writer};
use crate::snapshot::{MAX_SNAPSHOT, SnapshotError};

/// A copy takes three to five bytes, and as many again to interrupt what is inserted; shorter ones are not worth it.
const MIN_COPY: usize = 8;

/// The difference that makes `new` from `old`. Of the order of both lengths in time.
pub fn diff(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut places: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (start, piece) in pieces(old) {
        places.entry(piece).or_default().push(start);
    }
    let mut script = Script::new(old, new);
    for (start, piece) in pieces(new) {
        let end = start + piece.len();
        if start < script.at {
            // The last copy ended in the middle of this piece, or behind it.
            script.copy_from(script.copied, script.at, end);
            continue;
        }
        // Where it would be if nothing had moved since the last copy, and the next place where the old string has this piece.
        let unmoved = script.copied + (start - script.at);
        let known = places.get(piece).map_or(&[][..], Vec::as_slice);
        let next = known.partition_point(|place| *place < script.copied);
        let moved = known.get(next).or(known.first()).copied();
        let best = [moved, Some(unmoved)].into_iter().flatten().max_by_key(|from| script.common(*from, start));
        if let Some(from) = best {
            script.copy_from(from, start, end);
        }
    }
    script.finish()
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

/// Each piece with where it begins: after a line feed or at an escape.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let ends = |pair: &[u8]| pair[0] == b'\n' || pair[1] == 0x1b;
        let length = rest.windows(2).position(ends).map_or(rest.len(), |last| last + 1);
        let piece = (start, &rest[..length]);
        start += length;
        Some(piece)
    })
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

    /// Copies what is the same from here on, or else what is the same at the same distance in the rest of the piece, which ends at `end`:
    /// no further, because the next piece may have come from elsewhere.
    fn copy_from(&mut self, from: usize, start: usize, end: usize) {
        let mut skipped = 0;
        while start + skipped < end {
            let mut same = self.common(from + skipped, start + skipped);
            if skipped > 0 {
                same = same.min(end - start - skipped);
            }
            if same >= MIN_COPY {
                self.copy(from + skipped, start + skipped, same);
            }
            // The byte after it differs.
            skipped += same + 1;
        }
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
