//! `/metrics`, as Prometheus reads it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use axum::http::StatusCode;
use happy_rpc::{Breaker, Metrics, SessionMetrics, SessionStatus};

use crate::api::Api;
use crate::daemon::Daemon;

/// What the API counts of itself.
#[derive(Default)]
pub struct Figures {
    /// By the first digit of the status, from 1.
    answers: [AtomicU64; 5],
    unauthorized: AtomicU64,
}

impl Figures {
    /// A request was answered.
    pub fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[class - 1].fetch_add(1, Relaxed);
    }

    /// Somebody came without the token, or with a wrong one.
    pub fn unauthorized(&self) {
        self.unauthorized.fetch_add(1, Relaxed);
    }
}

/// Sessions with figures of their own, the newest: each is a few series, which whoever stores them keeps for long. The sums are of all.
const MAX_SERIES: usize = 256;
/// Devices and machines whose links are told one by one.
const MAX_LINKS: usize = 256;

/// The text of `/metrics`. Labels are ids and fixed words: a name, a command or a folder of somebody has no place in them.
pub async fn render(api: &Api) -> String {
    let (daemon, mut page) = (&api.daemon, Page::default());
    let metrics = daemon.sample().await;
    page.gauge("happy_build_info", "The version of the daemon.");
    page.value("happy_build_info", &[("version", crate::VERSION)], 1);
    page.gauge("happy_start_time_seconds", "When the daemon started, Unix seconds.");
    page.value("happy_start_time_seconds", &[], daemon.started_at() / 1000);

    sums(&mut page, &metrics);
    page.gauge("happy_prompts", "Questions that wait for somebody.");
    page.value("happy_prompts", &[], daemon.sessions().prompts_waiting() as u64);
    each_session(&mut page, &metrics.sessions);
    relays(&mut page, &metrics);
    links(&mut page, daemon);

    let totals = daemon.incidents().totals();
    let (unwritten, left_out) = daemon.auditor().missed();
    page.counter("happy_errors_total", "What went wrong: attempts to reach a relay that failed and the like.");
    page.value("happy_errors_total", &[], totals.errors);
    page.counter("happy_recoveries_total", "What the daemon did about what went wrong.");
    page.value("happy_recoveries_total", &[], totals.recoveries);
    page.counter("happy_audit_missed_total", "Calls that are not in the audit log, by why.");
    page.value("happy_audit_missed_total", &[("why", "not_written")], unwritten);
    page.value("happy_audit_missed_total", &[("why", "too_many")], left_out);

    let (strangers, proven) = api.places.taken();
    page.gauge("happy_api_connections", "Connections of the local API, by whether they have shown the token.");
    page.value("happy_api_connections", &[("token", "shown")], proven as u64);
    page.value("happy_api_connections", &[("token", "not_shown")], strangers as u64);
    page.counter("happy_api_answers_total", "Answers of the local API, by the first digit of their status.");
    for (class, answers) in ["1xx", "2xx", "3xx", "4xx", "5xx"].iter().zip(&api.figures.answers) {
        page.value("happy_api_answers_total", &[("status", class)], answers.load(Relaxed));
    }
    page.counter("happy_api_unauthorized_total", "Requests without the token, or with a wrong one.");
    page.value("happy_api_unauthorized_total", &[], api.figures.unauthorized.load(Relaxed));
    page.0
}

/// Every status, as labels say it.
const STATUSES: [(SessionStatus, &str); 7] = [
    (SessionStatus::Initializing, "initializing"),
    (SessionStatus::Running, "running"),
    (SessionStatus::Idle, "idle"),
    (SessionStatus::Waiting, "waiting"),
    (SessionStatus::Paused, "paused"),
    (SessionStatus::Error, "error"),
    (SessionStatus::Exited, "exited"),
];

