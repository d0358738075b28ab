//! The relays that this machine is connected to, and the links through them.
//!
//! There is one connection for each relay: the machine's own, and those of machines it has joined. Each peer is reached through
//! one of them. What happens on them comes out of one queue, for the [`router`](super::router); messages of channels that
//! this machine has opened go to whoever opened them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::driver::RelayUrl;
use happy_link::driver::tokio::{Config, EVENTS, Handle, Trust, spawn};
use happy_link::{
    Answer, CallError, ChannelName, Event, Login, OpenChannelError, PairSecrets, RelayDown, RequestId, SendError, Side,
    Way,
};
use happy_pairing::Origin;
use happy_rpc::Breaker;
use happy_wire::Code;
use happy_wire::frame::Class;
use rand_core::Rng;
use tokio::sync::{Notify, broadcast, mpsc, oneshot};

use crate::daemon::local::RelayStatus;
use crate::daemon::trust::{Expected, RelayVerifier};
use crate::service::Gone;
use crate::store::{Home, Peer, RelayKeys, enrolments, random, unix_ms};
use crate::trouble::Trouble;

/// Relays at once: the own one and those of machines joined.
const MAX_RELAYS: usize = 64;
/// News of links that wait for one local client; a slower one is told to ask again.
const NEWS: usize = 256;
/// Messages of one channel that wait for a local client. The link's credit bounds their bytes (512 KiB, `PROTOCOL 9`); a terminal message
/// has at least nine of them, so a peer that keeps to the protocol never meets this bound.
const CHANNEL_QUEUE: usize = 64 * 1024;
/// How long the opening of a channel waits for a link.
const OPEN_WAIT: Duration = Duration::from_secs(30);

/// How long this machine stays away from a relay where a newer connection of it took over (`PROTOCOL 13`, 4409), at least: long enough
/// that two daemons with the same key do not take turns all the time, and nobody has to restart the one that is left.
const DISPLACED_PAUSE: Duration = Duration::from_secs(600);
/// Up to so much more, so that two of them do not come back in step.
const DISPLACED_JITTER: Duration = Duration::from_secs(120);

/// What happens on a link.
#[derive(Debug, Clone)]
pub enum LinkNews {
    /// Frames pass.
    Up,
    /// They do not.
    Down,
    /// The other machine tells of something.
    Notice(Arc<[u8]>),
}

/// What comes on a channel that this machine has opened.
#[derive(Debug)]
pub enum FromPeer {
    /// A message.
    Message(Vec<u8>),
    /// The end.
    Closed {
        /// Why.
        code: Code,
        /// For a person.
        reason: String,
    },
}

/// The links. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

struct Shared {
    identity: Identity,
    epoch: u64,
    home: Origin,
    /// Where keys for relays are kept.
    disk: Home,
    relay_keys: RelayKeys,
    /// Relays that have been dialled, for [`Events`].
    dialled: mpsc::Sender<Queue>,
    news: broadcast::Sender<(DeviceId, LinkNews)>,
    state: Mutex<State>,
    to_keep: Mutex<ToKeep>,
    /// There is something to keep.
    keep: Notify,
    /// Usually [`displaced_pause`].
    displaced_pause: fn() -> Duration,
}

/// What handshakes have left and is not on the disk yet. Of each device the newest counts, so it never holds more than there are devices.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ToKeep {
    /// Devices with new pair secrets, and the sessions that left them.
    pub secrets: BTreeMap<DeviceId, [u8; 16]>,
    /// Machines with new bundles.
    pub bundles: BTreeSet<DeviceId>,
}

#[derive(Default)]
struct State {
    /// What this machine answers for, the newest last.
    prekeys: Vec<SignedPrekey>,
    relays: BTreeMap<Origin, Relay>,
    /// Through which relay a peer is reached.
    ways: HashMap<DeviceId, Origin>,
    up: HashSet<DeviceId>,
    /// Devices that missed an event.
    stale: HashSet<DeviceId>,
    channels: HashMap<(DeviceId, u32), mpsc::Sender<FromPeer>>,
}

struct Relay {
    handle: Handle,
    verifier: Option<Arc<RelayVerifier>>,
    /// How many people at this machine use a link through it.
    users: i64,
    up: bool,
    trouble: Option<String>,
    /// When it is dialled again although it said that a newer connection took over, Unix milliseconds.
    retry_at: Option<u64>,
    /// Attempts that have failed in a row.
    failures: u32,
}

/// What happens on all relays, for the [`router`](super::router), which asks for it by and by. It is asked in the router's own task: each task between a
/// key and its session is one more that may wake another thread.
pub struct Events {
    network: Network,
    dialled: mpsc::Receiver<Queue>,
    queues: Vec<Queue>,
    /// Whose turn it is.
    turn: usize,
}

/// What happens on one relay.
struct Queue {
    origin: Origin,
    events: mpsc::Receiver<Event>,
    verifier: Option<Arc<RelayVerifier>>,
}

