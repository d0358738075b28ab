//! The side that scanned or was given a link: a phone, or a machine that joins another.

use std::{collections::VecDeque, time::Duration};

use happy_crypto::{
    Bundle, DeviceId, Identity,
    handshake::{Initiator, Refused, Shared},
};
use happy_wire::packet::{Gone, Packet};
use rand_core::CryptoRng;

use crate::{
    Invitation, NextStatement, Origin, Role, Statement, TYPING_TIME,
    backoff::Backoff,
    clean_name,
    message::{Failure, Message},
    session::{MAX_GARBAGE, Opened, Outbox, PairedPeer, Session},
};

/// How long we wait for an answer of the machine, or for the relay to say who it is.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long the code is shown: the machine decides when it is too late, and says so.
const SHOWING_TIME: Duration = Duration::from_secs(TYPING_TIME.as_secs() + 15);
/// How long we wait for Done. Both statements are here by then, so the pairing counts without it (PROTOCOL 11).
const ACCEPTING_TIME: Duration = Duration::from_secs(20);
/// InvitationGone is not authenticated, and may be the answer to an old copy of our own request: a genuine Welcome within this
/// time overrules it.
const GONE_GRACE: Duration = Duration::from_secs(2);

/// What a joiner is made of.
pub struct JoinerConfig {
    /// This device.
    pub identity: Identity,
    /// What was scanned.
    pub invitation: Invitation,
    /// The origin that stood in the link.
    pub origin: Origin,
    /// What this device calls itself.
    pub my_name: String,
    /// Where its next statement goes.
    pub next_statement: NextStatement,
    /// The time of the wall clock at the start, seconds, for the statement.
    pub unix_now: u64,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum JoinerEvent {
    /// Show this code; a person types it at the machine. See [`format_code`](crate::format_code).
    ShowCode {
        /// Six digits.
        code: u32,
        /// What the machine calls itself. It may say anything.
        machine_name: String,
        /// What this device will be allowed to do there.
        role: Role,
    },
    /// Done: store the peer.
    Paired(Box<PairedPeer>),
    /// It did not work out.
    Failed(JoinFailure),
}

/// Why a pairing did not work out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinFailure {
    /// The invitation was used by another device, or its time is over, or it was taken back.
    #[error("the invitation cannot be used any more ({})", gone_word(*.0))]
    Gone(Gone),
    /// What came is not the bundle that the invitation names: somebody between here and the machine exchanged it.
    #[error("the machine that answered is not the one that made the invitation; do not go on over this relay")]
    WrongBundle,
    /// The machine does not answer.
    #[error("the machine does not answer; check that it is on, and ask it for a new invitation")]
    NoAnswer,
    /// Three wrong codes were typed at the machine.
    #[error("a wrong code was typed three times; ask the machine for a new invitation")]
    WrongCode,
    /// Nobody typed the code in time.
    #[error("nobody typed the code in time; ask the machine for a new invitation")]
    Expired,
    /// The machine ended it.
    #[error("the machine took the invitation back")]
    Cancelled,
    /// The invitation was made by this very device.
    #[error("this invitation was made by this very device; use it on another one")]
    OwnInvitation,
    /// The machine has removed this device, and Remove is final for its keys. Signed by the machine.
    #[error(
        "that machine has removed this device for good; let this device forget its keys, then pair it as a new one"
    )]
    Removed,
    /// The machine broke the protocol.
    #[error("the machine broke the protocol; upgrade the older side")]
    BadHost,
    /// Too many packets that prove nothing: the relay disturbs.
    #[error("too many packets that prove nothing arrived; the relay or somebody on it disturbs the pairing")]
    Garbage,
}

fn gone_word(gone: Gone) -> &'static str {
    match gone {
        Gone::Used => "another device has used it",
        Gone::Expired => "its time is over",
        Gone::Cancelled => "the machine took it back",
    }
}

/// One attempt to pair. See the [crate] for the course of events and the calling contract.
pub struct Joiner {
    identity: Identity,
    invitation: Invitation,
    origin: Origin,
    my_name: String,
    next_statement: NextStatement,
    /// Wall clock minus `now`, seconds.
    unix_at_zero: u64,
    host: Option<DeviceId>,
    garbage: u32,
    saw_wrong_bundle: bool,
    state: State,
    outbox: Outbox,
    events: VecDeque<JoinerEvent>,
}

