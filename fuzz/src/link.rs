//! An endpoint: anything from the relay, and anything from a paired device that has gone mad.

use std::time::Duration;

use happy_crypto::{DeviceId, IdentityRecord};
use happy_link::{
    Cipher, Class, Code, Endpoint, Established, Event, HelloPlan, Keys, Login, PairSecrets, Peer, Side, Suite, Welcomed,
};
use happy_wire::packet::{Packet, put_sealed_prefix};
use happy_wire::relay::{FromRelay, ToRelay};
use rand_chacha::ChaCha8Rng;

use crate::cheap::{AnyCipher, AnyInitiator, AnyResponder, AnySuite};
use crate::session::{People, people, rng};
use crate::{choose, pieces};

/// Inputs that begin with this or more have the product's cryptography: one first byte in sixteen, since it costs far more.
pub const REAL: u8 = 0xF0;
/// What the mad device answers at one time; a handshake takes three.
const MAX_ANSWERS: usize = 8;

/// The first byte chooses the cryptography (high nibble), whether the mad device shakes hands by itself (bit 0 not set), whether the endpoint
/// is the phone (bit 1), and whether the application forgets to store secrets (bit 2). Then come pieces, each an order and its bytes.
pub fn link(data: &[u8]) {
    let (kind, rest) = choose(data);
    let mut world = World::new(kind);
    world.connect();
    if !world.mad.is_deaf {
        world.hello(false);
    }
    world.settle();
    for piece in pieces(rest).take(64) {
        let (how, bytes) = choose(piece);
        match how & 7 {
            0 | 1 => world.sealed(bytes),
            2 => world.deliver(bytes),
            3 => world.frame(bytes),
            4 => world.mad.is_deaf = !world.mad.is_deaf,
            5 => world.hello(how & 8 != 0),
            6 => world.application(bytes),
            _ => {
                world.endpoint.handle_closed(world.now, bytes.first().map(|code| Code(4_000 + u16::from(*code))));
                world.connect();
            }
        }
        world.now += Duration::from_millis(u64::from(how >> 4) * 300);
        world.endpoint.handle_timeout(world.now);
        world.settle();
    }
}

struct World {
    now: Duration,
    endpoint: Endpoint<ChaCha8Rng, AnySuite>,
    stores: bool,
    mad: Mad,
}

/// The other device: it keeps to the handshake, if it does, and to nothing else.
struct Mad {
    suite: AnySuite,
    id: DeviceId,
    rng: ChaCha8Rng,
    secrets: PairSecrets,
    is_deaf: bool,
    /// Who the endpoint is.
    endpoint: IdentityRecord,
    initiator: Option<AnyInitiator>,
    responder: Option<AnyResponder>,
    session: Option<([u8; 16], AnyCipher)>,
}

impl World {
    fn new(kind: u8) -> Self {
        let People { phone, machine, prekey, bundle, secret, .. } = people();
        let is_phone = kind & 2 != 0;
        let (me, other) = if is_phone { (phone, machine) } else { (machine, phone) };
        let suite = |me: &happy_crypto::Identity, peer: DeviceId| {
            if kind < REAL {
                return AnySuite::Cheap { me: me.device_id(), peer };
            }
            let mut keys = Keys::new(me.clone());
            keys.set_prekeys(vec![prekey.clone()]);
            AnySuite::Real(Box::new(keys))
        };
        let now = Duration::ZERO;
        let login = Login::Device { epoch: 1 };
        let mut endpoint =
            Endpoint::with_suite(suite(me, other.device_id()), "relay.example".into(), login, rng(), now);
        let secrets = PairSecrets { current: secret.clone(), previous: None };
        let side = if is_phone { Side::Initiator(bundle.clone()) } else { Side::Responder };
        let peer = Peer { record: other.record().clone(), side, secrets: secrets.clone() };
        assert!(endpoint.add_peer(peer).is_ok());
        let mad = Mad {
            suite: suite(other, me.device_id()),
            id: other.device_id(),
            rng: rng(),
            secrets,
            is_deaf: kind & 1 != 0,
            endpoint: me.record().clone(),
            initiator: None,
            responder: None,
            session: None,
        };
        Self { now, endpoint, stores: kind & 4 == 0, mad }
    }

    fn give(&mut self, frame: &FromRelay<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.frame(&bytes);
    }

    fn frame(&mut self, bytes: &[u8]) {
        self.endpoint.handle_frame(self.now, bytes);
    }

    fn deliver(&mut self, payload: &[u8]) {
        self.give(&FromRelay::Deliver { from: self.mad.id, rendezvous: false, payload });
    }

    fn connect(&mut self) {
        self.endpoint.handle_connected(self.now);
        self.give(&FromRelay::Challenge { nonce: [7; 32] });
        self.give(&FromRelay::Welcome { max_payload: 65_536, queue_bytes: 229_376, host: None });
        self.give(&FromRelay::Presence { device: self.mad.id, here: true });
    }

    fn sealed(&mut self, bytes: &[u8]) {
        let Some((id, cipher)) = &mut self.mad.session else { return self.deliver(bytes) };
        let mut packet = Vec::new();
        put_sealed_prefix(&mut packet, id);
        if cipher.seal(&mut self.mad.rng, bytes, &mut packet).is_ok() {
            self.deliver(&packet);
        }
    }

