//! One viewer as the holder sees it: a position in the output, and what it still has to be told.
//!
//! A viewer has no queue. Its queue is the ring, and [`Viewer::fill`] is called when its socket can take bytes; so a slow
//! viewer costs nothing but its position, and what it is sent is always the newest that its position allows.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use happy_screen::Screen;
use happy_wire::terminal::{Exit, MAX_CHUNK, MAX_SNAPSHOT, TerminalMessage};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::input::Input;
use super::protocol::{Attach, kind, put_frame};
use super::ring::Ring;
use super::size::{Size, Sizes};

/// A viewer that is further behind than this is given the screen instead of the backlog. A mebibyte is a second on a 10 Mbit/s line:
/// the longest that anyone should watch old output go by, and more than a build prints in one go.
pub const MAX_BEHIND: u64 = 1024 * 1024;

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
    snapshot: Option<Parts>,
    wants_snapshot: bool,
    /// It was given a short snapshot and not yet its scrollback.
    owed_scrollback: bool,
    /// What it was told last: size, number of the next change, control, input taken, end.
    size: Option<Size>,
    next_size: u64,
    control: u64,
    taken: u64,
    ended: bool,
    burst: usize,
    #[serde(with = "super::state::ago")]
    sent_at: Instant,
}

/// A snapshot on its way.
#[derive(Serialize, Deserialize)]
struct Parts {
    /// Raw in a handover.
    #[serde(skip)]
    bytes: Vec<u8>,
    offset: u64,
    size: Size,
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
        let (_, next_size) = stage.sizes.at(position);
        Self {
            id: attach.viewer,
            writer: attach.writer,
            name,
            lossless: attach.lossless,
            scrollback: attach.scrollback as usize,
            position,
            resumed_until: end,
            snapshot: None,
            wants_snapshot: from.is_none_or(|from| from < start),
            owed_scrollback: false,
            size: None,
            next_size,
            control: stage.control,
            taken: stage.input.taken(attach.writer),
            ended: false,
            burst: 0,
            sent_at: stage.now,
        }
    }

    /// The next byte of output that it will be sent.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The snapshot on its way, for a handover.
    pub fn snapshot(&self) -> Option<&[u8]> {
        self.snapshot.as_ref().map(|parts| parts.bytes.as_slice())
    }

    /// Goes on in another program, with its snapshot if one is on its way; whether that is possible.
    #[must_use]
    pub fn resume(&mut self, snapshot: &[u8], end: u64) -> bool {
        let Some(parts) = &mut self.snapshot else { return self.position <= end };
        parts.bytes = snapshot.to_vec();
        self.position <= end && parts.part < parts.count()
    }

    /// Whether the next thing it is sent is a snapshot with rows of history.
    pub fn needs_history(&self, stage: &Stage) -> bool {
        let begins = self.wants_snapshot || self.owed_scrollback || self.is_too_far_behind(stage.ring);
        self.scrollback > 0 && self.snapshot.is_none() && begins
    }

    /// It has typed: what comes next is likely an echo, which does not wait.
    pub fn on_input(&mut self) {
        self.burst = 0;
    }

    /// Puts frames of what it should see next. INVARIANT: at most [`FILL`] bytes and one frame more.
    pub fn fill(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let begin = out.len();
        loop {
            if out.len() - begin >= FILL {
                return Next::Write;
            }
            match self.step(stage, out) {
                Next::Write => {}
                _ if out.len() > begin => return Next::Write,
                wait => return wait,
            }
        }
    }

    /// Puts at most one message.
    fn step(&mut self, stage: &Stage, out: &mut BytesMut) -> Next {
        let taken = stage.input.taken(self.writer);
        if taken != self.taken {
            self.taken = taken;
            return put(out, &TerminalMessage::InputTaken { offset: taken });
        }
        if self.snapshot.is_some() {
            return self.put_part(out);
        }
        if self.wants_snapshot || self.is_too_far_behind(stage.ring) {
            return self.skip(stage, out);
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
        let rows = if first { self.scrollback } else { self.scrollback.min(CATCH_UP_ROWS) };
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
        let size = stage.sizes.now();
        self.position = stage.ring.end();
        (self.size, self.next_size) = (Some(size), stage.sizes.next_number());
        self.snapshot = Some(Parts { bytes, offset: self.position, size, part: 0 });
    }

    fn put_part(&mut self, out: &mut BytesMut) -> Next {
        let Some(snapshot) = &mut self.snapshot else { return Next::Wait };
        let parts = snapshot.count();
        let begin = usize::from(snapshot.part) * MAX_CHUNK;
        let bytes = &snapshot.bytes[begin..(begin + MAX_CHUNK).min(snapshot.bytes.len())];
        let Size { cols, rows } = snapshot.size;
        put(out, &TerminalMessage::Snapshot { offset: snapshot.offset, cols, rows, part: snapshot.part, parts, bytes });
        snapshot.part += 1;
        if snapshot.part == parts {
            self.snapshot = None;
        }
        Next::Write
    }

    /// Sizes, control, output and the end, in the order of their offsets; `None` when there is nothing new.
    fn put_news(&mut self, stage: &Stage, out: &mut BytesMut) -> Option<Next> {
        let next_size = stage.sizes.from_number(self.next_size);
        if let Some(mark) = next_size.filter(|mark| mark.offset <= self.position) {
            self.next_size = mark.number + 1;
            return Some(self.put_size(stage, mark.size, out));
        }
        match self.size {
            // It goes on from a time when the size may have been another.
            None => return Some(self.put_size(stage, stage.sizes.at(self.position).0, out)),
            Some(size) if self.control != stage.control => return Some(self.put_size(stage, size, out)),
            Some(_) => {}
        }
        if self.position < stage.ring.end() {
            let until = next_size.map_or(u64::MAX, |mark| mark.offset) - self.position;
            let max = MAX_CHUNK.min(usize::try_from(until).unwrap_or(usize::MAX));
            return Some(self.put_output(stage, max, out));
        }
        let exit = stage.exit.filter(|_| !self.ended)?;
        self.ended = true;
        Some(put(out, &TerminalMessage::Exited { offset: self.position, exit }))
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
