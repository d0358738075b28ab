//! A ratchet that outlives its process, without ever sealing two messages with one key.
//!
//! **Happy Remote itself does not use this.** Its sessions live in memory and end with the process (PROTOCOL 8), which is the
//! safest thing to do with a ratchet. This module is for users of the library whose peers may be away for days.
//!
//! # Why a ratchet must not simply be saved
//!
//! Who saves after sending and crashes in between comes back with a message key that was used. Who saves before sending, and not
//! before *each* sending, does too. And who passes a plaintext on before it is saved that the message was opened gets the message twice.
//! So [`DurableRatchet`] lets nothing out, neither a message nor a plaintext, before one atomic commit has made it history:
//!
//! | form | one commit holds | after a crash | costs |
//! |---|---|---|---|
//! | outbox: [`send`](DurableRatchet::send) | the new state and the very message | the same bytes are sent again, never a new encryption | a commit per message |
//! | lease: [`send_leased`](DurableRatchet::send_leased) | the state [`LEASE`] numbers ahead | the rest of the lease is skipped, the message may be lost | a commit per [`LEASE`] messages |
//! | inbox: [`receive`](DurableRatchet::receive) | the new state and the plaintext | the plaintext is there again under the same id; before the commit, the message comes again | a commit per message |
//!
//! The outbox is for what must arrive, the lease for what is worth little by itself, such as the output of a terminal. Both may be used
//! on one ratchet: each commit writes the state as of the end of the lease. A lease belongs to one sending chain. When the ratchet
//! has turned, the new chain is committed before its first message, for otherwise a restored state would make another new
//! chain under the same header key, and the peer could open neither.
//!
//! # What the caller does
//!
//! - It holds a lock for as long as the value lives: see [`Storage`].
//! - It sends the bytes of [`pending`](DurableRatchet::pending) again, after a load too, and calls
//!   [`acknowledge`](DurableRatchet::acknowledge) when the peer says that it has them.
//! - It acknowledges to the peer after [`receive`](DurableRatchet::receive) returned, not before.
//! - It handles each of [`unhandled`](DurableRatchet::unhandled) and then calls [`handled`](DurableRatchet::handled). A crash
//!   between the two brings the plaintext again, so who must not act twice stores the [id](Kept::id) together with the
//!   effect and skips ids that it has passed.
//! - It remembers the largest [`generation`](DurableRatchet::generation) somewhere that is not restored together with the record, if it
//!   has such a place, and gives it to [`load`](DurableRatchet::load), which then refuses an older copy.
//! - It uses a key of its own for these records, and it gives randomness that a restored copy of the machine does not repeat.
//!
//! # A copy that nobody recognised as one
//!
//! A virtual machine set back, a browser profile out of a backup: nothing on this disk can tell. Such a state seals with message
//! keys that were used, but the salt of each message (PROTOCOL 6) still gives another key and nonce to the cipher, so no plaintext is exposed by it.
//! The peer opens nothing of it, or takes it for repetitions, and the two need a new handshake ([`renew`](DurableRatchet::renew)).
//!
//! ```
//! use happy_crypto::durable::{CommitError, DurableRatchet, Predecessor, Storage};
//! # use happy_crypto::{Bundle, Identity, SignedPrekey, handshake::{Initiator, InvitationKey, Responder, Shared}};
//! # use rand_core::SeedableRng;
//! /// A place in memory; a real one writes beside, syncs, renames, syncs the folder, and holds a lock.
//! #[derive(Default)]
//! struct Place(u64, Vec<u8>);
//!
//! impl Storage for Place {
//!     type Error = std::io::Error;
//!
//!     fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>> {
//!         if self.0 != expected {
//!             return Err(CommitError::Conflict);
//!         }
//!         *self = Self(generation, record.to_vec());
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let rng = &mut rand_chacha::ChaCha20Rng::seed_from_u64(1);
//! # let (phone, machine) = (Identity::generate(rng), Identity::generate(rng));
//! # let prekey = SignedPrekey::generate(rng, &machine, 1, 1_700_000_000);
//! # let bundle = Bundle::new(&machine, &prekey, None);
//! # let key = InvitationKey::new([7; 32].into());
//! # let (initiator, hello) = Initiator::start(rng, &phone, &bundle, Shared::Invitation(&key), [1; 16], b"")?;
//! # let (_, welcome) = Responder::answer(rng, &machine, &prekey, None, &hello, ([2; 16], 0), Shared::Invitation(&key))?;
//! # let (established, _confirm) = initiator.welcome(rng, &welcome)?;
//! let (mut place, key, peer) = (Place::default(), [5; 32], established.peer.device_id());
//! let mut ratchet =
//!     DurableRatchet::create(rng, &mut place, &key, peer, established.ratchet, Predecessor::default())?;
//! let sent = ratchet.send(rng, b"stored, then sent")?.bytes().to_vec();
//! drop(ratchet); // a crash
//!
//! let record = place.1.clone();
//! let ratchet = DurableRatchet::load(&mut place, &key, peer, &record, 0)?;
//! assert_eq!(ratchet.pending().next().map(|kept| kept.bytes()), Some(&sent[..]));
//! # Ok(())
//! # }
//! ```
//!
//! # What is bounded
//!
//! Outbox and inbox hold [`MAX_KEPT`] messages and [`MAX_KEPT_BYTES`] each; when one is full that is an error and nothing changes. A crash
//! skips at most [`LEASE`] numbers, and a receiver allows 512 in a row: eight crashes between which nothing arrived need a new handshake.

