//! `git.*`: their work, their limits, and what they refuse; against real repositories and a real bare one to push to.

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use happy_rpc::{ErrorCode, GIT_PAGE, GitCommit, GitDiff, GitLog, GitPush, GitStatus, MAX_CHANGES, MAX_DIFF};

use crate::harness::Home;
use crate::{Desk, with_root};

/// Runs git as the person at the machine would.
#[track_caller]
fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git").current_dir(folder).args(args).output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with one commit.
fn repository(folder: &Path) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    git(folder, &["init", "--quiet", "--initial-branch=main"]);
    git(folder, &["config", "user.name", "Me"]);
    git(folder, &["config", "user.email", "me@example.org"]);
    std::fs::write(folder.join("a"), "one\n").unwrap();
    git(folder, &["add", "a"]);
    git(folder, &["commit", "--quiet", "--message=first"]);
    folder.to_owned()
}

/// A hook of this name.
fn hook(folder: &Path, name: &str, script: &str) {
    let path = folder.join(".git/hooks").join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn path(folder: &Path) -> String {
    folder.display().to_string()
}

#[test]
fn a_change_is_seen_shown_committed_and_pushed() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let tree = repository(&root.join("tree"));
    let status = |desk: &mut Desk| desk.call(GitStatus { path: path(&tree) }).unwrap();
    let before = status(&mut desk);
    assert_eq!((before.branch.as_deref(), before.changes.len(), before.ahead), (Some("main"), 0, None));
    assert_eq!(
        (before.root.as_str(), before.head.as_deref()),
        (path(&tree).as_str(), Some(git(&tree, &["rev-parse", "HEAD"]).as_str()))
    );

    std::fs::write(tree.join("a"), "one\ntwo\n").unwrap();
    std::fs::create_dir(tree.join("sub")).unwrap();
    std::fs::write(tree.join("sub/-n new"), "new\n").unwrap();
    // From a folder below the top, too.
    let seen = desk.call(GitStatus { path: path(&tree.join("sub")) }).unwrap();
    let letters: Vec<_> = seen.changes.iter().map(|it| (it.path.as_str(), it.staged, it.unstaged)).collect();
    assert_eq!(letters, [("a", '.', 'M'), ("sub/", '?', '?')]);
    let diff = |files: &[&str]| GitDiff {
        path: path(&tree),
        files: files.iter().map(|file| (*file).to_owned()).collect(),
        ..GitDiff::default()
    };
    let patch = desk.call(diff(&[])).unwrap();
    assert!(patch.text.contains("+two\n") && patch.cut.is_none(), "{}", patch.text);
    assert_eq!(desk.call(diff(&["sub"])).unwrap().text, "");
    assert_eq!(desk.call(GitDiff { staged: true, ..diff(&[]) }).unwrap().text, "");

    // One file by its name, whatever that looks like; the other stays as it is.
    let commit = |message: &str, files: &[&str], all| GitCommit {
        path: path(&tree),
        message: message.into(),
        files: files.iter().map(|file| (*file).to_owned()).collect(),
        all,
    };
    let done = desk.call(commit("second\n\nwith -n\n", &["sub/-n new"], false)).unwrap();
    assert_eq!((done.commit, done.branch.as_deref()), (git(&tree, &["rev-parse", "HEAD"]), Some("main")));
    assert_eq!(git(&tree, &["show", "--name-only", "--format=%B", "HEAD"]), "second\n\nwith -n\n\n\nsub/-n new");
    assert_eq!(status(&mut desk).changes.len(), 1);
    desk.refused(commit("nothing", &[], false), ErrorCode::Conflict, &["nothing to commit"]);
    desk.call(commit("third", &[], true)).unwrap();
    desk.refused(commit("nothing", &[], true), ErrorCode::Conflict, &["nothing to commit"]);
    std::fs::remove_file(tree.join("a")).unwrap();
    desk.call(commit("without a", &["a"], false)).unwrap();
    assert_eq!(status(&mut desk).changes, []);

    // A branch without an upstream, then with one, then again.
    let bare = root.join("bare.git");
    git(&root, &["init", "--quiet", "--bare", "--initial-branch=main", &path(&bare)]);
    git(&tree, &["remote", "add", "origin", &path(&bare)]);
    let push =
        |set_upstream: Option<&str>| GitPush { path: path(&tree), set_upstream: set_upstream.map(str::to_owned) };
    desk.refused(push(None), ErrorCode::Conflict, &["no upstream", "set_upstream"]);
    desk.refused(push(Some("nowhere")), ErrorCode::NotFound, &["no remote `nowhere`"]);
    let pushed = desk.call(push(Some("origin"))).unwrap();
    assert_eq!((pushed.remote.as_str(), pushed.branch.as_str(), pushed.up_to_date), ("origin", "main", false));
    assert_eq!(git(&bare, &["rev-parse", "main"]), git(&tree, &["rev-parse", "main"]));
    assert!(desk.call(push(None)).unwrap().up_to_date);
    let upstream = status(&mut desk);
    assert_eq!(
        (upstream.upstream.as_deref(), upstream.ahead, upstream.behind),
        (Some("origin/main"), Some(0), Some(0))
    );

    // Somebody else was faster.
    let other = root.join("other");
    git(&root, &["clone", "--quiet", &path(&bare), &path(&other)]);
    git(
        &other,
        &["-c", "user.name=You", "-c", "user.email=y@e", "commit", "--quiet", "--allow-empty", "--message=theirs"],
    );
    git(&other, &["push", "--quiet"]);
    desk.call(commit("mine", &[], true)).unwrap_err();
    std::fs::write(tree.join("b"), "b").unwrap();
    desk.call(commit("mine", &[], true)).unwrap();
    let theirs = git(&bare, &["rev-parse", "main"]);
    desk.refused(push(None), ErrorCode::Conflict, &["commits that are not here", "pull"]);
    assert_eq!(git(&bare, &["rev-parse", "main"]), theirs, "nothing is forced");

    let log = desk.call(GitLog { path: path(&tree), count: 2, ..GitLog::default() }).unwrap();
    let subjects = |log: &happy_rpc::GitHistory| log.commits.iter().map(|it| it.subject.clone()).collect::<Vec<_>>();
    assert_eq!((subjects(&log), log.more), (vec!["mine".to_owned(), "without a".into()], true));
    assert_eq!((log.commits[0].author.as_str(), log.commits[0].parents.len()), ("Me", 1));
    let rest = desk.call(GitLog { path: path(&tree), skip: 2, ..GitLog::default() }).unwrap();
    assert_eq!((subjects(&rest), rest.more), (vec!["third".to_owned(), "second".into(), "first".into()], false));
    let shown = desk.call(GitDiff { commit: Some("HEAD~3".into()), ..diff(&[]) }).unwrap();
    assert!(shown.text.contains("+++ b/sub/-n new"), "{}", shown.text);
    // The first commit has no parent to differ from.
    let first = desk.call(GitDiff { commit: Some(rest.commits[2].commit.clone()), ..diff(&[]) }).unwrap();
    assert!(first.text.contains("+one"), "{}", first.text);
}

