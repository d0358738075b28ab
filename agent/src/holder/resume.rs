//! Going on where another program of this holder has stopped. The counterpart is [`super::upgrade`].

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};

use super::connection::{Connection, Phase};
use super::handover::{Handover, HandoverError, Parts};
use super::history::LateHistory;
use super::pretence;
use super::pty::descriptor;
use super::state::State;

/// What another program has left, understood and not yet touched: its descriptors are as it left them, these are copies.
pub struct Resumed {
    /// The session.
    pub state: State,
    /// Where it lives, and how it is reached.
    pub handover: Handover,
    /// The terminal's master side.
    pub master: OwnedFd,
    /// Its other side.
    pub slave: Option<OwnedFd>,
    /// The listening socket.
    pub listener: UnixListener,
    /// The connections.
    pub connections: Vec<(u64, Left)>,
    left_open: Vec<i32>,
}

/// A connection.
pub struct Left {
    stream: UnixStream,
    phase: Phase,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
}

impl Left {
    /// Goes on with it. Must be called within a runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn connect(self) -> io::Result<Connection> {
        let stream = tokio::net::UnixStream::from_std(self.stream)?;
        Ok(Connection::resume(stream, self.phase, &self.inbox, &self.outbox))
    }
}

/// Reads what another program has left in the file with this number.
///
/// # Errors
/// [`HandoverError`]; nothing has changed then.
pub fn read(number: i32) -> Result<Resumed, HandoverError> {
    let pretence = pretence::get();
    std::thread::sleep(std::time::Duration::from_millis(pretence.delay_ms));
    match pretence.resume.as_deref() {
        Some("panic") => return Err(HandoverError::part(pretend_to_panic())),
        Some(_) => return Err(HandoverError::part("it pretends so")),
        None => {}
    }
    let file = File::from(copy(number)?);
    let length = file.metadata().map_err(HandoverError::part)?.len();
    let mut bytes = vec![0; usize::try_from(length).map_err(HandoverError::part)?];
    file.read_exact_at(&mut bytes, 0).map_err(HandoverError::part)?;
    let parts = Parts::read(&bytes)?;
    let mut handover = parts.handover()?;
    let numbers = handover.descriptors.clone();

    let mut left_open = vec![number, numbers.master, numbers.listener, numbers.history];
    left_open.extend(numbers.slave.into_iter().chain(numbers.log).chain(numbers.recording));
    let saved = handover.state.take().ok_or_else(|| HandoverError::part("there is no state"))?;
    let mut state = State::resume(saved, &parts, numbers.log.map(copy).transpose()?)?;
    state.resume_recording(numbers.recording.map(copy).transpose()?)?;
    state.on_late_history(LateHistory::new(copy(numbers.history)?.into(), handover.history));
    let mut connections = Vec::new();
    for (number, saved) in &handover.connections {
        left_open.push(saved.descriptor);
        let stream = UnixStream::from(copy(saved.descriptor)?);
        let section = |direction: &str| parts.section(&format!("{direction}/{number}")).to_vec();
        connections.push((*number, Left { stream, phase: saved.phase, inbox: section("in"), outbox: section("out") }));
    }
    Ok(Resumed {
        master: copy(numbers.master)?,
        slave: numbers.slave.map(copy).transpose()?,
        listener: copy(numbers.listener)?.into(),
        state,
        handover,
        connections,
        left_open,
    })
}

impl Resumed {
    /// Numbers of the descriptors that the program before us has left open, to be closed when there is no way back any more.
    pub fn take_left_open(&mut self) -> Vec<i32> {
        std::mem::take(&mut self.left_open)
    }
}

fn copy(number: i32) -> Result<OwnedFd, HandoverError> {
    descriptor::copy_of(number).map_err(|error| HandoverError::part(format!("descriptor {number}: {error}")))
}

#[allow(clippy::panic)]
fn pretend_to_panic() -> &'static str {
    panic!("it pretends so")
}