mod record;
mod storage;
#[cfg(test)]
mod tests;

use std::fmt;

use rand_core::CryptoRng;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    DecodeError, DeviceId, EncryptError, OpenError, Ratchet,
    seal::{self, UnsealError},
};

pub use record::Kept;
use record::Queue;
pub use storage::{CommitError, Storage};

/// Numbers that one commit reserves. The cost of a commit, spread over so many messages, is less than that of their encryption, and
/// what a crash skips stays far below the 512 that a receiver allows.
pub const LEASE: u32 = 64;
/// Messages that an outbox or an inbox holds. Every commit writes them all.
pub const MAX_KEPT: usize = 64;
/// Bytes that an outbox or an inbox holds.
pub const MAX_KEPT_BYTES: usize = 256 * 1024;

/// A [`Ratchet`] whose state is stored before anything leaves it.
pub struct DurableRatchet<S> {
    storage: S,
    key: Zeroizing<[u8; 32]>,
    peer: DeviceId,
    /// Of the record that is stored.
    generation: u64,
    ratchet: Ratchet,
    // INVARIANT: the stored sending chain is this much ahead of the one in memory. So 0 when there is no chain.
    reserved: u32,
    outbox: Queue,
    inbox: Queue,
    /// Whether memory is known to agree with the storage.
    settled: bool,
}

/// What stood in a place before a ratchet is [created](DurableRatchet::create) there; nothing by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Predecessor {
    /// The generation that the storage has.
    pub stored: u64,
    /// The largest generation that there is known to have been.
    pub known: u64,
}

impl<S: Storage> DurableRatchet<S> {
    /// Stores a ratchet that no message was sent or opened with yet, right after the handshake.
    ///
    /// For a place with a record that can be loaded, [`DurableRatchet::renew`] keeps what was not handled yet.
    ///
    /// # Errors
    /// When it was not stored. Then the ratchet is gone, and there has to be another handshake.
    pub fn create(
        rng: &mut impl CryptoRng,
        storage: S,
        key: &[u8; 32],
        peer: DeviceId,
        mut ratchet: Ratchet,
        before: Predecessor,
    ) -> Result<Self, CommitError<S::Error>> {
        ratchet.turn_with_each_answer();
        let mut created = Self {
            storage,
            key: Zeroizing::new(*key),
            peer,
            generation: before.stored,
            ratchet,
            reserved: 0,
            outbox: Queue::default(),
            inbox: Queue::default(),
            settled: true,
        };
        created.commit(rng, before.known.max(before.stored).saturating_add(1))?;
        Ok(created)
    }

