//! What the rest of the relay can reach of one connection: its queues, whom it names, and whether it still counts.
//!
//! The connection's actor drains the queues; everybody else only appends. All state sits behind one lock per connection,
//! held for a few map look-ups and never across a wait.

mod bulk;
mod peers;

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::task::Waker;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::relay::{FromRelay, Undelivered};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::bus::{Login, NodeId};
use crate::records::place;
use bulk::Bulk;
pub(crate) use bulk::{Batch, Count};
use peers::{Nodes, Peers};

/// What stands before the payload of a Deliver frame (`PROTOCOL 7`): type, sender, via.
pub(crate) const DELIVER_HEAD: usize = 1 + DeviceId::LEN + 1;

/// Whether a Deliver frame came through a rendezvous.
pub(crate) fn is_rendezvous(deliver: &[u8]) -> bool {
    deliver.get(DELIVER_HEAD - 1) == Some(&1)
}

/// What a queued frame costs beside its bytes; without it, empty frames would be free and a queue without bound.
const FRAME_COST: usize = 64;
/// Every bit of Changed that stands for a kind.
const ALL_KINDS: u8 = 0b11;
/// A Presence frame (`PROTOCOL 7`): type, device, state. A Changed frame is as long.
const PRESENCE_LEN: usize = 1 + DeviceId::LEN + 1;
/// The most bytes of control frames that wait for one connection. Presence of 256 peers takes 25 KiB of it.
const CONTROL_BYTES: usize = 64 * 1024;
/// Above this, the connection's own frames are not read: what they would be answered with must stay within
/// [`CONTROL_BYTES`], whose other half is for what other devices cause.
const CONTROL_CROWDED: usize = CONTROL_BYTES / 2;

/// How and why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) code: Code,
    pub(crate) retry_after_ms: u32,
    pub(crate) text: &'static str,
    /// Whether what is queued is written out first. Never for a displaced connection.
    pub(crate) drain: bool,
}

impl Ending {
    pub(crate) const fn at_once(code: Code, text: &'static str) -> Self {
        Self { code, retry_after_ms: 0, text, drain: false }
    }

    pub(crate) const fn after_queue(code: Code, retry_after_ms: u32, text: &'static str) -> Self {
        Self { code, retry_after_ms, text, drain: true }
    }
}

/// One connection, as others see it.
pub(crate) struct Mailbox {
    pub(crate) device: DeviceId,
    pub(crate) login: Login,
    /// For a guest, the machine it may talk to.
    pub(crate) host: Option<Host>,
    /// For a guest of a host here that is connected to another node: where, and for how long. Nothing is queued for such a one.
    elsewhere: Option<Elsewhere>,
    pub(crate) standing: Standing,
    state: Mutex<State>,
    waker: AtomicWaker,
}

/// Where a guest is that is not connected to its host's node.
#[derive(Clone, Copy)]
struct Elsewhere {
    node: NodeId,
    /// When its host's node admitted it.
    since: Instant,
    /// How long it may be there at most.
    until: Instant,
}

/// The host of a guest.
pub(crate) enum Host {
    /// At this node.
    Here(Arc<Mailbox>),
    /// At another one.
    There {
        /// Which.
        node: NodeId,
        /// Who.
        device: DeviceId,
    },
}

impl Host {
    pub(crate) fn device(&self) -> DeviceId {
        match self {
            Self::Here(host) => host.device,
            Self::There { device, .. } => *device,
        }
    }
}

/// By what right a connection that is no guest is here (`PROTOCOL 7`, Access).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Everybody may be.
    Open,
    /// It has an enrolment key, and speaks for the devices that it names.
    Enrolled,
    /// An enrolled device spoke for it, which is asked again from time to time.
    Vouched,
}

/// The state of a [`Mailbox`], under its lock.
#[derive(Default)]
pub(crate) struct State {
    /// INVARIANT: once set, nothing is appended and nothing is sent in this connection's name.
    ending: Option<Ending>,
    peers: Peers,
    /// Grows with every change of `peers`, and from one connection to the next.
    pub(crate) revision: u64,
    /// Guests of this connection's rendezvous, with the ticket hash that each came with.
    pub(crate) guests: Vec<([u8; 32], Arc<Mailbox>)>,
    /// Rendezvous that this connection holds open, and when they end.
    pub(crate) rendezvous: Vec<([u8; 32], Instant)>,
    /// Whether it has ever had one, and so may have written to guests.
    pub(crate) is_host: bool,
    pub(crate) own_records: OwnRecords,
    nodes: Nodes,
    control: VecDeque<Notice>,
    control_bytes: usize,
    bulk: Bulk,
}

