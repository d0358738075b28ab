//! The door to the VT engine: everything the rest of the crate knows about it stands in [`Engine`].
//!
//! The engine gets clean VT text only: printable characters of one or two columns, BS HT LF VT FF CR SO SI, and the
//! sequences that move the cursor, change cells, the pen, tabs, margins, charsets and the two screens. Queries, strings,
//! titles and input modes never reach it.

pub(crate) mod avt;
mod erasing;

/// The engine in use.
pub(crate) type Active = avt::Avt;

/// One cell, in a form that is cheap to make and to compare: output scrolls by at millions of cells a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) ch: char,
    /// 1, or 2 for a wide character, or 0 for its second half.
    pub(crate) width: u8,
    pub(crate) pen: Pen,
}

/// How a cell looks, in the numbers of the row's byte form (see `row`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pen {
    pub(crate) attributes: u8,
    /// [`DEFAULT`], [`INDEXED`] with the index, or [`RGB`] with 24 bits.
    pub(crate) fg: u32,
    pub(crate) bg: u32,
}

pub(crate) const DEFAULT: u32 = 0;
pub(crate) const INDEXED: u32 = 1 << 24;
pub(crate) const RGB: u32 = 2 << 24;

impl Cell {
    /// A cell that was never written to, or cleared with the default pen.
    pub(crate) fn is_default_blank(&self) -> bool {
        self.ch == ' ' && self.width == 1 && self.pen == Pen::default()
    }
}

/// Rows that leave the main screen at the top, oldest first: their cells, perhaps without blanks at the end, and whether
/// the next row continues the line.
pub(crate) type Gone<'a> = dyn FnMut(&[Cell], bool) + 'a;

/// A screen of cells with a cursor. Sizes are within the crate's limits.
pub(crate) trait Engine: Sized {
    fn new(cols: u16, rows: u16) -> Self;
    fn feed(&mut self, vt: &str, gone: &mut Gone<'_>);
    fn resize(&mut self, cols: u16, rows: u16, gone: &mut Gone<'_>);
    fn size(&self) -> (u16, u16);
    /// Column and row from 0. The column equals the width while a wrap is pending.
    fn cursor(&self) -> (u16, u16);
    /// The cells of a row of the screen that is shown, and whether the next row continues the line.
    fn row(&self, row: u16, cells: &mut Vec<Cell>) -> bool;
    /// The same for the main screen, shown or not.
    fn main_row(&self, row: u16, cells: &mut Vec<Cell>) -> bool;
    /// The SGR sequence that sets the current pen, whatever it was before.
    fn pen(&self) -> String;
    /// VT text that turns a new engine of the same size into this one, as far as the future can tell.
    /// [`Engine::check_dump`] tells whether text has this form.
    fn dump(&self) -> String;
    /// Whether text from a stranger may be fed to a new engine: sequences as in a dump, and work within a few times the
    /// number of cells.
    fn check_dump(vt: &str, cols: u16, rows: u16) -> bool;
    /// VT text that makes a new engine believe that the row above its first one continues into it.
    fn continue_line(cols: u16, rows: u16) -> String;
}