    /// Goes on from a stored record. `at_least` is the largest generation that is known from elsewhere, 0 when none is.
    ///
    /// Nothing is written, and nothing is ever deleted: a record that cannot be loaded stays where it is. Send what is
    /// [pending](DurableRatchet::pending) and handle what is [unhandled](DurableRatchet::unhandled).
    ///
    /// # Errors
    /// When the record is damaged, of another version or peer, or older than the generation that is known.
    pub fn load(storage: S, key: &[u8; 32], peer: DeviceId, record: &[u8], at_least: u64) -> Result<Self, LoadError> {
        let opened = seal::open(key, record::KIND, record)?;
        let record = record::decode(&opened)?;
        if record.peer != peer {
            return Err(LoadError::AnotherPeer(record.peer));
        }
        if record.generation < at_least {
            return Err(LoadError::RolledBack { stored: record.generation, known: at_least });
        }
        Ok(Self {
            storage,
            key: Zeroizing::new(*key),
            peer,
            generation: record.generation,
            // The stored state stands at the end of the lease.
            ratchet: Ratchet::from_bytes(record.state)?,
            reserved: 0,
            outbox: record.outbox,
            inbox: record.inbox,
            settled: true,
        })
    }

    /// Puts the ratchet of a new handshake in the place of this one. What is unhandled stays; what is pending was encrypted for the
    /// old session and goes: its ids are returned, so that the caller can send those messages anew.
    ///
    /// # Errors
    /// When it was not stored; then the old ratchet goes on, and the new one is gone.
    pub fn renew(&mut self, rng: &mut impl CryptoRng, mut ratchet: Ratchet) -> Result<Vec<u64>, CommitError<S::Error>> {
        ratchet.turn_with_each_answer();
        let old = (std::mem::replace(&mut self.ratchet, ratchet), std::mem::take(&mut self.reserved));
        let outbox = std::mem::take(&mut self.outbox);
        match self.commit_next(rng) {
            Ok(()) => Ok(outbox.iter().map(Kept::id).collect()),
            Err(error) => {
                (self.ratchet, self.reserved) = old;
                self.outbox = outbox;
                Err(error)
            }
        }
    }

    /// Encrypts a message, stores it together with the new state, and returns what to send. It stays
    /// [pending](DurableRatchet::pending) until it is [acknowledged](DurableRatchet::acknowledge).
    ///
    /// # Errors
    /// When there is no key or no room, or when it was not stored; then nothing has changed.
    pub fn send(&mut self, rng: &mut impl CryptoRng, plaintext: &[u8]) -> Result<&Kept, SendError<S::Error>> {
        let length = plaintext.len().saturating_add(Ratchet::OVERHEAD);
        if length > MAX_KEPT_BYTES {
            return Err(EncryptError::TooLong.into());
        }
        if !self.outbox.has_room_for(length) {
            return Err(SendError::OutboxFull);
        }
        self.check_settled()?;
        let before = self.snapshot();
        let mut message = Vec::with_capacity(length);
        if let Err(error) = self.ratchet.encrypt(rng, plaintext, &mut message) {
            self.restore(&before);
            return Err(error.into());
        }
        self.reserved = self.reserved.saturating_sub(1);
        self.outbox.push(self.next_generation(), Zeroizing::new(message));
        if let Err(error) = self.commit_next(rng) {
            self.outbox.pop();
            self.restore(&before);
            return Err(error.into());
        }
        self.outbox.last().ok_or(SendError::OutboxFull)
    }

