//! `avt`, the terminal of asciinema, as our engine.

use avt::parser::Function;
use avt::{Line, Observation, Observer, Terminal};

use unicode_width::UnicodeWidthChar;

use super::erasing::{Follower, makes_blanks, number};
use super::{Cell, DEFAULT, Engine, Gone, INDEXED, Pen, RGB};
use crate::row;

pub(crate) struct Avt {
    terminal: Terminal,
    follower: Follower,
}

impl std::fmt::Debug for Avt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Avt").field("size", &self.terminal.size()).finish_non_exhaustive()
    }
}

/// Hands evicted lines on. The buffer is reused: output of a million short lines must not cost a million allocations.
struct Evicted<'a, 'g> {
    gone: &'a mut Gone<'g>,
    cells: Vec<Cell>,
}

impl Observer for Evicted<'_, '_> {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        let blank = |cell: &avt::Cell| cell.char() == ' ' && cell.width() == 1 && cell.pen().is_default();
        let used = line.cells().iter().rposition(|cell| !blank(cell)).map_or(0, |last| last + 1);
        copy(&line.cells()[..used], &mut self.cells);
        (self.gone)(&self.cells, line.is_wrapped());
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

impl Engine for Avt {
    fn new(cols: u16, rows: u16) -> Self {
        let (cols, rows) = (usize::from(cols.max(1)), usize::from(rows.max(1)));
        // No history in the engine: rows go to our own store as they leave.
        let terminal = Terminal::with_scrollback(cols, rows, Some(0)).expect("both sizes are at least 1");
        Self { terminal, follower: Follower::new(rows as u16) }
    }

    fn feed(&mut self, vt: &str, gone: &mut Gone<'_>) {
        let mut observer = Evicted { gone, cells: Vec::new() };
        let mut rest = vt;
        while !rest.is_empty() {
            // Text goes around the engine's own parser, which is half of what it costs.
            let (text, after) = cut(rest, rest.find('\x1b').unwrap_or(rest.len()));
            self.text(text, &mut observer);
            let (sequence, after) = cut(after, sequence_length(after.as_bytes()));
            self.sequence(sequence, &mut observer);
            rest = after;
        }
    }

    fn resize(&mut self, cols: u16, rows: u16, gone: &mut Gone<'_>) {
        let observer = Evicted { gone, cells: Vec::new() };
        if rows != self.size().1 {
            self.follower.resized(rows);
        }
        self.terminal.resize_with(usize::from(cols), usize::from(rows), observer);
    }

    fn size(&self) -> (u16, u16) {
        let (cols, rows) = self.terminal.size();
        (cols as u16, rows as u16)
    }

    fn cursor(&self) -> (u16, u16) {
        let cursor = self.terminal.cursor();
        (cursor.col as u16, cursor.row as u16)
    }

    fn row(&self, row: u16, cells: &mut Vec<Cell>) -> bool {
        line_into(self.terminal.screen().line(usize::from(row)), cells)
    }

    fn main_row(&self, row: u16, cells: &mut Vec<Cell>) -> bool {
        line_into(self.terminal.primary_screen().line(usize::from(row)), cells)
    }

    fn pen(&self) -> String {
        self.follower.pen()
    }

    fn dump(&self) -> String {
        self.terminal.dump()
    }

    fn check_dump(vt: &str, cols: u16, rows: u16) -> bool {
        Budget::new(cols, rows).check(vt.as_bytes()).is_some()
    }

    fn continue_line(cols: u16, rows: u16) -> String {
        // A row must leave the top while its line goes on below. With a region of two rows that takes a little more than
        // two rows of text; then the screen is wiped piece by piece, because clearing it whole would push rows out.
        let text = "x".repeat(usize::from(cols) * usize::from(rows.min(2)) + 1);
        let region = if rows > 1 { "\x1b[1;2r" } else { "" };
        format!("{region}{text}\x1b[J\x1b[1J\x1b[r\x1b[H")
    }
}

impl Avt {
    /// Shows the engine text and controls.
    fn text(&mut self, text: &str, observer: &mut Evicted<'_, '_>) {
        let mut rest = text;
        while let Some(place) = moving_control(rest) {
            let (before, after) = cut(rest, place);
            let (control, after) = cut(after, 1);
            self.draw(before, observer);
            if control != "\t" {
                self.end_pending_wrap(observer);
            }
            if !self.is_wrap_pending() {
                self.draw(control, observer);
            }
            rest = after;
        }
        self.draw(rest, observer);
    }

