//! The log of statements that a device keeps (PROTOCOL 11), and what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use happy_crypto::{DeviceId, IdentityRecord};
use thiserror::Error;

use crate::{
    Change, NextStatement, Role, Statement, StatementError,
    bytes::{Reader, put_bytes16},
};

/// Statements in a log: years of daily changes, and at most four megabytes.
const MAX_STATEMENTS: usize = 10_000;

/// An append-only log: everything this device has said, and what its devices said about it.
///
/// Its own statements decide who its members are ([`Membership::resolve`]). Those of others are kept as their word: they show that a
/// device has agreed to be paired.
#[derive(Debug, Clone)]
pub struct Membership {
    me: DeviceId,
    statements: Vec<Statement>,
    /// Where the next statement of this device goes.
    next: NextStatement,
    /// INVARIANT: the devices that this one has removed.
    removed: BTreeSet<DeviceId>,
}

/// A device in the eyes of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its keys.
    pub record: IdentityRecord,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it was added first, Unix seconds.
    pub since: u64,
    /// When it was removed, Unix seconds. Such a device is refused and stays listed, so that it is not forgotten why.
    pub removed: Option<u64>,
}

impl Membership {
    /// The empty log of this device.
    #[must_use]
    pub fn new(me: DeviceId) -> Self {
        Self { me, statements: Vec::new(), next: NextStatement::FIRST, removed: BTreeSet::new() }
    }

    /// Adds a statement behind the others. Says whether it was new: a statement that stands in the log already is not an error.
    ///
    /// Only this device's own statements must follow each other. One of another device may have any number and any predecessor, even a
    /// number that it used before: it signs an Add, crashes before it is stored, and signs the next with the same number (PROTOCOL 11).
    ///
    /// # Errors
    /// When it is this device's own and does not continue what it said before or adds a device that it has removed, or when the
    /// log is full. The log is unchanged.
    pub fn append(&mut self, statement: Statement) -> Result<bool, AppendError> {
        if self.contains(&statement) {
            return Ok(false);
        }
        if self.statements.len() >= MAX_STATEMENTS {
            return Err(AppendError::Full);
        }
        if statement.author() == self.me {
            self.check_own(&statement)?;
            if let Change::Remove { subject } = statement.change() {
                self.removed.insert(*subject);
            }
            self.next = NextStatement::after(&statement);
        }
        self.statements.push(statement);
        Ok(true)
    }

    fn check_own(&self, statement: &Statement) -> Result<(), AppendError> {
        if statement.number() != self.next.number || statement.previous() != self.next.previous {
            return Err(AppendError::OutOfSequence);
        }
        match statement.change() {
            Change::Add { subject, .. } if self.removed.contains(&subject.device_id()) => Err(AppendError::Removed),
            Change::Add { .. } | Change::Remove { .. } => Ok(()),
        }
    }

    /// Where this device's next statement goes.
    #[must_use]
    pub fn next(&self) -> NextStatement {
        self.next
    }

    /// Whose log it is.
    #[must_use]
    pub fn me(&self) -> DeviceId {
        self.me
    }

    /// All statements, oldest first.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// The members, and those that were, by what this device itself has said.
    #[must_use]
    pub fn resolve(&self) -> BTreeMap<DeviceId, Member> {
        let mut members: BTreeMap<DeviceId, Member> = BTreeMap::new();
        for statement in self.statements.iter().filter(|statement| statement.author() == self.me) {
            let at = statement.at_unix();
            match statement.change() {
                Change::Add { subject, role, name, .. } => {
                    let since = members.get(&subject.device_id()).map_or(at, |member| member.since);
                    let member =
                        Member { record: subject.clone(), name: name.clone(), role: *role, since, removed: None };
                    members.insert(subject.device_id(), member);
                }
                Change::Remove { subject } => {
                    if let Some(member) = members.get_mut(subject) {
                        member.removed.get_or_insert(at);
                    }
                }
            }
        }
        members
    }

    /// Whether this device has removed that one, be it a member ever or not.
    #[must_use]
    pub fn is_removed(&self, device: &DeviceId) -> bool {
        self.removed.contains(device)
    }

