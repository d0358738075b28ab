//! `happy type` and `happy queue`, and how a command for another machine is given to the daemon, which keeps it until there is a link.

use std::time::{Duration, Instant};

use anstyle::Style;
use happy_rpc::{CallError, ErrorCode, MAX_AHEAD_MS, MAX_TEXT, Request, Session, SessionType};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::client::{CallFailure, Client, Happening, sentence};
use crate::cli::daemon::{connect, connect_quietly, why_away};
use crate::cli::output::{
    BAD, FAINT, Form, GOOD, STRONG, WARN, ago, aside_sentences, paint, say, table_with_notes, tame,
};
use crate::cli::sessions::{find, pick, short_id};
use crate::cli::{MachineArg, TypeArgs, WaitingArgs};
use crate::daemon::queue::{
    Queue, QueueCancel, QueueClear, QueueEntry, QueueGive, QueueList, QueueSessions, QueueState, QueueWait,
};
use crate::store::{Home, unix_ms};
use crate::trouble::Trouble;

/// How long a command may wait unless told otherwise: what a person types or ends now is seldom wanted an hour later.
const EXPIRES: Duration = Duration::from_secs(10 * 60);
/// How long a link may take to come up whose relay is reached, before the command waits for it in the daemon.
const LINK_TIME: Duration = Duration::from_secs(5);
/// How long a machine may take to list its sessions, when it is known which were last seen there.
const ASK_TIME: Duration = Duration::from_secs(2);
/// How long the outcome may take before the person is told that it is waited for.
const PROMPT: Duration = Duration::from_secs(2);
/// How long the outcome is waited for, as that of any call (`PROTOCOL 10`).
const OUTCOME_TIME: Duration = Duration::from_secs(30);
/// Characters of a command that the list shows.
const WHAT: usize = 48;

/// Where commands for another machine are given.
pub struct Desk {
    /// To the other machine.
    pub client: Client,
    /// To the daemon itself.
    daemon: Client,
    /// With a link to a machine that does not answer it is as without one.
    link_up: bool,
    /// When the person gave the command, Unix milliseconds; from then on `within` counts.
    given_at: u64,
    within: Duration,
}

/// A session of another machine.
pub struct There {
    /// Its id.
    pub id: Uuid,
    /// All of it, if the machine could be asked.
    pub seen: Option<Session>,
}

/// What came of a command that was given.
pub enum Given {
    /// It was done; the answer, if there is one still.
    Done(Box<QueueEntry>, Option<Vec<u8>>),
    /// It was not done.
    Failed(CallError),
    /// It waits, and the person was told so.
    Waits,
}

impl Desk {
    /// None when the command is for this machine, or shall not wait.
    ///
    /// # Errors
    /// When the daemon does not run, or the machine cannot be spoken to.
    pub async fn open(home: &Home, machine: &MachineArg, waiting: &WaitingArgs) -> Result<Option<Desk>, Trouble> {
        let Some(machine) = machine.machine.as_deref().filter(|_| !waiting.no_queue) else { return Ok(None) };
        // Before anything is waited for.
        let given_at = unix_ms();
        let client = connect_quietly(home, Some(machine)).await?;
        let link_up = client.link_up() || comes_up(home, &client).await;
        let daemon = connect_quietly(home, None).await?;
        Ok(Some(Desk { client, daemon, link_up, given_at, within: waiting.expires.unwrap_or(EXPIRES) }))
    }

