//! Keys that change while the daemon runs: pair secrets, bundles and prekeys, and what happens to them when devices come and go.
//!
//! All of it happens under one lock, that of the [pair secrets](Daemon::pair_secrets), which is taken before any other: a handshake that ends
//! while its device is paired again or removed neither brings an old secret back nor a removed device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use happy_crypto::DeviceId;
use happy_link::PairSecrets;
use happy_pairing::PairedPeer;
use happy_rpc::{CallError, ErrorCode};

use crate::daemon::Daemon;
use crate::daemon::local::PairAgain;
use crate::daemon::network::ToKeep;
use crate::store::{AccessKey, Clock, Peer, unix_seconds};
use crate::trouble::Trouble;

/// How often the prekeys' time is looked at. They are counted in days; timers stand still while a machine sleeps.
const LOOK_AT_PREKEYS: Duration = Duration::from_secs(3600);
/// How long devices that are connected may take to be told that they were all removed, before this machine is somebody else.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Stores what handshakes leave, one batch after the other, until the daemon ends.
pub async fn keep(daemon: Arc<Daemon>) {
    loop {
        let found = daemon.network().to_be_kept().await;
        daemon.run_blocking(move |daemon| daemon.store_keys(&found)).await;
    }
}

/// Makes a new prekey when it is time.
pub async fn rotate(daemon: Arc<Daemon>) {
    let mut ticks = tokio::time::interval(LOOK_AT_PREKEYS);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        daemon.run_blocking(|daemon| daemon.look_at_prekeys()).await;
    }
}

/// What time it is, for the prekeys.
pub fn clock(start: Instant) -> Clock {
    Clock { unix: unix_seconds(), running: start.elapsed() }
}

