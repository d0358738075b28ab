//! What `git.*` does (`PROTOCOL 10.5`), by the machine's own `git` and with its owner's settings.
//!
//! Whoever may call these may run programs here anyway; what is kept away is harm by chance and by a repository of somebody else's:
//! nothing asks for a password, nothing waits for an editor, words of a caller are never taken for options, and looking at a repository
//! runs nothing that its settings name. Commits and pushes run the hooks of the repository, as they do for its owner at a keyboard.

pub mod parse;
mod reach;
pub mod run;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use happy_rpc::{
    CallError, ErrorCode, GIT_PAGE, GitCommit, GitCommitted, GitDiff, GitHistory, GitLog, GitPatch, GitPush, GitPushed,
    GitState, GitStatus, MAX_DIFF,
};

use crate::files::error::{json_length, refuse, shown};
use crate::files::roots::{Folder, Roots};
use run::{Git, Output};

/// Looking at a repository is done in a moment; a huge one takes some seconds the first time.
const LOOK: Duration = Duration::from_secs(25);
/// Hooks may run tests, and a push may take a while; who asked is told `deadline passed` before, and asks again.
const CHANGE: Duration = Duration::from_secs(120);
/// The most that is read of a list, bytes.
const MAX_LIST: usize = 1024 * 1024;
/// Short answers.
const SHORT: usize = 16 * 1024;
/// The longest message of a commit, bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// The most files that a call names: they stand on the command line.
const MAX_FILES: usize = 1_000;
/// The longest name of a commit, branch or remote, bytes.
const MAX_NAME: usize = 250;
/// Commits when the caller does not say how many.
const USUAL_COMMITS: u32 = 30;

/// A working tree that may be touched.
pub struct Tree {
    /// Its top.
    top: Folder,
    env: BTreeMap<String, String>,
    /// Settings of the repository that do not count while git only looks.
    off: Vec<OsString>,
}

/// Where git says that a working tree and its repository are.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    top: String,
    repository: String,
    /// Where its objects and branches are; another folder for a linked working tree.
    common: String,
}

impl Found {
    /// Those that a folder is in.
    ///
    /// # Errors
    /// When it is in none.
    pub async fn around(folder: &Folder, env: &BTreeMap<String, String>) -> Result<Found, CallError> {
        let path = folder.path.to_string_lossy().into_owned();
        let git = Git { folder, env, looks: true, time: LOOK, off: &[] };
        let args = ["rev-parse", "--path-format=absolute", "--show-toplevel", "--absolute-git-dir", "--git-common-dir"];
        let found = git.run(&args, SHORT).await?;
        if !found.is_ok() {
            let what = match found.err.as_str() {
                err if err.contains("dubious ownership") => {
                    "the repository belongs to another user, and git takes nothing from it; `git config --global --add safe.directory` says that it may"
                }
                err if err.contains("not a git repository") => {
                    "it is in no repository of git, or in one above the folders that are open"
                }
                err if err.contains("work tree") || err.contains("bare repository") => {
                    "it is a repository without a working tree"
                }
                _ => return Err(failed(&found)),
            };
            return Err(refuse(ErrorCode::NotFound, &path, what));
        }
        let out = String::from_utf8_lossy(&found.out).into_owned();
        let lines: Vec<&str> = out.trim_end_matches('\n').split('\n').collect();
        let [top, repository, common] = lines[..] else { return Err(failed(&found)) };
        Ok(Found { top: top.to_owned(), repository: repository.to_owned(), common: common.to_owned() })
    }

    /// Opens the top of the tree. Waits for the disk.
    ///
    /// # Errors
    /// When the tree or its repository lies outside of the folders that are open.
    pub fn open(&self, roots: &Roots) -> Result<Folder, CallError> {
        reach::is_open(roots, Path::new(&self.repository), Path::new(&self.common))?;
        roots.folder(&self.top)
    }
}

impl Tree {
    /// The one with this top, of which [`Found::open`] has seen that it may be touched.
    pub fn new(top: Folder, env: BTreeMap<String, String>) -> Self {
        Self { top, env, off: Vec::new() }
    }

