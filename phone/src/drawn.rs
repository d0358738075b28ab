//! A row in the form in which it crosses to JavaScript: its text, and a flat list of what its runs look like.

use happy_screen::{Color, Row, Run, Style, Underline};
use unicode_width::UnicodeWidthChar;

/// Numbers for each run: UTF-16 units, columns, foreground, background, attributes, colour of the underline, which of the links (from 1; 0 for
/// none). `RUN_FIELDS` in `app/core.ts`.
pub const RUN_FIELDS: usize = 7;

const BOLD: u32 = 1;
const FAINT: u32 = 2;
const ITALIC: u32 = 4;
const UNDERLINE: u32 = 8;
const STRIKE: u32 = 16;
const INVERSE: u32 = 32;
const BLINK: u32 = 64;
/// The font may give these characters another width than their columns have.
const FIXED: u32 = 128;
const CONCEALED: u32 = 256;
const OVERLINE: u32 = 512;
/// The style of the underline, three bits: 1 double, 2 curly, 3 dotted, 4 dashed.
const UNDERLINE_STYLE: u32 = 1024;

const INDEXED: u32 = 1 << 24;
const DIRECT: u32 = 2 << 24;

/// A row for JavaScript.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DrawnRow {
    /// All runs behind each other.
    pub text: String,
    /// [`RUN_FIELDS`] numbers for each run.
    pub runs: Vec<u32>,
    /// The line goes on in the next row.
    pub wrapped: bool,
    /// Addresses that runs lead to.
    pub links: Vec<String>,
}

impl From<&Row> for DrawnRow {
    fn from(row: &Row) -> Self {
        let mut drawn = Self { wrapped: row.wrapped, ..Self::default() };
        for run in &row.runs {
            let link = drawn.link(run);
            drawn.push_run(run, link);
        }
        drawn
    }
}

/// How far a font can be trusted with a character.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Every monospaced font has it, one column wide.
    Ascii,
    /// Nearly every one has it: a piece of these keeps its place as a whole.
    Common,
    /// Another font may stand in: each character is given its own place.
    None,
}

impl Trust {
    fn of(cluster: &str, width: u32) -> Self {
        let mut characters = cluster.chars();
        match (characters.next(), characters.next()) {
            (Some(ch), None) if width == 1 && ch.is_ascii() => Self::Ascii,
            // Latin, Greek, Cyrillic; frames and blocks.
            (Some(ch), None) if width == 1 && matches!(ch, '\0'..='\u{5ff}' | '\u{2500}'..='\u{259f}') => Self::Common,
            _ => Self::None,
        }
    }
}

impl DrawnRow {
    fn link(&mut self, run: &Run) -> u32 {
        let Some(link) = run.link.as_deref() else { return 0 };
        let known = self.links.iter().position(|known| known == link);
        let index = known.unwrap_or_else(|| {
            self.links.push(link.to_owned());
            self.links.len() - 1
        });
        number(index + 1)
    }

    fn push_run(&mut self, run: &Run, link: u32) {
        let (text, width) = (run.text.as_str(), if run.wide { 2 } else { 1 });
        let mut piece = (0, 0, Trust::None);
        for (start, end) in clusters(text) {
            let trust = Trust::of(text.get(start..end).unwrap_or_default(), width);
            let (piece_start, piece_end, piece_trust) = piece;
            piece = if trust == piece_trust && trust != Trust::None && piece_end == start {
                (piece_start, end, trust)
            } else {
                let piece = text.get(piece_start..piece_end).unwrap_or_default();
                self.push_piece(piece, run.style, link, width, piece_trust);
                (start, end, trust)
            };
        }
        let (start, end, trust) = piece;
        self.push_piece(text.get(start..end).unwrap_or_default(), run.style, link, width, trust);
    }

    fn push_piece(&mut self, text: &str, style: Style, link: u32, width: u32, trust: Trust) {
        if text.is_empty() {
            return;
        }
        let columns = if trust == Trust::None { width } else { number(text.chars().count()) };
        let fixed = if trust == Trust::Ascii { 0 } else { FIXED };
        self.text.push_str(text);
        let units = number(text.encode_utf16().count());
        let [fg, bg, underline] = [style.fg, style.bg, style.underline_color].map(colour);
        self.runs.extend([units, columns, fg, bg, attributes(style) | fixed, underline, link]);
    }
}

