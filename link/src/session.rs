//! One session: the cipher, the windows and the channels that live and die together (`PROTOCOL 9`).

use std::collections::VecDeque;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::frame::{
    CALLS, Class, DATA_OVERHEAD, FrameHeader, MAX_BULK_RECORD, MAX_FRAME, Record, Records, padded,
};
use happy_wire::packet::{SEALED_PREFIX, put_sealed_prefix};
use happy_wire::relay::ToRelay;
use rand_core::CryptoRng;

use crate::allowance::Allowance;
use crate::calls::{CallEvent, Calls};
use crate::channels::{Channels, Happened, Numbering, SessionId, Violation};
use crate::event::Event;
use crate::planted::{self, Bug};
use crate::suite::{CannotSeal, Cipher, Established, Life, OpenError};
use crate::window::{OutsideWindow, Place, ReceiveWindow, SendWindow};

/// The header of a numbered frame.
const NUMBERED_HEADER: usize = 17;
/// A Send without its payload.
const SEND_HEADER: usize = 37;
/// A frame of bulk data is one record of the largest size, so that what is urgent waits for no more than that.
const MAX_BULK_FRAME: usize = NUMBERED_HEADER + DATA_OVERHEAD + MAX_BULK_RECORD;
/// A frame with control records is filled with interactive ones up to this size: on a slow line it would take the longer to arrive.
const URGENT_FRAME: usize = 1024;
/// A window with less room than this waits for acknowledgements rather than send crumbs.
const SMALLEST_FRAME: usize = 512;

/// What a frame meant for the link.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The window moved.
    pub(crate) progress: bool,
    /// The other side's path came up.
    pub(crate) resume: bool,
    /// The other side is going.
    pub(crate) goodbye: Option<(Code, String)>,
    /// The other side has stored the pair secret of that handshake.
    pub(crate) secret_stored: Option<[u8; 16]>,
}

/// How long what was sealed with the keys before the last may still arrive.
const RETIRING_FOR: Duration = Duration::from_secs(60);

/// An honest peer says Resume once for each path that comes up.
const RESUMES: (u32, Duration) = (8, Duration::from_secs(10));

/// A cipher and its name.
struct Keyed<C> {
    id: [u8; 16],
    cipher: C,
}

pub(crate) struct Session<C> {
    /// The handshake that began the session. Later ones change its keys, not what it is.
    pub(crate) origin: [u8; 16],
    /// Names the keys in use.
    pub(crate) id: [u8; 16],
    pub(crate) peer_life: Life,
    peer: DeviceId,
    cipher: C,
    /// New keys, until a packet of the other side shows that it has them too.
    next: Option<Keyed<C>>,
    /// Old keys, for what is still on its way.
    retiring: Option<(Keyed<C>, Duration)>,
    pub(crate) keyed_at: Duration,
    /// Messages sealed and opened with the keys in use.
    pub(crate) messages: u64,
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
    pub(crate) channels: Channels,
    /// A packet of the other side was opened, so it has the key.
    pub(crate) confirmed: bool,
    /// Packets in a row that could not be opened.
    pub(crate) failures: u32,
    pub(crate) resume: bool,
    /// How often everything in flight is sent again because the other side says Resume.
    resumes: Allowance,
    pub(crate) ping: Option<u64>,
    pong: Option<u64>,
    /// The last Ping that was sent, to know its Pong.
    pinged: Option<(u64, Duration)>,
    /// A sign of life under the new keys is wanted.
    pub(crate) show_next: bool,
    /// The pair secret of that handshake was stored here, and the other side is to know.
    pub(crate) secret_stored: Option<[u8; 16]>,
}