    /// The session that is meant, as well as it can be known now.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub async fn find(&mut self, wanted: &str) -> Result<There, Trouble> {
        if let Ok(id) = wanted.parse() {
            return Ok(There { id, seen: None });
        }
        let greeted = self.client.greeted();
        let seen = self.daemon.local(QueueSessions { machine: greeted.device.clone() }).await?;
        if self.link_up {
            // Where nothing else is known, its answer is worth the wait. Else some of the command's time must be left.
            let patience = if seen.is_empty() { Duration::MAX } else { ASK_TIME.min(self.within / 2) };
            tokio::select! {
                found = find(&self.client, wanted) => return found.map(|seen| There { id: seen.id, seen: Some(seen) }),
                () = goes_down(&self.client) => {}
                () = tokio::time::sleep(patience) => self.link_up = false,
            }
        }
        let picked = pick(seen, wanted, self.client.target(), |session| (session.id, &session.name));
        picked.map(|session| There { id: session.id, seen: None }).map_err(|trouble| {
            let name = tame(&greeted.name, 64);
            Trouble::new(
                format!(
                    "{} {name} cannot be reached now or does not answer, so this is about sessions that were seen there.",
                    trouble.what
                ),
                format!(
                    "Give the whole id, as `happy ls --json --machine {name}` shows it while there is a connection."
                ),
            )
        })
    }

    /// Gives a command; with a link, waits for its outcome.
    ///
    /// # Errors
    /// When the daemon has not taken it.
    pub async fn give(&self, form: Form, request: impl Into<Request>) -> Result<Given, Trouble> {
        let within = u64::try_from(self.within.as_millis()).unwrap_or(MAX_AHEAD_MS);
        let machine = self.client.greeted().device.clone();
        let given_at = Some(self.given_at);
        let mut entry = self.daemon.local(QueueGive { machine, request: request.into(), within, given_at }).await?;
        let deadline = Instant::now() + OUTCOME_TIME;
        let mut is_told = false;
        // A link that has just gone comes back, or does not: then the command waits.
        while self.link_up && Instant::now() < deadline {
            let mut waiting = std::pin::pin!(self.daemon.local(QueueWait { number: entry.number }));
            let waited = match tokio::time::timeout(PROMPT, &mut waiting).await {
                Ok(waited) => waited?,
                Err(_) => {
                    if form == Form::Text && !std::mem::replace(&mut is_told, true) {
                        let name = tame(&entry.machine_name, 64);
                        aside_sentences(FAINT, &format!("Kept as command {}; waiting for {name}.", entry.number));
                    }
                    waiting.await?
                }
            };
            entry = waited.entry;
            match entry.state {
                QueueState::Done => {
                    let answer = waited.answer.map(|answer| answer.to_string().into_bytes());
                    return Ok(Given::Done(Box::new(entry), answer));
                }
                QueueState::Failed | QueueState::Indeterminate | QueueState::Expired | QueueState::Cancelled => {
                    return Ok(Given::Failed(entry.error.clone().unwrap_or_else(|| not_done(entry.state))));
                }
                QueueState::Draft | QueueState::Queued | QueueState::Sent | QueueState::Delivered => {}
            }
        }
        if entry.state == QueueState::Queued && entry.until <= unix_ms() {
            return Ok(Given::Failed(not_done(QueueState::Expired)));
        }
        form.result(&entry, |entry| {
            let (_, state) = state(entry.state);
            let name = tame(&entry.machine_name, 64);
            let left = span(entry.until.saturating_sub(unix_ms()));
            match entry.state {
                QueueState::Queued => say(&format!("{state}: {}, for {name}; expires in {left}", entry.number)),
                _ => say(&format!("{state}: {}, to {name}; `happy queue` shows what becomes of it", entry.number)),
            }
        });
        Ok(Given::Waits)
    }
}

/// Whether the link of a client comes up soon. When its relay is not reached, nobody has to wait to know that it does not.
async fn comes_up(home: &Home, client: &Client) -> bool {
    if why_away(home, &client.greeted().device).await.is_some() {
        return client.link_up();
    }
    let up = async { while !client.link_up() && client.event().await.is_some() {} };
    let _ = tokio::time::timeout(LINK_TIME, up).await;
    client.link_up()
}

async fn goes_down(client: &Client) {
    while client.link_up() {
        match client.event().await {
            Some(Happening::Link(false)) | None => return,
            Some(_) => {}
        }
    }
}

