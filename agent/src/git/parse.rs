//! What git prints for programs.

use crate::files::error::json_length;
use happy_rpc::{GitChange, GitCommitEntry, GitState, MAX_CHANGES};

/// The longest subject of a commit that is told, bytes.
const MAX_SUBJECT: usize = 1024;
/// The most bytes of paths in one answer, as JSON, which has to fit a message.
const MAX_PATHS: usize = 96 * 1024;

/// The format of [`commits`]: fields end with a zero byte, which none of them can hold.
pub const LOG_FORMAT: &str = "--format=tformat:%H%x00%P%x00%an%x00%ae%x00%at%x00%s";

/// Reads `git status --porcelain=v2 --branch -z`.
pub fn status(root: String, out: &[u8]) -> GitState {
    let mut state = GitState {
        root,
        head: None,
        branch: None,
        upstream: None,
        ahead: None,
        behind: None,
        changes: Vec::new(),
        more: false,
    };
    let text = String::from_utf8_lossy(out);
    let (mut records, mut bytes) = (text.split('\0'), 0);
    while let Some(record) = records.next() {
        if let Some(heading) = record.strip_prefix("# ") {
            read_heading(&mut state, heading);
            continue;
        }
        let Some(change) = read_change(record, &mut records) else { continue };
        bytes += json_length(&change.path) + change.from.as_deref().map_or(0, json_length);
        if state.changes.len() >= MAX_CHANGES || bytes > MAX_PATHS {
            state.more = true;
            break;
        }
        state.changes.push(change);
    }
    state
}

fn read_heading(state: &mut GitState, heading: &str) {
    let Some((name, value)) = heading.split_once(' ') else { return };
    match name {
        "branch.oid" if value != "(initial)" => state.head = Some(value.into()),
        "branch.head" if value != "(detached)" => state.branch = Some(value.into()),
        "branch.upstream" => state.upstream = Some(value.into()),
        "branch.ab" => {
            let count = |sign: char| value.split(' ').find_map(|word| word.strip_prefix(sign)?.parse().ok());
            (state.ahead, state.behind) = (count('+'), count('-'));
        }
        _ => {}
    }
}

fn read_change<'a>(record: &'a str, records: &mut impl Iterator<Item = &'a str>) -> Option<GitChange> {
    let (kind, rest) = record.split_once(' ')?;
    // How many fields stand before the path.
    let before = match kind {
        "1" => 7,
        "2" => 8,
        "u" => 9,
        "?" => return Some(GitChange { path: rest.into(), from: None, staged: '?', unstaged: '?' }),
        _ => return None,
    };
    let path = rest.splitn(before + 1, ' ').nth(before)?;
    let mut letters = rest.chars();
    let (staged, unstaged) = (letters.next()?, letters.next()?);
    // The old name is a record of its own.
    let from = if kind == "2" { records.next().map(str::to_owned) } else { None };
    Some(GitChange { path: path.into(), from, staged, unstaged })
}

/// Reads `git log -z` with [`LOG_FORMAT`].
pub fn commits(out: &[u8]) -> Vec<GitCommitEntry> {
    let text = String::from_utf8_lossy(out);
    let fields: Vec<&str> = text.split('\0').collect();
    let whole = fields.chunks_exact(6).map(|fields| {
        let mut subject = fields[5].to_owned();
        subject.truncate(subject.floor_char_boundary(MAX_SUBJECT));
        GitCommitEntry {
            commit: fields[0].into(),
            parents: fields[1].split(' ').filter(|parent| !parent.is_empty()).map(str::to_owned).collect(),
            author: fields[2].into(),
            email: fields[3].into(),
            at: fields[4].parse::<u64>().unwrap_or_default().saturating_mul(1000),
            subject,
        }
    });
    whole.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_with_its_odd_names() {
        let out = b"# branch.oid 1234\0# branch.head main\0# branch.upstream origin/main\0# branch.ab +2 -1\0\
            1 .M N... 100644 100644 100644 aaaa bbbb a file\nof two lines\0\
            2 R. N... 100644 100644 100644 aaaa bbbb R100 new name\0old name\0\
            u UU N... 100644 100644 100644 100644 aaaa bbbb cccc torn\0? -n\0! ignored\0";
        let state = status("/r".into(), out);
        assert_eq!((state.head.as_deref(), state.branch.as_deref()), (Some("1234"), Some("main")));
        assert_eq!((state.upstream.as_deref(), state.ahead, state.behind), (Some("origin/main"), Some(2), Some(1)));
        let change = |path: &str, from: Option<&str>, staged, unstaged| GitChange {
            path: path.into(),
            from: from.map(str::to_owned),
            staged,
            unstaged,
        };
        assert_eq!(
            state.changes,
            [
                change("a file\nof two lines", None, '.', 'M'),
                change("new name", Some("old name"), 'R', '.'),
                change("torn", None, 'U', 'U'),
                change("-n", None, '?', '?'),
            ]
        );
        assert!(!state.more);
    }

    #[test]
    fn a_status_is_cut_and_nonsense_is_no_change() {
        let many: Vec<u8> = (0..MAX_CHANGES + 1).flat_map(|n| format!("? {n}\0").into_bytes()).collect();
        let state = status(String::new(), &many);
        assert_eq!((state.changes.len(), state.more), (MAX_CHANGES, true));
        let state = status(String::new(), b"1 \0x\0# \0\0\xff\x001 MM N...\0# branch.oid (initial)\0");
        assert_eq!((state.changes, state.head), (Vec::new(), None));
    }

    #[test]
    fn commits_are_read() {
        let out = "h1\0p1 p2\0Ä\0a@x\x001700000000\0subject | with \x1f\0h2\0\0b\0\0-5\0\0";
        let commits = commits(out.as_bytes());
        assert_eq!(commits.len(), 2);
        assert_eq!((commits[0].parents.len(), commits[0].at), (2, 1_700_000_000_000));
        assert_eq!(commits[0].subject, "subject | with \x1f");
        assert_eq!((commits[1].parents.len(), commits[1].at), (0, 0));
    }
}
