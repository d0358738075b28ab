use super::chain::MissingKeys;
use super::*;
use crate::DecodeError;
use crate::secret::MessageKey;
use crate::testing::{LOW_ORDER, rng};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;

pub(super) struct Two {
    rng: ChaCha20Rng,
    pub a: Ratchet,
    pub b: Ratchet,
}

impl Two {
    /// Both sides right after a handshake.
    pub fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let bob = agreement::generate(&mut rng);
        let mut key = || {
            let mut bytes = [0; 32];
            rand_core::Rng::fill_bytes(&mut rng, &mut bytes);
            bytes
        };
        let (root, from_a, from_b) =
            (RootKey::take(&mut key()), HeaderKey::take(&mut key()), HeaderKey::take(&mut key()));
        let a = Ratchet::initiator(&mut rng, [7; 16], &root, &AgreementKey::of(&bob), from_a.clone(), from_b.clone());
        let b = Ratchet::responder([7; 16], root, bob, from_a, from_b);
        Self { rng, a: a.unwrap(), b }
    }

    pub fn a_says(&mut self, text: &[u8]) -> Vec<u8> {
        say(&mut self.a, &mut self.rng, text)
    }

    pub fn b_says(&mut self, text: &[u8]) -> Vec<u8> {
        say(&mut self.b, &mut self.rng, text)
    }

    pub fn a_hears(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        hear(&mut self.a, message)
    }

    pub fn b_hears(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        hear(&mut self.b, message)
    }

    pub fn round_trip(&mut self) {
        let there = self.a_says(b"there");
        self.b_hears(&there).unwrap();
        let back = self.b_says(b"back");
        self.a_hears(&back).unwrap();
    }
}

pub(super) fn say(from: &mut Ratchet, rng: &mut ChaCha20Rng, text: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    from.encrypt(rng, text, &mut message).unwrap();
    message
}

pub(super) fn hear(to: &mut Ratchet, message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut opened = b"before".to_vec();
    let outcome = to.decrypt(message, &mut opened);
    let rest = opened.strip_prefix(b"before").expect("what was there stays").to_vec();
    assert!(outcome.is_ok() || rest.is_empty(), "nothing is written on failure");
    outcome.map(|()| rest)
}

impl Ratchet {
    /// Every byte of the state, for comparison.
    pub(super) fn state(&self) -> Vec<u8> {
        self.to_bytes().to_vec()
    }

    fn sending_chain(&mut self) -> &mut SendingChain {
        self.sending.as_mut().expect("something was sent")
    }
}

#[test]
fn a_message_is_as_long_as_promised_and_is_appended() {
    let mut two = Two::new(1);
    let mut out = b"before".to_vec();
    two.a.encrypt(&mut two.rng, b"text", &mut out).unwrap();
    assert_eq!(out.len(), 6 + 4 + Ratchet::OVERHEAD);
    assert_eq!(Ratchet::OVERHEAD, 1 + 16 + 56 + 16);
    assert_eq!(two.b_hears(&out[6..]).unwrap(), b"text");
}

#[test]
fn the_responder_waits_for_the_first_message() {
    let mut two = Two::new(1);
    let mut out = Vec::new();
    assert!(!two.b.can_send());
    assert_eq!(two.b.encrypt(&mut two.rng, b"", &mut out), Err(EncryptError::NotYet));
    assert!(out.is_empty());
    let first = two.a_says(b"first");
    two.b_hears(&first).unwrap();
    assert!(two.b.can_send());
    let reply = two.b_says(b"reply");
    assert_eq!(two.a_hears(&reply).unwrap(), b"reply");
}

#[test]
fn long_ping_pong() {
    let mut two = Two::new(2);
    for _ in 0..200 {
        two.round_trip();
    }
    assert_eq!((two.a.missing(), two.b.missing()), (0, 0));
}

#[test]
fn out_of_order_within_and_across_chains() {
    let mut two = Two::new(3);
    let mut from_a = Vec::new();
    for _ in 0..3 {
        for _ in 0..4 {
            from_a.push(two.a_says(&[from_a.len() as u8]));
        }
        let last = from_a.last().unwrap().clone();
        two.b_hears(&last).unwrap();
        let back = two.b_says(b"");
        two.a_hears(&back).unwrap();
    }
    for (i, message) in from_a.iter().enumerate().rev() {
        let expected = if i % 4 == 3 { Err(OpenError::Repeated) } else { Ok(vec![i as u8]) };
        assert_eq!(two.b_hears(message), expected, "message {i}");
    }
    assert_eq!(two.b.missing(), 0);
}

