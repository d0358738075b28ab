//! The driver for native programs: a websocket over TCP or TLS, and a [`Handle`] for asynchronous code.
//!
//! One task owns the socket. The endpoint stands behind a mutex that is held for single calls only, so that a [`Handle`] answers at
//! once where nothing has to be waited for.
//!
//! - Frames are made only when the socket takes them, and several are gathered for one write.
//! - When the receiver of events lags behind, the socket is not read any more; that holds up the peers. Answers to [`Handle::call`] and room for
//!   [`Handle::send`] do not pass through that queue, but they stop with the socket: whoever waits for them in the loop that
//!   receives the events waits for itself.

mod dial;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::tokio::sync::{Notify, mpsc, oneshot};
use ::tokio::time::{Instant, Sleep, sleep_until, timeout};
use futures_util::{Sink, Stream};
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::frame::Class;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::driver::{RelayUrl, Rng, rng};
use crate::planted::{self, Bug};
use crate::{
    Answer, CallError, CallId, ChannelName, Counters, Dial, Endpoint, Event, Login, OpenChannelError, PacketError,
    PairSecrets, Peer, PeerError, RequestId, SendError, Way,
};

pub use dial::{ByteStream, Connect, Connecting, DialError, Tcp, Trust, TrustError};

/// Bytes that are gathered before the socket is flushed, and the most that stand in our own buffer when it blocks.
const GATHER: usize = 64 * 1024;
/// Frames read before the other duties have their turn.
const READ_BATCH: usize = 32;
/// Rounds before the other tasks of the runtime have theirs.
const ROUNDS: usize = 32;
/// How long the goodbye to the relay may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long [`Handle::shutdown`] waits in all.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(4);
/// The usual capacity of the queue of events: enough for a burst, small enough to hold up a flood.
pub const EVENTS: usize = 256;

/// What [`spawn`] needs to know.
pub struct Config {
    /// Who this device is.
    pub identity: Identity,
    /// What it answers for, the newest last; empty where it only initiates.
    pub prekeys: Vec<SignedPrekey>,
    /// How it logs in.
    pub login: Login,
    /// Where.
    pub relay: RelayUrl,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// The capacity of the queue of events, usually [`EVENTS`].
    pub events: usize,
}

/// Starts the driver on the current runtime. It ends with [`Handle::shutdown`], or when the last handle or the receiver is dropped.
///
/// # Errors
/// When the certificates to be trusted cannot be read.
pub fn spawn(config: Config) -> Result<(Handle, mpsc::Receiver<Event>), TrustError> {
    spawn_over(config, Arc::new(Tcp))
}

/// Like [`spawn`], over connections of another kind: through a proxy, a tunnel, or a simulated network.
///
/// # Errors
/// When the certificates to be trusted cannot be read.
pub fn spawn_over(config: Config, connect: Arc<dyn Connect>) -> Result<(Handle, mpsc::Receiver<Event>), TrustError> {
    let Config { identity, prekeys, login, relay, trust, events } = config;
    let dialer = dial::Dialer::new(relay, &trust, connect)?;
    let start = Instant::now();
    let mut endpoint = Endpoint::new(identity, dialer.url().authority().to_owned(), login, rng(), Duration::ZERO);
    endpoint.set_prekeys(prekeys);
    let (sender, receiver) = mpsc::channel(events.max(1));
    let state = State { endpoint, waiters: HashMap::new(), waker: None, trouble: None, is_late: false, ended: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), start, moved: Notify::new() });
    let driver = Driver {
        shared: shared.clone(),
        dialer: Arc::new(dialer),
        connection: Connection::None,
        closing: None,
        backlog: VecDeque::new(),
        reserving: None,
        events: sender,
        timer: Box::pin(sleep_until(start)),
    };
    ::tokio::spawn(driver.run());
    Ok((Handle { inner: Arc::new(LastHandle { shared }) }, receiver))
}

