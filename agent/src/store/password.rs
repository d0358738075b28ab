//! The password of the dashboard, which is demanded before it may be reached from elsewhere. What is kept is its Argon2id hash.

use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use rand_core::Rng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::store::lines::{push_hex, read_hex};
use crate::store::{file, random};
use crate::trouble::Trouble;

const HEADING: &str = "happy/1 dashboard password: argon2id, 19456 KiB, 2 passes, 1 lane; salt and hash";
/// What OWASP recommends for Argon2id: 20 ms or so.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
/// A password is guessed from a network, where each attempt takes a second.
pub const SHORTEST: usize = 12;
/// Longer ones would only be work for whoever hashes them.
pub const LONGEST: usize = 1_024;

/// A password that is kept as its hash.
#[derive(Clone)]
pub struct Password {
    salt: [u8; 16],
    hash: Zeroizing<[u8; 32]>,
}

impl Password {
    /// Reads it; `None` when none was set.
    ///
    /// # Errors
    /// When the file can be read by others or is damaged.
    pub fn open(path: &Path) -> Result<Option<Password>, Trouble> {
        let Some(text) = file::read_private(path)? else { return Ok(None) };
        match parse(&text) {
            Some(password) => Ok(Some(password)),
            None => Err(Trouble::new(
                format!("The password in {} is damaged.", path.display()),
                "Set it anew with `happy dashboard --set-password`.",
            )),
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// When it is too short or too long, or cannot be written.
    pub fn set(path: &Path, password: &str) -> Result<(), Trouble> {
        if !(SHORTEST..=LONGEST).contains(&password.len()) {
            return Err(Trouble::new(
                "This password is not used.",
                format!("Give one of {SHORTEST} to {LONGEST} characters; a few random words are good."),
            ));
        }
        let mut salt = [0; 16];
        random().fill_bytes(&mut salt);
        let failed = || Trouble::new("The password cannot be hashed.", "There may be too little memory; try again.");
        let hash = hash(password, &salt).ok_or_else(failed)?;
        let mut text = Zeroizing::new(format!("{HEADING}\n"));
        push_hex(&mut text, &salt);
        text.push('\n');
        push_hex(&mut text, hash.as_slice());
        text.push('\n');
        file::replace(path, text.as_bytes(), file::PRIVATE)
    }

    /// Whether this is it. Takes some 20 ms and 19 MiB.
    pub fn is(&self, password: &str) -> bool {
        password.len() <= LONGEST
            && hash(password, &self.salt).is_some_and(|hash| hash.as_slice().ct_eq(self.hash.as_slice()).into())
    }
}

fn hash(password: &str, salt: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).ok()?;
    let mut hash = Zeroizing::new([0; 32]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password.as_bytes(), salt, hash.as_mut()).ok()?;
    Some(hash)
}

fn parse(text: &[u8]) -> Option<Password> {
    let mut lines = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.lines();
    (lines.next()? == HEADING).then_some(())?;
    let salt: Zeroizing<[u8; 16]> = read_hex(lines.next()?)?;
    let hash = read_hex(lines.next()?)?;
    lines.next().is_none().then_some(Password { salt: *salt, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_as_its_hash_and_known_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dashboard.password");
        assert!(Password::open(&path).unwrap().is_none());
        assert!(Password::set(&path, "short").unwrap_err().todo.contains("12"));
        Password::set(&path, "correct horse").unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("horse"));
        let password = Password::open(&path).unwrap().unwrap();
        assert!(password.is("correct horse"));
        assert!(!password.is("correct horsf") && !password.is("") && !password.is(&"x".repeat(LONGEST + 1)));
        let before = std::fs::read(&path).unwrap();
        Password::set(&path, "correct horse").unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), before, "another salt");
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(Password::open(&path).err().unwrap().what.contains("damaged"));
    }
}
