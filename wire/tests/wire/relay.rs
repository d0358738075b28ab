use happy_crypto::DeviceId;
use happy_wire::enrolment::KeyId;
use happy_wire::relay::{
    Credential, FromRelay, MAX_FRAME, MAX_PAYLOAD, MAX_PEERS, MAX_RENDEZVOUS_SECONDS, RecordAnswer, RendezvousState,
    ToRelay, Undelivered, login_message,
};
use happy_wire::{Code, WireError};
use proptest::prelude::*;

use crate::{bytes, device, holds, text};

fn to_relay() -> impl Strategy<Value = (ToRelay<'static>, Vec<u8>)> {
    let plain = prop_oneof![
        (device(), any::<u64>(), any::<[u8; 16]>(), credential(), any::<[u8; 64]>()).prop_map(
            |(device, epoch, client_nonce, credential, signature)| ToRelay::Login {
                device,
                epoch,
                client_nonce,
                credential,
                signature
            }
        ),
        (device(), any::<u32>()).prop_map(|(to, tag)| ToRelay::Send { to, tag, payload: &[] }),
        proptest::collection::vec(device(), 0..=6).prop_map(ToRelay::Peers),
        Just(ToRelay::Peers(vec![DeviceId::from_bytes([3; 32]); MAX_PEERS])),
        (any::<[u8; 32]>(), 1..=MAX_RENDEZVOUS_SECONDS)
            .prop_map(|(ticket_hash, seconds)| ToRelay::OpenRendezvous { ticket_hash, seconds }),
        any::<[u8; 32]>().prop_map(|ticket_hash| ToRelay::CloseRendezvous { ticket_hash }),
        any::<u64>().prop_map(ToRelay::Ping),
        any::<u64>().prop_map(ToRelay::Pong),
        (any::<u8>(), 1..=u64::MAX).prop_map(|(kind, version)| ToRelay::PutRecord { kind, version, sealed: b"x" }),
        (device(), any::<u8>()).prop_map(|(machine, kind)| ToRelay::GetRecord { machine, kind }),
        Just(ToRelay::GetToken),
    ];
    (plain, bytes(300))
}

fn credential() -> impl Strategy<Value = Credential> {
    prop_oneof![
        Just(Credential::None),
        any::<[u8; 32]>().prop_map(Credential::Ticket),
        (any::<[u8; 8]>(), any::<[u8; 64]>())
            .prop_map(|(key, signature)| Credential::Enrolment { key: KeyId::from_bytes(key), signature }),
    ]
}

/// What of it is signed.
fn without_signature(credential: Credential) -> Credential {
    match credential {
        Credential::Enrolment { key, .. } => Credential::Enrolment { key, signature: [0; 64] },
        other => other,
    }
}

fn from_relay() -> impl Strategy<Value = (FromRelay<'static>, Vec<u8>, String)> {
    let state = prop_oneof![Just(RendezvousState::Refused), Just(RendezvousState::Open), Just(RendezvousState::Ended)];
    let answer = prop_oneof![
        Just(RecordAnswer::Asked),
        Just(RecordAnswer::Stored),
        Just(RecordAnswer::Conflict),
        Just(RecordAnswer::Refused)
    ];
    let plain = prop_oneof![
        any::<[u8; 32]>().prop_map(|nonce| FromRelay::Challenge { nonce }),
        (any::<u32>(), any::<u32>(), proptest::option::of(device())).prop_map(|(max_payload, queue_bytes, host)| {
            // Zeros mean that there is no host.
            FromRelay::Welcome { max_payload, queue_bytes, host: host.filter(|host| host.as_bytes() != &[0; 32]) }
        }),
        (device(), any::<bool>()).prop_map(|(from, rendezvous)| FromRelay::Deliver { from, rendezvous, payload: &[] }),
        (device(), any::<u32>(), any::<u8>()).prop_map(|(to, tag, reason)| FromRelay::Undeliverable {
            to,
            tag,
            reason: Undelivered::from(reason)
        }),
        (device(), any::<bool>()).prop_map(|(device, here)| FromRelay::Presence { device, here }),
        (any::<u16>(), any::<u32>()).prop_map(|(code, retry_after_ms)| FromRelay::Goaway {
            code: Code(code),
            retry_after_ms,
            text: ""
        }),
        (any::<[u8; 32]>(), state).prop_map(|(ticket_hash, state)| FromRelay::Rendezvous { ticket_hash, state }),
        any::<u64>().prop_map(FromRelay::Ping),
        any::<u64>().prop_map(FromRelay::Pong),
        (device(), any::<u8>(), answer, any::<u64>(), 1..=u64::MAX).prop_map(
            |(machine, kind, answer, last_seen, version)| FromRelay::Record {
                machine,
                kind,
                answer,
                last_seen,
                version,
                sealed: b"x"
            }
        ),
        (device(), any::<u8>()).prop_map(|(machine, kinds)| FromRelay::Changed { machine, kinds }),
        any::<u64>().prop_map(|expires| FromRelay::Token { expires, token: "" }),
    ];
    (plain, bytes(300), text())
}

