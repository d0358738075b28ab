//! Who belongs to this machine, and how they are reached.
//!
//! `membership.log` holds the signed statements (`PROTOCOL 11`) and decides who is a member; it only grows, and every statement is on
//! the disk before anybody hears of it. `peers.json` holds what a link needs besides: public data, written before the statement that makes
//! it count, so that a crash between the two leaves nothing but a line that nobody reads.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use happy_crypto::{Bundle, DeviceId, Identity, safety_number};
use happy_pairing::{Change, Membership, NextStatement, PairedPeer, Role, Statement};
use happy_rpc::{CallError, ErrorCode};

use crate::store::peers::{self, Peer};
use crate::store::{Home, file, unix_seconds};
use crate::trouble::Trouble;

/// A member, or one that was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEntry {
    /// Its id.
    pub device: DeviceId,
    /// Its name here.
    pub name: String,
    /// What it is to this machine.
    pub role: Role,
    /// Sixty digits for two people to compare.
    pub safety_number: String,
    /// When it was added first, Unix seconds.
    pub added_at_unix: u64,
    /// When it was removed, Unix seconds.
    pub removed_at_unix: Option<u64>,
}

/// The members of this machine.
pub struct Roster {
    me: Identity,
    log: Membership,
    log_path: PathBuf,
    peers_path: PathBuf,
    peers: BTreeMap<DeviceId, Peer>,
    /// What follows from the log; worked out again at each change, since safety numbers take a while.
    members: BTreeMap<DeviceId, MemberEntry>,
    /// The end of the log on the disk is not what it should be, so nothing may be written behind it.
    torn: bool,
    /// Its identity is not this machine's any more.
    given_up: bool,
}

impl Roster {
    /// Reads both files.
    ///
    /// # Errors
    /// When one of them is damaged: a statement that is lost could be the one that removes a device.
    pub fn open(home: &Home, me: &Identity) -> Result<Roster, Trouble> {
        let (log_path, peers_path) = (home.membership(), home.peers());
        let log = open_log(&log_path, me.device_id())?;
        let peers = peers::open(&peers_path)?;
        let mut roster = Roster {
            me: me.clone(),
            log,
            log_path,
            peers_path,
            peers,
            members: BTreeMap::new(),
            torn: false,
            given_up: false,
        };
        roster.resolve();
        Ok(roster)
    }

    fn resolve(&mut self) {
        let resolved = self.log.resolve();
        let known = std::mem::take(&mut self.members);
        for (device, member) in resolved {
            let safety_number = match known.get(&device) {
                Some(before) => before.safety_number.clone(),
                None => safety_number(self.me.record(), &member.record),
            };
            let entry = MemberEntry {
                device,
                name: member.name,
                role: member.role,
                safety_number,
                added_at_unix: member.since,
                removed_at_unix: member.removed,
            };
            self.members.insert(device, entry);
            if entry_is_current(&self.members, &device) {
                // A responder needs nothing of `peers.json` but the record, and that stands in the statement.
                self.peers.entry(device).or_insert_with(|| Peer {
                    device,
                    record: member.record,
                    name: String::new(),
                    my_role: Role::Machine,
                    joined: false,
                    bundle: None,
                    unread_bundle: None,
                    relays: Vec::new(),
                    removed_us: false,
                    let_in: None,
                });
            }
        }
        for (device, peer) in &mut self.peers {
            if let Some(member) = self.members.get(device) {
                peer.name.clone_from(&member.name);
            }
        }
    }

    /// Where the next statement of this machine goes.
    pub fn next(&self) -> NextStatement {
        self.log.next()
    }

    /// Members and those that were, oldest first.
    pub fn members(&self) -> Vec<MemberEntry> {
        let mut members: Vec<_> = self.members.values().cloned().collect();
        members.sort_by_key(|member| (member.added_at_unix, member.device));
        members
    }

    /// What a device may do at this machine. The one place where that is decided.
    ///
    /// None when it is no member, or no longer; and none for a machine that this one has joined, unless it came in through an invitation of
    /// this machine too (`PROTOCOL 11`). Whoever joins signs the role machine, so any other role was given by an invitation. That a
    /// machine was invited stands in `peers.json`; without it, it may do nothing.
    pub fn role_of(&self, device: &DeviceId) -> Option<Role> {
        let member = self.members.get(device).filter(|member| member.removed_at_unix.is_none())?;
        match member.role {
            Role::Machine => self.peers.get(device)?.let_in,
            role => Some(role),
        }
    }

