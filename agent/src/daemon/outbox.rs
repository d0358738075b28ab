//! The commands of the person at this machine for other machines: kept when there is no link, sent when there is one (`docs/LOCAL.md`).
//!
//! There is one outbox for each machine, so that one that is away, or whose file is damaged, holds up no other. [`run`] is the one place
//! that sends; the calls of the command line only change the lists.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::Answer;
use happy_rpc::{
    Call, CallError, Entry, EntryState, ErrorCode, Event, MAX_AHEAD_MS, MAX_TEXT, MachineInfo, Outbox, Request,
    SessionList, SessionPages, Told,
};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use crate::daemon::network::LinkNews;
use crate::daemon::queue::{
    Queue, QueueCancel, QueueCleared, QueueEntry, QueueGive, QueueSessions, QueueState, QueueWait, QueueWaited,
    SeenSession,
};
use crate::daemon::{Daemon, server};
use crate::store::{Home, OutboxFile, Seen, outbox, unix_ms};
use crate::trouble::Trouble;

/// How long the link waits for the answer to a command before it is asked for again: the other machine remembers it.
const ASK_AGAIN: Duration = Duration::from_secs(120);
/// How long a machine may take to say what time it is there.
const CLOCK_TIME: Duration = Duration::from_secs(30);
/// How often it is looked whether something has expired, or a machine that was busy can be asked again.
const TICK: Duration = Duration::from_secs(1);
/// How long the command line is held that waits for an outcome; then it asks again.
const WAIT: Duration = Duration::from_secs(30);
/// Answers that are kept in memory for whoever waits for them, and how long each may be: 1 MiB in all.
const MAX_ANSWERS: usize = 64;
const MAX_ANSWER: usize = 16 * 1024;
/// The longest request: what a message between two machines holds, less the name of the command.
const MAX_REQUEST: usize = 240 * 1024;

/// The outboxes of this machine.
pub struct Outboxes {
    folder: PathBuf,
    /// Held while a list is written, so never taken on a thread that others wait for.
    state: Mutex<State>,
    /// Where the sessions of other machines are kept, and what was seen of them; only of machines.
    seen_folder: PathBuf,
    seen: Mutex<HashMap<DeviceId, Noted>>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

/// What was seen of a machine. What is news is written within a [`TICK`], so that a session which prints a lot costs the disk little; a
/// crash in between loses that only.
#[derive(Default)]
struct Noted {
    seen: Seen,
    unsaved: bool,
}

#[derive(Default)]
struct State {
    /// With what is wrong with those that cannot be used.
    files: BTreeMap<DeviceId, Result<OutboxFile, Trouble>>,
    answers: VecDeque<(u64, Vec<u8>)>,
}

impl Outboxes {
    /// Reads the lists, and deletes those of devices that are no members any more, for which a crash left no time.
    ///
    /// # Errors
    /// When the folder cannot be read. A list that cannot be is told to whoever wants to use it.
    pub fn open(home: &Home, is_member: impl Fn(&DeviceId) -> bool) -> Result<Outboxes, Trouble> {
        let (folder, seen_folder) = (home.outbox(), home.seen());
        outbox::sweep(&folder)?;
        outbox::sweep(&seen_folder)?;
        let mut files = BTreeMap::new();
        for device in outbox::machines(&folder)? {
            if is_member(&device) {
                let file = OutboxFile::open(&folder, device);
                if let Err(trouble) = &file {
                    tracing::error!(machine = %device.short(), %trouble, "commands for a machine cannot be read");
                }
                files.insert(device, file);
            } else {
                outbox::delete(&folder, &device)?;
            }
        }
        let mut seen = HashMap::new();
        for device in outbox::machines(&seen_folder)? {
            if is_member(&device) {
                seen.insert(device, Noted { seen: Seen::read(&seen_folder, &device), unsaved: false });
            } else {
                outbox::delete(&seen_folder, &device)?;
            }
        }
        let state = Mutex::new(State { files, ..State::default() });
        Ok(Outboxes { folder, state, seen_folder, seen: Mutex::new(seen), changes: watch::Sender::new(0) })
    }

