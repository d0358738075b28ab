//! The sessions of this machine, as the daemon sees them: each lives in its own holder process ([`crate::holder`]), which the
//! daemon starts, finds again after a crash or upgrade of itself, and speaks to over one socket per viewer and one to steer.
//!
//! The whole interface, for whoever serves calls with it:
//!
//! ```no_run
//! # use happy::session::{AttachRequest, Config, Sessions};
//! # use uuid::Uuid;
//! # async fn serve(home: std::path::PathBuf, create: happy_rpc::SessionCreate) -> Result<(), Box<dyn std::error::Error>> {
//! let sessions = Sessions::open(Config::new(home)?).await?;      // adopts what an earlier daemon has left
//! let mut events = sessions.subscribe();                         // events.next().await: happy_rpc::Event
//! let session = sessions.create(create).await?;                  // happy_rpc::Session
//! let all = sessions.list().await;
//!
//! let viewer = sessions
//!     .attach(AttachRequest { session: session.id, writer: Uuid::new_v4(), name: "desk".into(), from: None, scrollback: 1_000,
//!                             lossless: false, credit: false, cols: 80, rows: 24, take_control: true })
//!     .await?;
//! let (attached, mut sender, mut receiver) = viewer.split();     // attached: happy_rpc::Attached, for the answer of session.attach
//! let message = receiver.recv().await?;                          // bytes of one TerminalMessage, for the channel as they are
//! # let input = message.unwrap();
//! sender.send(&input).await?;                                    // bytes of one TerminalMessage::Input from the channel
//!
//! sessions.take_control(attached.attachment, 120, 40).await?;
//! sessions.resize(attached.attachment, 100, 30).await?;
//! sessions.detach(attached.attachment).await?;                   // or drop sender and receiver
//! sessions.kill(session.id).await?;                              // hang-up, then SIGKILL; forgets a session that has ended
//! # Ok(()) }
//! ```
//!
//! Everything is cheap to clone, safe to call from many tasks and bounded in time; each error is an enum with a sentence for people
//! and turns into a [`happy_rpc::CallError`] with `into()`. Backpressure is the socket's: whoever does not call
//! [`ViewerReceiver::recv`] is given a new snapshot instead of a backlog (a lossless viewer makes the program wait), and
//! [`ViewerSender::send`] waits while the program does not read. Dropping [`Sessions`] ends its connections, not the sessions.

mod adopt;
mod client;
mod error;
mod glance;
mod hooks;
mod inside;
pub mod login;
mod prompts;
mod record;
mod spawn;
mod tmux;
mod typist;
mod upgrade;
mod viewer;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use happy_rpc::{CallError, ErrorCode, Event, Glance, Prompt, Session, SessionCreate, SessionState};
use rustix::process::Signal;
use tokio::sync::{broadcast, mpsc, oneshot};
use uuid::Uuid;

use self::client::Reached;
use crate::holder::blocks::Place;
use crate::holder::protocol::{Build, Ended, Request, Status, refusal};
use crate::holder::spec::{Description, ExitRecord, SessionDir, unix_ms};
use crate::tmux::sockets;

pub use error::{AttachError, ControlError, CreateError, OpenError, TypeError, ViewerError};
pub use login::Login;
pub use viewer::{AttachRequest, Viewer, ViewerReceiver, ViewerSender};

/// How many programs may run at once: each costs two processes, some descriptors and memory.
pub const MAX_SESSIONS: usize = 1_000;

/// Sessions that ended long ago are looked for so often.
const TIDY: Duration = Duration::from_secs(60 * 60);

/// How long a holder may take to start its program or to answer, before it counts as broken.
pub const HOLDER_DEADLINE: Duration = Duration::from_secs(5);

/// How long a program may take to go after a hang-up.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// What is kept of sessions that have ended and that nobody forgets. The one that ended first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedKept {
    /// How many are listed: each costs a process that shows its last screen.
    pub sessions: usize,
    /// How much of their output is kept in all, bytes; that of the last one whatever it has. It lies in memory on Linux.
    pub bytes: u64,
    /// For how long.
    pub time: Duration,
}

