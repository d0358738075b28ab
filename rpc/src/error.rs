//! Why a call was refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of a refusal, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErrorCode {
    /// The request or answer cannot be read.
    Malformed,
    /// The callee is older than the caller, or the name is wrong.
    UnknownMethod,
    /// The caller's role does not allow it.
    NotPermitted,
    /// There is no such session, device or channel.
    NotFound,
    /// It cannot be done in the present state, for instance on a session that has ended.
    Conflict,
    /// A limit is reached.
    TooMany,
    /// The machine could not do it; the message says why.
    Failed,
    /// The callee has too much to do; ask again later.
    Busy,
    /// The name of this command belongs to another one: the caller goes on from an old copy of its list.
    Reused,
    /// It came later than its sender wanted it done, and was not done.
    Expired,
    /// Whether it was done is not known: the callee ended between starting and answering.
    Indeterminate,
}

/// A refusal. The message is a whole sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallError {
    /// For programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl CallError {
    /// A refusal with a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CallError {}
