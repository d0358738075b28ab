//! Whether a process runs inside of a session of ours (`docs/LOCAL.md`, Who calls).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::holder::processes::facts;
use crate::store::{HOME_VARIABLE, USUAL_HOME};

/// How far up it is looked.
const MAX_DEPTH: usize = 256;
/// The most bytes of an environment that are looked at.
const MAX_ENVIRONMENT: u64 = 1024 * 1024;

/// The one of these sessions and their programs that a process runs in. Told by three things, each of which a program can change of itself
/// and would have to: who has started it, which terminal session it belongs to, and the session's name in the environment it was started with. No id of a
/// session (nil) for what descends from this daemon and from none of these programs, and for what a session of this home has left behind.
pub(super) fn session_around(pid: i32, programs: &[(Uuid, i32)], home: &Path) -> Option<Uuid> {
    let program = |pid: i32| programs.iter().find(|(_, program)| *program == pid).map(|(session, _)| *session);
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut at = pid;
    for _ in 0..MAX_DEPTH {
        if let Some(session) = program(at) {
            return Some(session);
        }
        match facts(at) {
            // A session that is just being made, and is not on the list yet, or what git or a login shell runs for this daemon.
            Some(facts) if facts.parent == own => return Some(Uuid::nil()),
            Some(facts) if facts.parent > 1 => at = facts.parent,
            // It is gone already, and what speaks in its place cannot be told.
            None if at == pid && is_our_proc() => return Some(Uuid::nil()),
            _ => break,
        }
    }
    // Zero for one whose leader is outside of this container, which rustix does not bear.
    let leader = nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).ok();
    leader.and_then(|leader| program(leader.as_raw())).or_else(|| named(pid, programs, home))
}

/// Whether `/proc` has the numbers of processes that we know them by: in a container it may be that of the system around it.
fn is_our_proc() -> bool {
    let own = std::process::id().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|name| name == Path::new(&own))
}

/// The session that the environment names. One that has ended is one too, if it was of this home.
fn named(pid: i32, programs: &[(Uuid, i32)], home: &Path) -> Option<Uuid> {
    use std::io::Read;
    if !cfg!(target_os = "linux") {
        return None;
    }
    let mut environment = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    file.take(MAX_ENVIRONMENT).read_to_end(&mut environment).ok()?;
    let value = |name: &[u8]| {
        let entries = environment.split(|byte| *byte == 0);
        entries.filter_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"=")).next()
    };
    let session = Uuid::try_parse_ascii(value(b"HAPPY_SESSION")?).ok()?;
    if programs.iter().any(|(known, _)| *known == session) {
        return Some(session);
    }
    let path = |value: &[u8]| PathBuf::from(OsStr::from_bytes(value));
    let named = value(HOME_VARIABLE.as_bytes()).map(path);
    let its_home = named.or_else(|| value(b"HOME").map(|user| path(user).join(USUAL_HOME)))?;
    let is_ours = its_home == home || its_home.canonicalize().is_ok_and(|its_home| its_home == home);
    is_ours.then(Uuid::nil)
}