    /// Switches off what the repository's own settings would have run while git only looks: filters, which `git status` sends changed files through.
    /// Those of the user's settings stay.
    ///
    /// # Errors
    /// What git says.
    pub async fn without_filters(mut self) -> Result<Self, CallError> {
        let args = [
            "config",
            "--show-scope",
            "--includes",
            "--null",
            "--get-regexp",
            r"^filter\..*\.(clean|process|required)$",
        ];
        let output = self.look().run(&args, MAX_LIST).await?;
        // Code 1: there are none.
        if output.code != Some(1) && !output.is_ok() || output.is_cut {
            return Err(failed(&output));
        }
        let mut fields = output.out.split(|byte| *byte == 0);
        while let (Some(scope), Some(entry)) = (fields.next(), fields.next()) {
            if scope != b"local" && scope != b"worktree" {
                continue;
            }
            let name = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
            self.off.push(OsString::from_vec(name.to_vec()));
        }
        Ok(self)
    }

    fn look(&self) -> Git<'_> {
        Git { folder: &self.top, env: &self.env, looks: true, time: LOOK, off: &self.off }
    }

    fn change(&self) -> Git<'_> {
        Git { looks: false, time: CHANGE, off: &[], ..self.look() }
    }

    /// `git.status`.
    ///
    /// # Errors
    /// What git says.
    pub async fn status(&self, _: &GitStatus) -> Result<GitState, CallError> {
        let args =
            ["status", "--porcelain=v2", "--branch", "-z", "--untracked-files=normal", "--ignore-submodules=dirty"];
        let output = well(self.look().run(&args, MAX_LIST).await?)?;
        let mut state = parse::status(self.top.path.to_string_lossy().into_owned(), &output.out);
        if output.is_cut {
            // The last record may be the beginning of one.
            state.changes.pop();
            state.more = true;
        }
        Ok(state)
    }

    /// `git.diff`.
    ///
    /// # Errors
    /// What git says, or a name or path that is none.
    pub async fn diff(&self, params: &GitDiff) -> Result<GitPatch, CallError> {
        check_files(&params.files)?;
        // Neither programs that show a file nor those that show a difference are run.
        let plain = [
            "--no-ext-diff",
            "--no-textconv",
            "--no-color",
            "--submodule=short",
            "--ignore-submodules=dirty",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        ];
        let mut args = Vec::new();
        let commit = params.commit.as_deref().map(name_of_commit).transpose()?;
        match &commit {
            Some(commit) => {
                args.extend(["show", "--format=", "--patch"]);
                args.extend(plain);
                args.extend(["--end-of-options", commit]);
            }
            None => {
                args.push("diff");
                args.extend(plain);
                args.extend(params.staged.then_some("--cached"));
            }
        }
        args.push("--");
        args.extend(params.files.iter().map(String::as_str));
        let output = well(self.look().run(&args, MAX_DIFF).await?)?;
        let mut bytes = output.out;
        if output.is_cut {
            bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
        }
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let (longest, mut is_cut) = (longest_text(&text), output.is_cut);
        if longest < text.len() {
            text.truncate(longest);
            is_cut = true;
        }
        let cut = is_cut.then(|| {
            let shown = text.len() / 1024;
            format!(
                "The changes are longer than can be sent at once: these are the first {shown} KiB. Ask for fewer files."
            )
        });
        Ok(GitPatch { text, cut })
    }

    /// `git.log`.
    ///
    /// # Errors
    /// What git says, or a name that is none.
    pub async fn log(&self, params: &GitLog) -> Result<GitHistory, CallError> {
        let count = if params.count == 0 { USUAL_COMMITS } else { params.count.min(GIT_PAGE) };
        let (skip, most) = (format!("--skip={}", params.skip), format!("--max-count={}", count + 1));
        let from = params.from.as_deref().map(name_of_commit).transpose()?;
        let mut args = vec!["log", "-z", parse::LOG_FORMAT, "--no-show-signature", &skip, &most, "--end-of-options"];
        args.push(from.unwrap_or("HEAD"));
        args.push("--");
        let output = self.look().run(&args, MAX_LIST).await?;
        if !output.is_ok() && from.is_none() && self.has_no_commit().await? {
            return Ok(GitHistory { commits: Vec::new(), more: false });
        }
        let output = well(output)?;
        let mut commits = parse::commits(&output.out);
        let mut bytes = 0;
        let fits = commits.iter().take_while(|commit| {
            let words = [&commit.subject, &commit.author, &commit.email].map(|word| json_length(word));
            // A hash of SHA-256 has 64 letters.
            bytes += words.iter().sum::<usize>() + 67 * commit.parents.len() + 200;
            bytes <= MAX_DIFF
        });
        let fits = fits.count().clamp(1, count as usize);
        let more = commits.len() > fits || output.is_cut;
        commits.truncate(fits);
        Ok(GitHistory { commits, more })
    }

    async fn has_no_commit(&self) -> Result<bool, CallError> {
        Ok(!self.look().run(&["rev-parse", "--verify", "--quiet", "HEAD"], SHORT).await?.is_ok())
    }

    /// `git.commit`.
    ///
    /// # Errors
    /// What git or a hook says, or a path that is none. Files that were to be committed are staged then.
    pub async fn commit(&self, params: &GitCommit) -> Result<GitCommitted, CallError> {
        check_files(&params.files)?;
        let malformed = |what: &str| CallError::new(ErrorCode::Malformed, what);
        if params.message.trim().is_empty() || params.message.len() > MAX_MESSAGE || params.message.contains('\0') {
            return Err(malformed("a commit has a message, of at most 64 KiB and without zero bytes"));
        }
        if params.all && !params.files.is_empty() {
            return Err(malformed("either all that differs is committed, or the files that are named"));
        }
        let files: Vec<&str> = params.files.iter().map(String::as_str).collect();
        if params.all {
            well(self.change().run(&["add", "--all"], SHORT).await?)?;
        } else if !files.is_empty() {
            let add = [&["add", "--all", "--"], files.as_slice()].concat();
            well(self.change().run(&add, SHORT).await?)?;
        }
        // Not on its standard input, which programs that it runs may read.
        let message = format!("--message={}", params.message);
        let mut args = vec!["commit", "--quiet", "--cleanup=strip", &message];
        args.extend((!files.is_empty()).then_some("--only"));
        args.push("--");
        args.extend(files);
        let output = self.change().run(&args, SHORT).await?;
        if !output.is_ok() {
            return Err(self.not_committed(&output).await);
        }
        let commit = self.word(&["rev-parse", "--verify", "HEAD"]).await?.unwrap_or_default();
        Ok(GitCommitted { commit, branch: self.branch().await? })
    }

    async fn not_committed(&self, output: &Output) -> CallError {
        let said = format!("{}\n{}", String::from_utf8_lossy(&output.out), output.err);
        if said.contains("nothing to commit")
            || said.contains("nothing added to commit")
            || said.contains("no changes added")
        {
            return CallError::new(
                ErrorCode::Conflict,
                "there is nothing to commit: nothing of that differs, or nothing is staged",
            );
        }
        if said.contains("Please tell me who you are") || said.contains("unable to auto-detect email") {
            return CallError::new(
                ErrorCode::Failed,
                "git does not know who commits; on the machine, give `git config --global user.name` and `user.email`",
            );
        }
        if said.contains("unmerged files") || said.contains("during a merge") {
            return CallError::new(ErrorCode::Conflict, "a merge is not finished; resolve it in a session");
        }
        CallError::new(
            ErrorCode::Failed,
            format!("git did not commit; a hook of the repository may have refused it: {}", sentence_of(output)),
        )
    }

    /// `git.push`.
    ///
    /// # Errors
    /// Why it was not sent, in words that say what to do.
    pub async fn push(&self, params: &GitPush) -> Result<GitPushed, CallError> {
        let conflict = |what: String| CallError::new(ErrorCode::Conflict, what);
        let Some(branch) = self.branch().await? else {
            return Err(conflict("no branch is checked out, so there is nothing to push; check one out first".into()));
        };
        if self.has_no_commit().await? {
            return Err(conflict(format!("the branch {} has no commit yet", shown(&branch))));
        }
        let config = |key: &str| format!("branch.{branch}.{key}");
        let (remote, target) = match &params.set_upstream {
            Some(remote) => (remote.clone(), branch.clone()),
            None => {
                let remote = self.word(&["config", "--get", "--end-of-options", &config("remote")]).await?;
                let merge = self.word(&["config", "--get", "--end-of-options", &config("merge")]).await?;
                let merge = merge.and_then(|merge| merge.strip_prefix("refs/heads/").map(str::to_owned));
                match (remote, merge) {
                    (Some(remote), Some(merge)) if remote != "." => (remote, merge),
                    _ => {
                        return Err(conflict(format!(
                            "the branch {} has no upstream; push it with `set_upstream` and the name of a remote",
                            shown(&branch)
                        )));
                    }
                }
            }
        };
        let remotes = well(self.look().run(&["remote"], SHORT).await?)?;
        // A name that is known here, and no address that somebody sends.
        if !String::from_utf8_lossy(&remotes.out).lines().any(|known| known == remote) {
            let what = format!("there is no remote `{}` in this repository", shown(&remote));
            return Err(CallError::new(ErrorCode::NotFound, what));
        }
        let spec = format!("refs/heads/{branch}:refs/heads/{target}");
        let mut args = vec!["push", "--porcelain", "--no-force", "--recurse-submodules=no"];
        args.extend(params.set_upstream.is_some().then_some("--set-upstream"));
        args.extend(["--end-of-options", &remote, &spec]);
        let ssh = self.word(&["config", "--get", "core.sshCommand"]).await?;
        let ssh = self.env.get("GIT_SSH_COMMAND").cloned().or(ssh).unwrap_or_else(|| "ssh".into());
        let output = self.change().run_with_ssh(&ssh, &args, SHORT).await?;
        if !output.is_ok() {
            return Err(not_pushed(&output, &remote));
        }
        let up_to_date = String::from_utf8_lossy(&output.out).lines().any(|line| line.starts_with("=\t"));
        let commit = self.word(&["rev-parse", "--verify", "HEAD"]).await?.unwrap_or_default();
        Ok(GitPushed { remote, branch: target, commit, up_to_date })
    }

    async fn branch(&self) -> Result<Option<String>, CallError> {
        self.word(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await
    }

    /// A word that git prints; `None` when it has none.
    async fn word(&self, args: &[&str]) -> Result<Option<String>, CallError> {
        let output = self.look().run(args, SHORT).await?;
        let word = String::from_utf8_lossy(&output.out).trim_end_matches('\n').to_owned();
        Ok((output.is_ok() && !word.is_empty()).then_some(word))
    }
}

