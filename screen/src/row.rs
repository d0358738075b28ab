//! Rows for drawing, and the one byte form in which rows are kept, compared and sent.
//!
//! | field | type |
//! |---|---|
//! | flags: bit 0 the next row continues this line | u8 |
//! | runs, to the end: | |
//! | – bold 1, faint 2, italic 4, underline 8, strikethrough 16, blink 32, inverse 64, wide 128 | u8 |
//! | – foreground kind + 4 × background kind (0 default, 1 indexed, 2 RGB) | u8 |
//! | – foreground, background | 0, 1 or 3 bytes each |
//! | – columns | varint |
//! | – text | varint length, UTF-8 |
//!
//! Blanks at the end of a row, in the default style, are left out.

use crate::codec::{Malformed, Reader, Writer};
use crate::engine::{Cell, Pen};
use crate::{MAX_COLS, clusters::MAX_CLUSTER};

/// The most bytes that a row takes. Runs take at least a column each, and beside their text the two bytes of attributes and colour
/// kinds, two colours of three, and varints of at most two and three.
pub const MAX_ROW_BYTES: usize = 1 + MAX_COLS as usize * (2 + 6 + 2 + 3 + MAX_CLUSTER);

pub(crate) const BOLD: u8 = 1;
pub(crate) const FAINT: u8 = 2;
pub(crate) const ITALIC: u8 = 4;
pub(crate) const UNDERLINE: u8 = 8;
pub(crate) const STRIKETHROUGH: u8 = 16;
pub(crate) const BLINK: u8 = 32;
pub(crate) const INVERSE: u8 = 64;
const WIDE: u8 = 128;

/// A colour as the program asked for it; the palette is the viewer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Color {
    /// The viewer's own foreground or background.
    #[default]
    Default,
    /// An entry of the 256-colour palette; 0–15 are the theme's.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How a run looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs, reason = "each field is the attribute of its name")]
pub struct Style {
    pub fg: Color,
    pub bg: Color,
    pub bold: bool,
    pub faint: bool,
    pub italic: bool,
    pub underline: bool,
    pub strikethrough: bool,
    pub blink: bool,
    /// Foreground and background change places when drawn.
    pub inverse: bool,
}

/// Neighbouring cells of one style and one width.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Run {
    /// The characters, without controls. A character may carry combining marks.
    pub text: String,
    /// How they look.
    pub style: Style,
    /// How many columns the run takes; 1 to 1000.
    pub columns: u16,
    /// Every character of the run takes two columns.
    pub wide: bool,
}

/// One row of the viewport or of the history, from the left edge. Columns after the last run are blank.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Row {
    /// From left to right, without gaps.
    pub runs: Vec<Run>,
    /// The line goes on in the next row: copying text must not put a line break here.
    pub wrapped: bool,
}

impl Row {
    /// The characters without styles.
    pub fn text(&self) -> String {
        self.runs.iter().map(|run| run.text.as_str()).collect()
    }

    /// How many columns the runs take together.
    pub fn columns(&self) -> u16 {
        self.runs.iter().map(|run| run.columns).sum()
    }

    /// Reads the byte form. Text with controls is refused: it would reach a terminal or a page unescaped.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Reader(bytes);
        let mut row = Self { wrapped: input.bool()?, runs: Vec::new() };
        let mut columns = 0;
        while !input.is_empty() {
            let run = decode_run(&mut input)?;
            columns += usize::from(run.columns);
            if columns > usize::from(MAX_COLS) {
                return Err(Malformed);
            }
            row.runs.push(run);
        }
        Ok(row)
    }
}

fn decode_run(input: &mut Reader<'_>) -> Result<Run, Malformed> {
    let attributes = input.u8()?;
    let kinds = input.u8()?;
    let style = Style {
        fg: decode_color(kinds & 3, input)?,
        bg: decode_color(kinds >> 2, input)?,
        bold: attributes & BOLD != 0,
        faint: attributes & FAINT != 0,
        italic: attributes & ITALIC != 0,
        underline: attributes & UNDERLINE != 0,
        strikethrough: attributes & STRIKETHROUGH != 0,
        blink: attributes & BLINK != 0,
        inverse: attributes & INVERSE != 0,
    };
    let wide = attributes & WIDE != 0;
    let columns = input.count(usize::from(MAX_COLS))?;
    let text = input.text(columns * MAX_CLUSTER)?;
    if columns == 0 || text.is_empty() || (wide && columns % 2 == 1) || text.chars().any(char::is_control) {
        return Err(Malformed);
    }
    Ok(Run { text: text.to_owned(), style, columns: columns as u16, wide })
}

fn decode_color(kind: u8, input: &mut Reader<'_>) -> Result<Color, Malformed> {
    match kind {
        0 => Ok(Color::Default),
        1 => Ok(Color::Indexed(input.u8()?)),
        2 => Ok(Color::Rgb(input.u8()?, input.u8()?, input.u8()?)),
        _ => Err(Malformed),
    }
}

