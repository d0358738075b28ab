//! Calls about prompts: questions of programs that wait for a person (`docs/PROMPTS.md`).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How it is known that a program waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PromptSource {
    /// The program has said what it asks (`happy hook`).
    Hook,
    /// The program has called for somebody: OSC 9, OSC 777 or the bell. What it asks, if that is told, is read from its screen.
    Notification,
    /// It looks like a question: a guess.
    Screen,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PromptKind {
    /// Yes or no, and what stands beside them.
    YesNo,
    /// One of a list with numbers.
    Numbers,
    /// One of a list in which arrows move.
    Arrows,
    /// Something that is not shown when it is typed. It has no choices, ever.
    Password,
    /// Somebody is needed; for what is not known.
    Somebody,
}

/// One answer that can be given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptChoice {
    /// As the program calls it; at most 120 bytes, and a mark when it was cut.
    pub label: String,
    /// What is typed for it, to the byte; empty when the program is told otherwise.
    pub keys: String,
}

/// A program waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prompt {
    /// Its id: another one as soon as anything else is asked.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub id: Uuid,
    /// In which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// How it is known.
    pub source: PromptSource,
    /// What is asked for.
    pub kind: PromptKind,
    /// The question and what belongs to it, in lines; at most 800 bytes, and a mark when it was cut.
    pub question: String,
    /// The answers, at most 9; none means that it is answered in the terminal.
    pub choices: Vec<PromptChoice>,
    /// A hash of the question as it stands on the screen, 32 hex digits; empty when it was not read from there.
    pub screen: String,
    /// Since when, Unix milliseconds.
    pub appeared_at: u64,
    /// When it stops waiting by itself, Unix milliseconds; missing while it waits for as long as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub expires_at: Option<u64>,
}

/// How a prompt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum PromptEnd {
    /// Somebody chose.
    Answered(PromptAnswered),
    /// Somebody typed into the session.
    Typed,
    /// It is not asked any more.
    Gone,
    /// It has waited for as long as it could.
    Expired,
}

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptAnswered {
    /// To which prompt.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub prompt: Uuid,
    /// What was chosen, by its label.
    pub label: String,
    /// Who chose, by name.
    pub by: String,
    /// When, Unix milliseconds.
    pub at: u64,
}

/// Asks for the prompts that wait, the oldest first, at most [`PROMPTS_LISTED`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct PromptList {
    /// Only those of this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional, type = "string"))]
    pub session: Option<Uuid>,
}

/// The most prompts of one answer: at the most that each may take, they fit into a message.
pub const PROMPTS_LISTED: usize = 64;

/// Answers a prompt, if it still waits and nobody else has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PromptAnswer {
    /// Which.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub prompt: Uuid,
    /// Which of its choices, from 0.
    pub choice: u32,
    /// Unix milliseconds by the machine's clock: later it is not given any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub until: Option<u64>,
}
