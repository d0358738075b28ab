//! A device as the relay sees it: it dials, logs in, and comes back as `PROTOCOL 9` and `13` say.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use happy_crypto::{DeviceId, Identity};
use happy_link::driver::rng;
use happy_wire::relay::{Credential, FromRelay, LOGIN_LABEL, PATH, SUBPROTOCOL, ToRelay, login_message};
use rand_core::Rng;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};

/// The websocket of a device.
pub type Socket = WebSocketStream<TcpStream>;

/// An attempt that takes longer has failed.
const ATTEMPT: Duration = Duration::from_secs(20);

/// One.
pub struct Device {
    identity: Identity,
    epoch: u64,
    /// The name of the relay; none for the address that is dialled.
    name: Option<&'static str>,
}

/// What an attempt to log in came to.
pub enum Came {
    /// The relay said Welcome.
    In(Box<Socket>),
    /// The relay named a time.
    Later(Duration),
    /// The connection could not be made, or ended.
    Cut,
}

/// A device that is in.
pub struct Arrived {
    /// Its websocket.
    pub socket: Box<Socket>,
    /// How often the connection was not made, or ended.
    pub cut: u32,
    /// How often the relay named a time.
    pub sent_away: u32,
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Device {
    /// A device of a relay that has no name but its address.
    #[must_use]
    pub fn new() -> Self {
        Self { identity: Identity::generate(&mut rng()), epoch: 0, name: None }
    }

    /// A device of a relay that has a name.
    #[must_use]
    pub fn called(name: &'static str) -> Self {
        Self { name: Some(name), ..Self::new() }
    }

    /// Its device id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.identity.device_id()
    }

    /// One attempt.
    pub async fn come(&mut self, from: Ipv4Addr, relay: SocketAddr) -> Came {
        self.epoch += 1;
        match timeout(ATTEMPT, self.attempt(from, relay)).await {
            Ok(Ok(came)) => came,
            _ => Came::Cut,
        }
    }

    async fn attempt(&self, from: Ipv4Addr, relay: SocketAddr) -> Result<Came> {
        let request = ClientRequestBuilder::new(format!("ws://{relay}{PATH}").parse()?).with_sub_protocol(SUBPROTOCOL);
        // Thousands of these exist at once.
        let config = WebSocketConfig::default().read_buffer_size(4 * 1024).write_buffer_size(0);
        let tcp = dial(from, relay).await?;
        let (mut socket, _) = tokio_tungstenite::client_async_with_config(request, tcp, Some(config)).await?;
        loop {
            let Some(Ok(message)) = socket.next().await else { return Ok(Came::Cut) };
            match FromRelay::decode(&message.into_data()) {
                Ok(FromRelay::Challenge { nonce }) => {
                    let name = self.name.map_or_else(|| relay.to_string(), str::to_owned);
                    tell(&mut socket, &self.login(&name, &nonce)).await?;
                }
                Ok(FromRelay::Welcome { .. }) => return Ok(Came::In(Box::new(socket))),
                Ok(FromRelay::Goaway { retry_after_ms: 0, code, text }) => bail!("{code}: {text}"),
                Ok(FromRelay::Goaway { retry_after_ms, .. }) => {
                    return Ok(Came::Later(Duration::from_millis(retry_after_ms.into())));
                }
                _ => {}
            }
        }
    }

    fn login(&self, name: &str, nonce: &[u8; 32]) -> ToRelay<'static> {
        let (device, epoch, client_nonce, credential) = (self.id(), self.epoch, [9; 16], Credential::None);
        let message = login_message(name, nonce, &device, epoch, &client_nonce, &credential);
        let signature = self.identity.sign(LOGIN_LABEL, &message);
        ToRelay::Login { device, epoch, client_nonce, credential, signature }
    }

    /// Logs in at the first attempt.
    ///
    /// # Errors
    /// When the relay does not let it in.
    pub async fn join(&mut self, from: Ipv4Addr, relay: SocketAddr) -> Result<Box<Socket>> {
        match self.come(from, relay).await {
            Came::In(socket) => Ok(socket),
            Came::Later(_) | Came::Cut => bail!("the relay does not let a device in"),
        }
    }

    /// Comes for the first time, and tries until it is in, as links do.
    pub async fn persist(&mut self, from: Ipv4Addr, relay: SocketAddr) -> Arrived {
        self.persist_from(Backoff::default(), from, relay).await
    }

    /// Comes back after it was sent away until the time that the relay named, or lost, and tries until it is in, as links do.
    pub async fn return_to(&mut self, from: Ipv4Addr, relay: SocketAddr, named: Option<Duration>) -> Arrived {
        let mut backoff = Backoff::default();
        backoff.wait(named).await;
        self.persist_from(backoff, from, relay).await
    }

    async fn persist_from(&mut self, mut backoff: Backoff, from: Ipv4Addr, relay: SocketAddr) -> Arrived {
        let (mut cut, mut sent_away) = (0, 0);
        loop {
            match self.come(from, relay).await {
                Came::In(socket) => return Arrived { socket, cut, sent_away },
                Came::Later(named) => {
                    sent_away += 1;
                    backoff.wait(Some(named)).await;
                }
                Came::Cut => {
                    cut += 1;
                    backoff.wait(None).await;
                }
            }
        }
    }
}

/// `PROTOCOL 9`, Liveness: 0 to 100 ms, doubling with full jitter to 2 s; or the time that the relay named, and up to a tenth more.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    async fn wait(&mut self, named: Option<Duration>) {
        const FIRST: Duration = Duration::from_millis(100);
        let wait = match named {
            Some(named) => named + below(named / 10 + FIRST),
            None => {
                self.attempts += 1;
                below((FIRST * (1 << (self.attempts - 1).min(5))).min(Duration::from_secs(2)))
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Anything up to this.
#[must_use]
pub fn below(most: Duration) -> Duration {
    Duration::from_micros(rng().next_u64() % (most.as_micros() as u64 + 1))
}

/// A connection from an address of our choice.
///
/// # Errors
/// When it cannot be made.
pub async fn dial(from: Ipv4Addr, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((from, 0).into()).context("no port is left")?;
    let tcp = socket.connect(to).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Sends a frame.
///
/// # Errors
/// When the connection has ended.
pub async fn tell(socket: &mut Socket, frame: &ToRelay<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    Ok(socket.send(Message::Binary(bytes.into())).await?)
}

/// The next frame of the relay; its Pings are answered. None when the connection has ended.
pub async fn heard(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        let frame = socket.next().await?.ok()?;
        let Message::Binary(frame) = frame else { continue };
        match FromRelay::decode(&frame) {
            Ok(FromRelay::Ping(n)) => tell(socket, &ToRelay::Pong(n)).await.ok()?,
            _ => return Some(frame.into()),
        }
    }
}
