//! The unit of systemd: our own text, for the user's own manager.

use std::fmt::Write;
use std::path::PathBuf;

use super::{ALREADY_RUNS, START_SECONDS, STOP_SECONDS, Service, WATCHDOG_SECONDS};
use crate::trouble::Trouble;

/// The first line, by which a unit of ours is known again.
pub const MARK: &str = "# Written by `happy daemon install`; `happy daemon uninstall` takes it away.";

/// The name of the unit.
pub fn name(service: &Service) -> String {
    format!("happy{}.service", service.suffix)
}

/// Where the user's units are; none without a home directory.
pub fn folder() -> Option<PathBuf> {
    let given = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = given.or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(config.join("systemd/user"))
}

/// Whether systemd can be given this service.
///
/// # Errors
/// It starts no program with a quote or a backslash in its path, however that is written.
pub fn check(service: &Service) -> Result<(), Trouble> {
    match service.command().next() {
        Some(program) if program.contains(['"', '\'', '\\']) => Err(Trouble::new(
            format!("systemd starts no program whose path has quotes or backslashes, as {program} has."),
            "Install happy under another path.",
        )),
        _ => Ok(()),
    }
}

/// The unit.
pub fn text(service: &Service) -> String {
    let mut command = String::new();
    for (index, word) in service.command().enumerate() {
        // The program's path knows no variables, so a dollar in it stands for itself.
        let word = if index == 0 { word.to_owned() } else { word.replace('$', "$$") };
        let _ = write!(command, "{}{}", if index == 0 { "" } else { " " }, quoted(&word));
    }
    let environment = match service.environment() {
        Some((name, value)) => format!("Environment={}\n", quoted(&format!("{name}={value}"))),
        None => String::new(),
    };
    format!(
        "\
{MARK}
[Unit]
Description=Happy Remote, your terminals from your phone

[Service]
# It says when it is ready, that it is alive and that it ends; nobody else may speak for it.
Type=notify
NotifyAccess=main
ExecStart={command}
{environment}\
# Sessions outlive the daemon: at a stop, and when it is started anew, only the daemon itself is ended.
KillMode=process
# The kernel may end a session that takes all memory; the daemon and the other sessions go on.
OOMPolicy=continue
# What people run in sessions counts as this service's.
TasksMax=infinity
Restart=on-failure
RestartSec=2
# Another daemon runs for this home.
RestartPreventExitStatus={ALREADY_RUNS}
TimeoutStartSec={START_SECONDS}
TimeoutStopSec={STOP_SECONDS}
WatchdogSec={WATCHDOG_SECONDS}
# Nothing is closed to it: programs in sessions shall find the machine as a login does.

[Install]
WantedBy=default.target
"
    )
}

/// A word as systemd reads it back: in quotes, with `\\`, `\"` and `%` written so that they stand for themselves.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::super::odd;
    use super::*;
    use crate::store::Home;

    /// systemd itself reads the unit; a word that it does not know, or a program that it does not find, is its error.
    fn verify(service: &Service, text: &str) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let unit = folder.path().join(name(service));
        std::fs::write(&unit, text).unwrap();
        let output = Command::new("systemd-analyze")
            .args(["--user", "--recursive-errors=no", "verify"])
            .arg(&unit)
            // It asks for the folder of a user's run time, which a machine without logins has not.
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .expect("systemd-analyze is missing: install the package systemd");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success() && said.is_empty(), said)
    }

    fn program(folder: &tempfile::TempDir, name: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn systemd_finds_no_fault_with_the_unit_whatever_the_paths() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["happy", "a happy", "%n 100%", "$HOME", "\\x41 \\", "\"quoted\"", "'", "ü"] {
            // A home may have any name; a program may not.
            let home = Home::at(folder.path().join(format!("{name} home"))).unwrap();
            let service = Service::new(program(&folder, name), &home, vec!["--api-port".into(), "0".into()]).unwrap();
            let (good, said) = verify(&service, &text(&service));
            assert_eq!(good, check(&service).is_ok(), "{name}: {said}");
            let service = Service::new(program(&folder, "happy"), &home, vec![name.into()]).unwrap();
            let (good, said) = verify(&service, &text(&service));
            assert!(good, "{name}: {said}");
        }
    }

    #[test]
    fn systemd_finds_fault_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        let service = Service::new(program(&folder, "happy"), &home, Vec::new()).unwrap();
        let good = text(&service);
        for (from, to) in
            [("KillMode=process", "KillMode=proces"), ("WatchdogSec=60", "WatchdogSecs=60"), ("/happy\"", "/sad\"")]
        {
            assert!(good.contains(from), "{from}");
            assert!(!verify(&service, &good.replace(from, to)).0, "{to}");
        }
    }

    #[test]
    fn a_path_is_written_so_that_it_stands_for_itself() {
        let unit = text(&odd());
        let line = |start: &str| unit.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert_eq!(
            line("ExecStart="),
            r#"ExecStart="/opt/my tools/%%n $x \\ \"happy\"" "daemon" "start-sync" "--api-port" "0""#
        );
        assert_eq!(line("Environment="), r#"Environment="HAPPY_HOME_DIR=/srv/a \"home\" of 100%% $HOME""#);
        assert!(unit.starts_with(MARK));
    }
}
