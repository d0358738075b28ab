//! The language of tmux's control mode: lines in, answers and notifications out. Bytes go in, nothing waits here.
//!
//! An answer stands between `%begin TIME NUMBER FLAGS` and `%end` or `%error` with the same three words. What a pane shows is printed
//! there as it is, so a program could print a line that looks like the end. Whoever asks for rows of a pane therefore says how many will
//! come ([`Parser::expect_rows`]), and those are taken without a look at them.

use bytes::{Buf, BytesMut};

use super::SessionId;

/// The most bytes of a line: a row of a thousand columns, each with colours, marks and a link of its own, is shorter.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// The most bytes of an answer that are kept. What is longer is read to its end and marked as cut.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What tmux said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has done a command, or not.
    Answer(Answer),
    /// Sessions have come, gone or got another name.
    Sessions,
    /// A client is shown a session; none: the one that is told.
    Shows(Option<String>, SessionId),
    /// A client has gone.
    Detached,
    /// Sizes, panes or the current window have changed.
    Layout,
    /// The client is to end.
    Exit,
    /// Something else.
    Other,
}

/// The answer to a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// It was done.
    pub ok: bool,
    /// To a command that came over standard input, not to the one that the client was started with.
    pub asked: bool,
    /// What was printed.
    pub lines: Vec<Vec<u8>>,
    /// More than [`MAX_ANSWER`] was printed.
    pub is_cut: bool,
}

impl Answer {
    /// Its lines as text, one after the other: a sentence of tmux's, mostly.
    pub fn text(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
        lines.join("; ")
    }
}

/// The other side says what is not control mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of more than {MAX_LINE} bytes")]
pub struct TooLong;

/// Takes what tmux prints.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: BytesMut,
    /// No end of line before this.
    searched: usize,
    block: Option<Block>,
    expected: usize,
}

#[derive(Debug)]
struct Block {
    /// The three words of its beginning.
    guard: Vec<u8>,
    answer: Answer,
    bytes: usize,
    /// Lines that are to be taken unseen.
    rows: usize,
}

impl Parser {
    /// Where to put what was read.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next answer begins with so many lines of a pane.
    pub fn expect_rows(&mut self, rows: usize) {
        self.expected = rows;
    }

    /// What was said next, when it is whole.
    ///
    /// # Errors
    /// [`TooLong`]; nothing can be understood afterwards.
    pub fn next_event(&mut self) -> Result<Option<Event>, TooLong> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n').map(|at| self.searched + at) else {
                self.searched = self.buffer.len();
                return if self.searched > MAX_LINE { Err(TooLong) } else { Ok(None) };
            };
            self.searched = 0;
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            if let Some(event) = self.take(&line) {
                return Ok(Some(event));
            }
        }
    }

    fn take(&mut self, line: &[u8]) -> Option<Event> {
        let Some(block) = &mut self.block else {
            let Some(guard) = line.strip_prefix(b"%begin ") else { return Some(notification(line)) };
            let asked = guard.rsplit(|byte| *byte == b' ').next() == Some(b"1");
            let answer = Answer { asked, ..Answer::default() };
            // The answer to the command that started the client is none that somebody waits for.
            let rows = if asked { std::mem::take(&mut self.expected) } else { 0 };
            self.block = Some(Block { guard: guard.to_vec(), answer, bytes: 0, rows });
            return None;
        };
        let ends = |word: &[u8]| line.strip_prefix(word).is_some_and(|guard| guard == block.guard);
        let ok = ends(b"%end ");
        if block.rows == 0 && (ok || ends(b"%error ")) {
            return self.block.take().map(|block| Event::Answer(Answer { ok, ..block.answer }));
        }
        block.rows = block.rows.saturating_sub(1);
        block.bytes += line.len() + 1;
        if block.bytes > MAX_ANSWER {
            block.answer.is_cut = true;
        } else {
            block.answer.lines.push(line.to_vec());
        }
        None
    }
}

fn notification(line: &[u8]) -> Event {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let id = |word: Option<&str>| word.and_then(|word| word.parse::<SessionId>().ok());
    match words.next() {
        Some("%sessions-changed" | "%session-renamed") => Event::Sessions,
        Some("%session-changed") => id(words.next()).map_or(Event::Other, |session| Event::Shows(None, session)),
        Some("%client-session-changed") => {
            let client = words.next().unwrap_or_default().to_owned();
            id(words.next()).map_or(Event::Other, |session| Event::Shows(Some(client), session))
        }
        Some("%client-detached") => Event::Detached,
        Some("%layout-change" | "%window-pane-changed" | "%session-window-changed" | "%window-close") => Event::Layout,
        Some("%exit") => Event::Exit,
        _ => Event::Other,
    }
}

