//! Two devices, what is between them, and what must be true whatever happens.

macro_rules! ensure {
    ($holds:expr, $($claim:tt)*) => { if !$holds { return Err(format!($($claim)*)); } };
}

mod crashes;
mod handshakes;
mod messages;
mod network;
mod settle;

use std::collections::{BTreeMap, HashMap, HashSet};

use happy_crypto::{
    DeviceId, HandshakeError, OpenError, Ratchet,
    durable::{CommitError, DurableRatchet, LoadError, Predecessor, ReceiveError, SendError},
    handshake::{HelloView, Initiator, InvitationKey, PairSecret, Refused, Responder, Shared},
    hazmat::Seal,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::{
    device::{Device, KEY, MAX_UNCONFIRMED, people},
    disk::{Candidate, Disk},
    schedule::{Event, Fault, Schedule, Side},
};

/// Packets under way in one direction; the oldest is lost when there are more.
const MAX_UNDER_WAY: usize = 64;
/// Skips that a receiver allows (PROTOCOL 6).
const MAX_SKIP: u64 = 512;
/// Where Hello carries the name of the pair secret: after version, suite, purpose, identity record, device id, ephemeral, KEM key
/// and the two ids (PROTOCOL 5).
const SECRET_NAME_AT: usize = 3 + 129 + 32 + 32 + 1184 + 8;
/// Refused, reason 6 (PROTOCOL 5).
const UNKNOWN_SECRET: u8 = 6;
/// Numbers that a crash skips at most.
const LEASE: u64 = happy_crypto::durable::LEASE as u64;

pub type Counts = BTreeMap<&'static str, u64>;
pub type Outcome<T = ()> = Result<T, String>;

#[derive(Debug, Clone)]
enum Packet {
    Hello(Vec<u8>),
    Welcome(Vec<u8>),
    Confirm(Vec<u8>),
    Refused(Vec<u8>),
    Sealed { session: [u8; 16], message: Vec<u8>, position: u64 },
    UnknownSession([u8; 16]),
}

struct UnderWay {
    packet: Packet,
    forged: bool,
}

/// What the application says inside a message.
enum Text {
    /// The message with this number has arrived.
    Ack(u64),
    /// The sender has stored the pair secret that the handshake of this session left.
    Stored(u64),
    /// The first message after Confirm.
    Resume,
}

pub struct World {
    rng: ChaCha20Rng,
    devices: [Device; 2],
    /// By destination.
    network: [Vec<UnderWay>; 2],
    /// What the application of each side said, by number.
    said: Vec<(Side, Vec<u8>)>,
    /// Under which id the outbox keeps it.
    kept: HashMap<u64, u64>,
    /// By tag, the messages that were released, and whether their keys must be unused.
    released: HashMap<[u8; 16], Side>,
    /// How many numbers a side may have used in its session, and how far the other side has come.
    position: [u64; 2],
    reached: [u64; 2],
    /// By tag, the messages that a side has opened, or may have before it crashed.
    opened: [HashSet<[u8; 16]>; 2],
    /// Sides that have given up keys of missing messages in their session.
    expired: [bool; 2],
    /// Sessions with a state that was copied or went back without anybody noticing: they need not stay in step.
    tainted: HashSet<[u8; 16]>,
    /// Sides of which two states were alive, so that a message key may have been used twice.
    copied: [bool; 2],
    /// Since the pairing something was restored, so that the pair secrets may not fit.
    restored: bool,
    /// Pair secrets that the phone had, for the thief.
    old_secrets: Vec<PairSecret>,
    pub counts: Counts,
}

pub fn run(schedule: &Schedule) -> (Outcome, Counts) {
    let ((outcome, mut world), seals) = happy_crypto::hazmat::record(|| {
        let mut world = World::new(schedule);
        let outcome = world.play(schedule);
        (outcome, world)
    });
    let outcome = outcome.and_then(|()| world.check_keys(&seals));
    (outcome, world.counts)
}

/// A session id as it stands in a text.
fn short(session: &[u8; 16]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|i| session[i]))
}

fn id_of(side: Side) -> DeviceId {
    match side {
        Side::Phone => people().phone.device_id(),
        Side::Machine => people().machine.device_id(),
    }
}

impl World {
    fn new(schedule: &Schedule) -> Self {
        let mut world = Self {
            rng: ChaCha20Rng::seed_from_u64(schedule.seed ^ 0x6d6f_6465_6c00_0000),
            devices: Default::default(),
            network: Default::default(),
            said: Vec::new(),
            kept: HashMap::new(),
            released: HashMap::new(),
            position: [0; 2],
            reached: [0; 2],
            opened: Default::default(),
            expired: [false; 2],
            tainted: HashSet::new(),
            copied: [false; 2],
            restored: false,
            old_secrets: Vec::new(),
            counts: Counts::new(),
        };
        for device in &world.devices {
            device.disk.borrow_mut().compares = schedule.compares;
        }
        world.count(if schedule.compares { "storage that compares" } else { "storage that does not compare" });
        world
    }

    fn play(&mut self, schedule: &Schedule) -> Outcome {
        self.pair()?;
        for event in &schedule.events {
            self.event(*event)?;
        }
        self.settle()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn device(&mut self, side: Side) -> &mut Device {
        &mut self.devices[side as usize]
    }

    fn disk(&self, side: Side) -> std::cell::RefMut<'_, Disk> {
        self.devices[side as usize].disk.borrow_mut()
    }

    fn event(&mut self, event: Event) -> Outcome {
        match event {
            Event::Send { from, kept, count } => {
                for _ in 0..count {
                    self.say(from, kept)?;
                }
            }
            Event::Deliver { to, nth } => self.deliver(to, nth)?,
            Event::DeliverAll => {
                for _ in 0..20 {
                    self.deliver(Side::Machine, 0)?;
                    self.deliver(Side::Phone, 0)?;
                }
            }
            Event::Drop { to, nth } => {
                if self.take(to, nth).is_some() {
                    self.count("drop");
                }
            }
            Event::Duplicate { to, nth } => self.duplicate(to, nth),
            Event::Shuffle { to } => self.shuffle(to),
            Event::Forge { to, nth, at } => self.forge(to, nth, usize::from(at)),
            Event::Resend { from } => self.resend(from),
            Event::CrashNow { side } => {
                self.count("crash between two steps");
                self.boot(side)?;
            }
            Event::Fault { side, fault } => self.disk(side).fault = Some(fault),
            Event::Snapshot { side } => {
                let mut disk = self.disk(side);
                let contents = disk.contents.clone();
                disk.snapshots.push(contents);
            }
            Event::RestoreRecord { side, nth } => self.restore(side, nth, true)?,
            Event::RestoreAll { side, nth } => self.restore(side, nth, false)?,
            Event::SecondWriter { side } => self.second_writer(side)?,
            Event::Reset => self.start()?,
            Event::AskForReset => {
                if let Some(session) = self.device(Side::Machine).session() {
                    self.count("reset asked for");
                    self.put(Side::Phone, Packet::UnknownSession(session));
                }
            }
            Event::Thief { nth } => self.thief(nth)?,
            Event::Revoke => self.revoke(),
            Event::Hour { side } => {
                let device = self.device(side);
                device.now += Ratchet::MISSING_FOR + 1;
                let now = device.now;
                if let Some(ratchet) = &mut device.ratchet {
                    ratchet.expire(now);
                }
                self.expired[side as usize] = true;
            }
        }
        Ok(())
    }
}
