//! Characters with combining marks, which cells name by a number.
//!
//! Programs and shells count combining marks as zero columns, so a mark must join the character before it or every
//! column after it is wrong.

use crate::cell::{Glyph, Kind};
use crate::interned::{InUse, Interned};

/// A base character and its marks, in bytes. Enough for every script; stacks of marks for fun end here.
pub(crate) const MAX_CLUSTER: usize = 32;
/// As many as a table can number, whatever the size of the screen.
const MAX_CLUSTERS: usize = 0xc000;
const ZERO_WIDTH_JOINER: char = '\u{200d}';

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters(Interned<Box<str>>);

impl Clusters {
    /// Calls with the text of a glyph; nothing for the second half of a wide character.
    pub(crate) fn text<T>(&self, glyph: Glyph, take: impl FnOnce(&str) -> T) -> Option<T> {
        match glyph.kind() {
            Kind::Character(ch) => Some(take(ch.encode_utf8(&mut [0; 4]))),
            Kind::Cluster(id) => Some(take(self.0.get(id).map_or("\u{fffd}", |text| text))),
            Kind::Tail => None,
        }
    }

    /// The text of a character with marks.
    pub(crate) fn get(&self, id: u16) -> &str {
        self.0.get(id).map_or("\u{fffd}", |text| text)
    }

    /// The glyph with one more mark, if it is already known or there is room.
    pub(crate) fn join(&self, base: Glyph, mark: char) -> Joined {
        // A joiner would make two emoji, which stand in two columns each, one when drawn.
        if mark == ZERO_WIDTH_JOINER && base.is_wide() {
            return Joined::Never;
        }
        let Some(mut text) = self.text(base, str::to_owned) else { return Joined::Never };
        if text.len() + mark.len_utf8() > MAX_CLUSTER {
            return Joined::Never;
        }
        text.push(mark);
        match self.0.find(text.as_str()) {
            Some(id) => Joined::Glyph(Glyph::cluster(id, base.is_wide())),
            None => Joined::New(text.into()),
        }
    }

    /// Gives a new cluster its number; `None` when all are taken.
    pub(crate) fn add(&mut self, text: Box<str>, wide: bool, limit: usize) -> Option<Glyph> {
        self.0.add(text, limit).map(|id| Glyph::cluster(id, wide))
    }

    /// Four times what one screen can show, so that a sweep frees at least half and its cost is spread thin.
    pub(crate) fn limit(cols: usize, rows: usize) -> usize {
        (cols * rows * 4 + 1024).min(MAX_CLUSTERS)
    }

    /// Whether a sweep is worth its cost now.
    pub(crate) fn may_sweep(&mut self) -> bool {
        self.0.may_sweep()
    }

    /// Forgets the clusters that no cell shows any more.
    pub(crate) fn sweep(&mut self, shown: impl Iterator<Item = Glyph>) {
        let mut in_use = InUse::default();
        shown.for_each(|glyph| {
            if let Kind::Cluster(id) = glyph.kind() {
                in_use.add(id);
            }
        });
        self.0.sweep(&in_use);
    }
}

/// What became of a mark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// The cell now holds this.
    Glyph(Glyph),
    /// A cluster that is not in the table yet.
    New(Box<str>),
    /// The mark is dropped: the cluster is full.
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(clusters: &mut Clusters, base: Glyph, mark: char) -> Option<Glyph> {
        match clusters.join(base, mark) {
            Joined::Glyph(glyph) => Some(glyph),
            Joined::New(text) => clusters.add(text, base.is_wide(), 100),
            Joined::Never => None,
        }
    }

    #[test]
    fn marks_pile_up_to_the_bound_and_equal_clusters_share_a_number() {
        let mut clusters = Clusters::default();
        let base = Glyph::new('e', false);
        let first = join(&mut clusters, base, '\u{301}').expect("room");
        assert_eq!(clusters.text(first, str::to_owned).as_deref(), Some("e\u{301}"));
        assert_eq!(join(&mut clusters, base, '\u{301}'), Some(first));
        let mut glyph = first;
        while let Some(next) = join(&mut clusters, glyph, '\u{302}') {
            glyph = next;
        }
        assert!((31..=32).contains(&clusters.text(glyph, str::len).expect("known")));
    }

    #[test]
    fn a_cluster_is_as_wide_as_its_base_and_emoji_do_not_melt() {
        let mut clusters = Clusters::default();
        for wide in [false, true] {
            let glyph = join(&mut clusters, Glyph::new('\u{1100}', wide), '\u{1161}').expect("room");
            assert_eq!(glyph.is_wide(), wide);
        }
        assert_eq!(join(&mut clusters, Glyph::new('👩', true), ZERO_WIDTH_JOINER), None);
    }
}
