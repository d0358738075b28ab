//! The link to one peer (`PROTOCOL 8` and `9`): its handshakes, its session, its calls, and whether frames pass now.
//!
//! A link outlives paths and sessions. A *path* is the way through the relay; it comes up when the relay says that the peer is
//! here, and proves itself when a packet opens. A *session* survives the loss of a path. Only a new handshake replaces it.

mod handshake;

use std::collections::VecDeque;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::frame::{Class, MAX_CHANNELS};
use happy_wire::packet::Packet;
use happy_wire::relay::{PING_AFTER_SECONDS, PONG_GRACE_SECONDS, ToRelay, Undelivered};
use rand_core::CryptoRng;

use crate::allowance::Allowance;
use crate::calls::Calls;
use crate::channels::Numbering;
use crate::event::{Event, LinkDown};
use crate::planted::{self, Bug};
use crate::session::{Outcome, Session, call_event};
use crate::suite::{Cipher, Established, Life, OpenError, PairSecrets, RefusalReason, Suite};

/// `PROTOCOL 8`: a Hello is repeated after 1 s, doubling to 10 s. A Resume that nobody answers is repeated likewise.
const REPEAT_FIRST: Duration = Duration::from_secs(1);
const REPEAT_LONGEST: Duration = Duration::from_secs(10);
/// `PROTOCOL 8`: a hint that costs a handshake is heeded, and given, at most once in this time.
pub(crate) const HINTS: Duration = Duration::from_secs(2);
/// `PROTOCOL 5`: the unconfirmed handshakes of one device, and how long each is held.
const MAX_PENDING: usize = 4;
const PENDING_FOR: Duration = Duration::from_secs(10);
/// New Hellos of one device that are answered; an honest one makes one in 2 s.
const HELLOS: (u32, Duration) = (8, Duration::from_secs(4));
/// `PROTOCOL 5`: refusals to one device.
pub(crate) const REFUSALS: (u32, Duration) = (10, Duration::from_secs(60));
/// `PROTOCOL 5`: Hellos with a secret that the responder does not know before people are told, two with each secret.
const ATTEMPTS: u8 = 4;
/// `PROTOCOL 8`, "New keys": after so long, after so many messages, and when a path comes up again after so long.
const REKEY_AFTER: Duration = Duration::from_secs(24 * 3_600);
const REKEY_AFTER_MESSAGES: u64 = 1 << 16;
const REKEY_ON_PATH: Duration = Duration::from_secs(600);
/// After a refusal that may be lifted, or a fault of the peer.
const AFTER_REFUSAL: Duration = Duration::from_secs(60);
const AFTER_GOODBYE: Duration = Duration::from_secs(10);
/// Packets in a row that do not open before the session counts as broken. The relay could provoke that, as it could drop everything.
const MAX_FAILURES: u32 = 8;
/// A full queue at the relay is given this much time, doubling, to drain.
const HOLD_FIRST: Duration = Duration::from_millis(50);
const HOLD_LONGEST: Duration = Duration::from_secs(2);
const PING_AFTER: Duration = Duration::from_secs(PING_AFTER_SECONDS);
const PONG_GRACE: Duration = Duration::from_secs(PONG_GRACE_SECONDS);
/// The tag of packets that belong to no link. Those of links are smaller, and 0 where nobody asks.
pub(crate) const RAW_TAG: u32 = u32::MAX;
/// Handshake packets that wait to be written; older ones are worthless by then.
const MAX_OUTBOX: usize = 16;

/// The side of a link that this device is on (`PROTOCOL 8`: the side that joined initiates).
#[derive(Clone)]
pub enum Side<B = happy_crypto::Bundle> {
    /// This device joined; it needs the bundle of the peer.
    Initiator(B),
    /// The peer joined.
    Responder,
}

/// A peer as the pairing left it.
#[derive(Clone)]
pub struct Peer<I = happy_crypto::IdentityRecord, B = happy_crypto::Bundle, K = happy_crypto::handshake::PairSecret> {
    /// Its identity.
    pub record: I,
    /// Who initiates.
    pub side: Side<B>,
    /// What the last handshake left.
    pub secrets: PairSecrets<K>,
}

