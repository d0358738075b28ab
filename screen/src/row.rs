//! Rows for drawing, and the one byte form in which rows are kept, compared and sent (PROTOCOL 10.1.1).
//!
//! A row is a byte of flags (bit 0: the next row continues this line; bit 1: the row has links of its own; bit 2, on a screen only: the next row
//! continues it with a wide character, for which the last column had no room), its links if it has some (a
//! varint count, and texts), and then, to its end, characters of UTF-8 and between them:
//!
//! | byte | fields | meaning |
//! |---|---|---|
//! | 0x00 | | default style |
//! | 0x01 | n varint | n blanks |
//! | 0x02 | n varint | the last character n more times |
//! | 0x03, 0x04 | | from here characters take two columns; one (as at the beginning) |
//! | 0x05, 0x06, 0x07 | see below | the foreground, the background, both change from cell to cell |
//! | 0x08 | colour, n varint | colour of the underline, and the link: 0 none, n the nth |
//! | 0x09–0x0f | bit 2: attributes varint; bit 0: colour; bit 1: colour | these attributes; this foreground; this background |
//! | 0x10–0x1f | | the style that the row has introduced as its first, its second, … |
//! | 0x7f | text | the text is one character with its marks |
//!
//! Attributes are bold 1, faint 2, italic 4, inverse 8, underline 16 × (1 single, 2 double, 3 curly, 4 dotted, 5 dashed), strikethrough 128,
//! blink 256, concealed 512, overline 1024. A colour is 0 (default), 1 and an index, 2 and red, green, blue, or 3 to 18 for the indices 0 to
//! 15. A style is introduced by 0x08 to 0x0f, as it is when a character, a blank or a change of colours follows.
//!
//! A change of colours is a varint, 2 × the number of cells, and one more if they all have the same character, which then stands here
//! once and otherwise for each cell; and then for each colour that changes, the foreground first, as many steps as there are cells (see
//! `steps`) from the colour before, which is RGB. These cells take one column each.
//!
//! Blanks at the end of a row, in the default style, are left out.

use std::sync::Arc;

use crate::MAX_COLS;
use crate::cell::{self, Cell, DEFAULT, INDEXED, Kind, Pen, RGB};
use crate::clusters::{Clusters, MAX_CLUSTER};
use crate::codec::{Malformed, Reader, Writer};
use crate::extras::{Extras, MAX_EXTRAS, MAX_LINK};
use crate::steps;

/// Links of a row of the history, in bytes with their lengths; those over the bound are dropped, and their text is text.
pub(crate) const MAX_ROW_LINKS: usize = 8 * 1024;

/// The most bytes that a row of the history takes: flags and links, and for each column a change of style (1, attributes 2, colours 8), of the
/// underline and the link (1, 4, 2), of the width (1), and a character with marks (2).
pub const MAX_ROW_BYTES: usize = 1 + 2 + MAX_ROW_LINKS + MAX_COLS as usize * (11 + 7 + 1 + 2 + MAX_CLUSTER);

pub(crate) const WRAPPED: u8 = 1;
const OWN_LINKS: u8 = 2;
pub(crate) const SHORT: u8 = 4;

const DEFAULT_STYLE: u8 = 0x00;
const BLANKS: u8 = 0x01;
const REPEAT: u8 = 0x02;
const WIDE: u8 = 0x03;
const NARROW: u8 = 0x04;
/// Bit 0 the foreground, bit 1 the background.
const CHANGING: u8 = 0x04;
const EXTRA: u8 = 0x08;
/// Bit 0 the foreground, bit 1 the background, bit 2 the attributes.
const STYLE: u8 = 0x08;
const KNOWN: u8 = 0x10;
/// The styles that a byte can name.
const MAX_KNOWN: usize = 16;
const CLUSTER: u8 = 0x7f;

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

impl Color {
    fn from_cell(color: u32) -> Self {
        let [_, r, g, b] = color.to_be_bytes();
        match color & 0xff << 24 {
            INDEXED => Self::Indexed(b),
            RGB => Self::Rgb(r, g, b),
            _ => Self::Default,
        }
    }

    pub(crate) fn to_cell(self) -> u32 {
        match self {
            Self::Default => DEFAULT,
            Self::Indexed(index) => INDEXED | u32::from(index),
            Self::Rgb(r, g, b) => RGB | u32::from_be_bytes([0, r, g, b]),
        }
    }
}

/// The line under a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum Underline {
    #[default]
    None,
    Single,
    Double,
    Curly,
    Dotted,
    Dashed,
}

impl Underline {
    const ALL: [Self; 6] = [Self::None, Self::Single, Self::Double, Self::Curly, Self::Dotted, Self::Dashed];
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
    pub underline: Underline,
    /// Of the line under the text; the default is the colour of the text.
    pub underline_color: Color,
    pub strikethrough: bool,
    pub overline: bool,
    pub blink: bool,
    /// Foreground and background change places when drawn.
    pub inverse: bool,
    /// The text takes its room and is not shown.
    pub concealed: bool,
}

