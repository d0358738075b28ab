//! SGR: how programs choose what text looks like.
//!
//! Programs mix three spellings of colours, and styled and coloured underlines (`4:3`, `58:2::r:g:b`). Whoever skips `58` but reads its
//! arguments as attributes turns an underline colour into blinking.

use std::fmt::Write;

use crate::canvas::Canvas;
use crate::cell::{
    BLINK, BOLD, CONCEALED, DASHED, DEFAULT, FAINT, INDEXED, INVERSE, ITALIC, OVERLINE, Pen, RGB, STRIKETHROUGH,
    UNDERLINE, UNDERLINE_SHIFT,
};
use crate::parser::Sequence;
use crate::row::Look;

/// The operation that sets an attribute, those that it takes away, and the operation that takes it back.
const ATTRIBUTES: [(u16, u16, u16); 8] = [
    (1, BOLD, 22),
    (2, FAINT, 22),
    (3, ITALIC, 23),
    (5, BLINK, 25),
    (7, INVERSE, 27),
    (8, CONCEALED, 28),
    (9, STRIKETHROUGH, 29),
    (53, OVERLINE, 55),
];

/// Changes the pen of a canvas.
pub(crate) fn apply(sequence: &Sequence, canvas: &mut Canvas) {
    let params = sequence.params();
    if params.is_empty() {
        return reset(canvas);
    }
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
                set_color(canvas, target, color);
            }
            [target @ (38 | 48 | 58), ref color @ ..] => set_color(canvas, target, color_within(color)),
            [4, style, ..] => underline(&mut canvas.pen, if style > DASHED { 1 } else { style }),
            [one] => operation(canvas, one),
            _ => {}
        }
    }
}

fn operation(canvas: &mut Canvas, operation: u16) {
    let pen = &mut canvas.pen;
    match operation {
        0 => reset(canvas),
        4 => underline(pen, 1),
        6 => pen.attributes |= BLINK,
        21 => underline(pen, 2),
        24 => underline(pen, 0),
        30..=37 => pen.fg = INDEXED | u32::from(operation - 30),
        40..=47 => pen.bg = INDEXED | u32::from(operation - 40),
        90..=97 => pen.fg = INDEXED | u32::from(operation - 82),
        100..=107 => pen.bg = INDEXED | u32::from(operation - 92),
        39 => pen.fg = DEFAULT,
        49 => pen.bg = DEFAULT,
        59 => set_underline_color(canvas, DEFAULT),
        _ => {
            for (sets, bit, takes) in ATTRIBUTES {
                if operation == sets {
                    pen.attributes |= bit;
                } else if operation == takes {
                    pen.attributes &= !bit;
                }
            }
        }
    }
}

fn reset(canvas: &mut Canvas) {
    set_underline_color(canvas, DEFAULT);
    // A link is no matter of SGR.
    canvas.pen = Pen { extra: canvas.pen.extra, ..Pen::default() };
}

fn underline(pen: &mut Pen, style: u16) {
    pen.attributes = pen.attributes & !UNDERLINE | style << UNDERLINE_SHIFT;
}

fn set_color(canvas: &mut Canvas, target: u16, color: Option<u32>) {
    match (target, color) {
        (38, Some(color)) => canvas.pen.fg = color,
        (48, Some(color)) => canvas.pen.bg = color,
        (_, Some(color)) => set_underline_color(canvas, color),
        (_, None) => {}
    }
}

fn set_underline_color(canvas: &mut Canvas, color: u32) {
    // What is nearly always so costs nothing.
    if canvas.pen.extra != 0 || color != DEFAULT {
        canvas.set_extra(|extra| extra.underline = color);
    }
}

fn indexed(index: u16) -> u32 {
    INDEXED | u32::from(index.min(255))
}

fn rgb(parts: [u16; 3]) -> u32 {
    let [r, g, b] = parts.map(|part| part.min(255) as u8);
    RGB | u32::from_be_bytes([0, r, g, b])
}

/// `38;2;r;g;b` and `38;5;n`: the colour and how many parameters it takes. Broken ones take all that is left.
fn color_after(params: &[u16]) -> (Option<u32>, usize) {
    match *params {
        [2, r, g, b, ..] => (Some(rgb([r, g, b])), 4),
        [5, index, ..] => (Some(indexed(index)), 2),
        [2 | 5, ..] => (None, params.len()),
        _ => (None, 0),
    }
}