/// What the methods of a link work with.
pub(crate) struct Context<'a, S, R> {
    pub(crate) now: Duration,
    pub(crate) suite: &'a S,
    pub(crate) rng: &'a mut R,
    pub(crate) life: Life,
    pub(crate) events: &'a mut VecDeque<Event>,
    /// Set when a session was confirmed: the connection is worth having.
    pub(crate) confirmed: &'a mut bool,
    /// Packets that were dropped.
    pub(crate) dropped: &'a mut u64,
}

/// What is asked for when the driver can write, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Handshakes, signals, and what is sent again.
    Urgent,
    /// New data of this class.
    Data(Class),
    /// An acknowledgement that found nothing to ride on.
    Acknowledgement,
}

/// In this order.
pub(crate) const TURNS: [Turn; 5] = [
    Turn::Urgent,
    Turn::Data(Class::Control),
    Turn::Data(Class::Interactive),
    Turn::Data(Class::Bulk),
    Turn::Acknowledgement,
];

enum Hello<I, K> {
    /// None is wanted.
    Idle,
    /// One is wanted at that time.
    Later(Duration),
    Sent {
        initiator: I,
        /// What it was made with.
        secret: K,
        /// The session that it would go on with.
        resumes: Option<[u8; 16]>,
        packet: Vec<u8>,
        again: Duration,
        wait: Duration,
    },
    /// The peer said that it will never answer.
    Never,
}

struct Pending<P, K> {
    responder: P,
    secret: K,
    /// The session that goes on.
    resumes: Option<[u8; 16]>,
    hello: Vec<u8>,
    welcome: Vec<u8>,
    until: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Down,
    /// Resume was sent and nothing has been opened since.
    Probing {
        again: Duration,
        wait: Duration,
        probed: Duration,
    },
    Up,
}

pub(crate) struct Link<S: Suite> {
    peer: DeviceId,
    record: S::Record,
    side: Side<S::Bundle>,
    /// What is stored.
    secrets: PairSecrets<S::Secret>,
    /// At an initiator: what the last handshake left, until the responder has stored it.
    next_secret: Option<([u8; 16], PairSecrets<S::Secret>)>,
    /// At an initiator: the secret that was the current one when the responder did not know it. While it still is, the one before is used.
    unknown_there: Option<S::Secret>,
    /// So many Hellos in a row were refused because their secret was not known.
    refused: u8,
    /// At a responder: the Hellos whose secret is not known, as many as it takes, since the peer came, and since one whose secret is known.
    unknown_hellos: Vec<Vec<u8>>,
    /// What the application is to store, with the session that tells which it is.
    to_store: Option<([u8; 16], PairSecrets<S::Secret>)>,
    /// The session whose secret is the one that is stored.
    stored: Option<[u8; 16]>,
    /// When to show again that we have new keys, and how long to wait after that.
    show_next: Option<(Duration, Duration)>,
    /// How long the path has been up, not counting since `up_since`.
    up_for: Duration,
    up_since: Option<Duration>,
    /// The relay says so, or a packet came.
    here: bool,
    path: Path,
    session: Option<Session<S::Cipher>>,
    /// The session was announced with LinkUp before.
    announced: bool,
    last_life: Option<Life>,
    /// The last number that this side has given to a channel, in any session.
    last_own_channel: u32,
    pub(crate) calls: Calls,

    hello: Hello<S::Initiator, S::Secret>,
    last_hello: Option<Duration>,
    /// Confirm, until a packet of the responder shows that it arrived.
    confirm: Option<Vec<u8>>,
    pending: Vec<Pending<S::Responder, S::Secret>>,
    /// The Confirm that began the session, to know a repetition.
    confirmed_by: Vec<u8>,
    hellos: Allowance,
    refusals: Allowance,
    hints: Allowance,
    /// Sessions in a row that ended with a fault.
    faults: u32,
    began: Duration,

