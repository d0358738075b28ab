//! The other side: this machine takes up an invitation, as the guest of the relay in its link.

use std::sync::Arc;
use std::time::Instant;

use happy_link::{Code, Event, Login, RelayDown};
use happy_pairing::{Invitation, JoinFailure, Joiner, JoinerConfig, JoinerEvent, Origin, PairedPeer, format_code};
use happy_rpc::{CallError, Done, ErrorCode};
use happy_wire::packet::Gone;
use tokio::sync::mpsc;

use crate::daemon::local::{Join, JoinState, LocalEvent};
use crate::daemon::network::Dialled;
use crate::daemon::trust::{Expected, RelayVerifier};
use crate::daemon::{Daemon, network};
use crate::service;
use crate::store::{RelayKey, fit_name, random, unix_seconds};
use crate::trouble::{Trouble, start_anew};

impl Daemon {
    /// Takes up an invitation; how it goes on is told to the local clients.
    ///
    /// # Errors
    /// When the link cannot be read or the relay in it cannot be used.
    pub async fn join(self: &Arc<Self>, params: Join) -> Result<Done, CallError> {
        let failed = |message: String| {
            // The words are our own and quote nothing of the link.
            tracing::info!(why = ?message, "a machine cannot be joined");
            CallError::new(ErrorCode::Failed, message)
        };
        let (origin, invitation) = Invitation::parse_link(&params.link).map_err(|error| failed(error.to_string()))?;
        tracing::info!(relay = %origin, "an invitation is taken up");
        let epoch = network::epoch(self.home()).map_err(|trouble| failed(trouble.what))?;
        let login = Login::Guest { epoch, ticket: invitation.ticket() };
        let Dialled { handle, events, verifier } =
            network::dial(self.identity(), Vec::new(), login, &origin, Expected::First)
                .map_err(|trouble| failed(trouble.to_string()))?;
        let name = params.name.as_deref().map(fit_name).filter(|name| !name.is_empty());
        let config = JoinerConfig {
            identity: self.identity().clone(),
            invitation,
            origin: origin.clone(),
            my_name: name.unwrap_or_else(|| self.name().to_owned()),
            next_statement: self.roster().next(),
            unix_now: unix_seconds(),
        };
        let start = Instant::now();
        let joiner = Joiner::new(config, start.elapsed());
        let attempt = Attempt { daemon: self.clone(), joiner, start, origin, handle, verifier };
        attempt.enter(JoinState::Connecting);
        tokio::spawn(attempt.run(events));
        Ok(Done {})
    }
}

struct Attempt {
    daemon: Arc<Daemon>,
    joiner: Joiner,
    start: Instant,
    origin: Origin,
    handle: happy_link::driver::tokio::Handle,
    verifier: Option<Arc<RelayVerifier>>,
}

/// What to do about a relay whose certificate is refused.
const UNBELIEVED: &str = "See that the address is right and that nobody is in between. The relay needs a certificate that this system \
                          believes; SSL_CERT_FILE names a file with authorities of your own.";
/// What to do about most failures.
const AGAIN: &str = "Make a new invitation there with `happy pair`, and join with its link.";

