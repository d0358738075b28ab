//! Where the search begins: genuine bytes of every kind, from which it is not far to nearly genuine ones.

use happy_crypto::{DeviceId, seal};
use happy_pairing::{Change, Membership, NextStatement, Role, Statement};
use happy_wire::call::CallMessage;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::frame::{Class, FrameHeader, Record};
use happy_wire::packet::Packet;
use happy_wire::relay::{Credential, FromRelay, RecordAnswer, ToRelay};

use crate::session::{Pair, people};

fn chosen(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// The seeds of a target.
#[must_use]
pub fn of(target: &str) -> Vec<Vec<u8>> {
    let people = people();
    match target {
        "records" => {
            let change = Change::Add {
                subject: people.phone.record().clone(),
                role: Role::Owner,
                name: "phone".into(),
                session: [3; 16],
            };
            let statement = Statement::sign(&people.machine, &NextStatement::FIRST, 1, change);
            let mut log = Vec::new();
            Membership::encode_entry(&statement, &mut log);
            vec![
                chosen(0, people.phone.record().as_bytes()),
                chosen(1, people.bundle.as_bytes()),
                chosen(2, statement.as_bytes()),
                chosen(3, &log),
                chosen(4, &people.secret.to_bytes()[..]),
                chosen(5, &people.prekey.to_bytes()[..]),
            ]
        }
        "handshake" => vec![chosen(0, &people.hello), chosen(1, &[1, 2, 0]), chosen(2, &[0; 48]), chosen(3, &[1, 1])],
        "ratchet" => vec![
            vec![0x80, 0, 0, 0x83, 0, 0, 0, 0, 0, 3, 0, 0],
            vec![0x80, 0, 0, 0x80, 0, 0, 0x83, 1, 0, 0, 0, 0, 3, 0, 0, 0x86, 3, 9, 0x83, 0, 0, 0x07, 0, 80],
        ],
        "storage" => {
            let Pair { mut rng, mut phone, .. } = Pair::new();
            let mut message = Vec::new();
            let _ = phone.encrypt(&mut rng, b"text", &mut message);
            let sealed = seal::seal(&mut crate::session::rng(), &[7; 32], "durable ratchet", &message);
            vec![chosen(0, &message), chosen(1, &sealed)]
        }
        "invitation" => {
            let text = "https://relay.example:8443/#0123456789";
            vec![text.as_bytes().to_vec(), b"happy://127.0.0.1/#".to_vec()]
        }
        "pairing" => {
            let hello = Packet::Hello(&people.hello).to_vec();
            let strange = [piece(&[0x10]), piece(&hello), piece(&[0x12, 1])].concat();
            // PROTOCOL 11: Greeting, Accepted with no statement in it; Offer, Added with nothing in it, Failed, Done.
            let guest = [piece(&[0, 2, 1, b'x']), piece(&[4, 4, 0, 0])].concat();
            let host = [piece(&[0, 1, 1, 1, b'x']), piece(&[0, 3, 1, b'x', 0, 0, 0, 0, 0]), piece(&[0, 5, 1])].concat();
            vec![
                chosen(3, &strange),
                chosen(12, &[strange, piece(&[]), piece(&[])].concat()),
                chosen(13, &piece(&[])),
                chosen(15, &guest),
                chosen(14, &host),
            ]
        }
        "wire" => wire(),
        "link" => {
            let mut frame = Vec::new();
            FrameHeader { number: Some(0), acknowledgement: 0 }.encode(&mut frame);
            Record::Open { channel: 1, class: Class::Bulk, limit: 9, label: "x" }.encode(&mut frame);
            Record::Data { channel: 1, last: true, bytes: b"data" }.encode(&mut frame);
            let mut resume = Vec::new();
            FrameHeader { number: None, acknowledgement: 0 }.encode(&mut resume);
            Record::Resume.encode(&mut resume);
            let sealed = |frame: &[u8]| piece(&chosen(0, frame));
            let session = [sealed(&resume), sealed(&frame)].concat();
            // The application opens a channel and calls; a new handshake, with which the session goes on; the connection breaks.
            let busy =
                [piece(&[6, 2]), piece(&[6, 0, b'x']), piece(&[8 | 5]), piece(&[7]), piece(&[6, 1, b'x'])].concat();
            vec![
                chosen(0, &[&session[..], &busy].concat()),
                chosen(2, &[&session[..], &busy].concat()),
                chosen(1, &piece(&chosen(2, &people.hello))),
                chosen(crate::link::REAL, &session),
                chosen(crate::link::REAL | 2, &session),
            ]
        }
        "screen" => {
            let snapshot = |text: &str| {
                let mut screen = happy_screen::Screen::new(20, 5, 10);
                screen.feed(text.as_bytes());
                chosen(1, &screen.snapshot(10))
            };
            let ramp = (0..20).map(|n| format!("\x1b[38;2;{n};9;{}m#", n * 2)).collect::<String>();
            let link = "\x1b]8;;https://a\x07\x1b[4:3;58;5;9mlink\r\n\x1b]8;;\x07";
            vec![
                chosen(0, "plain \u{1F600} text\r\n\x1b[2J\x1b[3;4Hx\x1b[?2026h".as_bytes()),
                chosen(0, format!("{ramp}\r\n{link}\x1b(A#\x1b*0\x1bNq\x1b[3b\x1b[2;4r\x1b[M").as_bytes()),
                snapshot("\x1b[31mred\x1b[m\r\n\x1b]0;title\x07\x1b[?1049h"),
                snapshot(&format!("{}{link}{ramp}\r\ne\u{301}----------\x1b7\x1b[1;8mend", link.repeat(6))),
            ]
        }
        "delta" => {
            let mut screen = happy_screen::Screen::new(20, 5, 10);
            let mut shown = |text: &[u8]| {
                screen.feed(text);
                (screen.snapshot(0), screen.history_page(9, 9, 99).1)
            };
            let (old, _) = shown(b"one\r\n\x1b[31mtwo\x1b[m\r\nthree");
            let (new, page) = shown(b"\r\nfour\r\nfive\r\n\x1b[2msix");
            let steps = happy_screen::delta::diff(&old, &new);
            let whole = happy_screen::delta::diff(&[], &old);
            vec![
                chosen(0, &[piece(&old), piece(&new)].concat()),
                chosen(0, &[piece(&old), piece(&steps)].concat()),
                chosen(1, &piece(&whole)),
                chosen(130, &[piece(&whole), piece(&steps)].concat()),
                chosen(2, &[piece(&page), piece(&page)].concat()),
            ]
        }
        "holder" => holder(),
        "cast" => [
            "{\"version\":3,\"term\":{\"cols\":80,\"rows\":24},\"title\":\"x\"}\n[0.5,\"o\",\"\\u001b[31m界\"]\n# no\n[0,\"r\",\"9x8\"]\n[1,\"m\",\"\"]\n[2.25,\"x\",\"0\"]\n",
            "{\"version\":2,\"width\":80,\"height\":24,\"idle_time_limit\":1.5}\n[0.5,\"o\",\"a\"]\r\n[0.4,\"i\",\"x\"]\n[7e9,\"o\",\"b\"]",
        ]
        .map(|text| text.as_bytes().to_vec())
        .into(),
        "bus" => vec![
            chosen(0, &batch()),
            chosen(1, b"relay.example:8443"),
            chosen(1, b"https://app.example"),
            chosen(1, format!("home:{device}", device = people.machine.device_id()).as_bytes()),
        ],
        "websocket" => websocket(),
        "rpc" => vec![br#"{"method":"session.list","params":{}}"#.to_vec()],
        _ => Vec::new(),
    }
}

fn wire() -> Vec<Vec<u8>> {
    let device = DeviceId::from_bytes([5; 32]);
    let enrolment = EnrolmentKey::from_seed(&[1; 32]);
    let login = |credential| ToRelay::Login { device, epoch: 1, client_nonce: [2; 16], credential, signature: [3; 64] };
    let mut seeds = Vec::new();
    for frame in [
        ToRelay::Send { to: device, tag: 1, payload: b"payload" },
        ToRelay::Peers(vec![device]),
        ToRelay::OpenRendezvous { ticket_hash: [6; 32], seconds: 120 },
        ToRelay::PutRecord { kind: 1, version: 2, sealed: b"sealed" },
        ToRelay::GetRecord { machine: device, kind: 2 },
        login(Credential::None),
        login(Credential::Ticket([9; 32])),
        login(Credential::Enrolment { key: enrolment.public().id(), signature: [4; 64] }),
    ] {
        let mut bytes = vec![0];
        frame.encode(&mut bytes);
        seeds.push(bytes);
    }
    for frame in [
        FromRelay::Challenge { nonce: [7; 32] },
        FromRelay::Deliver { from: device, rendezvous: true, payload: b"payload" },
        FromRelay::Presence { device, here: true },
        FromRelay::Record {
            machine: device,
            kind: 1,
            answer: RecordAnswer::Asked,
            last_seen: 1,
            version: 2,
            sealed: b"sealed",
        },
        FromRelay::Token { expires: 1, token: "a.b.c" },
    ] {
        let mut bytes = vec![1];
        frame.encode(&mut bytes);
        seeds.push(bytes);
    }
    seeds.push(chosen(2, &Packet::Hello(&people().hello).to_vec()));
    let mut frame = vec![3];
    FrameHeader { number: Some(3), acknowledgement: 4 }.encode(&mut frame);
    Record::Data { channel: 1, last: true, bytes: b"data" }.encode(&mut frame);
    Record::PairSecret([8; 16]).encode(&mut frame);
    Record::Padding(9).encode(&mut frame);
    seeds.push(frame);
    seeds.push(chosen(4, &CallMessage::Request { id: 1, body: b"{}" }.to_vec()));
    seeds.push(chosen(5, &[2, 0, 0, 0, 0, 0, 0, 0, 1, b'x']));
    seeds
}

/// Frames in orders and as they are; a request; a token; records in a body.
fn websocket() -> Vec<Vec<u8>> {
    // Messages of several lengths with the three forms of one; one in parts around a Ping; one that fills a whole frame and has a byte
    // too much, or has not; a Close.
    let orders: [&[u8]; 5] = [
        &[7, 0x82, 0, 5, 0, b'a', 0x82, 0, 126, 0, b'b', 0x82, 0x20, 0, 1, b'c', 0x82, 0, 9, 2, b'd', 0x8a, 0, 0, 0, 0],
        &[9, 2, 0, 40, 0, b'a', 0x89, 0, 2, 0, b'?', 0, 0x40, 0, 0, b'b', 0x80, 0, 0, 0, 0, 0x88, 0, 2, 0, 0],
        &[1, 2, 0, 63, 4, b'a', 0x80, 0, 1, 0, b'b', 0x88, 0, 0, 0, 0],
        // Nearly a whole frame, and no end: what is kept of it takes no more than one.
        &[0, 2, 0xff, 0xff, 0, b'a', 0, 0, 64, 0, b'b'],
        &[2, 2, 0xff, 0xff, 0, b'a', 0x80, 0, 65, 0, b'b', 0x82, 0, 64, 4, b'c', 0x82, 0, 65, 4, 0],
    ];
    let frames: [&[u8]; 2] =
        [&[3, 0x82, 0x83, 1, 2, 3, 4, b'a', b'b', b'c', 0x88, 0x80, 0, 0, 0, 0], &[5, 0x81, 0xfe, 0, 126, 9, 9, 9, 9]];
    let request = "host:relay.example\nupgrade:websocket\nconnection:keep-alive, Upgrade\nsec-websocket-version:13\n\
                   sec-websocket-protocol:happy-relay.v1\nsec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==";
    let from_page = format!("{request}\norigin:https://relay.example");
    let elsewhere = format!("{request}\norigin:https://app.example\norigin:null");
    // {"alg":"EdDSA","kid":"00112233445566ff","typ":"JWT"}, {}, and a signature of zeros.
    let header = "eyJhbGciOiJFZERTQSIsImtpZCI6IjAwMTEyMjMzNDQ1NTY2ZmYiLCJ0eXAiOiJKV1QifQ";
    let token = format!("{header}.e30.{}", "A".repeat(86));
    let body = br#"{"records":[{"kind":1,"version":7,"sealed":"AAAA"},{"kind":2,"version":1,"sealed":"AA"}]}"#;
    let mut seeds: Vec<_> = orders.iter().map(|orders| chosen(0, orders)).collect();
    seeds.extend(frames.iter().map(|frames| chosen(1, frames)));
    seeds.extend([request, &from_page, &elsewhere].map(|request| chosen(2, request.as_bytes())));
    seeds.extend([chosen(3, token.as_bytes()), chosen(4, body)]);
    seeds
}

/// A batch with a record of each kind (`PROTOCOL 15`).
fn batch() -> Vec<u8> {
    let mut batch = vec![1];
    batch.extend_from_slice(&[3; 8 + 8]);
    for (kind, fields) in
        [(1_u8, 32 + 32 + 4 + 9), (2, 32 + 32 + 4 + 2), (3, 32 + 8 + 8 + 32 + 2), (4, 32 + 16), (5, 8)]
    {
        batch.extend_from_slice(&(1 + fields as u32).to_be_bytes());
        batch.push(kind);
        batch.resize(batch.len() + fields, 1);
    }
    batch
}

/// Two viewers and one who steers, and what a holder leaves to another program.
fn holder() -> Vec<Vec<u8>> {
    use crate::holder::{PRINTS, READS, TURNS_TO, UPGRADES};
    use happy::holder::protocol::{VERSION, kind};
    use happy_wire::terminal::TerminalMessage;

    let frame = |kind: u8, body: &[u8]| [&(body.len() as u32 + 1).to_be_bytes()[..], &[kind], body].concat();
    let first = |body: &str| [&[VERSION], body.as_bytes()].concat();
    let viewer = |id: u8, more: &str| {
        let json = format!(
            r#"{{"viewer":"{id:08}-0000-4000-8000-000000000000","writer":"{id:08}-0000-4000-8000-00000000000f","name":"desk","cols":80,"rows":24{more}}}"#
        );
        frame(kind::ATTACH, &first(&json))
    };
    let says = |message: TerminalMessage<'_>| frame(kind::TERMINAL, &message.to_vec());
    let asks = |json: &str| frame(kind::REQUEST, json.as_bytes());
    let resize = r#"{"do":"resize","viewer":"00000001-0000-4000-8000-000000000000","cols":120,"rows":0}"#;
    let frames = [
        viewer(1, r#","take_control":true,"lossless":true"#),
        says(TerminalMessage::Input { offset: 0, bytes: b"ls\r" }),
        frame(PRINTS, b"ls\r\n\x1b[31mred\x1b[m\r\n\x1b[6n"),
        frame(TURNS_TO, &[1]),
        viewer(2, r#","credit":true,"scrollback":9"#),
        frame(PRINTS, &b"line\r\n".repeat(60)),
        says(TerminalMessage::Drawn { offset: 20 }),
        says(TerminalMessage::HistoryWanted { before: 30, rows: 9 }),
        frame(READS, &[5]),
        frame(UPGRADES, b""),
        frame(TURNS_TO, &[2]),
        frame(kind::CONTROL, &[VERSION]),
        asks(resize),
        asks(r#"{"do":"take_control","viewer":"00000002-0000-4000-8000-000000000000","cols":1,"rows":65535}"#),
        asks(r#"{"do":"detach","viewer":"00000001-0000-4000-8000-000000000000"}"#),
    ];
    let mut sections = happy::holder::handover::Sections::default();
    let state = include_bytes!("handover.json");
    let screen = happy_screen::Screen::new(90, 30, 100).snapshot(0);
    for (name, bytes) in [("state", &state[..]), ("screen", &screen), ("log", b"hello"), ("input", b"abc")] {
        sections.put(name, bytes);
    }
    vec![
        chosen(0, &frames.concat()),
        chosen(0, &frames[..2].concat()),
        chosen(1, &sections.into_bytes()),
        chosen(2, &[piece(state), piece(&screen), piece(b"hello"), piece(b"abc")].concat()),
    ]
}
