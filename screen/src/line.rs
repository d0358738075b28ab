//! One row of cells.

use std::ops::Range;

use crate::cell::{Cell, Glyph, Pen};

/// INVARIANT: after a wide glyph, and nowhere else, stands its tail, with the same pen.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    cells: Vec<Cell>,
    /// INVARIANT: the cells from here on are blank.
    used: usize,
    /// The next row continues the line.
    pub(crate) wrapped: bool,
    /// It does with a wide character, for which the last column had no room.
    pub(crate) short: bool,
}

impl Line {
    pub(crate) fn new(cols: usize, pen: Pen) -> Self {
        let used = if pen.is_default() { 0 } else { cols };
        Self { cells: vec![Cell::blank(pen); cols], used, wrapped: false, short: false }
    }

    /// A row with these cells, of which there are `cols` at most.
    fn with_cells(mut cells: Vec<Cell>, cols: usize, wrapped: bool) -> Self {
        let used = cells.len().min(cols);
        cells.resize(cols, Cell::BLANK);
        Self { cells, used, wrapped, short: wrapped && used < cols }
    }

    /// All of its cells.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Its cells without blank ones at the end.
    pub(crate) fn used(&self) -> &[Cell] {
        let used = &self.cells[..self.used];
        let last = used.iter().rposition(|cell| *cell != Cell::BLANK);
        &used[..last.map_or(0, |last| last + 1)]
    }

    pub(crate) fn is_blank(&self) -> bool {
        self.used().is_empty()
    }

    /// Its cells of a line that goes on: all but the one that was left blank.
    pub(crate) fn continued(&self) -> &[Cell] {
        let left_blank = self.short && self.cells.last().is_some_and(|last| last.glyph == Glyph::BLANK);
        &self.cells[..self.cells.len() - usize::from(left_blank)]
    }

    /// Blanks all of it.
    pub(crate) fn clear(&mut self, pen: Pen) {
        self.erase(0..self.cells.len(), pen);
        (self.wrapped, self.short) = (false, false);
    }

    /// Writes characters that take a byte and a column each. They must fit.
    pub(crate) fn write_ascii(&mut self, at: usize, text: &[u8], pen: Pen) {
        let end = at + text.len();
        self.part(at, pen);
        self.part(end, pen);
        for (cell, byte) in self.cells[at..end].iter_mut().zip(text) {
            *cell = Cell { glyph: Glyph::ascii(*byte), pen };
        }
        self.used = self.used.max(end);
    }

    /// Writes a character. It must fit.
    pub(crate) fn write(&mut self, at: usize, glyph: Glyph, pen: Pen) {
        let end = at + if glyph.is_wide() { 2 } else { 1 };
        self.part(at, pen);
        self.part(end, pen);
        self.cells[at..end].fill(Cell { glyph: Glyph::TAIL, pen });
        self.cells[at] = Cell { glyph, pen };
        self.used = self.used.max(end);
    }

    /// Puts another glyph of the same width in the place of one.
    pub(crate) fn replace(&mut self, at: usize, glyph: Glyph) {
        self.cells[at].glyph = glyph;
        // A blank that takes a mark is none any more, and that of a restored line was not used.
        self.used = self.used.max(at + 1);
    }

    pub(crate) fn erase(&mut self, range: Range<usize>, pen: Pen) {
        if range.is_empty() {
            return;
        }
        self.part(range.start, pen);
        self.part(range.end, pen);
        self.fill(range, pen);
    }

    /// Pushes the cells from `at` on to the right; what does not fit is lost.
    pub(crate) fn insert(&mut self, at: usize, count: usize, pen: Pen) {
        let cols = self.cells.len();
        let count = count.min(cols - at);
        self.part(at, pen);
        self.part(cols - count, pen);
        self.cells.copy_within(at..cols - count, at + count);
        self.used = (self.used + count).min(cols);
        self.fill(at..at + count, pen);
    }

    /// Takes cells away; those to the right move up.
    pub(crate) fn delete(&mut self, at: usize, count: usize, pen: Pen) {
        let cols = self.cells.len();
        let count = count.min(cols - at);
        self.part(at, pen);
        self.part(at + count, pen);
        self.cells.copy_within(at + count.., at);
        self.fill(cols - count..cols, pen);
    }

    /// Cuts or fills up the row for another width.
    pub(crate) fn resize(&mut self, cols: usize) {
        if cols < self.cells.len() {
            self.part(cols, Pen::default());
        }
        self.cells.resize(cols, Cell::BLANK);
        self.used = self.used.min(cols);
    }

    /// A wide character that stands on both sides of the border before `at` is blanked.
    fn part(&mut self, at: usize, pen: Pen) {
        if self.cells.get(at).is_some_and(|cell| cell.glyph.is_tail()) {
            self.cells[at - 1..=at].fill(Cell::blank(pen));
        }
    }