#[test]
fn a_repetition_is_told_apart_and_changes_nothing() {
    let mut two = Two::new(4);
    let one = two.a_says(b"one");
    two.b_hears(&one).unwrap();
    let back = two.b_says(b"back");
    two.a_hears(&back).unwrap();
    let two_ = two.a_says(b"two");
    two.b_hears(&two_).unwrap();
    let before = two.b.state();
    assert_eq!(two.b_hears(&one), Err(OpenError::Repeated), "of an older chain");
    assert_eq!(two.b_hears(&two_), Err(OpenError::Repeated), "of the current chain");
    assert_eq!(two.b.state(), before);
}

#[test]
fn own_messages_sent_back_do_not_open() {
    let mut two = Two::new(5);
    two.round_trip();
    let message = two.a_says(b"mine");
    assert_eq!(two.a_hears(&message), Err(OpenError::CannotBeOpened));
    assert_eq!(two.b_hears(&message).unwrap(), b"mine");
}

/// Every bit of messages that open with the current chain, turn the ratchet, come late, or come from an older chain.
#[test]
fn a_damaged_message_leaves_the_state_as_it_was() {
    let mut two = Two::new(6);
    let late_older = two.a_says(b"late, of an older chain");
    two.round_trip();
    let late = two.a_says(b"late, of the current chain");
    let current_before = two.a_says(b"current");
    two.b_hears(&current_before).unwrap();
    let current = two.a_says(b"current");
    let skipping = {
        two.a_says(b"lost");
        two.a_says(b"after a gap")
    };
    let back = two.b_says(b"back");
    two.a_hears(&back).unwrap();
    let turning = two.a_says(b"next chain");

    let before = two.b.state();
    for message in [&late_older, &late, &current, &skipping, &turning] {
        for bit in 0..message.len() * 8 {
            let mut damaged = message.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(two.b_hears(&damaged), Err(OpenError::CannotBeOpened), "bit {bit}");
        }
        for length in 0..message.len() {
            assert_eq!(two.b_hears(&message[..length]), Err(OpenError::CannotBeOpened));
        }
        assert_eq!(two.b_hears(&[&message[..], &[0]].concat()), Err(OpenError::CannotBeOpened));
    }
    assert_eq!(two.b.state(), before);
    // Damaged copies came first, and the genuine ones still open, in any order.
    for message in [&turning, &late_older, &skipping, &late, &current] {
        two.b_hears(message).unwrap();
    }
}

#[test]
fn a_message_of_another_session_does_not_open() {
    let (mut one, mut other) = (Two::new(7), Two::new(8));
    let message = one.a_says(b"text");
    assert_eq!(other.b_hears(&message), Err(OpenError::CannotBeOpened));
    // Same keys, another session id: the associated data differs.
    let mut renamed = Two::new(7);
    renamed.b.session_id = [8; 16];
    assert_eq!(renamed.b_hears(&message), Err(OpenError::CannotBeOpened));
}

#[test]
fn one_message_skips_at_most_512() {
    let mut two = Two::new(9);
    for _ in 0..MAX_SKIP {
        two.a_says(b"lost");
    }
    let allowed = two.a_says(b"after 512");
    let refused = two.a_says(b"after 513");
    let before = two.b.state();
    assert_eq!(two.b_hears(&refused), Err(OpenError::CannotBeOpened));
    assert_eq!(two.b.state(), before);
    assert_eq!(two.b_hears(&allowed).unwrap(), b"after 512");
    assert_eq!(two.b.missing(), MAX_SKIP as usize);
    assert_eq!(two.b_hears(&refused).unwrap(), b"after 513");
}

/// The same within a chain, where a number far ahead would otherwise cost us four thousand million derivations.
#[test]
fn one_message_of_the_current_chain_skips_at_most_512() {
    let mut two = Two::new(20);
    let first = two.a_says(b"first");
    two.b_hears(&first).unwrap();
    for _ in 0..MAX_SKIP {
        two.a_says(b"lost");
    }
    let allowed = two.a_says(b"after 512");
    let refused = two.a_says(b"after 513");
    let before = two.b.state();
    assert_eq!(two.b_hears(&refused), Err(OpenError::CannotBeOpened));
    assert_eq!(two.b.state(), before);
    assert_eq!(two.b_hears(&allowed).unwrap(), b"after 512");
}

