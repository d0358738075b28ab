//! The link's frames and records, inside a sealed packet (`PROTOCOL 9`).

use crate::Code;
use crate::reader::{Reader, WireError, put_str8};

/// The largest frame, bytes before sealing.
pub const MAX_FRAME: usize = 32 * 1024;
/// The most numbered frames in flight.
pub const MAX_IN_FLIGHT_FRAMES: u64 = 256;
/// The most bytes of numbered packets in flight; below the relay's queue of 256 KiB, which other senders share.
pub const MAX_IN_FLIGHT_BYTES: usize = 192 * 1024;
/// The most channels open on a link.
pub const MAX_CHANNELS: usize = 256;
/// The largest message on a channel.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// What a side may send on a new channel before it is allowed more, bytes.
pub const INITIAL_LIMIT: u64 = 512 * 1024;
/// The most Data in one record of class bulk: a control record waits for one such record at most.
pub const MAX_BULK_RECORD: usize = 16 * 1024;
/// The bytes of a Data record around its data.
pub const DATA_OVERHEAD: usize = 1 + 4 + 1 + 2;
/// The channel of calls, open from the start.
pub const CALLS: u32 = 0;

/// The length to which a frame of so many bytes is padded (`PROTOCOL 9`): whoever counts bytes sees a size in a few steps, and not
/// whether somebody typed `y` or `n`.
#[must_use]
pub fn padded(length: usize) -> usize {
    match length {
        0..=64 => 64,
        65..=1_024 => length.next_power_of_two(),
        _ => length.next_multiple_of(1_024),
    }
}

/// What stands before the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The number of the frame; none for a frame that is not resent.
    pub number: Option<u64>,
    /// The next number that the sender expects from us.
    pub acknowledgement: u64,
}

impl FrameHeader {
    /// Appends the header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self.number {
            None => out.push(0),
            Some(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.acknowledgement.to_be_bytes());
    }

    /// Reads the header and gives the records behind it.
    ///
    /// # Errors
    /// [`WireError`] for a cut header or an unknown kind.
    pub fn decode(bytes: &[u8]) -> Result<(Self, Records<'_>), WireError> {
        let mut r = Reader::new(bytes);
        let number = match r.u8()? {
            0 => None,
            1 => Some(r.u64()?),
            _ => return Err(WireError::Field("kind of frame")),
        };
        let header = FrameHeader { number, acknowledgement: r.u64()? };
        Ok((header, Records { rest: r.rest(), numbered: number.is_some() }))
    }
}

/// How urgent a channel is; the smaller goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Calls and approvals.
    Control,
    /// Keystrokes and terminal output.
    Interactive,
    /// Files.
    Bulk,
}

impl TryFrom<u8> for Class {
    type Error = WireError;

    fn try_from(byte: u8) -> Result<Self, WireError> {
        match byte {
            0 => Ok(Class::Control),
            1 => Ok(Class::Interactive),
            2 => Ok(Class::Bulk),
            _ => Err(WireError::Field("class of channel")),
        }
    }
}

/// One record of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// Zeros to the end of the frame; the number of them, its own type byte included.
    Padding(usize),
    /// Opens a channel.
    Open {
        /// Odd from the initiator, even from the responder, never 0.
        channel: u32,
        /// Its urgency.
        class: Class,
        /// How many bytes the other side may send on it.
        limit: u64,
        /// What it is for.
        label: &'a str,
    },
    /// A part of a message.
    Data {
        /// On which channel.
        channel: u32,
        /// Whether the message is complete with it.
        last: bool,
        /// At most 65,535 bytes.
        bytes: &'a [u8],
    },
    /// How many bytes the other side may have sent in all.
    Limit {
        /// On which channel.
        channel: u32,
        /// Never less than before.
        limit: u64,
    },
    /// Ends a channel, in both directions.
    Close {
        /// Which channel.
        channel: u32,
        /// Why.
        code: Code,
        /// For a person.
        reason: &'a str,
    },
    /// Asks for a Pong.
    Ping(u64),
    /// Answers a Ping.
    Pong(u64),
    /// Asks for everything from the acknowledgement of this frame on.
    Resume,
    /// The pair secret that the handshake of this session left is stored (`PROTOCOL 5`).
    PairSecret([u8; 16]),
    /// The sender is going.
    Goodbye {
        /// Why.
        code: Code,
        /// For a person.
        reason: &'a str,
    },
}

