//! All 14 encodings of the points of low order, wherever the other side's X25519 key goes into an agreement.
//!
//! The peer is hostile and otherwise flawless: whoever sends such a key knows that the agreement will be zero, so it can compute each
//! code and each key that follows. Nothing but the check of the key itself stands in its way, and with an ordinary key in the same
//! place the same peer is let in.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests speak by failing")]

use happy_crypto::{
    Bundle, DecodeError, HandshakeError, Identity, OneTimePrekey, OpenError, Ratchet, SignedPrekey,
    handshake::{Established, Initiator, InvitationKey, Responder, Shared},
};
use happy_vectors::{
    Randomness,
    page::{self, Device, HelloFields, HelloKeys, Key, Prekey, SessionKeys, kem},
};

const PSK: [u8; 32] = [42; 32];
const LIFE: [u8; 16] = [1; 16];
const KEM_SEED: [u8; 64] = [3; 64];

/// 0, 1, two of order 8, p − 1, p, p + 1, and each with the high bit, which X25519 ignores.
fn low_order() -> [[u8; 32]; 14] {
    let hex = |text: &str| std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap());
    let (zeros, ones) = ("00".repeat(31), "ff".repeat(30));
    let points: [[u8; 32]; 7] = [
        hex(&format!("00{zeros}")),
        hex(&format!("01{zeros}")),
        hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        hex(&format!("ec{ones}7f")),
        hex(&format!("ed{ones}7f")),
        hex(&format!("ee{ones}7f")),
    ];
    std::array::from_fn(|i| {
        let mut point = points[i % 7];
        point[31] |= if i < 7 { 0 } else { 0x80 };
        point
    })
}

/// Why a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NotCanonical,
    Weak,
    /// A ratchet gives no reason.
    CannotBeOpened,
}

impl From<HandshakeError> for Refusal {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Malformed(DecodeError::Key) => Self::NotCanonical,
            HandshakeError::WeakKey => Self::Weak,
            other => panic!("refused for another reason: {other}"),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        HandshakeError::from(error).into()
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        assert_eq!(error, OpenError::CannotBeOpened);
        Self::CannotBeOpened
    }
}

type Outcome = Result<(), Refusal>;

/// A place for a key.
struct Position {
    name: &'static str,
    /// Plays the peer with this key in the place.
    with: fn(Key) -> Outcome,
}

const POSITIONS: [Position; 10] = [
    Position { name: "identity key of R, in its bundle", with: identity_of_responder },
    Position { name: "signed prekey of R, in its bundle", with: signed_prekey },
    Position { name: "one-time prekey of R, in its bundle", with: one_time_prekey },
    Position { name: "identity key of I, in Hello", with: identity_of_initiator },
    Position { name: "EK_I, in Hello", with: ephemeral_of_initiator },
    Position { name: "EK_R, in Welcome", with: ephemeral_of_responder },
    Position { name: "RK_R, in Welcome", with: first_ratchet_key_of_responder },
    Position { name: "ratchet key of I, in its first message", with: first_ratchet_key_of_initiator },
    Position { name: "ratchet key of R, in a header that turns the ratchet", with: next_ratchet_key_of_responder },
    Position { name: "ratchet key of I, in a header that turns the ratchet", with: next_ratchet_key_of_initiator },
];

#[test]
fn no_point_of_low_order_is_used_in_any_position() {
    let mut refused = 0;
    for Position { name, with } in &POSITIONS {
        let mut good = Key::new([77; 32]);
        assert_eq!(with(good), Ok(()), "the peer is flawless but for its key: {name}");
        // X25519 gives the same with this one, so everything holds but the rule that a key has one encoding.
        good.public[31] |= 0x80;
        assert!(matches!(with(good), Err(Refusal::NotCanonical | Refusal::CannotBeOpened)), "{name}");
        for point in low_order() {
            // A reduced u without the high bit is a proper encoding, of a weak key.
            let canonical = point[31] & 0x80 == 0 && !(point[31] == 0x7F && (point[0] == 0xED || point[0] == 0xEE));
            let expected = if canonical { Refusal::Weak } else { Refusal::NotCanonical };
            let outcome = with(Key::weak(point));
            assert!(
                outcome == Err(expected) || outcome == Err(Refusal::CannotBeOpened),
                "{name}, {point:02x?}: {outcome:?} instead of {expected:?}"
            );
            refused += 1;
        }
    }
    println!("{refused} refusals: 14 encodings in {} positions", POSITIONS.len());
    assert_eq!(refused, 14 * 10);
}