enum State {
    /// The relay has not said who the host is.
    Connecting {
        until: Duration,
    },
    /// BundleRequest is sent.
    Asking {
        repeat: Backoff,
        until: Duration,
    },
    /// Hello is sent.
    Greeting {
        initiator: Box<Initiator>,
        hello: Vec<u8>,
        repeat: Backoff,
        until: Duration,
        gone: Option<Gone>,
    },
    /// Confirm and Greeting are sent.
    Confirming {
        session: Box<Session>,
        packets: [Vec<u8>; 2],
        repeat: Backoff,
        until: Duration,
    },
    /// The code is shown.
    Showing {
        session: Box<Session>,
        machine_name: String,
        until: Duration,
    },
    /// Accepted is sent.
    Accepting {
        session: Box<Session>,
        accepted: Vec<u8>,
        repeat: Backoff,
        peer: Box<PairedPeer>,
        until: Duration,
    },
    Over,
}

impl Joiner {
    /// Begins. Connect to the relay of the origin with the [ticket](Invitation::ticket), then call [`Joiner::host_known`].
    #[must_use]
    pub fn new(config: JoinerConfig, now: Duration) -> Self {
        Self {
            identity: config.identity,
            invitation: config.invitation,
            origin: config.origin,
            my_name: clean_name(&config.my_name),
            next_statement: config.next_statement,
            unix_at_zero: config.unix_now.saturating_sub(now.as_secs()),
            host: None,
            garbage: 0,
            saw_wrong_bundle: false,
            state: State::Connecting { until: now + ANSWER_TIME },
            outbox: Outbox::default(),
            events: VecDeque::new(),
        }
    }

    /// The relay has said who holds the rendezvous. To be called again after each new connection: what was sent last is
    /// sent again at once.
    pub fn host_known(&mut self, now: Duration, host: DeviceId) {
        self.handle_timeout(now);
        if self.host.is_some_and(|known| known != host) && !matches!(self.state, State::Over) {
            return self.fail(JoinFailure::BadHost);
        }
        self.host = Some(host);
        if let State::Connecting { .. } = self.state {
            self.state = State::Asking { repeat: Backoff::new(now), until: now + ANSWER_TIME };
        }
        self.repeat();
    }

    /// Takes a packet.
    pub fn handle_packet(&mut self, rng: &mut impl CryptoRng, now: Duration, from: DeviceId, packet: &[u8]) {
        self.handle_timeout(now);
        if self.host != Some(from) {
            return self.on_garbage();
        }
        match Packet::decode(packet) {
            Ok(Packet::Bundle(bundle)) => self.on_bundle(rng, now, bundle),
            Ok(Packet::Welcome(welcome)) => self.on_welcome(rng, now, welcome),
            Ok(Packet::InvitationGone(gone)) => self.on_gone(now, gone),
            Ok(Packet::Refused(refused)) => self.on_refused(from, refused),
            Ok(Packet::Sealed { session, message }) => match self.state.session_mut() {
                // An old copy after the end.
                None => {}
                Some(open) => match open.open(&session, message) {
                    Opened::Message(message) => self.on_message(rng, now, message),
                    Opened::Repeated => self.repeat_answer(),
                    Opened::Malformed => self.fail(JoinFailure::BadHost),
                    Opened::Garbage => self.on_garbage(),
                },
            },
            _ => self.on_garbage(),
        }
    }

