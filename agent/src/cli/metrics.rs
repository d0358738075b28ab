//! `happy metrics`: what the sessions of a machine use.

use anstyle::Style;
use happy_rpc::{Breaker, Metrics, MetricsGet, Session, SessionMetrics, SessionStatus};

use crate::cli::MachineArg;
use crate::cli::client::sentence;
use crate::cli::daemon::{connect, next_attempt};
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, ago, say, say_sentences, table_with_notes, tame};
use crate::cli::sessions::{progress_words, short_id};
use crate::store::Home;
use crate::trouble::Trouble;

/// `happy metrics`.
pub async fn metrics(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let metrics = client.call(MetricsGet {}).await.map_err(|failure| client.explain(failure, false))?;
    // Figures bear no names; a table is read by somebody who knows the names.
    let sessions = match form {
        Form::Text => client.sessions().await.map_err(|failure| client.explain(failure, false))?,
        Form::Json => Vec::new(),
    };
    form.result(&metrics, |metrics| show(metrics, &sessions));
    Ok(0)
}

fn show(metrics: &Metrics, sessions: &[Session]) {
    let name = |id| sessions.iter().find(|session| session.id == id).map_or("", |session| &session.name);
    let rows: Vec<_> =
        metrics.sessions.iter().map(|session| (row(session, name(session.session)), String::new())).collect();
    if !rows.is_empty() {
        table_with_notes(&["ID", "NAME", "STATUS", "TYPED", "PRINTED", "VIEWERS", "CPU", "MEMORY", "PROCESSES"], &rows);
    }
    let total = &metrics.total;
    say(&format!(
        "{} sessions, {} running, {} failed; {} typed, {} printed, {:.1} s of processor time, {} of memory",
        total.sessions,
        total.running,
        total.failed,
        amount(total.bytes_in),
        amount(total.bytes_out),
        total.cpu_ms as f64 / 1000.0,
        amount(total.memory)
    ));
    for relay in metrics.relays.iter().filter(|relay| relay.breaker != Breaker::Closed) {
        let why =
            relay.trouble.as_deref().map_or_else(String::new, |trouble| format!(" {}", sentence(&tame(trouble, 400))));
        let next = next_attempt(relay.breaker, relay.next_at, relay.pause_ms, relay.failures);
        say_sentences(WARN, &format!("{} is not connected.{why} {next}", tame(&relay.origin, 200)));
    }
    for error in &metrics.errors {
        let times = if error.count == 1 { "once".to_owned() } else { format!("{} times", error.count) };
        say_sentences(FAINT, &format!("{} ({times}, last {})", tame(&error.what, 200), ago(error.last_at)));
    }
}

fn row(session: &SessionMetrics, name: &str) -> Vec<(Style, String)> {
    let (style, status) = match session.status {
        SessionStatus::Initializing => (FAINT, "begins"),
        SessionStatus::Running => (GOOD, "running"),
        SessionStatus::Idle => (FAINT, "idle"),
        SessionStatus::Waiting => (WARN, "waits for you"),
        SessionStatus::Paused => (WARN, "paused"),
        SessionStatus::Error => (BAD, "ended badly"),
        SessionStatus::Exited => (FAINT, "ended"),
    };
    let status = match &session.progress {
        Some(progress) => format!("{status}, {}", progress_words(progress)),
        None => status.to_owned(),
    };
    let plain = Style::new();
    let used = |show: fn(&happy_rpc::Usage) -> String| session.usage.as_ref().map_or_else(String::new, show);
    vec![
        (STRONG, short_id(session.session)),
        (plain, tame(name, 32)),
        (style, status),
        (plain, amount(session.bytes_in)),
        (plain, amount(session.bytes_out)),
        (plain, session.viewers.to_string()),
        (plain, used(|usage| format!("{:.1} s", usage.cpu_ms as f64 / 1000.0))),
        (plain, used(|usage| amount(usage.memory))),
        (plain, used(|usage| usage.processes.to_string())),
    ]
}

/// Bytes as people read them.
fn amount(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
