//! The double ratchet with header encryption (PROTOCOL 6; Signal's specification, revision 3, section 4).
//!
//! Each message has a key of its own, and each round trip mixes in new agreement keys: a stolen state opens neither what came
//! before it nor, after one round trip, what comes later. Headers are encrypted too, so that whoever carries the messages sees
//! no counters, and a forged message is refused after a few attempts at 40 bytes, before any agreement.
//!
//! # Stage, then commit
//!
//! Decryption derives everything it needs beside the state and touches the state only after the tag of the body held. A damaged
//! or forged message therefore leaves no trace: not a counter, not a key.
//!
//! # What is bounded
//!
//! One message can make us compute [`MAX_SKIP`] keys, the keys of missing messages that we keep are at most
//! [`MAX_MISSING`] and no older than [`Ratchet::MISSING_FOR`], and a message is tried with at most two header keys and those of
//! [`MAX_OLDER_CHAINS`].

#[cfg(test)]
mod attacks;
mod chain;
mod message;
mod stored;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;

use crate::{
    EncryptError, OpenError,
    agreement::{self, AgreementKey, WeakKey, agree},
    secret::{ChainKey, HeaderKey, RootKey, Secret32},
    suite::{expand, extract},
};

use chain::{OlderChain, ReceivingChain, SendingChain};
use message::{Header, Sealed};

/// Keys that one message may skip. A sender has at most 256 messages on the way (PROTOCOL 9), and some that are not numbered.
const MAX_SKIP: u32 = 512;
/// Keys of missing messages that are kept in all, 40 bytes each.
const MAX_MISSING: usize = 1_024;
/// Chains before the current one whose messages can still be opened.
const MAX_OLDER_CHAINS: usize = 5;

/// One side of a session: encrypts what the other side decrypts.
///
/// Lives in memory only: a state that comes back from a disk may be older than what was sent with it. Who has to store one uses
/// [`durable`](crate::durable), which never seals two messages with one key.
pub struct Ratchet {
    session_id: [u8; 16],
    root: RootKey,
    my_key: StaticSecret,
    /// `None` at a responder that has not sent yet.
    sending: Option<SendingChain>,
    /// The key with which the other side turned the ratchet, until we do. We turn it with a message, not before: so receiving needs no
    /// randomness, and a key is no older than its first use (Signal's specification, 8.5).
    due: Option<AgreementKey>,
    next_sending_header: HeaderKey,
    /// How many messages the previous sending chain had.
    previous_length: u32,
    /// `None` until something was received.
    receiving: Option<ReceivingChain>,
    next_receiving_header: HeaderKey,
    // INVARIANT: at most MAX_OLDER_CHAINS, oldest first.
    older: VecDeque<OlderChain>,
    /// The time of the last [`Ratchet::expire`].
    now: u64,
    /// [`Ratchet::turn_once_a_second`] was called.
    is_paced: bool,
    /// The time of our last turn, if there was a clock.
    turned_at: Option<u64>,
}

impl Ratchet {
    /// How long the key of a missing message is kept, in seconds of [`Ratchet::expire`].
    pub const MISSING_FOR: u64 = 3_600;

    /// Bytes that encryption adds: version, salt, sealed header, tag of the body.
    pub const OVERHEAD: usize = message::BODY + crate::suite::TAG;

    /// "Alice" of the specification: knows the first ratchet key of the responder and can send at once.
    pub(crate) fn initiator(
        rng: &mut impl CryptoRng,
        session_id: [u8; 16],
        root: &RootKey,
        their_key: &AgreementKey,
        header: HeaderKey,
        next_receiving_header: HeaderKey,
    ) -> Result<Self, WeakKey> {
        let my_key = agreement::generate(rng);
        let step = RootStep::take(root, &my_key, their_key)?;
        Ok(Self {
            session_id,
            root: step.root,
            sending: Some(SendingChain::new(header, step.chain, &my_key)),
            due: None,
            my_key,
            next_sending_header: step.next_header,
            previous_length: 0,
            receiving: None,
            next_receiving_header,
            older: VecDeque::new(),
            now: 0,
            is_paced: false,
            turned_at: None,
        })
    }

    /// "Bob" of the specification: cannot send before it has received.
    pub(crate) fn responder(
        session_id: [u8; 16],
        root: RootKey,
        my_key: StaticSecret,
        next_receiving_header: HeaderKey,
        next_sending_header: HeaderKey,
    ) -> Self {
        Self {
            session_id,
            root,
            my_key,
            sending: None,
            due: None,
            next_sending_header,
            previous_length: 0,
            receiving: None,
            next_receiving_header,
            older: VecDeque::new(),
            now: 0,
            is_paced: false,
            turned_at: None,
        }
    }