struct State {
    endpoint: Endpoint<Rng>,
    waiters: HashMap<(DeviceId, CallId), Waiter>,
    waker: Option<Waker>,
    trouble: Option<DialError>,
    /// There was time enough for goodbyes: a socket that has not taken them is closed all the same.
    is_late: bool,
    ended: bool,
}

/// Who waits for what becomes of a call.
struct Waiter {
    answer: oneshot::Sender<Answer>,
    delivered: Option<oneshot::Sender<()>>,
}

struct Shared {
    state: Mutex<State>,
    start: Instant,
    /// A channel became writable or was closed, or the driver ended.
    moved: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Ends the driver when nobody can reach it any more.
struct LastHandle {
    shared: Arc<Shared>,
}

impl Drop for LastHandle {
    fn drop(&mut self) {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        state.endpoint.shut_down(now);
        state.waker.take().inspect(Waker::wake_by_ref);
    }
}

/// Reaches the endpoint from anywhere. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<LastHandle>,
}

/// Cancels a call whose future is dropped.
struct Waiting<'a> {
    handle: &'a Handle,
    peer: DeviceId,
    id: CallId,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.handle.with(|state, _| {
            if state.waiters.remove(&(self.peer, self.id)).is_some() {
                state.endpoint.cancel(&self.peer, self.id);
            }
        });
    }
}

impl Handle {
    fn with<T>(&self, change: impl FnOnce(&mut State, Duration) -> T) -> T {
        self.with_news(|state, now| (change(state, now), true))
    }

    /// The same where the change says whether the driver has something to do now. One that is woken for nothing costs more than a small message itself.
    fn with_news<T>(&self, change: impl FnOnce(&mut State, Duration) -> (T, bool)) -> T {
        let now = self.inner.shared.now();
        let mut state = self.inner.shared.lock();
        let (result, has_news) = change(&mut state, now);
        let waker = state.waker.take_if(|_| has_news);
        drop(state);
        if !planted::is(Bug::DoesNotWake) {
            waker.inspect(Waker::wake_by_ref);
        }
        result
    }

