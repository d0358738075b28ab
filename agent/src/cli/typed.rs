//! What was typed and has not been confirmed yet, so that it reaches the program once whatever breaks in between.

/// The most that waits for confirmation; then the keyboard is not read any more.
const MAX_PENDING: usize = 256 * 1024;
/// The most bytes of one input message.
const CHUNK: usize = 16 * 1024;

/// The input of one writer.
#[derive(Debug, Default)]
pub struct Typed {
    /// The offset of the first byte of `pending`.
    start: u64,
    pending: Vec<u8>,
    /// How much of `pending` was sent over the channel of now.
    sent: usize,
}

impl Typed {
    /// Whether more may be read from the keyboard.
    pub fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// Takes what was typed.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The offset behind all that was typed.
    pub fn end(&self) -> u64 {
        self.start + self.pending.len() as u64
    }

    /// The next message to send: its offset and its bytes.
    pub fn next(&mut self) -> Option<(u64, &[u8])> {
        let from = self.sent;
        let to = self.pending.len().min(from + CHUNK);
        if from == to {
            return None;
        }
        self.sent = to;
        Some((self.start + from as u64, &self.pending[from..to]))
    }

    /// Everything before this offset has reached the program.
    pub fn taken(&mut self, offset: u64) {
        let done = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.pending.len());
        self.pending.drain(..done);
        self.start += done as u64;
        self.sent = self.sent.saturating_sub(done);
    }

    /// A new attachment expects this offset next: what it has not seen is sent again.
    pub fn reattached(&mut self, expected: u64) {
        self.taken(expected);
        self.sent = 0;
        if self.pending.is_empty() {
            self.start = expected;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_is_sent_again_and_nothing_twice() {
        let mut typed = Typed::default();
        typed.push(b"abc");
        assert_eq!(typed.next(), Some((0, &b"abc"[..])));
        assert_eq!(typed.next(), None);
        typed.push(b"de");
        assert_eq!(typed.next(), Some((3, &b"de"[..])));
        typed.taken(1);
        typed.reattached(2);
        assert_eq!(typed.next(), Some((2, &b"cde"[..])));
        typed.taken(5);
        typed.push(b"f");
        assert_eq!(typed.next(), Some((5, &b"f"[..])));
    }
}
