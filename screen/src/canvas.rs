//! What a program draws on: two screens of cells, the cursor, the pen, and the history.
//!
//! Where terminals differ this one does what xterm.js does; docs/TERMINAL.md lists the exceptions.

use unicode_width::UnicodeWidthChar;

use crate::cell::{Cell, Glyph, Pen};
use crate::charsets::Charsets;
use crate::clusters::{Clusters, Joined};
use crate::extras::{Extra, Extras};
use crate::grid::{Grid, Place};
use crate::line::Line;
use crate::modes::Modes;
use crate::row::{self, Names};
use crate::scrollback::Scrollback;
use crate::tabs::Tabs;

/// What DECSC saves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) cursor: Place,
    pub(crate) pen: Pen,
    pub(crate) charsets: Charsets,
    pub(crate) origin: bool,
    pub(crate) autowrap: bool,
}

impl Default for Saved {
    fn default() -> Self {
        let (cursor, pen, charsets) = Default::default();
        Self { cursor, pen, charsets, origin: false, autowrap: true }
    }
}

/// Which part of a row or of the screen is erased, seen from the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The cursor and what comes after it.
    After,
    /// What comes before the cursor, and the cursor.
    Before,
    All,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Canvas {
    pub(crate) cols: usize,
    pub(crate) rows: usize,
    pub(crate) main: Grid,
    /// While it is shown.
    pub(crate) alternate: Option<Grid>,
    /// The column equals the width while a wrap is pending: the last column is written, and the next character goes to the next row.
    pub(crate) cursor: Place,
    /// Where the cursor of the main screen waits while the alternate screen is shown; the first cell otherwise.
    pub(crate) main_cursor: Place,
    /// First and last row of the scroll region.
    pub(crate) margins: (usize, usize),
    pub(crate) pen: Pen,
    /// For the main and the alternate screen.
    pub(crate) saved: [Saved; 2],
    pub(crate) charsets: Charsets,
    pub(crate) tabs: Tabs,
    /// A character came last: a combining mark joins it. It stands before the cursor.
    pub(crate) joins: bool,
    /// The row that left the main screen last goes on in its first row.
    pub(crate) continued: bool,
    pub(crate) clusters: Clusters,
    pub(crate) extras: Extras,
    pub(crate) history: Scrollback,
    /// Rows that have gone to the history since somebody asked.
    pub(crate) scrolled_off: usize,
    scratch: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(cols: usize, rows: usize, scrollback: usize) -> Self {
        Self {
            cols,
            rows,
            main: Grid::new(cols, rows, Pen::default()),
            alternate: None,
            cursor: Place::default(),
            main_cursor: Place::default(),
            margins: (0, rows - 1),
            pen: Pen::default(),
            saved: [Saved::default(); 2],
            charsets: Charsets::default(),
            tabs: Tabs::new(cols),
            joins: false,
            continued: false,
            clusters: Clusters::default(),
            extras: Extras::default(),
            history: Scrollback::new(scrollback),
            scrolled_off: 0,
            scratch: Vec::new(),
        }
    }

    /// The screen that is shown.
    pub(crate) fn grid(&self) -> &Grid {
        self.alternate.as_ref().unwrap_or(&self.main)
    }

    fn grid_mut(&mut self) -> &mut Grid {
        self.alternate.as_mut().unwrap_or(&mut self.main)
    }

    pub(crate) fn names(&self) -> Names<'_> {
        Names { clusters: &self.clusters, extras: &self.extras }
    }

    fn line_mut(&mut self) -> &mut Line {
        let row = self.cursor.row;
        self.grid_mut().line_mut(row)
    }

    // Printing.

    pub(crate) fn print(&mut self, text: &str, modes: &Modes) {
        if text.is_ascii() && self.charsets.is_plain() {
            return self.print_ascii(text.as_bytes(), modes);
        }
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first.is_ascii() && self.charsets.is_plain() {
                let length = rest.bytes().position(|byte| byte >= 0x80).unwrap_or(rest.len());
                let (ascii, later) = rest.split_at(length);
                self.print_ascii(ascii.as_bytes(), modes);
                rest = later;
            } else {
                self.print_char(first, modes);
                rest = &rest[first.len_utf8()..];
            }
        }
    }

    fn print_ascii(&mut self, mut text: &[u8], modes: &Modes) {
        while !text.is_empty() {
            self.make_room(1, modes.autowrap);
            let (now, later) = text.split_at(text.len().min(self.cols - self.cursor.col));
            let (at, pen) = (self.cursor.col, self.pen);
            let line = self.line_mut();
            if modes.insert {
                line.insert(at, now.len(), pen);
            }
            line.write_ascii(at, now, pen);
            self.cursor.col = at + now.len();
            text = later;
        }
        self.joins = true;
    }

    fn print_char(&mut self, ch: char, modes: &Modes) {
        // Most letters of Latin and Cyrillic need no table.
        let width = if matches!(ch, '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}' | '\u{400}'..='\u{481}') {
            Some(1)
        } else {
            ch.width()
        };
        match width {
            // C1 controls; see the parser.
            None => return,
            Some(0) => return self.join(ch),
            Some(_) => {}
        }
        let ch = if ch.is_ascii() { self.charsets.draw(ch) } else { ch };
        let glyph = Glyph::new(ch, width == Some(2));
        let columns = if glyph.is_wide() { 2 } else { 1 };
        self.joins = self.make_room(columns, modes.autowrap);
        if !self.joins {
            return;
        }
        let (at, pen) = (self.cursor.col, self.pen);
        let line = self.line_mut();
        if modes.insert {
            line.insert(at, columns, pen);
        }
        line.write(at, glyph, pen);
        self.cursor.col += columns;
    }

    /// Brings the cursor to where as many columns fit. Without wrapping a wide character may have no place.
    fn make_room(&mut self, columns: usize, autowrap: bool) -> bool {
        if self.cursor.col + columns <= self.cols {
            return true;
        }
        if !autowrap {
            self.cursor.col = self.cols - 1;
            return columns == 1;
        }
        let (at, end, pen) = (self.cursor.col, self.cols, self.pen);
        let (top, bottom) = self.margins;
        self.line_mut().erase(at..end, pen);
        let scrolls = self.cursor.row == bottom;
        if scrolls || self.cursor.row + 1 < self.rows {
            let line = self.line_mut();
            (line.wrapped, line.short) = (true, at < end);
            if scrolls {
                self.scroll_up(top, 1);
            } else {
                self.cursor.row += 1;
            }
        }
        self.cursor.col = 0;
        true
    }

    /// Joins a zero-width character to the one before it.
    fn join(&mut self, mark: char) {
        let Some(at) = self.cursor.col.checked_sub(1).filter(|_| self.joins) else { return };
        let cells = self.grid().line(self.cursor.row).cells();
        let at = if cells[at].glyph.is_tail() { at - 1 } else { at };
        let base = cells[at].glyph;
        let joined = match self.clusters.join(base, mark) {
            Joined::Glyph(glyph) => Some(glyph),
            Joined::Never => None,
            Joined::New(text) => self.add_cluster(text, base.is_wide()),
        };
        if let Some(glyph) = joined {
            self.line_mut().replace(at, glyph);
        }
    }

    fn add_cluster(&mut self, text: Box<str>, wide: bool) -> Option<Glyph> {
        let limit = Clusters::limit(self.cols, self.rows);
        if let Some(glyph) = self.clusters.add(text.clone(), wide, limit) {
            return Some(glyph);
        }
        if !self.clusters.may_sweep() {
            return None;
        }
        let Self { main, alternate, clusters, .. } = self;
        clusters.sweep(shown(main, alternate).map(|cell| cell.glyph));
        clusters.add(text, wide, limit)
    }

    /// The glyph of a character, perhaps with marks, as a snapshot tells it.
    pub(crate) fn glyph(&mut self, text: &str, wide: bool) -> Glyph {
        let mut characters = text.chars();
        match (characters.next(), characters.next()) {
            (Some(ch), None) => Glyph::new(ch, wide),
            (first, _) => {
                let limit = Clusters::limit(self.cols, self.rows);
                let cluster = self.clusters.add(text.into(), wide, limit);
                cluster.unwrap_or(Glyph::new(first.unwrap_or(' '), wide))
            }
        }
    }

    /// Prints the character that came last again.
    pub(crate) fn repeat(&mut self, count: usize, modes: &Modes) {
        let Some(at) = self.cursor.col.checked_sub(1).filter(|_| self.joins) else { return };
        let cells = self.grid().line(self.cursor.row).cells();
        let glyph = cells[if cells[at].glyph.is_tail() { at - 1 } else { at }].glyph;
        // A few bytes must not cost a screen of work: what fills more than a line is not repetition but attack.
        for _ in 0..count.min(self.cols) {
            let columns = if glyph.is_wide() { 2 } else { 1 };
            if !self.make_room(columns, modes.autowrap) {
                return;
            }
            let (at, pen) = (self.cursor.col, self.pen);
            let line = self.line_mut();
            if modes.insert {
                line.insert(at, columns, pen);
            }
            line.write(at, glyph, pen);
            self.cursor.col += columns;
        }
    }

    // What the pen has beside its attributes.

    /// Changes the colour of underlines, or the link. Without room in the table the pen has neither.
    pub(crate) fn set_extra(&mut self, change: impl FnOnce(&mut Extra)) {
        let mut extra = self.extras.get(self.pen.extra).cloned().unwrap_or_default();
        change(&mut extra);
        self.pen.extra = self.intern(&extra);
    }

    fn intern(&mut self, extra: &Extra) -> u16 {
        if let Some(id) = self.extras.intern(extra) {
            return id;
        }
        if !self.extras.may_sweep() {
            return 0;
        }
        let pens = [self.pen, self.saved[0].pen, self.saved[1].pen];
        let Self { main, alternate, extras, .. } = self;
        extras.sweep(shown(main, alternate), &pens);
        extras.intern(extra).unwrap_or(0)
    }

    // Moving.

    /// The cursor in a column that there is: no wrap is pending any more.
    pub(crate) fn end_pending_wrap(&mut self) {
        self.cursor.col = self.cursor.col.min(self.cols - 1);
    }

    pub(crate) fn go_to_col(&mut self, col: usize) {
        self.cursor.col = col.min(self.cols - 1);
    }

    /// Rows count from the top margin and end at the bottom margin in origin mode.
    pub(crate) fn go_to_row(&mut self, row: usize, origin: bool) {
        let (top, bottom) = if origin { self.margins } else { (0, self.rows - 1) };
        self.cursor.row = top.saturating_add(row).min(bottom);
        self.end_pending_wrap();
    }

    pub(crate) fn go_home(&mut self, origin: bool) {
        self.cursor.col = 0;
        self.go_to_row(0, origin);
    }

    pub(crate) fn go_left(&mut self, count: usize) {
        self.end_pending_wrap();
        self.cursor.col = self.cursor.col.saturating_sub(count);
    }

    pub(crate) fn go_right(&mut self, count: usize) {
        self.go_to_col(self.cursor.col.saturating_add(count));
    }

    /// Up to the margin, or to the edge from outside.
    pub(crate) fn go_up(&mut self, count: usize) {
        let (top, _) = self.margins;
        let first = if self.cursor.row >= top { top } else { 0 };
        self.cursor.row = self.cursor.row.saturating_sub(count).max(first);
        self.end_pending_wrap();
    }

    /// Down to the margin, or to the edge from outside.
    pub(crate) fn go_down(&mut self, count: usize) {
        let (_, bottom) = self.margins;
        let last = if self.cursor.row <= bottom { bottom } else { self.rows - 1 };
        self.cursor.row = self.cursor.row.saturating_add(count).min(last);
        self.end_pending_wrap();
    }

    /// A tab leaves a pending wrap as it is, to the left as to the right.
    pub(crate) fn tab(&mut self, count: usize) {
        for _ in 0..count.min(self.cols) {
            if self.cursor.col < self.cols {
                self.cursor.col = self.tabs.after(self.cursor.col);
            }
        }
    }

    pub(crate) fn tab_back(&mut self, count: usize) {
        for _ in 0..count.min(self.cols) {
            if self.cursor.col < self.cols {
                self.cursor.col = self.tabs.before(self.cursor.col);
            }
        }
    }

    /// A row down; at the bottom margin the region scrolls.
    pub(crate) fn line_feed(&mut self) {
        let (top, bottom) = self.margins;
        if self.cursor.row == bottom {
            self.part_rows(bottom);
            self.scroll_up(top, 1);
        } else if self.cursor.row + 1 < self.rows {
            self.cursor.row += 1;
        }
        self.end_pending_wrap();
    }

    /// A row up; at the top margin the region scrolls.
    pub(crate) fn reverse_line_feed(&mut self) {
        if self.cursor.row == self.margins.0 {
            self.scroll_region_down(1);
        } else {
            self.cursor.row = self.cursor.row.saturating_sub(1);
        }
        self.end_pending_wrap();
    }

    // Scrolling.

    /// What stands in this row, the last of a region, does not go on in the next one when the region scrolls.
    fn part_rows(&mut self, bottom: usize) {
        if bottom + 1 < self.rows {
            self.grid_mut().line_mut(bottom).wrapped = false;
        }
    }

    /// Scrolls the rows from `top` to the bottom margin. Those that leave the main screen at its top are kept.
    fn scroll_up(&mut self, top: usize, count: usize) {
        let pen = self.pen.erasing();
        let rows = top..self.margins.1 + 1;
        let Self { main, alternate, history, clusters, extras, scratch, continued, scrolled_off, .. } = self;
        let Some(alternate) = alternate else {
            let names = Names { clusters, extras };
            return main.scroll_up(rows, count, pen, |line| {
                if top == 0 {
                    keep(line, names, history, scratch);
                    *continued = line.wrapped;
                    *scrolled_off += 1;
                }
            });
        };
        alternate.scroll_up(rows, count, pen, |_| {});
    }

    pub(crate) fn scroll_region_up(&mut self, count: usize) {
        let (top, bottom) = self.margins;
        self.part_rows(bottom);
        self.scroll_up(top, count);
    }

    pub(crate) fn scroll_region_down(&mut self, count: usize) {
        let ((top, bottom), pen) = (self.margins, self.pen.erasing());
        self.grid_mut().scroll_down(top..bottom + 1, count, pen);
    }

    /// The rows from the cursor to the bottom margin; none when the cursor is outside of the region. The cursor goes to the left edge.
    fn rows_below(&mut self) -> Option<std::ops::Range<usize>> {
        let (top, bottom) = self.margins;
        let inside = (top..=bottom).contains(&self.cursor.row);
        inside.then(|| {
            self.cursor.col = 0;
            self.cursor.row..bottom + 1
        })
    }

    pub(crate) fn insert_lines(&mut self, count: usize) {
        let pen = self.pen.erasing();
        if let Some(rows) = self.rows_below() {
            self.grid_mut().scroll_down(rows, count, pen);
        }
    }

    /// What is deleted is gone; it does not go to the history.
    pub(crate) fn delete_lines(&mut self, count: usize) {
        let pen = self.pen.erasing();
        if let Some(rows) = self.rows_below() {
            self.part_rows(rows.end - 1);
            self.grid_mut().scroll_up(rows, count, pen, |_| {});
        }
    }

    pub(crate) fn set_margins(&mut self, top: usize, bottom: usize) {
        if top < bottom && bottom < self.rows {
            self.margins = (top, bottom);
        }
    }

    // Erasing.

    pub(crate) fn erase_in_line(&mut self, part: Part) {
        let (at, cols, pen) = (self.cursor.col, self.cols, self.pen.erasing());
        let line = self.line_mut();
        match part {
            Part::After => line.erase(at..cols, pen),
            Part::Before => line.erase(0..cols.min(at + 1), pen),
            Part::All => line.erase(0..cols, pen),
        }
        if part != Part::Before {
            line.wrapped = false;
        }
    }

    pub(crate) fn erase_in_display(&mut self, part: Part) {
        let (row, rows, pen) = (self.cursor.row, self.rows, self.pen.erasing());
        match part {
            Part::After => {
                self.erase_in_line(part);
                self.grid_mut().clear(row + 1..rows, pen);
            }
            Part::Before => {
                self.erase_in_line(part);
                self.grid_mut().clear(0..row, pen);
            }
            Part::All => {
                self.keep_screen();
                self.grid_mut().clear(0..rows, pen);
            }
        }
    }

    /// Moves the main screen to the history, up to the last row that is not blank.
    fn keep_screen(&mut self) {
        if self.alternate.is_some() {
            return;
        }
        let mut continues = self.continued;
        let mut count = 0;
        for (row, line) in self.main.lines().enumerate() {
            // A blank row counts that ends the line above.
            if continues || line.wrapped || !line.is_blank() {
                count = row + 1;
            }
            continues = line.wrapped;
        }
        let margins = std::mem::replace(&mut self.margins, (0, self.rows - 1));
        self.scroll_up(0, count);
        self.margins = margins;
    }

    pub(crate) fn erase_cells(&mut self, count: usize) {
        self.end_pending_wrap();
        let (at, cols, pen) = (self.cursor.col, self.cols, self.pen.erasing());
        let end = at.saturating_add(count).min(cols);
        let line = self.line_mut();
        line.erase(at..end, pen);
        line.wrapped &= end < cols;
    }

    pub(crate) fn insert_cells(&mut self, count: usize) {
        self.end_pending_wrap();
        let (at, pen) = (self.cursor.col, self.pen.erasing());
        self.line_mut().insert(at, count, pen);
    }

    pub(crate) fn delete_cells(&mut self, count: usize) {
        self.end_pending_wrap();
        let (at, pen) = (self.cursor.col, self.pen.erasing());
        let line = self.line_mut();
        line.delete(at, count, pen);
        line.wrapped = false;
    }

    /// DECALN: E everywhere, for adjusting a screen.
    pub(crate) fn fill_with_e(&mut self) {
        let (cols, pen, text) = (self.cols, self.pen, vec![b'E'; self.cols]);
        self.margins = (0, self.rows - 1);
        for row in 0..self.rows {
            let line = self.grid_mut().line_mut(row);
            line.write_ascii(0, &text[..cols], pen);
            line.wrapped = false;
        }
        self.go_home(false);
    }

    // The whole.

    fn shown_index(&self) -> usize {
        usize::from(self.alternate.is_some())
    }

    pub(crate) fn save_cursor(&mut self, modes: &Modes) {
        let cursor = Place { col: self.cursor.col.min(self.cols - 1), ..self.cursor };
        let Modes { origin, autowrap, .. } = *modes;
        self.saved[self.shown_index()] = Saved { cursor, pen: self.pen, charsets: self.charsets, origin, autowrap };
    }

    pub(crate) fn restore_cursor(&mut self, modes: &mut Modes) {
        let saved = self.saved[self.shown_index()];
        (self.cursor, self.pen, self.charsets) = (saved.cursor, saved.pen, saved.charsets);
        (modes.origin, modes.autowrap) = (saved.origin, saved.autowrap);
        self.keep_in_margins(modes);
    }

    /// In origin mode the cursor never stands outside the margins.
    pub(crate) fn keep_in_margins(&mut self, modes: &Modes) {
        if modes.origin {
            let (top, bottom) = self.margins;
            self.cursor.row = self.cursor.row.clamp(top, bottom);
        }
    }

    /// Shows the alternate screen, which is blank then.
    pub(crate) fn show_alternate(&mut self) {
        if self.alternate.is_none() {
            self.main_cursor = Place { col: self.cursor.col.min(self.cols - 1), ..self.cursor };
            self.alternate = Some(Grid::new(self.cols, self.rows, self.pen.erasing()));
        }
    }

    pub(crate) fn show_main(&mut self) {
        self.alternate = None;
        self.main_cursor = Place::default();
    }

    /// DECSTR.
    pub(crate) fn soft_reset(&mut self) {
        self.margins = (0, self.rows - 1);
        self.pen = Pen::default();
        self.charsets = Charsets::default();
        self.saved[self.shown_index()] = Saved::default();
    }

    /// RIS: a new canvas, but the history is kept, for it holds what was printed before and by others.
    pub(crate) fn hard_reset(&mut self) {
        let history = std::mem::replace(&mut self.history, Scrollback::new(0));
        let scrolled_off = self.scrolled_off;
        *self = Self { history, scrolled_off, ..Self::new(self.cols, self.rows, 0) };
    }

    pub(crate) fn resize(&mut self, cols: usize, rows: usize) {
        let Self { main, alternate, history, clusters, extras, scratch, continued, saved, .. } = self;
        let names = Names { clusters, extras };
        let gone = |line: &Line| {
            keep(line, names, history, scratch);
            *continued = line.wrapped;
        };
        let waiting = if alternate.is_some() { &mut self.main_cursor } else { &mut self.cursor };
        let mut places = [*waiting, saved[0].cursor];
        main.reflow(cols, rows, &mut places, gone);
        *waiting = places[0];
        if let Some(alternate) = alternate {
            alternate.resize(cols, rows, std::slice::from_mut(&mut self.cursor), |_| {});
        }
        saved[0].cursor = places[1];
        for saved in saved {
            let place = saved.cursor;
            saved.cursor = Place { col: place.col.min(cols - 1), row: place.row.min(rows - 1) };
        }
        self.main_cursor.col = self.main_cursor.col.min(cols - 1);
        if rows != self.rows {
            self.margins = (0, rows - 1);
        }
        self.tabs.resize(cols);
        (self.cols, self.rows, self.joins) = (cols, rows, false);
    }
}

/// The cells of both screens.
fn shown<'a>(main: &'a Grid, alternate: &'a Option<Grid>) -> impl Iterator<Item = &'a Cell> {
    main.cells().chain(alternate.iter().flat_map(Grid::cells))
}

fn keep(line: &Line, names: Names<'_>, history: &mut Scrollback, scratch: &mut Vec<u8>) {
    scratch.clear();
    row::encode_alone(line.used(), line.wrapped, names, scratch);
    history.push(scratch);
}
