//! The daemon: owns the links to other devices, answers calls, and starts what runs in the background.
//!
//! | module | what it is |
//! |---|---|
//! | [`socket`], [`local`] | the language of the local socket (`docs/LOCAL.md`) |
//! | [`server`], [`proxy`] | its two kinds of client: one of this machine, one that speaks to another |
//! | [`network`], [`trust`], [`router`] | the relays, which of them are believed, the links through them, and where what comes over them goes |
//! | [`pairing`], [`join`] | both sides of a pairing |
//! | [`outbox`], [`queue`] | commands for other machines, which wait for a link |
//! | [`keys`], [`doubts`] | keys that change while it runs, and signs that somebody has a copy of them |
//! | [`records`] | what this machine says of itself, for those who may look while it is away, and the order in which it stops |
//! | [`metrics`], [`processes`], [`incidents`] | how everything is, found out when somebody asks |
//! | [`relay`] | the relay inside; the local API is [`crate::api`] |

pub mod doubts;
pub mod incidents;
pub mod join;
pub mod keys;
pub mod local;
pub mod metrics;
pub mod network;
pub mod outbox;
pub mod pairing;
pub mod processes;
pub mod proxy;
pub mod queue;
pub mod records;
pub mod relay;
pub mod router;
pub mod server;
pub mod socket;
pub mod trust;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use happy_crypto::{DeviceId, Identity};
use happy_pairing::Origin;
use happy_rpc::{Event, EventPlace, Followed, SessionState, Told};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tracing_subscriber::EnvFilter;

use crate::api;
use crate::daemon::doubts::Doubts;
use crate::daemon::incidents::Incidents;
use crate::daemon::local::{DaemonStatus, DeviceEntry, LocalEvent, MachineEntry, Reach};
use crate::daemon::metrics::Sampler;
use crate::daemon::network::{LinkNews, Network};
use crate::daemon::outbox::Outboxes;
use crate::daemon::pairing::Pairing;
use crate::daemon::records::Records;
use crate::daemon::relay::EmbeddedRelay;
use crate::files::Files;
use crate::service::{self, Auditor, Caller, EventLog, Once};
use crate::session::{Config, Login, Sessions};
use crate::store::{
    API_PORT, AccessKey, Audit, CommandsFile, DaemonLock, DaemonState, Home, LogFile, PairSecretsFile, Prekeys,
    RELAY_PORT, Roster, Settings, fit_name, host_name, unix_ms,
};
use crate::trouble::Trouble;

/// Events that wait for a local client; one that is slower is told to ask for the lists again.
const LOCAL_EVENTS: usize = 256;
/// The most open files that are asked for. Some systems grant a billion, and programs in the sessions inherit the limit: those
/// that go through all descriptors at their start would do so for minutes. This is also what macOS allows at most.
const MAX_DESCRIPTORS: u64 = 10_240;
/// In the place of a relay's address: the one inside the daemon.
pub const INSIDE: &str = "inside";
/// How long the answer to a call that ends the daemon has to leave it. A link that is slower is told goodbye without it, and the caller that
/// the outcome is not known.
const LAST_ANSWER: Duration = Duration::from_millis(300);
/// How long goodbyes may take.
const FAREWELL: Duration = Duration::from_secs(3);

/// What a person may decide at the start; what is missing is taken from the settings, then from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The relay to use instead of one inside.
    pub relay: Option<String>,
    /// The port of the relay inside; 0 for any free one.
    pub relay_port: Option<u16>,
    /// The port of the local API; 0 for any free one.
    pub api_port: Option<u16>,
    /// No local API.
    pub no_api: bool,
    /// What to do when a default port is taken.
    pub taken: Taken,
}

/// What to do when a default port is used by another program. One that a person chose is never exchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Taken {
    /// Say so: whoever was invited here looks for this machine there.
    #[default]
    Refuse,
    /// Take a free one at a machine that has joined others and has let nobody in.
    FreeForGuest,
    /// Take a free one, unless somebody was let in.
    Free,
}

impl Taken {
    fn allows_another(self, roster: &Roster) -> bool {
        let peers = roster.peers();
        let let_in = peers.iter().any(|peer| roster.role_of(&peer.device).is_some());
        match self {
            Taken::Refuse => false,
            Taken::FreeForGuest => !let_in && !peers.is_empty(),
            Taken::Free => !let_in,
        }
    }
}

