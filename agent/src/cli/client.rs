//! The command line's end of the daemon's socket.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_rpc::{Call, CallError, Session, SessionPages};
use happy_wire::call::CallMessage;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::cli::output::tame;
use crate::cli::sessions::command_at;
use crate::daemon::local::{LocalCall, LocalRequest};
use crate::daemon::socket::{self, Control, Greeted, Greeting, Hello, Unanswered};
use crate::service::INSIDE;
use crate::trouble::{Trouble, start_anew};

/// Messages of one channel that wait for the program: with the largest message 16 MiB, in practice 32 KiB each. When they
/// are not taken the socket is not read, and the daemon waits.
const CHANNEL_QUEUE: usize = 64;
/// Messages that wait for the socket.
const WRITE_QUEUE: usize = 64;
/// Events that wait for the program; the oldest go first when it does not take them.
const EVENT_QUEUE: usize = 256;
/// How long the daemon may take to answer the first message.
const GREETING_TIME: Duration = Duration::from_secs(10);
/// How long a local call may take; longer than the 30 s that the daemon gives another machine (`PROTOCOL 10`).
const CALL_TIME: Duration = Duration::from_secs(40);

/// Why a call gave nothing.
#[derive(Debug)]
pub enum CallFailure {
    /// The callee said no.
    Refused(CallError),
    /// It is not known whether it was done.
    Unanswered(Unanswered),
    /// The daemon is gone.
    DaemonGone,
}

impl From<CallFailure> for Trouble {
    fn from(failure: CallFailure) -> Self {
        match failure {
            CallFailure::Refused(error) => Trouble::new(sentence(&error.message), remedy(&error)),
            CallFailure::Unanswered(Unanswered::Indeterminate) => Trouble::new(
                "The other machine restarted before it answered: it may have been done, or not.",
                "Look with `happy ls` before you try again.",
            ),
            CallFailure::Unanswered(Unanswered::DeadlinePassed) => Trouble::new(
                "The other machine did not answer in time; it may still do it.",
                "See with `happy devices` whether it is connected, and try again.",
            ),
            CallFailure::Unanswered(Unanswered::LinkGone) => Trouble::new(
                "The other machine is no longer known here.",
                "Pair again: `happy pair` there, `happy join LINK` here.",
            ),
            CallFailure::DaemonGone => {
                Trouble::new("The daemon ended.", "Start it with `happy daemon start` and look at `happy logs`.")
            }
        }
    }
}

/// A machine did not answer in time a call that changes something there or not; without a link, why there was none.
fn no_answer(name: &str, link: Result<bool, Option<String>>) -> Trouble {
    match link {
        Ok(true) => CallFailure::Unanswered(Unanswered::DeadlinePassed).into(),
        Ok(false) => Trouble::new(
            format!("{name} did not answer in time."),
            "See with `happy devices` whether it is connected, and try again.",
        ),
        Err(Some(why)) => Trouble::new(
            format!("Nothing was sent, for {name} could not be reached: {}.", tame(&why, 400)),
            "See with `happy daemon status` how the relay is, and try again.",
        ),
        Err(None) => Trouble::new(
            format!("Nothing was sent, for there was no connection to {name}."),
            "See whether the daemon runs there and has a network; `happy devices` says when it is connected.",
        ),
    }
}

pub fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).chain(['.']).collect(),
        None => "It was refused.".into(),
    }
}

/// Whether it was refused because this command runs inside of a session.
pub fn is_inside(error: &CallError) -> bool {
    error.code == happy_rpc::ErrorCode::NotPermitted && error.message.starts_with(INSIDE)
}

