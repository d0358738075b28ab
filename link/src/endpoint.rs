//! The endpoint: one connection to a relay and one link to each peer that can be reached through it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use happy_crypto::{DeviceId, Identity, SignedPrekey};
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::frame::Class;
use happy_wire::packet::Packet;
use happy_wire::relay::{
    FromRelay, MAX_FRAME, MAX_PAYLOAD, MAX_PEERS, MAX_RENDEZVOUS, MAX_SEALED_RECORD, RendezvousState, ToRelay,
};
use happy_wire::{Code, WireError};
use rand_core::CryptoRng;

use crate::allowance::Allowance;
use crate::calls::{CallError, CallId, RequestId};
use crate::channels::{ChannelName, Channels, OpenChannelError, SendError};
use crate::event::{Dial, Event, Way};
use crate::link::{Context, HINTS, Link, Peer, RAW_TAG, REFUSALS, TURNS};
use crate::relay_client::{Login, RelayClient};
use crate::suite::{Keys, Life, PairSecrets, RefusalReason, Suite};

/// Packets of [`Endpoint::send_packet`] that wait to be written: a pairing has a handful of messages in all.
pub const MAX_RAW_PACKETS: usize = 64;

/// Why a peer was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Remove another one first.
    #[error("a device names at most {MAX_PEERS} peers at a relay")]
    TooMany,
    /// The bundle is that of another device.
    #[error("the bundle belongs to another device than the identity record")]
    WrongBundle,
    /// A device cannot be its own peer.
    #[error("this is the device itself")]
    Myself,
}

/// Why a packet was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too many wait.
    #[error("{MAX_RAW_PACKETS} packets already wait to be sent")]
    TooMany,
    /// The relay does not take it.
    #[error("a packet holds at most {MAX_PAYLOAD} bytes")]
    TooLarge,
    /// There is no connection to the relay.
    #[error("there is no connection to the relay")]
    NotConnected,
}

/// What was received and not used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were malformed, not authentic, of another session, or from nobody we know.
    pub dropped_packets: u64,
    /// Frames of the relay whose type this version does not know.
    pub unknown_frames: u64,
}

/// What links share, apart from them so that both can be borrowed at once.
struct Core<R, S> {
    now: Duration,
    suite: S,
    rng: R,
    life: Life,
    events: VecDeque<Event>,
    confirmed: bool,
    counters: Counters,
}

/// What is left of the link to a revoked device: how often it is still answered.
struct Tombstone {
    refusals: Allowance,
    hints: Allowance,
}

impl Tombstone {
    fn new() -> Self {
        Self { refusals: Allowance::new(REFUSALS.0, REFUSALS.1), hints: Allowance::new(1, HINTS) }
    }
}

impl<R, S> Core<R, S> {
    fn context(&mut self) -> Context<'_, S, R> {
        Context {
            now: self.now,
            suite: &self.suite,
            rng: &mut self.rng,
            life: self.life,
            events: &mut self.events,
            confirmed: &mut self.confirmed,
            dropped: &mut self.counters.dropped_packets,
        }
    }
}

/// One connection to a relay and the links to all peers that are reached through it, without any input or output of its own.
///
/// # The calling contract
///
/// Time is a [`Duration`] since any fixed start that the caller chooses, and never goes back. After every call of a `handle_*` method and of
/// any method that changes something, drain in this order:
///
/// 1. [`poll_transmit`](Self::poll_transmit), as long as the socket can take more. Frames are made when they are asked for, which is what
///    lets an approval overtake a file, so do not ask for more than can be written soon;
/// 2. [`poll_event`](Self::poll_event) until it is empty;
/// 3. [`must_close`](Self::must_close): close the websocket with that code, then call [`handle_disconnected`](Self::handle_disconnected);
/// 4. [`wants_connection`](Self::wants_connection): dial at that time, then call [`handle_connected`](Self::handle_connected) or, when it failed,
///    [`handle_disconnected`](Self::handle_disconnected);
/// 5. [`poll_timeout`](Self::poll_timeout): call [`handle_timeout`](Self::handle_timeout) at that time, connected or not.
///
/// # Bounds
///
/// Per link: 192 KiB in flight and as much kept out of order; [`SEND_BUFFER`](crate::SEND_BUFFER) for each channel waiting to be sent, one message (256 KiB) for each
/// channel being received and no more than 4 MiB of unfinished ones together, 256 channels from each side; 4 MiB of calls, 4 MiB of answers, 256 KiB of events. Beyond a bound the
/// application is told to wait, and a peer's session ends.
pub struct Endpoint<R, S: Suite = Keys> {
    core: Core<R, S>,
    relay: RelayClient,
    links: BTreeMap<DeviceId, Link<S>>,
    /// The order in which links take turns, and whose turn it is.
    order: Vec<DeviceId>,
    turn: usize,
    tombstones: BTreeMap<DeviceId, Tombstone>,
    /// Our list of peers differs from what the relay was told.
    peers_changed: bool,
    rendezvous: BTreeMap<[u8; 32], Duration>,
    /// Frames that belong to no link, ready to be written.
    raw: VecDeque<Vec<u8>>,
    tag: u32,
    active: bool,
    leaving: bool,
}