    /// Encrypts a message with a number of the lease and appends it to `out`; every [`LEASE`] messages, and whenever the ratchet
    /// has turned, one commit comes before. Nothing of the message is stored: what is lost is lost.
    ///
    /// # Errors
    /// When there is no key, or the next lease was not stored; then nothing has changed or is written.
    pub fn send_leased(
        &mut self,
        rng: &mut impl CryptoRng,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SendError<S::Error>> {
        self.check_settled()?;
        if self.reserved == 0 {
            self.lease(rng)?;
        }
        // The number is used up, whatever happens.
        self.reserved -= 1;
        Ok(self.ratchet.encrypt(rng, plaintext, out)?)
    }

    /// Reserves the next numbers of the sending chain, and begins a chain when the ratchet has turned.
    fn lease(&mut self, rng: &mut impl CryptoRng) -> Result<(), SendError<S::Error>> {
        let before = self.snapshot();
        let left = self.ratchet.begin_chain(rng)?;
        if left == 0 {
            return Err(EncryptError::Exhausted.into());
        }
        self.reserved = LEASE.min(left);
        if let Err(error) = self.commit_next(rng) {
            self.restore(&before);
            return Err(error.into());
        }
        Ok(())
    }

    /// Opens a message, stores its plaintext together with the new state, and returns it. It stays
    /// [unhandled](DurableRatchet::unhandled) until it is [handled](DurableRatchet::handled).
    ///
    /// [`OpenError::Repeated`] means that it was stored before: acknowledge it to the peer once more.
    ///
    /// # Errors
    /// When it does not open, there is no room, or it was not stored; then nothing has changed, and the message may come again.
    pub fn receive(&mut self, rng: &mut impl CryptoRng, message: &[u8]) -> Result<&Kept, ReceiveError<S::Error>> {
        let length = message.len().saturating_sub(Ratchet::OVERHEAD);
        if length > MAX_KEPT_BYTES {
            return Err(ReceiveError::TooLong);
        }
        if !self.inbox.has_room_for(length) {
            return Err(ReceiveError::InboxFull);
        }
        self.check_settled()?;
        let before = self.snapshot();
        let mut plaintext = Zeroizing::new(Vec::with_capacity(length));
        self.ratchet.decrypt(message, &mut plaintext)?;
        if !self.ratchet.has_sending_chain() {
            // The ratchet has turned. The rest of the lease was of a chain that is over.
            self.reserved = 0;
        }
        self.inbox.push(self.next_generation(), plaintext);
        if let Err(error) = self.commit_next(rng) {
            self.inbox.pop();
            self.restore(&before);
            return Err(error.into());
        }
        self.inbox.last().ok_or(ReceiveError::InboxFull)
    }

    /// What was [sent](DurableRatchet::send) and not acknowledged, oldest first: to be sent again byte for byte.
    pub fn pending(&self) -> impl Iterator<Item = &Kept> {
        self.outbox.iter()
    }

    /// What was received and not handled, oldest first.
    pub fn unhandled(&self) -> impl Iterator<Item = &Kept> {
        self.inbox.iter()
    }

    /// Lets a message go that the peer has. Says whether there was one. Is stored with the next commit: until then a crash only
    /// makes us send it again.
    pub fn acknowledge(&mut self, id: u64) -> bool {
        self.outbox.remove(id)
    }

    /// Lets a plaintext go that the application has dealt with. Says whether there was one. Is stored with the next commit: until then a crash
    /// brings it again, under the same id.
    pub fn handled(&mut self, id: u64) -> bool {
        self.inbox.remove(id)
    }

    /// Stores now what would be stored with the next commit, so that nothing handled stays at rest.
    ///
    /// # Errors
    /// When it was not stored.
    pub fn flush(&mut self, rng: &mut impl CryptoRng) -> Result<(), CommitError<S::Error>> {
        self.commit_next(rng)
    }

    /// [`Ratchet::expire`]; is stored with the next commit.
    pub fn expire(&mut self, now: u64) {
        self.ratchet.expire(now);
    }

    /// Whether there is a key to send with; see [`Ratchet::can_send`].
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.ratchet.can_send()
    }

