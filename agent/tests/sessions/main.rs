//! Sessions as the daemon has them: real holder processes, real terminals, real programs.
// In helpers, too, a failed expectation is a test's way to speak.
#![allow(clippy::unwrap_used, clippy::panic)]

mod credit;
mod daemon;
mod flood;
mod hostile;
mod life;
mod limits;
mod programs;
mod progress;
mod prompts;
mod record;
mod screen;
mod support;
mod tmux;
mod typing;
mod upgrade;
mod viewers;
