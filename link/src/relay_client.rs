//! This device's side of its connection to the relay (`PROTOCOL 7`): login, signs of life, and the end.

use std::collections::VecDeque;
use std::time::Duration;

use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::relay::{Credential, LOGIN_SECONDS, PING_AFTER_SECONDS, PONG_GRACE_SECONDS, ToRelay, login_message};
use rand_core::CryptoRng;

use crate::event::{Dial, RelayDown, Way};
use crate::planted::{self, Bug};
use crate::reconnect::{Reconnect, Told};
use crate::suite::Suite;

const LOGIN: Duration = Duration::from_secs(LOGIN_SECONDS);
const PING_AFTER: Duration = Duration::from_secs(PING_AFTER_SECONDS);
const PONG_GRACE: Duration = Duration::from_secs(PONG_GRACE_SECONDS);
/// `PROTOCOL 9`: dead after 2 s when data is unacknowledged and the user was active.
const URGENT: Duration = Duration::from_secs(2);
/// On a network whose round trips are that slow the rule above would cut every connection; there it stretches to this.
const URGENT_LONGEST: Duration = Duration::from_secs(10);
/// A connection that lasted so long after its login was no mistake.
const STABLE: Duration = Duration::from_secs(10);
/// Answers to the relay's Pings that wait to be written. More come from a relay that does not read.
const MAX_CONTROL: usize = 32;

/// How this device logs in.
#[derive(Clone)]
pub enum Login {
    /// As a device that others name.
    Device {
        /// Larger than every epoch used before by this device; grows by one with every login. Unix milliseconds at start will do.
        epoch: u64,
    },
    /// As a device whose owner was given an enrolment secret by the relay's operator (`PROTOCOL 7`, Access).
    Enrolled {
        /// As above.
        epoch: u64,
        /// Made of that secret.
        key: EnrolmentKey,
    },
    /// As the guest of a machine, for pairing.
    Guest {
        /// As above.
        epoch: u64,
        /// From the invitation.
        ticket: [u8; 32],
    },
}

/// The ticket is a secret until it was used.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device { epoch } => f.debug_struct("Device").field("epoch", epoch).finish(),
            Self::Enrolled { epoch, .. } => f.debug_struct("Enrolled").field("epoch", epoch).finish_non_exhaustive(),
            Self::Guest { epoch, .. } => f.debug_struct("Guest").field("epoch", epoch).finish_non_exhaustive(),
        }
    }
}

/// What is shown beside the device's own key.
enum Shows {
    Nothing,
    Ticket([u8; 32]),
    Key(EnrolmentKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    AwaitsChallenge { until: Duration },
    AwaitsWelcome { until: Duration, since: Duration },
    Up { since: Duration },
}

pub(crate) struct RelayClient {
    /// The authority that was dialled.
    name: String,
    epoch: u64,
    shows: Shows,
    phase: Phase,
    pub(crate) reconnect: Reconnect,
    /// When the last frame came.
    heard: Duration,
    pinged: Option<Duration>,
    /// How long the login took: a first idea of the round trip.
    login_took: Duration,
    told: Option<Told>,
    closing: Option<Code>,
    control: VecDeque<Vec<u8>>,
}

impl RelayClient {
    pub(crate) fn new(name: String, login: Login, now: Duration) -> Self {
        let (epoch, shows) = match login {
            Login::Device { epoch } => (epoch, Shows::Nothing),
            Login::Enrolled { epoch, key } => (epoch, Shows::Key(key)),
            Login::Guest { epoch, ticket } => (epoch, Shows::Ticket(ticket)),
        };
        Self {
            name,
            epoch,
            phase: Phase::Down,
            reconnect: Reconnect::new(now, matches!(shows, Shows::Ticket(_))),
            shows,
            heard: now,
            pinged: None,
            login_took: Duration::ZERO,
            told: None,
            closing: None,
            control: VecDeque::new(),
        }
    }

    /// From the next login on it shows this key; a guest goes on showing its ticket.
    pub(crate) fn enrol(&mut self, key: EnrolmentKey) {
        if !self.is_guest() {
            self.shows = Shows::Key(key);
        }
    }

    pub(crate) fn is_guest(&self) -> bool {
        matches!(self.shows, Shows::Ticket(_))
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up { .. })
    }

    pub(crate) fn dial(&self) -> Dial {
        if self.phase == Phase::Down { self.reconnect.dial() } else { Dial::Connected }
    }

    pub(crate) fn way(&self, now: Duration) -> Way {
        match self.phase {
            Phase::Up { .. } => Way::Up,
            Phase::AwaitsChallenge { .. } | Phase::AwaitsWelcome { .. } => Way::Trying,
            Phase::Down => self.reconnect.way(now),
        }
    }

    pub(crate) fn must_close(&self) -> Option<Code> {
        self.closing.filter(|_| self.phase != Phase::Down)
    }

    /// The connection has to end.
    pub(crate) fn close(&mut self, code: Code) {
        self.closing.get_or_insert(code);
        self.control.clear();
    }

    pub(crate) fn handle_connected(&mut self, now: Duration) {
        self.phase = Phase::AwaitsChallenge { until: now + LOGIN };
        self.heard = now;
        self.pinged = None;
        self.told = None;
        self.closing = None;
        self.control.clear();
    }

