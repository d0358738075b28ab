//! How this machine and its sessions are: one snapshot, for the call `metrics.get`, the local API and the command line. Nothing is sampled
//! while nobody asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use happy_rpc::{
    ErrorCount, MAX_METRICS, Metrics, MetricsTotal, RelayHealth, Session, SessionMetrics, SessionState, SessionStatus,
};
use uuid::Uuid;

use crate::daemon::Daemon;
use crate::daemon::local::RelayStatus;
use crate::daemon::processes::{Processes, Table};
use crate::store::unix_ms;

/// A session that has printed nothing for so long is idle, milliseconds.
const IDLE_AFTER: u64 = 5_000;
/// A session that has printed nothing is beginning for so long, milliseconds.
const BEGINS_FOR: u64 = 10_000;

/// What is kept from one snapshot to the next.
#[derive(Default)]
pub struct Sampler {
    processes: Processes,
    /// How much each session had printed, and since when it was so much, Unix milliseconds.
    printed: Mutex<HashMap<Uuid, (u64, u64)>>,
}

impl Sampler {
    /// Since when each session is where it is now. One that is seen for the first time counts as printing.
    fn quiet_since(&self, sessions: &[Session], now: u64) -> HashMap<Uuid, u64> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *printed);
        for session in sessions {
            let since = match before.get(&session.id) {
                Some((offset, since)) if *offset == session.output_offset => (*since).min(now),
                _ => now,
            };
            printed.insert(session.id, (session.output_offset, since));
        }
        printed.iter().map(|(id, (_, since))| (*id, *since)).collect()
    }
}

impl Daemon {
    /// How this machine and its sessions are now, as much as fits into an answer.
    pub async fn metrics(self: &Arc<Self>) -> Metrics {
        let mut metrics = self.sample().await;
        let left_out = metrics.sessions.len().saturating_sub(MAX_METRICS);
        metrics.sessions.drain(..left_out);
        Metrics { left_out: left_out as u32, ..metrics }
    }

    /// The same with all sessions.
    pub async fn sample(self: &Arc<Self>) -> Metrics {
        let sessions = self.sessions().list().await;
        let typed = self.sessions().bytes_in();
        let table = self.sampler().processes.look().await;
        let now = unix_ms();
        let quiet = self.sampler().quiet_since(&sessions, now);
        let of_session = |session: &Session| {
            let quiet_since = quiet.get(&session.id).copied().unwrap_or(now);
            let bytes_in = typed.get(&session.id).copied().unwrap_or_default();
            SessionMetrics { bytes_in, ..of_session(session, &table, quiet_since, now) }
        };
        let all: Vec<_> = sessions.iter().map(of_session).collect();
        Metrics {
            at: now,
            started_at: self.started_at(),
            total: total(&sessions, &all),
            sessions: all,
            left_out: 0,
            relays: self.relays().into_iter().map(health).collect(),
            errors: self.errors(),
            recoveries: self.incidents().recoveries(),
        }
    }

    /// What went wrong since the daemon started, each kind once, the one that came last at the end.
    pub fn errors(&self) -> Vec<ErrorCount> {
        let mut errors = self.incidents().errors();
        errors.extend(self.auditor().errors());
        errors.sort_by_key(|error| error.last_at);
        errors
    }
}

fn of_session(session: &Session, table: &Table, quiet_since: u64, now: u64) -> SessionMetrics {
    let stopped = session.pid.is_some_and(|pid| table.is_stopped(pid));
    SessionMetrics {
        session: session.id,
        status: status(session, stopped, quiet_since, now),
        bytes_in: 0,
        bytes_out: session.output_offset,
        viewers: session.viewers,
        progress: session.progress,
        usage: session.pid.and_then(|pid| table.usage(pid)),
    }
}