fn rng() -> Randomness {
    Randomness::new("low order")
}

/// The device of ours that the hostile one speaks to.
fn victim() -> (Identity, Device) {
    (Identity::from_bytes(&[11; 64]), Device::new(&[11; 64]))
}

/// The hostile device.
fn hostile() -> Device {
    Device::new(&[22; 64])
}

/// A hostile responder and what it publishes.
struct HostileResponder {
    device: Device,
    signed: page::SignedPrekey,
    one_time: Prekey,
}

impl HostileResponder {
    fn new() -> Self {
        Self {
            device: hostile(),
            signed: page::SignedPrekey { id: 1, key: Key::new([33; 32]), made_at: 99 },
            one_time: Prekey { id: 2, key: Key::new([44; 32]) },
        }
    }

    /// A victim begins a handshake.
    fn hello(&self) -> Result<(Initiator, Vec<u8>), Refusal> {
        let bundle = Bundle::decode(&page::bundle(&self.device, &self.signed, Some(&self.one_time)))?;
        let key = InvitationKey::new(PSK.into());
        let (me, shared) = (victim().0, Shared::Invitation(&key));
        Ok(Initiator::start(&mut rng(), &me, &bundle, shared, LIFE, b"")?)
    }

    /// Answers it with these keys; the victim takes it or refuses it.
    fn shake(&self, ephemeral: Key, ratchet_key: Key) -> Result<(Established, SessionKeys), Refusal> {
        let (initiator, hello) = self.hello()?;
        let hello = &hello[..hello.len() - 32];
        let identity_i = &victim().1.agreement.public;
        let ephemeral_i = hello[164..196].try_into().unwrap();
        let (signed, one_time) = (&self.signed.key, &self.one_time.key);
        let dhs = [
            signed.dh(identity_i),
            self.device.agreement.dh(ephemeral_i),
            signed.dh(ephemeral_i),
            one_time.dh(ephemeral_i),
        ];
        let record = self.device.record();
        let hello_keys = HelloKeys::derive(hello, &record, &signed.public, Some(&one_time.public), &dhs, &PSK);
        let (ciphertext, shared) = kem::encapsulate(hello[196..1_380].try_into().unwrap(), &[5; 32]);
        let welcome =
            page::welcome_without_mac(&hello_keys.t1, &ephemeral.public, &ciphertext, &ratchet_key.public, &LIFE, 0);
        let (dh5, dh6) = (ephemeral.dh(ephemeral_i), ephemeral.dh(identity_i));
        let keys = SessionKeys::derive(&hello_keys, &welcome, &dh5, &dh6, &shared);
        let (established, confirm) = initiator.welcome(&mut rng(), &[&welcome[..], &keys.mac_2].concat())?;
        assert_eq!(confirm, keys.confirm());
        Ok((established, keys))
    }
}

fn identity_of_responder(key: Key) -> Outcome {
    let mut peer = HostileResponder::new();
    peer.device.agreement = key;
    peer.shake(Key::new([55; 32]), Key::new([66; 32])).map(drop)
}

fn signed_prekey(key: Key) -> Outcome {
    let mut peer = HostileResponder::new();
    peer.signed.key = key;
    peer.shake(Key::new([55; 32]), Key::new([66; 32])).map(drop)
}

fn one_time_prekey(key: Key) -> Outcome {
    let mut peer = HostileResponder::new();
    peer.one_time.key = key;
    peer.shake(Key::new([55; 32]), Key::new([66; 32])).map(drop)
}

fn ephemeral_of_responder(key: Key) -> Outcome {
    HostileResponder::new().shake(key, Key::new([66; 32])).map(drop)
}

fn first_ratchet_key_of_responder(key: Key) -> Outcome {
    HostileResponder::new().shake(Key::new([55; 32]), key).map(drop)
}

fn next_ratchet_key_of_responder(key: Key) -> Outcome {
    let first = Key::new([66; 32]);
    let (mut victim, keys) = HostileResponder::new().shake(Key::new([55; 32]), first)?;
    let (header, next_header) = (keys.header_from_initiator, keys.next_header_from_responder);
    let mut peer = page::Ratchet::responder(keys.session_id, keys.root, first, header, next_header);
    let mut message = Vec::new();
    victim.ratchet.encrypt(&mut rng(), b"first", &mut message).unwrap();
    peer.receive(&message).unwrap();
    arrives(&mut victim.ratchet, &peer.send(Some(key), &[7; 16], b"reply").bytes)
}

