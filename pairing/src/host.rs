//! The machine's side of a pairing: shows an invitation, proves who scanned it, has a person type the code.

use std::{collections::VecDeque, time::Duration};

use happy_crypto::{
    Bundle, DeviceId, Identity, OneTimePrekey, SignedPrekey,
    handshake::{HelloView, Refused, Responder, Shared},
};
use happy_wire::packet::{Gone, Packet, SESSION_ID};
use rand_core::CryptoRng;

use crate::{
    INVITATION_LIFETIME, Invitation, NextStatement, Origin, Role, Statement, TYPING_TIME,
    backoff::Backoff,
    clean_name,
    message::{Failure, Message},
    session::{MAX_GARBAGE, Opened, Outbox, PairedPeer, Session},
};

/// How long a proven device has to confirm: several repetitions, and a phone that changes its network.
const CONFIRMING_TIME: Duration = Duration::from_secs(30);
/// How long we wait for its statement. With the typing before it, it stays below the 180 s that a relay gives a guest.
const ADDING_TIME: Duration = Duration::from_secs(50);
/// How long we answer repetitions after the end.
const LINGERING_TIME: Duration = Duration::from_secs(20);
/// How long we repeat that it failed: nothing answers it.
const FAILING_TIME: Duration = Duration::from_secs(10);
/// Codes that may be typed (PROTOCOL 11).
const TRIES: u8 = 3;

/// What a host is made of.
pub struct HostConfig {
    /// This machine.
    pub identity: Identity,
    /// The prekey of its bundle.
    pub signed_prekey: SignedPrekey,
    /// Made for this invitation. It is dropped after the handshake.
    pub one_time_prekey: OneTimePrekey,
    /// Made for the bundle of these three.
    pub invitation: Invitation,
    /// The origins that stand in the links that are shown. A device that used another one is turned away.
    pub origins: Vec<Origin>,
    /// What the other device is told.
    pub machine_name: String,
    /// Where the other device will find this machine; at most eight count.
    pub relays: Vec<Origin>,
    /// Where this machine's next statement goes.
    pub next_statement: NextStatement,
    /// Devices that this machine has removed. Their keys cannot be paired again, so nobody has to type a code for them.
    pub removed: Vec<DeviceId>,
    /// The time of the wall clock at the start, seconds, for the statement.
    pub unix_now: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum HostEvent {
    /// A device has proved that it knows the invitation. From now on nobody else can use it.
    Proven {
        /// Which.
        device: DeviceId,
    },
    /// The device shows a code and waits: ask the person at this machine for it.
    CodeWanted {
        /// Which.
        device: DeviceId,
        /// What it calls itself. It may say anything.
        device_name: String,
    },
    /// A wrong code was typed.
    WrongCode {
        /// Tries that are left.
        left: u8,
    },
    /// Done: store the peer. Go on driving the host until [`Host::is_over`], or at least send what
    /// [`Host::poll_transmit`] holds, so that the other side learns of it.
    Paired(Box<PairedPeer>),
    /// It did not work out; the invitation is void.
    Ended(EndReason),
}

/// Why a pairing did not work out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// Nobody came, or nobody typed the code in time.
    Expired,
    /// [`Host::cancel`].
    Cancelled,
    /// Three wrong codes: somebody else may have scanned the invitation.
    WrongCode,
    /// The device came from another address than those in the link: somebody may have copied the page.
    WrongOrigin,
    /// Too many packets that prove nothing: somebody who knows the ticket, such as the relay, disturbs.
    Garbage,
    /// The device proved to know the invitation and then broke the protocol.
    BadPeer,
    /// The device went away after the code was typed. It is not stored.
    NoAnswer,
    /// The device was removed from this machine for good; it needs new keys.
    RemovedDevice,
    /// [`Host::abort`].
    NotStored,
}

