//! The QR code with its text beside it, changed in place.
//!
//! It begins at the top of the screen and every row has its place there: what is typed is echoed by the terminal itself, in its
//! ordinary line mode, so nobody can know where the cursor rests after Enter. What stood on the screen moves into its history.

use std::io::Write;
use std::time::Duration;

use anstyle::Style;

use crate::cli::output::{BAD, FAINT, GLUE, GOOD, STRONG, paint, wrap};
use crate::cli::tty;
use crate::trouble::Trouble;

/// What the largest code (version 5 with its margin) and the text beside it need.
pub const NEEDED: (u16, u16) = (80, 24);
/// Columns between code and text.
const SPACE: usize = 2;
/// Rows of the text, the topmost is 0: the address, what it is worth, what the device may do, and what changes.
const ORIGIN_ROW: usize = 3;
const WARNING_ROW: usize = 6;
const GRANT_ROW: usize = 9;
const COUNTDOWN_ROW: usize = 12;
const STATUS_ROW: usize = 14;
const STATUS_ROWS: usize = 3;
const PROMPT_ROW: usize = 18;
const HINT_ROW: usize = 20;
const HINT_ROWS: usize = 2;
const PROMPT: &str = "Type the code here: ";
const HINT: &str = "happy pair --no-qr prints the link";

/// The panel on the screen.
pub struct Panel {
    code: Vec<String>,
    /// What stands beside the code now, row by row.
    beside: Vec<String>,
    prompt: &'static str,
    code_width: usize,
    text_width: usize,
    drawn_for: Option<(u16, u16)>,
}

/// What stands beside the code.
pub struct PanelText<'a> {
    /// The machine's name, safe to print.
    pub machine: &'a str,
    /// The address in the code.
    pub origin: &'a str,
    /// The address for a browser on this machine, when that is another one.
    pub here: Option<&'a str>,
    /// What the address in the code is worth, or nothing to say.
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
    pub fn draw(code: Vec<String>, code_width: usize, text: &PanelText<'_>) -> Panel {
        let rows = code.len().max(HINT_ROW + HINT_ROWS);
        let mut panel = Panel {
            code,
            beside: vec![String::new(); rows],
            prompt: PROMPT,
            code_width,
            text_width: 0,
            drawn_for: tty::size(),
        };
        panel.measure();
        panel.write(text);
        tty::make_room(panel.drawn_for.map_or(NEEDED.1, |(_, rows)| rows));
        panel.paint_all();
        panel
    }

    fn measure(&mut self) {
        let columns: usize = self.drawn_for.map_or(NEEDED.0, |(cols, _)| cols).into();
        // The last column stays free: writing there leaves the cursor in a place that terminals do not agree about.
        self.text_width = columns.saturating_sub(self.code_width + SPACE + 1).max(20);
    }

    fn write(&mut self, text: &PanelText<'_>) {
        self.set(0, 2, &format!("Pair a device with {}", text.machine), STRONG);
        self.set(2, 1, "Scan the code with its camera.", Style::new());
        self.set(ORIGIN_ROW, 2, text.origin, Style::new());
        if let Some(here) = text.here {
            self.set(WARNING_ROW - 1, 1, &format!("or{GLUE}here:{GLUE}{here}"), Style::new());
        }
        self.set(WARNING_ROW, GRANT_ROW - WARNING_ROW, text.warning, FAINT);
        self.set(GRANT_ROW, 2, text.grant, Style::new());
        self.set(STATUS_ROW, STATUS_ROWS, "Waiting for the device", Style::new());
        self.set(HINT_ROW, HINT_ROWS, HINT, FAINT);
    }

    /// Shows how long the invitation lives. It comes every second, so it is also where a window of another size is noticed.
    pub fn countdown(&mut self, left: Duration) {
        let size = tty::size();
        if size != self.drawn_for {
            self.drawn_for = size;
            self.measure();
            emit("\x1b[2J");
            self.paint_all();
        }
        let seconds = left.as_secs();
        self.put(COUNTDOWN_ROW, 1, &format!("Ends in {}:{:02}", seconds / 60, seconds % 60), Style::new());
    }

    /// Shows what is going on.
    pub fn status(&mut self, text: &str) {
        self.put(STATUS_ROW, STATUS_ROWS, text, Style::new());
    }

    /// Shows what went wrong and can be tried again.
    pub fn warn(&mut self, text: &str) {
        self.put(STATUS_ROW, STATUS_ROWS, text, BAD);
    }

    /// After Enter: what was typed goes, wherever it was echoed, and the prompt is empty.
    pub fn prompt_again(&self) {
        self.paint_all();
    }

    /// Leaves the panel: the result in the place of the status, no prompt, the cursor below everything.
    pub fn end(mut self, text: &str, good: bool) {
        self.set(COUNTDOWN_ROW, 1, "", Style::new());
        self.set(STATUS_ROW, STATUS_ROWS, text, if good { GOOD } else { BAD });
        self.set(HINT_ROW, HINT_ROWS, "", Style::new());
        self.prompt = "";
        self.paint_all();
        emit(&format!("\x1b[{};1H\r\n", self.beside.len()));
    }

    /// Fills rows with text: broken at spaces, and cut when it is longer.
    fn set(&mut self, row: usize, rows: usize, text: &str, style: Style) {
        let mut lines = wrap(text, self.text_width);
        if lines.len() > rows {
            lines.truncate(rows);
            if let Some(last) = lines.last_mut() {
                *last = last.chars().take(self.text_width - 1).chain(['…']).collect();
            }
        }
        for (n, place) in self.beside.iter_mut().skip(row).take(rows).enumerate() {
            *place = lines.get(n).map_or_else(String::new, |line| paint(style, line));
        }
    }

    fn put(&mut self, row: usize, rows: usize, text: &str, style: Style) {
        self.set(row, rows, text, style);
        let lines: String = (row..row + rows).map(|row| self.line(row)).collect();
        emit(&format!("\x1b7\x1b[?7l{lines}\x1b[?7h\x1b8"));
    }

    /// What draws a row of the text. A name in wide letters may be wider than it counts, so nothing may go on in the next row.
    fn line(&self, row: usize) -> String {
        let text = self.beside.get(row).map_or("", String::as_str);
        format!("\x1b[{};{}H\x1b[K{text}", row + 1, self.text_column())
    }

    fn text_column(&self) -> usize {
        self.code_width + SPACE + 1
    }

    fn paint_all(&self) {
        let mut out = String::from("\x1b[?7l");
        for row in 0..self.beside.len() {
            out.push_str(&format!("\x1b[{};1H\x1b[2K{}", row + 1, self.code.get(row).map_or("", String::as_str)));
            out.push_str(&self.line(row));
        }
        out.push_str(&format!("\x1b[?7h\x1b[J\x1b[{};{}H{}", PROMPT_ROW + 1, self.text_column(), self.prompt));
        emit(&out);
    }
}

fn emit(text: &str) {
    // Straight to the terminal: the panel exists only there, and its cursor moves are no colours to be stripped.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
