//! A ratchet as bytes (PROTOCOL 6.1), for [`durable`](crate::durable) and nobody else.

use std::collections::VecDeque;

use rand_core::CryptoRng;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::{
    DecodeError, EncryptError, VERSION,
    agreement::AgreementKey,
    reader::Reader,
    secret::{ChainKey, MessageKey, Secret32},
};

use super::{
    MAX_MISSING, MAX_OLDER_CHAINS, Ratchet,
    chain::{LAST_NUMBER, Missing, MissingKeys, OlderChain, ReceivingChain, SendingChain},
};

/// Version, session id, two keys, two header keys, length, time, two tags and a count.
const FIXED: usize = 1 + 16 + 4 * 32 + 4 + 8 + 3;
const CHAIN: usize = 32 + 32 + 4 + 8 + 2;
const MISSING: usize = 4 + 8 + 32;

impl Ratchet {
    /// The whole state. Whoever has it can read what comes next, and whoever sends from an older one seals with keys that were
    /// used, though thanks to the salts not with nonces that were.
    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.to_bytes_ahead(0)
    }

    /// The state that it will have when it has sent `reserved` messages more on its current chain, if it has one.
    pub(crate) fn to_bytes_ahead(&self, reserved: u32) -> Zeroizing<Vec<u8>> {
        // As large as it gets, because a vector that grows leaves copies of secrets behind.
        let chains = 2 + self.older.len();
        let mut out = Writer(Zeroizing::new(Vec::with_capacity(FIXED + chains * CHAIN + self.missing() * MISSING)));
        out.put(&[VERSION]);
        out.put(&self.session_id);
        out.put(self.root.as_bytes());
        out.put(self.my_key.as_bytes());
        out.put(self.next_sending_header.as_bytes());
        out.put(self.next_receiving_header.as_bytes());
        // While a turn is due the chain before it is not stored, only how long it was.
        let ended = self.sending.as_ref().filter(|_| self.due.is_some());
        out.put(&ended.map_or(self.previous_length, SendingChain::length).to_be_bytes());
        out.put(&self.now.to_be_bytes());
        match (&self.due, &self.sending) {
            (None, None) => out.put(&[0]),
            (Some(theirs), _) => {
                out.put(&[1]);
                out.put(theirs.as_bytes());
            }
            (None, Some(chain)) => {
                let (key, next) = chain.ahead(reserved);
                out.put(&[2]);
                out.put(chain.header_key().as_bytes());
                out.put(key.as_bytes());
                out.put(&next.to_be_bytes());
            }
        }
        match &self.receiving {
            None => out.put(&[0]),
            Some(chain) => {
                out.put(&[1]);
                out.put(chain.header_key().as_bytes());
                out.put(chain.key().as_bytes());
                out.put(&chain.next_number().to_be_bytes());
                out.put_missing(chain.missing());
            }
        }
        out.put(&[self.older.len() as u8]);
        for chain in &self.older {
            out.put(chain.header_key().as_bytes());
            out.put(&chain.length().to_be_bytes());
            out.put(&chain.finished_at().to_be_bytes());
            out.put_missing(chain.missing());
        }
        out.0
    }

    /// The state that [`Ratchet::to_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are not a state that a ratchet can be in.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.version()?;
        let session_id = *reader.array()?;
        let root = secret(&mut reader)?;
        let my_key = StaticSecret::from(*reader.array()?);
        let next_sending_header = secret(&mut reader)?;
        let next_receiving_header = secret(&mut reader)?;
        let previous_length = reader.u32()?;
        let now = reader.u64()?;
        let (due, sending) = match reader.u8()? {
            0 => (None, None),
            1 => (Some(AgreementKey::decode(reader.array()?)?), None),
            2 => {
                let (header, key) = (secret(&mut reader)?, secret::<ChainKey>(&mut reader)?);
                let next = reader.u32()?;
                (None, Some(SendingChain::restored(header, key, &my_key, next)))
            }
            _ => return Err(DecodeError::Field("sending chain")),
        };
        let receiving = match reader.u8()? {
            0 => None,
            1 => {
                let (header, key) = (secret(&mut reader)?, secret::<ChainKey>(&mut reader)?);
                let next = reader.u32()?;
                Some(ReceivingChain::restored(header, key, next, missing(&mut reader, next)?))
            }
            _ => return Err(DecodeError::Field("receiving chain")),
        };
        let count = usize::from(reader.u8()?);
        if count > MAX_OLDER_CHAINS {
            return Err(DecodeError::Field("older chains"));
        }
        let mut older = VecDeque::with_capacity(count);
        for _ in 0..count {
            let header = secret(&mut reader)?;
            let length = reader.u32()?;
            let finished_at = reader.u64()?;
            older.push_back(OlderChain::restored(header, length, finished_at, missing(&mut reader, length)?));
        }
        reader.finish()?;
        let ratchet = Self {
            session_id,
            root,
            my_key,
            sending,
            due,
            next_sending_header,
            previous_length,
            receiving,
            next_receiving_header,
            older,
            now,
            is_paced: false,
            turned_at: None,
        };
        if ratchet.missing() > MAX_MISSING { Err(DecodeError::Field("missing keys")) } else { Ok(ratchet) }
    }

    pub(crate) fn session_id(&self) -> [u8; 16] {
        self.session_id
    }

    /// Begins a sending chain if the ratchet has turned, and says for how many messages the current one has numbers.
    pub(crate) fn begin_chain(&mut self, rng: &mut impl CryptoRng) -> Result<u32, EncryptError> {
        if let Some(theirs) = self.due {
            self.turn(rng, &theirs)?;
        }
        let chain = self.sending.as_ref().ok_or(EncryptError::NotYet)?;
        Ok((LAST_NUMBER + 1).saturating_sub(chain.length()))
    }

    /// Whether the next message belongs to a chain that exists already.
    pub(crate) fn has_sending_chain(&self) -> bool {
        self.due.is_none() && self.sending.is_some()
    }

    /// How many keys of missing messages are kept.
    pub(super) fn missing(&self) -> usize {
        self.older.iter().map(|chain| chain.missing().len()).sum::<usize>()
            + self.receiving.as_ref().map_or(0, |chain| chain.missing().len())
    }
}

struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    fn put(&mut self, bytes: &[u8]) {
        debug_assert!(self.0.len() + bytes.len() <= self.0.capacity(), "the buffer would move");
        self.0.extend_from_slice(bytes);
    }

    fn put_missing(&mut self, keys: &MissingKeys) {
        self.put(&(keys.len() as u16).to_be_bytes()); // at most MAX_MISSING
        for Missing { number, since, key } in keys.iter() {
            self.put(&number.to_be_bytes());
            self.put(&since.to_be_bytes());
            self.put(key.as_bytes());
        }
    }
}

fn secret<S: Secret32>(reader: &mut Reader<'_>) -> Result<S, DecodeError> {
    Ok(S::take(&mut Zeroizing::new(*reader.array()?)))
}

/// The keys of missing messages of a chain, all of which have numbers below `next`.
fn missing(reader: &mut Reader<'_>, next: u32) -> Result<MissingKeys, DecodeError> {
    let count = reader.u16()?;
    if usize::from(count) > MAX_MISSING {
        return Err(DecodeError::Field("missing keys"));
    }
    let mut keys = MissingKeys::default();
    let mut least = 0;
    for _ in 0..count {
        let number = reader.u32()?;
        let since = reader.u64()?;
        if number < least || number >= next {
            return Err(DecodeError::Field("missing keys"));
        }
        least = number + 1;
        keys.push(number, since, secret::<MessageKey>(reader)?);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Two, older_chain};
    use super::*;

    /// A vector that grows leaves copies of secrets behind, so a state is written into room that was made for its parts.
    #[test]
    fn the_room_for_a_stored_state_is_that_of_its_parts() {
        let mut two = Two::new(32);
        let nothing = two.b.state().len();
        assert_eq!(nothing, FIXED, "neither sends nor has received");
        assert_eq!(two.a.state().len() - FIXED, CHAIN - 8 - 2, "a chain that sends misses nothing");
        let first = two.a_says(b"first");
        two.b_hears(&first).unwrap();
        let before = two.b.state().len();
        two.b.older.push_back(older_chain(9, &[]));
        assert_eq!(two.b.state().len() - before, CHAIN - 32, "one that has ended has no chain key");
        two.b.older.push_back(older_chain(9, &[1, 2]));
        assert_eq!(two.b.state().len() - before, 2 * (CHAIN - 32 + MISSING));
    }
}
