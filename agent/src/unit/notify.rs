//! What a running daemon tells the service manager that started it: that it is ready, how it is, that it is alive, that it ends
//! (sd_notify(3)). Without `NOTIFY_SOCKET` nothing is told and nothing is woken.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::daemon::Daemon;

/// A manager that does not take a message for so long is left alone.
const PATIENCE: Duration = Duration::from_secs(2);
/// The status line follows what happens no closer than this.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// The longest status line.
const MAX_STATUS: usize = 200;

/// What of the environment is between the manager and the daemon, and not for programs in sessions: with it they could speak in its
/// name, or take themselves for a service.
pub const PRIVATE: &[&str] = &[
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "MANAGERPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Whether a manager wants to be told.
fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// The daemon serves.
pub async fn ready(daemon: &Daemon) {
    let status = status(daemon).await;
    tell(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])).await;
}

/// The daemon ends.
pub async fn stopping() {
    tell(|| sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("says goodbye; sessions go on")])).await;
}

/// Gives signs of life and the status line for as long as the daemon runs; for ever, so that it can stand beside what ends it.
pub async fn run(daemon: Arc<Daemon>) {
    if !is_wanted() {
        return std::future::pending().await;
    }
    let watched = sd_notify::watchdog_enabled().filter(|period| !period.is_zero());
    let checked = daemon.clone();
    let alive = async {
        match watched {
            Some(period) => watch(period, || is_well(checked.clone()), alive).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(alive, follow(&daemon));
}

/// Twice in each period: looks whether the daemon is well and says so. While the look does not come back, nothing is said.
async fn watch<L, S>(period: Duration, look: impl Fn() -> L, say: impl Fn() -> S)
where
    L: Future<Output = bool>,
    S: Future<Output = ()>,
{
    let mut ticks = interval_at(Instant::now(), period / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if look().await {
            say().await;
        }
    }
}

async fn alive() {
    tell(|| sd_notify::notify(&[NotifyState::Watchdog])).await;
}

/// Whether everything that a call or a packet needs can be had. Whoever holds one of the locks for ever holds up this too.
async fn is_well(daemon: Arc<Daemon>) -> bool {
    tokio::task::spawn_blocking(move || daemon.is_well()).await.unwrap_or(false)
}

/// Tells the status line when something has happened and it is another one.
async fn follow(daemon: &Daemon) {
    let mut events = daemon.subscribe_local();
    let mut said = String::new();
    loop {
        let now = status(daemon).await;
        if now != said {
            said.clone_from(&now);
            tell(move || sd_notify::notify(&[NotifyState::Status(&now)])).await;
        }
        if let Err(RecvError::Closed) = events.recv().await {
            return std::future::pending().await;
        }
        // A session that prints its title a hundred times a second is one line here.
        sleep_until(Instant::now() + STATUS_PAUSE).await;
        events = events.resubscribe();
    }
}

async fn status(daemon: &Daemon) -> String {
    let sessions = daemon.sessions().known();
    let running = sessions.iter().filter(|session| session.state == happy_rpc::SessionState::Running).count();
    let relay = match daemon.network().home_trouble() {
        None => "connected to the relay".to_owned(),
        Some(why) => format!("no relay: {why}"),
    };
    let mut line = format!("{running} sessions, {} devices connected, {relay}", daemon.network().links_up().len());
    // Some of the words may be a relay's own: a line of ours has one line.
    line.retain(|c| !c.is_control());
    line.truncate(line.floor_char_boundary(MAX_STATUS));
    line
}

async fn tell(say: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    if !is_wanted() {
        return;
    }
    match timeout(PATIENCE, tokio::task::spawn_blocking(say)).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "the service manager was not told"),
        Ok(Err(_)) | Err(_) => tracing::warn!("the service manager does not take what it is told"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn signs_of_life_are_given_while_the_daemon_is_well_and_never_while_it_hangs() {
        let (given, mut signs) = tokio::sync::mpsc::unbounded_channel();
        let say = || async { given.send(()).unwrap() };
        let period = Duration::from_millis(20);
        tokio::select! {
            () = watch(period, || async { true }, say) => {}
            () = async { for _ in 0..4 { signs.recv().await.unwrap() } } => {}
        }
        while signs.try_recv().is_ok() {}
        let looked = AtomicUsize::new(0);
        let hangs = || {
            looked.fetch_add(1, Ordering::Relaxed);
            std::future::pending()
        };
        let _ = timeout(period * 10, watch(period, hangs, say)).await;
        let unwell = || {
            looked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(false)
        };
        let _ = timeout(period * 10, watch(period, unwell, say)).await;
        assert!(signs.try_recv().is_err() && looked.load(Ordering::Relaxed) >= 2);
    }
}
