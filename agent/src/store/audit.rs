//! `audit.log`: which calls changed something, and which were refused, each line bound to the one before it (`docs/LOCAL.md`, Audit log).
//!
//! A line is JSON and ends with its seal, HMAC-SHA-256 under the key in `audit.key` over the seal before it and the rest of the line. So a line that is
//! removed, changed, moved or put in is found out, by whoever has the key. `audit.end` says, sealed as well, where the log ended when it was
//! last written; without it nobody would miss lines at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use happy_crypto::labelled_hash;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::file::{self, PRIVATE};
use crate::trouble::Trouble;

/// The log grows to this before it is set aside as `.1`: both together are some 20,000 to 60,000 lines.
pub const MAX_AUDIT: u64 = 4 * 1024 * 1024;
/// The longest line that is read; one that is written is much shorter.
const MAX_LINE: usize = 16 * 1024;
/// The most bytes of what a call was about.
const MAX_WHAT: usize = 512;
const SEAL: usize = 64;

/// What happened, without its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Unix milliseconds.
    pub at: u64,
    /// Who called: the id of a device, `local`, or `inside SESSION`.
    pub who: String,
    /// What they are here; none when they are nothing any more.
    pub role: Option<String>,
    /// The call, or what else happened.
    pub method: String,
    /// What it was about: a path, a session, a device; never contents.
    pub what: String,
    /// `ok`, or the code of the refusal.
    pub outcome: String,
    /// So many lines before this one could not be written or were too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts the lines of the log from 1, through all its files.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What `audit.end` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// The first line that must still be there.
    first: u64,
    /// The last line that was written; later ones may be there.
    last: u64,
    /// Its seal.
    seal: String,
    /// Over the three.
    mac: String,
}

/// The key that lines are sealed with.
struct Key(Zeroizing<[u8; 32]>);

impl Key {
    /// The one of a home, if it has one.
    fn find(log: &Path) -> Result<Option<Key>, Trouble> {
        let path = log.with_file_name("audit.key");
        let Some(bytes) = file::read_private(&path)? else { return Ok(None) };
        let key = bytes.as_slice().try_into().map_err(|_| {
            Trouble::new(
                format!("The key of the audit log in {} is damaged.", path.display()),
                "Move audit.key and the files of audit.log aside; a new log begins then.",
            )
        })?;
        Ok(Some(Key(Zeroizing::new(key))))
    }

    fn make(log: &Path) -> Result<Key, Trouble> {
        let mut key = Zeroizing::new([0; 32]);
        crate::store::random().fill_bytes(key.as_mut());
        file::replace(&log.with_file_name("audit.key"), key.as_slice(), PRIVATE)?;
        Ok(Key(key))
    }

    fn seal(&self, before: &str, body: &str) -> String {
        self.mac("happy audit line", &[before.as_bytes(), body.as_bytes()])
    }

    fn end(&self, first: u64, last: u64, seal: &str) -> String {
        self.mac("happy audit end", &[&first.to_be_bytes(), &last.to_be_bytes(), seal.as_bytes()])
    }