    /// Nothing for this device is kept any more.
    ///
    /// # Errors
    /// When its list cannot be deleted.
    pub fn forget(&self, device: &DeviceId) -> Result<(), Trouble> {
        let mut state = self.state();
        state.files.remove(device);
        let mut seen = self.seen();
        seen.remove(device);
        let names = outbox::delete(&self.seen_folder, device);
        drop(seen);
        let deleted = outbox::delete(&self.folder, device);
        drop(state);
        self.changed();
        deleted.and(names)
    }

    /// This machine has removed us: what waits for it will never be done.
    pub fn removed_by(&self, device: &DeviceId) {
        let error = CallError::new(ErrorCode::NotPermitted, "the machine has removed this one");
        self.note(device, |outbox| outbox.give_up(&error, unix_ms()));
    }

    fn give(&self, device: DeviceId, request: Request, given_at: u64, within: u64) -> Result<Entry, CallError> {
        let mut state = self.state();
        let next = state.readable().map(|file| file.outbox().next_number()).max().unwrap_or(1);
        let file = state.files.entry(device).or_insert_with(|| OutboxFile::open(&self.folder, device));
        let file = file.as_mut().map_err(|trouble| failed(trouble))?;
        let session = session_of(&request);
        let added = file.change(|outbox| {
            outbox.count_from(next);
            outbox.add(given_at, &device.to_string(), session, request, within)
        });
        let number = added
            .map_err(|trouble| failed(&trouble))?
            .map_err(|full| CallError::new(ErrorCode::TooMany, full.to_string()))?;
        let entry = entry(file.outbox(), number).cloned();
        drop(state);
        self.changed();
        entry.ok_or_else(none)
    }

    fn list(&self) -> (Vec<Entry>, Vec<String>) {
        let state = self.state();
        let mut entries: Vec<Entry> = state.readable().flat_map(|file| file.outbox().entries()).cloned().collect();
        entries.sort_by_key(|entry| entry.number);
        let troubles = state.files.values().filter_map(|file| file.as_ref().err().map(ToString::to_string));
        (entries, troubles.collect())
    }

    fn find(&self, number: u64) -> Result<(Entry, Option<Vec<u8>>), CallError> {
        let state = self.state();
        let entry = state.readable().find_map(|file| entry(file.outbox(), number)).cloned().ok_or_else(none)?;
        let answer = state.answers.iter().find(|(of, _)| *of == number).map(|(_, body)| body.clone());
        Ok((entry, answer))
    }

    fn cancel(&self, number: u64) -> Result<Entry, CallError> {
        let mut state = self.state();
        let file = state.files.values_mut().flatten().find(|file| entry(file.outbox(), number).is_some());
        let file = file.ok_or_else(none)?;
        let now = unix_ms();
        if !file.outbox().clone().cancel(number, now) {
            let is_over = entry(file.outbox(), number).is_some_and(|entry| entry.state.is_final());
            let why = match is_over {
                true => format!("it is too late: command {number} is over"),
                false => format!("it is too late: command {number} was sent, and may be done already"),
            };
            return Err(CallError::new(ErrorCode::Conflict, why));
        }
        file.change(|outbox| outbox.cancel(number, now)).map_err(|trouble| failed(&trouble))?;
        let entry = entry(file.outbox(), number).cloned();
        drop(state);
        self.changed();
        entry.ok_or_else(none)
    }

    fn clear(&self) -> Result<QueueCleared, CallError> {
        let mut dropped = 0;
        for file in self.state().files.values_mut().flatten() {
            let over = |entry: &&Entry| entry.state.is_final();
            let numbers: Vec<u64> = file.outbox().entries().iter().filter(over).map(|entry| entry.number).collect();
            if !numbers.is_empty() {
                let dismissed = |outbox: &mut Outbox| numbers.iter().all(|number| outbox.dismiss(*number));
                file.change(dismissed).map_err(|trouble| failed(&trouble))?;
                dropped += numbers.len();
            }
        }
        self.changed();
        Ok(QueueCleared { dropped })
    }

