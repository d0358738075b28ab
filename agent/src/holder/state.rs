//! A session without its sockets and processes: output, screen, viewers, input, control. Plain calls in, plain answers out; the
//! loops around it ([`super::server`], [`super::pty`]) wait and move bytes.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use happy_rpc::SessionState;
use happy_screen::{OlderRows, Screen, render_begun, render_vt};
use happy_wire::terminal::Exit;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::blocks::Blocks;
use super::handover::{HandoverError, HistoryRange, Parts, Sections};
use super::history::LateHistory;
use super::input::Input;
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
    /// Rows that the program before this one had and that are not in their place yet.
    late: Option<LateHistory>,
    recording: Option<Recording>,
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
    scrollback_rows: usize,
    upgrades: u64,
    #[serde(default)]
    recording: Option<recording::Saved>,
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
    /// Counts changes of the status.
    pub status: watch::Sender<u64>,
    /// The program has printed, or somebody has asked for history.
    pub activity: Notify,
}

impl Default for Wakes {
    fn default() -> Self {
        Self {
            input: Notify::new(),
            input_room: Notify::new(),
            output_room: Notify::new(),
            recording: Notify::new(),
            status: watch::Sender::new(0),
            activity: Notify::new(),
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
            late: None,
            recording: None,
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
            "scrollback_rows": self.scene.scrollback_rows,
            "upgrades": self.upgrades,
            "recording": self.recording.as_ref().map(Recording::save),
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
            late: None,
            recording: saved.recording.map(Recording::resume),
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
        self.take_title();
        self.wake_viewers();
        self.wakes.activity.notify_one();
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
            viewers: self.viewers.len() as u32,
            controller: self.scene.controller_name().map(str::to_owned),
            title: self.title.clone(),
            build: self.build.clone(),
            upgrades: self.upgrades,
            blackout_us: self.blackout.map(|blackout| blackout.as_micros() as u64),
            recording: self.recording.as_ref().map(Recording::status),
            state: self.scene.exit.map_or(SessionState::Running, |exit| exit.state),
        }
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
mod tests {
    use std::path::Path;

    use happy_wire::terminal::{TerminalMessage, WINDOW};

    use super::super::blocks::Place;
    use super::super::history::EarlyHistory;
    use super::super::input::MAX_PENDING;
    use super::super::protocol::kind;
    use super::super::viewer::MAX_BEHIND;
    use super::*;

    /// What a viewer was sent.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Output(u64, usize),
        Gap(u64, u64),
        Snapshot(u64),
        Resized(u64, u16, bool),
        Taken(u64),
        Exited(u64),
        /// Offset, base, bytes of its parts.
        Frame(u64, Option<u64>, Vec<u8>),
        /// First row, oldest row, bytes.
        History(u64, u64, usize),
    }

    fn attach() -> Attach {
        Attach {
            viewer: Uuid::new_v4(),
            writer: Uuid::new_v4(),
            name: "desk".into(),
            from: Some(0),
            scrollback: 1_000,
            lossless: false,
            credit: false,
            cols: 80,
            rows: 24,
            take_control: false,
        }
    }

    fn session() -> State {
        let older = Blocks::open(Place::Memory, Path::new("/"), Ring::slots(4 << 20)).unwrap();
        State::new(Size::clamped(80, 24), 4 << 20, Some(older), 1_000, 1)
    }

    /// Everything that the viewer would be sent at `now`, outputs that follow each other as one.
    fn look(state: &mut State, key: Key, now: Instant) -> (Vec<Seen>, Next) {
        let (mut all, mut out) = (Vec::new(), BytesMut::new());
        loop {
            match state.fill(key, now, &mut out).unwrap() {
                Next::Write => {}
                wait => return (all, wait),
            }
            while let Some(length) = out.first_chunk::<4>() {
                let frame = out.split_to(4 + u32::from_be_bytes(*length) as usize);
                assert_eq!(frame[4], kind::TERMINAL);
                let seen = match TerminalMessage::decode(&frame[5..]).unwrap() {
                    TerminalMessage::Output { offset, bytes } => match all.last_mut() {
                        Some(Seen::Output(first, length)) if *first + *length as u64 == offset => {
                            *length += bytes.len();
                            continue;
                        }
                        _ => Seen::Output(offset, bytes.len()),
                    },
                    TerminalMessage::Gap { from, to } => Seen::Gap(from, to),
                    TerminalMessage::Snapshot { part, .. } if part > 0 => continue,
                    TerminalMessage::Snapshot { offset, .. } => Seen::Snapshot(offset),
                    TerminalMessage::Resized { offset, cols, you_control, .. } => {
                        Seen::Resized(offset, cols, you_control)
                    }
                    TerminalMessage::InputTaken { offset } => Seen::Taken(offset),
                    TerminalMessage::Exited { offset, .. } => Seen::Exited(offset),
                    TerminalMessage::Frame { part, bytes, .. } if part > 0 => match all.last_mut() {
                        Some(Seen::Frame(.., whole)) => {
                            whole.extend_from_slice(bytes);
                            continue;
                        }
                        other => panic!("a part of a frame after {other:?}"),
                    },
                    TerminalMessage::Frame { offset, base, bytes, .. } => Seen::Frame(offset, base, bytes.to_vec()),
                    TerminalMessage::History { first, kept_from, bytes } => {
                        Seen::History(first, kept_from, bytes.len())
                    }
                    TerminalMessage::Input { .. }
                    | TerminalMessage::Drawn { .. }
                    | TerminalMessage::HistoryWanted { .. } => panic!("a viewer's message for a viewer"),
                };
                all.push(seen);
            }
        }
    }

    #[tokio::test]
    async fn a_backlog_is_sent_whole_up_to_the_bound_and_not_beyond() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(attach(), now).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, false)]);
        state.on_output(&vec![b'x'; MAX_BEHIND as usize]);
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, MAX_BEHIND as usize)]);

        state.on_output(&vec![b'x'; MAX_BEHIND as usize + 1]);
        let end = 2 * MAX_BEHIND + 1;
        let (seen, next) = look(&mut state, key, now);
        assert_eq!(seen, [Seen::Gap(MAX_BEHIND, end), Seen::Snapshot(end)]);
        // Its scrollback follows when it is quiet, once.
        assert!(matches!(next, Next::WaitUntil(_)));
        state.on_output(b"more");
        let (seen, next) = look(&mut state, key, now + Duration::from_millis(3));
        assert_eq!(seen, [Seen::Output(end, 4)]);
        let Next::WaitUntil(quiet) = next else { panic!("{next:?}") };
        assert_eq!(look(&mut state, key, quiet).0, [Seen::Snapshot(end + 4)]);
        assert_eq!(look(&mut state, key, quiet + Duration::from_secs(9)), (vec![], Next::Wait));
    }

    #[tokio::test]
    async fn who_comes_back_gets_all_that_is_kept_however_much_it_is() {
        let (mut state, now) = (session(), Instant::now());
        state.on_output(&vec![b'x'; 3 << 20]);
        let (key, _) = state.attach(Attach { from: Some(5), ..attach() }, now).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(5, 80, false), Seen::Output(5, (3 << 20) - 5)]);
        // What is no longer kept is a declared gap.
        state.on_output(&vec![b'x'; 3 << 20]);
        let (key, attached) = state.attach(Attach { from: Some(5), ..attach() }, now).unwrap();
        assert!(attached.status.kept_from > 5);
        assert_eq!(look(&mut state, key, now).0, [Seen::Gap(5, 6 << 20), Seen::Snapshot(6 << 20)]);
    }

    #[tokio::test]
    async fn output_is_gathered_under_load_and_an_echo_never() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(attach(), now).unwrap();
        look(&mut state, key, now);
        let mut held = None;
        for offset in (0..).step_by(5_000).take(10) {
            state.on_output(&[b'x'; 5_000]);
            match look(&mut state, key, now) {
                (seen, Next::Wait) => assert_eq!(seen, [Seen::Output(offset, 5_000)]),
                (seen, Next::WaitUntil(time)) => {
                    assert!(seen.is_empty() && offset >= 16_384, "{offset} is no load");
                    held = held.or(Some((offset, time)));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let (offset, time) = held.expect("nothing was ever gathered");
        assert!(time - now <= Duration::from_millis(3));
        // A key is typed: its echo does not wait.
        state.on_input(key, 0, b"k").unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(offset, 5_000)]);
        state.on_typed(1);
        let (seen, next) = look(&mut state, key, now);
        assert!(seen.is_empty() && matches!(next, Next::WaitUntil(time) if time - now <= Duration::from_millis(3)));
        state.on_output(b"k");
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(offset + 5_000, 1), Seen::Taken(1)]);
    }

    #[tokio::test]
    async fn that_input_was_taken_is_told_with_its_echo_or_soon() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(attach(), now).unwrap();
        look(&mut state, key, now);
        let mut typed = 0;
        let mut type_in = |state: &mut State| {
            state.on_input(key, typed, b"k").unwrap();
            state.on_typed(1);
            typed += 1;
        };
        type_in(&mut state);
        let (seen, next) = look(&mut state, key, now);
        let Next::WaitUntil(told) = next else { panic!("{next:?}") };
        assert!(seen.is_empty() && told > now && told - now <= Duration::from_millis(3));
        // What is typed meanwhile does not put it off.
        type_in(&mut state);
        let between = told - Duration::from_millis(1);
        assert_eq!(look(&mut state, key, between), (vec![], Next::WaitUntil(told)));
        assert_eq!(look(&mut state, key, told), (vec![Seen::Taken(2)], Next::Wait));
        assert_eq!(look(&mut state, key, told + Duration::from_secs(1)), (vec![], Next::Wait));
        // A flood does not put it off either.
        type_in(&mut state);
        state.on_output(&[b'x'; 500_000]);
        let mut out = BytesMut::new();
        assert_eq!(state.fill(key, told, &mut out), Some(Next::Write));
        assert!(out.len() < 100_000 && out.ends_with(&TerminalMessage::InputTaken { offset: 3 }.to_vec()));
    }

    #[tokio::test]
    async fn a_lossless_viewer_stops_the_reading_before_the_ring_turns() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(Attach { lossless: true, ..attach() }, now).unwrap();
        let mut printed = 0;
        while state.may_read() {
            state.on_output(&[b'x'; MAX_READ]);
            printed += MAX_READ;
            assert!(printed <= 4 << 20, "the ring has turned");
        }
        assert!(printed > 1 << 20);
        // One that only looks does not stop it.
        let other = state.attach(attach(), now).unwrap().0;
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, false), Seen::Output(0, printed)]);
        assert!(state.may_read());
        state.on_output(&vec![b'x'; 4 << 20]);
        assert!(!state.may_read());
        state.detach(key);
        assert!(state.may_read());
        state.detach(other);
    }

    /// The session as the next program has it.
    fn resumed(state: &mut State) -> State {
        while !state.load_history() {}
        let mut early = EarlyHistory::new(tempfile::tempfile().unwrap());
        while early.copy(state.screen()).unwrap() {}
        let file = early.descriptor().try_clone_to_owned().unwrap().into();
        let late = LateHistory::new(file, state.history(early.first()));
        let mut sections = Sections::default();
        let saved = state.save(&mut sections).unwrap();
        let (bytes, json) = (sections.into_bytes(), serde_json::to_vec(&saved).unwrap());
        let log = state.log().unwrap().descriptor().try_clone_to_owned().unwrap();
        let saved = serde_json::from_slice(&json).unwrap();
        let mut next = State::resume(saved, &Parts::read(&bytes).unwrap(), Some(log)).unwrap();
        next.on_late_history(late);
        next
    }

    #[tokio::test]
    async fn between_any_two_messages_another_program_goes_on() {
        let now = Instant::now();
        let script = |state: &mut State, between: &mut dyn FnMut(&mut State)| {
            let (desk, _) = state.attach(Attach { take_control: true, ..attach() }, now).unwrap();
            state.on_input(desk, 0, b"typed and not taken").unwrap();
            let (slow, _) = state.attach(Attach { lossless: true, from: None, ..attach() }, now).unwrap();
            let mut all = Vec::new();
            for round in 0..40u64 {
                // Noise does not become small, so the snapshots have several parts.
                let noise: Vec<u8> =
                    (0..150_000).map(|at| b'!' + (((round * 150_000 + at) * 2_654_435_761) >> 17) as u8 % 90).collect();
                state.on_output(&noise);
                state.on_typed(3);
                if round % 8 == 0 {
                    state.set_size(Size::clamped(100 + round as u16, 24));
                }
                for key in [desk, slow] {
                    let mut out = BytesMut::new();
                    while state.fill(key, now, &mut out) == Some(Next::Write) && out.len() < 100_000 {
                        between(state);
                    }
                    all.push(out);
                }
            }
            while !state.load_history() {}
            (all, state.status(), state.scene.screen.snapshot(usize::MAX))
        };
        let plain = script(&mut session(), &mut |_| {});
        let mut switches = 0;
        let switched = script(&mut session(), &mut |state| {
            *state = resumed(state);
            switches += 1;
        });
        assert!(switches > 50, "{switches}");
        assert!(plain == switched, "what was sent differs");
    }

    #[tokio::test]
    async fn parts_that_do_not_belong_together_are_refused() {
        let mut state = session();
        let (key, _) = state.attach(attach(), Instant::now()).unwrap();
        state.on_output(b"hello");
        state.on_input(key, 0, b"typed").unwrap();
        for (section, wanted) in [("log", "raw log"), ("screen", "snapshot"), ("input", "pending input")] {
            let (mut whole, mut sections) = (Sections::default(), Sections::default());
            let saved = state.save(&mut whole).unwrap();
            let whole = whole.into_bytes();
            let parts = Parts::read(&whole).unwrap();
            for name in ["log", "screen", "input"].into_iter().filter(|name| *name != section) {
                sections.put(name, parts.section(name));
            }
            let bytes = sections.into_bytes();
            let log = state.log().unwrap().descriptor().try_clone_to_owned().unwrap();
            let saved = serde_json::from_value(saved).unwrap();
            let error = State::resume(saved, &Parts::read(&bytes).unwrap(), Some(log)).err().unwrap();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    const FRAME_PAUSE: Duration = Duration::from_millis(34);
    const FULL: usize = WINDOW as usize;

    /// A viewer with credit that has seen the first size.
    fn drawer(state: &mut State, now: Instant) -> Key {
        let (key, attached) = state.attach(Attach { credit: true, ..attach() }, now).unwrap();
        assert!(attached.credit);
        let seen = look(state, key, now).0;
        assert!(matches!(seen[..], [Seen::Resized(..)]), "{seen:?}");
        key
    }

    /// What a viewer makes of a frame.
    fn shown(base: &[u8], frame: &Seen) -> Vec<u8> {
        let Seen::Frame(_, _, bytes) = frame else { panic!("{frame:?} is no frame") };
        happy_screen::delta::apply(base, bytes).unwrap()
    }

    #[tokio::test]
    async fn a_viewer_that_never_says_what_it_has_drawn_gets_its_window_and_one_screen() {
        let (mut state, mut now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        for _ in 0..100 {
            state.on_output(&[b'x'; 10_000]);
        }
        let (seen, next) = look(&mut state, key, now);
        assert_eq!(seen, [Seen::Output(0, FULL)]);
        let Next::WaitUntil(give_way) = next else { panic!("{next:?}") };
        assert!(give_way - now <= FRAME_PAUSE, "{:?}", give_way - now);
        assert_eq!(look(&mut state, key, give_way - Duration::from_millis(1)), (vec![], next));
        now = give_way;
        let (seen, next) = look(&mut state, key, now);
        assert_eq!(seen[0], Seen::Gap(WINDOW, 1_000_000));
        assert!(matches!(seen[1..], [Seen::Frame(1_000_000, None, _)]), "{seen:?}");
        assert_eq!(shown(&[], &seen[1]), state.scene.screen.snapshot(0));
        assert_eq!(next, Next::Wait);
        for _ in 0..100 {
            now += Duration::from_secs(1);
            state.on_output(&[b'y'; 10_000]);
            assert_eq!(look(&mut state, key, now), (vec![], Next::Wait));
        }
        // The program went on all the time, and who draws is shown all of it.
        assert!(state.may_read() && state.output_offset() == 2_000_000);
        state.on_drawn(key, 1_000_000).unwrap();
        assert!(matches!(look(&mut state, key, now).0[..], [Seen::Frame(2_000_000, Some(1_000_000), _)]));
    }

    #[tokio::test]
    async fn past_its_window_a_viewer_is_shown_thirty_screens_a_second_each_exact_and_each_from_the_last() {
        let (mut state, begin) = (session(), Instant::now());
        let key = drawer(&mut state, begin);
        let (mut drawing, mut frames, mut gaps, mut base) = (None, Vec::new(), 0, Vec::new());
        for millisecond in 0..3_000u64 {
            let now = begin + Duration::from_millis(millisecond);
            // It takes 20 ms for a frame, in which more is printed than fits into its window.
            if let Some((offset, _)) = drawing.take_if(|(_, at)| *at == now) {
                state.on_drawn(key, offset).unwrap();
            }
            state.on_output(format!("{millisecond} and what fills the row\r\n").repeat(400).as_bytes());
            for seen in look(&mut state, key, now).0 {
                match &seen {
                    Seen::Output(..) => assert!(frames.is_empty(), "output between frames"),
                    Seen::Gap(..) => gaps += 1,
                    Seen::Frame(offset, from, _) => {
                        assert_eq!(*from, frames.last().copied());
                        base = shown(&base, &seen);
                        assert_eq!((base == state.scene.screen.snapshot(0), *offset), (true, state.output_offset()));
                        frames.push(*offset);
                        assert_eq!(drawing.replace((*offset, now + Duration::from_millis(20))), None, "not drawn yet");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(gaps, 1);
        assert!((80..=90).contains(&frames.len()), "{} frames in three seconds", frames.len());
    }

    #[tokio::test]
    async fn bytes_go_on_from_a_frame_that_was_drawn() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        state.on_output(&[b'x'; 3 * FULL]);
        look(&mut state, key, now);
        let seen = look(&mut state, key, now + FRAME_PAUSE).0;
        let end = 3 * WINDOW;
        assert!(matches!(seen[..], [Seen::Gap(..), Seen::Frame(at, None, _)] if at == end), "{seen:?}");
        state.on_output(&[b'y'; FULL]);
        assert_eq!(look(&mut state, key, now + 2 * FRAME_PAUSE).0, []);
        state.on_drawn(key, end).unwrap();
        assert_eq!(look(&mut state, key, now + 2 * FRAME_PAUSE), (vec![Seen::Output(end, FULL)], Next::Wait));
        // The next gap is another one, and its first frame a whole one.
        state.on_output(&[b'z'; 1]);
        assert_eq!(look(&mut state, key, now + 3 * FRAME_PAUSE).0, []);
        let seen = look(&mut state, key, now + 4 * FRAME_PAUSE).0;
        assert_eq!(seen[0], Seen::Gap(end + WINDOW, end + WINDOW + 1));
        assert!(matches!(seen[1..], [Seen::Frame(_, None, _)]), "{seen:?}");
    }

    #[tokio::test]
    async fn another_program_keeps_what_a_viewer_has_drawn_and_begins_with_a_whole_frame() {
        let (mut state, mut now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        state.on_output(&b"a row of some length\r\n".repeat(FULL / 4));
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, FULL)]);
        state = resumed(&mut state);
        assert_eq!(look(&mut state, key, now).0, [], "its window is as full as before");
        let mut drawn = WINDOW;
        for round in 0..3 {
            now += FRAME_PAUSE;
            let mut seen = look(&mut state, key, now).0;
            if round == 0 {
                assert_eq!(seen.remove(0), Seen::Gap(WINDOW, state.output_offset()));
            }
            assert!(matches!(seen[..], [Seen::Frame(at, None, _)] if at == state.output_offset()), "{seen:?}");
            assert!(shown(&[], &seen[0]) == state.scene.screen.snapshot(0));
            state.on_output(&b"more\r\n".repeat(FULL / 2));
            state = resumed(&mut state);
            assert_eq!(look(&mut state, key, now + FRAME_PAUSE).0, [], "a frame before the last one was drawn");
            let Seen::Frame(at, ..) = seen[0] else { unreachable!() };
            state.on_drawn(key, at).unwrap();
            drawn = at;
        }
        assert_eq!(state.on_drawn(key, drawn + 1).unwrap_err().code, refusal::MALFORMED);
        // The page that was asked for before the switch comes after it, with the rows of before.
        state.on_history_wanted(key, u64::MAX, 5).unwrap();
        state = resumed(&mut state);
        let (seen, kept) = (look(&mut state, key, now).0, state.history(0));
        let page =
            |seen: &Seen| matches!(seen, Seen::History(first, from, _) if (*first, *from) == (kept.to - 5, kept.from));
        assert!(seen.first().is_some_and(page), "{seen:?}");
    }

    #[tokio::test]
    async fn a_burst_that_is_drawn_in_time_is_sent_whole() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        state.on_output(&[b'x'; 3 * FULL + 5]);
        let mut position = 0;
        for step in 0..4 {
            let seen = look(&mut state, key, now + Duration::from_millis(8 * step)).0;
            let [Seen::Output(at, length)] = seen[..] else { panic!("{seen:?}") };
            assert!(at == position && length <= FULL);
            position += length as u64;
            state.on_drawn(key, position).unwrap();
        }
        assert_eq!(position, 3 * WINDOW + 5);
    }

    #[tokio::test]
    async fn who_lies_about_what_is_drawn_is_refused_and_gains_nothing() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        state.on_output(&[b'x'; 2 * FULL]);
        look(&mut state, key, now);
        let refused = state.on_drawn(key, WINDOW + 1).unwrap_err();
        assert_eq!(refused.code, refusal::MALFORMED);
        state.on_drawn(key, 1_000).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(WINDOW, 1_000)]);
        // Going back changes nothing.
        state.on_drawn(key, 0).unwrap();
        state.on_drawn(key, 1_000).unwrap();
        assert_eq!(look(&mut state, key, now).0, []);
        assert_eq!(state.on_drawn(key, u64::MAX).unwrap_err().code, refusal::MALFORMED);
        // Who has no credit has nothing to say about it.
        for other in [attach(), Attach { lossless: true, credit: true, ..attach() }] {
            let (key, attached) = state.attach(other, now).unwrap();
            assert!(!attached.credit);
            assert_eq!(state.on_drawn(key, 0).unwrap_err().code, refusal::MALFORMED);
            assert_eq!(state.on_history_wanted(key, 0, 1).unwrap_err().code, refusal::MALFORMED);
        }
    }

    #[tokio::test]
    async fn who_comes_back_with_credit_is_shown_the_present_at_once() {
        let (mut state, now) = (session(), Instant::now());
        state.on_output(&[b'x'; 6 << 20]);
        let back = |from| Attach { from: Some(from), credit: true, ..attach() };
        for from in [5, 5 << 20] {
            let (key, _) = state.attach(back(from), now).unwrap();
            let seen = look(&mut state, key, now).0;
            assert!(matches!(seen[..], [Seen::Gap(at, _), Seen::Frame(_, None, _)] if at == from), "{seen:?}");
        }
        let little = (6 << 20) - WINDOW;
        let (key, _) = state.attach(back(little), now).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(little, 80, false), Seen::Output(little, FULL)]);
        // What is from another session is not gone on from.
        let (key, _) = state.attach(back(7 << 20), now).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Snapshot(6 << 20)]);
    }

    #[tokio::test]
    async fn a_first_look_brings_a_screen_of_history_and_pages_bring_the_rest() {
        let (mut state, now) = (session(), Instant::now());
        (0..500).for_each(|n| state.on_output(format!("row {n}\r\n").as_bytes()));
        let (key, _) = state.attach(Attach { from: None, credit: true, ..attach() }, now).unwrap();
        assert!(matches!(look(&mut state, key, now).0[..], [Seen::Snapshot(_)]));
        assert_eq!(state.scene.screen.scrollback_total(), 477);
        for (before, rows) in [(453, 100), (353, 0), (u64::MAX, 1), (0, 9)] {
            state.on_history_wanted(key, before, rows).unwrap();
        }
        let refused = state.on_history_wanted(key, 9, 9).unwrap_err();
        assert_eq!(refused.code, refusal::TOO_MANY);
        let seen = look(&mut state, key, now).0;
        let firsts: Vec<_> = seen
            .iter()
            .map(|seen| if let Seen::History(first, 0, _) = seen { *first } else { panic!("{seen:?}") })
            .collect();
        assert_eq!(firsts, [353, 353, 476, 0]);
        // Their turn over, four more may be asked for.
        state.on_history_wanted(key, 9, 9).unwrap();
    }

    #[tokio::test]
    async fn a_first_snapshot_has_no_more_rows_than_a_screen() {
        let (mut state, now) = (session(), Instant::now());
        (0..500).for_each(|n| state.on_output(format!("row {n}\r\n").as_bytes()));
        let (key, _) = state.attach(Attach { from: None, credit: true, ..attach() }, now).unwrap();
        let mut out = BytesMut::new();
        state.fill(key, now, &mut out);
        let TerminalMessage::Snapshot { bytes, parts: 1, .. } = TerminalMessage::decode(&out[5..]).unwrap() else {
            panic!("no snapshot")
        };
        assert_eq!(Screen::restore(bytes, 1_000).unwrap().scrollback_len(), 24);
    }

    #[tokio::test]
    async fn while_nobody_hears_a_viewer_nothing_waits_for_it() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        // The program does not read, so the holder does not read from viewers either.
        state.on_input(key, 0, &vec![b'i'; MAX_PENDING]).unwrap();
        assert!(!state.has_input_room());
        for n in 0..3 {
            state.on_output(&[b'x'; FULL]);
            assert_eq!(look(&mut state, key, now).0, [Seen::Output(n * WINDOW, FULL)]);
        }
    }

    #[tokio::test]
    async fn the_end_comes_after_all_that_was_printed_for_who_draws_slowly_too() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        state.on_output(&[b'x'; FULL + 9]);
        state.on_reaped();
        state.on_exit(ExitRecord { state: SessionState::Exited { code: 0 }, offset: WINDOW + 9, at: 1 });
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, FULL)]);
        let seen = look(&mut state, key, now + FRAME_PAUSE).0;
        assert!(matches!(seen[..], [Seen::Gap(..), Seen::Frame(..)]), "{seen:?}");
        state.on_drawn(key, WINDOW + 9).unwrap();
        assert_eq!(look(&mut state, key, now + FRAME_PAUSE), (vec![Seen::Exited(WINDOW + 9)], Next::Wait));
    }

    #[tokio::test]
    async fn a_size_that_changes_between_frames_is_in_the_next_one() {
        let (mut state, now) = (session(), Instant::now());
        let key = drawer(&mut state, now);
        let id = state.viewers[&key].0.id;
        state.take_control(id, 80, 24).unwrap();
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, true)]);
        state.on_output(&[b'x'; 3 * FULL]);
        look(&mut state, key, now);
        let seen = look(&mut state, key, now + FRAME_PAUSE).0;
        let base = shown(&[], &seen[1]);
        // At the offset of the frame itself it is told; later it is part of the next.
        state.resize(id, 100, 24).unwrap();
        assert_eq!(look(&mut state, key, now + FRAME_PAUSE).0, [Seen::Resized(3 * WINDOW, 100, true)]);
        state.on_output(&[b'x'; 2 * FULL]);
        state.resize(id, 90, 24).unwrap();
        state.on_drawn(key, 3 * WINDOW).unwrap();
        let seen = look(&mut state, key, now + 2 * FRAME_PAUSE).0;
        assert_eq!(seen.len(), 1, "{seen:?}");
        let screen = Screen::restore(&shown(&base, &seen[0]), 0).unwrap();
        assert_eq!(screen.size(), (90, 24));
        state.on_drawn(key, 5 * WINDOW).unwrap();
        assert_eq!(look(&mut state, key, now + 3 * FRAME_PAUSE), (vec![], Next::Wait));
    }

    #[tokio::test]
    async fn a_history_of_somebody_elses_is_told_with_a_frame_to_who_asks_for_history() {
        let (mut state, now) = (session(), Instant::now());
        let (asks, other) = (drawer(&mut state, now), drawer(&mut state, now));
        state.on_history_wanted(asks, 0, 0).unwrap();
        assert!(state.asks_history());
        look(&mut state, asks, now);
        look(&mut state, other, now);
        let rows = |count| {
            let mut screen = Screen::new(80, 1, count);
            (0..count).for_each(|n| drop(screen.feed(format!("{n}\r\n").as_bytes())));
            let mut rows = OlderRows::default();
            screen.history_from(0).for_each(|row| rows.push(row).unwrap());
            vec![rows]
        };
        state.on_output(b"abc");
        state.on_other_history(false, rows(7));
        // First it draws what it was sent.
        assert_eq!(look(&mut state, asks, now), (vec![Seen::Output(0, 3)], Next::Wait));
        state.on_drawn(asks, 3).unwrap();
        let (seen, next) = look(&mut state, asks, now);
        assert!(matches!(seen[..], [Seen::Frame(3, None, _)]), "{seen:?}");
        assert_eq!(Screen::restore(&shown(&[], &seen[0]), 0).unwrap().scrollback_total(), 7);
        assert_eq!(next, Next::Wait);
        assert_eq!(look(&mut state, other, now).0, [Seen::Output(0, 3)]);
        // Anew: the old rows are gone, and numbers go on.
        state.on_drawn(asks, 3).unwrap();
        state.on_other_history(true, rows(2));
        let (seen, _) = look(&mut state, asks, now);
        assert!(matches!(seen[..], [Seen::Frame(3, ..)]), "{seen:?}");
        assert_eq!((state.scene.screen.scrollback_start(), state.scene.screen.scrollback_total()), (7, 9));
        state.on_output(b"d");
        state.on_drawn(asks, 3).unwrap();
        assert_eq!(look(&mut state, asks, now).0, [Seen::Output(3, 1)]);
    }

    #[tokio::test]
    async fn a_size_that_others_decide_is_followed_until_a_viewer_takes_it() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(attach(), now).unwrap();
        look(&mut state, key, now);
        state.on_outside(Some("tmux"));
        assert!(state.follow_size(Size::clamped(120, 40)));
        assert!(!state.follow_size(Size::clamped(120, 40)));
        assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 120, false)]);
        assert_eq!(state.status().controller.as_deref(), Some("tmux"));
        let (late, attached) = state.attach(Attach { take_control: true, ..attach() }, now).unwrap();
        assert!(!attached.you_control, "somebody decides already");
        let id = state.viewers[&late].0.id;
        state.take_control(id, 50, 20).unwrap();
        assert!(!state.follow_size(Size::clamped(120, 40)) && state.is_controlled());
        assert_eq!((state.status().cols, state.status().controller.as_deref()), (50, Some("desk")));
        state.detach(late);
        assert!(state.follow_size(Size::clamped(120, 40)));
        state.on_outside(None);
        assert_eq!(state.status().controller, None);
    }

    #[tokio::test]
    async fn who_has_ended_the_client_has_left_and_the_others_are_cut_off_without_fault() {
        let (mut state, now) = (session(), Instant::now());
        let (typist, _) = state.attach(attach(), now).unwrap();
        let (other, _) = state.attach(attach(), now).unwrap();
        state.on_input(typist, 0, b"\x02d").unwrap();
        state.on_output(b"[detached]");
        state.on_client_left();
        let seen = look(&mut state, typist, now).0;
        assert_eq!(seen, [Seen::Resized(0, 80, false), Seen::Output(0, 10), Seen::Exited(10)]);
        assert_eq!(state.take_end(other).unwrap_err().code, refusal::DETACHED);
        assert_eq!((state.viewer_count(), state.status().state), (1, SessionState::Running));
        assert_eq!(
            state.attach(attach(), now).map(drop).unwrap_err().code,
            refusal::CONFLICT,
            "nothing comes here any more"
        );
    }

    #[tokio::test]
    async fn the_end_comes_last_and_once() {
        let (mut state, now) = (session(), Instant::now());
        let (key, _) = state.attach(attach(), now).unwrap();
        state.on_output(b"last words");
        state.on_reaped();
        state.on_exit(ExitRecord { state: SessionState::Exited { code: 0 }, offset: 10, at: 1 });
        let wanted = [Seen::Resized(0, 80, false), Seen::Output(0, 10), Seen::Exited(10)];
        assert_eq!(look(&mut state, key, now), (wanted.into(), Next::Wait));
        assert_eq!(look(&mut state, key, now), (vec![], Next::Wait));
        // Typing into what has ended is no fault, and changes nothing.
        state.on_input(key, 0, b"x").unwrap();
        assert!(state.pending_input().is_empty());
    }
}