fn remedy(error: &CallError) -> &'static str {
    use happy_rpc::ErrorCode;
    match error.code {
        // Whoever asked is the owner, whose programs are held off mistakes.
        ErrorCode::NotPermitted if is_inside(error) => {
            "This terminal is a session of happy: leave it first (Ctrl-] unless you chose another key), or open another terminal."
        }
        ErrorCode::Malformed => {
            "Look at what was asked for; if that is right, this is a mistake of ours, so please report it."
        }
        ErrorCode::UnknownMethod => "Upgrade the older of the two sides.",
        ErrorCode::NotPermitted => "Ask an owner of that machine to do it, or to pair you with another role.",
        ErrorCode::NotFound => "See with `happy ls` which sessions there are, and with `happy devices` which devices.",
        ErrorCode::Conflict => "`happy ls` shows how things stand now.",
        ErrorCode::TooMany => "End some that are no longer needed, or wait a moment.",
        ErrorCode::Failed => "See whether `happy logs` says more.",
        ErrorCode::Busy => "Try again in a moment.",
        ErrorCode::Reused => "Do it again if it was not done.",
        ErrorCode::Expired => "Do it again if it is still wanted.",
        ErrorCode::Indeterminate => "Look whether it was done before you do it again.",
    }
}

/// A connection to the daemon. Dropping the last clone ends it.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    out: mpsc::Sender<(u32, Vec<u8>)>,
    state: Mutex<State>,
    events_ready: tokio::sync::Notify,
    next_call: AtomicU64,
    next_tag: AtomicU32,
    greeted: Greeted,
    target: Option<String>,
    reader: tokio::task::AbortHandle,
}

#[derive(Default)]
struct State {
    closed: bool,
    link_up: bool,
    /// Whether there was a link at any time.
    was_up: bool,
    /// Why there is none, when it is known.
    away: Option<String>,
    calls: HashMap<u64, oneshot::Sender<Result<Vec<u8>, Unanswered>>>,
    opening: HashMap<u32, oneshot::Sender<Result<Channel, String>>>,
    channels: HashMap<u32, mpsc::Sender<Incoming>>,
    events: VecDeque<Happening>,
}

/// Something that came without being asked for.
#[derive(Debug)]
pub enum Happening {
    /// An event's body.
    Event(Vec<u8>),
    /// With a target: the link went up or down.
    Link(bool),
}

/// What comes on a channel.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Vec<u8>),
    /// The end, by the other side.
    Closed {
        /// `PROTOCOL 13`.
        code: u16,
        /// For people.
        reason: String,
    },
}

/// An open channel.
#[derive(Debug)]
pub struct Channel {
    /// Its number, for calls that name it.
    pub number: u32,
    incoming: mpsc::Receiver<Incoming>,
}

impl Channel {
    /// The next message; `None` when the daemon is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Whether everything that came was taken.
    pub fn is_idle(&self) -> bool {
        self.incoming.is_empty()
    }
}

