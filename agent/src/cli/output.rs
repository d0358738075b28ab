//! What the command line prints: aligned and coloured for a person, plain in a pipe, JSON when asked for.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::cli::tty;
use crate::trouble::Trouble;

/// For what stands out.
pub const STRONG: Style = Style::new().bold();
/// For what may be overlooked.
pub const FAINT: Style = Style::new().dimmed();
/// For what is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what wants attention.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// For what failed.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// A space at which no line is broken.
pub const GLUE: char = '\u{a0}';
/// Under what a complaint begins with.
const INDENT: &str = "       ";

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON document, or one per line for what goes on for a while.
    Json,
}

impl Form {
    /// Prints a result: the value in JSON, or what `text` writes.
    pub fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T)) {
        match self {
            Form::Text => text(value),
            Form::Json => say(&json(value)),
        }
    }

    /// Prints a step on the way: a JSON line, or a line of text.
    pub fn step<T: Serialize>(self, value: &T, text: &str) {
        match self {
            Form::Text => say(text),
            Form::Json => say(&json(value)),
        }
    }
}

/// The first reason why something could not be printed.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line. A reader that went away (`happy ls | head -1`) is no error; of any other [`is_whole`] tells.
pub fn say(line: &str) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Resolves when whoever read standard output has gone, also while nothing is printed; never where the system does not tell that.
/// Safe to cancel.
pub async fn reader_gone() {
    use rustix::event::{PollFd, PollFlags, poll};
    let gone = tokio::task::spawn_blocking(|| {
        let stdout = std::io::stdout();
        loop {
            // Errors and hang-ups are told of without being asked for.
            let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
            match poll(&mut fds, None) {
                Ok(_) => return fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    });
    if !matches!(gone.await, Ok(true)) {
        std::future::pending::<()>().await;
    }
}

/// Whether everything that was said could be printed.
///
/// # Errors
/// With the first reason why not.
pub fn is_whole() -> Result<(), Trouble> {
    let Some(error) = LOST.get() else { return Ok(()) };
    let todo = match error.kind() {
        ErrorKind::StorageFull => "Free some space there and try again.",
        _ => "See where standard output goes, and try again.",
    };
    Err(Trouble::new(format!("What is printed cannot be written: {}.", crate::trouble::reason(error)), todo))
}

/// Prints a line beside the result.
pub fn aside(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Prints sentences, broken at words where a terminal would break them anywhere.
pub fn say_sentences(style: Style, text: &str) {
    lines(text, 0).iter().for_each(|line| say(&paint(style, line)));
}

/// The lines of a text that begin at a column of the terminal; one line when there is no terminal.
pub fn lines(text: &str, column: usize) -> Vec<String> {
    match tty::size() {
        Some((columns, _)) => wrap(text, usize::from(columns).saturating_sub(column).max(20)),
        None => vec![text.to_owned()],
    }
}

/// The same beside the result.
pub fn aside_sentences(style: Style, text: &str) {
    match tty::error_columns() {
        Some(columns) => wrap(text, columns.into()).iter().for_each(|line| aside(&paint(style, line))),
        None => aside(&paint(style, text)),
    }
}

/// Prints what went wrong.
pub fn complain(form: Form, trouble: &Trouble) {
    complaint(form, trouble, tty::error_columns()).iter().for_each(|line| aside(line));
}

/// The lines that say what went wrong. Another machine may have worded it, so nothing in it may steer the terminal.
fn complaint(form: Form, trouble: &Trouble, columns: Option<u16>) -> Vec<String> {
    match form {
        // Somebody else has said it already.
        _ if trouble.what.is_empty() => Vec::new(),
        Form::Text => {
            let width = columns.map_or(usize::MAX, usize::from).saturating_sub(INDENT.len()).max(20);
            let mut lines = wrap(&harmless(&trouble.what), width);
            if let Some(first) = lines.first_mut() {
                *first = format!("{BAD}happy:{BAD:#} {first}");
            }
            let rest = wrap(&harmless(&trouble.todo), width);
            let first = lines.len().min(1);
            lines[first..].iter_mut().for_each(|line| line.insert_str(0, INDENT));
            lines.extend(rest.iter().map(|line| format!("{INDENT}{line}")));
            lines
        }
        Form::Json => vec![json(&serde_json::json!({ "error": trouble }))],
    }
}

/// One line of JSON. What its encoder leaves as it is and some terminals obey (DEL, C1) is escaped as well; it can only be inside
/// of a string.
fn json<T: Serialize>(value: &T) -> String {
    let text = serde_json::to_string(value).unwrap_or_default();
    if !text.chars().any(char::is_control) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c.is_control() {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
        out
    })
}

/// Text in a style.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints rows under a heading, each column as wide as its widest cell, and a line below each row where there is one. Cells may carry a
/// style of their own.
pub fn table_with_notes(heading: &[&str], rows: &[(Vec<(Style, String)>, String)]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|(row, _)| row.get(column)).map(|(_, text)| text.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = (Style, &str)>| {
        let mut line = String::new();
        for (column, (style, text)) in cells.enumerate() {
            let last = column + 1 == widths.len();
            let pad = if last { 0 } else { widths[column].saturating_sub(text.chars().count()) + 2 };
            line.push_str(&paint(style, text));
            line.extend(std::iter::repeat_n(' ', pad));
        }
        say(&line);
    };
    line(&mut heading.iter().map(|text| (FAINT, *text)));
    for (row, note) in rows {
        line(&mut row.iter().map(|(style, text)| (*style, text.as_str())));
        if !note.is_empty() {
            say(note);
        }
    }
}

/// Text from elsewhere, safe to print: what could steer the terminal is replaced, and it is cut to a width.
pub fn tame(text: &str, width: usize) -> String {
    let mut out: String = text.chars().map(harmless_char).take(width + 1).collect();
    if out.chars().count() > width {
        out = out.chars().take(width.saturating_sub(1)).chain(['…']).collect();
    }
    out
}

/// Text from elsewhere, safe to print, in its whole length.
fn harmless(text: &str) -> String {
    text.chars().map(harmless_char).collect()
}

fn harmless_char(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}

/// Breaks text at spaces; a word that is too long, as an address may be, goes on in the next line.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let letters: Vec<char> = word.chars().map(|c| if c == GLUE { ' ' } else { c }).collect();
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + letters.len() <= width => {
                line.push(' ');
                line.extend(letters);
            }
            _ => lines.extend(letters.chunks(width).map(|piece| piece.iter().collect::<String>())),
        }
    }
    lines
}

