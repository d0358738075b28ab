//! PROTOCOL 7: one of every frame. Login, Challenge and Welcome stand in `login.json`.

use happy_crypto::DeviceId;
use happy_wire::{
    Code, WireError,
    relay::{FromRelay, RecordAnswer, RendezvousState, ToRelay, Undelivered},
};

use super::{invitation, world::World};
use crate::{json::Json, object, page::relay};

/// The frame, if the product writes and reads it as the page does.
pub fn to_relay(ours: &ToRelay<'_>, page: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ours.encode(&mut bytes);
    assert_eq!(bytes, page);
    assert_eq!(ToRelay::decode(&page).as_ref(), Ok(ours));
    page
}

/// Likewise.
pub fn from_relay(ours: &FromRelay<'_>, page: Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ours.encode(&mut bytes);
    assert_eq!(bytes, page);
    assert_eq!(FromRelay::decode(&page).as_ref(), Ok(ours));
    page
}

pub fn vectors() -> Json {
    let world = World::new();
    let [phone, machine] = [&world.page.phone, &world.page.machine].map(|device| device.id());
    let [phone_id, machine_id] = [phone, machine].map(DeviceId::from_bytes);
    let ticket_hash = invitation::invitation(&world).ticket_hash();
    let (tag, payload, number) = (0xA1B2_C3D4, b"a packet", 0x0001_0203_0405_0607);

    let send = ToRelay::Send { to: machine_id, tag, payload };
    let peers = ToRelay::Peers(vec![machine_id, phone_id]);
    let mut frames = vec![
        frame("Send", object! { "to": machine, "tag": tag, "payload": payload })
            .with("frame", to_relay(&send, relay::send(&machine, tag, payload))),
        frame("Peers", object! { "devices": vec![Json::from(machine), Json::from(phone)] })
            .with("frame", to_relay(&peers, relay::peers(&[machine, phone]))),
        frame("Peers", object! { "devices": Vec::<Json>::new() })
            .with("frame", to_relay(&ToRelay::Peers(Vec::new()), relay::peers(&[]))),
        frame("OpenRendezvous", object! { "ticket hash": ticket_hash, "seconds": 120_u8 }).with(
            "frame",
            to_relay(&ToRelay::OpenRendezvous { ticket_hash, seconds: 120 }, relay::open_rendezvous(&ticket_hash, 120)),
        ),
        frame("CloseRendezvous", object! { "ticket hash": ticket_hash })
            .with("frame", to_relay(&ToRelay::CloseRendezvous { ticket_hash }, relay::close_rendezvous(&ticket_hash))),
    ];
    for (name, to, from, page) in [
        ("Ping", ToRelay::Ping(number), FromRelay::Ping(number), relay::ping(number)),
        ("Pong", ToRelay::Pong(number), FromRelay::Pong(number), relay::pong(number)),
    ] {
        let bytes = from_relay(&from, to_relay(&to, page));
        frames.push(frame(name, object! { "number": number }).with("frame", bytes));
    }
    for (via, rendezvous) in [(0, false), (1, true)] {
        let ours = FromRelay::Deliver { from: phone_id, rendezvous, payload };
        let bytes = from_relay(&ours, relay::deliver(&phone, via, payload));
        frames.push(frame("Deliver", object! { "from": phone, "via": via, "payload": payload }).with("frame", bytes));
    }
    for (byte, reason) in [
        (1, Undelivered::Unreachable),
        (2, Undelivered::NotNamed),
        (3, Undelivered::QueueFull),
        (4, Undelivered::TooLarge),
        (5, Undelivered::NotPermitted),
    ] {
        let ours = FromRelay::Undeliverable { to: machine_id, tag, reason };
        let bytes = from_relay(&ours, relay::undeliverable(&machine, tag, byte));
        frames.push(frame("Undeliverable", object! { "to": machine, "tag": tag, "reason": byte }).with("frame", bytes));
    }
    for (state, here) in [(0, false), (1, true)] {
        let bytes = from_relay(&FromRelay::Presence { device: machine_id, here }, relay::presence(&machine, state));
        frames.push(frame("Presence", object! { "device": machine, "state": state }).with("frame", bytes));
    }
    let (code, retry_after_ms, text) = (4_503, 1_500, "it is being updated, a moment…");
    let goaway = FromRelay::Goaway { code: Code::RESTARTING, retry_after_ms, text };
    frames.push(
        frame("Goaway", object! { "code": code, "retry after, ms": retry_after_ms, "text": text })
            .with("frame", from_relay(&goaway, relay::goaway(code, retry_after_ms, text))),
    );
    for (byte, state) in [(0, RendezvousState::Refused), (1, RendezvousState::Open), (2, RendezvousState::Ended)] {
        let bytes = from_relay(&FromRelay::Rendezvous { ticket_hash, state }, relay::rendezvous(&ticket_hash, byte));
        frames.push(frame("Rendezvous", object! { "ticket hash": ticket_hash, "state": byte }).with("frame", bytes));
    }
    frames.extend(records(machine));
    let refused = refused(machine, ticket_hash);
    object! { "section": "PROTOCOL 7", "frames": frames, "refused by the relay": refused }
}

