use std::time::Duration;

use happy_relay::{Config, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, MAX_FRAME, MAX_PAYLOAD, QUEUE_BYTES, ToRelay};
use tokio::net::TcpStream;

use crate::harness::{Client, Device, Server, encode, http, request};

#[tokio::test]
async fn a_signed_login_is_welcomed() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    client.raw(&Device::new(1).login(&client.name.clone(), &nonce, None)).await;
    let (max_payload, queue_bytes) = (MAX_PAYLOAD as u32, QUEUE_BYTES as u32);
    client.expect(FromRelay::Welcome { max_payload, queue_bytes, host: None }).await;
    assert_eq!(server.metric("logins_total{result=\"accepted\"}"), 1);
    assert_eq!(server.relay.connections(), 1);
}

#[tokio::test]
async fn every_challenge_is_another() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.connect().await, server.connect().await);
    assert_ne!(one.challenge().await, other.challenge().await);
}

#[tokio::test]
async fn a_signature_of_another_device_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    let mut login = Device::new(1).login(&client.name, &nonce, None);
    login[2..34].copy_from_slice(Device::new(2).id().as_bytes());
    client.raw(&login).await;
    assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED);
    assert_eq!(server.metric("logins_total{result=\"bad_signature\"}"), 1);
    assert_eq!(server.relay.connections(), 0);
}

#[tokio::test]
async fn every_flipped_field_of_a_login_is_refused() {
    let server = Server::start().await;
    // Device, epoch, client nonce, signature: one byte of each.
    for place in [2, 34, 42, 60] {
        let mut client = server.connect().await;
        let nonce = client.challenge().await;
        let mut login = Device::new(1).login(&client.name, &nonce, None);
        login[place] ^= 1;
        client.raw(&login).await;
        assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED, "byte {place}");
    }
}

#[tokio::test]
async fn a_login_for_another_relay_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    client.raw(&Device::new(1).login("relay.example", &nonce, None)).await;
    assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED);
}

#[tokio::test]
async fn a_relay_with_names_does_not_believe_the_host_header() {
    let names = vec!["relay.example".into(), "10.1.2.3:8443".into()];
    let server = Server::with(Config { names, ..Config::default() }).await;
    for (dialled, welcome) in [("relay.example", true), ("10.1.2.3:8443", true), ("evil.example", false)] {
        let mut client = Client::dial(server.address(), dialled).await;
        let nonce = client.challenge().await;
        client.raw(&Device::new(1).login(dialled, &nonce, None)).await;
        if welcome {
            assert!(matches!(FromRelay::decode(&client.frame().await), Ok(FromRelay::Welcome { .. })), "{dialled}");
        } else {
            assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED, "{dialled}");
        }
    }
}

#[tokio::test]
async fn names_that_are_set_later_count_from_then_on() {
    let server = Server::start().await;
    let own = server.address().to_string();
    server.relay.set_names(vec![own.clone()]).unwrap();
    assert!(server.relay.set_names(vec!["not a name".into()]).is_err());
    assert!(server.relay.set_names(vec![own.clone(); 17]).is_err());
    // What a relay in the middle passes on: signed for its name, under a Host header of its choice.
    for (host, signed, welcome) in [
        (own.as_str(), own.as_str(), true),
        ("evil.example", own.as_str(), true),
        ("evil.example", "evil.example", false),
        (own.as_str(), "evil.example", false),
    ] {
        let mut client = Client::dial(server.address(), host).await;
        let nonce = client.challenge().await;
        client.raw(&Device::new(1).login(signed, &nonce, None)).await;
        if welcome {
            assert!(
                matches!(FromRelay::decode(&client.frame().await), Ok(FromRelay::Welcome { .. })),
                "{host} {signed}"
            );
        } else {
            assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED, "{host} {signed}");
        }
    }
}

#[tokio::test]
async fn a_login_that_was_heard_before_is_refused() {
    let server = Server::start().await;
    let mut first = server.connect().await;
    let nonce = first.challenge().await;
    let login = Device::new(1).login(&first.name, &nonce, None);
    first.raw(&login).await;
    assert!(matches!(FromRelay::decode(&first.frame().await), Ok(FromRelay::Welcome { .. })));

    let mut second = server.connect().await;
    second.challenge().await;
    second.raw(&login).await;
    assert_eq!(second.goaway().await.0, Code::LOGIN_REFUSED);
    first.barrier().await;
}

