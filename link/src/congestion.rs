//! How much of what can wait is in flight (`PROTOCOL 9`, "In flight").
//!
//! Whatever lies in a queue on the way delays what is urgent, which comes behind it, and no priority of ours reaches into that queue.
//! So records other than control fill the line and little more. The delay tells: a round trip above the shortest one was spent
//! in a queue. The ideas are those of LEDBAT (RFC 6817: a target for the delay), HyStart++ (RFC 9406: leave the start before anything
//! is lost) and BBR (look for the shortest round trip again now and then).

use std::time::Duration;

use happy_wire::frame::{Class, MAX_IN_FLIGHT_BYTES};

/// The queue that bulk may leave standing before a control record. `PROTOCOL 9` promises 50 ms beside one round trip.
const QUEUE: Duration = Duration::from_millis(15);
/// What a burst may add to a round trip while the line is not known.
const BURST: Duration = Duration::from_millis(40);
/// So many bytes fill a line of 1 Mbit/s for 50 ms.
const LEAST: usize = 6 * 1024;
/// The most before anything is known of the line.
const FIRST_MOST: usize = 32 * 1024;
/// The slowest line for which the promise holds: 1 Mbit/s, as bytes in a millisecond.
const SLOW_LINE: u128 = 125;
/// A shortest round trip that was not seen again for so long is looked for with an empty queue.
const BASE_LASTS: Duration = Duration::from_secs(10);
/// How long the Ping over the emptied line is waited for; or four of the last round trips, if that is longer.
const DRAIN_LASTS: Duration = Duration::from_secs(2);
/// What may be in flight meanwhile: nothing that a Ping would see.
const TRICKLE: usize = 1024;
/// As good as the shortest round trip: what an acknowledgement may wait for company, and a little.
const SLACK: Duration = Duration::from_millis(12);
/// A round has at least so many frames, so that one that was late by chance does not decide: at the start, and when rates are compared.
const LEAST_FRAMES: (u64, u64) = (4, 16);

/// What is done about the line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Twice as much in each round, until the queue shows.
    Starting,
    /// A little more or less.
    Steady,
    /// Nothing more is sent until what is on its way has arrived and a Ping has seen the line empty, or until this time.
    Draining {
        until: Duration,
        /// What the line carried, bytes in a second, if that is known.
        rate: Option<f64>,
    },
}

/// The frames that were sent from a change of the limit until the first of them was acknowledged: what comes of the change.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// The number of its first frame, and of the first frame after it as soon as that is known.
    first: u64,
    end: Option<u64>,
    /// Round trips of the later half, which stands behind the rest of a burst: the shortest, their sum, and how many they were.
    late: Option<Duration>,
    late_sum: Duration,
    late_count: u32,
    /// When the first of them was acknowledged, and what had arrived by then.
    begun: Option<(Duration, u64)>,
    /// The most that was in flight.
    most: usize,
    asked: bool,
}

impl Round {
    fn from(first: u64) -> Self {
        Self {
            first,
            end: None,
            late: None,
            late_sum: Duration::ZERO,
            late_count: 0,
            begun: None,
            most: 0,
            asked: false,
        }
    }
}

/// What was known before the limit was lowered.
#[derive(Debug, Clone, Copy)]
struct Lowered {
    limit: usize,
    /// Bytes in a second.
    rate: f64,
    /// What looked like a queue.
    queue: Duration,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Congestion {
    limit: usize,
    /// Bytes that have arrived.
    arrived: u64,
    /// The limit was lowered, and now it shows whether that was right.
    lowered: Option<Lowered>,
    /// So much of the delay is no queue of ours: less in flight has made the rate less and not the delay.
    tremor: Duration,
    phase: Phase,
    /// The shortest round trip, and when one as short was seen last.
    base: Option<(Duration, Duration)>,
    /// The shortest of the last round.
    recent: Duration,
    round: Round,
}

impl Congestion {
    pub(crate) fn new() -> Self {
        Self {
            limit: LEAST,
            arrived: 0,
            lowered: None,
            tremor: Duration::ZERO,
            phase: Phase::Starting,
            base: None,
            recent: Duration::ZERO,
            round: Round::from(0),
        }
    }

