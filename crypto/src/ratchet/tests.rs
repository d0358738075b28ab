use super::*;
use crate::secret::MessageKey;
use crate::testing::{LOW_ORDER, rng};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;

struct Two {
    rng: ChaCha20Rng,
    a: Ratchet,
    b: Ratchet,
}

impl Two {
    /// Both sides right after a handshake.
    fn new(seed: u64) -> Self {
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

    fn a_says(&mut self, text: &[u8]) -> Vec<u8> {
        say(&mut self.a, &mut self.rng, text)
    }

    fn b_says(&mut self, text: &[u8]) -> Vec<u8> {
        say(&mut self.b, &mut self.rng, text)
    }

    fn a_hears(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        hear(&mut self.a, &mut self.rng, message)
    }

    fn b_hears(&mut self, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        hear(&mut self.b, &mut self.rng, message)
    }

    fn round_trip(&mut self) {
        let there = self.a_says(b"there");
        self.b_hears(&there).unwrap();
        let back = self.b_says(b"back");
        self.a_hears(&back).unwrap();
    }
}

fn say(from: &mut Ratchet, rng: &mut ChaCha20Rng, text: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    from.encrypt(rng, text, &mut message).unwrap();
    message
}

fn hear(to: &mut Ratchet, rng: &mut ChaCha20Rng, message: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut opened = b"before".to_vec();
    let outcome = to.decrypt(rng, message, &mut opened);
    let rest = opened.strip_prefix(b"before").expect("what was there stays").to_vec();
    assert!(outcome.is_ok() || rest.is_empty(), "nothing is written on failure");
    outcome.map(|()| rest)
}

impl Ratchet {
    /// Every byte of the state, for comparison.
    fn state(&self) -> Vec<u8> {
        let mut state = [&self.session_id[..], self.root.as_bytes(), self.my_key.as_bytes()].concat();
        if let Some(chain) = &self.sending {
            state.extend(chain.state());
        }
        state.extend(self.next_sending_header.as_bytes());
        state.extend(self.previous_length.to_be_bytes());
        if let Some(chain) = &self.receiving {
            state.extend(chain.state());
        }
        state.extend(self.next_receiving_header.as_bytes());
        for chain in &self.older {
            state.extend(chain.state());
        }
        state
    }

    fn missing(&self) -> usize {
        self.older.iter().map(|chain| chain.missing().len()).sum::<usize>()
            + self.receiving.as_ref().map_or(0, |chain| chain.missing().len())
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
    let chain = two.a.sending.as_mut().unwrap();
    chain.pretend_to_have_sent(u32::MAX - 1);
    assert!(two.a.can_send());
    two.a_says(b"the last one");
    assert!(!two.a.can_send());
    let before = two.a.state();
    let mut out = Vec::new();
    assert_eq!(two.a.encrypt(&mut two.rng, b"", &mut out), Err(EncryptError::Exhausted));
    assert!(out.is_empty() && two.a.state() == before);
}

/// A peer that knows the header keys can write any ratchet key, length and number into a header.
#[test]
fn headers_of_a_malicious_peer_are_refused() {
    let mut two = Two::new(16);
    two.round_trip();
    let first = two.a_says(b"first of the current chain");
    two.b_hears(&first).unwrap();
    let header_key = two.a.sending.as_ref().unwrap().header_key().clone();
    let next_header_key = two.a.next_sending_header.clone();
    let ratchet_key = *two.a.sending.as_ref().unwrap().ratchet_key();
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
    let header_key = two.a.sending.as_ref().unwrap().header_key().clone();
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

/// After both sides have turned the ratchet, a copy of the old state opens nothing new, and the new state nothing old.
#[test]
fn a_stolen_state_heals() {
    let mut two = Two::new(17);
    two.round_trip();
    let mut thief = copy(&two.b);
    let seen = two.a_says(b"still readable");
    assert!(hear(&mut thief, &mut two.rng, &seen).is_ok());
    two.b_hears(&seen).unwrap();
    two.round_trip();
    two.round_trip();
    let healed = two.a_says(b"secret again");
    assert_eq!(hear(&mut thief, &mut two.rng, &healed), Err(OpenError::CannotBeOpened));
    let mut thief_of_new_state = copy(&two.b);
    assert_eq!(hear(&mut thief_of_new_state, &mut two.rng, &seen), Err(OpenError::Repeated));
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

fn copy(ratchet: &Ratchet) -> Ratchet {
    Ratchet {
        session_id: ratchet.session_id,
        root: ratchet.root.clone(),
        my_key: ratchet.my_key.clone(),
        sending: ratchet.sending.clone(),
        next_sending_header: ratchet.next_sending_header.clone(),
        previous_length: ratchet.previous_length,
        receiving: ratchet.receiving.clone(),
        next_receiving_header: ratchet.next_receiving_header.clone(),
        older: ratchet.older.clone(),
    }
}

/// What the network may do in the property test. Indices choose among what is on the way.
#[derive(Debug, Clone)]
enum Step {
    Send { from_a: bool },
    Deliver { to_a: bool, index: prop::sample::Index },
    Repeat { to_a: bool, index: prop::sample::Index },
    Damage { to_a: bool, index: prop::sample::Index, byte: prop::sample::Index, mask: u8 },
    Lose { to_a: bool, index: prop::sample::Index },
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
                    match hear(to, &mut two.rng, &message) {
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
                    prop_assert!(hear(to, &mut two.rng, message).is_err());
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
                    prop_assert_eq!(hear(to, &mut two.rng, &damaged), Err(OpenError::CannotBeOpened));
                    prop_assert!(to.state() == before);
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
