//! Reading recordings, which may be anybody's.

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::time::Duration;

use crate::Event;
use crate::header::{Header, Raw};

/// The longest line that is read, in bytes. Ours are below 200 KiB; those of others hold what was read from a terminal at once.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file failed.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The first line is no header.
    #[error("line 1 is not the beginning of an asciicast")]
    NotACast,
    /// Another version's.
    #[error("it is an asciicast of version {0}; versions 2 and 3 are read")]
    Version(u64),
    /// More than [`MAX_LINE`].
    #[error("line {0} has more than 4 MiB")]
    TooLong(u64),
    /// The file ends within a line.
    #[error("line {0} is cut off: the file ends in the middle of it")]
    Cut(u64),
    /// Not an event.
    #[error("line {line} is no event: {why}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// An event and when it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// Since the beginning.
    pub at: Duration,
    /// What happens.
    pub event: Event,
}

/// Takes events from a recording one after the other; it keeps no more than one line.
pub struct Reader<R> {
    input: R,
    header: Header,
    has_intervals: bool,
    line: Vec<u8>,
    number: u64,
    at: Duration,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut line = Vec::new();
        read_line(&mut input, &mut line, 1)?;
        let Ok(version) = serde_json::from_slice::<Version>(&line) else { return Err(ReadError::NotACast) };
        if !(2..=3).contains(&version.version) {
            return Err(ReadError::Version(version.version));
        }
        let raw: Raw = serde_json::from_slice(&line).map_err(|_| ReadError::NotACast)?;
        let has_intervals = raw.version == 3;
        let header = raw.into_header().ok_or(ReadError::NotACast)?;
        Ok(Self { input, header, has_intervals, line, number: 1, at: Duration::ZERO })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next event; `None` at the end. Comments and events of other kinds are passed over: input, which some recorders keep, among them.
    ///
    /// # Errors
    /// [`ReadError`]; nothing can be read after it.
    pub fn next_event(&mut self) -> Result<Option<Timed>, ReadError> {
        loop {
            self.number += 1;
            if !read_line(&mut self.input, &mut self.line, self.number)? {
                return Ok(None);
            }
            if self.line.first() == Some(&b'#') || self.line.trim_ascii().is_empty() {
                continue;
            }
            if let Some(timed) = self.event()? {
                return Ok(Some(timed));
            }
        }
    }

