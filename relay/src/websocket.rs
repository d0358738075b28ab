//! The server's side of a websocket (RFC 6455), as far as a relay needs it: messages are read from where they arrived, and frames are
//! put behind one another as they go onto the socket.
//!
//! A library owns what it reads and what it writes, so each frame costs an allocation, and each connection a buffer for its lifetime. Here the
//! bytes lie wherever the caller has them. There is no compression and no other extension.

use std::borrow::Cow;

use happy_wire::relay::MAX_FRAME;

/// The longest head of a frame: two bytes, a length of eight, a mask.
pub(crate) const MAX_HEAD: usize = 2 + 8 + 4;
/// The most that a control frame carries.
const MAX_CONTROL: usize = 125;
/// The first byte: the last frame of its message, and no reserved bit.
const FINAL: u8 = 0x80;
/// The second byte: there is a mask.
const MASKED: u8 = 0x80;
/// Lengths in the second byte that announce one of two or of eight bytes.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a device sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// Owned when it came in fragments.
    Binary(Cow<'a, [u8]>),
    /// Or the first fragment of one.
    Text,
    /// A Ping of the websocket, which is answered with the same bytes.
    Ping(&'a [u8]),
    /// With the code to answer.
    Close(u16),
}

/// Why a device cannot be listened to any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It broke the rules of websockets.
    Broken,
    /// A message is larger than a frame of the protocol.
    TooLarge,
}

/// Takes messages out of bytes.
#[derive(Default)]
pub(crate) struct Reader {
    /// The beginning of a message whose end has not come.
    // INVARIANT: it takes at most MAX_FRAME bytes, those that it has reserved included.
    fragments: Option<Vec<u8>>,
}

/// The head of a frame from a device.
struct Head {
    last: bool,
    kind: u8,
    mask: [u8; 4],
    /// Of the head itself, and of what it announces.
    len: usize,
    body: usize,
}

impl Head {
    /// Reads it as soon as it is there, so that nobody waits for the body of a frame that is refused.
    fn read(bytes: &[u8]) -> Result<Option<Head>, Fault> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (last, kind) = (first & FINAL != 0, first & !FINAL);
        let is_control = matches!(kind, CLOSE | PING | PONG);
        // The reserved bits are part of `kind` here, so a frame with one is of no known kind.
        let known = is_control || matches!(kind, CONTINUATION | TEXT | BINARY);
        // RFC 6455, 5.1: a server closes upon a frame that is not masked.
        if !known || second & MASKED == 0 {
            return Err(Fault::Broken);
        }
        let short = second & !MASKED;
        let (body, rest) = match short {
            LENGTH_16 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            LENGTH_64 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (short.into(), rest),
        };
        if is_control && (!last || body > MAX_CONTROL as u64) {
            return Err(Fault::Broken);
        }
        if body > MAX_FRAME as u64 {
            return Err(Fault::TooLarge);
        }
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Head { last, kind, mask: *mask, len: bytes.len() - rest.len(), body: body as usize }))
    }
}

impl Reader {
    /// Takes the next message off the front of `bytes`; none when it is not there as a whole.
    ///
    /// # Errors
    /// [`Fault`]; what comes behind it has no meaning any more.
    pub(crate) fn next<'a>(&mut self, bytes: &mut &'a mut [u8]) -> Result<Option<Message<'a>>, Fault> {
        while let Some(head) = Head::read(bytes)? {
            let before = self.fragments.as_ref().map_or(0, Vec::len);
            if head.kind == CONTINUATION && before + head.body > MAX_FRAME {
                return Err(Fault::TooLarge);
            }
            if bytes.len() < head.len + head.body {
                break;
            }
            let (frame, rest) = std::mem::take(bytes).split_at_mut(head.len + head.body);
            *bytes = rest;
            let body = frame.split_at_mut(head.len).1;
            unmask(body, head.mask);
            if let Some(message) = self.take(&head, body)? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    /// What it keeps of a message whose end has not come, bytes.
    pub(crate) fn held(&self) -> usize {
        self.fragments.as_ref().map_or(0, Vec::capacity)
    }

    /// None for a frame that is no message by itself.
    fn take<'a>(&mut self, head: &Head, body: &'a [u8]) -> Result<Option<Message<'a>>, Fault> {
        match (head.kind, self.fragments.is_some()) {
            (CLOSE, _) => Ok(Some(Message::Close(answer_to_close(body)?))),
            (PING, _) => Ok(Some(Message::Ping(body))),
            (PONG, _) => Ok(None),
            (TEXT, false) => Ok(Some(Message::Text)),
            (BINARY, false) if head.last => Ok(Some(Message::Binary(body.into()))),
            (BINARY, false) => {
                self.fragments = Some(body.to_vec());
                Ok(None)
            }
            (CONTINUATION, true) => {
                let Some(fragments) = &mut self.fragments else { return Err(Fault::Broken) };
                make_room(fragments, body.len());
                fragments.extend_from_slice(body);
                let whole = if head.last { self.fragments.take() } else { None };
                Ok(whole.map(|whole| Message::Binary(whole.into())))
            }
            _ => Err(Fault::Broken),
        }
    }
}

