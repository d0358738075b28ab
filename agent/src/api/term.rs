//! `/sessions/{id}/term`: a session on a websocket. Binary messages are those of `PROTOCOL 10.1`, as they are; texts are JSON: first what
//! was attached to, then calls about this attachment and their answers.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use happy_rpc::{
    Attached, Call, CallError, ErrorCode, Request, SessionAttach, SessionGiveControl, SessionTakeControl,
    TerminalResize,
};
use happy_wire::{Code, terminal};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::api::Api;
use crate::api::connection::Place;
use crate::api::guard::MAX_BODY;
use crate::api::refusal::Refusal;
use crate::daemon::server::OUT_QUEUE;
use crate::daemon::socket::{CONTROL, Control};
use crate::service::{Caller, Line, Who};

/// The subprotocol that is spoken.
pub const PROTOCOL: &str = "happy-terminal.v1";
/// The only channel of a websocket.
const CHANNEL: u32 = 1;
/// A message that the client has not taken by then ends the connection.
const WRITE_TIME: Duration = Duration::from_secs(60);
/// A program that reads no input for so long, with an inbox full of it, loses the connection.
const INPUT_TIME: Duration = Duration::from_secs(30);
/// So often a client is asked whether it is there; it has as long to say so.
const PING: Duration = Duration::from_secs(30);
/// How long a client may take to answer the end of the websocket, or to take ours.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Answers that wait for the client.
const ANSWERS: usize = 16;

/// How a session is attached to (`session.attach`).
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct TermParams {
    /// Whose input offsets these are: chosen by the viewer, kept across reconnects. A fresh one when missing.
    pub writer: Option<Uuid>,
    /// The viewer's name for people; `local API` when missing.
    #[serde(default)]
    pub name: Option<String>,
    /// The output offset to go on from; a snapshot when missing or no longer kept.
    pub from: Option<u64>,
    /// How many scrolled-off rows a snapshot shall carry; none when missing.
    pub scrollback: Option<u32>,
    /// Never skip output; the program waits for this viewer.
    pub lossless: Option<bool>,
    /// The viewer tells what it has drawn, and asks for history.
    pub credit: Option<bool>,
    /// The viewer's own size, columns; 80 when missing.
    pub cols: Option<u16>,
    /// The viewer's own size, rows; 24 when missing.
    pub rows: Option<u16>,
    /// Decide the size from the start.
    pub take_control: Option<bool>,
}

/// Attaches, and goes on as a websocket.
///
/// # Errors
/// When the session cannot be attached to.
pub async fn attach(
    api: &Arc<Api>,
    session: Uuid,
    params: TermParams,
    upgrade: WebSocketUpgrade,
    place: Option<Place>,
) -> Result<Response, Refusal> {
    let (line, messages) = mpsc::channel(OUT_QUEUE);
    let caller = Caller::new(api.daemon.clone(), Who::Local, Line::Local(line));
    let attachment = Attachment(caller);
    let opened = attachment.0.open(CHANNEL.into(), terminal::LABEL);
    opened.map_err(|(_, reason)| CallError::new(ErrorCode::Failed, reason))?;
    let attached = attachment.0.ask(SessionAttach {
        session,
        channel: CHANNEL,
        writer: params.writer.unwrap_or_else(Uuid::new_v4),
        name: params.name.unwrap_or_else(|| "local API".to_owned()),
        from: params.from,
        scrollback: params.scrollback.unwrap_or(0),
        lossless: params.lossless.unwrap_or(false),
        credit: params.credit.unwrap_or(false),
        cols: params.cols.unwrap_or(80),
        rows: params.rows.unwrap_or(24),
        take_control: params.take_control.unwrap_or(false),
    });
    let attached = attached.await?;
    let upgrade = upgrade.protocols([PROTOCOL]).max_message_size(MAX_BODY).max_frame_size(MAX_BODY);
    // Dropped with the attachment when the client does not go on.
    Ok(upgrade.on_upgrade(move |socket| serve(socket, attachment, attached, messages, place)))
}

/// An attachment; it ends when this is dropped.
struct Attachment(Arc<Caller>);

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.gone();
    }
}

async fn serve(
    socket: WebSocket,
    attachment: Attachment,
    attached: Attached,
    messages: mpsc::Receiver<(u32, Vec<u8>)>,
    _place: Option<Place>,
) {
    let (mut sink, mut stream) = socket.split();
    let (answer, answers) = mpsc::channel(ANSWERS);
    let first = serde_json::to_string(&attached).unwrap_or_default();
    tokio::select! {
        () = write(&mut sink, first, messages, answers) => {}
        () = read(&mut stream, &attachment.0, attached.attachment, answer) => {}
    }
    drop(attachment);
    // RFC 6455, 5.5.1: a Close is answered with a Close. What is unread when a socket is dropped has the system reset the
    // connection, which may take our Close away from the client, so it is read to its end.
    let end = async {
        let _ = sink.close().await;
        while let Some(Ok(_)) = stream.next().await {}
    };
    let _ = tokio::time::timeout(CLOSE_TIME, end).await;
}

