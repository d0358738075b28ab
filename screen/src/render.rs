//! A screen painted into a real terminal, for `happy attach`.

use std::fmt::Write;

use crate::grid::Place;
use crate::row::{Links, Look, Row, Run, Style};
use crate::screen::Screen;
use crate::sgr;

/// VT text that makes a terminal of the same size look and behave like the screen, so that the live stream can go on
/// (through a [`QueryFilter`](crate::QueryFilter)). While a full-screen program runs, its main screen is painted first,
/// so that it is there when the program ends. On a smaller terminal rows are cut at the right edge; rows below the
/// bottom edge would be painted over each other, so a caller with fewer rows should resize the session or itself.
pub fn render_vt(screen: &Screen) -> Vec<u8> {
    let mut out = String::new();
    // Nothing of what the terminal was doing may disturb the painting: pen, charsets, margins, origin, insertion, wrap.
    out.push_str("\x1b[?25l\x1b[0m\x1b]8;;\x1b\\\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[r\x1b[?6l\x1b[4l\x1b[20l\x1b[?7l");
    input_modes(screen, &mut out);
    let (_, rows) = screen.size();
    if screen.modes().alternate_screen {
        out.push_str("\x1b[?1047l\x1b[H\x1b[J");
        paint((0..rows).map(|row| screen.main_row(row)), &mut out);
        let Place { col, row } = screen.state.canvas.main_cursor;
        // Some terminals save autowrap with the cursor; what the shell gets back must not be the painter's.
        let _ = write!(out, "\x1b[{};{}H\x1b[?7h\x1b[?1049h\x1b[?7l", row + 1, col + 1);
    }
    out.push_str("\x1b[H\x1b[J");
    paint((0..rows).map(|row| screen.row(row)), &mut out);
    output_modes(screen, &mut out);
    out.into_bytes()
}

/// What [`render_vt`] cannot show: the beginning of a sequence or of a character that the bytes which come next will end. After both, the
/// live stream may go on between any two bytes.
pub fn render_begun(screen: &Screen) -> Vec<u8> {
    screen.parser.begun()
}

/// VT text that paints rows of the screen, and puts the cursor where it is. Unlike [`render_vt`] it changes nothing else of the terminal,
/// above all not what its keys send: for a player, whose keyboard is not the program's. The terminal must not be smaller than the screen.
pub fn render_rows(screen: &Screen, rows: impl IntoIterator<Item = u16>) -> Vec<u8> {
    let mut out = String::from("\x1b[?25l");
    for row in rows {
        let _ = write!(out, "\x1b[{};1H\x1b[0m\x1b[2K", row + 1);
        let mut style = Style::default();
        for run in screen.row(row).runs {
            if run.style != style {
                push_style(&run.style, &mut out);
                style = run.style;
            }
            out.push_str(&run.text);
        }
    }
    let cursor = screen.cursor();
    let _ = write!(out, "\x1b[0m\x1b[{};{}H", cursor.row + 1, cursor.col + 1);
    if cursor.visible {
        out.push_str("\x1b[?25h");
    }
    out.into_bytes()
}

/// VT text that gives the terminal back to the user's own shell: main screen, no modes, cursor on a new line below what `screen` shows, or at the
/// bottom without one.
pub fn leave_vt(screen: Option<&Screen>) -> Vec<u8> {
    let last = screen.map_or(999, |screen| {
        let row = match screen.modes().alternate_screen {
            true => screen.state.canvas.main_cursor.row,
            false => usize::from(screen.cursor().row),
        };
        let written = (0..screen.size().1).rev().find(|row| !screen.main_row(*row).runs.is_empty());
        1 + row.max(written.map_or(0, usize::from))
    });
    let mut out = String::from(concat!(
        "\x1b[?2026l\x1b[?1047l\x1b[=0u",
        "\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?1007l\x1b[?2004l",
        "\x1b[?5l\x1b[?1l\x1b>\x1b[0m\x1b]8;;\x1b\\\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[4l\x1b[20l\x1b[?6l\x1b[r\x1b[?7h\x1b[0 q\x1b[?25h",
    ));
    let _ = write!(out, "\x1b[{last};1H\r\n");
    out.into_bytes()
}

