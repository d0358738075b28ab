//! One of two nodes dies: how soon its devices are back at the other one, and what the devices of that one notice of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::machine::{Cores, Watch};
use super::nodes::Nodes;
use super::returning::Crowd;
use super::roundtrip::Rounds;
use super::server::{Kind, Server};

/// Devices of the node that dies.
pub const CROWD: usize = 10_000;
/// Logins that a node checks in a second, `--max-logins`: what has all of them back in time, four fifths of it being promised, and
/// leaves the core more than half of its time for those who are there.
pub const LOGINS: u32 = 3_500;
/// Pairs of the node that stays, each with a round trip every [`EACH`]: 10,000 frames a second.
const OTHERS: usize = 50;
/// The same through a server that only forwards, by which the machine's own part can be seen.
const BARE: usize = 10;
const EACH: Duration = Duration::from_millis(10);
/// How long one may take.
const LONGEST: Duration = Duration::from_secs(30);
/// Before the node dies.
const BEFORE: Duration = Duration::from_secs(3);
/// What other machines on the same host may have of this one's processors meanwhile, in cores. The rest of the benchmark allows more, but one round trip in a
/// hundred is slower than p99, and a processor that stands still for a few hundredths of the time is all that would be seen.
const STOLEN_AT_MOST: f64 = 0.02;
/// How often such a host is waited for; then what the rest allows has to do, and the figures say so.
pub const WAITED_FOR: usize = 6;

pub struct Loss {
    /// From the death of the node until the last one is back, seconds.
    pub back: f64,
    /// Until the process that was killed had given back its sockets, seconds.
    pub died: f64,
    /// p99 of the others' round trips before the death, and from then until the last one is back, ms.
    pub others: [f64; 2],
    /// The same through the server that only forwards.
    pub bare: [f64; 2],
    /// How many of the crowd were named a time, of each.
    pub sent_away: f64,
    /// What other machines on the same host had of this one's processors, cores.
    pub stolen: f64,
}

/// Measures once; gives also what other processes took meanwhile, which is too much where the host is to be `calm` and is not.
pub fn measure(cores: Cores, crowd: usize, calm: bool) -> Result<(Loss, f64)> {
    let mut nodes = Nodes::start_with(cores, &["--max-logins", &LOGINS.to_string()])?;
    let bare = Server::start(Kind::Tcp, cores)?;
    let mut crowd = Crowd::connect(crowd, &nodes.one, &nodes.other)?;
    let mut rounds = Rounds::new(&[(&nodes.other, OTHERS), (&bare, BARE)], EACH)?;
    let watch = Watch::begin(&[nodes.one.id(), nodes.other.id(), nodes.redis.process.id(), bare.id()])?;
    let begun = Instant::now();
    let before = rounds.run(|| begun.elapsed() >= BEFORE)?;

    let lost = Instant::now();
    nodes.one.signal(Signal::KILL)?;
    // What the kernel has to do for 10,000 sockets of a process that was killed it does in pieces of up to 12 ms, 0.1 s in all, and on the core that the
    // other node and the bare server have. Where nodes have machines of their own it is nobody's, and here it is not counted.
    rounds.run(|| nodes.one.has_ended().unwrap_or(true) || lost.elapsed() > LONGEST)?;
    let died = lost.elapsed();
    let during = rounds.run(|| crowd.is_whole() || lost.elapsed() > LONGEST)?;
    nodes.one.buried()?;
    let (stolen, others) = (watch.stolen()?, watch.others()?);
    let foreign = if calm && stolen > STOLEN_AT_MOST { f64::INFINITY } else { others };
    rounds.finish()?;

    let arrivals = crowd.returned(|| Ok(()))?;
    let last = arrivals.iter().map(|arrival| arrival.at).max().context("nobody came")?;
    let sent_away = arrivals.iter().map(|arrival| f64::from(arrival.sent_away)).sum::<f64>() / arrivals.len() as f64;
    let p99 = |server: usize| [&before, &during].map(|samples| samples[server].percentile(99));
    Ok((
        Loss {
            back: (last - lost).as_secs_f64(),
            died: died.as_secs_f64(),
            others: p99(0),
            bare: p99(1),
            sent_away,
            stolen,
        },
        foreign,
    ))
}
