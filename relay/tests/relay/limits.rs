//! The limits on strangers, on logins and on what one device sends.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use happy_relay::Config;
use happy_wire::Code;
use happy_wire::relay::{FromRelay, ToRelay, Undelivered};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, Server, encode, soon, tcp_from};

/// Addresses of this machine that are not those of a proxy.
const STRANGER: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 3];

/// The kernel may report a close as an end or as a reset.
async fn is_closed(tcp: &mut TcpStream) {
    assert!(matches!(soon("the close", tcp.read(&mut [0; 1])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_silent_socket_makes_room_once_it_had_its_chance_and_devices_are_not_counted() {
    let server = Server::with(Config { max_unproven: 2, ..Config::default() }).await;
    let (mut one, _two) = (server.join(&Device::new(1)).await, server.join(&Device::new(2)).await);
    let begun = Instant::now();
    let mut silent = TcpStream::connect(server.address()).await.unwrap();
    let mut late = server.connect().await;
    let _three = server.join(&Device::new(3)).await;
    assert!(begun.elapsed() > Duration::from_millis(900), "the newcomer waited");
    is_closed(&mut silent).await;
    // The other one stayed: there was room again.
    late.log_in(&Device::new(4), None).await;
    one.barrier().await;
    assert_eq!(server.metric("sockets_refused_total{reason=\"made_room\"}"), 1);
    assert_eq!(server.metric("unproven"), 0);
}

#[tokio::test]
async fn a_websocket_without_a_login_makes_room_for_an_address_that_holds_less() {
    let server = Server::with(Config { max_unproven: 2, ..Config::default() }).await;
    let mut first = Client::dial_from(server.address(), STRANGER).await;
    first.challenge().await;
    let _second = tcp_from(server.address(), STRANGER).await;
    let begun = Instant::now();
    let mut honest = Client::dial_from(server.address(), OTHER).await;
    honest.log_in(&Device::new(1), None).await;
    assert!(begun.elapsed() < Duration::from_millis(900), "it need not wait");
    assert!(matches!(soon("the end", first.socket.next()).await, None | Some(Err(_))));
}

#[tokio::test]
async fn an_address_has_no_more_than_its_share() {
    let server = Server::with(Config { max_unproven_per_address: 2, ..Config::default() }).await;
    let mut strangers = Vec::new();
    for _ in 0..2 {
        strangers.push(tcp_from(server.address(), STRANGER).await);
    }
    // The relay accepts in order, so this answer means that it has seen both.
    let mut other = Client::dial_from(server.address(), OTHER).await;
    is_closed(&mut tcp_from(server.address(), STRANGER).await).await;
    assert_eq!(server.metric("sockets_refused_total{reason=\"address_limit\"}"), 1);
    other.log_in(&Device::new(1), None).await;
}

#[tokio::test]
async fn an_address_whose_logins_fail_is_not_listened_to() {
    let server = Server::start().await;
    // Far more than may fail, so that it takes long to be listened to again.
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = Client::dial_from(server.address(), STRANGER).await;
        client.challenge().await;
        clients.push(client);
    }
    for client in &mut clients {
        client.raw(&Device::new(1).login("elsewhere", &[0; 32], None)).await;
        assert_eq!(client.goaway().await.0, Code::LOGIN_REFUSED);
    }
    is_closed(&mut tcp_from(server.address(), STRANGER).await).await;
    assert_eq!(server.metric("sockets_refused_total{reason=\"failed_logins\"}"), 1);
    let mut other = Client::dial_from(server.address(), OTHER).await;
    other.log_in(&Device::new(1), None).await;
}

#[tokio::test]
async fn those_who_come_when_too_many_come_are_told_times_of_their_own() {
    let server = Server::with(Config { max_logins: 1, ..Config::default() }).await;
    let (mut times, mut sent_away) = (HashSet::new(), 0);
    for n in 0..30 {
        let mut client = server.connect().await;
        let nonce = client.challenge().await;
        client.raw(&Device::new(n).login(&client.name.clone(), &nonce, None)).await;
        let frame = client.frame().await;
        match FromRelay::decode(&frame) {
            // Those who came first, and on a busy machine a few for whom there was time again.
            Ok(FromRelay::Welcome { .. }) => {}
            Ok(FromRelay::Goaway { code: Code::RESTARTING, retry_after_ms, .. }) => {
                assert!((500..240_000).contains(&retry_after_ms));
                times.insert(retry_after_ms);
                sent_away += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(times.len() >= 5, "{times:?}");
    assert_eq!(server.metric("logins_total{result=\"crowded\"}"), sent_away);
}

#[tokio::test]
async fn who_sends_more_than_it_may_waits_and_loses_nothing() {
    const RATE: u32 = 1024 * 1024;
    const FRAMES: u32 = 300;
    let server = Server::with(Config { max_rate: RATE, ..Config::default() }).await;
    let away = Device::new(2).id();
    let client = server.join(&Device::new(1)).await;
    let mut quick = server.join(&Device::new(3)).await;
    let (mut write, mut read) = client.socket.split();
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        for tag in 0..FRAMES {
            let frame = encode(&ToRelay::Send { to: away, tag, payload: &[1; 10_000] });
            write.send(Message::Binary(frame.into())).await.unwrap();
        }
    });
    for tag in 0..FRAMES {
        let Some(Ok(Message::Binary(frame))) = soon("an answer", read.next()).await else { panic!("closed at {tag}") };
        let reason = Undelivered::NotNamed;
        assert_eq!(FromRelay::decode(&frame), Ok(FromRelay::Undeliverable { to: away, tag, reason }));
        if tag == FRAMES / 2 {
            quick.barrier().await;
        }
    }
    sending.await.unwrap();
    // Three megabytes, of which one is free.
    assert!(begun.elapsed() > Duration::from_millis(1_700), "{:?}", begun.elapsed());
    assert!(server.metric("paced_total") > 0);
    server.balances().await;
}
