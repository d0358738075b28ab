//! How much of the room for frames one device may take.
//!
//! A device may have as much waiting as is still free for others, beside a quarter that is anybody's. So one that sends without end leaves three
//! eighths of the room free, two a quarter, and who has nothing waiting finds room beside some dozens of them.

use std::collections::HashMap;

use happy_crypto::DeviceId;

use super::MAX_WAITING;

/// While no more than this waits, nobody is in anybody's way, and nothing is counted.
const FREE: usize = MAX_WAITING / 4;

/// What waits of whom, since there was as much that it had to be counted.
#[derive(Default)]
pub(super) struct Shares {
    of: HashMap<DeviceId, usize>,
    /// What waited already when the count began, bytes: it goes first, and is in no share.
    uncounted: usize,
}

impl Shares {
    /// How much more a device may have waiting, bytes, beside all that waits.
    pub(super) fn room(&mut self, device: &DeviceId, waiting: usize) -> usize {
        if waiting < FREE {
            self.of.clear();
        }
        let share = self.of.get(device).copied().unwrap_or_default();
        MAX_WAITING.saturating_sub(waiting).saturating_sub(share)
    }

    /// So much of a device waits from now on, beside all that did.
    pub(super) fn took(&mut self, device: DeviceId, waiting: usize, bytes: usize) {
        if waiting + bytes > FREE {
            if self.of.is_empty() {
                self.uncounted = waiting;
            }
            *self.of.entry(device).or_default() += bytes;
        }
    }

    /// Whether anything is counted now.
    pub(super) fn is_counted(&self) -> bool {
        !self.of.is_empty()
    }

    /// What waited for longest has gone: whose, and how much, in the order in which it came.
    pub(super) fn went(&mut self, gone: impl Iterator<Item = (Option<DeviceId>, usize)>) {
        for (device, bytes) in gone {
            if self.uncounted > 0 {
                self.uncounted = self.uncounted.saturating_sub(bytes);
            } else if let Some(device) = device
                && let Some(share) = self.of.get_mut(&device)
            {
                *share = share.saturating_sub(bytes);
                if *share == 0 {
                    self.of.remove(&device);
                }
            }
        }
    }

    /// Takes so many bytes if the device may have them.
    pub(super) fn take(&mut self, device: DeviceId, waiting: usize, bytes: usize) -> bool {
        let fits = bytes <= self.room(&device, waiting);
        if fits {
            self.took(device, waiting, bytes);
        }
        fits
    }

    /// Only this still waits.
    pub(super) fn count(&mut self, waiting: usize, left: impl Iterator<Item = (DeviceId, usize)>) {
        self.of.clear();
        if waiting > FREE {
            left.for_each(|(device, bytes)| *self.of.entry(device).or_default() += bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::device;

    const FRAME: usize = 60_000;

    /// Frames of these devices in turn, until none of them may send another one: what each has waiting.
    fn fill(shares: &mut Shares, devices: u32, waiting: &mut usize) -> Vec<usize> {
        let mut taken = vec![0; devices as usize];
        loop {
            let before = *waiting;
            for (n, taken) in (0..devices).zip(&mut taken) {
                if shares.take(device(n), *waiting, FRAME) {
                    *taken += FRAME;
                    *waiting += FRAME;
                }
            }
            if *waiting == before {
                return taken;
            }
        }
    }

    #[test]
    fn who_sends_without_end_leaves_room_for_others() {
        for devices in [1, 2, 10, 30] {
            let (mut shares, mut waiting) = (Shares::default(), 0);
            let taken = fill(&mut shares, devices, &mut waiting);
            assert!(taken.iter().max().unwrap() - taken.iter().min().unwrap() <= FRAME, "alike: {taken:?}");
            assert!(waiting > MAX_WAITING / 2, "{devices} get as far as {waiting}");
            assert!(shares.take(device(1_000), waiting, FRAME), "another one has room beside {devices}");
        }
    }

    #[test]
    fn what_has_gone_counts_no_longer() {
        let (mut shares, mut waiting) = (Shares::default(), 0);
        fill(&mut shares, 1, &mut waiting);
        assert!(!shares.take(device(0), waiting, FRAME));
        // Half of it was sent.
        shares.count(waiting / 2, [(device(0), waiting / 2)].into_iter());
        assert!(shares.take(device(0), waiting / 2, FRAME));
        shares.count(0, std::iter::empty());
        assert!(!shares.is_counted());
    }

    #[test]
    fn nothing_is_kept_of_anybody_while_little_waits() {
        let mut shares = Shares::default();
        (0..1_000).for_each(|n| assert!(shares.take(device(n), 0, FRAME)));
        assert!(!shares.is_counted());
    }
}