    /// Whether a device belongs to this machine, be it that it may do something here or that this machine has joined it.
    pub fn is_member(&self, device: &DeviceId) -> bool {
        entry_is_current(&self.members, device)
    }

    /// A current member.
    pub fn peer(&self, device: &DeviceId) -> Option<&Peer> {
        self.peers.get(device).filter(|peer| self.is_member(&peer.device))
    }

    /// Whether a device was removed from here.
    pub fn is_removed(&self, device: &DeviceId) -> bool {
        self.log.is_removed(device)
    }

    /// Those that were removed.
    pub fn removed(&self) -> Vec<DeviceId> {
        self.members.values().filter(|member| member.removed_at_unix.is_some()).map(|member| member.device).collect()
    }

    /// The peers of current members.
    pub fn peers(&self) -> Vec<Peer> {
        self.peers.values().filter(|peer| self.is_member(&peer.device)).cloned().collect()
    }

    /// The peers that are machines: those that this one has joined, and those that are members as machines.
    pub fn machines(&self) -> Vec<Peer> {
        let is_machine = |peer: &Peer| peer.joined || self.role_of(&peer.device) == Some(Role::Machine);
        self.peers().into_iter().filter(is_machine).collect()
    }

    /// The machine that a name, an id or the beginning of one means.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn find_machine(&self, wanted: &str) -> Result<Peer, CallError> {
        let machines = self.machines();
        let mut fitting: Vec<_> = machines.iter().filter(|peer| peer.name == wanted).collect();
        if fitting.is_empty() && !wanted.is_empty() {
            fitting = machines.iter().filter(|peer| peer.device.to_string().starts_with(wanted)).collect();
        }
        if fitting.iter().any(|peer| !peer.removed_us) {
            // A machine with new keys has the name of the one that it was.
            fitting.retain(|peer| !peer.removed_us);
        }
        match fitting.as_slice() {
            [] => {
                let names: Vec<_> = machines.iter().map(|peer| peer.name.as_str()).collect();
                let known = if names.is_empty() { "none was joined yet".into() } else { names.join(", ") };
                Err(CallError::new(ErrorCode::NotFound, format!("no machine is called `{wanted}` here ({known})")))
            }
            [peer] if peer.removed_us => Err(CallError::new(
                ErrorCode::NotPermitted,
                format!("`{}` has removed this machine and refuses it from now on", peer.name),
            )),
            [peer] => Ok((*peer).clone()),
            many => {
                let ids: Vec<_> = many.iter().map(|peer| peer.device.short()).collect();
                Err(CallError::new(
                    ErrorCode::Conflict,
                    format!("`{wanted}` means more than one machine: {}", ids.join(", ")),
                ))
            }
        }
    }

    /// Stores a pairing. When this returns, the own statement is on the disk, and that of the other side if there was room for it.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn add(&mut self, paired: &PairedPeer) -> Result<Peer, Trouble> {
        let device = paired.identity.device_id();
        // Only the side that joined has a bundle; joining takes nothing from a device that was let in, and gives it nothing.
        let let_in = match paired.bundle {
            None => Some(paired.role),
            Some(_) => self.peers.get(&device).filter(|_| self.is_member(&device)).and_then(|before| before.let_in),
        };
        let peer = Peer {
            device,
            record: paired.identity.clone(),
            name: paired.name.clone(),
            my_role: paired.my_role,
            joined: paired.bundle.is_some(),
            bundle: paired.bundle.clone(),
            unread_bundle: None,
            relays: paired.relays.clone(),
            removed_us: false,
            let_in,
        };
        let before = self.peers.insert(device, peer);
        let stored = self.write_peers().and_then(|()| self.append(&[paired.theirs.clone(), paired.mine.clone()]));
        if let Err(trouble) = stored {
            match before {
                Some(before) => self.peers.insert(device, before),
                None => self.peers.remove(&device),
            };
            if let Err(trouble) = self.write_peers() {
                tracing::warn!(%trouble, "a pairing that was not stored left its line in peers.json");
            }
            return Err(trouble);
        }
        self.resolve();
        match self.peers.get(&device) {
            Some(peer) => Ok(peer.clone()),
            // It was put in a few lines above.
            None => Err(Trouble::new("The new device was not stored.", "Pair again.")),
        }
    }

    /// Removes devices for good. When this returns, the statements are on the disk.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn remove(&mut self, devices: &[DeviceId]) -> Result<(), Trouble> {
        let (mut next, now) = (self.log.next(), unix_seconds());
        let mut statements = Vec::with_capacity(devices.len());
        for device in devices {
            let statement = Statement::sign(&self.me, &next, now, Change::Remove { subject: *device });
            next = NextStatement::after(&statement);
            statements.push(statement);
        }
        self.append(&statements)?;
        self.resolve();
        Ok(())
    }

    /// Gives a device another name. When this returns, the statement is on the disk.
    ///
    /// # Errors
    /// When it is no member, or that cannot be written.
    pub fn rename(&mut self, device: &DeviceId, name: &str) -> Result<(), Trouble> {
        let unknown = || Trouble::new("There is no such device.", "`happy devices` lists them.");
        if !self.is_member(device) {
            return Err(unknown());
        }
        // Everything but the name stays as it was signed.
        let (subject, role, session) = self
            .log
            .statements()
            .iter()
            .rev()
            .filter(|statement| statement.author() == self.me.device_id())
            .find_map(|statement| match statement.change() {
                Change::Add { subject, role, session, .. } if subject.device_id() == *device => {
                    Some((subject.clone(), *role, *session))
                }
                _ => None,
            })
            .ok_or_else(unknown)?;
        let change = Change::Add { subject, role, name: name.to_owned(), session };
        let statement = Statement::sign(&self.me, &self.log.next(), unix_seconds(), change);
        self.append(&[statement])?;
        self.resolve();
        // Where others read it; the statement alone decides.
        self.write_peers()
    }

    /// A machine that this one has joined has a new bundle.
    ///
    /// # Errors
    /// When it cannot be written; it is known until the daemon ends all the same.
    pub fn renew_bundle(&mut self, device: &DeviceId, bundle: Bundle) -> Result<(), Trouble> {
        let Some(peer) = self.peers.get_mut(device).filter(|peer| peer.joined) else { return Ok(()) };
        (peer.bundle, peer.unread_bundle) = (Some(bundle), None);
        self.write_peers()
    }

    /// Ends, for an identity that is given up: the log is put aside under that name, the rest is deleted, and nothing is written any more.
    ///
    /// # Errors
    /// When a file cannot be moved or deleted.
    pub fn put_aside(&mut self, name: &std::path::Path) -> Result<(), Trouble> {
        self.given_up = true;
        let gone = |done: io::Result<()>, path: &std::path::Path| match done {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Trouble::file("put aside", path, &error)),
            _ => Ok(()),
        };
        gone(std::fs::rename(&self.log_path, name), &self.log_path)?;
        gone(std::fs::remove_file(&self.peers_path), &self.peers_path)?;
        file::sync_folder_of(name).map_err(|error| Trouble::file("put aside", name, &error))
    }

    /// Notes that a machine has removed this one.
    ///
    /// # Errors
    /// When it cannot be written; it is known until the daemon ends all the same.
    pub fn removed_by(&mut self, device: &DeviceId) -> Result<(), Trouble> {
        match self.peers.get_mut(device) {
            Some(peer) if !peer.removed_us => peer.removed_us = true,
            _ => return Ok(()),
        }
        self.write_peers()
    }

    /// Appends statements: checked on a copy, written, synced, and only then true. What others say is kept as their word and never
    /// stands in the way.
    fn append(&mut self, statements: &[Statement]) -> Result<(), Trouble> {
        if self.given_up {
            return Err(Trouble::new("This machine has new keys.", "Restart the daemon."));
        }
        if self.torn {
            return Err(Trouble::new(
                "The membership of this machine cannot be changed: an earlier change was written in part.",
                "See that the disk works and has room, then restart the daemon.",
            ));
        }
        let mut log = self.log.clone();
        let mut bytes = Vec::new();
        for statement in statements {
            match log.append(statement.clone()) {
                Ok(true) => Membership::encode_entry(statement, &mut bytes),
                Ok(false) => {}
                Err(error) if statement.author() != self.me.device_id() => {
                    tracing::warn!(author = %statement.author().short(), %error, "the word of another device is not kept");
                }
                Err(error) => {
                    return Err(Trouble::new(
                        format!("The membership of this machine cannot be changed: {error}."),
                        "Pair with a new key.",
                    ));
                }
            }
        }
        self.write_log(&bytes).map_err(|error| Trouble::file("write", &self.log_path, &error))?;
        self.log = log;
        Ok(())
    }

    /// Grows the log by these bytes, or not at all.
    fn write_log(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut file, created) = open_to_append(&self.log_path)?;
        let before = file.metadata()?.len();
        let mut written = file.write_all(bytes).and_then(|()| file.sync_all());
        if created && written.is_ok() {
            written = file::sync_folder_of(&self.log_path);
        }
        // What is not true in memory must not stand before the next statement: not half of one, and not a whole one either.
        if written.is_err() && file.set_len(before).and_then(|()| file.sync_all()).is_err() {
            self.torn = true;
        }
        written
    }

    fn write_peers(&self) -> Result<(), Trouble> {
        if self.given_up {
            return Err(Trouble::new("This machine has new keys.", "Restart the daemon."));
        }
        peers::write(&self.peers_path, &self.peers)
    }
}

