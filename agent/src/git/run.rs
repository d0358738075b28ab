//! Running the machine's `git`: without prompts, without a terminal, for a bounded time and with bounded output.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use happy_rpc::{CallError, ErrorCode};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::files::roots::Folder;

/// What is kept of what git complains about, bytes: a hook may print a whole test run. The end says why.
const COMPLAINT: usize = 8 * 1024;

/// How a git is run.
pub struct Git<'a> {
    /// Where.
    pub folder: &'a Folder,
    /// Everything the program knows of its surroundings.
    pub env: &'a BTreeMap<String, String>,
    /// It may look only: nothing in the repository's settings is run, and no lock is taken.
    pub looks: bool,
    /// Then it is ended.
    pub time: Duration,
    /// Settings that are nothing for it, whatever files say.
    pub off: &'a [OsString],
}

/// What it gave.
pub struct Output {
    /// Its exit code; none when a signal has ended it.
    pub code: Option<i32>,
    /// The beginning of what it printed.
    pub out: Vec<u8>,
    /// There was more, and it was ended for that.
    pub is_cut: bool,
    /// The end of what it complained.
    pub err: String,
}

impl Output {
    /// Whether it went well.
    pub fn is_ok(&self) -> bool {
        self.is_cut || self.code == Some(0)
    }
}

impl Git<'_> {
    /// Runs it with these arguments, and takes `most` bytes of its output.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub async fn run(&self, args: &[&str], most: usize) -> Result<Output, CallError> {
        let mut child = self.command(args).spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CallError::new(
                ErrorCode::Failed,
                "there is no `git` on this machine, or not in the PATH of its daemon; install it, or start the daemon anew",
            ),
            _ => CallError::new(ErrorCode::Failed, format!("git cannot be started: {}", crate::trouble::reason(&error))),
        })?;
        let group = Group::of(&child);
        match tokio::time::timeout(self.time, talk(&mut child, most, &group)).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(CallError::new(
                ErrorCode::Failed,
                format!("git cannot be spoken to: {}", crate::trouble::reason(&error)),
            )),
            Err(_) => {
                group.end();
                let _ = child.wait().await;
                let what = format!(
                    "git did not end within {} seconds and was ended; do it in a session, where it can be seen what it waits for",
                    self.time.as_secs()
                );
                Err(CallError::new(if self.looks { ErrorCode::Failed } else { ErrorCode::Indeterminate }, what))
            }
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        // Before everything else: what follows is the call's.
        command.args(["--no-pager", "--literal-pathspecs", "-c", "core.askPass=", "-c", "color.ui=false"]);
        command.args(["-c", "core.quotePath=false", "-c", "protocol.ext.allow=never"]);
        // A repository that lies in another as ordinary files would bring settings of its own with a mere clone.
        command.args(["-c", "safe.bareRepository=explicit"]);
        if self.looks {
            // What a repository names there is run by `git status` too.
            command.args([
                "-c",
                "core.fsmonitor=false",
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "log.showSignature=false",
            ]);
        }
        command.args(args);
        command.env_clear().envs(self.env.iter().filter(|(name, _)| !name.starts_with("GIT_")));
        for name in ["SSH_ASKPASS", "DISPLAY", "WAYLAND_DISPLAY", "PAGER"] {
            command.env_remove(name);
        }
        // Git speaks to programs in English only when it is told so; what it says is read in `mod.rs`.
        command.env("LC_ALL", "C").env_remove("LANGUAGE");
        command.env("GIT_TERMINAL_PROMPT", "0").env("SSH_ASKPASS_REQUIRE", "never").env("GCM_INTERACTIVE", "never");
        command.env("GIT_EDITOR", ":").env("GIT_SEQUENCE_EDITOR", ":").env("GIT_MERGE_AUTOEDIT", "no");
        // Whatever a remote is called, no helper of another name is run.
        command.env("GIT_ALLOW_PROTOCOL", if self.looks { "none" } else { "file:git:http:https:ssh" });
        if self.looks {
            // What is missing of a partial clone is not fetched, by whatever program its remote names.
            command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1");
        }
        // By the environment, for a name may have a `=` in it.
        command.env("GIT_CONFIG_COUNT", self.off.len().to_string());
        for (n, name) in self.off.iter().enumerate() {
            let nothing = if name.as_encoded_bytes().ends_with(b".required") { "false" } else { "" };
            command.env(format!("GIT_CONFIG_KEY_{n}"), name).env(format!("GIT_CONFIG_VALUE_{n}"), nothing);
        }
        // A repository above the folder that is open is not looked for.
        if let Some(above) = self.folder.root.parent() {
            command.env("GIT_CEILING_DIRECTORIES", above);
        }
        command.current_dir(&self.folder.path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // With whatever it starts, so that all of that can be ended.
        command.process_group(0);
        command
    }

    /// As [`Git::run`], with this command for ssh, told to ask nobody.
    ///
    /// # Errors
    /// As [`Git::run`].
    pub async fn run_with_ssh(&self, ssh: &str, args: &[&str], most: usize) -> Result<Output, CallError> {
        let set = format!("core.sshCommand={ssh} -o BatchMode=yes");
        let args: Vec<&str> = ["-c", &set].into_iter().chain(args.iter().copied()).collect();
        self.run(&args, most).await
    }
}

/// A program and what it has started.
struct Group(Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(rustix::process::Pid::from_raw))
    }

    fn end(&self) {
        if let Some(group) = self.0 {
            // Not reaped yet, so the number is still its own.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn talk(child: &mut Child, most: usize, group: &Group) -> io::Result<Output> {
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let listen = async {
        let (out, is_cut) = read_first(stdout, most).await?;
        if is_cut {
            group.end();
        }
        io::Result::Ok((out, is_cut))
    };
    let (listened, err) = tokio::join!(listen, read_last(stderr));
    let (out, is_cut) = listened?;
    let code = child.wait().await?.code();
    Ok(Output { code, out, is_cut, err: String::from_utf8_lossy(&err?).trim().to_owned() })
}

async fn read_first(reader: impl AsyncRead + Unpin, most: usize) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut bytes).await?;
    let is_cut = bytes.len() > most;
    bytes.truncate(most);
    Ok((bytes, is_cut))
}

async fn read_last(mut reader: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 4096]);
    loop {
        match reader.read(&mut chunk).await? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(&chunk[..count]),
        }
        if bytes.len() > COMPLAINT {
            bytes.drain(..bytes.len() - COMPLAINT);
        }
    }
}
