//! What both sides of a pairing share once the handshake is done.

use happy_crypto::{
    Bundle, DeviceId, IdentityRecord, OpenError, Ratchet,
    handshake::{Established, PairSecret},
};
use happy_wire::packet::{SEALED_PREFIX, SESSION_ID, put_sealed_prefix};
use rand_core::CryptoRng;

use crate::{Change, Origin, Role, Statement, message::Message};

/// Packets that prove nothing: bad handshakes, unreadable bytes. Each may cost a few agreements, so they are counted, and a
/// pairing in which there are more ends. An honest peer sends none.
pub(crate) const MAX_GARBAGE: u32 = 100;
/// Packets waiting to be sent. More are dropped: they are repeated, or answered again, anyway.
pub(crate) const MAX_QUEUE: usize = 32;

/// The other device after a pairing: everything that is to be stored.
#[derive(Debug, Clone)]
pub struct PairedPeer {
    /// Its keys.
    pub identity: IdentityRecord,
    /// What it is called.
    pub name: String,
    /// What it is in my eyes.
    pub role: Role,
    /// What I am in its eyes.
    pub my_role: Role,
    /// How to shake hands with it again. Only the side that joined has it, because only that side initiates.
    pub bundle: Option<Bundle>,
    /// Where to find it. Empty at the machine, whose relays they are.
    pub relays: Vec<Origin>,
    /// What the next handshake with it mixes in.
    pub secret: PairSecret,
    /// What it says about me, signed.
    pub theirs: Statement,
    /// What I say about it, signed.
    pub mine: Statement,
}

/// A confirmed session and the messages of it.
pub(crate) struct Session {
    id: [u8; SESSION_ID],
    peer: IdentityRecord,
    code: u32,
    pair_secret: PairSecret,
    ratchet: Ratchet,
}

/// What a sealed packet turned out to be.
pub(crate) enum Opened {
    Message(Message),
    /// The same packet as before: the other side wants our answer again.
    Repeated,
    /// Of this session, but no message: the other side does not keep to the protocol.
    Malformed,
    /// Not genuine, or not of this session.
    Garbage,
}

impl Session {
    pub fn new(established: Established) -> Self {
        let code = established.confirmation_code();
        let pair_secret = established.next_pair_secret();
        Self { id: established.session_id, peer: established.peer, code, pair_secret, ratchet: established.ratchet }
    }

    /// What the next handshake of the two will mix in.
    pub fn pair_secret(&self) -> &PairSecret {
        &self.pair_secret
    }

    pub fn peer(&self) -> &IdentityRecord {
        &self.peer
    }

    /// Six digits.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The packet of a message, or nothing before the ratchet can send. Kept by the caller, who repeats it byte for byte.
    pub fn seal(&mut self, rng: &mut impl CryptoRng, message: &Message) -> Option<Vec<u8>> {
        let plaintext = message.encode();
        let mut packet = Vec::with_capacity(SEALED_PREFIX + Ratchet::OVERHEAD + plaintext.len());
        put_sealed_prefix(&mut packet, &self.id);
        self.ratchet.encrypt(rng, &plaintext, &mut packet).ok()?;
        Some(packet)
    }

    pub fn open(&mut self, session: &[u8; SESSION_ID], message: &[u8]) -> Opened {
        if *session != self.id {
            return Opened::Garbage;
        }
        let mut plaintext = Vec::new();
        match self.ratchet.decrypt(message, &mut plaintext) {
            Ok(()) => Message::decode(&plaintext).map_or(Opened::Malformed, Opened::Message),
            Err(OpenError::Repeated) => Opened::Repeated,
            Err(OpenError::CannotBeOpened) => Opened::Garbage,
        }
    }

    /// Reads the statement that the other side makes about me in this pairing: by it, about me, in this session and this role.
    pub fn verify_statement(&self, bytes: &[u8], me: &IdentityRecord, my_role: Role) -> Option<Statement> {
        let statement = Statement::decode(bytes).ok()?;
        let Change::Add { subject, role, session, .. } = statement.change() else { return None };
        let holds =
            statement.author() == self.peer.device_id() && subject == me && *role == my_role && *session == self.id;
        holds.then_some(statement)
    }

    /// What I say about the other side in this pairing.
    pub fn add_peer(&self, role: Role, name: String) -> Change {
        Change::Add { subject: self.peer.clone(), role, name, session: self.id }
    }
}

/// What waits to be sent.
#[derive(Default)]
pub(crate) struct Outbox(std::collections::VecDeque<(DeviceId, Vec<u8>)>);

impl Outbox {
    /// Queues a packet, unless the very same one waits already or there are too many.
    pub fn push(&mut self, to: DeviceId, packet: Vec<u8>) {
        let waiting = self.0.iter().any(|(receiver, other)| *receiver == to && *other == packet);
        if !waiting && self.0.len() < MAX_QUEUE {
            self.0.push_back((to, packet));
        }
    }

    pub fn pop(&mut self) -> Option<(DeviceId, Vec<u8>)> {
        self.0.pop_front()
    }
}
