//! A phone without a browser: the same crates as the phone app, over the tokio driver instead of the browser's.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use happy_crypto::{DeviceId, Identity};
use happy_link::driver::RelayUrl;
use happy_link::driver::tokio::{Config, EVENTS, Handle, Trust, spawn};
use happy_link::{Answer, Class, Event, Login, PairSecrets, Peer, Side};
use happy_pairing::{Invitation, Joiner, JoinerConfig, JoinerEvent, NextStatement, Origin, PairedPeer, format_code};
use happy_rpc::{Attached, Call, Session, SessionAttach, SessionCreate, SessionDetach};
use happy_wire::terminal::{LABEL, TerminalMessage};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use uuid::Uuid;

use crate::PATIENCE;

/// A device that has scanned an invitation and not been let in yet.
pub struct Guest {
    identity: Identity,
    joiner: Joiner,
    handle: Handle,
    events: Receiver<Event>,
    began: Instant,
    refusals: u32,
}

/// What a guest came to.
pub enum Paired {
    /// It knows the machine now.
    Yes(Box<Phone>),
    /// It does not; the sentence that a person would read.
    No(String),
}

impl Guest {
    /// Takes up an invitation by its link.
    ///
    /// # Errors
    /// When the link is not one.
    pub fn scan(link: &str, name: &str) -> Result<Guest> {
        let origin = Invitation::parse_link(link)?.0;
        Guest::scan_from(link, name, &origin.to_string())
    }

    /// Like [`Self::scan`], for one that reaches the relay of the link by another address.
    ///
    /// # Errors
    /// When the link or the address is not one.
    pub fn scan_from(link: &str, name: &str, relay: &str) -> Result<Guest> {
        let identity = Identity::generate(&mut happy_link::driver::rng());
        let (origin, invitation) = Invitation::parse_link(link)?;
        let (handle, events) = spawn(Config {
            identity: identity.clone(),
            prekeys: Vec::new(),
            login: Login::Guest { epoch: 1, ticket: invitation.ticket() },
            relay: RelayUrl::parse(&Origin::parse(relay)?.websocket_url())?,
            trust: Trust::System,
            events: EVENTS,
        })?;
        let config = JoinerConfig {
            identity: identity.clone(),
            invitation,
            origin,
            my_name: name.to_owned(),
            next_statement: NextStatement::FIRST,
            unix_now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        let joiner = Joiner::new(config, Duration::ZERO);
        Ok(Guest { identity, joiner, handle, events, began: Instant::now(), refusals: 0 })
    }

    /// Goes on until there is a code to show, and gives it as six digits.
    ///
    /// # Errors
    /// When the pairing fails before, or nothing happens in time.
    pub async fn code(&mut self) -> Result<String> {
        match self.next().await? {
            JoinerEvent::ShowCode { code, .. } => Ok(format_code(code).replace(' ', "")),
            JoinerEvent::Failed(failure) => bail!("{failure}"),
            JoinerEvent::Paired(_) => bail!("paired without a code"),
        }
    }

    /// How often the relay has sent it away.
    pub fn refusals(&self) -> u32 {
        self.refusals
    }

    /// Goes on until the machine has decided.
    ///
    /// # Errors
    /// When nothing happens in time.
    pub async fn outcome(mut self) -> Result<Paired> {
        loop {
            match self.next().await? {
                JoinerEvent::ShowCode { .. } => {}
                JoinerEvent::Failed(failure) => return Ok(Paired::No(failure.to_string())),
                JoinerEvent::Paired(peer) => {
                    self.handle.shutdown().await;
                    return Ok(Paired::Yes(Box::new(Phone::connect(self.identity, *peer)?)));
                }
            }
        }
    }

    /// Waits, decodes, and leaves the deciding to the joiner.
    async fn next(&mut self) -> Result<JoinerEvent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some((to, packet)) = self.joiner.poll_transmit() {
                // Not sent means lost on the way, and the joiner repeats what was lost.
                let _ = self.handle.send_packet(to, &packet);
            }
            if let Some(event) = self.joiner.poll_event() {
                return Ok(event);
            }
            ensure!(Instant::now() < deadline, "the pairing did not go on in time");
            let now = self.began.elapsed();
            let wait = self.joiner.poll_timeout().map_or(PATIENCE, |at| at.saturating_sub(now));
            match timeout(wait, self.events.recv()).await {
                Err(_) => self.joiner.handle_timeout(self.began.elapsed()),
                Ok(None) => bail!("the connection ended: {:?}", self.handle.trouble()),
                Ok(Some(Event::RelayUp { host: Some(host) })) => self.joiner.host_known(self.began.elapsed(), host),
                Ok(Some(Event::Packet { from, bytes, .. })) => {
                    self.joiner.handle_packet(&mut happy_link::driver::rng(), self.began.elapsed(), from, &bytes);
                }
                Ok(Some(Event::Goaway { .. })) => self.refusals += 1,
                Ok(Some(Event::RelayDown { why, last: true })) => bail!("the connection to the relay ended: {why:?}"),
                Ok(Some(_)) => {}
            }
        }
    }
}

