//! The rows that tmux keeps of a pane, as rows of our history. Plain values: what to fetch, and what the answer means.
//!
//! tmux says how many rows it keeps, not how many there ever were, and drops a tenth of them when they are too many. So what was fetched last is
//! fetched once more with what is new, and where the two do not meet everything is fetched anew.

use happy_screen::{OlderRows, Screen};

/// Rows that are fetched once more, to see that the new ones follow them.
const SEAM: usize = 8;

/// Bytes of an answer at most: a cell takes so many when it has colours and marks of its own.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
const CELL_BYTES: usize = 80;

/// The state of a pane's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// The pane's number.
    pub pane: u64,
    /// Its columns.
    pub width: u16,
    /// Rows of history.
    pub size: u64,
    /// The most there may be.
    pub limit: u64,
}

/// What is known of a pane's history.
#[derive(Debug, Default)]
pub struct History {
    known: Option<Kept>,
    /// The newest rows, as they were fetched.
    newest: Vec<Vec<u8>>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// Everything is here.
    Nothing,
    /// So many rows are new.
    Append(usize),
    /// It is the history of another pane, or of another width, or not to be continued.
    Anew,
}

impl History {
    /// What is to be done now that the history is this.
    pub fn plan(&self, now: Kept) -> Plan {
        let Some(known) = self.known else { return if now.size == 0 { Plan::Nothing } else { Plan::Anew } };
        if (known.pane, known.width) != (now.pane, now.width) {
            return Plan::Anew;
        }
        // tmux's `grid_collect_history`.
        let dropped = (now.limit / 10).max(1);
        let new = match now.size.checked_sub(known.size) {
            Some(new) => new,
            None if known.size + dropped >= now.limit => (now.size + dropped).saturating_sub(known.size),
            None => return Plan::Anew,
        };
        match usize::try_from(new) {
            Ok(0) if now.size == known.size => Plan::Nothing,
            Ok(0) | Err(_) => Plan::Anew,
            Ok(new) if self.with_seam(new) > rows_at_once(now.width) => Plan::Anew,
            Ok(new) => Plan::Append(new),
        }
    }

    /// How many rows to fetch for so many new ones. tmux spells the colours of a row by what differs from the row above, so the first one may look
    /// otherwise than before, and is not compared.
    pub fn with_seam(&self, new: usize) -> usize {
        new + self.newest.len() + 1
    }

    /// Takes the newest rows, of which `new` should be new. None when they do not follow what is here.
    pub fn append(&mut self, now: Kept, new: usize, rows: &[Vec<u8>]) -> Option<OlderRows> {
        let seam = rows.len().checked_sub(new)?;
        if seam < self.newest.len() || !rows[..seam].ends_with(&self.newest) {
            return None;
        }
        self.remember(now, &rows[seam..]);
        Some(encode(now.width, rows, new))
    }

    /// Begins anew with these rows, the newest there are.
    pub fn begin(&mut self, now: Kept, rows: &[Vec<u8>]) {
        self.newest.clear();
        self.remember(now, rows);
    }

    /// Whether nothing is known yet.
    pub fn is_empty(&self) -> bool {
        self.known.is_none()
    }

    fn remember(&mut self, now: Kept, rows: &[Vec<u8>]) {
        self.known = Some(now);
        self.newest.extend_from_slice(rows);
        self.newest.drain(..self.newest.len().saturating_sub(SEAM));
    }
}

/// How many rows of a pane may be fetched at once.
pub fn rows_at_once(width: u16) -> usize {
    (PAGE_BYTES / CELL_BYTES / usize::from(width.max(1))).clamp(4 * SEAM, 2_000)
}

/// How many lines come for the rows from `first` to `last` above the screen, as tmux counts them: 1 is the newest. With no such row it gives
/// the first one of the screen.
pub fn lines_for(size: u64, first: u64, last: u64) -> usize {
    let top = size.saturating_sub(first);
    let bottom = size.saturating_sub(last);
    usize::try_from(bottom.saturating_sub(top) + 1).unwrap_or(usize::MAX)
}

