//! Machine records (`PROTOCOL 7`): what a machine leaves at its relay, for itself and the devices that it names.
//!
//! The relay keeps sealed bytes and their version. [`Records`] keeps them in memory, for a relay of one node; over Redis
//! they stand where every node finds them (`PROTOCOL 15`).

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::record_kind;
use parking_lot::Mutex;

/// How long records are kept after the last sign of life of their machine.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// What all records of a relay of one node take at most, bytes. Beyond it a tenth of the machines is forgotten: those that were away longest, who
/// put them again when they come, and only after them machines that are connected, who are told.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What a machine's entry takes beside the records themselves.
const ENTRY_COST: usize = 256;

/// One record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// At least 1.
    pub version: u64,
    /// Opaque.
    pub sealed: Bytes,
}

impl Record {
    /// Whether `new` may take the place of `old`, if there is one: it follows it, or repeats it.
    pub(crate) fn follows(new: &Record, old: Option<&Record>) -> bool {
        old.is_none_or(|old| old.version.checked_add(1) == Some(new.version) || old == new)
    }
}

/// A record that a machine puts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Whose.
    pub machine: DeviceId,
    /// One of [`record_kind::ALL`], or it is refused.
    pub kind: u8,
    /// What shall stand there.
    pub record: Record,
    /// Who may read the records of this machine from now on; without it, who may stays as it is.
    pub readers: Option<Vec<DeviceId>>,
}

/// What became of a record that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is stored.
    Stored {
        /// Those who may read it, to whom it is news.
        readers: Vec<DeviceId>,
        /// The machine had no record there, of either kind.
        is_first: bool,
    },
    /// It stood there already.
    Same,
    /// Another one stands there.
    Conflict(Record),
    /// It cannot be kept now.
    Refused,
}

/// What is known of a machine to somebody who may know it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Whether it is connected, to any node.
    pub here: bool,
    /// Its last sign of life, Unix ms; 0 when it is not known.
    pub last_seen: u64,
    /// By kind, in the order of [`record_kind::ALL`].
    pub records: [Option<Record>; 2],
}

impl Known {
    pub(crate) fn of_one_that_is_here(self) -> Self {
        Self { here: true, last_seen: unix_ms(), ..self }
    }
}

/// The place of a kind in [`Known::records`].
pub(crate) fn place(kind: u8) -> Option<usize> {
    record_kind::ALL.iter().position(|known| *known == kind)
}

pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The records of a relay of one node.
#[derive(Default)]
pub(crate) struct Records(Mutex<Table>);

#[derive(Default)]
struct Table {
    machines: HashMap<DeviceId, Kept>,
    bytes: usize,
}

#[derive(Default)]
struct Kept {
    records: [Option<Record>; 2],
    readers: Vec<DeviceId>,
    last_seen: u64,
}

impl Kept {
    fn cost(&self) -> usize {
        let sealed: usize = self.records.iter().flatten().map(|record| record.sealed.len()).sum();
        ENTRY_COST + sealed + self.readers.len() * DeviceId::LEN
    }
}

impl Table {
    /// Changes an entry and keeps the sum of what all of them take.
    fn change<T>(&mut self, machine: &DeviceId, change: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        let kept = self.machines.get_mut(machine)?;
        let before = kept.cost();
        let done = change(kept);
        self.bytes = self.bytes + kept.cost() - before;
        Some(done)
    }

    /// Makes room. Gives those machines that are connected and have lost their records.
    fn shed(&mut self, now: u64, is_here: impl Fn(&DeviceId) -> bool) -> Vec<DeviceId> {
        let Self { machines, bytes } = self;
        let kept_since = now.saturating_sub(KEPT_FOR.as_millis() as u64);
        let rank = |machine: &DeviceId, kept: &Kept| (is_here(machine), kept.last_seen);
        let mut ranks: Vec<_> = machines.iter().map(|(machine, kept)| rank(machine, kept)).collect();
        let nth = ranks.len() / 10;
        let last = *ranks.select_nth_unstable(nth).1;
        let mut told = Vec::new();
        machines.retain(|machine, kept| {
            let (here, seen) = rank(machine, kept);
            let stays = (here, seen) > last && (here || seen > kept_since);
            if !stays {
                *bytes -= kept.cost();
                told.extend(here.then_some(*machine));
            }
            stays
        });
        told
    }
}

