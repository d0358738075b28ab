//! What strangers may send. Each function takes any bytes and must come back: no panic, no memory without a bound, and what it read
//! can be written again.
//!
//! `cargo xtask fuzz` searches with libFuzzer; `cargo test -p happy-fuzz` replays what it kept in `fuzz/corpus`, and the
//! [`seeds`] from which it starts.

mod cheap;
pub mod corpus;
mod holder;
mod link;
mod pairing;
mod session;
mod websocket;

pub mod seeds;

use happy_crypto::durable::{CommitError, DurableRatchet, Storage};
use happy_crypto::handshake::{HelloView, Initiator, PairSecret, Refused, Responder, Shared};
use happy_crypto::{Bundle, DeviceId, IdentityRecord, Ratchet, SignedPrekey, seal};
use happy_pairing::{Invitation, Membership, Origin, Statement};
use happy_wire::call::CallMessage;
use happy_wire::enrolment::EnrolmentPublic;
use happy_wire::frame::FrameHeader;
use happy_wire::packet::Packet;
use happy_wire::relay::{FromRelay, ToRelay};
use happy_wire::terminal::TerminalMessage;

pub use holder::holder;
pub use link::link;
pub use pairing::pairing;
use session::{Pair, people, rng};
pub use websocket::websocket;

/// A target, by the name of its binary and of its folder in the corpus.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: [(&str, Target); 15] = [
    ("records", records),
    ("handshake", handshake),
    ("ratchet", ratchet),
    ("storage", storage),
    ("invitation", invitation),
    ("pairing", pairing),
    ("wire", wire),
    ("link", link),
    ("screen", screen),
    ("delta", delta),
    ("holder", holder),
    ("cast", cast),
    ("rpc", rpc),
    ("bus", bus),
    ("websocket", websocket),
];

/// The first byte, which chooses, and the rest.
fn choose(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest))
}

/// Pieces that are preceded by their lengths; the last one may be cut.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        data = rest;
        Some(piece)
    })
}

/// Signed and stored structures: what was read is written as it came.
pub fn records(data: &[u8]) {
    let (kind, bytes) = choose(data);
    let me = &people().machine;
    match kind % 6 {
        0 => {
            if let Ok(record) = IdentityRecord::decode(bytes) {
                assert_eq!(record.as_bytes(), bytes);
            }
        }
        1 => {
            if let Ok(bundle) = Bundle::decode(bytes) {
                assert_eq!(bundle.as_bytes(), bytes);
                let _ = bundle.without_one_time().supersedes(&bundle);
            }
        }
        2 => {
            if let Ok(statement) = Statement::decode(bytes) {
                assert_eq!(statement.as_bytes(), bytes);
            }
        }
        3 => {
            if let Ok(log) = Membership::decode(me.device_id(), bytes) {
                let _ = log.resolve();
            }
        }
        4 => {
            if let Ok(secret) = PairSecret::from_bytes(bytes) {
                assert_eq!(&secret.to_bytes()[..], bytes);
            }
        }
        _ => {
            if let Ok(prekey) = SignedPrekey::from_bytes(me, bytes) {
                assert_eq!(&prekey.to_bytes()[..], bytes);
            }
        }
    }
}

/// The messages of a handshake, at both sides.
pub fn handshake(data: &[u8]) {
    let (kind, bytes) = choose(data);
    let people = people();
    let rng = &mut rng();
    let shared = Shared::Pair(&people.secret);
    match kind % 4 {
        0 => {
            let _ = HelloView::parse(bytes);
            let prekey = &people.prekey;
            assert!(
                Responder::answer(rng, &people.machine, prekey, None, bytes, ([0; 16], 0), shared).is_err()
                    || bytes == people.hello.as_slice()
            );
        }
        1 => {
            let Ok((initiator, _)) = Initiator::start(rng, &people.phone, &people.bundle, shared, [1; 16], b"") else {
                return;
            };
            assert!(initiator.welcome(rng, bytes).is_err());
        }
        2 => {
            let Ok((responder, _)) =
                Responder::answer(rng, &people.machine, &people.prekey, None, &people.hello, ([0; 16], 0), shared)
            else {
                return;
            };
            assert!(responder.confirm(bytes).is_err());
        }
        _ => {
            let _ = Refused::verify(&people.machine.device_id(), &[0; 32], bytes);
        }
    }
}

