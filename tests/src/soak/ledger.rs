//! What visitors share: whether they may come, what they did, and what must not have happened.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

/// More troubles are counted and not told.
const TROUBLES_TOLD: usize = 30;

/// What everybody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Phones come and go.
    Run,
    /// Nobody comes, and who is there leaves.
    Quiet,
    /// What is unfinished is finished, and then there is an end.
    End,
}

/// Which question of which session: its number is in its text.
pub type Question = (Uuid, u64);

/// What visitors share.
pub struct Ledger {
    /// What everybody does now.
    pub phase: watch::Receiver<Phase>,
    /// Sessions that are looked at.
    pub looks: Vec<Uuid>,
    /// Sessions that are typed into.
    pub echoes: Vec<Uuid>,
    /// Phones that are there.
    pub phones: AtomicUsize,
    /// Phones that the machine may expect back.
    pub expected: AtomicUsize,
    /// Dashboards that are there.
    pub dashboards: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    done: BTreeMap<&'static str, u64>,
    /// What was answered; `true` when the machine has said so.
    answers: BTreeMap<Question, Vec<(char, bool)>>,
    wrong: Vec<String>,
    troubles: Vec<String>,
}

impl Ledger {
    /// Nothing has happened yet.
    pub fn new(phase: watch::Receiver<Phase>, looks: Vec<Uuid>, echoes: Vec<Uuid>) -> Ledger {
        let [phones, expected, dashboards] = [0; 3].map(AtomicUsize::new);
        Ledger { phase, looks, echoes, phones, expected, dashboards, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether phones may be there.
    pub fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Run
    }

    /// Counts something that was done.
    pub fn did(&self, what: &'static str) {
        self.did_times(what, 1);
    }

    /// The same for something done at once.
    pub fn did_times(&self, what: &'static str, times: u64) {
        *self.state().done.entry(what).or_default() += times;
    }

    /// Notes an answer to a question; `told` when the machine has said that it was given.
    pub fn answered(&self, question: Question, key: char, told: bool) {
        self.state().answers.entry(question).or_default().push((key, told));
    }

    /// Notes something that must not happen.
    pub fn wrong(&self, what: String) {
        anstream::eprintln!("wrong: {what}");
        self.state().wrong.push(what);
    }

    /// Notes something that may happen when lines break.
    pub fn trouble(&self, whose: &'static str, what: String) {
        let mut state = self.state();
        *state.done.entry(whose).or_default() += 1;
        if state.troubles.len() < TROUBLES_TOLD {
            state.troubles.push(format!("{whose}: {what}"));
        }
    }

    /// How often each was done.
    pub fn done(&self) -> BTreeMap<&'static str, u64> {
        self.state().done.clone()
    }

    /// What must not have happened.
    pub fn wrongs(&self) -> Vec<String> {
        self.state().wrong.clone()
    }

    /// What may happen, the first of it.
    pub fn troubles(&self) -> Vec<String> {
        self.state().troubles.clone()
    }

    /// What is wrong with the answers that a program has read, each with the number of its question: those that the machine said were given
    /// and that are not there, and those that nobody gave or that are there twice.
    pub fn compare_answers(&self, session: Uuid, read: &[(u64, char)]) -> (u64, u64) {
        let state = self.state();
        let (mut lost, mut doubled) = (0, 0);
        for ((_, number), given) in state.answers.range((session, 0)..=(session, u64::MAX)) {
            let told = given.iter().filter(|(_, told)| *told);
            for (key, _) in told {
                if !read.contains(&(*number, *key)) {
                    lost += 1;
                }
            }
        }
        for (index, (number, key)) in read.iter().enumerate() {
            let given = state.answers.get(&(session, *number));
            let is_ours = given.is_some_and(|given| given.iter().any(|(given, _)| given == key));
            if !is_ours || read[..index].iter().any(|(earlier, _)| earlier == number) {
                doubled += 1;
            }
        }
        (lost, doubled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_missing_or_that_nobody_gave_is_noticed() {
        let session = Uuid::from_u128(1);
        let ledger = Ledger::new(watch::channel(Phase::Run).1, Vec::new(), Vec::new());
        ledger.answered((session, 1), 'y', true);
        ledger.answered((session, 2), 'n', false);
        ledger.answered((Uuid::from_u128(2), 9), 'n', true);
        assert_eq!(ledger.compare_answers(session, &[(1, 'y')]), (0, 0));
        assert_eq!(ledger.compare_answers(session, &[(1, 'y'), (2, 'n')]), (0, 0));
        assert_eq!(ledger.compare_answers(session, &[]), (1, 0));
        assert_eq!(ledger.compare_answers(session, &[(1, 'n')]), (1, 1));
        assert_eq!(ledger.compare_answers(session, &[(1, 'y'), (3, 'y')]), (0, 1));
        assert_eq!(ledger.compare_answers(session, &[(1, 'y'), (1, 'y')]), (0, 1));
    }
}
