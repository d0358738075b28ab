//! Nodes that pass frames to each other directly (`PROTOCOL 15`), with Redis beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use happy_relay::{Bus, Config, Direct, DirectError, RedisBus};
use happy_wire::relay::{FromRelay, Undelivered};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;

use crate::harness::{Client, Device, Server, soon, until};
use crate::redis::{Servers, arrives, pair, presence};

const SECRET: &[u8] = b"known to all nodes of this relay";

struct Node {
    server: Server,
    bus: Arc<RedisBus>,
    address: String,
}

async fn node_with(redis: &Servers, secret: &[u8]) -> Node {
    node_of(redis, Direct::listen("127.0.0.1:0".parse().unwrap(), None, secret).await.unwrap()).await
}

async fn node_of(redis: &Servers, direct: Direct) -> Node {
    let address = direct.address().to_owned();
    let bus = Arc::new(RedisBus::start_with(&redis.url(), Some(direct)).unwrap());
    assert!(bus.connected(Duration::from_secs(10)).await, "Redis is reached");
    let server = Server::with(Config { bus: Some(bus.clone() as Arc<dyn Bus>), ..Config::default() }).await;
    Node { server, bus, address }
}

async fn node(redis: &Servers) -> Node {
    node_with(redis, SECRET).await
}

impl Node {
    fn direct(&self) -> u64 {
        self.bus.stats().unwrap().direct.load(Relaxed)
    }

    fn published(&self) -> u64 {
        self.bus.stats().unwrap().published.load(Relaxed)
    }
}

