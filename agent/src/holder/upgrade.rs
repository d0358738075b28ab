//! Another program for a running holder (`docs/LOCAL.md`, "Another program for a holder"): the process stays, so the terminal's
//! program keeps its parent and its exit status is still told; every descriptor stays, so no connection breaks.
//!
//! All state stands in [`super::state::State`], in the connections and in the terminal, and none in a task. So the switch is one plain call between two
//! waits, and when it fails nothing has changed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::FdFlags;
use tokio::io::AsyncReadExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::handover::{self, Descriptors, Sections};
use super::history::EarlyHistory;
use super::protocol::{Refusal, refusal};
use super::server::Holder;

/// How long the new program may take to say what it can read.
const CHECK: Duration = Duration::from_secs(5);

/// What a program of ours says when it is asked what it can read; the numbers follow.
pub const READS: &str = "happy-handover";

/// More than it says.
const MAX_ANSWER: u64 = 256;

/// Goes on as another program. Returns only when that could not be done; then everything is as it was.
pub async fn upgrade(holder: &Rc<Holder>, path: &Path) -> Refusal {
    if !cfg!(target_os = "linux") {
        return Refusal::new(refusal::UNKNOWN, "a session cannot be upgraded on this system");
    }
    if holder.is_upgrading.replace(true) {
        return Refusal::new(refusal::CONFLICT, "the session is being upgraded already");
    }
    let _guard = Upgrading(&holder.is_upgrading);
    match try_upgrade(holder, path).await {
        Err(why) => Refusal::new(refusal::CONFLICT, format!("the session stays with its program: {why}")),
        Ok(never) => match never {},
    }
}

struct Upgrading<'a>(&'a Cell<bool>);

impl Drop for Upgrading<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

async fn try_upgrade(holder: &Rc<Holder>, path: &Path) -> Result<std::convert::Infallible, String> {
    if holder.state.borrow().pid().is_none() {
        return Err("what runs in it has ended".into());
    }
    let program = open_program(path).map_err(|error| format!("{} cannot be run: {error}", path.display()))?;
    check(&program).await.map_err(|why| format!("{} {why}", path.display()))?;

    let failed = |error: io::Error| error.to_string();
    let file = memory(c"happy-history").map_err(failed)?;
    let mut history = EarlyHistory::new(file);
    // Those that this program has not put in their place yet would be missing.
    while !holder.state.borrow_mut().load_history() {
        yield_now().await;
    }
    // Rows that are printed in the meantime are copied too; a program that prints faster than that has the rest copied at the switch.
    for _ in 0..MAX_ROUNDS {
        let more = history.copy(holder.state.borrow().screen()).map_err(failed)?;
        if !more {
            break;
        }
        yield_now().await;
    }

    let _held = HeldSignals::hold().map_err(failed)?;
    // A termination that came before that is heeded by us, one that comes later by the next program.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let error = switch(holder, &program, path, history);
    Err(format!("{} did not start: {error}", path.display()))
}

/// Slices of history that are copied while others are served: those of 10,000 rows, and as many again.
const MAX_ROUNDS: usize = 80;

/// It need not be readable.
#[cfg(target_os = "linux")]
const TO_EXECUTE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const TO_EXECUTE: OFlags = OFlags::CLOEXEC;

fn open_program(path: &Path) -> io::Result<OwnedFd> {
    // What is checked is what is executed, whatever becomes of the path.
    let program = rustix::fs::open(path, TO_EXECUTE, Mode::empty())?;
    let found = rustix::fs::fstat(&program)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a file"));
    }
    rustix::fs::access(by_descriptor(&program), rustix::fs::Access::EXEC_OK)?;
    Ok(program)
}

fn by_descriptor(program: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", program.as_raw_fd()))
}

/// Asks the new program, in a process of its own, what it can read.
async fn check(program: &OwnedFd) -> Result<(), String> {
    let answer = async {
        let mut command = tokio::process::Command::new(by_descriptor(program));
        command.args(["holder", "--handover-version"]).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Nothing else is started in between: there is one thread, and it does not wait here. Scripts need it open.
        rustix::io::fcntl_setfd(program, FdFlags::empty())?;
        let child = command.spawn();
        rustix::io::fcntl_setfd(program, FdFlags::CLOEXEC)?;
        let mut child = child?;
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        }
        let _ = child.kill().await;
        Ok::<_, io::Error>(answer)
    };
    let answer = match timeout(CHECK, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(format!("cannot be run: {error}")),
        Err(_) => return Err(format!("did not say what it can read within {} seconds", CHECK.as_secs())),
    };
    let answer = std::str::from_utf8(&answer).ok().and_then(|text| text.trim_end().strip_prefix(READS));
    let Some(versions) = answer else { return Err("is not a program that can take over a session".into()) };
    match versions.split_whitespace().any(|version| version.parse() == Ok(handover::VERSION)) {
        true => Ok(()),
        false => Err(format!("cannot read what this one would leave (version {})", handover::VERSION)),
    }
}

