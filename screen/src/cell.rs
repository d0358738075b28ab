//! What stands in a cell of the screen: 16 bytes, cheap to copy and to compare, for output scrolls by at millions of cells a second.

/// A colour is [`DEFAULT`], [`INDEXED`] with the index, or [`RGB`] with 24 bits.
pub(crate) const DEFAULT: u32 = 0;
pub(crate) const INDEXED: u32 = 1 << 24;
pub(crate) const RGB: u32 = 2 << 24;

/// The attributes of a pen. The seven that are used most take one byte in the byte form of rows.
pub(crate) const BOLD: u16 = 1;
pub(crate) const FAINT: u16 = 1 << 1;
pub(crate) const ITALIC: u16 = 1 << 2;
pub(crate) const INVERSE: u16 = 1 << 3;
/// Three bits: none, single, double, curly, dotted, dashed, as in `SGR 4:n`.
pub(crate) const UNDERLINE: u16 = 7 << UNDERLINE_SHIFT;
pub(crate) const UNDERLINE_SHIFT: u32 = 4;
pub(crate) const STRIKETHROUGH: u16 = 1 << 7;
pub(crate) const BLINK: u16 = 1 << 8;
pub(crate) const CONCEALED: u16 = 1 << 9;
pub(crate) const OVERLINE: u16 = 1 << 10;
/// The number of the last style of underline.
pub(crate) const DASHED: u16 = 5;

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Pen {
    pub(crate) fg: u32,
    pub(crate) bg: u32,
    pub(crate) attributes: u16,
    /// An entry of [`Extras`](crate::extras::Extras); 0 for none.
    pub(crate) extra: u16,
}

impl Pen {
    /// The pen for erased cells: they take the background and nothing else (`bce` in terminfo).
    pub(crate) fn erasing(self) -> Self {
        Self { bg: self.bg, ..Self::default() }
    }

    pub(crate) fn is_default(self) -> bool {
        self == Self::default()
    }
}

/// A character, or the number of a character with marks ([`Clusters`](crate::clusters::Clusters)), and how many columns it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glyph(u32);

const CHARACTER: u32 = (1 << 21) - 1;
const CLUSTER: u32 = 1 << 21;
const WIDE: u32 = 1 << 22;
const TAIL: u32 = 1 << 23;

impl Glyph {
    pub(crate) const BLANK: Self = Self(b' ' as u32);
    /// The second half of a wide character.
    pub(crate) const TAIL: Self = Self(TAIL);

    pub(crate) fn ascii(byte: u8) -> Self {
        Self(u32::from(byte))
    }

    pub(crate) fn new(ch: char, wide: bool) -> Self {
        Self(u32::from(ch)).widened(wide)
    }

    pub(crate) fn cluster(id: u16, wide: bool) -> Self {
        Self(CLUSTER | u32::from(id)).widened(wide)
    }

    fn widened(self, wide: bool) -> Self {
        Self(self.0 | if wide { WIDE } else { 0 })
    }

    /// Whether it takes two columns: this one, and the next with [`Glyph::TAIL`].
    pub(crate) fn is_wide(self) -> bool {
        self.0 & WIDE != 0
    }

    pub(crate) fn is_tail(self) -> bool {
        self.0 & TAIL != 0
    }

    /// A character of one column that takes one byte.
    #[inline]
    pub(crate) fn as_ascii(self) -> Option<u8> {
        (self.0 < 0x80).then_some(self.0 as u8)
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 {
            tail if tail & TAIL != 0 => Kind::Tail,
            cluster if cluster & CLUSTER != 0 => Kind::Cluster(cluster as u16),
            // Made from characters only.
            ch => Kind::Character(char::from_u32(ch & CHARACTER).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
}

/// What a glyph is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Character(char),
    Cluster(u16),
    Tail,
}

/// A column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) glyph: Glyph,
    pub(crate) pen: Pen,
}

impl Cell {
    /// Never written to, or erased with the default background.
    pub(crate) const BLANK: Self =
        Self { glyph: Glyph::BLANK, pen: Pen { fg: DEFAULT, bg: DEFAULT, attributes: 0, extra: 0 } };

    pub(crate) fn blank(pen: Pen) -> Self {
        Self { glyph: Glyph::BLANK, pen }
    }
}