/// A signal as people know it. Only numbers that mean the same on every system have a name here: the session may run elsewhere.
pub fn signal_name(signal: u32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.into()
}

/// A time in the past, for people.
pub fn ago(unix_ms: u64) -> String {
    let now = crate::store::unix_ms();
    let seconds = now.saturating_sub(unix_ms) / 1000;
    match seconds {
        0..=59 => format!("{seconds} s ago"),
        60..=3599 => format!("{} min ago", seconds / 60),
        3600..=86399 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(tame("a\x1b[2Jb\u{9b}c", 20), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(tame("abcdef", 4), "abc…");
        assert_eq!(tame("abcd", 4), "abcd");
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrap("a trial on this network", 10), ["a trial on", "this", "network"]);
        assert_eq!(wrap("", 10), Vec::<String>::new());
        assert_eq!(wrap("abcdefghijkl", 5), ["abcde", "fghij", "kl"]);
        assert_eq!(wrap("a phone is\u{a0}paired", 9), ["a phone", "is paired"]);
    }

    #[test]
    fn a_complaint_fits_the_terminal() {
        let trouble =
            Trouble::new("The program `nosuch` is not there, wherever one looks for it.", "Give its full path.");
        let lines = complaint(Form::Text, &trouble, Some(40));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with(" The program `nosuch` is not"), "{lines:?}");
        assert_eq!(lines[1..], ["       there, wherever one looks for it.", "       Give its full path."]);
        assert!([Form::Text, Form::Json].iter().all(|form| complaint(*form, &Trouble::new("", ""), None).is_empty()));
    }

    #[test]
    fn a_refusal_from_another_machine_cannot_reach_the_clipboard() {
        let hostile = "no\x1b]52;c;cm0gLXJmIH4=\x07\u{9d}52;c;eA==\u{9c}\r\n\x7f";
        let error = happy_rpc::CallError::new(happy_rpc::ErrorCode::Failed, hostile);
        let mut trouble = Trouble::from(crate::cli::client::CallFailure::Refused(error));
        trouble.todo = hostile.into();
        let own = |line: &str| line.replace(&BAD.render().to_string(), "").replace(&BAD.render_reset().to_string(), "");
        let lines = complaint(Form::Text, &trouble, None);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.contains("]52;c;") && !own(line).chars().any(char::is_control)));
        // As JSON nothing of it is lost either.
        let lines = complaint(Form::Json, &trouble, Some(40));
        assert!(lines.len() == 1 && !lines[0].chars().any(char::is_control));
        let read: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(read["error"]["remedy"], hostile);
    }
}
