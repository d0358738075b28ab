//! A device that names others without end: it waits, and nobody else does.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use happy_crypto::DeviceId;
use happy_wire::relay::{FromRelay, MAX_PEERS, ToRelay};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, Server, encode, soon, until};
use crate::redis::{Servers, arrives, device, pair};

/// A list that nobody has named before.
fn strangers(n: u64) -> ToRelay<'static> {
    let stranger = |peer: u64| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&(n * MAX_PEERS as u64 + peer).to_be_bytes());
        DeviceId::from_bytes(id)
    };
    ToRelay::Peers((0..MAX_PEERS as u64).map(stranger).collect())
}

/// Sends many lists as fast as they are taken. Ends when all have been sent.
fn flood(mut client: Client, lists: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        for n in 0..lists {
            if client.socket.send(Message::Binary(encode(&strangers(n)).into())).await.is_err() {
                return;
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_others_go_to_other_nodes_beside_a_device_that_names_without_end() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b) = (device(), device());
    let (mut one, mut other) = pair(&left, &right, &a, &b).await;
    let flooding = flood(left.join(&device()).await, 2_000);
    until("the flood is made to wait, or was taken", || left.metric("paced_total") > 0 || flooding.is_finished()).await;
    for _ in 0..50 {
        arrives((&mut one, &a), (&mut other, &b), b"beside it").await;
        arrives((&mut other, &b), (&mut one, &a), b"and back").await;
    }
    assert!(!flooding.is_finished(), "half a million names are not taken within a moment");
    flooding.abort();
}

#[tokio::test]
async fn who_names_too_fast_is_not_read_for_a_while_and_loses_nothing() {
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (mut one, mut other) = server.pair(&a, &b).await;
    let begun = Instant::now();
    // The first seven are free, and the others wait for some two seconds each.
    for n in 0..10 {
        one.tell(strangers(n)).await;
    }
    one.tell(ToRelay::Peers(vec![b.id()])).await;
    one.send(b.id(), 1, b"behind the lists").await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    other.expect(FromRelay::Presence { device: a.id(), here: false }).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    other.expect_payload(a.id(), b"behind the lists").await;
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(server.metric("paced_total") > 0);
    server.balances().await;
}

/// A link says its whole list again for each device that comes to it or goes.
#[tokio::test]
async fn a_list_that_grows_name_by_name_is_taken_as_it_comes() {
    let server = Server::start().await;
    let mut client = server.join(&Device::new(1)).await;
    let ToRelay::Peers(all) = strangers(0) else { unreachable!() };
    for count in 1..=all.len() {
        client.tell(ToRelay::Peers(all[..count].to_vec())).await;
    }
    client.barrier().await;
    assert_eq!(server.metric("paced_total"), 0);
}

/// Each is a command to Redis.
#[tokio::test]
async fn who_opens_the_same_rendezvous_without_end_is_not_read_for_a_while() {
    const MANY: usize = 5_000;
    let server = Server::start().await;
    let (mut sink, mut stream) = server.join(&Device::new(1)).await.socket.split();
    let open = encode(&ToRelay::OpenRendezvous { ticket_hash: [1; 32], seconds: 300 });
    let flooding = tokio::spawn(async move {
        for _ in 0..MANY {
            sink.send(Message::Binary(open.clone().into())).await.unwrap();
        }
        sink
    });
    let answers = async {
        for n in 0..MANY {
            soon("an answer", stream.next()).await.unwrap().unwrap();
            if server.metric("paced_total") > 0 {
                return n;
            }
        }
        MANY
    };
    let answered = answers.await;
    assert!(answered < MANY, "all were taken at once");
    flooding.abort();
}

/// A login costs next to nothing, and would else be worth four thousand names.
#[tokio::test]
async fn who_comes_anew_names_no_more_than_before() {
    let server = Server::start().await;
    let mut device = Device::new(1);
    for n in 0..20 {
        let mut client = server.join(&device).await;
        client.tell(strangers(n)).await;
        client.barrier().await;
        device.epoch += 1;
    }
    assert!(server.metric("paced_total") > 0, "5,000 names were taken at once");
}