    outbox: VecDeque<Vec<u8>>,
    /// When the last packet opened.
    heard: Duration,
    pinged: Option<Duration>,
    hold: Option<Duration>,
    hold_wait: Duration,
}

impl<S: Suite> Link<S> {
    pub(crate) fn new(device: DeviceId, peer: Peer<S::Record, S::Bundle, S::Secret>) -> Self {
        Self {
            peer: device,
            record: peer.record,
            side: peer.side,
            secrets: peer.secrets,
            next_secret: None,
            unknown_there: None,
            refused: 0,
            unknown_hellos: Vec::new(),
            to_store: None,
            stored: None,
            show_next: None,
            up_for: Duration::ZERO,
            up_since: None,
            here: false,
            path: Path::Down,
            session: None,
            announced: false,
            last_life: None,
            last_own_channel: 0,
            calls: Calls::new(),
            hello: Hello::Idle,
            last_hello: None,
            confirm: None,
            pending: Vec::new(),
            confirmed_by: Vec::new(),
            hellos: Allowance::new(HELLOS.0, HELLOS.1),
            refusals: Allowance::new(REFUSALS.0, REFUSALS.1),
            hints: Allowance::new(1, HINTS),
            faults: 0,
            began: Duration::ZERO,
            outbox: VecDeque::new(),
            heard: Duration::ZERO,
            pinged: None,
            hold: None,
            hold_wait: HOLD_FIRST,
        }
    }

    /// The peer was paired again, or its bundle is a newer one. The session goes on if the identity is the same and who makes the handshakes.
    pub(crate) fn update<R: CryptoRng>(
        &mut self,
        cx: &mut Context<'_, S, R>,
        peer: Peer<S::Record, S::Bundle, S::Secret>,
    ) {
        let turned = matches!(self.side, Side::Initiator(_)) != matches!(peer.side, Side::Initiator(_));
        if turned {
            self.end(cx, Code::GOODBYE, "paired the other way round", false);
            self.pending.clear();
            self.hello = Hello::Idle;
        }
        self.record = peer.record;
        self.side = peer.side;
        if !S::same_secret(&peer.secrets.current, &self.secrets.current) {
            // Paired again. A handshake with the old secret that is under way must not put the old one back.
            (self.secrets, self.next_secret, self.to_store) = (peer.secrets, None, None);
            (self.unknown_there, self.stored, self.confirm, self.show_next) = (None, None, None, None);
            (self.refused, self.unknown_hellos) = (0, Vec::new());
            self.pending.clear();
            if let Some(session) = &mut self.session {
                session.drop_next();
            }
            if matches!(self.hello, Hello::Sent { .. }) {
                self.hello = Hello::Later(Duration::ZERO);
            }
        }
        if matches!(self.hello, Hello::Never | Hello::Later(_)) {
            // What was refused may be accepted now.
            self.hello = Hello::Later(Duration::ZERO);
        }
        if turned && self.here {
            self.want_hello(cx.now);
        }
    }

    pub(crate) fn session(&mut self) -> Option<&mut Session<S::Cipher>> {
        self.session.as_mut()
    }

    pub(crate) fn bundle(&self) -> Option<&S::Bundle> {
        match &self.side {
            Side::Initiator(bundle) => Some(bundle),
            Side::Responder => None,
        }
    }

    pub(crate) fn secrets_to_store(&self, session: &[u8; 16]) -> Option<&PairSecrets<S::Secret>> {
        self.to_store.as_ref().filter(|(of, _)| of == session).map(|(_, secrets)| secrets)
    }

