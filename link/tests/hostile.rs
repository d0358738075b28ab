//! What hostile peers and hostile relays can do: end their own session, or nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::time::Duration;

use happy_link::{Class, Code, Event, LinkDown, Side, UNFINISHED_BYTES};
use happy_wire::call::CallMessage;
use happy_wire::frame::{FrameHeader, MAX_IN_FLIGHT_FRAMES, Record};
use happy_wire::packet::Packet;
use happy_wire::relay::FromRelay;
use model::lone::{Lone, Puppet, id};
use proptest::prelude::*;

fn frame(number: Option<u64>, acknowledgement: u64, records: &[Record<'_>]) -> Vec<u8> {
    let mut frame = Vec::new();
    FrameHeader { number, acknowledgement }.encode(&mut frame);
    records.iter().for_each(|record| record.encode(&mut frame));
    frame
}

fn open(channel: u32) -> Record<'static> {
    Record::Open { channel, class: Class::Bulk, limit: 1000, label: "x" }
}

/// A machine with a confirmed session, and the peer that will misbehave in it.
fn attacked() -> (Lone, Puppet) {
    let mut lone = Lone::machine();
    let mut puppet = Puppet::initiate(&mut lone, 2, 9);
    puppet.say(&mut lone, &frame(None, 0, &[Record::Resume]));
    assert!(lone.events().iter().any(|event| matches!(event, Event::LinkUp { .. })));
    (lone, puppet)
}

/// The session was ended with 4400, once, and the peer was told.
#[track_caller]
fn assert_ended(lone: &mut Lone, puppet: &mut Puppet) {
    let events = lone.events();
    let ended = events.iter().filter(|event| {
        matches!(event, Event::LinkDown { why: LinkDown::Ended { by_peer: false, code: Code::MALFORMED, .. }, .. })
    });
    assert_eq!(ended.count(), 1, "{events:?}");
    let frames: Vec<_> = lone.packets().iter().filter_map(|packet| puppet.open(packet)).collect();
    let goodbye = frames.iter().any(|frame| {
        let (_, records) = FrameHeader::decode(frame).unwrap();
        records.flatten().any(|record| matches!(record, Record::Goodbye { code: Code::MALFORMED, .. }))
    });
    assert!(goodbye, "{frames:?}");
    // It may come back with a new session.
    Puppet::initiate(lone, 2, 10).say(lone, &frame(None, 0, &[Record::Resume]));
    assert!(lone.events().iter().any(|event| matches!(event, Event::LinkUp { resumed: false, .. })));
}

#[test]
fn frames_that_break_the_rules_end_the_session() {
    let data = |channel, bytes| Record::Data { channel, last: true, bytes };
    let close = Record::Close { channel: 0, code: Code::GOODBYE, reason: "" };
    let cut = frame(Some(0), 0, &[open(1)]);
    let call = |message: CallMessage<'_>| message.to_vec();
    for (what, bytes) in [
        ("nothing", vec![]),
        ("an unknown kind", vec![2; 20]),
        ("a cut header", vec![1, 0, 0]),
        ("a cut record", cut[..cut.len() - 1].to_vec()),
        ("an unknown record", [&frame(Some(0), 0, &[])[..], &[0x40]].concat()),
        ("a signal in a numbered frame", frame(Some(0), 0, &[Record::Resume])),
        ("data in an unnumbered frame", frame(None, 0, &[open(1)])),
        ("an acknowledgement of what was never sent", frame(None, 1, &[])),
        ("a number beyond the window", frame(Some(MAX_IN_FLIGHT_FRAMES), 0, &[])),
        ("the largest number", frame(Some(u64::MAX), 0, &[])),
        ("a channel of our numbering", frame(Some(0), 0, &[open(2)])),
        ("channel 0 opened", frame(Some(0), 0, &[open(0)])),
        ("a channel opened twice", frame(Some(0), 0, &[open(1), open(1)])),
        ("channels opened backwards", frame(Some(0), 0, &[open(3), open(1)])),
        ("data where nothing was opened", frame(Some(0), 0, &[data(1, b"x")])),
        ("a limit where nothing was opened", frame(Some(0), 0, &[Record::Limit { channel: 1, limit: 9 }])),
        ("a lowered limit", frame(Some(0), 0, &[open(1), Record::Limit { channel: 1, limit: 999 }])),
        ("channel 0 closed", frame(Some(0), 0, &[close])),
        (
            "a close where nothing was opened",
            frame(Some(0), 0, &[Record::Close { channel: 7, code: Code(1), reason: "" }]),
        ),
        ("a call that is none", frame(Some(0), 0, &[data(0, b"\x09garbage")])),
        ("a call without a number", frame(Some(0), 0, &[data(0, &call(CallMessage::Request { id: 0, body: b"" }))])),
        ("too large a frame", frame(Some(0), 0, &[open(1), data(1, &[0; 40_000])])),
    ] {
        println!("{what}");
        let (mut lone, mut puppet) = attacked();
        puppet.say(&mut lone, &bytes);
        assert_ended(&mut lone, &mut puppet);
    }
}

