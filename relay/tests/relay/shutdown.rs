use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use happy_crypto::DeviceId;
use happy_relay::{Config, Tap};
use happy_wire::Code;
use tokio::net::TcpStream;

use crate::harness::{Device, Server, get, soon};

#[tokio::test]
async fn everybody_is_told_to_come_back_at_a_time_of_its_own() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for n in 0..8 {
        clients.push(server.join(&Device::new(n)).await);
    }
    let relay = server.relay.clone();
    let stopping = tokio::spawn(async move { relay.shutdown(Duration::from_secs(10)).await });
    let mut times = HashSet::new();
    for client in &mut clients {
        let (code, retry) = client.goaway().await;
        assert_eq!(code, Code::RESTARTING);
        assert!(retry > 0);
        times.insert(retry);
    }
    assert_eq!(times.len(), clients.len(), "{times:?}");
    drop(clients);
    soon("the shutdown", stopping).await.unwrap();
    assert_eq!(server.relay.connections(), 0);
    assert!(TcpStream::connect(server.address()).await.is_err(), "it still listens");
}

#[tokio::test]
async fn what_was_accepted_is_delivered_before_the_goaway() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    for n in 0..20_u32 {
        one.send(b.id(), n, &[n as u8; 5_000]).await;
    }
    one.barrier().await;
    let relay = server.relay.clone();
    let stopping = tokio::spawn(async move { relay.shutdown(Duration::from_secs(10)).await });
    for n in 0..20_u32 {
        other.expect_payload(a.id(), &[n as u8; 5_000]).await;
    }
    assert_eq!(other.goaway().await.0, Code::RESTARTING);
    assert_eq!(one.goaway().await.0, Code::RESTARTING);
    drop((one, other));
    soon("the shutdown", stopping).await.unwrap();
    server.balances().await;
    assert_eq!(server.metric("frames_delivered_total"), 20);
}

#[tokio::test]
async fn a_login_under_way_is_told_too() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.challenge().await;
    let relay = server.relay.clone();
    let stopping = tokio::spawn(async move { relay.shutdown(Duration::from_secs(10)).await });
    assert_eq!(client.goaway().await.0, Code::RESTARTING);
    drop(client);
    soon("the shutdown", stopping).await.unwrap();
}

/// Which way, whose, and what.
type Heard = (&'static str, Option<DeviceId>, Vec<u8>);

#[derive(Default)]
struct Ear(Mutex<Vec<Heard>>);

impl Tap for Ear {
    fn received(&self, from: Option<DeviceId>, frame: &[u8]) {
        self.0.lock().unwrap().push(("in", from, frame.to_vec()));
    }

    fn sent(&self, to: Option<DeviceId>, frame: &[u8]) {
        self.0.lock().unwrap().push(("out", to, frame.to_vec()));
    }
}

#[tokio::test]
async fn a_tap_hears_every_frame() {
    let ear = Arc::new(Ear::default());
    let server = Server::with(Config { tap: Some(ear.clone()), ..Config::default() }).await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    one.send(b.id(), 1, b"canary").await;
    other.expect_payload(a.id(), b"canary").await;
    let heard = ear.0.lock().unwrap();
    let with_canary: Vec<_> =
        heard.iter().filter(|(_, _, frame)| frame.ends_with(b"canary")).map(|(way, who, _)| (*way, *who)).collect();
    assert_eq!(with_canary, [("in", Some(a.id())), ("out", Some(b.id()))]);
    let kinds: HashSet<_> = heard.iter().map(|(way, _, frame)| (*way, frame[0])).collect();
    for kind in [("out", 0x81), ("in", 0x01), ("out", 0x82), ("in", 0x03), ("out", 0x85)] {
        assert!(kinds.contains(&kind), "{kind:?}");
    }
}

#[tokio::test]
async fn health_says_so() {
    let server = Server::start().await;
    assert!(get(server.address(), "/healthz", "").await.starts_with("HTTP/1.1 200"));
}