/// The rest of the old chain and the beginning of the new one count together.
#[test]
fn a_turn_of_the_ratchet_does_not_double_the_limit() {
    let mut two = Two::new(10);
    two.round_trip();
    let first = two.a_says(b"");
    two.b_hears(&first).unwrap();
    let back = two.b_says(b"");
    for _ in 0..300 {
        two.a_says(b"lost");
    }
    two.a_hears(&back).unwrap();
    for _ in 0..212 {
        two.a_says(b"lost");
    }
    let allowed = two.a_says(b"300 + 212");
    let refused = two.a_says(b"300 + 213");
    assert_eq!(two.b_hears(&refused), Err(OpenError::CannotBeOpened));
    assert_eq!(two.b_hears(&allowed).unwrap(), b"300 + 212");
}

#[test]
fn at_most_1024_keys_are_kept_and_the_oldest_go_first() {
    let mut two = Two::new(11);
    let mut lost = Vec::new();
    for _ in 0..3 {
        for _ in 0..MAX_SKIP {
            lost.push(two.a_says(b"late"));
        }
        let last = two.a_says(b"last");
        two.b_hears(&last).unwrap();
        assert!(two.b.missing() <= MAX_MISSING);
    }
    assert_eq!(two.b.missing(), MAX_MISSING);
    let kept = lost.split_off(lost.len() - MAX_MISSING);
    for message in lost {
        assert_eq!(two.b_hears(&message), Err(OpenError::Repeated));
    }
    for message in kept {
        two.b_hears(&message).unwrap();
    }
    assert_eq!(two.b.missing(), 0);
}

/// Of chains that the other side has finished as well, and no more of them than needed.
#[test]
fn the_oldest_keys_of_all_chains_go_first() {
    let mut two = Two::new(26);
    let mut chains = Vec::new();
    for _ in 0..3 {
        chains.push((0..MAX_SKIP - 12).map(|_| two.a_says(b"late")).collect::<Vec<_>>());
        two.round_trip();
    }
    assert_eq!((two.b.missing(), two.b.older.len()), (MAX_MISSING, 2));
    let late = chains.concat();
    let (dropped, kept) = late.split_at(late.len() - MAX_MISSING);
    assert!(dropped.len() < chains[0].len(), "some of the oldest chain are left");
    assert!(dropped.iter().all(|message| two.b_hears(message) == Err(OpenError::Repeated)));
    assert!(kept.iter().all(|message| two.b_hears(message).is_ok()));
}

#[test]
fn memory_stays_bounded_over_many_chains_with_losses() {
    let mut two = Two::new(12);
    for _ in 0..100 {
        for _ in 0..MAX_SKIP / 2 {
            two.a_says(b"lost");
        }
        two.round_trip();
        assert!(two.b.missing() <= MAX_MISSING);
        assert!(two.b.older.len() <= MAX_OLDER_CHAINS);
    }
}

/// A numbered frame is sent again byte for byte, maybe after many quick round trips.
#[test]
fn a_missing_message_survives_chains_that_miss_nothing() {
    let mut two = Two::new(13);
    let late = two.a_says(b"late");
    for _ in 0..50 {
        two.round_trip();
    }
    assert_eq!(two.b_hears(&late).unwrap(), b"late");
    assert_eq!(two.b_hears(&late), Err(OpenError::Repeated));
}

#[test]
fn of_chains_that_miss_messages_the_last_five_are_kept() {
    let mut two = Two::new(14);
    let mut late = Vec::new();
    for _ in 0..7 {
        late.push(two.a_says(b"late"));
        two.round_trip();
    }
    // One current chain and five older ones; the first is gone.
    assert_eq!(two.b_hears(&late[0]), Err(OpenError::CannotBeOpened));
    for message in &late[1..] {
        assert_eq!(two.b_hears(message).unwrap(), b"late");
    }
}

#[test]
fn a_chain_ends_at_2_pow_32_minus_2() {
    let mut two = Two::new(15);
    let chain = two.a.sending_chain();
    chain.pretend_to_have_sent(u32::MAX - 1);
    assert!(two.a.can_send());
    two.a_says(b"the last one");
    assert!(!two.a.can_send());
    let before = two.a.state();
    let mut out = Vec::new();
    assert_eq!(two.a.encrypt(&mut two.rng, b"", &mut out), Err(EncryptError::Exhausted));
    assert!(out.is_empty() && two.a.state() == before);
}

