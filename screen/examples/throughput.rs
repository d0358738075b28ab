//! How fast a screen takes output: `cargo run --release -p happy-screen --example throughput`.
//!
//! The fastest of many rounds counts, so that it makes little difference what else the machine does.

use std::io::Write;
use std::time::{Duration, Instant};

use happy_screen::{DEFAULT_SCROLLBACK, Screen};

const ROUNDS: usize = 40;
const BYTES_A_ROUND: usize = 2 << 20;
/// What a read from a PTY brings.
const PIECE: usize = 4096;

fn main() -> std::io::Result<()> {
    let words = ["request", "handled", "in", "3", "ms", "by", "worker", "17", "of", "the", "pool"];
    let colored = words.iter().enumerate().map(|(n, word)| match n % 4 {
        0 => format!("\x1b[3{}m{word}\x1b[0m ", n % 8),
        1 => format!("\x1b[38;2;200;{};50m{word}\x1b[39m ", n * 9),
        _ => format!("{word} "),
    });
    let samples: [(&str, String); 6] = [
        ("plain log", "2026-11-05T12:00:00 INFO request handled in 3 ms by worker 17\r\n".into()),
        ("coloured log", format!("\x1b[2m12:00:00\x1b[0m {}\r\n", colored.collect::<String>())),
        ("CJK and emoji", "日本語のログ 行 😀 终端 ok, и ещё немного текста\r\n".into()),
        (
            "redraws",
            format!("\x1b[?2026h\x1b[H{}\x1b[?2026l", "\x1b[Ksome text of a frame that is drawn again\r\n".repeat(38)),
        ),
        ("short lines", "y\r\n".into()),
        ("full colour", (0..120).map(|n| format!("\x1b[38;2;{};{n};9m#", n * 2)).collect::<String>() + "\r\n"),
    ];
    let mut out = std::io::stdout();
    writeln!(out, "{:<16}{:>8}{:>12}{:>16}", "120x40", "MB/s", "snapshot", "10,000 lines")?;
    for (name, sample) in samples {
        let stream = sample.repeat(BYTES_A_ROUND / sample.len());
        let mut screen = Screen::new(120, 40, DEFAULT_SCROLLBACK);
        let mut fastest = Duration::MAX;
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            stream.as_bytes().chunks(PIECE).for_each(|piece| drop(screen.feed(piece)));
            fastest = fastest.min(begin.elapsed());
        }
        let rate = stream.len() as f64 / fastest.as_secs_f64() / 1e6;
        let (screen_only, whole) = (screen.snapshot(0).len(), screen.snapshot(usize::MAX).len());
        writeln!(out, "{name:<16}{rate:>8.0}{screen_only:>12}{whole:>16}")?;
    }
    Ok(())
}
