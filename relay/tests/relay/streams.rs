//! What streams of updates may take from a relay, and that no request but theirs takes a socket out of the lobby.

use std::net::SocketAddr;
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_relay::{Config, Timings};
use happy_wire::relay::PATH;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, Device, Server, soon, tcp_from, until};
use crate::raw::Raw;

/// An address of this machine that is not that of a proxy, and another.
const STRANGER: [u8; 4] = [127, 0, 0, 4];
const OTHER: [u8; 4] = [127, 0, 0, 5];

/// A request with a token, on a connection that is to be used again.
fn request(method: &str, path: &str, address: SocketAddr, token: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n")
}

fn updates(device: DeviceId) -> String {
    format!("/v1/updates?machine={device}")
}

/// Sends a request over a new connection and gives the head of the answer.
async fn ask(server: &Server, method: &str, path: &str, token: &str) -> (Raw, String) {
    let mut raw = Raw::open(server.address()).await;
    raw.write(request(method, path, server.address(), token).as_bytes()).await;
    let head = raw.head().await.to_ascii_lowercase();
    (raw, head)
}

async fn with_token(config: Config) -> (Server, Client, String, DeviceId) {
    let server = Server::with(config).await;
    let device = Device::new(1);
    let mut client = server.join(&device).await;
    let token = client.token().await;
    (server, client, token, device.id())
}

fn small(max_connections: u32, max_unproven: u32) -> Config {
    Config { max_connections, max_unproven, ..Config::default() }
}

/// The rest of what comes, until the relay closes.
async fn rest(mut tcp: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = soon("the end", tcp.read_to_end(&mut rest)).await;
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn one_token_does_not_shut_out_newcomers() {
    let (server, _client, token, id) = with_token(small(8, 4)).await;
    let mut held = Vec::new();
    for n in 0..16 {
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        let method = if n % 2 == 0 { "HEAD" } else { "GET" };
        let request = request(method, &updates(id), server.address(), &token);
        let _ = tcp.write_all(request.as_bytes()).await;
        // An answer, or the close of one too many.
        let _ = soon("an answer", tcp.read(&mut [0; 512])).await;
        held.push(tcp);
    }
    server.join(&Device::new(2)).await.barrier().await;
    assert_eq!(server.metric("sockets_refused_total{reason=\"full\"}"), 0);
}

/// Each socket that is open stands in one of the two books, whatever is asked over it.
#[tokio::test]
async fn only_a_stream_takes_a_socket_out_of_the_lobby() {
    let (server, _client, token, id) = with_token(small(100, 50)).await;
    let machine = format!("/v1/machines/{id}");
    let updates = updates(id);
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"];
    // The statuses in the order of the methods.
    for (path, statuses, allowed) in [
        (PATH, [426, 405, 405, 405, 405, 405, 405, 405, 405], "get"),
        ("/v1/machines", [405, 405, 400, 405, 405, 405, 405, 405, 405], "post"),
        (&machine, [404, 404, 405, 405, 405, 405, 405, 405, 405], "get,head"),
        (&updates, [200, 405, 405, 405, 405, 405, 405, 405, 405], "get"),
        ("/healthz", [200, 200, 405, 405, 405, 405, 405, 405, 405], "get,head"),
        ("/readyz", [200, 200, 405, 405, 405, 405, 405, 405, 405], "get,head"),
        ("/metrics", [200, 200, 405, 405, 405, 405, 405, 405, 405], "get,head"),
        ("/else", [404, 404, 405, 405, 405, 405, 405, 405, 405], "get,head"),
    ] {
        for (method, status) in methods.iter().zip(statuses) {
            let (raw, head) = ask(&server, method, path, &token).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method} {path}: {head}");
            let says = head.lines().find_map(|line| line.strip_prefix("allow: "));
            assert_eq!(says, (status == 405).then_some(allowed), "{method} {path}: {head}");
            let is_stream = *method == "GET" && path == updates;
            let books = (server.metric("unproven"), server.metric("connections") - 1);
            assert_eq!(books, if is_stream { (0, 1) } else { (1, 0) }, "{method} {path}");
            drop(raw);
            until("the socket is in no book", || server.metric("unproven") == 0 && server.metric("connections") == 1)
                .await;
        }
    }
}

