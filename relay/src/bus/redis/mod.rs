//! The bus over Redis (`PROTOCOL 15`).
//!
//! One task keeps the way to Redis: it connects, subscribes to this node's channel, renews its lease, sends itself a Ping every half second,
//! and when the way was lost enters all devices of this node again once it is back. Another writes: what waits for a
//! node goes out as one batch, directly if the nodes reach each other. A third says for whom the machines here vouch. What comes in is handled where it is read, so that nothing can pile up in between.
//!
//! Everything that a device waits for ends by itself: a login goes on without Redis when it does not answer within a second.

mod dialled;
mod direct;
mod directory;
mod keeper;
mod keys;
mod outgoing;
mod records;
mod shares;
mod tickets;
mod vouches;
mod way;

use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use parking_lot::Mutex;
use redis::{Cmd, RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::direct::{Direct, DirectError};
pub use self::way::{RedisUrl, RedisUrlError};

use self::direct::{Found, Line, Ways};
use self::directory::{Claimed, Entry};
use self::keys::Keys;
use self::outgoing::{Chore, Outgoing, put, put_all, put_frames, undelivered};
use self::records::Note;
use self::tickets::Led;
use self::vouches::Speaking;
use self::way::Conn;
use super::batch::{Batch, Record, Torn};
use super::{Answer, Apart, Arrived, Bus, BusStats, Claim, Frame, Inbox, Login, Message, NodeId, Rest, Unsent};
use crate::access::Vouching;
use crate::records::{Known, NewRecord, Put, unix_ms};

/// The lease of a node, renewed with every second Ping: devices of a node that died without a word are told to be away when it is over.
const LEASE: Duration = Duration::from_secs(5);
/// The first byte of what stands in a lease.
const LEASE_VERSION: u8 = 1;
/// What a node that ends may take to say so.
const LEAVE: Duration = Duration::from_secs(1);
/// Of this, what is left for the last word when others do not take what is in hand.
const GOODBYE: Duration = Duration::from_millis(250);
/// How often it looks whether they have.
const LOOK: Duration = Duration::from_millis(5);
/// Between attempts to connect: first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// What waits to be published, bytes. It is reached when Redis is slower than the devices; they are told that the queue is full.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// So many frames of a batch are handled together.
const GATHERED: usize = 64;

/// A node of a relay that shares a Redis with others.
pub struct RedisBus {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 3],
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        // They keep what they belong to alive.
        self.shared.tasks.lock().abort_all();
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
    /// Who vouches here for whom, and that some of it has to be said.
    speaking: Mutex<Speaking>,
    speak: Notify,
    /// Other nodes from which a device named one of ours. The inbox knows which.
    others: Mutex<HashSet<NodeId>>,
    /// Those of other nodes' tokens.
    keys: Keys,
    /// The direct ways to other nodes, if there are to be any.
    ways: Option<Ways>,
    /// What runs for these.
    tasks: Mutex<JoinSet<()>>,
    /// Redis had lost what it held, or may have: until then other nodes are still saying theirs again.
    refilled: Mutex<Option<Instant>>,
}

impl RedisBus {
    /// A node with an id of its own. It connects in the background, and again whenever the way is lost: a relay starts without Redis too.
    ///
    /// # Errors
    /// When the address cannot be used at all, or the operating system has no randomness.
    pub fn start(url: &RedisUrl) -> Result<Self, StartError> {
        Self::start_with(url, None)
    }

