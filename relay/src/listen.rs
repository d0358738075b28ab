//! Listening sockets: who may connect how, TLS, and HTTP on top.
//!
//! One listener can serve both: the first byte of a connection says whether TLS begins. Plain HTTP is then answered only
//! as far as the [`Door`] allows; others are told to use https.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::certificates::{Certificates, PROOF_PROTOCOL};
use crate::lobby::{Entry, Origin, Place};
use crate::metrics::{LoginResult, SocketRefusal};
use crate::rates::Pace;
use crate::socket::{Ahead, ByteStream, Counted, Stream};
use crate::tls::TlsError;
use crate::{Shared, http, updates};

/// Connections that the kernel keeps ready while we are busy.
const BACKLOG: u32 = 1024;
/// What the kernel keeps for one socket that is not read, bytes; it doubles the number. Left to itself it grows to
/// megabytes, and then a slow reader takes "no byte" for minutes at a time.
const SEND_BUFFER: u32 = 256 * 1024;
/// The largest request head, bytes.
const MAX_HEAD: usize = 8 * 1024;
/// A connection that speaks HTTP only ends after this: a page needs seconds, and it holds one of the unproven sockets.
const HTTP_LIFE: Duration = Duration::from_secs(60);
/// After an error such as too many open files, accepting waits for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first byte of a TLS record that begins a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// From whom a listener takes requests without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlainHttp {
    /// From everyone: behind a proxy that ends TLS, or on a private network.
    Everyone,
    /// From this machine only, where a browser counts it as secure.
    Loopback,
    /// From nobody.
    Nobody,
}

impl PlainHttp {
    /// Whether a peer may go on without TLS.
    fn allows(self, peer: IpAddr) -> bool {
        match self {
            PlainHttp::Everyone => true,
            // A listener on `[::]` sees 127.0.0.1 as ::ffff:127.0.0.1.
            PlainHttp::Loopback => peer.to_canonical().is_loopback(),
            PlainHttp::Nobody => false,
        }
    }
}

/// How a listener may be entered.
#[derive(Clone)]
pub struct Door {
    tls: Option<Arc<ServerConfig>>,
    plain: PlainHttp,
    /// What the metrics tell of.
    certificates: Option<Arc<Certificates>>,
}

impl Door {
    /// Without TLS, for everyone.
    pub fn plain() -> Self {
        Self { tls: None, plain: PlainHttp::Everyone, certificates: None }
    }

    /// With TLS (see [`crate::tls`]), and without it for those that `plain` names.
    pub fn tls(tls: Arc<ServerConfig>, plain: PlainHttp) -> Self {
        Self { tls: Some(tls), plain, certificates: None }
    }

    /// With TLS by certificates that may change, whose state the metrics show.
    ///
    /// # Errors
    /// [`TlsError`] as [`Certificates::config`] says.
    pub fn certified(certificates: Arc<Certificates>, plain: PlainHttp) -> Result<Self, TlsError> {
        Ok(Self { tls: Some(certificates.config()?), plain, certificates: Some(certificates) })
    }

    /// Whether TLS is offered.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// Why an address cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has it.
    #[error("{0} is in use by another program; stop that one (`ss -ltnp` names it) or choose another address")]
    InUse(SocketAddr),
    /// The system wants more rights.
    #[error("this user may not listen at {0}; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one")]
    NotAllowed(SocketAddr),
    /// The address belongs to no interface.
    #[error("{0} is not an address of this machine; 0.0.0.0 and [::] stand for all of them")]
    NotHere(SocketAddr),
    /// Anything else.
    #[error("cannot listen at {address}: {said}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        said: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, said: io::Error) -> Self {
        match said.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(address),
            io::ErrorKind::PermissionDenied => ListenError::NotAllowed(address),
            io::ErrorKind::AddrNotAvailable => ListenError::NotHere(address),
            _ => ListenError::Other { address, said },
        }
    }
}

/// A listening socket that is being served. Dropping it stops accepting; connections that exist go on.
#[derive(Debug)]
pub struct Listening {
    address: SocketAddr,
    accepting: AbortHandle,
}

