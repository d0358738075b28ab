//! The tokio driver against a small relay on loopback: real sockets, real keys, and a relay that is killed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed expectation is how a test speaks"
)]

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::driver::tokio::{Config, EVENTS, Handle, Trust, spawn};
use happy_link::driver::{RelayUrl, rng};
use happy_link::{Answer, Class, Code, Event, LinkDown, Login, Peer, RelayDown, SendError, Side};
use happy_wire::relay::{FromRelay, LOGIN_LABEL, SUBPROTOCOL, ToRelay, Undelivered, login_message};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

const PATIENCE: Duration = Duration::from_secs(30);

// The relay: PROTOCOL 7 for devices that behave, in as few lines as will do.

/// The number of the connection, its queue, and whom it names.
type Connected = (u64, mpsc::Sender<Vec<u8>>, Vec<DeviceId>);

#[derive(Default)]
struct Devices(Mutex<BTreeMap<DeviceId, Connected>>);

impl Devices {
    async fn tell(&self, to: &DeviceId, frame: FromRelay<'_>) {
        let sender = self.0.lock().unwrap().get(to).map(|(_, sender, _)| sender.clone());
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if let Some(sender) = sender {
            // A connection that has just ended takes nothing.
            let _gone = sender.send(bytes).await;
        }
    }

    fn both_name(&self, a: &DeviceId, b: &DeviceId) -> bool {
        let devices = self.0.lock().unwrap();
        let names = |a, b| devices.get(a).is_some_and(|(_, _, named)| named.contains(b));
        names(a, b) && names(b, a)
    }

    async fn presence(&self, of: DeviceId, here: bool) {
        let others: Vec<DeviceId> = self.0.lock().unwrap().keys().copied().collect();
        for other in others {
            if self.both_name(&of, &other) {
                self.tell(&other, FromRelay::Presence { device: of, here }).await;
                if here {
                    self.tell(&of, FromRelay::Presence { device: other, here }).await;
                }
            }
        }
    }
}