#[test]
fn words_of_a_caller_are_no_options_and_name_nothing_outside() {
    let (home, folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let tree = repository(&root.join("tree"));
    let target = folder.path().join("written");
    let output = format!("--output={}", target.display());
    for name in [output.as_str(), "-p", "--all", "main..HEAD", "a:b", "$(touch x)", ""] {
        let diff = GitDiff { path: path(&tree), commit: Some(name.into()), ..GitDiff::default() };
        desk.refused(diff, ErrorCode::Malformed, &["cannot name a commit"]);
        let log = GitLog { path: path(&tree), from: Some(name.into()), ..GitLog::default() };
        desk.refused(log, ErrorCode::Malformed, &["cannot name a commit"]);
    }
    for file in ["../x", "/etc/passwd", ""] {
        let diff = GitDiff { path: path(&tree), files: vec![file.into()], ..GitDiff::default() };
        desk.refused(diff, ErrorCode::NotPermitted, &["below the top"]);
        let commit = GitCommit { path: path(&tree), message: "m".into(), files: vec![file.into()], all: false };
        desk.refused(commit, ErrorCode::NotPermitted, &["below the top"]);
    }
    // Such a file may be there, and is just a file.
    std::fs::write(tree.join(output.replace('/', "_")), "x").unwrap();
    std::fs::write(tree.join(":(top)x"), "x").unwrap();
    let files = vec![output.replace('/', "_"), ":(top)x".to_owned()];
    desk.call(GitCommit { path: path(&tree), message: "odd names".into(), files, all: false }).unwrap();
    for remote in [output.as_str(), "--receive-pack=touch x", "ext::sh -c touch% x", &path(folder.path())] {
        let push = GitPush { path: path(&tree), set_upstream: Some(remote.into()) };
        desk.refused(push, ErrorCode::NotFound, &["no remote"]);
    }
    for message in ["", "  \n", &"x".repeat(70_000), "a\0b"] {
        let commit = GitCommit { path: path(&tree), message: message.to_owned(), files: Vec::new(), all: true };
        desk.refused(commit, ErrorCode::Malformed, &["message"]);
    }
    let unknown = GitDiff { path: path(&tree), commit: Some("nosuch".into()), ..GitDiff::default() };
    desk.refused(unknown, ErrorCode::NotFound, &["nosuch"]);
    assert!(!target.exists());
}

#[test]
fn a_repository_outside_is_not_touched_whatever_leads_there() {
    let (home, folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let above = folder.path().canonicalize().unwrap();
    let outside = repository(&above.join("outside"));
    let status = |path: &Path| GitStatus { path: path.display().to_string() };
    desk.refused(status(&outside), ErrorCode::NotPermitted, &["outside"]);
    symlink(&outside, root.join("link")).unwrap();
    desk.refused(status(&root.join("link")), ErrorCode::NotPermitted, &["outside"]);
    // The folder that is open may lie in a repository itself.
    repository(&above);
    desk.refused(status(&root), ErrorCode::NotFound, &["no repository"]);
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    std::fs::write(root.join("elsewhere/.git"), format!("gitdir: {}/.git\n", outside.display())).unwrap();
    desk.refused(status(&root.join("elsewhere")), ErrorCode::NotPermitted, &["outside"]);
    let tree = repository(&root.join("tree"));
    git(&tree, &["config", "core.worktree", outside.to_str().unwrap()]);
    desk.refused(status(&tree), ErrorCode::NotPermitted, &["outside"]);
    desk.refused(status(&root.join("gone")), ErrorCode::NotFound, &["no such"]);
    let bare = root.join("bare");
    git(&root, &["init", "--quiet", "--bare", "bare"]);
    desk.refused(status(&bare), ErrorCode::NotFound, &["working tree"]);
}

/// What a repository names in its settings is run by a look at it, unless that is switched off.
#[test]
fn looking_runs_nothing_that_a_repository_names_and_committing_runs_its_hooks() {
    let (home, folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let tree = repository(&root.join("tree"));
    let ran = folder.path().join("ran");
    let program = folder.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\necho ran >> '{}'\ncat\n", ran.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(tree.join("b"), "b\n").unwrap();
    std::fs::write(tree.join("c"), "c\n").unwrap();
    git(&tree, &["add", "b", "c"]);
    std::fs::write(tree.join("d"), "d\n").unwrap();
    git(&tree, &["add", "d"]);
    // What is below, in a repository of its own, is looked at by `git diff`.
    let inner = repository(&tree.join("inner"));
    git(&tree, &["-c", "advice.addEmbeddedRepo=false", "add", "inner"]);
    git(&inner, &["config", "filter.v.clean", program.to_str().unwrap()]);
    std::fs::write(inner.join(".gitattributes"), "a filter=v\n").unwrap();
    std::fs::write(inner.join("a"), "two\n").unwrap();
    for key in ["core.fsmonitor", "diff.external", "diff.x.textconv", "diff.x.command", "core.pager"] {
        git(&tree, &["config", key, program.to_str().unwrap()]);
    }
    for key in ["filter.y=z.clean", "filter.w.process"] {
        git(&tree, &["config", key, program.to_str().unwrap()]);
    }
    git(&tree, &["config", "filter.w.required", "true"]);
    // Names of settings need not be UTF-8.
    let mut settings = std::fs::OpenOptions::new().append(true).open(tree.join(".git/config")).unwrap();
    settings.write_all(b"[filter \"\xff\"]\n\tclean = ").unwrap();
    settings.write_all(program.to_str().unwrap().as_bytes()).unwrap();
    settings.write_all(b"\n").unwrap();
    std::fs::write(tree.join(".gitattributes"), b"a diff=x\nb filter=y=z\nc filter=w\nd filter=\xff\n").unwrap();
    for file in ["a", "b", "c", "d"] {
        std::fs::write(tree.join(file), "two\n").unwrap();
    }
    hook(&tree, "post-index-change", &format!("echo ran >> '{}'", ran.display()));
    desk.call(GitStatus { path: path(&tree) }).unwrap();
    let patch = desk.call(GitDiff { path: path(&tree), ..GitDiff::default() }).unwrap();
    assert!(patch.text.contains("+two"), "{}", patch.text);
    desk.call(GitDiff { path: path(&tree), commit: Some("HEAD".into()), ..GitDiff::default() }).unwrap();
    desk.call(GitLog { path: path(&tree), ..GitLog::default() }).unwrap();
    assert!(!ran.exists(), "something was run by a look");

    std::fs::write(tree.join(".gitattributes"), "a diff=x\n").unwrap();
    let commit = || GitCommit { path: path(&tree), message: "m".into(), files: Vec::new(), all: true };
    hook(&tree, "pre-commit", "echo 'the tests fail' >&2; exit 1");
    desk.refused(commit(), ErrorCode::Failed, &["did not commit", "the tests fail"]);
    hook(&tree, "pre-commit", &format!("echo hooked > '{}'", ran.display()));
    // Nothing waits for an editor, though the settings name one.
    git(&tree, &["config", "core.editor", "sleep 1000"]);
    git(&tree, &["config", "commit.verbose", "true"]);
    desk.call(commit()).unwrap();
    // And what its settings name, then.
    assert!(std::fs::read_to_string(&ran).unwrap().lines().any(|line| line == "hooked"));
}

#[test]
fn long_lists_and_long_differences_are_cut_and_say_so() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let tree = repository(&root.join("tree"));
    for n in 0..MAX_CHANGES + 5 {
        std::fs::write(tree.join(format!("new {n}")), "").unwrap();
    }
    std::fs::write(tree.join("a"), "\u{1}\"line\"\n".repeat(2 * MAX_DIFF / 7)).unwrap();
    let status = desk.call(GitStatus { path: path(&tree) }).unwrap();
    assert_eq!((status.changes.len(), status.more), (MAX_CHANGES, true));
    let patch = desk.call(GitDiff { path: path(&tree), ..GitDiff::default() }).unwrap();
    assert!(patch.text.len() <= MAX_DIFF && patch.text.len() > MAX_DIFF / 4, "{}", patch.text.len());
    assert!(patch.cut.unwrap().contains("fewer files"));
    let script = "for n in $(seq 150); do echo \"commit refs/heads/many
committer A <a@e> $n +0000
data <<END
$n
END
\"; done | git fast-import --quiet";
    let made = Command::new("sh").args(["-c", script]).current_dir(&tree).status().unwrap();
    assert!(made.success());
    let log = GitLog { path: path(&tree), from: Some("many".into()), count: 1_000_000, skip: 0 };
    let log = desk.call(log).unwrap();
    assert_eq!((log.commits.len(), log.more), (GIT_PAGE as usize, true));
    // A repository without a commit has none, which is no error.
    git(&root, &["init", "--quiet", "empty"]);
    let empty = path(&root.join("empty"));
    assert_eq!(desk.call(GitLog { path: empty.clone(), ..GitLog::default() }).unwrap().commits, []);
    assert_eq!(desk.call(GitStatus { path: empty.clone() }).unwrap().head, None);
    desk.refused(GitPush { path: empty, set_upstream: None }, ErrorCode::Conflict, &["no commit"]);
}

/// A server that wants a password: nobody is asked for one, and nothing waits.
#[test]
fn a_push_that_needs_a_password_is_told_so() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let tree = repository(&root.join("tree"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    git(&tree, &["remote", "add", "web", &format!("http://127.0.0.1:{port}/x.git")]);
    let push = |remote: &str| GitPush { path: path(&tree), set_upstream: Some(remote.into()) };
    desk.refused(push("web"), ErrorCode::NotPermitted, &["password", "session"]);
    // One that asks on a terminal finds none, and one that is named in the settings is still the one that is used.
    let asks = root.join("ssh");
    std::fs::write(
        &asks,
        "#!/bin/sh\necho \"$@\" > \"$0.said\"\necho 'me@host: Permission denied (publickey).' >&2\nexit 255\n",
    )
    .unwrap();
    std::fs::set_permissions(&asks, std::fs::Permissions::from_mode(0o755)).unwrap();
    git(&tree, &["config", "core.sshCommand", asks.to_str().unwrap()]);
    git(&tree, &["remote", "add", "ssh", "ssh://me@host/x.git"]);
    desk.refused(push("ssh"), ErrorCode::NotPermitted, &["password", "ssh agent"]);
    assert!(std::fs::read_to_string(root.join("ssh.said")).unwrap().contains("BatchMode=yes"));
    git(&tree, &["remote", "add", "gone", &path(&root.join("no.git"))]);
    desk.refused(push("gone"), ErrorCode::Failed, &["cannot be reached"]);
    // A helper that is named by the address is not run.
    git(&tree, &["remote", "add", "helper", "ext::sh -c 'touch helped' %S"]);
    desk.refused(push("helper"), ErrorCode::Failed, &["not allowed"]);
    assert!(!tree.join("helped").exists());
}

#[test]
fn without_git_it_is_said_that_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::with("PATH", folder.path().to_str().unwrap());
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), serde_json::json!({ "roots": [folder.path()] }).to_string()).unwrap();
    home.start();
    let mut desk = Desk::of(&home);
    desk.refused(GitStatus { path: path(folder.path()) }, ErrorCode::Failed, &["no `git`"]);
}

