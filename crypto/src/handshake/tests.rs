use super::*;
use crate::{
    Bundle, DecodeError, HandshakeError, Identity, IdentityRecord, OneTimePrekey, SignedPrekey, labelled_hash,
    testing::{LOW_ORDER, rng},
};
use rand_chacha::ChaCha20Rng;

const PSK: [u8; 32] = [42; 32];

fn invitation() -> InvitationKey {
    InvitationKey::new(PSK.into())
}

/// Where Hello carries the name of the pair secret.
const NAME_AT: usize = 3 + 129 + 32 + 32 + 1184 + 8;

fn pair_secret(number: u64) -> PairSecret {
    let bytes = [&number.to_be_bytes()[..], &[9; 32]].concat();
    PairSecret::from_bytes(&bytes).unwrap()
}

const CONTEXT: &[u8] = b"https://relay.example";

/// A phone and a machine that are about to shake hands.
struct Two {
    rng: ChaCha20Rng,
    phone: Identity,
    machine: Identity,
    signed: SignedPrekey,
    one_time: OneTimePrekey,
}

impl Two {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let phone = Identity::generate(&mut rng);
        let machine = Identity::generate(&mut rng);
        let signed = SignedPrekey::generate(&mut rng, &machine, 5, 1_000);
        let one_time = OneTimePrekey::generate(&mut rng, 2);
        Self { rng, phone, machine, signed, one_time }
    }

    fn bundle(&self) -> Bundle {
        Bundle::new(&self.machine, &self.signed, Some(&self.one_time))
    }

    fn start(&mut self) -> (Initiator, Vec<u8>) {
        let bundle = self.bundle();
        Initiator::start(&mut self.rng, &self.phone, &bundle, Shared::Invitation(&invitation()), [3; 16], CONTEXT)
            .unwrap()
    }

    fn answer(&mut self, hello: &[u8]) -> Result<(Responder, Vec<u8>), HandshakeError> {
        Responder::answer(
            &mut self.rng,
            &self.machine,
            &self.signed,
            Some(&self.one_time),
            hello,
            ([2; 16], 0),
            Shared::Invitation(&invitation()),
        )
    }
}

/// Both sides of a finished session can talk, both ways.
fn assert_they_talk(rng: &mut ChaCha20Rng, a: &mut Established, b: &mut Established) {
    for text in [&b"one"[..], b"", b"three"] {
        for reversed in [false, true] {
            let (from, to) = if reversed { (&mut *b, &mut *a) } else { (&mut *a, &mut *b) };
            let (mut message, mut opened) = (Vec::new(), Vec::new());
            from.ratchet.encrypt(rng, text, &mut message).unwrap();
            to.ratchet.decrypt(&message, &mut opened).unwrap();
            assert_eq!(opened, text);
        }
    }
}

fn flips(message: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..message.len()).map(|at| {
        let mut damaged = message.to_vec();
        damaged[at] ^= 1 << (at % 8);
        (at, damaged)
    })
}

