//! How two devices of Happy Remote meet: the invitation that one shows and the other scans, the two state machines that follow,
//! and the signed statements that remain.
//!
//! ```text
//!  machine: Host                                          phone: Joiner
//!  Invitation::new, QR code or link  ─ ─ (camera) ─ ─ ►   Invitation::parse_link
//!                        ◄──────────── BundleRequest ──   host_known
//!     ── Bundle ──────────────────────────────────────►   is it the one that the invitation names?
//!                        ◄───────────────────── Hello ──   proves the invitation's secret
//!  Proven: burnt  ── Welcome ─────────────────────────►
//!  CodeWanted            ◄───────── Confirm, Greeting ──
//!     ── Offer ───────────────────────────────────────►   ShowCode: a person reads six digits here …
//!  … and types them here: type_code
//!     ── Added ───────────────────────────────────────►
//!  Paired                ◄────────────────── Accepted ──
//!     ── Done ────────────────────────────────────────►   Paired
//! ```
//!
//! Both machines are pure: packets, randomness and `now` go in; packets, a deadline and events come out. After every input drain
//! `poll_transmit`, then `poll_event`, then ask `poll_timeout` when to call `handle_timeout`.
//!
//! What this crate refuses to do: open a socket, read a clock, draw on a screen other than the QR code, or transfer a
//! long-term secret. Pairing moves public keys and statements only (`docs/PROTOCOL.md`, sections 4, 5, 8 and 11).

mod backoff;
mod bytes;
mod decimal;
mod host;
mod invitation;
mod joiner;
mod membership;
mod message;
mod name;
mod origin;
pub mod qr;
mod role;
mod session;
mod statement;

pub use host::{CodeAnswer, EndReason, Host, HostConfig, HostEvent};
pub use invitation::{Invitation, InvitationError};
pub use joiner::{JoinFailure, Joiner, JoinerConfig, JoinerEvent};
pub use membership::{AppendError, LogError, Member, Membership};
pub use name::clean_name;
pub use origin::{Origin, OriginError};
pub use role::{ParseRoleError, Role};
pub use session::PairedPeer;
pub use statement::{Change, NextStatement, Statement, StatementError};

use std::time::Duration;

/// How long an invitation can be used, by the machine's own clock (PROTOCOL 4).
pub const INVITATION_LIFETIME: Duration = Duration::from_secs(120);
/// How long a person may take to type the code (PROTOCOL 11).
pub const TYPING_TIME: Duration = Duration::from_secs(120);

/// A confirmation code as people read it: `123 456`.
#[must_use]
pub fn format_code(code: u32) -> String {
    format!("{:03} {:03}", code / 1_000 % 1_000, code % 1_000)
}
