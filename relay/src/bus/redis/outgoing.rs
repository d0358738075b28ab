//! What waits to be sent to other nodes and to Redis, and the task that sends it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join_all;
use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use redis::{Cmd, RedisResult, Value};
use tokio::time::Instant;

use super::direct::Line;
use super::directory::{self, Cache, Entry};
use super::records::{self, Note};
use super::shares::Shares;
use super::way::Conn;
use super::{Shared, goes_directly};
use crate::bus::batch::{self, Filled, Queue, Record};
use crate::bus::{BusStats, Frame, Message, NodeId};
use crate::mailbox::is_rendezvous;
use crate::records::unix_ms;

/// What is published for a node and not answered yet, batches: while Redis has one in hand the next ones are on their way.
const ON_THEIR_WAY: usize = 8;
/// What waits to be said of who names whom, bytes. It has nothing to do with what frames may take: whoever names many devices displaces no frame.
const MAX_NOTICES: usize = 8 * 1024 * 1024;
/// That somebody names somebody is said again later when it is not said now, so it leaves room for what is not.
const MAX_NAMED: usize = MAX_NOTICES / 2;
/// Below this there is room again.
const NOTICES_ROOM: usize = MAX_NOTICES / 4;
/// Directory changes, vouches and readers that wait, bytes. Beyond it they are forgotten and made good by entering everything again.
const MAX_CHORES: usize = 16 * 1024 * 1024;
/// Devices that are remembered as gone while Redis cannot be told.
const MAX_OWED: usize = 65_536;
/// The notices for which the directory is asked at once, and the chores that are done at once: frames wait for no more than these.
const AT_ONCE: usize = 512;

#[derive(Default)]
pub(super) struct Outgoing {
    pub(super) conn: Option<Conn>,
    pub(super) cache: Cache,
    pub(super) nodes: HashMap<NodeId, Queue>,
    /// What waits for an answer of the directory.
    pub(super) asking: HashMap<DeviceId, Vec<Message>>,
    pub(super) chores: Chores,
    /// The writer has something in hand.
    busy: bool,
    /// Chores were forgotten.
    pub(super) incomplete: bool,
    /// Devices that have gone from here and may stand in the directory still.
    owed: HashMap<DeviceId, Entry>,
    /// What all of this takes, bytes; without notices and chores.
    pub(super) waiting: usize,
    /// Whose it is.
    shares: Shares,
    pub(super) notices: Notices,
}

/// What waits to be said of who names whom, and of changed records.
#[derive(Default)]
pub(super) struct Notices {
    /// Those that wait for an answer of the directory, and in which order it is asked.
    asking: HashMap<DeviceId, Vec<Message>>,
    turns: VecDeque<DeviceId>,
    /// What they take, and in batches.
    bytes: usize,
    in_batches: usize,
    /// Devices here of which it was not said whom they name; they name them anew when there is room.
    unsaid: HashSet<DeviceId>,
}

impl Notices {
    /// Whether there is room for one more.
    fn has_room(&self, notice: &Message) -> bool {
        let most = if matches!(notice, Message::Naming { named: true, .. }) { MAX_NAMED } else { MAX_NOTICES };
        self.bytes + cost(notice) <= most
    }

    fn ask(&mut self, device: DeviceId, notice: Message) {
        self.bytes += cost(&notice);
        let Self { asking, turns, .. } = self;
        let waiting = asking.entry(device).or_insert_with(|| {
            turns.push_back(device);
            Vec::with_capacity(1)
        });
        waiting.push(notice);
    }

    fn answered(&mut self, device: &DeviceId) -> Vec<Message> {
        let waiting = self.asking.remove(device).unwrap_or_default();
        self.bytes -= waiting.iter().map(cost).sum::<usize>();
        waiting
    }

    /// Whom the directory is asked for next.
    fn next(&mut self) -> Vec<DeviceId> {
        let count = self.turns.len().min(AT_ONCE);
        // For some, a frame has asked meanwhile.
        self.turns.drain(..count).filter(|device| self.asking.contains_key(device)).collect()
    }

    /// A device that is to name its peers anew, if there is room.
    fn next_unsaid(&mut self) -> Option<DeviceId> {
        let device = self.unsaid.iter().next().copied().filter(|_| self.bytes < NOTICES_ROOM)?;
        self.unsaid.take(&device)
    }
}

