//! Which folders are open to the calls, and opening what lies in them and nothing else.
//!
//! A path is taken apart below an open descriptor of its root (cap-std, which asks for `RESOLVE_BENEATH` where the system has it), so that no
//! `..` and no symbolic link leads out, whoever changes the tree meanwhile. What is opened at its end is opened by one name in a folder
//! that is open already, without following a link and without waiting for a pipe, and looked at once more when it is open.
//!
//! The home of happy is closed whatever leads there: from each opened folder the way up is followed by descriptors, so links, other
//! spellings and bind mounts make no difference, and a file with several names is compared with what lies in there.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use happy_rpc::{CallError, ErrorCode};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::error::{OUTSIDE, refuse, said};

/// The longest path that is read, bytes: what systems take.
const MAX_PATH: usize = 4096;
/// How deep folders are looked at for the home of happy.
const MAX_DEPTH: usize = 4096;
/// How many files of the home of happy are compared with one that has several names. With more, that one is refused.
const MAX_OWN: usize = 20_000;

/// A file by device and number, whatever it is called.
type FileId = (u64, u64);

/// The folders that are open to a call.
#[derive(Debug)]
pub struct Roots {
    open: Vec<Root>,
    home: Option<PathBuf>,
    own: PathBuf,
    own_id: FileId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Root {
    /// As it was named.
    named: PathBuf,
    /// Without symbolic links.
    real: PathBuf,
}

/// A folder that is open, and where it is.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub dir: Dir,
    /// Its path without symbolic links.
    pub path: PathBuf,
    /// The root that it lies in, without symbolic links.
    pub root: PathBuf,
}

/// A name in a folder that is open; there may be nothing of that name.
#[derive(Debug)]
pub struct Named {
    /// The folder.
    pub folder: Folder,
    /// One component, no link as far as was seen.
    pub name: OsString,
}

impl Roots {
    /// These folders, those that are not there left out.
    ///
    /// # Errors
    /// When the home of happy, `own`, cannot be looked at.
    pub fn new(open: Vec<PathBuf>, home: Option<PathBuf>, own: &Path) -> Result<Roots, CallError> {
        let own_id = std::fs::metadata(own)
            .map(|facts| {
                use std::os::unix::fs::MetadataExt;
                (facts.dev(), facts.ino())
            })
            .map_err(|error| said("look at", &own.to_string_lossy(), &error))?;
        let mut roots: Vec<Root> = Vec::new();
        for named in open {
            let named = match (named.strip_prefix("~"), &home) {
                (Ok(below), Some(home)) => home.join(below),
                _ => named,
            };
            let Ok(real) = std::fs::canonicalize(&named) else { continue };
            let root = Root { named, real };
            if root.named.is_absolute() && !roots.contains(&root) {
                roots.push(root);
            }
        }
        Ok(Roots { open: roots, home, own: own.to_owned(), own_id })
    }

    /// The open folders, without symbolic links, in order, and none that lies in another.
    pub fn folders(&self) -> Vec<PathBuf> {
        let all: Vec<_> = self.open.iter().map(|root| &root.real).collect();
        let is_outermost = |path: &PathBuf| !all.iter().any(|other| *other != path && path.starts_with(other));
        let mut outermost: Vec<_> = all.iter().copied().filter(|path| is_outermost(path)).cloned().collect();
        outermost.sort();
        outermost.dedup();
        outermost
    }

    /// Opens a folder.
    ///
    /// # Errors
    /// When it is outside, closed, not there or no folder.
    pub fn folder(&self, path: &str) -> Result<Folder, CallError> {
        let (root, below) = self.place(path)?;
        let dir = open_root(&root, path)?;
        self.open_below(dir, &root, &below, path)
    }