impl<C: Cipher> Session<C> {
    /// A session whose channels are numbered on from `last_own_channel`.
    pub(crate) fn new<K>(
        now: Duration,
        established: Established<C, K>,
        numbering: Numbering,
        last_own_channel: u32,
    ) -> Self {
        Self {
            origin: established.session,
            id: established.session,
            peer_life: established.peer_life,
            peer: established.peer,
            cipher: established.cipher,
            next: None,
            retiring: None,
            keyed_at: now,
            messages: 0,
            send: SendWindow::new(),
            receive: ReceiveWindow::new(),
            channels: Channels::new(numbering, last_own_channel),
            confirmed: false,
            failures: 0,
            resume: false,
            resumes: Allowance::new(RESUMES.0, RESUMES.1),
            ping: None,
            pong: None,
            pinged: None,
            show_next: false,
            secret_stored: None,
        }
    }

    // Below: keys (PROTOCOL 8, "New keys").

    /// A handshake has given new keys. They are used once the other side has shown that it has them.
    pub(crate) fn rekey<K>(&mut self, established: Established<C, K>) {
        self.peer_life = established.peer_life;
        self.next = Some(Keyed { id: established.session, cipher: established.cipher });
    }

    /// Whether new keys wait to be used.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Whether a packet with this name belongs to this session.
    pub(crate) fn knows(&self, id: [u8; 16]) -> bool {
        let has = |keyed: &Keyed<C>| keyed.id == id;
        self.id == id
            || self.next.as_ref().is_some_and(has)
            || self.retiring.as_ref().is_some_and(|(keyed, _)| has(keyed))
    }

    /// Whether a packet with this name is sealed with keys that are not old.
    pub(crate) fn uses(&self, id: [u8; 16]) -> bool {
        self.id == id || self.next.as_ref().is_some_and(|next| next.id == id)
    }

    /// The new keys are no longer wanted.
    pub(crate) fn drop_next(&mut self) {
        (self.next, self.show_next) = (None, false);
    }

    fn promote(&mut self, now: Duration) {
        let Some(next) = self.next.take() else { return };
        let old = Keyed {
            id: std::mem::replace(&mut self.id, next.id),
            cipher: std::mem::replace(&mut self.cipher, next.cipher),
        };
        self.retiring = Some((old, now + RETIRING_FOR));
        (self.keyed_at, self.messages, self.failures, self.show_next) = (now, 0, 0, false);
        if planted::is(Bug::CountsAnewWithNewKeys) {
            self.receive = ReceiveWindow::new();
        }
        // What the other side has not acknowledged may never have come, and will not open any more when the old keys are gone.
        self.send.seal_anew();
    }

    /// When to call [`Self::retire`].
    pub(crate) fn retires_at(&self) -> Option<Duration> {
        self.retiring.as_ref().map(|(_, until)| *until)
    }

    pub(crate) fn retire(&mut self, now: Duration) {
        self.retiring.take_if(|(_, until)| *until <= now);
    }

    /// Time has passed in which packets could arrive.
    pub(crate) fn expire(&mut self, seconds: u64) {
        self.cipher.expire(seconds);
    }

    /// Packets came in a time that does not count.
    pub(crate) fn time_stood_still(&mut self) {
        self.cipher.time_stood_still();
    }

    // Below: sending. Nothing is made before the driver can write, so that an urgent record never stands behind a bulk one in a
    // queue of ours.

    /// Whether a frame can be sealed yet.
    pub(crate) fn can_seal(&self) -> bool {
        self.cipher.can_seal()
    }

    /// Whether a frame without a number waits to be sent.
    pub(crate) fn has_signal(&self) -> bool {
        self.resume || self.ping.is_some() || self.pong.is_some()
    }

    /// A frame under the new keys, so that the other side sees that they work.
    pub(crate) fn make_next_signal(&mut self, rng: &mut impl CryptoRng) -> Option<Vec<u8>> {
        self.show_next = false;
        let mut frame = self.start_frame(None);
        Record::Resume.encode(&mut frame);
        let next = self.next.as_mut().filter(|next| next.cipher.can_seal())?;
        seal(next.id, &mut next.cipher, self.peer, rng, 0, &mut frame, MAX_FRAME).ok()
    }