/// The running daemon.
pub struct Daemon {
    home: Home,
    identity: Identity,
    name: String,
    start: Instant,
    started_at: u64,
    api: Option<api::Doorbell>,
    api_trouble: Option<String>,
    sessions: Sessions,
    roster: Mutex<Roster>,
    pair_secrets: Mutex<PairSecretsFile>,
    prekeys: Mutex<Prekeys>,
    doubts: Mutex<Doubts>,
    once: Arc<Once>,
    outboxes: Outboxes,
    files: Files,
    auditor: Auditor,
    records: Records,
    sampler: Sampler,
    incidents: Incidents,
    network: Network,
    pairing: Pairing,
    relay: Option<EmbeddedRelay>,
    local_events: broadcast::Sender<Arc<[u8]>>,
    events: Mutex<EventLog>,
    stop: watch::Sender<bool>,
    again: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
    /// The linked devices that have said something.
    callers: Mutex<HashMap<DeviceId, Arc<Caller>>>,
    _lock: DaemonLock,
}

/// How long a lock that nobody answers for is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The home's lock; `None` when a daemon holds it. One that was killed while it started another program has it until that program runs, which
/// takes a moment on a busy machine.
async fn take_lock(home: &Home) -> Result<Option<DaemonLock>, Trouble> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        if let Some(lock) = DaemonLock::take(&home.lock())? {
            return Ok(Some(lock));
        }
        if Instant::now() > deadline || tokio::net::UnixStream::connect(home.socket()).await.is_ok() {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Daemon {
    /// Starts the daemon of a home; `None` when another process is it already.
    ///
    /// # Errors
    /// When the home, a key, a port or the relay's address cannot be used.
    pub async fn start(home: Home, options: Options) -> Result<Option<Arc<Daemon>>, Trouble> {
        home.prepare()?;
        let settings = home.settings()?;
        let Some(lock) = take_lock(&home).await? else { return Ok(None) };
        start_log(&home)?;
        raise_descriptor_limit();
        let start = Instant::now();
        let Keys { identity, roster, pair_secrets, prekeys } = open_keys(&home, start)?;
        let name = settings.name.as_deref().map(fit_name).filter(|name| !name.is_empty()).unwrap_or_else(host_name);

        let given = options.relay.clone().or_else(|| settings.relay.clone()).filter(|relay| relay != INSIDE);
        let given = given.map(|address| parse_relay(&address, options.relay.is_none())).transpose()?;
        let another = options.taken.allows_another(&roster);
        let api = open_api(&home, &options, &settings, another).await;
        let (api, api_trouble) = match api {
            Ok(api) => (api, None),
            Err(trouble) => {
                tracing::warn!(%trouble, "the daemon goes on without its local API");
                (None, Some(format!("{} {}", trouble.what, trouble.todo)))
            }
        };
        let relay = match given {
            Some(_) => None,
            None => {
                let relay = match options.relay_port.or(settings.relay_port) {
                    Some(port) => EmbeddedRelay::start(&home, port).await?,
                    None => match EmbeddedRelay::start(&home, RELAY_PORT).await {
                        Err(trouble) if another => {
                            tracing::info!(%trouble, "another port is taken");
                            EmbeddedRelay::start(&home, 0).await?
                        }
                        started => started?,
                    },
                };
                Some(relay)
            }
        };
        let home_relay = match (given, &relay) {
            (Some(origin), _) => origin,
            (None, Some(relay)) => parse_relay(&relay.local_origin(), false)?,
            // One of the two is there: see above.
            (None, None) => return Err(Trouble::new("There is no relay.", "Give one with `--relay`.")),
        };
        let sessions = open_sessions(&home, &settings).await?;
        let once = Once::new(CommandsFile::open(&home.commands(), *uuid::Uuid::new_v4().as_bytes())?);
        let outboxes = Outboxes::open(&home, |device| roster.is_member(device))?;
        roster.peers().iter().filter(|peer| peer.removed_us).for_each(|peer| outboxes.removed_by(&peer.device));
        let files = Files::new(settings.roots.clone(), home.root().to_owned());
        let auditor = Auditor::new(Audit::open(&home.audit())?);
        let started_at = unix_ms();
        let port = api.as_ref().map_or(0, |api| api.doorbell().port);
        let records = Records::open(&home, identity.device_id(), &name, port, started_at)?;
        let (network, events) = Network::start(&home, identity.clone(), prekeys.all(), home_relay)?;
        let listener = server::bind(&home.socket())?;

        let daemon = Arc::new(Daemon {
            start,
            started_at,
            api: api.as_ref().map(api::Bound::doorbell),
            api_trouble,
            sessions,
            roster: Mutex::new(roster),
            pair_secrets: Mutex::new(pair_secrets),
            prekeys: Mutex::new(prekeys),
            doubts: Mutex::default(),
            once,
            outboxes,
            files,
            auditor,
            records,
            sampler: Sampler::default(),
            incidents: Incidents::default(),
            network,
            pairing: Pairing::new(),
            relay,
            local_events: broadcast::channel(LOCAL_EVENTS).0,
            events: Mutex::default(),
            stop: watch::Sender::new(false),
            again: AtomicBool::new(false),
            tasks: Mutex::default(),
            callers: Mutex::default(),
            _lock: lock,
            home,
            identity,
            name,
        });
        daemon.run(keys::keep(daemon.clone()));
        daemon.name_peers();
        daemon.run(keys::rotate(daemon.clone()));
        daemon.run(outbox::run(daemon.clone()));
        daemon.run(records::follow(daemon.clone()));
        daemon.run(records::publish(daemon.clone()));
        daemon.run(records::keep(daemon.clone()));
        daemon.run(router::run(daemon.clone(), events));
        daemon.run(router::tell_sessions(daemon.clone()));
        if let Some(api) = api {
            daemon.run(api.serve(daemon.clone()));
        }
        daemon.home.write_state(&DaemonState {
            pid: std::process::id(),
            version: crate::VERSION.to_owned(),
            started_at: daemon.started_at,
            api_port: daemon.api_port(),
            relay_port: daemon.relay.as_ref().map(EmbeddedRelay::port),
        })?;
        // Last: whoever can connect finds everything in place.
        daemon.run(server::serve(listener, daemon.clone()));
        tracing::info!(device = %daemon.device_id().short(), version = crate::VERSION, "the daemon runs");
        Ok(Some(daemon))
    }

    /// Runs a task for as long as the daemon.
    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(tokio::spawn(task).abort_handle());
    }

    /// See [`Daemon::begin_stop`], which says who asked.
    fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Asks the daemon to end in a moment: when the answer that says so is on its way to the other side.
    pub fn stop_soon(self: &Arc<Self>) {
        let daemon = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LAST_ANSWER).await;
            daemon.begin_stop(happy_rpc::StopSource::Call);
        });
    }

    /// Asks the daemon to end, and whoever runs it to start it anew: this machine has new keys.
    pub fn start_again(self: &Arc<Self>) {
        self.again.store(true, Ordering::Release);
        self.begin_stop(happy_rpc::StopSource::Cli);
    }

    /// Whether it shall be started anew.
    pub fn is_to_start_again(&self) -> bool {
        self.again.load(Ordering::Acquire)
    }

    /// Resolves when somebody has asked the daemon to end.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // The sender lives as long as `self`.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Takes each lock that calls and packets need, for a moment. A daemon in which somebody holds one for ever is not well, and this does not
    /// come back; so it is called from a thread that may wait.
    pub fn is_well(&self) -> bool {
        drop(self.pair_secrets());
        drop(self.events());
        drop(self.roster());
        drop(self.prekeys());
        drop(self.doubts());
        drop(self.callers());
        self.network.links_up();
        self.sessions.known();
        true
    }

    /// Ends everything but the sessions, in the stop order: *shutting-down* is told if nobody has begun a stop, what was asked for is answered,
    /// what is open is closed, *offline* is told, and the goodbyes follow.
    pub async fn shut_down(self: &Arc<Self>) {
        tracing::info!("the daemon ends; sessions go on");
        self.begin_stop(happy_rpc::StopSource::Signal);
        self.tell_local(&LocalEvent::Stopping {}.to_body());
        let _ = self.pairing.cancel().await;
        self.say_offline().await;
        let farewell = async {
            self.network.shut_down().await;
            if let Some(relay) = &self.relay {
                relay.shut_down().await;
            }
        };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("not every goodbye was said in time");
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
        // The lock goes with the process; until then nobody else can have put files of these names there.
        let _ = std::fs::remove_file(self.home.socket());
        let _ = std::fs::remove_file(self.home.state());
    }

    /// Where its files are.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The keys of this machine.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who this machine is.
    pub fn device_id(&self) -> DeviceId {
        self.identity.device_id()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Unix milliseconds.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// The sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// What this machine and others say of themselves.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// What is kept between two looks at how everything is.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// What went wrong, and what was done about it.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// The links.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The invitation, if one is live.
    pub fn pairing(&self) -> &Pairing {
        &self.pairing
    }

    /// The members. Not to be held across a wait.
    pub fn roster(&self) -> MutexGuard<'_, Roster> {
        // Nothing panics in the middle of a change; and a change is made on the disk first.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is shared with each device. Taken before any other lock, and not to be held across a wait.
    pub fn pair_secrets(&self) -> MutexGuard<'_, PairSecretsFile> {
        self.pair_secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The signed prekeys. Not to be held across a wait.
    pub fn prekeys(&self) -> MutexGuard<'_, Prekeys> {
        self.prekeys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs that somebody has a copy of a device. Not to be held across a wait.
    pub fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The commands that were begun here.
    pub fn once(&self) -> &Arc<Once> {
        &self.once
    }

    /// The files that calls may touch.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The log of calls.
    pub fn auditor(&self) -> &Auditor {
        &self.auditor
    }

    /// The commands for other machines.
    pub fn outboxes(&self) -> &Outboxes {
        &self.outboxes
    }

    /// The linked devices that have said something. Not to be held across a wait.
    fn callers(&self) -> MutexGuard<'_, HashMap<DeviceId, Arc<Caller>>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hash of the phone app in this binary.
    pub fn app_hash(&self) -> String {
        env!("HAPPY_APP_HASH").to_owned()
    }

    /// What local clients are told from now on.
    pub fn subscribe_local(&self) -> broadcast::Receiver<Arc<[u8]>> {
        self.local_events.subscribe()
    }

    /// What happens on links from now on.
    pub fn subscribe_links(&self) -> broadcast::Receiver<(DeviceId, LinkNews)> {
        self.network.subscribe()
    }

    /// Tells an event to every local client.
    pub fn tell_local(&self, body: &[u8]) {
        // Without a client there is nobody to tell.
        let _ = self.local_events.send(body.into());
    }

    /// Tells everybody of an event. The log is held until it is told, so that nobody hears of a later one before (`PROTOCOL 10.3`); what
    /// the event says is found out meanwhile, so that a later one is never the older truth.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        let mut log = self.events();
        let told = log.push(event());
        self.tell_local(&told.to_body());
        for device in self.links_of_callers() {
            let seen = told.clone().seen_by(Some(&device.to_string()));
            self.network.emit(&device, seen.to_body());
        }
    }

    /// Tells everybody that the devices have changed; each sees the list with itself marked.
    pub fn tell_devices(&self) {
        self.tell(|| Event::DevicesChanged(service::devices(self, None)));
    }

    /// What was told after a place, as a device (or the person at this machine) sees it.
    pub fn events_after(&self, place: Option<EventPlace>, device: Option<DeviceId>) -> Followed<Told> {
        self.events().after(place, device.map(|device| device.to_string()).as_deref())
    }

    /// What was told. Taken before the members and the links, and not to be held across a wait.
    fn events(&self) -> MutexGuard<'_, EventLog> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origins under which this machine's relay can be reached by others, the most useful first.
    pub fn relay_origins(&self) -> Vec<String> {
        match &self.relay {
            Some(relay) => relay.network_origins().into_iter().chain([relay.local_origin()]).collect(),
            None => vec![self.network.home_relay().to_string()],
        }
    }

    /// The origins that stand in invitations, the most useful first, and who can reach them.
    pub fn invitation_origins(&self) -> Vec<(Origin, Reach)> {
        let network = |text: String| Some((Origin::parse(&text).ok()?, Reach::ThisNetwork));
        match &self.relay {
            Some(relay) => {
                let local = Origin::parse(&relay.local_origin()).ok().map(|origin| (origin, Reach::ThisMachine));
                relay.network_origins().into_iter().filter_map(network).chain(local).collect()
            }
            None => {
                let origin = self.network.home_relay().clone();
                let reach = if origin.is_https() { Reach::Relay } else { Reach::ThisMachine };
                vec![(origin, reach)]
            }
        }
    }

    /// Whether the relay runs inside the daemon.
    pub fn has_own_relay(&self) -> bool {
        self.relay.is_some()
    }

    /// The devices, with what only the person at this machine is told.
    pub fn devices(&self) -> Vec<DeviceEntry> {
        let entry = |device: happy_rpc::Device| {
            let current = device.device.parse().ok().filter(|_| device.removed_at.is_none());
            let removed_us = |id: &DeviceId| self.roster().peer(id).is_some_and(|peer| peer.removed_us);
            DeviceEntry {
                pair_again: current.is_some_and(|id| !removed_us(&id) && self.must_pair_again(&id).is_some()),
                stranger_at: current.and_then(|id| self.doubts().stranger_at(&id)),
                device,
            }
        };
        service::devices(self, None).into_iter().map(entry).collect()
    }

    /// The machines that this one can speak to.
    pub fn machines(&self) -> Vec<MachineEntry> {
        let up = self.network.links_up();
        let machines = self.roster().machines();
        let entry = |peer: crate::store::Peer| {
            let seen = self.records.of(&peer.device).unwrap_or_default();
            let is_up = up.contains(&peer.device);
            MachineEntry {
                device: peer.device.to_string(),
                your_role: service::role(peer.my_role),
                link_up: is_up,
                last_seen: Some(seen.last_seen).filter(|at| *at > 0 && !is_up),
                versions: seen.versions,
                state: seen.state,
                metadata: seen.metadata,
                removed_us: peer.removed_us,
                pair_again: self.must_pair_again(&peer.device).filter(|_| !peer.removed_us),
                relay: self.network.relay_of(&peer).to_string(),
                name: peer.name,
            }
        };
        machines.into_iter().map(entry).collect()
    }

    /// There is a new key for a relay in the home.
    ///
    /// # Errors
    /// When the address or the key cannot be read.
    pub fn relay_enrolled(&self, enrolled: &local::RelayEnrolled) -> Result<happy_rpc::Done, happy_rpc::CallError> {
        use happy_rpc::{CallError, ErrorCode};
        let origin = Origin::parse(&enrolled.origin).map_err(|error| {
            CallError::new(ErrorCode::Malformed, format!("the relay's address cannot be read: {error}"))
        })?;
        self.network.enrolled(&origin).map_err(|trouble| CallError::new(ErrorCode::Failed, trouble.what))?;
        Ok(happy_rpc::Done {})
    }

    /// The port of the local API, if there is one.
    pub fn api_port(&self) -> Option<u16> {
        self.api.as_ref().map(|api| api.port)
    }

    /// An address that lets one browser into the dashboard, once.
    ///
    /// # Errors
    /// When there is no local API.
    pub fn dashboard(&self) -> Result<local::DashboardAddress, happy_rpc::CallError> {
        let api = self.api.as_ref().ok_or_else(|| api::is_off(self.api_trouble.as_deref()))?;
        Ok(api.dashboard())
    }

    /// What the daemon is doing.
    pub async fn status(&self) -> DaemonStatus {
        let sessions = self.sessions.list().await;
        let devices = self.roster().peers().len();
        DaemonStatus {
            pid: std::process::id(),
            version: crate::holder::build::version(),
            device: self.device_id().to_string(),
            name: self.name.clone(),
            home: self.home.root().display().to_string(),
            started_at: self.started_at,
            api_port: self.api_port(),
            api_listen: self.api.as_ref().and_then(api::Doorbell::beyond),
            api_trouble: self.api_trouble.clone(),
            relays: self.relays(),
            sessions_running: sessions.iter().filter(|session| session.state == SessionState::Running).count(),
            devices,
            links_up: self.network.links_up().len(),
            errors: self.errors(),
            recoveries: self.incidents.recoveries(),
        }
    }

    /// The relays in use.
    pub fn relays(&self) -> Vec<local::RelayStatus> {
        let home = self.network.home_relay().to_string();
        let mut relays = self.network.relays();
        for relay in relays.iter_mut().filter(|relay| relay.origin == home) {
            relay.embedded = self.has_own_relay();
            if let Some(own) = &self.relay {
                relay.key = own.key().map(ToString::to_string);
            }
            relay.origins = self.relay_origins();
        }
        relays
    }
}

