//! How fast devices may send and come (`PROTOCOL 7`, Rates).
//!
//! Neither limit keeps a queue. Who sends too fast is not read for a while and so waits in the network; who comes when too many
//! come is sent away with a time at which there will be room.

use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use happy_crypto::DeviceId;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant, Sleep, sleep_until};

use crate::hub::Hub;

/// The smallest burst of one connection, bytes: a link that comes back sends what it has in flight, and a snapshot of a screen behind it.
pub(crate) const MIN_BURST: u32 = 1024 * 1024;
/// The smallest rate that may be set, bytes a second. A frame of the largest size then takes a second, so a connection that is made to
/// wait still gives a sign of life long before it would count as dead.
pub(crate) const MIN_RATE: u32 = 64 * 1024;
/// A connection that was made to wait is read again when it may give so many bytes: fewer reads, and larger ones.
const QUANTUM: f64 = 16.0 * 1024.0;
/// Of the logins that may be checked, this part is promised to those that were sent away. The rest is for those that come for the first
/// time, so that a promise can be kept without remembering to whom it was made.
const PROMISED: f64 = 0.8;
/// A device that was sent away comes back no sooner than this.
const SOONEST: Duration = Duration::from_millis(500);
/// And no later: the links do not believe in more than 300 s (`PROTOCOL 13`). A crowd larger than this is laid out in several layers.
const LATEST: Duration = Duration::from_secs(240);

/// Names that one device may change at once: all of its 256 peers eight times over, or a list that grows to them one by one.
const NAMES: f64 = 4_096.0;
/// And a second after that. Each may cost a look into the directory and a notice to another node, and nobody honest changes whom he names so often.
const NAMES_A_SECOND: f64 = 256.0;
/// So many names that stay as they are cost as much as one that changes.
const UNCHANGED: usize = 16;
/// Devices of which it is remembered. One that names a few others is forgotten within a tenth of a second.
const MAX_NAMING: usize = 16_384;
/// Who finds no room there waits for so long each time.
const NO_ROOM: Duration = Duration::from_secs(1);
/// The longest that a connection is not read, well below the time after which it would count as dead.
const LONGEST: Duration = Duration::from_secs(3);

/// Whether those that are remembered have been quiet is looked at no more often than this, however many come.
const SWEEP: Duration = Duration::from_millis(50);

/// Something that fills up with time and is spent.
#[derive(Debug)]
pub(crate) struct Bucket {
    a_second: f64,
    burst: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(a_second: f64, burst: f64, now: Instant) -> Self {
        Self { a_second, burst, level: burst, at: now }
    }

    /// What may be spent now.
    pub(crate) fn level(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.a_second).min(self.burst);
        self.level
    }

    /// Spends one, if there is one and so much stays.
    pub(crate) fn take(&mut self, now: Instant, stays: f64) -> bool {
        let enough = self.level(now) >= 1.0 + stays;
        if enough {
            self.level -= 1.0;
        }
        enough
    }

    /// Spends what cannot be refused any more; the level may go below nothing.
    pub(crate) fn spend(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// Whether it is as full as it gets.
    pub(crate) fn is_full(&mut self, now: Instant) -> bool {
        self.level(now) >= self.burst
    }

    /// When there will be so much.
    pub(crate) fn due(&self, amount: f64) -> Instant {
        self.at + Duration::from_secs_f64((amount - self.level).max(0.0) / self.a_second)
    }
}

/// Buckets of many: a device or an address that has spent something is remembered until its bucket is full again.
pub(crate) struct Buckets<K> {
    spent: HashMap<K, Bucket>,
    most: usize,
    a_second: f64,
    burst: f64,
    swept: Option<Instant>,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    /// `most` are remembered, some 100 bytes each.
    pub(crate) fn new(a_second: f64, burst: f64, most: usize) -> Self {
        Self { spent: HashMap::new(), most, a_second, burst, swept: None }
    }

    /// The bucket of one that has spent something of late.
    pub(crate) fn of_spender(&mut self, key: &K) -> Option<&mut Bucket> {
        self.spent.get_mut(key)
    }

    /// The bucket of one that is about to spend. None when too many are remembered.
    pub(crate) fn of(&mut self, key: K, now: Instant) -> Option<&mut Bucket> {
        if self.spent.len() >= self.most && !self.spent.contains_key(&key) && !self.sweep(now) {
            return None;
        }
        let Self { a_second, burst, .. } = *self;
        Some(self.spent.entry(key).or_insert_with(|| Bucket::new(a_second, burst, now)))
    }

    /// Forgets those whose buckets are full. False when there are still too many.
    fn sweep(&mut self, now: Instant) -> bool {
        if self.swept.is_some_and(|last| last + SWEEP > now) {
            return false;
        }
        self.swept = Some(now);
        self.spent.retain(|_, bucket| !bucket.is_full(now));
        self.spent.len() < self.most
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.spent.len()
    }
}

/// Bytes a second of one connection, kept by not reading it.
pub(crate) struct Pace {
    bucket: Bucket,
    waiting: Option<Pin<Box<Sleep>>>,
    hub: Arc<Hub>,
}

