//! What is measured of happy-crypto.

use happy_crypto::{
    Bundle, Identity, OneTimePrekey, Ratchet, SignedPrekey,
    handshake::{Established, Initiator, InvitationKey, Responder, Shared},
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::measure::Task;

/// A source of randomness that is as fast as they get, and the same for everybody but vodozemac, which takes its own.
pub fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

/// Two devices that meet for the first time.
pub struct Pairing {
    rng: ChaCha20Rng,
    phone: Identity,
    machine: Identity,
    signed: SignedPrekey,
    one_time: OneTimePrekey,
    /// As it comes over the wire.
    bundle: Vec<u8>,
    key: InvitationKey,
}

impl Pairing {
    /// Two devices, with the prekeys of an invitation.
    pub fn new() -> Self {
        let mut rng = rng();
        let (phone, machine) = (Identity::generate(&mut rng), Identity::generate(&mut rng));
        let signed = SignedPrekey::generate(&mut rng, &machine, 1, 1_700_000_000);
        let one_time = OneTimePrekey::generate(&mut rng, 1);
        let bundle = Bundle::new(&machine, &signed, Some(&one_time)).as_bytes().to_vec();
        Self { rng, phone, machine, signed, one_time, bundle, key: InvitationKey::new([7; 32].into()) }
    }

    /// What both sides do up to the last byte: decode, verify, agree, confirm.
    pub fn pair(&mut self) -> (Established, Established) {
        let (confirm, phone, responder) = self.up_to_confirm();
        (phone, responder.confirm(&confirm).expect("the Confirm is genuine"))
    }

    /// Up to where the responder waits for the Confirm.
    pub fn up_to_confirm(&mut self) -> (Vec<u8>, Established, Responder) {
        let Self { rng, phone, machine, signed, one_time, bundle, key } = self;
        let bundle = Bundle::decode(bundle).expect("the bundle is genuine");
        let shared = Shared::Invitation(key);
        let (initiator, hello) =
            Initiator::start(rng, phone, &bundle, shared, [1; 16], b"https://relay").expect("the bundle is sound");
        let (responder, welcome) =
            Responder::answer(rng, machine, signed, Some(one_time), &hello, ([2; 16], 0), shared)
                .expect("the Hello is genuine");
        let (phone, confirm) = initiator.welcome(rng, &welcome).expect("the Welcome is genuine");
        (confirm, phone, responder)
    }
}

/// Two ends of a session.
pub struct Session {
    rng: ChaCha20Rng,
    ends: [Ratchet; 2],
    message: Vec<u8>,
    opened: Vec<u8>,
}

impl Session {
    /// A session in which both have spoken.
    pub fn new() -> Self {
        let mut pairing = Pairing::new();
        let (phone, machine) = pairing.pair();
        let ends = [phone.ratchet, machine.ratchet];
        let mut session = Self { rng: pairing.rng, ends, message: Vec::new(), opened: Vec::new() };
        session.turn();
        session.turn();
        session
    }

    /// A session whose second end waits for messages of five chains that are over, so that it has five more header keys to try.
    pub fn with_older_chains() -> Self {
        let mut session = Self::new();
        for _ in 0..5 {
            session.encrypt(b"lost");
            session.turn();
            session.turn();
        }
        session.turn();
        session.ends.swap(0, 1);
        session
    }

    /// A message to the second end. The buffer is one that was used before.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> &[u8] {
        self.message.clear();
        self.ends[0].encrypt(&mut self.rng, plaintext, &mut self.message).expect("there are keys");
        self.message()
    }

    /// The last message that was encrypted.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Whether the second end can open it. The buffer is one that was used before.
    pub fn decrypt(&mut self, message: &[u8]) -> bool {
        self.opened.clear();
        self.ends[1].decrypt(message, &mut self.opened).is_ok()
    }

    /// One direction of a ping-pong: one end makes a new key, agrees and encrypts; the other agrees and decrypts. The next turn
    /// goes the other way.
    pub fn turn(&mut self) {
        let Self { rng, ends: [from, to], message, opened } = self;
        message.clear();
        opened.clear();
        from.encrypt(rng, &[7; 64], message).expect("there are keys");
        to.decrypt(message, opened).expect("the message is genuine");
        self.ends.swap(0, 1);
    }

    /// Something as long as a message of 64 bytes that nobody sent.
    pub fn forgery(&mut self) -> Vec<u8> {
        let mut forgery = self.encrypt(&[7; 64]).to_vec();
        self.rng.fill_bytes(&mut forgery[1..]);
        forgery
    }

    /// The end that sends.
    pub fn into_sender(self) -> (ChaCha20Rng, Ratchet) {
        let [sender, _] = self.ends;
        (self.rng, sender)
    }
}

/// Decrypts what was encrypted before the clock ran.
pub struct Decrypting {
    session: Session,
    plaintext: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

impl Decrypting {
    /// Messages with that many bytes.
    pub fn new(size: usize) -> Self {
        Self { session: Session::new(), plaintext: vec![7; size], messages: Vec::new() }
    }
}

impl Task for Decrypting {
    fn prepare(&mut self, count: usize) {
        self.messages.resize_with(count, Vec::new);
        for message in &mut self.messages {
            message.clear();
            message.extend_from_slice(self.session.encrypt(&self.plaintext));
        }
    }

    fn run(&mut self, _count: usize) {
        for message in &self.messages {
            assert!(self.session.decrypt(message), "a genuine message opens");
        }
    }
}