impl<R: CryptoRng> Endpoint<R> {
    /// An endpoint for the relay whose websocket's authority is `relay_name` (`host` or `host:port`, lower case, no default port).
    pub fn new(identity: Identity, relay_name: String, login: Login, rng: R, now: Duration) -> Self {
        Self::with_suite(Keys::new(identity), relay_name, login, rng, now)
    }

    /// The signed prekeys that this device answers for, the newest last; needed where peers initiate.
    pub fn set_prekeys(&mut self, prekeys: Vec<SignedPrekey>) {
        self.core.suite.set_prekeys(prekeys);
    }
}

impl<R: CryptoRng, S: Suite> Endpoint<R, S> {
    /// An endpoint with other cryptography, for simulations.
    pub fn with_suite(suite: S, relay_name: String, login: Login, mut rng: R, now: Duration) -> Self {
        let mut life = [0; 16];
        rng.fill_bytes(&mut life);
        let counters = Counters::default();
        Self {
            core: Core { now, suite, rng, life, events: VecDeque::new(), confirmed: false, counters },
            relay: RelayClient::new(relay_name, login, now),
            links: BTreeMap::new(),
            order: Vec::new(),
            turn: 0,
            tombstones: BTreeMap::new(),
            peers_changed: false,
            rendezvous: BTreeMap::new(),
            raw: VecDeque::new(),
            tag: 0,
            active: false,
            leaving: false,
        }
    }

    /// Who this device is.
    pub fn device(&self) -> DeviceId {
        self.core.suite.device()
    }

    /// What was received and not used.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    // Peers.

    /// Names a peer, or changes what is known of it without disturbing its link.
    ///
    /// # Errors
    /// [`PeerError`].
    pub fn add_peer(&mut self, peer: Peer<S::Record, S::Bundle, S::Secret>) -> Result<(), PeerError> {
        let device = S::record_device(&peer.record);
        if device == self.device() {
            return Err(PeerError::Myself);
        }
        if let crate::Side::Initiator(bundle) = &peer.side
            && S::bundle_device(bundle) != device
        {
            return Err(PeerError::WrongBundle);
        }
        self.tombstones.remove(&device);
        if let Some(link) = self.links.get_mut(&device) {
            link.update(&mut self.core.context(), peer);
            return Ok(());
        }
        if self.links.len() >= MAX_PEERS {
            return Err(PeerError::TooMany);
        }
        self.links.insert(device, Link::new(device, peer));
        self.order.push(device);
        self.peers_changed = true;
        Ok(())
    }

    /// Ends the link to a peer and no longer names it. Calls that wait are answered with [`Answer::LinkGone`](crate::Answer::LinkGone).
    pub fn remove_peer(&mut self, now: Duration, peer: &DeviceId) {
        self.drop_link(now, peer, Code::GOODBYE, "the peer was removed");
    }

    /// Ends the link to a device that was revoked. It stays named at the relay, so that it can be told, signed, when it comes back.
    pub fn tombstone(&mut self, now: Duration, peer: DeviceId) {
        self.drop_link(now, &peer, Code::REMOVED, "the device was removed");
        self.tombstones.insert(peer, Tombstone::new());
        self.peers_changed = true;
    }