/// What a typed code was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeAnswer {
    /// The right one.
    Right,
    /// Not the right one. What is no six digits costs no try.
    Wrong {
        /// Tries that are left.
        left: u8,
    },
    /// No device waits for a code.
    NotYet,
    /// There is nothing to type any more.
    Ended,
}

/// One live invitation. See the [crate] for the course of events and the calling contract.
pub struct Host {
    identity: Identity,
    signed_prekey: SignedPrekey,
    one_time_prekey: Option<OneTimePrekey>,
    bundle: Bundle,
    invitation: Invitation,
    origins: Vec<Origin>,
    machine_name: String,
    relays: Vec<Origin>,
    next_statement: NextStatement,
    removed: Vec<DeviceId>,
    /// Wall clock minus `now`, seconds.
    unix_at_zero: u64,
    garbage: u32,
    state: State,
    outbox: Outbox,
    events: VecDeque<HostEvent>,
}

enum State {
    /// Anyone with the secret may come.
    Open {
        until: Duration,
    },
    /// One came. INVARIANT: from here on the invitation never opens again.
    Proven {
        guest: DeviceId,
        hello: Vec<u8>,
        welcome: Vec<u8>,
        responder: Box<Responder>,
        until: Duration,
    },
    /// Confirm came, Greeting has not.
    Confirmed {
        session: Box<Session>,
        until: Duration,
    },
    /// A person reads the code there and types it here.
    Typing {
        session: Box<Session>,
        offer: Vec<u8>,
        device_name: String,
        left: u8,
        until: Duration,
    },
    /// The code was right; we wait for the other statement.
    Adding {
        session: Box<Session>,
        added: Vec<u8>,
        repeat: Backoff,
        name: String,
        mine: Box<Statement>,
        until: Duration,
    },
    /// Both statements are here. Done is repeated when it is asked for.
    Paired {
        session: Box<Session>,
        done: Vec<u8>,
        until: Duration,
    },
    /// It failed; we say so for a while.
    Failing {
        guest: DeviceId,
        failed: Vec<u8>,
        repeat: Backoff,
        until: Duration,
        gone: Gone,
    },
    Over {
        gone: Gone,
    },
}

