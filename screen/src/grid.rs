//! The rows of one screen.

use std::collections::VecDeque;
use std::ops::Range;

use crate::cell::{Cell, Pen};
use crate::line::{Line, lay};

/// Column and row, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) col: usize,
    pub(crate) row: usize,
}

/// INVARIANT: there is a row, and all rows have the same number of columns.
#[derive(Debug)]
pub(crate) struct Grid {
    lines: VecDeque<Line>,
}

impl Grid {
    pub(crate) fn new(cols: usize, rows: usize, pen: Pen) -> Self {
        Self { lines: std::iter::repeat_n(Line::new(cols, pen), rows).collect() }
    }

    pub(crate) fn rows(&self) -> usize {
        self.lines.len()
    }

    pub(crate) fn lines(&self) -> impl DoubleEndedIterator<Item = &Line> + ExactSizeIterator {
        self.lines.iter()
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.lines.iter().flat_map(Line::cells)
    }

    pub(crate) fn line(&self, row: usize) -> &Line {
        &self.lines[row]
    }

    pub(crate) fn line_mut(&mut self, row: usize) -> &mut Line {
        &mut self.lines[row]
    }

    /// Blanks rows.
    pub(crate) fn clear(&mut self, rows: Range<usize>, pen: Pen) {
        self.lines.range_mut(rows).for_each(|line| line.clear(pen));
    }

    /// Moves the rows of a range up; blank ones come in at its end. Those that leave at its top are shown to `gone`, oldest first.
    pub(crate) fn scroll_up(&mut self, rows: Range<usize>, count: usize, pen: Pen, mut gone: impl FnMut(&Line)) {
        let count = count.min(rows.len());
        self.lines.range(rows.start..rows.start + count).for_each(&mut gone);
        if rows.start > 0 {
            self.lines[rows.start - 1].wrapped = false;
        }
        if rows.len() == self.lines.len() {
            self.lines.rotate_left(count);
        } else {
            self.lines.make_contiguous()[rows.clone()].rotate_left(count);
        }
        self.clear(rows.end - count..rows.end, pen);
    }

    /// Moves the rows of a range down; blank ones come in at its beginning.
    pub(crate) fn scroll_down(&mut self, rows: Range<usize>, count: usize, pen: Pen) {
        let count = count.min(rows.len());
        self.lines.make_contiguous()[rows.clone()].rotate_right(count);
        self.clear(rows.start..rows.start + count, pen);
        if rows.start > 0 {
            self.lines[rows.start - 1].wrapped = false;
        }
        self.lines[rows.end - 1].wrapped = false;
    }

    /// Cuts or fills up rows and columns. Rows that leave at the top are shown to `gone`. The first of the places is that of the cursor; all
    /// move with what stands there.
    pub(crate) fn resize(&mut self, cols: usize, rows: usize, places: &mut [Place], gone: impl FnMut(&Line)) {
        self.lines.iter_mut().for_each(|line| line.resize(cols));
        places.iter_mut().for_each(|place| place.col = place.col.min(cols - 1));
        self.fit(cols, rows, places, gone);
    }

    /// The same, but what is one line stays one: it is wrapped anew.
    pub(crate) fn reflow(&mut self, cols: usize, rows: usize, places: &mut [Place], gone: impl FnMut(&Line)) {
        if cols == self.lines[0].cells().len() {
            return self.fit(cols, rows, places, gone);
        }
        let mut laid = VecDeque::new();
        let mut line = Vec::new();
        // Where the rows begin in the line that they belong to.
        let mut starts = Vec::new();
        let last = self.lines.len() - 1;
        let old_places: Vec<Place> = places.to_vec();
        for (row, old) in std::mem::take(&mut self.lines).into_iter().enumerate() {
            let wrapped = old.wrapped && row < last;
            starts.push(line.len());
            line.extend_from_slice(if wrapped { old.continued() } else { old.used() });
            if wrapped {
                continue;
            }
            let first_old = row + 1 - starts.len();
            let first_new = laid.len();
            laid.extend(lay(&line, cols));
            for (place, old) in places.iter_mut().zip(&old_places) {
                if let Some(start) = old.row.checked_sub(first_old).and_then(|row| starts.get(row)) {
                    let offset = start + old.col;
                    *place = place_of(offset, offset == line.len(), laid.range(first_new..), cols);
                    place.row += first_new;
                }
            }
            line.clear();
            starts.clear();
        }
        self.lines = laid;
        self.fit(cols, rows, places, gone);
    }

    /// Brings the number of rows to `rows`: blank ones below the cursor go first, then those at the top, then those at the bottom.
    fn fit(&mut self, cols: usize, rows: usize, places: &mut [Place], mut gone: impl FnMut(&Line)) {
        let cursor = places.first().map_or(0, |cursor| cursor.row);
        let mut left = 0;
        while self.lines.len() > rows {
            let last = self.lines.len() - 1;
            if cursor > left && (cursor - left == last || !self.lines[last].is_blank()) {
                self.lines.pop_front().iter().for_each(&mut gone);
                left += 1;
            } else {
                self.lines.pop_back();
            }
        }
        self.lines.resize_with(rows, || Line::new(cols, Pen::default()));
        // What it went on in is gone.
        self.lines[rows - 1].wrapped = false;
        places.iter_mut().for_each(|place| place.row = place.row.saturating_sub(left).min(rows - 1));
    }
}

/// Where an offset in a line is, in the rows of that line. Past the last column only if that is where the line ends: a wrap is pending there.
fn place_of<'l>(offset: usize, at_end: bool, rows: impl ExactSizeIterator<Item = &'l Line>, cols: usize) -> Place {
    let (mut start, last) = (0, rows.len() - 1);
    for (row, line) in rows.enumerate() {
        let length = line.continued().len();
        if row == last || offset < start + length {
            let col = offset - start;
            return Place { col: if at_end && col == cols { cols } else { col.min(cols - 1) }, row };
        }
        start += length;
    }
    Place::default()
}
