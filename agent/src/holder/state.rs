//! A session without its sockets and processes: output, screen, viewers, input, control. Plain calls in, plain answers out; the
//! loops around it ([`super::server`], [`super::pty`]) wait and move bytes.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use happy_rpc::{Progress, SessionState};
use happy_screen::{OlderRows, Screen, render_begun, render_vt};
use happy_wire::terminal::Exit;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::prompt::Tty;

use super::blocks::Blocks;
use super::handover::{HandoverError, HistoryRange, Parts, Sections};
use super::history::LateHistory;
use super::input::Input;
use super::progress::Telling;
use super::prompting::{self, Answer, Moment, Prompting};
use super::protocol::{Attach, Attached, Build, Refusal, Status, refusal};
use super::recording::{self, Order, Recording};
use super::ring::{self, Ring};
use super::size::{Size, Sizes};
use super::spec::{Description, ExitRecord};
use super::viewer::{Next, Stage, Viewer};

/// Viewers at once: more than one person has screens, and each may cost a snapshot of up to 16 MiB for a moment.
pub const MAX_VIEWERS: usize = 64;

/// The most that one read takes from the terminal.
pub const MAX_READ: usize = 64 * 1024;

/// The least that is kept of the raw log: a lossless viewer may be half of it behind, and a read fits into the rest.
pub const MIN_LOG: usize = 4 * MAX_READ;

/// The most bytes of a viewer's name, which everybody else is shown.
const MAX_NAME: usize = 120;

/// The most bytes of the last line that are told: as much as a card of an overview shows, and more.
const MAX_LINE: usize = 400;
/// The most bytes of a title: a program can set it to anything, many times a second.
const MAX_TITLE: usize = 256;

/// A viewer's connection, as long as it is attached.
pub type Key = u64;

/// Where a viewer's connection hears from the session.
#[derive(Default)]
pub struct Line {
    /// There may be something to send.
    pub wake: Notify,
}

/// A session.
pub struct State {
    scene: Scene,
    viewers: BTreeMap<Key, (Viewer, Rc<Line>)>,
    /// Why viewers were cut off whose connections have not been told yet.
    ends: BTreeMap<Key, Refusal>,
    next_key: Key,
    title: String,
    pid: Option<u32>,
    /// When the program is killed, if it still runs.
    kill_at: Option<Instant>,
    /// The program is stopped until somebody resumes it.
    paused: bool,
    /// Rows that the program before this one had and that are not in their place yet.
    late: Option<LateHistory>,
    recording: Option<Recording>,
    prompting: Prompting,
    progress: Telling,
    build: Build,
    upgrades: u64,
    blackout: Option<Duration>,
    wakes: Rc<Wakes>,
}

/// All of a session but what is raw, for another program.
#[derive(Deserialize)]
pub struct Saved {
    ring: ring::Saved,
    sizes: Sizes,
    input: Input,
    control: Vec<(Key, String)>,
    control_changes: u64,
    viewers: BTreeMap<Key, Viewer>,
    ends: BTreeMap<Key, Refusal>,
    next_key: Key,
    title: String,
    pid: u32,
    kill_in_ms: Option<u64>,
    #[serde(default)]
    paused: bool,
    scrollback_rows: usize,
    upgrades: u64,
    #[serde(default)]
    recording: Option<recording::Saved>,
    #[serde(default)]
    prompting: prompting::Saved,
    #[serde(default)]
    progress: Option<Progress>,
}

/// What all viewers look at.
struct Scene {
    ring: Ring,
    screen: Screen,
    sizes: Sizes,
    scrollback_rows: usize,
    input: Input,
    /// Who may decide the size, by name: the last one does, those before get it back when it leaves.
    control: Vec<(Key, String)>,
    control_changes: u64,
    /// Who decides the size while none of the viewers does, and is none of them.
    outside: Option<&'static str>,
    /// The client of a session which goes on without it has gone: to the viewer that did it, if one did, the session has ended.
    left: Option<Option<Key>>,
    /// Who typed last.
    typist: Option<Key>,
    exit: Option<ExitRecord>,
}

impl Scene {
    fn controller(&self) -> Option<Key> {
        self.control.last().map(|(key, _)| *key)
    }

