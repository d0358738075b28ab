//! PROTOCOL 6.1 and 6.2: the records of a conversation between two durable ratchets.

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use happy_crypto::{
    DecodeError, DeviceId, Ratchet,
    durable::{CommitError, DurableRatchet, Kept, LoadError, Predecessor, Storage},
};

use super::{
    handshake::{pair, turn},
    world::{World, cut},
};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{self, Key, Sealed},
};

/// Who does something: I or R.
type Side = usize;
const I: Side = 0;
const R: Side = 1;

enum Step {
    /// Somebody sends this text through the outbox; messages count from 0.
    Send(Side, &'static [u8]),
    /// Somebody sends it with a number of a lease.
    Lease(Side, &'static [u8]),
    /// The message with this number arrives at the other side.
    Arrive(usize),
    /// The sender of this message learns that it has arrived.
    Acknowledge(usize),
    /// Who got this message has dealt with it.
    Handle(usize),
    /// What is left is stored.
    Flush(Side),
    /// The time is told.
    Time(Side, u64),
    /// The process ends, and another goes on from the record.
    Crash(Side),
}

use Step::{Acknowledge, Arrive, Crash, Flush, Handle, Lease, Send, Time};

const STEPS: &[Step] = &[
    Send(I, b"kept until it is acknowledged, and late"),
    Send(I, b"overtakes it"),
    Time(R, 100),
    // The ratchet of R is due, and a message is missing in its receiving chain.
    Arrive(1),
    Acknowledge(1),
    // A turn and a lease in one record, and a message of that lease without one.
    Lease(R, b"the first of a lease"),
    Lease(R, b"the second needs no record"),
    // In a record within a lease the chain stands at its end too.
    Send(R, b"kept, within the lease"),
    Arrive(4),
    Handle(4),
    Send(I, b"the turn in which message 0 stays missing"),
    Time(R, 160),
    // An older chain with a missing key.
    Arrive(5),
    Handle(1),
    Arrive(0),
    Flush(R),
    Lease(I, b"of a chain that has begun"),
    Acknowledge(0),
    // The rest of the lease is skipped, and what was not stored as acknowledged is there again.
    Crash(I),
    Send(I, b"behind the lease"),
];

pub fn vectors() -> Json {
    let world = World::new();
    let shaken = pair(&world);
    let (ratchets, _) = shaken.page.ratchets();
    let mut rng = Randomness::new("happy vectors: durable records");
    let key = rng.take();
    rng.drawn();
    let ours = [shaken.at_phone.ratchet, shaken.at_machine.ratchet];
    let peers = [world.machine.device_id(), world.phone.device_id()];
    let mut talk = Talk { key, rng, sides: Vec::new(), messages: Vec::new(), steps: Vec::new() };
    for (ours, (page, peer)) in ours.into_iter().zip(ratchets.into_iter().zip(peers)) {
        talk.create(ours, page, peer);
    }
    for step in STEPS {
        talk.step(step);
    }
    let file = shaken.page.beginning("PROTOCOL 6.2").with("seal key", key).with("kind", KIND);
    file.with("device id of I", world.page.phone.id())
        .with("device id of R", world.page.machine.id())
        .with("refused", talk.refused())
        .with("steps", talk.steps)
}

/// What the records are sealed as.
const KIND: &str = "durable ratchet";

/// A place in memory: the generation and the record.
#[derive(Clone, Default)]
struct Place(Rc<RefCell<(u64, Vec<u8>)>>);

impl Storage for Place {
    type Error = Infallible;

    fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Infallible>> {
        let mut stored = self.0.borrow_mut();
        assert_eq!(stored.0, expected);
        *stored = (generation, record.to_vec());
        Ok(())
    }
}

/// One side twice: ours and the page's.
struct Both {
    peer: DeviceId,
    place: Place,
    ours: DurableRatchet<Place>,
    page: page::Durable,
}

struct Message {
    from: Side,
    plaintext: &'static [u8],
    bytes: Vec<u8>,
    /// Under which the sender and the receiver keep it.
    ids: [u64; 2],
}

struct Talk {
    key: [u8; 32],
    rng: Randomness,
    sides: Vec<Both>,
    messages: Vec<Message>,
    steps: Vec<Json>,
}

impl Talk {
    fn create(&mut self, ours: Ratchet, page: page::Ratchet, peer: DeviceId) {
        let place = Place::default();
        let before = Predecessor::default();
        let ours = DurableRatchet::create(&mut self.rng, place.clone(), &self.key, peer, ours, before);
        let page = page::Durable::new(*peer.as_bytes(), page);
        let side = self.sides.len();
        self.sides.push(Both { peer, place, ours: ours.expect("nobody was there"), page });
        let (randomness, mut at) = (self.rng.drawn(), 0);
        let record = self.record(side, &randomness, &mut at);
        self.says(side, "creates", &randomness, at, object! { "record": record });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Send(side, text) => self.send(side, text),
            Lease(side, text) => self.send_leased(side, text),
            Arrive(number) => self.arrive(number),
            Acknowledge(number) => {
                let Message { from, ids: [id, _], .. } = self.messages[number];
                let Both { ours, page, .. } = &mut self.sides[from];
                assert!(ours.acknowledge(id));
                page.outbox.retain(|kept| kept.0 != id);
                self.says(from, "has acknowledged", &[], 0, object! { "id": id });
            }
            Handle(number) => {
                let Message { from, ids: [_, id], .. } = self.messages[number];
                let Both { ours, page, .. } = &mut self.sides[1 - from];
                assert!(ours.handled(id));
                page.inbox.retain(|kept| kept.0 != id);
                self.says(1 - from, "has handled", &[], 0, object! { "id": id });
            }
            Flush(side) => {
                self.sides[side].ours.flush(&mut self.rng).expect("it is stored");
                self.sides[side].page.generation += 1;
                let (randomness, mut at) = (self.rng.drawn(), 0);
                let record = self.record(side, &randomness, &mut at);
                self.says(side, "stores", &randomness, at, object! { "record": record });
            }
            Time(side, now) => {
                let Both { ours, page, .. } = &mut self.sides[side];
                ours.expire(now);
                page.ratchet.now = now;
                self.says(side, "is told the time", &[], 0, object! { "seconds": now });
            }
            Crash(side) => self.crash(side),
        }
    }

    fn send(&mut self, side: Side, text: &'static [u8]) {
        let Both { ours, page, .. } = &mut self.sides[side];
        let kept = ours.send(&mut self.rng, text).expect("it may send");
        let (bytes, id) = (kept.bytes().to_vec(), kept.id());
        let (randomness, mut at) = (self.rng.drawn(), 0);
        let new_key = page.ratchet.is_due().then(|| Key::new(take(&randomness, &mut at)));
        let sent = page.send(new_key, &take(&randomness, &mut at), text);
        assert_eq!((&bytes, id), (&sent.bytes, page.generation));
        let record = self.record(side, &randomness, &mut at);
        let said = object! {
            "message": self.messages.len() as u64,
            "plaintext": text,
            "id": id,
            "new ratchet scalar": new_key.map(|key| key.secret()),
            "root step": sent.turn.as_ref().map(turn),
            "N": sent.number,
            "bytes": &bytes,
            "record": record,
        };
        self.messages.push(Message { from: side, plaintext: text, bytes, ids: [id, 0] });
        self.says(side, "sends through the outbox", &randomness, at, said);
    }

    fn send_leased(&mut self, side: Side, text: &'static [u8]) {
        let Both { ours, page, .. } = &mut self.sides[side];
        let mut bytes = Vec::new();
        ours.send_leased(&mut self.rng, text, &mut bytes).expect("it may send");
        let (randomness, mut at) = (self.rng.drawn(), 0);
        let (mut new_key, mut began, mut record) = (None, None, None);
        if page.needs_lease() {
            new_key = page.ratchet.is_due().then(|| Key::new(take(&randomness, &mut at)));
            began = page.lease(new_key);
            record = Some(self.record(side, &randomness, &mut at));
        }
        let sent = self.sides[side].page.send_leased(&take(&randomness, &mut at), text);
        assert_eq!(bytes, sent.bytes);
        let said = object! {
            "message": self.messages.len() as u64,
            "plaintext": text,
            "new ratchet scalar": new_key.map(|key| key.secret()),
            "root step": began.as_ref().map(turn),
            "N": sent.number,
            "record": record,
            "bytes": &bytes,
        };
        self.messages.push(Message { from: side, plaintext: text, bytes, ids: [0; 2] });
        self.says(side, "sends with a lease", &randomness, at, said);
    }

    fn arrive(&mut self, number: usize) {
        let message = &mut self.messages[number];
        let side = 1 - message.from;
        let Both { ours, page, .. } = &mut self.sides[side];
        let kept = ours.receive(&mut self.rng, &message.bytes).expect("it is genuine");
        assert_eq!(kept.bytes(), message.plaintext);
        message.ids[1] = kept.id();
        let opened = page.receive(&message.bytes).expect("it is genuine");
        assert_eq!((&opened.plaintext[..], page.generation), (message.plaintext, kept.id()));
        let said = object! { "message": number as u64, "id": kept.id() };
        let (randomness, mut at) = (self.rng.drawn(), 0);
        let record = self.record(side, &randomness, &mut at);
        self.says(side, "receives", &randomness, at, said.with("record", record));
    }

    /// Both go on from nothing but the record: ours from the page's and the page from ours, which are the same.
    fn crash(&mut self, side: Side) {
        let Both { peer, place, ours, page } = &mut self.sides[side];
        let (generation, record) = place.0.borrow().clone();
        let opened = happy_crypto::seal::open(&self.key, KIND, &record).expect("it is sealed with this key");
        *ours = DurableRatchet::load(place.clone(), &self.key, *peer, &record, generation).expect("it is a record");
        *page = page::Durable::read(&opened);
        // What was acknowledged or handled since comes back; the two agree on what that is.
        let ids = |kept: &[(u64, Vec<u8>)]| kept.iter().map(|(id, _)| Json::from(*id)).collect::<Vec<_>>();
        let (pending, unhandled) = (ids(&page.outbox), ids(&page.inbox));
        let said = object! { "generation": generation, "pending": pending, "unhandled": unhandled };
        self.compare(side);
        self.says(side, "crashes and loads its record", &[], 0, said);
    }

    /// The record that was just stored, as the page has it.
    fn record(&self, side: Side, randomness: &[u8], at: &mut usize) -> Json {
        let Both { place, page, .. } = &self.sides[side];
        let (nonce, record) = (take(randomness, at), page.record());
        let sealed = Sealed::new(&self.key, &nonce, KIND, &record);
        assert_eq!(*place.0.borrow(), (page.generation, sealed.bytes.clone()));
        assert_eq!(page::Durable::read(&record).record(), record);
        self.compare(side);
        object! {
            "generation": page.generation,
            "state": page.state(),
            "record": record,
            "nonce": nonce,
            "sealed record": sealed.bytes,
        }
    }

    /// Records that I does not go on from.
    fn refused(&mut self) -> Vec<Json> {
        let Both { peer, place, page, .. } = &mut self.sides[I];
        let (sound, generation, outbox) = (page.record(), page.generation, page.outbox.clone());
        let other = DeviceId::from_bytes([7; 32]);
        let mut with = |outbox| {
            page.outbox = outbox;
            page.record()
        };
        let outbox_field = || LoadError::from(DecodeError::Field("outbox"));
        let records = [
            ("an id of the future", with(vec![(generation + 1, vec![])]), outbox_field()),
            ("an id twice", with(vec![(1, vec![]), (1, vec![])]), outbox_field()),
            ("ids that do not ascend", with(vec![(2, vec![]), (1, vec![])]), outbox_field()),
            ("it is cut", sound[..sound.len() - 1].to_vec(), DecodeError::Truncated.into()),
            ("a byte more", [&sound[..], &[0]].concat(), DecodeError::TrailingBytes.into()),
            ("another version", [&[2], &sound[1..]].concat(), DecodeError::UnsupportedVersion(2).into()),
            ("another peer", [&sound[..9], &[7; 32], &sound[9 + 32..]].concat(), LoadError::AnotherPeer(other)),
        ];
        page.outbox = outbox;
        let records = records.map(|(why, record, error)| {
            let sealed = Sealed::new(&self.key, &[0; 24], KIND, &record).bytes;
            let loaded = DurableRatchet::load(place.clone(), &self.key, *peer, &sealed, 0);
            assert_eq!(loaded.map(drop), Err(error), "{why}");
            object! { "why": why, "record": record }
        });
        let known = DurableRatchet::load(place.clone(), &self.key, *peer, &place.0.borrow().1, generation + 1);
        assert_eq!(known.err(), Some(LoadError::RolledBack { stored: generation, known: generation + 1 }));
        records.to_vec()
    }

    /// What is kept, here and there, and from the record.
    fn compare(&self, side: Side) {
        let Both { peer, place, ours, page } = &self.sides[side];
        let loaded = DurableRatchet::load(place.clone(), &self.key, *peer, &place.0.borrow().1, 0);
        for ours in [ours, &loaded.expect("what was stored can be loaded")] {
            assert_eq!(ours.generation(), page.generation);
            assert_eq!(ours.pending().map(entry).collect::<Vec<_>>(), page.outbox);
            assert_eq!(ours.unhandled().map(entry).collect::<Vec<_>>(), page.inbox);
        }
    }

    fn says(&mut self, side: Side, does: &'static str, randomness: &[u8], used: usize, said: Json) {
        assert_eq!(randomness.len(), used, "{does}");
        let begins = object! { "who": if side == I { "I" } else { "R" }, "does": does, "randomness": randomness };
        let Json::Object(fields) = said else { unreachable!("what is said has names") };
        self.steps.push(fields.into_iter().fold(begins, |all, (name, value)| all.with(name, value)));
    }
}

fn entry(kept: &Kept) -> (u64, Vec<u8>) {
    (kept.id(), kept.bytes().to_vec())
}

/// The next part of what was drawn.
fn take<const N: usize>(randomness: &[u8], at: &mut usize) -> [u8; N] {
    *at += N;
    cut(randomness, *at - N)
}
