//! A node is told to end, by SIGTERM, with another one beside it: whether anything is lost, and how evenly its devices come back.

use std::time::Instant;

use anyhow::Result;
use rustix::process::Signal;

use super::links::Links;
use super::machine::{Cores, Watch};
use super::nodes::Nodes;
use super::returning::{Arrival, Crowd};

/// Devices of the node that ends. They come back at 500 a second, 2 ms each (`PROTOCOL 7`).
const CROWD: usize = 5_000;
/// Pairs of links with messages that must arrive.
const LINKS: usize = 16;
/// Returns are counted by the second: of the 500 that come in one, chance alone moves a twentieth (√500, if each came at a time of its own; they
/// are laid out, so that it is less), and a fifth is four times that.
const BIN: f64 = 1.0;
/// What each link adds to the time that it was named, `PROTOCOL 13`: so much of it, and so many seconds. The last ones thin out over what that is
/// for the longest time.
const LATER: (f64, f64) = (0.1, 0.1);

pub struct Drained {
    /// Messages on links, and how many of them were lost or came twice.
    pub sent: u64,
    pub lost: u64,
    /// How far the second that is farthest from it is from the mean one, as a part of it.
    pub uneven: f64,
    /// From the signal until the last one was back, seconds.
    pub back: f64,
    /// Returns in each second.
    pub each: Vec<usize>,
}

/// Measures once; gives also what other processes took meanwhile.
pub fn measure(cores: Cores) -> Result<(Drained, f64)> {
    let mut nodes = Nodes::start(cores, true)?;
    let mut crowd = Crowd::connect(CROWD, &nodes.one, &nodes.other)?;
    let links = Links::start(LINKS, [nodes.one.target.port, nodes.other.target.port])?;

    let watch = Watch::begin(&nodes.ids())?;
    let begun = Instant::now();
    nodes.one.signal(Signal::TERM)?;
    let arrivals = crowd.returned(|| Ok(()))?;
    nodes.one.ended()?;
    let foreign = watch.others()?;
    let [sent, lost] = links.finish()?;
    drop(crowd);
    nodes.other.balances()?;

    let mut times: Vec<f64> = arrivals.iter().map(|Arrival { at, .. }| (*at - begun).as_secs_f64()).collect();
    times.sort_unstable_by(f64::total_cmp);
    let (each, uneven) = evenness(&times);
    let back = times.last().copied().unwrap_or(f64::NAN);
    Ok((Drained { sent, lost, uneven, back, each }, foreign))
}

/// Returns in each bin from the first one on, and how far the farthest bin is from the mean of those before the last ones thin out. Of
/// those that do only one that is too full counts.
fn evenness(times: &[f64]) -> (Vec<usize>, f64) {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return (Vec::new(), f64::NAN) };
    let mut each = vec![0; ((last - first) / BIN) as usize + 1];
    times.iter().for_each(|time| each[((time - first) / BIN) as usize] += 1);
    let thins_out = LATER.0 * last + LATER.1;
    let whole = (((last - first - thins_out) / BIN) as usize).clamp(1, each.len());
    let mean = each.iter().take(whole).sum::<usize>() as f64 / whole as f64;
    let off = |count: &usize| *count as f64 / mean - 1.0;
    let (flat, thin) = each.split_at(whole);
    let uneven = flat.iter().map(|count| off(count).abs()).chain(thin.iter().map(off)).fold(0.0, f64::max);
    (each, uneven)
}
