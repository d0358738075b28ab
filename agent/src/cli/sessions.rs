//! `happy run`, `ls`, `kill`, and how a session is named.

use std::collections::BTreeMap;
use std::path::Path;

use happy_rpc::{
    Call, ErrorCode, Progress, ProgressState, RecordOptions, Recording, Session, SessionCreate, SessionKill,
    SessionKind, SessionState,
};
use serde::Serialize;

use crate::cli::attach::{self, Manner};
use crate::cli::client::{CallFailure, Client, is_inside, sentence};
use crate::cli::daemon::{connect, connect_or_start};
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, ago, paint, say, signal_name, table_with_notes, tame};
use crate::cli::queue::{self, Desk, Given};
use crate::cli::{DaemonArgs, KillArgs, MachineArg, RunArgs, record, tty};
use crate::store::Home;
use crate::trouble::Trouble;

/// Characters of a session's id that lists show; enough to tell thousands apart.
const SHORT_ID: usize = 8;

/// `happy ls`.
pub async fn list(home: &Home, form: Form, machine: MachineArg) -> Result<u8, Trouble> {
    let client = connect(home, machine.machine.as_deref()).await?;
    let sessions = client.sessions().await.map_err(|failure| client.explain(failure, false))?;
    form.result(&sessions, |sessions| show(sessions, client.target()));
    Ok(0)
}

fn show(sessions: &[Session], machine: Option<&str>) {
    if sessions.is_empty() {
        say(&format!("There are no sessions. Start one with `{} CMD`.", command_at("run", machine)));
        return;
    }
    let row = |session: &Session| {
        let (style, mut state) = state(session);
        if session.recording.as_ref().is_some_and(Recording::is_on) {
            state.push_str(", recorded");
        }
        if let Some(progress) = &session.progress {
            state.push_str(&format!(", {}", progress_words(progress)));
        }
        let plain = anstyle::Style::new();
        let cells = vec![
            (STRONG, short(session)),
            (plain, tame(&session.name, 32)),
            (style, state),
            (plain, format!("{}x{}", session.cols, session.rows)),
            (plain, session.viewers.to_string()),
            (FAINT, ago(session.created_at)),
        ];
        (cells, lost_recording(session).unwrap_or_default())
    };
    let rows: Vec<_> = sessions.iter().map(row).collect();
    table_with_notes(&["ID", "NAME", "STATE", "SIZE", "VIEWERS", "STARTED"], &rows);
}

/// A recording that ended before its session.
fn lost_recording(session: &Session) -> Option<String> {
    let recording = session.recording.as_ref().filter(|_| session.state == SessionState::Running)?;
    let why = tame(recording.ended.as_ref()?, 200);
    Some(paint(WARN, &format!("  not recorded any more: {why} ({})", tame(&recording.file.to_string_lossy(), 200))))
}

/// What its program is doing, as lists show it.
pub fn state(session: &Session) -> (anstyle::Style, String) {
    match session.state {
        SessionState::Running if session.kind == SessionKind::Tmux => (GOOD, "running in tmux".into()),
        SessionState::Running if session.paused => (WARN, "paused".into()),
        SessionState::Running if session.prompt.is_some() => (WARN, "waiting".into()),
        SessionState::Running => (GOOD, "running".into()),
        SessionState::Exited { code: 0 } => (FAINT, "exited".into()),
        SessionState::Exited { code } => (WARN, format!("exited {code}")),
        SessionState::Killed { signal } if session.told_to_end => (FAINT, signal_name(signal)),
        SessionState::Killed { signal } => (WARN, signal_name(signal)),
        SessionState::Lost => (BAD, "lost".into()),
    }
}

/// How far a program says it is, as lists show it.
pub fn progress_words(progress: &Progress) -> String {
    match (progress.state, progress.percent.map(|percent| percent.min(100))) {
        (ProgressState::Normal, percent) => format!("{} %", percent.unwrap_or(0)),
        (ProgressState::Indeterminate, _) => "at work".into(),
        (ProgressState::Error, Some(percent)) => format!("an error at {percent} %"),
        (ProgressState::Error, None) => "an error".into(),
        (ProgressState::Paused, Some(percent)) => format!("held up at {percent} %"),
        (ProgressState::Paused, None) => "held up".into(),
    }
}

fn short(session: &Session) -> String {
    short_id(session.id)
}

/// The beginning of an id, as lists show it.
pub fn short_id(session: uuid::Uuid) -> String {
    session.to_string().chars().take(SHORT_ID).collect()
}

