//! One caller: the command line, or another device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_rpc::{Attached, CallError, Capability, ErrorCode, Role, SessionAttach};
use happy_wire::{Code, terminal};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::daemon::{Daemon, socket};
use crate::service::line::CallName;
use crate::service::{Line, terminal as pump};
use crate::session::AttachRequest;

/// The most attachments of one caller: each costs a connection to a holder and a place among its viewers. A phone shows one
/// or two, a desk perhaps twenty.
pub const MAX_ATTACHMENTS: usize = 64;
/// Messages of one channel that wait for the session. On a link they are bounded by its credit of 512 KiB (`PROTOCOL 9`), and an
/// input message has at least nine bytes, so a peer that keeps to the protocol never meets this bound.
const INBOX: usize = 64 * 1024;
/// `session.attach` may overtake the opening of its channel, since calls have the right of way; never by more than this.
const CHANNEL_WAIT: Duration = Duration::from_secs(5);

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The person at this machine.
    Local,
    /// Another device.
    Device(DeviceId),
}

/// One caller, for as long as its connection or link lives.
pub struct Caller {
    daemon: Arc<Daemon>,
    who: Who,
    line: Line,
    channels: Mutex<HashMap<u32, ChannelState>>,
    opened: Notify,
    /// `PROTOCOL 10`: the calls that one caller may have outstanding.
    running: Arc<Semaphore>,
}

struct ChannelState {
    inbox: mpsc::Sender<Vec<u8>>,
    /// Until an attachment takes it.
    waiting: Option<mpsc::Receiver<Vec<u8>>>,
    attachment: Option<(Uuid, AbortHandle)>,
}

impl Drop for ChannelState {
    fn drop(&mut self) {
        if let Some((_, pump)) = &self.attachment {
            pump.abort();
        }
    }
}

impl Caller {
    /// A caller with its way back.
    pub fn new(daemon: Arc<Daemon>, who: Who, line: Line) -> Arc<Caller> {
        let running = Arc::new(Semaphore::new(happy_wire::call::MAX_OUTSTANDING));
        Arc::new(Caller { daemon, who, line, channels: Mutex::default(), opened: Notify::new(), running })
    }

    /// The machine that is called.
    pub fn daemon(&self) -> &Arc<Daemon> {
        &self.daemon
    }

    /// The way back.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The calling device; none for the person at this machine.
    pub fn device(&self) -> Option<DeviceId> {
        match self.who {
            Who::Local => None,
            Who::Device(device) => Some(device),
        }
    }

    /// What the caller is now; none when it is no longer a member.
    pub fn role(&self) -> Option<Role> {
        match self.who {
            // Whoever can open the 0600 socket is the owner of this machine.
            Who::Local => Some(Role::Owner),
            Who::Device(device) => self.daemon.roster().role_of(&device).map(super::role),
        }
    }

    /// Runs a request and answers it, in a task of its own.
    pub fn request(self: &Arc<Self>, id: CallName, body: Vec<u8>) {
        let caller = self.clone();
        let permit = self.running.clone().try_acquire_owned();
        tokio::spawn(async move {
            let Ok(_permit) = permit else {
                let busy = CallError::new(ErrorCode::TooMany, "too many calls are running; wait for one to end");
                return caller.line.respond(id, happy_rpc::refusal(&busy)).await;
            };
            let answer = super::answer(&caller, &body).await;
            caller.line.respond(id, answer).await;
        });
    }

    /// A channel was opened by the caller.
    ///
    /// # Errors
    /// The code and reason with which it is to be closed.
    pub fn open(&self, channel: u32, label: &str) -> Result<(), (Code, &'static str)> {
        if label != terminal::LABEL {
            return Err((Code::MALFORMED, "a channel with this label is not known here"));
        }
        let mut channels = self.channels();
        if channels.len() >= socket::MAX_CHANNELS {
            return Err((Code::TOO_MANY, "too many channels are open"));
        }
        let (inbox, waiting) = mpsc::channel(INBOX);
        channels.insert(channel, ChannelState { inbox, waiting: Some(waiting), attachment: None });
        drop(channels);
        self.opened.notify_waiters();
        Ok(())
    }

