//! What is kept in `HAPPY_HOME_DIR` (default `~/.happy`, mode 0700).
//!
//! | file | what | secret |
//! |---|---|---|
//! | `access.key` | identity ([`AccessKey`]) | yes, 0600 |
//! | `prekeys` | signed prekeys ([`Prekeys`]) | yes, 0600 |
//! | `pair.secrets` | what is shared with each device ([`PairSecretsFile`]) | yes, 0600 |
//! | `records`, `records-seen` | the keys and versions of machine records ([`records`]) | yes, 0600 |
//! | `settings.json` | what a person chose ([`Settings`]) | no |
//! | `membership.log` | the signed statements ([`Roster`]) | no |
//! | `peers.json` | how the devices are reached ([`Roster`]) | no |
//! | `commands.db` | which commands were begun, and how they ended ([`CommandsFile`]) | 0600: answers of calls |
//! | `outbox/` | commands for other machines, and what became of them ([`OutboxFile`]) | 0700: what was typed |
//! | `seen/` | the sessions of other machines as they were last seen ([`Seen`]) | 0700: names |
//! | `epoch` | the relay login counter (`PROTOCOL 7`) | no |
//! | `relay.pem` | certificate and key of the relay inside the daemon | yes, 0600 |
//! | `enrolments` | what relays of others admit this machine by ([`enrolments`]) | yes, 0600 |
//! | `api.token` | what opens the local API ([`crate::api::keys::Keys`]) | yes, 0600 |
//! | `dashboard.password` | hash of the dashboard's password, if one was set ([`Password`]) | 0600 |
//! | `relay-keys.json` | what relays at bare addresses must prove ([`RelayKeys`]) | no |
//! | `audit.log`, `audit.log.1`, `audit.key`, `audit.end` | which calls changed something or were refused ([`audit`]) | yes, 0600 |
//! | `daemon.lock`, `daemon.sock`, `daemon.state.json` | the running daemon | no |
//! | `recordings/` | what sessions have printed, where somebody wanted that | 0700: what was on the screen |
//! | `logs/`, `sessions/` | what their names say | |

pub mod audit;
mod commands;
pub mod enrolments;
pub mod file;
mod key;
mod lines;
mod lock;
mod log;
pub mod outbox;
mod pair_secrets;
mod password;
mod peers;
mod prekeys;
pub mod project;
pub mod records;
mod relay_keys;
mod roster;
mod seen;
mod settings;
mod state;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::UnwrapErr;

pub use audit::{Audit, Event as AuditEvent};
pub use commands::{CommandsFile, Found};
pub use key::AccessKey;
pub use lock::DaemonLock;
pub use log::{LogFile, MAX_LOG};
pub use outbox::OutboxFile;
pub use pair_secrets::PairSecretsFile;
pub use password::Password;
pub use peers::Peer;
pub use prekeys::{Clock, PREKEY_LIFE, Prekeys};
pub use relay_keys::{RelayKey, RelayKeys};
pub use roster::{MemberEntry, Roster};
pub use seen::Seen;
pub use settings::{API_PORT, Keep, RELAY_PORT, Settings, amount, detach_key};
pub use state::DaemonState;

use crate::trouble::Trouble;

/// The variable that names the home.
pub const HOME_VARIABLE: &str = "HAPPY_HOME_DIR";
/// The folder of a user's home directory that it is when nothing is named.
pub const USUAL_HOME: &str = ".happy";

/// A Unix socket's path may be this long on every system we run on (macOS: 104 with its end).
const MAX_SOCKET_PATH: usize = 103;

/// The home folder; knows where everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

impl Home {
    /// The home that the environment names. Does not touch the disk.
    ///
    /// # Errors
    /// When there is neither `HAPPY_HOME_DIR` nor a home directory, or its path is too long for a socket.
    pub fn from_env() -> Result<Home, Trouble> {
        let root = match std::env::var_os(HOME_VARIABLE).filter(|path| !path.is_empty()) {
            Some(path) => std::path::absolute(&path)
                .map_err(|error| Trouble::file("find the folder", Path::new(&path), &error))?,
            None => match std::env::home_dir().filter(|path| path.is_absolute()) {
                Some(home) => home.join(USUAL_HOME),
                None => {
                    return Err(Trouble::new(
                        "There is no home directory to keep the keys in.",
                        format!("Set HOME, or set {HOME_VARIABLE} to a folder of your own."),
                    ));
                }
            },
        };
        Self::at(root)
    }