    /// Opens the folder that a file is in, and says what the file is called there; a link at the end of the path is followed.
    ///
    /// # Errors
    /// When it is outside or closed, or the folder is not there.
    pub fn named(&self, path: &str) -> Result<Named, CallError> {
        let (root, mut below) = self.place(path)?;
        let dir = open_root(&root, path)?;
        if below.as_os_str().is_empty() {
            return Err(refuse(ErrorCode::Malformed, path, "it is a folder"));
        }
        if dir.symlink_metadata(&below).is_ok_and(|facts| facts.is_symlink()) {
            below = dir.canonicalize(&below).map_err(|error| said("open", path, &error))?;
        }
        let Some(name) = below.file_name().map(OsStr::to_owned) else {
            return Err(refuse(ErrorCode::Malformed, path, "it is a folder"));
        };
        let folder = below.parent().unwrap_or(Path::new("")).to_owned();
        let folder = self.open_below(dir, &root, &folder, path)?;
        Ok(Named { folder, name })
    }

    /// Opens a file for reading, and says what is true of it.
    ///
    /// # Errors
    /// As [`Roots::named`], and when it is no file with content, or one of happy's own under another name.
    pub fn file(&self, path: &str) -> Result<(File, Stat), CallError> {
        let named = self.named(path)?;
        match self.open_named(&named, path)? {
            Some(opened) => Ok(opened),
            None => Err(refuse(ErrorCode::NotFound, path, "there is no such file or folder")),
        }
    }

    /// The file of that name; `None` when there is nothing.
    ///
    /// # Errors
    /// As [`Roots::file`].
    pub fn open_named(&self, named: &Named, path: &str) -> Result<Option<(File, Stat)>, CallError> {
        let failed = |error: rustix::io::Errno| said("read", path, &error.into());
        let dir = named.folder.dir.as_fd();
        // Looked at before it is opened: opening some devices does something.
        match rustix::fs::statat(dir, &named.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => check_kind(&facts, path)?,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, &named.name, flags, Mode::empty()).map_err(failed)?;
        let facts = rustix::fs::fstat(&file).map_err(failed)?;
        check_kind(&facts, path)?;
        if facts.st_nlink > 1 && self.is_own_file(file_id(&facts)) {
            return Err(closed(path));
        }
        Ok(Some((File::from(file), facts)))
    }

    /// The root of a path and what is below it, by the words of the path alone.
    fn place(&self, path: &str) -> Result<(Root, PathBuf), CallError> {
        if path.len() > MAX_PATH || path.contains('\0') {
            return Err(refuse(ErrorCode::Malformed, path, "that is no path: it is too long, or has a zero byte"));
        }
        let whole = match (Path::new(path).strip_prefix("~"), &self.home) {
            (Ok(below), Some(home)) => home.join(below),
            _ => PathBuf::from(path),
        };
        if !whole.is_absolute() {
            return Err(refuse(ErrorCode::Malformed, path, "a path begins with `/` or `~/`"));
        }
        if whole.components().any(|part| part == Component::ParentDir) {
            return Err(refuse(ErrorCode::NotPermitted, path, "`..` is refused in a path; name the folder itself"));
        }
        // Without `.` and doubled slashes.
        let whole: PathBuf = whole.components().collect();
        let longest = |root: &&Root| root.real.as_os_str().len();
        let by = |spelled: fn(&Root) -> &PathBuf| {
            let fitting = self.open.iter().filter(|root| whole.starts_with(spelled(root)));
            let root = fitting.max_by_key(longest)?;
            let below = whole.strip_prefix(spelled(root)).ok()?.to_owned();
            Some((root.clone(), below))
        };
        by(|root| &root.named)
            .or_else(|| by(|root| &root.real))
            .ok_or_else(|| refuse(ErrorCode::NotPermitted, path, OUTSIDE))
    }

    fn open_below(&self, root_dir: Dir, root: &Root, below: &Path, path: &str) -> Result<Folder, CallError> {
        let failed = |error: io::Error| said("open", path, &error);
        let (dir, real) = match below.as_os_str().is_empty() {
            true => (root_dir, root.real.clone()),
            false => {
                let dir = root_dir.open_dir(below).map_err(failed)?;
                let real = root_dir.canonicalize(below).map_err(failed)?;
                (dir, root.real.join(real))
            }
        };
        if self.is_in_own(dir.as_fd()).map_err(failed)? {
            return Err(closed(path));
        }
        if is_of_kernel(dir.as_fd()) {
            return Err(refuse(ErrorCode::NotPermitted, path, "what the kernel shows as files is not opened"));
        }
        Ok(Folder { dir, path: real, root: root.real.clone() })
    }