    /// To be called when [`Joiner::poll_timeout`] is reached.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.state.until().is_some_and(|until| now >= until) {
            return self.on_too_late();
        }
        if self.state.repeat_mut().is_some_and(|repeat| repeat.is_due(now)) {
            self.repeat();
        }
    }

    /// To be called when this device has made another statement in the meantime.
    pub fn set_next_statement(&mut self, next: NextStatement) {
        self.next_statement = next;
    }

    /// The next packet to send, and to whom: always the host.
    pub fn poll_transmit(&mut self) -> Option<(DeviceId, Vec<u8>)> {
        self.outbox.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<JoinerEvent> {
        self.events.pop_front()
    }

    /// When [`Joiner::handle_timeout`] wants to be called, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let until = self.state.until()?;
        Some(self.state.repeat().map_or(until, |repeat| repeat.at().min(until)))
    }

    /// Whether nothing will happen any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// The invitation that was scanned.
    #[must_use]
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    fn on_bundle(&mut self, rng: &mut impl CryptoRng, now: Duration, bytes: &[u8]) {
        // A second copy is not worth a word.
        if !matches!(self.state, State::Asking { .. }) {
            return;
        }
        // PROTOCOL 3: the invitation's hash is what makes it genuine. Nothing has been sent so far that depends on it.
        let bundle = Bundle::decode(bytes).ok().filter(|bundle| {
            bundle.hash() == self.invitation.bundle_hash() && Some(bundle.identity().device_id()) == self.host
        });
        let Some(bundle) = bundle else {
            self.saw_wrong_bundle = true;
            return self.on_garbage();
        };
        if bundle.identity().device_id() == self.identity.device_id() {
            return self.fail(JoinFailure::OwnInvitation);
        }
        let mut life = [0; 16];
        rng.fill_bytes(&mut life);
        let (context, key) = (self.origin.as_str().as_bytes(), self.invitation.key());
        match Initiator::start(rng, &self.identity, &bundle, Shared::Invitation(&key), life, context) {
            Ok((initiator, hello)) => {
                let (initiator, hello) = (Box::new(initiator), Packet::Hello(&hello).to_vec());
                let (repeat, until) = (Backoff::new(now), now + ANSWER_TIME);
                self.state = State::Greeting { initiator, hello, repeat, until, gone: None };
                self.repeat();
            }
            Err(_) => self.fail(JoinFailure::BadHost),
        }
    }

    fn on_welcome(&mut self, rng: &mut impl CryptoRng, now: Duration, welcome: &[u8]) {
        let State::Greeting { initiator, .. } = &self.state else { return };
        let Ok((established, confirm)) = initiator.welcome(rng, welcome) else { return self.on_garbage() };
        let mut session = Box::new(Session::new(established));
        let Some(greeting) = session.seal(rng, &Message::Greeting { device_name: self.my_name.clone() }) else {
            return self.fail(JoinFailure::BadHost);
        };
        let packets = [Packet::Confirm(&confirm).to_vec(), greeting];
        self.state = State::Confirming { session, packets, repeat: Backoff::new(now), until: now + ANSWER_TIME };
        self.repeat();
    }

    fn on_gone(&mut self, now: Duration, reason: Gone) {
        match &mut self.state {
            State::Asking { .. } => self.fail(JoinFailure::Gone(reason)),
            State::Greeting { gone, until, .. } if gone.is_none() => {
                *gone = Some(reason);
                *until = (*until).min(now + GONE_GRACE);
            }
            // A confirmed session is told by a sealed message.
            _ => {}
        }
    }

    /// PROTOCOL 5: only a refusal of this very Hello, signed by the machine, counts.
    fn on_refused(&mut self, host: DeviceId, refused: &[u8]) {
        let State::Greeting { initiator, .. } = &self.state else { return self.on_garbage() };
        match Refused::verify(&host, &initiator.hello_hash(), refused) {
            Ok(Refused::REVOKED) => self.fail(JoinFailure::Removed),
            // A reason of a later version; the timer ends it.
            Ok(_) => {}
            Err(_) => self.on_garbage(),
        }
    }

    fn on_message(&mut self, rng: &mut impl CryptoRng, now: Duration, message: Message) {
        match (&self.state, message) {
            (_, Message::Failed(failure)) => self.fail(match failure {
                Failure::WrongCode => JoinFailure::WrongCode,
                Failure::Expired => JoinFailure::Expired,
                Failure::Cancelled => JoinFailure::Cancelled,
            }),
            (State::Confirming { .. }, Message::Offer { role, machine_name }) => self.on_offer(now, role, machine_name),
            (State::Showing { .. }, Message::Added { device_name: _, statement, bundle, relays }) => {
                self.on_added(rng, now, &statement, &bundle, relays);
            }
            (State::Accepting { .. }, Message::Done) => self.finish(),
            _ => self.fail(JoinFailure::BadHost),
        }
    }

    fn on_offer(&mut self, now: Duration, role: Role, machine_name: String) {
        if role != self.invitation.role() {
            return self.fail(JoinFailure::BadHost);
        }
        let State::Confirming { session, .. } = self.state.take() else { return };
        let code = session.code();
        self.events.push_back(JoinerEvent::ShowCode { code, machine_name: machine_name.clone(), role });
        self.state = State::Showing { session, machine_name, until: now + SHOWING_TIME };
    }

    fn on_added(
        &mut self,
        rng: &mut impl CryptoRng,
        now: Duration,
        statement: &[u8],
        bundle: &[u8],
        relays: Vec<Origin>,
    ) {
        let State::Showing { session, machine_name, .. } = &mut self.state else { return };
        let my_role = self.invitation.role();
        let theirs = session.verify_statement(statement, self.identity.record(), my_role);
        let bundle = Bundle::decode(bundle).ok().filter(|bundle| bundle.identity() == session.peer());
        let (Some(theirs), Some(bundle)) = (theirs, bundle) else { return self.fail(JoinFailure::BadHost) };

        let change = session.add_peer(Role::Machine, machine_name.clone());
        let unix = self.unix_at_zero.saturating_add(now.as_secs());
        let mine = Statement::sign(&self.identity, &self.next_statement, unix, change);
        let Some(accepted) = session.seal(rng, &Message::Accepted { statement: mine.as_bytes().to_vec() }) else {
            return self.fail(JoinFailure::BadHost);
        };
        let State::Showing { session, machine_name, .. } = self.state.take() else { return };
        let peer = Box::new(PairedPeer {
            identity: session.peer().clone(),
            name: machine_name,
            role: Role::Machine,
            my_role,
            bundle: Some(bundle.without_one_time()),
            relays,
            secret: session.pair_secret().clone(),
            theirs,
            mine,
        });
        self.state =
            State::Accepting { session, accepted, repeat: Backoff::new(now), peer, until: now + ACCEPTING_TIME };
        self.repeat();
    }

    fn finish(&mut self) {
        if let State::Accepting { peer, .. } = self.state.take() {
            self.events.push_back(JoinerEvent::Paired(peer));
        }
    }

    fn on_too_late(&mut self) {
        match &self.state {
            // PROTOCOL 11: both statements are here; only the word that the machine has stored ours is missing.
            State::Accepting { .. } => self.finish(),
            State::Showing { .. } => self.fail(JoinFailure::Expired),
            State::Greeting { gone: Some(gone), .. } => self.fail(JoinFailure::Gone(*gone)),
            State::Asking { .. } if self.saw_wrong_bundle => self.fail(JoinFailure::WrongBundle),
            _ => self.fail(JoinFailure::NoAnswer),
        }
    }

    /// Sends what was sent last.
    fn repeat(&mut self) {
        let Some(host) = self.host else { return };
        match &self.state {
            State::Asking { .. } => self.outbox.push(host, Packet::BundleRequest.to_vec()),
            State::Greeting { hello, .. } => self.outbox.push(host, hello.clone()),
            State::Confirming { packets, .. } => {
                for packet in packets {
                    self.outbox.push(host, packet.clone());
                }
            }
            State::Accepting { accepted, .. } => self.outbox.push(host, accepted.clone()),
            State::Connecting { .. } | State::Showing { .. } | State::Over => {}
        }
    }

    /// PROTOCOL 11: a repeated Added is answered with the same Accepted; no other repetition is answered.
    fn repeat_answer(&mut self) {
        if matches!(self.state, State::Accepting { .. }) {
            self.repeat();
        }
    }

    fn on_garbage(&mut self) {
        self.garbage = self.garbage.saturating_add(1);
        if self.garbage > MAX_GARBAGE {
            let failure = if self.saw_wrong_bundle { JoinFailure::WrongBundle } else { JoinFailure::Garbage };
            self.fail(failure);
        }
    }

    fn fail(&mut self, failure: JoinFailure) {
        // Once both statements are here no garbage can undo the pairing; only the machine's own sealed word can.
        let sealed_word = matches!(failure, JoinFailure::WrongCode | JoinFailure::Expired | JoinFailure::Cancelled);
        match self.state.take() {
            State::Over => {}
            State::Accepting { peer, .. } if !sealed_word => self.events.push_back(JoinerEvent::Paired(peer)),
            _ => self.events.push_back(JoinerEvent::Failed(failure)),
        }
    }
}

