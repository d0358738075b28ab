//! A screen as bytes, from which an equal screen can be made (PROTOCOL 10.1.1).
//!
//! | field | type |
//! |---|---|
//! | `HS` | 2 bytes |
//! | version | u8 = 2 |
//! | columns, rows | u16 each |
//! | flags: bit 0 a combining mark would join the character before the cursor, bit 1 the newest row of history continues in the first row | u8 |
//! | parser: state, begun character, and the begun sequence or OSC if there is one | see `parser` |
//! | ledger: modes, keyboard stacks, titles, directory | see `ledger` |
//! | links that cells and pens have | varint count, texts |
//! | cursor: column, row | varint each |
//! | cursor of the main screen while it waits | varint each |
//! | first and last row of the scroll region | varint each |
//! | pen | style |
//! | character sets | 5 bytes, see `charsets` |
//! | tab stops that are not every eighth column: count, and each as distance from the one before | varints |
//! | saved cursors of main and alternate screen: 0 nothing saved, or 1, column, row, flags (bit 0 origin, bit 1 autowrap), style, sets | u8, varints, u8, … |
//! | rows of the main screen, and of the alternate one if that is shown | see below |
//! | rows that ever went to the history | u64 |
//! | rows of history, oldest first | varint count, each varint length and row as in `row` |
//!
//! The rows of a screen are a varint count, and each a varint length, or 0 for the same row as above, and the row, whose links are those
//! of the snapshot. Blank rows at the end are left out. A style is a varint of attributes, three colours (text, background, underline)
//! and the varint number of the link, as in `row`.
//!
//! Numbers are big-endian, varints LEB128 in their shortest form; a text is a varint length and UTF-8.

use std::collections::BTreeMap;

use crate::canvas::{Canvas, Saved};
use crate::cell::{Glyph, Pen};
use crate::charsets::Charsets;
use crate::codec::{Malformed, Reader, Writer};
use crate::extras::{Extra, MAX_EXTRAS};
use crate::grid::{Grid, Place};
use crate::interpreter::Interpreter;
use crate::ledger::Ledger;
use crate::parser::Parser;
use crate::row::{self, Links, Look, Piece, Row};
use crate::screen::{Screen, clamp_size};
use crate::tabs::Tabs;

const MAGIC: &[u8] = b"HS";
/// The version that is written. Others are refused: the two sides of a link agree on a release before they get here.
pub const SNAPSHOT_VERSION: u8 = 2;
/// No screen that people look at comes near: 200 × 60 cells with two random colours each take 100 KB, and the history is at
/// most 16 MiB.
pub const MAX_SNAPSHOT: usize = 64 << 20;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Another program's bytes, or damaged ones.
    #[error("this is not a terminal snapshot, or it is damaged; ask for another one")]
    Malformed,
    /// Another release's.
    #[error("the terminal snapshot has version {0}, and this program reads version 2; update the older side")]
    Version(u8),
    /// More than [`MAX_SNAPSHOT`].
    #[error("the terminal snapshot has {0} bytes, which is more than 64 MiB")]
    TooLarge(usize),
}

impl From<Malformed> for SnapshotError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Screen {
    /// The whole state and the newest `scrollback_rows` rows of history, as bytes. It may be taken between any two bytes
    /// of the stream: the restored screen, fed with the rest, becomes what this one becomes.
    pub fn snapshot(&self, scrollback_rows: usize) -> Vec<u8> {
        let Interpreter { canvas, ledger, .. } = &self.state;
        let (cols, rows) = self.size();
        let mut out = Writer(MAGIC.to_vec());
        out.u8(SNAPSHOT_VERSION);
        out.u16(cols);
        out.u16(rows);
        out.u8(u8::from(canvas.joins) | u8::from(canvas.continued) << 1);
        self.parser.encode(&mut out);
        ledger.encode(&mut out);

        // The links come first, and what names them tells which there are.
        let mut links = Links::new(canvas.names(), usize::MAX);
        let mut drawn = Writer::default();
        encode_canvas(canvas, &mut links, &mut drawn);
        links.encode(&mut out);
        out.0.append(&mut drawn.0);

        out.u64(canvas.history.total);
        let history = canvas.history.newest(scrollback_rows);
        out.varint(history.len() as u64);
        for row in history {
            out.bytes(row);
        }
        out.0
    }

