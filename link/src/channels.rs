//! Channels of one session (`PROTOCOL 9`): limits, classes, messages cut into records and put together again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use happy_wire::Code;
use happy_wire::frame::{
    CALLS, Class, DATA_OVERHEAD, INITIAL_LIMIT, MAX_BULK_RECORD, MAX_CHANNELS, MAX_MESSAGE, Record,
};

use crate::planted::{self, Bug};

/// What may wait on one channel to be sent, bytes: one message of the largest size. Whoever wants to send more waits for Writable.
pub const SEND_BUFFER: usize = MAX_MESSAGE;
/// What an empty message counts in that buffer, so that a flood of them is bounded as well.
const MESSAGE_COST: usize = 32;
/// A record is not cut shorter than this only because the frame is nearly full.
const SHORTEST_CUT: usize = 64;
/// Room for the records other than Data: 14 bytes and a text of at most 255.
const SMALL_RECORD: usize = 14 + 255;
/// A larger grant is not announced for less than this, so that Limit records stay rare; below it the other side can still send a
/// message of the largest size.
const GRANT_STEP: u64 = INITIAL_LIMIT - MAX_MESSAGE as u64;
/// `PROTOCOL 9`: the parts of unfinished messages that are kept, bytes, channel 0 apart: sixteen messages of the largest size at once.
/// Without this bound each of 256 channels could hold nearly a whole one.
pub const UNFINISHED_BYTES: usize = 16 * MAX_MESSAGE;

/// Names a session, as [`Event::Opened`](crate::Event::Opened) gives it. No other session of any link has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub(crate) [u8; 16]);

/// A channel as the application names it.
///
/// A peer that was restarted counts its channels from the start again, so the number of a channel that it has opened means another
/// one after its session. Whoever keeps such a number longer than until the next event names the session with it: in
/// any other session the channel is then closed. Channels of this side need that not: their numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelName {
    number: u32,
    session: Option<SessionId>,
}

impl ChannelName {
    /// A channel of that session and no other.
    pub fn of(session: SessionId, number: u32) -> Self {
        Self { number, session: Some(session) }
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Whether it can be a channel of that session.
    pub(crate) fn is_of(self, session: [u8; 16]) -> bool {
        self.session.is_none_or(|own| own.0 == session)
    }
}

/// The channel that has this number now, in whichever session that is.
impl From<u32> for ChannelName {
    fn from(number: u32) -> Self {
        Self { number, session: None }
    }
}

/// A record that an honest peer does not send: the session ends with 4400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// Why a message was not accepted for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The buffer is full; wait for [`Event::Writable`](crate::Event::Writable).
    #[error("the send buffer is full; try again when the channel is writable")]
    WouldBlock,
    /// The channel is closed, or there is no session.
    #[error("the channel is not open")]
    Closed,
    /// The message is larger than the protocol carries.
    #[error("a message holds at most {MAX_MESSAGE} bytes")]
    TooLarge,
    /// The peer was never added, or was removed.
    #[error("the peer is not known")]
    UnknownPeer,
}

/// Why a channel was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenChannelError {
    /// There is no session with that peer now; wait for [`Event::LinkUp`](crate::Event::LinkUp).
    #[error("there is no link with this peer now")]
    NoLink,
    /// Close another one first.
    #[error("a link carries at most {MAX_CHANNELS} channels")]
    TooMany,
    /// The peer was never added, or was removed.
    #[error("the peer is not known")]
    UnknownPeer,
}

/// What a record meant for those above.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    Opened { channel: u32, class: Class, label: String },
    Message { channel: u32, bytes: Vec<u8> },
    Closed { channel: u32, code: Code, reason: String },
}

struct Channel {
    class: Class,
    label: String,
    // Our direction.
    out: VecDeque<Vec<u8>>,
    /// What of the first message of `out` was sent.
    cut: usize,
    queued: usize,
    sent: u64,
    their_limit: u64,
    /// What a sender who was told WouldBlock waits for.
    wanted: Option<usize>,
    /// The channel stands in the queue of its class.
    queued_up: bool,
    closing: Option<(Code, String)>,
    // Their direction.
    partial: Vec<u8>,
    received: u64,
    delivered: u64,
    consumed: u64,
    our_limit: u64,
}

impl Channel {
    fn new(class: Class, label: String, their_limit: u64) -> Self {
        Self {
            class,
            label,
            out: VecDeque::new(),
            cut: 0,
            queued: 0,
            sent: 0,
            their_limit,
            wanted: None,
            queued_up: false,
            closing: None,
            partial: Vec::new(),
            received: 0,
            delivered: 0,
            consumed: 0,
            our_limit: INITIAL_LIMIT,
        }
    }

    fn has_room(&self, length: usize) -> bool {
        self.queued == 0 || self.queued + length + MESSAGE_COST <= SEND_BUFFER
    }

