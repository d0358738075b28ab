//! Open rendezvous of this node: which machine a ticket leads to (`PROTOCOL 7`).

use std::collections::HashMap;
use std::sync::Arc;

use happy_wire::relay::MAX_RENDEZVOUS;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::mailbox::Mailbox;

/// `PROTOCOL 4`: the relay knows only the hash until a guest presents the ticket.
pub(crate) fn ticket_hash(ticket: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"happy/1 ticket hash").chain_update(ticket).finalize().into()
}

/// All open rendezvous. Taken at logins with a ticket and when one opens or ends, never for a routed frame.
///
/// INVARIANT: an entry stands here if and only if its host lists the same hash in `State::rendezvous`, so what one
/// device can enter is bounded by [`MAX_RENDEZVOUS`] and goes away with its connection. Both change under this lock,
/// which is taken before that of the host.
#[derive(Default)]
pub(crate) struct Table(Mutex<HashMap<[u8; 32], Arc<Mailbox>>>);

impl Table {
    /// Opens a rendezvous, or gives one that this host holds already a new end. False when it may not.
    pub(crate) fn open(&self, host: &Arc<Mailbox>, hash: [u8; 32], ends: Instant) -> Opened {
        let mut table = self.0.lock();
        let mut state = host.lock();
        if let Some(mine) = state.rendezvous.iter_mut().find(|(open, _)| *open == hash) {
            mine.1 = ends;
            return Opened::Again;
        }
        if !state.is_live() || state.rendezvous.len() >= MAX_RENDEZVOUS || table.contains_key(&hash) {
            return Opened::Refused;
        }
        table.insert(hash, host.clone());
        state.rendezvous.push((hash, ends));
        state.is_host = true;
        Opened::New
    }

    /// Ends those of `host` that `over` picks, and gives their hashes.
    pub(crate) fn end(&self, host: &Mailbox, over: impl Fn(&[u8; 32], Instant) -> bool) -> Vec<[u8; 32]> {
        let mut table = self.0.lock();
        let mut ended = Vec::new();
        host.lock().rendezvous.retain(|(hash, ends)| {
            let keep = !over(hash, *ends);
            if !keep {
                ended.push(*hash);
            }
            keep
        });
        for hash in &ended {
            table.remove(hash);
        }
        ended
    }

    /// The machine that a ticket hash leads to.
    pub(crate) fn host(&self, hash: &[u8; 32]) -> Option<Arc<Mailbox>> {
        self.0.lock().get(hash).cloned()
    }
}

/// What came of opening a rendezvous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opened {
    New,
    /// It was open; it has a new end.
    Again,
    Refused,
}