/// `38:2:r:g:b`, `38:2::r:g:b` (with a colour space) and `38:5:n`.
fn color_within(params: &[u16]) -> Option<u32> {
    match *params {
        [2, r, g, b] | [2, _, r, g, b, ..] => Some(rgb([r, g, b])),
        [5, index, ..] => Some(indexed(index)),
        _ => None,
    }
}

/// Writes the sequences that set a whole pen, whatever it was before. What only some terminals know stands in sequences with colons: others
/// skip these as a whole.
pub(crate) fn set(look: &Look, out: &mut String) {
    // Writing to a string does not fail.
    out.push_str("\x1b[0");
    let style = (look.attributes & UNDERLINE) >> UNDERLINE_SHIFT;
    for (operation, bit, _) in ATTRIBUTES {
        if look.attributes & bit != 0 {
            let _ = write!(out, ";{operation}");
        }
    }
    if style != 0 {
        out.push_str(";4");
    }
    for (color, base) in [(look.fg, 30), (look.bg, 40)] {
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
    if style > 1 {
        let _ = write!(out, "\x1b[4:{style}m");
    }
    let [kind, r, g, b] = look.underline.to_be_bytes();
    let _ = match u32::from(kind) << 24 {
        INDEXED => write!(out, "\x1b[58:5:{b}m"),
        RGB => write!(out, "\x1b[58:2::{r}:{g}:{b}m"),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::{Actions, Parser};

    struct Drawn(Canvas);

    impl Actions for Drawn {
        fn text(&mut self, _: &str) {}
        fn control(&mut self, _: u8) {}
        fn escape(&mut self, _: &[u8], _: u8) {}
        fn csi(&mut self, sequence: &Sequence, _: u8) {
            apply(sequence, &mut self.0);
        }
        fn osc(&mut self, _: &[u8], _: bool) {}
    }

    /// The pen after some sequences, written down.
    fn pen(sequences: &str) -> String {
        let mut drawn = Drawn(Canvas::new(2, 1, 0));
        for params in sequences.split(' ') {
            Parser::default().feed(format!("\x1b[{params}m").as_bytes(), &mut drawn);
        }
        let canvas = &drawn.0;
        let underline = canvas.extras.get(canvas.pen.extra).map_or(0, |extra| extra.underline);
        let Pen { fg, bg, attributes, .. } = canvas.pen;
        let mut out = String::new();
        set(&Look { attributes, fg, bg, underline, link: 0 }, &mut out);
        out.replace('\x1b', "")
    }

    #[test]
    fn spellings_mean_the_same_and_arguments_are_never_taken_for_attributes() {
        for (given, expected) in [
            ("", "[0m"),
            ("1;31", "[0;1;31m"),
            (";1", "[0;1m"),
            ("38:2:1:2:3", "[0;38;2;1;2;3m"),
            ("38:2::1:2:3", "[0;38;2;1;2;3m"),
            ("48:5:200", "[0;48;5;200m"),
            ("38;5;300", "[0;38;5;255m"),
            ("38;5;9", "[0;91m"),
            ("58;5;5", "[0m[58:5:5m"),
            ("58:2::5:5:5;1", "[0;1m[58:2::5:5:5m"),
            ("4:3", "[0;4m[4:3m"),
            ("4:9", "[0;4m"),
            ("4:3 4:0", "[0m"),
            ("21", "[0;4m[4:2m"),
            ("38;2;1;2", "[0m"),
            ("38;1", "[0;1m"),
            ("8;53;999", "[0;8;53m"),
            ("1;2;3;4;5;7;9", "[0;1;2;3;5;7;9;4m"),
            ("1;2 22", "[0m"),
            ("3;5;7;8;9;53 23;25;27;28;29;55", "[0m"),
            ("97;107 39", "[0;107m"),
            ("31;44 0", "[0m"),
            ("58;2;1;2;3;31 59", "[0;31m"),
            ("58;2;1;2;3 0", "[0m"),
            ("4 24", "[0m"),
        ] {
            assert_eq!(pen(given), expected, "{given}");
        }
    }

    #[test]
    fn a_link_outlives_sgr() {
        let mut canvas = Canvas::new(2, 1, 0);
        canvas.set_extra(|extra| extra.link = "https://a".into());
        let linked = canvas.pen;
        set_underline_color(&mut canvas, RGB);
        reset(&mut canvas);
        assert_eq!(canvas.pen, linked);
    }
}