impl Default for EndedKept {
    fn default() -> Self {
        Self { sessions: 100, bytes: 256 * 1024 * 1024, time: crate::holder::ENDED_KEPT }
    }
}

/// Events kept for a subscriber that is slow; then it is told to list again.
const EVENTS: usize = 256;

/// Requests to one holder that wait to be sent; more wait with their callers.
const ASKS: usize = 16;

/// How long [`Sessions::list`] waits for the holders' newest figures before it makes do with the last known ones.
const REFRESH: Duration = Duration::from_millis(500);

/// Where sessions live and how holders are started.
#[derive(Clone)]
pub struct Config {
    /// `HAPPY_HOME_DIR`; sessions live in `sessions/` there.
    pub home: PathBuf,
    /// Program and first arguments of a holder; `--dir DIR` is added.
    pub holder: Vec<OsString>,
    /// The environment of sessions whose creator sent none, unless that of a login shell is taken.
    pub env: BTreeMap<String, String>,
    /// The environment of the user's login shell, when this process was not started by one.
    pub login: Option<Arc<Login>>,
    /// Where holders keep the older part of the output; what is usual on this system when missing.
    pub log: Option<Place>,
    /// How many bytes of output a session keeps whose creator did not say.
    pub keep: Option<u64>,
    /// Whether a project may ask for more.
    pub projects: bool,
    /// Whether holders of another build go on as this one's program.
    pub upgrade: bool,
    /// What is kept of sessions that have ended.
    pub ended: EndedKept,
    /// Where servers of tmux are looked for, the usual place first; nowhere: sessions of tmux are not listed.
    pub tmux: Vec<PathBuf>,
}

impl Config {
    /// Holders run this very program with the argument `holder`, sessions get this process's environment (what of it is UTF-8).
    ///
    /// # Errors
    /// When this program's own path cannot be found.
    pub fn new(home: impl Into<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            home: home.into(),
            holder: vec![std::env::current_exe()?.into(), "holder".into()],
            env: env_of_sessions(std::env::vars_os()),
            login: None,
            log: None,
            keep: None,
            projects: true,
            upgrade: true,
            ended: EndedKept::default(),
            tmux: vec![sockets::folder(std::env::var("TMUX_TMPDIR").ok().as_deref())],
        })
    }
}

impl Config {
    /// The environment of sessions whose creator sent none.
    pub async fn environment(&self) -> BTreeMap<String, String> {
        match &self.login {
            Some(login) => login.environment(&self.env).await,
            None => self.env.clone(),
        }
    }
}

/// What of a process's environment is for sessions that were given none: what is UTF-8, but for what a service manager told the process.
fn env_of_sessions(env: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    let env = env.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    env.filter(|(name, _)| !crate::unit::notify::PRIVATE.contains(&name.as_str())).collect()
}

/// All sessions of this machine. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    config: Config,
    entries: Mutex<BTreeMap<Uuid, Entry>>,
    /// Attachment → session.
    attachments: Mutex<HashMap<Uuid, Uuid>>,
    events: broadcast::Sender<Event>,
    tmux: tmux::Tmux,
    glances: glance::Glances,
}

struct Entry {
    session: Session,
    dir: SessionDir,
    socket: PathBuf,
    /// The holder's program.
    build: Build,
    /// `None` when no holder lives any more.
    holder: Option<mpsc::Sender<Ask>>,
    /// When it ended, in Unix milliseconds, once that is known.
    ended_at: Option<u64>,
    /// It is being forgotten.
    is_going: bool,
    /// How many bytes of its output the holder keeps.
    kept: u64,
    /// How many bytes were typed into it.
    bytes_in: u64,
    /// The session of tmux that it is.
    guest: Option<tmux::Guest>,
    /// The question with which its program waits.
    prompt: Option<Prompt>,
    /// How the one before ended.
    prompt_ended: Option<Ended>,
    /// Questions that its program tells of by itself.
    hooks: Vec<hooks::Hook>,
    /// What stands on the screen and is not told until then, for a hook was answered while it stood there.
    held: Option<(Uuid, tokio::time::Instant)>,
}

