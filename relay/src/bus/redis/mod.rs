//! The bus over Redis (`PROTOCOL 15`).
//!
//! One task keeps the way to Redis: it connects, subscribes to this node's channel, renews its lease, sends itself a Ping every half second,
//! and when the way was lost enters all devices of this node again once it is back. Another writes: what waits for a
//! node goes out as one batch. What comes in is handled where it is read, so that nothing can pile up in between.
//!
//! Everything that a device waits for ends by itself: a login goes on without Redis when it does not answer within a second.

mod directory;
mod records;
mod way;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use parking_lot::Mutex;
use redis::aio::{AsyncPushSender, SendError};
use redis::{Cmd, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

pub use way::{RedisUrl, RedisUrlError};

use self::directory::{Cache, Claimed, Entry};
use self::records::Note;
use self::way::{Conn, Way};
use super::batch::{self, Batch, Record};
use super::{Answer, Apart, Bus, BusStats, Claim, Inbox, Login, Message, NodeId, Unsent};
use crate::access::{VOUCHED_FOR, Vouches, Vouching};
use crate::records::{Known, Put, Record as MachineRecord, unix_ms};

/// How often a node sends itself a Ping and looks at what became of the last one.
const TICK: Duration = Duration::from_millis(500);
/// Without an answer for so long the way is lost: with a tick more it stays below the two seconds within which devices are told.
const PATIENCE: Duration = Duration::from_millis(1_250);
/// The lease of a node, renewed with every second Ping: devices of a node that died without a word are told to be away when it is over.
const LEASE: Duration = Duration::from_secs(5);
/// The first byte of what stands in a lease.
const LEASE_VERSION: u8 = 1;
/// A directory that is incomplete is entered again no sooner than this after the last time.
const REENTER: Duration = Duration::from_secs(3);
/// What a node that ends may take to say so.
const LEAVE: Duration = Duration::from_secs(1);
/// Between attempts to connect: first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// What waits to be published, bytes. It is reached when Redis is slower than the devices; they are told that the queue is full.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Directory changes and vouches that wait. Beyond it they are forgotten and made good by entering everything again.
const MAX_CHORES: usize = 65_536;
/// The largest batch, bytes; a larger one would hold up what is behind it.
const MAX_BATCH: usize = 1024 * 1024;
/// Devices at other nodes whose naming is remembered, to tell that they are away when their node dies: 32 bytes and some each.
const MAX_ELSEWHERE: usize = 1_000_000;
/// Devices entered again at once.
const REJOIN: usize = 256;
/// How often vouches are renewed, well below the day that they last.
const REVOUCH: Duration = Duration::from_secs(60 * 60);
/// The life of a vouch's key in Redis.
const VOUCH_KEY: Duration = Duration::from_secs(25 * 60 * 60);

/// A node of a relay that shares a Redis with others.
pub struct RedisBus {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

struct Shared {
    node: NodeId,
    inbox: OnceLock<Weak<dyn Inbox>>,
    /// The public half of the key of this node's tokens; zeros until there is one.
    token_key: OnceLock<[u8; 32]>,
    out: Mutex<Outgoing>,
    /// Something waits to be written, or there is room again.
    wake: Notify,
    room: Notify,
    /// The last Ping that came back, and when.
    heard: Mutex<(u64, Instant)>,
    /// Nothing waits to be written any more.
    idle: Notify,
    stats: BusStats,
    /// Who vouches here for whom, for entering it again.
    speaking: Mutex<HashMap<DeviceId, HashSet<DeviceId>>>,
    vouches: Vouches,
    /// Which devices at which other nodes have named one of ours.
    elsewhere: Mutex<HashMap<NodeId, HashSet<DeviceId>>>,
}

#[derive(Default)]
struct Outgoing {
    conn: Option<Conn>,
    cache: Cache,
    nodes: HashMap<NodeId, Vec<u8>>,
    /// What waits for an answer of the directory.
    asking: HashMap<DeviceId, Vec<Message>>,
    chores: VecDeque<Chore>,
    /// Chores were forgotten.
    incomplete: bool,
    waiting: usize,
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.asking.is_empty() && self.chores.is_empty() && self.nodes.values().all(Vec::is_empty)
    }
}

enum Chore {
    Release(DeviceId, Entry),
    Command(Cmd),
    Note(DeviceId, Note),
}

impl RedisBus {
    /// A node with an id of its own. It connects in the background, and again whenever the way is lost: a relay starts without Redis too.
    ///
    /// # Errors
    /// When the address cannot be used at all, or the operating system has no randomness.
    pub fn start(url: &RedisUrl) -> Result<Self, StartError> {
        let mut node = [0; NodeId::LEN];
        getrandom::fill(&mut node).map_err(|_| StartError::NoRandomness)?;
        let way = url.way().map_err(|error| StartError::Url(error.to_string()))?;
        let shared = Arc::new(Shared {
            node: NodeId(node),
            inbox: OnceLock::new(),
            token_key: OnceLock::new(),
            out: Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
            heard: Mutex::new((0, Instant::now())),
            idle: Notify::new(),
            stats: BusStats::default(),
            speaking: Mutex::default(),
            vouches: Vouches::default(),
            elsewhere: Mutex::default(),
        });
        let keeper = tokio::spawn(keep(shared.clone(), way, url.clone())).abort_handle();
        let writer = tokio::spawn(write(shared.clone())).abort_handle();
        Ok(Self { shared, tasks: [keeper, writer] })
    }

    /// Waits until the way to Redis is up, as long as `patience`. True when it is.
    pub async fn connected(&self, patience: Duration) -> bool {
        let up = async {
            while !self.shared.stats.up.load(Relaxed) {
                sleep(RETRY.0).await;
            }
        };
        timeout(patience, up).await.is_ok()
    }
}

/// Why a bus does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The library refuses the address.
    #[error("this Redis cannot be used: {0}")]
    Url(String),
    /// There is no randomness.
    #[error("the operating system has no randomness")]
    NoRandomness,
}

