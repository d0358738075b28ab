//! When to dial the relay again (`PROTOCOL 9`, Liveness, and the last column of `PROTOCOL 13`).

use std::time::Duration;

use happy_wire::Code;
use rand_core::CryptoRng;

use crate::event::{Dial, Way};

/// The first attempt: soon, but not in step with everybody else whose relay just went away.
const FIRST: Duration = Duration::from_millis(100);
/// The ceiling while a person may be waiting.
const EAGER: Duration = Duration::from_secs(2);
/// How long a person is assumed to be waiting.
const EAGER_FOR: Duration = Duration::from_secs(60);
/// The ceiling afterwards.
const PATIENT: Duration = Duration::from_secs(30);
/// After answers that the next attempt will hardly change: not permitted, login refused, malformed.
const UNPROMISING: Duration = Duration::from_secs(60);
/// A ticket that the relay does not know may lead to a machine that is on its way there: so long a guest tries again.
const HOST_COMES: Duration = Duration::from_secs(3);
/// The same for a guest that was admitted before: what cut it off has cut off the machine as well.
const HOST_COMES_BACK: Duration = Duration::from_secs(20);
/// A relay cannot send a device away for longer than this.
const LONGEST_NAMED: Duration = Duration::from_secs(300);

/// What the relay said before the connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) code: Code,
    pub(crate) retry_after: Duration,
}

pub(crate) struct Reconnect {
    attempts: u32,
    down_since: Option<Duration>,
    at: Duration,
    /// When the last attempt or connection ended.
    since: Duration,
    /// It ended with an answer that the next attempt will hardly change.
    refused: bool,
    /// The relay chose the time, so nobody's impatience moves it.
    named: bool,
    never: Option<Code>,
    active: bool,
    guest: bool,
    /// The relay has taken a login of this connection.
    admitted: bool,
    /// Since when the relay has known nothing of a guest's ticket.
    refused_since: Option<Duration>,
}

impl Reconnect {
    /// The first attempt may start at once.
    pub(crate) fn new(now: Duration, guest: bool) -> Self {
        Self {
            attempts: 0,
            down_since: None,
            at: now,
            since: now,
            refused: false,
            named: false,
            never: None,
            active: false,
            guest,
            admitted: false,
            refused_since: None,
        }
    }

    /// The relay has taken a login.
    pub(crate) fn admitted(&mut self) {
        self.admitted = true;
        self.refused_since = None;
    }

    pub(crate) fn dial(&self) -> Dial {
        self.never.map_or(Dial::At(self.at), Dial::Never)
    }

    /// How the waiting is, for people.
    pub(crate) fn way(&self, now: Duration) -> Way {
        match self.dial() {
            Dial::Never(code) => Way::Ended(code),
            Dial::At(at) if at > now => {
                Way::Waiting { left: at - now, pause: at.saturating_sub(self.since), refused: self.refused }
            }
            Dial::At(_) | Dial::Connected => Way::Trying,
        }
    }

    /// The connection proved useful: the next attempt is a first one.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.down_since = None;
    }

    /// The connection ended, or could not be made.
    pub(crate) fn schedule(&mut self, now: Duration, rng: &mut impl CryptoRng, told: Option<Told>) {
        let down_since = *self.down_since.get_or_insert(now);
        (self.since, self.named, self.refused) = (now, false, false);
        match told {
            // PROTOCOL 13, 4409: another connection of this device is newer than this one.
            // Who is leaving leaves, whatever the relay says to that.
            Some(Told { code: Code::DISPLACED, .. }) => {
                self.never.get_or_insert(Code::DISPLACED);
            }
            Some(Told { code: Code::LOGIN_REFUSED, .. }) if self.guest => {
                if self.host_had_time(now) {
                    self.never.get_or_insert(Code::LOGIN_REFUSED);
                } else {
                    self.back_off(now, rng, down_since);
                }
            }
            Some(Told { retry_after, .. }) if !retry_after.is_zero() => {
                let retry_after = retry_after.min(LONGEST_NAMED);
                self.reset();
                self.named = true;
                self.at = now + retry_after + below(rng, retry_after / 10 + FIRST);
            }
            Some(Told {
                code: Code::NOT_PERMITTED | Code::LOGIN_REFUSED | Code::MALFORMED | Code::TOO_LARGE, ..
            }) => {
                self.refused = true;
                self.at = now + UNPROMISING / 2 + below(rng, UNPROMISING);
            }
            _ => self.back_off(now, rng, down_since),
        }
    }

    fn back_off(&mut self, now: Duration, rng: &mut impl CryptoRng, down_since: Duration) {
        let eager = self.active || now.saturating_sub(down_since) < EAGER_FOR;
        let doubled = FIRST.saturating_mul(1 << self.attempts.min(16));
        self.at = now + below(rng, doubled.min(if eager { EAGER } else { PATIENT }));
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Whether the machine that a refused ticket leads to has had the time to come to the relay.
    fn host_had_time(&mut self, now: Duration) -> bool {
        let patience = if self.admitted { HOST_COMES_BACK } else { HOST_COMES };
        now.saturating_sub(*self.refused_since.get_or_insert(now)) >= patience
    }

    /// Someone is using the application, or no longer does.
    pub(crate) fn set_active(&mut self, now: Duration, rng: &mut impl CryptoRng, active: bool) {
        if active && !self.active && self.at > now + EAGER {
            self.hurry(now, rng);
        }
        self.active = active;
    }

    /// There is reason to think that an attempt will succeed now: the network is back, or the screen went on.
    pub(crate) fn hurry(&mut self, now: Duration, rng: &mut impl CryptoRng) {
        if !self.named {
            self.at = self.at.min(now + below(rng, FIRST));
        }
    }

    /// Something has changed that the relay's last answer did not know of, whatever time it named.
    pub(crate) fn want(&mut self, now: Duration) {
        self.named = false;
        self.at = self.at.min(now);
    }

    /// Do not dial again.
    pub(crate) fn stop(&mut self, code: Code) {
        self.never = Some(code);
    }

    /// A person wants this connection although the relay had ended it for good.
    pub(crate) fn revive(&mut self, now: Duration) {
        if self.never.take().is_some() {
            self.reset();
            self.at = now;
        }
    }
}