/// A file in the folder of a session that was told to end.
const TOLD: &str = "told-to-end";

/// A request on its way to a holder, and who waits for the answer.
struct Ask {
    request: Request,
    answer: oneshot::Sender<Result<Status, ControlError>>,
}

impl Sessions {
    /// Finds the sessions that earlier daemons have left, and is ready for more.
    ///
    /// # Errors
    /// When the sessions' directory cannot be made or read.
    pub async fn open(config: Config) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared {
            config,
            entries: Mutex::default(),
            attachments: Mutex::default(),
            events: broadcast::channel(EVENTS).0,
            tmux: tmux::Tmux::default(),
            glances: glance::Glances::default(),
        });
        adopt::all(&shared).await?;
        tmux::begin(&shared).await;
        upgrade::begin(&shared);
        tokio::spawn(tidy_now_and_then(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Starts a program in a new terminal.
    ///
    /// # Errors
    /// [`CreateError`]; nothing is left behind.
    pub async fn create(&self, mut params: SessionCreate) -> Result<Session, CreateError> {
        if params.env.is_none() && self.shared.config.login.is_some() {
            params.env = Some(self.environment().await);
        }
        if params.tmux {
            return tmux::create(&self.shared, params).await;
        }
        spare_descriptors().map_err(CreateError::Descriptors)?;
        let (id, dir) = self.shared.reserve()?;
        let started = spawn::start(&self.shared.config, id, &dir, params).await;
        let started = match started {
            Ok(description) => client::steer(&self.shared, &description, &dir).await.map_err(CreateError::Unreachable),
            Err(error) => Err(error),
        };
        self.shared.settle(id, &dir, started)
    }

    /// All sessions, oldest first.
    pub async fn list(&self) -> Vec<Session> {
        let holders: Vec<_> = self.shared.entries().values().filter_map(|entry| entry.holder.clone()).collect();
        let asked = holders.into_iter().map(|holder| async move { ask(&holder, Request::Status).await });
        // What a holder answers reaches the list through its own task; one that is slow shows its last figures.
        let mut answers = tokio::task::JoinSet::from_iter(asked);
        let all = async { while answers.join_next().await.is_some() {} };
        let _ = tokio::join!(tokio::time::timeout(REFRESH, all), tmux::look(&self.shared));
        self.known()
    }

    /// All sessions as last heard of, oldest first.
    pub fn known(&self) -> Vec<Session> {
        let mut sessions: Vec<_> = self.shared.listed().collect();
        sessions.sort_by_key(Session::place);
        sessions
    }

    /// How many bytes were typed into each session, as last heard of: what its viewers sent and people answered, not what a terminal
    /// answers to its program.
    pub fn bytes_in(&self) -> HashMap<Uuid, u64> {
        self.shared.entries().iter().map(|(id, entry)| (*id, entry.bytes_in)).collect()
    }

    /// One session as last heard of.
    pub fn session(&self, id: Uuid) -> Option<Session> {
        self.shared.listed().find(|session| session.id == id)
    }

    /// Everything that happens to sessions from now on.
    pub fn subscribe(&self) -> Events {
        Events { inner: self.shared.events.subscribe() }
    }

    /// The last line of each session as far as it is known, and each new one from now on. As long as somebody listens, holders
    /// tell what is printed, ten times a second at most.
    pub fn glances(&self) -> (Vec<Glance>, broadcast::Receiver<Glance>) {
        glance::subscribe(&self.shared)
    }

    /// Shows a session to a viewer.
    ///
    /// # Errors
    /// [`AttachError`].
    pub async fn attach(&self, request: AttachRequest) -> Result<Viewer, AttachError> {
        viewer::attach(&self.shared, request).await
    }

    /// Ends an attachment; the session goes on. One that has already ended is no error.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn detach(&self, attachment: Uuid) -> Result<(), ControlError> {
        match self.shared.ask_about(attachment, |viewer| Request::Detach { viewer }).await {
            Ok(_) | Err(ControlError::NoAttachment) => Ok(()),
            Err(ControlError::Refused(refused)) if refused.code == refusal::NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes an attachment the one that decides the size, at once in its own size.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn take_control(&self, attachment: Uuid, cols: u16, rows: u16) -> Result<(), ControlError> {
        self.shared.ask_about(attachment, |viewer| Request::TakeControl { viewer, cols, rows }).await.map(drop)
    }

    /// Lets an attachment decide the size no more; whoever had control before has it again.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Refused`] by a holder of before, which does not know how.
    pub async fn give_control(&self, attachment: Uuid) -> Result<(), ControlError> {
        self.shared.ask_about(attachment, |viewer| Request::GiveControl { viewer }).await.map(drop)
    }

    /// Changes the size of the screen.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Refused`] unless the attachment is in control.
    pub async fn resize(&self, attachment: Uuid, cols: u16, rows: u16) -> Result<(), ControlError> {
        self.shared.ask_about(attachment, |viewer| Request::Resize { viewer, cols, rows }).await.map(drop)
    }

    /// Types a text as one paste, and Enter if it is wanted; returns when the program's terminal has all of it.
    ///
    /// # Errors
    /// [`TypeError`].
    pub async fn type_text(&self, id: Uuid, text: &str, enter: bool) -> Result<(), TypeError> {
        typist::type_text(&self.shared, id, text, enter).await
    }

    /// Stops the program, with all that it has started in its terminal, until [`Sessions::resume`].
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause(&self, id: Uuid) -> Result<Session, ControlError> {
        self.steer(id, Request::Pause).await
    }

    /// Lets a paused program go on.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn resume(&self, id: Uuid) -> Result<Session, ControlError> {
        self.steer(id, Request::Resume).await
    }

    async fn steer(&self, id: Uuid, request: Request) -> Result<Session, ControlError> {
        if self.shared.entries().get(&id).is_some_and(|entry| entry.guest.is_some()) {
            return Err(ControlError::OfTmux("paused or resumed"));
        }
        let holder = self.shared.holder(id)?;
        ask(&holder, request).await?;
        self.session(id).ok_or(ControlError::NoSession)
    }

    /// Gives a session another name, on the disk first.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn rename(&self, id: Uuid, name: &str) -> Result<Session, CallError> {
        let name = spawn::clean(name.trim());
        if name.trim().is_empty() {
            return Err(CallError::new(ErrorCode::Malformed, "a name has at least one character that can be seen"));
        }
        let (dir, is_guest) = {
            let entries = self.shared.entries();
            let entry = entries.get(&id).filter(|entry| entry.is_settled()).ok_or(ControlError::NoSession)?;
            (entry.dir.clone(), entry.guest.is_some())
        };
        if is_guest {
            return Err(ControlError::OfTmux("renamed").into());
        }
        let written = tokio::task::spawn_blocking({
            let name = name.clone();
            move || dir.write_description(&Description { name, ..dir.description()? })
        });
        let failed = |error: io::Error| {
            let what =
                format!("the name cannot be written: {}; see that the disk has room", crate::trouble::reason(&error));
            CallError::new(ErrorCode::Failed, what)
        };
        written.await.map_err(|_| CallError::new(ErrorCode::Busy, "this machine is ending"))?.map_err(failed)?;
        let mut entries = self.shared.entries();
        let entry = entries.get_mut(&id).ok_or(ControlError::NoSession)?;
        entry.session.name = name;
        let _ = self.shared.events.send(Event::SessionChanged(entry.session.clone()));
        Ok(entry.session.clone())
    }

    /// The environment of programs whose creator sent none.
    pub async fn environment(&self) -> BTreeMap<String, String> {
        self.shared.config.environment().await
    }

    /// The session whose program this process is, or descends from, as far as the system tells ([`inside`]).
    pub fn around(&self, pid: i32) -> Option<Uuid> {
        let programs: Vec<_> = {
            let entries = self.shared.entries();
            let own = entries.iter().filter(|(_, entry)| entry.guest.is_none());
            own.filter_map(|(id, entry)| Some((*id, i32::try_from(entry.session.pid?).ok()?))).collect()
        };
        inside::session_around(pid, &programs, &self.shared.config.home)
    }

    /// Ends the program: a hang-up for its process group, SIGKILL after [`KILL_GRACE`]. A session that has already ended is
    /// forgotten. One of tmux is ended there, with all its windows.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn kill(&self, id: Uuid) -> Result<(), ControlError> {
        let session = self.session(id).ok_or(ControlError::NoSession)?;
        let guest = self.shared.entries().get(&id).and_then(|entry| entry.guest.clone());
        if let Some(guest) = guest {
            return tmux::kill(&self.shared, &guest.origin).await;
        }
        if session.state != SessionState::Running {
            return self.forget(id).await;
        }
        // Before the signal, so that no end goes before it. Without the file another daemon takes it for one that ended badly.
        let told = self.shared.entries().get_mut(&id).map(|entry| {
            entry.session.told_to_end = true;
            entry.dir.path().join(TOLD)
        });
        if let Some(told) = told {
            let _ = tokio::fs::write(told, "").await;
        }
        match self.signal(id, Signal::HUP, KILL_GRACE).await {
            // It has ended and we had not heard of it yet.
            Err(ControlError::Refused(refused)) if refused.code == refusal::CONFLICT => self.forget(id).await,
            other => other,
        }
    }

    /// Sends a signal to the program's process group; SIGKILL follows after `grace`, or never when that is zero.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn signal(&self, id: Uuid, signal: Signal, grace: Duration) -> Result<(), ControlError> {
        let request = Request::Kill {
            signal: signal.as_raw().unsigned_abs(),
            then_kill_after_ms: u32::try_from(grace.as_millis()).unwrap_or(u32::MAX),
        };
        let holder = self.shared.holder(id)?;
        ask(&holder, request).await.map(drop)
    }

    /// Takes a session that has ended off the list, its last screen and its files with it.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Refused`] while the program runs.
    pub async fn forget(&self, id: Uuid) -> Result<(), ControlError> {
        match self.shared.holder(id) {
            Ok(holder) => match ask(&holder, Request::Forget).await {
                Ok(_) | Err(ControlError::HolderGone) => {}
                Err(error) => return Err(error),
            },
            Err(ControlError::HolderGone) => {}
            Err(error) => return Err(error),
        }
        self.shared.remove(id);
        Ok(())
    }
}

