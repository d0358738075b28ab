//! The holder: one small process per session, which owns the terminal, the program in it, its exit status, its output and its
//! parsed screen, and outlives the daemon.
//!
//! A session dies with the last owner of its terminal. So the owner is not the daemon, which crashes, restarts and is upgraded, but
//! this: started as `happy holder --dir DIR` in a session of its own, with nothing in its arguments that is secret. It does little, so
//! that it need not change: it answers the program's terminal queries (nobody else does), keeps [`ring`] and screen, serves
//! [`protocol`] on one socket and waits. An idle one is never woken.
//!
//! - [`spec`]: the files of a session,
//! - [`protocol`]: the socket's language (`docs/LOCAL.md`),
//! - [`state`], [`viewer`], [`input`], [`ring`], [`size`]: the session itself, without I/O,
//! - [`pty`], [`pump`], [`server`]: the loops around it.

pub mod input;
pub mod protocol;
pub mod pty;
pub mod pump;
pub mod ring;
pub mod server;
pub mod size;
pub mod spec;
pub mod state;
pub mod viewer;

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use pty::Program;
use pump::Ending;
use server::Holder;
use size::Size;
use spec::{ExitRecord, SessionDir, Spec, Start, StartError, unix_ms};
use state::State;

/// How long the last screen of an ended session is served when nobody forgets it.
pub const ENDED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// After it was told to end, the holder lets answers go out for so long.
const FAREWELL: Duration = Duration::from_millis(100);

/// After SIGTERM (the machine shuts down) the program may take so long to go, in milliseconds.
const TERMINATED_GRACE_MS: u32 = 5_000;

/// The holder's `main`: `args` are those after `holder`. Must be called before any thread or runtime exists.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let outcome = match args.as_slice() {
        [flag, dir] if flag == "--dir" => run(Path::new(dir)),
        _ => Err(StartError::Failed("this is started by the daemon, as `happy holder --dir DIR`".into())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started us may have gone.
            let _ = announce(&Start::Failed(error));
            ExitCode::FAILURE
        }
    }
}

/// Starts the program that is specified in `dir` and holds it until it is forgotten.
///
/// # Errors
/// [`StartError`] when the program could not be started; what happens later is told on the socket.
pub fn run(dir: &Path) -> Result<(), StartError> {
    // A session of our own: no terminal, and no signal that is meant for the daemon's group. Fails only when we have one already.
    let _ = rustix::process::setsid();
    let failed = |what: &str, error: io::Error| StartError::Failed(format!("{what}: {error}"));
    let dir = dir.canonicalize().map_err(|error| failed(&dir.display().to_string(), error))?;
    let dir = SessionDir::new(dir);
    let spec = dir.take_spec().map_err(|error| failed("the session's specification", error))?;
    // Nobody shall be kept from unmounting what the daemon happened to stand in.
    std::env::set_current_dir("/").map_err(|error| failed("/", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("the event loop", error))?;
    LocalSet::new().block_on(&runtime, hold(&dir, spec))
}

async fn hold(dir: &SessionDir, spec: Spec) -> Result<(), StartError> {
    let (listener, _socket) = listen(&spec.description.socket)
        .map_err(|error| StartError::Failed(format!("the socket {}: {error}", spec.description.socket.display())))?;
    let size = Size::clamped(spec.cols, spec.rows);
    let (pty, program) = pty::start(&spec, size)?;
    let state = State::new(size, spec.ring_bytes, spec.scrollback_rows as usize, program.pid());
    let pid = program.pid();
    // The environment is the program's business from now on.
    drop(spec);
    let holder = Rc::new(Holder { state: RefCell::new(state), pty, forgotten: Notify::new() });
    spawn_local(Rc::clone(&holder).serve(listener));
    spawn_local(heed_termination(Rc::clone(&holder)));
    // Nobody reads it when the daemon has gone in the meantime; the next one finds us by our socket.
    let _ = announce(&Start::Ready { pid });
    live(&holder, program, dir).await;
    Ok(())
}

/// Takes the socket away with the holder.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, Socket)> {
    let listener = UnixListener::bind(path)?;
    let socket = Socket(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, socket))
}

/// Says how the start went, once, and lets go of the pipe to whoever started us.
fn announce(start: &Start) -> io::Result<()> {
    let mut line = serde_json::to_vec(start)?;
    line.push(b'\n');
    let mut out = io::stdout();
    let said = out.write_all(&line).and_then(|()| out.flush());
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(null)?;
    said
}

/// From the start of the program to the end of the holder.
async fn live(holder: &Rc<Holder>, mut program: Program, dir: &SessionDir) {
    let ending = Rc::<Ending>::default();
    let reader = spawn_local({
        let (holder, ending) = (Rc::clone(holder), Rc::clone(&ending));
        async move { pump::read_output(&holder, &ending).await }
    });
    let writer = spawn_local({
        let holder = Rc::clone(holder);
        async move { pump::write_input(&holder).await }
    });
    // First the end of the process, then that of its output: the other way round the exit code could be missed, and background
    // children may keep the terminal open for ever.
    let state = program.ended().await;
    holder.state.borrow_mut().on_reaped();
    program.release();
    ending.announce();
    if let Err(error) = reader.await {
        tracing::error!("the loop that reads the terminal has failed: {error}");
    }
    writer.abort();
    let exit = ExitRecord { state, offset: holder.state.borrow().output_offset(), at: unix_ms() };
    if let Err(error) = dir.write_exit(&exit) {
        tracing::error!("the exit status cannot be written: {error}");
    }
    holder.state.borrow_mut().on_exit(exit);
    let _ = tokio::time::timeout(ENDED_KEPT, holder.forgotten.notified()).await;
    tokio::time::sleep(FAREWELL).await;
}

/// When the machine shuts down the program is hung up as if its terminal were closed, and its end is recorded.
async fn heed_termination(holder: Rc<Holder>) {
    let Ok(mut terminations) = signal(SignalKind::terminate()) else { return };
    while terminations.recv().await.is_some() {
        if holder.kill(Signal::HUP.as_raw().unsigned_abs(), TERMINATED_GRACE_MS).is_err() {
            // It has ended already: there is nothing to wait for.
            holder.forgotten.notify_one();
        }
    }
}
