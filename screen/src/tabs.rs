//! Tab stops: every eighth column, unless a program has its own.

use crate::codec::{Malformed, Reader, Writer};

/// Whether a tab stops there, for each column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tabs(Vec<bool>);

impl Tabs {
    pub(crate) fn new(cols: usize) -> Self {
        Self((0..cols).map(is_usual).collect())
    }

    /// The next stop, or the last column.
    pub(crate) fn after(&self, col: usize) -> usize {
        let next = (col + 1..self.0.len()).find(|col| self.0[*col]);
        next.unwrap_or(self.0.len() - 1)
    }

    /// The stop before, or the first column.
    pub(crate) fn before(&self, col: usize) -> usize {
        (0..col.min(self.0.len())).rfind(|col| self.0[*col]).unwrap_or(0)
    }

    pub(crate) fn set(&mut self, col: usize, stops: bool) {
        if let Some(stop) = self.0.get_mut(col) {
            *stop = stops;
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.fill(false);
    }

    pub(crate) fn resize(&mut self, cols: usize) {
        let old = self.0.len();
        self.0.truncate(cols);
        self.0.extend((old..cols).map(is_usual));
    }

    /// The columns that are not as usual: how many, and each as its distance from the one before.
    pub(crate) fn encode(&self, out: &mut Writer) {
        let odd: Vec<usize> = (0..self.0.len()).filter(|col| self.0[*col] != is_usual(*col)).collect();
        out.varint(odd.len() as u64);
        let mut from = 0;
        for col in odd {
            out.varint((col - from) as u64);
            from = col;
        }
    }

    pub(crate) fn decode(input: &mut Reader<'_>, cols: usize) -> Result<Self, Malformed> {
        let mut tabs = Self::new(cols);
        let mut col = 0;
        for _ in 0..input.count(cols)? {
            col += input.count(cols)?;
            let stop = tabs.0.get_mut(col).ok_or(Malformed)?;
            *stop = !is_usual(col);
        }
        Ok(tabs)
    }
}

fn is_usual(col: usize) -> bool {
    col > 0 && col.is_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_every_eight_columns_until_they_are_changed() {
        let mut tabs = Tabs::new(20);
        assert_eq!([0, 7, 8, 16, 19].map(|col| tabs.after(col)), [8, 8, 16, 19, 19]);
        assert_eq!([0, 8, 9, 20].map(|col| tabs.before(col)), [0, 0, 8, 16]);
        tabs.set(8, false);
        tabs.set(3, true);
        tabs.set(99, true);
        assert_eq!((tabs.after(0), tabs.after(3)), (3, 16));
        tabs.resize(12);
        assert_eq!(tabs.after(3), 11);
        tabs.resize(40);
        assert_eq!((tabs.after(3), tabs.after(31)), (16, 32));
        tabs.clear();
        assert_eq!(tabs.after(3), 39);
    }

    #[test]
    fn they_come_back_from_bytes_and_nonsense_does_not() {
        let mut tabs = Tabs::new(20);
        [(8, false), (3, true), (19, true)].into_iter().for_each(|(col, stops)| tabs.set(col, stops));
        let mut out = Writer::default();
        tabs.encode(&mut out);
        assert_eq!(out.0, [3, 3, 5, 11]);
        assert_eq!(Tabs::decode(&mut Reader(&out.0), 20), Ok(tabs));
        assert_eq!(Tabs::decode(&mut Reader(&out.0), 19), Err(Malformed));
        assert_eq!(Tabs::decode(&mut Reader(&[21]), 20), Err(Malformed));
    }
}
