//! A relay as `PROTOCOL 7` describes it, without signatures, and the network between two of its connections.

use std::collections::BTreeMap;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::{Code, Suite};
use happy_wire::packet::Packet;
use happy_wire::relay::{FromRelay, QUEUE_BYTES, ToRelay, Undelivered};
use rand_core::Rng;

use super::{Happens, World, below, chance};

#[derive(Default)]
pub struct Relay {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    pub down_until: Duration,
    /// Packets that passed, for lies.
    heard: Vec<(DeviceId, DeviceId, Vec<u8>)>,
}

struct Connection {
    device: DeviceId,
    login: Option<u64>,
    named: Vec<DeviceId>,
    /// Nothing passes, and nobody knows.
    muted: bool,
    queued: usize,
    /// TCP does not reorder: nothing arrives before what was sent before it.
    last_up: Duration,
    last_down: Duration,
}

impl Relay {
    pub fn accept(&mut self, device: DeviceId) -> u64 {
        self.next += 1;
        let connection = Connection {
            device,
            login: None,
            named: Vec::new(),
            muted: false,
            queued: 0,
            last_up: Duration::ZERO,
            last_down: Duration::ZERO,
        };
        self.connections.insert(self.next, connection);
        self.next
    }

    pub fn mute(&mut self, connection: u64) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.muted = true;
        }
    }

    /// Nothing passes in one direction for a while, and then everything at once.
    pub fn stall(&mut self, connection: u64, up: bool, until: Duration) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            let last = if up { &mut connection.last_up } else { &mut connection.last_down };
            *last = (*last).max(until);
        }
    }

    /// Whether something is on its way from the device of this connection, and to it.
    pub fn has_on_the_way(&self, connection: u64, now: Duration) -> (bool, bool) {
        let connection = self.connections.get(&connection);
        connection.map_or((false, false), |connection| (connection.last_up > now, connection.queued > 0))
    }

    /// The relay died, and with it what it knew of this connection.
    pub fn forget(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    pub fn arrival_at_relay(&mut self, connection: u64, at: Duration) -> Duration {
        let Some(connection) = self.connections.get_mut(&connection) else { return at };
        connection.last_up = connection.last_up.max(at);
        connection.last_up
    }

    pub fn arrived(&mut self, connection: u64, size: usize) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.queued -= size;
        }
    }

    fn live(&self, device: &DeviceId) -> Option<u64> {
        let is_live = |connection: &Connection| connection.device == *device && connection.login.is_some();
        self.connections.iter().find(|(_, connection)| is_live(connection)).map(|(number, _)| *number)
    }

    fn names(&self, connection: u64, device: &DeviceId) -> bool {
        self.connections.get(&connection).is_some_and(|connection| connection.named.contains(device))
    }
}

impl<S: Suite> World<S> {
    pub fn relay_challenge(&mut self, connection: u64) {
        let mut nonce = [0; 32];
        self.rng.fill_bytes(&mut nonce);
        self.tell(connection, &FromRelay::Challenge { nonce });
    }

    /// `PROTOCOL 7`: types of frames that a device does not know are ignored.
    pub fn relay_speaks_later_version(&mut self, to: u64) {
        let mut frame = vec![0x7e; 1 + below(&mut self.rng, 60) as usize];
        self.rng.fill_bytes(&mut frame[1..]);
        let at = self.now + self.delay();
        self.send_down(to, frame, at, true);
    }

    fn tell(&mut self, to: u64, frame: &FromRelay<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let at = self.now + self.delay();
        self.send_down(to, bytes, at, true);
    }

    fn send_down(&mut self, to: u64, frame: Vec<u8>, at: Duration, ordered: bool) {
        let Some(connection) = self.relay.connections.get_mut(&to).filter(|connection| !connection.muted) else {
            return;
        };
        let size = frame.len();
        connection.queued += size;
        let at = if ordered { at.max(connection.last_down) } else { at };
        if ordered {
            connection.last_down = at;
        }
        self.at(at, Happens::AtDevice { connection: to, frame, size });
    }

    /// The connection is gone as far as the relay is concerned.
    pub fn relay_lose(&mut self, number: u64) {
        let Some(connection) = self.relay.connections.remove(&number) else { return };
        if connection.login.is_none() || self.relay.live(&connection.device).is_some() {
            return;
        }
        for other in connection.named {
            if let Some(to) = self.relay.live(&other)
                && self.relay.names(to, &connection.device)
            {
                self.tell(to, &FromRelay::Presence { device: connection.device, here: false });
            }
        }
    }

    pub fn relay_handle(&mut self, number: u64, frame: &[u8]) {
        let Some(connection) = self.relay.connections.get_mut(&number).filter(|connection| !connection.muted) else {
            return;
        };
        let me = connection.device;
        let logged_in = connection.login.is_some();
        match ToRelay::decode(frame).expect("a device speaks the protocol") {
            ToRelay::Login { device, epoch, .. } => {
                assert_eq!(device, me);
                self.login(number, device, epoch);
            }
            other if !logged_in => panic!("seed {}: {other:?} before login", self.seed),
            ToRelay::Peers(peers) => self.name(number, me, peers),
            ToRelay::Send { to, tag, payload } => self.route(number, me, to, tag, payload),
            ToRelay::Ping(n) => self.tell(number, &FromRelay::Pong(n)),
            _ => {}
        }
    }

