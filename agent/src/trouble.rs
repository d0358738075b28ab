//! What is told to the person at the command line when something cannot be done.

use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

/// One sentence that says what is wrong, one that says what to do, and how the process ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// What is wrong.
    #[serde(rename = "message")]
    pub what: String,
    /// What to do about it.
    #[serde(rename = "remedy")]
    pub todo: String,
    /// The exit code of the process, never 0.
    #[serde(skip)]
    pub exit: u8,
}

impl Trouble {
    /// An ordinary failure, exit code 1.
    pub fn new(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { what: what.into(), todo: todo.into(), exit: 1 }
    }

    /// A file or folder that cannot be used.
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let todo = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "Make it yours with chown and chmod u+rw, or set HAPPY_HOME_DIR to another folder."
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                "Move what is in the way aside, or set HAPPY_HOME_DIR to another folder."
            }
            io::ErrorKind::StorageFull => "Free some space on that disk and try again.",
            io::ErrorKind::ReadOnlyFilesystem => "Set HAPPY_HOME_DIR to a folder that can be written.",
            _ => "Look at that path, or set HAPPY_HOME_DIR to another folder.",
        };
        Self::new(format!("Cannot {doing} {}: {}.", path.display(), reason(error)), todo)
    }

    /// The same trouble with another exit code.
    pub fn with_exit(mut self, exit: u8) -> Self {
        self.exit = exit.max(1);
        self
    }
}

/// What to do at a machine that another one has removed for good. A removal counts for its keys, so it needs new ones.
pub fn start_anew(home: &Path) -> String {
    format!(
        "Start anew with new keys: end the daemon with `happy daemon stop`, move access.key and membership.log out of {}, and join \
         again with a new link. Devices that are paired with this machine must then be paired again; sessions go on.",
        home.display()
    )
}

/// The operating system's words without its number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => "unknown error".into(),
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.todo)
    }
}

impl std::error::Error for Trouble {}