impl Host {
    /// Opens the invitation at `now`, for 120 s.
    ///
    /// # Panics
    /// When the invitation was made for another bundle.
    #[must_use]
    pub fn new(config: HostConfig, now: Duration) -> Self {
        let bundle = Bundle::new(&config.identity, &config.signed_prekey, Some(&config.one_time_prekey));
        assert!(bundle.hash() == config.invitation.bundle_hash(), "the invitation was made for another bundle");
        Self {
            identity: config.identity,
            signed_prekey: config.signed_prekey,
            one_time_prekey: Some(config.one_time_prekey),
            bundle,
            invitation: config.invitation,
            origins: config.origins,
            machine_name: clean_name(&config.machine_name),
            relays: config.relays,
            next_statement: config.next_statement,
            removed: config.removed,
            unix_at_zero: config.unix_now.saturating_sub(now.as_secs()),
            garbage: 0,
            state: State::Open { until: now + INVITATION_LIFETIME },
            outbox: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    /// Takes a packet of a guest.
    pub fn handle_packet(&mut self, rng: &mut impl CryptoRng, now: Duration, from: DeviceId, packet: &[u8]) {
        self.handle_timeout(rng, now);
        match Packet::decode(packet) {
            Ok(Packet::BundleRequest) => self.on_bundle_request(from),
            Ok(Packet::Hello(hello)) => self.on_hello(rng, now, from, hello),
            Ok(Packet::Confirm(confirm)) => self.on_confirm(rng, now, from, confirm),
            Ok(Packet::Sealed { session, message }) => self.on_sealed(rng, now, from, &session, message),
            _ => self.on_garbage(rng, now),
        }
    }

    /// To be called when [`Host::poll_timeout`] is reached.
    pub fn handle_timeout(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        match &mut self.state {
            State::Adding { session, added, repeat, until, .. } if now < *until => {
                if repeat.is_due(now) {
                    self.outbox.push(session.peer().device_id(), added.clone());
                }
            }
            State::Failing { guest, failed, repeat, until, .. } if now < *until => {
                if repeat.is_due(now) {
                    self.outbox.push(*guest, failed.clone());
                }
            }
            state if state.until().is_none_or(|until| now < until) => {}
            State::Paired { .. } => self.state = State::Over { gone: Gone::Used },
            State::Failing { gone, .. } => self.state = State::Over { gone: *gone },
            State::Adding { .. } => self.end(rng, now, EndReason::NoAnswer),
            _ => self.end(rng, now, EndReason::Expired),
        }
    }

    /// Takes what a person typed. `device_name` is what that person calls the device, if it is not what it calls itself.
    pub fn type_code(
        &mut self,
        rng: &mut impl CryptoRng,
        now: Duration,
        typed: &str,
        device_name: Option<&str>,
    ) -> CodeAnswer {
        self.handle_timeout(rng, now);
        let State::Typing { session, left, .. } = &mut self.state else {
            let is_early = matches!(self.state, State::Open { .. } | State::Proven { .. } | State::Confirmed { .. });
            return if is_early { CodeAnswer::NotYet } else { CodeAnswer::Ended };
        };
        match parse_code(typed) {
            None => CodeAnswer::Wrong { left: *left },
            Some(code) if code == session.code() => {
                self.on_right_code(rng, now, device_name);
                CodeAnswer::Right
            }
            Some(_) => {
                *left -= 1;
                let left = *left;
                self.events.push_back(HostEvent::WrongCode { left });
                if left == 0 {
                    self.end(rng, now, EndReason::WrongCode);
                }
                CodeAnswer::Wrong { left }
            }
        }
    }

    /// Takes the invitation back, unless the pairing is done.
    pub fn cancel(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        if !matches!(self.state, State::Paired { .. } | State::Failing { .. } | State::Over { .. }) {
            self.end(rng, now, EndReason::Cancelled);
        }
    }

    /// To be called before anything is sent when what [`HostEvent::Paired`] holds could not be stored: the other side never hears
    /// Done, but that the pairing failed.
    pub fn abort(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        if matches!(self.state, State::Paired { .. }) {
            self.outbox = Outbox::default();
            self.end(rng, now, EndReason::NotStored);
        }
    }

    /// To be called when this machine has made another statement in the meantime.
    pub fn set_next_statement(&mut self, next: NextStatement) {
        self.next_statement = next;
    }

    /// The next packet to send, and to whom.
    pub fn poll_transmit(&mut self) -> Option<(DeviceId, Vec<u8>)> {
        self.outbox.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    /// When [`Host::handle_timeout`] wants to be called, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let repeat = match &self.state {
            State::Adding { repeat, .. } | State::Failing { repeat, .. } => Some(repeat.at()),
            _ => None,
        };
        self.state.until().map(|until| repeat.map_or(until, |at| at.min(until)))
    }

    /// Whether nothing will happen any more. A host that is kept longer tells late comers that the invitation is gone.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over { .. })
    }

    /// The invitation that is shown.
    #[must_use]
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    fn on_bundle_request(&mut self, from: DeviceId) {
        if self.state.guest() == Some(from) {
            // An old copy that the network brought late. "Used" would be true, and would end the pairing of the one who used it.
            return;
        }
        match self.state.gone() {
            None => self.outbox.push(from, Packet::Bundle(self.bundle.as_bytes()).to_vec()),
            Some(gone) => self.outbox.push(from, Packet::InvitationGone(gone).to_vec()),
        }
    }

