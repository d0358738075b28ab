//! Keys and pastes as the bytes that a program expects in its present modes.
//!
//! A phone sends meanings (this key, this text), and whoever knows the modes at the moment of typing encodes them: an
//! arrow sent as bytes by a viewer that lags behind a mode switch moves the wrong thing.

use std::borrow::Borrow;

use crate::modes::Modes;

/// Which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the key of its name")]
pub enum KeyCode {
    Enter,
    Tab,
    /// Tab with Shift, for keyboards that have a key of its own for it.
    BackTab,
    Esc,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    Insert,
    Delete,
    /// F1 to F12; other numbers encode to nothing.
    F(u8),
    /// A character, as it would appear without Ctrl and Alt.
    Char(char),
}

/// A key and the modifiers that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each field is the modifier of its name")]
pub struct Key {
    pub code: KeyCode,
    pub ctrl: bool,
    pub alt: bool,
    pub shift: bool,
}

impl From<KeyCode> for Key {
    fn from(code: KeyCode) -> Self {
        Self { code, ctrl: false, alt: false, shift: false }
    }
}

impl From<char> for Key {
    fn from(ch: char) -> Self {
        KeyCode::Char(ch).into()
    }
}

impl Key {
    /// The same with Ctrl held.
    #[must_use]
    pub fn ctrl(self) -> Self {
        Self { ctrl: true, ..self }
    }

    /// The same with Alt held.
    #[must_use]
    pub fn alt(self) -> Self {
        Self { alt: true, ..self }
    }

    /// The same with Shift held.
    #[must_use]
    pub fn shift(self) -> Self {
        Self { shift: true, ..self }
    }

    /// The number that stands for the modifiers in a sequence; 1 for none.
    fn modifiers(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.alt) + 4 * u8::from(self.ctrl)
    }
}

/// Kitty's flag "disambiguate escape codes".
const DISAMBIGUATE: u8 = 1;
/// Kitty's flag "report all keys as escape codes".
const ALL_KEYS: u8 = 8;
/// Kitty's flag "report associated text".
const ASSOCIATED_TEXT: u8 = 16;

/// The bytes of a key press.
pub fn encode(modes: &Modes, key: impl Borrow<Key>) -> Vec<u8> {
    let key = *key.borrow();
    let kitty = modes.kitty_flags & (DISAMBIGUATE | ALL_KEYS) != 0;
    match key.code {
        KeyCode::Up => cursor_key(modes, key, 'A'),
        KeyCode::Down => cursor_key(modes, key, 'B'),
        KeyCode::Right => cursor_key(modes, key, 'C'),
        KeyCode::Left => cursor_key(modes, key, 'D'),
        KeyCode::Home => cursor_key(modes, key, 'H'),
        KeyCode::End => cursor_key(modes, key, 'F'),
        KeyCode::Insert => tilde_key(key, 2),
        KeyCode::Delete => tilde_key(key, 3),
        KeyCode::PageUp => tilde_key(key, 5),
        KeyCode::PageDown => tilde_key(key, 6),
        KeyCode::F(3) if kitty => tilde_key(key, 13),
        KeyCode::F(number @ 1..=4) => {
            let last = char::from(b'P' + number - 1);
            if key.modifiers() > 1 || kitty { letter_key(key, last) } else { format!("\x1bO{last}").into() }
        }
        KeyCode::F(number @ 5..=12) => tilde_key(key, [15, 17, 18, 19, 20, 21, 23, 24][usize::from(number - 5)]),
        KeyCode::F(_) => Vec::new(),
        KeyCode::BackTab => encode(modes, Key { code: KeyCode::Tab, shift: true, ..key }),
        KeyCode::Enter | KeyCode::Tab | KeyCode::Esc | KeyCode::Backspace | KeyCode::Char(_) if kitty => {
            kitty_key(modes, key)
        }
        _ => plain_key(modes, key),
    }
}

fn cursor_key(modes: &Modes, key: Key, last: char) -> Vec<u8> {
    let kitty = modes.kitty_flags & (DISAMBIGUATE | ALL_KEYS) != 0;
    if key.modifiers() == 1 && modes.application_cursor && !kitty {
        format!("\x1bO{last}").into()
    } else {
        letter_key(key, last)
    }
}

fn letter_key(key: Key, last: char) -> Vec<u8> {
    match key.modifiers() {
        1 => format!("\x1b[{last}").into(),
        modifiers => format!("\x1b[1;{modifiers}{last}").into(),
    }
}

fn tilde_key(key: Key, number: u8) -> Vec<u8> {
    match key.modifiers() {
        1 => format!("\x1b[{number}~").into(),
        modifiers => format!("\x1b[{number};{modifiers}~").into(),
    }
}

