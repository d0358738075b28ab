//! The two devices that all vectors are about, as `happy_crypto` and as the page has them.

use happy_crypto::{Bundle, Identity, OneTimePrekey, SignedPrekey};

use crate::{
    Randomness,
    page::{self, Device, Key, Prekey},
};

/// The id of the signed prekey.
pub const SIGNED_ID: u32 = 7;
/// When it was made.
pub const MADE_AT: u64 = 1_700_000_000;
/// The id of the one-time prekey.
pub const ONE_TIME_ID: u32 = 9;

/// A phone and a machine, before they have met.
pub struct World {
    pub phone: Identity,
    pub machine: Identity,
    pub signed: SignedPrekey,
    pub one_time: OneTimePrekey,
    pub page: Page,
}

/// The same as the page has it.
pub struct Page {
    pub phone: Device,
    pub machine: Device,
    pub signed: page::SignedPrekey,
    pub one_time: Prekey,
    /// What the two devices were made from.
    pub randomness: [[u8; 64]; 2],
}

impl World {
    pub fn new() -> Self {
        let mut rng = Randomness::new("happy vectors: the world");
        let phone = Identity::generate(&mut rng);
        let phone_randomness = drawn(&mut rng);
        let machine = Identity::generate(&mut rng);
        let machine_randomness = drawn(&mut rng);
        let signed = SignedPrekey::generate(&mut rng, &machine, SIGNED_ID, MADE_AT);
        let signed_key = Key::new(drawn(&mut rng));
        let one_time = OneTimePrekey::generate(&mut rng, ONE_TIME_ID);
        let one_time_key = Key::new(drawn(&mut rng));
        let page = Page {
            phone: Device::new(&phone_randomness),
            machine: Device::new(&machine_randomness),
            signed: page::SignedPrekey { id: SIGNED_ID, key: signed_key, made_at: MADE_AT },
            one_time: Prekey { id: ONE_TIME_ID, key: one_time_key },
            randomness: [phone_randomness, machine_randomness],
        };
        Self { phone, machine, signed, one_time, page }
    }

    pub fn bundle(&self) -> Bundle {
        Bundle::new(&self.machine, &self.signed, Some(&self.one_time))
    }
}

/// What was drawn since the last time, of which the page says how much it is.
pub fn drawn<const N: usize>(rng: &mut Randomness) -> [u8; N] {
    let drawn = rng.drawn();
    let length = drawn.len();
    drawn.try_into().unwrap_or_else(|_| unreachable!("{length} bytes were drawn instead of {N}"))
}

/// The `i`th part of that many bytes.
pub fn cut<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}