/// Doubles what a message in fragments may take, as a vector does by itself, but never beyond a whole frame.
fn make_room(fragments: &mut Vec<u8>, more: usize) {
    let needed = fragments.len() + more;
    if needed > fragments.capacity() {
        let wanted = needed.max((2 * fragments.capacity()).min(MAX_FRAME));
        fragments.reserve_exact(wanted - fragments.len());
    }
}

/// RFC 6455, 5.5.1: a code of two bytes and a text, or nothing. The answer has the same code, unless nobody may send that.
fn answer_to_close(body: &[u8]) -> Result<u16, Fault> {
    const NORMAL: u16 = 1000;
    const PROTOCOL_ERROR: u16 = 1002;
    let Some((code, text)) = body.split_first_chunk() else {
        return if body.is_empty() { Ok(NORMAL) } else { Err(Fault::Broken) };
    };
    std::str::from_utf8(text).map_err(|_| Fault::Broken)?;
    match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(code),
        _ => Ok(PROTOCOL_ERROR),
    }
}

/// In steps that the compiler turns into vector instructions.
fn unmask(body: &mut [u8], mask: [u8; 4]) {
    const STEP: usize = 32;
    let wide: [u8; STEP] = std::array::from_fn(|n| mask[n % 4]);
    let (steps, rest) = body.as_chunks_mut::<STEP>();
    for step in steps {
        step.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
    }
    rest.iter_mut().zip(wide).for_each(|(byte, mask)| *byte ^= mask);
}

/// Appends the head of a binary message of `length` bytes.
pub(crate) fn put_head(out: &mut Vec<u8>, length: usize) {
    put_head_of(BINARY, out, length);
}

/// Appends a binary message.
pub(crate) fn put_message(out: &mut Vec<u8>, message: &[u8]) {
    put_head(out, message.len());
    out.extend_from_slice(message);
}

/// Appends the answer to a Ping of the websocket.
pub(crate) fn put_pong(out: &mut Vec<u8>, body: &[u8]) {
    put_head_of(PONG, out, body.len());
    out.extend_from_slice(body);
}