    /// On a line that has shown that it carries a full window.
    #[cfg(test)]
    pub(crate) fn wide() -> Self {
        Self { limit: MAX_IN_FLIGHT_BYTES, phase: Phase::Steady, ..Self::new() }
    }

    /// How many bytes may be in flight before a record of this class waits, and the largest frame with such records: several fit into what is
    /// in flight, and each delays a control record.
    pub(crate) fn limit(&self, class: Class) -> (usize, usize) {
        match (self.phase, class) {
            (Phase::Draining { .. }, Class::Bulk) => (0, 0),
            // What somebody types goes on.
            (Phase::Draining { .. }, _) => (TRICKLE, TRICKLE),
            (Phase::Starting | Phase::Steady, _) => (self.limit, self.limit / 4),
        }
    }

    /// A frame was sent; so much is in flight now.
    pub(crate) fn on_sent(&mut self, in_flight: usize) {
        self.round.most = self.round.most.max(in_flight);
    }

    /// Whether to send a Ping, which is answered at once: before anything that can wait is sent on a line of which nothing is known;
    /// once a round while little is known, lest what is measured is how long an acknowledgement waits for company; and on a
    /// line that has been emptied. `waits` tells whether there is something that can wait, `acknowledged` what has arrived.
    pub(crate) fn asks(&mut self, waits: bool, acknowledged: u64) -> bool {
        let asks = !self.round.asked
            && match self.phase {
                Phase::Starting => waits && (self.base.is_none() || self.is_used()),
                Phase::Steady => false,
                Phase::Draining { .. } => acknowledged >= self.round.first,
            };
        self.round.asked |= asks;
        asks
    }

    /// Nothing that can wait is sent before the Ping that [`Self::asks`] for.
    pub(crate) fn knows_nothing(&self) -> bool {
        self.base.is_none() && !self.round.asked
    }

