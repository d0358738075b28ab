//! Chains: a key that is replaced by each message.

use std::collections::VecDeque;

use x25519_dalek::StaticSecret;

use crate::{
    agreement::AgreementKey,
    mac::MacKey,
    secret::{ChainKey, HeaderKey, MessageKey, Secret32},
};

use super::MAX_SKIP;

/// PROTOCOL 6: N stops at 2³²−2.
pub(super) const LAST_NUMBER: u32 = u32::MAX - 1;

/// `MK = HMAC(CK, 0x01), CK' = HMAC(CK, 0x02)`.
fn step(key: &ChainKey) -> (MessageKey, ChainKey) {
    let [mut message, mut next] = MacKey::new(key.as_bytes()).pair([1, 2]);
    (MessageKey::take(&mut message), ChainKey::take(&mut next))
}

/// What we send with, until the other side answers.
#[cfg_attr(test, derive(Clone))]
pub(super) struct SendingChain {
    header_key: HeaderKey,
    key: ChainKey,
    /// The number of the next message.
    next: u32,
    // Computed once per chain: on a phone it costs as much as all the rest of a message.
    ratchet_key: [u8; 32],
}

impl SendingChain {
    pub fn new(header_key: HeaderKey, key: ChainKey, mine: &StaticSecret) -> Self {
        Self { header_key, key, next: 0, ratchet_key: *AgreementKey::of(mine).as_bytes() }
    }

    /// A chain that was stored, with the number of its next message.
    pub fn restored(header_key: HeaderKey, key: ChainKey, mine: &StaticSecret, next: u32) -> Self {
        Self { next, ..Self::new(header_key, key, mine) }
    }

    pub fn header_key(&self) -> &HeaderKey {
        &self.header_key
    }

    /// The chain key and the number of the next message after `messages` more.
    pub fn ahead(&self, messages: u32) -> (ChainKey, u32) {
        let messages = messages.min((LAST_NUMBER + 1).saturating_sub(self.next));
        let key = (0..messages).fold(self.key.clone(), |key, _| step(&key).1);
        (key, self.next + messages)
    }

    pub fn ratchet_key(&self) -> &[u8; 32] {
        &self.ratchet_key
    }

    pub fn has_keys(&self) -> bool {
        self.next <= LAST_NUMBER
    }

    pub fn length(&self) -> u32 {
        self.next
    }

    /// Number and key of the next message. The key is not handed out again.
    pub fn advance(&mut self) -> Option<(u32, MessageKey)> {
        if !self.has_keys() {
            return None;
        }
        let (message, next) = step(&self.key);
        self.key = next;
        self.next += 1;
        Some((self.next - 1, message))
    }

    #[cfg(test)]
    pub fn pretend_to_have_sent(&mut self, messages: u32) {
        self.next = messages;
    }
}

/// What we receive with.
#[cfg_attr(test, derive(Clone))]
pub(super) struct ReceivingChain {
    header_key: HeaderKey,
    key: ChainKey,
    /// The number that `key` stands at.
    next: u32,
    missing: MissingKeys,
}

/// A message key that was derived beside the chain, and where the chain stands after it.
pub(super) struct Staged {
    message: MessageKey,
    number: u32,
    after: ChainKey,
}

impl Staged {
    pub fn key(&self) -> &MessageKey {
        &self.message
    }
}

impl ReceivingChain {
    pub fn new(header_key: HeaderKey, key: ChainKey) -> Self {
        Self { header_key, key, next: 0, missing: MissingKeys::default() }
    }

    /// A chain that was stored.
    pub fn restored(header_key: HeaderKey, key: ChainKey, next: u32, missing: MissingKeys) -> Self {
        Self { header_key, key, next, missing }
    }

    pub fn key(&self) -> &ChainKey {
        &self.key
    }

    pub fn next_number(&self) -> u32 {
        self.next
    }

    pub fn header_key(&self) -> &HeaderKey {
        &self.header_key
    }

    pub fn missing(&self) -> &MissingKeys {
        &self.missing
    }

    pub fn missing_mut(&mut self) -> &mut MissingKeys {
        &mut self.missing
    }