impl Client {
    /// Connects to the daemon at a socket; `None` when no daemon listens there.
    ///
    /// # Errors
    /// When the socket cannot be used, or the daemon refuses, for instance because it does not know the target.
    pub async fn connect(path: &Path, target: Option<&str>) -> Result<Option<Client>, Trouble> {
        let stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error) if is_nobody_there(error.kind()) => return Ok(None),
            Err(error) => return Err(Trouble::file("connect to the daemon at", path, &error)),
        };
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::with_capacity(64 * 1024, reader);
        let hello = Hello { happy: socket::VERSION, target: target.map(str::to_owned) };
        let mut frame = Vec::new();
        socket::put_frame(&mut frame, socket::CALLS, &serde_json::to_vec(&hello).unwrap_or_default());
        let greeting = tokio::time::timeout(GREETING_TIME, async {
            writer.write_all(&frame).await?;
            socket::read_frame(&mut reader).await
        });
        let greeted = match greeting.await {
            Ok(Ok(Some((socket::CALLS, body)))) => match serde_json::from_slice(&body) {
                Ok(Greeting::Ok(greeted)) => greeted,
                Ok(Greeting::Error(error)) => return Err(not_greeted(path, error)),
                Err(_) => return Err(strange_daemon()),
            },
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) if is_nobody_there(error.kind()) => return Ok(None),
            Ok(_) => return Err(strange_daemon()),
            Err(_) => {
                return Err(Trouble::new(
                    "The daemon does not answer on its socket.",
                    "Look at `happy logs`; if it hangs, end it with `happy daemon stop` or by its process id.",
                ));
            }
        };
        Ok(Some(Self::start(reader, writer, greeted, target)))
    }

    fn start(
        reader: BufReader<OwnedReadHalf>,
        writer: OwnedWriteHalf,
        greeted: Greeted,
        target: Option<&str>,
    ) -> Client {
        let (out, queue) = mpsc::channel(WRITE_QUEUE);
        tokio::spawn(write(writer, queue));
        let (handle, shared) = oneshot::channel::<std::sync::Weak<Shared>>();
        // The reader holds the client weakly, so that dropping the client ends it.
        let reader = tokio::spawn(async move {
            if let Ok(shared) = shared.await {
                read(reader, shared).await;
            }
        });
        let client = Client(Arc::new(Shared {
            out,
            state: Mutex::new(State { link_up: greeted.link_up, was_up: greeted.link_up, ..State::default() }),
            events_ready: tokio::sync::Notify::new(),
            next_call: AtomicU64::new(1),
            next_tag: AtomicU32::new(1),
            greeted,
            target: target.map(str::to_owned),
            reader: reader.abort_handle(),
        }));
        let _ = handle.send(Arc::downgrade(&client.0));
        client
    }

    /// Who answers here.
    pub fn greeted(&self) -> &Greeted {
        &self.0.greeted
    }

    /// The other machine that is spoken to, as the person named it.
    pub fn target(&self) -> Option<&str> {
        self.0.target.as_deref()
    }

    /// Notes why there is no link.
    pub fn is_away(&self, why: String) {
        self.0.state().away = Some(why);
    }

    /// What a failed call means, which may have changed something or not.
    pub fn explain(&self, failure: CallFailure, changes: bool) -> Trouble {
        let CallFailure::Unanswered(Unanswered::DeadlinePassed) = failure else {
            let mut trouble = Trouble::from(failure);
            // It is about what there is at that machine.
            trouble.todo = trouble.todo.replace("happy ls", &command_at("ls", self.target()));
            return trouble;
        };
        let state = self.0.state();
        let link = match state.was_up {
            true => Ok(changes),
            false => Err(state.away.clone()),
        };
        no_answer(&tame(&self.0.greeted.name, 64), link)
    }

    /// Whether the link to the target is up.
    pub fn link_up(&self) -> bool {
        self.0.state().link_up
    }

    /// Makes a call.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Output, CallFailure> {
        let body = self.exchange(call.to_body()).await?;
        C::read_answer(&body).map_err(CallFailure::Refused)
    }

    /// All sessions, however many answers that takes.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn sessions(&self) -> Result<Vec<Session>, CallFailure> {
        let mut pages = SessionPages::default();
        while pages.take(self.call(pages.next()).await?) {}
        Ok(pages.into_sessions())
    }

    /// The same, with the answer read as a type that may know less of it.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn call_as<T: serde::de::DeserializeOwned>(&self, call: impl Call) -> Result<T, CallFailure> {
        let body = self.exchange(call.to_body()).await?;
        read_local_answer(&body).map_err(CallFailure::Refused)
    }

    /// Makes a call that exists only on this socket.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn local<C: LocalCall>(&self, call: C) -> Result<C::Output, CallFailure> {
        let request: LocalRequest = call.into();
        let body = self.exchange(serde_json::to_vec(&request).unwrap_or_default()).await?;
        read_local_answer(&body).map_err(CallFailure::Refused)
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Vec<u8>, CallFailure> {
        let id = self.0.next_call.fetch_add(1, Ordering::Relaxed);
        let (give, answer) = oneshot::channel();
        {
            let mut state = self.0.state();
            if state.closed {
                return Err(CallFailure::DaemonGone);
            }
            state.calls.insert(id, give);
        }
        let message = CallMessage::Request { id, body: &body }.to_vec();
        if message.len() > socket::MAX_MESSAGE {
            self.0.state().calls.remove(&id);
            return Err(CallFailure::Refused(CallError::new(
                happy_rpc::ErrorCode::TooMany,
                "the request is larger than 256 KiB; is the environment or the command line very long?",
            )));
        }
        self.0.out.send((socket::CALLS, message)).await.map_err(|_| CallFailure::DaemonGone)?;
        match tokio::time::timeout(CALL_TIME, answer).await {
            Ok(Ok(Ok(body))) => Ok(body),
            Ok(Ok(Err(why))) => Err(CallFailure::Unanswered(why)),
            Ok(Err(_)) => Err(CallFailure::DaemonGone),
            Err(_) => {
                self.0.state().calls.remove(&id);
                Err(CallFailure::Unanswered(Unanswered::DeadlinePassed))
            }
        }
    }

    /// Opens an interactive channel.
    ///
    /// # Errors
    /// When the daemon is gone or refuses.
    pub async fn open(&self, label: &str) -> Result<Channel, CallFailure> {
        let tag = self.0.next_tag.fetch_add(1, Ordering::Relaxed);
        let (give, opened) = oneshot::channel();
        {
            let mut state = self.0.state();
            if state.closed {
                return Err(CallFailure::DaemonGone);
            }
            state.opening.insert(tag, give);
        }
        let control = Control::Open { tag, class: happy_wire::frame::Class::Interactive as u8, label: label.into() };
        self.0.out.send((socket::CONTROL, control.to_vec())).await.map_err(|_| CallFailure::DaemonGone)?;
        match tokio::time::timeout(CALL_TIME, opened).await {
            Ok(Ok(Ok(channel))) => Ok(channel),
            Ok(Ok(Err(reason))) => Err(CallFailure::Refused(CallError::new(happy_rpc::ErrorCode::Failed, reason))),
            Ok(Err(_)) => Err(CallFailure::DaemonGone),
            Err(_) => {
                self.0.state().opening.remove(&tag);
                Err(CallFailure::Unanswered(Unanswered::DeadlinePassed))
            }
        }
    }

    /// Sends a message on a channel; waits while the daemon is slow. `false` when the daemon is gone.
    pub async fn send(&self, channel: u32, message: Vec<u8>) -> bool {
        self.0.out.send((channel, message)).await.is_ok()
    }

    /// Closes a channel from this side.
    pub async fn close(&self, channel: u32) {
        self.0.state().channels.remove(&channel);
        let close = Control::Close { channel, code: happy_wire::Code::GOODBYE.0, reason: String::new() };
        let _ = self.0.out.send((socket::CONTROL, close.to_vec())).await;
    }

    /// The next event; `None` when the daemon is gone. For one taker at a time.
    pub async fn event(&self) -> Option<Happening> {
        loop {
            let ready = self.0.events_ready.notified();
            {
                let mut state = self.0.state();
                if let Some(event) = state.events.pop_front() {
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            ready.await;
        }
    }
}

/// Whether it means that no daemon runs, or that the one that did ended in this very moment: a death resets connections that
/// wait for their `accept`, cuts those that were accepted, and breaks the pipe of a greeting under way.
fn is_nobody_there(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected, NotFound, UnexpectedEof};
    matches!(kind, NotFound | ConnectionRefused | ConnectionReset | NotConnected | BrokenPipe | UnexpectedEof)
}

