//! The terminal and the program in it.
//!
//! `portable-pty` opens the terminal and starts the program, no more: its writer would type a newline and an end-of-file into the
//! shell when it is dropped, and its reader blocks. Bytes move through our own duplicate of the master's descriptor.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use happy_rpc::SessionState;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use rustix::fs::{Access, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::{InputModes, LocalModes, OptionalActions, Winsize};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::size::Size;
use super::spec::{Spec, StartError};
use crate::prompt::Tty;
use crate::trouble::reason;

/// Where commands are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A terminal, by its master's side.
pub struct Pty {
    master: AsyncFd<OwnedFd>,
    /// The other side, kept open until the program has ended, so that the terminal does not report its end only because the program
    /// has let go of it for a while.
    slave: RefCell<Option<OwnedFd>>,
}

/// A running program, our child.
pub struct Program(Pid);

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
    let path = pair.master.tty_name().ok_or_else(|| failed(&"the terminal has no name"))?;
    let slave = std::fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits() as i32)
        .open(&path)
        .map_err(|error| failed(&format!("{}: {error}", path.display())))?;
    let child = pair.slave.spawn_command(command).map_err(|e| failed(&e))?;
    // Its own handle is not needed: it could not be handed to another program, the number can.
    let program = child.process_id().and_then(Program::new).ok_or_else(|| failed(&"the program has no process"))?;
    Ok((Pty::new(master, Some(slave.into())).map_err(|e| failed(&e))?, program))
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
    let argv = match &spec.description.tmux {
        Some(origin) => origin.client_command(),
        None => spec.description.command.clone(),
    };
    let mut command = match argv.split_first() {
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
    /// A terminal by its descriptors. Must be called within a runtime.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn new(master: OwnedFd, slave: Option<OwnedFd>) -> io::Result<Self> {
        Ok(Self { master: descriptor::watch(master)?, slave: RefCell::new(slave) })
    }

    /// The master's side.
    pub fn master(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }

    /// The name of the terminal, as programs in it see it.
    pub fn name(&self) -> Option<String> {
        let name = rustix::termios::ttyname(self.slave.borrow().as_ref()?, Vec::new()).ok()?;
        name.into_string().ok()
    }

    /// The number of the other side, while it is kept open.
    pub fn slave(&self) -> Option<i32> {
        self.slave.borrow().as_ref().map(AsRawFd::as_raw_fd)
    }

    /// The other side, while it is kept open.
    pub fn slave_descriptor(&self) -> std::cell::Ref<'_, Option<OwnedFd>> {
        self.slave.borrow()
    }

    /// Lets go of the program's side of the terminal, so that reading comes to an end.
    pub fn release(&self) {
        self.slave.take();
    }

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

    /// Reads what the program printed, if there is something; `None` when there is nothing, or nothing more.
    pub fn read_now(&self, buffer: &mut [u8]) -> Option<usize> {
        rustix::io::read(self.master(), buffer).ok().filter(|count| *count > 0)
    }

    /// Gives the terminal what it takes at once; how many bytes it took.
    pub fn write_now(&self, bytes: &[u8]) -> usize {
        rustix::io::write(self.master(), bytes).unwrap_or(0)
    }

    /// How the terminal treats what is typed.
    pub fn tty(&self) -> Tty {
        let modes = rustix::termios::tcgetattr(self.master());
        let has = |mode| modes.as_ref().is_ok_and(|modes| modes.local_modes.contains(mode));
        Tty { canonical: has(LocalModes::ICANON), echo: has(LocalModes::ECHO) }
    }

    /// Whether something was typed that the program has not read; so too when nobody can say.
    pub fn has_unread_input(&self) -> bool {
        let slave = self.slave.borrow();
        slave.as_ref().is_none_or(|slave| rustix::io::ioctl_fionread(slave).map_or(true, |count| count > 0))
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

    /// Stops the program and all that it has started in its terminal. The program goes first: a shell that sees its job stop would take the
    /// terminal back and tell of it.
    ///
    /// # Errors
    /// When the program cannot be reached.
    pub fn pause(&self, program: u32) -> io::Result<()> {
        let leader = leader(program)?;
        rustix::process::kill_process_group(leader, Signal::STOP)?;
        // What was started while the others were being stopped is found by looking again.
        for _ in 0..LOOKS {
            let groups = self.groups(leader);
            let stopped = groups.iter().filter(|(_, is_stopped)| !is_stopped);
            let running: Vec<Pid> = stopped.map(|(group, _)| *group).collect();
            if running.is_empty() {
                break;
            }
            for group in running {
                // One that is gone by now is what was wanted.
                let _ = rustix::process::kill_process_group(group, Signal::STOP);
            }
        }
        Ok(())
    }

    /// Lets all of that go on, the program last.
    ///
    /// # Errors
    /// When the program cannot be reached.
    pub fn resume(&self, program: u32) -> io::Result<()> {
        let leader = leader(program)?;
        for (group, _) in self.groups(leader) {
            let _ = rustix::process::kill_process_group(group, Signal::CONT);
        }
        Ok(rustix::process::kill_process_group(leader, Signal::CONT)?)
    }

    /// The process groups of the terminal's session but the program's own, and whether all of each is stopped. Where the system does not tell, the
    /// one in the foreground.
    fn groups(&self, leader: Pid) -> Vec<(Pid, bool)> {
        if let Some(groups) = super::processes::groups_of_session(leader) {
            return groups.into_iter().filter(|(group, _)| *group != leader).collect();
        }
        let foreground = rustix::termios::tcgetpgrp(&self.master).ok().filter(|group| *group != leader);
        foreground.map(|group| (group, false)).into_iter().collect()
    }

    /// Sends a signal to the program's process group and to the one in the foreground of the terminal.
    ///
    /// # Errors
    /// When neither could be reached.
    pub fn signal(&self, program: u32, signal: Signal) -> io::Result<()> {
        let leader = leader(program)?;
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

/// How often it is looked for what was started meanwhile, when a program is paused. One that starts others faster than they are found
/// cannot start any from what is stopped, so few looks are enough.
const LOOKS: usize = 8;

fn leader(program: u32) -> io::Result<Pid> {
    i32::try_from(program).ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Program {
    /// The child with this number.
    pub fn new(pid: u32) -> Option<Self> {
        i32::try_from(pid).ok().and_then(Pid::from_raw).map(Self)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> SessionState {
        // Listened to before the first look, so that no end is missed.
        let mut children = match signal(SignalKind::child()) {
            Ok(children) => children,
            Err(error) => {
                tracing::error!("the end of the program cannot be watched: {error}");
                return SessionState::Lost;
            }
        };
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => {
                    return match (status.exit_status(), status.terminating_signal()) {
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
}

pub mod descriptor {
    //! The one place where a descriptor's number is taken at its word.
    #![allow(unsafe_code)]

    use std::io;
    use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

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

    /// A descriptor of our own for what the program before us has left open under this number, closed when a program is executed. The
    /// number stays as it is.
    ///
    /// # Errors
    /// When nothing is open there.
    pub fn copy_of(number: i32) -> io::Result<OwnedFd> {
        if number < 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: nothing in this program has opened or closed the number: the program before us has left it open when it executed us.
        // The borrowed descriptor does not leave this function, and the kernel says so if the number is not open after all.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
    }

    /// Closes what the program before us has left open under this number. To be called once for a number of which
    /// [`copy_of`] made a copy.
    pub fn close(number: i32) {
        if number > 2 {
            // SAFETY: the number is open, since it was copied, and nobody owns it: the program before us is no more, and in this one
            // nothing but its copy was used.
            drop(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }

    /// Lets the runtime watch a descriptor.
    pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
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
