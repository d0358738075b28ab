//! The sessions of the user's tmux on the same list as ours: found, followed, made and ended in control mode ([`crate::tmux`]).
//!
//! One client in control mode per server says when sessions come, go or are renamed; nothing is asked again and again. A server that starts
//! later is seen by its socket, where the system tells of new files, and otherwise when somebody asks for the list. A session gets a holder when
//! somebody attaches to it, and loses it when nobody has looked for a while.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use happy_rpc::{Event, Session, SessionCreate, SessionKind, SessionState};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use super::{AttachError, Config, ControlError, CreateError, Entry, MAX_SESSIONS, Shared, client, remove_files, spawn};
use crate::holder::spec::{Description, SessionDir, unix_ms};
use crate::tmux::client::Env;
use crate::tmux::control::Event as Said;
use crate::tmux::server::{Listed, MAX_LISTED, New, Server};
use crate::tmux::{Origin, TmuxError, sockets};

/// Between two lists of a server, at least: a script may make and end hundreds of sessions a second.
const PAUSE: Duration = Duration::from_millis(100);

/// How long whoever asks for the list waits for servers that were not known yet.
const FIRST_LIST: Duration = Duration::from_millis(500);

/// A server whose client has ended may be there all the same: a new one lets clients go while it has no session. So many times it is tried again.
const TRIES: u32 = 5;

/// A server that does not answer is tried again after so long.
const HUNG: Duration = Duration::from_secs(10);

/// How long a holder that is about to go is waited for.
const GOING: Duration = Duration::from_secs(3);

/// What the daemon knows of tmux.
#[derive(Default)]
pub(super) struct Tmux {
    followed: Mutex<HashMap<PathBuf, Arc<Followed>>>,
    watched: Mutex<BTreeSet<PathBuf>>,
    /// Why nothing is looked for, said once.
    trouble: Mutex<Option<String>>,
}

/// A server that is followed.
struct Followed {
    /// List again.
    again: Notify,
    /// Counts the lists that were taken in.
    lists: watch::Sender<u64>,
}

/// The session of tmux that an entry is.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) origin: Origin,
    /// Held while a holder is started for it.
    starting: Arc<tokio::sync::Mutex<()>>,
    /// Its server lists it.
    is_listed: bool,
}

impl Guest {
    /// Its server lists it, or it was found with its holder.
    pub(super) fn listed(origin: Origin) -> Self {
        Self { origin, starting: Arc::default(), is_listed: true }
    }
}

impl From<TmuxError> for CreateError {
    fn from(error: TmuxError) -> Self {
        CreateError::Tmux(error)
    }
}

/// Begins to look for servers.
pub(super) async fn begin(shared: &Arc<Shared>) {
    look(shared).await;
}

/// Sees which servers there are, and waits a moment for the lists of all.
pub(super) async fn look(shared: &Arc<Shared>) {
    let sockets: Vec<PathBuf> = shared.config.tmux.iter().flat_map(|folder| sockets::list(folder)).collect();
    watch_folders(shared);
    let mut lists = Vec::new();
    for socket in sockets {
        let is_known = shared.tmux.followed.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&socket);
        if !is_known && sockets::check(&socket).await.is_err() {
            continue;
        }
        let mut followed = shared.tmux.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let server = followed.entry(socket.clone()).or_insert_with(|| {
            let followed = Arc::new(Followed { again: Notify::new(), lists: watch::Sender::new(0) });
            tokio::spawn(follow(Arc::downgrade(shared), Arc::clone(&followed), socket));
            followed
        });
        lists.push((server.lists.subscribe(), *server.lists.borrow()));
        server.again.notify_one();
    }
    let all = async {
        for (mut list, before) in lists {
            // An error: the server has gone, and its sessions with it.
            let _ = list.wait_for(|now| *now > before).await;
        }
    };
    let _ = tokio::time::timeout(FIRST_LIST, all).await;
}

/// Follows one server until it has gone.
async fn follow(shared: Weak<Shared>, followed: Arc<Followed>, socket: PathBuf) {
    let mut tries = 0;
    while tries < TRIES {
        let Some(env) = shared.upgrade().map(|shared| shared.config.env.clone()) else { return };
        let begun = tokio::time::Instant::now();
        let ended = follow_once(&shared, &followed, &socket, env).await;
        let hangs = matches!(ended, Err(TmuxError::Late));
        match ended {
            Ok(()) | Err(TmuxError::NoServer(_)) => {}
            Err(error) => {
                let Some(shared) = shared.upgrade() else { return };
                shared.tmux.complain(&format!("{}: {error}", socket.display()));
            }
        }
        match sockets::check(&socket).await {
            Ok(()) if !hangs => {}
            // It is there and does not answer; so are its sessions.
            Ok(()) | Err(TmuxError::Late) => {
                tries = 0;
                tokio::time::sleep(HUNG).await;
                continue;
            }
            Err(_) => break,
        }
        tries = if begun.elapsed() > PAUSE * 100 { 0 } else { tries + 1 };
        tokio::time::sleep(PAUSE * 2).await;
    }
    let Some(shared) = shared.upgrade() else { return };
    shared.tmux.followed.lock().unwrap_or_else(PoisonError::into_inner).remove(&socket);
    shared.on_listed(&socket, &[]);
}

