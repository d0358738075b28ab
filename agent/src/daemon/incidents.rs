//! What goes wrong while the daemon runs, each kind once with how often, and what the daemon did about it. A relay that is away for a weekend
//! fails thousands of times and is a few lines in the log.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use happy_rpc::{ErrorCount, Recovery};

/// Kinds of errors that are counted apart; the one that came last the longest ago makes room.
const MAX_ERRORS: usize = 64;
/// Recoveries that are listed.
const MAX_RECOVERIES: usize = 32;
/// The most bytes of a sentence: some of the words may be somebody else's.
const MAX_WORDS: usize = 200;
/// An error that goes on is in the log again after this time, milliseconds.
const SAY_AGAIN: u64 = 10 * 60 * 1000;

/// What went wrong, and what was done about it.
#[derive(Debug, Default)]
pub struct Incidents(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    errors: HashMap<String, (ErrorCount, u64)>,
    recoveries: VecDeque<Recovery>,
    /// Of all kinds, also those that made room.
    total: Totals,
}

/// How often something went wrong, and how often something was done about it, since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Went wrong.
    pub errors: u64,
    /// Was done about it.
    pub recoveries: u64,
}

impl Incidents {
    /// Counts an error; gives how often it came by now when it is worth a line in the log: the first time, and every ten minutes while it goes on.
    pub fn error(&self, what: &str, now: u64) -> Option<u64> {
        let what = words(what);
        let mut inner = self.inner();
        inner.total.errors = inner.total.errors.saturating_add(1);
        if inner.errors.len() >= MAX_ERRORS && !inner.errors.contains_key(&what) {
            let oldest = inner.errors.iter().min_by_key(|(_, (error, _))| error.last_at).map(|(what, _)| what.clone());
            oldest.map(|oldest| inner.errors.remove(&oldest));
        }
        let new = || (ErrorCount { what: what.clone(), count: 0, first_at: now, last_at: now }, 0);
        let (error, said_at) = inner.errors.entry(what.clone()).or_insert_with(new);
        error.count = error.count.saturating_add(1);
        error.last_at = now;
        // A clock that went back says it once more than needed.
        let is_due = error.count == 1 || now.abs_diff(*said_at) >= SAY_AGAIN;
        is_due.then(|| {
            *said_at = now;
            error.count
        })
    }

    /// The daemon did something about it.
    pub fn recovered(&self, what: &str, now: u64) {
        let mut inner = self.inner();
        inner.total.recoveries = inner.total.recoveries.saturating_add(1);
        if inner.recoveries.len() == MAX_RECOVERIES {
            inner.recoveries.pop_front();
        }
        inner.recoveries.push_back(Recovery { at: now, what: words(what) });
    }

    /// The errors, the one that came last at the end.
    pub fn errors(&self) -> Vec<ErrorCount> {
        let mut errors: Vec<_> = self.inner().errors.values().map(|(error, _)| error.clone()).collect();
        errors.sort_by(|a, b| (a.last_at, &a.what).cmp(&(b.last_at, &b.what)));
        errors
    }

    /// What was done, the newest last.
    pub fn recoveries(&self) -> Vec<Recovery> {
        self.inner().recoveries.iter().cloned().collect()
    }

    /// How often, of all kinds.
    pub fn totals(&self) -> Totals {
        self.inner().total
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn words(text: &str) -> String {
    let mut words: String = text.chars().filter(|c| !c.is_control()).collect();
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_that_repeats_itself_is_counted_and_said_now_and_then() {
        let incidents = Incidents::default();
        let said: Vec<_> = (0..3_600).filter_map(|second| incidents.error("no relay", second * 1000)).collect();
        assert_eq!(said, [1, 601, 1201, 1801, 2401, 3001]);
        assert_eq!(
            incidents.errors(),
            [ErrorCount { what: "no relay".into(), count: 3_600, first_at: 0, last_at: 3_599_000 }]
        );
    }

    #[test]
    fn whatever_goes_wrong_what_is_kept_has_a_bound() {
        let incidents = Incidents::default();
        for n in 0..10_000u64 {
            incidents.error(&format!("error {n} \x1b{}", "ä".repeat(1_000)), n);
            incidents.recovered(&n.to_string(), n);
        }
        let errors = incidents.errors();
        assert_eq!(errors.len(), MAX_ERRORS);
        assert!(errors.iter().all(|error| error.what.len() <= MAX_WORDS && !error.what.contains('\x1b')));
        assert!(errors.last().unwrap().what.starts_with("error 9999 "));
        let recoveries = incidents.recoveries();
        assert_eq!((recoveries.len(), recoveries.last().unwrap().what.as_str()), (MAX_RECOVERIES, "9999"));
        assert_eq!(incidents.totals(), Totals { errors: 10_000, recoveries: 10_000 });
    }
}
