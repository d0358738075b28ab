//! What the link promises beyond getting everything there: that it is prompt, that it is quiet, and in which order things go.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::time::Duration;

use happy_link::{
    Answer, CallError, ChannelName, Class, Code, Dial, Event, LinkDown, Login, OpenChannelError, Peer, RefusalReason,
    RelayDown, SendError, Side, Suite, Welcomed,
};
use happy_wire::call::{CallMessage, MAX_OUTSTANDING};
use happy_wire::frame::{FrameHeader, Record};
use happy_wire::packet::{Gone, Packet};
use happy_wire::relay::{FromRelay, RendezvousState, ToRelay, Undelivered};
use model::lone::{Lone, Puppet, SECRETS, id, payload, plan, tag};
use model::ms;
use model::null::NullSuite;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

const SECOND: Duration = Duration::from_secs(1);

fn frame(number: Option<u64>, acknowledgement: u64, records: &[Record<'_>]) -> Vec<u8> {
    let mut frame = Vec::new();
    FrameHeader { number, acknowledgement }.encode(&mut frame);
    records.iter().for_each(|record| record.encode(&mut frame));
    frame
}

fn resume(acknowledgement: u64) -> Vec<u8> {
    frame(None, acknowledgement, &[Record::Resume])
}

/// A machine with a link that is up, everything drained.
fn linked() -> (Lone, Puppet) {
    let mut lone = Lone::machine();
    let mut puppet = Puppet::initiate(&mut lone, 2, 9);
    puppet.say(&mut lone, &resume(0));
    lone.packets().iter().for_each(|packet| drop(puppet.open(packet)));
    lone.events();
    (lone, puppet)
}

/// A record without its borrowed parts.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Said {
    Open(u32),
    Data(u32, usize, bool),
    Limit(u32, u64),
    Close(u32),
    Signal(&'static str),
}

/// The frames that a puppet can open: number, acknowledgement and records.
fn said(puppet: &mut Puppet, packets: &[Vec<u8>]) -> Vec<(Option<u64>, u64, Vec<Said>)> {
    let frames: Vec<Vec<u8>> = packets.iter().filter_map(|packet| puppet.open(packet)).collect();
    let read = |frame: &Vec<u8>| {
        let (header, records) = FrameHeader::decode(frame).unwrap();
        let records = records.map(|record| match record.unwrap() {
            Record::Open { channel, .. } => Said::Open(channel),
            Record::Data { channel, bytes, last } => Said::Data(channel, bytes.len(), last),
            Record::Limit { channel, limit } => Said::Limit(channel, limit),
            Record::Close { channel, .. } => Said::Close(channel),
            Record::Ping(_) => Said::Signal("ping"),
            Record::Pong(_) => Said::Signal("pong"),
            Record::Resume => Said::Signal("resume"),
            Record::Goodbye { .. } => Said::Signal("goodbye"),
            Record::PairSecret(_) => Said::Signal("pair secret"),
            Record::Padding(_) => Said::Signal("padding"),
        });
        // Nearly every frame ends with it.
        let records = records.filter(|said| *said != Said::Signal("padding"));
        (header.number, header.acknowledgement, records.collect())
    };
    frames.iter().map(read).collect()
}

/// What was said but for the Pings that measure the line, for which there is link/tests/line.rs.
fn said_beside_pings(puppet: &mut Puppet, packets: &[Vec<u8>]) -> Vec<Said> {
    let records = said(puppet, packets).into_iter().flat_map(|(_, _, records)| records);
    records.filter(|record| *record != Said::Signal("ping")).collect()
}

/// Shows the link that its line carries a full window. The number of the next frame is returned.
fn widen(lone: &mut Lone, puppet: &mut Puppet, peer: u8) -> u64 {
    let mut next = 0;
    lone.frames();
    // As often as it takes from 6 KiB to 192 KiB, and in at least four frames.
    for power in 0..7 {
        for _ in 0..5 {
            lone.endpoint.emit(&id(peer), vec![0; (800 << power).min(26_000)]).unwrap();
            next += lone.packets().len() as u64;
        }
        lone.now += ms(1);
        puppet.say(lone, &frame(None, next, &[]));
    }
    lone.frames();
    lone.events();
    next
}

// Order.

#[test]
fn an_approval_overtakes_a_file() {
    let (mut lone, mut puppet) = linked();
    widen(&mut lone, &mut puppet, 2);
    let file = lone.endpoint.open_channel(&id(2), Class::Bulk, "file").unwrap();
    let terminal = lone.endpoint.open_channel(&id(2), Class::Interactive, "terminal").unwrap();
    lone.endpoint.send(&id(2), file, &[1; 250_000]).unwrap();
    let mut first = Vec::new();
    for _ in 0..3 {
        first.extend(lone.endpoint.poll_transmit(lone.now).and_then(|frame| payload(&frame)));
    }
    lone.endpoint.send(&id(2), terminal, b"key").unwrap();
    lone.endpoint.emit(&id(2), b"approve?".to_vec()).unwrap();
    let next = lone.endpoint.poll_transmit(lone.now).and_then(|frame| payload(&frame)).unwrap();
    assert_eq!(said(&mut puppet, &first)[0].2, [Said::Open(file), Said::Open(terminal)]);
    let urgent = said(&mut puppet, &[next]);
    assert_eq!(urgent[0].2, [Said::Data(0, 17, true), Said::Data(terminal, 3, true)]);
    // A bulk frame is one record of at most 16 KiB, so nothing waits for more than that.
    let rest = lone.packets();
    assert!(rest.iter().all(|packet| packet.len() < 17_000));
    assert!(!rest.is_empty());
}

#[test]
fn what_is_urgent_goes_first_even_when_files_fill_the_window() {
    let (mut lone, mut puppet) = linked();
    let next = widen(&mut lone, &mut puppet, 2);
    let file = lone.endpoint.open_channel(&id(2), Class::Bulk, "file").unwrap();
    let terminal = lone.endpoint.open_channel(&id(2), Class::Interactive, "terminal").unwrap();
    lone.endpoint.send(&id(2), file, &[1; 250_000]).unwrap();
    // With a Ping, which is no part of the window.
    let flight: usize = lone.packets().iter().map(Vec::len).sum();
    assert!((130_000..=147_600).contains(&flight), "bulk takes three quarters of the window: {flight}");
    lone.endpoint.send(&id(2), terminal, &[2; 100_000]).unwrap();
    let flight: usize = flight + lone.packets().iter().map(Vec::len).sum::<usize>();
    assert!((155_000..=172_176).contains(&flight), "interactive takes an eighth more: {flight}");
    lone.endpoint.emit(&id(2), b"approve?".to_vec()).unwrap();
    assert_eq!(lone.packets().len(), 1);
    lone.endpoint.emit(&id(2), vec![0; 100_000]).unwrap();
    let flight: usize = flight + lone.packets().iter().map(Vec::len).sum::<usize>();
    assert!((180_000..=196_752).contains(&flight), "the window is full: {flight}");
    // An acknowledgement lets exactly what it frees go on.
    puppet.say(&mut lone, &frame(None, next + 3, &[]));
    assert!(!lone.packets().is_empty());
}

#[test]
fn channels_of_a_class_take_turns() {
    let (mut lone, mut puppet) = linked();
    widen(&mut lone, &mut puppet, 2);
    let channels = [0; 3].map(|_| lone.endpoint.open_channel(&id(2), Class::Bulk, "file").unwrap());
    for channel in channels {
        lone.endpoint.send(&id(2), channel, &[1; 60_000]).unwrap();
    }
    let packets = lone.packets();
    let turns: Vec<u32> = said(&mut puppet, &packets)
        .into_iter()
        .flat_map(|(_, _, records)| records)
        .filter_map(|record| match record {
            Said::Data(channel, ..) => Some(channel),
            _ => None,
        })
        .collect();
    assert_eq!(turns[..6], [2, 4, 6, 2, 4, 6]);
}

#[test]
fn links_take_turns() {
    let mut lone = Lone::machine();
    lone.add_peer(3, Side::Responder);
    lone.presence(3, true);
    let puppets = [2, 3].map(|peer| {
        let mut puppet = Puppet::initiate(&mut lone, peer, 9);
        puppet.say(&mut lone, &resume(0));
        (peer, puppet)
    });
    for (peer, mut puppet) in puppets {
        widen(&mut lone, &mut puppet, peer);
    }
    for peer in [2, 3] {
        let file = lone.endpoint.open_channel(&id(peer), Class::Bulk, "file").unwrap();
        lone.endpoint.send(&id(peer), file, &[1; 100_000]).unwrap();
    }
    let to = |frame: &Vec<u8>| match ToRelay::decode(frame) {
        Ok(ToRelay::Send { to, payload, .. }) if payload.len() > 10_000 => Some(to),
        _ => None,
    };
    let turns: Vec<_> = lone.frames().iter().filter_map(to).collect();
    assert!(turns.len() > 8 && turns.windows(2).all(|pair| pair[0] != pair[1]), "{turns:?}");
}

#[test]
fn a_closed_channel_ends_after_what_was_sent_on_it() {
    let (mut lone, mut puppet) = linked();
    let channel = lone.endpoint.open_channel(&id(2), Class::Interactive, "x").unwrap();
    lone.endpoint.send(&id(2), channel, b"last words").unwrap();
    lone.endpoint.close_channel(&id(2), channel, Code::GOODBYE, "");
    assert_eq!(lone.endpoint.send(&id(2), channel, b"later"), Err(SendError::Closed));
    let packets = lone.packets();
    let records = said_beside_pings(&mut puppet, &packets);
    assert_eq!(records, [Said::Open(channel), Said::Data(channel, 10, true), Said::Close(channel)]);
    // What crosses the Close is dropped without harm.
    let data = Record::Data { channel, last: true, bytes: b"crossed" };
    puppet.say(
        &mut lone,
        &frame(
            Some(0),
            1,
            &[data, Record::Limit { channel, limit: 600_000 }, Record::Close { channel, code: Code(1), reason: "" }],
        ),
    );
    assert!(lone.events().is_empty() && lone.endpoint.is_up(&id(2)));
}

#[test]
fn events_in_bulk_wait_for_each_other_and_stay_in_order() {
    let (mut lone, mut puppet) = linked();
    let events = |lone: &mut Lone, puppet: &mut Puppet| {
        let packets = lone.packets();
        let spoken: Vec<u8> = packets.iter().filter_map(|packet| puppet.open(packet)).flatten().collect();
        spoken.into_iter().filter(u8::is_ascii_alphabetic).map(char::from).collect::<String>()
    };
    for letter in b'a'..=b'c' {
        lone.endpoint.emit_in_bulk(lone.now, &id(2), vec![letter]).unwrap();
    }
    assert_eq!(events(&mut lone, &mut puppet), "");
    lone.now += ms(50);
    lone.endpoint.handle_timeout(lone.now);
    assert_eq!(events(&mut lone, &mut puppet), "abc");
    for letter in b'd'..=b'm' {
        lone.endpoint.emit_in_bulk(lone.now, &id(2), vec![letter]).unwrap();
    }
    assert_eq!(events(&mut lone, &mut puppet), "defghijklm", "ten go at once");
    lone.endpoint.emit_in_bulk(lone.now, &id(2), b"y".to_vec()).unwrap();
    lone.endpoint.emit(&id(2), b"z".to_vec()).unwrap();
    assert_eq!(events(&mut lone, &mut puppet), "yz", "what cannot wait takes along what was before it");
}

// Resending.

#[test]
fn resume_brings_back_the_same_bytes_at_once() {
    let (mut lone, mut puppet) = linked();
    let mut lost = Vec::new();
    for size in [5, 5, 5, 60_000] {
        lone.endpoint.emit(&id(2), vec![0; size]).unwrap();
        lost.extend(lone.packets());
    }
    assert_eq!(lost.len(), 5);
    lone.endpoint.handle_disconnected(lone.now);
    lone.now += SECOND;
    lone.log_in();
    lone.presence(2, true);
    let first = lone.packets();
    assert_eq!(said(&mut puppet, &first), [(None, 0, vec![Said::Signal("resume")])]);
    puppet.say(&mut lone, &resume(1));
    let again = lone.packets();
    assert!(again[..4] == lost[1..], "all but the first, which has arrived");
    // Frames that are sent again cannot carry a new acknowledgement, so it goes by itself.
    assert_eq!(said(&mut puppet, &again[4..]), [(None, 0, vec![])]);
    assert!(lone.events().contains(&Event::LinkUp { peer: id(2), resumed: true, same_life: true }));
}

#[test]
fn resume_on_a_path_that_never_went_down_here_resends_as_well() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.emit(&id(2), b"event".to_vec()).unwrap();
    let lost = lone.packets();
    lone.now += ms(20);
    puppet.say(&mut lone, &resume(0));
    assert!(lone.packets().contains(&lost[0]));
    assert!(lone.events().is_empty(), "the link was up all the time");
}

