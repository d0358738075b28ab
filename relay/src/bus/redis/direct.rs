//! Direct connections between nodes (`PROTOCOL 15`): frames go there by the shortest way while nodes can reach each other, and
//! through Redis while they cannot.
//!
//! A node that has frames for another one dials it, at the address in its lease. Each connection carries batches in one
//! direction and one byte back for each batch that was taken, so that one which is dead is known to be within seconds.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use happy_crypto::DeviceId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::Shared;
use super::outgoing::cost;
use super::shares::Shares;
use crate::bus::batch::{self, Filled, Queue};
use crate::bus::{Frame, Message, NodeId};
use crate::records::unix_ms;

pub(super) const VERSION: u8 = 1;
pub(super) const GREETING: &[u8] = b"happy/1 relay node";
pub(super) const ANSWER: &[u8] = b"happy/1 relay node answer";
/// From the first packet to the answer, and for a node that stands still in between.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// A connection that has nothing to carry carries an empty batch so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that was not reached is not dialled again for so long; its frames go through Redis.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// A secret is at least so long, bytes.
const MIN_SECRET: usize = 16;
/// So many batches may be sent and not taken: far more than the kernels of both nodes keep of full ones.
const MAX_UNTAKEN: usize = 64;

type Proof = Hmac<Sha256>;

/// Where this node takes direct connections, and what nodes prove to each other. It does not print its secret.
pub struct Direct {
    listener: TcpListener,
    address: String,
    secret: Zeroizing<Vec<u8>>,
}

/// Why there are no direct connections.
#[derive(Debug, thiserror::Error)]
pub enum DirectError {
    /// The address cannot be listened at.
    #[error("cannot listen for other nodes at {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The secret is too short to be one.
    #[error("the secret that nodes share has at least {MIN_SECRET} bytes; `openssl rand -base64 32` makes a good one")]
    Secret,
    /// What other nodes dial.
    #[error("`{0}` is not an address that other nodes can dial; give `host:port` of at most 255 bytes")]
    Address(String),
}

impl Direct {
    /// Listens for other nodes. They are told to dial `advertised`, or the address itself.
    ///
    /// # Errors
    /// [`DirectError`].
    pub async fn listen(address: SocketAddr, advertised: Option<&str>, secret: &[u8]) -> Result<Self, DirectError> {
        Self::check(secret, advertised)?;
        let listener = TcpListener::bind(address).await.map_err(|error| DirectError::Listen(address, error))?;
        let bound = listener.local_addr().map_err(|error| DirectError::Listen(address, error))?;
        let dialled = advertised.map_or_else(|| bound.to_string(), str::to_owned);
        Ok(Self { listener, address: dialled, secret: Zeroizing::new(secret.to_vec()) })
    }

    /// Whether [`Self::listen`] would take these.
    ///
    /// # Errors
    /// As there.
    pub fn check(secret: &[u8], advertised: Option<&str>) -> Result<(), DirectError> {
        if secret.len() < MIN_SECRET {
            return Err(DirectError::Secret);
        }
        let Some(dialled) = advertised else { return Ok(()) };
        let port = dialled.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match dialled.len() <= 255 && port.is_some_and(|port| port > 0) {
            true => Ok(()),
            false => Err(DirectError::Address(dialled.to_owned())),
        }
    }

    /// What other nodes are told to dial.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn split(self) -> (TcpListener, Ways) {
        (self.listener, Ways { address: self.address, secret: self.secret, lanes: Mutex::default() })
    }
}

/// The direct ways to other nodes.
pub(super) struct Ways {
    /// What other nodes dial, as it stands in this node's lease.
    pub(super) address: String,
    secret: Zeroizing<Vec<u8>>,
    lanes: Mutex<HashMap<NodeId, Lane>>,
}

enum Lane {
    /// Somebody is dialling.
    Dialling,
    /// It was not reached; it is dialled again after this.
    Off(Instant),
    Up(Arc<Pipe>),
}

/// Whether there is a direct way to a node.
pub(super) enum Found {
    Way(Arc<Pipe>),
    /// There is none. Whether to dial is said once.
    None {
        dial: bool,
    },
}

