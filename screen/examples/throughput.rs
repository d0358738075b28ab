//! How fast a screen takes output: `cargo run --release -p happy-screen --example throughput`.

use std::io::Write;
use std::time::Instant;

use happy_screen::{DEFAULT_SCROLLBACK, Screen};

const BYTES: usize = 64 << 20;

fn main() -> std::io::Result<()> {
    let samples: [(&str, String); 4] = [
        ("plain", "2026-11-05T12:00:00 INFO request handled in 3 ms by worker 17\r\n".into()),
        (
            "colour",
            "\x1b[2m12:00:00\x1b[0m \x1b[32mINFO\x1b[0m request \x1b[38;2;200;100;50mhandled\x1b[0m in 3 ms\r\n".into(),
        ),
        ("CJK and emoji", "日本語のログ 行 😀 终端 ok\r\n".into()),
        (
            "redraw",
            format!("\x1b[?2026h\x1b[H{}\x1b[?2026l", "\x1b[Ksome text of a frame that is drawn again\r\n".repeat(38)),
        ),
    ];
    let mut out = std::io::stdout();
    for (name, sample) in samples {
        let chunk = sample.repeat(4096 / sample.len() + 1);
        let mut screen = Screen::new(120, 40, DEFAULT_SCROLLBACK);
        let begin = Instant::now();
        let mut fed = 0;
        while fed < BYTES {
            screen.feed(chunk.as_bytes());
            fed += chunk.len();
        }
        let rate = fed as f64 / begin.elapsed().as_secs_f64() / 1e6;
        let begin = Instant::now();
        let snapshot = screen.snapshot(0);
        writeln!(out, "{name}: {rate:.0} MB/s, snapshot {} bytes in {:?}", snapshot.len(), begin.elapsed())?;
    }
    Ok(())
}
