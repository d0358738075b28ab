//! `pair.secrets`: what this machine shares with each of its devices (`PROTOCOL 5`).
//!
//! Each handshake leaves new ones, and they are here before the other side may rely on them. One that is stored for a new pairing is on the
//! disk before the statement that makes the device a member, and one of a removed device is deleted after the statement that removes
//! it; so after a crash there may be secrets of devices that are no members, and [`PairSecretsFile::open`] deletes them.
//!
//! An old copy of this file is of no use: whoever comes with an old secret is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use happy_crypto::DeviceId;
use happy_crypto::handshake::PairSecret;
use happy_link::PairSecrets;
use zeroize::Zeroizing;

use crate::store::file;
use crate::store::lines::{self, push_hex, read_hex};
use crate::trouble::Trouble;

const HEADING: &str = "happy/1 pair secrets: an old copy of this file is worthless, do not restore it";
/// A device id, two secrets, and the spaces between them.
const LONGEST: usize = 43 + 2 * (1 + 2 * PairSecret::STORED_LEN);

/// The secrets, on the disk and in memory.
pub struct PairSecretsFile {
    path: PathBuf,
    me: DeviceId,
    kept: BTreeMap<DeviceId, PairSecrets>,
}

impl PairSecretsFile {
    /// Reads the file and deletes the secrets of devices that are no members.
    ///
    /// # Errors
    /// When the file can be read by others, is damaged, or cannot be written.
    pub fn open(path: &Path, me: DeviceId, is_member: impl Fn(&DeviceId) -> bool) -> Result<Self, Trouble> {
        let kept = match file::read_private(path)? {
            Some(bytes) => Self::parse(&bytes, me).ok_or_else(|| {
                Trouble::new(
                    format!("The file {} is damaged.", path.display()),
                    "Move it aside and pair every device again; an old copy of it is of no use.",
                )
            })?,
            None => BTreeMap::new(),
        };
        let mut file = Self { path: path.to_owned(), me, kept };
        let others: Vec<_> = file.kept.keys().filter(|device| !is_member(device)).copied().collect();
        file.remove(&others)?;
        Ok(file)
    }

    fn parse(bytes: &[u8], me: DeviceId) -> Option<BTreeMap<DeviceId, PairSecrets>> {
        let file = lines::parse(bytes, HEADING)?;
        if file.owner != me {
            // Those of an identity that this machine had before.
            return Some(BTreeMap::new());
        }
        let line = |line: &Zeroizing<String>| {
            let mut words = line.split(' ');
            let device = words.next()?.parse().ok()?;
            let mut secret = || {
                let bytes: Option<Zeroizing<[u8; PairSecret::STORED_LEN]>> = words.next().map(read_hex)?;
                Some(bytes.and_then(|bytes| PairSecret::from_bytes(bytes.as_slice()).ok()))
            };
            let current = secret()??;
            let previous = match secret() {
                Some(secret) => Some(secret?),
                None => None,
            };
            words.next().is_none().then_some((device, PairSecrets { current, previous }))
        };
        file.lines.iter().map(line).collect()
    }

    /// What is shared with a device.
    pub fn get(&self, device: &DeviceId) -> Option<&PairSecrets> {
        self.kept.get(device)
    }