    /// A new handshake, if the mad device is the one that begins them.
    fn hello(&mut self, goes_on: bool) {
        let Mad { suite, rng, secrets, session, .. } = &mut self.mad;
        let bundle = &people().bundle;
        if AnySuite::bundle_device(bundle) == suite.device() {
            return;
        }
        let resumes = session.as_ref().filter(|_| goes_on).map(|(id, _)| *id);
        let plan = HelloPlan { life: [1; 16], resumes };
        if let Some((initiator, hello)) = suite.start(rng, bundle, &secrets.current, plan) {
            self.mad.initiator = Some(initiator);
            self.deliver(&Packet::Hello(&hello).to_vec());
        }
    }

    /// What the application of this device does.
    fn application(&mut self, bytes: &[u8]) {
        let (what, body) = choose(bytes);
        let (peer, channel) = (self.mad.id, u32::from(what >> 4));
        let endpoint = &mut self.endpoint;
        match what & 7 {
            0 => drop(endpoint.call(self.now, &peer, body.to_vec(), None)),
            1 => drop(endpoint.emit(&peer, body.to_vec())),
            2 => drop(endpoint.open_channel(&peer, Class::Bulk, "x")),
            3 => drop(endpoint.send(&peer, channel, body)),
            4 => endpoint.close_channel(&peer, channel, Code::GOODBYE, ""),
            5 => endpoint.renew_keys(self.now, &peer),
            6 => endpoint.set_active(self.now, channel & 1 == 0),
            _ if channel == 15 => endpoint.tombstone(self.now, peer),
            _ => drop(endpoint.emit_in_bulk(self.now, &peer, body.to_vec())),
        }
    }

    /// Writes and tells everything there is, and lets the mad device answer.
    fn settle(&mut self) {
        let mut answers = 0;
        loop {
            while let Some(event) = self.endpoint.poll_event() {
                self.on_event(event);
            }
            let Some(frame) = self.endpoint.poll_transmit(self.now) else { return };
            let Ok(ToRelay::Send { payload, .. }) = ToRelay::decode(&frame) else { continue };
            let packet = Packet::decode(payload);
            assert!(packet.is_ok(), "a packet that cannot be read was sent");
            let Ok(packet) = packet else { continue };
            if let Some(answer) = self.mad.hear(packet).filter(|_| answers < MAX_ANSWERS) {
                answers += 1;
                self.deliver(&answer);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::PairSecrets { peer, session } if self.stores => {
                self.endpoint.pair_secrets_stored(self.now, &peer, &session);
            }
            Event::Request { peer, id, body } => drop(self.endpoint.respond(&peer, id, &body)),
            Event::Message { peer, channel, bytes } => {
                self.endpoint.consumed(&peer, channel, bytes.len());
            }
            _ => {}
        }
    }
}

impl Mad {
    /// What came, and what the device answers to it.
    fn hear(&mut self, packet: Packet<'_>) -> Option<Vec<u8>> {
        if self.is_deaf {
            return None;
        }
        match packet {
            Packet::Hello(hello) => {
                let session = self.session.as_ref().map(|(id, _)| *id);
                let answer = self.suite.answer(&mut self.rng, &self.endpoint, &self.secrets, hello, [2; 16], session);
                let Welcomed { responder, welcome, .. } = answer.ok()?;
                self.responder = Some(responder);
                Some(Packet::Welcome(&welcome).to_vec())
            }
            Packet::Welcome(welcome) => {
                let initiator = self.initiator.take()?;
                let (established, confirm) = self.suite.welcome(&mut self.rng, &initiator, welcome)?;
                self.begin(established);
                Some(Packet::Confirm(&confirm).to_vec())
            }
            Packet::Confirm(confirm) => {
                let established = self.suite.confirm(&self.responder.take()?, confirm)?;
                self.begin(established);
                None
            }
            Packet::Sealed { session, message } => {
                let (id, cipher) = self.session.as_mut()?;
                if *id == session {
                    let _ = cipher.open(message, &mut Vec::new());
                }
                None
            }
            _ => None,
        }
    }

    fn begin(&mut self, established: Established<AnyCipher>) {
        let previous = std::mem::replace(&mut self.secrets.current, established.next_secret);
        self.secrets.previous = Some(previous);
        self.session = Some((established.session, established.cipher));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_comes_up_on_either_side_with_either_cryptography() {
        for kind in [0, 2, REAL, REAL | 2] {
            let mut world = World::new(kind);
            world.connect();
            world.hello(false);
            world.settle();
            let first = world.mad.session.as_ref().map(|(id, _)| *id);
            assert!(first.is_some(), "{kind:#x}");
            world.hello(true);
            world.settle();
            let second = world.mad.session.as_ref().map(|(id, _)| *id);
            assert_eq!(first == second, kind & 2 != 0, "a machine does not begin a handshake");
            let mut frame = Vec::new();
            happy_wire::frame::FrameHeader { number: None, acknowledgement: 0 }.encode(&mut frame);
            happy_wire::frame::Record::Resume.encode(&mut frame);
            world.sealed(&frame);
            world.settle();
            assert!(world.endpoint.is_up(&world.mad.id), "{kind:#x}");
            assert_eq!(world.endpoint.counters().dropped_packets, 0, "{kind:#x}");
        }
    }
}
