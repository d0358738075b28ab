//! What a handshake leaves behind.

use std::fmt;

use crate::{IdentityRecord, Ratchet, secret::Exporter, suite::expand_from};

/// A session that both sides confirmed.
pub struct Established {
    /// Names the session in Sealed packets.
    pub session_id: [u8; 16],
    /// Who is at the other end.
    pub peer: IdentityRecord,
    /// Which life of it.
    pub peer_life: [u8; 16],
    /// Encrypts and decrypts.
    pub ratchet: Ratchet,
    exporter: Exporter,
}

impl Established {
    pub(super) fn new(
        session_id: [u8; 16],
        peer: IdentityRecord,
        peer_life: [u8; 16],
        ratchet: Ratchet,
        exporter: Exporter,
    ) -> Self {
        Self { session_id, peer, peer_life, ratchet, exporter }
    }

    /// PROTOCOL 5: the number from 0 to 999,999 that a person reads at the initiator and types at the responder.
    #[must_use]
    pub fn confirmation_code(&self) -> u32 {
        let mut bytes = [0; 8];
        expand_from(self.exporter.as_bytes(), &[b"happy/1 confirmation code"], &mut bytes);
        (u64::from_be_bytes(bytes) % 1_000_000) as u32
    }
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established").field("peer", &self.peer.device_id()).finish_non_exhaustive()
    }
}
