//! What the system tells of other processes. Only Linux tells it without more rights or unsafe code; elsewhere nothing is known.

use rustix::process::Pid;

/// What is told of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Who has started it, or who has taken it on since.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session, by the process that leads it.
    pub session: i32,
    /// A signal has stopped it.
    pub is_stopped: bool,
}

/// What is told of a process; `None` when it is gone or nothing is told here.
pub fn facts(pid: i32) -> Option<Facts> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything, brackets too.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    Some(Facts { parent, group, session, is_stopped: matches!(state, "T" | "t" | "Z" | "X") })
}

/// Whether a process is stopped; `None` when nothing is told here.
pub fn is_stopped(pid: u32) -> Option<bool> {
    facts(i32::try_from(pid).ok()?).map(|facts| facts.is_stopped)
}

/// The process groups of a session, and whether every process of each is stopped; `None` when nothing is told here.
pub fn groups_of_session(leader: Pid) -> Option<Vec<(Pid, bool)>> {
    let mut groups = std::collections::BTreeMap::new();
    facts(leader.as_raw_nonzero().get())?;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Some(facts) = facts(pid).filter(|facts| facts.session == leader.as_raw_nonzero().get()) else { continue };
        *groups.entry(facts.group).or_insert(true) &= facts.is_stopped;
    }
    Some(groups.into_iter().filter_map(|(group, is_stopped)| Some((Pid::from_raw(group)?, is_stopped))).collect())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A process that leads a session of its own. That of the test may lie outside of what `/proc` shows here, as in a container.
    struct Leader(std::process::Child);

    impl Drop for Leader {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_is_known_by_parent_group_and_session() {
        let leader = Leader(std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap());
        let pid = i32::try_from(leader.0.id()).unwrap();
        let began = std::time::Instant::now();
        let known = loop {
            let known = facts(pid).unwrap();
            if known.session == pid {
                break known;
            }
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{known:?}");
            std::thread::yield_now();
        };
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(known, Facts { parent: own, group: pid, session: pid, is_stopped: false });
        let (group, stop) = (Pid::from_raw(pid).unwrap(), rustix::process::Signal::STOP);
        assert_eq!(groups_of_session(group), Some(vec![(group, false)]));
        rustix::process::kill_process(group, stop).unwrap();
        while is_stopped(leader.0.id()) != Some(true) {
            assert!(began.elapsed() < std::time::Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert_eq!(groups_of_session(group), Some(vec![(group, true)]));
    }

    #[test]
    fn of_a_process_that_is_not_there_nothing_is_known() {
        assert_eq!(facts(i32::MAX), None);
        assert_eq!(groups_of_session(Pid::from_raw(i32::MAX).unwrap()), None);
    }
}
