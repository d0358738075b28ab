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
//! - [`state`], [`viewer`], [`input`], [`ring`], [`size`]: the session itself; of I/O only what [`blocks`] needs,
//! - [`prompting`]: the question with which the program waits; [`progress`]: how far it says it is,
//! - [`recording`]: a file of what it prints, with times,
//! - [`pty`], [`pump`], [`connection`], [`server`]: the loops around it,
//! - [`upgrade`], [`handover`], [`history`], [`resume`]: another program for it, while it runs.

pub mod blocks;
pub mod build;
pub mod connection;
pub mod handover;
pub mod history;
pub mod input;
pub mod pretence;
pub mod processes;
pub mod progress;
pub mod prompting;
pub mod protocol;
pub mod pty;
pub mod pump;
pub mod recording;
pub mod resume;
pub mod ring;
pub mod server;
pub mod size;
pub mod spec;
pub mod state;
pub mod upgrade;
pub mod viewer;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::net::UnixListener;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{spawn_local, yield_now};

use blocks::{Blocks, Place};
use connection::{Connection, Phase};
use protocol::{Refusal, Response, kind, put_json, refusal};
use pty::{Program, Pty, descriptor};
use pump::Ending;
use recording::Recording;
use resume::Resumed;
use ring::Ring;
use server::Holder;
use size::Size;
use spec::{ExitRecord, SessionDir, Spec, Start, StartError, unix_ms};
use state::{MIN_LOG, State};
use upgrade::HeldSignals;

use crate::tmux::companion::{Companion, Guest};
use crate::tmux::{Origin, TmuxError};

/// How long the last screen of an ended session is served when nobody forgets it.
pub const ENDED_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// After it was told to end, the holder lets answers go out for so long.
const FAREWELL: Duration = Duration::from_millis(100);

/// How long it may take to tell a viewer that it has left. Others wait to attach anew.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long viewers may look at the last screen of a session of tmux.
const LAST_LOOK: Duration = Duration::from_secs(60);

/// After SIGTERM (the machine shuts down) the program may take so long to go, in milliseconds.
const TERMINATED_GRACE_MS: u32 = 5_000;

/// The holder's `main`: `args` are those after `holder`. Must be called before any thread or runtime exists.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let outcome = match args.as_slice() {
        [flag, dir] if flag == "--dir" => run(Path::new(dir)),
        [flag] if flag == "--handover-version" => tell_what_it_reads(),
        [flag, handover, own, refused @ ..] if flag == "--resume" => match (number(handover), number(own)) {
            (Some(handover), Some(own)) => {
                go_on(handover, own, refused.first().map(|why| why.to_string_lossy().into()))
            }
            _ => Err(StartError::Failed("`--resume` is for one holder's program and the next".into())),
        },
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

fn number(text: &OsStr) -> Option<i32> {
    text.to_str()?.parse().ok()
}

fn tell_what_it_reads() -> Result<(), StartError> {
    let reads = pretence::get().reads.unwrap_or_else(|| handover::VERSION.to_string());
    let line = format!("{} {reads}\n", upgrade::READS);
    io::stdout().write_all(line.as_bytes()).map_err(|error| StartError::Failed(error.to_string()))
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
    let runtime = runtime().map_err(|error| failed("the event loop", error))?;
    runtime.block_on(hold(dir, spec))
}

fn runtime() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

async fn hold(dir: SessionDir, spec: Spec) -> Result<(), StartError> {
    let (listener, _socket) = listen(&spec.description.socket)
        .map_err(|error| StartError::Failed(format!("the socket {}: {error}", spec.description.socket.display())))?;
    let signals = Signals::listen().map_err(|error| StartError::Failed(error.to_string()))?;
    let guest = match spec.description.tmux.clone() {
        Some(origin) => Some(invite(origin, spec.env.clone()).await?),
        None => None,
    };
    let size = guest.as_ref().map_or(Size::clamped(spec.cols, spec.rows), |(_, companion)| companion.size());
    // Before the program, which shall not have done anything when there is no recording of it.
    let recording = spec.record.as_ref().map(|order| Recording::begin(order, &spec.description, size, b"")).transpose();
    let mut recording = recording.map_err(|refused| StartError::Failed(refused.message))?;
    let (pty, program) = pty::start(&spec, size).inspect_err(|_| {
        if let Some(recording) = recording.take() {
            recording.discard();
        }
    })?;
    let log = open_log(spec.log, &dir, spec.ring_bytes);
    let mut state =
        State::new(size, spec.ring_bytes, log, spec.scrollback_rows as usize, program.pid()).with_recording(recording);
    state.on_outside(guest.as_ref().and_then(|(_, companion)| companion.outside()));
    let pid = program.pid();
    let socket = spec.description.socket.clone();
    // The environment is the program's business from now on.
    drop(spec);
    let holder = holder(state, pty, dir, socket, listener, guest.is_some());
    spawn_local(Rc::clone(&holder).serve());
    spawn_local(signals.heed(Rc::clone(&holder)));
    // Nobody reads it when the daemon has gone in the meantime; the next one finds us by our socket.
    let _ = announce(&Start::Ready { pid });
    let guest = guest.map(|(guest, companion)| {
        spawn_local(companion.run(Rc::clone(&holder)));
        guest
    });
    live(&holder, program, guest).await;
    Ok(())
}