    /// HMAC-SHA-256 of a hash of the parts, of which only the last has a length that is not known: a seal is empty before the very first line, and
    /// no line begins as one.
    fn mac(&self, label: &str, parts: &[&[u8]]) -> String {
        use hmac::{Hmac, KeyInit, Mac};
        let mut mac = match Hmac::<sha2::Sha256>::new_from_slice(self.0.as_slice()) {
            Ok(mac) => mac,
            // HMAC takes keys of every length.
            Err(_) => return String::new(),
        };
        mac.update(&labelled_hash(label, parts));
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The log, open to be written.
pub struct Audit {
    path: PathBuf,
    key: Key,
    file: File,
    len: u64,
    max: u64,
    /// Of the line that was written last.
    n: u64,
    seal: String,
    /// The first line of the file that is written to, and of the one before it.
    first: u64,
    first_kept: u64,
    missed: u64,
}

impl Audit {
    /// Opens the log, or begins one. A line that a crash has cut goes, and the log says so.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn open(path: &Path) -> Result<Audit, Trouble> {
        Self::with_max(path, MAX_AUDIT)
    }

    fn with_max(path: &Path, max: u64) -> Result<Audit, Trouble> {
        let failed = |error: io::Error| Trouble::file("open the audit log", path, &error);
        let key = match Key::find(path)? {
            Some(key) => key,
            None => Key::make(path)?,
        };
        let file = OpenOptions::new().read(true).append(true).create(true).mode(PRIVATE).open(path).map_err(failed)?;
        let torn = cut_torn(&file).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let older = ends_of(&path.with_extension("log.1")).map_err(failed)?;
        let newer = ends_of(path).map_err(failed)?;
        let last = newer.as_ref().or(older.as_ref());
        // A log that has lost its last lines goes on from where `audit.end` says that it was, so that they are missed and not counted anew.
        let end = read_end(path, &key);
        let (n, seal) = match (last, &end) {
            (Some(ends), None) => (ends.last, ends.seal.clone()),
            (Some(ends), Some(end)) if ends.last >= end.last => (ends.last, ends.seal.clone()),
            (_, Some(end)) => (end.last, end.seal.clone()),
            (None, None) => (0, String::new()),
        };
        let first = newer.as_ref().map_or(n + 1, |ends| ends.first);
        // What had to be there before is not forgotten because it is gone.
        let first_kept = end.map_or(older.map_or(first, |ends| ends.first), |end| end.first);
        let mut audit = Audit { path: path.to_owned(), key, file, len, max, n, seal, first, first_kept, missed: 0 };
        if torn > 0 {
            audit.note("audit.repaired", &format!("{torn} bytes of a line that a crash had cut were removed"));
        }
        Ok(audit)
    }

    /// Adds a line that nobody called for.
    pub fn note(&mut self, method: &str, what: &str) {
        // What cannot be written is counted.
        let _ = self.add(Event {
            at: crate::store::unix_ms(),
            who: "local".into(),
            role: None,
            method: method.into(),
            what: what.into(),
            outcome: "ok".into(),
            missed: 0,
        });
    }

    /// Adds a line. One that cannot be written is counted, and the next one says how many there were.
    ///
    /// # Errors
    /// Why it cannot be written, for people.
    pub fn add(&mut self, event: Event) -> Result<(), String> {
        let missed = self.missed;
        match self.write(Event { missed, ..event }) {
            Ok(()) => {
                self.missed = 0;
                Ok(())
            }
            Err(error) => {
                self.missed += 1;
                if self.missed == 1 {
                    tracing::error!(%error, "the audit log cannot be written; the next line says how many are missing");
                }
                Err(crate::trouble::reason(&error))
            }
        }
    }

    /// A line was left out on purpose: there were too many.
    pub fn leave_out(&mut self) {
        self.missed += 1;
    }

    fn write(&mut self, mut event: Event) -> io::Result<()> {
        event.what.truncate(event.what.floor_char_boundary(MAX_WHAT));
        let n = self.n + 1;
        let body = serde_json::to_string(&Line { n, event })?;
        let seal = self.key.seal(&self.seal, &body);
        let line = format!("{body} {seal}\n");
        if self.len > 0 && self.len + line.len() as u64 > self.max {
            self.turn()?;
        }
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()) {
            // A part of it would be taken for a line that somebody has changed.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += line.len() as u64;
        (self.n, self.seal) = (n, seal);
        self.write_end()
    }

    /// Sets the file aside; the chain goes on in the next one.
    fn turn(&mut self) -> io::Result<()> {
        // First, so that a crash between the two leaves more lines than must be there, and not fewer.
        self.first_kept = self.first;
        self.write_end()?;
        match std::fs::rename(&self.path, self.path.with_extension("log.1")) {
            // It was set aside before, and then there was no room or no descriptor for the next one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = OpenOptions::new().append(true).create(true).mode(PRIVATE).open(&self.path)?;
        (self.len, self.first) = (0, self.n + 1);
        file::sync_folder_of(&self.path)
    }

    fn write_end(&self) -> io::Result<()> {
        let (first, last, seal) = (self.first_kept, self.n, self.seal.clone());
        let end = End { first, last, mac: self.key.end(first, last, &seal), seal };
        let text = serde_json::to_vec(&end)?;
        file::replace(&end_path(&self.path), &text, PRIVATE).map_err(|trouble| io::Error::other(trouble.what))
    }
}

fn end_path(log: &Path) -> PathBuf {
    log.with_file_name("audit.end")
}

fn read_end(log: &Path, key: &Key) -> Option<End> {
    let bytes = file::read(&end_path(log)).ok().flatten()?;
    let end: End = serde_json::from_slice(&bytes).ok()?;
    (end.mac == key.end(end.first, end.last, &end.seal)).then_some(end)
}

/// Cuts off what stands behind the last end of a line; how many bytes that were.
fn cut_torn(mut file: &File) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let mut from = len;
    while from > 0 {
        let step = from.min(4096);
        let mut chunk = vec![0; step as usize];
        file.seek(SeekFrom::Start(from - step))?;
        file.read_exact(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            from = from - step + at as u64 + 1;
            break;
        }
        from -= step;
    }
    if from < len {
        file.set_len(from)?;
        file.sync_data()?;
    }
    Ok(len - from)
}

/// The first and last line of a file.
struct Ends {
    first: u64,
    last: u64,
    seal: String,
}

fn ends_of(path: &Path) -> io::Result<Option<Ends>> {
    let mut ends: Option<Ends> = None;
    each_line(path, |_, line| {
        // Damage is for `verify` to tell; here it must not be in the way of new lines.
        if let Some((line, seal, _)) = line.and_then(parse) {
            let first = ends.as_ref().map_or(line.n, |ends| ends.first);
            ends = Some(Ends { first, last: line.n, seal: seal.to_owned() });
        }
    })?;
    Ok(ends)
}

/// Goes through the lines of a file; `None` in the place of one that is too long or is no text. No file has no lines.
fn each_line(path: &Path, mut take: impl FnMut(u64, Option<&str>)) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (mut reader, mut bytes, mut number) = (BufReader::new(file), Vec::new(), 0);
    loop {
        bytes.clear();
        if reader.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(());
        }
        number += 1;
        let whole = bytes.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        take(number, whole);
    }
}

