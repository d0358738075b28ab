use std::{
    cell::RefCell,
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use rand_chacha::ChaCha20Rng;

use super::*;
use crate::{
    agreement::{self, AgreementKey},
    secret::{HeaderKey, RootKey, Secret32},
    testing::rng,
};

const KEY: [u8; 32] = [5; 32];
const PEER: DeviceId = DeviceId::from_bytes([6; 32]);
/// Where the state holds the number of the next message, when there is a sending chain (PROTOCOL 6.1).
const NEXT_NUMBER_AT: usize = 1 + 16 + 4 * 32 + 4 + 8 + 1 + 2 * 32;

#[derive(Default)]
struct Stored {
    record: Vec<u8>,
    generation: u64,
    commits: usize,
    fault: Option<CommitError<&'static str>>,
    panics: bool,
}

/// A place that outlives what uses it.
#[derive(Clone, Default)]
struct Place(Rc<RefCell<Stored>>);

impl Place {
    fn fail_once(&self, fault: CommitError<&'static str>) {
        self.0.borrow_mut().fault = Some(fault);
    }

    fn commits(&self) -> usize {
        self.0.borrow().commits
    }

    fn record(&self) -> Vec<u8> {
        self.0.borrow().record.clone()
    }

    fn load(&self) -> DurableRatchet<Self> {
        DurableRatchet::load(self.clone(), &KEY, PEER, &self.record(), 0).unwrap()
    }
}

impl Storage for Place {
    type Error = &'static str;

    fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>> {
        let mut stored = self.0.borrow_mut();
        assert!(!stored.panics, "a storage that panics");
        if let Some(fault) = stored.fault.take() {
            return Err(fault);
        }
        if stored.generation != expected {
            return Err(CommitError::Conflict);
        }
        (stored.record, stored.generation) = (record.to_vec(), generation);
        stored.commits += 1;
        Ok(())
    }
}

/// A durable side, the place it is kept in, and the other side in memory.
struct Two {
    rng: ChaCha20Rng,
    place: Place,
    a: DurableRatchet<Place>,
    b: Ratchet,
}

fn ratchets(rng: &mut ChaCha20Rng, session_id: [u8; 16]) -> (Ratchet, Ratchet) {
    let bob = agreement::generate(rng);
    let mut key = || {
        let mut bytes = [0; 32];
        rand_core::Rng::fill_bytes(rng, &mut bytes);
        bytes
    };
    let (root, from_a, from_b) = (RootKey::take(&mut key()), HeaderKey::take(&mut key()), HeaderKey::take(&mut key()));
    let a = Ratchet::initiator(rng, session_id, &root, &AgreementKey::of(&bob), from_a.clone(), from_b.clone());
    (a.unwrap(), Ratchet::responder(session_id, root, bob, from_a, from_b))
}

impl Two {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let (a, b) = ratchets(&mut rng, [7; 16]);
        let place = Place::default();
        let a = DurableRatchet::create(&mut rng, place.clone(), &KEY, PEER, a, Predecessor::default()).unwrap();
        Self { rng, place, a, b }
    }

    fn crash(&mut self) {
        self.a = self.place.load();
    }

    fn send(&mut self, text: &[u8]) -> Result<Vec<u8>, SendError<&'static str>> {
        self.a.send(&mut self.rng, text).map(|kept| kept.bytes().to_vec())
    }

    fn send_leased(&mut self, text: &[u8]) -> Result<Vec<u8>, SendError<&'static str>> {
        let mut message = Vec::new();
        self.a.send_leased(&mut self.rng, text, &mut message).map(|()| message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<(u64, Vec<u8>), ReceiveError<&'static str>> {
        self.a.receive(&mut self.rng, message).map(|kept| (kept.id(), kept.bytes().to_vec()))
    }

    fn b_says(&mut self, text: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        self.b.encrypt(&mut self.rng, text, &mut message).unwrap();
        message
    }

    fn b_hears(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut text = Vec::new();
        self.b.decrypt(message, &mut text).map(|()| text)
    }

    /// Lets B answer, so that the ratchet of A turns.
    fn turn(&mut self) {
        let there = self.send_leased(b"there").unwrap();
        self.b_hears(&there).unwrap();
        let back = self.b_says(b"back");
        let (id, _) = self.receive(&back).unwrap();
        self.a.handled(id);
    }
}

