//! The ledger: every mode is seen, forgotten by the resets that end it, carried by a snapshot, and reported.

mod common;

use common::{restored, screen};
use happy_screen::{Modes, MouseEncoding, MouseTracking};

fn modes(stream: &str) -> Modes {
    let screen = screen(80, 24, stream.as_bytes());
    assert_eq!(restored(&screen).modes(), screen.modes(), "{stream:?} after a restore");
    *screen.modes()
}

#[test]
fn each_mode_is_set_and_reset_by_its_sequences() {
    let off = Modes::default();
    for (on, expected, reset) in [
        ("\x1b[?1h", Modes { application_cursor: true, ..off }, "\x1b[?1l"),
        ("\x1b=", Modes { application_keypad: true, ..off }, "\x1b>"),
        ("\x1b[?66h", Modes { application_keypad: true, ..off }, "\x1b[?66l"),
        ("\x1b[?2004h", Modes { bracketed_paste: true, ..off }, "\x1b[?2004l"),
        ("\x1b[?9h", Modes { mouse: MouseTracking::Press, ..off }, "\x1b[?9l"),
        ("\x1b[?1000h", Modes { mouse: MouseTracking::Click, ..off }, "\x1b[?1000l"),
        ("\x1b[?1002h", Modes { mouse: MouseTracking::Drag, ..off }, "\x1b[?1002l"),
        ("\x1b[?1003h", Modes { mouse: MouseTracking::Motion, ..off }, "\x1b[?1003l"),
        ("\x1b[?1005h", Modes { mouse_encoding: MouseEncoding::Utf8, ..off }, "\x1b[?1005l"),
        ("\x1b[?1006h", Modes { mouse_encoding: MouseEncoding::Sgr, ..off }, "\x1b[?1006l"),
        ("\x1b[?1015h", Modes { mouse_encoding: MouseEncoding::Urxvt, ..off }, "\x1b[?1015l"),
        ("\x1b[?1004h", Modes { focus_events: true, ..off }, "\x1b[?1004l"),
        ("\x1b[?1007h", Modes { alternate_scroll: true, ..off }, "\x1b[?1007l"),
        ("\x1b[?47h", Modes { alternate_screen: true, ..off }, "\x1b[?47l"),
        ("\x1b[?1047h", Modes { alternate_screen: true, ..off }, "\x1b[?1047l"),
        ("\x1b[?1049h", Modes { alternate_screen: true, ..off }, "\x1b[?1049l"),
        ("\x1b[?25l", Modes { cursor_visible: false, ..off }, "\x1b[?25h"),
        ("\x1b[6 q", Modes { cursor_style: 6, ..off }, "\x1b[ q"),
        ("\x1b[?2026h", Modes { synchronized: true, ..off }, "\x1b[?2026l"),
        ("\x1b[?7l", Modes { autowrap: false, ..off }, "\x1b[?7h"),
        ("\x1b[4h", Modes { insert: true, ..off }, "\x1b[4l"),
        ("\x1b[20h", Modes { newline: true, ..off }, "\x1b[20l"),
        ("\x1b[?6h", Modes { origin: true, ..off }, "\x1b[?6l"),
        ("\x1b[?5h", Modes { reversed: true, ..off }, "\x1b[?5l"),
        ("\x1b[>5u", Modes { kitty_flags: 5, ..off }, "\x1b[<u"),
        (
            "\x1b[?1002;1006;2004h",
            Modes { mouse: MouseTracking::Drag, mouse_encoding: MouseEncoding::Sgr, bracketed_paste: true, ..off },
            "\x1b[?1002;1006;2004l",
        ),
    ] {
        assert_eq!(modes(on), expected, "{on:?}");
        assert_eq!(modes(&format!("{on}{reset}")), off, "{on:?} {reset:?}");
        assert_eq!(modes(&format!("{on}\x1bc")), off, "{on:?} then RIS");
    }
}

#[test]
fn keyboards_are_stacked_per_screen_and_bounded() {
    assert_eq!(modes("\x1b[>1u\x1b[>9u").kitty_flags, 9);
    assert_eq!(modes("\x1b[>1u\x1b[>9u\x1b[<u").kitty_flags, 1);
    assert_eq!(modes("\x1b[>1u\x1b[=2;2u").kitty_flags, 3);
    assert_eq!(modes("\x1b[>7u\x1b[=2;3u").kitty_flags, 5);
    assert_eq!(modes("\x1b[>1u\x1b[?1049h").kitty_flags, 0, "the alternate screen has its own");
    assert_eq!(modes("\x1b[>1u\x1b[?1049h\x1b[>3u\x1b[?1049l").kitty_flags, 1);
    let deep = "\x1b[>1u".repeat(1000);
    assert_eq!(modes(&format!("{deep}\x1b[<15u")).kitty_flags, 1);
    assert_eq!(modes(&format!("{deep}\x1b[<16u")).kitty_flags, 0);
}