    /// Tries until it does not block, each time something moved.
    async fn until_accepted(
        &self,
        mut attempt: impl FnMut(&mut Endpoint<Rng>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        loop {
            let moved = self.inner.shared.moved.notified();
            let mut moved = std::pin::pin!(moved);
            // Registered before the attempt, so that a change between the two is not missed.
            moved.as_mut().enable();
            let result =
                self.with(|state, _| if state.ended { Err(SendError::Closed) } else { attempt(&mut state.endpoint) });
            if result != Err(SendError::WouldBlock) {
                return result;
            }
            moved.await;
        }
    }

    /// Who this device is.
    pub fn device(&self) -> DeviceId {
        self.with(|state, _| state.endpoint.device())
    }

    /// Why the last attempt to reach the relay failed; nothing while there is a connection.
    pub fn trouble(&self) -> Option<String> {
        self.with(|state, _| state.trouble.as_ref().map(ToString::to_string))
    }

    /// How it stands with the connection to the relay. See [`Endpoint::way`].
    pub fn way(&self) -> Way {
        self.with(|state, now| state.endpoint.way(now))
    }

    /// What was received and not used.
    pub fn counters(&self) -> Counters {
        self.with(|state, _| state.endpoint.counters())
    }

    /// See [`Endpoint::add_peer`].
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn add_peer(&self, peer: Peer) -> Result<(), PeerError> {
        self.with(|state, _| state.endpoint.add_peer(peer))
    }

    /// See [`Endpoint::remove_peer`].
    pub fn remove_peer(&self, peer: &DeviceId) {
        self.with(|state, now| state.endpoint.remove_peer(now, peer));
        // Whoever waits to tell it something learns that it is gone.
        self.inner.shared.moved.notify_waiters();
    }

    /// See [`Endpoint::tombstone`].
    pub fn tombstone(&self, peer: DeviceId) {
        self.with(|state, now| state.endpoint.tombstone(now, peer));
        self.inner.shared.moved.notify_waiters();
    }

    /// See [`Endpoint::set_prekeys`].
    pub fn set_prekeys(&self, prekeys: Vec<SignedPrekey>) {
        self.with(|state, _| state.endpoint.set_prekeys(prekeys));
    }

    /// See [`Endpoint::bundle`].
    pub fn bundle(&self, peer: &DeviceId) -> Option<Bundle> {
        self.with(|state, _| state.endpoint.bundle(peer).cloned())
    }

    /// See [`Endpoint::pair_secrets`].
    pub fn pair_secrets(&self, peer: &DeviceId, session: &[u8; 16]) -> Option<PairSecrets> {
        self.with(|state, _| state.endpoint.pair_secrets(peer, session).cloned())
    }

    /// See [`Endpoint::pair_secrets_stored`].
    pub fn pair_secrets_stored(&self, peer: &DeviceId, session: &[u8; 16]) {
        self.with(|state, now| state.endpoint.pair_secrets_stored(now, peer, session));
    }

    /// See [`Endpoint::renew_keys`].
    pub fn renew_keys(&self, peer: &DeviceId) {
        self.with(|state, now| state.endpoint.renew_keys(now, peer));
    }

    /// See [`Endpoint::is_up`].
    pub fn is_up(&self, peer: &DeviceId) -> bool {
        self.with(|state, _| state.endpoint.is_up(peer))
    }

    /// See [`Endpoint::set_active`].
    pub fn set_active(&self, active: bool) {
        self.with(|state, now| state.endpoint.set_active(now, active));
    }

    /// See [`Endpoint::enrol`].
    pub fn enrol(&self, key: EnrolmentKey) {
        self.with(|state, now| state.endpoint.enrol(now, key));
    }

    /// See [`Endpoint::hurry`].
    pub fn hurry(&self) {
        self.with(|state, now| state.endpoint.hurry(now));
    }

    /// See [`Endpoint::revive`].
    pub fn revive(&self) {
        self.with(|state, now| {
            state.is_late = false;
            state.endpoint.revive(now);
        });
    }

    /// See [`Endpoint::open_rendezvous`].
    pub fn open_rendezvous(&self, ticket_hash: [u8; 32], seconds: u16) -> bool {
        self.with(|state, now| state.endpoint.open_rendezvous(now, ticket_hash, seconds))
    }

    /// See [`Endpoint::close_rendezvous`].
    pub fn close_rendezvous(&self, ticket_hash: [u8; 32]) {
        self.with(|state, _| state.endpoint.close_rendezvous(ticket_hash));
    }

    /// See [`Endpoint::send_packet`].
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn send_packet(&self, to: DeviceId, packet: &[u8]) -> Result<(), PacketError> {
        self.with(|state, _| state.endpoint.send_packet(to, packet))
    }

    /// See [`Endpoint::put_record`].
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn put_record(&self, kind: u8, version: u64, sealed: &[u8]) -> Result<(), PacketError> {
        self.with(|state, _| state.endpoint.put_record(kind, version, sealed))
    }

    /// See [`Endpoint::get_record`].
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn get_record(&self, machine: DeviceId, kind: u8) -> Result<(), PacketError> {
        self.with(|state, _| state.endpoint.get_record(machine, kind))
    }

    /// Calls a peer and waits for the one answer. Dropping the future cancels the call.
    ///
    /// # Errors
    /// [`CallError`] when the call is not accepted.
    pub async fn call(&self, peer: &DeviceId, body: Vec<u8>, deadline: Option<Duration>) -> Result<Answer, CallError> {
        self.ask(peer, None, |endpoint, now| endpoint.call(now, peer, body, deadline)).await
    }

    /// See [`Endpoint::command`]; otherwise like [`Self::call`].
    ///
    /// # Errors
    /// [`CallError`] when the call is not accepted.
    pub async fn command(
        &self,
        peer: &DeviceId,
        body: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<Answer, CallError> {
        self.ask(peer, None, |endpoint, now| endpoint.command(now, peer, body, deadline)).await
    }

    /// Like [`Self::command`]; `delivered` is told when the peer has the request, or dropped when it will not be.
    ///
    /// # Errors
    /// [`CallError`] when the call is not accepted.
    pub async fn command_with(
        &self,
        peer: &DeviceId,
        body: Vec<u8>,
        deadline: Option<Duration>,
        delivered: oneshot::Sender<()>,
    ) -> Result<Answer, CallError> {
        self.ask(peer, Some(delivered), |endpoint, now| endpoint.command(now, peer, body, deadline)).await
    }

    async fn ask(
        &self,
        peer: &DeviceId,
        delivered: Option<oneshot::Sender<()>>,
        ask: impl FnOnce(&mut Endpoint<Rng>, Duration) -> Result<CallId, CallError>,
    ) -> Result<Answer, CallError> {
        let (answer, receiver) = oneshot::channel();
        let id = self.with(|state, now| {
            let id = ask(&mut state.endpoint, now)?;
            if !state.ended {
                state.waiters.insert((*peer, id), Waiter { answer, delivered });
            }
            Ok(id)
        })?;
        let _waiting = Waiting { handle: self, peer: *peer, id };
        // The sender is dropped only when the driver ends, or has ended.
        Ok(receiver.await.unwrap_or(Answer::LinkGone))
    }

    /// Answers a request; waits while too many answers wait to be sent.
    ///
    /// # Errors
    /// [`SendError`] when the answer will not be accepted.
    pub async fn respond(&self, peer: &DeviceId, id: RequestId, body: &[u8]) -> Result<(), SendError> {
        self.until_accepted(|endpoint| endpoint.respond(peer, id, body)).await
    }

    /// Tells a peer of something; waits while too much waits to be sent.
    ///
    /// # Errors
    /// [`SendError::Closed`] without a session; others are final as well.
    pub async fn emit(&self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.until_accepted(|endpoint| endpoint.emit(peer, body.clone())).await
    }

    /// Like [`Self::emit`], but never waits.
    ///
    /// # Errors
    /// As [`Endpoint::emit`].
    pub fn try_emit(&self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.with(|state, _| state.endpoint.emit(peer, body))
    }

    /// See [`Endpoint::emit_in_bulk`].
    ///
    /// # Errors
    /// As [`Endpoint::emit`].
    pub fn emit_in_bulk(&self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.with(|state, now| state.endpoint.emit_in_bulk(now, peer, body))
    }

    /// See [`Endpoint::open_channel`].
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub fn open_channel(&self, peer: &DeviceId, class: Class, label: &str) -> Result<u32, OpenChannelError> {
        self.with(|state, _| state.endpoint.open_channel(peer, class, label))
    }

    /// Sends a message on a channel; waits until the channel takes it.
    ///
    /// # Errors
    /// [`SendError`] when the message will not be accepted.
    pub async fn send(
        &self,
        peer: &DeviceId,
        channel: impl Into<ChannelName>,
        message: &[u8],
    ) -> Result<(), SendError> {
        let channel = channel.into();
        self.until_accepted(|endpoint| endpoint.send(peer, channel, message)).await
    }

    /// Like [`Self::send`], but never waits.
    ///
    /// # Errors
    /// As [`Endpoint::send`].
    pub fn try_send(&self, peer: &DeviceId, channel: impl Into<ChannelName>, message: &[u8]) -> Result<(), SendError> {
        self.with(|state, _| state.endpoint.send(peer, channel, message))
    }

    /// See [`Endpoint::sendable`].
    pub fn sendable(&self, peer: &DeviceId, channel: impl Into<ChannelName>) -> usize {
        self.with(|state, _| state.endpoint.sendable(peer, channel))
    }

    /// See [`Endpoint::consumed`].
    pub fn consumed(&self, peer: &DeviceId, channel: impl Into<ChannelName>, bytes: usize) {
        self.with_news(|state, _| ((), state.endpoint.consumed(peer, channel, bytes)));
    }

    /// See [`Endpoint::close_channel`].
    pub fn close_channel(&self, peer: &DeviceId, channel: impl Into<ChannelName>, code: Code, reason: &str) {
        self.with(|state, _| state.endpoint.close_channel(peer, channel, code, reason));
        // Whoever waits to send on it learns that it is closed.
        self.inner.shared.moved.notify_waiters();
    }

    /// Says goodbye to peers and relay and ends the driver.
    pub async fn shutdown(&self) {
        self.with(|state, now| state.endpoint.shut_down(now));
        let ended = async {
            loop {
                let moved = self.inner.shared.moved.notified();
                let mut moved = std::pin::pin!(moved);
                moved.as_mut().enable();
                if self.inner.shared.lock().ended {
                    return;
                }
                moved.await;
            }
        };
        if timeout(SHUTDOWN_WITHIN, ended).await.is_err() {
            tracing::debug!("the relay takes no goodbyes; closing without them");
            self.with(|state, _| state.is_late = true);
        }
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Connection {
    None,
    Dialling(Boxed<Result<dial::WebSocket, DialError>>),
    Open(Box<Open>),
}

struct Open {
    socket: dial::WebSocket,
    /// Bytes of frames that the socket has and the kernel may not.
    unflushed: usize,
    /// Nothing is there to be read, and whoever polls the driver is woken when that changes.
    is_drained: bool,
}

struct Driver {
    shared: Arc<Shared>,
    dialer: Arc<dial::Dialer>,
    connection: Connection,
    /// The last connection, saying goodbye.
    closing: Option<Boxed<()>>,
    /// Events that the queue has no room for; while there are any, the socket is not read.
    backlog: VecDeque<Event>,
    reserving: Option<Boxed<Result<mpsc::OwnedPermit<Event>, mpsc::error::SendError<()>>>>,
    events: mpsc::Sender<Event>,
    /// Goes off at the next deadline or before it.
    timer: Pin<Box<Sleep>>,
}

/// Whether a duty found something to do.
type Moved = bool;

impl Driver {
    async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
        let mut state = self.shared.lock();
        state.ended = true;
        if !planted::is(Bug::LeavesCallsWaiting) {
            state.waiters.clear();
        }
        drop(state);
        if !planted::is(Bug::EndsUnheard) {
            self.shared.moved.notify_waiters();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.lock().waker = Some(cx.waker().clone());
        if let Connection::Open(open) = &mut self.connection {
            open.is_drained = false;
        }
        for _ in 0..ROUNDS {
            let mut moved = self.poll_write(cx);
            moved |= self.poll_events(cx);
            moved |= self.poll_connection(cx);
            moved |= self.poll_read(cx);
            moved |= self.poll_timer(cx);
            if self.is_over() {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        let idle = matches!(self.connection, Connection::None) && self.closing.is_none();
        let now = self.shared.now();
        idle && self.shared.lock().endpoint.wants_connection(now) == Dial::Never(Code::GOODBYE)
    }

    /// Hands frames to the socket as long as it takes them.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Moved {
        let Connection::Open(open) = &mut self.connection else { return false };
        let Open { socket, unflushed, .. } = &mut **open;
        let mut moved = false;
        let result = loop {
            if *unflushed >= GATHER {
                match Pin::new(&mut *socket).poll_flush(cx) {
                    Poll::Pending => break Ok(()),
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Ready(Ok(())) => *unflushed = 0,
                }
            }
            match Pin::new(&mut *socket).poll_ready(cx) {
                Poll::Pending => break Ok(()),
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Ready(Ok(())) => {}
            }
            let now = self.shared.now();
            let Some(frame) = self.shared.lock().endpoint.poll_transmit(now) else {
                if *unflushed > 0
                    && !planted::is(Bug::NeverFlushes)
                    && let Poll::Ready(flushed) = Pin::new(&mut *socket).poll_flush(cx)
                {
                    *unflushed = 0;
                    break flushed;
                }
                break Ok(());
            };
            moved = true;
            *unflushed += frame.len();
            if let Err(error) = Pin::new(&mut *socket).start_send(Message::Binary(frame.into())) {
                break Err(error);
            }
        };
        match result {
            Ok(()) => moved,
            Err(error) => self.lose(&error.to_string(), None),
        }
    }

    /// Gives answers to those who wait for them, and everything else to the queue.
    fn poll_events(&mut self, cx: &mut Context<'_>) -> Moved {
        let mut moved = false;
        let mut notify = false;
        let mut state = self.shared.lock();
        while let Some(event) = state.endpoint.poll_event() {
            moved = true;
            match event {
                Event::Answer { peer, id, answer } => match state.waiters.remove(&(peer, id)) {
                    // An error means that the caller is gone.
                    Some(waiter) => drop(waiter.answer.send(answer)),
                    None => self.backlog.push_back(Event::Answer { peer, id, answer }),
                },
                Event::Delivered { peer, id } => {
                    if let Some(tell) = state.waiters.get_mut(&(peer, id)).and_then(|waiter| waiter.delivered.take()) {
                        // An error means that the caller is gone.
                        let _ = tell.send(());
                    }
                    self.backlog.push_back(Event::Delivered { peer, id });
                }
                event => {
                    notify |= frees_senders(&event);
                    self.backlog.push_back(event);
                }
            }
        }
        drop(state);
        if notify {
            self.shared.moved.notify_waiters();
        }
        while !self.backlog.is_empty() {
            let Poll::Ready(permit) = self.poll_permit(cx) else {
                if planted::is(Bug::DropsWhatDoesNotFit) {
                    self.backlog.pop_front();
                }
                break;
            };
            let (Ok(permit), Some(event)) = (permit, self.backlog.pop_front()) else {
                self.on_receiver_gone();
                break;
            };
            permit.send(event);
            moved = true;
        }
        moved
    }

    fn poll_permit(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<mpsc::OwnedPermit<Event>, mpsc::error::SendError<()>>> {
        let reserving = self.reserving.get_or_insert_with(|| Box::pin(self.events.clone().reserve_owned()));
        let permit = ready!(reserving.as_mut().poll(cx));
        self.reserving = None;
        Poll::Ready(permit)
    }

    fn on_receiver_gone(&mut self) {
        self.backlog.clear();
        let now = self.shared.now();
        let mut state = self.shared.lock();
        if state.endpoint.wants_connection(now) != Dial::Never(Code::GOODBYE) {
            state.endpoint.shut_down(now);
        }
    }

    /// Closes and dials.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Moved {
        if let Some(closing) = &mut self.closing
            && closing.as_mut().poll(cx).is_ready()
        {
            self.closing = None;
            return true;
        }
        let now = self.shared.now();
        let must_close = {
            let state = self.shared.lock();
            let is_open = matches!(self.connection, Connection::Open(_));
            state.endpoint.must_close().or((state.is_late && is_open).then_some(Code::GOODBYE))
        };
        if let Some(code) = must_close {
            self.close(code);
            return true;
        }
        let dial = self.shared.lock().endpoint.wants_connection(now);
        match &mut self.connection {
            Connection::Open(_) => false,
            Connection::Dialling(_) if matches!(dial, Dial::Never(_)) => {
                self.connection = Connection::None;
                true
            }
            Connection::Dialling(dialling) => match dialling.as_mut().poll(cx) {
                Poll::Pending => false,
                Poll::Ready(Ok(socket)) => {
                    let mut state = self.shared.lock();
                    state.endpoint.handle_connected(now);
                    state.trouble = None;
                    self.connection = Connection::Open(Box::new(Open { socket, unflushed: 0, is_drained: false }));
                    true
                }
                Poll::Ready(Err(error)) => {
                    let text = error.to_string();
                    let code = error.code();
                    self.shared.lock().trouble = Some(error);
                    self.lose(&text, code)
                }
            },
            Connection::None => {
                let due = matches!(dial, Dial::At(at) if at <= now);
                if due {
                    let dialer = self.dialer.clone();
                    self.connection = Connection::Dialling(Box::pin(async move { dialer.dial().await }));
                }
                due
            }
        }
    }

    fn close(&mut self, code: Code) {
        if let Connection::Open(mut open) = std::mem::replace(&mut self.connection, Connection::None) {
            let frame = CloseFrame { code: code.0.into(), reason: code.explain().into() };
            self.closing = Some(Box::pin(async move {
                // Politeness only: the relay notices the end of the connection in any case.
                if timeout(CLOSE_WITHIN, open.socket.close(Some(frame))).await.is_err() {
                    tracing::debug!("the relay took no goodbye");
                }
            }));
        }
        let now = self.shared.now();
        self.shared.lock().endpoint.handle_disconnected(now);
    }

    /// The connection is gone, or was not made.
    fn lose(&mut self, why: &str, code: Option<Code>) -> Moved {
        tracing::debug!(why, "no connection to the relay");
        self.connection = Connection::None;
        let now = self.shared.now();
        self.shared.lock().endpoint.handle_closed(now, code);
        true
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Moved {
        for count in 0..READ_BATCH {
            let Connection::Open(open) = &mut self.connection else { return count > 0 };
            if open.is_drained || !self.backlog.is_empty() {
                return count > 0;
            }
            let now = self.shared.now();
            match Pin::new(&mut open.socket).poll_next(cx) {
                Poll::Pending => {
                    open.is_drained = true;
                    return count > 0;
                }
                Poll::Ready(Some(Ok(Message::Binary(bytes)))) => {
                    self.shared.lock().endpoint.handle_frame(now, &bytes);
                }
                // The relay speaks in binary messages only (PROTOCOL 7).
                Poll::Ready(Some(Ok(Message::Text(_)))) => {
                    self.close(Code::MALFORMED);
                    return true;
                }
                Poll::Ready(Some(Ok(Message::Close(frame)))) => {
                    return self.lose("the relay closed the connection", frame.map(|frame| Code(frame.code.into())));
                }
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return self.lose(&error.to_string(), None),
                Poll::Ready(None) => return self.lose("the connection ended", None),
            }
        }
        true
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Moved {
        let now = self.shared.now();
        let mut state = self.shared.lock();
        let dial = match (&self.connection, state.endpoint.wants_connection(now)) {
            (Connection::None, Dial::At(at)) => Some(at),
            _ => None,
        };
        let timeout = state.endpoint.poll_timeout();
        if timeout.is_some_and(|timeout| timeout <= now) {
            state.endpoint.handle_timeout(now);
            return true;
        }
        drop(state);
        let Some(next) = timeout.into_iter().chain(dial).min() else { return false };
        let deadline = self
            .shared
            .start
            .checked_add(next)
            .unwrap_or_else(|| self.shared.start + now + Duration::from_secs(86_400));
        // A time that comes nearer costs a system call, since the runtime wakes its own driver for it, and each frame moves the next deadline to and
        // fro. So the timer stays where it is while it is early enough, and goes off once for nothing.
        if deadline < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(deadline);
        }
        !planted::is(Bug::SetsNoTimer) && self.timer.as_mut().poll(cx).is_ready()
    }
}

/// Whether somebody who waits to send may be able to now, or must learn that it is in vain.
fn frees_senders(event: &Event) -> bool {
    match event {
        Event::Writable { .. } => true,
        Event::Closed { .. } | Event::LinkDown { .. } | Event::Refused { .. } => !planted::is(Bug::WakesNoSenders),
        // The events that waited to be sent are gone with the last session, perhaps while the link was down.
        Event::LinkUp { resumed: false, .. } => !planted::is(Bug::ForgetsWhoWaits),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_wanted_again_is_no_longer_late_with_its_goodbyes() {
        let config = Config {
            identity: Identity::generate(&mut rng()),
            prekeys: Vec::new(),
            login: Login::Device { epoch: 1 },
            // Nobody answers there, and nobody has to.
            relay: RelayUrl::parse("ws://127.0.0.1:9/v1").unwrap(),
            trust: Trust::System,
            events: EVENTS,
        };
        let (handle, _events) = spawn(config).unwrap();
        handle.with(|state, _| state.is_late = true);
        handle.revive();
        assert!(!handle.with(|state, _| state.is_late), "or every connection from now on would be closed at once");
    }
}
