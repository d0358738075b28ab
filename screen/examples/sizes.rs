//! How large the first paint of a screen is: `cargo run --release -p happy-screen --example sizes`.
//!
//! The largest snapshot at any mark of each recording, and pictures of 200×60 in which each cell has a colour of its own.

#[allow(dead_code, reason = "each example takes what it needs")]
#[path = "../tests/common/cast.rs"]
mod cast;
#[path = "../tests/common/pictures.rs"]
mod pictures;

use std::io::Write;

use cast::{Event, Recording, recordings};
use happy_screen::{DEFAULT_SCROLLBACK, Screen};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<28}{:>9}{:>10}{:>14}", "screen", "size", "bytes", "bytes a cell")?;
    let mut print = |name: &str, (cols, rows): (u16, u16), bytes: usize| {
        let share = bytes as f64 / (f64::from(cols) * f64::from(rows));
        writeln!(out, "{name:<28}{:>9}{bytes:>10}{share:>14.2}", format!("{cols}x{rows}"))
    };
    let mut largest: Vec<_> = recordings().iter().map(largest).collect();
    largest.sort_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    for (bytes, name, size) in largest {
        print(&name, size, bytes)?;
    }
    for (name, picture) in pictures::ALL {
        let mut screen = Screen::new(200, 60, 0);
        screen.feed(picture(200, 60).as_bytes());
        print(name, screen.size(), screen.snapshot(0).len())?;
    }
    Ok(())
}

fn largest(recording: &Recording) -> (usize, String, (u16, u16)) {
    let (cols, rows) = recording.size;
    let mut screen = Screen::new(cols, rows, DEFAULT_SCROLLBACK);
    let mut largest = (0, recording.name.clone(), recording.size);
    for event in recording.events.iter().chain([&Event::Mark]) {
        match event {
            Event::Output(bytes) => drop(screen.feed(bytes)),
            Event::Resize(cols, rows) => screen.resize(*cols, *rows),
            Event::Mark => {
                let bytes = screen.snapshot(0).len();
                if bytes > largest.0 {
                    largest = (bytes, recording.name.clone(), screen.size());
                }
            }
        }
    }
    largest
}
