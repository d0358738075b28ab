//! What travels between nodes (`PROTOCOL 15`): a batch of records, and how it is read again.

use bytes::Bytes;
use happy_crypto::DeviceId;
use happy_wire::relay::MAX_FRAME;

use super::{Admission, GuestEnd, Login, Message, NodeId};

const VERSION: u8 = 1;
/// Version, sender, time.
pub(crate) const HEAD: usize = 1 + NodeId::LEN + 8;
/// A record: its type, two device ids, a tag, and the largest Deliver frame.
const MAX_RECORD: usize = 1 + 2 * DeviceId::LEN + 4 + MAX_FRAME;

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// For the hub.
    Message(Message),
    /// A node's sign of life to itself.
    Ping(u64),
}

/// Begins a batch.
pub(crate) fn begin(out: &mut Vec<u8>, from: NodeId, unix_ms: u64) {
    out.push(VERSION);
    out.extend_from_slice(&from.0);
    out.extend_from_slice(&unix_ms.to_be_bytes());
}

/// Writes the time of a batch anew: it may have waited.
pub(crate) fn stamp(batch: &mut [u8], unix_ms: u64) {
    if let Some(time) = batch.get_mut(HEAD - 8..HEAD) {
        time.copy_from_slice(&unix_ms.to_be_bytes());
    }
}

/// Appends a record.
pub(crate) fn push(out: &mut Vec<u8>, record: &Record) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    match record {
        Record::Message(Message::Frame { from, to, tag, deliver }) => {
            out.push(0x01);
            put_pair(out, from, to);
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(deliver);
        }
        Record::Message(Message::Undelivered { from, to, tag, reason }) => {
            out.push(0x02);
            put_pair(out, from, to);
            out.extend_from_slice(&tag.to_be_bytes());
            out.push(u8::from(*reason));
        }
        Record::Message(Message::Naming { from, epoch, revision, to, named, answer }) => {
            out.push(0x03);
            out.extend_from_slice(from.as_bytes());
            out.extend_from_slice(&epoch.to_be_bytes());
            out.extend_from_slice(&revision.to_be_bytes());
            out.extend_from_slice(to.as_bytes());
            out.extend_from_slice(&[u8::from(*named), u8::from(*answer)]);
        }
        Record::Message(Message::Displaced { device, by }) => {
            out.push(0x04);
            out.extend_from_slice(device.as_bytes());
            out.extend_from_slice(&by.to_bytes());
        }
        Record::Message(Message::Changed { machine, to, kinds }) => {
            out.push(0x06);
            put_pair(out, machine, to);
            out.push(*kinds);
        }
        Record::Message(Message::GuestComes { guest, login, ticket_hash }) => {
            out.push(0x07);
            put_guest(out, guest, *login);
            out.extend_from_slice(ticket_hash);
        }
        Record::Message(Message::GuestAnswer { guest, login, admission }) => {
            out.push(0x08);
            put_guest(out, guest, *login);
            let (result, host) = match admission {
                Admission::Admitted(host) => (0, *host.as_bytes()),
                Admission::NoTicket => (1, [0; 32]),
                Admission::Older => (2, [0; 32]),
                Admission::Full => (3, [0; 32]),
            };
            out.push(result);
            out.extend_from_slice(&host);
        }
        Record::Message(Message::GuestEnds { guest, login, host, end }) => {
            out.push(0x09);
            put_guest(out, guest, *login);
            out.extend_from_slice(host.as_bytes());
            out.push(match end {
                GuestEnd::Left => 0,
                GuestEnd::HostLeft => 1,
                GuestEnd::Displaced => 2,
            });
        }
        Record::Ping(n) => {
            out.push(0x05);
            out.extend_from_slice(&n.to_be_bytes());
        }
    }
    // A record is bounded by MAX_RECORD, far below u32.
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_pair(out: &mut Vec<u8>, from: &DeviceId, to: &DeviceId) {
    out.extend_from_slice(from.as_bytes());
    out.extend_from_slice(to.as_bytes());
}

