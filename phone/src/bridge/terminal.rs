//! A session on the screen: attaches, and attaches again whenever a new link comes up, at the exact byte.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_rpc::{
    Attached, Call, CallError, ErrorCode, SessionAttach, SessionGiveControl, SessionTakeControl, TerminalResize,
};
use happy_screen::MouseTracking;
use happy_screen::keys::{self, Key};
use happy_screen::mouse::{self, MouseEvent};
use happy_screen::predict::{Overlay, Predictor};
use happy_wire::Code;
use happy_wire::terminal::{Exit, MAX_CHUNK, TerminalMessage};
use js_sys::{Function, Promise};
use uuid::Uuid;
use wasm_bindgen::prelude::wasm_bindgen;

use super::clock::{self, Timer};
use super::hub::{Hub, Reply};
use super::way::{Socket, Way, Wire};
use crate::drawn::DrawnRow;
use crate::viewer::{SCROLLBACK, Viewer};

/// Between two attempts to attach over a link that is up.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// What was drawn since the machine was last told is told after so long, together with what comes meanwhile: a key's echo is not worth a message.
const TELL_AFTER: Duration = Duration::from_millis(100);
/// After so many attempts in a row without a byte the person is told.
const MAX_FAILURES: u32 = 5;

/// How far the attachment has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no link, or a moment ago it did not work.
    Waiting,
    /// The machine was asked.
    Asked { channel: u32 },
    /// Bytes pass.
    On { channel: u32, attachment: Uuid },
    /// The person left, or the machine said no for good.
    Over,
}

impl Stage {
    fn channel(self) -> Option<u32> {
        match self {
            Stage::Asked { channel } | Stage::On { channel, .. } => Some(channel),
            Stage::Waiting | Stage::Over => None,
        }
    }
}

struct Inner {
    viewer: Viewer,
    /// What is typed and not echoed yet.
    predictor: Predictor,
    stage: Stage,
    /// Names this viewer's input; a new one when the machine has lost count.
    writer: Uuid,
    linked: bool,
    size: (u16, u16),
    /// To decide the size is asked for with the next attachment.
    wants_control: bool,
    failures: u32,
    problem: Option<String>,
    /// The timer runs that tells what was drawn.
    telling: bool,
    /// The row that was asked for last: JavaScript asks for its parts one after the other.
    row: Option<(RowId, Rc<DrawnRow>)>,
}

impl Inner {
    /// Guesses what the program will make of input that was just taken.
    fn guess(&mut self, bytes: &[u8]) {
        if let Some(screen) = self.viewer.screen() {
            self.predictor.on_input(clock::now(), self.viewer.input.end(), bytes, screen);
        }
    }

