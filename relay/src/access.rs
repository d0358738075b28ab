//! Whether a device that has proven who it is may use this relay (`PROTOCOL 7`, Access).
//!
//! The operator decides by a [`Policy`] and enrolment keys. [`Vouches`] remembers for which devices an enrolled one speaks:
//! while it is connected and names them, and for a day after it has gone.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use happy_crypto::DeviceId;
use happy_wire::enrolment::{EnrolmentKey, EnrolmentPublic, KeyId};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::bus::Login;

/// The most enrolment keys of one relay.
pub const MAX_KEYS: usize = 16;
/// A secret is at least so long, bytes: shorter ones are guessed from a configuration that was seen.
pub const MIN_SECRET: usize = 12;
/// And at most.
pub const MAX_SECRET: usize = 256;
/// How long a device is let in after the last one that vouched for it has gone.
pub(crate) const VOUCHED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Devices that are remembered after those that vouched for them have gone, and those that did. Beyond it those that would be forgotten
/// first are: they get in again when their machine is back.
const MAX_REMEMBERED: usize = 100_000;
/// `PROTOCOL 7`: the salt is the same everywhere, since a machine must find the key without asking.
const SALT: &[u8] = b"happy/1 relay enrolment";
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// Who may use a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Everybody who can reach it.
    #[default]
    Open,
    /// Devices with an enrolment key.
    Enrolled,
    /// These, and those that they name.
    Vouched,
}

impl Policy {
    /// As it is written in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Open => "open",
            Policy::Enrolled => "enrolled",
            Policy::Vouched => "vouched",
        }
    }
}

/// A word that is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no access policy; there are `open`, `enrolled` and `vouched`")]
pub struct UnknownPolicy(String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Policy::Open, Policy::Enrolled, Policy::Vouched];
        known.into_iter().find(|policy| policy.name() == text).ok_or_else(|| UnknownPolicy(text.to_owned()))
    }
}

/// One enrolment key of the configuration, with the operator's own name for it, written `name:key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// For the operator only: whom the secret was given to.
    pub name: String,
    /// What logins are checked with.
    pub key: EnrolmentPublic,
}

/// What is wrong with an enrolment key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// It has no name, or an odd one. It is not quoted: it may be the secret, given in place of its key.
    #[error(
        "this is no enrolment key; it looks like `home:3q2-…` and `happy-relay new-key` prints one; the relay gets the key, and never the secret"
    )]
    Form,
    /// The secret is too short or too long.
    #[error("an enrolment secret has {MIN_SECRET} to {MAX_SECRET} bytes; `happy-relay new-key` makes a good one")]
    Secret,
}

impl Enrolment {
    /// Whether a key may be called so: up to 64 letters, digits and `-_.@`.
    pub fn is_name(name: &str) -> bool {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        (1..=64).contains(&name.len()) && name.chars().all(plain)
    }
}

impl FromStr for Enrolment {
    type Err = EnrolmentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, key) = text.trim().split_once(':').ok_or(EnrolmentError::Form)?;
        if !Self::is_name(name) {
            return Err(EnrolmentError::Form);
        }
        Ok(Self { name: name.to_owned(), key: key.parse().map_err(|_| EnrolmentError::Form)? })
    }
}

impl std::fmt::Display for Enrolment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.key)
    }
}

/// The key of an enrolment secret, however it is typed: white space around it does not count. It takes some 20 ms and 19 MiB, so that a secret that a
/// person chose is not found quickly by whoever has seen the configuration.
///
/// # Errors
/// When the secret is too short or too long.
pub fn enrolment_key(secret: &str) -> Result<EnrolmentKey, EnrolmentError> {
    let secret = secret.trim();
    if !(MIN_SECRET..=MAX_SECRET).contains(&secret.len()) {
        return Err(EnrolmentError::Secret);
    }
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(|_| EnrolmentError::Secret)?;
    let mut seed = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(secret.as_bytes(), SALT, seed.as_mut())
        .map_err(|_| EnrolmentError::Secret)?;
    Ok(EnrolmentKey::from_seed(&seed))
}

/// A secret of 160 random bits, in groups that can be typed: 32 characters without any that are taken for others.
///
/// # Errors
/// When the operating system has no randomness.
pub fn new_secret() -> Result<Zeroizing<String>, getrandom::Error> {
    const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut())?;
    let mut secret = Zeroizing::new(String::with_capacity(40));
    for (n, byte) in bytes.iter().enumerate() {
        if n > 0 && n % 4 == 0 {
            secret.push('-');
        }
        secret.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(secret)
}

/// The policy of a relay and its keys.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Who may come.
    pub policy: Policy,
    /// At most [`MAX_KEYS`].
    pub keys: Vec<Enrolment>,
}

