//! File descriptors: each device takes one, and how many there may be is known from the start.

use crate::cli::Serve;

/// Those that are no device's: the listener, logs, Redis, files.
const SPARE: u64 = 64;
/// The most that there is made room for ahead of time, which takes 8 bytes of the kernel each. It is also the most that a process may have
/// as Linux comes (`fs.nr_open`).
const MOST_AHEAD: u64 = 1 << 20;

/// How many a relay with these settings may need.
pub(crate) fn wanted(serve: &Serve) -> u64 {
    u64::from(serve.max_connections) + u64::from(serve.max_unproven) + SPARE
}

/// How many this process may have, if there is a limit. That is the hard one: [`make_room`] takes what is granted to whoever asks.
#[cfg(unix)]
pub(crate) fn granted() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum
}

#[cfg(not(unix))]
pub(crate) fn granted() -> Option<u64> {
    None
}

/// Takes as many as are wanted, or as the system grants, and has the kernel make its table of them as large as it will ever be.
///
/// Left to itself the table doubles whenever it is full, and in a process of several threads the one that opens the next descriptor then waits until
/// every processor has passed through the scheduler (`expand_fdtable` in Linux): 10 to 70 ms, in which none of its devices is served, and seven times
/// while 10,000 devices come. So this is called before there are threads.
#[cfg(unix)]
pub(crate) fn make_room(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|soft| soft < wanted) {
        let raised = Rlimit { current: Some(limit.maximum.map_or(wanted, |hard| hard.min(wanted))), ..limit };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::warn!(%error, wanted, "the limit of descriptors stays as it was"),
        }
    }
    let room = limit.current.map_or(wanted, |soft| soft.min(wanted)).min(MOST_AHEAD);
    if let Err(error) = reach(room) {
        tracing::debug!(%error, room, "the table of descriptors grows as devices come");
    }
}

#[cfg(not(unix))]
pub(crate) fn make_room(_wanted: u64) {}

/// Opens the last of so many descriptors for a moment; the table keeps its size.
#[cfg(unix)]
fn reach(room: u64) -> std::io::Result<()> {
    let last = i32::try_from(room.saturating_sub(1)).map_err(std::io::Error::other)?;
    let any = std::fs::File::open("/dev/null")?;
    rustix::io::fcntl_dupfd_cloexec(&any, last)?;
    Ok(())
}
