//! The first line.

use serde::Deserialize;
use serde_json::json;

/// What a recording says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header {
    /// Columns at the beginning.
    pub cols: u16,
    /// Rows at the beginning.
    pub rows: u16,
    /// When it was made, Unix seconds.
    pub timestamp: Option<u64>,
    /// What it is called.
    pub title: Option<String>,
    /// The program and its arguments.
    pub command: Option<String>,
    /// Players shall wait for no event longer than this, in seconds.
    pub idle_time_limit: Option<f64>,
}

/// The most bytes of a title or a command that are written. As JSON each can become six, and a header shall fit into 4,096 bytes, the
/// smallest page of any system, which is written whole or not at all.
const MAX_TEXT: usize = 300;

impl Header {
    /// The line that begins a recording, in version 3, at most 4,095 bytes.
    pub fn to_line(&self) -> Vec<u8> {
        let mut header = json!({
            "version": 3,
            "term": { "cols": self.cols, "rows": self.rows, "type": "xterm-256color" },
        });
        let cut = |text: &String| text[..text.floor_char_boundary(MAX_TEXT)].to_owned();
        for (key, value) in [
            ("timestamp", self.timestamp.map(Into::into)),
            ("title", self.title.as_ref().map(cut).map(Into::into)),
            ("command", self.command.as_ref().map(cut).map(Into::into)),
            ("idle_time_limit", self.idle_time_limit.map(Into::into)),
        ] {
            if let Some(value) = value {
                header[key] = value;
            }
        }
        format!("{header}\n").into_bytes()
    }
}

/// As versions 2 and 3 have it.
#[derive(Deserialize)]
pub(crate) struct Raw {
    pub version: u64,
    term: Option<Term>,
    width: Option<u16>,
    height: Option<u16>,
    timestamp: Option<serde_json::Number>,
    title: Option<String>,
    command: Option<String>,
    idle_time_limit: Option<f64>,
}

#[derive(Deserialize)]
struct Term {
    cols: u16,
    rows: u16,
}

impl Raw {
    /// `None` when it does not say its size.
    pub fn into_header(self) -> Option<Header> {
        let (cols, rows) = match (self.version, self.term, self.width, self.height) {
            (3, Some(term), ..) => (term.cols, term.rows),
            (2, _, Some(width), Some(height)) => (width, height),
            _ => return None,
        };
        Some(Header {
            cols,
            rows,
            timestamp: self.timestamp.and_then(|at| at.as_u64()),
            title: self.title,
            command: self.command,
            idle_time_limit: self.idle_time_limit.filter(|limit| limit.is_finite() && *limit >= 0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_short_whatever_it_says() {
        for text in ["x", "\x1b", "\u{1}", "\\", "ü", "界"] {
            let text = Some(text.repeat(10_000));
            let header = Header {
                title: text.clone(),
                command: text,
                timestamp: Some(u64::MAX),
                idle_time_limit: Some(f64::MIN_POSITIVE),
                cols: u16::MAX,
                rows: u16::MAX,
            };
            assert!(header.to_line().len() < 4096, "{}", header.to_line().len());
        }
    }
}