fn put_guest(out: &mut Vec<u8>, guest: &DeviceId, login: Login) {
    out.extend_from_slice(guest.as_bytes());
    out.extend_from_slice(&login.to_bytes());
}

/// A batch that was read: who sent it, when, and its records.
pub(crate) struct Batch {
    pub(crate) from: NodeId,
    pub(crate) unix_ms: u64,
    bytes: Bytes,
    /// Where the next record begins.
    at: usize,
}

impl Batch {
    /// Reads the head. None when it is of another version or cut.
    pub(crate) fn read(bytes: Bytes) -> Option<Batch> {
        if bytes.len() < HEAD || bytes[0] != VERSION {
            return None;
        }
        let from = NodeId(array(&bytes[1..])?);
        let unix_ms = u64::from_be_bytes(array(&bytes[1 + NodeId::LEN..])?);
        Some(Batch { from, unix_ms, bytes, at: HEAD })
    }
}

/// The next record; an error when the rest of the batch makes no sense. A record of a later version is skipped.
impl Iterator for Batch {
    type Item = Result<Record, Torn>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
            let len = array(rest).map(u32::from_be_bytes).map(|len| len as usize);
            let len = len.filter(|len| (1..=MAX_RECORD).contains(len));
            let record = len.and_then(|len| rest.get(4..4 + len));
            let read = record.map_or(Read::Torn, |record| read(record, &self.bytes));
            self.at += 4 + record.map_or(0, <[u8]>::len);
            match read {
                Read::Record(record) => return Some(Ok(record)),
                Read::Later => {}
                Read::Torn => {
                    self.at = self.bytes.len();
                    return Some(Err(Torn));
                }
            }
        }
    }
}

/// A batch that makes no sense, or no more: somebody else writes on our channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Torn;

enum Read {
    Record(Record),
    Later,
    Torn,
}

