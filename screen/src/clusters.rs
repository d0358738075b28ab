//! Characters with combining marks, for an engine whose cells hold one `char`.
//!
//! Programs and shells count combining marks as zero columns, so a mark must join the character before it or every
//! column after it is wrong. The engine sees a stand-in, as wide as the base character: from the private plane 16, or
//! from the end of plane 3, which is wide and holds no characters. Here is what each stands for. Real characters of
//! these ranges are shown as U+FFFD.

use unicode_width::UnicodeWidthChar;

/// A base character and its marks, in bytes. Enough for every script; stacks of marks for fun end here.
pub(crate) const MAX_CLUSTER: usize = 32;
const NARROW: u32 = 0x10_0000;
const WIDE: u32 = 0x3_4000;
/// Code points from [`WIDE`] to the end of its plane, without the two noncharacters there.
const MAX_IDS: usize = 0xbffe;
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Clusters {
    texts: Vec<Option<Box<str>>>,
    /// The stand-ins in the order of their texts: a table of a few thousand, searched for every mark and seldom added to.
    sorted: Vec<char>,
    free: Vec<u16>,
    /// After a sweep that freed little, so many clusters are refused before the next sweep, lest each costs one.
    weary: usize,
}

/// Whether the engine's character is a stand-in.
pub(crate) fn is_stand_in(ch: char) -> bool {
    id(ch).is_some()
}

fn id(ch: char) -> Option<usize> {
    let offset = |base: u32| (ch as u32).checked_sub(base).map(|id| id as usize).filter(|id| *id < MAX_IDS);
    offset(NARROW).or_else(|| offset(WIDE))
}

/// Stand-ins, such as those that are shown.
#[derive(Debug, Default)]
pub(crate) struct StandIns(Vec<Option<char>>);

impl StandIns {
    /// Adds a character if it is a stand-in.
    pub(crate) fn add(&mut self, ch: char) {
        let Some(id) = id(ch) else { return };
        if self.0.len() <= id {
            self.0.resize(id + 1, None);
        }
        self.0[id] = Some(ch);
    }

    fn contains(&self, id: usize) -> bool {
        self.0.get(id).is_some_and(Option::is_some)
    }
}

impl FromIterator<char> for StandIns {
    fn from_iter<I: IntoIterator<Item = char>>(chars: I) -> Self {
        let mut found = Self::default();
        chars.into_iter().for_each(|ch| found.add(ch));
        found
    }
}