#[test]
fn any_packet_on_a_new_path_resends_what_was_sent_before_it() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.emit(&id(2), b"event".to_vec()).unwrap();
    let lost = lone.packets();
    lone.endpoint.handle_disconnected(lone.now);
    lone.now += SECOND;
    lone.log_in();
    lone.presence(2, true);
    lone.frames();
    puppet.say(&mut lone, &frame(None, 0, &[]));
    assert!(lone.packets().contains(&lost[0]));
}

#[test]
fn a_peer_that_is_told_to_be_here_again_is_asked_whether_it_knows_the_session() {
    let (mut lone, mut puppet) = linked();
    lone.presence(2, true);
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets), [(None, 0, vec![Said::Signal("resume")])]);
    assert!(lone.endpoint.is_up(&id(2)));
}

#[test]
fn a_peer_that_cannot_be_reached_is_tried_again_after_a_second() {
    let (mut lone, mut puppet) = linked();
    lone.relay(&FromRelay::Undeliverable { to: id(2), tag: 0, reason: Undelivered::Unreachable });
    assert!(lone.events().contains(&Event::LinkDown { peer: id(2), why: LinkDown::Away }));
    assert!(lone.wait(ms(990)).is_empty());
    let sent: Vec<_> = lone.wait(ms(20)).iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(said(&mut puppet, &sent), [(None, 0, vec![Said::Signal("resume")])]);
    puppet.say(&mut lone, &resume(0));
    assert!(lone.events().contains(&Event::LinkUp { peer: id(2), resumed: true, same_life: true }));
}

#[test]
fn a_session_in_which_nothing_opens_any_more_is_given_up() {
    let broken = |puppet: &Puppet| {
        let mut packet = vec![5];
        packet.extend_from_slice(&puppet.session);
        packet.resize(100, 0);
        packet
    };
    let (mut lone, puppet) = linked();
    (0..7).for_each(|_| lone.deliver(2, &broken(&puppet)));
    assert!(lone.packets().is_empty());
    lone.deliver(2, &broken(&puppet));
    assert_eq!(lone.packets(), [Packet::UnknownSession(puppet.session).to_vec()], "a machine asks for a new handshake");

    let mut lone = Lone::phone();
    let mut puppet = Puppet::answer(&mut lone, 2, 9);
    puppet.say(&mut lone, &resume(0));
    lone.frames();
    lone.now += SECOND * 3;
    (0..8).for_each(|_| lone.deliver(2, &broken(&puppet)));
    assert!(lone.packets().iter().any(|packet| packet[0] == 1), "a phone makes one");
}

#[test]
fn a_frame_that_is_never_accepted_ends_in_a_new_handshake() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.emit(&id(2), b"event".to_vec()).unwrap();
    let mut hinted = None;
    for second in 0..60 {
        // The peer lives and says so, but what was sent never reaches it.
        puppet.say(&mut lone, &frame(None, 0, &[Record::Ping(1)]));
        let sent: Vec<_> = lone.wait(SECOND).iter().filter_map(|frame| payload(frame)).collect();
        if sent.contains(&Packet::UnknownSession(puppet.session).to_vec()) {
            hinted = Some(second);
            break;
        }
    }
    assert!(hinted.is_some_and(|second| (20..40).contains(&second)), "{hinted:?}");
}