/// Whether a machine has put records over this connection: it is told when they are lost (`PROTOCOL 7`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OwnRecords {
    /// It has put none, or none since it was told that they were lost.
    #[default]
    None,
    /// It is putting its first, or could not.
    Tried,
    /// It was answered, be it that they are refused.
    Answered {
        /// The newest answer. Whoever looked before it has not seen that record.
        at: Instant,
        /// The kinds that were put, a bit each as in Changed.
        kinds: u8,
    },
}

/// A control frame that waits.
enum Notice {
    Frame(Bytes),
    /// The presence of a peer as it is when its turn comes. There is at most one of each peer, so nobody can fill another
    /// device's queue by coming and going.
    Presence(DeviceId),
    /// Records of a peer have changed. There is at most one of each peer, too.
    Changed(DeviceId),
}

impl Notice {
    fn cost(&self) -> usize {
        FRAME_COST
            + match self {
                Notice::Frame(frame) => frame.len(),
                Notice::Presence(_) | Notice::Changed(_) => PRESENCE_LEN,
            }
    }
}

/// What the actor writes next.
pub(crate) enum Outgoing {
    Control(Bytes),
    /// Deliver frames, which count as delivered when they are flushed.
    Deliver(Batch),
}

impl Mailbox {
    pub(crate) fn new(device: DeviceId, epoch: u64, standing: Standing) -> Arc<Self> {
        Arc::new(Self::make(device, Login { epoch, number: next_number() }, standing))
    }

    /// Of the guest of a rendezvous.
    pub(crate) fn of_guest(device: DeviceId, login: Login, host: Host) -> Arc<Self> {
        Arc::new(Self { host: Some(host), ..Self::make(device, login, Standing::Open) })
    }

    /// Of a guest that is admitted now and connected to another node, for so long at most.
    pub(crate) fn of_guest_elsewhere(device: DeviceId, login: Login, node: NodeId, most: Duration) -> Arc<Self> {
        let since = Instant::now();
        let elsewhere = Some(Elsewhere { node, since, until: since + most });
        Arc::new(Self { elsewhere, ..Self::make(device, login, Standing::Open) })
    }

    fn make(device: DeviceId, login: Login, standing: Standing) -> Self {
        let (state, waker) = (Mutex::default(), AtomicWaker::new());
        Self { device, login, host: None, elsewhere: None, standing, state, waker }
    }

    /// The node of a guest that is not connected to this one.
    pub(crate) fn elsewhere(&self) -> Option<NodeId> {
        self.elsewhere.map(|there| there.node)
    }

    /// Whether such a guest was admitted within this time.
    pub(crate) fn is_new(&self, within: Duration) -> bool {
        self.elsewhere.is_some_and(|there| there.since.elapsed() < within)
    }

    /// The node of a guest's host, if that is another one.
    pub(crate) fn host_node(&self) -> Option<NodeId> {
        match self.host {
            Some(Host::There { node, .. }) => Some(node),
            _ => None,
        }
    }

    /// Whether the time of such a guest is over.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.elsewhere.is_some_and(|there| there.until <= now)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Locks two connections, always in the same order, so that two frames crossing each other cannot wait for each other.
    pub(crate) fn lock_both<'a>(
        &'a self,
        other: &'a Mailbox,
    ) -> Option<(MutexGuard<'a, State>, MutexGuard<'a, State>)> {
        match std::ptr::from_ref(self).cmp(&std::ptr::from_ref(other)) {
            Ordering::Less => {
                let mine = self.lock();
                Some((mine, other.lock()))
            }
            Ordering::Greater => {
                let theirs = other.lock();
                Some((self.lock(), theirs))
            }
            Ordering::Equal => None,
        }
    }

    /// Makes the actor look at its queues. Called without the lock, since the woken task wants it.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Ends the connection, unless it is ending already. What was queued for it is lost if it is not to be drained.
    pub(crate) fn end(&self, ending: Ending) -> Count {
        let lost = self.lock().end(ending);
        self.wake();
        lost
    }

    /// Queues a control frame.
    pub(crate) fn notify(&self, frame: &FromRelay<'_>) {
        self.lock().notify(frame);
        self.wake();
    }

    pub(crate) fn next(&self) -> Option<Outgoing> {
        self.lock().next()
    }

    /// How long a frame that was watched has waited, once.
    pub(crate) fn waited(&self) -> Option<Duration> {
        self.lock().bulk.waited()
    }
}

