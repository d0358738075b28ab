//! Machine records (`PROTOCOL 7.1`): what this machine says of itself, kept at its relay for those who may look while it is away, and
//! what other machines said so.
//!
//! Own records are put whenever they change, at each login, and when the relay says that it lost them. The state follows the stop order:
//! *shutting-down*, answers, goodbyes, *offline*. Versions are on the disk before they are sent. After each revocation there is another key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::{Answer, Event};
use happy_pairing::Origin;
use happy_rpc::{
    Call, MachineMetadata, MachineRecords, MachineRecordsGet, MachineState, MachineStatus, StopSource, Told,
};
use happy_wire::record::{Publisher, RecordKey, Seen};
use happy_wire::relay::{RecordAnswer, record_kind};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, mpsc, watch};

use crate::daemon::Daemon;
use crate::daemon::local::LocalEvent;
use crate::daemon::network::LinkNews;
use crate::store::records::{OwnRecords, SeenMachine, read_seen, write_seen};
use crate::store::{Home, host_name, random, unix_ms};
use crate::trouble::Trouble;

/// The last record may take so long to the disk and to its relay; a relay that is not there is not waited for.
const LAST_PUT: Duration = Duration::from_secs(3);
/// How long another machine may take to tell its records.
const ASK: Duration = Duration::from_secs(30);
/// Records of other machines that wait to be looked at; more come from a relay that was not asked for them, and are dropped.
const MAX_SHOWN: usize = 128;
/// Puts are no closer together than this, as a relay wants it; and a relay that lies costs no more than that.
const PUT_PAUSE: Duration = Duration::from_millis(50);
/// What others say is written, and they are asked for it, no more often than this: they say it as often as they like.
const KEEP_PAUSE: Duration = Duration::from_secs(1);
/// A last sign of life is not written down anew for less than this, milliseconds.
const LAST_SEEN_STEP: u64 = 60_000;
/// After so many conflicts in a row a relay is left alone until the next login: two writers are done after a few.
const MAX_CONFLICTS: u32 = 1_000;

/// The records of this machine and of others.
pub struct Records {
    home: Home,
    me: DeviceId,
    own: Mutex<Own>,
    seen: Mutex<BTreeMap<String, SeenMachine>>,
    /// There is something in `seen` that is not on the disk.
    unkept: Notify,
    /// Machines that are asked right now, and whether they are to be asked once more after that.
    asked: Mutex<BTreeMap<DeviceId, bool>>,
    /// Counts what the relay has stored.
    stored: watch::Sender<u64>,
    /// There may be something to put.
    put: Notify,
    /// What relays show of other machines.
    shown: mpsc::Sender<Shown>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Shown>>,
}

/// A record of another machine, as its relay shows it.
struct Shown {
    machine: DeviceId,
    kind: u8,
    last_seen: u64,
    version: u64,
    sealed: Vec<u8>,
}

struct Own {
    kept: OwnRecords,
    key: RecordKey,
    metadata: MachineMetadata,
    state: MachineState,
    /// Of metadata and state.
    publishers: [Publisher; 2],
    conflicts: u32,
}

impl Records {
    /// Those of a daemon that starts.
    ///
    /// # Errors
    /// When what was kept cannot be read or written.
    pub fn open(home: &Home, me: DeviceId, name: &str, port: u16, started_at: u64) -> Result<Records, Trouble> {
        let mut kept = OwnRecords::open(home)?;
        let key = kept.key.get_or_insert_with(|| RecordKey::next(&mut random(), None)).clone();
        let metadata = MachineMetadata {
            name: name.to_owned(),
            host: host_name(),
            platform: std::env::consts::OS.to_owned(),
            version: crate::VERSION.to_owned(),
            home: std::env::home_dir().unwrap_or_default().display().to_string(),
            happy_home: home.root().display().to_string(),
        };
        let state = MachineState {
            status: MachineStatus::Running,
            pid: std::process::id(),
            port,
            started_at,
            shutdown_requested_at: None,
            shutdown_source: None,
        };
        let mut own = Own { publishers: kept.versions.map(Publisher::new), kept, key, metadata, state, conflicts: 0 };
        own.say_again(false);
        own.keep(home)?;
        let (shown, inbox) = mpsc::channel(MAX_SHOWN);
        Ok(Records {
            home: home.clone(),
            me,
            own: Mutex::new(own),
            seen: Mutex::new(read_seen(home)),
            unkept: Notify::new(),
            asked: Mutex::default(),
            stored: watch::Sender::new(0),
            put: Notify::new(),
            shown,
            inbox: tokio::sync::Mutex::new(inbox),
        })
    }

