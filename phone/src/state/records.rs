//! With what the records of machines are opened (PROTOCOL 7.1), and the newest that were seen of each: kept over restarts, so that no relay
//! goes back behind them.

use std::collections::BTreeMap;

use happy_crypto::DeviceId;
use happy_wire::record::{RecordError, RecordKey, Seen};
use happy_wire::relay::record_kind;
use zeroize::Zeroizing;

use super::{MAX_MACHINES, Reader};

/// Of the machines that have given their keys.
#[derive(Default)]
pub struct Records(BTreeMap<DeviceId, (RecordKey, Seen)>);

/// A record that a relay has shown.
pub struct Opened {
    /// The plaintext.
    pub text: Zeroizing<Vec<u8>>,
    /// It is one that was not seen before.
    pub is_new: bool,
}

impl Records {
    /// A machine has said over its link with what its records are opened, and how far metadata and state have come. It is the machine itself
    /// that speaks, so its word counts; no version becomes lower by it. Says whether that is news to be stored.
    pub fn told(&mut self, machine: DeviceId, key: RecordKey, versions: [u64; 2]) -> bool {
        let before = self.0.get(&machine);
        let seen = before.map_or_else(Seen::default, |(_, seen)| *seen);
        let [metadata, state] = versions;
        let seen =
            Seen::new(seen.version(record_kind::METADATA).max(metadata), seen.version(record_kind::STATE).max(state));
        let now = (key, seen);
        let is_news = before != Some(&now);
        self.0.insert(machine, now);
        is_news
    }

    /// Opens what a relay shows. `is_linked` says that the machine tells its state itself: then a relay's record of the same version is what
    /// it said, or an older word than its last.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is changed.
    pub fn open(
        &mut self,
        machine: &DeviceId,
        kind: u8,
        version: u64,
        sealed: &[u8],
        is_linked: bool,
    ) -> Result<Option<Opened>, RecordError> {
        let Some((key, seen)) = self.0.get_mut(machine) else { return Ok(None) };
        let is_new = version > seen.version(kind);
        let text = seen.open(key, machine, kind, version, sealed)?;
        let is_overtaken = is_linked && kind == record_kind::STATE && !is_new;
        Ok((!is_overtaken).then_some(Opened { text, is_new }))
    }

    pub(super) fn forget(&mut self, machine: &DeviceId) {
        self.0.remove(machine);
    }

    /// Count u16; each: device id \[32], generation u32, secret \[32], versions of metadata and state u64 each.
    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(2 + self.0.len() * 84));
        out.extend_from_slice(&u16::try_from(self.0.len()).unwrap_or(u16::MAX).to_be_bytes());
        for (machine, (key, seen)) in &self.0 {
            out.extend_from_slice(machine.as_bytes());
            out.extend_from_slice(&key.generation.to_be_bytes());
            out.extend_from_slice(&key.secret);
            for kind in record_kind::ALL {
                out.extend_from_slice(&seen.version(kind).to_be_bytes());
            }
        }
        out
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Records> {
        let count = usize::from(u16::from_be_bytes(*reader.array()?));
        if count > MAX_MACHINES {
            return None;
        }
        let mut each = || {
            let machine = DeviceId::from_bytes(*reader.array()?);
            let key = RecordKey { generation: u32::from_be_bytes(*reader.array()?), secret: *reader.array()? };
            Some((machine, (key, Seen::new(reader.u64()?, reader.u64()?))))
        };
        (0..count).map(|_| each()).collect::<Option<_>>().map(Records)
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    const MACHINE: DeviceId = DeviceId::from_bytes([1; 32]);

    fn key(generation: u32) -> RecordKey {
        RecordKey { generation, secret: [generation as u8; 32] }
    }

    fn sealed(generation: u32, kind: u8, version: u64) -> Vec<u8> {
        let mut rng = ChaCha20Rng::seed_from_u64(version);
        key(generation).seal(&mut rng, &MACHINE, kind, version, format!("{kind} {version}").as_bytes())
    }

    /// What is opened of a state that a relay shows while there is no link.
    fn shown(records: &mut Records, generation: u32, version: u64) -> Result<Option<(Vec<u8>, bool)>, RecordError> {
        let sealed = sealed(generation, record_kind::STATE, version);
        let opened = records.open(&MACHINE, record_kind::STATE, version, &sealed, false)?;
        Ok(opened.map(|opened| (opened.text.to_vec(), opened.is_new)))
    }

    #[test]
    fn what_is_newer_is_shown_and_what_is_older_is_refused_over_restarts_too() {
        let mut records = Records::default();
        assert_eq!(shown(&mut records, 1, 1), Ok(None), "it has given no key");
        assert!(records.told(MACHINE, key(1), [3, 5]));
        assert!(!records.told(MACHINE, key(1), [3, 5]), "nothing new");
        assert!(!records.told(MACHINE, key(1), [1, 1]), "nothing becomes lower");
        assert_eq!(shown(&mut records, 1, 5), Ok(Some((b"2 5".to_vec(), false))));
        assert_eq!(shown(&mut records, 1, 7), Ok(Some((b"2 7".to_vec(), true))));
        let mut again = Records::read(&mut Reader(&records.encode())).unwrap();
        assert_eq!(shown(&mut again, 1, 6), Err(RecordError::Older));
        assert_eq!(shown(&mut again, 1, 7), Ok(Some((b"2 7".to_vec(), false))));
        assert_eq!(shown(&mut again, 2, 8), Err(RecordError::OtherKey(2)));
        assert!(again.told(MACHINE, key(2), [4, 8]), "another key after a revocation");
        assert_eq!(shown(&mut again, 2, 8), Ok(Some((b"2 8".to_vec(), false))));
        again.forget(&MACHINE);
        assert_eq!(shown(&mut again, 2, 9), Ok(None));
    }

    #[test]
    fn a_relay_does_not_take_back_what_a_linked_machine_has_said() {
        let mut records = Records::default();
        records.told(MACHINE, key(1), [3, 5]);
        let mut shown = |kind, version| {
            let opened = records.open(&MACHINE, kind, version, &sealed(1, kind, version), true).unwrap();
            opened.is_some()
        };
        assert!(!shown(record_kind::STATE, 5), "it may have said more since");
        assert!(shown(record_kind::STATE, 6));
        assert!(shown(record_kind::METADATA, 3), "that does not change while a daemon lives");
    }

    #[test]
    fn cut_bytes_are_no_records() {
        let mut records = Records::default();
        records.told(MACHINE, key(1), [3, 5]);
        let bytes = records.encode();
        (0..bytes.len()).for_each(|length| assert!(Records::read(&mut Reader(&bytes[..length])).is_none(), "{length}"));
    }
}