fn encode_to(frame: &ToRelay<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn encode_from(frame: &FromRelay<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn frames_to_a_relay_hold((mut frame, bytes) in to_relay()) {
        let mut open = None;
        match &mut frame {
            ToRelay::Send { payload, .. } => {
                *payload = &bytes;
                open = Some(bytes.len());
            }
            // Of a record at least one byte has to be there.
            ToRelay::PutRecord { sealed, .. } => open = Some(sealed.len() - 1),
            _ => {}
        }
        let encoded = encode_to(&frame);
        holds(&encoded, open, |cut| ToRelay::decode(cut).map(|frame| encode_to(&frame)))?;
        prop_assert_eq!(ToRelay::decode(&encoded), Ok(frame));
    }

    #[test]
    fn frames_from_a_relay_hold((mut frame, bytes, words) in from_relay()) {
        let mut open = None;
        match &mut frame {
            FromRelay::Deliver { payload, .. } => {
                *payload = &bytes;
                open = Some(bytes.len());
            }
            FromRelay::Goaway { text, .. } => *text = &words,
            FromRelay::Record { sealed, .. } => open = Some(sealed.len() - 1),
            _ => {}
        }
        // A token is text of any length, so a cut inside a letter is refused.
        if matches!(frame, FromRelay::Token { .. }) {
            open = Some(0);
        }
        let encoded = encode_from(&frame);
        holds(&encoded, open, |cut| FromRelay::decode(cut).map(|frame| encode_from(&frame)))?;
        prop_assert_eq!(FromRelay::decode(&encoded), Ok(frame));
    }

    /// Whatever is taken has one form: two devices cannot read two things out of the same bytes, nor write one thing in two ways.
    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(mut bytes in bytes(200), kind in any::<u8>(), known in 0..=0x10_u8) {
        let kinds = [kind, known, 0x80 | known];
        for kind in kinds {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if let Ok(frame) = ToRelay::decode(&bytes) {
                prop_assert_eq!(&encode_to(&frame), &bytes);
            }
            if let Ok(frame) = FromRelay::decode(&bytes) {
                prop_assert_eq!(&encode_from(&frame), &bytes);
            }
        }
    }

    #[test]
    fn a_flipped_bit_never_reads_as_the_same_frame((mut frame, bytes) in to_relay(), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        if let ToRelay::Send { payload, .. } = &mut frame {
            *payload = &bytes;
        }
        let mut flipped = encode_to(&frame);
        let place = place.index(flipped.len());
        flipped[place] ^= 1 << bit;
        prop_assert_ne!(ToRelay::decode(&flipped), Ok(frame));
    }

    /// Two logins that differ in anything are signed over different bytes.
    #[test]
    fn what_is_signed_says_everything(
        names in ("[a-z.:0-9]{1,40}", "[a-z.:0-9]{1,40}"), nonces in any::<[[u8; 32]; 2]>(), devices in (device(), device()),
        epochs in any::<[u64; 2]>(), clients in any::<[[u8; 16]; 2]>(), shown in [credential(), credential()], same in any::<[bool; 6]>(),
    ) {
        let pick = |n: usize| usize::from(!same[n]);
        let (name, device) = ([&names.0, &names.1], [&devices.0, &devices.1]);
        let one = login_message(name[0], &nonces[0], device[0], epochs[0], &clients[0], &shown[0]);
        let other = login_message(
            name[pick(0)], &nonces[pick(1)], device[pick(2)], epochs[pick(3)], &clients[pick(4)], &shown[pick(5)],
        );
        let equal = name[0] == name[pick(0)] && nonces[0] == nonces[pick(1)] && device[0] == device[pick(2)]
            && epochs[0] == epochs[pick(3)] && clients[0] == clients[pick(4)]
            && without_signature(shown[0]) == without_signature(shown[pick(5)]);
        prop_assert_eq!(one == other, equal);
    }
}

fn id(byte: u8) -> DeviceId {
    DeviceId::from_bytes([byte; 32])
}

/// The bytes of PROTOCOL 7, written out by hand.
#[test]
fn frames_look_as_the_page_says() {
    let cat = |parts: &[&[u8]]| parts.concat();
    let login =
        |credential| ToRelay::Login { device: id(7), epoch: 5, client_nonce: [8; 16], credential, signature: [9; 64] };
    let to = [
        (login(Credential::None), cat(&[&[1, 1], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 5], &[8; 16], &[0], &[9; 64]])),
        (
            login(Credential::Ticket([6; 32])),
            cat(&[&[1, 1], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 5], &[8; 16], &[1], &[6; 32], &[9; 64]]),
        ),
        (
            login(Credential::Enrolment { key: KeyId::from_bytes([5; 8]), signature: [4; 64] }),
            cat(&[&[1, 1], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 5], &[8; 16], &[2], &[5; 8], &[9; 64], &[4; 64]]),
        ),
        (ToRelay::Send { to: id(7), tag: 258, payload: b"hi" }, cat(&[&[2], &[7; 32], &[0, 0, 1, 2], b"hi"])),
        (ToRelay::Peers(vec![id(1), id(2)]), cat(&[&[3, 0, 2], &[1; 32], &[2; 32]])),
        (ToRelay::OpenRendezvous { ticket_hash: [4; 32], seconds: 120 }, cat(&[&[4], &[4; 32], &[0, 120]])),
        (ToRelay::CloseRendezvous { ticket_hash: [4; 32] }, cat(&[&[5], &[4; 32]])),
        (ToRelay::Ping(1), vec![6, 0, 0, 0, 0, 0, 0, 0, 1]),
        (ToRelay::Pong(1), vec![7, 0, 0, 0, 0, 0, 0, 0, 1]),
        (ToRelay::PutRecord { kind: 2, version: 258, sealed: b"s" }, vec![8, 2, 0, 0, 0, 0, 0, 0, 1, 2, b's']),
        (ToRelay::GetRecord { machine: id(7), kind: 1 }, cat(&[&[9], &[7; 32], &[1]])),
        (ToRelay::GetToken, vec![10]),
    ];
    for (frame, bytes) in to {
        assert_eq!(encode_to(&frame), bytes, "{frame:?}");
    }
    let goaway = FromRelay::Goaway { code: Code::DISPLACED, retry_after_ms: 1, text: "ab" };
    let from = [
        (FromRelay::Challenge { nonce: [3; 32] }, cat(&[&[0x81, 1], &[3; 32]])),
        (
            FromRelay::Welcome { max_payload: 65_536, queue_bytes: 262_144, host: None },
            cat(&[&[0x82, 1, 0, 1, 0, 0, 0, 4, 0, 0], &[0; 32]]),
        ),
        (FromRelay::Deliver { from: id(7), rendezvous: true, payload: b"hi" }, cat(&[&[0x83], &[7; 32], &[1], b"hi"])),
        (
            FromRelay::Undeliverable { to: id(7), tag: 1, reason: Undelivered::QueueFull },
            cat(&[&[0x84], &[7; 32], &[0, 0, 0, 1, 3]]),
        ),
        (FromRelay::Presence { device: id(7), here: true }, cat(&[&[0x85], &[7; 32], &[1]])),
        (goaway, vec![0x86, 0x11, 0x39, 0, 0, 0, 1, 2, b'a', b'b']),
        (
            FromRelay::Rendezvous { ticket_hash: [4; 32], state: RendezvousState::Ended },
            cat(&[&[0x87], &[4; 32], &[2]]),
        ),
        (FromRelay::Ping(2), vec![6, 0, 0, 0, 0, 0, 0, 0, 2]),
        (FromRelay::Pong(2), vec![7, 0, 0, 0, 0, 0, 0, 0, 2]),
        (
            FromRelay::Record {
                machine: id(7),
                kind: 2,
                answer: RecordAnswer::Conflict,
                last_seen: 3,
                version: 4,
                sealed: b"s",
            },
            cat(&[&[0x88], &[7; 32], &[2, 2], &[0, 0, 0, 0, 0, 0, 0, 3], &[0, 0, 0, 0, 0, 0, 0, 4], b"s"]),
        ),
        (FromRelay::Changed { machine: id(7), kinds: 3 }, cat(&[&[0x89], &[7; 32], &[3]])),
        (FromRelay::Token { expires: 5, token: "a.b" }, cat(&[&[0x8a, 0, 0, 0, 0, 0, 0, 0, 5], b"a.b"])),
    ];
    for (frame, bytes) in from {
        assert_eq!(encode_from(&frame), bytes, "{frame:?}");
    }
    assert_eq!(
        login_message("ab", &[1; 32], &id(7), 5, &[8; 16], &Credential::Ticket([6; 32])),
        cat(&[&[2], b"ab", &[1; 32], &[7; 32], &[0, 0, 0, 0, 0, 0, 0, 5], &[8; 16], &[1], &[6; 32]])
    );
}

