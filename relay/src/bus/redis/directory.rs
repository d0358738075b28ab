//! The directory (`PROTOCOL 15`): at which node each device is, in Redis and remembered here for a while.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use happy_crypto::DeviceId;
use redis::{RedisResult, Script};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::way::Conn;
use crate::bus::{Login, NodeId};

/// How long an answer of the directory is believed. The node it names corrects it sooner, when a frame comes there in vain.
const BELIEVED: Duration = Duration::from_secs(60);
/// How long nobody is asked again for a device that is nowhere.
const NOWHERE: Duration = Duration::from_millis(500);
/// Devices remembered at most: some 10 MiB.
const MAX_REMEMBERED: usize = 100_000;

/// An entry as it stands in Redis: node, epoch, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) node: NodeId,
    pub(crate) login: Login,
}

impl Entry {
    const LEN: usize = NodeId::LEN + 16;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..NodeId::LEN].copy_from_slice(&self.node.0);
        bytes[NodeId::LEN..].copy_from_slice(&self.login.to_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (node, login) = bytes.split_at(NodeId::LEN);
        Some(Self { node: NodeId(node.try_into().ok()?), login: Login::from_bytes(login.try_into().ok()?) })
    }
}

/// Enters a device unless a larger login stands there. Answers whether it did, and what stood there before.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local old = redis.call('HGET', KEYS[1], ARGV[1])
        if old and #old == #ARGV[2] then
            for i = 9, #old do
                local a, b = string.byte(old, i), string.byte(ARGV[2], i)
                if a > b then return {0, old} end
                if a < b then break end
            end
        end
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
        return {1, old}
        ",
    )
});

/// Strikes a device out, if exactly this entry stands there.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
            return redis.call('HDEL', KEYS[1], ARGV[1])
        end
        return 0
        ",
    )
});

/// The hash that a device stands in: `hr:dir:` and the first twelve bits of its hash.
pub(crate) fn bucket(device: &DeviceId) -> String {
    let hash = Sha256::digest(device.as_bytes());
    bucket_name(u16::from(hash[0]) << 4 | u16::from(hash[1]) >> 4)
}

/// The name of a bucket, of which there are [`BUCKETS`].
pub(crate) fn bucket_name(n: u16) -> String {
    format!("hr:dir:{:03x}", n % BUCKETS)
}

/// So many hashes hold the directory: small enough for Redis' compact form up to half a million devices.
pub(crate) const BUCKETS: u16 = 4096;

/// What the directory said to a claim.
pub(crate) enum Claimed {
    /// It is entered, over this entry of another node if there was one.
    Held(Option<Entry>),
    /// This larger login stands there.
    Newer(Option<Entry>),
}

pub(crate) async fn claim(conn: &Conn, device: &DeviceId, entry: Entry) -> RedisResult<Claimed> {
    let key = bucket(device);
    let (held, old): (bool, Option<Vec<u8>>) =
        conn.script(&CLAIM, key.as_bytes(), &[device.as_bytes(), &entry.to_bytes()]).await?;
    let old = old.and_then(|old| Entry::from_bytes(&old));
    Ok(match (held, old) {
        (false, old) => Claimed::Newer(old),
        (true, old) => Claimed::Held(old.filter(|old| old.node != entry.node)),
    })
}

pub(crate) async fn release(conn: &Conn, device: &DeviceId, entry: Entry) -> RedisResult<()> {
    let key = bucket(device);
    conn.script(&RELEASE, key.as_bytes(), &[device.as_bytes(), &entry.to_bytes()]).await
}

pub(crate) async fn look_up(conn: &Conn, device: &DeviceId) -> RedisResult<Option<Entry>> {
    let entry: Option<Vec<u8>> = conn.run(redis::cmd("HGET").arg(bucket(device)).arg(device.as_bytes())).await?;
    Ok(entry.and_then(|entry| Entry::from_bytes(&entry)))
}

/// Whether a node has its lease. Its entries stand for nothing when it has not.
pub(crate) async fn lives(conn: &Conn, node: NodeId) -> RedisResult<bool> {
    conn.run(redis::cmd("EXISTS").arg(node.lease())).await
}