#[test]
fn a_number_used_twice_counts_once() {
    for number in [0, 5] {
        let (mut lone, mut puppet) = attacked();
        puppet.say(&mut lone, &frame(Some(number), 0, &[open(1)]));
        // After a change of keys an honest peer seals anew what was not acknowledged. The first one counts.
        puppet.say(&mut lone, &frame(Some(number), 0, &[open(3)]));
        for before in 0..number {
            puppet.say(&mut lone, &frame(Some(before), 0, &[]));
        }
        let opened = lone.events().into_iter().filter_map(|event| match event {
            Event::Opened { channel, .. } => Some(channel),
            _ => None,
        });
        assert_eq!(opened.collect::<Vec<_>>(), [1]);
        assert!(lone.endpoint.is_up(&id(2)));
    }
}

#[test]
fn more_than_a_channel_allows_ends_the_session() {
    let (mut lone, mut puppet) = attacked();
    puppet.say(&mut lone, &frame(Some(0), 0, &[open(1)]));
    let part = [0; 16_384];
    for number in 0..32 {
        let last = number % 8 == 7;
        puppet.say(&mut lone, &frame(Some(number + 1), 0, &[Record::Data { channel: 1, last, bytes: &part }]));
    }
    assert!(lone.endpoint.is_up(&id(2)), "512 KiB are allowed");
    puppet.say(&mut lone, &frame(Some(33), 0, &[Record::Data { channel: 1, last: false, bytes: b"x" }]));
    assert_ended(&mut lone, &mut puppet);
}

#[test]
fn a_message_without_an_end_ends_the_session() {
    let (mut lone, mut puppet) = attacked();
    puppet.say(&mut lone, &frame(Some(0), 0, &[open(1)]));
    for number in 0..16 {
        puppet.say(
            &mut lone,
            &frame(Some(number + 1), 0, &[Record::Data { channel: 1, last: false, bytes: &[0; 16_384] }]),
        );
    }
    assert!(lone.endpoint.is_up(&id(2)), "256 KiB are allowed");
    puppet.say(&mut lone, &frame(Some(17), 0, &[Record::Data { channel: 1, last: false, bytes: b"x" }]));
    assert_ended(&mut lone, &mut puppet);
}

#[test]
fn unfinished_messages_on_many_channels_have_a_bound_together() {
    let (mut lone, mut puppet) = attacked();
    let part = [0; 16_384];
    let (mut number, mut room) = (0, UNFINISHED_BYTES / part.len());
    let mut say = |lone: &mut Lone, record: Record<'_>| {
        puppet.say(lone, &frame(Some(number), 0, &[record]));
        number += 1;
        lone.frames();
    };
    let unfinished = |channel| Record::Data { channel, last: false, bytes: &part };
    // Fifteen parts of each message, so that none is too large by itself.
    for channel in (1..).step_by(2) {
        say(&mut lone, open(channel));
        let parts = room.min(15);
        (0..parts).for_each(|_| say(&mut lone, unfinished(channel)));
        room -= parts;
        if room == 0 {
            break;
        }
    }
    assert!(lone.events().iter().all(|event| !matches!(event, Event::Closed { .. })), "so much is allowed");
    say(&mut lone, open(101));
    say(&mut lone, Record::Data { channel: 101, last: true, bytes: b"whole" });
    say(&mut lone, unfinished(101));
    let mut events = lone.events();
    let closed = events.pop();
    assert!(
        matches!(closed, Some(Event::Closed { peer, channel: 101, code: Code::TOO_MANY, .. }) if peer == id(2)),
        "{closed:?}"
    );
    assert!(matches!(&events[..], [Event::Opened { .. }, Event::Message { channel: 101, .. }]), "{events:?}");
    // The rest of it is ignored, and calls and the other channels go on; what is finished or closed makes room.
    say(&mut lone, Record::Data { channel: 101, last: true, bytes: b"late" });
    let call = CallMessage::Request { id: 1, body: b"still here" }.to_vec();
    say(&mut lone, Record::Data { channel: 0, last: false, bytes: &call[..5] });
    say(&mut lone, Record::Data { channel: 0, last: true, bytes: &call[5..] });
    say(&mut lone, Record::Data { channel: 1, last: true, bytes: b"." });
    say(&mut lone, Record::Close { channel: 3, code: Code::GOODBYE, reason: "" });
    lone.endpoint.close_channel(&id(2), 5, Code::GOODBYE, "");
    let events = lone.events();
    assert!(
        matches!(
            &events[..],
            [Event::Request { .. }, Event::Message { channel: 1, .. }, Event::Closed { channel: 3, .. }]
        ),
        "{events:?}"
    );
    for channel in [103, 105, 107] {
        say(&mut lone, open(channel));
        (0..15).for_each(|_| say(&mut lone, unfinished(channel)));
    }
    assert!(lone.events().iter().all(|event| matches!(event, Event::Opened { .. })), "there is room again");
    say(&mut lone, unfinished(107));
    assert!(matches!(&lone.events()[..], [Event::Closed { channel: 107, .. }]), "but no more than that");
    assert!(lone.endpoint.is_up(&id(2)));
}

