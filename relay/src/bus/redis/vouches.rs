//! For whom the machines of this node speak (`PROTOCOL 7`, Access), where every node finds it.
//!
//! What a machine said last is remembered as a whole and said to Redis as a whole, again and again until it was taken: whom it no longer
//! names is struck out however long Redis was away, and whoever said it before, since Redis keeps a list of whom each machine named.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use happy_crypto::DeviceId;
use redis::{RedisResult, Script, Value};
use tokio::time::{Instant, sleep};

use super::directory::Entry;
use super::records::FULL;
use super::way::Conn;
use super::{RETRY, Shared};
use crate::access::{News, VOUCHED_FOR, Vouches, Vouching, Word};
use crate::bus::Login;
use crate::records::unix_ms;

/// The life of a vouch's key in Redis, longer than the day that a vouch lasts.
const VOUCH_KEY: Duration = Duration::from_secs(25 * 60 * 60);
/// Machines whose words are said at once: each names at most 256 devices, with two commands for each.
const AT_ONCE: usize = 16;

/// Enters whom a machine names, beside those that stand there: they have to be struck out one by one first. Answers who stood there and whom
/// it names now, which is nobody new while Redis is full. The word of one that has gone counts only while nobody else has said one; that of one that is connected always does.
static NAME: LazyLock<Script> = LazyLock::new(|| {
    let name = r"
        local old = redis.call('GET', KEYS[1])
        if old and ARGV[3] == 'gone' and string.sub(old, 1, #ARGV[1]) ~= ARGV[1] then return false end
        local before = string.sub(old or '', #ARGV[1] + 1)
        local stood, named, list, left = {}, {}, {}, {}
        local room = #ARGV[2] <= #before or not full()
        for i = 1, #before, 32 do stood[string.sub(before, i, i + 31)] = true end
        for i = 1, #ARGV[2], 32 do
            local device = string.sub(ARGV[2], i, i + 31)
            if room or stood[device] then
                named[device] = true
                list[#list + 1] = device
            end
        end
        list = table.concat(list)
        for i = 1, #before, 32 do
            local device = string.sub(before, i, i + 31)
            if not named[device] then left[#left + 1] = device end
        end
        redis.call('SET', KEYS[1], ARGV[1] .. list .. table.concat(left), 'EX', ARGV[4])
        return {before, list}
    ";
    Script::new(&[FULL, name].concat())
});

/// Leaves only those that are named, if nobody has said anything since.
static SETTLE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local old = redis.call('GET', KEYS[1])
        if old and string.sub(old, 1, #ARGV[1]) == ARGV[1] then
            redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
        end
        return 0
        ",
    )
});

/// Who speaks at this node for whom, and what of it Redis has still to be told.
#[derive(Default)]
pub(super) struct Speaking {
    vouches: Vouches,
    /// By machine: whether all that it names is entered anew, and not only those that are new.
    unsaid: HashMap<DeviceId, bool>,
    /// Words are being said at this moment.
    busy: bool,
    /// The way was lost: until it is known again which machines are still here, nothing is said of them.
    held_back: bool,
}

impl Speaking {
    pub(super) fn is_said(&self) -> bool {
        !self.busy && (self.unsaid.is_empty() || self.held_back)
    }

    /// Until [`Shared::enter_vouches`].
    pub(super) fn hold_back(&mut self) {
        self.held_back = true;
    }

    fn say_anew(&mut self, by: DeviceId, all: bool) {
        *self.unsaid.entry(by).or_default() |= all;
    }

    fn take(&mut self) -> Vec<(DeviceId, bool)> {
        if self.held_back {
            return Vec::new();
        }
        let some: Vec<(DeviceId, bool)> = self.unsaid.iter().map(|(by, all)| (*by, *all)).take(AT_ONCE).collect();
        some.iter().for_each(|(by, _)| {
            self.unsaid.remove(by);
        });
        some
    }

    /// A word was said, or another one counts.
    fn said(&mut self, by: &DeviceId, login: Login, taken: bool) {
        let over = |word: &Word| word.login == login && word.until.is_some() && (!taken || word.devices.is_empty());
        if self.vouches.word(by).is_some_and(over) {
            self.vouches.forget(by);
        }
    }
}

fn key(device: &DeviceId) -> String {
    format!("hr:vouch:{device}")
}

/// Says what waits, for as long as the bus lives.
pub(super) async fn speak(shared: Arc<Shared>) {
    loop {
        shared.speak.notified().await;
        loop {
            let Some(conn) = shared.conn() else { break };
            let some = {
                let mut speaking = shared.speaking.lock();
                let some = speaking.take();
                speaking.busy = !some.is_empty();
                some
            };
            if some.is_empty() {
                break;
            }
            let said = join_all(some.iter().map(|(by, all)| shared.say(&conn, by, *all))).await;
            let failed = said.iter().any(Result::is_err);
            {
                let mut speaking = shared.speaking.lock();
                speaking.busy = false;
                for ((by, all), _) in some.iter().zip(&said).filter(|(_, said)| said.is_err()) {
                    speaking.say_anew(*by, *all);
                }
            }
            if failed {
                sleep(RETRY.1).await;
            }
        }
        shared.idle.notify_waiters();
    }
}

impl Shared {
    pub(super) fn vouch(&self, by: &DeviceId, login: Login, vouching: Vouching<'_>) {
        let mut speaking = self.speaking.lock();
        match speaking.vouches.note(by, login, vouching) {
            News::None => return,
            News::List => speaking.say_anew(*by, false),
            News::Term => speaking.say_anew(*by, true),
        }
        drop(speaking);
        self.speak.notify_one();
    }

    /// Enters all of them again.
    pub(super) fn enter_vouches(&self) {
        let mut speaking = self.speaking.lock();
        let Speaking { vouches, unsaid, held_back, .. } = &mut *speaking;
        unsaid.extend(vouches.all().map(|by| (*by, true)));
        *held_back = false;
        drop(speaking);
        self.speak.notify_one();
    }

    /// Says the whole word of a machine, as it is now.
    async fn say(&self, conn: &Conn, by: &DeviceId, all: bool) -> RedisResult<()> {
        let Some(word) = self.speaking.lock().vouches.word(by).cloned() else { return Ok(()) };
        let index = format!("hr:speaks:{by}");
        let whose = Entry { node: self.node, login: word.login }.to_bytes();
        let lasts = VOUCH_KEY.as_secs().to_string();
        let state: &[u8] = if word.until.is_some() { b"gone" } else { b"here" };
        let arguments: [&[u8]; 4] = [&whose, &ids(&word.devices), state, lasts.as_bytes()];
        self.stats.commands.fetch_add(1, Relaxed);
        let Some((before, named)): Option<(Vec<u8>, Vec<u8>)> =
            conn.script(&NAME, index.as_bytes(), &arguments).await?
        else {
            self.speaking.lock().said(by, word.login, false);
            return Ok(());
        };
        let (before, now) = (devices(&before), devices(&named));
        self.stats.full.fetch_add((now.len() < word.devices.len()).into(), Relaxed);
        let left: Vec<_> = before.iter().filter(|device| now.binary_search(device).is_err()).collect();
        let entered: Vec<_> = now.iter().filter(|device| all || !before.contains(device)).collect();
        let lasts_for = word.until.map_or(VOUCHED_FOR, |until| until.saturating_duration_since(Instant::now()));
        let until = unix_ms() + lasts_for.as_millis() as u64;
        self.stats.commands.fetch_add((left.len() + 2 * entered.len()) as u64, Relaxed);
        try_join_all(left.iter().map(|device| strike(conn, by, device))).await?;
        try_join_all(entered.iter().map(|device| enter(conn, by, device, until))).await?;
        if !left.is_empty() {
            self.stats.commands.fetch_add(1, Relaxed);
            let settled = [&whose[..], &named].concat();
            conn.script::<Value>(&SETTLE, index.as_bytes(), &[&settled, lasts.as_bytes()]).await?;
        }
        self.speaking.lock().said(by, word.login, true);
        Ok(())
    }

    /// What a machine here says now counts, and then what Redis says. What machines that have gone from here said counts only while Redis
    /// cannot be asked: they may have said something else at another node since.
    pub(super) async fn vouched(&self, device: &DeviceId) -> Option<bool> {
        let here: Vec<(DeviceId, bool)> = self.speaking.lock().vouches.speakers(device).collect();
        if here.iter().any(|(_, connected)| *connected) {
            return Some(true);
        }
        let said = self.ask_vouched(device).await;
        match said {
            None if !here.is_empty() => Some(true),
            Some(false) if !here.is_empty() => {
                // Redis was emptied, or knows better.
                let mut speaking = self.speaking.lock();
                here.iter().for_each(|(by, _)| speaking.say_anew(*by, true));
                drop(speaking);
                self.speak.notify_one();
                None
            }
            said => said,
        }
    }

    async fn ask_vouched(&self, device: &DeviceId) -> Option<bool> {
        let conn = self.conn()?;
        self.stats.commands.fetch_add(1, Relaxed);
        let mut command = redis::cmd("ZCOUNT");
        command.arg(key(device)).arg(unix_ms()).arg("+inf");
        conn.run::<u64>(&command).await.ok().map(|count| count > 0)
    }
}

fn ids(devices: &[DeviceId]) -> Vec<u8> {
    devices.iter().flat_map(|device| device.as_bytes()).copied().collect()
}

fn devices(ids: &[u8]) -> Vec<DeviceId> {
    ids.as_chunks().0.iter().map(|id| DeviceId::from_bytes(*id)).collect()
}

async fn enter(conn: &Conn, by: &DeviceId, device: &DeviceId, until: u64) -> RedisResult<()> {
    let key = key(device);
    let (mut add, mut expire) = (redis::cmd("ZADD"), redis::cmd("EXPIRE"));
    add.arg(&key).arg(until).arg(by.to_string());
    expire.arg(&key).arg(VOUCH_KEY.as_secs());
    let (added, expires) = tokio::join!(conn.run::<Value>(&add), conn.run::<Value>(&expire));
    added.and(expires).map(drop)
}

async fn strike(conn: &Conn, by: &DeviceId, device: &DeviceId) -> RedisResult<()> {
    let mut command = redis::cmd("ZREM");
    command.arg(key(device)).arg(by.to_string());
    conn.run::<Value>(&command).await.map(drop)
}
