//! One session: the cipher, the windows and the channels that live and die together (`PROTOCOL 9`).

use std::collections::VecDeque;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_wire::Code;
use happy_wire::frame::{CALLS, Class, DATA_OVERHEAD, FrameHeader, MAX_BULK_RECORD, MAX_FRAME, Record, Records};
use happy_wire::packet::{SEALED_PREFIX, put_sealed_prefix};
use happy_wire::relay::ToRelay;
use rand_core::CryptoRng;

use crate::calls::{CallEvent, Calls};
use crate::channels::{Channels, Happened, Numbering, SessionId, Violation};
use crate::event::Event;
use crate::suite::{CannotSeal, Cipher, Established, Life, OpenError};
use crate::window::{OutsideWindow, Place, ReceiveWindow, SendWindow};

/// The header of a numbered frame.
const NUMBERED_HEADER: usize = 17;
/// A Send without its payload.
const SEND_HEADER: usize = 37;
/// A frame of bulk data is one record of the largest size, so that what is urgent waits for no more than that.
const MAX_BULK_FRAME: usize = NUMBERED_HEADER + DATA_OVERHEAD + MAX_BULK_RECORD;
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
}

pub(crate) struct Session<C> {
    pub(crate) id: [u8; 16],
    pub(crate) peer_life: Life,
    peer: DeviceId,
    cipher: C,
    pub(crate) send: SendWindow,
    pub(crate) receive: ReceiveWindow,
    pub(crate) channels: Channels,
    /// A packet of the other side was opened, so it has the key.
    pub(crate) confirmed: bool,
    /// Packets in a row that could not be opened.
    pub(crate) failures: u32,
    pub(crate) resume: bool,
    pub(crate) ping: Option<u64>,
    pong: Option<u64>,
}

impl<C: Cipher> Session<C> {
    /// A session whose channels are numbered on from `last_own_channel`.
    pub(crate) fn new(established: Established<C>, numbering: Numbering, last_own_channel: u32) -> Self {
        Self {
            id: established.session,
            peer_life: established.peer_life,
            peer: established.peer,
            cipher: established.cipher,
            send: SendWindow::new(),
            receive: ReceiveWindow::new(),
            channels: Channels::new(numbering, last_own_channel),
            confirmed: false,
            failures: 0,
            resume: false,
            ping: None,
            pong: None,
        }
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

    /// The frame without a number that carries the acknowledgement, and Resume, Ping and Pong if they are wanted.
    pub(crate) fn make_signal(&mut self, rng: &mut impl CryptoRng) -> Result<Vec<u8>, CannotSeal> {
        let mut frame = self.start_frame(None);
        if std::mem::take(&mut self.resume) {
            Record::Resume.encode(&mut frame);
        }
        if let Some(n) = self.ping.take() {
            Record::Ping(n).encode(&mut frame);
        }
        if let Some(n) = self.pong.take() {
            Record::Pong(n).encode(&mut frame);
        }
        self.seal(rng, 0, &frame)
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
        self.seal(rng, 0, &frame)
    }

    /// Whether there is something to send of this class and room for it.
    pub(crate) fn has_data(&self, class: Class, calls: &Calls) -> bool {
        let waits = self.channels.has(class) || (class == Class::Control && calls.has_message());
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
        let number = self.send.next();
        let size = self.room(class);
        let mut frame = Vec::with_capacity(size.min(4096));
        FrameHeader { number: Some(number), acknowledgement: self.receive.expected() }.encode(&mut frame);
        let empty = frame.len();
        if class == Class::Control {
            self.fill_with_calls(&mut frame, size, calls);
            self.channels.fill(Class::Interactive, &mut frame, self.room(Class::Interactive).min(size));
        } else {
            self.channels.fill(class, &mut frame, size);
        }
        let peer = self.peer;
        events.extend(self.channels.take_writable().into_iter().map(|channel| Event::Writable { peer, channel }));
        if calls.take_unblocked() {
            events.push_back(Event::Writable { peer, channel: CALLS });
        }
        if frame.len() == empty {
            return Ok(None);
        }
        self.receive.acknowledge();
        let bytes = self.seal(rng, tag, &frame)?;
        self.send.push(now, tag, bytes.clone(), bytes.len() - SEND_HEADER);
        Ok(Some(bytes))
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

    fn seal(&mut self, rng: &mut impl CryptoRng, tag: u32, frame: &[u8]) -> Result<Vec<u8>, CannotSeal> {
        let mut out = Vec::with_capacity(SEND_HEADER + SEALED_PREFIX + C::OVERHEAD + frame.len());
        ToRelay::Send { to: self.peer, tag, payload: &[] }.encode(&mut out);
        put_sealed_prefix(&mut out, &self.id);
        self.cipher.seal(rng, frame, &mut out)?;
        Ok(out)
    }

    // Below: receiving.

    pub(crate) fn open(&mut self, rng: &mut impl CryptoRng, message: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut frame = Vec::with_capacity(message.len().saturating_sub(C::OVERHEAD));
        self.cipher.open(rng, message, &mut frame)?;
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
        let Some(number) = header.number else {
            self.handle_signal(records, &mut outcome)?;
            return Ok(outcome);
        };
        self.receive.owe(now);
        match self.receive.place(number, frame.len()).map_err(outside)? {
            Place::Early => {
                // The sender cannot know of the gap, and the acknowledgement tells it.
                self.receive.owe_now();
                self.receive.keep(number, frame);
            }
            Place::Next => {
                self.handle_records(records, calls, events)?;
                while let Some(frame) = self.receive.advance() {
                    self.receive.owe_now();
                    let (_, records) = FrameHeader::decode(&frame).map_err(|_| MALFORMED)?;
                    self.handle_records(records, calls, events)?;
                }
            }
        }
        Ok(outcome)
    }

    fn handle_signal(&mut self, records: Records<'_>, outcome: &mut Outcome) -> Result<(), Violation> {
        for record in records {
            match record.map_err(|_| MALFORMED)? {
                Record::Ping(n) => self.pong = Some(n),
                Record::Resume => outcome.resume = true,
                Record::Goodbye { code, reason } => outcome.goodbye = Some((code, reason.to_owned())),
                _ => {}
            }
        }
        if outcome.resume {
            // PROTOCOL 9: at once, from the acknowledgement that it carries.
            self.send.resend_all(Duration::MAX);
            self.receive.owe_now();
        }
        Ok(())
    }

    fn handle_records(
        &mut self,
        records: Records<'_>,
        calls: &mut Calls,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Violation> {
        for record in records {
            let record = record.map_err(|_| MALFORMED)?;
            match self.channels.handle(&record)? {
                None => {}
                Some(Happened::Message { channel: CALLS, bytes }) => {
                    self.channels.consumed(CALLS, bytes.len());
                    let mut heard = Vec::new();
                    calls.handle_message(&bytes, &mut heard)?;
                    events.extend(heard.into_iter().map(|event| call_event(self.peer, event)));
                }
                Some(happened) => events.push_back(channel_event(self.peer, self.id, happened)),
            }
        }
        Ok(())
    }
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
        CallEvent::Answer { id, answer } => Event::Answer { peer, id, answer },
        CallEvent::Notice(body) => Event::Notice { peer, body },
    }
}