/// What happens to sessions.
pub struct Events {
    inner: broadcast::Receiver<Event>,
}

impl Events {
    /// The next event; `None` when the [`Sessions`] are gone. A subscriber that was too slow is told [`Event::ListAgain`] once.
    pub async fn next(&mut self) -> Option<Event> {
        match self.inner.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::ListAgain {}),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Descriptors that are free before another session is begun: whoever wants to see or end one must still be let in, and links go on.
const SPARE: usize = 32;

/// Whether so many could be had.
fn spare_descriptors() -> io::Result<()> {
    let first = std::fs::File::open("/dev/null")?;
    (1..SPARE).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Asks a holder and waits for its answer, for [`HOLDER_DEADLINE`] at most.
async fn ask(holder: &mpsc::Sender<Ask>, request: Request) -> Result<Status, ControlError> {
    let (answer, answered) = oneshot::channel();
    let asked = async {
        holder.send(Ask { request, answer }).await.map_err(|_| ControlError::HolderGone)?;
        answered.await.unwrap_or(Err(ControlError::HolderGone))
    };
    tokio::time::timeout(HOLDER_DEADLINE, asked).await.unwrap_or(Err(ControlError::Late))
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        // Nothing panics while it holds the lock; if something did, the list itself is still whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attachments(&self) -> MutexGuard<'_, HashMap<Uuid, Uuid>> {
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions that people are shown: one that is just being created is not among them.
    fn listed(&self) -> impl Iterator<Item = Session> + use<> {
        let sessions: Vec<_> =
            self.entries().values().filter(|entry| entry.is_settled()).map(|e| e.session.clone()).collect();
        sessions.into_iter()
    }

    /// Takes a place on the list, so that the limit holds while many sessions are created at once.
    fn reserve(&self) -> Result<(Uuid, SessionDir), CreateError> {
        let mut entries = self.entries();
        // One of tmux that nobody looks at costs nothing.
        let costs = |entry: &&Entry| !entry.has_ended() && (entry.guest.is_none() || entry.holder.is_some());
        if entries.values().filter(costs).count() >= MAX_SESSIONS {
            return Err(CreateError::TooMany);
        }
        let id = Uuid::new_v4();
        let dir = SessionDir::new(self.config.home.join("sessions").join(id.to_string()));
        entries.insert(id, Entry::reserved(id, dir.clone()));
        Ok((id, dir))
    }

    /// Fills or frees the place that [`Shared::reserve`] took.
    fn settle(
        self: &Arc<Self>,
        id: Uuid,
        dir: &SessionDir,
        started: Result<Reached, CreateError>,
    ) -> Result<Session, CreateError> {
        match started {
            Ok(Reached { entry, listening }) => {
                let (session, has_ended) = (entry.session.clone(), entry.has_ended());
                self.entries().insert(id, entry);
                let _ = self.events.send(Event::SessionChanged(session.clone()));
                listening.begin();
                // A short program may be over by now.
                if has_ended {
                    self.tidy();
                }
                Ok(session)
            }
            Err(error) => {
                self.entries().remove(&id);
                remove_files(dir, None);
                Err(error)
            }
        }
    }

    fn holder(&self, id: Uuid) -> Result<mpsc::Sender<Ask>, ControlError> {
        let entries = self.entries();
        let entry = entries.get(&id).ok_or(ControlError::NoSession)?;
        entry.holder.clone().ok_or(ControlError::HolderGone)
    }

    async fn ask_about(&self, attachment: Uuid, request: impl FnOnce(Uuid) -> Request) -> Result<Status, ControlError> {
        let session = self.attachments().get(&attachment).copied().ok_or(ControlError::NoAttachment)?;
        let holder = self.holder(session)?;
        ask(&holder, request(attachment)).await
    }

    /// Takes in what a holder says of itself.
    fn update(self: &Arc<Self>, id: Uuid, status: &Status) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&id) else { return };
        let before = entry.session.clone();
        apply(&mut entry.session, status);
        let told = prompts::take_in(entry, status);
        entry.build.clone_from(&status.build);
        entry.kept = status.output_offset.saturating_sub(status.kept_from);
        entry.bytes_in = status.bytes_in;
        let Session { output_offset, kept_from, .. } = before;
        let only_output = Session { output_offset, kept_from, ..entry.session.clone() } == before;
        if !only_output && entry.is_settled() {
            let _ = self.events.send(Event::SessionChanged(entry.session.clone()));
        }
        for event in told {
            let _ = self.events.send(event);
        }
        let left_alone = before.viewers > 0 && entry.session.viewers == 0;
        if entry.has_ended() && (before.state == SessionState::Running || left_alone) {
            drop(entries);
            self.tidy();
        }
    }

