//! Values that cells name by a number: each is kept once, and those that no cell names any more are swept when room is needed.

use std::borrow::Borrow;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Interned<T> {
    values: Vec<Option<T>>,
    /// The numbers in the order of their values: a table of a few thousand, searched often and seldom added to.
    sorted: Vec<u16>,
    free: Vec<u16>,
    /// After a sweep that freed little, so many values are refused before the next sweep, lest each costs one.
    weary: usize,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { values: Vec::new(), sorted: Vec::new(), free: Vec::new(), weary: 0 }
    }
}

/// The numbers that are named somewhere.
#[derive(Debug, Default)]
pub(crate) struct InUse(Vec<bool>);

impl InUse {
    pub(crate) fn add(&mut self, id: u16) {
        let index = usize::from(id);
        if self.0.len() <= index {
            self.0.resize(index + 1, false);
        }
        self.0[index] = true;
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index).copied().unwrap_or(false)
    }
}

impl<T> Interned<T> {
    pub(crate) fn get(&self, id: u16) -> Option<&T> {
        self.values.get(usize::from(id))?.as_ref()
    }

    /// Where the number of this value is among the sorted, or would be.
    fn place<Q: Ord + ?Sized>(&self, value: &Q) -> Result<usize, usize>
    where
        T: Borrow<Q>,
    {
        self.sorted.binary_search_by(|id| self.get(*id).map(Borrow::borrow).cmp(&Some(value)))
    }

    pub(crate) fn find<Q: Ord + ?Sized>(&self, value: &Q) -> Option<u16>
    where
        T: Borrow<Q>,
    {
        self.place(value).ok().map(|place| self.sorted[place])
    }

    /// Gives a value its number, if there are fewer than `limit`.
    pub(crate) fn add(&mut self, value: T, limit: usize) -> Option<u16>
    where
        T: Ord,
    {
        let place = match self.place(&value) {
            Ok(place) => return Some(self.sorted[place]),
            Err(place) => place,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.values.len() < limit.min(usize::from(u16::MAX)) => {
                self.values.push(None);
                (self.values.len() - 1) as u16
            }
            None => return None,
        };
        self.sorted.insert(place, id);
        self.values[usize::from(id)] = Some(value);
        Some(id)
    }

    /// Whether a sweep is worth its cost now.
    pub(crate) fn may_sweep(&mut self) -> bool {
        self.weary = self.weary.saturating_sub(1);
        self.weary == 0
    }

    /// Forgets the values that nothing names any more.
    pub(crate) fn sweep(&mut self, in_use: &InUse) {
        self.sorted.retain(|id| in_use.contains(usize::from(*id)));
        for (index, value) in self.values.iter_mut().enumerate() {
            if !in_use.contains(index) && value.take().is_some() {
                self.free.push(index as u16);
            }
        }
        if self.free.len() < self.values.len() / 4 {
            self.weary = self.values.len() / 4;
        }
    }

    /// A sweep has freed little of what is scarce: the next one waits.
    pub(crate) fn tire(&mut self) {
        self.weary = self.weary.max(self.values.len() / 4);
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_a_number_and_a_sweep_frees_what_is_not_named() {
        let mut table = Interned::default();
        let first = table.add("one".to_owned(), 2).expect("room");
        let second = table.add("two".to_owned(), 2).expect("room");
        assert_eq!((table.add("one".to_owned(), 2), table.find("two")), (Some(first), Some(second)));
        assert_eq!(table.add("three".to_owned(), 2), None);
        let mut in_use = InUse::default();
        in_use.add(first);
        table.sweep(&in_use);
        assert_eq!((table.find("two"), table.get(second)), (None, None));
        assert_eq!(table.add("three".to_owned(), 2), Some(second));
        assert_eq!((table.find("one"), table.values().count()), (Some(first), 2));
    }

    #[test]
    fn after_a_sweep_in_vain_the_next_waits() {
        let mut table = Interned::default();
        let mut in_use = InUse::default();
        (0..100_u32).for_each(|n| in_use.add(table.add(n, 100).expect("room")));
        table.sweep(&in_use);
        assert_eq!((0..100).position(|_| table.may_sweep()), Some(24));
    }
}
