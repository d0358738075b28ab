//! What a machine tells without being asked, and how nothing of it is missed (`docs/PROTOCOL.md` §10.3).

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Device, MachineState, Prompt, PromptEnd, Session};

/// An event. A receiver that does not know one ignores it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", content = "data")]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[allow(clippy::large_enum_variant, reason = "most events are of sessions")]
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
    /// A program waits for a person.
    #[serde(rename = "prompt.appeared")]
    PromptAppeared(Prompt),
    /// It does not wait any more.
    #[serde(rename = "prompt.ended")]
    PromptEnded {
        /// Which.
        #[cfg_attr(feature = "typescript", ts(type = "string"))]
        prompt: Uuid,
        /// In which session.
        #[cfg_attr(feature = "typescript", ts(type = "string"))]
        session: Uuid,
        /// How it ended.
        end: PromptEnd,
    },
    /// Events were lost because they came faster than they were taken; ask for the lists again.
    #[serde(rename = "session.list_again")]
    ListAgain {},
    /// The machine does something else, or its records have another key: ask for them again.
    #[serde(rename = "machine.changed")]
    MachineChanged(MachineState),
    /// The machine's devices are these now.
    #[serde(rename = "device.changed")]
    DevicesChanged(Vec<Device>),
}

impl Event {
    /// The body of an event message that has no place in the log.
    pub fn to_body(&self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// A place in a machine's event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct EventPlace {
    /// Which log: another one after each start of the daemon.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub log: Uuid,
    /// Counts the events in it from 1; 0 is the place before the first.
    pub number: u64,
}

/// An event with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Told {
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// Its place. A machine of an earlier version gives none, and neither has what only one receiver is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub at: Option<EventPlace>,
}

impl Told {
    /// The body of an event message.
    pub fn to_body(&self) -> Vec<u8> {
        // Plain data with string keys: serialising it cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The event as one device (or, without one, the person at the machine) sees it: marked in the list of devices.
    #[must_use]
    pub fn seen_by(mut self, device: Option<&str>) -> Told {
        if let Event::DevicesChanged(devices) = &mut self.event {
            devices.iter_mut().for_each(|it| it.you = device == Some(it.device.as_str()));
        }
        self
    }
}

/// Asks for what was told after a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct EventsFollow {
    /// The last event that the caller has; missing when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "typescript", ts(optional))]
    pub after: Option<EventPlace>,
}

/// What was told after a place. `E` is a [`Told`], or its JSON for a caller that only passes it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
pub struct Followed<E> {
    /// The log.
    #[cfg_attr(feature = "typescript", ts(type = "string"))]
    pub log: Uuid,
    /// Where the caller is with this answer.
    pub number: u64,
    /// The events up to there, in order.
    pub missed: Vec<E>,
    /// False: there is no saying what came after the place that was named; ask for the lists again.
    pub complete: bool,
    /// The rest did not fit; ask again.
    pub more: bool,
}
