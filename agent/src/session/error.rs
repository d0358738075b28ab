//! What can go wrong with sessions, and what a caller is told.

use std::io;
use std::path::PathBuf;

use happy_rpc::{CallError, ErrorCode};

use crate::holder::protocol::{FrameError, Refusal, refusal};
use crate::holder::spec::StartError;
use crate::tmux::TmuxError;

/// Why the sessions could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the sessions' directory {path} cannot be used: {source}")]
pub struct OpenError {
    /// Which directory.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// [`super::MAX_SESSIONS`] run.
    #[error("there are {} sessions already; end some first", super::MAX_SESSIONS)]
    TooMany,
    /// Too few descriptors are left.
    #[error(
        "this daemon has no more files to open ({0}); end some sessions, or start it with a higher limit (`ulimit -n`)"
    )]
    Descriptors(io::Error),
    /// The request itself is wrong.
    #[error("{0}")]
    Request(&'static str),
    /// The holder could not start the program.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The session's files could not be written.
    #[error("the session's files cannot be written to {path}: {source}")]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The holder process could not be started.
    #[error("the session's process cannot be started: {0}")]
    Spawn(io::Error),
    /// The holder ended before it said anything.
    #[error("the session's process ended before it was ready")]
    Died,
    /// The holder did not get ready in time.
    #[error("the session's process was not ready within {} seconds", super::HOLDER_DEADLINE.as_secs())]
    Late,
    /// The session was to be one of tmux.
    #[error("{0}")]
    Tmux(TmuxError),
    /// The holder started and cannot be spoken to.
    #[error("the session was started and cannot be reached: {0}")]
    Unreachable(ConnectError),
}

/// Why a holder cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Its socket does not answer.
    #[error("its socket does not answer: {0}")]
    Socket(#[from] io::Error),
    /// The process behind the socket belongs to somebody else.
    #[error("its socket belongs to another user")]
    Stranger,
    /// It broke off or spoke out of turn.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It said something that cannot be understood.
    #[error("it does not speak this version's protocol")]
    Protocol,
    /// It refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It took too long.
    #[error("it did not answer within {} seconds", super::HOLDER_DEADLINE.as_secs())]
    Late,
}

/// Why a viewer was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// No such session.
    #[error("there is no such session")]
    NoSession,
    /// It has ended and its last screen is gone.
    #[error("the session has ended and its screen is no longer kept")]
    Ended,
    /// Its holder cannot be spoken to.
    #[error("the session cannot be reached: {0}")]
    Unreachable(#[from] ConnectError),
    /// It is one of tmux, and could not be shown.
    #[error("{0}")]
    Guest(String),
}

/// Why a holder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such session.
    #[error("there is no such session")]
    NoSession,
    /// No such attachment, or it has ended.
    #[error("there is no such attachment; attach again")]
    NoAttachment,
    /// The session has ended.
    #[error("the session has ended")]
    HolderGone,
    /// The holder refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is one of tmux, which did not do it.
    #[error("{0}")]
    Tmux(TmuxError),
    /// It is one of tmux, for which this cannot be done here.
    #[error("a session of tmux cannot be {0} from here; do that in tmux")]
    OfTmux(&'static str),
    /// It is one of tmux, and nothing can show it.
    #[error("{0}")]
    Guest(String),
    /// Whether it was done is not known.
    #[error("the session could no longer be reached while it was asked; whether it was done is not known")]
    Lost,
    /// The holder does not answer.
    #[error("the session did not answer within {} seconds", super::HOLDER_DEADLINE.as_secs())]
    Late,
}

/// Why a text was not typed.
#[derive(Debug, thiserror::Error)]
pub enum TypeError {
    /// Nothing was typed.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Nothing was typed.
    #[error("a text may have at most {} bytes", happy_rpc::MAX_TEXT)]
    TooLong,
    /// Nothing was typed: the screen of the session was not shown.
    #[error("the session does not show its screen")]
    NoScreen,
    /// The program ended before it had all of it.
    #[error("the program ended before it had all of the text")]
    Ended,
    /// Nobody can say how much of it the program had when the session's process could no longer be reached.
    #[error("the session could no longer be reached while the text was typed; it has all of it, or a part, or nothing")]
    Lost,
    /// The program did not take it in time, and may yet.
    #[error("the program has not taken all of the text; it is typed as soon as the program reads")]
    Late,
}

