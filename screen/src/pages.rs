//! Rows of history that travel in pages (PROTOCOL 10.1, History): from a screen that has them, and at a viewer that knows some of them.

use std::collections::BTreeMap;

use crate::codec::{Malformed, Reader, Writer};
use crate::row::Row;
use crate::screen::Screen;
use crate::scrollback::ROW_OVERHEAD;
use crate::snapshot::SnapshotError;

/// Rows that [`Pages`] keep: as many as a holder has unless told otherwise.
pub const MAX_PAGED_ROWS: usize = 10_000;
/// Bytes that they take, whatever their number.
pub const MAX_PAGED_BYTES: usize = 8 << 20;

impl Screen {
    /// The newest `rows` rows of history below the number `before`, as many as `max_bytes` hold but one at least: the number of the
    /// first, and the rows one after the other, each behind its length.
    pub fn history_page(&self, before: u64, rows: u16, max_bytes: usize) -> (u64, Vec<u8>) {
        let history = &self.state.canvas.history;
        let end = before.clamp(history.start(), history.total);
        let start = end.saturating_sub(rows.into()).max(history.start());
        // At most 65,535 of them.
        let wanted: Vec<&[u8]> = history.since(start).take((end - start) as usize).collect();
        let mut room = max_bytes;
        let fits = |row: &&&[u8]| {
            let fits = stored(row) <= room;
            room = room.saturating_sub(stored(row));
            fits
        };
        let fitting = wanted.iter().rev().take_while(fits).count().max(wanted.len().min(1));
        let mut out = Writer::default();
        wanted[wanted.len() - fitting..].iter().for_each(|row| out.bytes(row));
        (end - fitting as u64, out.0)
    }

    /// Gives away the rows of history, each with its number, oldest first. The screen has none afterwards, and goes on counting.
    pub fn take_history(&mut self) -> impl Iterator<Item = (u64, Box<[u8]>)> {
        let start = self.state.canvas.history.start();
        (start..).zip(self.state.canvas.history.take())
    }
}

/// A row behind its length, which takes at most three bytes.
fn stored(row: &[u8]) -> usize {
    3 + row.len()
}

/// Rows of history by number, with gaps. Rows and bytes are bounded; those that are furthest from where the person looks go first.
#[derive(Debug, Default)]
pub struct Pages {
    rows: BTreeMap<u64, Box<[u8]>>,
    bytes: usize,
    near: u64,
}

impl Pages {
    /// Where the person looks: rows near this number stay.
    pub fn look_at(&mut self, number: u64) {
        self.near = number;
    }

    /// Takes the rows of a page. Gives how many there were.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`]; then no row of it is kept.
    pub fn insert_page(&mut self, first: u64, page: &[u8]) -> Result<u64, SnapshotError> {
        let rows = read_page(first, page)?;
        let count = rows.len() as u64;
        rows.into_iter().for_each(|(number, row)| self.insert(number, row.into()));
        Ok(count)
    }

    /// Takes rows that a screen gave away.
    pub fn insert_all(&mut self, rows: impl Iterator<Item = (u64, Box<[u8]>)>) {
        rows.for_each(|(number, row)| self.insert(number, row));
    }

    fn insert(&mut self, number: u64, row: Box<[u8]>) {
        self.bytes += row.len() + ROW_OVERHEAD;
        if let Some(old) = self.rows.insert(number, row) {
            self.bytes -= old.len() + ROW_OVERHEAD;
        }
        while self.rows.len() > MAX_PAGED_ROWS || self.bytes > MAX_PAGED_BYTES {
            self.drop_furthest();
        }
    }

    fn drop_furthest(&mut self) {
        let distance = |entry: Option<(&u64, &Box<[u8]>)>| entry.map_or(0, |(number, _)| number.abs_diff(self.near));
        let is_first = distance(self.rows.first_key_value()) >= distance(self.rows.last_key_value());
        let dropped = if is_first { self.rows.pop_first() } else { self.rows.pop_last() };
        self.bytes -= dropped.map_or(0, |(_, row)| row.len() + ROW_OVERHEAD);
    }

    /// The rows below this number are gone.
    pub fn forget_before(&mut self, number: u64) {
        if self.rows.first_key_value().is_none_or(|(first, _)| *first >= number) {
            return;
        }
        self.rows = self.rows.split_off(&number);
        self.bytes = self.rows.values().map(|row| row.len() + ROW_OVERHEAD).sum();
    }

    /// A row, if it is here.
    pub fn row(&self, number: u64) -> Option<Row> {
        // Only our own encoder and checked pages put rows here.
        self.rows.get(&number).map(|row| Row::decode(row).unwrap_or_default())
    }

    /// The first number from this one on that is here.
    pub fn next(&self, number: u64) -> Option<u64> {
        self.rows.range(number..).next().map(|(next, _)| *next)
    }

