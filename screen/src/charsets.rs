//! Character sets: what ASCII bytes are drawn as. Four can be designated (G0 to G3), one of them is in use.

use crate::codec::{Malformed, Reader, Writer};

/// What differs from ASCII in the national sets, where each of these stands. All other characters are the same.
const REPLACED: &[u8; 12] = b"#@[\\]^_`{|}~";

/// A set by the byte that designates it, and what stands in the places of [`REPLACED`].
const NATIONAL: [(u8, &str); 11] = [
    (b'A', "£@[\\]^_`{|}~"),
    (b'4', "£¾ĳ½|^_`¨ƒ¼´"),
    (b'5', "#@ÄÖÅÜ_éäöåü"),
    (b'R', "£à°ç§^_`éùè¨"),
    (b'Q', "#àâçêî_ôéùèû"),
    (b'K', "#§ÄÖÜ^_`äöüß"),
    (b'Y', "£§°çé^_ùàòèì"),
    (b'6', "#ÄÆØÅÜ_äæøåü"),
    (b'Z', "£§¡Ñ¿^_`°ñç~"),
    (b'7', "#ÉÄÖÅÜ_éäöåü"),
    (b'=', "ùàéçêîèôäöüû"),
];

/// Line drawing, from `` ` `` to `~`.
const DRAWING: &str = "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·";

/// A set of 94 characters in the place of ASCII.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Charset {
    #[default]
    Ascii,
    Drawing,
    /// An entry of [`NATIONAL`].
    National(u8),
}

impl Charset {
    /// By the last byte of the sequence that designates it. Sets that are not known are ASCII.
    fn of(byte: u8) -> Self {
        // The sets of some countries have two names.
        let name = match byte {
            b'0' => return Self::Drawing,
            b'C' => b'5',
            b'9' => b'Q',
            b'E' | b'`' => b'6',
            b'H' => b'7',
            name => name,
        };
        NATIONAL.iter().position(|(set, _)| *set == name).map_or(Self::Ascii, |index| Self::National(index as u8))
    }

    fn draw(self, ch: char) -> char {
        let index = match self {
            Self::Drawing => (ch as usize).checked_sub(0x60),
            _ => REPLACED.iter().position(|replaced| char::from(*replaced) == ch),
        };
        let set = match self {
            Self::Ascii => return ch,
            Self::Drawing => DRAWING,
            Self::National(index) => NATIONAL.get(usize::from(index)).map_or("", |(_, set)| set),
        };
        index.and_then(|index| set.chars().nth(index)).unwrap_or(ch)
    }

    fn number(self) -> u8 {
        match self {
            Self::Ascii => 0,
            Self::Drawing => 1,
            Self::National(index) => 2 + index,
        }
    }

    fn from_number(number: u8) -> Result<Self, Malformed> {
        match number {
            0 => Ok(Self::Ascii),
            1 => Ok(Self::Drawing),
            national if usize::from(national - 2) < NATIONAL.len() => Ok(Self::National(national - 2)),
            _ => Err(Malformed),
        }
    }
}

/// The designated sets, and which is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Charsets {
    sets: [Charset; 4],
    /// The set in use (SO, SI, LS2, LS3).
    locked: u8,
    /// The set for the next character only (SS2, SS3).
    single: Option<u8>,
}

impl Charsets {
    /// `ESC ( 0` and its like: `slot` is 0 to 3, `set` the last byte.
    pub(crate) fn designate(&mut self, slot: u8, set: u8) {
        if let Some(slot) = self.sets.get_mut(usize::from(slot)) {
            *slot = Charset::of(set);
        }
    }

    /// From here on G0 to G3 is used.
    pub(crate) fn lock(&mut self, slot: u8) {
        self.locked = slot & 3;
    }

    /// The next character is of G2 or G3.
    pub(crate) fn shift_once(&mut self, slot: u8) {
        self.single = Some(slot & 3);
    }