    /// The machine may have said that more input than this has reached the program.
    fn note_taken(&mut self, before: u64) {
        let taken = self.viewer.input.taken_before();
        if taken > before {
            self.predictor.on_taken(clock::now(), taken);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RowId {
    Screen(u16),
    History(u64),
}

/// What the hub and its connections know of a terminal.
pub struct Live {
    this: Weak<Live>,
    way: Way,
    session: Uuid,
    name: String,
    changed: Function,
    inner: RefCell<Inner>,
    retry: Timer,
    tell: Timer,
    /// When guesses have to be held against the screen again.
    look: Timer,
}

impl Live {
    pub fn way(&self) -> &Way {
        &self.way
    }

    fn tell_changed(&self) {
        self.changed.call0(&wasm_bindgen::JsValue::UNDEFINED).ok();
    }

    fn stage(&self) -> Stage {
        self.inner.borrow().stage
    }

    pub fn on_link_up(&self, resumed: bool) {
        self.inner.borrow_mut().linked = true;
        if !resumed || self.stage() == Stage::Waiting {
            self.attach();
        }
        self.tell_changed();
    }

    pub fn on_link_down(&self) {
        self.inner.borrow_mut().linked = false;
        self.tell_changed();
    }

    /// The connection itself is gone, and its channels with it.
    pub fn on_link_ended(&self) {
        let mut inner = self.inner.borrow_mut();
        inner.linked = false;
        if inner.stage != Stage::Over {
            inner.stage = Stage::Waiting;
        }
        drop(inner);
        self.tell_changed();
    }

    pub fn on_closed(&self, channel: u32, reason: &str) {
        if self.stage().channel() != Some(channel) {
            return;
        }
        self.inner.borrow_mut().stage = Stage::Waiting;
        // Either a new link follows, or the machine has closed this channel only.
        self.try_later(reason);
        self.tell_changed();
    }

    pub fn on_writable(&self, channel: u32) {
        if matches!(self.stage(), Stage::On { channel: ours, .. } if ours == channel) {
            self.send_input();
            self.send_drawn(false);
            self.tell_changed();
        }
    }

    pub fn on_message(&self, channel: u32, message: &[u8]) {
        if self.stage().channel() != Some(channel) {
            return;
        }
        let mut inner = self.inner.borrow_mut();
        inner.row = None;
        let taken = inner.viewer.input.taken_before();
        match inner.viewer.handle(message) {
            Ok(()) => {
                inner.failures = 0;
                inner.note_taken(taken);
                drop(inner);
                self.look();
                self.send_drawn(false);
                self.ask(Viewer::want_start);
            }
            Err(error) => {
                inner.viewer.begin_anew();
                inner.predictor.reset();
                inner.stage = Stage::Waiting;
                drop(inner);
                self.way.close(channel, Code::MALFORMED, "the message does not fit");
                self.try_later(&error.to_string());
            }
        }
        self.tell_changed();
    }

    /// Tells the machine what was drawn, or soon. `all`: nothing more has come for a moment.
    fn send_drawn(&self, all: bool) {
        let due = self.inner.borrow().viewer.due(all);
        if let Some(offset) = due {
            if self.send(&TerminalMessage::Drawn { offset }.to_vec()) {
                self.inner.borrow_mut().viewer.told(offset);
            }
            return;
        }
        let mut inner = self.inner.borrow_mut();
        if inner.viewer.due(true).is_some() && !inner.telling {
            inner.telling = true;
            self.tell.set(Some(clock::now() + TELL_AFTER));
        }
    }

    fn on_tell(&self) {
        self.inner.borrow_mut().telling = false;
        self.send_drawn(true);
    }

    /// Sends what the viewer asks for, if it asks for something.
    fn ask(&self, what: impl FnOnce(&mut Viewer) -> Option<Vec<u8>>) {
        if !matches!(self.stage(), Stage::On { .. }) {
            return;
        }
        let message = what(&mut self.inner.borrow_mut().viewer);
        if message.is_some_and(|message| !self.send(&message)) {
            self.inner.borrow_mut().viewer.unask();
        }
    }

    /// Whether the link took the message; if not, `on_writable` or `on_closed` goes on from here.
    fn send(&self, message: &[u8]) -> bool {
        let Stage::On { channel, .. } = self.stage() else { return false };
        self.way.send(channel, message)
    }

    fn try_later(&self, why: &str) {
        let mut inner = self.inner.borrow_mut();
        if inner.stage != Stage::Waiting || inner.viewer.exit().is_some() {
            return;
        }
        inner.failures += 1;
        if inner.failures >= MAX_FAILURES {
            inner.stage = Stage::Over;
            inner.problem = Some(if why.is_empty() {
                "The machine closes this view again and again.".to_owned()
            } else {
                why.to_owned()
            });
        } else {
            self.retry.set(Some(clock::now() + RETRY_AFTER));
        }
    }

    fn on_retry(&self) {
        let due = self.stage() == Stage::Waiting && self.inner.borrow().linked;
        if due {
            self.attach();
        }
    }

    fn attach(&self) {
        if self.stage() == Stage::Over {
            return;
        }
        if let Some(channel) = self.stage().channel() {
            self.way.close(channel, Code::GOODBYE, "");
        }
        let channel = match self.way.open() {
            Some(Ok(channel)) => channel,
            None => return,
            Some(Err(error)) => {
                self.inner.borrow_mut().stage = Stage::Waiting;
                // Without a link one will come up; other reasons deserve another try.
                if self.way.is_up() {
                    self.try_later(&error);
                }
                return;
            }
        };
        let call = {
            let mut inner = self.inner.borrow_mut();
            inner.stage = Stage::Asked { channel };
            SessionAttach {
                session: self.session,
                channel,
                writer: inner.writer,
                name: self.name.clone(),
                from: inner.viewer.next(),
                scrollback: u32::try_from(SCROLLBACK).unwrap_or(u32::MAX),
                lossless: false,
                credit: true,
                cols: inner.size.0,
                rows: inner.size.1,
                take_control: inner.wants_control || inner.viewer.you_control(),
            }
        };
        self.way.call(call.to_body(), Reply::Attached(self.this.clone(), channel));
    }

    /// The answer to attaching. `answered`: it is the machine's own.
    pub fn on_attached(&self, channel: u32, answered: bool, body: &[u8]) {
        if self.stage() != (Stage::Asked { channel }) {
            return;
        }
        match SessionAttach::read_answer(body) {
            Ok(attached) => self.on_attachment(channel, &attached),
            Err(error) => self.on_refusal(channel, answered, &error),
        }
        self.tell_changed();
    }

    fn on_attachment(&self, channel: u32, attached: &Attached) {
        let mut inner = self.inner.borrow_mut();
        inner.viewer.attached(attached.you_control, attached.session.controller.as_deref(), attached.credit);
        let taken = inner.viewer.input.taken_before();
        let resumed = inner.viewer.input.resume(attached.input_offset);
        inner.note_taken(taken);
        if let Err(out_of_step) = resumed {
            inner.predictor = Predictor::default();
            // The machine counts this writer's input otherwise. Under a new name both begin at zero.
            inner.writer = Uuid::new_v4();
            // Nothing was typed yet, and still it counts otherwise: another name would not help.
            let hopeless = taken == 0;
            if hopeless {
                inner.stage = Stage::Waiting;
            }
            drop(inner);
            if out_of_step.unknown > 0 {
                self.way.notice(format!(
                    "Of the last {} bytes typed nobody can say whether they arrived. Please look.",
                    out_of_step.unknown
                ));
            }
            if hopeless {
                self.way.close(channel, Code::GOODBYE, "");
                return self.try_later("The machine counts what was typed otherwise than this device.");
            }
            return self.attach();
        }
        inner.stage = Stage::On { channel, attachment: attached.attachment };
        inner.wants_control = false;
        drop(inner);
        self.send_input();
        self.ask(Viewer::want_start);
    }

    fn on_refusal(&self, channel: u32, answered: bool, error: &CallError) {
        let last = answered
            && error.code != ErrorCode::Failed
            && error.code != ErrorCode::TooMany
            && error.code != ErrorCode::Malformed;
        let mut inner = self.inner.borrow_mut();
        inner.stage = if last { Stage::Over } else { Stage::Waiting };
        if last {
            inner.problem = Some(error.message.clone());
        }
        drop(inner);
        self.way.close(channel, Code::GOODBYE, "");
        self.try_later(&error.message);
    }

    /// Queues input and sends what the link takes. False when too much waits already.
    fn type_bytes(&self, bytes: &[u8]) -> bool {
        let mut inner = self.inner.borrow_mut();
        let taken = inner.stage != Stage::Over && inner.viewer.exit().is_none() && inner.viewer.input.push(bytes);
        if taken {
            inner.guess(bytes);
        }
        drop(inner);
        if taken {
            self.look();
            self.send_input();
            self.tell_changed();
        }
        taken
    }

    /// Holds what was guessed against the screen, now and when it is time again.
    fn look(&self) {
        let mut inner = self.inner.borrow_mut();
        let Inner { viewer, predictor, .. } = &mut *inner;
        if let Some(screen) = viewer.screen() {
            predictor.look(clock::now(), screen);
        }
        self.look.set(predictor.next_look());
    }

    fn send_input(&self) {
        let Stage::On { channel, .. } = self.stage() else { return };
        loop {
            let next = self.inner.borrow().viewer.input.next(MAX_CHUNK);
            let Some((offset, bytes)) = next else { return };
            let message = TerminalMessage::Input { offset, bytes: &bytes }.to_vec();
            if !self.way.send(channel, &message) {
                // `on_writable` or `on_closed` goes on from here.
                return;
            }
            self.inner.borrow_mut().viewer.input.handed_over(bytes.len());
        }
    }

    /// Makes a call about the attachment; the promise gets nothing, or the reason why not.
    fn ask_done(&self, call: impl Fn(Uuid) -> Vec<u8>) -> Promise {
        Promise::new(&mut |resolve, reject| {
            let Stage::On { attachment, .. } = self.stage() else {
                return super::call_js(&reject, &js_sys::Error::new("the session is not open now"));
            };
            if !self.way.call(call(attachment), Reply::Done(resolve, reject.clone())) {
                super::call_js(&reject, &js_sys::Error::new("there is no connection to this machine"));
            }
        })
    }

    fn close(&self) {
        let stage = std::mem::replace(&mut self.inner.borrow_mut().stage, Stage::Over);
        self.retry.set(None);
        self.tell.set(None);
        self.look.set(None);
        if let Stage::On { attachment, .. } = stage {
            self.way.detach(attachment);
        }
        if let Some(channel) = stage.channel() {
            self.way.close(channel, Code::GOODBYE, "");
        }
    }
}

/// Who looks, and through how large a window.
pub struct ViewerConfig {
    /// For the others.
    pub name: String,
    /// Columns and rows that there is room for.
    pub size: (u16, u16),
    /// Decide the size from the start.
    pub control: bool,
}

/// A session for JavaScript to draw. `Terminal` in `app/core.ts` says what each part means.
#[wasm_bindgen]
pub struct Terminal {
    live: Rc<Live>,
}

impl Terminal {
    pub fn open(hub: &Rc<Hub>, device: DeviceId, session: Uuid, viewer: ViewerConfig, changed: Function) -> Self {
        let terminal = Self::over(Way::Link(Rc::downgrade(hub), device), session, viewer, changed);
        hub.add_terminal(&terminal.live);
        terminal.begin();
        terminal
    }

    fn over(way: Way, session: Uuid, viewer: ViewerConfig, changed: Function) -> Self {
        let ViewerConfig { name, size, control } = viewer;
        let linked = way.is_up();
        let live = Rc::new_cyclic(|this: &Weak<Live>| {
            let (retrying, telling, looking) = (this.clone(), this.clone(), this.clone());
            Live {
                this: this.clone(),
                way,
                session,
                name,
                changed,
                inner: RefCell::new(Inner {
                    viewer: Viewer::default(),
                    predictor: Predictor::default(),
                    stage: Stage::Waiting,
                    writer: Uuid::new_v4(),
                    linked,
                    size,
                    wants_control: control,
                    failures: 0,
                    problem: None,
                    telling: false,
                    row: None,
                }),
                tell: Timer::new(move || {
                    if let Some(live) = telling.upgrade() {
                        live.on_tell();
                    }
                }),
                look: Timer::new(move || {
                    if let Some(live) = looking.upgrade() {
                        live.look();
                        live.tell_changed();
                    }
                }),
                retry: Timer::new(move || {
                    if let Some(live) = retrying.upgrade() {
                        live.on_retry();
                    }
                }),
            }
        });
        Self { live }
    }

    fn begin(&self) {
        if self.read(|inner| inner.linked) {
            self.live.attach();
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Inner) -> T) -> T {
        read(&self.live.inner.borrow())
    }

    fn screen<T: Default>(&self, read: impl FnOnce(&happy_screen::Screen) -> T) -> T {
        self.live.inner.borrow().viewer.screen().map(read).unwrap_or_default()
    }

    fn row(&self, id: RowId) -> Rc<DrawnRow> {
        let mut inner = self.live.inner.borrow_mut();
        if let Some((_, row)) = inner.row.as_ref().filter(|(known, _)| *known == id) {
            return row.clone();
        }
        let row = match id {
            RowId::Screen(row) => inner.viewer.screen().map(|screen| screen.row(row)),
            RowId::History(row) => inner.viewer.history_row(row),
        };
        let drawn = Rc::new(row.map(|row| DrawnRow::from(&row)).unwrap_or_default());
        inner.row = Some((id, drawn.clone()));
        drawn
    }
}

#[wasm_bindgen]
impl Terminal {
    #[wasm_bindgen(getter)]
    pub fn ready(&self) -> bool {
        self.read(|inner| inner.viewer.screen().is_some())
    }

    #[wasm_bindgen(getter)]
    pub fn attached(&self) -> bool {
        self.read(|inner| inner.linked && matches!(inner.stage, Stage::On { .. }))
    }

    #[wasm_bindgen(getter)]
    pub fn problem(&self) -> Option<String> {
        self.read(|inner| inner.problem.clone())
    }

    #[wasm_bindgen(getter)]
    pub fn cols(&self) -> u16 {
        self.screen(|screen| screen.size().0)
    }

    #[wasm_bindgen(getter)]
    pub fn rows(&self) -> u16 {
        self.screen(|screen| screen.size().1)
    }

    #[wasm_bindgen(getter)]
    pub fn title(&self) -> String {
        self.screen(|screen| screen.title().to_owned())
    }

    #[wasm_bindgen(getter)]
    pub fn bells(&self) -> u32 {
        self.read(|inner| inner.viewer.bells())
    }

    #[wasm_bindgen(getter, js_name = cursorColumn)]
    pub fn cursor_column(&self) -> u16 {
        self.screen(|screen| screen.cursor().col)
    }

    #[wasm_bindgen(getter, js_name = cursorRow)]
    pub fn cursor_row(&self) -> u16 {
        self.screen(|screen| screen.cursor().row)
    }

    #[wasm_bindgen(getter, js_name = cursorVisible)]
    pub fn cursor_visible(&self) -> bool {
        self.screen(|screen| screen.cursor().visible)
    }

    /// The program is in the middle of an update that it wants shown as a whole.
    #[wasm_bindgen(getter)]
    pub fn updating(&self) -> bool {
        self.screen(|screen| screen.modes().synchronized)
    }

    /// The viewer's own foreground and background change places.
    #[wasm_bindgen(getter)]
    pub fn reversed(&self) -> bool {
        self.screen(|screen| screen.modes().reversed)
    }

    #[wasm_bindgen(getter)]
    pub fn generation(&self) -> u32 {
        self.read(|inner| inner.viewer.generation())
    }

    #[wasm_bindgen(getter, js_name = historyStart)]
    pub fn history_start(&self) -> f64 {
        self.read(|inner| inner.viewer.history_start() as f64)
    }

    #[wasm_bindgen(js_name = historyHere)]
    pub fn history_here(&self, row: f64) -> f64 {
        self.read(|inner| inner.viewer.history_here(row as u64) as f64)
    }

    #[wasm_bindgen(getter, js_name = historyLoaded)]
    pub fn history_loaded(&self) -> u32 {
        self.read(|inner| inner.viewer.loaded())
    }

    #[wasm_bindgen(js_name = wantHistory)]
    pub fn want_history(&self, before: f64, rows: u16) {
        self.live.ask(|viewer| viewer.want_history(before as u64, rows));
    }

    #[wasm_bindgen(getter, js_name = historyEnd)]
    pub fn history_end(&self) -> f64 {
        self.screen(|screen| screen.scrollback_total() as f64)
    }

    #[wasm_bindgen(getter, js_name = youControl)]
    pub fn you_control(&self) -> bool {
        self.read(|inner| inner.viewer.you_control())
    }

    #[wasm_bindgen(getter)]
    pub fn controller(&self) -> String {
        self.read(|inner| inner.viewer.controller().to_owned())
    }

    #[wasm_bindgen(getter)]
    pub fn ended(&self) -> Option<String> {
        self.read(|inner| {
            inner.viewer.exit().map(|exit| match exit {
                Exit::Code(0) => "The program has ended.".to_owned(),
                Exit::Code(code) => format!("The program has ended with code {code}."),
                Exit::Signal(signal) => format!("Signal {signal} has ended the program."),
                Exit::Unknown => "The program is gone; how it ended is not known.".to_owned(),
            })
        })
    }

    #[wasm_bindgen(getter, js_name = unconfirmedInput)]
    pub fn unconfirmed_input(&self) -> usize {
        self.read(|inner| inner.viewer.input.untaken())
    }

    /// What the program has set and the page must know: bits of `Mode` in `app/core.ts`.
    #[wasm_bindgen(getter)]
    pub fn modes(&self) -> u32 {
        self.screen(|screen| {
            let modes = screen.modes();
            let mouse = modes.mouse != MouseTracking::Off;
            u32::from(modes.alternate_screen) | u32::from(mouse) << 1 | u32::from(modes.bracketed_paste) << 2
        })
    }

    /// What stands for the echo that has not come: 1 if it shall be marked, row and column of the cursor (none when there is no guess about it: the
    /// number of rows), and for each cell its row, its column and its character.
    pub fn guesses(&self) -> Vec<u32> {
        let Overlay { cells, cursor, marked } =
            self.read(|inner| inner.viewer.screen().map(|screen| inner.predictor.overlay(screen)).unwrap_or_default());
        if cells.is_empty() && cursor.is_none() {
            return Vec::new();
        }
        let (row, col) = cursor.unwrap_or((self.rows(), 0));
        let mut numbers = vec![u32::from(marked), u32::from(row), u32::from(col)];
        numbers
            .extend(cells.into_iter().flat_map(|(row, col, text)| [u32::from(row), u32::from(col), u32::from(text)]));
        numbers
    }

    /// How many rows have moved from the top of the screen to the history, then the rows of the screen to draw anew.
    #[wasm_bindgen(js_name = takeChanges)]
    pub fn take_changes(&self) -> Vec<u32> {
        let mut inner = self.live.inner.borrow_mut();
        inner.row = None;
        let changes = inner.viewer.screen_mut().map(happy_screen::Screen::take_changes).unwrap_or_default();
        let mut numbers = vec![u32::try_from(changes.scrolled_off).unwrap_or(u32::MAX)];
        numbers.extend(changes.rows.iter().copied().map(u32::from));
        numbers
    }

    #[wasm_bindgen(js_name = rowText)]
    pub fn row_text(&self, row: u16) -> String {
        self.row(RowId::Screen(row)).text.clone()
    }

    #[wasm_bindgen(js_name = rowRuns)]
    pub fn row_runs(&self, row: u16) -> Vec<u32> {
        self.row(RowId::Screen(row)).runs.clone()
    }

    #[wasm_bindgen(js_name = rowWrapped)]
    pub fn row_wrapped(&self, row: u16) -> bool {
        self.row(RowId::Screen(row)).wrapped
    }

    /// Addresses that the runs of a row name by number, from 1.
    #[wasm_bindgen(js_name = rowLinks)]
    pub fn row_links(&self, row: u16) -> Vec<String> {
        self.row(RowId::Screen(row)).links.clone()
    }

    #[wasm_bindgen(js_name = historyLinks)]
    pub fn history_links(&self, row: f64) -> Vec<String> {
        self.row(RowId::History(row as u64)).links.clone()
    }

    #[wasm_bindgen(js_name = historyText)]
    pub fn history_text(&self, row: f64) -> String {
        self.row(RowId::History(row as u64)).text.clone()
    }

    #[wasm_bindgen(js_name = historyRuns)]
    pub fn history_runs(&self, row: f64) -> Vec<u32> {
        self.row(RowId::History(row as u64)).runs.clone()
    }

    #[wasm_bindgen(js_name = historyWrapped)]
    pub fn history_wrapped(&self, row: f64) -> bool {
        self.row(RowId::History(row as u64)).wrapped
    }

    pub fn key(&self, name: &str, ctrl: bool, alt: bool, shift: bool) -> bool {
        let Some(code) = crate::keys::by_name(name) else { return false };
        let bytes = self.screen(|screen| keys::encode(screen.modes(), Key { code, ctrl, alt, shift }));
        !bytes.is_empty() && self.live.type_bytes(&bytes)
    }

    pub fn text(&self, text: &str) -> bool {
        let bytes = self.screen(|screen| {
            text.chars().flat_map(|ch| keys::encode(screen.modes(), Key::from(ch))).collect::<Vec<u8>>()
        });
        !bytes.is_empty() && self.live.type_bytes(&bytes)
    }

    pub fn paste(&self, text: &str) -> bool {
        let bytes = self.screen(|screen| keys::paste(screen.modes(), text));
        !bytes.is_empty() && self.live.type_bytes(&bytes)
    }

    /// Something that a finger does at a cell, by the numbers of `Mouse` in `app/core.ts`; false when the program does not want to know.
    pub fn mouse(&self, event: u8, col: u16, row: u16) -> bool {
        let event = match event {
            0 => MouseEvent::Press,
            1 => MouseEvent::Release,
            2 => MouseEvent::WheelUp,
            _ => MouseEvent::WheelDown,
        };
        let bytes = self.screen(|screen| mouse::encode(screen.modes(), event, col, row));
        !bytes.is_empty() && self.live.type_bytes(&bytes)
    }

    /// Takes back what was typed or pasted and has not left.
    #[wasm_bindgen(js_name = takeBackInput)]
    pub fn take_back_input(&self) {
        let mut inner = self.live.inner.borrow_mut();
        inner.viewer.input.take_back();
        inner.predictor.reset();
        drop(inner);
        self.live.send_input();
        self.live.tell_changed();
    }

    #[wasm_bindgen(js_name = giveControl)]
    pub fn give_control(&self) -> Promise {
        let live = &self.live;
        live.inner.borrow_mut().wants_control = false;
        live.ask_done(|attachment| SessionGiveControl { attachment }.to_body())
    }

    #[wasm_bindgen(js_name = takeControl)]
    pub fn take_control(&self, cols: u16, rows: u16) -> Promise {
        let live = &self.live;
        live.inner.borrow_mut().size = (cols, rows);
        live.ask_done(|attachment| SessionTakeControl { attachment, cols, rows }.to_body())
    }

    pub fn resize(&self, cols: u16, rows: u16) {
        let live = &self.live;
        live.inner.borrow_mut().size = (cols, rows);
        if let Stage::On { attachment, .. } = live.stage() {
            live.way.call(TerminalResize { attachment, cols, rows }.to_body(), Reply::Nobody);
        }
    }

    pub fn close(&self) {
        self.live.close();
    }
}

/// A terminal of the machine that serves this page. TypeScript hands over what comes on its websockets, each by its number.
#[wasm_bindgen]
impl Terminal {
    #[wasm_bindgen(js_name = overSocket)]
    pub fn over_socket(
        session: &str,
        name: String,
        cols: u16,
        rows: u16,
        control: bool,
        changed: Function,
        wire: Wire,
    ) -> Result<Terminal, js_sys::Error> {
        let session = session.parse().map_err(|_| js_sys::Error::new("that is not the id of a session"))?;
        let viewer = ViewerConfig { name, size: (cols, rows), control };
        Ok(Self::over(Way::Socket(Socket::new(wire)), session, viewer, changed))
    }

    /// Attaches. Not before `overSocket` has given the terminal to whoever hands over what comes.
    #[wasm_bindgen(js_name = socketBegin)]
    pub fn socket_begin(&self) {
        self.begin();
    }

    /// A text: what was attached to, then answers.
    #[wasm_bindgen(js_name = socketText)]
    pub fn socket_text(&self, channel: u32, text: &str) {
        match self.live.stage() {
            Stage::Asked { channel: asked } if asked == channel => {
                self.live.on_attached(channel, true, format!("{{\"ok\":{text}}}").as_bytes());
            }
            Stage::On { channel: ours, .. } if ours == channel => {
                if let Some(socket) = self.live.way.socket() {
                    socket.on_answer(text);
                }
            }
            // Of a websocket that was given up.
            _ => {}
        }
    }

    /// A message of PROTOCOL 10.1.
    #[wasm_bindgen(js_name = socketMessage)]
    pub fn socket_message(&self, channel: u32, message: &[u8]) {
        self.live.on_message(channel, message);
    }

    /// The websocket takes more.
    #[wasm_bindgen(js_name = socketWritable)]
    pub fn socket_writable(&self, channel: u32) {
        self.live.on_writable(channel);
    }

    /// The session was not attached to, with the body of the refusal.
    #[wasm_bindgen(js_name = socketRefused)]
    pub fn socket_refused(&self, channel: u32, body: &str) {
        self.live.on_attached(channel, true, body.as_bytes());
    }

    /// The websocket has ended.
    #[wasm_bindgen(js_name = socketClosed)]
    pub fn socket_closed(&self, channel: u32, reason: &str) {
        self.live.on_closed(channel, reason);
    }
}