    /// Whether [`Ratchet::encrypt`] would find a key: false at a responder that has not received yet, and after 2³²−1 messages
    /// without a reply.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.due.is_some() || self.sending.as_ref().is_some_and(SendingChain::has_keys)
    }

    /// Encrypts a message and appends it to `out`, which grows by the plaintext and [`Ratchet::OVERHEAD`].
    ///
    /// # Errors
    /// When there is no key to send with; then nothing is written.
    pub fn encrypt(
        &mut self,
        rng: &mut impl CryptoRng,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncryptError> {
        if let Some(theirs) = self.due
            && !self.turn_can_wait()
        {
            self.turn(rng, &theirs)?;
        }
        let Some(chain) = &mut self.sending else { return Err(EncryptError::NotYet) };
        let (number, key) = chain.advance().ok_or(EncryptError::Exhausted)?;
        let header = Header { ratchet_key: *chain.ratchet_key(), previous_length: self.previous_length, number };
        let mut salt = [0; message::SALT];
        rng.fill_bytes(&mut salt);
        // From here on the key is used up, whatever happens.
        message::seal(&self.session_id, &salt, chain.header_key(), &header, &key, plaintext, out)
    }

    /// From now on begins a new chain at most once in each second of [`Ratchet::expire`], and not with every answer. Two who take turns,
    /// as a keyboard and its echo do, then mostly send without a step on the curve, and a state that was stolen heals up to a second later
    /// (PROTOCOL 6).
    pub fn turn_once_a_second(&mut self) {
        self.is_paced = true;
    }

    /// The time that it is told may have stood still: the next turn that is due does not wait.
    pub fn turn_without_waiting(&mut self) {
        self.turned_at = None;
    }

    /// As it does at first. A state that is stored has no chain while a new one is due, so it must not send with one.
    pub(crate) fn turn_with_each_answer(&mut self) {
        self.is_paced = false;
    }

    /// Whether a turn that is due may come with a later message.
    fn turn_can_wait(&self) -> bool {
        self.is_paced && self.turned_at == Some(self.now) && self.sending.as_ref().is_some_and(SendingChain::has_keys)
    }

    /// Begins a sending chain with a new key of ours.
    fn turn(&mut self, rng: &mut impl CryptoRng, theirs: &AgreementKey) -> Result<(), EncryptError> {
        let my_key = agreement::generate(rng);
        // Their key has agreed with one of ours when it came, and a key that is of low order does so with none.
        let step = RootStep::take(&self.root, &my_key, theirs).map_err(|_| EncryptError::NotYet)?;
        let header = std::mem::replace(&mut self.next_sending_header, step.next_header);
        if let Some(finished) = self.sending.replace(SendingChain::new(header, step.chain, &my_key)) {
            self.previous_length = finished.length();
        }
        self.due = None;
        // Before the first second has passed, nobody has told the time.
        self.turned_at = Some(self.now).filter(|now| *now > 0);
        self.root = step.root;
        self.my_key = my_key;
        Ok(())
    }

    /// Decrypts a message and appends the plaintext to `out`.
    ///
    /// # Errors
    /// When the message does not open; then nothing is written and nothing has changed.
    pub fn decrypt(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let sealed = Sealed::parse(&self.session_id, message).ok_or(OpenError::CannotBeOpened)?;
        let turn_is_likely = self.turn_is_likely();
        if turn_is_likely && let Some(header) = sealed.open_header(&self.next_receiving_header) {
            return self.decrypt_next(&sealed, &header, out);
        }
        if let Some(chain) = &mut self.receiving
            && let Some(header) = sealed.open_header(chain.header_key())
        {
            return decrypt_current(chain, &mut self.older, self.now, &sealed, &header, out);
        }
        if !turn_is_likely && let Some(header) = sealed.open_header(&self.next_receiving_header) {
            return self.decrypt_next(&sealed, &header, out);
        }
        // The younger the likelier.
        for chain in self.older.iter_mut().rev() {
            if let Some(header) = sealed.open_header(chain.header_key()) {
                return decrypt_older(chain, &sealed, &header, out);
            }
        }
        Err(OpenError::CannotBeOpened)
    }

    /// Forgets the keys of messages that have been missing for [`Ratchet::MISSING_FOR`] seconds, and chains that ended as long ago.
    ///
    /// `now` counts seconds from anywhere and should stand still while nothing can arrive. A ratchet that is never told the time
    /// keeps what its other bounds allow.
    pub fn expire(&mut self, now: u64) {
        if now <= self.now {
            return;
        }
        self.now = now;
        let Some(before) = self.now.checked_sub(Self::MISSING_FOR) else { return };
        if let Some(chain) = &mut self.receiving {
            chain.missing_mut().forget(before);
        }
        for chain in &mut self.older {
            chain.missing_mut().forget(before);
        }
        self.older.retain(|chain| chain.finished_at() >= before || !chain.missing().is_empty());
    }

    /// Whether the two seem to take turns: nothing followed the first message of this chain, and we have answered it. Then the next
    /// header key is tried first. The order changes nothing but the time, because no header opens with two keys.
    fn turn_is_likely(&self) -> bool {
        self.due.is_none()
            && self.sending.is_some()
            && self.receiving.as_ref().is_none_or(|chain| chain.next_number() == 1)
    }

    /// The first message of the other side's next chain: the ratchet turns.
    fn decrypt_next(&mut self, sealed: &Sealed<'_>, header: &Header, out: &mut Vec<u8>) -> Result<(), OpenError> {
        // Stage: the end of the old chain, the new root, the new chain up to this message.
        let rest = match &self.receiving {
            Some(chain) => chain.rest(header.previous_length).ok_or(OpenError::CannotBeOpened)?,
            None if header.previous_length == 0 => 0,
            None => return Err(OpenError::CannotBeOpened),
        };
        if header.number > MAX_SKIP.checked_sub(rest).ok_or(OpenError::CannotBeOpened)? {
            return Err(OpenError::CannotBeOpened);
        }
        let theirs = AgreementKey::decode(&header.ratchet_key).map_err(|_| OpenError::CannotBeOpened)?;
        let step = RootStep::take(&self.root, &self.my_key, &theirs).map_err(|_| OpenError::CannotBeOpened)?;
        let mut next = ReceivingChain::new(self.next_receiving_header.clone(), step.chain);
        let staged = next.stage(header.number).ok_or(OpenError::CannotBeOpened)?;
        if !sealed.open_body(staged.key(), out) {
            return Err(OpenError::CannotBeOpened);
        }

        // Commit.
        next.commit(staged, self.now);
        if let Some(finished) = self.receiving.replace(next) {
            keep_older(&mut self.older, finished.finish(header.previous_length, self.now));
        }
        self.next_receiving_header = step.next_header;
        self.root = step.root;
        self.due = Some(theirs);
        drop_oldest_keys(self.receiving.as_mut(), &mut self.older);
        Ok(())
    }
}

