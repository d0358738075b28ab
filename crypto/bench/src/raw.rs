//! The primitives by themselves: what nobody who fulfils the protocol can go below without other primitives.

use std::hint::black_box;

use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use ml_kem::{
    DecapsulationKey, EncapsulationKey768, MlKem768, Seed,
    kem::{Decapsulate, KeyExport},
};
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::{measure::Task, ours};

/// Bytes of a header: ratchet key, PN, N.
const HEADER: usize = 40;
/// Bytes that the header is sealed with: session id, version, salt.
const HEADER_AD: usize = 16 + 1 + 16;
/// Bytes that the body is sealed with: the same and the sealed header.
const BODY_AD: usize = HEADER_AD + HEADER + 16;

/// One seal under a key that was not used before, as every message has one.
pub struct Seal {
    key: [u8; 32],
    buffer: Vec<u8>,
}

impl Seal {
    /// Of that many bytes.
    pub fn new(size: usize) -> Self {
        Self { key: [7; 32], buffer: vec![7; size] }
    }
}

impl Task for Seal {
    fn run(&mut self, count: usize) {
        for _ in 0..count {
            self.key[0] = self.key[0].wrapping_add(1);
            black_box(seal(&self.key, &[7; 12], &[7; BODY_AD], &mut self.buffer));
        }
    }
}

/// Everything that a message consists of, and nothing around it: salt, chain step, two derivations, two seals.
pub struct Message {
    rng: ChaCha20Rng,
    header_key: [u8; 32],
    chain_key: [u8; 32],
    header: [u8; HEADER],
    body: Vec<u8>,
    /// What was sealed, when this opens.
    sealed: Option<Vec<Sealed>>,
}

/// A header and a body with their tags and keys.
struct Sealed {
    salt: [u8; 16],
    chain_key: [u8; 32],
    header: ([u8; HEADER], Tag),
    body: (Vec<u8>, Tag),
}

impl Message {
    /// Seals messages of that many bytes.
    pub fn sealing(size: usize) -> Self {
        Self {
            rng: ours::rng(),
            header_key: [1; 32],
            chain_key: [2; 32],
            header: [7; HEADER],
            body: vec![7; size],
            sealed: None,
        }
    }

    /// Opens messages of that many bytes.
    pub fn opening(size: usize) -> Self {
        Self { sealed: Some(Vec::new()), ..Self::sealing(size) }
    }

    fn seal(&mut self) -> ([u8; 16], Tag, Tag) {
        let mut salt = [0; 16];
        self.rng.fill_bytes(&mut salt);
        let message_key = self.step();
        let (key, nonce) = derive(&self.header_key, b"happy/1 header", &salt);
        let header_tag = seal(&key, &nonce, &[7; HEADER_AD], &mut self.header);
        let (key, nonce) = derive(&message_key, b"happy/1 body", &salt);
        let body_tag = seal(&key, &nonce, &[7; BODY_AD], &mut self.body);
        (salt, header_tag, body_tag)
    }

    /// The chain step: two codes under one key.
    fn step(&mut self) -> [u8; 32] {
        let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.chain_key).expect("HMAC takes keys of every length");
        let message_key = mac.clone().chain_update([1]).finalize().into_bytes().into();
        self.chain_key = mac.chain_update([2]).finalize().into_bytes().into();
        message_key
    }

    fn open(&mut self, mut sealed: Sealed) -> bool {
        self.chain_key = sealed.chain_key;
        let (key, nonce) = derive(&self.header_key, b"happy/1 header", &sealed.salt);
        let (header, tag) = &mut sealed.header;
        let header = open(&key, &nonce, &[7; HEADER_AD], header, tag);
        let message_key = self.step();
        let (key, nonce) = derive(&message_key, b"happy/1 body", &sealed.salt);
        let (body, tag) = &mut sealed.body;
        header && open(&key, &nonce, &[7; BODY_AD], body, tag)
    }
}

impl Task for Message {
    fn prepare(&mut self, count: usize) {
        let Some(mut ready) = self.sealed.take() else { return };
        ready.clear();
        for _ in 0..count {
            let chain_key = self.chain_key;
            let (salt, header_tag, body_tag) = self.seal();
            ready.push(Sealed {
                salt,
                chain_key,
                header: (self.header, header_tag),
                body: (self.body.clone(), body_tag),
            });
        }
        self.sealed = Some(ready);
    }

    fn run(&mut self, count: usize) {
        if let Some(ready) = &mut self.sealed {
            for sealed in std::mem::take(ready) {
                assert!(self.open(sealed), "what was sealed opens");
            }
            self.sealed = Some(Vec::new());
        } else {
            for _ in 0..count {
                black_box(self.seal());
            }
        }
    }
}