/// Executes the new program. Nobody is served from here on; what could fail does so before that, or leaves all as it was.
fn switch(holder: &Holder, program: &OwnedFd, path: &Path, history: EarlyHistory) -> io::Error {
    match try_switch(holder, program, path, history) {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

fn try_switch(
    holder: &Holder,
    program: &OwnedFd,
    path: &Path,
    mut history: EarlyHistory,
) -> io::Result<std::convert::Infallible> {
    let stopped_at = monotonic();
    // Where to go back to when the new program cannot read what we leave. The file may be gone, its inode is not.
    let own = rustix::fs::open("/proc/self/exe", TO_EXECUTE, Mode::empty())?;
    holder.state.borrow_mut().write_recording();
    let state = holder.state.borrow();
    while history.copy(state.screen())? {}

    let mut sections = Sections::default();
    let saved = state.save(&mut sections).ok_or_else(|| io::Error::other("what runs in the session has ended"))?;
    let descriptors = Descriptors {
        master: holder.pty.master().as_raw_fd(),
        slave: holder.pty.slave(),
        listener: holder.listener.as_raw_fd(),
        log: state.log().map(|log| log.descriptor().as_raw_fd()),
        recording: state.recording().map(|recording| recording.as_raw_fd()),
        history: history.descriptor().as_raw_fd(),
    };
    let mut kept: Vec<BorrowedFd<'_>> =
        vec![holder.pty.master(), holder.listener.as_fd(), history.descriptor(), own.as_fd()];
    kept.extend(state.log().map(|log| log.descriptor()));
    kept.extend(state.recording());
    let slave = holder.pty.slave_descriptor();
    kept.extend(slave.as_ref().map(|slave| slave.as_fd()));

    let connections = holder.connections.borrow();
    let mut saved_connections = serde_json::Map::new();
    for (number, connection) in connections.iter() {
        let (phase, inbox, outbox) = connection.save();
        sections.put(&format!("in/{number}"), &inbox);
        sections.put(&format!("out/{number}"), &outbox);
        let saved = handover::SavedConnection { descriptor: connection.descriptor().as_raw_fd(), phase };
        saved_connections.insert(number.to_string(), serde_json::to_value(saved)?);
        kept.push(connection.descriptor());
    }
    let json = serde_json::json!({
        "dir": holder.dir.path(),
        "socket": holder.socket,
        "descriptors": descriptors,
        "state": saved,
        "history": state.history(history.first()),
        "connections": saved_connections,
        "stopped_at": stopped_at,
    });
    sections.put("state", &serde_json::to_vec(&json)?);
    let mut file = memory(c"happy-handover")?;
    file.write_all(&sections.into_bytes())?;
    kept.push(file.as_fd());

    let _kept = Kept::across(kept)?;
    let error = std::process::Command::new(by_descriptor(program))
        .arg0(path)
        .args(["holder", "--resume", &file.as_raw_fd().to_string(), &own.as_raw_fd().to_string()])
        .exec();
    Err(error)
}

/// Executes the program that was there before, with what it has left, because this one cannot go on with it. Returns only when
/// that fails too.
pub fn go_back(handover: i32, own: i32, why: &str) -> io::Error {
    std::process::Command::new(format!("/proc/self/fd/{own}"))
        .arg0("happy")
        .args(["holder", "--resume", &handover.to_string(), &own.to_string(), why])
        .exec()
}

/// Descriptors that stay open when a program is executed, until this is dropped.
struct Kept<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Kept<'a> {
    fn across(descriptors: Vec<BorrowedFd<'a>>) -> io::Result<Self> {
        let kept = Self(descriptors);
        for descriptor in &kept.0 {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(kept)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        for descriptor in &self.0 {
            let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
}

/// Signals that would end the new program before it heeds them wait, across the execution too, until this is dropped.
pub struct HeldSignals(());

impl HeldSignals {
    /// Holds them.
    ///
    /// # Errors
    /// What the system says.
    pub fn hold() -> io::Result<Self> {
        nix::sys::signal::SigSet::from(nix::sys::signal::SIGTERM).thread_block()?;
        Ok(Self(()))
    }

    /// Those that the program before us holds.
    pub fn inherited() -> Self {
        Self(())
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = nix::sys::signal::SigSet::from(nix::sys::signal::SIGTERM).thread_unblock();
    }
}

/// Nanoseconds of a clock that goes on across an execution.
pub fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec.unsigned_abs()).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec.unsigned_abs())
}

#[cfg(target_os = "linux")]
fn memory(name: &std::ffi::CStr) -> io::Result<File> {
    Ok(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn memory(_: &std::ffi::CStr) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}
