//! What the file system says, in sentences that say what to do.

use std::io;

use happy_rpc::{CallError, ErrorCode};
use rustix::io::Errno;

/// A refusal about a path.
pub fn refuse(code: ErrorCode, path: &str, what: &str) -> CallError {
    CallError::new(code, format!("`{}`: {what}", shown(path)))
}

/// What an error means for whoever wanted to `verb` the path.
pub fn said(verb: &str, path: &str, error: &io::Error) -> CallError {
    let errno = Errno::from_io_error(error);
    let (code, what) = match errno {
        Some(Errno::NOENT) => (ErrorCode::NotFound, "there is no such file or folder".to_owned()),
        Some(Errno::NOTDIR) => (ErrorCode::NotFound, "a part of the path is no folder".to_owned()),
        Some(Errno::ACCESS | Errno::PERM) => (
            ErrorCode::NotPermitted,
            format!("the user of this machine may not {verb} it; see its permissions with `ls -l`"),
        ),
        Some(Errno::ROFS) => {
            (ErrorCode::NotPermitted, "it lies on a disk that can only be read; write somewhere else".to_owned())
        }
        Some(Errno::NOSPC) => {
            (ErrorCode::Failed, "the disk is full, and the file is as it was; free some space and try again".to_owned())
        }
        Some(Errno::DQUOT) => (
            ErrorCode::Failed,
            "the disk quota is used up, and the file is as it was; free some space and try again".to_owned(),
        ),
        Some(Errno::FBIG) => (
            ErrorCode::TooMany,
            "it is larger than the machine lets a file be (`ulimit -f`); the file is as it was".to_owned(),
        ),
        Some(Errno::LOOP) => {
            (ErrorCode::NotPermitted, "it is a symbolic link that leads nowhere good; name what it leads to".to_owned())
        }
        Some(Errno::NAMETOOLONG) => (ErrorCode::Malformed, "the name is too long for this disk".to_owned()),
        Some(Errno::MFILE | Errno::NFILE) => {
            (ErrorCode::Busy, "the machine has no more files to open; try again in a moment".to_owned())
        }
        Some(Errno::XDEV) => (ErrorCode::NotPermitted, OUTSIDE.to_owned()),
        // How cap-std says that a path or link led out.
        None if error.kind() == io::ErrorKind::PermissionDenied => (ErrorCode::NotPermitted, OUTSIDE.to_owned()),
        _ => (ErrorCode::Failed, format!("the machine cannot {verb} it: {}", crate::trouble::reason(error))),
    };
    refuse(code, path, &what)
}

/// Said of everything outside of the folders that are open.
pub const OUTSIDE: &str = "it lies outside of the folders that are open here; `file.list` without a path names them, and `roots` in \
                           settings.json of the machine opens others";

/// How many bytes a text takes in JSON, at most: answers have a bound, and names may hold anything.
pub fn json_length(text: &str) -> usize {
    let length = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    text.chars().map(length).sum()
}

/// A path in a sentence: not too long, and unable to steer a terminal.
pub fn shown(path: &str) -> String {
    const LONGEST: usize = 200;
    let mut out: String = path.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if out.len() > LONGEST {
        out.truncate(out.floor_char_boundary(LONGEST));
        out.push('…');
    }
    out
}