/// What waits for one node, and whose it is.
pub(super) struct Line {
    queue: Queue,
    shares: Shares,
}

impl Default for Line {
    fn default() -> Self {
        Self { queue: Queue::of_batches(batch::FULL_DIRECTLY), shares: Shares::default() }
    }
}

impl Line {
    /// Whether there was room for a message.
    pub(super) fn push(&mut self, own: NodeId, message: &Message) -> bool {
        let before = self.queue.len();
        let sender = message.sender();
        if sender.is_some_and(|sender| cost(message) > self.shares.room(&sender, before)) {
            return false;
        }
        let more = self.queue.push_message(own, message);
        sender.into_iter().for_each(|sender| self.shares.took(sender, before, more));
        true
    }

    /// The same for frames of a device, all for one. Gives how many were taken.
    pub(super) fn push_frames(&mut self, own: NodeId, from: &DeviceId, run: &[Frame<'_>]) -> usize {
        let before = self.queue.len();
        let room = self.shares.room(from, before);
        let taken = self.queue.push_frames(own, from, run, before + room);
        self.shares.took(*from, before, self.queue.len() - before);
        taken
    }

    /// Takes the batch that has waited for longest.
    fn pop(&mut self) -> Option<Filled> {
        let batch = self.queue.pop()?;
        if self.shares.is_counted() {
            self.shares.went(batch::senders(&batch));
        }
        Some(batch)
    }
}

/// What waits for one connection.
pub(super) struct Pipe {
    /// None once the connection has ended: whoever found the pipe before that shall not put into it what nobody takes out.
    waiting: Mutex<Option<Line>>,
    /// Something waits, or a full batch does.
    wake: Notify,
    /// Batches that were taken from what waits, and not yet by the other node.
    in_hand: AtomicUsize,
}

impl Pipe {
    fn new() -> Self {
        Self { waiting: Mutex::new(Some(Line::default())), wake: Notify::new(), in_hand: AtomicUsize::new(0) }
    }

    /// Puts something to what waits. None when the connection has ended.
    pub(super) fn put<T>(&self, put: impl FnOnce(&mut Line) -> T) -> Option<T> {
        let mut waiting = self.waiting.lock();
        let line = waiting.as_mut()?;
        let (was_empty, was_full) = (line.queue.is_empty(), line.queue.has_full());
        let done = put(line);
        if line.queue.is_empty() != was_empty || line.queue.has_full() != was_full {
            self.wake.notify_one();
        }
        Some(done)
    }

    /// Whether what waits fills a batch.
    fn is_full(&self) -> bool {
        self.waiting.lock().as_ref().is_some_and(|line| line.queue.has_full())
    }

    fn next(&self) -> Option<Filled> {
        let mut waiting = self.waiting.lock();
        let batch = waiting.as_mut()?.pop()?;
        // Under the lock: nobody may find it neither waiting nor in hand.
        self.in_hand.fetch_add(1, Relaxed);
        Some(batch)
    }

    /// A batch was sent, and its room can be used again.
    fn sent(&self, batch: Filled) {
        if let Some(line) = self.waiting.lock().as_mut() {
            line.queue.reuse(batch);
            if !line.queue.is_empty() {
                self.wake.notify_one();
            }
        }
    }

    /// A batch was not sent, and the connection is ending.
    fn put_back(&self, batch: Filled) {
        if let Some(line) = self.waiting.lock().as_mut() {
            line.queue.put_back(batch);
            self.in_hand.fetch_sub(1, Relaxed);
        }
    }

    /// Whether nothing waits, and the other node has taken all that was sent. Not while what is left of an ended connection goes another way.
    fn is_idle(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.as_ref().is_some_and(|line| line.queue.is_empty()) && self.in_hand.load(Relaxed) == 0
    }

    /// Nothing has waited for a while.
    fn shrink(&self) {
        self.waiting.lock().as_mut().into_iter().for_each(|line| line.queue.shrink());
    }
}

impl Ways {
    /// The way to a node.
    pub(super) fn to(&self, node: NodeId) -> Found {
        let mut lanes = self.lanes.lock();
        match lanes.get(&node) {
            Some(Lane::Up(pipe)) => Found::Way(pipe.clone()),
            Some(Lane::Dialling) => Found::None { dial: false },
            Some(Lane::Off(until)) if *until > Instant::now() => Found::None { dial: false },
            Some(Lane::Off(_)) | None => {
                lanes.insert(node, Lane::Dialling);
                Found::None { dial: true }
            }
        }
    }

