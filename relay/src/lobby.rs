//! The sockets that have not proven a device: how many there may be, how many from one address, and who makes room.
//!
//! A stranger costs nothing to be one, so places are short by design, and the question is who gets them. While there are places, everybody
//! does. When there are none, the oldest socket of the address that holds the most makes room: an honest device needs a place for the
//! few round trips of its login, and one that comes from an address of its own is never the one. Where all hold alike, only sockets that had their
//! chance go; until then the newcomer waits in the queue of the kernel, so that a crowd of honest devices is served in turn and
//! not thrown out by its own number.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use crate::hub::Hub;
use crate::metrics::SocketRefusal;
use crate::rates::Buckets;

/// A socket had its chance after this: TCP, TLS, upgrade and login are five round trips, 200 ms each on a bad network.
const CHANCE: Duration = Duration::from_secs(1);
/// Logins of one address that may fail in a row before it is not listened to, and how many more each second. An office full of phones whose machine is
/// away tries every five seconds each.
const FAILURES: f64 = 20.0;
/// See [`FAILURES`].
const FAILURES_A_SECOND: f64 = 4.0;
/// The most addresses whose failures are remembered. Beyond it the limit of logins holds alone.
const MAX_FAILING: usize = 16_384;

/// Those who may share an address: an IPv4 address, or the 64 bits that one IPv6 network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Origin {
    V4(Ipv4Addr),
    V6([u8; 8]),
    /// One socket by itself: its address says nothing about who it is.
    Alone(u64),
}

impl Origin {
    /// Proxies and balancers come from this machine or from private networks, and many devices through each; strangers come from
    /// elsewhere.
    fn of(peer: Option<IpAddr>, number: u64) -> Self {
        match peer.map(|peer| peer.to_canonical()) {
            Some(IpAddr::V4(v4)) if v4 != Ipv4Addr::LOCALHOST && !v4.is_private() && !v4.is_link_local() => {
                Origin::V4(v4)
            }
            Some(IpAddr::V6(v6)) if !v6.is_loopback() && !v6.is_unique_local() && !v6.is_unicast_link_local() => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Origin::V6([a, b, c, d, e, f, g, h])
            }
            _ => Origin::Alone(number),
        }
    }
}

/// The places of a relay for sockets that have not proven a device.
pub(crate) struct Lobby {
    hub: Arc<Hub>,
    places: usize,
    /// The most of one address; none when addresses are not told apart.
    share: Option<usize>,
    state: Mutex<State>,
    /// A place became free.
    freed: Notify,
}

struct State {
    newest: u64,
    taken: usize,
    /// Never an empty one.
    sockets: HashMap<Origin, BTreeMap<u64, Waiting>>,
    /// INVARIANT: one entry for each of `sockets`: how many, the oldest, whose. The last one makes room.
    order: BTreeSet<(usize, Reverse<u64>, Origin)>,
    failing: Buckets<Origin>,
}

impl Default for State {
    fn default() -> Self {
        let failing = Buckets::new(FAILURES_A_SECOND, FAILURES, MAX_FAILING);
        Self { newest: 0, taken: 0, sockets: HashMap::new(), order: BTreeSet::new(), failing }
    }
}

struct Waiting {
    since: Instant,
    /// What ends it; none before it is known.
    task: Option<AbortHandle>,
}

/// What becomes of a socket that was accepted.
pub(crate) enum Entry {
    /// It may stay for now.
    Place(Place),
    /// It is closed.
    Refused(SocketRefusal),
    /// There is no place, and nobody to make room before this time.
    Full(Instant),
}

/// One of the places. It is free again when this is dropped.
pub(crate) struct Place {
    lobby: Arc<Lobby>,
    origin: Origin,
    number: u64,
}

impl Place {
    /// Names the task that serves the socket now. It is ended at once if the place was taken away meanwhile.
    pub(crate) fn served_by(&self, task: AbortHandle) {
        let mut state = self.lobby.state.lock();
        match state.sockets.get_mut(&self.origin).and_then(|sockets| sockets.get_mut(&self.number)) {
            Some(waiting) => waiting.task = Some(task),
            None => {
                drop(state);
                task.abort();
            }
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.leave(self.origin, self.number);
    }
}

impl Lobby {
    /// `share` is the most that one address may hold; 0 when addresses are not told apart.
    pub(crate) fn new(hub: Arc<Hub>, places: u32, share: u32) -> Arc<Self> {
        let share = (share > 0).then_some(share as usize);
        Arc::new(Self { hub, places: places as usize, share, state: Mutex::default(), freed: Notify::new() })
    }