    /// How many rows are here.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

fn read_page(first: u64, page: &[u8]) -> Result<Vec<(u64, &[u8])>, Malformed> {
    let mut input = Reader(page);
    let mut rows = Vec::new();
    let mut number = first;
    while !input.is_empty() {
        let row = input.bytes(page.len())?;
        Row::check(row)?;
        rows.push((number, row));
        number = number.checked_add(1).ok_or(Malformed)?;
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::MAX_ROW_BYTES;
    use crate::{DEFAULT_SCROLLBACK, MAX_COLS};

    /// The rows are their numbers.
    fn screen(history: u64, limit: usize) -> Screen {
        let mut screen = Screen::new(40, 2, limit);
        (0..history + 1).for_each(|n| drop(screen.feed(format!("{n}\r\n").as_bytes())));
        assert_eq!(screen.scrollback_total(), history);
        screen
    }

    fn texts(first: u64, page: &[u8]) -> Vec<String> {
        read_page(first, page).unwrap().iter().map(|(_, row)| Row::decode(row).unwrap().text()).collect()
    }

    fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
        range.map(|n| n.to_string()).collect()
    }

    #[test]
    fn a_page_is_the_newest_rows_below_a_number() {
        let screen = screen(100, 60);
        assert_eq!(screen.scrollback_start(), 40);
        for (before, rows, wanted) in [
            (90, 10, 80..90),
            (45, 10, 40..45),
            (u64::MAX, 3, 97..100),
            (100, 0, 100..100),
            (40, 9, 40..40),
            (0, 9, 40..40),
        ] {
            let (first, page) = screen.history_page(before, rows, 1 << 20);
            assert_eq!((first, texts(first, &page)), (wanted.start, numbers(wanted)), "before {before}");
        }
        // Five rows of three bytes: flags and two digits; and three for their lengths.
        let (first, page) = screen.history_page(90, 99, 5 * 6 + 5);
        assert_eq!((first, texts(first, &page)), (85, numbers(85..90)));
    }

    #[test]
    fn a_row_that_is_larger_than_a_page_comes_alone_and_has_a_bound() {
        let mut screen = Screen::new(MAX_COLS, 1, DEFAULT_SCROLLBACK);
        let marks = "\u{20d0}".repeat(20);
        for n in 0..u32::from(MAX_COLS) * 3 {
            let [_, r, g, b] = n.to_be_bytes();
            screen.feed(format!("\x1b[1;38;2;{r};{g};{b};48;2;{b};{g};{r}m\u{1f600}{marks}").as_bytes());
        }
        let (first, page) = screen.history_page(2, 2, 8 * 1024);
        assert_eq!((first, read_page(first, &page).unwrap().len()), (1, 1));
        assert!(page.len() > 16 * 1024 && page.len() <= 3 + MAX_ROW_BYTES, "{}", page.len());
    }

    #[test]
    fn what_was_taken_from_a_screen_and_what_came_in_pages_stand_together() {
        let mut old = screen(30, 1_000);
        let mut pages = Pages::default();
        pages.insert_all(old.take_history());
        assert_eq!((old.scrollback_len(), old.scrollback_total(), old.scrollback_start()), (0, 30, 30));
        assert_eq!(old.text(), "30");

        let later = screen(100, 1_000);
        let (first, page) = later.history_page(80, 10, 1 << 20);
        assert_eq!(pages.insert_page(first, &page), Ok(10));
        assert_eq!(pages.len(), 40);
        assert_eq!(
            [29, 30, 70, 79, 80].map(|n| pages.row(n).map(|row| row.text())).map(Option::unwrap_or_default),
            ["29", "", "70", "79", ""]
        );
        assert_eq!([0, 30, 75, 80].map(|n| pages.next(n)), [Some(0), Some(70), Some(75), None]);
        pages.forget_before(75);
        assert_eq!((pages.next(0), pages.len()), (Some(75), 5));
    }

    #[test]
    fn what_is_far_from_the_person_goes_first_and_both_bounds_hold() {
        let row = |size: usize| vec![0; size].into_boxed_slice();
        let mut pages = Pages::default();
        pages.look_at(50_000);
        pages.insert_all((0..30_000).chain(49_000..60_000).map(|n| (n, row(1))));
        assert_eq!(pages.len(), MAX_PAGED_ROWS);
        // A thousand below and nine thousand above were nearest.
        assert_eq!((pages.next(0), pages.next(58_999), pages.next(59_000)), (Some(49_000), Some(58_999), None));
        pages.insert_all((0..2_000).map(|n| (n, row(MAX_ROW_BYTES))));
        assert!(pages.bytes <= MAX_PAGED_BYTES && pages.next(0) == Some(49_000));
        pages.insert_all((49_000..51_000).map(|n| (n, row(MAX_ROW_BYTES))));
        assert!(pages.bytes <= MAX_PAGED_BYTES && pages.row(50_000).is_some() && pages.len() > 100, "{}", pages.len());
        let counted: usize = pages.rows.values().map(|row| row.len() + ROW_OVERHEAD).sum();
        assert_eq!(pages.bytes, counted);
    }

    #[test]
    fn hostile_pages_leave_no_trace() {
        let (first, page) = screen(9, 99).history_page(9, 9, 1 << 20);
        let mut pages = Pages::default();
        for bad in [&page[..page.len() - 1], &[&page[..], &[2, 0]].concat(), &[&page[..], &[1, 9]].concat()] {
            assert_eq!(pages.insert_page(first, bad), Err(SnapshotError::Malformed));
        }
        assert_eq!(pages.insert_page(u64::MAX - 3, &page), Err(SnapshotError::Malformed), "numbers wrap around");
        assert!(pages.is_empty());
    }
}