    /// The same, with direct connections to those of the other nodes that have them, too.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(url: &RedisUrl, direct: Option<Direct>) -> Result<Self, StartError> {
        let (listener, ways) = direct.map(Direct::split).unzip();
        let mut node = [0; NodeId::LEN];
        getrandom::fill(&mut node).map_err(|_| StartError::NoRandomness)?;
        let way = url.way().map_err(|error| StartError::Url(url.told(&error)))?;
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
            speak: Notify::new(),
            others: Mutex::default(),
            keys: Keys::new(),
            ways,
            tasks: Mutex::default(),
            refilled: Mutex::default(),
        });
        if let Some(listener) = listener {
            shared.spawn(shared.clone().accept_nodes(listener));
        }
        let keeper = tokio::spawn(keeper::keep(shared.clone(), way, url.clone())).abort_handle();
        let writer = tokio::spawn(outgoing::write(shared.clone())).abort_handle();
        let speaker = tokio::spawn(vouches::speak(shared.clone())).abort_handle();
        Ok(Self { shared, tasks: [keeper, writer, speaker] })
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

    fn id(&self) -> NodeId {
        self.shared.node
    }

    fn open_ticket<'a>(&'a self, host: &'a DeviceId, hash: &'a [u8; 32], seconds: u64) -> Answer<'a, bool> {
        Box::pin(self.shared.open_ticket(host, hash, seconds))
    }

    fn keep_ticket(&self, host: &DeviceId, hash: &[u8; 32], seconds: u64) {
        let to = Led { node: self.shared.node, host: *host };
        self.shared.chore(Chore::Command(tickets::open(to, hash, seconds, None)));
    }

    fn close_ticket(&self, hash: &[u8; 32]) {
        self.shared.chore(Chore::Command(tickets::close(self.shared.node, hash)));
    }

    fn ticket<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Result<Option<NodeId>, Apart>> {
        Box::pin(async move {
            let conn = self.shared.conn().ok_or(Apart)?;
            self.shared.stats.commands.fetch_add(1, Relaxed);
            let node = tickets::find(&conn, hash).await.map_err(|_| Apart)?;
            if node.is_some() {
                return Ok(node);
            }
            // A host whose node did not get an answer of Redis was told that its rendezvous is open, and Redis may know of it in a moment.
            sleep(tickets::SETTLED).await;
            self.shared.stats.commands.fetch_add(1, Relaxed);
            let node = tickets::find(&conn, hash).await.map_err(|_| Apart)?;
            match node.is_some() || self.shared.knows_all(&conn).await {
                true => Ok(node),
                false => Err(Apart),
            }
        })
    }

    fn post_to(&self, node: NodeId, message: Message) -> Result<(), Unsent> {
        self.shared.post_to(node, message)
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

    fn post_frames(&self, from: &DeviceId, run: &[Frame<'_>]) -> Result<(), Rest> {
        self.shared.post_frames(from, run)
    }

    fn vouch(&self, by: &DeviceId, login: Login, vouching: Vouching<'_>) {
        self.shared.vouch(by, login, vouching);
    }

    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let shared = &self.shared;
            let Some(conn) = shared.conn() else { return };
            let until = Instant::now() + LEAVE;
            if timeout_at(until - GOODBYE, shared.written_out()).await.is_err() {
                tracing::debug!("not everything was written out to the other nodes");
            }
            // Without its lease the others count the node as gone within a second.
            let del = redis::cmd("DEL").arg(shared.node.lease()).to_owned();
            let _: Result<RedisResult<Value>, _> = timeout_at(until, conn.run(&del)).await;
        })
    }

    fn stats(&self) -> Option<&BusStats> {
        Some(&self.shared.stats)
    }

    fn vouched<'a>(&'a self, device: &'a DeviceId) -> Answer<'a, Option<bool>> {
        Box::pin(self.shared.vouched(device))
    }

    fn put_record(&self, new: NewRecord) -> Answer<'_, Put> {
        Box::pin(async move {
            let Some(conn) = self.shared.conn() else { return Put::Refused };
            self.shared.stats.commands.fetch_add(1, Relaxed);
            records::put(&conn, new, &self.shared.stats.full).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a record was not kept");
                Put::Refused
            })
        })
    }

    fn known<'a>(&'a self, machine: &'a DeviceId, reader: &'a DeviceId) -> Answer<'a, Result<Option<Known>, Apart>> {
        Box::pin(async move {
            let conn = self.shared.conn().ok_or(Apart)?;
            self.shared.stats.commands.fetch_add(3, Relaxed);
            records::known(&conn, machine, reader).await.map_err(|_| Apart)
        })
    }

    fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]) {
        // Without a way they are said when everything is entered again.
        self.shared.chore(Chore::Note(*machine, Note::Readers(readers.to_vec())));
    }

    fn alive(&self, machine: &DeviceId) {
        let seen = Note::Seen { at: unix_ms(), asked: Instant::now() };
        self.shared.chore(Chore::Note(*machine, seen));
    }
}

impl Shared {
    /// Waits until nothing is left to be sent, and what was has been taken.
    async fn written_out(&self) {
        loop {
            let idle = self.idle.notified();
            if self.is_idle() {
                return;
            }
            self.wake.notify_one();
            self.speak.notify_one();
            // Of a direct way nobody says that all of it was taken.
            let _ = timeout(LOOK, idle).await;
        }
    }