async fn write(
    sink: &mut SplitSink<WebSocket, Message>,
    first: String,
    mut messages: mpsc::Receiver<(u32, Vec<u8>)>,
    mut answers: mpsc::Receiver<String>,
) {
    let mut next = Message::Text(first.into());
    let mut pings = tokio::time::interval(PING);
    pings.tick().await;
    loop {
        let is_last = matches!(next, Message::Close(_));
        if !matches!(tokio::time::timeout(WRITE_TIME, sink.send(next)).await, Ok(Ok(()))) || is_last {
            return;
        }
        next = tokio::select! {
            message = messages.recv() => match message {
                Some((CHANNEL, bytes)) => Message::Binary(bytes.into()),
                Some((CONTROL, control)) => match Control::decode(&control) {
                    Ok(Control::Close { code, reason, .. }) => close(code, reason),
                    _ => continue_with_nothing(),
                },
                Some(_) => continue_with_nothing(),
                None => close(Code::GOODBYE.0, String::new()),
            },
            Some(answer) = answers.recv() => Message::Text(answer.into()),
            _ = pings.tick() => Message::Ping(Default::default()),
        };
    }
}

/// In the place of what is no business of a client.
fn continue_with_nothing() -> Message {
    Message::Pong(Default::default())
}

fn close(code: u16, reason: String) -> Message {
    // A reason has at most 123 bytes (RFC 6455, 5.5).
    let reason = reason[..reason.floor_char_boundary(123)].to_owned();
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

async fn read(
    stream: &mut SplitStream<WebSocket>,
    caller: &Arc<Caller>,
    attachment: Uuid,
    answer: mpsc::Sender<String>,
) {
    // Two pings without a word.
    while let Ok(Some(Ok(message))) = tokio::time::timeout(2 * PING, stream.next()).await {
        match message {
            Message::Binary(bytes) => {
                // It is closed, and the reason is on its way.
                let Some(inbox) = caller.inbox(CHANNEL) else { continue };
                if tokio::time::timeout(INPUT_TIME, inbox.send(bytes.into())).await.is_err() {
                    caller.close(CHANNEL, Code::TOO_MANY, "the program does not read its input");
                }
            }
            Message::Text(text) => {
                if answer.send(answer_to(caller, attachment, &text).await).await.is_err() {
                    return;
                }
            }
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return,
        }
    }
}

/// A call about this attachment, on its websocket.
#[derive(Deserialize)]
struct Asked {
    id: u64,
    #[serde(flatten)]
    request: Request,
}

/// What can be read of a call that cannot be read as a whole.
#[derive(Deserialize)]
struct Named {
    id: u64,
}

/// Its answer.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Answered<T> {
    Ok(T),
    Error(CallError),
}

#[derive(Serialize)]
struct Answer<T> {
    id: Option<u64>,
    #[serde(flatten)]
    outcome: Answered<T>,
}

async fn answer_to(caller: &Arc<Caller>, attachment: Uuid, text: &str) -> String {
    let (id, outcome) = match serde_json::from_str::<Asked>(text) {
        Ok(Asked { id, request }) => (Some(id), ask(caller, attachment, request).await),
        Err(error) => {
            let id = serde_json::from_str(text).ok().map(|Named { id }| id);
            (id, Err(CallError::new(ErrorCode::Malformed, format!("the call cannot be read: {error}"))))
        }
    };
    let outcome = match outcome {
        Ok(done) => Answered::Ok(done),
        Err(error) => Answered::Error(error),
    };
    serde_json::to_string(&Answer { id, outcome }).unwrap_or_default()
}

async fn ask(caller: &Arc<Caller>, attachment: Uuid, request: Request) -> Result<happy_rpc::Done, CallError> {
    match request {
        Request::SessionTakeControl(params) => {
            own(caller, attachment, params.attachment, SessionTakeControl { ..params }).await
        }
        Request::SessionGiveControl(params) => {
            own(caller, attachment, params.attachment, SessionGiveControl { ..params }).await
        }
        Request::TerminalResize(params) => {
            own(caller, attachment, params.attachment, TerminalResize { ..params }).await
        }
        _ => Err(CallError::new(
            ErrorCode::NotPermitted,
            "on this websocket there are session.take_control, session.give_control and terminal.resize",
        )),
    }
}

async fn own<C: Call>(caller: &Arc<Caller>, own: Uuid, named: Uuid, call: C) -> Result<C::Output, CallError> {
    if own != named {
        return Err(CallError::new(ErrorCode::NotFound, "this is not the attachment of this websocket"));
    }
    caller.ask(call).await
}
