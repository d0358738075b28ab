//! PROTOCOL 11: the log of a machine: what it says about its devices, what one of them says, and what does not fit.

use happy_crypto::{DeviceId, Identity};
use happy_pairing::{AppendError, Membership, NextStatement, Role, StatementError};

use super::world::{World, drawn};
use crate::{
    Randomness,
    json::Json,
    object,
    page::{Change, Device, Log, Member, Statement},
};

/// When the first one is made.
const AT: u64 = 1_700_000_200;

/// What stands in the log, both times, and what each statement has become.
struct Story {
    ours: Membership,
    page: Log,
    statements: Vec<Json>,
}

pub fn vectors() -> Json {
    let World { page: world, phone, machine, .. } = World::new();
    let mut rng = Randomness::new("happy vectors: the membership");
    Identity::generate(&mut rng);
    let randomness = drawn(&mut rng);
    let tablet = Device::new(&randomness);
    let session: [u8; 16] = rng.take();
    let add = |subject: &Device, role: Role, name: &str| Change::Add {
        subject: subject.record(),
        role: role.into(),
        name: name.to_owned(),
        session,
    };
    let remove = |subject: &Device| Change::Remove { subject: subject.id() };

    let (machine_id, phone_id) = (machine.device_id(), phone.device_id());
    let mut story =
        Story { ours: Membership::new(machine_id), page: Log::new(*machine_id.as_bytes()), statements: Vec::new() };
    story.own(&machine, &world.machine, AT, add(&world.phone, Role::Owner, "phone"));
    // The word of another: it makes nobody a member, and only its signature counts.
    let word = Statement {
        author: world.phone.clone(),
        number: 3,
        previous: [0x33; 32],
        at: AT + 1,
        change: add(&world.machine, Role::Machine, "desk"),
    };
    story.takes(&phone, &word, Ok(()));
    story.own(&machine, &world.machine, AT + 10, add(&tablet, Role::Viewer, "Küche"));
    story.own(&machine, &world.machine, AT + 20, add(&tablet, Role::Operator, ""));
    let before = story.next(&world.machine, AT + 30, add(&world.phone, Role::Operator, "phone"));
    story.own(&machine, &world.machine, AT + 30, remove(&world.phone));
    // Of a device that was never added, as the name of a key can be enough.
    story.own(&machine, &world.machine, AT + 40, Change::Remove { subject: [0x44; 32] });
    let [once, stranger] = [&phone_id, &DeviceId::from_bytes([0x44; 32])].map(|device| story.ours.is_removed(device));
    assert!(once && stranger);

    story.takes(&machine, &before, Err(AppendError::OutOfSequence));
    let again = story.next(&world.machine, AT + 50, add(&world.phone, Role::Owner, "phone"));
    story.takes(&machine, &again, Err(AppendError::Removed));
    let gap = Statement { number: again.number + 1, ..story.next(&world.machine, AT + 50, remove(&tablet)) };
    story.takes(&machine, &gap, Err(AppendError::OutOfSequence));

    let first = Statement { number: 1, previous: [0; 32], ..again };
    let malformed = [
        ("the first one names a predecessor", Statement { previous: [1; 32], ..first.clone() }),
        ("a later one names none", Statement { number: 2, ..first.clone() }),
        ("the number 0", Statement { number: 0, ..first.clone() }),
        ("a role that there is not", Statement { change: with(&first, 5, "phone"), ..first.clone() }),
        ("a name with a control character", Statement { change: with(&first, 1, "\u{7}"), ..first.clone() }),
        ("a name that turns the direction", Statement { change: with(&first, 1, "\u{202E}"), ..first.clone() }),
        ("a name of 65 bytes", Statement { change: with(&first, 1, &"x".repeat(65)), ..first.clone() }),
    ];
    let refused = malformed.map(|(why, statement)| refuses(why, &statement.bytes(), StatementError::Malformed));
    let mut unsigned = first.bytes();
    if let Some(last) = unsigned.last_mut() {
        *last ^= 1;
    }
    let mut refused = Vec::from(refused);
    refused.push(refuses("another signature", &unsigned, StatementError::Signature));

    object! {
        "section": "PROTOCOL 11",
        "devices": vec![
            device("machine, whose log it is", &world.machine),
            device("phone", &world.phone),
            device("tablet", &tablet),
        ],
        "statements": story.statements,
        "members": story.page.members.iter().map(member).collect::<Vec<_>>(),
        "removed": story.page.removed.iter().map(Json::from).collect::<Vec<_>>(),
        "next number": story.page.next_number,
        "next previous": story.page.previous,
        "refused although signed, or not signed": refused,
    }
}

