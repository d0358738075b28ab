//! What nobody honest sends, over bare TCP: a table of bytes and of what becomes of the connection. Whatever it is, an honest pair at the
//! same relay exchanges a frame behind each.

use std::time::Duration;

use happy_relay::{Config, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, MAX_FRAME, MAX_PAYLOAD, ToRelay, Undelivered};

use crate::harness::{Client, Device, Server, encode, until};
use crate::raw::{End, Raw, frame, frame_of, upgrade};

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

/// What becomes of a websocket.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// It goes on.
    GoesOn,
    /// Goaway and Close with the same code.
    Goaway(Code),
    /// Close with this code, or without one.
    Close(Option<u16>),
    /// It ends without a word.
    Ends,
}

use Then::{Close, Ends, Goaway, GoesOn};

const BAD: Then = Goaway(Code::MALFORMED);
const LARGE: Then = Goaway(Code::TOO_LARGE);

/// Final frames, by what they carry.
const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// Not final, and what follows.
const FIRST: u8 = 0x02;
const FIRST_TEXT: u8 = 0x01;
const MIDDLE: u8 = 0x00;
const LAST: u8 = 0x80;

type Case = (&'static str, Vec<u8>, Then);

/// A websocket Ping of the relay's protocol, which any connection that is well answers.
fn ping() -> Vec<u8> {
    encode(&ToRelay::Ping(1))
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn websocket_cases() -> Vec<Case> {
    let length = |bytes: [u8; 8]| [&[0xff][..], &bytes].concat();
    let over = (MAX_FRAME as u64 + 1).to_be_bytes();
    let mut pieces = frame(FIRST, &[]);
    (0..1_000).for_each(|_| pieces.extend(frame(MIDDLE, &[])));
    pieces.extend(frame(LAST, &ping()));
    let bytewise: Vec<u8> =
        ping().iter().enumerate().flat_map(|(n, byte)| frame(if n == 0 { FIRST } else { MIDDLE }, &[*byte])).collect();
    let half = vec![0x02; MAX_FRAME / 2 + 1];
    vec![
        ("an unmasked frame", vec![BINARY, 1, 6], BAD),
        ("the first reserved bit, which is compression", frame(0xc2, &ping()), BAD),
        ("the second reserved bit", frame(0xa2, &ping()), BAD),
        ("the third reserved bit", frame(0x92, &ping()), BAD),
        ("a reserved bit on a ping", frame(0xc9, b"x"), BAD),
        ("reserved opcode 3", frame(0x83, &ping()), BAD),
        ("reserved opcode 7", frame(0x87, &ping()), BAD),
        ("reserved control opcode 11", frame(0x8b, b""), BAD),
        ("reserved control opcode 15", frame(0x8f, b""), BAD),
        ("a fragmented ping", frame(0x09, b"x"), BAD),
        ("a fragmented close", frame(0x08, b""), BAD),
        ("a ping of 126 bytes", frame(PING, &[1; 126]), BAD),
        ("a pong of 126 bytes", frame(PONG, &[1; 126]), BAD),
        ("a close of 126 bytes", close(1000, &[b'x'; 124]), BAD),
        ("the end of no message", frame(LAST, b"x"), BAD),
        ("the middle of no message", frame(MIDDLE, b"x"), BAD),
        ("a message inside a message", [frame(FIRST, b"x"), frame(BINARY, &ping())].concat(), BAD),
        ("a text inside a message", [frame(FIRST, b"x"), frame(TEXT, b"x")].concat(), BAD),
        ("a length in more bytes than it needs", frame_of(BINARY, &[0xfe, 0, 9], &ping()), GoesOn),
        ("and in even more", frame_of(BINARY, &length([0, 0, 0, 0, 0, 0, 0, 9]), &ping()), GoesOn),
        ("a length beyond 63 bits", frame_of(BINARY, &length([0x80, 0, 0, 0, 0, 0, 0, 9]), b""), LARGE),
        ("a length of 63 bits", frame_of(BINARY, &length([0x7f; 8]), b""), LARGE),
        ("a length of one byte too many, and nothing else", frame_of(BINARY, &length(over), b""), LARGE),
        ("the same for a fragment", frame_of(FIRST, &length(over), b""), LARGE),
        ("two fragments that are too large together", [frame(FIRST, &half), frame(LAST, &half)].concat(), LARGE),
        ("a frame that is too large, to its end", frame(BINARY, &vec![2; MAX_FRAME + 1]), LARGE),
        ("a megabyte", frame(BINARY, &vec![2; 1 << 20]), LARGE),
        ("text", frame(TEXT, b"hello"), BAD),
        ("an empty text", frame(TEXT, b""), BAD),
        ("a text that is no UTF-8", frame(TEXT, &[0xc0, 0x80]), BAD),
        ("a text that ends inside a letter", frame(TEXT, &[0xe2, 0x82]), BAD),
        ("a text that is no UTF-8 in its last part", [frame(FIRST_TEXT, b"a"), frame(LAST, &[0xff])].concat(), BAD),
        ("a close", frame(CLOSE, b""), Close(Some(1000))),
        ("a close that says goodbye", close(1000, b"bye"), Close(Some(1000))),
        ("a close with a code of its own", close(4999, b""), Close(Some(4999))),
        ("a close with half a code", frame(CLOSE, &[3]), BAD),
        ("a close whose reason is no UTF-8", close(1000, &[0xff, 0xfe]), BAD),
        ("a close with code 0", close(0, b""), Close(Some(1002))),
        ("a close with code 999", close(999, b""), Close(Some(1002))),
        ("a close with code 1005", close(1005, b""), Close(Some(1002))),
        ("a close with code 1006", close(1006, b""), Close(Some(1002))),
        ("a close with code 1015", close(1015, b""), Close(Some(1002))),
        ("a close with code 5000", close(5000, b""), Close(Some(1002))),
        ("a close and more behind it", [close(1000, b""), frame(BINARY, &ping())].concat(), Close(Some(1000))),
        ("ten thousand pings", frame(PING, &[1; 125]).repeat(10_000), GoesOn),
        ("a thousand pongs for no ping", frame(PONG, b"x").repeat(1_000), GoesOn),
        ("an empty ping", frame(PING, b""), GoesOn),
        ("a message of a thousand empty fragments", pieces, GoesOn),
        ("a message of fragments of one byte", [bytewise, frame(LAST, b"")].concat(), GoesOn),
        ("a ping inside a message", [frame(FIRST, &[6; 4]), frame(PING, b"x"), frame(LAST, &[0; 5])].concat(), GoesOn),
    ]
}

/// Frames of `PROTOCOL 7` from a device that has logged in.
fn relay_cases() -> Vec<Case> {
    let id = Device::new(1).id();
    let cut = |of: ToRelay<'_>| frame(BINARY, &encode(&of)[..encode(&of).len() - 1]);
    let long = |of: ToRelay<'_>| frame(BINARY, &[&encode(&of)[..], &[0]].concat());
    let rendezvous = |seconds| ToRelay::OpenRendezvous { ticket_hash: [1; 32], seconds };
    let close = ToRelay::CloseRendezvous { ticket_hash: [1; 32] };
    let record = |version, sealed| ToRelay::PutRecord { kind: 1, version, sealed };
    let unknown = |kind: u8| frame(BINARY, &[kind, 1, 2, 3]);
    vec![
        ("an empty frame", frame(BINARY, b""), BAD),
        ("Send without its head", frame(BINARY, &[0x02; 36]), BAD),
        ("Send of nothing", frame(BINARY, &[0x02; 37]), GoesOn),
        ("Send of a byte too many", frame(BINARY, &[0x02; 37 + MAX_PAYLOAD + 1]), GoesOn),
        ("Peers without a count", frame(BINARY, &[0x03, 0]), BAD),
        ("Peers cut", cut(ToRelay::Peers(vec![id])), BAD),
        ("Peers too long", long(ToRelay::Peers(vec![id])), BAD),
        ("Peers of nobody", frame(BINARY, &[0x03, 0, 0]), GoesOn),
        ("257 peers", frame(BINARY, &[&[0x03, 1, 1][..], &[1; 257 * 32]].concat()), BAD),
        ("65,535 peers, none of them there", frame(BINARY, &[0x03, 0xff, 0xff]), BAD),
        ("OpenRendezvous of no time", frame(BINARY, &[&[0x04][..], &[0; 34]].concat()), BAD),
        ("OpenRendezvous of 301 s", frame(BINARY, &encode(&rendezvous(301))), BAD),
        ("OpenRendezvous cut", cut(rendezvous(1)), BAD),
        ("OpenRendezvous too long", long(rendezvous(1)), BAD),
        ("CloseRendezvous cut", cut(close.clone()), BAD),
        ("CloseRendezvous too long", long(close.clone()), BAD),
        ("CloseRendezvous of none", frame(BINARY, &encode(&close)), GoesOn),
        ("Ping cut", cut(ToRelay::Ping(1)), BAD),
        ("Ping too long", long(ToRelay::Ping(1)), BAD),
        ("Pong cut", cut(ToRelay::Pong(1)), BAD),
        ("Pong too long", long(ToRelay::Pong(1)), BAD),
        ("Pong for no Ping", frame(BINARY, &encode(&ToRelay::Pong(9))), GoesOn),
        ("Login again", frame(BINARY, &Device::new(1).login("x", &[0; 32], None)), BAD),
        ("type 0", unknown(0x00), GoesOn),
        ("PutRecord of version 0", frame(BINARY, &encode(&record(0, b"x"))), BAD),
        ("PutRecord of nothing", frame(BINARY, &encode(&record(1, b""))), BAD),
        ("PutRecord of 4,097 bytes", frame(BINARY, &encode(&record(1, &[0; 4_097]))), BAD),
        ("PutRecord without its head", frame(BINARY, &[0x08; 9]), BAD),
        ("GetRecord cut", cut(ToRelay::GetRecord { machine: id, kind: 1 }), BAD),
        ("GetRecord too long", long(ToRelay::GetRecord { machine: id, kind: 1 }), BAD),
        ("GetToken too long", long(ToRelay::GetToken), BAD),
        ("type 11", unknown(0x0b), GoesOn),
        ("type 127", unknown(0x7f), GoesOn),
        ("type 255", unknown(0xff), GoesOn),
        ("Welcome, which is the relay's to send", unknown(0x82), GoesOn),
        ("Deliver, which is the relay's to send", unknown(0x83), GoesOn),
    ]
}

/// The first bytes after the upgrade. The logins are signed for another challenge, so none of them is right.
fn login_cases() -> Vec<Case> {
    let login = Device::new(1).login("x", &[0; 32], None);
    let changed = |at: usize, to: u8| {
        let mut login = login.clone();
        login[at] = to;
        frame(BINARY, &login)
    };
    // A point of small order as device, for which a careless check takes this signature of anything.
    let mut weak = login.clone();
    weak[2..34].fill(0);
    weak[2] = 1;
    let signature = weak.len() - 64;
    weak[signature..].fill(0);
    weak[signature] = 1;
    let refused = Goaway(Code::LOGIN_REFUSED);
    vec![
        ("a login that was signed for another challenge", frame(BINARY, &login), refused),
        ("a login by a key that signs everything", frame(BINARY, &weak), refused),
        (
            "a login with a ticket that opens nothing",
            frame(BINARY, &Device::new(1).login("x", &[0; 32], Some([1; 32]))),
            refused,
        ),
        ("a login of version 2", changed(1, 2), BAD),
        ("a login with a credential of kind 3", changed(2 + 32 + 8 + 16, 3), BAD),
        ("a login that is cut", frame(BINARY, &login[..login.len() - 1]), BAD),
        ("a login with a byte behind it", frame(BINARY, &[&login[..], &[0]].concat()), BAD),
        ("a login in a text", frame(TEXT, b"login"), BAD),
        ("an empty frame before the login", frame(BINARY, b""), BAD),
        ("Ping before the login", frame(BINARY, &ping()), BAD),
        ("Send before the login", frame(BINARY, &[0x02; 40]), BAD),
        ("Peers before the login", frame(BINARY, &[0x03, 0, 0]), BAD),
        ("an unknown type before the login", frame(BINARY, &[0x55]), BAD),
        ("an unmasked frame before the login", vec![BINARY, 1, 1], BAD),
        ("a frame too large before the login", frame_of(BINARY, &[0xff, 0, 0, 0, 0, 0xff, 0, 0, 0], b""), LARGE),
        ("a close before the login", frame(CLOSE, b""), Ends),
        ("an http request instead of a login", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), BAD),
    ]
}

async fn becomes(raw: &mut Raw, then: Then, what: &str) {
    let wanted = match then {
        GoesOn => return assert!(raw.is_well().await, "{what}"),
        Goaway(code) => End { goaway: Some(code), close: Some(Some(code.0)) },
        Close(code) => End { goaway: None, close: Some(code) },
        Ends => End { goaway: None, close: None },
    };
    assert_eq!(raw.end().await, wanted, "{what}");
}

#[tokio::test]
async fn each_bad_frame_harms_its_own_connection_only() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    let mut device = Device::new(1);
    for (what, bytes, then) in [websocket_cases(), relay_cases()].concat() {
        device.epoch += 1;
        let mut raw = Raw::open(server.address()).await;
        raw.upgrade().await;
        raw.log_in(&device).await;
        raw.write(&bytes).await;
        becomes(&mut raw, then, what).await;
        bystanders.are_well().await;
    }
    drop(bystanders);
    server.balances().await;
}

