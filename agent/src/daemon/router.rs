//! Where what comes over the links goes. One loop that decides and never waits for anybody.

use std::sync::Arc;

use happy_crypto::DeviceId;
use happy_link::{ChannelName, Event, RefusalReason};
use happy_pairing::Origin;
use happy_wire::Code;

use crate::daemon::Daemon;
use crate::daemon::local::LocalEvent;
use crate::daemon::network::Events;
use crate::daemon::records;
use crate::service::{CallName, Caller};

/// Takes what happens on the links.
pub async fn run(daemon: Arc<Daemon>, mut events: Events) {
    loop {
        let (origin, event) = events.recv().await;
        route(&daemon, &origin, event);
    }
}

fn route(daemon: &Arc<Daemon>, origin: &Origin, event: Event) {
    match event {
        Event::RelayUp { .. } => {
            let failures = daemon.network().came_up(origin);
            if failures > 0 {
                let what = format!("{origin} is reached again, after {failures} attempts");
                tracing::info!(relay = %origin, failures, "the relay is reached again");
                daemon.incidents().recovered(&what, crate::store::unix_ms());
            }
            relay_changed(daemon, origin);
            records::relay_up(daemon, origin);
        }
        Event::RelayDown { .. } => {
            // In words, and quoted: some may be the relay's own.
            let why = daemon.network().relay(origin).and_then(|relay| relay.trouble).unwrap_or_default();
            let now = crate::store::unix_ms();
            if let Some(times) = daemon.incidents().error(&format!("no connection to {origin}: {why}"), now) {
                tracing::info!(relay = %origin, ?why, times, "no connection to the relay");
            }
            relay_changed(daemon, origin);
        }
        Event::Goaway { code, text } => tracing::info!(relay = %origin, %code, %text, "the relay says goodbye"),
        Event::Presence { peer, here } => tracing::debug!(peer = %peer.short(), here, "presence"),
        Event::LinkUp { peer, resumed, same_life } => {
            tracing::info!(peer = %peer.short(), resumed, same_life, "link up");
            daemon.doubts().believed(&peer);
            if !resumed {
                next_session(daemon, peer);
            }
            daemon.tell_devices();
            records::link_up(daemon, peer);
        }
        Event::LinkDown { peer, why } => {
            tracing::info!(peer = %peer.short(), ?why, "link down");
            daemon.tell_devices();
        }
        Event::Refused { peer, reason } => refused(daemon, peer, reason),
        Event::StaleDevice { peer } => stale(daemon, peer),
        Event::Packet { from, via_rendezvous: true, bytes } => daemon.pairing().packet(from, bytes),
        Event::Packet { from, .. } => tracing::debug!(from = %from.short(), "a pairing packet outside of a rendezvous"),
        Event::Undelivered { to, reason } => tracing::debug!(to = %to.short(), ?reason, "a packet was not delivered"),
        Event::Rendezvous { ticket_hash, state } => daemon.pairing().rendezvous(ticket_hash, state),
        Event::Request { peer, id, body } => {
            if let Some(caller) = daemon.caller(peer) {
                caller.request(CallName::Link(id), &body);
            }
        }
        // What runs is finished; the caller just does not wait for it.
        Event::Cancelled { .. } => {}
        // Answers reach their callers by themselves; the rest is taken by the network.
        Event::Answer { .. } | Event::Delivered { .. } | Event::Notice { .. } | Event::Writable { .. } => {}
        Event::PairSecrets { .. } | Event::NewBundle { .. } => {}
        Event::Record { .. } | Event::RecordsChanged { .. } => records::route(daemon, origin, event),
        Event::Opened { peer, session, channel, label, .. } => {
            let channel = ChannelName::of(session, channel);
            let opened = match daemon.caller(peer).filter(|caller| caller.role().is_some()) {
                Some(caller) => caller.open(channel, &label),
                None => Err((Code::NOT_PERMITTED, "this device may do nothing here")),
            };
            if let Err((code, reason)) = opened {
                daemon.network().close_channel(&peer, channel, code, reason);
            }
        }
        Event::Message { peer, channel, bytes } => message(daemon, peer, channel, bytes),
        Event::Closed { peer, channel, .. } => {
            if let Some(caller) = daemon.caller(peer) {
                caller.closed(channel);
            }
        }
    }
}

fn relay_changed(daemon: &Daemon, origin: &Origin) {
    if let Some(relay) = daemon.relays().into_iter().find(|relay| relay.origin == origin.as_str()) {
        daemon.tell_local(&LocalEvent::RelayChanged(relay).to_body());
    }
}