fn input_modes(screen: &Screen, out: &mut String) {
    let modes = screen.modes();
    out.push_str("\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l");
    for mode in [modes.tracking_mode(), modes.encoding_mode()].into_iter().flatten() {
        let _ = write!(out, "\x1b[?{mode}h");
    }
    for (mode, on) in [
        (1, modes.application_cursor),
        (1004, modes.focus_events),
        (1007, modes.alternate_scroll),
        (2004, modes.bracketed_paste),
        (5, modes.reversed),
    ] {
        let _ = write!(out, "\x1b[?{mode}{}", if on { 'h' } else { 'l' });
    }
    out.push_str(if modes.application_keypad { "\x1b=" } else { "\x1b>" });
    let _ = write!(out, "\x1b[={}u\x1b[{} q", modes.kitty_flags, modes.cursor_style);
    if !screen.title().is_empty() {
        let _ = write!(out, "\x1b]2;{}\x1b\\", screen.title());
    }
}

/// What would have disturbed the painting, then the cursor.
fn output_modes(screen: &Screen, out: &mut String) {
    let (cols, _) = screen.size();
    let modes = screen.modes();
    let canvas = &screen.state.canvas;
    if modes.autowrap {
        out.push_str("\x1b[?7h");
    }
    let (top, bottom) = canvas.margins;
    if (top, bottom) != (0, canvas.rows - 1) {
        let _ = write!(out, "\x1b[{};{}r", top + 1, bottom + 1);
    }
    if modes.origin {
        out.push_str("\x1b[?6h");
    }
    let cursor = screen.cursor();
    let line = usize::from(cursor.row).saturating_sub(if modes.origin { top } else { 0 }) + 1;
    let _ = write!(out, "\x1b[{line};{}H", cursor.col + 1);
    if cursor.pending_wrap {
        // Writing the last character again is the only way into this state.
        repeat_last_character(&screen.row(cursor.row), cols, line, out);
    }
    let mut names = Links::new(canvas.names(), usize::MAX);
    sgr::set(&names.look(canvas.pen), out);
    if let Some(extra) = canvas.extras.get(canvas.pen.extra) {
        push_link(&extra.link, out);
    }
    out.push_str(&canvas.charsets.vt());
    for (mode, on) in [(4, modes.insert), (20, modes.newline)] {
        if on {
            let _ = write!(out, "\x1b[{mode}h");
        }
    }
    if modes.cursor_visible {
        out.push_str("\x1b[?25h");
    }
}

fn repeat_last_character(row: &Row, cols: u16, line: usize, out: &mut String) {
    let Some(run) = row.runs.last().filter(|_| row.columns() == cols) else {
        // The last cell is blank.
        return out.push_str("\x1b[0m ");
    };
    let width = if run.wide { 2 } else { 1 };
    // With its marks: they follow their base.
    let start = run.text.char_indices().rev().find(|(_, ch)| unicode_width::UnicodeWidthChar::width(*ch) != Some(0));
    let text = &run.text[start.map_or(0, |(start, _)| start)..];
    let _ = write!(out, "\x1b[{line};{}H", cols - width + 1);
    push_style(&run.style, out);
    push_link(run.link.as_deref().unwrap_or_default(), out);
    out.push_str(text);
    push_link("", out);
}

fn paint(rows: impl Iterator<Item = Row>, out: &mut String) {
    let (mut style, mut link) = (Style::default(), None);
    for (index, row) in rows.enumerate() {
        if row.runs.is_empty() {
            continue;
        }
        let _ = write!(out, "\x1b[{};1H", index + 1);
        for Run { text, style: of_run, link: leads, .. } in row.runs {
            if of_run != style {
                push_style(&of_run, out);
                style = of_run;
            }
            if leads != link {
                push_link(leads.as_deref().unwrap_or_default(), out);
                link = leads;
            }
            out.push_str(&text);
        }
    }
    if style != Style::default() {
        out.push_str("\x1b[0m");
    }
    if link.is_some() {
        push_link("", out);
    }
}

/// What is printed from here on leads to this address; with an empty one it leads nowhere.
fn push_link(address: &str, out: &mut String) {
    let _ = write!(out, "\x1b]8;;{address}\x1b\\");
}

fn push_style(style: &Style, out: &mut String) {
    let look = Look {
        attributes: style.attributes(),
        fg: style.fg.to_cell(),
        bg: style.bg.to_cell(),
        underline: style.underline_color.to_cell(),
        link: 0,
    };
    sgr::set(&look, out);
}
