//! What is in a machine record (`PROTOCOL 7.1`): sealed by the machine, opened by the devices that it gave its record key over their links.
//!
//! The relay keeps records and may be hostile: machine, kind, version and the key's generation are authenticated, so a record opens as what
//! it was sealed as and as nothing else. That a lower version is refused is up to the reader, who remembers the last one ([`Seen`]).

use happy_crypto::{DeviceId, seal};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The key under which a machine seals its records, another one after each revocation.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct RecordKey {
    /// Counts the keys of a machine.
    pub generation: u32,
    /// Random.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl RecordKey {
    /// A first key, or the one after another.
    pub fn next(rng: &mut impl CryptoRng, before: Option<&RecordKey>) -> RecordKey {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        RecordKey { generation: before.map_or(1, |before| before.generation.saturating_add(1)), secret }
    }

    /// As a machine gives it over its link: the secret as 64 hexadecimal digits.
    pub fn secret_text(&self) -> String {
        self.secret.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what [`RecordKey::secret_text`] gave; nothing of anything else.
    pub fn from_text(generation: u32, secret: &str) -> Option<RecordKey> {
        let digits = secret.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut key = RecordKey { generation, secret: [0; 32] };
        for (byte, pair) in key.secret.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(key)
    }

    /// Seals a record.
    pub fn seal(&self, rng: &mut impl CryptoRng, machine: &DeviceId, kind: u8, version: u64, text: &[u8]) -> Vec<u8> {
        let mut sealed = self.generation.to_be_bytes().to_vec();
        sealed.extend(seal::seal(rng, &self.secret, &self.label(machine, kind, version), text));
        sealed
    }

    /// Opens a record that is said to be of this machine, kind and version.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(
        &self,
        machine: &DeviceId,
        kind: u8,
        version: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        let (generation, sealed) = sealed.split_first_chunk().ok_or(RecordError::CannotBeOpened)?;
        let generation = u32::from_be_bytes(*generation);
        if generation != self.generation {
            return Err(RecordError::OtherKey(generation));
        }
        seal::open(&self.secret, &self.label(machine, kind, version), sealed).map_err(|_| RecordError::CannotBeOpened)
    }

    fn label(&self, machine: &DeviceId, kind: u8, version: u64) -> String {
        format!("machine record {kind} {version} {} {machine}", self.generation)
    }
}

/// A record was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Sealed with the key of this generation.
    #[error("the record was sealed with another key ({0}); the machine gives it over its link")]
    OtherKey(u32),
    /// Of another machine, kind or version than it is said to be, or damaged.
    #[error("the record is damaged, or is not what it is said to be")]
    CannotBeOpened,
    /// A relay shows what was there before.
    #[error("the record is an older one than was shown before")]
    Older,
}

/// The newest version of each kind that was seen of one machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen([u64; 2]);

impl Seen {
    /// As it was stored.
    pub fn new(metadata: u64, state: u64) -> Seen {
        Seen([metadata, state])
    }

    /// The newest of a kind, 0 when none was seen.
    pub fn version(&self, kind: u8) -> u64 {
        self.slot(kind).map_or(0, |slot| self.0[slot])
    }

    /// Opens a record and remembers its version; a lower one than was seen is refused, and one that does not open changes nothing.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn open(
        &mut self,
        key: &RecordKey,
        machine: &DeviceId,
        kind: u8,
        version: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, RecordError> {
        let slot = self.slot(kind).ok_or(RecordError::CannotBeOpened)?;
        if version < self.0[slot] {
            return Err(RecordError::Older);
        }
        let text = key.open(machine, kind, version, sealed)?;
        self.0[slot] = version;
        Ok(text)
    }

    fn slot(&self, kind: u8) -> Option<usize> {
        usize::from(kind).checked_sub(1).filter(|slot| *slot < self.0.len())
    }
}

/// So far ahead of our own a version is believed that does not open: more than a machine uses in its life, and a relay that lies so at every
/// login for a century uses up no more than a small part of what there is.
const MAX_JUMP: u64 = 1 << 20;

/// One record on its way to a relay: compare and set, with another try after a conflict. Pure; whoever drives it sends what
/// [`Publisher::to_put`] gives and hands over what comes back.
///
/// Versions only grow, whatever relays have: at one that is behind (it takes no other version than the one after its own) the versions in
/// between are put one after the other, all with the same text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    text: Vec<u8>,
    /// Of the text; the last one that was ever used, when there is none.
    version: u64,
    /// It has left this machine: another text needs another version.
    used: bool,
    /// What the relay is to have next, at most `version`.
    next: u64,
    sealed: Option<Vec<u8>>,
    stored: bool,
}

