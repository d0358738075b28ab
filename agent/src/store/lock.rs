//! One daemon per home: an advisory lock that the kernel takes back however the daemon ends.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::store::file::PRIVATE;
use crate::trouble::Trouble;

/// Held as long as the daemon lives.
#[derive(Debug)]
pub struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock; `None` when another process holds it.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn take(path: &Path) -> Result<Option<DaemonLock>, Trouble> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)
            .map_err(|error| Trouble::file("open the lock file", path, &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(DaemonLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(Trouble::file("lock", path, &error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_does_not_get_the_lock_until_the_first_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("daemon.lock");
        let first = DaemonLock::take(&path).unwrap();
        assert!(first.is_some());
        assert!(DaemonLock::take(&path).unwrap().is_none());
        drop(first);
        assert!(DaemonLock::take(&path).unwrap().is_some());
    }
}
