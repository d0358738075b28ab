//! `GET http://127.0.0.1:64875/health`: whether the daemon is well, for scripts and service managers.
//!
//! Any web page can make a browser send requests to localhost, under a name of its own choosing. So the `Host` must be this
//! machine's, nothing here changes anything, and no answer may be read across origins.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use happy_rpc::SessionState;
use serde_json::json;
use tokio::net::TcpListener;

use crate::daemon::Daemon;
use crate::trouble::{Trouble, reason};

/// Takes the port.
///
/// # Errors
/// When another program has it.
pub async fn bind(port: u16) -> Result<TcpListener, Trouble> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Trouble::new(
            format!("The port {port} of the local API is used by another program."),
            "Choose another with `--api-port PORT` of `happy up` or `happy daemon start` (0 for any free one), or `api_port` in settings.json.",
        ),
        _ => Trouble::new(
            format!("The local API cannot listen at 127.0.0.1:{port}: {}.", reason(&error)),
            "Choose another port with `--api-port PORT` (0 for any free one).",
        ),
    })
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, port: u16, daemon: Arc<Daemon>) {
    let router = Router::new()
        .route("/health", get(health))
        .fallback(|| async { (StatusCode::NOT_FOUND, Json(json!({ "error": "there is only /health here" }))) })
        .layer(middleware::from_fn(move |request, next| local_host_only(port, request, next)))
        .with_state(daemon);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the local API ended");
    }
}

async fn local_host_only(port: u16, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_local_host(host, port) {
        return next.run(request).await;
    }
    let error = Json(json!({ "error": "this address answers to 127.0.0.1 and localhost only" }));
    (StatusCode::FORBIDDEN, error).into_response()
}

fn is_local_host(host: &str, port: u16) -> bool {
    let Some((name, given)) = host.rsplit_once(':') else { return false };
    given.parse() == Ok(port) && (name == "127.0.0.1" || name.eq_ignore_ascii_case("localhost"))
}

async fn health(State(daemon): State<Arc<Daemon>>) -> Json<serde_json::Value> {
    let running = daemon.sessions().list().await.iter().filter(|s| s.state == SessionState::Running).count();
    Json(json!({
        "status": "ok",
        "version": crate::VERSION,
        "pid": std::process::id(),
        "started_at": daemon.started_at(),
        "relay_connected": daemon.network().is_up(),
        "sessions_running": running,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_answered() {
        for good in ["127.0.0.1:64875", "localhost:64875", "LocalHost:64875"] {
            assert!(is_local_host(good, 64875), "{good}");
        }
        for bad in
            ["evil.example:64875", "127.0.0.1", "127.0.0.1:80", "", "127.0.0.1.evil.example:64875", "[::1]:64875"]
        {
            assert!(!is_local_host(bad, 64875), "{bad}");
        }
    }
}