#[test]
fn a_crash_sends_the_same_bytes_again() {
    let mut two = Two::new(1);
    let message = two.send(b"kept").unwrap();
    two.crash();
    let pending: Vec<_> = two.a.pending().map(|kept| (kept.id(), kept.bytes().to_vec())).collect();
    assert_eq!(pending, [(2, message.clone())]);
    assert_eq!(two.b_hears(&message).unwrap(), b"kept");
    assert!(two.a.acknowledge(2) && !two.a.acknowledge(2));
    let next = two.send(b"next").unwrap();
    assert_eq!(two.b_hears(&next).unwrap(), b"next");
    two.crash();
    assert_eq!(two.a.pending().map(Kept::id).collect::<Vec<_>>(), [3], "the acknowledgement was stored with it");
}

#[test]
fn a_lease_costs_one_commit_and_a_crash_skips_the_rest_of_it() {
    let mut two = Two::new(2);
    let before = two.place.commits();
    for number in 0..LEASE {
        let message = two.send_leased(&[number as u8]).unwrap();
        assert_eq!(two.b_hears(&message).unwrap(), [number as u8]);
    }
    assert_eq!(two.place.commits(), before + 1);
    let first_of_next = two.send_leased(b"next").unwrap();
    assert_eq!(two.place.commits(), before + 2);
    two.crash();
    let after = two.send_leased(b"after").unwrap();
    assert_eq!(two.place.commits(), before + 3);
    assert_eq!(two.b_hears(&after).unwrap(), b"after");
    assert_eq!(two.b_hears(&first_of_next).unwrap(), b"next", "what was skipped can still come");
}

/// Only a turn of the ratchet ends the chain that the lease is of.
#[test]
fn a_lease_outlives_a_message_that_does_not_turn_the_ratchet() {
    let mut two = Two::new(22);
    let there = two.send_leased(b"there").unwrap();
    two.b_hears(&there).unwrap();
    let (turns, follows) = (two.b_says(b"turns"), two.b_says(b"follows"));
    two.receive(&turns).unwrap();
    let first = two.send_leased(b"first of the new chain").unwrap();
    two.receive(&follows).unwrap();
    let before = two.place.commits();
    let second = two.send_leased(b"second").unwrap();
    assert_eq!(two.place.commits(), before);
    assert!(two.b_hears(&first).is_ok() && two.b_hears(&second).is_ok());
}

#[test]
fn both_ways_of_sending_share_the_numbers() {
    let mut two = Two::new(3);
    let mut messages = vec![two.send_leased(b"0").unwrap(), two.send(b"1").unwrap(), two.send_leased(b"2").unwrap()];
    two.crash();
    messages.extend([two.send(b"3").unwrap(), two.send_leased(b"4").unwrap()]);
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(two.b_hears(message).unwrap(), number.to_string().as_bytes());
    }
}

#[test]
fn a_new_chain_is_stored_before_its_first_message() {
    for kept in [false, true] {
        let mut two = Two::new(4);
        two.turn();
        let before = two.place.commits();
        let first = if kept { two.send(b"first") } else { two.send_leased(b"first") }.unwrap();
        assert_eq!(two.place.commits(), before + 1);
        two.b_hears(&first).unwrap();
        two.crash();
        let second = two.send_leased(b"second").unwrap();
        assert_eq!(two.b_hears(&second).unwrap(), b"second", "of the same chain");
    }
}

/// What a copy that went back in time seals has other keys and nonces than what was sealed before, although its message keys are
/// the same: the salt sees to that.
#[test]
fn a_restored_copy_never_uses_a_key_and_nonce_again() {
    let mut two = Two::new(5);
    two.turn();
    two.send_leased(b"begins the chain").unwrap();
    let old = two.place.record();
    let text = |copy: u8, number: u8| [copy, number];
    let mut plaintexts = HashSet::new();
    let ((), seals) = crate::hazmat::record(|| {
        for copy in 0..4 {
            two.place.0.borrow_mut().generation = 4; // nothing else knows
            two.a = DurableRatchet::load(two.place.clone(), &KEY, PEER, &old, 0).unwrap();
            two.place.0.borrow_mut().generation = two.a.generation();
            for number in 0..10 {
                two.send(&text(copy, number)).unwrap();
                two.send_leased(&text(copy, number + 100)).unwrap();
            }
        }
    });
    let bodies: Vec<_> = seals.iter().filter(|seal| seal.label == "happy/1 body").collect();
    assert_eq!(bodies.len(), 80);
    assert!(bodies.iter().all(|seal| plaintexts.insert(seal.plaintext)));
    let message_keys: HashSet<_> = bodies.iter().map(|seal| seal.input_key).collect();
    assert_eq!(message_keys.len(), 20, "the copies do use the same message keys");
    let pairs: HashSet<_> = seals.iter().map(|seal| seal.key_and_nonce).collect();
    assert_eq!(pairs.len(), seals.len(), "but never with the same nonce, nor anything else");
}

