//! Wrong logins from many addresses, as fast as they can be made.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use happy_crypto::Identity;
use happy_link::driver::rng;
use happy_wire::relay::{Credential, PATH, SUBPROTOCOL, ToRelay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::device::dial;
use super::probe::Probe;
use super::{Report, address, beside, joined, memory, metric};
use crate::process::Relay;

/// Sockets that one address has open at a time.
const AT_ONCE: usize = 2;

/// Beside honest devices, which must not notice much of it.
pub fn run(addresses: usize, lasts: Duration, report: &mut Report) -> Result<()> {
    let relay = Relay::start_with(&["--no-app", "--log", "warn"])?;
    let memory = memory::Watch::start(relay.id());
    let probe = Probe::start(relay.address());
    let attempts = joined(beside(all(relay.address(), addresses, lasts)))?;
    probe.end("flood", report)?;
    let page = relay.get("/metrics")?;
    let refused = metric(&page, "sockets_refused_total{reason=\"failed_logins\"}");
    let logins = |result| metric(&page, &format!("logins_total{{result=\"{result}\"}}"));
    report.fact(format!(
        "flood: {:.0} wrong logins a second from {addresses} addresses; {} were checked, {} sent away, {refused} not listened to",
        attempts as f64 / lasts.as_secs_f64(),
        logins("bad_signature"),
        logins("crowded"),
    ));
    // OPERATE, Limits: 20 for each address, and four a second.
    let may_fail = addresses as f64 * (20.0 + 4.0 * (lasts.as_secs_f64() + 1.0));
    report.at_most("flood-signature-checks", logins("bad_signature"), "logins", may_fail);
    report.at_least("flood-not-listened-to", refused, "sockets", 1.0);
    report.at_most("flood-memory", memory.peak(), "MiB", memory::bound(1_024, 100, 0));
    Ok(())
}

async fn all(relay: SocketAddr, addresses: usize, lasts: Duration) -> Result<usize> {
    let until = Instant::now() + lasts;
    let login = wrong_login();
    let tasks: Vec<_> = (0..addresses * AT_ONCE)
        .map(|n| {
            let login = login.clone();
            tokio::spawn(async move {
                let mut attempts = 0;
                while Instant::now() < until {
                    attempts += 1;
                    // However it ends, the next one follows.
                    let _ =
                        tokio::time::timeout(Duration::from_secs(5), attempt(address(3, n % addresses), relay, &login))
                            .await;
                }
                attempts
            })
        })
        .collect();
    let mut attempts = 0;
    for task in tasks {
        attempts += task.await?;
    }
    Ok(attempts)
}

/// A websocket frame with a login that is well formed and signed by nobody.
fn wrong_login() -> Vec<u8> {
    let device = Identity::generate(&mut rng()).device_id();
    let login =
        ToRelay::Login { device, epoch: 1, client_nonce: [1; 16], credential: Credential::None, signature: [1; 64] };
    let mut frame = Vec::new();
    login.encode(&mut frame);
    // Masked with zeros; a length of less than 126 bytes stands in one.
    [&[0x82, 0x80 | frame.len() as u8, 0, 0, 0, 0][..], &frame].concat()
}

async fn attempt(from: Ipv4Addr, relay: SocketAddr, login: &[u8]) -> Result<()> {
    let mut tcp = dial(from, relay).await?;
    let head = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {relay}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    );
    tcp.write_all(head.as_bytes()).await?;
    let mut answer = [0; 1024];
    // Some of the answer is as good as all of it: the login is wrong whatever the challenge is.
    if tcp.read(&mut answer).await? > 0 {
        tcp.write_all(login).await?;
        while tcp.read(&mut answer).await? > 0 {}
    }
    Ok(())
}
