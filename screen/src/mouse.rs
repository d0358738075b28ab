//! What a mouse, or a finger in its place, does, as the bytes that a program expects that tracks it.

use crate::modes::{Modes, MouseEncoding, MouseTracking};

/// What happens at a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MouseEvent {
    /// The first button goes down.
    Press,
    /// It is let go.
    Release,
    /// It is held and the pointer moves.
    Drag,
    /// One notch towards older text.
    WheelUp,
    /// One notch towards newer text.
    WheelDown,
}

/// The largest place that the encodings of a byte and of a character can tell, from 0.
const LAST_OF_BYTE: u16 = 222;
const LAST_OF_CHARACTER: u16 = 2014;

/// The bytes of an event at a cell, column and row from 0; none when the program does not want it or its encoding cannot say it.
pub fn encode(modes: &Modes, event: MouseEvent, col: u16, row: u16) -> Vec<u8> {
    let wanted = match event {
        MouseEvent::Press => modes.mouse != MouseTracking::Off,
        MouseEvent::Release | MouseEvent::WheelUp | MouseEvent::WheelDown => {
            !matches!(modes.mouse, MouseTracking::Off | MouseTracking::Press)
        }
        MouseEvent::Drag => matches!(modes.mouse, MouseTracking::Drag | MouseTracking::Motion),
    };
    if !wanted {
        return Vec::new();
    }
    let sgr = modes.mouse_encoding == MouseEncoding::Sgr;
    let button: u16 = match event {
        MouseEvent::Press => 0,
        // Only SGR says which button was let go.
        MouseEvent::Release => {
            if sgr {
                0
            } else {
                3
            }
        }
        MouseEvent::Drag => 32,
        MouseEvent::WheelUp => 64,
        MouseEvent::WheelDown => 65,
    };
    match modes.mouse_encoding {
        MouseEncoding::Sgr => {
            let end = if event == MouseEvent::Release { 'm' } else { 'M' };
            format!("\x1b[<{button};{};{}{end}", col.saturating_add(1), row.saturating_add(1)).into()
        }
        MouseEncoding::Urxvt => {
            format!("\x1b[{};{};{}M", button + 32, col.saturating_add(1), row.saturating_add(1)).into()
        }
        MouseEncoding::Legacy if col.max(row) <= LAST_OF_BYTE => {
            let mut bytes = b"\x1b[M".to_vec();
            // Within a byte, as was just seen.
            bytes.extend([button + 32, col + 33, row + 33].map(|number| number as u8));
            bytes
        }
        MouseEncoding::Utf8 if col.max(row) <= LAST_OF_CHARACTER => {
            let place = [button + 32, col + 33, row + 33].map(|number| char::from_u32(number.into()).unwrap_or(' '));
            format!("\x1b[M{}", String::from_iter(place)).into()
        }
        MouseEncoding::Legacy | MouseEncoding::Utf8 => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(mouse: MouseTracking, mouse_encoding: MouseEncoding, event: MouseEvent, col: u16, row: u16) -> String {
        let modes = Modes { mouse, mouse_encoding, ..Modes::default() };
        String::from_utf8_lossy(&encode(&modes, event, col, row)).into_owned()
    }

    #[test]
    fn each_encoding_writes_it_in_its_way() {
        use MouseEncoding::*;
        use MouseEvent::*;
        for (encoding, event, expected) in [
            (Sgr, Press, "\x1b[<0;5;10M"),
            (Sgr, Release, "\x1b[<0;5;10m"),
            (Sgr, Drag, "\x1b[<32;5;10M"),
            (Sgr, WheelUp, "\x1b[<64;5;10M"),
            (Sgr, WheelDown, "\x1b[<65;5;10M"),
            (Urxvt, Press, "\x1b[32;5;10M"),
            (Urxvt, Release, "\x1b[35;5;10M"),
            (Legacy, Press, "\x1b[M %*"),
            (Legacy, Release, "\x1b[M#%*"),
            (Legacy, WheelUp, "\x1b[M`%*"),
            (Utf8, WheelDown, "\x1b[Ma%*"),
        ] {
            assert_eq!(encoded(MouseTracking::Motion, encoding, event, 4, 9), expected, "{encoding:?} {event:?}");
        }
        assert_eq!(encoded(MouseTracking::Click, Utf8, Press, 300, 0), "\x1b[M \u{14d}!");
    }

    #[test]
    fn only_what_is_tracked_and_can_be_said_is_told() {
        use MouseEvent::*;
        for (tracking, told) in [
            (MouseTracking::Off, &[][..]),
            (MouseTracking::Press, &[Press][..]),
            (MouseTracking::Click, &[Press, Release, WheelUp, WheelDown]),
            (MouseTracking::Drag, &[Press, Release, Drag, WheelUp, WheelDown]),
            (MouseTracking::Motion, &[Press, Release, Drag, WheelUp, WheelDown]),
        ] {
            for event in [Press, Release, Drag, WheelUp, WheelDown] {
                let bytes = encoded(tracking, MouseEncoding::Sgr, event, 0, 0);
                assert_eq!(!bytes.is_empty(), told.contains(&event), "{tracking:?} {event:?}");
            }
        }
        assert_eq!(encoded(MouseTracking::Click, MouseEncoding::Legacy, Press, 0, 223), "");
        assert_eq!(encoded(MouseTracking::Click, MouseEncoding::Utf8, Press, 2015, 0), "");
        assert_eq!(encoded(MouseTracking::Click, MouseEncoding::Sgr, Press, u16::MAX, 0), "\x1b[<0;65535;1M");
    }
}