    fn on_hello(&mut self, rng: &mut impl CryptoRng, now: Duration, from: DeviceId, bytes: &[u8]) {
        match &self.state {
            State::Open { .. } => {}
            State::Proven { guest, hello, welcome, .. } if *guest == from && hello == bytes => {
                return self.outbox.push(from, welcome.clone());
            }
            // An old copy that the network brought late.
            state if state.guest() == Some(from) => return,
            state => {
                let gone = state.gone().unwrap_or(Gone::Used);
                return self.outbox.push(from, Packet::InvitationGone(gone).to_vec());
            }
        }
        let Some((responder, welcome, origin_fits)) = self.prove(rng, from, bytes) else {
            return self.on_garbage(rng, now);
        };
        if self.removed.contains(&from) {
            return self.refuse_removed(now, from, bytes);
        }
        // PROTOCOL 11: the first Hello whose mac_1 holds burns the invitation, whatever its outcome.
        let welcome = Packet::Welcome(&welcome).to_vec();
        let until = now + CONFIRMING_TIME;
        let (hello, responder) = (bytes.to_vec(), Box::new(responder));
        self.state = State::Proven { guest: from, hello, welcome: welcome.clone(), responder, until };
        self.events.push_back(HostEvent::Proven { device: from });
        if origin_fits {
            self.outbox.push(from, welcome);
        } else {
            self.end(rng, now, EndReason::WrongOrigin);
        }
    }

    /// PROTOCOL 11: Remove is final for a key, so the device is told at once, signed, and the invitation is burnt.
    fn refuse_removed(&mut self, now: Duration, guest: DeviceId, hello: &[u8]) {
        let failed = Packet::Refused(&Refused::sign(&self.identity, Refused::REVOKED, hello)).to_vec();
        self.one_time_prekey = None;
        self.events.push_back(HostEvent::Ended(EndReason::RemovedDevice));
        self.outbox.push(guest, failed.clone());
        let (repeat, until) = (Backoff::new(now), now + FAILING_TIME);
        self.state = State::Failing { guest, failed, repeat, until, gone: Gone::Used };
    }

    /// The responder, its Welcome, and whether the device came from an origin that stands in a link. `None` if the Hello proves nothing.
    fn prove(&self, rng: &mut impl CryptoRng, from: DeviceId, hello: &[u8]) -> Option<(Responder, Vec<u8>, bool)> {
        let view = HelloView::parse(hello).ok()?;
        // The relay writes `from`; it must be who the Hello says, or the answer would go to somebody else.
        if view.initiator().device_id() != from {
            return None;
        }
        let mut life = [0; 16];
        rng.fill_bytes(&mut life);
        let (signed, one_time) = (&self.signed_prekey, self.one_time_prekey.as_ref());
        let key = self.invitation.key();
        let answer =
            Responder::answer(rng, &self.identity, signed, one_time, hello, (life, 0), Shared::Invitation(&key));
        let (responder, welcome) = answer.ok()?;
        let origin_fits = self.origins.iter().any(|origin| origin.as_str().as_bytes() == view.context());
        Some((responder, welcome, origin_fits))
    }

    fn on_confirm(&mut self, rng: &mut impl CryptoRng, now: Duration, from: DeviceId, confirm: &[u8]) {
        let established = match &self.state {
            State::Proven { guest, responder, .. } if *guest == from => responder.confirm(confirm).ok(),
            // A repetition.
            state if state.guest() == Some(from) => return,
            _ => None,
        };
        let Some(established) = established else { return self.on_garbage(rng, now) };
        // PROTOCOL 3: a one-time prekey is deleted after the handshake that used it succeeded.
        self.one_time_prekey = None;
        let until = self.state.until().unwrap_or(now);
        self.state = State::Confirmed { session: Box::new(Session::new(established)), until };
    }

    fn on_sealed(
        &mut self,
        rng: &mut impl CryptoRng,
        now: Duration,
        from: DeviceId,
        session_id: &[u8; SESSION_ID],
        message: &[u8],
    ) {
        let guest = self.state.guest();
        let Some(session) = self.state.session_mut().filter(|session| session.peer().device_id() == from) else {
            // Of the proven device it came before Confirm, or after the end; it will be repeated, or does not matter.
            return if guest == Some(from) { self.repeat_answer() } else { self.on_garbage(rng, now) };
        };
        match session.open(session_id, message) {
            Opened::Message(message) => self.on_message(rng, now, message),
            Opened::Repeated => self.repeat_answer(),
            Opened::Malformed => self.end(rng, now, EndReason::BadPeer),
            Opened::Garbage => self.on_garbage(rng, now),
        }
    }

