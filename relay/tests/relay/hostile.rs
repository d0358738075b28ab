use futures_util::SinkExt;
use happy_wire::Code;
use happy_wire::relay::{MAX_FRAME, ToRelay};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, Server, encode, until};

/// Two honest devices that must not notice anything.
struct Bystanders {
    one: Client,
    other: Client,
}

impl Bystanders {
    async fn new(server: &Server) -> Self {
        let (one, other) = server.pair(&Device::new(101), &Device::new(102)).await;
        Self { one, other }
    }

    async fn are_well(&mut self) {
        let (from, to) = (self.one.id.unwrap(), self.other.id.unwrap());
        self.one.send(to, 1, b"still here").await;
        self.other.expect_payload(from, b"still here").await;
    }
}

#[tokio::test]
async fn each_bad_frame_closes_its_own_connection_with_its_code() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    let id = Device::new(1).id();
    let cut = |frame: ToRelay<'_>| {
        let mut bytes = encode(&frame);
        bytes.pop();
        bytes
    };
    let mut long_ping = encode(&ToRelay::Ping(1));
    long_ping.push(0);
    let mut too_many_peers = vec![0x03, 1, 1];
    too_many_peers.extend_from_slice(&[1; 257 * 32]);
    let cases = [
        ("empty", vec![], Code::MALFORMED),
        ("Send without its head", vec![0x02; 36], Code::MALFORMED),
        ("Ping cut", cut(ToRelay::Ping(1)), Code::MALFORMED),
        ("Ping too long", long_ping, Code::MALFORMED),
        ("Peers cut", cut(ToRelay::Peers(vec![id])), Code::MALFORMED),
        ("257 peers", too_many_peers, Code::MALFORMED),
        ("rendezvous of no length", [&[0x04][..], &[0; 34]].concat(), Code::MALFORMED),
        (
            "rendezvous of 301 s",
            encode(&ToRelay::OpenRendezvous { ticket_hash: [1; 32], seconds: 301 }),
            Code::MALFORMED,
        ),
        ("Login again", Device::new(1).login("x", &[0; 32], None), Code::MALFORMED),
        ("one byte too large", vec![0x02; MAX_FRAME + 1], Code::TOO_LARGE),
        ("a megabyte", vec![0x02; 1 << 20], Code::TOO_LARGE),
    ];
    let mut device = Device::new(1);
    for (what, frame, code) in cases {
        device.epoch += 1;
        let mut client = server.join(&device).await;
        // A frame this large may not be read to its end before the relay closes.
        let _ = client.socket.send(Message::Binary(frame.into())).await;
        assert_eq!(client.goaway().await.0, code, "{what}");
        bystanders.are_well().await;
    }
    assert_eq!(server.metric("malformed_total"), 9);
    assert_eq!(server.metric("oversized_total"), 2);
    server.balances().await;
}

#[tokio::test]
async fn text_is_out_of_place() {
    let server = Server::start().await;
    let mut client = server.join(&Device::new(1)).await;
    client.socket.send(Message::Text("hello".into())).await.unwrap();
    assert_eq!(client.goaway().await.0, Code::MALFORMED);
}

#[tokio::test]
async fn unknown_types_are_skipped_and_counted() {
    let server = Server::start().await;
    let mut client = server.join(&Device::new(1)).await;
    for kind in [0x00, 0x0b, 0x7f, 0x83, 0xff] {
        client.raw(&[kind, 1, 2, 3]).await;
    }
    client.barrier().await;
    assert_eq!(server.metric("unknown_frames_total"), 5);
}

#[tokio::test]
async fn broken_websocket_framing_ends_the_connection_only() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    let broken: [(&str, &[u8]); 5] = [
        ("unmasked", &[0x82, 0x02, 0x01, 0x02]),
        ("reserved bits", &[0xf2, 0x80, 0, 0, 0, 0]),
        ("reserved opcode", &[0x83, 0x80, 0, 0, 0, 0]),
        ("fragmented control frame", &[0x09, 0x80, 0, 0, 0, 0]),
        ("continuation of nothing", &[0x80, 0x80, 0, 0, 0, 0]),
    ];
    let mut device = Device::new(1);
    for (what, bytes) in broken {
        device.epoch += 1;
        let mut client = server.join(&device).await;
        client.socket.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(client.goaway().await.0, Code::MALFORMED, "{what}");
        bystanders.are_well().await;
    }
}

#[tokio::test]
async fn a_connection_cut_inside_a_frame_just_ends() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    let mut client = server.join(&Device::new(1)).await;
    // The head of a frame of 200 bytes, and a few of them.
    client.socket.get_mut().write_all(&[0x82, 0xfe, 0, 200, 1, 2, 3, 4, 5, 6, 7]).await.unwrap();
    drop(client);
    until("it is gone", || server.relay.connections() == 2).await;
    bystanders.are_well().await;
    server.balances().await;
}

/// Fragments of one message may be as many as they like, but not larger than a frame together.
#[tokio::test]
async fn fragments_add_up_to_the_same_limit() {
    let server = Server::start().await;
    let mut client = server.join(&Device::new(1)).await;
    let mut bytes = Vec::new();
    for n in 0..3 {
        bytes.extend_from_slice(&[if n == 0 { 0x02 } else { 0x00 }, 0xfe, 0x75, 0x30, 0, 0, 0, 0]);
        bytes.extend_from_slice(&[0x02; 30_000]);
    }
    let _ = client.socket.get_mut().write_all(&bytes).await;
    assert_eq!(client.goaway().await.0, Code::TOO_LARGE);
}
