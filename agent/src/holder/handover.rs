//! What one program of a holder leaves to the next, as bytes (`docs/LOCAL.md`, "Another program for a holder").
//!
//! `HAPPYHND`, the version as u32, then sections: length of the name u8, name, length u64, bytes. Names that are not known are
//! skipped. The section `state` is JSON, [`Handover`]; the others are raw.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::connection::Phase;
use super::state;

/// The version that is written and read. A change of anything that is saved here, in the types of [`super::state`] too, is a new one
/// unless what is new may be missing; the test below holds a sample of each version.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"HAPPYHND";

/// The section `state`.
#[derive(Deserialize)]
pub struct Handover {
    /// The session's folder.
    pub dir: PathBuf,
    /// The path of the socket.
    pub socket: PathBuf,
    /// Which descriptor is what.
    pub descriptors: Descriptors,
    /// Everything about the session but what is raw; taken once.
    pub state: Option<state::Saved>,
    /// The rows of history in the file of [`Descriptors::history`].
    pub history: HistoryRange,
    /// The connections, by a number of their own.
    pub connections: BTreeMap<u64, SavedConnection>,
    /// When the old program stopped serving: nanoseconds of the monotonic clock.
    pub stopped_at: u64,
}

/// Numbers of descriptors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Descriptors {
    /// The terminal's master side.
    pub master: i32,
    /// Its other side, which is kept open.
    pub slave: Option<i32>,
    /// The listening socket.
    pub listener: i32,
    /// The older blocks of the raw log.
    pub log: Option<i32>,
    /// The file of a recording.
    #[serde(default)]
    pub recording: Option<i32>,
    /// Rows of history: for each the length as u32, then its bytes.
    pub history: i32,
}

/// Numbers of rows.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct HistoryRange {
    /// Of the first row in the file.
    pub in_file: u64,
    /// Of the oldest that is kept; those before it in the file have gone since.
    pub from: u64,
    /// After the newest.
    pub to: u64,
}

/// A connection.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct SavedConnection {
    /// Its descriptor.
    pub descriptor: i32,
    /// What it is for.
    pub phase: Phase,
}

/// Why a handover cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// It is cut or was never one.
    #[error("what the old program left is not whole")]
    Cut,
    /// Another version's.
    #[error("what the old program left has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// A part cannot be understood.
    #[error("what the old program left cannot be understood: {0}")]
    Part(String),
}

impl HandoverError {
    /// A part that cannot be understood.
    pub fn part(what: impl std::fmt::Display) -> Self {
        Self::Part(what.to_string())
    }
}

/// Writes sections.
pub struct Sections(Vec<u8>);

impl Default for Sections {
    fn default() -> Self {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        Self(bytes)
    }
}

impl Sections {
    /// Adds one. The name has at most 255 bytes, which all of ours have.
    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.0.push(length);
        self.0.extend_from_slice(&name.as_bytes()[..length.into()]);
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// All of them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Sections that were read.
pub struct Parts<'a>(BTreeMap<&'a [u8], &'a [u8]>);

impl<'a> Parts<'a> {
    /// Takes bytes apart.
    ///
    /// # Errors
    /// [`HandoverError`].
    pub fn read(bytes: &'a [u8]) -> Result<Self, HandoverError> {
        let mut rest = bytes.strip_prefix(MAGIC).ok_or(HandoverError::Cut)?;
        let version = u32::from_be_bytes(*take(&mut rest)?);
        if version != VERSION {
            return Err(HandoverError::Version(version));
        }
        let mut sections = BTreeMap::new();
        while !rest.is_empty() {
            let [length] = *take::<1>(&mut rest)?;
            let name = split(&mut rest, u64::from(length))?;
            let length = u64::from_be_bytes(*take(&mut rest)?);
            sections.insert(name, split(&mut rest, length)?);
        }
        Ok(Self(sections))
    }

    /// A section; empty when there is none.
    pub fn section(&self, name: &str) -> &'a [u8] {
        self.0.get(name.as_bytes()).copied().unwrap_or_default()
    }