/// Reads a record, which is a part of `batch`.
fn read(record: &[u8], batch: &Bytes) -> Read {
    let Some((kind, fields)) = record.split_first() else { return Read::Torn };
    let mut fields = Fields(fields);
    let message = match kind {
        0x01 => (|| {
            let (from, to, tag) = (fields.device()?, fields.device()?, fields.u32()?);
            // A part of the batch and no copy: the mailbox copies it to where it goes onto the socket from, so that no batch outlives its turn.
            Some(Message::Frame { from, to, tag, deliver: batch.slice_ref(fields.0) })
        })(),
        0x02 => (|| {
            let (from, to, tag) = (fields.device()?, fields.device()?, fields.u32()?);
            Some(Message::Undelivered { from, to, tag, reason: fields.u8()?.into() })
        })(),
        0x03 => (|| {
            let (from, epoch, revision) = (fields.device()?, fields.u64()?, fields.u64()?);
            let (to, named, answer) = (fields.device()?, fields.bool()?, fields.bool()?);
            Some(Message::Naming { from, epoch, revision, to, named, answer })
        })(),
        0x04 => (|| {
            let device = fields.device()?;
            Some(Message::Displaced { device, by: fields.login()? })
        })(),
        0x06 => (|| Some(Message::Changed { machine: fields.device()?, to: fields.device()?, kinds: fields.u8()? }))(),
        0x07 => (|| {
            let (guest, login) = (fields.device()?, fields.login()?);
            Some(Message::GuestComes { guest, login, ticket_hash: fields.take()? })
        })(),
        0x08 => (|| {
            let (guest, login, result, host) = (fields.device()?, fields.login()?, fields.u8()?, fields.device()?);
            let admission = match result {
                0 => Admission::Admitted(host),
                2 => Admission::Older,
                3 => Admission::Full,
                _ => Admission::NoTicket,
            };
            Some(Message::GuestAnswer { guest, login, admission })
        })(),
        0x09 => (|| {
            let (guest, login, host) = (fields.device()?, fields.login()?, fields.device()?);
            let end = match fields.u8()? {
                0 => GuestEnd::Left,
                2 => GuestEnd::Displaced,
                _ => GuestEnd::HostLeft,
            };
            Some(Message::GuestEnds { guest, login, host, end })
        })(),
        0x05 => return fields.u64().map_or(Read::Torn, |n| Read::Record(Record::Ping(n))),
        _ => return Read::Later,
    };
    message.map_or(Read::Torn, |message| Read::Record(Record::Message(message)))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = array(self.0)?;
        self.0 = &self.0[N..];
        Some(taken)
    }

    fn device(&mut self) -> Option<DeviceId> {
        self.take().map(DeviceId::from_bytes)
    }

    fn login(&mut self) -> Option<Login> {
        self.take().map(Login::from_bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[n]| n)
    }

    fn bool(&mut self) -> Option<bool> {
        self.u8().map(|n| n != 0)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.get(..N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use happy_wire::relay::Undelivered;

    use super::*;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    fn all() -> Vec<Record> {
        let by = Login { epoch: 7, number: 8 };
        vec![
            Record::Message(Message::Frame { from: device(1), to: device(2), tag: 3, deliver: vec![9; 100].into() }),
            Record::Message(Message::Frame { from: device(1), to: device(2), tag: 3, deliver: Bytes::new() }),
            Record::Message(Message::Undelivered {
                from: device(1),
                to: device(2),
                tag: u32::MAX,
                reason: Undelivered::QueueFull,
            }),
            Record::Message(Message::Naming {
                from: device(1),
                epoch: 5,
                revision: 6,
                to: device(2),
                named: true,
                answer: false,
            }),
            Record::Message(Message::Displaced { device: device(4), by }),
            Record::Message(Message::Changed { machine: device(5), to: device(6), kinds: 3 }),
            Record::Message(Message::GuestComes { guest: device(7), login: by, ticket_hash: [8; 32] }),
            Record::Message(Message::GuestAnswer {
                guest: device(7),
                login: by,
                admission: Admission::Admitted(device(9)),
            }),
            Record::Message(Message::GuestAnswer { guest: device(7), login: by, admission: Admission::Full }),
            Record::Message(Message::GuestEnds {
                guest: device(7),
                login: by,
                host: device(9),
                end: GuestEnd::Displaced,
            }),
            Record::Ping(77),
        ]
    }

    fn batch(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, NodeId([3; 8]), 1);
        records.iter().for_each(|record| push(&mut out, record));
        stamp(&mut out, 1_700_000_000_000);
        out
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let read = Batch::read(batch(&all()).into()).unwrap();
        assert_eq!((read.from, read.unix_ms), (NodeId([3; 8]), 1_700_000_000_000));
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(all()));
    }

    #[test]
    fn a_cut_batch_gives_what_came_whole_and_then_says_so() {
        let whole = batch(&all());
        for len in HEAD..whole.len() {
            let read: Vec<_> = Batch::read(Bytes::copy_from_slice(&whole[..len])).unwrap().collect();
            let good = read.iter().take_while(|record| record.is_ok()).count();
            assert!(read.len() - good <= 1, "{len}");
            assert!(
                read.iter()
                    .zip(all())
                    .all(|(read, wrote)| read.as_ref().is_ok_and(|read| *read == wrote) || read.is_err())
            );
        }
        assert!((0..HEAD).all(|len| Batch::read(Bytes::copy_from_slice(&whole[..len])).is_none()));
    }

    #[test]
    fn records_of_a_later_version_are_skipped() {
        let mut bytes = batch(&all()[..1]);
        bytes.extend_from_slice(&[0, 0, 0, 2, 0x7f, 1]);
        push(&mut bytes, &Record::Ping(1));
        let read: Vec<_> = Batch::read(bytes.into()).unwrap().collect();
        assert_eq!(read, [Ok(all()[0].clone()), Ok(Record::Ping(1))]);
    }

    #[test]
    fn lengths_that_lie_end_the_batch() {
        for len in [0_u32, MAX_RECORD as u32 + 1, u32::MAX] {
            let mut bytes = batch(&[]);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&[5; 64]);
            assert_eq!(Batch::read(bytes.into()).unwrap().collect::<Vec<_>>(), [Err(Torn)]);
        }
    }
}
