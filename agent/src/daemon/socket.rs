//! The bytes on the daemon's socket: frames, the first message, control messages (`docs/LOCAL.md`).
//!
//! Used by both ends. After the first message a connection speaks as a link does: calls on channel 0, messages on channels
//! that were opened, so one handler serves the command line and the devices.

use std::io;

use happy_wire::WireError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version of the socket's own language.
pub const VERSION: u8 = 1;
/// The channel of calls.
pub const CALLS: u32 = 0;
/// The channel of control messages.
pub const CONTROL: u32 = u32::MAX;
/// The largest message: that of a link (`PROTOCOL 9`).
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The most channels open at once on one connection, as on a link.
pub const MAX_CHANNELS: usize = 256;

/// What the client says first, as JSON on channel 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub happy: u8,
    /// The machine that is spoken to, by name or by the beginning of its id; this one when missing.
    #[serde(default)]
    pub target: Option<String>,
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Greeting {
    /// Go on.
    Ok(Greeted),
    /// No; the connection ends.
    Error(happy_rpc::CallError),
}

/// Who answers on this connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeted {
    /// Its device id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// The version of this machine's agent.
    pub version: String,
    /// Whether the link to it is up; always true without a target.
    pub link_up: bool,
}

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Client → daemon: open a channel; `tag` names it until it has a number.
    Open {
        /// Chosen by the client.
        tag: u32,
        /// As on a link.
        class: u8,
        /// As on a link.
        label: String,
    },
    /// Daemon → client: it is open and has this number.
    Opened {
        /// From [`Control::Open`].
        tag: u32,
        /// Its number.
        channel: u32,
    },
    /// Daemon → client: it is not open.
    Refused {
        /// From [`Control::Open`].
        tag: u32,
        /// As in a close.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Both ways: the channel is closed.
    Close {
        /// Its number.
        channel: u32,
        /// `PROTOCOL 13`.
        code: u16,
        /// For people.
        reason: String,
    },
    /// Daemon → client, with a target: the link went up or down.
    Link {
        /// Whether it is up.
        up: bool,
    },
    /// Daemon → client, with a target: no answer to this call will come, and why.
    Unanswered {
        /// Of the call.
        id: u64,
        /// Why.
        why: Unanswered,
    },
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// The other side restarted in between: it may or may not have been done.
    Indeterminate,
    /// The deadline passed: it may still be done.
    DeadlinePassed,
    /// The machine is no longer known.
    LinkGone,
}

impl Control {
    /// The message as bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Control::Open { tag, class, label } => {
                out.push(1);
                out.extend_from_slice(&tag.to_be_bytes());
                out.push(*class);
                put_str8(&mut out, label);
            }
            Control::Opened { tag, channel } => {
                out.push(2);
                out.extend_from_slice(&tag.to_be_bytes());
                out.extend_from_slice(&channel.to_be_bytes());
            }
            Control::Refused { tag: number, code, reason } | Control::Close { channel: number, code, reason } => {
                out.push(if matches!(self, Control::Refused { .. }) { 3 } else { 4 });
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&code.to_be_bytes());
                put_str8(&mut out, reason);
            }
            Control::Link { up } => out.extend_from_slice(&[5, (*up).into()]),
            Control::Unanswered { id, why } => {
                out.push(6);
                out.extend_from_slice(&id.to_be_bytes());
                out.push(match why {
                    Unanswered::Indeterminate => 1,
                    Unanswered::DeadlinePassed => 2,
                    Unanswered::LinkGone => 3,
                });
            }
        }
        out
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] for a cut or unknown message.
    pub fn decode(bytes: &[u8]) -> Result<Control, WireError> {
        let mut rest = Rest(bytes);
        let kind = rest.array::<1>()?[0];
        let control = match kind {
            1 => Control::Open { tag: rest.u32()?, class: rest.array::<1>()?[0], label: rest.str8()? },
            2 => Control::Opened { tag: rest.u32()?, channel: rest.u32()? },
            3 => Control::Refused { tag: rest.u32()?, code: rest.u16()?, reason: rest.str8()? },
            4 => Control::Close { channel: rest.u32()?, code: rest.u16()?, reason: rest.str8()? },
            5 => Control::Link { up: rest.array::<1>()?[0] != 0 },
            6 => Control::Unanswered {
                id: u64::from_be_bytes(rest.array()?),
                why: match rest.array::<1>()?[0] {
                    1 => Unanswered::Indeterminate,
                    2 => Unanswered::DeadlinePassed,
                    3 => Unanswered::LinkGone,
                    _ => return Err(WireError::Field("why a call has no answer")),
                },
            },
            other => return Err(WireError::UnknownType(other)),
        };
        if rest.0.is_empty() { Ok(control) } else { Err(WireError::Trailing) }
    }
}

fn put_str8(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push(end as u8);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Cut)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    fn str8(&mut self) -> Result<String, WireError> {
        let len = usize::from(self.array::<1>()?[0]);
        let (text, rest) = self.0.split_at_checked(len).ok_or(WireError::Cut)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).map_err(|_| WireError::Field("text"))
    }
}

/// Appends a frame: `u32 length ‖ u32 channel ‖ bytes`, where the length counts the channel too.
pub fn put_frame(out: &mut Vec<u8>, channel: u32, message: &[u8]) {
    out.extend_from_slice(&(message.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(message);
}

/// Reads a frame; `None` at a clean end.
///
/// # Errors
/// An I/O error, or `InvalidData` for a length out of bounds. Not safe to cancel: give it a task of its own.
pub async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(u32, Vec<u8>)>> {
    let mut head = [0; 4];
    match reader.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let len = u32::from_be_bytes(head) as usize;
    if !(4..=MAX_MESSAGE + 4).contains(&len) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame has a length out of bounds"));
    }
    let channel = reader.read_u32().await?;
    let mut message = vec![0; len - 4];
    reader.read_exact(&mut message).await?;
    Ok(Some((channel, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_come_back_and_cut_ones_are_refused() {
        for control in [
            Control::Open { tag: 7, class: 1, label: "terminal".into() },
            Control::Opened { tag: 7, channel: 3 },
            Control::Refused { tag: 7, code: 4429, reason: "too many".into() },
            Control::Close { channel: 3, code: 4000, reason: String::new() },
            Control::Link { up: true },
            Control::Unanswered { id: 9, why: Unanswered::Indeterminate },
        ] {
            let bytes = control.to_vec();
            assert_eq!(Control::decode(&bytes).unwrap(), control);
            (0..bytes.len())
                .for_each(|cut| assert!(Control::decode(&bytes[..cut]).is_err(), "{control:?} cut at {cut}"));
            assert!(Control::decode(&[bytes, vec![0]].concat()).is_err());
        }
    }

    #[tokio::test]
    async fn frames_come_back_and_a_length_out_of_bounds_is_refused_before_it_is_believed() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, 5, b"hello");
        put_frame(&mut bytes, CONTROL, b"");
        let mut reader = bytes.as_slice();
        assert_eq!(read_frame(&mut reader).await.unwrap(), Some((5, b"hello".to_vec())));
        assert_eq!(read_frame(&mut reader).await.unwrap(), Some((CONTROL, Vec::new())));
        assert_eq!(read_frame(&mut reader).await.unwrap(), None);
        for len in [0u32, 3, MAX_MESSAGE as u32 + 5, u32::MAX] {
            let error = read_frame(&mut len.to_be_bytes().as_slice()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
