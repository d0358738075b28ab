//! Gives the parser's findings their meaning: text and sequences that change cells go on to the engine as clean VT
//! text, everything else goes to the ledger, the replies or the history.

use std::fmt::Write;

use unicode_width::UnicodeWidthChar;

use crate::clusters::{Clusters, Joined, StandIns, is_stand_in};
use crate::engine::{Active, Cell, Engine};
use crate::ledger::{self, Ledger, MAX_CWD};
use crate::parser::{Actions, Sequence};
use crate::queries::{self, Query};
use crate::row;
use crate::screen::{Feed, MAX_REPLIES};
use crate::scrollback::Scrollback;
use crate::sgr;

/// Counts and positions beyond any screen are cut here, so that no engine has to think about overflow.
const MAX_NUMBER: u16 = 9999;
/// In bytes; a notification is one line.
const MAX_NOTICE: usize = 512;

/// Where the character stands that a combining mark would join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Joint {
    /// Something other than text came last: a mark has nothing to join.
    #[default]
    Nowhere,
    /// Before the cursor.
    Before,
    /// Under the cursor: autowrap is off and the cursor stands at the right edge.
    Under,
}

impl Joint {
    pub(crate) const ALL: [Self; 3] = [Self::Nowhere, Self::Before, Self::Under];
}

/// Everything but the parser; its methods are what the parser calls.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) engine: Active,
    pub(crate) ledger: Ledger,
    pub(crate) clusters: Clusters,
    pub(crate) history: Scrollback,
    pub(crate) joint: Joint,
    /// The row that left last goes on in the first row. The engine's own note of it is not in its dump.
    pub(crate) continued: bool,
    /// Clean VT text that the engine has not seen yet.
    /// INVARIANT: empty between feeds; while `joint` is not `Nowhere`, its last character, if any, is the one just printed.
    pending: String,
    pub(crate) feed: Feed,
    scratch: Vec<u8>,
}

impl Interpreter {
    pub(crate) fn new(cols: u16, rows: u16, scrollback: usize) -> Self {
        Self {
            engine: Active::new(cols, rows),
            ledger: Ledger::new(rows),
            clusters: Clusters::default(),
            history: Scrollback::new(scrollback),
            joint: Joint::Nowhere,
            continued: false,
            pending: String::new(),
            feed: Feed::default(),
            scratch: Vec::new(),
        }
    }

