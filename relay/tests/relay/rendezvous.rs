use std::time::Duration;

use happy_relay::{Config, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, RendezvousState, ToRelay, Undelivered};
use sha2::{Digest, Sha256};

use crate::harness::{Client, Device, Server, until};

pub const TICKET: [u8; 32] = [42; 32];

pub fn hash(ticket: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(b"happy/1 ticket hash").chain_update(ticket).finalize().into()
}

pub async fn open(host: &mut Client, ticket: [u8; 32], seconds: u16) -> RendezvousState {
    host.tell(ToRelay::OpenRendezvous { ticket_hash: hash(ticket), seconds }).await;
    let frame = host.frame().await;
    match FromRelay::decode(&frame) {
        Ok(FromRelay::Rendezvous { ticket_hash, state }) if ticket_hash == hash(ticket) => state,
        other => panic!("no answer to the opening: {other:?}"),
    }
}

pub async fn refused(server: &Server, device: &Device, ticket: [u8; 32]) -> Code {
    let mut client = server.connect().await;
    let nonce = client.challenge().await;
    client.raw(&device.login(&client.name.clone(), &nonce, Some(ticket))).await;
    client.goaway().await.0
}

pub async fn guest(server: &Server, device: &Device, ticket: [u8; 32]) -> Client {
    let mut client = server.connect().await;
    client.log_in(device, Some(ticket)).await.expect("Welcome names the host");
    client
}

#[tokio::test]
async fn a_ticket_leads_to_its_host_and_back() {
    let server = Server::start().await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = server.join(&machine).await;
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
    let mut client = server.connect().await;
    assert_eq!(client.log_in(&phone, Some(TICKET)).await, Some(machine.id()));
    client.send(machine.id(), 1, b"may I").await;
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"may I" }).await;
    host.send(phone.id(), 1, b"you may").await;
    client.expect(FromRelay::Deliver { from: machine.id(), rendezvous: true, payload: b"you may" }).await;
    server.balances().await;
    assert_eq!(server.metric("guests_total"), 1);
}

#[tokio::test]
async fn a_guest_reaches_its_host_and_nobody_else() {
    let server = Server::start().await;
    let (machine, phone, other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut host = server.join(&machine).await;
    let mut third = server.join(&other).await;
    third.name(&[phone.id()]).await;
    open(&mut host, TICKET, 120).await;
    let mut client = guest(&server, &phone, TICKET).await;
    client.send(other.id(), 4, b"x").await;
    client.expect(FromRelay::Undeliverable { to: other.id(), tag: 4, reason: Undelivered::NotPermitted }).await;
    assert_eq!(open(&mut client, [1; 32], 60).await, RendezvousState::Refused);
    third.barrier().await;
    client.tell(ToRelay::Peers(vec![other.id()])).await;
    assert_eq!(client.goaway().await.0, Code::NOT_PERMITTED);
    server.balances().await;
}

#[tokio::test]
async fn a_guest_is_hidden_from_everybody_but_its_host() {
    let server = Server::start().await;
    let (machine, phone, other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut host = server.join(&machine).await;
    let mut third = server.join(&other).await;
    third.name(&[phone.id()]).await;
    open(&mut host, TICKET, 120).await;
    let mut client = guest(&server, &phone, TICKET).await;
    third.send(phone.id(), 1, b"x").await;
    third.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::Unreachable }).await;
    client.barrier().await;
    server.balances().await;
}

#[tokio::test]
async fn an_unknown_ticket_is_refused() {
    let server = Server::start().await;
    let mut host = server.join(&Device::new(1)).await;
    open(&mut host, TICKET, 120).await;
    assert_eq!(refused(&server, &Device::new(2), [7; 32]).await, Code::LOGIN_REFUSED);
    // The hash is what the relay knows; it must not open the door.
    assert_eq!(refused(&server, &Device::new(2), hash(TICKET)).await, Code::LOGIN_REFUSED);
    assert_eq!(server.metric("logins_total{result=\"unknown_ticket\"}"), 2);
}