fn message(daemon: &Arc<Daemon>, peer: DeviceId, channel: u32, bytes: Vec<u8>) {
    let Some(caller) = daemon.caller(peer) else { return };
    // A channel that is not open was closed by this side a moment ago.
    let Some(inbox) = caller.inbox(channel) else { return };
    if inbox.try_send(bytes).is_err() {
        caller.close(channel, Code::TOO_MANY, "too many messages wait for the session");
    }
}

/// A new link session has taken the place of the last one: what its caller asked for in that one is not for channels of this one.
fn next_session(daemon: &Daemon, peer: DeviceId) {
    let caller = daemon.callers().get(&peer).cloned();
    if let Some(caller) = caller {
        caller.next_session();
    }
}

/// A machine refuses this one, signed by itself.
fn refused(daemon: &Arc<Daemon>, peer: DeviceId, reason: RefusalReason) {
    match reason {
        RefusalReason::Revoked => {
            tracing::warn!(peer = %peer.short(), "a machine has removed this one");
            daemon.run_once(move |daemon| daemon.was_removed_by(peer));
        }
        RefusalReason::UnknownSecret => {
            if daemon.doubts().not_believed(peer) {
                tracing::warn!(
                    peer = %peer.short(),
                    "a machine does not know the keys of this one any more: this home was restored from an old copy, or somebody else has used a \
                     copy of it; it has to be joined again, and if a copy is in strange hands, this machine must be removed there"
                );
            }
            daemon.tell_devices();
        }
        reason => tracing::warn!(peer = %peer.short(), ?reason, "a machine refuses this one"),
    }
}

/// Somebody came as a device of this machine, with keys that are not known.
fn stale(daemon: &Arc<Daemon>, peer: DeviceId) {
    if daemon.doubts().strange(peer, crate::store::unix_ms()) {
        tracing::warn!(
            peer = %peer.short(),
            "somebody came as this device with keys that it does not have any more: it was restored from an old copy, or a copy of it is in \
             strange hands; if it cannot connect, look at it, then pair it again or remove it"
        );
        daemon.tell_devices();
    }
}

/// Tells everybody what happens to sessions.
pub async fn tell_sessions(daemon: Arc<Daemon>) {
    let mut events = daemon.sessions().subscribe();
    while let Some(event) = events.next().await {
        daemon.tell(|| event);
    }
}

impl Daemon {
    /// The devices with a link that may know what happens here. A machine that this one has joined may not.
    pub fn links_of_callers(&self) -> Vec<DeviceId> {
        let up = self.network().links_up();
        let roster = self.roster();
        up.into_iter().filter(|device| roster.role_of(device).is_some()).collect()
    }

