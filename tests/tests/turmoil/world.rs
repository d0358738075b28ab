//! One world: a relay, a machine, its phones, the weather between them, and the book in which everybody writes down what they insist on.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use happy_relay::{App as Pages, Config, Relay};
use tokio::sync::{Notify, watch};
use turmoil::net::TcpListener;
use turmoil::{Builder, Sim};

use crate::device::{self, Disk, Seen};
use crate::rough::{Rough, Scissors};
use crate::seeded::Dice;

pub type Counts = BTreeMap<&'static str, u64>;

/// The relay in logins. Devices believe in connections without TLS only on their own machine; who dials it comes to the host `relay`.
pub const RELAY: &str = "127.0.0.1:3005";
pub const PORT: u16 = 3005;

/// After the last fault everything must be well within this time (the sans-IO simulation gives as much).
const CALM: Duration = Duration::from_secs(75);
/// Then a call through each link must be answered within this time: a path that died in the last moment of the storm, while nobody said
/// anything, is noticed after 20 s (`PROTOCOL 9`, Liveness), and calls of one device follow one another.
pub const PROBE: Duration = Duration::from_secs(30);
/// And when all are told to end they must have ended, and the relay must know it, within this time.
const ENDING: Duration = Duration::from_secs(15);
/// Lines of the trace that a failure is printed with.
const LAST_LINES: usize = 60;

/// What everybody does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Storm,
    Calm,
    /// Each device calls each of its peers.
    Probe,
    /// Each says goodbye.
    End,
}

pub struct World {
    pub now: Cell<Duration>,
    pub phase: watch::Sender<Phase>,
    pub dice: RefCell<Dice>,
    /// What the devices have on their disks; the machine is the first.
    pub disks: Vec<RefCell<Disk>>,
    /// The process that runs on each device now.
    pub apps: RefCell<Vec<Option<Rc<RefCell<Seen>>>>>,
    /// Of each device the connections, at its end and at the relay's.
    pub scissors: Vec<[Arc<Scissors>; 2]>,
    pub book: RefCell<Book>,
    relay: RefCell<Option<Relay>>,
    /// The relay is asked to start anew in good order.
    restart_relay: Notify,
}

#[derive(Default)]
pub struct Book {
    pub counts: Counts,
    /// How often each call ran.
    pub ran: BTreeMap<Vec<u8>, u32>,
    /// Whoever waits for a driver, and since when.
    waiting: BTreeMap<u64, (usize, &'static str, Duration)>,
    next_wait: u64,
    /// Who is through with the present phase.
    pub done: u32,
    hash: DefaultHasher,
    pub trace: Vec<String>,
}

/// Somebody waits for a driver. Dropped when the wait ends, also by the death of the process.
pub struct Waits {
    world: Rc<World>,
    number: u64,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.world.book.borrow_mut().waiting.remove(&self.number);
    }
}

/// What a world came to.
pub struct Outcome {
    pub counts: Counts,
    pub hash: u64,
    pub trace: Vec<String>,
}

pub fn host(device: usize) -> &'static str {
    ["machine", "phone-1", "phone-2", "phone-3"][device]
}

impl World {
    fn new(seed: u64) -> Rc<Self> {
        let mut dice = Dice::new(seed);
        let devices = 2 + dice.below(3) as usize;
        Rc::new(Self {
            now: Cell::default(),
            phase: watch::Sender::new(Phase::Storm),
            disks: Disk::cast(devices).into_iter().map(RefCell::new).collect(),
            dice: RefCell::new(dice),
            apps: RefCell::new((0..devices).map(|_| None).collect()),
            scissors: (0..devices).map(|_| Default::default()).collect(),
            book: RefCell::default(),
            relay: RefCell::default(),
            restart_relay: Notify::new(),
        })
    }

    pub fn count(&self, what: &'static str) {
        *self.book.borrow_mut().counts.entry(what).or_default() += 1;
    }

    pub fn is_stormy(&self) -> bool {
        *self.phase.borrow() == Phase::Storm
    }

    /// Writes down what happened; two runs of a seed must write the same.
    pub fn note(&self, who: &str, what: &str) {
        let line = format!("{:>9.3} {who}: {what}", self.now.get().as_secs_f64());
        let mut book = self.book.borrow_mut();
        line.hash(&mut book.hash);
        book.trace.push(line);
    }

