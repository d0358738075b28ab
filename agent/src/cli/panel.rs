//! The QR code with its text beside it, changed in place.
//!
//! Everything is drawn relative to the row of the prompt, where the cursor rests, so that nothing needs to be known of what
//! the terminal shows above. The keyboard stays in its ordinary line mode: what is typed is echoed by the terminal itself.

use std::io::Write;
use std::time::Duration;

use crate::cli::output::{BAD, FAINT, GOOD, STRONG, paint};
use crate::cli::tty;
use crate::trouble::Trouble;

/// What the largest code (version 5 with its margin) and the text beside it need.
pub const NEEDED: (u16, u16) = (80, 24);
/// Columns between code and text.
const SPACE: usize = 2;
/// Rows of the text.
const COUNTDOWN_ROW: usize = 9;
const STATUS_ROW: usize = 11;
const PROMPT_ROW: usize = 14;
const PROMPT: &str = "Type the code here: ";

/// The panel on the screen.
pub struct Panel {
    rows: usize,
    text_column: usize,
    text_width: usize,
}

/// What stands beside the code.
pub struct PanelText<'a> {
    /// The machine's name, safe to print.
    pub machine: &'a str,
    /// The address in the code.
    pub origin: &'a str,
    /// What that address is worth, or nothing to say.
    pub warning: &'a str,
    /// What the device may do.
    pub grant: &'a str,
}

/// Whether the terminal has room for a panel.
///
/// # Errors
/// With the sizes, when it has not.
pub fn check_size() -> Result<(), Trouble> {
    let Some((cols, rows)) = tty::size() else { return Ok(()) };
    if cols >= NEEDED.0 && rows >= NEEDED.1 {
        return Ok(());
    }
    Err(Trouble::new(
        format!("This terminal has {cols}x{rows}; the QR code and its text need {}x{}.", NEEDED.0, NEEDED.1),
        "Make the window larger, or add `--no-qr` to have the link as text.",
    )
    .with_exit(4))
}

impl Panel {
    /// Draws the panel.
    pub fn draw(code: &[String], code_width: usize, text: &PanelText<'_>) -> Panel {
        let columns = tty::size().map_or(NEEDED.0, |(cols, _)| cols).into();
        let text_column = code_width + SPACE;
        let panel = Panel {
            rows: code.len().max(PROMPT_ROW + 2),
            text_column,
            // The last column stays free: writing there leaves the cursor in a place that terminals do not agree about.
            text_width: usize::saturating_sub(columns, text_column + 1).max(20),
        };
        let beside = panel.text(text);
        let mut out = String::new();
        for row in 0..panel.rows {
            match code.get(row) {
                Some(line) => out.push_str(line),
                None => out.extend(std::iter::repeat_n(' ', code_width)),
            }
            out.push_str("  ");
            out.push_str(beside.get(row).map_or("", String::as_str));
            if row + 1 < panel.rows {
                out.push('\n');
            }
        }
        let up = panel.rows - 1 - PROMPT_ROW;
        out.push_str(&format!("\x1b[{up}A\r\x1b[{}C{PROMPT}", panel.text_column));
        emit(&out);
        panel
    }

    fn text(&self, text: &PanelText<'_>) -> Vec<String> {
        let mut rows = vec![paint(STRONG, &format!("Pair a device with {}", text.machine)), String::new()];
        rows.push("Scan the code with its camera.".into());
        rows.push(text.origin.to_owned());
        let warning = wrap(text.warning, self.text_width).into_iter().take(3);
        rows.extend(warning.map(|line| paint(FAINT, &line)));
        rows.resize(COUNTDOWN_ROW - 2, String::new());
        rows.extend(wrap(text.grant, self.text_width).into_iter().take(2));
        rows.resize(STATUS_ROW, String::new());
        rows.push("Waiting for the device".into());
        rows
    }

    /// Shows how long the invitation lives.
    pub fn countdown(&self, left: Duration) {
        let seconds = left.as_secs();
        self.put(COUNTDOWN_ROW, &format!("Ends in {}:{:02}", seconds / 60, seconds % 60));
    }

    /// Shows what is going on.
    pub fn status(&self, text: &str) {
        self.put_lines(STATUS_ROW, 2, text, anstyle::Style::new());
    }

    /// Shows what went wrong and can be tried again.
    pub fn warn(&self, text: &str) {
        self.put_lines(STATUS_ROW, 2, text, BAD);
    }

    fn put_lines(&self, row: usize, rows: usize, text: &str, style: anstyle::Style) {
        let lines = wrap(text, self.text_width);
        for n in 0..rows {
            self.put(row + n, &paint(style, lines.get(n).map_or("", String::as_str)));
        }
    }

    fn put(&self, row: usize, text: &str) {
        let up = PROMPT_ROW - row;
        emit(&format!("\x1b7\x1b[{up}A\r\x1b[{}C\x1b[K{text}\x1b8", self.text_column));
    }

    /// After Enter, which moved the cursor to the row below: back to an empty prompt.
    pub fn prompt_again(&self) {
        emit(&format!("\x1b[1A\r\x1b[{}C\x1b[K{PROMPT}", self.text_column));
    }

    /// Leaves the panel: a line of result in the place of the prompt, the cursor below everything.
    pub fn end(self, text: &str, good: bool) {
        let style = if good { GOOD } else { BAD };
        let lines = wrap(text, self.text_width);
        self.put_lines(STATUS_ROW, 2, lines.first().map_or("", String::as_str), style);
        let rest = lines.get(1).map_or("", String::as_str);
        emit(&format!("\r\x1b[{}C\x1b[K{}", self.text_column, paint(style, rest)));
        emit(&format!("\x1b[{}B\r\n", self.rows - 1 - PROMPT_ROW));
    }
}

fn emit(text: &str) {
    // Straight to the terminal: the panel exists only there, and its cursor moves are no colours to be stripped.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Breaks text at spaces; a word that is too long stands alone, cut.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let fits = lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() <= width);
        match lines.last_mut() {
            Some(line) if fits => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.chars().take(width).collect()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrap("a trial on this network", 10), ["a trial on", "this", "network"]);
        assert_eq!(wrap("", 10), Vec::<String>::new());
        assert_eq!(wrap("abcdefghijkl", 5), ["abcde"]);
    }
}