/// Writes cells in the byte form, resolving the engine's stand-ins for characters with marks.
pub(crate) fn encode<'c>(cells: &[Cell], wrapped: bool, out: &mut Vec<u8>, resolve: impl Fn(char) -> Option<&'c str>) {
    out.push(u8::from(wrapped));
    let used = cells.iter().rposition(|cell| !cell.is_default_blank()).map_or(0, |last| last + 1);
    let mut rest = &cells[..used];
    let mut text = Vec::new();
    while let Some(first) = rest.first() {
        let wide = first.width == 2;
        let same = |cell: &Cell| cell.width == 0 || (cell.pen == first.pen && (cell.width == 2) == wide);
        let (run, later) = rest.split_at(rest.iter().position(|cell| !same(cell)).unwrap_or(rest.len()));
        rest = later;

        text.clear();
        for cell in run.iter().filter(|cell| cell.width > 0) {
            match cell.ch {
                ascii @ ' '..='~' => text.push(ascii as u8),
                ch if ch.is_control() => push_char(&mut text, char::REPLACEMENT_CHARACTER),
                ch => match resolve(ch) {
                    Some(cluster) => text.extend_from_slice(cluster.as_bytes()),
                    None => push_char(&mut text, ch),
                },
            }
        }
        if text.is_empty() {
            // The second half of a wide character alone. Engines do not make these, but columns must not be lost.
            text.resize(run.len(), b' ');
        }
        encode_run(out, first.pen, wide, run.len(), &text);
    }
}

fn push_char(text: &mut Vec<u8>, ch: char) {
    text.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes());
}

fn encode_run(out: &mut Vec<u8>, pen: Pen, wide: bool, columns: usize, text: &[u8]) {
    out.push(pen.attributes | if wide { WIDE } else { 0 });
    out.push((pen.fg >> 24) as u8 | ((pen.bg >> 24) as u8) << 2);
    for color in [pen.fg, pen.bg] {
        let [kind, r, g, b] = color.to_be_bytes();
        match kind {
            0 => {}
            1 => out.push(b),
            _ => out.extend_from_slice(&[r, g, b]),
        }
    }
    let mut writer = Writer(std::mem::take(out));
    writer.varint(columns as u64);
    writer.bytes(text);
    *out = writer.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{INDEXED, RGB};

    fn cell(ch: char, width: u8, pen: Pen) -> Cell {
        Cell { ch, width, pen }
    }

    fn row(cells: &[Cell], wrapped: bool) -> Row {
        let mut out = Vec::new();
        encode(cells, wrapped, &mut out, |_| None);
        Row::decode(&out).expect("our own bytes")
    }

    #[test]
    fn runs_split_at_style_and_width_and_blanks_at_the_end_vanish() {
        let plain = Pen::default();
        let red = Pen { attributes: BOLD | INVERSE, fg: INDEXED | 1, bg: RGB | 0x01_0203 };
        let cells = [
            cell('a', 1, plain),
            cell('b', 1, red),
            cell('界', 2, red),
            cell(' ', 0, red),
            cell('界', 2, red),
            cell(' ', 0, red),
            cell('c', 1, plain),
            cell(' ', 1, plain),
        ];
        let row = row(&cells, true);
        let plain = Style::default();
        let red = Style { fg: Color::Indexed(1), bg: Color::Rgb(1, 2, 3), bold: true, inverse: true, ..plain };
        let run = |text: &str, style, columns, wide| Run { text: text.into(), style, columns, wide };
        let expected =
            [run("a", plain, 1, false), run("b", red, 1, false), run("界界", red, 4, true), run("c", plain, 1, false)];
        assert_eq!(row.runs, expected);
        assert!(row.wrapped);
        assert_eq!((row.text().as_str(), row.columns()), ("ab界界c", 7));
    }

    #[test]
    fn an_empty_row_takes_one_byte() {
        let mut out = Vec::new();
        encode(&[cell(' ', 1, Pen::default()); 80], false, &mut out, |_| None);
        assert_eq!(out, [0]);
    }

    #[test]
    fn hostile_rows_are_refused() {
        let too_wide = [0, 0, 0, 0xe9, 0x07, 1, b'a'];
        let escape = [0, 0, 0, 1, 1, 0x1b];
        let c1 = [0, 0, 0, 1, 2, 0xc2, 0x9b];
        let odd_wide = [0, 128, 0, 1, 1, b'a'];
        let bad_kind = [0, 0, 3, 1, 1, b'a'];
        for bytes in [&too_wide[..], &escape, &c1, &odd_wide, &bad_kind, &[], &[2]] {
            assert_eq!(Row::decode(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
