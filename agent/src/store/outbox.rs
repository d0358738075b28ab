//! `outbox/<device id>`: the commands that were given here for another machine, and what became of them (`docs/LOCAL.md`).
//!
//! One line that says what it is and whose, with the hash of what follows: a text that a damaged disk has changed must not be typed anywhere.
//! Then the outbox as [`happy_rpc`] writes it. The file is replaced in one step, so a crash leaves the list before a change or after it.

use std::path::{Path, PathBuf};

use happy_crypto::DeviceId;
use happy_rpc::Outbox;
use rand_core::Rng;
use sha2::{Digest, Sha256};

use crate::store::{file, random};
use crate::trouble::Trouble;

const MAGIC: &str = "happy outbox";
/// What this version writes.
const VERSION: u32 = 1;
const LIFE_LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The open file. What is in memory is on the disk too, but for outcomes that could not be written yet.
#[derive(Debug)]
pub struct OutboxFile {
    path: PathBuf,
    device: DeviceId,
    outbox: Outbox,
    /// Something in memory is not on the disk.
    unsaved: bool,
}

impl OutboxFile {
    /// Reads the commands for a machine; without a file there are none.
    ///
    /// # Errors
    /// When it cannot be read, is damaged or of another machine, or a later version wrote it. It is left as it is.
    pub fn open(folder: &Path, device: DeviceId) -> Result<OutboxFile, Trouble> {
        let path = folder.join(device.to_string());
        let outbox = match file::read(&path)? {
            None => Outbox::new(new_life()),
            Some(bytes) => read(&path, &device, &bytes)?,
        };
        let mut opened = OutboxFile { path, device, outbox, unsaved: false };
        if opened.outbox.is_reused() {
            opened.change(|_| ())?;
        }
        Ok(opened)
    }

    /// The commands.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Makes a change. When this returns, it is on the disk.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Outbox) -> T) -> Result<T, Trouble> {
        let mut changed = self.outbox.clone();
        let value = change(&mut changed);
        if changed.is_reused() {
            changed.begin_anew(new_life(), super::unix_ms());
        }
        write(&self.path, &self.device, &changed)?;
        let mark = changed.mark();
        changed.stored(mark);
        (self.outbox, self.unsaved) = (changed, false);
        Ok(value)
    }

    /// Notes what has happened, which is true whether it can be written or not. What is not written the machine is asked for again after a
    /// restart, and answers as it did.
    pub fn note(&mut self, change: impl Fn(&mut Outbox)) {
        if let Err(trouble) = self.change(&change) {
            tracing::error!(machine = %self.device.short(), %trouble, "what became of a command is not stored");
            change(&mut self.outbox);
            self.unsaved = true;
        }
    }

    /// What changes nothing that has to survive.
    pub fn steer<T>(&mut self, steer: impl FnOnce(&mut Outbox) -> T) -> T {
        steer(&mut self.outbox)
    }

    /// Whether something has to be written still.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved
    }
}

/// The machines for which there are files, readable or not.
///
/// # Errors
/// When the folder cannot be read.
pub fn machines(folder: &Path) -> Result<Vec<DeviceId>, Trouble> {
    let unreadable = |error| Trouble::file("read", folder, &error);
    let mut machines = Vec::new();
    for found in std::fs::read_dir(folder).map_err(unreadable)? {
        let name = found.map_err(unreadable)?.file_name();
        // Anything else was put there by somebody else, or is the rest of a write that a crash has interrupted.
        machines.extend(name.to_str().and_then(|name| name.parse::<DeviceId>().ok()));
    }
    machines.sort();
    Ok(machines)
}

/// Deletes the commands for a machine, if there are any, and what a write has left that a crash interrupted.
///
/// # Errors
/// When that cannot be done.
pub fn delete(folder: &Path, device: &DeviceId) -> Result<(), Trouble> {
    let path = folder.join(device.to_string());
    remove(&path).and(remove(&file::aside(&path)))
}

/// Deletes what writes have left that a crash interrupted: it holds what somebody typed, and is of no use.
///
/// # Errors
/// When the folder cannot be read. What cannot be deleted is only told: it is in nobody's way before the next write.
pub fn sweep(folder: &Path) -> Result<(), Trouble> {
    let unreadable = |error| Trouble::file("read", folder, &error);
    for found in std::fs::read_dir(folder).map_err(unreadable)? {
        let found = found.map_err(unreadable)?;
        let name = found.file_name();
        let of = name.to_str().and_then(|name| name.strip_suffix(file::ASIDE)?.parse::<DeviceId>().ok());
        if of.is_some()
            && let Err(trouble) = remove(&found.path())
        {
            tracing::warn!(%trouble, "the rest of an interrupted write stays");
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), Trouble> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Trouble::file("delete", path, &error)),
        _ => Ok(()),
    }
}

