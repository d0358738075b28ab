//! Numbers, acknowledgements and resending (`PROTOCOL 9`).
//!
//! A sender keeps every numbered packet as it was sealed until the other side acknowledges it, and sends those same bytes
//! again when there is reason to: sealing anew would be a second message with the number of the first. A receiver delivers in
//! order and keeps what comes early, within the same bounds that bind the sender.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use happy_wire::frame::{Class, MAX_IN_FLIGHT_BYTES, MAX_IN_FLIGHT_FRAMES};

use crate::congestion::Congestion;
use crate::planted::{self, Bug};

/// How much longer than a round trip the wait for an acknowledgement is at least: more than the 10 ms that a receiver may hold one back, and
/// than the hiccup of a busy machine or a line that has just filled up.
const MIN_WAIT: Duration = Duration::from_millis(200);
/// The longest wait, doubling included; after it a person would notice.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// The wait while no round trip has been measured.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long an acknowledgement may wait for a frame to ride on.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(10);
/// After so many frames it does not wait.
const ACKNOWLEDGE_EVERY: u32 = 8;
/// The most frames sent again for one step forward after a loss that no Resume explains.
const MAX_BURST: u32 = 32;
/// A frame that was sent so often on a living path will never be accepted (its key was dropped, or the peer is broken): the session
/// cannot go on. At 2 s each this is half a minute.
const MAX_RESENDS: u32 = 16;

/// A frame number that cannot be: the peer is broken or hostile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutsideWindow;

/// The round trip as `srtt` and `rttvar` of RFC 6298.
#[derive(Debug, Default)]
struct RoundTrip {
    measured: Option<(Duration, Duration)>,
}

impl RoundTrip {
    fn sample(&mut self, rtt: Duration) {
        self.measured = Some(match self.measured {
            None => (rtt, rtt / 2),
            Some((srtt, rttvar)) => ((srtt * 7 + rtt) / 8, (rttvar * 3 + srtt.abs_diff(rtt)) / 4),
        });
    }

    fn wait(&self) -> Duration {
        self.measured.map_or(FIRST_WAIT, |(srtt, rttvar)| (srtt + (rttvar * 4).max(MIN_WAIT)).min(MAX_WAIT))
    }
}

struct InFlight {
    tag: u32,
    /// The frame before sealing: new keys cannot seal what the old ones have sealed.
    frame: Vec<u8>,
    /// The whole frame for the relay, sealed packet included; empty while it waits to be sealed anew.
    bytes: Vec<u8>,
    size: usize,
    first_sent: Duration,
    last_sent: Duration,
    resends: u32,
    /// To be sent again as soon as the socket takes it.
    due: bool,
}

/// After a wait without an acknowledgement: what was in flight then is suspect and is sent again in growing bursts.
struct Recovery {
    end: u64,
    started: Duration,
    burst: u32,
}

/// The numbered frames that are on their way.
pub(crate) struct SendWindow {
    frames: VecDeque<InFlight>,
    /// The number of the first of `frames`.
    first: u64,
    // INVARIANT: the sum of `size` and the count of `due` over `frames`.
    bytes: usize,
    due: usize,
    round_trip: RoundTrip,
    congestion: Congestion,
    /// When the current wait began.
    waiting_since: Duration,
    doublings: u32,
    recovery: Option<Recovery>,
}

impl SendWindow {
    pub(crate) fn new() -> Self {
        Self {
            frames: VecDeque::new(),
            first: 0,
            bytes: 0,
            due: 0,
            round_trip: RoundTrip::default(),
            congestion: Congestion::new(),
            waiting_since: Duration::ZERO,
            doublings: 0,
            recovery: None,
        }
    }

