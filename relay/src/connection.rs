//! The actor that owns one websocket: it logs the device in, reads its frames, writes what its mailbox holds, and keeps
//! the waits of `PROTOCOL 7`.
//!
//! Reading and writing are polled in one task, so neither waits for the other: a device that sends while it does not read
//! is not stopped, and one whose socket is full still gets its frames routed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream as _, StreamExt};
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_FRAME, MAX_PAYLOAD, QUEUE_BYTES, ToRelay};
use happy_wire::{Code, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, error::ProtocolError};

use crate::Shared;
use crate::desk::{Desk, Request};
use crate::hub::Seat;
use crate::listen::Admission;
use crate::login::{self, Refusal};
use crate::mailbox::{Ending, Outgoing, Standing, payload_len};
use crate::metrics::{Drop as Dropped, LoginResult};
use crate::socket::Stream;

type Socket = WebSocketStream<Stream>;

/// Read ahead by so much. Larger is faster for bulk and costs every idle connection its size.
const READ_BUFFER: usize = 4 * 1024;
/// Written frames are gathered up to so much before the socket is asked to take them.
const WRITE_BUFFER: usize = 32 * 1024;
/// Frames read in one turn before the queue is written and other connections get theirs. Also what keeps the answers to
/// one turn's frames within the half of the control queue that is left for them.
const READS_PER_TURN: usize = 64;
/// What is read and thrown away after the last word, so that closing does not reset the connection under it.
const LINGER_BYTES: u64 = 256 * 1024;

const MALFORMED: Ending = Ending::at_once(Code::MALFORMED, "a frame was malformed or out of place");
const OVERSIZED: Ending = Ending::at_once(Code::TOO_LARGE, "a frame was larger than a payload of 65,536 bytes");
const SILENT: Ending = Ending::at_once(Code::SILENT, "there was no sign of life");
const GUEST_PEERS: Ending = Ending::at_once(Code::NOT_PERMITTED, "a guest names no peers");
const GUEST_OVER: Ending = Ending::after_queue(Code::GOODBYE, 0, "the time for pairing is over");

/// Owns an upgraded socket until it ends. `early` is what arrived behind the upgrade request; `names` are the names under
/// which the relay may have been dialled on this connection.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    stream: Stream,
    early: Bytes,
    names: Arc<[String]>,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME));
    let mut socket = WebSocketStream::from_partially_read(stream, early.into(), Role::Server, Some(config)).await;
    // Boxed, so that the task of a connection that lives for days does not carry the room its login needed.
    let seat = Box::pin(log_in(&shared, &mut socket, &names)).await;
    match seat {
        Ok((seat, name)) => {
            shared.hub.metrics.login(LoginResult::Accepted);
            admission.proven();
            tracing::debug!(device = %seat.mailbox.device.short(), guest = seat.mailbox.host.is_some(), "logged in");
            Actor::new(shared, socket, seat, (names, name)).run().await;
        }
        Err(refusal) => {
            shared.hub.metrics.login(refusal.result);
            admission.failed(&shared, refusal.result);
            tracing::debug!(result = ?refusal.result, "login refused");
            if refusal.result != LoginResult::Gone {
                Box::pin(farewell(&shared, &mut socket, None, refusal.ending)).await;
            }
        }
    }
}

