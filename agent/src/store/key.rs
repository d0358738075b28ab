//! `access.key`: who this machine is (`PROTOCOL 14`).
//!
//! The file is text of fixed size: a heading, then the secret in hexadecimal. It is made once and written again only to take the prekey
//! out that older versions kept in it, or with [`AccessKey::renew`], which is the end of that identity.

use std::path::Path;

use happy_crypto::{Identity, SignedPrekey};
use zeroize::Zeroizing;

use crate::store::lines::{push_hex, read_hex};
use crate::store::{file, random};
use crate::trouble::Trouble;

const HEADING: &str = "happy/1 access key: whoever has this file is this machine";

/// The secret of this machine.
pub struct AccessKey {
    /// Who it is.
    pub identity: Identity,
    /// What others reach it with, from a file of an older version; none any more once [`AccessKey::drop_prekey`] was called.
    pub old_prekey: Option<SignedPrekey>,
}

impl AccessKey {
    /// Reads the key, or makes one when there is none.
    ///
    /// # Errors
    /// When the file can be read by others, is damaged, or cannot be written.
    pub fn open(path: &Path) -> Result<AccessKey, Trouble> {
        match file::read_private(path)? {
            Some(bytes) => Self::parse(&bytes).ok_or_else(|| {
                Trouble::new(
                    format!("The key file {} is damaged.", path.display()),
                    "Restore it from a backup; or move it aside, and pair every device again.",
                )
            }),
            None => Self::renew(path),
        }
    }

    /// Makes a new identity in the place of the one that is there, if there is one.
    ///
    /// # Errors
    /// When it cannot be written; the old one is there then.
    pub fn renew(path: &Path) -> Result<AccessKey, Trouble> {
        let key = AccessKey { identity: Identity::generate(&mut random()), old_prekey: None };
        key.write(path)?;
        Ok(key)
    }

    /// Takes the prekey of an older version out of the file; it is stored elsewhere by now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn drop_prekey(&mut self, path: &Path) -> Result<(), Trouble> {
        if self.old_prekey.is_some() {
            self.write(path)?;
            self.old_prekey = None;
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> Result<(), Trouble> {
        let secret = self.identity.to_bytes();
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str(HEADING);
        text.push_str("\nidentity ");
        push_hex(&mut text, secret.as_slice());
        text.push('\n');
        file::replace(path, text.as_bytes(), file::PRIVATE)
    }

    fn parse(bytes: &[u8]) -> Option<AccessKey> {
        let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.lines();
        (lines.next()? == HEADING).then_some(())?;
        let secret: Zeroizing<[u8; 64]> = read_hex(lines.next()?.strip_prefix("identity ")?)?;
        let identity = Identity::from_bytes(&secret);
        let old_prekey = match lines.next() {
            Some(line) => {
                let signed: Zeroizing<[u8; SignedPrekey::STORED_LEN]> = read_hex(line.strip_prefix("prekey ")?)?;
                Some(SignedPrekey::from_bytes(&identity, signed.as_slice()).ok()?)
            }
            None => None,
        };
        lines.next().is_none().then_some(AccessKey { identity, old_prekey })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_ever_after() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access.key");
        let made = AccessKey::open(&path).unwrap();
        let read = AccessKey::open(&path).unwrap();
        assert_eq!(made.identity.device_id(), read.identity.device_id());
        let renewed = AccessKey::renew(&path).unwrap();
        assert_ne!(made.identity.device_id(), renewed.identity.device_id());
        assert_eq!(AccessKey::open(&path).unwrap().identity.device_id(), renewed.identity.device_id());
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access.key");
        AccessKey::open(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() - 2, whole.len() - 1] {
            file::replace(&path, &whole[..cut], file::PRIVATE).unwrap();
            assert!(AccessKey::open(&path).is_err(), "cut at {cut}");
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut]);
        }
    }

    #[test]
    fn the_prekey_of_an_older_version_is_read_and_can_be_taken_out() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access.key");
        let identity = AccessKey::open(&path).unwrap().identity;
        let prekey = SignedPrekey::generate(&mut random(), &identity, 1, 7);
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("prekey ");
        push_hex(&mut text, prekey.to_bytes().as_slice());
        text.push('\n');
        file::replace(&path, text.as_bytes(), file::PRIVATE).unwrap();

        let mut old = AccessKey::open(&path).unwrap();
        assert_eq!(old.old_prekey.as_ref().unwrap().to_bytes(), prekey.to_bytes());
        old.drop_prekey(&path).unwrap();
        let new = AccessKey::open(&path).unwrap();
        assert_eq!(new.identity.device_id(), identity.device_id());
        assert!(new.old_prekey.is_none() && !std::fs::read_to_string(&path).unwrap().contains("prekey"));
    }
}