/// Until frames of `left` take the direct way; the first ones go through Redis.
async fn until_direct(left: &Node, one: (&mut Client, &Device), other: (&mut Client, &Device)) {
    arrives((&mut *one.0, one.1), (&mut *other.0, other.1), b"first").await;
    until("the direct way is up", || left.direct() > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_take_the_direct_way_and_cost_redis_nothing() {
    let redis = Servers::one().await;
    let (left, right) = (node(&redis).await, node(&redis).await);
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair(&left.server, &right.server, &a, &b).await;
    until_direct(&left, (&mut one, &a), (&mut other, &b)).await;
    let published = left.published();
    for n in 0..500_u32 {
        one.send(b.id(), n, &n.to_be_bytes()).await;
        other.expect_payload(a.id(), &n.to_be_bytes()).await;
    }
    assert_eq!(left.published(), published, "nothing but Pings to itself, which are not counted");
    // One is counted when it has been written, and may have arrived before.
    until("all are counted", || left.bus.stats().unwrap().direct_batches.load(Relaxed) >= 500).await;
    left.server.balances().await;
    right.server.balances().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_is_told_and_another_takes_its_place() {
    let redis = Servers::one().await;
    let (left, right) = (node(&redis).await, node(&redis).await);
    let (a, mut b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair(&left.server, &right.server, &a, &b).await;
    until_direct(&left, (&mut one, &a), (&mut other, &b)).await;
    right.server.relay.shutdown(Duration::from_secs(1)).await;
    drop((right, other));
    until("the direct way is down", || left.direct() == 0).await;
    presence(&mut one, &b, false).await;
    let third = node(&redis).await;
    b.epoch = 2;
    let mut other = third.server.join(&b).await;
    other.tell(happy_wire::relay::ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, &b, true).await;
    presence(&mut other, &a, true).await;
    arrives((&mut one, &a), (&mut other, &b), b"again").await;
    left.server.balances().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_different_secrets_use_redis() {
    let redis = Servers::one().await;
    let (left, right) = (node(&redis).await, node_with(&redis, b"another secret of nodes").await);
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair(&left.server, &right.server, &a, &b).await;
    for _ in 0..20 {
        arrives((&mut one, &a), (&mut other, &b), b"through redis").await;
    }
    assert_eq!((left.direct(), right.direct()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_direct_ways_are_not_used_and_come_back_with_it() {
    let mut redis = Servers::one().await;
    let (left, right) = (node(&redis).await, node(&redis).await);
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair(&left.server, &right.server, &a, &b).await;
    until_direct(&left, (&mut one, &a), (&mut other, &b)).await;
    redis.kill();
    presence(&mut one, &b, false).await;
    presence(&mut other, &a, false).await;
    redis.start().await;
    presence(&mut one, &b, true).await;
    presence(&mut other, &a, true).await;
    arrives((&mut one, &a), (&mut other, &b), b"back").await;
}

/// A way to a port that keeps little, and stands still when it is told to.
async fn way_to(port: SocketAddr, stand_still: Arc<Notify>) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let stand_still = stand_still.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(port).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = stand_still.notified() => std::future::pending().await,
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_direct_way_has_not_sent_when_it_ends_beside_a_dead_redis_is_told_to_its_sender() {
    let mut redis = Servers::one().await;
    let stand_still = Arc::new(Notify::new());
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let way = way_to(port, stand_still.clone()).await.to_string();
    let (left, right) =
        (node(&redis).await, node_of(&redis, Direct::listen(port, Some(&way), SECRET).await.unwrap()).await);
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair(&left.server, &right.server, &a, &b).await;
    until_direct(&left, (&mut one, &a), (&mut other, &b)).await;
    stand_still.notify_waiters();
    // What the way has not sent when it ends finds no other way, however long it takes until Redis is known to be dead.
    redis.signal("STOP");
    // More than the kernel keeps. It may keep so little that not all of the rest finds room to wait, which is told at once.
    for tag in 0..120 {
        one.send(b.id(), tag, &[1; 60_000]).await;
    }
    redis.kill();
    let (mut gone, mut told) = (false, false);
    while !(gone && told) {
        let frame = one.frame().await;
        match FromRelay::decode(&frame) {
            Ok(FromRelay::Undeliverable { reason: Undelivered::Unreachable, .. }) => told = true,
            Ok(FromRelay::Undeliverable { reason: Undelivered::QueueFull, .. }) => {}
            Ok(FromRelay::Presence { device, here: false }) if device == b.id() => gone = true,
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever can reach the port of the nodes.
struct Stranger {
    tcp: TcpStream,
    challenge: [u8; 32],
}

impl Stranger {
    async fn dial(node: &Node) -> Self {
        let mut tcp = TcpStream::connect(&node.address).await.unwrap();
        let mut challenge = [0; 32];
        soon("a challenge", tcp.read_exact(&mut challenge)).await.unwrap();
        Self { tcp, challenge }
    }

    fn greeting(&self, secret: &[u8], from: [u8; 8], to: [u8; 8]) -> Vec<u8> {
        let nonce = [3; 32];
        let mut proof = Hmac::<Sha256>::new_from_slice(secret).unwrap();
        for part in [&b"happy/1 relay node"[..], &self.challenge, &nonce, &from, &to] {
            proof.update(part);
        }
        [&[1][..], &from, &to, &nonce, &proof.finalize().into_bytes()].concat()
    }

    /// It was closed without an answer, or after `answer` bytes.
    async fn closes_after(mut self, answer: usize, what: &str) {
        let mut rest = Vec::new();
        let _ = soon(what, self.tcp.read_to_end(&mut rest)).await;
        assert_eq!(rest.len(), answer, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_the_port_of_nodes_gets_nowhere() {
    let redis = Servers::one().await;
    let node = node(&redis).await;
    let id = u64::from_str_radix(&node.bus.node(), 16).unwrap().to_be_bytes();
    let other = [9; 8];

    for (what, secret, to) in [("a wrong secret", &b"not the secret of these"[..], id), ("another node", SECRET, other)]
    {
        let mut stranger = Stranger::dial(&node).await;
        let greeting = stranger.greeting(secret, other, to);
        stranger.tcp.write_all(&greeting).await.unwrap();
        stranger.closes_after(0, what).await;
    }
    // A greeting that was overheard is worth nothing at the next challenge.
    let overheard = Stranger::dial(&node).await.greeting(SECRET, other, id);
    let mut stranger = Stranger::dial(&node).await;
    stranger.tcp.write_all(&overheard).await.unwrap();
    stranger.closes_after(0, "a replayed greeting").await;
    Stranger::dial(&node).await.closes_after(0, "silence").await;

    for (what, bytes) in [
        ("a batch of 4 GiB", vec![0xff; 4]),
        ("a batch without a head", vec![0, 0, 0, 3, 1, 1, 1]),
        ("a batch in another's name", [&[0, 0, 0, 17, 1][..], &[8; 8], &[0; 8]].concat()),
        ("a batch of another version", [&[0, 0, 0, 17, 7][..], &other, &[0; 8]].concat()),
    ] {
        let mut stranger = Stranger::dial(&node).await;
        let greeting = stranger.greeting(SECRET, other, id);
        stranger.tcp.write_all(&greeting).await.unwrap();
        stranger.tcp.write_all(&bytes).await.unwrap();
        stranger.closes_after(32, what).await;
    }
}

#[tokio::test]
async fn a_weak_secret_and_an_address_that_is_none_are_refused() {
    let address = "127.0.0.1:0".parse().unwrap();
    assert!(matches!(Direct::listen(address, None, b"short").await, Err(DirectError::Secret)));
    for bad in ["", "host", "host:0", "host:http", &"x".repeat(300)] {
        assert!(matches!(Direct::listen(address, Some(bad), SECRET).await, Err(DirectError::Address(_))), "{bad}");
    }
}
