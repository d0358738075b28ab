//! A screen that goes on in another process: a snapshot without rows is small and can be taken at the last moment; the rows of the
//! history never change once they are there, so they are copied before and put in their place afterwards.

use std::ops::Range;

use crate::row::Row;
use crate::screen::Screen;
use crate::snapshot::SnapshotError;

/// Rows of a history, from the oldest, in their byte form. They are checked as they come.
#[derive(Debug, Default)]
pub struct OlderRows(Vec<Box<[u8]>>);

impl OlderRows {
    /// Adds a row that another screen gave out.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`] when it is none.
    pub fn push(&mut self, row: &[u8]) -> Result<(), SnapshotError> {
        Row::check(row)?;
        self.0.push(row.into());
        Ok(())
    }
}

impl Screen {
    /// The numbers of the rows of history that are kept. A row keeps its number for good.
    pub fn history_numbers(&self) -> Range<u64> {
        let total = self.state.canvas.history.total;
        total.saturating_sub(self.state.canvas.history.len() as u64)..total
    }

    /// The rows of history from this number on, or from the oldest one kept, in their byte form.
    pub fn history_from(&self, number: u64) -> impl ExactSizeIterator<Item = &[u8]> {
        let count = self.state.canvas.history.total.saturating_sub(number);
        self.state.canvas.history.newest(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Puts rows after the newest, as if they had left the screen at the top. For a screen whose history is somebody else's.
    pub fn append_history(&mut self, rows: OlderRows) {
        rows.0.iter().for_each(|row| self.state.canvas.history.push(row));
        // Whether the newest goes on in the first row of the screen nobody has said.
        self.state.canvas.continued = false;
    }

    /// Forgets the rows of history. The next one gets the next number all the same.
    pub fn clear_history(&mut self) {
        self.state.canvas.history.clear();
        self.state.canvas.continued = false;
    }

    /// Puts rows before the oldest that is kept, the newest of them first, as many as the history may have.
    pub fn prepend_history(&mut self, rows: OlderRows) {
        self.state.canvas.history.prepend(rows.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(screen: &mut Screen, lines: Range<u32>) {
        lines.for_each(|line| drop(screen.feed(format!("\x1b[3{}mline {line}\r\n", line % 8).as_bytes())));
    }

    #[test]
    fn a_screen_without_its_history_gets_it_back_and_is_as_before() {
        for limit in [0, 1, 50, 1_000] {
            let mut old = Screen::new(20, 5, limit);
            print(&mut old, 0..300);
            let numbers = old.history_numbers();
            let (middle, mut rows) = (numbers.start + (numbers.end - numbers.start) / 2, OlderRows::default());
            let copied = old.history_from(numbers.start).take((middle - numbers.start) as usize);
            copied.chain(old.history_from(middle)).for_each(|row| rows.push(row).unwrap());

            let mut new = Screen::restore(&old.snapshot(0), limit).unwrap();
            assert_eq!(new.history_numbers(), numbers.end..numbers.end);
            // It goes on printing before the older rows are there.
            print(&mut old, 300..310);
            print(&mut new, 300..310);
            new.prepend_history(rows);
            assert_eq!(new.snapshot(usize::MAX), old.snapshot(usize::MAX), "{limit} rows");
        }
    }

    #[test]
    fn a_history_of_somebody_else_goes_on_and_begins_anew() {
        let rows = |screen: &Screen| {
            let mut rows = OlderRows::default();
            screen.history_from(0).for_each(|row| rows.push(row).unwrap());
            rows
        };
        let mut other = Screen::new(20, 1, 50);
        print(&mut other, 0..9);
        let mut screen = Screen::new(40, 5, 12);
        screen.append_history(rows(&other));
        screen.append_history(rows(&other));
        assert_eq!(screen.history_numbers(), 6..18);
        assert_eq!(screen.scrollback_row(11).unwrap().text(), "line 8");
        screen.clear_history();
        screen.append_history(rows(&other));
        assert_eq!(screen.history_numbers(), 18..27);
        assert_eq!(Screen::restore(&screen.snapshot(99), 12).unwrap().history_numbers(), 18..27);
    }

    #[test]
    fn what_is_no_row_is_refused() {
        assert_eq!(OlderRows::default().push(b"no row"), Err(SnapshotError::Malformed));
    }
}
