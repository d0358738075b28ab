//! Direct connections between nodes (`PROTOCOL 15`): frames go there by the shortest way while nodes can reach each other, and
//! through Redis while they cannot.
//!
//! A node that has frames for another one dials it, at the address in its lease. Each connection carries batches in one
//! direction and one byte back for each batch that was taken, so that one which is dead is known to be within seconds.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Buf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::outgoing::{messages, parts};
use super::{MAX_WAITING, Shared};
use crate::bus::NodeId;
use crate::bus::batch::{self, Record};
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
/// A batch that was sent and not taken counts as so much at least, so that their number is bounded, too.
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

/// What became of a record that was to go a direct way.
pub(super) enum Taken {
    Yes,
    /// There is a way, and too much waits for it.
    Full,
    /// There is none. Whether to dial is said once.
    NoWay {
        dial: bool,
    },
}

/// What waits for one connection.
struct Pipe {
    /// None once the connection has ended: whoever found the pipe before that shall not put into it what nobody takes out.
    waiting: Mutex<Option<Vec<u8>>>,
    wake: Notify,
}

impl Pipe {
    /// Under the lock of the lanes: all who have something for a node are one after the other here anyway.
    fn take(&self, own: NodeId, record: &Record) -> Taken {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return Taken::NoWay { dial: false } };
        if waiting.len() > MAX_WAITING {
            return Taken::Full;
        }
        let first = waiting.is_empty();
        if first {
            batch::begin(waiting, own, 0);
        }
        batch::push(waiting, record);
        if first {
            self.wake.notify_one();
        }
        Taken::Yes
    }

    /// Puts parts back before what waits: the connection ended before they were sent.
    fn put_back<'a>(&self, parts: impl Iterator<Item = Cow<'a, [u8]>>) {
        let mut waiting = self.waiting.lock();
        let newer = waiting.take().unwrap_or_default();
        let mut all = Vec::new();
        for part in parts.chain([newer.into()]) {
            let head = if all.is_empty() { 0 } else { batch::HEAD };
            all.extend_from_slice(part.get(head..).unwrap_or_default());
        }
        *waiting = Some(all);
    }
}

impl Ways {
    /// Takes a record for a node if there is a way to it.
    pub(super) fn take(&self, own: NodeId, node: NodeId, record: &Record) -> Taken {
        let mut lanes = self.lanes.lock();
        match lanes.get(&node) {
            Some(Lane::Up(pipe)) => pipe.take(own, record),
            Some(Lane::Dialling) => Taken::NoWay { dial: false },
            Some(Lane::Off(until)) if *until > Instant::now() => Taken::NoWay { dial: false },
            Some(Lane::Off(_)) | None => {
                lanes.insert(node, Lane::Dialling);
                Taken::NoWay { dial: true }
            }
        }
    }

    /// There is no way to a node now. Those that were not dialled for long are forgotten.
    fn off(&self, node: NodeId) -> Option<Arc<Pipe>> {
        let now = Instant::now();
        let mut lanes = self.lanes.lock();
        lanes.retain(|_, lane| !matches!(lane, Lane::Off(until) if *until <= now));
        match lanes.insert(node, Lane::Off(now + PAUSE)) {
            Some(Lane::Up(pipe)) => Some(pipe),
            _ => None,
        }
    }

    fn up(&self, node: NodeId) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe { waiting: Mutex::new(Some(Vec::new())), wake: Notify::new() });
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
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%node, %error, "a node is not reached directly"),
            Err(_) => tracing::debug!(%node, "a node does not answer directly"),
        }
        if let Some(pipe) = ways.off(node) {
            let left = pipe.waiting.lock().take().map(messages).unwrap_or_default();
            let lost = self.append(node, left);
            self.give_back(lost);
        }
    }

    /// None when the node says nothing of direct connections.
    async fn dial(&self, ways: &Ways, node: NodeId) -> io::Result<Option<TcpStream>> {
        let Some(address) = self.address_of(node).await.filter(|address| !address.is_empty()) else { return Ok(None) };
        let mut stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
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
                Turn::Taken(count) => count.and_then(|count| strike(&mut untaken, count)),
                Turn::Waits => self.send_waiting(pipe, &mut write, &mut untaken).await,
                Turn::Silence if untaken.is_empty() => self.send_heartbeat(&mut write, &mut untaken).await,
                Turn::Silence => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = done {
                return error;
            }
        }
    }

    async fn send_waiting(
        &self,
        pipe: &Pipe,
        write: &mut OwnedWriteHalf,
        untaken: &mut VecDeque<Instant>,
    ) -> io::Result<()> {
        let batch = pipe.waiting.lock().as_mut().map(std::mem::take);
        let Some(mut batch) = batch.filter(|batch| !batch.is_empty()) else { return Ok(()) };
        batch::stamp(&mut batch, unix_ms());
        let mut parts = parts(&batch).into_iter();
        while let Some(part) = parts.next() {
            if let Err(error) = send(write, &part).await {
                // The other node has not got all of this one, so it has taken nothing of it.
                pipe.put_back(std::iter::once(part).chain(parts));
                return Err(error);
            }
            untaken.push_back(Instant::now());
            self.stats.direct_batches.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    async fn send_heartbeat(&self, write: &mut OwnedWriteHalf, untaken: &mut VecDeque<Instant>) -> io::Result<()> {
        let mut batch = Vec::with_capacity(batch::HEAD);
        batch::begin(&mut batch, self.node, unix_ms());
        send(write, &batch).await?;
        untaken.push_back(Instant::now());
        Ok(())
    }
}

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

async fn send(write: &mut OwnedWriteHalf, batch: &[u8]) -> io::Result<()> {
    let length = (batch.len() as u32).to_be_bytes();
    // In one write: apart they would be two packets, and wake the other node twice.
    timeout(PATIENCE, write.write_all_buf(&mut Buf::chain(&length[..], batch))).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::device;
    use crate::bus::Message;
    use crate::bus::redis::RedisBus;
    use crate::bus::redis::outgoing::MAX_BATCH;

    fn frame(tag: u32) -> Message {
        Message::Frame { from: device(1), to: device(2), tag, deliver: vec![3; 60_000].into() }
    }

    fn batch_of(frames: &[Message]) -> Vec<u8> {
        let mut bytes = Vec::new();
        batch::begin(&mut bytes, NodeId([1; 8]), 1);
        frames.iter().for_each(|frame| batch::push(&mut bytes, &Record::Message(frame.clone())));
        bytes
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
        let pipe = Pipe { waiting: Mutex::new(Some(batch_of(&frames[..700]))), wake: Notify::new() };
        let mut untaken = VecDeque::new();
        let (ended, ()) = tokio::join!(biased; bus.shared.send_waiting(&pipe, &mut write, &mut untaken), async {
            *pipe.waiting.lock() = Some(batch_of(&frames[700..]));
        });
        assert!(ended.is_err());
        let in_a_part = MAX_BATCH / (60_000 + 73);
        let sent = untaken.len() * in_a_part;
        assert!(sent > 0 && sent < 700, "{sent}");
        let left = messages(pipe.waiting.lock().take().unwrap());
        assert!(left == frames[sent..], "{} are left, and {sent} were sent", left.len());
        let lost = bus.shared.append(NodeId([2; 8]), left);
        assert_eq!(lost.len(), frames.len() - sent);
    }
}
