//! The event log: what this machine told its devices of late, so that whoever was away is told the rest (`PROTOCOL 10.3`).

use std::collections::VecDeque;

use happy_rpc::{Event, EventPlace, Followed, Told};
use uuid::Uuid;

/// Events that are kept. A machine's sessions change a few times a minute while it is used, so these are hours; and whoever missed
/// more is told faster by the lists.
const MAX_EVENTS: usize = 1_024;
/// Bytes of them as they are told. At the usual 400 bytes the number is met first; a list of many devices is larger.
const MAX_BYTES: usize = 1024 * 1024;
/// Bytes of one answer. It goes out as one message ahead of everything that is not control, and keeps the line of 1 Mbit/s for half a second.
const MAX_ANSWER: usize = 64 * 1024;
/// Bytes of one event: it has to fit a message (256 KiB, `PROTOCOL 9`) with what an answer has beside it.
const MAX_EVENT: usize = 192 * 1024;

/// The events of one life of the daemon.
#[derive(Debug)]
pub struct EventLog {
    log: Uuid,
    /// The number of the newest, kept or not.
    last: u64,
    kept: VecDeque<Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    told: Told,
    /// As it is told.
    bytes: usize,
}

impl Default for EventLog {
    /// An empty log with a fresh name.
    fn default() -> EventLog {
        EventLog { log: Uuid::new_v4(), last: 0, kept: VecDeque::new(), bytes: 0 }
    }
}

impl EventLog {
    /// Gives an event its number, and keeps it. It is to be told before the next one gets its own.
    pub fn push(&mut self, event: Event) -> Told {
        self.last += 1;
        let at = Some(EventPlace { log: self.log, number: self.last });
        let mut told = Told { event, at };
        let mut bytes = told.to_body().len();
        if bytes > MAX_EVENT {
            told.event = Event::ListAgain {};
            bytes = told.to_body().len();
        }
        self.kept.push_back(Kept { told: told.clone(), bytes });
        self.bytes += bytes;
        while self.kept.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
        told
    }

    /// What came after a place, as one device (or the person at this machine) sees it.
    pub fn after(&self, place: Option<EventPlace>, device: Option<&str>) -> Followed<Told> {
        let end = |complete| Followed { log: self.log, number: self.last, missed: Vec::new(), complete, more: false };
        let Some(place) = place else { return end(true) };
        let before_the_first = self.last - self.kept.len() as u64;
        if place.log != self.log || place.number > self.last || place.number < before_the_first {
            return end(false);
        }
        let mut bytes = 0;
        let known = usize::try_from(place.number - before_the_first).unwrap_or(usize::MAX);
        let fits = |kept: &&Kept| {
            let is_first = bytes == 0;
            bytes += kept.bytes;
            is_first || bytes <= MAX_ANSWER
        };
        let missed: Vec<Told> =
            self.kept.iter().skip(known).take_while(fits).map(|kept| kept.told.clone().seen_by(device)).collect();
        let number = place.number + missed.len() as u64;
        Followed { log: self.log, number, missed, complete: true, more: number < self.last }
    }
}

#[cfg(test)]
mod tests {
    use happy_rpc::{Call, Device, EventsFollow, Follower, Presence, Role, Step};

    use super::*;

    fn event(number: u64) -> Event {
        Event::SessionRemoved { session: Uuid::from_u128(number.into()) }
    }

    fn log(events: u64) -> EventLog {
        let mut log = EventLog::default();
        (1..=events).for_each(|number| assert_eq!(log.push(event(number)).at.unwrap().number, number));
        log
    }

    fn place(log: &EventLog, number: u64) -> Option<EventPlace> {
        Some(EventPlace { log: log.log, number })
    }

    fn device(name: &str) -> Device {
        Device {
            device: name.to_owned(),
            name: String::new(),
            role: Role::Owner,
            safety_number: String::new(),
            added_at: 0,
            removed_at: None,
            presence: Presence::Here,
            you: false,
        }
    }

