//! What a session is compared with: a PTY that this process holds itself, and the same in tmux and over ssh.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_tests::process::{Process, free_port};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// What is typed, and how a command is asked to end its output.
const KEY: &[u8] = b"x";
/// How long anything may take to show its first byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program in a PTY of ours.
pub struct Pty {
    // Held, because the program ends with it.
    _master: Box<dyn MasterPty + Send>,
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
}

impl Pty {
    pub fn open(words: &[&str], environment: &[(&str, &Path)]) -> Result<Pty> {
        let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 })?;
        let mut command = CommandBuilder::from_argv(words.iter().map(Into::into).collect());
        command.env("TERM", "xterm-256color");
        environment.iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command)?;
        let (reader, writer) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        Ok(Pty { _master: pair.master, reader, writer, child })
    }

    /// Types a key and waits for its echo. Whoever draws a status line may say more before it.
    pub fn echo(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.writer.write_all(KEY)?;
        self.writer.flush()?;
        let mut bytes = [0; 4096];
        loop {
            let count = self.reader.read(&mut bytes)?;
            ensure!(count > 0, "the program has ended");
            if bytes[..count].contains(&KEY[0]) {
                return Ok(began.elapsed());
            }
        }
    }

    /// Reads until the program has been silent for a while.
    pub fn settle(&mut self) -> Result<()> {
        let began = Instant::now();
        self.writer.write_all(b"ready?\n")?;
        let mut seen = Vec::new();
        while seen.windows(6).filter(|word| word == b"ready?").count() < 2 {
            ensure!(began.elapsed() < PATIENCE, "it does not answer: {}", String::from_utf8_lossy(&seen));
            let mut bytes = [0; 4096];
            let count = self.reader.read(&mut bytes)?;
            ensure!(count > 0, "the program has ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&bytes[..count]);
        }
        Ok(())
    }

    /// Reads everything to the end; how much that was.
    pub fn read_to_end(&mut self) -> u64 {
        let (mut all, mut buffer) = (0, vec![0; 64 * 1024]);
        // Linux says EIO at the end.
        while let Ok(count @ 1..) = self.reader.read(&mut buffer) {
            all += count as u64;
        }
        all
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cat` in a tmux of its own.
pub struct Tmux {
    pub pty: Pty,
    socket: std::path::PathBuf,
}

impl Tmux {
    pub fn open(folder: &Path) -> Result<Tmux> {
        let socket = folder.join("tmux");
        let path = socket.to_str().context("a path")?;
        let words = ["tmux", "-f", "/dev/null", "-S", path, "new-session", "cat"];
        let pty = Pty::open(&words, &[]).context("tmux is needed (Debian: tmux)")?;
        let mut tmux = Tmux { pty, socket };
        tmux.pty.settle()?;
        Ok(tmux)
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output();
    }
}

/// `cat` at the other end of an ssh over loopback, whose server ends with this value.
pub struct Ssh {
    pub pty: Pty,
    _server: Process,
}

impl Ssh {
    pub fn open(folder: &Path) -> Result<Ssh> {
        let path = |name: &str| folder.join(name).to_str().map(str::to_owned).context("a path");
        for name in ["host", "key"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)?]).output();
            ensure!(made.context("ssh is needed (Debian: openssh-server)")?.status.success(), "no key was made");
        }
        fs::copy(path("key.pub")?, path("authorized")?)?;
        fs::set_permissions(path("authorized")?, fs::Permissions::from_mode(0o600))?;
        // Its place for a process without rights; it says so itself when it is missing.
        let _ = fs::create_dir_all("/run/sshd");
        let port = free_port()?.to_string();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-p", &port, "-h", &path("host")?, "-f", "/dev/null"]);
        for option in ["StrictModes=no", "UsePAM=no", "ListenAddress=127.0.0.1", "PrintMotd=no"] {
            command.args(["-o", option]);
        }
        command.args(["-o", &format!("AuthorizedKeysFile={}", path("authorized")?)]);
        let mut server = Process::start(command).context("sshd is needed (Debian: openssh-server)")?;
        server.wait_for("Server listening")?;
        let words = ["ssh", "-tt", "-F", "/dev/null", "-i", &path("key")?, "-p", &port];
        let quiet = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"];
        let words: Vec<&str> = words.into_iter().chain(quiet).chain(["127.0.0.1", "cat"]).collect();
        let mut pty = Pty::open(&words, &[])?;
        pty.settle()?;
        Ok(Ssh { pty, _server: server })
    }
}
