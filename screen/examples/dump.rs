//! What our screen shows at every mark of every recording, a JSON object a line: `cargo run --example dump -p happy-screen`.
//!
//! `cargo xtask test terminal` compares it with xterm.js; tests/terminal/compare.test.mjs says what the fields are.

#[path = "../tests/common/cast.rs"]
mod cast;

use std::io::Write;

use cast::{Event, Recording, recordings};
use happy_screen::{Color, DEFAULT_SCROLLBACK, MouseTracking, Row, Screen, Style, Underline};
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for recording in recordings() {
        let marks = marks(&recording);
        writeln!(out, "{}", json!({ "name": recording.name, "bytes": recording.output(), "marks": marks }))?;
    }
    out.flush()
}

fn marks(recording: &Recording) -> Vec<Value> {
    let (cols, rows) = recording.size;
    let mut screen = Screen::new(cols, rows, DEFAULT_SCROLLBACK);
    let mut marks = Vec::new();
    for event in &recording.events {
        match event {
            Event::Output(bytes) => drop(screen.feed(bytes)),
            Event::Resize(cols, rows) => screen.resize(*cols, *rows),
            Event::Mark => marks.push(mark(&screen)),
        }
    }
    marks.push(mark(&screen));
    marks
}

fn mark(screen: &Screen) -> Value {
    let (cols, rows) = screen.size();
    let (cursor, modes) = (screen.cursor(), screen.modes());
    let viewport: Vec<Row> = (0..rows).map(|row| screen.row(row)).collect();
    let history: Vec<Row> = (0..screen.scrollback_len()).filter_map(|row| screen.scrollback_row(row)).collect();
    let mouse = match modes.mouse {
        MouseTracking::Off => "none",
        MouseTracking::Press => "x10",
        MouseTracking::Click => "vt200",
        MouseTracking::Drag => "drag",
        MouseTracking::Motion => "any",
    };
    json!({
        "size": [cols, rows],
        "cells": viewport.iter().map(|row| cells(row, cols)).collect::<Vec<_>>(),
        "wrapped": viewport.iter().map(|row| row.wrapped).collect::<Vec<_>>(),
        "history": history.iter().map(|row| cells(row, row.columns())).collect::<Vec<_>>(),
        "cursor": [cursor.col, cursor.row, cursor.pending_wrap, cursor.visible],
        "title": screen.title(),
        "modes": {
            "alternateScreen": modes.alternate_screen,
            "applicationCursorKeysMode": modes.application_cursor,
            "applicationKeypadMode": modes.application_keypad,
            "bracketedPasteMode": modes.bracketed_paste,
            "insertMode": modes.insert,
            "mouseTrackingMode": mouse,
            "originMode": modes.origin,
            "sendFocusMode": modes.focus_events,
            "synchronizedOutputMode": modes.synchronized,
            "wraparoundMode": modes.autowrap,
        },
    })
}

/// A string a column: the character, its width and how it looks; blanks fill the row.
fn cells(row: &Row, cols: u16) -> Vec<String> {
    let mut cells = Vec::new();
    for run in &row.runs {
        let link = run.link.as_ref().map_or(String::new(), |link| format!(" <{link}>"));
        let style = style(&run.style) + &link;
        let width = if run.wide { 2 } else { 1 };
        for cluster in clusters(&run.text) {
            cells.push(format!("{cluster} {width}{style}"));
            if run.wide {
                cells.push(format!(" 0{style}"));
            }
        }
    }
    cells.resize(cells.len().max(usize::from(cols)), "  1".to_owned());
    cells
}

/// Characters with the marks that stand on them. A run has as many as columns, so only marks can be the rest.
fn clusters(text: &str) -> Vec<String> {
    let mut clusters: Vec<String> = Vec::new();
    for ch in text.chars() {
        match clusters.last_mut() {
            Some(last) if unicode_width::UnicodeWidthChar::width(ch) == Some(0) => last.push(ch),
            _ => clusters.push(ch.to_string()),
        }
    }
    clusters
}

fn style(style: &Style) -> String {
    let attributes = [
        (style.bold, " bold"),
        (style.faint, " dim"),
        (style.italic, " italic"),
        (style.strikethrough, " strikethrough"),
        (style.blink, " blink"),
        (style.inverse, " inverse"),
        (style.concealed, " invisible"),
        (style.overline, " overline"),
    ];
    let attributes: String = attributes.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let underline = match style.underline {
        Underline::None => String::new(),
        Underline::Single => color(" underline", style.underline_color),
        Underline::Double => color(" double", style.underline_color),
        Underline::Curly => color(" curly", style.underline_color),
        Underline::Dotted => color(" dotted", style.underline_color),
        Underline::Dashed => color(" dashed", style.underline_color),
    };
    format!("{}{}{underline}{attributes}", color(" fg", style.fg), color(" bg", style.bg))
}

fn color(which: &str, color: Color) -> String {
    match color {
        Color::Default if matches!(which, " fg" | " bg") => String::new(),
        Color::Default => which.to_owned(),
        Color::Indexed(index) => format!("{which}={index}"),
        Color::Rgb(r, g, b) => format!("{which}=#{r:02x}{g:02x}{b:02x}"),
    }
}