impl State {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Over)
    }

    fn until(&self) -> Option<Duration> {
        match self {
            Self::Connecting { until }
            | Self::Asking { until, .. }
            | Self::Greeting { until, .. }
            | Self::Confirming { until, .. }
            | Self::Showing { until, .. }
            | Self::Accepting { until, .. } => Some(*until),
            Self::Over => None,
        }
    }

    fn repeat(&self) -> Option<&Backoff> {
        match self {
            Self::Asking { repeat, .. }
            | Self::Greeting { repeat, .. }
            | Self::Confirming { repeat, .. }
            | Self::Accepting { repeat, .. } => Some(repeat),
            Self::Connecting { .. } | Self::Showing { .. } | Self::Over => None,
        }
    }

    fn repeat_mut(&mut self) -> Option<&mut Backoff> {
        match self {
            Self::Asking { repeat, .. }
            | Self::Greeting { repeat, .. }
            | Self::Confirming { repeat, .. }
            | Self::Accepting { repeat, .. } => Some(repeat),
            Self::Connecting { .. } | Self::Showing { .. } | Self::Over => None,
        }
    }

    fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Self::Confirming { session, .. } | Self::Showing { session, .. } | Self::Accepting { session, .. } => {
                Some(session)
            }
            Self::Connecting { .. } | Self::Asking { .. } | Self::Greeting { .. } | Self::Over => None,
        }
    }
}