/// However a stream ends, its socket ends with it and is used for nothing else.
#[tokio::test]
async fn the_socket_of_a_stream_ends_with_it() {
    let timings = Timings { token: Duration::from_secs(2), ..Timings::default() };
    let (server, mut client, _, id) = with_token(Config { timings, ..small(100, 50) }).await;
    for (what, parts, answers) in [
        ("a stream", &["updates"][..], 1),
        ("with a request behind it", &["updates", "health"], 1),
        ("behind another request", &["health", "updates"], 2),
        ("twice", &["updates", "updates"], 1),
        ("to a client of old", &["old"], 1),
    ] {
        // Each case ends with its token.
        let token = client.token().await;
        let part = |part: &&str| match *part {
            "health" => request("GET", "/healthz", server.address(), &token),
            "old" => request("GET", &updates(id), server.address(), &token).replace("HTTP/1.1", "HTTP/1.0"),
            _ => request("GET", &updates(id), server.address(), &token),
        };
        let sent: String = parts.iter().map(part).collect();
        let mut tcp = TcpStream::connect(server.address()).await.unwrap();
        tcp.write_all(sent.as_bytes()).await.unwrap();
        let said = rest(tcp).await;
        assert_eq!(said.matches("HTTP/1.").count(), answers, "{what}: {said}");
        assert!(said.contains("text/event-stream"), "{what}: {said}");
        assert!(said.to_ascii_lowercase().contains("connection: close") || what.contains("old"), "{what}: {said}");
        until("it is in no book", || server.metric("unproven") == 0 && server.metric("connections") == 1).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_or_resets_gives_the_place_back() {
    let (server, _client, token, id) = with_token(small(100, 50)).await;
    for half in [true, false] {
        let mut raws = Vec::new();
        for _ in 0..4 {
            let (mut raw, head) = ask(&server, "GET", &updates(id), &token).await;
            assert!(head.starts_with("http/1.1 200"), "{head}");
            if half {
                raw.tcp.shutdown().await.unwrap();
                raws.push(raw);
            }
        }
        until("the places are free", || server.metric("unproven") == 0 && server.metric("connections") == 1).await;
    }
}

/// Devices with tokens are many at an open relay; their streams leave room for devices.
#[tokio::test]
async fn streams_of_all_devices_leave_room_for_devices() {
    let server = Server::with(small(20, 50)).await;
    let mut held = Vec::new();
    let mut answers = Vec::new();
    for n in 0..3 {
        let device = Device::new(n);
        let token = server.join(&device).await.token().await;
        for _ in 0..3 {
            let (raw, head) = ask(&server, "GET", &updates(device.id()), &token).await;
            answers.push(head.get(9..12).unwrap().to_owned());
            held.push((raw, head));
        }
    }
    // A quarter of the connections.
    assert_eq!(answers, ["200", "200", "200", "200", "200", "503", "503", "503", "503"]);
    assert!(held.last().unwrap().1.contains("retry-after: "), "{}", held.last().unwrap().1);
    until("only streams are connected", || server.metric("connections") == 5).await;
    let mut devices = Vec::new();
    for n in 0..15 {
        devices.push(server.join(&Device::new(100 + n)).await);
    }
    // Now it is full: a stream that ends gives its place to another.
    held.clear();
    until("the streams have ended", || server.metric("connections") == 15).await;
}

/// A stranger that invents tokens is treated like one that invents logins.
#[tokio::test]
async fn an_address_whose_tokens_are_bad_is_not_listened_to_for_a_while() {
    let server = Server::start().await;
    let device = Device::new(1);
    let token = server.join(&device).await.token().await;
    let mut forged = token.clone();
    forged.replace_range(
        token.len() - 8..token.len() - 7,
        if token.as_bytes()[token.len() - 8] == b'A' { "B" } else { "A" },
    );
    let address = server.address();
    let path = format!("/v1/machines/{}", device.id());
    let ask = async |from: [u8; 4], token: &str, times: usize| {
        let mut tcp = tcp_from(address, from).await;
        // A socket that was closed at once takes nothing.
        let _ = tcp.write_all(request("GET", &path, address, token).repeat(times).as_bytes()).await;
        rest(tcp).await
    };
    let mut refused = 0;
    until_some("it is not listened to", async || {
        // One socket is good for one bad token, or they would come without end over those that are open.
        let said = ask(STRANGER, &forged, 3).await;
        refused += said.matches("token_invalid").count();
        assert!(said.matches("HTTP/1.1").count() <= 1, "{said}");
        said.is_empty().then_some(())
    })
    .await;
    assert!((20..60).contains(&refused), "{refused}");
    assert!(server.metric("sockets_refused_total{reason=\"failed_logins\"}") >= 1);
    let good = request("GET", &path, address, &token).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let mut tcp = tcp_from(address, OTHER).await;
    tcp.write_all(good.as_bytes()).await.unwrap();
    assert!(rest(tcp).await.starts_with("HTTP/1.1 404"), "others are listened to");
}

async fn until_some<T>(what: &str, mut some: impl AsyncFnMut() -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Some(some) = some().await {
                return some;
            }
        }
    })
    .await
}
