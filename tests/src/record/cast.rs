//! Writing an asciicast, version 3: a header, then an array a line with the seconds since the line before, the kind and the data.

use std::time::Instant;

use serde_json::json;

/// A recording while it is made.
#[derive(Debug)]
pub struct Cast {
    lines: String,
    last: Instant,
    /// Output that is not written yet: neighbouring pieces become one event, and a character is never cut.
    pending: Vec<u8>,
    output: usize,
    marks: usize,
}

impl Cast {
    /// An empty one.
    #[must_use]
    pub fn new(title: &str, command: &str, cols: u16, rows: u16) -> Self {
        let header = json!({
            "version": 3,
            "term": { "cols": cols, "rows": rows, "type": "xterm-256color" },
            "title": title,
            "command": command,
        });
        Self { lines: format!("{header}\n"), last: Instant::now(), pending: Vec::new(), output: 0, marks: 0 }
    }

    /// The program has printed these bytes.
    pub fn output_bytes(&mut self, bytes: &[u8]) {
        self.output += bytes.len();
        self.pending.extend_from_slice(bytes);
        if self.pending.len() > 4096 {
            self.write_pending(false);
        }
    }

    /// The terminal has another size now.
    pub fn resize(&mut self, cols: u16, rows: u16) {
        self.write_pending(true);
        self.event("r", &format!("{cols}x{rows}"));
    }

    /// Nothing moves: a place to compare screens.
    pub fn mark(&mut self) {
        self.write_pending(true);
        self.event("m", "");
        self.marks += 1;
    }

    /// How many bytes the program has printed.
    #[must_use]
    pub fn output(&self) -> usize {
        self.output
    }

    /// Whether it has printed none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.output == 0
    }

    /// How many marks there are.
    #[must_use]
    pub fn marks(&self) -> usize {
        self.marks
    }

    /// The recording as a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.lines.clone()
    }

    fn write_pending(&mut self, all: bool) {
        let cut = match std::str::from_utf8(&self.pending) {
            Err(error) if !all && error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let bytes: Vec<u8> = self.pending.drain(..cut).collect();
        if !bytes.is_empty() {
            self.event("o", &String::from_utf8_lossy(&bytes));
        }
    }

    fn event(&mut self, kind: &str, data: &str) {
        let seconds = (self.last.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.last = Instant::now();
        self.lines += &format!("{}\n", json!([seconds, kind, data]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_event_and_characters_stay_whole() {
        let mut cast = Cast::new("x", "y", 80, 24);
        let (begin, end) = "界".as_bytes().split_at(2);
        cast.output_bytes(&[b"a".repeat(5000).as_slice(), begin].concat());
        cast.output_bytes(end);
        cast.output_bytes(b"\x1b[m\xff");
        cast.mark();
        cast.resize(40, 20);
        let text = cast.to_text();
        let events: Vec<(f64, String, String)> =
            text.lines().skip(1).map(|line| serde_json::from_str(line).expect("an event")).collect();
        let data: Vec<_> = events.iter().map(|(_, kind, data)| (kind.as_str(), data.as_str())).collect();
        assert_eq!(data, [("o", "a".repeat(5000).as_str()), ("o", "界\u{1b}[m\u{fffd}"), ("m", ""), ("r", "40x20")]);
    }
}