    /// Forgets ended sessions that are too many, too large or too old. One that somebody looks at stays while it is not too old: what it printed last
    /// may still be on its way.
    fn tidy(self: &Arc<Self>) {
        let mut entries = self.entries();
        let mut ended = Vec::new();
        for (id, entry) in entries.iter_mut().filter(|(_, entry)| entry.has_ended() && !entry.is_going) {
            let at = *entry.ended_at.get_or_insert_with(|| match entry.dir.exit() {
                Ok(Some(exit)) => exit.at,
                Ok(None) | Err(_) => unix_ms(),
            });
            let kept = if entry.holder.is_some() { entry.kept } else { 0 };
            ended.push((at, *id, kept, entry.session.viewers > 0));
        }
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let (now, mut bytes, most) = (unix_ms(), 0u64, self.config.ended);
        let mut going = Vec::new();
        for (index, (at, id, kept, is_watched)) in ended.into_iter().enumerate() {
            bytes += kept;
            let is_recent = Duration::from_millis(now.saturating_sub(at)) <= most.time;
            let fits = index < most.sessions && (index == 0 || bytes <= most.bytes);
            if !(is_recent && (fits || is_watched)) {
                going.push(id);
            }
        }
        for id in &going {
            if let Some(entry) = entries.get_mut(id) {
                entry.is_going = true;
            }
        }
        drop(entries);
        for id in going {
            let sessions = Sessions { shared: Arc::clone(self) };
            tokio::spawn(async move {
                tracing::info!("session {id} ended and is forgotten for others, or ended long ago");
                if let Err(error) = sessions.forget(id).await {
                    if let Some(entry) = sessions.shared.entries().get_mut(&id) {
                        entry.is_going = false;
                    }
                    tracing::warn!("session {id} has ended and cannot be forgotten: {error}");
                }
            });
        }
    }