/// Opens a file to append to it, and says whether it was made just now.
fn open_to_append(path: &std::path::Path) -> io::Result<(File, bool)> {
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = OpenOptions::new().append(true).create_new(true).mode(file::PRIVATE).open(path)?;
            Ok((file, true))
        }
        opened => Ok((opened?, false)),
    }
}

fn entry_is_current(members: &BTreeMap<DeviceId, MemberEntry>, device: &DeviceId) -> bool {
    members.get(device).is_some_and(|member| member.removed_at_unix.is_none())
}

fn open_log(path: &std::path::Path, me: DeviceId) -> Result<Membership, Trouble> {
    let bytes = file::read(path)?.unwrap_or_default();
    match Membership::decode(me, &bytes) {
        Ok(log) => Ok(log),
        Err(error) if is_cut(&bytes[error.offset.min(bytes.len())..]) => {
            // The machine lost power while it appended; nobody was told of that statement.
            tracing::warn!(
                offset = error.offset,
                "the membership log was cut while it grew; its last entry is dropped"
            );
            let whole = &bytes[..error.offset];
            file::replace(path, whole, file::PRIVATE)?;
            Membership::decode(me, whole).map_err(|error| damaged(path, &error.to_string()))
        }
        Err(error) => Err(damaged(path, &error.to_string())),
    }
}