    /// The home at a path.
    ///
    /// # Errors
    /// When the path is too long for a socket in it.
    pub fn at(root: PathBuf) -> Result<Home, Trouble> {
        let home = Home { root };
        if home.socket().as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Trouble::new(
                format!("The path {} is too long for a socket in it.", home.root.display()),
                format!("Set {HOME_VARIABLE} to a shorter path."),
            ));
        }
        Ok(home)
    }

    /// Makes the folders, or checks them.
    ///
    /// # Errors
    /// When they cannot be made or belong to somebody else.
    pub fn prepare(&self) -> Result<(), Trouble> {
        file::private_dir(&self.root)?;
        file::private_dir(&self.logs())?;
        file::private_dir(&self.sessions())?;
        file::private_dir(&self.outbox())?;
        file::private_dir(&self.seen())?;
        self.check_writable()
    }

    fn check_writable(&self) -> Result<(), Trouble> {
        let probe = self.root.join(".probe");
        file::replace(&probe, b"", file::PRIVATE)?;
        std::fs::remove_file(&probe).map_err(|error| Trouble::file("write in", &self.root, &error))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Who this machine is.
    pub fn access_key(&self) -> PathBuf {
        self.root.join("access.key")
    }

    /// The signed prekeys.
    pub fn prekeys(&self) -> PathBuf {
        self.root.join("prekeys")
    }

    /// What is shared with each device.
    pub fn pair_secrets(&self) -> PathBuf {
        self.root.join("pair.secrets")
    }

    /// Which calls changed something or were refused.
    pub fn audit(&self) -> PathBuf {
        self.root.join("audit.log")
    }

    /// Which commands were begun.
    pub fn commands(&self) -> PathBuf {
        self.root.join("commands.db")
    }

    /// The commands for other machines.
    pub fn outbox(&self) -> PathBuf {
        self.root.join("outbox")
    }

    /// The sessions of other machines as they were last seen.
    pub fn seen(&self) -> PathBuf {
        self.root.join("seen")
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.root.join("daemon.sock")
    }

    /// The daemon's lock.
    pub fn lock(&self) -> PathBuf {
        self.root.join("daemon.lock")
    }

    /// The log that is written to.
    pub fn log(&self) -> PathBuf {
        self.logs().join("daemon.log")
    }

    /// Writes a line into the log as well as it can: for what goes wrong before the daemon has its log. A home that was never made is not
    /// made for it.
    pub fn note_in_log(&self, text: &str) {
        use std::io::Write;
        use tracing_subscriber::fmt::MakeWriter;
        let line = format!("{} ERROR {}\n", unix_seconds(), text.replace(char::is_control, " "));
        let _ = LogFile::open(&self.log()).and_then(|file| {
            file.make_writer().write_all(line.as_bytes()).map_err(|error| Trouble::file("write", &self.log(), &error))
        });
    }

    /// The logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The sessions' folders.
    pub fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    /// Certificate and key of the relay inside the daemon.
    pub fn relay_pem(&self) -> PathBuf {
        self.root.join("relay.pem")
    }

    /// The key and the versions of this machine's records.
    pub fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    /// What other machines said of themselves.
    pub fn records_seen(&self) -> PathBuf {
        self.root.join("records-seen")
    }

    /// What opens the local API.
    pub fn api_token(&self) -> PathBuf {
        self.root.join("api.token")
    }

    /// The hash of the dashboard's password.
    pub fn dashboard_password(&self) -> PathBuf {
        self.root.join("dashboard.password")
    }

    /// The keys that relays admit this machine by.
    pub fn enrolments(&self) -> PathBuf {
        self.root.join("enrolments")
    }

    /// What relays at bare addresses must prove.
    pub fn relay_keys(&self) -> PathBuf {
        self.root.join("relay-keys.json")
    }

    /// The signed statements.
    pub fn membership(&self) -> PathBuf {
        self.root.join("membership.log")
    }

    /// Where the signed statements of an identity go that this machine has given up.
    pub fn old_membership(&self, device: &happy_crypto::DeviceId) -> PathBuf {
        self.root.join(format!("membership.{}.log", device.short()))
    }

    /// How devices are reached.
    pub fn peers(&self) -> PathBuf {
        self.root.join("peers.json")
    }

    /// The settings: what the environment says, else the file.
    ///
    /// # Errors
    /// When the file or a variable cannot be read or understood.
    pub fn settings(&self) -> Result<Settings, Trouble> {
        self.kept_settings()?.below(|name| std::env::var(name).ok()).map_err(|error| {
            Trouble::new(
                format!("A setting cannot be used: {error}."),
                "Correct the variable, or take it out of the environment.",
            )
        })
    }

    /// What the file says.
    fn kept_settings(&self) -> Result<Settings, Trouble> {
        let path = self.root.join("settings.json");
        match file::read(&path)? {
            None => Ok(Settings::default()),
            Some(bytes) => Settings::read(&bytes).map_err(|error| {
                Trouble::new(
                    format!("The settings in {} cannot be used: {error}.", path.display()),
                    "Correct the file, or move it aside to have the defaults.",
                )
            }),
        }
    }

    /// Keeps the relay of this machine in the settings, or takes it out; whatever else is in them stays. Whether that was news.
    ///
    /// # Errors
    /// When the settings cannot be read or written.
    pub fn keep_relay(&self, relay: Option<&str>) -> Result<bool, Trouble> {
        if self.kept_settings()?.relay.as_deref() == relay {
            return Ok(false);
        }
        let path = self.root.join("settings.json");
        // Somebody may keep the file elsewhere.
        let path = std::fs::canonicalize(&path).unwrap_or(path);
        let text = settings::with_relay(file::read(&path)?.as_deref(), relay);
        file::replace(&path, &text, file::PRIVATE)?;
        Ok(true)
    }

    /// Says where the daemon is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_state(&self, state: &DaemonState) -> Result<(), Trouble> {
        let text = serde_json::to_vec_pretty(state).unwrap_or_default();
        file::replace(&self.state(), &text, file::PRIVATE)
    }

    /// Where the daemon says where it is.
    pub fn state(&self) -> PathBuf {
        self.root.join("daemon.state.json")
    }

    /// A number for this life of the daemon, larger than that of every life before; the high half of its relay login epochs
    /// (`PROTOCOL 7`).
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn next_epoch(&self) -> Result<u32, Trouble> {
        let path = self.root.join("epoch");
        let last = match file::read(&path)? {
            None => 0,
            Some(bytes) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse::<u32>().ok()).ok_or_else(|| {
                    Trouble::new(
                        format!("The counter in {} is damaged.", path.display()),
                        "Write a number into it that is larger than any it has had, for instance 100000.",
                    )
                })?
            }
        };
        let next = last.saturating_add(1);
        file::replace(&path, format!("{next}\n").as_bytes(), file::PRIVATE)?;
        Ok(next)
    }
}