    /// The connection to a holder has ended: it was told to, or it has died.
    fn holder_gone(self: &Arc<Self>, id: Uuid) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&id) else { return };
        if entry.guest.is_some() {
            drop(entries);
            return self.guest_gone(id);
        }
        entry.holder = None;
        let ended = entry.end_prompts();
        entry.session.viewers = 0;
        entry.session.controller = None;
        entry.session.pid = None;
        entry.session.kept_from = None;
        entry.session.paused = false;
        entry.session.progress = None;
        if let Some(recording) = entry.session.recording.as_mut().filter(|recording| recording.is_on()) {
            recording.ended = Some("the session's process has ended".into());
        }
        if entry.session.state == SessionState::Running {
            (entry.session.state, entry.session.output_offset) = match entry.dir.exit() {
                Ok(Some(exit)) => (exit.state, exit.offset),
                Ok(None) | Err(_) => (SessionState::Lost, entry.session.output_offset),
            };
        }
        let _ = self.events.send(Event::SessionChanged(entry.session.clone()));
        for ended in ended {
            let _ = self.events.send(ended);
        }
        drop(entries);
        // A holder ends by itself when its session ended long ago.
        self.tidy();
    }

    fn remove(&self, id: Uuid) {
        let Some(mut entry) = self.entries().remove(&id) else { return };
        for ended in entry.end_prompts() {
            let _ = self.events.send(ended);
        }
        self.glances.forget(id);
        remove_files(&entry.dir, Some(&entry.socket));
        let _ = self.events.send(Event::SessionRemoved { session: id });
    }
}