#[test]
fn a_flood_of_channels_ends_the_session() {
    let (mut lone, mut puppet) = attacked();
    for number in 0..256 {
        puppet.say(&mut lone, &frame(Some(number), 0, &[open(number as u32 * 2 + 1)]));
        lone.frames();
    }
    assert!(lone.endpoint.is_up(&id(2)));
    puppet.say(&mut lone, &frame(Some(256), 0, &[open(513)]));
    let opened = lone.events().iter().filter(|event| matches!(event, Event::Opened { .. })).count();
    assert_eq!(opened, 256);
    assert!(!lone.endpoint.is_up(&id(2)));
}

#[test]
fn more_kept_out_of_order_than_the_window_holds_ends_the_session() {
    let (mut lone, mut puppet) = attacked();
    let data = Record::Data { channel: 1, last: true, bytes: &[0; 30_000] };
    for number in 1..=6 {
        puppet.say(&mut lone, &frame(Some(number), 0, &[data]));
    }
    assert!(lone.endpoint.is_up(&id(2)));
    puppet.say(&mut lone, &frame(Some(7), 0, &[data]));
    assert_ended(&mut lone, &mut puppet);
}

#[test]
fn too_many_calls_are_refused_and_not_run() {
    let (mut lone, mut puppet) = attacked();
    let mut number = 0;
    for id in 1..=3000_u64 {
        let call = CallMessage::Request { id, body: b"{}" }.to_vec();
        puppet.say(&mut lone, &frame(Some(number), 0, &[Record::Data { channel: 0, last: true, bytes: &call }]));
        number += 1;
        lone.frames();
    }
    let asked = lone.events().iter().filter(|event| matches!(event, Event::Request { .. })).count();
    assert_eq!(asked, 2048, "as many as may be outstanding, and as many again that were given up");
    // Refusals that nobody reads pile up to a bound, and then the session ends.
    for id in 3001..=6000_u64 {
        let call = CallMessage::Request { id, body: b"{}" }.to_vec();
        puppet.say(&mut lone, &frame(Some(number), 0, &[Record::Data { channel: 0, last: true, bytes: &call }]));
        number += 1;
        lone.frames();
    }
    assert!(!lone.endpoint.is_up(&id(2)));
}

#[test]
fn a_call_that_was_answered_and_forgotten_is_not_run_again() {
    let (mut lone, mut puppet) = attacked();
    let call = |id| CallMessage::Request { id, body: b"{}" }.to_vec();
    puppet.say(&mut lone, &frame(Some(0), 0, &[Record::Data { channel: 0, last: true, bytes: &call(5) }]));
    puppet.say(&mut lone, &frame(Some(1), 0, &[Record::Data { channel: 0, last: true, bytes: &call(4) }]));
    let asked = lone.events().iter().filter(|event| matches!(event, Event::Request { .. })).count();
    assert_eq!(asked, 1);
    let packets = lone.packets();
    let said: Vec<u8> = packets.iter().filter_map(|packet| puppet.open(packet)).flatten().collect();
    assert!(String::from_utf8_lossy(&said).contains("indeterminate"));
}

#[test]
fn a_stranger_is_not_heard() {
    let mut lone = Lone::machine();
    lone.frames();
    lone.events();
    for packet in [vec![], vec![0x01; 200], Packet::UnknownSession([1; 16]).to_vec(), vec![0x05; 300]] {
        lone.deliver(7, &packet);
    }
    assert!(lone.packets().is_empty() && lone.events().is_empty());
    assert_eq!(lone.endpoint.counters().dropped_packets, 4);
}