impl Attempt {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while !self.joiner.is_over() {
            let timeout = self.joiner.poll_timeout().map(|time| tokio::time::Instant::from_std(self.start + time));
            let event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(timeout) => None,
                why = refused(self.verifier.as_deref()) => {
                    self.fail(format!("The relay {} is not believed: {why}.", self.origin), UNBELIEVED);
                    break;
                }
            };
            let now = self.start.elapsed();
            // Another statement may have been made since this began.
            self.joiner.set_next_statement(self.daemon.roster().next());
            match event {
                Some(Event::RelayUp { host: Some(host) }) => self.joiner.host_known(now, host),
                Some(Event::Packet { from, bytes, .. }) => self.joiner.handle_packet(&mut random(), now, from, &bytes),
                Some(Event::RelayDown { why: RelayDown::Told(Code::LOGIN_REFUSED), last: true }) => {
                    // The relay has known no such ticket for a while: the invitation is over, or was never there.
                    self.fail("The invitation is over: it was used, or its time is up.", AGAIN);
                    break;
                }
                _ => self.joiner.handle_timeout(now),
            }
            self.drain();
        }
        self.handle.shutdown().await;
    }

    fn drain(&mut self) {
        while let Some(event) = self.joiner.poll_event() {
            match event {
                JoinerEvent::ShowCode { code, machine_name, role } => {
                    let (code, role) = (format_code(code), service::role(role));
                    tracing::info!(role = service::role_name(role), "joining a machine: it waits for the code");
                    self.enter(JoinState::ShowCode { code, machine: machine_name, role });
                }
                JoinerEvent::Paired(peer) => self.store(*peer),
                JoinerEvent::Failed(why) => self.explain(why),
            }
        }
        while let Some((to, packet)) = self.joiner.poll_transmit() {
            if let Err(error) = self.handle.send_packet(to, &packet) {
                tracing::debug!(%error, "a packet to the host was not sent");
            }
        }
    }

    fn store(&self, mut peer: PairedPeer) {
        // The relay that has just worked comes first.
        peer.relays.retain(|relay| *relay != self.origin);
        peer.relays.insert(0, self.origin.clone());
        // The relay's key first: with the peer the next connection to the relay begins, which must prove it.
        let stored = self.keep_relay_key().and_then(|kept| Ok((kept, self.daemon.paired(&peer)?)));
        match stored {
            Ok(((relay_key, relay_key_changed), added)) => {
                let role = service::role(peer.my_role);
                let device = added.device.short();
                tracing::info!(%device, role = service::role_name(role), relay = %self.origin, "joined a machine");
                let device = added.device.to_string();
                self.enter(JoinState::Joined { device, name: added.name, role, relay_key, relay_key_changed });
                self.daemon.tell_devices();
            }
            Err(trouble) => {
                tracing::error!(%trouble, "a pairing was not stored");
                self.fail(trouble.what, trouble.todo);
            }
        }
    }

    /// Remembers the key by which the relay is known from now on; gives what the person is told of it: the key, if nobody else
    /// vouches for it, and whether it was another one before.
    fn keep_relay_key(&self) -> Result<(Option<String>, bool), Trouble> {
        let Some(key) = self.verifier.as_ref().and_then(|verifier| verifier.proved()) else { return Ok((None, false)) };
        let before = self.daemon.network().relay_keys().put(&self.origin, key.clone())?;
        let changed = before.is_some_and(|before| before != key);
        if changed {
            tracing::warn!(relay = %self.origin, %key, "this relay had another key before");
        }
        Ok(((key != RelayKey::Vouched).then(|| key.to_string()), changed))
    }

    fn explain(&self, why: JoinFailure) {
        match why {
            JoinFailure::Gone(Gone::Used) => self.fail("The invitation was used already; each works once.", AGAIN),
            JoinFailure::Gone(Gone::Expired) | JoinFailure::Expired => self.fail("The invitation has expired.", AGAIN),
            JoinFailure::Gone(Gone::Cancelled) | JoinFailure::Cancelled => {
                self.fail("The other machine took the invitation back.", AGAIN);
            }
            JoinFailure::WrongBundle => self.fail(
                "The answer does not fit the invitation: somebody in between has exchanged it.",
                "Do not go on over this relay; use one of your own, or another network.",
            ),
            JoinFailure::NoAnswer => match self.handle.trouble() {
                Some(trouble) => self.fail(
                    format!("Nothing can be joined through {}: {trouble}.", self.origin),
                    "See that the daemon runs there and that this machine can reach that address; then join with a new link.",
                ),
                None => self.fail(format!("The other machine does not answer through {}.", self.origin), AGAIN),
            },
            JoinFailure::WrongCode => {
                self.fail("Three wrong codes were typed at the other machine; nothing was paired.", AGAIN);
            }
            JoinFailure::Removed => self.fail(
                "The other machine has removed this one for good and does not take its keys again.",
                start_anew(self.daemon.home().root()),
            ),
            JoinFailure::OwnInvitation => {
                self.fail("This is an invitation of this very machine.", "Use the link on another machine.");
            }
            JoinFailure::BadHost => {
                self.fail("The other machine did not keep to the protocol.", "Upgrade the older of the two.");
            }
            JoinFailure::Garbage => self.fail(
                "The relay, or somebody on it, disturbs the pairing.",
                "Try again, or use another relay: `happy up --relay https://HOST` there.",
            ),
            _ => self.fail("The pairing did not work out.", AGAIN),
        }
    }

    fn fail(&self, why: impl Into<String>, remedy: impl Into<String>) {
        let why = why.into();
        // Quoted: the words of a relay may be among them.
        tracing::info!(relay = %self.origin, ?why, "joining a machine failed");
        self.enter(JoinState::Failed { why, remedy: remedy.into() });
    }

    fn enter(&self, state: JoinState) {
        self.daemon.tell_local(&LocalEvent::JoinChanged(state).to_body());
    }
}

/// Resolves with the reason when the relay's certificate is refused: waiting would change nothing.
async fn refused(verifier: Option<&RelayVerifier>) -> &'static str {
    match verifier {
        Some(verifier) => verifier.refused().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