impl Style {
    fn of(look: &Look) -> Self {
        let has = |attribute: u16| look.attributes & attribute != 0;
        let underline = (look.attributes & cell::UNDERLINE) >> cell::UNDERLINE_SHIFT;
        Self {
            fg: Color::from_cell(look.fg),
            bg: Color::from_cell(look.bg),
            bold: has(cell::BOLD),
            faint: has(cell::FAINT),
            italic: has(cell::ITALIC),
            underline: Underline::ALL.get(usize::from(underline)).copied().unwrap_or_default(),
            underline_color: Color::from_cell(look.underline),
            strikethrough: has(cell::STRIKETHROUGH),
            overline: has(cell::OVERLINE),
            blink: has(cell::BLINK),
            inverse: has(cell::INVERSE),
            concealed: has(cell::CONCEALED),
        }
    }

    /// The attributes as cells have them.
    pub(crate) fn attributes(&self) -> u16 {
        let flags = [
            (self.bold, cell::BOLD),
            (self.faint, cell::FAINT),
            (self.italic, cell::ITALIC),
            (self.strikethrough, cell::STRIKETHROUGH),
            (self.overline, cell::OVERLINE),
            (self.blink, cell::BLINK),
            (self.inverse, cell::INVERSE),
            (self.concealed, cell::CONCEALED),
        ];
        let flags = flags.iter().fold(0, |all, (set, bit)| all | if *set { *bit } else { 0 });
        flags | (self.underline as u16) << cell::UNDERLINE_SHIFT
    }
}

/// Neighbouring cells of one style, one width and one link.
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
    /// Where a link leads: an address of the web (`http` or `https`) of at most 2048 printable ASCII characters, from the program.
    pub link: Option<Arc<str>>,
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

    /// Reads the byte form of a row that stands alone. Text with controls is refused: it would reach a terminal or a page unescaped.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut row = Self::default();
        let mut last = None;
        let mut links: Vec<Arc<str>> = Vec::new();
        let flags = read(bytes, None, MAX_COLS.into(), |piece, own| {
            if last != Some((*piece.look, piece.wide)) {
                last = Some((*piece.look, piece.wide));
                if links.is_empty() {
                    links = own.iter().map(|link| Arc::from(*link)).collect();
                }
                let link = piece.look.link.checked_sub(1).and_then(|index| links.get(usize::from(index)));
                row.runs.push(Run {
                    text: String::new(),
                    style: Style::of(piece.look),
                    columns: 0,
                    wide: piece.wide,
                    link: link.cloned(),
                });
            }
            if let Some(run) = row.runs.last_mut() {
                (0..piece.times).for_each(|_| run.text.push_str(piece.text));
                run.columns += piece.columns() as u16;
            }
        })?;
        row.wrapped = flags & WRAPPED != 0;
        Ok(row)
    }

    /// Checks the byte form of a row that stands alone.
    pub(crate) fn check(bytes: &[u8]) -> Result<(), Malformed> {
        read(bytes, None, MAX_COLS.into(), |_, _| {}).map(drop)
    }
}

/// The tables of a canvas that the numbers in its cells are about.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) clusters: &'a Clusters,
    pub(crate) extras: &'a Extras,
}

/// How cells look, in the numbers of the byte form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    pub(crate) attributes: u16,
    pub(crate) fg: u32,
    pub(crate) bg: u32,
    /// Colour of the underline.
    pub(crate) underline: u32,
    /// 0 for none, or which of the links, counted from 1.
    pub(crate) link: u16,
}

/// The links that rows name, in the order in which they are named first.
pub(crate) struct Links<'a> {
    names: Names<'a>,
    links: Vec<&'a str>,
    /// By the number of the extra: which of the links, counted from 1; 0 for none yet.
    numbers: Vec<u16>,
    /// Bytes that more links may take.
    room: usize,
}

impl<'a> Links<'a> {
    pub(crate) fn new(names: Names<'a>, room: usize) -> Self {
        Self { names, links: Vec::new(), numbers: Vec::new(), room }
    }

    fn number(&mut self, extra: u16, link: &'a str) -> u16 {
        let index = usize::from(extra);
        if self.numbers.len() <= index {
            self.numbers.resize(index + 1, 0);
        }
        // Behind a length of two bytes at most.
        let taken = link.len() + 2;
        if self.numbers[index] == 0 && !link.is_empty() && taken <= self.room {
            self.room -= taken;
            self.links.push(link);
            self.numbers[index] = self.links.len() as u16;
        }
        self.numbers[index]
    }

