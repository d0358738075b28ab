//! Follows one session: messages of its terminal channel go in, a screen comes out (PROTOCOL 10.1).
//!
//! Output is numbered from the first byte that the program ever printed. A viewer that was away asks to go on from
//! [`Viewer::next`]; what comes twice is trimmed, and what is missing is an error, never a silent hole.
//!
//! Rows of history are numbered too. Those that left the screen here are here; those that a frame jumped over, or that were there before
//! this viewer came, are asked for when somebody wants to see them.

use happy_screen::{FrameError, FramePart, Frames, Pages, Row, Screen, SnapshotError};
use happy_wire::WireError;
use happy_wire::terminal::{DRAWN_EVERY, Exit, MAX_SNAPSHOT, TerminalMessage};

use crate::input::Input;

/// Rows of history that the screen keeps as they leave it: as many as stay in the page.
pub const SCROLLBACK: usize = 5_000;

/// The machine said something that cannot be. The view has to begin anew, from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// A message that cannot be read.
    #[error("the machine sent a message that cannot be read: {0}")]
    Message(#[from] WireError),
    /// A snapshot that cannot be read.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// Parts of a snapshot that do not belong together, or more of them than there may be.
    #[error("the machine sent a snapshot whose parts do not fit together")]
    Parts,
    /// A frame that cannot be shown.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Output is missing.
    #[error("the machine left out output without saying so")]
    Hole,
    /// A message that only a viewer sends.
    #[error("the machine sent what only a viewer sends")]
    Direction,
}

/// Parts of a snapshot that have come so far.
struct Assembly {
    offset: u64,
    parts: u16,
    next: u16,
    bytes: Vec<u8>,
}

/// A session as this viewer sees it.
#[derive(Default)]
pub struct Viewer {
    screen: Option<Screen>,
    /// The offset of the first output byte that is not on the screen.
    next: u64,
    assembly: Option<Assembly>,
    frames: Frames,
    pages: Pages,
    /// The machine has granted credit: it is told what is drawn, and asked for history.
    credit: bool,
    /// The oldest row of history that the machine has, once it has said so.
    kept_from: Option<u64>,
    /// Pages that were asked for and have not come.
    asked: u32,
    /// Pages that have come.
    loaded: u32,
    /// What the machine was told is drawn; and whether it waits to be told more.
    told: u64,
    owes_drawn: bool,
    generation: u32,
    bells: u32,
    you_control: bool,
    controller: String,
    exit: Option<Exit>,
    /// What was typed.
    pub input: Input,
}

impl Viewer {
    /// The screen, once there is one.
    pub fn screen(&self) -> Option<&Screen> {
        self.screen.as_ref()
    }

    /// The screen, to take its changes.
    pub fn screen_mut(&mut self) -> Option<&mut Screen> {
        self.screen.as_mut()
    }

    /// Where to go on from when attaching again; nothing before the first snapshot.
    pub fn next(&self) -> Option<u64> {
        self.screen.as_ref().map(|_| self.next)
    }

    /// Increases whenever everything that was drawn is void.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How often the bell has rung.
    pub fn bells(&self) -> u32 {
        self.bells
    }

    /// Whether this viewer decides the size.
    pub fn you_control(&self) -> bool {
        self.you_control
    }

    /// Who decides the size, by name; empty when nobody does.
    pub fn controller(&self) -> &str {
        &self.controller
    }

    /// How the program ended.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// The oldest row of history that there is, here or at the machine.
    pub fn history_start(&self) -> u64 {
        let here = self.screen.as_ref().map_or(0, Screen::scrollback_start);
        self.kept_from.map_or(here, |kept_from| kept_from.min(here))
    }

    /// The first row of history from this number on that is here; the number after the last one if none is.
    pub fn history_here(&self, number: u64) -> u64 {
        let Some(screen) = &self.screen else { return 0 };
        let live = number.clamp(screen.scrollback_start(), screen.scrollback_total());
        self.pages.next(number).map_or(live, |paged| paged.min(live))
    }

    /// A row of history, if it is here.
    pub fn history_row(&self, number: u64) -> Option<Row> {
        let screen = self.screen.as_ref()?;
        let live = number.checked_sub(screen.scrollback_start()).and_then(|index| usize::try_from(index).ok());
        live.and_then(|index| screen.scrollback_row(index)).or_else(|| self.pages.row(number))
    }

