//! What travels between nodes (`PROTOCOL 15`): a batch of records, how it is filled, and how it is read again.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_FRAME};

use super::{Admission, Arrived, Frame, GuestEnd, Login, Message, NodeId};

const VERSION: u8 = 1;
/// Version, sender, time.
pub(crate) const HEAD: usize = 1 + NodeId::LEN + 8;
/// A record: its type, two device ids, a tag, and the largest Deliver frame.
const MAX_RECORD: usize = 1 + 2 * DeviceId::LEN + 4 + MAX_FRAME;
/// The largest batch that is filled here, and the room of one that grows: allocators have a class of this size.
pub(crate) const MAX_FILLED: usize = 192 * 1024;
/// A batch takes no more once it is this large, which leaves room for the largest record behind it: just below 128 KiB. Larger ones cost more for
/// each frame: they do not stay in the caches of the processors on their way through both nodes, and through Redis.
pub(crate) const FULL: usize = MAX_FILLED - AROUND;
/// The same for a batch that goes to a node directly. There is nobody between the two whose caches it would not fit, and each has the two nodes
/// and the kernel take turns once: on one core, frames of a kilobyte pass nearly twice as fast as with [`FULL`].
pub(crate) const FULL_DIRECTLY: usize = MAX_FILLED_DIRECTLY - AROUND;
/// The room of such a one: as large as the other node takes (`PROTOCOL 15`).
pub(crate) const MAX_FILLED_DIRECTLY: usize = 1024 * 1024;
/// The length that goes before a batch on a direct connection.
pub(crate) const LENGTH: usize = 4;
/// What a batch needs room for beside what makes it full: its length, and the record that does.
const AROUND: usize = LENGTH + 4 + MAX_RECORD;
/// One that is larger than this has the room of a full one: doubled on, it would end with a third more.
const SMALL: usize = FULL / 4;

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// A frame, where it was read.
    Frame(Arrived<'a>),
    /// For the hub. Read from a batch it is no Frame.
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
pub(crate) fn push(out: &mut Vec<u8>, record: &Record<'_>) {
    push_with(out, |out| match record {
        Record::Frame(Arrived { from, to, tag, deliver }) => put_frame(out, from, to, *tag, deliver),
        Record::Message(message) => put_message(out, message),
        Record::Ping(n) => {
            out.push(0x05);
            out.extend_from_slice(&n.to_be_bytes());
        }
    });
}

fn push_with(out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put(out);
    // A record is bounded by MAX_RECORD, far below u32.
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    match message {
        Message::Frame { from, to, tag, deliver } => put_frame(out, from, to, *tag, deliver),
        Message::Undelivered { from, to, tag, reason, rendezvous } => {
            out.push(0x02);
            put_pair(out, from, to);
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&[u8::from(*reason), u8::from(*rendezvous)]);
        }
        Message::Naming { from, epoch, revision, to, named, answer } => {
            out.push(0x03);
            out.extend_from_slice(from.as_bytes());
            out.extend_from_slice(&epoch.to_be_bytes());
            out.extend_from_slice(&revision.to_be_bytes());
            out.extend_from_slice(to.as_bytes());
            out.extend_from_slice(&[u8::from(*named), u8::from(*answer)]);
        }
        Message::Displaced { device, by } => {
            out.push(0x04);
            out.extend_from_slice(device.as_bytes());
            out.extend_from_slice(&by.to_bytes());
        }
        Message::Changed { machine, to, kinds } => {
            out.push(0x06);
            put_pair(out, machine, to);
            out.push(*kinds);
        }
        Message::GuestComes { guest, login, ticket_hash } => {
            out.push(0x07);
            put_guest(out, guest, *login);
            out.extend_from_slice(ticket_hash);
        }
        Message::GuestAnswer { guest, login, admission } => {
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
        Message::GuestEnds { guest, login, host, end } => {
            out.push(0x09);
            put_guest(out, guest, *login);
            out.extend_from_slice(host.as_bytes());
            out.push(match end {
                GuestEnd::Left => 0,
                GuestEnd::HostLeft => 1,
                GuestEnd::Displaced => 2,
            });
        }
    }
}

fn put_frame(out: &mut Vec<u8>, from: &DeviceId, to: &DeviceId, tag: u32, deliver: &[u8]) {
    out.push(0x01);
    put_pair(out, from, to);
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(deliver);
}

/// Frame records of one device for another: all of a record but its length, the tag and the payload, which alone differ.
struct Frames(Vec<u8>);

impl Frames {
    /// Where the tag stands.
    const TAG: usize = 4 + 1 + 2 * DeviceId::LEN;

    fn new(from: &DeviceId, to: &DeviceId) -> Self {
        let mut head = vec![0; 4];
        put_frame(&mut head, from, to, 0, &[]);
        FromRelay::Deliver { from: *from, rendezvous: false, payload: &[] }.encode(&mut head);
        Self(head)
    }

    fn push(&mut self, out: &mut Vec<u8>, frame: &Frame<'_>) {
        let length = (self.0.len() - 4 + frame.payload.len()) as u32;
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0[Self::TAG..Self::TAG + 4].copy_from_slice(&frame.tag.to_be_bytes());
        out.extend_from_slice(&self.0);
        out.extend_from_slice(frame.payload);
    }
}

/// A batch that was filled, behind room for its length: both are one write, of one piece. In two the kernel would copy the batch to four bytes
/// further in a page than it comes from, and AMD's processors of today do that at a twentieth of their speed (glibc bug 30994).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filled(Vec<u8>);

impl Filled {
    /// One without records.
    pub(crate) fn empty(from: NodeId, unix_ms: u64) -> Self {
        let mut bytes = vec![0; LENGTH];
        begin(&mut bytes, from, unix_ms);
        Self(bytes)
    }

    /// As it goes onto a direct connection.
    pub(crate) fn with_length(&mut self) -> &[u8] {
        // A batch is bounded by MAX_FILLED_DIRECTLY, far below u32.
        let length = (self.len() as u32).to_be_bytes();
        self.0[..LENGTH].copy_from_slice(&length);
        &self.0
    }
}

impl Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[LENGTH..]
    }
}

