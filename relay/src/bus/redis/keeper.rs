//! The task that keeps the way to Redis: it connects, looks whether the way still stands, and enters everything of this
//! node again when it was lost or emptied.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use happy_crypto::DeviceId;
use happy_wire::relay::Undelivered;
use redis::aio::{AsyncPushSender, SendError};
use redis::{PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::directory::{self, Entry};
use super::outgoing::Chore;
use super::way::{Conn, RedisUrl, Way};
use super::{LEASE, RETRY, Shared};
use crate::bus::batch::{self, Queue, Record};
use crate::bus::{Claim, Inbox, Login, Message, NodeId};
use crate::records::unix_ms;

/// How often a node sends itself a Ping and looks at what became of the last one.
const TICK: Duration = Duration::from_millis(500);
/// Without an answer for so long the way is lost: with a tick more it stays below the two seconds within which devices are told.
const PATIENCE: Duration = Duration::from_millis(1_250);
/// A directory that is incomplete is entered again no sooner than this after the last time.
const REENTER: Duration = Duration::from_secs(3);
/// How often vouches are renewed, well below the day that they last.
const REVOUCH: Duration = Duration::from_secs(60 * 60);
/// Entries of our own devices that are looked at each second, at least: of a part of the directory that was lost, one is among them.
const LOOKS: usize = 64;
/// Within so many seconds each entry is looked at.
const LOOK_WITHIN: usize = 60;
/// Keys that stand in a cluster for nothing but that they stand: a part of it that holds one in a hundred slots lacks all of them once in a
/// dozen times, a larger one hardly ever.
const MARKS: usize = 256;
/// Of these so many are looked at each second.
const MARKS_A_SECOND: usize = 64;
/// The life of a mark, renewed each time that it is looked at.
const MARK: Duration = Duration::from_secs(60);
/// Devices entered again at once.
const REJOIN: usize = 256;

/// What Redis pushes is handled in the task that reads it.
struct Pushes {
    shared: Arc<Shared>,
    /// The subscription was lost; the keeper looks at once.
    cut: Arc<Notify>,
}

impl AsyncPushSender for Pushes {
    fn send(&self, info: PushInfo) -> Result<(), SendError> {
        match (info.kind, info.data.into_iter().nth(1)) {
            (PushKind::SMessage | PushKind::Message, Some(Value::BulkString(bytes))) => self.shared.handle(&bytes),
            (PushKind::Disconnection | PushKind::SUnsubscribe, _) => self.cut.notify_one(),
            _ => {}
        }
        Ok(())
    }
}

/// Keeps the way to Redis for as long as the bus lives.
pub(super) async fn keep(shared: Arc<Shared>, way: Way, url: RedisUrl) {
    let mut pause = RETRY.0;
    let mut told = false;
    loop {
        match Held::connect(&shared, &way).await {
            Ok(held) => {
                held.stay().await;
                tracing::warn!(redis = %url, "the way to Redis was lost; devices at other nodes are away until it is back");
                (pause, told) = (RETRY.0, false);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(redis = %url, error = %url.told(&error), "Redis is not reached; this node goes on alone and tries again");
                }
            }
        }
        shared.down();
        sleep(pause).await;
        pause = (pause * 2).min(RETRY.1);
    }
}

/// The way to Redis while it stands.
struct Held {
    shared: Arc<Shared>,
    conn: Conn,
    /// The connection of the subscription ends with this.
    _ears: Conn,
    cut: Arc<Notify>,
    /// When the directory may be entered again, when vouches are renewed, and from when on the leases of others say who lives: all of them
    /// have to be renewed first when ours was lost.
    reenter: Instant,
    revouch: Instant,
    look: Instant,
    /// Devices whose entries are still to be looked at, and how many each second.
    unseen: Vec<(DeviceId, Login)>,
    looks: usize,
    /// The mark that is looked at next.
    mark: usize,
}

/// Why nothing more is done on this way.
struct Lost;

impl Held {
    async fn connect(shared: &Arc<Shared>, way: &Way) -> RedisResult<Self> {
        let conn = way.connect(None).await?;
        let cut = Arc::new(Notify::new());
        let pushes: Arc<dyn AsyncPushSender> = Arc::new(Pushes { shared: shared.clone(), cut: cut.clone() });
        let ears = way.connect(Some(pushes)).await?;
        ears.run::<Value>(redis::cmd("SSUBSCRIBE").arg(shared.node.channel())).await?;
        shared.renew_lease(&conn).await?;
        {
            let mut out = shared.out.lock();
            out.conn = Some(conn.clone());
            out.incomplete = false;
            out.cache.clear();
        }
        if shared.stats.lost.load(Relaxed) > 0 {
            shared.refills();
        }
        shared.stats.up.store(true, Relaxed);
        tracing::info!(node = %shared.node, "joined the other nodes through Redis");
        let now = Instant::now();
        let (reenter, revouch, look) = (now + REENTER, now + REVOUCH, now + LEASE);
        Ok(Self {
            shared: shared.clone(),
            conn,
            _ears: ears,
            cut,
            reenter,
            revouch,
            look,
            unseen: Vec::new(),
            looks: LOOKS,
            mark: 0,
        })
    }