/// What a session does. That it waits for a person is found by others, who look at its screen.
fn status(session: &Session, stopped: bool, quiet_since: u64, now: u64) -> SessionStatus {
    match session.state {
        SessionState::Exited { code: 0 } => SessionStatus::Exited,
        // However it ended, somebody wanted it to.
        SessionState::Exited { .. } | SessionState::Killed { .. } if session.told_to_end => SessionStatus::Exited,
        SessionState::Exited { .. } | SessionState::Killed { .. } | SessionState::Lost => SessionStatus::Error,
        SessionState::Running if stopped => SessionStatus::Paused,
        SessionState::Running if session.prompt.is_some() => SessionStatus::Waiting,
        SessionState::Running if session.output_offset == 0 && now.saturating_sub(session.created_at) < BEGINS_FOR => {
            SessionStatus::Initializing
        }
        SessionState::Running if now.saturating_sub(quiet_since) >= IDLE_AFTER => SessionStatus::Idle,
        SessionState::Running => SessionStatus::Running,
    }
}

fn total(sessions: &[Session], all: &[SessionMetrics]) -> MetricsTotal {
    let mut total = MetricsTotal { sessions: sessions.len() as u32, ..MetricsTotal::default() };
    for (session, metrics) in sessions.iter().zip(all) {
        total.running += u32::from(session.state == SessionState::Running);
        total.failed += u32::from(metrics.status == SessionStatus::Error);
        total.bytes_in = total.bytes_in.saturating_add(metrics.bytes_in);
        total.bytes_out = total.bytes_out.saturating_add(metrics.bytes_out);
        total.viewers = total.viewers.saturating_add(metrics.viewers);
        let usage = metrics.usage.unwrap_or_default();
        total.cpu_ms = total.cpu_ms.saturating_add(usage.cpu_ms);
        total.memory = total.memory.saturating_add(usage.memory);
    }
    total
}

fn health(relay: RelayStatus) -> RelayHealth {
    RelayHealth {
        origin: relay.origin,
        breaker: relay.breaker,
        failures: relay.failures,
        trouble: relay.trouble,
        next_at: relay.next_at,
        pause_ms: relay.pause_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(state: SessionState, output_offset: u64) -> Session {
        let text = serde_json::json!({
            "id": Uuid::nil(), "name": "x", "title": "", "command": ["x"], "cwd": "/", "pid": 1, "cols": 80, "rows": 24,
            "viewers": 0, "controller": null, "created_at": 1_000, "output_offset": output_offset, "state": "running"
        });
        Session { state, ..serde_json::from_value(text).unwrap() }
    }

    #[test]
    fn each_status_has_its_reason() {
        use SessionStatus::{Error, Exited, Idle, Initializing, Paused, Running};
        let running = SessionState::Running;
        for (state, printed, stopped, quiet, now, wanted) in [
            (running, 0, false, 2_000, 2_000, Initializing),
            (running, 0, false, 2_000, 20_000, Idle),
            (running, 9, false, 2_000, 6_999, Running),
            (running, 9, false, 2_000, 7_000, Idle),
            (running, 9, true, 2_000, 7_000, Paused),
            (SessionState::Exited { code: 0 }, 9, false, 0, 9_000, Exited),
            (SessionState::Exited { code: 1 }, 9, false, 0, 9_000, Error),
            (SessionState::Killed { signal: 9 }, 9, false, 0, 9_000, Error),
            (SessionState::Lost, 9, false, 0, 9_000, Error),
            // A clock that went back makes nobody idle.
            (running, 9, false, 7_000, 2_000, Running),
        ] {
            assert_eq!(status(&session(state, printed), stopped, quiet, now), wanted, "{state:?} {printed} {now}");
        }
        let asks = Session { prompt: Some(Uuid::nil()), ..session(running, 9) };
        assert_eq!(status(&asks, false, 2_000, 7_000), SessionStatus::Waiting);
        assert_eq!(status(&asks, true, 2_000, 7_000), Paused);
    }

    #[test]
    fn a_session_that_prints_is_not_quiet_and_those_that_are_gone_are_forgotten() {
        let sampler = Sampler::default();
        let at = |printed, now| sampler.quiet_since(&[session(SessionState::Running, printed)], now)[&Uuid::nil()];
        assert_eq!([at(5, 1_000), at(5, 9_000), at(6, 10_000), at(6, 30_000)], [1_000, 1_000, 10_000, 10_000]);
        sampler.quiet_since(&[], 31_000);
        assert!(sampler.printed.lock().unwrap().is_empty());
    }
}