impl Pace {
    /// `rate` is in bytes a second. None when there is no limit.
    pub(crate) fn new(rate: u32, hub: &Arc<Hub>) -> Option<Box<Self>> {
        let bucket = || Bucket::new(rate.into(), rate.max(MIN_BURST).into(), Instant::now());
        (rate > 0).then(|| Box::new(Self { bucket: bucket(), waiting: None, hub: hub.clone() }))
    }

    /// Ready when the connection may be read.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting.is_none() {
            if self.bucket.level(Instant::now()) > 0.0 {
                return Poll::Ready(());
            }
            self.hub.metrics.paced.fetch_add(1, Relaxed);
            let due = self.bucket.due(QUANTUM);
            self.waiting = Some(Box::pin(sleep_until(due)));
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(())
    }

    /// So many bytes were read.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.bucket.spend(bytes as f64);
    }
}

/// How often devices change whom they name, kept by not reading them. It is remembered of the device and not of its connection: a new one is no
/// new beginning.
pub(crate) struct Naming(Mutex<Buckets<DeviceId>>);

impl Default for Naming {
    fn default() -> Self {
        Self(Mutex::new(Buckets::new(NAMES_A_SECOND, NAMES, MAX_NAMING)))
    }
}

impl Naming {
    /// A list of so many names was taken, of which so many came or went. Gives until when the connection is not read, if it has to wait: some two
    /// seconds at most, far less than after which it would count as dead.
    pub(crate) fn took(&self, device: &DeviceId, changed: usize, listed: usize, now: Instant) -> Option<Instant> {
        let mut devices = self.0.lock();
        let Some(bucket) = devices.of(*device, now) else { return Some(now + NO_ROOM) };
        bucket.level(now);
        bucket.spend((1 + changed + listed / UNCHANGED) as f64);
        wait(bucket, now)
    }

    /// Until when a connection that has just come is not read, if its device has to wait.
    pub(crate) fn due(&self, device: &DeviceId, now: Instant) -> Option<Instant> {
        wait(self.0.lock().of_spender(device)?, now)
    }
}

fn wait(bucket: &mut Bucket, now: Instant) -> Option<Instant> {
    (bucket.level(now) < 1.0).then(|| bucket.due(1.0).min(now + LONGEST))
}

/// Logins a second of one relay. A login costs a signature check, which is what a crowd that returns, or one that only pretends to be one,
/// would have the processor for.
pub(crate) struct Logins(Option<Mutex<Timetable>>);

struct Timetable {
    /// What may be checked now.
    bucket: Bucket,
    /// The next time that is not promised yet.
    next: Instant,
    /// Between two promised times.
    step: Duration,
}

impl Logins {
    /// At most so many a second; 0 for no limit.
    pub(crate) fn new(a_second: u32) -> Self {
        if a_second == 0 {
            return Self(None);
        }
        let (rate, now) = (f64::from(a_second), Instant::now());
        Self(Some(Mutex::new(Timetable {
            // A tenth of a second's worth at once: more would be a wave of its own.
            bucket: Bucket::new(rate, (rate / 10.0).max(16.0), now),
            next: now,
            step: Duration::from_secs_f64(1.0 / (rate * PROMISED)),
        })))
    }