/// A peer that sends more than there are numbers is not followed to numbers that come round again.
#[test]
fn a_receiving_chain_ends_where_a_sending_chain_does() {
    let (header, key) = (HeaderKey::take(&mut [1; 32]), ChainKey::take(&mut [2; 32]));
    let chain = ReceivingChain::restored(header, key, u32::MAX - 3, MissingKeys::default());
    assert!(chain.stage(u32::MAX - 2).is_some());
    assert!(chain.stage(u32::MAX - 1).is_some(), "the last");
    assert!(chain.stage(u32::MAX).is_none());
}

/// PROTOCOL 6 once more, from the page and with the HKDF of a library: if both sides took the same wrong bytes, they would still talk.
#[test]
fn a_turn_of_the_ratchet_takes_its_keys_as_the_page_says() {
    let mut rng = rng(33);
    let (mine, theirs) = (agreement::generate(&mut rng), agreement::generate(&mut rng));
    let step = RootStep::take(&RootKey::take(&mut [7; 32]), &mine, &AgreementKey::of(&theirs)).unwrap();
    let shared = agree(&theirs, &AgreementKey::of(&mine)).unwrap();
    let mut okm = [0; 96];
    let hkdf = hkdf::Hkdf::<sha2::Sha256>::new(Some(&[7; 32]), shared.as_bytes());
    hkdf.expand(b"happy/1 ratchet root", &mut okm).unwrap();
    let keys = [*step.root.as_bytes(), *step.chain.as_bytes(), *step.next_header.as_bytes()];
    assert_eq!(okm.as_chunks().0, keys);
}

/// There was none, whatever the sender says.
#[test]
fn the_first_message_of_all_names_no_chain_before_it() {
    let mut two = Two::new(29);
    two.a.previous_length = 1;
    let message = two.a_says(b"text");
    assert_eq!(two.b_hears(&message), Err(OpenError::CannotBeOpened));
}

/// A buffer that moves after the plaintext was put into it leaves the plaintext behind.
#[test]
fn a_message_finds_room_before_it_is_written_and_takes_no_more() {
    let mut two = Two::new(30);
    for length in [0, 1, 64, 1_000] {
        let message = two.a_says(&vec![7; length]);
        assert_eq!((message.len(), message.capacity()), (length + Ratchet::OVERHEAD, length + Ratchet::OVERHEAD));
    }
}

/// A peer that knows the header keys can write any ratchet key, length and number into a header.
#[test]
fn headers_of_a_malicious_peer_are_refused() {
    let mut two = Two::new(16);
    two.round_trip();
    let first = two.a_says(b"first of the current chain");
    two.b_hears(&first).unwrap();
    let header_key = two.a.sending_chain().header_key().clone();
    let next_header_key = two.a.next_sending_header.clone();
    let ratchet_key = *two.a.sending_chain().ratchet_key();
    let any_key = MessageKey::take(&mut [1; 32]);
    let before = two.b.state();
    let mut forge = |key: &HeaderKey, ratchet_key: [u8; 32], previous_length: u32, number: u32| {
        let header = Header { ratchet_key, previous_length, number };
        let mut message = Vec::new();
        message::seal(&[7; 16], &[3; 16], key, &header, &any_key, b"text", &mut message).unwrap();
        assert_eq!(two.b_hears(&message), Err(OpenError::CannotBeOpened));
        assert!(two.b.state() == before);
    };
    for point in LOW_ORDER {
        forge(&header_key, point, 1, 1);
        forge(&next_header_key, point, 1, 0);
    }
    for number in [0, 1, MAX_SKIP, MAX_SKIP + 1, u32::MAX - 1, u32::MAX] {
        for previous_length in [0, 1, MAX_SKIP, MAX_SKIP + 2, u32::MAX] {
            forge(&header_key, ratchet_key, previous_length, number.max(1));
            forge(&next_header_key, ratchet_key, previous_length, number);
        }
    }
}