struct TinyRelay {
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl TinyRelay {
    async fn start(address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let name = if tls.is_some() { format!("localhost:{}", address.port()) } else { address.to_string() };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let devices = Arc::new(Devices::default());
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (devices, name, tls) = (devices.clone(), name.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, number, &name, &devices).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, number, &name, &devices).await,
                            Err(_) => return,
                        },
                    };
                });
            }
        });
        Self { address, tasks }
    }

    async fn plain() -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), None).await
    }

    fn url(&self) -> RelayUrl {
        RelayUrl::parse(&format!("ws://{}", self.address)).unwrap()
    }

    /// Every connection breaks.
    async fn kill(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

#[allow(clippy::result_large_err, reason = "the type of the callback is the library's")]
fn name_protocol(
    request: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
    assert_eq!(request.uri().path(), happy_wire::relay::PATH);
    response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
    Ok(response)
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, number: u64, name: &str, devices: &Devices) -> Option<()> {
    let mut socket = accept_hdr_async(stream, name_protocol).await.ok()?;
    let nonce = [7; 32];
    let mut challenge = Vec::new();
    FromRelay::Challenge { nonce }.encode(&mut challenge);
    socket.send(Message::Binary(challenge.into())).await.ok()?;
    let login = socket.next().await?.ok()?.into_data();
    let Ok(ToRelay::Login { device, epoch, client_nonce, credential, signature }) = ToRelay::decode(&login) else {
        return None;
    };
    let message = login_message(name, &nonce, &device, epoch, &client_nonce, &credential);
    device.verify(LOGIN_LABEL, &message, &signature).expect("the login is signed");

    let (sender, mut outgoing) = mpsc::channel::<Vec<u8>>(64);
    devices.0.lock().unwrap().insert(device, (number, sender, Vec::new()));
    devices.tell(&device, FromRelay::Welcome { max_payload: 65_536, queue_bytes: 229_376, host: None }).await;
    let (mut sink, mut source) = socket.split();
    let write = async {
        while let Some(frame) = outgoing.recv().await {
            sink.send(Message::Binary(frame.into())).await.ok()?;
        }
        Some(())
    };
    let read = async {
        while let Message::Binary(frame) = source.next().await?.ok()? {
            match ToRelay::decode(&frame).expect("a device speaks the protocol") {
                ToRelay::Peers(peers) => {
                    devices.0.lock().unwrap().get_mut(&device)?.2 = peers;
                    devices.presence(device, true).await;
                }
                ToRelay::Send { to, payload, .. } if devices.both_name(&device, &to) => {
                    devices.tell(&to, FromRelay::Deliver { from: device, rendezvous: false, payload }).await;
                }
                ToRelay::Send { to, tag, .. } => {
                    devices.tell(&device, FromRelay::Undeliverable { to, tag, reason: Undelivered::Unreachable }).await;
                }
                ToRelay::Ping(n) => devices.tell(&device, FromRelay::Pong(n)).await,
                _ => {}
            }
        }
        Some(())
    };
    tokio::select! { _ = write => {}, _ = read => {} }
    let is_newest = devices.0.lock().unwrap().get(&device).is_some_and(|(newest, ..)| *newest == number);
    if is_newest {
        devices.presence(device, false).await;
        devices.0.lock().unwrap().remove(&device);
    }
    Some(())
}

// The devices.

struct Device {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

impl Device {
    fn start(identity: Identity, prekeys: Vec<SignedPrekey>, relay: RelayUrl, trust: Trust, events: usize) -> Self {
        let config = Config { identity, prekeys, login: Login::Device { epoch: 1 }, relay, trust, events };
        let (handle, events) = spawn(config).unwrap();
        Self { handle, events }
    }

    /// Waits for an event; those before it are passed over.
    async fn until<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let search = async {
            loop {
                let event = self.events.recv().await.expect("the driver runs");
                seen.push(format!("{event:?}").chars().take(120).collect::<String>());
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        match timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("the event never came; seen: {seen:#?}"),
        }
    }

    async fn up(&mut self) -> bool {
        self.until(|event| match event {
            Event::LinkUp { resumed, .. } => Some(resumed),
            _ => None,
        })
        .await
    }
}

/// A phone and a machine that were paired.
fn pair(relay: &RelayUrl, trust: &Trust, phone_events: usize) -> (Device, Device) {
    let mut random = rng();
    let (phone, machine) = (Identity::generate(&mut random), Identity::generate(&mut random));
    let prekey = SignedPrekey::generate(&mut random, &machine, 1, 1_700_000_000);
    let bundle = Bundle::new(&machine, &prekey, None);
    let (phone_record, machine_record) = (phone.record().clone(), machine.record().clone());
    let phone = Device::start(phone, vec![], relay.clone(), trust.clone(), phone_events);
    let machine = Device::start(machine, vec![prekey], relay.clone(), trust.clone(), EVENTS);
    let secret = happy_crypto::handshake::PairSecret::from_bytes(&[1; 40]).unwrap();
    let secrets = happy_link::PairSecrets { current: secret, previous: None };
    phone
        .handle
        .add_peer(Peer { record: machine_record, side: Side::Initiator(bundle), secrets: secrets.clone() })
        .unwrap();
    machine.handle.add_peer(Peer { record: phone_record, side: Side::Responder, secrets }).unwrap();
    (phone, machine)
}

async fn connected(relay: &TinyRelay) -> (Device, Device) {
    let (mut phone, mut machine) = pair(&relay.url(), &Trust::System, EVENTS);
    assert!(!phone.up().await && !machine.up().await);
    (phone, machine)
}

/// Answers every request with its own body until the receiver ends.
fn echo(mut machine: Device) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(event) = machine.events.recv().await {
            if let Event::Request { peer, id, body } = event {
                machine.handle.respond(&peer, id, &body).await.unwrap();
            }
        }
    })
}

#[tokio::test]
async fn calls_are_answered() {
    let relay = TinyRelay::plain().await;
    let (phone, machine) = connected(&relay).await;
    let peer = machine.handle.device();
    let echo = echo(machine);
    for number in 0..50 {
        let body = vec![b'x'; number * 1000];
        assert_eq!(phone.handle.call(&peer, body.clone(), None).await, Ok(Answer::Body(body)));
    }
    let many = (0..200_u32).map(|number| phone.handle.call(&peer, number.to_be_bytes().to_vec(), None));
    let answers = timeout(PATIENCE, futures_util::future::join_all(many)).await.unwrap();
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(Answer::Body((number as u32).to_be_bytes().to_vec())));
    }
    echo.abort();
}