#[test]
fn a_full_queue_is_given_time_and_only_what_was_refused_is_sent_again() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.emit(&id(2), vec![0; 80_000]).unwrap();
    let frames = lone.frames();
    assert_eq!(frames.len(), 3);
    let refused = tag(&frames[1]).unwrap();
    lone.relay(&FromRelay::Undeliverable { to: id(2), tag: refused, reason: Undelivered::QueueFull });
    assert!(lone.packets().is_empty(), "not at once");
    lone.endpoint.emit(&id(2), b"and this waits as well".to_vec()).unwrap();
    assert!(lone.packets().is_empty());
    let again = lone.wait(ms(60));
    assert!(again[0] == frames[1]);
    assert_eq!(again.len(), 2);
    // Refused again and again, it waits longer and longer.
    let mut pause = Duration::ZERO;
    for _ in 0..8 {
        lone.relay(&FromRelay::Undeliverable { to: id(2), tag: refused, reason: Undelivered::QueueFull });
        let begin = lone.now;
        while lone.wait(ms(10)).is_empty() {}
        pause = lone.now - begin;
    }
    assert!((ms(1900)..=ms(2100)).contains(&pause), "{pause:?}");
    puppet.say(&mut lone, &frame(None, 3, &[]));
}

#[test]
fn after_a_burst_of_loss_recovery_is_a_matter_of_round_trips() {
    let (mut lone, mut puppet) = linked();
    let first = 3;
    for number in 0..first {
        // The link learns how long a round trip takes.
        lone.endpoint.emit(&id(2), b"event".to_vec()).unwrap();
        lone.frames();
        lone.now += ms(20);
        puppet.say(&mut lone, &frame(None, number + 1, &[]));
    }
    lone.endpoint.emit(&id(2), vec![0; 180_000]).unwrap();
    let lost = lone.frames();
    assert!(lost.len() >= 5);
    let probe = lone.wait(ms(250));
    assert!(probe == lost[..1], "one frame asks whether the rest is lost");
    let mut arrived = 1;
    let mut trips = 0;
    while arrived < lost.len() {
        lone.now += ms(20);
        puppet.say(&mut lone, &frame(None, first + arrived as u64, &[]));
        let burst = lone.frames();
        assert!(!burst.is_empty(), "{arrived} of {}", lost.len());
        arrived += burst.iter().filter(|frame| lost.contains(frame)).count();
        trips += 1;
    }
    assert!(trips <= 4, "{trips} round trips");
}

#[test]
fn a_repeated_packet_is_acknowledged_again() {
    let (mut lone, mut puppet) = linked();
    let packet = puppet.seal(&frame(
        Some(0),
        0,
        &[Record::Data { channel: 0, last: true, bytes: &CallMessage::Event(b"x").to_vec() }],
    ));
    lone.deliver(2, &packet);
    assert!(lone.packets().is_empty(), "it waits 10 ms for something to ride on");
    let sent = lone.wait(ms(10));
    let first: Vec<_> = sent.iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(said(&mut puppet, &first), [(None, 1, vec![])]);
    lone.deliver(2, &packet);
    let sent = lone.wait(ms(10));
    let second: Vec<_> = sent.iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(said(&mut puppet, &second), [(None, 1, vec![])]);
    let notices = lone.events().iter().filter(|event| matches!(event, Event::Notice { .. })).count();
    assert_eq!(notices, 1);
}

#[test]
fn every_eighth_frame_is_acknowledged_at_once() {
    let (mut lone, mut puppet) = linked();
    for number in 0..8 {
        assert!(lone.packets().is_empty());
        puppet.say(
            &mut lone,
            &frame(
                Some(number),
                0,
                &[Record::Data { channel: 0, last: true, bytes: &CallMessage::Event(b"x").to_vec() }],
            ),
        );
    }
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets), [(None, 8, vec![])]);
}

#[test]
fn limits_grow_as_messages_are_consumed() {
    let (mut lone, mut puppet) = linked();
    puppet.say(&mut lone, &frame(Some(0), 0, &[Record::Open { channel: 1, class: Class::Bulk, limit: 0, label: "x" }]));
    for number in 1..=32 {
        let part = Record::Data { channel: 1, last: number % 8 == 0, bytes: &[0; 16_384] };
        puppet.say(&mut lone, &frame(Some(number), 0, &[part]));
    }
    lone.packets().iter().for_each(|packet| drop(puppet.open(packet)));
    lone.endpoint.consumed(&id(2), 1, 131_072);
    assert!(lone.packets().is_empty(), "small steps are not announced");
    lone.endpoint.consumed(&id(2), 1, 131_072);
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets)[0].2, [Said::Limit(1, 262_144 + 524_288)]);
    // Nobody can consume more than there was.
    lone.endpoint.consumed(&id(2), 1, usize::MAX);
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets)[0].2, [Said::Limit(1, 524_288 + 524_288)]);
}

// Handshakes.

#[test]
fn a_hello_is_repeated_after_1_s_doubling_to_10_s() {
    let mut lone = Lone::phone();
    let mut times = Vec::new();
    for _ in 0..600 {
        if !lone.wait(ms(100)).is_empty() {
            times.push((lone.now.as_millis() + 50) / 1000);
        }
    }
    // The relay's Ping at 15 s, and so on, ends the connection at 20 s, for this relay says nothing.
    assert_eq!(times[..4], [0, 1, 3, 7], "{times:?}");
}

#[test]
fn a_lost_confirm_is_repeated() {
    let mut lone = Lone::phone();
    let suite = NullSuite { device: id(2) };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let packets = lone.packets();
    let Some(Packet::Hello(hello)) = packets.iter().filter_map(|packet| Packet::decode(packet).ok()).next() else {
        panic!()
    };
    let Ok(Welcomed { welcome, .. }) = suite.answer(&mut rng, &id(1), &SECRETS, hello, [9; 16], None) else { panic!() };
    lone.deliver(2, &Packet::Welcome(&welcome).to_vec());
    let kinds = |packets: Vec<Vec<u8>>| packets.iter().map(|packet| packet[0]).collect::<Vec<_>>();
    assert_eq!(kinds(lone.packets()), [3, 5], "Confirm, and at once a sealed packet");
    let sent: Vec<_> = lone.wait(ms(1000)).iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(kinds(sent), [3, 5]);
    assert!(lone.events().iter().all(|event| !matches!(event, Event::LinkUp { .. })), "nothing came from there yet");
}

#[test]
fn a_session_stays_until_the_new_one_is_confirmed() {
    let (mut lone, mut puppet) = linked();
    let suite = NullSuite { device: id(2) };
    let (_, hello) = suite.start(&mut ChaCha8Rng::seed_from_u64(5), &id(1), &1, plan(7)).unwrap();
    lone.deliver(2, &Packet::Hello(&hello).to_vec());
    assert_eq!(lone.packets().len(), 1);
    // The same Hello again gets the same Welcome.
    lone.deliver(2, &Packet::Hello(&hello).to_vec());
    assert_eq!(lone.packets().len(), 1);
    puppet.say(&mut lone, &frame(None, 0, &[Record::Ping(5)]));
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets), [(None, 0, vec![Said::Signal("pong")])]);
}

#[test]
fn a_restarted_phone_gets_a_new_session_and_its_old_channels_are_closed() {
    let (mut lone, mut puppet) = linked();
    let channel = lone.endpoint.open_channel(&id(2), Class::Interactive, "x").unwrap();
    let call = lone.endpoint.call(lone.now, &id(2), b"never answered".to_vec(), None).unwrap();
    let unsent = frame(Some(0), 0, &[Record::Open { channel: 1, class: Class::Bulk, limit: 0, label: "x" }]);
    puppet.say(&mut lone, &unsent);
    lone.frames();
    lone.events();
    let mut again = Puppet::initiate(&mut lone, 2, 10);
    again.say(&mut lone, &resume(0));
    let closed =
        |channel| Event::Closed { peer: id(2), channel, code: Code::GOODBYE, reason: "a new session has begun".into() };
    let secrets = Event::PairSecrets { peer: id(2), session: again.session };
    assert_eq!(
        lone.events(),
        [
            secrets,
            Event::LinkDown { peer: id(2), why: LinkDown::Replaced },
            closed(1),
            closed(channel),
            Event::Answer { peer: id(2), id: call, answer: Answer::Indeterminate },
            Event::LinkUp { peer: id(2), resumed: false, same_life: false },
        ]
    );
    // The old session is nobody's any more.
    lone.frames();
    puppet.say(&mut lone, &resume(0));
    assert!(lone.events().is_empty());
}