    /// The log as it is stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for statement in &self.statements {
            Self::encode_entry(statement, &mut bytes);
        }
        bytes
    }

    /// What one statement adds to the stored log, so that a file can grow at its end.
    pub fn encode_entry(statement: &Statement, out: &mut Vec<u8>) {
        put_bytes16(out, statement.as_bytes());
    }

    /// Reads and verifies a stored log of this device.
    ///
    /// # Errors
    /// When an entry is cut, damaged or out of place. The error says where it begins: a file that was cut while it
    /// grew can be shortened to there.
    pub fn decode(me: DeviceId, bytes: &[u8]) -> Result<Self, LogError> {
        let mut log = Self::new(me);
        let mut reader = Reader::new(bytes);
        let mut offset = 0;
        while !reader.is_empty() {
            let entry = reader.bytes16().map_err(|_| LogError { offset, why: WhyLog::Cut })?;
            let statement =
                Statement::decode(entry).map_err(|error| LogError { offset, why: WhyLog::Statement(error) })?;
            match log.append(statement) {
                Ok(true) => {}
                Ok(false) => return Err(LogError { offset, why: WhyLog::Append(AppendError::OutOfSequence) }),
                Err(error) => return Err(LogError { offset, why: WhyLog::Append(error) }),
            }
            offset += 2 + entry.len();
        }
        Ok(log)
    }

    fn contains(&self, statement: &Statement) -> bool {
        self.statements.contains(statement)
    }
}

/// A statement does not fit into a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It does not follow the last statement of this device, or stands in the log twice.
    #[error("the statement does not follow the last one of its author")]
    OutOfSequence,
    /// Remove is final for a key.
    #[error("this device was removed and cannot be added again; it needs a new key")]
    Removed,
    /// The log has 10,000 statements.
    #[error("the membership log is full")]
    Full,
}