/// The machine's name unless a person chose one: the host name, up to its first dot.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.split('.').next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    if name.is_empty() { "machine".into() } else { fit_name(&name) }
}

/// A name as statements carry it: at most 64 bytes (`PROTOCOL 11`), without control characters.
pub fn fit_name(name: &str) -> String {
    let mut out = String::new();
    for c in name.trim().chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > 64 {
            break;
        }
        out.push(c);
    }
    out
}

/// The randomness of the operating system; it does not fail once the machine is up.
pub fn random() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow_and_a_damaged_counter_is_not_started_over() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().to_owned()).unwrap();
        assert_eq!([home.next_epoch().unwrap(), home.next_epoch().unwrap()], [1, 2]);
        std::fs::write(folder.path().join("epoch"), "x").unwrap();
        assert!(home.next_epoch().is_err());
    }

    #[test]
    fn a_file_in_the_place_of_the_home_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        std::fs::write(&path, "").unwrap();
        let trouble = Home::at(path.clone()).unwrap().prepare().unwrap_err();
        assert!(trouble.what.contains(&path.display().to_string()), "{trouble}");
        assert!(trouble.todo.contains(HOME_VARIABLE), "{trouble}");
    }

    #[test]
    fn names_fit_a_statement() {
        assert_eq!(fit_name(" a\nb "), "ab");
        assert_eq!(fit_name(&"ü".repeat(40)).len(), 64);
    }
}