    pub fn waits(self: &Rc<Self>, device: usize, what: &'static str) -> Waits {
        let mut book = self.book.borrow_mut();
        let number = book.next_wait;
        book.next_wait += 1;
        book.waiting.insert(number, (device, what, self.now.get()));
        Waits { world: self.clone(), number }
    }

    pub fn wakes_relay(&self) {
        self.restart_relay.notify_one();
    }

    /// Why the world is not well yet.
    fn trouble(&self) -> Option<String> {
        let apps = self.apps.borrow();
        let apps: Option<Vec<&Rc<RefCell<Seen>>>> = apps.iter().map(Option::as_ref).collect();
        let Some(apps) = apps else { return Some("a device does not run".into()) };
        for phone in &apps[1..] {
            if let Some(trouble) = apps[0].borrow().trouble_with(&phone.borrow()) {
                return Some(trouble);
            }
        }
        let book = self.book.borrow();
        let (device, what, since) = book.waiting.values().next()?;
        Some(format!("{} waits in {what} since {:.3} s", host(*device), since.as_secs_f64()))
    }
}

/// The relay's process: serves, and starts anew when it is asked to.
async fn serve(world: Rc<World>) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    loop {
        let relay = Relay::new(Config { names: vec![RELAY.into()], app: Pages::Off, ..Config::default() })?;
        *world.relay.borrow_mut() = Some(relay.clone());
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = world.restart_relay.notified() => break,
            };
            let (tcp, from) = accepted?;
            let device = (0..world.disks.len()).find(|device| turmoil::lookup(host(*device)) == from.ip());
            let scissors = device.map(|device| world.scissors[device][1].clone()).unwrap_or_default();
            let dice = Dice::new(world.dice.borrow_mut().next());
            let (relay, stream) = (relay.clone(), Rough::new(tcp, scissors, dice));
            tokio::spawn(async move { relay.serve(stream).await });
        }
        relay.shutdown(Duration::from_secs(2)).await;
    }
}

/// What the weather does to one device's way to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Fine,
    Cut,
    /// Nothing arrives at the relay, or nothing comes from it.
    Deaf {
        to_relay: bool,
    },
    Stalled,
}

/// Runs the world: the storm, the calm after it, and the end.
struct Run<'a> {
    world: Rc<World>,
    sim: Sim<'a>,
    /// Of each device, and when it changes.
    weather: Vec<(Weather, Duration)>,
    /// Hosts that are down, the relay last, and when they come back.
    down: Vec<Option<Duration>>,
    panicked: &'a dyn Fn() -> Option<String>,
}

/// Runs a seed on this thread, whose randomness must have been seeded. `panicked` tells what a task of this thread has panicked with.
pub fn run(seed: u64, panicked: &dyn Fn() -> Option<String>) -> Result<Outcome, String> {
    let world = World::new(seed);
    let outcome = Run::new(&world, panicked).whole();
    let mut book = world.book.borrow_mut();
    let trace = std::mem::take(&mut book.trace);
    match outcome {
        Ok(()) => Ok(Outcome { counts: book.counts.clone(), hash: book.hash.finish(), trace }),
        Err(why) => {
            let lines = if std::env::var_os("HAPPY_SIM_WHOLE_TRACE").is_some() { usize::MAX } else { LAST_LINES };
            let last = &trace[trace.len().saturating_sub(lines)..];
            Err(format!("{why}\nthe last that happened:\n{}", last.join("\n")))
        }
    }
}

impl<'a> Run<'a> {
    fn new(world: &Rc<World>, panicked: &'a dyn Fn() -> Option<String>) -> Self {
        let mut dice = world.dice.borrow_mut();
        let tick = Duration::from_millis(dice.pick(&[2, 5, 5, 10]));
        let mut sim = Builder::new()
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .simulation_duration(Duration::from_secs(1_000_000))
            .tick_duration(tick)
            .min_message_latency(Duration::from_millis(dice.below(20)))
            .max_message_latency(Duration::from_millis(20 + dice.below(300)))
            .tcp_capacity(dice.pick(&[16, 64, 64]))
            .rng_seed(dice.next())
            .enable_random_order()
            .build();
        drop(dice);
        let relay = world.clone();
        sim.host("relay", move || serve(relay.clone()));
        let devices = world.disks.len();
        for me in 0..devices {
            let world = world.clone();
            sim.host(host(me), move || device::live(world.clone(), me));
        }
        Self {
            world: world.clone(),
            sim,
            weather: vec![(Weather::Fine, Duration::MAX); devices],
            down: vec![None; devices + 1],
            panicked,
        }
    }