/// A session of tmux: whether it is there, and who sees to it.
async fn invite(origin: Origin, env: BTreeMap<String, String>) -> Result<(Guest, Companion), StartError> {
    let failed = |error: TmuxError| StartError::Failed(error.to_string());
    // `tmux attach -X` of somebody else hangs up whoever has started our client.
    let _ = signal(SignalKind::hangup());
    let guest = Guest::new(origin, env).await.map_err(failed)?;
    let companion = guest.companion().await.map_err(failed)?;
    Ok((guest, companion))
}

fn holder(
    state: State,
    pty: Pty,
    dir: SessionDir,
    socket: PathBuf,
    listener: UnixListener,
    is_guest: bool,
) -> Rc<Holder> {
    Rc::new(Holder {
        state: RefCell::new(state.with_build(build::own())),
        pty,
        forgotten: Notify::new(),
        dir,
        socket,
        listener,
        connections: RefCell::new(BTreeMap::new()),
        is_upgrading: Cell::new(false),
        is_guest,
    })
}

/// Where the older part of the raw log goes. A session without it is better than none.
fn open_log(place: Option<Place>, dir: &SessionDir, capacity: usize) -> Option<Blocks> {
    let slots = Ring::slots(capacity.max(MIN_LOG));
    let place = place.unwrap_or_default();
    [place, Place::Sealed].into_iter().find_map(|place| Blocks::open(place, dir.path(), slots).ok())
}

/// Goes on where another program has stopped, whose handover is open under the number `handover`, and which is itself under `own`.
/// `refused`: this is that program again, because the other one did not take over.
///
/// # Errors
/// [`StartError`] when it can be neither taken over nor given back: the session is lost.
fn go_on(handover: i32, own: i32, refused: Option<String>) -> Result<(), StartError> {
    let mut held = Some(HeldSignals::inherited());
    // Until everything is understood and made anew nothing is touched, so that there is a way back from everything, a fault of ours included.
    let resumed = std::panic::catch_unwind(|| resume::read(handover));
    let taken = match (resumed, runtime()) {
        (Ok(Ok(resumed)), Ok(runtime)) => {
            runtime.block_on(take_over(resumed, own, &mut held, refused.clone())).map_err(|e| e.to_string())
        }
        (Ok(Err(error)), _) => Err(error.to_string()),
        (Err(_), _) => Err("it failed while it read what the old program left".into()),
        (_, Err(error)) => Err(error.to_string()),
    };
    taken.map_err(|why| match refused {
        None => StartError::Failed(format!("{why}; nor back: {}", upgrade::go_back(handover, own, &why))),
        Some(_) => StartError::Failed(why),
    })
}

async fn take_over(
    mut resumed: Resumed,
    own: i32,
    held: &mut Option<HeldSignals>,
    refused: Option<String>,
) -> io::Result<()> {
    let left_open = resumed.take_left_open();
    let Resumed { mut state, handover, master, slave, listener, connections, .. } = resumed;
    let pty = Pty::new(master, slave)?;
    let listener = UnixListener::from_std(listener)?;
    let connections: Vec<(u64, Connection)> =
        connections.into_iter().map(|(number, left)| Ok((number, left.connect()?))).collect::<io::Result<_>>()?;
    let signals = Signals::listen()?;
    let program = state.pid().and_then(Program::new).ok_or(io::ErrorKind::InvalidData)?;
    let own = descriptor::copy_of(own).map(|_| own)?;

    // From here on there is no way back.
    left_open.into_iter().chain([own]).for_each(descriptor::close);
    let _socket = Socket::at(&handover.socket);
    // An execution by descriptor leaves its number as the name.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::set_name(c"happy");
    if refused.is_none() {
        state.on_upgraded();
    }
    let killed_at = state.killed_at();
    let holder = holder(state, pty, SessionDir::new(handover.dir), handover.socket, listener, false);
    spawn_local(Rc::clone(&holder).serve());
    for (number, connection) in connections {
        if connection.phase.get() == (Phase::Control { awaits_upgrade: true }) {
            let response = match &refused {
                None => Response::Ok(holder.state.borrow().status()),
                Some(why) => Response::Error(Refusal::new(
                    refusal::CONFLICT,
                    format!("the session stays with its program: the new one gave it back: {why}"),
                )),
            };
            put_json(&mut connection.buffer(), kind::RESPONSE, None, &response);
            connection.phase.set(Phase::Control { awaits_upgrade: false });
        }
        holder.take_on(number, connection);
    }
    if let Some(at) = killed_at {
        holder.kill_at(program.pid(), at);
    }
    spawn_local(signals.heed(Rc::clone(&holder)));
    drop(held.take());
    spawn_local(settle(Rc::clone(&holder), handover.stopped_at));
    live(&holder, program, None).await;
    Ok(())
}

