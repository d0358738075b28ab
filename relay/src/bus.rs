//! The way between the nodes of one relay.
//!
//! A hub delivers by itself whenever the receiver is connected to it; the bus is asked only about devices that are not.
//! It knows at which node each device is connected (the directory) and carries [`Message`]s there, at most once: what is
//! lost here is resent end to end by the link. [`MemoryBus`] connects nodes of one process and is what a single node runs on, [`RedisBus`] connects processes.

pub(crate) mod batch;
pub mod redis;

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, Undelivered};
use parking_lot::RwLock;
use tokio::time::Instant;

use crate::access::{Vouches, Vouching};
use crate::mailbox::DELIVER_HEAD;
use crate::records::{Known, NewRecord, Put, Records};
use crate::wait::Waits;

pub use self::redis::{Direct, DirectError, RedisBus, RedisUrl};

/// Names one start of one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(crate) [u8; 8]);

impl NodeId {
    /// Its length, bytes.
    pub const LEN: usize = 8;

    /// The channel that the node listens at (`PROTOCOL 15`).
    pub(crate) fn channel(self) -> String {
        format!("hr:{{{self}}}")
    }

    /// The key that exists while the node lives.
    pub(crate) fn lease(self) -> String {
        format!("hr:node:{self}")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for NodeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(|node| Self(node.to_be_bytes()))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A frame that a device sends, where it was read.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The receiver.
    pub to: DeviceId,
    /// The sender's own mark.
    pub tag: u32,
    /// What is carried.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// The same, for a node that is told later.
    pub(crate) fn to_message(self, from: &DeviceId) -> Message {
        let mut deliver = Vec::with_capacity(DELIVER_HEAD + self.payload.len());
        FromRelay::Deliver { from: *from, rendezvous: false, payload: self.payload }.encode(&mut deliver);
        Message::Frame { from: *from, to: self.to, tag: self.tag, deliver: deliver.into() }
    }
}

/// A frame that came from another node, where it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// Written by the sender's node from the login.
    pub from: DeviceId,
    /// The receiver.
    pub to: DeviceId,
    /// The sender's own mark.
    pub tag: u32,
    /// A whole Deliver frame.
    pub deliver: &'a [u8],
}

impl Arrived<'_> {
    /// The same, kept for longer.
    pub(crate) fn to_message(self) -> Message {
        let Self { from, to, tag, deliver } = self;
        Message::Frame { from, to, tag, deliver: Bytes::copy_from_slice(deliver) }
    }
}

/// What one node tells another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A payload, for a device connected to the receiving node. Its sender named `to` when it was posted.
    Frame {
        /// Written by the sender's node from the login.
        from: DeviceId,
        /// The receiver.
        to: DeviceId,
        /// The sender's own mark, for [`Message::Undelivered`].
        tag: u32,
        /// A whole Deliver frame.
        deliver: Bytes,
    },
    /// A frame did not reach `to`.
    Undelivered {
        /// Who sent the frame; connected to the receiving node.
        from: DeviceId,
        /// Whom it was for.
        to: DeviceId,
        /// The mark of the Send.
        tag: u32,
        /// Why.
        reason: Undelivered,
        /// Whether it was to go through a rendezvous: the sender was a guest, or wrote to its own.
        rendezvous: bool,
    },
    /// Whether the connected device `from` names `to`. Notices may overtake each other, so each carries its place:
    /// the one with the larger (epoch, revision) is the truth.
    Naming {
        /// Connected to the posting node, unless `named` is false.
        from: DeviceId,
        /// The epoch of its login.
        epoch: u64,
        /// Grows with every change of what it names.
        revision: u64,
        /// Who is named or no longer named; connected to the receiving node.
        to: DeviceId,
        /// False also when `from` has gone away.
        named: bool,
        /// Whether the receiving node shall say the same of `to` in return.
        answer: bool,
    },
    /// A newer connection of the device was accepted at another node.
    Displaced {
        /// Which device.
        device: DeviceId,
        /// The newer login; the receiving node ends any that is smaller.
        by: Login,
    },
    /// Records of a machine have new versions.
    Changed {
        /// Whose.
        machine: DeviceId,
        /// Who may read them; connected to the receiving node.
        to: DeviceId,
        /// Bit n - 1 stands for kind n.
        kinds: u8,
    },
    /// A guest presented a ticket at the posting node; its host is connected to the receiving one, which answers.
    GuestComes {
        /// Who.
        guest: DeviceId,
        /// Its login.
        login: Login,
        /// Of the ticket (`PROTOCOL 4`).
        ticket_hash: [u8; 32],
    },
    /// What became of that.
    GuestAnswer {
        /// Who.
        guest: DeviceId,
        /// Its login.
        login: Login,
        /// What became of it.
        admission: Admission,
    },
    /// A guest is one no longer.
    GuestEnds {
        /// Who.
        guest: DeviceId,
        /// Its login.
        login: Login,
        /// Whose guest it was.
        host: DeviceId,
        /// Why.
        end: GuestEnd,
    },
}

