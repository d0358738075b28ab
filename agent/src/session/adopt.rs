//! Finding the sessions again that an earlier daemon has left.

use std::sync::Arc;
use std::time::Duration;

use happy_rpc::SessionState;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::client::{Listening, Reached};
use super::error::ConnectError;
use super::{Entry, HOLDER_DEADLINE, MAX_SESSIONS, OpenError, Shared, TOLD, client, remove_files};
use crate::holder::spec::{Description, SessionDir, unix_ms};

/// Those that run, and as many again that have ended: without a daemon nobody forgets any.
const MAX_FOUND: usize = 2 * MAX_SESSIONS;

/// How long to wait before asking again a holder that is just starting.
const RETRY: Duration = Duration::from_millis(100);

/// Looks into every directory of sessions; all holders are asked at once.
pub(super) async fn all(shared: &Arc<Shared>) -> Result<(), OpenError> {
    let path = shared.config.home.join("sessions");
    let root = SessionDir::new(&path);
    let failed = |source| OpenError { path: path.clone(), source };
    root.create().map_err(failed)?;
    let mut found = JoinSet::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<Uuid>().ok()) else { continue };
        if found.len() >= MAX_FOUND {
            tracing::warn!("there are more than {MAX_FOUND} sessions in {}; the rest is not listed", path.display());
            break;
        }
        let shared = Arc::clone(shared);
        found.spawn(async move {
            let told = entry.path().join(TOLD).exists();
            if let Some((mut entry, listening)) = one(&shared, id, SessionDir::new(entry.path())).await {
                entry.session.told_to_end = told;
                shared.entries().insert(id, entry);
                if let Some(listening) = listening {
                    listening.begin();
                }
            }
        });
    }
    while found.join_next().await.is_some() {}
    Ok(())
}

async fn one(shared: &Arc<Shared>, id: Uuid, dir: SessionDir) -> Option<(Entry, Option<Listening>)> {
    let description = match dir.description() {
        Ok(description) if description.id == id => description,
        // Left by a daemon that died between making the directory and describing the session: there is no holder.
        Ok(_) | Err(_) => {
            tracing::warn!("{} does not describe a session and is removed", dir.path().display());
            remove_files(&dir, None);
            return None;
        }
    };
    match reach(shared, &description, &dir).await {
        Ok(Reached { entry, listening }) => Some((entry, Some(listening))),
        Err(_) if description.tmux.is_some() => {
            // The session is tmux's, and is found there if it goes on.
            remove_files(&dir, Some(&description.socket));
            None
        }
        Err(error) => {
            let exit = dir.exit().unwrap_or_else(|error| {
                tracing::warn!("session {id}: {error}");
                None
            });
            match exit {
                Some(exit) if Duration::from_millis(unix_ms().saturating_sub(exit.at)) > shared.config.ended.time => {
                    remove_files(&dir, Some(&description.socket));
                    return None;
                }
                Some(_) => {}
                None => tracing::warn!("session {id} ({}) is lost: {error}", description.name),
            }
            // A holder that died before it read its environment leaves it behind.
            if let Err(error) = dir.forget_spec() {
                tracing::warn!("the environment of session {id} cannot be removed: {error}");
            }
            let ended = Entry::ended(&description, dir, exit);
            debug_assert!(ended.session.state != SessionState::Running);
            Some((ended, None))
        }
    }
}

/// Asks the holder; one whose session is younger than [`HOLDER_DEADLINE`] may not listen yet.
async fn reach(shared: &Arc<Shared>, description: &Description, dir: &SessionDir) -> Result<Reached, ConnectError> {
    loop {
        let young = unix_ms().saturating_sub(description.created_at) < HOLDER_DEADLINE.as_millis() as u64;
        match client::steer(shared, description, dir).await {
            Err(ConnectError::Socket(_)) if young && !matches!(dir.exit(), Ok(Some(_))) => {
                tokio::time::sleep(RETRY).await
            }
            other => return other,
        }
    }
}