impl Bus for RedisBus {
    fn join(&self, inbox: Weak<dyn Inbox>, token_key: [u8; 32]) {
        // A second inbox for one node would be a mistake of ours; the first one stays.
        let _ = self.shared.token_key.set(token_key);
        let _ = self.shared.inbox.set(inbox);
        // If the lease stands already, it stands without the key.
        self.shared.chore(Chore::Command(self.shared.lease()));
    }

    fn node(&self) -> String {
        self.shared.node.to_string()
    }

    fn token_key<'a>(&'a self, node: &'a str) -> Answer<'a, Result<Option<[u8; 32]>, Apart>> {
        Box::pin(self.shared.token_key_of(node))
    }

    fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Answer<'a, Claim> {
        Box::pin(self.shared.claim(device, login))
    }

    fn release(&self, device: &DeviceId, login: Login) {
        let entry = Entry { node: self.shared.node, login };
        self.shared.chore(Chore::Release(*device, entry));
    }

    fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent> {
        self.shared.post(device, message)
    }

    fn vouch(&self, by: &DeviceId, devices: &[DeviceId], vouching: Vouching) {
        if devices.is_empty() {
            return;
        }
        let shared = &self.shared;
        shared.vouches.note(devices, vouching);
        {
            let mut speaking = shared.speaking.lock();
            let mine = speaking.entry(*by).or_default();
            match vouching {
                Vouching::Begins => mine.extend(devices),
                Vouching::Ends | Vouching::Gone => devices.iter().for_each(|device| {
                    mine.remove(device);
                }),
            }
            if mine.is_empty() {
                speaking.remove(by);
            }
        }
        for device in devices {
            match vouching {
                Vouching::Ends => {
                    let mut command = redis::cmd("ZREM");
                    command.arg(vouch_key(device)).arg(by.to_string());
                    shared.chore(Chore::Command(command));
                }
                Vouching::Begins | Vouching::Gone => shared.enter_vouch(by, device),
            }
        }
    }

    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            let Some(conn) = shared.conn() else { return };
            let goodbye = async {
                loop {
                    let idle = shared.idle.notified();
                    if shared.out.lock().is_empty() {
                        break;
                    }
                    shared.wake.notify_one();
                    idle.await;
                }
                // Without its lease the others count the node as gone within a second.
                let _: RedisResult<Value> = conn.run(redis::cmd("DEL").arg(shared.node.lease())).await;
            };
            if timeout(LEAVE, goodbye).await.is_err() {
                tracing::debug!("not everything was written out to the other nodes");
            }
        })
    }

    fn stats(&self) -> Option<&BusStats> {
        Some(&self.shared.stats)
    }

    fn vouched<'a>(&'a self, device: &'a DeviceId) -> Answer<'a, Option<bool>> {
        Box::pin(async move {
            let shared = &self.shared;
            if shared.vouches.holds(device) {
                return Some(true);
            }
            let conn = shared.conn()?;
            shared.stats.commands.fetch_add(1, Relaxed);
            let mut command = redis::cmd("ZCOUNT");
            command.arg(vouch_key(device)).arg(unix_ms()).arg("+inf");
            conn.run::<u64>(&command).await.ok().map(|count| count > 0)
        })
    }

    fn put_record<'a>(
        &'a self,
        machine: &'a DeviceId,
        kind: u8,
        record: MachineRecord,
        readers: Option<Vec<DeviceId>>,
    ) -> Answer<'a, Put> {
        Box::pin(async move {
            let Some(conn) = self.shared.conn() else { return Put::Refused };
            self.shared.stats.commands.fetch_add(1, Relaxed);
            records::put(&conn, machine, kind, record, readers).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a record was not kept");
                Put::Refused
            })
        })
    }

    fn known<'a>(&'a self, machine: &'a DeviceId, reader: &'a DeviceId) -> Answer<'a, Result<Option<Known>, Apart>> {
        Box::pin(async move {
            let conn = self.shared.conn().ok_or(Apart)?;
            self.shared.stats.commands.fetch_add(2, Relaxed);
            records::known(&conn, machine, reader).await.map_err(|_| Apart)
        })
    }

    fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]) {
        self.shared.chore(Chore::Note(*machine, Note::Readers(readers.to_vec())));
    }

    fn alive(&self, machine: &DeviceId) {
        self.shared.chore(Chore::Note(*machine, Note::Seen(unix_ms())));
    }
}