    /// What a device is told over its link.
    pub fn all(&self) -> MachineRecords {
        let own = self.own();
        let [metadata_version, state_version] = [0, 1].map(|at: usize| own.publishers[at].version());
        MachineRecords {
            generation: own.key.generation,
            key: own.key.secret_text(),
            metadata_version,
            metadata: own.metadata.clone(),
            state_version,
            state: own.state.clone(),
        }
    }

    /// What the machine is doing.
    pub fn state(&self) -> MachineState {
        self.own().state.clone()
    }

    /// What another machine said last.
    pub fn of(&self, machine: &DeviceId) -> Option<SeenMachine> {
        self.seen().get(&machine.to_string()).cloned()
    }

    /// From now on the machine does something else. Says whether that is news.
    fn change(&self, change: impl FnOnce(&mut MachineState)) -> bool {
        let mut own = self.own();
        let before = own.state.clone();
        change(&mut own.state);
        if own.state == before {
            return false;
        }
        own.say_again(false);
        true
    }

    /// Somebody was removed: what is sealed from now on is not for them.
    ///
    /// # Errors
    /// When the new key cannot be kept; the old one is not used again in this life either.
    pub fn renew_key(&self) -> Result<(), Trouble> {
        let mut own = self.own();
        let next = RecordKey::next(&mut random(), Some(&own.key));
        own.kept.before = Some(std::mem::replace(&mut own.key, next));
        own.say_again(true);
        own.keep(&self.home)
    }

    /// What is to be sent of one kind; nothing when the relay has it, or when its version cannot be kept.
    fn to_put(&self, kind: u8) -> Option<(u64, Vec<u8>)> {
        let mut own = self.own();
        if own.conflicts >= MAX_CONFLICTS {
            return None;
        }
        if let Err(trouble) = own.keep(&self.home) {
            tracing::warn!(%trouble, "a machine record is not published, for its version cannot be kept");
            return None;
        }
        let (key, me) = (own.key.clone(), self.me);
        let seal = |version: u64, text: &[u8]| key.seal(&mut random(), &me, kind, version, text);
        let publisher = own.publishers.get_mut(usize::from(kind).checked_sub(1)?)?;
        publisher.to_put(seal).map(|(version, sealed)| (version, sealed.to_vec()))
    }

    /// The relay has answered; says whether there is more to be put.
    fn answered(&self, kind: u8, answer: RecordAnswer, version: u64, sealed: &[u8]) -> bool {
        let mut own = self.own();
        let keys = [Some(own.key.clone()), own.kept.before.clone()];
        let is_ours = || keys.iter().flatten().any(|key| key.open(&self.me, kind, version, sealed).is_ok());
        let is_ours = answer == RecordAnswer::Conflict && is_ours();
        let Some(publisher) = usize::from(kind).checked_sub(1).and_then(|at| own.publishers.get_mut(at)) else {
            return false;
        };
        match answer {
            RecordAnswer::Stored => {
                publisher.on_stored(version);
                if publisher.is_stored() {
                    own.conflicts = 0;
                    self.stored.send_modify(|count| *count += 1);
                    return false;
                }
                true
            }
            RecordAnswer::Conflict => {
                let goes_on = publisher.on_conflict(version, is_ours);
                if !goes_on {
                    tracing::warn!(
                        kind,
                        version,
                        "the relay shows a record of this machine that is none; it is left there"
                    );
                }
                own.conflicts = own.conflicts.saturating_add(1);
                goes_on
            }
            RecordAnswer::Asked | RecordAnswer::Refused => false,
        }
    }

    fn lost(&self) {
        let mut own = self.own();
        own.publishers.iter_mut().for_each(Publisher::on_lost);
    }