    /// Whether text is drawn as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.single.is_none() && self.sets[usize::from(self.locked)] == Charset::Ascii
    }

    /// What a character is drawn as.
    pub(crate) fn draw(&mut self, ch: char) -> char {
        let slot = self.single.take().unwrap_or(self.locked);
        self.sets[usize::from(slot)].draw(ch)
    }

    /// The VT text that makes a terminal with none designated draw alike.
    pub(crate) fn vt(&self) -> String {
        let mut vt = String::new();
        for (slot, set) in ['(', ')', '*', '+'].into_iter().zip(self.sets) {
            let name = match set {
                Charset::Ascii => continue,
                Charset::Drawing => b'0',
                Charset::National(index) => NATIONAL.get(usize::from(index)).map_or(b'B', |(name, _)| *name),
            };
            vt.extend(['\x1b', slot, char::from(name)]);
        }
        vt.push_str(["", "\x0e", "\x1bn", "\x1bo"][usize::from(self.locked)]);
        vt.push_str(match self.single {
            Some(2) => "\x1bN",
            Some(3) => "\x1bO",
            _ => "",
        });
        vt
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.sets.iter().for_each(|set| out.u8(set.number()));
        out.u8(self.locked | self.single.map_or(0, |slot| 4 | slot << 3));
    }

    pub(crate) fn decode(input: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut charsets = Self::default();
        for set in &mut charsets.sets {
            *set = Charset::from_number(input.u8()?)?;
        }
        let shifts = input.u8()?;
        charsets.locked = shifts & 3;
        charsets.single = match shifts >> 2 {
            0 => None,
            single if single & 1 == 1 && single < 8 => Some(single >> 1),
            _ => return Err(Malformed),
        };
        Ok(charsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_has_its_characters_and_leaves_the_rest_alone() {
        for (set, text, drawn) in [
            (b'B', "#@[x]~", "#@[x]~"),
            (b'0', "_`aqx~A", "_◆▒─│·A"),
            (b'A', "#$~", "£$~"),
            (b'K', "[\\]{|}~ #", "ÄÖÜäöüß #"),
            (b'H', "@[\\]^`{|}~", "ÉÄÖÅÜéäöåü"),
            (b'=', "#@_~", "ùàèû"),
            (b'~', "#", "#"),
        ] {
            let mut charsets = Charsets::default();
            charsets.designate(0, set);
            assert_eq!(text.chars().map(|ch| charsets.draw(ch)).collect::<String>(), drawn, "{}", char::from(set));
            assert_eq!(charsets.draw('é'), 'é');
        }
        assert!(NATIONAL.iter().all(|(_, set)| set.chars().count() == REPLACED.len()));
        assert_eq!(DRAWING.chars().count(), 31);
    }

    #[test]
    fn locking_shifts_stay_and_single_shifts_last_for_one_character() {
        let mut charsets = Charsets::default();
        (0..4).zip(b"BA0K").for_each(|(slot, set)| charsets.designate(slot, *set));
        assert!(charsets.is_plain());
        charsets.shift_once(2);
        assert!(!charsets.is_plain());
        assert_eq!([charsets.draw('x'), charsets.draw('x')], ['│', 'x']);
        charsets.lock(3);
        assert_eq!([charsets.draw('['), charsets.draw('[')], ['Ä', 'Ä']);
        assert_eq!(charsets.vt(), "\x1b)A\x1b*0\x1b+K\x1bo");
    }

    #[test]
    fn they_come_back_from_bytes_and_nonsense_does_not() {
        let mut charsets = Charsets::default();
        charsets.designate(1, b'=');
        charsets.lock(1);
        for single in [None, Some(0), Some(3)] {
            charsets.single = single;
            let mut out = Writer::default();
            charsets.encode(&mut out);
            assert_eq!(Charsets::decode(&mut Reader(&out.0)), Ok(charsets));
        }
        for bad in [[0, 0, 0, 13, 0], [0, 0, 0, 0, 8], [0, 0, 0, 0, 32], [255, 0, 0, 0, 0]] {
            assert_eq!(Charsets::decode(&mut Reader(&bad)), Err(Malformed), "{bad:?}");
        }
    }
}
