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
use crate::holder::state::MAX_VIEWERS;
use crate::service::line::CallName;
use crate::service::{Line, terminal as pump};
use crate::session::AttachRequest;

/// The most attachments of one caller: each costs a connection to a holder and a place among its viewers. A phone shows one
/// or two, a desk perhaps twenty.
pub const MAX_ATTACHMENTS: usize = 64;
/// Of these to the same session: a desk shows one twice or three times. Without this one device could take all of a session's places.
pub const MAX_ATTACHMENTS_TO_SESSION: usize = 4;
/// A session with so many viewers takes no more from other devices; the rest of its places is for the person at this machine.
const REMOTE_VIEWERS: u32 = MAX_VIEWERS as u32 / 4 * 3;
/// Channels of one caller that show nothing yet: each is to be attached within one round trip.
const MAX_UNATTACHED: usize = 16;
/// Messages of one channel that wait for the session. The credit of a link bounds their bytes (`PROTOCOL 9`) but not what many
/// tiny ones cost; a viewer that meets this bound attaches again and sends the same input in fewer messages.
const INBOX: usize = 1024;
/// Messages that wait on a channel that is not attached yet. A viewer learns where its input goes on only when it is.
const UNATTACHED_INBOX: usize = 8;
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
    channels: Mutex<Channels>,
    opened: Notify,
    /// `PROTOCOL 10`: the calls that one caller may have outstanding.
    running: Arc<Semaphore>,
}

/// The channels of one caller.
#[derive(Default)]
struct Channels {
    open: HashMap<u32, ChannelState>,
    /// Counts channels, of all link sessions.
    openings: u64,
    /// Counts link sessions as far as the numbers of channels tell them apart.
    numbering: u64,
    /// The last channel that was opened.
    last: u32,
}

struct ChannelState {
    /// Tells this channel from a later one of the same number.
    opening: u64,
    inbox: mpsc::Sender<Vec<u8>>,
    /// Until an attachment takes it.
    waiting: Option<mpsc::Receiver<Vec<u8>>>,
    /// What it is to show, from then on.
    shows: Option<Shows>,
    attachment: Option<(Uuid, AbortHandle)>,
}

/// A session, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shows {
    session: Uuid,
    writer: Uuid,
}

/// The receiving end of a channel.
#[derive(Debug)]
struct Taken {
    opening: u64,
    inbox: mpsc::Receiver<Vec<u8>>,
}

