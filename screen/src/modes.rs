//! The mode ledger's public face: what a viewer must know to send input and to look right.

use crate::codec::{Malformed, Reader, Writer};

/// Which mouse events the program wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MouseTracking {
    /// None; the viewer may use the mouse itself.
    #[default]
    Off,
    /// Presses only, without modifiers (mode 9).
    Press,
    /// Presses and releases (mode 1000).
    Click,
    /// And motion while a button is held (mode 1002).
    Drag,
    /// And all motion (mode 1003).
    Motion,
}

/// How mouse events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MouseEncoding {
    /// Three bytes, up to column 223.
    #[default]
    Legacy,
    /// Mode 1005.
    Utf8,
    /// Mode 1006.
    Sgr,
    /// Mode 1015.
    Urxvt,
}

/// The modes a program has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    /// Arrows, Home and End are sent as SS3 (DECCKM, mode 1).
    pub application_cursor: bool,
    /// The numeric keypad sends sequences (DECKPAM).
    pub application_keypad: bool,
    /// A paste is wrapped in markers (mode 2004).
    pub bracketed_paste: bool,
    /// Which mouse events are wanted (modes 9, 1000, 1002, 1003).
    pub mouse: MouseTracking,
    /// How they are written (modes 1005, 1006, 1015).
    pub mouse_encoding: MouseEncoding,
    /// Focus changes are reported (mode 1004).
    pub focus_events: bool,
    /// The wheel sends arrows in the alternate screen (mode 1007).
    pub alternate_scroll: bool,
    /// A full-screen program shows the alternate screen (modes 47, 1047, 1049).
    pub alternate_screen: bool,
    /// The cursor is shown (DECTCEM, mode 25).
    pub cursor_visible: bool,
    /// DECSCUSR: 0 the viewer's own, 1 blinking block, 2 block, 3 blinking underline, 4 underline, 5 blinking bar, 6 bar.
    pub cursor_style: u8,
    /// An update is being written; drawing should wait, but not for long (mode 2026, [`SYNC_HOLD`](crate::SYNC_HOLD)).
    pub synchronized: bool,
    /// Text wraps at the right edge (DECAWM, mode 7).
    pub autowrap: bool,
    /// Text moves what stands to its right (IRM).
    pub insert: bool,
    /// Row numbers count from the top margin (DECOM, mode 6).
    pub origin: bool,
    /// Enter sends CR LF (LNM).
    pub newline: bool,
    /// The viewer's own foreground and background change places (DECSCNM, mode 5).
    pub reversed: bool,
    /// The flags of the kitty keyboard protocol of the screen that is shown; 0 is the legacy keyboard.
    pub kitty_flags: u8,
}

impl Default for Modes {
    fn default() -> Self {
        Self {
            application_cursor: false,
            application_keypad: false,
            bracketed_paste: false,
            mouse: MouseTracking::Off,
            mouse_encoding: MouseEncoding::Legacy,
            focus_events: false,
            alternate_scroll: false,
            alternate_screen: false,
            cursor_visible: true,
            cursor_style: 0,
            synchronized: false,
            autowrap: true,
            insert: false,
            origin: false,
            newline: false,
            reversed: false,
            kitty_flags: 0,
        }
    }
}

const TRACKING: [(MouseTracking, u16); 4] = [
    (MouseTracking::Press, 9),
    (MouseTracking::Click, 1000),
    (MouseTracking::Drag, 1002),
    (MouseTracking::Motion, 1003),
];
const ENCODING: [(MouseEncoding, u16); 3] =
    [(MouseEncoding::Utf8, 1005), (MouseEncoding::Sgr, 1006), (MouseEncoding::Urxvt, 1015)];

