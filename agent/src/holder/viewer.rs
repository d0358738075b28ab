//! One viewer as the holder sees it: a position in the output, and what it still has to be told.
//!
//! A viewer has no queue. Its queue is the ring, and [`Viewer::fill`] is called when its socket can take bytes; so a slow
//! viewer costs nothing but its position, and what it is sent is always the newest that its position allows.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use happy_screen::{MAX_ROW_BYTES, Screen, delta};
use happy_wire::terminal::{
    Exit, HISTORY_HEAD, MAX_CHUNK, MAX_PAGE, MAX_SNAPSHOT, MAX_WANTED, TerminalMessage, WINDOW,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::input::Input;
use super::protocol::{Attach, MAX_FRAME, Refusal, kind, put_frame, refusal};
use super::ring::Ring;
use super::size::{Size, Sizes};

/// A viewer that is further behind than this is given the screen instead of the backlog. A mebibyte is a second on a 10 Mbit/s line:
/// the longest that anyone should watch old output go by, and more than a build prints in one go.
pub const MAX_BEHIND: u64 = 1024 * 1024;

/// That input was taken is told together with what the program prints about it, mostly the echo of a key; alone when it has printed nothing for so long.
/// Each message of its own costs the whole way to the glass a wake-up, and the echo would be behind it.
const TAKEN_WAIT: Duration = Duration::from_millis(3);

/// Bytes that are put at once before the socket is asked again.
const FILL: usize = 64 * 1024;

/// Output is gathered for so long, but only under load: see [`BURST`].
const GATHER: Duration = Duration::from_millis(3);

/// Output within [`GATHER`] of each other makes a burst; from this size on it is gathered. The echo of a key, a prompt and the redraw
/// of a screen's worth of text are smaller and go out at once.
const BURST: usize = 16 * 1024;

/// Scrolled-off rows in a snapshot that is sent because a viewer is behind: enough to see what happened last, small enough for
/// a slow line.
const CATCH_UP_ROWS: usize = 200;

/// When the output has been quiet for so long, a viewer that was given a short snapshot gets its whole scrollback.
const QUIET: Duration = Duration::from_millis(250);

/// Between two frames, at least: more than 30 a second nobody sees. A viewer that is past its window for so long is sent frames; a burst that it
/// has drawn sooner is sent whole.
const FRAME_PAUSE: Duration = Duration::from_nanos(1_000_000_000 / 30);

// A row of any size fits into a message, behind its length of at most three bytes.
const _: () = assert!(1 + HISTORY_HEAD + 3 + MAX_ROW_BYTES <= MAX_FRAME && MAX_PAGE <= MAX_CHUNK);

/// What a viewer looks at.
pub struct Stage<'a> {
    /// The raw log.
    pub ring: &'a Ring,
    /// The parsed screen.
    pub screen: &'a Screen,
    /// Its sizes.
    pub sizes: &'a Sizes,
    /// What was typed.
    pub input: &'a Input,
    /// Counts changes of control.
    pub control: u64,
    /// Who decides the size.
    pub controller: &'a str,
    /// Whether that is this viewer.
    pub you_control: bool,
    /// How the program ended.
    pub exit: Option<Exit>,
    /// The time.
    pub now: Instant,
}

/// What to do after [`Viewer::fill`].
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write what was put, then call again.
    Write,
    /// Call again when something has happened.
    Wait,
    /// Call again then, or when something has happened.
    WaitUntil(Instant),
}

/// A viewer.
#[derive(Serialize, Deserialize)]
pub struct Viewer {
    /// Its id in requests.
    pub id: Uuid,
    /// Whose input it sends.
    pub writer: Uuid,
    /// For people.
    pub name: String,
    /// Whether the program waits for it.
    pub lossless: bool,
    scrollback: usize,
    /// The next byte of output to send.
    position: u64,
    /// Resuming was promised: output before this is sent however much it is, while it is kept.
    resumed_until: u64,
    parts: Option<Parts>,
    wants_snapshot: bool,
    /// None: it does not tell what it has drawn, and is held up by its socket alone.
    credit: Option<Credit>,
    /// It was given a short snapshot and not yet its scrollback.
    owed_scrollback: bool,
    /// What it was told last: size, number of the next change, control, input taken, end.
    size: Option<Size>,
    next_size: u64,
    control: u64,
    taken: u64,
    /// When it is told what was taken since, at the latest. After a handover that begins anew.
    #[serde(skip)]
    taken_at: Option<Instant>,
    ended: bool,
    burst: usize,
    #[serde(with = "super::state::ago")]
    sent_at: Instant,
}