    /// Until the way is lost.
    async fn stay(mut self) {
        let Ok(()) = self.rejoin(0).await else { return };
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 1.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.cut.notified() => return,
            }
            let Ok(()) = self.tick(n).await else { return };
        }
    }

    async fn tick(&mut self, n: u64) -> Result<(), Lost> {
        let shared = self.shared.clone();
        if shared.heard.lock().1.elapsed() > PATIENCE {
            return Err(Lost);
        }
        self.ping(n).await?;
        if n.is_multiple_of(2) {
            self.tend_directory(n).await?;
            if self.look <= Instant::now() {
                shared.look_for_gone(&self.conn).await.map_err(|_| Lost)?;
            }
            // Another node sweeps this bucket another time.
            shared.sweep(&self.conn).await;
        }
        if self.revouch <= Instant::now() {
            self.revouch = Instant::now() + REVOUCH;
            shared.enter_vouches();
        }
        Ok(())
    }

    /// A sign of life to ourselves, on the way that messages take.
    async fn ping(&self, n: u64) -> Result<(), Lost> {
        let mut ping = Vec::with_capacity(batch::HEAD + 16);
        batch::begin(&mut ping, self.shared.node, unix_ms());
        batch::push(&mut ping, &Record::Ping(n));
        let mut command = redis::cmd("SPUBLISH");
        command.arg(self.shared.node.channel()).arg(ping);
        self.conn.run::<Value>(&command).await.map(drop).map_err(|_| Lost)
    }

    /// Looks whether some of our devices still stand in the directory: a part of a cluster may have lost what it held, or a replica
    /// taken over that had not all of it.
    async fn look_for_lost(&mut self) {
        let Some(inbox) = self.shared.inbox() else { return };
        if self.unseen.is_empty() {
            self.unseen = inbox.seats();
            self.looks = LOOKS.max(self.unseen.len().div_ceil(LOOK_WITHIN));
        }
        let some = self.unseen.split_off(self.unseen.len().saturating_sub(self.looks));
        self.shared.stats.commands.fetch_add(some.len() as u64, Relaxed);
        let stand = join_all(some.iter().map(|(device, _)| directory::look_up(&self.conn, device))).await;
        for ((device, login), stands) in some.iter().zip(stand) {
            // An answer that did not come says nothing.
            let Ok(stands) = stands else { continue };
            match stands {
                _ if inbox.seat(device) != Some(*login) => {}
                // A larger one here is about to take its seat.
                Some(entry) if entry.node == self.shared.node && entry.login >= *login => {}
                Some(Entry { login: by, .. }) if by > *login => {
                    inbox.handle(self.shared.node, Message::Displaced { device: *device, by });
                }
                _ => self.shared.out.lock().incomplete = true,
            }
        }
    }

    /// Whether the next marks stood, as they do now. A part of a cluster may have been emptied in which none of our devices stands, but what they
    /// said. One server has our lease or nothing.
    async fn renew_marks(&mut self, count: usize) -> bool {
        if !matches!(self.conn, Conn::Cluster(_)) {
            return true;
        }
        let marks = (self.mark..self.mark + count).map(|mark| self.shared.renew_mark(&self.conn, mark % MARKS));
        self.mark = (self.mark + count) % MARKS;
        // An answer that did not come says nothing.
        join_all(marks).await.into_iter().all(|stood| stood.unwrap_or(true))
    }

    /// Renews the lease, and enters everything again when it had gone or something was not entered.
    async fn tend_directory(&mut self, n: u64) -> Result<(), Lost> {
        let stood = self.shared.renew_lease(&self.conn).await.map_err(|_| Lost)?;
        if !stood {
            self.look = Instant::now() + LEASE;
            self.shared.refills();
        }
        self.look_for_lost().await;
        if !self.renew_marks(MARKS_A_SECOND).await {
            self.shared.out.lock().incomplete = true;
        }
        let incomplete = self.reenter <= Instant::now() && std::mem::take(&mut self.shared.out.lock().incomplete);
        if stood && !incomplete {
            return Ok(());
        }
        // Redis was emptied, or another one took over that did not know us.
        tracing::warn!("the directory in Redis was lost or is incomplete; all devices are entered again");
        // What is remembered of it stays: it is as good as before, while the directory knows nobody whose node has not come yet.
        self.rejoin(n).await
    }

    async fn rejoin(&mut self, n: u64) -> Result<(), Lost> {
        *self.shared.heard.lock() = (n, Instant::now());
        // Those that were lost with the rest shall not call a second time.
        self.renew_marks(MARKS).await;
        tokio::select! {
            () = self.shared.rejoin() => {}
            () = self.cut.notified() => return Err(Lost),
        }
        // It may have taken longer than the patience for a Ping.
        *self.shared.heard.lock() = (n, Instant::now());
        self.reenter = Instant::now() + REENTER;
        Ok(())
    }
}

