//! The way between the nodes of one relay.
//!
//! A hub delivers by itself whenever the receiver is connected to it; the bus is asked only about devices that are not.
//! It knows at which node each device is connected (the directory) and carries [`Message`]s there, at most once: what is
//! lost here is resent end to end by the link. [`MemoryBus`] connects nodes of one process and is what a single node runs on.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use parking_lot::RwLock;

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
}

/// One login of a device. The larger one is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// The device's own count.
    pub epoch: u64,
    /// Tells logins with the same epoch apart; given by the node.
    pub number: u64,
}

/// Takes messages for one node. It is called from any task, must not wait, and is never called with a lock of a bus held.
pub trait Inbox: Send + Sync + 'static {
    /// A message arrived from another node, or from the bus itself.
    fn handle(&self, message: Message);
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

/// The answer to [`Bus::claim`], which may take a round trip.
pub type Claiming<'a> = Pin<Box<dyn Future<Output = Claim> + Send + 'a>>;

/// One node's connection to the others.
pub trait Bus: Send + Sync + 'static {
    /// Says where this node's messages go. Called once, before anything else.
    fn join(&self, inbox: Weak<dyn Inbox>);
    /// Enters a device as connected to this node, unless a newer login stands there: entered over it, the newer connection
    /// could neither be found nor strike itself out when it ends.
    fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Claiming<'a>;
    /// Strikes a device out, if it still stands here with this very login.
    fn release(&self, device: &DeviceId, login: Login);
    /// Sends a message to the node at which `device` is connected. It does not wait.
    ///
    /// # Errors
    /// [`Unsent`] when it certainly will not arrive. A bus that finds out later tells the inbox of the sender with
    /// [`Message::Undelivered`].
    fn post(&self, device: &DeviceId, message: Message) -> Result<(), Unsent>;
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    node: usize,
    login: Login,
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self { node: 0, medium: Arc::new(RwLock::new(Medium { inboxes: vec![None], directory: HashMap::new() })) }
    }
}

impl MemoryBus {
    /// Another node on the same medium.
    pub fn another(&self) -> Self {
        let mut medium = self.medium.write();
        medium.inboxes.push(None);
        Self { node: medium.inboxes.len() - 1, medium: self.medium.clone() }
    }
}

impl Medium {
    fn inbox(&self, node: usize) -> Option<Arc<dyn Inbox>> {
        self.inboxes.get(node)?.as_ref()?.upgrade()
    }
}

impl Bus for MemoryBus {
    fn join(&self, inbox: Weak<dyn Inbox>) {
        if let Some(place) = self.medium.write().inboxes.get_mut(self.node) {
            *place = Some(inbox);
        }
    }

    fn claim<'a>(&'a self, device: &'a DeviceId, login: Login) -> Claiming<'a> {
        let mut medium = self.medium.write();
        let older = medium.directory.get(device).copied();
        if older.is_some_and(|older| older.login > login) {
            return Box::pin(std::future::ready(Claim::Newer));
        }
        medium.directory.insert(*device, Entry { node: self.node, login });
        let elsewhere = older.filter(|older| older.node != self.node).and_then(|older| medium.inbox(older.node));
        drop(medium);
        if let Some(inbox) = elsewhere {
            inbox.handle(Message::Displaced { device: *device, by: login });
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
        inbox.handle(message);
        Ok(())
    }
}
