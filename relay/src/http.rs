//! What is answered over HTTP: the upgrade to a websocket, health, metrics, the app, and errors that say what to do.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use happy_wire::relay::{PATH, SUBPROTOCOL};
use hyper::body::Body as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::config::{authority, web_origin};
use crate::listen::Admission;
use crate::socket::Stream;
use crate::{Shared, connection, rest, updates};

/// A request as hyper gives it.
pub(crate) type Incoming = axum::http::Request<hyper::body::Incoming>;

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let mut router = Router::new()
        .route(PATH, any(only_get).get(websocket).head(only_get))
        .route("/v1/machines", post(rest::put_machine))
        .route("/v1/machines/{id}", get(rest::get_machine))
        .route("/v1/updates", any(only_get).get(updates::updates).head(only_get))
        .route("/healthz", get(health))
        .route("/readyz", get(ready));
    if shared.config.metrics {
        router = router.route("/metrics", get(metrics));
    }
    router.fallback(app).method_not_allowed_fallback(method_not_allowed).with_state(shared)
}

/// What answers at an address of its own for those who watch the relay.
pub(crate) fn metrics_router(shared: Arc<Shared>) -> Router {
    let router = Router::new().route("/healthz", get(health)).route("/readyz", get(ready));
    let router = router.route("/metrics", get(metrics)).fallback(nothing_else);
    router.method_not_allowed_fallback(method_not_allowed).with_state(shared)
}

async fn nothing_else() -> Response {
    error(
        StatusCode::NOT_FOUND,
        "not_found",
        "here are /metrics, /healthz and /readyz; the relay is at another address",
    )
}

/// An error as every part of the relay answers it.
pub(crate) fn error_body(code: &str, message: &str) -> String {
    json!({ "error": { "code": code, "message": message } }).to_string()
}

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    json_response(status, error_body(code, message))
}

pub(crate) fn json_response(status: StatusCode, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body).into_response()
}

/// The router adds which methods there are.
async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not answer to this method")
}

async fn allowed_are(methods: &'static str) -> Response {
    let mut response = method_not_allowed().await;
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// The router takes HEAD for GET, which is wrong where a GET is more than an answer: it begins a websocket or a stream.
async fn only_get() -> Response {
    allowed_are("GET").await
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let (status, word) = match shared.closing.has_begun() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
    };
    let body = json!({ "status": word, "version": env!("CARGO_PKG_VERSION"), "connections": shared.hub.connections() });
    json_response(status, body.to_string())
}

/// Whether new devices should be sent here: not while it closes, nor while it is full. A lost way to other nodes is no reason to send devices away: all
/// nodes lose it at once, and each goes on for its own.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let full = shared.hub.connections() >= shared.config.max_connections as usize;
    let (status, word) = match (shared.closing.has_begun(), full) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "closing"),
        (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "full"),
        _ => (StatusCode::OK, "ready"),
    };
    json_response(status, json!({ "status": word }).to_string())
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.hub.render_metrics()).into_response()
}

/// Every other path is the app's.
async fn app(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        return allowed_are("GET,HEAD").await;
    }
    match shared.app.answer(request.uri().path(), request.headers()).await {
        Some(response) => response,
        None => {
            let message = format!("there is nothing at this path; the websocket is at {PATH}, health at /healthz");
            error(StatusCode::NOT_FOUND, "not_found", &message)
        }
    }
}

/// Upgrades to the websocket of `PROTOCOL 7`.
async fn websocket(State(shared): State<Arc<Shared>>, mut request: Request) -> Response {
    let wanted = match Wanted::from_headers(&shared, request.headers()) {
        Ok(wanted) => wanted,
        Err(refusal) => return *refusal,
    };
    // What stands between the head and the first frame, a proxy before us could take for something else.
    if !request.body().is_end_stream() {
        return error(StatusCode::BAD_REQUEST, "body", "a request for the websocket has no body");
    }
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let admission = request.extensions_mut().remove::<Arc<Admission>>();
    let (Some(upgrade), Some(admission), Version::HTTP_11) = (upgrade, admission, request.version()) else {
        return error(
            StatusCode::UPGRADE_REQUIRED,
            "cannot_upgrade",
            "this connection cannot become a websocket; use HTTP/1.1",
        );
    };
    let admitted = admission.clone();
    let serving = tokio::spawn(async move {
        let Some((stream, early)) = upgraded(upgrade).await else { return };
        connection::serve(shared, admitted, stream, early, wanted.names).await;
    });
    admission.served_by(serving.abort_handle());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, wanted.accept);
    response
}

