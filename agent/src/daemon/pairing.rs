//! The machine's side of a pairing: one live invitation, driven by one task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use happy_crypto::{Bundle, DeviceId, OneTimePrekey};
use happy_pairing::{EndReason, Host, HostConfig, HostEvent, INVITATION_LIFETIME, Invitation, Origin, PairedPeer};
use happy_rpc::{CallError, Done, ErrorCode};
use happy_wire::relay::RendezvousState;
use tokio::sync::{mpsc, oneshot};

use crate::daemon::Daemon;
use crate::daemon::local::{
    CodeAnswer, Invited, InvitedLink, LocalEvent, PairCode, PairEnd, PairStart, PairState, Reach,
};
use crate::service;
use crate::store::{random, unix_seconds};

/// Packets of guests and words of the person that wait for the task. A guest that sends more loses them, and repeats what matters.
const QUEUE: usize = 64;
/// A new invitation waits so long for the relay before it is shown; it is shown all the same afterwards.
const RELAY_WAIT: Duration = Duration::from_secs(3);
/// Tests of what expires set this to the seconds that an invitation shall live; its clock then runs as much faster.
const TEST_SECONDS: &str = "HAPPY_TEST_INVITATION_SECONDS";

/// The invitation, if one is live.
pub struct Pairing {
    /// Held while an invitation is made, so that the one before it has ended: two at once would be two that somebody may answer.
    starting: tokio::sync::Mutex<()>,
    live: Mutex<Option<Live>>,
    state: Mutex<(u64, PairState)>,
    /// Rendezvous that are open, the oldest first: that of the invitation, and those of pairings that are over, whose guests may come back for
    /// an answer that they have lost.
    open: Mutex<VecDeque<[u8; 32]>>,
}

#[derive(Clone)]
struct Live {
    ticket_hash: [u8; 32],
    inputs: mpsc::Sender<Input>,
}

enum Input {
    Packet { from: DeviceId, bytes: Vec<u8> },
    Code { typed: PairCode, answer: oneshot::Sender<happy_pairing::CodeAnswer> },
    Rendezvous(RendezvousState),
    Cancel,
}

impl Default for Pairing {
    fn default() -> Self {
        Self {
            starting: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            state: Mutex::new((0, PairState::None)),
            open: Mutex::default(),
        }
    }
}