async fn follow_once(
    shared: &Weak<Shared>,
    followed: &Followed,
    socket: &std::path::Path,
    env: Env,
) -> Result<(), TmuxError> {
    let server = Server::new(socket.to_owned(), env).await?;
    // Before the first list, so that no change is missed.
    let mut client = server.follow().await?;
    loop {
        let listed = server.list().await?;
        let Some(alive) = shared.upgrade() else { return Ok(()) };
        alive.on_listed(socket, &listed);
        drop(alive);
        followed.lists.send_modify(|lists| *lists += 1);
        // Whatever is said until then is one reason for one list: a burst leaves thousands of lines behind.
        let rest = tokio::time::Instant::now() + PAUSE;
        let mut news = false;
        while !news || tokio::time::Instant::now() < rest {
            tokio::select! {
                said = client.next() => match said? {
                    Some(Said::Sessions) => news = true,
                    Some(_) => {}
                    None => return Ok(()),
                },
                () = followed.again.notified(), if !news => news = true,
                () = tokio::time::sleep_until(rest), if news => {}
            }
        }
    }
}

/// Asks the system to tell of new sockets. A folder that is not there yet is looked at when somebody asks for the list.
fn watch_folders(shared: &Arc<Shared>) {
    let mut watched = shared.tmux.watched.lock().unwrap_or_else(PoisonError::into_inner);
    for folder in &shared.config.tmux {
        if folder.is_dir() && watched.insert(folder.clone()) {
            tokio::spawn(watch_folder(Arc::downgrade(shared), folder.clone()));
        }
    }
}

async fn watch_folder(shared: Weak<Shared>, folder: PathBuf) {
    if let Err(error) = notice(&shared, &folder).await {
        tracing::debug!("new tmux servers in {} are seen when the sessions are listed: {error}", folder.display());
        // Not tried again.
        return;
    }
    let Some(shared) = shared.upgrade() else { return };
    shared.tmux.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&folder);
}

/// Until the folder is gone.
#[cfg(target_os = "linux")]
async fn notice(shared: &Weak<Shared>, folder: &std::path::Path) -> std::io::Result<()> {
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, folder, flags)?;
    let inotify = crate::holder::pty::descriptor::watch(inotify)?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    loop {
        let mut ready = inotify.readable().await?;
        let mut events = inotify::Reader::new(inotify.get_ref(), &mut buffer);
        let is_gone = loop {
            match events.next() {
                Ok(event) if event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::IGNORED) => break true,
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        ready.clear_ready();
        drop(ready);
        let Some(shared) = shared.upgrade() else { return Ok(()) };
        if is_gone {
            return Ok(());
        }
        // It listens a moment after its socket is there.
        tokio::time::sleep(PAUSE).await;
        look(&shared).await;
    }
}