impl Events {
    /// What the network itself has no use for. Each relay has its turn.
    pub async fn recv(&mut self) -> (Origin, Event) {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<(Origin, Event)> {
        while let Poll::Ready(Some(queue)) = self.dialled.poll_recv(cx) {
            self.queues.push(queue);
        }
        let mut waiting = 0;
        while waiting < self.queues.len() {
            self.turn %= self.queues.len();
            let queue = &mut self.queues[self.turn];
            match queue.events.poll_recv(cx) {
                Poll::Pending => {
                    waiting += 1;
                    self.turn += 1;
                }
                // The connection was given up. Another has moved into its place, so all are asked once more.
                Poll::Ready(None) => {
                    drop(self.queues.swap_remove(self.turn));
                    waiting = 0;
                }
                Poll::Ready(Some(event)) => {
                    // Only what turned out to be a relay is remembered, not the page that a hotel puts in between.
                    if let (Event::RelayUp { .. }, Some(verifier)) = (&event, &queue.verifier) {
                        verifier.keep();
                    }
                    if let Some(event) = self.network.take(&queue.origin, event) {
                        self.turn += 1;
                        return Poll::Ready((queue.origin.clone(), event));
                    }
                }
            }
        }
        Poll::Pending
    }
}

impl Network {
    /// Connects to the machine's own relay. Gives the queue of what happens.
    ///
    /// # Errors
    /// When the counter of logins cannot be kept, or the system's certificates cannot be read.
    pub fn start(
        home: &Home,
        identity: Identity,
        prekeys: Vec<SignedPrekey>,
        relay: Origin,
    ) -> Result<(Network, Events), Trouble> {
        Self::start_with(home, identity, prekeys, relay, displaced_pause)
    }

    fn start_with(
        home: &Home,
        identity: Identity,
        prekeys: Vec<SignedPrekey>,
        relay: Origin,
        displaced_pause: fn() -> Duration,
    ) -> Result<(Network, Events), Trouble> {
        let (sender, dialled) = mpsc::channel(MAX_RELAYS);
        let network = Network(Arc::new(Shared {
            identity,
            epoch: epoch(home)?,
            home: relay.clone(),
            disk: home.clone(),
            relay_keys: RelayKeys::open(home)?,
            dialled: sender,
            news: broadcast::channel(NEWS).0,
            state: Mutex::new(State { prekeys, ..State::default() }),
            to_keep: Mutex::default(),
            keep: Notify::new(),
            displaced_pause,
        }));
        network.connect(&relay)?;
        Ok((network.clone(), Events { network, dialled, queues: Vec::new(), turn: 0 }))
    }

    /// Connects to a relay, unless there is a connection already.
    fn connect(&self, origin: &Origin) -> Result<Handle, Trouble> {
        let mut state = self.state();
        if let Some(relay) = state.relays.get(origin) {
            return Ok(relay.handle.clone());
        }
        let too_many = || Trouble::new("Too many relays are in use.", "Remove machines that are no longer needed.");
        if state.relays.len() >= MAX_RELAYS {
            return Err(too_many());
        }
        let shared = &self.0;
        let login = match enrolments::key_for(&shared.disk, origin)? {
            Some(key) => Login::Enrolled { epoch: shared.epoch, key },
            None => Login::Device { epoch: shared.epoch },
        };
        let expected = Expected::Kept(shared.relay_keys.clone());
        let Dialled { handle, events, verifier } =
            dial(&shared.identity, state.prekeys.clone(), login, origin, expected)?;
        let queue = Queue { origin: origin.clone(), events, verifier: verifier.clone() };
        // Full only when as many came and went as there may be, before the router had a turn.
        shared.dialled.try_send(queue).map_err(|_| too_many())?;
        let relay =
            Relay { handle: handle.clone(), verifier, users: 0, up: false, trouble: None, retry_at: None, failures: 0 };
        state.relays.insert(origin.clone(), relay);
        Ok(handle)
    }

    /// There is a new key for a relay: the connection to it shows it from now on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn enrolled(&self, origin: &Origin) -> Result<(), Trouble> {
        let Some(key) = enrolments::key_for(&self.0.disk, origin)? else { return Ok(()) };
        if let Some(relay) = self.state().relays.get(origin) {
            relay.handle.enrol(key);
        }
        Ok(())
    }