/// Changes in Redis that wait for their turn.
#[derive(Default)]
pub(super) struct Chores {
    queue: BTreeMap<u64, Chore>,
    newest: u64,
    /// Where in the queue it stands who may read the records of a machine: only the last word counts.
    readers: HashMap<DeviceId, u64>,
    bytes: usize,
}

impl Chores {
    /// Gives the chore back when there is no room.
    pub(super) fn push(&mut self, chore: Chore) -> Result<(), Chore> {
        let (cost, machine) = (chore.cost(), chore.reads());
        let place = machine.and_then(|machine| self.readers.get(&machine).copied());
        let older = place.and_then(|place| self.queue.get(&place)).map_or(0, Chore::cost);
        if self.bytes - older + cost > MAX_CHORES {
            return Err(chore);
        }
        let place = place.unwrap_or_else(|| {
            self.newest += 1;
            self.newest
        });
        self.bytes = self.bytes - older + cost;
        self.queue.insert(place, chore);
        if let Some(machine) = machine {
            self.readers.insert(machine, place);
        }
        Ok(())
    }

    fn next(&mut self) -> Vec<Chore> {
        let chores: Vec<_> =
            std::iter::from_fn(|| self.queue.pop_first()).take(AT_ONCE).map(|(_, next)| next).collect();
        for chore in &chores {
            self.bytes -= chore.cost();
            if let Some(machine) = chore.reads() {
                self.readers.remove(&machine);
            }
        }
        chores
    }
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        let said = self.asking.is_empty() && self.notices.asking.is_empty();
        said && !self.busy && self.chores.queue.is_empty() && self.nodes.values().all(Queue::is_empty)
    }

    /// Whether many more notices and chores may be added.
    pub(super) fn has_room(&self) -> bool {
        self.notices.bytes < NOTICES_ROOM && self.chores.bytes < MAX_CHORES / 2
    }

    /// Whether there is room for a message. If not, it is counted, and of a notice that can be said again its device is remembered.
    pub(super) fn takes(&mut self, message: &Message, stats: &BusStats) -> bool {
        let fits = match message.sender() {
            Some(sender) => self.shares.take(sender, self.waiting, cost(message)),
            None => self.notices.has_room(message),
        };
        if !fits {
            stats.no_room(message);
        }
        if let (false, Message::Naming { from, named: true, .. }) = (fits, message) {
            self.notices.unsaid.insert(*from);
        }
        fits
    }

    /// All batches have gone; what is left waits for the directory.
    fn count_shares(&mut self) {
        let Self { asking, shares, waiting, .. } = self;
        let left = asking.values().flatten().filter_map(|message| Some((message.sender()?, cost(message))));
        shares.count(*waiting, left);
    }

    /// Has a message wait until the directory has answered where its device is.
    pub(super) fn ask(&mut self, device: DeviceId, message: Message) {
        if is_notice(&message) {
            return self.notices.ask(device, message);
        }
        self.waiting += cost(&message);
        self.asking.entry(device).or_default().push(message);
    }

    /// The same for frames of a device, all for one, as far as there is room. Gives how many were taken.
    pub(super) fn ask_for_frames(&mut self, from: &DeviceId, run: &[Frame<'_>], stats: &BusStats) -> usize {
        for (taken, frame) in run.iter().enumerate() {
            let message = frame.to_message(from);
            if !self.takes(&message, stats) {
                return taken;
            }
            self.ask(frame.to, message);
        }
        run.len()
    }

    /// Whether the directory is asked where a device is, for such a message.
    pub(super) fn asks(&self, device: &DeviceId, message: &Message) -> bool {
        if is_notice(message) { self.notices.asking.contains_key(device) } else { self.asking.contains_key(device) }
    }

    /// Whether nothing waits of what wakes the writer only when it is the first.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.notices.bytes == 0
    }

    /// A chore was not done. What cannot be found out anew is kept; what is too much is found by the sweep.
    pub(super) fn owe(&mut self, chore: &Chore) {
        if let Chore::Release(device, entry) = chore
            && self.owed.len() < MAX_OWED
        {
            self.owed.insert(*device, *entry);
        }
    }

    /// Nothing goes out any more.
    pub(super) fn drop_chores(&mut self) {
        std::mem::take(&mut self.chores).queue.values().for_each(|chore| self.owe(chore));
        self.notices = Notices::default();
    }

    /// What was owed is done now.
    pub(super) fn settle(&mut self) {
        for (device, entry) in std::mem::take(&mut self.owed) {
            if let Err(chore) = self.chores.push(Chore::Release(device, entry)) {
                self.incomplete = true;
                self.owe(&chore);
            }
        }
    }
}

