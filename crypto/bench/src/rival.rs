//! The same of vodozemac, the Olm of Matrix: a double ratchet without encrypted headers, with AES-CBC and HMAC, and 3DH.

use vodozemac::{
    Curve25519PublicKey, Curve25519SecretKey,
    olm::{Account, Message, OlmMessage, Session, SessionConfig},
};

use crate::measure::Task;

/// The bytes of the authentication code of a message, which [`SessionConfig::version_1`] cuts.
const MAC: usize = 8;
/// The most messages of a chain that vodozemac lets one message skip, 2,000, as a variable-length integer.
const LARGEST_GAP: [u8; 2] = [0xD0, 0x0F];

/// Two ends of a session.
pub struct Ends([Session; 2]);

impl Ends {
    /// A session in which both have spoken, so that the set-up no longer travels with each message.
    pub fn new() -> Self {
        let mut meeting = SetUps::new();
        meeting.prepare(1);
        let mut ends = Self(meeting.set_up());
        ends.turn();
        ends.turn();
        ends
    }

    /// A message to the second end.
    pub fn encrypt(&mut self, plaintext: &[u8]) -> OlmMessage {
        self.0[0].encrypt(plaintext).expect("there are keys")
    }

    /// Whether the second end can open it.
    pub fn decrypt(&mut self, message: &OlmMessage) -> bool {
        self.0[1].decrypt(message).is_ok()
    }

    /// One direction of a ping-pong.
    pub fn turn(&mut self) {
        let message = self.encrypt(&[7; 64]);
        assert!(self.decrypt(&message), "a genuine message opens");
        self.0.swap(0, 1);
    }
}

/// What costs it most of all that a stranger can send: a ratchet key that it has not seen, and a number as far ahead as it allows.
pub fn forgery() -> OlmMessage {
    let key = Curve25519PublicKey::from(&Curve25519SecretKey::new());
    let mut bytes = vec![3, 0x0A, 32];
    bytes.extend_from_slice(key.as_bytes());
    bytes.push(0x10);
    bytes.extend_from_slice(&LARGEST_GAP);
    bytes.extend_from_slice(&[0x22, 80]);
    bytes.extend_from_slice(&[7; 80 + MAC]);
    OlmMessage::Normal(Message::from_bytes(&bytes).expect("it is well-formed"))
}

/// Set-ups of two devices, both sides, up to the first message that was opened.
pub struct SetUps {
    alice: Account,
    bob: Account,
    one_time: Vec<Curve25519PublicKey>,
}

impl SetUps {
    /// Two devices.
    pub fn new() -> Self {
        Self { alice: Account::new(), bob: Account::new(), one_time: Vec::new() }
    }

    fn set_up(&mut self) -> [Session; 2] {
        let (alice, bob, config) = (&self.alice, &mut self.bob, SessionConfig::version_1());
        let one_time = self.one_time.pop().expect("one was prepared");
        let mut outbound =
            alice.create_outbound_session(config, bob.curve25519_key(), one_time).expect("the keys are sound");
        let OlmMessage::PreKey(first) = outbound.encrypt([7; 64]).expect("there are keys") else {
            unreachable!("the first message carries the set-up")
        };
        let inbound = bob.create_inbound_session(config, alice.curve25519_key(), &first).expect("it is genuine");
        [outbound, inbound.session]
    }
}

impl Task for SetUps {
    fn prepare(&mut self, count: usize) {
        self.bob.mark_keys_as_published();
        self.bob.generate_one_time_keys(count);
        self.one_time = self.bob.one_time_keys().into_values().collect();
    }

    fn run(&mut self, count: usize) {
        for _ in 0..count {
            self.set_up();
        }
    }
}

/// Decrypts what was encrypted before the clock ran.
pub struct Decrypting {
    ends: Ends,
    plaintext: Vec<u8>,
    messages: Vec<OlmMessage>,
}

impl Decrypting {
    /// Messages with that many bytes.
    pub fn new(size: usize) -> Self {
        Self { ends: Ends::new(), plaintext: vec![7; size], messages: Vec::new() }
    }
}

impl Task for Decrypting {
    fn prepare(&mut self, count: usize) {
        self.messages = (0..count).map(|_| self.ends.encrypt(&self.plaintext)).collect();
    }

    fn run(&mut self, _count: usize) {
        for message in &self.messages {
            assert!(self.ends.decrypt(message), "a genuine message opens");
        }
    }
}