    /// Shows the engine what has been collected.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Self { engine, clusters, history, scratch, continued, feed, pending, .. } = self;
        engine.feed(pending, &mut |cells, wrapped| {
            keep(cells, wrapped, clusters, history, scratch);
            feed.scrolled_off += 1;
            *continued = wrapped;
        });
        pending.clear();
        feed.changed = true;
    }

    /// Ends a piece of input. The piece may end anywhere, so what a mark would join must not depend on the piece.
    pub(crate) fn settle(&mut self) {
        if self.joint == Joint::Before
            && !self.ledger.modes.autowrap
            && let Some(last) = self.pending.pop()
        {
            self.flush();
            let edge = self.engine.size().0 - 1;
            if self.engine.cursor().0 >= edge {
                self.joint = Joint::Under;
            }
            self.pending.push(last);
        }
        self.flush();
    }

    pub(crate) fn resize(&mut self, cols: u16, rows: u16) {
        let (_, old_rows) = self.engine.size();
        let Self { engine, clusters, history, scratch, continued, .. } = self;
        engine.resize(cols, rows, &mut |cells, wrapped| {
            keep(cells, wrapped, clusters, history, scratch);
            *continued = wrapped;
        });
        self.ledger.resized(old_rows, cols, rows);
        self.joint = Joint::Nowhere;
        self.keep_in_margins();
        self.flush();
    }

    /// The byte form of a row that the engine gives out through `read`.
    pub(crate) fn encode_row(&self, out: &mut Vec<u8>, read: impl FnOnce(&Active, &mut Vec<Cell>) -> bool) {
        let mut cells = Vec::new();
        let wrapped = read(&self.engine, &mut cells);
        row::encode(&cells, wrapped, out, |ch| self.clusters.resolve(ch));
    }

    /// Adds something that is not text.
    fn push(&mut self, vt: &str) {
        self.pending.push_str(vt);
    }

    /// Adds a control sequence with at most two numbers.
    fn push_csi(&mut self, marker: &str, params: &[u16], last: u8) {
        self.pending.push_str("\x1b[");
        self.pending.push_str(marker);
        for (index, param) in params.iter().enumerate() {
            let separator = if index == 0 { "" } else { ";" };
            let _ = write!(self.pending, "{separator}{}", param.min(&MAX_NUMBER));
        }
        self.pending.push(char::from(last));
    }

    fn character(&mut self, ch: char) {
        match ch.width() {
            Some(0) => self.mark(ch),
            // C1 controls; see the parser.
            None => {}
            Some(_) => {
                self.joint = Joint::Before;
                self.pending.push(if is_stand_in(ch) { char::REPLACEMENT_CHARACTER } else { ch });
            }
        }
    }

    /// Joins a zero-width character to the one before it.
    fn mark(&mut self, mark: char) {
        if self.joint == Joint::Nowhere {
            return;
        }
        if self.ledger.is_drawing() {
            // The base may have been translated; only the engine knows.
            self.settle();
        }
        let Some(base) = self.pending.chars().next_back() else { return self.mark_on_screen(mark) };
        if let Some(joined) = self.join(base, mark) {
            self.pending.pop();
            self.pending.push(joined);
        }
    }

    /// The base is on the screen already: print over it with the same pen.
    fn mark_on_screen(&mut self, mark: char) {
        let (col, row) = self.engine.cursor();
        let mut at = usize::from(if self.joint == Joint::Under { col } else { col.saturating_sub(1) });
        let mut cells = Vec::new();
        self.engine.row(row, &mut cells);
        if cells.get(at).is_some_and(|cell| cell.width == 0) {
            at = at.saturating_sub(1);
        }
        let Some(base) = cells.get(at).map(|cell| cell.ch) else { return };
        let Some(joined) = self.join(base, mark) else { return };
        // In insert mode the character would be pushed aside instead of replaced.
        let (begin, end) = if self.ledger.modes.insert { ("\x1b[4l", "\x1b[4h") } else { ("", "") };
        let _ = write!(self.pending, "{begin}\x1b[{}G{joined}{end}", at + 1);
        self.flush();
    }

    fn join(&mut self, base: char, mark: char) -> Option<char> {
        let text = match self.clusters.join(base, mark) {
            Joined::Character(ch) => return Some(ch),
            Joined::Never => return None,
            Joined::New(text) => text,
        };
        let (cols, rows) = self.engine.size();
        let limit = Clusters::limit(cols, rows);
        if let Some(ch) = self.clusters.add(text.clone(), limit) {
            return Some(ch);
        }
        if !self.clusters.may_sweep() {
            return None;
        }
        let shown = self.stand_ins_in_use();
        self.clusters.sweep(&shown);
        self.clusters.add(text, limit)
    }

    fn stand_ins_in_use(&self) -> StandIns {
        let (_, rows) = self.engine.size();
        let mut shown: StandIns = self.pending.chars().collect();
        let mut cells = Vec::new();
        for row in 0..rows {
            self.engine.row(row, &mut cells);
            cells.iter().for_each(|cell| shown.add(cell.ch));
            self.engine.main_row(row, &mut cells);
            cells.iter().for_each(|cell| shown.add(cell.ch));
        }
        shown
    }

    fn reply(&mut self, reply: &[u8]) {
        if self.feed.replies.len() + reply.len() <= MAX_REPLIES {
            self.feed.replies.extend_from_slice(reply);
        }
    }

    fn answer(&mut self, query: Query) {
        self.flush();
        let (cols, rows) = self.engine.size();
        let (col, row) = self.engine.cursor();
        let top = if self.ledger.modes.origin { self.ledger.margins.0 } else { 0 };
        let cursor = (row.saturating_sub(top) + 1, col.min(cols - 1) + 1);
        let reply = queries::reply(query, &self.ledger.modes, (cols, rows), cursor);
        self.reply(&reply);
    }

    fn save_cursor(&mut self, vt: &str) {
        self.ledger.save_cursor();
        self.push(vt);
    }

    fn restore_cursor(&mut self, vt: &str) {
        self.ledger.restore_cursor();
        self.push(vt);
        self.keep_in_margins();
    }

    /// In origin mode the cursor never stands outside the margins. The engine lets DECRC and a resize put it there, and
    /// its dump cannot.
    fn keep_in_margins(&mut self) {
        if !self.ledger.modes.origin {
            return;
        }
        self.flush();
        let (top, bottom) = self.ledger.margins;
        let (col, row) = self.engine.cursor();
        let inside = row.clamp(top, bottom);
        if row != inside {
            self.push_csi("", &[inside - top + 1, col + 1], b'H');
        }
    }

    fn set_private_mode(&mut self, mode: u16, on: bool) {
        let last = if on { b'h' } else { b'l' };
        match mode {
            6 | 7 => {
                self.ledger.modes.set(mode, on);
                self.push_csi("?", &[mode], last);
            }
            1048 if on => self.save_cursor("\x1b[?1048h"),
            1048 => self.restore_cursor("\x1b[?1048l"),
            1049 if on => {
                self.ledger.save_cursor();
                self.show_alternate(true, "\x1b[?1049h");
            }
            1049 => {
                self.show_alternate(false, "");
                self.restore_cursor("\x1b[?1049l");
            }
            47 | 1047 if on => self.show_alternate(true, "\x1b[?1047h"),
            47 | 1047 => {
                self.show_alternate(false, "\x1b[?1047l");
                self.keep_in_margins();
            }
            _ => {
                self.feed.changed = true;
                self.ledger.modes.set(mode, on);
            }
        }
    }

    fn show_alternate(&mut self, alternate: bool, vt: &str) {
        if alternate && !self.ledger.modes.alternate_screen {
            self.flush();
            let (cols, _) = self.engine.size();
            let (col, row) = self.engine.cursor();
            self.ledger.main_cursor = (col.min(cols - 1), row);
        }
        self.ledger.show_alternate(alternate);
        self.push(vt);
    }

    fn scroll_region(&mut self, top: u16, bottom: u16) {
        let (_, rows) = self.engine.size();
        let first = top.max(1);
        let last = if bottom == 0 { rows } else { bottom };
        if first < last && last <= rows {
            self.ledger.margins = (first - 1, last - 1);
        }
        self.push_csi("", &[top, bottom], b'r');
    }

    fn hard_reset(&mut self) {
        self.push("\x1bc");
        self.flush();
        let (_, rows) = self.engine.size();
        self.ledger.reset(rows);
        self.continued = false;
    }

    fn soft_reset(&mut self) {
        let (_, rows) = self.engine.size();
        self.ledger.soft_reset(rows);
        self.push("\x1b[!p");
    }

    fn charset(&mut self, slot: usize, set: u8) {
        let drawing = set == b'0';
        self.ledger.drawing[slot] = drawing;
        self.push(match (slot, drawing) {
            (0, true) => "\x1b(0",
            (0, false) => "\x1b(B",
            (_, true) => "\x1b)0",
            (_, false) => "\x1b)B",
        });
    }

    /// Control sequences without marker and intermediates.
    fn plain_csi(&mut self, sequence: &Sequence, last: u8) {
        let (first, second) = (sequence.param(0), sequence.param(1));
        let given = sequence.params().len();
        match last {
            b'm' => sgr::rewrite(sequence, &mut self.pending),
            b'H' | b'f' => self.push_csi("", &[first, second], b'H'),
            b'J' if first == 3 => {
                self.flush();
                self.history.clear();
                self.feed.history_cleared = true;
            }
            // A few bytes must not cost a screen of work: what fills more than a line is not repetition but attack.
            b'b' => self.push_csi("", &[first.min(self.engine.size().0)], b'b'),
            // With more numbers it is mouse highlighting.
            b'T' if given > 1 => {}
            // With numbers it sets left and right margins, or a keyboard.
            b's' | b'u' if given > 0 => {}
            b's' => self.save_cursor("\x1b[s"),
            b'u' => self.restore_cursor("\x1b[u"),
            b'r' => self.scroll_region(first, second),
            b'A'..=b'G'
            | b'I'
            | b'@'
            | b'J'..=b'M'
            | b'P'
            | b'S'
            | b'T'
            | b'W'
            | b'X'
            | b'Z'
            | b'`'
            | b'a'
            | b'd'
            | b'e'
            | b'g' => self.push_csi("", &[first], last),
            b'h' | b'l' => {
                for mode in sequence.params().iter().filter(|mode| matches!(mode, 4 | 20)) {
                    let flag = if *mode == 4 { &mut self.ledger.modes.insert } else { &mut self.ledger.modes.newline };
                    *flag = last == b'h';
                    self.push_csi("", &[*mode], last);
                }
            }
            b't' if matches!(second, 0 | 2) && first == 22 => self.ledger.push_title(),
            b't' if matches!(second, 0 | 2) && first == 23 => self.feed.title |= self.ledger.pop_title(),
            _ => {}
        }
    }

    fn set_title(&mut self, title: &str) {
        self.ledger.set_title(title);
        self.feed.title = true;
    }

    fn notify(&mut self, notice: &str) {
        self.feed.notice = Some(ledger::clean(notice, MAX_NOTICE));
    }
}