pub(super) enum Chore {
    Release(DeviceId, Entry),
    Command(Cmd),
    Note(DeviceId, Note),
}

impl Chore {
    /// What it takes while it waits, bytes.
    fn cost(&self) -> usize {
        const HEAD: usize = 256;
        match self {
            Chore::Note(_, Note::Readers(readers)) => HEAD + readers.len() * DeviceId::LEN,
            _ => HEAD,
        }
    }

    /// The machine of which it says who may read its records.
    fn reads(&self) -> Option<DeviceId> {
        match self {
            Chore::Note(machine, Note::Readers(_)) => Some(*machine),
            _ => None,
        }
    }
}

pub(super) fn put(out: &mut Outgoing, own: NodeId, node: NodeId, record: &Record<'_>) {
    let more = out.nodes.entry(node).or_default().push(own, record);
    match record {
        Record::Message(message) if is_notice(message) => {
            out.notices.bytes += more;
            out.notices.in_batches += more;
        }
        _ => out.waiting += more,
    }
}

/// The same for messages that had another way, as far as there is room. Gives those for which there is none.
pub(super) fn put_all(
    out: &mut Outgoing,
    own: NodeId,
    node: NodeId,
    messages: Vec<Message>,
    stats: &BusStats,
) -> Vec<Message> {
    let mut left = Vec::new();
    for message in messages {
        match out.takes(&message, stats) {
            true => put(out, own, node, &Record::Message(message)),
            false => left.push(message),
        }
    }
    left
}