impl DerefMut for Filled {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0[LENGTH..]
    }
}

/// Records that wait for one node, in the batches as which they will be sent.
#[derive(Debug)]
pub(crate) struct Queue {
    /// A batch takes no more once it is this large.
    most: usize,
    full: VecDeque<Filled>,
    /// The one that takes the next record, as in [`Filled`]. Empty it has no room either.
    last: Vec<u8>,
    /// What all of them take, bytes.
    bytes: usize,
    /// The room of a batch that was sent.
    spare: Vec<u8>,
}

impl Default for Queue {
    /// For Redis.
    fn default() -> Self {
        Self::of_batches(FULL)
    }
}

impl Queue {
    /// For batches that take no more once they are this large.
    pub(crate) fn of_batches(most: usize) -> Self {
        Self { most, full: VecDeque::new(), last: Vec::new(), bytes: 0, spare: Vec::new() }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether a batch would take no more.
    pub(crate) fn has_full(&self) -> bool {
        !self.full.is_empty() || self.last_is_full()
    }

    fn last_is_full(&self) -> bool {
        self.last.len() >= LENGTH + self.most
    }

    /// Has a record of this node wait. Gives the bytes that it takes.
    pub(crate) fn push(&mut self, own: NodeId, record: &Record<'_>) -> usize {
        self.fill(own, |last| push(last, record))
    }

    /// The same of a message.
    pub(crate) fn push_message(&mut self, own: NodeId, message: &Message) -> usize {
        self.fill(own, |last| push_with(last, |out| put_message(out, message)))
    }

    /// Has frames of a device wait, all for one, for as long as less than `most` waits. Gives how many.
    pub(crate) fn push_frames(&mut self, own: NodeId, from: &DeviceId, run: &[Frame<'_>], most: usize) -> usize {
        let Some(Frame { to, .. }) = run.first() else { return 0 };
        let mut frames = Frames::new(from, to);
        for (taken, frame) in run.iter().enumerate() {
            if self.bytes >= most {
                return taken;
            }
            self.fill(own, |last| frames.push(last, frame));
        }
        run.len()
    }

    fn fill(&mut self, own: NodeId, put: impl FnOnce(&mut Vec<u8>)) -> usize {
        let follows = self.last_is_full();
        if follows {
            self.full.push_back(Filled(std::mem::take(&mut self.last)));
        }
        let before = self.last.len();
        if before == 0 {
            self.last = std::mem::take(&mut self.spare);
            self.last.resize(LENGTH, 0);
            begin(&mut self.last, own, 0);
        }
        // One that follows another will be full, too.
        if follows || before > SMALL {
            self.last.reserve_exact(self.most + AROUND - self.last.len());
        }
        put(&mut self.last);
        let more = self.last.len() - before.max(LENGTH);
        self.bytes += more;
        more
    }

    /// Takes the batch that has waited for longest, with its time still to be written.
    pub(crate) fn pop(&mut self) -> Option<Filled> {
        let last = || (!self.last.is_empty()).then(|| Filled(std::mem::take(&mut self.last)));
        let next = self.full.pop_front().or_else(last)?;
        self.bytes -= next.len();
        Some(next)
    }

    /// Puts a batch that was taken back to where it was.
    pub(crate) fn put_back(&mut self, batch: Filled) {
        self.bytes += batch.len();
        self.full.push_front(batch);
    }

    /// Keeps the room of a batch for another one.
    pub(crate) fn reuse(&mut self, Filled(mut batch): Filled) {
        batch.clear();
        self.spare = batch;
    }

    /// Keeps none any more.
    pub(crate) fn shrink(&mut self) {
        self.spare = Vec::new();
    }

    /// What the batches hold.
    pub(crate) fn into_messages(mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.pop()).flat_map(|batch| messages(&batch)).collect()
    }
}

/// Whose the records of a batch of our own are, as far as they are frames or hang on one, and what each takes; the first with the head.
pub(crate) fn senders(bytes: &[u8]) -> impl Iterator<Item = (Option<DeviceId>, usize)> {
    let (mut batch, mut before) = (Batch::read(bytes), 0);
    std::iter::from_fn(move || {
        let batch = batch.as_mut()?;
        let sender = match batch.next()?.ok()? {
            Record::Frame(frame) => Some(frame.from),
            Record::Message(message) => message.sender(),
            Record::Ping(_) => None,
        };
        Some((sender, batch.at - std::mem::replace(&mut before, batch.at)))
    })
}

/// The messages of a batch of our own.
pub(crate) fn messages(batch: &[u8]) -> Vec<Message> {
    let records = Batch::read(batch).into_iter().flatten();
    records
        .filter_map(|record| match record {
            Ok(Record::Frame(frame)) => Some(frame.to_message()),
            Ok(Record::Message(message)) => Some(message),
            Ok(Record::Ping(_)) | Err(_) => None,
        })
        .collect()
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
pub(crate) struct Batch<'a> {
    pub(crate) from: NodeId,
    pub(crate) unix_ms: u64,
    bytes: &'a [u8],
    /// Where the next record begins.
    at: usize,
}

impl<'a> Batch<'a> {
    /// Reads the head. None when it is of another version or cut.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEAD || bytes[0] != VERSION {
            return None;
        }
        let from = NodeId(array(&bytes[1..])?);
        let unix_ms = u64::from_be_bytes(array(&bytes[1 + NodeId::LEN..])?);
        Some(Batch { from, unix_ms, bytes, at: HEAD })
    }
}