#[test]
fn a_channel_of_the_last_session_is_not_taken_for_one_of_this() {
    let (mut lone, mut puppet) = linked();
    let open = frame(Some(0), 0, &[Record::Open { channel: 1, class: Class::Bulk, limit: 9_999, label: "x" }]);
    let opened = |lone: &mut Lone| {
        let events = lone.events();
        let session = events.iter().find_map(|event| match event {
            Event::Opened { session, channel: 1, .. } => Some(*session),
            _ => None,
        });
        // Nothing of a session is told before it is announced.
        let up = events.iter().position(|event| matches!(event, Event::LinkUp { resumed: false, .. }));
        let opened = events.iter().position(|event| matches!(event, Event::Opened { .. }));
        (ChannelName::of(session.unwrap(), 1), up.is_some() && up < opened)
    };
    puppet.say(&mut lone, &open);
    let (old, _) = opened(&mut lone);
    assert!(lone.endpoint.is_open(&id(2), old));

    // The peer was restarted, and its first channel has the same number.
    let mut again = Puppet::initiate(&mut lone, 2, 10);
    again.say(&mut lone, &open);
    let (new, announced) = opened(&mut lone);
    assert!(announced);
    lone.frames();
    assert_eq!(lone.endpoint.send(&id(2), old, b"for somebody else"), Err(SendError::Closed));
    assert_eq!((lone.endpoint.sendable(&id(2), old), lone.endpoint.is_open(&id(2), old)), (0, false));
    again.say(&mut lone, &frame(Some(1), 0, &[Record::Data { channel: 1, last: true, bytes: &[0; 16_384] }]));
    lone.endpoint.close_channel(&id(2), old, Code::NOT_PERMITTED, "late");
    assert!(lone.endpoint.is_open(&id(2), new));
    lone.endpoint.send(&id(2), new, b"hello").unwrap();
    let packets = lone.packets();
    assert_eq!(said_beside_pings(&mut again, &packets), [Said::Data(1, 5, true)]);
}

#[test]
fn what_the_last_owner_of_a_number_has_consumed_raises_no_limit() {
    let (mut lone, mut puppet) = linked();
    let open = Record::Open { channel: 1, class: Class::Bulk, limit: 0, label: "x" };
    let session = |lone: &mut Lone| {
        let opened = lone.events().into_iter().find_map(|event| match event {
            Event::Opened { session, .. } => Some(session),
            _ => None,
        });
        opened.unwrap()
    };
    puppet.say(&mut lone, &frame(Some(0), 0, &[open]));
    let old = ChannelName::of(session(&mut lone), 1);
    let mut again = Puppet::initiate(&mut lone, 2, 10);
    again.say(&mut lone, &frame(Some(0), 0, &[open]));
    let new = ChannelName::of(session(&mut lone), 1);
    for number in 1..=16 {
        let part = Record::Data { channel: 1, last: number == 16, bytes: &[0; 16_384] };
        again.say(&mut lone, &frame(Some(number), 0, &[part]));
    }
    lone.frames();
    let limits = |lone: &mut Lone, puppet: &mut Puppet| {
        let packets = lone.packets();
        said(puppet, &packets).into_iter().flat_map(|(_, _, said)| said).collect::<Vec<_>>()
    };
    lone.endpoint.consumed(&id(2), old, 262_144);
    assert_eq!(limits(&mut lone, &mut again), []);
    lone.endpoint.consumed(&id(2), new, 262_144);
    assert_eq!(limits(&mut lone, &mut again), [Said::Limit(1, 262_144 + 524_288)]);
}

#[test]
fn channel_numbers_go_on_in_the_next_session() {
    let mut phone = Lone::phone();
    let mut machine = Puppet::answer(&mut phone, 2, 9);
    machine.say(&mut phone, &resume(0));
    for expected in [1, 3] {
        assert_eq!(phone.endpoint.open_channel(&id(2), Class::Bulk, "x"), Ok(expected));
    }
    phone.frames();
    // The machine has lost the session.
    phone.wait(SECOND * 3);
    phone.deliver(2, &Packet::UnknownSession(machine.session).to_vec());
    let mut again = Puppet::answer(&mut phone, 2, 10);
    again.say(&mut phone, &resume(0));
    assert!(phone.events().contains(&Event::LinkUp { peer: id(2), resumed: false, same_life: false }));
    assert_eq!(phone.endpoint.open_channel(&id(2), Class::Bulk, "x"), Ok(5));

    let (mut lone, _) = linked();
    assert_eq!(lone.endpoint.open_channel(&id(2), Class::Bulk, "x"), Ok(2));
    Puppet::initiate(&mut lone, 2, 10).say(&mut lone, &resume(0));
    assert_eq!(lone.endpoint.open_channel(&id(2), Class::Bulk, "x"), Ok(4));
}