    /// When what can wait goes on although no Ping has come back.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Draining { until, .. } => Some(until),
            Phase::Starting | Phase::Steady => None,
        }
    }

    /// Notes that time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Duration, next: u64) {
        if self.timeout().is_some_and(|until| until <= now) {
            // The Ping was lost, or the way has become much longer: what the last round saw has to do.
            self.base = Some((self.recent, now));
            self.tremor = Duration::ZERO;
            self.phase = Phase::Steady;
            self.round = Round::from(next);
        }
    }

    /// Bulk has three quarters of the limit.
    fn is_used(&self) -> bool {
        self.round.most >= self.limit / 8 * 5
    }

    /// A Ping came back after this time.
    pub(crate) fn on_pong(&mut self, now: Duration, next: u64, round_trip: Duration) {
        if let (Phase::Draining { rate, .. }, Some((base, _)), true) = (self.phase, self.base, self.round.asked) {
            // Another path, perhaps: what was right for the old one is no guide.
            self.phase = if round_trip > base * 2 + BURST { Phase::Starting } else { Phase::Steady };
            self.base = Some((round_trip, now));
            self.tremor = Duration::ZERO;
            self.round = Round::from(next);
            // It will leave at once, into an empty line; bulk has three quarters of it.
            let fitting = rate.map(|rate| (rate * (round_trip + QUEUE).as_secs_f64() / 0.75) as usize);
            self.limit = self.limit.min(fitting.unwrap_or(self.limit)).max(LEAST);
        }
        self.note(now, next, round_trip);
    }

    /// The frame `number` was acknowledged after this round trip; `next` is the number of the next frame.
    pub(crate) fn on_round_trip(&mut self, now: Duration, number: u64, next: u64, round_trip: Duration) {
        let round = &mut self.round;
        if number < round.first {
            return self.note(now, next, round_trip);
        }
        let least = if self.phase == Phase::Starting { LEAST_FRAMES.0 } else { LEAST_FRAMES.1 };
        let end = *round.end.get_or_insert(next.max(round.first + least));
        if number >= round.first + (end - round.first) / 2 {
            round.late = Some(round.late.map_or(round_trip, |late| late.min(round_trip)));
            round.late_sum += round_trip;
            round.late_count += 1;
        }
        self.note(now, next, round_trip);
    }

    fn note(&mut self, now: Duration, next: u64, round_trip: Duration) {
        self.base = match self.base {
            Some((base, _)) if base + SLACK >= round_trip => Some((base.min(round_trip), now)),
            None => {
                self.limit = first_limit(round_trip);
                self.round = Round::from(next);
                Some((round_trip, now))
            }
            known => known,
        };
    }

    /// Everything before `acknowledged` has arrived, `bytes` of it are news, and `next` is the number of the next frame.
    pub(crate) fn on_acknowledged(&mut self, now: Duration, bytes: usize, acknowledged: u64, next: u64) {
        self.arrived += bytes as u64;
        let Some(end) = self.round.end else { return };
        let (begun, before) = *self.round.begun.get_or_insert((now, self.arrived));
        if acknowledged < end || self.timeout().is_some() {
            return;
        }
        // One acknowledgement for the whole round tells no rate.
        let rate = (self.arrived - before) as f64 / now.saturating_sub(begun).as_secs_f64();
        self.end_round(now, Some(rate).filter(|rate| rate.is_finite()), next);
    }

    fn end_round(&mut self, now: Duration, rate: Option<f64>, next: u64) {
        let used = self.is_used();
        let round = std::mem::replace(&mut self.round, Round::from(next));
        let (Some((base, seen)), Some(late), true) = (self.base, round.late, used) else {
            // Not the line has set the pace but the application, and nothing is known of more.
            return;
        };
        self.recent = late;
        let queue = late.saturating_sub(base + self.tremor);
        if self.phase == Phase::Starting {
            // As much as would stay half a round trip below the promise, if the line carries no more than it did now.
            let usual = round.late_sum / round.late_count.max(1);
            let fitting = scaled(self.limit, base * 3 / 2 + BURST, usual.max(base)).min(self.limit * 2);
            if fitting < self.limit + self.limit / 4 {
                self.phase = Phase::Steady;
            }
            self.limit = fitting;
        } else if let Some(lowered) = self.lowered.take().filter(|lowered| self.was_wrong(lowered, rate)) {
            self.limit = lowered.limit;
            // What stands in the queue with it stays below the promise even if the rate had another reason.
            self.tremor = (self.tremor + lowered.queue).min(base / 4 + QUEUE);
        } else if queue > QUEUE {
            self.lowered = rate.map(|rate| Lowered { limit: self.limit, rate, queue });
            self.limit = scaled(self.limit, base + self.tremor + QUEUE, late).max(self.limit / 2);
        } else if queue < QUEUE / 2 {
            self.limit += (self.limit / 8).max(1024);
        }
        self.limit = self.limit.clamp(LEAST, MAX_IN_FLIGHT_BYTES);
        if now >= seen + BASE_LASTS {
            self.phase = Phase::Draining { until: now + DRAIN_LASTS.max(late * 4), rate };
        }
    }

    /// A line that was full carries as much as before when less is in flight. If it does not the delay has another reason.
    fn was_wrong(&self, lowered: &Lowered, rate: Option<f64>) -> bool {
        let part = self.limit as f64 / lowered.limit as f64;
        part < 0.95 && rate.is_some_and(|rate| rate < lowered.rate * (1.0 + 2.0 * part) / 3.0)
    }

    /// The relay had no room for a frame.
    pub(crate) fn on_refused(&mut self) {
        self.phase = Phase::Steady;
        self.limit = (self.limit / 2).max(LEAST);
    }

    /// The path is another one.
    pub(crate) fn on_new_path(&mut self, next: u64) {
        *self = Self { round: Round::from(next), ..Self::new() };
    }
}