#[test]
fn what_was_not_stored_was_not_received_and_comes_again() {
    let mut two = Two::new(6);
    two.turn();
    let first = two.send_leased(b"first").unwrap();
    two.b_hears(&first).unwrap();
    let message = two.b_says(b"text"); // turns the ratchet too
    let before = two.a.ratchet.to_bytes();
    two.place.fail_once(CommitError::Refused("full"));
    assert_eq!(two.receive(&message), Err(CommitError::Refused("full").into()));
    assert_eq!(two.a.ratchet.to_bytes(), before);
    assert_eq!(two.a.reserved, LEASE - 1, "the lease is good still");
    assert_eq!(two.a.unhandled().count(), 0);
    assert_eq!(two.receive(&message).unwrap().1, b"text");
}

#[test]
fn what_was_not_stored_was_not_sent() {
    let mut two = Two::new(7);
    two.turn();
    let before = two.a.ratchet.to_bytes();
    two.place.fail_once(CommitError::Refused("full"));
    assert_eq!(two.send(b"kept"), Err(CommitError::Refused("full").into()));
    two.place.fail_once(CommitError::Refused("full"));
    assert_eq!(two.send_leased(b"leased"), Err(CommitError::Refused("full").into()));
    assert_eq!((two.a.ratchet.to_bytes(), two.a.reserved, two.a.pending().count()), (before, 0, 0));
    let message = two.send(b"kept").unwrap();
    assert_eq!(two.b_hears(&message).unwrap(), b"kept");
}

#[test]
fn a_plaintext_comes_again_under_its_id_until_it_is_handled() {
    let mut two = Two::new(8);
    let there = two.send_leased(b"there").unwrap();
    two.b_hears(&there).unwrap();
    let message = two.b_says(b"text");
    let (id, text) = two.receive(&message).unwrap();
    assert_eq!((id, &text[..]), (two.a.generation(), &b"text"[..]));
    two.crash();
    assert_eq!(two.receive(&message), Err(OpenError::Repeated.into()));
    let unhandled: Vec<_> = two.a.unhandled().map(|kept| (kept.id(), kept.bytes().to_vec())).collect();
    assert_eq!(unhandled, [(id, b"text".to_vec())]);
    assert!(two.a.handled(id));
    two.a.flush(&mut two.rng).unwrap();
    two.crash();
    assert_eq!(two.a.unhandled().count(), 0);
    let later = two.b_says(b"later");
    assert!(two.receive(&later).unwrap().0 > id);
}

#[test]
fn a_second_writer_is_found_and_shares_no_number() {
    let mut two = Two::new(9);
    let first = two.send_leased(b"first").unwrap();
    let mut second = two.place.load();
    let mut by_second = Vec::new();
    second.send_leased(&mut two.rng, b"second", &mut by_second).unwrap();
    // The rest of the lease is ours alone.
    let still_ours = two.send_leased(b"ours").unwrap();
    assert_eq!(two.send(b"no"), Err(CommitError::Conflict.into()));
    assert_eq!(two.send_leased(b"no"), Err(CommitError::Stale.into()));
    assert_eq!(two.a.flush(&mut two.rng), Err(CommitError::Stale));
    for (message, text) in [(first, &b"first"[..]), (by_second, b"second"), (still_ours, b"ours")] {
        assert_eq!(two.b_hears(&message).unwrap(), text);
    }
    two.crash();
    assert!(two.send(b"yes").is_ok());
}

#[test]
fn after_an_unknown_outcome_only_a_reload_goes_on() {
    let mut two = Two::new(10);
    two.place.fail_once(CommitError::Unsettled("sync failed"));
    assert_eq!(two.send(b"text"), Err(CommitError::Unsettled("sync failed").into()));
    assert_eq!(two.a.pending().count(), 0);
    assert_eq!(two.send(b"text"), Err(CommitError::Stale.into()));
    let message = two.b_says_after_hello();
    assert_eq!(two.receive(&message), Err(CommitError::Stale.into()));
    two.crash();
    assert!(two.receive(&message).is_ok() && two.send(b"text").is_ok());
}