    fn controller_name(&self) -> Option<&str> {
        self.control.last().map(|(_, name)| name.as_str()).or(self.outside)
    }

    fn seen_by(&self, key: Key, now: Instant) -> Stage<'_> {
        Stage {
            ring: &self.ring,
            screen: &self.screen,
            sizes: &self.sizes,
            input: &self.input,
            control: self.control_changes,
            controller: self.controller_name().unwrap_or_default(),
            you_control: self.controller() == Some(key),
            exit: match self.exit.map(|exit| exit.state) {
                Some(SessionState::Exited { code }) => Some(Exit::Code(code)),
                Some(SessionState::Killed { signal }) => Some(Exit::Signal(signal)),
                Some(SessionState::Running | SessionState::Lost) => Some(Exit::Unknown),
                None => (self.left == Some(Some(key))).then_some(Exit::Code(0)),
            },
            now,
        }
    }
}

/// Where the loops around a session hear from it.
pub struct Wakes {
    /// There is something to type into the program.
    pub input: Notify,
    /// Viewers may type again.
    pub input_room: Notify,
    /// The program may print again.
    pub output_room: Notify,
    /// Something is to be written to the recording, soon.
    pub recording: Notify,
    /// The screen is to be looked at when it is quiet.
    pub look: Notify,
    /// The program says that it is somewhere else by now.
    pub progress: Notify,
    /// Counts changes of the status.
    pub status: watch::Sender<u64>,
    /// The program has printed, or somebody has asked for history.
    pub activity: Notify,
    /// The end of the output.
    pub printed: watch::Sender<u64>,
}

impl Default for Wakes {
    fn default() -> Self {
        Self {
            input: Notify::new(),
            input_room: Notify::new(),
            output_room: Notify::new(),
            recording: Notify::new(),
            look: Notify::new(),
            progress: Notify::new(),
            status: watch::Sender::new(0),
            activity: Notify::new(),
            printed: watch::Sender::new(0),
        }
    }
}

impl State {
    /// A session whose program runs as `pid`. Of the raw log at least [`MIN_LOG`] bytes are kept; what is not in memory is in `older`.
    pub fn new(size: Size, ring_bytes: usize, older: Option<Blocks>, scrollback_rows: usize, pid: u32) -> Self {
        Self {
            scene: Scene {
                ring: Ring::new(ring_bytes.max(MIN_LOG), older),
                screen: Screen::new(size.cols, size.rows, scrollback_rows),
                sizes: Sizes::new(size),
                scrollback_rows,
                input: Input::default(),
                control: Vec::new(),
                control_changes: 0,
                outside: None,
                left: None,
                typist: None,
                exit: None,
            },
            viewers: BTreeMap::new(),
            ends: BTreeMap::new(),
            next_key: 0,
            title: String::new(),
            pid: Some(pid),
            kill_at: None,
            paused: false,
            late: None,
            recording: None,
            prompting: Prompting::default(),
            progress: Telling::default(),
            build: Build::default(),
            upgrades: 0,
            blackout: None,
            wakes: Rc::default(),
        }
    }

    /// Says which program this is.
    pub fn with_build(self, build: Build) -> Self {
        Self { build, ..self }
    }

    /// Is recorded from now on, if that is wanted.
    pub fn with_recording(self, recording: Option<Recording>) -> Self {
        Self { recording, ..self }
    }

    /// Everything but the descriptors and the history: JSON for what is small, raw sections for the rest. `None` unless the program runs.
    pub fn save(&self, out: &mut Sections) -> Option<serde_json::Value> {
        let pid = self.pid?;
        let (ring, newest) = self.scene.ring.save();
        out.put("log", &newest);
        out.put("screen", &self.scene.screen.snapshot(0));
        out.put("input", &self.scene.input.pending());
        for (key, (viewer, _)) in &self.viewers {
            if let Some(parts) = viewer.parts() {
                out.put(&format!("parts/{key}"), parts);
            }
        }
        let now = Instant::now();
        let kill_in = self.kill_at.map(|at| at.saturating_duration_since(now).as_millis() as u64);
        let viewers: BTreeMap<Key, &Viewer> = self.viewers.iter().map(|(key, (viewer, _))| (*key, viewer)).collect();
        Some(serde_json::json!({
            "ring": ring,
            "sizes": self.scene.sizes,
            "input": self.scene.input,
            "control": self.scene.control,
            "control_changes": self.scene.control_changes,
            "viewers": viewers,
            "ends": self.ends,
            "next_key": self.next_key,
            "title": self.title,
            "pid": pid,
            "kill_in_ms": kill_in,
            "paused": self.paused,
            "scrollback_rows": self.scene.scrollback_rows,
            "upgrades": self.upgrades,
            "recording": self.recording.as_ref().map(Recording::save),
            "prompting": self.prompting.save(),
            "progress": self.progress.now(),
        }))
    }

