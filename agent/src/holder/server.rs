//! The holder's socket: who may connect, and the two kinds of connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use happy_wire::terminal::TerminalMessage;
use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Connection, Phase};
use super::prompting::{Answer, Moment};
use super::protocol::{
    Attach, Refusal, Request, Response, Status, VERSION, kind, put_json, read_first, read_json, refusal,
};
use super::pty::Pty;
use super::spec::{SessionDir, unix_ms};
use super::state::{Key, Line, MAX_READ, MAX_VIEWERS, State};
use super::upgrade;
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

/// Reads that may come before an answer: what a terminal holds is less, and a program that goes on printing does not wait.
const READS_BEFORE_ANSWER: usize = 16;

/// A running holder.
pub struct Holder {
    /// The session.
    pub state: RefCell<State>,
    /// Its terminal.
    pub pty: Pty,
    /// Told to end.
    pub forgotten: Notify,
    /// Its folder.
    pub dir: SessionDir,
    /// Where it listens.
    pub socket: PathBuf,
    /// Its socket.
    pub listener: UnixListener,
    /// All connections, by a number of their own.
    pub connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    /// Another program is about to take over.
    pub is_upgrading: Cell<bool>,
    /// The session is one of tmux, and the program its client.
    pub is_guest: bool,
}

