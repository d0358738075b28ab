//! What an engine draws with and where it would scroll, known from the text that it is given.
//!
//! Programs are written for terminals whose erased cells take the background of the pen and nothing else (`bce` in terminfo). The engine fills
//! them with the whole pen: after `ESC[7m` and a new line at the bottom the rest of that row would be a bar. So it is given a pen of only a
//! background for everything that makes blanks, and its own one back afterwards; for that somebody has to know it.

use super::{INDEXED, Pen, RGB};
use crate::row::{BOLD, FAINT};
use crate::sgr::{self, ATTRIBUTES};

impl Pen {
    /// The SGR sequence that sets this pen, whatever it was before.
    fn sgr(self) -> String {
        let mut sgr = String::new();
        sgr::set(self, &mut sgr);
        sgr
    }

    /// The one for erased cells.
    fn erasing(self) -> Self {
        Self { bg: self.bg, ..Self::default() }
    }

    /// Applies the parameters of an SGR sequence in the spelling of `sgr`, or in that of the engine's own dumps, which has colons within
    /// colours.
    fn apply(&mut self, params: &[u8]) {
        let mut numbers = params.split(|byte| matches!(byte, b';' | b':')).map(number);
        while let Some(operation) = numbers.next() {
            match operation {
                0 => *self = Self::default(),
                30..=37 => self.fg = INDEXED | (operation - 30),
                40..=47 => self.bg = INDEXED | (operation - 40),
                90..=97 => self.fg = INDEXED | (operation - 82),
                100..=107 => self.bg = INDEXED | (operation - 92),
                39 => self.fg = 0,
                49 => self.bg = 0,
                38 | 48 => {
                    let mut part = || numbers.next().unwrap_or(0) & 0xff;
                    let color = match part() {
                        2 => RGB | part() << 16 | part() << 8 | part(),
                        _ => INDEXED | part(),
                    };
                    *if operation == 38 { &mut self.fg } else { &mut self.bg } = color;
                }
                _ => self.attribute(operation),
            }
        }
    }

    fn attribute(&mut self, operation: u32) {
        // The engine holds one of these, the later; 22 ends both.
        if matches!(operation, 1 | 2 | 22) {
            self.attributes &= !(BOLD | FAINT);
        }
        let of =
            |operation| ATTRIBUTES.iter().find(|(_, sets)| u32::from(*sets) == operation).map_or(0, |(bit, _)| *bit);
        self.attributes |= of(operation);
        self.attributes &= !of(operation.wrapping_sub(20));
    }
}

/// A parameter, which is digits; one that is left out is 0.
pub(super) fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0_u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit & 0x0f)))
}

/// What DECSC saves of this.
#[derive(Debug, Clone, Copy)]
struct Saved {
    pen: Pen,
    autowrap: bool,
}

const NOTHING_SAVED: Saved = Saved { pen: Pen { attributes: 0, fg: 0, bg: 0 }, autowrap: true };

/// Follows the text of an engine.
#[derive(Debug)]
pub(super) struct Follower {
    pen: Pen,
    autowrap: bool,
    alternate: bool,
    saved: [Saved; 2],
    /// The last row of the scroll region, from 0.
    bottom: u16,
}

impl Follower {
    pub(super) fn new(rows: u16) -> Self {
        Self {
            pen: Pen::default(),
            autowrap: true,
            alternate: false,
            saved: [NOTHING_SAVED; 2],
            bottom: rows.saturating_sub(1),
        }
    }

    /// The number of rows has changed.
    pub(super) fn resized(&mut self, rows: u16) {
        self.bottom = rows.saturating_sub(1);
    }

    /// Whether the pen is another one than that for erased cells.
    pub(super) fn changes_to_erase(&self) -> bool {
        self.pen != self.pen.erasing()
    }

    /// The sequence that changes to the pen for erased cells.
    pub(super) fn erasing_pen(&self) -> String {
        self.pen.erasing().sgr()
    }

    /// Whether a character that does not fit into a row scrolls, in this row.
    pub(super) fn wraps_at_bottom(&self, row: u16) -> bool {
        self.autowrap && row == self.bottom
    }

    /// The sequence that sets the pen.
    pub(super) fn pen(&self) -> String {
        self.pen.sgr()
    }

