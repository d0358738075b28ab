//! Cuts a byte stream into text, controls and sequences.
//!
//! A Williams-style state machine (<https://vt100.net/emu/dec_ansi_parser>) over bytes. Three things make it ours:
//! the result does not depend on how the stream is cut into feeds; everything it remembers has a bound; and its whole
//! state can be written into a snapshot, so that a viewer may join in the middle of a sequence.
//!
//! Eight-bit C1 controls are not recognised: in UTF-8 output these bytes are continuation bytes or garbage.

use crate::codec::{Malformed, Reader, Writer};

/// An OSC string longer than this is skipped as a whole. Titles and paths are shorter; clipboard (52) and image (1337)
/// payloads, which may be megabytes, are not ours to keep.
pub(crate) const MAX_OSC: usize = 4096;
/// As many parameters as xterm takes, with room to spare; later ones are ignored.
pub(crate) const MAX_PARAMS: usize = 32;
const MAX_INTERMEDIATES: usize = 2;
/// A UTF-8 character that lacks its last byte.
const MAX_PARTIAL: usize = 3;

/// What the parser found, in order.
pub(crate) trait Actions {
    /// Characters without C0 controls and DEL. May be empty.
    fn text(&mut self, text: &str);
    /// A C0 control other than ESC, CAN and SUB.
    fn control(&mut self, byte: u8);
    /// `ESC` intermediates `last`.
    fn escape(&mut self, intermediates: &[u8], last: u8);
    /// A whole control sequence.
    fn csi(&mut self, sequence: &Sequence, last: u8);
    /// The payload of an OSC of at most [`MAX_OSC`] bytes, and whether BEL ended it (replies end alike).
    fn osc(&mut self, payload: &[u8], bell: bool);
}

/// The collected part of a control or escape sequence.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sequence {
    /// One of `<=>?`, or 0.
    pub(crate) marker: u8,
    intermediates: [u8; MAX_INTERMEDIATES],
    intermediate_count: usize,
    /// Those from `count` on are left over from earlier sequences.
    params: [u16; MAX_PARAMS],
    /// Bit n: parameter n was joined to its predecessor by a colon.
    colons: u32,
    count: usize,
}

impl Sequence {
    pub(crate) fn intermediates(&self) -> &[u8] {
        &self.intermediates[..self.intermediate_count]
    }

    /// The given parameters; one that was left out is 0.
    pub(crate) fn params(&self) -> &[u16] {
        &self.params[..self.count]
    }

    /// The parameter at `index`, or 0.
    pub(crate) fn param(&self, index: usize) -> u16 {
        self.params().get(index).copied().unwrap_or(0)
    }

    /// Whether the parameter at `index` belongs to the one before it.
    pub(crate) fn is_sub(&self, index: usize) -> bool {
        index < MAX_PARAMS && self.colons & (1 << index) != 0
    }

    fn clear(&mut self) {
        (self.marker, self.intermediate_count, self.colons, self.count) = (0, 0, 0, 0);
    }

    fn first(&mut self) {
        if self.count == 0 {
            (self.count, self.params[0]) = (1, 0);
        }
    }

    fn digit(&mut self, digit: u8) {
        self.first();
        if let Some(param) = self.params.get_mut(self.count - 1) {
            *param = param.saturating_mul(10).saturating_add(u16::from(digit - b'0'));
        }
    }

    fn separator(&mut self, colon: bool) {
        self.first();
        let next = self.count;
        if next < MAX_PARAMS {
            self.count = next + 1;
            self.params[next] = 0;
            if colon {
                self.colons |= 1 << next;
            }
        } else {
            // Digits of surplus parameters must not run into the last one: a full number stays as it is.
            self.params[MAX_PARAMS - 1] = u16::MAX;
        }
    }

    fn intermediate(&mut self, byte: u8) -> bool {
        let free = self.intermediate_count < MAX_INTERMEDIATES;
        if free {
            self.intermediates[self.intermediate_count] = byte;
            self.intermediate_count += 1;
        }
        free
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Ground,
    Escape,
    EscapeIntermediate,
    CsiEntry,
    CsiParam,
    CsiIntermediate,
    /// Malformed: skipped up to its final byte.
    CsiIgnore,
    Osc,
    /// An OSC that grew over [`MAX_OSC`].
    OscIgnore,
    /// DCS, SOS, PM and APC: sixels, passthrough, title fonts. Nothing of them is shown.
    Skipped,
}

impl State {
    const ALL: [Self; 10] = [
        Self::Ground,
        Self::Escape,
        Self::EscapeIntermediate,
        Self::CsiEntry,
        Self::CsiParam,
        Self::CsiIntermediate,
        Self::CsiIgnore,
        Self::Osc,
        Self::OscIgnore,
        Self::Skipped,
    ];
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parser {
    state: State,
    sequence: Sequence,
    osc: Vec<u8>,
    /// INVARIANT: empty, or the beginning of a UTF-8 character; only in the ground state.
    partial: Vec<u8>,
}

impl Parser {
    /// Whether no sequence is open.
    pub(crate) fn is_sequence_end(&self) -> bool {
        self.state == State::Ground
    }