fn stand_in(base: u32, id: u16) -> char {
    char::from_u32(base + u32::from(id)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn is_wide(ch: char) -> bool {
    ch.width() == Some(2)
}

impl Clusters {
    /// What a stand-in stands for; `None` for a plain character.
    pub(crate) fn resolve(&self, ch: char) -> Option<&str> {
        let id = id(ch)?;
        Some(self.texts.get(id).and_then(|text| text.as_deref()).unwrap_or("\u{fffd}"))
    }

    /// The character or cluster `base` with one more mark, if it is already known or there is room.
    pub(crate) fn join(&mut self, base: char, mark: char) -> Joined {
        // A joiner would make two emoji, which stand in two columns each, one when drawn.
        if mark == ZERO_WIDTH_JOINER && is_wide(base) {
            return Joined::Never;
        }
        let mut text = self.resolve(base).map_or_else(|| base.to_string(), str::to_owned);
        if text.len() + mark.len_utf8() > MAX_CLUSTER {
            return Joined::Never;
        }
        text.push(mark);
        match self.find(&text) {
            Ok(known) => Joined::Character(self.sorted[known]),
            Err(_) => Joined::New(text),
        }
    }

    /// Where the stand-in of this text is among the sorted, or would be.
    fn find(&self, text: &str) -> Result<usize, usize> {
        self.sorted.binary_search_by(|ch| self.resolve(*ch).cmp(&Some(text)))
    }

    /// Gives a new cluster its stand-in; `None` when all are taken.
    pub(crate) fn add(&mut self, text: String, limit: usize) -> Option<char> {
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.texts.len() < limit.min(MAX_IDS) => {
                self.texts.push(None);
                (self.texts.len() - 1) as u16
            }
            None => return None,
        };
        Some(self.put(id, text.into_boxed_str()))
    }

    fn put(&mut self, id: u16, text: Box<str>) -> char {
        let base = if text.chars().next().is_some_and(is_wide) { WIDE } else { NARROW };
        let ch = stand_in(base, id);
        if let Err(place) = self.find(&text) {
            self.sorted.insert(place, ch);
        }
        self.texts[usize::from(id)] = Some(text);
        ch
    }

    /// Four times what one screen can show, so that a sweep frees at least half and its cost is spread thin.
    pub(crate) fn limit(cols: u16, rows: u16) -> usize {
        (usize::from(cols) * usize::from(rows) * 4 + 1024).min(MAX_IDS)
    }

    /// Whether a sweep is worth its cost now.
    pub(crate) fn may_sweep(&mut self) -> bool {
        self.weary = self.weary.saturating_sub(1);
        self.weary == 0
    }

    /// Forgets the clusters that no cell shows any more.
    pub(crate) fn sweep(&mut self, shown: &StandIns) {
        self.sorted.retain(|ch| id(*ch).is_some_and(|id| shown.contains(id)));
        for (index, text) in self.texts.iter_mut().enumerate() {
            if !shown.contains(index) && text.take().is_some() {
                self.free.push(index as u16);
            }
        }
        if self.free.len() < self.texts.len() / 4 {
            self.weary = self.texts.len() / 4;
        }
    }

    /// The given stand-ins' ids and texts, for a snapshot.
    pub(crate) fn entries(&self, shown: &StandIns) -> Vec<(u16, &str)> {
        let texts = self.texts.iter().enumerate().filter(|(id, _)| shown.contains(*id));
        texts.filter_map(|(id, text)| Some((id as u16, text.as_deref()?))).collect()
    }

    /// Rebuilds the table of a snapshot. `false` when an entry is impossible.
    pub(crate) fn insert(&mut self, id: u16, text: &str) -> bool {
        let index = usize::from(id);
        let fresh = self.texts.get(index).is_none_or(Option::is_none) && self.find(text).is_err();
        let sound =
            (1..=MAX_CLUSTER).contains(&text.len()) && !text.chars().any(|ch| ch.is_control() || is_stand_in(ch));
        if index >= MAX_IDS || !fresh || !sound {
            return false;
        }
        while self.texts.len() <= index {
            self.texts.push(None);
        }
        self.put(id, text.into());
        true
    }

    /// Closes a rebuilt table: the ids in between are free.
    pub(crate) fn seal(&mut self) {
        self.free = (0..self.texts.len()).filter(|index| self.texts[*index].is_none()).map(|id| id as u16).collect();
    }
}

/// What became of a mark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The cell now holds this.
    Character(char),
    /// A cluster that is not in the table yet.
    New(String),
    /// The mark is dropped: the cluster is full.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(clusters: &mut Clusters, base: char, mark: char, limit: usize) -> Option<char> {
        match clusters.join(base, mark) {
            Joined::Character(ch) => Some(ch),
            Joined::New(text) => clusters.add(text, limit),
            Joined::Never => None,
        }
    }

    #[test]
    fn marks_pile_up_to_the_bound_and_equal_clusters_share_a_stand_in() {
        let mut clusters = Clusters::default();
        let first = join(&mut clusters, 'e', '\u{301}', 10).expect("room");
        assert_eq!(clusters.resolve(first), Some("e\u{301}"));
        assert_eq!(join(&mut clusters, 'e', '\u{301}', 10), Some(first));
        let mut ch = first;
        while let Some(next) = join(&mut clusters, ch, '\u{302}', 100) {
            ch = next;
        }
        assert!(clusters.resolve(ch).expect("known").len() <= MAX_CLUSTER);
    }

    #[test]
    fn a_stand_in_is_as_wide_as_its_base() {
        let mut clusters = Clusters::default();
        for (base, mark, width) in [('e', '\u{301}', 1), ('\u{1100}', '\u{1161}', 2), ('☁', '\u{fe0f}', 1)] {
            let ch = join(&mut clusters, base, mark, 10).expect("room");
            assert_eq!(ch.width(), Some(width), "{base}");
            assert!(is_stand_in(ch));
        }
        assert_eq!(join(&mut clusters, '👩', ZERO_WIDTH_JOINER, 10), None);
    }

    #[test]
    fn a_full_table_refuses_until_a_sweep_frees_what_is_not_shown() {
        let mut clusters = Clusters::default();
        let kept = join(&mut clusters, 'a', '\u{301}', 2).expect("room");
        join(&mut clusters, 'b', '\u{301}', 2).expect("room");
        assert_eq!(join(&mut clusters, 'c', '\u{301}', 2), None);
        clusters.sweep(&StandIns::from_iter([kept]));
        let late = join(&mut clusters, 'c', '\u{301}', 2).expect("room again");
        assert_eq!(clusters.resolve(kept), Some("a\u{301}"));
        assert_eq!(clusters.resolve(late), Some("c\u{301}"));
    }
}
