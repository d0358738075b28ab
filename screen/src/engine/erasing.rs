//! What an engine draws with and where it would scroll, known from the text that it is given.
//!
//! Programs are written for terminals whose erased cells take the background of the pen and nothing else (`bce` in terminfo). The engine fills
//! them with the whole pen: after `ESC[7m` and a new line at the bottom the rest of that row would be a bar. So it is given a pen of only a
//! background for everything that makes blanks, and its own one back afterwards; for that somebody has to know it.

use std::fmt::Write;

/// A pen, as far as the engine's cells can hold it. Colours are the parameters that set them, as in `38;5;1`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pen {
    fg: String,
    bg: String,
    /// 1 bold or 2 faint; the engine holds one of them, the later.
    intensity: Option<u16>,
    /// Bit n: attribute n of SGR is set; 3 italic, 4 underline, 5 blink, 7 inverse, 9 strikethrough.
    attributes: u16,
}

impl Pen {
    /// The SGR sequence that sets this pen, whatever it was before.
    fn sgr(&self) -> String {
        let mut sgr = "\x1b[0".to_owned();
        let attributes = self.intensity.into_iter().chain((3..=9).filter(|n| self.attributes & 1 << n != 0));
        for attribute in attributes {
            // Writing to a string does not fail.
            let _ = write!(sgr, ";{attribute}");
        }
        for color in [&self.fg, &self.bg] {
            if !color.is_empty() {
                sgr.push(';');
                sgr.push_str(color);
            }
        }
        sgr.push('m');
        sgr
    }

    /// The one for erased cells.
    fn erasing(&self) -> Self {
        Self { bg: self.bg.clone(), ..Self::default() }
    }

    fn is_erasing(&self) -> bool {
        self.fg.is_empty() && self.intensity.is_none() && self.attributes == 0
    }

    /// Applies the parameters of an SGR sequence in the spelling of `sgr`.
    fn apply(&mut self, params: &str) {
        let mut params = params.split(';');
        while let Some(param) = params.next() {
            // The engine's own dumps spell colours with colons.
            if let Some((which @ ("38" | "48"), _)) = param.split_once(':') {
                param.clone_into(self.color(which == "38"));
                continue;
            }
            match param.parse().unwrap_or(0) {
                0 => *self = Self::default(),
                intensity @ (1 | 2) => self.intensity = Some(intensity),
                22 => self.intensity = None,
                attribute @ (3 | 4 | 5 | 7 | 9) => self.attributes |= 1 << attribute,
                attribute @ (23..=25 | 27 | 29) => self.attributes &= !(1 << (attribute - 20)),
                which @ (38 | 48) => {
                    let kind = params.next().unwrap_or_default();
                    let length = if kind == "2" { 3 } else { 1 };
                    let values: Vec<&str> = params.by_ref().take(length).collect();
                    *self.color(which == 38) = format!("{which};{kind};{}", values.join(";"));
                }
                39 => self.fg.clear(),
                49 => self.bg.clear(),
                30..=37 | 90..=97 => param.clone_into(&mut self.fg),
                40..=47 | 100..=107 => param.clone_into(&mut self.bg),
                _ => {}
            }
        }
    }

    fn color(&mut self, foreground: bool) -> &mut String {
        if foreground { &mut self.fg } else { &mut self.bg }
    }
}

/// What DECSC saves of this.
#[derive(Debug, Clone)]
struct Saved {
    pen: Pen,
    autowrap: bool,
}

