//! Calls over channel 0 (`PROTOCOL 10`): every call runs at most once and gets exactly one answer.
//!
//! Calls outlive sessions. When a session is replaced, the calls that wait are sent again with the same ids if the callee is
//! still in the same life, for it remembers what it has run; if it is not, nobody can know what became of a call that had been
//! sent, and its caller is told so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use happy_wire::call::{CallMessage, MAX_OUTSTANDING};
use happy_wire::frame::MAX_MESSAGE;

use crate::batch::Batch;
use crate::channels::{SendError, Violation};
use crate::planted::{self, Bug};
use crate::suite::Life;

/// How long a caller waits unless it says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);
/// The largest body of a call, an answer or an event: a message without the nine bytes of its envelope.
pub const MAX_BODY: usize = MAX_MESSAGE - 9;
/// The bodies of the calls to one peer that wait for an answer, bytes.
pub const CALL_BYTES: usize = 4 * 1024 * 1024;
/// The answers kept for one peer, bytes. Answers that were not sent yet are never dropped for newer ones: these have to wait.
pub const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// The answers kept for one peer (`PROTOCOL 10`).
pub const KEPT_ANSWERS: usize = 1024;
/// The events that wait to be sent to one peer, bytes.
pub const EVENT_BYTES: usize = 256 * 1024;
/// What an event counts beside its body, so that a flood of empty ones is bounded as well.
const EVENT_COST: usize = 64;
/// Calls of one peer that this side works on, cancelled ones included: as many as a caller may have outstanding, and as many that it
/// has stopped waiting for.
const MAX_RUNNING: usize = 2 * MAX_OUTSTANDING;
/// Short answers that no handler made, waiting to be sent. A peer that provokes more without reading them is hostile.
const MAX_REFUSALS: usize = MAX_OUTSTANDING;

const BUSY: &[u8] = br#"{"error":{"code":"busy","message":"too many calls are running; try again later"}}"#;
const FORGOTTEN: &[u8] =
    br#"{"error":{"code":"indeterminate","message":"the call was run before and its answer is no longer kept"}}"#;

/// Names a call that this side made, unique per peer in this life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(crate) u64);

/// Names a call of a peer, unique per peer in this life: also when the peer restarts and counts from 1 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    generation: u64,
    id: u64,
}

/// The one answer that a call gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What the callee answered, a JSON object with `ok` or `error`.
    Body(Vec<u8>),
    /// The callee was restarted while the call was with it: it ran, or it did not.
    Indeterminate,
    /// The deadline passed. The call may still run, or have run.
    DeadlinePassed,
    /// The peer was removed, or has refused this device.
    LinkGone,
}

/// Why a call was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Too many calls, or too many bytes of them, wait for an answer.
    #[error("too many calls to this peer wait for an answer")]
    TooMany,
    /// The body is larger than the protocol carries.
    #[error("the body of a call holds at most {MAX_BODY} bytes")]
    TooLarge,
    /// The peer was never added, or was removed.
    #[error("the peer is not known")]
    UnknownPeer,
}

/// What calls mean for those above.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CallEvent {
    Request { id: RequestId, body: Vec<u8> },
    Cancelled(RequestId),
    Delivered(CallId),
    Answer { id: CallId, answer: Answer },
    Notice(Vec<u8>),
}

struct Call {
    body: Vec<u8>,
    deadline: Duration,
    /// The callee knows across its lives what it has run (`PROTOCOL 10.2`), so it may be asked again in the next.
    remembered: bool,
    /// The life of the callee in which the call was first sent.
    sent_to: Option<Life>,
}

enum Asked {
    Running { cancelled: bool },
    Answered { body: Vec<u8>, sent: bool },
}

enum Outgoing {
    Request(u64),
    Cancel(u64),
    Response(u64),
    Refusal { id: u64, body: &'static [u8] },
    Event(Vec<u8>),
}

/// The calls between this device and one peer, in both directions.
pub(crate) struct Calls {
    /// The callee's life in the current session; none without a session.
    session: Option<Life>,
    queue: VecDeque<Outgoing>,
    event_bytes: usize,
    /// Events that wait for others; counted in `event_bytes`.
    batch: Batch,
    refusals: usize,
    /// Somebody was told WouldBlock.
    blocked: bool,
    /// And since then something has left, so that there may be room.
    unblocked: bool,

    /// Commands that were handed to the channel of calls and may not be in a frame yet.
    taken: Vec<u64>,
    /// Commands and the frames that they end in, in order. At most as many as frames hold that are in flight.
    delivering: VecDeque<(u64, u64)>,