    fn drop_link(&mut self, now: Duration, peer: &DeviceId, code: Code, reason: &str) {
        self.advance(now);
        self.tombstones.remove(peer);
        self.peers_changed = true;
        let Some(link) = self.links.remove(peer) else { return };
        self.order.retain(|device| device != peer);
        let last_words = link.give_up(&mut self.core.context(), code, reason);
        if self.relay.is_up() {
            self.raw.extend(last_words);
        }
    }

    /// The bundle of a peer that this device initiates to.
    pub fn bundle(&self, peer: &DeviceId) -> Option<&S::Bundle> {
        self.links.get(peer).and_then(Link::bundle)
    }

    /// What to store after [`Event::PairSecrets`], unless a later handshake has left others by now.
    pub fn pair_secrets(&self, peer: &DeviceId, session: &[u8; 16]) -> Option<&PairSecrets<S::Secret>> {
        self.links.get(peer)?.secrets_to_store(session)
    }

    /// They are stored, and will be there after a crash.
    pub fn pair_secrets_stored(&mut self, now: Duration, peer: &DeviceId, session: &[u8; 16]) {
        self.advance(now);
        if let Some(link) = self.links.get_mut(peer) {
            link.on_secrets_stored(&mut self.core.context(), session);
        }
    }

    /// Makes new keys with a peer now, without a pause; they are made by themselves too (`PROTOCOL 8`). Only an initiator can.
    pub fn renew_keys(&mut self, now: Duration, peer: &DeviceId) {
        self.advance(now);
        if let Some(link) = self.links.get_mut(peer) {
            link.want_new_keys(&mut self.core.context());
        }
    }

    /// Whether frames pass between this device and the peer now.
    pub fn is_up(&self, peer: &DeviceId) -> bool {
        self.links.get(peer).is_some_and(Link::is_up)
    }

    // The path, for the driver.

    /// The websocket is open.
    pub fn handle_connected(&mut self, now: Duration) {
        self.advance(now);
        self.relay.handle_connected(now);
    }

    /// The websocket is gone, or could not be opened.
    pub fn handle_disconnected(&mut self, now: Duration) {
        self.handle_closed(now, None);
    }

    /// The relay closed the websocket with this code, which counts like a Goaway.
    pub fn handle_closed(&mut self, now: Duration, code: Option<Code>) {
        self.advance(now);
        let why = self.relay.handle_closed(now, &mut self.core.rng, code);
        for link in self.links.values_mut() {
            link.on_relay_down(&mut self.core.context());
        }
        self.raw.clear();
        let last = matches!(self.relay.dial(), Dial::Never(_));
        self.core.events.push_back(Event::RelayDown { why, last });
    }

    /// A binary message came from the relay.
    pub fn handle_frame(&mut self, now: Duration, bytes: &[u8]) {
        self.advance(now);
        if self.must_close().is_some() || self.wants_connection(now) != Dial::Connected {
            return;
        }
        if bytes.len() > MAX_FRAME {
            return self.relay.close(Code::TOO_LARGE);
        }
        self.relay.handle_any(now);
        match FromRelay::decode(bytes) {
            Ok(frame) => self.handle_relay(now, frame),
            Err(WireError::UnknownType(_)) => self.core.counters.unknown_frames += 1,
            Err(_) => self.relay.close(Code::MALFORMED),
        }
        if std::mem::take(&mut self.core.confirmed) {
            self.relay.reconnect.reset();
        }
    }