/// The raw socket behind an upgrade, and what was read from it already.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Stream, axum::body::Bytes)> {
    let upgraded: Upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// A websocket request that may go on.
struct Wanted {
    /// Names under which the device may have dialled us.
    names: Arc<[String]>,
    accept: HeaderValue,
}

impl Wanted {
    fn from_headers(shared: &Shared, headers: &HeaderMap) -> Result<Self, Box<Response>> {
        let checked = match shared.closing.has_begun() {
            true => Err(Unfit::CLOSING),
            false => Upgrade::read(headers, &shared.config.origins),
        };
        let Upgrade { host, accept } = checked.map_err(|Unfit { status, code, message }| {
            shared.hub.metrics.upgrade_refused(code);
            Box::new(error(status, code, message))
        })?;
        // PROTOCOL 7: the configured names or, without any, the Host header of this connection.
        let names = shared.names.read().clone();
        let names = if names.is_empty() { Arc::from([host]) } else { names };
        Ok(Self { names, accept })
    }
}

/// What a request for the websocket says (`PROTOCOL 7`, Websocket).
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// What its sender dialled.
    pub(crate) host: String,
    /// What shows that its key was read.
    pub(crate) accept: HeaderValue,
}

/// Why a request does not become a websocket.
#[derive(Debug)]
pub(crate) struct Unfit {
    status: StatusCode,
    pub(crate) code: &'static str,
    message: &'static str,
}

impl Unfit {
    const CLOSING: Unfit =
        Unfit::new(StatusCode::SERVICE_UNAVAILABLE, "closing", "the relay is restarting; come back in a second");

    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message }
    }
}

impl Upgrade {
    /// Reads the head of a request. `origins` are those whose pages may connect besides the relay's own.
    pub(crate) fn read(headers: &HeaderMap, origins: &[String]) -> Result<Self, Unfit> {
        let refuse = |status, code, message| Err(Unfit::new(status, code, message));
        if !lists(headers, header::UPGRADE, "websocket") || !lists(headers, header::CONNECTION, "upgrade") {
            return refuse(StatusCode::UPGRADE_REQUIRED, "websocket_only", "this path speaks websocket only");
        }
        if text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return refuse(StatusCode::BAD_REQUEST, "websocket_version", "the websocket version must be 13");
        }
        if !lists(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
            let message = "the websocket must ask for the subprotocol happy-relay.v1; a client that asks for another needs an upgrade";
            return refuse(StatusCode::BAD_REQUEST, "subprotocol", message);
        }
        let key = text(headers, header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).map(str::as_bytes);
        let Some(accept) = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key)).ok()) else {
            let message = "the header Sec-WebSocket-Key is missing, or not 16 bytes in base64";
            return refuse(StatusCode::BAD_REQUEST, "websocket_key", message);
        };
        let host = text(headers, header::HOST).and_then(authority);
        let Some(host) = host else {
            return refuse(StatusCode::BAD_REQUEST, "host", "the header Host is missing, there twice, or no authority");
        };
        if !origin_allowed(origins, headers, &host) {
            let message =
                "pages of this origin may not open the websocket; the operator can allow it with the setting `origin`";
            return refuse(StatusCode::FORBIDDEN, "origin", message);
        }
        Ok(Self { host, accept })
    }
}

/// Programs send no Origin. A browser sends that of the page, which must be ours or one that the operator named, so that a
/// foreign page cannot make its visitors' browsers part of whatever it does here.
fn origin_allowed(origins: &[String], headers: &HeaderMap, host: &str) -> bool {
    if !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let Some(origin) = text(headers, header::ORIGIN).and_then(web_origin) else { return false };
    let same = origin.split_once("://").is_some_and(|(_, rest)| rest == host);
    same || origins.contains(&origin)
}

/// A header that stands there once. Of two, a proxy before us may have believed the other.
fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// Whether it is what RFC 6455 asks for: 16 bytes in base64.
fn is_key(key: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    key.strip_suffix("==").is_some_and(|digits| digits.len() == 22 && digits.chars().all(known))
}

/// Whether a header that is a list has this item, in whatever case.
fn lists(headers: &HeaderMap, name: header::HeaderName, item: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(item))
}
