//! What a viewer shows: the exact bytes in a pipe, or a screen in a terminal.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use happy_screen::predict::{Overlay, Predictor};
use happy_screen::{FramePart, Frames, MAX_SNAPSHOT, QueryFilter, Screen, SnapshotError, render_vt};
use happy_wire::terminal::{Exit, TerminalMessage};

use crate::trouble::Trouble;

/// Frames are drawn at most so often while the terminal has another size than the session.
const FRAME: Duration = Duration::from_millis(33);
/// The longest unfinished sequence that a cut is looked for in; longer ones are strings that the terminal can see growing.
const TAIL: usize = 256;

/// What came of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Go on.
    Ok,
    /// The program has ended and everything was shown.
    Ended(Exit),
    /// Bytes that were asked for are gone; what is still there ends at this offset.
    Gone {
        /// The end of the output.
        end: u64,
    },
    /// The size of the session or who decides it has changed.
    Resized {
        /// Whether this viewer decides.
        you_control: bool,
    },
    /// Input before this offset has reached the program.
    InputTaken(u64),
}

/// Where the output goes.
pub enum View {
    /// To a pipe, every byte.
    Exact(Exact),
    /// To a terminal.
    Terminal(Box<TerminalView>),
}

impl View {
    /// Takes a message of the machine.
    ///
    /// # Errors
    /// When the output cannot be written, or the machine does not keep to the protocol.
    pub fn show(&mut self, message: &TerminalMessage<'_>) -> Result<Shown, Trouble> {
        match message {
            TerminalMessage::Exited { exit, .. } => Ok(Shown::Ended(*exit)),
            TerminalMessage::InputTaken { offset } => Ok(Shown::InputTaken(*offset)),
            TerminalMessage::Input { .. }
            | TerminalMessage::Drawn { .. }
            | TerminalMessage::HistoryWanted { .. }
            | TerminalMessage::History { .. } => Err(out_of_place()),
            _ => match self {
                View::Exact(exact) => exact.show(message),
                View::Terminal(view) => view.show(message),
            },
        }
    }

    /// A new attachment begins.
    pub fn attached(&mut self) {
        if let View::Terminal(view) = self {
            view.frames.clear();
            // What was typed in between may never have arrived.
            if let Some(guesses) = &mut view.guesses {
                guesses.predictor.reset();
            }
            view.judge();
        }
    }

    /// The offset before which everything is in the terminal; none for exact bytes, which are written as they come, and while something
    /// waits to be drawn.
    pub fn drawn(&self) -> Option<u64> {
        match self {
            View::Terminal(view) if !view.dirty => view.position,
            _ => None,
        }
    }

    /// The offset from which to go on after a reconnect; none before anything was shown.
    pub fn position(&self) -> Option<u64> {
        match self {
            View::Exact(exact) => Some(exact.position),
            View::Terminal(view) => view.position,
        }
    }
}

fn out_of_place() -> Trouble {
    Trouble::new("The other side sent something that does not belong there.", "Upgrade the older of the two sides.")
}

fn unreadable(error: &dyn std::error::Error) -> Trouble {
    Trouble::new(format!("The screen of the session cannot be read: {error}."), "Upgrade the older of the two sides.")
}

/// The output went nowhere.
pub fn not_written(error: &io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // Like any program in a pipe whose reader has gone: silently, with the exit code of SIGPIPE.
        return Trouble::new("", "").with_exit(141);
    }
    Trouble::new(
        format!("The output cannot be written: {}.", crate::trouble::reason(error)),
        "Look at where it is sent: a full disk?",
    )
}

/// Every byte, in order, once.
pub struct Exact {
    position: u64,
    /// Snapshots are what is sent in the place of bytes that are gone; nothing of them is written.
    gone: Option<u64>,
}

impl Exact {
    /// From this offset on.
    pub fn from(position: u64) -> Self {
        Self { position, gone: None }
    }

