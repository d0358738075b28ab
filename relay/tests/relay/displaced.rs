use futures_util::{SinkExt, StreamExt};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, ToRelay};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, Server, encode, soon};

#[tokio::test]
async fn a_displaced_connection_neither_receives_nor_injects() {
    let server = Server::start().await;
    let (mut a, b) = (Device::new(1), Device::new(2));
    let (mut old, mut peer) = server.pair(&a, &b).await;
    a.epoch += 1;
    let mut new = server.join(&a).await;
    // From here on the old one counts for nothing, although its socket is open and it has read nothing yet.
    for n in 0..50 {
        let frame = encode(&ToRelay::Send { to: b.id(), tag: n, payload: b"injected" });
        if old.socket.send(Message::Binary(frame.into())).await.is_err() {
            break;
        }
    }
    peer.expect(FromRelay::Presence { device: a.id(), here: false }).await;
    new.tell(ToRelay::Peers(vec![b.id()])).await;
    new.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    peer.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    peer.send(a.id(), 1, b"for the new one").await;
    new.expect_payload(b.id(), b"for the new one").await;
    new.send(b.id(), 1, b"from the new one").await;
    peer.expect_payload(a.id(), b"from the new one").await;

    assert_eq!(old.goaway().await.0, Code::DISPLACED);
    assert!(matches!(soon("the end", old.socket.next()).await, None | Some(Err(_))));
    assert_eq!(server.metric("displaced_total"), 1);
    assert_eq!(server.relay.connections(), 2);
    server.balances().await;
}

#[tokio::test]
async fn an_equal_epoch_displaces_too() {
    let server = Server::start().await;
    let device = Device::new(1);
    let mut old = server.join(&device).await;
    let mut new = server.join(&device).await;
    assert_eq!(old.goaway().await.0, Code::DISPLACED);
    new.barrier().await;
}

/// What waited for the older connection is not written to it any more, even when its socket opens again.
#[tokio::test]
async fn what_was_queued_for_a_displaced_connection_is_dropped_and_counted() {
    let server = Server::start().await;
    let (mut a, b) = (Device::new(1), Device::new(2));
    let mut stuck = Client::dial_narrow(server.address()).await;
    stuck.log_in(&a, None).await;
    stuck.name(&[b.id()]).await;
    let mut peer = server.join(&b).await;
    peer.tell(ToRelay::Peers(vec![a.id()])).await;
    peer.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    // Until it is full; then some of it certainly waits in the queue.
    let mut tag = 0;
    loop {
        peer.send(a.id(), tag, &[1; 60_000]).await;
        peer.tell(ToRelay::Ping(u64::from(tag))).await;
        let frame = peer.frame().await;
        if matches!(FromRelay::decode(&frame), Ok(FromRelay::Undeliverable { .. })) {
            break;
        }
        tag += 1;
        assert!(tag < 500, "the queue has no bound");
    }
    a.epoch += 1;
    let _new = server.join(&a).await;
    assert!(server.metric("frames_dropped_total{reason=\"receiver_ended\"}") >= 1);
    drop(stuck);
    server.balances().await;
}
