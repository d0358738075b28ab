//! Calls about files below the folders that a machine opens to its devices (`docs/PROTOCOL.md` §10.4).
//!
//! A path is absolute or begins with `~/`, is UTF-8 and has no `..` in it.

use serde::{Deserialize, Serialize};

/// The most bytes of a file that one [`FileRead`] gives: with base64 and the rest of the answer it stays well below the 256 KiB of a message.
pub const MAX_READ: u32 = 128 * 1024;
/// What [`FileRead`] gives unless told otherwise: half a second at 1 Mbit/s.
pub const USUAL_READ: u32 = 64 * 1024;
/// The most bytes that one [`FileWrite`] carries; as base64 they fit a message.
pub const MAX_WRITE: usize = 160 * 1024;
/// The largest file that is hashed or written: to check it for a change, all of it is read.
pub const MAX_WHOLE: u64 = 16 * 1024 * 1024;
/// The most entries of one [`FileListing`].
pub const FILE_PAGE: usize = 500;

/// Asks for the entries of a folder by name; without a path, for the folders that are open to the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileList {
    /// Which folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub path: Option<String>,
    /// Only the entries behind this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub after: Option<String>,
}

/// Entries of a folder, in the order of their names' bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileListing {
    /// The folder, whole; empty for the list of those that are open.
    pub path: String,
    /// At most [`FILE_PAGE`].
    pub entries: Vec<FileEntry>,
    /// The rest did not fit: ask again, after the last name.
    pub more: bool,
    /// Entries that cannot be named in a call, since their names are not UTF-8; they are in no page.
    pub unnameable: u64,
}

/// What something in a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum FileKind {
    /// A file with content.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A pipe, socket or device, which no call opens.
    Special,
}

/// Something in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileEntry {
    /// Its name; of a folder that is open, its whole path.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes, of a file.
    pub size: u64,
    /// Unix milliseconds.
    pub modified_at: u64,
    /// Permission bits, as `chmod` takes them.
    pub mode: u32,
}

/// Asks for a part of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileRead {
    /// Which file.
    pub path: String,
    /// Where the part begins.
    #[serde(default)]
    pub offset: u64,
    /// Its most bytes, [`MAX_READ`] at most; [`USUAL_READ`] when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub length: Option<u32>,
    /// The [stamp](FilePart::stamp) of the parts before: when the file is another one by now, this is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub stamp: Option<String>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FilePart {
    /// Where it begins.
    pub offset: u64,
    /// Its content, base64; shorter than was asked for only at the end of the file.
    pub bytes: String,
    /// The size of the whole file.
    pub size: u64,
    /// Whether the file ends here.
    pub end: bool,
    /// Another one whenever the file was changed or replaced; for further parts.
    pub stamp: String,
    /// Hexadecimal SHA-256 of the whole file, for [`FileWrite`]; only with the first part, of a file of [`MAX_WHOLE`] at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub hash: Option<String>,
    /// Unix milliseconds.
    pub modified_at: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Writes a file, or a part of one, in one step: whoever reads it meanwhile has the old file or the new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileWrite {
    /// Which file. Its folder must be there.
    pub path: String,
    /// What is written, base64 of at most [`MAX_WRITE`] bytes.
    pub bytes: String,
    /// The part that this takes the place of; the whole file when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub range: Option<FileRange>,
    /// What the caller knows to be there.
    pub over: Over,
}

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileRange {
    /// Where it begins; the size of the file to append.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

/// Over what a file is written; when something else is there, nothing is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Over {
    /// There is no such file.
    Nothing,
    /// The file whose content has this hexadecimal SHA-256.
    Hash(String),
    /// Whatever is there.
    Anything,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct FileWritten {
    /// The size of the file now.
    pub size: u64,
    /// Hexadecimal SHA-256 of it, for the next [`FileWrite`].
    pub hash: String,
    /// Permission bits: those it had before.
    pub mode: u32,
}
