//! A connection of the holder's socket. What was read and not yet understood, and what was put and not yet written, stands here and
//! not in the task that serves it: between any two waits the whole connection can be handed to another program ([`super::upgrade`]).

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::task::coop::consume_budget;

use super::protocol::{FrameError, READ_AHEAD, take_frame};
use super::state::Key;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It has not said what it wants.
    Greeting,
    /// It shows the session.
    Viewer {
        /// Its place in [`super::state::State`].
        key: Key,
    },
    /// It steers the holder.
    Control {
        /// It has asked for an upgrade and waits for the answer.
        awaits_upgrade: bool,
    },
    /// It ends when what was put is written.
    Farewell,
}

/// A connection.
pub struct Connection {
    stream: UnixStream,
    inbox: RefCell<BytesMut>,
    outbox: RefCell<BytesMut>,
    /// What it is for.
    pub phase: Cell<Phase>,
}

impl Connection {
    /// A connection that has just been made.
    pub fn new(stream: UnixStream) -> Self {
        Self::resume(stream, Phase::Greeting, b"", b"")
    }

    /// A connection that another program has served: what it had read and not understood, and what it had not written.
    pub fn resume(stream: UnixStream, phase: Phase, inbox: &[u8], outbox: &[u8]) -> Self {
        Self { stream, inbox: RefCell::new(inbox.into()), outbox: RefCell::new(outbox.into()), phase: Cell::new(phase) }
    }

    /// The socket.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What [`Connection::resume`] needs.
    pub fn save(&self) -> (Phase, Vec<u8>, Vec<u8>) {
        (self.phase.get(), self.inbox.borrow().to_vec(), self.outbox.borrow().to_vec())
    }

    /// The next frame, its kind in front; `None` when the other side closed between frames. Cancel-safe.
    ///
    /// # Errors
    /// [`FrameError`]; the connection cannot be used afterwards.
    pub async fn next(&self) -> Result<Option<Bytes>, FrameError> {
        loop {
            // Whoever sends without a pause must not keep the others waiting.
            consume_budget().await;
            // From here on to the caller nothing waits, so no frame is ever outside of the inbox and not yet heeded.
            if let Some(frame) = take_frame(&mut self.inbox.borrow_mut())? {
                return Ok(Some(frame));
            }
            self.stream.readable().await?;
            let mut inbox = self.inbox.borrow_mut();
            inbox.reserve(READ_AHEAD);
            match self.stream.try_read_buf(&mut *inbox) {
                Ok(0) => return if inbox.is_empty() { Ok(None) } else { Err(FrameError::Cut) },
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The frames not yet written, to append to with [`super::protocol::put_frame`].
    pub fn buffer(&self) -> RefMut<'_, BytesMut> {
        self.outbox.borrow_mut()
    }

    /// Writes everything that was put. Cancel-safe.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn flush(&self) -> io::Result<()> {
        loop {
            consume_budget().await;
            if self.outbox.borrow().is_empty() {
                return Ok(());
            }
            self.stream.writable().await?;
            let mut outbox = self.outbox.borrow_mut();
            match self.stream.try_write(&outbox) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => outbox.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