#[tokio::test]
async fn each_bad_login_harms_its_own_connection_only() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    for (what, bytes, then) in login_cases() {
        let mut raw = Raw::open(server.address()).await;
        raw.upgrade().await;
        raw.challenge().await;
        raw.write(&bytes).await;
        becomes(&mut raw, then, what).await;
        bystanders.are_well().await;
    }
    assert_eq!(server.relay.connections(), 2);
    assert_eq!(server.metric("logins_total{result=\"accepted\"}"), 2);
}

/// Requests, and the beginning of the answer; empty when there is none.
fn http_cases(host: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |from: &str, to: &str| upgrade(host, "").replace(from, to).into_bytes();
    let more = |lines: &str| upgrade(host, lines).into_bytes();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let (key, host_line) = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", format!("Host: {host}\r\n"));
    vec![
        ("no upgrade", get("/v1/ws"), "HTTP/1.1 426"),
        ("an upgrade to something else", with("Upgrade: websocket", "Upgrade: h2c"), "HTTP/1.1 426"),
        ("Upgrade without Connection", with("Connection: Upgrade", "Connection: keep-alive"), "HTTP/1.1 426"),
        ("version 12", with("Version: 13", "Version: 12"), "HTTP/1.1 400"),
        ("no version", with("Sec-WebSocket-Version: 13\r\n", ""), "HTTP/1.1 400"),
        ("no key", with(key, ""), "HTTP/1.1 400"),
        ("an empty key", with("dGhlIHNhbXBsZSBub25jZQ==", ""), "HTTP/1.1 400"),
        ("a key of 15 bytes", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), "HTTP/1.1 400"),
        ("a key that is no base64", with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNh*XBsZSBub25jZQ=="), "HTTP/1.1 400"),
        ("two keys", more(key), "HTTP/1.1 400"),
        ("no subprotocol", with("Sec-WebSocket-Protocol: happy-relay.v1\r\n", ""), "HTTP/1.1 400"),
        ("another subprotocol", with("happy-relay.v1", "happy-relay.v2, chat"), "HTTP/1.1 400"),
        ("POST", with("GET ", "POST "), "HTTP/1.1 405"),
        ("HEAD", with("GET ", "HEAD "), "HTTP/1.1 405"),
        ("get", with("GET ", "get "), "HTTP/1.1 405"),
        ("HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0 4"),
        ("no version of HTTP", b"GET /\r\n\r\n".to_vec(), "HTTP/1.1 400"),
        ("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), ""),
        ("a TLS hello", [&[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3][..], &[7; 190]].concat(), "HTTP/1.1 400"),
        ("no host", with(&host_line, ""), "HTTP/1.1 400"),
        ("an empty host", with(host, ""), "HTTP/1.1 400"),
        ("a host with a path", with(host, "relay.example/../x"), "HTTP/1.1 400"),
        ("a host with a name and a password", with(host, "me:secret@relay.example"), "HTTP/1.1 400"),
        ("two hosts", more("Host: evil.example\r\n"), "HTTP/1.1 400"),
        ("a page from elsewhere", more("Origin: https://evil.example\r\n"), "HTTP/1.1 403"),
        ("a page from nowhere", more("Origin: null\r\n"), "HTTP/1.1 403"),
        ("two origins", more(&format!("Origin: http://{host}\r\nOrigin: https://evil.example\r\n")), "HTTP/1.1 403"),
        ("a body by length", [more("Content-Length: 9\r\n"), ping()].concat(), "HTTP/1.1 400"),
        ("a body in chunks", [more("Transfer-Encoding: chunked\r\n"), b"0\r\n\r\n".to_vec()].concat(), "HTTP/1.1 400"),
        ("a body by length and in chunks", more("Content-Length: 9\r\nTransfer-Encoding: chunked\r\n"), "HTTP/1.1 400"),
        ("two lengths", more("Content-Length: 1\r\nContent-Length: 2\r\n"), "HTTP/1.1 400"),
        ("a length that is none", more("Content-Length: +1\r\n"), "HTTP/1.1 400"),
        ("an encoding that nobody knows", more("Transfer-Encoding: xchunked\r\n"), "HTTP/1.1 400"),
        ("a space before the colon", more("X-Header : x\r\n"), "HTTP/1.1 400"),
        ("a header over two lines", more("X-Header: a\r\n b\r\n"), "HTTP/1.1 400"),
        ("a NUL in a header", more("X-Header: a\0b\r\n"), "HTTP/1.1 400"),
        ("a NUL in the path", get("/v1/ws\0"), "HTTP/1.1 400"),
        ("a path that leads out", get("/../../../etc/passwd"), "HTTP/1.1 404"),
        ("the same in disguise", get("/%2e%2e/%2e%2e/etc/passwd"), "HTTP/1.1 404"),
        (
            "a proxy's request",
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n".to_vec(),
            "HTTP/1.1 4",
        ),
        ("a head of 9 KiB", more(&format!("X-Header: {}\r\n", "x".repeat(9 * 1024))), "HTTP/1.1 431"),
        ("a head of 200 lines", more(&"X: x\r\n".repeat(200)), "HTTP/1.1 431"),
        ("a head without an end", more(&"x".repeat(64 * 1024)), "HTTP/1.1 4"),
        ("half a head", upgrade(host, "")[..60].into(), ""),
        ("nothing", Vec::new(), ""),
    ]
}

#[tokio::test]
async fn each_bad_request_is_answered_and_harms_nobody() {
    let timings = Timings { handshake: Duration::from_millis(500), ..Timings::default() };
    let server = Server::with(Config { timings, ..Config::default() }).await;
    let mut bystanders = Bystanders::new(&server).await;
    for (what, bytes, wanted) in http_cases(&server.address().to_string()) {
        let mut raw = Raw::open(server.address()).await;
        raw.write(&bytes).await;
        let head = raw.head().await;
        assert!(head.starts_with(wanted) && head.is_empty() == wanted.is_empty(), "{what}: {head}");
        assert!(!head.contains("101"), "{what}: {head}");
        bystanders.are_well().await;
    }
    assert_eq!(server.metric("logins_total{result=\"accepted\"}"), 2);
}

#[tokio::test]
async fn compression_is_not_agreed_to() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.address()).await;
    let asked = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    raw.write(upgrade(server.address(), asked).as_bytes()).await;
    let head = raw.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && !head.contains("extensions"), "{head}");
}

