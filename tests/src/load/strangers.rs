//! Sockets that say nothing, or say it slowly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use happy_wire::relay::{LOGIN_SECONDS, PATH, SUBPROTOCOL};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::device::dial;
use super::probe::Probe;
use super::{ADDRESSES, Report, address, beside, joined, memory, metric, percentile};
use crate::process::Relay;

/// The wait for a TLS hello and for a request's head.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Between two bytes of a slow one.
const BYTE_EVERY: Duration = Duration::from_millis(500);
/// So many dial at the same time: the queue of the kernel holds 1,024, and a SYN that finds it full comes again after a second.
const DIALLING: usize = 400;

#[derive(Clone, Copy)]
enum Kind {
    /// Not a byte.
    Silent,
    /// A request whose head comes byte by byte.
    SlowHead,
    /// The beginning of a TLS hello.
    TlsHello,
    /// A websocket without a login.
    NoLogin,
    /// A websocket whose login comes byte by byte.
    SlowLogin,
}

/// Two of each that stays, and a TLS hello, which a relay without TLS answers at once.
const KINDS: [Kind; 9] = [
    Kind::Silent,
    Kind::SlowHead,
    Kind::NoLogin,
    Kind::SlowLogin,
    Kind::Silent,
    Kind::SlowHead,
    Kind::NoLogin,
    Kind::SlowLogin,
    Kind::TlsHello,
];

impl Kind {
    fn deadline(self) -> Duration {
        match self {
            Kind::Silent | Kind::SlowHead | Kind::TlsHello => HANDSHAKE,
            Kind::NoLogin | Kind::SlowLogin => Duration::from_secs(LOGIN_SECONDS),
        }
    }
}

/// As many as there may be: each is closed at its deadline.
pub fn held(sockets: usize, report: &mut Report) -> Result<()> {
    let places = (2 * sockets).to_string();
    let share = (2 * sockets / ADDRESSES).to_string();
    let limits = ["--max-unproven", &places, "--max-unproven-per-address", &share];
    let (mut late, held) = beset("strangers", sockets, &limits, sockets, report)?;
    report.at_least("strangers-held-at-once", held, "sockets", 0.95 * sockets as f64);
    report.time_at_most("strangers-closed-after-deadline", percentile(&mut late, 100), "s", 5.0);
    Ok(())
}

/// Many more than there may be: they make room for each other and for honest devices.
pub fn too_many(sockets: usize, report: &mut Report) -> Result<()> {
    const PLACES: usize = 512;
    let (mut late, held) = beset("too-many", sockets, &["--max-unproven", "512"], PLACES, report)?;
    report.at_most("too-many-held-at-once", held, "sockets", PLACES as f64);
    report.time_at_most("too-many-closed-after-deadline", percentile(&mut late, 100), "s", 5.0);
    Ok(())
}

/// Gives how much later than their deadlines they were closed, and how many the relay held at once.
fn beset(
    name: &str,
    sockets: usize,
    limits: &[&str],
    places: usize,
    report: &mut Report,
) -> Result<(Vec<Duration>, f64)> {
    let relay = Relay::start_with(&[&["--no-app", "--log", "warn"], limits].concat())?;
    let memory = memory::Watch::start(relay.id());
    let probe = Probe::start(relay.address());
    let strangers = beside(all(sockets, relay.address()));
    let mut most = 0.0_f64;
    while !strangers.is_finished() {
        most = most.max(metric(&relay.get("/metrics")?, "unproven"));
        std::thread::sleep(Duration::from_millis(200));
    }
    let late = joined(strangers)?;
    probe.end(name, report)?;
    let page = relay.get("/metrics")?;
    let refused = |reason| metric(&page, &format!("sockets_refused_total{{reason=\"{reason}\"}}"));
    report.fact(format!(
        "{name}: {sockets} silent and slow sockets and {} TLS hellos from {ADDRESSES} addresses, {most} at once; {} made room, {} were refused for their address, {} for want of a place",
        sockets / 8,
        refused("made_room"),
        refused("address_limit"),
        refused("unproven_limit"),
    ));
    report.at_most(&format!("{name}-memory"), memory.peak(), "MiB", memory::bound(places, 100, 0));
    Ok((late, most))
}

async fn all(sockets: usize, relay: SocketAddr) -> Result<Vec<Duration>> {
    let dialling = Arc::new(Semaphore::new(DIALLING));
    let tasks: Vec<_> = (0..sockets * KINDS.len() / 8)
        .map(|n| {
            let dialling = dialling.clone();
            tokio::spawn(async move {
                let dials = dialling.acquire().await?;
                let tcp = dial(address(1, n), relay).await;
                drop(dials);
                // One that is refused at once is closed early enough.
                let Ok(tcp) = tcp else { return Ok(Duration::ZERO) };
                let kind = KINDS[n % KINDS.len()];
                let begun = Instant::now();
                let _closed = linger(kind, tcp, relay).await;
                anyhow::Ok(begun.elapsed().saturating_sub(kind.deadline()))
            })
        })
        .collect();
    let mut late = Vec::new();
    for task in tasks {
        late.push(task.await.context("a stranger panicked")??);
    }
    Ok(late)
}

/// Stays until the relay closes.
async fn linger(kind: Kind, mut tcp: TcpStream, relay: SocketAddr) -> std::io::Result<()> {
    let head = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {relay}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    );
    // A login of 122 bytes, masked with zeros.
    let login = [&[0x82, 0x80 | 122, 0, 0, 0, 0, 0x01, 1][..], &[7; 120]].concat();
    match kind {
        Kind::Silent => drip(tcp, b"").await,
        Kind::SlowHead => drip(tcp, head.as_bytes()).await,
        Kind::TlsHello => {
            tcp.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await?;
            drip(tcp, b"").await
        }
        Kind::NoLogin => {
            tcp.write_all(head.as_bytes()).await?;
            drip(tcp, b"").await
        }
        Kind::SlowLogin => {
            tcp.write_all(head.as_bytes()).await?;
            drip(tcp, &login).await
        }
    }
}

/// Writes byte by byte, and reads until the end.
async fn drip(mut tcp: TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (mut read, mut write) = tcp.split();
    let mut bytes = bytes.iter();
    let mut answer = [0; 1024];
    let mut turn = tokio::time::interval(BYTE_EVERY);
    loop {
        tokio::select! {
            count = read.read(&mut answer) => if count? == 0 { return Ok(()) },
            _ = turn.tick(), if !bytes.as_slice().is_empty() => {
                if let Some(byte) = bytes.next() {
                    write.write_all(&[*byte]).await?;
                }
            }
        }
    }
}
