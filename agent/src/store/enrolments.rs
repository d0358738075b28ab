//! `enrolments`: the keys that relays of others admit this machine by (`PROTOCOL 7`, Access).
//!
//! What stands here is made of the secret that a relay's operator gave; the secret itself is not kept.

use std::collections::BTreeMap;

use happy_pairing::Origin;
use happy_wire::enrolment::EnrolmentKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::store::{Home, file};
use crate::trouble::Trouble;

/// More relays than that one machine does not use.
const MAX_RELAYS: usize = 64;

#[derive(Default, Serialize, Deserialize)]
struct Stored {
    /// Seeds in hexadecimal, by the relay's origin.
    seeds: BTreeMap<String, String>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.seeds.values_mut().for_each(Zeroize::zeroize);
    }
}

/// The key for a relay, if this machine was given one.
///
/// # Errors
/// When the file cannot be read, or others could have read it.
pub fn key_for(home: &Home, relay: &Origin) -> Result<Option<EnrolmentKey>, Trouble> {
    let stored = read(home)?;
    let Some(text) = stored.seeds.get(relay.as_str()) else { return Ok(None) };
    let seed = unhex(text).ok_or_else(|| {
        Trouble::new(
            format!("The key for {relay} in {} cannot be read.", home.enrolments().display()),
            format!("Enrol again: `happy relay enroll {relay}`."),
        )
    })?;
    Ok(Some(EnrolmentKey::from_seed(&seed)))
}

/// Keeps the key for a relay; one that was there before is replaced.
///
/// # Errors
/// When it cannot be written; nothing has changed then.
pub fn put(home: &Home, relay: &Origin, key: &EnrolmentKey) -> Result<(), Trouble> {
    let mut stored = read(home)?;
    if stored.seeds.len() >= MAX_RELAYS && !stored.seeds.contains_key(relay.as_str()) {
        return Err(Trouble::new(
            format!("There are keys for {MAX_RELAYS} relays already."),
            format!("Take those of relays that are not used any more out of {}.", home.enrolments().display()),
        ));
    }
    let text: String = key.seed().iter().map(|byte| format!("{byte:02x}")).collect();
    stored.seeds.insert(relay.as_str().to_owned(), text);
    home.prepare()?;
    let bytes = Zeroizing::new(serde_json::to_vec_pretty(&stored).unwrap_or_default());
    file::replace(&home.enrolments(), &bytes, file::PRIVATE)
}

fn read(home: &Home) -> Result<Stored, Trouble> {
    let path = home.enrolments();
    let Some(bytes) = file::read_private(&path)? else { return Ok(Stored::default()) };
    serde_json::from_slice(&bytes).map_err(|error| {
        // Without the words around the mistake, which might be a key.
        Trouble::new(
            format!("{} cannot be read: there is a mistake in line {}.", path.display(), error.line()),
            "Move the file aside and enrol again: `happy relay enroll URL`.",
        )
    })
}

fn unhex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    for (byte, [high, low]) in seed.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn relay(n: usize) -> Origin {
        Origin::parse(&format!("https://relay{n}.example")).unwrap()
    }

    #[test]
    fn a_key_is_kept_for_its_relay_only() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        assert!(key_for(&home, &relay(1)).unwrap().is_none());
        put(&home, &relay(1), &EnrolmentKey::from_seed(&[7; 32])).unwrap();
        put(&home, &relay(2), &EnrolmentKey::from_seed(&[8; 32])).unwrap();
        let key = key_for(&home, &relay(1)).unwrap().unwrap();
        assert_eq!(key.public(), EnrolmentKey::from_seed(&[7; 32]).public());
        assert!(key_for(&home, &relay(3)).unwrap().is_none());
        assert_eq!(std::fs::metadata(home.enrolments()).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_torn_is_refused_without_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        put(&home, &relay(1), &EnrolmentKey::from_seed(&[7; 32])).unwrap();
        std::fs::set_permissions(home.enrolments(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(key_for(&home, &relay(1)).is_err());
        let torn = br#"{"seeds": {"https://relay1.example": "0707"#;
        file::replace(&home.enrolments(), torn, file::PRIVATE).unwrap();
        let trouble = key_for(&home, &relay(1)).unwrap_err();
        assert!(!format!("{trouble:?}").contains("0707"));
        let odd = br#"{"seeds": {"https://relay1.example": "07zz"}}"#;
        file::replace(&home.enrolments(), odd, file::PRIVATE).unwrap();
        assert!(key_for(&home, &relay(1)).is_err());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home")).unwrap();
        for n in 0..MAX_RELAYS {
            put(&home, &relay(n), &EnrolmentKey::from_seed(&[7; 32])).unwrap();
        }
        assert!(put(&home, &relay(MAX_RELAYS), &EnrolmentKey::from_seed(&[7; 32])).is_err());
        put(&home, &relay(0), &EnrolmentKey::from_seed(&[9; 32])).unwrap();
    }
}