    fn on_message(&mut self, rng: &mut impl CryptoRng, now: Duration, message: Message) {
        match (&self.state, message) {
            (State::Confirmed { .. }, Message::Greeting { device_name }) => self.on_greeting(rng, now, device_name),
            (State::Adding { .. }, Message::Accepted { statement }) => self.on_accepted(rng, now, &statement),
            // Done is the last word; what comes after it is not worth a failure.
            (State::Paired { .. }, _) => {}
            _ => self.end(rng, now, EndReason::BadPeer),
        }
    }

    fn on_greeting(&mut self, rng: &mut impl CryptoRng, now: Duration, device_name: String) {
        let offer = Message::Offer { role: self.invitation.role(), machine_name: self.machine_name.clone() };
        let State::Confirmed { mut session, until } = self.state.take() else { return };
        let device = session.peer().device_id();
        let Some(offer) = session.seal(rng, &offer) else {
            self.state = State::Confirmed { session, until };
            return;
        };
        self.outbox.push(device, offer.clone());
        self.events.push_back(HostEvent::CodeWanted { device, device_name: device_name.clone() });
        self.state = State::Typing { session, offer, device_name, left: TRIES, until: now + TYPING_TIME };
    }

    fn on_right_code(&mut self, rng: &mut impl CryptoRng, now: Duration, chosen_name: Option<&str>) {
        let State::Typing { mut session, device_name, .. } = self.state.take() else { return };
        let name = chosen_name.map(clean_name).filter(|name| !name.is_empty()).unwrap_or(device_name);
        let change = session.add_peer(self.invitation.role(), name.clone());
        let unix = self.unix_at_zero.saturating_add(now.as_secs());
        let mine = Box::new(Statement::sign(&self.identity, &self.next_statement, unix, change));
        let added = Message::Added {
            device_name: name.clone(),
            statement: mine.as_bytes().to_vec(),
            bundle: self.bundle.without_one_time().as_bytes().to_vec(),
            relays: self.relays.clone(),
        };
        let Some(added) = session.seal(rng, &added) else {
            return self.end(rng, now, EndReason::NoAnswer);
        };
        self.outbox.push(session.peer().device_id(), added.clone());
        self.state = State::Adding { session, added, repeat: Backoff::new(now), name, mine, until: now + ADDING_TIME };
    }

    fn on_accepted(&mut self, rng: &mut impl CryptoRng, now: Duration, statement: &[u8]) {
        let State::Adding { session, .. } = &self.state else { return };
        let me = self.identity.record();
        let Some(theirs) = session.verify_statement(statement, me, Role::Machine) else {
            return self.end(rng, now, EndReason::BadPeer);
        };
        let State::Adding { mut session, name, mine, .. } = self.state.take() else { return };
        let Some(done) = session.seal(rng, &Message::Done) else {
            return self.end(rng, now, EndReason::NoAnswer);
        };
        self.outbox.push(session.peer().device_id(), done.clone());
        self.events.push_back(HostEvent::Paired(Box::new(PairedPeer {
            identity: session.peer().clone(),
            name,
            role: self.invitation.role(),
            my_role: Role::Machine,
            bundle: None,
            relays: Vec::new(),
            secret: session.pair_secret().clone(),
            theirs,
            mine: *mine,
        })));
        self.state = State::Paired { session, done, until: now + LINGERING_TIME };
    }

