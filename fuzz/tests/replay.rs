//! Every seed and everything that a search has kept, once more.

use std::path::Path;

#[test]
fn nothing_that_was_found_comes_back() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in happy_fuzz::TARGETS {
        let seeds = happy_fuzz::seeds::of(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        seeds.iter().for_each(|seed| target(seed));
        let Ok(folder) = std::fs::read_dir(corpus.join(name)) else { continue };
        for file in folder {
            target(&std::fs::read(file.expect("a readable folder").path()).expect("a readable file"));
        }
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
