//! What a holder and its clients say to each other; the byte-exact page is `docs/LOCAL.md`, "The holder's socket".
//!
//! A holder lives for weeks under daemons that are upgraded, so this protocol does not change its shape within a version:
//! messages that are rare are JSON objects whose unknown keys are ignored, what is frequent is [`TerminalMessage`] as on a
//! terminal channel (`PROTOCOL 10.1`), and a kind that is not known is answered or skipped, never guessed at.
//!
//! [`TerminalMessage`]: happy_wire::terminal::TerminalMessage

use std::io;
use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use happy_rpc::{Progress, Prompt, PromptEnd, Recording, SessionState};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use uuid::Uuid;

use super::prompting::Answer;
use super::recording::Order;

/// The version in the first frame of each direction.
pub const VERSION: u8 = 1;

/// The most bytes of one frame after its length. Twice the largest part of a snapshot, so that every message fits with room for
/// what a later version may add; small enough that a hostile length costs nobody memory.
pub const MAX_FRAME: usize = 64 * 1024;

/// The kind of a frame, its first byte.
pub mod kind {
    /// Client: show me the session. Version, then JSON [`super::Attach`].
    pub const ATTACH: u8 = 0x01;
    /// Client: I want to steer the holder. Version, then nothing.
    pub const CONTROL: u8 = 0x02;
    /// Both, after [`ATTACHED`]: a terminal message.
    pub const TERMINAL: u8 = 0x03;
    /// Client, after [`CONTROLLED`]: JSON [`super::Request`].
    pub const REQUEST: u8 = 0x04;
    /// Holder: answers [`ATTACH`]. Version, then JSON [`super::Attached`].
    pub const ATTACHED: u8 = 0x81;
    /// Holder: answers [`CONTROL`]. Version, then JSON [`super::Status`].
    pub const CONTROLLED: u8 = 0x82;
    /// Holder: JSON [`super::Refusal`]; the connection ends.
    pub const REFUSED: u8 = 0x83;
    /// Holder: answers a [`REQUEST`], in order. JSON [`super::Response`].
    pub const RESPONSE: u8 = 0x84;
    /// Holder, on a control connection, unasked: JSON [`super::Status`].
    pub const STATUS: u8 = 0x85;
}

/// What a viewer asks for when it attaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Names this viewer in [`Request`]s.
    pub viewer: Uuid,
    /// Whose input offsets these are. A viewer that attaches with the writer of another takes that one's place.
    pub writer: Uuid,
    /// For people.
    pub name: String,
    /// Output offset to go on from; a snapshot when missing or no longer kept.
    #[serde(default)]
    pub from: Option<u64>,
    /// How many scrolled-off rows a snapshot shall carry.
    #[serde(default)]
    pub scrollback: u32,
    /// Never skip output; the program waits.
    #[serde(default)]
    pub lossless: bool,
    /// It tells what it has drawn, is shown screens past its window, and asks for history.
    #[serde(default)]
    pub credit: bool,
    /// The viewer's own size.
    pub cols: u16,
    /// The viewer's own size.
    pub rows: u16,
    /// Decide the size if nobody does.
    #[serde(default)]
    pub take_control: bool,
}

/// The answer to [`Attach`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The input offset expected next from this writer.
    pub input_offset: u64,
    /// Output that follows begins here, unless a snapshot comes first.
    pub offset: u64,
    /// Whether this viewer decides the size.
    pub you_control: bool,
    /// Whether it may send Drawn and HistoryWanted. A holder of before does not say so, and refuses them.
    #[serde(default)]
    pub credit: bool,
    /// The holder's state, this viewer included.
    pub status: Status,
}