fn not_done(state: QueueState) -> CallError {
    match state {
        QueueState::Expired => CallError::new(ErrorCode::Expired, "it came later than it was wanted and was not done"),
        QueueState::Cancelled => CallError::new(ErrorCode::Failed, "it was cancelled meanwhile"),
        _ => CallError::new(ErrorCode::Indeterminate, "whether it was done is not known"),
    }
}

/// Says that a command was done that has no words of its own.
pub fn say_done(form: Form, entry: &QueueEntry) -> u8 {
    form.result(entry, |entry| say(&format!("done: {}", what(&entry.request))));
    0
}

/// `happy type`.
pub async fn type_text(home: &Home, form: Form, args: TypeArgs) -> Result<u8, Trouble> {
    let (text, enter) = (args.text, !args.no_enter);
    if text.len() > MAX_TEXT {
        return Err(Trouble::new(
            format!("The text has {} bytes; {MAX_TEXT} (64 KiB) is the most that can be typed at once.", text.len()),
            "Type it in pieces with `--no-enter`, or put it into a file there and type the file's name.",
        ));
    }
    let Some(mut desk) = Desk::open(home, &args.machine, &args.waiting).await? else {
        let client = connect(home, args.machine.machine.as_deref()).await?;
        let session = find(&client, &args.id).await?.id;
        client.call(SessionType { session, text, enter }).await.map_err(|failure| client.explain(failure, true))?;
        #[derive(Serialize)]
        struct Typed {
            session: Uuid,
        }
        form.result(&Typed { session }, |typed| say(&format!("Typed into {}.", short_id(typed.session))));
        return Ok(0);
    };
    let session = desk.find(&args.id).await?.id;
    match desk.give(form, SessionType { session, text, enter }).await? {
        Given::Done(entry, _) => {
            form.result(&*entry, |_| say(&format!("Typed into {}.", short_id(session))));
            Ok(0)
        }
        Given::Failed(error) => Err(desk.client.explain(CallFailure::Refused(error), true)),
        Given::Waits => Ok(0),
    }
}

/// `happy queue`.
pub async fn list(home: &Home, form: Form) -> Result<u8, Trouble> {
    let daemon = connect(home, None).await?;
    let queue = daemon.local(QueueList {}).await?;
    match form {
        Form::Json => form.result(&queue.entries, |_| ()),
        Form::Text => show(&queue),
    }
    match queue.troubles.is_empty() {
        true => Ok(0),
        false => Err(Trouble::new(queue.troubles.join(" "), "Commands for those machines are refused until then.")),
    }
}

fn show(queue: &Queue) {
    if queue.entries.is_empty() {
        return say("Nothing waits, and nothing ended in the last 24 hours.");
    }
    let now = unix_ms();
    let row = |entry: &QueueEntry| {
        let plain = Style::new();
        let left = match entry.state.is_over() {
            true => String::new(),
            false if entry.until < now => "time is over".into(),
            false => format!("in {}", span(entry.until - now)),
        };
        let row = vec![
            (STRONG, entry.number.to_string()),
            state(entry.state),
            (plain, tame(&entry.machine_name, 32)),
            (plain, tame(&what(&entry.request), WHAT)),
            (FAINT, ago(entry.given_at)),
            (plain, left),
        ];
        let note =
            entry.error.as_ref().map(|error| paint(FAINT, &format!("   {}", tame(&sentence(&error.message), 400))));
        (row, note.unwrap_or_default())
    };
    let rows: Vec<_> = queue.entries.iter().map(row).collect();
    table_with_notes(&["N", "STATE", "MACHINE", "WHAT", "GIVEN", "EXPIRES"], &rows);
}

