//! The actor that owns one websocket: it logs the device in, reads its frames, writes what its mailbox holds, and keeps
//! the waits of `PROTOCOL 7`.
//!
//! Reading and writing are polled in one task, so neither waits for the other: a device that sends while it does not read
//! is not stopped, and one whose socket is full still gets its frames routed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_FRAME, MAX_PAYLOAD, QUEUE_BYTES, ToRelay};
use happy_wire::{Code, WireError};
use tokio::io::{AsyncRead as _, AsyncReadExt, AsyncWrite as _, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::Shared;
use crate::bus::Frame;
use crate::desk::{Desk, Request};
use crate::hub::Seat;
use crate::listen::Admission;
use crate::login::{self, Refusal};
use crate::mailbox::{Count, Ending, Host, Outgoing, Standing};
use crate::metrics::{Drop as Dropped, LoginResult};
use crate::socket::Stream;
use crate::websocket::{self, Fault, MAX_HEAD, Message, Reader};

/// What is read at once, into a place that all connections of a thread share: an idle connection has no read buffer, and a busy one a large one.
/// What it leaves there is no whole frame, as a rule, and is kept by the connection.
const READ: usize = 2 * (MAX_FRAME + MAX_HEAD);
/// Frames handled before the connection looks whether it may go on: it has ended, or its notices have piled up. Also what keeps the answers to
/// them within the half of the control queue that is left for them.
const READS_PER_LOOK: usize = 64;
/// The same during the login, which is one small frame.
const LOGIN_READ: usize = 512;
/// What is read and thrown away after the last word, so that closing does not reset the connection under it.
const LINGER_BYTES: u64 = 256 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

const MALFORMED: Ending = Ending::at_once(Code::MALFORMED, "a frame was malformed or out of place");
const OVERSIZED: Ending = Ending::at_once(Code::TOO_LARGE, "a frame was larger than a payload of 65,536 bytes");
const SILENT: Ending = Ending::at_once(Code::SILENT, "there was no sign of life");
const GUEST_PEERS: Ending = Ending::at_once(Code::NOT_PERMITTED, "a guest names no peers");
const GUEST_OVER: Ending = Ending::after_queue(Code::GOODBYE, 0, "the time for pairing is over");

/// A websocket: its stream, and what has been read from it and not been handled.
struct Socket {
    stream: Stream,
    reader: Reader,
    /// Less than a frame, unless `unread`.
    rest: Vec<u8>,
    /// There may be whole frames in `rest`.
    unread: bool,
}

/// Owns an upgraded socket until it ends. `early` is what arrived behind the upgrade request; `names` are the names under
/// which the relay may have been dialled on this connection.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    stream: Stream,
    early: Bytes,
    names: Arc<[String]>,
) {
    let mut socket = Socket { stream, reader: Reader::default(), rest: early.into(), unread: true };
    // Boxed, so that the task of a connection that lives for days does not carry the room its login needed.
    let seat = shared.turnstile.through(Box::pin(log_in(&shared, &admission, &mut socket, &names))).await;
    match seat {
        Ok((seat, name)) => {
            shared.hub.metrics.login(LoginResult::Accepted);
            admission.seated();
            tracing::debug!(device = %seat.mailbox.device.short(), guest = seat.mailbox.host.is_some(), "logged in");
            Actor::new(shared, socket, seat, (names, name)).run().await;
        }
        Err(refusal) => {
            shared.hub.metrics.login(refusal.result);
            admission.failed(&shared, refusal.result);
            tracing::debug!(result = ?refusal.result, "login refused");
            if refusal.result != LoginResult::Gone {
                Box::pin(farewell(&shared, &mut socket.stream, Vec::new(), None, refusal.ending)).await;
            }
        }
    }
}