    #[inline(always)] // Written to memory field by field and read back as a whole it would take as long as the rest.
    pub(crate) fn look(&mut self, pen: Pen) -> Look {
        let Pen { fg, bg, attributes, extra } = pen;
        let names = self.names;
        let (underline, link) = match names.extras.get(extra) {
            Some(extra_value) => (extra_value.underline, self.number(extra, &extra_value.link)),
            None => (DEFAULT, 0),
        };
        Look { attributes, fg, bg, underline, link }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.varint(self.links.len() as u64);
        self.links.iter().for_each(|link| out.bytes(link.as_bytes()));
    }
}

/// Reads links: text without controls, each of at most as many bytes as a link may have.
pub(crate) fn read_links<'a>(input: &mut Reader<'a>) -> Result<Vec<&'a str>, Malformed> {
    let count = input.count(MAX_EXTRAS)?;
    let mut links = Vec::new();
    for _ in 0..count {
        let link = input.text(MAX_LINK)?;
        if crate::extras::address(link).is_none() {
            return Err(Malformed);
        }
        links.push(link);
    }
    Ok(links)
}

/// Writes the byte form of a row that stands alone.
pub(crate) fn encode_alone(cells: &[Cell], wrapped: bool, names: Names<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut links = Links::new(names, MAX_ROW_LINKS);
    encode(cells, if wrapped { WRAPPED } else { 0 }, &mut links, out);
    if !links.links.is_empty() {
        let mut head = Writer::default();
        links.encode(&mut head);
        out[start] |= OWN_LINKS;
        out.splice(start + 1..start + 1, head.0);
    }
}

/// Writes cells in the byte form, of which blank ones at the end are left out. Their links are for the caller to write.
pub(crate) fn encode(cells: &[Cell], flags: u8, links: &mut Links<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer(std::mem::take(out));
    writer.u8(flags);
    let used = cells.iter().rposition(|cell| *cell != Cell::BLANK).map_or(0, |last| last + 1);
    let mut row = RowWriter {
        out: writer,
        links,
        pen: Pen::default(),
        look: Look::default(),
        known: [Pen::default(); MAX_KNOWN],
        introduced: 0,
        wide: false,
    };
    let mut rest = &cells[..used];
    while !rest.is_empty() {
        rest = row.some(rest);
    }
    *out = row.out.0;
}

struct RowWriter<'w, 'a> {
    out: Writer,
    links: &'w mut Links<'a>,
    pen: Pen,
    look: Look,
    /// The styles that have been introduced, so many.
    known: [Pen; MAX_KNOWN],
    introduced: usize,
    wide: bool,
}