    fn event(&mut self) -> Result<Option<Timed>, ReadError> {
        let line = self.number;
        let wrong = |why: String| ReadError::Line { line, why };
        let parsed = serde_json::from_slice::<(f64, Cow<'_, str>, String)>(&self.line);
        let (time, kind, data) = match parsed {
            Ok(parsed) => parsed,
            Err(_) if !self.line.ends_with(b"\n") => return Err(ReadError::Cut(line)),
            Err(error) => {
                let what = match error.classify() {
                    serde_json::error::Category::Data => "it is not a time, a kind and a text",
                    _ => "it is not JSON",
                };
                return Err(wrong(format!("{what} (column {})", error.column())));
            }
        };
        let time = Duration::try_from_secs_f64(time).map_err(|_| wrong(format!("{time} is not a time")))?;
        self.at = match self.has_intervals {
            true => self.at.checked_add(time).ok_or_else(|| wrong("the times are too large".into()))?,
            // Some recorders of version 2 have steps back of a few microseconds.
            false => self.at.max(time),
        };
        let event = match &*kind {
            "o" => Event::Output(data),
            "m" => Event::Mark(data),
            "x" => Event::Exit(data),
            "r" => {
                let size = data.split_once('x').and_then(|(cols, rows)| Some((cols.parse().ok()?, rows.parse().ok()?)));
                let (cols, rows) = size.ok_or_else(|| wrong("it is not a size, as 80x24".into()))?;
                Event::Resize(cols, rows)
            }
            _ => return Ok(None),
        };
        Ok(Some(Timed { at: self.at, event }))
    }
}

#[derive(serde::Deserialize)]
struct Version {
    version: u64,
}

/// Reads a line with its end; `false` at the end of the file.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, ReadError> {
    line.clear();
    loop {
        let bytes = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            bytes => bytes?,
        };
        if bytes.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let taken = end.unwrap_or(bytes.len());
        if line.len() + taken > MAX_LINE {
            return Err(ReadError::TooLong(number));
        }
        line.extend_from_slice(&bytes[..taken]);
        input.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(u128, Event)>, String> {
        let mut reader = Reader::new(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut events = Vec::new();
        while let Some(timed) = reader.next_event().map_err(|error| error.to_string())? {
            events.push((timed.at.as_millis(), timed.event));
        }
        Ok(events)
    }

    const V3: &str = r#"{"version": 3, "term": {"cols": 80, "rows": 24}}"#;

    #[test]
    fn both_versions_are_read() {
        let v2 = "{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1.5,\"env\":{}}\r\n[0.5,\"o\",\"a\"]\r\n[0.4,\"i\",\"x\"]\n[1,\"r\",\"9x8\"]";
        let events = |end| vec![(500, Event::Output("a".into())), (end, Event::Resize(9, 8))];
        assert_eq!(all(v2).unwrap(), events(1_000));
        let v3 = format!(
            "{V3}\n# a comment\n\n[0.5,\"o\",\"a\"]\n[0.25,\"q\",\"?\"]\n[1,\"r\",\"9x8\"]\n[0,\"m\",\"here\"]\n[1,\"x\",\"0\"]\n"
        );
        let more = vec![(1_750, Event::Mark("here".into())), (2_750, Event::Exit("0".into()))];
        assert_eq!(all(&v3).unwrap(), [events(1_750), more].concat());
    }

    #[test]
    fn what_is_broken_is_refused_with_its_line() {
        for (text, wanted) in [
            ("", "line 1 is not"),
            ("\x7fELF", "line 1 is not"),
            ("{\"version\":1,\"width\":80,\"height\":24,\"stdout\":[]}", "version 1"),
            ("{\"version\":3,\"width\":80,\"height\":24}", "line 1 is not"),
            ("{\"version\":2,\"width\":80,\"height\":70000}", "line 1 is not"),
        ] {
            assert!(all(text).unwrap_err().contains(wanted), "{text}");
        }
        for (line, wanted) in [
            ("[0.1,\"o\"]\n", "line 3 is no event: it is not a time"),
            ("[0.1,\"o\",7]\n", "line 3 is no event"),
            ("[0.1,\"o\",\"x\"\n", "it is not JSON"),
            ("[0.1,\"o\",\"x", "line 3 is cut off"),
            ("[-1,\"o\",\"x\"]\n", "-1 is not a time"),
            ("[1e300,\"o\",\"x\"]\n", "is not a time"),
            ("[0,\"r\",\"80\"]\n", "as 80x24"),
            ("[0,\"r\",\"80x-1\"]\n", "as 80x24"),
            ("[0,\"o\",\"\\ud800\"]\n", "line 3 is no event"),
            ("[[[[[\n", "line 3 is no event"),
        ] {
            let error = all(&format!("{V3}\n[0,\"m\",\"\"]\n{line}")).unwrap_err();
            assert!(error.contains(wanted), "{line:?}: {error}");
        }
        let mut bytes = format!("{V3}\n[0,\"o\",\"").into_bytes();
        bytes.push(0xff);
        bytes.extend_from_slice(b"\"]\n");
        assert!(Reader::new(&bytes[..]).unwrap().next_event().is_err());
        let largest = Duration::MAX.as_secs_f64() / 2.5;
        let times = format!("{V3}\n{}", format!("[{largest},\"o\",\"x\"]\n").repeat(4));
        assert!(all(&times).unwrap_err().contains("too large"), "{}", all(&times).unwrap_err());
    }

    #[test]
    fn a_line_without_end_costs_no_more_than_its_limit() {
        let begin = format!("{V3}\n");
        let endless = io::Read::chain(begin.as_bytes(), io::Read::take(io::repeat(b'['), 1 << 40));
        let mut reader = Reader::new(io::BufReader::new(endless)).unwrap();
        assert!(matches!(reader.next_event(), Err(ReadError::TooLong(2))));
        assert!(reader.line.capacity() <= 2 * MAX_LINE);
    }
}
