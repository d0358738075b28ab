//! What waits to be sent to other nodes and to Redis, and the task that sends it.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join_all;
use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use redis::{Cmd, RedisResult, Value};
use tokio::time::Instant;

use super::Shared;
use super::directory::{self, Cache, Entry};
use super::records::{self, Note};
use super::way::Conn;
use crate::bus::batch::{self, Batch, Record};
use crate::bus::{Message, NodeId};
use crate::records::unix_ms;

/// The largest batch, bytes; a larger one would hold up what is behind it.
pub(super) const MAX_BATCH: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) conn: Option<Conn>,
    pub(super) cache: Cache,
    pub(super) nodes: HashMap<NodeId, Vec<u8>>,
    /// What waits for an answer of the directory.
    pub(super) asking: HashMap<DeviceId, Vec<Message>>,
    pub(super) chores: VecDeque<Chore>,
    /// Chores were forgotten.
    pub(super) incomplete: bool,
    pub(super) waiting: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.asking.is_empty() && self.chores.is_empty() && self.nodes.values().all(Vec::is_empty)
    }
}

pub(super) enum Chore {
    Release(DeviceId, Entry),
    Command(Cmd),
    Note(DeviceId, Note),
}

pub(super) fn put(out: &mut Outgoing, own: NodeId, node: NodeId, record: &Record) {
    let buffer = out.nodes.entry(node).or_default();
    let before = buffer.len();
    if buffer.is_empty() {
        batch::begin(buffer, own, 0);
    }
    batch::push(buffer, record);
    out.waiting += buffer.len() - before;
}

/// What a message takes while it waits, bytes.
pub(super) fn cost(message: &Message) -> usize {
    const HEAD: usize = 128;
    match message {
        Message::Frame { deliver, .. } => HEAD + deliver.len(),
        _ => HEAD,
    }
}

/// The messages of a batch of our own that did not arrive.
pub(super) fn messages(batch: Vec<u8>) -> Vec<Message> {
    let records = Batch::read(batch.into()).into_iter().flatten();
    records
        .filter_map(|record| match record {
            Ok(Record::Message(message)) => Some(message),
            Ok(Record::Ping(_)) | Err(_) => None,
        })
        .collect()
}

/// What its sender is told of a message that certainly did not arrive.
pub(super) fn undelivered(message: Message) -> Option<Message> {
    match message {
        Message::Frame { from, to, tag, .. } => {
            Some(Message::Undelivered { from, to, tag, reason: Undelivered::Unreachable })
        }
        _ => None,
    }
}

/// Writes what waits, for as long as the bus lives.
pub(super) async fn write(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        while let Some((conn, work)) = take(&shared) {
            let Work { batches, asking, chores } = work;
            let answers = join_all(asking.iter().map(|device| directory::look_up(&conn, device)));
            let published = join_all(batches.into_iter().map(|(node, batch)| publish(&shared, &conn, node, batch)));
            let done = join_all(chores.iter().map(|chore| do_chore(&conn, chore)));
            let (answers, _, done) = tokio::join!(answers, published, done);
            shared.stats.commands.fetch_add((asking.len() + chores.len()) as u64, Relaxed);
            if done.iter().any(Result::is_err) {
                shared.out.lock().incomplete = true;
            }
            for (device, answer) in asking.into_iter().zip(answers) {
                place(&shared, device, answer.ok().flatten());
            }
            shared.room.notify_waiters();
        }
        shared.idle.notify_waiters();
    }
}

pub(super) struct Work {
    batches: Vec<(NodeId, Vec<u8>)>,
    asking: Vec<DeviceId>,
    chores: Vec<Chore>,
}

/// What can be done at once. None when nothing waits, or there is no way.
pub(super) fn take(shared: &Shared) -> Option<(Conn, Work)> {
    let mut out = shared.out.lock();
    let conn = out.conn.clone()?;
    let batches: Vec<_> = std::mem::take(&mut out.nodes).into_iter().filter(|(_, batch)| !batch.is_empty()).collect();
    let chores = std::mem::take(&mut out.chores).into();
    let asking: Vec<DeviceId> = out.asking.keys().copied().collect();
    let sent: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
    out.waiting = out.waiting.saturating_sub(sent);
    let work = Work { batches, asking, chores };
    let some = !(work.batches.is_empty() && work.asking.is_empty() && work.chores.is_empty());
    some.then_some((conn, work))
}

pub(super) async fn publish(shared: &Shared, conn: &Conn, node: NodeId, mut batch: Vec<u8>) {
    batch::stamp(&mut batch, unix_ms());
    for part in parts(&batch) {
        shared.stats.published.fetch_add(1, Relaxed);
        let mut command = redis::cmd("SPUBLISH");
        command.arg(node.channel()).arg(&part[..]);
        match conn.run::<u64>(&command).await {
            Ok(0) => {
                // That node has gone. Whoever sent something is told, and asks anew where the device is.
                shared.stats.untaken.fetch_add(1, Relaxed);
                shared.out.lock().cache.forget_node(node);
                shared.give_back(messages(part.into_owned()));
            }
            Ok(_) => {}
            // It may have arrived: what was in it is left to the link, which sends again.
            Err(error) => tracing::debug!(%error, "a batch may not have been published"),
        }
    }
}

/// Cuts a batch that is too large between its records.
pub(super) fn parts(batch: &[u8]) -> Vec<Cow<'_, [u8]>> {
    if batch.len() <= MAX_BATCH {
        return vec![batch.into()];
    }
    let (head, mut rest) = batch.split_at(batch::HEAD);
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let mut end = 0;
        while let Some(len) = rest.get(end..end + 4).and_then(|len| len.try_into().ok()).map(u32::from_be_bytes) {
            let next = end + 4 + len as usize;
            if next > rest.len() || (end > 0 && next > MAX_BATCH) {
                break;
            }
            end = next;
        }
        if end == 0 {
            break;
        }
        parts.push([head, &rest[..end]].concat().into());
        rest = &rest[end..];
    }
    parts
}

pub(super) async fn do_chore(conn: &Conn, chore: &Chore) -> RedisResult<()> {
    match chore {
        Chore::Release(device, entry) => directory::release(conn, device, *entry).await,
        Chore::Command(command) => conn.run::<Value>(command).await.map(drop),
        Chore::Note(machine, note) => records::note(conn, machine, note).await,
    }
}

/// The directory has answered: what waited for a device goes to its node, or back.
pub(super) fn place(shared: &Arc<Shared>, device: DeviceId, entry: Option<Entry>) {
    let node = entry.map(|entry| entry.node).filter(|node| *node != shared.node);
    let lost: Vec<Message> = {
        let mut out = shared.out.lock();
        let waiting = out.asking.remove(&device).unwrap_or_default();
        out.waiting = out.waiting.saturating_sub(waiting.iter().map(cost).sum());
        out.cache.put(device, node, Instant::now());
        match node {
            Some(node) => {
                for message in waiting {
                    let record = Record::Message(message);
                    // A full direct way is left to Redis here: whoever sent this was told already that it is on its way.
                    if !matches!(shared.take_directly(node, &record), Some(Ok(()))) {
                        put(&mut out, shared.node, node, &record);
                    }
                }
                Vec::new()
            }
            None => waiting,
        }
    };
    shared.give_back(lost);
}
