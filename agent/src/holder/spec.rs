//! The files of a session, in `HAPPY_HOME_DIR/sessions/<id>/` (the directory 0700, the files 0600).
//!
//! | file | written by | holds |
//! |---|---|---|
//! | `session.json` | the daemon, before the holder starts | [`Description`]: what never changes |
//! | `spec.json` | the daemon; the holder removes it once read | [`Spec`]: the environment and sizes too |
//! | `exit.json` | the holder, when the program has ended | [`ExitRecord`] |
//! | `s` | the holder | its socket, unless the path is too long |

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use happy_rpc::SessionState;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::blocks::Place;
use super::recording::Order;
use crate::tmux::Origin;

/// How much output a session keeps for viewers that come back: a phone that was away for a moment goes on at the exact byte.
pub const RING_BYTES: usize = 10 * 1024 * 1024;

/// How much output a session may be told to keep: the least is in memory anyway, and the most is what a disk or a memory bears a few times.
pub const KEEP: std::ops::RangeInclusive<u64> = 64 * 1024..=1024 * 1024 * 1024;

/// How many scrolled-off rows a session keeps.
pub const SCROLLBACK_ROWS: u32 = 10_000;

/// What is known of a session from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its id, also the name of its directory.
    pub id: Uuid,
    /// A name for people.
    pub name: String,
    /// Program and arguments; empty for the login shell.
    pub command: Vec<String>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Where the holder listens.
    pub socket: PathBuf,
    /// The session of a tmux server that this is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmux: Option<Origin>,
}

/// Everything that a holder needs to start. Has no `Debug`: an environment is full of secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// What never changes.
    pub description: Description,
    /// The whole environment of the program.
    pub env: BTreeMap<String, String>,
    /// Columns of the screen.
    pub cols: u16,
    /// Rows of the screen.
    pub rows: u16,
    /// See [`RING_BYTES`].
    pub ring_bytes: usize,
    /// See [`SCROLLBACK_ROWS`].
    pub scrollback_rows: u32,
    /// Where the older part of the output is kept; what is usual on this system when missing.
    #[serde(default)]
    pub log: Option<Place>,
    /// Recorded from the first byte on.
    #[serde(default)]
    pub record: Option<Order>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`SessionState::Lost`] when the status could not be had.
    #[serde(flatten)]
    pub state: SessionState,
    /// The end of the output.
    pub offset: u64,
    /// How many bytes were typed into it; those of before do not say it.
    #[serde(default)]
    pub bytes_in: u64,
    /// Unix milliseconds.
    pub at: u64,
}

/// The paths of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionDir(PathBuf);

impl SessionDir {
    /// The directory at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it, and what is above it, for this user only.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Reads `session.json`.
    ///
    /// # Errors
    /// What the file system says, or [`io::ErrorKind::InvalidData`].
    pub fn description(&self) -> io::Result<Description> {
        read_json(&self.0.join("session.json"))
    }

    /// Writes `session.json`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_description(&self, description: &Description) -> io::Result<()> {
        write_json(&self.0.join("session.json"), description)
    }

    /// Reads `spec.json` and removes it, so that no environment stays on disk.
    ///
    /// # Errors
    /// What the file system says, or [`io::ErrorKind::InvalidData`].
    pub fn take_spec(&self) -> io::Result<Spec> {
        let path = self.0.join("spec.json");
        let spec = read_json(&path)?;
        fs::remove_file(&path)?;
        Ok(spec)
    }

    /// Removes a `spec.json` that no holder will read any more, so that no environment stays on disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn forget_spec(&self) -> io::Result<()> {
        match fs::remove_file(self.0.join("spec.json")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes `spec.json`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_spec(&self, spec: &Spec) -> io::Result<()> {
        write_json(&self.0.join("spec.json"), spec)
    }

    /// Reads `exit.json`; `None` when there is none.
    ///
    /// # Errors
    /// What the file system says, or [`io::ErrorKind::InvalidData`].
    pub fn exit(&self) -> io::Result<Option<ExitRecord>> {
        match read_json(&self.0.join("exit.json")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Writes `exit.json`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_exit(&self, exit: &ExitRecord) -> io::Result<()> {
        write_json(&self.0.join("exit.json"), exit)
    }

    /// Where the holder of session `id` listens: in its directory, or, where that path does not fit into a socket's address, in a
    /// private directory of the runtime directory.
    ///
    /// # Errors
    /// When that private directory cannot be made or belongs to somebody else.
    pub fn socket(&self, id: Uuid) -> io::Result<PathBuf> {
        let near = self.0.join("s");
        if near.as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(near);
        }
        let uid = rustix::process::getuid().as_raw();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let candidates = runtime.into_iter().map(|path| path.join("happy"));
        for dir in candidates.chain([PathBuf::from(format!("/tmp/happy-{uid}"))]) {
            let socket = dir.join(format!("{}.s", id.simple()));
            if socket.as_os_str().len() <= MAX_SOCKET_PATH {
                make_private(&dir)?;
                return Ok(socket);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "no directory with a path short enough for a socket"))
    }
}

/// macOS allows 104 bytes with the terminating zero, Linux 108.
const MAX_SOCKET_PATH: usize = 103;

/// Makes a directory in a place that others can write to, and refuses one that somebody else has prepared.
fn make_private(dir: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() || found.mode() & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a private directory of yours; remove it or set XDG_RUNTIME_DIR", dir.display()),
        ));
    }
    Ok(())
}

