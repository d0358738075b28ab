//! Which frame goes to which mailbox, and who is told about whom.
//!
//! A routed frame takes the lock of one shard for a look-up and those of its two mailboxes; connections that do not talk to
//! each other share nothing. Logins, departures and changes of peers are rare and go one after the other, so that presence
//! told is always presence true.

mod arrived;
mod coming;
mod guests;
mod presence;
mod records;

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::relay::{FromRelay, MAX_PAYLOAD, Undelivered};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Duration, Instant};

use crate::access::{Policy, Vouching};
use crate::bus::{Bus, Frame, MemoryBus, Message, NodeId, Rest, Unsent};
use crate::changes::Watched;
use crate::config::Config;
use crate::login::{Proven, Refusal};
use crate::mailbox::{Count, DELIVER_HEAD, Ending, Host, Mailbox, Standing, State};
use crate::metrics::{Drop as Dropped, Metrics};
use crate::pauses::Pauses;
use crate::rates::Naming;
use crate::rendezvous::Table;
use crate::token::Signer;

use self::coming::Coming;
use self::guests::FarGuests;

/// Look-ups of different devices seldom meet in one of so many maps.
const SHARDS: usize = 64;

/// A relay that stops lets so much time go by between the returns of two devices.
const SPREAD_EACH: Duration = Duration::from_millis(2);
/// The shortest and the longest time over which all return.
const MIN_SPREAD: Duration = Duration::from_secs(1);
/// See [`MIN_SPREAD`].
const MAX_SPREAD: Duration = Duration::from_secs(30);
/// What the next process needs to open its port.
const NEXT_PROCESS: Duration = Duration::from_millis(250);
/// Devices that are sent away within this time are one slice.
const SLICE: Duration = Duration::from_millis(50);

const DISPLACED: Ending = Ending::at_once(Code::DISPLACED, "a newer connection of this device took over");
const LEFT: Ending = Ending::at_once(Code::GOODBYE, "the connection ended");
const UNVOUCHED: Ending =
    Ending::after_queue(Code::NOT_PERMITTED, 5_000, "no machine that is enrolled at this relay names this device now");
const HOST_LEFT: Ending = Ending::after_queue(Code::GOODBYE, 0, "the machine is no longer connected");

/// The routing of one node.
pub(crate) struct Hub {
    pub(crate) metrics: Metrics,
    shards: [RwLock<HashMap<DeviceId, Arc<Mailbox>>>; SHARDS],
    /// Held while it changes who is connected or who names whom. Taken before any shard or mailbox; no routed frame takes it,
    /// and nothing is posted to the bus under it, since the bus may call back; but for the end of a guest, which nobody answers.
    changes: Mutex<()>,
    /// Logins that are in the directory and have no seat yet.
    coming: Coming,
    rendezvous: Table,
    far_guests: Mutex<FarGuests>,
    /// How long a guest may be here.
    guest_time: Duration,
    /// How long the node of a guest's host may take to admit it.
    admission: Duration,
    bus: Arc<dyn Bus>,
    signer: Signer,
    /// Streams here that are told of changed records.
    watched: Watched,
    pauses: Pauses,
    pub(crate) naming: Naming,
    /// There are no other nodes.
    alone: bool,
    max_connections: u64,
    policy: Policy,
}

/// A device's place at the hub. It is given up when this is dropped, however the connection ends.
pub(crate) struct Seat {
    pub(crate) hub: Arc<Hub>,
    pub(crate) mailbox: Arc<Mailbox>,
    _counted: Counted,
}

impl std::ops::Drop for Seat {
    fn drop(&mut self) {
        self.hub.leave(&self.mailbox);
    }
}

/// One of the connections that the relay may have.
pub(crate) struct Counted(Arc<Hub>);

impl std::ops::Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Relaxed);
    }
}

impl Frame<'_> {
    fn is_fit(&self) -> bool {
        self.payload.len() <= MAX_PAYLOAD
    }
}

/// Why a frame went nowhere.
#[derive(Clone, Copy)]
enum Unrouted {
    Told(Undelivered),
    SenderEnded,
}

impl From<Undelivered> for Unrouted {
    fn from(reason: Undelivered) -> Self {
        Unrouted::Told(reason)
    }
}