    /// Bytes that bring another parser into this state: the open sequence, or the beginning of a character.
    pub(crate) fn begun(&self) -> Vec<u8> {
        let sequence = &self.sequence;
        match self.state {
            State::Ground => self.partial.clone(),
            State::Escape | State::EscapeIntermediate => [b"\x1b", sequence.intermediates()].concat(),
            // A second marker is what no sequence has.
            State::CsiIgnore => b"\x1b[??".to_vec(),
            State::CsiEntry | State::CsiParam | State::CsiIntermediate => {
                let mut bytes = b"\x1b[".to_vec();
                bytes.extend((sequence.marker != 0).then_some(sequence.marker));
                for (index, param) in sequence.params().iter().enumerate() {
                    if index > 0 {
                        bytes.push(if sequence.is_sub(index) { b':' } else { b';' });
                    }
                    bytes.extend_from_slice(param.to_string().as_bytes());
                }
                bytes.extend_from_slice(sequence.intermediates());
                bytes
            }
            State::Osc => [b"\x1b]", &self.osc[..]].concat(),
            // A notice of a kind that nobody knows, and as long as nobody reads one.
            State::OscIgnore => [b"\x1b]", &[b'9'; MAX_OSC + 1][..]].concat(),
            State::Skipped => b"\x1b_".to_vec(),
        }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8], to: &mut impl Actions) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let used = match self.state {
                State::Ground => self.ground(rest, to),
                State::Osc => self.osc_bytes(rest, to),
                State::OscIgnore | State::Skipped => self.skip(rest),
                _ => {
                    self.step(rest[0], to);
                    1
                }
            };
            rest = &rest[used..];
        }
    }

    fn ground(&mut self, bytes: &[u8], to: &mut impl Actions) -> usize {
        if !self.partial.is_empty() {
            return self.finish_character(bytes[0], to);
        }
        let run = text_length(bytes);
        if run > 0 {
            self.decode(&bytes[..run], to);
            return run;
        }
        match bytes[0] {
            0x1b => {
                if let Some(length) = self.whole_csi(bytes, to) {
                    return length;
                }
                self.enter(State::Escape);
            }
            0x18 | 0x1a | 0x7f => {}
            control => to.control(control),
        }
        1
    }

    /// Reads a control sequence that is all here and has no intermediates, as nearly all are and have. The same byte by byte takes longer.
    fn whole_csi(&mut self, bytes: &[u8], to: &mut impl Actions) -> Option<usize> {
        let rest = bytes.strip_prefix(b"\x1b[")?;
        self.sequence.clear();
        for (at, &byte) in rest.iter().enumerate() {
            match byte {
                b'0'..=b'9' => self.sequence.digit(byte),
                b':' | b';' => self.sequence.separator(byte == b':'),
                b'<'..=b'?' if at == 0 => self.sequence.marker = byte,
                0x40..=0x7e => {
                    to.csi(&self.sequence, byte);
                    return Some(at + 3);
                }
                _ => return None,
            }
        }
        None
    }

    fn decode(&mut self, mut run: &[u8], to: &mut impl Actions) {
        loop {
            match std::str::from_utf8(run) {
                Ok(text) => return to.text(text),
                Err(error) => {
                    let (valid, tail) = run.split_at(error.valid_up_to());
                    to.text(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(bad) = error.error_len() else {
                        self.partial.extend_from_slice(tail);
                        return;
                    };
                    to.text("\u{fffd}");
                    run = &tail[bad..];
                }
            }
        }
    }

    /// Adds one byte to a half-received character. Returns 0 when the byte does not belong to it and is still to be read.
    fn finish_character(&mut self, byte: u8, to: &mut impl Actions) -> usize {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => to.text(text),
            Err(error) if error.error_len().is_none() => return 1,
            Err(_) => {
                self.partial.clear();
                to.text("\u{fffd}");
                return 0;
            }
        }
        self.partial.clear();
        1
    }

    fn osc_bytes(&mut self, bytes: &[u8], to: &mut impl Actions) -> usize {
        let run = bytes.iter().position(|&byte| byte < 0x20).unwrap_or(bytes.len());
        if run > 0 {
            if self.osc.len() + run > MAX_OSC {
                self.osc = Vec::new();
                self.state = State::OscIgnore;
            } else {
                self.osc.extend_from_slice(&bytes[..run]);
            }
            return run;
        }
        match bytes[0] {
            end @ (0x07 | 0x1b) => {
                let payload = std::mem::take(&mut self.osc);
                self.enter(if end == 0x1b { State::Escape } else { State::Ground });
                to.osc(&payload, end == 0x07);
            }
            0x18 | 0x1a => {
                self.osc = Vec::new();
                self.enter(State::Ground);
            }
            _ => {}
        }
        1
    }

    fn skip(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = bytes.iter().position(|byte| matches!(byte, 0x07 | 0x18 | 0x1a | 0x1b)) else {
            return bytes.len();
        };
        match bytes[end] {
            0x1b => self.enter(State::Escape),
            0x07 if self.state == State::Skipped => {}
            _ => self.enter(State::Ground),
        }
        end + 1
    }

    fn step(&mut self, byte: u8, to: &mut impl Actions) {
        match (self.state, byte) {
            (_, 0x1b) => self.enter(State::Escape),
            (_, 0x18 | 0x1a) => self.enter(State::Ground),
            (_, 0x00..=0x1f) => to.control(byte),
            (_, 0x7f) => {}
            // Eight-bit bytes end a sequence: what follows is text again.
            (_, 0x80..) => {
                self.enter(State::Ground);
                self.ground(&[byte], to);
            }
            (State::Escape | State::EscapeIntermediate, _) => self.escape_byte(byte, to),
            _ => self.csi_byte(byte, to),
        }
    }

    fn escape_byte(&mut self, byte: u8, to: &mut impl Actions) {
        match byte {
            0x20..=0x2f => {
                self.sequence.intermediate(byte);
                self.state = State::EscapeIntermediate;
            }
            b'[' if self.state == State::Escape => self.enter(State::CsiEntry),
            b']' if self.state == State::Escape => self.enter(State::Osc),
            b'P' | b'X' | b'^' | b'_' if self.state == State::Escape => self.enter(State::Skipped),
            _ => {
                self.state = State::Ground;
                to.escape(self.sequence.intermediates(), byte);
            }
        }
    }

    fn csi_byte(&mut self, byte: u8, to: &mut impl Actions) {
        match (self.state, byte) {
            (State::CsiIgnore, 0x40..) => self.state = State::Ground,
            (State::CsiIgnore, _) => {}
            (_, 0x40..) => {
                self.state = State::Ground;
                to.csi(&self.sequence, byte);
            }
            (_, 0x20..=0x2f) => {
                let kept = self.sequence.intermediate(byte);
                self.state = if kept { State::CsiIntermediate } else { State::CsiIgnore };
            }
            (State::CsiEntry, b'<'..=b'?') => {
                self.sequence.marker = byte;
                self.state = State::CsiParam;
            }
            (State::CsiEntry | State::CsiParam, b'0'..=b'9') => {
                self.sequence.digit(byte);
                self.state = State::CsiParam;
            }
            (State::CsiEntry | State::CsiParam, b':' | b';') => {
                self.sequence.separator(byte == b':');
                self.state = State::CsiParam;
            }
            _ => self.state = State::CsiIgnore,
        }
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.sequence.clear();
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u8(State::ALL.iter().position(|state| *state == self.state).unwrap_or(0) as u8);
        out.bytes(&self.partial);
        match self.state {
            State::Ground | State::CsiIgnore | State::OscIgnore | State::Skipped => {}
            State::Osc => out.bytes(&self.osc),
            _ => {
                out.u8(self.sequence.marker);
                out.bytes(self.sequence.intermediates());
                out.varint(u64::from(self.sequence.colons));
                out.varint(self.sequence.count as u64);
                for param in self.sequence.params() {
                    out.varint(u64::from(*param));
                }
            }
        }
    }

    pub(crate) fn decode_state(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut parser = Self {
            state: *State::ALL.get(usize::from(input.u8()?)).ok_or(Malformed)?,
            partial: input.bytes(MAX_PARTIAL)?.to_vec(),
            ..Self::default()
        };
        // A partial character must be one: the parser relies on it.
        if !parser.partial.is_empty() {
            let begun = std::str::from_utf8(&parser.partial)
                .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none());
            if !begun || parser.state != State::Ground {
                return Err(Malformed);
            }
        }
        match parser.state {
            State::Ground | State::CsiIgnore | State::OscIgnore | State::Skipped => {}
            State::Osc => parser.osc = input.bytes(MAX_OSC)?.to_vec(),
            _ => parser.sequence = decode_sequence(input)?,
        }
        Ok(parser)
    }
}

