//! Terminal state as a plain value: bytes of a program go in; cells, modes and replies come out.
//!
//! The same code runs in the holder of a session (the only one who answers queries), in `happy attach` and, as wasm, in
//! the phone. A viewer starts from [`Screen::snapshot`] and goes on with live bytes; a snapshot taken between any two
//! bytes, even inside an escape sequence or a UTF-8 character, continues exactly like the original (PROTOCOL 10.1).
//!
//! What this crate refuses to do: no I/O, no clock, no threads, no PTY. Time limits (an unclosed synchronized update)
//! are the caller's, because only the caller has a clock; see [`SYNC_HOLD`].
//!
//! How a byte travels:
//!
//! 1. The parser cuts the stream into text and sequences. It is ours, total and bounded, and its state can be
//!    written down.
//! 2. The interpreter keeps the mode ledger and the title, and answers queries.
//! 3. The canvas has what is drawn: the cells of both screens, the cursor, the pen, and the rows that have left at the top, in
//!    their byte form.
//!
//! ```
//! use happy_screen::Screen;
//!
//! let mut screen = Screen::new(80, 24, happy_screen::DEFAULT_SCROLLBACK);
//! let feed = screen.feed(b"\x1b]2;build\x07\x1b[32mok\x1b[0m\x1b[6n");
//! assert_eq!(feed.replies, b"\x1b[1;3R");
//! assert_eq!(screen.title(), "build");
//!
//! let restored = Screen::restore(&screen.snapshot(100), happy_screen::DEFAULT_SCROLLBACK)?;
//! assert_eq!(restored.row(0), screen.row(0));
//! # Ok::<(), happy_screen::SnapshotError>(())
//! ```

mod canvas;
mod cell;
mod charsets;
mod clusters;
mod codec;
pub mod delta;
mod extras;
mod frames;
mod grid;
mod handover;
mod interned;
mod interpreter;
pub mod keys;
mod ledger;
mod line;
mod modes;
pub mod mouse;
mod pages;
mod parser;
pub mod predict;
mod progress;
mod queries;
mod render;
mod row;
mod screen;
mod scrollback;
mod sgr;
mod snapshot;
mod steps;
mod tabs;

pub use frames::{FrameError, FramePart, Frames, MAX_FRAME_BYTES};
pub use handover::OlderRows;
pub use modes::{Modes, MouseEncoding, MouseTracking};
pub use pages::{MAX_PAGED_BYTES, MAX_PAGED_ROWS, Pages};
pub use progress::{Progress, ProgressChange, ProgressState};
pub use queries::QueryFilter;
pub use render::{leave_vt, render_begun, render_rows, render_vt};
pub use row::{Color, MAX_ROW_BYTES, Row, Run, Style, Underline};
pub use screen::{Changes, Cursor, Feed, MAX_REPLIES, SYNC_HOLD, Screen, clamp_size};
pub use scrollback::{DEFAULT_SCROLLBACK, MAX_SCROLLBACK_BYTES};
pub use snapshot::{MAX_SNAPSHOT, SNAPSHOT_VERSION, SnapshotError};

/// The narrowest screen: one column cannot show a wide character.
pub const MIN_COLS: u16 = 2;
/// The widest screen; no display shows more, and a cell costs 16 bytes.
pub const MAX_COLS: u16 = 1000;
/// The lowest screen.
pub const MIN_ROWS: u16 = 1;
/// The highest screen.
pub const MAX_ROWS: u16 = 1000;
