//! Machine records in Redis (`PROTOCOL 15`): one hash for each machine, changed by scripts that touch nothing else.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use happy_crypto::DeviceId;
use redis::{RedisResult, Script};
use tokio::time::Instant;

use super::directory;
use super::way::Conn;
use crate::records::{KEPT_FOR, Known, NewRecord, Put, Record, place, unix_ms};

/// What is kept for long takes no more room once three quarters of what Redis may take (`maxmemory`) are in use: the rest is for the directory
/// and the leases, without which nodes are apart. In a cluster each server speaks for itself. A Redis without a limit is never full.
pub(super) const FULL: &str = r"
    local function full()
        local memory = redis.pcall('INFO', 'memory')
        if type(memory) ~= 'string' then return false end
        local used = tonumber(string.match(memory, '%f[%w_]used_memory:(%d+)'))
        local most = tonumber(string.match(memory, '%f[%w_]maxmemory:(%d+)'))
        return used and most and most > 0 and used * 4 > most * 3
    end
";

/// Who may read takes no more room than before in a Redis that is full: those that no longer may are out all the same.
const READERS: &str = r"
    local cut = false
    local function readers(new)
        local room = redis.call('HSTRLEN', KEYS[1], 'readers')
        if #new > room and full() then new, cut = string.sub(new, 1, room), true end
        redis.call('HSET', KEYS[1], 'readers', new)
    end
";

/// Notes who may read, if that is said, and stores a record if there is none of its kind, if it repeats it, or if the version there is the
/// one before. Answers 1 and who may read it when it is news, 4 and the same when the machine had no record at all, 2 when it stood
/// there, 3 when Redis is full, and else what stands there.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    let put = r"
        local news = redis.call('EXISTS', KEYS[1]) == 0 and 4 or 1
        local old = redis.call('HGET', KEYS[1], ARGV[1])
        local next = not old or string.sub(old, 1, 8) == ARGV[2]
        if next and #ARGV[3] > #(old or '') and full() then return {3, ''} end
        redis.call('HSET', KEYS[1], 'seen', ARGV[5])
        redis.call('EXPIRE', KEYS[1], ARGV[6])
        if ARGV[7] == '' then redis.call('HSETNX', KEYS[1], 'readers', '') else readers(ARGV[4]) end
        if old == ARGV[3] then return {2, ''} end
        if not next then return {0, old} end
        redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
        return {news, redis.call('HGET', KEYS[1], 'readers')}
    ";
    Script::new(&[FULL, READERS, put].concat())
});

/// Changes who may read, or when it was seen, of a machine that has records. Answers 0 when it has
/// none, and 2 when there was no room for all.
static NOTE: LazyLock<Script> = LazyLock::new(|| {
    let note = r"
        if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
        if ARGV[1] == 'readers' then readers(ARGV[2]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
        redis.call('EXPIRE', KEYS[1], ARGV[3])
        return cut and 2 or 1
    ";
    Script::new(&[FULL, READERS, note].concat())
});

/// What waits to be noted of a machine that has records.
pub(super) enum Note {
    Readers(Vec<DeviceId>),
    /// A sign of life at this time, Unix ms. A machine that has none was asked about at `asked`.
    Seen {
        at: u64,
        asked: Instant,
    },
}

fn key(machine: &DeviceId) -> String {
    format!("hr:rec:{machine}")
}

fn kept_for() -> Vec<u8> {
    KEPT_FOR.as_secs().to_string().into_bytes()
}

fn bytes_of(readers: &[DeviceId]) -> Vec<u8> {
    readers.iter().flat_map(|reader| reader.as_bytes()).copied().collect()
}

/// Stores a record, and counts when there is no room for it.
pub(super) async fn put(conn: &Conn, new: NewRecord, full: &AtomicU64) -> RedisResult<Put> {
    let NewRecord { machine, kind, record, readers } = new;
    if place(kind).is_none() {
        return Ok(Put::Refused);
    }
    let before = record.version.wrapping_sub(1).to_be_bytes();
    let field = [&record.version.to_be_bytes()[..], &record.sealed].concat();
    let now = unix_ms().to_string();
    let set_readers: &[u8] = if readers.is_some() { b"1" } else { b"" };
    let (kind, readers, kept_for) = (kind.to_string(), bytes_of(&readers.unwrap_or_default()), kept_for());
    let arguments: [&[u8]; 7] = [kind.as_bytes(), &before, &field, &readers, now.as_bytes(), &kept_for, set_readers];
    let (done, old): (u8, Vec<u8>) = conn.script(&PUT, key(&machine).as_bytes(), &arguments).await?;
    Ok(match done {
        1 | 4 => Put::Stored { readers: devices(&old), is_first: done == 4 },
        2 => Put::Same,
        3 => {
            full.fetch_add(1, Relaxed);
            Put::Refused
        }
        // What cannot be read is none of ours.
        _ => read(&old).map_or(Put::Refused, Put::Conflict),
    })
}

fn devices(readers: &[u8]) -> Vec<DeviceId> {
    readers.as_chunks().0.iter().map(|reader| DeviceId::from_bytes(*reader)).collect()
}

fn read(field: &[u8]) -> Option<Record> {
    let (version, sealed) = field.split_first_chunk::<8>()?;
    Some(Record { version: u64::from_be_bytes(*version), sealed: sealed.to_vec().into() })
}

/// False when the machine has no records, or has none any more. Counts when there is no room for all who may read.
pub(super) async fn note(conn: &Conn, machine: &DeviceId, note: &Note, full: &AtomicU64) -> RedisResult<bool> {
    let (field, value): (&[u8], Vec<u8>) = match note {
        Note::Readers(readers) => (b"readers", bytes_of(readers)),
        Note::Seen { at, .. } => (b"seen", at.to_string().into_bytes()),
    };
    let done: u8 = conn.script(&NOTE, key(machine).as_bytes(), &[field, &value, &kept_for()]).await?;
    full.fetch_add((done == 2).into(), Relaxed);
    Ok(done != 0)
}

/// What `reader` may know of a machine.
pub(super) async fn known(conn: &Conn, machine: &DeviceId, reader: &DeviceId) -> RedisResult<Option<Known>> {
    let mut command = redis::cmd("HMGET");
    command.arg(key(machine)).arg("readers").arg("seen").arg("1").arg("2");
    type Fields = (Option<Vec<u8>>, Option<u64>, Option<Vec<u8>>, Option<Vec<u8>>);
    let (fields, here) = tokio::join!(conn.run::<Fields>(&command), directory::is_here(conn, machine));
    let (readers, seen, first, second) = fields?;
    let may = machine == reader || readers.is_some_and(|readers| devices(&readers).contains(reader));
    let Some(last_seen) = seen.filter(|_| may) else { return Ok(None) };
    let records = [first, second].map(|field| field.as_deref().and_then(read));
    let known = Known { here: false, last_seen, records };
    Ok(Some(if here? { known.of_one_that_is_here() } else { known }))
}
