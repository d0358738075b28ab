//! The rows of history on their way to another program: copied while this one serves, and put in their place when that one does.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use happy_screen::{OlderRows, Screen};

use super::handover::HistoryRange;

/// Rows that are copied in one go: about a tenth of a millisecond.
const ROWS: usize = 256;

/// Bytes that are read in one go, more when a row is longer.
const CHUNK: usize = 64 * 1024;

/// Rows that are copied before the switch.
pub struct EarlyHistory {
    file: File,
    /// The number of the first row in the file, and of the one after the last.
    first: u64,
    next: u64,
}

impl EarlyHistory {
    /// Nothing yet, for an empty file.
    pub fn new(file: File) -> Self {
        Self { file, first: 0, next: 0 }
    }

    /// Copies some more rows; whether more are left.
    ///
    /// # Errors
    /// What the system says.
    pub fn copy(&mut self, screen: &Screen) -> io::Result<bool> {
        let kept = screen.history_numbers();
        if kept.start > self.next {
            // Those in between have gone, and with them the use of those before.
            self.file.set_len(0)?;
            io::Seek::rewind(&mut self.file)?;
            (self.first, self.next) = (kept.start, kept.start);
        }
        let mut bytes = Vec::new();
        for row in screen.history_from(self.next).take(ROWS) {
            bytes.extend_from_slice(&(row.len() as u32).to_be_bytes());
            bytes.extend_from_slice(row);
            self.next += 1;
        }
        self.file.write_all(&bytes)?;
        Ok(self.next < kept.end)
    }

    /// The number of the first row in the file.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The file's descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Rows that come after the switch.
pub struct LateHistory {
    file: File,
    range: HistoryRange,
    offset: u64,
    number: u64,
    chunk: usize,
    rows: OlderRows,
}

impl LateHistory {
    /// Rows in a file that [`EarlyHistory`] has written.
    pub fn new(file: File, range: HistoryRange) -> Self {
        Self { file, range, offset: 0, number: range.in_file, chunk: CHUNK, rows: OlderRows::default() }
    }

    /// Reads some more rows; whether that was all. What cannot be read is lost, and only that.
    pub fn load(&mut self) -> bool {
        match self.read() {
            Ok(()) => self.number >= self.range.to,
            Err(error) => {
                tracing::warn!("the history before the upgrade cannot be read: {error}");
                self.rows = OlderRows::default();
                true
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; self.chunk];
        let count = self.file.read_at(&mut chunk, self.offset)?;
        let mut rest = &chunk[..count];
        while self.number < self.range.to
            && let Some((length, later)) = rest.split_first_chunk()
            && let Some((row, later)) = later.split_at_checked(u32::from_be_bytes(*length) as usize)
        {
            if self.number >= self.range.from {
                self.rows.push(row).map_err(io::Error::other)?;
            }
            self.number += 1;
            rest = later;
        }
        if rest.len() == count && self.number < self.range.to {
            if count < self.chunk {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.chunk *= 2;
        }
        self.offset += (count - rest.len()) as u64;
        Ok(())
    }

    /// The rows that were read.
    pub fn into_rows(self) -> OlderRows {
        self.rows
    }
}
