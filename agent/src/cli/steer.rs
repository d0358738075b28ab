//! `happy rename`, `pause` and `resume`.

use happy_rpc::{ErrorCode, Session, SessionPause, SessionRename, SessionResume, SessionState};

use crate::cli::client::{CallFailure, sentence};
use crate::cli::daemon::connect;
use crate::cli::output::{Form, say, tame};
use crate::cli::sessions::{find, short_id};
use crate::cli::{RenameArgs, SessionArgs};
use crate::store::Home;
use crate::trouble::Trouble;

/// `happy rename`.
pub async fn rename(home: &Home, form: Form, args: RenameArgs) -> Result<u8, Trouble> {
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let session = find(&client, &args.id).await?;
    let renamed = client.call(SessionRename { session: session.id, name: args.name }).await;
    let renamed = renamed.map_err(|failure| match failure {
        CallFailure::Refused(error) if error.code == ErrorCode::Malformed => {
            let todo = format!(
                "Give it one: `happy rename {} NAME`; it is called {} now.",
                short_id(session.id),
                tame(&session.name, 64)
            );
            Trouble::new(sentence(&error.message), todo)
        }
        failure => client.explain(failure, true),
    })?;
    form.result(&renamed, |renamed| {
        say(&format!("{} is called {} from now on.", short_id(renamed.id), tame(&renamed.name, 120)));
    });
    Ok(0)
}

/// `happy pause`.
pub async fn pause(home: &Home, form: Form, args: SessionArgs) -> Result<u8, Trouble> {
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let session = find(&client, &args.id).await?;
    check_runs(&session)?;
    let paused = client.call(SessionPause { session: session.id }).await;
    let paused = paused.map_err(|failure| client.explain(failure, true))?;
    let id = short_id(paused.id);
    form.result(&paused, |_| say(&format!("{id} stands still until `happy resume {id}`.")));
    Ok(0)
}

/// `happy resume`.
pub async fn resume(home: &Home, form: Form, args: SessionArgs) -> Result<u8, Trouble> {
    let client = connect(home, args.machine.machine.as_deref()).await?;
    let session = find(&client, &args.id).await?;
    check_runs(&session)?;
    let resumed = client.call(SessionResume { session: session.id }).await;
    let resumed = resumed.map_err(|failure| client.explain(failure, true))?;
    form.result(&resumed, |resumed| say(&format!("{} goes on.", short_id(resumed.id))));
    Ok(0)
}

fn check_runs(session: &Session) -> Result<(), Trouble> {
    match session.state {
        SessionState::Running => Ok(()),
        _ => Err(Trouble::new(
            format!("The program of {} has ended.", short_id(session.id)),
            "`happy ls` shows which sessions run.",
        )),
    }
}