impl Records {
    /// Compare and set (`PROTOCOL 7`). Gives also which connected machines have lost their records for it.
    pub(crate) fn put(&self, new: NewRecord, is_here: impl Fn(&DeviceId) -> bool) -> (Put, Vec<DeviceId>) {
        let NewRecord { machine, kind, record, readers } = new;
        let Some(place) = place(kind) else { return (Put::Refused, Vec::new()) };
        let now = unix_ms();
        let mut table = self.0.lock();
        let is_first = !table.machines.contains_key(&machine);
        if is_first {
            table.bytes += ENTRY_COST;
            table.machines.insert(machine, Kept::default());
        }
        let put = table.change(&machine, |kept| {
            kept.last_seen = now;
            if let Some(readers) = readers {
                kept.readers = readers;
            }
            let old = kept.records[place].as_ref();
            match old {
                Some(old) if !Record::follows(&record, Some(old)) => return Put::Conflict(old.clone()),
                Some(old) if *old == record => return Put::Same,
                _ => {}
            }
            kept.records[place] = Some(record);
            Put::Stored { readers: kept.readers.clone(), is_first }
        });
        let lost = if table.bytes > MAX_BYTES { table.shed(now, is_here) } else { Vec::new() };
        (put.unwrap_or(Put::Refused), lost)
    }

    /// The machine names these now.
    pub(crate) fn read_by(&self, machine: &DeviceId, readers: &[DeviceId]) {
        self.0.lock().change(machine, |kept| kept.readers = readers.to_vec());
    }

    /// The machine is connected, or was until now.
    pub(crate) fn alive(&self, machine: &DeviceId) {
        self.0.lock().change(machine, |kept| kept.last_seen = unix_ms());
    }

