//! Messages of a terminal channel (`PROTOCOL 10.1`).
//!
//! Output and input are numbered byte streams: a message carries the absolute offset of its first byte, so a receiver
//! trims what it already has and notices what it lacks.

use crate::reader::{Reader, WireError, put_str8};

/// The label of a terminal channel.
pub const LABEL: &str = "terminal";
/// The most bytes of a snapshot, all parts together.
pub const MAX_SNAPSHOT: usize = 16 * 1024 * 1024;
/// The most bytes of output or of a snapshot in one message.
pub const MAX_CHUNK: usize = 32 * 1024;

/// The most output that a viewer with credit is sent and has not drawn. Over a line, or into a terminal, of 1 MB/s it takes 0.066 s, as much
/// again lies in the kernel between the viewer and its terminal, and the frame that shows what ^C did comes behind it within a thirtieth of a
/// second: together less than 0.2 s.
pub const WINDOW: u64 = 64 * 1024;
/// After so much output at the latest a viewer tells what it has drawn, so that a quarter of the window is free again.
pub const DRAWN_EVERY: u64 = 16 * 1024;
/// The most bytes of rows in a [`TerminalMessage::History`], unless it is a single row.
pub const MAX_PAGE: usize = 32 * 1024;
/// Bytes of a [`TerminalMessage::History`] before its rows.
pub const HISTORY_HEAD: usize = 1 + 8 + 8;
/// Pages of history that a viewer may have asked for and not been sent.
pub const MAX_WANTED: usize = 4;

/// How a session's program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(u32),
    /// This signal ended it.
    Signal(u32),
    /// Its end was not seen.
    Unknown,
}

/// One message of a terminal channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TerminalMessage<'a> {
    /// A part of the screen as of `offset`; replaces everything the viewer shows.
    Snapshot {
        /// Output before this offset is in the snapshot.
        offset: u64,
        /// Size of the screen.
        cols: u16,
        /// Size of the screen.
        rows: u16,
        /// Counted from 0.
        part: u16,
        /// At least 1.
        parts: u16,
        /// For `happy-screen`.
        bytes: &'a [u8],
    },
    /// Output of the program.
    Output {
        /// Of the first byte.
        offset: u64,
        /// What the program wrote.
        bytes: &'a [u8],
    },
    /// These bytes are not sent; a snapshot or a frame follows.
    Gap {
        /// The first that is left out.
        from: u64,
        /// The first after those left out.
        to: u64,
    },
    /// The screen has this size from `offset` on.
    Resized {
        /// Where in the output.
        offset: u64,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
        /// Whether the viewer it is sent to decides the size.
        you_control: bool,
        /// Who decides the size; empty when nobody does.
        controller: &'a str,
    },
    /// The program ended; nothing follows.
    Exited {
        /// The end of the output.
        offset: u64,
        /// How.
        exit: Exit,
    },
    /// Every input byte of this writer before `offset` has reached the PTY.
    InputTaken {
        /// An input offset.
        offset: u64,
    },
    /// A part of the screen as of `offset`, without history, as a difference; to viewers with credit.
    Frame {
        /// Output before this offset is on the screen.
        offset: u64,
        /// The frame that it is the difference from; none: from nothing.
        base: Option<u64>,
        /// The oldest row of history that there is.
        kept_from: u64,
        /// Counted from 0.
        part: u16,
        /// At least 1.
        parts: u16,
        /// For `happy-screen`.
        bytes: &'a [u8],
    },
    /// Rows of history, to viewers with credit.
    History {
        /// The number of the first.
        first: u64,
        /// The oldest row that there is.
        kept_from: u64,
        /// For `happy-screen`.
        bytes: &'a [u8],
    },
    /// The viewer's screen has taken everything before this offset; from viewers with credit.
    Drawn {
        /// An output offset.
        offset: u64,
    },
    /// Asks for rows of history; from viewers with credit.
    HistoryWanted {
        /// Rows below this number.
        before: u64,
        /// The newest so many of them.
        rows: u16,
    },
    /// Input, from the viewer.
    Input {
        /// Of the first byte, counted by this writer.
        offset: u64,
        /// What to type.
        bytes: &'a [u8],
    },
}