/// The next record; an error when the rest of the batch makes no sense. A record of a later version is skipped.
impl<'a> Iterator for Batch<'a> {
    type Item = Result<Record<'a>, Torn>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
            let len = array(rest).map(u32::from_be_bytes).map(|len| len as usize);
            let len = len.filter(|len| (1..=MAX_RECORD).contains(len));
            let record = len.and_then(|len| rest.get(4..4 + len));
            let read = record.map_or(Read::Torn, read);
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

enum Read<'a> {
    Record(Record<'a>),
    Later,
    Torn,
}

fn read(record: &[u8]) -> Read<'_> {
    let Some((kind, fields)) = record.split_first() else { return Read::Torn };
    let mut fields = Fields(fields);
    let message = match kind {
        0x01 => {
            let frame = (|| {
                let (from, to, tag) = (fields.device()?, fields.device()?, fields.u32()?);
                // No copy: the mailbox copies it to where it goes onto the socket from.
                Some(Arrived { from, to, tag, deliver: fields.0 })
            })();
            return frame.map_or(Read::Torn, |frame| Read::Record(Record::Frame(frame)));
        }
        0x02 => (|| {
            let (from, to, tag) = (fields.device()?, fields.device()?, fields.u32()?);
            Some(Message::Undelivered { from, to, tag, reason: fields.u8()?.into(), rendezvous: fields.bool()? })
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

    fn all() -> Vec<Record<'static>> {
        let by = Login { epoch: 7, number: 8 };
        vec![
            Record::Frame(Arrived { from: device(1), to: device(2), tag: 3, deliver: &[9; 100] }),
            Record::Frame(Arrived { from: device(1), to: device(2), tag: 3, deliver: &[] }),
            Record::Message(Message::Undelivered {
                from: device(1),
                to: device(2),
                tag: u32::MAX,
                reason: Undelivered::QueueFull,
                rendezvous: true,
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

    fn batch(records: &[Record<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        begin(&mut out, NodeId([3; 8]), 1);
        records.iter().for_each(|record| push(&mut out, record));
        stamp(&mut out, 1_700_000_000_000);
        out
    }

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let batch = batch(&all());
        let read = Batch::read(&batch).unwrap();
        assert_eq!((read.from, read.unix_ms), (NodeId([3; 8]), 1_700_000_000_000));
        assert_eq!(read.collect::<Result<Vec<_>, _>>(), Ok(all()));
    }

    #[test]
    fn a_cut_batch_gives_what_came_whole_and_then_says_so() {
        let whole = batch(&all());
        for len in HEAD..whole.len() {
            let read: Vec<_> = Batch::read(&whole[..len]).unwrap().collect();
            let good = read.iter().take_while(|record| record.is_ok()).count();
            assert!(read.len() - good <= 1, "{len}");
            assert!(
                read.iter()
                    .zip(all())
                    .all(|(read, wrote)| read.as_ref().is_ok_and(|read| *read == wrote) || read.is_err())
            );
        }
        assert!((0..HEAD).all(|len| Batch::read(&whole[..len]).is_none()));
    }

    #[test]
    fn records_of_a_later_version_are_skipped() {
        let mut bytes = batch(&all()[..1]);
        bytes.extend_from_slice(&[0, 0, 0, 2, 0x7f, 1]);
        push(&mut bytes, &Record::Ping(1));
        let read: Vec<_> = Batch::read(&bytes).unwrap().collect();
        assert_eq!(read, [Ok(all()[0].clone()), Ok(Record::Ping(1))]);
    }

    #[test]
    fn lengths_that_lie_end_the_batch() {
        for len in [0_u32, MAX_RECORD as u32 + 1, u32::MAX] {
            let mut bytes = batch(&[]);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.extend_from_slice(&[5; 64]);
            assert_eq!(Batch::read(&bytes).unwrap().collect::<Vec<_>>(), [Err(Torn)]);
        }
    }

    /// As a device sends it, and as it arrives.
    fn frame(n: u32, payload: &[u8]) -> (Frame<'_>, Message) {
        let frame = Frame { to: device(2), tag: n, payload };
        (frame, frame.to_message(&device(1)))
    }

    fn fill(queue: &mut Queue, sent: &[(Frame<'_>, Message)]) {
        let own = NodeId([3; 8]);
        for some in sent.chunks(3) {
            let run: Vec<_> = some.iter().skip(1).map(|(frame, _)| *frame).collect();
            queue.push(own, &Record::Message(some[0].1.clone()));
            assert_eq!(queue.push_frames(own, &device(1), &run, usize::MAX), run.len());
        }
    }

    #[test]
    fn what_waits_is_cut_into_batches_that_are_not_too_large_and_nothing_is_lost_between_them() {
        let payload = vec![7; happy_wire::relay::MAX_PAYLOAD];
        let sent: Vec<_> = (0..100).map(|n| frame(n, &payload[..n as usize * 661])).collect();
        let mut queue = Queue::default();
        fill(&mut queue, &sent);
        let total = queue.len();
        let mut batches: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let sizes: Vec<_> = batches.iter().map(|batch| batch.len()).collect();
        assert!(sizes.len() > 10 && sizes.iter().all(|size| *size <= MAX_FILLED), "{sizes:?}");
        assert!(sizes.iter().rev().skip(1).all(|size| *size >= FULL), "{sizes:?}");
        assert_eq!((sizes.iter().sum::<usize>(), queue.len(), queue.is_empty()), (total, 0, true));
        let read: Vec<_> = batches.iter().flat_map(|batch| messages(batch)).collect();
        assert!(read.iter().eq(sent.iter().map(|(_, message)| message)));
        // Put back in between, all of it is where it was.
        let kept = batches.split_off(3);
        kept.into_iter().rev().for_each(|batch| queue.put_back(batch));
        queue.push(NodeId([3; 8]), &Record::Message(sent[0].1.clone()));
        batches.into_iter().rev().for_each(|batch| queue.put_back(batch));
        let read = queue.into_messages();
        assert!(read.iter().eq(sent.iter().chain(&sent[..1]).map(|(_, message)| message)));
    }

    /// As OPERATE says.
    #[test]
    fn no_batch_has_more_room_than_the_largest_that_is_filled() {
        let payload = [7; happy_wire::relay::MAX_PAYLOAD];
        for size in [1, 50, 3_000, 17_000, 33_000, payload.len()] {
            let mut queue = Queue::default();
            while queue.len() < 1024 * 1024 {
                let sent = frame(1, &payload[..size]);
                fill(&mut queue, &[sent.clone(), sent]);
                assert!(queue.last.capacity() <= MAX_FILLED, "{size}: {}", queue.last.capacity());
            }
            let rooms: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|batch| batch.0.capacity()).collect();
            assert!(rooms.len() > 4 && rooms[1..rooms.len() - 1].iter().all(|room| *room == MAX_FILLED), "{rooms:?}");
        }
    }

    #[test]
    fn the_room_of_a_batch_is_used_again_and_given_back() {
        let sent: Vec<_> = (0..400).map(|n| frame(n, &[1; 200])).collect();
        let mut queue = Queue::default();
        fill(&mut queue, &sent);
        let batch = queue.pop().unwrap();
        let room = batch.0.capacity();
        queue.reuse(batch);
        assert_eq!(queue.pop(), None);
        fill(&mut queue, &sent[..1]);
        let batch = queue.pop().unwrap();
        assert_eq!((batch.0.capacity(), queue.spare.capacity()), (room, 0));
        queue.reuse(batch);
        queue.shrink();
        assert_eq!((queue.last.capacity(), queue.spare.capacity()), (0, 0));
    }

    #[test]
    fn frames_that_find_no_room_are_not_taken() {
        let sent: Vec<_> = (0..10).map(|n| frame(n, &[1; 200]).0).collect();
        let mut queue = Queue::default();
        let own = NodeId([3; 8]);
        assert_eq!(queue.push_frames(own, &device(1), &sent, 1_000), 4);
        assert_eq!(queue.push_frames(own, &device(1), &sent[4..], 1_000), 0);
        assert_eq!(queue.into_messages().len(), 4);
    }
}
