//! A world in one thread and virtual time: devices with an endpoint and an application each, and a relay between them whose network
//! loses, repeats, delays, reorders, cuts and lies.

#![allow(dead_code, reason = "each test file uses its own part of the model")]

pub mod app;
pub mod cast;
pub mod lone;
pub mod null;
pub mod plan;
pub mod relay;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::{Dial, Endpoint, Login, PairSecrets, Peer, Suite};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

use app::App;
use plan::Fault;
use relay::Relay;

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn chance(rng: &mut ChaCha8Rng, per_mille: u64) -> bool {
    rng.next_u64() % 1000 < per_mille
}

pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    rng.next_u64() % bound.max(1)
}

/// How bad the network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Packets lost without a word, per mille.
    pub loss: u64,
    /// Packets that arrive twice.
    pub repeat: u64,
    /// Packets that overtake others.
    pub reorder: u64,
    /// Packets with a flipped bit.
    pub garble: u64,
    /// Old packets, invented ones and forged hints slipped in.
    pub lies: u64,
    /// The longest delay of one way, ms.
    pub delay: u64,
}

pub const CALM: Weather = Weather { loss: 0, repeat: 0, reorder: 0, garble: 0, lies: 0, delay: 30 };

/// What is going to happen.
#[derive(Debug)]
pub enum Happens {
    /// A dialled connection is open on both sides.
    Connects { device: usize, boot: u64 },
    /// A frame reaches the relay.
    AtRelay { connection: u64, frame: Vec<u8> },
    /// A frame reaches a device.
    AtDevice { connection: u64, frame: Vec<u8>, size: usize },
    /// The device learns that its connection is gone.
    Cut { device: usize, connection: u64 },
    /// The endpoint's timer.
    Timer { device: usize, boot: u64, at: Duration },
    /// The application does something.
    App { device: usize, boot: u64, what: app::Act },
    /// Something bad.
    Fault(Fault),
    /// From now on all is well.
    Calm,
}

pub struct Device<S: Suite> {
    pub id: DeviceId,
    pub endpoint: Endpoint<ChaCha8Rng, S>,
    /// Counts its lives.
    pub boot: u64,
    /// How far its clock is ahead of the world's: it was asleep for so long.
    pub slept: Duration,
    pub connection: Option<u64>,
    pub dialling: bool,
    pub timer: Option<Duration>,
    /// Bytes on their way to the relay: the socket's buffer.
    pub outgoing: usize,
    pub app: App,
}

/// A peer as a suite knows it.
pub type PeerOf<S> = Peer<<S as Suite>::Record, <S as Suite>::Bundle, <S as Suite>::Secret>;

pub struct World<S: Suite> {
    pub seed: u64,
    pub now: Duration,
    pub rng: ChaCha8Rng,
    pub weather: Weather,
    /// In a quarter of all worlds files are sent all the time, so that channels and windows are full.
    pub heavy: bool,
    /// Faults happen until the weather is calm for good.
    pub stormy: bool,
    pub devices: Vec<Device<S>>,
    pub relay: Relay,
    pub queue: BinaryHeap<Reverse<(Duration, u64)>>,
    pub what: BTreeMap<u64, Happens>,
    pub sequence: u64,
    /// What each device has written down about the commands of each other.
    pub written: BTreeMap<(usize, DeviceId, Vec<u8>), app::Written>,
    /// How often each call ran, by its body.
    pub ran: BTreeMap<Vec<u8>, u32>,
    pub trace: u64,
    pub counts: BTreeMap<&'static str, u64>,
    make: fn(usize, u64) -> S,
    peers: fn(usize, usize) -> PeerOf<S>,
    /// What each device has stored about each other.
    pub disk: BTreeMap<(usize, DeviceId), PairSecrets<S::Secret>>,
}

/// What fits into the socket before the driver has to wait.
const SOCKET: usize = 64 * 1024;

impl<S: Suite> World<S> {
    /// Device 0 is a machine; the others are phones that initiate.
    pub fn new(
        seed: u64,
        phones: usize,
        weather: Weather,
        make: fn(usize, u64) -> S,
        peers: fn(usize, usize) -> PeerOf<S>,
    ) -> Self {
        let mut world = Self {
            seed,
            now: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            weather,
            heavy: false,
            stormy: true,
            devices: Vec::new(),
            relay: Relay::default(),
            queue: BinaryHeap::new(),
            what: BTreeMap::new(),
            sequence: 0,
            written: BTreeMap::new(),
            ran: BTreeMap::new(),
            trace: 0,
            counts: BTreeMap::new(),
            make,
            peers,
            disk: BTreeMap::new(),
        };
        for index in 0..=phones {
            let device = world.boot(index, phones, 0, Duration::ZERO);
            world.devices.push(device);
        }
        world
    }