/// A line, its seal, and what is sealed.
fn parse(line: &str) -> Option<(Line, &str, &str)> {
    let (body, seal) = line.rsplit_once(' ')?;
    let is_seal = seal.len() == SEAL && seal.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((serde_json::from_str(body).ok()?, seal, body)).filter(|_| is_seal)
}

/// The last lines of a log, oldest first.
///
/// # Errors
/// When it cannot be read.
pub fn last(path: &Path, count: usize) -> Result<Vec<Line>, Trouble> {
    let mut lines = std::collections::VecDeque::new();
    for path in [path.with_extension("log.1"), path.to_owned()] {
        let read = each_line(&path, |_, line| {
            if let Some((line, ..)) = line.and_then(parse) {
                lines.push_back(line);
                if lines.len() > count {
                    lines.pop_front();
                }
            }
        });
        read.map_err(|error| Trouble::file("read the audit log", &path, &error))?;
    }
    Ok(lines.into())
}

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How many lines there are.
    pub lines: u64,
    /// The number of the first of them.
    pub first: Option<u64>,
    /// The number of the last.
    pub last: Option<u64>,
    /// What was found, in sentences; nothing when it is whole. At most 20.
    pub findings: Vec<String>,
}

/// The most findings that are told: behind the first few there is little to learn.
const MAX_FINDINGS: usize = 20;

/// Says whether a line was removed, changed, moved or put in. It may be written to meanwhile.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(path: &Path) -> Result<Verdict, Trouble> {
    let verdict = verify_once(path)?;
    // A log that was set aside between the two looks is looked at again.
    if verdict.findings.is_empty() { Ok(verdict) } else { verify_once(path) }
}

fn verify_once(path: &Path) -> Result<Verdict, Trouble> {
    let mut verdict = Verdict { lines: 0, first: None, last: None, findings: Vec::new() };
    let has_log = path.exists() || path.with_extension("log.1").exists();
    let Some(key) = Key::find(path)? else {
        if has_log {
            verdict.findings.push("The key audit.key is missing, so nobody can say whether the log is whole.".into());
        }
        return Ok(verdict);
    };
    // Before the lines: what is written meanwhile makes the log longer than it says.
    let has_end = end_path(path).exists();
    let end = read_end(path, &key);
    let mut chain = Chain { key: &key, at: None, end_seen: false, end: end.as_ref(), verdict: &mut verdict };
    for path in [path.with_extension("log.1"), path.to_owned()] {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = each_line(&path, |number, line| chain.take(&name, number, line));
        read.map_err(|error| Trouble::file("read the audit log", &path, &error))?;
    }
    let end_seen = chain.end_seen;
    match end {
        None if has_end => verdict.find("audit.end is not what this machine wrote.".into()),
        None if verdict.lines > 0 => {
            verdict.find("audit.end is missing, so nobody can say whether lines are missing at the end.".into())
        }
        None => {}
        Some(end) => {
            if verdict.first.is_none_or(|first| first > end.first) && end.last >= end.first {
                verdict
                    .find(format!("Lines are missing at the beginning: number {} should still be there.", end.first));
            }
            if end.last > 0 && verdict.last.is_none_or(|last| last < end.last) {
                verdict.find(format!("Lines are missing at the end: it went on to number {}.", end.last));
            } else if end.last >= end.first && !end_seen {
                verdict.find(format!("Line number {} is not the one that was written.", end.last));
            }
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn find(&mut self, what: String) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(what);
        }
    }
}

