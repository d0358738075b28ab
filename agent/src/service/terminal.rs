//! Between a terminal channel and a session: bytes as they are, both ways, each side at the pace of the other.

use std::sync::Weak;

use happy_link::ChannelName;
use happy_rpc::Capability;
use happy_wire::Code;
use happy_wire::terminal::TerminalMessage;
use tokio::sync::mpsc;

use crate::service::caller::Place;
use crate::service::{Caller, Gone};
use crate::session::{ViewerError, ViewerReceiver, ViewerSender};

/// Runs an attachment until one side ends it, then closes the channel. Only a holder that granted credit is sent more than input.
pub async fn run(
    caller: Weak<Caller>,
    place: Place,
    inbox: mpsc::Receiver<Vec<u8>>,
    sender: (ViewerSender, bool),
    receiver: ViewerReceiver,
) {
    let end = tokio::select! {
        end = output(&caller, place.channel, receiver) => end,
        end = input(&caller, place.channel, inbox, sender) => end,
    };
    let Some(caller) = caller.upgrade() else { return };
    if let Some((code, reason)) = end {
        caller.line().close(place.channel, code, &reason).await;
    }
    // Last, since it aborts the task that runs this. Another channel may have the number by now.
    caller.ended(place);
}

/// Why a channel is to be closed; none when the caller is gone or has closed it.
type End = Option<(Code, String)>;

async fn output(caller: &Weak<Caller>, channel: ChannelName, mut receiver: ViewerReceiver) -> End {
    loop {
        match receiver.recv().await {
            Ok(Some(message)) => {
                let line = caller.upgrade()?.line().clone();
                if let Err(Gone) = line.send(channel, message.into()).await {
                    return None;
                }
            }
            Ok(None) => return Some((Code::GOODBYE, String::new())),
            Err(ViewerError::Refused(refusal)) => return Some((Code(refusal.code), refusal.to_string())),
            Err(error) => {
                tracing::warn!(%error, "an attachment broke");
                return Some((Code::RESTARTING, "the session's process cannot be reached".into()));
            }
        }
    }
}

async fn input(
    caller: &Weak<Caller>,
    channel: ChannelName,
    mut inbox: mpsc::Receiver<Vec<u8>>,
    (mut sender, credit): (ViewerSender, bool),
) -> End {
    while let Some(message) = inbox.recv().await {
        match TerminalMessage::decode(&message) {
            Ok(TerminalMessage::Input { .. }) => {
                let role = caller.upgrade()?.role();
                if !role.is_some_and(|role| Capability::Act.granted_to(role)) {
                    return Some((Code::NOT_PERMITTED, "this device may look, but not type".into()));
                }
            }
            Ok(TerminalMessage::Drawn { .. } | TerminalMessage::HistoryWanted { .. }) if credit => {}
            _ => return Some((Code::MALFORMED, "only what viewers send may be sent on this channel".into())),
        }
        if sender.send(&message).await.is_err() {
            // The receiver is told why; it ends the attachment.
            return std::future::pending().await;
        }
        let line = caller.upgrade()?.line().clone();
        line.consumed(channel, message.len()).await;
    }
    None
}