    fn boot(&mut self, index: usize, phones: usize, boot: u64, slept: Duration) -> Device<S> {
        let suite = (self.make)(index, boot);
        let id = suite.device();
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let login = Login::Device { epoch: (boot + 1) << 32 };
        let rng = ChaCha8Rng::from_seed(seed);
        let mut endpoint = Endpoint::with_suite(suite, "relay.example".to_owned(), login, rng, self.now + slept);
        for other in 0..=phones {
            if (index == 0) != (other == 0) {
                let mut peer = (self.peers)(index, other);
                if let Some(stored) = self.disk.get(&(index, S::record_device(&peer.record))) {
                    peer.secrets = stored.clone();
                }
                endpoint.add_peer(peer).unwrap();
            }
        }
        let app = App::new(index, boot);
        Device { id, endpoint, boot, slept, connection: None, dialling: false, timer: None, outgoing: 0, app }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn at(&mut self, time: Duration, what: Happens) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence)));
        self.what.insert(self.sequence, what);
    }

    /// What time a device thinks it is.
    pub fn local(&self, device: usize) -> Duration {
        self.now + self.devices[device].slept
    }

    pub fn delay(&mut self) -> Duration {
        let delay = 1000 + below(&mut self.rng, self.weather.delay * 1000);
        Duration::from_micros(delay)
    }

    /// Starts all devices.
    pub fn start(&mut self) {
        for device in 0..self.devices.len() {
            self.drain(device);
        }
    }

    pub fn run_until(&mut self, end: Duration) {
        let mut at_once = 0;
        while let Some(&Reverse((time, number))) = self.queue.peek() {
            if time > end {
                break;
            }
            self.queue.pop();
            at_once = if time > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 200_000, "seed {}: the world spins at {time:?}", self.seed);
            self.now = time;
            let what = self.what.remove(&number).unwrap();
            self.note(&what);
            self.happen(what);
        }
        self.now = end;
    }

    /// The trace of a run: two runs with one seed must have the same.
    fn note(&mut self, what: &Happens) {
        let (kind, size) = match what {
            Happens::Connects { device, .. } => (1, *device),
            Happens::AtRelay { frame, .. } => (2, frame.len()),
            Happens::AtDevice { frame, .. } => (3, frame.len()),
            Happens::Cut { device, .. } => (4, *device),
            Happens::Timer { device, .. } => (5, *device),
            Happens::App { device, .. } => (6, *device),
            Happens::Fault(fault) => (7, fault.device()),
            Happens::Calm => (8, 0),
        };
        for word in [kind, size as u64, self.now.as_nanos() as u64] {
            self.trace = (self.trace ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(19);
        }
    }

    fn happen(&mut self, what: Happens) {
        match what {
            Happens::Connects { device, boot } => self.connect(device, boot),
            Happens::AtRelay { connection, frame } => {
                let from = self.devices.iter().position(|device| device.connection == Some(connection));
                if let Some(device) = from {
                    self.devices[device].outgoing = self.devices[device].outgoing.saturating_sub(frame.len());
                }
                self.relay_handle(connection, &frame);
                if let Some(device) = from {
                    self.drain(device);
                }
            }
            Happens::AtDevice { connection, frame, size } => {
                self.relay.arrived(connection, size);
                if let Some(index) = self.devices.iter().position(|device| device.connection == Some(connection)) {
                    let now = self.local(index);
                    self.devices[index].endpoint.handle_frame(now, &frame);
                    self.drain(index);
                }
            }
            Happens::Cut { device, connection } => {
                if self.devices[device].connection == Some(connection) {
                    self.disconnect(device);
                    self.drain(device);
                }
            }
            Happens::Timer { device, boot, at } => {
                let now = self.local(device);
                let it = &mut self.devices[device];
                if it.boot == boot && it.timer == Some(at) {
                    it.timer = None;
                    it.endpoint.handle_timeout(now);
                    self.drain(device);
                }
            }
            Happens::App { device, boot, what } => {
                if self.devices[device].boot == boot {
                    self.act(device, what);
                    self.drain(device);
                }
            }
            Happens::Fault(fault) => self.fault(fault),
            Happens::Calm => {
                self.weather = CALM;
                self.stormy = false;
            }
        }
    }

    fn connect(&mut self, device: usize, boot: u64) {
        if self.devices[device].boot != boot {
            return;
        }
        self.devices[device].dialling = false;
        let now = self.local(device);
        if self.relay.down_until > self.now {
            self.devices[device].endpoint.handle_disconnected(now);
        } else {
            let connection = self.relay.accept(self.devices[device].id);
            self.devices[device].connection = Some(connection);
            self.devices[device].outgoing = 0;
            self.devices[device].endpoint.handle_connected(now);
            self.relay_challenge(connection);
        }
        self.drain(device);
    }

    fn count_if(&mut self, happened: bool, what: &'static str) {
        if happened {
            self.count(what);
        }
    }

    pub fn disconnect(&mut self, device: usize) {
        if let Some(connection) = self.devices[device].connection.take() {
            self.relay_lose(connection);
            let now = self.local(device);
            self.devices[device].endpoint.handle_disconnected(now);
        }
    }

    /// What a driver does after anything happened.
    pub fn drain(&mut self, device: usize) {
        loop {
            self.transmit(device);
            while let Some(event) = self.devices[device].endpoint.poll_event() {
                self.on_event(device, event);
            }
            self.transmit(device);
            if self.devices[device].endpoint.must_close().is_none() {
                break;
            }
            self.count("closed by the device");
            self.disconnect(device);
        }
        self.dial_and_wait(device);
    }

    fn transmit(&mut self, device: usize) {
        let (now, local) = (self.now, self.local(device));
        while let Some(connection) = self.devices[device].connection {
            if self.devices[device].outgoing >= SOCKET {
                return;
            }
            let Some(frame) = self.devices[device].endpoint.poll_transmit(local) else { return };
            assert!(frame.len() <= happy_wire::relay::MAX_FRAME);
            self.devices[device].outgoing += frame.len();
            let delay = self.delay();
            let at = self.relay.arrival_at_relay(connection, now + delay);
            self.at(at, Happens::AtRelay { connection, frame });
        }
    }

    fn dial_and_wait(&mut self, device: usize) {
        let (now, local) = (self.now, self.local(device));
        let it = &mut self.devices[device];
        let (boot, slept) = (it.boot, it.slept);
        if it.connection.is_none() && !it.dialling {
            match it.endpoint.wants_connection(local) {
                Dial::At(at) => {
                    it.dialling = true;
                    let delay = self.delay();
                    self.at(at.saturating_sub(slept).max(now) + delay, Happens::Connects { device, boot });
                }
                other => panic!("seed {}: {other:?}", self.seed),
            }
        }
        let it = &mut self.devices[device];
        let timeout = it.endpoint.poll_timeout();
        if timeout != it.timer {
            it.timer = timeout;
            if let Some(at) = timeout {
                self.at(at.saturating_sub(slept).max(now), Happens::Timer { device, boot, at });
            }
        }
    }

    /// The process is killed and started again.
    pub fn restart(&mut self, device: usize) {
        if let Some(connection) = self.devices[device].connection.take() {
            self.relay_lose(connection);
        }
        let (phones, boot) = (self.devices.len() - 1, self.devices[device].boot + 1);
        let slept = self.devices[device].slept;
        self.devices[device] = self.boot(device, phones, boot, slept);
        self.drain(device);
        if self.stormy {
            // Whoever starts it again goes on where they were.
            let soon = self.now + ms(below(&mut self.rng, 1500));
            self.at(soon, Happens::App { device, boot, what: app::Act::Random { left: 6 } });
        }
    }

    fn fault(&mut self, fault: Fault) {
        let device = fault.device();
        if device >= self.devices.len() {
            return;
        }
        let connection = self.devices[device].connection;
        match fault {
            Fault::Cut { .. } => {
                self.count("fault: cut");
                self.disconnect(device);
                self.drain(device);
            }
            Fault::HalfOpen { noticed, .. } => {
                let Some(connection) = connection else { return };
                self.count("fault: half open");
                self.relay_lose(connection);
                if let Some(late) = noticed {
                    self.at(self.now + late, Happens::Cut { device, connection });
                }
            }
            Fault::Displaced { .. } => {
                let Some(connection) = self.devices[device].connection.take() else { return };
                self.count("fault: displaced");
                self.relay.mute(connection);
                let now = self.local(device);
                self.devices[device].endpoint.handle_disconnected(now);
                self.drain(device);
            }
            Fault::RelayRestart { down } => {
                self.count("fault: relay restart");
                self.relay.down_until = self.now + down;
                for device in 0..self.devices.len() {
                    let Some(connection) = self.devices[device].connection else { continue };
                    let (before, after) = self.relay.has_on_the_way(connection, self.now);
                    self.count_if(before, "relay died before forwarding");
                    self.count_if(after, "relay died after forwarding");
                    self.relay.forget(connection);
                    // What it had sent may still arrive, and then the end; or the end overtakes it.
                    let late = if chance(&mut self.rng, 500) { ms(below(&mut self.rng, 300)) } else { ms(0) };
                    self.at(self.now + late, Happens::Cut { device, connection });
                }
            }
            Fault::QuickRestart { .. } => {
                self.count("fault: quick restart");
                if let Some(connection) = self.devices[device].connection.take() {
                    self.relay.mute(connection);
                }
                self.restart(device);
            }
            Fault::Restart { .. } => {
                self.count("fault: process restart");
                self.restart(device);
            }
            Fault::Stall { up, length, .. } => {
                let Some(connection) = connection else { return };
                self.count(if up { "fault: stalled to the relay" } else { "fault: stalled from the relay" });
                let until = self.now + length;
                self.relay.stall(connection, up, until);
            }
            Fault::Sleep { length, .. } => {
                self.count("fault: slept");
                self.devices[device].slept += length;
                self.devices[device].timer = None;
                let now = self.local(device);
                self.devices[device].endpoint.handle_timeout(now);
                self.drain(device);
            }
            Fault::Skew { .. } => {
                let Some(connection) = connection else { return };
                self.count("fault: a frame of a later version");
                self.relay_speaks_later_version(connection);
            }
        }
    }
}