    fn show(&mut self, message: &TerminalMessage<'_>) -> Result<Shown, Trouble> {
        match *message {
            TerminalMessage::Output { offset, bytes } => {
                if offset > self.position {
                    return Ok(Shown::Gone { end: offset });
                }
                let known = usize::try_from(self.position - offset).unwrap_or(usize::MAX);
                let new = bytes.get(known..).unwrap_or_default();
                // The one place where this viewer is slow: the reader of the pipe decides.
                tokio::task::block_in_place(|| write_at_once(new)).map_err(|error| not_written(&error))?;
                self.position += new.len() as u64;
                Ok(Shown::Ok)
            }
            TerminalMessage::Gap { to, .. } => {
                self.gone = Some(to);
                Ok(Shown::Gone { end: to })
            }
            TerminalMessage::Snapshot { offset, .. } if offset != self.position => Ok(Shown::Gone { end: offset }),
            _ => Ok(Shown::Ok),
        }
    }
}

/// A screen in a terminal.
///
/// While the terminal has the session's size, live bytes are passed on as they are. Otherwise, and until a snapshot that was cut
/// inside a sequence has settled, whole frames are drawn from our own copy of the screen.
pub struct TerminalView {
    screen: Screen,
    filter: Option<QueryFilter>,
    position: Option<u64>,
    own: (u16, u16),
    frames: Frames,
    parts: Vec<u8>,
    next_part: u16,
    dirty: bool,
    drawn_at: Option<Instant>,
    note: Option<String>,
    guesses: Option<Guesses>,
}

/// What the echo of keys will probably be (`happy_screen::predict`), on a clock of its own.
struct Guesses {
    predictor: Predictor,
    began: Instant,
    /// What of it is to be drawn over the screen.
    overlay: Overlay,
}

impl TerminalView {
    /// For a terminal of this size; with `guesses` it shows what is typed before the echo has come, if that takes long.
    pub fn new(own: (u16, u16), guesses: bool) -> Self {
        Self {
            screen: Screen::new(own.0, own.1, 0),
            filter: None,
            position: None,
            own,
            frames: Frames::default(),
            parts: Vec::new(),
            next_part: 0,
            dirty: false,
            drawn_at: None,
            note: None,
            guesses: guesses.then(|| Guesses {
                predictor: Predictor::default(),
                began: Instant::now(),
                overlay: Overlay::default(),
            }),
        }
    }