fn not_pushed(output: &Output, remote: &str) -> CallError {
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.out), output.err);
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["non-fast-forward", "fetch first"]) {
        return CallError::new(
            ErrorCode::Conflict,
            format!("`{}` has commits that are not here; pull them in a session, then push again", shown(remote)),
        );
    }
    if has(&[
        "could not read Username",
        "could not read Password",
        "terminal prompts disabled",
        "Authentication failed",
        "Permission denied (",
        "Host key verification failed",
    ]) {
        return CallError::new(
            ErrorCode::NotPermitted,
            format!(
                "`{}` wants a password, a key or a confirmation that nobody can give here; set up an ssh agent or a credential helper on the machine, \
                 or push once in a session",
                shown(remote)
            ),
        );
    }
    if has(&["Could not resolve host", "unable to access", "Could not read from remote", "does not appear to be a git"])
    {
        return CallError::new(
            ErrorCode::Failed,
            format!("`{}` cannot be reached: {}", shown(remote), sentence_of(output)),
        );
    }
    CallError::new(ErrorCode::Failed, format!("`{}` did not take it: {}", shown(remote), sentence_of(output)))
}

/// The end of what git said, as a part of a sentence.
fn sentence_of(output: &Output) -> String {
    const LONGEST: usize = 1500;
    let said = match output.err.is_empty() {
        true => String::from_utf8_lossy(&output.out).trim().to_owned(),
        false => output.err.clone(),
    };
    let from = said.ceil_char_boundary(said.len().saturating_sub(LONGEST));
    let said: String = said[from..].chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    if said.is_empty() { "git did not say why".into() } else { said }
}