    /// Asks for a place. `peer` is none when the address is not known.
    pub(crate) fn enter(self: &Arc<Self>, peer: Option<IpAddr>, now: Instant) -> Entry {
        let (entry, evicted) = self.decide(peer, now);
        // Without the lock, which the end of a task may want.
        if let Some(task) = evicted {
            task.abort();
        }
        entry
    }

    /// The entry, and the task that has to end for it.
    fn decide(self: &Arc<Self>, peer: Option<IpAddr>, now: Instant) -> (Entry, Option<AbortHandle>) {
        let refused = |reason| (Entry::Refused(reason), None);
        let mut state = self.state.lock();
        let mut evicted = None;
        let number = state.newest;
        let origin = Origin::of(peer.filter(|_| self.share.is_some()), number);
        if state.failing.of_spender(&origin).is_some_and(|left| left.level(now) < 1.0) {
            return refused(SocketRefusal::FailedLogins);
        }
        let here = state.sockets.get(&origin).map_or(0, BTreeMap::len);
        if self.share.is_some_and(|share| here >= share) {
            // Its own oldest makes room, but not one that is still about to log in.
            if !state.had_its_chance(origin, now) {
                return refused(SocketRefusal::Address);
            }
            evicted = self.evict(&mut state, origin);
        } else if state.taken >= self.places {
            let Some((most, _, heaviest)) = state.order.last().copied() else {
                return refused(SocketRefusal::Unproven);
            };
            if most > here + 1 || state.had_its_chance(heaviest, now) {
                evicted = self.evict(&mut state, heaviest);
            } else if here > 0 {
                return refused(SocketRefusal::Unproven);
            } else {
                let chance = state.oldest_of(heaviest).map_or(now, |since| since + CHANCE);
                return (Entry::Full(chance), None);
            }
        }
        state.newest += 1;
        state.change(origin, |sockets| {
            sockets.insert(number, Waiting { since: now, task: None });
        });
        state.taken += 1;
        self.hub.metrics.unproven.store(state.taken as u64, Relaxed);
        (Entry::Place(Place { lobby: self.clone(), origin, number }), evicted)
    }

