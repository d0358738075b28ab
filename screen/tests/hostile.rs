//! Streams and snapshots made to hurt.

mod common;

use std::time::{Duration, Instant};

use common::{restored, screen, state};
use happy_screen::{DEFAULT_SCROLLBACK, MAX_SCROLLBACK_BYTES, MAX_SNAPSHOT, Row, Screen, SnapshotError};
use proptest::prelude::*;

/// Generous: these take milliseconds, and what they guard against takes minutes.
const SOON: Duration = Duration::from_secs(30);

/// A snapshot holds all that a screen remembers, so its size bounds the memory.
fn assert_small(screen: &Screen, what: &str) {
    let bytes = screen.snapshot(0).len();
    assert!(bytes < 64 * 1024, "{what}: {bytes}");
}

#[test]
fn endless_strings_and_lines_leave_nothing_behind() {
    let megabyte = vec![b'x'; 1 << 20];
    for begin in [
        "",
        "\x1b]2;",
        "\x1b]52;c;",
        "\x1bPq",
        "\x1bP$q",
        "\x1b_G",
        "\x1b^",
        "\x1bX",
        "\x1b[",
        "\x1b[38;2",
        "\x1b(",
        "\x1b]",
    ] {
        let mut screen = screen(80, 24, begin.as_bytes());
        for _ in 0..if begin.is_empty() { 64 } else { 8 } {
            screen.feed(&megabyte);
        }
        assert_small(&screen, begin);
        assert!(screen.scrollback_len() <= DEFAULT_SCROLLBACK);
        screen.feed(b"\x1b\\\x1b[2J\x1b[Hback");
        assert_eq!(screen.text(), "back", "{begin:?}");
    }
}

#[test]
fn endless_parameters_intermediates_and_marks_are_bounded() {
    for piece in ["1;", "1:", "9", "!", "?", ";"] {
        let mut screen = screen(80, 24, b"\x1b[");
        screen.feed(piece.repeat(1 << 20).as_bytes());
        assert_small(&screen, piece);
        screen.feed(b"mok");
        assert!(screen.text().contains("ok"), "{piece:?}");
    }
    let mut screen = screen(80, 24, b"e");
    screen.feed("\u{301}".repeat(1 << 20).as_bytes());
    screen.feed(b"x");
    assert_eq!(screen.row(0).columns(), 2);
    assert!(screen.row(0).text().len() <= 33);
}

#[test]
fn rows_full_of_styles_and_marks_stay_within_the_bytes_of_the_history() {
    let mut screen = Screen::new(500, 5, usize::MAX);
    let mut row = String::new();
    for n in 0..500 {
        row.push_str(&format!(
            "\x1b[38;2;{n};1;2;48;2;3;4;{n}m{}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}",
            char::from(b'a' + (n % 26) as u8)
        ));
    }
    for _ in 0..1500 {
        screen.feed(row.as_bytes());
        screen.feed(b"\r\n");
    }
    let kept: usize =
        (0..screen.scrollback_len()).filter_map(|index| screen.scrollback_row(index)).map(|row| row.text().len()).sum();
    assert!(screen.scrollback_len() > 100 && kept < MAX_SCROLLBACK_BYTES, "{kept}");
    assert!(screen.snapshot(usize::MAX).len() < MAX_SCROLLBACK_BYTES + (1 << 20));
}

#[test]
fn a_few_bytes_cannot_buy_a_lot_of_work() {
    let begin = Instant::now();
    for piece in [
        "x\x1b[65535b",
        "\x1b[65535L",
        "\x1b[65535S",
        "\x1b[65535@",
        "\x1b[65535P",
        "\x1b[65535X",
        "\x1b[65535Z",
        "\x1b[65535I",
        "\x1b#8",
        "\x1b[6n",
        "\x1bM",
        "\x1b[?1049h\x1b[?1049l",
    ] {
        let mut screen = screen(80, 24, b"");
        screen.feed(&piece.repeat((1 << 18) / piece.len()).into_bytes());
        assert!(begin.elapsed() < SOON, "{piece:?} {:?}", begin.elapsed());
    }
}

#[test]
fn sizes_between_all_bounds_with_wide_characters_on_screen() {
    let mut screen = screen(80, 24, "界😀e\u{301}".repeat(400).as_bytes());
    for (cols, rows) in [(0, 0), (65535, 65535), (1, 1), (2, 1000), (1000, 1), (3, 2), (65535, 0), (80, 24)] {
        screen.resize(cols, rows);
        screen.feed("\x1b[999;999H界\x1b[?1049h界\x1b[2;3r\x1b[?6h\x1b[?1049l\r\n".as_bytes());
        assert_eq!(state(&restored(&screen)), state(&screen), "{cols}x{rows}");
    }
}

#[test]
fn an_unclosed_synchronized_update_hides_nothing() {
    let mut screen = screen(80, 24, b"\x1b[?2026hvisible");
    assert!(screen.modes().synchronized);
    assert_eq!(screen.text(), "visible");
    assert_eq!(screen.take_changes().rows.len(), 24);
}

