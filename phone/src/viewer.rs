//! Follows one session: messages of its terminal channel go in, a screen comes out (PROTOCOL 10.1).
//!
//! Output is numbered from the first byte that the program ever printed. A viewer that was away asks to go on from
//! [`Viewer::next`]; what comes twice is trimmed, and what is missing is an error, never a silent hole.

use happy_screen::{Screen, SnapshotError};
use happy_wire::WireError;
use happy_wire::terminal::{Exit, MAX_SNAPSHOT, TerminalMessage};

use crate::input::Input;

/// Rows of history that the phone keeps: as many as stay in the page.
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

    /// The machine's answer to attaching says who decides the size.
    pub fn attached(&mut self, you_control: bool, controller: Option<&str>) {
        self.assembly = None;
        self.you_control = you_control;
        self.controller = controller.unwrap_or_default().to_owned();
    }

    /// Gives up what is shown, so that attaching again asks for a snapshot.
    pub fn begin_anew(&mut self) {
        self.screen = None;
        self.assembly = None;
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
            // The snapshot that follows replaces everything; until it has come, what is shown stays.
            TerminalMessage::Gap { .. } => self.assembly = None,
            TerminalMessage::Resized { cols, rows, you_control, controller, .. } => {
                self.you_control = you_control;
                self.controller = controller.to_owned();
                if let Some(screen) = &mut self.screen {
                    screen.resize(cols, rows);
                }
            }
            TerminalMessage::Exited { exit, .. } => self.exit = Some(exit),
            TerminalMessage::InputTaken { offset } => self.input.taken(offset),
            TerminalMessage::Input { .. } => return Err(ViewError::Direction),
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
        self.next = offset;
        self.generation += 1;
        Ok(())
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
        self.generation += u32::from(feed.history_cleared);
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