#[test]
fn the_largest_frames_fit_the_limit() {
    let payload = vec![0; MAX_PAYLOAD];
    assert!(encode_to(&ToRelay::Send { to: id(1), tag: 0, payload: &payload }).len() <= MAX_FRAME);
    assert!(encode_from(&FromRelay::Deliver { from: id(1), rendezvous: false, payload: &payload }).len() <= MAX_FRAME);
    assert!(encode_to(&ToRelay::Peers(vec![id(1); MAX_PEERS])).len() <= MAX_FRAME);
}

#[test]
fn what_the_tables_do_not_list_is_refused() {
    let peers = |count: u16, ids: usize| [&[3][..], &count.to_be_bytes(), &vec![1; 32 * ids]].concat();
    assert_eq!(ToRelay::decode(&peers(257, 257)), Err(WireError::Field("count of peers")));
    assert_eq!(ToRelay::decode(&peers(u16::MAX, 0)), Err(WireError::Field("count of peers")));
    assert_eq!(ToRelay::decode(&peers(2, 1)), Err(WireError::Cut));
    let open = |seconds: u16| [&[4][..], &[0; 32], &seconds.to_be_bytes()].concat();
    for seconds in [0, 301, u16::MAX] {
        assert_eq!(ToRelay::decode(&open(seconds)), Err(WireError::Field("seconds of a rendezvous")));
    }
    assert_eq!(ToRelay::decode(&[1, 2]), Err(WireError::Version(2)));
    assert_eq!(FromRelay::decode(&[0x81, 0]), Err(WireError::Version(0)));
    // Words of one direction are not known in the other.
    assert_eq!(
        ToRelay::decode(&encode_from(&FromRelay::Challenge { nonce: [0; 32] })),
        Err(WireError::UnknownType(0x81))
    );
    assert_eq!(FromRelay::decode(&encode_to(&ToRelay::Peers(vec![]))), Err(WireError::UnknownType(3)));
    assert_eq!(ToRelay::decode(&[]), Err(WireError::Cut));
    let goaway = [&[0x86, 0, 0, 0, 0, 0, 0, 2][..], &[0xff, 0xfe]].concat();
    assert_eq!(FromRelay::decode(&goaway), Err(WireError::Field("text")));
}

#[test]
fn a_text_too_long_is_cut_between_characters() {
    let text = "é".repeat(200);
    let frame = FromRelay::Goaway { code: Code::GOODBYE, retry_after_ms: 0, text: &text };
    let encoded = encode_from(&frame);
    let Ok(FromRelay::Goaway { text: read, .. }) = FromRelay::decode(&encoded) else { panic!("{encoded:?}") };
    assert_eq!(read, "é".repeat(127));
}