/// The daemon knows no such machine, or may not speak to it.
fn not_greeted(socket: &Path, error: CallError) -> Trouble {
    use happy_rpc::ErrorCode;
    let todo = match error.code {
        ErrorCode::NotFound => {
            "Give its name or the beginning of its id, or join it first: `happy pair` there, `happy join LINK` here."
                .into()
        }
        ErrorCode::Conflict => "Give more of the id.".into(),
        ErrorCode::NotPermitted if is_inside(&error) => remedy(&error).into(),
        // Nobody but that machine itself can have said so.
        ErrorCode::NotPermitted => start_anew(socket.parent().unwrap_or(socket)),
        // What the keys say, here or there.
        ErrorCode::Failed => "Pair again: `happy pair` there, `happy join LINK` here.".into(),
        _ => remedy(&error).into(),
    };
    Trouble::new(sentence(&error.message), todo)
}

fn strange_daemon() -> Trouble {
    Trouble::new(
        "What listens on the daemon's socket does not speak this version's language.",
        "Stop the other version's daemon, then start this one: `happy daemon stop`, `happy daemon start`.",
    )
}

fn read_local_answer<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Outcome<T> {
        Ok(T),
        Error(CallError),
    }
    match serde_json::from_slice(body) {
        Ok(Outcome::Ok(output)) => Ok(output),
        Ok(Outcome::Error(error)) => Err(error),
        Err(error) => {
            Err(CallError::new(happy_rpc::ErrorCode::Malformed, format!("the daemon's answer cannot be read: {error}")))
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one frame; what it gives back is to be delivered to a channel, waiting for room there.
    fn take(&self, channel: u32, message: Vec<u8>) -> Option<(mpsc::Sender<Incoming>, Incoming)> {
        match channel {
            socket::CALLS => self.take_call(&message),
            socket::CONTROL => match Control::decode(&message) {
                Ok(control) => return self.take_control(control),
                Err(error) => tracing::warn!(%error, "a control message cannot be read"),
            },
            other => {
                let sender = self.state().channels.get(&other).cloned();
                return sender.map(|sender| (sender, Incoming::Message(message)));
            }
        }
        None
    }

    fn take_call(&self, message: &[u8]) {
        match CallMessage::decode(message) {
            Ok(CallMessage::Response { id, body }) => {
                if let Some(call) = self.state().calls.remove(&id) {
                    let _ = call.send(Ok(body.to_vec()));
                }
            }
            Ok(CallMessage::Event(body)) => self.happened(Happening::Event(body.to_vec())),
            Ok(CallMessage::Request { .. } | CallMessage::Cancel { .. }) | Err(_) => {}
        }
    }

    fn take_control(&self, control: Control) -> Option<(mpsc::Sender<Incoming>, Incoming)> {
        match control {
            Control::Opened { tag, channel } => {
                let mut state = self.state();
                if let Some(opening) = state.opening.remove(&tag) {
                    let (sender, incoming) = mpsc::channel(CHANNEL_QUEUE);
                    state.channels.insert(channel, sender);
                    let _ = opening.send(Ok(Channel { number: channel, incoming }));
                }
            }
            Control::Refused { tag, reason, .. } => {
                if let Some(opening) = self.state().opening.remove(&tag) {
                    let _ = opening.send(Err(reason));
                }
            }
            Control::Close { channel, code, reason } => {
                let sender = self.state().channels.remove(&channel)?;
                return Some((sender, Incoming::Closed { code, reason }));
            }
            Control::Link { up } => {
                let mut state = self.state();
                state.link_up = up;
                state.was_up |= up;
                drop(state);
                self.happened(Happening::Link(up));
            }
            Control::Unanswered { id, why } => {
                if let Some(call) = self.state().calls.remove(&id) {
                    let _ = call.send(Err(why));
                }
            }
            Control::Open { .. } => {}
        }
        None
    }

    fn happened(&self, event: Happening) {
        let mut state = self.state();
        if state.events.len() >= EVENT_QUEUE {
            state.events.pop_front();
        }
        state.events.push_back(event);
        drop(state);
        self.events_ready.notify_one();
    }

    fn end(&self) {
        let mut state = self.state();
        state.closed = true;
        state.calls.clear();
        state.opening.clear();
        state.channels.clear();
        drop(state);
        self.events_ready.notify_one();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut reader: BufReader<OwnedReadHalf>, shared: std::sync::Weak<Shared>) {
    while let Ok(Some((channel, message))) = socket::read_frame(&mut reader).await {
        let Some(client) = shared.upgrade() else { return };
        let delivery = client.take(channel, message);
        drop(client);
        if let Some((sender, incoming)) = delivery {
            // Waits while the program is slow; that is what holds the daemon back.
            let _ = sender.send(incoming).await;
        }
    }
    if let Some(client) = shared.upgrade() {
        client.end();
    }
}

async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<(u32, Vec<u8>)>) {
    let mut batch = Vec::new();
    while let Some((channel, message)) = queue.recv().await {
        batch.clear();
        socket::put_frame(&mut batch, channel, &message);
        while batch.len() < 64 * 1024
            && let Ok((channel, message)) = queue.try_recv()
        {
            socket::put_frame(&mut batch, channel, &message);
        }
        if writer.write_all(&batch).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_or_changes_nothing_is_not_said_to_happen_later() {
        assert!(no_answer("vm", Ok(true)).what.contains("may still do it"));
        assert_eq!(no_answer("vm", Ok(false)).what, "vm did not answer in time.");
        let why = no_answer("vm", Err(Some("its relay is not reached".into()))).what;
        assert_eq!(why, "Nothing was sent, for vm could not be reached: its relay is not reached.");
        assert_eq!(no_answer("vm", Err(None)).what, "Nothing was sent, for there was no connection to vm.");
    }
}
