//! Who at this node is told that records of a machine have changed, besides websockets: the streams of `/v1/updates` (`PROTOCOL 7`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use happy_crypto::DeviceId;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most machines of one stream: each has a bit.
pub(crate) const MAX_MACHINES: usize = u32::BITS as usize;

/// The streams, by the machines that they are about. Each has a socket, of which there are only so many, and at most [`MAX_MACHINES`] entries.
#[derive(Clone, Default)]
pub(crate) struct Watched(Arc<Mutex<Table>>);

/// With the place of the machine among those of the stream.
type Table = HashMap<DeviceId, Vec<(Arc<Changed>, usize)>>;

/// Which machines of a stream have changed since it looked. Any number of changes takes no more room.
#[derive(Default)]
struct Changed {
    places: AtomicU32,
    wake: Notify,
}

/// A stream, which is told until this is dropped.
pub(crate) struct Watching {
    watched: Watched,
    machines: Vec<DeviceId>,
    changed: Arc<Changed>,
}

impl Watched {
    /// Enters a stream about these.
    pub(crate) fn watch(&self, machines: &[DeviceId]) -> Watching {
        let changed = Arc::<Changed>::default();
        let machines = machines[..machines.len().min(MAX_MACHINES)].to_vec();
        let mut table = self.0.lock();
        for (place, machine) in machines.iter().enumerate() {
            table.entry(*machine).or_default().push((changed.clone(), place));
        }
        drop(table);
        Watching { watched: self.clone(), machines, changed }
    }

    /// Tells the streams about this machine.
    pub(crate) fn tell(&self, machine: &DeviceId) {
        for (changed, place) in self.0.lock().get(machine).into_iter().flatten() {
            changed.places.fetch_or(1 << place, Relaxed);
            changed.wake.notify_one();
        }
    }
}

impl Watching {
    /// Waits until a machine has changed that [`Self::take`] has not given yet.
    pub(crate) async fn told(&self) {
        while self.changed.places.load(Relaxed) == 0 {
            self.changed.wake.notified().await;
        }
    }

    /// The places of the machines that have changed since the last time, as bits.
    pub(crate) fn take(&self) -> u32 {
        self.changed.places.swap(0, Relaxed)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut table = self.watched.0.lock();
        for machine in &self.machines {
            let Some(streams) = table.get_mut(machine) else { continue };
            streams.retain(|(changed, _)| !Arc::ptr_eq(changed, &self.changed));
            if streams.is_empty() {
                table.remove(machine);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::access::tests::device;

    #[test]
    fn a_stream_is_told_of_its_machines_once_for_any_number_of_changes() {
        let watched = Watched::default();
        let all: Vec<DeviceId> = (0..MAX_MACHINES as u32).map(device).collect();
        let (one, other) = (watched.watch(&all), watched.watch(&all[5..6]));
        assert_eq!(one.told().now_or_never(), None);
        for _ in 0..1_000 {
            watched.tell(&device(0));
            watched.tell(&device(31));
            watched.tell(&device(99));
        }
        assert_eq!(one.told().now_or_never(), Some(()));
        assert_eq!((one.take(), other.take()), (1 << 31 | 1, 0));
        assert_eq!(one.told().now_or_never(), None, "it has looked");
        watched.tell(&device(5));
        assert_eq!((one.take(), other.take()), (1 << 5, 1));
    }

    #[test]
    fn nothing_is_left_of_streams_that_have_ended() {
        let watched = Watched::default();
        let streams = [watched.watch(&[device(1), device(1), device(2)]), watched.watch(&[device(2)])];
        assert_eq!(watched.0.lock().len(), 2);
        drop(streams);
        assert!(watched.0.lock().is_empty());
    }
}