/// A number that the chain never reached is no repetition: its own PN said where it ended.
#[test]
fn a_number_behind_the_end_of_an_older_chain_is_refused() {
    let mut two = Two::new(19);
    let header_key = two.a.sending_chain().header_key().clone();
    two.round_trip();
    let first = two.a_says(b"first of the next chain");
    two.b_hears(&first).unwrap();
    for (number, error) in
        [(0, OpenError::Repeated), (1, OpenError::CannotBeOpened), (u32::MAX, OpenError::CannotBeOpened)]
    {
        let header = Header { ratchet_key: [1; 32], previous_length: 0, number };
        let mut message = Vec::new();
        let key = MessageKey::take(&mut [1; 32]);
        message::seal(&[7; 16], &[3; 16], &header_key, &header, &key, b"text", &mut message).unwrap();
        assert_eq!(two.b_hears(&message), Err(error));
    }
}

/// Salt and keys being equal, only the associated data ties a body to its header.
#[test]
fn a_body_does_not_open_under_another_header() {
    let header_key = HeaderKey::take(&mut [1; 32]);
    let key = MessageKey::take(&mut [2; 32]);
    let message = |previous_length: u32| {
        let header = Header { ratchet_key: [9; 32], previous_length, number: 0 };
        let mut message = Vec::new();
        message::seal(&[7; 16], &[3; 16], &header_key, &header, &key, b"text", &mut message).unwrap();
        message
    };
    let (one, other) = (message(1), message(2));
    let spliced = [&one[..message::BODY], &other[message::BODY..]].concat();
    for (bytes, opens) in [(&one, true), (&spliced, false)] {
        let sealed = Sealed::parse(&[7; 16], bytes).unwrap();
        assert!(sealed.open_header(&header_key).is_some());
        assert_eq!(sealed.open_body(&key, &mut Vec::new()), opens);
    }
}

/// The same keys and the same salt, another session: the body would be refused as well, but only after a derivation for it.
#[test]
fn a_header_does_not_open_in_another_session() {
    let key = HeaderKey::take(&mut [1; 32]);
    let header = Header { ratchet_key: [9; 32], previous_length: 0, number: 0 };
    let mut message = Vec::new();
    message::seal(&[7; 16], &[3; 16], &key, &header, &MessageKey::take(&mut [2; 32]), b"text", &mut message).unwrap();
    assert!(Sealed::parse(&[7; 16], &message).unwrap().open_header(&key).is_some());
    assert!(Sealed::parse(&[8; 16], &message).unwrap().open_header(&key).is_none());
}

#[test]
fn a_header_arrives_as_it_was_sent() {
    let key = HeaderKey::take(&mut [1; 32]);
    for (previous_length, number) in [(0x0102_0304, 0x0506_0708), (u32::MAX, 0), (0, u32::MAX)] {
        let ratchet_key = std::array::from_fn(|i| i as u8);
        let header = Header { ratchet_key, previous_length, number };
        let mut message = Vec::new();
        message::seal(&[7; 16], &[3; 16], &key, &header, &MessageKey::take(&mut [2; 32]), b"", &mut message).unwrap();
        let opened = Sealed::parse(&[7; 16], &message).unwrap().open_header(&key).unwrap();
        let fields = (opened.ratchet_key, opened.previous_length, opened.number);
        assert_eq!(fields, (ratchet_key, previous_length, number));
    }
}

/// After both sides have turned the ratchet, a copy of the old state opens nothing new, and the new state nothing old.
#[test]
fn a_stolen_state_heals() {
    let mut two = Two::new(17);
    two.round_trip();
    let mut thief = copy(&two.b);
    let seen = two.a_says(b"still readable");
    assert!(hear(&mut thief, &seen).is_ok());
    two.b_hears(&seen).unwrap();
    two.round_trip();
    two.round_trip();
    let healed = two.a_says(b"secret again");
    assert_eq!(hear(&mut thief, &healed), Err(OpenError::CannotBeOpened));
    let mut thief_of_new_state = copy(&two.b);
    assert_eq!(hear(&mut thief_of_new_state, &seen), Err(OpenError::Repeated));
}