    /// Waits until a place is free, or until then.
    pub(crate) async fn freed(&self, until: Instant) {
        tokio::select! {
            biased;
            () = self.freed.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Whether logins from there have failed of late.
    pub(crate) fn suspects(&self, origin: Origin, now: Instant) -> bool {
        self.state.lock().failing.of_spender(&origin).is_some_and(|left| !left.is_full(now))
    }

    /// A login from there failed.
    pub(crate) fn failed(&self, origin: Origin, now: Instant) {
        if matches!(origin, Origin::Alone(_)) {
            return;
        }
        if let Some(left) = self.state.lock().failing.of(origin, now) {
            left.spend(1.0);
        }
    }

    /// Takes the place of the oldest, and gives the task that serves it.
    fn evict(&self, state: &mut State, origin: Origin) -> Option<AbortHandle> {
        let mut oldest = None;
        state.change(origin, |sockets| oldest = sockets.pop_first());
        let (_, waiting) = oldest?;
        state.taken -= 1;
        self.hub.metrics.socket_refused(SocketRefusal::MadeRoom);
        waiting.task
    }

    fn leave(&self, origin: Origin, number: u64) {
        let mut state = self.state.lock();
        let mut was_here = false;
        state.change(origin, |sockets| was_here = sockets.remove(&number).is_some());
        if was_here {
            state.taken -= 1;
            self.hub.metrics.unproven.store(state.taken as u64, Relaxed);
            self.freed.notify_one();
        }
    }
}

impl State {
    /// Changes the sockets of one origin, and keeps the order.
    fn change(&mut self, origin: Origin, change: impl FnOnce(&mut BTreeMap<u64, Waiting>)) {
        let sockets = self.sockets.entry(origin).or_default();
        if let Some((oldest, _)) = sockets.first_key_value() {
            self.order.remove(&(sockets.len(), Reverse(*oldest), origin));
        }
        change(sockets);
        match sockets.first_key_value() {
            Some((oldest, _)) => {
                self.order.insert((sockets.len(), Reverse(*oldest), origin));
            }
            None => {
                self.sockets.remove(&origin);
            }
        }
    }

    fn oldest_of(&self, origin: Origin) -> Option<Instant> {
        self.sockets.get(&origin)?.first_key_value().map(|(_, waiting)| waiting.since)
    }

    fn had_its_chance(&self, origin: Origin, now: Instant) -> bool {
        self.oldest_of(origin).is_some_and(|since| since + CHANCE <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn lobby(places: u32, share: u32) -> Arc<Lobby> {
        Lobby::new(Hub::of_a_test(&Config::default()), places, share)
    }

    fn peer(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// A place, with a task that runs until it is ended.
    fn enter(
        lobby: &Arc<Lobby>,
        from: &str,
        now: Instant,
    ) -> Result<(Place, tokio::task::JoinHandle<()>), SocketRefusal> {
        match lobby.enter(peer(from), now) {
            Entry::Place(place) => {
                let task = tokio::spawn(std::future::pending());
                place.served_by(task.abort_handle());
                Ok((place, task))
            }
            Entry::Refused(reason) => Err(reason),
            Entry::Full(_) => panic!("it is full"),
        }
    }

    async fn was_ended(task: tokio::task::JoinHandle<()>) -> bool {
        task.await.is_err_and(|error| error.is_cancelled())
    }

    #[tokio::test]
    async fn the_oldest_of_the_address_that_holds_the_most_makes_room() {
        let (lobby, now) = (lobby(4, 100), Instant::now());
        let honest = enter(&lobby, "203.0.113.1", now).unwrap();
        let (first, first_task) = enter(&lobby, "203.0.113.2", now).unwrap();
        let _rest = [enter(&lobby, "203.0.113.2", now), enter(&lobby, "203.0.113.2", now)];
        let (newcomer, _task) = enter(&lobby, "203.0.113.3", now).unwrap();
        assert!(was_ended(first_task).await);
        assert!(!honest.1.is_finished());
        // What it gives up later was given up already.
        drop(first);
        assert_eq!(lobby.state.lock().taken, 4);
        drop(newcomer);
        assert_eq!(lobby.state.lock().taken, 3);
    }

    #[tokio::test]
    async fn an_address_with_its_share_makes_room_for_itself_once_it_had_its_chance() {
        let (lobby, now) = (lobby(10, 2), Instant::now());
        let (_first, first_task) = enter(&lobby, "2001:db8::1", now).unwrap();
        // The same network, whatever the last 64 bits.
        let _second = enter(&lobby, "2001:db8::2:3", now).unwrap();
        assert_eq!(enter(&lobby, "2001:db8::3", now).err(), Some(SocketRefusal::Address));
        let _elsewhere = enter(&lobby, "2001:db8:0:1::1", now).unwrap();
        let _third = enter(&lobby, "2001:db8::3", now + CHANCE).unwrap();
        assert!(was_ended(first_task).await);
    }

    #[tokio::test]
    async fn among_equals_who_had_no_chance_yet_stays_and_the_newcomer_waits() {
        let (lobby, now) = (lobby(2, 100), Instant::now());
        let (first, first_task) = enter(&lobby, "203.0.113.1", now).unwrap();
        let _second = enter(&lobby, "203.0.113.2", now).unwrap();
        assert!(matches!(lobby.enter(peer("203.0.113.3"), now), Entry::Full(until) if until == now + CHANCE));
        // Who holds a place already is not worth waiting for.
        assert!(matches!(lobby.enter(peer("203.0.113.2"), now), Entry::Refused(SocketRefusal::Unproven)));
        let freed = lobby.freed(now + CHANCE);
        drop(first);
        freed.await;
        let _third = enter(&lobby, "203.0.113.3", now).unwrap();
        assert!(!first_task.is_finished());
        let later = now + CHANCE;
        let _fourth = enter(&lobby, "203.0.113.4", later).unwrap();
        assert_eq!(lobby.state.lock().taken, 2);
    }

    #[tokio::test]
    async fn a_task_that_is_named_too_late_is_ended() {
        let (lobby, now) = (lobby(1, 100), Instant::now());
        let Entry::Place(slow) = lobby.enter(peer("203.0.113.1"), now) else { panic!("there is room") };
        let _other = enter(&lobby, "203.0.113.2", now + CHANCE).unwrap();
        let task = tokio::spawn(std::future::pending());
        slow.served_by(task.abort_handle());
        assert!(was_ended(task).await);
    }

    #[tokio::test]
    async fn those_behind_a_proxy_are_not_taken_for_one() {
        let (behind_one, now) = (lobby(10, 1), Instant::now());
        let mut places = Vec::new();
        for from in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.2", "192.168.1.5", "fd00::1", "127.0.0.1"] {
            places.push(enter(&behind_one, from, now).unwrap());
        }
        let told_apart = lobby(10, 0);
        for _ in 0..5 {
            places.push(enter(&told_apart, "203.0.113.1", now).unwrap());
        }
        for (place, _) in &places {
            place.lobby.failed(place.origin(), now);
        }
        assert!(behind_one.state.lock().failing.len() == 0 && told_apart.state.lock().failing.len() == 0);
    }

    #[tokio::test]
    async fn an_address_whose_logins_fail_is_not_listened_to_for_a_while() {
        let (lobby, now) = (lobby(10, 5), Instant::now());
        let (place, _task) = enter(&lobby, "203.0.113.1", now).unwrap();
        for _ in 0..FAILURES as usize {
            lobby.failed(place.origin(), now);
        }
        assert_eq!(enter(&lobby, "203.0.113.1", now).err(), Some(SocketRefusal::FailedLogins));
        assert!(enter(&lobby, "203.0.113.2", now).is_ok());
        assert!(lobby.suspects(place.origin(), now));
        assert!(!lobby.suspects(place.origin(), now + Duration::from_secs(5)));
        assert!(enter(&lobby, "203.0.113.1", now + Duration::from_millis(251)).is_ok());
    }

    #[tokio::test]
    async fn what_is_remembered_of_addresses_has_a_bound() {
        let (lobby, now) = (lobby(10, 5), Instant::now());
        let many = |from: u32| (0..2 * MAX_FAILING as u32).map(move |n| Origin::V4(Ipv4Addr::from_bits(from + n)));
        many(1 << 30).for_each(|origin| lobby.failed(origin, now));
        assert_eq!(lobby.state.lock().failing.len(), MAX_FAILING);
        // Later the quiet ones have been forgotten, and others are remembered.
        let later = now + Duration::from_secs(60);
        many(1 << 31).take(10).for_each(|origin| lobby.failed(origin, later));
        assert_eq!(lobby.state.lock().failing.len(), 10);
    }

    /// Whatever comes and goes, the books are right.
    #[tokio::test]
    async fn order_and_number_fit_what_is_there() {
        use rand_core::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha20Rng::seed_from_u64(7);
        let (lobby, mut now) = (lobby(20, 6), Instant::now());
        let mut held = Vec::new();
        for _ in 0..5_000 {
            now += Duration::from_millis(u64::from(rng.next_u32() % 40));
            if rng.next_u32().is_multiple_of(3) && !held.is_empty() {
                held.swap_remove(rng.next_u32() as usize % held.len());
            } else if let Entry::Place(place) = lobby.enter(peer(&format!("203.0.113.{}", rng.next_u32() % 12)), now) {
                held.push(place);
            }
            let state = lobby.state.lock();
            assert!(state.taken <= 20);
            assert_eq!(state.taken, state.sockets.values().map(BTreeMap::len).sum::<usize>());
            let order: BTreeSet<_> = state
                .sockets
                .iter()
                .map(|(origin, sockets)| (sockets.len(), Reverse(*sockets.first_key_value().unwrap().0), *origin))
                .collect();
            assert_eq!(order, state.order);
            assert!(state.sockets.values().all(|sockets| sockets.len() <= 6));
        }
        drop(held);
        assert_eq!(lobby.state.lock().taken, 0);
        assert!(lobby.state.lock().order.is_empty());
    }
}
