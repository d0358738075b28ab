//! Writing events.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Output that is printed within so many milliseconds becomes one event: less than players can show.
pub const MERGE_MS: u64 = 10;

/// The most bytes of output in one event. As JSON each can become six, so a line has less than 200 KiB.
pub const MAX_DATA: usize = 32 * 1024;

/// Writes the events of a recording, each as a whole line, into a buffer of the caller's.
///
/// The time is that since the beginning, in milliseconds; one that is before the last counts as the last. A character is never
/// divided between events, whatever is between its bytes, and a byte that is none becomes U+FFFD, for JSON is text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The time of the last line.
    last: u64,
    /// Output that is not a line yet, and when it began.
    output: Option<(u64, String)>,
    /// INVARIANT: empty, or the beginning of a character.
    begun: Vec<u8>,
}

impl Writer {
    /// The program has printed these bytes. What is printed next may be in the same line: see [`Writer::flush`].
    pub fn output(&mut self, at: u64, bytes: &[u8], out: &mut Vec<u8>) {
        if self.output.as_ref().is_some_and(|(begin, _)| at.saturating_sub(*begin) >= MERGE_MS) {
            self.flush(out);
        }
        let joined;
        let mut rest = bytes;
        if !self.begun.is_empty() {
            joined = [&std::mem::take(&mut self.begun), bytes].concat();
            rest = &joined;
        }
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => return self.text(at, text, out),
                Err(error) => {
                    let (valid, tail) = rest.split_at(error.valid_up_to());
                    self.text(at, std::str::from_utf8(valid).unwrap_or_default(), out);
                    let Some(bad) = error.error_len() else {
                        self.begun = tail.to_vec();
                        return;
                    };
                    self.text(at, "\u{fffd}", out);
                    rest = &tail[bad..];
                }
            }
        }
    }

    fn text(&mut self, at: u64, mut text: &str, out: &mut Vec<u8>) {
        while !text.is_empty() {
            let (_, data) = self.output.get_or_insert_with(|| (at, String::new()));
            let room = MAX_DATA - data.len();
            let (now, later) = text.split_at(text.floor_char_boundary(room));
            data.push_str(now);
            text = later;
            if !text.is_empty() {
                self.flush(out);
            }
        }
    }

    /// Makes a line of the output that was printed last.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if let Some((at, data)) = self.output.take() {
            self.line(at, 'o', &data, out);
        }
    }

    /// Whether there is output that is not a line yet.
    pub fn has_output(&self) -> bool {
        self.output.is_some()
    }

    /// The terminal has another size now.
    pub fn resize(&mut self, at: u64, cols: u16, rows: u16, out: &mut Vec<u8>) {
        self.event(at, 'r', &format!("{cols}x{rows}"), out);
    }

    /// Marks a place.
    pub fn mark(&mut self, at: u64, label: &str, out: &mut Vec<u8>) {
        self.event(at, 'm', label, out);
    }

    /// The program has ended: a signal is 128 and its number, as in shells.
    pub fn exit(&mut self, at: u64, status: u32, out: &mut Vec<u8>) {
        self.end(at, out);
        self.event(at, 'x', &status.to_string(), out);
    }

    /// Nothing more is printed, so a begun character stays one.
    pub fn end(&mut self, at: u64, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.begun).is_empty() {
            self.text(at, "\u{fffd}", out);
        }
        self.flush(out);
    }

    fn event(&mut self, at: u64, kind: char, data: &str, out: &mut Vec<u8>) {
        self.flush(out);
        self.line(at, kind, data, out);
    }

    fn line(&mut self, at: u64, kind: char, data: &str, out: &mut Vec<u8>) {
        let passed = at.saturating_sub(self.last);
        self.last = self.last.max(at);
        out.extend_from_slice(format!("[{}.{:03}, \"{kind}\", ", passed / 1000, passed % 1000).as_bytes());
        // A text as JSON, into memory: it cannot fail.
        let _ = data.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Ascii));
        out.extend_from_slice(b"]\n");
    }
}

/// JSON in ASCII: a file that was cut inside a character would not be text any more, and readers give up on that.
struct Ascii;

impl serde_json::ser::Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        for c in text.chars() {
            match c.is_ascii() {
                true => writer.write_all(&[c as u8])?,
                false => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(out: &[u8]) -> Vec<(f64, String, String)> {
        let text = std::str::from_utf8(out).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn data(out: &[u8]) -> Vec<(f64, &'static str, String)> {
        let kinds = ["o", "r", "m", "x"];
        let named = |kind: &str| kinds.into_iter().find(|known| *known == kind).unwrap();
        lines(out).into_iter().map(|(at, kind, data)| (at, named(&kind), data)).collect()
    }

    #[test]
    fn neighbours_become_one_event_and_characters_stay_whole() {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        let (begin, end) = "界".as_bytes().split_at(2);
        writer.output(7, b"a", &mut out);
        writer.output(7 + MERGE_MS - 1, begin, &mut out);
        writer.output(7 + MERGE_MS, end, &mut out);
        writer.output(1_100, b"\x1b[m\xff", &mut out);
        writer.mark(1_200, "", &mut out);
        writer.resize(1_150, 40, 20, &mut out);
        writer.output(2_500, &[b'x', begin[0]], &mut out);
        writer.exit(2_600, 130, &mut out);
        let wanted = [
            (0.007, "o", "a"),
            (0.010, "o", "界"),
            (1.083, "o", "\u{1b}[m\u{fffd}"),
            (0.1, "m", ""),
            (0.0, "r", "40x20"),
            (1.3, "o", "x\u{fffd}"),
            (0.1, "x", "130"),
        ];
        assert_eq!(data(&out), wanted.map(|(at, kind, data)| (at, kind, data.to_owned())));
    }

    #[test]
    fn a_flood_becomes_lines_of_bounded_length_and_loses_nothing() {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        let text = "\u{1b}[31m界 ü\u{1}".repeat(20_000);
        for piece in text.as_bytes().chunks(65_521) {
            writer.output(5, piece, &mut out);
        }
        writer.flush(&mut out);
        assert!(out.split(|byte| *byte == b'\n').all(|line| line.len() < 200 * 1024));
        let all: String = lines(&out).into_iter().map(|(_, _, data)| data).collect();
        assert!(all == text);
    }

    proptest::proptest! {
        #[test]
        fn wherever_output_is_cut_it_reads_as_one(bytes: Vec<u8>, cuts in proptest::collection::vec(0usize..64, 0..20)) {
            let (mut writer, mut out) = (Writer::default(), Vec::new());
            let mut rest = &bytes[..];
            for (index, cut) in cuts.into_iter().enumerate() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                writer.output(index as u64 * 4, now, &mut out);
                rest = later;
            }
            writer.output(1_000, rest, &mut out);
            writer.end(1_000, &mut out);
            let all: String = lines(&out).into_iter().map(|(_, _, data)| data).collect();
            proptest::prop_assert_eq!(all, String::from_utf8_lossy(&bytes));
        }
    }
}
