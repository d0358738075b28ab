//! The property that snapshots stand on: a stream cut anywhere, even inside a sequence or a character, continues on the
//! restored screen as on the original.

mod common;

use common::{restored, screen, state};
use happy_screen::{DEFAULT_SCROLLBACK, Screen};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Feeds `stream` whole, and for every cut through a snapshot; the results must be equal in every way that shows, now
/// and after switching screens.
fn check_all_cuts(cols: u16, rows: u16, stream: &[u8], exact: bool) -> Result<(), TestCaseError> {
    let mut whole = screen(cols, rows, stream);
    let whole_snapshot = whole.snapshot(usize::MAX);
    let whole_state = state(&whole);
    whole.feed(UNCOVER);
    let whole_uncovered = state(&whole);
    for cut in 0..=stream.len() {
        let (prefix, suffix) = stream.split_at(cut);
        let context = || format!("cut at {cut}: {} | {}", prefix.escape_ascii(), suffix.escape_ascii());
        let mut second = restored(&screen(cols, rows, prefix));
        second.feed(suffix);
        prop_assert_eq!(&state(&second), &whole_state, "{}", context());
        if exact {
            prop_assert!(second.snapshot(usize::MAX) == whole_snapshot, "{}", context());
        }
        second.feed(UNCOVER);
        prop_assert_eq!(&state(&second), &whole_uncovered, "{}", context());
    }
    Ok(())
}

/// Ends open strings, fills the line with the pen and the charset in force, uses tabs and saved cursors, and shows the
/// main screen.
const UNCOVER: &[u8] = b"\x18p\x1b8q\tr\x1b[?1049ls\x1b[?1047ht\x1b[?1047l\x1b8u\x1b[2b\ntail";

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ -~]{1,12}".prop_map(String::into_bytes),
        select(vec!["界", "日本", "é", "ß", "😀", "─"]).prop_map(|text| text.as_bytes().to_vec()),
        vec(select(b"\r\n\t\x08\x0b\x0e\x0f\x07".to_vec()), 1..4),
        Just(b"\r\n".to_vec()),
    ]
}

fn sequences() -> impl Strategy<Value = Vec<u8>> {
    let param = prop_oneof![Just(String::new()), (0u16..12).prop_map(|n| n.to_string()), Just("65536".to_owned())];
    let csi = (vec(param, 0..3), select(b"@ABCDEFGHIJKLMPSTWXZ`abdefghlmnrsu".to_vec()))
        .prop_map(|(params, last)| format!("\x1b[{}{}", params.join(";"), char::from(last)).into_bytes());
    let modes = (
        vec(
            select(vec![1u16, 5, 6, 7, 9, 25, 47, 66, 1000, 1002, 1003, 1004, 1006, 1047, 1048, 1049, 2004, 2026]),
            1..3,
        ),
        select(vec!['h', 'l']),
    )
        .prop_map(|(modes, last)| {
            let modes: Vec<String> = modes.iter().map(u16::to_string).collect();
            format!("\x1b[?{}{last}", modes.join(";")).into_bytes()
        });
    let sgr = vec(
        select(vec![
            "0",
            "1",
            "2",
            "3",
            "4",
            "5",
            "7",
            "9",
            "22",
            "31",
            "92",
            "44",
            "104",
            "38;5;99",
            "48;2;1;2;3",
            "38:2::9:8:7",
            "4:3",
            "58;5;5",
            "58:2::1:2:3",
            "4:2",
            "8",
            "53",
        ]),
        0..4,
    )
    .prop_map(|list| format!("\x1b[{}m", list.join(";")).into_bytes());
    let fixed = select(vec![
        "\x1b7",
        "\x1b8",
        "\x1bD",
        "\x1bE",
        "\x1bH",
        "\x1bM",
        "\x1bc",
        "\x1b=",
        "\x1b>",
        "\x1b(0",
        "\x1b(B",
        "\x1b)0",
        "\x1b)B",
        "\x1b#8",
        "\x1b[!p",
        "\x1b[4h",
        "\x1b[4l",
        "\x1b[20h",
        "\x1b[2 q",
        "\x1b[>1u",
        "\x1b[>5u",
        "\x1b[<u",
        "\x1b[=3;2u",
        "\x1b[3J",
        "\x1b[2J",
        "\x1b[22;0t",
        "\x1b[23;0t",
        "\x1b]0;one\x07",
        "\x1b]2;zwei\x1b\\",
        "\x1b]7;file://h/tmp/a%20b\x07",
        "\x1b]11;?\x07",
        "\x1b]8;;http://x\x1b\\",
        "\x1b]8;id=1;https://y\x07",
        "\x1b]8;;\x1b\\",
        "\x1b*0",
        "\x1b+A",
        "\x1bN",
        "\x1bO",
        "\x1bn",
        "\x1bo",
        "\x1b[b",
        "\x1bPq#0;2;0\x1b\\",
        "\x1b_Gx\x1b\\",
        "\x1b[2;4r",
        "\x1b[?6h",
        "\x1b[6n",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![4 => csi, 3 => modes, 3 => sgr, 5 => fixed]
}

fn garbage() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 1..6),
        select(vec!["\x1b", "\x1b[", "\x1b[3", "\x1b[?1", "\x1b]0;ti", "\x1bP1", "\x1b(", "\x18"])
            .prop_map(|text| text.as_bytes().to_vec()),
        select(vec![&b"\xe7"[..], b"\xe7\x95", b"\xf0\x9f\x98", b"\xc3", b"\xff", b"\xc2\x9b", b"\xed\xa0\x80"])
            .prop_map(<[u8]>::to_vec),
    ]
}