/// Sums over the sessions on the list. They fall when one is taken off it, so none of them is a counter.
fn sums(page: &mut Page, metrics: &Metrics) {
    let total = &metrics.total;
    page.gauge("happy_sessions", "Sessions on the list, by status.");
    for (status, word) in STATUSES {
        let number = metrics.sessions.iter().filter(|session| session.status == status).count();
        page.value("happy_sessions", &[("status", word)], number as u64);
    }
    page.gauge("happy_sessions_input_bytes", "What was typed into the sessions on the list.");
    page.value("happy_sessions_input_bytes", &[], total.bytes_in);
    page.gauge("happy_sessions_output_bytes", "What the sessions on the list have printed.");
    page.value("happy_sessions_output_bytes", &[], total.bytes_out);
    page.gauge("happy_sessions_viewers", "How many look at sessions.");
    page.value("happy_sessions_viewers", &[], total.viewers.into());
    page.gauge("happy_sessions_cpu_seconds", "Processor time of the programs that run, and of all below them.");
    page.millis("happy_sessions_cpu_seconds", &[], total.cpu_ms);
    page.gauge("happy_sessions_memory_bytes", "Resident memory of the same; what they share counts for each.");
    page.value("happy_sessions_memory_bytes", &[], total.memory);
}

fn each_session(page: &mut Page, sessions: &[SessionMetrics]) {
    let shown: Vec<_> = sessions[sessions.len().saturating_sub(MAX_SERIES)..]
        .iter()
        .map(|session| (session, session.session.to_string()))
        .collect();
    page.gauge("happy_sessions_left_out", "Older sessions that are counted above and have no figures below.");
    page.value("happy_sessions_left_out", &[], (sessions.len() - shown.len()) as u64);
    page.gauge("happy_session_status", "What a session does: its series has the value 1.");
    for (session, id) in &shown {
        let word = STATUSES.iter().find(|(status, _)| *status == session.status).map_or("", |(_, word)| word);
        page.value("happy_session_status", &[("session", id), ("status", word)], 1);
    }
    page.gauge("happy_session_input_bytes", "What was typed into a session in all.");
    for (session, id) in &shown {
        page.value("happy_session_input_bytes", &[("session", id)], session.bytes_in);
    }
    page.gauge("happy_session_output_bytes", "What the program of a session has printed in all.");
    for (session, id) in &shown {
        page.value("happy_session_output_bytes", &[("session", id)], session.bytes_out);
    }
    page.gauge("happy_session_viewers", "How many look at a session.");
    for (session, id) in &shown {
        page.value("happy_session_viewers", &[("session", id)], session.viewers.into());
    }
    page.gauge("happy_session_progress_percent", "How far the program of a session says it is.");
    for (session, id) in &shown {
        if let Some(percent) = session.progress.and_then(|progress| progress.percent) {
            page.value("happy_session_progress_percent", &[("session", id)], percent.into());
        }
    }
    let used = || shown.iter().filter_map(|(session, id)| Some((session.usage?, id)));
    page.gauge("happy_session_cpu_seconds", "Processor time of a session's program and of all below it.");
    used().for_each(|(usage, id)| page.millis("happy_session_cpu_seconds", &[("session", id)], usage.cpu_ms));
    page.gauge("happy_session_memory_bytes", "Resident memory of the same; what they share counts for each.");
    used().for_each(|(usage, id)| page.value("happy_session_memory_bytes", &[("session", id)], usage.memory));
}