/// A device that is paired with one machine.
pub struct Phone {
    /// What it is called everywhere.
    pub device: DeviceId,
    /// The machine.
    pub machine: DeviceId,
    identity: Identity,
    peer: PairedPeer,
    secrets: PairSecrets,
    handle: Handle,
    events: Receiver<Event>,
    epoch: u64,
}

impl Phone {
    fn connect(identity: Identity, peer: PairedPeer) -> Result<Phone> {
        let secrets = PairSecrets { current: peer.secret.clone(), previous: None };
        Self::log_in(identity, peer, secrets, 2)
    }

    fn log_in(identity: Identity, peer: PairedPeer, secrets: PairSecrets, epoch: u64) -> Result<Phone> {
        let relay = peer.relays.first().context("the machine named no relay")?.clone();
        Self::log_in_at(&relay, identity, peer, secrets, epoch)
    }

    fn log_in_at(
        relay: &Origin,
        identity: Identity,
        peer: PairedPeer,
        secrets: PairSecrets,
        epoch: u64,
    ) -> Result<Phone> {
        let (handle, events) = spawn(Config {
            identity: identity.clone(),
            prekeys: Vec::new(),
            login: Login::Device { epoch },
            relay: RelayUrl::parse(&relay.websocket_url())?,
            trust: Trust::System,
            events: EVENTS,
        })?;
        let bundle = peer.bundle.clone().context("the machine gave no bundle")?;
        handle.add_peer(Peer {
            record: peer.identity.clone(),
            side: Side::Initiator(bundle),
            secrets: secrets.clone(),
        })?;
        let machine = peer.identity.device_id();
        Ok(Phone { device: identity.device_id(), machine, identity, peer, secrets, handle, events, epoch })
    }

    /// The same device in a new process life.
    ///
    /// # Errors
    /// When its state cannot be used.
    pub async fn restart(self) -> Result<Phone> {
        let Away { identity, peer, secrets, epoch } = self.leave().await;
        Self::log_in(identity, peer, secrets, epoch + 1)
    }

    /// Says goodbye, as far as its connection carries that, and ends.
    pub async fn leave(mut self) -> Away {
        // What nobody has looked at yet is stored before the end; an old secret is good for one more handshake at the most.
        self.catch_up();
        self.handle.shutdown().await;
        Away { identity: self.identity, peer: self.peer, secrets: self.secrets, epoch: self.epoch }
    }

