//! Which records a relay is asked for (PROTOCOL 7): one question at a time, so that a page with many machines does not ask for all at once.

use std::collections::VecDeque;

use happy_crypto::DeviceId;
use happy_wire::relay::record_kind;

/// A machine, and which of its records.
pub type Question = (DeviceId, u8);

/// The questions to one relay. As many wait as machines have records: none waits twice.
#[derive(Default)]
pub struct Questions {
    under_way: Option<Question>,
    waiting: VecDeque<Question>,
}

impl Questions {
    /// For a new connection: all records of these machines.
    pub fn of(machines: &[DeviceId]) -> Self {
        let all = machines.iter().flat_map(|machine| record_kind::ALL.map(|kind| (*machine, kind)));
        Self { under_way: None, waiting: all.collect() }
    }

    /// The relay says that records have changed; bit n - 1 stands for kind n.
    pub fn changed(&mut self, machine: DeviceId, kinds: u8) {
        for kind in record_kind::changed(kinds) {
            if !self.waiting.contains(&(machine, kind)) {
                self.waiting.push_back((machine, kind));
            }
        }
    }

    /// What to ask now; nothing while an answer is awaited.
    pub fn to_ask(&mut self) -> Option<Question> {
        if self.under_way.is_none() {
            self.under_way = self.waiting.pop_front();
            return self.under_way;
        }
        None
    }

    /// What was to be asked could not be sent: it is the next to be asked.
    pub fn not_sent(&mut self) {
        if let Some(question) = self.under_way.take() {
            self.waiting.push_front(question);
        }
    }

    /// The relay has shown a record, be it asked for or not.
    pub fn shown(&mut self, question: Question) {
        self.under_way.take_if(|asked| *asked == question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DeviceId = DeviceId::from_bytes([1; 32]);
    const TWO: DeviceId = DeviceId::from_bytes([2; 32]);
    const METADATA: u8 = record_kind::METADATA;
    const STATE: u8 = record_kind::STATE;

    #[test]
    fn there_is_one_question_at_a_time_and_none_waits_twice() {
        let mut questions = Questions::of(&[ONE, TWO]);
        assert_eq!(questions.to_ask(), Some((ONE, METADATA)));
        assert_eq!(questions.to_ask(), None, "the answer is awaited");
        questions.shown((TWO, STATE));
        assert_eq!(questions.to_ask(), None, "that was not asked for");
        questions.not_sent();
        assert_eq!(questions.to_ask(), Some((ONE, METADATA)), "nothing is lost for want of room");
        for _ in 0..1_000 {
            questions.changed(TWO, u8::MAX);
        }
        // It was asked for before it changed, so it is asked for again.
        questions.changed(ONE, 1);
        let mut asked = Vec::new();
        let mut under_way = (ONE, METADATA);
        loop {
            questions.shown(under_way);
            let Some(next) = questions.to_ask() else { break };
            asked.push(next);
            under_way = next;
        }
        assert_eq!(asked, [(ONE, STATE), (TWO, METADATA), (TWO, STATE), (ONE, METADATA)]);
    }
}