#[test]
fn hints_and_hellos_are_answered_within_bounds() {
    let mut lone = Lone::machine();
    lone.frames();
    let unknown = [&[0x05][..], &[3; 60]].concat();
    for _ in 0..1000 {
        lone.deliver(2, &unknown);
    }
    assert_eq!(lone.packets().len(), 1, "one hint in two seconds");
    let mut welcomes = 0;
    for life in 0..100 {
        let suite = model::null::NullSuite { device: id(2) };
        let mut rng = <rand_chacha::ChaCha8Rng as rand_core::SeedableRng>::seed_from_u64(life);
        let (_, hello) = happy_link::Suite::start(&suite, &mut rng, &id(1), &1, model::lone::plan(1)).unwrap();
        lone.deliver(2, &Packet::Hello(&hello).to_vec());
        welcomes += lone.packets().len();
    }
    assert_eq!(welcomes, 8, "what an honest device needs, and no more");
}

#[test]
fn a_forged_hint_costs_one_handshake_in_two_seconds() {
    let mut lone = Lone::phone();
    let mut puppet = Puppet::answer(&mut lone, 2, 9);
    puppet.say(&mut lone, &frame(None, 0, &[Record::Resume]));
    lone.events();
    lone.now += Duration::from_secs(5);
    lone.endpoint.handle_timeout(lone.now);
    lone.frames();
    let hint = Packet::UnknownSession(puppet.session).to_vec();
    for _ in 0..100 {
        lone.deliver(2, &hint);
    }
    let hellos = lone.packets().iter().filter(|packet| packet[0] == 1).count();
    assert_eq!(hellos, 1);
    assert!(lone.endpoint.is_up(&id(2)), "the session goes on until there is another");
}

#[test]
fn nonsense_from_the_relay_ends_the_connection_and_nothing_else() {
    let welcome = |frame: FromRelay<'_>| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes
    };
    for bytes in [
        vec![],
        vec![0x85, 1],
        welcome(FromRelay::Welcome { max_payload: 1, queue_bytes: 1, host: None }),
        welcome(FromRelay::Challenge { nonce: [1; 32] }),
        vec![0x83; 70_000],
    ] {
        let mut lone = Lone::machine();
        lone.endpoint.handle_frame(lone.now, &bytes);
        assert!(lone.endpoint.must_close().is_some(), "{:?}", &bytes[..bytes.len().min(8)]);
        lone.endpoint.handle_disconnected(lone.now);
        lone.log_in();
        assert!(lone.endpoint.must_close().is_none());
    }
    let mut lone = Lone::machine();
    lone.endpoint.handle_frame(lone.now, &[0x99, 1, 2, 3]);
    assert!(lone.endpoint.must_close().is_none(), "unknown types are skipped");
    assert_eq!(lone.endpoint.counters().unknown_frames, 1);
}

#[test]
fn a_relay_that_does_not_read_cannot_fill_our_memory_with_pongs() {
    let mut lone = Lone::machine();
    for n in 0..1000 {
        lone.relay(&FromRelay::Ping(n));
    }
    assert_eq!(lone.endpoint.must_close(), Some(Code::TOO_MANY));
}

/// Whatever comes, the endpoint neither panics nor stops working with others.
fn assert_well(lone: &mut Lone) {
    lone.wait(Duration::from_secs(3));
    lone.events();
    if lone.endpoint.must_close().is_some() {
        lone.endpoint.handle_disconnected(lone.now);
        lone.log_in();
    }
    lone.add_peer(3, Side::Responder);
    lone.presence(3, true);
    Puppet::initiate(lone, 3, 1).say(lone, &frame(None, 0, &[Record::Resume]));
    assert!(lone.endpoint.is_up(&id(3)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_from_the_relay(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8)) {
        let (mut lone, _) = attacked();
        for bytes in frames {
            lone.endpoint.handle_frame(lone.now, &bytes);
        }
        assert_well(&mut lone);
    }

    #[test]
    fn any_frame_type_from_the_relay(kind in 0x80_u8..0x8a, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut lone, _) = attacked();
        lone.endpoint.handle_frame(lone.now, &[&[kind][..], &body].concat());
        assert_well(&mut lone);
    }

    #[test]
    fn any_packet_from_a_peer(kind in 0_u8..0x14, body in prop::collection::vec(any::<u8>(), 0..200), initiator: bool) {
        let mut lone = if initiator { Lone::phone() } else { attacked().0 };
        lone.deliver(2, &[&[kind][..], &body].concat());
        assert_well(&mut lone);
    }

    #[test]
    fn any_frame_in_a_session(
        kind in 0_u8..3,
        number in 0_u64..4,
        acknowledgement in 0_u64..2,
        records in prop::collection::vec((0_u8..10, prop::collection::vec(0_u8..4, 0..40)), 0..12),
    ) {
        let (mut lone, mut puppet) = attacked();
        let mut bytes = vec![kind];
        if kind == 1 {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&acknowledgement.to_be_bytes());
        for (kind, body) in records {
            bytes.push(kind);
            bytes.extend_from_slice(&body);
        }
        puppet.say(&mut lone, &bytes);
        assert_well(&mut lone);
    }
}
