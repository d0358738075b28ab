//! One viewer of one session: a connection of its own to the holder, so that a slow one holds up nobody else.

use std::sync::{Arc, Weak};

use bytes::{BufMut, Bytes};
use happy_rpc::{SessionAttach, SessionState};
use uuid::Uuid;

use super::client::{self, Reader, Writer};
use super::error::ConnectError;
use super::{AttachError, Shared, ViewerError, apply, tmux};
use crate::holder::protocol::{self, MAX_FRAME, VERSION, kind, put_frame, put_json, read_json, refusal};

/// What a viewer asks for; [`From`] the parameters of `session.attach`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Which session.
    pub session: Uuid,
    /// Whose input offsets these are. An older attachment of the same writer is displaced, and its control is inherited.
    pub writer: Uuid,
    /// The viewer's name for people.
    pub name: String,
    /// The output offset to go on from; a snapshot when missing or no longer kept.
    pub from: Option<u64>,
    /// How many scrolled-off rows a snapshot shall carry.
    pub scrollback: u32,
    /// Never skip output; the program waits for this viewer.
    pub lossless: bool,
    /// The viewer tells what it has drawn.
    pub credit: bool,
    /// The viewer's own size.
    pub cols: u16,
    /// The viewer's own size.
    pub rows: u16,
    /// Decide the size, if nobody else does; taking it from somebody is [`super::Sessions::take_control`].
    pub take_control: bool,
}

impl From<SessionAttach> for AttachRequest {
    fn from(params: SessionAttach) -> Self {
        let SessionAttach {
            session,
            channel: _,
            writer,
            name,
            from,
            scrollback,
            lossless,
            credit,
            cols,
            rows,
            take_control,
        } = params;
        Self { session, writer, name, from, scrollback, lossless, credit, cols, rows, take_control }
    }
}

/// An attachment.
pub struct Viewer {
    attached: happy_rpc::Attached,
    sender: ViewerSender,
    receiver: ViewerReceiver,
}

impl Viewer {
    /// The answer for the caller, and both directions. The attachment ends when both halves are dropped.
    pub fn split(self) -> (happy_rpc::Attached, ViewerSender, ViewerReceiver) {
        (self.attached, self.sender, self.receiver)
    }
}

pub(super) async fn attach(shared: &Arc<Shared>, request: AttachRequest) -> Result<Viewer, AttachError> {
    tmux::host(shared, request.session).await?;
    match attach_to_holder(shared, request.clone()).await {
        // It was about to go since nobody looked.
        Err(AttachError::Unreachable(_) | AttachError::Ended) if shared.is_guest(request.session) => {
            tmux::until_gone(shared, request.session).await;
            tmux::host(shared, request.session).await?;
            attach_to_holder(shared, request).await
        }
        attached => attached,
    }
}

async fn attach_to_holder(shared: &Arc<Shared>, request: AttachRequest) -> Result<Viewer, AttachError> {
    let (mut session, socket) = {
        let entries = shared.entries();
        let entry = entries.get(&request.session).filter(|entry| entry.is_settled()).ok_or(AttachError::NoSession)?;
        if entry.holder.is_none() {
            return Err(AttachError::Ended);
        }
        (entry.session.clone(), entry.socket.clone())
    };
    // Named before the holder can show it to others, so that a request about it never comes too early.
    let guard = Attachment::register(shared, request.session);
    let attach = protocol::Attach {
        viewer: guard.id,
        writer: request.writer,
        name: request.name,
        from: request.from,
        scrollback: request.scrollback,
        lossless: request.lossless,
        credit: request.credit,
        cols: request.cols,
        rows: request.rows,
        take_control: request.take_control,
    };
    let first = |out: &mut bytes::BytesMut| put_json(out, kind::ATTACH, Some(VERSION), &attach);
    let (answer, reader, writer) =
        client::connect::<protocol::Attached>(&socket, first, kind::ATTACHED).await.map_err(|error| match error {
            // The holder went between our look at the list and now.
            ConnectError::Socket(_) if session.state != SessionState::Running => AttachError::Ended,
            other => AttachError::Unreachable(other),
        })?;
    apply(&mut session, &answer.status);
    let attached = happy_rpc::Attached {
        attachment: guard.id,
        input_offset: answer.input_offset,
        session,
        you_control: answer.you_control,
        credit: answer.credit,
    };
    Ok(Viewer { attached, sender: ViewerSender { writer }, receiver: ViewerReceiver { reader, _attachment: guard } })
}

/// From the viewer to the program.
pub struct ViewerSender {
    writer: Writer,
}

impl ViewerSender {
    /// Passes on one terminal message of a viewer, encoded. Waits while the program does not read what was typed. When it is cancelled the message may still be sent, whole, by the next call.
    ///
    /// # Errors
    /// [`ViewerError`]; the receiver says why the attachment ended.
    pub async fn send(&mut self, message: &[u8]) -> Result<(), ViewerError> {
        if message.len() >= MAX_FRAME {
            return Err(ViewerError::TooLarge(message.len()));
        }
        self.writer.flush().await?;
        put_frame(self.writer.buffer(), kind::TERMINAL, |out| out.put_slice(message));
        Ok(self.writer.flush().await?)
    }
}

/// From the program to the viewer.
pub struct ViewerReceiver {
    reader: Reader,
    _attachment: Attachment,
}

impl ViewerReceiver {
    /// The next encoded [`happy_wire::terminal::TerminalMessage`]; `None` when the attachment has ended without a fault. Cancel-safe.
    ///
    /// # Errors
    /// [`ViewerError::Refused`] with a code to pass on, or a broken connection: the holder has died.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, ViewerError> {
        loop {
            let Some(mut frame) = self.reader.next().await? else { return Ok(None) };
            let body = frame.split_off(1);
            match frame.first() {
                Some(&kind::TERMINAL) => return Ok(Some(body)),
                Some(&kind::REFUSED) => {
                    let refused = read_json::<protocol::Refusal>(&body)?;
                    return if refused.code == refusal::DETACHED { Ok(None) } else { Err(refused.into()) };
                }
                // A later holder may say more than we understand.
                _ => tracing::debug!("a viewer was sent a frame of unknown kind"),
            }
        }
    }
}

/// The name of an attachment, known as long as its receiver lives.
struct Attachment {
    id: Uuid,
    shared: Weak<Shared>,
}

impl Attachment {
    fn register(shared: &Arc<Shared>, session: Uuid) -> Self {
        let id = Uuid::new_v4();
        shared.attachments().insert(id, session);
        Self { id, shared: Arc::downgrade(shared) }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.attachments().remove(&self.id);
        }
    }
}
