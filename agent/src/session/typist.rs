//! Types a text for somebody who does not look: a command that was given while there was no connection.

use std::sync::Arc;
use std::time::Duration;

use happy_rpc::MAX_TEXT;
use happy_screen::keys::{self, Key, KeyCode};
use happy_screen::{Modes, Screen};
use happy_wire::terminal::{MAX_CHUNK, MAX_SNAPSHOT, TerminalMessage};
use uuid::Uuid;

use super::error::TypeError;
use super::viewer::{self, AttachRequest, ViewerReceiver, ViewerSender};
use super::{AttachError, Shared};

/// How long a program may take to read what is typed. It goes on being typed afterwards.
const PATIENCE: Duration = Duration::from_secs(20);
/// How others see who types.
const NAME: &str = "a queued command";

pub(super) async fn type_text(shared: &Arc<Shared>, id: Uuid, text: &str, enter: bool) -> Result<(), TypeError> {
    if text.len() > MAX_TEXT {
        return Err(TypeError::TooLong);
    }
    let (cols, rows) = {
        let entries = shared.entries();
        let entry = entries.get(&id).ok_or(AttachError::NoSession)?;
        (entry.session.cols, entry.session.rows)
    };
    let request = AttachRequest {
        session: id,
        writer: Uuid::new_v4(),
        name: NAME.to_owned(),
        from: None,
        scrollback: 0,
        lossless: false,
        credit: false,
        cols,
        rows,
        take_control: false,
    };
    let (_, mut sender, mut receiver) = viewer::attach(shared, request).await?.split();
    let modes = tokio::time::timeout(PATIENCE, modes(&mut receiver)).await.map_err(|_| TypeError::NoScreen)??;
    // One line is typed as keys would type it; what would act by itself in the middle, line ends above all, comes as one paste.
    let is_line = !text.contains(char::is_control);
    let mut bytes = keys::paste(&Modes { bracketed_paste: modes.bracketed_paste && !is_line, ..modes }, text);
    if enter {
        bytes.extend_from_slice(&keys::encode(&modes, Key::from(KeyCode::Enter)));
    }
    tokio::time::timeout(PATIENCE, put(&mut sender, &mut receiver, &bytes)).await.map_err(|_| TypeError::Late)?
}

/// What the program has switched on, from the screen that every viewer is shown first.
async fn modes(receiver: &mut ViewerReceiver) -> Result<Modes, TypeError> {
    let mut snapshot = Vec::new();
    while let Ok(Some(message)) = receiver.recv().await {
        let Ok(TerminalMessage::Snapshot { part, parts, bytes, .. }) = TerminalMessage::decode(&message) else {
            continue;
        };
        if part == 0 {
            snapshot.clear();
        }
        if snapshot.len() + bytes.len() > MAX_SNAPSHOT {
            return Err(TypeError::NoScreen);
        }
        snapshot.extend_from_slice(bytes);
        if part + 1 == parts {
            let screen = Screen::restore(&snapshot, 0).map_err(|_| TypeError::NoScreen)?;
            return Ok(*screen.modes());
        }
    }
    Err(TypeError::NoScreen)
}

/// Sends the input and waits until the terminal has all of it.
async fn put(sender: &mut ViewerSender, receiver: &mut ViewerReceiver, bytes: &[u8]) -> Result<(), TypeError> {
    let mut offset = 0;
    for chunk in bytes.chunks(MAX_CHUNK) {
        let message = TerminalMessage::Input { offset, bytes: chunk }.to_vec();
        sender.send(&message).await.map_err(|_| TypeError::Lost)?;
        offset += chunk.len() as u64;
    }
    while let Ok(Some(message)) = receiver.recv().await {
        match TerminalMessage::decode(&message) {
            Ok(TerminalMessage::InputTaken { offset: taken }) if taken >= offset => return Ok(()),
            Ok(TerminalMessage::Exited { .. }) => return Err(TypeError::Ended),
            _ => {}
        }
    }
    Err(TypeError::Lost)
}
