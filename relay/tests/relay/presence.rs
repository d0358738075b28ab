use happy_wire::relay::{FromRelay, ToRelay};

use crate::harness::{Device, Server};

#[tokio::test]
async fn presence_is_mutual() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = (server.join(&a).await, server.join(&b).await);
    one.name(&[b.id()]).await;
    other.barrier().await;
    one.barrier().await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    drop(other);
    one.expect(FromRelay::Presence { device: b.id(), here: false }).await;
}

#[tokio::test]
async fn presence_is_told_once() {
    let server = Server::start().await;
    let (a, b, c) = (Device::new(1), Device::new(2), Device::new(3));
    let (mut one, mut other) = server.pair(&a, &b).await;
    // The list grows and is repeated; nothing about `b` has changed.
    one.name(&[b.id(), c.id()]).await;
    one.name(&[c.id(), b.id(), b.id()]).await;
    other.barrier().await;
    one.barrier().await;
}

#[tokio::test]
async fn who_is_not_named_back_learns_nothing() {
    let server = Server::start().await;
    let (a, b, spy) = (Device::new(1), Device::new(2), Device::new(3));
    let mut watching = server.join(&spy).await;
    watching.name(&[a.id(), b.id()]).await;
    let (one, _other) = server.pair(&a, &b).await;
    watching.barrier().await;
    drop(one);
    watching.barrier().await;
}

#[tokio::test]
async fn a_device_that_comes_back_is_told_and_tells() {
    let server = Server::start().await;
    let (a, mut b) = (Device::new(1), Device::new(2));
    let (mut one, other) = server.pair(&a, &b).await;
    drop(other);
    one.expect(FromRelay::Presence { device: b.id(), here: false }).await;
    b.epoch += 1;
    let mut other = server.join(&b).await;
    one.barrier().await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
}