    /// What `reader` may know of a machine.
    pub(crate) fn known(&self, machine: &DeviceId, reader: &DeviceId) -> Option<Known> {
        let kept_since = unix_ms().saturating_sub(KEPT_FOR.as_millis() as u64);
        let table = self.0.lock();
        let kept = table.machines.get(machine).filter(|kept| kept.last_seen >= kept_since)?;
        let may = machine == reader || kept.readers.contains(reader);
        may.then(|| Known { here: false, last_seen: kept.last_seen, records: kept.records.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::tests::device;

    fn record(version: u64, sealed: &'static [u8]) -> Record {
        Record { version, sealed: Bytes::from_static(sealed) }
    }

    fn new(machine: u32, kind: u8, record: Record, readers: Option<Vec<DeviceId>>) -> NewRecord {
        NewRecord { machine: device(machine), kind, record, readers }
    }

    /// Nobody is connected.
    fn put(records: &Records, new: NewRecord) -> Put {
        let (put, lost) = records.put(new, |_| false);
        assert_eq!(lost, []);
        put
    }

    #[test]
    fn a_record_is_replaced_by_the_next_version_only() {
        let records = Records::default();
        let put = |record| put(&records, new(1, record_kind::STATE, record, None));
        assert_eq!(put(record(7, b"first")), Put::Stored { readers: vec![], is_first: true });
        assert_eq!(put(record(7, b"first")), Put::Same);
        assert_eq!(put(record(7, b"other")), Put::Conflict(record(7, b"first")));
        assert_eq!(put(record(6, b"older")), Put::Conflict(record(7, b"first")));
        assert_eq!(put(record(9, b"gap")), Put::Conflict(record(7, b"first")));
        assert_eq!(put(record(8, b"next")), Put::Stored { readers: vec![], is_first: false });
        assert_eq!(records.put(new(1, 3, record(1, b"x"), None), |_| false).0, Put::Refused);
    }

    #[test]
    fn the_last_version_has_none_after_it() {
        assert!(!Record::follows(&record(0, b""), Some(&record(u64::MAX, b""))));
        assert!(Record::follows(&record(u64::MAX, b""), Some(&record(u64::MAX, b""))));
    }

    #[test]
    fn only_who_is_named_reads() {
        let records = Records::default();
        put(&records, new(1, record_kind::METADATA, record(1, b"mine"), Some(vec![device(2)])));
        let sees = |reader| records.known(&device(1), &device(reader)).map(|known| known.records[0].clone());
        assert_eq!(sees(1), Some(Some(record(1, b"mine"))));
        assert_eq!(sees(2), Some(Some(record(1, b"mine"))));
        assert_eq!(sees(3), None);
        let put = put(&records, new(1, record_kind::METADATA, record(2, b"new"), None));
        assert_eq!(put, Put::Stored { readers: vec![device(2)], is_first: false }, "who reads has not changed");
        records.read_by(&device(1), &[device(3)]);
        assert_eq!((sees(2), sees(3)), (None, Some(Some(record(2, b"new")))));
        let (again, _) =
            records.put(new(1, record_kind::METADATA, record(2, b"new"), Some(vec![device(2)])), |_| false);
        assert_eq!(
            (again, sees(2).is_some(), sees(3)),
            (Put::Same, true, None),
            "who reads is news although the record is none"
        );
        records.read_by(&device(9), &[device(3)]);
        assert_eq!(records.known(&device(9), &device(3)), None, "naming somebody is no record");
    }

    #[test]
    fn what_they_take_is_bounded_and_the_longest_gone_go_first() {
        let records = Records::default();
        let large = Bytes::from(vec![1; 4096]);
        let count = (MAX_BYTES / (4096 + ENTRY_COST)) as u32 + 100;
        for n in 0..count {
            put(&records, new(n, record_kind::STATE, Record { version: 1, sealed: large.clone() }, None));
            // Each at a time of its own.
            let mut table = records.0.lock();
            let seen = unix_ms() - u64::from(count - n);
            table.machines.get_mut(&device(n)).unwrap().last_seen = seen;
        }
        let table = records.0.lock();
        assert!(table.bytes <= MAX_BYTES);
        assert_eq!(table.bytes, table.machines.values().map(Kept::cost).sum::<usize>());
        assert!(!table.machines.contains_key(&device(0)) && table.machines.contains_key(&device(count - 1)));
    }

    /// One in ten is connected, and was seen longer ago than all the others: their signs of life come every 20 s.
    #[test]
    fn those_of_machines_that_are_away_go_first_and_connected_ones_are_told() {
        let large = Bytes::from(vec![1; 4096]);
        let enough = (MAX_BYTES / (4096 + ENTRY_COST)) as u32 + 1;
        let fill = |is_here: fn(&DeviceId) -> bool| {
            let records = Records::default();
            for n in 0..enough {
                let (_, lost) = records
                    .put(new(n, record_kind::STATE, Record { version: 1, sealed: large.clone() }, None), is_here);
                if let Some(kept) = records.0.lock().machines.get_mut(&device(n)) {
                    kept.last_seen = unix_ms() - u64::from(enough - n) - if is_here(&device(n)) { 20_000 } else { 0 };
                }
                if n + 1 == enough {
                    return (records, lost);
                }
                assert_eq!(lost, []);
            }
            unreachable!()
        };
        let one_in_ten = |machine: &DeviceId| machine.as_bytes()[3].is_multiple_of(10);
        let (records, lost) = fill(one_in_ten);
        assert_eq!(lost, []);
        let table = records.0.lock();
        assert!(table.bytes <= MAX_BYTES);
        assert!((0..enough).map(device).filter(one_in_ten).all(|machine| table.machines.contains_key(&machine)));
        drop(table);
        let (records, lost) = fill(|_| true);
        assert_eq!(lost.len() as u32, enough - records.0.lock().machines.len() as u32);
        assert!(lost.len() as u32 >= enough / 10 && lost.contains(&device(0)), "{}", lost.len());
    }
}
