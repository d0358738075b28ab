//! Attacks on a session, each named for what it must not achieve. `docs/THREAT-MODEL.md` has the list.

use rand_core::Rng;

use super::tests::{Two, copy, hear};
use super::*;
use crate::secret::MessageKey;

/// A12: whoever carries the messages may send anything, as often as it likes.
#[test]
fn a_hundred_thousand_forgeries_leave_the_state_as_it_was() {
    let mut two = Two::new(1);
    let late = two.a_says(b"late");
    two.round_trip();
    let first = two.a_says(b"the first of its chain");
    two.b_hears(&first).unwrap();
    let next = two.a_says(b"the next genuine message");
    let before = two.b.state();
    let mut rng = crate::testing::rng(2);
    let mut out = Vec::new();
    for round in 0..100_000_u32 {
        let mut forged = if round % 3 == 0 { late.clone() } else { next.clone() };
        match round % 2 {
            0 => {
                let bit = (rng.next_u32() as usize) % (forged.len() * 8);
                forged[bit / 8] ^= 1 << (bit % 8);
            }
            _ => rng.fill_bytes(&mut forged[1..]),
        }
        assert_eq!(two.b.decrypt(&forged, &mut out), Err(OpenError::CannotBeOpened));
    }
    assert!(out.is_empty() && two.b.state() == before);
    assert_eq!(two.b_hears(&next).unwrap(), b"the next genuine message");
    assert_eq!(two.b_hears(&late).unwrap(), b"late");
}

/// A13: a damaged copy must not use up the key of the genuine message, neither in the current chain nor in an older one.
#[test]
fn a_forged_copy_burns_no_key_of_a_missing_message() {
    let mut two = Two::new(3);
    let older = two.a_says(b"older");
    two.round_trip();
    let current = two.a_says(b"current");
    let after = two.a_says(b"after");
    two.b_hears(&after).unwrap();
    for genuine in [&older, &current] {
        let mut forged = genuine.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(two.b_hears(&forged), Err(OpenError::CannotBeOpened));
    }
    assert_eq!(two.b_hears(&older).unwrap(), b"older");
    assert_eq!(two.b_hears(&current).unwrap(), b"current");
}

/// A14: a peer that turns the ratchet with each message and skips as much as it may.
#[test]
fn ten_thousand_hostile_chains_need_no_more_memory_than_five() {
    let mut two = Two::new(4);
    let mut largest = 0;
    for chain in 0..10_000_u32 {
        for _ in 0..chain % 8 {
            two.a_says(b"never delivered");
        }
        two.round_trip();
        assert!(two.b.missing() <= MAX_MISSING && two.b.older.len() <= MAX_OLDER_CHAINS);
        largest = largest.max(two.b.state().len());
    }
    assert!(largest < 60 * 1_024, "{largest} bytes");
}

/// A16: a state that is stolen after a message was read does not hold its key, nor one from which it follows.
#[test]
fn a_state_does_not_hold_the_keys_of_messages_that_were_read() {
    let mut two = Two::new(5);
    two.round_trip();
    let mut read = Vec::new();
    for _ in 0..3 {
        let message = two.a_says(b"secret");
        let sealed = Sealed::parse(&two.b.session_id, &message).unwrap();
        let chain = two.b.receiving.as_ref();
        let header = chain.and_then(|chain| sealed.open_header(chain.header_key()));
        // The first of a chain turns the ratchet; its key is looked for below by what it would open.
        if let (Some(chain), Some(header)) = (chain, header) {
            let key = *chain.stage(header.number).unwrap().key().as_bytes();
            let before = *chain.key().as_bytes();
            two.b_hears(&message).unwrap();
            let state = two.b.state();
            for gone in [key, before] {
                assert!(!state.windows(32).any(|window| window == gone));
            }
        } else {
            two.b_hears(&message).unwrap();
        }
        read.push(message);
    }
    let mut thief = copy(&two.b);
    for message in &read {
        assert_eq!(hear(&mut thief, message), Err(OpenError::Repeated));
    }
}

/// A17: a thief who only listens after copying a state is out after one round trip.
#[test]
fn a_copied_state_opens_nothing_after_one_round_trip() {
    let mut two = Two::new(6);
    two.round_trip();
    let (mut thief_of_a, mut thief_of_b) = (copy(&two.a), copy(&two.b));
    let mut traffic = Vec::new();
    for _ in 0..2 {
        let there = two.a_says(b"there");
        two.b_hears(&there).unwrap();
        let back = two.b_says(b"back");
        two.a_hears(&back).unwrap();
        traffic.push((there, back));
    }
    // A thief turns its copy as the owner does; it only cannot know the owner's new keys.
    let mut rng = crate::testing::rng(12);
    for (there, back) in &traffic {
        if hear(&mut thief_of_b, there).is_ok() {
            super::tests::say(&mut thief_of_b, &mut rng, b"");
        }
        if hear(&mut thief_of_a, back).is_ok() {
            super::tests::say(&mut thief_of_a, &mut rng, b"");
        }
    }
    let (there, back) = (two.a_says(b"healed"), {
        let ping = two.a_says(b"ping");
        two.b_hears(&ping).unwrap();
        two.b_says(b"healed")
    });
    assert!(hear(&mut thief_of_b, &there).is_err());
    assert!(hear(&mut thief_of_a, &back).is_err());
}