/// Once everybody has been served: how long that took, and the history.
async fn settle(holder: Rc<Holder>, stopped_at: u64) {
    // The others have looked once by then, and the system has told who is ready.
    yield_now().await;
    let blackout = Duration::from_nanos(upgrade::monotonic().saturating_sub(stopped_at));
    tracing::debug!("nobody was served for {blackout:?} while this program took over");
    holder.state.borrow_mut().on_served(blackout);
    while !holder.state.borrow_mut().load_history() {
        yield_now().await;
    }
}

/// Takes the socket away with the holder.
struct Socket {
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Socket {
    /// The one that is there.
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), file: Self::file(path) }
    }

    fn file(path: &Path) -> Option<(u64, u64)> {
        fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Another holder may listen there by now.
        if Self::file(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<(UnixListener, Socket)> {
    let listener = UnixListener::bind(path)?;
    let socket = Socket::at(path);
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
async fn live(holder: &Rc<Holder>, program: Program, guest: Option<Guest>) {
    let ending = Rc::<Ending>::default();
    let reader = spawn_local({
        let (holder, ending) = (Rc::clone(holder), Rc::clone(&ending));
        async move { pump::read_output(&holder, &ending).await }
    });
    let writer = spawn_local({
        let holder = Rc::clone(holder);
        async move { pump::write_input(&holder).await }
    });
    let recorder = spawn_local({
        let holder = Rc::clone(holder);
        async move { recording::write_soon(&holder).await }
    });
    let watcher = spawn_local({
        let holder = Rc::clone(holder);
        async move { prompting::watch(&holder).await }
    });
    let teller = spawn_local({
        let holder = Rc::clone(holder);
        async move { progress::tell(&holder).await }
    });
    // First the end of the process, then that of its output: the other way round the exit code could be missed, and background
    // children may keep the terminal open for ever.
    let state = program.ended().await;
    holder.state.borrow_mut().on_reaped();
    holder.pty.release();
    ending.announce();
    if let Err(error) = reader.await {
        tracing::error!("the loop that reads the terminal has failed: {error}");
    }
    writer.abort();
    watcher.abort();
    teller.abort();
    if let Some(guest) = &guest
        && guest.goes_on(state == happy_rpc::SessionState::Exited { code: 0 }).await
    {
        holder.state.borrow_mut().on_client_left();
        return until_nobody_looks(holder, LAST_WORD).await;
    }
    let exit = {
        let session = holder.state.borrow();
        ExitRecord { state, offset: session.output_offset(), bytes_in: session.bytes_in(), at: unix_ms() }
    };
    if let Err(error) = holder.dir.write_exit(&exit) {
        tracing::error!("the exit status cannot be written: {error}");
    }
    holder.state.borrow_mut().on_exit(exit);
    recorder.abort();
    if guest.is_some() {
        // tmux keeps nothing of what has ended, and nor do we.
        return until_nobody_looks(holder, LAST_LOOK).await;
    }
    let _ = tokio::time::timeout(ENDED_KEPT, holder.forgotten.notified()).await;
    tokio::time::sleep(FAREWELL).await;
}

/// Waits until all viewers were told what there is to tell and have gone, for so long at most.
async fn until_nobody_looks(holder: &Holder, most: Duration) {
    let mut status = holder.state.borrow().wakes().status.subscribe();
    let gone = status.wait_for(|_| holder.state.borrow().viewer_count() == 0);
    let _ = tokio::time::timeout(most, gone).await;
    tokio::time::sleep(FAREWELL).await;
}

/// The signals that the holder heeds.
struct Signals {
    terminations: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        // A limit on the size of files holds for the raw log too, and shall not end the session but be an error like others. That
        // somebody listened once is enough.
        let _ = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()));
        Ok(Self { terminations: signal(SignalKind::terminate())? })
    }

    /// When the machine shuts down the program is hung up as if its terminal were closed, and its end is recorded.
    async fn heed(mut self, holder: Rc<Holder>) {
        while self.terminations.recv().await.is_some() {
            if holder.kill(Signal::HUP.as_raw().unsigned_abs(), TERMINATED_GRACE_MS).is_err() {
                // It has ended already: there is nothing to wait for.
                holder.forgotten.notify_one();
            }
        }
    }
}