async fn log_in(shared: &Arc<Shared>, socket: &mut Socket, names: &[String]) -> Result<(Seat, usize), Refusal> {
    const GONE: Refusal = Refusal::new(LoginResult::Gone, Code::GOODBYE, 0, "");
    let attempt = async {
        let mut nonce = [0; 32];
        // Without randomness no login can be safe; the operating system has it from its start.
        getrandom::fill(&mut nonce).map_err(|_| Refusal::FULL)?;
        send(shared, socket, None, &FromRelay::Challenge { nonce }).await.map_err(|_| GONE)?;
        let frame = first_frame(socket).await?;
        if let Some(tap) = &shared.config.tap {
            tap.received(None, &frame);
        }
        let proven = login::check(&shared.config.access, &shared.logins, names, &nonce, &frame)?;
        shared.hub.enter(&proven).await.map(|seat| (seat, proven.name()))
    };
    let (seat, name) = tokio::select! {
        // In this order, and not in one of chance, so that simulations repeat themselves.
        biased;
        () = shared.closing.begun() => return Err(Refusal::CLOSING),
        seat = timeout(shared.config.timings.login, attempt) => seat.unwrap_or(Err(Refusal::LATE))?,
    };
    // Who is seated after `dismiss_all` went through the seats would never be told to leave.
    if shared.closing.has_begun() {
        return Err(Refusal::CLOSING);
    }
    let host = seat.mailbox.host.as_ref().map(|(host, _)| host.device);
    seat.mailbox.notify(&FromRelay::Welcome { max_payload: MAX_PAYLOAD as u32, queue_bytes: QUEUE_BYTES as u32, host });
    Ok((seat, name))
}

/// The first binary message of a connection.
async fn first_frame(socket: &mut Socket) -> Result<Bytes, Refusal> {
    const GONE: Refusal = Refusal::new(LoginResult::Gone, Code::GOODBYE, 0, "");
    const LARGE: Refusal = Refusal { result: LoginResult::Malformed, ending: OVERSIZED };
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(frame))) => return Ok(frame),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(Refusal::MALFORMED),
            Some(Err(error)) => {
                return Err(fault(&error).map_or(GONE, |fault| match fault.code {
                    Code::TOO_LARGE => LARGE,
                    _ => Refusal::MALFORMED,
                }));
            }
            Some(Ok(Message::Close(_))) | None => return Err(GONE),
        }
    }
}

/// What a device that broke the rules of websockets is told; none when its connection just broke.
fn fault(error: &tungstenite::Error) -> Option<Ending> {
    use tungstenite::Error;
    match error {
        Error::Capacity(_) => Some(OVERSIZED),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) | Error::Utf8(_) => Some(MALFORMED),
        _ => None,
    }
}

async fn send(
    shared: &Shared,
    socket: &mut Socket,
    to: Option<DeviceId>,
    frame: &FromRelay<'_>,
) -> Result<(), tungstenite::Error> {
    let mut bytes = Vec::with_capacity(64);
    frame.encode(&mut bytes);
    if let Some(tap) = &shared.config.tap {
        tap.sent(to, &bytes);
    }
    socket.send(Message::Binary(bytes.into())).await
}

/// Says why the connection ends and closes it. True when everything written before has gone out too.
async fn farewell(shared: &Shared, socket: &mut Socket, to: Option<DeviceId>, ending: Ending) -> bool {
    let Ending { code, retry_after_ms, text, .. } = ending;
    let patience = shared.config.timings.farewell;
    let last_words = async {
        send(shared, socket, to, &FromRelay::Goaway { code, retry_after_ms, text }).await?;
        let close = CloseFrame { code: CloseCode::from(code.0), reason: text.into() };
        socket.send(Message::Close(Some(close))).await
    };
    let said = matches!(timeout(patience, last_words).await, Ok(Ok(())));
    if said {
        let _ = timeout(patience, linger(socket.get_mut())).await;
    }
    said
}

/// Reads on for a while. Bytes left unread would make the kernel reset the connection and take the last words with it.
async fn linger(stream: &mut Stream) {
    if stream.shutdown().await.is_ok() {
        let _ = tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await;
    }
}

/// How a connection came to its end.
enum End {
    /// The device is told why.
    Told(Ending),
    /// The device closed it.
    Left,
    /// The socket broke, or it took no byte for too long: nobody is there to be told.
    Broken,
}