/// Before the line is known it is taken for a slow one, and gets what it carries in a round trip and the 50 ms.
fn first_limit(round_trip: Duration) -> usize {
    let bytes = (round_trip + BURST).as_millis().saturating_mul(SLOW_LINE);
    usize::try_from(bytes).unwrap_or(FIRST_MOST).clamp(LEAST, FIRST_MOST)
}

/// `bytes · numerator / denominator`.
fn scaled(bytes: usize, numerator: Duration, denominator: Duration) -> usize {
    let scaled = bytes as u128 * numerator.as_micros() / denominator.as_micros().max(1);
    usize::try_from(scaled).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Frames that fill what may be in flight, each acknowledged by itself after one round trip, until `rounds` have ended.
    struct Flow {
        congestion: Congestion,
        now: Duration,
        next: u64,
    }

    impl Flow {
        fn new(congestion: Congestion) -> Self {
            Self { congestion, now: ms(0), next: 0 }
        }

        fn round(&mut self, round_trip: Duration, acknowledgements: u64) {
            const FRAMES: u64 = 32;
            let first = self.next;
            self.next += FRAMES;
            self.congestion.on_sent(self.congestion.limit / 8 * 6);
            self.now += round_trip;
            let each = FRAMES / acknowledgements;
            for acknowledged in (first + each..=self.next).step_by(each as usize) {
                self.now += ms(1);
                for number in acknowledged - each..acknowledged {
                    self.congestion.on_round_trip(self.now, number, self.next, round_trip);
                }
                self.congestion.on_acknowledged(self.now, 1_000, acknowledged, self.next);
            }
        }
    }

    #[test]
    fn a_round_in_one_acknowledgement_says_nothing_of_the_rate() {
        let mut flow = Flow::new(Congestion::wide());
        for _ in 0..50 {
            flow.round(ms(500), 1);
        }
        assert_eq!(flow.congestion.limit, MAX_IN_FLIGHT_BYTES);
        // The way has become longer, and it is time to look for an empty line; nobody knows the rate.
        for _ in 0..50 {
            flow.round(ms(530), 1);
            if flow.congestion.timeout().is_some() {
                assert!(flow.congestion.asks(false, flow.next));
                flow.congestion.on_pong(flow.now, flow.next, ms(530));
            }
        }
        assert!(flow.congestion.limit > MAX_IN_FLIGHT_BYTES / 2, "{}", flow.congestion.limit);
    }

    #[test]
    fn when_no_ping_comes_back_the_line_is_used_again_and_not_emptied_at_once_again() {
        let mut flow = Flow::new(Congestion::wide());
        flow.round(ms(100), 16);
        let mut pauses = Vec::new();
        while flow.now < ms(100_000) {
            flow.round(ms(2_500), 16);
            if let Some(until) = flow.congestion.timeout() {
                assert_eq!(flow.congestion.limit(Class::Bulk), (0, 0));
                assert_eq!(flow.congestion.limit(Class::Interactive), (TRICKLE, TRICKLE), "keys go on");
                pauses.push(until - flow.now);
                flow.now = until;
                flow.congestion.handle_timeout(until, flow.next);
            }
        }
        assert!(pauses.len() <= 2, "{pauses:?}");
        assert!(flow.congestion.limit > MAX_IN_FLIGHT_BYTES / 4, "{}", flow.congestion.limit);
    }

    #[test]
    fn what_is_unknown_is_taken_for_slow() {
        assert_eq!(first_limit(ms(0)), LEAST);
        assert_eq!(first_limit(ms(100)), 17_500);
        assert_eq!(first_limit(Duration::MAX / 4), FIRST_MOST);
    }
}