    fn seen_at(&self, device: &DeviceId) -> Vec<SeenSession> {
        let seen = self.seen();
        let sessions = seen.get(device).into_iter().flat_map(|noted| noted.seen.iter());
        sessions.map(|(id, name)| SeenSession { id: *id, name: name.clone() }).collect()
    }

    fn see(&self, device: DeviceId, event: Event) {
        let mut seen = self.seen();
        let noted = seen.entry(device).or_default();
        noted.unsaved |= match event {
            Event::SessionChanged(session) => noted.seen.see(session.id, session.name),
            Event::SessionRemoved { session } => noted.seen.miss(&session),
            _ => false,
        };
    }

    fn see_all(&self, device: DeviceId, sessions: Vec<happy_rpc::Session>) {
        let sessions = Seen::all(sessions.into_iter().map(|session| (session.id, session.name)));
        let mut seen = self.seen();
        let noted = seen.entry(device).or_default();
        noted.unsaved |= noted.seen != sessions;
        noted.seen = sessions;
    }

    /// Writes down what is news of the sessions elsewhere.
    fn save_seen(&self) {
        // Under the lock, so that no list is written of a machine that is just forgotten.
        for (device, noted) in self.seen().iter_mut().filter(|(_, noted)| noted.unsaved) {
            match noted.seen.write(&self.seen_folder, device) {
                Ok(()) => noted.unsaved = false,
                // It is tried again with the next tick.
                Err(trouble) => {
                    tracing::warn!(machine = %device.short(), %trouble, "the sessions that were seen are not stored");
                }
            }
        }
    }

    /// The next command to send to a machine with a link. That it is sent is on the disk before.
    fn next(&self, device: DeviceId, ahead: i64) -> Option<(u64, Vec<u8>)> {
        let mut state = self.state();
        let Some(Ok(file)) = state.files.get_mut(&device) else { return None };
        if file.outbox().entries().iter().all(|entry| entry.state.is_final()) {
            return None;
        }
        let machine = device.to_string();
        if file.outbox().clone().claim(&machine)
            && let Err(trouble) = file.change(|outbox| outbox.claim(&machine))
        {
            tracing::error!(machine = %device.short(), %trouble, "a command is not sent, for that cannot be noted");
        }
        let next = file.steer(|outbox| outbox.next(&machine, unix_ms(), ahead));
        drop(state);
        if next.is_some() {
            self.changed();
        }
        next
    }

    /// The machine has it. Not written down: after a restart it is asked for again, and counts as sent until then.
    fn delivered(&self, device: DeviceId, number: u64) {
        if let Some(Ok(file)) = self.state().files.get_mut(&device) {
            file.steer(|outbox| outbox.delivered(number));
        }
        self.changed();
    }

    fn answered(&self, device: DeviceId, number: u64, answer: &Answer) {
        match answer {
            Answer::Body(body) => {
                if body.len() <= MAX_ANSWER {
                    let mut state = self.state();
                    state.answers.truncate(MAX_ANSWERS - 1);
                    state.answers.push_front((number, body.clone()));
                }
                self.note(&device, |outbox| {
                    outbox.answered(number, unix_ms(), body);
                });
            }
            Answer::Indeterminate | Answer::DeadlinePassed | Answer::LinkGone => {
                if let Some(Ok(file)) = self.state().files.get_mut(&device) {
                    file.steer(|outbox| outbox.unanswered(number));
                }
                self.changed();
            }
        }
    }

    /// Time has passed.
    fn tick(&self) {
        let now = unix_ms();
        let mut changed = false;
        for file in self.state().files.values_mut().flatten() {
            if file.is_unsaved() || !file.outbox().entries().is_empty() && file.outbox().clone().expire(now) {
                file.note(|outbox| {
                    outbox.expire(now);
                });
                changed = true;
            }
        }
        if changed {
            self.changed();
        }
    }

