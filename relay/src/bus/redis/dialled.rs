//! The other end of direct connections (`PROTOCOL 15`): nodes that dial this one, and strangers who reach the port.
//!
//! Whoever comes may stay until the time for a greeting is over, and no longer than until as many others have come: a stranger costs nothing to be
//! one, and must not keep a node out. A node that knows the secret has one of the places that only such nodes take.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use hmac::Mac as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::Shared;
use super::direct::{ANSWER, GREETING, PATIENCE, PAUSE, VERSION};
use super::outgoing::MAX_BATCH;
use crate::bus::NodeId;
use crate::bus::batch::{self, Batch};

/// Version, both nodes, a nonce, a proof.
const GREETING_LEN: usize = 1 + 2 * NodeId::LEN + 32 + 32;
/// Nodes that pass frames to this one at once.
const MAX_NODES: usize = 256;
/// Connections at once that have not proven to be nodes. The greeting of a node takes one round trip of a private network; a stranger would have to
/// make so many connections meanwhile to push it out.
const MAX_UNPROVEN: usize = 256;
/// Read at once: small batches with their length, and the next ones behind them. Of larger ones the rest is read into its place.
const READ: usize = 16 * 1024;

/// Who is connected.
struct Door {
    places: Arc<Semaphore>,
    /// Oldest first.
    unproven: Mutex<Unproven>,
}

#[derive(Default)]
struct Unproven {
    newest: u64,
    waiting: VecDeque<(u64, AbortHandle)>,
}

impl Door {
    fn new() -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(MAX_NODES)), unproven: Mutex::default() })
    }

    /// Lets a connection in, whose task `serve` starts. The oldest that has proven nothing makes room.
    fn let_in(&self, serve: impl FnOnce(u64) -> AbortHandle) {
        let mut unproven = self.unproven.lock();
        if unproven.waiting.len() >= MAX_UNPROVEN
            && let Some((_, oldest)) = unproven.waiting.pop_front()
        {
            oldest.abort();
        }
        unproven.newest += 1;
        let number = unproven.newest;
        // Under the lock, so that it has its entry before it can give it up.
        let task = serve(number);
        unproven.waiting.push_back((number, task));
    }

    /// A connection has proven to be a node, or has ended.
    fn strike(&self, number: u64) {
        self.unproven.lock().waiting.retain(|(waiting, _)| *waiting != number);
    }
}

impl Shared {
    /// Takes connections of other nodes for as long as the bus lives.
    pub(super) async fn accept_nodes(self: Arc<Self>, listener: TcpListener) {
        let door = Door::new();
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a node");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            door.let_in(|number| {
                let (shared, door) = (self.clone(), door.clone());
                self.spawn(async move {
                    let node = shared.admit(&door, number, stream).await;
                    let heard = match node {
                        Ok((node, stream, _place)) => shared.hear_node(node, stream).await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = heard {
                        tracing::debug!(%error, "a direct connection from a node has ended");
                    }
                })
            });
        }
    }

    /// Greets whoever has come. A node that knows the secret gets a place, which it has until it is dropped.
    async fn admit(
        &self,
        door: &Door,
        number: u64,
        mut stream: TcpStream,
    ) -> io::Result<(NodeId, TcpStream, OwnedSemaphorePermit)> {
        let greeted = timeout(PATIENCE, self.greet(&mut stream)).await;
        door.strike(number);
        let node = greeted??;
        let place = door.places.clone().try_acquire_owned();
        let place = place.map_err(|_| io::Error::other("more nodes than this one listens to"))?;
        Ok((node, stream, place))
    }

    async fn hear_node(&self, node: NodeId, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::with_capacity(READ, stream);
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
        stream.set_nodelay(true)?;
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    /// A connection that stays until it is ended.
    fn come(door: &Door) -> JoinHandle<()> {
        let task = tokio::spawn(std::future::pending());
        door.let_in(|_| task.abort_handle());
        task
    }

    #[tokio::test]
    async fn the_oldest_that_has_proven_nothing_makes_room() {
        let door = Door::new();
        let mut tasks: Vec<_> = (0..MAX_UNPROVEN).map(|_| come(&door)).collect();
        let newcomer = come(&door);
        assert!(tasks.remove(0).await.is_err_and(|error| error.is_cancelled()));
        // The second has proven to be a node, so it counts no more and stays, and so does everybody else.
        door.strike(2);
        tasks.extend([newcomer, come(&door)]);
        tokio::task::yield_now().await;
        assert!(tasks.iter().all(|task| !task.is_finished()));
        // The next one to go is the third, and not the node.
        let _last = come(&door);
        assert!(tasks.remove(1).await.is_err_and(|error| error.is_cancelled()));
        assert_eq!(door.unproven.lock().waiting.len(), MAX_UNPROVEN);
    }
}
