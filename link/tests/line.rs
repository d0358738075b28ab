//! What waits behind what on a slow line (`PROTOCOL 9`, "In flight"): a device sends as much as it can, and now and then something urgent.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

mod model;

use std::collections::VecDeque;
use std::time::Duration;

use happy_link::{Class, Endpoint, Event, Login, Peer, SendError, Side};
use happy_wire::relay::{FromRelay, ToRelay};
use model::lone::{SECRETS, id};
use model::ms;
use model::null::NullSuite;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// Bytes that TCP, TLS and the websocket add to a frame, about.
const AROUND: usize = 80;

/// One direction: first in, first out, and no end to its queue.
struct Line {
    /// Bytes in a second.
    rate: f64,
    delay: Duration,
    free: Duration,
    on_the_way: VecDeque<(Duration, Vec<u8>)>,
    carried: usize,
    /// Each frame takes up to so much longer, and none overtakes another.
    trembles: Duration,
    rng: ChaCha8Rng,
}

impl Line {
    fn new(megabits: f64, delay: Duration) -> Self {
        Self {
            rate: megabits * 125_000.0,
            delay,
            free: Duration::ZERO,
            on_the_way: VecDeque::new(),
            carried: 0,
            trembles: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(7),
        }
    }

    fn send(&mut self, now: Duration, frame: Vec<u8>) {
        let takes = Duration::from_secs_f64((frame.len() + AROUND) as f64 / self.rate);
        self.free = self.free.max(now) + takes;
        let late = self.trembles.mul_f64(f64::from(self.rng.next_u32()) / f64::from(u32::MAX));
        let last = self.on_the_way.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.on_the_way.push_back(((self.free + self.delay + late).max(last), frame));
    }

    fn next(&self) -> Option<Duration> {
        self.on_the_way.front().map(|(at, _)| *at)
    }
}

type Device = Endpoint<ChaCha8Rng, NullSuite>;

/// A machine (0) that sends, and a phone (1).
struct Pair {
    now: Duration,
    devices: [Device; 2],
    /// From each device to the other.
    lines: [Line; 2],
    class: Class,
    channel: Option<u32>,
    /// When the machine says its next urgent word.
    urgent_at: Duration,
    /// How long each urgent word took, and when it was said.
    delays: Vec<(Duration, Duration)>,
}

impl Pair {
    fn new(class: Class, megabits: f64, round_trip: Duration) -> Self {
        let device = |me: u8, other: u8, side| {
            let suite = NullSuite { device: id(me) };
            let login = Login::Device { epoch: 1 };
            let rng = ChaCha8Rng::seed_from_u64(me.into());
            let mut device = Endpoint::with_suite(suite, "relay.example".to_owned(), login, rng, Duration::ZERO);
            device.add_peer(Peer { record: id(other), side, secrets: SECRETS }).unwrap();
            device.handle_connected(Duration::ZERO);
            device
        };
        let mut pair = Self {
            now: Duration::ZERO,
            devices: [device(1, 2, Side::Responder), device(2, 1, Side::Initiator(id(1)))],
            lines: [0, 1].map(|_| Line::new(megabits, round_trip / 2)),
            class,
            channel: None,
            urgent_at: Duration::ZERO,
            delays: Vec::new(),
        };
        for (me, other) in [(0, 2), (1, 1)] {
            pair.relay_says(me, &FromRelay::Challenge { nonce: [7; 32] });
            while pair.devices[me].poll_transmit(Duration::ZERO).is_some() {}
            pair.relay_says(me, &FromRelay::Welcome { max_payload: 65_536, queue_bytes: 229_376, host: None });
            pair.relay_says(me, &FromRelay::Presence { device: id(other), here: true });
        }
        pair
    }

    fn relay_says(&mut self, to: usize, frame: &FromRelay<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.devices[to].handle_frame(self.now, &bytes);
    }

    fn run_until(&mut self, end: Duration) {
        while self.now < end {
            self.talk();
            for me in 0..2 {
                while let Some(frame) = self.devices[me].poll_transmit(self.now) {
                    self.lines[me].send(self.now, frame);
                }
            }
            let timers = self.devices.iter().filter_map(Endpoint::poll_timeout);
            let arrivals = self.lines.iter().filter_map(Line::next);
            let next = timers.chain(arrivals).chain(self.channel.map(|_| self.urgent_at)).min().unwrap();
            self.now = self.now.max(next).min(end);
            for from in 0..2 {
                while self.lines[from].next().is_some_and(|at| at <= self.now) {
                    let (_, frame) = self.lines[from].on_the_way.pop_front().unwrap();
                    self.lines[from].carried += frame.len() + AROUND;
                    if let Ok(ToRelay::Send { payload, .. }) = ToRelay::decode(&frame) {
                        let from_id = id(from as u8 + 1);
                        self.relay_says(1 - from, &FromRelay::Deliver { from: from_id, rendezvous: false, payload });
                    }
                }
            }
            for device in &mut self.devices {
                device.handle_timeout(self.now);
            }
        }
    }