/// How many bytes there are before the first control.
fn text_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let mut length = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]);
        // The high bit of each byte below 0x20, and of each that is 0x7f; perhaps of one after such a byte too.
        let delete = word ^ (ONES * 0x7f);
        let controls = (word.wrapping_sub(ONES * 0x20) & !word | delete.wrapping_sub(ONES) & !delete) & HIGH;
        if controls != 0 {
            return length + controls.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    let rest = &bytes[length..];
    length + rest.iter().position(|&byte| byte < 0x20 || byte == 0x7f).unwrap_or(rest.len())
}

fn decode_sequence(input: &mut Reader<'_>) -> Result<Sequence, Malformed> {
    let mut sequence = Sequence { marker: input.u8()?, ..Sequence::default() };
    if sequence.marker != 0 && !(b'<'..=b'?').contains(&sequence.marker) {
        return Err(Malformed);
    }
    for byte in input.bytes(MAX_INTERMEDIATES)? {
        if !(0x20..=0x2f).contains(byte) || !sequence.intermediate(*byte) {
            return Err(Malformed);
        }
    }
    sequence.colons = u32::try_from(input.varint()?).map_err(|_| Malformed)?;
    sequence.count = input.count(MAX_PARAMS)?;
    for index in 0..sequence.count {
        sequence.params[index] = u16::try_from(input.varint()?).map_err(|_| Malformed)?;
    }
    Ok(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, PartialEq, Debug)]
    struct Found(Vec<String>);

    impl Actions for Found {
        fn text(&mut self, text: &str) {
            match self.0.last_mut() {
                Some(last) if last.starts_with('t') => last.push_str(text),
                _ => self.0.push(format!("t{text}")),
            }
        }
        fn control(&mut self, byte: u8) {
            self.0.push(format!("c{byte}"));
        }
        fn escape(&mut self, intermediates: &[u8], last: u8) {
            self.0.push(format!("e{intermediates:?}{last}"));
        }
        fn csi(&mut self, sequence: &Sequence, last: u8) {
            let Sequence { marker, colons, .. } = sequence;
            let colons = colons & ((1_u64 << sequence.count) - 1) as u32;
            self.0.push(format!("{marker} {:?} {:?} {colons} {last}", sequence.intermediates(), sequence.params()));
        }
        fn osc(&mut self, payload: &[u8], bell: bool) {
            self.0.push(format!("o{payload:?}{bell}"));
        }
    }

    #[test]
    fn a_control_sequence_that_is_all_there_is_read_as_byte_by_byte() {
        let many = "1;".repeat(40);
        for stream in [
            "\x1b[m",
            "\x1b[1;31mred\x1b[;5m",
            "\x1b[38:2::1:2:3m",
            "\x1b[?1049;25h",
            "\x1b[1?h",
            "\x1b[>c",
            "\x1b[ q",
            "\x1b[2 q\x1b[3m",
            "\x1b[1\n2m",
            "\x1b[1\x18x",
            "\x1b[12\x1b[3m",
            "\x1b[99999999m",
            "\x1b[1\x7f2m",
            "\x1b[1é",
            "\x1b[;;H",
            "\x1b[5;m\x1b[m",
            &format!("\x1b[{many}7m\x1b[4m"),
        ] {
            let (mut whole, mut pieces) = (Found::default(), Found::default());
            Parser::default().feed(stream.as_bytes(), &mut whole);
            let mut parser = Parser::default();
            stream.bytes().for_each(|byte| parser.feed(&[byte], &mut pieces));
            assert_eq!(whole, pieces, "{stream:?}");
        }
    }

    #[test]
    fn text_ends_at_the_first_control_wherever_it_stands() {
        for control in [0, 0x07, 0x1b, 0x1f, 0x7f] {
            for place in 0..30 {
                let mut bytes = b"ab \x80\xff~ \xa0".repeat(4);
                bytes[place] = control;
                assert_eq!(text_length(&bytes), place, "{control}");
            }
        }
        assert_eq!((text_length(b""), text_length(&[0x80; 17])), (0, 17));
    }
}
