//! What a machine tells without being asked.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Device, Session};

/// An event. A receiver that does not know one ignores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub enum Event {
    /// A session began, changed or ended.
    #[serde(rename = "session.changed")]
    SessionChanged(Session),
    /// A session is no longer listed.
    #[serde(rename = "session.removed")]
    SessionRemoved {
        /// Which.
        #[cfg_attr(feature = "typescript", ts(type = "string"))]
        session: Uuid,
    },
    /// Events were lost because they came faster than they were taken; ask for the lists again.
    #[serde(rename = "session.list_again")]
    ListAgain {},
    /// The machine's devices are these now.
    #[serde(rename = "device.changed")]
    DevicesChanged(Vec<Device>),
}

impl Event {
    /// The body of an event message.
    pub fn to_body(&self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