/// A ratchet that turns once a second stays in its chain until then, and heals after it.
#[test]
fn a_paced_ratchet_turns_with_the_first_message_of_each_second() {
    let mut two = Two::new(26);
    for ratchet in [&mut two.a, &mut two.b] {
        ratchet.turn_once_a_second();
        ratchet.expire(7);
    }
    two.round_trip();
    let chains = |two: &mut Two| [*two.a.sending_chain().ratchet_key(), *two.b.sending_chain().ratchet_key()];
    // The responder has turned in this second, the initiator has not yet.
    two.round_trip();
    let begun = chains(&mut two);
    let mut thief = copy(&two.b);
    for _ in 0..5 {
        two.round_trip();
        assert!(chains(&mut two) == begun, "there was a turn before the second was over");
    }
    assert!(hear(&mut thief, &two.a_says(b"of the same chain")).is_ok());
    for ratchet in [&mut two.a, &mut two.b] {
        ratchet.expire(8);
    }
    two.round_trip();
    two.round_trip();
    let later = chains(&mut two);
    assert!(later[0] != begun[0] && later[1] != begun[1]);
    let healed = two.a_says(b"secret again");
    assert_eq!(hear(&mut thief, &healed), Err(OpenError::CannotBeOpened));
    // Where the time may have stood still the next turn does not wait.
    two.b.turn_without_waiting();
    two.round_trip();
    two.round_trip();
    assert!(chains(&mut two)[1] != later[1]);
    // One that is not told the time turns with each answer.
    let mut two = Two::new(27);
    two.a.turn_once_a_second();
    two.round_trip();
    let before = *two.a.sending_chain().ratchet_key();
    two.round_trip();
    assert_ne!(*two.a.sending_chain().ratchet_key(), before);
}

/// Two messages from one cloned state use different keys and nonces, thanks to the salt.
#[test]
fn a_cloned_state_does_not_give_a_two_time_pad() {
    let mut two = Two::new(18);
    let mut clone = copy(&two.a);
    let one = two.a_says(&[0; 64]);
    let other = say(&mut clone, &mut two.rng, &[0; 64]);
    assert_ne!(one[1..17], other[1..17], "salts");
    assert_ne!(one[message::BODY..], other[message::BODY..]);
}

pub(super) fn copy(ratchet: &Ratchet) -> Ratchet {
    Ratchet::from_bytes(&ratchet.to_bytes()).unwrap()
}

/// A ratchet with every kind of part: a chain in use, an older one, and messages missing from both.
fn full(seed: u64) -> Two {
    let mut two = Two::new(seed);
    two.a_says(b"missing");
    two.round_trip();
    two.a_says(b"missing");
    let current = two.a_says(b"current");
    two.b_hears(&current).unwrap();
    two.b.expire(5);
    two
}

#[test]
fn a_stored_state_comes_back_and_goes_on() {
    let mut two = full(21);
    for stored in [&Two::new(22).b, &Two::new(22).a, &two.a, &two.b] {
        assert_eq!(copy(stored).state(), stored.state());
    }
    (two.a, two.b) = (copy(&two.a), copy(&two.b));
    two.round_trip();
    let back = two.b_says(b"and after a turn");
    two.b = copy(&two.b);
    two.a_hears(&back).unwrap();
    two.round_trip();
}

#[test]
fn a_stored_state_that_cannot_be_is_refused() {
    let state = full(23).b.state();
    for length in 0..state.len() {
        assert_eq!(Ratchet::from_bytes(&state[..length]).err(), Some(DecodeError::Truncated));
    }
    assert_eq!(Ratchet::from_bytes(&[&state[..], &[0]].concat()).err(), Some(DecodeError::TrailingBytes));
    assert!(matches!(Ratchet::from_bytes(&[&[9], &state[1..]].concat()), Err(DecodeError::UnsupportedVersion(9))));
    // The tag of the sending chain.
    let tag = 1 + 16 + 4 * 32 + 4 + 8;
    let mut bad = state.clone();
    bad[tag] = 3;
    assert!(Ratchet::from_bytes(&bad).is_err());
    // A missing message with a number that the chain has not reached.
    let number = state.windows(6).position(|six| six == [0, 0, 0, 2, 0, 1]).unwrap() + 6;
    let mut bad = state;
    bad[number] = 0xFF;
    assert_eq!(Ratchet::from_bytes(&bad).err(), Some(DecodeError::Field("missing keys")));
}