    /// There is no way to a node now. Those that were not dialled for long are forgotten.
    fn off(&self, node: NodeId) {
        let now = Instant::now();
        let mut lanes = self.lanes.lock();
        lanes.retain(|_, lane| !matches!(lane, Lane::Off(until) if *until <= now));
        lanes.insert(node, Lane::Off(now + PAUSE));
    }

    /// Whether nothing is on any of them.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.lock().values().all(|lane| !matches!(lane, Lane::Up(pipe) if !pipe.is_idle()))
    }

    fn up(&self, node: NodeId) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe::new());
        self.lanes.lock().insert(node, Lane::Up(pipe.clone()));
        pipe
    }

    /// What a node proves itself with to another.
    pub(super) fn proof(&self, label: &[u8], parts: [&[u8]; 4]) -> Option<Proof> {
        let mut proof = Proof::new_from_slice(&self.secret).ok()?;
        proof.update(label);
        parts.iter().for_each(|part| proof.update(part));
        Some(proof)
    }
}

impl Shared {
    /// Dials a node and carries its frames until the connection ends. What it had not sent by then goes through Redis, or
    /// back to its senders when there is no way to Redis either.
    pub(super) async fn carry(self: Arc<Self>, node: NodeId) {
        let Some(ways) = &self.ways else { return };
        let dialled = timeout(PATIENCE, self.dial(ways, node)).await;
        match dialled {
            Ok(Ok(Some(stream))) => {
                let pipe = ways.up(node);
                self.stats.direct.fetch_add(1, Relaxed);
                tracing::debug!(%node, "a direct way to a node is up");
                let ended = self.pump(&pipe, stream).await;
                tracing::debug!(%node, error = %ended, "a direct way to a node has ended");
                self.stats.direct.fetch_sub(1, Relaxed);
                // The lock ends here: whoever finds the pipe meanwhile holds the lock of all that waits, and reading it takes a while.
                let line = pipe.waiting.lock().take();
                let left = line.map(|line| line.queue.into_messages()).unwrap_or_default();
                let (lost, reason) = self.append(node, left);
                self.give_back(self.node, lost, reason);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%node, %error, "a node is not reached directly"),
            Err(_) => tracing::debug!(%node, "a node does not answer directly"),
        }
        ways.off(node);
    }

    /// None when the node says nothing of direct connections.
    async fn dial(&self, ways: &Ways, node: NodeId) -> io::Result<Option<TcpStream>> {
        let Some(address) = self.address_of(node).await.filter(|address| !address.is_empty()) else { return Ok(None) };
        let mut stream = connect(&address).await?;
        let mut challenge = [0; 32];
        stream.read_exact(&mut challenge).await?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let parts: [&[u8]; 4] = [&challenge, &nonce, &self.node.0, &node.0];
        let proof = ways.proof(GREETING, parts).ok_or(io::ErrorKind::InvalidInput)?.finalize().into_bytes();
        let greeting = [&[VERSION][..], &self.node.0, &node.0, &nonce, &proof].concat();
        stream.write_all(&greeting).await?;
        let mut answer = [0; 32];
        stream.read_exact(&mut answer).await?;
        let proof = ways.proof(ANSWER, parts).ok_or(io::ErrorKind::InvalidInput)?;
        proof
            .verify_slice(&answer)
            .map_err(|_| io::Error::other("it does not know the secret of this relay's nodes"))?;
        Ok(Some(stream))
    }