impl Actions for Interpreter {
    fn text(&mut self, text: &str) {
        if text.is_ascii() {
            if !text.is_empty() {
                self.pending.push_str(text);
                self.joint = Joint::Before;
            }
            return;
        }
        for ch in text.chars() {
            self.character(ch);
        }
    }

    fn control(&mut self, byte: u8) {
        self.joint = Joint::Nowhere;
        match byte {
            0x07 => self.feed.bell = true,
            0x0e | 0x0f => {
                self.ledger.shifted = byte == 0x0e;
                self.push(if byte == 0x0e { "\x0e" } else { "\x0f" });
            }
            0x08..=0x0d => self.pending.push(char::from(byte)),
            _ => {}
        }
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        self.joint = Joint::Nowhere;
        match (intermediates, last) {
            ([], b'7') => self.save_cursor("\x1b7"),
            ([], b'8') => self.restore_cursor("\x1b8"),
            ([], b'c') => self.hard_reset(),
            ([], b'D') => self.push("\x1bD"),
            ([], b'E') => self.push("\x1bE"),
            ([], b'H') => self.push("\x1bH"),
            ([], b'M') => self.push("\x1bM"),
            ([], b'=') => self.ledger.modes.application_keypad = true,
            ([], b'>') => self.ledger.modes.application_keypad = false,
            ([b'('], set) => self.charset(0, set),
            ([b')'], set) => self.charset(1, set),
            ([b'#'], b'8') => self.push("\x1b#8"),
            _ => {}
        }
    }