impl State {
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.ending
    }

    pub(crate) fn is_live(&self) -> bool {
        self.ending.is_none()
    }

    pub(crate) fn end(&mut self, ending: Ending) -> Count {
        // A connection that is draining may still be displaced; one that is displaced stays so.
        if self.ending.is_some_and(|current| !current.drain) {
            return Count::default();
        }
        self.ending = Some(ending);
        if ending.drain { Count::default() } else { self.discard() }
    }

    /// Empties the queues, and says what was in them.
    pub(crate) fn discard(&mut self) -> Count {
        (self.control, self.control_bytes) = (VecDeque::new(), 0);
        self.bulk.discard()
    }

    pub(crate) fn names(&self, device: &DeviceId) -> bool {
        self.peers.contains(device)
    }

    /// Whom it names.
    pub(crate) fn named(&self) -> Vec<DeviceId> {
        self.peers.ids().collect()
    }

    /// Replaces the list of peers and gives those that came and those that went.
    pub(crate) fn name(&mut self, list: impl IntoIterator<Item = DeviceId>) -> (Vec<DeviceId>, Vec<DeviceId>) {
        let mut old = std::mem::take(&mut self.peers);
        let mut named: Vec<DeviceId> = list.into_iter().collect();
        named.sort_unstable();
        named.dedup();
        let came = named.iter().filter(|peer| !old.contains(peer)).copied().collect();
        self.peers = Peers(named.iter().map(|peer| (*peer, old.get_mut(peer).copied().unwrap_or_default())).collect());
        let went: Vec<DeviceId> = old.ids().filter(|peer| !self.peers.contains(peer)).collect();
        if !went.is_empty() {
            self.forget_presence();
        }
        self.revision = next_number();
        (came, went)
    }

    /// Takes back what waits to be told of devices that are no longer named: named again, they begin anew.
    fn forget_presence(&mut self) {
        let Self { control, control_bytes, peers, .. } = self;
        control.retain(|notice| match notice {
            Notice::Presence(device) | Notice::Changed(device) if !peers.contains(device) => {
                *control_bytes -= notice.cost();
                false
            }
            _ => true,
        });
    }

    /// Tells the connection whether a device that it names is here, if that is news. A newer state takes the place of one
    /// that still waits.
    pub(crate) fn tell(&mut self, device: &DeviceId, here: bool) {
        let live = self.is_live();
        let Some(peer) = self.peers.get_mut(device) else { return };
        if peer.here == here {
            return;
        }
        peer.here = here;
        if live && !peer.waiting {
            peer.waiting = true;
            self.push(Notice::Presence(*device));
        }
    }

    /// Tells the connection that records of a device which it names have changed. True when its actor has to be woken.
    pub(crate) fn tell_changed(&mut self, machine: &DeviceId, kinds: u8) -> bool {
        let live = self.is_live();
        let Some(peer) = self.peers.get_mut(machine).filter(|_| live && kinds != 0) else { return false };
        let waits = peer.changed != 0;
        peer.changed |= kinds;
        if !waits {
            self.push(Notice::Changed(*machine));
        }
        !waits
    }

    /// The machine puts a record.
    pub(crate) fn begin_put(&mut self) {
        if self.own_records == OwnRecords::None {
            self.own_records = OwnRecords::Tried;
        }
    }

    /// A put of this kind was answered; `is_first` when it was stored where no record stood. One of the other kind that was put before
    /// was lost then since the last sign of life, and the next would find this one: the machine is told now. True when its actor has
    /// to be woken.
    pub(crate) fn end_put(&mut self, machine: &DeviceId, kind: u8, is_first: bool) -> bool {
        // A kind that is kept nowhere was refused.
        let this = place(kind).map_or(0, |place| 1 << place);
        let before = |state: &State| match state.own_records {
            OwnRecords::Answered { kinds, .. } => kinds,
            OwnRecords::None | OwnRecords::Tried => 0,
        };
        let are_lost = is_first && before(self) & !this != 0;
        if are_lost {
            self.tell_lost(machine, None);
        }
        self.own_records = OwnRecords::Answered { at: Instant::now(), kinds: before(self) | this };
        are_lost
    }

    /// Tells the machine that its records were lost, once until it puts some again. `asked` is when the question was made up that
    /// found none, if it was one: a record that was put meanwhile is not among the lost.
    pub(crate) fn tell_lost(&mut self, machine: &DeviceId, asked: Option<Instant>) {
        let are_lost = match (self.own_records, asked) {
            (OwnRecords::None, _) | (OwnRecords::Tried, Some(_)) => false,
            (OwnRecords::Answered { at, .. }, Some(asked)) => at <= asked,
            (_, None) => true,
        };
        if are_lost {
            self.own_records = OwnRecords::None;
            // PROTOCOL 7: of its own id it means that they were lost.
            self.notify(&FromRelay::Changed { machine: *machine, kinds: ALL_KINDS });
        }
    }

    /// Takes a notice about a device at that node, unless a later one was heard.
    pub(crate) fn hear(&mut self, device: &DeviceId, node: NodeId, place: (u64, u64), here: bool) {
        let Self { peers, nodes, .. } = self;
        let Some(peer) = peers.get_mut(device) else { return };
        if place >= peer.heard {
            peer.heard = place;
            peer.at = if here { nodes.place(node) } else { None };
            self.tell(device, here);
        }
    }

    /// A node has gone: gives the devices that named this one from there, of which no later word was heard.
    pub(crate) fn gone(&mut self, node: NodeId) -> Vec<DeviceId> {
        let Some(place) = self.nodes.free(node) else { return Vec::new() };
        let there = self.peers.0.iter_mut().filter(|(_, peer)| peer.at == Some(place));
        there.map(|(device, peer)| (*device, peer.at = None).0).collect()
    }

    /// The guest with this id, if it is here: of one that came by several rendezvous, the newest.
    pub(crate) fn guest(&self, device: &DeviceId) -> Option<Arc<Mailbox>> {
        self.guests_of(device).max_by_key(|guest| guest.login).cloned()
    }

    /// Whether a device is a guest at that node, be it that it came anew since, by another rendezvous.
    pub(crate) fn has_guest_at(&self, device: &DeviceId, node: NodeId) -> bool {
        self.guests_of(device).any(|guest| guest.elsewhere() == Some(node))
    }

    /// As what a device is a guest now. Of one at another node nobody may have said that it left.
    fn guests_of(&self, device: &DeviceId) -> impl Iterator<Item = &Arc<Mailbox>> {
        let (device, now) = (*device, Instant::now());
        let is_it = move |guest: &Mailbox| guest.device == device && !guest.is_over(now);
        self.guests.iter().map(|(_, guest)| guest).filter(move |guest| is_it(guest))
    }

    /// When the next rendezvous of this connection ends.
    pub(crate) fn next_rendezvous(&self) -> Option<Instant> {
        self.rendezvous.iter().map(|(_, ends)| *ends).min()
    }

    /// Queues a Deliver frame, given in its two parts. `PROTOCOL 7`: 224 KiB, summed over all senders. True when the actor has to be woken: a
    /// queue that was not empty is being written already, or waits for the socket.
    pub(crate) fn deliver(&mut self, head: &[u8], payload: &[u8]) -> Result<bool, Undelivered> {
        if !self.is_live() {
            return Err(Undelivered::Unreachable);
        }
        self.bulk.push(head, payload)
    }

    /// Queues a control frame. A connection to which so many pile up that they would have to be dropped is ended instead:
    /// a device that missed an Undeliverable would wait for an answer that never comes.
    pub(crate) fn notify(&mut self, frame: &FromRelay<'_>) {
        if !self.is_live() {
            return;
        }
        let mut bytes = Vec::with_capacity(48);
        frame.encode(&mut bytes);
        self.push(Notice::Frame(bytes.into()));
    }

    fn push(&mut self, notice: Notice) {
        if self.control_bytes + notice.cost() > CONTROL_BYTES {
            self.ending = Some(Ending::after_queue(
                Code::TOO_MANY,
                1_000,
                "notices to this device piled up; it reads too slowly",
            ));
            return;
        }
        self.control_bytes += notice.cost();
        self.control.push_back(notice);
    }

    /// Whether the connection must read its notices before more of its frames are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        self.control_bytes > CONTROL_CROWDED
    }

    /// What to write next: control first, so that presence and refusals never wait behind bulk. Who asks has written what it got before.
    fn next(&mut self) -> Option<Outgoing> {
        self.bulk.written();
        while let Some(notice) = self.control.pop_front() {
            self.control_bytes -= notice.cost();
            let frame = match notice {
                Notice::Frame(frame) => Some(frame),
                Notice::Presence(device) => self.presence(&device),
                Notice::Changed(device) => self.changed(&device),
            };
            if let Some(frame) = frame {
                return Some(Outgoing::Control(frame));
            }
        }
        self.bulk.pop().map(Outgoing::Deliver)
    }
}