/// What a viewer has drawn, and what it gets past its window (PROTOCOL 10.1, Credit).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Credit {
    /// Its screen has taken everything before this offset. INVARIANT: at most the viewer's position.
    drawn: u64,
    /// It is past its window; output gives way to frames at this time. After a handover that begins anew.
    #[serde(skip)]
    give_way_at: Option<Instant>,
    /// It is sent frames in the place of output, the last one as of its position.
    framed: bool,
    /// When the last frame was begun.
    #[serde(skip)]
    frame_at: Option<Instant>,
    /// The last frame, from which the next one will be the difference; none once output has followed, or after a handover.
    #[serde(skip)]
    base: Option<(u64, Vec<u8>)>,
    /// Pages of history that it has asked for: rows below a number, and how many. INVARIANT: at most [`MAX_WANTED`].
    wanted: VecDeque<(u64, u16)>,
    /// It has ever asked for one.
    #[serde(skip)]
    asks_history: bool,
    /// The history has changed otherwise than by output: a frame tells it, once everything that was sent is drawn.
    #[serde(skip)]
    owes_history: bool,
}

/// A snapshot or a frame on its way.
#[derive(Serialize, Deserialize)]
struct Parts {
    /// Raw in a handover.
    #[serde(skip)]
    bytes: Vec<u8>,
    offset: u64,
    size: Size,
    /// For a frame, its base and the oldest row of history; none for a snapshot.
    frame: Option<(Option<u64>, u64)>,
    part: u16,
}

impl Parts {
    fn count(&self) -> u16 {
        // MAX_SNAPSHOT is 512 chunks; an empty snapshot is one part.
        self.bytes.len().div_ceil(MAX_CHUNK).max(1) as u16
    }
}

impl Viewer {
    /// A viewer that goes on at `from`, or begins with a snapshot.
    pub fn new(attach: &Attach, name: String, stage: &Stage) -> Self {
        let (start, end) = (stage.ring.start(), stage.ring.end());
        // An offset from the future belongs to another session: there is nothing to go on from, and no gap to speak of.
        let from = attach.from.filter(|from| *from <= end);
        let position = from.unwrap_or(end);
        let has_credit = attach.credit && !attach.lossless;
        let (_, next_size) = stage.sizes.at(position);
        Self {
            id: attach.viewer,
            writer: attach.writer,
            name,
            lossless: attach.lossless,
            scrollback: attach.scrollback as usize,
            position,
            resumed_until: end,
            parts: None,
            wants_snapshot: from.is_none_or(|from| from < start && !has_credit),
            // Whoever comes back wants the present, and then what it has missed.
            credit: has_credit.then(|| Credit { drawn: position, give_way_at: Some(stage.now), ..Credit::default() }),
            owed_scrollback: false,
            size: None,
            next_size,
            control: stage.control,
            taken: stage.input.taken(attach.writer),
            taken_at: None,
            ended: false,
            burst: 0,
            sent_at: stage.now,
        }
    }

    /// The next byte of output that it will be sent.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The snapshot or frame on its way, for a handover.
    pub fn parts(&self) -> Option<&[u8]> {
        self.parts.as_ref().map(|parts| parts.bytes.as_slice())
    }

    /// Goes on in another program, with its snapshot or frame if one is on its way; whether that is possible.
    #[must_use]
    pub fn resume(&mut self, parts: &[u8], end: u64) -> bool {
        let drawn = self.credit.as_ref().map_or(0, |credit| credit.drawn);
        if drawn > self.position || self.position > end {
            return false;
        }
        let Some(whole) = &mut self.parts else { return true };
        whole.bytes = parts.to_vec();
        let base = whole.frame.and_then(|(base, _)| base).unwrap_or_default();
        base <= whole.offset && whole.offset <= end && whole.part < whole.count()
    }

    /// Whether the next thing it is sent may tell of rows of history.
    pub fn needs_history(&self, stage: &Stage) -> bool {
        if let Some(credit) = &self.credit
            && (!credit.wanted.is_empty() || stage.ring.end() - credit.drawn > WINDOW)
        {
            return true;
        }
        let begins = self.wants_snapshot || self.owed_scrollback || self.is_too_far_behind(stage.ring);
        self.scrollback > 0 && self.parts.is_none() && begins
    }

