//! When a packet is sent again.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5);

/// PROTOCOL 11: after 1 s, doubling to 5 s.
pub(crate) struct Backoff {
    delay: Duration,
    at: Duration,
}

impl Backoff {
    /// For something that is sent at `now` for the first time.
    pub fn new(now: Duration) -> Self {
        Self { delay: FIRST, at: now + FIRST }
    }

    pub fn at(&self) -> Duration {
        self.at
    }

    /// Whether it is time; if so the next time is set.
    pub fn is_due(&mut self, now: Duration) -> bool {
        if now < self.at {
            return false;
        }
        self.delay = (self.delay * 2).min(LONGEST);
        self.at = now + self.delay;
        true
    }
}