/// Full jitter: anything from nothing to `ceiling`.
fn below(rng: &mut impl CryptoRng, ceiling: Duration) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.next_u64() % nanos.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    fn at(reconnect: &Reconnect) -> Duration {
        match reconnect.dial() {
            Dial::At(at) => at,
            other => panic!("{other:?}"),
        }
    }

    /// The longest of many delays for the attempt with this number, made `down_for` after the loss.
    fn longest(attempt: u32, down_for: Duration, active: bool) -> Duration {
        (0..200)
            .map(|seed| {
                let mut rng = ChaCha20Rng::seed_from_u64(seed);
                let mut reconnect = Reconnect::new(Duration::ZERO, false);
                reconnect.set_active(Duration::ZERO, &mut rng, active);
                for _ in 0..attempt {
                    reconnect.schedule(Duration::ZERO, &mut rng, None);
                }
                reconnect.schedule(down_for, &mut rng, None);
                at(&reconnect) - down_for
            })
            .max()
            .unwrap()
    }

    fn is_about(delay: Duration, ceiling_ms: u64) -> bool {
        let ceiling = Duration::from_millis(ceiling_ms);
        delay <= ceiling && delay >= ceiling * 9 / 10
    }

    #[test]
    fn the_delay_doubles_from_100_ms_to_2_s_and_after_a_minute_to_30_s() {
        for (attempt, ceiling_ms) in [(0, 100), (1, 200), (2, 400), (3, 800), (4, 1600), (5, 2000), (50, 2000)] {
            let delay = longest(attempt, Duration::ZERO, false);
            assert!(is_about(delay, ceiling_ms), "attempt {attempt}: {delay:?}");
        }
        assert!(is_about(longest(20, Duration::from_secs(61), false), 30_000));
    }

    #[test]
    fn while_someone_is_active_the_ceiling_stays_at_2_s() {
        assert!(is_about(longest(20, Duration::from_secs(3600), true), 2000));
    }

    #[test]
    fn activity_shortens_a_long_wait() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut reconnect = Reconnect::new(Duration::ZERO, false);
        let now = Duration::from_secs(100);
        reconnect.schedule(Duration::ZERO, &mut rng, None);
        reconnect.attempts = 20;
        while at(&reconnect) < now + EAGER {
            reconnect.schedule(now, &mut rng, None);
        }
        reconnect.set_active(now, &mut rng, true);
        assert!(at(&reconnect) <= now + FIRST);
    }

    #[test]
    fn a_time_that_the_relay_names_is_kept_within_bounds() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut reconnect = Reconnect::new(Duration::ZERO, false);
        let told = |ms| Some(Told { code: Code::RESTARTING, retry_after: Duration::from_millis(ms) });
        reconnect.schedule(Duration::ZERO, &mut rng, told(10_000));
        reconnect.hurry(Duration::ZERO, &mut rng);
        assert!((10_000..=11_100).contains(&at(&reconnect).as_millis()), "{:?}", at(&reconnect));
        reconnect.schedule(Duration::ZERO, &mut rng, told(u64::from(u32::MAX)));
        assert!(at(&reconnect) <= LONGEST_NAMED + LONGEST_NAMED / 10 + FIRST);
    }

    #[test]
    fn what_is_waited_for_and_why_can_be_told() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let seconds = Duration::from_secs;
        let mut reconnect = Reconnect::new(Duration::ZERO, false);
        assert_eq!(reconnect.way(Duration::ZERO), Way::Trying);
        let told = |code| Some(Told { code, retry_after: Duration::ZERO });
        reconnect.schedule(seconds(5), &mut rng, told(Code::NOT_PERMITTED));
        let wait = at(&reconnect) - seconds(5);
        assert!((UNPROMISING / 2..=UNPROMISING * 3 / 2).contains(&wait));
        let waiting = |left, refused| Way::Waiting { left, pause: wait, refused };
        assert_eq!(reconnect.way(seconds(5)), waiting(wait, true));
        assert_eq!(reconnect.way(seconds(6)), waiting(wait - seconds(1), true));
        assert_eq!(reconnect.way(at(&reconnect)), Way::Trying);
        // The network failed since: that may heal at any time.
        reconnect.schedule(seconds(200), &mut rng, None);
        assert!(matches!(reconnect.way(seconds(200)), Way::Waiting { refused: false, pause, .. } if pause <= FIRST));
        let restarting = Told { code: Code::RESTARTING, retry_after: seconds(10) };
        reconnect.schedule(seconds(300), &mut rng, Some(restarting));
        assert!(
            matches!(reconnect.way(seconds(300)), Way::Waiting { refused: false, pause, .. } if pause >= seconds(10))
        );
        reconnect.schedule(seconds(400), &mut rng, told(Code::DISPLACED));
        assert_eq!(reconnect.way(seconds(400)), Way::Ended(Code::DISPLACED));
    }

    #[test]
    fn a_displaced_connection_stays_away_until_somebody_wants_it() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut reconnect = Reconnect::new(Duration::ZERO, false);
        reconnect.schedule(Duration::ZERO, &mut rng, Some(Told { code: Code::DISPLACED, retry_after: Duration::ZERO }));
        reconnect.hurry(Duration::ZERO, &mut rng);
        assert_eq!(reconnect.dial(), Dial::Never(Code::DISPLACED));
        reconnect.revive(Duration::from_secs(5));
        assert_eq!(reconnect.dial(), Dial::At(Duration::from_secs(5)));
    }

    #[test]
    fn a_guest_waits_for_a_machine_that_may_be_on_its_way() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let refused = Some(Told { code: Code::LOGIN_REFUSED, retry_after: Duration::ZERO });
        for (admitted, patience) in [(false, HOST_COMES), (true, HOST_COMES_BACK)] {
            let mut reconnect = Reconnect::new(Duration::ZERO, true);
            if admitted {
                reconnect.admitted();
                reconnect.schedule(Duration::ZERO, &mut rng, None);
            }
            let (begun, mut attempts) = (Duration::from_secs(7), 0);
            let mut now = begun;
            loop {
                reconnect.schedule(now, &mut rng, refused);
                let Dial::At(at) = reconnect.dial() else { break };
                assert!(at <= now + EAGER);
                (now, attempts) = (at, attempts + 1);
            }
            assert_eq!(reconnect.dial(), Dial::Never(Code::LOGIN_REFUSED));
            assert!((patience..=patience + EAGER).contains(&(now - begun)), "{now:?}");
            assert!((2..100).contains(&attempts), "{attempts} attempts");
            // It came, and what happens later counts from then on.
            reconnect.admitted();
            reconnect.revive(now);
            reconnect.schedule(now, &mut rng, refused);
            assert!(matches!(reconnect.dial(), Dial::At(_)));
        }
    }

    #[test]
    fn who_is_leaving_is_not_held_by_being_displaced() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        for (guest, code) in [(false, Code::DISPLACED), (true, Code::LOGIN_REFUSED)] {
            let told = Some(Told { code, retry_after: Duration::ZERO });
            let mut reconnect = Reconnect::new(Duration::ZERO, guest);
            reconnect.stop(Code::GOODBYE);
            reconnect.schedule(Duration::ZERO, &mut rng, told);
            assert_eq!(reconnect.dial(), Dial::Never(Code::GOODBYE), "told while it leaves");
            let mut reconnect = Reconnect::new(Duration::ZERO, guest);
            reconnect.schedule(Duration::ZERO, &mut rng, told);
            reconnect.schedule(HOST_COMES, &mut rng, told);
            assert_eq!(reconnect.dial(), Dial::Never(code));
            reconnect.stop(Code::GOODBYE);
            assert_eq!(reconnect.dial(), Dial::Never(Code::GOODBYE), "it leaves when it was told");
        }
    }
}
