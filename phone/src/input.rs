//! What was typed and is not yet known to have reached the program (PROTOCOL 10.1).

use std::collections::VecDeque;

/// A whole file that is pasted fits, and waits here for a program that reads slowly; more than that is refused.
pub const MAX_UNTAKEN: usize = 16 * 1024 * 1024;

/// What begins and ends a paste that the program was told of as one.
const PASTE_BEGIN: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// A numbered byte stream from this viewer to a program, kept until the machine says that it was typed.
#[derive(Debug, Default)]
pub struct Input {
    /// The bytes from `taken` on.
    kept: VecDeque<u8>,
    /// Everything before has reached the program.
    taken: u64,
    /// Everything before was handed to the link of now. INVARIANT: `taken <= sent <= taken + kept.len()`.
    sent: u64,
    /// Where pastes that the program was told of begin and end, oldest first. Fewer than bytes are kept.
    pastes: VecDeque<(u64, u64)>,
}

/// The machine and this viewer count differently: it has forgotten this writer, or never knew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfStep {
    /// Bytes of which nobody can say whether they were typed. They are not sent again.
    pub unknown: usize,
}

impl Input {
    /// Takes all of `bytes`, or nothing when too much waits already.
    #[must_use]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        let fits = self.kept.len() + bytes.len() <= MAX_UNTAKEN;
        if fits {
            let begin = self.end();
            self.kept.extend(bytes);
            if bytes.starts_with(PASTE_BEGIN) && bytes.ends_with(PASTE_END) {
                self.pastes.push_back((begin, self.end()));
            }
        }
        fits
    }

    /// How much is not known to have been typed.
    pub fn untaken(&self) -> usize {
        self.kept.len()
    }

    /// Takes back what the link has not taken yet. A paste of which a part is under way ends where it is cut, so that the program does not wait for
    /// the rest of it.
    pub fn take_back(&mut self) {
        let sent = self.sent;
        self.kept.truncate(usize::try_from(sent - self.taken).unwrap_or(usize::MAX));
        self.pastes.retain(|(begin, _)| *begin < sent);
        if let Some((begin, end)) = self.pastes.pop_back() {
            // The cut may be inside of what ends it.
            let left = usize::try_from(end.saturating_sub(sent)).unwrap_or(usize::MAX).min(PASTE_END.len());
            self.kept.extend(&PASTE_END[PASTE_END.len() - left..]);
            self.pastes.push_back((begin, end.min(self.end())));
        }
    }

    /// The machine says that everything before `offset` was typed. What it cannot know is not believed.
    pub fn taken(&mut self, offset: u64) {
        if offset <= self.sent {
            self.drop_before(offset);
        }
    }

    /// A new attachment begins, and the machine expects `offset` next: from there everything is sent again.
    ///
    /// # Errors
    /// [`OutOfStep`] when that is not a point in what is kept. This stream then begins anew at 0, for a writer of another name.
    pub fn resume(&mut self, offset: u64) -> Result<(), OutOfStep> {
        if offset < self.taken || offset > self.end() {
            let unknown = self.kept.len();
            *self = Self::default();
            return Err(OutOfStep { unknown });
        }
        self.drop_before(offset);
        self.sent = offset;
        Ok(())
    }

    /// What to send next, at most `limit` bytes, and its offset. It stays next until [`Self::handed_over`].
    pub fn next(&self, limit: usize) -> Option<(u64, Vec<u8>)> {
        let skip = usize::try_from(self.sent - self.taken).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = self.kept.iter().skip(skip).take(limit).copied().collect();
        (!bytes.is_empty()).then_some((self.sent, bytes))
    }

    /// The link has taken this many bytes of what is next.
    pub fn handed_over(&mut self, count: usize) {
        self.sent = (self.sent + count as u64).min(self.end());
    }

    /// Everything before has reached the program.
    pub fn taken_before(&self) -> u64 {
        self.taken
    }

    /// The offset of what is typed next.
    pub fn end(&self) -> u64 {
        self.taken + self.kept.len() as u64
    }

    fn drop_before(&mut self, offset: u64) {
        let count = usize::try_from(offset.saturating_sub(self.taken)).unwrap_or(usize::MAX).min(self.kept.len());
        self.kept.drain(..count);
        self.taken += count as u64;
        self.sent = self.sent.max(self.taken);
        let taken = self.taken;
        while self.pastes.pop_front_if(|(_, end)| *end <= taken).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(input: &mut Input, limit: usize) -> Option<(u64, Vec<u8>)> {
        let next = input.next(limit);
        if let Some((_, bytes)) = &next {
            input.handed_over(bytes.len());
        }
        next
    }

    #[test]
    fn bytes_go_out_once_in_order_and_again_after_a_break() {
        let mut input = Input::default();
        assert!(input.push(b"hello"));
        assert_eq!(sent(&mut input, 3), Some((0, b"hel".to_vec())));
        assert_eq!(sent(&mut input, 3), Some((3, b"lo".to_vec())));
        assert_eq!(sent(&mut input, 3), None);
        input.taken(4);
        assert_eq!(input.untaken(), 1);
        assert!(input.push(b"!"));
        input.resume(4).unwrap();
        assert_eq!(sent(&mut input, 10), Some((4, b"o!".to_vec())));
    }

    #[test]
    fn a_machine_that_took_more_than_it_could_confirm_is_believed_when_it_resumes() {
        let mut input = Input::default();
        assert!(input.push(b"abcdef"));
        sent(&mut input, 4);
        input.resume(3).unwrap();
        assert_eq!(sent(&mut input, 10), Some((3, b"def".to_vec())));
    }

    #[test]
    fn what_was_never_sent_cannot_have_been_taken() {
        let mut input = Input::default();
        assert!(input.push(b"abc"));
        sent(&mut input, 1);
        input.taken(3);
        assert_eq!(input.untaken(), 3);
    }

    #[test]
    fn out_of_step_sends_nothing_twice() {
        for offset in [1, 9] {
            let mut input = Input::default();
            assert!(input.push(b"abcd"));
            sent(&mut input, 4);
            input.taken(2);
            assert_eq!(input.resume(offset), Err(OutOfStep { unknown: 2 }));
            assert_eq!(input.next(10), None);
            assert!(input.push(b"x"));
            assert_eq!(input.next(10), Some((0, b"x".to_vec())));
        }
    }

    #[test]
    fn what_was_not_sent_can_be_taken_back_and_a_paste_that_was_begun_is_ended() {
        let mut input = Input::default();
        assert!(input.push(b"\x1b[200~abcdef\x1b[201~"));
        assert_eq!(sent(&mut input, 8), Some((0, b"\x1b[200~ab".to_vec())));
        input.take_back();
        assert_eq!(sent(&mut input, 99), Some((8, b"\x1b[201~".to_vec())));
        assert!(input.push(b"plain"));
        assert_eq!(sent(&mut input, 2), Some((14, b"pl".to_vec())));
        input.take_back();
        assert_eq!((sent(&mut input, 99), input.end()), (None, 16));
    }

    #[test]
    fn a_paste_ends_where_it_is_cut_whatever_was_typed_behind_it_and_wherever_the_cut_is() {
        let paste = b"\x1b[200~abc\x1b[201~";
        for cut in 1..=paste.len() {
            let mut input = Input::default();
            assert!(input.push(paste) && input.push(b"\x03"));
            let (_, mut typed) = sent(&mut input, cut).unwrap();
            input.take_back();
            typed.extend(sent(&mut input, 99).map(|(_, bytes)| bytes).unwrap_or_default());
            assert!(typed.ends_with(PASTE_END) && !typed.ends_with(b"\x1b[201~\x1b[201~"), "{cut}");
            input.taken(input.end());
            assert!(input.pastes.is_empty());
        }
    }

    #[test]
    fn too_much_is_refused_whole() {
        let mut input = Input::default();
        assert!(input.push(&vec![b'a'; MAX_UNTAKEN - 1]));
        assert!(!input.push(b"bc"));
        assert!(input.push(b"b"));
        assert_eq!(input.untaken(), MAX_UNTAKEN);
    }
}
