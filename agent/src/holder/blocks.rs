//! Where the older blocks of the raw log lie: in a nameless file behind a descriptor, which ends with the holder and which the next
//! program can take over without copying (`docs/LOCAL.md`, "The raw log").

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::BytesMut;
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, Key, KeyInit, Nonce, Tag};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::random;

/// The raw log is kept in pieces of this size, so that a quiet session costs what it has printed and no more.
pub const BLOCK: usize = 64 * 1024;

/// What the seal of a block adds to it.
const TAG: usize = 16;

/// Where blocks lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In memory of the kernel's, as it is (`memfd`, Linux only). It can be swapped out, as all memory can.
    Memory,
    /// In an unlinked file in the session's folder, sealed under a key that only the holder has.
    Sealed,
}

impl Default for Place {
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Memory } else { Self::Sealed }
    }
}

/// Blocks by number, of which the newest `slots` are kept.
pub struct Blocks {
    file: File,
    slots: u64,
    seal: Option<Seal>,
}

struct Seal {
    key: SealKey,
    cipher: ChaCha20Poly1305,
    /// The block that was read last: viewers read a block in several pieces.
    opened: RefCell<Option<(u64, Zeroizing<Vec<u8>>)>>,
}

/// All that the next program needs besides the descriptor.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    slots: u64,
    key: Option<SealKey>,
}

/// Lives in the holder's memory and nowhere else.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "[u8; 32]", into = "[u8; 32]")]
struct SealKey(Zeroizing<[u8; 32]>);

impl From<[u8; 32]> for SealKey {
    fn from(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl From<SealKey> for [u8; 32] {
    fn from(key: SealKey) -> Self {
        *key.0
    }
}

impl Blocks {
    /// Room for `slots` blocks; it takes no memory before something is written.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(place: Place, dir: &Path, slots: u64) -> io::Result<Self> {
        let (file, seal) = match place {
            Place::Memory => (memory()?, None),
            Place::Sealed => {
                let mut key = Zeroizing::new([0; 32]);
                rand_core::Rng::fill_bytes(&mut random(), key.as_mut_slice());
                (unlinked(dir)?, Some(Seal::new(SealKey(key))))
            }
        };
        Ok(Self::over(file, slots, seal))
    }

    /// Goes on with blocks that another program has written.
    pub fn resume(saved: Saved, descriptor: OwnedFd) -> Self {
        Self::over(descriptor.into(), saved.slots, saved.key.map(Seal::new))
    }

    fn over(file: File, slots: u64, seal: Option<Seal>) -> Self {
        Self { file, slots: slots.max(1), seal }
    }

    /// What [`Blocks::resume`] needs.
    pub fn save(&self) -> Saved {
        Saved { slots: self.slots, key: self.seal.as_ref().map(|seal| seal.key.clone()) }
    }

    /// The file's descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes a block in the place of the one `slots` before it. Each number is written at most once, which is what the seal
    /// rests on. What `block` holds afterwards is of no use.
    ///
    /// # Errors
    /// What the system says: there may be no room.
    pub fn write(&mut self, number: u64, block: &mut [u8]) -> io::Result<()> {
        match &self.seal {
            None => self.file.write_all_at(block, number % self.slots * BLOCK as u64),
            Some(seal) => {
                let tag = seal.close(number, block)?;
                let begin = number % self.slots * (BLOCK + TAG) as u64;
                // Two writes, so that the block need not grow, which would double the memory it takes.
                self.file.write_all_at(block, begin)?;
                self.file.write_all_at(&tag, begin + BLOCK as u64)
            }
        }
    }

    /// Appends `length` bytes of a block from `from` on to `out`; nothing when it fails.
    ///
    /// # Errors
    /// What the system says, or [`io::ErrorKind::InvalidData`] for a sealed block that is not the one that was written.
    pub fn read(&self, number: u64, from: usize, length: usize, out: &mut BytesMut) -> io::Result<()> {
        match &self.seal {
            None => {
                let begin = out.len();
                out.resize(begin + length, 0);
                let read = self.file.read_exact_at(&mut out[begin..], number % self.slots * BLOCK as u64 + from as u64);
                read.inspect_err(|_| out.truncate(begin))
            }
            Some(seal) => {
                let mut opened = seal.opened.borrow_mut();
                if opened.as_ref().is_none_or(|(open, _)| *open != number) {
                    *opened = None;
                    let mut block = Zeroizing::new(vec![0; BLOCK + TAG]);
                    self.file.read_exact_at(&mut block, number % self.slots * (BLOCK + TAG) as u64)?;
                    seal.open(number, &mut block)?;
                    *opened = Some((number, block));
                }
                let block = opened.as_ref().and_then(|(_, block)| block.get(from..from + length));
                out.extend_from_slice(block.ok_or(io::ErrorKind::InvalidInput)?);
                Ok(())
            }
        }
    }
}

impl Seal {
    fn new(key: SealKey) -> Self {
        let cipher = ChaCha20Poly1305::new(&Key::from(*key.0));
        Self { key, cipher, opened: RefCell::new(None) }
    }

    /// The number of a block is its nonce, so a block is proved to be the one that belongs in its place, and not an older one.
    fn nonce(number: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        nonce.into()
    }

    fn close(&self, number: u64, block: &mut [u8]) -> io::Result<Tag> {
        let sealed = self.cipher.encrypt_inout_detached(&Self::nonce(number), b"", block.into());
        sealed.map_err(|_| io::Error::other("a block of the raw log cannot be sealed"))
    }

    fn open(&self, number: u64, block: &mut Vec<u8>) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a block of the raw log is not what was written");
        let tag: [u8; TAG] = block.split_off(BLOCK).try_into().map_err(|_| damaged())?;
        let opened =
            self.cipher.decrypt_inout_detached(&Self::nonce(number), b"", block.as_mut_slice().into(), &Tag::from(tag));
        opened.map_err(|_| damaged())
    }
}

#[cfg(target_os = "linux")]
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create(c"happy-log", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

#[cfg(not(target_os = "linux"))]
fn memory() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn unlinked(dir: &Path) -> io::Result<File> {
    let path = dir.join("log");
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    // Without its name before anything is in it: whatever happens to us, the system takes it back.
    std::fs::remove_file(&path)?;
    file
}
