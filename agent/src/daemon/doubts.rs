//! Signs that somebody has a copy of a device, or that a device is an old copy of itself (`PROTOCOL 5`, reason 6). Kept in memory: whoever
//! comes with wrong keys comes again.

use std::collections::{HashMap, HashSet};

use happy_crypto::DeviceId;

/// The log and the devices are told again of the same device after this time, milliseconds: an attempt comes each minute or so.
const TELL_AGAIN: u64 = 10 * 60 * 1000;

/// What raises doubts. Bounded by the number of devices: a link tells these of its peer only.
#[derive(Debug, Default)]
pub struct Doubts {
    /// When somebody came last as this device with unknown keys, and when that was told last; Unix milliseconds.
    strangers: HashMap<DeviceId, (u64, u64)>,
    /// Machines that do not know the keys of this one.
    unbelieving: HashSet<DeviceId>,
}

impl Doubts {
    /// Somebody came as this device with unknown keys. Nothing proves who. Says whether it shall be told.
    pub fn strange(&mut self, device: DeviceId, now: u64) -> bool {
        let known = self.strangers.get(&device).copied();
        let tell = known.is_none_or(|(_, told)| now.abs_diff(told) >= TELL_AGAIN);
        let told = if tell { now } else { known.map_or(now, |(_, told)| told) };
        self.strangers.insert(device, (now, told));
        tell
    }

    /// When somebody came last as this device with unknown keys.
    ///
    /// A link that comes up does not end the doubt: it may be the copy that has come up.
    pub fn stranger_at(&self, device: &DeviceId) -> Option<u64> {
        self.strangers.get(device).map(|(at, _)| *at)
    }

    /// A machine does not know the keys of this one. Says whether that is news.
    pub fn not_believed(&mut self, machine: DeviceId) -> bool {
        self.unbelieving.insert(machine)
    }

    /// A link to it came up, so it does know them.
    pub fn believed(&mut self, machine: &DeviceId) {
        self.unbelieving.remove(machine);
    }

    /// Whether that machine does not know the keys of this one.
    pub fn is_unbelieving(&self, machine: &DeviceId) -> bool {
        self.unbelieving.contains(machine)
    }

    /// The device was paired again, or removed.
    pub fn settled(&mut self, device: &DeviceId) {
        self.strangers.remove(device);
        self.unbelieving.remove(device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_told_once_in_a_while_and_stays_in_mind() {
        let device = DeviceId::from_bytes([1; 32]);
        let mut doubts = Doubts::default();
        assert!(doubts.strange(device, 1_000_000));
        assert!(!doubts.strange(device, 1_060_000));
        assert_eq!(doubts.stranger_at(&device), Some(1_060_000));
        doubts.believed(&device);
        assert!(doubts.stranger_at(&device).is_some());
        assert!(doubts.strange(device, 1_000_000 + TELL_AGAIN));
        // A clock that is set back does not silence it for good.
        assert!(doubts.strange(device, 5));
        doubts.settled(&device);
        assert_eq!(doubts.stranger_at(&device), None);
    }

    #[test]
    fn a_machine_believes_again_when_a_link_comes_up() {
        let machine = DeviceId::from_bytes([1; 32]);
        let mut doubts = Doubts::default();
        assert!(doubts.not_believed(machine) && !doubts.not_believed(machine));
        assert!(doubts.is_unbelieving(&machine));
        doubts.believed(&machine);
        assert!(!doubts.is_unbelieving(&machine));
    }
}