#[test]
fn a_storage_that_panics_leaves_a_value_that_refuses() {
    let mut two = Two::new(11);
    two.place.0.borrow_mut().panics = true;
    assert!(catch_unwind(AssertUnwindSafe(|| two.send(b"text").is_ok())).is_err());
    two.place.0.borrow_mut().panics = false;
    assert_eq!(two.send(b"text"), Err(CommitError::Stale.into()));
}

impl Two {
    /// A message of B, whose first message from A takes another way.
    fn b_says_after_hello(&mut self) -> Vec<u8> {
        let mut hello = Vec::new();
        let mut copy = self.place.load();
        copy.ratchet.encrypt(&mut self.rng, b"hello", &mut hello).unwrap();
        self.b_hears(&hello).unwrap();
        self.b_says(b"text")
    }
}

#[test]
fn old_foreign_and_damaged_records_are_refused() {
    let mut two = Two::new(12);
    two.send(b"one").unwrap();
    let (place, record) = (two.place.clone(), two.place.record());
    let load = |key: &[u8; 32], peer, record: &[u8], at_least| {
        DurableRatchet::load(place.clone(), key, peer, record, at_least).map(|loaded| loaded.generation())
    };
    assert_eq!(load(&KEY, PEER, &record, 2), Ok(2));
    assert_eq!(load(&KEY, PEER, &record, 3), Err(LoadError::RolledBack { stored: 2, known: 3 }));
    assert_eq!(load(&[9; 32], PEER, &record, 0), Err(UnsealError::CannotBeOpened.into()));
    let other = DeviceId::from_bytes([8; 32]);
    assert_eq!(load(&KEY, other, &record, 0), Err(LoadError::AnotherPeer(PEER)));
    let mut newer = record.clone();
    newer[0] = 2;
    assert_eq!(load(&KEY, PEER, &newer, 0), Err(UnsealError::UnsupportedVersion(2).into()));
    for length in 0..record.len() {
        assert!(load(&KEY, PEER, &record[..length], 0).is_err());
    }
    assert_eq!((place.record(), place.commits()), (record, 2), "what cannot be loaded stays");
}

/// The layout of PROTOCOL 6.2, read by hand.
#[test]
fn the_record_is_that_of_the_page_and_nothing_else_is_read() {
    let mut two = Two::new(13);
    let message = two.send(b"kept").unwrap();
    let message_from_b = {
        two.b_hears(&message).unwrap();
        two.b_says(b"text")
    };
    two.receive(&message_from_b).unwrap();
    let opened = seal::open(&KEY, "durable ratchet", &two.place.record()).unwrap();
    let state = two.a.ratchet.to_bytes();
    let expected = [
        &[1][..],
        &3u64.to_be_bytes(),
        PEER.as_bytes(),
        &(state.len() as u32).to_be_bytes(),
        &state,
        &[0, 1],
        &2u64.to_be_bytes(),
        &(message.len() as u32).to_be_bytes(),
        &message,
        &[0, 1],
        &3u64.to_be_bytes(),
        &4u32.to_be_bytes(),
        b"text",
    ]
    .concat();
    assert_eq!(opened[..], expected);

    let load = |bytes: &[u8]| {
        let sealed = seal::seal(&mut rng(1), &KEY, record::KIND, bytes);
        DurableRatchet::load(two.place.clone(), &KEY, PEER, &sealed, 0).map(drop)
    };
    assert_eq!(load(&expected), Ok(()));
    // Miri takes seconds for what the processor does in no time.
    for length in (0..expected.len()).step_by(if cfg!(miri) { 97 } else { 1 }) {
        assert_eq!(load(&expected[..length]).err(), Some(DecodeError::Truncated.into()), "{length} bytes");
    }
    let longer = [&expected[..], &[0]].concat();
    assert_eq!(load(&longer).err(), Some(DecodeError::TrailingBytes.into()));
    let mut newer = expected.clone();
    newer[0] = 2;
    assert_eq!(load(&newer).err(), Some(DecodeError::UnsupportedVersion(2).into()));
    // An id from the future, and more entries than there may be.
    let outbox_at = 1 + 8 + 32 + 4 + state.len();
    let mut future = expected.clone();
    future[outbox_at + 2 + 7] = 9;
    assert_eq!(load(&future).err(), Some(DecodeError::Field("outbox").into()));
    let crowd = (0..=MAX_KEPT as u64).flat_map(|id| [&id.to_be_bytes()[..], &[0; 4]].concat()).collect::<Vec<_>>();
    let mut crowded = expected[..outbox_at].to_vec();
    crowded[1..9].copy_from_slice(&1_000u64.to_be_bytes());
    crowded.extend_from_slice(&(MAX_KEPT as u16 + 1).to_be_bytes());
    crowded.extend_from_slice(&crowd);
    crowded.extend_from_slice(&[0, 0]);
    assert_eq!(load(&crowded).err(), Some(DecodeError::Field("outbox").into()));
}