/// Appends the last frame of a connection.
pub(crate) fn put_close(out: &mut Vec<u8>, code: u16, text: &str) {
    let text = text.get(..MAX_CONTROL - 2).unwrap_or(text);
    put_head_of(CLOSE, out, 2 + text.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_head_of(kind: u8, out: &mut Vec<u8>, length: usize) {
    out.push(FINAL | kind);
    match length {
        0..126 => out.push(length as u8),
        126..0x1_0000 => {
            out.push(LENGTH_16);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The messages among frames that were put behind one another here.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let [first, short, rest @ ..] = bytes else { return None };
            let (length, rest) = match *short {
                LENGTH_16 => rest.split_first_chunk().map(|(n, rest)| (u16::from_be_bytes(*n).into(), rest))?,
                LENGTH_64 => rest.split_first_chunk().map(|(n, rest)| (u64::from_be_bytes(*n) as usize, rest))?,
                short => (usize::from(short), rest),
            };
            let (body, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            if *first == FINAL | BINARY {
                return Some(body);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    /// A frame as a device sends it.
    fn frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_head_of(0, &mut out, body.len());
        out[0] = first;
        out[1] |= MASKED;
        out.extend_from_slice(&MASK);
        out.extend(body.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// Everything in `bytes`, which come `step` at a time.
    fn read(bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, Fault> {
        let (mut reader, mut kept, mut messages) = (Reader::default(), Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            kept.extend_from_slice(part);
            let mut rest = &mut kept[..];
            while let Some(message) = reader.next(&mut rest)? {
                messages.push(match message {
                    Message::Binary(body) => body.into_owned(),
                    other => format!("{other:?}").into_bytes(),
                });
            }
            kept = rest.to_vec();
        }
        Ok(messages)
    }

    #[test]
    fn messages_of_all_lengths_are_read_wherever_they_are_cut() {
        let bodies: Vec<Vec<u8>> =
            [0, 1, 31, 32, 33, 125, 126, 127, 1000, 0xffff, 0x1_0000].map(|n| (0..n).map(|n| n as u8).collect()).into();
        let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(FINAL | BINARY, body)).collect();
        for step in [1, 3, 4096, bytes.len()] {
            assert_eq!(read(&bytes, step), Ok(bodies.clone()), "{step}");
        }
    }

    #[test]
    fn fragments_are_put_together_around_control_frames() {
        let bytes = [
            frame(BINARY, b"one "),
            frame(FINAL | PING, b"?"),
            frame(CONTINUATION, b"two "),
            frame(FINAL | PONG, b""),
            frame(FINAL | CONTINUATION, b"three"),
            frame(FINAL | BINARY, b"four"),
        ]
        .concat();
        let whole: Vec<Vec<u8>> = vec![b"Ping([63])".into(), b"one two three".into(), b"four".into()];
        assert_eq!(read(&bytes, bytes.len()), Ok(whole.clone()));
        assert_eq!(read(&bytes, 1), Ok(whole));
    }

    #[test]
    fn what_breaks_the_rules_is_refused() {
        let mut unmasked = frame(FINAL | BINARY, b"x");
        unmasked[1] &= !MASKED;
        for (what, bytes) in [
            ("not masked", unmasked),
            ("a reserved bit", frame(FINAL | 0x40 | BINARY, b"")),
            ("a reserved kind", frame(FINAL | 3, b"")),
            ("a reserved control kind", frame(FINAL | 11, b"")),
            ("a control frame in fragments", frame(PING, b"")),
            ("a control frame too long", frame(FINAL | PING, &[0; 126])),
            ("a continuation of nothing", frame(FINAL | CONTINUATION, b"")),
            ("a message within another", [frame(BINARY, b""), frame(FINAL | BINARY, b"")].concat()),
            ("a close with half a code", frame(FINAL | CLOSE, b"x")),
            ("a close with a text that is none", frame(FINAL | CLOSE, &[3, 232, 0xff])),
        ] {
            assert_eq!(read(&bytes, bytes.len()), Err(Fault::Broken), "{what}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_comes() {
        let head = |first, length: u64| {
            let mut bytes = vec![first, MASKED | LENGTH_64];
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes
        };
        for length in [MAX_FRAME as u64 + 1, u64::MAX] {
            let bytes = head(FINAL | BINARY, length);
            assert_eq!(read(&bytes, bytes.len()), Err(Fault::TooLarge));
        }
        let bytes = [frame(BINARY, &vec![0; MAX_FRAME]), frame(FINAL | CONTINUATION, b"x")[..6].to_vec()].concat();
        assert_eq!(read(&bytes, bytes.len()), Err(Fault::TooLarge));
    }

    #[test]
    fn a_close_is_answered_with_its_code_if_it_is_one() {
        for (body, answer) in [(&b""[..], 1000), (&[3, 233], 1001), (&[3, 237], 1002), (&[15, 160, b'x'], 4000)] {
            let mut bytes = frame(FINAL | CLOSE, body);
            assert_eq!(Reader::default().next(&mut &mut bytes[..]), Ok(Some(Message::Close(answer))));
        }
    }

    #[test]
    fn messages_that_were_put_are_found_again() {
        let bodies: [Vec<u8>; 3] = [vec![1; 3], vec![2; 300], vec![3; 70_000]];
        let mut out = Vec::new();
        put_pong(&mut out, b"x");
        bodies.iter().for_each(|body| put_message(&mut out, body));
        put_close(&mut out, 1000, "");
        assert!(messages(&out).eq(bodies.iter().map(Vec::as_slice)));
    }
}