    /// Whether a record of this channel could be written now.
    fn is_ready(&self) -> bool {
        match self.out.front() {
            Some(message) => self.sent < self.their_limit || message.is_empty() || planted::is(Bug::IgnoresTheLimit),
            None => self.closing.is_some(),
        }
    }
}

/// Which ids this side may open (`PROTOCOL 9`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// 1, 3, 5…
    Initiator,
    /// 2, 4, 6…
    Responder,
}

/// The channels of one session.
pub(crate) struct Channels {
    map: BTreeMap<u32, Channel>,
    next_own: u32,
    last_theirs: u32,
    opened_by_them: usize,
    /// The bytes in `partial` of all channels but that of calls.
    unfinished: usize,
    /// Channels with something to send, one queue per class; ids of closed channels are skipped when their turn comes.
    turns: [VecDeque<u32>; 3],
    to_open: VecDeque<u32>,
    to_grant: BTreeSet<u32>,
    /// Channels on which a waiting sender may go on.
    writable: Vec<u32>,
}

impl Channels {
    /// Numbers go on after those of the link's last session (`PROTOCOL 9`).
    pub(crate) fn new(numbering: Numbering, last_own: u32) -> Self {
        let calls = Channel::new(Class::Control, String::new(), INITIAL_LIMIT);
        let first = if numbering == Numbering::Initiator { 1 } else { 2 };
        let next = if planted::is(Bug::ReusesChannelNumbers) { 1 } else { last_own.saturating_add(1) };
        Self {
            map: BTreeMap::from([(CALLS, calls)]),
            next_own: next.saturating_add((next ^ first) & 1),
            last_theirs: 0,
            opened_by_them: 0,
            unfinished: 0,
            turns: Default::default(),
            to_open: VecDeque::new(),
            to_grant: BTreeSet::new(),
            writable: Vec::new(),
        }
    }

    // Below: the side of the application.

    pub(crate) fn open(&mut self, class: Class, label: &str) -> Result<u32, OpenChannelError> {
        if self.map.len() >= MAX_CHANNELS || self.next_own >= u32::MAX - 1 {
            return Err(OpenChannelError::TooMany);
        }
        let id = self.next_own;
        self.next_own += 2;
        self.map.insert(id, Channel::new(class, label.to_owned(), INITIAL_LIMIT));
        self.to_open.push_back(id);
        Ok(id)
    }

