//! How often a machine may put a record, by whichever way (`PROTOCOL 7`, Machine records).

use std::time::Duration;

use happy_crypto::DeviceId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rates::Buckets;

/// Between two records of one machine. Each is told to as many as 256 devices, so that a machine which changes one all the
/// time would cost more than its frames may.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);
/// Records at once: both kinds, as a machine puts them when it comes.
const BURST: f64 = 2.0;
/// Machines that are remembered. One is forgotten [`PAUSE`] times [`BURST`] after its last record, so this is 163,840 records a second.
const MAX_MACHINES: usize = 16_384;

/// Which machines have put records just now.
pub(crate) struct Pauses(Mutex<Buckets<DeviceId>>);

impl Default for Pauses {
    fn default() -> Self {
        Self(Mutex::new(Buckets::new(PAUSE.as_secs_f64().recip(), BURST, MAX_MACHINES)))
    }
}

/// A record came too soon. It may come again after so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSoon(pub(crate) Duration);

impl Pauses {
    /// Takes the right to put one record.
    pub(crate) fn take(&self, machine: &DeviceId, now: Instant) -> Result<(), TooSoon> {
        let mut machines = self.0.lock();
        let bucket = machines.of(*machine, now).ok_or(TooSoon(PAUSE))?;
        if bucket.take(now, 0.0) { Ok(()) } else { Err(TooSoon(bucket.due(1.0).saturating_duration_since(now))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::device;

    #[test]
    fn a_machine_puts_both_kinds_at_once_and_then_one_in_each_pause() {
        let (pauses, mut now) = (Pauses::default(), Instant::now());
        let begun = now;
        let mut put = 0;
        while now < begun + PAUSE * 20 {
            match pauses.take(&device(1), now) {
                Ok(()) => put += 1,
                Err(TooSoon(wait)) => {
                    assert!(wait <= PAUSE, "{wait:?}");
                    now += wait.max(Duration::from_nanos(1));
                }
            }
        }
        assert!((21..=22).contains(&put), "{put}");
        assert_eq!(pauses.take(&device(2), now), Ok(()), "each for itself");
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_is_forgotten() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        let fine = (0..2 * MAX_MACHINES as u32).filter(|n| pauses.take(&device(*n), now).is_ok()).count();
        assert_eq!((fine, pauses.0.lock().len()), (MAX_MACHINES, MAX_MACHINES));
        assert_eq!(pauses.take(&device(u32::MAX), now + PAUSE * 2), Ok(()));
        assert_eq!(pauses.0.lock().len(), 1);
    }
}