impl Message {
    /// Who sent a frame, or is told that one did not arrive; none of a notice.
    pub(crate) fn sender(&self) -> Option<DeviceId> {
        match self {
            Message::Frame { from, .. } | Message::Undelivered { from, .. } => Some(*from),
            _ => None,
        }
    }
}

/// What the node of a host says of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is the guest of this device.
    Admitted(DeviceId),
    /// The ticket is not open.
    NoTicket,
    /// A newer login of the device is a guest already.
    Older,
    /// There are too many guests.
    Full,
}

/// Why a guest is one no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// It left. Told to the node of its host.
    Left,
    /// Its host left. Told to its own node, as is what follows.
    HostLeft,
    /// A newer login of it took its place.
    Displaced,
}

/// One login of a device. The larger one is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Login {
    /// The device's own count.
    pub epoch: u64,
    /// Tells logins with the same epoch apart; given by the node.
    pub number: u64,
}

impl Login {
    /// Epoch and number, big-endian: what compares as bytes compares as a login.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        // Both halves of a u128.
        let both = u128::from_be_bytes(bytes);
        Self { epoch: (both >> 64) as u64, number: both as u64 }
    }
}

/// Takes messages for one node. It is called from any task, must not wait, and is never called with a lock of a bus held.
pub trait Inbox: Send + Sync + 'static {
    /// A message arrived from this node, which is our own when the bus itself has something to say.
    fn handle(&self, from: NodeId, message: Message);
    /// Frames arrived from this node, in their order.
    fn handle_frames(&self, from: NodeId, frames: &[Arrived<'_>]) {
        frames.iter().for_each(|frame| self.handle(from, frame.to_message()));
    }
    /// The way to all other nodes is lost. Devices here are told that their peers elsewhere are away.
    fn apart(&self);
    /// A node has gone without a word, so the devices that were there are away for certain.
    fn gone(&self, node: NodeId);
    /// The devices of this node, to be entered again when the way is back.
    fn seats(&self) -> Vec<(DeviceId, Login)>;
    /// The login under which a device is connected to this node.
    fn seat(&self, device: &DeviceId) -> Option<Login>;
    /// Everything that was said of a device of this node was lost: says again which tickets lead to it, who reads its records, and
    /// whom it names, and has it put its records again.
    fn introduce(&self, device: &DeviceId);
    /// Posts anew whom a device of this node names, so that it learns who is elsewhere.
    fn names_anew(&self, device: &DeviceId);
    /// The records of a machine that is connected here were lost; it says so if the machine has put any. `asked` is when the
    /// question for them was made up, if they were not seen to go: a record that was put since then may stand there.
    fn lost_records(&self, machine: &DeviceId, asked: Option<Instant>);
}

/// The directory's answer to a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The device belongs to this node now; the node that had it has ended the older connection.
    /// A bus that is out of order says the same and claims again when it is back: one node goes on alone.
    Held,
    /// A newer login stands there: one with a larger epoch, or with the same and a larger number.
    Newer,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// The device is connected to no other node.
    Nowhere,
    /// The way to that node is full.
    Full,
}

/// Of frames that were posted together, the last were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// How many were taken before these.
    pub taken: usize,
    /// Why these were not.
    pub why: Unsent,
}