impl Access {
    pub(crate) fn key(&self, id: &KeyId) -> Option<&Enrolment> {
        self.keys.iter().find(|enrolment| enrolment.key.id() == *id)
    }
}

/// How an enrolled device speaks for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vouching<'a> {
    /// It is connected and names these now. Whomever else it named is out, unless another one names them.
    For(&'a [DeviceId]),
    /// It is no longer connected, so it cannot be asked: those that it named last are let in for another day.
    Gone,
    /// It is connected to another node, and what it says there counts.
    Moved,
}

/// For which devices the enrolled ones vouch, as far as this process knows.
#[derive(Default)]
pub(crate) struct Vouches {
    words: HashMap<DeviceId, Word>,
    /// The same by whom they are for: (device, who vouches).
    speakers: BTreeSet<(DeviceId, DeviceId)>,
    /// What those of `words` take that were left behind, in devices.
    left: usize,
}

/// What one device said last.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    /// The login under which it said so.
    pub(crate) login: Login,
    /// Sorted, each once.
    pub(crate) devices: Vec<DeviceId>,
    /// Until when it stands although who said it has gone.
    pub(crate) until: Option<Instant>,
}

impl Word {
    fn stands(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    fn cost(&self) -> usize {
        1 + self.devices.len()
    }
}

/// What was new in what a device said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    None,
    /// Whom it names.
    List,
    /// How long all of it stands.
    Term,
}

impl Vouches {
    pub(crate) fn note(&mut self, by: &DeviceId, login: Login, vouching: Vouching<'_>) -> News {
        let of_this_login = self.words.get_mut(by).filter(|word| word.login == login && word.until.is_none());
        match vouching {
            Vouching::For(devices) => {
                let mut devices = devices.to_vec();
                devices.sort_unstable();
                devices.dedup();
                let news = match &of_this_login {
                    Some(word) if word.devices == devices => return News::None,
                    Some(_) => News::List,
                    None => News::Term,
                };
                self.forget(by);
                self.speakers.extend(devices.iter().map(|device| (*device, *by)));
                self.words.insert(*by, Word { login, devices, until: None });
                news
            }
            Vouching::Gone => {
                let Some(word) = of_this_login else { return News::None };
                let now = Instant::now();
                word.until = Some(now + VOUCHED_FOR);
                self.left += word.cost();
                if self.left > MAX_REMEMBERED {
                    self.shed(now);
                }
                News::Term
            }
            Vouching::Moved => {
                if of_this_login.is_some() {
                    self.forget(by);
                }
                News::None
            }
        }
    }

    pub(crate) fn word(&self, by: &DeviceId) -> Option<&Word> {
        self.words.get(by).filter(|word| word.stands(Instant::now()))
    }

    /// Everybody whose word is remembered.
    pub(crate) fn all(&self) -> impl Iterator<Item = &DeviceId> {
        self.words.keys()
    }

    /// Those who vouch for a device, and whether they are connected.
    pub(crate) fn speakers(&self, device: &DeviceId) -> impl Iterator<Item = (DeviceId, bool)> {
        let range = (*device, DeviceId::from_bytes([0; 32]))..=(*device, DeviceId::from_bytes([0xff; 32]));
        let words = self.speakers.range(range).filter_map(|(_, by)| Some((*by, self.word(by)?)));
        words.map(|(by, word)| (by, word.until.is_none()))
    }

    pub(crate) fn holds(&self, device: &DeviceId) -> bool {
        self.speakers(device).next().is_some()
    }

    pub(crate) fn forget(&mut self, by: &DeviceId) {
        let Some(word) = self.words.remove(by) else { return };
        if word.until.is_some() {
            self.left -= word.cost();
        }
        word.devices.iter().for_each(|device| {
            self.speakers.remove(&(*device, *by));
        });
    }

    /// Forgets the words whose time is over, and then a tenth of those that were left behind, the oldest first.
    fn shed(&mut self, now: Instant) {
        self.forget_until(now);
        let mut ends: Vec<Instant> = self.words.values().filter_map(|word| word.until).collect();
        if self.left <= MAX_REMEMBERED || ends.is_empty() {
            return;
        }
        let nth = ends.len() / 10;
        let last = *ends.select_nth_unstable(nth).1;
        self.forget_until(last);
    }

    fn forget_until(&mut self, last: Instant) {
        let over: Vec<DeviceId> = self.words.iter().filter(|(_, word)| !word.stands(last)).map(|(by, _)| *by).collect();
        over.iter().for_each(|by| self.forget(by));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As many as a test needs.
    pub(crate) fn device(n: u32) -> DeviceId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId::from_bytes(bytes)
    }