/// The bounds are those of a ratchet in memory: what it can be, it can be again, and nothing else.
#[test]
fn a_stored_state_at_its_bounds_comes_back_and_one_beyond_them_does_not() {
    let mut two = Two::new(27);
    for _ in 0..=MAX_OLDER_CHAINS {
        two.a_says(b"late");
        two.round_trip();
    }
    assert_eq!(two.b.older.len(), MAX_OLDER_CHAINS);
    assert_eq!(copy(&two.b).state(), two.b.state());
    two.b.older.push_back(two.b.older[0].clone());
    assert_eq!(Ratchet::from_bytes(&two.b.state()).err(), Some(DecodeError::Field("older chains")));

    let mut two = Two::new(28);
    for _ in 0..MAX_MISSING / MAX_SKIP as usize {
        for _ in 0..MAX_SKIP {
            two.a_says(b"late");
        }
        let last = two.a_says(b"last");
        two.b_hears(&last).unwrap();
    }
    assert_eq!(two.b.missing(), MAX_MISSING);
    assert_eq!(copy(&two.b).state(), two.b.state());
    two.b.older.push_back(older_chain(1, &[0]));
    assert_eq!(Ratchet::from_bytes(&two.b.state()).err(), Some(DecodeError::Field("missing keys")));
}

#[test]
fn stored_numbers_of_missing_messages_ascend_and_end_before_the_chain() {
    for (numbers, comes_back) in [
        (&[][..], true),
        (&[0, 1, 8], true),
        (&[8, 9], false),
        (&[9], false),
        (&[3, 3], false),
        (&[0, 0], false),
        (&[3, 2], false),
    ] {
        let mut two = Two::new(31);
        two.b.older.push_back(older_chain(9, numbers));
        assert_eq!(Ratchet::from_bytes(&two.b.state()).is_ok(), comes_back, "{numbers:?}");
    }
}

/// A chain of that length that misses these messages.
pub(super) fn older_chain(length: u32, missing: &[u32]) -> OlderChain {
    let mut keys = MissingKeys::default();
    missing.iter().for_each(|number| keys.push(*number, 0, MessageKey::take(&mut [1; 32])));
    OlderChain::restored(HeaderKey::take(&mut [2; 32]), length, 0, keys)
}

#[test]
fn keys_of_missing_messages_and_old_chains_are_forgotten_in_time() {
    let mut two = Two::new(24);
    two.b.expire(100);
    let older = two.a_says(b"missing since 100");
    two.round_trip();
    two.b.expire(200);
    let younger = two.a_says(b"missing since 200");
    let current = two.a_says(b"current");
    two.b_hears(&current).unwrap();
    assert_eq!((two.b.missing(), two.b.older.len()), (2, 1));
    two.b.expire(100 + Ratchet::MISSING_FOR);
    assert_eq!((two.b.missing(), two.b.older.len()), (2, 1));
    let mut in_time = copy(&two.b);
    assert_eq!(hear(&mut in_time, &older).unwrap(), b"missing since 100");
    // The clock of a caller that goes back moves nothing.
    two.b.expire(0);
    two.b.expire(101 + Ratchet::MISSING_FOR);
    assert_eq!((two.b.missing(), two.b.older.len()), (1, 1));
    assert_eq!(two.b_hears(&older), Err(OpenError::Repeated));
    assert_eq!(two.b_hears(&younger).unwrap(), b"missing since 200");
    two.b.expire(301 + Ratchet::MISSING_FOR);
    assert_eq!((two.b.missing(), two.b.older.len()), (0, 0));
    two.round_trip();
}

/// Receiving takes no randomness, so two copies that receive the same stay the same.
#[test]
fn receiving_is_deterministic() {
    let mut two = Two::new(25);
    two.round_trip();
    let mut other = copy(&two.b);
    let message = two.a_says(b"turns the ratchet");
    two.b_hears(&message).unwrap();
    hear(&mut other, &message).unwrap();
    assert_eq!(other.state(), two.b.state());
}

/// What the network may do in the property test. Indices choose among what is on the way.
#[derive(Debug, Clone)]
enum Step {
    Send { from_a: bool },
    Deliver { to_a: bool, index: prop::sample::Index },
    Repeat { to_a: bool, index: prop::sample::Index },
    Damage { to_a: bool, index: prop::sample::Index, byte: prop::sample::Index, mask: u8 },
    Lose { to_a: bool, index: prop::sample::Index },
    Second { at_a: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => any::<bool>().prop_map(|from_a| Step::Send { from_a }),
        4 => (any::<bool>(), index()).prop_map(|(to_a, index)| Step::Deliver { to_a, index }),
        1 => (any::<bool>(), index()).prop_map(|(to_a, index)| Step::Repeat { to_a, index }),
        1 => (any::<bool>(), index(), index(), 1_u8..)
            .prop_map(|(to_a, index, byte, mask)| Step::Damage { to_a, index, byte, mask }),
        1 => (any::<bool>(), index()).prop_map(|(to_a, index)| Step::Lose { to_a, index }),
        1 => any::<bool>().prop_map(|at_a| Step::Second { at_a }),
    ]
}

