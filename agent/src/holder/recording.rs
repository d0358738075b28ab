//! A recording of what a session prints: an asciicast, written by the holder, so that it goes on whatever becomes of the daemon.
//!
//! What is typed is never recorded: nothing in here sees it. What the program echoes is output, and a password is not echoed.
//!
//! **At any moment the file is a whole asciicast**, also when the holder is killed while it writes. New lines are first written as
//! comments, with `#` in the place of `[`, which every reader passes over, whole or cut; then the one byte is put right, line by line.
//! Neither this nor anything else is synced: after a power cut the end may be missing.
//!
//! What is printed reaches the file after [`SOON`], or at once when there is [much](MAX_WAITING). A session that prints nothing wakes nobody.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use happy_cast::{Header, Writer};
use happy_rpc::SessionState;
use serde::{Deserialize, Serialize};

use super::protocol::{Refusal, refusal};
use super::server::Holder;
use super::size::Size;
use super::spec::{Description, unix_ms};
use super::upgrade::monotonic;
use crate::trouble::reason;

/// How large a recording may become unless told otherwise: a day of a busy shell has some ten megabytes.
pub const LIMIT: u64 = 1024 * 1024 * 1024;

/// What limits there may be. The least holds any screen of a usual size.
pub const LIMITS: std::ops::RangeInclusive<u64> = 1024 * 1024..=1024 * 1024 * 1024 * 1024;

/// How long what was printed waits to be written. So much is lost when the holder is killed.
const SOON: Duration = Duration::from_millis(100);

/// More than this does not wait. With one read of the terminal, of which each byte can become six, this bounds the memory.
const MAX_WAITING: usize = 256 * 1024;

/// Kept free below the limit for the line that says that it is reached.
const LAST_LINE: u64 = 256;

/// Where a session is recorded to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The path of a file that is not there yet.
    pub to: PathBuf,
    /// The most bytes that it may have.
    pub limit: u64,
}

/// A recording.
pub struct Recording {
    /// `None` when it has ended.
    file: Option<File>,
    path: PathBuf,
    /// Unix milliseconds.
    started_at: u64,
    /// The monotonic clock at the beginning, nanoseconds.
    begun: u64,
    limit: u64,
    /// How long the file is. INVARIANT: up to there it is whole lines.
    written: u64,
    writer: Writer,
    /// Whole lines that are not in the file.
    lines: Vec<u8>,
    ended: Option<Ended>,
}

/// Why a recording has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    /// Somebody wanted it to.
    Stopped,
    /// With the program.
    Finished,
    /// Its limit is reached.
    Full,
    /// The file cannot be written any more.
    Failed(String),
}

/// All of a recording but the file, for another program.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    path: PathBuf,
    started_at: u64,
    begun: u64,
    limit: u64,
    written: u64,
    writer: Writer,
    ended: Option<Ended>,
}