    /// Whether it tells what it has drawn.
    pub fn has_credit(&self) -> bool {
        self.credit.is_some()
    }

    /// Its screen has taken everything before `offset`.
    ///
    /// # Errors
    /// A [`Refusal`] when that cannot be; the viewer must be cut off.
    pub fn on_drawn(&mut self, offset: u64) -> Result<(), Refusal> {
        let position = self.position;
        let credit = self.credit.as_mut().ok_or_else(no_credit)?;
        if offset > position {
            let why = format!("offset {offset} cannot be drawn: output was sent up to {position}");
            return Err(Refusal::new(refusal::MALFORMED, why));
        }
        credit.drawn = credit.drawn.max(offset);
        Ok(())
    }

    /// It asks for a page of history.
    ///
    /// # Errors
    /// A [`Refusal`] when it asks for too many; the viewer must be cut off.
    pub fn on_history_wanted(&mut self, before: u64, rows: u16) -> Result<(), Refusal> {
        let credit = self.credit.as_mut().ok_or_else(no_credit)?;
        if credit.wanted.len() >= MAX_WANTED {
            let why = format!("at most {MAX_WANTED} pages of history may be asked for at once");
            return Err(Refusal::new(refusal::TOO_MANY, why));
        }
        credit.wanted.push_back((before, rows));
        credit.asks_history = true;
        Ok(())
    }

    /// Whether it has ever asked for a page of history.
    pub fn asks_history(&self) -> bool {
        self.credit.as_ref().is_some_and(|credit| credit.asks_history)
    }

    /// The history has changed otherwise than by output. Who has never asked for any need not know.
    pub fn on_other_history(&mut self) {
        if let Some(credit) = self.credit.as_mut().filter(|credit| credit.asks_history) {
            credit.owes_history = true;
        }
    }

    /// It has typed: what comes next is likely an echo, which does not wait.
    pub fn on_input(&mut self) {
        self.burst = 0;
    }

    /// Puts frames of what it should see next. INVARIANT: at most [`FILL`] bytes and two frames more.
    pub fn fill(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let begin = out.len();
        let next = loop {
            match self.step(stage, out) {
                Next::Write if out.len() - begin < FILL => {}
                next => break next,
            }
        };
        let has_more = out.len() > begin;
        match self.put_taken(stage, has_more, out) {
            Next::Write => Next::Write,
            _ if has_more => Next::Write,
            Next::WaitUntil(told) => match next {
                Next::WaitUntil(time) => Next::WaitUntil(time.min(told)),
                _ => Next::WaitUntil(told),
            },
            Next::Wait => next,
        }
    }

    /// How much of its input was taken, if that is news.
    fn put_taken(&mut self, stage: &Stage, has_more: bool, out: &mut BytesMut) -> Next {
        let taken = stage.input.taken(self.writer);
        if taken == self.taken {
            return Next::Wait;
        }
        let told = *self.taken_at.get_or_insert(stage.now + TAKEN_WAIT);
        if !has_more && stage.now < told {
            return Next::WaitUntil(told);
        }
        (self.taken, self.taken_at) = (taken, None);
        put(out, &TerminalMessage::InputTaken { offset: taken })
    }

    /// Puts at most one message.
    fn step(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        if self.parts.is_some() {
            return self.put_part(out);
        }
        if let Some((before, rows)) = self.credit.as_mut().and_then(|credit| credit.wanted.pop_front()) {
            return put_page(stage.screen, before, rows, out);
        }
        if self.wants_snapshot || (self.credit.is_none() && self.is_too_far_behind(stage.ring)) {
            return self.skip(stage, out);
        }
        if self.credit.is_some() {
            return self.step_with_credit(stage, out);
        }
        if self.owed_scrollback && self.position == stage.ring.end() {
            let quiet_at = self.sent_at + QUIET;
            if stage.now >= quiet_at {
                self.owed_scrollback = false;
                self.begin_snapshot(stage, self.scrollback);
                return self.put_part(out);
            }
            return self.put_news(stage, out).unwrap_or(Next::WaitUntil(quiet_at));
        }
        self.put_news(stage, out).unwrap_or(Next::Wait)
    }