/// The same for frames of a device, all for one, as far as there is room. Gives how many were taken.
pub(super) fn put_frames(out: &mut Outgoing, own: NodeId, node: NodeId, from: &DeviceId, run: &[Frame<'_>]) -> usize {
    let room = out.shares.room(from, out.waiting);
    let queue = out.nodes.entry(node).or_default();
    let before = queue.len();
    let taken = queue.push_frames(own, from, run, before + room);
    let more = queue.len() - before;
    out.shares.took(*from, out.waiting, more);
    out.waiting += more;
    taken
}

/// Whether it says who names whom, or what has changed. Everything else is a frame or hangs on one.
fn is_notice(message: &Message) -> bool {
    message.sender().is_none()
}

/// What a message takes while it waits, bytes.
pub(super) fn cost(message: &Message) -> usize {
    const HEAD: usize = 128;
    // One for each device, so with its place in a map.
    const NOTICE: usize = 256;
    match message {
        Message::Frame { deliver, .. } => HEAD + deliver.len(),
        Message::Undelivered { .. } => HEAD,
        _ => NOTICE,
    }
}

/// Who is connected to the node that a message goes to, as the directory has it.
fn receiver(message: &Message) -> Option<DeviceId> {
    match message {
        Message::Frame { to, .. } | Message::Naming { to, .. } | Message::Changed { to, .. } => Some(*to),
        _ => None,
    }
}

/// What its sender is told of a message that certainly did not arrive.
pub(super) fn undelivered(message: Message, reason: Undelivered) -> Option<Message> {
    match message {
        Message::Frame { from, to, tag, deliver } => {
            let rendezvous = is_rendezvous(&deliver);
            Some(Message::Undelivered { from, to, tag, reason, rendezvous })
        }
        _ => None,
    }
}

/// Writes what waits, for as long as the bus lives.
pub(super) async fn write(shared: Arc<Shared>) {
    loop {
        shared.wake.notified().await;
        while let Some((conn, work)) = take(&shared) {
            let Work { batches, asking, chores } = work;
            let answers = join_all(asking.iter().map(|device| directory::look_up(&conn, device)));
            let published = join_all(batches.into_iter().map(|(node, batch)| publish(&shared, &conn, node, batch)));
            let done = join_all(chores.iter().map(|chore| do_chore(&shared, &conn, chore)));
            let (answers, _, done) = tokio::join!(answers, published, done);
            shared.stats.commands.fetch_add((asking.len() + chores.len()) as u64, Relaxed);
            for (chore, _) in chores.iter().zip(&done).filter(|(_, done)| done.is_err()) {
                let mut out = shared.out.lock();
                out.incomplete = true;
                out.owe(chore);
            }
            for (device, answer) in asking.into_iter().zip(answers) {
                place(&shared, device, answer.ok().flatten());
            }
            shared.say_unsaid();
            shared.room.notify_waiters();
        }
        shared.idle.notify_waiters();
    }
}

pub(super) struct Work {
    batches: Vec<(NodeId, Queue)>,
    asking: Vec<DeviceId>,
    chores: Vec<Chore>,
}

/// What can be done at once. None when nothing waits, or there is no way.
pub(super) fn take(shared: &Shared) -> Option<(Conn, Work)> {
    let mut out = shared.out.lock();
    out.busy = false;
    let conn = out.conn.clone()?;
    let batches: Vec<_> = std::mem::take(&mut out.nodes).into_iter().filter(|(_, batch)| !batch.is_empty()).collect();
    let chores = out.chores.next();
    let mut asking = out.notices.next();
    asking.retain(|device| !out.asking.contains_key(device));
    asking.extend(out.asking.keys());
    let sent: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
    let notices = std::mem::take(&mut out.notices.in_batches);
    out.notices.bytes -= notices;
    out.waiting = out.waiting.saturating_sub(sent - notices);
    out.count_shares();
    let work = Work { batches, asking, chores };
    let some = !(work.batches.is_empty() && work.asking.is_empty() && work.chores.is_empty());
    out.busy = some;
    some.then_some((conn, work))
}

async fn publish(shared: &Arc<Shared>, conn: &Conn, node: NodeId, mut queue: Queue) {
    // A connection keeps the order of what is asked at once; a cluster promises none.
    let at_once = match conn {
        Conn::Single(_) => ON_THEIR_WAY,
        Conn::Cluster(_) => 1,
    };
    while !queue.is_empty() {
        let batches = std::iter::from_fn(|| queue.pop()).take(at_once);
        let answered = join_all(batches.map(|batch| publish_batch(shared, conn, node, batch))).await;
        if answered.contains(&false) {
            // What is behind would meet the same, or overtake what its senders are about to send again.
            return shared.not_published(queue.into_messages());
        }
    }
}

/// Whether Redis has answered.
async fn publish_batch(shared: &Arc<Shared>, conn: &Conn, node: NodeId, mut batch: Filled) -> bool {
    batch::stamp(&mut batch, unix_ms());
    shared.stats.published.fetch_add(1, Relaxed);
    let mut command = redis::cmd("SPUBLISH");
    command.arg(node.channel()).arg(&batch[..]);
    match conn.run::<u64>(&command).await {
        Ok(0) => {
            // That node has gone. Whoever sent something is told, and asks anew where the device is.
            shared.stats.untaken.fetch_add(1, Relaxed);
            shared.out.lock().cache.forget_node(node);
            let messages = batch::messages(&batch);
            // Or it has not come back yet to a Redis that was away.
            let says = if shared.is_refilling() { shared.node } else { node };
            if says == node {
                let devices = messages.iter().filter_map(receiver).collect();
                shared.spawn(shared.clone().strike_out(conn.clone(), node, devices));
            }
            shared.give_back(says, messages, Undelivered::Unreachable);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%error, "a batch may not have been published");
            // It may have arrived: its frames are left to the link, which sends again. Notices are said again.
            shared.say_again(&batch::messages(&batch));
            return false;
        }
    }
    true
}

async fn do_chore(shared: &Shared, conn: &Conn, chore: &Chore) -> RedisResult<()> {
    match chore {
        Chore::Release(device, entry) => directory::release(conn, device, *entry).await,
        Chore::Command(command) => conn.run::<Value>(command).await.map(drop),
        Chore::Note(machine, note) => {
            let there = records::note(conn, machine, note, &shared.stats.full).await?;
            // Redis had no room for them. Of a machine that is here and has put none, the inbox knows.
            if let Note::Seen { asked, .. } = note
                && !there
                && let Some(inbox) = shared.inbox()
            {
                inbox.lost_records(machine, Some(*asked));
            }
            Ok(())
        }
    }
}