#[tokio::test]
async fn a_killed_relay_loses_nothing() {
    let relay = TinyRelay::plain().await;
    let (mut phone, mut machine) = connected(&relay).await;
    let (peer, other) = (machine.handle.device(), phone.handle.device());
    let channel = phone.handle.open_channel(&peer, Class::Bulk, "file").unwrap();
    let sender = phone.handle.clone();
    let sending = tokio::spawn(async move {
        for number in 0..600_u32 {
            let message = [&number.to_be_bytes()[..], &[number as u8; 4000]].concat();
            sender.send(&peer, channel, &message).await.unwrap();
        }
    });
    let mut expected = 0_u32;
    let mut relay = Some(relay);
    while expected < 600 {
        let message = machine
            .until(|event| match event {
                Event::Message { bytes, .. } => Some(bytes),
                Event::Closed { .. } | Event::LinkUp { resumed: false, .. } => panic!("the session was lost"),
                _ => None,
            })
            .await;
        assert_eq!(message[..4], expected.to_be_bytes());
        assert!(message[4..].iter().all(|byte| *byte == expected as u8));
        machine.handle.consumed(&other, channel, message.len());
        expected += 1;
        if expected == 100 || expected == 300 {
            let address = relay.take().unwrap().kill().await;
            relay = Some(TinyRelay::start(address, None).await);
        }
    }
    sending.await.unwrap();
    assert!(phone.up().await, "the phone's link came back with its session");
}

#[tokio::test]
async fn a_call_survives_the_relay() {
    let relay = TinyRelay::plain().await;
    let (phone, mut machine) = connected(&relay).await;
    let (peer, caller) = (machine.handle.device(), phone.handle.clone());
    let call = tokio::spawn(async move { caller.call(&peer, b"question".to_vec(), None).await });
    let request = |event| match event {
        Event::Request { peer, id, .. } => Some((peer, id)),
        _ => None,
    };
    let (from, id) = machine.until(request).await;
    let address = relay.kill().await;
    machine
        .until(|event| {
            matches!(
                event,
                Event::RelayDown { why: RelayDown::Lost, .. } | Event::LinkDown { why: LinkDown::RelayDown, .. }
            )
            .then_some(())
        })
        .await;
    // Answered while there is no connection at all.
    machine.handle.respond(&from, id, b"answer").await.unwrap();
    let _relay = TinyRelay::start(address, None).await;
    assert_eq!(timeout(PATIENCE, call).await.unwrap().unwrap(), Ok(Answer::Body(b"answer".to_vec())));
}

/// Polls a future once.
async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_sender_waits_for_its_receiver() {
    const LENGTH: usize = 100_000;
    let relay = TinyRelay::plain().await;
    let (phone, mut machine) = connected(&relay).await;
    let (peer, other) = (machine.handle.device(), phone.handle.device());
    let channel = phone.handle.open_channel(&peer, Class::Bulk, "file").unwrap();
    let (accepted, mut count) = tokio::sync::watch::channel(0);
    let sender = phone.handle.clone();
    let sending = tokio::spawn(async move {
        while sender.send(&peer, channel, &[1; LENGTH]).await.is_ok() {
            accepted.send_modify(|count| *count += 1);
        }
    });
    let mut received = 0;
    let arrived = |event| matches!(event, Event::Message { .. }).then_some(());
    // The other side allows 512 KiB: five messages and a part of the sixth. Two and that sixth are accepted beyond.
    while received < 5 {
        machine.until(arrived).await;
        received += 1;
    }
    timeout(PATIENCE, count.wait_for(|count| *count >= 7)).await.unwrap().unwrap();
    phone.handle.emit(&peer, b"so far".to_vec()).await.unwrap();
    machine
        .until(|event| match event {
            Event::Notice { .. } => Some(()),
            Event::Message { .. } => panic!("more came than was allowed"),
            _ => None,
        })
        .await;
    assert!(*count.borrow() <= 8, "more was accepted than the bounds allow");
    machine.handle.consumed(&other, channel, received * LENGTH);
    machine.until(arrived).await;
    timeout(PATIENCE, count.wait_for(|count| *count >= 9)).await.unwrap().unwrap();
    machine.handle.close_channel(&other, channel, Code::NOT_PERMITTED, "enough");
    timeout(PATIENCE, sending).await.expect("a sender does not wait for a channel that is closed").unwrap();
}

