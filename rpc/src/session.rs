//! Calls about terminal sessions. What is typed and printed goes over a terminal channel (`docs/PROTOCOL.md` §10.1).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Progress;

/// Asks for the sessions, oldest first. An answer has as many as fit; [`SessionPages`] asks for the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionList {
    /// Only those after this place. A machine of before does not know it, and answers with all that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub after: Option<SessionPlace>,
}

/// The place of a session in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionPlace {
    /// Unix milliseconds.
    pub created_at: u64,
    /// Its id.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
}

/// An answer to [`SessionList`] with fewer sessions is the last one (PROTOCOL 10).
pub const SESSION_PAGE: usize = 32;

/// Puts a list of sessions together that comes in more than one answer.
#[derive(Debug, Clone, Default)]
pub struct SessionPages(Vec<Session>);

impl SessionPages {
    /// What to ask for next.
    pub fn next(&self) -> SessionList {
        SessionList { after: self.0.last().map(Session::place) }
    }

    /// Takes an answer; whether there may be more to ask for.
    pub fn take(&mut self, page: Vec<Session>) -> bool {
        let (known, count) = (self.0.last().map(Session::place), page.len());
        let before = self.0.len();
        // A machine that does not know of places begins anew.
        self.0.extend(page.into_iter().filter(|session| Some(session.place()) > known));
        count >= SESSION_PAGE && self.0.len() > before && self.0.len() < MAX_LISTED
    }

    /// All of them.
    pub fn into_sessions(self) -> Vec<Session> {
        self.0
    }
}

/// More sessions than any machine has.
const MAX_LISTED: usize = 10_000;

/// Starts a program in a new terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SessionCreate {
    /// Program and arguments; empty for the login shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where it starts; the home directory when missing.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional, type = "string"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub cwd: Option<PathBuf>,
    /// The environment; the daemon's own when missing. Only the local command line sends one.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub env: Option<BTreeMap<String, String>>,
    /// A name for people.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub name: Option<String>,
    /// Columns of the screen; 80 when 0.
    #[serde(default)]
    pub cols: u16,
    /// Rows of the screen; 24 when 0.
    #[serde(default)]
    pub rows: u16,
    /// How many bytes of output are kept for viewers that come back, 64 KiB to 1 GiB; as the machine is set when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub keep: Option<u64>,
    /// Record it from its first byte on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub record: Option<RecordOptions>,
    /// Make it a session of tmux.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub tmux: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How a session is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecordOptions {
    /// The path of a file that must not be there, on the machine of the session; one below its home when missing. Only the local command
    /// line sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "string"))]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub to: Option<PathBuf>,
    /// The most bytes that the file may have; as the machine has it when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub limit: Option<u64>,
}

/// Begins to record what a session prints; what is typed into it is never recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionRecord {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// How.
    #[serde(default)]
    pub record: RecordOptions,
}

/// Ends a recording; its file is whole then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionStopRecording {
    /// Of which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
}

/// Shows a session on a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionAttach {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// A channel that the caller has opened with the label `terminal`.
    pub channel: u32,
    /// Whose input offsets these are: chosen by the viewer, kept across reconnects.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub writer: Uuid,
    /// The viewer's name for people.
    pub name: String,
    /// The output offset to go on from; a snapshot when missing or no longer kept.
    #[serde(default)]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub from: Option<u64>,
    /// How many scrolled-off rows a snapshot shall carry.
    #[serde(default)]
    pub scrollback: u32,
    /// Never skip output; the program waits for this viewer. Only between machines.
    #[serde(default)]
    pub lossless: bool,
    /// The viewer tells what it has drawn, is shown screens past what it can take, and asks for history.
    #[serde(default)]
    pub credit: bool,
    /// The viewer's own size.
    pub cols: u16,
    /// The viewer's own size.
    pub rows: u16,
    /// Decide the size from the start.
    #[serde(default)]
    pub take_control: bool,
}

/// The beginning of an attachment; output follows on the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attached {
    /// Names this attachment in other calls.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub attachment: Uuid,
    /// The input offset that is expected next from this writer.
    pub input_offset: u64,
    /// The session as it is now.
    pub session: Session,
    /// Whether this attachment decides the size.
    pub you_control: bool,
    /// Whether the machine wants to be told what is drawn.
    #[serde(default)]
    pub credit: bool,
}