    /// Takes note of a sequence that the engine gets.
    pub(super) fn sequence(&mut self, sequence: &str, rows: u16) {
        match sequence.as_bytes() {
            [0x1b, b'7'] | b"\x1b[s" => self.save(),
            [0x1b, b'8'] | b"\x1b[u" => self.restore(),
            [0x1b, b'c'] => *self = Self::new(rows),
            b"\x1b[!p" => {
                self.pen = Pen::default();
                self.saved[usize::from(self.alternate)] = NOTHING_SAVED;
                self.bottom = rows.saturating_sub(1);
            }
            [0x1b, b'[', b'?', mode @ .., end @ (b'h' | b'l')] => self.mode(number(mode), *end == b'h'),
            [0x1b, b'[', params @ .., b'm'] => self.pen.apply(params),
            [0x1b, b'[', params @ .., b'r'] => self.margins(params, u32::from(rows)),
            _ => {}
        }
    }

    fn mode(&mut self, mode: u32, set: bool) {
        let saves = matches!(mode, 1048 | 1049);
        if saves && set {
            self.save();
        }
        match mode {
            7 => self.autowrap = set,
            1047 | 1049 => self.alternate = set,
            _ => {}
        }
        if saves && !set {
            self.restore();
        }
    }

    fn margins(&mut self, params: &[u8], rows: u32) {
        let mut numbers = params.split(|byte| *byte == b';').map(number);
        let top = numbers.next().unwrap_or(0).max(1);
        let bottom = numbers.next().filter(|bottom| *bottom != 0).unwrap_or(rows);
        if top < bottom && bottom <= rows {
            self.bottom = (bottom - 1) as u16;
        }
    }

    fn save(&mut self) {
        self.saved[usize::from(self.alternate)] = Saved { pen: self.pen, autowrap: self.autowrap };
    }

    fn restore(&mut self) {
        let saved = self.saved[usize::from(self.alternate)];
        (self.pen, self.autowrap) = (saved.pen, saved.autowrap);
    }
}

/// Whether a sequence makes blank cells.
pub(super) fn makes_blanks(sequence: &str) -> bool {
    match sequence.as_bytes() {
        b"\x1b[?1047h" | [0x1b, b'D' | b'E' | b'M'] => true,
        [0x1b, b'[', .., last] => b"JKX@PLMST".contains(last),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(sequences: &[&str]) -> Follower {
        let mut follower = Follower::new(24);
        sequences.iter().for_each(|sequence| follower.sequence(sequence, 24));
        follower
    }

    #[test]
    fn the_pen_is_what_the_sequences_made_of_it() {
        for (sequences, pen, erasing) in [
            (&["\x1b[1;31;44m"][..], "\x1b[0;1;31;44m", "\x1b[0;44m"),
            (&["\x1b[3;4;5;7;9m", "\x1b[24;2m"], "\x1b[0;2;3;5;7;9m", "\x1b[0m"),
            (&["\x1b[38;2;1;2;3;48;5;200;4m"], "\x1b[0;4;38;2;1;2;3;48;5;200m", "\x1b[0;48;5;200m"),
            (&["\x1b[38:2:1:2:3;48:5:200;4m"], "\x1b[0;4;38;2;1;2;3;48;5;200m", "\x1b[0;48;5;200m"),
            (&["\x1b[97;107m", "\x1b[m", "\x1b[7m"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b7", "\x1b[0;31m", "\x1b8"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b[?1049h", "\x1b[31m", "\x1b[?1049l"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b[s", "\x1b[?1047h", "\x1b[31m", "\x1b[u", "\x1b[4m"], "\x1b[0;4m", "\x1b[0m"),
        ] {
            let follower = follow(sequences);
            assert_eq!(follower.pen(), pen, "{sequences:?}");
            assert!(follower.changes_to_erase());
            assert_eq!(follower.erasing_pen(), erasing);
        }
        for plain in
            [&["\x1b[44m"][..], &["\x1b[31;7m", "\x1b[!p"], &["\x1b[31;7m", "\x1bc"], &["\x1b[1;4m", "\x1b[22;24m"]]
        {
            assert!(!follow(plain).changes_to_erase(), "{plain:?}");
        }
    }

    #[test]
    fn the_bottom_is_where_the_margins_put_it() {
        for (sequences, bottom) in [
            (&["\x1b[2;5r"][..], 4),
            (&["\x1b[2;5r", "\x1b[r"], 23),
            (&["\x1b[2;5r", "\x1b[9;3r"], 4),
            (&["\x1b[0;7r", "\x1b[2;99r"], 6),
            (&["\x1b[2;5r", "\x1b[!p"], 23),
        ] {
            let follower = follow(sequences);
            assert!(follower.wraps_at_bottom(bottom) && !follower.wraps_at_bottom(bottom - 1), "{sequences:?}");
        }
        assert!(!follow(&["\x1b[?7l"]).wraps_at_bottom(23));
        assert!(follow(&["\x1b[?7l", "\x1b8"]).wraps_at_bottom(23));
    }
}
