//! `access.key`: the secrets of this machine, its identity and its signed prekey (`PROTOCOL 14`).
//!
//! The file is text of fixed size: a heading, then the two secrets in hexadecimal. It is made once and never written again.

use std::path::Path;

use happy_crypto::{Identity, SignedPrekey};
use zeroize::Zeroizing;

use crate::store::{file, random, unix_seconds};
use crate::trouble::Trouble;

const HEADING: &str = "happy/1 access key: whoever has this file is this machine";

/// The secrets of this machine.
pub struct AccessKey {
    /// Who it is.
    pub identity: Identity,
    /// What others reach it with.
    pub prekey: SignedPrekey,
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
            None => Self::make(path),
        }
    }

    fn make(path: &Path) -> Result<AccessKey, Trouble> {
        let identity = Identity::generate(&mut random());
        let prekey = SignedPrekey::generate(&mut random(), &identity, 1, unix_seconds());
        let (secret, signed) = (identity.to_bytes(), prekey.to_bytes());
        let mut text = Zeroizing::new(String::with_capacity(512));
        text.push_str(HEADING);
        text.push_str("\nidentity ");
        push_hex(&mut text, secret.as_slice());
        text.push_str("\nprekey ");
        push_hex(&mut text, signed.as_slice());
        text.push('\n');
        file::replace(path, text.as_bytes(), file::PRIVATE)?;
        Ok(AccessKey { identity, prekey })
    }

    fn parse(bytes: &[u8]) -> Option<AccessKey> {
        let mut lines = std::str::from_utf8(bytes).ok()?.lines();
        (lines.next()? == HEADING).then_some(())?;
        let secret: Zeroizing<[u8; 64]> = read_hex(lines.next()?.strip_prefix("identity ")?)?;
        let signed: Zeroizing<[u8; SignedPrekey::STORED_LEN]> = read_hex(lines.next()?.strip_prefix("prekey ")?)?;
        let identity = Identity::from_bytes(&secret);
        let prekey = SignedPrekey::from_bytes(&identity, signed.as_slice()).ok()?;
        lines.next().is_none().then_some(AccessKey { identity, prekey })
    }
}

/// Appends without growing a buffer that would leave a copy behind: the caller reserved enough.
fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
}

fn read_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0; N]);
    (text.len() == 2 * N).then_some(())?;
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(out)
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
        assert_eq!(made.prekey.id(), read.prekey.id());
        assert_eq!(made.prekey.to_bytes().as_slice(), read.prekey.to_bytes().as_slice());
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("access.key");
        AccessKey::open(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 10, whole.len() - 2] {
            file::replace(&path, &whole[..cut], file::PRIVATE).unwrap();
            assert!(AccessKey::open(&path).is_err(), "cut at {cut}");
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut]);
        }
    }
}