#[cfg(not(target_os = "linux"))]
async fn notice(_: &Weak<Shared>, _: &std::path::Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

impl Tmux {
    fn complain(&self, why: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref() != Some(why) {
            tracing::warn!("sessions of tmux are not listed: {why}");
            *trouble = Some(why.to_owned());
        }
    }
}

impl Shared {
    /// A server has these sessions and no others.
    fn on_listed(&self, socket: &std::path::Path, listed: &[Listed]) {
        let mut entries = self.entries();
        let mut news = Vec::new();
        let ids: HashMap<Uuid, &Listed> = listed.iter().map(|listed| (listed.origin.id(), listed)).collect();
        let is_here = |entry: &Entry| entry.guest.as_ref().is_some_and(|guest| guest.origin.socket == socket);
        let gone: Vec<Uuid> =
            entries.iter().filter(|(id, entry)| is_here(entry) && !ids.contains_key(id)).map(|(id, _)| *id).collect();
        for id in gone {
            let Some(entry) = entries.get_mut(&id) else { continue };
            if let Some(guest) = &mut entry.guest {
                guest.is_listed = false;
            }
            // Its holder will see it too, tell its viewers, and go.
            if entry.holder.is_none() {
                entries.remove(&id);
                news.push(Event::SessionRemoved { session: id });
            }
        }
        let mut guests = entries.values().filter(|entry| entry.guest.is_some()).count();
        for (id, listed) in ids {
            let is_new = !entries.contains_key(&id);
            if is_new && guests >= MAX_SESSIONS {
                self.tmux.complain("there are too many sessions");
                continue;
            }
            guests += usize::from(is_new);
            let entry = entries.entry(id).or_insert_with(|| Entry::of_tmux(&self.config, id, listed));
            if let Some(guest) = &mut entry.guest {
                guest.is_listed = true;
            }
            let before = entry.session.clone();
            entry.session.name = spawn::clean(&listed.name);
            if entry.holder.is_none() {
                (entry.session.cols, entry.session.rows) = listed.size;
                entry.session.controller = (listed.attached > 0).then(|| crate::tmux::companion::DESK.to_owned());
            }
            if is_new || entry.session != before {
                news.push(Event::SessionChanged(entry.session.clone()));
            }
        }
        drop(entries);
        for event in news {
            let _ = self.events.send(event);
        }
    }

    /// Whether a session is one of tmux.
    pub(super) fn is_guest(&self, id: Uuid) -> bool {
        self.entries().get(&id).is_some_and(|entry| entry.guest.is_some())
    }

    /// The holder of a session of tmux has gone. The session is still there unless its server has said otherwise.
    pub(super) fn guest_gone(&self, id: Uuid) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&id) else { return };
        let Some(guest) = &entry.guest else { return };
        // Under the lock, so that no other holder has put its files there yet.
        remove_files(&entry.dir, Some(&entry.socket));
        let socket = guest.origin.socket.clone();
        let event = if guest.is_listed {
            entry.holder = None;
            entry.bytes_in = 0;
            entry.session = Session {
                state: SessionState::Running,
                viewers: 0,
                controller: None,
                pid: None,
                title: String::new(),
                output_offset: 0,
                kept_from: None,
                progress: None,
                recording: entry.session.recording.clone().map(|mut recording| {
                    recording.ended.get_or_insert_with(|| "the client of tmux has gone".into());
                    recording
                }),
                ..entry.session.clone()
            };
            Event::SessionChanged(entry.session.clone())
        } else {
            entries.remove(&id);
            Event::SessionRemoved { session: id }
        };
        drop(entries);
        let _ = self.events.send(event);
        // Whether it is still there.
        let followed = self.tmux.followed.lock().unwrap_or_else(PoisonError::into_inner);
        match followed.get(&socket) {
            Some(followed) => followed.again.notify_one(),
            None => {
                drop(followed);
                self.on_listed(&socket, &[]);
            }
        }
    }
}

impl Entry {
    fn of_tmux(config: &Config, id: Uuid, listed: &Listed) -> Self {
        let dir = SessionDir::new(config.home.join("sessions").join(id.to_string()));
        let description = specify(config, id, listed.origin.clone(), listed.created.saturating_mul(1_000));
        let mut entry = Self::new(&description, dir);
        entry.session.state = SessionState::Running;
        entry.guest = Some(Guest::listed(listed.origin.clone()));
        entry
    }
}

fn specify(config: &Config, id: Uuid, origin: Origin, created_at: u64) -> Description {
    let home = config.env.get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    Description {
        id,
        name: origin.session.to_string(),
        command: Vec::new(),
        cwd: home,
        created_at: created_at.clamp(1, unix_ms()),
        socket: PathBuf::new(),
        tmux: Some(origin),
    }
}

/// Sees to it that a session of tmux has a holder. One of ours has one or has ended.
pub(super) async fn host(shared: &Arc<Shared>, id: Uuid) -> Result<(), AttachError> {
    let guest = |shared: &Shared| shared.entries().get(&id).and_then(|entry| entry.guest.clone());
    let Some(Guest { origin, starting, .. }) = guest(shared) else { return Ok(()) };
    let _starting = starting.lock().await;
    let (dir, name, created_at) = {
        let entries = shared.entries();
        let entry = entries.get(&id).ok_or(AttachError::NoSession)?;
        if entry.holder.is_some() {
            return Ok(());
        }
        (entry.dir.clone(), entry.session.name.clone(), entry.session.created_at)
    };
    // Of a holder that was killed.
    remove_files(&dir, dir.socket(id).ok().as_ref());
    let description = Description { name, ..specify(&shared.config, id, origin.clone(), created_at) };
    let started = match spawn::start_guest(&shared.config, &dir, description).await {
        Ok(description) => client::steer(shared, &description, &dir).await.map_err(CreateError::Unreachable),
        Err(error) => Err(error),
    };
    match started {
        Ok(client::Reached { entry, listening }) => {
            let mut entries = shared.entries();
            let Some(known) = entries.get_mut(&id) else { return Err(AttachError::NoSession) };
            let session = Session { name: known.session.name.clone(), ..entry.session.clone() };
            *known = Entry { session, guest: known.guest.clone(), ..entry };
            drop(entries);
            listening.begin();
            Ok(())
        }
        Err(error) => {
            remove_files(&dir, dir.socket(id).ok().as_ref());
            Err(AttachError::Guest(error.to_string()))
        }
    }
}

