//! PROTOCOL 9: frames with every record.

use happy_wire::{
    Code,
    frame::{CALLS, Class, FrameHeader, INITIAL_LIMIT, Record, padded},
};

use super::handshake::pair;
use crate::{files::world::World, json::Json, object, page::frame};

/// A record as ours, as the page's, and said in words.
type Said<'a> = (Record<'a>, Vec<u8>, Json);

pub fn vectors() -> Json {
    let session = pair(&World::new()).page.keys.session_id;
    let long = [0x61; 1_100];
    let frames = [
        frame("the first frame after Confirm", None, 0, vec![resume()]),
        frame("a sign of life", None, 7, vec![ping(0x0001_0203_0405_0607)]),
        frame("its answer", None, 9, vec![pong(0x0001_0203_0405_0607)]),
        frame("nothing but an acknowledgement", None, 0x0001_0203_0405_0607, Vec::new()),
        frame("the end", None, 12, vec![goodbye(Code::REMOVED, "this device was removed")]),
        frame("the pair secret is stored", Some(0), 0, vec![pair_secret(session)]),
        frame("a call", Some(1), 1, vec![data(CALLS, true, b"\x01\0\0\0\0\0\0\0\x01{}")]),
        frame("a channel and what it allows", Some(2), 1, vec![open(1, "terminal"), limit(1, 0x0001_0000_0000)]),
        frame("an empty message", Some(3), 1, vec![data(2, true, b"")]),
        frame("the first part of a message, above 1,024 bytes", Some(4), 1, vec![data(2, false, &long)]),
        frame("its last part, and no more", Some(5), 2, vec![data(2, true, b"end"), close(2, Code::GOODBYE, "")]),
        frame("a record that fills its frame", Some(6), 2, vec![data(1, true, &long[..64 - 17 - 8])]),
        frame("one byte more", Some(7), 2, vec![data(1, true, &long[..64 - 17 - 7])]),
    ];
    object! { "section": "PROTOCOL 9", "frames": frames.to_vec(), "refused": refused() }
}

/// Frames that end the session.
fn refused() -> Vec<Json> {
    let data = frame::data(1, 1, b"text");
    let mut dirty = frame::frame(Some(0), 0, std::slice::from_ref(&data));
    dirty[63] = 1;
    let mut cut = frame::frame(Some(0), 0, &[]);
    cut.truncate(1 + 8 + 8);
    cut.extend(&data[..data.len() - 1]);
    let mut kind = frame::frame(None, 0, &[]);
    kind[0] = 2;
    let frames = [
        ("padding that is not zeros", dirty),
        ("a record that is cut", cut),
        ("a kind of frame that there is not", kind),
        ("a header that is cut", frame::frame(Some(0), 0, &[])[..1 + 8 + 7].to_vec()),
        ("Data in an unnumbered frame", frame::frame(None, 0, &[data])),
        ("Resume in a numbered frame", frame::frame(Some(0), 0, &[frame::resume()])),
        ("a class that there is not", frame::frame(Some(0), 0, &[frame::open(1, 3, 0, "")])),
    ];
    let frames = frames.map(|(why, frame)| {
        let read = FrameHeader::decode(&frame).and_then(|(_, records)| records.collect::<Result<Vec<_>, _>>());
        read.expect_err(why);
        object! { "why": why, "frame": frame }
    });
    frames.to_vec()
}

fn frame(what: &str, number: Option<u64>, acknowledgement: u64, records: Vec<Said<'_>>) -> Json {
    let header = FrameHeader { number, acknowledgement };
    let (mut ours, mut by_page, mut said) = (Vec::new(), Vec::new(), Vec::new());
    header.encode(&mut ours);
    let mut expected = Vec::new();
    for (record, page, json) in records {
        record.encode(&mut ours);
        expected.push(record);
        by_page.push(page);
        said.push(json);
    }
    let length = ours.len();
    if padded(length) > length {
        let padding = Record::Padding(padded(length) - length);
        padding.encode(&mut ours);
        expected.push(padding);
    }
    let page = frame::frame(number, acknowledgement, &by_page);
    assert_eq!(ours, page, "{what}");
    let (read, records) = FrameHeader::decode(&page).expect("it is a frame");
    assert_eq!((read, records.collect::<Result<Vec<_>, _>>()), (header, Ok(expected)), "{what}");
    object! {
        "what": what,
        "number": number,
        "acknowledgement": acknowledgement,
        "records": said,
        "length without padding": length as u64,
        "frame": page,
    }
}

fn open(channel: u32, label: &str) -> Said<'_> {
    let (class, limit) = (Class::Interactive, INITIAL_LIMIT);
    let said = object! { "type": "Open", "channel": channel, "class": 1_u8, "limit": limit, "label": label };
    (Record::Open { channel, class, limit, label }, frame::open(channel, 1, 524_288, label), said)
}

fn data(channel: u32, last: bool, bytes: &[u8]) -> Said<'_> {
    let flags = u8::from(last);
    let said = object! { "type": "Data", "channel": channel, "flags": flags, "bytes": bytes };
    (Record::Data { channel, last, bytes }, frame::data(channel, flags, bytes), said)
}

fn limit(channel: u32, limit: u64) -> Said<'static> {
    let said = object! { "type": "Limit", "channel": channel, "limit": limit };
    (Record::Limit { channel, limit }, frame::limit(channel, limit), said)
}

fn close(channel: u32, code: Code, reason: &str) -> Said<'_> {
    let said = object! { "type": "Close", "channel": channel, "code": code.0, "reason": reason };
    (Record::Close { channel, code, reason }, frame::close(channel, 4_000, reason), said)
}

fn ping(number: u64) -> Said<'static> {
    (Record::Ping(number), frame::ping(number), object! { "type": "Ping", "number": number })
}

fn pong(number: u64) -> Said<'static> {
    (Record::Pong(number), frame::pong(number), object! { "type": "Pong", "number": number })
}

fn resume() -> Said<'static> {
    (Record::Resume, frame::resume(), object! { "type": "Resume" })
}

fn goodbye(code: Code, reason: &str) -> Said<'_> {
    let said = object! { "type": "Goodbye", "code": code.0, "reason": reason };
    (Record::Goodbye { code, reason }, frame::goodbye(4_410, reason), said)
}

fn pair_secret(session: [u8; 16]) -> Said<'static> {
    let said = object! { "type": "PairSecret", "session id": session };
    (Record::PairSecret(session), frame::pair_secret(&session), said)
}