/// A message of the other side's current chain: a new one, or one that was missing.
fn decrypt_current(
    chain: &mut ReceivingChain,
    older: &mut VecDeque<OlderChain>,
    now: u64,
    sealed: &Sealed<'_>,
    header: &Header,
    out: &mut Vec<u8>,
) -> Result<(), OpenError> {
    if chain.has_passed(header.number) {
        return chain.missing_mut().open(sealed, header.number, out);
    }
    let staged = chain.stage(header.number).ok_or(OpenError::CannotBeOpened)?;
    if !sealed.open_body(staged.key(), out) {
        return Err(OpenError::CannotBeOpened);
    }
    chain.commit(staged, now);
    drop_oldest_keys(Some(chain), older);
    Ok(())
}

/// A message of a chain that the other side has finished.
fn decrypt_older(
    chain: &mut OlderChain,
    sealed: &Sealed<'_>,
    header: &Header,
    out: &mut Vec<u8>,
) -> Result<(), OpenError> {
    if header.number >= chain.length() {
        // Its own PN said that there is no such message.
        return Err(OpenError::CannotBeOpened);
    }
    chain.missing_mut().open(sealed, header.number, out)
}

/// Adds a finished chain. When there are too many, one that misses nothing goes first: a message that is sent again may come long
/// after the chains that followed it, and its key is worth more than telling repetitions from garbage.
fn keep_older(older: &mut VecDeque<OlderChain>, finished: OlderChain) {
    if older.len() == MAX_OLDER_CHAINS {
        let complete = older.iter().position(|chain| chain.missing().is_empty());
        older.remove(complete.unwrap_or(0));
    }
    older.push_back(finished);
}

/// PROTOCOL 6: at most 1,024 message keys are kept, oldest dropped first.
fn drop_oldest_keys(current: Option<&mut ReceivingChain>, older: &mut VecDeque<OlderChain>) {
    let kept: usize = older.iter().map(|chain| chain.missing().len()).sum::<usize>();
    let in_current = current.as_ref().map_or(0, |chain| chain.missing().len());
    let mut surplus = (kept + in_current).saturating_sub(MAX_MISSING);
    for chain in older {
        surplus -= chain.missing_mut().drop_oldest(surplus);
    }
    if let Some(chain) = current {
        chain.missing_mut().drop_oldest(surplus);
    }
}

/// `RK' ‖ CK ‖ NHK = Expand(Extract(salt = RK, ikm = DH), "happy/1 ratchet root", 96)`.
struct RootStep {
    root: RootKey,
    chain: ChainKey,
    next_header: HeaderKey,
}

impl RootStep {
    fn take(root: &RootKey, mine: &StaticSecret, theirs: &AgreementKey) -> Result<Self, WeakKey> {
        let shared = agree(mine, theirs)?;
        let mut okm = [[0; 32]; 3];
        expand(&extract(root.as_bytes(), &[shared.as_bytes()]), &[b"happy/1 ratchet root"], okm.as_flattened_mut());
        let [root, chain, next_header] = &mut okm;
        Ok(Self { root: RootKey::take(root), chain: ChainKey::take(chain), next_header: HeaderKey::take(next_header) })
    }
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ratchet").field("can_send", &self.can_send()).finish_non_exhaustive()
    }
}