/// Where a frame goes.
enum Receiver {
    /// To a connection at this node; through a rendezvous or not.
    Here(Arc<Mailbox>, bool),
    /// Through a rendezvous, to the other side's node.
    Through(NodeId),
    /// To whichever node the device is at.
    Elsewhere,
}

impl Hub {
    pub(crate) fn new(config: &Config, signer: Signer) -> Arc<Self> {
        let token_key = signer.public();
        let bus = config.bus.clone().unwrap_or_else(|| Arc::new(MemoryBus::default()));
        let hub = Arc::new(Self {
            metrics: Metrics::default(),
            shards: std::array::from_fn(|_| RwLock::default()),
            changes: Mutex::new(()),
            coming: Coming::default(),
            rendezvous: Table::default(),
            far_guests: Mutex::default(),
            guest_time: config.timings.guest,
            admission: config.timings.admission,
            bus: bus.clone(),
            signer,
            watched: Watched::default(),
            pauses: Pauses::default(),
            naming: Naming::default(),
            alone: config.bus.is_none(),
            max_connections: config.max_connections.into(),
            policy: config.access.policy,
        });
        let inbox: Weak<Hub> = Arc::downgrade(&hub);
        bus.join(inbox, token_key);
        hub
    }

    /// The metrics as Prometheus text.
    pub(crate) fn render_metrics(&self) -> String {
        self.metrics.render(self.bus.stats())
    }

    /// Says goodbye to the other nodes.
    pub(crate) async fn leave_bus(&self) {
        self.bus.leave().await;
    }

    pub(crate) fn connections(&self) -> usize {
        self.metrics.connections.load(Relaxed) as usize
    }

    fn shard(&self, device: &DeviceId) -> &RwLock<HashMap<DeviceId, Arc<Mailbox>>> {
        &self.shards[usize::from(device.as_bytes()[0]) % SHARDS]
    }

    fn find(&self, device: &DeviceId) -> Option<Arc<Mailbox>> {
        self.shard(device).read().get(device).cloned()
    }

