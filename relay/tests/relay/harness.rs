//! A relay on a free port, and devices that talk to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use happy_crypto::{DeviceId, Identity};
use happy_relay::{App, Config, Door, Listening, Relay};
use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::relay::{Credential, FromRelay, LOGIN_LABEL, PATH, SUBPROTOCOL, ToRelay, login_message};
use rand_core::SeedableRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};

/// Nothing in these tests needs a tenth of this; it turns a hang into a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Asks again and again until the answer is yes, for what has no event of its own.
pub async fn until(what: &str, mut yes: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !yes() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ports of 127.0.0.1 for programs that take no port of the system's choice, each different, and free for the port of a Redis cluster's
/// bus 10,000 above it too.
///
/// They lie below those that systems give to whoever asks for any: a program that starts a little later would find one of those taken by the
/// test beside it.
pub fn free_ports<const N: usize>() -> [u16; N] {
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports =
        (0..COUNT).map(|_| 10_000 + ((std::process::id() % COUNT) * 64 + NEXT.fetch_add(1, Relaxed)) % COUNT);
    let free = |port: u32| TcpListener::bind(("127.0.0.1", port as u16)).is_ok();
    [(); N].map(|()| ports.find(|port| free(*port) && free(port + COUNT)).expect("some port is free") as u16)
}

pub struct Server {
    pub relay: Relay,
    pub listening: Listening,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        Self::behind(config, Door::plain()).await
    }

    pub async fn behind(config: Config, door: Door) -> Self {
        let relay =
            Relay::new(Config { app: if config.app == App::Embedded { App::Off } else { config.app }, ..config })
                .unwrap();
        let listening = relay.listen("127.0.0.1:0".parse().unwrap(), door).await.unwrap();
        Self { relay, listening }
    }

    pub fn address(&self) -> SocketAddr {
        self.listening.address()
    }

    pub fn metric(&self, name: &str) -> u64 {
        let name = format!("happy_relay_{name}");
        self.metrics().get(&name).copied().unwrap_or_else(|| panic!("no metric {name}"))
    }

    fn metrics(&self) -> BTreeMap<String, u64> {
        let text = self.relay.metrics();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.into(), value.parse::<f64>().unwrap() as u64))
            .collect()
    }

    fn balance(&self, unit: &str) -> (u64, u64) {
        let metrics = self.metrics();
        let sum = |prefix: String| -> u64 {
            metrics.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(_, value)| value).sum()
        };
        let part = |part: &str| sum(format!("happy_relay_{unit}_{part}_total"));
        (part("received") + part("from_bus"), part("delivered") + part("to_bus") + part("dropped"))
    }

    /// What went in has come out, by one door or another.
    pub async fn balances(&self) {
        until("the books balance", || {
            ["frames", "bytes"].map(|unit| self.balance(unit)).iter().all(|(input, output)| input == output)
        })
        .await;
    }

    pub async fn connect(&self) -> Client {
        Client::dial(self.address(), &self.address().to_string()).await
    }

    /// A device that has logged in.
    pub async fn join(&self, device: &Device) -> Client {
        let mut client = self.connect().await;
        client.log_in(device, None).await;
        client
    }

    /// Two devices that named each other and know that the other is here.
    pub async fn pair(&self, a: &Device, b: &Device) -> (Client, Client) {
        let (mut one, mut other) = (self.join(a).await, self.join(b).await);
        one.name(&[b.id()]).await;
        other.tell(ToRelay::Peers(vec![a.id()])).await;
        one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
        other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
        (one, other)
    }
}

pub struct Device {
    identity: Identity,
    pub epoch: u64,
}

impl Device {
    pub fn new(seed: u64) -> Self {
        Self { identity: Identity::generate(&mut rand_chacha::ChaCha20Rng::seed_from_u64(seed)), epoch: 1 }
    }

    pub fn id(&self) -> DeviceId {
        self.identity.device_id()
    }

    pub fn login(&self, relay: &str, nonce: &[u8; 32], ticket: Option<[u8; 32]>) -> Vec<u8> {
        self.login_with(relay, nonce, ticket.map_or(Credential::None, Credential::Ticket))
    }

    /// With an enrolment key.
    pub fn enrolled_login(&self, relay: &str, nonce: &[u8; 32], key: &EnrolmentKey) -> Vec<u8> {
        let unsigned = Credential::Enrolment { key: key.public().id(), signature: [0; 64] };
        let message = login_message(relay, nonce, &self.id(), self.epoch, &[9; 16], &unsigned);
        let credential = Credential::Enrolment { key: key.public().id(), signature: key.sign(&message) };
        self.login_with(relay, nonce, credential)
    }

    pub fn login_with(&self, relay: &str, nonce: &[u8; 32], credential: Credential) -> Vec<u8> {
        let client_nonce = [9; 16];
        let message = login_message(relay, nonce, &self.id(), self.epoch, &client_nonce, &credential);
        let signature = self.identity.sign(LOGIN_LABEL, &message);
        encode(&ToRelay::Login { device: self.id(), epoch: self.epoch, client_nonce, credential, signature })
    }
}