    fn handle_relay(&mut self, now: Duration, frame: FromRelay<'_>) {
        match frame {
            FromRelay::Challenge { nonce } => {
                self.relay.handle_challenge(now, &mut self.core.rng, &self.core.suite, &nonce);
            }
            FromRelay::Welcome { host, .. } => {
                if self.relay.handle_welcome(now) {
                    self.on_login(now, host);
                }
            }
            FromRelay::Goaway { code, retry_after_ms, text } => {
                self.core.events.push_back(Event::Goaway { code, text: text.to_owned() });
                self.relay.handle_goaway(code, retry_after_ms);
            }
            FromRelay::Ping(n) => self.relay.handle_ping(n),
            FromRelay::Pong(_) => {}
            _ if !self.relay.is_up() => self.relay.close(Code::MALFORMED),
            FromRelay::Deliver { from, rendezvous, payload } => self.handle_deliver(from, rendezvous, payload),
            FromRelay::Undeliverable { to, tag: RAW_TAG, reason } => {
                self.core.events.push_back(Event::Undelivered { to, reason });
            }
            FromRelay::Undeliverable { to, tag, reason } => {
                if let Some(link) = self.links.get_mut(&to) {
                    link.on_undeliverable(&mut self.core.context(), tag, reason);
                }
            }
            FromRelay::Presence { device, here } => {
                if let Some(link) = self.links.get_mut(&device) {
                    self.core.events.push_back(Event::Presence { peer: device, here });
                    link.on_presence(&mut self.core.context(), here);
                }
            }
            FromRelay::Rendezvous { ticket_hash, state } => {
                if state != RendezvousState::Open {
                    self.rendezvous.remove(&ticket_hash);
                }
                self.core.events.push_back(Event::Rendezvous { ticket_hash, state });
            }
            FromRelay::Record { machine, kind, answer, last_seen, version, sealed } => {
                let sealed = sealed.to_vec();
                self.core.events.push_back(Event::Record { machine, kind, answer, last_seen, version, sealed });
            }
            FromRelay::Changed { machine, kinds } => {
                self.core.events.push_back(Event::RecordsChanged { machine, kinds });
            }
            // The answer to what this library does not ask for.
            FromRelay::Token { .. } => {}
        }
    }

    fn on_login(&mut self, now: Duration, host: Option<DeviceId>) {
        let guest = self.relay.is_guest();
        self.core.events.push_back(Event::RelayUp { host: host.filter(|_| guest) });
        self.peers_changed = !guest;
        self.rendezvous.retain(|_, until| *until > now);
        for (ticket_hash, until) in self.rendezvous.clone() {
            self.announce_rendezvous(now, ticket_hash, until);
        }
    }

    fn handle_deliver(&mut self, from: DeviceId, via_rendezvous: bool, payload: &[u8]) {
        if via_rendezvous || self.relay.is_guest() {
            self.core.events.push_back(Event::Packet { from, via_rendezvous, bytes: payload.to_vec() });
            return;
        }
        let packet = Packet::decode(payload);
        match (packet, self.links.get_mut(&from)) {
            (Ok(packet), Some(link)) => link.handle_packet(&mut self.core.context(), packet),
            (Ok(Packet::Hello(hello)), None) => self.refuse(from, hello),
            (Ok(Packet::Sealed { session, .. }), None) => self.hint(from, session),
            _ => self.core.counters.dropped_packets += 1,
        }
    }

    /// `PROTOCOL 5`: a revoked device is told so, signed, so that nobody else can make it believe that.
    fn refuse(&mut self, from: DeviceId, hello: &[u8]) {
        let now = self.core.now;
        // The relay writes `from`: what is signed for a removed device must not be the Hello of another one.
        if !self.core.suite.is_hello_of(&from, hello)
            || !self.tombstones.get_mut(&from).is_some_and(|tombstone| tombstone.refusals.take(now))
        {
            self.core.counters.dropped_packets += 1;
            return;
        }
        let refused = self.core.suite.refuse(RefusalReason::Revoked, hello);
        self.push_raw(&ToRelay::Send { to: from, tag: 0, payload: &Packet::Refused(&refused).to_vec() });
    }

    /// `PROTOCOL 8`: a revoked device that was away meanwhile goes on with a session that ended without it. It is asked for a Hello, which is refused.
    fn hint(&mut self, from: DeviceId, session: [u8; 16]) {
        let now = self.core.now;
        self.core.counters.dropped_packets += 1;
        if self.tombstones.get_mut(&from).is_some_and(|tombstone| tombstone.hints.take(now)) {
            self.push_raw(&ToRelay::Send { to: from, tag: 0, payload: &Packet::UnknownSession(session).to_vec() });
        }
    }

    /// Time has passed; calling early does no harm.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.advance(now);
        let waiting = self.waiting_since();
        self.relay.handle_timeout(now, waiting);
        for link in self.links.values_mut() {
            link.handle_timeout(&mut self.core.context());
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let relay = self.relay.timeout(self.waiting_since());
        self.links.values().filter_map(Link::timeout).chain(relay).min()
    }

