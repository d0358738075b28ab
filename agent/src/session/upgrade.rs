//! Holders of another build go on as the program that a new session would get: one after the other, behind everything else.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BufMut;
use happy_rpc::SessionState;
use uuid::Uuid;

use super::error::{ConnectError, ControlError};
use super::{Shared, client};
use crate::holder::build;
use crate::holder::protocol::{
    FrameError, Request, Response, Status, VERSION, kind, put_frame, put_json, read_json, refusal,
};

/// How long a holder may take. It asks the new program for up to 5 s, and a large history takes a while to copy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Begins with it, if that is wanted. Ends when all were asked, or the sessions are closed.
pub(super) fn begin(shared: &Arc<Shared>) {
    if shared.config.upgrade {
        tokio::spawn(all(Arc::downgrade(shared)));
    }
}

async fn all(shared: Weak<Shared>) {
    let Some(old) = shared.upgrade().map(|shared| of_another_build(&shared)) else { return };
    for (session, socket, program) in old {
        if shared.strong_count() == 0 {
            return;
        }
        match tokio::time::timeout(PATIENCE, upgrade(&socket, &program)).await {
            Ok(Ok(status)) => tracing::info!("session {session} goes on with happy {}", status.build.version),
            Ok(Err(ControlError::Refused(refused))) if refused.code == refusal::UNKNOWN => {
                tracing::info!("session {session} has a holder that cannot be upgraded");
            }
            Ok(Err(error)) => tracing::warn!("session {session} is not upgraded: {error}"),
            Err(_) => tracing::warn!("session {session} is not upgraded: no answer in {} s", PATIENCE.as_secs()),
        }
    }
}

fn of_another_build(shared: &Shared) -> Vec<(Uuid, PathBuf, PathBuf)> {
    let Some(program) = shared.config.holder.first().map(PathBuf::from) else { return Vec::new() };
    let id = match build::id_of(&program) {
        Ok(id) => id,
        Err(error) => {
            tracing::warn!("sessions are not upgraded: {}: {error}", program.display());
            return Vec::new();
        }
    };
    let entries = shared.entries();
    let running =
        entries.values().filter(|entry| entry.holder.is_some() && entry.session.state == SessionState::Running);
    running
        // One of tmux gets the new program when it is next attached to.
        .filter(|entry| entry.build.id != id && entry.guest.is_none())
        .map(|entry| (entry.session.id, entry.socket.clone(), program.clone()))
        .collect()
}

/// On a connection of its own, since other requests would have to wait.
async fn upgrade(socket: &Path, program: &Path) -> Result<Status, ControlError> {
    let first = |out: &mut bytes::BytesMut| put_frame(out, kind::CONTROL, |out| out.put_u8(VERSION));
    let gone = |error: ConnectError| {
        tracing::debug!("{}: {error}", socket.display());
        ControlError::HolderGone
    };
    let (_, mut reader, mut writer) = client::connect::<Status>(socket, first, kind::CONTROLLED).await.map_err(gone)?;
    put_json(writer.buffer(), kind::REQUEST, None, &Request::Upgrade { program: program.to_owned() });
    writer.flush().await.map_err(|error| gone(error.into()))?;
    loop {
        let frame = reader.next().await.map_err(|error| gone(error.into()))?;
        let frame = frame.ok_or_else(|| gone(FrameError::Cut.into()))?;
        if let Some((&kind::RESPONSE, body)) = frame.split_first() {
            return match read_json::<Response>(body)? {
                Response::Ok(status) => Ok(status),
                Response::Error(refused) => Err(refused.into()),
            };
        }
    }
}
