//! Two devices that know each other, with keys that are always the same.

use std::sync::OnceLock;
use std::time::Duration;

use happy_crypto::handshake::{Established, Initiator, PairSecret, Responder, Shared};
use happy_crypto::{Bundle, Identity, Ratchet, SignedPrekey};
use happy_link::{Endpoint, Login, PairSecrets, Peer, Side};
use happy_wire::packet::{Packet, put_sealed_prefix};
use happy_wire::relay::{FromRelay, ToRelay};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use crate::{choose, pieces};

/// Randomness that repeats itself, so that a finding does.
pub fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(1)
}

/// Who they are.
pub struct People {
    pub phone: Identity,
    pub machine: Identity,
    pub prekey: SignedPrekey,
    pub bundle: Bundle,
    pub secret: PairSecret,
    /// A genuine Hello of the phone.
    pub hello: Vec<u8>,
}

/// Made once: most inputs need no others.
pub fn people() -> &'static People {
    static PEOPLE: OnceLock<People> = OnceLock::new();
    PEOPLE.get_or_init(|| {
        let rng = &mut rng();
        let (phone, machine) = (Identity::generate(rng), Identity::generate(rng));
        let prekey = SignedPrekey::generate(rng, &machine, 1, 0);
        let bundle = Bundle::new(&machine, &prekey, None);
        let secret = PairSecret::from_bytes(&[1; PairSecret::STORED_LEN]).expect("40 bytes and a number");
        let started = Initiator::start(rng, &phone, &bundle, Shared::Pair(&secret), [1; 16], b"");
        let (_, hello) = started.expect("the keys are good");
        People { phone, machine, prekey, bundle, secret, hello }
    })
}

/// Both ends of a session.
pub struct Pair {
    pub rng: ChaCha8Rng,
    pub phone: Ratchet,
    pub machine: Ratchet,
}

impl Pair {
    pub fn new() -> Self {
        let People { phone, machine, prekey, bundle, secret, .. } = people();
        let mut rng = rng();
        let shared = Shared::Pair(secret);
        let (initiator, hello) =
            Initiator::start(&mut rng, phone, bundle, shared, [1; 16], b"").expect("the keys are good");
        let (responder, welcome) =
            Responder::answer(&mut rng, machine, prekey, None, &hello, ([2; 16], 0), shared).expect("genuine");
        let (at_phone, confirm) = initiator.welcome(&mut rng, &welcome).expect("genuine");
        let at_machine = responder.confirm(&confirm).expect("genuine");
        Self { rng, phone: at_phone.ratchet, machine: at_machine.ratchet }
    }
}

/// A machine's endpoint: anything from the relay, and anything from a paired phone that has gone mad.
pub fn link(data: &[u8]) {
    let (kind, rest) = choose(data);
    let People { phone, machine, prekey, bundle, secret, .. } = people();
    let mut now = Duration::ZERO;
    let mut endpoint = Endpoint::new(machine.clone(), "relay.example".into(), Login::Device { epoch: 1 }, rng(), now);
    endpoint.set_prekeys(vec![prekey.clone()]);
    let secrets = PairSecrets { current: secret.clone(), previous: None };
    let peer = Peer { record: phone.record().clone(), side: Side::Responder, secrets };
    if endpoint.add_peer(peer).is_err() {
        return;
    }
    let give = |endpoint: &mut Endpoint<ChaCha8Rng>, now, frame: &FromRelay<'_>| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        endpoint.handle_frame(now, &bytes);
    };
    endpoint.handle_connected(now);
    give(&mut endpoint, now, &FromRelay::Challenge { nonce: [7; 32] });
    give(&mut endpoint, now, &FromRelay::Welcome { max_payload: 65_536, queue_bytes: 262_144, host: None });
    let from = phone.device_id();
    give(&mut endpoint, now, &FromRelay::Presence { device: from, here: true });

    let mut session = None;
    if kind & 1 == 0 {
        session = shake(&mut endpoint, now, phone, bundle, secret);
    }
    let mut rng = rng();
    for piece in pieces(rest).take(64) {
        let (how, bytes) = choose(piece);
        match (&mut session, how % 4) {
            (Some(session), 0 | 1) => {
                let mut packet = Vec::new();
                put_sealed_prefix(&mut packet, &session.session_id);
                if session.ratchet.encrypt(&mut rng, bytes, &mut packet).is_ok() {
                    give(&mut endpoint, now, &FromRelay::Deliver { from, rendezvous: false, payload: &packet });
                }
            }
            (_, 2) => give(&mut endpoint, now, &FromRelay::Deliver { from, rendezvous: false, payload: bytes }),
            _ => endpoint.handle_frame(now, bytes),
        }
        now += Duration::from_millis(u64::from(how) * 20);
        endpoint.handle_timeout(now);
        while endpoint.poll_transmit(now).is_some() {}
        while endpoint.poll_event().is_some() {}
    }
}

fn shake(
    endpoint: &mut Endpoint<ChaCha8Rng>,
    now: Duration,
    phone: &Identity,
    bundle: &Bundle,
    secret: &PairSecret,
) -> Option<Established> {
    let mut rng = rng();
    let from = phone.device_id();
    let give = |endpoint: &mut Endpoint<ChaCha8Rng>, packet: &Packet<'_>| {
        let payload = packet.to_vec();
        let mut bytes = Vec::new();
        FromRelay::Deliver { from, rendezvous: false, payload: &payload }.encode(&mut bytes);
        endpoint.handle_frame(now, &bytes);
    };
    let (initiator, hello) = Initiator::start(&mut rng, phone, bundle, Shared::Pair(secret), [1; 16], b"").ok()?;
    give(endpoint, &Packet::Hello(&hello));
    let mut established = None;
    while let Some(frame) = endpoint.poll_transmit(now) {
        if let Ok(ToRelay::Send { payload, .. }) = ToRelay::decode(&frame)
            && let Ok(Packet::Welcome(welcome)) = Packet::decode(payload)
        {
            established = initiator.welcome(&mut rng, welcome).ok();
        }
    }
    let (established, confirm) = established?;
    give(endpoint, &Packet::Confirm(&confirm));
    Some(established)
}
