//! To which node a ticket leads (`PROTOCOL 15`), for as long as its rendezvous is open.

use std::fmt::Write as _;
use std::time::Duration;

use happy_crypto::DeviceId;
use redis::{Cmd, FromRedisValue, ParsingError, RedisResult, Value};

use super::way::Conn;
use crate::bus::NodeId;

/// So long after it was opened everybody may know a ticket.
pub(super) const SETTLED: Duration = Duration::from_millis(250);

/// Has a ticket lead to a device, unless it leads to another one. Answers with what stands there then.
const OPEN: &str = r"
    local old = redis.call('GET', KEYS[1])
    if old and #old == #ARGV[1] and string.sub(old, 9) ~= string.sub(ARGV[1], 9) and old ~= ARGV[3] then return old end
    redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
    return false
";

/// Strikes a ticket out if it leads to this node: its host may have come to another one, and opened it there.
const CLOSE: &str = r"
    local old = redis.call('GET', KEYS[1])
    if old and string.sub(old, 1, 8) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
    return 0
";

/// Where a ticket leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Led {
    pub(super) node: NodeId,
    pub(super) host: DeviceId,
}

impl Led {
    fn to_bytes(self) -> Vec<u8> {
        [&self.node.0[..], self.host.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (node, host) = bytes.split_at_checked(NodeId::LEN)?;
        Some(Self { node: NodeId(node.try_into().ok()?), host: DeviceId::from_bytes(host.try_into().ok()?) })
    }
}

impl FromRedisValue for Led {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let bytes: Vec<u8> = redis::from_redis_value(value)?;
        Self::from_bytes(&bytes).ok_or_else(|| "this is not where a ticket leads".into())
    }
}

fn key(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::from("hr:rdv:"), |mut key, byte| {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

/// Also over `instead`, if that stands there. The answer is an `Option<Led>`, which is none when it was done.
pub(super) fn open(to: Led, hash: &[u8; 32], seconds: u64, instead: Option<Led>) -> Cmd {
    let mut command = redis::cmd("EVAL");
    let instead = instead.map(Led::to_bytes).unwrap_or_default();
    command.arg(OPEN).arg(1).arg(key(hash)).arg(to.to_bytes()).arg(seconds.max(1)).arg(instead);
    command
}

pub(super) fn close(node: NodeId, hash: &[u8; 32]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(CLOSE).arg(1).arg(key(hash)).arg(&node.0[..]);
    command
}

pub(super) async fn find(conn: &Conn, hash: &[u8; 32]) -> RedisResult<Option<NodeId>> {
    let led: Option<Led> = conn.run(redis::cmd("GET").arg(key(hash))).await?;
    Ok(led.map(|led| led.node))
}