impl Listening {
    /// The address, with the port that the system chose if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A socket's right to exist. It is held by the task that serves the socket.
pub(crate) struct Admission {
    _socket: OwnedSemaphorePermit,
    origin: Origin,
    held: Mutex<Held>,
    /// Until when it may speak HTTP.
    lives_until: Mutex<Instant>,
    /// That has changed.
    life_changed: Notify,
}

/// What a socket holds until it ends or holds something else: so it is always counted somewhere.
enum Held {
    /// No device is proven on it.
    Lobby(Place),
    /// Nothing: it is a websocket, which has a seat.
    Seat,
    /// The right of a stream, which does not go back to the lobby.
    Stream { _right: updates::Right },
}

impl Admission {
    fn new(socket: OwnedSemaphorePermit, place: Place) -> Self {
        Self {
            _socket: socket,
            origin: place.origin(),
            held: Mutex::new(Held::Lobby(place)),
            lives_until: Mutex::new(Instant::now() + HTTP_LIFE),
            life_changed: Notify::new(),
        }
    }

    /// The websocket on it has a seat now; the place in the lobby is free.
    pub(crate) fn seated(&self) {
        *self.held.lock() = Held::Seat;
    }

    /// The socket is a stream's for as long as that lasts, and ends with it.
    pub(crate) fn streams(self: &Arc<Self>, right: updates::Right, until: Instant) -> Streaming {
        *self.held.lock() = Held::Stream { _right: right };
        self.lives_until(until);
        Streaming(self.clone())
    }

    /// Names the task that serves the socket from now on: it ends when the socket has to make room.
    pub(crate) fn served_by(&self, task: AbortHandle) {
        if let Held::Lobby(place) = &*self.held.lock() {
            place.served_by(task);
        }
    }

    /// Whether logins from where it comes have failed of late.
    pub(crate) fn is_suspect(&self, shared: &Shared) -> bool {
        shared.lobby.suspects(self.origin, Instant::now())
    }

    /// The login over this socket came to nothing. That a suspect comes when too many come is its doing too.
    pub(crate) fn failed(&self, shared: &Shared, result: LoginResult) {
        if result.is_failure() || result == LoginResult::Crowded && self.is_suspect(shared) {
            shared.lobby.failed(self.origin, Instant::now());
        }
    }

    /// Who asks over it has shown a token that is none.
    pub(crate) fn failed_token(&self, shared: &Shared) {
        shared.lobby.failed(self.origin, Instant::now());
    }

    fn lives_until(&self, until: Instant) {
        *self.lives_until.lock() = until;
        self.life_changed.notify_one();
    }

    /// Until it has spoken HTTP for long enough.
    async fn lived(&self) {
        loop {
            let until = *self.lives_until.lock();
            tokio::select! {
                biased;
                () = self.life_changed.notified() => {}
                () = sleep_until(until) => return,
            }
        }
    }
}

/// A stream on a socket. When it ends, by whatever way, the socket has to end.
pub(crate) struct Streaming(Arc<Admission>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.lives_until(Instant::now());
    }
}

/// Serves `router` at an address.
pub(crate) async fn listen(
    shared: Arc<Shared>,
    address: SocketAddr,
    door: Door,
    router: Router,
) -> Result<Listening, ListenError> {
    let listener = bind(address).map_err(|said| ListenError::new(address, said))?;
    let address = listener.local_addr().map_err(|said| ListenError::new(address, said))?;
    if let Some(certificates) = &door.certificates {
        shared.hub.metrics.shows(certificates.clone());
    }
    let accepting = tokio::spawn(accept(shared, listener, door, router)).abort_handle();
    Ok(Listening { address, accepting })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // After a kill -9 the old connections linger in the kernel; they must not keep a new process from the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, door: Door, router: Router) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.closing.begun() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        shared.turnstile.through(std::future::ready(())).await;
        // Whoever comes next waits in the queue of the kernel meanwhile.
        let Some(admission) = admit(&shared, Some(peer.ip())).await else { continue };
        let serving = serve(shared.clone(), router.clone(), door.clone(), tcp, peer, admission.clone());
        let serving = tokio::spawn(shared.turnstile.through(Box::pin(serving)));
        admission.served_by(serving.abort_handle());
    }
}

/// Waits for a place, if one is to be had soon. A socket too many is closed without a word: an answer would cost what it is meant to save.
async fn admit(shared: &Shared, peer: Option<IpAddr>) -> Option<Arc<Admission>> {
    let refused = |reason| {
        shared.hub.metrics.socket_refused(reason);
        None
    };
    let Ok(socket) = shared.sockets.clone().try_acquire_owned() else { return refused(SocketRefusal::Full) };
    loop {
        match shared.lobby.enter(peer, Instant::now()) {
            Entry::Place(place) => return Some(Arc::new(Admission::new(socket, place))),
            Entry::Refused(reason) => return refused(reason),
            Entry::Full(until) => tokio::select! {
                biased;
                () = shared.closing.begun() => return None,
                () = shared.lobby.freed(until) => {}
            },
        }
    }
}

