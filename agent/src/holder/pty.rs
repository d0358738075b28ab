//! The terminal and the program in it.
//!
//! `portable-pty` opens the terminal and starts the program, no more: its writer would type a newline and an end-of-file into the
//! shell when it is dropped, and its reader blocks. Bytes move through our own duplicate of the master's descriptor.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use happy_rpc::SessionState;
use portable_pty::{CommandBuilder, PtySize, SlavePty, native_pty_system};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::termios::{InputModes, OptionalActions, Winsize};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::size::Size;
use super::spec::{Spec, StartError};
use crate::trouble::reason;

/// Where commands are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The master's side of a terminal.
pub struct Pty {
    master: AsyncFd<OwnedFd>,
}

/// A running program.
pub struct Program {
    child: std::process::Child,
    /// Kept open until the program has ended, so that the terminal does not report its end only because the program has let go of
    /// it for a while.
    slave: Option<Box<dyn SlavePty + Send>>,
}

/// Opens a terminal and starts the program in it. Must be called within a runtime.
///
/// # Errors
/// [`StartError`].
pub fn start(spec: &Spec, size: Size) -> Result<(Pty, Program), StartError> {
    let command = command(spec)?;
    let failed = |error: &dyn std::fmt::Display| StartError::Failed(error.to_string());
    let size = PtySize { rows: size.rows, cols: size.cols, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).map_err(|e| failed(&e))?;
    let master = descriptor::duplicate(&*pair.master).map_err(|e| failed(&e))?;
    rustix::io::ioctl_fionbio(&master, true).map_err(|e| failed(&e))?;
    erase_whole_characters(&master);
    let child = pair.slave.spawn_command(command).map_err(|e| failed(&e))?;
    let child: Box<dyn portable_pty::Child> = child;
    // Its own status type names signals in the language of the C library; ours has their numbers.
    let child = child.downcast::<std::process::Child>().map_err(|_| failed(&"the program's process is not ours"))?;
    let master = descriptor::watch(master).map_err(|e| failed(&e))?;
    Ok((Pty { master }, Program { child: *child, slave: Some(pair.slave) }))
}

/// In a line that is still being typed, backspace shall remove a character, not a byte of it. A terminal that cannot is no reason to
/// refuse the session.
fn erase_whole_characters(master: &OwnedFd) {
    if let Ok(mut modes) = rustix::termios::tcgetattr(master) {
        modes.input_modes.insert(InputModes::IUTF8);
        let _ = rustix::termios::tcsetattr(master, OptionalActions::Now, &modes);
    }
}

fn command(spec: &Spec) -> Result<CommandBuilder, StartError> {
    let cwd = &spec.description.cwd;
    check_directory(cwd)?;
    let mut env = spec.env.clone();
    let path = env.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into()).clone();
    let mut command = match spec.description.command.split_first() {
        // The user's shell, as a login shell.
        None => CommandBuilder::new_default_prog(),
        Some((program, args)) => {
            check_program(program, cwd, &path)?;
            CommandBuilder::from_argv([program].into_iter().chain(args).map(OsString::from).collect())
        }
    };
    command.env_clear();
    env.iter().for_each(|(key, value)| command.env(key, value));
    command.cwd(cwd);
    Ok(command)
}

fn check_directory(cwd: &Path) -> Result<(), StartError> {
    let denied = |why: String| StartError::CwdDenied(cwd.to_owned(), why);
    match std::fs::metadata(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StartError::CwdMissing(cwd.to_owned())),
        Err(error) => Err(denied(reason(&error))),
        Ok(found) if !found.is_dir() => Err(denied("it is not a directory".into())),
        Ok(_) => rustix::fs::access(cwd, Access::EXEC_OK).map_err(|error| denied(reason(&error.into()))),
    }
}

/// Finds out beforehand what a failed `exec` could not tell us any more: portable-pty closes the descriptor over which the error
/// would come back.
fn check_program(program: &str, cwd: &Path, path: &str) -> Result<(), StartError> {
    let mut unfit = None;
    for candidate in candidates(program, cwd, path) {
        match fitness(&candidate) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => unfit = Some((candidate, error)),
        }
    }
    Err(match unfit {
        Some((candidate, error)) => StartError::NotExecutable(candidate.display().to_string(), reason(&error)),
        None => StartError::CommandNotFound(program.to_owned()),
    })
}

fn candidates(program: &str, cwd: &Path, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![cwd.join(program)];
    }
    std::env::split_paths(path).map(|dir| cwd.join(dir).join(program)).collect()
}

fn fitness(program: &Path) -> io::Result<()> {
    if std::fs::metadata(program)?.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    rustix::fs::access(program, Access::EXEC_OK)?;
    let mut head = Vec::new();
    // A program that may be run and not be read is fine.
    let Ok(file) = std::fs::File::open(program) else { return Ok(()) };
    file.take(256).read_to_end(&mut head)?;
    let Some(line) = head.strip_prefix(b"#!") else {
        // Every format that a kernel runs has a zero byte near its beginning.
        return match head.contains(&0) {
            true => Ok(()),
            false => Err(io::Error::other("it is neither a program nor a script that begins with #!")),
        };
    };
    let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default());
    match line.split_whitespace().next() {
        Some(interpreter) if !Path::new(interpreter).exists() => {
            Err(io::Error::other(format!("its interpreter {interpreter} does not exist")))
        }
        _ => Ok(()),
    }
}

