//! Putting the service where the platform's manager finds it, and taking it away. Only files that bear our mark are replaced or removed;
//! programs are called by name with fixed words, never through a shell.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::process::Command;

use super::{Service, launchd, systemd};
use crate::store::file;
use crate::trouble::{Trouble, reason};

/// How long a manager's own program may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Others may read it: no secret is in it.
const MODE: u32 = 0o644;
/// What of a program's complaint is shown.
const MAX_SAID: usize = 400;

/// A service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// Of most Linux systems; the user's own one.
    Systemd,
    /// Of macOS; the user's agents.
    Launchd,
}

/// What was done, for people and programs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file.
    pub path: PathBuf,
    /// What was done, one sentence each.
    pub done: Vec<String>,
    /// What is left to be done, one sentence each.
    pub left: Vec<String>,
}

impl Manager {
    /// The one that this system has.
    ///
    /// # Errors
    /// When it has none that is known.
    pub fn of_this_system() -> Result<Manager, Trouble> {
        match std::env::consts::OS {
            "linux" => Ok(Manager::Systemd),
            "macos" => Ok(Manager::Launchd),
            other => Err(Trouble::new(
                format!("No service manager of {other} is known."),
                "Let one of yours run `happy daemon start-sync`; `--manager` with `--print` shows what systemd or launchd would be given.",
            )),
        }
    }

    /// What it is given.
    ///
    /// # Errors
    /// When it would not take it.
    pub fn text(self, service: &Service) -> Result<String, Trouble> {
        match self {
            Manager::Systemd => systemd::check(service).map(|()| systemd::text(service)),
            Manager::Launchd => Ok(launchd::text(service)),
        }
    }

    /// Where it looks for that.
    ///
    /// # Errors
    /// Without a home directory.
    pub fn path(self, service: &Service) -> Result<PathBuf, Trouble> {
        let folder = match self {
            Manager::Systemd => systemd::folder(),
            Manager::Launchd => launchd::folder(),
        };
        let folder = folder.ok_or_else(|| {
            Trouble::new("There is no home directory to put a service in.", "Set HOME and try again.")
        })?;
        Ok(folder.join(match self {
            Manager::Systemd => systemd::name(service),
            Manager::Launchd => format!("{}.plist", launchd::label(service)),
        }))
    }

    fn mark(self) -> &'static str {
        match self {
            Manager::Systemd => systemd::MARK,
            Manager::Launchd => launchd::MARK,
        }
    }

    /// Whether the file is ours: none when there is no file.
    fn is_ours(self, path: &Path) -> Result<Option<bool>, Trouble> {
        Ok(file::read(path)?.map(|bytes| String::from_utf8_lossy(&bytes).contains(self.mark())))
    }
}

/// Installs the service, and starts it unless a daemon runs already. With `linger` it also runs while nobody is logged in.
///
/// # Errors
/// When the file cannot be written, another one of that name is there, or the manager refuses. What was done until then is said, and
/// installing again is safe.
pub async fn install(manager: Manager, service: &Service, daemon_runs: bool, linger: bool) -> Result<Report, Trouble> {
    let (path, text) = (manager.path(service)?, manager.text(service)?);
    if manager.is_ours(&path)? == Some(false) {
        return Err(Trouble::new(
            format!("{} was not written by happy, so it is left as it is.", path.display()),
            "Move it aside, or look with `happy daemon install --print` at what would be written.",
        ));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| Trouble::file("make the folder", folder, &error))?;
    }
    file::replace(&path, text.as_bytes(), MODE)?;
    let mut report = Report { path: path.clone(), ..Report::default() };
    report.done.push(format!("Written: {}.", path.display()));
    let begun = match manager {
        Manager::Systemd => begin_systemd(service, daemon_runs, linger, &mut report).await,
        Manager::Launchd => begin_launchd(&path, daemon_runs, linger, &mut report).await,
    };
    begun
        .map(|()| report)
        .map_err(|trouble| Trouble::new(format!("{} is written, but {}", path.display(), trouble.what), trouble.todo))
}