    /// Increases with each page of history that comes.
    pub fn loaded(&self) -> u32 {
        self.loaded
    }

    /// A message that asks for the rows below a number, for somebody who looks there; none while another page is on its way, or when the machine
    /// cannot be asked.
    pub fn want_history(&mut self, before: u64, rows: u16) -> Option<Vec<u8>> {
        if !self.credit || self.asked > 0 || self.screen.is_none() {
            return None;
        }
        self.asked += 1;
        self.pages.look_at(before);
        Some(TerminalMessage::HistoryWanted { before, rows }.to_vec())
    }

    /// A message that asks how far back the history goes, when that is not known.
    pub fn want_start(&mut self) -> Option<Vec<u8>> {
        let start = self.screen.as_ref()?.scrollback_start();
        // No row is asked for.
        self.kept_from.is_none().then(|| self.want_history(start, 0)).flatten()
    }

    /// What was asked last could not be sent.
    pub fn unask(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// The offset to tell the machine as drawn, if it is to be told now; when `all` has been parsed that came, every byte counts.
    pub fn due(&self, all: bool) -> Option<u64> {
        let fresh = self.next.saturating_sub(self.told);
        let is_due = self.owes_drawn || fresh >= DRAWN_EVERY || (all && fresh > 0);
        (self.credit && self.screen.is_some() && is_due).then_some(self.next)
    }

    /// The machine was told.
    pub fn told(&mut self, offset: u64) {
        (self.told, self.owes_drawn) = (offset, false);
    }

    /// The machine's answer to attaching says who decides the size, and whether it wants to be told what is drawn.
    pub fn attached(&mut self, you_control: bool, controller: Option<&str>, credit: bool) {
        self.assembly = None;
        self.frames.clear();
        (self.credit, self.asked, self.told, self.owes_drawn) = (credit, 0, self.next, false);
        self.you_control = you_control;
        self.controller = controller.unwrap_or_default().to_owned();
    }

    /// Gives up what is shown, so that attaching again asks for a snapshot.
    pub fn begin_anew(&mut self) {
        self.screen = None;
        self.assembly = None;
        self.forget_history();
        self.next = 0;
        self.generation += 1;
    }

    /// Takes a message of the channel.
    ///
    /// # Errors
    /// [`ViewError`]. Attach again after [`Self::begin_anew`].
    pub fn handle(&mut self, message: &[u8]) -> Result<(), ViewError> {
        match TerminalMessage::decode(message)? {
            TerminalMessage::Snapshot { offset, part, parts, bytes, .. } => self.on_part(offset, part, parts, bytes)?,
            TerminalMessage::Output { offset, bytes } => self.on_output(offset, bytes)?,
            // What follows replaces the screen; until it has come, what is shown stays.
            TerminalMessage::Gap { .. } => self.assembly = None,
            TerminalMessage::Frame { offset, base, kept_from, part, parts, bytes } => {
                self.on_frame(FramePart { offset, base, part, parts, bytes }, kept_from)?;
            }
            TerminalMessage::History { first, kept_from, bytes } => self.on_history(first, kept_from, bytes)?,
            TerminalMessage::Resized { cols, rows, you_control, controller, .. } => {
                self.you_control = you_control;
                self.controller = controller.to_owned();
                if let Some(screen) = &mut self.screen {
                    screen.resize(cols, rows);
                }
            }
            TerminalMessage::Exited { exit, .. } => self.exit = Some(exit),
            TerminalMessage::InputTaken { offset } => self.input.taken(offset),
            TerminalMessage::Input { .. } | TerminalMessage::Drawn { .. } | TerminalMessage::HistoryWanted { .. } => {
                return Err(ViewError::Direction);
            }
        }
        Ok(())
    }

    fn on_part(&mut self, offset: u64, part: u16, parts: u16, bytes: &[u8]) -> Result<(), ViewError> {
        let mut assembly = match self.assembly.take() {
            _ if part == 0 => Assembly { offset, parts, next: 0, bytes: Vec::new() },
            Some(assembly) if (assembly.offset, assembly.parts, assembly.next) == (offset, parts, part) => assembly,
            _ => return Err(ViewError::Parts),
        };
        if assembly.bytes.len() + bytes.len() > MAX_SNAPSHOT {
            return Err(ViewError::Parts);
        }
        assembly.bytes.extend_from_slice(bytes);
        assembly.next += 1;
        if assembly.next < parts {
            self.assembly = Some(assembly);
            return Ok(());
        }
        self.screen = Some(Screen::restore(&assembly.bytes, SCROLLBACK)?);
        self.forget_history();
        self.next = offset;
        self.owes_drawn = true;
        self.generation += 1;
        Ok(())
    }

    /// The screen as of an offset. The rows that left the one before stay, and those that left in between are missing.
    fn on_frame(&mut self, part: FramePart<'_>, kept_from: u64) -> Result<(), ViewError> {
        if part.offset < self.next {
            return Err(FrameError::Parts.into());
        }
        let Some(snapshot) = self.frames.take(part)? else { return Ok(()) };
        let screen = Screen::restore(snapshot, SCROLLBACK)?;
        let total = screen.scrollback_total();
        match self.screen.replace(screen) {
            Some(mut old) if old.scrollback_total() <= total => {
                self.pages.look_at(total);
                self.pages.insert_all(old.take_history());
            }
            // Rows that are counted anew are not those of before.
            _ => {
                self.forget_history();
                self.generation += 1;
            }
        }
        self.keeps_from(kept_from);
        self.next = part.offset;
        self.owes_drawn = true;
        Ok(())
    }

    fn on_history(&mut self, first: u64, kept_from: u64, page: &[u8]) -> Result<(), ViewError> {
        self.unask();
        self.pages.insert_page(first, page)?;
        self.keeps_from(kept_from);
        self.loaded = self.loaded.wrapping_add(1);
        Ok(())
    }

    /// The machine has no older row than this; what it has not, is not shown here either.
    fn keeps_from(&mut self, kept_from: u64) {
        self.kept_from = Some(kept_from);
        self.pages.forget_before(kept_from);
    }

    fn forget_history(&mut self) {
        self.pages = Pages::default();
        self.kept_from = None;
    }

    fn on_output(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ViewError> {
        let Some(screen) = &mut self.screen else { return Err(ViewError::Hole) };
        if offset > self.next {
            return Err(ViewError::Hole);
        }
        let known = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(known..) else { return Ok(()) };
        // Replies are not ours to give: the holder of the session answers the program's questions.
        let feed = screen.feed(fresh);
        self.next += fresh.len() as u64;
        self.bells = self.bells.wrapping_add(feed.bell.into());
        if feed.history_cleared {
            self.generation += 1;
            self.pages = Pages::default();
            self.kept_from = self.kept_from.map(|_| screen.scrollback_start());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(offset: u64, bytes: &[u8]) -> Vec<u8> {
        TerminalMessage::Output { offset, bytes }.to_vec()
    }

    fn snapshot(screen: &Screen, offset: u64, part_size: usize) -> Vec<Vec<u8>> {
        let bytes = screen.snapshot(100);
        let chunks: Vec<&[u8]> = bytes.chunks(part_size).collect();
        let parts = chunks.len() as u16;
        let (cols, rows) = screen.size();
        let message = |(part, bytes): (usize, &&[u8])| {
            TerminalMessage::Snapshot { offset, cols, rows, part: part as u16, parts, bytes }.to_vec()
        };
        chunks.iter().enumerate().map(message).collect()
    }

    fn viewer_of(screen: &Screen, offset: u64) -> Viewer {
        let mut viewer = Viewer::default();
        snapshot(screen, offset, usize::MAX).iter().for_each(|part| viewer.handle(part).unwrap());
        viewer
    }

    fn text(viewer: &Viewer) -> String {
        viewer.screen().unwrap().text()
    }

    #[test]
    fn live_bytes_go_on_where_the_snapshot_ends() {
        let mut machine = Screen::new(20, 4, 100);
        machine.feed(b"one\r\ntw");
        let mut viewer = Viewer::default();
        assert_eq!(viewer.next(), None);
        for part in snapshot(&machine, 7, 5) {
            viewer.handle(&part).unwrap();
        }
        assert_eq!(viewer.next(), Some(7));
        viewer.handle(&output(7, b"o\r\nthree")).unwrap();
        assert_eq!(text(&viewer), "one\ntwo\nthree");
        assert_eq!(viewer.next(), Some(15));
    }

    #[test]
    fn what_comes_twice_is_shown_once() {
        let mut viewer = viewer_of(&Screen::new(20, 4, 100), 0);
        viewer.handle(&output(0, b"abc")).unwrap();
        viewer.handle(&output(0, b"abc")).unwrap();
        viewer.handle(&output(1, b"bcd")).unwrap();
        viewer.handle(&output(4, b"")).unwrap();
        assert_eq!((text(&viewer).as_str(), viewer.next()), ("abcd", Some(4)));
    }

    #[test]
    fn a_hole_is_an_error_and_shows_nothing_false() {
        let mut viewer = viewer_of(&Screen::new(20, 4, 100), 0);
        viewer.handle(&output(0, b"abc")).unwrap();
        assert_eq!(viewer.handle(&output(4, b"e")), Err(ViewError::Hole));
        assert_eq!(text(&viewer), "abc");
        assert_eq!(Viewer::default().handle(&output(0, b"a")), Err(ViewError::Hole));
    }

    #[test]
    fn a_gap_ends_with_a_snapshot_that_replaces_everything() {
        let mut viewer = viewer_of(&Screen::new(20, 4, 100), 0);
        viewer.handle(&output(0, b"old")).unwrap();
        let before = viewer.generation();
        viewer.handle(&TerminalMessage::Gap { from: 3, to: 1_000 }.to_vec()).unwrap();
        let mut machine = Screen::new(30, 4, 100);
        machine.feed(b"new");
        snapshot(&machine, 1_000, usize::MAX).iter().for_each(|part| viewer.handle(part).unwrap());
        assert_eq!((text(&viewer).as_str(), viewer.next()), ("new", Some(1_000)));
        assert!(viewer.generation() > before);
    }

    #[test]
    fn parts_out_of_order_or_of_two_snapshots_are_refused() {
        let machine = Screen::new(20, 4, 100);
        let (parts, others) = (snapshot(&machine, 5, 4), snapshot(&machine, 6, 4));
        let mut viewer = Viewer::default();
        assert_eq!(viewer.handle(&parts[1]), Err(ViewError::Parts));
        viewer.handle(&parts[0]).unwrap();
        assert_eq!(viewer.handle(&parts[2]), Err(ViewError::Parts));
        viewer.handle(&parts[0]).unwrap();
        assert_eq!(viewer.handle(&others[1]), Err(ViewError::Parts));
        viewer.handle(&parts[0]).unwrap();
        others.iter().for_each(|part| viewer.handle(part).unwrap());
        assert_eq!(viewer.next(), Some(6));
    }

    #[test]
    fn a_snapshot_without_end_is_refused() {
        let mut viewer = Viewer::default();
        let bytes = vec![0; 1 << 20];
        let refused = (0..=MAX_SNAPSHOT >> 20).find_map(|part| {
            let message = TerminalMessage::Snapshot {
                offset: 0,
                cols: 80,
                rows: 24,
                part: part as u16,
                parts: 999,
                bytes: &bytes,
            };
            viewer.handle(&message.to_vec()).err()
        });
        assert_eq!(refused, Some(ViewError::Parts));
    }

    #[test]
    fn nonsense_is_an_error() {
        let mut viewer = viewer_of(&Screen::new(20, 4, 100), 0);
        assert!(matches!(viewer.handle(b""), Err(ViewError::Message(_))));
        assert!(matches!(viewer.handle(b"\xff123456789"), Err(ViewError::Message(_))));
        let garbage = TerminalMessage::Snapshot { offset: 0, cols: 80, rows: 24, part: 0, parts: 1, bytes: b"garbage" };
        assert!(matches!(viewer.handle(&garbage.to_vec()), Err(ViewError::Snapshot(_))));
        assert_eq!(
            viewer.handle(&TerminalMessage::Input { offset: 0, bytes: b"x" }.to_vec()),
            Err(ViewError::Direction)
        );
    }

    /// A machine that shows its screen in frames, and a viewer with credit that has seen the first snapshot.
    struct Machine {
        screen: Screen,
        offset: u64,
        shown: Option<(u64, Vec<u8>)>,
    }

    impl Machine {
        fn new() -> (Self, Viewer) {
            let screen = Screen::new(20, 4, 1_000);
            let mut viewer = viewer_of(&screen, 0);
            viewer.attached(false, None, true);
            (Self { screen, offset: 0, shown: None }, viewer)
        }

        fn print(&mut self, rows: std::ops::Range<u32>) -> Vec<u8> {
            let text: String = rows.map(|row| format!("{row}\r\n")).collect();
            let message = output(self.offset, text.as_bytes());
            self.screen.feed(text.as_bytes());
            self.offset += text.len() as u64;
            message
        }

        fn frame(&mut self) -> Vec<u8> {
            let snapshot = self.screen.snapshot(0);
            let (base, old) = self.shown.take().map_or((None, Vec::new()), |(base, old)| (Some(base), old));
            let bytes = happy_screen::delta::diff(&old, &snapshot);
            self.shown = Some((self.offset, snapshot));
            let (offset, kept_from) = (self.offset, self.screen.scrollback_start());
            TerminalMessage::Frame { offset, base, kept_from, part: 0, parts: 1, bytes: &bytes }.to_vec()
        }

        fn page(&self, wanted: &[u8]) -> Vec<u8> {
            let Ok(TerminalMessage::HistoryWanted { before, rows }) = TerminalMessage::decode(wanted) else {
                panic!("{wanted:?}")
            };
            let (first, bytes) = self.screen.history_page(before, rows, 1 << 15);
            TerminalMessage::History { first, kept_from: self.screen.scrollback_start(), bytes: &bytes }.to_vec()
        }
    }

    fn here(viewer: &Viewer, rows: std::ops::Range<u64>) -> Vec<u64> {
        let here: Vec<u64> = rows.filter(|row| viewer.history_row(*row).is_some()).collect();
        let texts = here.iter().map(|row| viewer.history_row(*row).unwrap().text());
        assert!(texts.eq(here.iter().map(u64::to_string)), "other rows than their numbers say");
        here
    }

    #[test]
    fn frames_show_the_present_and_leave_gaps_that_pages_fill() {
        let (mut machine, mut viewer) = Machine::new();
        viewer.handle(&machine.print(0..13)).unwrap();
        let generation = viewer.generation();
        for rows in [13..103, 103..113] {
            machine.print(rows);
            viewer.handle(&TerminalMessage::Gap { from: viewer.next().unwrap(), to: machine.offset }.to_vec()).unwrap();
            viewer.handle(&machine.frame()).unwrap();
            assert_eq!(viewer.screen().unwrap().snapshot(0), machine.screen.snapshot(0));
        }
        viewer.handle(&machine.print(113..123)).unwrap();
        assert_eq!(viewer.screen().unwrap().snapshot(0), machine.screen.snapshot(0));
        assert_eq!(viewer.generation(), generation, "what was drawn of the history is not void");
        assert_eq!(here(&viewer, 0..120), [(0..10).collect::<Vec<_>>(), (110..120).collect()].concat());
        assert_eq!((viewer.history_start(), viewer.history_here(10), viewer.history_here(119)), (0, 110, 119));

        let wanted = viewer.want_history(60, 20).unwrap();
        assert_eq!(viewer.want_history(60, 20), None, "one at a time");
        viewer.handle(&machine.page(&wanted)).unwrap();
        assert_eq!((viewer.history_here(10), viewer.history_here(60), viewer.loaded()), (40, 110, 1));
        assert_eq!(here(&viewer, 10..110), (40..60).collect::<Vec<_>>());
        assert!(viewer.want_history(40, 20).is_some());
    }

    #[test]
    fn what_the_program_clears_is_gone_here_too() {
        let (mut machine, mut viewer) = Machine::new();
        viewer.handle(&machine.print(0..50)).unwrap();
        viewer.handle(&machine.frame()).unwrap();
        assert_eq!(here(&viewer, 0..47).len(), 47);
        machine.screen.feed(b"\x1b[3J");
        machine.offset += 4;
        machine.print(50..60);
        viewer.handle(&machine.frame()).unwrap();
        assert_eq!((viewer.history_start(), here(&viewer, 0..100)), (47, vec![]));
        // The same as bytes.
        let wanted = viewer.want_history(57, 99).unwrap();
        viewer.handle(&machine.page(&wanted)).unwrap();
        assert_eq!(here(&viewer, 0..100), (47..57).collect::<Vec<_>>());
        viewer.handle(&output(machine.offset, b"\x1b[3J")).unwrap();
        assert_eq!((viewer.history_start(), here(&viewer, 0..100)), (57, vec![]));
    }

    #[test]
    fn what_is_drawn_is_told_after_so_much_after_each_screen_and_at_rest() {
        let (mut machine, mut viewer) = Machine::new();
        assert_eq!((viewer.due(false), viewer.due(true)), (None, None));
        viewer.handle(&output(0, &[b'x'; DRAWN_EVERY as usize - 1])).unwrap();
        assert_eq!((viewer.due(false), viewer.due(true)), (None, Some(DRAWN_EVERY - 1)));
        viewer.handle(&output(DRAWN_EVERY - 1, b"x")).unwrap();
        assert_eq!(viewer.due(false), Some(DRAWN_EVERY));
        viewer.told(DRAWN_EVERY);
        assert_eq!((viewer.due(false), viewer.due(true)), (None, None));
        machine.offset = DRAWN_EVERY + 1;
        viewer.handle(&machine.frame()).unwrap();
        assert_eq!(viewer.due(false), Some(DRAWN_EVERY + 1));
        // A machine of before understands none of it.
        viewer.attached(false, None, false);
        viewer.handle(&output(DRAWN_EVERY + 1, &[b'x'; 99_999])).unwrap();
        assert_eq!((viewer.due(true), viewer.want_history(1, 1), viewer.want_start()), (None, None, None));
    }

    #[test]
    fn how_far_back_the_history_goes_is_asked_for() {
        let (mut machine, mut viewer) = Machine::new();
        machine.print(0..100);
        snapshot(&machine.screen, machine.offset, usize::MAX).iter().for_each(|part| viewer.handle(part).unwrap());
        viewer.begin_anew();
        let few = machine.screen.snapshot(4);
        let message = TerminalMessage::Snapshot { offset: 9, cols: 20, rows: 4, part: 0, parts: 1, bytes: &few };
        viewer.handle(&message.to_vec()).unwrap();
        assert_eq!(viewer.history_start(), 93);
        let wanted = viewer.want_start().unwrap();
        viewer.handle(&machine.page(&wanted)).unwrap();
        assert_eq!((viewer.history_start(), viewer.history_here(0), viewer.want_start()), (0, 93, None));
    }

    #[test]
    fn frames_that_cannot_be_are_errors() {
        let (mut machine, mut viewer) = Machine::new();
        machine.print(0..9);
        let frame = machine.frame();
        viewer.handle(&frame).unwrap();
        machine.offset += 1;
        viewer.handle(&machine.frame()).unwrap();
        assert_eq!(viewer.handle(&frame), Err(ViewError::Frame(FrameError::Parts)), "a screen of before");
        // What it is the difference from belonged to another attachment.
        viewer.attached(false, None, true);
        machine.offset += 1;
        assert_eq!(viewer.handle(&machine.frame()), Err(ViewError::Frame(FrameError::Base)));
        let page = TerminalMessage::History { first: 0, kept_from: 0, bytes: &[3, 0] };
        assert_eq!(viewer.handle(&page.to_vec()), Err(ViewError::Snapshot(SnapshotError::Malformed)));
        let drawn = TerminalMessage::Drawn { offset: 0 };
        assert_eq!(viewer.handle(&drawn.to_vec()), Err(ViewError::Direction));
    }

    #[test]
    fn size_and_end_are_followed() {
        let mut viewer = viewer_of(&Screen::new(20, 4, 100), 0);
        let resized =
            TerminalMessage::Resized { offset: 0, cols: 40, rows: 10, you_control: false, controller: "desk" };
        viewer.handle(&resized.to_vec()).unwrap();
        assert_eq!(viewer.screen().unwrap().size(), (40, 10));
        assert_eq!((viewer.you_control(), viewer.controller()), (false, "desk"));
        viewer.handle(&TerminalMessage::Exited { offset: 0, exit: Exit::Code(3) }.to_vec()).unwrap();
        assert_eq!(viewer.exit(), Some(Exit::Code(3)));
    }
}