    next_id: u64,
    calls: BTreeMap<u64, Call>,
    call_bytes: usize,
    deadlines: BTreeSet<(Duration, u64)>,

    their_life: Option<Life>,
    generation: u64,
    highest: u64,
    asked: BTreeMap<u64, Asked>,
    /// Answered calls, the oldest first.
    answered: VecDeque<u64>,
    answer_bytes: usize,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            session: None,
            queue: VecDeque::new(),
            event_bytes: 0,
            batch: Batch::default(),
            refusals: 0,
            blocked: false,
            unblocked: false,
            taken: Vec::new(),
            delivering: VecDeque::new(),
            next_id: 1,
            calls: BTreeMap::new(),
            call_bytes: 0,
            deadlines: BTreeSet::new(),
            their_life: None,
            generation: 0,
            highest: 0,
            asked: BTreeMap::new(),
            answered: VecDeque::new(),
            answer_bytes: 0,
        }
    }

    // Below: sessions.

    /// A session has begun with a peer in that life. What waited in the queue of the last one is gone with it, except our calls.
    pub(crate) fn on_session(&mut self, life: Life, events: &mut Vec<CallEvent>) {
        self.on_session_end();
        self.session = Some(life);
        if self.their_life != Some(life) || planted::is(Bug::ForgetsWhatRan) {
            self.their_life = Some(life);
            self.generation += 1;
            self.highest = 0;
            self.asked.clear();
            self.answered.clear();
            self.answer_bytes = 0;
        }
        let asks_anyone = planted::is(Bug::AsksTheNextLife);
        let asks_anyone = |call: &Call| asks_anyone || call.remembered;
        let is_lost = |call: &Call| !asks_anyone(call) && call.sent_to.is_some_and(|sent_to| sent_to != life);
        let lost: Vec<u64> = self.calls.iter().filter(|(_, call)| is_lost(call)).map(|(id, _)| *id).collect();
        for id in lost {
            self.finish(id, Answer::Indeterminate, events);
        }
        if !planted::is(Bug::ForgetsCalls) {
            self.queue.extend(self.calls.keys().map(|id| Outgoing::Request(*id)));
        }
    }

    /// The session is over; calls wait for the next one.
    pub(crate) fn on_session_end(&mut self) {
        self.session = None;
        self.queue.clear();
        self.taken.clear();
        self.delivering.clear();
        self.batch = Batch::default();
        self.event_bytes = 0;
        // There is room, or nobody to send to: who was told to wait learns which.
        self.unblocked |= std::mem::take(&mut self.blocked) && !planted::is(Bug::ForgetsWhoWaits);
        self.refusals = 0;
        // Their sessions are gone, so nobody waits for these answers before asking again.
        for asked in self.asked.values_mut() {
            if let Asked::Answered { sent, .. } = asked {
                *sent = true;
            }
        }
    }

    /// There will be no further session: the peer is removed or wants nothing to do with us.
    pub(crate) fn on_gone(&mut self, events: &mut Vec<CallEvent>) {
        self.on_session_end();
        let waiting: Vec<u64> = self.calls.keys().copied().collect();
        for id in waiting {
            self.finish(id, Answer::LinkGone, events);
        }
    }

    // Below: the side of the application.

    pub(crate) fn call(
        &mut self,
        now: Duration,
        body: Vec<u8>,
        deadline: Option<Duration>,
        remembered: bool,
    ) -> Result<CallId, CallError> {
        if body.len() > MAX_BODY {
            return Err(CallError::TooLarge);
        }
        if self.calls.len() >= MAX_OUTSTANDING || self.call_bytes + body.len() > CALL_BYTES {
            return Err(CallError::TooMany);
        }
        let id = self.next_id;
        self.next_id += 1;
        let deadline = now.saturating_add(deadline.unwrap_or(DEFAULT_DEADLINE));
        self.call_bytes += body.len();
        self.deadlines.insert((deadline, id));
        self.calls.insert(id, Call { body, deadline, remembered, sent_to: None });
        if self.session.is_some() {
            self.queue.push_back(Outgoing::Request(id));
        }
        Ok(CallId(id))
    }

    /// The caller no longer wants the answer, and will get none.
    pub(crate) fn cancel(&mut self, id: CallId) {
        let Some(call) = self.forget(id.0) else { return };
        match self.session {
            // It still stands in the queue: it is never sent.
            Some(life) if call.sent_to != Some(life) => {
                self.queue.retain(|outgoing| !matches!(outgoing, Outgoing::Request(queued) if *queued == id.0));
            }
            Some(_) => self.queue.push_back(Outgoing::Cancel(id.0)),
            None => {}
        }
    }

    /// Whether the answer to that request is still wanted and not given.
    pub(crate) fn is_running(&self, id: RequestId) -> bool {
        (id.generation == self.generation || planted::is(Bug::AnswersTheNextLife))
            && matches!(self.asked.get(&id.id), Some(Asked::Running { .. }))
    }

    /// Answers a request. An answer that nobody waits for any more (the caller has restarted, or was answered) is dropped.
    pub(crate) fn respond(&mut self, id: RequestId, body: &[u8]) -> Result<(), SendError> {
        if body.len() > MAX_BODY {
            return Err(SendError::TooLarge);
        }
        if !self.is_running(id) {
            return Ok(());
        }
        if !self.make_room(body.len()) {
            self.blocked = true;
            return Err(SendError::WouldBlock);
        }
        let Some(Asked::Running { cancelled }) = self.asked.get(&id.id) else { return Ok(()) };
        let send = !cancelled && self.session.is_some();
        self.answer_bytes += body.len();
        self.answered.push_back(id.id);
        self.asked.insert(id.id, Asked::Answered { body: body.to_vec(), sent: !send });
        if send {
            self.queue.push_back(Outgoing::Response(id.id));
        }
        Ok(())
    }

    /// Drops the oldest answers until one more of that size fits; false when the oldest was not sent yet.
    fn make_room(&mut self, size: usize) -> bool {
        while self.answered.len() >= KEPT_ANSWERS || self.answer_bytes + size > ANSWER_BYTES {
            let Some(oldest) = self.answered.front() else { return true };
            match self.asked.get(oldest) {
                Some(Asked::Answered { sent: false, .. }) => return false,
                Some(Asked::Answered { body, .. }) => {
                    self.answer_bytes -= body.len();
                    self.asked.remove(oldest);
                }
                _ => {}
            }
            self.answered.pop_front();
        }
        true
    }

    pub(crate) fn emit(&mut self, body: Vec<u8>) -> Result<(), SendError> {
        self.accept_event(&body)?;
        // Events stay in order.
        let batch = self.batch.take();
        self.queue.extend(batch.into_iter().chain([body]).map(Outgoing::Event));
        Ok(())
    }

    /// Like `emit`, but the event may wait for others.
    pub(crate) fn emit_in_bulk(&mut self, now: Duration, body: Vec<u8>) -> Result<(), SendError> {
        self.accept_event(&body)?;
        let batch = self.batch.add(now, body);
        self.queue.extend(batch.into_iter().map(Outgoing::Event));
        Ok(())
    }

    fn accept_event(&mut self, body: &[u8]) -> Result<(), SendError> {
        if body.len() > MAX_BODY {
            return Err(SendError::TooLarge);
        }
        if self.session.is_none() {
            return Err(SendError::Closed);
        }
        if self.event_bytes > 0 && self.event_bytes + body.len() + EVENT_COST > EVENT_BYTES {
            self.blocked = true;
            return Err(SendError::WouldBlock);
        }
        self.event_bytes += body.len() + EVENT_COST;
        Ok(())
    }

    // Below: time.

    /// The next deadline of a call, or the end of the wait of a batch.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        deadline.into_iter().chain(self.batch.timeout()).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration, events: &mut Vec<CallEvent>) {
        let batch = self.batch.handle_timeout(now);
        self.queue.extend(batch.into_iter().map(Outgoing::Event));
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.cancel(CallId(id));
            events.push(CallEvent::Answer { id: CallId(id), answer: Answer::DeadlinePassed });
        }
    }

    fn finish(&mut self, id: u64, answer: Answer, events: &mut Vec<CallEvent>) {
        if self.forget(id).is_some() {
            events.push(CallEvent::Answer { id: CallId(id), answer });
        }
    }

    fn forget(&mut self, id: u64) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        self.call_bytes -= call.body.len();
        self.deadlines.remove(&(call.deadline, id));
        Some(call)
    }

    // Below: the side of channel 0.

    /// Whether a message waits to be sent.
    pub(crate) fn has_message(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next message for channel 0.
    pub(crate) fn take_message(&mut self) -> Option<Vec<u8>> {
        loop {
            let outgoing = self.queue.pop_front()?;
            if matches!(outgoing, Outgoing::Event(_) | Outgoing::Response(_)) {
                self.unblocked |= std::mem::take(&mut self.blocked);
            }
            match outgoing {
                Outgoing::Request(id) => {
                    // A call that was cancelled while it stood here is never sent.
                    let Some(call) = self.calls.get_mut(&id) else { continue };
                    call.sent_to = self.session;
                    self.taken.extend(call.remembered.then_some(id));
                    return Some(CallMessage::Request { id, body: &call.body }.to_vec());
                }
                Outgoing::Cancel(id) => return Some(CallMessage::Cancel { id }.to_vec()),
                Outgoing::Response(id) => {
                    let Some(Asked::Answered { body, sent }) = self.asked.get_mut(&id) else { continue };
                    *sent = true;
                    return Some(CallMessage::Response { id, body }.to_vec());
                }
                Outgoing::Refusal { id, body } => {
                    self.refusals -= 1;
                    return Some(CallMessage::Response { id, body }.to_vec());
                }
                Outgoing::Event(body) => {
                    self.event_bytes -= body.len() + EVENT_COST;
                    return Some(CallMessage::Event(&body).to_vec());
                }
            }
        }
    }

    /// A frame was filled. What was taken is in it or in one before, except that the last may go on in the next.
    pub(crate) fn framed(&mut self, frame: u64, is_whole: bool) {
        let whole = self.taken.len() - usize::from(!is_whole && !self.taken.is_empty());
        self.delivering.extend(self.taken.drain(..whole).map(|id| (frame, id)));
    }

    /// The other side has every frame before `next`.
    pub(crate) fn acknowledged(&mut self, next: u64, events: &mut Vec<CallEvent>) {
        while let Some((_, id)) = self.delivering.pop_front_if(|(frame, _)| *frame < next) {
            if self.calls.contains_key(&id) {
                events.push(CallEvent::Delivered(CallId(id)));
            }
        }
    }

    /// True once after something was sent for which somebody had been told to wait.
    pub(crate) fn take_unblocked(&mut self) -> bool {
        std::mem::take(&mut self.unblocked)
    }

    /// Takes a message that came on channel 0.
    pub(crate) fn handle_message(&mut self, message: &[u8], events: &mut Vec<CallEvent>) -> Result<(), Violation> {
        match CallMessage::decode(message).map_err(|_| Violation("a message on the channel of calls is malformed"))? {
            CallMessage::Request { id, body } => self.handle_request(id, body, events),
            CallMessage::Response { id, body } => {
                self.finish(id, Answer::Body(body.to_vec()), events);
                Ok(())
            }
            CallMessage::Event(body) => {
                events.push(CallEvent::Notice(body.to_vec()));
                Ok(())
            }
            CallMessage::Cancel { id } => {
                if let Some(Asked::Running { cancelled: cancelled @ false }) = self.asked.get_mut(&id) {
                    *cancelled = true;
                    events.push(CallEvent::Cancelled(RequestId { generation: self.generation, id }));
                }
                Ok(())
            }
        }
    }

    fn handle_request(&mut self, id: u64, body: &[u8], events: &mut Vec<CallEvent>) -> Result<(), Violation> {
        let running = self.asked.len() - self.answered.len();
        match self.asked.get_mut(&id) {
            // It was asked in an earlier session and is answered when its handler is done.
            Some(Asked::Running { cancelled }) => *cancelled = false,
            Some(Asked::Answered { sent, .. }) => {
                // An answer that still stands in the queue is not put there twice.
                if std::mem::replace(sent, false) {
                    self.queue.push_back(Outgoing::Response(id));
                }
            }
            // Callers count upwards, so this one was run before; running it again would be worse than not knowing.
            None if id <= self.highest => return self.refuse(id, FORGOTTEN),
            None if running >= MAX_RUNNING => return self.refuse(id, BUSY),
            None => {
                self.highest = id;
                self.asked.insert(id, Asked::Running { cancelled: false });
                events.push(CallEvent::Request {
                    id: RequestId { generation: self.generation, id },
                    body: body.to_vec(),
                });
            }
        }
        Ok(())
    }

    fn refuse(&mut self, id: u64, body: &'static [u8]) -> Result<(), Violation> {
        if self.refusals >= MAX_REFUSALS {
            return Err(Violation("calls are sent faster than their refusals are read"));
        }
        self.refusals += 1;
        self.queue.push_back(Outgoing::Refusal { id, body });
        Ok(())
    }
}