    /// Takes what has happened and nobody has looked at yet.
    pub fn catch_up(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.keep(&event);
        }
    }

    /// Stores what handshakes leave; in memory, which is what this phone has instead of a disk.
    fn keep(&mut self, event: &Event) {
        match event {
            Event::PairSecrets { peer, session } => {
                if let Some(secrets) = self.handle.pair_secrets(peer, session) {
                    self.secrets = secrets;
                    self.handle.pair_secrets_stored(peer, session);
                }
            }
            Event::NewBundle { peer } => self.peer.bundle = self.handle.bundle(peer),
            _ => {}
        }
    }

    /// Calls the machine.
    ///
    /// # Errors
    /// The machine's refusal, or what became of the call instead of an answer.
    pub async fn call<C: Call>(&self, call: C) -> Result<C::Output> {
        match self.handle.call(&self.machine, call.to_body(), Some(PATIENCE)).await? {
            Answer::Body(body) => Ok(C::read_answer(&body)?),
            other => Err(anyhow!("{} was answered with {other:?}", C::METHOD)),
        }
    }

    /// The next event of the link.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn event(&mut self) -> Result<Event> {
        let event = timeout(PATIENCE, self.events.recv()).await.context("nothing happened in time")?;
        let event = event.context("the driver ended")?;
        self.keep(&event);
        Ok(event)
    }

    /// Waits for an event that this function finds something in.
    ///
    /// # Errors
    /// When none comes in time.
    pub async fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> Result<T> {
        loop {
            let event = self.event().await.with_context(|| format!("waiting for {what}"))?;
            if let Some(found) = find(&event) {
                return Ok(found);
            }
        }
    }

    /// Starts a program.
    ///
    /// # Errors
    /// The machine's refusal.
    pub async fn create(&self, command: &[&str]) -> Result<Session> {
        self.create_sized(command, 80, 24).await
    }

    /// Starts a program on a screen of this size.
    ///
    /// # Errors
    /// The machine's refusal.
    pub async fn create_sized(&self, command: &[&str], cols: u16, rows: u16) -> Result<Session> {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        self.call(SessionCreate { command, cols, rows, ..SessionCreate::default() }).await
    }

    /// Looks at a session and types into it.
    ///
    /// # Errors
    /// The machine's refusal.
    pub async fn attach(&mut self, session: Uuid) -> Result<Viewer> {
        self.attach_from(session, Uuid::new_v4(), None).await
    }

    /// The same as a writer that may have been there before, from an offset on.
    ///
    /// # Errors
    /// The machine's refusal, or that the link is down.
    pub async fn attach_from(&mut self, session: Uuid, writer: Uuid, from: Option<u64>) -> Result<Viewer> {
        let channel = self.handle.open_channel(&self.machine, Class::Interactive, LABEL)?;
        let attached = self
            .call(SessionAttach {
                session,
                channel,
                writer,
                name: "test phone".into(),
                from,
                scrollback: 0,
                lossless: false,
                credit: false,
                cols: 80,
                rows: 24,
                take_control: false,
            })
            .await?;
        Ok(Viewer { channel, typed: attached.input_offset, attached })
    }

    /// Attaches, and gives the bytes of the screen that it is shown first.
    ///
    /// # Errors
    /// The machine's refusal, or when nothing comes in time.
    pub async fn paint(&mut self, session: Uuid) -> Result<(Viewer, Vec<u8>)> {
        let viewer = self.attach(session).await?;
        let mut snapshot = Vec::new();
        loop {
            let Event::Message { channel, bytes, .. } = self.event().await? else { continue };
            if channel != viewer.channel {
                continue;
            }
            self.handle.consumed(&self.machine, channel, bytes.len());
            if let TerminalMessage::Snapshot { part, parts, bytes, .. } = TerminalMessage::decode(&bytes)? {
                snapshot.extend_from_slice(bytes);
                if part + 1 == parts {
                    return Ok((viewer, snapshot));
                }
            }
        }
    }

    /// Leaves a session.
    ///
    /// # Errors
    /// The machine's refusal.
    pub async fn detach(&self, viewer: &Viewer) -> Result<()> {
        self.call(SessionDetach { attachment: viewer.attached.attachment }).await?;
        Ok(())
    }

    /// Types into a session.
    ///
    /// # Errors
    /// When the channel is gone.
    pub async fn type_into(&self, viewer: &mut Viewer, bytes: &[u8]) -> Result<()> {
        let input = TerminalMessage::Input { offset: viewer.typed, bytes };
        viewer.typed += bytes.len() as u64;
        Ok(self.handle.send(&self.machine, viewer.channel, &input.to_vec()).await?)
    }

    /// Types a key into a session whose terminal echoes, and waits for the echo: how long that took.
    ///
    /// # Errors
    /// When none comes in time, or something else.
    pub async fn echo(&mut self, viewer: &mut Viewer) -> Result<Duration> {
        let began = Instant::now();
        self.type_into(viewer, b"x").await?;
        let echo = self.output(viewer).await?;
        let took = began.elapsed();
        ensure!(echo == b"x", "the echo is {echo:?}");
        Ok(took)
    }

    /// The next output of a session.
    ///
    /// # Errors
    /// When none comes in time, or the channel ends.
    pub async fn output(&mut self, viewer: &Viewer) -> Result<Vec<u8>> {
        loop {
            match self.event().await? {
                Event::Message { channel, bytes, .. } if channel == viewer.channel => {
                    self.handle.consumed(&self.machine, channel, bytes.len());
                    if let TerminalMessage::Output { bytes, .. } = TerminalMessage::decode(&bytes)? {
                        return Ok(bytes.to_vec());
                    }
                }
                Event::Closed { channel, code, reason, .. } if channel == viewer.channel => {
                    bail!("the channel was closed: {code}: {reason}")
                }
                _ => {}
            }
        }
    }

    /// Everything that a session prints, up to and including a text.
    ///
    /// # Errors
    /// When it does not come in time.
    pub async fn output_until(&mut self, viewer: &Viewer, text: &str) -> Result<String> {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            let seen = String::from_utf8_lossy(&all).into_owned();
            all.extend(self.output(viewer).await.with_context(|| format!("waiting for `{text}` after `{seen}`"))?);
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// The driver, for what this type has no name for.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// A paired device that is switched off.
pub struct Away {
    identity: Identity,
    peer: PairedPeer,
    secrets: PairSecrets,
    epoch: u64,
}

impl Away {
    /// Comes back, to the relay at this origin, and waits until the machine is reached.
    ///
    /// # Errors
    /// When its state cannot be used, or the machine is not reached in time; it is not lost in that case.
    pub async fn come_back(self, relay: &str) -> std::result::Result<Phone, (Away, anyhow::Error)> {
        let origin = match Origin::parse(relay) {
            Ok(origin) => origin,
            Err(error) => return Err((self, error.into())),
        };
        let kept = Away {
            identity: self.identity.clone(),
            peer: self.peer.clone(),
            secrets: self.secrets.clone(),
            epoch: self.epoch,
        };
        let mut phone = match Phone::log_in_at(&origin, self.identity, self.peer, self.secrets, self.epoch + 1) {
            Ok(phone) => phone,
            Err(error) => return Err((kept, error)),
        };
        let up = |event: &Event| matches!(event, Event::LinkUp { .. }).then_some(());
        match phone.wait_for("the link", up).await {
            Ok(()) => Ok(phone),
            Err(error) => Err((phone.leave().await, error)),
        }
    }
}

/// A session that a phone looks at.
pub struct Viewer {
    /// The channel it is shown on.
    pub channel: u32,
    /// What the machine said of it.
    pub attached: Attached,
    typed: u64,
}