/// An answer that may take a round trip.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the metrics show of the bus.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Whether the way to Redis is up.
    pub up: AtomicBool,
    /// How often it was lost.
    pub lost: AtomicU64,
    /// Batches published.
    pub published: AtomicU64,
    /// Other commands sent to Redis.
    pub commands: AtomicU64,
    /// Batches from elsewhere that made no sense.
    pub torn: AtomicU64,
    /// Batches that no node took, because it had gone.
    pub untaken: AtomicU64,
    /// Entries of nodes that had gone, struck out.
    pub swept: AtomicU64,
    /// Times that something was not kept because Redis was nearly full.
    pub full: AtomicU64,
    /// Direct connections to other nodes, now.
    pub direct: AtomicU64,
    /// Batches sent over these.
    pub direct_batches: AtomicU64,
    /// Frames that were given to the bus and certainly did not arrive; their senders were told.
    pub lost_frames: AtomicU64,
    /// Notices for which there was no room, by their kinds ([`BusStats::NOTICES`]).
    pub notices_full: [AtomicU64; Self::NOTICES.len()],
    /// How long batches from other nodes were under way, as far as their clocks agree.
    pub lag: Waits,
}

impl BusStats {
    /// What is said to other nodes beside frames: that a device names another, which is said again when there is room; that it does so no longer or
    /// has gone; that records have changed; about guests; and that a frame did not arrive.
    pub const NOTICES: [&str; 5] = ["named", "gone", "changed", "guest", "undelivered"];

    /// There was no room for a message. Of a frame its sender is told.
    pub(crate) fn no_room(&self, message: &Message) {
        let kind = match message {
            Message::Frame { .. } => return,
            Message::Naming { named: true, .. } => 0,
            Message::Naming { named: false, .. } | Message::Displaced { .. } => 1,
            Message::Changed { .. } => 2,
            Message::GuestComes { .. } | Message::GuestAnswer { .. } | Message::GuestEnds { .. } => 3,
            Message::Undelivered { .. } => 4,
        };
        self.notices_full[kind].fetch_add(1, Relaxed);
    }
}

/// The other nodes cannot be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart;

/// One node's connection to the others.
pub trait Bus: Send + Sync + 'static {
    /// Says where this node's messages go, and the public half of the key of its tokens. Called once, before anything else.
    fn join(&self, inbox: Weak<dyn Inbox>, token_key: [u8; 32]);
    /// This node's name in tokens.
    fn node(&self) -> String;
    /// The same as nodes name each other.
    fn id(&self) -> NodeId;
    /// Lets a ticket lead to this node, where its host is connected, for so many seconds, 300 at most. False when it leads to another device: the
    /// first that opens one keeps it. A bus that is out of order says true: one node goes on alone.
    fn open_ticket<'a>(&'a self, host: &'a DeviceId, hash: &'a [u8; 32], seconds: u64) -> Answer<'a, bool>;
    /// Says the same again of one that is open, for when it was lost. It does not wait, and never calls back.
    fn keep_ticket(&self, host: &DeviceId, hash: &[u8; 32], seconds: u64);
    /// The ticket leads here no longer. It does not wait, and never calls back.
    fn close_ticket(&self, hash: &[u8; 32]);
    /// The node that a ticket leads to.
    fn ticket<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Result<Option<NodeId>, Apart>>;
    /// Posts a message to a node. It does not wait. [`Unsent::Nowhere`] when the node is certainly not to be reached.
    ///
    /// # Errors
    /// [`Unsent`] when it will not arrive.
    fn post_to(&self, node: NodeId, message: Message) -> Result<(), Unsent>;
    /// The public half of the key of a node's tokens; none when there is no such node, or it has gone.
    fn token_key<'a>(&'a self, node: &'a str) -> Answer<'a, Result<Option<[u8; 32]>, Apart>>;
    /// Enters a device as connected to this node, unless a newer login stands there: entered over it, the newer connection
    /// could neither be found nor strike itself out when it ends.
    fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Answer<'a, Claim>;
    /// Strikes a device out, if it still stands here with this very login.
    fn release(&self, device: &DeviceId, login: Login);
    /// Sends a message to the node at which `device` is connected. It does not wait.
    ///
    /// # Errors
    /// [`Unsent`] when it certainly will not arrive. A bus that finds out later tells the inbox of the sender with
    /// [`Message::Undelivered`].
    fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent>;
    /// Sends frames of `from`, all for one device, in their order. Otherwise as [`Self::post`].
    ///
    /// # Errors
    /// [`Rest`] when some were not taken.
    fn post_frames(&self, from: &DeviceId, run: &[Frame<'_>]) -> Result<(), Rest> {
        for (taken, frame) in run.iter().enumerate() {
            self.post(&frame.to, frame.to_message(from)).map_err(|why| Rest { taken, why })?;
        }
        Ok(())
    }
    /// The enrolled device `by`, connected to this node under this login, speaks for others or no longer does. It does not wait, and never
    /// calls back.
    fn vouch(&self, by: &DeviceId, login: Login, vouching: Vouching<'_>);
    /// Whether a device is vouched for at any node (`PROTOCOL 7`, Access); none when only other nodes could know and cannot be asked now.
    fn vouched<'a>(&'a self, device: &'a DeviceId) -> Answer<'a, Option<bool>>;
    /// Keeps a record of a machine (`PROTOCOL 7`, Machine records).
    fn put_record(&self, new: NewRecord) -> Answer<'_, Put>;
    /// What `reader` may know of a machine; none when there is nothing, or not for it.
    fn known<'a>(&'a self, machine: &'a DeviceId, reader: &'a DeviceId) -> Answer<'a, Result<Option<Known>, Apart>>;
    /// These may read the records of a device from now on, if it has any. It does not wait, and never calls back.
    fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]);
    /// A device is connected to this node, or was until now: noted if it has records. It does not wait, and never calls back.
    fn alive(&self, machine: &DeviceId);
    /// This node is about to end: what waits is written out, as far as that takes a second at most, and the others learn of it.
    fn leave(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    /// What the metrics show of it; none for a bus that never fails.
    fn stats(&self) -> Option<&BusStats> {
        None
    }
}