/// The frames of machine records and tokens.
fn records(machine: [u8; 32]) -> Vec<Json> {
    let id = DeviceId::from_bytes(machine);
    let (kind, version, seen, sealed) = (2, 7, 1_700_000_000_123, &b"sealed"[..]);
    let put = to_relay(&ToRelay::PutRecord { kind, version, sealed }, relay::put_record(kind, version, sealed));
    let get = to_relay(&ToRelay::GetRecord { machine: id, kind }, relay::get_record(&machine, kind));
    let mut frames = vec![
        frame("PutRecord", object! { "kind": kind, "version": version, "sealed": sealed }).with("frame", put),
        frame("GetRecord", object! { "machine": machine, "kind": kind }).with("frame", get),
        frame("GetToken", object! {}).with("frame", to_relay(&ToRelay::GetToken, vec![0x0a])),
    ];
    for (byte, answer, last_seen, version, sealed) in [
        (0, RecordAnswer::Asked, seen, version, sealed),
        (0, RecordAnswer::Asked, 0, 0, &[]),
        (1, RecordAnswer::Stored, seen, version, sealed),
        (2, RecordAnswer::Conflict, seen, version, sealed),
        (3, RecordAnswer::Refused, 0, 0, &[]),
    ] {
        let ours = FromRelay::Record { machine: id, kind, answer, last_seen, version, sealed };
        let bytes = from_relay(&ours, relay::record(&machine, kind, byte, [last_seen, version], sealed));
        let fields = object! {
            "machine": machine, "kind": kind, "answer": byte, "last seen": last_seen, "version": version, "sealed": sealed
        };
        frames.push(frame("Record", fields).with("frame", bytes));
    }
    let changed = from_relay(&FromRelay::Changed { machine: id, kinds: 2 }, relay::changed(&machine, 2));
    frames.push(frame("Changed", object! { "machine": machine, "kinds": 2_u8 }).with("frame", changed));
    for (expires, token) in [(seen, "header.claims.signature"), (0, "")] {
        let bytes = from_relay(&FromRelay::Token { expires, token }, relay::token(expires, token));
        frames.push(frame("Token", object! { "expires": expires, "token": token }).with("frame", bytes));
    }
    frames
}

/// Frames that close the connection.
fn refused(machine: [u8; 32], ticket_hash: [u8; 32]) -> Vec<Json> {
    let (send, open) = (relay::send(&machine, 0, &[]), relay::open_rendezvous(&ticket_hash, 300));
    let frames = [
        ("it is empty", Vec::new()),
        ("a Send that is cut", send[..send.len() - 1].to_vec()),
        ("a Ping with a byte more", [&relay::ping(0)[..], &[0]].concat()),
        ("fewer peers than it says", relay::peers(&[machine; 2])[..3 + 32].to_vec()),
        ("OpenRendezvous for 301 seconds", relay::open_rendezvous(&ticket_hash, 301)),
        ("OpenRendezvous for no time", relay::open_rendezvous(&ticket_hash, 0)),
        ("OpenRendezvous with a byte more", [&open[..], &[0]].concat()),
        ("a record of version 0", relay::put_record(1, 0, b"x")),
        ("a record of nothing", relay::put_record(1, 1, b"")),
        ("a record of 4,097 bytes", relay::put_record(1, 1, &[0; 4_097])),
        ("GetToken with a byte more", vec![0x0a, 0]),
    ];
    let frames = frames.map(|(why, frame)| {
        let error = ToRelay::decode(&frame).expect_err(why);
        assert!(!matches!(error, WireError::UnknownType(_)), "{why}");
        object! { "why": why, "frame": frame }
    });
    frames.to_vec()
}

fn frame(name: &'static str, fields: Json) -> Json {
    object! { "type": name, "fields": fields }
}
