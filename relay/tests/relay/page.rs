//! What a browser or an operator gets over plain HTTP.

use std::fs;
use std::time::Duration;

use happy_relay::{App, Config, Door, Relay, Timings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Device, Server, get, http, soon};

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn health_is_json() {
    let server = Server::start().await;
    let _client = server.join(&Device::new(1)).await;
    let answer = get(server.address(), "/healthz", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["status"], &body["connections"]), (&"ok".into(), &1.into()));
}

#[tokio::test]
async fn metrics_are_prometheus_text_unless_turned_off() {
    let server = Server::start().await;
    let answer = get(server.address(), "/metrics", "").await;
    assert_eq!(header(&answer, "content-type"), Some("text/plain; version=0.0.4"));
    assert!(answer.contains("happy_relay_connections 0"), "{answer}");
    let server = Server::with(Config { metrics: false, ..Config::default() }).await;
    assert!(get(server.address(), "/metrics", "").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn errors_are_json_and_say_what_to_do() {
    let server = Server::start().await;
    let missing = get(server.address(), "/v1/nothing", "").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.contains("the websocket is at /v1/ws"), "{missing}");
    for path in ["/v1/ws", "/healthz", "/"] {
        let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = http(server.address(), &request).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("method_not_allowed"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_embedded_app_is_served_under_a_closed_policy() {
    let relay = Relay::new(Config::default()).unwrap();
    let listening = relay.listen("127.0.0.1:0".parse().unwrap(), Door::plain()).await.unwrap();
    let answer = get(listening.address(), "/", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let policy = header(&answer, "content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "connect-src 'self' wss:",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types happy",
    ] {
        assert!(policy.contains(rule), "{rule} is missing in {policy}");
    }
    assert!(!policy.contains("unsafe-inline") && !policy.contains("'unsafe-eval'"), "{policy}");
    for (name, value) in [
        ("cross-origin-opener-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("permissions-policy", "camera=(self), microphone=(), geolocation=()"),
        ("cache-control", "no-cache"),
        ("content-type", "text/html; charset=utf-8"),
    ] {
        assert_eq!(header(&answer, name), Some(value));
    }
    let etag = header(&answer, "etag").unwrap();
    let again = get(listening.address(), "/", &format!("If-None-Match: {etag}\r\n")).await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
}

#[tokio::test]
async fn a_folder_is_served_with_types_and_caching_and_nothing_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let web = home.path().join("web");
    fs::create_dir_all(web.join("assets")).unwrap();
    fs::write(home.path().join("secret"), "secret").unwrap();
    fs::write(web.join("index.html"), "<!doctype html>").unwrap();
    fs::write(web.join("assets/core-Ab3_9xYz.wasm"), b"\0asm").unwrap();
    let server = Server::with(Config { app: App::Folder(web), ..Config::default() }).await;
    assert!(get(server.address(), "/", "").await.ends_with("<!doctype html>"));
    let wasm = get(server.address(), "/assets/core-Ab3_9xYz.wasm", "").await;
    assert_eq!(header(&wasm, "content-type"), Some("application/wasm"));
    assert_eq!(header(&wasm, "cache-control"), Some("public, max-age=31536000, immutable"));
    assert!(header(&wasm, "content-security-policy").is_some());
    for path in ["/../secret", "/assets/../../secret", "//etc/passwd", "/%2e%2e/secret", "/assets"] {
        let answer = get(server.address(), path, "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_request_head_has_a_limit_in_size_and_time() {
    let timings = Timings { handshake: Duration::from_millis(200), ..Timings::default() };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let large = get(server.address(), "/", &format!("X-Large: {}\r\n", "x".repeat(9_000))).await;
    assert!(large.is_empty() || large.starts_with("HTTP/1.1 431"), "{large}");

    let mut slow = TcpStream::connect(server.address()).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon("the close", slow.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));
}