    /// The frame without a number that carries the acknowledgement, and Resume, Ping and Pong if they are wanted.
    pub(crate) fn make_signal(&mut self, now: Duration, rng: &mut impl CryptoRng) -> Result<Vec<u8>, CannotSeal> {
        let mut frame = self.start_frame(None);
        if std::mem::take(&mut self.resume) {
            Record::Resume.encode(&mut frame);
        }
        if let Some(n) = self.ping.take() {
            Record::Ping(n).encode(&mut frame);
            self.pinged = Some((n, now));
        }
        if let Some(n) = self.pong.take() {
            Record::Pong(n).encode(&mut frame);
        }
        self.seal(rng, 0, &mut frame, MAX_FRAME)
    }

    /// The last frame of a session.
    pub(crate) fn make_goodbye(
        &mut self,
        rng: &mut impl CryptoRng,
        code: Code,
        reason: &str,
    ) -> Result<Vec<u8>, CannotSeal> {
        let mut frame = self.start_frame(None);
        Record::Goodbye { code, reason }.encode(&mut frame);
        self.seal(rng, 0, &mut frame, MAX_FRAME)
    }

    /// Whether there is something to send of this class and room for it.
    pub(crate) fn has_data(&self, class: Class, calls: &Calls) -> bool {
        // A message for channel 0 waits until the one before it has left, which may take the other side's leave.
        let message = calls.has_message() && self.channels.is_idle(CALLS);
        let control = class == Class::Control && (message || self.secret_stored.is_some());
        let waits = control || self.channels.has(class);
        waits && self.room(class) >= SMALLEST_FRAME
    }

    /// The largest frame of this class that the window takes now.
    fn room(&self, class: Class) -> usize {
        let largest = if class == Class::Bulk { MAX_BULK_FRAME } else { MAX_FRAME };
        self.send.room(class).saturating_sub(SEALED_PREFIX + C::OVERHEAD).min(largest)
    }

    /// A numbered frame with records of this class; with those of class control also interactive ones if they fit.
    pub(crate) fn make_data(
        &mut self,
        now: Duration,
        rng: &mut impl CryptoRng,
        tag: u32,
        class: Class,
        calls: &mut Calls,
        events: &mut VecDeque<Event>,
    ) -> Result<Option<Vec<u8>>, CannotSeal> {
        if self.send.knows_nothing() {
            self.ask(now);
            if self.ping.is_some() {
                return self.make_signal(now, rng).map(Some);
            }
        }
        let number = self.send.next();
        let size = self.room(class);
        let mut frame = Vec::with_capacity(size.min(4096));
        FrameHeader { number: Some(number), acknowledgement: self.receive.expected() }.encode(&mut frame);
        let empty = frame.len();
        if class == Class::Control {
            if let Some(session) = self.secret_stored.take() {
                Record::PairSecret(session).encode(&mut frame);
            }
            self.fill_with_calls(&mut frame, size, calls);
            self.channels.fill(
                Class::Interactive,
                &mut frame,
                self.room(Class::Interactive).min(size).min(URGENT_FRAME),
            );
        } else {
            self.channels.fill(class, &mut frame, size);
        }
        let peer = self.peer;
        let writable = self.channels.take_writable();
        if !planted::is(Bug::ForgetsWritable) {
            events.extend(writable.into_iter().map(|channel| Event::Writable { peer, channel }));
        }
        if calls.take_unblocked() {
            events.push_back(Event::Writable { peer, channel: CALLS });
        }
        if frame.len() == empty {
            return Ok(None);
        }
        self.receive.acknowledge();
        let bytes = self.seal(rng, tag, &mut frame, size)?;
        self.send.push(now, tag, frame, bytes.clone(), bytes.len() - SEND_HEADER);
        self.ask(now);
        Ok(Some(bytes))
    }

    /// Wants a Ping if the state of the line asks for one.
    fn ask(&mut self, now: Duration) {
        let waits = self.channels.has(Class::Interactive) || self.channels.has(Class::Bulk);
        if self.send.asks(waits) {
            self.ping.get_or_insert(now.as_millis() as u64);
        }
    }