impl Publisher {
    /// With the last version that this machine has ever used, 0 for none.
    pub fn new(version: u64) -> Publisher {
        Publisher { text: Vec::new(), version, used: true, next: version, sealed: None, stored: true }
    }

    /// The version of the text. To be on the disk before [`Publisher::to_put`] is sent, so that none stands for two texts after a crash.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the record says.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the relay has it.
    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// It says this from now on, or the same under another key.
    pub fn set(&mut self, text: Vec<u8>) {
        if std::mem::take(&mut self.used) {
            self.version = self.version.saturating_add(1);
        }
        (self.text, self.next, self.sealed, self.stored) = (text, self.version, None, false);
    }

    /// What is to be put now; nothing when the relay has it. The same bytes each time, so that a repetition is no conflict.
    pub fn to_put(&mut self, seal: impl FnOnce(u64, &[u8]) -> Vec<u8>) -> Option<(u64, &[u8])> {
        if self.stored {
            return None;
        }
        self.used = true;
        let sealed = self.sealed.get_or_insert_with(|| seal(self.next, &self.text));
        Some((self.next, sealed))
    }

    /// The relay has this version, which may have been put before another text was set.
    pub fn on_stored(&mut self, version: u64) {
        if version != self.next || self.stored {
            return;
        }
        self.stored = self.next == self.version;
        if !self.stored {
            (self.next, self.sealed) = (self.next + 1, None);
        }
    }

    /// The relay has this version, and ours does not follow it. `is_ours` says whether it opens as a record of this machine; one that does not
    /// may be of a life whose key is lost. False when that is further ahead than any machine gets: a lie, after which no version of ours would
    /// be left if it were believed.
    pub fn on_conflict(&mut self, theirs: u64, is_ours: bool) -> bool {
        if self.stored {
            return true;
        }
        if theirs >= self.version {
            if !is_ours && theirs - self.version > MAX_JUMP {
                return false;
            }
            self.version = theirs.saturating_add(1);
        }
        self.next = self.version.min(theirs.saturating_add(1));
        self.sealed = None;
        true
    }

