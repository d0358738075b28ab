//! Safety numbers (PROTOCOL 2): what two people read to each other to be sure that nobody stands between their devices.

use sha2::{Digest, Sha256};

use crate::{IdentityRecord, labelled_hash};

/// Makes a search for a second identity with the same digits 5,200 times as dear, and costs us a millisecond.
const ROUNDS: usize = 5_200;

/// Sixty digits in twelve groups, separated by spaces; the same for both sides.
#[must_use]
pub fn safety_number(a: &IdentityRecord, b: &IdentityRecord) -> String {
    let (first, second) = if a.device_id() <= b.device_id() { (a, b) } else { (b, a) };
    let groups: Vec<String> = [half(first), half(second)].concat();
    groups.join(" ")
}

fn half(record: &IdentityRecord) -> Vec<String> {
    let identity = record.without_signature();
    let mut digest = labelled_hash("happy/1 safety number", &[identity]);
    for _ in 0..ROUNDS {
        digest = Sha256::new().chain_update(digest).chain_update(identity).finalize().into();
    }
    let (groups, _) = digest[..30].as_chunks::<5>();
    groups
        .iter()
        .map(|[a, b, c, d, e]| format!("{:05}", u64::from_be_bytes([0, 0, 0, *a, *b, *c, *d, *e]) % 100_000))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, testing::rng};

    #[test]
    fn both_sides_see_the_same_sixty_digits() {
        let (a, b) = (Identity::generate(&mut rng(1)), Identity::generate(&mut rng(2)));
        let number = safety_number(a.record(), b.record());
        assert_eq!(number, safety_number(b.record(), a.record()));
        let groups: Vec<&str> = number.split(' ').collect();
        assert_eq!(groups.len(), 12);
        assert!(groups.iter().all(|group| group.len() == 5 && group.bytes().all(|c| c.is_ascii_digit())));
    }

    /// PROTOCOL 2: two programs that order the halves otherwise would never agree.
    #[test]
    fn the_half_of_the_smaller_device_id_comes_first() {
        let mut devices = [1, 2].map(|seed| Identity::generate(&mut rng(seed)));
        devices.sort_by_key(Identity::device_id);
        let [smaller, larger] = &devices;
        assert!(safety_number(larger.record(), smaller.record()).starts_with(&half(smaller.record()).join(" ")));
    }

    #[test]
    fn another_identity_has_another_half() {
        let [a, b, c] = [1, 2, 3].map(|seed| Identity::generate(&mut rng(seed)));
        let with_b = safety_number(a.record(), b.record());
        let with_c = safety_number(a.record(), c.record());
        assert_ne!(with_b, with_c);
        let mine = half(a.record()).join(" ");
        assert!(with_b.contains(&mine) && with_c.contains(&mine));
    }
}