    fn login(&mut self, number: u64, device: DeviceId, epoch: u64) {
        if let Some(older) = self.relay.live(&device) {
            let lived = self.relay.connections[&older].login;
            assert!(lived < Some(epoch), "seed {}: a login did not count its epoch up", self.seed);
            self.tell(older, &FromRelay::Goaway { code: Code::DISPLACED, retry_after_ms: 0, text: "" });
            // Its peers are not told: the device is here.
            self.relay.connections.remove(&older);
        }
        if let Some(connection) = self.relay.connections.get_mut(&number) {
            connection.login = Some(epoch);
        }
        self.tell(number, &FromRelay::Welcome { max_payload: 65_536, queue_bytes: QUEUE_BYTES as u32, host: None });
    }

    fn name(&mut self, number: u64, me: DeviceId, peers: Vec<DeviceId>) {
        for other in &peers {
            if let Some(to) = self.relay.live(other)
                && self.relay.names(to, &me)
            {
                self.tell(number, &FromRelay::Presence { device: *other, here: true });
                self.tell(to, &FromRelay::Presence { device: me, here: true });
            }
        }
        if let Some(connection) = self.relay.connections.get_mut(&number) {
            connection.named = peers;
        }
    }

    fn route(&mut self, number: u64, me: DeviceId, to: DeviceId, tag: u32, payload: &[u8]) {
        let target = self.relay.live(&to).filter(|target| self.relay.names(*target, &me));
        let Some(target) = target.filter(|_| self.relay.names(number, &to)) else {
            return self.tell(number, &FromRelay::Undeliverable { to, tag, reason: Undelivered::Unreachable });
        };
        if self.relay.connections[&target].queued + payload.len() > QUEUE_BYTES {
            self.count("queue full");
            return self.tell(number, &FromRelay::Undeliverable { to, tag, reason: Undelivered::QueueFull });
        }
        if self.relay.heard.len() < 64 {
            self.relay.heard.push((me, to, payload.to_vec()));
        } else {
            let slot = below(&mut self.rng, 640) as usize;
            if let Some(slot) = self.relay.heard.get_mut(slot) {
                *slot = (me, to, payload.to_vec());
            }
        }
        let weather = self.weather;
        if chance(&mut self.rng, weather.lies) {
            self.lie();
        }
        if chance(&mut self.rng, weather.loss) {
            return self.count("packet lost");
        }
        if chance(&mut self.rng, weather.lies / 2) {
            // Whether the connection is still there by then is another matter.
            self.count("packet withheld");
            let late = Duration::from_millis(below(&mut self.rng, 20_000));
            let mut bytes = Vec::new();
            FromRelay::Deliver { from: me, rendezvous: false, payload }.encode(&mut bytes);
            return self.send_down(target, bytes, self.now + late, false);
        }
        let copies = if chance(&mut self.rng, weather.repeat) { 2 } else { 1 };
        if copies > 1 {
            self.count("packet repeated");
        }
        for _ in 0..copies {
            self.deliver(target, me, payload);
        }
    }

    fn deliver(&mut self, target: u64, from: DeviceId, payload: &[u8]) {
        let mut bytes = Vec::new();
        FromRelay::Deliver { from, rendezvous: false, payload }.encode(&mut bytes);
        if chance(&mut self.rng, self.weather.garble) && bytes.len() > 40 {
            self.count("packet garbled");
            let bit = below(&mut self.rng, (bytes.len() as u64 - 34) * 8) as usize;
            bytes[34 + bit / 8] ^= 1 << (bit % 8);
        }
        let unordered = chance(&mut self.rng, self.weather.reorder);
        if unordered {
            self.count("packet overtaken");
        }
        let delay = self.delay() * if unordered { 3 } else { 1 };
        self.send_down(target, bytes, self.now + delay, !unordered);
    }

    /// What a hostile relay does: replays, invents, forges hints, and lies about presence.
    fn lie(&mut self) {
        self.count("the relay lies");
        let pick = below(&mut self.rng, self.relay.heard.len() as u64) as usize;
        let (from, to, packet) = self.relay.heard[pick].clone();
        let Some(target) = self.relay.live(&to) else { return };
        match below(&mut self.rng, 6) {
            0 | 1 => self.deliver(target, from, &packet),
            2 => {
                let mut noise = vec![0; 1 + below(&mut self.rng, 300) as usize];
                self.rng.fill_bytes(&mut noise);
                noise[0] %= 0x14;
                self.deliver(target, from, &noise);
            }
            3 => {
                if let Ok(Packet::Sealed { session, .. }) = Packet::decode(&packet) {
                    self.deliver(target, from, &Packet::UnknownSession(session).to_vec());
                }
            }
            // From the wrong device.
            4 => self.deliver(target, to, &packet),
            _ => {
                let here = chance(&mut self.rng, 500);
                self.tell(target, &FromRelay::Presence { device: from, here });
                // It cannot lie for good: a device that is said to be away while it is here is lost to us.
                self.tell(target, &FromRelay::Presence { device: from, here: true });
            }
        }
    }
}
