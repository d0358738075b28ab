//! The holder's socket: who may connect, and the two kinds of connections.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use happy_wire::terminal::TerminalMessage;
use rustix::process::Signal;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::protocol::{
    Attach, FrameReader, FrameWriter, Refusal, Request, Response, VERSION, kind, put_json, read_first, read_json,
    refusal,
};
use super::pty::Pty;
use super::state::{Key, Line, MAX_VIEWERS, State};
use super::viewer::Next;

/// Connections at once: all viewers, and as many again for control and for those that come and go.
const MAX_CONNECTIONS: usize = 2 * MAX_VIEWERS;

/// How long a new connection may take to say what it wants.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// How long a client of a control connection may take to read an answer.
const CONTROL_WRITE: Duration = Duration::from_secs(5);

/// How long a last word may take to be written.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The status is told at once, and then not again for so long: a program may change its title thousands of times a second.
const STATUS_PAUSE: Duration = Duration::from_millis(100);

/// What lies in a viewer's socket is old when it is read, so it is kept small; the ring keeps the rest. A lossless viewer gets what the
/// system gives, since it reads all of it anyway.
const SOCKET_BUFFER: usize = 64 * 1024;

/// After a failed accept (no descriptors left) the next try waits for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running holder.
pub struct Holder {
    /// The session.
    pub state: RefCell<State>,
    /// Its terminal.
    pub pty: Pty,
    /// Told to end.
    pub forgotten: Notify,
}

