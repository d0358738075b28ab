//! Guests whose hosts are connected to another node (`PROTOCOL 15`, Guests between nodes).

use std::sync::Arc;
use std::time::Duration;

use happy_relay::{Bus, Config, MemoryBus, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, RendezvousState, ToRelay, Undelivered};

use crate::harness::{Client, Device, Server, until};
use crate::redis::device;
use crate::rendezvous::{TICKET, guest, hash, open, refused};

async fn nodes(timings: Timings) -> (Server, Server) {
    let bus = MemoryBus::default();
    let with = |bus: MemoryBus| {
        Server::with(Config { bus: Some(Arc::new(bus) as Arc<dyn Bus>), timings, ..Config::default() })
    };
    (with(bus.another()).await, with(bus).await)
}

/// A machine at one node with an open invitation.
async fn host(node: &Server, machine: &Device) -> Client {
    let mut host = node.join(machine).await;
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
    host
}

/// What every guest at another node meets, over whichever bus.
pub async fn a_ticket_leads_to_another_node(left: &Server, right: &Server) {
    let (machine, phone) = (device(), device());
    let mut host = host(left, &machine).await;
    let mut client = right.connect().await;
    assert_eq!(client.log_in(&phone, Some(TICKET)).await, Some(machine.id()));
    for word in [&b"may I"[..], b"again", &[7; 30_000]] {
        client.send(machine.id(), 1, word).await;
        host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: word }).await;
        host.send(phone.id(), 1, word).await;
        client.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: word }).await;
    }
    assert_eq!(refused(right, &device(), [9; 32]).await, Code::LOGIN_REFUSED);
    host.tell(ToRelay::CloseRendezvous { ticket_hash: hash(TICKET) }).await;
    host.expect(FromRelay::Rendezvous { ticket_hash: hash(TICKET), state: RendezvousState::Ended }).await;
    assert_eq!(refused(right, &device(), TICKET).await, Code::LOGIN_REFUSED);
    // Who is in stays until the host leaves.
    client.send(machine.id(), 2, b"still here").await;
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"still here" }).await;
    drop(host);
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn a_ticket_leads_to_the_node_of_its_host_and_back() {
    let (left, right) = nodes(Timings::default()).await;
    a_ticket_leads_to_another_node(&left, &right).await;
    assert_eq!((left.metric("guests_total"), right.metric("guests_total")), (0, 1));
}

#[tokio::test]
async fn a_guest_from_another_node_reaches_its_host_and_nobody_else() {
    let (left, right) = nodes(Timings::default()).await;
    let (machine, phone, other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut host = host(&left, &machine).await;
    let mut third = left.join(&other).await;
    third.name(&[phone.id()]).await;
    let mut client = guest(&right, &phone, TICKET).await;
    client.send(other.id(), 4, b"x").await;
    client.expect(FromRelay::Undeliverable { to: other.id(), tag: 4, reason: Undelivered::NotPermitted }).await;
    third.send(phone.id(), 5, b"x").await;
    third.expect(FromRelay::Undeliverable { to: phone.id(), tag: 5, reason: Undelivered::Unreachable }).await;
    host.barrier().await;
    client.tell(ToRelay::Peers(vec![machine.id()])).await;
    assert_eq!(client.goaway().await.0, Code::NOT_PERMITTED);
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn guests_of_all_nodes_count_together_and_a_newer_one_takes_its_own_place() {
    let (left, right) = nodes(Timings::default()).await;
    let mut host = host(&left, &Device::new(1)).await;
    let mut first = guest(&left, &Device::new(2), TICKET).await;
    let mut second = guest(&right, &Device::new(3), TICKET).await;
    let third = guest(&right, &Device::new(4), TICKET).await;
    let _fourth = guest(&left, &Device::new(5), TICKET).await;
    assert_eq!(refused(&right, &Device::new(6), TICKET).await, Code::TOO_MANY);
    // Each comes again at the other node.
    let _again = guest(&right, &Device::new(2), TICKET).await;
    assert_eq!(first.goaway().await.0, Code::DISPLACED);
    let _again = guest(&left, &Device::new(3), TICKET).await;
    assert_eq!(second.goaway().await.0, Code::DISPLACED);
    drop(third);
    until("the place of the one that left is free", || right.relay.connections() == 1).await;
    host.barrier().await;
    let mut sixth = guest(&right, &Device::new(6), TICKET).await;
    sixth.barrier().await;
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn a_host_hears_that_its_guest_has_left_the_other_node() {
    let timings = Timings { guest: Duration::from_millis(300), ..Timings::default() };
    let (left, right) = nodes(timings).await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = host(&left, &machine).await;
    let mut client = guest(&right, &phone, TICKET).await;
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    until("it has left", || right.relay.connections() == 0).await;
    host.send(phone.id(), 1, b"x").await;
    host.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::NotNamed }).await;
    left.balances().await;
    right.balances().await;
}

#[tokio::test]
async fn a_guest_and_its_own_connection_do_not_disturb_each_other_at_different_nodes() {
    let (left, right) = nodes(Timings::default()).await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = host(&left, &machine).await;
    let mut ordinary = left.join(&phone).await;
    let mut client = guest(&right, &phone, TICKET).await;
    host.send(phone.id(), 1, b"to the guest").await;
    client.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: b"to the guest" }).await;
    ordinary.barrier().await;
    drop(client);
    ordinary.barrier().await;
    left.balances().await;
    right.balances().await;
}