/// What changes about a session while it lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The holder's own process.
    pub holder: u32,
    /// The program's process, while it runs.
    pub pid: Option<u32>,
    /// Columns of the screen.
    pub cols: u16,
    /// Rows of the screen.
    pub rows: u16,
    /// The oldest output offset still kept.
    pub kept_from: u64,
    /// How many bytes the program has printed in all.
    pub output_offset: u64,
    /// How many bytes were typed into it in all; nothing is told unasked because of it.
    #[serde(default)]
    pub bytes_in: u64,
    /// How many are looking.
    pub viewers: u32,
    /// Who decides the size, by name.
    pub controller: Option<String>,
    /// What the program calls itself on its terminal.
    pub title: String,
    /// The holder's own program; all of it missing in those that cannot be upgraded.
    #[serde(default)]
    pub build: Build,
    /// How often another program has taken over.
    #[serde(default)]
    pub upgrades: u64,
    /// How long nobody was served when that happened last, in microseconds.
    #[serde(default)]
    pub blackout_us: Option<u64>,
    /// What it prints is recorded, or was.
    #[serde(default)]
    pub recording: Option<Recording>,
    /// The program is stopped until somebody resumes it.
    #[serde(default)]
    pub paused: bool,
    /// The question with which the program waits; of which session is not said.
    #[serde(default)]
    pub prompt: Option<Prompt>,
    /// How the one before ended.
    #[serde(default)]
    pub prompt_ended: Option<Ended>,
    /// How far the program says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// The last line on the screen, for a connection that has asked to [watch](Request::Watch).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Whether it runs, or how it ended.
    #[serde(flatten)]
    pub state: SessionState,
}

/// The end of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub prompt: Uuid,
    /// How it ended.
    pub end: PromptEnd,
}

/// Which program this is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Of the release.
    pub version: String,
    /// Another one for every executable file: its length and when it was written.
    pub id: String,
}

/// What can be asked on a control connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    /// Tell the state.
    Status,
    /// Tell the last line on the screen too, on this connection, and the state whenever something was printed; or no more.
    Watch {
        /// Whether from now on.
        on: bool,
    },
    /// Send a signal to the program's process group and to the group in the foreground of its terminal.
    Kill {
        /// Number of the signal.
        signal: u32,
        /// SIGKILL follows after so many milliseconds if the program still runs; never when 0.
        #[serde(default)]
        then_kill_after_ms: u32,
    },
    /// Stop every process of the terminal's session.
    Pause,
    /// Let them go on.
    Resume,
    /// Change the size; refused unless this viewer is in control.
    Resize {
        /// Which viewer asks.
        viewer: Uuid,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Make this viewer the one that decides the size.
    TakeControl {
        /// Which viewer.
        viewer: Uuid,
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Let this viewer decide the size no more; who had control before has it again.
    GiveControl {
        /// Which viewer.
        viewer: Uuid,
    },
    /// Cut a viewer off; its program goes on.
    Detach {
        /// Which viewer.
        viewer: Uuid,
    },
    /// Begin to record what it prints.
    Record(Order),
    /// End the recording.
    StopRecording,
    /// Answer the question, if it still stands there and nobody else has.
    Answer(Answer),
    /// The program has told by another way that it waits for somebody.
    Call {
        /// Its words.
        text: String,
    },
    /// Go on as another program; answered by that one.
    Upgrade {
        /// The path of its executable.
        program: PathBuf,
    },
    /// End the holder; refused while the program runs.
    Forget,
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "it lives for as long as it takes to be written")]
pub enum Response {
    /// It was done; this is the state now.
    Ok(Status),
    /// It was not.
    Error(Refusal),
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// A code of `PROTOCOL 13`, or one of [`refusal`].
    pub code: u16,
    /// A sentence for people.
    pub message: String,
}

/// Codes of a [`Refusal`].
pub mod refusal {
    /// Malformed or out of place, a gap in the input among them (`PROTOCOL 13`).
    pub const MALFORMED: u16 = 4400;
    /// Another viewer has taken this writer's place (`PROTOCOL 13`).
    pub const DISPLACED: u16 = 4409;
    /// A limit is reached (`PROTOCOL 13`).
    pub const TOO_MANY: u16 = 4429;
    /// The viewer was detached on request; no fault (`PROTOCOL 13`).
    pub const DETACHED: u16 = 4000;
    /// No such viewer.
    pub const NOT_FOUND: u16 = 404;
    /// It cannot be done in the present state.
    pub const CONFLICT: u16 = 409;
    /// It came later than it was wanted.
    pub const EXPIRED: u16 = 410;
    /// The request is not known to this holder.
    pub const UNKNOWN: u16 = 501;
}

impl Refusal {
    /// A refusal with a sentence.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Why a connection between a holder and a client broke.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed.
    #[error("the connection to the session broke: {0}")]
    Io(#[from] io::Error),
    /// The other side announced a frame that is empty or larger than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is not allowed on the session's socket")]
    Length(usize),
    /// The other side closed in the middle of a frame.
    #[error("the connection to the session was cut in the middle of a frame")]
    Cut,
}

/// Takes frames from a stream. Cancel-safe: what was read stays in the buffer.
pub struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `io`.
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The next frame, its kind in front; `None` when the other side closed between frames.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be used afterwards.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ_AHEAD);
            if self.io.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Cut) };
            }
        }
    }
}