    /// The number of the next frame.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// The other side has every frame before this.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.first
    }

    /// How large the packet of a frame with records of this class may be now. Control records have the whole window. The others have what
    /// the line carries, and the last quarter of that is closed to bulk, the last eighth to interactive data, so that an approval
    /// never waits for a round trip of somebody's file.
    pub(crate) fn room(&self, class: Class) -> usize {
        let eighths = match class {
            Class::Control => 8,
            Class::Interactive => 7,
            Class::Bulk => 6,
        };
        if self.frames.len() as u64 >= MAX_IN_FLIGHT_FRAMES / 8 * eighths {
            return 0;
        }
        let (most, largest) = match class {
            Class::Control => (MAX_IN_FLIGHT_BYTES, usize::MAX),
            Class::Interactive | Class::Bulk => self.congestion.limit(class),
        };
        (most / 8 * eighths as usize).saturating_sub(self.bytes).min(largest)
    }

    /// See [`Congestion::knows_nothing`].
    pub(crate) fn knows_nothing(&self) -> bool {
        self.congestion.knows_nothing()
    }

    /// See [`Congestion::asks`].
    pub(crate) fn asks(&mut self, waits: bool) -> bool {
        self.congestion.asks(waits, self.first)
    }

    /// When what can wait goes on although no Ping has come back.
    pub(crate) fn pause_ends(&self) -> Option<Duration> {
        self.congestion.timeout()
    }

    /// Notes that time has passed.
    pub(crate) fn end_pause(&mut self, now: Duration) {
        self.congestion.handle_timeout(now, self.next());
    }

    /// A Ping came back.
    pub(crate) fn on_pong(&mut self, now: Duration, round_trip: Duration) {
        self.congestion.on_pong(now, self.next(), round_trip);
    }

    /// Notes a frame that is sent now. `size` is that of its packet.
    pub(crate) fn push(&mut self, now: Duration, tag: u32, frame: Vec<u8>, bytes: Vec<u8>, size: usize) {
        if self.frames.is_empty() {
            self.restart_wait(now);
        }
        self.bytes += size;
        self.frames.push_back(InFlight {
            tag,
            frame,
            bytes,
            size,
            first_sent: now,
            last_sent: now,
            resends: 0,
            due: false,
        });
        self.congestion.on_sent(self.bytes);
    }

    /// The other side expects `next` now. True when that is news.
    pub(crate) fn acknowledge(&mut self, now: Duration, next: u64) -> Result<bool, OutsideWindow> {
        if next > self.next() {
            return Err(OutsideWindow);
        }
        let mut sample = None;
        let (before, unsent, unheard) = (self.first, self.next(), self.bytes);
        while self.first < next {
            let Some(frame) = self.frames.pop_front() else { break };
            self.first += 1;
            self.bytes -= frame.size;
            self.due -= usize::from(frame.due);
            // Karn's rule: of a frame that was sent twice nobody knows which copy was acknowledged.
            if frame.resends == 0 {
                let round_trip = now.saturating_sub(frame.last_sent);
                self.congestion.on_round_trip(now, self.first - 1, unsent, round_trip);
                sample = Some(round_trip);
            }
        }
        if self.first == before {
            return Ok(false);
        }
        if let Some(rtt) = sample {
            self.round_trip.sample(rtt);
        }
        self.congestion.on_acknowledged(now, unheard - self.bytes, self.first, unsent);
        self.restart_wait(now);
        self.go_on_recovering();
        Ok(true)
    }

    fn restart_wait(&mut self, now: Duration) {
        self.waiting_since = now;
        self.doublings = 0;
    }

    fn go_on_recovering(&mut self) {
        let Some(recovery) = &mut self.recovery else { return };
        if self.first >= recovery.end {
            self.recovery = None;
            return;
        }
        recovery.burst = (recovery.burst * 2).min(MAX_BURST);
        let (started, burst) = (recovery.started, recovery.burst as usize);
        let suspects = (recovery.end - self.first) as usize;
        for frame in
            self.frames.iter_mut().take(suspects).filter(|frame| frame.last_sent < started && !frame.due).take(burst)
        {
            frame.due = true;
            self.due += 1;
        }
    }

    /// What was last sent before this moment had time to be acknowledged.
    pub(crate) fn overdue(&self, now: Duration) -> Duration {
        now.saturating_sub(self.round_trip.wait())
    }

    /// Everything that was last sent before `before` is to be sent again.
    pub(crate) fn resend_all(&mut self, before: Duration) {
        for frame in self.frames.iter_mut().filter(|frame| !frame.due && frame.last_sent < before) {
            frame.due = true;
            self.due += 1;
        }
    }

    /// The keys have changed: everything is to be sealed and sent again.
    pub(crate) fn seal_anew(&mut self) {
        for frame in &mut self.frames {
            if !planted::is(Bug::KeepsOldSeals) {
                frame.bytes = Vec::new();
            }
            frame.due = true;
            // What the old keys could not bring across counts no more.
            frame.resends = frame.resends.min(1);
        }
        self.due = self.frames.len();
    }

    /// The relay had no room for the frame with this tag.
    pub(crate) fn resend_tag(&mut self, tag: u32) {
        self.congestion.on_refused();
        if let Some(frame) = self.frames.iter_mut().find(|frame| frame.tag == tag && !frame.due) {
            frame.due = true;
            self.due += 1;
        }
    }

    /// Whether something waits to be sent again.
    pub(crate) fn has_due(&self) -> bool {
        self.due > 0
    }

    /// The next frame to be sent again, as the same bytes. `seal` seals one whose bytes the last change of keys has taken.
    pub(crate) fn take_due<E>(
        &mut self,
        now: Duration,
        seal: impl FnOnce(u32, &mut Vec<u8>) -> Result<Vec<u8>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        if self.due == 0 {
            return Ok(None);
        }
        let Some(frame) = self.frames.iter_mut().find(|frame| frame.due) else { return Ok(None) };
        if frame.bytes.is_empty() {
            frame.bytes = seal(frame.tag, &mut frame.frame)?;
        }
        frame.due = false;
        frame.last_sent = now;
        frame.resends += 1;
        self.due -= 1;
        self.waiting_since = now;
        Ok(Some(frame.bytes.clone()))
    }

    /// When the wait for an acknowledgement is over.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if self.frames.is_empty() || self.due > 0 || planted::is(Bug::NeverSendsAgain) {
            return None;
        }
        let wait = self.round_trip.wait().saturating_mul(1 << self.doublings.min(8)).min(MAX_WAIT);
        Some(self.waiting_since + wait)
    }

    /// Sends the oldest frame again when the wait is over: one frame is enough to learn whether the rest was lost.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        if self.timeout().is_none_or(|timeout| now < timeout) {
            return;
        }
        self.doublings += 1;
        self.waiting_since = now;
        self.recovery = Some(Recovery { end: self.next(), started: now, burst: 1 });
        if let Some(frame) = self.frames.front_mut() {
            frame.due = true;
            self.due += 1;
        }
    }

    /// Since when the oldest frame waits to be acknowledged.
    pub(crate) fn unacknowledged_since(&self) -> Option<Duration> {
        self.frames.front().map(|frame| frame.first_sent)
    }

    /// Whether resending has become pointless.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.frames.front().is_some_and(|frame| frame.resends >= MAX_RESENDS)
    }

    /// A new path is a new chance: past attempts do not count against it.
    pub(crate) fn forgive(&mut self, now: Duration) {
        self.restart_wait(now);
        self.congestion.on_new_path(self.next());
        if let Some(frame) = self.frames.front_mut() {
            frame.resends = frame.resends.min(1);
        }
    }

    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        (self.frames.len(), self.bytes)
    }
}