/// What is read first, and what a crash has left undone about it is done.
struct Keys {
    identity: Identity,
    roster: Roster,
    pair_secrets: PairSecretsFile,
    prekeys: Prekeys,
}

fn open_keys(home: &Home, start: Instant) -> Result<Keys, Trouble> {
    let mut key = AccessKey::open(&home.access_key())?;
    let roster = Roster::open(home, &key.identity)?;
    let me = key.identity.device_id();
    let pair_secrets = PairSecretsFile::open(&home.pair_secrets(), me, |device| roster.is_member(device))?;
    let (older, removed) = (key.old_prekey.clone(), roster.removed().len());
    let prekeys = Prekeys::open(&home.prekeys(), &key.identity, older, removed, keys::clock(start))?;
    key.drop_prekey(&home.access_key())?;
    Ok(Keys { identity: key.identity, roster, pair_secrets, prekeys })
}

/// `kept` is what settings.json says.
fn parse_relay(address: &str, kept: bool) -> Result<Origin, Trouble> {
    Origin::parse(address).map_err(|error| match kept {
        true => Trouble::new(
            format!("`{address}`, which is the `relay` in settings.json, cannot be a relay: {error}."),
            "Write its address there like \"https://relay.example\", or \"inside\" for the one inside the daemon.",
        ),
        false => Trouble::new(
            format!("`{address}` cannot be a relay: {error}."),
            "Give its address like `--relay https://relay.example`, or set HAPPY_SERVER_URL.",
        ),
    })
}

