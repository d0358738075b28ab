//! What a run will meet, as data: made from a seed, and made smaller when the run fails.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use happy_link::Suite;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::app::Act;
use super::{CALM, Happens, PeerOf, Weather, World, below, chance, ms};

/// How long everything must be in order after the last fault, ms.
const RECOVERY: u64 = 75_000;
/// A device sleeps for up to a day.
const DAY: u64 = 24 * 3600 * 1000;

/// Something bad that happens to one device, or to the relay.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The connection ends, and the device sees it at once.
    Cut { device: usize },
    /// Only the relay sees that the connection is gone. The device is told later, or has to find out.
    HalfOpen { device: usize, noticed: Option<Duration> },
    /// The device has a new connection while the relay still holds the old one.
    Displaced { device: usize },
    /// The relay loses everything, and comes back.
    RelayRestart { down: Duration },
    /// The process is killed, and is back before the relay has noticed.
    QuickRestart { device: usize },
    /// The process is killed and started again.
    Restart { device: usize },
    /// Nothing passes in one direction.
    Stall { device: usize, up: bool, length: Duration },
    /// The device was asleep: its clock is later by that much from one event to the next.
    Sleep { device: usize, length: Duration },
    /// The relay says something that only a later version knows.
    Skew { device: usize },
}

impl Fault {
    /// Whom it hits.
    pub fn device(&self) -> usize {
        match *self {
            Fault::Cut { device }
            | Fault::HalfOpen { device, .. }
            | Fault::Displaced { device }
            | Fault::QuickRestart { device }
            | Fault::Restart { device }
            | Fault::Stall { device, .. }
            | Fault::Sleep { device, .. }
            | Fault::Skew { device } => device,
            Fault::RelayRestart { .. } => 0,
        }
    }
}

/// Somebody who uses a device for a while: in its life `boot`, `left` acts from `at` on.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    pub at: u64,
    pub device: usize,
    pub boot: u64,
    pub left: u32,
}

/// Everything that is decided before a run begins.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// One machine, and so many phones.
    pub phones: usize,
    pub weather: Weather,
    pub heavy: bool,
    /// When the weather becomes calm for good, ms.
    pub storm: u64,
    /// When, in ms, and what.
    pub faults: Vec<(u64, Fault)>,
    pub uses: Vec<Use>,
}

fn weather(seed: u64) -> Weather {
    match seed % 6 {
        0 => CALM,
        1 => Weather { loss: 20, delay: 60, ..CALM },
        2 => Weather { loss: 200, repeat: 50, reorder: 200, delay: 150, ..CALM },
        3 => Weather { repeat: 300, reorder: 300, delay: 400, ..CALM },
        4 => Weather { loss: 30, garble: 50, delay: 40, ..CALM },
        _ => Weather { loss: 30, repeat: 30, reorder: 50, garble: 10, lies: 60, delay: 80 },
    }
}

fn fault(rng: &mut ChaCha8Rng, devices: usize) -> Fault {
    let device = below(rng, devices as u64) as usize;
    match below(rng, 20) {
        0..=5 => Fault::Cut { device },
        6..=8 => {
            let noticed = chance(rng, 500).then(|| ms(below(rng, 8000)));
            Fault::HalfOpen { device, noticed }
        }
        9..=11 => Fault::Displaced { device },
        12 => Fault::RelayRestart { down: ms(below(rng, 3000)) },
        13 => Fault::QuickRestart { device },
        14 => Fault::Restart { device },
        15..=17 => Fault::Stall { device, up: chance(rng, 500), length: ms(below(rng, 12_000)) },
        18 => {
            let longest = if chance(rng, 200) { DAY } else { 90_000 };
            Fault::Sleep { device, length: ms(below(rng, longest)) }
        }
        _ => Fault::Skew { device },
    }
}

impl Plan {
    /// A short storm of a few faults in a third of all seeds, which leaves time to get far; a minute of many in the others.
    pub fn of(seed: u64) -> Self {
        Self::with_storm(seed, seed.is_multiple_of(3), 1)
    }

    /// Ten minutes of storm, some eight hundred faults, and a history as long: a fault costs a third of what it costs in [`Plan::of`],
    /// where much of the time is spent on becoming calm.
    pub fn long(seed: u64) -> Self {
        Self::with_storm(seed, false, 10)
    }