    fn note(&self, device: &DeviceId, change: impl Fn(&mut Outbox)) {
        if let Some(Ok(file)) = self.state().files.get_mut(device) {
            file.note(change);
        }
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<DeviceId, Noted>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of a list is made as a whole, on the disk first.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn readable(&self) -> impl Iterator<Item = &OutboxFile> {
        self.files.values().flatten()
    }
}

fn entry(outbox: &Outbox, number: u64) -> Option<&Entry> {
    outbox.entries().iter().find(|entry| entry.number == number)
}

fn none() -> CallError {
    CallError::new(ErrorCode::NotFound, "there is no command of this number")
}

fn failed(trouble: &Trouble) -> CallError {
    CallError::new(ErrorCode::Failed, format!("the command was not taken: {trouble}"))
}

/// What a command is about: those about the same go one after the other.
fn session_of(request: &Request) -> Option<Uuid> {
    match request {
        Request::SessionType(params) => Some(params.session),
        Request::SessionKill(params) => Some(params.session),
        _ => None,
    }
}

/// Whether a call can wait; the rest belongs to a connection, changes nothing, or is wanted now or never.
fn check(request: &Request, within: u64) -> Result<(), CallError> {
    match request {
        Request::SessionType(params) if params.text.len() > MAX_TEXT => {
            let message = format!("the text is longer than {MAX_TEXT} bytes");
            return Err(CallError::new(ErrorCode::TooMany, message));
        }
        Request::SessionType(_) | Request::SessionKill(_) | Request::SessionCreate(_) => {}
        other => {
            let message = format!("{} is no call that can wait", other.method());
            return Err(CallError::new(ErrorCode::Malformed, message));
        }
    }
    if within == 0 || within > MAX_AHEAD_MS {
        return Err(CallError::new(ErrorCode::Malformed, "a command can wait for seven days at most"));
    }
    if serde_json::to_vec(request).map_or(0, |json| json.len()) > MAX_REQUEST {
        return Err(CallError::new(ErrorCode::TooMany, "the command is larger than a message may be"));
    }
    Ok(())
}

impl Daemon {
    /// Whether it is one whose sessions this machine may steer; a phone has none.
    fn is_machine(&self, device: &DeviceId) -> bool {
        self.roster().machines().iter().any(|peer| peer.device == *device)
    }

    async fn with_outboxes<T: Send + 'static>(
        self: &Arc<Self>,
        task: impl FnOnce(&Outboxes) -> T + Send + 'static,
    ) -> Option<T> {
        self.run_blocking(move |daemon| task(daemon.outboxes())).await
    }

    /// See [`QueueGive`].
    ///
    /// # Errors
    /// What the person is told; the command is not kept then.
    pub async fn queue_give(self: &Arc<Self>, params: QueueGive) -> Result<QueueEntry, CallError> {
        check(&params.request, params.within)?;
        let device = server::find(self, &params.machine)?.device;
        let QueueGive { request, within, .. } = params;
        let now = unix_ms();
        let given_at = params.given_at.map_or(now, |at| at.min(now));
        let given = self.with_outboxes(move |outboxes| outboxes.give(device, request, given_at, within)).await;
        Ok(self.shown(given.ok_or_else(ending)??))
    }

    /// See [`QueueList`].
    ///
    /// # Errors
    /// When the daemon ends.
    pub async fn queue_list(self: &Arc<Self>) -> Result<Queue, CallError> {
        let listed = self.with_outboxes(|outboxes| {
            outboxes.tick();
            outboxes.list()
        });
        let (entries, troubles) = listed.await.ok_or_else(ending)?;
        Ok(Queue { entries: entries.into_iter().map(|entry| self.shown(entry)).collect(), troubles })
    }