impl Pairing {
    /// No invitation yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an invitation; one that is live ends.
    ///
    /// # Errors
    /// When there is no address to invite to.
    pub async fn start(&self, daemon: &Arc<Daemon>, params: PairStart) -> Result<Invited, CallError> {
        let _starting = self.starting.lock().await;
        self.cancel().await;
        let origins = daemon.invitation_origins();
        if origins.is_empty() {
            return Err(CallError::new(
                ErrorCode::Failed,
                "there is no address under which this machine can be reached",
            ));
        }
        wait_for_relay(daemon).await;
        let clock = Clock::start();
        let role = service::statement_role(params.role);
        let one_time_prekey = OneTimePrekey::generate(&mut random(), random_id());
        let (identity, signed_prekey) = (daemon.identity().clone(), daemon.prekeys().newest().clone());
        let bundle = Bundle::new(&identity, &signed_prekey, Some(&one_time_prekey));
        let expires = unix_seconds() + clock.real(INVITATION_LIFETIME).as_secs();
        let expires = u32::try_from(expires).unwrap_or(u32::MAX);
        let invitation = Invitation::new(&mut random(), role, expires, bundle.hash());
        let link = |(origin, reach): &(Origin, Reach)| InvitedLink {
            origin: origin.to_string(),
            link: invitation.link(origin),
            reach: *reach,
        };
        let links = origins.iter().map(link).collect();
        let ticket_hash = invitation.ticket_hash();
        let origins: Vec<Origin> = origins.into_iter().map(|(origin, _)| origin).collect();
        // One look: a second one within the same expression would wait for the first one's guard.
        let (next_statement, removed) = {
            let roster = daemon.roster();
            (roster.next(), roster.removed())
        };
        let host = Host::new(
            HostConfig {
                identity,
                signed_prekey,
                one_time_prekey,
                invitation,
                relays: origins.clone(),
                origins,
                machine_name: daemon.name().to_owned(),
                next_statement,
                removed,
                unix_now: unix_seconds(),
            },
            clock.now(),
        );
        let (inputs, queue) = mpsc::channel(QUEUE);
        let number = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            *state = (state.0 + 1, PairState::Waiting);
            state.0
        };
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(Live { ticket_hash, inputs });
        // For as long as the typing may take after the invitation's own time: the guest stays the host's guest.
        let opened = self.open_rendezvous(daemon, ticket_hash);
        tracing::info!(number, role = %role, opened, "an invitation is open");
        let (known, becomes_known) = oneshot::channel();
        let task = Task {
            daemon: daemon.clone(),
            host,
            clock,
            number,
            ticket_hash,
            default_name: params.name,
            known: Some(known),
        };
        tokio::spawn(task.run(queue));
        if daemon.network().is_up() {
            // Who scans it at once must be let in. It also goes on when the relay refuses or the connection is lost, of which the
            // person is told.
            let _ = tokio::time::timeout(RELAY_WAIT, becomes_known).await;
        }
        let seconds_left = clock.real(INVITATION_LIFETIME).as_secs();
        let relay_trouble = daemon.network().home_trouble();
        Ok(Invited { invitation: number, role: params.role, links, seconds_left, relay_trouble })
    }

    /// Opens a rendezvous. When there are too many, that of the pairing that has been over for the longest time ends: a new guest is worth more
    /// than one that may have lost an answer.
    fn open_rendezvous(&self, daemon: &Daemon, ticket_hash: [u8; 32]) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let ask = || daemon.network().open_rendezvous(ticket_hash, happy_wire::relay::MAX_RENDEZVOUS_SECONDS);
        let mut opened = ask();
        while !opened && let Some(oldest) = open.pop_front() {
            daemon.network().close_rendezvous(oldest);
            opened = ask();
        }
        open.push_back(ticket_hash);
        opened
    }

    /// What the invitation is waiting for.
    pub fn state(&self) -> PairState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Takes the code that a person typed.
    ///
    /// # Errors
    /// When the invitation ends in this moment.
    pub async fn type_code(&self, typed: PairCode) -> Result<CodeAnswer, CallError> {
        let Some(live) = self.live() else { return Ok(CodeAnswer::Ended {}) };
        let (answer, answered) = oneshot::channel();
        if live.inputs.send(Input::Code { typed, answer }).await.is_err() {
            return Ok(CodeAnswer::Ended {});
        }
        Ok(match answered.await {
            Ok(happy_pairing::CodeAnswer::Right) => CodeAnswer::Right {},
            Ok(happy_pairing::CodeAnswer::Wrong { left }) => CodeAnswer::Wrong { left },
            Ok(happy_pairing::CodeAnswer::NotYet) => CodeAnswer::NotYet {},
            Ok(happy_pairing::CodeAnswer::Ended) | Err(_) => CodeAnswer::Ended {},
        })
    }

    /// Ends the invitation, if one is live.
    pub async fn cancel(&self) -> Done {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(live) = live {
            let _ = live.inputs.send(Input::Cancel).await;
        }
        Done {}
    }

    /// A packet of a guest.
    pub fn packet(&self, from: DeviceId, bytes: Vec<u8>) {
        if let Some(live) = self.live() {
            // Full: the guest repeats what matters.
            let _ = live.inputs.try_send(Input::Packet { from, bytes });
        }
    }

    /// The relay tells what has become of a rendezvous.
    pub fn rendezvous(&self, ticket_hash: [u8; 32], state: RendezvousState) {
        if let Some(live) = self.live().filter(|live| live.ticket_hash == ticket_hash) {
            let _ = live.inputs.try_send(Input::Rendezvous(state));
        }
    }

    fn live(&self) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn enter(&self, daemon: &Daemon, number: u64, new: PairState) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            // A newer invitation has taken its place.
            if state.0 == number {
                state.1 = new.clone();
            }
        }
        daemon.tell_local(&LocalEvent::PairChanged { invitation: number, state: new }.to_body());
    }

    fn forget(&self, ticket_hash: [u8; 32]) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|open| *open != ticket_hash);
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.as_ref().is_some_and(|live| live.ticket_hash == ticket_hash) {
            *live = None;
        }
    }
}

/// A one-time prekey's id only tells it from others; 0 would mean that there is none.
fn random_id() -> u32 {
    use rand_core::Rng;
    random().next_u32().max(1)
}

