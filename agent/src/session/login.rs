//! The environment of the user's login shell.
//!
//! A service manager starts the daemon with next to nothing: no PATH of the user's own, no language, no agent for ssh. Sessions that come from a
//! phone would lack all that. So the login shell is started once and asked what it has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// How long a login shell may take. What it waits for then, nobody would give it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that it may print: an environment is at most 2 MiB on Linux.
const MAX_PRINTED: u64 = 4 * 1024 * 1024;
/// What the shell has only because of us, or of where it ran.
const OURS: [&str; 6] = ["HAPPY_LOGIN_PROGRAM", "HAPPY_LOGIN_MARK", "SHLVL", "_", "PWD", "OLDPWD"];
/// A login shell that is asked once.
pub struct Login {
    shell: PathBuf,
    program: PathBuf,
    taken: OnceCell<Option<BTreeMap<String, String>>>,
}

impl Login {
    /// Asks this shell; `program` is happy itself, which the shell runs to tell what it has.
    pub fn new(shell: PathBuf, program: PathBuf) -> Self {
        Self { shell, program, taken: OnceCell::new() }
    }

    /// What the login shell has; without an answer in time, what this process has.
    pub async fn environment(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let taken = self.taken.get_or_init(async || {
            // Much is set where a shell talks to a person; some wait for one there.
            for manner in ["-ilc", "-lc"] {
                match self.ask(own, manner).await {
                    Ok(taken) => return Some(taken),
                    Err(why) => tracing::warn!(shell = %self.shell.display(), manner, why, "the login shell did not tell its environment"),
                }
            }
            tracing::warn!("sessions from elsewhere have the environment of the daemon");
            None
        });
        let mut environment = taken.await.clone().unwrap_or_else(|| own.clone());
        crate::unit::notify::PRIVATE.iter().for_each(|name| drop(environment.remove(*name)));
        environment
    }

    async fn ask(&self, own: &BTreeMap<String, String>, manner: &str) -> Result<BTreeMap<String, String>, String> {
        let mark = uuid::Uuid::new_v4().to_string();
        let mut command = Command::new(&self.shell);
        // Every shell reads this the same; the path may hold anything.
        command.arg(manner).arg("\"$HAPPY_LOGIN_PROGRAM\" print-environment");
        command.env_clear().envs(own).env("HAPPY_LOGIN_PROGRAM", &self.program).env("HAPPY_LOGIN_MARK", &mark);
        if let Some(home) = own.get("HOME").filter(|home| std::path::Path::new(home).is_dir()) {
            command.current_dir(home);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let stdout = child.stdout.take().ok_or("it has no output")?;
        let mut printed = Vec::new();
        // Not until it ends: what it has started in the background may keep its output open.
        let mut stdout = stdout.take(MAX_PRINTED);
        let read = tokio::time::timeout(PATIENCE, async {
            while parse(&printed, &mark).is_none() {
                match stdout.read_buf(&mut printed).await {
                    Ok(0) => return Err("it told nothing".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        });
        let outcome = read.await.unwrap_or_else(|_| Err(format!("it took more than {} seconds", PATIENCE.as_secs())));
        if let Some(group) = group {
            // Not reaped yet, so the number is still its own.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.wait().await;
        outcome?;
        parse(&printed, &mark).ok_or_else(|| "it told nothing".to_owned())
    }
}

/// What stands between the marks, whatever the shell has printed around them.
fn parse(printed: &[u8], mark: &str) -> Option<BTreeMap<String, String>> {
    let find = |bytes: &[u8]| bytes.windows(mark.len()).position(|window| window == mark.as_bytes());
    let begin = find(printed)? + mark.len();
    let length = find(&printed[begin..])?;
    let entries =
        printed[begin..begin + length].split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let pairs = entries.filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !OURS.contains(name));
    Some(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// `happy print-environment`, which a login shell runs: the marks, and between them the environment.
pub fn print_environment() -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    let mark = std::env::var_os("HAPPY_LOGIN_MARK").unwrap_or_else(|| OsString::from("\n"));
    let mut out = mark.as_bytes().to_vec();
    for (name, value) in std::env::vars_os() {
        let is_mark = name == "HAPPY_LOGIN_MARK";
        if !is_mark {
            out.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
        }
    }
    out.extend_from_slice(mark.as_bytes());
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&out)?;
    stdout.flush()
}

/// Whether a service manager has started this process, and not a person's shell.
pub fn is_service() -> bool {
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|is| is == value);
    let by_systemd =
        is("SYSTEMD_EXEC_PID", &std::process::id().to_string()) || std::env::var_os("NOTIFY_SOCKET").is_some();
    // launchd gives `0` to what it starts from a terminal.
    let by_launchd =
        std::env::var("XPC_SERVICE_NAME").is_ok_and(|name| name.starts_with("happy") || name.contains(".happy"));
    by_systemd || by_launchd
}

/// The user's login shell.
pub fn shell() -> PathBuf {
    let known = std::env::var_os("SHELL").map(PathBuf::from).filter(|shell| shell.is_absolute());
    let listed = || nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.shell);
    known.or_else(listed).filter(|shell| !shell.as_os_str().is_empty()).unwrap_or_else(|| "/bin/sh".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_prints_around_it_is_left_out() {
        let printed = b"welcome!\nMARKPATH=/a:/b\0HAPPY_LOGIN_PROGRAM=/x\0LINES=a\nb=c\0\0SHLVL=1\0MARKbye";
        let wanted = [("PATH", "/a:/b"), ("LINES", "a\nb=c")];
        assert_eq!(parse(printed, "MARK").unwrap(), wanted.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(parse(b"MARKPATH=/a", "MARK").is_none(), "it is not all");
        assert!(parse(b"", "MARK").is_none());
    }
}