    /// The last column is written, and the next character goes to the next row. As in xterm, a tab leaves that as it is, and a line feed ends
    /// it; in the engine a tab ends it and a line feed takes it along.
    fn is_wrap_pending(&self) -> bool {
        self.cursor().0 >= self.size().0
    }

    fn end_pending_wrap(&mut self, observer: &mut Evicted<'_, '_>) {
        if self.is_wrap_pending() {
            self.put(&format!("\x1b[{}G", self.size().0), observer);
        }
    }

    /// Text and controls with the pen for each.
    fn draw(&mut self, text: &str, observer: &mut Evicted<'_, '_>) {
        if !self.follower.changes_to_erase() {
            return self.put(text, observer);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (fits, after) = cut(rest, self.fitting(rest));
            self.put(fits, observer);
            let Some(first) = after.chars().next() else { return };
            let (one, after) = cut(after, first.len_utf8());
            rest = after;
            match first {
                '\n'..='\x0c' => self.erasing(one, observer),
                '\x08' | '\t' | '\r'..='\x0f' => self.put(one, observer),
                _ => self.wrapping(one, observer),
            }
        }
    }

    /// Text and controls, or a sequence, with the pen as it is. Each kind of iterator that the engine is given has a copy of the engine in the
    /// program that a phone loads, so these are the only two.
    fn put(&mut self, vt: &str, observer: &mut Evicted<'_, '_>) {
        if vt.starts_with('\x1b') {
            self.terminal.feed_with(vt, observer);
        } else {
            self.terminal.execute_with(vt.chars().map(function), observer);
        }
    }

    /// The same with the pen for erased cells.
    fn erasing(&mut self, vt: &str, observer: &mut Evicted<'_, '_>) {
        self.put(&self.follower.erasing_pen(), observer);
        self.put(vt, observer);
        self.put(&self.follower.pen(), observer);
    }

    /// How many bytes of a text can neither wrap nor scroll.
    fn fitting(&self, text: &str) -> usize {
        let (cols, _) = self.size();
        let mut room = usize::from(cols.saturating_sub(self.cursor().0));
        let stop = |ch: char| {
            if ch < ' ' {
                // A carriage return or a backspace makes room, but whoever draws with these does not draw long lines; a tab takes room.
                return true;
            }
            let width = ch.width().unwrap_or(0);
            let full = width > room;
            room = room.saturating_sub(width);
            full
        };
        text.find(stop).unwrap_or(text.len())
    }

    /// Prints what may not fit into its row. When it scrolls, the rest of the new row has been filled with the pen.
    fn wrapping(&mut self, print: &str, observer: &mut Evicted<'_, '_>) {
        let (before, row) = self.cursor();
        self.put(print, observer);
        let (after, _) = self.cursor();
        if after < before && after < self.size().0 && self.follower.wraps_at_bottom(row) {
            self.erasing("\x1b[K", observer);
        }
    }