/// A hostile initiator shakes hands with a victim.
fn shake(identity: Key, ephemeral: Key) -> Result<(Established, SessionKeys, [u8; 32]), Refusal> {
    let mut peer = hostile();
    peer.agreement = identity;
    let (me, me_page) = victim();
    let signed = SignedPrekey::from_bytes(&me, &[&[33; 32][..], &[0, 0, 0, 1], &[0; 8]].concat()).unwrap();
    let mut rng = rng();
    let one_time = OneTimePrekey::generate(&mut rng, 2);
    let one_time_key = Key::new(rng.drawn().try_into().unwrap());
    let signed_key = Key::new([33; 32]);
    let hello = page::hello_without_mac(&HelloFields {
        purpose: 1,
        initiator: &peer.record(),
        responder: &me_page.id(),
        ephemeral: &ephemeral.public,
        kem_key: &kem::public(&KEM_SEED),
        signed_prekey_id: 1,
        one_time_prekey_id: 2,
        secret_name: [0; 8],
        life: &LIFE,
        context: b"",
    });
    let dhs = [
        identity.dh(&signed_key.public),
        ephemeral.dh(&me_page.agreement.public),
        ephemeral.dh(&signed_key.public),
        ephemeral.dh(&one_time_key.public),
    ];
    let one_time_public = Some(&one_time_key.public);
    let hello_keys = HelloKeys::derive(&hello, &me_page.record(), &signed_key.public, one_time_public, &dhs, &PSK);
    let hello = [&hello[..], &hello_keys.mac_1].concat();
    let (key, life) = (InvitationKey::new(PSK.into()), (LIFE, 0));
    let (responder, welcome) =
        Responder::answer(&mut rng, &me, &signed, Some(&one_time), &hello, life, Shared::Invitation(&key))?;

    let (welcome, mac_2) = welcome.split_at(welcome.len() - 32);
    let ephemeral_r = welcome[18..50].try_into().unwrap();
    let shared = kem::decapsulate(&KEM_SEED, welcome[50..1_138].try_into().unwrap());
    let (dh5, dh6) = (ephemeral.dh(ephemeral_r), identity.dh(ephemeral_r));
    let keys = SessionKeys::derive(&hello_keys, welcome, &dh5, &dh6, &shared);
    assert_eq!(keys.mac_2, mac_2);
    let established = responder.confirm(&keys.confirm()).unwrap();
    Ok((established, keys, welcome[1_138..1_170].try_into().unwrap()))
}

fn identity_of_initiator(key: Key) -> Outcome {
    shake(key, Key::new([55; 32])).map(drop)
}

fn ephemeral_of_initiator(key: Key) -> Outcome {
    shake(Key::new([44; 32]), key).map(drop)
}

/// A session in which the hostile initiator begins with this ratchet key.
fn session(first: Key) -> (Ratchet, page::Ratchet) {
    let (victim, keys, their_key) = shake(Key::new([44; 32]), Key::new([55; 32])).unwrap();
    let (header, next_header) = (keys.header_from_initiator, keys.next_header_from_responder);
    let (peer, _) = page::Ratchet::initiator(keys.session_id, &keys.root, first, &their_key, header, next_header);
    (victim.ratchet, peer)
}

fn first_ratchet_key_of_initiator(key: Key) -> Outcome {
    let (mut victim, mut peer) = session(key);
    arrives(&mut victim, &peer.send(None, &[7; 16], b"first").bytes)
}

fn next_ratchet_key_of_initiator(key: Key) -> Outcome {
    let (mut victim, mut peer) = session(Key::new([66; 32]));
    arrives(&mut victim, &peer.send(None, &[7; 16], b"first").bytes).unwrap();
    let mut message = Vec::new();
    victim.encrypt(&mut rng(), b"reply", &mut message).unwrap();
    peer.receive(&message).unwrap();
    arrives(&mut victim, &peer.send(Some(key), &[8; 16], b"second").bytes)
}

fn arrives(victim: &mut Ratchet, message: &[u8]) -> Outcome {
    Ok(victim.decrypt(message, &mut Vec::new())?)
}