    /// The caller that a linked device is, made when it first says something; none when it is not a member. What it may do, be it
    /// nothing, is looked up for each request, which it is told then.
    fn caller(self: &Arc<Self>, device: DeviceId) -> Option<Arc<Caller>> {
        if !self.roster().is_member(&device) {
            return None;
        }
        let mut callers = self.callers();
        let caller = callers.entry(device).or_insert_with(|| {
            let line = crate::service::Line::Link(self.network().clone(), device);
            Caller::new(self.clone(), crate::service::Who::Device(device), line)
        });
        Some(caller.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use happy_link::LinkDown;
    use happy_rpc::{Attached, Call, CallError, ErrorCode, EventPlace, EventsFollow, Followed, SessionAttach, Told};
    use happy_wire::call::{CallMessage, MAX_OUTSTANDING};
    use happy_wire::terminal;
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::daemon::Options;
    use crate::daemon::socket::CALLS;
    use crate::service::{Line, Who};
    use crate::store::Home;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A daemon whose relay nobody runs, and a caller with a link as far as the router knows.
    struct Stage {
        daemon: Arc<Daemon>,
        peer: DeviceId,
        caller: Arc<Caller>,
        answers: mpsc::Receiver<(u32, Vec<u8>)>,
        asked: u64,
        _folder: tempfile::TempDir,
    }

    impl Stage {
        async fn new() -> Stage {
            let folder = tempfile::tempdir().unwrap();
            let home = Home::at(folder.path().join("h")).unwrap();
            let relay = Some("http://127.0.0.1:1".to_owned());
            let options = Options { relay, api_port: Some(0), ..Options::default() };
            let daemon = Daemon::start(home, options).await.unwrap().unwrap();
            let peer = DeviceId::from_bytes([2; 32]);
            let (out, answers) = mpsc::channel(16);
            // With the rights and the way back of the command line, so that no second device is needed.
            let caller = Caller::new(daemon.clone(), Who::Local, Line::Local(out));
            daemon.callers().insert(peer, caller.clone());
            Stage { daemon, peer, caller, answers, asked: 0, _folder: folder }
        }

        fn link_up(&self, resumed: bool) {
            let up = Event::LinkUp { peer: self.peer, resumed, same_life: resumed };
            let origin = self.daemon.network().home_relay().clone();
            route(&self.daemon, &origin, Event::LinkDown { peer: self.peer, why: LinkDown::Replaced });
            route(&self.daemon, &origin, up);
        }

        /// Asks to be shown a session that is not there, on channel 1.
        fn ask(&mut self) {
            let attach = SessionAttach {
                session: Uuid::new_v4(),
                channel: 1,
                writer: Uuid::new_v4(),
                name: "desk".into(),
                from: None,
                scrollback: 0,
                lossless: false,
                credit: false,
                cols: 80,
                rows: 24,
                take_control: false,
            };
            self.asked += 1;
            self.caller.request(CallName::Local(self.asked), &attach.to_body());
        }

        fn follow(&mut self, after: Option<EventPlace>) {
            self.asked += 1;
            self.caller.request(CallName::Local(self.asked), &EventsFollow { after }.to_body());
        }

        async fn followed(&mut self) -> (Followed<Told>, usize) {
            let body = self.response().await;
            (EventsFollow::read_answer(&body).unwrap(), body.len())
        }

        async fn answer(&mut self) -> Result<Attached, CallError> {
            SessionAttach::read_answer(&self.response().await)
        }

        /// The next answer; what is said about channels is passed over.
        async fn response(&mut self) -> Vec<u8> {
            loop {
                let (channel, message) = tokio::time::timeout(PATIENCE, self.answers.recv()).await.unwrap().unwrap();
                if channel == CALLS
                    && let CallMessage::Response { body, .. } = CallMessage::decode(&message).unwrap()
                {
                    return body.to_vec();
                }
            }
        }
    }

    #[tokio::test]
    async fn an_attach_takes_no_channel_of_the_next_link_session() {
        for begun in [false, true] {
            let mut stage = Stage::new().await;
            stage.ask();
            if begun {
                // Now it waits for its channel.
                tokio::task::yield_now().await;
            }
            stage.link_up(false);
            stage.caller.open(1.into(), terminal::LABEL).unwrap();
            assert_eq!(stage.answer().await.unwrap_err().code, ErrorCode::Conflict, "begun: {begun}");
            // The channel waits for an attach of its own session, and finds that the session is not there.
            stage.ask();
            assert_eq!(stage.answer().await.unwrap_err().code, ErrorCode::NotFound);
            assert!(stage.caller.inbox(1).is_none(), "the channel was closed");
        }
    }

    /// One that asks for much and reads nothing. What is told after that shows which answers were made by then.
    #[tokio::test]
    async fn a_caller_that_asks_and_does_not_read_has_a_bounded_number_of_answers_made() {
        let mut stage = Stage::new().await;
        let daemon = stage.daemon.clone();
        let tell = || daemon.tell(|| happy_rpc::Event::SessionRemoved { session: Uuid::new_v4() });
        stage.follow(None);
        let (begun, _) = stage.followed().await;
        let after = Some(EventPlace { log: begun.log, number: begun.number });
        (0..400).for_each(|_| tell());
        stage.follow(after);
        let (before, bytes) = stage.followed().await;
        assert!(bytes > 48 * 1024 && !before.more, "{bytes}, {}", before.more);

        // As many calls as may be outstanding.
        for _ in 0..MAX_OUTSTANDING {
            stage.follow(after);
        }
        // Every task has begun, and waits for whatever it waits for.
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        tell();
        let mut made = 0;
        for _ in 0..MAX_OUTSTANDING {
            let (answer, bytes) = stage.followed().await;
            made += if answer.number == before.number { bytes } else { 0 };
        }
        // The queue of this caller holds a few as well.
        assert!((4..9 * 1024 * 1024).contains(&made), "{made} bytes waited");
    }

    #[tokio::test]
    async fn a_refusal_does_not_repeat_what_it_refuses() {
        let mut stage = Stage::new().await;
        stage.asked += 1;
        let params = format!(r#"{{"session":"{}","text":"","enter":"{}"}}"#, Uuid::nil(), "x".repeat(200_000));
        let body = format!(r#"{{"method":"session.type","params":{params}}}"#);
        stage.caller.request(CallName::Local(stage.asked), body.as_bytes());
        let bytes = stage.response().await.len();
        assert!((1..1_000).contains(&bytes), "{bytes}");
    }

    #[tokio::test]
    async fn an_attach_waits_on_in_a_link_session_that_is_resumed() {
        let mut stage = Stage::new().await;
        stage.ask();
        tokio::task::yield_now().await;
        stage.link_up(true);
        stage.caller.open(1.into(), terminal::LABEL).unwrap();
        assert_eq!(stage.answer().await.unwrap_err().code, ErrorCode::NotFound, "such a session");
        assert!(stage.caller.inbox(1).is_none(), "the channel was taken, and closed");
    }
}
