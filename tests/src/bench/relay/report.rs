//! Tables, and the goals that the figures are held against.

use std::collections::BTreeMap;

use super::flow::Shape;
use super::memory::{BACK_TO, Weight};
use super::server::Kind;
use super::{SHAPES, SPARSE, SPARSE_64};

/// How a value is to stand to its bound.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Collects goals while the tables are printed, since they stand at the end.
#[derive(Default)]
pub struct Report {
    goals: Vec<String>,
}

/// What passed through a server: frames a second; the median of what each of its cells is to the bare server's of the same repeat, which was
/// measured just before and has met the same weather; processor seconds a frame.
#[derive(Clone, Copy)]
pub struct Flow {
    pub rate: f64,
    pub ratio: f64,
    pub cpu: f64,
}

pub fn flow_head() {
    anstream::println!("\nframes forwarded, server on one core");
    anstream::println!(
        "{:<34}{:<18}{:>12}{:>9}{:>14}",
        "pairs × payload, window",
        "server",
        "frames/s",
        "ratio",
        "µs CPU/frame"
    );
}

pub fn memory_head() {
    anstream::println!("\nmemory of a connection at the server, KiB (the kernel's own aside)");
    anstream::println!("{:<18}{:>12}{:>9}{:>14}", "server", "connections", "idle", "after a burst");
}

impl Report {
    fn goal(&mut self, name: &str, value: f64, unit: &str, bound: Bound) {
        let (met, bound) = match bound {
            Bound::AtLeast(bound) => (value >= bound, bound),
            Bound::AtMost(bound) => (value <= bound, bound),
        };
        let verdict = if met { "met" } else { "missed" };
        self.goals.push(format!("goal {name} {value:.3} {unit} {bound} {verdict}"));
    }

    pub fn print_goals(&self) {
        self.goals.iter().for_each(|goal| anstream::println!("{goal}"));
    }

    pub fn flow(&mut self, shape: Shape, cells: &BTreeMap<Kind, Flow>) {
        let name = format!("{} × {} B, {}", shape.pairs, shape.payload, shape.window);
        for (kind, Flow { rate, ratio, cpu }) in cells {
            anstream::println!("{name:<34}{:<18}{rate:>12.0}{ratio:>9.2}{:>14.2}", kind.name(), cpu * 1e6);
        }
        let relay = cells.get(&Kind::Relay).filter(|_| !cells.contains_key(&Kind::RelayTls));
        if let Some(&Flow { ratio, cpu, .. }) = relay {
            match shape {
                _ if shape == SHAPES[3] => self.goal("burst-64", ratio, "ratio", Bound::AtLeast(0.60)),
                _ if shape == SHAPES[4] => self.goal("burst-1024", ratio, "ratio", Bound::AtLeast(0.55)),
                _ if shape == SHAPES[5] => self.goal("burst-16384", ratio, "ratio", Bound::AtLeast(0.85)),
                SPARSE => {
                    self.goal("sparse", ratio, "ratio", Bound::AtLeast(0.95));
                    self.goal("sparse-cpu", cpu * 1e6, "µs", Bound::AtMost(7.5));
                }
                SPARSE_64 => self.goal("sparse-64", ratio, "ratio", Bound::AtLeast(0.95)),
                _ => {}
            }
        }
        if let Some(Flow { ratio, .. }) = cells.get(&Kind::RelayTls) {
            let (name, bound) = match shape.payload {
                _ if shape.window == 1 => ("tls-sparse", 0.80),
                64 => ("tls-64", 0.55),
                1024 => ("tls-1024", 0.40),
                _ => ("tls-16384", 0.33),
            };
            self.goal(name, *ratio, "ratio", Bound::AtLeast(bound));
        }
    }

    pub fn quiet(&mut self, cells: &BTreeMap<Kind, [f64; 2]>) {
        anstream::println!("\nround trip over the server and back, one under way, ms");
        anstream::println!("{:<18}{:>9}{:>9}", "server", "p50", "p99");
        for (kind, [p50, p99]) in cells {
            anstream::println!("{:<18}{p50:>9.3}{p99:>9.3}", kind.name());
        }
        if let (Some(bare), Some(relay)) = (cells.get(&Kind::Tcp), cells.get(&Kind::Relay)) {
            self.goal("quiet-p50", relay[0] / bare[0], "ratio", Bound::AtMost(1.05));
            self.goal("quiet-p99", relay[1] / bare[1], "ratio", Bound::AtMost(1.25));
        }
    }

    pub fn beside(&mut self, cells: &BTreeMap<Kind, [f64; 3]>) {
        anstream::println!("\nthe same beside 20,000 messages of 1 KiB a second among 100 other pairs, ms");
        anstream::println!("{:<18}{:>9}{:>9}{:>24}", "server", "p50", "p99", "longest without delivery");
        for (kind, [p50, p99, gap]) in cells {
            anstream::println!("{:<18}{p50:>9.3}{p99:>9.3}{gap:>24.1}", kind.name());
        }
        if let (Some(bare), Some(relay)) = (cells.get(&Kind::Tcp), cells.get(&Kind::Relay)) {
            self.goal("beside-p99", relay[1] / bare[1], "ratio", Bound::AtMost(1.4));
            self.goal("beside-gap", relay[2], "ms", Bound::AtMost(50.0));
        }
    }

