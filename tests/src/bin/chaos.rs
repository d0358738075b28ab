//! The proxy of the tests by itself, for real programs: `cargo xtask chaos --to 127.0.0.1:8080 --latency 100 --cut-every 5`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use happy_tests::chaos::{Chaos, Weather};

/// Treats what passes between devices and a relay as bad networks do.
#[derive(Parser)]
#[command(name = "cargo xtask chaos", bin_name = "cargo xtask chaos")]
struct Arguments {
    /// The relay, or any TCP server.
    #[arg(long)]
    to: SocketAddr,
    /// Where devices connect instead.
    #[arg(long, default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// How much later everything arrives, in milliseconds, each way.
    #[arg(long, default_value_t = 0)]
    latency: u64,
    /// And up to how much more.
    #[arg(long, default_value_t = 0)]
    jitter: u64,
    /// Bytes per second each way; 0 for no bound.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// The largest piece that arrives at once, bytes; 0 for no bound.
    #[arg(long, default_value_t = 0)]
    slice: usize,
    /// Take every connection away every so many seconds: by turns with a reset, so that the relay keeps it, and so that the device hears nothing of
    /// it. 0 for never.
    #[arg(long, default_value_t = 0)]
    cut_every: u64,
    /// Let nothing pass in one direction, then in the other, for two seconds every so many seconds. 0 for never.
    #[arg(long, default_value_t = 0)]
    stall_every: u64,
    /// End after so many seconds; 0 for never.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// How long a stall lasts.
const STALL: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let it = Arguments::parse();
    let weather = Weather {
        latency: Duration::from_millis(it.latency),
        jitter: Duration::from_millis(it.jitter),
        rate: it.rate,
        slice: it.slice,
        ..Weather::default()
    };
    let mut chaos = Chaos::start(Some(it.listen), it.to, weather).await?;
    anstream::println!("{} passes on to {}; end with Ctrl-C", chaos.origin(), it.to);
    let every = |seconds: u64| {
        // Something that never happens is still something to wait for.
        let period = Duration::from_secs(if seconds == 0 { u64::from(u32::MAX) } else { seconds });
        tokio::time::interval_at(tokio::time::Instant::now() + period, period)
    };
    let (mut cuts, mut stalls, mut end) = (every(it.cut_every), every(it.stall_every), every(it.seconds));
    let mut count = 0_u64;
    loop {
        tokio::select! {
            _ = cuts.tick() => {
                count += 1;
                chaos.strike();
                anstream::println!("cut {count}");
            }
            _ = stalls.tick() => {
                count += 1;
                let up = count.is_multiple_of(2);
                chaos.set(Weather { stalled_up: up, stalled_down: !up, ..weather });
                tokio::time::sleep(STALL).await;
                chaos.set(weather);
                anstream::println!("stalled {}", if up { "to the relay" } else { "from the relay" });
            }
            _ = end.tick() => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}
