//! The other end of direct connections (`PROTOCOL 15`): nodes that dial this one, and strangers who reach the port.
//!
//! Whoever comes may stay until the time for a greeting is over, and no longer than until as many others have come: a stranger costs nothing to be
//! one, and must not keep a node out. A node that knows the secret has one of the places that only such nodes take.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};
use hmac::Mac as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

use super::Shared;
use super::direct::{ANSWER, GREETING, PATIENCE, PAUSE, VERSION};
use crate::bus::NodeId;
use crate::bus::batch::{self, Batch};

/// Version, both nodes, a nonce, a proof.
const GREETING_LEN: usize = 1 + 2 * NodeId::LEN + 32 + 32;
/// Nodes that pass frames to this one at once.
const MAX_NODES: usize = 256;
/// Connections at once that have not proven to be nodes. The greeting of a node takes one round trip of a private network; a stranger would have to
/// make so many connections meanwhile to push it out.
const MAX_UNPROVEN: usize = 256;
/// The largest batch that is taken. Those that are sent are smaller.
const MAX_BATCH: usize = 1024 * 1024;
const _: () = assert!(batch::MAX_FILLED_DIRECTLY <= MAX_BATCH);
/// Read at once: small batches, and the beginning of a larger one, of which then exactly the rest is read, so that nothing has to be moved.
const READ: usize = 64 * 1024;

/// What has come of a connection's first batch.
enum First<'a> {
    Whole(&'a [u8]),
    /// So much is to be read for it.
    Lacks(usize),
}

impl First<'_> {
    fn of(came: &[u8]) -> io::Result<First<'_>> {
        let Some((length, rest)) = came.split_first_chunk() else { return Ok(First::Lacks(READ)) };
        let length = u32::from_be_bytes(*length) as usize;
        if !(batch::HEAD..=MAX_BATCH).contains(&length) {
            return Err(io::Error::other("a batch of another length"));
        }
        Ok(rest.get(..length).map_or(First::Lacks(length.saturating_sub(rest.len())), First::Whole))
    }
}

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

    async fn hear_node(&self, node: NodeId, mut stream: TcpStream) -> io::Result<()> {
        let mut came = BytesMut::new();
        loop {
            // Twice: a heartbeat may be a second late already.
            let late = Instant::now() + 2 * PATIENCE;
            while let First::Lacks(more) = First::of(&came)? {
                came.reserve(more);
                if timeout_at(late, stream.read_buf(&mut (&mut came).limit(more))).await?? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let mut taken = Vec::new();
            while let First::Whole(batch) = First::of(&came)? {
                if Batch::read(batch).is_none_or(|batch| batch.from != node) {
                    return Err(io::Error::other("a batch in another node's name"));
                }
                self.handle(batch);
                let length = batch.len();
                came.advance(4 + length);
                if length == batch::HEAD && came.is_empty() {
                    // That node has had nothing to send for a while.
                    came = BytesMut::new();
                }
                taken.push(1);
            }
            timeout(PATIENCE, stream.write_all(&taken)).await??;
            // Who got something writes it before there is more.
            yield_now().await;
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
    use std::sync::Weak;

    use happy_crypto::DeviceId;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::access::tests::device;
    use crate::bus::batch::{Filled, Queue, Record};
    use crate::bus::redis::RedisBus;
    use crate::bus::{Bus as _, Inbox, Login, Message};

    /// Keeps what arrives.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(NodeId, Message)>>);

    impl Inbox for Kept {
        fn handle(&self, from: NodeId, message: Message) {
            self.0.lock().push((from, message));
        }

        fn apart(&self) {}

        fn gone(&self, _: NodeId) {}

        fn seats(&self) -> Vec<(DeviceId, Login)> {
            Vec::new()
        }

        fn seat(&self, _: &DeviceId) -> Option<Login> {
            None
        }

        fn introduce(&self, _: &DeviceId) {}

        fn names_anew(&self, _: &DeviceId) {}

        fn lost_records(&self, _: &DeviceId, _: Option<Instant>) {}
    }

    /// Batches of this node as they come over a connection, some of them empty, and the messages in them.
    fn batches(node: NodeId) -> (Vec<Vec<u8>>, Vec<(NodeId, Message)>) {
        let (mut batches, mut sent) = (Vec::new(), Vec::new());
        for n in 0..300_u32 {
            let mut queue = Queue::default();
            for tag in 0..n % 5 {
                let size = if n % 50 == 26 { 65_000 } else { n as usize };
                let deliver = vec![n as u8; size].into();
                let message = Message::Frame { from: device(1), to: device(tag % 2), tag: n, deliver };
                queue.push(node, &Record::Message(message.clone()));
                sent.push((node, message));
            }
            let mut batch = queue.pop().unwrap_or_else(|| Filled::empty(node, 1));
            batches.push(batch.with_length().to_vec());
            assert!(queue.is_empty());
        }
        (batches, sent)
    }

    #[tokio::test]
    async fn batches_are_taken_however_they_are_cut_and_each_is_answered() {
        let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        let kept = Arc::new(Kept::default());
        let inbox: Weak<Kept> = Arc::downgrade(&kept);
        bus.join(inbox, [0; 32]);
        let node = NodeId([7; 8]);
        let (batches, sent) = batches(node);
        for cut in [1, 7, 4_096, 70_000, usize::MAX] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut dialler = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            dialler.set_nodelay(true).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let shared = bus.shared.clone();
            let hearing = tokio::spawn(async move { shared.hear_node(node, stream).await });
            // Small pieces of few batches, or it would take long.
            let count = if cut < 100 { 12 } else { batches.len() };
            let bytes = batches[..count].concat();
            let (mut read, mut write) = dialler.split();
            let writing = async {
                for piece in bytes.chunks(cut) {
                    write.write_all(piece).await.unwrap();
                    yield_now().await;
                }
            };
            let mut answers = vec![0; count];
            let (_, answered) = tokio::join!(writing, read.read_exact(&mut answers));
            assert_eq!(answered.unwrap(), count);
            assert!(answers.iter().all(|answer| *answer == 1));
            let heard = std::mem::take(&mut *kept.0.lock());
            let expected = sent
                .iter()
                .take_while(|(_, message)| matches!(message, Message::Frame { tag, .. } if (*tag as usize) < count));
            assert!(heard.iter().eq(expected), "cut by {cut}");
            // In another node's name it is no batch.
            let mut foreign = Vec::new();
            batch::begin(&mut foreign, NodeId([8; 8]), 1);
            write.write_all(&[&(foreign.len() as u32).to_be_bytes(), &foreign[..]].concat()).await.unwrap();
            assert!(hearing.await.unwrap().is_err());
        }
    }

    #[test]
    fn lengths_that_lie_end_a_connection_before_anything_is_read_for_them() {
        for length in [0, batch::HEAD as u32 - 1, MAX_BATCH as u32 + 1, u32::MAX] {
            assert!(First::of(&length.to_be_bytes()).is_err(), "{length}");
        }
        assert!(matches!(First::of(&[0, 0, 0]), Ok(First::Lacks(READ))));
        assert!(matches!(First::of(&(MAX_BATCH as u32).to_be_bytes()), Ok(First::Lacks(MAX_BATCH))));
    }

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