    /// Takes in an event; gives back what the router has to know.
    fn take(&self, origin: &Origin, event: Event) -> Option<Event> {
        let mut state = self.state();
        match &event {
            Event::RelayUp { .. } => {
                if let Some(relay) = state.relays.get_mut(origin) {
                    (relay.up, relay.trouble, relay.retry_at) = (true, None, None);
                }
            }
            Event::RelayDown { why, .. } => {
                if let Some(relay) = state.relays.get_mut(origin) {
                    // The end of a connection is no failed attempt to make one.
                    relay.failures = if relay.up { 0 } else { relay.failures.saturating_add(1) };
                    relay.up = false;
                    relay.trouble = Some(down(why, relay.dial_trouble()));
                    relay.retry_at = None;
                    if *why == RelayDown::Told(Code::DISPLACED) {
                        relay.retry_at = Some(self.come_back(origin, &relay.handle));
                    }
                }
            }
            Event::LinkUp { peer, resumed, .. } => {
                state.up.insert(*peer);
                if !resumed {
                    // PROTOCOL 10.3: with a new session it follows anew, after the place that it has.
                    state.stale.remove(peer);
                }
                self.tell(*peer, LinkNews::Up);
            }
            Event::LinkDown { peer, .. } => {
                state.up.remove(peer);
                self.tell(*peer, LinkNews::Down);
            }
            Event::PairSecrets { peer, session } => {
                self.to_keep().secrets.insert(*peer, *session);
                self.0.keep.notify_one();
                return None;
            }
            Event::NewBundle { peer } => {
                self.to_keep().bundles.insert(*peer);
                self.0.keep.notify_one();
                return None;
            }
            Event::Notice { peer, body } => {
                self.tell(*peer, LinkNews::Notice(body.as_slice().into()));
                return None;
            }
            Event::Writable { peer, channel } => {
                if *channel == happy_wire::frame::CALLS && state.stale.contains(peer) {
                    let again = happy_rpc::Event::ListAgain {}.to_body();
                    if state.handle_of(peer).is_some_and(|handle| handle.try_emit(peer, again).is_ok()) {
                        state.stale.remove(peer);
                    }
                }
                return None;
            }
            Event::Message { peer, channel, .. } if state.channels.contains_key(&(*peer, *channel)) => {
                let Event::Message { peer, channel, bytes } = event else { return None };
                let queue = &state.channels[&(peer, channel)];
                if queue.try_send(FromPeer::Message(bytes)).is_err() {
                    // The client is gone, or the peer sends more messages than its credit allows.
                    state.channels.remove(&(peer, channel));
                    if let Some(handle) = state.handle_of(&peer) {
                        handle.close_channel(&peer, channel, Code::TOO_MANY, "nobody takes these messages");
                    }
                }
                return None;
            }
            Event::Closed { peer, channel, .. } => {
                if let Some(queue) = state.channels.remove(&(*peer, *channel)) {
                    let Event::Closed { code, reason, .. } = event else { return None };
                    // Full or gone: the end of the queue itself says it.
                    let _ = queue.try_send(FromPeer::Closed { code, reason });
                    return None;
                }
            }
            _ => {}
        }
        Some(event)
    }