    /// PROTOCOL 11: a repeated Greeting is answered with the same Offer, a repeated Accepted with the same Done. Nothing else is, or
    /// two sides that repeat themselves to each other would never stop.
    fn repeat_answer(&mut self) {
        let (to, answer) = match &self.state {
            State::Typing { session, offer, .. } => (session.peer().device_id(), offer),
            State::Paired { session, done, .. } => (session.peer().device_id(), done),
            State::Failing { guest, failed, .. } => (*guest, failed),
            _ => return,
        };
        self.outbox.push(to, answer.clone());
    }

    fn on_garbage(&mut self, rng: &mut impl CryptoRng, now: Duration) {
        self.garbage = self.garbage.saturating_add(1);
        let is_running = !matches!(self.state, State::Paired { .. } | State::Failing { .. } | State::Over { .. });
        if self.garbage > MAX_GARBAGE && is_running {
            self.end(rng, now, EndReason::Garbage);
        }
    }

    fn end(&mut self, rng: &mut impl CryptoRng, now: Duration, reason: EndReason) {
        let (gone, failure) = match reason {
            EndReason::Expired | EndReason::NoAnswer => (Gone::Expired, Failure::Expired),
            EndReason::WrongCode => (Gone::Used, Failure::WrongCode),
            _ => (Gone::Cancelled, Failure::Cancelled),
        };
        self.one_time_prekey = None;
        self.events.push_back(HostEvent::Ended(reason));
        let guest = self.state.guest();
        let failed = self.state.session_mut().and_then(|session| session.seal(rng, &Message::Failed(failure)));
        // Before the first message of a session we cannot seal; then an unsigned hint is all there is.
        let failed = failed.unwrap_or_else(|| Packet::InvitationGone(gone).to_vec());
        self.state = match guest {
            Some(guest) => {
                self.outbox.push(guest, failed.clone());
                State::Failing { guest, failed, repeat: Backoff::new(now), until: now + FAILING_TIME, gone }
            }
            None => State::Over { gone },
        };
    }
}

impl State {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Over { gone: Gone::Used })
    }

    fn until(&self) -> Option<Duration> {
        match self {
            Self::Open { until }
            | Self::Proven { until, .. }
            | Self::Confirmed { until, .. }
            | Self::Typing { until, .. }
            | Self::Adding { until, .. }
            | Self::Paired { until, .. }
            | Self::Failing { until, .. } => Some(*until),
            Self::Over { .. } => None,
        }
    }

    /// The device that has burnt the invitation.
    fn guest(&self) -> Option<DeviceId> {
        match self {
            Self::Open { .. } | Self::Over { .. } => None,
            Self::Proven { guest, .. } | Self::Failing { guest, .. } => Some(*guest),
            Self::Confirmed { session, .. }
            | Self::Typing { session, .. }
            | Self::Adding { session, .. }
            | Self::Paired { session, .. } => Some(session.peer().device_id()),
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::Confirmed { session, .. }
            | Self::Typing { session, .. }
            | Self::Adding { session, .. }
            | Self::Paired { session, .. } => Some(session),
            Self::Open { .. } | Self::Proven { .. } | Self::Failing { .. } | Self::Over { .. } => None,
        }
    }

    /// What late comers are told.
    fn gone(&self) -> Option<Gone> {
        match self {
            Self::Open { .. } => None,
            Self::Failing { gone, .. } | Self::Over { gone } => Some(*gone),
            _ => Some(Gone::Used),
        }
    }
}

/// Six digits, however they are grouped.
fn parse_code(typed: &str) -> Option<u32> {
    let digits: Vec<u8> = typed.bytes().filter(|byte| !matches!(byte, b' ' | b'-' | b'\t' | b'\r' | b'\n')).collect();
    let is_code = digits.len() == 6 && digits.iter().all(u8::is_ascii_digit);
    is_code.then(|| digits.iter().fold(0, |code, digit| code * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        assert_eq!(parse_code("123 456"), Some(123_456));
        assert_eq!(parse_code(" 000-001\n"), Some(1));
        for typed in ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "+12345"] {
            assert_eq!(parse_code(typed), None, "{typed}");
        }
    }
}