    /// Goes on with what another program has saved. The history comes later.
    ///
    /// # Errors
    /// [`HandoverError`] when the parts do not fit together.
    pub fn resume(saved: Saved, parts: &Parts<'_>, log: Option<OwnedFd>) -> Result<Self, HandoverError> {
        let misfit = |what: &str| HandoverError::part(what);
        let ring = Ring::resume(saved.ring, parts.section("log"), log).ok_or_else(|| misfit("the raw log"))?;
        let screen = Screen::restore(parts.section("screen"), saved.scrollback_rows).map_err(HandoverError::part)?;
        let mut input = saved.input;
        if !input.resume(parts.section("input")) {
            return Err(misfit("the pending input"));
        }
        let mut viewers = BTreeMap::new();
        for (key, mut viewer) in saved.viewers {
            if !viewer.resume(parts.section(&format!("parts/{key}")), ring.end()) || key >= saved.next_key {
                return Err(misfit("a viewer"));
            }
            viewers.insert(key, (viewer, Rc::default()));
        }
        let now = Instant::now();
        Ok(Self {
            scene: Scene {
                ring,
                screen,
                sizes: saved.sizes,
                scrollback_rows: saved.scrollback_rows,
                input,
                control: saved.control,
                control_changes: saved.control_changes,
                outside: None,
                left: None,
                typist: None,
                exit: None,
            },
            viewers,
            ends: saved.ends,
            next_key: saved.next_key,
            title: saved.title,
            pid: Some(saved.pid),
            kill_at: saved.kill_in_ms.and_then(|ms| now.checked_add(Duration::from_millis(ms))),
            paused: saved.paused,
            late: None,
            recording: saved.recording.map(Recording::resume),
            prompting: Prompting::resume(saved.prompting),
            progress: Telling::resume(saved.progress),
            build: Build::default(),
            upgrades: saved.upgrades,
            blackout: None,
            wakes: Rc::default(),
        })
    }

    /// Rows of history are still to come.
    pub fn on_late_history(&mut self, late: LateHistory) {
        self.late = Some(late);
    }

    /// This program has taken over from another one.
    pub fn on_upgraded(&mut self) {
        self.upgrades += 1;
    }

    /// How long nobody was served while this program took over.
    pub fn on_served(&mut self, blackout: Duration) {
        self.blackout = Some(blackout);
        self.on_status();
    }

    /// Puts some more rows of history in their place; whether all are.
    pub fn load_history(&mut self) -> bool {
        let Some(late) = &mut self.late else { return true };
        if !late.load() {
            return false;
        }
        if let Some(late) = self.late.take() {
            self.scene.screen.prepend_history(late.into_rows());
        }
        true
    }

    /// The raw log's older part, for its descriptor.
    pub fn log(&self) -> Option<&Blocks> {
        self.scene.ring.older()
    }

