//! The storage of a device: one place for the ratchet's record, and beside it what the application stores by itself.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use happy_crypto::{
    durable::{CommitError, Storage},
    handshake::PairSecret,
};

use crate::schedule::Fault;

/// What survives a crash, and what a restored copy brings back.
#[derive(Clone, Default)]
pub struct Contents {
    /// The record and its generation.
    pub record: Option<(u64, Vec<u8>)>,
    /// The largest generation that the application saw.
    pub known: u64,
    /// The id of the last plaintext that the application handled.
    pub handled: u64,
    /// The effects of the application: the messages that were delivered.
    pub delivered: BTreeSet<u64>,
    /// The pair secret in use.
    pub current: Option<PairSecret>,
    /// The session of which the handshake left it.
    pub left_by: [u8; 16],
    /// The secret that this handshake had used; at the machine until the phone has shown that it has the current one.
    pub previous: Option<PairSecret>,
    /// At the phone: what is stored when the machine has shown that it has it.
    pub candidate: Option<Candidate>,
}

/// What a handshake leaves, before the other side is known to have it.
#[derive(Clone)]
pub struct Candidate {
    pub next: PairSecret,
    pub used: PairSecret,
    pub session: [u8; 16],
}

#[derive(Default)]
pub struct Disk {
    pub contents: Contents,
    pub snapshots: Vec<Contents>,
    pub compares: bool,
    pub fault: Option<Fault>,
    /// The process has ended in the middle of something.
    pub crashed: bool,
    /// A tombstone stands in the log of statements (PROTOCOL 11), which no copy of these contents brings back.
    pub revoked: bool,
    pub commits: u64,
}

impl Disk {
    /// Takes the fault if it is one of these.
    pub fn fault(&mut self, wanted: impl Fn(&Fault) -> bool) -> bool {
        let hit = self.fault.as_ref().is_some_and(wanted);
        if hit {
            self.fault = None;
        }
        hit
    }

    pub fn stored(&self) -> u64 {
        self.contents.record.as_ref().map_or(0, |(generation, _)| *generation)
    }
}

/// The place of the record, as the library sees it.
#[derive(Clone)]
pub struct Place(pub Rc<RefCell<Disk>>);

impl Storage for Place {
    type Error = &'static str;

    fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>> {
        let mut disk = self.0.borrow_mut();
        if disk.crashed {
            // Whoever goes on after the end of the process changes nothing.
            return Err(CommitError::Unsettled("crashed"));
        }
        if disk.compares && disk.stored() != expected {
            return Err(CommitError::Conflict);
        }
        let (stores, crashes, outcome) = match disk.fault {
            Some(Fault::CrashBeforeCommit) => (false, true, Err(CommitError::Unsettled("crash before the commit"))),
            Some(Fault::CrashInCommit { stored }) => (stored, true, Err(CommitError::Unsettled("crash in the commit"))),
            Some(Fault::CrashAfterCommit) => (true, true, Err(CommitError::Unsettled("crash after the commit"))),
            Some(Fault::Refuse) => (false, false, Err(CommitError::Refused("disk full"))),
            Some(Fault::Unsettle { stored }) => (stored, false, Err(CommitError::Unsettled("sync failed"))),
            Some(Fault::CrashBeforeHandling | Fault::CrashAfterHandling) | None => (true, false, Ok(())),
        };
        if outcome.is_err() {
            disk.fault = None;
        }
        disk.crashed = crashes;
        if stores {
            disk.commits += 1;
            disk.contents.record = Some((generation, record.to_vec()));
        }
        outcome
    }
}