#[tokio::test]
async fn a_payload_that_is_too_large_is_refused_to_its_sender_only() {
    let server = Server::start().await;
    let (mut one, other) = server.pair(&Device::new(1), &Device::new(2)).await;
    let to = other.id.unwrap();
    one.send(to, 7, &vec![0; MAX_PAYLOAD + 1]).await;
    one.expect(FromRelay::Undeliverable { to, tag: 7, reason: Undelivered::TooLarge }).await;
    server.balances().await;
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
async fn a_connection_cut_inside_a_frame_just_ends() {
    let server = Server::start().await;
    let mut bystanders = Bystanders::new(&server).await;
    let mut raw = Raw::open(server.address()).await;
    raw.upgrade().await;
    raw.log_in(&Device::new(1)).await;
    // The head of a frame of 200 bytes, and a few of them.
    raw.write(&[0x82, 0xfe, 0, 200, 1, 2, 3, 4, 5, 6, 7]).await;
    drop(raw);
    until("it is gone", || server.relay.connections() == 2).await;
    bystanders.are_well().await;
    server.balances().await;
}

#[tokio::test]
async fn a_login_that_comes_byte_by_byte_is_a_login() {
    let server = Server::start().await;
    let mut raw = Raw::open(server.address()).await;
    raw.tcp.set_nodelay(true).unwrap();
    for byte in upgrade(server.address(), "").bytes() {
        raw.write(&[byte]).await;
    }
    assert!(raw.head().await.starts_with("HTTP/1.1 101"));
    let nonce = raw.challenge().await;
    for byte in frame(BINARY, &Device::new(1).login(&server.address().to_string(), &nonce, None)) {
        raw.write(&[byte]).await;
    }
    assert!(raw.is_well().await);
}