impl RowWriter<'_, '_> {
    /// Writes some of the cells, which begin with a whole character, and gives the rest.
    fn some<'c>(&mut self, cells: &'c [Cell]) -> &'c [Cell] {
        let [first, ..] = cells else { return cells };
        if first.pen != self.pen {
            if let Some(length) = self.changing(cells) {
                let (now, rest) = cells.split_at(length);
                self.write_changing(now);
                return rest;
            }
            self.set_pen(first.pen);
        }
        let wide = first.glyph.is_wide();
        if wide != self.wide {
            self.out.u8(if wide { WIDE } else { NARROW });
            self.wide = wide;
        }
        if !wide && let Some(length) = self.plain(cells) {
            return &cells[length..];
        }
        let width = if wide { 2 } else { 1 };
        let same = cells.chunks_exact(width).take_while(|chunk| chunk[0] == *first).count();
        if first.glyph == cell::Glyph::BLANK && same > 2 {
            self.out.u8(BLANKS);
            self.out.varint(same as u64);
            return &cells[same..];
        }
        self.glyph(first);
        if same > 4 {
            self.out.u8(REPEAT);
            self.out.varint(same as u64 - 1);
            return &cells[same * width..];
        }
        &cells[width..]
    }

    /// Writes characters of one byte and the same style, up to where one is repeated; nothing if there are none.
    fn plain(&mut self, cells: &[Cell]) -> Option<usize> {
        // Counted first and written then: a row of a flood is encoded once and seldom read.
        let pen = self.pen;
        let (mut length, mut last, mut same) = (0, cell::Glyph::TAIL, 0);
        for cell in cells {
            if cell.pen != pen || cell.glyph.as_ascii().is_none() {
                break;
            }
            length += 1;
            same = if cell.glyph == last { same + 1 } else { 1 };
            last = cell.glyph;
            if same == if last == cell::Glyph::BLANK { 3 } else { 5 } {
                length -= same;
                break;
            }
        }
        self.out.0.extend(cells[..length].iter().map(|cell| cell.glyph.as_ascii().unwrap_or(b' ')));
        (length > 0).then_some(length)
    }

    fn glyph(&mut self, cell: &Cell) {
        match cell.glyph.kind() {
            Kind::Character(ch) => self.out.0.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes()),
            Kind::Cluster(id) => {
                self.out.u8(CLUSTER);
                self.out.bytes(self.links.names.clusters.get(id).as_bytes());
            }
            // INVARIANT of lines: no tail without its head, which is written for both.
            Kind::Tail => self.out.u8(b' '),
        }
    }

    fn set_pen(&mut self, pen: Pen) {
        let look = self.links.look(pen);
        let old = std::mem::replace(&mut self.look, look);
        self.pen = pen;
        if look == old {
            // Pens differ in a link that had no room.
            return;
        }
        if look == Look::default() {
            return self.out.u8(DEFAULT_STYLE);
        }
        if let Some(index) = self.known[..self.introduced].iter().position(|known| *known == pen) {
            return self.out.u8(KNOWN + index as u8);
        }
        if let Some(place) = self.known.get_mut(self.introduced) {
            *place = pen;
            self.introduced += 1;
        }
        if (look.underline, look.link) != (old.underline, old.link) {
            self.out.u8(EXTRA);
            encode_color(look.underline, &mut self.out);
            self.out.varint(look.link.into());
        }
        // One of these has changed, or the extra.
        let changed = [look.fg != old.fg, look.bg != old.bg, look.attributes != old.attributes];
        let bits = changed.iter().enumerate().fold(0, |bits, (bit, set)| bits | u8::from(*set) << bit);
        if bits == 0 {
            return;
        }
        self.out.u8(STYLE | bits);
        if changed[2] {
            self.out.varint(look.attributes.into());
        }
        if changed[0] {
            encode_color(look.fg, &mut self.out);
        }
        if changed[1] {
            encode_color(look.bg, &mut self.out);
        }
    }

    /// How many cells from here on have colours that change often and little, if that is worth it.
    fn changing(&self, cells: &[Cell]) -> Option<usize> {
        let mut old = self.pen;
        let (mut length, mut changes) = (0, 0);
        for (at, cell) in cells.iter().enumerate() {
            let Pen { fg, bg, attributes, extra } = cell.pen;
            let comparable = |from: u32, to: u32| from == to || (is_rgb(from) && is_rgb(to));
            let alike = (attributes, extra) == (old.attributes, old.extra);
            let narrow = !cell.glyph.is_wide() && !cell.glyph.is_tail();
            if !(narrow && alike && comparable(old.fg, fg) && comparable(old.bg, bg)) {
                break;
            }
            if cell.pen != old {
                // A larger step costs as much as a style; it is taken in the midst of others.
                let small =
                    [(old.fg, fg), (old.bg, bg)].iter().all(|(from, to)| !is_rgb(*from) || steps::is_small(*from, *to));
                let known = self.known[..self.introduced].contains(&cell.pen);
                if known || !(small || at == length) {
                    break;
                }
                (length, changes) = (at + 1, changes + 1);
            } else if at - length >= MAX_PLATEAU {
                break;
            }
            old = cell.pen;
        }
        (changes >= MIN_CHANGES).then_some(length)
    }

    fn write_changing(&mut self, cells: &[Cell]) {
        let [first, ..] = cells else { return };
        if self.wide {
            self.out.u8(NARROW);
            self.wide = false;
        }
        let differ = |color: fn(&Pen) -> u32| cells.iter().any(|cell| color(&cell.pen) != color(&self.pen));
        let (fg, bg) = (differ(|pen| pen.fg), differ(|pen| pen.bg));
        self.out.u8(CHANGING | u8::from(fg) | u8::from(bg) << 1);
        let same = cells.iter().all(|cell| cell.glyph == first.glyph);
        self.out.varint(cells.len() as u64 * 2 + u64::from(same));
        cells[..if same { 1 } else { cells.len() }].iter().for_each(|cell| self.glyph(cell));
        if fg {
            steps::write(self.pen.fg, cells.iter().map(|cell| cell.pen.fg), &mut self.out);
        }
        if bg {
            steps::write(self.pen.bg, cells.iter().map(|cell| cell.pen.bg), &mut self.out);
        }
        self.pen = cells[cells.len() - 1].pen;
        (self.look.fg, self.look.bg) = (self.pen.fg, self.pen.bg);
    }
}

/// Fewer changes are as small as styles.
const MIN_CHANGES: usize = 4;
/// Cells of the same colours in the midst of changes.
const MAX_PLATEAU: usize = 3;

fn is_rgb(color: u32) -> bool {
    color & 0xff << 24 == RGB
}

/// Cells that look alike.
pub(crate) struct Piece<'a> {
    /// The text of `cells` cells: a character each, or one character with its marks.
    pub(crate) text: &'a str,
    pub(crate) cells: usize,
    /// How often the text stands there.
    pub(crate) times: usize,
    pub(crate) wide: bool,
    pub(crate) look: &'a Look,
}

