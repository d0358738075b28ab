//! For tests, and in debug builds only: a copy of this program that takes itself for another one. What is written behind the end of
//! its executable file, `\nhappy-pretence {JSON}\n`, says how it differs. A release build reads nothing there.

use serde::Deserialize;

/// How it differs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pretence {
    /// The version that it says it has.
    pub version: Option<String>,
    /// The versions of a handover that it says it reads.
    pub reads: Option<String>,
    /// What it does instead of taking over: `refuse` says that it cannot read what was left, `panic` does what it is called.
    pub resume: Option<String>,
    /// Milliseconds that it takes before it takes over.
    pub delay_ms: u64,
    /// Milliseconds that it stays with a session of tmux at which nobody looks.
    pub linger_ms: Option<u64>,
}

/// How this program differs.
#[cfg(debug_assertions)]
pub fn get() -> Pretence {
    read().unwrap_or_default()
}

/// How this program differs.
#[cfg(not(debug_assertions))]
pub fn get() -> Pretence {
    Pretence::default()
}

#[cfg(debug_assertions)]
fn read() -> Option<Pretence> {
    use std::io::{Read, Seek, SeekFrom};

    let mut file = std::fs::File::open("/proc/self/exe").ok()?;
    file.seek(SeekFrom::End(-512)).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let mark = b"\nhappy-pretence ";
    let begin = tail.windows(mark.len()).rposition(|window| window == mark)? + mark.len();
    serde_json::from_slice(tail[begin..].trim_ascii_end()).ok()
}