    /// `PROTOCOL 9`, Liveness: since when a person waits for data to be acknowledged.
    fn waiting_since(&self) -> Option<Duration> {
        if !self.active {
            return None;
        }
        self.links.values().filter_map(Link::waiting_since).min()
    }

    /// The next frame for the relay, made now: ask only when it can be written soon.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.advance(now);
        if let Some(frame) = self.relay.poll_control() {
            return Some(frame);
        }
        if !self.relay.is_up() || self.must_close().is_some() {
            return None;
        }
        if let Some(frame) = self.raw.pop_front() {
            return Some(frame);
        }
        if std::mem::take(&mut self.peers_changed) && !self.relay.is_guest() {
            return Some(self.peers_frame());
        }
        let frame = self.poll_links();
        if frame.is_none() && self.leaving {
            self.relay.close(Code::GOODBYE);
        }
        frame
    }

    fn peers_frame(&self) -> Vec<u8> {
        let peers = self.links.keys().chain(self.tombstones.keys()).take(MAX_PEERS).copied().collect();
        let mut frame = Vec::new();
        ToRelay::Peers(peers).encode(&mut frame);
        frame
    }

    /// Links take turns, but what is urgent on one goes before what is not on another.
    fn poll_links(&mut self) -> Option<Vec<u8>> {
        let count = self.order.len();
        for turn in TURNS {
            for step in 0..count {
                let at = (self.turn + step) % count;
                let Some(link) = self.links.get_mut(&self.order[at]) else { continue };
                if let Some(frame) = link.poll(&mut self.core.context(), turn, &mut self.tag) {
                    self.turn = at + 1;
                    return Some(frame);
                }
            }
        }
        None
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Whether and when to dial.
    pub fn wants_connection(&self, _now: Duration) -> Dial {
        self.relay.dial()
    }

    /// How it stands with the connection to the relay, for people.
    pub fn way(&self, now: Duration) -> Way {
        self.relay.way(now)
    }

    /// Close the websocket with this code, if there is one.
    pub fn must_close(&self) -> Option<Code> {
        self.relay.must_close()
    }

    /// Someone is using the application, or no longer does: dead paths are then noticed within seconds, and dialling is not put off for long.
    pub fn set_active(&mut self, now: Duration, active: bool) {
        self.advance(now);
        self.active = active;
        self.relay.reconnect.set_active(now, &mut self.core.rng, active);
    }

    /// Shows an enrolment key from the next login on, and dials at once if there is no connection (`PROTOCOL 7`, Access).
    pub fn enrol(&mut self, now: Duration, key: EnrolmentKey) {
        self.relay.enrol(key);
        self.advance(now);
        self.relay.reconnect.want(now);
    }

    /// There is reason to think that dialling will succeed now: the network is back, or the computer woke up.
    pub fn hurry(&mut self, now: Duration) {
        self.advance(now);
        self.relay.reconnect.hurry(now, &mut self.core.rng);
    }

    /// A person wants this connection although it had ended for good ([`Dial::Never`]).
    pub fn revive(&mut self, now: Duration) {
        self.advance(now);
        self.leaving = false;
        self.relay.reconnect.revive(now);
    }

    /// Says goodbye to all peers and to the relay. What has not been acknowledged may be lost. [`Self::must_close`] tells when it is done.
    pub fn shut_down(&mut self, now: Duration) {
        self.advance(now);
        self.leaving = true;
        self.relay.reconnect.stop(Code::GOODBYE);
        for link in self.links.values_mut() {
            link.end(&mut self.core.context(), Code::GOODBYE, "going", false);
        }
        if !self.relay.is_up() {
            self.relay.close(Code::GOODBYE);
        }
    }

    fn advance(&mut self, now: Duration) {
        self.core.now = self.core.now.max(now);
    }

    // Rendezvous and pairing.

    /// Opens a rendezvous for as many seconds, across reconnects. False when too many are open.
    pub fn open_rendezvous(&mut self, now: Duration, ticket_hash: [u8; 32], seconds: u16) -> bool {
        self.advance(now);
        self.rendezvous.retain(|_, until| *until > now);
        if self.rendezvous.len() >= MAX_RENDEZVOUS && !self.rendezvous.contains_key(&ticket_hash) {
            return false;
        }
        let until = now + Duration::from_secs(seconds.into());
        self.rendezvous.insert(ticket_hash, until);
        if self.relay.is_up() {
            self.announce_rendezvous(now, ticket_hash, until);
        }
        true
    }

    fn announce_rendezvous(&mut self, now: Duration, ticket_hash: [u8; 32], until: Duration) {
        let seconds = u16::try_from((until - now).as_secs().max(1)).unwrap_or(u16::MAX);
        let seconds = seconds.min(happy_wire::relay::MAX_RENDEZVOUS_SECONDS);
        self.push_raw(&ToRelay::OpenRendezvous { ticket_hash, seconds });
    }

    /// Ends a rendezvous before its time.
    pub fn close_rendezvous(&mut self, ticket_hash: [u8; 32]) {
        if self.rendezvous.remove(&ticket_hash).is_some() && self.relay.is_up() {
            self.push_raw(&ToRelay::CloseRendezvous { ticket_hash });
        }
    }

    /// Sends a packet that belongs to no link: pairing. It may be lost with the connection.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn send_packet(&mut self, to: DeviceId, packet: &[u8]) -> Result<(), PacketError> {
        if packet.len() > MAX_PAYLOAD {
            return Err(PacketError::TooLarge);
        }
        if !self.relay.is_up() {
            return Err(PacketError::NotConnected);
        }
        if self.raw.len() >= MAX_RAW_PACKETS {
            return Err(PacketError::TooMany);
        }
        self.push_raw(&ToRelay::Send { to, tag: RAW_TAG, payload: packet });
        Ok(())
    }

    // Machine records.

    /// Leaves a record of this machine at the relay. [`Event::Record`] follows, unless the connection ends before.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn put_record(&mut self, kind: u8, version: u64, sealed: &[u8]) -> Result<(), PacketError> {
        if sealed.is_empty() || sealed.len() > MAX_SEALED_RECORD {
            return Err(PacketError::TooLarge);
        }
        self.ask_relay(&ToRelay::PutRecord { kind, version, sealed })
    }

    /// Asks the relay for a record of a machine. [`Event::Record`] follows, unless the connection ends before.
    ///
    /// # Errors
    /// [`PacketError`].
    pub fn get_record(&mut self, machine: DeviceId, kind: u8) -> Result<(), PacketError> {
        self.ask_relay(&ToRelay::GetRecord { machine, kind })
    }

    fn ask_relay(&mut self, frame: &ToRelay<'_>) -> Result<(), PacketError> {
        if !self.relay.is_up() {
            return Err(PacketError::NotConnected);
        }
        if self.raw.len() >= MAX_RAW_PACKETS {
            return Err(PacketError::TooMany);
        }
        self.push_raw(frame);
        Ok(())
    }

    fn push_raw(&mut self, frame: &ToRelay<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.raw.push_back(bytes);
    }

    // Calls.

    /// Calls a peer, now or as soon as there is a link. Exactly one [`Event::Answer`] follows, after `deadline` at the latest (30 s without one).
    ///
    /// # Errors
    /// [`CallError`].
    pub fn call(
        &mut self,
        now: Duration,
        peer: &DeviceId,
        body: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<CallId, CallError> {
        self.advance(now);
        self.links.get_mut(peer).ok_or(CallError::UnknownPeer)?.calls.call(now, body, deadline, false)
    }

    /// Like [`Self::call`], for a body that names itself as a command (`PROTOCOL 10.2`): the callee knows what it has run whenever it is
    /// asked, so it is asked again in its next life, and [`Answer::Indeterminate`](crate::Answer::Indeterminate) never follows.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn command(
        &mut self,
        now: Duration,
        peer: &DeviceId,
        body: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<CallId, CallError> {
        self.advance(now);
        self.links.get_mut(peer).ok_or(CallError::UnknownPeer)?.calls.call(now, body, deadline, true)
    }

    /// The answer is no longer wanted; none will come. The peer is told, if it was asked already.
    pub fn cancel(&mut self, peer: &DeviceId, id: CallId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.calls.cancel(id);
        }
    }

    /// Answers a request. The answer is kept until it is known to have arrived, whatever becomes of the session.
    ///
    /// # Errors
    /// [`SendError::WouldBlock`] when too many answers wait to be sent: try again after [`Event::Writable`] for channel 0.
    pub fn respond(&mut self, peer: &DeviceId, id: RequestId, body: &[u8]) -> Result<(), SendError> {
        self.links.get_mut(peer).ok_or(SendError::UnknownPeer)?.calls.respond(id, body)
    }

    /// Tells a peer of something that happened. A session that ends takes with it what was not delivered.
    ///
    /// # Errors
    /// [`SendError::Closed`] without a session, [`SendError::WouldBlock`] when too much waits: try again after [`Event::Writable`] for channel 0.
    pub fn emit(&mut self, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.links.get_mut(peer).ok_or(SendError::UnknownPeer)?.calls.emit(body)
    }

    /// Like [`Self::emit`] for events that come in great numbers and hurry nobody: they go ten at a time, or after 50 ms.
    ///
    /// # Errors
    /// As [`Self::emit`].
    pub fn emit_in_bulk(&mut self, now: Duration, peer: &DeviceId, body: Vec<u8>) -> Result<(), SendError> {
        self.advance(now);
        self.links.get_mut(peer).ok_or(SendError::UnknownPeer)?.calls.emit_in_bulk(now, body)
    }

    // Channels.

    /// Opens a channel. It lasts as long as the session.
    ///
    /// # Errors
    /// [`OpenChannelError`].
    pub fn open_channel(&mut self, peer: &DeviceId, class: Class, label: &str) -> Result<u32, OpenChannelError> {
        let link = self.links.get_mut(peer).ok_or(OpenChannelError::UnknownPeer)?;
        link.session().ok_or(OpenChannelError::NoLink)?.channels.open(class, label)
    }

    /// Sends a message on a channel. It is delivered exactly once and in order while the session lasts.
    ///
    /// # Errors
    /// [`SendError::WouldBlock`] when the channel's buffer is full: try again after [`Event::Writable`]. Others are final.
    pub fn send(&mut self, peer: &DeviceId, channel: impl Into<ChannelName>, message: &[u8]) -> Result<(), SendError> {
        let channel = channel.into();
        if !self.links.contains_key(peer) {
            return Err(SendError::UnknownPeer);
        }
        if channel.number() == happy_wire::frame::CALLS {
            return Err(SendError::Closed);
        }
        self.channels(peer, channel).ok_or(SendError::Closed)?.send(channel.number(), message)
    }

    /// The channels of the session now, if it is the one that is meant.
    fn channels(&mut self, peer: &DeviceId, channel: ChannelName) -> Option<&mut Channels> {
        let session = self.links.get_mut(peer)?.session()?;
        channel.is_of(session.origin).then_some(&mut session.channels)
    }

    /// How large a message this channel would take now.
    pub fn sendable(&mut self, peer: &DeviceId, channel: impl Into<ChannelName>) -> usize {
        let channel = channel.into();
        self.channels(peer, channel).map_or(0, |channels| channels.sendable(channel.number()))
    }

    /// Whether a channel is open.
    pub fn is_open(&mut self, peer: &DeviceId, channel: impl Into<ChannelName>) -> bool {
        let channel = channel.into();
        self.channels(peer, channel).is_some_and(|channels| channels.is_open(channel.number()))
    }

    /// The application is done with `bytes` of the messages of this channel, so the peer may send as much again. Whether it is to be told so now: then
    /// [`Self::poll_transmit`] has something to say.
    pub fn consumed(&mut self, peer: &DeviceId, channel: impl Into<ChannelName>, bytes: usize) -> bool {
        let channel = channel.into();
        self.channels(peer, channel).is_some_and(|channels| channels.consumed(channel.number(), bytes))
    }

    /// Closes a channel in both directions. What was accepted before is still sent if the code is [`Code::GOODBYE`].
    pub fn close_channel(&mut self, peer: &DeviceId, channel: impl Into<ChannelName>, code: Code, reason: &str) {
        let channel = channel.into();
        if let Some(channels) = self.channels(peer, channel) {
            channels.close(channel.number(), code, reason);
        }
    }
}
