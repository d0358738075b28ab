//! `happy record`: begins or ends the recording of a session.

use std::path::PathBuf;

use happy_rpc::{RecordOptions, Recording, Session, SessionRecord, SessionStopRecording};
use serde::Serialize;

use crate::cli::RecordArgs;
use crate::cli::client::CallFailure;
use crate::cli::daemon::connect;
use crate::cli::output::{FAINT, Form, paint, say, tame};
use crate::cli::sessions::{find, short_id};
use crate::holder::recording::LIMITS;
use crate::store::{Home, amount};
use crate::trouble::Trouble;

/// `happy record`.
pub async fn record(home: &Home, form: Form, args: RecordArgs) -> Result<u8, Trouble> {
    let machine = args.machine.machine.as_deref();
    let client = connect(home, machine).await?;
    let session = find(&client, &args.id).await?;
    let explain = |failure: CallFailure| client.explain(failure, true);
    if args.stop {
        let before = session.recording.clone();
        let session = client.call(SessionStopRecording { session: session.id }).await.map_err(explain)?;
        #[derive(Serialize)]
        struct Stopped {
            session: uuid::Uuid,
            recording: Option<Recording>,
        }
        // A session that is not recorded any more says nothing of it, unless something went wrong.
        let recording = session.recording.or(before);
        form.result(&Stopped { session: session.id, recording }, |stopped| {
            let file = stopped.recording.as_ref().map(shown);
            say(&match (file, stopped.recording.as_ref().and_then(|recording| recording.ended.as_ref())) {
                (Some(file), Some(why)) => format!("The recording {file} had ended: {}.", tame(why, 200)),
                (Some(file), None) => format!("Recorded: {file}"),
                (None, _) => "The recording has ended.".into(),
            });
        });
        return Ok(0);
    }
    let record = RecordOptions { to: args.to.map(absolute).transpose()?, limit: args.limit };
    let session = client.call(SessionRecord { session: session.id, record }).await.map_err(explain)?;
    form.result(&session, |session| say_recorded(session, machine));
    Ok(0)
}

fn say_recorded(session: &Session, machine: Option<&str>) {
    let Some(recording) = &session.recording else { return };
    let there = machine.map_or(String::new(), |machine| format!(" on {machine}"));
    say(&format!("What {} prints is recorded{there}: {}", short_id(session.id), shown(recording)));
    let machine = machine.map(|machine| format!(" --machine {machine}")).unwrap_or_default();
    say(&paint(FAINT, &format!("[ends it: happy record{machine} --stop {}]", short_id(session.id))));
}

/// The path of a recording, which another machine may have named, safe to print.
fn shown(recording: &Recording) -> String {
    tame(&recording.file.to_string_lossy(), 4096)
}

/// What somebody who looks at a session is told.
pub fn notice(session: &Session) -> Option<String> {
    let recording = session.recording.as_ref().filter(|recording| recording.is_on())?;
    Some(paint(FAINT, &format!("[what it prints is being recorded: {}]", shown(recording))))
}

/// A path as the session's process, which stands elsewhere, needs it.
///
/// # Errors
/// When this process does not know where it stands.
pub fn absolute(path: PathBuf) -> Result<PathBuf, Trouble> {
    std::path::absolute(&path).map_err(|error| Trouble::file("find the folder of", &path, &error))
}

/// Reads the limit of a recording.
///
/// # Errors
/// What is wrong with it.
pub fn parse_limit(text: &str) -> Result<u64, String> {
    let limit = amount(text).filter(|limit| LIMITS.contains(limit));
    limit.ok_or_else(|| "a limit is from 1M to 1024G; write it as 100M".to_owned())
}