    fn is_stored(&self) -> bool {
        self.own().publishers.iter().all(Publisher::is_stored)
    }

    /// Takes in what a machine said over its link, or what its relay shows. Says whether that is news.
    fn take(&self, machine: &DeviceId, change: impl FnOnce(&mut SeenMachine) -> bool) -> bool {
        let mut seen = self.seen();
        let entry = seen.entry(machine.to_string()).or_default();
        if !change(entry) {
            return false;
        }
        self.unkept.notify_one();
        true
    }

    /// Writes what other machines said. It is asked for again with the next link, so it may be a second late.
    fn keep_seen(&self) {
        let seen = self.seen().clone();
        if let Err(trouble) = write_seen(&self.home, &seen) {
            tracing::warn!(%trouble, "what another machine said of itself is not kept");
        }
    }

    /// Whether this machine may be asked now; if not, it will be once the answer that is on its way has come.
    fn begin_asking(&self, machine: DeviceId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.entry(machine) {
            Entry::Vacant(entry) => {
                entry.insert(false);
                true
            }
            Entry::Occupied(mut entry) => {
                entry.insert(true);
                false
            }
        }
    }

    /// Whether it is to be asked once more.
    fn end_asking(&self, machine: &DeviceId) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match asked.get_mut(machine) {
            Some(again) if *again => {
                *again = false;
                true
            }
            _ => {
                asked.remove(machine);
                false
            }
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, SeenMachine>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Own {
    /// New versions of what has changed, or of both under a new key.
    fn say_again(&mut self, all: bool) {
        // Plain data with string keys: serialising it cannot fail.
        let texts =
            [serde_json::to_vec(&self.metadata), serde_json::to_vec(&self.state)].map(Result::unwrap_or_default);
        for (publisher, text) in self.publishers.iter_mut().zip(texts) {
            if all || publisher.text() != text {
                publisher.set(text);
            }
        }
    }

    fn keep(&mut self, home: &Home) -> Result<(), Trouble> {
        let versions = [0, 1].map(|at: usize| self.publishers[at].version());
        let kept = OwnRecords { key: Some(self.key.clone()), versions, before: self.kept.before.clone() };
        if kept != self.kept || !home.records().exists() {
            kept.write(home)?;
            self.kept = kept;
        }
        Ok(())
    }
}

/// What a relay says about records.
#[allow(clippy::collapsible_match, reason = "what changes something does not belong into a guard")]
pub fn route(daemon: &Arc<Daemon>, origin: &Origin, event: Event) {
    match event {
        Event::Record { machine, kind, answer, version, sealed, .. } if machine == daemon.device_id() => {
            if origin == daemon.network().home_relay() && daemon.records().answered(kind, answer, version, &sealed) {
                put(daemon);
            }
        }
        Event::Record { machine, kind, last_seen, version, sealed, .. } => {
            // Nobody asks for the records of anybody else.
            if is_machine(daemon, &machine) {
                let shown = Shown { machine, kind, last_seen, version, sealed };
                if daemon.records().shown.try_send(shown).is_err() {
                    tracing::debug!(relay = %origin, "a relay shows more records than it was asked for");
                }
            }
        }
        Event::RecordsChanged { machine, .. } if machine == daemon.device_id() => {
            if origin == daemon.network().home_relay() {
                tracing::info!("the relay has lost the records of this machine; it gets them again");
                daemon
                    .incidents()
                    .recovered("the relay had lost the records of this machine, and gets them again", unix_ms());
                daemon.records().lost();
                put(daemon);
            }
        }
        Event::RecordsChanged { machine, kinds } if is_machine(daemon, &machine) => {
            for kind in record_kind::changed(kinds) {
                daemon.network().get_record(origin, machine, kind);
            }
        }
        _ => {}
    }
}

/// This machine is connected to a relay: its records go there if it is its own, and those of machines behind it are asked for.
pub fn relay_up(daemon: &Arc<Daemon>, origin: &Origin) {
    if origin == daemon.network().home_relay() {
        daemon.records().own().conflicts = 0;
        daemon.records().lost();
        put(daemon);
    }
    for peer in daemon.roster().machines() {
        if daemon.network().relay_of(&peer) == *origin {
            record_kind::ALL.iter().for_each(|kind| daemon.network().get_record(origin, peer.device, *kind));
        }
    }
}

/// A machine that this one has joined is linked: it tells its key and its records.
pub fn link_up(daemon: &Arc<Daemon>, machine: DeviceId) {
    if is_machine(daemon, &machine) {
        tokio::spawn(ask(daemon.clone(), machine));
    }
}

/// Takes what linked machines tell of themselves until the daemon ends.
pub async fn follow(daemon: Arc<Daemon>) {
    let mut news = daemon.subscribe_links();
    let mut inbox = daemon.records().inbox.lock().await;
    loop {
        let (machine, body) = tokio::select! {
            shown = inbox.recv() => {
                let Some(shown) = shown else { return };
                daemon.run_blocking(move |daemon| take_shown(daemon, &shown)).await;
                continue;
            }
            news = news.recv() => match news {
                Ok((machine, LinkNews::Notice(body))) => (machine, body),
                // Whoever lost some asks with the next link, or when the relay shows another version.
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            },
        };
        let Ok(Told { event: happy_rpc::Event::MachineChanged(state), .. }) = serde_json::from_slice(&body) else {
            continue;
        };
        if is_machine(&daemon, &machine) {
            // At once, for it may be on its way out; then its new versions, and its key if that has changed.
            daemon
                .run_blocking(move |daemon| {
                    let news = daemon.records().take(&machine, |seen| seen.state.replace(state.clone()) != Some(state));
                    if news {
                        tell(daemon, &machine);
                    }
                })
                .await;
            tokio::spawn(ask(daemon.clone(), machine));
        }
    }
}

/// Writes what other machines said of themselves, at most once in a [`KEEP_PAUSE`], until the daemon ends.
pub async fn keep(daemon: Arc<Daemon>) {
    loop {
        daemon.records().unkept.notified().await;
        daemon.run_blocking(|daemon| daemon.records().keep_seen()).await;
        tokio::time::sleep(KEEP_PAUSE).await;
    }
}

/// Asks a linked machine for its records and the key that opens them: one question at a time, however often it says that they changed.
pub async fn ask(daemon: Arc<Daemon>, machine: DeviceId) {
    if !daemon.records().begin_asking(machine) {
        return;
    }
    loop {
        ask_once(&daemon, machine).await;
        if !daemon.records().end_asking(&machine) {
            return;
        }
        tokio::time::sleep(KEEP_PAUSE).await;
    }
}

async fn ask_once(daemon: &Arc<Daemon>, machine: DeviceId) {
    let Answer::Body(body) = daemon.network().call(&machine, MachineRecordsGet {}.to_body(), ASK).await else {
        return;
    };
    // A machine of before knows no records.
    let Ok(told) = MachineRecordsGet::read_answer(&body) else { return };
    let Some(key) = RecordKey::from_text(told.generation, &told.key) else { return };
    daemon.run_once(move |daemon| {
        let news = daemon.records().take(&machine, |seen| {
            let before = seen.clone();
            seen.key = Some(key);
            // Over the link it is the machine itself that speaks: its word is the newest, and no relay goes back behind it.
            seen.versions = [seen.versions[0].max(told.metadata_version), seen.versions[1].max(told.state_version)];
            (seen.metadata, seen.state) = (Some(told.metadata), Some(told.state));
            *seen != before
        });
        if news {
            tell(daemon, &machine);
        }
    });
}

/// A relay shows a record of another machine.
fn take_shown(daemon: &Arc<Daemon>, shown: &Shown) {
    let Shown { machine, kind, last_seen, version, sealed } = shown;
    let (machine, kind, version) = (*machine, *kind, *version);
    let linked = daemon.network().links_up().contains(&machine);
    let news = daemon.records().take(&machine, |seen| {
        let before = seen.clone();
        // A relay cannot make it newer than now.
        let last_seen = (*last_seen).min(unix_ms());
        if last_seen >= seen.last_seen.saturating_add(LAST_SEEN_STEP) {
            seen.last_seen = last_seen;
        }
        let Some(key) = seen.key.clone().filter(|_| version > 0) else { return *seen != before };
        let mut newest = Seen::new(seen.versions[0], seen.versions[1]);
        match newest.open(&key, &machine, kind, version, sealed) {
            Ok(text) => {
                match kind {
                    record_kind::METADATA => {
                        seen.metadata = serde_json::from_slice(&text).ok().or(seen.metadata.take())
                    }
                    // Of a state that the link tells, the relay's is the same or an older one that overtook it.
                    _ if linked && version == seen.versions[1] => {}
                    _ => {
                        let shown = serde_json::from_slice::<MachineState>(&text).ok();
                        let is_later =
                            |shown: &MachineState| !seen.state.as_ref().is_some_and(|said| shown.is_before(said));
                        seen.state = shown.filter(is_later).or(seen.state.take());
                    }
                }
                seen.versions = [record_kind::METADATA, record_kind::STATE].map(|kind| newest.version(kind));
            }
            Err(error) => {
                tracing::warn!(machine = %machine.short(), kind, version, %error, "a machine record is not believed")
            }
        }
        *seen != before
    });
    if news {
        tell(daemon, &machine);
    }
}

fn tell(daemon: &Daemon, machine: &DeviceId) {
    if let Some(entry) = daemon.machines().into_iter().find(|entry| entry.device == machine.to_string()) {
        daemon.tell_local(&LocalEvent::MachineSeen(entry).to_body());
    }
}

fn is_machine(daemon: &Daemon, device: &DeviceId) -> bool {
    daemon.roster().machines().iter().any(|peer| peer.device == *device)
}

/// There may be something to put.
fn put(daemon: &Daemon) {
    daemon.records().put.notify_one();
}

/// Puts what the relay does not have, until the daemon ends. Versions are written to the disk first, so not on a thread of the router's.
pub async fn publish(daemon: Arc<Daemon>) {
    loop {
        daemon.records().put.notified().await;
        let put = daemon.run_blocking(|daemon| {
            let origin = daemon.network().home_relay().clone();
            for kind in record_kind::ALL {
                if let Some((version, sealed)) = daemon.records().to_put(kind) {
                    daemon.network().put_record(&origin, kind, version, &sealed);
                }
            }
        });
        put.await;
        tokio::time::sleep(PUT_PAUSE).await;
    }
}

impl Daemon {
    /// The machine does something else: everybody with a link is told, and the relay.
    fn set_status(self: &Arc<Self>, change: impl FnOnce(&mut MachineState)) {
        if self.records().change(change) {
            tracing::info!(status = ?self.records().state().status, "the machine's state");
            self.tell(|| happy_rpc::Event::MachineChanged(self.records().state()));
            put(self);
        }
    }

    /// The first step of the stop order, whoever asks: *shutting-down* is told, and the daemon is asked to end. Its answer goes out after that,
    /// and then [`Daemon::shut_down`] says goodbye, tells *offline* and cleans up.
    pub fn begin_stop(self: &Arc<Self>, source: StopSource) {
        self.set_status(|state| {
            if state.status == MachineStatus::Running {
                state.status = MachineStatus::ShuttingDown;
                state.shutdown_requested_at = Some(unix_ms());
                state.shutdown_source = Some(source);
            }
        });
        self.stop();
    }

    /// The last record, and the wait until the relay has it: at most [`LAST_PUT`] each, and none without a relay.
    pub async fn say_offline(self: &Arc<Self>) {
        self.wait_for_records().await;
        self.set_status(|state| state.status = MachineStatus::Offline);
        self.wait_for_records().await;
    }

    async fn wait_for_records(&self) {
        let mut stored = self.records().stored.subscribe();
        let all = async { while !self.records().is_stored() && stored.changed().await.is_ok() {} };
        if self.network().is_up() && tokio::time::timeout(LAST_PUT, all).await.is_err() {
            tracing::info!("the relay was not told in time what this machine does");
        }
    }

    /// After a revocation: another key, told to those who are left.
    pub fn renew_record_key(self: &Arc<Self>) {
        if let Err(trouble) = self.records().renew_key() {
            tracing::error!(%trouble, "the new key of the machine records is not kept");
        }
        self.tell(|| happy_rpc::Event::MachineChanged(self.records().state()));
        put(self);
    }
}
