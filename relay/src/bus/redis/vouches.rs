//! For whom the machines of this node speak (`PROTOCOL 7`, Access), where every node finds it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use happy_crypto::DeviceId;
use tokio::time::Instant;

use super::Shared;
use super::outgoing::Chore;
use crate::access::{VOUCHED_FOR, Vouching};
use crate::records::unix_ms;

/// The life of a vouch's key in Redis, longer than the day that a vouch lasts.
const VOUCH_KEY: Duration = Duration::from_secs(25 * 60 * 60);

/// Machines remembered that have gone from this node. Beyond it a Redis that is emptied forgets for whom the others spoke.
const MAX_GONE: usize = 10_000;

/// Who speaks at this node for whom.
#[derive(Default)]
pub(super) struct Speaking {
    connected: HashMap<DeviceId, HashSet<DeviceId>>,
    /// Those that have gone, and until when their word stands.
    gone: HashMap<DeviceId, (HashSet<DeviceId>, Instant)>,
}

impl Speaking {
    fn note(&mut self, by: &DeviceId, devices: &[DeviceId], vouching: Vouching) {
        match vouching {
            Vouching::Begins => {
                self.gone.remove(by);
                self.connected.entry(*by).or_default().extend(devices);
            }
            Vouching::Ends => {
                if let Some(mine) = self.connected.get_mut(by) {
                    devices.iter().for_each(|device| {
                        mine.remove(device);
                    });
                    if mine.is_empty() {
                        self.connected.remove(by);
                    }
                }
            }
            Vouching::Gone => {
                self.connected.remove(by);
                let now = Instant::now();
                self.gone.retain(|_, (_, until)| *until > now);
                if self.gone.len() < MAX_GONE {
                    self.gone.insert(*by, (devices.iter().copied().collect(), now + VOUCHED_FOR));
                }
            }
        }
    }

    /// All of them, with how long their word stands.
    fn all(&self) -> Vec<(DeviceId, DeviceId, Duration)> {
        let now = Instant::now();
        let connected = self.connected.iter().map(|(by, devices)| (by, devices, VOUCHED_FOR));
        let gone = self.gone.iter().map(|(by, (devices, until))| (by, devices, until.saturating_duration_since(now)));
        let standing = connected.chain(gone).filter(|(.., left)| !left.is_zero());
        standing.flat_map(|(by, devices, left)| devices.iter().map(move |device| (*by, *device, left))).collect()
    }
}

fn key(device: &DeviceId) -> String {
    format!("hr:vouch:{device}")
}

impl Shared {
    pub(super) fn vouch(&self, by: &DeviceId, devices: &[DeviceId], vouching: Vouching) {
        if devices.is_empty() {
            return;
        }
        self.vouches.note(devices, vouching);
        self.speaking.lock().note(by, devices, vouching);
        for device in devices {
            match vouching {
                Vouching::Ends => {
                    let mut command = redis::cmd("ZREM");
                    command.arg(key(device)).arg(by.to_string());
                    self.chore(Chore::Command(command));
                }
                Vouching::Begins | Vouching::Gone => self.enter_vouch(by, device, VOUCHED_FOR),
            }
        }
    }

    /// Enters all of them again.
    pub(super) fn enter_vouches(&self) {
        let all = self.speaking.lock().all();
        all.iter().for_each(|(by, device, lasts)| self.enter_vouch(by, device, *lasts));
    }

    fn enter_vouch(&self, by: &DeviceId, device: &DeviceId, lasts: Duration) {
        let until = unix_ms() + lasts.as_millis() as u64;
        let key = key(device);
        let mut command = redis::cmd("ZADD");
        command.arg(&key).arg(until).arg(by.to_string());
        self.chore(Chore::Command(command));
        let mut expire = redis::cmd("EXPIRE");
        expire.arg(&key).arg(VOUCH_KEY.as_secs());
        self.chore(Chore::Command(expire));
    }

    pub(super) async fn vouched(&self, device: &DeviceId) -> Option<bool> {
        if self.vouches.holds(device) {
            return Some(true);
        }
        let conn = self.conn()?;
        self.stats.commands.fetch_add(1, Relaxed);
        let mut command = redis::cmd("ZCOUNT");
        command.arg(key(device)).arg(unix_ms()).arg("+inf");
        conn.run::<u64>(&command).await.ok().map(|count| count > 0)
    }
}
