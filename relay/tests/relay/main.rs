//! The relay over real sockets. Every test waits for events with a deadline, and ends by asking the relay whether its books
//! balance: frames received are those delivered and those dropped, by reason, exactly.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks")]

mod harness;

mod access;
mod acme;
mod deploy;
mod direct;
mod displaced;
mod guests;
mod hostile;
mod limits;
mod login;
mod names;
mod nodes;
mod page;
mod presence;
mod program;
mod raw;
mod records;
mod redis;
mod redis_heals;
mod redis_kinds;
mod rendezvous;
mod routing;
mod settings;
mod shutdown;
mod slow;
mod streams;
mod tls;