struct Actor {
    shared: Arc<Shared>,
    socket: Socket,
    seat: Seat,
    /// Deliver frames given to the socket and not flushed yet.
    unflushed: (u64, u64),
    /// Whether anything at all is unflushed.
    dirty: bool,
    /// Since when the socket has taken no byte although there were some, and how many it had taken by then.
    blocked: Option<(Instant, u64)>,
    last_received: Instant,
    ping: Option<Instant>,
    pings: u64,
    guest_until: Option<Instant>,
    next_rendezvous: Option<Instant>,
    /// When to ask again whether anybody speaks for this device.
    vouch_due: Option<Instant>,
    desk: Desk,
    /// The names of the relay on this connection, and which of them the device has signed.
    name: (Arc<[String]>, usize),
    /// When to say again that a machine with records is alive.
    alive_due: Option<Instant>,
    /// Fires at the next deadline or before it; it is moved only when a deadline comes nearer.
    sleep: Pin<Box<Sleep>>,
}

impl Actor {
    fn new(shared: Arc<Shared>, socket: Socket, seat: Seat, name: (Arc<[String]>, usize)) -> Self {
        let now = Instant::now();
        let timings = &shared.config.timings;
        Self {
            vouch_due: (seat.mailbox.standing == Standing::Vouched).then(|| now + timings.vouch),
            guest_until: seat.mailbox.host.is_some().then(|| now + timings.guest),
            sleep: Box::pin(sleep_until(now + timings.ping_after)),
            shared,
            socket,
            seat,
            unflushed: (0, 0),
            dirty: false,
            blocked: None,
            last_received: now,
            ping: None,
            pings: 0,
            next_rendezvous: None,
            desk: Desk::default(),
            name,
            alive_due: None,
        }
    }