    /// The relay has sent this machine away for good (`PROTOCOL 13`, 4409): it comes back after a pause. Gives when.
    fn come_back(&self, origin: &Origin, handle: &Handle) -> u64 {
        let pause = (self.0.displaced_pause)();
        let at = unix_ms().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        tracing::warn!(
            relay = %origin, ?pause,
            "a newer connection of this machine took over: another daemon has its key; it is tried again after a pause"
        );
        let (network, origin, handle) = (self.clone(), origin.clone(), handle.clone());
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // Under the lock: a relay that is no longer wanted, or was said goodbye to, is not dialled again.
            let mut state = network.state();
            if let Some(relay) = state.relays.get_mut(&origin).filter(|relay| relay.retry_at == Some(at)) {
                relay.retry_at = None;
                handle.revive();
            }
        });
        at
    }

    fn tell(&self, peer: DeviceId, news: LinkNews) {
        // Without a client there is nobody to tell.
        let _ = self.0.news.send((peer, news));
    }

    /// What happens on links from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<(DeviceId, LinkNews)> {
        self.0.news.subscribe()
    }

    /// The relay of this machine.
    pub fn home_relay(&self) -> &Origin {
        &self.0.home
    }

    /// What relays at bare addresses must prove.
    pub fn relay_keys(&self) -> &RelayKeys {
        &self.0.relay_keys
    }

    /// Through which relay a peer is reached.
    pub fn relay_of(&self, peer: &Peer) -> Origin {
        match peer.relays.first() {
            // The side that joined goes where the other one is.
            Some(relay) if peer.joined => relay.clone(),
            _ => self.0.home.clone(),
        }
    }

    /// Names a peer at its relay, so that a link to it comes up whenever both are there. One whose bundle cannot be read is left alone.
    pub fn add_peer(&self, peer: &Peer, secrets: PairSecrets) {
        let origin = self.relay_of(peer);
        let side = match &peer.bundle {
            Some(bundle) => Side::Initiator(bundle.clone()),
            None if peer.joined => return,
            None => Side::Responder,
        };
        let named = self.connect(&origin).map_err(|trouble| trouble.what).and_then(|handle| {
            let peer = happy_link::Peer { record: peer.record.clone(), side, secrets };
            handle.add_peer(peer).map_err(|error| error.to_string())
        });
        match named {
            Ok(()) => {
                let before = self.state().ways.insert(peer.device, origin.clone());
                if let Some(before) = before.filter(|before| *before != origin) {
                    self.leave(&before, &peer.device, false);
                }
            }
            Err(why) => tracing::warn!(peer = %peer.device.short(), %why, "a peer cannot be named"),
        }
    }

    /// No longer names a peer.
    pub fn remove_peer(&self, device: &DeviceId) {
        let way = self.state().ways.remove(device);
        self.leave(&way.unwrap_or_else(|| self.0.home.clone()), device, false);
        self.state().up.remove(device);
    }

    /// Cuts the link to a device that was removed for good; it is told so whenever it comes back.
    pub fn tombstone(&self, device: DeviceId) {
        let way = self.state().ways.remove(&device);
        self.leave(&way.unwrap_or_else(|| self.0.home.clone()), &device, true);
        self.state().up.remove(&device);
        self.tell(device, LinkNews::Down);
    }

    fn leave(&self, origin: &Origin, device: &DeviceId, tombstone: bool) {
        let mut state = self.state();
        let Some(relay) = state.relays.get(origin) else { return };
        match tombstone {
            true => relay.handle.tombstone(*device),
            false => relay.handle.remove_peer(device),
        }
        // A relay that nobody is reached through any more; one that a removed device may ask at stays.
        let in_use = tombstone || *origin == self.0.home || state.ways.values().any(|way| way == origin);
        if !in_use && let Some(relay) = state.relays.remove(origin) {
            tokio::spawn(async move { relay.handle.shutdown().await });
        }
    }

    /// From now on this machine answers for these, the newest last.
    pub fn set_prekeys(&self, prekeys: Vec<SignedPrekey>) {
        let mut state = self.state();
        for relay in state.relays.values() {
            relay.handle.set_prekeys(prekeys.clone());
        }
        state.prekeys = prekeys;
    }

    /// Waits until handshakes have left something to be stored, and gives it.
    pub async fn to_be_kept(&self) -> ToKeep {
        loop {
            let keep = self.0.keep.notified();
            let found = std::mem::take(&mut *self.to_keep());
            if found != ToKeep::default() {
                return found;
            }
            keep.await;
        }
    }

    /// What the handshake of a session has left, unless there was another since.
    pub fn pair_secrets(&self, peer: &DeviceId, session: &[u8; 16]) -> Option<PairSecrets> {
        self.handle_of(peer)?.pair_secrets(peer, session)
    }

    /// It is on the disk.
    pub fn pair_secrets_stored(&self, peer: &DeviceId, session: &[u8; 16]) {
        if let Some(handle) = self.handle_of(peer) {
            handle.pair_secrets_stored(peer, session);
        }
    }

    /// What the next handshake with a machine that was joined begins with.
    pub fn bundle(&self, peer: &DeviceId) -> Option<Bundle> {
        self.handle_of(peer)?.bundle(peer)
    }

    /// The devices to which a link is up.
    pub fn links_up(&self) -> HashSet<DeviceId> {
        self.state().up.clone()
    }

    /// Whether this machine is connected to its own relay.
    pub fn is_up(&self) -> bool {
        self.state().relays.get(&self.0.home).is_some_and(|relay| relay.up)
    }

    /// Why this machine is not connected to its own relay; none when it is.
    pub fn home_trouble(&self) -> Option<String> {
        let state = self.state();
        let relay = status(&self.0.home, state.relays.get(&self.0.home)?);
        (!relay.up).then(|| relay.trouble.unwrap_or_else(|| "there is no connection yet".into()))
    }

    /// The relays in use, the own one first.
    pub fn relays(&self) -> Vec<RelayStatus> {
        let state = self.state();
        let mut relays: Vec<_> = state.relays.iter().map(|(origin, relay)| status(origin, relay)).collect();
        relays.sort_by_key(|relay| relay.origin != self.0.home.as_str());
        relays
    }

    /// One of them.
    pub fn relay(&self, origin: &Origin) -> Option<RelayStatus> {
        self.state().relays.get(origin).map(|relay| status(origin, relay))
    }

    /// Calls a peer. Dropping the future cancels the call. One that names itself as a command goes on when the peer is restarted.
    pub async fn call(&self, peer: &DeviceId, body: Vec<u8>, deadline: Duration) -> Answer {
        let Some(handle) = self.handle_of(peer) else { return Answer::LinkGone };
        let is_command = happy_rpc::Command::of(&body).is_ok_and(|command| command.is_some());
        let answer = match is_command {
            true => handle.command(peer, body, Some(deadline)).await,
            false => handle.call(peer, body, Some(deadline)).await,
        };
        answer.unwrap_or_else(|error| Answer::Body(not_called(error)))
    }

    /// Asks a peer for a command. `delivered` is told when the peer has it.
    pub async fn command(
        &self,
        peer: &DeviceId,
        body: Vec<u8>,
        deadline: Duration,
        delivered: oneshot::Sender<()>,
    ) -> Answer {
        let Some(handle) = self.handle_of(peer) else { return Answer::LinkGone };
        let answer = handle.command_with(peer, body, Some(deadline), delivered).await;
        answer.unwrap_or_else(|error| Answer::Body(not_called(error)))
    }

    /// Answers a call of a peer.
    pub async fn respond(&self, peer: &DeviceId, id: RequestId, body: Vec<u8>) {
        let Some(handle) = self.handle_of(peer) else { return };
        // Any other error means that nobody waits for it any more.
        if handle.respond(peer, id, &body).await == Err(SendError::TooLarge) {
            let error =
                happy_rpc::CallError::new(happy_rpc::ErrorCode::TooMany, "the answer is larger than a message may be");
            let _ = handle.respond(peer, id, &happy_rpc::refusal(&error)).await;
        }
    }

    /// Tells a peer of something. One that does not take its events is told later to ask for everything again.
    pub fn emit(&self, peer: &DeviceId, body: Vec<u8>) {
        let mut state = self.state();
        if state.stale.contains(peer) {
            return;
        }
        let Some(handle) = state.handle_of(peer) else { return };
        if handle.try_emit(peer, body) == Err(SendError::WouldBlock) {
            state.stale.insert(*peer);
        }
    }

    /// Opens a channel as soon as there is a link; its messages come out of the queue.
    ///
    /// # Errors
    /// A reason for the person who waits.
    pub async fn open_channel(
        &self,
        peer: &DeviceId,
        class: Class,
        label: &str,
    ) -> Result<(u32, mpsc::Receiver<FromPeer>), String> {
        let mut news = self.subscribe();
        let opened = async {
            loop {
                if let Some(outcome) = self.try_open_channel(peer, class, label) {
                    return outcome;
                }
                match news.recv().await {
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err("the daemon ends".into()),
                }
            }
        };
        tokio::time::timeout(OPEN_WAIT, opened)
            .await
            .unwrap_or_else(|_| Err("the other machine cannot be reached now; it is tried on".into()))
    }

    /// None while there is no link.
    fn try_open_channel(
        &self,
        peer: &DeviceId,
        class: Class,
        label: &str,
    ) -> Option<Result<(u32, mpsc::Receiver<FromPeer>), String>> {
        let mut state = self.state();
        let Some(handle) = state.handle_of(peer) else {
            return Some(Err("the other machine is no longer known".into()));
        };
        match handle.open_channel(peer, class, label) {
            Ok(channel) => {
                let (queue, receiver) = mpsc::channel(CHANNEL_QUEUE);
                // Under the lock, so that the first message finds it.
                state.channels.insert((*peer, channel), queue);
                Some(Ok((channel, receiver)))
            }
            Err(OpenChannelError::NoLink) => None,
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// Sends a message on a channel; waits for credit.
    ///
    /// # Errors
    /// [`Gone`] when it is closed.
    pub async fn send(&self, peer: &DeviceId, channel: impl Into<ChannelName>, message: Vec<u8>) -> Result<(), Gone> {
        let handle = self.handle_of(peer).ok_or(Gone)?;
        handle.send(peer, channel, &message).await.map_err(|_| Gone)
    }

    /// The application is done with so many bytes.
    pub fn consumed(&self, peer: &DeviceId, channel: impl Into<ChannelName>, bytes: usize) {
        if let Some(handle) = self.handle_of(peer) {
            handle.consumed(peer, channel, bytes);
        }
    }

    /// Closes a channel.
    pub fn close_channel(&self, peer: &DeviceId, channel: impl Into<ChannelName>, code: Code, reason: &str) {
        let channel = channel.into();
        self.state().channels.remove(&(*peer, channel.number()));
        if let Some(handle) = self.handle_of(peer) {
            handle.close_channel(peer, channel, code, reason);
        }
    }

    /// Opens a rendezvous at the machine's own relay. False when too many are open.
    pub fn open_rendezvous(&self, ticket_hash: [u8; 32], seconds: u16) -> bool {
        self.home_handle().is_some_and(|handle| handle.open_rendezvous(ticket_hash, seconds))
    }

    /// Ends a rendezvous.
    pub fn close_rendezvous(&self, ticket_hash: [u8; 32]) {
        if let Some(handle) = self.home_handle() {
            handle.close_rendezvous(ticket_hash);
        }
    }

    /// Sends a packet of a pairing to a guest. It may be lost; pairings repeat what matters.
    pub fn send_packet(&self, to: DeviceId, packet: &[u8]) {
        if let Some(Err(error)) = self.home_handle().map(|handle| handle.send_packet(to, packet)) {
            tracing::debug!(%error, "a packet to a guest was not sent");
        }
    }

    /// How many attempts to reach a relay had failed before it was reached, told once.
    pub fn came_up(&self, origin: &Origin) -> u32 {
        self.state().relays.get_mut(origin).map_or(0, |relay| std::mem::take(&mut relay.failures))
    }

    /// Leaves a record of this machine at a relay; without a connection it is put with the next one.
    pub fn put_record(&self, origin: &Origin, kind: u8, version: u64, sealed: &[u8]) {
        if let Some(relay) = self.state().relays.get(origin)
            && let Err(error) = relay.handle.put_record(kind, version, sealed)
        {
            tracing::debug!(%error, kind, "a machine record is not put now");
        }
    }

    /// Asks a relay for a record of a machine; without a connection it is asked with the next one.
    pub fn get_record(&self, origin: &Origin, machine: DeviceId, kind: u8) {
        if let Some(relay) = self.state().relays.get(origin)
            && let Err(error) = relay.handle.get_record(machine, kind)
        {
            tracing::debug!(%error, kind, "a machine record is not asked for now");
        }
    }

    /// Somebody at this machine uses the link to a peer for as long as the guard lives: dead paths are noticed sooner.
    pub fn use_link(&self, peer: &DeviceId) -> InUse {
        let mut state = self.state();
        let origin = state.ways.get(peer).cloned().unwrap_or_else(|| self.0.home.clone());
        state.count_user(&origin, 1);
        InUse { network: self.clone(), origin }
    }

    /// Says goodbye everywhere.
    pub async fn shut_down(&self) {
        let goodbye = |relay: &mut Relay| {
            relay.retry_at = None;
            relay.handle.clone()
        };
        let handles: Vec<_> = self.state().relays.values_mut().map(goodbye).collect();
        let mut goodbyes = tokio::task::JoinSet::new();
        for handle in handles {
            goodbyes.spawn(async move { handle.shutdown().await });
        }
        while goodbyes.join_next().await.is_some() {}
    }

    fn home_handle(&self) -> Option<Handle> {
        self.state().relays.get(&self.0.home).map(|relay| relay.handle.clone())
    }

    fn handle_of(&self, peer: &DeviceId) -> Option<Handle> {
        self.state().handle_of(peer)
    }

    fn to_keep(&self) -> MutexGuard<'_, ToKeep> {
        self.0.to_keep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Network::use_link`].
pub struct InUse {
    network: Network,
    origin: Origin,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.network.state().count_user(&self.origin, -1);
    }
}

impl Relay {
    /// Why the last attempt to reach it failed.
    fn dial_trouble(&self) -> Option<String> {
        let trouble = self.handle.trouble();
        match &self.verifier {
            Some(verifier) => verifier.explain(trouble),
            None => trouble,
        }
    }
}

impl State {
    fn count_user(&mut self, origin: &Origin, change: i64) {
        if let Some(relay) = self.relays.get_mut(origin) {
            relay.users += change;
            relay.handle.set_active(relay.users > 0);
        }
    }

    fn handle_of(&self, peer: &DeviceId) -> Option<Handle> {
        let way = self.ways.get(peer)?;
        self.relays.get(way).map(|relay| relay.handle.clone())
    }
}

/// The login epoch of this life: larger than every one before, whatever the clock says (`PROTOCOL 7`).
///
/// # Errors
/// When the counter cannot be kept.
pub fn epoch(home: &Home) -> Result<u64, Trouble> {
    Ok(u64::from(home.next_epoch()?) << 32)
}

/// A connection to a relay, which is made in the background.
pub struct Dialled {
    /// Steers it.
    pub handle: Handle,
    /// What happens on it.
    pub events: mpsc::Receiver<Event>,
    /// Decides whether the relay is the right one; none for one on this machine without TLS.
    pub verifier: Option<Arc<RelayVerifier>>,
}

/// Starts a connection to a relay.
///
/// # Errors
/// When the address or the system's certificates cannot be used.
pub fn dial(
    identity: &Identity,
    prekeys: Vec<SignedPrekey>,
    login: Login,
    origin: &Origin,
    expected: Expected,
) -> Result<Dialled, Trouble> {
    let relay = RelayUrl::parse(&origin.websocket_url()).map_err(|error| {
        Trouble::new(format!("`{origin}` cannot be a relay: {error}."), "Give its address like https://relay.example.")
    })?;
    let verifier = match relay.is_secure() {
        true => Some(Arc::new(RelayVerifier::new(origin, &relay, expected)?)),
        false => None,
    };
    let trust = match &verifier {
        Some(verifier) => Trust::Verifier(verifier.clone()),
        None => Trust::System,
    };
    let config = Config { identity: identity.clone(), prekeys, login, relay, trust, events: EVENTS };
    let (handle, events) = spawn(config).map_err(|error| {
        Trouble::new(
            format!("The relay {origin} cannot be used: {error}."),
            "Give its address like https://relay.example.",
        )
    })?;
    Ok(Dialled { handle, events, verifier })
}

/// How the breaker stands, when the next attempt begins (Unix milliseconds), and after which pause (milliseconds).
fn waits(relay: &Relay, now: u64) -> (Breaker, Option<u64>, Option<u64>) {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    match relay.handle.way() {
        _ if relay.up => (Breaker::Closed, None, None),
        Way::Waiting { left, pause, refused } => {
            let breaker = if refused { Breaker::Open } else { Breaker::HalfOpen };
            (breaker, Some(now.saturating_add(millis(left))), Some(millis(pause)))
        }
        Way::Ended(_) => (Breaker::Open, relay.retry_at, None),
        // The relay has let it in, which is not known here yet.
        Way::Up | Way::Trying => (Breaker::HalfOpen, None, None),
    }
}

fn status(origin: &Origin, relay: &Relay) -> RelayStatus {
    let (breaker, next_at, pause_ms) = waits(relay, unix_ms());
    RelayStatus {
        breaker,
        next_at,
        pause_ms,
        origin: origin.to_string(),
        up: relay.up,
        trouble: relay.dial_trouble().or_else(|| relay.trouble.clone()).filter(|_| !relay.up),
        retry_at: relay.retry_at,
        failures: relay.failures,
        embedded: false,
        key: relay.verifier.as_ref().and_then(|verifier| verifier.proved()).map(|key| key.to_string()),
        origins: vec![origin.to_string()],
    }
}

/// How long to stay away from a relay where a newer connection took over.
fn displaced_pause() -> Duration {
    let jitter = u64::try_from(DISPLACED_JITTER.as_millis()).unwrap_or(u64::MAX);
    DISPLACED_PAUSE + Duration::from_millis(random().next_u64() % jitter.saturating_add(1))
}

fn down(why: &RelayDown, trouble: Option<String>) -> String {
    trouble.unwrap_or_else(|| match why {
        RelayDown::Lost => "the connection broke".into(),
        RelayDown::Told(Code::NOT_PERMITTED) => {
            "the relay does not admit this machine; get an enrolment secret from its operator and run `happy relay enroll`".into()
        }
        // Its own connections follow one another, so it is another process.
        RelayDown::Told(Code::DISPLACED) => {
            "a newer connection of this machine took over; another daemon runs with a copy of this home".into()
        }
        RelayDown::Told(code) | RelayDown::Ours(code) => code.explain().into(),
    })
}

fn not_called(error: CallError) -> Vec<u8> {
    use happy_rpc::ErrorCode;
    let code = match error {
        // Nothing was sent, and there is room again when others have had answers.
        CallError::TooMany => ErrorCode::Busy,
        CallError::TooLarge => ErrorCode::TooMany,
        CallError::UnknownPeer => ErrorCode::NotFound,
    };
    happy_rpc::refusal(&happy_rpc::CallError::new(code, error.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::daemon::relay::EmbeddedRelay;
    use crate::store::AccessKey;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn who_was_displaced_stays_away_for_ten_minutes_and_a_little() {
        let longest = Duration::from_secs(12 * 60);
        let pauses: Vec<_> = (0..200).map(|_| displaced_pause()).collect();
        assert!(pauses.iter().all(|pause| (DISPLACED_PAUSE..=longest).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }

    #[test]
    fn a_command_for_which_a_link_has_no_room_now_is_asked_for_again() {
        let code = |error| {
            let body: serde_json::Value = serde_json::from_slice(&not_called(error)).unwrap();
            body["error"]["code"].as_str().unwrap().to_owned()
        };
        assert_eq!(code(CallError::TooMany), "busy");
        assert_eq!([CallError::TooLarge, CallError::UnknownPeer].map(code), ["too_many", "not_found"]);
    }

    /// Three relays, one of which is given up while nothing happens on the others: both of these are heard of afterwards.
    #[tokio::test]
    async fn every_relay_is_heard_also_when_another_was_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        // Nobody answers there, and nobody has to.
        let own: Origin = "http://127.0.0.1:9".parse().unwrap();
        let identity = AccessKey::open(&home.access_key()).unwrap().identity;
        let (_network, mut events) = Network::start(&home, identity, Vec::new(), own).unwrap();
        events.dialled.try_recv().unwrap();
        let peer = DeviceId::from_bytes([7; 32]);
        for (gone, speaks, turn) in (0..27).map(|case| (case % 3, case / 3 % 3, case / 9)).filter(|(a, b, _)| a != b) {
            let origin = |index: usize| format!("http://127.0.0.1:{}", index + 1).parse::<Origin>().unwrap();
            let mut senders = Vec::new();
            events.queues = (0..3)
                .map(|index| {
                    let (sender, events) = mpsc::channel(1);
                    senders.push(Some(sender));
                    Queue { origin: origin(index), events, verifier: None }
                })
                .collect();
            events.turn = turn;
            senders[gone] = None;
            let hears = tokio::spawn(async move {
                let heard = events.recv().await;
                (events, heard)
            });
            // It runs until it waits.
            tokio::task::yield_now().await;
            senders[speaks].as_ref().unwrap().try_send(Event::Presence { peer, here: true }).unwrap();
            let (back, (from, event)) = timeout(PATIENCE, hears).await.unwrap().unwrap();
            assert_eq!(from.to_string(), origin(speaks).to_string(), "{gone} gone, {speaks} speaks, turn {turn}");
            assert!(matches!(event, Event::Presence { .. }));
            events = back;
        }
    }

    #[tokio::test]
    async fn who_missed_an_event_follows_anew_with_the_next_session() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        // Nobody answers there, and nobody has to.
        let origin: Origin = "http://127.0.0.1:9".parse().unwrap();
        let identity = AccessKey::open(&home.access_key()).unwrap().identity;
        let (network, _events) = Network::start(&home, identity, Vec::new(), origin.clone()).unwrap();
        let peer = DeviceId::from_bytes([7; 32]);
        network.state().stale.insert(peer);
        let up = |resumed| Event::LinkUp { peer, resumed, same_life: true };
        network.take(&origin, up(true));
        assert!(network.state().stale.contains(&peer), "nothing tells it in this session");
        network.take(&origin, up(false));
        assert!(!network.state().stale.contains(&peer));
        network.shut_down().await;
    }

    #[tokio::test]
    async fn a_machine_that_was_displaced_says_so_and_comes_back_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        let relay = EmbeddedRelay::start(&home, 0).await.unwrap();
        let origin: Origin = format!("http://127.0.0.1:{}", relay.port()).parse().unwrap();
        let identity = AccessKey::open(&home.access_key()).unwrap().identity;
        let pause = || Duration::from_millis(300);
        let (network, mut events) =
            Network::start_with(&home, identity.clone(), Vec::new(), origin.clone(), pause).unwrap();
        until(&mut events, |event| matches!(event, Event::RelayUp { .. })).await;

        // Another daemon with a copy of the home, started later.
        let login = Login::Device { epoch: epoch(&home).unwrap() };
        let expected = Expected::Kept(network.relay_keys().clone());
        let mut other = dial(&identity, Vec::new(), login, &origin, expected).unwrap();
        for _ in 0..2 {
            // The second time its own login is refused, for the other one is still there.
            until(&mut events, |event| matches!(event, Event::RelayDown { why: RelayDown::Told(Code::DISPLACED), .. }))
                .await;
            let status = network.relay(&origin).unwrap();
            assert!(status.trouble.unwrap().contains("another daemon"));
            assert!(status.retry_at.is_some());
            assert_eq!(
                (status.breaker, status.next_at),
                (Breaker::Open, status.retry_at),
                "nobody knows when it is better"
            );
        }
        let there = async { while !matches!(other.events.recv().await, Some(Event::RelayUp { .. })) {} };
        timeout(PATIENCE, there).await.unwrap();
        other.handle.shutdown().await;
        until(&mut events, |event| matches!(event, Event::RelayUp { .. })).await;
        let status = network.relay(&origin).unwrap();
        assert_eq!((status.up, status.trouble, status.retry_at), (true, None, None));
        assert_eq!((status.breaker, status.next_at, status.pause_ms), (Breaker::Closed, None, None));
        network.shut_down().await;
    }

    /// A network whose relay listens there, once an attempt to reach it has failed.
    async fn refused_by(origin: Origin) -> (tempfile::TempDir, Network, RelayStatus) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("h")).unwrap();
        home.prepare().unwrap();
        let identity = AccessKey::open(&home.access_key()).unwrap().identity;
        let (network, mut events) = Network::start(&home, identity, Vec::new(), origin.clone()).unwrap();
        // An attempt may be under way when it is looked.
        let waits = async {
            loop {
                until(&mut events, |event| matches!(event, Event::RelayDown { .. })).await;
                let status = network.relay(&origin).unwrap();
                if status.next_at.is_some() {
                    return status;
                }
            }
        };
        let status = timeout(PATIENCE, waits).await.unwrap();
        (folder, network, status)
    }

    #[tokio::test]
    async fn a_relay_that_is_away_is_tried_on_and_it_is_told_when() {
        // Nobody listens there.
        let (_folder, network, status) = refused_by("http://127.0.0.1:9".parse().unwrap()).await;
        assert!(!status.up && status.failures >= 1 && status.trouble.is_some(), "{status:?}");
        assert_eq!(status.breaker, Breaker::HalfOpen);
        let pause = status.pause_ms.unwrap();
        assert!(pause <= 30_000 && status.next_at.unwrap() <= unix_ms() + pause, "{status:?}");
        network.shut_down().await;
    }

    #[tokio::test]
    async fn a_relay_that_refuses_is_left_alone_for_a_while_and_it_is_told_for_how_long() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin: Origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let refusing = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let (_folder, network, status) = refused_by(origin).await;
        assert_eq!((status.up, status.breaker, status.failures), (false, Breaker::Open, 1), "{status:?}");
        assert!((30_000..=90_000).contains(&status.pause_ms.unwrap()), "{status:?}");
        assert!(status.next_at.unwrap() > unix_ms(), "{status:?}");
        network.shut_down().await;
        refusing.abort();
    }

    async fn until(events: &mut Events, is: impl Fn(&Event) -> bool) {
        let found = async { while !is(&events.recv().await.1) {} };
        timeout(PATIENCE, found).await.unwrap();
    }
}