impl Record<'_> {
    /// Appends the record. Data longer than 65,535 bytes is the caller's mistake and is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Padding(n) => out.resize(out.len() + n, 0),
            Record::Open { channel, class, limit, label } => {
                put_channel(out, 0x01, *channel);
                out.push(*class as u8);
                out.extend_from_slice(&limit.to_be_bytes());
                put_str8(out, label);
            }
            Record::Data { channel, last, bytes } => {
                debug_assert!(bytes.len() <= u16::MAX.into());
                let bytes = &bytes[..bytes.len().min(u16::MAX.into())];
                put_channel(out, 0x02, *channel);
                out.push((*last).into());
                out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Record::Limit { channel, limit } => {
                put_channel(out, 0x03, *channel);
                out.extend_from_slice(&limit.to_be_bytes());
            }
            Record::Close { channel, code, reason } => {
                put_channel(out, 0x04, *channel);
                out.extend_from_slice(&code.0.to_be_bytes());
                put_str8(out, reason);
            }
            Record::Ping(n) => {
                out.push(0x05);
                out.extend_from_slice(&n.to_be_bytes());
            }
            Record::Pong(n) => {
                out.push(0x06);
                out.extend_from_slice(&n.to_be_bytes());
            }
            Record::Resume => out.push(0x07),
            Record::PairSecret(session) => {
                out.push(0x09);
                out.extend_from_slice(session);
            }
            Record::Goodbye { code, reason } => {
                out.push(0x08);
                out.extend_from_slice(&code.0.to_be_bytes());
                put_str8(out, reason);
            }
        }
    }

    /// Whether the record must be in a numbered frame: it changes state that both sides must agree on.
    fn is_reliable(&self) -> bool {
        use Record::{Close, Data, Limit, Open, PairSecret};
        matches!(self, Open { .. } | Data { .. } | Limit { .. } | Close { .. } | PairSecret(_))
    }
}

fn put_channel(out: &mut Vec<u8>, kind: u8, channel: u32) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
}

/// The records of a frame. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    numbered: bool,
}

impl<'a> Records<'a> {
    fn read(&mut self) -> Result<Record<'a>, WireError> {
        let mut r = Reader::new(self.rest);
        let record = match r.u8()? {
            0x00 => {
                let zeros = r.rest();
                if zeros.iter().any(|&byte| byte != 0) {
                    return Err(WireError::Field("padding"));
                }
                Record::Padding(1 + zeros.len())
            }
            0x01 => Record::Open { channel: r.u32()?, class: r.u8()?.try_into()?, limit: r.u64()?, label: r.str8()? },
            0x02 => {
                let channel = r.u32()?;
                let last = match r.u8()? {
                    0 => false,
                    1 => true,
                    _ => return Err(WireError::Field("flags of data")),
                };
                let n = r.u16()?;
                Record::Data { channel, last, bytes: r.take(n.into())? }
            }
            0x03 => Record::Limit { channel: r.u32()?, limit: r.u64()? },
            0x04 => Record::Close { channel: r.u32()?, code: Code(r.u16()?), reason: r.str8()? },
            0x05 => Record::Ping(r.u64()?),
            0x06 => Record::Pong(r.u64()?),
            0x07 => Record::Resume,
            0x08 => Record::Goodbye { code: Code(r.u16()?), reason: r.str8()? },
            0x09 => Record::PairSecret(r.array()?),
            other => return Err(WireError::UnknownType(other)),
        };
        if record.is_reliable() != self.numbered && !matches!(record, Record::Padding(_)) {
            return Err(WireError::Field("record in the wrong kind of frame"));
        }
        self.rest = r.rest();
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = self.read();
        if record.is_err() {
            self.rest = &[];
        }
        Some(record)
    }
}
