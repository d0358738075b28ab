//! What hostile programs may cost: memory, measured by the system, and time. One test, for memory is that of the whole process.
#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the figures are what a reader of the log wants")]

use std::time::{Duration, Instant};

use happy_screen::{DEFAULT_SCROLLBACK, MAX_SCROLLBACK_BYTES, Screen};

/// Generous: all of it takes seconds, and what it guards against takes minutes.
const SOON: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
/// A screen of a usual size with a history of simple rows; less than what is fed to it.
const LITTLE: usize = 4 * MIB;
/// A screen of a usual size with a full history, beside what the allocator keeps.
const SMALL: usize = MAX_SCROLLBACK_BYTES + 8 * MIB;

/// Bytes of memory that the process has, or has had at most (`VmRSS`, `VmHWM`).
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(field)).expect("the field");
    let kib: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib << 10
}

/// Runs something on a screen and asserts that the process never had more than `bound` bytes more than at its beginning. What one run has
/// freed the next one may use.
fn costs_at_most(bound: usize, before: usize, what: &str, run: impl FnOnce(&mut Screen)) {
    let begin = Instant::now();
    let mut screen = Screen::new(80, 24, DEFAULT_SCROLLBACK);
    run(&mut screen);
    let most = memory("VmHWM").saturating_sub(before);
    println!("{what}: {:.1} MiB, {:?}", most as f64 / MIB as f64, begin.elapsed());
    assert!(most <= bound, "{what}: {most} bytes");
    assert!(begin.elapsed() < SOON, "{what}: {:?}", begin.elapsed());
    // It still works.
    screen.feed(b"\x18\x1b\\\x1bc\x1b[2J\x1b[Hback");
    assert_eq!(screen.text().trim(), if screen.size().0 < 4 { "ba\nck" } else { "back" }, "{what}");
}

/// Feeds so many MiB of the same bytes.
fn flood(screen: &mut Screen, begin: &str, bytes: &str, mib: usize) {
    screen.feed(begin.as_bytes());
    let piece = bytes.repeat(MIB / bytes.len());
    (0..mib).for_each(|_| drop(screen.feed(piece.as_bytes())));
}

#[test]
fn hostile_programs_cost_a_bounded_amount_of_memory() {
    let before = memory("VmRSS");
    for (what, begin, bytes, mib) in [
        ("a line of 64 MB", "", "x", 64),
        ("a line of 64 MB that nothing wraps", "\x1b[?7l", "x", 64),
        ("a line of wide characters", "", "界", 16),
        ("an unclosed OSC", "\x1b]2;", "x", 16),
        ("an unclosed clipboard", "\x1b]52;c;", "QUJD", 16),
        ("an unclosed link", "\x1b]8;;https://", "x", 16),
        ("an unclosed DCS", "\x1bP", "x", 16),
        ("an unclosed synchronized update", "\x1b[?2026h", "more and more\r\n", 16),
        ("a sixel without end", "\x1bPq\"1;1;99999;99999#0;2;0;0;0", "#0!65535~-", 16),
        ("sixels", "", "\x1bPq\"1;1;99999;99999#0;2;0;0;0!65535~-\x1b\\", 16),
        ("kitty images", "", "\x1b_Ga=T,f=100,s=99999,v=99999;QUJD\x1b\\", 16),
        ("parameters without end", "\x1b[", "1;", 16),
        ("marks without end", "e", "\u{301}", 8),
        ("titles that are put aside", "\x1b]2;title\x07", "\x1b[22t", 8),
        ("keyboards", "", "\x1b[>31u", 8),
        ("screens that change", "", "\x1b[?1049hx\x1b[?1049l", 4),
    ] {
        costs_at_most(LITTLE, before, what, |screen| flood(screen, begin, bytes, mib));
    }
    costs_at_most(SMALL, before, "links and colours of underlines, each once", |screen| {
        for n in 0..200_000_u32 {
            let [_, r, g, b] = n.to_be_bytes();
            screen.feed(format!("\x1b[58:2::{r}:{g}:{b}m\x1b]8;;https://a/{n:0>200}\x1b\\x").as_bytes());
        }
        assert!(screen.snapshot(0).len() < MIB);
    });
    costs_at_most(SMALL, before, "characters with marks, each once", |screen| {
        for n in 0..200_000_u32 {
            let marks = [n, n / 64, n / 4096].map(|n| char::from_u32(0x300 + n % 64).expect("a mark"));
            screen.feed(format!("a{}", String::from_iter(marks)).as_bytes());
        }
        assert!(screen.snapshot(0).len() < MIB);
    });
    costs_at_most(SMALL, before, "a thousand resizes with wide characters", |screen| {
        screen.feed("界😀e\u{301}正".repeat(600).as_bytes());
        for n in 0..1_000_u16 {
            screen.resize(n * 37 % 199, n * 13 % 61);
            screen.feed("界\x1b[999;999H界".as_bytes());
        }
    });
    // Two screens of a million cells of 16 bytes, and one of them once more while it is wrapped anew.
    costs_at_most(128 * MIB, before, "sizes from nothing to more than there is", |screen| {
        for n in 0..40 {
            for size in [0, 1, 65535, 2] {
                screen.resize(size, [65535, 1, 0][n % 3]);
                screen.feed("界界\x1b[?1049h\x1b[99;99H界\x1b[?1049l".as_bytes());
            }
        }
    });
}