    /// Begins a recording, with the screen as it is.
    ///
    /// # Errors
    /// When there is one already, or its file cannot be made.
    pub fn record(&mut self, order: &Order, description: &Description) -> Result<(), Refusal> {
        if self.scene.exit.is_some() {
            return Err(Refusal::new(refusal::CONFLICT, "the program has ended, and prints nothing more"));
        }
        if self.scene.left.is_some() {
            return Err(Refusal::new(refusal::DETACHED, "the client of this session was detached; try again"));
        }
        if let Some(recording) = self.recording.as_ref().filter(|recording| recording.is_on()) {
            let file = recording.path().display();
            return Err(Refusal::new(refusal::CONFLICT, format!("the session is being recorded already, to {file}")));
        }
        let screen = match self.scene.ring.end() {
            // Nothing was printed yet.
            0 => Vec::new(),
            _ => [render_vt(&self.scene.screen), render_begun(&self.scene.screen)].concat(),
        };
        self.recording = Some(Recording::begin(order, description, self.scene.sizes.now(), &screen)?);
        self.on_status();
        Ok(())
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// When there is none.
    pub fn stop_recording(&mut self) -> Result<(), Refusal> {
        let recording = self.recording.take_if(|recording| recording.is_on());
        let mut recording = recording.ok_or_else(|| Refusal::new(refusal::CONFLICT, "the session is not recorded"))?;
        recording.stop();
        // A file that could not be finished is still worth a word.
        self.recording = recording.has_failed().then_some(recording);
        self.on_status();
        Ok(())
    }

    /// Goes on with the recording of another program, whose file this is.
    ///
    /// # Errors
    /// [`HandoverError`] when there is one without the other.
    pub fn resume_recording(&mut self, file: Option<OwnedFd>) -> Result<(), HandoverError> {
        let is_on = self.recording.as_ref().is_some_and(Recording::is_on);
        match (&mut self.recording, file) {
            (Some(recording), Some(file)) if is_on => recording.resume_file(file.into()),
            (_, None) if !is_on => {}
            _ => return Err(HandoverError::part("the recording")),
        }
        Ok(())
    }

    /// The file of the recording, while there is one.
    pub fn recording(&self) -> Option<BorrowedFd<'_>> {
        self.recording.as_ref()?.descriptor()
    }

    /// Writes what is recorded and not in the file yet.
    pub fn write_recording(&mut self) {
        self.recorded(Recording::write);
    }

    /// Something happens that is recorded.
    fn recorded(&mut self, happens: impl FnOnce(&mut Recording)) {
        let Some(recording) = self.recording.as_mut().filter(|recording| recording.is_on()) else { return };
        let waited = recording.waits();
        happens(recording);
        if !recording.is_on() {
            self.on_status();
        } else if recording.waits() && !waited {
            self.wakes.recording.notify_one();
        }
    }

    /// The screen.
    pub fn screen(&self) -> &Screen {
        &self.scene.screen
    }

    /// The rows of history that are kept.
    pub fn history(&self, in_file: u64) -> HistoryRange {
        let numbers = self.scene.screen.history_numbers();
        HistoryRange { in_file, from: numbers.start, to: numbers.end }
    }