/// Keys that are a byte or a character, possibly after the ESC of Alt.
fn plain_key(modes: &Modes, key: Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    if key.alt {
        bytes.push(0x1b);
    }
    match key.code {
        KeyCode::Enter if modes.newline => bytes.extend_from_slice(b"\r\n"),
        KeyCode::Enter => bytes.push(b'\r'),
        KeyCode::Tab if key.shift => bytes.extend_from_slice(b"\x1b[Z"),
        KeyCode::Tab => bytes.push(b'\t'),
        KeyCode::Esc => bytes.push(0x1b),
        KeyCode::Backspace => bytes.push(if key.ctrl { 0x08 } else { 0x7f }),
        KeyCode::Char(ch) => match control_of(ch).filter(|_| key.ctrl) {
            Some(control) => bytes.push(control),
            None => push_char(&mut bytes, shifted(key, ch)),
        },
        _ => {}
    }
    bytes
}

fn shifted(key: Key, ch: char) -> char {
    if key.shift { ch.to_ascii_uppercase() } else { ch }
}

fn push_char(bytes: &mut Vec<u8>, ch: char) {
    bytes.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes());
}

/// The control character that Ctrl makes of a key on keyboards since the VT220.
fn control_of(ch: char) -> Option<u8> {
    Some(match ch {
        'a'..='z' | 'A'..='Z' | '[' | '\\' | ']' | '^' | '_' | '@' => ch as u8 & 0x1f,
        ' ' | '2' | '`' => 0x00,
        '3'..='7' => ch as u8 - b'3' + 0x1b,
        '8' | '?' => 0x7f,
        '/' | '-' => 0x1f,
        '~' => 0x1e,
        _ => return None,
    })
}

/// <https://sw.kovidgoyal.net/kitty/keyboard-protocol/>: ambiguous keys as numbers.
fn kitty_key(modes: &Modes, key: Key) -> Vec<u8> {
    let all = modes.kitty_flags & ALL_KEYS != 0;
    let modifiers = key.modifiers();
    let (number, text) = match key.code {
        KeyCode::Esc => (27, None),
        // These stay as they are, so that a user can still type `reset` after a program has crashed.
        KeyCode::Enter | KeyCode::Tab | KeyCode::Backspace if modifiers == 1 && !all => return plain_key(modes, key),
        KeyCode::Enter => (13, None),
        KeyCode::Tab => (9, None),
        KeyCode::Backspace => (127, None),
        KeyCode::Char(_) if !(key.ctrl || key.alt || all) => return plain_key(modes, key),
        KeyCode::Char(ch) => {
            let text = shifted(key, ch);
            (ch.to_ascii_lowercase() as u32, (!key.ctrl && !key.alt && !text.is_control()).then_some(text))
        }
        _ => return plain_key(modes, key),
    };
    let text = text.filter(|_| all && modes.kitty_flags & ASSOCIATED_TEXT != 0);
    match (modifiers, text) {
        (_, Some(text)) => format!("\x1b[{number};{modifiers};{}u", text as u32).into(),
        (1, None) => format!("\x1b[{number}u").into(),
        (_, None) => format!("\x1b[{number};{modifiers}u").into(),
    }
}

const PASTE_BEGIN: &str = "\x1b[200~";
const PASTE_END: &str = "\x1b[201~";