/// A node on a medium inside one process.
#[derive(Clone)]
pub struct MemoryBus {
    node: usize,
    medium: Arc<RwLock<Medium>>,
}

#[derive(Default)]
struct Medium {
    inboxes: Vec<Option<Weak<dyn Inbox>>>,
    directory: HashMap<DeviceId, Entry>,
    token_keys: Vec<[u8; 32]>,
    vouches: Vouches,
    records: Arc<Records>,
    tickets: HashMap<[u8; 32], (usize, DeviceId)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    node: usize,
    login: Login,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self {
            node: 0,
            medium: Arc::new(RwLock::new(Medium {
                inboxes: vec![None],
                token_keys: vec![[0; 32]],
                ..Medium::default()
            })),
        }
    }
}

impl MemoryBus {
    /// Another node on the same medium.
    pub fn another(&self) -> Self {
        let mut medium = self.medium.write();
        medium.inboxes.push(None);
        medium.token_keys.push([0; 32]);
        Self { node: medium.inboxes.len() - 1, medium: self.medium.clone() }
    }
}

impl Medium {
    fn inbox(&self, node: usize) -> Option<Arc<dyn Inbox>> {
        self.inboxes.get(node)?.as_ref()?.upgrade()
    }
}

fn id_of(node: usize) -> NodeId {
    NodeId((node as u64).to_be_bytes())
}

impl Bus for MemoryBus {
    fn join(&self, inbox: Weak<dyn Inbox>, token_key: [u8; 32]) {
        let mut medium = self.medium.write();
        // Both lists got this node's place when it was made.
        medium.inboxes[self.node] = Some(inbox);
        medium.token_keys[self.node] = token_key;
    }

    fn node(&self) -> String {
        self.node.to_string()
    }

    fn id(&self) -> NodeId {
        id_of(self.node)
    }