    fn whole(mut self) -> Result<(), String> {
        self.storm()?;
        self.clear_up();
        self.world.phase.send_replace(Phase::Calm);
        let calm_since = self.world.now.get();
        self.until("all is well after the storm", CALM, World::trouble)?;
        let took = (self.world.now.get() - calm_since).as_secs();
        self.world.count(match took {
            0..5 => "well within 5 s",
            5..25 => "well within 25 s",
            25..45 => "well within 45 s",
            _ => "well within 75 s",
        });
        for (phase, within) in [(Phase::Probe, PROBE), (Phase::End, ENDING)] {
            self.world.book.borrow_mut().done = 0;
            self.world.phase.send_replace(phase);
            let devices = self.world.disks.len() as u32;
            self.until("all are through", within + Duration::from_secs(1), |world| {
                let done = world.book.borrow().done;
                (done < devices).then(|| format!("{done} of {devices} are through with {phase:?}"))
            })?;
        }
        self.until("the relay forgets who has left", ENDING, |world| {
            let left = world.relay.borrow().as_ref().map_or(0, Relay::connections);
            (left > 0).then(|| format!("the relay counts {left} connections"))
        })?;
        let seconds = self.world.now.get().as_secs();
        *self.world.book.borrow_mut().counts.entry("virtual seconds").or_default() += seconds;
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.world.now.set(self.sim.elapsed());
        let stepped = self.sim.step();
        match (self.panicked)() {
            Some(panic) => Err(panic),
            None => stepped.map(drop).map_err(|error| format!("a host ended: {error}")),
        }
    }

    fn until(
        &mut self,
        what: &str,
        within: Duration,
        trouble: impl Fn(&World) -> Option<String>,
    ) -> Result<(), String> {
        let deadline = self.sim.elapsed() + within;
        loop {
            // Looked at ten times a second, for it takes longer than a step.
            for _ in 0..20 {
                self.step()?;
            }
            match trouble(&self.world) {
                None => return Ok(()),
                Some(why) if self.sim.elapsed() > deadline => {
                    return Err(format!("{what}: not within {} s, for {why}", within.as_secs()));
                }
                Some(_) => {}
            }
        }
    }

    fn storm(&mut self) -> Result<(), String> {
        let (ends, gap) = {
            let mut dice = self.world.dice.borrow_mut();
            let seconds = dice.pick(&[20, 40, 90]);
            (Duration::from_secs(seconds), Duration::from_millis(dice.pick(&[800, 3000, 8000])))
        };
        let mut next = Duration::from_millis(500);
        while self.sim.elapsed() < ends {
            let now = self.sim.elapsed();
            self.change_back(now);
            if next <= now {
                next = now + self.world.dice.borrow_mut().within(gap);
                self.fault(now);
            }
            self.step()?;
        }
        Ok(())
    }

    /// Everything that has had its time is over.
    fn change_back(&mut self, now: Duration) {
        for device in 0..self.weather.len() {
            if self.weather[device].1 <= now {
                self.mend(device);
            }
        }
        for at in 0..self.down.len() {
            if self.down[at].is_some_and(|until| until <= now) {
                self.down[at] = None;
                self.sim.bounce(self.name(at));
                self.world.note("weather", &format!("{} is back", self.name(at)));
            }
        }
    }

    fn clear_up(&mut self) {
        self.weather.iter_mut().for_each(|(_, until)| *until = Duration::ZERO);
        self.down.iter_mut().flatten().for_each(|until| *until = Duration::ZERO);
        self.change_back(Duration::ZERO);
        for device in 0..self.weather.len() {
            // A slow line is no fault that ends; here it would only take the time of the calm.
            self.sim.set_link_max_message_latency(host(device), "relay", Duration::from_millis(50));
        }
        self.world.note("weather", "calm");
    }