async fn begin_systemd(service: &Service, runs: bool, linger: bool, report: &mut Report) -> Result<(), Trouble> {
    let unit = systemd::name(service);
    let own = |error: Trouble| Trouble {
        todo: format!(
            "When a user's systemd runs (`systemctl --user status`), do `systemctl --user daemon-reload` and \
             `systemctl --user enable --now {unit}`; until then `happy daemon start` does without."
        ),
        ..error
    };
    call("systemctl", &["--user", "daemon-reload"]).await.map_err(own)?;
    call("systemctl", &["--user", "enable", &unit]).await.map_err(own)?;
    report.done.push("Enabled: it starts with your first login.".into());
    if runs {
        report.left.push(format!(
            "A daemon runs already and was left alone. To hand over to the service: `happy daemon stop`, then `systemctl --user start {unit}`; sessions go on."
        ));
    } else {
        call("systemctl", &["--user", "start", &unit]).await.map_err(own)?;
        report.done.push("Started.".into());
    }
    if linger {
        call("loginctl", &["enable-linger"]).await.map_err(|error| Trouble {
            todo: "Ask an administrator for `loginctl enable-linger` with your name; all else is done.".into(),
            ..error
        })?;
        report
            .done
            .push("Lingering: it starts with the machine, and it and its sessions go on when you log out.".into());
    } else {
        report.left.push(
            "When your last login ends, systemd ends the daemon and all its sessions, unless you linger: `happy daemon install --linger`, or `loginctl enable-linger`.".into(),
        );
    }
    Ok(())
}

async fn begin_launchd(path: &Path, runs: bool, linger: bool, report: &mut Report) -> Result<(), Trouble> {
    if linger {
        report.left.push(
            "`--linger` is for systemd only, and did nothing: an agent of launchd runs from your login until you log out.".into(),
        );
    }
    if runs {
        report.left.push("A daemon runs already and was left alone; the service starts with your next login.".into());
        return Ok(());
    }
    let domain = domain();
    let path = path.to_string_lossy();
    // One of before, if there is one: it would be an error to load it twice.
    let _ = call("launchctl", &["bootout", &domain, &path]).await;
    call("launchctl", &["bootstrap", &domain, &path]).await?;
    report.done.push("Started; it starts with each login.".into());
    Ok(())
}

/// Takes the service away; the daemon that it runs ends, its sessions go on.
///
/// # Errors
/// When there is none, or the file is not ours or cannot be removed. A manager that cannot be asked is said, and the file goes all the same.
pub async fn uninstall(manager: Manager, service: &Service) -> Result<Report, Trouble> {
    let path = manager.path(service)?;
    match manager.is_ours(&path)? {
        Some(true) => {}
        Some(false) => {
            return Err(Trouble::new(
                format!("{} was not written by happy, so it is left as it is.", path.display()),
                "Remove it yourself if it is no longer wanted.",
            ));
        }
        None => {
            return Err(Trouble::new(
                format!("No service is installed for this home: there is no {}.", path.display()),
                "Nothing has to be done. A daemon that runs without a service ends with `happy daemon stop`.",
            ));
        }
    }
    let mut report = Report { path: path.clone(), ..Report::default() };
    let unit = systemd::name(service);
    let stopped = match manager {
        Manager::Systemd => call("systemctl", &["--user", "disable", "--now", &unit]).await,
        Manager::Launchd => call("launchctl", &["bootout", &domain(), &path.to_string_lossy()]).await,
    };
    match stopped {
        Ok(()) => report.done.push("Stopped and disabled; sessions go on.".into()),
        Err(trouble) => report.left.push(format!("Not stopped: {} `happy daemon stop` ends it.", trouble.what)),
    }
    std::fs::remove_file(&path).map_err(|error| Trouble::file("remove", &path, &error))?;
    report.done.push(format!("Removed: {}.", path.display()));
    if manager == Manager::Systemd && call("systemctl", &["--user", "daemon-reload"]).await.is_err() {
        report.left.push("systemd could not be told; it forgets the unit when it starts the next time.".into());
    }
    Ok(report)
}

/// The user's own part of launchd.
fn domain() -> String {
    format!("gui/{}", rustix::process::getuid().as_raw())
}

/// Runs a program of the manager's to its end.
async fn call(program: &str, words: &[&str]) -> Result<(), Trouble> {
    let told = format!("`{program} {}`", words.join(" "));
    let command = Command::new(program).args(words).stdin(Stdio::null()).kill_on_drop(true).output();
    let failed = |why: String| Trouble::new(format!("{told} does not work: {why}."), "Look at what it says.");
    match tokio::time::timeout(PATIENCE, command).await {
        Err(_) => Err(failed(format!("it was given up after {} seconds", PATIENCE.as_secs()))),
        Ok(Err(error)) => Err(failed(reason(&error))),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said: String = said.trim().trim_end_matches('.').replace(char::is_control, " ");
            let end = said.floor_char_boundary(MAX_SAID);
            Err(failed(if said.is_empty() { output.status.to_string() } else { said[..end].to_owned() }))
        }
    }
}