    async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        let Actor { shared, mut socket, seat, unflushed, .. } = self;
        let device = seat.mailbox.device;
        // The seat is given up first: what follows may take a second, and the device is gone already.
        drop(seat);
        let flushed = match end {
            End::Told(ending) => {
                if ending.code == Code::TOO_MANY {
                    shared.hub.metrics.crowded.fetch_add(1, Relaxed);
                }
                tracing::debug!(device = %device.short(), code = ending.code.0, why = ending.text, "connection ended");
                Box::pin(farewell(&shared, &mut socket, Some(device), ending)).await
            }
            End::Left => {
                tracing::debug!(device = %device.short(), "connection closed by the device");
                matches!(timeout(shared.config.timings.farewell, socket.flush()).await, Ok(Ok(())))
            }
            End::Broken => {
                tracing::debug!(device = %device.short(), "connection broke");
                false
            }
        };
        let metrics = &shared.hub.metrics;
        let flow = if flushed { &metrics.delivered } else { metrics.dropped(Dropped::ReceiverEnded) };
        flow.add(unflushed.0, unflushed.1);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.seat.mailbox.register(cx.waker());
        let (ending, crowded) = {
            let state = self.seat.mailbox.lock();
            (state.ending(), state.is_crowded())
        };
        match ending {
            Some(ending) if !ending.drain => return Poll::Ready(End::Told(ending)),
            None if !crowded => {
                if let Some(end) = self.read(cx) {
                    return Poll::Ready(end);
                }
            }
            _ => {}
        }
        match self.poll_write(cx) {
            Poll::Ready(Ok(())) => {
                if let Some(ending) = ending {
                    return Poll::Ready(End::Told(ending));
                }
                if crowded {
                    // There is room again; what was left unread is read in the next turn.
                    cx.waker().wake_by_ref();
                }
            }
            Poll::Ready(Err(_)) => return Poll::Ready(End::Broken),
            Poll::Pending => self.note_progress(),
        }
        self.poll_time(cx)
    }

    // Reading

    /// Handles the frames that have arrived, at most [`READS_PER_TURN`].
    fn read(&mut self, cx: &mut Context<'_>) -> Option<End> {
        for n in 0..READS_PER_TURN {
            let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(cx) else {
                return None;
            };
            if n == 0 {
                self.last_received = Instant::now();
                self.ping = None;
            }
            let end = match message {
                Some(Ok(message)) => self.handle(message),
                Some(Err(error)) => Some(self.broken(&error)),
                None => Some(End::Left),
            };
            if end.is_some() {
                return end;
            }
        }
        cx.waker().wake_by_ref();
        None
    }

    fn broken(&self, error: &tungstenite::Error) -> End {
        let metrics = &self.shared.hub.metrics;
        match fault(error) {
            Some(ending) => {
                let counter = if ending.code == Code::TOO_LARGE { &metrics.oversized } else { &metrics.malformed };
                counter.fetch_add(1, Relaxed);
                End::Told(ending)
            }
            None => End::Broken,
        }
    }

    fn handle(&mut self, message: Message) -> Option<End> {
        match message {
            Message::Binary(frame) => self.handle_frame(&frame),
            Message::Text(_) => Some(self.malformed()),
            Message::Close(_) => Some(End::Left),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        }
    }

    fn malformed(&self) -> End {
        self.shared.hub.metrics.malformed.fetch_add(1, Relaxed);
        End::Told(MALFORMED)
    }

    fn handle_frame(&mut self, frame: &[u8]) -> Option<End> {
        let Seat { hub, mailbox, .. } = &self.seat;
        if let Some(tap) = &self.shared.config.tap {
            tap.received(Some(mailbox.device), frame);
        }
        match ToRelay::decode(frame) {
            Ok(ToRelay::Send { to, tag, payload }) => hub.route(mailbox, to, tag, payload),
            Ok(ToRelay::Peers(_)) if mailbox.host.is_some() => return Some(End::Told(GUEST_PEERS)),
            Ok(ToRelay::Peers(list)) => hub.name(mailbox, &list),
            Ok(ToRelay::OpenRendezvous { ticket_hash, seconds }) => {
                hub.open_rendezvous(mailbox, ticket_hash, seconds);
                self.next_rendezvous = mailbox.lock().next_rendezvous();
            }
            Ok(ToRelay::CloseRendezvous { ticket_hash }) => hub.close_rendezvous(mailbox, ticket_hash),
            Ok(ToRelay::Ping(n)) => mailbox.notify(&FromRelay::Pong(n)),
            Ok(ToRelay::Pong(_)) => {}
            Ok(ToRelay::PutRecord { kind, version, sealed }) => {
                self.alive_due.get_or_insert_with(|| Instant::now() + self.shared.config.timings.alive);
                self.ask(Request::Put { kind, version, sealed: Bytes::copy_from_slice(sealed) });
            }
            Ok(ToRelay::GetRecord { machine, kind }) => self.ask(Request::Get { machine, kind }),
            Ok(ToRelay::GetToken) => self.ask(Request::Token),
            // PROTOCOL 7: an unknown type is skipped and counted.
            Err(WireError::UnknownType(_)) => {
                hub.metrics.unknown_frames.fetch_add(1, Relaxed);
            }
            Ok(ToRelay::Login { .. }) | Err(_) => return Some(self.malformed()),
        }
        None
    }

    fn ask(&mut self, request: Request) {
        let Seat { hub, mailbox, .. } = &self.seat;
        let (names, name) = &self.name;
        self.desk.take(hub, mailbox, names.get(*name).map_or("", String::as_str), request);
    }

    // Writing

    /// Gives the socket what the mailbox holds and flushes once it holds no more. Ready when everything has gone out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        let mut socket = Pin::new(&mut self.socket);
        loop {
            ready!(socket.as_mut().poll_ready(cx))?;
            let Some(next) = self.seat.mailbox.next() else { break };
            let frame = match next {
                Outgoing::Control(frame) => frame,
                Outgoing::Deliver(frame) => {
                    self.unflushed.0 += 1;
                    self.unflushed.1 += payload_len(&frame);
                    frame
                }
            };
            if let Some(tap) = &self.shared.config.tap {
                tap.sent(Some(self.seat.mailbox.device), &frame);
            }
            self.dirty = true;
            socket.as_mut().start_send(Message::Binary(frame))?;
        }
        if self.dirty {
            ready!(socket.poll_flush(cx))?;
            self.flushed();
        }
        Poll::Ready(Ok(()))
    }

    fn flushed(&mut self) {
        self.dirty = false;
        self.blocked = None;
        let (frames, bytes) = std::mem::take(&mut self.unflushed);
        if frames > 0 {
            let metrics = &self.shared.hub.metrics;
            metrics.delivered.add(frames, bytes);
            metrics.flushes.fetch_add(1, Relaxed);
            if let Some(waited) = self.seat.mailbox.waited() {
                metrics.queue_wait.note(waited);
            }
        }
    }

    /// The socket is full. Remembers since when it has taken nothing.
    fn note_progress(&mut self) {
        let taken = self.socket.get_ref().taken();
        if self.blocked.is_none_or(|(_, before)| before != taken) {
            self.blocked = Some((Instant::now(), taken));
        }
    }

    // Time

    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let next = self.next_deadline();
            if next < self.sleep.deadline() {
                self.sleep.as_mut().reset(next);
            }
            ready!(self.sleep.as_mut().poll(cx));
            if let Some(end) = self.handle_time(Instant::now()) {
                return Poll::Ready(end);
            }
            let next = self.next_deadline();
            self.sleep.as_mut().reset(next);
        }
    }

    fn next_deadline(&self) -> Instant {
        let timings = &self.shared.config.timings;
        let life = match self.ping {
            None => self.last_received + timings.ping_after,
            Some(sent) => sent + timings.pong_grace,
        };
        let progress = self.blocked.map(|(since, _)| since + timings.write);
        [progress, self.guest_until, self.next_rendezvous, self.vouch_due, self.alive_due]
            .into_iter()
            .flatten()
            .fold(life, Instant::min)
    }

    fn handle_time(&mut self, now: Instant) -> Option<End> {
        let timings = self.shared.config.timings;
        let Seat { hub, mailbox, .. } = &self.seat;
        if self.guest_until.is_some_and(|until| until <= now) {
            self.guest_until = None;
            mailbox.end(GUEST_OVER);
        }
        if self.next_rendezvous.is_some_and(|ends| ends <= now) {
            hub.expire_rendezvous(mailbox, now);
            self.next_rendezvous = mailbox.lock().next_rendezvous();
        }
        if self.vouch_due.is_some_and(|due| due <= now) {
            self.vouch_due = Some(now + timings.vouch);
            // It may take a round trip to other nodes, for which this connection does not wait.
            let (hub, mailbox) = (hub.clone(), mailbox.clone());
            tokio::spawn(async move { hub.vouched_still(&mailbox).await });
        }
        if self.alive_due.is_some_and(|due| due <= now) {
            self.alive_due = Some(now + timings.alive);
            hub.alive(&mailbox.device);
        }
        if let Some((since, taken)) = self.blocked.filter(|(since, _)| *since + timings.write <= now) {
            if self.socket.get_ref().taken() == taken {
                hub.metrics.stalled.fetch_add(1, Relaxed);
                tracing::debug!(device = %mailbox.device.short(), "took no byte for {:?}", now - since);
                return Some(End::Broken);
            }
            self.note_progress();
        }
        match self.ping {
            None if self.last_received + timings.ping_after <= now => {
                self.ping = Some(now);
                self.pings += 1;
                self.seat.mailbox.notify(&FromRelay::Ping(self.pings));
                None
            }
            Some(sent) if sent + timings.pong_grace <= now => {
                self.shared.hub.metrics.silent.fetch_add(1, Relaxed);
                Some(End::Told(SILENT))
            }
            _ => None,
        }
    }
}