    /// Gives the reason. `code` is the one that the websocket was closed with.
    pub(crate) fn handle_closed(&mut self, now: Duration, rng: &mut impl CryptoRng, code: Option<Code>) -> RelayDown {
        if matches!(self.phase, Phase::Up { since } if now >= since + STABLE) {
            self.reconnect.reset();
        }
        self.phase = Phase::Down;
        let closing = self.closing.take();
        // An ordinary websocket code (1000 to 1015) says nothing that the loss itself does not say.
        let told = code.filter(|code| code.0 >= 4000).map(|code| Told { code, retry_after: Duration::ZERO });
        let told = self.told.take().or(told.filter(|_| closing.is_none()));
        self.reconnect.schedule(now, rng, told);
        match (told, closing) {
            (Some(told), _) => RelayDown::Told(told.code),
            (None, Some(code)) => RelayDown::Ours(code),
            (None, None) => RelayDown::Lost,
        }
    }

    /// A frame came, whatever it says.
    pub(crate) fn handle_any(&mut self, now: Duration) {
        self.heard = now;
        self.pinged = None;
    }

    pub(crate) fn handle_challenge(
        &mut self,
        now: Duration,
        rng: &mut impl CryptoRng,
        suite: &impl Suite,
        nonce: &[u8; 32],
    ) {
        let Phase::AwaitsChallenge { until } = self.phase else { return self.close(Code::MALFORMED) };
        let mut client_nonce = [0; 16];
        rng.fill_bytes(&mut client_nonce);
        let (device, epoch) = (suite.device(), self.epoch);
        self.epoch += u64::from(!planted::is(Bug::KeepsItsEpoch));
        let mut credential = match &self.shows {
            Shows::Nothing => Credential::None,
            Shows::Ticket(ticket) => Credential::Ticket(*ticket),
            // Its signature is over the same message, of which it is no part.
            Shows::Key(key) => Credential::Enrolment { key: key.public().id(), signature: [0; 64] },
        };
        let message = login_message(&self.name, nonce, &device, epoch, &client_nonce, &credential);
        if let (Shows::Key(key), Credential::Enrolment { signature, .. }) = (&self.shows, &mut credential) {
            *signature = key.sign(&message);
        }
        let signature = suite.sign_login(&message);
        self.push(&ToRelay::Login { device, epoch, client_nonce, credential, signature });
        self.phase = Phase::AwaitsWelcome { until, since: now };
    }

    pub(crate) fn handle_welcome(&mut self, now: Duration) -> bool {
        let Phase::AwaitsWelcome { since, .. } = self.phase else {
            self.close(Code::MALFORMED);
            return false;
        };
        self.login_took = now.saturating_sub(since);
        self.reconnect.admitted();
        self.phase = Phase::Up { since: now };
        true
    }

    pub(crate) fn handle_goaway(&mut self, code: Code, retry_after_ms: u32) {
        self.told = Some(Told { code, retry_after: Duration::from_millis(retry_after_ms.into()) });
        self.close(Code::GOODBYE);
    }

    pub(crate) fn handle_ping(&mut self, n: u64) {
        self.push(&ToRelay::Pong(n));
    }

    fn push(&mut self, frame: &ToRelay<'_>) {
        if self.control.len() >= MAX_CONTROL {
            return self.close(Code::TOO_MANY);
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.control.push_back(bytes);
    }

    pub(crate) fn poll_control(&mut self) -> Option<Vec<u8>> {
        self.control.pop_front()
    }

    /// When to ask the relay for a sign of life and when to give up, while a person waits since `waiting` for data to be acknowledged.
    /// The wait counts from there or from the last frame.
    fn urgent(&self, waiting: Option<Duration>) -> Option<(Duration, Duration)> {
        let from = waiting?.max(self.heard);
        let patience = (self.login_took * 4).clamp(URGENT, URGENT_LONGEST);
        // Whoever was asleep meanwhile still has to give the relay time to answer.
        let asked = self.pinged.map_or(Duration::ZERO, |pinged| pinged + patience / 2);
        Some((from + patience / 4, asked.max(from + patience)))
    }

    pub(crate) fn timeout(&self, waiting: Option<Duration>) -> Option<Duration> {
        if self.closing.is_some() {
            return None;
        }
        match self.phase {
            Phase::Down => None,
            Phase::AwaitsChallenge { until } | Phase::AwaitsWelcome { until, .. } => Some(until),
            Phase::Up { .. } => {
                let usual = self.pinged.map_or(self.heard + PING_AFTER, |pinged| pinged + PONG_GRACE);
                let urgent = self.urgent(waiting).map(|(ping, dead)| if self.pinged.is_none() { ping } else { dead });
                Some(urgent.map_or(usual, |urgent| urgent.min(usual)))
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration, waiting: Option<Duration>) {
        if self.closing.is_some() {
            return;
        }
        match self.phase {
            Phase::Down => {}
            Phase::AwaitsChallenge { until } | Phase::AwaitsWelcome { until, .. } => {
                if now >= until {
                    self.close(Code::SILENT);
                }
            }
            Phase::Up { .. } => {
                let urgent = self.urgent(waiting);
                let is_dead = self.pinged.is_some_and(|pinged| now >= pinged + PONG_GRACE)
                    || urgent.is_some_and(|(_, dead)| now >= dead && self.pinged.is_some());
                let must_ping = now >= self.heard + PING_AFTER || urgent.is_some_and(|(ping, _)| now >= ping);
                if planted::is(Bug::TrustsTheRelay) {
                    self.heard = now;
                } else if is_dead {
                    self.close(Code::SILENT);
                } else if must_ping && self.pinged.is_none() {
                    self.pinged = Some(now);
                    self.push(&ToRelay::Ping(self.epoch));
                }
            }
        }
    }
}
