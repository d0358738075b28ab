//! How often something may happen.

use std::time::Duration;

/// At most `most` times in each `period`.
pub(crate) struct Allowance {
    most: u32,
    period: Duration,
    used: u32,
    since: Option<Duration>,
}

impl Allowance {
    pub(crate) const fn new(most: u32, period: Duration) -> Self {
        Self { most, period, used: 0, since: None }
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        if self.since.is_none_or(|since| now >= since + self.period) {
            self.since = Some(now);
            self.used = 0;
        }
        self.used += 1;
        self.used <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_allowed_in_each_period() {
        let mut allowance = Allowance::new(2, Duration::from_secs(1));
        let taken = |allowance: &mut Allowance, ms| allowance.take(Duration::from_millis(ms));
        assert_eq!(
            [0, 10, 20, 999, 1000, 1001, 1002].map(|ms| taken(&mut allowance, ms)),
            [true, true, false, false, true, true, false]
        );
    }
}
