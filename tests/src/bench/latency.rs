//! Keystroke echo: key → link → relay → daemon → holder → PTY and all the way back, on one machine.

use std::time::Duration;

use anyhow::Result;
use happy_tests::process::{Home, Relay};

use crate::baseline::{BarePty, BareWebsocket};
use crate::sample::{Sample, goal};

/// How much to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keys typed on each path.
    #[arg(long, default_value_t = 2_000)]
    keys: usize,
    /// Milliseconds between keys: a person's pauses, during which every process falls asleep. With none, each key follows the echo of the last one.
    #[arg(long, default_value_t = 5)]
    pause: u64,
}

/// Keys without pauses on one path, before it is the turn of the next one.
const IN_A_ROW: usize = 50;

/// Keys at the beginning that are not counted: the first ones pay for memory and caches.
const WARM_UP: usize = 50;

pub async fn run(arguments: Arguments) -> Result<()> {
    let relay = Relay::start()?;
    let home = Home::start(&relay.origin())?;
    let mut phone = home.let_pair("owner", "bench").await?;
    let session = phone.create(&["cat"]).await?;
    let mut viewer = phone.attach(session.id).await?;
    let mut pty = BarePty::open()?;
    let mut websocket = BareWebsocket::open().await?;

    let (mut whole, mut bare_pty, mut bare_websocket) = (Sample::default(), Sample::default(), Sample::default());
    let in_a_row = if arguments.pause == 0 { IN_A_ROW } else { 1 };
    // All in turn, so that all three meet the same weather.
    for round in 0..(WARM_UP + arguments.keys).div_ceil(in_a_row) {
        let counts = round * in_a_row >= WARM_UP;
        for _ in 0..in_a_row {
            whole.add_if(counts, phone.echo(&mut viewer).await?);
        }
        for _ in 0..in_a_row {
            bare_pty.add_if(counts, pty.echo()?);
        }
        for _ in 0..in_a_row {
            bare_websocket.add_if(counts, websocket.echo().await?);
        }
        if arguments.pause > 0 {
            tokio::time::sleep(Duration::from_millis(arguments.pause)).await;
        }
    }

    anstream::println!("echo of one key, loopback, {} keys, {} ms apart", whole.len(), arguments.pause);
    anstream::println!("{:<44}{:>9}{:>9}{:>12}", "path", "p50 ms", "p99 ms", "p50 ratio");
    for (name, sample) in [
        ("bare PTY", &bare_pty),
        ("bare websocket", &bare_websocket),
        ("phone, relay, daemon, holder, PTY (sealed)", &whole),
    ] {
        let ratio = sample.percentile(50) / bare_pty.percentile(50);
        anstream::println!("{name:<44}{:>9.3}{:>9.3}{ratio:>11.1}×", sample.percentile(50), sample.percentile(99));
    }
    goal("echo-p50-over-bare-pty", whole.percentile(50) - bare_pty.percentile(50), "ms", 0.3);
    goal("echo-p99", whole.percentile(99), "ms", 2.0);
    Ok(())
}