impl Recording {
    /// Begins one, with `screen` as the first output.
    ///
    /// # Errors
    /// A [`Refusal`] when the file cannot be made or written; then there is none.
    pub fn begin(order: &Order, description: &Description, size: Size, screen: &[u8]) -> Result<Self, Refusal> {
        let Order { to, limit } = order;
        let conflict = |why: &str| Refusal::new(refusal::CONFLICT, why);
        if !to.is_absolute() || !LIMITS.contains(limit) {
            return Err(Refusal::new(
                refusal::MALFORMED,
                "a recording needs a whole path, and a limit from 1M to 1024G",
            ));
        }
        // Never over what is there, and never through a link: O_EXCL.
        let file = File::options().write(true).create_new(true).mode(0o600).open(to).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::AlreadyExists => "there is something of that name, and nothing is overwritten".into(),
                _ => reason(&error),
            };
            conflict(&format!("the recording {} cannot be made: {why}", to.display()))
        })?;
        let mut recording = Self {
            file: Some(file),
            path: to.clone(),
            started_at: unix_ms(),
            begun: monotonic(),
            limit: *limit,
            written: 0,
            writer: Writer::default(),
            lines: Vec::new(),
            ended: None,
        };
        let header = Header {
            cols: size.cols,
            rows: size.rows,
            timestamp: Some(recording.started_at / 1000),
            title: Some(description.name.clone()),
            command: (!description.command.is_empty()).then(|| description.command.join(" ")),
            idle_time_limit: None,
        };
        recording.write_header(&header.to_line());
        recording.writer.output(0, screen, &mut recording.lines);
        recording.write();
        let why = match &recording.ended {
            None => return Ok(recording),
            Some(Ended::Failed(why)) => why.clone(),
            Some(_) => "its limit is less than the screen takes".to_owned(),
        };
        recording.discard();
        Err(conflict(&format!("the recording {} cannot be made: {why}", to.display())))
    }

    /// Removes its file: there is nothing in it.
    pub fn discard(self) {
        let _ = std::fs::remove_file(&self.path);
    }

    /// Whether it goes on.
    pub fn is_on(&self) -> bool {
        self.ended.is_none()
    }

    /// Whether something is missing in the file.
    pub fn has_failed(&self) -> bool {
        matches!(self.ended, Some(Ended::Failed(_) | Ended::Full))
    }

    /// Where it is written to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file, while it goes on.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// What is told of it.
    pub fn status(&self) -> happy_rpc::Recording {
        let ended = self.ended.as_ref().map(|ended| match ended {
            Ended::Stopped => "it was stopped".into(),
            Ended::Finished => "the program has ended".into(),
            Ended::Full => format!("its limit of {} bytes is reached", self.limit),
            Ended::Failed(why) => why.clone(),
        });
        happy_rpc::Recording { file: self.path.clone(), started_at: self.started_at, ended }
    }

    /// Whether something waits to be written.
    pub fn waits(&self) -> bool {
        self.is_on() && (self.writer.has_output() || !self.lines.is_empty())
    }

    /// The program has printed.
    pub fn on_output(&mut self, bytes: &[u8]) {
        let now = self.now();
        self.writer.output(now, bytes, &mut self.lines);
        if self.lines.len() >= MAX_WAITING {
            self.write();
        }
    }

    /// The screen has another size.
    pub fn on_resize(&mut self, size: Size) {
        let now = self.now();
        self.writer.resize(now, size.cols, size.rows, &mut self.lines);
        if self.lines.len() >= MAX_WAITING {
            self.write();
        }
    }

    /// The program has ended.
    pub fn on_exit(&mut self, state: SessionState) {
        let now = self.now();
        match state {
            SessionState::Exited { code } => self.writer.exit(now, code, &mut self.lines),
            SessionState::Killed { signal } => self.writer.exit(now, 128 + signal, &mut self.lines),
            SessionState::Running | SessionState::Lost => self.writer.end(now, &mut self.lines),
        }
        self.finish(Ended::Finished);
    }

    /// Somebody wants it to end.
    pub fn stop(&mut self) {
        let now = self.now();
        self.writer.end(now, &mut self.lines);
        self.finish(Ended::Stopped);
    }

    /// Ends it for a reason that is told.
    pub fn cut(&mut self, why: &str) {
        let now = self.now();
        self.writer.end(now, &mut self.lines);
        self.finish(Ended::Failed(why.to_owned()));
    }

    fn finish(&mut self, how: Ended) {
        self.write();
        if self.is_on() {
            self.end(how);
        }
    }

    fn end(&mut self, how: Ended) {
        self.file = None;
        self.lines = Vec::new();
        self.writer = Writer::default();
        self.ended = Some(how);
    }

    /// Writes what waits. When that fails the recording ends, with all that was written before.
    pub fn write(&mut self) {
        self.writer.flush(&mut self.lines);
        let mut lines = std::mem::take(&mut self.lines);
        let room = self.limit.saturating_sub(LAST_LINE + self.written);
        let fits = fitting(&lines, room);
        let is_full = fits < lines.len();
        if is_full {
            lines.truncate(fits);
            let limit = self.limit;
            let now = self.now();
            self.writer.mark(now, &format!("the recording ends: its limit of {limit} bytes is reached"), &mut lines);
        }
        self.append(&mut lines);
        if is_full && self.is_on() {
            self.end(Ended::Full);
        }
        // Its room is used again, if it is not exceptional.
        if lines.capacity() <= 2 * MAX_WAITING {
            lines.clear();
            self.lines = lines;
        }
    }

    fn append(&mut self, lines: &mut [u8]) {
        let Some(file) = self.file.as_ref().filter(|_| !lines.is_empty()) else { return };
        let written = still_ours(file, self.written).and_then(|()| {
            put(lines, self.written, |bytes, at| file.write_all_at(bytes, at)).map_err(|error| {
                // What lies behind the whole lines is a comment, and goes if it can.
                let _ = file.set_len(self.written);
                format!("its file cannot be written: {}", reason(&error))
            })
        });
        match written {
            Ok(()) => self.written += lines.len() as u64,
            Err(why) => self.end(Ended::Failed(why)),
        }
    }

    fn write_header(&mut self, line: &[u8]) {
        let Some(file) = &self.file else { return };
        // In one piece: it is smaller than a page.
        match file.write_all_at(line, 0) {
            Ok(()) => self.written = line.len() as u64,
            Err(error) => self.end(Ended::Failed(reason(&error))),
        }
    }

    /// Milliseconds since the beginning. The clock stands still while the machine sleeps, and goes on when another program takes over.
    fn now(&self) -> u64 {
        monotonic().saturating_sub(self.begun) / 1_000_000
    }

    /// What the next program needs besides the file. Everything must have been [written](Self::write).
    pub fn save(&self) -> Saved {
        let Self { path, started_at, begun, limit, written, writer, ended, .. } = self;
        let (started_at, begun, limit, written) = (*started_at, *begun, *limit, *written);
        Saved { path: path.clone(), started_at, begun, limit, written, writer: writer.clone(), ended: ended.clone() }
    }

    /// Goes on with a recording that another program has begun; its file comes later.
    pub fn resume(saved: Saved) -> Self {
        let Saved { path, started_at, begun, limit, written, writer, ended } = saved;
        Self { file: None, path, started_at, begun, limit, written, writer, lines: Vec::new(), ended }
    }

    /// The file.
    pub fn resume_file(&mut self, file: File) {
        self.file = Some(file);
    }
}

