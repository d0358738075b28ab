//! Machine records, tokens and REST (`PROTOCOL 7`), at one node and across two.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use happy_crypto::DeviceId;
use happy_relay::bus::Login;
use happy_relay::{Bus, Config, MemoryBus, NewRecord, Put, Record, Timings};
use happy_wire::relay::{FromRelay, MAX_SEALED_RECORD, RecordAnswer, ToRelay, record_kind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, Device, Server, get, http, soon};
use crate::rendezvous::hash;

/// A Record frame that owns what it holds.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub answer: RecordAnswer,
    pub last_seen: u64,
    pub version: u64,
    pub sealed: Vec<u8>,
}

impl Client {
    pub async fn record(&mut self) -> Answer {
        let frame = self.frame().await;
        let Ok(FromRelay::Record { answer, last_seen, version, sealed, .. }) = FromRelay::decode(&frame) else {
            panic!("no record: {:?}", FromRelay::decode(&frame))
        };
        Answer { answer, last_seen, version, sealed: sealed.to_vec() }
    }

    pub async fn put(&mut self, kind: u8, version: u64, sealed: &[u8]) -> Answer {
        self.tell(ToRelay::PutRecord { kind, version, sealed }).await;
        self.record().await
    }

    pub async fn get(&mut self, machine: DeviceId, kind: u8) -> Answer {
        self.tell(ToRelay::GetRecord { machine, kind }).await;
        self.record().await
    }

    pub async fn token(&mut self) -> String {
        self.tell(ToRelay::GetToken).await;
        let frame = self.frame().await;
        let Ok(FromRelay::Token { token, .. }) = FromRelay::decode(&frame) else {
            panic!("no token: {:?}", FromRelay::decode(&frame))
        };
        token.to_owned()
    }
}

fn unix_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

const NONE: (u64, u64, Vec<u8>) = (0, 0, Vec::new());

fn parts(answer: Answer) -> (u64, u64, Vec<u8>) {
    (answer.last_seen, answer.version, answer.sealed)
}

/// A machine at one node and a phone at the other: what is left, read, changed, told and taken away.
pub async fn records_cross(left: &Server, right: &Server) {
    let (machine, phone, stranger) = (Device::new(61), Device::new(62), Device::new(63));
    let mut desk = left.join(&machine).await;
    desk.name(&[phone.id()]).await;
    let begun = unix_ms();
    let put = desk.put(record_kind::METADATA, 5, b"first").await;
    assert_eq!((put.answer, put.version), (RecordAnswer::Stored, 5));

    let (mut hand, mut other) = (right.join(&phone).await, right.join(&stranger).await);
    let read = hand.get(machine.id(), record_kind::METADATA).await;
    assert_eq!((read.answer, read.version, &read.sealed[..]), (RecordAnswer::Asked, 5, &b"first"[..]));
    assert!((begun..=unix_ms()).contains(&read.last_seen));
    assert_eq!(parts(other.get(machine.id(), record_kind::METADATA).await), NONE, "who is not named sees nothing");
    let state = hand.get(machine.id(), record_kind::STATE).await;
    assert_eq!((state.version, state.sealed.len()), (0, 0), "the other kind is not there");

    // The phone names the machine: only from now on is it told of changes.
    desk.put(record_kind::METADATA, 6, b"second").await;
    hand.tell(ToRelay::Peers(vec![machine.id()])).await;
    hand.expect(FromRelay::Presence { device: machine.id(), here: true }).await;
    desk.expect(FromRelay::Presence { device: phone.id(), here: true }).await;
    assert_eq!(desk.put(record_kind::STATE, 1, b"busy").await.answer, RecordAnswer::Stored);
    hand.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b10 }).await;
    assert_eq!(hand.get(machine.id(), record_kind::STATE).await.sealed, b"busy");

    // Compare and set.
    let conflict = desk.put(record_kind::METADATA, 6, b"another").await;
    assert_eq!((conflict.answer, conflict.version), (RecordAnswer::Conflict, 6));
    assert_eq!(conflict.sealed, b"second");
    assert_eq!(desk.put(record_kind::METADATA, 8, b"gap").await.answer, RecordAnswer::Conflict);
    assert_eq!(desk.put(record_kind::METADATA, 6, b"second").await.answer, RecordAnswer::Stored, "a repetition");
    let largest = vec![7; MAX_SEALED_RECORD];
    assert_eq!(desk.put(record_kind::METADATA, 7, &largest).await.answer, RecordAnswer::Stored);
    // Neither the conflicts nor the repetition are news.
    hand.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b01 }).await;
    assert_eq!(hand.get(machine.id(), record_kind::METADATA).await.sealed, largest);
    assert_eq!(desk.put(3, 1, b"x").await.answer, RecordAnswer::Refused);
    assert_eq!(hand.get(machine.id(), 3).await.answer, RecordAnswer::Refused);

    // The machine goes: it stays known when it was here last.
    drop(desk);
    hand.expect(FromRelay::Presence { device: machine.id(), here: false }).await;
    let gone = hand.get(machine.id(), record_kind::STATE).await;
    assert_eq!((gone.version, &gone.sealed[..]), (1, &b"busy"[..]));
    assert!((begun..=unix_ms()).contains(&gone.last_seen));

    // It comes back, at the other node, and names nobody: the phone is out, and the machine reads its own.
    let mut machine = machine;
    machine.epoch = 2;
    let mut desk = right.join(&machine).await;
    desk.name(&[]).await;
    until_none(&mut hand, machine.id()).await;
    assert_eq!(desk.get(machine.id(), record_kind::STATE).await.sealed, b"busy");
    left.balances().await;
    right.balances().await;
}