    /// INVARIANT: no wide character crosses the ends of the range.
    fn fill(&mut self, range: Range<usize>, pen: Pen) {
        if !pen.is_default() {
            self.used = self.used.max(range.end);
        } else if range.end >= self.used {
            // What is blank already need not be blanked again.
            let end = self.used.max(range.start);
            self.used = self.used.min(range.start);
            return self.cells[range.start..end].fill(Cell::BLANK);
        }
        self.cells[range].fill(Cell::blank(pen));
    }
}

/// Cells of one line, cut into rows of a new width.
pub(crate) fn lay(cells: &[Cell], cols: usize) -> impl Iterator<Item = Line> {
    let mut rest = Some(cells);
    std::iter::from_fn(move || {
        let cells = rest.take()?;
        let mut cut = cells.len().min(cols);
        if cells.get(cut).is_some_and(|cell| cell.glyph.is_tail()) {
            cut -= 1;
        }
        let (row, later) = cells.split_at(cut);
        rest = Some(later).filter(|later| !later.is_empty());
        Some(Line::with_cells(row.to_vec(), cols, rest.is_some()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Pen = Pen { fg: 0, bg: 5, attributes: 0, extra: 0 };

    /// Wide characters are written `WW`; what is blanked in red is `_`.
    fn line(text: &str) -> Line {
        let mut line = Line::new(text.len(), Pen::default());
        for (at, ch) in text.bytes().enumerate() {
            match ch {
                b'W' if at % 2 == 0 => line.write(at, Glyph::new('界', true), Pen::default()),
                b'W' | b' ' => {}
                ch => line.write_ascii(at, &[ch], Pen::default()),
            }
        }
        line
    }

    fn show(line: &Line) -> String {
        let cells = line.cells();
        assert!(cells[line.used..].iter().all(|cell| *cell == Cell::BLANK));
        for (at, cell) in cells.iter().enumerate() {
            let tail = at > 0 && cells[at - 1].glyph.is_wide();
            assert_eq!(cell.glyph.is_tail(), tail, "{at}");
        }
        cells
            .iter()
            .map(|cell| match (cell.glyph.as_ascii(), cell.pen == RED) {
                (Some(b' '), true) => '_',
                (Some(byte), _) => char::from(byte),
                (None, _) => 'W',
            })
            .collect()
    }

    #[test]
    fn half_of_a_wide_character_takes_the_other_half_along() {
        type Change = fn(&mut Line);
        let changes: [(Change, &str); 10] = [
            (|line| line.write_ascii(3, b"x", RED), "ab_xWWcd"),
            (|line| line.write_ascii(2, b"x", RED), "abx_WWcd"),
            (|line| line.write(3, Glyph::new('界', true), RED), "ab_WW_cd"),
            (|line| line.erase(3..5, RED), "ab____cd"),
            (|line| line.erase(0..8, RED), "________"),
            (|line| line.insert(3, 1, RED), "ab___WWc"),
            (|line| line.insert(0, 3, RED), "___abWW_"),
            (|line| line.delete(3, 1, RED), "ab_WWcd_"),
            (|line| line.delete(1, 2, RED), "a_WWcd__"),
            (|line| line.resize(5), "abWW "),
        ];
        for (change, expected) in changes {
            let mut line = line("abWWWWcd");
            change(&mut line);
            assert_eq!(show(&line), expected);
        }
    }

    #[test]
    fn blanks_at_the_end_are_not_used() {
        let mut line = line("ab c    ");
        assert_eq!((line.used().len(), line.used), (4, 4));
        line.erase(3..8, Pen::default());
        assert_eq!((line.used().len(), line.used), (2, 3));
        line.erase(7..8, RED);
        assert_eq!(line.used().len(), 8);
        line.erase(0..2, RED);
        assert!(!line.is_blank());
        line.insert(1, 7, Pen::default());
        assert_eq!(show(&line), "_       ");
        line.clear(Pen::default());
        assert!(line.is_blank());
        line.replace(3, Glyph::new('x', false));
        assert_eq!((line.used().len(), line.used), (4, 4));
    }

    #[test]
    fn lines_are_laid_without_breaking_wide_characters() {
        let rows =
            |text: &str, cols| lay(line(text).used(), cols).map(|row| (show(&row), row.wrapped)).collect::<Vec<_>>();
        let row = |text: &str, wrapped| (text.to_owned(), wrapped);
        assert_eq!(rows("abcdef", 4), [row("abcd", true), row("ef  ", false)]);
        assert_eq!(rows("abWWWWef", 3), [row("ab ", true), row("WW ", true), row("WWe", true), row("f  ", false)]);
        assert_eq!(rows("abWW", 4), [row("abWW", false)]);
        assert_eq!(rows("    ", 2), [row("  ", false)]);
    }
}