fn failed(output: &Output) -> CallError {
    CallError::new(ErrorCode::Failed, format!("git says: {}", sentence_of(output)))
}

/// The output, if it went well.
fn well(output: Output) -> Result<Output, CallError> {
    if output.is_ok() {
        return Ok(output);
    }
    let unknown = ["unknown revision", "bad revision", "ambiguous argument", "did not match any file"];
    let code =
        if unknown.iter().any(|word| output.err.contains(word)) { ErrorCode::NotFound } else { ErrorCode::Failed };
    Err(CallError { code, ..failed(&output) })
}

/// A commit, as people name it: never an option, a range or a file.
fn name_of_commit(name: &str) -> Result<&str, CallError> {
    let is_plain = |c: char| c.is_alphanumeric() || "/_.-~^@{}+#".contains(c);
    let is_name =
        !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with(['-', '^']) && name.chars().all(is_plain);
    match is_name && !name.contains("..") {
        true => Ok(name),
        false => Err(CallError::new(
            ErrorCode::Malformed,
            format!("`{}` cannot name a commit; give a hash, a branch or a tag", shown(name)),
        )),
    }
}

/// Paths below the top of the working tree.
fn check_files(files: &[String]) -> Result<(), CallError> {
    if files.len() > MAX_FILES {
        return Err(CallError::new(ErrorCode::TooMany, format!("at most {MAX_FILES} files are named at once")));
    }
    let is_fit = |file: &String| {
        let parts = std::path::Path::new(file).components();
        let is_below = parts.into_iter().all(|part| matches!(part, std::path::Component::Normal(_)));
        !file.is_empty() && !file.contains('\0') && is_below
    };
    match files.iter().find(|file| !is_fit(file)) {
        None => Ok(()),
        Some(file) => Err(refuse(
            ErrorCode::NotPermitted,
            file,
            "a file is named by its path below the top of the working tree, without `..`",
        )),
    }
}

