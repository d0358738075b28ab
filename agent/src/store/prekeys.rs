//! `prekeys`: the signed prekeys that this machine answers for (`PROTOCOL 3`).
//!
//! One is used for seven days and answers for seven more. When a device is removed, a new one takes the place of all of them: the file
//! says how many devices had been removed when the newest was made, so that a crash between the two is noticed at the next start.
//!
//! The clock may be wrong, and may be set while the daemon runs. A clock in the past changes nothing; one in the future replaces the newest
//! prekey once, as a right one would, and then not again before the daemon has run for a week. A device that comes with a prekey that is
//! gone is given the newest, so whatever the clock does, nobody has to be paired again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use happy_crypto::{Identity, SignedPrekey};
use happy_link::MAX_SIGNED_PREKEYS;
use rand_core::Rng;
use zeroize::Zeroizing;

use crate::store::lines::{self, push_hex, read_hex};
use crate::store::{file, random};
use crate::trouble::Trouble;

const HEADING: &str = "happy/1 prekeys: secrets of this machine";
const REMOVALS: &str = "removals ";
const PREKEY: &str = "prekey ";
const LONGEST: usize = PREKEY.len() + 2 * SignedPrekey::STORED_LEN;

/// How long a prekey is handed out, and how long it answers afterwards (`PROTOCOL 3`).
pub const PREKEY_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What time it is.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// The wall clock, Unix seconds; it may jump.
    pub unix: u64,
    /// For how long the daemon runs; it may stand still while the machine sleeps.
    pub running: Duration,
}

/// The prekeys, on the disk before anybody is told of them.
pub struct Prekeys {
    path: PathBuf,
    me: Identity,
    /// The newest last; never empty.
    kept: Vec<SignedPrekey>,
    removals: usize,
    /// When the newest was made in this life of the daemon.
    rotated: Option<Duration>,
}

impl Prekeys {
    /// Reads the file, or makes it, with the prekey that an older version kept elsewhere, if there is one. `removals` is how many devices
    /// this machine has removed.
    ///
    /// # Errors
    /// When the file can be read by others, is damaged, or cannot be written.
    pub fn open(
        path: &Path,
        me: &Identity,
        older: Option<SignedPrekey>,
        removals: usize,
        clock: Clock,
    ) -> Result<Prekeys, Trouble> {
        let damaged = || {
            Trouble::new(
                format!("The file {} is damaged.", path.display()),
                "Move it aside: a new one is made, and paired devices go on with it by themselves.",
            )
        };
        let read = match file::read_private(path)? {
            Some(bytes) => Self::parse(&bytes, me).ok_or_else(damaged)?,
            None => None,
        };
        let mut prekeys = Prekeys { path: path.to_owned(), me: me.clone(), kept: Vec::new(), removals, rotated: None };
        match (read, older) {
            (Some((kept, at)), _) => (prekeys.kept, prekeys.removals) = (kept, at),
            (None, Some(older)) => prekeys.write_new(vec![older], removals)?,
            (None, None) => prekeys.write_new(vec![prekeys.made(clock)], removals)?,
        }
        match prekeys.removals == removals {
            true => drop(prekeys.look_at(clock)?),
            false => prekeys.replace_all(removals, clock)?,
        }
        Ok(prekeys)
    }

    /// Nothing, in a whole file, when the keys are those of another identity.
    #[allow(clippy::type_complexity, reason = "the two things that the file holds")]
    fn parse(bytes: &[u8], me: &Identity) -> Option<Option<(Vec<SignedPrekey>, usize)>> {
        let file = lines::parse(bytes, HEADING)?;
        if file.owner != me.device_id() {
            return Some(None);
        }
        let mut lines = file.lines.iter();
        let removals = lines.next()?.strip_prefix(REMOVALS)?.parse().ok()?;
        let prekey = |line: &Zeroizing<String>| {
            let stored: Zeroizing<[u8; SignedPrekey::STORED_LEN]> = read_hex(line.strip_prefix(PREKEY)?)?;
            SignedPrekey::from_bytes(me, stored.as_slice()).ok()
        };
        let kept = lines.map(prekey).collect::<Option<Vec<_>>>()?;
        (!kept.is_empty()).then_some(Some((kept, removals)))
    }

    /// The one to hand out.
    ///
    /// # Panics
    /// Never: there is always one.
    pub fn newest(&self) -> &SignedPrekey {
        &self.kept[self.kept.len() - 1]
    }

    /// All that are answered for, the newest last.
    pub fn all(&self) -> Vec<SignedPrekey> {
        self.kept.clone()
    }