/// The bytes of a paste. Line ends are sent as Enter sends them. Controls other than line ends and tabs are taken out,
/// and with them every way to end the paste early and type a command after it.
pub fn paste(modes: &Modes, text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len() + PASTE_BEGIN.len() + PASTE_END.len());
    if modes.bracketed_paste {
        out.push_str(PASTE_BEGIN);
    }
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // Its controls alone would leave the rest of it behind.
        if let Some(after) = [PASTE_BEGIN, PASTE_END, "\u{9b}201~"].iter().find_map(|end| rest.strip_prefix(end)) {
            rest = after;
            continue;
        }
        rest = rest.strip_prefix("\r\n").or_else(|| rest.strip_prefix(first)).unwrap_or("");
        match first {
            '\n' | '\r' => out.push('\r'),
            '\t' => out.push('\t'),
            ch if ch.is_control() => {}
            ch => out.push(ch),
        }
    }
    if modes.bracketed_paste {
        out.push_str(PASTE_END);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_the_legacy_dialect() {
        use KeyCode::*;
        let key = Key::from;
        let modes = Modes::default();
        for (key, expected) in [
            (key(Enter), "\r"),
            (key(Enter).alt(), "\x1b\r"),
            (key(Tab), "\t"),
            (key(Tab).shift(), "\x1b[Z"),
            (key(BackTab), "\x1b[Z"),
            (key(Esc), "\x1b"),
            (key(Backspace), "\x7f"),
            (key(Backspace).ctrl(), "\x08"),
            (key(Backspace).alt(), "\x1b\x7f"),
            (key(Up), "\x1b[A"),
            (key(Left).ctrl(), "\x1b[1;5D"),
            (key(Right).alt().shift(), "\x1b[1;4C"),
            (key(Home), "\x1b[H"),
            (key(End).shift(), "\x1b[1;2F"),
            (key(PageUp), "\x1b[5~"),
            (key(PageDown).ctrl(), "\x1b[6;5~"),
            (key(Insert), "\x1b[2~"),
            (key(Delete), "\x1b[3~"),
            (key(F(1)), "\x1bOP"),
            (key(F(4)).shift(), "\x1b[1;2S"),
            (key(F(5)), "\x1b[15~"),
            (key(F(12)), "\x1b[24~"),
            (key(F(13)), ""),
            (key(Char('a')), "a"),
            (key(Char('a')).shift(), "A"),
            (key(Char('界')), "界"),
            (key(Char('c')).ctrl(), "\x03"),
            (key(Char('C')).ctrl().shift(), "\x03"),
            (key(Char(' ')).ctrl(), "\0"),
            (key(Char('[')).ctrl(), "\x1b"),
            (key(Char('/')).ctrl(), "\x1f"),
            (key(Char('?')).ctrl(), "\x7f"),
            (key(Char('x')).alt(), "\x1bx"),
            (key(Char('c')).ctrl().alt(), "\x1b\x03"),
        ] {
            assert_eq!(String::from_utf8_lossy(&encode(&modes, key)), expected, "{key:?}");
        }
    }

    #[test]
    fn application_cursor_mode_changes_bare_cursor_keys_only() {
        let modes = Modes { application_cursor: true, ..Modes::default() };
        assert_eq!(encode(&modes, Key::from(KeyCode::Up)), b"\x1bOA");
        let home: &Key = &KeyCode::Home.into();
        assert_eq!(encode(&modes, home), b"\x1bOH");
        assert_eq!(encode(&modes, Key::from(KeyCode::Up).ctrl()), b"\x1b[1;5A");
        assert_eq!(encode(&modes, Key::from(KeyCode::Delete)), b"\x1b[3~");
        let modes = Modes { newline: true, ..Modes::default() };
        assert_eq!(encode(&modes, Key::from(KeyCode::Enter)), b"\r\n");
    }

    #[test]
    fn kitty_keyboards_tell_ambiguous_keys_apart() {
        let modes = Modes { kitty_flags: DISAMBIGUATE, application_cursor: true, ..Modes::default() };
        for (key, expected) in [
            (Key::from(KeyCode::Esc), "\x1b[27u"),
            (Key::from(KeyCode::Enter), "\r"),
            (Key::from(KeyCode::Enter).shift(), "\x1b[13;2u"),
            (Key::from(KeyCode::BackTab), "\x1b[9;2u"),
            (Key::from('i').ctrl(), "\x1b[105;5u"),
            (Key::from('x').alt(), "\x1b[120;3u"),
            (Key::from('x').shift(), "X"),
            (Key::from(KeyCode::Up), "\x1b[A"),
            (Key::from(KeyCode::F(3)), "\x1b[13~"),
        ] {
            assert_eq!(String::from_utf8_lossy(&encode(&modes, key)), expected, "{key:?}");
        }
        let modes = Modes { kitty_flags: DISAMBIGUATE | ALL_KEYS | ASSOCIATED_TEXT, ..Modes::default() };
        assert_eq!(encode(&modes, Key::from('a').shift()), b"\x1b[97;2;65u");
        assert_eq!(encode(&modes, Key::from(KeyCode::Enter)), b"\x1b[13u");
    }

    #[test]
    fn a_paste_cannot_end_itself() {
        let bracketed = Modes { bracketed_paste: true, ..Modes::default() };
        let hostile = "a\x1b[201~rm\x1b[20\x1b[201~1~\u{9b}201~ -rf\x03\x7f\r\nb\tc\n";
        let pasted = paste(&bracketed, hostile);
        assert_eq!(String::from_utf8_lossy(&pasted), "\x1b[200~arm[201~ -rf\rb\tc\r\x1b[201~");
        assert_eq!(paste(&Modes::default(), hostile), b"arm[201~ -rf\rb\tc\r");
    }
}
