use happy_wire::WireError;
use happy_wire::terminal::{Exit, TerminalMessage};
use proptest::prelude::*;

use crate::{bytes, holds, text};

proptest! {
    #[test]
    fn messages_hold(
        kind in 0..14_u8, offset in 0..u64::MAX - 400, sizes in any::<[u16; 4]>(), flag in any::<bool>(), value in any::<u32>(),
        bytes in bytes(300), words in text(),
    ) {
        let [cols, rows, a, b] = sizes;
        let (part, parts) = (a.min(b), a.max(b).saturating_add(1));
        prop_assume!(part < parts);
        let open = Some(bytes.len());
        let (message, open) = match kind {
            0 => (TerminalMessage::Snapshot { offset, cols, rows, part, parts, bytes: &bytes }, open),
            1 => (TerminalMessage::Output { offset, bytes: &bytes }, open),
            2 => (TerminalMessage::Gap { from: offset, to: offset + 1 + u64::from(a) % 300 }, None),
            3 => (TerminalMessage::Resized { offset, cols, rows, you_control: flag, controller: &words }, None),
            4 => (TerminalMessage::Exited { offset, exit: Exit::Code(value) }, None),
            5 => (TerminalMessage::Exited { offset, exit: Exit::Signal(value) }, None),
            6 => (TerminalMessage::Exited { offset, exit: Exit::Unknown }, None),
            7 => (TerminalMessage::InputTaken { offset }, None),
            8 => (TerminalMessage::Frame { offset, base: None, kept_from: value.into(), part, parts, bytes: &bytes }, open),
            9 => {
                let base = Some(offset - offset.min(value.into()));
                (TerminalMessage::Frame { offset, base, kept_from: 0, part, parts, bytes: &bytes }, open)
            }
            10 => (TerminalMessage::History { first: offset, kept_from: value.into(), bytes: &bytes }, open),
            11 => (TerminalMessage::Drawn { offset }, None),
            12 => (TerminalMessage::HistoryWanted { before: offset, rows }, None),
            _ => (TerminalMessage::Input { offset, bytes: &bytes }, open),
        };
        let encoded = message.to_vec();
        holds(&encoded, open, |cut| TerminalMessage::decode(cut).map(|message| message.to_vec()))?;
        prop_assert_eq!(TerminalMessage::decode(&encoded), Ok(message));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_back(kind in 0..0x15_u8, bytes in bytes(60), small in bytes(30)) {
        // Small bytes, so that flags and kinds are often within range.
        let small: Vec<u8> = small.iter().map(|byte| byte % 3).collect();
        for tail in [&bytes, &small] {
            let bytes = [&[kind], &tail[..]].concat();
            if let Ok(message) = TerminalMessage::decode(&bytes) {
                prop_assert_eq!(message.to_vec(), bytes);
            }
        }
    }
}

#[test]
fn messages_look_as_the_page_says() {
    let cat = |parts: &[&[u8]]| parts.concat();
    let offset = [0, 0, 0, 0, 0, 0, 0, 9];
    let cases = [
        (
            TerminalMessage::Snapshot { offset: 9, cols: 80, rows: 24, part: 1, parts: 2, bytes: b"s" },
            cat(&[&[1], &offset, &[0, 80, 0, 24, 0, 1, 0, 2], b"s"]),
        ),
        (TerminalMessage::Output { offset: 9, bytes: b"o" }, cat(&[&[2], &offset, b"o"])),
        (TerminalMessage::Gap { from: 9, to: 10 }, cat(&[&[3], &offset, &[0, 0, 0, 0, 0, 0, 0, 10]])),
        (
            TerminalMessage::Resized { offset: 9, cols: 80, rows: 24, you_control: true, controller: "me" },
            cat(&[&[4], &offset, &[0, 80, 0, 24, 1, 2], b"me"]),
        ),
        (TerminalMessage::Exited { offset: 9, exit: Exit::Code(3) }, cat(&[&[5], &offset, &[0, 0, 0, 0, 3]])),
        (TerminalMessage::Exited { offset: 9, exit: Exit::Signal(15) }, cat(&[&[5], &offset, &[1, 0, 0, 0, 15]])),
        (TerminalMessage::Exited { offset: 9, exit: Exit::Unknown }, cat(&[&[5], &offset, &[2, 0, 0, 0, 0]])),
        (TerminalMessage::InputTaken { offset: 9 }, cat(&[&[6], &offset])),
        (
            TerminalMessage::Frame { offset: 9, base: Some(8), kept_from: 7, part: 0, parts: 1, bytes: b"f" },
            cat(&[&[7], &offset, &[0, 0, 0, 0, 0, 0, 0, 8], &[0, 0, 0, 0, 0, 0, 0, 7], &[0, 0, 0, 1], b"f"]),
        ),
        (
            TerminalMessage::Frame { offset: 9, base: None, kept_from: 7, part: 1, parts: 2, bytes: b"f" },
            cat(&[&[7], &offset, &[0xff; 8], &[0, 0, 0, 0, 0, 0, 0, 7], &[0, 1, 0, 2], b"f"]),
        ),
        (
            TerminalMessage::History { first: 9, kept_from: 5, bytes: b"h" },
            cat(&[&[8], &offset, &[0, 0, 0, 0, 0, 0, 0, 5], b"h"]),
        ),
        (TerminalMessage::Drawn { offset: 9 }, cat(&[&[0x12], &offset])),
        (TerminalMessage::HistoryWanted { before: 9, rows: 200 }, cat(&[&[0x13], &offset, &[0, 200]])),
        (TerminalMessage::Input { offset: 9, bytes: b"i" }, cat(&[&[0x11], &offset, b"i"])),
    ];
    for (message, bytes) in cases {
        assert_eq!(message.to_vec(), bytes, "{message:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let snapshot = |part: u8, parts: u8| [&[1; 1][..], &[0; 8], &[0, 80, 0, 24, 0, part, 0, parts]].concat();
    assert_eq!(TerminalMessage::decode(&snapshot(0, 0)), Err(WireError::Field("part of a snapshot")));
    assert_eq!(TerminalMessage::decode(&snapshot(2, 2)), Err(WireError::Field("part of a snapshot")));
    let gap = |from: u64, to: u64| [&[3][..], &from.to_be_bytes(), &to.to_be_bytes()].concat();
    assert_eq!(TerminalMessage::decode(&gap(5, 5)), Err(WireError::Field("end of a gap")));
    assert_eq!(TerminalMessage::decode(&gap(5, 4)), Err(WireError::Field("end of a gap")));
    let frame = |base: u64, part: u8| [&[7][..], &[0; 8], &base.to_be_bytes(), &[0; 9], &[part, 0, 1]].concat();
    assert_eq!(TerminalMessage::decode(&frame(u64::MAX, 1)), Err(WireError::Field("part of a frame")));
    assert_eq!(TerminalMessage::decode(&frame(1, 0)), Err(WireError::Field("base of a frame")));
    for kind in [2, 0x11] {
        let wraps = [&[kind][..], &u64::MAX.to_be_bytes(), b"x"].concat();
        assert_eq!(TerminalMessage::decode(&wraps), Err(WireError::Field("offset")));
    }
    assert_eq!(
        TerminalMessage::decode(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1]),
        Err(WireError::Field("kind of exit"))
    );
    assert_eq!(TerminalMessage::decode(&[9, 0, 0, 0, 0, 0, 0, 0, 0]), Err(WireError::UnknownType(9)));
}
