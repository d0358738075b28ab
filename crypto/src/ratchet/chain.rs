//! Chains: a key that is replaced by each message.

use std::collections::VecDeque;

use x25519_dalek::StaticSecret;

use crate::{
    agreement::AgreementKey,
    secret::{ChainKey, HeaderKey, MessageKey, Secret32},
    suite::hmac_pair,
};

use super::MAX_SKIP;

/// PROTOCOL 6: N stops at 2³²−2.
const LAST_NUMBER: u32 = u32::MAX - 1;

/// `MK = HMAC(CK, 0x01), CK' = HMAC(CK, 0x02)`.
fn step(key: &ChainKey) -> (MessageKey, ChainKey) {
    let (mut message, mut next) = hmac_pair(key.as_bytes(), 1, 2);
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

    pub fn header_key(&self) -> &HeaderKey {
        &self.header_key
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
    pub fn commit(&mut self, staged: Staged) {
        self.skip_to(staged.number);
        self.key = staged.after;
        self.next = staged.number + 1;
    }

    /// The chain that has ended with this length. Its chain key is deleted; of its keys only the missing ones stay.
    pub fn finish(mut self, length: u32) -> OlderChain {
        self.skip_to(length);
        OlderChain { header_key: self.header_key, length, missing: self.missing }
    }

    fn skip_to(&mut self, number: u32) {
        while self.next < number {
            let (message, after) = step(&self.key);
            self.missing.push(self.next, message);
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
    missing: MissingKeys,
}

impl OlderChain {
    pub fn header_key(&self) -> &HeaderKey {
        &self.header_key
    }

    pub fn length(&self) -> u32 {
        self.length
    }

    pub fn missing(&self) -> &MissingKeys {
        &self.missing
    }

    pub fn missing_mut(&mut self) -> &mut MissingKeys {
        &mut self.missing
    }
}

/// The keys of messages of one chain that were overtaken by later ones.
#[derive(Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct MissingKeys {
    // INVARIANT: ascending. Boxed, because a queue that grows or closes a gap copies its elements and leaves the old bytes behind,
    // and a key that was used must not stay anywhere.
    keys: VecDeque<(u32, Box<MessageKey>)>,
}

impl MissingKeys {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn find(&self, number: u32) -> Option<(usize, &MessageKey)> {
        let index = self.keys.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.keys.get(index).map(|(_, key)| (index, &**key))
    }

    pub fn remove(&mut self, index: usize) {
        self.keys.remove(index);
    }

    fn push(&mut self, number: u32, key: MessageKey) {
        self.keys.push_back((number, Box::new(key)));
    }

    /// Drops up to `count` keys and says how many.
    pub fn drop_oldest(&mut self, count: usize) -> usize {
        let count = count.min(self.keys.len());
        self.keys.drain(..count);
        count
    }
}

/// Every byte of a chain, to compare states.
#[cfg(test)]
mod state {
    use super::*;

    impl SendingChain {
        pub fn state(&self) -> Vec<u8> {
            let (header, key) = (self.header_key.as_bytes(), self.key.as_bytes());
            [&header[..], key, &self.next.to_be_bytes(), &self.ratchet_key].concat()
        }
    }

    impl ReceivingChain {
        pub fn state(&self) -> Vec<u8> {
            let (header, key) = (self.header_key.as_bytes(), self.key.as_bytes());
            [&header[..], key, &self.next.to_be_bytes(), &self.missing.state()].concat()
        }
    }

    impl OlderChain {
        pub fn state(&self) -> Vec<u8> {
            [&self.header_key.as_bytes()[..], &self.length.to_be_bytes(), &self.missing.state()].concat()
        }
    }

    impl MissingKeys {
        fn state(&self) -> Vec<u8> {
            self.keys.iter().flat_map(|(number, key)| [&number.to_be_bytes()[..], key.as_bytes()].concat()).collect()
        }
    }
}
