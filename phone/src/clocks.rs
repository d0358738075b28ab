//! By how much the clocks of machines are ahead of this device's, and whether this device's own has jumped.
//!
//! A command says until when it may begin, by the machine's clock (PROTOCOL 10.2). So a machine is asked for its time when a link comes up,
//! nothing is sent before it has answered, and all are asked again when this device's clock was set: the browser's other clock,
//! which only counts, goes on evenly then.

use std::collections::BTreeMap;
use std::time::Duration;

use happy_crypto::DeviceId;

/// Two clocks that disagree by more than this have not drifted apart: one of them jumped. Commands wait for minutes, and are wanted within
/// seconds of that.
const JUMP_MS: i64 = 5_000;

/// A moment by both clocks of this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, by a clock that a person may set.
    pub unix_ms: u64,
    /// Since the page began, by one that only counts. It may stand still while the device sleeps.
    pub steady: Duration,
}

impl Moment {
    /// How far one clock is from the other.
    fn between(self) -> i64 {
        let steady = i64::try_from(self.steady.as_millis()).unwrap_or(i64::MAX);
        i64::try_from(self.unix_ms).unwrap_or(i64::MAX).saturating_sub(steady)
    }
}

/// The clocks of the machines that have a link.
#[derive(Debug, Default)]
pub struct Clocks {
    machines: BTreeMap<DeviceId, Reading>,
    questions: u64,
    between: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    question: u64,
    asked: Duration,
    /// In ms, when it has answered.
    ahead: Option<i64>,
}

impl Clocks {
    /// The machine is asked for its time now. Gives the number of the question; an answer to an earlier one counts no more.
    pub fn ask(&mut self, device: DeviceId, now: Moment) -> u64 {
        self.questions += 1;
        let reading = Reading { question: self.questions, asked: now.steady, ahead: None };
        self.machines.insert(device, reading);
        self.questions
    }

    /// The machine has answered with its time; without one, its clock is believed to be right. False when that is not awaited.
    pub fn answered(&mut self, device: &DeviceId, question: u64, now: Moment, theirs: Option<u64>) -> bool {
        let Some(reading) = self.machines.get_mut(device).filter(|reading| reading.awaits(question)) else {
            return false;
        };
        // By the clock that counts, so that a jump in between changes nothing.
        let took = u64::try_from(now.steady.saturating_sub(reading.asked).as_millis()).unwrap_or(u64::MAX);
        let read_at = now.unix_ms.saturating_sub(took / 2);
        let ahead = |theirs| i64::try_from(theirs).unwrap_or(i64::MAX).saturating_sub_unsigned(read_at);
        reading.ahead = Some(theirs.map_or(0, ahead));
        true
    }

    /// Whether the answer to this question is waited for: there is a link, and nothing was asked since.
    pub fn awaits(&self, device: &DeviceId, question: u64) -> bool {
        self.machines.get(device).is_some_and(|reading| reading.awaits(question))
    }

    /// The link to a machine is down. It is asked again when there is one.
    pub fn link_down(&mut self, device: &DeviceId) {
        self.machines.remove(device);
    }

    /// By how many ms the machine's clock is ahead, when there is a link and it has said so.
    pub fn ahead(&self, device: &DeviceId) -> Option<i64> {
        self.machines.get(device)?.ahead
    }

    /// The machines whose clocks are known.
    pub fn known(&self) -> Vec<DeviceId> {
        self.machines.iter().filter(|(_, reading)| reading.ahead.is_some()).map(|(device, _)| *device).collect()
    }

    /// Looks at this device's own clock. When it has jumped: by how many ms, and which machines are to be asked again. What they said
    /// counts no more.
    pub fn jumped(&mut self, now: Moment) -> Option<(i64, Vec<DeviceId>)> {
        let between = now.between();
        let jump = between.saturating_sub(*self.between.get_or_insert(between));
        if jump.saturating_abs() <= JUMP_MS {
            return None;
        }
        self.between = Some(between);
        let machines: Vec<DeviceId> = self.machines.keys().copied().collect();
        self.machines.values_mut().for_each(|reading| reading.ahead = None);
        Some((jump, machines))
    }
}

impl Reading {
    fn awaits(&self, question: u64) -> bool {
        self.question == question && self.ahead.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESK: DeviceId = DeviceId::from_bytes([1; 32]);

    /// So many ms since the page began, with the clock ahead by so many.
    fn at(ms: u64, ahead: i64) -> Moment {
        let unix_ms = (1_800_000_000_000 + ms).saturating_add_signed(ahead);
        Moment { unix_ms, steady: Duration::from_millis(ms) }
    }

    #[test]
    fn the_time_of_a_machine_is_that_of_half_the_way() {
        let mut clocks = Clocks::default();
        let question = clocks.ask(DESK, at(0, 0));
        assert_eq!((clocks.ahead(&DESK), clocks.known()), (None, vec![]));
        assert!(clocks.answered(&DESK, question, at(400, 0), Some(at(200, 3_000).unix_ms)));
        assert_eq!((clocks.ahead(&DESK), clocks.known()), (Some(3_000), vec![DESK]));
        assert!(!clocks.answered(&DESK, question, at(500, 0), Some(0)), "there is one answer");
        // One that does not say is believed to be right.
        let question = clocks.ask(DESK, at(900, 0));
        assert!(clocks.answered(&DESK, question, at(1_900, 0), None));
        assert_eq!(clocks.ahead(&DESK), Some(0));
    }

    #[test]
    fn nothing_is_asked_again_while_the_link_is_down() {
        let mut clocks = Clocks::default();
        let first = clocks.ask(DESK, at(0, 0));
        assert!(clocks.awaits(&DESK, first), "it is slow");
        clocks.link_down(&DESK);
        assert!(!clocks.awaits(&DESK, first));
        let second = clocks.ask(DESK, at(60_000, 0));
        // The answer was on its way for a minute, and nobody knows when it was read.
        assert!(!clocks.answered(&DESK, first, at(60_001, 0), Some(0)));
        assert!(clocks.awaits(&DESK, second));
    }

    #[test]
    fn a_clock_that_jumps_has_all_machines_asked_again() {
        let mut clocks = Clocks::default();
        assert_eq!(clocks.jumped(at(0, 0)), None);
        let question = clocks.ask(DESK, at(0, 0));
        assert!(clocks.answered(&DESK, question, at(0, 0), Some(at(0, 0).unix_ms)));
        assert_eq!(clocks.jumped(at(1_000, JUMP_MS)), None, "it may drift");
        assert_eq!(clocks.jumped(at(1_000, -JUMP_MS)), None);
        let mut ahead = 0;
        for jump in [JUMP_MS + 1, -3_600_000] {
            ahead += jump;
            assert_eq!(clocks.jumped(at(2_000, ahead)), Some((jump, vec![DESK])));
            assert_eq!(clocks.ahead(&DESK), None, "nothing is sent by what was right before");
            assert_eq!(clocks.jumped(at(3_000, ahead)), None, "it has jumped once");
        }
    }

    #[test]
    fn a_jump_while_a_machine_answers_changes_nothing() {
        let mut clocks = Clocks::default();
        let question = clocks.ask(DESK, at(0, 0));
        assert!(clocks.answered(&DESK, question, at(200, 3_600_000), Some(at(100, 0).unix_ms)));
        assert_eq!(clocks.ahead(&DESK), Some(-3_600_000));
    }
}