    /// Stores what a pairing has left. Gives what was there before.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn paired(&mut self, device: DeviceId, secrets: PairSecrets) -> Result<Option<PairSecrets>, Trouble> {
        let before = self.kept.get(&device).cloned();
        self.change(|kept| drop(kept.insert(device, secrets)))?;
        Ok(before)
    }

    /// Takes a pairing back whose statement was not stored.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn not_paired(&mut self, device: DeviceId, before: Option<PairSecrets>) -> Result<(), Trouble> {
        self.change(|kept| match before {
            Some(before) => drop(kept.insert(device, before)),
            None => drop(kept.remove(&device)),
        })
    }

    /// Stores what handshakes have left, all in one step. Whoever has no secrets here is no device of this machine any more, and gets none.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn shook_hands(&mut self, news: Vec<(DeviceId, PairSecrets)>) -> Result<(), Trouble> {
        self.change(|kept| {
            for (device, secrets) in news {
                kept.entry(device).and_modify(|kept| *kept = secrets);
            }
        })
    }

    /// Deletes the secrets of devices.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn remove(&mut self, devices: &[DeviceId]) -> Result<(), Trouble> {
        if !devices.iter().any(|device| self.kept.contains_key(device)) {
            return Ok(());
        }
        self.change(|kept| kept.retain(|device, _| !devices.contains(device)))
    }

    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<DeviceId, PairSecrets>)) -> Result<(), Trouble> {
        let mut kept = self.kept.clone();
        change(&mut kept);
        let line = |(device, secrets): (&DeviceId, &PairSecrets)| {
            let mut line = Zeroizing::new(String::with_capacity(LONGEST));
            line.push_str(&device.to_string());
            for secret in [Some(&secrets.current), secrets.previous.as_ref()].into_iter().flatten() {
                line.push(' ');
                push_hex(&mut line, secret.to_bytes().as_slice());
            }
            line
        };
        let lines: Vec<_> = kept.iter().map(line).collect();
        lines::write(&self.path, HEADING, self.me, LONGEST, &lines)?;
        self.kept = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const ME: DeviceId = DeviceId::from_bytes([9; 32]);
    const PHONE: DeviceId = DeviceId::from_bytes([1; 32]);
    const LAPTOP: DeviceId = DeviceId::from_bytes([2; 32]);

    /// What a pairing leaves.
    fn only(number: u8) -> PairSecrets {
        PairSecrets { current: secret(number), previous: None }
    }

    fn secret(byte: u8) -> PairSecret {
        PairSecret::from_bytes(&[byte; 40]).unwrap()
    }

    fn secrets(current: u8, previous: Option<u8>) -> PairSecrets {
        PairSecrets { current: secret(current), previous: previous.map(secret) }
    }

    fn told(file: &PairSecretsFile, device: &DeviceId) -> Option<Vec<u8>> {
        let secrets = file.get(device)?;
        let both = [Some(&secrets.current), secrets.previous.as_ref()];
        Some(both.into_iter().flatten().map(|secret| secret.to_bytes()[39]).collect())
    }

    fn open(path: &Path) -> PairSecretsFile {
        PairSecretsFile::open(path, ME, |_| true).unwrap()
    }

    #[test]
    fn what_is_stored_is_there_after_a_restart_and_only_for_those_who_are_paired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.secrets");
        let mut file = open(&path);
        assert!(file.paired(PHONE, only(1)).unwrap().is_none());
        file.shook_hands(vec![(PHONE, secrets(2, Some(1))), (LAPTOP, secrets(7, None))]).unwrap();
        file.paired(LAPTOP, only(5)).unwrap();
        for file in [&file, &open(&path)] {
            assert_eq!(told(file, &PHONE), Some(vec![2, 1]));
            assert_eq!(told(file, &LAPTOP), Some(vec![5]));
        }
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Paired again, and not stored in the end.
        let before = file.paired(PHONE, only(8)).unwrap();
        file.not_paired(PHONE, before).unwrap();
        file.remove(&[LAPTOP]).unwrap();
        for file in [&file, &open(&path)] {
            assert_eq!((told(file, &PHONE), told(file, &LAPTOP)), (Some(vec![2, 1]), None));
        }
    }

    /// A buffer that grows leaves copies of secrets behind, so lines are written into room that was made for the longest.
    #[test]
    fn the_longest_line_is_as_long_as_the_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.secrets");
        open(&path).paired(PHONE, secrets(2, Some(1))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|line| line.starts_with(&PHONE.to_string())).unwrap();
        assert_eq!(line.len(), LONGEST);
    }

    #[test]
    fn a_start_deletes_the_secrets_of_those_who_are_no_members() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.secrets");
        let mut file = open(&path);
        file.paired(PHONE, only(1)).unwrap();
        file.paired(LAPTOP, only(2)).unwrap();
        PairSecretsFile::open(&path, ME, |device| *device == PHONE).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(&PHONE.to_string()) && !text.contains(&LAPTOP.to_string()), "{text}");
        // Another identity has none of them.
        let other = PairSecretsFile::open(&path, LAPTOP, |_| true).unwrap();
        assert!(other.get(&PHONE).is_none());
    }

    #[test]
    fn a_file_that_is_damaged_or_open_to_others_is_told_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.secrets");
        open(&path).paired(PHONE, only(1)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let changed = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let damaged = [vec![], whole[..whole.len() - 1].to_vec(), changed(whole.len() / 2), changed(whole.len() - 5)];
        for bytes in damaged {
            file::replace(&path, &bytes, file::PRIVATE).unwrap();
            let told = PairSecretsFile::open(&path, ME, |_| true).err().unwrap();
            assert!(told.what.contains("damaged") && told.todo.contains("pair every device again"), "{told}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        file::replace(&path, &whole, file::PRIVATE).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(PairSecretsFile::open(&path, ME, |_| true).err().unwrap().todo.contains("chmod 600"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_cannot_be_written_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pair.secrets");
        let mut file = open(&path);
        file.paired(PHONE, only(1)).unwrap();
        // A folder in the way of the file that is written aside.
        std::fs::create_dir(folder.path().join("pair.secrets.new")).unwrap();
        assert!(file.shook_hands(vec![(PHONE, secrets(2, Some(1)))]).is_err());
        assert!(file.remove(&[PHONE]).is_err());
        assert_eq!(told(&file, &PHONE), Some(vec![1]));
        assert_eq!(told(&open(&path), &PHONE), Some(vec![1]));
    }
}