/// The application skips ids that it has passed, so none may come twice or behind a larger one.
#[test]
fn what_is_kept_comes_back_in_order_and_an_id_only_once() {
    let mut two = Two::new(23);
    let messages = [two.send(b"one").unwrap(), two.send(b"the other").unwrap()];
    two.crash();
    let pending: Vec<_> = two.a.pending().map(|kept| (kept.id(), kept.bytes().to_vec())).collect();
    assert_eq!(pending, [(2, messages[0].clone()), (3, messages[1].clone())]);

    let opened = seal::open(&KEY, record::KIND, &two.place.record()).unwrap();
    let first_at = 1 + 8 + 32 + 4 + two.a.ratchet.to_bytes().len() + 2;
    let second_at = first_at + 8 + 4 + messages[0].len();
    for (first, second, comes_back) in [(2, 3, true), (1, 3, true), (3, 3, false), (3, 2, false)] {
        let mut record = opened.to_vec();
        (record[first_at + 7], record[second_at + 7]) = (first, second);
        let sealed = seal::seal(&mut rng(1), &KEY, record::KIND, &record);
        let loaded = DurableRatchet::load(two.place.clone(), &KEY, PEER, &sealed, 0).map(drop);
        assert_eq!(loaded.is_ok(), comes_back, "{first}, {second}");
    }
}

#[test]
fn a_full_outbox_is_an_error_that_changes_nothing() {
    let mut two = Two::new(14);
    for _ in 0..MAX_KEPT {
        two.send(b"x").unwrap();
    }
    let before = two.place.record();
    assert_eq!(two.send(b"x"), Err(SendError::OutboxFull));
    assert_eq!(two.place.record(), before);
    assert!(two.send_leased(b"x").is_ok(), "a lease needs no room");
    two.a.acknowledge(2);
    assert!(two.send(b"x").is_ok());

    let mut two = Two::new(14);
    assert_eq!(two.send(&vec![0; MAX_KEPT_BYTES]), Err(EncryptError::TooLong.into()));
    two.send(&vec![0; MAX_KEPT_BYTES - Ratchet::OVERHEAD]).unwrap();
    assert_eq!(two.send(b""), Err(SendError::OutboxFull));
    two.crash();
    assert_eq!(two.a.pending().count(), 1);
}

#[test]
fn a_full_inbox_leaves_the_message_for_later() {
    let mut two = Two::new(15);
    let there = two.send_leased(b"there").unwrap();
    two.b_hears(&there).unwrap();
    let messages: Vec<_> = (0..=MAX_KEPT).map(|i| two.b_says(&[i as u8])).collect();
    let ids: Vec<_> = messages[..MAX_KEPT].iter().map(|message| two.receive(message).unwrap().0).collect();
    assert_eq!(two.receive(&messages[MAX_KEPT]), Err(ReceiveError::InboxFull));
    assert!(two.a.handled(ids[10]));
    assert_eq!(two.receive(&messages[MAX_KEPT]).unwrap().1, [MAX_KEPT as u8]);
    let huge = two.b_says(&vec![0; MAX_KEPT_BYTES + 1]);
    assert_eq!(two.receive(&huge), Err(ReceiveError::TooLong));
    let largest = two.b_says(&vec![0; MAX_KEPT_BYTES]);
    assert_eq!(two.receive(&largest), Err(ReceiveError::InboxFull), "there will be room for this one");
    for kept in two.a.unhandled().map(Kept::id).collect::<Vec<_>>() {
        assert!(two.a.handled(kept));
    }
    assert_eq!(two.receive(&largest).unwrap().1.len(), MAX_KEPT_BYTES);
}