/// Takes the first frame out of what was read, its kind in front; `None` while it is not whole.
///
/// # Errors
/// [`FrameError::Length`].
pub fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > MAX_FRAME {
        return Err(FrameError::Length(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// Room made before each read: most frames fit, and an idle connection holds no more than this.
pub const READ_AHEAD: usize = 8 * 1024;

/// Writes frames to a stream. Frames are put in memory first, [`FrameWriter::flush`] writes them; what it has not written when it
/// is cancelled is written by the next one.
pub struct FrameWriter<W> {
    io: W,
    buffer: BytesMut,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes to `io`.
    pub fn new(io: W) -> Self {
        Self { io, buffer: BytesMut::new() }
    }

    /// The stream.
    pub fn get_ref(&self) -> &W {
        &self.io
    }

    /// The frames not yet written, to append to with [`put_frame`].
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Writes everything that was put. Cancel-safe.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.buffer.has_remaining() {
            if self.io.write_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }
}

/// Appends a frame whose body is written by `body`.
pub fn put_frame(out: &mut BytesMut, kind: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    body(out);
    // Every body is bounded far below 4 GiB by its author; MAX_FRAME is checked by the tests and by the receiver.
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a frame of JSON, with the version in front when it is the first of its direction.
pub fn put_json(out: &mut BytesMut, kind: u8, version: Option<u8>, value: &impl Serialize) {
    put_frame(out, kind, |out| {
        if let Some(version) = version {
            out.put_u8(version);
        }
        // Plain data with string keys: serialising it cannot fail.
        out.put_slice(&serde_json::to_vec(value).unwrap_or_default());
    });
}

/// Reads the version and the JSON of a first frame, its kind already taken.
///
/// # Errors
/// A [`Refusal`] that says which of them is wrong.
pub fn read_first<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    match body.split_first() {
        Some((&VERSION, json)) => read_json(json),
        Some((other, _)) => Err(Refusal::new(
            refusal::MALFORMED,
            format!(
                "version {other} of the session protocol is not spoken here (only {VERSION}); upgrade the older side"
            ),
        )),
        None => Err(Refusal::new(refusal::MALFORMED, "the first frame has no version")),
    }
}

/// Reads a JSON body.
///
/// # Errors
/// A [`Refusal`] that says what is wrong.
pub fn read_json<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(json)
        .map_err(|error| Refusal::new(refusal::MALFORMED, format!("the message cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_survive_any_cut_of_the_stream() {
        let mut stream = BytesMut::new();
        put_frame(&mut stream, kind::TERMINAL, |out| out.put_slice(b"abc"));
        put_frame(&mut stream, kind::CONTROL, |_| {});
        for cut in 0..=stream.len() {
            let (mut ours, theirs) = tokio::io::duplex(64);
            let mut reader = FrameReader::new(theirs);
            ours.write_all(&stream[..cut]).await.unwrap();
            let mut frames = Vec::new();
            let early = async {
                while let Ok(Some(frame)) = reader.next().await {
                    frames.push(frame);
                }
            };
            // Cancelled in the middle of a frame, the reader goes on where it was.
            tokio::select! { biased; () = early => {}, () = tokio::task::yield_now() => {} }
            ours.write_all(&stream[cut..]).await.unwrap();
            drop(ours);
            while let Some(frame) = reader.next().await.unwrap() {
                frames.push(frame);
            }
            assert_eq!(frames, [&b"\x03abc"[..], b"\x02"], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_length_out_of_bounds_ends_the_stream_before_memory_is_taken() {
        for length in [0u32, MAX_FRAME as u32 + 1, u32::MAX] {
            let bytes = length.to_be_bytes();
            let error = FrameReader::new(&bytes[..]).next().await.unwrap_err();
            assert!(matches!(error, FrameError::Length(n) if n == length as usize));
        }
        let error = FrameReader::new(&[0u8, 0, 0, 9, 1][..]).next().await.unwrap_err();
        assert!(matches!(error, FrameError::Cut));
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_versions_are_not() {
        let request: Request = read_json(br#"{"do":"kill","signal":1,"later":true}"#).unwrap();
        assert_eq!(request, Request::Kill { signal: 1, then_kill_after_ms: 0 });
        let refused = read_first::<Request>(b"\x02{}").unwrap_err();
        assert!(refused.message.contains("version 2"), "{refused}");
    }
}