    /// Writes what waits until the connection ends, and gives why it did.
    async fn pump(&self, pipe: &Pipe, stream: TcpStream) -> io::Error {
        let (mut read, mut write) = stream.into_split();
        // When each batch that was not taken yet was sent.
        let mut untaken: VecDeque<Instant> = VecDeque::new();
        loop {
            let done = match turn(pipe, &mut read, &untaken).await {
                Turn::Taken(count) => count.and_then(|count| {
                    strike(&mut untaken, count)?;
                    pipe.in_hand.fetch_sub(count, Relaxed);
                    Ok(())
                }),
                Turn::Waits => self.send_next(pipe, &mut write, &mut untaken).await,
                Turn::Silence if untaken.is_empty() => {
                    pipe.shrink();
                    pipe.in_hand.fetch_add(1, Relaxed);
                    self.send_heartbeat(&mut write, &mut untaken).await
                }
                Turn::Silence => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    /// Sends a batch of what waits.
    async fn send_next(
        &self,
        pipe: &Pipe,
        write: &mut OwnedWriteHalf,
        untaken: &mut VecDeque<Instant>,
    ) -> io::Result<()> {
        if !pipe.is_full() {
            // Whoever else has something for that node now comes first, until it fills a batch, so that it goes there together: one write, one
            // read and one byte back.
            tokio::select! {
                biased;
                () = pipe.wake.notified() => {}
                () = yield_now() => {}
            }
        }
        let Some(mut batch) = pipe.next() else { return Ok(()) };
        batch::stamp(&mut batch, unix_ms());
        if let Err(error) = send(write, &mut batch).await {
            // The other node has not got all of it, so it has taken nothing of it.
            pipe.put_back(batch);
            return Err(error);
        }
        untaken.push_back(Instant::now());
        self.stats.direct_batches.fetch_add(1, Relaxed);
        pipe.sent(batch);
        Ok(())
    }

    async fn send_heartbeat(&self, write: &mut OwnedWriteHalf, untaken: &mut VecDeque<Instant>) -> io::Result<()> {
        send(write, &mut Filled::empty(self.node, unix_ms())).await?;
        untaken.push_back(Instant::now());
        Ok(())
    }
}

/// Connects to the first of a node's addresses that answers.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut failed = io::Error::other("its name has no address");
    for address in lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        avoid_pacing(&socket);
        socket.set_nodelay(true)?;
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// BBR, which operators choose for the long and lossy ways to phones, paces what is sent by a timer for each 64 KiB at the latest. The way to another node is short, and
/// with full batches those timers cost a tenth of what both nodes do for a frame. Any other choice of the system stands. It is before the socket
/// connects that this has to be chosen: one that has begun to be paced is so for good.
#[cfg(target_os = "linux")]
fn avoid_pacing(socket: &TcpSocket) {
    use rustix::net::sockopt::{set_tcp_congestion, tcp_congestion};
    if tcp_congestion(socket).is_ok_and(|chosen| chosen == "bbr") {
        // A process without privileges may not choose each of them. Where it may choose none, nothing is lost but time.
        let _ = ["cubic", "reno"].into_iter().find(|other| set_tcp_congestion(socket, other).is_ok());
    }
}

#[cfg(not(target_os = "linux"))]
fn avoid_pacing(_: &TcpSocket) {}

/// What is to be done next for a connection.
enum Turn {
    /// The other node has taken so many batches.
    Taken(io::Result<usize>),
    /// Something waits to be sent.
    Waits,
    /// It is time for a heartbeat; or, with batches on their way, the other node has been silent for too long.
    Silence,
}

/// Waits, and changes nothing.
async fn turn(pipe: &Pipe, read: &mut OwnedReadHalf, untaken: &VecDeque<Instant>) -> Turn {
    let silence = untaken.front().map_or(Instant::now() + HEARTBEAT, |sent| *sent + PATIENCE);
    let mut taken = [0; MAX_UNTAKEN];
    tokio::select! {
        biased;
        count = read.read(&mut taken) => Turn::Taken(count),
        () = pipe.wake.notified(), if untaken.len() < MAX_UNTAKEN => Turn::Waits,
        () = sleep_until(silence) => Turn::Silence,
    }
}

/// So many batches were taken.
fn strike(untaken: &mut VecDeque<Instant>, count: usize) -> io::Result<()> {
    if count == 0 || count > untaken.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    untaken.drain(..count);
    Ok(())
}

async fn send(write: &mut OwnedWriteHalf, batch: &mut Filled) -> io::Result<()> {
    timeout(PATIENCE, write.write_all(batch.with_length())).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::device;
    use happy_wire::relay::Undelivered;

    use crate::bus::batch::FULL_DIRECTLY as FULL;
    use crate::bus::redis::RedisBus;
    use crate::bus::redis::outgoing::Outgoing;
    use crate::bus::{GuestEnd, Login};

    fn frame(tag: u32) -> Message {
        Message::Frame { from: device(1), to: device(2), tag, deliver: vec![3; 60_000].into() }
    }

    fn put(pipe: &Pipe, frames: &[Message]) {
        let own = NodeId([1; 8]);
        let put = |line: &mut Line| {
            frames.iter().for_each(|frame| {
                line.queue.push_message(own, frame);
            });
        };
        assert_eq!(pipe.put(put), Some(()));
    }

    #[test]
    fn a_device_that_sends_without_end_leaves_room_for_the_frames_of_others() {
        let pipe = Pipe::new();
        let (own, payload) = (NodeId([1; 8]), vec![3; 60_000]);
        let run = [Frame { to: device(9), tag: 1, payload: &payload }];
        let takes = |from: u32| pipe.put(|line| line.push_frames(own, &device(from), &run)) == Some(1);
        assert!((0..1_000).any(|_| !takes(1)), "there is a bound");
        assert!((2..20).all(takes), "others have room beside it");
    }

    /// Others keep more waiting than may wait uncounted, all the time.
    #[test]
    fn what_was_sent_of_a_device_is_room_for_it_again_beside_others_that_keep_the_way_full() {
        let pipe = Pipe::new();
        let (own, payload) = (NodeId([1; 8]), vec![3; 60_000]);
        let run = [Frame { to: device(9), tag: 1, payload: &payload }];
        let takes = |from: u32| pipe.put(|line| line.push_frames(own, &device(from), &run)) == Some(1);
        let sent = (0..1_000).take_while(|_| takes(1)).count();
        assert!(sent > 50, "{sent}");
        let mut others = 2..;
        let gone_after = sent.div_ceil(FULL.div_ceil(payload.len()));
        for _ in 0..gone_after {
            assert!(pipe.next().is_some());
            while pipe.put(|line| line.queue.len()) < Some(6 * 1024 * 1024) {
                assert!(others.next().is_some_and(takes));
            }
        }
        assert!(takes(1), "it has nothing waiting any more");
    }

    #[tokio::test]
    async fn what_was_not_sent_is_left_when_a_node_stands_still_and_comes_back_without_redis() {
        let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_stands_still, _) = listener.accept().await.unwrap();
        let (_read, mut write) = stream.into_split();
        // Far more than the kernel keeps.
        let frames: Vec<_> = (0..800).map(frame).collect();
        let pipe = Pipe::new();
        put(&pipe, &frames[..700]);
        let mut untaken = VecDeque::new();
        let until_it_ends = async {
            while bus.shared.send_next(&pipe, &mut write, &mut untaken).await.is_ok() {
                assert!(!pipe.waiting.lock().as_ref().unwrap().queue.is_empty(), "all of it was sent");
            }
        };
        tokio::join!(biased; until_it_ends, async { put(&pipe, &frames[700..]) });
        let in_a_batch = FULL.div_ceil(60_000 + 73);
        let sent = untaken.len() * in_a_batch;
        assert!(sent > 0 && sent < 700, "{sent}");
        let left = pipe.waiting.lock().take().unwrap().queue.into_messages();
        assert!(left == frames[sent..], "{} are left, and {sent} were sent", left.len());
        let (lost, reason) = bus.shared.append(NodeId([2; 8]), left);
        assert_eq!((lost.len(), reason), (frames.len() - sent, Undelivered::Unreachable));
    }

    /// A bus without Redis, and a direct way to a node that nobody empties.
    async fn way_to(node: NodeId) -> (RedisBus, Arc<Pipe>) {
        let direct = Direct::listen("127.0.0.1:0".parse().unwrap(), None, &[1; MIN_SECRET]).await.unwrap();
        let bus = RedisBus::start_with(&"redis://127.0.0.1:1".parse().unwrap(), Some(direct)).unwrap();
        let pipe = bus.shared.ways.as_ref().unwrap().up(node);
        (bus, pipe)
    }

    fn undelivered(tag: u32, rendezvous: bool) -> Message {
        Message::Undelivered { from: device(1), to: device(2), tag, reason: Undelivered::Unreachable, rendezvous }
    }

    #[tokio::test]
    async fn that_a_guest_is_none_any_more_goes_behind_the_word_of_why() {
        let near = NodeId([2; 8]);
        let (bus, pipe) = way_to(near).await;
        let mut out = bus.shared.out.lock();
        let (guest, host, login) = (device(1), device(2), Login { epoch: 1, number: 1 });
        let why = Message::GuestEnds { guest, login, host, end: GuestEnd::Displaced };
        assert_eq!(bus.shared.send(&mut out, near, why), Ok(true));
        assert_eq!(bus.shared.send(&mut out, near, undelivered(1, true)), Ok(true), "through Redis, like the other");
        assert_eq!(bus.shared.send(&mut out, near, undelivered(2, false)), Ok(false));
        assert_eq!(bus.shared.send(&mut out, near, frame(3)), Ok(false));
        drop(out);
        assert!(!pipe.is_idle());
    }

    #[tokio::test]
    async fn what_goes_directly_asks_for_no_room_of_redis_and_a_direct_way_that_is_full_is_counted() {
        let (near, far) = (NodeId([2; 8]), NodeId([3; 8]));
        let (bus, pipe) = way_to(near).await;
        let mut out = bus.shared.out.lock();
        bus.shared.ways.as_ref().unwrap().off(far);
        let fill = |out: &mut Outgoing, node| (0..1_000).any(|tag| bus.shared.send(out, node, frame(tag)).is_err());
        assert!(fill(&mut out, far), "there is a bound to what goes through Redis");
        let waiting = out.waiting;
        assert_eq!(bus.shared.send(&mut out, near, undelivered(1, false)), Ok(false));
        assert!(fill(&mut out, near), "there is one to what goes directly");
        assert_eq!(out.waiting, waiting);
        let undelivered_full = || bus.shared.stats.notices_full[4].load(Relaxed);
        assert_eq!(undelivered_full(), 0, "of a frame its sender is told");
        // A small message may still find room behind a frame that did not.
        let full = (0..1_000).any(|tag| bus.shared.send(&mut out, near, undelivered(tag, false)).is_err());
        assert_eq!((full, undelivered_full()), (true, 1));
        drop(out);
        assert!(pipe.put(|line| line.queue.len()) > Some(super::super::MAX_WAITING / 2));
    }

    /// A node that ends waits for it, as long as that takes no longer than a second.
    #[tokio::test]
    async fn what_was_sent_and_not_taken_is_in_hand() {
        let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut other, _) = listener.accept().await.unwrap();
        let pipe = Pipe::new();
        assert!(pipe.is_idle());
        put(&pipe, &[frame(1)]);
        assert!(!pipe.is_idle(), "it waits");
        let taken = async {
            let mut length = [0; 4];
            other.read_exact(&mut length).await.unwrap();
            let mut batch = vec![0; u32::from_be_bytes(length) as usize];
            other.read_exact(&mut batch).await.unwrap();
            assert!(pipe.waiting.lock().as_ref().unwrap().queue.is_empty());
            assert!(!pipe.is_idle(), "it was sent, and not taken");
            other.write_all(&[1]).await.unwrap();
            while !pipe.is_idle() {
                yield_now().await;
            }
        };
        let shared = &bus.shared;
        tokio::select! {
            error = shared.pump(&pipe, stream) => panic!("{error}"),
            taken = timeout(10 * PATIENCE, taken) => taken.unwrap(),
        }
    }

    #[test]
    fn a_pipe_that_has_ended_takes_nothing() {
        let pipe = Pipe { waiting: Mutex::new(None), ..Pipe::new() };
        assert_eq!(pipe.put(|_| ()), None);
        pipe.put_back(Filled::empty(NodeId([1; 8]), 1));
        assert_eq!(pipe.next(), None);
    }
}
