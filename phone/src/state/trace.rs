//! The trace of a stored state: its device and its generation, in the clear, in another store of the same browser.
//!
//! A browser may lose one of its stores, or get one back from a copy, and say nothing. Two that do not fit together show it.
//! The trace is written after the state, and browsers take their time with it, so it may well be behind.

use std::fmt;
use std::str::FromStr;

use happy_crypto::DeviceId;

/// Which state was stored last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Whose state.
    pub device: DeviceId,
    /// How many were stored before it, and one.
    pub generation: u64,
}

/// How a state stands to the trace that was found beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They fit together.
    Sound,
    /// There should be a trace, and there is none.
    TraceLost,
    /// A newer state was stored once.
    Older,
    /// The trace was left by another device.
    Other,
}

/// No state has the generation 0 but one that was never stored, or by a version that left no traces.
pub(super) fn compare(state: &Trace, found: Option<&str>) -> Standing {
    let Some(found) = found.and_then(|text| text.parse::<Trace>().ok()) else {
        return if state.generation == 0 { Standing::Sound } else { Standing::TraceLost };
    };
    if found.device != state.device {
        Standing::Other
    } else if found.generation > state.generation {
        Standing::Older
    } else {
        Standing::Sound
    }
}

impl Standing {
    /// The name in JavaScript.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::TraceLost => "trace_lost",
            Self::Older => "older",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.device, self.generation)
    }
}

/// That is no trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("that is not the trace of a state")]
pub struct NoTrace;

impl FromStr for Trace {
    type Err = NoTrace;

    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let (device, generation) = text.split_once('.').ok_or(NoTrace)?;
        Ok(Self { device: device.parse().map_err(|_| NoTrace)?, generation: generation.parse().map_err(|_| NoTrace)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_compared_with_what_was_found() {
        let trace = |device: u8, generation| Trace { device: DeviceId::from_bytes([device; 32]), generation };
        let state = trace(1, 5);
        for (found, standing) in [
            (trace(1, 5), Standing::Sound),
            (trace(1, 2), Standing::Sound),
            (trace(1, 6), Standing::Older),
            (trace(2, 5), Standing::Other),
        ] {
            assert_eq!(compare(&state, Some(&found.to_string())), standing, "{found}");
        }
        for nonsense in ["", ".", "5", "AAAA.5", &format!("{}.five", state.device), &format!("{state}.6")] {
            assert_eq!(compare(&state, Some(nonsense)), Standing::TraceLost, "{nonsense}");
        }
        assert_eq!(compare(&state, None), Standing::TraceLost);
        assert_eq!(compare(&trace(1, 0), None), Standing::Sound, "what was never stored has left none");
    }
}