    /// The next frame that is to be sent again: the same bytes, or after a change of keys the same frame.
    pub(crate) fn take_due(&mut self, now: Duration, rng: &mut impl CryptoRng) -> Result<Option<Vec<u8>>, CannotSeal> {
        let (id, peer, cipher, messages) = (self.id, self.peer, &mut self.cipher, &mut self.messages);
        self.send.take_due(now, |tag, frame| {
            *messages += 1;
            seal(id, cipher, peer, rng, tag, frame, 0)
        })
    }

    fn fill_with_calls(&mut self, frame: &mut Vec<u8>, size: usize, calls: &mut Calls) {
        loop {
            let mut more = false;
            if self.channels.is_idle(CALLS)
                && let Some(message) = calls.take_message()
            {
                // The channel is idle and the message has the size of a body at most, so it is accepted.
                more = self.channels.send(CALLS, &message).is_ok();
            }
            self.channels.fill(Class::Control, frame, size);
            calls.framed(self.send.next(), self.channels.is_idle(CALLS));
            if !more || !self.channels.is_idle(CALLS) {
                return;
            }
        }
    }

    fn start_frame(&mut self, number: Option<u64>) -> Vec<u8> {
        let mut frame = Vec::with_capacity(64);
        FrameHeader { number, acknowledgement: self.receive.acknowledge() }.encode(&mut frame);
        frame
    }

    /// Pads the frame, to `most` bytes at most, and seals it.
    fn seal(
        &mut self,
        rng: &mut impl CryptoRng,
        tag: u32,
        frame: &mut Vec<u8>,
        most: usize,
    ) -> Result<Vec<u8>, CannotSeal> {
        self.messages += 1;
        seal(self.id, &mut self.cipher, self.peer, rng, tag, frame, most)
    }

    // Below: receiving.

    /// Opens a packet that [`Self::knows`] its keys.
    pub(crate) fn open(&mut self, now: Duration, id: [u8; 16], message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut frame = Vec::with_capacity(message.len().saturating_sub(C::OVERHEAD));
        if self.id == id {
            self.cipher.open(message, &mut frame)?;
            self.messages += 1;
        } else if let Some(next) = self.next.as_mut().filter(|next| next.id == id) {
            next.cipher.open(message, &mut frame)?;
            self.promote(now);
        } else if let Some((old, _)) = self.retiring.as_mut().filter(|(old, _)| old.id == id) {
            old.cipher.open(message, &mut frame)?;
        } else {
            return Err(OpenError::CannotBeOpened);
        }
        Ok(frame)
    }

    /// Takes an opened frame.
    pub(crate) fn handle_frame(
        &mut self,
        now: Duration,
        frame: Vec<u8>,
        calls: &mut Calls,
        events: &mut VecDeque<Event>,
    ) -> Result<Outcome, Violation> {
        if frame.len() > MAX_FRAME {
            return Err(Violation("a frame is too large"));
        }
        let (header, records) = FrameHeader::decode(&frame).map_err(|_| MALFORMED)?;
        let progress = self.send.acknowledge(now, header.acknowledgement).map_err(outside)?;
        let mut outcome = Outcome { progress, ..Outcome::default() };
        if progress {
            self.ask(now);
            let mut heard = Vec::new();
            calls.acknowledged(self.send.acknowledged(), &mut heard);
            events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
        }
        let Some(number) = header.number else {
            self.handle_signal(now, records, &mut outcome)?;
            return Ok(outcome);
        };
        self.receive.owe(now);
        match self.receive.place(number, frame.len()).map_err(outside)? {
            // Sealed anew, after a change of keys, although it had come.
            Place::Repeated => self.receive.owe_now(),
            Place::Early => {
                // The sender cannot know of the gap, and the acknowledgement tells it.
                self.receive.owe_now();
                self.receive.keep(number, frame);
            }
            Place::Next => {
                self.handle_records(records, calls, events, &mut outcome)?;
                while let Some(frame) = self.receive.advance() {
                    self.receive.owe_now();
                    let (_, records) = FrameHeader::decode(&frame).map_err(|_| MALFORMED)?;
                    self.handle_records(records, calls, events, &mut outcome)?;
                }
            }
        }
        Ok(outcome)
    }