    pub(crate) fn send(&mut self, id: u32, message: &[u8]) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let channel = self.map.get_mut(&id).filter(|channel| channel.closing.is_none()).ok_or(SendError::Closed)?;
        if !channel.has_room(message.len()) {
            channel.wanted = Some(message.len());
            return Err(SendError::WouldBlock);
        }
        channel.queued += message.len() + MESSAGE_COST;
        channel.out.push_back(message.to_vec());
        self.queue_up(id);
        Ok(())
    }

    /// How large a message may be now to be accepted.
    pub(crate) fn sendable(&self, id: u32) -> usize {
        match self.map.get(&id) {
            Some(channel) if channel.closing.is_some() => 0,
            Some(channel) if channel.queued == 0 => MAX_MESSAGE,
            Some(channel) => SEND_BUFFER.saturating_sub(channel.queued + MESSAGE_COST),
            None => 0,
        }
    }

    /// Whether the application may use this channel.
    pub(crate) fn is_open(&self, id: u32) -> bool {
        self.map.get(&id).is_some_and(|channel| channel.closing.is_none())
    }

    /// Whether nothing waits on this channel.
    pub(crate) fn is_idle(&self, id: u32) -> bool {
        self.map.get(&id).is_none_or(|channel| channel.out.is_empty())
    }

    /// The application is done with `bytes` of what it was given, so the other side may send as much again. Whether it is to be told so now.
    pub(crate) fn consumed(&mut self, id: u32, bytes: usize) -> bool {
        let Some(channel) = self.map.get_mut(&id) else { return false };
        channel.consumed = channel.consumed.saturating_add(bytes as u64).min(channel.delivered);
        let is_due =
            channel.consumed + INITIAL_LIMIT - channel.our_limit >= GRANT_STEP && !planted::is(Bug::RaisesNoLimit);
        if is_due {
            self.to_grant.insert(id);
        }
        is_due
    }

    /// Closes a channel: what was accepted before is still sent, unless the code tells of a fault.
    pub(crate) fn close(&mut self, id: u32, code: Code, reason: &str) -> bool {
        let Some(channel) = self.map.get_mut(&id).filter(|channel| channel.closing.is_none() && id != CALLS) else {
            return false;
        };
        channel.closing = Some((code, reason.to_owned()));
        channel.wanted = None;
        self.unfinished -= std::mem::take(&mut channel.partial).len();
        if code != Code::GOODBYE || planted::is(Bug::ClosesBeforeData) {
            // A message that was begun is left unfinished: the receiver drops it with the channel.
            channel.out.clear();
            channel.queued = 0;
        }
        self.queue_up(id);
        true
    }

    /// The largest number that this side has given away, in this session or before.
    pub(crate) fn last_own(&self) -> u32 {
        self.next_own.saturating_sub(2)
    }

    /// The channels that the application still counts as open, for when the session ends.
    pub(crate) fn open_ids(&self) -> impl Iterator<Item = u32> {
        self.map.iter().filter(|(id, channel)| **id != CALLS && channel.closing.is_none()).map(|(id, _)| *id)
    }

    /// Channels that became writable for a sender who waits.
    pub(crate) fn take_writable(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.writable)
    }

    fn queue_up(&mut self, id: u32) {
        let Some(channel) = self.map.get_mut(&id) else { return };
        if !channel.queued_up && channel.is_ready() {
            channel.queued_up = true;
            self.turns[channel.class as usize].push_back(id);
        }
    }

    // Below: the side of the frame being made.

    /// Whether there is something to send of this class.
    pub(crate) fn has(&self, class: Class) -> bool {
        let records = class == Class::Control && !(self.to_open.is_empty() && self.to_grant.is_empty());
        records || !self.turns[class as usize].is_empty()
    }

    /// Appends records of one class until the frame holds `size` bytes; channels take turns record by record.
    pub(crate) fn fill(&mut self, class: Class, frame: &mut Vec<u8>, size: usize) {
        let late = planted::is(Bug::OpensLate);
        if class == Class::Control && !late && !self.announce(frame, size) {
            return;
        }
        while let Some(id) = self.turns[class as usize].pop_front() {
            let Some(channel) = self.map.get_mut(&id) else { continue };
            let room = size.saturating_sub(frame.len());
            let is_close = channel.out.is_empty();
            let shortest = channel.out.front().map_or(0, |message| (message.len() - channel.cut).min(SHORTEST_CUT));
            if room < if is_close { SMALL_RECORD } else { DATA_OVERHEAD + shortest } {
                self.turns[class as usize].push_front(id);
                return;
            }
            channel.queued_up = false;
            if is_close {
                self.put_close(id, frame);
            } else {
                self.put_data(id, frame, room - DATA_OVERHEAD);
                self.queue_up(id);
            }
        }
        if late && class == Class::Control {
            self.announce(frame, size);
        }
    }

    /// Opens and limits go before all data. False when the frame is full of them.
    fn announce(&mut self, frame: &mut Vec<u8>, size: usize) -> bool {
        let is_full = |frame: &Vec<u8>| frame.len() + SMALL_RECORD > size;
        while let Some(&id) = self.to_open.front() {
            if is_full(frame) {
                return false;
            }
            self.to_open.pop_front();
            let Some(channel) = self.map.get(&id) else { continue };
            Record::Open { channel: id, class: channel.class, limit: channel.our_limit, label: &channel.label }
                .encode(frame);
        }
        while let Some(&id) = self.to_grant.first() {
            if is_full(frame) {
                return false;
            }
            self.to_grant.pop_first();
            let Some(channel) = self.map.get_mut(&id).filter(|channel| channel.closing.is_none()) else { continue };
            channel.our_limit = channel.consumed + INITIAL_LIMIT;
            Record::Limit { channel: id, limit: channel.our_limit }.encode(frame);
        }
        true
    }

    fn put_close(&mut self, id: u32, frame: &mut Vec<u8>) {
        let Some(channel) = self.map.get(&id) else { return };
        let Some((code, reason)) = &channel.closing else { return };
        Record::Close { channel: id, code: *code, reason }.encode(frame);
        self.forget(id);
    }

    fn put_data(&mut self, id: u32, frame: &mut Vec<u8>, room: usize) {
        let Some(channel) = self.map.get_mut(&id) else { return };
        let Some(message) = channel.out.front() else { return };
        let credit = match planted::is(Bug::IgnoresTheLimit) {
            true => usize::MAX,
            false => usize::try_from(channel.their_limit - channel.sent).unwrap_or(usize::MAX),
        };
        let rest = &message[channel.cut..];
        let bytes = &rest[..rest.len().min(room).min(credit).min(MAX_BULK_RECORD)];
        let last = bytes.len() == rest.len();
        Record::Data { channel: id, last: last || planted::is(Bug::CutsMessages), bytes }.encode(frame);
        channel.sent += bytes.len() as u64;
        channel.cut += bytes.len();
        if last {
            channel.queued -= message.len() + MESSAGE_COST;
            channel.cut = 0;
            channel.out.pop_front();
        }
        if channel.wanted.is_some_and(|length| channel.has_room(length)) {
            channel.wanted = None;
            self.writable.push(id);
        }
    }

    fn forget(&mut self, id: u32) {
        let Some(channel) = self.map.remove(&id) else { return };
        self.unfinished -= channel.partial.len();
        if self.is_theirs(id) {
            self.opened_by_them -= 1;
        }
    }

    // Below: the side of the peer.

    fn is_theirs(&self, id: u32) -> bool {
        id % 2 != self.next_own % 2
    }

    /// Whether a record may name this channel although it is gone: its sender had not heard of the end yet.
    fn was_open(&self, id: u32) -> bool {
        id != CALLS && if self.is_theirs(id) { id <= self.last_theirs } else { id < self.next_own }
    }

    /// Applies a record of a numbered frame, in order.
    pub(crate) fn handle(&mut self, record: &Record<'_>) -> Result<Option<Happened>, Violation> {
        match *record {
            Record::Open { channel, class, limit, label } => self.handle_open(channel, class, limit, label).map(Some),
            Record::Data { channel, last, bytes } => self.handle_data(channel, last, bytes),
            Record::Limit { channel, limit } => self.handle_limit(channel, limit).map(|()| None),
            Record::Close { channel, code, reason } => self.handle_close(channel, code, reason),
            _ => Ok(None),
        }
    }

    fn handle_open(&mut self, id: u32, class: Class, limit: u64, label: &str) -> Result<Happened, Violation> {
        if id == CALLS || !self.is_theirs(id) || id <= self.last_theirs {
            return Err(Violation("a channel was opened with a number that is not free"));
        }
        if self.opened_by_them >= MAX_CHANNELS {
            return Err(Violation("too many channels were opened"));
        }
        self.last_theirs = id;
        self.opened_by_them += 1;
        self.map.insert(id, Channel::new(class, label.to_owned(), limit));
        Ok(Happened::Opened { channel: id, class, label: label.to_owned() })
    }

    fn handle_data(&mut self, id: u32, last: bool, bytes: &[u8]) -> Result<Option<Happened>, Violation> {
        let was_open = self.was_open(id);
        let Some(channel) = self.map.get_mut(&id) else {
            return if was_open { Ok(None) } else { Err(Violation("data came on a channel that was never open")) };
        };
        channel.received = channel.received.saturating_add(bytes.len() as u64);
        if channel.received > channel.our_limit {
            return Err(Violation("more data came than the limit of its channel allows"));
        }
        if channel.closing.is_some() {
            return Ok(None);
        }
        if channel.partial.len() + bytes.len() > MAX_MESSAGE {
            return Err(Violation("a message is larger than the protocol allows"));
        }
        if !last && id != CALLS && self.unfinished + bytes.len() > UNFINISHED_BYTES {
            return Ok(self.close_unfinished(id));
        }
        let before = channel.partial.len();
        channel.partial.extend_from_slice(bytes);
        if !last {
            self.unfinished += if id == CALLS { 0 } else { bytes.len() };
            return Ok(None);
        }
        self.unfinished -= if id == CALLS { 0 } else { before };
        channel.delivered = channel.received;
        if planted::is(Bug::GrantsUnconsumed) {
            channel.consumed = channel.delivered;
            self.to_grant.insert(id);
        }
        Ok(Some(Happened::Message { channel: id, bytes: std::mem::take(&mut channel.partial) }))
    }

    /// `PROTOCOL 9`: no room for another part. It costs the channel and not the session: many large messages at once are no fault,
    /// and those on other channels go on.
    fn close_unfinished(&mut self, id: u32) -> Option<Happened> {
        let (code, reason) = (Code::TOO_MANY, "too many messages are unfinished");
        let closed = self.close(id, code, reason);
        closed.then(|| Happened::Closed { channel: id, code, reason: reason.to_owned() })
    }

    fn handle_limit(&mut self, id: u32, limit: u64) -> Result<(), Violation> {
        let was_open = self.was_open(id);
        match self.map.get_mut(&id) {
            Some(channel) if limit < channel.their_limit => Err(Violation("a limit was lowered")),
            Some(channel) => {
                channel.their_limit = limit;
                self.queue_up(id);
                Ok(())
            }
            None if was_open => Ok(()),
            None => Err(Violation("a limit names a channel that was never open")),
        }
    }

    fn handle_close(&mut self, id: u32, code: Code, reason: &str) -> Result<Option<Happened>, Violation> {
        if id == CALLS {
            return Err(Violation("the channel of calls cannot be closed"));
        }
        let was_open = self.was_open(id);
        let Some(channel) = self.map.get(&id) else {
            return if was_open { Ok(None) } else { Err(Violation("a channel was closed that was never open")) };
        };
        let news = channel.closing.is_none();
        self.forget(id);
        Ok(news.then(|| Happened::Closed { channel: id, code, reason: reason.to_owned() }))
    }
}
