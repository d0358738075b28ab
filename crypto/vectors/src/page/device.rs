//! PROTOCOL 2 and 3: identities, safety numbers, prekeys, bundles; and the refusal of PROTOCOL 5, which a device signs.

use super::{
    Key, SUITE, VERSION, hash,
    primitives::{sign, signing_public},
};

/// The secrets of a device.
#[derive(Clone)]
pub struct Device {
    /// The Ed25519 seed.
    pub seed: [u8; 32],
    /// The X25519 identity key.
    pub agreement: Key,
}

impl Device {
    /// Seed, then scalar.
    #[must_use]
    pub fn new(randomness: &[u8; 64]) -> Self {
        let half = |at| std::array::from_fn(|i| randomness[at + i]);
        Self { seed: half(0), agreement: Key::new(half(32)) }
    }

    /// The device id.
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        signing_public(&self.seed)
    }

    /// version ‖ device id ‖ X25519 identity key.
    #[must_use]
    pub fn identity(&self) -> [u8; 65] {
        array(&[&[VERSION], &self.id(), &self.agreement.public])
    }

    /// The identity record.
    #[must_use]
    pub fn record(&self) -> [u8; 129] {
        let identity = self.identity();
        array(&[&identity, &sign(&self.seed, &[b"happy/1 identity", &identity])])
    }
}

/// A signed prekey.
#[derive(Clone)]
pub struct SignedPrekey {
    /// Its number.
    pub id: u32,
    /// Its key.
    pub key: Key,
    /// Unix seconds.
    pub made_at: u64,
}

impl SignedPrekey {
    /// device id ‖ version ‖ suite ‖ id ‖ key ‖ made at.
    #[must_use]
    pub fn signed_bytes(&self, device: &Device) -> [u8; 78] {
        let (id, made_at) = (self.id.to_be_bytes(), self.made_at.to_be_bytes());
        array(&[&device.id(), &[VERSION, SUITE], &id, &self.key.public, &made_at])
    }

    /// The signature of the device.
    #[must_use]
    pub fn signature(&self, device: &Device) -> [u8; 64] {
        sign(&device.seed, &[b"happy/1 signed prekey", &self.signed_bytes(device)])
    }
}

/// A key with a number.
#[derive(Clone)]
pub struct Prekey {
    /// Its number, never 0.
    pub id: u32,
    /// Its key.
    pub key: Key,
}

/// There may be none.
pub type OneTime<'a> = Option<&'a Prekey>;

/// The bundle of a device.
#[must_use]
pub fn bundle(device: &Device, signed: &SignedPrekey, one_time: OneTime<'_>) -> [u8; 275] {
    let (one_time_id, one_time_key) = one_time.map_or((0, [0; 32]), |prekey| (prekey.id, prekey.key.public));
    array(&[
        &[VERSION, SUITE],
        &device.record(),
        &signed.id.to_be_bytes(),
        &signed.key.public,
        &signed.made_at.to_be_bytes(),
        &signed.signature(device),
        &one_time_id.to_be_bytes(),
        &one_time_key,
    ])
}

/// The hash that an invitation carries.
#[must_use]
pub fn bundle_hash(bundle: &[u8]) -> [u8; 32] {
    hash(&[b"happy/1 bundle", bundle])
}

/// The halves of both, the numerically smaller device id first.
#[must_use]
pub fn safety_number(a: &Device, b: &Device) -> String {
    let (first, second) = if a.id() < b.id() { (a, b) } else { (b, a) };
    let half = |device: &Device| {
        let identity = device.identity();
        let mut d = hash(&[b"happy/1 safety number", &identity]);
        for _ in 0..5_200 {
            d = hash(&[&d, &identity]);
        }
        d[..30]
            .chunks(5)
            .map(|five| five.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) % 100_000)
            .map(|group| format!("{group:05}"))
            .collect::<Vec<_>>()
    };
    [half(first), half(second)].concat().join(" ")
}

/// A refusal: version ‖ reason ‖ hello hash ‖ signature.
#[must_use]
pub fn refused(device: &Device, reason: u8, hello: &[u8]) -> [u8; 98] {
    let signed: [u8; 34] = array(&[&[VERSION, reason], &hash(&[b"happy/1 hello bytes", hello])]);
    array(&[&signed, &sign(&device.seed, &[b"happy/1 refused", &signed])])
}

/// 43 characters without padding.
#[must_use]
pub fn base64url(id: &[u8; 32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bit = |at: usize| id.get(at / 8).map_or(0, |byte| byte >> (7 - at % 8) & 1);
    let six = |i: usize| (0..6).fold(0, |value, at| value << 1 | bit(6 * i + at));
    (0..43).map(|i| char::from(ALPHABET[usize::from(six(i))])).collect()
}

fn array<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    parts.concat().try_into().expect("the lengths of the fields add up")
}