impl From<TypeError> for CallError {
    fn from(error: TypeError) -> Self {
        let message = error.to_string();
        match error {
            TypeError::Attach(error) => error.into(),
            TypeError::TooLong => CallError::new(ErrorCode::TooMany, message),
            TypeError::NoScreen => CallError::new(ErrorCode::Failed, message),
            TypeError::Ended => CallError::new(ErrorCode::Conflict, message),
            TypeError::Lost | TypeError::Late => CallError::new(ErrorCode::Indeterminate, message),
        }
    }
}

/// Why an attachment ended.
#[derive(Debug, thiserror::Error)]
pub enum ViewerError {
    /// The holder cut it off; the code is one of `PROTOCOL 13` and can be passed on with Close.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection to the holder broke.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message is larger than a frame may be.
    #[error("a terminal message of {0} bytes is too large")]
    TooLarge(usize),
}

impl From<io::Error> for ViewerError {
    fn from(error: io::Error) -> Self {
        Self::Frame(error.into())
    }
}

impl From<CreateError> for CallError {
    fn from(error: CreateError) -> Self {
        let code = match &error {
            CreateError::TooMany | CreateError::Descriptors(_) => ErrorCode::TooMany,
            CreateError::Request(_) => ErrorCode::Malformed,
            CreateError::Start(StartError::CommandNotFound(_) | StartError::CwdMissing(_)) => ErrorCode::NotFound,
            CreateError::Start(StartError::NotExecutable(..) | StartError::CwdDenied(..)) => ErrorCode::NotPermitted,
            CreateError::Tmux(error) => tmux_code(error),
            _ => ErrorCode::Failed,
        };
        CallError::new(code, error.to_string())
    }
}

impl From<AttachError> for CallError {
    fn from(error: AttachError) -> Self {
        let code = match &error {
            AttachError::NoSession => ErrorCode::NotFound,
            AttachError::Ended => ErrorCode::Conflict,
            AttachError::Unreachable(ConnectError::Refused(refused)) => refused_code(refused),
            AttachError::Unreachable(_) | AttachError::Guest(_) => ErrorCode::Failed,
        };
        CallError::new(code, error.to_string())
    }
}

impl From<ControlError> for CallError {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::NoSession | ControlError::NoAttachment => ErrorCode::NotFound,
            ControlError::HolderGone | ControlError::OfTmux(_) => ErrorCode::Conflict,
            ControlError::Refused(refused) => refused_code(refused),
            ControlError::Tmux(error) => tmux_code(error),
            ControlError::Guest(_) => ErrorCode::Failed,
            ControlError::Late => ErrorCode::Failed,
            ControlError::Lost => ErrorCode::Indeterminate,
        };
        CallError::new(code, error.to_string())
    }
}

fn tmux_code(error: &TmuxError) -> ErrorCode {
    match error {
        TmuxError::NoSession | TmuxError::NoServer(_) => ErrorCode::NotFound,
        // It exists already, mostly.
        TmuxError::Refused(_) => ErrorCode::Conflict,
        TmuxError::Stranger(_) => ErrorCode::NotPermitted,
        _ => ErrorCode::Failed,
    }
}

fn refused_code(refused: &Refusal) -> ErrorCode {
    match refused.code {
        refusal::MALFORMED => ErrorCode::Malformed,
        refusal::TOO_MANY => ErrorCode::TooMany,
        refusal::NOT_FOUND => ErrorCode::NotFound,
        refusal::EXPIRED => ErrorCode::Expired,
        refusal::CONFLICT | refusal::DISPLACED => ErrorCode::Conflict,
        _ => ErrorCode::Failed,
    }
}
