//! What a handshake leaves behind.

use std::fmt;

use crate::{
    IdentityRecord, Ratchet,
    secret::{Exporter, PairKey, Secret32},
    suite::expand_from,
};

use super::PairSecret;

/// A session that both sides confirmed.
pub struct Established {
    /// Names the session in Sealed packets.
    pub session_id: [u8; 16],
    /// Who is at the other end.
    pub peer: IdentityRecord,
    /// Which life of it.
    pub peer_life: [u8; 16],
    /// What the responder answered to the context of the Hello; its meaning is the callers' business, its bytes are confirmed.
    pub reply: u8,
    /// Encrypts and decrypts.
    pub ratchet: Ratchet,
    /// The number of the secret that was mixed in; 0 for an invitation.
    secret_number: u64,
    exporter: Exporter,
}

impl Established {
    pub(super) fn new(
        session_id: [u8; 16],
        peer: IdentityRecord,
        (peer_life, reply): ([u8; 16], u8),
        ratchet: Ratchet,
        secret_number: u64,
        exporter: Exporter,
    ) -> Self {
        Self { session_id, peer, peer_life, reply, ratchet, secret_number, exporter }
    }

    /// PROTOCOL 5: the number from 0 to 999,999 that a person reads at the initiator and types at the responder.
    #[must_use]
    pub fn confirmation_code(&self) -> u32 {
        let mut bytes = [0; 8];
        expand_from(self.exporter.as_bytes(), &[b"happy/1 confirmation code"], &mut bytes);
        (u64::from_be_bytes(bytes) % 1_000_000) as u32
    }

    /// PROTOCOL 5: what the next handshake of these two devices mixes in.
    #[must_use]
    pub fn next_pair_secret(&self) -> PairSecret {
        let mut key = [0; 32];
        expand_from(self.exporter.as_bytes(), &[b"happy/1 pair secret"], &mut key);
        PairSecret::new(self.secret_number.saturating_add(1), PairKey::take(&mut key))
    }
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established").field("peer", &self.peer.device_id()).finish_non_exhaustive()
    }
}