/// `happy kill`.
pub async fn kill(home: &Home, form: Form, args: KillArgs) -> Result<u8, Trouble> {
    if let Some(mut desk) = Desk::open(home, &args.machine, &args.waiting).await? {
        let session = desk.find(&args.id).await?;
        let given = desk.give(form, SessionKill { session: session.id }).await?;
        return match (given, session.seen) {
            (Given::Waits, _) => Ok(0),
            (Given::Failed(error), _) => Err(desk.client.explain(CallFailure::Refused(error), true)),
            (Given::Done(entry, _), None) => Ok(queue::say_done(form, &entry)),
            (Given::Done(..), Some(seen)) => Ok(say_killed(form, &seen)),
        };
    }
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let session = find(&client, &args.id).await?;
    let killed = client.call(SessionKill { session: session.id }).await;
    killed.map_err(|failure| client.explain(failure, true))?;
    Ok(say_killed(form, &session))
}

fn say_killed(form: Form, session: &Session) -> u8 {
    #[derive(Serialize)]
    struct Killed {
        session: uuid::Uuid,
        was_running: bool,
    }
    let killed = Killed { session: session.id, was_running: session.state == SessionState::Running };
    form.result(&killed, |killed| match killed.was_running {
        _ if session.kind == SessionKind::Tmux => {
            say(&format!("The tmux session {} was ended.", tame(&session.name, 64)))
        }
        true => say(&format!("The program of {} was told to end.", short(session))),
        false => say(&format!("{} had ended; it is off the list.", short(session))),
    });
    0
}

/// `happy run`.
pub async fn run(home: &Home, form: Form, args: RunArgs) -> Result<u8, Trouble> {
    let desk = Desk::open(home, &args.machine, &args.waiting).await?;
    let local = args.machine.machine.is_none();
    let (cols, rows) = tty::size().unwrap_or((80, 24));
    let cwd = match (&args.cwd, local) {
        (Some(cwd), true) => {
            Some(std::path::absolute(cwd).map_err(|error| Trouble::file("find the folder", cwd, &error))?)
        }
        (Some(cwd), false) => Some(cwd.clone()),
        (None, true) => std::env::current_dir().ok(),
        (None, false) => None,
    };
    let create = SessionCreate {
        command: args.command,
        cwd,
        env: local.then(environment),
        name: args.name,
        cols,
        rows,
        keep: args.keep.map(|keep| keep.bytes),
        record: match args.record_to {
            Some(to) => Some(RecordOptions { to: Some(record::absolute(to)?), limit: None }),
            None => args.record.then(RecordOptions::default),
        },
        tmux: args.tmux,
    };
    let folder = create.cwd.clone();
    let not_run = |failure| not_run(failure, local, folder.as_deref());
    let (client, session) = match desk {
        Some(desk) => match desk.give(form, create).await? {
            Given::Waits => return Ok(0),
            Given::Failed(error) => return Err(not_run(CallFailure::Refused(error))),
            Given::Done(entry, None) => return Ok(queue::say_done(form, &entry)),
            Given::Done(_, Some(answer)) => {
                (desk.client, SessionCreate::read_answer(&answer).map_err(CallFailure::Refused)?)
            }
        },
        None => {
            let client = match &args.machine.machine {
                Some(machine) => connect(home, Some(machine)).await?,
                None => connect_or_start(home, &DaemonArgs::default()).await?,
            };
            let session = client.call(create).await.map_err(|failure| match failure {
                CallFailure::Unanswered(_) => client.explain(failure, true),
                failure => not_run(failure),
            })?;
            (client, session)
        }
    };
    if args.detach || !tty::is_interactive() && form == Form::Json {
        form.result(&session, |session| say(&short(session)));
        return Ok(0);
    }
    let manner = Manner::of_run(home)?;
    attach::watch(home, args.machine.machine.as_deref(), client, session, manner).await
}

fn not_run(failure: CallFailure, local: bool, folder: Option<&Path>) -> Trouble {
    let CallFailure::Refused(error) = &failure else { return failure.into() };
    let todo = match error.code {
        _ if is_inside(error) => return failure.into(),
        // What was not found, or may not be used, is said already: a program or a folder.
        ErrorCode::NotFound | ErrorCode::NotPermitted if local && folder.is_some_and(|folder| !folder.is_dir()) => {
            "Give another folder with `--cwd DIR`."
        }
        ErrorCode::NotFound if local => "The full path of a program works too: `happy run /PATH/PROGRAM`.",
        ErrorCode::NotPermitted if local => {
            "See with `ls -l` who may use it; a program must be executable (`chmod +x`)."
        }
        ErrorCode::NotFound => "The program and the folder (`--cwd DIR`) must be there, on that machine.",
        _ => return failure.into(),
    };
    Trouble::new(sentence(&error.message), todo)
}

/// The caller's environment, as far as it is text.
fn environment() -> BTreeMap<String, String> {
    // The variables of happy itself are the daemon's business, and would make a `happy` inside the session look elsewhere.
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| key != "HAPPY_SESSION")
        .collect()
}