    /// Whether one more login may be checked. The error is when to come again: each gets the next time that is free, so that the crowd is spread over
    /// as many seconds as it needs and comes back evenly. A suspect, from where a login has just failed, leaves half of what there is to others and
    /// is promised nothing.
    pub(crate) fn admit(&self, suspect: bool, now: Instant) -> Result<(), Duration> {
        let Some(timetable) = &self.0 else { return Ok(()) };
        let mut timetable = timetable.lock();
        let stays = if suspect { timetable.bucket.burst / 2.0 } else { 0.0 };
        if timetable.bucket.take(now, stays) {
            return Ok(());
        }
        let time = timetable.next.max(now + SOONEST);
        if !suspect {
            timetable.next = time + timetable.step;
        }
        let ahead = time - now;
        if ahead <= LATEST {
            return Err(ahead);
        }
        Err(SOONEST + Duration::from_secs_f64(ahead.as_secs_f64() % (LATEST - SOONEST).as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::access::tests::device;
    use crate::config::Config;
    use crate::socket::Counted;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_read_as_fast_as_it_may_send() {
        const RATE: u32 = 256 * 1024;
        let hub = Hub::of_a_test(&Config::default());
        let (mut sender, receiver) = tokio::io::duplex(64 * 1024);
        let mut receiver = Counted::paced(receiver, Pace::new(RATE, &hub));
        tokio::spawn(async move { while sender.write_all(&[1; 4096]).await.is_ok() {} });
        let begun = Instant::now();
        let mut buffer = vec![0; MIN_BURST as usize];
        receiver.read_exact(&mut buffer).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO, "the burst is free");
        let mut read = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            read += receiver.read(&mut buffer[..8192]).await.unwrap();
        }
        let rate = read as f64 / begun.elapsed().as_secs_f64() / f64::from(RATE);
        assert!((0.98..1.02).contains(&rate), "{rate}");
        assert!(hub.metrics.paced.load(Relaxed) > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_sent_may_be_sent_later_up_to_the_burst() {
        let mut bucket = Bucket::new(10.0, 20.0, Instant::now());
        assert_eq!((0..30).filter(|_| bucket.take(Instant::now(), 0.0)).count(), 20);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..30).filter(|_| bucket.take(Instant::now(), 0.0)).count(), 10);
        tokio::time::advance(Duration::from_secs(100)).await;
        assert!(bucket.is_full(Instant::now()));
        assert_eq!((0..30).filter(|_| bucket.take(Instant::now(), 0.0)).count(), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_may_name_much_at_once_and_then_little_at_a_time() {
        let (naming, device) = (Naming::default(), device(1));
        let begun = Instant::now();
        let mut named = 0;
        while begun.elapsed() < Duration::from_secs(60) {
            // A list of which every name is another one each time.
            named += 512;
            if let Some(due) = naming.took(&device, 512, 256, Instant::now()) {
                assert!(due - Instant::now() < Duration::from_secs(3), "it must not count as dead meanwhile");
                tokio::time::sleep_until(due).await;
            }
        }
        let most = NAMES + 62.0 * NAMES_A_SECOND;
        assert!((0.9 * most..most).contains(&f64::from(named)), "{named}");
    }

    #[test]
    fn what_is_remembered_has_a_bound_and_is_forgotten() {
        let (mut buckets, now) = (Buckets::new(4.0, 20.0, 1_000), Instant::now());
        let mut spend = |keys: std::ops::Range<u32>, now| {
            let spent = |key: &u32| buckets.of(*key, now).map(|bucket| bucket.spend(1.0)).is_some();
            (keys.filter(spent).count(), buckets.len())
        };
        assert_eq!(spend(0..2_000, now), (1_000, 1_000));
        assert_eq!(spend(0..1_000, now), (1_000, 1_000), "who is remembered has room");
        assert_eq!(spend(2_000..3_000, now + Duration::from_millis(499)), (0, 1_000));
        assert_eq!(spend(2_000..2_010, now + Duration::from_millis(550)), (10, 10));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let (logins, now) = (Logins::new(0), Instant::now());
        assert!((0..100_000).all(|_| logins.admit(false, now).is_ok()));
        assert!(Pace::new(0, &Hub::of_a_test(&Config::default())).is_none());
    }

    /// A whole crowd comes at once, and again whenever it is told to, as the links do: the time named, up to a tenth of it, and up to 100 ms.
    #[test]
    fn a_crowd_that_returns_is_spread_evenly_and_there_is_no_second_wave() {
        const RATE: usize = 500;
        const CROWD: usize = 20_000;
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut below = |most: Duration| Duration::from_micros(rng.next_u64() % (most.as_micros() as u64 + 1));
        let (logins, start) = (Logins::new(RATE as u32), Instant::now());
        let mut coming: std::collections::BinaryHeap<_> =
            (0..CROWD).map(|_| std::cmp::Reverse((start + below(Duration::from_millis(300)), 0))).collect();
        let mut admitted = Vec::new();
        let mut most_refusals = 0;
        while let Some(std::cmp::Reverse((now, refusals))) = coming.pop() {
            match logins.admit(false, now) {
                Ok(()) => admitted.push((now - start).as_secs() as usize),
                Err(again) => {
                    most_refusals = most_refusals.max(refusals + 1);
                    let late = below(again / 10 + Duration::from_millis(100));
                    coming.push(std::cmp::Reverse((now + again + late, refusals + 1)));
                }
            }
        }
        assert_eq!(most_refusals, 1, "a promise is kept");
        let seconds = admitted.last().unwrap() + 1;
        assert!(seconds <= CROWD * 3 / 2 / RATE, "{seconds} s");
        let each: Vec<_> = (0..seconds).map(|at| admitted.iter().filter(|second| **second == at).count()).collect();
        assert!(each.iter().all(|count| *count <= RATE * 11 / 10), "{each:?}");
        let flat = &each[1..seconds * 9 / 10];
        assert!(flat.iter().all(|count| (RATE * 6 / 10..RATE).contains(count)), "{each:?}");
    }

    #[test]
    fn suspects_take_no_place_from_others() {
        let (logins, now) = (Logins::new(1_000), Instant::now());
        assert_eq!((0..1_000).filter(|_| logins.admit(true, now).is_ok()).count(), 50, "half of a tenth of a second");
        assert_eq!((0..50).filter(|_| logins.admit(false, now).is_ok()).count(), 50);
        assert_eq!(logins.admit(false, now), Err(SOONEST), "the first time is still free");
    }

    #[test]
    fn nobody_is_sent_away_for_longer_than_links_believe() {
        let (logins, now) = (Logins::new(1), Instant::now());
        let times: Vec<_> = (0..5_000).filter_map(|_| logins.admit(false, now).err()).collect();
        assert!(times.iter().all(|time| (SOONEST..=LATEST).contains(time)));
        let early = times.iter().filter(|time| **time < LATEST / 2).count();
        assert!((2_000..3_000).contains(&early), "in even layers: {early}");
    }
}
