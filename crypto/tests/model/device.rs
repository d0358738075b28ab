//! A device: what it has in memory, and who it is.

use std::{cell::RefCell, rc::Rc, sync::OnceLock};

use happy_crypto::{
    Bundle, Identity, SignedPrekey,
    durable::DurableRatchet,
    handshake::{Initiator, PairSecret, Responder},
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::disk::{Disk, Place};

/// The key that records are sealed with.
pub const KEY: [u8; 32] = [77; 32];
/// PROTOCOL 5: R holds at most four unconfirmed handshakes.
pub const MAX_UNCONFIRMED: usize = 4;

/// Who the two are. Making them costs more than a handshake, and it does not matter that all runs share them.
pub struct People {
    pub phone: Identity,
    pub machine: Identity,
    pub prekey: SignedPrekey,
    pub bundle: Bundle,
}

pub fn people() -> &'static People {
    static PEOPLE: OnceLock<People> = OnceLock::new();
    PEOPLE.get_or_init(|| {
        let rng = &mut ChaCha20Rng::seed_from_u64(0);
        let (phone, machine) = (Identity::generate(rng), Identity::generate(rng));
        let prekey = SignedPrekey::generate(rng, &machine, 1, 1_700_000_000);
        let bundle = Bundle::new(&machine, &prekey, None);
        People { phone, machine, prekey, bundle }
    })
}

/// What a device has in memory; the disk is what it comes back from.
#[derive(Default)]
pub struct Device {
    pub disk: Rc<RefCell<Disk>>,
    pub ratchet: Option<DurableRatchet<Place>>,
    /// At the phone: a handshake that waits for Welcome, with the secret that it used.
    pub initiator: Option<(Initiator, PairSecret)>,
    /// At the phone: what to repeat until the machine shows that it has the session.
    pub confirm: Option<Vec<u8>>,
    /// At the machine: handshakes that wait for Confirm, with the secrets they used; oldest first.
    pub responders: Vec<(Responder, PairSecret)>,
    /// At the phone: the machine has said, and signed, that it was removed.
    pub removed: bool,
    /// In seconds.
    pub now: u64,
}

impl Device {
    pub fn place(&self) -> Place {
        Place(Rc::clone(&self.disk))
    }

    /// The end of the process.
    pub fn forget(&mut self) {
        self.ratchet = None;
        self.initiator = None;
        self.confirm = None;
        self.responders.clear();
    }

    pub fn session(&self) -> Option<[u8; 16]> {
        self.ratchet.as_ref().map(DurableRatchet::session_id)
    }
}