/// How many bytes of whole lines there are within `room`.
fn fitting(lines: &[u8], room: u64) -> usize {
    if lines.len() as u64 <= room {
        return lines.len();
    }
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Whether the file is as we left it: a file that nobody can find any more, or that somebody else writes to, is no recording.
fn still_ours(file: &File, written: u64) -> Result<(), String> {
    match file.metadata() {
        Err(error) => Err(format!("its file cannot be written: {}", reason(&error))),
        Ok(found) if found.nlink() == 0 => Err("its file was removed".into()),
        Ok(found) if found.len() != written => Err("its file was changed by somebody else".into()),
        Ok(_) => Ok(()),
    }
}

/// Writes lines, each of which begins with `[`, so that wherever it is cut off all that is there are whole lines and a comment. What
/// `lines` holds afterwards is of no use.
fn put(lines: &mut [u8], at: u64, mut write: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(end, _)| end + 1);
    let begins: Vec<usize> = [0].into_iter().chain(ends).filter(|begin| *begin < lines.len()).collect();
    begins.iter().for_each(|begin| lines[*begin] = b'#');
    write(lines, at)?;
    begins.iter().try_for_each(|begin| write(b"[", at + *begin as u64))
}

/// Writes what is recorded a little after it was printed, for as long as it is polled.
pub async fn write_soon(holder: &Holder) {
    let wakes = holder.state.borrow().wakes();
    loop {
        wakes.recording.notified().await;
        tokio::time::sleep(SOON).await;
        holder.state.borrow_mut().write_recording();
    }
}

#[cfg(test)]
mod tests {
    use happy_cast::{Event, Reader};
    use uuid::Uuid;

    use super::*;

    fn description() -> Description {
        Description {
            id: Uuid::nil(),
            name: "work".into(),
            command: vec!["make".into(), "all".into()],
            cwd: "/".into(),
            created_at: 1,
            socket: "/".into(),
            tmux: None,
        }
    }

    fn begin(to: &Path, limit: u64, screen: &[u8]) -> Result<Recording, Refusal> {
        Recording::begin(&Order { to: to.to_owned(), limit }, &description(), Size::clamped(80, 24), screen)
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        let mut reader = Reader::new(bytes).unwrap();
        std::iter::from_fn(|| reader.next_event().unwrap().map(|timed| timed.event)).collect()
    }

    fn printed(events: &[Event]) -> String {
        events
            .iter()
            .filter_map(|event| if let Event::Output(text) = event { Some(text.as_str()) } else { None })
            .collect()
    }