/// Where the local API listens, unless it is switched off. The daemon goes on without it when it cannot be had.
async fn open_api(
    home: &Home,
    options: &Options,
    settings: &Settings,
    another: bool,
) -> Result<Option<api::Bound>, Trouble> {
    if options.no_api || settings.api == Some(false) {
        return Ok(None);
    }
    let chosen = options.api_port.or(settings.api_port);
    let listen = settings.api_listen.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
    let wanted =
        api::Wanted { listen, port: chosen.unwrap_or(API_PORT), names: settings.api_names.clone().unwrap_or_default() };
    match api::Bound::open(home, &wanted).await {
        Err(trouble) if another && chosen.is_none() => {
            tracing::info!(%trouble, "another port is taken");
            api::Bound::open(home, &api::Wanted { port: 0, ..wanted }).await.map(Some)
        }
        opened => opened.map(Some),
    }
}

async fn open_sessions(home: &Home, settings: &Settings) -> Result<Sessions, Trouble> {
    let failed = |error: &dyn std::fmt::Display| {
        Trouble::new(
            format!("The sessions in {} cannot be opened: {error}.", home.sessions().display()),
            "Look at that folder and its permissions.",
        )
    };
    let mut config = Config::new(home.root()).map_err(|error| failed(&error))?;
    config.keep = settings.keep.as_ref().map(|keep| keep.bytes);
    // The environment comes before a project.
    config.projects = std::env::var_os("HAPPY_KEEP").is_none_or(|keep| keep.is_empty());
    config.upgrade = settings.upgrade_sessions.unwrap_or(true);
    if settings.tmux == Some(false) {
        config.tmux.clear();
    }
    if settings.login_environment.unwrap_or_else(crate::session::login::is_service) {
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        config.login = Some(Arc::new(Login::new(crate::session::login::shell(), program)));
    }
    Sessions::open(config).await.map_err(|error| failed(&error))
}

/// Takes the descriptors that the system grants to whoever asks: links, sessions and the relay inside share them, and the
/// usual 1,024 are few. Without them the daemon works too.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_DESCRIPTORS, |hard| hard.min(MAX_DESCRIPTORS));
    if limit.current.is_none_or(|soft| soft >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        tracing::warn!(%error, wanted, "the limit of open files stays as it was");
    }
}

fn start_log(home: &Home) -> Result<(), Trouble> {
    let file = LogFile::open(&home.log())?;
    let filter = EnvFilter::try_from_env("HAPPY_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(file).finish();
    // A second daemon in one process (tests) writes to the log of the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
