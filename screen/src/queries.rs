//! Questions that programs ask the terminal, and our answers.
//!
//! Exactly one party answers: the holder of the session. Viewers that keep a [`Screen`](crate::Screen) ignore the
//! replies, and a viewer that is a real terminal gets the stream through a [`QueryFilter`], because it would answer on
//! its own and the answer would be typed into the shell.

use crate::modes::Modes;
use crate::parser::{Actions, MAX_OSC, Parser, Sequence};

/// A VT220 with colour. Programs read it as "xterm-like, ask no more".
const DA1: &[u8] = b"\x1b[?62;22c";
/// The same in the second dialect; the version is ours.
const DA2: &[u8] = b"\x1b[>1;1;0c";
const XTVERSION: &str = concat!("\x1bP>|happy ", env!("CARGO_PKG_VERSION"), "\x1b\\");
/// What programs are told about colours so that they pick a palette for a dark screen, which ours are.
const FOREGROUND: &str = "rgb:e6e6/e6e6/e6e6";
const BACKGROUND: &str = "rgb:1010/1010/1414";

/// A question with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// DA1: what are you?
    PrimaryAttributes,
    /// DA2
    SecondaryAttributes,
    /// DSR 5
    Status,
    /// DSR 6: where is the cursor?
    CursorPosition,
    /// DSR ?6, the same in the private dialect.
    ExtendedCursorPosition,
    /// DECRQM of a DEC private mode.
    PrivateMode(u16),
    /// DECRQM of an ANSI mode.
    AnsiMode(u16),
    /// XTVERSION
    Version,
    /// XTWINOPS 18: how large is the text area, in cells?
    Size,
}

impl Query {
    pub(crate) fn from_csi(sequence: &Sequence, last: u8) -> Option<Self> {
        let first = sequence.param(0);
        Some(match (sequence.marker, sequence.intermediates(), last) {
            (0, [], b'c') if first == 0 => Self::PrimaryAttributes,
            (b'>', [], b'c') if first == 0 => Self::SecondaryAttributes,
            (0, [], b'n') if first == 5 => Self::Status,
            (0, [], b'n') if first == 6 => Self::CursorPosition,
            (b'?', [], b'n') if first == 6 => Self::ExtendedCursorPosition,
            (b'?', [b'$'], b'p') => Self::PrivateMode(first),
            (0, [b'$'], b'p') => Self::AnsiMode(first),
            (b'>', [], b'q') if first == 0 => Self::Version,
            (0, [], b't') if first == 18 => Self::Size,
            _ => return None,
        })
    }
}

/// `size` is columns and rows, `cursor` row and column from 1.
pub(crate) fn reply(query: Query, modes: &Modes, size: (u16, u16), cursor: (u16, u16)) -> Vec<u8> {
    let (row, col) = cursor;
    match query {
        Query::PrimaryAttributes => DA1.to_vec(),
        Query::SecondaryAttributes => DA2.to_vec(),
        Query::Status => b"\x1b[0n".to_vec(),
        Query::CursorPosition => format!("\x1b[{row};{col}R").into_bytes(),
        Query::ExtendedCursorPosition => format!("\x1b[?{row};{col};1R").into_bytes(),
        Query::PrivateMode(mode) => format!("\x1b[?{mode};{}$y", setting(modes.get(mode))).into_bytes(),
        Query::AnsiMode(mode) => {
            let known = match mode {
                4 => Some(modes.insert),
                20 => Some(modes.newline),
                _ => None,
            };
            format!("\x1b[{mode};{}$y", setting(known)).into_bytes()
        }
        Query::Version => XTVERSION.into(),
        Query::Size => format!("\x1b[8;{};{}t", size.1, size.0).into_bytes(),
    }
}

fn setting(set: Option<bool>) -> u8 {
    match set {
        None => 0,
        Some(true) => 1,
        Some(false) => 2,
    }
}

/// The answer to `OSC 10 ; ?` and `OSC 11 ; ?`, ended as the question was.
pub(crate) fn color_reply(number: &str, text: &str, bell: bool) -> Option<Vec<u8>> {
    let color = match (number, text) {
        ("10", "?") => FOREGROUND,
        ("11", "?") => BACKGROUND,
        _ => return None,
    };
    let end = if bell { "\x07" } else { "\x1b\\" };
    Some(format!("\x1b]{number};{color}{end}").into_bytes())
}

/// Takes queries out of a live stream on its way to a real terminal. Everything else passes byte for byte; a sequence
/// that is not complete is held back until it is.
#[derive(Debug, Default)]
pub struct QueryFilter {
    parser: Parser,
    held: Vec<u8>,
    /// The held sequence grew over the bound: let the rest of it pass.
    passing: bool,
}

/// A real terminal must see a long string as it grows, and nothing that long is a question.
const MAX_HELD: usize = MAX_OSC + 64;