    #[test]
    fn killed_at_any_moment_it_leaves_a_whole_asciicast() {
        let header = Header { cols: 80, rows: 24, ..Header::default() }.to_line();
        let mut writer = Writer::default();
        let mut batches = Vec::new();
        for batch in 0..3u64 {
            let mut lines = Vec::new();
            writer.output(batch * 1_000, format!("\x1b[31m{batch} \"界\"\r\n#[").as_bytes(), &mut lines);
            writer.resize(batch * 1_000 + 1, 40, 20, &mut lines);
            writer.output(batch * 1_000 + 2, b"[x]\n", &mut lines);
            writer.flush(&mut lines);
            batches.push(lines);
        }
        // How many bytes are written before the end comes, within a write too.
        let (mut left, mut seen) = (0, 0);
        loop {
            let (mut file, mut budget) = (header.clone(), left);
            let died = batches.iter().any(|lines| {
                let at = file.len() as u64;
                let written = put(&mut lines.clone(), at, |bytes, at| {
                    let (at, now) = (at as usize, bytes.len().min(budget));
                    file.resize(file.len().max(at + now), 0);
                    file[at..at + now].copy_from_slice(&bytes[..now]);
                    budget -= now;
                    if now < bytes.len() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
                });
                written.is_err()
            });
            let events = events(&file);
            assert!(events.len() >= seen, "an event is gone again");
            seen = events.len();
            assert!(printed(&events).starts_with(&"\x1b[31m0 \"界\"\r\n#[[x]\n"[..printed(&events).len().min(18)]));
            if !died {
                break;
            }
            left += 1;
        }
        assert_eq!(seen, 9);
        assert!(left > 100);
    }

    #[test]
    fn a_file_is_made_anew_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cast");
        let mut recording = begin(&path, LIMIT, b"the screen").unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        recording.on_output(b"more");
        assert!(recording.waits());
        recording.stop();
        assert_eq!(recording.status().ended.as_deref(), Some("it was stopped"));
        let bytes = std::fs::read(&path).unwrap();
        let header = Reader::new(&bytes[..]).unwrap().header().clone();
        assert_eq!(
            (header.cols, header.title.as_deref(), header.command.as_deref()),
            (80, Some("work"), Some("make all"))
        );
        assert_eq!(printed(&events(&bytes)), "the screenmore");

        let (link, dangling) = (folder.path().join("link"), folder.path().join("dangling"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &dangling).unwrap();
        for taken in [&path, &link, &dangling] {
            let refused = begin(taken, LIMIT, b"").err().unwrap();
            assert!(refused.message.contains("nothing is overwritten"), "{refused}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert!(!folder.path().join("nowhere").exists());
        for (to, limit) in [(Path::new("a.cast"), LIMIT), (&path, 1), (&path, u64::MAX)] {
            assert_eq!(begin(to, limit, b"").err().unwrap().code, refusal::MALFORMED);
        }
    }

    #[test]
    fn at_its_limit_a_recording_ends_with_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cast");
        let limit = *LIMITS.start();
        let mut recording = begin(&path, limit, b"").unwrap();
        let mut rounds = 0;
        while recording.is_on() {
            recording.on_output(&[b'x'; 10_000]);
            recording.write();
            rounds += 1;
        }
        assert!(path.metadata().unwrap().len() <= limit && rounds > 90, "{rounds}");
        assert!(recording.has_failed() && recording.status().ended.unwrap().contains("limit"));
        let events = events(&std::fs::read(&path).unwrap());
        assert!(matches!(events.last(), Some(Event::Mark(why)) if why.contains("limit")));
        recording.on_exit(SessionState::Exited { code: 0 });
        assert!(recording.has_failed(), "it ends once");
    }

    #[test]
    fn a_recording_whose_file_is_gone_or_another_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cast");
        let mut recording = begin(&path, LIMIT, b"").unwrap();
        std::fs::remove_file(&path).unwrap();
        recording.on_output(b"x");
        recording.write();
        assert_eq!(recording.status().ended.as_deref(), Some("its file was removed"));

        let mut recording = begin(&path, LIMIT, b"").unwrap();
        std::fs::write(&path, "mine").unwrap();
        recording.on_output(b"x");
        recording.stop();
        assert_eq!(recording.status().ended.as_deref(), Some("its file was changed by somebody else"));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn another_program_goes_on_within_a_character() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cast");
        let mut recording = begin(&path, LIMIT, b"").unwrap();
        let text = "grün 界 \x1b[1mfett\r\n".repeat(50);
        for byte in text.as_bytes() {
            recording.on_output(&[*byte]);
            recording.write();
            assert!(!recording.waits());
            let saved = serde_json::to_vec(&recording.save()).unwrap();
            let file = recording.file.take().unwrap();
            recording = Recording::resume(serde_json::from_slice(&saved).unwrap());
            recording.resume_file(file);
        }
        recording.on_exit(SessionState::Killed { signal: 9 });
        let events = events(&std::fs::read(&path).unwrap());
        assert_eq!(printed(&events), text);
        assert_eq!(events.last(), Some(&Event::Exit("137".into())));
    }
}