    /// See [`QueueWait`].
    ///
    /// # Errors
    /// When there is no such command.
    pub async fn queue_wait(self: &Arc<Self>, QueueWait { number }: QueueWait) -> Result<QueueWaited, CallError> {
        let deadline = Instant::now() + WAIT;
        let mut changes = self.outboxes().changes.subscribe();
        loop {
            changes.mark_unchanged();
            let found = self.with_outboxes(move |outboxes| outboxes.find(number)).await;
            let (entry, answer) = found.ok_or_else(ending)??;
            if entry.state.is_final() || Instant::now() >= deadline {
                let answer = answer.and_then(|body| serde_json::from_slice(&body).ok());
                return Ok(QueueWaited { entry: self.shown(entry), answer });
            }
            // An error would mean that the daemon is gone; then the look after the deadline says how things stand.
            let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
        }
    }

    /// See [`QueueCancel`].
    ///
    /// # Errors
    /// When there is no such command, it is too late, or that it is taken back cannot be written.
    pub async fn queue_cancel(self: &Arc<Self>, QueueCancel { number }: QueueCancel) -> Result<QueueEntry, CallError> {
        let cancelled = self.with_outboxes(move |outboxes| outboxes.cancel(number)).await;
        Ok(self.shown(cancelled.ok_or_else(ending)??))
    }

    /// See [`QueueClear`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn queue_clear(self: &Arc<Self>) -> Result<QueueCleared, CallError> {
        self.with_outboxes(Outboxes::clear).await.ok_or_else(ending)?
    }

    /// See [`QueueSessions`].
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn queue_sessions(&self, params: QueueSessions) -> Result<Vec<SeenSession>, CallError> {
        let device = server::find(self, &params.machine)?.device;
        Ok(self.outboxes().seen_at(&device))
    }

    fn shown(&self, entry: Entry) -> QueueEntry {
        let device: Option<DeviceId> = entry.machine.parse().ok();
        let name = device.and_then(|device| self.roster().peer(&device).map(|peer| peer.name.clone()));
        let is_asked = entry.is_asked();
        let (state, error) = match entry.state {
            EntryState::Draft => (QueueState::Draft, None),
            // After a restart it waits for a link again; what counts for a person is that it may have been done.
            EntryState::Queued if is_asked => (QueueState::Sent, None),
            EntryState::Queued => (QueueState::Queued, None),
            EntryState::Sent => (QueueState::Sent, None),
            EntryState::Delivered => (QueueState::Delivered, None),
            EntryState::Done => (QueueState::Done, None),
            EntryState::Failed { error } => (QueueState::Failed, Some(error)),
            EntryState::Indeterminate { error } => (QueueState::Indeterminate, Some(error)),
            EntryState::Expired => (QueueState::Expired, None),
            EntryState::Cancelled => (QueueState::Cancelled, None),
        };
        QueueEntry {
            number: entry.number,
            state,
            error,
            machine_name: name.unwrap_or_else(|| entry.machine.clone()),
            link_up: device.is_some_and(|device| self.network().links_up().contains(&device)),
            machine: entry.machine,
            request: entry.request,
            given_at: entry.given_at,
            until: entry.until,
            ended_at: entry.ended_at,
        }
    }
}

fn ending() -> CallError {
    CallError::new(ErrorCode::Failed, "the daemon ends")
}

/// What comes of something that was asked at another machine.
enum Heard {
    /// By how many ms its clock is ahead.
    Clock(DeviceId, i64),
    /// The outcome of a command, if there is one.
    Answer(DeviceId, u64, Answer),
    /// Its sessions were noted, if it told them.
    Sessions(DeviceId),
}