/// The directory has answered: what waited for a device goes to its node, or back.
pub(super) fn place(shared: &Arc<Shared>, device: DeviceId, entry: Option<Entry>) {
    let lost: Vec<Message> = {
        let mut out = shared.out.lock();
        // What came from the device itself since it was asked for is newer than the answer.
        let heard = out.cache.get(&device, Instant::now()).flatten();
        let node = heard.or(entry.map(|entry| entry.node)).filter(|node| *node != shared.node);
        let frames = out.asking.remove(&device).unwrap_or_default();
        out.waiting = out.waiting.saturating_sub(frames.iter().map(cost).sum());
        // Presence first.
        let mut waiting = out.notices.answered(&device);
        waiting.extend(frames);
        out.cache.put(device, node, Instant::now());
        match node {
            Some(node) => {
                for message in waiting {
                    // A full direct way is left to Redis here: whoever sent this was told already that it is on its way.
                    let push = |line: &mut Line| line.push(shared.node, &message);
                    if !goes_directly(&message) || shared.directly(node, push) != Some(true) {
                        put(&mut out, shared.node, node, &Record::Message(message));
                    }
                }
                Vec::new()
            }
            None => waiting,
        }
    };
    shared.give_back(shared.node, lost, Undelivered::Unreachable);
}

impl Shared {
    /// Strikes these devices out where they stand for a node that takes nothing, if it has gone: who asks for them next shall not be led there.
    async fn strike_out(self: Arc<Self>, conn: Conn, node: NodeId, devices: HashSet<DeviceId>) {
        self.stats.commands.fetch_add(1 + devices.len() as u64, Relaxed);
        if !matches!(directory::lives(&conn, node).await, Ok(false)) {
            return;
        }
        for device in devices {
            let Ok(Some(entry)) = directory::look_up(&conn, &device).await else { continue };
            if entry.node == node {
                self.stats.swept.fetch_add(1, Relaxed);
                self.chore(Chore::Release(device, entry));
            }
        }
    }

    /// Tells the senders of frames that were not published.
    fn not_published(&self, messages: Vec<Message>) {
        self.say_again(&messages);
        // In the name of this node: the other one may be where it was.
        self.give_back(self.node, messages, Undelivered::Unreachable);
    }

    /// Has everything that is here entered and said again when there are notices among these, of which nobody would say that they are lost.
    fn say_again(&self, lost: &[Message]) {
        if lost.iter().any(is_notice) {
            self.out.lock().incomplete = true;
        }
    }

    /// Says whom devices name, where there was no room for it. Nothing else of them was lost.
    fn say_unsaid(&self) {
        loop {
            let device = self.out.lock().notices.next_unsaid();
            let (Some(device), Some(inbox)) = (device, self.inbox()) else { return };
            inbox.names_anew(&device);
        }
    }
}

#[cfg(test)]
impl crate::bus::RedisBus {
    /// Once there was no room to say whom this device names, and now there is.
    pub(crate) fn have_unsaid(&self, device: &DeviceId) {
        self.shared.out.lock().notices.unsaid.insert(*device);
        self.shared.say_unsaid();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Duration, timeout};

    use super::*;
    use crate::access::tests::device;
    use crate::bus::redis::MAX_WAITING;
    use crate::bus::{Login, RedisBus};

    fn naming(from: u32, to: u32, named: bool) -> Message {
        Message::Naming { from: device(from), epoch: 1, revision: 1, to: device(to), named, answer: named }
    }

    fn frame(to: u32, payload: usize) -> Message {
        Message::Frame { from: device(0), to: device(to), tag: to, deliver: vec![3; payload].into() }
    }

    /// As many notices as are taken, each for another device.
    fn fill(out: &mut Outgoing, named: bool, first: u32, stats: &BusStats) -> u32 {
        let taken = (first..first + 100_000).take_while(|n| {
            let notice = naming(1, *n, named);
            let takes = out.takes(&notice, stats);
            if takes {
                out.ask(device(*n), notice);
            }
            takes
        });
        taken.count() as u32
    }