    fn csi(&mut self, sequence: &Sequence, last: u8) {
        self.joint = Joint::Nowhere;
        if let Some(query) = Query::from_csi(sequence, last) {
            return self.answer(query);
        }
        match (sequence.marker, sequence.intermediates(), last) {
            (0, [], _) => self.plain_csi(sequence, last),
            (b'?', [], b'h' | b'l') => {
                for mode in sequence.params() {
                    self.set_private_mode(*mode, last == b'h');
                }
            }
            (0, [b'!'], b'p') => self.soft_reset(),
            (0, [b' '], b'q') if sequence.param(0) <= 6 => {
                self.ledger.modes.cursor_style = sequence.param(0) as u8;
                self.feed.changed = true;
            }
            (b'>', [], b'u') => self.ledger.kitty_push(sequence.param(0)),
            (b'<', [], b'u') => self.ledger.kitty_pop(sequence.param(0)),
            (b'=', [], b'u') => self.ledger.kitty_set(sequence.param(0), sequence.param(1)),
            _ => {}
        }
    }

    fn osc(&mut self, payload: &[u8], bell: bool) {
        self.joint = Joint::Nowhere;
        let payload = String::from_utf8_lossy(payload);
        let (number, text) = payload.split_once(';').unwrap_or((&payload, ""));
        match number {
            "0" | "2" => self.set_title(text),
            "7" => {
                if let Some(path) = path_of_url(text) {
                    self.ledger.cwd = ledger::clean(&path, MAX_CWD);
                    self.feed.cwd = true;
                }
            }
            // `OSC 9;4;…` is ConEmu's progress bar, other numbers its other commands; iTerm2's notification is text.
            "9" if text.split(';').next().is_none_or(|first| first.parse::<u8>().is_err()) => self.notify(text),
            "777" => {
                if let Some(notice) = text.strip_prefix("notify;") {
                    self.notify(&notice.replacen(';', ": ", 1));
                }
            }
            _ => {
                if let Some(reply) = queries::color_reply(number, text, bell) {
                    self.reply(&reply);
                }
            }
        }
    }
}

fn keep(cells: &[Cell], wrapped: bool, clusters: &Clusters, history: &mut Scrollback, scratch: &mut Vec<u8>) {
    scratch.clear();
    row::encode(cells, wrapped, scratch, |ch| clusters.resolve(ch));
    history.push(scratch);
}

/// The path of `file://host/path`, with percent signs undone.
fn path_of_url(url: &str) -> Option<String> {
    let rest = url.strip_prefix("file://")?;
    let path = rest.get(rest.find('/')?..)?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (byte, hex(0), hex(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