#[test]
fn a_repository_that_leads_to_another_outside_is_not_opened() {
    let (home, folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let outside = repository(&folder.path().join("outside"));
    let status = |tree: &Path| GitStatus { path: path(tree) };
    git(&outside, &["worktree", "add", "--quiet", &path(&root.join("linked"))]);
    desk.refused(status(&root.join("linked")), ErrorCode::NotPermitted, &["outside"]);
    git(&root, &["clone", "--quiet", "--shared", &path(&outside), &path(&root.join("borrows"))]);
    desk.refused(status(&root.join("borrows")), ErrorCode::NotPermitted, &["outside"]);
    // One whose own files are here, and its objects there.
    let tree = repository(&root.join("tree"));
    desk.call(status(&tree)).unwrap();
    std::fs::write(tree.join(".git/commondir"), path(&outside.join(".git"))).unwrap();
    desk.refused(status(&tree), ErrorCode::NotPermitted, &["outside"]);
    // From one that is open it may borrow, also in a circle.
    let near = repository(&root.join("near"));
    git(&root, &["clone", "--quiet", "--shared", &path(&near), &path(&root.join("clone"))]);
    desk.call(status(&root.join("clone"))).unwrap();
    std::fs::create_dir_all(near.join(".git/objects/info")).unwrap();
    std::fs::write(near.join(".git/objects/info/alternates"), path(&near.join(".git/objects"))).unwrap();
    desk.call(status(&near)).unwrap();

    // Links within it, and a pipe that nobody writes into.
    let linked = repository(&root.join("links"));
    std::fs::remove_dir_all(linked.join(".git/objects")).unwrap();
    symlink(outside.join(".git/objects"), linked.join(".git/objects")).unwrap();
    desk.refused(status(&linked), ErrorCode::NotPermitted, &["symbolic link"]);
    let deep = repository(&root.join("deep"));
    std::fs::remove_file(deep.join(".git/refs/heads/main")).unwrap();
    symlink(outside.join(".git/refs/heads/main"), deep.join(".git/refs/heads/main")).unwrap();
    desk.refused(status(&deep), ErrorCode::NotPermitted, &["symbolic link"]);
    let piped = repository(&root.join("piped"));
    std::fs::create_dir_all(piped.join(".git/objects/info")).unwrap();
    let made = Command::new("mkfifo").arg(piped.join(".git/objects/info/alternates")).status().unwrap();
    assert!(made.success());
    desk.refused(status(&piped), ErrorCode::NotPermitted, &["no list"]);
    // Its settings name a tree that belongs to another one.
    let sent = repository(&root.join("sent"));
    std::fs::create_dir(sent.join("below")).unwrap();
    std::fs::write(sent.join("below/.git"), format!("gitdir: {}", path(&outside.join(".git")))).unwrap();
    git(&sent, &["config", "core.worktree", &path(&sent.join("below"))]);
    desk.refused(status(&sent), ErrorCode::NotPermitted, &["another repository"]);
}