/// With which code and words a channel is closed.
type Refused = (Code, &'static str);

impl Channels {
    fn open(&mut self, channel: u32) -> Result<(), Refused> {
        if self.open.len() >= socket::MAX_CHANNELS {
            return Err((Code::TOO_MANY, "too many channels are open"));
        }
        if self.open.values().filter(|state| state.waiting.is_some()).count() >= MAX_UNATTACHED {
            return Err((Code::TOO_MANY, "too many channels are open and not attached"));
        }
        // PROTOCOL 9: numbers go up by two; a new link session counts from the start.
        if self.last != 0 && (channel <= self.last || channel.abs_diff(self.last) % 2 == 1) {
            self.numbering += 1;
        }
        self.last = channel;
        self.openings += 1;
        let (inbox, waiting) = mpsc::channel(INBOX);
        let state =
            ChannelState { opening: self.openings, inbox, waiting: Some(waiting), shows: None, attachment: None };
        self.open.insert(channel, state);
        Ok(())
    }

    /// Where a message goes; none when the channel is not open. A channel that must not carry the message is gone.
    fn inbox(&mut self, channel: u32, may_type: bool) -> Result<Option<mpsc::Sender<Vec<u8>>>, Refused> {
        let Some(state) = self.open.get(&channel) else { return Ok(None) };
        let refused = match &state.waiting {
            _ if !may_type => (Code::NOT_PERMITTED, "this device may look, but not type"),
            Some(waiting) if waiting.len() >= UNATTACHED_INBOX => {
                (Code::TOO_MANY, "attach to the channel before you type into it")
            }
            _ => return Ok(Some(state.inbox.clone())),
        };
        self.open.remove(&channel);
        Err(refused)
    }

    /// None while the channel is not open.
    fn take(&mut self, channel: u32, shows: Shows) -> Option<Result<Taken, CallError>> {
        let attached = self.open.values().filter(|state| state.waiting.is_none()).count();
        let to_session = self.showing(shows.session).filter(|other| other.writer != shows.writer).count();
        let state = self.open.get_mut(&channel)?;
        if attached >= MAX_ATTACHMENTS {
            return Some(Err(CallError::new(ErrorCode::TooMany, "too many sessions are attached already")));
        }
        if to_session >= MAX_ATTACHMENTS_TO_SESSION {
            let message = format!("this device shows that session {MAX_ATTACHMENTS_TO_SESSION} times already");
            return Some(Err(CallError::new(ErrorCode::TooMany, message)));
        }
        let Some(inbox) = state.waiting.take() else {
            return Some(Err(CallError::new(ErrorCode::Conflict, "the channel shows a session already")));
        };
        state.shows = Some(shows);
        Some(Ok(Taken { opening: state.opening, inbox }))
    }

    fn showing(&self, session: Uuid) -> impl Iterator<Item = Shows> {
        self.open.values().filter_map(|state| state.shows).filter(move |shows| shows.session == session)
    }

    /// The channel, unless it was closed and another one has its number.
    fn same(&mut self, channel: u32, opening: u64) -> Option<&mut ChannelState> {
        self.open.get_mut(&channel).filter(|state| state.opening == opening)
    }
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
        self.channels().open(channel)?;
        self.opened.notify_waiters();
        Ok(())
    }

    /// Where messages of a channel go; none when it is not open, or is closed because it must not carry any now.
    pub fn inbox(&self, channel: u32) -> Option<mpsc::Sender<Vec<u8>>> {
        let may_type = self.role().is_some_and(|role| Capability::Act.granted_to(role));
        let inbox = self.channels().inbox(channel, may_type);
        inbox.unwrap_or_else(|(code, reason)| {
            self.line.close_soon(channel, code, reason);
            None
        })
    }

    /// A channel was closed; its attachment ends, its session goes on.
    pub fn closed(&self, channel: u32) {
        self.channels().open.remove(&channel);
    }

    /// The caller is gone: every attachment ends.
    pub fn gone(&self) {
        self.channels().open.clear();
    }

    /// Checks that an attachment is the caller's own.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`].
    pub fn owns(&self, attachment: Uuid) -> Result<(), CallError> {
        let owned = self
            .channels()
            .open
            .values()
            .any(|state| state.attachment.as_ref().is_some_and(|(id, _)| *id == attachment));
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
        let channel = params.channel;
        let shows = Shows { session: params.session, writer: params.writer };
        self.leave_room(shows)?;
        let Taken { opening, inbox } = self.take_inbox(channel, shows).await?;
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
                if self.forget(channel, opening) {
                    self.line.close(channel, Code::GOODBYE, "the session was not attached").await;
                }
                return Err(error.into());
            }
        };
        let (attached, sender, receiver) = viewer.split();
        // Under the lock, so that the pump finds its channel; another one may have the number by now.
        let mut channels = self.channels();
        let Some(state) = channels.same(channel, opening) else {
            return Err(CallError::new(ErrorCode::Conflict, "the channel was closed meanwhile"));
        };
        let pump = tokio::spawn(pump::run(Arc::downgrade(self), channel, inbox, sender, receiver));
        state.attachment = Some((attached.attachment, pump.abort_handle()));
        Ok(attached)
    }

    /// Keeps other devices from taking the last places of a session; one that comes back takes its own.
    fn leave_room(&self, shows: Shows) -> Result<(), CallError> {
        if self.who == Who::Local || self.channels().showing(shows.session).any(|other| other.writer == shows.writer) {
            return Ok(());
        }
        match self.daemon.sessions().session(shows.session) {
            Some(session) if session.viewers >= REMOTE_VIEWERS => {
                let message = format!("{REMOTE_VIEWERS} viewers are attached to this session already");
                Err(CallError::new(ErrorCode::TooMany, message))
            }
            _ => Ok(()),
        }
    }

    /// Forgets a channel, unless another one has its number by now. Whether it was there.
    fn forget(&self, channel: u32, opening: u64) -> bool {
        let mut channels = self.channels();
        channels.same(channel, opening).is_some() && channels.open.remove(&channel).is_some()
    }

    async fn take_inbox(&self, channel: u32, shows: Shows) -> Result<Taken, CallError> {
        let numbering = self.channels().numbering;
        let wait = async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                {
                    let mut channels = self.channels();
                    if channels.numbering != numbering {
                        // What has that number now was opened for something else.
                        return Err(CallError::new(
                            ErrorCode::Conflict,
                            "the channel went with its link; open another",
                        ));
                    }
                    if let Some(outcome) = channels.take(channel, shows) {
                        return outcome;
                    }
                }
                opened.await;
            }
        };
        tokio::time::timeout(CHANNEL_WAIT, wait)
            .await
            .unwrap_or_else(|_| Err(CallError::new(ErrorCode::NotFound, "open the channel before you attach to it")))
    }

    fn channels(&self) -> MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(session: Uuid) -> Shows {
        Shows { session, writer: Uuid::new_v4() }
    }

    #[test]
    fn what_nobody_attached_stores_next_to_nothing() {
        let mut channels = Channels::default();
        for channel in 0..MAX_UNATTACHED as u32 {
            channels.open(1 + 2 * channel).unwrap();
        }
        let another = 1 + 2 * MAX_UNATTACHED as u32;
        assert_eq!(channels.open(another).unwrap_err().0, Code::TOO_MANY);
        for _ in 0..UNATTACHED_INBOX {
            channels.inbox(1, true).unwrap().unwrap().try_send(vec![0]).unwrap();
        }
        assert_eq!(channels.inbox(1, true).unwrap_err().0, Code::TOO_MANY);
        assert!(channels.inbox(1, true).unwrap().is_none(), "the channel is closed");
        channels.open(another).unwrap();

        // Attached, it takes more, and not without a bound.
        let _taken = channels.take(3, shows(Uuid::new_v4())).unwrap().unwrap();
        let sent =
            (0..2 * INBOX).filter(|_| channels.inbox(3, true).unwrap().unwrap().try_send(vec![0]).is_ok()).count();
        assert_eq!(sent, INBOX);
    }

    #[test]
    fn what_a_viewer_types_is_refused_before_it_is_stored() {
        let mut channels = Channels::default();
        channels.open(1).unwrap();
        assert_eq!(channels.inbox(1, false).unwrap_err().0, Code::NOT_PERMITTED);
        assert!(channels.open.is_empty());
        assert!(channels.inbox(1, false).unwrap().is_none());
    }

    #[test]
    fn one_caller_cannot_take_all_places_of_a_session() {
        let (mut channels, session) = (Channels::default(), Uuid::new_v4());
        let mut next = 1;
        let mut attach = |shows: Shows| {
            next += 2;
            channels.open(next).unwrap();
            let outcome = channels.take(next, shows).unwrap();
            outcome.map(drop).map_err(|error| error.code)
        };
        let first = shows(session);
        attach(first).unwrap();
        for _ in 1..MAX_ATTACHMENTS_TO_SESSION {
            attach(shows(session)).unwrap();
        }
        assert_eq!(attach(shows(session)), Err(ErrorCode::TooMany));
        attach(shows(Uuid::new_v4())).unwrap();
    }

    #[test]
    fn a_channel_is_not_taken_for_a_later_one_of_its_number() {
        let mut channels = Channels::default();
        channels.open(1).unwrap();
        channels.open(3).unwrap();
        let taken = channels.take(3, shows(Uuid::new_v4())).unwrap().unwrap();
        assert_eq!(channels.numbering, 0);
        // The link session is replaced, and the numbers begin again.
        channels.open.clear();
        channels.open(1).unwrap();
        assert_eq!(channels.numbering, 1);
        channels.open(3).unwrap();
        assert!(channels.same(3, taken.opening).is_none());
        // The other side begins the next one: its numbers are even.
        channels.open(4).unwrap();
        assert_eq!(channels.numbering, 2);
    }
}
