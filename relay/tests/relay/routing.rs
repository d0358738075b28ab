use happy_wire::relay::{FromRelay, MAX_PAYLOAD, ToRelay, Undelivered};

use crate::harness::{Device, Server};

#[tokio::test]
async fn a_frame_passes_between_devices_that_named_each_other() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    one.send(b.id(), 1, b"there").await;
    other.expect_payload(a.id(), b"there").await;
    other.send(a.id(), 1, b"and back").await;
    one.expect_payload(b.id(), b"and back").await;
    one.send(b.id(), 2, &vec![7; MAX_PAYLOAD]).await;
    other.expect_payload(a.id(), &vec![7; MAX_PAYLOAD]).await;
    one.send(b.id(), 3, b"").await;
    other.expect_payload(a.id(), b"").await;
    server.balances().await;
    assert_eq!(server.metric("frames_delivered_total"), 4);
    assert_eq!(server.metric("bytes_delivered_total"), 5 + 8 + MAX_PAYLOAD as u64);
}

#[tokio::test]
async fn frames_of_one_sender_stay_in_order() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    for n in 0..500_u32 {
        one.send(b.id(), n, &n.to_be_bytes()).await;
    }
    for n in 0..500_u32 {
        other.expect_payload(a.id(), &n.to_be_bytes()).await;
    }
    server.balances().await;
}

#[tokio::test]
async fn a_sender_must_name_its_receiver() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = (server.join(&a).await, server.join(&b).await);
    other.name(&[a.id()]).await;
    one.send(b.id(), 5, b"x").await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 5, reason: Undelivered::NotNamed }).await;
    // A device that exists nowhere is answered the same.
    one.send(Device::new(9).id(), 6, b"x").await;
    one.expect(FromRelay::Undeliverable { to: Device::new(9).id(), tag: 6, reason: Undelivered::NotNamed }).await;
    other.barrier().await;
    server.balances().await;
    assert_eq!(server.metric("frames_dropped_total{reason=\"not_named\"}"), 2);
}

#[tokio::test]
async fn away_and_unwilling_are_not_told_apart() {
    let server = Server::start().await;
    let (a, away, unwilling) = (Device::new(1), Device::new(2), Device::new(3));
    let (mut one, mut other) = (server.join(&a).await, server.join(&unwilling).await);
    one.name(&[away.id(), unwilling.id()]).await;
    for to in [away.id(), unwilling.id()] {
        one.send(to, 8, b"x").await;
        one.expect(FromRelay::Undeliverable { to, tag: 8, reason: Undelivered::Unreachable }).await;
    }
    other.barrier().await;
    server.balances().await;
}

#[tokio::test]
async fn naming_can_be_taken_back() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    other.tell(ToRelay::Peers(vec![])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: false }).await;
    one.send(b.id(), 1, b"x").await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 1, reason: Undelivered::Unreachable }).await;
    other.send(a.id(), 2, b"x").await;
    other.expect(FromRelay::Undeliverable { to: a.id(), tag: 2, reason: Undelivered::NotNamed }).await;
    server.balances().await;
}

#[tokio::test]
async fn a_payload_too_large_is_told_and_harms_nothing() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    one.send(b.id(), 3, &vec![0; MAX_PAYLOAD + 1]).await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 3, reason: Undelivered::TooLarge }).await;
    one.send(b.id(), 4, b"small").await;
    other.expect_payload(a.id(), b"small").await;
    server.balances().await;
}

#[tokio::test]
async fn nobody_is_a_peer_of_itself() {
    let server = Server::start().await;
    let a = Device::new(1);
    let mut one = server.join(&a).await;
    one.name(&[a.id()]).await;
    one.send(a.id(), 1, b"echo").await;
    one.expect(FromRelay::Undeliverable { to: a.id(), tag: 1, reason: Undelivered::NotNamed }).await;
    server.balances().await;
}

#[tokio::test]
async fn an_id_that_is_no_key_is_just_nobody() {
    let server = Server::start().await;
    let mut one = server.join(&Device::new(1)).await;
    let nobody = happy_crypto::DeviceId::from_bytes([0xff; 32]);
    one.name(&[nobody]).await;
    one.send(nobody, 1, b"x").await;
    one.expect(FromRelay::Undeliverable { to: nobody, tag: 1, reason: Undelivered::Unreachable }).await;
    server.balances().await;
}