fn marks() -> impl Strategy<Value = Vec<u8>> {
    select(vec![
        "e\u{301}",
        "\u{301}",
        "\u{302}",
        "a",
        "界\u{fe0f}",
        "\u{200d}",
        "ก\u{e34}\u{e48}",
        "\u{1100}\u{1161}",
        "q\u{308}",
    ])
    .prop_map(|text| text.as_bytes().to_vec())
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![4 => text(), 5 => sequences(), 1 => garbage()], 1..24).prop_map(|pieces| pieces.concat())
}

fn stream_with_marks() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![2 => text(), 2 => sequences(), 4 => marks()], 1..20).prop_map(|pieces| pieces.concat())
}

#[derive(Debug, Clone)]
enum Step {
    Feed(Vec<u8>),
    Resize(u16, u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => stream().prop_map(Step::Feed),
        2 => (0u16..24, 0u16..9).prop_map(|(cols, rows)| Step::Resize(cols, rows)),
    ];
    vec(step, 1..8)
}

proptest! {
    #[test]
    fn any_stream_cut_anywhere_continues(cols in 2u16..20, rows in 1u16..8, stream in stream()) {
        check_all_cuts(cols, rows, &stream, true)?;
    }

    #[test]
    fn combining_marks_join_across_any_cut(cols in 2u16..12, rows in 1u16..5, stream in stream_with_marks()) {
        check_all_cuts(cols, rows, &stream, false)?;
    }

    #[test]
    fn how_a_stream_is_cut_into_feeds_makes_no_difference(stream in stream_with_marks(), cut in 1usize..9) {
        let whole = screen(10, 4, &stream);
        let mut pieces = Screen::new(10, 4, DEFAULT_SCROLLBACK);
        for piece in stream.chunks(cut) {
            pieces.feed(piece);
        }
        prop_assert_eq!(state(&pieces), state(&whole));
    }

    #[test]
    fn resizes_before_and_after_a_snapshot_do_the_same(cols in 2u16..20, rows in 1u16..8, steps in steps(), at in 0usize..8) {
        let mut original = Screen::new(cols, rows, DEFAULT_SCROLLBACK);
        let mut copy = None;
        for (index, step) in steps.iter().enumerate() {
            if index == at {
                copy = Some(restored(&original));
            }
            for screen in [Some(&mut original), copy.as_mut()].into_iter().flatten() {
                match step {
                    Step::Feed(bytes) => { screen.feed(bytes); }
                    Step::Resize(cols, rows) => screen.resize(*cols, *rows),
                }
            }
        }
        if let Some(mut copy) = copy {
            prop_assert_eq!(state(&copy), state(&original));
            original.feed(UNCOVER);
            copy.feed(UNCOVER);
            prop_assert_eq!(state(&copy), state(&original));
        }
    }
}

#[test]
fn a_half_received_sequence_and_a_half_received_character_are_part_of_the_state() {
    for stream in [
        "a\x1b[31mb",
        "\x1b]2;title\x1b\\x",
        "界日本",
        "\x1b[?1049hvim\x1b[?1049l$",
        "e\u{301}x",
        "\x1b[38;2;200;100;50mx",
    ] {
        check_all_cuts(20, 4, stream.as_bytes(), true).expect("equal at every cut");
    }
}

#[test]
fn a_cursor_that_was_saved_outside_the_margins_is_the_same_after_a_restore() {
    for stream in [
        "\x1b[?6h\x1b[5;3H\x1b7\x1b[2;3r\x1b8\x1b[?1047hx\x1b[6n",
        "\x1b[?6h\x1b[5;3H\x1b[s\x1b[2;3r\x1b[u\x1b[?1049h\n\ny",
    ] {
        check_all_cuts(20, 5, stream.as_bytes(), true).expect("equal at every cut");
    }
}

/// The engine notes that its first row continues a line that has left, and lets it decide what clearing the screen
/// sends to the history.
#[test]
fn a_line_that_has_half_left_the_screen_is_remembered() {
    let stream = b"abcdefghi\x1b[H\x1b[2K\x1b[2;1H\x1b[2K\x1b[2Jx";
    check_all_cuts(4, 2, stream, true).expect("equal at every cut");
    assert_eq!(screen(4, 2, stream).scrollback_len(), 2, "without the note it would be 1");
}

#[test]
fn the_main_screen_comes_back_when_vim_ends_after_a_restore() {
    let mut shell = screen(40, 6, b"$ ls\r\nCargo.toml  src\r\n$ vim");
    let before = shell.text();
    shell.feed(b"\x1b[?1049h\x1b[22;0;0t\x1b[?1h\x1b=\x1b[?2004h\x1b[1;6r\x1b[?25l\x1b[H\x1b[2J~\r\n~\r\n~\x1b[6;1H-- INSERT --\x1b[2;3H\x1b[?25h");
    let mut viewer = restored(&shell);
    assert!(viewer.modes().alternate_screen && viewer.modes().application_cursor && viewer.modes().bracketed_paste);
    assert!(viewer.text().contains("-- INSERT --"));
    let leave = b"\x1b[?2004l\x1b[?1l\x1b>\x1b[?1049l\x1b[23;0;0t";
    viewer.feed(leave);
    shell.feed(leave);
    assert_eq!(viewer.text(), before);
    assert_eq!(viewer.cursor().col, 5);
    assert_eq!(state(&viewer), state(&shell));
}
