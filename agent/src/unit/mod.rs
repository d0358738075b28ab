//! The daemon as a service of the platform: what its service manager is given ([`systemd`], [`launchd`]), how that is put there and
//! taken away ([`install`]), and what the running daemon tells it ([`notify`]). `docs/SERVICE.md` is the page for people.

pub mod install;
pub mod launchd;
pub mod notify;
pub mod systemd;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use happy_crypto::labelled_hash;

use crate::store::{HOME_VARIABLE, Home};
use crate::trouble::Trouble;

/// How long the daemon may take to be ready, in seconds: it makes keys and finds the sessions again, a thousand at most.
pub const START_SECONDS: u64 = 60;
/// How long it may take to end, in seconds: its goodbyes are given up after three.
pub const STOP_SECONDS: u64 = 15;
/// It gives a sign of life twice in this time, in seconds, or is taken for dead and started anew. Long beside what a busy machine or a
/// slow disk does to it, short beside how long a person waits before looking.
pub const WATCHDOG_SECONDS: u64 = 60;
/// The exit code of a daemon that finds another one running. Starting it again and again would help nobody.
pub const ALREADY_RUNS: u8 = 5;

/// What a service manager starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// This program, by its whole path.
    program: PathBuf,
    /// What `happy daemon start-sync` is given besides.
    arguments: Vec<String>,
    /// The home, when it is not the usual one.
    home: Option<PathBuf>,
    /// Distinguishes the services of several homes; empty for the usual one.
    suffix: String,
}

impl Service {
    /// The service of a home.
    ///
    /// # Errors
    /// When a path cannot stand in a text file: the formats of both managers know only UTF-8 without control characters.
    pub fn new(program: PathBuf, home: &Home, arguments: Vec<OsString>) -> Result<Service, Trouble> {
        let usual = std::env::home_dir().map(|folder| folder.join(".happy"));
        let other = (usual.as_deref() != Some(home.root())).then(|| home.root().to_owned());
        let suffix = match &other {
            None => String::new(),
            Some(path) => {
                let hash = labelled_hash("happy service", &[path.as_os_str().as_encoded_bytes()]);
                hash[..4].iter().fold("-".to_owned(), |text, byte| format!("{text}{byte:02x}"))
            }
        };
        let arguments = arguments.into_iter().map(|word| plain(Path::new(&word)).map(str::to_owned));
        let service = Service { arguments: arguments.collect::<Result<_, _>>()?, program, home: other, suffix };
        plain(&service.program)?;
        plain(home.root())?;
        Ok(service)
    }

    /// Program and arguments.
    fn command(&self) -> impl Iterator<Item = &str> {
        let program = self.program.to_str().into_iter();
        program.chain(["daemon", "start-sync"]).chain(self.arguments.iter().map(String::as_str))
    }

    /// What its environment has besides the manager's.
    fn environment(&self) -> Option<(&'static str, &str)> {
        Some((HOME_VARIABLE, self.home.as_deref()?.to_str()?))
    }
}

/// A path as text without control characters.
fn plain(path: &Path) -> Result<&str, Trouble> {
    path.to_str().filter(|text| !text.chars().any(char::is_control)).ok_or_else(|| {
        Trouble::new(
            format!("The path {} has characters that no service can be given.", path.display()),
            "Install happy and its home under a name without control characters.",
        )
    })
}

/// A service with a program and a home that are not the usual ones.
#[cfg(test)]
fn odd() -> Service {
    let home = Home::at("/srv/a \"home\" of 100% $HOME".into()).unwrap();
    Service::new("/opt/my tools/%n $x \\ \"happy\"".into(), &home, vec!["--api-port".into(), "0".into()]).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_home_has_a_service_of_its_own_and_the_usual_one_the_short_name() {
        let at =
            |path: &Path| Service::new("/bin/happy".into(), &Home::at(path.to_owned()).unwrap(), Vec::new()).unwrap();
        let usual = at(&std::env::home_dir().unwrap().join(".happy"));
        assert_eq!((usual.suffix.as_str(), usual.environment()), ("", None));
        let (one, other) = (at(Path::new("/a")), at(Path::new("/b")));
        assert_eq!(one.suffix.len(), 9);
        assert_ne!(one.suffix, other.suffix);
        assert_eq!(one.environment(), Some((HOME_VARIABLE, "/a")));
    }

    #[test]
    fn a_path_that_would_begin_another_line_is_refused() {
        let home = Home::at("/h".into()).unwrap();
        let trouble = Service::new("/bin/happy\nExecStart=/bin/evil".into(), &home, Vec::new()).unwrap_err();
        assert!(trouble.what.contains("no service can be given"), "{trouble}");
        let home = Home::at("/h\u{1}".into()).unwrap();
        assert!(Service::new("/bin/happy".into(), &home, Vec::new()).is_err());
    }
}