pub fn encode(frame: &ToRelay<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

pub struct Client {
    pub socket: WebSocketStream<TcpStream>,
    /// The name under which the relay was dialled.
    pub name: String,
    pub id: Option<DeviceId>,
}

pub fn request(name: &str) -> ClientRequestBuilder {
    ClientRequestBuilder::new(format!("ws://{name}{PATH}").parse().unwrap()).with_sub_protocol(SUBPROTOCOL)
}

impl Client {
    pub async fn dial(address: SocketAddr, name: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), name).await
    }

    /// A client whose kernel keeps little, so that it is stuck soon after it stops reading.
    pub async fn dial_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        Self::over(socket.connect(address).await.unwrap(), &address.to_string()).await
    }

    /// From another address of this machine, which is not one of a proxy.
    pub async fn dial_from(address: SocketAddr, from: [u8; 4]) -> Self {
        Self::over(tcp_from(address, from).await, &address.to_string()).await
    }

    async fn over(tcp: TcpStream, name: &str) -> Self {
        let upgrade = tokio_tungstenite::client_async(request(name), tcp);
        let (socket, _) = soon("the upgrade", upgrade).await.unwrap();
        Self { socket, name: name.into(), id: None }
    }

    pub async fn challenge(&mut self) -> [u8; 32] {
        let frame = self.frame().await;
        let Ok(FromRelay::Challenge { nonce }) = FromRelay::decode(&frame) else { panic!("no challenge: {frame:?}") };
        nonce
    }

    /// Logs in and gives the host that stands in Welcome.
    pub async fn log_in(&mut self, device: &Device, ticket: Option<[u8; 32]>) -> Option<DeviceId> {
        let nonce = self.challenge().await;
        let login = device.login(&self.name, &nonce, ticket);
        self.raw(&login).await;
        let frame = self.frame().await;
        let Ok(FromRelay::Welcome { host, .. }) = FromRelay::decode(&frame) else {
            panic!("no welcome: {:?}", FromRelay::decode(&frame))
        };
        self.id = Some(device.id());
        host
    }

    pub async fn raw(&mut self, frame: &[u8]) {
        soon("a write", self.socket.send(Message::Binary(frame.to_vec().into()))).await.unwrap();
    }

    pub async fn tell(&mut self, frame: ToRelay<'_>) {
        self.raw(&encode(&frame)).await;
    }

    pub async fn name(&mut self, peers: &[DeviceId]) {
        self.tell(ToRelay::Peers(peers.to_vec())).await;
        self.barrier().await;
    }

    pub async fn send(&mut self, to: DeviceId, tag: u32, payload: &[u8]) {
        self.tell(ToRelay::Send { to, tag, payload }).await;
    }

    /// The next binary message.
    pub async fn frame(&mut self) -> Vec<u8> {
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Binary(frame))) => return frame.into(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no frame, but {other:?}"),
            }
        }
    }

    pub async fn expect(&mut self, wanted: FromRelay<'_>) {
        let frame = self.frame().await;
        assert_eq!(FromRelay::decode(&frame), Ok(wanted));
    }

    pub async fn expect_payload(&mut self, from: DeviceId, wanted: &[u8]) {
        self.expect(FromRelay::Deliver { from, rendezvous: false, payload: wanted }).await;
    }

    /// Everything sent before has been handled, and no notice was waiting: notices come in order.
    pub async fn barrier(&mut self) {
        self.tell(ToRelay::Ping(77)).await;
        let mut early = Vec::new();
        loop {
            let frame = self.frame().await;
            match FromRelay::decode(&frame) {
                Ok(FromRelay::Pong(77)) => break,
                // After a quarter of a minute of silence, which a busy machine may need.
                Ok(FromRelay::Ping(n)) => self.tell(ToRelay::Pong(n)).await,
                _ => early.push(frame),
            }
        }
        // Put back what came before the answer.
        if !early.is_empty() {
            panic!("unexpected: {:?}", FromRelay::decode(&early[0]));
        }
    }

    /// The relay ends the connection: gives the code of Goaway, and checks that the websocket closes with the same.
    pub async fn goaway(&mut self) -> (Code, u32) {
        let frame = self.frame().await;
        let Ok(FromRelay::Goaway { code, retry_after_ms, text }) = FromRelay::decode(&frame) else {
            panic!("no goaway: {:?}", FromRelay::decode(&frame))
        };
        assert!(!text.is_empty());
        match soon("the close", self.socket.next()).await {
            Some(Ok(Message::Close(Some(CloseFrame { code: closed, .. })))) => assert_eq!(u16::from(closed), code.0),
            other => panic!("no close, but {other:?}"),
        }
        (code, retry_after_ms)
    }
}

pub async fn tcp_from(address: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

/// Sends bytes over a fresh connection and reads until the relay closes it.
pub async fn http(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the answer", tcp.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")).await
}