    #[test]
    fn notices_take_no_room_from_frames_and_have_a_bound_of_their_own() {
        let (mut out, stats) = (Outgoing::default(), BusStats::default());
        let named = fill(&mut out, true, 0, &stats);
        assert_eq!(named as usize, MAX_NAMED / 256);
        assert!(out.notices.unsaid.contains(&device(1)), "it names them anew");
        let gone = fill(&mut out, false, named, &stats);
        assert_eq!((named + gone) as usize, MAX_NOTICES / 256, "that somebody has gone is not said again later");
        let (login, ticket_hash) = (Login { epoch: 1, number: 1 }, [0; 32]);
        for lost in [
            Message::Changed { machine: device(1), to: device(2), kinds: 1 },
            Message::GuestComes { guest: device(1), login, ticket_hash },
        ] {
            assert!(!out.takes(&lost, &stats));
        }
        assert!(out.takes(&frame(5, 60_000), &stats));
        assert_eq!(out.waiting, 0);
        let counted: Vec<_> = stats.notices_full.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!(counted, [1, 1, 1, 1, 0]);
        // The directory answers; what was not said can be.
        assert_eq!(out.notices.next_unsaid(), None);
        for n in 0..named + gone {
            assert_eq!(out.notices.answered(&device(n)).len(), 1);
        }
        assert_eq!(out.notices.next_unsaid(), Some(device(1)));
        assert_eq!((out.notices.bytes, out.notices.next_unsaid()), (0, None));
    }

    #[test]
    fn a_device_that_sends_without_end_leaves_room_for_the_frames_of_others() {
        let (mut out, stats, node) = (Outgoing::default(), BusStats::default(), NodeId([2; 8]));
        let from = |n: u32| Message::Frame { from: device(n), to: device(9), tag: n, deliver: vec![3; 65_000].into() };
        let mut send = |n: u32| {
            let takes = out.takes(&from(n), &stats);
            if takes {
                put(&mut out, NodeId([1; 8]), node, &Record::Message(from(n)));
            }
            takes
        };
        let flood = std::iter::repeat_with(|| send(1)).take_while(|taken| *taken).count();
        assert!(flood > 50, "{flood}");
        assert!((2..20).all(&mut send), "others have room beside it");
        assert!(!send(1), "and it has none");
    }

    /// Several direct ways may end at once, with as much on each as may wait for Redis in all.
    #[test]
    fn what_was_left_of_direct_ways_finds_no_more_room_than_there_is() {
        let (mut out, stats, own) = (Outgoing::default(), BusStats::default(), NodeId([1; 8]));
        let of = |n: u32| Message::Frame { from: device(n), to: device(9), tag: n, deliver: vec![3; 60_000].into() };
        let mut left = 0;
        for node in 2..6 {
            let messages: Vec<_> = (0..120).map(of).collect();
            left += put_all(&mut out, own, NodeId([node; 8]), messages, &stats).len();
        }
        assert!(out.waiting <= MAX_WAITING, "{}", out.waiting);
        let taken = out.nodes.values().map(Queue::len).sum::<usize>() / 60_000;
        assert_eq!(taken + left, 4 * 120, "each was put, or is given back");
    }

    #[test]
    fn frames_of_others_are_asked_for_before_all_notices_have_been() {
        let mut out = Outgoing::default();
        let count = fill(&mut out, true, 0, &BusStats::default());
        out.ask(device(7), naming(2, 7, true));
        let mut asked = Vec::new();
        while asked.len() < count as usize {
            let next = out.notices.next();
            assert!((1..=AT_ONCE).contains(&next.len()));
            asked.extend(next);
        }
        assert!(asked.into_iter().eq((0..count).map(device)), "in their order, each once");
        assert!(out.notices.next().is_empty());
        assert_eq!(out.notices.answered(&device(7)).len(), 2);
    }

    #[test]
    fn what_goes_to_a_known_node_is_counted_until_it_is_sent() {
        let mut out = Outgoing::default();
        let (own, node) = (NodeId([1; 8]), NodeId([2; 8]));
        for n in 0..10 {
            put(&mut out, own, node, &Record::Message(naming(1, n, true)));
            put(&mut out, own, node, &Record::Message(frame(n, 100)));
        }
        assert_eq!(out.waiting + out.notices.bytes, out.nodes[&node].len());
        assert_eq!(out.notices.bytes, out.notices.in_batches);
        assert!(out.waiting > 10 * 100 && out.notices.bytes > 10 * 64);
    }