    /// Names the session in Sealed packets (PROTOCOL 8).
    #[must_use]
    pub fn session_id(&self) -> [u8; 16] {
        self.ratchet.session_id()
    }

    /// Of the stored record. It grows with every commit.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn next_generation(&self) -> u64 {
        // 2⁶⁴ commits do not happen.
        self.generation.saturating_add(1)
    }

    fn check_settled(&self) -> Result<(), CommitError<S::Error>> {
        if self.settled { Ok(()) } else { Err(CommitError::Stale) }
    }

    fn commit_next(&mut self, rng: &mut impl CryptoRng) -> Result<(), CommitError<S::Error>> {
        self.commit(rng, self.next_generation())
    }

    fn commit(&mut self, rng: &mut impl CryptoRng, generation: u64) -> Result<(), CommitError<S::Error>> {
        self.check_settled()?;
        let state = self.ratchet.to_bytes_ahead(self.reserved);
        let record = record::encode(generation, self.peer, &state, &self.outbox, &self.inbox);
        let sealed = seal::seal(rng, &self.key, record::KIND, &record);
        // Before the call, so that a storage that panics leaves a value that refuses everything.
        self.settled = false;
        let outcome = self.storage.commit(self.generation, generation, &sealed);
        self.settled = matches!(outcome, Ok(()) | Err(CommitError::Refused(_)));
        if outcome.is_ok() {
            self.generation = generation;
        }
        outcome
    }

    /// The state to come back to when a commit fails.
    fn snapshot(&self) -> (Zeroizing<Vec<u8>>, u32) {
        (self.ratchet.to_bytes(), self.reserved)
    }

    fn restore(&mut self, (state, reserved): &(Zeroizing<Vec<u8>>, u32)) {
        match Ratchet::from_bytes(state) {
            Ok(ratchet) => (self.ratchet, self.reserved) = (ratchet, *reserved),
            // Cannot happen: a ratchet reads what it wrote. If it did, what is stored would be the truth.
            Err(_) => self.settled = false,
        }
    }
}

impl<S> fmt::Debug for DurableRatchet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, generation, settled, .. } = self;
        f.debug_struct("DurableRatchet")
            .field("peer", peer)
            .field("generation", generation)
            .field("settled", settled)
            .finish_non_exhaustive()
    }
}

/// A stored record cannot be gone on from. It is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Sealed by another version, with another key, or damaged.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    /// Written by another version of this program.
    #[error("the record cannot be read: {0}")]
    Malformed(#[from] DecodeError),
    /// It is that of another peer.
    #[error("the record belongs to another device, {0}")]
    AnotherPeer(DeviceId),
    /// An old copy was put in its place. Its keys were used: make a new handshake.
    #[error("the record is an old copy (generation {stored}, and there was {known}): make a new handshake")]
    RolledBack {
        /// Its generation.
        stored: u64,
        /// The generation that is known.
        known: u64,
    },
}

/// A message was not sent; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError<E: fmt::Debug + fmt::Display> {
    /// The ratchet has no key, or the message is too long.
    #[error(transparent)]
    Encrypt(#[from] EncryptError),
    /// [`MAX_KEPT`] messages or [`MAX_KEPT_BYTES`] bytes wait to be acknowledged.
    #[error("too many messages wait to be acknowledged: send them again and wait for the other side")]
    OutboxFull,
    /// The storage.
    #[error(transparent)]
    Commit(#[from] CommitError<E>),
}

/// A message was not received; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReceiveError<E: fmt::Debug + fmt::Display> {
    /// It does not open, or was opened before.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// [`MAX_KEPT`] plaintexts or [`MAX_KEPT_BYTES`] bytes wait to be handled.
    #[error("too many messages wait to be handled: handle them first, then let this one come again")]
    InboxFull,
    /// It is longer than all that an inbox holds.
    #[error("the message is too long to be stored")]
    TooLong,
    /// The storage.
    #[error(transparent)]
    Commit(#[from] CommitError<E>),
}