    /// The person has typed; their input ends at `offset` now.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub fn typed(&mut self, offset: u64, keys: &[u8]) -> Result<(), Trouble> {
        let Some(guesses) = &mut self.guesses else { return Ok(()) };
        guesses.predictor.on_input(guesses.began.elapsed(), offset, keys, &self.screen);
        // Nobody waits for the next frame to see a key.
        if self.judge() { self.draw() } else { Ok(()) }
    }

    /// All input before `offset` has reached the program.
    pub fn input_taken(&mut self, offset: u64) {
        if let Some(guesses) = &mut self.guesses {
            guesses.predictor.on_taken(guesses.began.elapsed(), offset);
            self.judge();
        }
    }

    /// Holds the guesses against the screen; whether others are to be drawn now.
    fn judge(&mut self) -> bool {
        let Some(guesses) = &mut self.guesses else { return false };
        guesses.predictor.look(guesses.began.elapsed(), &self.screen);
        let overlay = guesses.predictor.overlay(&self.screen);
        let is_new = overlay != guesses.overlay;
        guesses.overlay = overlay;
        if is_new {
            self.draw_frames();
        }
        is_new
    }

    /// What is drawn is what the session shows, and nothing beside it.
    fn is_plain(&self) -> bool {
        self.note.is_none() && self.guesses.as_ref().is_none_or(|guesses| guesses.overlay == Overlay::default())
    }

    /// The terminal has another size now.
    pub fn resize_own(&mut self, own: (u16, u16)) {
        self.own = own;
        self.draw_frames();
    }

    /// A line at the bottom that is not the program's; none takes it away.
    pub fn note(&mut self, note: Option<String>) {
        if self.note != note {
            self.note = note;
            self.draw_frames();
        }
    }

    /// When [`TerminalView::draw`] is to be called.
    pub fn draw_at(&self) -> Option<Instant> {
        let frame = self.dirty.then(|| self.drawn_at.map_or_else(Instant::now, |at| at + FRAME));
        frame.into_iter().chain(self.look_at()).min()
    }

    /// When the guesses are to be looked at, if nothing comes before.
    fn look_at(&self) -> Option<Instant> {
        let guesses = self.guesses.as_ref()?;
        Some(guesses.began + guesses.predictor.next_look()?)
    }

    /// It is time to look at the guesses, or to draw a frame.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub fn on_time(&mut self) -> Result<(), Trouble> {
        if self.look_at().is_some_and(|at| at <= Instant::now()) {
            self.judge();
        }
        if self.dirty { self.draw() } else { Ok(()) }
    }

    /// The screen, if all of it is shown.
    pub fn whole(&self) -> Option<&Screen> {
        let (cols, rows) = self.screen.size();
        (cols <= self.own.0 && rows <= self.own.1).then_some(&self.screen)
    }

    /// Draws a frame.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub fn draw(&mut self) -> Result<(), Trouble> {
        self.dirty = false;
        self.drawn_at = Some(Instant::now());
        let mut out = b"\x1b[?2026h".to_vec();
        let (cols, rows) = self.screen.size();
        if cols <= self.own.0 && rows <= self.own.1 {
            out.extend_from_slice(&render_vt(&self.screen));
            if let Some(guesses) = self.guesses.as_ref().filter(|_| !self.is_plain()) {
                paint_guesses(&guesses.overlay, &self.screen, &mut out);
            }
        } else {
            // What does not fit is wrapped anew, as if the session had this size: all of it can be read, if not as it was meant.
            let small = Screen::restore(&self.screen.snapshot(0), 0).map(|mut small| {
                small.resize(cols.min(self.own.0), rows.min(self.own.1));
                small
            });
            out.extend_from_slice(&render_vt(small.as_ref().unwrap_or(&self.screen)));
        }
        if let Some(note) = &self.note {
            let text: String = note.chars().take(usize::from(self.own.0)).collect();
            out.extend_from_slice(format!("\x1b7\x1b[{};1H\x1b[0;7m{text}\x1b[0m\x1b[K\x1b8", self.own.1).as_bytes());
        }
        out.extend_from_slice(b"\x1b[?2026l");
        write(&out)
    }

    fn draw_frames(&mut self) {
        self.filter = None;
        self.dirty = true;
    }

    fn show(&mut self, message: &TerminalMessage<'_>) -> Result<Shown, Trouble> {
        match *message {
            TerminalMessage::Snapshot { offset, part, parts, bytes, .. } => {
                self.take_part(offset, part, parts, bytes)?;
                Ok(Shown::Ok)
            }
            TerminalMessage::Frame { offset, base, part, parts, bytes, .. } => {
                self.take_frame(FramePart { offset, base, part, parts, bytes })?;
                Ok(Shown::Ok)
            }
            TerminalMessage::Output { offset, bytes } => {
                self.output(offset, bytes)?;
                Ok(Shown::Ok)
            }
            TerminalMessage::Resized { cols, rows, you_control, .. } => {
                if self.screen.size() != (cols, rows) {
                    self.screen.resize(cols, rows);
                    self.draw_frames();
                }
                Ok(Shown::Resized { you_control })
            }
            _ => Ok(Shown::Ok),
        }
    }

    fn take_part(&mut self, offset: u64, part: u16, parts: u16, bytes: &[u8]) -> Result<(), Trouble> {
        if part == 0 {
            self.parts.clear();
            self.next_part = 0;
        }
        if part != self.next_part || self.parts.len() + bytes.len() > MAX_SNAPSHOT {
            return Err(out_of_place());
        }
        self.parts.extend_from_slice(bytes);
        self.next_part += 1;
        if self.next_part < parts {
            return Ok(());
        }
        let snapshot = std::mem::take(&mut self.parts);
        self.screen = Screen::restore(&snapshot, 0).map_err(|error| unreadable(&error))?;
        self.position = Some(offset);
        self.judge();
        self.draw_frames();
        Ok(())
    }

    fn take_frame(&mut self, part: FramePart<'_>) -> Result<(), Trouble> {
        if self.position.is_some_and(|position| part.offset < position) {
            return Err(out_of_place());
        }
        if let Some(snapshot) = self.frames.take(part).map_err(|error| unreadable(&error))? {
            self.screen = Screen::restore(snapshot, 0).map_err(|error: SnapshotError| unreadable(&error))?;
            self.position = Some(part.offset);
            self.judge();
            self.draw_frames();
        }
        Ok(())
    }

    fn output(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let position = *self.position.get_or_insert(offset);
        let Some(known) = position.checked_sub(offset) else { return Err(out_of_place()) };
        let new = bytes.get(usize::try_from(known).unwrap_or(usize::MAX)..).unwrap_or_default();
        self.position = Some(position + new.len() as u64);
        self.screen.feed(new);
        self.judge();
        if let Some(filter) = &mut self.filter {
            let mut out = Vec::with_capacity(new.len());
            filter.filter(new, &mut out);
            return write(&out);
        }
        self.dirty = true;
        if self.screen.size() == self.own && self.is_plain() && is_settled(new) {
            self.draw()?;
            self.filter = Some(QueryFilter::default());
        }
        Ok(())
    }
}

