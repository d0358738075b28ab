//! PROTOCOL 11: statements, and what follows from those that a device made itself.

use super::{Device, VERSION, fields::str8, hash, primitives::sign};

/// What a statement says.
#[derive(Clone)]
pub enum Change {
    /// Kind 1.
    Add {
        /// Identity record.
        subject: [u8; 129],
        /// 1 owner, 2 operator, 3 viewer, 4 machine.
        role: u8,
        /// At most 64 bytes.
        name: String,
        /// Session id of the pairing.
        session: [u8; 16],
    },
    /// Kind 2.
    Remove {
        /// Device id.
        subject: [u8; 32],
    },
}

impl Change {
    fn kind(&self) -> u8 {
        match self {
            Self::Add { .. } => 1,
            Self::Remove { .. } => 2,
        }
    }

    /// The device id of whom it is about.
    #[must_use]
    pub fn subject(&self) -> [u8; 32] {
        match self {
            Self::Add { subject, .. } => std::array::from_fn(|i| subject[1 + i]),
            Self::Remove { subject } => *subject,
        }
    }

    fn fields(&self) -> Vec<u8> {
        match self {
            Self::Add { subject, role, name, session } => [&subject[..], &[*role], &str8(name), session].concat(),
            Self::Remove { subject } => subject.to_vec(),
        }
    }
}

/// A statement before it is signed.
#[derive(Clone)]
pub struct Statement {
    /// Who makes it.
    pub author: Device,
    /// 1, 2, 3… of this author.
    pub number: u64,
    /// The hash of the one before.
    pub previous: [u8; 32],
    /// Unix seconds.
    pub at: u64,
    /// What it says.
    pub change: Change,
}

impl Statement {
    /// Everything but the signature.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        [
            &[VERSION, self.change.kind()][..],
            &self.author.id(),
            &self.number.to_be_bytes(),
            &self.previous,
            &self.at.to_be_bytes(),
            &self.change.fields(),
        ]
        .concat()
    }

    /// By the author.
    #[must_use]
    pub fn signature(&self) -> [u8; 64] {
        sign(&self.author.seed, &[b"happy/1 statement", &self.signed_bytes()])
    }

    /// The statement.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [&self.signed_bytes()[..], &self.signature()].concat()
    }

    /// What the next one names.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        hash(&[b"happy/1 statement hash", &self.bytes()])
    }
}

/// A device that was added.
#[derive(Clone)]
pub struct Member {
    /// Its device id.
    pub id: [u8; 32],
    /// The last one that it was given.
    pub role: u8,
    /// Likewise.
    pub name: String,
    /// When it was added first.
    pub since: u64,
    /// When it was removed.
    pub removed: Option<u64>,
}

/// What a device knows out of its log.
pub struct Log {
    me: [u8; 32],
    /// In the order in which they were added.
    pub members: Vec<Member>,
    /// Devices that never come back, members or not.
    pub removed: Vec<[u8; 32]>,
    /// The number of its next statement.
    pub next_number: u64,
    /// The hash that its next statement names.
    pub previous: [u8; 32],
}

impl Log {
    /// The empty one of a device.
    #[must_use]
    pub fn new(me: [u8; 32]) -> Self {
        Self { me, members: Vec::new(), removed: Vec::new(), next_number: 1, previous: [0; 32] }
    }

    /// Takes a statement whose signature holds. Says why not, when it does not fit.
    ///
    /// # Errors
    /// For the device's own statements only: the others are their authors' word, whatever their number.
    pub fn append(&mut self, statement: &Statement) -> Result<(), &'static str> {
        if statement.author.id() != self.me {
            return Ok(());
        }
        if (statement.number, statement.previous) != (self.next_number, self.previous) {
            return Err("out of sequence");
        }
        let (id, at) = (statement.change.subject(), statement.at);
        let member = self.members.iter_mut().find(|member| member.id == id);
        match (&statement.change, member) {
            (Change::Add { .. }, _) if self.removed.contains(&id) => return Err("was removed"),
            (Change::Add { role, name, .. }, Some(member)) => (member.role, member.name) = (*role, name.clone()),
            (Change::Add { role, name, .. }, None) => {
                self.members.push(Member { id, role: *role, name: name.clone(), since: at, removed: None });
            }
            (Change::Remove { .. }, member) => {
                self.removed.push(id);
                if let Some(member) = member {
                    member.removed.get_or_insert(at);
                }
            }
        }
        (self.next_number, self.previous) = (statement.number + 1, statement.hash());
        Ok(())
    }
}