/// What to do with a numbered frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is the next one: process it, then call [`ReceiveWindow::advance`].
    Next,
    /// It came early: [`ReceiveWindow::keep`] it.
    Early,
    /// It came before.
    Repeated,
}

/// The numbered frames that came, and what is owed for them.
pub(crate) struct ReceiveWindow {
    expected: u64,
    early: BTreeMap<u64, Vec<u8>>,
    early_bytes: usize,
    unacknowledged: u32,
    /// When an acknowledgement stops waiting for a frame to ride on.
    acknowledge_at: Option<Duration>,
    /// It no longer waits.
    acknowledge_now: bool,
}

impl ReceiveWindow {
    pub(crate) fn new() -> Self {
        Self {
            expected: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            unacknowledged: 0,
            acknowledge_at: None,
            acknowledge_now: false,
        }
    }

    /// The next number that we expect.
    pub(crate) fn expected(&self) -> u64 {
        self.expected
    }

    /// Where the frame `number` of `size` bytes belongs. An honest sender keeps to the bounds, so that everything else is
    /// [`OutsideWindow`].
    pub(crate) fn place(&self, number: u64, size: usize) -> Result<Place, OutsideWindow> {
        if number == self.expected
            || planted::is(Bug::DeliversEarly) && number > self.expected
            || planted::is(Bug::DeliversTwice) && number < self.expected
        {
            return Ok(Place::Next);
        }
        if number < self.expected || self.early.contains_key(&number) {
            return Ok(Place::Repeated);
        }
        let distance = number - self.expected;
        let fits = self.early_bytes + size <= MAX_IN_FLIGHT_BYTES;
        if distance >= MAX_IN_FLIGHT_FRAMES || !fits {
            return Err(OutsideWindow);
        }
        Ok(Place::Early)
    }

    /// Keeps a frame that came early.
    pub(crate) fn keep(&mut self, number: u64, frame: Vec<u8>) {
        self.early_bytes += frame.len();
        self.early.insert(number, frame);
    }

    /// The expected frame was processed; gives the one after it when it is here already.
    pub(crate) fn advance(&mut self) -> Option<Vec<u8>> {
        self.expected += 1;
        let frame = self.early.remove(&self.expected)?;
        self.early_bytes -= frame.len();
        Some(frame)
    }