    fn open_ticket<'a>(&'a self, host: &'a DeviceId, hash: &'a [u8; 32], _seconds: u64) -> Answer<'a, bool> {
        let mut medium = self.medium.write();
        let older = medium.tickets.get(hash).copied();
        let is_free = older.is_none_or(|(node, device)| device == *host || medium.inbox(node).is_none());
        if is_free {
            // The node closes it when its time is over, and both end together.
            medium.tickets.insert(*hash, (self.node, *host));
        }
        Box::pin(std::future::ready(is_free))
    }

    fn keep_ticket(&self, _host: &DeviceId, _hash: &[u8; 32], _seconds: u64) {}

    fn close_ticket(&self, hash: &[u8; 32]) {
        let mut medium = self.medium.write();
        if medium.tickets.get(hash).is_some_and(|(node, _)| *node == self.node) {
            medium.tickets.remove(hash);
        }
    }

    fn ticket<'a>(&'a self, hash: &'a [u8; 32]) -> Answer<'a, Result<Option<NodeId>, Apart>> {
        let node = self.medium.read().tickets.get(hash).map(|(node, _)| id_of(*node));
        Box::pin(std::future::ready(Ok(node)))
    }

    fn post_to(&self, node: NodeId, message: Message) -> Result<(), Unsent> {
        let inbox = {
            let medium = self.medium.read();
            let place = (0..medium.inboxes.len()).find(|place| id_of(*place) == node);
            place.and_then(|place| medium.inbox(place)).ok_or(Unsent::Nowhere)?
        };
        inbox.handle(self.id(), message);
        Ok(())
    }

    fn token_key<'a>(&'a self, node: &'a str) -> Answer<'a, Result<Option<[u8; 32]>, Apart>> {
        let key = node.parse().ok().and_then(|node: usize| self.medium.read().token_keys.get(node).copied());
        Box::pin(std::future::ready(Ok(key)))
    }

    fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Answer<'a, Claim> {
        let mut medium = self.medium.write();
        let older = medium.directory.get(device).copied();
        if older.is_some_and(|older| older.login > login) {
            return Box::pin(std::future::ready(Claim::Newer));
        }
        medium.directory.insert(*device, Entry { node: self.node, login });
        let elsewhere = older.filter(|older| older.node != self.node).and_then(|older| medium.inbox(older.node));
        drop(medium);
        if let Some(inbox) = elsewhere {
            inbox.handle(self.id(), Message::Displaced { device: *device, by: login });
        }
        Box::pin(std::future::ready(Claim::Held))
    }

    fn release(&self, device: &DeviceId, login: Login) {
        let mut medium = self.medium.write();
        if medium.directory.get(device) == Some(&Entry { node: self.node, login }) {
            medium.directory.remove(device);
        }
    }

    fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent> {
        let inbox = {
            let medium = self.medium.read();
            let entry = medium.directory.get(device).filter(|entry| entry.node != self.node);
            entry.and_then(|entry| medium.inbox(entry.node)).ok_or(Unsent::Nowhere)?
        };
        inbox.handle(self.id(), message);
        Ok(())
    }

    fn vouch(&self, by: &DeviceId, login: Login, vouching: Vouching<'_>) {
        // All nodes share one memory: what was said here stands until the device says something else there.
        let vouching = if vouching == Vouching::Moved { Vouching::Gone } else { vouching };
        self.medium.write().vouches.note(by, login, vouching);
    }

    fn vouched<'a>(&'a self, device: &'a DeviceId) -> Answer<'a, Option<bool>> {
        let holds = self.medium.read().vouches.holds(device);
        Box::pin(std::future::ready(Some(holds)))
    }

    fn put_record(&self, new: NewRecord) -> Answer<'_, Put> {
        let medium = self.medium.read();
        let (put, lost) = medium.records.put(new, |machine| medium.directory.contains_key(machine));
        let node_of = |machine: &DeviceId| medium.inbox(medium.directory.get(machine)?.node);
        let told: Vec<_> = lost.iter().filter_map(|machine| Some((machine, node_of(machine)?))).collect();
        drop(medium);
        told.into_iter().for_each(|(machine, inbox)| inbox.lost_records(machine, None));
        Box::pin(std::future::ready(put))
    }

    fn known<'a>(&'a self, machine: &'a DeviceId, reader: &'a DeviceId) -> Answer<'a, Result<Option<Known>, Apart>> {
        let medium = self.medium.read();
        let known = medium.records.known(machine, reader).map(|known| match medium.directory.contains_key(machine) {
            true => known.of_one_that_is_here(),
            false => known,
        });
        Box::pin(std::future::ready(Ok(known)))
    }

    fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]) {
        self.medium.read().records.read_by(machine, readers);
    }

    fn alive(&self, machine: &DeviceId) {
        self.medium.read().records.alive(machine);
    }
}
