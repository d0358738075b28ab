//! Membership statements (PROTOCOL 11): what one device says, signed, about another.

use happy_crypto::{DeviceId, Identity, IdentityRecord, VERSION, labelled_hash};
use thiserror::Error;

use crate::{
    Role,
    bytes::{Malformed, Reader, put_str8},
    name,
};

const LABEL: &str = "happy/1 statement";
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const SIGNATURE: usize = 64;

/// What a statement changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The device belongs to the author's devices from now on, or is known by another name or role.
    Add {
        /// The device.
        subject: IdentityRecord,
        /// What it may do.
        role: Role,
        /// What it is called; at most 64 bytes, without control characters.
        name: String,
        /// The session in which the two met.
        session: [u8; 16],
    },
    /// The device does not belong to them any more, and never will again: it would have to come back with another key.
    Remove {
        /// The device.
        subject: DeviceId,
    },
}

impl Change {
    /// The device that it is about.
    #[must_use]
    pub fn subject(&self) -> DeviceId {
        match self {
            Self::Add { subject, .. } => subject.device_id(),
            Self::Remove { subject } => *subject,
        }
    }
}

/// Where the next statement of an author goes: its number, and the hash of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStatement {
    /// Counted from 1.
    pub number: u64,
    /// Zero for the first.
    pub previous: [u8; 32],
}

impl NextStatement {
    /// For an author who has not said anything yet.
    pub const FIRST: Self = Self { number: 1, previous: [0; 32] };

    /// What follows a statement.
    #[must_use]
    pub fn after(statement: &Statement) -> Self {
        Self { number: statement.number.saturating_add(1), previous: statement.hash() }
    }
}

/// A statement whose signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    // INVARIANT: `bytes` is the canonical encoding of the other fields, and its signature holds.
    bytes: Vec<u8>,
    author: DeviceId,
    number: u64,
    previous: [u8; 32],
    at_unix: u64,
    change: Change,
}

impl Statement {
    /// The longest statement, bytes: an Add with a name of 64 bytes.
    pub const MAX_LEN: usize = 2 + 32 + 8 + 32 + 8 + IdentityRecord::LEN + 1 + 1 + name::MAX_NAME + 16 + SIGNATURE;

    /// Says something. A name is [cleaned](crate::clean_name) first; `at_unix` is in seconds, for display.
    #[must_use]
    pub fn sign(me: &Identity, next: &NextStatement, at_unix: u64, mut change: Change) -> Self {
        if let Change::Add { name, .. } = &mut change {
            *name = name::clean_name(name);
        }
        let kind = if matches!(change, Change::Add { .. }) { ADD } else { REMOVE };
        let author = me.device_id();
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(author.as_bytes());
        bytes.extend_from_slice(&next.number.to_be_bytes());
        bytes.extend_from_slice(&next.previous);
        bytes.extend_from_slice(&at_unix.to_be_bytes());
        match &change {
            Change::Add { subject, role, name, session } => {
                bytes.extend_from_slice(subject.as_bytes());
                bytes.push((*role).into());
                put_str8(&mut bytes, name);
                bytes.extend_from_slice(session);
            }
            Change::Remove { subject } => bytes.extend_from_slice(subject.as_bytes()),
        }
        let signature = me.sign(LABEL, &bytes);
        bytes.extend_from_slice(&signature);
        Self { bytes, author, number: next.number, previous: next.previous, at_unix, change }
    }

    /// Reads and verifies a statement.
    ///
    /// # Errors
    /// When it is malformed, of another version, or not signed by its author.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let (signed, signature) = bytes.split_last_chunk::<SIGNATURE>().ok_or(StatementError::Malformed)?;
        let mut reader = Reader::new(signed);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(StatementError::UnsupportedVersion(version));
        }
        let kind = reader.u8()?;
        let author = DeviceId::from_bytes(*reader.array()?);
        let number = reader.u64()?;
        let previous = *reader.array()?;
        let at_unix = reader.u64()?;
        let change = match kind {
            ADD => decode_add(&mut reader)?,
            REMOVE => Change::Remove { subject: DeviceId::from_bytes(*reader.array()?) },
            _ => return Err(StatementError::Malformed),
        };
        reader.finish()?;
        if (number == 0) || (number == 1) != (previous == [0; 32]) {
            return Err(StatementError::Malformed);
        }
        author.verify(LABEL, signed, signature).map_err(|_| StatementError::Signature)?;
        Ok(Self { bytes: bytes.to_vec(), author, number, previous, at_unix, change })
    }

    /// The statement as it is sent and stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the author's next statement names.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        labelled_hash("happy/1 statement hash", &[&self.bytes])
    }

    /// Who says it.
    #[must_use]
    pub fn author(&self) -> DeviceId {
        self.author
    }

    /// Which statement of the author it is, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The hash of the author's previous statement.
    #[must_use]
    pub fn previous(&self) -> [u8; 32] {
        self.previous
    }

    /// When, Unix seconds by the author's clock. For display only.
    #[must_use]
    pub fn at_unix(&self) -> u64 {
        self.at_unix
    }

    /// What it says.
    #[must_use]
    pub fn change(&self) -> &Change {
        &self.change
    }
}