/// Nobody can answer an invitation before the relay knows of it; right after the start that takes a moment.
async fn wait_for_relay(daemon: &Daemon) {
    let mut news = daemon.subscribe_local();
    let up = async {
        while !daemon.network().is_up() {
            // Any event will do to look again.
            if let Err(tokio::sync::broadcast::error::RecvError::Closed) = news.recv().await {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(RELAY_WAIT, up).await;
}

/// The time of an invitation; in tests of what expires it runs faster.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    speed: f64,
}

impl Clock {
    fn start() -> Clock {
        let seconds = std::env::var(TEST_SECONDS).ok().and_then(|text| text.parse::<f64>().ok());
        let speed =
            seconds.filter(|s| (0.1..=120.0).contains(s)).map_or(1.0, |s| INVITATION_LIFETIME.as_secs_f64() / s);
        Clock { start: Instant::now(), speed }
    }

    fn now(self) -> Duration {
        self.start.elapsed().mul_f64(self.speed)
    }

    fn real(self, time: Duration) -> Duration {
        time.div_f64(self.speed)
    }

    fn at(self, time: Duration) -> tokio::time::Instant {
        (self.start + self.real(time)).into()
    }
}

struct Task {
    daemon: Arc<Daemon>,
    host: Host,
    clock: Clock,
    number: u64,
    ticket_hash: [u8; 32],
    /// The name that was given with the invitation.
    default_name: Option<String>,
    /// Told when the relay has answered to the rendezvous.
    known: Option<oneshot::Sender<()>>,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let mut open = true;
        while !self.host.is_over() {
            let timeout = self.host.poll_timeout().map(|time| self.clock.at(time));
            let input = tokio::select! {
                input = queue.recv(), if open => {
                    // A newer invitation has taken this one's place; the timers end it.
                    open = input.is_some();
                    input
                }
                () = sleep_until(timeout) => None,
            };
            let now = self.clock.now();
            if let Some(Input::Rendezvous(_)) = input
                && let Some(known) = self.known.take()
            {
                let _ = known.send(());
            }
            match input {
                Some(Input::Packet { from, bytes }) => self.host.handle_packet(&mut random(), now, from, &bytes),
                Some(Input::Code { typed, answer }) => {
                    // Another statement may have been made since the invitation was.
                    self.host.set_next_statement(self.daemon.roster().next());
                    let name = typed.name.as_deref().or(self.default_name.as_deref());
                    let _ = answer.send(self.host.type_code(&mut random(), now, &typed.code, name));
                }
                Some(Input::Rendezvous(RendezvousState::Refused)) => {
                    self.enter(PairState::Ended { why: PairEnd::NoRendezvous });
                    self.host.cancel(&mut random(), now);
                }
                Some(Input::Rendezvous(RendezvousState::Open | RendezvousState::Ended)) => {}
                Some(Input::Cancel) => self.host.cancel(&mut random(), now),
                None => self.host.handle_timeout(&mut random(), now),
            }
            self.drain();
        }
        self.daemon.network().close_rendezvous(self.ticket_hash);
        self.daemon.pairing().forget(self.ticket_hash);
    }

    /// Events first: what is stored must be on the disk before a packet says that it is.
    fn drain(&mut self) {
        while let Some(event) = self.host.poll_event() {
            match event {
                HostEvent::Proven { device } => self.enter(PairState::Proven { device: device.short() }),
                HostEvent::CodeWanted { device, device_name } => {
                    self.enter(PairState::CodeWanted { device: device.short(), name: device_name });
                }
                HostEvent::WrongCode { left } => tracing::warn!(left, "a wrong pairing code was typed"),
                HostEvent::Paired(peer) => {
                    if !self.store(&peer) {
                        // The other side must not hear Done; it is told that the pairing failed.
                        self.host.abort(&mut random(), self.clock.now());
                    }
                }
                HostEvent::Ended(why) => self.enter(PairState::Ended { why: end(why) }),
            }
        }
        while let Some((to, packet)) = self.host.poll_transmit() {
            self.daemon.network().send_packet(to, &packet);
        }
    }

    fn store(&self, peer: &PairedPeer) -> bool {
        let device = peer.identity.device_id();
        match self.daemon.paired(peer) {
            Ok(_) => {
                tracing::info!(device = %device.short(), role = %peer.role, "a device was paired");
                let role = service::role(peer.role);
                self.enter(PairState::Paired { device: device.to_string(), name: peer.name.clone(), role });
                self.daemon.tell_devices();
                true
            }
            Err(trouble) => {
                tracing::error!(%trouble, "a pairing was not stored");
                false
            }
        }
    }

    fn enter(&self, state: PairState) {
        self.daemon.pairing().enter(&self.daemon, self.number, state);
    }
}

fn end(why: EndReason) -> PairEnd {
    match why {
        EndReason::Expired => PairEnd::Expired,
        EndReason::Cancelled => PairEnd::Cancelled,
        EndReason::WrongCode => PairEnd::WrongCode,
        EndReason::WrongOrigin => PairEnd::WrongOrigin,
        EndReason::NotStored => PairEnd::NotStored,
        EndReason::RemovedDevice => PairEnd::RemovedDevice,
        _ => PairEnd::Failed,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