/// The newest of rows in the form of tmux, text with colours, in the form of ours.
pub fn encode(width: u16, rows: &[Vec<u8>], newest: usize) -> OlderRows {
    let mut screen = Screen::new(width, 1, newest);
    // tmux draws lines with SO, as for a terminal whose G1 is that of line drawing.
    screen.feed(b"\x1b[0m\x1b)0");
    for row in rows {
        screen.feed(row);
        screen.feed(b"\r\n");
    }
    let mut encoded = OlderRows::default();
    for row in screen.history_from(0) {
        if encoded.push(row).is_err() {
            tracing::debug!("a row of tmux's history cannot be read");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(size: u64) -> Kept {
        Kept { pane: 1, width: 80, size, limit: 1_000 }
    }

    fn rows(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
        numbers.map(|n| n.to_string().into_bytes()).collect()
    }

    fn texts(rows: OlderRows) -> Vec<String> {
        let mut screen = Screen::new(80, 1, 1_000);
        screen.append_history(rows);
        (0..screen.scrollback_len()).map(|n| screen.scrollback_row(n).unwrap().text()).collect()
    }

    #[test]
    fn new_rows_follow_the_known_ones_or_all_is_fetched_anew() {
        let mut history = History::default();
        assert_eq!(history.plan(kept(0)), Plan::Nothing);
        assert_eq!(history.plan(kept(5)), Plan::Anew);
        history.begin(kept(100), &rows(0..100));
        assert_eq!(history.plan(kept(100)), Plan::Nothing);
        assert_eq!(history.plan(kept(103)), Plan::Append(3));
        let fetched = history.with_seam(3);
        let appended = history.append(kept(103), 3, &rows(103 - fetched as u64..103)).unwrap();
        assert_eq!(texts(appended), ["100", "101", "102"]);
        assert!(history.append(kept(106), 3, &rows(96..106)).is_none(), "rows are missing in between");
        assert!(history.append(kept(106), 3, &rows(104..106)).is_none(), "too few");
        assert_eq!(history.plan(Kept { width: 40, ..kept(103) }), Plan::Anew);
        assert_eq!(history.plan(Kept { pane: 2, ..kept(103) }), Plan::Anew);
        assert_eq!(history.plan(kept(50)), Plan::Anew, "it was cleared");
    }

    #[test]
    fn a_full_history_loses_a_tenth_and_goes_on() {
        let mut history = History::default();
        history.begin(kept(995), &rows(0..995));
        // At a thousand a hundred go, then ten more come.
        assert_eq!(history.plan(kept(910)), Plan::Append(15));
        let appended = history.append(kept(910), 15, &rows(995 - SEAM as u64..1_010)).unwrap();
        assert_eq!(texts(appended).len(), 15);
        // A flood in between may have gone round any number of times: the seam shows it.
        assert_eq!(history.plan(kept(915)), Plan::Append(5));
        assert!(history.append(kept(915), 5, &rows(1_102..1_115)).is_none());
    }

    #[test]
    fn rows_keep_their_colours_and_full_ones_stay_one() {
        let full = [b"\x1b[31m".to_vec(), vec![b'x'; 80]].concat();
        let all = [b"a\x1b[1mb".to_vec(), full, Vec::new(), "é漢".as_bytes().to_vec()];
        let mut screen = Screen::new(80, 1, 10);
        screen.append_history(encode(80, &all, 4));
        assert_eq!(screen.scrollback_len(), 4);
        let row = |n| screen.scrollback_row(n).unwrap();
        // Spelled by what differs from the row above, which is known already.
        let mut last = Screen::new(80, 1, 10);
        last.append_history(encode(80, &[b"\x1b[31ma".to_vec(), b"b".to_vec()], 1));
        assert_eq!((last.scrollback_len(), last.scrollback_row(0).unwrap().text().as_str()), (1, "b"));
        let mut red = Screen::new(80, 1, 10);
        red.feed(b"\x1b[31mb\r\n");
        assert_eq!(last.scrollback_row(0), red.scrollback_row(0));
        assert_eq!((row(0).text().as_str(), row(1).text().len(), row(3).text().as_str()), ("ab", 80, "é漢"));
        let mut alike = Screen::new(80, 1, 10);
        alike.feed(b"a\x1b[1mb\r\n");
        assert_eq!(row(0), alike.scrollback_row(0).unwrap());
    }

    #[test]
    fn lines_are_counted_as_tmux_prints_them() {
        assert_eq!(lines_for(100, 10, 1), 10);
        assert_eq!(lines_for(5, 10, 1), 5);
        assert_eq!(lines_for(0, 10, 1), 1);
        assert_eq!(lines_for(10, 20, 11), 1, "above the oldest there is nothing but it");
        assert_eq!(lines_for(15, 20, 11), 5);
    }
}
