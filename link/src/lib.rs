//! One reliable, ordered, encrypted link between two devices over a relay that may lose, delay, repeat or read along
//! (`docs/PROTOCOL.md` §8–§10, and the device's side of §7).
//!
//! An [`Endpoint`] is one connection to a relay and one link to each [`Peer`] that is reached through it. It has no socket, no clock and no
//! randomness of its own: bytes and the time go in, bytes, a deadline and [`Event`]s come out. The [`driver`]s give it those: one for
//! tokio (feature `tokio`), one for the browser (feature `web`). Most programs only meet a driver's `Handle`.
//!
//! | part | what it gives |
//! |---|---|
//! | path | [`Event::RelayUp`], [`Event::RelayDown`], [`Event::Presence`]; it dials, pings, and gives up what is dead |
//! | link | [`Event::LinkUp`] and [`Event::LinkDown`]; a link resumes over any number of paths, nothing lost, nothing doubled |
//! | calls | [`Endpoint::call`] and [`Endpoint::respond`]: run at most once, answered exactly once |
//! | events | [`Endpoint::emit`]: in order with answers, gone with the session |
//! | channels | [`Endpoint::open_channel`], [`Endpoint::send`], [`Endpoint::consumed`]: messages in order, with limits and three classes of urgency |
//! | pairing | [`Endpoint::open_rendezvous`], [`Endpoint::send_packet`], [`Event::Packet`]: packets of others passed through |
//!
//! What an application has to know about time: a **session** lasts as long as both processes live; channels live in it. When it is replaced
//! ([`Event::LinkUp`] with `resumed: false`), channels have been [closed](Event::Closed), calls have been sent again with their ids or, if the callee was restarted,
//! answered with [`Answer::Indeterminate`], and what was told in events has to be asked for anew.
//!
//! What it refuses to do: keep a queue on disk, know what a call means, order one channel after another, or send anything
//! before both sides have proved who they are in this life of theirs.
//!
//! ```
//! # use std::{collections::VecDeque, time::Duration};
//! # use happy_crypto::{Bundle, Identity, SignedPrekey};
//! # use happy_wire::relay::{FromRelay, ToRelay};
//! # use rand_core::SeedableRng;
//! use happy_link::{Answer, Endpoint, Event, Login, Peer, Side};
//!
//! # let rng = |seed| rand_chacha::ChaCha20Rng::seed_from_u64(seed);
//! # let (phone_id, machine_id) = (Identity::generate(&mut rng(1)), Identity::generate(&mut rng(2)));
//! # let (phone_record, machine_record) = (phone_id.record().clone(), machine_id.record().clone());
//! # let prekey = SignedPrekey::generate(&mut rng(3), &machine_id, 1, 1_700_000_000);
//! # let bundle = Bundle::new(&machine_id, &prekey, None);
//! let now = Duration::ZERO;
//! let mut phone = Endpoint::new(phone_id, "relay.example".into(), Login::Device { epoch: 1 }, rng(4), now);
//! let mut machine = Endpoint::new(machine_id, "relay.example".into(), Login::Device { epoch: 1 }, rng(5), now);
//! machine.set_prekeys(vec![prekey]);
//! # let secret = happy_crypto::handshake::PairSecret::from_bytes(&[1; 40]).unwrap();
//! # let secrets = happy_link::PairSecrets { current: secret, previous: None };
//!
//! // The pairing has left each side the other's identity and a secret, and the phone the machine's bundle.
//! phone.add_peer(Peer { record: machine_record, side: Side::Initiator(bundle), secrets: secrets.clone() })?;
//! machine.add_peer(Peer { record: phone_record, side: Side::Responder, secrets })?;
//! let question = phone.call(now, &machine.device(), br#"{"method":"machine.hello"}"#.to_vec(), None)?;
//!
//! let mut answer = None;
//! # let mut relay = Relay { devices: [phone.device(), machine.device()] };
//! # relay.connect(now, [&mut phone, &mut machine]);
//! while answer.is_none() {
//! #     relay.pass_frames(now, [&mut phone, &mut machine]);
//!     // … `relay` takes what `poll_transmit` gives and hands it to `handle_frame` of the other …
//!     while let Some(event) = machine.poll_event() {
//!         if let Event::Request { peer, id, body } = event {
//!             assert_eq!(body, br#"{"method":"machine.hello"}"#);
//!             machine.respond(&peer, id, br#"{"ok":"good morning"}"#)?;
//!         }
//!     }
//!     while let Some(event) = phone.poll_event() {
//!         if let Event::Answer { id, answer: got, .. } = event {
//!             assert_eq!(id, question);
//!             answer = Some(got);
//!         }
//!     }
//! }
//! assert_eq!(answer, Some(Answer::Body(br#"{"ok":"good morning"}"#.to_vec())));
//! # struct Relay { devices: [happy_crypto::DeviceId; 2] }
//! # type Phone = Endpoint<rand_chacha::ChaCha20Rng>;
//! # impl Relay {
//! #     fn give(now: Duration, to: &mut Phone, frame: FromRelay<'_>) {
//! #         let mut bytes = Vec::new();
//! #         frame.encode(&mut bytes);
//! #         to.handle_frame(now, &bytes);
//! #     }
//! #     fn connect(&self, now: Duration, both: [&mut Phone; 2]) {
//! #         for (at, device) in both.into_iter().enumerate() {
//! #             device.handle_connected(now);
//! #             Self::give(now, device, FromRelay::Challenge { nonce: [7; 32] });
//! #             assert!(device.poll_transmit(now).is_some());
//! #             Self::give(now, device, FromRelay::Welcome { max_payload: 65_536, queue_bytes: 229_376, host: None });
//! #             Self::give(now, device, FromRelay::Presence { device: self.devices[1 - at], here: true });
//! #         }
//! #     }
//! #     fn pass_frames(&self, now: Duration, [a, b]: [&mut Phone; 2]) {
//! #         self.pass(now, a, b, 0);
//! #         self.pass(now, b, a, 1);
//! #     }
//! #     fn pass(&self, now: Duration, from: &mut Phone, to: &mut Phone, at: usize) {
//! #         while let Some(frame) = from.poll_transmit(now) {
//! #             if let Ok(ToRelay::Send { payload, .. }) = ToRelay::decode(&frame) {
//! #                 Self::give(now, to, FromRelay::Deliver { from: self.devices[at], rendezvous: false, payload });
//! #             }
//! #         }
//! #     }
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allowance;
mod batch;
mod calls;
mod channels;
mod congestion;
#[cfg(any(feature = "tokio", feature = "web"))]
pub mod driver;
mod endpoint;
mod event;
mod link;
#[cfg(feature = "planted")]
pub mod planted;
#[cfg(not(feature = "planted"))]
mod planted;
mod reconnect;
mod relay_client;
mod session;
mod suite;
mod window;

pub use batch::{BATCH, BATCH_WAIT};
pub use calls::{
    ANSWER_BYTES, Answer, CALL_BYTES, CallError, CallId, DEFAULT_DEADLINE, EVENT_BYTES, KEPT_ANSWERS, MAX_BODY,
    RequestId,
};
pub use channels::{ChannelName, OpenChannelError, SEND_BUFFER, SendError, SessionId, UNFINISHED_BYTES};
pub use endpoint::{Counters, Endpoint, MAX_RAW_PACKETS, PacketError, PeerError};
pub use event::{Dial, Event, LinkDown, RelayDown, Way};
pub use happy_wire::Code;
pub use happy_wire::frame::Class;
pub use link::{Peer, Side};
pub use relay_client::Login;
pub use suite::{
    CannotSeal, Cipher, Established, HelloPlan, Keys, Life, MAX_SIGNED_PREKEYS, NoWelcome, OpenError, PairSecrets,
    RefusalReason, Suite, Welcomed,
};