    /// Makes the screen of a snapshot, with a history of at most `scrollback_limit` rows. The bytes may be anybody's:
    /// they are checked before they cost more than a few times their size or the size of the screen.
    pub fn restore(snapshot: &[u8], scrollback_limit: usize) -> Result<Self, SnapshotError> {
        if snapshot.len() > MAX_SNAPSHOT {
            return Err(SnapshotError::TooLarge(snapshot.len()));
        }
        let mut input = Reader(snapshot);
        if input.take(MAGIC.len())? != MAGIC {
            return Err(SnapshotError::Malformed);
        }
        let version = input.u8()?;
        if version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(version));
        }
        let (cols, rows) = (input.u16()?, input.u16()?);
        if (cols, rows) != clamp_size(cols, rows) {
            return Err(SnapshotError::Malformed);
        }
        let flags = input.u8()?;
        if flags > 3 {
            return Err(SnapshotError::Malformed);
        }
        let parser = Parser::decode_state(&mut input)?;
        let mut state = Interpreter::new(cols, rows, scrollback_limit);
        state.ledger = Ledger::decode(&mut input)?;
        let canvas = &mut state.canvas;
        (canvas.joins, canvas.continued) = (flags & 1 != 0, flags & 2 != 0);
        restore_canvas(canvas, state.ledger.modes.alternate_screen, &mut input)?;
        restore_history(canvas, &mut input)?;
        if !input.is_empty() {
            return Err(SnapshotError::Malformed);
        }
        Ok(Self::with_state(parser, state))
    }
}

fn encode_canvas(canvas: &Canvas, links: &mut Links<'_>, out: &mut Writer) {
    let place = |place: Place, out: &mut Writer| [place.col, place.row].iter().for_each(|n| out.varint(*n as u64));
    place(canvas.cursor, out);
    place(canvas.main_cursor, out);
    out.varint(canvas.margins.0 as u64);
    out.varint(canvas.margins.1 as u64);
    row::encode_look(&links.look(canvas.pen), out);
    canvas.charsets.encode(out);
    canvas.tabs.encode(out);
    for saved in &canvas.saved {
        if *saved == Saved::default() {
            out.u8(0);
            continue;
        }
        out.u8(1);
        place(saved.cursor, out);
        out.u8(u8::from(saved.origin) | u8::from(saved.autowrap) << 1);
        row::encode_look(&links.look(saved.pen), out);
        saved.charsets.encode(out);
    }
    for grid in [Some(&canvas.main), canvas.alternate.as_ref()].into_iter().flatten() {
        encode_grid(grid, links, out);
    }
}

fn encode_grid(grid: &Grid, links: &mut Links<'_>, out: &mut Writer) {
    let used = grid.lines().rposition(|line| line.wrapped || !line.is_blank()).map_or(0, |last| last + 1);
    out.varint(used as u64);
    let (mut above, mut row) = (Vec::new(), Vec::new());
    for line in grid.lines().take(used) {
        row.clear();
        let flags = match (line.wrapped, line.short) {
            (false, _) => 0,
            (true, false) => row::WRAPPED,
            (true, true) => row::WRAPPED | row::SHORT,
        };
        row::encode(line.used(), flags, links, &mut row);
        out.bytes(if row == above { &[] } else { &row });
        std::mem::swap(&mut above, &mut row);
    }
}