fn random_bucket() -> u16 {
    let mut bytes = [0; 2];
    // Any bucket will do.
    let _ = getrandom::fill(&mut bytes);
    u16::from_be_bytes(bytes) % directory::BUCKETS
}

impl Shared {
    /// Whether it stood there before.
    async fn renew_lease(&self, conn: &Conn) -> RedisResult<bool> {
        self.stats.commands.fetch_add(1, Relaxed);
        let mut command = self.lease();
        command.arg("GET");
        Ok(conn.run::<Option<Vec<u8>>>(&command).await?.is_some())
    }

    /// Whether it stood there before.
    async fn renew_mark(&self, conn: &Conn, mark: usize) -> RedisResult<bool> {
        self.stats.commands.fetch_add(1, Relaxed);
        let mut command = redis::cmd("SET");
        command.arg(format!("hr:mark:{mark:02x}:{}", self.node)).arg(1).arg("EX").arg(MARK.as_secs()).arg("GET");
        Ok(conn.run::<Option<Vec<u8>>>(&command).await?.is_some())
    }

    /// Looks whether the nodes of our devices' peers still live.
    async fn look_for_gone(&self, conn: &Conn) -> RedisResult<()> {
        let nodes: Vec<NodeId> = self.others.lock().iter().copied().collect();
        for node in nodes {
            self.stats.commands.fetch_add(1, Relaxed);
            if directory::lives(conn, node).await? {
                continue;
            }
            // An emptied Redis has nobody's lease, and says nothing of who has gone.
            if !directory::lives(conn, self.node).await? {
                return Ok(());
            }
            self.others.lock().remove(&node);
            self.out.lock().cache.forget_node(node);
            tracing::info!(%node, "a node has gone");
            if let Some(inbox) = self.inbox() {
                inbox.gone(node);
            }
        }
        Ok(())
    }

    /// Looks at one bucket, which another node does another time. What stands there for this node without a seat is struck out, after a
    /// while in which a login that is under way takes its seat.
    async fn sweep(self: &Arc<Self>, conn: &Conn) {
        let Ok(swept) = directory::sweep(conn, random_bucket(), self.node).await else { return };
        self.stats.swept.fetch_add(swept.struck, Relaxed);
        let Some(inbox) = self.inbox() else { return };
        let mut strays = swept.own;
        strays.retain(|(device, login)| inbox.seat(device) != Some(*login));
        if !strays.is_empty() {
            let shared = self.clone();
            self.spawn(async move {
                sleep(LEASE).await;
                strays.iter().for_each(|(device, login)| shared.release_unseated(&*inbox, device, *login));
            });
        }
    }

    fn release_unseated(&self, inbox: &dyn Inbox, device: &DeviceId, login: Login) {
        if inbox.seat(device) != Some(login) {
            self.chore(Chore::Release(*device, Entry { node: self.node, login }));
        }
    }

    /// The devices here are told that their peers elsewhere are away, and nothing is sent any more.
    fn down(&self) {
        let lost: Vec<Message> = {
            let mut out = self.out.lock();
            out.conn = None;
            out.cache.clear();
            out.drop_chores();
            out.waiting = 0;
            let asked = std::mem::take(&mut out.asking).into_values().flatten();
            let batches = std::mem::take(&mut out.nodes).into_values();
            asked.chain(batches.flat_map(Queue::into_messages)).collect()
        };
        self.room.notify_waiters();
        self.speaking.lock().hold_back();
        self.others.lock().clear();
        if self.stats.up.swap(false, Relaxed) {
            self.stats.lost.fetch_add(1, Relaxed);
        }
        self.give_back(self.node, lost, Undelivered::Unreachable);
        if let Some(inbox) = self.inbox() {
            inbox.apart();
        }
    }

    /// Strikes out who has gone meanwhile, enters all devices of this node again and lets them name their peers anew. It is tried again later when Redis stops answering.
    async fn rejoin(&self) {
        self.out.lock().settle();
        self.wake.notify_one();
        let Some(inbox) = self.inbox() else { return self.enter_vouches() };
        let seats = inbox.seats();
        for part in seats.chunks(REJOIN) {
            let claims = join_all(part.iter().map(|(device, login)| self.claim(device, *login))).await;
            if self.out.lock().incomplete {
                return;
            }
            for ((device, login), claim) in part.iter().zip(claims) {
                // It may have gone while it was entered.
                self.release_unseated(&*inbox, device, *login);
                if claim == Claim::Newer {
                    // Somewhere else, with a larger login.
                    let by = Login { number: login.number.saturating_add(1), ..*login };
                    inbox.handle(self.node, Message::Displaced { device: *device, by });
                }
            }
        }
        self.enter_vouches();
        for (device, _) in seats {
            self.until_room().await;
            inbox.introduce(&device);
        }
    }
}
