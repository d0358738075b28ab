//! Gathering what is sent in bulk and hurries nobody: fewer and fuller frames, for a wait that nobody notices. Calls, answers and anything
//! interactive never go through here.

use std::time::Duration;

/// So many messages go together at once.
pub const BATCH: usize = 10;
/// Fewer wait this long for others.
pub const BATCH_WAIT: Duration = Duration::from_millis(50);

/// Messages that wait for others.
#[derive(Default)]
pub(crate) struct Batch {
    messages: Vec<Vec<u8>>,
    due: Option<Duration>,
}

impl Batch {
    /// Adds a message; gives all of them when they are enough.
    pub(crate) fn add(&mut self, now: Duration, message: Vec<u8>) -> Vec<Vec<u8>> {
        self.due.get_or_insert(now + BATCH_WAIT);
        self.messages.push(message);
        if self.messages.len() >= BATCH { self.take() } else { Vec::new() }
    }

    /// When those that wait have waited long enough.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.due
    }

    /// Gives those that have waited long enough.
    pub(crate) fn handle_timeout(&mut self, now: Duration) -> Vec<Vec<u8>> {
        if self.due.is_some_and(|due| due <= now) { self.take() } else { Vec::new() }
    }

    /// Gives all of them.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        self.due = None;
        std::mem::take(&mut self.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn ten_go_at_once() {
        let mut batch = Batch::default();
        for _ in 0..9 {
            assert!(batch.add(ms(1), vec![1]).is_empty());
        }
        assert_eq!(batch.add(ms(1), vec![1]).len(), 10);
        assert_eq!(batch.timeout(), None);
    }

    #[test]
    fn fewer_go_50_ms_after_the_first() {
        let mut batch = Batch::default();
        batch.add(ms(100), vec![1]);
        batch.add(ms(140), vec![2]);
        assert_eq!(batch.timeout(), Some(ms(150)));
        assert!(batch.handle_timeout(ms(149)).is_empty());
        assert_eq!(batch.handle_timeout(ms(150)), [vec![1], vec![2]]);
        assert_eq!(batch.timeout(), None);
    }
}