    /// The numbers of what was missed, each checked to be the event that was told under it.
    fn missed(followed: &Followed<Told>) -> Vec<u64> {
        let number = |told: &Told| {
            let at = told.at.unwrap();
            assert_eq!((at.log, &told.event), (followed.log, &event(at.number)));
            at.number
        };
        followed.missed.iter().map(number).collect()
    }

    #[test]
    fn what_came_after_a_place_comes_in_order_and_once() {
        let log = log(5);
        for after in 0..=5 {
            let followed = log.after(place(&log, after), None);
            assert_eq!(missed(&followed), (after + 1..=5).collect::<Vec<_>>());
            assert_eq!((followed.number, followed.complete, followed.more), (5, true, false));
        }
    }

    #[test]
    fn whoever_begins_has_missed_nothing() {
        let log = log(5);
        let followed = log.after(None, None);
        assert_eq!((followed.number, followed.complete, followed.missed.len()), (5, true, 0));
        assert_eq!(EventLog::default().after(None, None).number, 0);
    }

    #[test]
    fn another_log_and_a_place_that_never_was_are_gaps() {
        let log = log(5);
        // What a daemon that was restarted finds.
        let other = EventLog::default();
        for after in [place(&other, 3), place(&other, 0), place(&log, 6), place(&log, u64::MAX)] {
            let followed = log.after(after, None);
            assert_eq!((followed.number, followed.complete, followed.missed.len()), (5, false, 0), "{after:?}");
            assert_eq!(followed.log, log.log);
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let log = log(MAX_EVENTS as u64 + 10);
        assert_eq!(log.kept.len(), MAX_EVENTS);
        assert!(!log.after(place(&log, 9), None).complete);
        let followed = log.after(place(&log, 10), None);
        assert!(followed.complete);
        assert_eq!(missed(&followed)[0], 11);
    }

    #[test]
    fn the_oldest_go_when_they_are_too_large() {
        let mut log = EventLog::default();
        let large = || Event::DevicesChanged(vec![device(&"x".repeat(MAX_EVENT / 2))]);
        for _ in 0..100 {
            log.push(large());
            assert!(log.bytes <= MAX_BYTES);
        }
        assert_eq!(log.bytes, log.kept.iter().map(|kept| kept.told.to_body().len()).sum::<usize>());
        let kept = log.kept.len() as u64;
        assert!(kept >= 10, "{kept}");
        assert!(!log.after(place(&log, 99 - kept), None).complete);
        // Each is more than an answer usually holds, and goes alone.
        let followed = log.after(place(&log, 100 - kept), None);
        assert_eq!((followed.complete, followed.missed.len(), followed.more), (true, 1, true));
    }

    #[test]
    fn an_event_that_fits_no_message_is_replaced() {
        let mut log = EventLog::default();
        let told = log.push(Event::DevicesChanged(vec![device(&"x".repeat(MAX_EVENT))]));
        assert_eq!(told, Told { event: Event::ListAgain {}, at: place(&log, 1) });
        assert_eq!(log.after(place(&log, 0), None).missed, [told]);
        let almost = log.push(Event::DevicesChanged(vec![device(&"x".repeat(MAX_EVENT - 400))]));
        let answer = EventsFollow::answer(&Ok(log.after(place(&log, 1), None)));
        assert!(matches!(almost.event, Event::DevicesChanged(_)) && answer.len() <= happy_link::MAX_BODY);
    }

    #[test]
    fn long_absences_are_told_in_parts() {
        let log = log(1_000);
        let (mut at, mut answers) = (place(&log, 0), 0);
        loop {
            let followed = log.after(at, None);
            let body = EventsFollow::answer(&Ok(followed.clone()));
            assert!(body.len() <= MAX_ANSWER + 2_048, "{} bytes", body.len());
            let first = at.unwrap().number + 1;
            assert_eq!(missed(&followed), (first..=followed.number).collect::<Vec<_>>());
            (at, answers) = (place(&log, followed.number), answers + 1);
            if !followed.more {
                break;
            }
        }
        assert_eq!(at, place(&log, 1_000));
        assert!(answers > 1);
    }

    #[test]
    fn each_device_sees_itself_marked() {
        let mut log = EventLog::default();
        log.push(Event::DevicesChanged(vec![device("a"), device("b")]));
        for (seen_by, marks) in [(Some("a"), [true, false]), (Some("b"), [false, true]), (None, [false, false])] {
            let followed = log.after(place(&log, 0), seen_by);
            let Event::DevicesChanged(devices) = &followed.missed[0].event else { panic!("another event") };
            assert_eq!(devices.iter().map(|device| device.you).collect::<Vec<_>>(), marks);
        }
    }

    /// A machine that tells and a follower, with everything between them that a link does: what is told is lost while it is down, an
    /// answer and what is told overtake each other, the daemon is restarted, whoever takes too little is told so.
    #[test]
    fn through_losses_restarts_and_overtaking_each_event_comes_once_and_in_order() {
        let (mut gaps, mut late, mut taken_in_all) = (0, 0, 0);
        for seed in 0..400_u64 {
            let mut random = fastrand(seed);
            let mut log = EventLog::default();
            let mut follower = Follower::default();
            let mut expected: Option<EventPlace> = None;
            // What is on its way, and an answer that waits for its turn.
            let mut told: VecDeque<Told> = VecDeque::new();
            let mut answer: Option<(u64, Followed<Told>)> = None;
            let (mut up, mut follows) = (true, true);
            for step in 0..600 {
                let calm = step > 560;
                if follows {
                    let (question, asked) = follower.ask();
                    answer = Some((question, log.after(asked.after, None)));
                    follows = false;
                }
                match random(if calm { 4 } else { 12 }) {
                    0..=3 if !calm || step < 580 => {
                        let one = log.push(event(log.last + 1));
                        if up && random(10) > 0 {
                            told.push_back(one);
                        } else if up {
                            // It did not take it, and is told so.
                            follows |= follower.lost() == Step::Ask;
                        }
                    }
                    4 => up = false,
                    5 => {
                        // A link that comes back: what was on its way may be lost.
                        told.truncate(random(4) as usize);
                        (up, follows, answer) = (true, true, None);
                    }
                    6 if random(8) == 0 => {
                        log = EventLog::default();
                        (up, follows, answer) = (true, true, None);
                        told.clear();
                    }
                    7 if random(40) == 0 => {
                        (0..MAX_EVENTS as u64 + 5).for_each(|_| drop(log.push(event(log.last + 1))))
                    }
                    _ => {}
                }
                if calm && !up {
                    (up, follows) = (true, true);
                }
                if (calm || random(2) == 0)
                    && let Some(one) = told.pop_front()
                {
                    match follower.told(one.at) {
                        Step::Take => take(&one, &mut expected, &mut taken_in_all),
                        Step::Leave => late += 1,
                        Step::Ask => follows = true,
                    }
                }
                if (calm || random(3) == 0)
                    && let Some((question, followed)) = answer.take()
                    && let Some(caught) = follower.answered(question, &followed)
                {
                    let end = EventPlace { log: followed.log, number: followed.number };
                    gaps += u64::from(caught.gap);
                    assert_eq!(caught.gap, caught.lists && expected.is_some());
                    match caught.lists {
                        true => expected = Some(end),
                        false => followed.missed[caught.skip..]
                            .iter()
                            .for_each(|one| take(one, &mut expected, &mut taken_in_all)),
                    }
                    follows |= caught.again;
                }
            }
            assert_eq!(expected, place(&log, log.last), "seed {seed}: everything has come");
        }
        assert!(gaps > 100 && late > 100 && taken_in_all > 10_000, "{gaps} {late} {taken_in_all}");
    }

    /// The next event, and no other.
    fn take(told: &Told, expected: &mut Option<EventPlace>, taken: &mut u64) {
        let (at, before) = (told.at.unwrap(), expected.unwrap());
        assert_eq!(at, EventPlace { log: before.log, number: before.number + 1 });
        *expected = Some(at);
        *taken += 1;
    }

    /// Numbers below a bound, the same for the same seed.
    fn fastrand(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        }
    }
}