/// The most bytes of a file of a session. An environment and a command line together are at most 2 MiB on Linux.
const MAX_FILE: u64 = 8 * 1024 * 1024;

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be read: {error}", path.display()))
    })
}

/// Writes a file of this user only, whole or not at all.
fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut temporary = path.as_os_str().as_bytes().to_vec();
    temporary.extend_from_slice(b".new");
    let temporary = PathBuf::from(std::ffi::OsStr::from_bytes(&temporary));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(&serde_json::to_vec(value)?)?;
    drop(file);
    fs::rename(&temporary, path)
}

/// Unix milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What the holder says on its standard output, once, as one line of JSON: whether it has started the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It runs and the socket is open.
    Ready {
        /// Of the program.
        pid: u32,
    },
    /// It does not.
    Failed(StartError),
}

/// Why a program could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartError {
    /// No such program.
    #[error("there is no command `{0}`; check its name, and PATH")]
    CommandNotFound(String),
    /// It may not be run, or is no program.
    #[error("`{0}` cannot be run: {1}")]
    NotExecutable(String, String),
    /// No such directory.
    #[error("the directory {0} does not exist")]
    CwdMissing(PathBuf),
    /// It cannot be entered.
    #[error("the directory {0} cannot be entered: {1}")]
    CwdDenied(PathBuf, String),
    /// The machine failed.
    #[error("the session could not be started: {0}")]
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(dir: &SessionDir) -> Description {
        let id = Uuid::new_v4();
        Description {
            id,
            name: "build".into(),
            command: vec!["make".into()],
            cwd: "/".into(),
            created_at: 1,
            socket: dir.socket(id).unwrap(),
            tmux: None,
        }
    }

    #[test]
    fn the_environment_is_private_and_gone_once_read() {
        let home = tempfile::tempdir().unwrap();
        let dir = SessionDir::new(home.path().join("sessions/x"));
        dir.create().unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        let spec = Spec {
            description: description(&dir),
            env: [("TOKEN".to_owned(), "secret".to_owned())].into(),
            cols: 80,
            rows: 24,
            ring_bytes: RING_BYTES,
            scrollback_rows: SCROLLBACK_ROWS,
            log: None,
            record: None,
        };
        dir.write_spec(&spec).unwrap();
        assert_eq!(fs::metadata(dir.path().join("spec.json")).unwrap().mode() & 0o777, 0o600);
        assert!(dir.take_spec().unwrap() == spec);
        assert_eq!(dir.take_spec().map(drop).unwrap_err().kind(), io::ErrorKind::NotFound);
        dir.write_spec(&spec).unwrap();
        dir.forget_spec().unwrap();
        dir.forget_spec().unwrap();
        assert!(!dir.path().join("spec.json").exists());
    }

    #[test]
    fn a_deep_home_gets_a_socket_elsewhere() {
        let dir = SessionDir::new(format!("/home/{}", "deep/".repeat(30)));
        let socket = dir.socket(Uuid::nil()).unwrap();
        assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH, "{}", socket.display());
        let parent = fs::metadata(socket.parent().unwrap()).unwrap();
        assert_eq!(parent.mode() & 0o777, 0o700);
    }

    #[test]
    fn exit_records_read_as_documented() {
        let exit = ExitRecord { state: SessionState::Exited { code: 7 }, offset: 9, bytes_in: 4, at: 1 };
        assert_eq!(
            serde_json::to_string(&exit).unwrap(),
            r#"{"state":"exited","code":7,"offset":9,"bytes_in":4,"at":1}"#
        );
        let before: ExitRecord = serde_json::from_str(r#"{"state":"lost","offset":9,"at":1}"#).unwrap();
        assert_eq!((before.offset, before.bytes_in), (9, 0));
    }
}
