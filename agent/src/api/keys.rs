//! What opens the local API: its token, one-time secrets for a browser, and what a browser gets for one.
//!
//! The token lies in the home, for programs. A browser is never given it: what a page keeps can be read by whatever runs in the page, and
//! is not to outlive the daemon. What is kept of all of them here are hashes, so that comparing them tells nothing by its time.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::Rng;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::store::{file, random};
use crate::trouble::Trouble;

/// Until then an address that `happy dashboard` has printed is to be opened.
pub const INVITATION_LIFE: Duration = Duration::from_secs(120);
/// A browser that has not asked for anything for so long has to be let in again.
const SESSION_LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Addresses that are live at once; one more ends the oldest.
const MAX_INVITATIONS: usize = 16;
/// Browsers that are let in at once; one more ends that which was away for the longest time.
const MAX_SESSIONS: usize = 32;
/// Characters of a secret: 32 random bytes as base64url.
const LENGTH: usize = 43;

type Hash = [u8; 32];

/// What opens the API of a running daemon.
pub struct Keys {
    token: Hash,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    invitations: Vec<(Hash, Instant)>,
    sessions: Vec<(Hash, Instant)>,
}

impl Keys {
    /// Makes the token of this run. Whoever listened at the port while no daemon did may have been shown the one before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(path: &Path) -> Result<Keys, Trouble> {
        let mut token = new_secret();
        let hash = hash(&token);
        token.push('\n');
        file::replace(path, token.as_bytes(), file::PRIVATE)?;
        Ok(Keys { token: hash, open: Mutex::default() })
    }

    /// Whether somebody who shows this may do everything here.
    pub fn admits(&self, shown: &str, now: Instant) -> bool {
        let shown = hash(shown);
        let mut open = self.lock();
        open.sessions.retain(|(_, used)| now.saturating_duration_since(*used) < SESSION_LIFE);
        let mut admitted = shown.ct_eq(&self.token);
        for (session, used) in &mut open.sessions {
            let is_this: Choice = shown.ct_eq(session);
            if is_this.into() {
                *used = now;
            }
            admitted |= is_this;
        }
        admitted.into()
    }

    /// A secret that lets one browser in, once.
    pub fn invite(&self, now: Instant) -> Zeroizing<String> {
        let secret = new_secret();
        let mut open = self.lock();
        if open.invitations.len() >= MAX_INVITATIONS {
            open.invitations.remove(0);
        }
        open.invitations.push((hash(&secret), now + INVITATION_LIFE));
        secret
    }

    /// Lets a browser in for the secret of an invitation, which is spent.
    pub fn redeem(&self, secret: &str, now: Instant) -> Option<Zeroizing<String>> {
        let secret = hash(secret);
        let mut open = self.lock();
        open.invitations.retain(|(_, until)| now < *until);
        let found = open.invitations.iter().position(|(invitation, _)| secret.ct_eq(invitation).into())?;
        open.invitations.remove(found);
        Some(begin(&mut open, now))
    }

    /// Lets a browser in that has shown the password.
    pub fn let_in(&self, now: Instant) -> Zeroizing<String> {
        begin(&mut self.lock(), now)
    }

    /// Lets a browser in no more.
    pub fn leave(&self, session: &str) {
        let session = hash(session);
        self.lock().sessions.retain(|(known, _)| !bool::from(session.ct_eq(known)));
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(open: &mut Open, now: Instant) -> Zeroizing<String> {
    if open.sessions.len() >= MAX_SESSIONS
        && let Some(oldest) = (0..open.sessions.len()).min_by_key(|index| open.sessions[*index].1)
    {
        open.sessions.remove(oldest);
    }
    let session = new_secret();
    open.sessions.push((hash(&session), now));
    session
}

fn new_secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 32]);
    random().fill_bytes(bytes.as_mut());
    let mut text = Zeroizing::new(String::with_capacity(LENGTH + 1));
    URL_SAFE_NO_PAD.encode_string(bytes.as_ref(), &mut text);
    text
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn keys() -> (tempfile::TempDir, Keys, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.token");
        let keys = Keys::new(&path).unwrap();
        let token = std::fs::read_to_string(path).unwrap().trim_end().to_owned();
        (folder, keys, token)
    }

    #[test]
    fn the_token_is_anothers_with_each_start_and_for_its_owner_only() {
        let (folder, keys, token) = keys();
        let path = folder.path().join("api.token");
        let now = Instant::now();
        assert!(keys.admits(&token, now));
        for wrong in ["", &token[1..], &format!("{token} "), &"A".repeat(LENGTH)] {
            assert!(!keys.admits(wrong, now), "{wrong}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let next = Keys::new(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!next.admits(&token, now));
        assert!(next.admits(std::fs::read_to_string(&path).unwrap().trim_end(), now));
    }

    #[test]
    fn an_invitation_lets_one_browser_in_and_not_for_ever() {
        let (_folder, keys, token) = keys();
        let now = Instant::now();
        let secret = keys.invite(now);
        assert!(!keys.admits(&secret, now), "it opens nothing by itself");
        let session = keys.redeem(&secret, now).unwrap();
        assert!(keys.admits(&session, now) && *session != token);
        assert!(keys.redeem(&secret, now).is_none(), "it is spent");
        let late = keys.invite(now);
        assert!(keys.redeem(&late, now + INVITATION_LIFE).is_none());

        // Use keeps a session alive, and nothing else does.
        let (hour, mut then) = (Duration::from_secs(3600), now);
        for _ in 0..4 {
            then += 11 * hour;
            assert!(keys.admits(&session, then));
        }
        assert!(!keys.admits(&session, then + 12 * hour));
        let session = keys.let_in(then);
        keys.leave(&session);
        assert!(!keys.admits(&session, then));
        keys.leave(&token);
        assert!(keys.admits(&token, then));
    }

    #[test]
    fn there_is_no_end_of_neither() {
        let (_folder, keys, _) = keys();
        let now = Instant::now();
        let first = keys.invite(now);
        (0..MAX_INVITATIONS).for_each(|_| drop(keys.invite(now)));
        assert!(keys.redeem(&first, now).is_none());
        let used = keys.let_in(now);
        let idle = keys.let_in(now);
        for second in 1..MAX_SESSIONS as u64 {
            let later = now + Duration::from_secs(second);
            assert!(keys.admits(&used, later));
            keys.let_in(later);
        }
        assert!(keys.admits(&used, now) && !keys.admits(&idle, now));
        assert_eq!(keys.lock().sessions.len(), MAX_SESSIONS);
    }
}
