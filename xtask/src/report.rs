//! What the tasks say on the terminal: coloured on a TTY, plain in a pipe.

use std::time::Duration;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const STEP: Style = AnsiColor::Cyan.on_default().bold();

/// A task has begun.
pub fn step(what: &str) {
    eprintln!("{STEP}{:>9}{STEP:#} {what}", "run");
}

/// A task is done.
pub fn done(what: &str, took: Duration) {
    eprintln!("{GOOD}{:>9}{GOOD:#} {what} {:.0} s", "ok", took.as_secs_f64());
}

/// A task has failed, or cannot begin.
pub fn problem(what: &str) {
    eprintln!("{BAD}{:>9}{BAD:#} {what}", "failed");
}
