//! PROTOCOL 10 and 10.1: messages on channel 0 and on a terminal channel.

use happy_wire::{
    call::CallMessage,
    terminal::{Exit, TerminalMessage},
};

use crate::{
    json::Json,
    object,
    page::{call, terminal},
};

pub fn vectors() -> Json {
    object! { "section": "PROTOCOL 10", "calls": calls(), "terminal": terminal() }
}

fn calls() -> Vec<Json> {
    let (id, request, response) = (7, br#"{"method": "session.list", "params": {}}"#, br#"{"ok": []}"#);
    let event = br#"{"event": "session.changed", "data": {}}"#;
    let messages: [(&str, CallMessage<'_>, u8, u64, &[u8]); 4] = [
        ("request", CallMessage::Request { id, body: request }, 1, id, request),
        ("response", CallMessage::Response { id, body: response }, 2, id, response),
        ("event", CallMessage::Event(event), 3, 0, event),
        ("cancel", CallMessage::Cancel { id }, 4, id, &[]),
    ];
    let messages = messages.map(|(name, ours, kind, id, body)| {
        let page = call::message(kind, id, body);
        assert_eq!(ours.to_vec(), page);
        assert_eq!(CallMessage::decode(&page), Ok(ours));
        object! { "kind": name, "id": id, "body": body, "message": page }
    });
    messages.to_vec()
}

fn terminal() -> Vec<Json> {
    let (offset, bytes, to) = (0x0001_0203_0405_0607, &b"\x1b[1mtext"[..], 0x0001_0203_0405_1000);
    let snapshot = TerminalMessage::Snapshot { offset, cols: 80, rows: 24, part: 1, parts: 3, bytes };
    let resized =
        |you_control, controller| TerminalMessage::Resized { offset, cols: 120, rows: 40, you_control, controller };
    let exited = |exit| TerminalMessage::Exited { offset, exit };
    let size = |fields: Json| fields.with("columns", 120_u8).with("rows", 40_u8);
    let at = || object! { "offset": offset };
    let base = 0x0001_0203_0405_0600;
    let frame = |base, part, parts| TerminalMessage::Frame { offset, base, kept_from: 9, part, parts, bytes };
    let framed = |fields: Json| fields.with("kept from", 9_u8);
    let messages = [
        (
            "Snapshot",
            snapshot,
            terminal::snapshot(offset, [80, 24, 1, 3], bytes),
            at().with("columns", 80_u8).with("rows", 24_u8).with("part", 1_u8).with("parts", 3_u8).with("bytes", bytes),
        ),
        (
            "Output",
            TerminalMessage::Output { offset, bytes },
            terminal::output(offset, bytes),
            at().with("bytes", bytes),
        ),
        (
            "Gap",
            TerminalMessage::Gap { from: offset, to },
            terminal::gap(offset, to),
            object! { "from": offset, "to": to },
        ),
        (
            "Resized",
            resized(true, "Küche"),
            terminal::resized(offset, [120, 40], 1, "Küche"),
            size(at()).with("you are the controller", 1_u8).with("controller", "Küche"),
        ),
        (
            "Resized",
            resized(false, ""),
            terminal::resized(offset, [120, 40], 0, ""),
            size(at()).with("you are the controller", 0_u8).with("controller", ""),
        ),
        ("Exited", exited(Exit::Code(1)), terminal::exited(offset, 0, 1), at().with("how", 0_u8).with("value", 1_u8)),
        ("Exited", exited(Exit::Signal(9)), terminal::exited(offset, 1, 9), at().with("how", 1_u8).with("value", 9_u8)),
        ("Exited", exited(Exit::Unknown), terminal::exited(offset, 2, 0), at().with("how", 2_u8).with("value", 0_u8)),
        (
            "Frame",
            frame(Some(base), 0, 1),
            terminal::frame(offset, [base, 9], [0, 1], bytes),
            framed(at().with("base", base)).with("part", 0_u8).with("parts", 1_u8).with("bytes", bytes),
        ),
        (
            "Frame",
            frame(None, 1, 2),
            terminal::frame(offset, [u64::MAX, 9], [1, 2], bytes),
            framed(at()).with("part", 1_u8).with("parts", 2_u8).with("bytes", bytes),
        ),
        (
            "History",
            TerminalMessage::History { first: offset, kept_from: 9, bytes },
            terminal::history(offset, 9, bytes),
            framed(object! { "first": offset }).with("bytes", bytes),
        ),
        ("Drawn", TerminalMessage::Drawn { offset }, terminal::drawn(offset), at()),
        (
            "HistoryWanted",
            TerminalMessage::HistoryWanted { before: offset, rows: 200 },
            terminal::history_wanted(offset, 200),
            object! { "before": offset, "rows": 200_u8 },
        ),
        ("InputTaken", TerminalMessage::InputTaken { offset }, terminal::input_taken(offset), at()),
        ("Input", TerminalMessage::Input { offset, bytes }, terminal::input(offset, bytes), at().with("bytes", bytes)),
    ];
    let messages = messages.map(|(name, ours, page, fields)| {
        assert_eq!(ours.to_vec(), page);
        assert_eq!(TerminalMessage::decode(&page), Ok(ours));
        object! { "type": name, "fields": fields, "message": page }
    });
    messages.to_vec()
}