    /// `PROTOCOL 5`: only now may the other side rely on it.
    pub(crate) fn on_secrets_stored<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, session: &[u8; 16]) {
        let Some((of, secrets)) = self.to_store.take_if(|(of, _)| of == session) else { return };
        // Who has just forgotten the one before has nothing to say.
        let news = secrets.previous.is_some();
        self.secrets = secrets;
        self.stored = Some(of);
        if let Some(session) = self.session.as_mut().filter(|_| news) {
            session.secret_stored = Some(of);
        }
        if news && matches!(self.side, Side::Initiator(_)) {
            self.forget_older_secret(cx, of);
        }
    }

    /// Whether frames pass now.
    pub(crate) fn is_up(&self) -> bool {
        self.path == Path::Up
    }

    /// Since when data waits to be acknowledged on a path that should be alive.
    pub(crate) fn waiting_since(&self) -> Option<Duration> {
        self.session.as_ref().filter(|_| self.is_up())?.send.unacknowledged_since()
    }

    // Below: the path.

    /// The connection to the relay ended.
    pub(crate) fn on_relay_down<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        self.leave(cx, LinkDown::RelayDown);
    }

    /// The relay tells whether the peer is connected.
    pub(crate) fn on_presence<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, here: bool) {
        if !here {
            return self.leave(cx, LinkDown::Away);
        }
        if self.here && self.is_up() {
            // Told again: the peer has a new connection, and perhaps a new life.
            if let Some(session) = &mut self.session {
                session.resume = true;
            }
        } else {
            self.come_up(cx);
        }
    }

    fn leave<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, why: LinkDown) {
        self.here = false;
        self.outbox.clear();
        self.hold = None;
        if let Hello::Later(_) = self.hello {
            self.hello = Hello::Idle;
        }
        self.go_down(cx, why);
        self.path = Path::Down;
    }

    fn go_down<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, why: LinkDown) {
        if self.is_up() {
            cx.events.push_back(Event::LinkDown { peer: self.peer, why });
            self.probe_from(cx.now + REPEAT_FIRST, cx.now);
            self.stop_clock(cx.now);
        }
    }

    /// The peer can be reached, as far as anybody knows.
    fn come_up<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        self.here = true;
        // It may be another life of the peer, which begins again with the secret that is not known.
        self.unknown_hellos.clear();
        if self.session.is_some() {
            self.probe_from(cx.now, cx.now);
            self.probe(cx);
        }
        match &mut self.hello {
            Hello::Sent { packet, again, wait, .. } => {
                *wait = REPEAT_FIRST;
                *again = cx.now + REPEAT_FIRST;
                let packet = packet.clone();
                self.post(packet);
            }
            Hello::Idle if self.session.is_none() => self.want_hello(cx.now),
            _ => {}
        }
        self.start_wanted_hello(cx);
    }

    fn probe_from(&mut self, again: Duration, probed: Duration) {
        self.path = Path::Probing { again, wait: REPEAT_FIRST, probed };
    }

    /// Asks the other side to show that it has the session (`PROTOCOL 9`, Resume).
    fn probe<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let (Some(session), Path::Probing { again, wait, probed }) = (&mut self.session, &mut self.path) else {
            return;
        };
        if planted::is(Bug::ProbesOnce) && *wait > REPEAT_FIRST {
            *again = cx.now + REPEAT_LONGEST;
            return;
        }
        session.resume = true;
        *probed = cx.now;
        *again = cx.now + *wait;
        *wait = (*wait * 2).min(REPEAT_LONGEST);
        // The Confirm may have been lost, and without it the other side cannot open anything.
        if let Some(confirm) = self.confirm.clone() {
            self.post(confirm);
        }
        session_shows_next(self.session.as_mut());
    }

    /// Repeats the Confirm of new keys, and a first packet under them, until the responder uses them.
    fn show_next<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let Some((again, wait)) = &mut self.show_next else { return };
        *again = cx.now + *wait;
        *wait = (*wait * 2).min(REPEAT_LONGEST);
        if let Some(confirm) = self.confirm.clone() {
            self.post(confirm);
        }
        session_shows_next(self.session.as_mut());
    }

    /// A packet of the session opened: frames pass.
    fn on_opened<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let Some(session) = &mut self.session else { return };
        self.heard = cx.now;
        self.pinged = None;
        if !session.has_next() {
            (self.confirm, self.show_next) = (None, None);
        }
        session.failures = 0;
        session.confirmed = true;
        let Path::Probing { probed, .. } = self.path else { return };
        // Who can hold up this path again and again can hold up the clock, and shall not hold up the ratchet with it.
        session.time_stood_still();
        self.path = Path::Up;
        self.up_since = Some(cx.now);
        let keyed_at = session.keyed_at;
        session.send.forgive(cx.now);
        session.send.resend_all(probed);
        let same_life = self.last_life == Some(session.peer_life);
        self.last_life = Some(session.peer_life);
        let resumed = std::mem::replace(&mut self.announced, true);
        *cx.confirmed = true;
        cx.events.push_back(Event::LinkUp { peer: self.peer, resumed, same_life });
        if cx.now >= keyed_at + REKEY_ON_PATH {
            self.want_new_keys(cx);
        }
    }

    /// `PROTOCOL 8`, "New keys": nothing waits for them.
    pub(crate) fn want_new_keys<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        if self.session.as_ref().is_some_and(|session| !session.has_next()) {
            self.want_hello(cx.now);
            self.start_wanted_hello(cx);
        }
    }

    fn wants_new_keys_at(&self) -> Option<Duration> {
        let idle = matches!(self.hello, Hello::Idle) && matches!(self.side, Side::Initiator(_));
        let session = self.session.as_ref().filter(|session| idle && !session.has_next())?;
        let used_up = session.messages >= REKEY_AFTER_MESSAGES;
        Some(if used_up { Duration::ZERO } else { session.keyed_at + REKEY_AFTER })
    }

    // Below: what comes from the relay.

    pub(crate) fn handle_packet<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, packet: Packet<'_>) {
        if !self.here {
            self.come_up(cx);
        }
        let initiator = matches!(self.side, Side::Initiator(_));
        match packet {
            Packet::Hello(hello) if !initiator => self.handle_hello(cx, hello),
            Packet::Welcome(welcome) if initiator => self.handle_welcome(cx, welcome),
            Packet::Confirm(confirm) if !initiator => self.handle_confirm(cx, confirm),
            Packet::Refused(refused) if initiator => self.handle_refused(cx, refused),
            Packet::Sealed { session, message } => self.handle_sealed(cx, session, message),
            Packet::Bundle(bundle) if initiator => self.handle_bundle(cx, bundle),
            Packet::UnknownSession(id) if initiator => {
                if self.session.as_ref().is_some_and(|session| session.uses(id)) {
                    self.want_hello(cx.now);
                    self.start_wanted_hello(cx);
                }
            }
            _ => *cx.dropped += 1,
        }
    }

    /// The relay could not deliver.
    pub(crate) fn on_undeliverable<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, tag: u32, reason: Undelivered) {
        match reason {
            Undelivered::QueueFull => {
                let Some(session) = &mut self.session else { return };
                session.send.resend_tag(tag);
                if self.hold.is_none() {
                    self.hold = Some(cx.now + self.hold_wait);
                    self.hold_wait = (self.hold_wait * 2).min(HOLD_LONGEST);
                }
            }
            // The relay will say when the peer is here; until then the path is tried now and then, in case its words crossed.
            Undelivered::Unreachable | Undelivered::NotNamed => self.go_down(cx, LinkDown::Away),
            _ => *cx.dropped += 1,
        }
    }

    fn handle_sealed<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, id: [u8; 16], message: &[u8]) {
        let seconds = self.seconds_up(cx.now);
        let Some(session) = self.session.as_mut().filter(|session| session.knows(id)) else {
            return self.handle_unknown_session(cx, id);
        };
        // Its ratchet turns by this clock too, which the timers alone may leave standing.
        session.expire(seconds);
        let had_next = session.has_next();
        match session.open(cx.now, id, message) {
            Ok(frame) => {
                if had_next && !session.has_next() {
                    // The other side waits for a sign that its keys are used.
                    session.receive.owe_now();
                }
                self.on_opened(cx);
                self.handle_frame(cx, frame);
            }
            // PROTOCOL 9: dropped. Its sender has not heard that it came.
            Err(OpenError::Repeated) => session.receive.owe(cx.now),
            Err(OpenError::CannotBeOpened) => {
                *cx.dropped += 1;
                session.failures += 1;
                if session.failures >= MAX_FAILURES {
                    session.failures = 0;
                    self.on_broken(cx);
                }
            }
        }
    }

    fn handle_frame<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, frame: Vec<u8>) {
        let Some(session) = &mut self.session else { return };
        let outcome = session.handle_frame(cx.now, frame, &mut self.calls, cx.events);
        if let Ok(Outcome { secret_stored: Some(session), .. }) = &outcome {
            self.on_peer_stored(cx, session);
        }
        match outcome {
            Ok(Outcome { goodbye: Some((Code::REMOVED, _)), .. }) if matches!(self.side, Side::Initiator(_)) => {
                // PROTOCOL 9: said in the session, so it is the peer's own word, as good as a signed refusal.
                self.on_refused(cx, RefusalReason::Revoked);
            }
            Ok(Outcome { goodbye: Some((code, reason)), .. }) => self.end(cx, code, &reason, true),
            Ok(Outcome { progress: true, .. }) => self.hold_wait = HOLD_FIRST,
            Ok(_) => {}
            Err(violation) => self.end(cx, Code::MALFORMED, violation.0, false),
        }
    }

    fn handle_unknown_session<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, id: [u8; 16]) {
        *cx.dropped += 1;
        match self.side {
            Side::Initiator(_) if self.session.is_none() => {
                if let Hello::Idle = self.hello {
                    self.want_hello(cx.now);
                    self.start_wanted_hello(cx);
                }
            }
            // The Confirm of a handshake that is under way may just be late.
            Side::Responder if self.pending.is_empty() && self.hints.take(cx.now) => {
                let packet = self.wrap(&Packet::UnknownSession(id));
                self.post(packet);
            }
            _ => {}
        }
    }

    /// The path is not up any more, and its time does not count.
    fn stop_clock(&mut self, now: Duration) {
        self.up_for += self.up_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
    }

    /// Of the seconds in which packets could arrive, in all, the number of this one, from 1: at 0 a ratchet takes it that nobody tells it the time.
    fn seconds_up(&self, now: Duration) -> u64 {
        (self.up_for + self.up_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))).as_secs() + 1
    }

    // Below: sessions begin and end.

    /// A handshake is done. `established.resumes` has been checked against the session that there is.
    fn begin<R: CryptoRng>(
        &mut self,
        cx: &mut Context<'_, S, R>,
        mut established: Established<S::Cipher, S::Secret>,
        numbering: Numbering,
    ) {
        // A new ratchet counts from the time that this link has been up, or it would soon take what it misses for old.
        let seconds = self.seconds_up(cx.now);
        established.cipher.expire(seconds);
        if let Some(session) = self.session.as_mut().filter(|_| established.resumes) {
            session.rekey(established);
            if numbering == Numbering::Initiator {
                self.show_next = Some((cx.now, REPEAT_FIRST));
                self.show_next(cx);
            }
            return;
        }
        if self.is_up() {
            cx.events.push_back(Event::LinkDown { peer: self.peer, why: LinkDown::Replaced });
        }
        self.drop_session(cx, Code::GOODBYE, "a new session has begun");
        let mut heard = Vec::new();
        self.calls.on_session(established.peer_life, &mut heard);
        cx.events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
        self.show_next = None;
        self.session = Some(Session::new(cx.now, established, numbering, self.last_own_channel));
        self.announced = false;
        self.began = cx.now;
        self.probe_from(cx.now, cx.now);
        self.probe(cx);
    }

    fn drop_session<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, code: Code, reason: &str) {
        let Some(session) = self.session.take() else { return };
        debug_assert!(session.channels.open_ids().count() <= 2 * MAX_CHANNELS);
        // PROTOCOL 9: a call that names a channel may reach the peer in the next session only, and means none of that.
        self.last_own_channel = session.channels.last_own();
        let peer = self.peer;
        let closed = |channel| Event::Closed { peer, channel, code, reason: reason.to_owned() };
        if !planted::is(Bug::LeavesChannelsOpen) {
            cx.events.extend(session.channels.open_ids().map(closed));
        }
        self.calls.on_session_end();
        self.stop_clock(cx.now);
        self.path = Path::Down;
        self.pinged = None;
        self.hold = None;
    }

    /// Ends the session. The initiator tries again, later and later if it happens again and again.
    pub(crate) fn end<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, code: Code, reason: &str, by_peer: bool) {
        self.say_goodbye(cx, code, reason, by_peer);
        if self.session.is_none() {
            return;
        }
        (self.confirm, self.show_next) = (None, None);
        self.drop_session(cx, code, reason);
        let why = LinkDown::Ended { by_peer, code, reason: reason.to_owned() };
        cx.events.push_back(Event::LinkDown { peer: self.peer, why });
        if matches!(self.side, Side::Initiator(_)) && !matches!(self.hello, Hello::Never) {
            let wait = if code == Code::GOODBYE {
                AFTER_GOODBYE
            } else {
                // A session that had worked for a while was no attempt.
                self.faults = if cx.now > self.began + AFTER_REFUSAL { 1 } else { self.faults.saturating_add(1) };
                HINTS.saturating_mul(1 << self.faults.min(5))
            };
            self.hello = Hello::Later(cx.now + wait);
        }
    }

    fn say_goodbye<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>, code: Code, reason: &str, by_peer: bool) {
        let Some(session) = self.session.as_mut().filter(|session| !by_peer && self.here && session.can_seal()) else {
            return;
        };
        if let Ok(packet) = session.make_goodbye(cx.rng, code, reason) {
            self.post(packet);
        }
    }

    /// The link is given up. What is left to be written is handed out.
    pub(crate) fn give_up<R: CryptoRng>(
        mut self,
        cx: &mut Context<'_, S, R>,
        code: Code,
        reason: &str,
    ) -> VecDeque<Vec<u8>> {
        self.end(cx, code, reason, false);
        self.lose_calls(cx);
        self.outbox
    }

    /// The session cannot go on, and only a handshake helps.
    fn on_broken<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let Some(session) = &self.session else { return };
        let id = session.id;
        match self.side {
            Side::Initiator(_) => {
                self.want_hello(cx.now);
                self.start_wanted_hello(cx);
            }
            Side::Responder if self.hints.take(cx.now) => {
                let packet = self.wrap(&Packet::UnknownSession(id));
                self.post(packet);
            }
            Side::Responder => {}
        }
    }

    // Below: time.

    pub(crate) fn timeout(&self) -> Option<Duration> {
        let mut next = self.calls.timeout();
        let mut at = |time: Option<Duration>| next = [next, time].into_iter().flatten().min();
        at(self.pending.iter().map(|pending| pending.until).min());
        if !self.here {
            return next;
        }
        match self.hello {
            Hello::Later(time) | Hello::Sent { again: time, .. } => at(Some(time)),
            Hello::Idle | Hello::Never => {}
        }
        let Some(session) = &self.session else { return next };
        at(session.retires_at());
        at(self.show_next.map(|(again, _)| again));
        at(self.wants_new_keys_at());
        at(self.hold);
        at(session.receive.timeout());
        at(session.send.pause_ends());
        match self.path {
            Path::Down => {}
            Path::Probing { again, .. } => at(Some(again)),
            Path::Up => {
                at(Some(self.pinged.map_or(self.heard + PING_AFTER, |pinged| pinged + PONG_GRACE)));
                at(session.send.timeout().filter(|_| self.hold.is_none()));
            }
        }
        next
    }

    pub(crate) fn handle_timeout<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        self.expire_pending(cx.now);
        let mut heard = Vec::new();
        self.calls.handle_timeout(cx.now, &mut heard);
        cx.events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
        if !self.here {
            return;
        }
        self.start_wanted_hello(cx);
        if let Hello::Sent { packet, again, wait, .. } = &mut self.hello
            && *again <= cx.now
        {
            *wait = (*wait * 2).min(REPEAT_LONGEST);
            *again = cx.now + *wait;
            let packet = packet.clone();
            if !planted::is(Bug::SaysHelloOnce) {
                self.post(packet);
            }
        }
        self.hold = self.hold.filter(|until| *until > cx.now || planted::is(Bug::HoldsForever));
        if self.show_next.is_some_and(|(again, _)| again <= cx.now) {
            self.show_next(cx);
        }
        if self.wants_new_keys_at().is_some_and(|at| at <= cx.now) {
            self.want_new_keys(cx);
        }
        let seconds = self.seconds_up(cx.now);
        if let Some(session) = &mut self.session {
            session.retire(cx.now);
            session.expire(seconds);
            session.receive.handle_timeout(cx.now);
            session.send.end_pause(cx.now);
        }
        match self.path {
            Path::Probing { again, .. } if again <= cx.now => self.probe(cx),
            Path::Up => self.check_life(cx),
            _ => {}
        }
    }

    fn check_life<R: CryptoRng>(&mut self, cx: &mut Context<'_, S, R>) {
        let Some(session) = &mut self.session else { return };
        match self.pinged {
            None if cx.now >= self.heard + PING_AFTER => {
                self.pinged = Some(cx.now);
                session.ping = Some(cx.now.as_millis() as u64);
            }
            Some(pinged) if cx.now >= pinged + PONG_GRACE => return self.go_down(cx, LinkDown::Silent),
            _ => {}
        }
        if self.hold.is_none() && session.send.timeout().is_some_and(|timeout| timeout <= cx.now) {
            session.send.handle_timeout(cx.now);
            if session.send.is_hopeless() {
                self.on_broken(cx);
            }
        }
    }

    // Below: sending.

    /// The next frame for the relay, made now.
    pub(crate) fn poll<R: CryptoRng>(
        &mut self,
        cx: &mut Context<'_, S, R>,
        turn: Turn,
        tag: &mut u32,
    ) -> Option<Vec<u8>> {
        if !self.here {
            return None;
        }
        if turn == Turn::Urgent
            && let Some(packet) = self.outbox.pop_front()
        {
            return Some(packet);
        }
        let up = self.is_up();
        let session = self.session.as_mut().filter(|session| self.hold.is_none() && session.can_seal())?;
        let made = match turn {
            Turn::Urgent if session.show_next => Ok(session.make_next_signal(cx.rng)),
            Turn::Urgent if session.has_signal() => session.make_signal(cx.now, cx.rng).map(Some),
            // Links take turns with this: a peer that acknowledges nothing must not keep others waiting.
            Turn::Data(Class::Control) if up && session.send.has_due() => session.take_due(cx.now, cx.rng),
            Turn::Data(class) if session.has_data(class, &self.calls) => {
                *tag = if *tag >= RAW_TAG - 1 { 1 } else { *tag + 1 };
                session.make_data(cx.now, cx.rng, *tag, class, &mut self.calls, cx.events)
            }
            Turn::Acknowledgement if session.receive.owes_now() => session.make_signal(cx.now, cx.rng).map(Some),
            _ => Ok(None),
        };
        made.unwrap_or_else(|_| {
            // The cipher is used up: nothing can be said in this session any more, and a new one is due at once.
            self.end(cx, Code::GOODBYE, "the keys of the session are used up", true);
            self.hello = Hello::Idle;
            self.want_hello(cx.now);
            self.start_wanted_hello(cx);
            None
        })
    }

    fn wrap(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        ToRelay::Send { to: self.peer, tag: 0, payload: &packet.to_vec() }.encode(&mut out);
        out
    }

    fn post(&mut self, packet: Vec<u8>) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(packet);
    }
}

fn session_shows_next<C: Cipher>(session: Option<&mut Session<C>>) {
    if let Some(session) = session.filter(|session| session.has_next()) {
        session.show_next = true;
    }
}