impl Pty {
    /// Reads what the program printed; 0 at the end. Cancel-safe.
    ///
    /// # Errors
    /// What the terminal says.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| Ok(rustix::io::read(master, &mut *buffer)?)) {
                // Linux says EIO when the other side has gone.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => return Ok(0),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Waits until the terminal takes input, and gives it what `bytes` says then; how many bytes it took. Cancel-safe.
    ///
    /// # Errors
    /// What the terminal says.
    pub async fn write(
        &self,
        bytes: impl Fn(&dyn Fn(&[u8]) -> io::Result<usize>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let mut ready = self.master.writable().await?;
            match ready.try_io(|master| bytes(&|bytes| Ok(rustix::io::write(master, bytes)?))) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Tells the program its size.
    ///
    /// # Errors
    /// What the terminal says.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// Sends a signal to the program's process group and to the one in the foreground of the terminal.
    ///
    /// # Errors
    /// When neither could be reached.
    pub fn signal(&self, program: u32, signal: Signal) -> io::Result<()> {
        let leader = i32::try_from(program).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let foreground = rustix::termios::tcgetpgrp(&self.master).ok().filter(|group| *group != leader);
        let mut outcome = rustix::process::kill_process_group(leader, signal);
        if let Some(group) = foreground {
            outcome = rustix::process::kill_process_group(group, signal).or(outcome);
        }
        // A stopped program would hear of it only when someone continues it.
        if matches!(signal, Signal::HUP | Signal::TERM) {
            for group in [leader].into_iter().chain(foreground) {
                let _ = rustix::process::kill_process_group(group, Signal::CONT);
            }
        }
        Ok(outcome?)
    }
}

impl Program {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> SessionState {
        // Listened to before the first look, so that no end is missed.
        let mut children = match signal(SignalKind::child()) {
            Ok(children) => children,
            Err(error) => {
                tracing::error!("the end of the program cannot be watched: {error}");
                return SessionState::Lost;
            }
        };
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (Some(code), _) => SessionState::Exited { code: code.unsigned_abs() },
                        (None, Some(signal)) => SessionState::Killed { signal: signal.unsigned_abs() },
                        (None, None) => SessionState::Lost,
                    };
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!("the end of the program is not known: {error}");
                    return SessionState::Lost;
                }
            }
            if children.recv().await.is_none() {
                return SessionState::Lost;
            }
        }
    }

    /// Lets go of the program's side of the terminal, so that reading comes to an end.
    pub fn release(&mut self) {
        self.slave = None;
    }
}

mod descriptor {
    //! The one place where a descriptor's number is taken at its word.
    #![allow(unsafe_code)]

    use std::io;
    use std::os::fd::{BorrowedFd, OwnedFd};

    use portable_pty::MasterPty;
    use tokio::io::unix::AsyncFd;

    /// A descriptor of our own for the same terminal, closed when the program is executed.
    pub(super) fn duplicate(master: &dyn MasterPty) -> io::Result<OwnedFd> {
        let raw = master.as_raw_fd().ok_or(io::ErrorKind::Unsupported)?;
        // SAFETY: `raw` is the descriptor that `master` owns and closes when it is dropped. `master` is borrowed for the whole
        // function, the borrowed descriptor does not leave it.
        let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
        Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
    }

    /// Lets the runtime watch a descriptor.
    pub(super) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        // SAFETY: an `OwnedFd` always names the same descriptor and keeps it open until it is dropped, and it is moved into the
        // `AsyncFd`, which takes it off the runtime's list before that.
        Ok(unsafe { AsyncFd::register(descriptor) }?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_cannot_be_run_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let write = |name: &str, text: &str, mode| {
            std::fs::write(path.join(name), text).unwrap();
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("plain", "text", 0o644);
        write("good", "#!/bin/sh\n", 0o755);
        write("text", "just text\n", 0o755);
        write("orphan", "#!/no/such/interpreter -x\n", 0o755);
        std::fs::create_dir(path.join("dir")).unwrap();
        let check = |program: &str| check_program(program, path, ".:/nowhere");
        assert_eq!(check("good"), Ok(()));
        assert_eq!(check("./good"), Ok(()));
        assert!(matches!(check("absent"), Err(StartError::CommandNotFound(name)) if name == "absent"));
        assert!(
            matches!(check("orphan"), Err(StartError::NotExecutable(_, why)) if why.contains("/no/such/interpreter"))
        );
        assert!(matches!(check("text"), Err(StartError::NotExecutable(_, why)) if why.contains("neither")));
        assert!(matches!(check("dir"), Err(StartError::NotExecutable(_, why)) if why.contains("directory")));
        assert!(matches!(check("./plain"), Err(StartError::NotExecutable(..))));
        assert!(matches!(check_directory(&path.join("gone")), Err(StartError::CwdMissing(_))));
        assert!(matches!(check_directory(&path.join("plain")), Err(StartError::CwdDenied(..))));
    }
}
