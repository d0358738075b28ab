//! To which node a ticket leads (`PROTOCOL 15`), for as long as its rendezvous is open.

use std::fmt::Write as _;
use std::time::Duration;

use redis::{Cmd, RedisResult};

use super::way::Conn;
use crate::bus::NodeId;

/// So long after it was opened everybody may know a ticket.
pub(super) const SETTLED: Duration = Duration::from_millis(250);

/// Strikes a ticket out if it leads to this node: its host may have come to another one, and opened it there.
const CLOSE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

fn key(hash: &[u8; 32]) -> String {
    hash.iter().fold(String::from("hr:rdv:"), |mut key, byte| {
        // Writing to a string cannot fail.
        let _ = write!(key, "{byte:02x}");
        key
    })
}

pub(super) fn open(node: NodeId, hash: &[u8; 32], seconds: u64) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(key(hash)).arg(&node.0[..]).arg("EX").arg(seconds.max(1));
    command
}

pub(super) fn close(node: NodeId, hash: &[u8; 32]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(CLOSE).arg(1).arg(key(hash)).arg(&node.0[..]);
    command
}

pub(super) async fn find(conn: &Conn, hash: &[u8; 32]) -> RedisResult<Option<NodeId>> {
    let node: Option<Vec<u8>> = conn.run(redis::cmd("GET").arg(key(hash))).await?;
    Ok(node.and_then(|node| node.try_into().ok()).map(NodeId))
}