impl Piece<'_> {
    fn columns(&self) -> usize {
        self.cells * self.times * if self.wide { 2 } else { 1 }
    }
}

/// Reads the byte form of a row of at most `cols` columns, whose links are `links`, or its own. Gives its pieces and links to `take`, and
/// the flags.
pub(crate) fn read<'a>(
    bytes: &'a [u8],
    links: Option<&[&'a str]>,
    cols: usize,
    mut take: impl FnMut(Piece<'_>, &[&'a str]),
) -> Result<u8, Malformed> {
    if bytes.len() > MAX_ROW_BYTES {
        return Err(Malformed);
    }
    let mut input = Reader(bytes);
    let flags = input.u8()?;
    let own;
    let links = match (flags & !WRAPPED, links) {
        (0, None) => &[],
        (0 | SHORT, Some(links)) => links,
        (OWN_LINKS, None) => {
            let before = input.0.len();
            own = read_links(&mut input)?;
            // Behind a count, of two bytes at most.
            if before - input.0.len() > 2 + MAX_ROW_LINKS {
                return Err(Malformed);
            }
            &own[..]
        }
        _ => return Err(Malformed),
    };
    let mut row = RowReader {
        input,
        look: Look::default(),
        introduces: false,
        known: Vec::new(),
        wide: false,
        last: None,
        links: links.len(),
        room: cols,
    };
    while !row.input.is_empty() {
        row.some(&mut |piece| take(piece, links))?;
    }
    Ok(flags)
}

struct RowReader<'a> {
    input: Reader<'a>,
    look: Look,
    /// The style has changed in a way that gives it a number.
    introduces: bool,
    known: Vec<Look>,
    wide: bool,
    /// The character that came last, with its marks.
    last: Option<&'a str>,
    links: usize,
    /// Columns that are left.
    room: usize,
}

impl<'a> RowReader<'a> {
    fn some(&mut self, take: &mut impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
        let rest = self.input.0;
        let text = rest.iter().position(|byte| *byte < 0x20 || *byte == CLUSTER).unwrap_or(rest.len());
        if text > 0 {
            let text = characters(self.input.take(text)?)?;
            self.last = text.char_indices().next_back().and_then(|(at, _)| text.get(at..));
            return self.give(text, text.chars().count(), 1, take);
        }
        match self.input.u8()? {
            DEFAULT_STYLE => {
                self.introduce();
                self.look = Look::default();
            }
            BLANKS => {
                let count = self.input.count(self.room)?;
                self.last = Some(" ");
                self.give(" ", 1, count, take)?;
            }
            REPEAT => {
                let count = self.input.count(self.room)?;
                let last = self.last.ok_or(Malformed)?;
                self.give(last, 1, count, take)?;
            }
            width @ (WIDE | NARROW) => self.wide = width == WIDE,
            CLUSTER => {
                let text = self.cluster()?;
                self.last = Some(text);
                self.give(text, 1, 1, take)?;
            }
            EXTRA => {
                self.look.underline = read_color(&mut self.input)?;
                self.look.link = self.input.count(self.links)? as u16;
                self.introduces = true;
            }
            bits @ 0x05..EXTRA => self.changing(bits & 1 != 0, bits & 2 != 0, take)?,
            bits @ 0x09..KNOWN => {
                if bits & 4 != 0 {
                    self.look.attributes = read_attributes(&mut self.input)?;
                }
                if bits & 1 != 0 {
                    self.look.fg = read_color(&mut self.input)?;
                }
                if bits & 2 != 0 {
                    self.look.bg = read_color(&mut self.input)?;
                }
                self.introduces = true;
            }
            known => {
                self.introduce();
                self.look = *self.known.get(usize::from(known - KNOWN)).ok_or(Malformed)?;
            }
        }
        Ok(())
    }

    /// Gives the style a number if it has come to be in a way that does.
    fn introduce(&mut self) {
        if std::mem::take(&mut self.introduces) && self.known.len() < MAX_KNOWN {
            self.known.push(self.look);
        }
    }

    fn give(
        &mut self,
        text: &str,
        cells: usize,
        times: usize,
        take: &mut impl FnMut(Piece<'_>),
    ) -> Result<(), Malformed> {
        self.introduce();
        let piece = Piece { text, cells, times, wide: self.wide, look: &self.look };
        // Neither factor is more than there is room for, or bytes in the row.
        self.room = self.room.checked_sub(piece.columns()).filter(|_| times > 0).ok_or(Malformed)?;
        take(piece);
        Ok(())
    }

    fn cluster(&mut self) -> Result<&'a str, Malformed> {
        characters(self.input.bytes(MAX_CLUSTER)?)
            .and_then(|text| if text.is_empty() { Err(Malformed) } else { Ok(text) })
    }