fn decode_add(reader: &mut Reader<'_>) -> Result<Change, StatementError> {
    let subject = IdentityRecord::decode(reader.take(IdentityRecord::LEN)?).map_err(|_| StatementError::Malformed)?;
    let role = Role::try_from(reader.u8()?).map_err(|_| StatementError::Malformed)?;
    let name = reader.str8()?;
    if !name::is_clean(name) {
        return Err(StatementError::Malformed);
    }
    Ok(Change::Add { subject, role, name: name.to_owned(), session: *reader.array()? })
}

/// Bytes are not a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StatementError {
    /// The fields are not those of a statement.
    #[error("not a membership statement")]
    Malformed,
    /// Made by another version.
    #[error("the statement was made by another version ({0}) of Happy Remote; update the older side")]
    UnsupportedVersion(u8),
    /// Its author did not sign it.
    #[error("the signature of the statement does not hold")]
    Signature,
}

impl From<Malformed> for StatementError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn devices() -> (Identity, Identity) {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        (Identity::generate(rng), Identity::generate(rng))
    }

    fn add(name: &str) -> Statement {
        let (me, other) = devices();
        let change = Change::Add {
            subject: other.record().clone(),
            role: Role::Operator,
            name: name.to_owned(),
            session: [5; 16],
        };
        Statement::sign(&me, &NextStatement { number: 7, previous: [9; 32] }, 1_700_000_000, change)
    }

    #[test]
    fn what_is_signed_can_be_read() {
        let (me, other) = devices();
        let remove = Change::Remove { subject: other.device_id() };
        let remove = Statement::sign(&me, &NextStatement::FIRST, 0, remove);
        for statement in [add("Ann's phone"), remove] {
            assert_eq!(Statement::decode(statement.as_bytes()), Ok(statement));
        }
        assert_eq!(add(&"x".repeat(99)).as_bytes().len(), Statement::MAX_LEN);
    }

    #[test]
    fn any_changed_bit_and_any_other_length_is_refused() {
        let bytes = add("phone").as_bytes().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Statement::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Statement::decode(&bytes[..length]).is_err());
        }
        assert!(Statement::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn another_author_cannot_claim_it() {
        let (_, other) = devices();
        let mut bytes = add("phone").as_bytes().to_vec();
        bytes[2..34].copy_from_slice(other.device_id().as_bytes());
        assert_eq!(Statement::decode(&bytes), Err(StatementError::Signature));
    }

    #[test]
    fn names_that_could_move_a_cursor_are_refused_even_when_signed() {
        let (me, _) = devices();
        let honest = add("phone").as_bytes().to_vec();
        let mut hostile = honest[..honest.len() - SIGNATURE].to_vec();
        let at = hostile.windows(5).position(|window| window == b"phone").unwrap();
        hostile[at] = 0x1B;
        let signature = me.sign(LABEL, &hostile);
        hostile.extend_from_slice(&signature);
        assert_eq!(Statement::decode(&hostile), Err(StatementError::Malformed));
    }

    #[test]
    fn only_the_first_has_no_predecessor() {
        let (me, other) = devices();
        for next in [
            NextStatement { number: 0, previous: [0; 32] },
            NextStatement { number: 1, previous: [1; 32] },
            NextStatement { number: 2, previous: [0; 32] },
        ] {
            let statement = Statement::sign(&me, &next, 0, Change::Remove { subject: other.device_id() });
            assert_eq!(Statement::decode(statement.as_bytes()), Err(StatementError::Malformed));
        }
    }
}