/// Whether the last entry is the beginning of a statement. A length that no statement has is damage, and what follows it may be
/// the statement that removes a device.
fn is_cut(rest: &[u8]) -> bool {
    match rest.split_first_chunk::<2>() {
        Some((len, entry)) => {
            let len = usize::from(u16::from_be_bytes(*len));
            len <= Statement::MAX_LEN && entry.len() < len
        }
        None => true,
    }
}

pub(super) fn damaged(path: &std::path::Path, what: &str) -> Trouble {
    Trouble::new(
        format!("The file {} is damaged: {what}.", path.display()),
        "Restore it from a backup; or move it and access.key aside, and pair every device again.",
    )
}

#[cfg(test)]
mod tests {
    use happy_pairing::Origin;

    use super::*;
    use crate::store::peers::hex;
    use crate::store::random;

    struct World {
        _folder: tempfile::TempDir,
        home: Home,
        me: Identity,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_owned()).unwrap();
        World { home, _folder: folder, me: Identity::generate(&mut random()) }
    }

    fn paired(me: &Identity, roster: &Roster, other: &Identity, name: &str) -> PairedPeer {
        let add = |subject: &Identity, role| Change::Add {
            subject: subject.record().clone(),
            role,
            name: name.to_owned(),
            session: [1; 16],
        };
        PairedPeer {
            identity: other.record().clone(),
            name: name.to_owned(),
            role: Role::Operator,
            my_role: Role::Machine,
            bundle: None,
            relays: vec![Origin::parse("http://127.0.0.1:9").unwrap()],
            secret: happy_crypto::handshake::PairSecret::from_bytes(&[1; 40]).unwrap(),
            theirs: Statement::sign(other, &NextStatement::FIRST, 1, add(me, Role::Machine)),
            mine: Statement::sign(me, &roster.next(), 1, add(other, Role::Operator)),
        }
    }

    #[test]
    fn members_are_there_after_a_restart_and_removed_ones_stay_removed() {
        let world = world();
        let (phone, laptop) = (Identity::generate(&mut random()), Identity::generate(&mut random()));
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&paired(&world.me, &roster, &phone, "phone")).unwrap();
        roster.add(&paired(&world.me, &roster, &laptop, "laptop")).unwrap();
        roster.remove(&[phone.device_id()]).unwrap();
        for roster in [roster, Roster::open(&world.home, &world.me).unwrap()] {
            assert_eq!(roster.role_of(&laptop.device_id()), Some(Role::Operator));
            assert_eq!(roster.role_of(&phone.device_id()), None);
            assert_eq!(roster.removed(), [phone.device_id()]);
            assert_eq!(roster.peers().iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["laptop"]);
            assert_eq!(roster.members().len(), 2);
        }
    }

    #[test]
    fn a_log_cut_by_a_crash_loses_only_its_last_entry_and_a_damaged_one_stops_everything() {
        let world = world();
        let (phone, laptop) = (Identity::generate(&mut random()), Identity::generate(&mut random()));
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&paired(&world.me, &roster, &phone, "phone")).unwrap();
        let first = std::fs::read(world.home.membership()).unwrap();
        roster.add(&paired(&world.me, &roster, &laptop, "laptop")).unwrap();
        let whole = std::fs::read(world.home.membership()).unwrap();

        std::fs::write(world.home.membership(), &whole[..whole.len() - 3]).unwrap();
        let roster = Roster::open(&world.home, &world.me).unwrap();
        assert!(roster.role_of(&phone.device_id()).is_some() && roster.role_of(&laptop.device_id()).is_none());

        let mut damaged = whole.clone();
        damaged[first.len() / 2] ^= 1;
        std::fs::write(world.home.membership(), &damaged).unwrap();
        assert!(Roster::open(&world.home, &world.me).is_err());
        assert_eq!(std::fs::read(world.home.membership()).unwrap(), damaged, "it is left as it is");

        // A length that no statement has, in the last entry but one: the rest is shorter than it, and is no torn end.
        let mut damaged = whole.clone();
        damaged[first.len()] = 0xff;
        std::fs::write(world.home.membership(), &damaged).unwrap();
        assert!(Roster::open(&world.home, &world.me).is_err());
        assert_eq!(std::fs::read(world.home.membership()).unwrap(), damaged, "it is left as it is");
    }

    /// A pairing in which this machine was the one that joined.
    fn joined(me: &Identity, roster: &Roster, other: &Identity, name: &str) -> PairedPeer {
        let mut peer = paired(me, roster, other, name);
        peer.role = Role::Machine;
        peer.my_role = Role::Owner;
        peer.bundle = Some(Bundle::new(other, &happy_crypto::SignedPrekey::generate(&mut random(), other, 1, 1), None));
        peer.mine = Statement::sign(
            me,
            &roster.next(),
            1,
            Change::Add {
                subject: other.record().clone(),
                role: Role::Machine,
                name: name.to_owned(),
                session: [1; 16],
            },
        );
        peer
    }

    #[test]
    fn a_machine_that_was_joined_may_do_nothing_here_unless_it_was_invited_too() {
        let world = world();
        let other = Identity::generate(&mut random());
        let device = other.device_id();
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&joined(&world.me, &roster, &other, "desk")).unwrap();
        for roster in [&roster, &Roster::open(&world.home, &world.me).unwrap()] {
            assert_eq!((roster.role_of(&device), roster.is_member(&device)), (None, true));
            assert_eq!(roster.find_machine("desk").unwrap().device, device);
        }
        roster.add(&paired(&world.me, &roster, &other, "desk")).unwrap();
        assert_eq!(roster.role_of(&device), Some(Role::Operator));
        roster.add(&joined(&world.me, &roster, &other, "desk")).unwrap();
        for roster in [&roster, &Roster::open(&world.home, &world.me).unwrap()] {
            assert_eq!(roster.role_of(&device), Some(Role::Operator), "what the invitation gave stays");
        }
        roster.remove(&[device]).unwrap();
        assert_eq!((roster.role_of(&device), roster.is_member(&device)), (None, false));
    }

    #[test]
    fn a_number_that_the_other_side_signs_twice_is_no_hindrance() {
        let world = world();
        let other = Identity::generate(&mut random());
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&paired(&world.me, &roster, &other, "phone")).unwrap();
        roster.add(&paired(&world.me, &roster, &other, "the phone")).unwrap();
        assert_eq!(Roster::open(&world.home, &world.me).unwrap().members()[0].name, "the phone");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn after_a_write_that_cannot_be_taken_back_nothing_is_written_until_a_restart() {
        let world = world();
        let other = Identity::generate(&mut random());
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        // Every write to it finds no room, and it cannot be shortened.
        std::os::unix::fs::symlink("/dev/full", world.home.membership()).unwrap();
        assert!(roster.add(&paired(&world.me, &roster, &other, "phone")).is_err());
        assert!(!roster.is_member(&other.device_id()));
        std::fs::remove_file(world.home.membership()).unwrap();
        let error = roster.add(&paired(&world.me, &roster, &other, "phone")).err().unwrap();
        assert!(error.to_string().contains("restart"), "{error}");
        assert!(!world.home.membership().exists());
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&paired(&world.me, &roster, &other, "phone")).unwrap();
    }

    #[test]
    fn a_bundle_that_cannot_be_read_is_kept_and_harms_nobody_else() {
        let world = world();
        let other = Identity::generate(&mut random());
        let device = other.device_id();
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&joined(&world.me, &roster, &other, "desk")).unwrap();
        let text = std::fs::read_to_string(world.home.peers()).unwrap();
        let bundle = roster.find_machine("desk").unwrap().bundle.unwrap();
        let stored = hex(bundle.as_bytes());
        // As a version with another suite has written it.
        let old = format!("0101{}", &stored[4..]);
        assert_ne!(old, stored);
        std::fs::write(world.home.peers(), text.replace(&stored, &old)).unwrap();
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        let peer = roster.find_machine("desk").unwrap();
        assert!(peer.joined && peer.bundle.is_none());
        assert_eq!(roster.role_of(&device), None, "it is a machine that was joined, still");
        roster.removed_by(&device).unwrap();
        assert!(std::fs::read_to_string(world.home.peers()).unwrap().contains(&old), "it is kept as it was");
        roster.renew_bundle(&device, bundle).unwrap();
        let peers = Roster::open(&world.home, &world.me).unwrap().peers();
        assert!(peers[0].bundle.is_some());
    }

    #[test]
    fn all_can_be_removed_in_one_step_and_the_log_put_aside() {
        let world = world();
        let (phone, laptop) = (Identity::generate(&mut random()), Identity::generate(&mut random()));
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        roster.add(&paired(&world.me, &roster, &phone, "phone")).unwrap();
        roster.add(&paired(&world.me, &roster, &laptop, "laptop")).unwrap();
        roster.remove(&[phone.device_id(), laptop.device_id()]).unwrap();
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        assert_eq!((roster.removed().len(), roster.peers().len()), (2, 0));
        let aside = world.home.old_membership(&world.me.device_id());
        roster.put_aside(&aside).unwrap();
        assert!(roster.add(&paired(&world.me, &roster, &phone, "phone")).is_err());
        assert!(aside.exists() && !world.home.membership().exists() && !world.home.peers().exists());
        assert!(Roster::open(&world.home, &world.me).unwrap().members().is_empty());
        // What a crash in between leaves is the log of another identity: nobody is a member by it.
        std::fs::rename(&aside, world.home.membership()).unwrap();
        let roster = Roster::open(&world.home, &Identity::generate(&mut random())).unwrap();
        assert!(roster.members().is_empty() && roster.peers().is_empty());
    }

    #[test]
    fn a_machine_that_removed_us_is_named_so() {
        let world = world();
        let other = Identity::generate(&mut random());
        let mut roster = Roster::open(&world.home, &world.me).unwrap();
        let mut peer = paired(&world.me, &roster, &other, "desk");
        peer.bundle =
            Some(Bundle::new(&other, &happy_crypto::SignedPrekey::generate(&mut random(), &other, 1, 1), None));
        roster.add(&peer).unwrap();
        assert_eq!(roster.find_machine("desk").unwrap().device, other.device_id());
        assert_eq!(roster.find_machine(&other.device_id().short()).unwrap().device, other.device_id());
        assert_eq!(roster.find_machine("shed").err().unwrap().code, ErrorCode::NotFound);
        roster.removed_by(&other.device_id()).unwrap();
        let roster = Roster::open(&world.home, &world.me).unwrap();
        assert_eq!(roster.find_machine("desk").err().unwrap().code, ErrorCode::NotPermitted);
    }
}
