//! The desktop agent `happy`: daemon, command line and PTY holder.
//!
//! One binary, three kinds of process. The *command line* speaks to the *daemon* over a Unix socket ([`daemon::socket`]); the
//! daemon owns the links to other devices, answers calls ([`service`]) and keeps what must survive it ([`store`]); each
//! session's program runs under a *holder* of its own, which outlives the daemon. Sessions of the user's [`tmux`] stand beside those.
//! As a service of the platform the daemon is a [`unit`].

pub mod api;
pub mod cli;
pub mod daemon;
pub mod files;
pub mod git;
pub mod service;
pub mod store;
pub mod trouble;

pub mod holder;
pub mod prompt;
pub mod session;
pub mod tmux;
pub mod unit;

/// The version that this program says it has (`build.rs`).
pub const VERSION: &str = env!("HAPPY_VERSION");
