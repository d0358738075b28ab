//! Sockets of the local API: how many there may be, and for how long one that has not shown the token.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Connections that have shown the token: a browser has six or so, and each terminal one.
const MAX_PROVEN: usize = 96;
/// Connections that have not. Any user of this machine can hold these, each for [`STRANGER_TIME`].
const MAX_STRANGERS: usize = 48;
/// How long a connection may stay that has not shown the token. Whoever fetches the app and types a password is done by then.
const STRANGER_TIME: Duration = Duration::from_secs(30);
/// The head of a request is there by then; also how long a connection may wait for its next request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Bytes of the head of a request.
const MAX_HEAD: usize = 32 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// TLS is opened by then.
const TLS_TIME: Duration = Duration::from_secs(10);
/// After an error such as too many open files, accepting waits for so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The places that there are.
#[derive(Clone)]
pub struct Places {
    strangers: Arc<Semaphore>,
    proven: Arc<Semaphore>,
}

impl Default for Places {
    /// All of them free.
    fn default() -> Places {
        Places { strangers: Arc::new(Semaphore::new(MAX_STRANGERS)), proven: Arc::new(Semaphore::new(MAX_PROVEN)) }
    }
}

impl Places {
    /// Connections now: of strangers, and of those that have shown the token.
    pub fn taken(&self) -> (usize, usize) {
        (MAX_STRANGERS - self.strangers.available_permits(), MAX_PROVEN - self.proven.available_permits())
    }

    fn enter(&self) -> Option<Place> {
        let stranger = self.strangers.clone().try_acquire_owned().ok()?;
        let held = Mutex::new(Held { _permit: stranger, is_proven: false });
        Some(Place(Arc::new(Inner { held, proven: self.proven.clone(), changed: watch::Sender::new(false) })))
    }
}

/// The place of one connection; it is free when the last copy is gone.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    held: Mutex<Held>,
    proven: Arc<Semaphore>,
    changed: watch::Sender<bool>,
}

struct Held {
    _permit: OwnedSemaphorePermit,
    is_proven: bool,
}

impl Place {
    /// The token was shown. False when there are too many who have.
    pub fn prove(&self) -> bool {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.is_proven {
            let Ok(permit) = self.0.proven.clone().try_acquire_owned() else { return false };
            *held = Held { _permit: permit, is_proven: true };
            self.0.changed.send_replace(true);
        }
        true
    }

    /// Resolves when a stranger has been here for long enough.
    async fn outstayed(&self, time: Duration) {
        let mut proven = self.0.changed.subscribe();
        if tokio::time::timeout(time, proven.wait_for(|proven| *proven)).await.is_ok() {
            std::future::pending::<()>().await;
        }
    }
}

/// Who speaks plain HTTP, and who TLS.
#[derive(Clone)]
pub struct Door {
    /// For all who are not on this machine; without it there is nobody else.
    pub tls: Option<Arc<ServerConfig>>,
}

/// Serves until the task is dropped, and its connections with it.
pub async fn serve(listener: TcpListener, door: Door, places: Places, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the local API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A socket too many is closed without a word: whoever has taken all places would only make us work.
        let Some(place) = places.enter() else { continue };
        let _ = tcp.set_nodelay(true);
        connections.spawn(open(tcp, peer, door.clone(), place, router.clone()));
    }
}

async fn open(tcp: TcpStream, peer: SocketAddr, door: Door, place: Place, router: Router) {
    if is_here(peer.ip()) {
        return speak(tcp, place, router).await;
    }
    let Some(tls) = door.tls else { return };
    if let Ok(Ok(stream)) = tokio::time::timeout(TLS_TIME, TlsAcceptor::from(tls).accept(tcp)).await {
        speak(stream, place, router).await;
    }
}

fn is_here(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, place: Place, router: Router) {
    let to_router = TowerToHyperService::new(router);
    let stays = place.clone();
    let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
        // Whatever the request becomes holds the place, be it a websocket or a stream.
        request.extensions_mut().insert(place.clone());
        hyper::service::Service::call(&to_router, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let connection = pin!(connection);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::trace!(%error, "a connection of the local API ended early");
        },
        () = stays.outstayed(STRANGER_TIME) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_shows_the_token_makes_room_for_others_and_not_without_end() {
        let places = Places::default();
        let strangers: Vec<_> = std::iter::from_fn(|| places.enter()).collect();
        assert_eq!(strangers.len(), MAX_STRANGERS);
        assert!(strangers[0].prove() && strangers[0].prove());
        assert_eq!(places.taken(), (MAX_STRANGERS - 1, 1));
        let mut proven = Vec::new();
        while let Some(place) = places.enter() {
            if !place.prove() {
                break;
            }
            proven.push(place);
        }
        assert_eq!(proven.len() + 1, MAX_PROVEN);
        drop((strangers, proven));
        assert_eq!(places.taken(), (0, 0));
    }

    #[tokio::test]
    async fn a_stranger_has_to_go() {
        let (places, soon) = (Places::default(), Duration::from_millis(20));
        places.enter().unwrap().outstayed(soon).await;
        let other = places.enter().unwrap();
        assert!(other.prove());
        tokio::time::timeout(10 * soon, other.outstayed(soon)).await.unwrap_err();
    }

    #[test]
    fn only_this_machine_is_here() {
        for (peer, here) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.168.1.2", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(is_here(peer.parse().unwrap()), here, "{peer}");
        }
    }
}