/// A change of readers is on its way for a moment.
async fn until_none(client: &mut Client, machine: DeviceId) {
    soon("the reader to be out", async {
        while client.get(machine, record_kind::STATE).await.version != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

fn nodes_on(bus: &MemoryBus, timings: Timings) -> impl Future<Output = Server> {
    let bus: Arc<dyn Bus> = Arc::new(bus.another());
    Server::with(Config { bus: Some(bus), timings, names: vec!["relay.example".into()], ..Config::default() })
}

async fn two_nodes() -> (Server, Server) {
    let bus = MemoryBus::default();
    let with = |bus: MemoryBus| Server::with(Config { bus: Some(Arc::new(bus) as Arc<dyn Bus>), ..Config::default() });
    (with(bus.another()).await, with(bus).await)
}

#[tokio::test]
async fn records_are_left_read_changed_and_told() {
    let (left, right) = two_nodes().await;
    records_cross(&left, &right).await;
}

#[tokio::test]
async fn they_work_at_one_node() {
    let server = Server::start().await;
    records_cross(&server, &server).await;
    assert!(server.metric("records_put_total{result=\"conflict\"}") >= 2);
}

#[tokio::test]
async fn a_record_that_cannot_be_one_ends_the_connection() {
    for frame in [
        ToRelay::PutRecord { kind: 1, version: 0, sealed: b"x" },
        ToRelay::PutRecord { kind: 1, version: 1, sealed: b"" },
        ToRelay::PutRecord { kind: 1, version: 1, sealed: &[0; MAX_SEALED_RECORD + 1] },
    ] {
        let server = Server::start().await;
        let mut client = server.join(&Device::new(1)).await;
        client.tell(frame).await;
        assert_eq!(client.goaway().await.0, happy_wire::Code::MALFORMED);
    }
}

#[tokio::test]
async fn a_guest_leaves_nothing_and_gets_no_token() {
    let server = Server::start().await;
    let (host, guest) = (Device::new(1), Device::new(2));
    let mut desk = server.join(&host).await;
    let ticket = [5; 32];
    let ticket_hash = hash(ticket);
    desk.tell(ToRelay::OpenRendezvous { ticket_hash, seconds: 60 }).await;
    desk.frame().await;
    let mut client = server.connect().await;
    client.log_in(&guest, Some(ticket)).await;
    assert_eq!(client.put(1, 1, b"x").await.answer, RecordAnswer::Refused);
    assert_eq!(client.get(host.id(), 1).await.answer, RecordAnswer::Refused);
    client.tell(ToRelay::GetToken).await;
    client.expect(FromRelay::Token { expires: 0, token: "" }).await;
}

#[tokio::test]
async fn many_changes_that_nobody_reads_wait_as_one_notice() {
    let server = Server::start().await;
    let (machine, phone) = (Device::new(1), Device::new(2));
    let (mut desk, mut hand) = server.pair(&machine, &phone).await;
    for version in 1..=20 {
        desk.put(record_kind::STATE, version, b"x").await;
        desk.put(record_kind::METADATA, version, b"x").await;
    }
    // The phone was woken each time and may have been told more than once; what it asks for after the last notice is the truth.
    let mut told = 0;
    let mut seen = 0;
    while seen < 20 {
        let frame = hand.frame().await;
        let Ok(FromRelay::Changed { .. }) = FromRelay::decode(&frame) else { panic!("{frame:?}") };
        told += 1;
        hand.tell(ToRelay::GetRecord { machine: machine.id(), kind: record_kind::METADATA }).await;
        seen = loop {
            let frame = hand.frame().await;
            match FromRelay::decode(&frame) {
                Ok(FromRelay::Record { version, .. }) => break version,
                Ok(FromRelay::Changed { .. }) => told += 1,
                other => panic!("{other:?}"),
            }
        };
    }
    assert!(told <= 40, "{told}");
}

/// An answer over HTTP: status and body.
async fn ask(address: SocketAddr, request: &str) -> (u16, Value) {
    let answer = http(address, request).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn read(server: &Server, path: &str, headers: &str) -> (u16, Value) {
    let host = "relay.example";
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
    ask(server.address(), &request).await
}

async fn post(server: &Server, token: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request = format!(
        "POST /v1/machines HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    ask(server.address(), &request).await
}

fn with(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

async fn join_as(server: &Server, device: &Device) -> Client {
    let mut client = Client::dial(server.address(), "relay.example").await;
    client.log_in(device, None).await;
    client
}

/// A machine without a websocket of its own here, and a phone at the other node.
pub async fn rest_crosses(left: &Server, right: &Server) {
    let (machine, phone, stranger) = (Device::new(71), Device::new(72), Device::new(73));
    let mut desk = join_as(left, &machine).await;
    desk.name(&[phone.id()]).await;
    let token = desk.token().await;
    let path = format!("/v1/machines/{}", machine.id());

    // Put at the other node than the one that made the token.
    let body = r#"{"records":[{"kind":1,"version":3,"sealed":"Zmlyc3Q"},{"kind":2,"version":1,"sealed":"YnVzeQ"}]}"#;
    let (status, answer) = post(right, &token, body).await;
    assert_eq!((status, answer["records"].as_array().map(Vec::len)), (200, Some(2)), "{answer}");
    // The readers are not known from there until the machine names them again.
    desk.name(&[phone.id()]).await;
    let (status, answer) = post(left, &token, r#"{"records":[{"kind":1,"version":9,"sealed":"Z2Fw"}]}"#).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("conflict")));
    assert_eq!(answer["records"][0]["version"], 3);

    let phone_token = join_as(right, &phone).await.token().await;
    let stranger_token = join_as(right, &stranger).await.token().await;
    for server in [left, right] {
        soon("the phone to be a reader", async {
            while read(server, &path, &with(&phone_token)).await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let (_, answer) = read(server, &path, &with(&phone_token)).await;
        assert_eq!((answer["here"].as_bool(), answer["records"][0]["sealed"].as_str()), (Some(true), Some("Zmlyc3Q")));
        assert_eq!(read(server, &path, &with(&stranger_token)).await.0, 404);
    }
    drop(desk);
    soon("the machine to be away", async {
        while read(right, &path, &with(&phone_token)).await.1["here"] != false {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(
        read(right, &path, &with(&phone_token)).await.1["last_seen"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000)
    );
}

#[tokio::test]
async fn rest_puts_and_reads_at_any_node() {
    let bus = MemoryBus::default();
    let (left, right) = (nodes_on(&bus, Timings::default()).await, nodes_on(&bus, Timings::default()).await);
    rest_crosses(&left, &right).await;
}

#[tokio::test]
async fn what_is_no_record_is_refused_with_the_reason() {
    let server = nodes_on(&MemoryBus::default(), Timings::default()).await;
    let token = join_as(&server, &Device::new(1)).await.token().await;
    let long = "A".repeat(MAX_SEALED_RECORD * 4 / 3 + 4);
    for body in [
        "",
        "{}",
        "[]",
        r#"{"records":[]}"#,
        r#"{"records":[{"kind":1,"version":1}]}"#,
        r#"{"records":[{"kind":3,"version":1,"sealed":"AA"}]}"#,
        r#"{"records":[{"kind":1,"version":0,"sealed":"AA"}]}"#,
        r#"{"records":[{"kind":1,"version":-1,"sealed":"AA"}]}"#,
        r#"{"records":[{"kind":1,"version":1,"sealed":""}]}"#,
        r#"{"records":[{"kind":1,"version":1,"sealed":"=="}]}"#,
        r#"{"records":[{"kind":1,"version":1,"sealed":"AA"},{"kind":1,"version":1,"sealed":"AA"},{"kind":1,"version":1,"sealed":"AA"}]}"#,
        &format!(r#"{{"records":[{{"kind":1,"version":1,"sealed":"{long}"}}]}}"#),
    ] {
        let (status, answer) = post(&server, &token, body).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("bad_request")), "{body}");
    }
    let (status, answer) = post(&server, &token, &" ".repeat(64 * 1024)).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (413, Some("too_large")));
}

/// However a machine puts its records, there are not more of them, and it is told.
#[tokio::test]
async fn a_machine_that_puts_too_often_is_told_to_wait_by_either_way() {
    let bus = MemoryBus::default();
    let server = nodes_on(&bus, Timings::default()).await;
    let (machine, away) = (Device::new(1), Device::new(2));
    let mut desk = join_as(&server, &machine).await;
    let tokens = [desk.token().await, join_as(&server, &away).await.token().await];
    for token in tokens {
        let begun = Instant::now();
        let (mut stored, mut refused) = (0, 0);
        while begun.elapsed() < Duration::from_millis(500) {
            let version = stored + 1;
            let body = format!(r#"{{"records":[{{"kind":1,"version":{version},"sealed":"eA"}}]}}"#);
            let length = body.len();
            let request = format!(
                "POST /v1/machines HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            );
            let answer = http(server.address(), &request).await.to_ascii_lowercase();
            match answer.get(9..12) {
                Some("200") => stored += 1,
                Some("429") => {
                    refused += 1;
                    assert!(answer.contains("retry-after: 1\r\n") && answer.contains("too_many"), "{answer}");
                }
                _ => panic!("{answer}"),
            }
        }
        let most = 2 + begun.elapsed().as_millis() as u64 / 50;
        assert!(stored <= most && refused > 0, "{stored} stored of {most}, {refused} refused");
    }
    // The websocket waits behind what came over REST, and is not refused.
    let begun = Instant::now();
    let first = desk.get(machine.id(), record_kind::METADATA).await.version;
    for version in first + 1..first + 11 {
        assert_eq!(desk.put(record_kind::METADATA, version, b"x").await.answer, RecordAnswer::Stored);
    }
    assert!(begun.elapsed() >= Duration::from_millis(8 * 50), "{:?}", begun.elapsed());
    // Both kinds at once are what a machine puts when it comes.
    let fresh = join_as(&server, &Device::new(3)).await.token().await;
    let both = r#"{"records":[{"kind":1,"version":1,"sealed":"eA"},{"kind":2,"version":1,"sealed":"eA"}]}"#;
    assert_eq!(post(&server, &fresh, both).await.0, 200);
}

/// More machines leave records than there is room for.
#[tokio::test]
async fn who_is_away_makes_room_first_and_a_machine_whose_records_were_forgotten_is_told() {
    let bus = MemoryBus::default();
    let (server, others) = (nodes_on(&bus, Timings::default()).await, bus.another());
    let machine = Device::new(1);
    let mut desk = join_as(&server, &machine).await;
    assert_eq!(desk.put(record_kind::STATE, 1, b"first").await.answer, RecordAnswer::Stored);
    let device = |n: u32, here: bool| {
        let mut bytes = [u8::from(here); 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        DeviceId::from_bytes(bytes)
    };
    // A little more than 64 MiB.
    let fill = async |here: bool| {
        let record = Record { version: 1, sealed: vec![1; MAX_SEALED_RECORD].into() };
        for n in 0..16_000 {
            let machine = device(n, here);
            if here {
                others.claim(&machine, Login { epoch: 1, number: 1 }).await;
            }
            let new = NewRecord { machine, kind: record_kind::STATE, record: record.clone(), readers: None };
            assert!(matches!(others.put_record(new).await, Put::Stored { .. }));
        }
    };
    fill(false).await;
    assert!(others.known(&device(0, false), &device(0, false)).await.unwrap().is_none(), "one had to make room");
    desk.barrier().await;
    assert_eq!(desk.get(machine.id(), record_kind::STATE).await.sealed, b"first");
    fill(true).await;
    desk.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b11 }).await;
    assert_eq!(desk.put(record_kind::STATE, 1, b"first").await.answer, RecordAnswer::Stored);
}

/// Events as they come, until `count` of them are there.
async fn events(tcp: &mut TcpStream, text: &mut String, count: usize) -> Vec<Value> {
    let of = |text: &str| -> Vec<Value> {
        // Chunks begin with their length on a line of its own; events are lines that begin with `data: `.
        text.lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    };
    let mut buffer = [0; 4096];
    while of(text).len() < count {
        let read = soon("an event", tcp.read(&mut buffer)).await.unwrap();
        assert!(read > 0, "the stream ended: {text}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    of(text)
}

async fn open_updates(server: &Server, query: &str, token: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("GET /v1/updates{query} HTTP/1.1\r\nHost: relay.example\r\n{}\r\n", with(token));
    tcp.write_all(request.as_bytes()).await.unwrap();
    tcp
}

#[tokio::test]
async fn updates_come_now_and_with_each_change_until_the_token_ends() {
    let bus = MemoryBus::default();
    let timings = Timings { token: Duration::from_secs(6), ..Timings::default() };
    let (left, right) = (nodes_on(&bus, timings).await, nodes_on(&bus, timings).await);
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut desk = join_as(&left, &machine).await;
    desk.name(&[phone.id()]).await;
    desk.put(record_kind::STATE, 1, b"one").await;
    let token = join_as(&right, &phone).await.token().await;
    let query = format!("?machine={}&machine={}", machine.id(), phone.id());
    let mut tcp = open_updates(&right, &query, &token).await;
    let mut text = String::new();
    let first = events(&mut tcp, &mut text, 1).await;
    assert!(text.contains("text/event-stream"), "{text}");
    assert_eq!((first[0]["version"].as_u64(), first[0]["sealed"].as_str()), (Some(1), Some("b25l")));
    assert_eq!(first[0]["id"].as_str(), Some(machine.id().to_string().as_str()));
    desk.put(record_kind::STATE, 2, b"two").await;
    assert_eq!(events(&mut tcp, &mut text, 2).await[1]["version"], 2);
    // With the token, and not before.
    let mut rest = Vec::new();
    soon("the end of the stream", tcp.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(read(&right, &format!("/v1/updates{query}"), &with(&token)).await.1["error"]["code"], "token_expired");
}

/// One look in 15 s would take two minutes for this, and one in 2 s longer than it may take.
#[tokio::test]
async fn a_stream_where_its_device_is_connected_is_told_of_each_change() {
    let bus = MemoryBus::default();
    let (left, right) = (nodes_on(&bus, Timings::default()).await, nodes_on(&bus, Timings::default()).await);
    let (machine, phone) = (Device::new(1), Device::new(2));
    let mut desk = join_as(&left, &machine).await;
    desk.name(&[phone.id()]).await;
    desk.put(record_kind::STATE, 1, b"x").await;
    let mut hand = join_as(&right, &phone).await;
    let token = hand.token().await;
    let mut tcp = open_updates(&right, &format!("?machine={}&machine={}", phone.id(), machine.id()), &token).await;
    let mut text = String::new();
    events(&mut tcp, &mut text, 1).await;
    let begun = Instant::now();
    for version in 2..=10 {
        desk.put(record_kind::STATE, version, b"x").await;
        let seen = events(&mut tcp, &mut text, version as usize).await;
        assert_eq!(seen.last().and_then(|event| event["version"].as_u64()), Some(version));
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn streams_are_bounded_and_end_with_the_relay() {
    let server = nodes_on(&MemoryBus::default(), Timings::default()).await;
    let phone = Device::new(2);
    let token = join_as(&server, &phone).await.token().await;
    let query = format!("?machine={}", phone.id());
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut tcp = open_updates(&server, &query, &token).await;
        let mut head = [0; 12];
        soon("the answer", tcp.read_exact(&mut head)).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        streams.push(tcp);
    }
    let path = format!("/v1/updates{query}");
    assert_eq!(read(&server, &path, &with(&token)).await.1["error"]["code"], "too_many");
    streams.pop();
    soon("a place to be free", async {
        loop {
            let mut tcp = open_updates(&server, &query, &token).await;
            let mut head = [0; 12];
            soon("the answer", tcp.read_exact(&mut head)).await.unwrap();
            if &head == b"HTTP/1.1 200" {
                streams.push(tcp);
                break;
            }
        }
    })
    .await;
    let many: Vec<_> = (0..33).map(|_| format!("machine={}", phone.id())).collect();
    for bad in [String::new(), "?machine=x".into(), format!("?{}", many.join("&"))] {
        assert_eq!(read(&server, &format!("/v1/updates{bad}"), &with(&token)).await.0, 400, "{bad}");
    }
    server.relay.shutdown(Duration::from_secs(5)).await;
    for mut tcp in streams {
        let mut rest = Vec::new();
        soon("the end of the stream", tcp.read_to_end(&mut rest)).await.unwrap();
    }
}

/// What each route answers to each credential, as it stands in docs/OPERATE.md.
#[tokio::test]
async fn routes_answer_to_each_credential_as_the_operators_page_says() {
    let bus = MemoryBus::default();
    let server = nodes_on(&bus, Timings::default()).await;
    let short = nodes_on(&bus, Timings { token: Duration::from_secs(0), ..Timings::default() }).await;
    let (machine, phone, stranger) = (Device::new(1), Device::new(2), Device::new(3));
    let mut desk = join_as(&server, &machine).await;
    desk.name(&[phone.id()]).await;
    desk.put(record_kind::STATE, 1, b"one").await;
    let own = desk.token().await;
    let named = join_as(&server, &phone).await.token().await;
    let unnamed = join_as(&server, &stranger).await.token().await;
    let expired = join_as(&short, &stranger).await.token().await;
    let foreign = {
        let other = Server::with(Config { names: vec!["relay.example".into()], ..Config::default() }).await;
        join_as(&other, &phone).await.token().await
    };
    let mut changed = named.clone().into_bytes();
    let last = changed.len() - 8;
    changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).unwrap();
    let path = format!("/v1/machines/{}", machine.id());
    let updates = format!("/v1/updates?machine={}", machine.id());
    let body = r#"{"records":[{"kind":1,"version":1,"sealed":"AA"}]}"#;

    let mut table = String::from(
        "| credential | `GET /v1/machines/{id}` | `GET /v1/updates` | `POST /v1/machines` |\n|---|---|---|---|\n",
    );
    for (credential, headers, query) in [
        ("none", String::new(), String::new()),
        ("a token in the query", String::new(), format!("token={named}&access_token={named}")),
        ("another scheme", format!("Authorization: Basic {named}\r\n"), String::new()),
        ("no token at all behind Bearer", with("x"), String::new()),
        ("a token with a changed signature", with(&changed), String::new()),
        ("one of another relay of the same name", with(&foreign), String::new()),
        ("one that has expired", with(&expired), String::new()),
        ("one of a device that the machine does not name", with(&unnamed), String::new()),
        ("one of a device that it names", with(&named), String::new()),
        ("one of the machine", with(&own), String::new()),
    ] {
        let mut row = format!("| {credential} |");
        let at = |path: &str, mark: char| match query.is_empty() {
            true => path.to_owned(),
            false => format!("{path}{mark}{query}"),
        };
        for path in [at(&path, '?'), at(&updates, '&')] {
            let mut tcp = TcpStream::connect(server.address()).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\n{headers}\r\n");
            tcp.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let length = soon("the answer", tcp.read(&mut answer)).await.unwrap();
            row.push_str(&cell(&String::from_utf8_lossy(&answer[..length])));
        }
        let path = at("/v1/machines", '?');
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        row.push_str(&cell(&http(server.address(), &request).await));
        table.push_str(&row);
        table.push('\n');
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATE.md")).unwrap();
    assert!(page.contains(&table), "docs/OPERATE.md does not say:\n{table}");
    let refused = get(server.address(), &path, "").await;
    assert!(refused.contains("cache-control: no-store"), "{refused}");
}

/// Status and error code of an answer.
fn cell(answer: &str) -> String {
    let status = answer.split(' ').nth(1).unwrap_or("none");
    match answer.split_once("\"code\":\"").and_then(|(_, rest)| rest.split('"').next()) {
        Some(code) => format!(" {status} `{code}` |"),
        None => format!(" {status} |"),
    }
}