impl Holder {
    /// Takes connections for as long as it is polled.
    pub async fn serve(self: Rc<Self>, listener: UnixListener) {
        let connections = Rc::new(());
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // The socket's mode keeps others out where modes of sockets are heeded; this does everywhere.
            let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::getuid().as_raw());
            if !ours || Rc::strong_count(&connections) > MAX_CONNECTIONS {
                continue;
            }
            let (holder, connection) = (Rc::clone(&self), Rc::clone(&connections));
            spawn_local(async move {
                if let Err(error) = holder.connection(stream).await {
                    tracing::debug!("a connection broke: {error}");
                }
                drop(connection);
            });
        }
    }

    async fn connection(self: Rc<Self>, stream: UnixStream) -> io::Result<()> {
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        let Ok(Ok(Some(frame))) = timeout(FIRST_FRAME, reader.next()).await else { return Ok(()) };
        let outcome = match frame.split_first() {
            Some((&kind::ATTACH, body)) => match read_first(body) {
                Ok(attach) => self.viewer(attach, &mut reader, &mut writer).await,
                Err(refused) => Err(refused),
            },
            Some((&kind::CONTROL, [VERSION, ..])) => return self.control(reader, writer).await,
            Some((&kind::CONTROL, body)) => read_first(body),
            _ => Err(Refusal::new(refusal::MALFORMED, "a connection begins with Attach or Control")),
        };
        if let Err(refused) = outcome {
            put_json(writer.buffer(), kind::REFUSED, None, &refused);
            let _ = timeout(LAST_WORD, writer.flush()).await;
        }
        Ok(())
    }

    async fn viewer(
        &self,
        attach: Attach,
        reader: &mut FrameReader<OwnedReadHalf>,
        writer: &mut FrameWriter<OwnedWriteHalf>,
    ) -> Result<(), Refusal> {
        if !attach.lossless {
            // Only a matter of how fresh the output is.
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(writer.get_ref().as_ref(), SOCKET_BUFFER);
        }
        let (key, line, attached) = self.state.borrow_mut().attach(attach, Instant::now())?;
        self.apply_size();
        put_json(writer.buffer(), kind::ATTACHED, Some(VERSION), &attached);
        let ended = tokio::select! {
            ended = self.read_input(key, reader) => ended,
            ended = self.write_output(key, &line, writer) => ended,
        };
        self.state.borrow_mut().detach(key);
        ended
    }

    async fn read_input(&self, key: Key, reader: &mut FrameReader<OwnedReadHalf>) -> Result<(), Refusal> {
        let wakes = self.state.borrow().wakes();
        loop {
            while !self.state.borrow().has_input_room() {
                wakes.input_room.notified().await;
            }
            let Some(frame) = reader.next().await.map_err(|e| Refusal::new(refusal::MALFORMED, e.to_string()))? else {
                return Ok(());
            };
            match frame.split_first() {
                Some((&kind::TERMINAL, message)) => match TerminalMessage::decode(message) {
                    Ok(TerminalMessage::Input { offset, bytes }) => {
                        self.state.borrow_mut().on_input(key, offset, bytes)?
                    }
                    Ok(_) => return Err(Refusal::new(refusal::MALFORMED, "a viewer sends nothing but Input")),
                    Err(error) => return Err(Refusal::new(refusal::MALFORMED, error.to_string())),
                },
                // A later client may say more than we understand.
                _ => tracing::debug!("a viewer sent a frame of unknown kind"),
            }
        }
    }

    async fn write_output(
        &self,
        key: Key,
        line: &Line,
        writer: &mut FrameWriter<OwnedWriteHalf>,
    ) -> Result<(), Refusal> {
        loop {
            // A viewer that does not read waits here, at no cost to anybody. Nobody is left to be told of an error.
            if writer.flush().await.is_err() {
                return Ok(());
            }
            let next = self.state.borrow_mut().fill(key, Instant::now(), writer.buffer());
            match next {
                Some(Next::Write) => {}
                Some(Next::Wait) => line.wake.notified().await,
                Some(Next::WaitUntil(time)) => tokio::select! {
                    () = line.wake.notified() => {}
                    () = sleep_until(time) => {}
                },
                None => return line.end.take().map_or(Ok(()), Err),
            }
        }
    }

    async fn control(
        self: &Rc<Self>,
        mut reader: FrameReader<OwnedReadHalf>,
        mut writer: FrameWriter<OwnedWriteHalf>,
    ) -> io::Result<()> {
        let mut changes = self.state.borrow().wakes().status.subscribe();
        let mut seen = *changes.borrow_and_update();
        let mut told_at = Instant::now();
        put_json(writer.buffer(), kind::CONTROLLED, Some(VERSION), &self.state.borrow().status());
        loop {
            timeout(CONTROL_WRITE, writer.flush()).await??;
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => {
                        let response = match self.answer(&frame) {
                            Ok(()) => Response::Ok(self.state.borrow().status()),
                            Err(refused) => Response::Error(refused),
                        };
                        put_json(writer.buffer(), kind::RESPONSE, None, &response);
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        let refused = Refusal::new(refusal::MALFORMED, error.to_string());
                        put_json(writer.buffer(), kind::REFUSED, None, &refused);
                        return timeout(LAST_WORD, writer.flush()).await?;
                    }
                },
                // Cancelled by a request, it starts again without having missed anything.
                _ = async {
                    let _ = changes.wait_for(|changes| *changes != seen).await;
                    sleep_until(told_at + STATUS_PAUSE).await;
                } => {
                    seen = *changes.borrow_and_update();
                    told_at = Instant::now();
                    put_json(writer.buffer(), kind::STATUS, None, &self.state.borrow().status());
                }
            }
        }
    }

    fn answer(self: &Rc<Self>, frame: &[u8]) -> Result<(), Refusal> {
        let Some((&kind::REQUEST, body)) = frame.split_first() else {
            return Err(Refusal::new(refusal::UNKNOWN, "this holder does not know that kind of frame"));
        };
        let request = read_json(body).map_err(|refused| Refusal { code: refusal::UNKNOWN, ..refused })?;
        match request {
            Request::Status => Ok(()),
            Request::Kill { signal, then_kill_after_ms } => self.kill(signal, then_kill_after_ms),
            Request::Resize { viewer, cols, rows } => {
                self.state.borrow_mut().resize(viewer, cols, rows)?;
                self.apply_size();
                Ok(())
            }
            Request::TakeControl { viewer, cols, rows } => {
                self.state.borrow_mut().take_control(viewer, cols, rows)?;
                self.apply_size();
                Ok(())
            }
            Request::Detach { viewer } => self.state.borrow_mut().detach_by_id(viewer),
            Request::Forget if self.state.borrow().pid().is_some() => {
                Err(Refusal::new(refusal::CONFLICT, "the program still runs; end it first"))
            }
            Request::Forget => {
                self.forgotten.notify_one();
                Ok(())
            }
        }
    }

    fn apply_size(&self) {
        let size = self.state.borrow().size();
        if let Err(error) = self.pty.resize(size) {
            tracing::debug!("the terminal's size could not be set: {error}");
        }
    }

    /// Sends a signal, and SIGKILL later when the program does not heed it.
    ///
    /// # Errors
    /// When the program has ended or there is no such signal.
    pub fn kill(self: &Rc<Self>, signal: u32, then_kill_after_ms: u32) -> Result<(), Refusal> {
        let ended = || Refusal::new(refusal::CONFLICT, "the program has ended already");
        let program = self.state.borrow().pid().ok_or_else(ended)?;
        let signal = i32::try_from(signal)
            .ok()
            .and_then(Signal::from_named_raw)
            .ok_or_else(|| Refusal::new(refusal::MALFORMED, format!("{signal} is not a signal")))?;
        self.pty.signal(program, signal).map_err(|error| Refusal::new(refusal::CONFLICT, error.to_string()))?;
        if then_kill_after_ms > 0 && signal != Signal::KILL {
            self.kill_later(program, Duration::from_millis(then_kill_after_ms.into()));
        }
        Ok(())
    }

    fn kill_later(self: &Rc<Self>, program: u32, after: Duration) {
        let holder = Rc::clone(self);
        spawn_local(async move {
            tokio::time::sleep(after).await;
            // While it is not reaped its number is nobody else's.
            if holder.state.borrow().pid() == Some(program)
                && let Err(error) = holder.pty.signal(program, Signal::KILL)
            {
                tracing::warn!("the program could not be killed: {error}");
            }
        });
    }
}