#[test]
fn a_new_handshake_keeps_what_was_not_handled_and_names_what_was_not_sent() {
    let mut two = Two::new(16);
    let sent = two.send(b"kept").unwrap();
    two.b_hears(&sent).unwrap();
    let message = two.b_says(b"text");
    let (id, _) = two.receive(&message).unwrap();
    let (refused, _) = ratchets(&mut two.rng, [8; 16]);
    two.place.fail_once(CommitError::Refused("full"));
    assert_eq!(two.a.renew(&mut two.rng, refused), Err(CommitError::Refused("full")));
    assert_eq!((two.a.session_id(), two.a.pending().count()), ([7; 16], 1), "the old one goes on");

    let (a, b) = ratchets(&mut two.rng, [9; 16]);
    assert_eq!(two.a.renew(&mut two.rng, a), Ok(vec![2]));
    two.b = b;
    two.crash();
    assert_eq!(two.a.session_id(), [9; 16]);
    assert_eq!((two.a.pending().count(), two.a.unhandled().map(Kept::id).collect::<Vec<_>>()), (0, vec![id]));
    let message = two.send(b"anew").unwrap();
    assert_eq!(two.b_hears(&message).unwrap(), b"anew");
}

#[test]
fn generations_go_on_after_an_old_copy_was_refused() {
    let mut two = Two::new(17);
    let (a, _) = ratchets(&mut two.rng, [9; 16]);
    let before = Predecessor { stored: 1, known: 40 };
    let created = DurableRatchet::create(&mut two.rng, two.place.clone(), &KEY, PEER, a, before).unwrap();
    assert_eq!((created.generation(), two.place.load().generation()), (41, 41));
    let (a, _) = ratchets(&mut two.rng, [9; 16]);
    let created = DurableRatchet::create(&mut two.rng, two.place.clone(), &KEY, PEER, a, Predecessor::default());
    assert_eq!(created.err(), Some(CommitError::Conflict), "somebody is there");
}

#[test]
fn a_place_that_is_only_lent_stores_as_well() {
    let (mut rng, mut place) = (rng(24), Place::default());
    let (a, _) = ratchets(&mut rng, [7; 16]);
    let lent = DurableRatchet::create(&mut rng, &mut place, &KEY, PEER, a, Predecessor::default()).map(drop);
    assert_eq!((lent, place.load().generation()), (Ok(()), 1));
}

#[test]
fn a_lease_ends_with_the_numbers() {
    let mut two = Two::new(18);
    let mut state = two.a.ratchet.to_bytes();
    state[NEXT_NUMBER_AT..NEXT_NUMBER_AT + 4].copy_from_slice(&(u32::MAX - 10).to_be_bytes());
    two.a.ratchet = Ratchet::from_bytes(&state).unwrap();
    for _ in 0..10 {
        two.send_leased(b"x").unwrap();
    }
    assert_eq!(two.send_leased(b"x"), Err(EncryptError::Exhausted.into()));
    assert_eq!(two.send(b"x"), Err(EncryptError::Exhausted.into()));
    two.crash();
    assert!(!two.a.can_send());
}

#[test]
fn a_responder_waits() {
    let mut two = Two::new(19);
    let (mut a, b) = ratchets(&mut two.rng, [7; 16]);
    let mut b = DurableRatchet::create(&mut two.rng, Place::default(), &KEY, PEER, b, Predecessor::default()).unwrap();
    let generation = b.generation();
    assert_eq!(b.send(&mut two.rng, b"x").err(), Some(EncryptError::NotYet.into()));
    assert_eq!(b.send_leased(&mut two.rng, b"x", &mut Vec::new()), Err(EncryptError::NotYet.into()));
    assert_eq!((b.generation(), b.can_send()), (generation, false));
    let mut first = Vec::new();
    a.encrypt(&mut two.rng, b"first", &mut first).unwrap();
    b.receive(&mut two.rng, &first).unwrap();
    assert!(b.can_send() && b.send(&mut two.rng, b"x").is_ok());
}

#[test]
fn the_key_of_a_message_that_never_came_is_forgotten_on_the_disk_too() {
    let mut two = Two::new(21);
    let there = two.send_leased(b"there").unwrap();
    two.b_hears(&there).unwrap();
    let (late, next) = (two.b_says(b"late"), two.b_says(b"next"));
    two.receive(&next).unwrap();
    two.a.expire(1 + Ratchet::MISSING_FOR);
    two.a.flush(&mut two.rng).unwrap();
    two.crash();
    assert_eq!(two.receive(&late), Err(OpenError::Repeated.into()));
}

#[test]
fn secrets_do_not_print() {
    let mut two = Two::new(20);
    two.send(b"secret").unwrap();
    assert_eq!(
        format!("{:?}", two.a),
        format!("DurableRatchet {{ peer: {PEER:?}, generation: 2, settled: true, .. }}")
    );
    assert_eq!(format!("{:?}", two.a.pending().next().unwrap()), "Kept { id: 2, length: 95, .. }");
}