    /// Output within the window, or a frame.
    fn step_with_credit(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let (position, end) = (self.position, stage.ring.end());
        let Some(credit) = &mut self.credit else { return Next::Wait };
        if !stage.input.has_room() {
            // Nobody reads what it sends, Drawn among it. It is held up by its socket until the program reads on.
            credit.drawn = position;
        }
        let is_within = end - credit.drawn <= WINDOW && position >= stage.ring.start();
        if credit.owes_history && !credit.framed && position == end && credit.drawn == end {
            return self.begin_frame(stage, out);
        }
        let frame_at = match credit.frame_at {
            Some(last) => last + FRAME_PAUSE,
            None => stage.now,
        };
        let wait_until = match (credit.framed, is_within) {
            (true, _) if credit.drawn < position => return self.put_sizes(stage, out).unwrap_or(Next::Wait),
            (_, true) => {
                (credit.framed, credit.give_way_at, credit.base) = (false, None, None);
                return self.put_news(stage, out).unwrap_or(Next::Wait);
            }
            (true, false) => frame_at,
            (false, false) => {
                let give_way_at = *credit.give_way_at.get_or_insert(stage.now + FRAME_PAUSE);
                if position < stage.ring.start() { frame_at } else { give_way_at.max(frame_at) }
            }
        };
        if stage.now >= wait_until {
            return self.begin_frame(stage, out);
        }
        let news = if credit.framed { self.put_sizes(stage, out) } else { self.put_news(stage, out) };
        news.unwrap_or(Next::WaitUntil(wait_until))
    }

    /// Gives up the backlog for the screen as it is.
    fn begin_frame(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let end = stage.ring.end();
        let Some(credit) = &mut self.credit else { return Next::Wait };
        if !credit.framed && self.position < end {
            put(out, &TerminalMessage::Gap { from: self.position, to: end });
        }
        let snapshot = stage.screen.snapshot(0);
        let (base, old) = credit.base.take().map_or((None, Vec::new()), |(offset, old)| (Some(offset), old));
        let mut bytes = delta::diff(&old, &snapshot);
        bytes.truncate(MAX_SNAPSHOT);
        let kept_from = stage.screen.scrollback_start();
        (credit.framed, credit.give_way_at, credit.frame_at) = (true, None, Some(stage.now));
        credit.owes_history = false;
        credit.base = Some((end, snapshot));
        self.begin_parts(stage, bytes, Some((base, kept_from)));
        self.put_part(out)
    }

    fn is_too_far_behind(&self, ring: &Ring) -> bool {
        let behind = ring.end() - self.position.max(self.resumed_until);
        self.position < ring.start() || (!self.lossless && behind > MAX_BEHIND)
    }

    /// Gives up the backlog for a snapshot.
    fn skip(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let end = stage.ring.end();
        if self.position < end {
            put(out, &TerminalMessage::Gap { from: self.position, to: end });
        }
        let first = self.wants_snapshot;
        let rows = match (&self.credit, first) {
            (Some(_), _) => self.scrollback.min(stage.sizes.now().rows.into()),
            (None, true) => self.scrollback,
            (None, false) => self.scrollback.min(CATCH_UP_ROWS),
        };
        self.owed_scrollback = !first && rows < self.scrollback;
        self.wants_snapshot = false;
        self.sent_at = stage.now;
        self.begin_snapshot(stage, rows);
        self.put_part(out)
    }

    fn begin_snapshot(&mut self, stage: &Stage, mut rows: usize) {
        let mut bytes = stage.screen.snapshot(rows);
        // Rows may be as long as a hostile program likes; the screen itself is bounded by its size.
        while bytes.len() > MAX_SNAPSHOT && rows > 0 {
            rows /= 2;
            bytes = stage.screen.snapshot(rows);
        }
        bytes.truncate(MAX_SNAPSHOT);
        self.begin_parts(stage, bytes, None);
        if let Some(credit) = &mut self.credit {
            // The window begins here.
            credit.drawn = self.position;
        }
    }

    fn begin_parts(&mut self, stage: &Stage, bytes: Vec<u8>, frame: Option<(Option<u64>, u64)>) {
        let size = stage.sizes.now();
        self.position = stage.ring.end();
        (self.size, self.next_size) = (Some(size), stage.sizes.next_number());
        self.parts = Some(Parts { bytes, offset: self.position, size, frame, part: 0 });
    }