    pub fn memory(&mut self, kind: Kind, count: usize, weight: &Weight) {
        let kib = |bytes: f64| bytes / 1024.0;
        let after = weight.after.map_or("-".to_owned(), |after| format!("{:.1}", kib(after)));
        anstream::println!("{:<18}{count:>12}{:>9.1}{after:>14}", kind.name(), kib(weight.idle));
        let (name, bound) = match kind {
            Kind::Relay => ("idle", 6.0),
            Kind::RelayTls => ("idle-tls", 16.0),
            _ => return,
        };
        if let Some(after) = weight.after {
            self.goal(&format!("{name}-{count}"), kib(weight.idle), "KiB", Bound::AtMost(bound));
            self.goal(&format!("{name}-after-burst"), after / weight.idle, "ratio", Bound::AtMost(BACK_TO));
        }
    }

    pub fn logins(&mut self, rate: f64, share: f64) {
        // The load signs as much as the server verifies, so that it may be the load whose core is full.
        let each = rate / share;
        anstream::println!(
            "\n{rate:.0} logins a second, while the server used {share:.2} of its core: {each:.0} a core"
        );
        self.goal("logins-a-core", each, "/s", Bound::AtLeast(5_600.0));
    }

    pub fn stuck(&mut self, memory: f64, others: f64, cut: f64) {
        let kib = memory / 1024.0;
        anstream::println!("\na stuck reader: {kib:.0} KiB; p99 of others ×{others:.2}; cut after {cut:.1} s");
        self.goal("stuck-memory", kib, "KiB", Bound::AtMost(256.0));
        self.goal("stuck-others-p99", others, "ratio", Bound::AtMost(1.2));
        self.goal("stuck-cut", cut, "s", Bound::AtMost(11.0));
    }

    pub fn nodes(&mut self, shape: Shape, [raw, near, across, of_raw, of_near, commands, near_cpu, cpu]: [f64; 8]) {
        anstream::println!(
            "\n{} × {} B, {}: PUBLISH through Redis alone {raw:.0} frames/s, one node {near:.0}, two nodes {across:.0} \
             ({of_raw:.2} and {of_near:.2}); a frame costs one node {:.2} µs, two {:.2}; {commands:.5} commands a frame beside the publishes",
            shape.pairs,
            shape.payload,
            shape.window,
            near_cpu * 1e6,
            cpu * 1e6
        );
        let size = shape.payload;
        self.goal(&format!("redis-hop-{size}"), of_raw, "ratio", Bound::AtLeast(0.7));
        if size == 256 {
            self.goal("redis-hop-rate", across, "/s", Bound::AtLeast(500_000.0));
        }
        // What Redis is asked from time to time, whatever passes, is far below.
        self.goal(&format!("redis-commands-{size}"), commands, "/frame", Bound::AtMost(0.001));
    }

    pub fn across(&mut self, [near, far]: [f64; 2], entry: f64) {
        anstream::println!("\nround trip within a node {near:.3} ms, across two over Redis {far:.3} ms (p50)");
        anstream::println!("a device takes {entry:.0} bytes of Redis");
        self.goal("redis-entry", entry, "B", Bound::AtMost(100.0));
    }

    pub fn direct(&mut self, shape: Shape, [near, across, ratio, commands, near_cpu, cpu]: [f64; 6]) {
        let size = shape.payload;
        anstream::println!(
            "\n{} × {size} B, {}: one node {near:.0} frames/s, two nodes directly {across:.0} ({ratio:.2}); a frame costs one \
             node {:.2} µs, two {:.2}; {commands:.5} commands to Redis a frame",
            shape.pairs,
            shape.window,
            near_cpu * 1e6,
            cpu * 1e6
        );
        self.goal(&format!("direct-hop-{size}"), ratio, "ratio", Bound::AtLeast(0.45));
        // Leases and what a node asks from time to time, whatever passes.
        self.goal(&format!("direct-commands-{size}"), commands, "/frame", Bound::AtMost(0.001));
    }

    pub fn directly_across(&mut self, [near, far]: [f64; 2]) {
        anstream::println!("\nround trip within a node {near:.3} ms, across two directly {far:.3} ms (p50)");
        self.goal("direct-hop-roundtrip", far / near, "ratio", Bound::AtMost(2.0));
    }

    pub fn loss(&mut self, crowd: usize, [back, died, sent_away, stolen]: [f64; 4], [others, bare]: [[f64; 2]; 2]) {
        anstream::println!(
            "\na node dies: its {crowd} devices are back at the other one after {back:.2} s, each sent away {sent_away:.2} times; \
             its sockets were closed after {died:.2} s; from then on the p99 of the others' round trips {:.3} ms, before {:.3}; through bare TCP beside it {:.3}, before {:.3}; \
             other machines on the host had {stolen:.3} core meanwhile",
            others[1],
            others[0],
            bare[1],
            bare[0]
        );
        self.goal("loss-all-back", back, "s", Bound::AtMost(5.0));
        self.goal("loss-others-p99", others[1] / others[0], "ratio", Bound::AtMost(2.0));
        // The load's own core is full while the crowd returns, which a server that only forwards shows as well; that one has the core of the logins in
        // common with the node, though, so it does not tell how much of it is theirs.
        self.goal("loss-others-p99-over-bare", others[1] / bare[1], "ratio", Bound::AtMost(2.0));
    }

    pub fn drain(&mut self, sent: u64, lost: u64, uneven: f64, back: f64, each: &[usize]) {
        anstream::println!(
            "\na node is told to end: of {sent} messages that must arrive {lost} were lost; all its devices were back after \
             {back:.1} s, each second {each:?}"
        );
        self.goal("drain-lost", lost as f64, "messages", Bound::AtMost(0.0));
        self.goal("drain-unevenness", uneven, "ratio", Bound::AtMost(0.2));
    }
}
