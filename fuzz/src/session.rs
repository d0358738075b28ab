//! Two devices that know each other, with keys that are always the same.

use std::sync::OnceLock;

use happy_crypto::handshake::{Initiator, PairSecret, Responder, Shared};
use happy_crypto::{Bundle, Identity, Ratchet, SignedPrekey};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

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