    /// What the applications do.
    fn talk(&mut self) {
        let (machine, phone) = (id(1), id(2));
        while let Some(event) = self.devices[1].poll_event() {
            match event {
                Event::Message { channel, bytes, .. } => {
                    self.devices[1].consumed(&machine, channel, bytes.len());
                }
                Event::Notice { body, .. } => {
                    let said = Duration::from_nanos(u64::from_be_bytes(body.try_into().unwrap()));
                    self.delays.push((self.now - said, said));
                }
                Event::PairSecrets { session, .. } => self.devices[1].pair_secrets_stored(self.now, &machine, &session),
                _ => {}
            }
        }
        while let Some(event) = self.devices[0].poll_event() {
            match event {
                Event::LinkUp { .. } => {
                    self.channel = self.devices[0].open_channel(&phone, self.class, "much").ok();
                    self.urgent_at = self.now;
                }
                Event::PairSecrets { session, .. } => self.devices[0].pair_secrets_stored(self.now, &phone, &session),
                _ => {}
            }
        }
        let Some(channel) = self.channel else { return };
        while self.devices[0].send(&phone, channel, &[1; 10_000]) != Err(SendError::WouldBlock) {}
        if self.urgent_at <= self.now {
            let said = self.now.as_nanos() as u64;
            self.devices[0].emit(&phone, said.to_be_bytes().to_vec()).unwrap();
            self.urgent_at = self.now + ms(37);
        }
    }
}

/// The worst that an urgent word was delayed by what stood before it, among those that were said from then on.
fn worst(pair: &Pair, from: Duration) -> Duration {
    let late = pair.delays.iter().filter(|(_, said)| *said >= from).map(|(delay, _)| *delay);
    late.max().unwrap().saturating_sub(pair.lines[0].delay)
}

/// How much of the line was used from one moment to the other, by everything.
fn used(pair: &mut Pair, from: Duration, to: Duration) -> f64 {
    pair.run_until(from);
    let before = pair.lines[0].carried;
    pair.run_until(to);
    (pair.lines[0].carried - before) as f64 / (to - from).as_secs_f64() / pair.lines[0].rate
}

#[test]
fn what_is_urgent_is_delayed_by_no_more_than_a_round_trip_and_50_ms_on_a_line_of_1_mbit() {
    for class in [Class::Bulk, Class::Interactive] {
        for round_trip in [0, 1, 5, 10, 20, 50, 100, 200, 400] {
            let mut pair = Pair::new(class, 1.0, ms(round_trip));
            let used = used(&mut pair, ms(15_000), ms(60_000));
            let worst = worst(&pair, Duration::ZERO);
            let said = format!("{class:?}, {round_trip} ms: worst {worst:?}, {:.0} % of the line", used * 100.0);
            println!("{said}");
            // The frame itself takes 2 ms.
            assert!(worst <= ms(round_trip + 52), "{said}");
            assert!(used >= 0.85, "{said}");
            assert!(pair.delays.len() > 1_500, "{said}");
        }
    }
}

#[test]
fn a_fast_line_is_filled_within_a_second() {
    for (megabits, round_trip) in [(2.0, 50), (8.0, 20), (8.0, 100), (50.0, 10), (100.0, 1), (1000.0, 1), (1000.0, 50)]
    {
        let mut pair = Pair::new(Class::Bulk, megabits, ms(round_trip));
        let used = used(&mut pair, ms(2_000), ms(4_000));
        // Three quarters of 192 KiB are for bulk, and acknowledgements come when most of them have left.
        let takes = 147_456.0 / pair.lines[0].rate;
        let window = takes / (takes + round_trip as f64 / 1_000.0);
        let said = format!(
            "{megabits} Mbit/s, {round_trip} ms: {:.0} % of the line, window {:.0} %",
            used * 100.0,
            window * 100.0
        );
        println!("{said}");
        assert!(used >= 0.85 * window.min(0.95), "{said}");
    }
}

#[test]
fn a_line_that_changes_is_followed() {
    let mut pair = Pair::new(Class::Bulk, 1.0, ms(50));
    pair.run_until(ms(10_000));
    for line in &mut pair.lines {
        line.rate = 1_000_000.0;
    }
    let fast = used(&mut pair, ms(15_000), ms(20_000));
    assert!(fast >= 0.8, "{:.0} % of the faster line", fast * 100.0);
    for line in &mut pair.lines {
        line.rate = 125_000.0;
    }
    let slow = used(&mut pair, ms(25_000), ms(30_000));
    assert!(slow >= 0.8, "{:.0} % of the slow line again", slow * 100.0);
    assert!(worst(&pair, ms(25_000)) <= ms(102), "{:?}", worst(&pair, ms(25_000)));
    // The way is longer from now on: what looks like a queue is none.
    for line in &mut pair.lines {
        line.delay = ms(150);
    }
    let long = used(&mut pair, ms(50_000), ms(60_000));
    assert!(long >= 0.8, "{:.0} % of the longer line", long * 100.0);
    assert!(worst(&pair, ms(50_000)) <= ms(352), "{:?}", worst(&pair, ms(50_000)));
}

#[test]
fn a_line_that_trembles_is_used() {
    for tremble in [10, 30, 60] {
        let mut pair = Pair::new(Class::Bulk, 4.0, ms(60));
        pair.lines[0].trembles = ms(tremble);
        pair.lines[1].trembles = ms(tremble);
        let used = used(&mut pair, ms(10_000), ms(40_000));
        println!("{tremble} ms: {:.0} % of the line", used * 100.0);
        assert!(used >= 0.6, "{tremble} ms: {:.0} % of the line", used * 100.0);
    }
}