    #[test]
    fn frames_that_follow_one_another_have_the_bound_of_their_device() {
        let (mut out, stats) = (Outgoing::default(), BusStats::default());
        let (own, known, payload) = (NodeId([1; 8]), NodeId([2; 8]), [3; 60_000]);
        let run = [Frame { to: device(2), tag: 1, payload: &payload }; 32];
        let asked = out.ask_for_frames(&device(1), &run, &stats);
        assert_eq!((asked, out.asking[&device(2)].len()), (run.len(), run.len()));
        let taken: Vec<_> = (0..100).map(|_| put_frames(&mut out, own, known, &device(1), &run)).collect();
        assert_eq!(taken[..2], [run.len(); 2]);
        assert_eq!(taken.iter().sum::<usize>(), out.nodes[&known].len() / payload.len());
        assert!((MAX_WAITING / 2..MAX_WAITING / 4 * 3).contains(&out.waiting), "{}", out.waiting);
        assert_eq!(out.ask_for_frames(&device(1), &run, &stats), 0);
        assert!(put_frames(&mut out, own, known, &device(3), &run) > 0, "there is room for others");
    }

    #[test]
    fn of_who_may_read_only_the_last_word_waits_and_all_chores_have_a_bound_in_bytes() {
        let readers = |machine, count| Chore::Note(device(machine), Note::Readers(vec![device(9); count]));
        let (mut chores, asked) = (Chores::default(), Instant::now());
        for count in (0..=256).rev() {
            assert!(chores.push(readers(1, count)).is_ok());
            assert!(chores.push(Chore::Note(device(1), Note::Seen { at: count as u64, asked })).is_ok());
        }
        let first = chores.next();
        let words = first.iter().filter_map(|chore| match chore {
            Chore::Note(_, Note::Readers(readers)) => Some(readers.len()),
            _ => None,
        });
        assert_eq!(words.collect::<Vec<_>>(), [0]);
        assert_eq!((chores.bytes, chores.readers.len()), (0, 0));
        let taken = (0..100_000).take_while(|machine| chores.push(readers(*machine, 256)).is_ok()).count();
        assert_eq!(taken, MAX_CHORES / (256 + 256 * 32));
        assert!(chores.push(readers(0, 0)).is_ok(), "what takes the place of more has room");
        let entry = Entry { node: NodeId([1; 8]), login: Login { epoch: 1, number: 1 } };
        assert!(chores.push(Chore::Release(device(1), entry)).is_ok());
        while !chores.next().is_empty() {}
        assert_eq!((chores.bytes, chores.readers.len()), (0, 0));
    }

    /// A node that ends waits for what the writer has in hand.
    #[tokio::test]
    async fn nothing_is_left_only_when_the_writer_is_done() {
        let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        bus.tasks[0].abort();
        let shared = &bus.shared;
        // A Redis that answers when the test does.
        let (near, mut redis) = tokio::io::duplex(1 << 20);
        let greeting = redis::RedisConnectionInfo::default().set_protocol(redis::ProtocolVersion::RESP2);
        let connecting = async {
            redis::aio::MultiplexedConnection::new_with_config(&greeting, near, redis::AsyncConnectionConfig::new())
                .await
                .unwrap()
        };
        let ((conn, driver), ()) = tokio::join!(connecting, async {
            until_asked(&mut redis, "LIB-VER").await;
            redis.write_all(b"+OK\r\n+OK\r\n").await.unwrap();
        });
        tokio::spawn(driver);
        {
            let mut out = shared.out.lock();
            out.conn = Some(Conn::Single(conn));
            put(&mut out, NodeId([1; 8]), NodeId([2; 8]), &Record::Message(frame(1, 100)));
            assert!(!out.is_empty());
        }
        shared.wake.notify_one();
        until_asked(&mut redis, "SPUBLISH").await;
        assert!(!shared.out.lock().is_empty(), "it is being published");
        redis.write_all(b":1\r\n").await.unwrap();
        let done = async {
            while !shared.out.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), done).await.unwrap();
    }

    async fn until_asked(redis: &mut tokio::io::DuplexStream, word: &str) {
        let mut asked = Vec::new();
        while !asked.windows(word.len()).any(|part| part == word.as_bytes()) {
            assert!(redis.read_buf(&mut asked).await.unwrap() > 0);
        }
    }

    /// Two nodes come back at once: one asked for a device before the other had entered it, and hears of it before the answer.
    #[tokio::test]
    async fn what_was_heard_of_a_device_since_it_was_asked_for_counts() {
        let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
        let (there, node) = (device(2), NodeId([7; 8]));
        {
            let mut out = bus.shared.out.lock();
            out.ask(there, naming(1, 2, true));
            out.cache.put(there, Some(node), Instant::now());
        }
        place(&bus.shared, there, None);
        let out = bus.shared.out.lock();
        assert_eq!(out.nodes.keys().collect::<Vec<_>>(), [&node]);
    }
}
