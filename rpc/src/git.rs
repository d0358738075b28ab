//! Calls about git repositories, answered by the machine's own `git` (`docs/PROTOCOL.md` §10.5).

use serde::{Deserialize, Serialize};

/// The most changes of one [`GitStatus`].
pub const MAX_CHANGES: usize = 1_000;
/// The most bytes of a diff.
pub const MAX_DIFF: usize = 128 * 1024;
/// The most commits of one [`GitHistory`].
pub const GIT_PAGE: u32 = 100;

/// Asks how a working tree stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitStatus {
    /// A folder in it, as in [`crate::FileList`].
    pub path: String,
}

/// How a working tree stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitState {
    /// The top of the working tree; the paths below are below it.
    pub root: String,
    /// The commit that is checked out; none before the first one.
    pub head: Option<String>,
    /// The branch; none when a commit is checked out by itself.
    pub branch: Option<String>,
    /// The branch elsewhere that this one follows.
    pub upstream: Option<String>,
    /// Commits that the upstream lacks; none without an upstream.
    pub ahead: Option<u32>,
    /// Commits of the upstream that are not here.
    pub behind: Option<u32>,
    /// What differs from the commit, at most [`MAX_CHANGES`].
    pub changes: Vec<GitChange>,
    /// There are more than that.
    pub more: bool,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitChange {
    /// Where it is.
    pub path: String,
    /// Where it was, if it was moved or copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub from: Option<String>,
    /// What will be committed, as the letter that `git status --short` shows: `M`, `A`, `D`, `R`, `C`, `T`, `U`, `?` or `.` for nothing.
    pub staged: char,
    /// What was done since, by the same letters.
    pub unstaged: char,
}

/// Asks for changes as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitDiff {
    /// A folder in the working tree.
    pub path: String,
    /// Those that will be committed, instead of those that will not.
    #[serde(default)]
    pub staged: bool,
    /// Those of this commit instead: a hash, a branch or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub commit: Option<String>,
    /// Only of these files, below the top of the working tree; of all when empty.
    #[serde(default)]
    pub files: Vec<String>,
}

/// Changes as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitPatch {
    /// A unified diff; what is not UTF-8 in it is replaced.
    pub text: String,
    /// It is longer than [`MAX_DIFF`] and ends at a line; this says so to a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub cut: Option<String>,
}

/// Asks for commits, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitLog {
    /// A folder in the working tree.
    pub path: String,
    /// From this commit on: a hash, a branch or a tag; what is checked out when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub from: Option<String>,
    /// How many of them to pass over.
    #[serde(default)]
    pub skip: u32,
    /// How many, [`GIT_PAGE`] at most; 30 when 0.
    #[serde(default)]
    pub count: u32,
}

/// Commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitHistory {
    /// Newest first.
    pub commits: Vec<GitCommitEntry>,
    /// There are older ones.
    pub more: bool,
}

/// A commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitCommitEntry {
    /// Its hash.
    pub commit: String,
    /// Those of its parents.
    pub parents: Vec<String>,
    /// Whose work it is.
    pub author: String,
    /// Their address.
    pub email: String,
    /// When they did it, Unix milliseconds.
    pub at: u64,
    /// The first line of its message, cut after 1 KiB.
    pub subject: String,
}

/// Commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitCommit {
    /// A folder in the working tree.
    pub path: String,
    /// Its message, at most 64 KiB.
    pub message: String,
    /// Only these files, below the top of the working tree, as they are now; new and deleted ones too.
    #[serde(default)]
    pub files: Vec<String>,
    /// Everything that differs; without this and without files, what is staged.
    #[serde(default)]
    pub all: bool,
}

/// What was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitCommitted {
    /// The hash of the commit.
    pub commit: String,
    /// The branch that has it; none when no branch is checked out.
    pub branch: Option<String>,
}

/// Sends the commits of the branch that is checked out to where it belongs. Never by force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitPush {
    /// A folder in the working tree.
    pub path: String,
    /// Make it follow the branch of the same name at this remote, and send it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub set_upstream: Option<String>,
}

/// What was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct GitPushed {
    /// The remote's name.
    pub remote: String,
    /// The branch there.
    pub branch: String,
    /// Its commit now.
    pub commit: String,
    /// It had it already.
    pub up_to_date: bool,
}