    /// Makes a new one when the newest is old enough, and deletes those whose time is over. Says whether anything changed.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn look_at(&mut self, clock: Clock) -> Result<bool, Trouble> {
        let mut kept: Vec<_> = self.kept.clone();
        let is_due = self.is_due(clock);
        if is_due {
            kept.push(self.made(clock));
        }
        let gone = (1..kept.len()).rev().find(|&i| is_over(kept[i].made_at_unix(), clock)).unwrap_or(0);
        kept.drain(..gone.max(kept.len().saturating_sub(MAX_SIGNED_PREKEYS)));
        if !is_due && kept.len() == self.kept.len() {
            return Ok(false);
        }
        self.write_new(kept, self.removals)?;
        if is_due {
            self.rotated = Some(clock.running);
        }
        Ok(true)
    }

    fn is_due(&self, clock: Clock) -> bool {
        let ran = |since: Duration| clock.running.saturating_sub(since) >= PREKEY_LIFE;
        match self.newest().made_at_unix() > clock.unix {
            // Made by a clock that was ahead, or this one is behind: then a week of running is a week.
            true => ran(self.rotated.unwrap_or_default()),
            false => is_over(self.newest().made_at_unix(), clock) && self.rotated.is_none_or(ran),
        }
    }

    /// A new one in the place of all: what was there opens nothing any more.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn replace_all(&mut self, removals: usize, clock: Clock) -> Result<(), Trouble> {
        self.write_new(vec![self.made(clock)], removals)?;
        self.rotated = Some(clock.running);
        Ok(())
    }

    /// How many devices had been removed when the newest was made.
    pub fn removals(&self) -> usize {
        self.removals
    }

    fn made(&self, clock: Clock) -> SignedPrekey {
        let (id, at) = match self.kept.last() {
            // A later one is believed only if it says so (`PROTOCOL 3`), whatever the clock says.
            Some(newest) => {
                (newest.id().checked_add(1).unwrap_or(1), clock.unix.max(newest.made_at_unix().saturating_add(1)))
            }
            // Not 1: if the file was lost, devices know a prekey of that number.
            None => (random().next_u32() >> 1 | 1, clock.unix),
        };
        SignedPrekey::generate(&mut random(), &self.me, id, at)
    }

    fn write_new(&mut self, kept: Vec<SignedPrekey>, removals: usize) -> Result<(), Trouble> {
        let line = |prekey: &SignedPrekey| {
            let mut line = Zeroizing::new(String::with_capacity(LONGEST));
            line.push_str(PREKEY);
            push_hex(&mut line, prekey.to_bytes().as_slice());
            line
        };
        let first = Zeroizing::new(format!("{REMOVALS}{removals}"));
        let lines: Vec<_> = std::iter::once(first).chain(kept.iter().map(line)).collect();
        lines::write(&self.path, HEADING, self.me.device_id(), LONGEST, &lines)?;
        (self.kept, self.removals) = (kept, removals);
        Ok(())
    }
}