/// `happy queue cancel`.
pub async fn cancel(home: &Home, form: Form, number: u64) -> Result<u8, Trouble> {
    let daemon = connect(home, None).await?;
    let entry = daemon.local(QueueCancel { number }).await.map_err(|failure| match failure {
        CallFailure::Refused(error) if matches!(error.code, ErrorCode::Conflict | ErrorCode::NotFound) => {
            Trouble::new(sentence(&error.message), "`happy queue` shows what there is, and what became of it.")
        }
        failure => failure.into(),
    })?;
    form.result(&entry, |entry| say(&format!("cancelled: {}, {}", entry.number, tame(&what(&entry.request), WHAT))));
    Ok(0)
}

/// `happy queue clear`.
pub async fn clear(home: &Home, form: Form) -> Result<u8, Trouble> {
    let daemon = connect(home, None).await?;
    let cleared = daemon.local(QueueClear {}).await?;
    form.result(&cleared, |cleared| match cleared.dropped {
        0 => say("Nothing was over."),
        1 => say("One command is off the list."),
        many => say(&format!("{many} commands are off the list.")),
    });
    Ok(0)
}

fn state(state: QueueState) -> (Style, String) {
    let (style, word) = match state {
        QueueState::Draft => (FAINT, "draft"),
        QueueState::Queued => (WARN, "queued"),
        QueueState::Sent => (WARN, "sent"),
        QueueState::Delivered => (WARN, "delivered"),
        QueueState::Done => (GOOD, "done"),
        QueueState::Failed => (BAD, "failed"),
        QueueState::Indeterminate => (BAD, "indeterminate"),
        QueueState::Expired => (BAD, "expired"),
        QueueState::Cancelled => (FAINT, "cancelled"),
    };
    (style, word.into())
}

/// A command, for people.
fn what(request: &Request) -> String {
    match request {
        Request::SessionType(params) => {
            let enter = if params.enter { "⏎" } else { "" };
            let text = params.text.replace(['\n', '\r', '\t'], " ");
            format!("type {}: {text}{enter}", short_id(params.session))
        }
        Request::SessionKill(params) => format!("kill {}", short_id(params.session)),
        Request::SessionCreate(params) if params.command.is_empty() => "run a shell".into(),
        Request::SessionCreate(params) => format!("run {}", params.command.join(" ")),
        other => other.method().into(),
    }
}

/// A span of time, for people.
pub fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds.div_ceil(60)),
        7200..=172_799 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} d", seconds.div_ceil(86_400)),
    }
}

/// Reads the number of a command.
pub fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "give a number as `happy queue` shows it".into())
}

/// Reads a span of time as people write it.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let say = || "a time is written as 90s, 10m, 2h or 7d, and is seven days at most".to_owned();
    let unit = text.chars().last().ok_or_else(say)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(say()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| say())?;
    let time = Duration::from_secs(number.checked_mul(seconds).ok_or_else(say)?);
    match time.as_millis() {
        1..=SEVEN_DAYS => Ok(time),
        _ => Err(say()),
    }
}

const SEVEN_DAYS: u128 = MAX_AHEAD_MS as u128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let seconds = |text| parse_time(text).map(|time| time.as_secs());
        assert_eq!([seconds("90s"), seconds("10m"), seconds("2h"), seconds("7d")], [90, 600, 7200, 604_800].map(Ok));
        for wrong in ["", "s", "0s", "10", "8d", "-1m", "1.5h", "99999999999999999999d", "10µ"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn spans_never_say_less_than_there_is() {
        assert_eq!(
            [0, 1, 119_000, 120_000, 599_001, 7_200_000].map(span),
            ["0 s", "1 s", "119 s", "2 min", "10 min", "2 h"]
        );
    }

    #[test]
    fn a_command_is_shown_in_one_line() {
        let session = Uuid::nil();
        let typed = SessionType { session, text: "one\ntwo".into(), enter: true };
        assert_eq!(what(&typed.into()), "type 00000000: one two⏎");
        assert_eq!(what(&happy_rpc::SessionCreate::default().into()), "run a shell");
    }
}