    fn sequence(&mut self, sequence: &str, observer: &mut Evicted<'_, '_>) {
        if sequence == "\x1b[?1049h" {
            // The same in two steps: the pen that is saved is not the one that the other screen is cleared with.
            self.sequence("\x1b[?1048h", observer);
            return self.sequence("\x1b[?1047h", observer);
        }
        if matches!(sequence, "\x1bD" | "\x1bM") {
            self.end_pending_wrap(observer);
        } else if sequence.ends_with('I') && self.is_wrap_pending() {
            return;
        }
        let changes = self.follower.changes_to_erase();
        if changes && makes_blanks(sequence) {
            self.erasing(sequence, observer);
        } else if changes && sequence.ends_with('b') {
            // REP is as many characters.
            let count = sequence.as_bytes().get(2..sequence.len() - 1).map_or(0, number);
            for _ in 0..count.max(1) {
                self.wrapping("\x1b[b", observer);
            }
        } else {
            self.put(sequence, observer);
        }
        let (_, rows) = self.size();
        self.follower.sequence(sequence, rows);
    }
}

/// What a character outside a sequence does.
fn function(ch: char) -> Function {
    match ch {
        '\x08' => Function::Bs,
        '\t' => Function::Ht,
        '\n' | '\x0b' | '\x0c' => Function::Lf,
        '\r' => Function::Cr,
        '\x0e' => Function::So,
        '\x0f' => Function::Si,
        ch => Function::Print(ch),
    }
}

/// Where a tab stands, or a line feed (or what does the same) that does not follow a carriage return, which has ended a pending wrap.
fn moving_control(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|&at| match bytes[at] {
        b'\t' => true,
        b'\n'..=0x0c => at == 0 || bytes[at - 1] != b'\r',
        _ => false,
    })
}

/// The length of the escape or control sequence at the beginning. The text is clean: there are no other sequences.
fn sequence_length(bytes: &[u8]) -> usize {
    let length = match bytes {
        [0x1b, b'[', rest @ ..] => rest.iter().position(|byte| *byte >= 0x40).map_or(bytes.len(), |last| last + 3),
        [0x1b, b'(' | b')' | b'#', ..] => 3,
        [0x1b, ..] => 2,
        _ => 0,
    };
    length.min(bytes.len())
}

/// The two parts of a text; all of it is the first one if the place is none.
fn cut(text: &str, at: usize) -> (&str, &str) {
    text.split_at_checked(at).unwrap_or((text, ""))
}

fn line_into(line: Option<&Line>, cells: &mut Vec<Cell>) -> bool {
    cells.clear();
    let Some(line) = line else { return false };
    copy(line.cells(), cells);
    line.is_wrapped()
}

fn copy(line: &[avt::Cell], cells: &mut Vec<Cell>) {
    cells.clear();
    cells.extend(line.iter().map(|cell| Cell { ch: cell.char(), width: cell.width(), pen: pen(cell.pen()) }));
}

#[inline]
fn pen(pen: &avt::Pen) -> Pen {
    if pen.is_default() {
        return Pen::default();
    }
    let mut attributes = 0;
    for (set, bit) in [
        (pen.is_bold(), row::BOLD),
        (pen.is_faint(), row::FAINT),
        (pen.is_italic(), row::ITALIC),
        (pen.is_underline(), row::UNDERLINE),
        (pen.is_strikethrough(), row::STRIKETHROUGH),
        (pen.is_blink(), row::BLINK),
        (pen.is_inverse(), row::INVERSE),
    ] {
        attributes |= if set { bit } else { 0 };
    }
    Pen { attributes, fg: color(pen.foreground()), bg: color(pen.background()) }
}

fn color(color: Option<avt::Color>) -> u32 {
    match color {
        None => DEFAULT,
        Some(avt::Color::Indexed(index)) => INDEXED | u32::from(index),
        Some(avt::Color::RGB(rgb)) => RGB | u32::from_be_bytes([0, rgb.r, rgb.g, rgb.b]),
    }
}

/// The work that the dump of a screen may ask for. A stranger's snapshot must not be able to ask for more: a few bytes
/// can otherwise repeat a character 65,535 times or build a new screen of a million cells.
struct Budget {
    characters: usize,
    sequences: usize,
    line_feeds: usize,
    screens: usize,
}

impl Budget {
    fn new(cols: u16, rows: u16) -> Self {
        let (cols, rows) = (usize::from(cols), usize::from(rows));
        let cells = cols * rows;
        Self {
            // Two screens, and three characters printed again to bring back a pending wrap.
            characters: 2 * cells + 8,
            // A change of pen and a repetition for every cell at worst, two for each tab stop, and the closing states.
            sequences: 4 * cells + 2 * cols + 64,
            line_feeds: 2 * rows,
            // The alternate screen is entered once, and left once if only its saved cursor matters.
            screens: 2,
        }
    }