/// A stored log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the membership log cannot be read from byte {offset} on: {why}")]
pub struct LogError {
    /// Where the entry begins that cannot be read. Everything before is good.
    pub offset: usize,
    why: WhyLog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum WhyLog {
    #[error("it is cut")]
    Cut,
    #[error("{0}")]
    Statement(StatementError),
    #[error("{0}")]
    Append(AppendError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use happy_crypto::Identity;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    struct World {
        me: Identity,
        phone: Identity,
        tablet: Identity,
        log: Membership,
    }

    impl World {
        fn new() -> Self {
            let rng = &mut ChaCha20Rng::seed_from_u64(1);
            let me = Identity::generate(rng);
            let log = Membership::new(me.device_id());
            Self { log, phone: Identity::generate(rng), tablet: Identity::generate(rng), me }
        }

        fn say(&mut self, at: u64, change: Change) -> Result<bool, AppendError> {
            let statement = Statement::sign(&self.me, &self.log.next(), at, change);
            self.log.append(statement)
        }
    }

    fn add(device: &Identity, role: Role, name: &str) -> Change {
        Change::Add { subject: device.record().clone(), role, name: name.to_owned(), session: [1; 16] }
    }

    fn remove(device: &Identity) -> Change {
        Change::Remove { subject: device.device_id() }
    }

    #[test]
    fn members_are_those_added_and_not_removed() {
        let mut world = World::new();
        let (phone, tablet) = (world.phone.clone(), world.tablet.clone());
        world.say(10, add(&phone, Role::Owner, "phone")).unwrap();
        world.say(20, add(&tablet, Role::Viewer, "tablet")).unwrap();
        world.say(30, add(&tablet, Role::Operator, "big tablet")).unwrap();
        world.say(40, remove(&phone)).unwrap();
        let members = world.log.resolve();
        let member = &members[&tablet.device_id()];
        assert_eq!(
            (member.role, member.name.as_str(), member.since, member.removed),
            (Role::Operator, "big tablet", 20, None)
        );
        assert_eq!(members[&phone.device_id()].removed, Some(40));
        assert!(world.log.is_removed(&phone.device_id()) && !world.log.is_removed(&tablet.device_id()));
    }

    #[test]
    fn a_removed_device_never_comes_back() {
        let mut world = World::new();
        let phone = world.phone.clone();
        world.say(1, add(&phone, Role::Owner, "phone")).unwrap();
        world.say(2, remove(&phone)).unwrap();
        assert_eq!(world.say(3, add(&phone, Role::Owner, "phone")), Err(AppendError::Removed));
        assert_eq!(world.log.statements().len(), 2);
        assert_eq!(world.log.resolve()[&phone.device_id()].removed, Some(2));
    }

    #[test]
    fn what_others_say_makes_nobody_a_member() {
        let mut world = World::new();
        let (phone, tablet, me) = (world.phone.clone(), world.tablet.clone(), world.me.clone());
        world.say(1, add(&phone, Role::Owner, "phone")).unwrap();
        let statement = Statement::sign(&phone, &NextStatement::FIRST, 1, add(&me, Role::Machine, "machine"));
        assert_eq!(world.log.append(statement), Ok(true));
        let hostile =
            Statement::sign(&phone, &NextStatement { number: 9, previous: [3; 32] }, 1, add(&tablet, Role::Owner, "x"));
        assert_eq!(world.log.append(hostile), Ok(true), "numbers of others may jump");
        let hostile = Statement::sign(&phone, &NextStatement { number: 12, previous: [3; 32] }, 1, remove(&phone));
        world.log.append(hostile).unwrap();
        let members = world.log.resolve();
        assert_eq!(members.len(), 1);
        assert_eq!(members[&phone.device_id()].removed, None);
    }

    #[test]
    fn another_device_may_use_a_number_twice_and_come_back_to_an_older_one() {
        let mut world = World::new();
        let (phone, me) = (world.phone.clone(), world.me.clone());
        let late = NextStatement { number: 7, previous: [3; 32] };
        for (at, next) in [(1, NextStatement::FIRST), (2, NextStatement::FIRST), (3, late), (4, late)] {
            let statement = Statement::sign(&phone, &next, at, add(&me, Role::Machine, "machine"));
            assert_eq!(world.log.append(statement.clone()), Ok(true));
            assert_eq!(world.log.append(statement), Ok(false), "it stands there already");
        }
        world.say(5, add(&phone, Role::Owner, "phone")).unwrap();
        let read = Membership::decode(me.device_id(), &world.log.encode()).unwrap();
        assert_eq!((read.statements().len(), read.next()), (5, world.log.next()));
    }

    #[test]
    fn own_statements_follow_each_other_without_a_gap() {
        let mut world = World::new();
        let (phone, tablet) = (world.phone.clone(), world.tablet.clone());
        world.say(1, add(&phone, Role::Owner, "phone")).unwrap();
        let next = world.log.next();
        for wrong in [
            NextStatement::FIRST,
            NextStatement { number: next.number, previous: [8; 32] },
            NextStatement { number: next.number + 1, previous: next.previous },
        ] {
            let statement = Statement::sign(&world.me, &wrong, 1, add(&tablet, Role::Owner, "x"));
            assert_eq!(world.log.append(statement), Err(AppendError::OutOfSequence));
        }
        let again = world.log.statements()[0].clone();
        assert_eq!(world.log.append(again), Ok(false));
    }

    #[test]
    fn a_stored_log_comes_back_and_a_damaged_one_says_where() {
        let mut world = World::new();
        let (phone, tablet) = (world.phone.clone(), world.tablet.clone());
        world.say(1, add(&phone, Role::Owner, "phone")).unwrap();
        let first = world.log.encode();
        world.say(2, add(&tablet, Role::Viewer, "tablet")).unwrap();
        let whole = world.log.encode();
        let me = world.me.device_id();
        assert_eq!(Membership::decode(me, &whole).unwrap().resolve(), world.log.resolve());
        for length in first.len() + 1..whole.len() {
            assert_eq!(Membership::decode(me, &whole[..length]).unwrap_err().offset, first.len());
        }
        let mut damaged = whole.clone();
        damaged[first.len() + 50] ^= 1;
        assert_eq!(Membership::decode(me, &damaged).unwrap_err().offset, first.len());
        let swapped = [&whole[first.len()..], &first].concat();
        assert_eq!(Membership::decode(me, &swapped).unwrap_err().offset, 0);
        let doubled = [&first[..], &first].concat();
        assert_eq!(Membership::decode(me, &doubled).unwrap_err().offset, first.len());
    }
}