impl Entry {
    /// What a description alone says: no holder is known, and it has not ended.
    fn new(description: &Description, dir: SessionDir) -> Self {
        Self {
            session: describe(description),
            dir,
            socket: description.socket.clone(),
            build: Build::default(),
            holder: None,
            ended_at: None,
            is_going: false,
            kept: 0,
            bytes_in: 0,
            guest: None,
            prompt: None,
            prompt_ended: None,
            hooks: Vec::new(),
            held: None,
        }
    }

    fn reserved(id: Uuid, dir: SessionDir) -> Self {
        let description = Description {
            id,
            name: String::new(),
            command: Vec::new(),
            cwd: PathBuf::new(),
            created_at: 0,
            socket: PathBuf::new(),
            tmux: None,
        };
        Self::new(&description, dir)
    }

    /// Its program has ended, or nobody knows what became of it.
    fn has_ended(&self) -> bool {
        self.is_settled() && self.session.state != SessionState::Running
    }

    fn is_settled(&self) -> bool {
        self.session.created_at != 0
    }

    /// A session whose holder has gone.
    fn ended(description: &Description, dir: SessionDir, exit: Option<ExitRecord>) -> Self {
        let mut entry = Self::new(description, dir);
        if let Some(exit) = exit {
            entry.session.state = exit.state;
            entry.session.output_offset = exit.offset;
            entry.bytes_in = exit.bytes_in;
            entry.ended_at = Some(exit.at);
        }
        entry
    }
}