#[test]
fn calls_go_on_in_a_new_session_of_the_same_life() {
    let (mut lone, mut puppet) = linked();
    let call = lone.endpoint.call(lone.now, &id(2), b"question".to_vec(), None).unwrap();
    let request = CallMessage::Request { id: 1, body: b"asked once" }.to_vec();
    puppet.say(&mut lone, &frame(Some(0), 0, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    let first = lone.packets();
    assert!(!said(&mut puppet, &first).is_empty());
    let asked: Vec<_> = lone.events();
    let [Event::Request { id: asked_id, .. }] = asked[..] else { panic!("{asked:?}") };

    let mut again = Puppet::initiate(&mut lone, 2, 9);
    again.say(&mut lone, &resume(0));
    let packets = lone.packets();
    let spoken: Vec<u8> = packets.iter().filter_map(|packet| again.open(packet)).flatten().collect();
    assert!(String::from_utf8_lossy(&spoken).contains("question"), "sent again with its id");
    // The peer asks again as well; it runs once, and both copies of the question are settled by one answer.
    again.say(&mut lone, &frame(Some(0), 1, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    let secrets = Event::PairSecrets { peer: id(2), session: again.session };
    let replaced = Event::LinkDown { peer: id(2), why: LinkDown::Replaced };
    assert_eq!(lone.events(), [secrets, replaced, Event::LinkUp { peer: id(2), resumed: false, same_life: true }]);
    lone.endpoint.respond(&id(2), asked_id, b"the answer").unwrap();
    let answer = CallMessage::Response { id: 1, body: b"mine" }.to_vec();
    let data = Record::Data { channel: 0, last: true, bytes: &answer };
    again.say(&mut lone, &frame(Some(1), 1, &[data, data]));
    assert_eq!(lone.events(), [Event::Answer { peer: id(2), id: call, answer: Answer::Body(b"mine".to_vec()) }]);
    // And once more, in a third session: the answer was kept.
    let mut third = Puppet::initiate(&mut lone, 2, 9);
    third.say(&mut lone, &resume(0));
    third.say(&mut lone, &frame(Some(0), 0, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    let packets = lone.packets();
    let spoken: Vec<u8> = packets.iter().filter_map(|packet| third.open(packet)).flatten().collect();
    assert!(String::from_utf8_lossy(&spoken).contains("the answer"));
    assert!(!lone.events().iter().any(|event| matches!(event, Event::Request { .. })));
}

#[test]
fn an_answer_for_a_former_life_does_not_reach_the_next_one() {
    let (mut lone, mut puppet) = linked();
    let request = CallMessage::Request { id: 1, body: b"first life" }.to_vec();
    puppet.say(&mut lone, &frame(Some(0), 0, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    let Some(Event::Request { id: old, .. }) = lone.events().pop() else { panic!() };
    let mut again = Puppet::initiate(&mut lone, 2, 10);
    again.say(&mut lone, &resume(0));
    let request = CallMessage::Request { id: 1, body: b"second life" }.to_vec();
    again.say(&mut lone, &frame(Some(0), 0, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    let Some(Event::Request { id: new, .. }) = lone.events().pop() else { panic!() };
    lone.frames();
    lone.endpoint.respond(&id(2), old, b"too late").unwrap();
    assert!(lone.packets().is_empty());
    lone.endpoint.respond(&id(2), new, b"in time").unwrap();
    assert_eq!(lone.packets().len(), 1);
}

/// A phone whose machine has stored the secret that their handshake left, and the session id of that handshake.
fn told_that_it_is_stored() -> (Lone, Puppet, [u8; 16]) {
    let mut phone = Lone::phone();
    let mut machine = Puppet::answer(&mut phone, 2, 9);
    let session = machine.session;
    machine.say(&mut phone, &frame(Some(0), 0, &[Record::PairSecret(session)]));
    assert!(phone.events().contains(&Event::PairSecrets { peer: id(2), session }));
    (phone, machine, session)
}

/// The newest Hello among these packets.
fn hello_in(packets: &[Vec<u8>]) -> &[u8] {
    let hello = |packet| match Packet::decode(packet) {
        Ok(Packet::Hello(hello)) => Some(hello),
        _ => None,
    };
    packets.iter().rev().find_map(|packet| hello(packet)).expect("a Hello")
}

/// The secret that a Hello names.
fn secret_of(hello: &[u8]) -> u64 {
    u64::from_be_bytes(*hello[88..].first_chunk().unwrap())
}

/// The secrets of the Hellos that a phone makes until it gives up, when its machine knows none of them; the first is among `packets`.
fn secrets_tried(phone: &mut Lone, mut packets: Vec<Vec<u8>>) -> Vec<u64> {
    let machine = NullSuite { device: id(2) };
    let refused = Event::Refused { peer: id(2), reason: RefusalReason::UnknownSecret };
    let mut tried = Vec::new();
    phone.events();
    while !phone.events().contains(&refused) {
        let hello = hello_in(&packets).to_vec();
        tried.push(secret_of(&hello));
        phone.deliver(2, &Packet::Refused(&machine.refuse(RefusalReason::UnknownSecret, &hello)).to_vec());
        packets = phone.packets();
    }
    tried
}

#[test]
fn when_both_have_stored_the_next_secret_the_one_before_is_forgotten() {
    let (mut phone, _, session) = told_that_it_is_stored();
    let both = phone.endpoint.pair_secrets(&id(2), &session).unwrap().clone();
    assert_eq!(both.previous, Some(SECRETS.current), "until this is stored, the old one opens the door");
    phone.endpoint.pair_secrets_stored(phone.now, &id(2), &session);
    assert!(phone.events().contains(&Event::PairSecrets { peer: id(2), session }));
    let one = phone.endpoint.pair_secrets(&id(2), &session).unwrap();
    assert_eq!((one.current, one.previous), (both.current, None));
    // It is not tried any more, whoever says that the new one is unknown: that is how a copy of the machine would ask for it.
    phone.presence(2, false);
    phone.wait(SECOND * 3);
    phone.presence(2, true);
    phone.deliver(2, &Packet::UnknownSession(session).to_vec());
    let sent = phone.wait(SECOND * 3);
    let packets: Vec<_> = sent.iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(secrets_tried(&mut phone, packets), [both.current; 4]);
    assert!(phone.packets().is_empty());
}

#[test]
fn a_secret_is_not_forgotten_while_a_handshake_was_confirmed_with_it() {
    let (mut phone, machine, session) = told_that_it_is_stored();
    let both = phone.endpoint.pair_secrets(&id(2), &session).unwrap().clone();
    phone.wait(SECOND * 3);
    phone.endpoint.renew_keys(phone.now, &id(2));
    let next = Puppet::answer(&mut phone, 2, 9);
    assert_ne!(next.session, machine.session);
    // That handshake may take the place of the stored one at the machine, which would then know the old secret only.
    phone.endpoint.pair_secrets_stored(phone.now, &id(2), &session);
    assert!(!phone.events().iter().any(|event| matches!(event, Event::PairSecrets { .. })));
    assert!(phone.endpoint.pair_secrets(&id(2), &session).is_none());
    assert_eq!(both.previous, Some(SECRETS.current));
}

#[test]
fn a_hello_with_a_secret_that_was_replaced_meanwhile_is_made_again() {
    let (mut phone, _, session) = told_that_it_is_stored();
    let new = phone.endpoint.pair_secrets(&id(2), &session).unwrap().current;
    phone.wait(SECOND * 3);
    phone.endpoint.renew_keys(phone.now, &id(2));
    assert_eq!(secret_of(hello_in(&phone.packets())), SECRETS.current);
    phone.endpoint.pair_secrets_stored(phone.now, &id(2), &session);
    let sent: Vec<_> = phone.wait(SECOND * 3).iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(secret_of(hello_in(&sent)), new);
}

/// Between the two refusals the machine may have stored what another handshake left, and know the first one now.
#[test]
fn both_secrets_are_tried_twice_before_people_are_told() {
    let (mut phone, _, session) = told_that_it_is_stored();
    let both = phone.endpoint.pair_secrets(&id(2), &session).unwrap().clone();
    phone.wait(SECOND * 3);
    phone.endpoint.renew_keys(phone.now, &id(2));
    let next = Puppet::answer(&mut phone, 2, 9);
    // Of this handshake the phone has not heard more, so it keeps the secret with which it began.
    phone.endpoint.pair_secrets_stored(phone.now, &id(2), &session);
    phone.presence(2, false);
    phone.wait(SECOND * 3);
    phone.presence(2, true);
    phone.deliver(2, &Packet::UnknownSession(next.session).to_vec());
    let sent = phone.wait(SECOND * 3);
    let tried = secrets_tried(&mut phone, sent.iter().filter_map(|frame| payload(frame)).collect());
    let (new, old) = (both.current, SECRETS.current);
    assert_eq!(tried, [new, old, new, old]);
}

#[test]
fn a_device_whose_secret_nobody_knows_is_refused_and_reported() {
    let (mut machine, _) = linked();
    let phone = NullSuite { device: id(2) };
    for attempt in 1..=4 {
        let (_, hello) = phone.start(&mut ChaCha8Rng::seed_from_u64(attempt), &id(1), &99, plan(7)).unwrap();
        // The second time because the refusal was lost.
        for _ in 0..2 {
            machine.deliver(2, &Packet::Hello(&hello).to_vec());
            let packets = machine.packets();
            assert!(matches!(Packet::decode(&packets[0]), Ok(Packet::Refused(_))), "{packets:?}");
            machine.wait(SECOND);
        }
        let reported = machine.events().contains(&Event::StaleDevice { peer: id(2) });
        assert_eq!(reported, attempt == 4, "attempt {attempt}");
    }
}

/// Of a device that dies after its first Hello each of its lives begins with the newer secret, and the machine may have stored only the older.
#[test]
fn a_device_that_comes_again_and_again_is_not_taken_for_an_old_copy() {
    let (mut machine, _) = linked();
    let phone = NullSuite { device: id(2) };
    let attempt = |machine: &mut Lone, seed: u64, secret| {
        let (_, hello) = phone.start(&mut ChaCha8Rng::seed_from_u64(seed), &id(1), &secret, plan(7)).unwrap();
        machine.deliver(2, &Packet::Hello(&hello).to_vec());
        // No faster than Hellos are heeded.
        machine.wait(SECOND * 5);
        machine.events().contains(&Event::StaleDevice { peer: id(2) })
    };
    for life in 0..3 {
        for seed in 0..3 {
            assert!(!attempt(&mut machine, 10 * life + seed, 99), "life {life}");
        }
        machine.presence(2, false);
        machine.presence(2, true);
    }
    // Nor one that has a secret which is known.
    for seed in 100..105 {
        assert!(!attempt(&mut machine, 2 * seed, 99), "attempt {seed}");
        assert!(!attempt(&mut machine, 2 * seed + 1, SECRETS.current), "attempt {seed}");
    }
    for seed in 201..=204 {
        assert_eq!(attempt(&mut machine, seed + 100, 99), seed == 204, "attempt {seed}");
    }
}

#[test]
fn a_revoked_device_is_told_so_and_gives_up() {
    let mut phone = Lone::phone();
    let call = phone.endpoint.call(phone.now, &id(2), b"anybody?".to_vec(), None).unwrap();
    let packets = phone.packets();
    let Ok(Packet::Hello(hello)) = Packet::decode(&packets[0]) else { panic!() };
    // Somebody else's refusal is no refusal.
    let machine = NullSuite { device: id(2) };
    phone.deliver(2, &Packet::Refused(&machine.refuse(RefusalReason::Revoked, b"another hello")).to_vec());
    assert!(phone.events().iter().all(|event| !matches!(event, Event::Refused { .. })));
    phone.deliver(2, &Packet::Refused(&machine.refuse(RefusalReason::Revoked, hello)).to_vec());
    let events = phone.events();
    assert!(events.contains(&Event::Refused { peer: id(2), reason: RefusalReason::Revoked }));
    assert!(events.contains(&Event::Answer { peer: id(2), id: call, answer: Answer::LinkGone }));
    let later: Vec<_> = (0..12).flat_map(|_| phone.wait(SECOND)).filter_map(|frame| payload(&frame)).collect();
    assert!(later.is_empty(), "{later:?}");
}

#[test]
fn a_newer_bundle_is_tried_at_once() {
    let mut phone = Lone::phone();
    let packets = phone.packets();
    let Ok(Packet::Hello(hello)) = Packet::decode(&packets[0]) else { panic!() };
    let machine = NullSuite { device: id(2) };
    phone.deliver(2, &Packet::Refused(&machine.refuse(RefusalReason::UnknownPrekey, hello)).to_vec());
    assert!(phone.events().contains(&Event::Refused { peer: id(2), reason: RefusalReason::UnknownPrekey }));
    assert!(phone.wait(SECOND * 10).is_empty());
    phone.add_peer(2, Side::Initiator(id(2)));
    let sent: Vec<_> = phone.wait(ms(1)).iter().filter_map(|frame| payload(frame)).collect();
    assert!(matches!(Packet::decode(&sent[0]), Ok(Packet::Hello(_))));
}

#[test]
fn a_tombstone_answers_in_its_own_name_and_within_bounds() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.tombstone(lone.now, id(2));
    let frames = lone.frames();
    let goodbye: Vec<_> = frames.iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(said(&mut puppet, &goodbye), [(None, 0, vec![Said::Signal("goodbye")])]);
    assert!(matches!(ToRelay::decode(&frames[1]), Ok(ToRelay::Peers(peers)) if peers == [id(2)]), "it stays named");
    let suite = NullSuite { device: id(2) };
    let (initiator, hello) = suite.start(&mut ChaCha8Rng::seed_from_u64(5), &id(1), &1, plan(7)).unwrap();
    let mut refusals = Vec::new();
    for _ in 0..50 {
        lone.deliver(2, &Packet::Hello(&hello).to_vec());
        refusals.extend(lone.packets());
    }
    assert_eq!(refusals.len(), 10, "ten in a minute");
    let Ok(Packet::Refused(refused)) = Packet::decode(&refusals[0]) else { panic!() };
    assert_eq!(suite.refusal(&id(1), &initiator, refused), Some(RefusalReason::Revoked));
    assert_eq!(lone.endpoint.call(lone.now, &id(2), vec![], None), Err(CallError::UnknownPeer));
}

#[test]
fn a_goodbye_to_a_removed_device_counts_like_a_refusal() {
    let mut phone = Lone::phone();
    let mut machine = Puppet::answer(&mut phone, 2, 9);
    machine.say(&mut phone, &resume(0));
    let call = phone.endpoint.call(phone.now, &id(2), b"still there?".to_vec(), None).unwrap();
    phone.frames();
    phone.events();
    machine.say(&mut phone, &frame(None, 0, &[Record::Goodbye { code: Code::REMOVED, reason: "removed" }]));
    let events = phone.events();
    assert!(events.contains(&Event::Refused { peer: id(2), reason: RefusalReason::Revoked }), "{events:?}");
    assert!(events.contains(&Event::Answer { peer: id(2), id: call, answer: Answer::LinkGone }));
    let later: Vec<_> = (0..12).flat_map(|_| phone.wait(SECOND)).filter_map(|frame| payload(&frame)).collect();
    assert!(later.is_empty(), "{later:?}");
}

#[test]
fn a_device_that_others_joined_cannot_be_told_that_it_was_removed() {
    let (mut machine, mut phone) = linked();
    phone.say(&mut machine, &frame(None, 0, &[Record::Goodbye { code: Code::REMOVED, reason: "removed" }]));
    let events = machine.events();
    assert!(events.iter().all(|event| !matches!(event, Event::Refused { .. })), "{events:?}");
    Puppet::initiate(&mut machine, 2, 10).say(&mut machine, &resume(0));
}

#[test]
fn a_tombstone_asks_for_the_hello_that_it_will_refuse() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.tombstone(lone.now, id(2));
    lone.frames();
    // It was away and has not heard the goodbye: it goes on with its session.
    for _ in 0..50 {
        puppet.say(&mut lone, &resume(0));
    }
    let hint = Packet::UnknownSession(puppet.session).to_vec();
    assert_eq!(lone.packets(), [hint.as_slice()], "once in two seconds");
    lone.wait(SECOND * 2);
    puppet.say(&mut lone, &resume(0));
    assert_eq!(lone.packets(), [hint.as_slice()]);
    // A stranger is told nothing.
    let packet = puppet.seal(&resume(0));
    lone.deliver(3, &packet);
    assert!(lone.packets().is_empty());
}

/// The relay writes who a packet comes from. With the Hello of another device in the name of a removed one it would get a refusal, signed
/// and about that Hello, with which it could make the other device believe that it was removed.
#[test]
fn a_tombstone_signs_nothing_about_the_hello_of_another_device() {
    let (mut lone, _) = linked();
    lone.endpoint.tombstone(lone.now, id(2));
    lone.frames();
    let others = NullSuite { device: id(3) };
    let (_, hello) = others.start(&mut ChaCha8Rng::seed_from_u64(5), &id(1), &1, plan(7)).unwrap();
    lone.deliver(2, &Packet::Hello(&hello).to_vec());
    lone.deliver(2, &Packet::Hello(b"any bytes").to_vec());
    assert!(lone.packets().is_empty());
}

#[test]
fn a_removed_peer_answers_its_calls_and_is_no_longer_named() {
    let (mut lone, _) = linked();
    let call = lone.endpoint.call(lone.now, &id(2), b"?".to_vec(), None).unwrap();
    lone.frames();
    lone.endpoint.remove_peer(lone.now, &id(2));
    assert!(lone.events().contains(&Event::Answer { peer: id(2), id: call, answer: Answer::LinkGone }));
    let frames = lone.frames();
    assert!(matches!(ToRelay::decode(frames.last().unwrap()), Ok(ToRelay::Peers(peers)) if peers.is_empty()));
}

// Signs of life.

#[test]
fn an_idle_link_is_nearly_silent_and_an_absent_peer_costs_nothing() {
    let mut lone = Lone::machine();
    lone.presence(2, false);
    lone.frames();
    let mut sent = Vec::new();
    for _ in 0..60 {
        sent.extend(lone.wait(SECOND));
        // The relay answers pings.
        for frame in std::mem::take(&mut sent) {
            match ToRelay::decode(&frame) {
                Ok(ToRelay::Ping(n)) => lone.relay(&FromRelay::Pong(n)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(lone.endpoint.must_close().is_none());
}

#[test]
fn a_peer_that_falls_silent_is_noticed_within_twenty_seconds_and_asked_for() {
    let (mut lone, mut puppet) = linked();
    let mut down = None;
    let mut heard = Vec::new();
    for second in 1..40 {
        for frame in lone.wait(SECOND) {
            match ToRelay::decode(&frame) {
                Ok(ToRelay::Ping(n)) => lone.relay(&FromRelay::Pong(n)),
                Ok(ToRelay::Send { payload, .. }) => heard.push((second, payload.to_vec())),
                other => panic!("{other:?}"),
            }
        }
        if lone.events().iter().any(|event| matches!(event, Event::LinkDown { why: LinkDown::Silent, .. })) {
            down = Some(second);
        }
    }
    assert_eq!(down, Some(20));
    let asked: Vec<_> = heard
        .iter()
        .filter_map(|(second, packet)| Some((*second, said(&mut puppet, std::slice::from_ref(packet)).pop()?.2)))
        .collect();
    let signal = |what| vec![Said::Signal(what)];
    assert_eq!(
        asked,
        [
            (15, signal("ping")),
            (21, signal("resume")),
            (22, signal("resume")),
            (24, signal("resume")),
            (28, signal("resume")),
            (36, signal("resume"))
        ]
    );
    puppet.say(&mut lone, &resume(0));
    assert!(lone.endpoint.is_up(&id(2)));
}

#[test]
fn while_someone_waits_a_dead_connection_is_given_up_after_two_seconds() {
    for (active, data, least, most) in
        [(true, true, 1900, 2200), (false, true, 19_000, 21_000), (true, false, 19_000, 21_000)]
    {
        let (mut lone, _) = linked();
        lone.endpoint.set_active(lone.now, active);
        lone.wait(SECOND * 5);
        let begin = lone.now;
        if data {
            lone.endpoint.emit(&id(2), b"key".to_vec()).unwrap();
        }
        while lone.endpoint.must_close().is_none() {
            lone.wait(ms(50));
        }
        // The wait counts from the last sign of life, and from the data if that is later.
        let took = (lone.now - if data && active { begin } else { Duration::ZERO }).as_millis();
        assert!((least..most).contains(&took), "active {active}, data {data}: {took} ms");
        lone.endpoint.handle_disconnected(lone.now);
        assert!(lone.events().contains(&Event::RelayDown { why: RelayDown::Ours(Code::SILENT), last: false }));
        assert!(matches!(lone.endpoint.wants_connection(lone.now), Dial::At(at) if at <= lone.now + ms(100)));
    }
}

#[test]
fn a_connection_that_lasted_is_dialled_again_at_once() {
    for (lasted, soon) in [(SECOND, false), (SECOND * 11, true)] {
        let mut lone = Lone::new(Login::Device { epoch: 1 });
        for _ in 0..40 {
            lone.now += SECOND * 10;
            lone.endpoint.handle_disconnected(lone.now);
        }
        lone.log_in();
        lone.now += lasted;
        lone.endpoint.handle_disconnected(lone.now);
        let Dial::At(at) = lone.endpoint.wants_connection(lone.now) else { panic!() };
        assert_eq!(at - lone.now <= ms(100), soon, "after {lasted:?}: {:?}", at - lone.now);
    }
}

#[test]
fn a_displaced_connection_does_not_come_back() {
    let (mut lone, _) = linked();
    lone.relay(&FromRelay::Goaway { code: Code::DISPLACED, retry_after_ms: 0, text: "newer" });
    assert!(lone.endpoint.must_close().is_some());
    lone.endpoint.handle_disconnected(lone.now);
    assert_eq!(lone.endpoint.wants_connection(lone.now), Dial::Never(Code::DISPLACED));
    assert!(lone.events().contains(&Event::RelayDown { why: RelayDown::Told(Code::DISPLACED), last: true }));
    lone.endpoint.revive(lone.now);
    assert!(matches!(lone.endpoint.wants_connection(lone.now), Dial::At(_)));
}

#[test]
fn the_epoch_grows_with_every_login() {
    let mut lone = Lone::new(Login::Device { epoch: 40 });
    for expected in 40..43 {
        lone.endpoint.handle_connected(lone.now);
        lone.relay(&FromRelay::Challenge { nonce: [1; 32] });
        let frames = lone.frames();
        assert!(matches!(ToRelay::decode(&frames[0]), Ok(ToRelay::Login { epoch, .. }) if epoch == expected));
        lone.endpoint.handle_disconnected(lone.now);
    }
}

#[test]
fn a_relay_that_never_speaks_is_left() {
    let mut lone = Lone::new(Login::Device { epoch: 1 });
    lone.endpoint.handle_connected(lone.now);
    lone.wait(SECOND * 9);
    assert!(lone.endpoint.must_close().is_none());
    lone.wait(SECOND * 2);
    assert_eq!(lone.endpoint.must_close(), Some(Code::SILENT));
}

// Rendezvous.

#[test]
fn a_rendezvous_is_opened_again_after_a_reconnect_until_its_time_is_over() {
    let mut lone = Lone::machine();
    lone.frames();
    assert!(lone.endpoint.open_rendezvous(lone.now, [1; 32], 120));
    let opened = |lone: &mut Lone| {
        lone.frames().iter().find_map(|frame| match ToRelay::decode(frame) {
            Ok(ToRelay::OpenRendezvous { seconds, .. }) => Some(seconds),
            _ => None,
        })
    };
    assert_eq!(opened(&mut lone), Some(120));
    lone.endpoint.handle_disconnected(lone.now);
    lone.now += SECOND * 50;
    lone.log_in();
    assert_eq!(opened(&mut lone), Some(70));
    lone.endpoint.handle_disconnected(lone.now);
    lone.now += SECOND * 100;
    lone.log_in();
    assert_eq!(opened(&mut lone), None);
    for number in 2..6 {
        assert!(lone.endpoint.open_rendezvous(lone.now, [number; 32], 120));
    }
    assert!(!lone.endpoint.open_rendezvous(lone.now, [9; 32], 120), "four at a time");
    lone.relay(&FromRelay::Rendezvous { ticket_hash: [2; 32], state: RendezvousState::Ended });
    assert!(lone.endpoint.open_rendezvous(lone.now, [9; 32], 120));
}

#[test]
fn packets_of_a_rendezvous_pass_through_and_touch_no_link() {
    let (mut lone, _) = linked();
    let bytes = Packet::InvitationGone(Gone::Used).to_vec();
    // Also when the guest has the identity of a peer: it is being paired again.
    lone.relay(&FromRelay::Deliver { from: id(2), rendezvous: true, payload: &bytes });
    assert_eq!(lone.events(), [Event::Packet { from: id(2), via_rendezvous: true, bytes: bytes.clone() }]);
    lone.endpoint.send_packet(id(8), &bytes).unwrap();
    let frames = lone.frames();
    assert_eq!(payload(&frames[0]), Some(bytes));
    let tag = tag(&frames[0]).unwrap();
    lone.relay(&FromRelay::Undeliverable { to: id(8), tag, reason: Undelivered::Unreachable });
    assert_eq!(lone.events(), [Event::Undelivered { to: id(8), reason: Undelivered::Unreachable }]);
}

// Bounds on this side.

#[test]
fn the_application_is_told_when_too_much_waits() {
    let (mut lone, _) = linked();
    lone.presence(2, false);
    for _ in 0..MAX_OUTSTANDING {
        lone.endpoint.call(lone.now, &id(2), vec![], None).unwrap();
    }
    assert_eq!(lone.endpoint.call(lone.now, &id(2), vec![], None), Err(CallError::TooMany));
    assert_eq!(lone.endpoint.call(lone.now, &id(2), vec![0; 300_000], None), Err(CallError::TooLarge));
    let channel = lone.endpoint.open_channel(&id(2), Class::Bulk, "x").unwrap();
    lone.endpoint.send(&id(2), channel, &[0; 262_144]).unwrap();
    assert_eq!(lone.endpoint.send(&id(2), channel, b"x"), Err(SendError::WouldBlock));
    assert_eq!(lone.endpoint.sendable(&id(2), channel), 0);
    assert_eq!(lone.endpoint.send(&id(2), channel, &[0; 262_145]), Err(SendError::TooLarge));
    let mut empty = 0;
    let other = lone.endpoint.open_channel(&id(2), Class::Bulk, "x").unwrap();
    while lone.endpoint.send(&id(2), other, b"").is_ok() {
        empty += 1;
    }
    assert!(empty <= 8192, "empty messages are bounded as well: {empty}");
    let mut events = 0;
    while lone.endpoint.emit(&id(2), vec![0; 1000]).is_ok() {
        events += 1;
    }
    assert!(events <= 257);
    for _ in 0..253 {
        lone.endpoint.open_channel(&id(2), Class::Bulk, "x").unwrap();
    }
    assert_eq!(lone.endpoint.open_channel(&id(2), Class::Bulk, "x"), Err(OpenChannelError::TooMany));
    // Deadlines pass also while nobody is there.
    lone.wait(SECOND * 31);
    let passed = lone
        .events()
        .iter()
        .filter(|event| matches!(event, Event::Answer { answer: Answer::DeadlinePassed, .. }))
        .count();
    assert_eq!(passed, MAX_OUTSTANDING);
}

#[test]
fn answers_that_nobody_reads_hold_up_the_one_who_answers() {
    let (mut lone, mut puppet) = linked();
    let mut asked = Vec::new();
    for number in 0..40 {
        let request = CallMessage::Request { id: number + 1, body: b"{}" }.to_vec();
        puppet.say(&mut lone, &frame(Some(number), 0, &[Record::Data { channel: 0, last: true, bytes: &request }]));
    }
    for event in lone.events() {
        if let Event::Request { id, .. } = event {
            asked.push(id);
        }
    }
    let answer = vec![b'1'; 200_000];
    let accepted = asked.iter().take_while(|id_| lone.endpoint.respond(&id(2), **id_, &answer) == Ok(())).count();
    assert_eq!(accepted, 20, "4 MiB");
    // As they are read, there is room again, and it is told.
    let mut next = 0;
    let mut writable = false;
    for _ in 0..40 {
        next += lone.packets().iter().filter(|packet| puppet.open(packet).is_some_and(|frame| frame[0] == 1)).count()
            as u64;
        puppet.say(&mut lone, &frame(None, next, &[]));
        writable |= lone.events().contains(&Event::Writable { peer: id(2), channel: 0 });
    }
    assert!(writable);
    assert_eq!(lone.endpoint.respond(&id(2), asked[accepted], &answer), Ok(()));
}

#[test]
fn shutting_down_takes_leave_of_everybody() {
    let (mut lone, mut puppet) = linked();
    lone.endpoint.shut_down(lone.now);
    let packets = lone.packets();
    assert_eq!(said(&mut puppet, &packets), [(None, 0, vec![Said::Signal("goodbye")])]);
    assert_eq!(lone.endpoint.must_close(), Some(Code::GOODBYE));
    lone.endpoint.handle_disconnected(lone.now);
    assert_eq!(lone.endpoint.wants_connection(lone.now), Dial::Never(Code::GOODBYE));
}

/// A29 of docs/THREAT-MODEL.md: what a person answers cannot be told from the length of the packet that carries it.
#[test]
fn a_packet_shows_a_step_of_size_and_not_what_was_said() {
    let sizes = |bodies: &[&[u8]]| {
        let lengths = bodies.iter().map(|body| {
            let (mut lone, _) = linked();
            lone.frames();
            let channel = lone.endpoint.open_channel(&id(2), Class::Interactive, "terminal").unwrap();
            lone.frames();
            lone.endpoint.send(&id(2), channel, body).unwrap();
            lone.packets().iter().map(Vec::len).collect::<Vec<_>>()
        });
        lengths.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(sizes(&[b"y", b"n", b"yes", b"no, and here is why"]).len(), 1);
    assert_eq!(sizes(&[&[b'x'; 300], &[b'x'; 480]]).len(), 1);
    assert_eq!(sizes(&[b"y", &[b'x'; 480]]).len(), 2);
}

// What a peer could do to this device, and through it to others.

#[test]
fn who_says_resume_again_and_again_keeps_nobody_else_waiting() {
    let mut lone = Lone::machine();
    lone.add_peer(3, Side::Responder);
    lone.presence(3, true);
    let mut puppets = [2, 3].map(|peer| {
        let mut puppet = Puppet::initiate(&mut lone, peer, 9);
        puppet.say(&mut lone, &resume(0));
        puppet
    });
    let next = widen(&mut lone, &mut puppets[0], 2);
    let file = lone.endpoint.open_channel(&id(2), Class::Interactive, "terminal").unwrap();
    lone.endpoint.send(&id(2), file, &[1; 250_000]).unwrap();
    let flight: usize = lone.packets().iter().map(Vec::len).sum();
    puppets[0].say(&mut lone, &resume(next));
    lone.endpoint.emit(&id(3), b"approve?".to_vec()).unwrap();
    let (mut sent, mut waited) = (0, None);
    // As fast as the line carries, for ten seconds.
    for poll in 0..20_000 {
        if poll % 5 == 4 {
            puppets[0].say(&mut lone, &resume(next));
        }
        lone.now += Duration::from_micros(500);
        lone.endpoint.handle_timeout(lone.now);
        let Some(frame) = lone.endpoint.poll_transmit(lone.now) else { continue };
        match ToRelay::decode(&frame) {
            Ok(ToRelay::Send { to, payload, .. }) if to == id(2) => sent += payload.len(),
            Ok(ToRelay::Send { to, .. }) if to == id(3) => waited = waited.or(Some(poll)),
            _ => {}
        }
    }
    assert!(waited.is_some_and(|polls| polls < 4), "the other peer waited for {waited:?} frames");
    // Eight times all of it, and then what had 0.2 s to be acknowledged.
    assert!(sent <= flight * 70, "{sent} bytes were sent for Resumes, {flight} are in flight");
}

#[test]
fn a_peer_that_grants_nothing_makes_nobody_spin() {
    let (mut lone, mut puppet) = linked();
    let mut next = 0;
    // It acknowledges everything and never raises the limit of channel 0.
    while lone.endpoint.emit(&id(2), vec![0; 20_000]) != Err(SendError::WouldBlock) {
        for _ in 0..2 {
            let packets = lone.packets();
            next += said(&mut puppet, &packets).iter().filter(|(number, ..)| number.is_some()).count() as u64;
            lone.now += ms(5);
            puppet.say(&mut lone, &frame(None, next, &[]));
        }
    }
    lone.frames();
    lone.events();
    for _ in 0..10 {
        assert_eq!(lone.endpoint.emit(&id(2), vec![0; 20_000]), Err(SendError::WouldBlock));
        assert!(lone.frames().is_empty());
        assert!(lone.events().is_empty(), "told to go on although nothing was sent");
    }
}

#[test]
fn who_is_paired_again_the_other_way_round_makes_the_handshakes_and_who_no_longer_does_is_quiet() {
    let secrets = happy_link::PairSecrets { current: 7, previous: None };
    let again = |side| Peer { record: id(2), side, secrets: secrets.clone() };
    let (mut lone, _) = linked();
    lone.endpoint.add_peer(again(Side::Initiator(id(2)))).unwrap();
    assert!(lone.events().iter().any(|event| matches!(event, Event::LinkDown { .. })));
    let sent: Vec<_> = lone.wait(SECOND * 3).iter().filter_map(|frame| payload(frame)).collect();
    assert_eq!(secret_of(hello_in(&sent)), 7);

    let mut phone = Lone::phone();
    assert!(!phone.frames().is_empty());
    phone.endpoint.add_peer(again(Side::Responder)).unwrap();
    // `wait` refuses a timer that stands still.
    assert!(phone.wait(SECOND).is_empty());
    Puppet::initiate_with(&mut phone, 2, 9, 7).say(&mut phone, &resume(0));
    assert!(phone.endpoint.is_up(&id(2)));
}

/// Events waited for a peer that was away, and it came back in a new life: they were gone with the session, and whoever had been told to wait
/// was never told to go on. The simulation of the drivers (`tests/tests/turmoil`) found it.
#[test]
fn who_waits_to_tell_something_hears_of_it_when_the_session_is_replaced() {
    let (mut lone, _) = linked();
    while lone.endpoint.emit(&id(2), vec![0; 20_000]) != Err(SendError::WouldBlock) {}
    lone.presence(2, false);
    lone.presence(2, true);
    lone.events();
    let mut again = Puppet::initiate(&mut lone, 2, 10);
    again.say(&mut lone, &resume(0));
    lone.frames();
    let events = lone.events();
    assert!(events.iter().any(|event| matches!(event, Event::LinkUp { resumed: false, .. })), "{events:?}");
    assert!(events.iter().any(|event| matches!(event, Event::Writable { channel: 0, .. })), "{events:?}");
}