#[tokio::test]
async fn a_login_must_come_in_time() {
    let timings = Timings { login: Duration::from_millis(100), ..Timings::default() };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let mut client = server.connect().await;
    client.challenge().await;
    // Not refused: the device comes back soon, and a guest comes back at all.
    assert_eq!(client.goaway().await.0, Code::SILENT);
    assert_eq!(server.metric("logins_total{result=\"late\"}"), 1);
}

#[tokio::test]
async fn what_is_not_a_login_is_refused() {
    let server = Server::start().await;
    let nonsense: [(&[u8], Code); 4] = [
        (&encode(&ToRelay::Ping(1)), Code::MALFORMED),
        (&[], Code::MALFORMED),
        (&[0x01, 2], Code::MALFORMED),
        (&[0x01; MAX_FRAME + 1], Code::TOO_LARGE),
    ];
    for (frame, code) in nonsense {
        let mut client = server.connect().await;
        client.challenge().await;
        client.raw(frame).await;
        assert_eq!(client.goaway().await.0, code);
    }
    assert_eq!(server.relay.connections(), 0);
}

#[tokio::test]
async fn an_older_epoch_is_refused_and_the_live_connection_stays() {
    let server = Server::start().await;
    let mut device = Device::new(1);
    device.epoch = 5;
    let mut live = server.join(&device).await;
    device.epoch = 4;
    let mut late = server.connect().await;
    let nonce = late.challenge().await;
    late.raw(&device.login(&late.name.clone(), &nonce, None)).await;
    assert_eq!(late.goaway().await.0, Code::DISPLACED);
    live.barrier().await;
}

#[tokio::test]
async fn a_full_relay_names_a_time_and_still_takes_back_its_own() {
    let server = Server::with(Config { max_connections: 1, ..Config::default() }).await;
    let (mut inside, mut outside) = (Device::new(1), Device::new(2));
    let mut first = server.join(&inside).await;
    let mut refused = server.connect().await;
    let nonce = refused.challenge().await;
    outside.epoch = 9;
    refused.raw(&outside.login(&refused.name.clone(), &nonce, None)).await;
    let (code, retry) = refused.goaway().await;
    assert_eq!(code, Code::RESTARTING);
    assert!(retry > 0);

    inside.epoch = 2;
    let _again = server.join(&inside).await;
    assert_eq!(first.goaway().await.0, Code::DISPLACED);
}

#[tokio::test]
async fn an_upgrade_that_misses_something_is_told_what() {
    let server = Server::start().await;
    let upgrade = |version: &str, protocol: &str, more: &str| {
        format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: {version}\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n{more}\r\n",
            server.address()
        )
    };
    let plain = format!("GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address());
    for (request, status, code) in [
        (plain, "426", "websocket_only"),
        (upgrade("8", "happy-relay.v1", ""), "400", "websocket_version"),
        (upgrade("13", "chat", ""), "400", "subprotocol"),
        (upgrade("13", "happy-relay.v1", "Origin: https://evil.example\r\n"), "403", "origin"),
        (upgrade("13", "happy-relay.v1", "Origin: null\r\n"), "403", "origin"),
    ] {
        let answer = http(server.address(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    assert_eq!(server.metric("upgrades_refused_total{reason=\"origin\"}"), 2);
    assert_eq!(server.metric("upgrades_refused_total{reason=\"websocket_only\"}"), 1);
}

#[tokio::test]
async fn pages_of_the_relay_itself_and_of_named_origins_may_connect() {
    let origins = vec!["https://app.example".into()];
    let server = Server::with(Config { origins, ..Config::default() }).await;
    for origin in [format!("http://{}", server.address()), "https://App.example:443".into()] {
        let tcp = TcpStream::connect(server.address()).await.unwrap();
        let asked = request(&server.address().to_string()).with_header("Origin", origin);
        tokio_tungstenite::client_async(asked, tcp).await.unwrap();
    }
}