/// Sends what waits, as long as the daemon runs.
pub async fn run(daemon: Arc<Daemon>) {
    let mut news = daemon.subscribe_links();
    let mut changes = daemon.outboxes().changes.subscribe();
    let mut sender = Sender::new(daemon.clone());
    daemon.network().links_up().into_iter().for_each(|device| sender.link_up(device));
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = news.recv() => match news {
                Ok((device, LinkNews::Up)) => sender.link_up(device),
                Ok((device, LinkNews::Down)) => drop(sender.linked.remove(&device)),
                Ok((device, LinkNews::Notice(body))) => sender.notice(device, &body),
                Err(broadcast::error::RecvError::Lagged(_)) => sender.catch_up(&daemon.network().links_up()),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Some(Ok(heard)) = sender.asked.join_next(), if !sender.asked.is_empty() => match heard {
                Heard::Clock(device, ahead) => {
                    sender.clock_asked.remove(&device);
                    sender.linked.insert(device, ahead);
                    sender.pump(device).await;
                }
                // The list says that it has changed, and the next of it is sent then.
                Heard::Answer(device, number, answer) => {
                    daemon.with_outboxes(move |outboxes| outboxes.answered(device, number, &answer)).await;
                }
                Heard::Sessions(device) => drop(sender.sessions_asked.remove(&device)),
            },
            // The sender of these lives as long as the daemon.
            Ok(()) = changes.changed() => sender.pump_all().await,
            _ = ticks.tick() => {
                let tick = |outboxes: &Outboxes| {
                    outboxes.tick();
                    outboxes.save_seen();
                };
                daemon.with_outboxes(tick).await;
                sender.ask_for_missed();
                sender.pump_all().await;
            }
        }
    }
}

struct Sender {
    daemon: Arc<Daemon>,
    /// Machines with a link, and by how many ms their clocks are ahead.
    linked: HashMap<DeviceId, i64>,
    /// Machines that are being asked what time it is there, and for their sessions.
    clock_asked: HashSet<DeviceId>,
    sessions_asked: HashSet<DeviceId>,
    /// Machines whose news of sessions may be among those that were lost.
    missed: HashSet<DeviceId>,
    /// Dropping it cancels the calls; commands are asked for again in the next life.
    asked: JoinSet<Heard>,
}

impl Sender {
    fn new(daemon: Arc<Daemon>) -> Sender {
        Sender {
            daemon,
            linked: HashMap::new(),
            clock_asked: HashSet::new(),
            sessions_asked: HashSet::new(),
            missed: HashSet::new(),
            asked: JoinSet::new(),
        }
    }

    /// News were lost: of links that came and went, or only of sessions. Many of these come at once, so a machine whose clock is known, or
    /// is being asked for, is not asked for it again, and for its sessions once a [`TICK`].
    fn catch_up(&mut self, up: &HashSet<DeviceId>) {
        self.linked.retain(|device, _| up.contains(device));
        for device in up.iter().filter(|device| self.daemon.is_machine(device)).copied().collect::<Vec<_>>() {
            match self.linked.contains_key(&device) || self.clock_asked.contains(&device) {
                true => drop(self.missed.insert(device)),
                false => self.link_up(device),
            }
        }
    }

    /// Asks for sessions that may have changed unheard, one question to each machine at a time.
    fn ask_for_missed(&mut self) {
        let missed: Vec<DeviceId> = self.missed.difference(&self.sessions_asked).copied().collect();
        for device in missed {
            self.missed.remove(&device);
            self.ask_sessions(device);
        }
    }

    /// What is wanted within minutes is wanted by the clock of the other machine, so that is asked for first.
    fn link_up(&mut self, device: DeviceId) {
        if !self.daemon.is_machine(&device) {
            return;
        }
        self.clock_asked.insert(device);
        let daemon = self.daemon.clone();
        self.asked.spawn(async move {
            let asked_at = unix_ms();
            let answer = daemon.network().call(&device, MachineInfo {}.to_body(), CLOCK_TIME).await;
            let now = unix_ms();
            let theirs = match answer {
                Answer::Body(body) => MachineInfo::read_answer(&body).map_or(now, |machine| machine.now),
                Answer::Indeterminate | Answer::DeadlinePassed | Answer::LinkGone => now,
            };
            let ahead = i64::try_from(theirs).unwrap_or(i64::MAX).saturating_sub_unsigned(asked_at.midpoint(now));
            Heard::Clock(device, ahead)
        });
        self.ask_sessions(device);
    }

