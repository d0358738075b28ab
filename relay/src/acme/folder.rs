//! What is kept of an authority: the account, and the last certificate with its key. For the relay's user only.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use zeroize::Zeroizing;

use super::AcmeError;
use crate::certificates::Found;

/// The account, JSON.
const ACCOUNT: &str = "account.json";
/// The key and the chain, PEM, in one file, so that they always belong together.
const CERTIFICATE: &str = "certificate.pem";

/// The folder of one authority.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the folder if there is none, and sees that nobody else can read it.
    pub(super) fn open(&self) -> Result<(), AcmeError> {
        let failed = |said| AcmeError::Folder { path: self.0.clone(), said };
        make(&self.0).map_err(failed)?;
        if is_exposed(&self.0).map_err(failed)? {
            return Err(AcmeError::Exposed(self.0.clone()));
        }
        // Finds out now, and not when a certificate has come, whether it can be kept.
        self.write("probe", b"")?;
        fs::remove_file(self.0.join("probe")).map_err(failed)
    }

    /// What is to be said of the folder as it is.
    pub(super) fn look(&self) -> Result<Option<String>, AcmeError> {
        let path = self.0.display();
        let metadata = match self.0.metadata() {
            Ok(metadata) => metadata,
            Err(said) if said.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(format!("there is no {path} yet; the relay makes it, so its user must be able to")));
            }
            Err(said) if said.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Some(format!(
                    "this user may not look at {path}; the relay's user must be able to write there"
                )));
            }
            Err(said) => return Err(AcmeError::Folder { path: self.0.clone(), said }),
        };
        if !metadata.is_dir() {
            return Err(AcmeError::Folder { path: self.0.clone(), said: io::ErrorKind::NotADirectory.into() });
        }
        if is_exposed(&self.0).map_err(|said| AcmeError::Folder { path: self.0.clone(), said })? {
            return Err(AcmeError::Exposed(self.0.clone()));
        }
        Ok(owned_by_another(&metadata).map(|owner| {
            format!("{path} belongs to the user {owner}; only as that user can the relay keep certificates there")
        }))
    }

    pub(super) fn account(&self) -> Option<AccountCredentials> {
        let text = Zeroizing::new(fs::read(self.0.join(ACCOUNT)).ok()?);
        let account = serde_json::from_slice(&text);
        account
            .inspect_err(|_| tracing::warn!("{} makes no sense; a new account is made", self.0.join(ACCOUNT).display()))
            .ok()
    }

    pub(super) fn keep_account(&self, account: &AccountCredentials) -> Result<(), AcmeError> {
        let text = serde_json::to_vec(account)
            .map_err(|error| AcmeError::Folder { path: self.0.clone(), said: error.into() })?;
        self.write(ACCOUNT, &Zeroizing::new(text))
    }

    pub(super) fn forget_account(&self) -> Result<(), AcmeError> {
        let path = self.0.join(ACCOUNT);
        fs::remove_file(&path).map_err(|said| AcmeError::Folder { path, said })
    }

    pub(super) fn certificate(&self) -> Option<Found> {
        let path = self.0.join(CERTIFICATE);
        let pem = Zeroizing::new(fs::read(&path).ok()?);
        Found::from_pem(&pem, &pem, &path, &path)
            .inspect_err(|error| tracing::warn!("{error}; a new one is asked for"))
            .ok()
    }

    pub(super) fn keep_certificate(&self, chain: &str, key: &str) -> Result<(), AcmeError> {
        self.write(CERTIFICATE, &Zeroizing::new(format!("{}\n{chain}", key.trim_end()).into_bytes()))
    }

    /// Whole or not at all, and on the disk when it returns.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), AcmeError> {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        let written = write_private(&new, bytes).and_then(|()| fs::rename(&new, &path));
        written.map_err(|said| AcmeError::Folder { path, said })
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // One that is left from a crash may have other rights.
    if path.exists() {
        fs::remove_file(path)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn make(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn is_exposed(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(folder.metadata()?.permissions().mode() & 0o077 != 0)
}

/// The number of the user who alone may write there, if that is not this one.
#[cfg(unix)]
fn owned_by_another(metadata: &fs::Metadata) -> Option<u32> {
    let owner = std::os::unix::fs::MetadataExt::uid(metadata);
    (owner != rustix::process::geteuid().as_raw()).then_some(owner)
}

#[cfg(not(unix))]
fn owned_by_another(_: &fs::Metadata) -> Option<u32> {
    None
}

#[cfg(not(unix))]
fn is_exposed(_: &Path) -> io::Result<bool> {
    Ok(false)
}