/// Messages of one direction: those on the way, and those that arrived.
#[derive(Default)]
struct Direction {
    sent: u32,
    on_the_way: Vec<(u32, Vec<u8>)>,
    opened: Vec<(u32, Vec<u8>)>,
}

proptest! {
    /// Whatever the network does, a message opens exactly once, as what was sent; a repetition and a damaged copy never do,
    /// and they change nothing. With at most 120 steps no bound of the ratchet is reached but that of older chains.
    #[test]
    fn each_message_opens_exactly_once(seed: u64, steps in prop::collection::vec(step(), 1..120)) {
        let mut two = Two::new(seed);
        // One in four pairs each: both turn with every answer, one does, or none.
        for (ratchet, bit) in [(&mut two.a, 1), (&mut two.b, 2)] {
            if seed & bit != 0 {
                ratchet.turn_once_a_second();
            }
        }
        let mut seconds = [1, 1];
        let mut to_a = Direction::default();
        let mut to_b = Direction::default();
        for step in steps {
            match step {
                Step::Send { from_a } => {
                    let (from, direction) = if from_a { (&mut two.a, &mut to_b) } else { (&mut two.b, &mut to_a) };
                    if !from.can_send() {
                        continue;
                    }
                    let message = say(from, &mut two.rng, &direction.sent.to_be_bytes());
                    direction.on_the_way.push((direction.sent, message));
                    direction.sent += 1;
                }
                Step::Deliver { to_a: at_a, index } => {
                    let (to, direction) = if at_a { (&mut two.a, &mut to_a) } else { (&mut two.b, &mut to_b) };
                    if direction.on_the_way.is_empty() {
                        continue;
                    }
                    let (number, message) = direction.on_the_way.remove(index.index(direction.on_the_way.len()));
                    match hear(to, &message) {
                        Ok(opened) => {
                            prop_assert_eq!(opened, number.to_be_bytes());
                            direction.opened.push((number, message));
                        }
                        // More than five chains that miss something lie between.
                        Err(error) => {
                            prop_assert_eq!(error, OpenError::CannotBeOpened);
                            prop_assert_eq!(to.older.len(), MAX_OLDER_CHAINS);
                        }
                    }
                }
                Step::Repeat { to_a: at_a, index } => {
                    let (to, direction) = if at_a { (&mut two.a, &mut to_a) } else { (&mut two.b, &mut to_b) };
                    if direction.opened.is_empty() {
                        continue;
                    }
                    let (_, message) = &direction.opened[index.index(direction.opened.len())];
                    let before = to.state();
                    prop_assert!(hear(to, message).is_err());
                    prop_assert!(to.state() == before);
                }
                Step::Damage { to_a: at_a, index, byte, mask } => {
                    let (to, direction) = if at_a { (&mut two.a, &mut to_a) } else { (&mut two.b, &mut to_b) };
                    if direction.on_the_way.is_empty() {
                        continue;
                    }
                    let mut damaged = direction.on_the_way[index.index(direction.on_the_way.len())].1.clone();
                    let byte = byte.index(damaged.len());
                    damaged[byte] ^= mask;
                    let before = to.state();
                    prop_assert_eq!(hear(to, &damaged), Err(OpenError::CannotBeOpened));
                    prop_assert!(to.state() == before);
                }
                Step::Second { at_a } => {
                    seconds[usize::from(at_a)] += 1;
                    let at = if at_a { &mut two.a } else { &mut two.b };
                    at.expire(seconds[usize::from(at_a)]);
                }
                Step::Lose { to_a: at_a, index } => {
                    let direction = if at_a { &mut to_a } else { &mut to_b };
                    if !direction.on_the_way.is_empty() {
                        direction.on_the_way.remove(index.index(direction.on_the_way.len()));
                    }
                }
            }
        }
        // However bad it was, they can still talk.
        let there = two.a_says(b"still there?");
        prop_assert!(two.b_hears(&there).is_ok());
        let back = two.b_says(b"yes");
        prop_assert!(two.a_hears(&back).is_ok());
    }

    #[test]
    fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut two = Two::new(1);
        two.round_trip();
        prop_assert_eq!(two.b_hears(&bytes), Err(OpenError::CannotBeOpened));
    }
}
