use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use happy_relay::{Config, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, QUEUE_BYTES, ToRelay, Undelivered};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, PATIENCE, Server, encode, soon};

/// A reader that stops reading costs a bounded amount, its senders are told, nobody else waits, and it is closed.
#[tokio::test]
async fn a_stuck_reader_harms_only_itself() {
    let timings = Timings { write: Duration::from_secs(2), ..Timings::default() };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let (stuck_device, sender_device) = (Device::new(1), Device::new(2));
    let mut stuck = Client::dial_narrow(server.address()).await;
    stuck.log_in(&stuck_device, None).await;
    stuck.name(&[sender_device.id()]).await;
    let mut sender = server.join(&sender_device).await;
    sender.tell(ToRelay::Peers(vec![stuck_device.id()])).await;
    sender.expect(FromRelay::Presence { device: stuck_device.id(), here: true }).await;
    let (mut one, mut other) = server.pair(&Device::new(3), &Device::new(4)).await;

    let mut taken = 0;
    loop {
        sender.send(stuck_device.id(), taken, &[1; 32_000]).await;
        sender.tell(ToRelay::Ping(1)).await;
        let frame = sender.frame().await;
        match FromRelay::decode(&frame) {
            Ok(FromRelay::Pong(1)) => taken += 1,
            Ok(FromRelay::Undeliverable { reason, .. }) => {
                assert_eq!(reason, Undelivered::QueueFull);
                break;
            }
            other => panic!("{other:?}"),
        }
        // Queue, the buffer of the websocket, and what the kernels of both sides keep.
        assert!(u64::from(taken) * 32_000 < QUEUE_BYTES as u64 + 4_000_000, "it takes without end");
        one.send(other.id.unwrap(), 1, b"meanwhile").await;
        other.expect_payload(one.id.unwrap(), b"meanwhile").await;
    }
    sender.expect(FromRelay::Pong(1)).await;
    sender.expect(FromRelay::Presence { device: stuck_device.id(), here: false }).await;
    assert_eq!(server.metric("stalled_total"), 1);
    assert!(server.metric("frames_dropped_total{reason=\"queue_full\"}") >= 1);
    server.balances().await;
}

/// Answers to a device that does not read them stop its own sending, and none of them is lost.
#[tokio::test]
async fn a_sender_that_does_not_listen_is_slowed_down_and_loses_nothing() {
    const FRAMES: u32 = 20_000;
    let server = Server::start().await;
    let away = Device::new(2).id();
    let mut client = Client::dial_narrow(server.address()).await;
    client.log_in(&Device::new(1), None).await;
    client.name(&[away]).await;
    let (mut write, mut read) = client.socket.split();
    let sending = tokio::spawn(async move {
        for tag in 0..FRAMES {
            let frame = encode(&ToRelay::Send { to: away, tag, payload: b"anyone?" });
            write.feed(Message::Binary(frame.into())).await.unwrap();
        }
        write.flush().await.unwrap();
    });
    for tag in 0..FRAMES {
        let Some(Ok(Message::Binary(frame))) = soon("an answer", read.next()).await else { panic!("closed at {tag}") };
        let reason = Undelivered::Unreachable;
        assert_eq!(FromRelay::decode(&frame), Ok(FromRelay::Undeliverable { to: away, tag, reason }));
    }
    sending.await.unwrap();
    server.balances().await;
}

#[tokio::test]
async fn a_silent_connection_is_asked_and_then_closed() {
    let timings = Timings {
        ping_after: Duration::from_millis(100),
        pong_grace: Duration::from_millis(100),
        ..Timings::default()
    };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let mut client = server.join(&Device::new(1)).await;
    let frame = client.frame().await;
    let Ok(FromRelay::Ping(n)) = FromRelay::decode(&frame) else { panic!("no ping: {frame:?}") };
    client.tell(ToRelay::Pong(n)).await;
    let frame = client.frame().await;
    assert!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Ping(_))), "it answered, so it is asked again");
    assert_eq!(client.goaway().await.0, Code::SILENT);
    assert_eq!(server.metric("silent_total"), 1);
}

/// Frames crossing in both directions take the locks of the same two devices.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn crossing_frames_do_not_wait_for_each_other() {
    const FRAMES: usize = 3_000;
    let server = Server::start().await;
    let (a, b) = (Device::new(1), Device::new(2));
    let (one, other) = server.pair(&a, &b).await;
    let run = |client: Client, to: Device| async move {
        let (mut write, mut read) = client.socket.split();
        let (credit, mut returned) = tokio::sync::mpsc::channel(64);
        for _ in 0..64 {
            credit.send(()).await.unwrap();
        }
        let sending = tokio::spawn(async move {
            for tag in 0..FRAMES {
                // One more for each that came: neither side's queue can be full.
                returned.recv().await.unwrap();
                let frame = encode(&ToRelay::Send { to: to.id(), tag: tag as u32, payload: &[5; 200] });
                write.send(Message::Binary(frame.into())).await.unwrap();
            }
            write
        });
        for _ in 0..FRAMES {
            let Some(Ok(Message::Binary(frame))) = read.next().await else { panic!("closed") };
            assert!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Deliver { .. })));
            let _ = credit.send(()).await;
        }
        (sending.await.unwrap(), read)
    };
    let both = async { tokio::join!(tokio::spawn(run(one, b)), tokio::spawn(run(other, a))) };
    let (one, other) = tokio::time::timeout(2 * PATIENCE, both).await.expect("no deadlock");
    let _halves = (one.unwrap(), other.unwrap());
    server.balances().await;
    assert_eq!(server.metric("frames_delivered_total"), 2 * FRAMES as u64);
}