/// Whether a week has gone by since then, as far as the clock tells.
fn is_over(since: u64, clock: Clock) -> bool {
    clock.unix.checked_sub(since).is_some_and(|age| age >= PREKEY_LIFE.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 1_700_000_000;

    struct World {
        folder: tempfile::TempDir,
        me: Identity,
    }

    fn world() -> World {
        World { folder: tempfile::tempdir().unwrap(), me: Identity::generate(&mut random()) }
    }

    fn at(unix: u64, days: u64) -> Clock {
        Clock { unix, running: Duration::from_secs(days * DAY) }
    }

    impl World {
        fn path(&self) -> PathBuf {
            self.folder.path().join("prekeys")
        }

        fn open(&self, removals: usize, unix: u64) -> Prekeys {
            Prekeys::open(&self.path(), &self.me, None, removals, at(unix, 0)).unwrap()
        }
    }

    fn ids(prekeys: &Prekeys) -> Vec<u32> {
        prekeys.all().iter().map(SignedPrekey::id).collect()
    }

    #[test]
    fn a_prekey_is_used_for_a_week_and_answers_for_another() {
        let world = world();
        let first = world.open(0, NOW).newest().id();
        assert_eq!(ids(&world.open(0, NOW + 7 * DAY - 1)), [first]);
        assert_eq!(ids(&world.open(0, NOW + 7 * DAY)), [first, first + 1]);
        assert_eq!(ids(&world.open(0, NOW + 14 * DAY - 1)), [first, first + 1]);
        // The second is a week old as well.
        assert_eq!(ids(&world.open(0, NOW + 14 * DAY)), [first + 1, first + 2]);
        // After a long absence the newest of before still answers for a week.
        assert_eq!(ids(&world.open(0, NOW + 400 * DAY)), [first + 2, first + 3]);
        let mut running = world.open(0, NOW + 400 * DAY);
        assert!(!running.look_at(at(NOW + 401 * DAY, 1)).unwrap());
        assert!(running.look_at(at(NOW + 407 * DAY, 7)).unwrap());
        assert_eq!(ids(&running), [first + 3, first + 4]);
    }

    #[test]
    fn a_clock_in_the_past_changes_nothing_and_one_that_jumps_makes_one_new_prekey() {
        let world = world();
        let first = world.open(0, NOW).newest().id();
        let before = std::fs::read(world.path()).unwrap();
        assert_eq!(ids(&world.open(0, 0)), [first]);
        assert_eq!(std::fs::read(world.path()).unwrap(), before);

        let mut running = world.open(0, NOW);
        assert!(running.look_at(at(NOW + 1_000 * DAY, 1)).unwrap());
        for (unix, days) in [(NOW, 1), (NOW + 2_000 * DAY, 2), (0, 3), (NOW + 3_000 * DAY, 7)] {
            running.look_at(at(unix, days)).unwrap();
            assert_eq!(running.newest().id(), first + 1, "{unix}");
        }
        // After a week of running it is time, whatever the clock says; and the new one is later than the one before.
        let newest = running.newest().made_at_unix();
        assert!(running.look_at(at(NOW, 8)).unwrap());
        assert_eq!(running.newest().id(), first + 2);
        assert!(running.newest().made_at_unix() > newest);
    }

    /// The daemon runs for too short a time to make another, but the one before has answered for its week, as far as the clock tells.
    #[test]
    fn a_prekey_whose_time_is_over_goes_although_no_new_one_is_due() {
        let world = world();
        let first = world.open(0, NOW).newest().id();
        let mut running = world.open(0, NOW);
        running.look_at(at(NOW + 7 * DAY, 1)).unwrap();
        assert_eq!(ids(&running), [first, first + 1]);
        assert!(running.look_at(at(NOW + 14 * DAY, 2)).unwrap());
        assert_eq!(ids(&running), [first + 1]);
        assert!(!running.look_at(at(NOW + 14 * DAY, 2)).unwrap());
    }

    #[test]
    fn the_first_number_is_not_zero_and_far_from_the_last() {
        for _ in 0..32 {
            let id = world().open(0, NOW).newest().id();
            assert!(id % 2 == 1 && id < 1 << 31, "{id}");
        }
    }

    /// A buffer that grows leaves copies of secrets behind, so lines are written into room that was made for the longest.
    #[test]
    fn the_longest_line_is_as_long_as_the_room_for_it() {
        let world = world();
        world.open(0, NOW);
        let text = std::fs::read_to_string(world.path()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with(PREKEY)).map(str::len).max(), Some(LONGEST));
    }

    #[test]
    fn a_removal_replaces_all_of_them_also_when_a_crash_came_in_between() {
        let world = world();
        let first = world.open(0, NOW).newest().id();
        assert_eq!(ids(&world.open(0, NOW + 8 * DAY)), [first, first + 1]);
        // The log says that a device was removed, the file does not.
        assert_eq!(ids(&world.open(1, NOW)), [first + 2]);
        assert_eq!(ids(&world.open(1, NOW)), [first + 2]);
        let mut running = world.open(1, NOW);
        assert_eq!((running.removals(), world.open(3, NOW).removals()), (1, 3));
        running.replace_all(2, at(NOW, 0)).unwrap();
        assert_eq!(ids(&world.open(2, NOW)), [first + 3]);
        let text = std::fs::read_to_string(world.path()).unwrap();
        assert_eq!(text.matches(PREKEY).count(), 1 + HEADING.matches(PREKEY).count(), "{text}");
    }

    #[test]
    fn the_prekey_of_an_older_version_goes_on_and_a_lost_file_takes_another_number() {
        let world = world();
        let older = SignedPrekey::generate(&mut random(), &world.me, 1, NOW);
        let opened = Prekeys::open(&world.path(), &world.me, Some(older.clone()), 0, at(NOW, 0)).unwrap();
        assert_eq!(opened.newest().to_bytes(), older.to_bytes());
        std::fs::remove_file(world.path()).unwrap();
        assert_ne!(world.open(0, NOW).newest().id(), 1);
        // The file of another identity is nobody's.
        let other = Identity::generate(&mut random());
        let opened = Prekeys::open(&world.path(), &other, None, 0, at(NOW, 0)).unwrap();
        assert_eq!(ids(&Prekeys::open(&world.path(), &other, None, 0, at(NOW, 0)).unwrap()), ids(&opened));
    }

    #[test]
    fn a_damaged_file_is_told_and_stays_as_it_is() {
        let world = world();
        world.open(0, NOW);
        let whole = std::fs::read(world.path()).unwrap();
        for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
            file::replace(&world.path(), &whole[..cut], file::PRIVATE).unwrap();
            let told = Prekeys::open(&world.path(), &world.me, None, 0, at(NOW, 0)).err().unwrap();
            assert!(told.what.contains("damaged"), "{told}");
            assert_eq!(std::fs::read(world.path()).unwrap(), &whole[..cut]);
        }
    }
}