    fn check(&mut self, mut rest: &[u8]) -> Option<()> {
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'\r' | 0x0e | 0x0f => tail,
                b'\n' => {
                    spend(&mut self.line_feeds, 1)?;
                    tail
                }
                0x1b => self.sequence(tail)?,
                0x00..=0x1f | 0x7f => return None,
                // U+0080 to U+009F: the engine would take them for controls.
                0xc2 if tail.first().is_some_and(|next| *next < 0xa0) => return None,
                // The first byte of a character; the text is UTF-8 already.
                _ => {
                    let continues = tail.iter().take_while(|byte| **byte & 0xc0 == 0x80).count();
                    spend(&mut self.characters, 1)?;
                    &tail[continues..]
                }
            };
        }
        Some(())
    }

    fn sequence<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        spend(&mut self.sequences, 1)?;
        match bytes {
            [b'7', rest @ ..] | [b'(' | b')', b'0' | b'B', rest @ ..] => Some(rest),
            [b'[', rest @ ..] => self.csi(rest),
            _ => None,
        }
    }

    fn csi<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let private = bytes.first() == Some(&b'?');
        let bytes = &bytes[usize::from(private)..];
        let length = bytes.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
        let (params, rest) = bytes.split_at(length);
        let (last, rest) = rest.split_first()?;
        // The longest is a change of every attribute and both colours; a number has at most five digits.
        if length > 96 || params.split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() > 5) {
            return None;
        }
        match (private, *last) {
            (true, b'h' | b'l') => match params {
                b"1" | b"6" | b"7" | b"25" => {}
                b"1047" => spend(&mut self.screens, 1)?,
                _ => return None,
            },
            (false, b'h') if matches!(params, b"4" | b"20") => {}
            (false, b'b') => spend(&mut self.characters, std::str::from_utf8(params).ok()?.parse().ok()?)?,
            (false, b'A' | b'B' | b'C' | b'D' | b'G' | b'H' | b'W' | b'm' | b'r' | b'u') => {}
            _ => return None,
        }
        Some(rest)
    }
}

fn spend(left: &mut usize, amount: usize) -> Option<()> {
    *left = left.checked_sub(amount)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(vt: &str) -> bool {
        Avt::check_dump(vt, 80, 24)
    }

    #[test]
    fn dumps_pass_the_check_and_bombs_do_not() {
        let mut engine = Avt::new(80, 24);
        engine.feed(
            "a界\x1b[38;2;1;2;3;1mx\x1b[3;9r\x1b[?6h\x1b7\x1b)0\x0e\x1b[?1049hq\x1b[4h\x1b[?7l\x1b[20h",
            &mut |_, _| {},
        );
        assert!(check(&engine.dump()), "{:?}", engine.dump());

        assert!(!check(&"x\x1b[65535b".repeat(2)), "repetition");
        assert!(!check(&"\x1b[?1047h\x1b[?1047l".repeat(2)), "screens");
        assert!(!check(&"\n".repeat(100)), "line feeds");
        assert!(!check(&"x".repeat(4000)), "characters");
        assert!(!check(&"\x1b[1;1H".repeat(10_000)), "sequences");
        for odd in [
            "\x1bc",
            "\x1b[2J",
            "\x1b]0;x\x07",
            "\x1b",
            "\x1b[",
            "\x1b[?1049h",
            "\u{9b}5b",
            "\x7f",
            "\x1b[?5h",
            "\x1b[1 q",
        ] {
            assert!(!check(odd), "{odd:?}");
        }
    }

    #[test]
    fn continue_line_marks_the_line_above_and_leaves_a_clean_screen() {
        for (cols, rows) in [(2, 1), (2, 2), (80, 24), (1000, 1)] {
            let mut engine = Avt::new(cols, rows);
            let mut last = None;
            engine.feed(&Avt::continue_line(cols, rows), &mut |_, wrapped| last = Some(wrapped));
            assert_eq!(last, Some(true), "{cols}x{rows}");
            let clean = Avt::new(cols, rows);
            assert_eq!(engine.dump(), clean.dump(), "{cols}x{rows}");
        }
    }
}
