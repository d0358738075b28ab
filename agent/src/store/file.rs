//! Files that are whole or absent: written aside, synced, renamed into place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::trouble::Trouble;

/// Only the owner reads and writes.
pub const PRIVATE: u32 = 0o600;

/// What the name of a file ends with that is not in its place yet.
pub const ASIDE: &str = ".new";

/// The largest file of ours that is read into memory; a bigger one is not ours.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Makes a folder that only its owner can enter, or checks the one that is there.
pub fn private_dir(path: &Path) -> Result<(), Trouble> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| Trouble::file("make the folder", path, &error))?;
    let facts = fs::metadata(path).map_err(|error| Trouble::file("look at", path, &error))?;
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(Trouble::new(
            format!("The folder {} belongs to another user.", path.display()),
            "Set HAPPY_HOME_DIR to a folder of your own.",
        ));
    }
    if facts.mode() & 0o077 != 0 {
        // The folder protects the sockets in it, so it is closed rather than complained about.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| Trouble::file("close to others the folder", path, &error))?;
    }
    Ok(())
}

/// Replaces a file in one step: a crash leaves the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Trouble> {
    write_aside(path, bytes, mode).map_err(|error| Trouble::file("write", path, &error))
}

/// Where [`replace`] writes first; a crash can leave it there.
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ASIDE);
    path.with_file_name(name)
}

fn write_aside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let aside = aside(path);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // O_EXCL: whoever planted a file or link of this name does not get our bytes.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_folder_of(path)
}

/// Makes a rename or a new file in this folder survive a power cut.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Makes an empty file that only its owner reads, for a program that goes on to write it; one that is there is left as it is, and
/// refused when others could have read it.
pub fn make_private(path: &Path) -> Result<(), Trouble> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match open(path)? {
            Some((_, facts)) => check_private(&facts, path),
            None => Ok(()),
        },
        Err(error) => Err(Trouble::file("make", path, &error)),
    }
}

/// The content of a file; `None` when there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Trouble> {
    let Some((mut file, facts)) = open(path)? else { return Ok(None) };
    let mut bytes = read_all(&mut file, &facts, path)?;
    Ok(Some(std::mem::take(&mut *bytes)))
}

/// The content of a file that holds secrets: refused when others could have read it.
pub fn read_private(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, Trouble> {
    let Some((mut file, facts)) = open(path)? else { return Ok(None) };
    check_private(&facts, path)?;
    read_all(&mut file, &facts, path).map(Some)
}

fn check_private(facts: &Metadata, path: &Path) -> Result<(), Trouble> {
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Trouble::new(
            format!("The key file {} can be read by other users (mode {mode:04o}).", path.display()),
            format!(
                "Close it with `chmod 600 {}`; if others use this machine, move the file aside and pair again.",
                path.display()
            ),
        ));
    }
    if facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(Trouble::new(
            format!("The key file {} belongs to another user.", path.display()),
            "Set HAPPY_HOME_DIR to a folder of your own.",
        ));
    }
    Ok(())
}

/// The file and what is true of that very file, not of whatever has its name a moment later.
fn open(path: &Path) -> Result<Option<(File, Metadata)>, Trouble> {
    let opened = File::open(path).and_then(|file| file.metadata().map(|facts| (file, facts)));
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Trouble::file("read", path, &error)),
    }
}

/// Everything in a file that may hold secrets, read into one buffer that never moves: one that grows leaves copies behind.
fn read_all(file: &mut File, facts: &Metadata, path: &Path) -> Result<Zeroizing<Vec<u8>>, Trouble> {
    let failed = |error| Trouble::file("read", path, &error);
    let too_large = || {
        Trouble::new(
            format!("The file {} is far larger than anything written there.", path.display()),
            "Move it aside and try again.",
        )
    };
    if facts.len() > MAX_FILE {
        return Err(too_large());
    }
    let length = usize::try_from(facts.len()).map_err(|_| too_large())?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    let mut filled = 0;
    while filled < length {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    bytes.truncate(filled);
    match file.read(&mut [0]) {
        Ok(0) => Ok(bytes),
        Ok(_) => Err(Trouble::new(
            format!("The file {} grew while it was read.", path.display()),
            "Try again; if that does not help, see who else writes there.",
        )),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_mode_asked_for_and_no_rest_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        replace(&path, b"long old content", 0o644).unwrap();
        replace(&path, b"new", PRIVATE).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn secrets_that_others_can_read_are_refused_with_the_command_that_helps() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access.key");
        replace(&path, b"k", 0o640).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let trouble = read_private(&path).unwrap_err();
        assert!(trouble.todo.contains(&format!("chmod 600 {}", path.display())), "{trouble}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap().as_slice(), b"k");
    }

    #[test]
    fn a_folder_open_to_others_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/b");
        private_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_for_another_program_is_made_private_and_one_that_is_there_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        make_private(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        fs::write(&path, "k").unwrap();
        make_private(&path).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"k");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(make_private(&path).unwrap_err().todo.contains("chmod 600"));
        assert_eq!(read(&path).unwrap().unwrap(), b"k");
        assert!(make_private(&home.path().join("nowhere/x")).is_err());
    }

    #[test]
    fn a_folder_that_only_its_owner_can_enter_keeps_its_mode() {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o500)).unwrap();
        private_dir(home.path()).unwrap();
        assert_eq!(fs::metadata(home.path()).unwrap().mode() & 0o777, 0o500);
    }

    #[test]
    fn a_file_of_16_mib_is_read_and_a_larger_one_is_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        let file = File::create(&path).unwrap();
        file.set_len(16 * 1024 * 1024).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().len(), 16 * 1024 * 1024);
        file.set_len(16 * 1024 * 1024 + 1).unwrap();
        assert!(read(&path).unwrap_err().what.contains("larger"));
    }

    #[test]
    fn what_cannot_be_read_is_told_and_is_not_the_same_as_nothing() {
        let home = tempfile::tempdir().unwrap();
        assert!(read(&home.path().join("x")).unwrap().is_none());
        // A folder can be opened, but not read.
        let trouble = read(home.path()).unwrap_err();
        assert!(trouble.what.contains(&home.path().display().to_string()), "{trouble}");
        // A file can hold no other.
        fs::write(home.path().join("x"), "").unwrap();
        assert!(read(&home.path().join("x/y")).is_err());
    }

    /// As the files of the kernel do, which say that they are empty.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_longer_than_it_said_is_not_taken_for_whole() {
        let trouble = read(Path::new("/proc/self/stat")).unwrap_err();
        assert!(trouble.what.contains("grew"), "{trouble}");
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_told() {
        let home = tempfile::tempdir().unwrap();
        assert!(sync_folder_of(&home.path().join("x")).is_ok());
        assert!(sync_folder_of(&home.path().join("nowhere/x")).is_err());
    }
}