impl State {
    /// The Presence frame whose turn has come, unless it would say again that the device is away. That it is here is said
    /// again: it has come anew, and the link asks it where they stopped.
    fn presence(&mut self, device: &DeviceId) -> Option<Bytes> {
        let peer = self.peers.get_mut(device)?;
        peer.waiting = false;
        if !peer.here && !peer.told {
            return None;
        }
        peer.told = peer.here;
        let mut bytes = Vec::with_capacity(PRESENCE_LEN);
        FromRelay::Presence { device: *device, here: peer.here }.encode(&mut bytes);
        Some(bytes.into())
    }

    /// The Changed frame whose turn has come.
    fn changed(&mut self, machine: &DeviceId) -> Option<Bytes> {
        let kinds = std::mem::take(&mut self.peers.get_mut(machine)?.changed);
        let mut bytes = Vec::with_capacity(PRESENCE_LEN);
        FromRelay::Changed { machine: *machine, kinds }.encode(&mut bytes);
        Some(bytes.into())
    }
}

/// A number larger than any before: in this process and, clocks allowing, in others. It orders what a device does under one
/// epoch, should it come back without having counted on.
pub(crate) fn next_number() -> u64 {
    static LAST: LazyLock<AtomicU64> = LazyLock::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        AtomicU64::new(since.as_micros() as u64)
    });
    LAST.fetch_add(1, Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use happy_wire::relay::QUEUE_BYTES;

    use super::*;
    use crate::websocket;

    fn device(n: u8) -> DeviceId {
        DeviceId::from_bytes([n; 32])
    }

    fn deliver(state: &mut State, payload: usize) -> Result<bool, Undelivered> {
        state.deliver(&[0; DELIVER_HEAD], &vec![0; payload])
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_even_by_empty_frames() {
        let mut state = State::default();
        let taken = std::iter::repeat_with(|| deliver(&mut state, 0)).take_while(Result::is_ok).count();
        assert_eq!(taken, QUEUE_BYTES / (DELIVER_HEAD + FRAME_COST));
        assert!(matches!(state.next(), Some(Outgoing::Deliver(_))));
        assert_eq!(deliver(&mut state, 0), Err(Undelivered::QueueFull), "what is being written counts");
        assert!(matches!(state.next(), Some(Outgoing::Deliver(_))));
        assert_eq!(deliver(&mut state, 0), Ok(true), "nothing waits any more");
        assert_eq!(deliver(&mut state, 0), Ok(false));
    }

    #[test]
    fn a_batch_ends_and_no_frame_is_split_or_lost() {
        let mut state = State::default();
        for size in [10, 60_000, 60_000, 60_000] {
            deliver(&mut state, size).unwrap();
        }
        let batches: Vec<Batch> = std::iter::from_fn(|| state.next())
            .filter_map(|next| match next {
                Outgoing::Deliver(batch) => Some(batch),
                Outgoing::Control(_) => None,
            })
            .collect();
        assert_eq!(batches.iter().map(|batch| batch.held.frames).collect::<Vec<_>>(), [2, 1, 1]);
        let frames = batches.iter().flat_map(|batch| websocket::messages(batch.frames()));
        assert_eq!(frames.map(|frame| frame.len() - DELIVER_HEAD).collect::<Vec<_>>(), [10, 60_000, 60_000, 60_000]);
        assert_eq!(state.bulk.cost(), (0, 0));
    }

    #[test]
    fn control_overtakes_bulk() {
        let mut state = State::default();
        deliver(&mut state, 10).unwrap();
        state.notify(&FromRelay::Pong(1));
        assert!(matches!(state.next(), Some(Outgoing::Control(_))));
        assert!(matches!(state.next(), Some(Outgoing::Deliver(_))));
        assert!(state.next().is_none());
    }

    #[test]
    fn notices_that_pile_up_end_the_connection_instead_of_being_lost() {
        let mut state = State::default();
        let fit = std::iter::repeat_with(|| {
            state.notify(&FromRelay::Pong(1));
            state.is_live()
        })
        .take(CONTROL_BYTES)
        .take_while(|live| *live)
        .count();
        assert_eq!(fit, CONTROL_BYTES / (9 + FRAME_COST));
        assert_eq!(state.ending().map(|ending| ending.code), Some(Code::TOO_MANY));
    }

    #[test]
    fn an_ended_connection_takes_nothing_and_says_what_it_lost() {
        let mailbox = Mailbox::new(device(1), 1, Standing::Open);
        deliver(&mut mailbox.lock(), 10).unwrap();
        deliver(&mut mailbox.lock(), 20).unwrap();
        let lost = mailbox.end(Ending::at_once(Code::DISPLACED, ""));
        assert_eq!(lost, Count { frames: 2, bytes: 30 });
        assert_eq!(deliver(&mut mailbox.lock(), 1), Err(Undelivered::Unreachable));
        mailbox.notify(&FromRelay::Pong(1));
        assert!(mailbox.next().is_none());
    }

    #[test]
    fn naming_again_keeps_what_was_told_and_repeats_nothing() {
        let mut state = State::default();
        assert_eq!(state.name([device(1), device(2), device(2)]), (vec![device(1), device(2)], vec![]));
        state.tell(&device(1), true);
        assert!(state.next().is_some());
        assert_eq!(state.name([device(1), device(3)]), (vec![device(3)], vec![device(2)]));
        state.tell(&device(1), true);
        assert!(state.next().is_none(), "it was told already");
    }

    fn presences(state: &mut State) -> Vec<(DeviceId, bool)> {
        let frames = std::iter::from_fn(|| state.next());
        frames
            .filter_map(|frame| match frame {
                Outgoing::Control(frame) => match FromRelay::decode(&frame) {
                    Ok(FromRelay::Presence { device, here }) => Some((device, here)),
                    _ => None,
                },
                Outgoing::Deliver(_) => None,
            })
            .collect()
    }

    /// As OPERATE says.
    #[test]
    fn a_name_takes_56_bytes() {
        let mut state = State::default();
        state.name((0..=255).map(device));
        assert_eq!(size_of_val(&*state.peers.0), 256 * 56);
    }

    #[test]
    fn a_peer_that_comes_and_goes_cannot_fill_the_queue_of_another() {
        let mut state = State::default();
        state.name((0..=255).map(device));
        for n in 0..=255 {
            for turn in 0..100 {
                state.tell(&device(n), turn % 2 == 0);
            }
            state.tell(&device(n), true);
        }
        assert!(state.is_live());
        assert!(!state.is_crowded(), "its own frames are still read");
        assert_eq!(state.control_bytes, 256 * (PRESENCE_LEN + FRAME_COST));
        assert_eq!(presences(&mut state), (0..=255).map(|n| (device(n), true)).collect::<Vec<_>>());
        assert_eq!(state.control_bytes, 0);
    }

    #[test]
    fn of_presence_that_waits_the_newest_is_told() {
        let mut state = State::default();
        state.name([device(1)]);
        state.tell(&device(1), true);
        state.tell(&device(1), false);
        assert_eq!(presences(&mut state), [], "it was away and is away");
        state.tell(&device(1), true);
        assert_eq!(presences(&mut state), [(device(1), true)]);
        state.tell(&device(1), false);
        state.tell(&device(1), true);
        assert_eq!(presences(&mut state), [(device(1), true)], "it has come anew");
        state.tell(&device(1), false);
        assert_eq!(presences(&mut state), [(device(1), false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_was_put_meanwhile_is_not_among_the_lost() {
        let mailbox = Mailbox::new(device(1), 1, Standing::Open);
        let told = |asked| {
            mailbox.lock().tell_lost(&mailbox.device, asked);
            std::iter::from_fn(|| mailbox.next()).count()
        };
        let later = || tokio::time::advance(Duration::from_millis(1));
        let before = Instant::now();
        assert_eq!(told(None), 0, "it has put none");
        later().await;
        let answered = |kind, is_first| mailbox.lock().end_put(&mailbox.device, kind, is_first);
        mailbox.lock().begin_put();
        assert_eq!(told(Some(Instant::now())), 0, "it is on its way");
        assert!(!answered(1, true) && !answered(0, false) && !answered(u8::MAX, false));
        assert_eq!(told(Some(before)), 0, "it was put since");
        later().await;
        mailbox.lock().begin_put();
        assert_eq!([told(Some(Instant::now())), told(Some(Instant::now()))], [1, 0], "it is told once");
        assert!(!answered(1, true));
        later().await;
        assert_eq!(told(Some(Instant::now())), 1, "and again after it has put another");
        mailbox.lock().begin_put();
        assert!(!answered(2, true), "it knows that the other one is lost");
        assert!(!answered(2, true), "this one is back");
        assert!(!answered(1, false));
        assert!(answered(2, true), "the other one has gone");
        assert_eq!(std::iter::from_fn(|| mailbox.next()).count(), 1);
        assert_eq!([told(None), told(None)], [1, 0]);
        mailbox.lock().begin_put();
        assert_eq!([told(None), told(None)], [1, 0], "what was seen to go is lost, whatever is on its way");
    }

    #[test]
    fn what_waits_about_a_device_is_forgotten_with_its_name() {
        let mut state = State::default();
        for _ in 0..10_000 {
            state.name([device(1)]);
            state.tell(&device(1), true);
            state.name([]);
        }
        assert!(state.is_live());
        assert_eq!((state.control.len(), state.control_bytes), (0, 0));
        state.name([device(1)]);
        state.tell(&device(1), true);
        assert_eq!(presences(&mut state), [(device(1), true)]);
    }

    const NODE: NodeId = NodeId([1; 8]);

    #[test]
    fn who_named_the_device_from_a_node_that_has_gone_is_known() {
        let other = NodeId([2; 8]);
        let mut state = State::default();
        state.name((1..6).map(device));
        for n in 1..4 {
            state.hear(&device(n), NODE, (5, 1), true);
        }
        state.hear(&device(2), NODE, (5, 2), false);
        // It has moved, and a late word of its old node changes nothing.
        state.hear(&device(3), other, (6, 1), true);
        state.hear(&device(3), NODE, (5, 3), false);
        state.hear(&device(4), other, (5, 1), true);
        assert_eq!(state.gone(NODE), [device(1)]);
        assert_eq!(state.gone(NODE), []);
        for start in 3..100 {
            state.hear(&device(5), NodeId([start; 8]), (u64::from(start), 1), true);
            assert_eq!(state.gone(NodeId([start; 8])), [device(5)]);
        }
        assert_eq!(state.nodes.0.len(), 2, "places are used again");
        assert_eq!(state.gone(other), [device(3), device(4)]);
    }

    #[test]
    fn a_notice_that_was_overtaken_changes_nothing() {
        let mut state = State::default();
        state.name([device(1)]);
        state.hear(&device(1), NODE, (5, 2), true);
        state.hear(&device(1), NODE, (5, 1), false);
        state.hear(&device(1), NODE, (4, 9), false);
        assert!(state.next().is_some());
        assert!(state.next().is_none());
    }
}
