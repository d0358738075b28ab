//! Asciicasts: recordings of terminals as asciinema and its players have them. Written in version 3, read in versions 2 and 3
//! (<https://docs.asciinema.org/manual/asciicast/v3/>).
//!
//! A recording is text: a [`Header`] in the first line, then an event a line, an array of a time, a kind and its data. This crate
//! knows no files, clocks and terminals: the time is an argument, lines go into a buffer, and come from whatever can be read.
//!
//! ```
//! use std::time::Duration;
//! use happy_cast::{Event, Header, Reader, Writer};
//!
//! let mut cast = Header { cols: 80, rows: 24, ..Header::default() }.to_line();
//! let mut writer = Writer::default();
//! writer.output(1_500, "grün\r\n".as_bytes(), &mut cast);
//! writer.exit(2_000, 0, &mut cast);
//!
//! let mut reader = Reader::new(&cast[..])?;
//! let first = reader.next_event()?.unwrap();
//! assert_eq!((first.at, first.event), (Duration::from_millis(1_500), Event::Output("grün\r\n".into())));
//! # Ok::<(), happy_cast::ReadError>(())
//! ```

mod header;
mod read;
mod write;

pub use header::Header;
pub use read::{MAX_LINE, ReadError, Reader, Timed};
pub use write::{MAX_DATA, MERGE_MS, Writer};

/// What happens in a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program prints.
    Output(String),
    /// The terminal gets another size, columns and rows.
    Resize(u16, u16),
    /// A place that somebody has marked, with what it is called.
    Mark(String),
    /// The program has ended with this status.
    Exit(String),
}
