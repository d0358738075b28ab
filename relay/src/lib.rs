//! The relay of Happy Remote: forwards sealed frames between devices that named each other (`docs/PROTOCOL.md` §7).
//!
//! It runs on its own (`happy-relay serve`) or inside the agent. It knows device ids, sizes and times. It holds no key that
//! opens a payload, writes nothing to disk but a certificate that it got itself ([`acme`]), and keeps nothing that it could not lose: devices log in again and name their
//! peers again.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use happy_relay::{Config, Door, Relay};
//!
//! let relay = Relay::new(Config { names: vec!["relay.example".into()], ..Config::default() })?;
//! let listening = relay.listen("127.0.0.1:8080".parse()?, Door::plain()).await?;
//! println!("ready at {}", listening.address());
//! relay.shutdown(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! From outside in, each layer one file: [`listen`] takes sockets and opens TLS, `http` answers requests and upgrades to
//! a websocket, `login` checks the device's signature, `connection` is the actor that owns one websocket, whose bytes `websocket`
//! reads and writes, `mailbox` is what others can reach of it, `hub` decides which frame goes to which mailbox, and
//! `desk`, `rest` and `updates` answer for machine records. [`bus`] is the way to other nodes. `lobby`, `rates` and `turnstile` keep strangers and
//! crowds within bounds.

pub mod access;
pub mod acme;
mod app;
pub mod bus;
mod causes;
pub mod certificates;
mod changes;
mod closing;
mod config;
mod connection;
mod desk;
mod http;
mod hub;
#[doc(hidden)]
pub mod inside;
pub mod listen;
mod lobby;
mod login;
mod mailbox;
mod metrics;
mod pauses;
mod rates;
mod records;
mod rendezvous;
mod rest;
mod socket;
mod tap;
pub mod tls;
mod token;
mod turnstile;
mod updates;
mod wait;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Semaphore;

pub use access::{Access, Enrolment, Policy};
pub use app::EmbeddedApp;
pub use bus::{Bus, Direct, DirectError, MemoryBus, RedisBus, RedisUrl};
pub use config::{App, Config, ConfigError, Timings};
pub use listen::{Door, ListenError, Listening, PlainHttp};
pub use records::{Known, NewRecord, Put, Record};
pub use socket::ByteStream;
pub use tap::Tap;

use crate::closing::Closing;
use crate::hub::Hub;
use crate::lobby::Lobby;
use crate::rates::Logins;
use crate::turnstile::Turnstile;

/// A relay without other nodes sends its devices away within this time at most, when it stops.
const ALONE: Duration = Duration::from_secs(1);

/// A relay. Clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

/// What all listeners and connections of a relay have in common.
struct Shared {
    config: Config,
    /// The names of `config`, or those that were set since.
    names: RwLock<Arc<[String]>>,
    hub: Arc<Hub>,
    app: app::Assets,
    /// Sockets that may exist at all; shutdown waits for every permit to come back.
    sockets: Arc<Semaphore>,
    /// Sockets that have not proven a device yet.
    lobby: Arc<Lobby>,
    logins: Logins,
    closing: Closing,
    streams: updates::Streams,
    /// What stands between a socket that comes and those that are there.
    turnstile: Arc<Turnstile>,
}

impl Shared {
    fn socket_limit(&self) -> u32 {
        self.config.max_connections.saturating_add(self.config.max_unproven)
    }
}

impl Relay {
    /// Makes a relay that listens nowhere yet.
    ///
    /// # Errors
    /// [`ConfigError`] when a name or origin cannot be what a device dials, a limit is zero, or the operating system has no
    /// randomness.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let signer = token::Signer::new(config.timings.token).map_err(|_| ConfigError::NoRandomness)?;
        let hub = Hub::new(&config, signer);
        let lobby = Lobby::new(hub.clone(), config.max_unproven, config.max_unproven_per_address);
        let app = app::Assets::new(&config.app);
        let shared = Shared {
            hub,
            app,
            sockets: Arc::new(Semaphore::new((config.max_connections + config.max_unproven) as usize)),
            lobby,
            logins: Logins::new(config.max_logins),
            closing: Closing::default(),
            streams: updates::Streams::default(),
            turnstile: Arc::default(),
            names: RwLock::new(config.names.as_slice().into()),
            config,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Opens a listening socket and serves it until the [`Listening`] is dropped or the relay shuts down. A relay may
    /// listen at several addresses.
    ///
    /// # Errors
    /// [`ListenError`] says which address cannot be used and what to do.
    pub async fn listen(&self, address: std::net::SocketAddr, door: Door) -> Result<Listening, ListenError> {
        let router = http::router(self.shared.clone());
        listen::listen(self.shared.clone(), address, door, router).await
    }

    /// Opens a listening socket for those who watch the relay: metrics and health, over plain HTTP, and nothing else. Its sockets count like those of
    /// strangers, so it takes no more of the machine than [`Config::max_unproven`] allows.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub async fn listen_for_metrics(&self, address: std::net::SocketAddr) -> Result<Listening, ListenError> {
        let router = http::metrics_router(self.shared.clone());
        listen::listen(self.shared.clone(), address, Door::plain(), router).await
    }

    /// Serves one connection that was accepted elsewhere, such as that of a tunnel or of a simulated network, until it ends
    /// or becomes a websocket, which is served on a task of its own. TLS, if any, is its caller's.
    pub async fn serve(&self, stream: impl ByteStream + 'static) {
        listen::serve_foreign(self.shared.clone(), Box::new(stream)).await;
    }

    /// Replaces the names of [`Config::names`] for connections that come from now on: a port may be known only after
    /// listening, and machines move.
    ///
    /// # Errors
    /// [`ConfigError`] when a name cannot be what a device dials, or there are too many; then nothing has changed.
    pub fn set_names(&self, names: Vec<String>) -> Result<(), ConfigError> {
        *self.shared.names.write() = config::checked_names(names)?.into();
        Ok(())
    }

    /// The metrics as Prometheus text, the same as at `/metrics`.
    pub fn metrics(&self) -> String {
        self.shared.hub.render_metrics()
    }

    /// Devices that are connected now, guests included, and streams of updates.
    pub fn connections(&self) -> usize {
        self.shared.hub.connections()
    }

    /// Stops accepting, tells the devices in slices to come back, each at a time of its own (Goaway 4503), writes out what is queued
    /// for them, and returns when all sockets are closed or `grace` is over.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.closing.begin();
        let ended = async {
            // With other nodes to go to, nobody has to be away for longer than it takes to log in there. Without, all wait for this
            // one to come back, and the sooner it may end the better.
            let window = if self.shared.config.bus.is_some() { grace.mul_f64(0.8) } else { ALONE.min(grace / 2) };
            self.shared.hub.dismiss_all(window).await;
            let _all = self.shared.sockets.acquire_many(self.shared.socket_limit()).await;
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!(connections = self.connections(), "closing with connections that did not end in time");
        }
        self.shared.hub.leave_bus().await;
    }
}
