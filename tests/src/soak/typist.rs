//! What one phone types into one session, over all its comings and goings, and what it sees of it.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use happy_link::Event;
use happy_wire::terminal::TerminalMessage;
use uuid::Uuid;

use super::ledger::Ledger;
use super::program::FILLING;
use crate::phone::{Phone, Viewer};

/// At most so much is typed in one message.
const AT_ONCE: usize = 2_048;

/// One phone at one session whose program prints `got LINE` for each line that it reads.
pub struct Typist {
    /// Which session.
    pub session: Uuid,
    /// What it types begins with this, so that no two type the same.
    name: String,
    writer: Uuid,
    typed: Vec<u8>,
    /// How many lines that is.
    lines: u64,
    /// Output before this offset was seen.
    offset: u64,
    /// The beginning of a line.
    rest: Vec<u8>,
    seen: BTreeMap<String, u64>,
    own: u64,
}

impl Typist {
    /// It has typed nothing yet.
    pub fn new(session: Uuid, name: String) -> Typist {
        Typist {
            session,
            name,
            writer: Uuid::new_v4(),
            typed: Vec::new(),
            lines: 0,
            offset: 0,
            rest: Vec::new(),
            seen: BTreeMap::new(),
            own: 0,
        }
    }

    /// Goes on with the session where it was left, types what has not been taken then, and more lines.
    ///
    /// # Errors
    /// When the line breaks.
    pub async fn go_on(&mut self, phone: &mut Phone, lines: u64, ledger: &Ledger) -> Result<Viewer> {
        let mut viewer = phone.attach_from(self.session, self.writer, Some(self.offset)).await?;
        for _ in 0..lines {
            self.lines += 1;
            self.typed.extend_from_slice(format!("{}.{}\n", self.name, self.lines).as_bytes());
        }
        ledger.did_times("lines typed", lines);
        let taken = usize::try_from(viewer.attached.input_offset)?;
        let Some(left) = self.typed.get(taken..) else {
            ledger.wrong(format!("{}: {taken} bytes were taken, and {} typed", self.name, self.typed.len()));
            bail!("more was taken than was typed");
        };
        for piece in left.chunks(AT_ONCE) {
            phone.type_into(&mut viewer, piece).await?;
        }
        Ok(viewer)
    }

    /// Reads until all that it has typed is seen.
    ///
    /// # Errors
    /// When the line breaks.
    pub async fn read(&mut self, phone: &mut Phone, viewer: &Viewer, ledger: &Ledger) -> Result<()> {
        while self.own < self.lines {
            match phone.event().await? {
                Event::Message { channel, bytes, .. } if channel == viewer.channel => {
                    phone.handle().consumed(&phone.machine, channel, bytes.len());
                    match TerminalMessage::decode(&bytes)? {
                        TerminalMessage::Output { offset, bytes } => self.take(offset, bytes, ledger),
                        TerminalMessage::Resized { .. } | TerminalMessage::InputTaken { .. } => {}
                        other => ledger.wrong(format!("{}: {other:?} instead of output that is kept", self.name)),
                    }
                }
                Event::Closed { channel, code, reason, .. } if channel == viewer.channel => {
                    bail!("the channel was closed: {code}: {reason}")
                }
                // Channels went with the session before.
                Event::LinkUp { resumed: false, .. } => bail!("the link began anew"),
                _ => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, offset: u64, bytes: &[u8], ledger: &Ledger) {
        if offset != self.offset {
            ledger.wrong(format!("{}: output at {offset} instead of {}", self.name, self.offset));
        }
        self.offset = offset + bytes.len() as u64;
        self.rest.extend_from_slice(bytes);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            if line.starts_with(FILLING) {
                continue;
            }
            let line = String::from_utf8_lossy(&line).into_owned();
            let Some(token) = line.strip_prefix("got ").map(str::trim_end) else {
                ledger.wrong(format!("{}: it printed {line:?}", self.name));
                continue;
            };
            if token.rsplit_once('.').is_some_and(|(name, _)| name == self.name) {
                self.own += 1;
            }
            *self.seen.entry(token.to_owned()).or_default() += 1;
        }
    }

    /// All that it has typed, line by line.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.lines).map(|number| format!("{}.{number}", self.name))
    }

    /// How often it has seen each line, by whomever it was typed.
    pub fn seen(&self) -> &BTreeMap<String, u64> {
        &self.seen
    }
}

/// How many of these lines are missing, and how many are there too often or were never typed.
pub fn compare(typed: impl Iterator<Item = String>, seen: &BTreeMap<String, u64>) -> (u64, u64) {
    let typed: std::collections::BTreeSet<String> = typed.collect();
    let lost = typed.iter().filter(|line| !seen.contains_key(*line)).count() as u64;
    let doubled = seen.iter().map(|(line, times)| if typed.contains(line) { times - 1 } else { *times }).sum();
    (lost, doubled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_missing_or_doubled_or_of_nobody_are_counted() {
        let lines = |list: &[&str]| list.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let seen = |list: &[(&str, u64)]| list.iter().map(|(line, times)| ((*line).to_owned(), *times)).collect();
        let typed = || lines(&["a.1", "a.2"]).into_iter();
        assert_eq!(compare(typed(), &seen(&[("a.1", 1), ("a.2", 1)])), (0, 0));
        assert_eq!(compare(typed(), &seen(&[("a.2", 1)])), (1, 0));
        assert_eq!(compare(typed(), &seen(&[("a.1", 3), ("a.2", 1)])), (0, 2));
        assert_eq!(compare(typed(), &seen(&[("a.1", 1), ("a.2", 1), ("b.1", 1)])), (0, 1));
    }
}
