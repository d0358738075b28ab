//! The side that is told events: which to take, which to leave, and when to ask (`docs/PROTOCOL.md` §10.3).

use crate::{EventPlace, EventsFollow, Followed};

/// Keeps the place in the event log of one machine.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    /// Of the last event that was taken.
    place: Option<EventPlace>,
    /// Counts the questions.
    asked: u64,
    /// The last one has no answer yet.
    waits: bool,
    /// The newest event that was left while waiting.
    left: Option<EventPlace>,
}

/// What to do with an event that was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is the next one.
    Take,
    /// It was taken before, or will be among what was missed.
    Leave,
    /// Something before it was lost: leave it, and [ask](Follower::ask).
    Ask,
}

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Caught {
    /// So many of the missed events were taken before; take the others.
    pub skip: usize,
    /// What was known before is worth nothing: ask for the lists. Always so for the first answer.
    pub lists: bool,
    /// It is not the first answer, so that something was lost.
    pub gap: bool,
    /// There is more: [ask](Follower::ask) again.
    pub again: bool,
}

impl Follower {
    /// The number of a question, and the question. An earlier one has no answer any more.
    pub fn ask(&mut self) -> (u64, EventsFollow) {
        self.asked += 1;
        (self.waits, self.left) = (true, None);
        (self.asked, EventsFollow { after: self.place })
    }

    /// An event was told.
    pub fn told(&mut self, at: Option<EventPlace>) -> Step {
        // A machine of an earlier version, or one that refused to be followed.
        let (Some(at), true) = (at, self.place.is_some() || self.waits) else { return Step::Take };
        match self.place {
            Some(place) if place.log == at.log && at.number <= place.number => Step::Leave,
            Some(place) if place.log == at.log && at.number == place.number + 1 => {
                self.place = Some(at);
                Step::Take
            }
            _ if self.waits => {
                self.left = Some(at);
                Step::Leave
            }
            _ => Step::Ask,
        }
    }

    /// It was told that events for it were lost.
    pub fn lost(&mut self) -> Step {
        match self.place {
            // What is lost may lie behind an answer that is under way, so another one is needed.
            Some(_) => Step::Ask,
            None if self.waits => Step::Ask,
            None => Step::Take,
        }
    }

    /// A question was answered; none when it is not the last one.
    pub fn answered<E>(&mut self, question: u64, answer: &Followed<E>) -> Option<Caught> {
        if !self.is_awaited(question) {
            return None;
        }
        self.waits = false;
        let end = EventPlace { log: answer.log, number: answer.number };
        let known = self.place.filter(|place| place.log == answer.log);
        let caught = match known {
            // Everything up to there was told meanwhile, whatever the log reaches back to.
            Some(place) if place.number >= end.number => Caught { skip: answer.missed.len(), ..Caught::default() },
            Some(place) if answer.complete && first_of(answer) <= place.number + 1 => {
                let skip = usize::try_from(place.number + 1 - first_of(answer)).unwrap_or(usize::MAX);
                self.place = Some(end);
                Caught { skip, again: answer.more, ..Caught::default() }
            }
            _ => {
                let gap = self.place.replace(end).is_some();
                Caught { skip: answer.missed.len(), lists: true, gap, again: false }
            }
        };
        let is_ahead = |left: &EventPlace| self.place.is_none_or(|at| at.log != left.log || at.number < left.number);
        let again = caught.again || self.left.take().as_ref().is_some_and(is_ahead);
        Some(Caught { again, ..caught })
    }

    /// A question was refused: from here on events are taken as they come. Whether it was the last question, so that the lists must be
    /// asked for.
    pub fn refused(&mut self, question: u64) -> bool {
        let awaited = self.is_awaited(question);
        if awaited {
            (self.waits, self.place, self.left) = (false, None, None);
        }
        awaited
    }

    /// Whether an answer to this question is waited for.
    pub fn is_awaited(&self, question: u64) -> bool {
        self.waits && question == self.asked
    }
}