    fn changing(&mut self, fg: bool, bg: bool, take: &mut impl FnMut(Piece<'_>)) -> Result<(), Malformed> {
        self.introduce();
        let head = self.input.count(self.room * 2 + 1)?;
        let (count, same) = (head / 2, head % 2 == 1);
        let rgb = |changes: bool, color: u32| !changes || is_rgb(color);
        if count == 0 || count > self.room || self.wide || !rgb(fg, self.look.fg) || !rgb(bg, self.look.bg) {
            return Err(Malformed);
        }
        let mut texts = Vec::new();
        for _ in 0..if same { 1 } else { count } {
            texts.push(self.one_character()?);
        }
        let mut colors = Vec::new();
        for (changes, color) in [(fg, self.look.fg), (bg, self.look.bg)] {
            if changes {
                steps::read(color, count, &mut self.input, &mut colors)?;
            } else {
                colors.resize(colors.len() + count, color);
            }
        }
        let (front, behind) = colors.split_at(count);
        for (at, (fg, bg)) in front.iter().zip(behind).enumerate() {
            (self.look.fg, self.look.bg) = (*fg, *bg);
            let text = texts[if same { 0 } else { at }];
            self.last = Some(text);
            self.give(text, 1, 1, take)?;
        }
        Ok(())
    }

    fn one_character(&mut self) -> Result<&'a str, Malformed> {
        let first = *self.input.0.first().ok_or(Malformed)?;
        if first == CLUSTER {
            self.input.u8()?;
            return self.cluster();
        }
        let length = match first {
            0x20..0x7f => 1,
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            _ => return Err(Malformed),
        };
        characters(self.input.take(length)?)
    }
}

/// Writes a style.
pub(crate) fn encode_look(look: &Look, out: &mut Writer) {
    out.varint(look.attributes.into());
    [look.fg, look.bg, look.underline].into_iter().for_each(|color| encode_color(color, out));
    out.varint(look.link.into());
}

/// Reads a style with one of so many links.
pub(crate) fn read_look(links: &[&str], input: &mut Reader<'_>) -> Result<Look, Malformed> {
    Ok(Look {
        attributes: read_attributes(input)?,
        fg: read_color(input)?,
        bg: read_color(input)?,
        underline: read_color(input)?,
        link: input.count(links.len())? as u16,
    })
}

fn read_attributes(input: &mut Reader<'_>) -> Result<u16, Malformed> {
    let attributes = input.count(usize::from(cell::OVERLINE) * 2 - 1)? as u16;
    let underline = (attributes & cell::UNDERLINE) >> cell::UNDERLINE_SHIFT;
    if underline > cell::DASHED { Err(Malformed) } else { Ok(attributes) }
}

fn encode_color(color: u32, out: &mut Writer) {
    let [kind, r, g, b] = color.to_be_bytes();
    match (u32::from(kind) << 24, b) {
        (INDEXED, 0..16) => out.u8(3 + b),
        (INDEXED, _) => out.0.extend_from_slice(&[1, b]),
        (RGB, _) => out.0.extend_from_slice(&[2, r, g, b]),
        _ => out.u8(0),
    }
}

fn read_color(input: &mut Reader<'_>) -> Result<u32, Malformed> {
    Ok(match input.u8()? {
        0 => DEFAULT,
        1 => INDEXED | u32::from(input.u8()?),
        2 => RGB | u32::from_be_bytes([0, input.u8()?, input.u8()?, input.u8()?]),
        index @ 3..19 => INDEXED | u32::from(index - 3),
        _ => return Err(Malformed),
    })
}