    /// Every connection of a device here, guests aside.
    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        self.shards.iter().flat_map(|shard| shard.read().values().cloned().collect::<Vec<_>>()).collect()
    }

    // Coming and going

    /// Seats a device that has proven its key: as itself, or as the guest of a rendezvous.
    pub(crate) async fn enter(self: &Arc<Self>, proven: &Proven) -> Result<Seat, Refusal> {
        let counted = self.count(&proven.device())?;
        match proven.ticket() {
            Some(ticket) => {
                let mailbox = self.admit(proven, ticket).await?;
                Ok(Seat { hub: self.clone(), mailbox, _counted: counted })
            }
            None => {
                let mailbox = Mailbox::new(proven.device(), proven.epoch(), self.standing(proven).await?);
                self.seat(mailbox, counted).await
            }
        }
    }

    /// `PROTOCOL 7`, Access.
    async fn standing(&self, proven: &Proven) -> Result<Standing, Refusal> {
        match self.policy {
            _ if proven.enrolled() => Ok(Standing::Enrolled),
            Policy::Open => Ok(Standing::Open),
            Policy::Enrolled => Err(Refusal::NOT_ENROLLED),
            Policy::Vouched if self.bus.vouched(&proven.device()).await == Some(true) => Ok(Standing::Vouched),
            Policy::Vouched => Err(Refusal::NOT_VOUCHED),
        }
    }

    /// Ends a connection for which nobody speaks any more. One of which that cannot be known now stays (DESIGN, P3).
    pub(crate) async fn vouched_still(&self, mailbox: &Mailbox) {
        if self.bus.vouched(&mailbox.device).await == Some(false) {
            self.metrics.unvouched.fetch_add(1, Relaxed);
            self.lose(mailbox.end(UNVOUCHED));
        }
    }

    /// Takes one of the connections that may exist, for a stream: it replaces nothing.
    pub(crate) fn count_stream(self: &Arc<Self>) -> Option<Counted> {
        let counted = Counted(self.clone());
        let before = self.metrics.connections.fetch_add(1, Relaxed);
        (before < self.max_connections).then_some(counted)
    }

    /// Takes one of the connections that may exist. A device that comes again when the relay is full replaces itself.
    fn count(self: &Arc<Self>, device: &DeviceId) -> Result<Counted, Refusal> {
        let counted = Counted(self.clone());
        let before = self.metrics.connections.fetch_add(1, Relaxed);
        if before >= self.max_connections && self.find(device).is_none() {
            return Err(Refusal::FULL);
        }
        Ok(counted)
    }

    /// Enters a connection, displacing the older one of the same device.
    fn register(&self, mailbox: &Arc<Mailbox>) -> Result<(), Refusal> {
        let notices = {
            let _changes = self.changes.lock();
            let older = {
                let mut shard = self.shard(&mailbox.device).write();
                let newer_here = shard.get(&mailbox.device).is_some_and(|live| live.login > mailbox.login);
                if newer_here || self.coming.is_displaced(&mailbox.device, mailbox.login) {
                    return Err(Refusal::OLDER);
                }
                let older = shard.insert(mailbox.device, mailbox.clone());
                if let Some(older) = &older {
                    // PROTOCOL 7: from this moment it neither receives nor injects.
                    self.displace(older);
                }
                older
            };
            older.map(|older| self.forget_peers(&older, Vouching::Gone)).unwrap_or_default()
        };
        self.post_all(notices);
        Ok(())
    }

    fn displace(&self, older: &Mailbox) {
        self.metrics.displaced.fetch_add(1, Relaxed);
        self.lose(older.end(DISPLACED));
    }

    fn leave(&self, mailbox: &Arc<Mailbox>) {
        if let Some(host) = &mailbox.host {
            self.guest_leaves(mailbox, host);
            return;
        }
        let notices = {
            let _changes = self.changes.lock();
            {
                let mut shard = self.shard(&mailbox.device).write();
                if shard.get(&mailbox.device).is_some_and(|entered| Arc::ptr_eq(entered, mailbox)) {
                    shard.remove(&mailbox.device);
                }
            }
            self.lose(mailbox.end(LEFT));
            self.forget_peers(mailbox, Vouching::Gone)
        };
        self.bus.alive(&mailbox.device);
        self.bus.release(&mailbox.device, mailbox.login);
        self.post_all(notices);
    }

    /// Tells those who were told that this device is here that it is not, and ends what hangs on its connection.
    fn forget_peers(&self, gone: &Mailbox, vouching: Vouching<'_>) -> Vec<Message> {
        self.end_rendezvous(gone, |_, _| true);
        let (peers, guests, revision) = {
            let mut state = gone.lock();
            let (_, peers) = state.name([]);
            if gone.standing == Standing::Enrolled {
                self.bus.vouch(&gone.device, gone.login, vouching);
            }
            (peers, std::mem::take(&mut state.guests), state.revision)
        };
        for (_, guest) in guests {
            self.end_guest(&guest, gone.device, HOST_LEFT);
        }
        peers.iter().filter_map(|peer| self.tell_gone(gone, peer, revision)).collect()
    }

    /// Tells everybody to come back, each at a time of its own: evenly over 2 ms for each device, so that they do not all arrive at once. They
    /// are told in slices over at most `window`, so that most go on until their turn has nearly come and their last words do not all
    /// have to be written at once.
    pub(crate) async fn dismiss_all(&self, window: Duration) {
        let mut all: Vec<Arc<Mailbox>> = Vec::new();
        for shard in &self.shards {
            for mailbox in shard.read().values() {
                // Guests at other nodes hear of it when their host leaves.
                let guests = mailbox.lock().guests.clone().into_iter().map(|(_, guest)| guest);
                all.extend(guests.filter(|guest| guest.elsewhere().is_none()));
                all.push(mailbox.clone());
            }
        }
        all.extend(self.guests_of_others());
        let count = all.len() as u32;
        let spread = (SPREAD_EACH * count).clamp(MIN_SPREAD, MAX_SPREAD);
        let window = window.min(SPREAD_EACH * count);
        let begun = Instant::now();
        for (n, mailbox) in all.iter().enumerate() {
            // The maps hand devices out in random order, so a place in it is as good as a random number.
            let place = n as f64 / f64::from(count);
            let due = begun + window.mul_f64(place);
            if due > Instant::now() + SLICE {
                tokio::time::sleep_until(due).await;
            }
            let back = begun + NEXT_PROCESS + spread.mul_f64(place);
            let retry = back.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            mailbox.end(Ending::after_queue(Code::RESTARTING, retry.as_millis() as u32, "the relay is restarting"));
        }
    }

    fn lose(&self, lost: Count) {
        self.metrics.dropped(Dropped::ReceiverEnded).add(lost.frames, lost.bytes);
    }

    // Frames

    /// Delivers frames of one device, or tells it why not. Those that follow one another to the same receiver go under one lock.
    pub(crate) fn route(&self, from: &Mailbox, frames: &[Frame<'_>]) {
        let together = |one: &Frame<'_>, next: &Frame<'_>| one.to == next.to && one.is_fit() && next.is_fit();
        for run in frames.chunk_by(together) {
            let Some(Frame { to, .. }) = run.first().copied() else { continue };
            self.metrics.received.add(run.len() as u64, run.iter().map(|frame| frame.payload.len() as u64).sum());
            match self.receiver(from, &to) {
                _ if !run.iter().all(Frame::is_fit) => self.refuse(from, run, Undelivered::TooLarge.into()),
                Ok(Receiver::Here(receiver, rendezvous)) => self.deliver(from, &receiver, rendezvous, run),
                Ok(Receiver::Through(node)) => self.send_to_node(from, node, run),
                Ok(Receiver::Elsewhere) => self.send_far(from, run),
                Err(reason) => self.refuse(from, run, reason.into()),
            }
        }
    }

    fn refuse(&self, from: &Mailbox, frames: &[Frame<'_>], why: Unrouted) {
        for Frame { to, tag, payload } in frames {
            match why {
                Unrouted::Told(reason) => {
                    self.metrics.dropped(reason.into()).one(payload.len());
                    from.notify(&FromRelay::Undeliverable { to: *to, tag: *tag, reason });
                }
                Unrouted::SenderEnded => self.metrics.dropped(Dropped::SenderEnded).one(payload.len()),
            }
        }
    }

    /// To a connection at this node.
    fn deliver(&self, from: &Mailbox, receiver: &Mailbox, rendezvous: bool, run: &[Frame<'_>]) {
        let head = deliver_head(&from.device, rendezvous);
        let (mut first, mut refused) = (false, Vec::new());
        let passed =
            from.lock_both(receiver).ok_or(Unrouted::Told(Undelivered::NotNamed)).and_then(|(mine, mut theirs)| {
                if !mine.is_live() {
                    return Err(Unrouted::SenderEnded);
                }
                if !rendezvous {
                    permitted(&mine, &theirs, &from.device, &receiver.device)?;
                }
                for frame in run {
                    match theirs.deliver(&head, frame.payload) {
                        Ok(empty) => first |= empty,
                        Err(reason) => refused.push((*frame, reason)),
                    }
                }
                Ok(())
            });
        if first {
            receiver.wake();
        }
        match passed {
            Ok(()) => refused.into_iter().for_each(|(frame, reason)| self.refuse(from, &[frame], reason.into())),
            Err(why) => self.refuse(from, run, why),
        }
    }

    /// Who gets a frame for `to`.
    /// While a device is the guest of the sender, the guest gets it: an invitation lasts minutes and was opened for that.
    fn receiver(&self, from: &Mailbox, to: &DeviceId) -> Result<Receiver, Undelivered> {
        match &from.host {
            Some(host) if host.device() != *to => return Err(Undelivered::NotPermitted),
            Some(Host::Here(host)) => return Ok(Receiver::Here(host.clone(), true)),
            Some(Host::There { node, .. }) => return Ok(Receiver::Through(*node)),
            None => {}
        }
        if let Some(guest) = from.lock().guest(to) {
            return Ok(match guest.elsewhere() {
                Some(node) => Receiver::Through(node),
                None => Receiver::Here(guest, true),
            });
        }
        Ok(self.find(to).map_or(Receiver::Elsewhere, |found| Receiver::Here(found, false)))
    }

    /// To a device that is not at this node.
    fn send_far(&self, from: &Mailbox, run: &[Frame<'_>]) {
        let Some(Frame { to, .. }) = run.first() else { return };
        let permitted = {
            let mine = from.lock();
            match mine.is_live() {
                false => Err(Unrouted::SenderEnded),
                true if !mine.names(to) => Err(Undelivered::NotNamed.into()),
                true => Ok(()),
            }
        };
        if let Err(why) = permitted {
            return self.refuse(from, run, why);
        }
        let posted = self.bus.post_frames(&from.device, run);
        let taken = posted.map_or_else(|rest| rest.taken, |()| run.len());
        let (passed, refused) = run.split_at(taken.min(run.len()));
        self.metrics.to_bus.add(passed.len() as u64, passed.iter().map(|frame| frame.payload.len() as u64).sum());
        match posted {
            Ok(()) => {}
            Err(Rest { why: Unsent::Nowhere, .. }) => self.refuse(from, refused, Undelivered::Unreachable.into()),
            Err(Rest { why: Unsent::Full, .. }) => self.refuse(from, refused, Undelivered::QueueFull.into()),
        }
    }
}

/// `PROTOCOL 7`: a frame passes only while both have named each other. Whether the receiver has not named the sender or is
/// away is not told apart.
fn permitted(mine: &State, theirs: &State, from: &DeviceId, to: &DeviceId) -> Result<(), Undelivered> {
    if !mine.names(to) {
        Err(Undelivered::NotNamed)
    } else if !theirs.names(from) {
        Err(Undelivered::Unreachable)
    } else {
        Ok(())
    }
}

/// What stands before the payload of a Deliver frame.
fn deliver_head(from: &DeviceId, rendezvous: bool) -> Vec<u8> {
    let mut head = Vec::with_capacity(DELIVER_HEAD);
    FromRelay::Deliver { from: *from, rendezvous, payload: &[] }.encode(&mut head);
    head
}

#[cfg(test)]
impl Hub {
    /// With a key for tokens of its own.
    #[allow(clippy::unwrap_used, reason = "only tests make one")]
    pub(crate) fn of_a_test(config: &Config) -> Arc<Self> {
        Self::new(config, Signer::new(Duration::from_secs(60)).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use happy_wire::relay::{Credential, LOGIN_LABEL, ToRelay, login_message};
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    use super::*;
    use crate::bus::{Claim, Inbox as _, Login};
    use crate::mailbox::{Outgoing, OwnRecords};

    fn hub(config: &Config) -> Arc<Hub> {
        Hub::of_a_test(config)
    }

    fn enter(hub: &Arc<Hub>, n: u8, epoch: u64, peers: &[u8]) -> Arc<Mailbox> {
        let mailbox = Mailbox::new(DeviceId::from_bytes([n; 32]), epoch, Standing::Open);
        assert!(hub.register(&mailbox).is_ok());
        let peers: Vec<_> = peers.iter().map(|n| DeviceId::from_bytes([*n; 32])).collect();
        hub.name(&mailbox, &peers);
        mailbox
    }

    /// The links come back at the time named, up to a tenth of it later, and up to 100 ms.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_stops_sends_its_devices_away_in_slices_and_they_return_evenly() {
        const DEVICES: u32 = 5_000;
        const WINDOW: Duration = Duration::from_secs(4);
        let hub = hub(&Config::default());
        let mut waiting: Vec<_> = (0..DEVICES)
            .map(|n| {
                let mut id = [0; 32];
                id[..4].copy_from_slice(&n.to_le_bytes());
                let mailbox = Mailbox::new(DeviceId::from_bytes(id), 1, Standing::Open);
                assert!(hub.register(&mailbox).is_ok());
                mailbox
            })
            .collect();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut below = |most: u64| rng.next_u64() % (most + 1);
        let begun = Instant::now();
        let stopping = tokio::spawn({
            let hub = hub.clone();
            async move { hub.dismiss_all(WINDOW).await }
        });
        let (mut returns, mut slices) = (Vec::new(), Vec::new());
        while !waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let before = waiting.len();
            let now = begun.elapsed().as_millis() as u64;
            assert!(now <= WINDOW.as_millis() as u64 + 10, "{before} are left");
            waiting.retain(|mailbox| {
                let Some(ending) = mailbox.lock().ending() else { return true };
                assert_eq!((ending.code, ending.drain), (Code::RESTARTING, true));
                let retry = u64::from(ending.retry_after_ms);
                returns.push((now + retry + below(retry / 10 + 100)) / 1_000);
                false
            });
            slices.extend(Some(before - waiting.len()).filter(|ended| *ended > 0));
        }
        stopping.await.unwrap();
        assert!(slices.len() >= 40 && slices.iter().all(|slice| *slice <= DEVICES as usize / 40), "{slices:?}");
        // 2 ms for each device.
        let each: Vec<_> = (1..9).map(|second| returns.iter().filter(|at| **at == second).count()).collect();
        assert!(each.iter().all(|count| (400..=600).contains(count)), "{each:?}");
    }

    fn route(hub: &Hub, from: &Mailbox, to: DeviceId, tag: u32, payload: &[u8]) {
        hub.route(from, &[Frame { to, tag, payload }]);
    }

    /// What it may say to other nodes has nothing to do with what Redis keeps of it.
    #[tokio::test]
    async fn want_of_room_for_names_loses_no_records() {
        let bus = Arc::new(crate::bus::RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap());
        let hub = hub(&Config { bus: Some(bus.clone()), ..Config::default() });
        let machine = enter(&hub, 1, 1, &[2]);
        machine.lock().own_records = OwnRecords::Tried;
        bus.have_unsaid(&machine.device);
        assert!(machine.next().is_none(), "it was told that its records were lost");
        hub.introduce(&machine.device);
        assert!(matches!(machine.next(), Some(Outgoing::Control(_))));
    }

    fn payloads(mailbox: &Mailbox) -> u64 {
        let count = |next| match next {
            Outgoing::Deliver(batch) => batch.held.frames,
            Outgoing::Control(_) => 0,
        };
        std::iter::from_fn(|| mailbox.next()).map(count).sum()
    }

    #[tokio::test]
    async fn a_login_that_is_too_old_leaves_nothing_in_the_directory() {
        let bus = MemoryBus::default();
        let far = bus.another();
        let hub = hub(&Config { bus: Some(Arc::new(bus.clone())), ..Config::default() });
        let identity = happy_crypto::Identity::generate(&mut ChaCha20Rng::seed_from_u64(1));
        let device = identity.device_id();
        // Entered, and its claim not made: as if the older login had been claimed before it and was entered after it.
        assert!(hub.register(&Mailbox::new(device, 2, Standing::Open)).is_ok());
        let message = login_message("relay.example", &[0; 32], &device, 1, &[0; 16], &Credential::None);
        let signature = identity.sign(LOGIN_LABEL, &message);
        let login = ToRelay::Login { device, epoch: 1, client_nonce: [0; 16], credential: Credential::None, signature };
        let mut frame = Vec::new();
        login.encode(&mut frame);
        let Ok(proven) =
            crate::login::check(&crate::Access::default(), || Ok(()), &["relay.example".into()], &[0; 32], &frame)
        else {
            panic!("the login is signed")
        };
        assert!(matches!(hub.enter(&proven).await, Err(Refusal::OLDER)));
        let gone = Message::Displaced { device, by: Login { epoch: 0, number: 0 } };
        assert_eq!(far.post(&device, gone), Err(Unsent::Nowhere));
    }

    #[test]
    fn a_claim_does_not_replace_a_newer_one() {
        let bus = MemoryBus::default();
        let device = DeviceId::from_bytes([1; 32]);
        let claim = |number| futures_util::FutureExt::now_or_never(bus.claim(&device, Login { epoch: 1, number }));
        assert_eq!(claim(2), Some(Claim::Held));
        assert_eq!(claim(1), Some(Claim::Newer));
        assert_eq!(claim(3), Some(Claim::Held));
    }

    /// Its actor may be in the middle of a batch of frames when the newer login is accepted.
    #[test]
    fn a_displaced_connection_is_dead_from_the_moment_the_newer_is_entered() {
        let hub = hub(&Config::default());
        let (old, peer) = (enter(&hub, 1, 1, &[2]), enter(&hub, 2, 1, &[1]));
        route(&hub, &old, peer.device, 1, b"before");
        route(&hub, &peer, old.device, 1, b"before");
        let new = enter(&hub, 1, 2, &[2]);
        route(&hub, &old, peer.device, 2, b"after");
        route(&hub, &peer, old.device, 2, b"for the new one");
        assert_eq!((payloads(&old), payloads(&peer), payloads(&new)), (0, 1, 1));
        let text = hub.render_metrics();
        assert!(text.contains("frames_dropped_total{reason=\"sender_ended\"} 1\n"), "{text}");
        assert!(text.contains("frames_dropped_total{reason=\"receiver_ended\"} 1\n"), "{text}");
        // Its actor gives up the seat later; the newer one stays where it is.
        hub.leave(&old);
        route(&hub, &peer, new.device, 3, b"still there");
        assert_eq!(payloads(&new), 1);
    }
}
