//! Gives the parser's findings their meaning: text and sequences that change cells go on to the canvas, everything else goes to the ledger,
//! the replies or the history.

use crate::canvas::{Canvas, Part};
use crate::extras;
use crate::ledger::{self, Ledger, MAX_CWD};
use crate::parser::{Actions, Sequence};
use crate::progress::ProgressChange;
use crate::queries::{self, Query};
use crate::screen::{Feed, MAX_REPLIES};
use crate::sgr;

/// Whether somebody wants what is there for the holder of a session alone.
const HOLDS: bool = cfg!(feature = "holder");
/// In bytes; a notification is one line.
const MAX_NOTICE: usize = 512;

/// Everything but the parser; its methods are what the parser calls.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) canvas: Canvas,
    pub(crate) ledger: Ledger,
    pub(crate) feed: Feed,
}

impl Interpreter {
    pub(crate) fn new(cols: u16, rows: u16, scrollback: usize) -> Self {
        let canvas = Canvas::new(cols.into(), rows.into(), scrollback);
        Self { canvas, ledger: Ledger::default(), feed: Feed::default() }
    }

    /// What has happened since somebody asked.
    pub(crate) fn take_feed(&mut self) -> Feed {
        let mut feed = std::mem::take(&mut self.feed);
        feed.scrolled_off = std::mem::take(&mut self.canvas.scrolled_off);
        feed
    }

    pub(crate) fn resize(&mut self, cols: u16, rows: u16) {
        self.canvas.resize(cols.into(), rows.into());
        self.canvas.keep_in_margins(&self.ledger.modes);
    }

    /// Tells the program an answer.
    fn reply(&mut self, reply: &[u8]) {
        if self.feed.replies.len() + reply.len() <= MAX_REPLIES {
            self.feed.replies.extend_from_slice(reply);
        }
    }

    fn answer(&mut self, query: Query) {
        let Canvas { cols, rows, cursor, margins, .. } = self.canvas;
        let top = if self.ledger.modes.origin { margins.0 } else { 0 };
        let cursor = (cursor.row.saturating_sub(top) + 1, cursor.col.min(cols - 1) + 1);
        // A screen has at most as many columns and rows as fit.
        let pair = |(a, b): (usize, usize)| (a as u16, b as u16);
        let reply = queries::reply(query, &self.ledger.modes, pair((cols, rows)), pair(cursor));
        self.reply(&reply);
    }

    fn restore_cursor(&mut self) {
        self.canvas.restore_cursor(&mut self.ledger.modes);
    }

    fn set_private_mode(&mut self, mode: u16, on: bool) {
        self.feed.changed = true;
        match mode {
            1048 if on => self.canvas.save_cursor(&self.ledger.modes),
            1048 => self.restore_cursor(),
            1049 if on => {
                self.canvas.save_cursor(&self.ledger.modes);
                self.show_alternate(true);
            }
            1049 => {
                self.show_alternate(false);
                self.restore_cursor();
            }
            47 | 1047 => {
                self.show_alternate(on);
                self.canvas.keep_in_margins(&self.ledger.modes);
            }
            _ => {
                self.ledger.modes.set(mode, on);
                if mode == 6 {
                    self.canvas.go_home(on);
                }
            }
        }
    }

    fn show_alternate(&mut self, alternate: bool) {
        if alternate {
            self.canvas.show_alternate();
        } else {
            self.canvas.show_main();
        }
        self.ledger.show_alternate(alternate);
    }

    fn hard_reset(&mut self) {
        self.canvas.hard_reset();
        self.ledger.reset();
        if HOLDS {
            self.progress(ProgressChange::CLEARED);
        }
    }

    fn soft_reset(&mut self) {
        self.canvas.soft_reset();
        self.ledger.soft_reset();
    }

    /// Control sequences without marker and intermediates.
    fn plain_csi(&mut self, sequence: &Sequence, last: u8) {
        let (first, second) = (sequence.param(0), sequence.param(1));
        let given = sequence.params().len();
        let count = usize::from(first.max(1));
        // Positions count from 1.
        let place = |number: u16| usize::from(number.max(1)) - 1;
        let origin = self.ledger.modes.origin;
        let canvas = &mut self.canvas;
        match last {
            b'm' => sgr::apply(sequence, canvas),
            b'H' | b'f' => {
                canvas.go_to_col(place(second));
                canvas.go_to_row(place(first), origin);
            }
            b'A' => canvas.go_up(count),
            b'B' | b'e' => canvas.go_down(count),
            b'C' | b'a' => canvas.go_right(count),
            b'D' => canvas.go_left(count),
            b'E' | b'F' => {
                let go = if last == b'E' { Canvas::go_down } else { Canvas::go_up };
                go(canvas, count);
                canvas.go_to_col(0);
            }
            b'G' | b'`' => canvas.go_to_col(place(first)),
            b'd' => canvas.go_to_row(place(first), origin),
            b'I' => canvas.tab(count),
            b'Z' => canvas.tab_back(count),
            b'J' | b'K' => self.erase(first, last == b'J'),
            b'@' => canvas.insert_cells(count),
            b'P' => canvas.delete_cells(count),
            b'X' => canvas.erase_cells(count),
            b'L' => canvas.insert_lines(count),
            b'M' => canvas.delete_lines(count),
            b'S' => canvas.scroll_region_up(count),
            // With more numbers it is mouse highlighting.
            b'T' if given <= 1 => canvas.scroll_region_down(count),
            b'g' | b'W' => self.tabs(first, last),
            b'r' => {
                let bottom = if second == 0 { canvas.rows } else { usize::from(second) };
                canvas.set_margins(place(first), bottom - 1);
                canvas.go_home(origin);
            }
            // With numbers it sets left and right margins, or a keyboard.
            b's' if given == 0 => canvas.save_cursor(&self.ledger.modes),
            b'u' if given == 0 => self.restore_cursor(),
            b'h' | b'l' => {
                for mode in sequence.params() {
                    match mode {
                        4 => self.ledger.modes.insert = last == b'h',
                        20 => self.ledger.modes.newline = last == b'h',
                        _ => {}
                    }
                }
            }
            b't' if matches!(second, 0 | 2) && first == 22 => self.ledger.push_title(),
            b't' if matches!(second, 0 | 2) && first == 23 => self.feed.title |= self.ledger.pop_title(),
            _ => return,
        }
        self.feed.changed = true;
    }

