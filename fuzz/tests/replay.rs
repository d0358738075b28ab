//! Every seed and everything that a search has kept, once more.

#[test]
fn nothing_that_was_found_comes_back() {
    for (name, target) in happy_fuzz::TARGETS {
        let seeds = happy_fuzz::seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| target(seed));
        let kept = happy_fuzz::corpus::read(name).expect("a corpus that can be read");
        assert!(!kept.is_empty(), "nothing is kept of {name}");
        kept.iter().for_each(|input| target(input));
    }
}

/// What the search would find soon: every seed cut short, and with each byte changed.
#[test]
fn seeds_that_are_cut_or_changed_do_no_harm() {
    for (name, target) in happy_fuzz::TARGETS {
        for seed in happy_fuzz::seeds::of(name) {
            for end in (0..seed.len()).step_by(1 + seed.len() / 64) {
                target(&seed[..end]);
                let mut changed = seed.clone();
                changed[end] ^= 0x41;
                target(&changed);
            }
        }
    }
}