/// Looks for sessions that ended long ago while this daemon ran.
async fn tidy_now_and_then(shared: Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        shared.tidy();
        let pause = shared.config.ended.time.min(TIDY);
        drop(shared);
        tokio::time::sleep(pause).await;
    }
}

/// The most bytes of a command and of a folder as lists show them, as JSON: a list of many sessions must fit into answers.
const MAX_COMMAND: usize = 1024;
const MAX_CWD: usize = 4 * 1024;

/// What fits of a command; the last word that is shown may be the beginning of one.
fn shown_command(command: &[String]) -> Vec<String> {
    let mut left = MAX_COMMAND;
    let mut shown = Vec::new();
    for word in command {
        if left == 0 {
            shown.push("…".into());
            break;
        }
        let fits = shown_text(word, left);
        // Quotes and a comma.
        left = left.saturating_sub(json_length(&fits) + 3);
        let is_cut = fits.len() < word.len();
        shown.push(if is_cut { fits + "…" } else { fits });
        if is_cut {
            break;
        }
    }
    shown
}

/// The beginning of a text that takes at most so many bytes as JSON.
fn shown_text(text: &str, most: usize) -> String {
    let mut end = text.floor_char_boundary(most);
    while json_length(&text[..end]) > most {
        end = text.floor_char_boundary(end.saturating_sub(1 + (json_length(&text[..end]) - most) / 6));
    }
    text[..end].to_owned()
}

fn json_length(text: &str) -> usize {
    text.chars()
        .map(|c| {
            if c < ' ' {
                6
            } else if matches!(c, '"' | '\\') {
                2
            } else {
                c.len_utf8()
            }
        })
        .sum()
}

/// What is known without a holder.
fn describe(description: &Description) -> Session {
    Session {
        id: description.id,
        kind: tmux::kind(description),
        name: description.name.clone(),
        title: String::new(),
        command: shown_command(&description.command),
        cwd: match description.cwd.to_str().filter(|cwd| json_length(cwd) > MAX_CWD) {
            Some(long) => PathBuf::from(shown_text(long, MAX_CWD)),
            None => description.cwd.clone(),
        },
        state: SessionState::Lost,
        pid: None,
        cols: 0,
        rows: 0,
        output_offset: 0,
        viewers: 0,
        controller: None,
        created_at: description.created_at,
        kept_from: None,
        recording: None,
        paused: false,
        told_to_end: false,
        prompt: None,
        progress: None,
    }
}

fn apply(session: &mut Session, status: &Status) {
    session.title.clone_from(&status.title);
    session.state = status.state;
    session.pid = status.pid;
    (session.cols, session.rows) = (status.cols, status.rows);
    session.output_offset = status.output_offset;
    session.viewers = status.viewers;
    session.controller.clone_from(&status.controller);
    session.kept_from = Some(status.kept_from);
    session.recording.clone_from(&status.recording);
    session.paused = status.paused;
    session.progress = status.progress;
}

/// Best effort: what cannot be removed is tried again when the next daemon starts.
fn remove_files(dir: &SessionDir, socket: Option<&PathBuf>) {
    if let Some(socket) = socket {
        let _ = std::fs::remove_file(socket);
    }
    if let Err(error) = std::fs::remove_dir_all(dir.path())
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("the files of a session cannot be removed from {}: {error}", dir.path().display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_manager_told_the_daemon_is_not_for_its_sessions() {
        let names = ["PATH", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "INVOCATION_ID", "HOME"];
        let env = env_of_sessions(names.iter().map(|name| (name.into(), "x".into())));
        assert_eq!(env.into_keys().collect::<Vec<_>>(), ["HOME", "PATH"]);
    }
}
