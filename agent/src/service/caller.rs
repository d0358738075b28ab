//! One caller: the command line, or another device.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_link::ChannelName;
use happy_rpc::{Attached, Call, CallError, Capability, ErrorCode, Role, SessionAttach};
use happy_wire::{Code, terminal};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::daemon::{Daemon, socket};
use crate::holder::state::MAX_VIEWERS;
use crate::service::line::CallName;
use crate::service::load::Load;
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
/// The longest reason for which a call is not begun, bytes: a few sentences. A link has at most 2,048 such refusals waiting.
const MAX_REASON: usize = 400;

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The person at this machine.
    Local,
    /// A program inside of this session, on the local socket.
    Inside(Uuid),
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
    load: Load,
}

/// One link session of a caller, as the [router](crate::daemon::router) has told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkSession(u64);

/// A channel, and no later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// How it is addressed.
    pub(super) channel: ChannelName,
    opening: u64,
}

/// The channels of one caller.
#[derive(Default)]
struct Channels {
    open: HashMap<u32, ChannelState>,
    /// Counts channels, of all link sessions.
    openings: u64,
    session: LinkSession,
}

struct ChannelState {
    place: Place,
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
    place: Place,
    inbox: mpsc::Receiver<Vec<u8>>,
}

/// With which code and words a channel is closed.
type Refused = (Code, &'static str);

/// A channel that is gone here and has to be closed at the caller's side.
#[derive(Debug)]
struct ToClose(ChannelName, Refused);

impl Channels {
    fn open(&mut self, channel: ChannelName) -> Result<(), Refused> {
        if self.open.len() >= socket::MAX_CHANNELS {
            return Err((Code::TOO_MANY, "too many channels are open"));
        }
        if self.open.values().filter(|state| state.waiting.is_some()).count() >= MAX_UNATTACHED {
            return Err((Code::TOO_MANY, "too many channels are open and not attached"));
        }
        self.openings += 1;
        let place = Place { channel, opening: self.openings };
        let (inbox, waiting) = mpsc::channel(INBOX);
        let state = ChannelState { place, inbox, waiting: Some(waiting), shows: None, attachment: None };
        self.open.insert(channel.number(), state);
        Ok(())
    }

    /// The channels of the last session went with it.
    fn next_session(&mut self) {
        self.session.0 += 1;
        self.open.clear();
    }

    /// Where a message goes; none when the channel is not open. A channel that must not carry the message is gone.
    fn inbox(&mut self, channel: u32, may_type: bool) -> Result<Option<mpsc::Sender<Vec<u8>>>, ToClose> {
        let Some(state) = self.open.get(&channel) else { return Ok(None) };
        let refused = match &state.waiting {
            _ if !may_type => (Code::NOT_PERMITTED, "this device may look, but not type"),
            Some(waiting) if waiting.len() >= UNATTACHED_INBOX => {
                (Code::TOO_MANY, "attach to the channel before you type into it")
            }
            _ => return Ok(Some(state.inbox.clone())),
        };
        let name = state.place.channel;
        self.open.remove(&channel);
        Err(ToClose(name, refused))
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
        Some(Ok(Taken { place: state.place, inbox }))
    }

    fn showing(&self, session: Uuid) -> impl Iterator<Item = Shows> {
        self.open.values().filter_map(|state| state.shows).filter(move |shows| shows.session == session)
    }

    /// The channel, unless it was closed and another one has its number.
    fn same(&mut self, place: Place) -> Option<&mut ChannelState> {
        self.open.get_mut(&place.channel.number()).filter(|state| state.place == place)
    }

    /// Forgets a channel, unless another one has its number by now. Whether it was there.
    fn forget(&mut self, place: Place) -> bool {
        self.same(place).is_some() && self.open.remove(&place.channel.number()).is_some()
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
        Arc::new(Caller { daemon, who, line, channels: Mutex::default(), opened: Notify::new(), load: Load::new() })
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
            Who::Local | Who::Inside(_) => None,
            Who::Device(device) => Some(device),
        }
    }

    /// The session that the caller runs in, if it is a program of one.
    pub fn inside(&self) -> Option<Uuid> {
        match self.who {
            Who::Inside(session) => Some(session),
            Who::Local | Who::Device(_) => None,
        }
    }

    /// How people know the caller.
    pub fn name(&self) -> String {
        let Some(device) = self.device() else { return "this machine".to_owned() };
        let roster = self.daemon.roster();
        let member = roster.members().into_iter().find(|member| member.device == device);
        member.map_or_else(|| device.short(), |member| member.name.clone())
    }

    /// What the caller is now; none when it is no longer a member.
    pub fn role(&self) -> Option<Role> {
        match self.who {
            // Whoever can open the 0600 socket is the owner of this machine.
            Who::Local => Some(Role::Owner),
            // What it types anywhere and whom it holds up is decided by this; calls by the table, which knows better.
            Who::Inside(_) => Some(Role::Viewer),
            Who::Device(device) => self.daemon.roster().role_of(&device).map(super::role),
        }
    }

    /// Runs a request and answers it, in a task of its own. Its body is not kept.
    pub fn request(self: &Arc<Self>, id: CallName, body: &[u8]) {
        let caller = self.clone();
        let admitted = self.load.admit(body);
        if let Ok((request, ..)) = &admitted {
            let device = self.device().map_or_else(|| "local".to_owned(), |device| device.short());
            tracing::debug!(%device, method = request.method(), "a call");
        }
        // Noted here and not in the task, which may begin when the next session has taken the place of this one.
        let session = self.channels().session;
        tokio::spawn(async move {
            let (answer, _held) = match admitted {
                Ok((request, command, share)) => {
                    let mut room = caller.load.room(&request).await;
                    let answer = fit(super::answer(&caller, session, request, command).await);
                    room.shrink(answer.len());
                    (answer, Some((share, room)))
                }
                Err(error) => (refusal(error), None),
            };
            caller.line.respond(id, answer).await;
        });
    }

    /// Runs a request for who waits for its answer here. It goes the way of one that came over a line, and runs to its end when nobody waits any more.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn ask<C: Call>(self: &Arc<Self>, call: C) -> Result<C::Output, CallError> {
        let (request, command, share) = self.load.admit(&call.to_body())?;
        tracing::debug!(device = "local", method = request.method(), "a call");
        let (caller, session) = (self.clone(), self.channels().session);
        let running = tokio::spawn(async move {
            let room = caller.load.room(&request).await;
            let answer = super::answer(&caller, session, request, command).await;
            (answer, share, room)
        });
        match running.await {
            Ok((answer, ..)) => C::read_answer(&answer),
            Err(_) => Err(CallError::new(ErrorCode::Indeterminate, "the daemon ends, or the call broke off")),
        }
    }

    /// The caller's link has a new session. What was asked for in the last one is not for channels of this one.
    pub fn next_session(&self) {
        self.channels().next_session();
        // Who waits for a channel waits in vain.
        self.opened.notify_waiters();
    }

    /// A channel was opened by the caller.
    ///
    /// # Errors
    /// The code and reason with which it is to be closed.
    pub fn open(&self, channel: ChannelName, label: &str) -> Result<(), (Code, &'static str)> {
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
        inbox.unwrap_or_else(|ToClose(channel, (code, reason))| {
            self.line.close_soon(channel, code, reason);
            None
        })
    }

    /// A channel was closed; its attachment ends, its session goes on.
    pub fn closed(&self, channel: u32) {
        self.channels().open.remove(&channel);
    }

    /// Closes a channel from this side.
    pub fn close(&self, channel: u32, code: Code, reason: &'static str) {
        let closed = self.channels().open.remove(&channel);
        if let Some(state) = closed {
            self.line.close_soon(state.place.channel, code, reason);
        }
    }

    /// An attachment has ended.
    pub(super) fn ended(&self, place: Place) {
        self.channels().forget(place);
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

    /// Shows a session on a channel of the link session that the call came in.
    ///
    /// # Errors
    /// What the caller is told.
    pub async fn attach(
        self: &Arc<Self>,
        role: Role,
        asked_in: LinkSession,
        params: SessionAttach,
    ) -> Result<Attached, CallError> {
        let may_act = Capability::Act.granted_to(role);
        if !may_act && (params.lossless || params.take_control) {
            return Err(CallError::new(
                ErrorCode::NotPermitted,
                format!("the role {} may look, but not hold up or resize a program", super::role_name(role)),
            ));
        }
        let shows = Shows { session: params.session, writer: params.writer };
        self.leave_room(shows)?;
        let Taken { place, inbox } = self.take_inbox(asked_in, params.channel, shows).await?;
        let request = AttachRequest {
            session: params.session,
            writer: params.writer,
            name: params.name,
            from: params.from,
            scrollback: params.scrollback,
            lossless: params.lossless,
            credit: params.credit,
            cols: params.cols,
            rows: params.rows,
            take_control: params.take_control,
        };
        let viewer = match self.daemon.sessions().attach(request).await {
            Ok(viewer) => viewer,
            Err(error) => {
                let was_open = self.channels().forget(place);
                if was_open {
                    self.line.close(place.channel, Code::GOODBYE, "the session was not attached").await;
                }
                return Err(error.into());
            }
        };
        let (attached, sender, receiver) = viewer.split();
        // Under the lock, so that the pump finds its channel; another one may have the number by now.
        let mut channels = self.channels();
        let Some(state) = channels.same(place) else {
            return Err(CallError::new(ErrorCode::Conflict, "the channel was closed meanwhile"));
        };
        let pump = tokio::spawn(pump::run(Arc::downgrade(self), place, inbox, (sender, attached.credit), receiver));
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

    async fn take_inbox(&self, asked_in: LinkSession, channel: u32, shows: Shows) -> Result<Taken, CallError> {
        let wait = async {
            loop {
                let opened = self.opened.notified();
                tokio::pin!(opened);
                opened.as_mut().enable();
                {
                    let mut channels = self.channels();
                    if channels.session != asked_in {
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

/// A refusal that has no room of its own among the answers, so it must not repeat what it refuses at length.
fn refusal(mut error: CallError) -> Vec<u8> {
    error.message.truncate(error.message.floor_char_boundary(MAX_REASON));
    happy_rpc::refusal(&error)
}

/// An answer that fits no message is replaced by a refusal rather than cut, before it is kept for a caller that may be slow.
fn fit(answer: Vec<u8>) -> Vec<u8> {
    if answer.len() <= happy_link::MAX_BODY {
        return answer;
    }
    happy_rpc::refusal(&CallError::new(ErrorCode::TooMany, "the answer is larger than a message may be"))
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
            channels.open((1 + 2 * channel).into()).unwrap();
        }
        let another = 1 + 2 * MAX_UNATTACHED as u32;
        assert_eq!(channels.open(another.into()).unwrap_err().0, Code::TOO_MANY);
        for _ in 0..UNATTACHED_INBOX {
            channels.inbox(1, true).unwrap().unwrap().try_send(vec![0]).unwrap();
        }
        assert_eq!(channels.inbox(1, true).unwrap_err().1.0, Code::TOO_MANY);
        assert!(channels.inbox(1, true).unwrap().is_none(), "the channel is closed");
        channels.open(another.into()).unwrap();

        // Attached, it takes more, and not without a bound.
        let _taken = channels.take(3, shows(Uuid::new_v4())).unwrap().unwrap();
        let sent =
            (0..2 * INBOX).filter(|_| channels.inbox(3, true).unwrap().unwrap().try_send(vec![0]).is_ok()).count();
        assert_eq!(sent, INBOX);
    }

    #[test]
    fn what_a_viewer_types_is_refused_before_it_is_stored() {
        let mut channels = Channels::default();
        channels.open(1.into()).unwrap();
        assert_eq!(channels.inbox(1, false).unwrap_err().1.0, Code::NOT_PERMITTED);
        assert!(channels.open.is_empty());
        assert!(channels.inbox(1, false).unwrap().is_none());
    }

    #[test]
    fn one_caller_cannot_take_all_places_of_a_session() {
        let (mut channels, session) = (Channels::default(), Uuid::new_v4());
        let mut next = 1;
        let mut attach = |shows: Shows| {
            next += 2;
            channels.open(next.into()).unwrap();
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
        channels.open(1.into()).unwrap();
        let first = channels.take(1, shows(Uuid::new_v4())).unwrap().unwrap().place;
        // The link session is replaced, and a peer in a new life counts from the start.
        channels.next_session();
        assert!(channels.open.is_empty());
        channels.open(1.into()).unwrap();
        let second = channels.take(1, shows(Uuid::new_v4())).unwrap().unwrap().place;
        // The end of the first attachment comes late.
        assert!(channels.same(first).is_none());
        assert!(!channels.forget(first));
        assert!(channels.forget(second));
    }
}