/// How much of a text fits into an answer: as JSON it may be longer.
fn longest_text(text: &str) -> usize {
    // What is left of a message beside the rest of the answer.
    const ROOM: usize = 240 * 1024;
    let mut room = ROOM;
    for (at, c) in text.char_indices() {
        let takes = json_length(c.encode_utf8(&mut [0; 4]));
        if takes > room {
            return at;
        }
        room -= takes;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_of_a_caller_is_an_option_a_range_or_a_way_out() {
        for name in ["main", "HEAD~2", "v1.0", "feature/x#3", "stash@{1}", "origin/main", "a^2", "grüße"] {
            assert_eq!(name_of_commit(name), Ok(name));
        }
        for name in ["", "-p", "--output=/tmp/x", "a..b", "a...b", "main:secret", "a b", "$(x)", "a\0", "a\nb", "^main"]
        {
            assert_eq!(name_of_commit(name).unwrap_err().code, ErrorCode::Malformed, "{name:?}");
        }
        assert!(check_files(&["a".into(), "-n".into(), "b/c d".into(), ":(top)x".into()]).is_ok());
        for file in ["", "..", "a/../../b", "/etc/passwd", "a\0b", "."] {
            assert!(check_files(&[file.into()]).is_err(), "{file:?}");
        }
        assert!(check_files(&vec!["x".to_owned(); MAX_FILES + 1]).is_err());
    }

    #[test]
    fn a_text_that_grows_as_json_is_cut() {
        assert_eq!(longest_text("ab\n"), 3);
        let hostile = "\u{1}".repeat(128 * 1024);
        let most = longest_text(&hostile);
        assert!(serde_json::to_string(&hostile[..most]).unwrap().len() <= 241 * 1024, "{most}");
    }
}