impl<'a> TerminalMessage<'a> {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            TerminalMessage::Snapshot { offset, cols, rows, part, parts, bytes } => {
                put_head(out, 0x01, *offset);
                [cols, rows, part, parts].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
                out.extend_from_slice(bytes);
            }
            TerminalMessage::Output { offset, bytes } => {
                put_head(out, 0x02, *offset);
                out.extend_from_slice(bytes);
            }
            TerminalMessage::Gap { from, to } => {
                put_head(out, 0x03, *from);
                out.extend_from_slice(&to.to_be_bytes());
            }
            TerminalMessage::Resized { offset, cols, rows, you_control, controller } => {
                put_head(out, 0x04, *offset);
                [cols, rows].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
                out.push((*you_control).into());
                put_str8(out, controller);
            }
            TerminalMessage::Exited { offset, exit } => {
                put_head(out, 0x05, *offset);
                let (how, value) = match exit {
                    Exit::Code(code) => (0, *code),
                    Exit::Signal(signal) => (1, *signal),
                    Exit::Unknown => (2, 0),
                };
                out.push(how);
                out.extend_from_slice(&value.to_be_bytes());
            }
            TerminalMessage::InputTaken { offset } => put_head(out, 0x06, *offset),
            TerminalMessage::Frame { offset, base, kept_from, part, parts, bytes } => {
                put_head(out, 0x07, *offset);
                [base.unwrap_or(NO_BASE), *kept_from].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
                [part, parts].iter().for_each(|n| out.extend_from_slice(&n.to_be_bytes()));
                out.extend_from_slice(bytes);
            }
            TerminalMessage::History { first, kept_from, bytes } => {
                put_head(out, 0x08, *first);
                out.extend_from_slice(&kept_from.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            TerminalMessage::Drawn { offset } => put_head(out, 0x12, *offset),
            TerminalMessage::HistoryWanted { before, rows } => {
                put_head(out, 0x13, *before);
                out.extend_from_slice(&rows.to_be_bytes());
            }
            TerminalMessage::Input { offset, bytes } => {
                put_head(out, 0x11, *offset);
                out.extend_from_slice(bytes);
            }
        }
    }

    /// The message as bytes of its own.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for a cut or unknown message or a field out of range, offsets that wrap around among them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let (kind, offset) = (r.u8()?, r.u64()?);
        let message = match kind {
            0x01 => {
                let (cols, rows, part, parts) = (r.u16()?, r.u16()?, r.u16()?, r.u16()?);
                if part >= parts {
                    return Err(WireError::Field("part of a snapshot"));
                }
                TerminalMessage::Snapshot { offset, cols, rows, part, parts, bytes: r.rest() }
            }
            0x02 => TerminalMessage::Output { offset, bytes: stream_bytes(offset, r.rest())? },
            0x03 => {
                let to = r.u64()?;
                if to <= offset {
                    return Err(WireError::Field("end of a gap"));
                }
                TerminalMessage::Gap { from: offset, to }
            }
            0x04 => TerminalMessage::Resized {
                offset,
                cols: r.u16()?,
                rows: r.u16()?,
                you_control: match r.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(WireError::Field("control flag")),
                },
                controller: r.str8()?,
            },
            0x05 => TerminalMessage::Exited {
                offset,
                exit: match (r.u8()?, r.u32()?) {
                    (0, code) => Exit::Code(code),
                    (1, signal) => Exit::Signal(signal),
                    (2, 0) => Exit::Unknown,
                    _ => return Err(WireError::Field("kind of exit")),
                },
            },
            0x06 => TerminalMessage::InputTaken { offset },
            0x07 => {
                let (base, kept_from, part, parts) = (r.u64()?, r.u64()?, r.u16()?, r.u16()?);
                if part >= parts {
                    return Err(WireError::Field("part of a frame"));
                }
                let base = (base != NO_BASE).then_some(base);
                if base.is_some_and(|base| base > offset) {
                    return Err(WireError::Field("base of a frame"));
                }
                TerminalMessage::Frame { offset, base, kept_from, part, parts, bytes: r.rest() }
            }
            0x08 => TerminalMessage::History { first: offset, kept_from: r.u64()?, bytes: r.rest() },
            0x12 => TerminalMessage::Drawn { offset },
            0x13 => TerminalMessage::HistoryWanted { before: offset, rows: r.u16()? },
            0x11 => TerminalMessage::Input { offset, bytes: stream_bytes(offset, r.rest())? },
            other => return Err(WireError::UnknownType(other)),
        };
        if !r.is_empty() {
            return Err(WireError::Trailing);
        }
        Ok(message)
    }
}

/// In the place of a base: there is none.
const NO_BASE: u64 = u64::MAX;

fn put_head(out: &mut Vec<u8>, kind: u8, offset: u64) {
    out.push(kind);
    out.extend_from_slice(&offset.to_be_bytes());
}

/// Refuses a stream whose offsets would wrap around.
fn stream_bytes(offset: u64, bytes: &[u8]) -> Result<&[u8], WireError> {
    match offset.checked_add(bytes.len() as u64) {
        Some(_) => Ok(bytes),
        None => Err(WireError::Field("offset")),
    }
}