/// The one session that an id, the beginning of one, or a name means.
///
/// # Errors
/// When there is none, or more than one.
pub async fn find(client: &Client, wanted: &str) -> Result<Session, Trouble> {
    let sessions = client.sessions().await.map_err(|failure| client.explain(failure, false))?;
    // Of sessions that share a name, and of which one runs, that one.
    let runs = |session: &&Session| session.state == SessionState::Running && session.name == wanted;
    let running: Vec<_> = sessions.iter().filter(runs).collect();
    if let [session] = running[..] {
        return Ok(session.clone());
    }
    pick(sessions, wanted, client.target(), |session| (session.id, &session.name))
}

/// A command of ours as it is typed, for this machine or another.
pub fn command_at(command: &str, machine: Option<&str>) -> String {
    let is_plain = |name: &str| name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
    match machine {
        None => format!("happy {command}"),
        Some(name) if is_plain(name) => format!("happy {command} -m {name}"),
        Some(name) => format!("happy {command} -m '{}'", tame(name, 64)),
    }
}

/// The one of these sessions of a machine that is meant; `names` gives id and name of one.
///
/// # Errors
/// When there is none, or more than one.
pub fn pick<T>(
    sessions: Vec<T>,
    wanted: &str,
    machine: Option<&str>,
    names: impl Fn(&T) -> (uuid::Uuid, &str),
) -> Result<T, Trouble> {
    let lower = wanted.to_ascii_lowercase();
    let by_id = |session: &T| !lower.is_empty() && names(session).0.to_string().starts_with(&lower);
    // A whole name means more than the beginning of an id, and a whole id is one.
    let (mut fitting, others): (Vec<_>, Vec<_>) =
        sessions.into_iter().partition(|session| names(session).0.to_string() == lower || names(session).1 == wanted);
    if fitting.is_empty() {
        fitting = others.into_iter().filter(by_id).collect();
    }
    match fitting.len() {
        0 => Err(Trouble::new(
            format!("There is no session `{}`.", tame(wanted, 64)),
            format!("`{}` lists what there is.", command_at("ls", machine)),
        )),
        1 => Ok(fitting.remove(0)),
        _ => {
            let list: Vec<_> = fitting.iter().map(|session| names(session).0.to_string()).collect();
            Err(Trouble::new(
                format!("`{}` means more than one session: {}.", tame(wanted, 64), list.join(", ")),
                "Give its id, or more of it.",
            ))
        }
    }
}

/// The line that is printed when somebody leaves a session.
pub fn left_line(session: &Session, machine: Option<&str>) -> String {
    let machine = machine.map(|machine| format!(" --machine {machine}")).unwrap_or_default();
    paint(FAINT, &format!("[left; it goes on: happy attach{machine} {}]", short(session)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(id: &str, name: &str) -> Session {
        Session {
            id: id.parse().unwrap(),
            kind: SessionKind::Own,
            name: name.into(),
            title: String::new(),
            command: Vec::new(),
            cwd: "/".into(),
            state: SessionState::Running,
            pid: None,
            cols: 80,
            rows: 24,
            output_offset: 0,
            viewers: 0,
            controller: None,
            created_at: 0,
            kept_from: None,
            recording: None,
            paused: false,
            told_to_end: false,
            prompt: None,
            progress: None,
        }
    }

    #[test]
    fn a_session_is_meant_by_a_unique_prefix_or_its_name() {
        let (a, b) = ("aaaaaaaa-0000-4000-8000-000000000000", "aaaabbbb-0000-4000-8000-000000000000");
        let all = || vec![session(a, "vim"), session(b, "top")];
        let pick_at = |wanted, machine| pick(all(), wanted, machine, |session| (session.id, &session.name));
        let pick = |wanted| pick_at(wanted, None);
        assert_eq!(pick("aaaaA").unwrap().name, "vim");
        assert_eq!(pick("top").unwrap().id.to_string(), b);
        assert!(pick("aaaa").unwrap_err().what.contains("more than one"));
        assert!(pick("zz").unwrap_err().what.contains("no session"));
        assert!(pick("zz").unwrap_err().todo.contains("`happy ls`"));
        assert!(pick_at("zz", Some("vm")).unwrap_err().todo.contains("`happy ls -m vm`"));
        assert!(pick_at("zz", Some("my vm")).unwrap_err().todo.contains("`happy ls -m 'my vm'`"));
        assert!(pick("").is_err());
        // tmux calls its sessions by numbers.
        let all = || vec![session(a, "b"), session("bbbbbbbb-0000-4000-8000-000000000000", a)];
        let pick =
            |wanted| super::pick(all(), wanted, None, |session| (session.id, &session.name)).map(|found| found.name);
        assert_eq!(pick("b").unwrap(), "b", "a whole name before the beginning of an id");
        assert_eq!(pick("bb").unwrap(), a);
    }
}