#[tokio::test]
async fn the_fifth_guest_waits_until_one_leaves() {
    let server = Server::start().await;
    let mut host = server.join(&Device::new(1)).await;
    open(&mut host, TICKET, 120).await;
    let mut guests = Vec::new();
    for n in 2..6 {
        guests.push(guest(&server, &Device::new(n), TICKET).await);
    }
    assert_eq!(refused(&server, &Device::new(6), TICKET).await, Code::TOO_MANY);
    // One of the four comes again: it takes its own place.
    let _again = guest(&server, &Device::new(2), TICKET).await;
    assert_eq!(guests[0].goaway().await.0, Code::DISPLACED);
    drop(guests.pop());
    until("the place is free", || server.relay.connections() == 5 - 1).await;
    guest(&server, &Device::new(6), TICKET).await;
}

#[tokio::test]
async fn a_rendezvous_ends_after_its_seconds_and_its_guests_stay() {
    let server = Server::start().await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = server.join(&machine).await;
    open(&mut host, TICKET, 1).await;
    let mut client = guest(&server, &phone, TICKET).await;
    host.expect(FromRelay::Rendezvous { ticket_hash: hash(TICKET), state: RendezvousState::Ended }).await;
    assert_eq!(refused(&server, &Device::new(3), TICKET).await, Code::LOGIN_REFUSED);
    client.send(machine.id(), 1, b"typing the code").await;
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"typing the code" }).await;
    assert_eq!(server.metric("rendezvous"), 0);
}

#[tokio::test]
async fn a_guest_is_cut_when_its_time_is_over() {
    let timings = Timings { guest: Duration::from_millis(200), ..Timings::default() };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = server.join(&machine).await;
    open(&mut host, TICKET, 120).await;
    let mut client = guest(&server, &phone, TICKET).await;
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    until("its place is free", || server.relay.connections() == 1).await;
    host.send(phone.id(), 1, b"x").await;
    host.expect(FromRelay::Undeliverable { to: phone.id(), tag: 1, reason: Undelivered::NotNamed }).await;
    server.balances().await;
}

#[tokio::test]
async fn a_rendezvous_can_be_closed() {
    let server = Server::start().await;
    let mut host = server.join(&Device::new(1)).await;
    open(&mut host, TICKET, 120).await;
    host.tell(ToRelay::CloseRendezvous { ticket_hash: hash(TICKET) }).await;
    host.expect(FromRelay::Rendezvous { ticket_hash: hash(TICKET), state: RendezvousState::Ended }).await;
    assert_eq!(refused(&server, &Device::new(2), TICKET).await, Code::LOGIN_REFUSED);
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
}

#[tokio::test]
async fn a_rendezvous_ends_with_its_host() {
    let server = Server::start().await;
    let mut host = server.join(&Device::new(1)).await;
    open(&mut host, TICKET, 120).await;
    let mut client = guest(&server, &Device::new(2), TICKET).await;
    drop(host);
    assert_eq!(client.goaway().await.0, Code::GOODBYE);
    assert_eq!(refused(&server, &Device::new(2), TICKET).await, Code::LOGIN_REFUSED);
    assert_eq!(server.metric("rendezvous"), 0);
}

#[tokio::test]
async fn a_device_holds_four_and_only_its_own() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.join(&Device::new(1)).await, server.join(&Device::new(2)).await);
    for n in 0..4 {
        assert_eq!(open(&mut one, [n; 32], 60).await, RendezvousState::Open);
    }
    assert_eq!(open(&mut one, [4; 32], 60).await, RendezvousState::Refused);
    assert_eq!(open(&mut one, [0; 32], 90).await, RendezvousState::Open, "one that is open gets a new end");
    assert_eq!(open(&mut other, [0; 32], 60).await, RendezvousState::Refused, "it belongs to another device");
    other.tell(ToRelay::CloseRendezvous { ticket_hash: hash([0; 32]) }).await;
    other.expect(FromRelay::Rendezvous { ticket_hash: hash([0; 32]), state: RendezvousState::Ended }).await;
    guest(&server, &Device::new(3), [0; 32]).await;
}

#[tokio::test]
async fn pairing_again_does_not_disturb_the_ordinary_connection() {
    let server = Server::start().await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut host = server.join(&machine).await;
    let mut ordinary = server.join(&phone).await;
    open(&mut host, TICKET, 120).await;
    let client = guest(&server, &phone, TICKET).await;
    ordinary.barrier().await;
    drop(client);
    ordinary.barrier().await;
}
