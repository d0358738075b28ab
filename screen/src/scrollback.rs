//! Rows that have left the main screen at the top, kept in their byte form.
//!
//! 10,000 rows of a log take about 1 MB here, and 14 MB as cells. Old rows keep the width they had.

use std::collections::VecDeque;

use crate::row::Row;

/// Rows kept unless the caller says otherwise: an afternoon of a shell, a few minutes of a build.
pub const DEFAULT_SCROLLBACK: usize = 10_000;
/// Bytes kept whatever the number of rows. A row in which every cell has its own colours and marks takes 50 KB, and a
/// program can write 10,000 of those.
pub const MAX_SCROLLBACK_BYTES: usize = 16 << 20;
/// What the allocator and the queue add to each row.
pub(crate) const ROW_OVERHEAD: usize = 32;

#[derive(Debug)]
pub(crate) struct Scrollback {
    rows: VecDeque<Box<[u8]>>,
    limit: usize,
    bytes: usize,
    /// Rows that ever left the screen, kept or not.
    pub(crate) total: u64,
}

impl Scrollback {
    pub(crate) fn new(limit: usize) -> Self {
        Self { rows: VecDeque::new(), limit, bytes: 0, total: 0 }
    }

    pub(crate) fn push(&mut self, row: &[u8]) {
        self.total = self.total.saturating_add(1);
        if self.limit == 0 {
            return;
        }
        self.bytes += row.len() + ROW_OVERHEAD;
        while self.rows.len() >= self.limit || self.bytes > MAX_SCROLLBACK_BYTES {
            let Some(oldest) = self.rows.pop_front() else { break };
            self.bytes -= oldest.len() + ROW_OVERHEAD;
        }
        self.rows.push_back(row.into());
    }

    /// Puts rows before the oldest, from the newest of them on, for as long as both bounds allow.
    pub(crate) fn prepend(&mut self, older: Vec<Box<[u8]>>) {
        for row in older.into_iter().rev() {
            let bytes = self.bytes + row.len() + ROW_OVERHEAD;
            if self.rows.len() >= self.limit || bytes > MAX_SCROLLBACK_BYTES {
                return;
            }
            self.bytes = bytes;
            self.rows.push_front(row);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.take();
    }

    /// The rows, which are not here any more.
    pub(crate) fn take(&mut self) -> VecDeque<Box<[u8]>> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }

    /// The number of the oldest row that is kept.
    pub(crate) fn start(&self) -> u64 {
        self.total - self.rows.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// From the oldest, 0.
    pub(crate) fn row(&self, index: usize) -> Option<Row> {
        // Only our own encoder and checked snapshots put rows here.
        self.rows.get(index).map(|row| Row::decode(row).unwrap_or_default())
    }

    /// The row with this number and those after it.
    pub(crate) fn since(&self, number: u64) -> impl DoubleEndedIterator<Item = &[u8]> {
        let index = usize::try_from(number.saturating_sub(self.start())).unwrap_or(usize::MAX);
        self.rows.range(index.min(self.rows.len())..).map(AsRef::as_ref)
    }

    /// The newest rows, at most `count`, oldest first.
    pub(crate) fn newest(&self, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        let skipped = self.rows.len().saturating_sub(count);
        self.rows.range(skipped..).map(AsRef::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rows_go_first_and_both_bounds_hold() {
        let mut store = Scrollback::new(3);
        for n in 0..5 {
            store.push(&[0, b'0' + n]);
        }
        let texts: Vec<_> = (0..3).filter_map(|index| store.row(index)).map(|row| row.text()).collect();
        assert_eq!(texts, ["2", "3", "4"]);
        assert_eq!((store.len(), store.total), (3, 5));

        let mut store = Scrollback::new(usize::MAX);
        for _ in 0..600 {
            store.push(&vec![0; 50_000]);
        }
        assert!(store.bytes <= MAX_SCROLLBACK_BYTES && store.len() > 300, "{} rows", store.len());

        let mut none = Scrollback::new(0);
        none.push(&[0]);
        assert_eq!((none.len(), none.total), (0, 1));
    }
}
