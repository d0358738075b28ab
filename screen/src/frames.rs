//! What a viewer puts together from the parts of frames (PROTOCOL 10.1, Credit): snapshots without history, each made from the one
//! before.

use crate::delta;
use crate::snapshot::SnapshotError;

/// The most bytes of a frame, all parts together.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// A part of a frame as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramePart<'a> {
    /// Output before this offset is on the screen.
    pub offset: u64,
    /// The frame that it is the difference from; none: it is a whole one.
    pub base: Option<u64>,
    /// Counted from 0.
    pub part: u16,
    /// At least 1.
    pub parts: u16,
    /// Of a difference ([`delta`]).
    pub bytes: &'a [u8],
}

/// Why a frame cannot be shown. The viewer has to attach anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Parts that do not belong together, or too much of them.
    #[error("the machine sent a frame whose parts do not fit together")]
    Parts,
    /// It is the difference from another screen than the last frame.
    #[error("the machine sent the difference from a screen that was not shown")]
    Base,
    /// What it makes is no snapshot, or the difference is none.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
}

/// The last frame, and the parts of the next.
#[derive(Debug, Default)]
pub struct Frames {
    last: Option<(u64, Vec<u8>)>,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    head: (u64, Option<u64>, u16),
    next: u16,
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes a part; with the last one it gives the snapshot.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn take(&mut self, part: FramePart<'_>) -> Result<Option<&[u8]>, FrameError> {
        let FramePart { offset, base, part, parts, bytes } = part;
        let head = (offset, base, parts);
        let mut begun = match self.begun.take() {
            _ if part == 0 => Begun { head, next: 0, bytes: Vec::new() },
            Some(begun) if begun.head == head && begun.next == part => begun,
            _ => return Err(FrameError::Parts),
        };
        if begun.bytes.len() + bytes.len() > MAX_FRAME_BYTES {
            return Err(FrameError::Parts);
        }
        begun.bytes.extend_from_slice(bytes);
        begun.next += 1;
        if begun.next < parts {
            self.begun = Some(begun);
            return Ok(None);
        }
        let old = match (base, &self.last) {
            (None, _) => &[][..],
            (Some(base), Some((last, snapshot))) if base == *last => snapshot,
            _ => return Err(FrameError::Base),
        };
        let snapshot = delta::apply(old, &begun.bytes)?;
        Ok(Some(&self.last.insert((offset, snapshot)).1))
    }

    /// Forgets the parts of a frame that will not be completed, and what the next one could be the difference from.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Screen;
    use crate::delta::diff;

    fn snapshot(text: &str) -> Vec<u8> {
        let mut screen = Screen::new(20, 4, 0);
        screen.feed(text.as_bytes());
        screen.snapshot(0)
    }

    fn part(offset: u64, base: Option<u64>, bytes: &[u8]) -> FramePart<'_> {
        FramePart { offset, base, part: 0, parts: 1, bytes }
    }

    #[test]
    fn each_frame_is_made_from_the_one_before() {
        let (one, two) = (snapshot("one"), snapshot("one\r\ntwo"));
        let mut frames = Frames::default();
        assert_eq!(frames.take(part(3, None, &diff(&[], &one))), Ok(Some(&one[..])));
        assert_eq!(frames.take(part(9, Some(3), &diff(&one, &two))), Ok(Some(&two[..])));
        // Twice the same difference has no base any more.
        assert_eq!(frames.take(part(9, Some(3), &diff(&one, &two))), Err(FrameError::Base));
        frames.clear();
        assert_eq!(frames.take(part(9, Some(9), &diff(&two, &two))), Err(FrameError::Base));
    }

    #[test]
    fn parts_of_different_frames_do_not_mix() {
        let whole = diff(&[], &snapshot("text"));
        let (first, second) = whole.split_at(9);
        let of = |offset, part, bytes| FramePart { offset, base: None, part, parts: 2, bytes };
        let mut frames = Frames::default();
        assert_eq!(frames.take(of(4, 1, second)), Err(FrameError::Parts));
        assert_eq!(frames.take(of(4, 0, first)), Ok(None));
        assert_eq!(frames.take(of(5, 1, second)), Err(FrameError::Parts));
        assert_eq!(frames.take(of(4, 0, first)), Ok(None));
        assert_eq!(frames.take(of(4, 1, second)), Ok(Some(&snapshot("text")[..])));
    }

    #[test]
    fn parts_without_end_are_refused() {
        let mut frames = Frames::default();
        let bytes = vec![0; 1 << 20];
        let take = |n| frames.take(FramePart { offset: 0, base: None, part: n, parts: 999, bytes: &bytes }).err();
        assert_eq!((0..=(MAX_FRAME_BYTES >> 20) as u16).find_map(take), Some(FrameError::Parts));
    }
}
