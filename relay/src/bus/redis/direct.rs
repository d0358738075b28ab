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
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use parking_lot::Mutex;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::outgoing::{MAX_BATCH, messages, parts};
use super::{MAX_WAITING, Shared};
use crate::bus::NodeId;
use crate::bus::batch::{self, Batch, Record};
use crate::records::unix_ms;

const VERSION: u8 = 1;
const GREETING: &[u8] = b"happy/1 relay node";
const ANSWER: &[u8] = b"happy/1 relay node answer";
/// Version, both nodes, a nonce, a proof.
const GREETING_LEN: usize = 1 + 2 * NodeId::LEN + 32 + 32;
/// From the first packet to the answer, and for a node that stands still in between.
const PATIENCE: Duration = Duration::from_secs(2);
/// A connection that has nothing to carry carries an empty batch so often.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A node that was not reached is not dialled again for so long; its frames go through Redis.
const PAUSE: Duration = Duration::from_secs(2);
/// Connections from other nodes at once, proven or not.
const MAX_NODES: usize = 256;
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

impl Ways {
    /// Takes a record for a node if there is a way to it.
    pub(super) fn take(&self, own: NodeId, node: NodeId, record: &Record) -> Taken {
        let pipe = {
            let mut lanes = self.lanes.lock();
            match lanes.get(&node) {
                Some(Lane::Up(pipe)) => pipe.clone(),
                Some(Lane::Dialling) => return Taken::NoWay { dial: false },
                Some(Lane::Off(until)) if *until > Instant::now() => return Taken::NoWay { dial: false },
                Some(Lane::Off(_)) | None => {
                    lanes.insert(node, Lane::Dialling);
                    return Taken::NoWay { dial: true };
                }
            }
        };
        let first = {
            let mut waiting = pipe.waiting.lock();
            let Some(waiting) = waiting.as_mut() else { return Taken::NoWay { dial: false } };
            if waiting.len() > MAX_WAITING {
                return Taken::Full;
            }
            let first = waiting.is_empty();
            if first {
                batch::begin(waiting, own, 0);
            }
            batch::push(waiting, record);
            first
        };
        if first {
            pipe.wake.notify_one();
        }
        Taken::Yes
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

    fn proof(&self, label: &[u8], parts: [&[u8]; 4]) -> Option<Proof> {
        let mut proof = Proof::new_from_slice(&self.secret).ok()?;
        proof.update(label);
        parts.iter().for_each(|part| proof.update(part));
        Some(proof)
    }
}

impl Shared {
    /// Dials a node and carries its frames until the connection ends. What it had not sent by then goes through Redis.
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
            let left = pipe.waiting.lock().take();
            for message in left.map(messages).unwrap_or_default() {
                self.append(node, &Record::Message(message));
            }
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
            let room = untaken.len() < MAX_UNTAKEN;
            let patience = untaken.front().map_or(Instant::now() + HEARTBEAT, |sent| *sent + PATIENCE);
            let heartbeat = untaken.is_empty();
            let sent = tokio::select! {
                biased;
                taken = take_back(&mut read, &mut untaken) => taken,
                () = pipe.wake.notified(), if room => self.send_waiting(pipe, &mut write, &mut untaken).await,
                () = sleep_until(patience) => match heartbeat {
                    true => self.send_heartbeat(&mut write, &mut untaken).await,
                    false => Err(io::ErrorKind::TimedOut.into()),
                },
            };
            if let Err(error) = sent {
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
        for part in parts(&batch) {
            send(write, &part).await?;
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

    /// Takes connections of other nodes for as long as the bus lives.
    pub(super) async fn accept_nodes(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_NODES));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a node");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let shared = self.clone();
            self.spawn(async move {
                if let Err(error) = shared.hear_node(stream).await {
                    tracing::debug!(%error, "a direct connection from a node has ended");
                }
                drop(place);
            });
        }
    }

    async fn hear_node(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let node = timeout(PATIENCE, self.greet(&mut stream)).await??;
        loop {
            let mut length = [0; 4];
            // Twice: a heartbeat may be a second late already.
            timeout(2 * PATIENCE, stream.read_exact(&mut length)).await??;
            let length = u32::from_be_bytes(length) as usize;
            if !(batch::HEAD..=MAX_BATCH).contains(&length) {
                return Err(io::Error::other("a batch of another length"));
            }
            let mut batch = vec![0; length];
            timeout(2 * PATIENCE, stream.read_exact(&mut batch)).await??;
            let batch = Bytes::from(batch);
            if Batch::read(batch.clone()).is_none_or(|batch| batch.from != node) {
                return Err(io::Error::other("a batch in another node's name"));
            }
            self.handle(batch);
            timeout(PATIENCE, stream.write_all(&[1])).await??;
        }
    }

    /// Which node it is, if it knows the secret.
    async fn greet(&self, stream: &mut TcpStream) -> io::Result<NodeId> {
        let ways = self.ways.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        stream.write_all(&challenge).await?;
        let mut greeting = [0; GREETING_LEN];
        stream.read_exact(&mut greeting).await?;
        let (version, rest) = greeting.split_at(1);
        let (from, rest) = rest.split_at(NodeId::LEN);
        let (to, rest) = rest.split_at(NodeId::LEN);
        let (nonce, proof) = rest.split_at(32);
        let parts: [&[u8]; 4] = [&challenge, nonce, from, to];
        let known = ways.proof(GREETING, parts).is_some_and(|expected| expected.verify_slice(proof).is_ok());
        let from = <[u8; NodeId::LEN]>::try_from(from).map_err(io::Error::other)?;
        if version != [VERSION] || to != self.node.0 || !known {
            return Err(io::Error::other("it does not know the secret of this relay's nodes"));
        }
        let answer = ways.proof(ANSWER, parts).ok_or(io::ErrorKind::InvalidInput)?.finalize().into_bytes();
        stream.write_all(&answer).await?;
        Ok(NodeId(from))
    }
}

async fn send(write: &mut OwnedWriteHalf, batch: &[u8]) -> io::Result<()> {
    let length = (batch.len() as u32).to_be_bytes();
    timeout(PATIENCE, async {
        write.write_all(&length).await?;
        write.write_all(batch).await
    })
    .await?
}

/// Reads which batches were taken.
async fn take_back(read: &mut OwnedReadHalf, untaken: &mut VecDeque<Instant>) -> io::Result<()> {
    let mut taken = [0; MAX_UNTAKEN];
    let count = read.read(&mut taken).await?;
    if count == 0 || count > untaken.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    untaken.drain(..count);
    Ok(())
}