    /// Whether the program is stopped.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// The program was stopped, or goes on.
    pub fn on_paused(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.on_status();
        }
    }

    /// The program is killed then, unless it is to be killed earlier.
    pub fn kill_at(&mut self, at: Instant) {
        self.kill_at = Some(self.kill_at.map_or(at, |before| before.min(at)));
    }

    /// When the program is to be killed.
    pub fn killed_at(&self) -> Option<Instant> {
        self.kill_at
    }

    /// Where a viewer's connection hears from the session, while it is attached.
    pub fn line(&self, key: Key) -> Option<Rc<Line>> {
        self.viewers.get(&key).map(|(_, line)| Rc::clone(line))
    }

    /// Why a viewer was cut off, once.
    pub fn take_end(&mut self, key: Key) -> Result<(), Refusal> {
        self.ends.remove(&key).map_or(Ok(()), Err)
    }

    /// Where its loops hear from it.
    pub fn wakes(&self) -> Rc<Wakes> {
        Rc::clone(&self.wakes)
    }

    /// The program has printed.
    pub fn on_output(&mut self, bytes: &[u8]) {
        self.recorded(|recording| recording.on_output(bytes));
        self.scene.ring.push(bytes);
        self.scene.sizes.forget_before(self.scene.ring.start());
        let fed = self.scene.screen.feed(bytes);
        if fed.history_cleared {
            self.late = None;
        }
        // The holder answers, and nobody else: two answers would be typed into a shell.
        if !fed.replies.is_empty() {
            if self.scene.input.answer(&fed.replies) {
                self.wakes.input.notify_one();
            } else {
                tracing::debug!("the program asks its terminal and does not read the answers");
            }
        }
        if self.prompting.on_output(&fed) {
            self.wakes.look.notify_one();
        }
        if fed.progress.is_some_and(|change| self.progress.on_change(change)) {
            self.wakes.progress.notify_one();
        }
        self.take_title();
        self.wake_viewers();
        self.wakes.activity.notify_one();
        self.wakes.printed.send_replace(self.scene.ring.end());
    }

    /// Tells how far the program says it is.
    pub fn tell_progress(&mut self) {
        if self.progress.tell() {
            self.on_status();
        }
    }

    fn take_title(&mut self) {
        let title = self.scene.screen.title();
        let title = &title[..title.floor_char_boundary(MAX_TITLE)];
        if title != self.title {
            self.title = title.to_owned();
            self.on_status();
        }
    }

    /// Whether the program's output may be read: with [`MAX_READ`] bytes more, every lossless viewer would still find in the ring what
    /// it has not got. A part is kept free for what comes out of the terminal after the program has ended.
    pub fn may_read(&self) -> bool {
        let keep = self.scene.ring.capacity() / 2;
        let lossless = self.viewers.values().filter(|(viewer, _)| viewer.lossless);
        let behind = lossless.map(|(viewer, _)| self.scene.ring.end().saturating_sub(viewer.position())).max();
        behind.is_none_or(|behind| behind + MAX_READ as u64 <= keep)
    }

    /// Adds a viewer.
    ///
    /// # Errors
    /// A [`Refusal`] for the viewer.
    pub fn attach(&mut self, attach: Attach, now: Instant) -> Result<(Key, Attached), Refusal> {
        if self.scene.left.is_some() {
            return Err(Refusal::new(refusal::CONFLICT, "the client of this session was detached; attach again"));
        }
        let inherited = self.displace(attach.writer, attach.viewer);
        if self.viewers.len() >= MAX_VIEWERS {
            return Err(Refusal::new(refusal::TOO_MANY, format!("{MAX_VIEWERS} viewers are attached already")));
        }
        let key = self.next_key;
        self.next_key += 1;
        let input_offset = self.scene.input.attach(attach.writer);
        let name = clean(&attach.name);
        let takes = inherited || (attach.take_control && self.scene.controller_name().is_none());
        if takes {
            self.scene.control.push((key, name.clone()));
            self.scene.control_changes += 1;
        }
        let viewer = Viewer::new(&attach, name, &self.scene.seen_by(key, now));
        let (offset, credit) = (viewer.position(), viewer.has_credit());
        self.viewers.insert(key, (viewer, Rc::default()));
        if takes && attach.cols > 0 && attach.rows > 0 {
            self.set_size(Size::clamped(attach.cols, attach.rows));
        }
        self.on_status();
        self.wake_viewers();
        Ok((key, Attached { input_offset, offset, you_control: takes, credit, status: self.status() }))
    }

    /// A viewer that comes back before its old connection was noticed to be dead takes its own place. Whether it had control.
    fn displace(&mut self, writer: Uuid, id: Uuid) -> bool {
        let old: Vec<_> = self
            .viewers
            .iter()
            .filter(|(_, (viewer, _))| viewer.writer == writer || viewer.id == id)
            .map(|(key, _)| *key)
            .collect();
        let controlled = self.scene.controller().is_some_and(|key| old.contains(&key));
        for key in old {
            self.cut_off(key, Refusal::new(refusal::DISPLACED, "the same viewer has attached anew"));
        }
        controlled
    }

    fn cut_off(&mut self, key: Key, why: Refusal) {
        if let Some((_, line)) = self.viewers.get(&key) {
            line.wake.notify_one();
        }
        self.detach(key);
        self.ends.insert(key, why);
    }

    /// A viewer has gone. The size stays as it is.
    pub fn detach(&mut self, key: Key) {
        self.ends.remove(&key);
        let Some((viewer, _)) = self.viewers.remove(&key) else { return };
        self.scene.input.detach(viewer.writer);
        self.leave_control(key);
        self.wakes.output_room.notify_one();
        self.on_status();
        self.wake_viewers();
    }

    /// Cuts a viewer off on request.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn detach_by_id(&mut self, id: Uuid) -> Result<(), Refusal> {
        let key = self.find(id)?;
        self.cut_off(key, Refusal::new(refusal::DETACHED, "detached"));
        Ok(())
    }

    fn find(&self, id: Uuid) -> Result<Key, Refusal> {
        let found = self.viewers.iter().find(|(_, (viewer, _))| viewer.id == id);
        found.map(|(key, _)| *key).ok_or_else(|| Refusal::new(refusal::NOT_FOUND, "no such viewer is attached"))
    }

    /// Makes a viewer the one that decides the size.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn take_control(&mut self, id: Uuid, cols: u16, rows: u16) -> Result<(), Refusal> {
        let key = self.find(id)?;
        if self.scene.controller() != Some(key)
            && let Some((viewer, _)) = self.viewers.get(&key)
        {
            self.scene.control.retain(|(other, _)| *other != key);
            self.scene.control.push((key, viewer.name.clone()));
            self.scene.control_changes += 1;
        }
        self.set_size(Size::clamped(cols, rows));
        self.on_status();
        self.wake_viewers();
        Ok(())
    }

    /// Lets a viewer decide the size no more. Whoever had control before and is still here has it again, and the size stays until they say otherwise.
    ///
    /// # Errors
    /// When there is none of that id.
    pub fn give_control(&mut self, id: Uuid) -> Result<(), Refusal> {
        let key = self.find(id)?;
        self.leave_control(key);
        self.on_status();
        self.wake_viewers();
        Ok(())
    }

    fn leave_control(&mut self, key: Key) {
        if self.scene.controller() == Some(key) {
            self.scene.control_changes += 1;
        }
        self.scene.control.retain(|(other, _)| *other != key);
    }

    /// Changes the size on behalf of a viewer.
    ///
    /// # Errors
    /// Unless the viewer is in control.
    pub fn resize(&mut self, id: Uuid, cols: u16, rows: u16) -> Result<(), Refusal> {
        let key = self.find(id)?;
        if self.scene.controller() != Some(key) {
            return Err(Refusal::new(refusal::CONFLICT, "another viewer decides the size; take control first"));
        }
        self.set_size(Size::clamped(cols, rows));
        Ok(())
    }

    fn set_size(&mut self, size: Size) {
        if size == self.scene.sizes.now() || self.scene.exit.is_some() {
            return;
        }
        self.scene.screen.resize(size.cols, size.rows);
        self.scene.sizes.change(self.scene.ring.end(), size);
        self.recorded(|recording| recording.on_resize(size));
        self.on_status();
        self.wake_viewers();
    }

    /// The size of a session whose size others decide, unless a viewer does. Whether it has changed.
    pub fn follow_size(&mut self, size: Size) -> bool {
        let follows = self.scene.control.is_empty() && size != self.scene.sizes.now();
        if follows {
            self.set_size(size);
        }
        follows
    }

    /// Whether a viewer has ever come.
    pub fn was_watched(&self) -> bool {
        self.next_key > 0
    }

    /// Whether a viewer decides the size.
    pub fn is_controlled(&self) -> bool {
        !self.scene.control.is_empty()
    }

    /// Who decides the size while none of the viewers does.
    pub fn on_outside(&mut self, outside: Option<&'static str>) {
        if self.scene.outside != outside {
            self.scene.outside = outside;
            self.scene.control_changes += 1;
            self.on_status();
            self.wake_viewers();
        }
    }

    /// Whether a viewer looks that asks for history.
    pub fn asks_history(&self) -> bool {
        self.viewers.values().any(|(viewer, _)| viewer.asks_history())
    }

    /// The history is somebody else's: these rows, oldest first, follow those that are here, or take their place.
    pub fn on_other_history(&mut self, anew: bool, rows: Vec<OlderRows>) {
        if anew {
            self.scene.screen.clear_history();
        }
        rows.into_iter().for_each(|rows| self.scene.screen.append_history(rows));
        self.viewers.values_mut().for_each(|(viewer, _)| viewer.on_other_history());
        self.wake_viewers();
    }

    /// Whoever typed last is not why the client goes.
    pub fn forget_typist(&mut self) {
        self.scene.typist = None;
    }

    /// The client of a session has gone, and the session has not. For who typed last it is over; the others may attach again.
    pub fn on_client_left(&mut self) {
        self.recorded(|recording| recording.cut("the client of tmux was detached"));
        let typist = self.scene.typist.filter(|key| self.viewers.contains_key(key));
        self.scene.left = Some(typist);
        let others: Vec<_> = self.viewers.keys().filter(|key| Some(**key) != typist).copied().collect();
        for key in others {
            self.cut_off(key, Refusal::new(refusal::DETACHED, "the client of this session was detached"));
        }
        self.wake_viewers();
    }

    /// How many look.
    pub fn viewer_count(&self) -> usize {
        self.viewers.len()
    }

    /// Somebody looks, or will look at the recording.
    pub fn is_watched(&self) -> bool {
        !self.viewers.is_empty() || self.recording.as_ref().is_some_and(Recording::is_on)
    }

    /// The size that the program's terminal must have.
    pub fn size(&self) -> Size {
        self.scene.sizes.now()
    }

    /// The question with which the program waits.
    pub fn prompting(&self) -> &Prompting {
        &self.prompting
    }

    /// Looks at the screen, whether the program waits for a person.
    pub fn look(&mut self, tty: Tty) {
        let (has_changed, keys) = self.prompting.look(&self.scene.screen, tty);
        if let Some(keys) = keys
            && self.scene.input.pending().is_empty()
            && self.scene.input.press(&keys)
        {
            self.wakes.input.notify_one();
        }
        if has_changed {
            self.on_status();
        }
    }

    /// Somebody is needed, as the program has told by another way than its terminal.
    pub fn on_called(&mut self, text: &str) {
        if self.prompting.on_called(&clean(text)) {
            self.wakes.look.notify_one();
        }
    }

    /// Answers the question: the keys are what is to be typed next.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is typed then.
    pub fn answer(&mut self, answer: &Answer, moment: Moment) -> Result<(), Refusal> {
        let is_unread = moment.is_unread || !self.scene.input.front().is_empty();
        let answer = Answer { by: clean(&answer.by), ..answer.clone() };
        let keys = self.prompting.answer(&answer, &self.scene.screen, Moment { is_unread, ..moment });
        self.on_status();
        self.wakes.look.notify_one();
        // Nothing waits to be typed, so there is room.
        if !self.scene.input.press(&keys?) {
            return Err(Refusal::new(refusal::CONFLICT, "the program does not read what is typed"));
        }
        Ok(())
    }

    /// A viewer types.
    ///
    /// # Errors
    /// A [`Refusal`] when input was skipped; the viewer must be cut off.
    pub fn on_input(&mut self, key: Key, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let Some((viewer, _)) = self.viewers.get_mut(&key) else { return Ok(()) };
        viewer.on_input();
        self.scene.typist = Some(key);
        if self.scene.exit.is_some() {
            return Ok(());
        }
        self.scene
            .input
            .type_in(viewer.writer, offset, bytes)
            // PROTOCOL 10.1: refused with Close 4400.
            .map_err(|gap| Refusal::new(refusal::MALFORMED, gap.to_string()))?;
        if self.prompting.on_typed(bytes) {
            self.on_status();
        }
        self.wakes.input.notify_one();
        Ok(())
    }

    /// A viewer's screen has taken everything before `offset`.
    ///
    /// # Errors
    /// A [`Refusal`] when that cannot be; the viewer must be cut off.
    pub fn on_drawn(&mut self, key: Key, offset: u64) -> Result<(), Refusal> {
        let Some((viewer, line)) = self.viewers.get_mut(&key) else { return Ok(()) };
        line.wake.notify_one();
        viewer.on_drawn(offset)
    }

    /// A viewer asks for rows of history below a number.
    ///
    /// # Errors
    /// A [`Refusal`] when it asks for too many; the viewer must be cut off.
    pub fn on_history_wanted(&mut self, key: Key, before: u64, rows: u16) -> Result<(), Refusal> {
        let Some((viewer, line)) = self.viewers.get_mut(&key) else { return Ok(()) };
        line.wake.notify_one();
        self.wakes.activity.notify_one();
        viewer.on_history_wanted(before, rows)
    }

    /// Whether viewers may type more.
    pub fn has_input_room(&self) -> bool {
        self.scene.input.has_room()
    }

    /// What to type into the program next; empty when there is nothing.
    pub fn pending_input(&self) -> &[u8] {
        self.scene.input.front()
    }

    /// The program's terminal took so many bytes.
    pub fn on_typed(&mut self, count: usize) {
        let was_full = !self.scene.input.has_room();
        self.scene.input.wrote(count);
        if was_full && self.scene.input.has_room() {
            self.wakes.input_room.notify_waiters();
        }
        self.wake_viewers();
    }

    /// Puts what a viewer should see next; `None` when it was cut off.
    pub fn fill(&mut self, key: Key, now: Instant, out: &mut BytesMut) -> Option<Next> {
        if self.late.is_some() && self.viewers.get(&key)?.0.needs_history(&self.scene.seen_by(key, now)) {
            while !self.load_history() {}
        }
        let (viewer, _) = self.viewers.get_mut(&key)?;
        let next = viewer.fill(&self.scene.seen_by(key, now), out);
        if viewer.lossless {
            self.wakes.output_room.notify_one();
        }
        Some(next)
    }

    /// The process is no more.
    pub fn on_reaped(&mut self) {
        self.pid = None;
    }

    /// The program has ended and everything it printed was read.
    pub fn on_exit(&mut self, exit: ExitRecord) {
        self.recorded(|recording| recording.on_exit(exit.state));
        self.scene.exit = Some(exit);
        self.prompting.on_exit();
        self.progress = Telling::default();
        self.scene.input.discard();
        self.wakes.input_room.notify_waiters();
        self.on_status();
        self.wake_viewers();
    }

    /// The program's process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The end of the output.
    pub fn output_offset(&self) -> u64 {
        self.scene.ring.end()
    }

    /// How many bytes were typed in all.
    pub fn bytes_in(&self) -> u64 {
        self.scene.input.typed()
    }

    /// What is told on control connections.
    pub fn status(&self) -> Status {
        let size = self.scene.sizes.now();
        Status {
            holder: std::process::id(),
            pid: self.pid,
            cols: size.cols,
            rows: size.rows,
            kept_from: self.scene.ring.start(),
            output_offset: self.scene.ring.end(),
            bytes_in: self.bytes_in(),
            viewers: self.viewers.len() as u32,
            controller: self.scene.controller_name().map(str::to_owned),
            title: self.title.clone(),
            build: self.build.clone(),
            upgrades: self.upgrades,
            blackout_us: self.blackout.map(|blackout| blackout.as_micros() as u64),
            recording: self.recording.as_ref().map(Recording::status),
            paused: self.paused && self.pid.is_some(),
            prompt: self.prompting.waiting().cloned(),
            prompt_ended: self.prompting.ended().cloned(),
            progress: self.progress.told(),
            line: None,
            state: self.scene.exit.map_or(SessionState::Running, |exit| exit.state),
        }
    }

    /// The lowest row of the screen that is not blank, or its beginning.
    pub fn last_line(&self) -> String {
        let (_, rows) = self.scene.screen.size();
        let lines = (0..rows).rev().map(|row| self.scene.screen.row(row).text());
        let mut line = lines.map(|line| line.trim().to_owned()).find(|line| !line.is_empty()).unwrap_or_default();
        line.truncate(line.floor_char_boundary(MAX_LINE));
        line
    }

    fn on_status(&self) {
        self.wakes.status.send_modify(|changes| *changes += 1);
    }

    fn wake_viewers(&self) {
        self.viewers.values().for_each(|(_, line)| line.wake.notify_one());
    }
}

/// A moment that has passed, as milliseconds before now: another program's clock begins elsewhere.
pub mod ago {
    use super::*;

    /// For `serde(with)`.
    pub fn serialize<S: serde::Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        (Instant::now().saturating_duration_since(*at).as_millis() as u64).serialize(serializer)
    }

    /// For `serde(with)`.
    pub fn deserialize<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        let ago = Duration::from_millis(u64::deserialize(deserializer)?);
        let now = Instant::now();
        Ok(now.checked_sub(ago).unwrap_or(now))
    }
}

/// A name that cannot steer the terminal it is shown on.
fn clean(name: &str) -> String {
    let mut name: String = name.chars().filter(|c| !c.is_control()).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME));
    name
}

#[cfg(test)]
mod tests;