    fn is_idle(&self) -> bool {
        let directly = self.ways.as_ref().is_none_or(Ways::is_idle);
        directly && self.out.lock().is_empty() && self.speaking.lock().is_said()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task)
    }

    fn conn(&self) -> Option<Conn> {
        self.out.lock().conn.clone()
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.inbox.get()?.upgrade()
    }

    /// Says that this node lives, and which key its tokens are made with.
    fn lease(&self) -> Cmd {
        let key = self.token_key.get().copied().unwrap_or_default();
        let address = self.ways.as_ref().map_or("", |ways| &ways.address).as_bytes();
        // Direct::listen takes no longer ones.
        let lease: Vec<u8> = [&[LEASE_VERSION][..], &key, &[address.len() as u8], address].concat();
        let mut command = redis::cmd("SET");
        command.arg(self.node.lease()).arg(lease).arg("PX").arg(LEASE.as_millis() as u64);
        command
    }

    /// Redis was lost, or what it held.
    fn refills(&self) {
        *self.refilled.lock() = Some(Instant::now() + LEASE);
    }

    /// Whether other nodes may not have said everything again.
    fn is_refilling(&self) -> bool {
        self.refilled.lock().is_some_and(|until| until > Instant::now())
    }

    /// Whether what does not stand in Redis is said by no node. One that was emptied a moment ago has not even our lease.
    async fn knows_all(&self, conn: &Conn) -> bool {
        if self.is_refilling() {
            return false;
        }
        self.stats.commands.fetch_add(1, Relaxed);
        directory::lives(conn, self.node).await.unwrap_or(false)
    }

    /// What stands in the lease of a node that lives, behind the version.
    async fn lease_of(&self, node: NodeId) -> Result<Option<Vec<u8>>, Apart> {
        let conn = self.conn().ok_or(Apart)?;
        self.stats.commands.fetch_add(1, Relaxed);
        let lease: Option<Vec<u8>> = conn.run(redis::cmd("GET").arg(node.lease())).await.map_err(|_| Apart)?;
        Ok(lease.and_then(|lease| lease.strip_prefix(&[LEASE_VERSION]).map(<[u8]>::to_vec)))
    }

    /// The key of a node's tokens.
    async fn token_key_of(&self, node: &str) -> Result<Option<[u8; 32]>, Apart> {
        let Ok(node) = node.parse::<NodeId>() else { return Ok(None) };
        let ask = async { Ok(self.lease_of(node).await?.and_then(|lease| lease.first_chunk().copied())) };
        self.keys.of(node, ask).await
    }

    /// Where a node takes direct connections; empty when it takes none.
    async fn address_of(&self, node: NodeId) -> Option<String> {
        let lease = self.lease_of(node).await.ok()??;
        let (length, address) = lease.get(32..)?.split_first()?;
        String::from_utf8(address.get(..usize::from(*length))?.to_vec()).ok()
    }

    /// Whether a ticket leads to a device here now. One that leads to another device is left to it, unless that device's node has gone.
    async fn open_ticket(&self, host: &DeviceId, hash: &[u8; 32], seconds: u64) -> bool {
        let Some(conn) = self.conn() else { return true };
        let to = Led { node: self.node, host: *host };
        let open = async |instead| {
            self.stats.commands.fetch_add(1, Relaxed);
            conn.run::<Option<Led>>(&tickets::open(to, hash, seconds, instead)).await
        };
        let asked = async {
            let Some(first) = open(None).await? else { return Ok(true) };
            self.stats.commands.fetch_add(1, Relaxed);
            // A node that lives may not have its lease again yet.
            if self.is_refilling() || directory::lives(&conn, first.node).await? {
                return Ok(false);
            }
            Ok(open(Some(first)).await?.is_none())
        };
        let opened: RedisResult<bool> = asked.await;
        opened.unwrap_or_else(|error| {
            tracing::debug!(%error, "a rendezvous was not entered");
            // It is said again with everything else.
            self.out.lock().incomplete = true;
            true
        })
    }

    async fn claim(&self, device: &DeviceId, login: Login) -> Claim {
        let Some(conn) = self.conn() else { return Claim::Held };
        match self.enter(&conn, device, Entry { node: self.node, login }).await {
            Ok(Claimed::Held(older)) => {
                self.out.lock().cache.forget(device);
                if let Some(older) = older {
                    // That node may have gone without a word; then nobody takes this, and nobody has to. If the way is lost now, both nodes
                    // enter their devices again, and the older one finds the newer; so it does within a minute when there is no room for this.
                    drop(self.append(older.node, vec![Message::Displaced { device: *device, by: login }]));
                }
                Claim::Held
            }
            Ok(Claimed::Newer(_)) => Claim::Newer,
            // Whether it was entered is unknown. The keeper finds out about the way itself, and then enters everything again.
            Err(error) => {
                tracing::debug!(%error, "a login was not entered in the directory");
                self.out.lock().incomplete = true;
                Claim::Held
            }
        }
    }

    /// A larger login at a node that has gone is in nobody's way.
    async fn enter(&self, conn: &Conn, device: &DeviceId, entry: Entry) -> RedisResult<Claimed> {
        self.stats.commands.fetch_add(1, Relaxed);
        let claimed = directory::claim(conn, device, entry).await?;
        let Claimed::Newer(Some(newer)) = claimed else { return Ok(claimed) };
        self.stats.commands.fetch_add(1, Relaxed);
        if directory::lives(conn, newer.node).await? {
            return Ok(claimed);
        }
        self.stats.commands.fetch_add(2, Relaxed);
        directory::release(conn, device, newer).await?;
        directory::claim(conn, device, entry).await
    }

    fn chore(&self, chore: Chore) {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            // Everything that is here is entered again when the way is back.
            out.owe(&chore);
            return;
        }
        if let Err(chore) = out.chores.push(chore) {
            out.incomplete = true;
            out.owe(&chore);
            return;
        }
        drop(out);
        self.wake.notify_one();
    }

    fn post(self: &Arc<Self>, device: &DeviceId, message: Message) -> Result<(), Unsent> {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            return Err(Unsent::Nowhere);
        }
        let was_empty = out.is_idle();
        // Behind what already waits for the same device, or it would overtake it.
        let known = if out.asks(device, &message) { None } else { out.cache.get(device, Instant::now()) };
        let to_write = match known {
            Some(Some(node)) if node != self.node => self.send(&mut out, node, message)?,
            Some(_) => return Err(Unsent::Nowhere),
            None if out.takes(&message, &self.stats) => {
                out.ask(*device, message);
                true
            }
            None => return Err(Unsent::Full),
        };
        drop(out);
        if to_write && was_empty {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Sends a message to a node, directly if it may go that way, and through Redis otherwise: each has its own room. True when it waits for
    /// the writer.
    fn send(self: &Arc<Self>, out: &mut Outgoing, node: NodeId, message: Message) -> Result<bool, Unsent> {
        if goes_directly(&message)
            && let Some(taken) = self.directly(node, |line| line.push(self.node, &message))
        {
            if !taken {
                self.stats.no_room(&message);
                return Err(Unsent::Full);
            }
            return Ok(false);
        }
        if !out.takes(&message, &self.stats) {
            return Err(Unsent::Full);
        }
        put(out, self.node, node, &Record::Message(message));
        Ok(true)
    }

    /// Frames of a device for another cost one look-up and one place in the line, however many follow one another.
    fn post_frames(self: &Arc<Self>, from: &DeviceId, run: &[Frame<'_>]) -> Result<(), Rest> {
        let Some(Frame { to, .. }) = run.first() else { return Ok(()) };
        let mut out = self.out.lock();
        if out.conn.is_none() {
            return Err(Rest { taken: 0, why: Unsent::Nowhere });
        }
        let was_empty = out.is_idle();
        // Behind what already waits for the same device, or they would overtake it.
        let known = if out.asking.contains_key(to) { None } else { out.cache.get(to, Instant::now()) };
        let taken = match known {
            Some(Some(node)) if node != self.node => {
                match self.directly(node, |line| line.push_frames(self.node, from, run)) {
                    Some(taken) => return all_or_rest(taken, run),
                    None => put_frames(&mut out, self.node, node, from, run),
                }
            }
            Some(_) => return Err(Rest { taken: 0, why: Unsent::Nowhere }),
            None => out.ask_for_frames(from, run, &self.stats),
        };
        drop(out);
        if was_empty {
            self.wake.notify_one();
        }
        all_or_rest(taken, run)
    }

    /// Puts something to what goes to a node directly. None when there is no way to it now.
    fn directly<T>(self: &Arc<Self>, node: NodeId, put: impl FnOnce(&mut Line) -> T) -> Option<T> {
        match self.ways.as_ref()?.to(node) {
            Found::Way(pipe) => pipe.put(put),
            Found::None { dial } => {
                if dial {
                    self.spawn(self.clone().carry(node));
                }
                None
            }
        }
    }

    fn post_to(self: &Arc<Self>, node: NodeId, message: Message) -> Result<(), Unsent> {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            return Err(Unsent::Nowhere);
        }
        let to_write = self.send(&mut out, node, message)?;
        drop(out);
        if to_write {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Puts messages to what goes to a node through Redis. Those for which there is no way there, or no room, come back with the reason.
    #[must_use]
    fn append(&self, node: NodeId, messages: Vec<Message>) -> (Vec<Message>, Undelivered) {
        let mut out = self.out.lock();
        if out.conn.is_none() {
            return (messages, Undelivered::Unreachable);
        }
        let left = put_all(&mut out, self.node, node, messages, &self.stats);
        drop(out);
        self.wake.notify_one();
        (left, Undelivered::QueueFull)
    }

    /// What a node sent, or this one itself.
    fn handle(&self, bytes: &[u8]) {
        let Some(batch) = Batch::read(bytes) else {
            self.stats.torn.fetch_add(1, Relaxed);
            return;
        };
        let Some(inbox) = self.inbox() else { return };
        let from = batch.from;
        if from != self.node {
            let lag = unix_ms().saturating_sub(batch.unix_ms);
            self.stats.lag.note(Duration::from_millis(lag));
        }
        let mut frames: Vec<Arrived<'_>> = Vec::with_capacity(GATHERED);
        for record in batch {
            match record {
                Ok(Record::Frame(frame)) => {
                    frames.push(frame);
                    if frames.len() == GATHERED {
                        inbox.handle_frames(from, frames.drain(..).as_slice());
                    }
                }
                Ok(Record::Message(message)) => {
                    // All in their order.
                    inbox.handle_frames(from, frames.drain(..).as_slice());
                    self.handle_message(&*inbox, from, message);
                }
                Ok(Record::Ping(n)) if from == self.node => {
                    let mut heard = self.heard.lock();
                    heard.0 = heard.0.max(n);
                    heard.1 = Instant::now();
                }
                Ok(Record::Ping(_)) => {}
                Err(Torn) => {
                    self.stats.torn.fetch_add(1, Relaxed);
                }
            }
        }
        inbox.handle_frames(from, &frames);
    }

    /// What is no frame.
    fn handle_message(&self, inbox: &dyn Inbox, from: NodeId, message: Message) {
        // Guests are in no directory.
        if let Message::Undelivered { to, reason: Undelivered::Unreachable, rendezvous: false, .. } = &message {
            // It may have moved, or its node has lost it.
            self.out.lock().cache.forget(to);
        }
        if let Message::Naming { from: device, named, .. } = &message {
            self.out.lock().cache.put(*device, Some(from), Instant::now());
            if *named {
                self.others.lock().insert(from);
            }
        }
        inbox.handle(from, message);
    }

    /// Tells the senders of frames that certainly did not arrive, in the name of a node that has gone, or of this one.
    fn give_back(&self, node: NodeId, lost: Vec<Message>, reason: Undelivered) {
        let Some(inbox) = self.inbox() else { return };
        for message in lost.into_iter().filter_map(|message| undelivered(message, reason)) {
            self.stats.lost_frames.fetch_add(1, Relaxed);
            inbox.handle(node, message);
        }
    }

    async fn until_room(&self) {
        loop {
            let room = self.room.notified();
            if self.out.lock().has_room() {
                return;
            }
            room.await;
        }
    }
}

/// Whether a message may go directly between nodes that reach each other: frames, and what hangs on them. That a guest is one no longer, which ends
/// it, goes behind the word of why, which was sent through Redis: one that was displaced would be told that its host has left.
fn goes_directly(message: &Message) -> bool {
    match message {
        Message::Frame { .. } => true,
        Message::Undelivered { reason, rendezvous, .. } => !rendezvous || *reason != Undelivered::Unreachable,
        _ => false,
    }
}

/// What became of a run of which so many were taken: those behind them found no room.
fn all_or_rest(taken: usize, run: &[Frame<'_>]) -> Result<(), Rest> {
    if taken < run.len() { Err(Rest { taken, why: Unsent::Full }) } else { Ok(()) }
}
