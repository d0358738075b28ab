//! Where tmux servers listen: sockets of any name in `tmux-UID` below `TMUX_TMPDIR`, or below `/tmp`, as tmux itself has it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::{DEADLINE, TmuxError};

/// Sockets that are looked at in one folder. Nobody has so many servers; a folder full of stale ones shall not cost time.
pub const MAX_SOCKETS: usize = 64;

/// The folder of this user's servers.
pub fn folder(tmux_tmpdir: Option<&str>) -> PathBuf {
    let above = tmux_tmpdir.filter(|dir| !dir.is_empty()).unwrap_or("/tmp");
    Path::new(above).join(format!("tmux-{}", rustix::process::getuid().as_raw()))
}

/// The sockets in a folder, by name. None when the folder is not there, or not one that tmux itself would use: ours, and closed to others.
pub fn list(folder: &Path) -> Vec<PathBuf> {
    // It is looked at again and again; what is said once stands in the log.
    static SAID: Once = Once::new();
    list_saying(folder, &SAID, |complaint| tracing::warn!("{complaint}"))
}

fn list_saying(folder: &Path, said: &Once, say: impl FnOnce(String)) -> Vec<PathBuf> {
    if !is_ours(folder) {
        return Vec::new();
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sockets: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_our_socket(path)).collect();
    sockets.sort();
    if sockets.len() > MAX_SOCKETS {
        said.call_once(|| {
            say(format!("{} has more than {MAX_SOCKETS} sockets; the rest is not looked at", folder.display()));
        });
        sockets.truncate(MAX_SOCKETS);
    }
    sockets
}

/// Makes the folder if there is none, as tmux would.
///
/// # Errors
/// What the system says, or that it is not private.
pub fn prepare(folder: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ if is_ours(folder) => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not a private folder of this user's")),
    }
}

fn is_ours(folder: &Path) -> bool {
    // Anybody may make it in /tmp: not followed, and refused as tmux refuses it.
    fs::symlink_metadata(folder).is_ok_and(|found| {
        let safe = found.is_dir() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o007 == 0;
        if !safe {
            tracing::debug!(
                "{} is not a private folder of this user's; tmux is not looked for there",
                folder.display()
            );
        }
        safe
    })
}

fn is_our_socket(path: &Path) -> bool {
    let ours = |found: fs::Metadata| {
        found.file_type().is_socket() && found.uid() == rustix::process::getuid().as_raw() && found.mode() & 0o007 == 0
    };
    // Its path becomes part of JSON and of a command.
    path.to_str().is_some() && fs::symlink_metadata(path).is_ok_and(ours)
}

/// Whether a server of this user's listens there. Elsewhere than on Linux the folder's owner and mode say whose it is.
///
/// # Errors
/// [`TmuxError::NoServer`] or [`TmuxError::Stranger`]; [`TmuxError::Late`] when it takes no connections at the moment.
pub async fn check(socket: &Path) -> Result<(), TmuxError> {
    // Never a connect that blocks: that waits without an end while a server that hangs has its queue full.
    let stream = match tokio::time::timeout(DEADLINE, tokio::net::UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(TmuxError::Late),
        Ok(Err(_)) => return Err(TmuxError::NoServer(socket.to_owned())),
        Err(_) => return Err(TmuxError::Late),
    };
    match stream.peer_cred() {
        Ok(peer) if peer.uid() != rustix::process::getuid().as_raw() => Err(TmuxError::Stranger(socket.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_sockets_in_a_private_folder_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let folder = folder(dir.path().to_str());
        assert!(list(&folder).is_empty());
        fs::create_dir(&folder).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(&folder, 0o700);
        let _listening = [UnixListener::bind(folder.join("b")).unwrap(), UnixListener::bind(folder.join("a")).unwrap()];
        let open = UnixListener::bind(folder.join("open")).unwrap();
        ["a", "b"].iter().for_each(|name| mode(&folder.join(name), 0o660));
        mode(&folder.join("open"), 0o666);
        fs::write(folder.join("file"), "").unwrap();
        std::os::unix::fs::symlink(folder.join("a"), folder.join("link")).unwrap();
        assert_eq!(list(&folder), [folder.join("a"), folder.join("b")]);
        drop(open);

        // Somebody may have put it there for us.
        mode(&folder, 0o707);
        assert!(list(&folder).is_empty());
        mode(&folder, 0o700);
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&folder, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &folder).unwrap();
        assert!(list(&folder).is_empty());
    }

    #[test]
    fn more_sockets_than_are_looked_at_are_complained_of_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let make = |n: usize| {
            let path = dir.path().join(n.to_string());
            drop(UnixListener::bind(&path).unwrap());
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        (0..MAX_SOCKETS).for_each(make);
        let (said, mut complaints) = (Once::new(), Vec::new());
        let mut look = || list_saying(dir.path(), &said, |what| complaints.push(what)).len();
        assert_eq!(look(), MAX_SOCKETS);
        make(MAX_SOCKETS);
        assert_eq!([look(), look(), look()], [MAX_SOCKETS; 3]);
        let [complaint] = &complaints[..] else { panic!("{complaints:?}") };
        assert!(complaint.contains("has more than"), "{complaint}");
    }

    #[tokio::test]
    async fn a_server_that_takes_no_connections_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        let listening =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::bind(&listening, &address).unwrap();
        rustix::net::listen(&listening, 0).unwrap();
        let mut waiting = 0;
        while check(&path).await.is_ok() {
            waiting += 1;
            assert!(waiting < 1_000);
        }
        assert!(matches!(check(&path).await, Err(TmuxError::Late)));
    }

    #[tokio::test]
    async fn a_socket_without_a_server_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listening = UnixListener::bind(&path).unwrap();
        assert!(check(&path).await.is_ok());
        drop(listening);
        assert!(matches!(check(&path).await, Err(TmuxError::NoServer(_))));
    }
}