/// The chain as far as it was followed.
struct Chain<'a> {
    key: &'a Key,
    /// Number and seal of the line before.
    at: Option<(u64, String)>,
    end: Option<&'a End>,
    end_seen: bool,
    verdict: &'a mut Verdict,
}

impl Chain<'_> {
    fn take(&mut self, file: &str, number: u64, line: Option<&str>) {
        self.verdict.lines += 1;
        let Some((line, seal, body)) = line.and_then(parse) else {
            self.verdict.find(format!("{file}, line {number}: it is no line of this log; it was changed or put in."));
            return;
        };
        self.verdict.first.get_or_insert(line.n);
        self.verdict.last = Some(line.n);
        if self.end.is_some_and(|end| end.last == line.n && end.seal == seal) {
            self.end_seen = true;
        }
        // What the first line that is left goes on from is gone with the file that had it, unless it is the very first one.
        let before = self.at.replace((line.n, seal.to_owned()));
        let before = match before {
            None if line.n == 1 => Some((0, String::new())),
            before => before,
        };
        let Some((last, last_seal)) = before else { return };
        let is_sealed = self.key.seal(&last_seal, body) == seal;
        if line.n != last + 1 {
            let what = match line.n > last + 1 {
                true => format!("{} lines are missing before number {}.", line.n - last - 1, line.n),
                false => format!("number {} stands behind number {last}; it was moved or put in.", line.n),
            };
            self.verdict.find(format!("{file}, line {number}: {what}"));
        } else if !is_sealed {
            self.verdict
                .find(format!("{file}, line {number}: number {} was changed, or the line before it was.", line.n));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stage {
        folder: tempfile::TempDir,
    }

    impl Stage {
        fn new() -> Stage {
            Stage { folder: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("audit.log")
        }

        fn with_lines(count: u64) -> Stage {
            let stage = Stage::new();
            let mut audit = Audit::open(&stage.path()).unwrap();
            (0..count).for_each(|n| audit.add(event(n)).unwrap());
            stage
        }

        fn lines(&self) -> Vec<String> {
            std::fs::read_to_string(self.path()).unwrap().lines().map(str::to_owned).collect()
        }

        fn put(&self, lines: &[String]) {
            std::fs::write(self.path(), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        }

        fn findings(&self) -> Vec<String> {
            verify(&self.path()).unwrap().findings
        }
    }

    fn event(n: u64) -> Event {
        Event {
            at: n,
            who: "local".into(),
            role: Some("owner".into()),
            method: "file.write".into(),
            what: format!("/home/me/{n}"),
            outcome: "ok".into(),
            missed: 0,
        }
    }

    #[test]
    fn a_whole_log_is_whole_and_goes_on_after_a_restart() {
        let stage = Stage::with_lines(5);
        let mut audit = Audit::open(&stage.path()).unwrap();
        audit.add(event(6)).unwrap();
        assert_eq!(
            verify(&stage.path()).unwrap(),
            Verdict { lines: 6, first: Some(1), last: Some(6), findings: Vec::new() }
        );
        assert_eq!(last(&stage.path(), 2).unwrap().iter().map(|line| line.n).collect::<Vec<_>>(), [5, 6]);
        use std::os::unix::fs::MetadataExt;
        for name in ["audit.log", "audit.key", "audit.end"] {
            assert_eq!(std::fs::metadata(stage.folder.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn every_line_that_is_removed_changed_moved_or_put_in_is_found() {
        let whole = Stage::with_lines(6);
        let lines = whole.lines();
        assert!(whole.findings().is_empty());
        for at in 0..lines.len() {
            let mut removed = lines.clone();
            removed.remove(at);
            whole.put(&removed);
            assert!(!whole.findings().is_empty(), "line {at} was removed");

            let mut changed = lines.clone();
            changed[at] = changed[at].replace("/home/me/", "/home/you/");
            whole.put(&changed);
            assert!(!whole.findings().is_empty(), "line {at} was changed");

            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            whole.put(&twice);
            assert!(!whole.findings().is_empty(), "line {at} was put in again");

            let mut moved = lines.clone();
            moved.swap(at, (at + 1) % lines.len());
            whole.put(&moved);
            assert!(!whole.findings().is_empty(), "line {at} was moved");

            whole.put(&lines[..at]);
            assert!(whole.findings().iter().any(|found| found.contains("missing at the end")), "cut at {at}");
            if at > 0 {
                whole.put(&lines[at..]);
                assert!(whole.findings().iter().any(|found| found.contains("beginning")), "{at} from the beginning");
            }
        }
        whole.put(&lines);
        assert!(whole.findings().is_empty());
        // A line of somebody who does not have the key.
        let other = Stage::with_lines(7);
        let mut forged = lines.clone();
        forged.push(other.lines()[6].clone());
        whole.put(&forged);
        assert!(whole.findings().iter().any(|found| found.contains("changed")), "{:?}", whole.findings());
        std::fs::remove_file(whole.folder.path().join("audit.end")).unwrap();
        whole.put(&lines[..3]);
        assert!(whole.findings().iter().any(|found| found.contains("audit.end is missing")));
        std::fs::remove_file(whole.path()).unwrap();
    }

    #[test]
    fn lines_that_were_cut_are_missed_after_the_log_has_gone_on() {
        for kept in 0..4 {
            let stage = Stage::with_lines(4);
            stage.put(&stage.lines()[..kept]);
            let mut audit = Audit::open(&stage.path()).unwrap();
            (0..3).for_each(|n| audit.add(event(n)).unwrap());
            assert!(!stage.findings().is_empty(), "{kept} lines were left");
        }
    }

    #[test]
    fn a_line_that_a_crash_has_cut_is_repaired_and_the_log_says_so() {
        let stage = Stage::with_lines(3);
        let whole = std::fs::read(stage.path()).unwrap();
        let fourth = br#"{"n":4,"at":4,"who":"local","#;
        std::fs::write(stage.path(), [whole.as_slice(), fourth].concat()).unwrap();
        Audit::open(&stage.path()).unwrap().add(event(5)).unwrap();
        assert!(stage.findings().is_empty(), "{:?}", stage.findings());
        let lines = last(&stage.path(), 9).unwrap();
        assert_eq!((lines.len(), lines[3].event.method.as_str()), (5, "audit.repaired"));
        assert!(lines[3].event.what.starts_with(&format!("{} bytes", fourth.len())), "{:?}", lines[3]);
    }

    #[test]
    fn two_files_at_most_and_the_chain_goes_through_both() {
        let stage = Stage::new();
        let mut audit = Audit::with_max(&stage.path(), 2_000).unwrap();
        (0..100).for_each(|n| audit.add(event(n)).unwrap());
        drop(audit);
        let older = stage.path().with_extension("log.1");
        assert!(std::fs::metadata(stage.path()).unwrap().len() <= 2_000);
        assert!(std::fs::metadata(&older).unwrap().len() <= 2_000);
        let verdict = verify(&stage.path()).unwrap();
        assert!(verdict.findings.is_empty() && verdict.last == Some(100) && verdict.first > Some(1), "{verdict:?}");
        // It goes on, with the same bound, and both files count.
        Audit::with_max(&stage.path(), 2_000).unwrap().add(event(101)).unwrap();
        assert!(stage.findings().is_empty(), "{:?}", stage.findings());
        std::fs::remove_file(&older).unwrap();
        assert!(stage.findings().iter().any(|found| found.contains("beginning")), "{:?}", stage.findings());
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told() {
        let stage = Stage::with_lines(1);
        let mut audit = Audit::open(&stage.path()).unwrap();
        audit.file = File::open(stage.path()).unwrap();
        (0..3).for_each(|n| assert_eq!(audit.add(event(n)), Err("bad file descriptor".to_owned())));
        audit.file = OpenOptions::new().append(true).open(stage.path()).unwrap();
        audit.add(event(9)).unwrap();
        assert_eq!(last(&stage.path(), 1).unwrap()[0].event.missed, 3);
        assert!(stage.findings().is_empty());
    }
}