fn vouch_key(device: &DeviceId) -> String {
    format!("hr:vouch:{device}")
}

impl Shared {
    fn conn(&self) -> Option<Conn> {
        self.out.lock().conn.clone()
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.get()?.upgrade()
    }

    /// Says that this node lives, and which key its tokens are made with.
    fn lease(&self) -> Cmd {
        let key = self.token_key.get().copied().unwrap_or_default();
        // Room for what later versions say of a node.
        let lease: Vec<u8> = [&[LEASE_VERSION][..], &key, &[0]].concat();
        let mut command = redis::cmd("SET");
        command.arg(self.node.lease()).arg(lease).arg("PX").arg(LEASE.as_millis() as u64);
        command
    }

    /// The key in the lease of a node that lives.
    async fn token_key_of(&self, node: &str) -> Result<Option<[u8; 32]>, Apart> {
        let Ok(node) = node.parse::<NodeId>() else { return Ok(None) };
        let conn = self.conn().ok_or(Apart)?;
        self.stats.commands.fetch_add(1, Relaxed);
        let lease: Option<Vec<u8>> = conn.run(redis::cmd("GET").arg(node.lease())).await.map_err(|_| Apart)?;
        let lease = lease.filter(|lease| lease.first() == Some(&LEASE_VERSION));
        Ok(lease.and_then(|lease| lease.get(1..33)?.try_into().ok()))
    }