/// The number of the first event that was missed.
fn first_of<E>(answer: &Followed<E>) -> u64 {
    answer.number.saturating_sub(answer.missed.len() as u64).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn at(number: u64) -> Option<EventPlace> {
        Some(EventPlace { log: LOG, number })
    }

    fn answer(number: u64, missed: &[u64]) -> Followed<u64> {
        Followed { log: LOG, number, missed: missed.to_vec(), complete: true, more: false }
    }

    /// One that follows from this number on.
    fn following(number: u64) -> Follower {
        let mut follower = Follower::default();
        let (question, asked) = follower.ask();
        assert_eq!(asked, EventsFollow { after: None });
        let caught = follower.answered(question, &answer(number, &[])).unwrap();
        assert_eq!(caught, Caught { lists: true, ..Caught::default() });
        follower
    }

    #[test]
    fn what_never_follows_takes_events_as_they_come() {
        let mut follower = Follower::default();
        for told in [None, at(7), at(3)] {
            assert_eq!(follower.told(told), Step::Take);
        }
        assert_eq!(follower.lost(), Step::Take);
    }

    #[test]
    fn events_are_taken_in_order_and_once() {
        let mut follower = following(4);
        for (number, step) in [(4, Step::Leave), (5, Step::Take), (5, Step::Leave), (6, Step::Take), (8, Step::Ask)] {
            assert_eq!(follower.told(at(number)), step, "{number}");
        }
        assert_eq!(follower.told(Some(EventPlace { log: OTHER, number: 7 })), Step::Ask);
        assert_eq!(follower.ask().1, EventsFollow { after: at(6) });
    }

    #[test]
    fn what_is_told_before_the_answer_is_not_taken_twice() {
        let mut follower = following(4);
        let (question, _) = follower.ask();
        assert_eq!((follower.told(at(5)), follower.told(at(6))), (Step::Take, Step::Take));
        let caught = follower.answered(question, &answer(7, &[5, 6, 7])).unwrap();
        assert_eq!(caught, Caught { skip: 2, ..Caught::default() });
        assert_eq!(follower.told(at(8)), Step::Take);
        // All of it, and one more.
        let (question, _) = follower.ask();
        assert_eq!((follower.told(at(9)), follower.told(at(10))), (Step::Take, Step::Take));
        assert_eq!(follower.answered(question, &answer(9, &[9])), Some(Caught { skip: 1, ..Caught::default() }));
        assert_eq!(follower.told(at(11)), Step::Take);
    }

    #[test]
    fn what_overtakes_the_answer_is_asked_for() {
        for first in [true, false] {
            let mut follower = if first { Follower::default() } else { following(4) };
            let (question, _) = follower.ask();
            assert_eq!(follower.told(at(8)), Step::Leave);
            let missed: &[u64] = if first { &[] } else { &[5, 6, 7] };
            let caught = follower.answered(question, &answer(7, missed)).unwrap();
            assert_eq!((caught.again, caught.lists, caught.gap), (true, first, false));
            assert_eq!(follower.ask().1, EventsFollow { after: at(7) });
        }
        // What the answer has is not.
        let mut follower = following(4);
        let (question, _) = follower.ask();
        assert_eq!(follower.told(at(7)), Step::Leave);
        assert_eq!(follower.answered(question, &answer(7, &[5, 6, 7])), Some(Caught::default()));
    }

    #[test]
    fn only_the_last_question_has_an_answer() {
        let mut follower = following(4);
        let (first, _) = follower.ask();
        let (second, asked) = follower.ask();
        assert_eq!(asked, EventsFollow { after: at(4) });
        assert_eq!(follower.answered(first, &answer(5, &[5])), None);
        assert!(!follower.refused(first));
        assert_eq!(follower.answered(second, &answer(5, &[5])), Some(Caught::default()));
        assert_eq!(follower.answered(second, &answer(5, &[5])), None, "once");
        assert_eq!(follower.told(at(6)), Step::Take);
    }

    #[test]
    fn a_gap_is_told_and_followed_from() {
        let mut follower = following(4);
        let (question, _) = follower.ask();
        let gap = Followed { log: OTHER, number: 2, missed: Vec::<u64>::new(), complete: false, more: false };
        let caught = follower.answered(question, &gap).unwrap();
        assert_eq!(caught, Caught { lists: true, gap: true, ..Caught::default() });
        assert_eq!(follower.told(Some(EventPlace { log: OTHER, number: 3 })), Step::Take);
        // The log no longer reaches back to where it began to wait, but all that is gone was told meanwhile.
        let mut follower = following(4);
        let (question, _) = follower.ask();
        assert_eq!(follower.told(at(5)), Step::Take);
        let late = Followed { complete: false, ..answer(5, &[]) };
        assert_eq!(follower.answered(question, &late), Some(Caught::default()));
    }

    #[test]
    fn an_answer_with_a_hole_is_a_gap() {
        let mut follower = following(4);
        let (question, _) = follower.ask();
        let caught = follower.answered(question, &answer(7, &[6, 7])).unwrap();
        assert_eq!(caught, Caught { skip: 2, lists: true, gap: true, again: false });
    }

    #[test]
    fn the_rest_is_asked_for() {
        let mut follower = following(4);
        let (question, _) = follower.ask();
        let page = Followed { more: true, ..answer(6, &[5, 6]) };
        assert_eq!(follower.answered(question, &page), Some(Caught { again: true, ..Caught::default() }));
        assert_eq!(follower.ask().1, EventsFollow { after: at(6) });
    }

    #[test]
    fn a_refusal_ends_the_following() {
        let mut follower = following(4);
        let (question, _) = follower.ask();
        assert!(follower.is_awaited(question) && follower.refused(question));
        assert_eq!(follower.told(at(9)), Step::Take);
        assert_eq!(follower.ask().1, EventsFollow { after: None });
    }

    #[test]
    fn whoever_is_told_of_a_loss_asks() {
        let mut follower = following(4);
        assert_eq!(follower.lost(), Step::Ask);
        let mut follower = Follower::default();
        follower.ask();
        assert_eq!(follower.lost(), Step::Ask);
    }
}