    #[test]
    fn a_secret_gives_the_key_of_the_page() {
        let key = enrolment_key(" correct horse battery staple\n").unwrap().public();
        assert_eq!(key, enrolment_key("correct horse battery staple").unwrap().public());
        assert_eq!(key.to_string(), "Y1NvnklZBrkzR9dqubT4xVVP65nKFVhOIuW1l8piGuU");
        assert_eq!(enrolment_key("short").err(), Some(EnrolmentError::Secret));
    }

    #[test]
    fn a_key_is_written_with_its_name() {
        let key = enrolment_key("correct horse battery staple").unwrap().public();
        let enrolment: Enrolment = format!("home:{key}").parse().unwrap();
        assert_eq!((enrolment.name.as_str(), enrolment.key), ("home", key));
        assert_eq!(enrolment.to_string().parse(), Ok(enrolment));
        for bad in ["", "home", "home:", ":abc", "a b:abc", &format!("{key}")] {
            assert!(bad.parse::<Enrolment>().is_err(), "{bad}");
        }
    }

    const FIRST: Login = Login { epoch: 1, number: 1 };
    const SECOND: Login = Login { epoch: 1, number: 2 };

    #[tokio::test(start_paused = true)]
    async fn a_device_is_let_in_while_it_is_named_and_a_day_longer() {
        let (mut vouches, one, other) = (Vouches::default(), device(8), device(9));
        assert!(!vouches.holds(&device(1)));
        vouches.note(&one, FIRST, Vouching::For(&[device(1), device(2)]));
        vouches.note(&other, FIRST, Vouching::For(&[device(1)]));
        vouches.note(&one, FIRST, Vouching::Gone);
        tokio::time::advance(VOUCHED_FOR * 2).await;
        assert!(vouches.holds(&device(1)), "another one still names it");
        assert!(!vouches.holds(&device(2)));
        vouches.note(&other, FIRST, Vouching::Gone);
        tokio::time::advance(VOUCHED_FOR - Duration::from_secs(1)).await;
        assert!(vouches.holds(&device(1)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!vouches.holds(&device(1)));
    }

    #[tokio::test]
    async fn who_is_taken_off_the_list_is_out_at_once() {
        let mut vouches = Vouches::default();
        vouches.note(&device(9), FIRST, Vouching::For(&[device(1)]));
        vouches.note(&device(9), FIRST, Vouching::For(&[]));
        assert!(!vouches.holds(&device(1)));
    }

    #[tokio::test]
    async fn who_is_taken_off_one_list_keeps_the_day_of_another() {
        let (mut vouches, one, other) = (Vouches::default(), device(8), device(9));
        vouches.note(&one, FIRST, Vouching::For(&[device(1)]));
        vouches.note(&other, FIRST, Vouching::For(&[device(1)]));
        vouches.note(&one, FIRST, Vouching::Gone);
        vouches.note(&other, FIRST, Vouching::For(&[]));
        assert!(vouches.holds(&device(1)));
    }

    #[tokio::test]
    async fn who_was_removed_while_the_machine_was_away_is_out_when_it_names_the_others() {
        let (mut vouches, by) = (Vouches::default(), device(9));
        vouches.note(&by, FIRST, Vouching::For(&[device(1), device(2)]));
        vouches.note(&by, FIRST, Vouching::Gone);
        // It has logged in and named nobody yet.
        assert!(vouches.holds(&device(1)));
        assert_eq!(vouches.note(&by, SECOND, Vouching::For(&[device(2)])), News::Term);
        assert!(!vouches.holds(&device(1)) && vouches.holds(&device(2)));
        // The older connection ends late.
        vouches.note(&by, FIRST, Vouching::Moved);
        assert!(vouches.holds(&device(2)));
        assert_eq!(vouches.note(&by, SECOND, Vouching::For(&[device(2), device(2)])), News::None);
        assert_eq!(vouches.note(&by, SECOND, Vouching::For(&[])), News::List);
    }

    #[tokio::test(start_paused = true)]
    async fn the_table_is_bounded() {
        let mut vouches = Vouches::default();
        let many: Vec<DeviceId> = (0..MAX_REMEMBERED as u32).map(device).collect();
        for (n, part) in many.chunks(1000).enumerate() {
            vouches.note(&device(1_000_000 + n as u32), FIRST, Vouching::For(part));
            vouches.note(&device(1_000_000 + n as u32), FIRST, Vouching::Gone);
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let more: Vec<DeviceId> = (0..100).map(|n| device(2_000_000 + n)).collect();
        vouches.note(&device(3_000_000), FIRST, Vouching::For(&more));
        vouches.note(&device(3_000_000), FIRST, Vouching::Gone);
        assert!(vouches.speakers.len() < MAX_REMEMBERED);
        assert_eq!(vouches.left, vouches.words.values().map(Word::cost).sum::<usize>());
        assert!(vouches.holds(&more[0]) && !vouches.holds(&many[0]));
    }
}