/// Paints guesses over a screen that has just been rendered. What that leaves behind of pen and modes the next frame puts right, and nothing but
/// a frame follows a guess.
fn paint_guesses(overlay: &Overlay, screen: &Screen, out: &mut Vec<u8>) {
    let mut text = String::from("\x1b[?6l\x1b[4l\x1b(B\x0f");
    text.push_str(if overlay.marked { "\x1b[0;4m" } else { "\x1b[0m" });
    for (row, col, guess) in &overlay.cells {
        text.push_str(&format!("\x1b[{};{}H{guess}", row + 1, col + 1));
    }
    let cursor = screen.cursor();
    let (row, col) = overlay.cursor.unwrap_or((cursor.row, cursor.col));
    text.push_str(&format!("\x1b[0m\x1b[{};{}H", row + 1, col + 1));
    out.extend_from_slice(text.as_bytes());
}

/// Whether these bytes surely do not end inside a sequence or a character.
fn is_settled(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
    tail.last().is_some_and(u8::is_ascii) && !tail.contains(&0x1b) && (bytes.len() >= TAIL || !tail.is_empty())
}

/// Writes to standard output past its buffer, which would cut the bytes in two at the last line's end.
fn write_at_once(mut bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.flush()?;
    while !bytes.is_empty() {
        match rustix::io::write(&out, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes to standard output.
///
/// # Errors
/// When that fails: in silence when the reader of a pipe has gone.
pub fn write(bytes: &[u8]) -> Result<(), Trouble> {
    let mut out = io::stdout().lock();
    tokio::task::block_in_place(|| out.write_all(bytes).and_then(|()| out.flush())).map_err(|error| not_written(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_inside_a_sequence_is_noticed() {
        assert!(is_settled(b"hello"));
        for cut in [&b"\x1b[31"[..], "ü".as_bytes(), b"", b"x\x1b]0;title"] {
            assert!(!is_settled(cut), "{cut:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_frame_counts_as_drawn_when_the_terminal_has_it() {
        let mut machine = Screen::new(20, 4, 0);
        machine.feed(b"what is there");
        let bytes = happy_screen::delta::diff(&[], &machine.snapshot(0));
        let mut view = View::Terminal(Box::new(TerminalView::new((20, 4), false)));
        let frame =
            |offset| TerminalMessage::Frame { offset, base: None, kept_from: 0, part: 0, parts: 1, bytes: &bytes };
        assert_eq!(view.show(&frame(70)).unwrap(), Shown::Ok);
        assert_eq!((view.position(), view.drawn()), (Some(70), None));
        let View::Terminal(terminal) = &mut view else { panic!("another view") };
        terminal.draw().unwrap();
        assert_eq!(terminal.screen.text(), "what is there");
        assert_eq!(view.drawn(), Some(70));
        assert!(view.show(&frame(69)).is_err(), "a screen of before");
    }

    #[test]
    fn a_gap_in_exact_output_is_never_passed_over() {
        let mut exact = Exact::from(5);
        assert_eq!(exact.show(&TerminalMessage::Gap { from: 5, to: 9 }).unwrap(), Shown::Gone { end: 9 });
        assert_eq!(exact.show(&TerminalMessage::Output { offset: 7, bytes: b"x" }).unwrap(), Shown::Gone { end: 7 });
        assert_eq!(exact.position, 5);
    }
}