fn write(path: &Path, device: &DeviceId, outbox: &Outbox) -> Result<(), Trouble> {
    let json = outbox.to_bytes();
    let mut bytes = format!("{MAGIC} {VERSION} {device} {}\n", hash(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    file::replace(path, &bytes, file::PRIVATE)
}

fn read(path: &Path, device: &DeviceId, bytes: &[u8]) -> Result<Outbox, Trouble> {
    let damaged = |what: &str| {
        Trouble::new(
            format!("The commands for another machine in {} cannot be read: {what}.", path.display()),
            "Move that file aside and restart the daemon; what waited in it is not sent then.",
        )
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("its first line is not whole"))?;
    let (head, json) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(MAGIC)).unwrap_or_default();
    let mut words = head.split_ascii_whitespace();
    let version = words.next().and_then(|word| word.parse::<u32>().ok());
    match version {
        Some(VERSION) => {}
        Some(later) if later > VERSION => {
            return Err(Trouble::new(
                format!("The file {} was written by a newer version of happy.", path.display()),
                "Upgrade happy on this machine.",
            ));
        }
        _ => return Err(damaged("it is no file of this kind")),
    }
    if words.next() != Some(device.to_string().as_str()) {
        return Err(damaged("it is that of another machine"));
    }
    if words.next() != Some(hash(json).as_str()) {
        return Err(damaged("it is damaged"));
    }
    Outbox::from_bytes(json).map_err(|error| damaged(&error.to_string()))
}

fn hash(json: &[u8]) -> String {
    Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new name for a list of commands: more than 16 random bytes, as their base64url (`PROTOCOL 10.2`).
fn new_life() -> String {
    let mut bytes = [0; 22];
    random().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(LIFE_LETTERS[usize::from(byte % 64)])).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use happy_rpc::{Call, Command, Done, EntryState, MAX_ENTRIES, OutboxError, SessionKill, SessionType};
    use uuid::Uuid;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn machine() -> DeviceId {
        DeviceId::from_bytes([7; 32])
    }

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(folder: &tempfile::TempDir) -> Result<OutboxFile, Trouble> {
        OutboxFile::open(folder.path(), machine())
    }

    fn give(file: &mut OutboxFile, text: &str) -> Result<u64, OutboxError> {
        let session = Uuid::from_u128(1);
        let request = SessionType { session, text: text.into(), enter: true };
        file.change(|outbox| outbox.add(NOW, &machine().to_string(), Some(session), request.into(), 60_000)).unwrap()
    }

    fn send(file: &mut OutboxFile) -> Option<Command> {
        let machine = machine().to_string();
        file.change(|outbox| outbox.claim(&machine)).unwrap();
        let (_, body) = file.steer(|outbox| outbox.next(&machine, NOW, 0))?;
        Command::of(&body).unwrap()
    }

    fn states(file: &OutboxFile) -> Vec<EntryState> {
        file.outbox().entries().iter().map(|entry| entry.state.clone()).collect()
    }

    #[test]
    fn what_was_given_is_there_after_a_restart_and_keeps_its_name() {
        let folder = folder();
        let mut file = open(&folder).unwrap();
        assert_eq!([give(&mut file, "one"), give(&mut file, "two")], [Ok(1), Ok(2)]);
        let sent = send(&mut file).unwrap();
        assert_eq!((sent.number, sent.life.len()), (1, 22));
        let mode = std::fs::metadata(folder.path().join(machine().to_string())).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut again = open(&folder).unwrap();
        assert_eq!(states(&again), [EntryState::Queued, EntryState::Queued]);
        let cancel = |file: &mut OutboxFile, number| file.change(|outbox| outbox.cancel(number, NOW)).unwrap();
        assert!(!cancel(&mut again, 1), "the machine may have it");
        assert!(cancel(&mut again, 2));
        assert_eq!(send(&mut again).unwrap(), sent, "the same name");
        let done = SessionKill::answer(&Ok(Done {}));
        again.note(|outbox| assert!(outbox.answered(1, NOW, &done)));
        assert_eq!(states(&open(&folder).unwrap()), [EntryState::Done, EntryState::Cancelled]);
        assert_eq!(machines(folder.path()).unwrap(), [machine()]);
        delete(folder.path(), &machine()).unwrap();
        delete(folder.path(), &machine()).unwrap();
        assert_ne!(send_first(&folder).life, sent.life, "a new list has a new name");
    }

    fn send_first(folder: &tempfile::TempDir) -> Command {
        let mut file = open(folder).unwrap();
        give(&mut file, "x").unwrap();
        send(&mut file).unwrap()
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let folder = folder();
        give(&mut open(&folder).unwrap(), "rm -r build").unwrap();
        let path = folder.path().join(machine().to_string());
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let trouble = open(&folder).unwrap_err();
            assert!(trouble.what.contains(&path.display().to_string()), "{trouble}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            trouble
        };
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            refused(&flipped);
        }
        let text = String::from_utf8(whole.clone()).unwrap();
        assert!(refused(text.replacen("outbox 1", "outbox 2", 1).as_bytes()).what.contains("newer version"));
        std::fs::write(&path, &whole).unwrap();
        assert!(open(&folder).is_ok());
        let other = DeviceId::from_bytes([8; 32]);
        std::fs::rename(&path, folder.path().join(other.to_string())).unwrap();
        assert!(OutboxFile::open(folder.path(), other).unwrap_err().what.contains("another machine"));
    }

    #[test]
    fn a_full_list_takes_no_more_and_loses_nothing() {
        let folder = folder();
        let mut file = open(&folder).unwrap();
        for text in 0..MAX_ENTRIES {
            give(&mut file, &text.to_string()).unwrap();
        }
        assert_eq!(give(&mut file, "one more"), Err(OutboxError::Full));
        assert_eq!(open(&folder).unwrap().outbox().entries().len(), MAX_ENTRIES);
    }

    #[test]
    fn what_cannot_be_written_is_not_taken_and_an_outcome_is_asked_for_again() {
        let folder = folder();
        let mut file = open(&folder).unwrap();
        give(&mut file, "one").unwrap();
        assert_eq!(send(&mut file).unwrap().number, 1);
        // What is written aside first finds a folder in its way.
        let way = folder.path().join(format!("{}.new", machine()));
        std::fs::create_dir(&way).unwrap();
        let machine = machine().to_string();
        let kill = SessionKill { session: Uuid::nil() };
        assert!(file.change(|outbox| outbox.add(NOW, &machine, None, kill.into(), 1)).is_err());
        assert_eq!(file.outbox().entries().len(), 1);
        let done = SessionKill::answer(&Ok(Done {}));
        file.note(|outbox| {
            outbox.answered(1, NOW, &done);
        });
        assert_eq!((states(&file), file.is_unsaved()), (vec![EntryState::Done], true));
        assert_eq!(states(&open(&folder).unwrap()), [EntryState::Queued], "the disk knows nothing of it");
        std::fs::remove_dir(&way).unwrap();
        file.note(|_| ());
        assert!(!file.is_unsaved());
        assert_eq!(states(&open(&folder).unwrap()), [EntryState::Done]);
    }

    #[test]
    fn what_an_interrupted_write_has_left_goes_with_the_list_and_when_the_folder_is_swept() {
        let folder = folder();
        give(&mut open(&folder).unwrap(), "one").unwrap();
        let aside = folder.path().join(format!("{}.new", machine()));
        std::fs::write(&aside, "one, and tw").unwrap();
        let other = folder.path().join("notes.new");
        std::fs::write(&other, "somebody else's").unwrap();
        sweep(folder.path()).unwrap();
        assert!(!aside.exists() && other.exists());
        assert_eq!(states(&open(&folder).unwrap()), [EntryState::Queued]);
        std::fs::write(&aside, "one, and tw").unwrap();
        delete(folder.path(), &machine()).unwrap();
        assert!(!aside.exists());
    }

    #[test]
    fn a_list_from_an_old_copy_goes_on_under_another_name() {
        let folder = folder();
        let mut file = open(&folder).unwrap();
        give(&mut file, "one").unwrap();
        let before = send(&mut file).unwrap().life;
        let reused = happy_rpc::refusal(&happy_rpc::CallError::new(happy_rpc::ErrorCode::Reused, "why"));
        file.note(|outbox| {
            outbox.answered(1, NOW, &reused);
        });
        assert_eq!(give(&mut file, "two"), Ok(2));
        let after = send(&mut open(&folder).unwrap()).unwrap();
        assert_eq!(after.number, 2);
        assert_ne!(after.life, before);
    }
}