fn restore_canvas(canvas: &mut Canvas, alternate: bool, input: &mut Reader<'_>) -> Result<(), Malformed> {
    let links = row::read_links(input)?;
    let (cols, rows) = (canvas.cols, canvas.rows);
    let place =
        |input: &mut Reader<'_>, last_col| Ok(Place { col: input.count(last_col)?, row: input.count(rows - 1)? });
    canvas.cursor = place(input, cols)?;
    canvas.main_cursor = place(input, cols - 1)?;
    canvas.margins = (input.count(rows - 1)?, input.count(rows - 1)?);
    if canvas.margins.0 >= canvas.margins.1 && canvas.margins != (0, rows - 1) {
        return Err(Malformed);
    }
    let mut known = Known::new();
    canvas.pen = restore_pen(canvas, &links, &mut known, input)?;
    canvas.charsets = Charsets::decode(input)?;
    canvas.tabs = Tabs::decode(input, cols)?;
    for index in 0..canvas.saved.len() {
        if !input.bool()? {
            continue;
        }
        let cursor = place(input, cols - 1)?;
        let flags = input.u8()?;
        if flags > 3 {
            return Err(Malformed);
        }
        let pen = restore_pen(canvas, &links, &mut known, input)?;
        let charsets = Charsets::decode(input)?;
        canvas.saved[index] = Saved { cursor, pen, charsets, origin: flags & 1 != 0, autowrap: flags & 2 != 0 };
    }
    canvas.main = restore_grid(canvas, &links, &mut known, input)?;
    if alternate {
        canvas.alternate = Some(restore_grid(canvas, &links, &mut known, input)?);
    }
    Ok(())
}

fn restore_pen(
    canvas: &mut Canvas,
    links: &[&str],
    known: &mut Known,
    input: &mut Reader<'_>,
) -> Result<Pen, Malformed> {
    let look = row::read_look(links, input)?;
    Ok(pen(canvas, links, &look, known))
}

/// The extras of this snapshot, by the colour of the underline and the link.
type Known = BTreeMap<(u32, u16), u16>;

/// The pen of a style. Nothing is swept for it, and a snapshot that names more than there is room for loses it.
fn pen(canvas: &mut Canvas, links: &[&str], look: &Look, known: &mut Known) -> Pen {
    let Look { attributes, fg, bg, underline, link } = *look;
    let extra = match known.get(&(underline, link)) {
        Some(id) => *id,
        None if known.len() > MAX_EXTRAS => 0,
        None => {
            let uri = link.checked_sub(1).and_then(|index| links.get(usize::from(index))).copied().unwrap_or_default();
            let id = canvas.extras.intern(&Extra { underline, link: uri.into() }).unwrap_or(0);
            known.insert((underline, link), id);
            id
        }
    };
    Pen { fg, bg, attributes, extra }
}

fn restore_grid(
    canvas: &mut Canvas,
    links: &[&str],
    known: &mut Known,
    input: &mut Reader<'_>,
) -> Result<Grid, Malformed> {
    let (cols, rows) = (canvas.cols, canvas.rows);
    let mut grid = Grid::new(cols, rows, Pen::default());
    let mut above = &[0][..];
    for index in 0..input.count(rows)? {
        let bytes = input.bytes(input.0.len())?;
        if !bytes.is_empty() {
            above = bytes;
        }
        let mut at = 0;
        let mut last = (Look::default(), Pen::default());
        let line = grid.line_mut(index);
        let flags = row::read(above, Some(links), cols, |piece, links| {
            if last.0 != *piece.look {
                last = (*piece.look, pen(canvas, links, piece.look, known));
            }
            for glyph in glyphs(canvas, &piece) {
                line.write(at, glyph, last.1);
                at += if piece.wide { 2 } else { 1 };
            }
        })?;
        // Nothing comes after the last row.
        line.wrapped = flags & row::WRAPPED != 0 && index + 1 < rows;
        line.short = flags & row::SHORT != 0;
    }
    Ok(grid)
}

/// The glyphs of a piece, as often as it stands there.
fn glyphs(canvas: &mut Canvas, piece: &Piece<'_>) -> Vec<Glyph> {
    let one: Vec<Glyph> = match piece.cells {
        1 => vec![canvas.glyph(piece.text, piece.wide)],
        _ => piece.text.chars().map(|ch| Glyph::new(ch, piece.wide)).collect(),
    };
    one.repeat(piece.times)
}

fn restore_history(canvas: &mut Canvas, input: &mut Reader<'_>) -> Result<(), Malformed> {
    let total = input.u64()?;
    let length = input.0.len();
    let count = input.count(length)?;
    for _ in 0..count {
        let row = input.bytes(length)?;
        Row::check(row)?;
        canvas.history.push(row);
    }
    // The phone counts to 2⁵³.
    if total < count as u64 || total > 1 << 53 {
        return Err(Malformed);
    }
    canvas.history.total = total;
    Ok(())
}