    fn erase(&mut self, which: u16, display: bool) {
        let part = match which {
            0 => Part::After,
            1 => Part::Before,
            2 => Part::All,
            3 if display => {
                self.canvas.history.clear();
                self.feed.history_cleared = true;
                return;
            }
            _ => return,
        };
        if display { self.canvas.erase_in_display(part) } else { self.canvas.erase_in_line(part) }
    }

    /// TBC and CTC.
    fn tabs(&mut self, which: u16, last: u8) {
        let col = self.canvas.cursor.col.min(self.canvas.cols - 1);
        match (last, which) {
            (b'g', 0) | (b'W', 2) => self.canvas.tabs.set(col, false),
            (b'g', 3) | (b'W', 5) => self.canvas.tabs.clear(),
            (b'W', 0) => self.canvas.tabs.set(col, true),
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

    fn progress(&mut self, change: ProgressChange) {
        self.feed.progress = Some(change.after(self.feed.progress));
    }

    /// `OSC 8 ; parameters ; address`: what is printed from here on is a link, or none if the address is empty, or is none to follow.
    fn link(&mut self, text: &str) {
        let uri = text.split_once(';').map_or("", |(_, uri)| uri);
        let link = extras::address(uri).unwrap_or_default();
        if self.canvas.pen.extra != 0 || !link.is_empty() {
            self.canvas.set_extra(|extra| extra.link = link.into());
        }
    }
}

impl Actions for Interpreter {
    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.canvas.print(text, &self.ledger.modes);
            self.feed.changed = true;
        }
    }

    fn control(&mut self, byte: u8) {
        self.canvas.joins = false;
        self.feed.changed = true;
        match byte {
            0x07 => self.feed.bell = true,
            0x08 => self.canvas.go_left(1),
            b'\t' => self.canvas.tab(1),
            b'\n'..=0x0c => {
                self.canvas.line_feed();
                if self.ledger.modes.newline {
                    self.canvas.go_to_col(0);
                }
            }
            b'\r' => self.canvas.go_to_col(0),
            0x0e => self.canvas.charsets.lock(1),
            0x0f => self.canvas.charsets.lock(0),
            _ => {}
        }
    }

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        self.canvas.joins = false;
        self.feed.changed = true;
        let canvas = &mut self.canvas;
        match (intermediates, last) {
            ([], b'7') => canvas.save_cursor(&self.ledger.modes),
            ([], b'8') => self.restore_cursor(),
            ([], b'c') => self.hard_reset(),
            ([], b'D') => canvas.line_feed(),
            ([], b'E') => {
                canvas.line_feed();
                canvas.go_to_col(0);
            }
            ([], b'H') => canvas.tabs.set(canvas.cursor.col.min(canvas.cols - 1), true),
            ([], b'M') => canvas.reverse_line_feed(),
            ([], b'N') => canvas.charsets.shift_once(2),
            ([], b'O') => canvas.charsets.shift_once(3),
            ([], b'n') => canvas.charsets.lock(2),
            ([], b'o') => canvas.charsets.lock(3),
            ([], b'=') => self.ledger.modes.application_keypad = true,
            ([], b'>') => self.ledger.modes.application_keypad = false,
            ([slot @ b'('..=b'+'], set) => canvas.charsets.designate(slot - b'(', set),
            ([b'#'], b'8') => canvas.fill_with_e(),
            _ => {}
        }
    }

    fn csi(&mut self, sequence: &Sequence, last: u8) {
        if HOLDS && let Some(query) = Query::from_csi(sequence, last) {
            self.canvas.joins = false;
            return self.answer(query);
        }
        if (sequence.marker, sequence.intermediates(), last) == (0, &[], b'b') {
            self.canvas.repeat(sequence.param(0).max(1).into(), &self.ledger.modes);
            self.feed.changed = true;
        }
        self.canvas.joins = false;
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
        self.canvas.joins = false;
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
            "8" => self.link(text),
            _ if !HOLDS => {}
            // iTerm2's notification is text; what begins with a number is one of ConEmu's commands.
            "9" if text.split(';').next().is_none_or(|first| first.parse::<u8>().is_err()) => self.notify(text),
            "9" => {
                if let Some(change) = ProgressChange::read(text) {
                    self.progress(change);
                }
            }
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