    async fn claim(&self, device: &DeviceId, login: Login) -> Claim {
        let Some(conn) = self.conn() else { return Claim::Held };
        self.stats.commands.fetch_add(1, Relaxed);
        match directory::claim(&conn, device, Entry { node: self.node, login }).await {
            Ok(Claimed::Held(older)) => {
                self.out.lock().cache.forget(device);
                if let Some(older) = older {
                    // That node may have gone without a word; then nobody takes this, and nobody has to.
                    self.append(older.node, &Record::Message(Message::Displaced { device: *device, by: login }));
                }
                Claim::Held
            }
            Ok(Claimed::Newer) => Claim::Newer,
            // Whether it was entered is unknown. The keeper finds out about the way itself, and then enters everything again.
            Err(error) => {
                tracing::debug!(%error, "a login was not entered in the directory");
                self.out.lock().incomplete = true;
                Claim::Held
            }
        }
    }

    fn chore(&self, chore: Chore) {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            // Everything is entered again when the way is back; what is released now is swept then, or replaced.
            return;
        }
        if out.chores.len() >= MAX_CHORES {
            out.incomplete = true;
            return;
        }
        out.chores.push_back(chore);
        drop(out);
        self.wake.notify_one();
    }

    fn enter_vouch(&self, by: &DeviceId, device: &DeviceId) {
        let until = unix_ms() + VOUCHED_FOR.as_millis() as u64;
        let key = vouch_key(device);
        let mut command = redis::cmd("ZADD");
        command.arg(&key).arg(until).arg(by.to_string());
        self.chore(Chore::Command(command));
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(VOUCH_KEY.as_secs());
        self.chore(Chore::Command(expire));
    }

    fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent> {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            return Err(Unsent::Nowhere);
        }
        let cost = cost(&message);
        if out.waiting + cost > MAX_WAITING {
            return Err(Unsent::Full);
        }
        let was_empty = out.waiting == 0;
        // Behind what already waits for the same device, or it would overtake it.
        if let Some(waiting) = out.asking.get_mut(device) {
            waiting.push(message);
            out.waiting += cost;
            return Ok(());
        }
        match out.cache.get(device, Instant::now()) {
            Some(Some(node)) if node != self.node => {
                put(&mut out, self.node, node, &Record::Message(message));
            }
            Some(_) => return Err(Unsent::Nowhere),
            None => {
                out.asking.insert(*device, vec![message]);
                out.waiting += cost;
            }
        }
        drop(out);
        if was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn append(&self, node: NodeId, record: &Record) {
        let mut out = self.out.lock();
        if out.conn.is_some() {
            put(&mut out, self.node, node, record);
            drop(out);
            self.wake.notify_one();
        }
    }

    /// What a node sent, or this one itself.
    fn handle(&self, bytes: Bytes) {
        let Some(batch) = Batch::read(bytes) else {
            self.stats.torn.fetch_add(1, Relaxed);
            return;
        };
        let Some(inbox) = self.inbox() else { return };
        if batch.from != self.node {
            let lag = unix_ms().saturating_sub(batch.unix_ms);
            self.stats.lag.note(lag);
        }
        let from = batch.from;
        for record in batch {
            match record {
                Ok(Record::Ping(n)) if from == self.node => {
                    let mut heard = self.heard.lock();
                    heard.0 = heard.0.max(n);
                    heard.1 = Instant::now();
                }
                Ok(Record::Ping(_)) => {}
                Ok(Record::Message(message)) => {
                    if let Message::Undelivered { to, reason: Undelivered::Unreachable, .. } = &message {
                        // It may have moved, or its node has lost it.
                        self.out.lock().cache.forget(to);
                    }
                    if let Message::Naming { from: device, named, .. } = &message {
                        self.out.lock().cache.put(*device, Some(from), Instant::now());
                        self.note_elsewhere(from, *device, *named);
                    }
                    inbox.handle(message);
                }
                Err(_) => {
                    self.stats.torn.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// A device at another node has named one of ours, or does so no longer.
    fn note_elsewhere(&self, node: NodeId, device: DeviceId, named: bool) {
        let mut elsewhere = self.elsewhere.lock();
        for (other, devices) in elsewhere.iter_mut() {
            if *other != node || !named {
                devices.remove(&device);
            }
        }
        elsewhere.retain(|_, devices| !devices.is_empty());
        // No more than our devices could name between them.
        let count: usize = elsewhere.values().map(HashSet::len).sum();
        if named && count < MAX_ELSEWHERE {
            elsewhere.entry(node).or_default().insert(device);
        }
    }

    /// Looks whether the nodes of our devices' peers still live.
    async fn look_for_gone(&self, conn: &Conn) -> RedisResult<()> {
        let nodes: Vec<NodeId> = self.elsewhere.lock().keys().copied().collect();
        for node in nodes {
            self.stats.commands.fetch_add(1, Relaxed);
            if conn.run::<bool>(redis::cmd("EXISTS").arg(node.lease())).await? {
                continue;
            }
            let devices = self.elsewhere.lock().remove(&node).unwrap_or_default();
            self.out.lock().cache.forget_node(node);
            tracing::info!(%node, devices = devices.len(), "a node has gone");
            if let Some(inbox) = self.inbox() {
                inbox.gone(&devices);
            }
        }
        Ok(())
    }

    /// The devices here are told that their peers elsewhere are away, and nothing is sent any more.
    fn down(&self) {
        let lost: Vec<Message> = {
            let mut out = self.out.lock();
            out.conn = None;
            out.cache.clear();
            out.chores.clear();
            out.waiting = 0;
            let asked = std::mem::take(&mut out.asking).into_values().flatten();
            let batches = std::mem::take(&mut out.nodes).into_values();
            asked.chain(batches.flat_map(messages)).collect()
        };
        self.room.notify_waiters();
        self.elsewhere.lock().clear();
        if self.stats.up.swap(false, Relaxed) {
            self.stats.lost.fetch_add(1, Relaxed);
        }
        self.give_back(lost);
        if let Some(inbox) = self.inbox() {
            inbox.apart();
        }
    }

    /// Enters all devices of this node again and lets them name their peers anew. It is tried again later when Redis stops answering.
    async fn rejoin(&self) {
        let Some(inbox) = self.inbox() else { return };
        let seats = inbox.seats();
        for part in seats.chunks(REJOIN) {
            let claims = join_all(part.iter().map(|(device, login)| self.claim(device, *login))).await;
            if self.out.lock().incomplete {
                return;
            }
            for ((device, login), claim) in part.iter().zip(claims) {
                if claim == Claim::Newer {
                    // Somewhere else, with a larger login.
                    let by = Login { number: login.number.saturating_add(1), ..*login };
                    inbox.handle(Message::Displaced { device: *device, by });
                }
            }
        }
        let speaking = self.speaking.lock().clone();
        for (by, devices) in &speaking {
            devices.iter().for_each(|device| self.enter_vouch(by, device));
        }
        for (device, _) in seats {
            self.until_room().await;
            inbox.introduce(&device);
        }
    }

    /// Tells the senders of frames that certainly did not arrive.
    fn give_back(&self, lost: Vec<Message>) {
        let Some(inbox) = self.inbox() else { return };
        for message in lost.into_iter().filter_map(undelivered) {
            self.stats.lost_frames.fetch_add(1, Relaxed);
            inbox.handle(message);
        }
    }

    async fn until_room(&self) {
        loop {
            let room = self.room.notified();
            if self.out.lock().waiting < MAX_WAITING / 2 {
                return;
            }
            room.await;
        }
    }
}

fn put(out: &mut Outgoing, own: NodeId, node: NodeId, record: &Record) {
    let buffer = out.nodes.entry(node).or_default();
    let before = buffer.len();
    if buffer.is_empty() {
        batch::begin(buffer, own, 0);
    }
    batch::push(buffer, record);
    out.waiting += buffer.len() - before;
}

/// What a message takes while it waits, bytes.
fn cost(message: &Message) -> usize {
    const HEAD: usize = 128;
    match message {
        Message::Frame { deliver, .. } => HEAD + deliver.len(),
        _ => HEAD,
    }
}

/// The messages of a batch of our own that did not arrive.
fn messages(batch: Vec<u8>) -> Vec<Message> {
    let records = Batch::read(batch.into()).into_iter().flatten();
    records
        .filter_map(|record| match record {
            Ok(Record::Message(message)) => Some(message),
            Ok(Record::Ping(_)) | Err(_) => None,
        })
        .collect()
}

/// What its sender is told of a message that certainly did not arrive.
fn undelivered(message: Message) -> Option<Message> {
    match message {
        Message::Frame { from, to, tag, .. } => {
            Some(Message::Undelivered { from, to, tag, reason: Undelivered::Unreachable })
        }
        _ => None,
    }
}

/// What Redis pushes is handled in the task that reads it.
struct Pushes {
    shared: Arc<Shared>,
    /// The subscription was lost; the keeper looks at once.
    cut: Arc<Notify>,
}

impl AsyncPushSender for Pushes {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        match (info.kind, info.data.into_iter().nth(1)) {
            (PushKind::SMessage | PushKind::Message, Some(Value::BulkString(bytes))) => {
                self.shared.handle(bytes.into())
            }
            (PushKind::Disconnection | PushKind::SUnsubscribe, _) => self.cut.notify_one(),
            _ => {}
        }
        Ok(())
    }
}

/// Keeps the way to Redis for as long as the bus lives.
async fn keep(shared: Arc<Shared>, way: Way, url: RedisUrl) {
    let mut pause = RETRY.0;
    let mut told = false;
    loop {
        match hold(&shared, &way).await {
            Ok(()) => {
                tracing::warn!(redis = %url, "the way to Redis was lost; devices at other nodes are away until it is back");
                (pause, told) = (RETRY.0, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(redis = %url, %error, "Redis is not reached; this node goes on alone and tries again");
                }
            }
        }
        shared.down();
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// Connects, and stays until the way is lost.
///
/// # Errors
/// When it was not connected at all.
async fn hold(shared: &Arc<Shared>, way: &Way) -> RedisResult<()> {
    let conn = way.connect(None).await?;
    let cut = Arc::new(Notify::new());
    let pushes: Arc<dyn AsyncPushSender> = Arc::new(Pushes { shared: shared.clone(), cut: cut.clone() });
    let ears = way.connect(Some(pushes)).await?;
    let channel = shared.node.channel();
    ears.run::<Value>(redis::cmd("SSUBSCRIBE").arg(&channel)).await?;
    renew_lease(shared, &conn).await?;
    *shared.heard.lock() = (0, Instant::now());
    {
        let mut out = shared.out.lock();
        out.conn = Some(conn.clone());
        out.incomplete = false;
        out.cache.clear();
    }
    shared.stats.up.store(true, Relaxed);
    tracing::info!(node = %shared.node, "joined the other nodes through Redis");
    tokio::select! {
        () = shared.rejoin() => {}
        () = cut.notified() => return Ok(()),
    }
    // It may have taken longer than the patience for a Ping.
    *shared.heard.lock() = (0, Instant::now());

    let mut reenter = Instant::now() + REENTER;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut revouch = Instant::now() + REVOUCH;
    for n in 1.. {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cut.notified() => return Ok(()),
        }
        if shared.heard.lock().1.elapsed() > PATIENCE {
            return Ok(());
        }
        let mut ping = Vec::with_capacity(batch::HEAD + 16);
        batch::begin(&mut ping, shared.node, unix_ms());
        batch::push(&mut ping, &Record::Ping(n));
        if conn.run::<Value>(redis::cmd("SPUBLISH").arg(&channel).arg(ping)).await.is_err() {
            return Ok(());
        }
        if n % 2 == 0 {
            let Ok(stood) = renew_lease(shared, &conn).await else { return Ok(()) };
            let incomplete = reenter <= Instant::now() && std::mem::take(&mut shared.out.lock().incomplete);
            if !stood || incomplete {
                // Redis was emptied, or another one took over that did not know us.
                tracing::warn!("the directory in Redis was lost or is incomplete; all devices are entered again");
                shared.out.lock().cache.clear();
                tokio::select! {
                    () = shared.rejoin() => {}
                    () = cut.notified() => return Ok(()),
                }
                *shared.heard.lock() = (n, Instant::now());
                reenter = Instant::now() + REENTER;
            }
            if shared.look_for_gone(&conn).await.is_err() {
                return Ok(());
            }
            let Ok(swept) = directory::sweep(&conn, random_bucket()).await else { continue };
            shared.stats.swept.fetch_add(swept as u64, Relaxed);
        }
        if revouch <= Instant::now() {
            revouch = Instant::now() + REVOUCH;
            let speaking = shared.speaking.lock().clone();
            for (by, devices) in &speaking {
                devices.iter().for_each(|device| shared.enter_vouch(by, device));
            }
        }
    }
    Ok(())
}

fn random_bucket() -> u16 {
    let mut bytes = [0; 2];
    // Any bucket will do.
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes) % directory::BUCKETS
}

/// Whether it stood there before.
async fn renew_lease(shared: &Shared, conn: &Conn) -> RedisResult<bool> {
    shared.stats.commands.fetch_add(1, Relaxed);
    let mut command = shared.lease();
    command.arg("GET");
    Ok(conn.run::<Option<Vec<u8>>>(&command).await?.is_some())
}

/// Writes what waits, for as long as the bus lives.
async fn write(shared: Arc<Shared>) {
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

struct Work {
    batches: Vec<(NodeId, Vec<u8>)>,
    asking: Vec<DeviceId>,
    chores: Vec<Chore>,
}

/// What can be done at once. None when nothing waits, or there is no way.
fn take(shared: &Shared) -> Option<(Conn, Work)> {
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

async fn publish(shared: &Shared, conn: &Conn, node: NodeId, mut batch: Vec<u8>) {
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
fn parts(batch: &[u8]) -> Vec<std::borrow::Cow<'_, [u8]>> {
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

async fn do_chore(conn: &Conn, chore: &Chore) -> RedisResult<()> {
    match chore {
        Chore::Release(device, entry) => directory::release(conn, device, *entry).await,
        Chore::Command(command) => conn.run::<Value>(command).await.map(drop),
        Chore::Note(machine, note) => records::note(conn, machine, note).await,
    }
}

/// The directory has answered: what waited for a device goes to its node, or back.
fn place(shared: &Shared, device: DeviceId, entry: Option<Entry>) {
    let node = entry.map(|entry| entry.node).filter(|node| *node != shared.node);
    let lost: Vec<Message> = {
        let mut out = shared.out.lock();
        let waiting = out.asking.remove(&device).unwrap_or_default();
        out.waiting = out.waiting.saturating_sub(waiting.iter().map(cost).sum());
        out.cache.put(device, node, Instant::now());
        match node {
            Some(node) => {
                waiting.into_iter().for_each(|message| put(&mut out, shared.node, node, &Record::Message(message)));
                Vec::new()
            }
            None => waiting,
        }
    };
    shared.give_back(lost);
}