    fn put_part(&mut self, out: &mut BytesMut) -> Next {
        let Some(whole) = &mut self.parts else { return Next::Wait };
        let (offset, part, parts) = (whole.offset, whole.part, whole.count());
        let begin = usize::from(part) * MAX_CHUNK;
        let bytes = &whole.bytes[begin..(begin + MAX_CHUNK).min(whole.bytes.len())];
        let Size { cols, rows } = whole.size;
        let message = match whole.frame {
            None => TerminalMessage::Snapshot { offset, cols, rows, part, parts, bytes },
            Some((base, kept_from)) => TerminalMessage::Frame { offset, base, kept_from, part, parts, bytes },
        };
        put(out, &message);
        whole.part += 1;
        if whole.part == parts {
            self.parts = None;
        }
        Next::Write
    }

    /// Sizes, control, output and the end, in the order of their offsets; `None` when there is nothing new.
    fn put_news(&mut self, stage: &Stage, out: &mut BytesMut) -> Option<Next> {
        if let Some(next) = self.put_sizes(stage, out) {
            return Some(next);
        }
        let next_size = stage.sizes.from_number(self.next_size);
        let until = next_size.map_or(u64::MAX, |mark| mark.offset) - self.position;
        let window =
            self.credit.as_ref().map_or(u64::MAX, |credit| WINDOW.saturating_sub(self.position - credit.drawn));
        let most = usize::try_from(until.min(window)).unwrap_or(usize::MAX);
        let most = MAX_CHUNK.min(most);
        if self.position < stage.ring.end() {
            let is_kept = self.position >= stage.ring.start();
            return (is_kept && most > 0).then(|| self.put_output(stage, most, out));
        }
        // Where the window is full there may be more to come.
        let exit = stage.exit.filter(|_| !self.ended && self.position == stage.ring.end())?;
        self.ended = true;
        Some(put(out, &TerminalMessage::Exited { offset: self.position, exit }))
    }

    /// The size at its position, and who decides it, if that is news.
    fn put_sizes(&mut self, stage: &Stage, out: &mut BytesMut) -> Option<Next> {
        let next_size = stage.sizes.from_number(self.next_size);
        if let Some(mark) = next_size.filter(|mark| mark.offset <= self.position) {
            self.next_size = mark.number + 1;
            return Some(self.put_size(stage, mark.size, out));
        }
        match self.size {
            // It goes on from a time when the size may have been another.
            None => Some(self.put_size(stage, stage.sizes.at(self.position).0, out)),
            Some(size) if self.control != stage.control => Some(self.put_size(stage, size, out)),
            Some(_) => None,
        }
    }

    fn put_size(&mut self, stage: &Stage, size: Size, out: &mut BytesMut) -> Next {
        self.size = Some(size);
        self.control = stage.control;
        let Stage { you_control, controller, .. } = *stage;
        put(
            out,
            &TerminalMessage::Resized {
                offset: self.position,
                cols: size.cols,
                rows: size.rows,
                you_control,
                controller,
            },
        )
    }

    fn put_output(&mut self, stage: &Stage, max: usize, out: &mut BytesMut) -> Next {
        let gathered_at = self.sent_at + GATHER;
        if stage.now >= gathered_at {
            self.burst = 0;
        } else if self.burst >= BURST && stage.ring.end() - self.position < MAX_CHUNK as u64 && stage.exit.is_none() {
            return Next::WaitUntil(gathered_at);
        }
        let (begin, mut read) = (out.len(), Ok(0));
        put_frame(out, kind::TERMINAL, |out| {
            // The bytes stand at the end of the message: they are put where they belong without a copy in between.
            out.put_slice(&TerminalMessage::Output { offset: self.position, bytes: b"" }.to_vec());
            read = stage.ring.read(self.position, max, out);
        });
        let count = match read {
            Ok(count) if count > 0 => count,
            failed => {
                tracing::warn!("a part of the raw log cannot be read: {failed:?}");
                out.truncate(begin);
                return self.skip(stage, out);
            }
        };
        self.position += count as u64;
        self.burst = self.burst.saturating_add(count);
        self.sent_at = stage.now;
        Next::Write
    }
}

fn put(out: &mut BytesMut, message: &TerminalMessage) -> Next {
    put_frame(out, kind::TERMINAL, |out| out.put_slice(&message.to_vec()));
    Next::Write
}

fn put_page(screen: &Screen, before: u64, rows: u16, out: &mut BytesMut) -> Next {
    let (first, bytes) = screen.history_page(before, rows, MAX_PAGE);
    put(out, &TerminalMessage::History { first, kept_from: screen.scrollback_start(), bytes: &bytes })
}

fn no_credit() -> Refusal {
    Refusal::new(refusal::MALFORMED, "a viewer without credit sends nothing but Input")
}
