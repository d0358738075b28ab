//! What a durable ratchet asks of the place where its record is kept.

use thiserror::Error;

/// The place of one record.
///
/// A file that is written beside, synced, renamed and whose folder is synced fulfils this, and so does one row of a database in a
/// transaction with full durability; in a browser an IndexedDB transaction needs `durability: "strict"`, for its default may
/// lose a commit that it reported.
///
/// # One writer
///
/// The caller holds a lock on the place from before it reads the record until the [`DurableRatchet`](super::DurableRatchet) is
/// dropped: an advisory lock on the file, a Web Lock. A value that owns that lock is the right thing to implement this trait for.
/// The comparison of generations is the second line of defence: it finds a writer that came without the lock.
pub trait Storage {
    /// Why it could not be stored.
    type Error: std::fmt::Debug + std::fmt::Display;

    /// Puts `record`, whose generation is `generation`, in the place of the one with the generation `expected` (0: there is
    /// none), all or nothing. What was stored is durable when this returns.
    ///
    /// A storage that can compare keeps the number beside the record and refuses another one with [`CommitError::Conflict`].
    ///
    /// # Errors
    /// [`CommitError::Refused`] only when it is certain that nothing was stored.
    fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>>;
}

impl<S: Storage + ?Sized> Storage for &mut S {
    type Error = S::Error;

    fn commit(&mut self, expected: u64, generation: u64, record: &[u8]) -> Result<(), CommitError<Self::Error>> {
        (**self).commit(expected, generation, record)
    }
}

/// A record was not stored, or perhaps not. What the commit was for has not happened: nothing was released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommitError<E: std::fmt::Debug + std::fmt::Display> {
    /// Nothing was stored. The ratchet is as before, and the same may be tried again.
    #[error("the record was not stored: {0}")]
    Refused(E),
    /// Nobody knows whether it was stored, such as after a failed sync. Only a reload tells.
    #[error("it is unknown whether the record was stored ({0}): load it again")]
    Unsettled(E),
    /// Somebody else has written: two writers share the place.
    #[error("another writer has replaced the record: make sure that there is only one, and load it again")]
    Conflict,
    /// An earlier commit ended as [`CommitError::Unsettled`] or [`CommitError::Conflict`], and this value was not loaded since.
    #[error("an earlier commit left this value behind the storage: load it again")]
    Stale,
}