/// Serves a connection that somebody else accepted, and opens no TLS on it.
pub(crate) async fn serve_foreign(shared: Arc<Shared>, stream: Box<dyn ByteStream>) {
    let Some(admission) = admit(&shared, None).await else { return };
    let router = http::router(shared.clone());
    let stream = Stream::Foreign(Counted::paced(stream, pace(&shared)));
    speak_http(shared, router, stream, admission).await;
}

fn pace(shared: &Shared) -> Option<Box<Pace>> {
    Pace::new(shared.config.max_rate, &shared.hub)
}

async fn serve(
    shared: Arc<Shared>,
    router: Router,
    door: Door,
    tcp: TcpStream,
    peer: SocketAddr,
    admission: Arc<Admission>,
) {
    // Frames are gathered before they are written; the kernel shall not wait for more.
    let _ = tcp.set_nodelay(true);
    let Some(stream) = Box::pin(open(&shared, &door, tcp, peer)).await else { return };
    speak_http(shared, router, stream, admission).await;
}

/// Serves one socket as far as HTTP goes. An upgrade takes the socket out of here, and its admission with it.
async fn speak_http(shared: Arc<Shared>, router: Router, stream: Stream, admission: Arc<Admission>) {
    let to_router = TowerToHyperService::new(router);
    let lives = admission.clone();
    let service = hyper::service::service_fn(move |mut request: http::Incoming| {
        request.extensions_mut().insert(admission.clone());
        hyper::service::Service::call(&to_router, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.config.timings.handshake)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut life = pin!(lives.lived());
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = life.as_mut() => None,
        () = shared.closing.begun() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(shared.config.timings.handshake, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "an http connection ended early");
    }
}

/// Opens TLS, or lets plain HTTP pass where the door allows it.
async fn open(shared: &Shared, door: &Door, tcp: TcpStream, peer: SocketAddr) -> Option<Stream> {
    let refused = |reason| shared.hub.metrics.socket_refused(reason);
    let Some(tls) = &door.tls else { return Some(Stream::Plain(Counted::paced(tcp, pace(shared)))) };
    let patience = shared.config.timings.handshake;
    let mut first = [0];
    match timeout(patience, tcp.peek(&mut first)).await {
        Ok(Ok(1)) if first == [TLS_HANDSHAKE] => {}
        Ok(Ok(1)) if door.plain.allows(peer.ip()) => return Some(Stream::Plain(Counted::paced(tcp, pace(shared)))),
        Ok(Ok(1)) => {
            refused(SocketRefusal::Plain);
            let _ = timeout(patience, use_https(tcp)).await;
            return None;
        }
        _ => {
            refused(SocketRefusal::Tls);
            return None;
        }
    }
    match timeout(patience, TlsAcceptor::from(tls.clone()).accept(Ahead::new(Counted::paced(tcp, pace(shared))))).await
    {
        // The authority has seen the proof by now (RFC 8737, 3) and says nothing more.
        Ok(Ok(tls)) if tls.get_ref().1.alpn_protocol() == Some(PROOF_PROTOCOL) => None,
        Ok(Ok(tls)) => Some(Stream::Tls(Box::new(tls))),
        _ => {
            refused(SocketRefusal::Tls);
            None
        }
    }
}

/// The answer to plain HTTP where only TLS is spoken. The request is not looked at: who sent it may have put secrets into it.
async fn use_https(mut tcp: TcpStream) -> io::Result<()> {
    let body = http::error_body("use_https", "this address speaks https only; put https:// before it");
    let head = format!(
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nConnection: Upgrade, close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut request = [0; MAX_HEAD];
    // Read what came, so that closing does not reset the connection before the answer is seen.
    let _ = tcp.read(&mut request).await?;
    tcp.write_all(head.as_bytes()).await?;
    tcp.write_all(body.as_bytes()).await?;
    tcp.shutdown().await?;
    while tcp.read(&mut request).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for (peer, allowed) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.7", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(PlainHttp::Loopback.allows(peer.parse().unwrap()), allowed, "{peer}");
        }
    }
}