    fn name(&self, at: usize) -> &'static str {
        if at == self.weather.len() { "relay" } else { host(at) }
    }

    fn mend(&mut self, device: usize) {
        match self.weather[device].0 {
            Weather::Fine => {}
            Weather::Cut | Weather::Deaf { .. } => self.sim.repair(host(device), "relay"),
            Weather::Stalled => self.sim.release(host(device), "relay"),
        }
        if self.weather[device].0 != Weather::Fine {
            self.world.note("weather", &format!("{} is mended", host(device)));
        }
        self.weather[device] = (Weather::Fine, Duration::MAX);
    }

    fn fault(&mut self, now: Duration) {
        let world = self.world.clone();
        let mut dice = world.dice.borrow_mut();
        let device = dice.below(self.weather.len() as u64) as usize;
        let lasts = dice.mostly_short(Duration::from_secs(25));
        let what = match dice.below(14) {
            0 | 1 => self.turns(device, Weather::Cut, now + lasts),
            2 | 3 => {
                let to_relay = dice.chance(500);
                self.turns(device, Weather::Deaf { to_relay }, now + lasts)
            }
            4..=6 => self.turns(device, Weather::Stalled, now + lasts),
            7 | 8 => {
                let [near, far] = &world.scissors[device];
                match dice.below(3) {
                    0 => near.cut(),
                    1 => far.cut(),
                    _ => [near, far].into_iter().for_each(|end| end.cut()),
                }
                "fault: connection reset"
            }
            9 => {
                let noticed = dice.next();
                self.crash(self.weather.len(), now + lasts / 4, noticed, "fault: relay killed")
            }
            10 if self.down.last() == Some(&None) => {
                world.wakes_relay();
                "fault: relay restarted in order"
            }
            11 | 12 => {
                let noticed = dice.next();
                self.crash(device, now + lasts / 2, noticed, "fault: process killed")
            }
            _ => {
                let latency = Duration::from_millis(dice.pick(&[5, 100, 400, 1200]));
                self.sim.set_link_max_message_latency(host(device), "relay", latency + Duration::from_millis(20));
                "fault: latency changed"
            }
        };
        drop(dice);
        world.count(what);
        world.note("weather", &format!("{what}, {} for {lasts:?}", host(device)));
    }

    fn turns(&mut self, device: usize, weather: Weather, until: Duration) -> &'static str {
        self.mend(device);
        self.weather[device] = (weather, until);
        let device = host(device);
        match weather {
            Weather::Fine => "nothing",
            Weather::Cut => {
                self.sim.partition(device, "relay");
                "fault: partition"
            }
            Weather::Deaf { to_relay: true } => {
                self.sim.partition_oneway(device, "relay");
                "fault: one way lost to the relay"
            }
            Weather::Deaf { to_relay: false } => {
                self.sim.partition_oneway("relay", device);
                "fault: one way lost from the relay"
            }
            Weather::Stalled => {
                self.sim.hold(device, "relay");
                "fault: stalled"
            }
        }
    }

    /// Kills a host. A runtime drops its tasks in an order that follows from their numbers, which all worlds of a process share, so the goodbyes of
    /// their sockets would not follow from the seed: none gets out, and `noticed` decides whose other ends break at once instead.
    fn crash(&mut self, at: usize, until: Duration, noticed: u64, what: &'static str) -> &'static str {
        if self.down[at].is_some() {
            return "already dead";
        }
        let is_relay = at == self.weather.len();
        let devices = if is_relay { 0..at } else { at..at + 1 };
        for device in devices.clone() {
            self.mend(device);
            self.sim.partition(host(device), "relay");
        }
        self.sim.crash(self.name(at));
        for device in devices {
            self.sim.repair(host(device), "relay");
            if noticed >> device & 1 == 1 {
                self.world.scissors[device][usize::from(!is_relay)].cut();
            }
        }
        match self.world.apps.borrow_mut().get_mut(at) {
            Some(app) => *app = None,
            None => *self.world.relay.borrow_mut() = None,
        }
        self.down[at] = Some(until);
        what
    }
}