    /// An acknowledgement is owed for a frame that came, a repeated one included: its sender has not heard of the first.
    pub(crate) fn owe(&mut self, now: Duration) {
        self.unacknowledged += 1;
        self.acknowledge_at.get_or_insert(now + ACKNOWLEDGE_AFTER);
        if self.unacknowledged >= ACKNOWLEDGE_EVERY {
            self.owe_now();
        }
    }

    /// The acknowledgement is sent without waiting.
    pub(crate) fn owe_now(&mut self) {
        self.acknowledge_now = true;
    }

    /// Whether an acknowledgement has to leave by itself.
    pub(crate) fn owes_now(&self) -> bool {
        self.acknowledge_now
    }

    /// The number to acknowledge with; it leaves with the frame that is being made.
    pub(crate) fn acknowledge(&mut self) -> u64 {
        self.unacknowledged = 0;
        self.acknowledge_at = None;
        self.acknowledge_now = false;
        if planted::is(Bug::AcknowledgesTheGap) {
            return self.expected + self.early.len() as u64;
        }
        self.expected
    }

    /// When an acknowledgement has to leave by itself.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.acknowledge_at.filter(|_| !self.acknowledge_now)
    }

    /// Notes that time has passed.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        self.acknowledge_now |= self.acknowledge_at.is_some_and(|at| at <= now);
    }

    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.early.len(), self.early_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A window with so many frames of 1,000 bytes, sent at 0.
    fn sent(count: u32) -> SendWindow {
        let mut window = SendWindow { congestion: Congestion::wide(), ..SendWindow::new() };
        (0..count).for_each(|tag| window.push(ms(0), tag, vec![], vec![tag as u8], 1000));
        window
    }

    fn due(window: &mut SendWindow, now: Duration) -> Vec<u8> {
        std::iter::from_fn(|| window.take_due(now, |_, _| Err(())).unwrap()).flatten().collect()
    }

    #[test]
    fn the_window_is_closed_to_bulk_first_and_to_control_last() {
        let room =
            |window: &SendWindow| [Class::Control, Class::Interactive, Class::Bulk].map(|class| window.room(class));
        // No frame with what can wait is larger than a quarter of what the line carries.
        assert_eq!(room(&sent(0)), [196_608, 49_152, 49_152]);
        assert_eq!(room(&sent(140)), [56_608, 32_032, 7_456]);
        assert_eq!(room(&sent(160)), [36_608, 12_032, 0]);
        assert_eq!(room(&sent(190)), [6_608, 0, 0]);
        let mut crumbs = sent(0);
        for (count, open) in
            [(191, [true; 3]), (192, [true, true, false]), (224, [true, false, false]), (256, [false; 3])]
        {
            while crumbs.frames.len() < count {
                crumbs.push(ms(0), 0, vec![], vec![1], 1);
            }
            assert_eq!(room(&crumbs).map(|room| room > 0), open, "{count} frames");
        }
    }

    #[test]
    fn the_wait_follows_the_round_trip_within_its_bounds_and_doubles() {
        let mut window = sent(1);
        assert_eq!(window.timeout(), Some(FIRST_WAIT), "nothing is known yet");
        window.acknowledge(ms(10), 1).unwrap();
        assert_eq!(window.timeout(), None);
        window.push(ms(10), 0, vec![], vec![1], 1);
        assert_eq!(window.timeout(), Some(ms(10) + ms(10) + MIN_WAIT), "beyond the round trip");
        let mut waits = Vec::new();
        let mut now = ms(10);
        for _ in 0..6 {
            let timeout = window.timeout().unwrap();
            waits.push((timeout - now).as_millis());
            now = timeout;
            window.handle_timeout(now);
            assert_eq!(window.timeout(), None, "while a frame waits to be written nothing is overdue");
            assert!(!due(&mut window, now).is_empty());
        }
        assert_eq!(waits, [210, 420, 840, 1680, 2000, 2000]);
        // 1 s of round trip: srtt + 4·rttvar is beyond the bound.
        let mut slow = sent(1);
        slow.acknowledge(ms(1000), 1).unwrap();
        slow.push(ms(1000), 0, vec![], vec![1], 1);
        assert_eq!(slow.timeout(), Some(ms(1000) + MAX_WAIT));
    }

    #[test]
    fn a_frame_sent_twice_tells_nothing_of_the_round_trip() {
        let mut window = sent(1);
        window.resend_all(Duration::MAX);
        assert_eq!(due(&mut window, ms(900)), [0]);
        window.acknowledge(ms(901), 1).unwrap();
        assert!(window.round_trip.measured.is_none());
    }

    #[test]
    fn a_timeout_asks_with_one_frame_and_each_answer_brings_twice_as_many() {
        let mut window = sent(20);
        window.handle_timeout(ms(1000));
        assert_eq!(due(&mut window, ms(1000)), [0]);
        window.acknowledge(ms(1010), 1).unwrap();
        assert_eq!(due(&mut window, ms(1010)), [1, 2]);
        window.acknowledge(ms(1020), 3).unwrap();
        assert_eq!(due(&mut window, ms(1020)), [3, 4, 5, 6]);
        // What was sent after the timeout is not suspect.
        window.push(ms(1025), 20, vec![], vec![20], 1000);
        window.acknowledge(ms(1030), 7).unwrap();
        assert_eq!(due(&mut window, ms(1030)), (7..15).collect::<Vec<u8>>());
        window.acknowledge(ms(1040), 15).unwrap();
        assert_eq!(due(&mut window, ms(1040)), (15..20).collect::<Vec<u8>>());
        window.acknowledge(ms(1050), 21).unwrap();
        assert!(window.recovery.is_none() && window.in_flight() == (0, 0));
    }

    #[test]
    fn resume_resends_what_was_sent_before_it_and_a_tag_one_frame() {
        let mut window = sent(3);
        window.push(ms(50), 7, vec![], vec![7], 1);
        window.resend_tag(1);
        window.resend_tag(99);
        assert_eq!(due(&mut window, ms(60)), [1]);
        window.resend_all(ms(50));
        assert_eq!(due(&mut window, ms(70)), [0, 2], "1 and 7 were sent later");
    }

    #[test]
    fn a_frame_that_is_never_accepted_makes_the_session_hopeless_unless_the_path_is_new() {
        let mut window = sent(1);
        for _ in 0..MAX_RESENDS {
            assert!(!window.is_hopeless());
            window.resend_all(Duration::MAX);
            due(&mut window, ms(1));
        }
        assert!(window.is_hopeless());
        window.forgive(ms(2));
        assert!(!window.is_hopeless());
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut window = sent(3);
        assert_eq!(window.acknowledge(ms(1), 4), Err(OutsideWindow));
        assert_eq!(window.acknowledge(ms(1), 3), Ok(true));
        assert_eq!(window.acknowledge(ms(1), 2), Ok(false), "an old acknowledgement came late");
    }

    #[test]
    fn frames_are_delivered_in_order_and_kept_within_bounds() {
        let mut window = ReceiveWindow::new();
        assert_eq!(window.place(0, 10), Ok(Place::Next));
        assert_eq!(window.place(255, MAX_IN_FLIGHT_BYTES), Ok(Place::Early));
        assert_eq!(window.place(256, 1), Err(OutsideWindow));
        assert_eq!(window.place(1, MAX_IN_FLIGHT_BYTES + 1), Err(OutsideWindow));
        window.keep(2, vec![2; 1000]);
        window.keep(1, vec![1; 1000]);
        assert_eq!(window.place(2, 1), Ok(Place::Repeated), "sealed anew with other keys");
        assert_eq!(window.place(3, MAX_IN_FLIGHT_BYTES - 1999), Err(OutsideWindow));
        assert_eq!(window.advance(), Some(vec![1; 1000]));
        assert_eq!(window.advance(), Some(vec![2; 1000]));
        assert_eq!(window.advance(), None);
        assert_eq!((window.expected(), window.kept()), (3, (0, 0)));
        assert_eq!(window.place(2, 1), Ok(Place::Repeated));
    }

    proptest! {
        /// Whatever happens, the sums are right and no timer stands still.
        #[test]
        fn the_window_keeps_its_books(steps in prop::collection::vec((0_u8..6, 0_u64..300), 0..200)) {
            let mut window = SendWindow::new();
            let mut now = ms(0);
            for (what, number) in steps {
                now += ms(number);
                match what {
                    0 | 1 if window.room(Class::Control) >= 1000 => window.push(now, number as u32, vec![], vec![1], 1 + number as usize),
                    2 => drop(window.acknowledge(now, number)),
                    3 => window.handle_timeout(now),
                    4 => drop(window.take_due(now, |_, _| Err(())).unwrap()),
                    5 => window.resend_all(now),
                    _ => window.resend_tag(number as u32),
                }
                prop_assert_eq!(window.bytes, window.frames.iter().map(|frame| frame.size).sum::<usize>());
                prop_assert_eq!(window.due, window.frames.iter().filter(|frame| frame.due).count());
                prop_assert!(window.frames.len() <= 256 && window.bytes <= MAX_IN_FLIGHT_BYTES);
                prop_assert_eq!(window.timeout().is_some(), !window.frames.is_empty() && window.due == 0);
            }
        }
    }
}