#[test]
fn restored_cursors_bring_back_origin_and_autowrap() {
    assert!(modes("\x1b7\x1b[?7l\x1b8").autowrap);
    assert!(modes("\x1b[?6h\x1b7\x1b[?6l\x1b8").origin);
    assert!(!modes("\x1b[?6h\x1b[!p").origin);
}

#[test]
fn title_directory_bell_and_notices_are_reported_once_and_cleaned() {
    let mut screen = screen(80, 24, b"");
    let feed = screen.feed(b"\x1b]0;a\x01b\xffc\x07\x1b]7;file://host/tmp/%C3%A9%20x\x1b\\\x07\x1b]9;done\x07");
    assert_eq!((screen.title(), screen.cwd()), ("ab\u{fffd}c", "/tmp/é x"));
    assert!(feed.title && feed.cwd && feed.bell);
    assert_eq!(feed.notice.as_deref(), Some("done"));
    let feed = screen.feed(b"x");
    assert!(!feed.title && !feed.cwd && !feed.bell && feed.notice.is_none());
    assert_eq!(screen.feed(b"\x1b]9;4;1;50\x07").notice, None, "a progress bar is not a notice");
    assert_eq!(screen.feed(b"\x1b]777;notify;Claude;needs you\x07").notice.as_deref(), Some("Claude: needs you"));

    screen.feed(b"\x1b]2;shell\x07\x1b[22;0t\x1b]2;vim\x07");
    assert_eq!(screen.title(), "vim");
    assert!(screen.feed(b"\x1b[23;0t").title);
    assert_eq!(screen.title(), "shell");

    screen.feed(format!("\x1b]2;{}\x07", "é".repeat(1000)).as_bytes());
    assert_eq!(screen.title().len(), 512);
    screen.feed(format!("\x1b]2;{}\x07", "x".repeat(5000)).as_bytes());
    assert_eq!(screen.title().len(), 512, "a string over the bound is skipped whole");
}

#[test]
fn queries_are_answered_with_the_state_of_their_moment() {
    for (stream, expected) in [
        ("\x1b[c", "\x1b[?62;22c"),
        ("\x1b[0c", "\x1b[?62;22c"),
        ("\x1b[1c", ""),
        ("\x1b[>c", "\x1b[>1;1;0c"),
        ("\x1b[5n", "\x1b[0n"),
        ("ab\r\nc\x1b[6n", "\x1b[2;2R"),
        ("\x1b[6nabc", "\x1b[1;1R"),
        ("\x1b[24;80Hx\x1b[6n", "\x1b[24;80R"),
        ("\x1b[5;10r\x1b[?6h\x1b[2;3H\x1b[6n", "\x1b[2;3R"),
        ("\x1b[3;4H\x1b[?6n", "\x1b[?3;4;1R"),
        ("\x1b[?2026$p", "\x1b[?2026;2$y"),
        ("\x1b[?2026h\x1b[?2026$p", "\x1b[?2026;1$y"),
        ("\x1b[?25$p\x1b[?1006$p\x1b[?1049$p", "\x1b[?25;1$y\x1b[?1006;2$y\x1b[?1049;2$y"),
        ("\x1b[?1002h\x1b[?1002$p\x1b[?1000$p", "\x1b[?1002;1$y\x1b[?1000;2$y"),
        ("\x1b[?4711$p", "\x1b[?4711;0$y"),
        ("\x1b[4h\x1b[4$p\x1b[20$p\x1b[12$p", "\x1b[4;1$y\x1b[20;2$y\x1b[12;0$y"),
        ("\x1b[>q", concat!("\x1bP>|happy ", env!("CARGO_PKG_VERSION"), "\x1b\\")),
        ("\x1b[18t", "\x1b[8;24;80t"),
        ("\x1b]10;?\x07", "\x1b]10;rgb:e6e6/e6e6/e6e6\x07"),
        ("\x1b]11;?\x1b\\", "\x1b]11;rgb:1010/1010/1414\x1b\\"),
        ("\x1b]11;#fff\x07\x1b]4;1;?\x07\x1b[?u", ""),
    ] {
        let mut screen = screen(80, 24, b"");
        let replies = screen.feed(stream.as_bytes()).replies;
        assert_eq!(String::from_utf8_lossy(&replies), expected, "{stream:?}");
        assert!(screen.feed(b"").replies.is_empty(), "answered once");
    }
}

#[test]
fn replies_are_bounded() {
    let mut screen = screen(80, 24, b"");
    let replies = screen.feed(&b"\x1b[c".repeat(100_000)).replies;
    assert!(replies.len() <= happy_screen::MAX_REPLIES && replies.len() > happy_screen::MAX_REPLIES / 2);
    assert!(!screen.feed(b"\x1b[c").replies.is_empty(), "the next feed is answered again");
}