fn relays(page: &mut Page, metrics: &Metrics) {
    page.gauge("happy_relay_up", "Whether this machine is logged in at a relay.");
    for relay in &metrics.relays {
        page.value("happy_relay_up", &[("relay", &relay.origin)], u64::from(relay.breaker == Breaker::Closed));
    }
    page.gauge(
        "happy_relay_breaker",
        "The circuit breaker in front of a relay: the series of its state has the value 1.",
    );
    for relay in &metrics.relays {
        for (state, word) in [(Breaker::Closed, "closed"), (Breaker::HalfOpen, "half_open"), (Breaker::Open, "open")] {
            let is = u64::from(relay.breaker == state);
            page.value("happy_relay_breaker", &[("relay", &relay.origin), ("state", word)], is);
        }
    }
    page.gauge("happy_relay_failed_attempts", "Attempts to reach a relay that have failed in a row.");
    for relay in &metrics.relays {
        page.value("happy_relay_failed_attempts", &[("relay", &relay.origin)], relay.failures.into());
    }
    page.gauge("happy_relay_pause_seconds", "The pause before the next attempt, while one is waited for.");
    for relay in &metrics.relays {
        if let Some(pause) = relay.pause_ms {
            page.millis("happy_relay_pause_seconds", &[("relay", &relay.origin)], pause);
        }
    }
    page.gauge(
        "happy_relay_next_attempt_seconds",
        "When the next attempt begins, Unix seconds, while it is waited for.",
    );
    for relay in &metrics.relays {
        if let Some(at) = relay.next_at {
            page.millis("happy_relay_next_attempt_seconds", &[("relay", &relay.origin)], at);
        }
    }
}

fn links(page: &mut Page, daemon: &Daemon) {
    let up = daemon.network().links_up();
    page.gauge("happy_links_up", "Devices with a link that is up.");
    page.value("happy_links_up", &[], up.len() as u64);
    page.gauge("happy_link_up", "Whether the link to a device or a machine is up.");
    let peers = daemon.roster().peers();
    for peer in peers.iter().take(MAX_LINKS) {
        page.value("happy_link_up", &[("device", &peer.device.to_string())], up.contains(&peer.device).into());
    }
}

/// A page in the text format of Prometheus.
#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str) {
        // Writing to a string does not fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    fn counter(&mut self, name: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} counter");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.put(name, labels, format_args!("{value}"));
    }

    /// A time in milliseconds, as seconds.
    fn millis(&mut self, name: &str, labels: &[(&str, &str)], millis: u64) {
        self.put(name, labels, format_args!("{}.{:03}", millis / 1000, millis % 1000));
    }

    fn put(&mut self, name: &str, labels: &[(&str, &str)], value: std::fmt::Arguments<'_>) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if n == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_sessions_the_newest_have_series_and_the_sums_count_all() {
        let session = |n: u128| SessionMetrics {
            session: uuid::Uuid::from_u128(n),
            status: SessionStatus::Idle,
            bytes_in: 1,
            bytes_out: 2,
            viewers: 0,
            progress: None,
            usage: Some(happy_rpc::Usage { cpu_ms: 1_050, memory: 3, processes: 1 }),
        };
        let sessions: Vec<_> = (0..1_000).map(session).collect();
        let mut page = Page::default();
        let metrics = Metrics { sessions, ..Metrics::default() };
        sums(&mut page, &metrics);
        each_session(&mut page, &metrics.sessions);
        assert!(page.0.contains("\nhappy_sessions{status=\"idle\"} 1000\n"));
        assert!(page.0.contains("\nhappy_sessions_left_out 744\n"));
        assert_eq!(page.0.matches("\nhappy_session_output_bytes{").count(), MAX_SERIES);
        let newest = format!("\nhappy_session_cpu_seconds{{session=\"{}\"}} 1.050\n", metrics.sessions[999].session);
        assert!(page.0.contains(&newest), "{newest}");
        assert!(page.0.len() < 512 * 1024, "{} bytes", page.0.len());
    }

    #[test]
    fn labels_cannot_leave_their_quotes() {
        let mut page = Page::default();
        page.gauge("a", "b");
        page.value("a", &[("x", "\"\\\n"), ("y", "z")], 7);
        page.value("a", &[], 8);
        assert_eq!(page.0, "# HELP a b\n# TYPE a gauge\na{x=\"\\\"\\\\\\n\",y=\"z\"} 7\na 8\n");
    }
}
