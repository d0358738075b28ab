//! Speaking to a holder: connecting, and the task that steers it.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::BufMut;
use happy_rpc::SessionState;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::error::ConnectError;
use super::{ASKS, Ask, ControlError, Entry, HOLDER_DEADLINE, Shared, apply};
use crate::holder::protocol::{
    FrameError, FrameReader, FrameWriter, Refusal, Response, Status, VERSION, kind, put_frame, put_json, read_first,
    read_json,
};
use crate::holder::spec::{Description, SessionDir};

pub(super) type Reader = FrameReader<OwnedReadHalf>;
pub(super) type Writer = FrameWriter<OwnedWriteHalf>;

/// Requests that wait for the holder's answer. It answers in order and at once; more means that it is stuck.
const MAX_UNANSWERED: usize = 64;

/// Opens a connection whose first frame is written by `first`, and reads the answer, which must be of kind `wanted`.
pub(super) async fn connect<T: DeserializeOwned>(
    socket: &Path,
    first: impl FnOnce(&mut bytes::BytesMut),
    wanted: u8,
) -> Result<(T, Reader, Writer), ConnectError> {
    let connected = async {
        let stream = UnixStream::connect(socket).await?;
        if stream.peer_cred()?.uid() != rustix::process::getuid().as_raw() {
            return Err(ConnectError::Stranger);
        }
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (FrameReader::new(reader), FrameWriter::new(writer));
        first(writer.buffer());
        writer.flush().await?;
        let frame = reader.next().await?.ok_or(FrameError::Cut)?;
        match frame.split_first() {
            Some((&got, body)) if got == wanted => Ok((read_first(body)?, reader, writer)),
            Some((&kind::REFUSED, body)) => Err(ConnectError::Refused(read_json::<Refusal>(body)?)),
            _ => Err(ConnectError::Protocol),
        }
    };
    tokio::time::timeout(HOLDER_DEADLINE, connected).await.unwrap_or(Err(ConnectError::Late))
}

/// A holder that was reached, and what it said first.
pub(super) struct Reached {
    pub(super) entry: Entry,
    pub(super) listening: Listening,
}

/// The connection to a holder, on which nobody listens yet.
pub(super) struct Listening {
    steering: Steering,
    reader: Reader,
    writer: Writer,
}

impl Listening {
    /// Keeps a task that steers the holder and listens to it. To be called when the entry is on the list: what the holder says of a session that is
    /// not there, its end too, would be lost.
    pub(super) fn begin(self) {
        tokio::spawn(self.steering.run(self.reader, self.writer));
    }
}

/// Connects to a holder.
pub(super) async fn steer(
    shared: &Arc<Shared>,
    description: &Description,
    dir: &SessionDir,
) -> Result<Reached, ConnectError> {
    let first = |out: &mut bytes::BytesMut| put_frame(out, kind::CONTROL, |out| out.put_u8(VERSION));
    let (status, reader, writer) = connect::<Status>(&description.socket, first, kind::CONTROLLED).await?;
    let mut entry = Entry::new(description, dir.clone());
    entry.session.state = SessionState::Running;
    apply(&mut entry.session, &status);
    // Whoever asks for the lists is told; an event would tell of a session that nobody knows yet.
    super::prompts::take_in(&mut entry, &status);
    let (holder, asks) = mpsc::channel(ASKS);
    let steering = Steering { shared: Arc::downgrade(shared), id: description.id, asks, unanswered: VecDeque::new() };
    let entry = Entry {
        kept: status.output_offset.saturating_sub(status.kept_from),
        bytes_in: status.bytes_in,
        build: status.build,
        holder: Some(holder),
        guest: description.tmux.clone().map(super::tmux::Guest::listed),
        ..entry
    };
    Ok(Reached { entry, listening: Listening { steering, reader, writer } })
}

struct Steering {
    /// Weak, so that the last [`super::Sessions`] takes its connections with it.
    shared: Weak<Shared>,
    id: Uuid,
    asks: mpsc::Receiver<Ask>,
    unanswered: VecDeque<oneshot::Sender<Result<Status, ControlError>>>,
}

impl Steering {
    async fn run(mut self, mut reader: Reader, mut writer: Writer) {
        loop {
            tokio::select! {
                frame = reader.next() => match frame {
                    Ok(Some(frame)) => self.on_frame(&frame),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!("session {}: {error}", self.id);
                        break;
                    }
                },
                ask = self.asks.recv(), if self.unanswered.len() < MAX_UNANSWERED => match ask {
                    Some(Ask { request, answer }) => {
                        put_json(writer.buffer(), kind::REQUEST, None, &request);
                        self.unanswered.push_back(answer);
                        match tokio::time::timeout(HOLDER_DEADLINE, writer.flush()).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) | Err(_) => break,
                        }
                    }
                    // The daemon is done; the holder goes on.
                    None => return,
                },
            }
        }
        if let Some(shared) = self.shared.upgrade() {
            shared.holder_gone(self.id);
        }
    }

    fn on_frame(&mut self, frame: &[u8]) {
        let Some(shared) = self.shared.upgrade() else { return };
        match frame.split_first() {
            Some((&kind::STATUS, body)) => match read_json::<Status>(body) {
                Ok(status) => {
                    shared.glanced(self.id, &status);
                    shared.update(self.id, &status);
                }
                Err(refused) => tracing::warn!("session {}: {refused}", self.id),
            },
            Some((&kind::RESPONSE, body)) => {
                let outcome = match read_json::<Response>(body) {
                    Ok(Response::Ok(status)) => {
                        shared.glanced(self.id, &status);
                        shared.update(self.id, &status);
                        Ok(status)
                    }
                    Ok(Response::Error(refused)) | Err(refused) => Err(ControlError::Refused(refused)),
                };
                if let Some(waiting) = self.unanswered.pop_front() {
                    // Whoever asked may have stopped waiting.
                    let _ = waiting.send(outcome);
                }
            }
            // A later holder may say more than we understand.
            _ => tracing::debug!("session {}: a frame of unknown kind", self.id),
        }
    }
}