    /// The relay has lost what it had, or is another one.
    pub fn on_lost(&mut self) {
        if !self.text.is_empty() {
            (self.next, self.stored, self.sealed) = (self.version, false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const STATE: u8 = crate::relay::record_kind::STATE;
    const METADATA: u8 = crate::relay::record_kind::METADATA;

    fn machine(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    #[test]
    fn a_record_opens_as_what_it_was_sealed_as_and_as_nothing_else() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = RecordKey::next(&mut rng, None);
        let sealed = key.seal(&mut rng, &machine(1), STATE, 7, b"running");
        assert_eq!(key.open(&machine(1), STATE, 7, &sealed).unwrap()[..], b"running"[..]);
        for (id, kind, version) in [(2, STATE, 7), (1, METADATA, 7), (1, STATE, 8)] {
            assert_eq!(key.open(&machine(id), kind, version, &sealed), Err(RecordError::CannotBeOpened));
        }
        for at in 4..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(key.open(&machine(1), STATE, 7, &damaged), Err(RecordError::CannotBeOpened), "byte {at}");
        }
        (0..sealed.len()).for_each(|cut| assert!(key.open(&machine(1), STATE, 7, &sealed[..cut]).is_err()));
    }

    #[test]
    fn a_key_goes_over_a_link_as_text_and_nothing_else_is_taken_for_one() {
        let key = RecordKey { generation: 7, secret: std::array::from_fn(|at| at as u8 * 8) };
        assert_eq!(RecordKey::from_text(7, &key.secret_text()), Some(key));
        for wrong in ["", "00", &"+0".repeat(32), &"0g".repeat(32), &"0".repeat(66), &"é".repeat(32)] {
            assert_eq!(RecordKey::from_text(7, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_key_before_opens_nothing_new() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let before = RecordKey::next(&mut rng, None);
        let key = RecordKey::next(&mut rng, Some(&before));
        assert_ne!(before.secret, key.secret);
        let mut sealed = key.seal(&mut rng, &machine(1), STATE, 8, b"offline");
        assert_eq!(before.open(&machine(1), STATE, 8, &sealed), Err(RecordError::OtherKey(2)));
        sealed[3] = 1;
        assert_eq!(before.open(&machine(1), STATE, 8, &sealed), Err(RecordError::CannotBeOpened));
        assert!(!format!("{key:?}").contains(&key.secret[0].to_string()) || !format!("{key:?}").contains("secret"));
    }

    #[test]
    fn an_older_record_that_a_relay_shows_again_is_refused() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let key = RecordKey::next(&mut rng, None);
        let [old, new] = [7, 8].map(|version| key.seal(&mut rng, &machine(1), STATE, version, b"x"));
        let mut seen = Seen::default();
        assert!(seen.open(&key, &machine(1), STATE, 8, &new).is_ok());
        assert_eq!(seen.open(&key, &machine(1), STATE, 7, &old), Err(RecordError::Older));
        assert_eq!(
            seen.open(&key, &machine(1), STATE, 9, &old),
            Err(RecordError::CannotBeOpened),
            "with a newer number"
        );
        assert_eq!(seen.version(STATE), 8, "what does not open counts for nothing");
        assert!(seen.open(&key, &machine(1), STATE, 8, &new).is_ok(), "the same again is no fault");
        assert!(seen.open(&key, &machine(1), 3, 1, &old).is_err(), "a kind that nobody knows");
    }

    /// A relay's side, as `PROTOCOL 7` has it.
    #[derive(Default)]
    struct Relay(Option<(u64, Vec<u8>)>);

    impl Relay {
        fn put(&mut self, publisher: &mut Publisher) {
            let seal = |version: u64, text: &[u8]| [text, format!("@{version}").as_bytes()].concat();
            let Some((version, sealed)) = publisher.to_put(seal) else { return };
            let sealed = sealed.to_vec();
            match &self.0 {
                Some((theirs, bytes)) if *theirs + 1 != version && (*theirs, bytes) != (version, &sealed) => {
                    assert!(publisher.on_conflict(*theirs, true));
                }
                _ => {
                    self.0 = Some((version, sealed));
                    publisher.on_stored(version);
                }
            }
        }

        fn says(&self) -> (u64, &str) {
            let (version, text) = self.0.as_ref().unwrap();
            (*version, std::str::from_utf8(text).unwrap())
        }
    }

    #[test]
    fn two_writers_race_and_both_end_right() {
        let (mut relay, mut one, mut two) = (Relay::default(), Publisher::new(0), Publisher::new(0));
        one.set(b"a".to_vec());
        two.set(b"b".to_vec());
        let mut versions = Vec::new();
        for round in 0..10 {
            relay.put(&mut one);
            relay.put(&mut two);
            versions.push(relay.says().0);
            if round == 4 {
                one.set(b"c".to_vec());
                two.set(b"d".to_vec());
            }
        }
        assert!(one.is_stored() && two.is_stored());
        assert!(versions.is_sorted(), "{versions:?}");
        // Each text was there in its turn; that of whoever came last remains, under the highest version.
        assert_eq!(relay.says(), (4, "c@4"));
        assert_eq!((one.version(), two.version()), (4, 3));
    }

    #[test]
    fn a_relay_that_is_behind_or_has_lost_everything_has_the_newest_in_the_end() {
        let (mut relay, mut publisher) = (Relay::default(), Publisher::new(0));
        for text in ["a", "b", "c", "d", "e"] {
            publisher.set(text.into());
            // This relay is away; another one takes it.
            assert!(publisher.to_put(|_, text| text.to_vec()).is_some());
        }
        relay.0 = Some((2, b"b@2".to_vec()));
        publisher.on_lost();
        (0..10).for_each(|_| relay.put(&mut publisher));
        assert_eq!((publisher.is_stored(), relay.says()), (true, (5, "e@5")));
        relay = Relay::default();
        publisher.on_lost();
        relay.put(&mut publisher);
        assert_eq!((publisher.is_stored(), relay.says()), (true, (5, "e@5")));
    }

    #[test]
    fn a_relay_cannot_use_up_the_versions_with_a_lie() {
        let mut publisher = Publisher::new(3);
        publisher.set(b"a".to_vec());
        assert!(!publisher.on_conflict(u64::MAX - 1, false));
        assert_eq!(publisher.version(), 4);
        // Of another writer of this machine it is believed.
        assert!(publisher.on_conflict(9, true));
        assert_eq!(publisher.to_put(|version, _| vec![version as u8]), Some((10, &[10][..])));
    }

    #[test]
    fn what_was_never_sent_costs_no_version_and_what_was_sent_keeps_its_bytes() {
        let mut publisher = Publisher::new(0);
        publisher.set(b"a".to_vec());
        publisher.set(b"b".to_vec());
        assert_eq!(publisher.version(), 1);
        let mut sealings = 0u8;
        for _ in 0..3 {
            let put = publisher.to_put(|_, _| {
                sealings += 1;
                vec![sealings]
            });
            assert_eq!(put, Some((1, &[1][..])));
        }
        publisher.set(b"c".to_vec());
        publisher.on_stored(1);
        assert!(!publisher.is_stored(), "that was the text before");
        assert_eq!(publisher.version(), 2);
    }
}