/// Both ends of a session under orders: send, deliver, repeat, damage, lose, in any order.
pub fn ratchet(data: &[u8]) {
    let Pair { mut rng, mut phone, mut machine } = Pair::new();
    // For each direction what is on the way: its number and its bytes.
    let mut on_the_way: [Vec<(u32, Vec<u8>)>; 2] = Default::default();
    let mut opened: [Vec<u32>; 2] = Default::default();
    let mut sent = [0_u32; 2];
    let mut now = 0;
    for order in data.chunks(3).take(400) {
        let [what, index, mask] = [0, 1, 2].map(|at| order.get(at).copied().unwrap_or(0));
        let to = usize::from(what >> 7);
        let (sender, receiver) = match to {
            0 => (&mut machine, &mut phone),
            _ => (&mut phone, &mut machine),
        };
        let queue = &mut on_the_way[to];
        let at = usize::from(index) % queue.len().max(1);
        match what & 7 {
            0..=2 => {
                let mut message = Vec::new();
                if sender.encrypt(&mut rng, &sent[to].to_be_bytes(), &mut message).is_ok() {
                    queue.push((sent[to], message));
                    sent[to] += 1;
                }
            }
            3 | 4 if !queue.is_empty() => {
                let (number, message) = queue.remove(at);
                deliver(receiver, number, &message, &mut opened[to]);
            }
            5 if !queue.is_empty() => {
                let (number, message) = queue[at].clone();
                deliver(receiver, number, &message, &mut opened[to]);
            }
            6 if !queue.is_empty() => {
                let mut message = queue[at].1.clone();
                let place = usize::from(index) * 7 % message.len();
                message[place] ^= mask.max(1);
                assert!(receiver.decrypt(&message, &mut Vec::new()).is_err());
            }
            7 => {
                now += u64::from(mask) * 60;
                receiver.expire(now);
                let _ = receiver.decrypt(order, &mut Vec::new());
            }
            _ => {}
        }
    }
}

fn deliver(to: &mut Ratchet, number: u32, message: &[u8], opened: &mut Vec<u32>) {
    let mut plaintext = Vec::new();
    if to.decrypt(message, &mut plaintext).is_ok() {
        assert_eq!(plaintext, number.to_be_bytes());
        assert!(!opened.contains(&number), "a message opened twice");
        opened.push(number);
    }
}

/// What comes back from a disk.
pub fn storage(data: &[u8]) {
    struct Nowhere;
    impl Storage for Nowhere {
        type Error = std::convert::Infallible;
        fn commit(&mut self, _: u64, _: u64, _: &[u8]) -> Result<(), CommitError<Self::Error>> {
            Ok(())
        }
    }

    let (kind, bytes) = choose(data);
    let key = [7; 32];
    let _ = seal::open(&key, "durable ratchet", bytes);
    // Whoever can write the file cannot seal, but a bug of ours can: what is inside must be checked too.
    let record = match kind % 2 {
        0 => seal::seal(&mut rng(), &key, "durable ratchet", bytes),
        _ => bytes.to_vec(),
    };
    let peer = people().phone.device_id();
    if let Ok(mut ratchet) = DurableRatchet::load(Nowhere, &key, peer, &record, 0) {
        let _ = ratchet.send(&mut rng(), b"text").map(|kept| kept.bytes().len());
        let _ = ratchet.send_leased(&mut rng(), b"text", &mut Vec::new());
        let _ = ratchet.receive(&mut rng(), bytes);
        ratchet.expire(u64::MAX);
    }
}

/// What a camera or a clipboard gives.
pub fn invitation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok((origin, invitation)) = Invitation::parse_link(&text) {
        let again = invitation.link(&origin);
        assert!(Invitation::parse_link(&again).is_ok_and(|(same, _)| same == origin));
    }
    if let Ok(origin) = Origin::parse(&text) {
        assert_eq!(Origin::parse(origin.as_str()), Ok(origin.clone()));
    }
    let _ = happy_pairing::clean_name(&text);
    let _ = text.parse::<DeviceId>();
    let _ = text.parse::<EnrolmentPublic>();
}

/// Frames and packets: what was read is written as it came.
pub fn wire(data: &[u8]) {
    let (kind, bytes) = choose(data);
    let mut again = Vec::new();
    match kind % 6 {
        0 => {
            if let Ok(frame) = ToRelay::decode(bytes) {
                frame.encode(&mut again);
                assert_eq!(again, bytes);
            }
        }
        1 => {
            if let Ok(frame) = FromRelay::decode(bytes) {
                frame.encode(&mut again);
                assert_eq!(again, bytes);
            }
        }
        2 => {
            if let Ok(packet) = Packet::decode(bytes) {
                assert_eq!(packet.to_vec(), bytes);
            }
        }
        3 => {
            if let Ok((header, records)) = FrameHeader::decode(bytes) {
                header.encode(&mut again);
                let mut whole = true;
                for record in records {
                    match record {
                        Ok(record) => record.encode(&mut again),
                        Err(_) => whole = false,
                    }
                }
                assert!(!whole || again == bytes);
            }
        }
        4 => {
            if let Ok(message) = CallMessage::decode(bytes) {
                assert_eq!(message.to_vec(), bytes);
            }
        }
        _ => {
            if let Ok(message) = TerminalMessage::decode(bytes) {
                assert_eq!(message.to_vec(), bytes);
            }
        }
    }
}