impl QueryFilter {
    /// Appends to `out` what the terminal may see of the next bytes of the stream.
    pub fn filter(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.held.is_empty() && !self.passing {
                let plain = bytes.iter().position(|byte| *byte == 0x1b).unwrap_or(bytes.len());
                out.extend_from_slice(&bytes[..plain]);
                bytes = &bytes[plain..];
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            self.sequence_byte(*byte, out);
        }
    }

    fn sequence_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        let mut seen = Seen(false);
        self.parser.feed(&[byte], &mut seen);
        if self.passing {
            out.push(byte);
            self.passing = !self.parser.is_sequence_end();
            return;
        }
        if byte == 0x1b && !self.held.is_empty() && !seen.0 && !self.in_string() {
            // A new sequence has cut the old one off.
            out.append(&mut self.held);
        }
        self.held.push(byte);
        if seen.0 {
            self.held.clear();
            // `ESC` has ended a question; what follows is its `\` or a sequence of its own.
            if byte == 0x1b {
                self.held.push(byte);
            }
        }
        if self.parser.is_sequence_end() {
            if !self.is_string_query() && self.held != b"\x1b\\" {
                out.append(&mut self.held);
            }
            self.held.clear();
        } else if self.held.len() > MAX_HELD {
            out.append(&mut self.held);
            self.passing = true;
        }
    }

    /// Whether the held bytes are a string of which only the terminator may be missing.
    fn in_string(&self) -> bool {
        matches!(self.held.get(1), Some(b']' | b'P' | b'X' | b'^' | b'_'))
    }

    /// DECRQSS, XTGETTCAP and kitty's graphics, which all may be answered.
    fn is_string_query(&self) -> bool {
        [&b"\x1bP$q"[..], b"\x1bP+q", b"\x1b_G"].iter().any(|query| self.held.starts_with(query))
    }
}

/// Whether a question was seen. Wider than what we answer: real terminals know more questions.
struct Seen(bool);

impl Actions for Seen {
    fn text(&mut self, _: &str) {}

    fn control(&mut self, _: u8) {}

    fn escape(&mut self, intermediates: &[u8], last: u8) {
        // DECID
        self.0 |= intermediates.is_empty() && last == b'Z';
    }

    fn csi(&mut self, sequence: &Sequence, last: u8) {
        let first = sequence.param(0);
        self.0 |= Query::from_csi(sequence, last).is_some()
            || match (sequence.marker, sequence.intermediates(), last) {
                (_, [], b'c' | b'n') | (0, [], b'x') | (b'?', [], b'u') | (_, [b'$'], b'p') => true,
                (0, [], b't') => matches!(first, 11 | 13..=16 | 18..=21),
                (b'?', [], b'm' | b'S') | (0, [b'$'], b'u' | b'w') | (0, [b'*'], b'y') => true,
                _ => false,
            };
    }

    fn osc(&mut self, payload: &[u8], _: bool) {
        // Colours, palette, clipboard, fonts: a parameter `?` asks.
        self.0 |= payload.split(|byte| *byte == b';').skip(1).any(|part| part == b"?");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(stream: &[u8], cut: usize) -> Vec<u8> {
        let mut filter = QueryFilter::default();
        let mut out = Vec::new();
        for piece in stream.chunks(cut) {
            filter.filter(piece, &mut out);
        }
        out
    }

    #[test]
    fn questions_vanish_and_everything_else_passes_at_any_cut() {
        let stream = b"a\x1b[31mb\x1b[c\x1b[>c\x1b[5n\x1b[6nc\x1b[?6n\x1b[?2026$p\x1b[4$p\x1b[>q\x1b]11;?\x07d\x1b]10;?\x1b\\e\
            \x1b]2;title\x1b\\\x1b]0;t\x07\x1b[18t\x1b[22;2t\x1bP$qm\x1b\\\x1bP+q544e\x1b\\f\x1bPqsixel\x1b\\\x1b[?u\x1b[>1u\xe7\x95\x8cg";
        let expected = b"a\x1b[31mbcde\x1b]2;title\x1b\\\x1b]0;t\x07\x1b[22;2tf\x1bPqsixel\x1b\\\x1b[>1u\xe7\x95\x8cg";
        for cut in 1..stream.len() {
            assert_eq!(filtered(stream, cut).escape_ascii().to_string(), expected.escape_ascii().to_string(), "{cut}");
        }
    }

    #[test]
    fn endless_strings_pass_without_being_kept() {
        let mut filter = QueryFilter::default();
        let mut out = Vec::new();
        filter.filter(b"\x1bPq", &mut out);
        for _ in 0..1000 {
            filter.filter(&[b'~'; 1000], &mut out);
        }
        assert!(filter.held.is_empty());
        filter.filter(b"\x1b\\x\x1b[cy", &mut out);
        assert_eq!(out.len(), 3 + 1_000_000 + 2 + 2);
        assert!(out.ends_with(b"\x1b\\xy"));
    }

    #[test]
    fn a_sequence_cut_off_by_another_passes() {
        assert_eq!(filtered(b"\x1b[3\x1b[6n\x1b[1mx", 100), b"\x1b[3\x1b[1mx");
    }
}
