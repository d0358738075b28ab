//! How long frames wait in a queue, by sampling: of each queue one frame at a time is watched, from when it is queued until it is taken out.
//! A clock is read twice for that, and for all frames between not at all, so a burst pays as much as a single frame.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The frame of a queue that is watched, if one is.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Since when it waits, and how many were queued before it and are still there.
    watched: Option<(Instant, usize)>,
    /// How long the last one waited, until somebody takes it.
    waited: Option<Duration>,
}

impl Watch {
    /// A frame is about to be queued behind so many.
    pub(crate) fn pushed(&mut self, ahead: usize) {
        if self.watched.is_none() {
            self.watched = Some((Instant::now(), ahead));
        }
    }

    /// The first frame of the queue was taken out.
    pub(crate) fn popped(&mut self) {
        match &mut self.watched {
            Some((since, 0)) => {
                self.waited = Some(since.elapsed());
                self.watched = None;
            }
            Some((_, ahead)) => *ahead -= 1,
            None => {}
        }
    }

    pub(crate) fn take(&mut self) -> Option<Duration> {
        self.waited.take()
    }
}

/// How long was waited, in a queue or for what is under way, counted by the bounds of [`Waits::BOUNDS_US`].
#[derive(Debug, Default)]
pub struct Waits {
    counts: [AtomicU64; Self::BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Waits {
    /// Upper bounds of the buckets, µs; one more is for what took longer. A connection that takes nothing for 10 s is closed.
    pub(crate) const BOUNDS_US: [u64; 15] = [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
        10_000_000,
    ];

    pub(crate) fn note(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let bucket = Self::BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// How many took at most as long as each bound, and all of them; and the sum, µs.
    pub(crate) fn cumulated(&self) -> ([u64; Self::BOUNDS_US.len() + 1], u64) {
        let mut sum = 0;
        let counts = std::array::from_fn(|n| {
            sum += self.counts[n].load(Relaxed);
            sum
        });
        (counts, self.sum_us.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_frame_at_a_time_is_watched_from_its_place_in_the_queue() {
        let mut watch = Watch::default();
        let pass = async |ms| tokio::time::advance(Duration::from_millis(ms)).await;
        watch.pushed(2);
        pass(5).await;
        watch.pushed(3);
        watch.popped();
        watch.popped();
        assert_eq!(watch.take(), None, "those before it say nothing");
        pass(2).await;
        watch.popped();
        assert_eq!(watch.take(), Some(Duration::from_millis(7)));
        watch.popped();
        assert_eq!(watch.take(), None, "the next one was not watched");
        watch.pushed(0);
        pass(1).await;
        watch.popped();
        assert_eq!(watch.take(), Some(Duration::from_millis(1)));
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let waits = Waits::default();
        for us in [0, 50, 51, 20_000_000] {
            waits.note(Duration::from_micros(us));
        }
        let (counts, sum) = waits.cumulated();
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 3, 3, 4));
        assert_eq!(sum, 20_000_101);
    }
}