impl Modes {
    /// The modes that a plain flag keeps, by their DEC private number.
    fn flag(&mut self, mode: u16) -> Option<&mut bool> {
        Some(match mode {
            1 => &mut self.application_cursor,
            5 => &mut self.reversed,
            6 => &mut self.origin,
            7 => &mut self.autowrap,
            25 => &mut self.cursor_visible,
            66 => &mut self.application_keypad,
            1004 => &mut self.focus_events,
            1007 => &mut self.alternate_scroll,
            2004 => &mut self.bracketed_paste,
            2026 => &mut self.synchronized,
            _ => return None,
        })
    }

    /// Sets or resets a DEC private mode other than the switches between screens.
    pub(crate) fn set(&mut self, mode: u16, on: bool) {
        if let Some(flag) = self.flag(mode) {
            *flag = on;
        } else if let Some((tracking, _)) = TRACKING.iter().find(|(_, number)| *number == mode) {
            // As in xterm, there is one tracking mode and one encoding; resetting any of them turns it off.
            self.mouse = if on { *tracking } else { MouseTracking::Off };
        } else if let Some((encoding, _)) = ENCODING.iter().find(|(_, number)| *number == mode) {
            self.mouse_encoding = if on { *encoding } else { MouseEncoding::Legacy };
        }
    }

    /// Whether a DEC private mode is set; `None` if we do not know the mode (DECRQM).
    pub(crate) fn get(mut self, mode: u16) -> Option<bool> {
        match mode {
            47 | 1047 | 1049 => Some(self.alternate_screen),
            _ => TRACKING
                .iter()
                .find(|(_, number)| *number == mode)
                .map(|(tracking, _)| self.mouse == *tracking)
                .or_else(|| {
                    let (encoding, _) = ENCODING.iter().find(|(_, number)| *number == mode)?;
                    Some(self.mouse_encoding == *encoding)
                })
                .or_else(|| self.flag(mode).copied()),
        }
    }

    /// The DEC private mode of the mouse tracking that is on.
    pub(crate) fn tracking_mode(self) -> Option<u16> {
        TRACKING.iter().find(|(tracking, _)| *tracking == self.mouse).map(|(_, number)| *number)
    }

    /// The DEC private mode of the mouse encoding that is on.
    pub(crate) fn encoding_mode(self) -> Option<u16> {
        ENCODING.iter().find(|(encoding, _)| *encoding == self.mouse_encoding).map(|(_, number)| *number)
    }

    /// The booleans, in the order of the snapshot. New ones go to the end, with a new snapshot version.
    fn bits(&mut self) -> [&mut bool; 13] {
        [
            &mut self.application_cursor,
            &mut self.application_keypad,
            &mut self.bracketed_paste,
            &mut self.focus_events,
            &mut self.alternate_scroll,
            &mut self.alternate_screen,
            &mut self.cursor_visible,
            &mut self.synchronized,
            &mut self.autowrap,
            &mut self.insert,
            &mut self.origin,
            &mut self.newline,
            &mut self.reversed,
        ]
    }

    pub(crate) fn encode(mut self, out: &mut Writer) {
        let bits = self.bits().iter().enumerate().fold(0, |bits, (n, set)| bits | u16::from(**set) << n);
        out.u16(bits);
        out.u16(self.tracking_mode().unwrap_or(0));
        out.u16(self.encoding_mode().unwrap_or(0));
        out.u8(self.cursor_style);
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut modes = Self::default();
        let bits = input.u16()?;
        for (n, flag) in modes.bits().into_iter().enumerate() {
            *flag = bits & 1 << n != 0;
        }
        if bits >> 13 != 0 {
            return Err(Malformed);
        }
        let (tracking, encoding) = (input.u16()?, input.u16()?);
        modes.set(tracking, true);
        modes.set(encoding, true);
        if modes.tracking_mode().unwrap_or(0) != tracking || modes.encoding_mode().unwrap_or(0) != encoding {
            return Err(Malformed);
        }
        modes.cursor_style = input.u8()?;
        if modes.cursor_style > 6 { Err(Malformed) } else { Ok(modes) }
    }
}
