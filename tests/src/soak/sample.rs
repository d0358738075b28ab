//! What the processes weigh: memory, descriptors and threads, from `/proc`.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::holders_in;

/// What one process weighs, or several in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Memory, what is shared divided among those that share it, KiB.
    pub pss: u64,
    /// Resident memory, KiB.
    pub rss: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Weight {
    fn of(process: u32) -> Result<Weight> {
        let folder = Path::new("/proc").join(process.to_string());
        let rollup = fs::read_to_string(folder.join("smaps_rollup"))?;
        let status = fs::read_to_string(folder.join("status"))?;
        Ok(Weight {
            pss: figure(&rollup, "Pss:")?,
            rss: figure(&rollup, "Rss:")?,
            descriptors: fs::read_dir(folder.join("fd"))?.count() as u64,
            threads: figure(&status, "Threads:")?,
        })
    }

    fn plus(self, other: Weight) -> Weight {
        Weight {
            pss: self.pss + other.pss,
            rss: self.rss + other.rss,
            descriptors: self.descriptors + other.descriptors,
            threads: self.threads + other.threads,
        }
    }
}

fn figure(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.pss, self.rss, self.descriptors, self.threads)
    }
}

/// All of them at one time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Seconds since the beginning.
    pub at: f64,
    /// Whether no phone was connected, and nothing was going on that one had begun.
    pub quiet: bool,
    /// Phones that were there.
    pub phones: usize,
    /// The daemon.
    pub daemon: Weight,
    /// The relay.
    pub relay: Weight,
    /// How many holders.
    pub holders: usize,
    /// All of them.
    pub held: Weight,
}

impl Sample {
    /// The columns of the file.
    pub const HEAD: &str = "seconds,quiet,phones,daemon_pss_kib,daemon_rss_kib,daemon_descriptors,daemon_threads,relay_pss_kib,relay_rss_kib,\
                            relay_descriptors,relay_threads,holders,holders_pss_kib,holders_rss_kib,holders_descriptors,holders_threads";

    /// Weighs them.
    ///
    /// # Errors
    /// When daemon or relay are gone. A holder may go meanwhile.
    pub fn take(at: f64, quiet: bool, phones: usize, daemon: u32, relay: u32, home: &Path) -> Result<Sample> {
        let holders = holders_in(home).into_iter();
        let holders: Vec<_> =
            holders.filter_map(|id| Weight::of(id.as_raw_nonzero().get().unsigned_abs()).ok()).collect();
        Ok(Sample {
            at,
            quiet,
            phones,
            daemon: Weight::of(daemon).context("the daemon")?,
            relay: Weight::of(relay).context("the relay")?,
            holders: holders.len(),
            held: holders.into_iter().fold(Weight::default(), Weight::plus),
        })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { at, quiet, phones, daemon, relay, holders, held } = self;
        write!(f, "{at:.0},{},{phones},{daemon},{relay},{holders},{held}", u8::from(*quiet))
    }
}

/// The slope of a line through points (Theil–Sen: the median of the slopes of all pairs), which single outliers do not move. None with less
/// than three points.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes: Vec<f64> = Vec::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let later = points[index + 1..].iter().filter(|(later, _)| later > x);
        slopes.extend(later.map(|(later, value)| (value - y) / (later - x)));
    }
    slopes.sort_unstable_by(f64::total_cmp);
    (points.len() >= 3).then(|| slopes.get(slopes.len() / 2).copied())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_that_of_the_line_and_not_of_an_outlier() {
        let mut points: Vec<_> = (0..20).map(|at| (f64::from(at), 7.0 + 2.0 * f64::from(at))).collect();
        assert!((slope(&points).unwrap() - 2.0).abs() < 1e-9);
        points[7].1 = 10_000.0;
        assert!((slope(&points).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(slope(&points[..2]), None);
    }

    #[test]
    fn a_process_is_weighed_and_one_more_file_is_seen() {
        let own = std::process::id();
        // Other tests of this process open files too.
        let before = Weight::of(own).unwrap();
        let files: Vec<_> = (0..200).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        let after = Weight::of(own).unwrap();
        assert!(after.descriptors >= before.descriptors + 100, "{before:?} {after:?} {}", files.len());
        assert!(after.pss > 0 && after.rss >= after.pss && after.threads > 0);
    }
}
