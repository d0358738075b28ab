//! One endpoint by itself, logged in at a relay that is the test, and peers that are the test as well: they can say anything.

use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::{Cipher, Endpoint, Established, Event, HelloPlan, Login, PairSecrets, Peer, Side, Suite, Welcomed};
use happy_wire::packet::{Packet, put_sealed_prefix};
use happy_wire::relay::{FromRelay, ToRelay};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::null::{NullCipher, NullSuite};

pub fn id(number: u8) -> DeviceId {
    DeviceId::from_bytes([number; 32])
}

pub const ME: u8 = 1;
/// What the endpoint and every puppet share.
pub const SECRETS: PairSecrets<u64> = PairSecrets { current: 1, previous: None };

/// A Hello that begins anew.
pub fn plan(life: u8) -> HelloPlan {
    HelloPlan { life: [life; 16], resumes: None }
}

pub struct Lone {
    pub endpoint: Endpoint<ChaCha8Rng, NullSuite>,
    pub now: Duration,
}

impl Lone {
    /// Not connected.
    pub fn new(login: Login) -> Self {
        let suite = NullSuite { device: id(ME) };
        let rng = ChaCha8Rng::seed_from_u64(1);
        let endpoint = Endpoint::with_suite(suite, "relay.example".to_owned(), login, rng, Duration::ZERO);
        Self { endpoint, now: Duration::ZERO }
    }

    /// Logged in, with a responder's link to peer 2, which is here.
    pub fn machine() -> Self {
        let mut lone = Self::new(Login::Device { epoch: 1 });
        lone.add_peer(2, Side::Responder);
        lone.log_in();
        lone.presence(2, true);
        lone
    }

    /// Logged in, with an initiator's link to peer 2, which is here.
    pub fn phone() -> Self {
        let mut lone = Self::new(Login::Device { epoch: 1 });
        lone.add_peer(2, Side::Initiator(id(2)));
        lone.log_in();
        lone.presence(2, true);
        lone
    }

    pub fn add_peer(&mut self, peer: u8, side: Side<DeviceId>) {
        self.endpoint.add_peer(Peer { record: id(peer), side, secrets: SECRETS }).unwrap();
    }

    pub fn relay(&mut self, frame: &FromRelay<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.endpoint.handle_frame(self.now, &bytes);
    }

    pub fn log_in(&mut self) {
        self.endpoint.handle_connected(self.now);
        self.relay(&FromRelay::Challenge { nonce: [7; 32] });
        assert!(matches!(self.frames().as_slice(), [frame] if frame[0] == 1));
        self.relay(&FromRelay::Welcome { max_payload: 65_536, queue_bytes: 229_376, host: None });
    }

    pub fn presence(&mut self, peer: u8, here: bool) {
        self.relay(&FromRelay::Presence { device: id(peer), here });
    }

    pub fn deliver(&mut self, from: u8, payload: &[u8]) {
        self.relay(&FromRelay::Deliver { from: id(from), rendezvous: false, payload });
    }

    /// Everything that it wants to send.
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.endpoint.poll_transmit(self.now)).collect()
    }

    /// The packets among it.
    pub fn packets(&mut self) -> Vec<Vec<u8>> {
        self.frames().iter().filter_map(|frame| payload(frame)).collect()
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.endpoint.poll_event()).collect()
    }

    /// Time passes; timers fire when they are due. Gives what was sent meanwhile.
    pub fn wait(&mut self, time: Duration) -> Vec<Vec<u8>> {
        let end = self.now + time;
        let mut sent = self.frames();
        while let Some(at) = self.endpoint.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            sent.extend(self.frames());
            assert!(self.endpoint.poll_timeout() != Some(at), "a timer did not move on");
        }
        self.now = end;
        sent
    }
}

pub fn payload(frame: &[u8]) -> Option<Vec<u8>> {
    match ToRelay::decode(frame) {
        Ok(ToRelay::Send { payload, .. }) => Some(payload.to_vec()),
        _ => None,
    }
}

pub fn tag(frame: &[u8]) -> Option<u32> {
    match ToRelay::decode(frame) {
        Ok(ToRelay::Send { tag, .. }) => Some(tag),
        _ => None,
    }
}

/// A peer that holds a session and says what the test wants.
pub struct Puppet {
    pub number: u8,
    pub session: [u8; 16],
    pub cipher: NullCipher,
    rng: ChaCha8Rng,
}

impl Puppet {
    fn new(number: u8, established: Established<NullCipher, u64>) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(2);
        Self { number, session: established.session, cipher: established.cipher, rng }
    }

    /// Shakes hands with a machine, as the initiator.
    pub fn initiate(lone: &mut Lone, number: u8, life: u8) -> Self {
        Self::initiate_with(lone, number, life, SECRETS.current)
    }

    /// The same with another pair secret.
    pub fn initiate_with(lone: &mut Lone, number: u8, life: u8, secret: u64) -> Self {
        let suite = NullSuite { device: id(number) };
        let mut rng = ChaCha8Rng::seed_from_u64(life.into());
        let (initiator, hello) = suite.start(&mut rng, &id(ME), &secret, plan(life)).unwrap();
        lone.frames();
        lone.deliver(number, &Packet::Hello(&hello).to_vec());
        let packets = lone.packets();
        let Some(Ok(Packet::Welcome(welcome))) = packets.last().map(|packet| Packet::decode(packet)) else {
            panic!("a Welcome was expected")
        };
        let (established, confirm) = suite.welcome(&mut rng, &initiator, welcome).unwrap();
        lone.deliver(number, &Packet::Confirm(&confirm).to_vec());
        Self::new(number, established)
    }

    /// Answers the Hello of a phone.
    pub fn answer(lone: &mut Lone, number: u8, life: u8) -> Self {
        let suite = NullSuite { device: id(number) };
        let mut rng = ChaCha8Rng::seed_from_u64(life.into());
        let packets = lone.packets();
        let hello = packets.iter().find_map(|packet| match Packet::decode(packet) {
            Ok(Packet::Hello(hello)) => Some(hello),
            _ => None,
        });
        let answer = suite.answer(&mut rng, &id(ME), &SECRETS, hello.expect("a Hello"), [life; 16], None);
        let Ok(Welcomed { responder, welcome, .. }) = answer else { panic!("a Hello that is refused") };
        lone.deliver(number, &Packet::Welcome(&welcome).to_vec());
        let packets = lone.packets();
        let Some(Ok(Packet::Confirm(confirm))) = packets.first().map(|packet| Packet::decode(packet)) else {
            panic!("a Confirm was expected")
        };
        let mut puppet = Self::new(number, suite.confirm(&responder, confirm).unwrap());
        for packet in &packets[1..] {
            puppet.open(packet);
        }
        puppet
    }

    pub fn seal(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        put_sealed_prefix(&mut packet, &self.session);
        self.cipher.seal(&mut self.rng, frame, &mut packet).unwrap();
        packet
    }

    pub fn open(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let Ok(Packet::Sealed { session, message }) = Packet::decode(packet) else { return None };
        if session != self.session {
            return None;
        }
        let mut frame = Vec::new();
        self.cipher.open(message, &mut frame).ok()?;
        Some(frame)
    }

    /// Says something to the endpoint.
    pub fn say(&mut self, lone: &mut Lone, frame: &[u8]) {
        let packet = self.seal(frame);
        lone.deliver(self.number, &packet);
    }
}