    fn with_storm(seed: u64, short: bool, minutes: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x706c_616e);
        let phones = if short { 2 } else { 1 + below(&mut rng, 5) as usize };
        let devices = phones + 1;
        let storm = if short { 30_000 } else { 60_000 * minutes };
        let count = if short { 2 + seed % 7 } else { (40 + below(&mut rng, 80)) * minutes };
        let faults = (0..count).map(|_| (below(&mut rng, storm - 1000), fault(&mut rng, devices))).collect();
        let mut uses = Vec::new();
        for device in 0..devices {
            for _ in 0..3 * minutes {
                uses.push(Use { at: below(&mut rng, storm / 2), device, boot: 0, left: 40 });
            }
            // A device that is restarted goes on with a new life of its own.
            for boot in 1..4 * minutes {
                let at = storm / 2 + below(&mut rng, storm / 3);
                uses.push(Use { at, device, boot, left: 20 });
            }
        }
        Self { seed, phones, weather: weather(seed / 3), heavy: seed % 4 == 3, storm, faults, uses }
    }

    /// The same with few faults and devices, for suites that cost.
    pub fn small(seed: u64) -> Self {
        let mut plan = Self::of(seed * 3);
        plan.phones = 1;
        plan.faults.retain(|(_, fault)| fault.device() < 2);
        plan.uses.retain(|one| one.device < 2);
        plan
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When the link has not kept a promise.
    pub fn run<S: Suite>(&self, make: fn(usize, u64) -> S, peers: fn(usize, usize) -> PeerOf<S>) -> World<S> {
        let mut world = World::new(self.seed, self.phones, self.weather, make, peers);
        world.heavy = self.heavy;
        world.start();
        for (at, fault) in &self.faults {
            world.at(ms(*at), Happens::Fault(*fault));
        }
        for Use { at, device, boot, left } in self.uses.iter().copied() {
            world.at(ms(at), Happens::App { device, boot, what: Act::Random { left } });
        }
        world.at(ms(self.storm), Happens::Calm);
        world.run_until(ms(self.storm + RECOVERY));
        world.check_at_the_end();
        world
    }

    /// The same, with what was wrong as text.
    pub fn try_run<S: Suite>(
        &self,
        make: fn(usize, u64) -> S,
        peers: fn(usize, usize) -> PeerOf<S>,
    ) -> Result<World<S>, String> {
        catch_unwind(AssertUnwindSafe(|| self.run(make, peers))).map_err(|panic| match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast::<&str>().map_or_else(|_| "a panic".to_owned(), |text| (*text).to_owned()),
        })
    }

    /// A plan that fails as well and holds no fault, use or trouble that could be left out.
    pub fn shrink(mut self, fails: impl Fn(&Plan) -> bool) -> Plan {
        loop {
            let before = self.faults.len() + self.uses.len();
            self = shrink_list(self, &fails, |plan| &mut plan.faults);
            self = shrink_list(self, &fails, |plan| &mut plan.uses);
            let parts: [fn(&mut Weather) -> &mut u64; 5] = [
                |weather| &mut weather.loss,
                |weather| &mut weather.repeat,
                |weather| &mut weather.reorder,
                |weather| &mut weather.garble,
                |weather| &mut weather.lies,
            ];
            for part in parts {
                let mut smaller = self.clone();
                *part(&mut smaller.weather) = 0;
                if fails(&smaller) {
                    self = smaller;
                }
            }
            if self.faults.len() + self.uses.len() == before {
                return self;
            }
        }
    }
}

/// Leaves out ever smaller pieces of a list as long as the rest still fails.
fn shrink_list<T: Clone>(mut plan: Plan, fails: &impl Fn(&Plan) -> bool, list: fn(&mut Plan) -> &mut Vec<T>) -> Plan {
    let mut piece = list(&mut plan).len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < list(&mut plan).len() {
            let mut smaller = plan.clone();
            let end = (at + piece).min(list(&mut smaller).len());
            list(&mut smaller).drain(at..end);
            if fails(&smaller) {
                plan = smaller;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    plan
}

/// Adds up what several runs have counted.
pub fn add(sum: &mut BTreeMap<&'static str, u64>, counts: &BTreeMap<&'static str, u64>) {
    counts.iter().for_each(|(what, count)| *sum.entry(what).or_default() += count);
}