/// `Expand(key, label ‖ salt, 44)`.
fn derive(key: &[u8; 32], label: &[u8], salt: &[u8; 16]) -> ([u8; 32], [u8; 12]) {
    let mut okm = [0; 44];
    let hkdf = Hkdf::<Sha256>::from_prk(key).expect("32 bytes are a whole hash");
    hkdf.expand_multi_info(&[label, salt], &mut okm).expect("44 bytes are few");
    (std::array::from_fn(|i| okm[i]), std::array::from_fn(|i| okm[32 + i]))
}

fn seal(key: &[u8; 32], nonce: &[u8; 12], associated_data: &[u8], buffer: &mut [u8]) -> Tag {
    ChaCha20Poly1305::new(<&Key>::from(key))
        .encrypt_inout_detached(&Nonce::from(*nonce), associated_data, buffer.into())
        .expect("the buffer is short")
}

fn open(key: &[u8; 32], nonce: &[u8; 12], associated_data: &[u8], buffer: &mut [u8], tag: &Tag) -> bool {
    ChaCha20Poly1305::new(<&Key>::from(key))
        .decrypt_inout_detached(&Nonce::from(*nonce), associated_data, buffer.into(), tag)
        .is_ok()
}

/// Agreements, encapsulations and signatures, as many of each as something consists of.
pub struct PublicKeys {
    counts: Counts,
    rng: ChaCha20Rng,
    secret: StaticSecret,
    public: PublicKey,
    verifying: VerifyingKey,
    signature: Signature,
    signed: [u8; 96],
}

/// How many operations.
#[derive(Clone, Copy, Default)]
pub struct Counts {
    /// X25519 agreements.
    pub agreements: usize,
    /// X25519 key pairs.
    pub keys: usize,
    /// Strict Ed25519 verifications.
    pub verifications: usize,
    /// ML-KEM-768: a key pair, its public key read and encapsulated to, and the decapsulation.
    pub encapsulations: usize,
}

/// One direction of a ping-pong: the sender makes a key and agrees, the receiver agrees.
pub const TURN: Counts = Counts { agreements: 2, keys: 1, verifications: 0, encapsulations: 0 };

/// A pairing. The initiator verifies the record and the prekey in the bundle and makes an ephemeral; agrees four times for
/// Hello, twice for Welcome and once to begin the ratchet, for which it makes another key. The responder verifies the record in
/// Hello, agrees four times and twice, and makes an ephemeral and a ratchet key. Between them goes one encapsulation.
pub const PAIRING: Counts =
    Counts { agreements: (4 + 2 + 1) + (4 + 2), keys: 2 + 2, verifications: 2 + 1, encapsulations: 1 };

impl PublicKeys {
    /// Those operations.
    pub fn new(counts: Counts) -> Self {
        let mut rng = ours::rng();
        let secret = StaticSecret::random_from_rng(&mut rng);
        let signing = SigningKey::from_bytes(&[3; 32]);
        let signed = [7; 96];
        let public = PublicKey::from(&StaticSecret::random_from_rng(&mut rng));
        let (verifying, signature) = (signing.verifying_key(), signing.sign(&signed));
        Self { counts, rng, secret, public, verifying, signature, signed }
    }

    fn once(&mut self) {
        for _ in 0..self.counts.agreements {
            let shared = self.secret.diffie_hellman(&self.public);
            assert!(shared.was_contributory(), "the key is sound");
        }
        for _ in 0..self.counts.keys {
            let secret = StaticSecret::random_from_rng(&mut self.rng);
            self.public = PublicKey::from(&secret);
        }
        for _ in 0..self.counts.verifications {
            let key = VerifyingKey::from_bytes(black_box(self.verifying.as_bytes())).expect("the key is a point");
            key.verify_strict(&self.signed, &self.signature).expect("the signature is genuine");
        }
        for _ in 0..self.counts.encapsulations {
            let mut seed = Seed::default();
            self.rng.fill_bytes(&mut seed);
            let secret = DecapsulationKey::<MlKem768>::from_seed(seed);
            let public = EncapsulationKey768::new(&secret.encapsulation_key().to_bytes()).expect("the key is sound");
            let (ciphertext, sent) = public.encapsulate_deterministic(&[7; 32].into());
            assert!(secret.decapsulate(&ciphertext) == sent, "both have the same");
        }
    }
}

impl Task for PublicKeys {
    fn run(&mut self, count: usize) {
        for _ in 0..count {
            self.once();
        }
    }
}