impl Holder {
    /// Takes connections for as long as it is polled.
    pub async fn serve(self: Rc<Self>) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // The socket's mode keeps others out where modes of sockets are heeded; this does everywhere.
            let ours = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::getuid().as_raw());
            let connections = self.connections.borrow();
            if !ours || connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let number = connections.last_key_value().map_or(0, |(last, _)| last + 1);
            drop(connections);
            self.take_on(number, Connection::new(stream));
        }
    }

    /// Serves a connection until it ends.
    pub fn take_on(self: &Rc<Self>, number: u64, connection: Connection) {
        let connection = Rc::new(connection);
        self.connections.borrow_mut().insert(number, Rc::clone(&connection));
        let holder = Rc::clone(self);
        spawn_local(async move {
            if let Err(error) = holder.connection(&connection).await {
                tracing::debug!("a connection broke: {error}");
            }
            holder.connections.borrow_mut().remove(&number);
        });
    }

    async fn connection(self: &Rc<Self>, connection: &Connection) -> io::Result<()> {
        let is_resumed = connection.phase.get() != Phase::Greeting;
        if !is_resumed {
            let Ok(Ok(Some(frame))) = timeout(FIRST_FRAME, connection.next()).await else { return Ok(()) };
            if let Err(refused) = self.begin(connection, &frame) {
                bid_farewell(connection, &refused);
            }
        }
        match connection.phase.get() {
            Phase::Viewer { key } => {
                let outcome = self.viewer(key, connection).await;
                self.state.borrow_mut().detach(key);
                match outcome {
                    Ok(()) => return Ok(()),
                    Err(refused) => bid_farewell(connection, &refused),
                }
            }
            Phase::Control { .. } => self.control(connection, is_resumed).await?,
            Phase::Greeting | Phase::Farewell => {}
        }
        if connection.phase.get() == Phase::Farewell {
            let _ = timeout(LAST_WORD, connection.flush()).await;
        }
        Ok(())
    }

    /// Heeds the first frame.
    fn begin(&self, connection: &Connection, frame: &[u8]) -> Result<(), Refusal> {
        match frame.split_first() {
            Some((&kind::ATTACH, body)) => {
                let attach: Attach = read_first(body)?;
                if !attach.lossless {
                    // Only a matter of how fresh the output is.
                    let _ = rustix::net::sockopt::set_socket_send_buffer_size(connection.descriptor(), SOCKET_BUFFER);
                }
                let (key, attached) = self.state.borrow_mut().attach(attach, Instant::now())?;
                self.apply_size();
                put_json(&mut connection.buffer(), kind::ATTACHED, Some(VERSION), &attached);
                connection.phase.set(Phase::Viewer { key });
                Ok(())
            }
            Some((&kind::CONTROL, [VERSION, ..])) => {
                put_json(&mut connection.buffer(), kind::CONTROLLED, Some(VERSION), &self.state.borrow().status());
                connection.phase.set(Phase::Control { awaits_upgrade: false });
                Ok(())
            }
            Some((&kind::CONTROL, body)) => read_first(body),
            _ => Err(Refusal::new(refusal::MALFORMED, "a connection begins with Attach or Control")),
        }
    }

    async fn viewer(&self, key: Key, connection: &Connection) -> Result<(), Refusal> {
        // It may have been cut off in the program before this one.
        let line = self.state.borrow().line(key);
        let Some(line) = line else { return self.state.borrow_mut().take_end(key) };
        tokio::select! {
            ended = self.read_input(key, connection) => ended,
            ended = self.write_output(key, &line, connection) => ended,
        }
    }

    async fn read_input(&self, key: Key, connection: &Connection) -> Result<(), Refusal> {
        let wakes = self.state.borrow().wakes();
        loop {
            while !self.state.borrow().has_input_room() {
                wakes.input_room.notified().await;
            }
            let frame = connection.next().await.map_err(|e| Refusal::new(refusal::MALFORMED, e.to_string()))?;
            let Some(frame) = frame else { return Ok(()) };
            match frame.split_first() {
                Some((&kind::TERMINAL, message)) => match TerminalMessage::decode(message) {
                    Ok(TerminalMessage::Input { offset, bytes }) => {
                        self.state.borrow_mut().on_input(key, offset, bytes)?
                    }
                    Ok(TerminalMessage::Drawn { offset }) => self.state.borrow_mut().on_drawn(key, offset)?,
                    Ok(TerminalMessage::HistoryWanted { before, rows }) => {
                        self.state.borrow_mut().on_history_wanted(key, before, rows)?
                    }
                    Ok(_) => return Err(Refusal::new(refusal::MALFORMED, "only what a viewer sends is taken from it")),
                    Err(error) => return Err(Refusal::new(refusal::MALFORMED, error.to_string())),
                },
                // A later client may say more than we understand.
                _ => tracing::debug!("a viewer sent a frame of unknown kind"),
            }
        }
    }

    async fn write_output(&self, key: Key, line: &Line, connection: &Connection) -> Result<(), Refusal> {
        loop {
            // A viewer that does not read waits here, at no cost to anybody. Nobody is left to be told of an error.
            if connection.flush().await.is_err() {
                return Ok(());
            }
            let next = self.state.borrow_mut().fill(key, Instant::now(), &mut connection.buffer());
            match next {
                Some(Next::Write) => {}
                Some(Next::Wait) => line.wake.notified().await,
                Some(Next::WaitUntil(time)) => tokio::select! {
                    () = line.wake.notified() => {}
                    () = sleep_until(time) => {}
                },
                None => return self.state.borrow_mut().take_end(key),
            }
        }
    }

    async fn control(self: &Rc<Self>, connection: &Connection, is_resumed: bool) -> io::Result<()> {
        let mut changes = self.state.borrow().wakes().status.subscribe();
        // Another program has other things to say of itself, whatever was said before.
        let mut seen = if is_resumed { u64::MAX } else { *changes.borrow_and_update() };
        let mut told_at = Instant::now();
        let mut printed = self.state.borrow().wakes().printed.subscribe();
        // What is watched: the end of the output that was told last.
        let mut watched: Option<u64> = None;
        loop {
            timeout(CONTROL_WRITE, connection.flush()).await??;
            tokio::select! {
                frame = connection.next() => match frame {
                    Ok(Some(frame)) => {
                        if let Some(on) = wants_to_watch(&frame) {
                            watched = on.then(|| *printed.borrow());
                        }
                        let response = match self.answer(&frame, connection).await {
                            Ok(()) => Response::Ok(self.told(watched.is_some())),
                            Err(refused) => Response::Error(refused),
                        };
                        connection.phase.set(Phase::Control { awaits_upgrade: false });
                        put_json(&mut connection.buffer(), kind::RESPONSE, None, &response);
                    }
                    Ok(None) => return Ok(()),
                    Err(error) => {
                        bid_farewell(connection, &Refusal::new(refusal::MALFORMED, error.to_string()));
                        return Ok(());
                    }
                },
                // Cancelled by a request, it starts again without having missed anything.
                _ = async {
                    tokio::select! {
                        _ = changes.wait_for(|changes| *changes != seen) => {}
                        _ = printed.wait_for(|end| Some(*end) != watched), if watched.is_some() => {}
                    }
                    sleep_until(told_at + STATUS_PAUSE).await;
                } => {
                    seen = *changes.borrow_and_update();
                    told_at = Instant::now();
                    watched = watched.map(|_| *printed.borrow());
                    put_json(&mut connection.buffer(), kind::STATUS, None, &self.told(watched.is_some()));
                }
            }
        }
    }

    /// What a control connection is told.
    fn told(&self, watches: bool) -> Status {
        let state = self.state.borrow();
        Status { line: watches.then(|| state.last_line()), ..state.status() }
    }

    async fn answer(self: &Rc<Self>, frame: &[u8], connection: &Connection) -> Result<(), Refusal> {
        let Some((&kind::REQUEST, body)) = frame.split_first() else {
            return Err(Refusal::new(refusal::UNKNOWN, "this holder does not know that kind of frame"));
        };
        let request = read_json(body).map_err(|refused| Refusal { code: refusal::UNKNOWN, ..refused })?;
        match request {
            Request::Status => {
                self.look_if_paused();
                Ok(())
            }
            Request::Watch { .. } => Ok(()),
            Request::Kill { signal, then_kill_after_ms } => self.kill(signal, then_kill_after_ms),
            Request::Pause | Request::Resume if self.is_guest => {
                Err(Refusal::new(refusal::CONFLICT, "a session of tmux cannot be paused, only the programs in it"))
            }
            Request::Pause => self.pause(true),
            Request::Resume => self.pause(false),
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
            Request::GiveControl { viewer } => self.state.borrow_mut().give_control(viewer),
            Request::Detach { viewer } => self.state.borrow_mut().detach_by_id(viewer),
            Request::Record(order) => {
                let description = self.dir.description().map_err(|error| {
                    Refusal::new(refusal::CONFLICT, format!("the session's description cannot be read: {error}"))
                })?;
                self.state.borrow_mut().record(&order, &description)
            }
            Request::StopRecording => self.state.borrow_mut().stop_recording(),
            Request::Answer(answer) => self.answer_prompt(&answer),
            Request::Call { text } => {
                self.state.borrow_mut().on_called(&text);
                Ok(())
            }
            Request::Upgrade { .. } if self.is_guest => Err(Refusal::new(
                refusal::UNKNOWN,
                "a session of tmux gets another program when it is next attached to",
            )),
            Request::Upgrade { program } => {
                // Whoever takes over answers.
                connection.phase.set(Phase::Control { awaits_upgrade: true });
                Err(upgrade::upgrade(self, &program).await)
            }
            Request::Forget if self.state.borrow().pid().is_some() => {
                Err(Refusal::new(refusal::CONFLICT, "the program still runs; end it first"))
            }
            Request::Forget => {
                self.forgotten.notify_one();
                Ok(())
            }
        }
    }

    /// Looks at the screen, whether the program waits for a person.
    pub fn look(&self) {
        self.state.borrow_mut().look(self.pty.tty());
    }

    /// Answers the question of the program. From what it has printed up to now to the keys nothing comes in between.
    fn answer_prompt(&self, answer: &Answer) -> Result<(), Refusal> {
        let mut buffer = vec![0; MAX_READ];
        let mut is_still = false;
        for _ in 0..READS_BEFORE_ANSWER {
            if !self.state.borrow().may_read() {
                break;
            }
            let Some(count) = self.pty.read_now(&mut buffer) else {
                is_still = true;
                break;
            };
            self.state.borrow_mut().on_output(&buffer[..count]);
        }
        if !is_still {
            return Err(Refusal::new(refusal::CONFLICT, "no longer waiting: the program prints"));
        }
        let moment = Moment { tty: self.pty.tty(), is_unread: self.pty.has_unread_input(), now: unix_ms() };
        let mut state = self.state.borrow_mut();
        state.answer(answer, moment)?;
        // What the terminal does not take now is typed as soon as it does.
        let written = self.pty.write_now(state.pending_input());
        state.on_typed(written);
        if !state.pending_input().is_empty() {
            state.wakes().input.notify_one();
        }
        Ok(())
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
        if self.state.borrow().is_paused() && signal != Signal::STOP {
            // It waits for the program until that goes on.
            let _ = self.pty.resume(program);
            self.state.borrow_mut().on_paused(false);
        }
        if then_kill_after_ms > 0 && signal != Signal::KILL {
            self.kill_later(program, Duration::from_millis(then_kill_after_ms.into()));
        }
        Ok(())
    }

    /// Stops every process of the terminal's session, or lets them go on.
    fn pause(&self, paused: bool) -> Result<(), Refusal> {
        let ended = || Refusal::new(refusal::CONFLICT, "the program has ended already");
        let program = self.state.borrow().pid().ok_or_else(ended)?;
        if paused && self.state.borrow().killed_at().is_some() {
            return Err(Refusal::new(refusal::CONFLICT, "the program was told to end"));
        }
        let done = if paused { self.pty.pause(program) } else { self.pty.resume(program) };
        done.map_err(|error| Refusal::new(refusal::CONFLICT, error.to_string()))?;
        self.state.borrow_mut().on_paused(paused);
        Ok(())
    }

    /// Somebody else may have let a paused program go on.
    fn look_if_paused(&self) {
        let (paused, program) = (self.state.borrow().is_paused(), self.state.borrow().pid());
        if paused && program.is_some_and(|program| super::processes::is_stopped(program) == Some(false)) {
            self.state.borrow_mut().on_paused(false);
        }
    }

    fn kill_later(self: &Rc<Self>, program: u32, after: Duration) {
        let at = Instant::now() + after;
        self.state.borrow_mut().kill_at(at);
        self.kill_at(program, at);
    }

    /// Kills the program then, if it still runs.
    pub fn kill_at(self: &Rc<Self>, program: u32, at: Instant) {
        let holder = Rc::clone(self);
        spawn_local(async move {
            sleep_until(at).await;
            // While it is not reaped its number is nobody else's.
            if holder.state.borrow().pid() == Some(program)
                && let Err(error) = holder.pty.signal(program, Signal::KILL)
            {
                tracing::warn!("the program could not be killed: {error}");
            }
        });
    }
}

/// What a frame asks for, if it asks to watch or to watch no more.
fn wants_to_watch(frame: &[u8]) -> Option<bool> {
    match frame.split_first().map(|(_, body)| read_json(body)) {
        Some(Ok(Request::Watch { on })) => Some(on),
        _ => None,
    }
}

fn bid_farewell(connection: &Connection, refused: &Refusal) {
    put_json(&mut connection.buffer(), kind::REFUSED, None, refused);
    connection.phase.set(Phase::Farewell);
}
