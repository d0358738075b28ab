//! The one event that every task of a relay waits for: the beginning of its shutdown.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether the relay is shutting down. Those who wait are woken in the order in which they came, and not in one of chance as by a
/// channel of tokio: a simulation repeats itself.
#[derive(Default)]
pub(crate) struct Closing {
    begun: AtomicBool,
    notify: Notify,
}

impl Closing {
    /// From now on it is.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::SeqCst);
        self.notify.notify_waiters();
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits until it begins.
    pub(crate) async fn begun(&self) {
        let notified = self.notify.notified();
        // A `Notified` hears of what happens after it was made, so that a beginning between these lines is not missed.
        if !self.has_begun() {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn early_and_late_comers_hear_of_it() {
        let closing = Closing::default();
        assert!(!closing.has_begun());
        tokio::join!(biased; closing.begun(), async { closing.begin() });
        assert!(closing.has_begun());
        closing.begun().await;
    }
}