async fn log_in(
    shared: &Arc<Shared>,
    admission: &Admission,
    socket: &mut Socket,
    names: &[String],
) -> Result<(Seat, usize), Refusal> {
    let attempt = async {
        let mut nonce = [0; 32];
        // Without randomness no login can be safe; the operating system has it from its start.
        getrandom::fill(&mut nonce).map_err(|_| Refusal::FULL)?;
        let mut challenge = Vec::new();
        put(shared, &mut challenge, None, &FromRelay::Challenge { nonce });
        socket.stream.write_all(&challenge).await.map_err(|_| GONE)?;
        socket.stream.flush().await.map_err(|_| GONE)?;
        let frame = first_frame(socket).await?;
        if let Some(tap) = &shared.config.tap {
            tap.received(None, &frame);
        }
        let admit = || shared.logins.admit(admission.is_suspect(shared), Instant::now());
        let proven = login::check(&shared.config.access, admit, names, &nonce, &frame)?;
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
    let host = seat.mailbox.host.as_ref().map(Host::device);
    seat.mailbox.notify(&FromRelay::Welcome { max_payload: MAX_PAYLOAD as u32, queue_bytes: QUEUE_BYTES as u32, host });
    Ok((seat, name))
}

/// The device went before it logged in.
const GONE: Refusal = Refusal::new(LoginResult::Gone, Code::GOODBYE, 0, "");

/// The first binary message of a connection.
async fn first_frame(socket: &mut Socket) -> Result<Vec<u8>, Refusal> {
    const LARGE: Refusal = Refusal { result: LoginResult::Malformed, ending: OVERSIZED };
    loop {
        let all = socket.rest.len();
        let mut bytes = &mut socket.rest[..];
        let message = socket.reader.next(&mut bytes).map_err(|fault| match fault {
            Fault::TooLarge => LARGE,
            Fault::Broken => Refusal::MALFORMED,
        })?;
        let (mut frame, mut pong) = (None, Vec::new());
        match message {
            Some(Message::Binary(body)) => frame = Some(body.into_owned()),
            Some(Message::Ping(body)) => websocket::put_pong(&mut pong, body),
            Some(Message::Text) => return Err(Refusal::MALFORMED),
            Some(Message::Close(_)) => return Err(GONE),
            None => {}
        }
        let handled = all - bytes.len();
        socket.rest.drain(..handled);
        if let Some(frame) = frame {
            return Ok(frame);
        }
        if !pong.is_empty() {
            socket.stream.write_all(&pong).await.map_err(|_| GONE)?;
            socket.stream.flush().await.map_err(|_| GONE)?;
        } else if handled == 0 {
            let mut more = [0; LOGIN_READ];
            match socket.stream.read(&mut more).await {
                Ok(n @ 1..) => socket.rest.extend_from_slice(&more[..n]),
                _ => return Err(GONE),
            }
        }
    }
}

/// Appends a frame to what goes to a device.
fn put(shared: &Shared, out: &mut Vec<u8>, to: Option<DeviceId>, frame: &FromRelay<'_>) {
    let mut bytes = Vec::with_capacity(64);
    frame.encode(&mut bytes);
    if let Some(tap) = &shared.config.tap {
        tap.sent(to, &bytes);
    }
    websocket::put_message(out, &bytes);
}

/// Says why the connection ends and closes it, behind what has not been written. True when everything has gone out.
async fn farewell(
    shared: &Shared,
    stream: &mut Stream,
    mut unwritten: Vec<u8>,
    to: Option<DeviceId>,
    ending: Ending,
) -> bool {
    let Ending { code, retry_after_ms, text, .. } = ending;
    put(shared, &mut unwritten, to, &FromRelay::Goaway { code, retry_after_ms, text });
    websocket::put_close(&mut unwritten, code.0, text);
    let said = write_out(shared, stream, &unwritten).await;
    if said {
        let _ = timeout(shared.config.timings.farewell, linger(stream)).await;
    }
    said
}

/// Writes the last bytes of a connection, as long as a farewell may take. True when they have gone out.
async fn write_out(shared: &Shared, stream: &mut Stream, bytes: &[u8]) -> bool {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    matches!(timeout(shared.config.timings.farewell, writing).await, Ok(Ok(())))
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
    /// The device closed it, with this code.
    Closed(u16),
    /// The socket broke, or it took no byte for too long: nobody is there to be told.
    Broken,
}

struct Actor {
    shared: Arc<Shared>,
    socket: Socket,
    seat: Seat,
    /// What is being written, and how much of it the socket has taken.
    writing: Vec<u8>,
    written: usize,
    /// Deliver frames in `writing`, or taken by the socket and not flushed yet.
    unflushed: Count,
    /// Whether anything at all is.
    dirty: bool,
    /// The answer to the last Ping of the websocket.
    pong: Vec<u8>,
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
    /// Until when it is not read because it named others too fast.
    names_due: Option<Instant>,
    /// Fires at the next deadline or before it; it is moved only when a deadline comes nearer.
    sleep: Pin<Box<Sleep>>,
}

impl Actor {
    fn new(shared: Arc<Shared>, socket: Socket, seat: Seat, name: (Arc<[String]>, usize)) -> Self {
        let now = Instant::now();
        let timings = &shared.config.timings;
        let names_due = seat.hub.naming.due(&seat.mailbox.device, now);
        Self {
            vouch_due: (seat.mailbox.standing == Standing::Vouched).then(|| now + timings.vouch),
            guest_until: seat.mailbox.host.is_some().then(|| now + timings.guest),
            sleep: Box::pin(sleep_until(now + timings.ping_after)),
            shared,
            socket,
            seat,
            writing: Vec::new(),
            written: 0,
            unflushed: Count::default(),
            dirty: false,
            pong: Vec::new(),
            blocked: None,
            last_received: now,
            ping: None,
            pings: 0,
            next_rendezvous: None,
            desk: Desk::default(),
            name,
            alive_due: None,
            names_due,
        }
    }

    async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        let Actor { shared, socket: Socket { mut stream, .. }, seat, mut writing, written, unflushed, .. } = self;
        let device = seat.mailbox.device;
        // The seat is given up first: what follows may take a second, and the device is gone already.
        drop(seat);
        writing.drain(..written);
        let flushed = match end {
            End::Told(ending) => {
                if ending.code == Code::TOO_MANY {
                    shared.hub.metrics.crowded.fetch_add(1, Relaxed);
                }
                tracing::debug!(device = %device.short(), code = ending.code.0, why = ending.text, "connection ended");
                Box::pin(farewell(&shared, &mut stream, writing, Some(device), ending)).await
            }
            End::Closed(code) => {
                tracing::debug!(device = %device.short(), "connection closed by the device");
                websocket::put_close(&mut writing, code, "");
                Box::pin(write_out(&shared, &mut stream, &writing)).await
            }
            End::Broken => {
                tracing::debug!(device = %device.short(), "connection broke");
                false
            }
        };
        let metrics = &shared.hub.metrics;
        let flow = if flushed { &metrics.delivered } else { metrics.dropped(Dropped::ReceiverEnded) };
        flow.add(unflushed.frames, unflushed.bytes);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.seat.mailbox.register(cx.waker());
        let (ending, crowded) = self.look();
        match ending {
            Some(ending) if !ending.drain => return Poll::Ready(End::Told(ending)),
            None if !crowded && self.names_due.is_none() => {
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

    /// Whether the connection ends, and whether it has to read its notices before more of its frames are taken.
    fn look(&self) -> (Option<Ending>, bool) {
        let state = self.seat.mailbox.lock();
        (state.ending(), state.is_crowded())
    }

    // Reading

    /// Handles what has arrived, as much as fits into one read.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<End> {
        SCRATCH.with_borrow_mut(|scratch| {
            let kept = self.socket.rest.len();
            let (filled, ended) = match self.fill(cx, &mut scratch[kept..]) {
                Ok((read, ended)) => (kept + read, ended),
                Err(_) => return Some(End::Broken),
            };
            if filled > kept {
                self.last_received = Instant::now();
                self.ping = None;
            } else if !self.socket.unread {
                return ended.then_some(End::Broken);
            }
            scratch[..kept].copy_from_slice(&self.socket.rest);
            self.socket.rest.clear();
            let end = self.handle(&mut scratch[..filled]);
            if end.is_none() && (filled == scratch.len() || ended || self.socket.unread) {
                // There may be more. Others get their turn first.
                cx.waker().wake_by_ref();
            }
            end
        })
    }

    /// Reads until there is no more, or no more room. True when the device has closed its side.
    fn fill(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut buffer = ReadBuf::new(room);
        while buffer.remaining() > 0 {
            let before = buffer.filled().len();
            match Pin::new(&mut self.socket.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() == before => return Ok((before, true)),
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
        }
        Ok((buffer.filled().len(), false))
    }

    /// Handles whole frames, and keeps what is left.
    fn handle(&mut self, mut bytes: &mut [u8]) -> Option<End> {
        self.socket.unread = false;
        loop {
            let mut sends = Vec::new();
            let mut looked = 0;
            let mut end = None;
            while looked < READS_PER_LOOK && end.is_none() && self.names_due.is_none() {
                looked += 1;
                match self.socket.reader.next(&mut bytes) {
                    Ok(Some(message)) => end = self.handle_message(message, &mut sends),
                    Ok(None) => break,
                    Err(fault) => end = Some(self.broken(fault)),
                }
            }
            self.route(&mut sends);
            if end.is_some() {
                return end;
            }
            if bytes.is_empty() || (looked < READS_PER_LOOK && self.names_due.is_none()) {
                break;
            }
            let (ending, crowded) = self.look();
            if ending.is_some() || crowded || self.names_due.is_some() {
                self.socket.unread = true;
                break;
            }
        }
        self.socket.rest = bytes.to_vec();
        None
    }

    fn broken(&self, fault: Fault) -> End {
        let metrics = &self.shared.hub.metrics;
        let (counter, ending) = match fault {
            Fault::TooLarge => (&metrics.oversized, OVERSIZED),
            Fault::Broken => (&metrics.malformed, MALFORMED),
        };
        counter.fetch_add(1, Relaxed);
        End::Told(ending)
    }

    /// Sends are only gathered, so that those to one receiver are routed together.
    fn handle_message<'a>(&mut self, message: Message<'a>, sends: &mut Vec<Frame<'a>>) -> Option<End> {
        match message {
            Message::Binary(Cow::Borrowed(frame)) => self.handle_frame(frame, sends),
            Message::Binary(Cow::Owned(frame)) => {
                self.route(sends);
                let mut alone = Vec::new();
                let end = self.handle_frame(&frame, &mut alone);
                self.route(&mut alone);
                end
            }
            Message::Text => Some(self.broken(Fault::Broken)),
            Message::Ping(body) => {
                self.pong.clear();
                websocket::put_pong(&mut self.pong, body);
                None
            }
            Message::Close(code) => Some(End::Closed(code)),
        }
    }

    fn route(&self, sends: &mut Vec<Frame<'_>>) {
        self.seat.hub.route(&self.seat.mailbox, sends);
        sends.clear();
    }

    fn handle_frame<'a>(&mut self, frame: &'a [u8], sends: &mut Vec<Frame<'a>>) -> Option<End> {
        if let Some(tap) = &self.shared.config.tap {
            tap.received(Some(self.seat.mailbox.device), frame);
        }
        let decoded = ToRelay::decode(frame);
        if let Ok(ToRelay::Send { to, tag, payload }) = decoded {
            sends.push(Frame { to, tag, payload });
            return None;
        }
        // What came before it is done before it.
        self.route(sends);
        let Seat { hub, mailbox, .. } = &self.seat;
        match decoded {
            Ok(ToRelay::Peers(_)) if mailbox.host.is_some() => return Some(End::Told(GUEST_PEERS)),
            Ok(ToRelay::Peers(list)) => {
                let changed = hub.name(mailbox, &list);
                self.pace(changed, list.len());
            }
            Ok(ToRelay::OpenRendezvous { ticket_hash, seconds }) => {
                hub.open_rendezvous(mailbox, ticket_hash, seconds);
                self.next_rendezvous = mailbox.lock().next_rendezvous();
                self.pace(0, 0);
            }
            Ok(ToRelay::CloseRendezvous { ticket_hash }) => {
                hub.close_rendezvous(mailbox, ticket_hash);
                self.pace(0, 0);
            }
            Ok(ToRelay::Ping(n)) => mailbox.notify(&FromRelay::Pong(n)),
            Ok(ToRelay::Pong(_) | ToRelay::Send { .. }) => {}
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
            Ok(ToRelay::Login { .. }) | Err(_) => return Some(self.broken(Fault::Broken)),
        }
        None
    }

    /// What may have to be said to other nodes is said no faster than they can hear it (`PROTOCOL 7`, Rates).
    fn pace(&mut self, changed: usize, listed: usize) {
        let Seat { hub, mailbox, .. } = &self.seat;
        self.names_due = hub.naming.took(&mailbox.device, changed, listed, Instant::now());
        if self.names_due.is_some() {
            hub.metrics.paced.fetch_add(1, Relaxed);
        }
    }

    fn ask(&mut self, request: Request) {
        let Seat { hub, mailbox, .. } = &self.seat;
        let (names, name) = &self.name;
        self.desk.take(hub, mailbox, names.get(*name).map_or("", String::as_str), request);
    }

    // Writing

    /// Writes what the mailbox holds and flushes once it holds no more. Ready when everything has gone out.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.writing.get(self.written..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut self.socket.stream).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => self.written += taken,
                }
            }
            if !self.fetch() {
                break;
            }
        }
        if self.dirty {
            ready!(Pin::new(&mut self.socket.stream).poll_flush(cx))?;
            self.flushed();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what is to be written next, when everything before it has been. False when there is nothing.
    fn fetch(&mut self) -> bool {
        self.written = 0;
        self.writing.clear();
        self.writing.append(&mut self.pong);
        while let Some(next) = self.seat.mailbox.next() {
            match next {
                Outgoing::Control(frame) => {
                    self.tap_sent(&frame);
                    websocket::put_message(&mut self.writing, &frame);
                }
                Outgoing::Deliver(batch) => {
                    if self.shared.config.tap.is_some() {
                        websocket::messages(batch.frames()).for_each(|frame| self.tap_sent(frame));
                    }
                    self.unflushed += batch.held;
                    match self.writing.is_empty() {
                        true => (self.writing, self.written) = batch.into_frames(),
                        false => self.writing.extend_from_slice(batch.frames()),
                    }
                    break;
                }
            }
        }
        if self.writing.is_empty() {
            // What the last batch needed is given back.
            self.writing = Vec::new();
            return false;
        }
        self.dirty = true;
        true
    }

    fn tap_sent(&self, frame: &[u8]) {
        if let Some(tap) = &self.shared.config.tap {
            tap.sent(Some(self.seat.mailbox.device), frame);
        }
    }

    fn flushed(&mut self) {
        self.dirty = false;
        self.blocked = None;
        let Count { frames, bytes } = std::mem::take(&mut self.unflushed);
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
        let taken = self.socket.stream.taken();
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
            if self.names_due.is_some_and(|due| due <= Instant::now()) {
                self.names_due = None;
                // It is read in the next turn.
                cx.waker().wake_by_ref();
            }
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
        [progress, self.guest_until, self.next_rendezvous, self.vouch_due, self.alive_due, self.names_due]
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
            if self.socket.stream.taken() == taken {
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