    fn ask_sessions(&mut self, device: DeviceId) {
        self.sessions_asked.insert(device);
        let daemon = self.daemon.clone();
        self.asked.spawn(async move {
            let mut pages = SessionPages::default();
            let whole = loop {
                let Answer::Body(body) = daemon.network().call(&device, pages.next().to_body(), CLOCK_TIME).await
                else {
                    break false;
                };
                let Ok(page) = SessionList::read_answer(&body) else { break false };
                if !pages.take(page) {
                    break true;
                }
            };
            if whole && daemon.is_machine(&device) {
                daemon.outboxes().see_all(device, pages.into_sessions());
            }
            Heard::Sessions(device)
        });
    }

    fn notice(&self, device: DeviceId, body: &[u8]) {
        if let Ok(Told { event, .. }) = serde_json::from_slice::<Told>(body)
            && matches!(event, Event::SessionChanged(_) | Event::SessionRemoved { .. })
            && self.daemon.is_machine(&device)
        {
            self.daemon.outboxes().see(device, event);
        }
    }

    async fn pump_all(&mut self) {
        let linked: Vec<DeviceId> = self.linked.keys().copied().collect();
        for device in linked {
            self.pump(device).await;
        }
    }

    /// Sends what may be sent to a machine now.
    async fn pump(&mut self, device: DeviceId) {
        // The clock may have come when the link was gone again.
        if !self.daemon.network().links_up().contains(&device) {
            self.linked.remove(&device);
        }
        while let Some(ahead) = self.linked.get(&device).copied() {
            let next = self.daemon.with_outboxes(move |outboxes| outboxes.next(device, ahead)).await;
            let Some(Some((number, body))) = next else { return };
            let daemon = self.daemon.clone();
            self.asked.spawn(async move { Heard::Answer(device, number, ask(&daemon, device, number, body).await) });
        }
    }
}

/// Asks for a command, and notes on the way that the machine has it.
async fn ask(daemon: &Arc<Daemon>, device: DeviceId, number: u64, body: Vec<u8>) -> Answer {
    let (tell, delivered) = oneshot::channel();
    let mut answer = std::pin::pin!(daemon.network().command(&device, body, ASK_AGAIN, tell));
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // One that is dropped will not be told: the answer says why.
        Ok(()) = delivered => {}
    }
    // Before the answer is looked at, so that the two are noted in their order.
    daemon.with_outboxes(move |outboxes| outboxes.delivered(device, number)).await;
    answer.await
}

#[cfg(test)]
mod tests {
    use happy_rpc::{Done, SessionKill, SessionType};

    use super::*;

    fn kill(session: u128) -> Request {
        SessionKill { session: Uuid::from_u128(session) }.into()
    }

    #[test]
    fn what_may_have_been_sent_is_known_after_a_crash_and_numbers_count_over_all_machines() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let open = || Outboxes::open(&home, |_| true).unwrap();
        let [near, far] = [1, 2].map(|byte| DeviceId::from_bytes([byte; 32]));
        let outboxes = open();
        let give = |device, session| outboxes.give(device, kill(session), unix_ms(), 60_000).unwrap().number;
        assert_eq!([give(near, 1), give(far, 1), give(near, 1)], [1, 2, 3]);
        let (number, body) = outboxes.next(near, 0).unwrap();
        assert_eq!((number, outboxes.next(near, 0)), (1, None), "those about one session wait for each other");
        drop(outboxes);