const NOTHING_SAVED: Saved =
    Saved { pen: Pen { fg: String::new(), bg: String::new(), intensity: None, attributes: 0 }, autowrap: true };

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

    /// The sequences that change to the pen for erased cells and back; none when the pen is one.
    pub(super) fn erasing(&self) -> Option<(String, String)> {
        (!self.pen.is_erasing()).then(|| (self.pen.erasing().sgr(), self.pen.sgr()))
    }

    /// Whether a character that does not fit into a row scrolls, in this row.
    pub(super) fn wraps_at_bottom(&self, row: u16) -> bool {
        self.autowrap && row == self.bottom
    }

    pub(super) fn pen(&self) -> String {
        self.pen.sgr()
    }

    /// Takes note of a sequence that the engine gets.
    pub(super) fn sequence(&mut self, sequence: &str, rows: u16) {
        match sequence {
            "\x1b7" | "\x1b[s" | "\x1b[?1048h" => self.save(),
            "\x1b8" | "\x1b[u" | "\x1b[?1048l" => self.restore(),
            "\x1b[?1047h" => self.alternate = true,
            "\x1b[?1047l" => self.alternate = false,
            "\x1b[?1049h" => {
                self.save();
                self.alternate = true;
            }
            "\x1b[?1049l" => {
                self.alternate = false;
                self.restore();
            }
            "\x1b[?7h" => self.autowrap = true,
            "\x1b[?7l" => self.autowrap = false,
            "\x1bc" => *self = Self::new(rows),
            "\x1b[!p" => {
                self.pen = Pen::default();
                self.saved[usize::from(self.alternate)] = NOTHING_SAVED;
                self.bottom = rows.saturating_sub(1);
            }
            _ => self.numbered(sequence, rows),
        }
    }

    fn numbered(&mut self, sequence: &str, rows: u16) {
        let Some(body) = sequence.strip_prefix("\x1b[") else { return };
        if let Some(params) = body.strip_suffix('m') {
            self.pen.apply(params);
        } else if let Some(params) = body.strip_suffix('r') {
            let (top, bottom) = params.split_once(';').unwrap_or((params, ""));
            let number = |text: &str, default| text.parse().ok().filter(|n| *n != 0).unwrap_or(default);
            let (top, bottom) = (number(top, 1), number(bottom, rows));
            if top < bottom && bottom <= rows {
                self.bottom = bottom - 1;
            }
        }
    }

    fn save(&mut self) {
        self.saved[usize::from(self.alternate)] = Saved { pen: self.pen.clone(), autowrap: self.autowrap };
    }

    fn restore(&mut self) {
        let saved = self.saved[usize::from(self.alternate)].clone();
        (self.pen, self.autowrap) = (saved.pen, saved.autowrap);
    }
}

/// Whether a sequence makes blank cells.
pub(super) fn makes_blanks(sequence: &str) -> bool {
    match sequence.strip_prefix("\x1b[") {
        Some(body) => body == "?1047h" || body.ends_with(['J', 'K', 'X', '@', 'P', 'L', 'M', 'S', 'T']),
        None => matches!(sequence, "\x1bD" | "\x1bE" | "\x1bM"),
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
            (&["\x1b[38:2:1:2:3;48:5:200;4m"], "\x1b[0;4;38:2:1:2:3;48:5:200m", "\x1b[0;48:5:200m"),
            (&["\x1b[97;107m", "\x1b[m", "\x1b[7m"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b7", "\x1b[0;31m", "\x1b8"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b[?1049h", "\x1b[31m", "\x1b[?1049l"], "\x1b[0;7m", "\x1b[0m"),
            (&["\x1b[7m", "\x1b[s", "\x1b[?1047h", "\x1b[31m", "\x1b[u", "\x1b[4m"], "\x1b[0;4m", "\x1b[0m"),
        ] {
            let follower = follow(sequences);
            assert_eq!(follower.pen(), pen, "{sequences:?}");
            assert_eq!(follower.erasing(), Some((erasing.into(), pen.into())));
        }
        for plain in
            [&["\x1b[44m"][..], &["\x1b[31;7m", "\x1b[!p"], &["\x1b[31;7m", "\x1bc"], &["\x1b[1;4m", "\x1b[22;24m"]]
        {
            assert_eq!(follow(plain).erasing(), None, "{plain:?}");
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
