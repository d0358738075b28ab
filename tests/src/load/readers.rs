//! Readers that have stopped reading, and senders that do not stop sending.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::{SinkExt, StreamExt};
use happy_wire::relay::{MAX_FRAME, ToRelay, WRITE_SECONDS};
use tokio_tungstenite::tungstenite::Message;

use super::device::{Device, tell};
use super::probe::Probe;
use super::{Report, address, beside, joined, memory, metric};
use crate::process::Relay;

/// Bytes a second that the relay reads from one device.
const RATE: u64 = 2 * 1024 * 1024;
/// Devices that send as much as they can to somebody who does not want it.
const FLOODS: usize = 8;
/// At most so much the relay takes at a time, bytes: two frames with their heads.
const READ: f64 = 2.0 * (MAX_FRAME + 14) as f64;
/// What is sent to a frozen reader at once, bytes, and how often.
const PIECE: usize = 32 * 1024;
const PIECE_EVERY: Duration = Duration::from_millis(20);
/// How long the frozen ones may take to be gone, beyond the time that the relay gives them.
const GRACE: Duration = Duration::from_secs(5);

/// Beside honest devices, which must not notice much of it.
pub fn run(frozen: usize, report: &mut Report) -> Result<()> {
    let rate = RATE.to_string();
    let relay = Relay::start_with(&["--no-app", "--log", "warn", "--max-rate", &rate])?;
    let memory = memory::Watch::start(relay.id());
    let probe = Probe::start(relay.address());
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let others = beside(all(frozen, relay.address(), stop.clone()));
    let patience = Duration::from_secs(WRITE_SECONDS) + GRACE;
    let mut closed = 0.0;
    while closed < frozen as f64 && begun.elapsed() < 2 * patience && !others.is_finished() {
        std::thread::sleep(Duration::from_millis(100));
        closed = metric(&relay.get("/metrics")?, "stalled_total");
    }
    let took = begun.elapsed();
    // What the relay has taken, since what the kernels hold on the way to it is theirs.
    let page = relay.get("/metrics")?;
    let flooded = metric(&page, "bytes_dropped_total{reason=\"not_named\"}") / FLOODS as f64;
    let flooded_for = begun.elapsed().as_secs_f64();
    stop.store(true, Relaxed);
    joined(others)?;
    probe.end("readers", report)?;
    report.fact(format!(
        "readers: {frozen} frozen readers and {FLOODS} floods for {:.0} s; {} frames dropped for full queues, {} times not read",
        took.as_secs_f64(),
        metric(&page, "frames_dropped_total{reason=\"queue_full\"}"),
        metric(&page, "paced_total"),
    ));
    report.at_least("readers-closed", closed, "readers", frozen as f64);
    report.time_at_most("readers-closed-after", took.as_secs_f64(), "s", patience.as_secs_f64());
    // The burst is what may come in a second, and the last read may go beyond what is left.
    let may_pass = RATE as f64 * (flooded_for + 1.0) + READ;
    report.at_most("readers-flood-bytes-each", flooded, "bytes", may_pass);
    report.at_least("readers-flood-bytes-each", flooded, "bytes", RATE as f64);
    report.at_most("readers-memory", memory.peak(), "MiB", memory::bound(100, 2 * frozen + FLOODS, frozen));
    Ok(())
}

async fn all(frozen: usize, relay: SocketAddr, stop: Arc<AtomicBool>) -> Result<()> {
    for n in 0..frozen {
        let (mut reader, mut sender) = (Device::new(), Device::new());
        let mut stuck = reader.join(address(7, n), relay).await?;
        let mut socket = sender.join(address(8, n), relay).await?;
        tell(&mut stuck, &ToRelay::Peers(vec![sender.id()])).await?;
        tell(&mut socket, &ToRelay::Peers(vec![reader.id()])).await?;
        let stop = stop.clone();
        tokio::spawn(async move {
            let _unread = stuck;
            let (mut write, mut read) = socket.split();
            // Its own answers it reads.
            tokio::spawn(async move { while read.next().await.is_some_and(|message| message.is_ok()) {} });
            let mut frame = Vec::new();
            ToRelay::Send { to: reader.id(), tag: 0, payload: &[1; PIECE] }.encode(&mut frame);
            let frame = bytes(frame);
            while !stop.load(Relaxed) && write.send(frame.clone()).await.is_ok() {
                tokio::time::sleep(PIECE_EVERY).await;
            }
        });
    }
    let mut floods = Vec::new();
    for n in 0..FLOODS {
        let mut device = Device::new();
        let socket = device.join(address(8, frozen + n), relay).await?;
        floods.push(tokio::spawn(flood(socket, stop.clone())));
    }
    for flood in floods {
        flood.await??;
    }
    Ok(())
}

fn bytes(frame: Vec<u8>) -> Message {
    Message::Binary(frame.into())
}

async fn flood(socket: Box<super::device::Socket>, stop: Arc<AtomicBool>) -> Result<()> {
    let (mut write, mut read) = socket.split();
    tokio::spawn(async move { while read.next().await.is_some_and(|message| message.is_ok()) {} });
    let mut frame = Vec::new();
    ToRelay::Send { to: happy_crypto::DeviceId::from_bytes([1; 32]), tag: 0, payload: &[1; 1024] }.encode(&mut frame);
    let frame = bytes(frame);
    while !stop.load(Relaxed) {
        // One that is made to wait looks up from time to time.
        if let Ok(written) = tokio::time::timeout(Duration::from_secs(1), write.send(frame.clone())).await {
            written?;
        }
    }
    Ok(())
}