        let outboxes = open();
        assert!(outboxes.cancel(1).unwrap_err().message.contains("was sent"));
        assert_eq!(outboxes.cancel(2).unwrap().state, EntryState::Cancelled);
        assert_eq!(outboxes.next(near, 0), Some((1, body)), "it is asked for again under its name");
        outboxes.delivered(near, 1);
        assert_eq!(outboxes.find(1).unwrap().0.state, EntryState::Delivered);
        outboxes.answered(near, 1, &Answer::DeadlinePassed);
        assert_eq!(outboxes.next(near, 0).unwrap().0, 1);
        outboxes.answered(near, 1, &Answer::Body(SessionKill::answer(&Ok(Done {}))));
        let (entry, answer) = outboxes.find(1).unwrap();
        assert_eq!((entry.state, answer.is_some()), (EntryState::Done, true));
        assert_eq!(outboxes.next(near, 0).unwrap().0, 3);
        assert_eq!(outboxes.clear().unwrap().dropped, 2);
        outboxes.removed_by(&near);
        assert!(matches!(outboxes.find(3).unwrap().0.state, EntryState::Indeterminate { .. }));
        drop(outboxes);

        // A device that was removed when a crash left no time to delete what waits for it, and a write that it interrupted.
        let asides = [home.outbox(), home.seen()].map(|folder| folder.join(format!("{near}.new")));
        asides.iter().for_each(|aside| std::fs::write(aside, "half").unwrap());
        let outboxes = Outboxes::open(&home, |device| *device == far).unwrap();
        assert_eq!(outboxes.list().0.len(), 0);
        assert_eq!(outbox::machines(&home.outbox()).unwrap(), [far]);
        assert!(asides.iter().all(|aside| !aside.exists()));
    }

    fn home(folder: &tempfile::TempDir) -> Home {
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        home
    }

    #[test]
    fn what_was_seen_of_a_machine_survives_a_crash_and_goes_with_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let [near, far] = [1, 2].map(|byte| DeviceId::from_bytes([byte; 32]));
        let gone = |number| Event::SessionRemoved { session: Uuid::from_u128(number) };
        let names = |outboxes: &Outboxes, device| {
            outboxes.seen_at(device).into_iter().map(|session| session.id.as_u128()).collect::<Vec<_>>()
        };
        let outboxes = Outboxes::open(&home, |_| true).unwrap();
        for device in [near, far] {
            let noted = Seen::all([1, 2].map(|number| (Uuid::from_u128(number), "build".to_owned())));
            outboxes.seen().insert(device, Noted { seen: noted, unsaved: true });
        }
        outboxes.save_seen();
        outboxes.see(near, gone(1));
        outboxes.save_seen();
        drop(outboxes);

        let outboxes = Outboxes::open(&home, |_| true).unwrap();
        assert_eq!((names(&outboxes, &near), names(&outboxes, &far)), (vec![2], vec![1, 2]));
        // The list that a link brings takes its place.
        outboxes.see_all(far, Vec::new());
        outboxes.save_seen();
        outboxes.forget(&near).unwrap();
        outboxes.save_seen();
        assert_eq!(outbox::machines(&home.seen()).unwrap(), [far]);
        drop(outboxes);
        assert_eq!(names(&Outboxes::open(&home, |device| *device == near).unwrap(), &far), []);
        assert_eq!(outbox::machines(&home.seen()).unwrap(), []);
    }

    #[test]
    fn only_what_can_wait_is_taken() {
        let typed = |length| SessionType { session: Uuid::nil(), text: "x".repeat(length), enter: true }.into();
        assert!(check(&typed(MAX_TEXT), 1).is_ok());
        assert_eq!(check(&typed(MAX_TEXT + 1), 1).unwrap_err().code, ErrorCode::TooMany);
        assert_eq!(check(&SessionList::default().into(), 1).unwrap_err().code, ErrorCode::Malformed);
        assert_eq!(check(&kill(1), MAX_AHEAD_MS + 1).unwrap_err().code, ErrorCode::Malformed);
        assert_eq!(check(&kill(1), 0).unwrap_err().code, ErrorCode::Malformed);
        let heavy = happy_rpc::SessionCreate { command: vec!["x".repeat(MAX_REQUEST)], ..Default::default() };
        assert_eq!(check(&heavy.into(), 1).unwrap_err().code, ErrorCode::TooMany);
    }
}