    fn handle_signal(&mut self, now: Duration, records: Records<'_>, outcome: &mut Outcome) -> Result<(), Violation> {
        for record in records {
            match record.map_err(|_| MALFORMED)? {
                Record::Ping(n) => self.pong = Some(n),
                Record::Pong(n) => {
                    if let Some((_, sent)) = self.pinged.take_if(|(sent, _)| *sent == n) {
                        self.send.on_pong(now, now.saturating_sub(sent));
                    }
                }
                Record::Resume => outcome.resume = true,
                Record::Goodbye { code, reason } => outcome.goodbye = Some((code, reason.to_owned())),
                _ => {}
            }
        }
        if outcome.resume {
            // PROTOCOL 9: at once, from the acknowledgement that it carries; but a Resume is small, and who says many gets no more than
            // what had time to be acknowledged.
            let before = if self.resumes.take(now) { Duration::MAX } else { self.send.overdue(now) };
            self.send.resend_all(before);
            self.receive.owe_now();
        }
        Ok(())
    }

    fn handle_records(
        &mut self,
        records: Records<'_>,
        calls: &mut Calls,
        events: &mut VecDeque<Event>,
        outcome: &mut Outcome,
    ) -> Result<(), Violation> {
        for record in records {
            let record = record.map_err(|_| MALFORMED)?;
            if let Record::PairSecret(session) = record {
                outcome.secret_stored = Some(session);
                continue;
            }
            match self.channels.handle(&record)? {
                None => {}
                Some(Happened::Message { channel: CALLS, bytes }) => {
                    self.channels.consumed(CALLS, bytes.len());
                    let mut heard = Vec::new();
                    calls.handle_message(&bytes, &mut heard)?;
                    events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
                }
                Some(happened) => events.push_back(channel_event(self.peer, self.origin, happened)),
            }
        }
        Ok(())
    }
}

/// Pads the frame, to `most` bytes at most, and seals it into a frame for the relay.
fn seal<C: Cipher>(
    id: [u8; 16],
    cipher: &mut C,
    peer: DeviceId,
    rng: &mut impl CryptoRng,
    tag: u32,
    frame: &mut Vec<u8>,
    most: usize,
) -> Result<Vec<u8>, CannotSeal> {
    let padding = padded(frame.len()).min(most).saturating_sub(frame.len());
    Record::Padding(padding).encode(frame);
    let mut out = Vec::with_capacity(SEND_HEADER + SEALED_PREFIX + C::OVERHEAD + frame.len());
    ToRelay::Send { to: peer, tag, payload: &[] }.encode(&mut out);
    put_sealed_prefix(&mut out, &id);
    cipher.seal(rng, frame, &mut out)?;
    Ok(out)
}

const MALFORMED: Violation = Violation("a frame is malformed");

fn outside(_: OutsideWindow) -> Violation {
    Violation("a frame is outside the window")
}

fn channel_event(peer: DeviceId, session: [u8; 16], happened: Happened) -> Event {
    match happened {
        Happened::Opened { channel, class, label } => {
            Event::Opened { peer, session: SessionId(session), channel, class, label }
        }
        Happened::Message { channel, bytes } => Event::Message { peer, channel, bytes },
        Happened::Closed { channel, code, reason } => Event::Closed { peer, channel, code, reason },
    }
}

pub(crate) fn call_event(peer: DeviceId, event: CallEvent) -> Event {
    match event {
        CallEvent::Request { id, body } => Event::Request { peer, id, body },
        CallEvent::Cancelled(id) => Event::Cancelled { peer, id },
        CallEvent::Delivered(id) => Event::Delivered { peer, id },
        CallEvent::Answer { id, answer } => Event::Answer { peer, id, answer },
        CallEvent::Notice(body) => Event::Notice { peer, body },
    }
}
