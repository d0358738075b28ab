//! The other side: this machine takes up an invitation, as the guest of the relay in its link.

use std::sync::Arc;
use std::time::Instant;

use happy_link::{Event, Login};
use happy_pairing::{
    Invitation, InvitationError, JoinFailure, Joiner, JoinerConfig, JoinerEvent, Origin, PairedPeer, format_code,
};
use happy_rpc::{CallError, Done, ErrorCode};
use happy_wire::packet::Gone;
use tokio::sync::mpsc;

use crate::daemon::local::{Join, JoinState, LocalEvent};
use crate::daemon::{Daemon, network};
use crate::service;
use crate::store::{fit_name, random, unix_seconds};

impl Daemon {
    /// Takes up an invitation; how it goes on is told to the local clients.
    ///
    /// # Errors
    /// When the link cannot be read or the relay in it cannot be used.
    pub async fn join(self: &Arc<Self>, params: Join) -> Result<Done, CallError> {
        let failed = |message: String| CallError::new(ErrorCode::Failed, message);
        let (origin, invitation) = Invitation::parse_link(&params.link).map_err(|error| unreadable(&error))?;
        let epoch = network::epoch(self.home()).map_err(|trouble| failed(trouble.what))?;
        let login = Login::Guest { epoch, ticket: invitation.ticket() };
        let (handle, events) =
            network::dial(&self.key().identity, Vec::new(), login, &origin).map_err(|trouble| failed(trouble.what))?;
        let name = params.name.as_deref().map(fit_name).filter(|name| !name.is_empty());
        let config = JoinerConfig {
            identity: self.key().identity.clone(),
            invitation,
            origin: origin.clone(),
            my_name: name.unwrap_or_else(|| self.name().to_owned()),
            next_statement: self.roster().next(),
            unix_now: unix_seconds(),
        };
        let start = Instant::now();
        let joiner = Joiner::new(config, start.elapsed());
        let attempt = Attempt { daemon: self.clone(), joiner, start, origin, handle };
        attempt.enter(JoinState::Connecting);
        tokio::spawn(attempt.run(events));
        Ok(Done {})
    }
}

fn unreadable(error: &InvitationError) -> CallError {
    CallError::new(ErrorCode::Failed, format!("this is not the link of an invitation: {error}"))
}

struct Attempt {
    daemon: Arc<Daemon>,
    joiner: Joiner,
    start: Instant,
    origin: Origin,
    handle: happy_link::driver::tokio::Handle,
}

impl Attempt {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while !self.joiner.is_over() {
            let timeout = self.joiner.poll_timeout().map(|time| tokio::time::Instant::from_std(self.start + time));
            let event = tokio::select! {
                event = events.recv() => event,
                () = sleep_until(timeout) => None,
            };
            let now = self.start.elapsed();
            // Another statement may have been made since this began.
            self.joiner.set_next_statement(self.daemon.roster().next());
            match event {
                Some(Event::RelayUp { host: Some(host) }) => self.joiner.host_known(now, host),
                Some(Event::Packet { from, bytes, .. }) => self.joiner.handle_packet(&mut random(), now, from, &bytes),
                Some(Event::Goaway { code, .. }) if code == happy_wire::Code::LOGIN_REFUSED => {
                    // The relay knows no such ticket: the invitation is over, or was never there.
                    self.enter(JoinState::Failed {
                        why: "The invitation is over: it was used, or its time is up.".into(),
                    });
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
                    self.enter(JoinState::ShowCode { code, machine: machine_name, role });
                }
                JoinerEvent::Paired(peer) => self.store(*peer),
                JoinerEvent::Failed(why) => self.enter(JoinState::Failed { why: self.explain(why) }),
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
        let stored = self.daemon.roster().add(&peer);
        match stored {
            Ok(added) => {
                tracing::info!(device = %added.device.short(), "joined a machine");
                self.daemon.network().add_peer(&added);
                let role = service::role(peer.my_role);
                self.enter(JoinState::Joined { device: added.device.to_string(), name: added.name, role });
                self.daemon.tell_devices();
            }
            Err(trouble) => {
                tracing::error!(%trouble, "a pairing was not stored");
                self.enter(JoinState::Failed { why: trouble.what });
            }
        }
    }

    fn explain(&self, why: JoinFailure) -> String {
        match why {
            JoinFailure::Gone(Gone::Used) => "The invitation was used already; each works once.".into(),
            JoinFailure::Gone(Gone::Expired) | JoinFailure::Expired => "The invitation has expired.".into(),
            JoinFailure::Gone(Gone::Cancelled) | JoinFailure::Cancelled => {
                "The other machine took the invitation back.".into()
            }
            JoinFailure::WrongBundle => {
                "The answer does not fit the invitation: somebody in between has exchanged it.".into()
            }
            JoinFailure::NoAnswer => match self.handle.trouble() {
                Some(trouble) => format!("{} cannot be reached: {trouble}.", self.origin),
                None => format!("The other machine does not answer through {}.", self.origin),
            },
            JoinFailure::WrongCode => "Three wrong codes were typed at the other machine; nothing was paired.".into(),
            JoinFailure::Removed => {
                "The other machine has removed this one for good and does not take its keys again. \
                                     Move access.key and membership.log aside, and pair as a new machine."
                    .into()
            }
            JoinFailure::OwnInvitation => "This is an invitation of this very machine.".into(),
            JoinFailure::BadHost => "The other machine did not keep to the protocol; upgrade the older one.".into(),
            JoinFailure::Garbage => "The relay disturbs the pairing.".into(),
            _ => "The pairing did not work out.".into(),
        }
    }

    fn enter(&self, state: JoinState) {
        self.daemon.tell_local(&LocalEvent::JoinChanged(state).to_body());
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