/// What a program prints, and a snapshot from elsewhere.
pub fn screen(data: &[u8]) {
    use happy_screen::{DEFAULT_SCROLLBACK, Screen, render_vt};
    let (kind, bytes) = choose(data);
    if kind & 1 == 1 {
        if let Ok(screen) = Screen::restore(bytes, DEFAULT_SCROLLBACK) {
            let _ = (screen.text(), render_vt(&screen));
        }
        return;
    }
    let mut screen = Screen::new(20 + u16::from(kind >> 4), 6, 50);
    for piece in bytes.chunks(1 + usize::from(kind & 0x0E)) {
        screen.feed(piece);
    }
    screen.resize(7 + u16::from(kind), 3);
    let _ = screen.take_changes();
    let restored = Screen::restore(&screen.snapshot(50), 50);
    assert!(restored.is_ok_and(|restored| restored.text() == screen.text()));
}

/// Recordings: whatever is read, what is written of it is read as the same.
pub fn cast(data: &[u8]) {
    use happy_cast::{Event, Reader, Writer};
    let Ok(mut reader) = Reader::new(data) else { return };
    let (mut writer, mut out) = (Writer::default(), reader.header().to_line());
    let mut events = Vec::new();
    while let Ok(Some(timed)) = reader.next_event() {
        let at = u64::try_from(timed.at.as_millis()).unwrap_or(u64::MAX);
        match &timed.event {
            Event::Output(text) => writer.output(at, text.as_bytes(), &mut out),
            Event::Resize(cols, rows) => writer.resize(at, *cols, *rows, &mut out),
            Event::Mark(label) => writer.mark(at, label, &mut out),
            Event::Exit(status) => writer.exit(at, status.parse().unwrap_or(0), &mut out),
        }
        events.push(timed.event);
    }
    writer.end(u64::MAX, &mut out);
    // Neighbouring output may be one event or several.
    let essence = |events: Vec<Event>| {
        let mut all = (String::new(), Vec::new());
        for event in events {
            match event {
                Event::Output(text) => all.0.push_str(&text),
                Event::Exit(status) => all.1.push(Event::Exit(status.parse::<u32>().unwrap_or(0).to_string())),
                event => all.1.push(event),
            }
        }
        all
    };
    let mut again = Reader::new(&out[..]).expect("what was written can be read");
    let read = std::iter::from_fn(|| again.next_event().expect("what was written can be read"));
    assert_eq!(essence(read.map(|timed| timed.event).collect()), essence(events));
}

/// Differences between screens and pages of rows, as a machine sends them; and the difference between any two strings.
pub fn delta(data: &[u8]) {
    use happy_screen::delta::{apply, diff};
    use happy_screen::{FramePart, Frames, Pages, Screen};
    let (kind, bytes) = choose(data);
    let mut strings = pieces(bytes);
    match kind % 3 {
        0 => {
            let (old, new) = (strings.next().unwrap_or_default(), strings.next().unwrap_or_default());
            assert_eq!(apply(old, &diff(old, new)).as_deref(), Ok(new));
            let _ = apply(old, new);
        }
        1 => {
            let mut frames = Frames::default();
            for (offset, bytes) in (0..).zip(strings) {
                let base = u64::checked_sub(offset, 1).filter(|_| kind >= 128);
                if let Ok(Some(snapshot)) = frames.take(FramePart { offset, base, part: 0, parts: 1, bytes }) {
                    let _ = Screen::restore(snapshot, 0).map(|screen| screen.text());
                }
            }
        }
        _ => {
            let mut pages = Pages::default();
            for (first, page) in (0..).step_by(1 + usize::from(kind >> 4)).zip(strings) {
                if let Ok(count) = pages.insert_page(first, page) {
                    (first..first + count).for_each(|number| assert!(pages.row(number).is_some()));
                }
            }
        }
    }
}

/// The body of a call.
pub fn rpc(data: &[u8]) {
    let _ = happy_rpc::Request::parse(data);
}

/// What another node of a relay publishes, and the names that a request gives its relay.
pub fn bus(data: &[u8]) {
    use happy_relay::inside::{authority, batch_again, web_origin};
    let (kind, bytes) = choose(data);
    if kind % 2 == 1 {
        let text = String::from_utf8_lossy(bytes);
        let _ = (authority(&text), web_origin(&text), text.parse::<happy_relay::Enrolment>());
        return;
    }
    // Records of later versions are left out, and whatever is no boolean is true; after that nothing changes any more.
    if let Some(again) = batch_again(bytes) {
        assert_eq!(batch_again(&again).as_ref(), Some(&again));
    }
}