    /// Whether a folder is the home of happy or lies in it, found by going up.
    fn is_in_own(&self, folder: impl AsFd) -> io::Result<bool> {
        #[cfg(target_os = "linux")]
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        #[cfg(not(target_os = "linux"))]
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at: OwnedFd = rustix::fs::openat(folder, ".", flags, Mode::empty())?;
        let mut id = file_id(&rustix::fs::fstat(&at)?);
        for _ in 0..MAX_DEPTH {
            if id == self.own_id {
                return Ok(true);
            }
            let above = rustix::fs::openat(&at, "..", flags, Mode::empty())?;
            let above_id = file_id(&rustix::fs::fstat(&above)?);
            if above_id == id {
                return Ok(false);
            }
            (at, id) = (above, above_id);
        }
        Err(io::Error::from(rustix::io::Errno::NAMETOOLONG))
    }

    /// Whether a file has a name in the home of happy; yes, when that cannot be found out.
    fn is_own_file(&self, wanted: FileId) -> bool {
        use std::os::unix::fs::MetadataExt;
        let mut folders = vec![self.own.clone()];
        let mut seen = HashSet::new();
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { return true };
            for entry in entries.flatten() {
                // Of the entry itself, not of what a link leads to.
                let Ok(facts) = entry.metadata() else { continue };
                let id = (facts.dev(), facts.ino());
                if id == wanted || seen.len() >= MAX_OWN {
                    return true;
                }
                if seen.insert(id) && facts.is_dir() {
                    folders.push(entry.path());
                }
            }
        }
        false
    }
}

fn open_root(root: &Root, path: &str) -> Result<Dir, CallError> {
    Dir::open_ambient_dir(&root.real, ambient_authority()).map_err(|error| said("open", path, &error))
}

fn closed(path: &str) -> CallError {
    refuse(ErrorCode::NotPermitted, path, "the home of happy is closed to all calls, since the keys are there")
}

/// Device and number, which have other types elsewhere.
#[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the types differ between systems")]
fn file_id(facts: &Stat) -> FileId {
    (facts.st_dev as u64, facts.st_ino as u64)
}

fn check_kind(facts: &Stat, path: &str) -> Result<(), CallError> {
    match FileType::from_raw_mode(facts.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(refuse(ErrorCode::Malformed, path, "it is a folder")),
        // One that was put there a moment ago: links are followed before.
        FileType::Symlink => Err(refuse(ErrorCode::Conflict, path, "it has become a symbolic link; try again")),
        _ => Err(refuse(
            ErrorCode::NotPermitted,
            path,
            "it is a pipe, socket or device; only files with content are opened",
        )),
    }
}

/// Whether a folder is one of those in which the kernel shows itself: reading or writing there does things.
#[cfg(target_os = "linux")]
fn is_of_kernel(folder: impl AsFd) -> bool {
    // From linux/magic.h: proc, sysfs, debugfs, tracefs, securityfs, cgroup, cgroup2, bpf, configfs, pstore, efivarfs, fusectl.
    const OF_KERNEL: [u64; 12] = [
        0x9fa0,
        0x6265_6572,
        0x6462_6720,
        0x7472_6163,
        0x7363_6673,
        0x0027_e0eb,
        0x6367_7270,
        0xcafe_4a11,
        0x6265_6570,
        0x6165_676c,
        0xde5e_81e4,
        0x6573_5543,
    ];
    // Only the low half says it: some systems extend its sign.
    rustix::fs::fstatfs(folder).is_ok_and(|facts| OF_KERNEL.contains(&(facts.f_type as u64 & 0xffff_ffff)))
}

#[cfg(not(target_os = "linux"))]
fn is_of_kernel(_: impl AsFd) -> bool {
    false
}
