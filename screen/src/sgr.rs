//! SGR, re-written into the spelling that every engine reads alike.
//!
//! Programs mix three spellings of colours, styled and coloured underlines (`4:3`, `58:2::r:g:b`) and attributes that we
//! do not keep. An engine that skips `58` but reads its arguments as attributes turns an underline colour into blinking.

use std::fmt::Write;

use crate::engine::{INDEXED, Pen, RGB};
use crate::parser::Sequence;
use crate::row::{BLINK, BOLD, FAINT, INVERSE, ITALIC, STRIKETHROUGH, UNDERLINE};

/// The attributes that cells have, and the operation that sets each. It is taken back by the one that is 20 higher; bold by that of faint.
pub(crate) const ATTRIBUTES: [(u8, u16); 7] =
    [(BOLD, 1), (FAINT, 2), (ITALIC, 3), (UNDERLINE, 4), (BLINK, 5), (INVERSE, 7), (STRIKETHROUGH, 9)];

/// A colour takes five parameters, and a sequence is split before it would exceed what engines read (32).
const OPERATIONS_PER_SEQUENCE: usize = 6;

/// Writes the sequence's operations as zero or more plain SGR sequences.
pub(crate) fn rewrite(sequence: &Sequence, out: &mut String) {
    if sequence.params().is_empty() {
        out.push_str("\x1b[m");
        return;
    }
    let mut list = List { out, open: 0 };
    let params = sequence.params();
    let mut next = 0;
    while next < params.len() {
        let first = next;
        next += 1;
        while next < params.len() && sequence.is_sub(next) {
            next += 1;
        }
        match params[first..next] {
            [target @ (38 | 48 | 58)] => {
                let (color, used) = color_after(&params[next..]);
                next += used;
                list.color(target, color);
            }
            [target @ (38 | 48 | 58), ref color @ ..] => list.color(target, color_within(color)),
            [4, 0, ..] => list.push(24),
            [4, ..] | [21] => list.push(4),
            [6] => list.push(5),
            [plain @ (0..=5 | 7 | 9 | 22..=25 | 27 | 29..=37 | 39..=47 | 49 | 90..=97 | 100..=107)] => list.push(plain),
            _ => {}
        }
    }
    list.close();
}

/// Writes the sequence that sets a whole pen, whatever it was before. Semicolons only: not every terminal reads colons.
pub(crate) fn set(pen: Pen, out: &mut String) {
    out.push_str("\x1b[0");
    for (bit, operation) in ATTRIBUTES {
        if pen.attributes & bit != 0 {
            // Writing to a string does not fail.
            let _ = write!(out, ";{operation}");
        }
    }
    for (color, base) in [(pen.fg, 30), (pen.bg, 40)] {
        let [kind, r, g, b] = color.to_be_bytes();
        let _ = match (u32::from(kind) << 24, b) {
            (INDEXED, 0..=7) => write!(out, ";{}", base + u16::from(b)),
            (INDEXED, 8..=15) => write!(out, ";{}", base + 52 + u16::from(b)),
            (INDEXED, _) => write!(out, ";{};5;{b}", base + 8),
            (RGB, _) => write!(out, ";{};2;{r};{g};{b}", base + 8),
            _ => Ok(()),
        };
    }
    out.push('m');
}

enum Color {
    Indexed(u16),
    Rgb(u16, u16, u16),
}

/// `38;2;r;g;b` and `38;5;n`: the colour and how many parameters it takes. Broken ones take all that is left.
fn color_after(params: &[u16]) -> (Option<Color>, usize) {
    match *params {
        [2, r, g, b, ..] => (Some(Color::Rgb(r, g, b)), 4),
        [5, index, ..] => (Some(Color::Indexed(index)), 2),
        [2 | 5, ..] => (None, params.len()),
        _ => (None, 0),
    }
}

/// `38:2:r:g:b`, `38:2::r:g:b` (with a colour space) and `38:5:n`.
fn color_within(params: &[u16]) -> Option<Color> {
    match *params {
        [2, r, g, b] | [2, _, r, g, b, ..] => Some(Color::Rgb(r, g, b)),
        [5, index, ..] => Some(Color::Indexed(index)),
        _ => None,
    }
}

struct List<'a> {
    out: &'a mut String,
    open: usize,
}

impl List<'_> {
    fn push(&mut self, operation: u16) {
        self.next();
        let _ = write!(self.out, "{operation}");
    }

    fn color(&mut self, target: u16, color: Option<Color>) {
        // Cells have no colour of their own for underlines.
        let Some(color) = color.filter(|_| target != 58) else { return };
        self.next();
        let byte = |part: u16| part.min(255);
        let _ = match color {
            Color::Indexed(index) => write!(self.out, "{target};5;{}", byte(index)),
            Color::Rgb(r, g, b) => write!(self.out, "{target};2;{};{};{}", byte(r), byte(g), byte(b)),
        };
    }

    fn next(&mut self) {
        if self.open == OPERATIONS_PER_SEQUENCE {
            self.close();
        }
        self.out.push_str(if self.open == 0 { "\x1b[" } else { ";" });
        self.open += 1;
    }

    fn close(&mut self) {
        if self.open > 0 {
            self.out.push('m');
            self.open = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Actions, Parser};

    struct Rewritten(String);

    impl Actions for Rewritten {
        fn text(&mut self, _: &str) {}
        fn control(&mut self, _: u8) {}
        fn escape(&mut self, _: &[u8], _: u8) {}
        fn csi(&mut self, sequence: &Sequence, _: u8) {
            rewrite(sequence, &mut self.0);
        }
        fn osc(&mut self, _: &[u8], _: bool) {}
    }

    #[test]
    fn spellings_become_one_and_arguments_are_never_taken_for_attributes() {
        for (given, expected) in [
            ("", "\x1b[m"),
            ("0", "\x1b[0m"),
            (";1", "\x1b[0;1m"),
            ("1;31", "\x1b[1;31m"),
            ("38:2:1:2:3", "\x1b[38;2;1;2;3m"),
            ("38:2::1:2:3", "\x1b[38;2;1;2;3m"),
            ("48:5:200", "\x1b[48;5;200m"),
            ("38;5;300", "\x1b[38;5;255m"),
            ("58;5;5", ""),
            ("58:2::5:5:5;1", "\x1b[1m"),
            ("4:3", "\x1b[4m"),
            ("4:0", "\x1b[24m"),
            ("21", "\x1b[4m"),
            ("38;2;1;2", ""),
            ("38;1", "\x1b[1m"),
            ("8;53;999", ""),
            ("1;2;3;4;5;7;9", "\x1b[1;2;3;4;5;7m\x1b[9m"),
        ] {
            let mut out = Rewritten(String::new());
            Parser::default().feed(format!("\x1b[{given}m").as_bytes(), &mut out);
            assert_eq!(out.0, expected, "{given}");
        }
    }
}
