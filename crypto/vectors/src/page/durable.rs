//! PROTOCOL 6.2: what is stored of a ratchet that outlives its process.

use super::{Key, Opened, Ratchet, Sent, Turn, VERSION, fields::Reader};

/// Numbers that a lease reserves.
const LEASE: u32 = 64;

/// A ratchet with everything that its record holds.
pub struct Durable {
    /// Of the record.
    pub generation: u64,
    /// Device id of the other side.
    pub peer: [u8; 32],
    /// As it is in memory.
    pub ratchet: Ratchet,
    /// The number behind the lease; those below the next number are of no lease any more.
    lease_end: u32,
    /// Messages with the generations that stored them.
    pub outbox: Vec<(u64, Vec<u8>)>,
    /// Plaintexts with the generations that stored them.
    pub inbox: Vec<(u64, Vec<u8>)>,
}

impl Durable {
    /// The first record.
    #[must_use]
    pub fn new(peer: [u8; 32], ratchet: Ratchet) -> Self {
        Self { generation: 1, peer, ratchet, lease_end: 0, outbox: Vec::new(), inbox: Vec::new() }
    }

    /// A message that is kept in the outbox; the record is the next one then.
    pub fn send(&mut self, new_key: Option<Key>, salt: &[u8; 16], plaintext: &[u8]) -> Sent {
        let sent = self.ratchet.send(new_key, salt, plaintext);
        self.generation += 1;
        self.outbox.push((self.generation, sent.bytes.clone()));
        sent
    }

    /// Whether there is no number left that a record has passed.
    #[must_use]
    pub fn needs_lease(&self) -> bool {
        self.ratchet.next_number().is_none_or(|next| next >= self.lease_end)
    }

    /// Reserves the next numbers, of a new chain if the ratchet is due; the record is the next one then.
    ///
    /// # Panics
    /// When it may not send yet, or needs a new key and has none.
    pub fn lease(&mut self, new_key: Option<Key>) -> Option<Turn> {
        let turn = self.ratchet.begin_chain(new_key);
        self.lease_end = self.ratchet.next_number().expect("there is a chain") + LEASE;
        self.generation += 1;
        turn
    }

    /// A message with a number of the lease; no record follows.
    pub fn send_leased(&mut self, salt: &[u8; 16], plaintext: &[u8]) -> Sent {
        self.ratchet.send(None, salt, plaintext)
    }

    /// A message whose plaintext is kept in the inbox; the record is the next one then.
    pub fn receive(&mut self, message: &[u8]) -> Option<Opened> {
        let opened = self.ratchet.receive(message)?;
        if self.ratchet.is_due() {
            self.lease_end = 0;
        }
        self.generation += 1;
        self.inbox.push((self.generation, opened.plaintext.clone()));
        Some(opened)
    }

    /// The state in the record: its sending chain as of the end of the lease.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.ratchet.state(self.lease_end)
    }

    /// The record before it is sealed.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let state = self.state();
        let mut record = [&[VERSION][..], &self.generation.to_be_bytes(), &self.peer, &length(&state), &state].concat();
        for entries in [&self.outbox, &self.inbox] {
            record.extend_from_slice(&u16::try_from(entries.len()).expect("at most 64").to_be_bytes());
            for (id, bytes) in entries {
                record.extend_from_slice(&[&id.to_be_bytes()[..], &length(bytes), bytes].concat());
            }
        }
        record
    }

    /// Goes on from a record.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(record: &[u8]) -> Self {
        let mut reader = Reader(record);
        assert_eq!(reader.u8(), VERSION);
        let (generation, peer) = (reader.u64(), reader.array());
        let ratchet = Ratchet::read(&reader.prefixed());
        let [outbox, inbox] = std::array::from_fn(|_| {
            let count = reader.u16();
            (0..count).map(|_| (reader.u64(), reader.prefixed())).collect()
        });
        assert!(reader.0.is_empty());
        Self { generation, peer, ratchet, lease_end: 0, outbox, inbox }
    }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("at most 262,144").to_be_bytes()
}