impl Story {
    /// What the device would say next.
    fn next(&self, author: &Device, at: u64, change: Change) -> Statement {
        let NextStatement { number, previous } = self.ours.next();
        assert_eq!((number, previous), (self.page.next_number, self.page.previous));
        Statement { author: author.clone(), number, previous, at, change }
    }

    fn own(&mut self, me: &Identity, author: &Device, at: u64, change: Change) {
        let next = self.next(author, at, change);
        self.takes(me, &next, Ok(()));
    }

    /// Signs it, as ours and as the page's, and puts it into both logs.
    fn takes(&mut self, author: &Identity, page: &Statement, fits: Result<(), AppendError>) {
        let next = NextStatement { number: page.number, previous: page.previous };
        let ours = happy_pairing::Statement::sign(author, &next, page.at, change(&page.change));
        assert_eq!(ours.as_bytes(), page.bytes());
        assert_eq!(ours.hash(), page.hash());
        assert_eq!(happy_pairing::Statement::decode(&page.bytes()).as_ref(), Ok(&ours));

        assert_eq!(self.ours.append(ours).map(|new| assert!(new)), fits);
        let by_page = self.page.append(page);
        let why = fits.err().map(|error| if error == AppendError::Removed { "was removed" } else { "out of sequence" });
        assert_eq!(by_page.err(), why);
        self.compare();
        self.statements.push(statement(page, by_page));
    }

    fn compare(&self) {
        let members = self.ours.resolve();
        assert_eq!(members.len(), self.page.members.len());
        for member in &self.page.members {
            let ours = &members[&DeviceId::from_bytes(member.id)];
            assert_eq!((u8::from(ours.role), &ours.name, ours.since), (member.role, &member.name, member.since));
            assert_eq!((ours.removed, *ours.record.device_id().as_bytes()), (member.removed, member.id));
        }
        assert!(self.page.removed.iter().all(|id| self.ours.is_removed(&DeviceId::from_bytes(*id))));
    }
}

/// The same, as the product has it.
fn change(page: &Change) -> happy_pairing::Change {
    match page {
        Change::Add { subject, role, name, session } => happy_pairing::Change::Add {
            subject: happy_crypto::IdentityRecord::decode(subject).expect("it is a record"),
            role: Role::try_from(*role).expect("it is a role"),
            name: name.clone(),
            session: *session,
        },
        Change::Remove { subject } => happy_pairing::Change::Remove { subject: DeviceId::from_bytes(*subject) },
    }
}

/// An Add with another role and name.
fn with(statement: &Statement, role: u8, name: &str) -> Change {
    match &statement.change {
        Change::Add { subject, session, .. } => {
            Change::Add { subject: *subject, role, name: name.to_owned(), session: *session }
        }
        Change::Remove { .. } => unreachable!("only an Add has a name"),
    }
}

fn refuses(why: &'static str, bytes: &[u8], error: StatementError) -> Json {
    assert_eq!(happy_pairing::Statement::decode(bytes), Err(error), "{why}");
    object! { "why": why, "statement": bytes }
}

fn device(name: &str, device: &Device) -> Json {
    object! {
        "name": name,
        "Ed25519 seed": device.seed,
        "X25519 scalar": device.agreement.secret(),
        "device id": device.id(),
        "identity record": device.record(),
    }
}

fn statement(statement: &Statement, fits: Result<(), &str>) -> Json {
    let begins = object! {
        "author": statement.author.id(),
        "number": statement.number,
        "previous": statement.previous,
        "at": statement.at,
    };
    let says = match &statement.change {
        Change::Add { subject, role, name, session } => begins
            .with("kind", "Add")
            .with("subject", subject)
            .with("role", *role)
            .with("name", &name[..])
            .with("session id", session),
        Change::Remove { subject } => begins.with("kind", "Remove").with("subject", subject),
    };
    says.with("signed bytes after the label", statement.signed_bytes())
        .with("signature", statement.signature())
        .with("statement", statement.bytes())
        .with("statement hash", statement.hash())
        .with("the log", fits.err().map_or("takes it".to_owned(), |why| format!("refuses it: {why}")))
}

fn member(member: &Member) -> Json {
    object! {
        "device id": member.id,
        "role": member.role,
        "name": &member.name[..],
        "since": member.since,
        "removed": member.removed,
    }
}