    /// Where messages of a channel go; none when it is not open.
    pub fn inbox(&self, channel: u32) -> Option<mpsc::Sender<Vec<u8>>> {
        self.channels().get(&channel).map(|state| state.inbox.clone())
    }

    /// A channel was closed; its attachment ends, its session goes on.
    pub fn closed(&self, channel: u32) {
        self.channels().remove(&channel);
    }

    /// The caller is gone: every attachment ends.
    pub fn gone(&self) {
        self.channels().clear();
    }

    /// Checks that an attachment is the caller's own.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`].
    pub fn owns(&self, attachment: Uuid) -> Result<(), CallError> {
        let owned =
            self.channels().values().any(|state| state.attachment.as_ref().is_some_and(|(id, _)| *id == attachment));
        match owned {
            true => Ok(()),
            false => Err(CallError::new(ErrorCode::NotFound, "there is no such attachment; attach again")),
        }
    }

    /// Shows a session on a channel.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn attach(self: &Arc<Self>, role: Role, params: SessionAttach) -> Result<Attached, CallError> {
        let may_act = Capability::Act.granted_to(role);
        if !may_act && (params.lossless || params.take_control) {
            return Err(CallError::new(
                ErrorCode::NotPermitted,
                format!("the role {} may look, but not hold up or resize a program", super::role_name(role)),
            ));
        }
        let inbox = self.take_inbox(params.channel).await?;
        let channel = params.channel;
        let request = AttachRequest {
            session: params.session,
            writer: params.writer,
            name: params.name,
            from: params.from,
            scrollback: params.scrollback,
            lossless: params.lossless,
            cols: params.cols,
            rows: params.rows,
            take_control: params.take_control,
        };
        let viewer = match self.daemon.sessions().attach(request).await {
            Ok(viewer) => viewer,
            Err(error) => {
                self.closed(channel);
                self.line.close(channel, Code::GOODBYE, "the session was not attached").await;
                return Err(error.into());
            }
        };
        let (attached, sender, receiver) = viewer.split();
        let pump = tokio::spawn(pump::run(Arc::downgrade(self), channel, inbox, sender, receiver));
        let mut channels = self.channels();
        match channels.get_mut(&channel) {
            Some(state) => state.attachment = Some((attached.attachment, pump.abort_handle())),
            None => {
                pump.abort();
                return Err(CallError::new(ErrorCode::Conflict, "the channel was closed meanwhile"));
            }
        }
        Ok(attached)
    }

    async fn take_inbox(&self, channel: u32) -> Result<mpsc::Receiver<Vec<u8>>, CallError> {
        let wait = async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                if let Some(outcome) = self.try_take_inbox(channel) {
                    return outcome;
                }
                opened.await;
            }
        };
        tokio::time::timeout(CHANNEL_WAIT, wait)
            .await
            .unwrap_or_else(|_| Err(CallError::new(ErrorCode::NotFound, "open the channel before you attach to it")))
    }

    /// None while the channel is not open.
    fn try_take_inbox(&self, channel: u32) -> Option<Result<mpsc::Receiver<Vec<u8>>, CallError>> {
        let mut channels = self.channels();
        let attachments = channels.values().filter(|state| state.waiting.is_none()).count();
        let state = channels.get_mut(&channel)?;
        if attachments >= MAX_ATTACHMENTS {
            return Some(Err(CallError::new(ErrorCode::TooMany, "too many sessions are attached already")));
        }
        let taken = state.waiting.take();
        Some(taken.ok_or_else(|| CallError::new(ErrorCode::Conflict, "the channel shows a session already")))
    }

    fn channels(&self) -> MutexGuard<'_, HashMap<u32, ChannelState>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
