//! What few cells have: a colour of the underline, and a link. Cells name them by a number.

use crate::cell::{Cell, Pen};
use crate::interned::{InUse, Interned};

/// The longest address of a link (OSC 8), in bytes; longer ones are dropped, and their text is text.
pub(crate) const MAX_LINK: usize = 2048;
/// Addresses of all links on both screens, in bytes: 60 rows with 40 links of a hundred bytes each.
pub(crate) const MAX_LINK_BYTES: usize = 256 * 1024;
/// More than there are links and colours on any screen.
pub(crate) const MAX_EXTRAS: usize = 4096;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Extra {
    /// A colour as in cells; the default is that of the text.
    pub(crate) underline: u32,
    /// An address without controls; empty for none.
    pub(crate) link: Box<str>,
}

/// A table of a bounded number of extras with addresses of a bounded size. The number 0 is that of none.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    table: Interned<Extra>,
    /// Of the addresses.
    bytes: usize,
}

impl Extras {
    /// What a number stands for; nothing for 0.
    pub(crate) fn get(&self, id: u16) -> Option<&Extra> {
        self.table.get(id.checked_sub(1)?)
    }

    /// The number of this, if it is known or there is room.
    pub(crate) fn intern(&mut self, extra: &Extra) -> Option<u16> {
        if *extra == Extra::default() {
            return Some(0);
        }
        let id = match self.table.find(extra) {
            Some(id) => id,
            None if self.bytes + extra.link.len() > MAX_LINK_BYTES => return None,
            None => {
                let id = self.table.add(extra.clone(), MAX_EXTRAS)?;
                self.bytes += extra.link.len();
                id
            }
        };
        Some(id + 1)
    }

    /// Whether a sweep is worth its cost now.
    pub(crate) fn may_sweep(&mut self) -> bool {
        self.table.may_sweep()
    }

    /// Forgets what neither cells nor pens have any more.
    pub(crate) fn sweep<'c>(&mut self, cells: impl Iterator<Item = &'c Cell>, pens: &[Pen]) {
        let mut in_use = InUse::default();
        let ids = cells.map(|cell| cell.pen.extra).chain(pens.iter().map(|pen| pen.extra));
        ids.filter_map(|id| id.checked_sub(1)).for_each(|id| in_use.add(id));
        self.table.sweep(&in_use);
        self.bytes = self.table.values().map(|extra| extra.link.len()).sum();
        if self.bytes > MAX_LINK_BYTES / 4 * 3 {
            self.table.tire();
        }
    }
}

/// An address that a viewer may open when somebody asks for it, or nothing: of the web, short, and without what could hide in it.
pub(crate) fn address(uri: &str) -> Option<&str> {
    let scheme = uri.split_once("://")?.0;
    let web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    // Whoever prints an address is asked to percent-encode all but these.
    (web && uri.len() <= MAX_LINK && uri.bytes().all(|byte| matches!(byte, b'!'..=b'~'))).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extra(link: &str) -> Extra {
        Extra { underline: 0, link: link.into() }
    }

    #[test]
    fn nothing_is_number_0_and_addresses_have_a_bound_together() {
        let mut extras = Extras::default();
        assert_eq!(extras.intern(&extra("")), Some(0));
        assert_eq!(extras.get(0), None);
        let long = |n: usize| extra(&format!("{n:0>MAX_LINK$}"));
        let full = MAX_LINK_BYTES / MAX_LINK;
        let ids: Vec<u16> = (0..full).map_while(|n| extras.intern(&long(n))).collect();
        assert_eq!((ids.len(), extras.intern(&long(full))), (full, None));
        assert_eq!(extras.intern(&long(5)), Some(ids[5]), "what is known needs no room");

        let cell = Cell::blank(Pen { extra: ids[7], ..Pen::default() });
        extras.sweep([cell].iter(), &[Pen { extra: ids[9], ..Pen::default() }]);
        assert_eq!((extras.bytes, extras.get(ids[7]), extras.get(ids[8])), (2 * MAX_LINK, Some(&long(7)), None));
        assert!(extras.intern(&long(full)).is_some());
    }

    #[test]
    fn only_addresses_of_the_web_are_links() {
        for good in ["http://a", "https://example.com/a?b=%20c#d", "HTTPS://EXAMPLE"] {
            assert_eq!(address(good), Some(good));
        }
        let long = format!("https://{}", "x".repeat(MAX_LINK));
        for bad in [
            "",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "javascript://x",
            "https:/a",
            "https://a b",
            "https://ä",
            &long,
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
