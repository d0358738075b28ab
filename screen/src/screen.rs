//! The terminal as one value.

use std::time::Duration;

use crate::grid::Grid;
use crate::interpreter::Interpreter;
use crate::modes::Modes;
use crate::parser::Parser;
use crate::progress::ProgressChange;
use crate::row::{self, Row};
use crate::{MAX_COLS, MAX_ROWS, MIN_COLS, MIN_ROWS};

/// Replies of one feed, in bytes; what is over is dropped. A program that asks more without reading is not listening.
pub const MAX_REPLIES: usize = 4096;
/// How long a viewer may wait for the end of a synchronized update before it draws what is there. Programs that crash
/// in the middle leave the mode set.
pub const SYNC_HOLD: Duration = Duration::from_millis(150);

/// What one call of [`Screen::feed`] has brought besides cells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// Answers to terminal queries, to be written to the PTY by the holder of the session and by nobody else. Like notice and progress they
    /// come only with the feature `holder`.
    pub replies: Vec<u8>,
    /// Something that can be drawn may have changed; [`Screen::take_changes`] tells what.
    pub changed: bool,
    /// Rows that left the main screen at the top and went to the history.
    pub scrolled_off: usize,
    /// The program has cleared the history.
    pub history_cleared: bool,
    /// The title was set; see [`Screen::title`].
    pub title: bool,
    /// The working directory was reported; see [`Screen::cwd`].
    pub cwd: bool,
    /// BEL
    pub bell: bool,
    /// The last notification (OSC 9 or OSC 777), without controls.
    pub notice: Option<String>,
    /// What has become of the program's progress (OSC 9;4), if anything.
    pub progress: Option<ProgressChange>,
}

/// What a viewer has to draw anew since it asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything: the size has changed, or nobody has asked before. `rows` then names all rows.
    pub all: bool,
    /// The history was cleared: drop it, and take the rows that are there now.
    pub history_cleared: bool,
    /// The viewport has moved up by so many rows, which now stand at the end of the history. Move what is drawn, then
    /// draw `rows`.
    pub scrolled_off: usize,
    /// Rows of the viewport that differ from what is drawn after moving it.
    pub rows: Vec<u16>,
}

/// Where the cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// From 0, within the screen.
    pub col: u16,
    /// From 0.
    pub row: u16,
    /// Whether the program wants it shown.
    pub visible: bool,
    /// The last column has been written, and the next character goes to the next row.
    pub pending_wrap: bool,
}

/// A terminal: main and alternate screen, history, modes, title. See the crate's first page.
#[derive(Debug)]
pub struct Screen {
    pub(crate) parser: Parser,
    pub(crate) state: Interpreter,
    /// The rows as they were when the viewer asked last; none: it never did.
    drawn: Rows,
    /// Room for the next ones.
    spare: Rows,
    undrawn: Changes,
    touched: bool,
}

