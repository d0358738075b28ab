//! Sessions of the user's own tmux, as equals of ours.
//!
//! A tmux server is found by its socket, asked and followed in *control mode* (`tmux -C`), where it says line by line what changes.
//! Nothing that a person or a program names ever passes through a shell, or through tmux's formats, which can start one.
//!
//! - [`control`]: the language of control mode,
//! - [`client`]: a tmux in control mode, as a process,
//! - [`server`]: what a server is asked,
//! - [`sockets`]: where servers listen,
//! - [`history`]: the rows that tmux keeps, as rows of ours,
//! - [`companion`]: beside a holder whose program is a client of tmux (`docs/TERMINAL.md`, tmux, says why it is one).

pub mod client;
pub mod companion;
pub mod control;
pub mod history;
pub mod server;
pub mod sockets;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How long a tmux may take to answer. It has one thread, and answers in milliseconds unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// The oldest tmux that has what is needed: clients whose size does not count, and the flags `-N` and `-T`.
pub const OLDEST: (u32, u32) = (3, 2);

/// The id that tmux gives a session, as `$3`: never given twice by one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}

impl std::str::FromStr for SessionId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.strip_prefix('$').and_then(|number| number.parse().ok()).map(Self).ok_or(())
    }
}

/// A life of a tmux server: another one may listen at the same path later, and count its sessions from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Life {
    /// Its process.
    pub pid: u32,
    /// When it was started, Unix seconds.
    pub start: u64,
}

/// Which session of which server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The program `tmux`.
    pub program: PathBuf,
    /// Where the server listens.
    pub socket: PathBuf,
    /// The server.
    pub life: Life,
    /// The session.
    pub session: SessionId,
}

impl Origin {
    /// The id that the session has for us: the same for every daemon and after every restart, and another one for every other session.
    pub fn id(&self) -> Uuid {
        use sha2::Digest;
        let name = format!("{} {} {}", self.life.pid, self.life.start, self.session);
        let parts = [b"happy tmux session\0", self.socket.as_os_str().as_encoded_bytes(), b"\0", name.as_bytes()];
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sha2::Sha256::digest(parts.concat())[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// The command that shows it: a client whose size does not count. Its environment stays its own (`-E`): the session keeps the agents and displays
    /// that the desk gave it.
    pub fn client_command(&self) -> Vec<String> {
        let socket = self.socket.to_string_lossy().into_owned();
        let program = self.program.to_string_lossy().into_owned();
        let session = self.session.to_string();
        let features = "256,RGB,bpaste,focus,mouse,strikethrough,sync,title";
        ["-u", "-N", "-T", features, "-S", &socket, "attach-session", "-E", "-f", "ignore-size", "-t", &session]
            .into_iter()
            .fold(vec![program], |mut all, word| {
                all.push(word.to_owned());
                all
            })
    }
}

/// Why a tmux did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TmuxError {
    /// There is no program of that name.
    #[error("tmux is not installed on this machine; install it, for instance with `apt install tmux`")]
    NotInstalled,
    /// It lacks what is needed.
    #[error("tmux on this machine says `{0}`, which is too old; Happy Remote needs tmux {major}.{minor} or later", major = OLDEST.0, minor = OLDEST.1)]
    TooOld(String),
    /// Nobody listens there.
    #[error("no tmux server listens at {0}")]
    NoServer(PathBuf),
    /// Somebody else's.
    #[error("the tmux server at {0} belongs to another user")]
    Stranger(PathBuf),
    /// The session is not there, or its server is another one now.
    #[error("the tmux session has ended")]
    NoSession,
    /// What tmux says.
    #[error("tmux says: {0}")]
    Refused(String),
    /// It does not answer.
    #[error("tmux did not answer within {} seconds", DEADLINE.as_secs())]
    Late,
    /// It said what cannot be understood.
    #[error("tmux said something that cannot be understood: {0}")]
    Protocol(String),
    /// The system failed.
    #[error("tmux cannot be run: {0}")]
    Io(#[from] std::io::Error),
}

/// Finds the program in a search path, and where it usually is.
///
/// # Errors
/// [`TmuxError::NotInstalled`].
pub fn find_program(path: Option<&str>) -> Result<PathBuf, TmuxError> {
    const USUAL: [&str; 5] = ["/usr/local/bin", "/opt/homebrew/bin", "/opt/local/bin", "/usr/bin", "/bin"];
    let named = path.map(std::env::split_paths).into_iter().flatten();
    find_in(named.chain(USUAL.map(PathBuf::from)))
}

fn find_in(mut folders: impl Iterator<Item = PathBuf>) -> Result<PathBuf, TmuxError> {
    let is_program = |path: &Path| {
        let may_run = || rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
        path.is_absolute() && path.to_str().is_some() && path.is_file() && may_run()
    };
    folders.find_map(|folder| Some(folder.join("tmux")).filter(|path| is_program(path))).ok_or(TmuxError::NotInstalled)
}

/// Whether a version is new enough, as `tmux -V` prints it: `tmux 3.3a`, `tmux next-3.6`. One that has no number (`tmux master`) is.
///
/// # Errors
/// [`TmuxError::TooOld`].
pub fn check_version(line: &str) -> Result<(), TmuxError> {
    let line = line.trim();
    let Some(begin) = line.find(|c: char| c.is_ascii_digit()) else { return Ok(()) };
    // OpenBSD's own is numbered like the system.
    if line.contains("openbsd") {
        return Ok(());
    }
    let mut numbers = line[begin..].split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST { Ok(()) } else { Err(TmuxError::TooOld(line.chars().take(60).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(pid: u32, session: u64) -> Origin {
        Origin {
            program: "/usr/bin/tmux".into(),
            socket: "/tmp/tmux-1/default".into(),
            life: Life { pid, start: 9 },
            session: SessionId(session),
        }
    }

    #[test]
    fn a_session_keeps_its_id_and_no_other_has_it() {
        assert_eq!(origin(1, 3).id(), origin(1, 3).id());
        assert_ne!(origin(1, 3).id(), origin(1, 4).id());
        assert_ne!(origin(1, 3).id(), origin(2, 3).id());
        assert_ne!(origin(1, 13).id(), origin(11, 3).id());
    }

    #[test]
    fn versions_are_read_as_tmux_prints_them() {
        for good in ["tmux 3.2", "tmux 3.3a\n", "tmux next-3.6", "tmux 4.0-rc", "tmux master", "tmux openbsd-6.8"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in ["tmux 3.1c", "tmux 2.9a", "tmux 1"] {
            assert!(matches!(check_version(old), Err(TmuxError::TooOld(_))), "{old}");
        }
    }

    #[test]
    fn a_machine_without_tmux_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("tmux");
        let find = || find_in([dir.path().to_owned(), PathBuf::from(".")].into_iter());
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let error = find().unwrap_err();
        assert!(error.to_string().contains("not installed"), "{error}");
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find().unwrap(), program);
    }
}