/// A word of a command line for standard input. Within single quotes tmux takes everything as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A text for an argument of which tmux says that it is a format: nothing of it is one, above all no `#(command)`.
pub fn literal(text: &str) -> String {
    text.replace('#', "##")
}

/// An argument for tmux's command line, where one that ends with `;` would end the command.
pub fn argument(word: &str) -> String {
    match word.strip_suffix(';') {
        Some(before) => format!("{before}\\;"),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(parser: &mut Parser, bytes: &[u8]) -> Vec<Event> {
        parser.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| parser.next_event().unwrap()).collect()
    }

    fn answer(ok: bool, asked: bool, lines: &[&str]) -> Event {
        let lines = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        Event::Answer(Answer { ok, asked, lines, is_cut: false })
    }

    const TALK: &[u8] = b"%begin 1 7 0\n%end 1 7 0\n%session-changed $3 a b\n%begin 1 8 1\none\n\n%end 1 8 1\n\
        %sessions-changed\n%client-session-changed /dev/pts/1 $4 x\n%begin 1 9 1\nno such thing\n%error 1 9 1\n%output %1 %end 1 9 1\n%exit\n";

    #[test]
    fn answers_and_notifications_are_told_apart_wherever_the_stream_is_cut() {
        let wanted = vec![
            answer(true, false, &[]),
            Event::Shows(None, SessionId(3)),
            answer(true, true, &["one", ""]),
            Event::Sessions,
            Event::Shows(Some("/dev/pts/1".into()), SessionId(4)),
            answer(false, true, &["no such thing"]),
            Event::Other,
            Event::Exit,
        ];
        for cut in 0..TALK.len() {
            let mut parser = Parser::default();
            let mut all = events(&mut parser, &TALK[..cut]);
            all.extend(events(&mut parser, &TALK[cut..]));
            assert_eq!(all, wanted, "cut at {cut}");
        }
    }

    #[test]
    fn a_row_that_looks_like_the_end_is_a_row() {
        let mut parser = Parser::default();
        let talk =
            b"%begin 5 9 1\n2\n%end 5 9 1\n%begin 5 10 1\n%end 5 10 1\n%error 5 10 1\n%end 5 10 1\n%sessions-changed\n";
        parser.buffer().extend_from_slice(talk);
        assert_eq!(parser.next_event(), Ok(Some(answer(true, true, &["2"]))));
        parser.expect_rows(2);
        assert_eq!(parser.next_event(), Ok(Some(answer(true, true, &["%end 5 10 1", "%error 5 10 1"]))));
        assert_eq!(parser.next_event(), Ok(Some(Event::Sessions)));
        assert_eq!(parser.next_event(), Ok(None));
    }

    #[test]
    fn an_end_with_other_words_is_a_line() {
        let mut parser = Parser::default();
        let all = events(&mut parser, b"%begin 5 9 1\n%end 5 8 1\n%end 5 9\n%end 5 9 1\n");
        assert_eq!(all, [answer(true, true, &["%end 5 8 1", "%end 5 9"])]);
    }

    #[test]
    fn what_is_too_long_is_cut_or_refused_and_takes_no_memory() {
        let mut parser = Parser::default();
        parser.buffer().extend_from_slice(b"%begin 1 1 1\n");
        let row = [&vec![b'x'; 1 << 20][..], b"\n"].concat();
        let mut kept = 0;
        for _ in 0..40 {
            assert_eq!(events(&mut parser, &row), []);
            kept = kept.max(parser.block.as_ref().unwrap().answer.lines.len());
        }
        assert!(kept <= MAX_ANSWER >> 20, "{kept}");
        let all = events(&mut parser, b"%end 1 1 1\n");
        assert!(matches!(&all[..], [Event::Answer(answer)] if answer.is_cut && answer.ok), "{}", all.len());
        parser.buffer().extend_from_slice(&vec![b'x'; MAX_LINE + 1]);
        assert_eq!(parser.next_event(), Err(TooLong));
    }

    #[test]
    fn what_people_name_is_no_command() {
        assert_eq!(quoted("it's; $(x)"), r"'it'\''s; $(x)'");
        assert_eq!(literal("#(touch x)#{pid}"), "##(touch x)##{pid}");
        assert_eq!((argument("a;"), argument("a;b"), argument(";")), (r"a\;".into(), "a;b".into(), r"\;".into()));
    }
}
