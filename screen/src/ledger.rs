//! What cells do not show: input modes, the title, the directory, keyboard stacks.

use crate::codec::{Malformed, Reader, Writer};
use crate::modes::Modes;

/// Programs nest keyboards as they start each other; the protocol asks for a bound and leaves the number to us.
const MAX_KITTY: usize = 16;
/// xterm keeps ten titles; vim and its like use one each.
const MAX_TITLES: usize = 8;
/// In bytes. A title longer than a line is never read.
pub(crate) const MAX_TITLE: usize = 512;
/// In bytes; the longest path of the systems we run on.
pub(crate) const MAX_CWD: usize = 4096;
/// The five flags of the kitty keyboard protocol.
const KITTY_FLAGS: u8 = 0b1_1111;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ledger {
    /// INVARIANT: `kitty_flags` is the top of the shown screen's stack.
    pub(crate) modes: Modes,
    /// One stack each for the main and the alternate screen.
    kitty: [Vec<u8>; 2],
    pub(crate) title: String,
    titles: Vec<String>,
    pub(crate) cwd: String,
}

impl Ledger {
    /// RIS: a new terminal, but the title and the directory are the shell's, not the terminal's.
    pub(crate) fn reset(&mut self) {
        let Self { title, titles, cwd, .. } = std::mem::take(self);
        *self = Self { title, titles, cwd, ..Self::default() };
    }

    /// DECSTR.
    pub(crate) fn soft_reset(&mut self) {
        let modes = &mut self.modes;
        modes.application_cursor = false;
        modes.application_keypad = false;
        modes.cursor_visible = true;
        modes.insert = false;
        modes.origin = false;
    }

    fn shown(&self) -> usize {
        usize::from(self.modes.alternate_screen)
    }

    pub(crate) fn show_alternate(&mut self, alternate: bool) {
        self.modes.alternate_screen = alternate;
        self.kitty_changed();
    }

    pub(crate) fn set_title(&mut self, title: &str) {
        self.title = clean(title, MAX_TITLE);
    }

    pub(crate) fn push_title(&mut self) {
        if self.titles.len() == MAX_TITLES {
            self.titles.remove(0);
        }
        self.titles.push(self.title.clone());
    }

    /// Whether there was a title to go back to.
    pub(crate) fn pop_title(&mut self) -> bool {
        self.titles.pop().map(|title| self.title = title).is_some()
    }

    /// `CSI > flags u`
    pub(crate) fn kitty_push(&mut self, flags: u16) {
        let stack = &mut self.kitty[usize::from(self.modes.alternate_screen)];
        if stack.len() == MAX_KITTY {
            stack.remove(0);
        }
        stack.push(flags as u8 & KITTY_FLAGS);
        self.kitty_changed();
    }

    /// `CSI < count u`
    pub(crate) fn kitty_pop(&mut self, count: u16) {
        let stack = &mut self.kitty[usize::from(self.modes.alternate_screen)];
        stack.truncate(stack.len().saturating_sub(usize::from(count.max(1))));
        self.kitty_changed();
    }

    /// `CSI = flags ; how u`: 1 all flags, 2 set these, 3 reset these.
    pub(crate) fn kitty_set(&mut self, flags: u16, how: u16) {
        let flags = flags as u8 & KITTY_FLAGS;
        let flags = match how {
            0 | 1 => flags,
            2 => self.modes.kitty_flags | flags,
            3 => self.modes.kitty_flags & !flags,
            _ => return,
        };
        let stack = &mut self.kitty[usize::from(self.modes.alternate_screen)];
        stack.pop();
        stack.push(flags);
        self.kitty_changed();
    }

    fn kitty_changed(&mut self) {
        self.modes.kitty_flags = self.kitty[self.shown()].last().copied().unwrap_or(0);
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.modes.encode(out);
        for stack in &self.kitty {
            out.bytes(stack);
        }
        out.bytes(self.title.as_bytes());
        out.varint(self.titles.len() as u64);
        for title in &self.titles {
            out.bytes(title.as_bytes());
        }
        out.bytes(self.cwd.as_bytes());
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut ledger = Self { modes: Modes::decode(input)?, ..Self::default() };
        for stack in &mut ledger.kitty {
            *stack = input.bytes(MAX_KITTY)?.to_vec();
            if stack.iter().any(|flags| flags & !KITTY_FLAGS != 0) {
                return Err(Malformed);
            }
        }
        ledger.kitty_changed();
        ledger.title = text(input, MAX_TITLE)?;
        for _ in 0..input.count(MAX_TITLES)? {
            ledger.titles.push(text(input, MAX_TITLE)?);
        }
        ledger.cwd = text(input, MAX_CWD)?;
        Ok(ledger)
    }
}

fn text(input: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let text = input.text(max)?;
    if text.chars().any(char::is_control) { Err(Malformed) } else { Ok(text.to_owned()) }
}

/// Text without controls, cut at a character so that it takes at most `max` bytes.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut clean = String::new();
    for ch in text.chars().filter(|ch| !ch.is_control()) {
        if clean.len() + ch.len_utf8() > max {
            break;
        }
        clean.push(ch);
    }
    clean
}
