//! Two nodes on one bus, as they will be over Redis.

use std::sync::Arc;

use happy_relay::{Bus, Config, MemoryBus};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, ToRelay, Undelivered};

use crate::harness::{Client, Device, Server};

async fn nodes() -> (Server, Server) {
    let bus = MemoryBus::default();
    let with = |bus: MemoryBus| Server::with(Config { bus: Some(Arc::new(bus) as Arc<dyn Bus>), ..Config::default() });
    (with(bus.another()).await, with(bus).await)
}

async fn pair_across(left: &Server, right: &Server, a: &Device, b: &Device) -> (Client, Client) {
    let (mut one, mut other) = (left.join(a).await, right.join(b).await);
    one.name(&[b.id()]).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    (one, other)
}

#[tokio::test]
async fn frames_and_presence_cross_nodes() {
    let (left, right) = nodes().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair_across(&left, &right, &a, &b).await;
    one.send(b.id(), 1, b"over").await;
    other.expect_payload(a.id(), b"over").await;
    other.send(a.id(), 1, b"and back").await;
    one.expect_payload(b.id(), b"and back").await;
    drop(other);
    one.expect(FromRelay::Presence { device: b.id(), here: false }).await;
    one.send(b.id(), 2, b"gone").await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 2, reason: Undelivered::Unreachable }).await;
    left.balances().await;
    right.balances().await;
    assert_eq!((left.metric("frames_to_bus_total"), right.metric("frames_from_bus_total")), (1, 1));
}

#[tokio::test]
async fn naming_must_be_mutual_across_nodes_too() {
    let (left, right) = nodes().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = (left.join(&a).await, right.join(&b).await);
    one.name(&[b.id()]).await;
    one.send(b.id(), 7, b"x").await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 7, reason: Undelivered::Unreachable }).await;
    other.barrier().await;
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn naming_taken_back_is_told_across_nodes() {
    let (left, right) = nodes().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = pair_across(&left, &right, &a, &b).await;
    other.tell(ToRelay::Peers(vec![])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: false }).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
}

#[tokio::test]
async fn a_login_at_one_node_displaces_the_connection_at_another() {
    let (left, right) = nodes().await;
    let (mut a, b) = (Device::new(1), Device::new(2));
    let (mut old, mut peer) = pair_across(&left, &right, &a, &b).await;
    a.epoch += 1;
    // It moves to the node of its peer: what was remote is local now.
    let mut new = right.join(&a).await;
    assert_eq!(old.goaway().await.0, Code::DISPLACED);
    peer.expect(FromRelay::Presence { device: a.id(), here: false }).await;
    new.tell(ToRelay::Peers(vec![b.id()])).await;
    new.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    peer.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    peer.send(a.id(), 1, b"found you").await;
    new.expect_payload(b.id(), b"found you").await;
    assert_eq!(right.metric("frames_to_bus_total"), 0, "local delivery does not go through the bus");
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn an_older_epoch_is_refused_at_another_node() {
    let (left, right) = nodes().await;
    let mut device = Device::new(1);
    device.epoch = 7;
    let mut live = left.join(&device).await;
    device.epoch = 6;
    let mut late = right.connect().await;
    let nonce = late.challenge().await;
    late.raw(&device.login(&late.name.clone(), &nonce, None)).await;
    assert_eq!(late.goaway().await.0, Code::DISPLACED);
    live.barrier().await;
}