#[tokio::test]
async fn a_slow_owner_holds_up_the_socket_and_loses_nothing() {
    let relay = TinyRelay::plain().await;
    let (mut phone, mut machine) = pair(&relay.url(), &Trust::System, 1);
    assert!(!phone.up().await && !machine.up().await);
    let (peer, other) = (machine.handle.device(), phone.handle.device());
    let sender = machine.handle.clone();
    let sending = tokio::spawn(async move {
        for number in 0..2000_u32 {
            sender.emit(&other, number.to_be_bytes().to_vec()).await.unwrap();
        }
    });
    // Nobody reads the phone's events until the machine has given up everything that it can.
    for expected in 0..2000_u32 {
        let notice = phone
            .until(|event| match event {
                Event::Notice { peer: from, body } if from == peer => Some(body),
                _ => None,
            })
            .await;
        assert_eq!(notice, expected.to_be_bytes());
        if expected % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_is_cancelled() {
    let relay = TinyRelay::plain().await;
    let (phone, mut machine) = connected(&relay).await;
    let peer = machine.handle.device();
    let mut call = Box::pin(phone.handle.call(&peer, b"long work".to_vec(), None));
    assert!(is_pending(&mut call).await);
    let id = machine
        .until(|event| match event {
            Event::Request { id, .. } => Some(id),
            _ => None,
        })
        .await;
    drop(call);
    let cancelled = machine
        .until(|event| match event {
            Event::Cancelled { id, .. } => Some(id),
            _ => None,
        })
        .await;
    assert_eq!(cancelled, id);
}

#[tokio::test]
async fn shutting_down_says_goodbye() {
    let relay = TinyRelay::plain().await;
    let (phone, mut machine) = connected(&relay).await;
    let peer = machine.handle.device();
    let channel = phone.handle.open_channel(&peer, Class::Interactive, "terminal").unwrap();
    let mut waiting = Box::pin(phone.handle.call(&peer, b"never answered".to_vec(), None));
    assert!(is_pending(&mut waiting).await);
    phone.handle.shutdown().await;
    assert_eq!(waiting.await, Ok(Answer::LinkGone));
    assert_eq!(phone.handle.send(&peer, channel, b"too late").await, Err(SendError::Closed));
    let why = machine
        .until(|event| match event {
            Event::LinkDown { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert!(matches!(why, LinkDown::Ended { by_peer: true, code: Code::GOODBYE, .. }), "{why:?}");
}

#[tokio::test]
async fn the_last_handle_takes_the_driver_with_it() {
    let relay = TinyRelay::plain().await;
    let (mut phone, _machine) = connected(&relay).await;
    drop(phone.handle);
    let ended = async { while phone.events.recv().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("the driver ends");
}

#[tokio::test]
async fn tls_is_checked() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("relay.pem");
    std::fs::write(&pem, certificate.cert.pem()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(certificate.signing_key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.cert.der().clone()], key).unwrap();
    let relay = TinyRelay::start(([127, 0, 0, 1], 0).into(), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let url = RelayUrl::parse(&format!("wss://localhost:{}", relay.address.port())).unwrap();

    let (mut phone, mut machine) = pair(&url, &Trust::SystemAnd(pem.clone()), EVENTS);
    assert!(!phone.up().await && !machine.up().await);

    // Another certificate of the same name is not this one.
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&pem, stranger.cert.pem()).unwrap();
    let (mut phone, _machine) = pair(&url, &Trust::SystemAnd(pem), EVENTS);
    phone.until(|event| matches!(event, Event::RelayDown { .. }).then_some(())).await;
    let trouble = phone.handle.trouble().expect("a reason is known");
    assert!(trouble.contains("TLS"), "{trouble}");
}

#[tokio::test]
async fn a_server_that_is_no_relay_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = RelayUrl::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            // The client may be gone already.
            let _gone = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    let (mut phone, _machine) = pair(&url, &Trust::System, EVENTS);
    let why = phone
        .until(|event| match event {
            Event::RelayDown { why, .. } => Some(why),
            _ => None,
        })
        .await;
    assert_eq!(why, RelayDown::Told(Code::RESTARTING));
    assert!(phone.handle.trouble().is_some_and(|trouble| trouble.contains("503")));
    server.abort();
}