#[test]
fn invalid_utf8_split_at_every_byte_is_replaced_alike() {
    let stream = b"\xff\xfea\xc3\xe7\x95\xe7\x95\x8c\xf0\x9f\x98\x80\xf0\x9f\xed\xa0\x80\xc0\xaf\xf5\x80\xc2\x9b31m\x1b[\xe7\x95\x8cz";
    let expected = String::from_utf8_lossy(&stream[..stream.len() - 6]).replace("\u{9b}", "") + "界z";
    for cut in 0..=stream.len() {
        let mut screen = screen(80, 2, &stream[..cut]);
        screen.feed(&stream[cut..]);
        assert_eq!(screen.row(0).text(), expected, "{cut}");
    }
}

#[test]
fn nothing_that_reaches_a_viewer_as_text_is_a_control() {
    let all: Vec<u8> = (0..=255u8).flat_map(|byte| [byte, b'a', 0xc2, byte, b'b']).collect();
    let screen = screen(80, 24, &[b"\x1b]2;", &all[..], b"\x07", &all[..]].concat());
    let rows: Vec<Row> = (0..24).map(|row| screen.row(row)).chain(common::history(&screen)).collect();
    assert!(rows.iter().all(|row| !row.text().chars().any(char::is_control)));
    assert!(!screen.title().chars().any(char::is_control));
}

fn lively() -> Screen {
    let mut screen = screen(
        30,
        6,
        "one\r\ntwo 界 e\u{301}\r\n\x1b[31;1mred\x1b[0m\r\n\x1b]2;title\x07\x1b]7;file://h/x\x07\x1b[>5u\x1b[22t"
            .as_bytes(),
    );
    screen.feed(b"\x1b[3g\x1b[5G\x1bH1\r\n2\r\n3\r\n4\r\n\x1b[2;5r\x1b[?6h\x1b7\x1b[?1049halt\x1b[38;2;1;");
    screen
}

#[test]
fn snapshots_have_one_spelling() {
    let snapshot = lively().snapshot(usize::MAX);
    let again = Screen::restore(&snapshot, DEFAULT_SCROLLBACK).expect("our own").snapshot(usize::MAX);
    assert_eq!(snapshot, again);
    assert_eq!(&snapshot[..7], [b'H', b'S', 2, 0, 30, 0, 6]);
}

#[test]
fn cut_extended_and_foreign_snapshots_are_refused() {
    let snapshot = lively().snapshot(usize::MAX);
    for length in 0..snapshot.len() {
        assert_eq!(Screen::restore(&snapshot[..length], 10).err(), Some(SnapshotError::Malformed), "{length}");
    }
    assert_eq!(Screen::restore(&[&snapshot[..], b"x"].concat(), 10).err(), Some(SnapshotError::Malformed));
    let mut newer = snapshot.clone();
    newer[2] = 3;
    assert_eq!(Screen::restore(&newer, 10).err(), Some(SnapshotError::Version(3)));
    for size in [[0, 0, 0, 0], [0, 1, 0, 24], [0xff, 0xff, 0, 24], [0, 80, 0x03, 0xe9]] {
        let mut odd = snapshot.clone();
        odd[3..7].copy_from_slice(&size);
        assert_eq!(Screen::restore(&odd, 10).err(), Some(SnapshotError::Malformed));
    }
    assert_eq!(Screen::restore(&vec![0; MAX_SNAPSHOT + 1], 10).err(), Some(SnapshotError::TooLarge(MAX_SNAPSHOT + 1)));
}

proptest! {
    /// Whatever comes out of a damaged snapshot is either refused or a screen that works.
    #[test]
    fn damaged_snapshots_never_panic(at in 0usize..400, byte: u8, more in prop::collection::vec((0usize..400, any::<u8>()), 0..4)) {
        let mut snapshot = lively().snapshot(usize::MAX);
        for (at, byte) in [(at, byte)].into_iter().chain(more) {
            let at = at % snapshot.len();
            snapshot[at] = byte;
        }
        if let Ok(mut screen) = Screen::restore(&snapshot, DEFAULT_SCROLLBACK) {
            screen.feed("\u{301}x\x1b[6n\x1b8界\x1b[?1049l\x1b8\x1b[2J\r\n\x1b[?6h\x1b[5;5H".as_bytes());
            screen.resize(7, 3);
            screen.feed(b"\x1b[?7l0123456789\x1b[20B");
            let again = Screen::restore(&screen.snapshot(usize::MAX), DEFAULT_SCROLLBACK);
            prop_assert!(again.is_ok());
            let _ = (screen.text(), screen.take_changes(), happy_screen::render_vt(&screen));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), cols: u16, rows in 0u16..60) {
        let mut screen = screen(cols % 200, rows, &bytes);
        screen.resize(rows, cols % 100);
        screen.feed(&bytes);
        prop_assert_eq!(state(&restored(&screen)), state(&screen));
        let _ = Screen::restore(&bytes, 10);
    }
}
