//! What one viewer is shown, checked line by line.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::program::now;

/// More news is not kept: the oldest goes.
const MAX_NEWS: usize = 100_000;

/// A viewer's eyes. One thread shows, another asks.
pub struct Watch {
    name: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the last line.
    number: u64,
    /// A line that is not whole.
    rest: Vec<u8>,
    bytes: u64,
    /// When lines were printed and when they were seen; the newest of each piece.
    news: VecDeque<(u64, u64)>,
    ended: bool,
    trouble: Option<String>,
}

impl Watch {
    /// Nothing was seen yet.
    pub fn new(name: &'static str) -> Watch {
        Watch { name, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next bytes of the output.
    ///
    /// # Errors
    /// When one is missing, doubled or changed.
    pub fn take(&self, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.bytes += bytes.len() as u64;
        let outcome = state.take(bytes);
        self.settle(&mut state, outcome)
    }

    /// Takes a screen as it is now, of which `bytes` were new.
    ///
    /// # Errors
    /// When lines are missing in it, or it has gone back.
    pub fn look(&self, text: &str, bytes: usize) -> Result<()> {
        let mut state = self.state();
        state.bytes += bytes as u64;
        let outcome = state.look(text);
        self.settle(&mut state, outcome)
    }

    fn settle(&self, state: &mut State, outcome: Result<()>) -> Result<()> {
        if let Err(error) = &outcome {
            state.trouble = Some(format!("{error:#}"));
        }
        self.changed.notify_all();
        outcome.with_context(|| self.name.to_owned())
    }

    /// Waits until something was seen that was printed after `time`; when that was.
    ///
    /// # Errors
    /// When nothing comes in time, or something wrong came.
    pub fn news_after(&self, time: u64, patience: Duration) -> Result<u64> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if let Some(trouble) = &state.trouble {
                bail!("{trouble}");
            }
            if let Some((_, seen)) = state.news.iter().copied().find(|(printed, _)| *printed > time) {
                state.news.clear();
                return Ok(seen);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no news in time; {} bytes were seen, to line {}", state.bytes, state.number);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether all of it was seen.
    ///
    /// # Errors
    /// When the end was not.
    pub fn ended(&self) -> Result<()> {
        let state = self.state();
        ensure!(state.ended && state.rest.is_empty(), "{}: the end is missing after line {}", self.name, state.number);
        Ok(())
    }

    /// How much was seen.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }
}

impl State {
    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let rest = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, rest);
        let mut printed = None;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            ensure!(!self.ended, "more after the end: {:?}", String::from_utf8_lossy(line));
            let line = line.strip_suffix(b"\r\n").context("a line without its end")?;
            let text = std::str::from_utf8(line)?;
            if let Some(count) = text.strip_prefix("end ") {
                ensure!(count.parse() == Ok(self.number), "{count} lines were printed and {} seen", self.number);
                self.ended = true;
                continue;
            }
            let (number, time) = line_of(text).with_context(|| format!("after line {}: {text:?}", self.number))?;
            ensure!(number == self.number + 1, "line {number} after line {}", self.number);
            self.number = number;
            printed = Some(time);
        }
        self.hear(printed);
        Ok(())
    }

    fn look(&mut self, text: &str) -> Result<()> {
        // The last row may be half drawn, and below it stands what is said of the connection.
        let rows: Vec<_> = text.lines().map_while(line_of).collect();
        for pair in rows.windows(2).take(rows.len().saturating_sub(2)) {
            ensure!(pair[1].0 == pair[0].0 + 1, "row {} below row {}", pair[1].0, pair[0].0);
        }
        if let Some((number, time)) = rows.iter().rev().nth(1) {
            ensure!(*number >= self.number, "row {number} after row {}", self.number);
            self.number = *number;
            self.hear(Some(*time));
        }
        Ok(())
    }

    fn hear(&mut self, printed: Option<u64>) {
        if self.news.len() >= MAX_NEWS {
            self.news.pop_front();
        }
        self.news.extend(printed.map(|printed| (printed, now())));
    }
}

/// Number and time of a line.
fn line_of(text: &str) -> Option<(u64, u64)> {
    let (number, time) = text.trim_end().split_once(' ')?;
    Some((number.parse().ok()?, time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_or_doubled_or_torn_is_noticed() {
        let seen = |pieces: &[&str]| -> Result<()> {
            let watch = Watch::new("test");
            pieces.iter().try_for_each(|piece| watch.take(piece.as_bytes()))?;
            watch.ended()
        };
        assert!(seen(&["1 5\r\n2 ", "6\r\nen", "d 2\r\n"]).is_ok());
        for wrong in [
            &["1 5\r\n3 6\r\n"][..],
            &["1 5\r\n1 5\r\n"],
            &["1 5\r\n2 6\n"],
            &["1 5\r\n2 x\r\n"],
            &["1 5\r\n", "end 2\r\n"],
            &["1 5\r\n", "end 1\r\n", "2 7\r\n"],
            &["1 5\r\n"],
            &["1 5\r\nend 1\r\n1"],
        ] {
            assert!(seen(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_screen_may_skip_lines_and_not_leave_some_out() {
        let watch = Watch::new("test");
        watch.look("1 5\n2 6\n3", 1).unwrap();
        watch.look("7 15\n8 16\n9 1\nhappy: waiting", 1).unwrap();
        assert!(watch.news_after(14, Duration::ZERO).is_ok());
        assert!(watch.news_after(16, Duration::ZERO).is_err());
        assert!(watch.look("7 15\n9 16\n10 17\n", 1).is_err());
        assert!(Watch::new("test").look("5 5\n6 6\n7 7\n", 1).is_ok());
    }
}
