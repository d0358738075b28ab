//! Who takes part: devices with a cipher that costs nothing, and such with real keys.

use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::{Keys, PairSecrets, Peer, Side};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng;

use super::null::NullSuite;

fn null_device(index: usize) -> DeviceId {
    DeviceId::from_bytes([index as u8 + 1; 32])
}

pub fn null_suite(index: usize, _: u64) -> NullSuite {
    NullSuite { device: null_device(index) }
}

pub fn null_peer(me: usize, other: usize) -> Peer<DeviceId, DeviceId, u64> {
    let record = null_device(other);
    let side = if me == 0 { Side::Responder } else { Side::Initiator(record) };
    Peer { record, side, secrets: PairSecrets { current: 1, previous: None } }
}

fn identity(index: usize) -> Identity {
    Identity::generate(&mut ChaCha8Rng::seed_from_u64(index as u64))
}

fn prekey() -> SignedPrekey {
    SignedPrekey::generate(&mut ChaCha8Rng::seed_from_u64(99), &identity(0), 1, 1_700_000_000)
}

pub fn real_suite(index: usize, _: u64) -> Keys {
    let mut keys = Keys::new(identity(index));
    if index == 0 {
        keys.set_prekeys(vec![prekey()]);
    }
    keys
}

pub fn real_peer(me: usize, other: usize) -> Peer {
    let record = identity(other).record().clone();
    let bundle = || Bundle::new(&identity(0), &prekey(), None);
    let side = if me == 0 { Side::Responder } else { Side::Initiator(bundle()) };
    let secret = PairSecret::from_bytes(&[me.max(other) as u8; 40]).unwrap();
    Peer { record, side, secrets: PairSecrets { current: secret, previous: None } }
}