/// Where each character begins and ends, together with the marks that stand on it.
fn clusters(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let is_mark = |ch: char| UnicodeWidthChar::width(ch).unwrap_or(0) == 0;
    let starts: Vec<usize> = text
        .char_indices()
        .filter(|(at, ch)| *at == 0 || !is_mark(*ch))
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    (1..starts.len()).filter_map(move |next| Some((*starts.get(next - 1)?, *starts.get(next)?)))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn colour(colour: Color) -> u32 {
    match colour {
        Color::Default => 0,
        Color::Indexed(index) => INDEXED | u32::from(index),
        Color::Rgb(r, g, b) => DIRECT | u32::from_be_bytes([0, r, g, b]),
    }
}

fn attributes(style: Style) -> u32 {
    let Style { bold, faint, italic, underline, strikethrough, blink, inverse, concealed, overline, .. } = style;
    let (underlined, underline_style) = match underline {
        Underline::None => (false, 0),
        Underline::Single => (true, 0),
        Underline::Double => (true, 1),
        Underline::Curly => (true, 2),
        Underline::Dotted => (true, 3),
        Underline::Dashed => (true, 4),
    };
    let flags: u32 = [
        (bold, BOLD),
        (faint, FAINT),
        (italic, ITALIC),
        (underlined, UNDERLINE),
        (strikethrough, STRIKE),
        (blink, BLINK),
        (inverse, INVERSE),
        (concealed, CONCEALED),
        (overline, OVERLINE),
    ]
    .iter()
    .map(|(set, bit)| if *set { *bit } else { 0 })
    .sum();
    flags | (underline_style * UNDERLINE_STYLE)
}

#[cfg(test)]
mod tests {
    use happy_screen::Screen;

    use super::*;

    fn drawn(bytes: &str) -> DrawnRow {
        let mut screen = Screen::new(80, 2, 0);
        screen.feed(bytes.as_bytes());
        DrawnRow::from(&screen.row(0))
    }

    /// Text, columns and whether the place is fixed, of each run.
    fn pieces(row: &DrawnRow) -> Vec<(String, u32, bool)> {
        let units: Vec<u16> = row.text.encode_utf16().collect();
        let mut at = 0;
        let piece = |run: &[u32]| {
            let length = run[0] as usize;
            let text = String::from_utf16(&units[at..at + length]).unwrap();
            at += length;
            (text, run[1], run[4] & FIXED != 0)
        };
        row.runs.chunks(RUN_FIELDS).map(piece).collect()
    }

    #[test]
    fn only_what_fonts_may_widen_is_given_a_place() {
        let row = drawn("ls ─┐é → 日本😀e\u{301}x");
        let expected = [
            ("ls ", 3, false),
            ("─┐é", 3, true),
            (" ", 1, false),
            ("→", 1, true),
            (" ", 1, false),
            ("日", 2, true),
            ("本", 2, true),
            ("😀", 2, true),
            ("e\u{301}", 1, true),
            ("x", 1, false),
        ];
        let found = pieces(&row);
        assert_eq!(
            found.iter().map(|(text, columns, fixed)| (text.as_str(), *columns, *fixed)).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn colours_and_attributes_cross_over() {
        let row = drawn("\x1b[1;7;31;48;2;1;2;3mx");
        assert_eq!(row.runs, [1, 1, INDEXED | 1, DIRECT | 0x01_02_03, BOLD | INVERSE, 0, 0]);
        let row = drawn("\x1b[4:3;58;5;9;8;53mx");
        let attributes = UNDERLINE | (2 * UNDERLINE_STYLE) | CONCEALED | OVERLINE;
        assert_eq!(row.runs, [1, 1, 0, 0, attributes, INDEXED | 9, 0]);
    }

    #[test]
    fn links_are_told_once_and_only_those_of_the_web() {
        let link = |uri: &str, text: &str| format!("\x1b]8;;{uri}\x1b\\{text}\x1b]8;;\x1b\\");
        let text = [
            link("https://a", "one"),
            link("file:///etc/passwd", "two"),
            link("https://b", "三"),
            link("https://a", "four"),
        ];
        let row = drawn(&text.concat());
        assert_eq!(
            (row.text.as_str(), &row.links[..]),
            ("onetwo三four", &["https://a".to_owned(), "https://b".to_owned()][..])
        );
        let links: Vec<u32> = row.runs.chunks(RUN_FIELDS).map(|run| run[6]).collect();
        assert_eq!(links, [1, 0, 2, 1]);
    }

    #[test]
    fn an_empty_row_is_nothing() {
        assert_eq!(drawn(""), DrawnRow::default());
    }
}