/// Ends an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionDetach {
    /// Which, from [`Attached`].
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub attachment: Uuid,
}

/// Ends the program: a hang-up for its whole process group, after five seconds without mercy. A session that has already
/// ended is taken off the list. One of tmux is ended by tmux, with all its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionKill {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
}

/// Stops the program, with all that it has started in its terminal, until it is resumed: it uses no processor and answers nothing. One that is
/// paused already stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionPause {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
}

/// Lets a paused program go on; one that runs goes on as it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionResume {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
}

/// Gives a session another name for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionRename {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// The name; cut after 120 bytes, controls become spaces.
    pub name: String,
}

/// The longest text of [`SessionType`], bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// Types a text into a session as one paste, which programs take as such where they can: a prompt of several lines is one prompt.
/// Done when the program's terminal has all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionType {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// What is typed, at most [`MAX_TEXT`] bytes. Controls other than line ends and tabs are left out.
    pub text: String,
    /// Press Enter afterwards.
    #[serde(default)]
    pub enter: bool,
}

/// Makes an attachment the one that decides the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionTakeControl {
    /// Which, from [`Attached`].
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub attachment: Uuid,
    /// The size it wants.
    pub cols: u16,
    /// The size it wants.
    pub rows: u16,
}

/// Gives control back: to the attachment that had it before and is still there, or to nobody. Without control nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct SessionGiveControl {
    /// Which, from [`Attached`].
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub attachment: Uuid,
}

/// Changes the size of the screen; refused unless the attachment is in control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct TerminalResize {
    /// Which, from [`Attached`].
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub attachment: Uuid,
    /// Columns, at most 1,000.
    pub cols: u16,
    /// Rows, at most 1,000.
    pub rows: u16,
}

/// What a session's program is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SessionState {
    /// It runs.
    Running,
    /// It returned a code.
    Exited {
        /// 0 by convention when all went well.
        code: u32,
    },
    /// A signal ended it.
    Killed {
        /// The number of the signal.
        signal: u32,
    },
    /// Its holder is gone and left no word of how it ended.
    Lost,
}

/// Whose a session is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SessionKind {
    /// The machine's own.
    #[default]
    Own,
    /// A session of the user's tmux: it lives and ends with that.
    Tmux,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Session {
    /// Its id.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub id: Uuid,
    /// Whose it is; machines from before have only their own.
    #[serde(default)]
    pub kind: SessionKind,
    /// The name it was given, or its command.
    pub name: String,
    /// What the program calls itself on its terminal; empty when it does not.
    pub title: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it started.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub cwd: PathBuf,
    /// What it is doing.
    #[serde(flatten)]
    pub state: SessionState,
    /// The process, while it runs.
    pub pid: Option<u32>,
    /// Columns of the screen.
    pub cols: u16,
    /// Rows of the screen.
    pub rows: u16,
    /// How many bytes the program has printed in all.
    pub output_offset: u64,
    /// How many are looking.
    pub viewers: u32,
    /// Who decides the size, by name.
    pub controller: Option<String>,
    /// Unix milliseconds.
    pub created_at: u64,
    /// The oldest output offset that is still kept; machines of before do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub kept_from: Option<u64>,
    /// What it prints is recorded, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub recording: Option<Recording>,
    /// It runs and is stopped, until it is resumed.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub paused: bool,
    /// Somebody told it to end: however it ended then, that was wanted.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "typescript", ts(optional, as = "Option<bool>"))]
    pub told_to_end: bool,
    /// The prompt with which it waits for a person; [`PromptList`](crate::PromptList) tells what it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "string"))]
    pub prompt: Option<Uuid>,
    /// How far it says it is; missing when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub progress: Option<Progress>,
}

/// A recording of what a session prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recording {
    /// The path of the file, on the machine of the session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub file: PathBuf,
    /// Unix milliseconds.
    pub started_at: u64,
    /// Why it has ended, for people; while it goes on there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub ended: Option<String>,
}

impl Recording {
    /// Whether it goes on.
    pub fn is_on(&self) -> bool {
        self.ended.is_none()
    }
}

impl Session {
    /// Where it stands in the list.
    pub fn place(&self) -> SessionPlace {
        SessionPlace { created_at: self.created_at, session: self.id }
    }
}