/// Text without controls.
fn characters(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    if text.chars().any(char::is_control) { Err(Malformed) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::Canvas;
    use crate::cell::{BOLD, Glyph, INVERSE};
    use crate::extras::Extra;

    const PLAIN: Pen = Pen { fg: 0, bg: 0, attributes: 0, extra: 0 };

    /// Cells of a text: characters, each with its width.
    fn cells(text: &str, wide: bool, pen: Pen) -> Vec<Cell> {
        let tail = Cell { glyph: Glyph::TAIL, pen };
        let cell = |ch| [Cell { glyph: Glyph::new(ch, wide), pen }, tail].into_iter().take(if wide { 2 } else { 1 });
        text.chars().flat_map(cell).collect()
    }

    fn encoded(canvas: &Canvas, cells: &[Cell]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_alone(cells, true, canvas.names(), &mut out);
        assert!(out.len() <= MAX_ROW_BYTES);
        out
    }

    fn row(cells: &[Cell]) -> (Row, Vec<u8>) {
        let bytes = encoded(&Canvas::new(2, 1, 0), cells);
        (Row::decode(&bytes).expect("our own bytes"), bytes)
    }

    fn run(text: &str, style: Style, columns: u16, wide: bool) -> Run {
        Run { text: text.into(), style, columns, wide, link: None }
    }

    #[test]
    fn runs_split_at_style_and_width_and_blanks_at_the_end_vanish() {
        let red = Pen { attributes: BOLD | INVERSE, fg: INDEXED | 1, bg: RGB | 0x01_0203, extra: 0 };
        let line =
            [cells("a", false, PLAIN), cells("b", false, red), cells("界界", true, red), cells("c ", false, PLAIN)];
        let (row, bytes) = row(&line.concat());
        let plain = Style::default();
        let style = Style { fg: Color::Indexed(1), bg: Color::Rgb(1, 2, 3), bold: true, inverse: true, ..plain };
        let expected = [
            run("a", plain, 1, false),
            run("b", style, 1, false),
            run("界界", style, 4, true),
            run("c", plain, 1, false),
        ];
        assert_eq!(row.runs, expected);
        assert_eq!((row.text().as_str(), row.columns(), row.wrapped), ("ab界界c", 7, true));
        let text = [&[1, b'a', 0x0f, 9, 4, 2, 1, 2, 3, b'b', 3][..], "界界".as_bytes(), &[0, 4, b'c']].concat();
        assert_eq!(bytes, text);
    }

    #[test]
    fn what_is_repeated_takes_a_few_bytes() {
        let blue = Pen { bg: INDEXED | 4, ..PLAIN };
        for (cells, bytes) in [
            (cells(&" ".repeat(80), false, PLAIN), &[1][..]),
            (cells(&" ".repeat(80), false, blue), &[1, 0x0a, 7, 1, 80]),
            (cells("a   b  c", false, PLAIN), &[1, b'a', 1, 3, b'b', b' ', b' ', b'c']),
            (cells(&format!("x{}", "-".repeat(79)), false, PLAIN), &[1, b'x', b'-', 2, 78]),
            (cells("----", false, PLAIN), &[1, b'-', b'-', b'-', b'-']),
            (cells("日日日日日", true, PLAIN), &[1, 3, 0xe6, 0x97, 0xa5, 2, 4]),
        ] {
            let (row, made) = row(&cells);
            assert_eq!(made, bytes);
            let text: String =
                cells.iter().filter_map(|cell| Clusters::default().text(cell.glyph, str::to_owned)).collect();
            assert_eq!(row.text(), if made.len() == 1 { String::new() } else { text });
        }
    }

    #[test]
    fn a_style_that_comes_back_takes_one_byte() {
        let pens = [1, 2, 3].map(|index| Pen { fg: RGB | index << 20, ..PLAIN });
        let line: Vec<Cell> = (0..30).flat_map(|n| cells("xyz", false, pens[n % 3])).collect();
        let (row, bytes) = row(&line);
        assert_eq!(row.runs.len(), 30);
        assert_eq!(bytes.len(), 1 + 3 * 5 + 27 + 90);
    }

    #[test]
    fn colours_that_change_little_from_cell_to_cell_take_a_byte_or_less() {
        let pen = |n: u32| Pen { fg: RGB | ((n * n / 40) & 0xff) << 16 | n, bg: RGB | (n / 2) << 8, ..PLAIN };
        let line = |text: fn(u32) -> char| -> Vec<Cell> {
            (0..200).flat_map(|n| cells(&text(n).to_string(), false, pen(n))).collect()
        };
        for (line, most) in [(line(|_| '▀'), 420), (line(|n| char::from(b'a' + (n % 26) as u8)), 620)] {
            let (row, bytes) = row(&line);
            assert!(bytes.len() < most, "{}", bytes.len());
            assert_eq!(row.runs.len(), 200);
            for (n, run) in (0..).zip(&row.runs) {
                assert_eq!((run.style.fg.to_cell(), run.style.bg.to_cell()), (pen(n).fg, pen(n).bg));
            }
        }
    }

    #[test]
    fn links_and_coloured_underlines_come_back_and_links_have_a_bound() {
        let mut canvas = Canvas::new(2, 1, 0);
        let mut pen = |underline: u32, link: &str| {
            let extra = canvas.extras.intern(&Extra { underline, link: link.into() }).expect("room");
            Pen { extra, attributes: 3 << cell::UNDERLINE_SHIFT, ..PLAIN }
        };
        let pens =
            [pen(INDEXED | 9, "https://a"), pen(0, "https://b"), pen(RGB | 5, ""), pen(INDEXED | 9, "https://a")];
        let line: Vec<Cell> = pens.iter().flat_map(|pen| cells("x", false, *pen)).collect();
        let row = Row::decode(&encoded(&canvas, &line)).expect("our own bytes");
        let told = row.runs.iter().map(|run| (run.style.underline_color, run.link.as_deref())).collect::<Vec<_>>();
        let (nine, five) = (Color::Indexed(9), Color::Rgb(0, 0, 5));
        assert_eq!(
            told,
            [(nine, Some("https://a")), (Color::Default, Some("https://b")), (five, None), (nine, Some("https://a"))]
        );
        assert!(row.runs.iter().all(|run| run.style.underline == Underline::Curly));

        let mut pen = |n: usize| {
            let link = format!("https://{n:0>1000}").into();
            Pen { extra: canvas.extras.intern(&Extra { underline: 0, link }).expect("room"), ..PLAIN }
        };
        let line: Vec<Cell> = (0..20).map(&mut pen).flat_map(|pen| cells("x", false, pen)).collect();
        let row = Row::decode(&encoded(&canvas, &line)).expect("our own bytes");
        assert_eq!(row.text(), "x".repeat(20), "the text stays when its link goes");
        assert_eq!(row.runs.iter().filter(|run| run.link.is_some()).count(), MAX_ROW_LINKS / 1010);
    }

    /// Cells as programs in full colour make them: of a few styles, or of colours that move, jump and rest.
    fn lively(seed: u32) -> Vec<Cell> {
        let mut state = seed;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut pen = PLAIN;
        let mut line = Vec::new();
        while line.len() < 100 {
            let size = [1, 3, 20, 256][random(4) as usize];
            let mut color = |old: u32| match random(6) {
                0 => INDEXED | random(256),
                1 => DEFAULT,
                2 => old,
                _ => RGB | old.wrapping_add(random(size) << 16 | random(size) << 8 | random(size)) & 0xff_ffff,
            };
            let (fg, bg) = (color(pen.fg), color(pen.bg));
            pen = match random(3) {
                0 => Pen { fg, ..pen },
                1 => Pen { fg, bg, ..pen },
                _ => Pen { attributes: random(8) as u16, ..pen },
            };
            let text = ["x", "▀", "  ", "日", "-----", "ab"][random(6) as usize];
            for _ in 0..random(4) {
                pen.fg = if is_rgb(pen.fg) { RGB | pen.fg.wrapping_add(random(size)) & 0xff_ffff } else { pen.fg };
                line.extend(cells(text, text == "日", pen));
            }
        }
        line
    }

    #[test]
    fn whatever_cells_there_are_they_come_back() {
        for seed in 0..5_000 {
            let line = lively(seed);
            let (row, _) = row(&line);
            let mut shown = row.runs.iter().flat_map(|run| {
                run.text.chars().flat_map(move |ch| {
                    let width = if run.wide { 2 } else { 1 };
                    std::iter::repeat_n((ch, run.style), width)
                })
            });
            let used = line.iter().rposition(|cell| *cell != Cell::BLANK).map_or(0, |last| last + 1);
            for (at, cell) in line[..used].iter().enumerate() {
                let (ch, style) = shown.next().expect("a cell");
                let colors = (style.fg.to_cell(), style.bg.to_cell(), style.attributes());
                assert_eq!(colors, (cell.pen.fg, cell.pen.bg, cell.pen.attributes), "row {seed}, column {at}");
                let is_tail = cell.glyph.is_tail();
                assert!(is_tail || Clusters::default().text(cell.glyph, |text| text == ch.to_string()) == Some(true));
            }
            assert_eq!(shown.next(), None);
        }
    }

    #[test]
    fn hostile_rows_are_refused() {
        let too_wide = [&[0][..], &[b'a'; 1001]].concat();
        for bytes in [
            &[][..],
            &[4],
            &[8],
            &[0, 0x1b],
            &[0, 0xc2, 0x9b],
            &[0, 0xff],
            &too_wide,
            &[0, 1, 0],
            &[0, 1, 0xe9, 0x07],
            &[0, 2, 5],
            &[0, b'a', 2, 0xe8, 0x07],
            &[0, 5, 3, b'x', 239],
            &[0, 9, 2, 1, 2, 3, 5, 3, b'x'],
            &[0, 9, 2, 1, 2, 3, 5, 0],
            &[0, 3, 9, 2, 1, 2, 3, 5, 3, b'x', 239],
            &[0, 8, 0, 1],
            &[0, 9, 19],
            &[0, 0x0c, 0x60],
            &[0, 0x0c, 0x80, 0x10],
            &[0, 0x10],
            &[0, 0x7f, 0],
            &[0, 0x7f, 33],
            &[0, 0x7f, 1, 0x1b],
            &[2, 1, 4, b'f', b'i', b'l', b'e'],
            &[2, 0xff, 0xff, 0x03],
        ] {
            assert_eq!(Row::decode(bytes), Err(Malformed), "{bytes:x?}");
            assert_eq!(Row::check(bytes), Err(Malformed), "{bytes:x?}");
        }
    }
}