    /// The section `state`.
    ///
    /// # Errors
    /// [`HandoverError::Part`].
    pub fn handover(&self) -> Result<Handover, HandoverError> {
        serde_json::from_slice(self.section("state")).map_err(HandoverError::part)
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], HandoverError> {
    let (taken, later) = rest.split_first_chunk().ok_or(HandoverError::Cut)?;
    *rest = later;
    Ok(taken)
}

fn split<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], HandoverError> {
    let length = usize::try_from(length).map_err(|_| HandoverError::Cut)?;
    let (taken, later) = rest.split_at_checked(length).ok_or(HandoverError::Cut)?;
    *rest = later;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 looks like. A program that cannot read this any more must not say that it reads version 1.
    const SAMPLE: &str = r#"{"dir": "/h/sessions/x", "socket": "/h/sessions/x/s",
        "descriptors": {"master": 9, "slave": 10, "listener": 8, "log": 11, "history": 12},
        "state": {
            "ring": {"start": 0, "end": 5, "capacity": 10485760, "first": 0, "older": {"slots": 161, "key": null}},
            "sizes": {"base": {"cols": 80, "rows": 24}, "marks": [{"number": 0, "offset": 2, "size": {"cols": 90, "rows": 30}}], "next": 1},
            "input": {"pieces": [{"writer": "6f6dffbd-a870-4f42-82fc-405eccb2b864", "left": 2}, {"writer": null, "left": 1}],
                      "writers": {"6f6dffbd-a870-4f42-82fc-405eccb2b864": {"accepted": 7, "taken": 5, "used": 1, "attached": true}}, "clock": 1},
            "control": [[0, "desk"]], "control_changes": 1,
            "viewers": {"0": {"id": "c2a2ec09-71cf-4311-80de-cd4e3f0d33d6", "writer": "6f6dffbd-a870-4f42-82fc-405eccb2b864", "name": "desk",
                "lossless": false, "scrollback": 1000, "position": 5, "resumed_until": 0,
                "parts": {"offset": 5, "size": {"cols": 90, "rows": 30}, "frame": [3, 0], "part": 0}, "wants_snapshot": false, "owed_scrollback": true,
                "credit": {"drawn": 3, "framed": true, "wanted": [[9, 5]]},
                "size": {"cols": 90, "rows": 30}, "next_size": 1, "control": 1, "taken": 5, "ended": false, "burst": 5, "sent_at": 17}},
            "ends": {"3": {"code": 4409, "message": "the same viewer has attached anew"}},
            "next_key": 4, "title": "work", "pid": 4711, "kill_in_ms": 250, "scrollback_rows": 10000, "upgrades": 2},
        "history": {"in_file": 0, "from": 3, "to": 9},
        "connections": {"0": {"descriptor": 13, "phase": {"viewer": {"key": 0}}}, "1": {"descriptor": 14, "phase": {"control": {"awaits_upgrade": true}}},
            "2": {"descriptor": 15, "phase": "greeting"}, "5": {"descriptor": 16, "phase": "farewell"}},
        "stopped_at": 123, "later": "is ignored"}"#;

    fn sections(state: &str) -> Vec<u8> {
        let mut sections = Sections::default();
        sections.put("state", state.as_bytes());
        sections.put("log", b"hello");
        sections.put("input", b"abc");
        sections.put("screen", &happy_screen::Screen::new(90, 30, 100).snapshot(0));
        sections.put("parts/0", b"bytes");
        sections.put("unknown", b"is ignored");
        sections.into_bytes()
    }

    #[test]
    fn version_1_is_read() {
        let bytes = sections(SAMPLE);
        let parts = Parts::read(&bytes).unwrap();
        let mut handover = parts.handover().unwrap();
        assert_eq!(handover.connections[&1].phase, Phase::Control { awaits_upgrade: true });
        let log = std::fs::File::open("/dev/null").unwrap();
        let state = state::State::resume(handover.state.take().unwrap(), &parts, Some(log.into())).unwrap();
        let status = state.status();
        assert_eq!((status.cols, status.output_offset, status.upgrades, status.viewers), (90, 5, 2, 1));
        assert_eq!((status.title.as_str(), status.controller.as_deref()), ("work", Some("desk")));
        assert!(state.killed_at().is_some());
    }

    #[test]
    fn what_is_cut_or_changed_is_an_error_and_no_more() {
        let bytes = sections(SAMPLE);
        let read = |bytes: &[u8]| -> Result<(), HandoverError> {
            let parts = Parts::read(bytes)?;
            let saved = parts.handover()?.state.take();
            let log = std::fs::File::open("/dev/null").unwrap();
            state::State::resume(saved.ok_or(HandoverError::Cut)?, &parts, Some(log.into())).map(drop)
        };
        assert_eq!(read(&bytes), Ok(()));
        for cut in 0..bytes.len() {
            // A whole number of sections is a handover too, if nothing is missing that is needed.
            let _ = read(&bytes[..cut]);
        }
        assert_eq!(read(b"HAPPYHND\0\0\0\x02"), Err(HandoverError::Version(2)));
        assert_eq!(read(b"#!/bin/sh"), Err(HandoverError::Cut));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x15;
            let _ = read(&changed);
        }
    }
}