#[test]
fn both_sides_agree() {
    let mut two = Two::new(1);
    let (initiator, hello) = two.start();
    let view = HelloView::parse(&hello).unwrap();
    assert_eq!((view.purpose(), view.context(), view.life()), (Purpose::Pairing, CONTEXT, [3; 16]));
    assert_eq!((view.signed_prekey_id(), view.one_time_prekey_id(), view.secret_name()), (5, 2, [0; 8]));
    assert_eq!((view.initiator(), view.responder()), (two.phone.record(), two.machine.device_id()));

    let (responder, welcome) = two.answer(&hello).unwrap();
    assert_eq!((hello.len(), welcome.len()), (HELLO_LEN + CONTEXT.len(), WELCOME_LEN));
    assert!(initiator.matches_welcome(&welcome));
    let (mut at_phone, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    assert_eq!(confirm.len(), CONFIRM_LEN);
    assert!(responder.matches_confirm(&confirm));
    assert_eq!((responder.peer(), responder.peer_life()), (two.phone.record(), [3; 16]));
    let mut at_machine = responder.confirm(&confirm).unwrap();

    assert_eq!(at_phone.session_id, at_machine.session_id);
    assert_eq!(at_phone.confirmation_code(), at_machine.confirmation_code());
    assert!(at_phone.confirmation_code() < 1_000_000);
    assert_eq!((&at_phone.peer, at_phone.peer_life, at_phone.reply), (two.machine.record(), [2; 16], 0));
    assert_eq!((&at_machine.peer, at_machine.peer_life), (two.phone.record(), [3; 16]));
    let (next, same) = (at_phone.next_pair_secret(), at_machine.next_pair_secret());
    assert_eq!((next.number(), &*next.to_bytes()), (1, &*same.to_bytes()));
    assert!(at_phone.ratchet.can_send() && !at_machine.ratchet.can_send());
    assert_they_talk(&mut two.rng, &mut at_phone, &mut at_machine);
}

/// The formulas of PROTOCOL 5 once more, from the page and the secrets, without the code that is tested.
#[test]
fn the_keys_are_those_of_the_page() {
    use crate::suite::{expand, extract, hmac};
    use x25519_dalek::{PublicKey, StaticSecret};

    let mut two = Two::new(21);
    let (initiator, hello) = two.start();
    let (responder, welcome) = two.answer(&hello).unwrap();
    let (at_phone, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    responder.confirm(&confirm).unwrap();

    let hash = |parts: &[&[u8]]| labelled_hash("", &[&parts.concat()]);
    let key = |message: &[u8], at: usize| PublicKey::from(<[u8; 32]>::try_from(&message[at..at + 32]).unwrap());
    let dh = |mine: &StaticSecret, theirs: &PublicKey| mine.diffie_hellman(theirs).to_bytes();
    let identity = two.phone.agreement();
    let (phone_key, ephemeral) = (key(&hello, 3 + 33), key(&hello, 3 + 129 + 32));
    let (signed, one_time) = (two.signed.secret(), two.one_time.secret());

    let (hello, mac_1) = hello.split_at(hello.len() - 32);
    let record = two.machine.record().as_bytes();
    let length = (hello.len() as u16).to_be_bytes();
    let (signed_public, one_time_public) = (PublicKey::from(signed), PublicKey::from(one_time));
    let t1 =
        hash(&[b"happy/1 transcript 1", &length, hello, record, signed_public.as_bytes(), one_time_public.as_bytes()]);
    let dh1 = dh(identity, &signed_public);
    assert_eq!(dh1, dh(signed, &phone_key));
    let dh2 = dh(two.machine.agreement(), &ephemeral);
    let (dh3, dh4) = (dh(signed, &ephemeral), dh(one_time, &ephemeral));
    let ikm = [&[0xFF; 32][..], &dh1, &dh2, &dh3, &dh4, &PSK].concat();
    let mut okm = [0; 64];
    expand(&extract(&[0; 32], &[&ikm]), &[b"happy/1 hello keys", &t1], &mut okm);
    let (hello_key, chain_secret) = okm.split_at(32);
    assert_eq!(hmac(hello_key.try_into().unwrap(), &[&t1]), mac_1);

    let (welcome, mac_2) = welcome.split_at(WELCOME_LEN - 32);
    assert_eq!(welcome[..18], [&[1, 2], &t1[..16]].concat());
    let t2 = hash(&[b"happy/1 transcript 2", &t1, mac_1, welcome]);
    let their_ephemeral = key(welcome, 18);
    let dh5 = dh(&initiator.ephemeral, &their_ephemeral);
    let dh6 = dh(identity, &their_ephemeral);
    let kem = initiator.kem_secret.decapsulate(welcome[50..50 + 1088].try_into().unwrap());
    let mut okm = [0; 192];
    expand(&extract(chain_secret, &[&dh5, &dh6, kem.as_bytes()]), &[b"happy/1 session keys", &t2], &mut okm);
    let part = |i: usize| <[u8; 32]>::try_from(&okm[32 * i..32 * i + 32]).unwrap();
    assert_eq!(hmac(&part(0), &[&t2]), mac_2);
    assert_eq!(confirm, [&t2[..16], &hmac(&part(1), &[&t2, mac_2])].concat());
    assert_eq!(at_phone.session_id, hash(&[b"happy/1 session id", &t2])[..16]);
    let mut code = [0; 8];
    crate::suite::expand_from(&part(5), &[b"happy/1 confirmation code"], &mut code);
    assert_eq!(u64::from(at_phone.confirmation_code()), u64::from_be_bytes(code) % 1_000_000);
}

#[test]
fn a_link_needs_no_invitation_and_no_one_time_prekey() {
    let mut two = Two::new(1);
    let bundle = two.bundle().without_one_time();
    let secret = pair_secret(7);
    let (initiator, hello) =
        Initiator::start(&mut two.rng, &two.phone, &bundle, Shared::Pair(&secret), [3; 16], b"").unwrap();
    let (responder, welcome) =
        Responder::answer(&mut two.rng, &two.machine, &two.signed, None, &hello, ([2; 16], 0), Shared::Pair(&secret))
            .unwrap();
    assert_eq!(HelloView::parse(&hello).unwrap().secret_name(), secret.name());
    let (mut at_phone, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    let mut at_machine = responder.confirm(&confirm).unwrap();
    let (next, same) = (at_phone.next_pair_secret(), at_machine.next_pair_secret());
    assert_eq!((next.number(), &*next.to_bytes()), (8, &*same.to_bytes()));
    assert_ne!(next.to_bytes()[8..], secret.to_bytes()[8..]);
    assert_they_talk(&mut two.rng, &mut at_phone, &mut at_machine);
}

#[test]
fn a_link_with_another_pair_secret_is_refused() {
    let mut two = Two::new(22);
    let bundle = two.bundle().without_one_time();
    let mut hello = |secret: &PairSecret| {
        Initiator::start(&mut two.rng, &two.phone, &bundle, Shared::Pair(secret), [3; 16], b"").unwrap().1
    };
    let mut key_differs = *pair_secret(7).to_bytes();
    key_differs[39] ^= 1;
    let other_key = hello(&PairSecret::from_bytes(&key_differs).unwrap());
    // The name alone can be changed by anybody, the key cannot.
    let (secret, rng) = (pair_secret(7), &mut rng(1));
    let mut renamed = other_key.clone();
    renamed[NAME_AT..NAME_AT + 8].copy_from_slice(&secret.name());
    let mut answer = |hello: &[u8]| {
        Responder::answer(rng, &two.machine, &two.signed, None, hello, ([2; 16], 0), Shared::Pair(&secret)).err()
    };
    assert_eq!(answer(&other_key), Some(HandshakeError::UnknownSecret));
    assert_eq!(answer(&renamed), Some(HandshakeError::NotAuthentic));
}

#[test]
fn a_hello_with_any_byte_changed_is_refused() {
    let mut two = Two::new(2);
    let (_, hello) = two.start();
    for (at, damaged) in flips(&hello) {
        assert!(two.answer(&damaged).is_err(), "byte {at}");
    }
    assert!(two.answer(&hello).is_ok());
}

#[test]
fn a_welcome_with_any_byte_changed_is_refused_and_the_genuine_one_still_works() {
    let mut two = Two::new(3);
    let (initiator, hello) = two.start();
    let (responder, welcome) = two.answer(&hello).unwrap();
    for (at, damaged) in flips(&welcome) {
        assert!(initiator.welcome(&mut two.rng, &damaged).is_err(), "byte {at}");
    }
    let (_, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    for (at, damaged) in flips(&confirm) {
        assert!(responder.confirm(&damaged).is_err(), "byte {at}");
    }
    assert!(responder.confirm(&confirm).is_ok());
}

#[test]
fn a_message_of_another_length_is_refused() {
    let mut two = Two::new(4);
    let (initiator, hello) = two.start();
    let (responder, welcome) = two.answer(&hello).unwrap();
    let (_, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    for length in 0..hello.len() {
        assert!(two.answer(&hello[..length]).is_err());
    }
    for length in 0..welcome.len() {
        assert!(initiator.welcome(&mut two.rng, &welcome[..length]).is_err());
    }
    for length in 0..confirm.len() {
        assert!(responder.confirm(&confirm[..length]).is_err());
    }
    let trailing = Some(HandshakeError::Malformed(DecodeError::TrailingBytes));
    assert_eq!(two.answer(&[&hello[..], &[0]].concat()).err(), trailing);
    assert_eq!(initiator.welcome(&mut two.rng, &[&welcome[..], &[0]].concat()).err(), trailing);
    assert_eq!(responder.confirm(&[&confirm[..], &[0]].concat()).err(), trailing);
}

/// X3DH 4.2: who plays a Hello again gets a Welcome, and can do nothing with it.
#[test]
fn a_replayed_hello_leads_to_no_session() {
    let mut two = Two::new(5);
    let (initiator, hello) = two.start();
    let (first, welcome) = two.answer(&hello).unwrap();
    let (_, old_confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    first.confirm(&old_confirm).unwrap();

    let (second, new_welcome) = two.answer(&hello).unwrap();
    assert!(!second.matches_confirm(&old_confirm));
    assert_eq!(second.confirm(&old_confirm).err(), Some(HandshakeError::NotMine));
    // The prefix is public; with it the attacker still lacks the key.
    let (_, for_other) = initiator.welcome(&mut two.rng, &new_welcome).unwrap();
    let spliced = [&for_other[..16], &old_confirm[16..]].concat();
    assert_eq!(second.confirm(&spliced).err(), Some(HandshakeError::NotAuthentic));
}

#[test]
fn a_replayed_hello_is_refused_once_its_one_time_prekey_is_gone() {
    let mut two = Two::new(5);
    let (_, hello) = two.start();
    two.one_time = OneTimePrekey::generate(&mut two.rng, 3);
    assert_eq!(two.answer(&hello).err(), Some(HandshakeError::UnknownPrekey));
    // The same id with another key is not the same prekey.
    two.one_time = OneTimePrekey::generate(&mut two.rng, 2);
    assert_eq!(two.answer(&hello).err(), Some(HandshakeError::NotAuthentic));
}

#[test]
fn messages_of_two_handshakes_do_not_mix() {
    let mut two = Two::new(6);
    let ((one, hello_one), (other, hello_other)) = (two.start(), two.start());
    let (responder_one, welcome_one) = two.answer(&hello_one).unwrap();
    let (responder_other, welcome_other) = two.answer(&hello_other).unwrap();
    assert!(one.matches_welcome(&welcome_one) && !one.matches_welcome(&welcome_other));
    assert_eq!(one.welcome(&mut two.rng, &welcome_other).err(), Some(HandshakeError::NotMine));
    assert_eq!(other.welcome(&mut two.rng, &welcome_one).err(), Some(HandshakeError::NotMine));
    let spliced = [&welcome_one[..18], &welcome_other[18..]].concat();
    assert_eq!(one.welcome(&mut two.rng, &spliced).err(), Some(HandshakeError::NotAuthentic));
    let (at_one, confirm_one) = one.welcome(&mut two.rng, &welcome_one).unwrap();
    let (at_other, _) = other.welcome(&mut two.rng, &welcome_other).unwrap();
    assert_eq!(responder_other.confirm(&confirm_one).err(), Some(HandshakeError::NotMine));
    assert!(responder_one.confirm(&confirm_one).is_ok());
    assert_ne!(at_one.session_id, at_other.session_id);
}

/// An unknown key share would let the machine believe that it talks to Mallory while it talks to the phone.
#[test]
fn another_initiator_in_the_hello_is_refused() {
    let mut two = Two::new(7);
    let (_, hello) = two.start();
    let mallory = Identity::generate(&mut two.rng);
    let mut swapped = hello.clone();
    swapped[3..3 + IdentityRecord::LEN].copy_from_slice(mallory.record().as_bytes());
    assert_eq!(two.answer(&swapped).err(), Some(HandshakeError::NotAuthentic));
}

#[test]
fn another_responder_in_the_hello_is_refused() {
    let mut two = Two::new(8);
    let (_, hello) = two.start();
    let other = Identity::generate(&mut two.rng);
    let mut redirected = hello.clone();
    let at = 3 + IdentityRecord::LEN;
    redirected[at..at + 32].copy_from_slice(other.device_id().as_bytes());
    assert_eq!(two.answer(&redirected).err(), Some(HandshakeError::NotMine));
    // Another machine with the same prekeys cannot answer it either.
    let signed = SignedPrekey::from_bytes(&other, &*two.signed.to_bytes()).unwrap();
    for hello in [&hello, &redirected] {
        let one_time = Some(&two.one_time);
        let answer = Responder::answer(
            &mut two.rng,
            &other,
            &signed,
            one_time,
            hello,
            ([2; 16], 0),
            Shared::Invitation(&invitation()),
        );
        assert!(answer.is_err());
    }
}

#[test]
fn a_device_does_not_shake_hands_with_itself() {
    let mut two = Two::new(9);
    let bundle = two.bundle();
    let start = Initiator::start(&mut two.rng, &two.machine, &bundle, Shared::Invitation(&invitation()), [3; 16], b"");
    assert_eq!(start.err(), Some(HandshakeError::Reflected));
}

/// Roles are part of the keys: what the initiator proves cannot be sent back to it as the responder's proof.
#[test]
fn the_two_confirmations_differ() {
    let mut two = Two::new(10);
    let (initiator, hello) = two.start();
    let (_, welcome) = two.answer(&hello).unwrap();
    let (_, confirm) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    assert_ne!(welcome[WELCOME_LEN - 32..], confirm[16..]);
}

#[test]
fn a_wrong_invitation_key_is_refused() {
    let mut two = Two::new(11);
    let bundle = two.bundle();
    let wrong = InvitationKey::new([43; 32].into());
    let (_, hello) =
        Initiator::start(&mut two.rng, &two.phone, &bundle, Shared::Invitation(&wrong), [3; 16], CONTEXT).unwrap();
    assert_eq!(two.answer(&hello).err(), Some(HandshakeError::NotAuthentic));
}

/// Even with the same 32 bytes, a pairing is not a link.
#[test]
fn a_hello_for_another_purpose_is_refused() {
    let mut two = Two::new(12);
    let (_, pairing) = two.start();
    let secret = PairSecret::from_bytes(&[&1_u64.to_be_bytes()[..], &PSK].concat()).unwrap();
    let (rng, one_time) = (&mut two.rng, Some(&two.one_time));
    let bundle = Bundle::new(&two.machine, &two.signed, one_time);
    let (_, link) = Initiator::start(rng, &two.phone, &bundle, Shared::Pair(&secret), [3; 16], b"").unwrap();
    for (hello, shared) in [(&pairing, Shared::Pair(&secret)), (&link, Shared::Invitation(&invitation()))] {
        let answer = Responder::answer(rng, &two.machine, &two.signed, one_time, hello, ([2; 16], 0), shared);
        assert_eq!(answer.err(), Some(HandshakeError::WrongPurpose));
    }
    // The byte that says so is authenticated.
    let mut relabelled = pairing.clone();
    relabelled[2] = 2;
    relabelled[NAME_AT..NAME_AT + 8].copy_from_slice(&secret.name());
    let answer =
        Responder::answer(rng, &two.machine, &two.signed, one_time, &relabelled, ([2; 16], 0), Shared::Pair(&secret));
    assert_eq!(answer.err(), Some(HandshakeError::NotAuthentic));
}

#[test]
fn a_context_is_at_most_255_bytes() {
    let mut two = Two::new(13);
    let bundle = two.bundle();
    let mut start = |context: &[u8]| {
        Initiator::start(&mut two.rng, &two.phone, &bundle, Shared::Invitation(&invitation()), [3; 16], context)
    };
    assert_eq!(start(&[b'x'; 256]).err(), Some(HandshakeError::ContextTooLong));
    let (_, hello) = start(&[b'x'; 255]).unwrap();
    assert_eq!(hello.len(), MAX_HELLO_LEN);
    assert!(HelloView::parse(&hello).is_ok());
}

#[test]
fn other_versions_and_suites_say_so() {
    let mut two = Two::new(14);
    let (_, mut hello) = two.start();
    hello[1] = 1;
    assert_eq!(HelloView::parse(&hello).err(), Some(DecodeError::UnsupportedSuite(1)));
    hello[0] = 2;
    assert_eq!(HelloView::parse(&hello).err(), Some(DecodeError::UnsupportedVersion(2)));
}

// Low-order points in each position of a message that can be reached without a signature of the victim.

#[test]
fn a_low_order_ephemeral_in_hello_is_refused() {
    let mut two = Two::new(15);
    let (_, hello) = two.start();
    let at = 3 + IdentityRecord::LEN + 32;
    for point in LOW_ORDER {
        let mut weak = hello.clone();
        weak[at..at + 32].copy_from_slice(&point);
        let error = two.answer(&weak).unwrap_err();
        assert!(matches!(error, HandshakeError::WeakKey | HandshakeError::Malformed(DecodeError::Key)), "{error:?}");
    }
}

#[test]
fn a_low_order_ephemeral_or_ratchet_key_in_welcome_is_refused() {
    let mut two = Two::new(16);
    let (initiator, hello) = two.start();
    let (_, welcome) = two.answer(&hello).unwrap();
    for at in [18, 50 + 1088] {
        for point in LOW_ORDER {
            let mut weak = welcome.clone();
            weak[at..at + 32].copy_from_slice(&point);
            assert!(initiator.welcome(&mut two.rng, &weak).is_err());
        }
    }
}

/// The owner of an identity can sign anything, also a record or a prekey that is weak.
#[test]
fn weak_keys_that_are_properly_signed_are_refused() {
    let mut two = Two::new(17);
    let device = two.machine.device_id();
    for point in LOW_ORDER {
        let mut record = *two.machine.record().as_bytes();
        record[33..65].copy_from_slice(&point);
        let signature = two.machine.sign("happy/1 identity", &record[..65]);
        record[65..].copy_from_slice(&signature);

        // As the identity of the responder.
        let mut bundle = two.bundle().as_bytes().to_vec();
        bundle[2..2 + IdentityRecord::LEN].copy_from_slice(&record);
        assert!(start_with(&mut two, &bundle).is_err());

        // As its signed prekey.
        let mut bundle = two.bundle().as_bytes().to_vec();
        bundle[135..167].copy_from_slice(&point);
        let signed = [device.as_bytes(), &[1, 2][..], &5_u32.to_be_bytes(), &point, &1_000_u64.to_be_bytes()];
        let signature = two.machine.sign("happy/1 signed prekey", &signed.concat());
        bundle[175..239].copy_from_slice(&signature);
        assert!(start_with(&mut two, &bundle).is_err());

        // As its one-time prekey.
        let mut bundle = two.bundle().as_bytes().to_vec();
        bundle[243..].copy_from_slice(&point);
        assert!(start_with(&mut two, &bundle).is_err());

        // As the identity of the initiator.
        let mut weak = *two.phone.record().as_bytes();
        weak[33..65].copy_from_slice(&point);
        let signature = two.phone.sign("happy/1 identity", &weak[..65]);
        weak[65..].copy_from_slice(&signature);
        let (_, mut hello) = two.start();
        hello[3..3 + IdentityRecord::LEN].copy_from_slice(&weak);
        let error = two.answer(&hello).unwrap_err();
        assert!(matches!(error, HandshakeError::WeakKey | HandshakeError::Malformed(DecodeError::Key)), "{error:?}");
    }
}

fn start_with(two: &mut Two, bundle: &[u8]) -> Result<(), HandshakeError> {
    let bundle = Bundle::decode(bundle)?;
    Initiator::start(&mut two.rng, &two.phone, &bundle, Shared::Invitation(&invitation()), [3; 16], CONTEXT).map(drop)
}

#[test]
fn a_refusal_is_signed_and_about_one_hello() {
    let mut two = Two::new(18);
    let (initiator, hello) = two.start();
    let machine = two.machine.device_id();
    let refused = Refused::sign(&two.machine, Refused::REVOKED, &hello);
    assert_eq!(refused.len(), Refused::LEN);
    assert_eq!(Refused::verify(&machine, &initiator.hello_hash(), &refused), Ok(Refused::REVOKED));

    let (other, _) = two.start();
    assert_eq!(Refused::verify(&machine, &other.hello_hash(), &refused), Err(RefusedError::AnotherHello));
    let forged = Refused::sign(&two.phone, Refused::REVOKED, &hello);
    assert!(matches!(Refused::verify(&machine, &initiator.hello_hash(), &forged), Err(RefusedError::Signature(_))));
    for (at, damaged) in flips(&refused) {
        assert!(Refused::verify(&machine, &initiator.hello_hash(), &damaged).is_err(), "byte {at}");
    }
}

#[test]
fn secrets_do_not_print() {
    let mut two = Two::new(19);
    let (initiator, hello) = two.start();
    let (responder, welcome) = two.answer(&hello).unwrap();
    let (established, _) = initiator.welcome(&mut two.rng, &welcome).unwrap();
    let machine = two.machine.device_id().short();
    assert_eq!(format!("{initiator:?}"), format!("Initiator {{ peer: {machine}, .. }}"));
    assert_eq!(format!("{responder:?}"), format!("Responder {{ peer: {}, .. }}", two.phone.device_id().short()));
    assert_eq!(format!("{established:?}"), format!("Established {{ peer: {machine}, .. }}"));
    assert_eq!(format!("{:?}", established.ratchet), "Ratchet { can_send: true, .. }");
}

proptest::proptest! {
    #[test]
    fn garbage_is_refused_without_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        let mut two = Two::new(20);
        let (initiator, hello) = two.start();
        let (responder, _) = two.answer(&hello).unwrap();
        proptest::prop_assert!(two.answer(&bytes).is_err());
        proptest::prop_assert!(initiator.welcome(&mut two.rng, &bytes).is_err());
        proptest::prop_assert!(responder.confirm(&bytes).is_err());
        proptest::prop_assert!(Bundle::decode(&bytes).is_err());
    }
}
