//! How far a program says it is.

use serde::{Deserialize, Serialize};

/// What a program says of its progress (`OSC 9 ; 4`, `docs/TERMINAL.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// How it goes.
    pub state: ProgressState,
    /// 0 to 100; missing when the program does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    #[cfg_attr(feature = "openapi", schema(maximum = 100))]
    pub percent: Option<u8>,
}

/// How it goes with what a program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProgressState {
    /// Well.
    Normal,
    /// Something has failed.
    Error,
    /// It works, and does not know how much is left.
    Indeterminate,
    /// It stands still, or there is something to be warned of.
    Paused,
}