/// Rows in their byte form, one after the other.
#[derive(Debug, Default)]
struct Rows {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Rows {
    fn get(&self, row: usize) -> Option<&[u8]> {
        let begin = row.checked_sub(1).map_or(Some(0), |above| self.ends.get(above).copied())?;
        self.bytes.get(begin..*self.ends.get(row)?)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// The size that a screen of the given size gets: 2 to 1000 columns, 1 to 1000 rows.
pub fn clamp_size(cols: u16, rows: u16) -> (u16, u16) {
    (cols.clamp(MIN_COLS, MAX_COLS), rows.clamp(MIN_ROWS, MAX_ROWS))
}

impl Screen {
    /// An empty screen that keeps at most `scrollback_limit` rows of history (and
    /// [`MAX_SCROLLBACK_BYTES`](crate::MAX_SCROLLBACK_BYTES)). The size is clamped, see [`clamp_size`].
    pub fn new(cols: u16, rows: u16, scrollback_limit: usize) -> Self {
        let (cols, rows) = clamp_size(cols, rows);
        Self::with_state(Parser::default(), Interpreter::new(cols, rows, scrollback_limit))
    }

    pub(crate) fn with_state(parser: Parser, state: Interpreter) -> Self {
        Self {
            parser,
            state,
            drawn: Rows::default(),
            spare: Rows::default(),
            undrawn: Changes::default(),
            touched: true,
        }
    }

    /// Takes the next bytes of the program's output. Where the stream is cut makes no difference.
    pub fn feed(&mut self, bytes: &[u8]) -> Feed {
        self.parser.feed(bytes, &mut self.state);
        let feed = self.state.take_feed();
        self.note(&feed);
        feed
    }

    /// Changes the size, clamped as by [`clamp_size`]. Lines of the main screen are wrapped anew; what does not fit goes
    /// to the history and stays there.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        let (cols, rows) = clamp_size(cols, rows);
        if (cols, rows) != self.size() {
            self.state.resize(cols, rows);
            self.drawn.clear();
        }
    }

    fn note(&mut self, feed: &Feed) {
        self.touched |= feed.changed || feed.scrolled_off > 0;
        self.undrawn.scrolled_off += feed.scrolled_off;
        self.undrawn.history_cleared |= feed.history_cleared;
    }

    /// Columns and rows.
    pub fn size(&self) -> (u16, u16) {
        // Within the bounds of `clamp_size`.
        (self.state.canvas.cols as u16, self.state.canvas.rows as u16)
    }

    /// Where the cursor is.
    pub fn cursor(&self) -> Cursor {
        let canvas = &self.state.canvas;
        let pending_wrap = canvas.cursor.col >= canvas.cols;
        let col = canvas.cursor.col - usize::from(pending_wrap);
        // Within the size.
        Cursor { col: col as u16, row: canvas.cursor.row as u16, visible: self.modes().cursor_visible, pending_wrap }
    }

    /// The modes that the program has set.
    pub fn modes(&self) -> &Modes {
        &self.state.ledger.modes
    }

    /// The title (OSC 0 and 2), without controls, at most 512 bytes.
    pub fn title(&self) -> &str {
        &self.state.ledger.title
    }

    /// The directory that the shell has reported (OSC 7); empty if it never did.
    pub fn cwd(&self) -> &str {
        &self.state.ledger.cwd
    }

    /// A row of the viewport, from the top, 0. Past the end it is empty.
    pub fn row(&self, row: u16) -> Row {
        self.row_of(self.state.canvas.grid(), row)
    }

    /// A row of the main screen, which is not the viewport while a full-screen program runs.
    pub(crate) fn main_row(&self, row: u16) -> Row {
        self.row_of(&self.state.canvas.main, row)
    }

    fn row_of(&self, grid: &Grid, row: u16) -> Row {
        let mut bytes = Vec::new();
        if usize::from(row) < grid.rows() {
            self.encode_row(grid, row, &mut bytes);
        }
        // Our own bytes; an empty row is better than none if they ever were not.
        Row::decode(&bytes).unwrap_or_default()
    }

    fn encode_row(&self, grid: &Grid, row: u16, out: &mut Vec<u8>) {
        let line = grid.line(row.into());
        row::encode_alone(line.used(), line.wrapped, self.state.canvas.names(), out);
    }

    /// How many rows of history are kept.
    pub fn scrollback_len(&self) -> usize {
        self.state.canvas.history.len()
    }

    /// How many rows have ever left the main screen: the number of the next row of history. A snapshot carries it.
    pub fn scrollback_total(&self) -> u64 {
        self.state.canvas.history.total
    }

    /// The number of the oldest row of history that is kept.
    pub fn scrollback_start(&self) -> u64 {
        self.state.canvas.history.start()
    }

    /// A row of the history, from the oldest kept, 0.
    pub fn scrollback_row(&self, index: usize) -> Option<Row> {
        self.state.canvas.history.row(index)
    }

    /// The viewport as plain text: a line for each row, without blank ends and without blank rows at the bottom.
    pub fn text(&self) -> String {
        let (_, rows) = self.size();
        let lines: Vec<String> = (0..rows).map(|row| self.row(row).text().trim_end().to_owned()).collect();
        lines.join("\n").trim_end_matches('\n').to_owned()
    }

    /// What a viewer has to draw anew since the last call. The cursor is not part of it: ask for it every time.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = std::mem::take(&mut self.undrawn);
        if !std::mem::take(&mut self.touched) && !self.drawn.ends.is_empty() {
            return changes;
        }
        changes.all = self.drawn.ends.is_empty();
        let (_, rows) = self.size();
        let mut now = std::mem::take(&mut self.spare);
        now.clear();
        for row in 0..rows {
            self.encode_row(self.state.canvas.grid(), row, &mut now.bytes);
            now.ends.push(now.bytes.len());
            let index = usize::from(row);
            if self.drawn.get(index.saturating_add(changes.scrolled_off)) != now.get(index) {
                changes.rows.push(row);
            }
        }
        self.spare = std::mem::replace(&mut self.drawn, now);
        changes
    }
}