/// Waits until a holder that does not answer any more is off the list.
pub(super) async fn until_gone(shared: &Arc<Shared>, id: Uuid) {
    let mut events = shared.events.subscribe();
    let gone = async {
        while shared.entries().get(&id).is_some_and(|entry| entry.holder.is_some()) {
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = events.recv().await {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(GOING, gone).await;
}

/// Makes a session of tmux, on the server that `tmux` without more would use.
pub(super) async fn create(shared: &Arc<Shared>, params: SessionCreate) -> Result<Session, CreateError> {
    if params.record.is_some() {
        return Err(CreateError::Request("a session of tmux is recorded once it is there, with `happy record`"));
    }
    if params.keep.is_some() {
        return Err(CreateError::Request(
            "tmux keeps the history of its sessions itself; see its option history-limit",
        ));
    }
    let texts = params.command.iter().chain(&params.name).chain(params.env.iter().flat_map(|env| env.values()));
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err(CreateError::Request("a command, a name or an environment must not contain a zero byte"));
    }
    if params.command.first().is_some_and(String::is_empty) {
        return Err(CreateError::Request("the command is empty"));
    }
    let folder = shared.config.tmux.first().ok_or(CreateError::Request(OFF))?;
    let socket = folder.join("default");
    let env = params.env.clone().unwrap_or_else(|| shared.config.env.clone());
    let user_home = env.get("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let cwd = spawn::resolve(&user_home, params.cwd);
    if !cwd.is_dir() {
        return Err(CreateError::Start(crate::holder::spec::StartError::CwdMissing(cwd)));
    }
    let cwd = cwd.to_str().ok_or(CreateError::Request("tmux takes only folders whose names are text"))?;
    let server = Server::new(socket.clone(), shared.config.env.clone()).await?;
    sockets::prepare(folder).map_err(|error| CreateError::Files { path: folder.clone(), source: error })?;
    let name = params.name.as_deref().map(str::trim).filter(|name| !name.is_empty()).map(spawn::clean);
    let size = (if params.cols == 0 { 80 } else { params.cols }, if params.rows == 0 { 24 } else { params.rows });
    let new = New { name: name.as_deref(), command: &params.command, cwd, env: &env, size };
    let guests = shared.entries().values().filter(|entry| entry.guest.is_some()).count();
    let is_full = matches!(server.list().await, Ok(listed) if listed.len() >= MAX_LISTED);
    if guests >= MAX_SESSIONS || is_full {
        return Err(CreateError::TooMany);
    }
    let session = server.create(&new).await?;
    // The list knows it by then, unless it has ended again.
    let mut lists = 0;
    loop {
        look(shared).await;
        let found = shared
            .entries()
            .values()
            .find(|entry| {
                let guest = entry.guest.as_ref();
                guest.is_some_and(|guest| {
                    guest.origin.session == session && guest.origin.socket == socket && guest.is_listed
                })
            })
            .map(|entry| entry.session.clone());
        match found {
            Some(session) => return Ok(session),
            None if lists == 2 => return Err(CreateError::Tmux(TmuxError::NoSession)),
            None => lists += 1,
        }
    }
}

/// Ends a session of tmux.
pub(super) async fn kill(shared: &Arc<Shared>, origin: &Origin) -> Result<(), ControlError> {
    let server = Server::new(origin.socket.clone(), shared.config.env.clone()).await.map_err(ControlError::Tmux)?;
    let killed = server.kill(origin).await;
    look(shared).await;
    match killed {
        Ok(()) => Ok(()),
        Err(TmuxError::NoSession) => Err(ControlError::NoSession),
        Err(error) => Err(ControlError::Tmux(error)),
    }
}

/// Said where tmux is switched off.
const OFF: &str = "tmux is switched off on this machine: `\"tmux\": false` in settings.json";

/// Whose a session is, by its description.
pub(super) fn kind(description: &Description) -> SessionKind {
    if description.tmux.is_some() { SessionKind::Tmux } else { SessionKind::Own }
}