    pub fn has_passed(&self, number: u32) -> bool {
        number < self.next
    }

    /// How many messages are missing at the end of a chain that the other side says had `length`. `None` when that is less than
    /// we have seen, or more than one message may skip.
    pub fn rest(&self, length: u32) -> Option<u32> {
        length.checked_sub(self.next).filter(|rest| *rest <= MAX_SKIP)
    }

    /// The key of a message that has not been passed, without touching the chain. `None` when it is too far away.
    pub fn stage(&self, number: u32) -> Option<Staged> {
        let skipped = number.checked_sub(self.next)?;
        if skipped > MAX_SKIP || number > LAST_NUMBER {
            return None;
        }
        let (mut message, mut after) = step(&self.key);
        for _ in 0..skipped {
            (message, after) = step(&after);
        }
        Some(Staged { message, number, after })
    }

    /// Moves the chain behind a message that was opened. What was skipped is derived again and kept: deriving twice is cheaper
    /// than holding hundreds of keys for a message that may be forged.
    pub fn commit(&mut self, staged: Staged, now: u64) {
        self.skip_to(staged.number, now);
        self.key = staged.after;
        self.next = staged.number + 1;
    }

    /// The chain that has ended with this length. Its chain key is deleted; of its keys only the missing ones stay.
    pub fn finish(mut self, length: u32, now: u64) -> OlderChain {
        self.skip_to(length, now);
        OlderChain { header_key: self.header_key, length, finished_at: now, missing: self.missing }
    }

    fn skip_to(&mut self, number: u32, now: u64) {
        while self.next < number {
            let (message, after) = step(&self.key);
            self.missing.push(self.next, now, message);
            self.key = after;
            self.next += 1;
        }
    }
}

/// A chain that the other side has finished.
#[cfg_attr(test, derive(Clone))]
pub(super) struct OlderChain {
    header_key: HeaderKey,
    length: u32,
    finished_at: u64,
    missing: MissingKeys,
}

impl OlderChain {
    /// A chain that was stored.
    pub fn restored(header_key: HeaderKey, length: u32, finished_at: u64, missing: MissingKeys) -> Self {
        Self { header_key, length, finished_at, missing }
    }

    pub fn header_key(&self) -> &HeaderKey {
        &self.header_key
    }

    pub fn length(&self) -> u32 {
        self.length
    }

    /// When the chain after it began.
    pub fn finished_at(&self) -> u64 {
        self.finished_at
    }

    pub fn missing(&self) -> &MissingKeys {
        &self.missing
    }

    pub fn missing_mut(&mut self) -> &mut MissingKeys {
        &mut self.missing
    }
}

/// The key of a message that was overtaken by a later one.
#[cfg_attr(test, derive(Clone))]
pub(super) struct Missing {
    pub number: u32,
    pub since: u64,
    pub key: Box<MessageKey>,
}

/// The keys of messages of one chain that were overtaken by later ones.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct MissingKeys {
    // INVARIANT: ascending by number, and so by time. Boxed, because a queue that grows or closes a gap copies its elements and leaves the old bytes behind,
    // and a key that was used must not stay anywhere.
    keys: VecDeque<Missing>,
}

impl MissingKeys {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Missing> {
        self.keys.iter()
    }

    pub fn find(&self, number: u32) -> Option<(usize, &MessageKey)> {
        let index = self.keys.binary_search_by_key(&number, |missing| missing.number).ok()?;
        self.keys.get(index).map(|missing| (index, &*missing.key))
    }

    pub fn remove(&mut self, index: usize) {
        self.keys.remove(index);
    }

    pub fn push(&mut self, number: u32, since: u64, key: MessageKey) {
        self.keys.push_back(Missing { number, since, key: Box::new(key) });
    }

    /// Drops the keys of messages that have been missing since before that time.
    pub fn forget(&mut self, before: u64) {
        let old = self.keys.iter().take_while(|missing| missing.since < before).count();
        self.keys.drain(..old);
    }

    /// Drops up to `count` keys and says how many.
    pub fn drop_oldest(&mut self, count: usize) -> usize {
        let count = count.min(self.keys.len());
        self.keys.drain(..count);
        count
    }
}