/// A19: two copies of one state seal with other keys and nonces, also for the same number, and so tell nothing about the plaintexts.
#[test]
fn two_copies_of_a_state_share_no_key_stream() {
    let mut two = Two::new(7);
    two.round_trip();
    let mut clone = copy(&two.a);
    let mut rng = crate::testing::rng(8);
    let (one, other) = (two.a_says(&[0; 128]), super::tests::say(&mut clone, &mut rng, &[0; 128]));
    // With the same stream the bodies would be equal, and so would be the sealed headers.
    assert_ne!(one[1..17], other[1..17]);
    let equal = |range: std::ops::Range<usize>| {
        one[range.clone()].iter().zip(&other[range]).filter(|(one, other)| one == other).count()
    };
    assert!(equal(17..message::BODY) < 8 && equal(message::BODY..one.len()) < 12, "more than chance explains");
}

/// A28: whoever can open a message could have written it, so it proves to nobody else who did.
#[test]
fn the_receiver_could_have_written_every_message() {
    let mut two = Two::new(9);
    two.round_trip();
    let first = two.a_says(b"first");
    two.b_hears(&first).unwrap();
    let message = two.a_says(b"I never said that");
    let sealed = Sealed::parse(&two.b.session_id, &message).unwrap();
    let chain = two.b.receiving.as_ref().unwrap();
    let header = sealed.open_header(chain.header_key()).unwrap();
    let key = chain.stage(header.number).unwrap();
    let salt = message[1..17].try_into().unwrap();
    let mut written = Vec::new();
    message::seal(&two.b.session_id, &salt, chain.header_key(), &header, key.key(), b"I never said that", &mut written)
        .unwrap();
    assert_eq!(written, message);
}

/// A29: nothing in a message counts, and equal lengths look alike.
#[test]
fn a_message_shows_its_length_and_nothing_else() {
    let mut two = Two::new(10);
    let messages: Vec<_> = (0..400).map(|number: u32| two.a_says(&number.to_be_bytes())).collect();
    let length = messages[0].len();
    assert!(messages.iter().all(|message| message.len() == length));
    // Past the version every byte takes many values: no counter, no key that stays.
    for at in 1..length {
        let values: std::collections::BTreeSet<u8> = messages.iter().map(|message| message[at]).collect();
        assert!(values.len() > 150, "byte {at} takes {} values", values.len());
    }
}

/// A11: each field of the header by itself, in a message of the current chain, in the first of the next, and in one that came late.
#[test]
fn no_field_of_a_header_can_be_exchanged() {
    type Change = fn(&mut Header);
    let changes: [(&str, Change); 3] = [
        ("ratchet key", |header| header.ratchet_key[0] ^= 2),
        ("PN", |header| header.previous_length ^= 1),
        ("N", |header| header.number ^= 1),
    ];
    let mut two = Two::new(11);
    two.round_trip();
    let late = two.a_says(b"late");
    let current = two.a_says(b"current");
    two.b_hears(&current).unwrap();
    let another = two.a_says(b"another");
    let header_key = two.b.receiving.as_ref().unwrap().header_key().clone();
    let before = two.b.state();
    for genuine in [&late, &another] {
        for (name, change) in &changes {
            // Even whoever knows the header key, but not that of the message, can change nothing of its header.
            let sealed = Sealed::parse(&two.b.session_id, genuine).unwrap();
            let mut header = sealed.open_header(&header_key).unwrap();
            change(&mut header);
            let salt = genuine[1..17].try_into().unwrap();
            let mut forged = Vec::new();
            let any = MessageKey::take(&mut [0; 32]);
            message::seal(&two.b.session_id, &salt, &header_key, &header, &any, b"", &mut forged).unwrap();
            forged.truncate(message::BODY);
            forged.extend_from_slice(&genuine[message::BODY..]);
            assert!(two.b_hears(&forged).is_err(), "{name}");
            assert!(two.b.state() == before, "{name}");
        }
        let mut versioned = genuine.clone();
        versioned[0] ^= 1;
        assert!(two.b_hears(&versioned).is_err());
    }
    two.b_hears(&late).unwrap();
    two.b_hears(&another).unwrap();
}

/// A25: what is secret wipes itself; the compiler checks it.
#[test]
fn keys_wipe_themselves() {
    fn wipes<T: zeroize::ZeroizeOnDrop>() {}
    wipes::<RootKey>();
    wipes::<ChainKey>();
    wipes::<HeaderKey>();
    wipes::<MessageKey>();
    wipes::<crate::mac::MacKey>();
    wipes::<crate::secret::PairKey>();
    wipes::<crate::secret::KemShared>();
    wipes::<crate::secret::PseudoRandomKey>();
    wipes::<crate::secret::ChainSecret>();
    wipes::<crate::secret::ConfirmKey>();
    wipes::<crate::secret::HelloKey>();
    wipes::<crate::secret::Exporter>();
    wipes::<StaticSecret>();
    wipes::<ed25519_dalek::SigningKey>();
    wipes::<chacha20poly1305::ChaCha20Poly1305>();
    wipes::<ml_kem::DecapsulationKey<ml_kem::MlKem768>>();
}
