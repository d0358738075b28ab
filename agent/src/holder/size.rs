//! The sizes that a session's screen has had, each from an offset of the output on: a viewer that goes on at an old offset must
//! wrap the lines as the program meant them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Changes of size that are remembered. Someone who drags a window's edge makes about sixty a second; a viewer that is further
/// behind skips the oldest and still ends with the right one.
const MAX_MARKS: usize = 4_096;

/// Columns and rows of a screen, within what terminals and our screen can bear: at one column wide characters do not fit, and
/// beyond a thousand a hostile size is a demand for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// 2 to 1,000.
    pub cols: u16,
    /// 1 to 1,000.
    pub rows: u16,
}

impl Size {
    /// The nearest size that is allowed.
    pub fn clamped(cols: u16, rows: u16) -> Self {
        let (cols, rows) = happy_screen::clamp_size(cols, rows);
        Self { cols, rows }
    }
}

/// A change of size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Counts changes.
    pub number: u64,
    /// Where in the output.
    pub offset: u64,
    /// The size from there on.
    pub size: Size,
}

/// All changes of size within the ring.
#[derive(Serialize, Deserialize)]
pub struct Sizes {
    /// Before the first mark.
    base: Size,
    // INVARIANT: numbers and offsets rise, no two marks have the same offset.
    marks: VecDeque<Mark>,
    next: u64,
}

impl Sizes {
    /// The first size.
    pub fn new(size: Size) -> Self {
        Self { base: size, marks: VecDeque::new(), next: 0 }
    }

    /// The size now.
    pub fn now(&self) -> Size {
        self.marks.back().map_or(self.base, |mark| mark.size)
    }

    /// The size changes at `offset`, the end of the output.
    pub fn change(&mut self, offset: u64, size: Size) {
        // Nothing was printed in the meantime: nobody needs the size in between.
        self.marks.pop_back_if(|mark| mark.offset == offset);
        self.marks.push_back(Mark { number: self.next, offset, size });
        self.next += 1;
        if self.marks.len() > MAX_MARKS {
            self.forget_first();
        }
    }

    /// Output before `offset` is no longer kept.
    pub fn forget_before(&mut self, offset: u64) {
        while self.marks.front().is_some_and(|mark| mark.offset < offset) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(mark) = self.marks.pop_front() {
            self.base = mark.size;
        }
    }

    /// The size at `offset`, and the number of the first change after it.
    pub fn at(&self, offset: u64) -> (Size, u64) {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        let size = after.checked_sub(1).map_or(self.base, |last| self.marks[last].size);
        (size, self.marks.get(after).map_or(self.next, |mark| mark.number))
    }

    /// The number of the next change there will be.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The first change with this number or a later one.
    pub fn from_number(&self, number: u64) -> Option<Mark> {
        self.marks.get(self.marks.partition_point(|mark| mark.number < number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_clamped() {
        assert_eq!(Size::clamped(0, 0), Size { cols: 2, rows: 1 });
        assert_eq!(Size::clamped(u16::MAX, u16::MAX), Size { cols: 1_000, rows: 1_000 });
    }

    #[test]
    fn each_offset_has_the_size_it_was_printed_at() {
        let size = |cols| Size { cols, rows: 24 };
        let mut sizes = Sizes::new(size(80));
        sizes.change(0, size(81));
        sizes.change(100, size(82));
        sizes.change(100, size(83));
        sizes.change(200, size(84));
        assert_eq!(sizes.at(0), (size(81), 2));
        assert_eq!(sizes.at(99), (size(81), 2));
        assert_eq!(sizes.at(100), (size(83), 3));
        assert_eq!(sizes.at(u64::MAX), (size(84), 4));
        // Who has seen change 1 (82 columns, since replaced) still learns of 2.
        assert_eq!(sizes.from_number(1).unwrap().size, size(83));
        sizes.forget_before(150);
        assert_eq!(sizes.at(150), (size(83), 3));
        assert_eq!(sizes.now(), size(84));
    }

    #[test]
    fn a_storm_of_changes_is_bounded() {
        let mut sizes = Sizes::new(Size::clamped(80, 24));
        (0..100_000u64).for_each(|offset| sizes.change(offset, Size::clamped((offset % 500) as u16, 24)));
        assert!(sizes.marks.len() <= MAX_MARKS);
        assert_eq!(sizes.now(), Size::clamped((99_999u64 % 500) as u16, 24));
    }
}