/// Whether a device stands at a node that lives.
pub(crate) async fn is_here(conn: &Conn, device: &DeviceId) -> RedisResult<bool> {
    match look_up(conn, device).await? {
        Some(entry) => lives(conn, entry.node).await,
        None => Ok(false),
    }
}

/// What a sweep of one bucket found.
pub(crate) struct Swept {
    /// Entries of nodes that had gone, struck out.
    pub(crate) struck: u64,
    /// What stands there for the node that swept.
    pub(crate) own: Vec<(DeviceId, Login)>,
}

/// Looks at one bucket and strikes out what stands there for nodes that have gone.
pub(crate) async fn sweep(conn: &Conn, n: u16, own: NodeId) -> RedisResult<Swept> {
    let entries: Vec<(Vec<u8>, Vec<u8>)> = conn.run(redis::cmd("HGETALL").arg(bucket_name(n))).await?;
    let mut alive: HashMap<NodeId, bool> = HashMap::new();
    let mut swept = Swept { struck: 0, own: Vec::new() };
    for (device, entry) in entries {
        let (Ok(device), Some(entry)) = (<[u8; 32]>::try_from(device), Entry::from_bytes(&entry)) else { continue };
        if entry.node == own {
            swept.own.push((DeviceId::from_bytes(device), entry.login));
            continue;
        }
        let lives = match alive.get(&entry.node) {
            Some(lives) => *lives,
            None => {
                let lives = lives(conn, entry.node).await?;
                alive.insert(entry.node, lives);
                lives
            }
        };
        if !lives {
            release(conn, &DeviceId::from_bytes(device), entry).await?;
            swept.struck += 1;
        }
    }
    Ok(swept)
}

/// What is remembered of the directory.
#[derive(Default)]
pub(crate) struct Cache(HashMap<DeviceId, (Option<NodeId>, Instant)>);

impl Cache {
    /// Where a device is, as far as it is remembered: `Some(None)` is nowhere.
    pub(crate) fn get(&self, device: &DeviceId, now: Instant) -> Option<Option<NodeId>> {
        self.0.get(device).filter(|(_, until)| *until > now).map(|(node, _)| *node)
    }

    pub(crate) fn put(&mut self, device: DeviceId, node: Option<NodeId>, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (_, until)| *until > now);
            if self.0.len() >= MAX_REMEMBERED {
                // Everything is asked once more; rare, and cheaper than an order kept for it all the time.
                self.0.clear();
            }
        }
        let until = now + if node.is_some() { BELIEVED } else { NOWHERE };
        self.0.insert(device, (node, until));
    }

    pub(crate) fn forget(&mut self, device: &DeviceId) {
        self.0.remove(device);
    }

    pub(crate) fn forget_node(&mut self, gone: NodeId) {
        self.0.retain(|_, (node, _)| *node != Some(gone));
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let entry = Entry { node: NodeId([7; 8]), login: Login { epoch: 1 << 40, number: 9 } };
        assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
        assert_eq!(Entry::from_bytes(&[0; 23]), None);
    }

    #[test]
    fn buckets_are_those_of_the_page() {
        let device = DeviceId::from_bytes([0; 32]);
        // SHA-256 of 32 zero bytes begins with 66 68 7a.
        assert_eq!(bucket(&device), "hr:dir:666");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_goes_stale() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let device = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            DeviceId::from_bytes(bytes)
        };
        let node = NodeId([1; 8]);
        (0..MAX_REMEMBERED as u32 + 10).for_each(|n| cache.put(device(n), Some(node), now));
        assert!(cache.0.len() <= MAX_REMEMBERED);
        cache.put(device(1), Some(node), now);
        cache.put(device(2), None, now);
        assert_eq!(cache.get(&device(1), now), Some(Some(node)));
        assert_eq!(cache.get(&device(2), now), Some(None));
        assert_eq!(cache.get(&device(2), now + NOWHERE), None);
        assert_eq!(cache.get(&device(1), now + BELIEVED), None);
        cache.forget_node(node);
        assert_eq!(cache.get(&device(1), now), None);
    }
}