impl Daemon {
    /// Runs what waits for the disk on a thread where waiting is allowed.
    pub async fn run_blocking<T: Send + 'static>(
        self: &Arc<Self>,
        task: impl FnOnce(&Arc<Daemon>) -> T + Send + 'static,
    ) -> Option<T> {
        let daemon = self.clone();
        let done = tokio::task::spawn_blocking(move || task(&daemon)).await;
        // It fails only when the runtime ends.
        done.inspect_err(|error| tracing::error!(%error, "a task did not end")).ok()
    }

    /// The same, without waiting for it.
    pub fn run_once(self: &Arc<Self>, task: impl FnOnce(&Arc<Daemon>) + Send + 'static) {
        let daemon = self.clone();
        tokio::task::spawn_blocking(move || task(&daemon));
    }

    /// Stores what handshakes have left, then lets the other sides rely on it (`PROTOCOL 5`).
    fn store_keys(&self, found: &ToKeep) {
        for device in &found.bundles {
            let Some(bundle) = self.network().bundle(device) else { continue };
            match self.roster().renew_bundle(device, bundle) {
                Ok(()) => tracing::info!(device = %device.short(), "a machine has a new prekey"),
                Err(trouble) => tracing::error!(%trouble, "the new prekey of a machine is not stored"),
            }
        }
        let mut file = self.pair_secrets();
        let secrets = |(device, session): (&DeviceId, &[u8; 16])| {
            Some((*device, *session, self.network().pair_secrets(device, session)?))
        };
        let new: Vec<_> = found.secrets.iter().filter_map(secrets).collect();
        if new.is_empty() {
            return;
        }
        match file.shook_hands(new.iter().map(|(device, _, secrets)| (*device, secrets.clone())).collect()) {
            Ok(()) => {
                for (device, session, _) in new {
                    self.network().pair_secrets_stored(&device, &session);
                }
            }
            // The other sides are not told, and accept the ones before.
            Err(trouble) => tracing::error!(%trouble, "the keys of the last handshakes are not stored"),
        }
    }

    fn look_at_prekeys(&self) {
        let mut prekeys = self.prekeys();
        match prekeys.look_at(clock(self.start)) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(id = prekeys.newest().id(), "there is a new prekey");
                self.network().set_prekeys(prekeys.all());
            }
            Err(trouble) => tracing::error!(%trouble, "a new prekey is not stored"),
        }
    }

    /// Stores a pairing and names the device. When this returns, its secret and the statements are on the disk, in this order.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn paired(&self, paired: &PairedPeer) -> Result<Peer, Trouble> {
        let device = paired.identity.device_id();
        let mut file = self.pair_secrets();
        // Who joins cannot know for sure that the other side has stored it too; until then what was shared before may still count.
        let joined = file.get(&device).filter(|_| paired.bundle.is_some());
        let secrets =
            PairSecrets { current: paired.secret.clone(), previous: joined.map(|before| before.current.clone()) };
        let before = file.paired(device, secrets.clone())?;
        let added = self.roster().add(paired);
        match added {
            Ok(peer) => {
                self.doubts().settled(&device);
                self.network().add_peer(&peer, secrets);
                Ok(peer)
            }
            Err(trouble) => {
                if let Err(trouble) = file.not_paired(device, before) {
                    tracing::warn!(%trouble, "a pairing that was not stored left its secret");
                }
                Err(trouble)
            }
        }
    }

    /// Names every peer at its relay, and those that were removed, so that they can be told.
    pub fn name_peers(&self) {
        let file = self.pair_secrets();
        let (peers, removed) = {
            let roster = self.roster();
            (roster.peers(), roster.removed())
        };
        for peer in peers.into_iter().filter(|peer| !peer.removed_us) {
            match file.get(&peer.device).filter(|_| !peer.joined || peer.bundle.is_some()) {
                Some(secrets) => self.network().add_peer(&peer, secrets.clone()),
                None => tracing::warn!(
                    peer = %peer.device.short(),
                    name = ?peer.name,
                    "this device was paired with an older version, or its secret is lost: it has to be paired again"
                ),
            }
        }
        for device in removed {
            self.network().tombstone(device);
        }
    }

    /// Why a device has to be paired again, if it has to.
    pub fn must_pair_again(&self, device: &DeviceId) -> Option<PairAgain> {
        let has_secret = self.pair_secrets().get(device).is_some();
        let can_begin = {
            let roster = self.roster();
            roster.peer(device).is_some_and(|peer| !peer.joined || peer.bundle.is_some())
        };
        if !has_secret || !can_begin {
            return Some(PairAgain::NoKeys);
        }
        self.doubts().is_unbelieving(device).then_some(PairAgain::NotBelieved)
    }

    /// Removes a device for good: the statement first, then its link, its secrets, and the prekeys that it knows. Only then is it done.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn revoke(self: &Arc<Self>, device: DeviceId) -> Result<(), CallError> {
        let removed = self.run_blocking(move |daemon| {
            let removed = daemon.remove(&[device]);
            // Whatever was left undone: what this machine says from now on is not for a removed device.
            daemon.renew_record_key();
            removed
        });
        let done = removed.await;
        done.unwrap_or_else(|| Err(CallError::new(ErrorCode::Failed, "the daemon ends")))
    }

    /// See [`Daemon::revoke`]. What a crash leaves undone, the next start does.
    fn remove(&self, devices: &[DeviceId]) -> Result<(), CallError> {
        let failed = |trouble: Trouble| CallError::new(ErrorCode::Failed, trouble.to_string());
        let mut file = self.pair_secrets();
        let removed = {
            let mut roster = self.roster();
            let is_new = |device: &&DeviceId| !roster.is_removed(device);
            let new: Vec<_> = devices.iter().filter(is_new).copied().collect();
            if new.iter().any(|device| !roster.is_member(device)) {
                return Err(CallError::new(ErrorCode::NotFound, "there is no such device"));
            }
            if !new.is_empty() {
                roster.remove(&new).map_err(failed)?;
            }
            roster.removed().len()
        };
        for device in devices {
            tracing::info!(device = %device.short(), "a device was removed");
            if let Some(caller) = self.callers().remove(device) {
                caller.gone();
            }
            self.network().tombstone(*device);
            if let Err(trouble) = self.outboxes().forget(device) {
                tracing::error!(%trouble, "the commands for a removed device are not deleted");
            }
            self.doubts().settled(device);
        }
        let deleted = file.remove(devices);
        drop(file);
        let rotated = self.renew_prekeys(removed);
        self.tell_devices();
        deleted.and(rotated).map_err(|trouble| {
            let text =
                format!("it is removed and refused, but its keys are not deleted: {trouble} Restart the daemon then");
            CallError::new(ErrorCode::Failed, text)
        })
    }

    /// `PROTOCOL 3`: what a removed device knows opens nothing any more.
    fn renew_prekeys(&self, removed: usize) -> Result<(), Trouble> {
        let mut prekeys = self.prekeys();
        if prekeys.removals() != removed {
            prekeys.replace_all(removed, clock(self.start))?;
            self.network().set_prekeys(prekeys.all());
        }
        Ok(())
    }

    /// A machine has removed this one, and said so.
    pub fn was_removed_by(&self, machine: DeviceId) {
        let mut file = self.pair_secrets();
        if let Err(trouble) = self.roster().removed_by(&machine) {
            tracing::error!(%trouble, "that this machine was removed cannot be noted");
        }
        self.network().remove_peer(&machine);
        self.outboxes().removed_by(&machine);
        if let Err(trouble) = file.remove(&[machine]) {
            tracing::error!(%trouble, "the secret of a machine that removed this one is not deleted");
        }
        drop(file);
        self.tell_devices();
    }

    /// Removes every device for good and makes this machine a new one: gives its new id. The daemon has to be started anew afterwards.
    ///
    /// The devices that are connected are told before the old key is destroyed; the others find nobody. The new key is there before
    /// the old log is put aside: with a crash in between, it is the log of somebody else, by which nobody is a member.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn revoke_all(self: &Arc<Self>) -> Result<DeviceId, CallError> {
        let ended = || CallError::new(ErrorCode::Failed, "the daemon ends");
        let _ = self.pairing().cancel().await;
        let was_up = !self.network().links_up().is_empty();
        let everybody: Vec<_> = self.roster().peers().iter().map(|peer| peer.device).collect();
        let removed = self.run_blocking(move |daemon| {
            let removed = daemon.remove(&everybody);
            daemon.renew_record_key();
            removed
        });
        removed.await.unwrap_or_else(|| Err(ended()))?;
        if was_up {
            tokio::time::sleep(LAST_WORDS).await;
        }
        self.run_blocking(|daemon| daemon.become_another()).await.unwrap_or_else(|| Err(ended()))
    }

    fn become_another(&self) -> Result<DeviceId, CallError> {
        let failed = |trouble: Trouble| CallError::new(ErrorCode::Failed, trouble.to_string());
        let _file = self.pair_secrets();
        let mut roster = self.roster();
        let home = self.home();
        for path in [home.pair_secrets(), home.prekeys()] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(Trouble::file("delete", &path, &error)));
                }
                _ => {}
            }
        }
        let key = AccessKey::renew(&home.access_key()).map_err(failed)?;
        let device = key.identity.device_id();
        tracing::warn!(device = %device.short(), "every device was removed, and this machine has new keys");
        if let Err(trouble) = roster.put_aside(&home.old_membership(&self.device_id())) {
            tracing::warn!(%trouble, "the statements of the old key stay where they are; nobody is a member by them");
        }
        Ok(device)
    }
}
