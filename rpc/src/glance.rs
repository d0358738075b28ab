//! What an overview shows of a session beside what lists tell.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The last line on the screen of a session. It changes with the output, so it is told to whoever looks at an overview of this
/// machine (`docs/LOCAL.md`), and to no device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Glance {
    /// Which session.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub session: Uuid,
    /// The lowest row that is not blank, at most 400 bytes of it.
    pub line: String,
    /// When it was seen first, Unix milliseconds.
    pub at: u64,
}
