//! What the tests of a screen share.
#![allow(dead_code, reason = "each test takes what it needs")]

use happy_screen::{Cursor, DEFAULT_SCROLLBACK, Modes, Row, Screen};

/// Everything that the public side of a screen tells.
#[derive(Debug, PartialEq)]
pub struct State {
    size: (u16, u16),
    rows: Vec<Row>,
    cursor: Cursor,
    modes: Modes,
    title: String,
    cwd: String,
    history: Vec<Row>,
    history_total: u64,
}

pub fn state(screen: &Screen) -> State {
    State {
        size: screen.size(),
        rows: (0..screen.size().1).map(|row| screen.row(row)).collect(),
        cursor: screen.cursor(),
        modes: *screen.modes(),
        title: screen.title().to_owned(),
        cwd: screen.cwd().to_owned(),
        history: history(screen),
        history_total: screen.scrollback_total(),
    }
}

pub fn history(screen: &Screen) -> Vec<Row> {
    (0..screen.scrollback_len()).map(|index| screen.scrollback_row(index).expect("within the length")).collect()
}

pub fn screen(cols: u16, rows: u16, stream: &[u8]) -> Screen {
    let mut screen = Screen::new(cols, rows, DEFAULT_SCROLLBACK);
    screen.feed(stream);
    screen
}

pub fn restored(screen: &Screen) -> Screen {
    Screen::restore(&screen.snapshot(usize::MAX), DEFAULT_SCROLLBACK).expect("our own snapshot")
}
