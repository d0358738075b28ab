//! The relay beside servers that only forward, on two cores: one for the server, one for the load.
//!
//! What is compared is measured in turn, cell by cell, so that all meet the same weather; a cell during which others used the
//! machine is thrown away and measured again; what counts is the median. After each cell the relay's own books are compared with what the load
//! sent and got, to the frame.

mod bare;
mod device;
mod drain;
mod flow;
mod links;
mod logins;
mod loss;
mod machine;
mod memory;
mod nodes;
mod poll;
mod report;
mod returning;
mod roundtrip;
mod server;
mod stuck;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

pub use bare::{Arguments as BareArguments, run as run_bare};

use self::flow::Shape;
use self::machine::{Cores, Judge, Watch, median, open_many, ratios};
use self::report::Report;
use self::server::{Kind, Server};

/// How much to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Each cell so many times; the median counts.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Each cell once, and the smaller crowd: for a quick look.
    #[arg(long)]
    quick: bool,
    /// Only this group of cells; give it once for each.
    #[arg(long, value_enum)]
    only: Vec<Group>,
    /// Takes cells as they come, also when others use the machine.
    #[arg(long)]
    lenient: bool,
}

/// What is measured together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Group {
    /// Forwarded frames a second.
    Flow,
    /// The same with TLS.
    Tls,
    /// Round trips, nothing else passing.
    Quiet,
    /// Round trips beside 20,000 messages a second.
    Beside,
    /// Memory of idle connections and after a burst.
    Memory,
    /// Logins a second.
    Logins,
    /// Devices that stop reading.
    Stuck,
    /// Two nodes over Redis.
    Nodes,
    /// Two nodes that pass frames directly.
    Direct,
    /// A node that dies.
    Loss,
    /// A node that is told to end.
    Drain,
}

const GROUPS: [Group; 11] = [
    Group::Flow,
    Group::Tls,
    Group::Quiet,
    Group::Beside,
    Group::Memory,
    Group::Logins,
    Group::Stuck,
    Group::Nodes,
    Group::Direct,
    Group::Loss,
    Group::Drain,
];

/// Windows stay below the relay's queue of 256 KiB for each device; links keep 32 to 64 KiB under way.
const SHAPES: [Shape; 8] = [
    Shape { pairs: 1, payload: 64, window: 256 },
    Shape { pairs: 1, payload: 1024, window: 128 },
    Shape { pairs: 1, payload: 16 * 1024, window: 12 },
    Shape { pairs: 100, payload: 64, window: 32 },
    Shape { pairs: 100, payload: 1024, window: 32 },
    Shape { pairs: 100, payload: 16 * 1024, window: 4 },
    SPARSE_64,
    SPARSE,
];
/// One frame under way for each pair: what a terminal looks like.
const SPARSE: Shape = Shape { pairs: 100, payload: 1024, window: 1 };
const SPARSE_64: Shape = Shape { pairs: 100, payload: 64, window: 1 };
const CROWDS: [usize; 2] = [1_000, 10_000];
/// What takes ten seconds and more is measured so many times at most.
const ROUNDS: usize = 3;

pub fn run(arguments: Arguments) -> Result<()> {
    let sockets = open_many()?;
    ensure!(sockets >= 12_000, "12,000 open files are needed, {sockets} are allowed; raise `ulimit -n`");
    let mut bench = Bench {
        cores: Cores::take()?,
        judge: Judge { lenient: arguments.lenient, thrown_away: 0 },
        repeats: if arguments.quick { 1 } else { arguments.repeats.max(1) },
        quick: arguments.quick,
        report: Report::default(),
    };
    let groups = if arguments.only.is_empty() { GROUPS.to_vec() } else { arguments.only };
    bench.forwarding(&groups)?;
    for group in groups {
        match group {
            Group::Memory => bench.memory()?,
            Group::Logins => bench.logins()?,
            Group::Stuck => bench.stuck()?,
            Group::Nodes => bench.nodes()?,
            Group::Direct => bench.direct()?,
            Group::Loss => bench.loss()?,
            Group::Drain => bench.drain()?,
            Group::Flow | Group::Tls | Group::Quiet | Group::Beside => {}
        }
    }
    anstream::println!(
        "\n{} repeats; {} cells were disturbed and measured again",
        bench.repeats,
        bench.judge.thrown_away
    );
    bench.report.print_goals();
    Ok(())
}

struct Bench {
    cores: Cores,
    judge: Judge,
    repeats: usize,
    quick: bool,
    report: Report,
}

impl Bench {
    /// The groups in which servers stand beside each other.
    fn forwarding(&mut self, groups: &[Group]) -> Result<()> {
        let has = |group| groups.contains(&group);
        if ![Group::Flow, Group::Tls, Group::Quiet, Group::Beside].into_iter().any(has) {
            return Ok(());
        }
        let kinds = [Kind::Tcp, Kind::Websocket, Kind::Relay, Kind::RelayTls];
        let servers = kinds.map(|kind| Server::start(kind, self.cores));
        let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
        let plain: Vec<&Server> = servers.iter().filter(|server| server.kind() != Kind::RelayTls).collect();
        let with_tls: Vec<&Server> = servers.iter().filter(|server| server.kind() != Kind::Websocket).collect();
        if has(Group::Flow) {
            self.flow(&plain, &SHAPES)?;
        }
        if has(Group::Tls) {
            let shapes = [SHAPES[3], SHAPES[4], SHAPES[5], SPARSE];
            self.flow(&with_tls, &shapes)?;
        }
        if has(Group::Quiet) {
            self.quiet(&plain)?;
        }
        if has(Group::Beside) {
            self.beside(&plain)?;
        }
        Ok(())
    }

    fn flow(&mut self, servers: &[&Server], shapes: &[Shape]) -> Result<()> {
        report::flow_head();
        for shape in shapes {
            let mut cells: BTreeMap<Kind, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
            for _ in 0..self.repeats {
                for server in servers {
                    let what = format!("{} {shape:?}", server.kind().name());
                    let passed = self
                        .judge
                        .undisturbed(&what, &[server.id()], || flow::measure(server, server, &[server], *shape))?;
                    let (rates, cpus) = cells.entry(server.kind()).or_default();
                    rates.push(passed.rate);
                    cpus.push(passed.cpu);
                }
            }
            let bare = cells.get(&Kind::Tcp).map(|(rates, _)| rates.clone()).unwrap_or_default();
            let cells = cells.into_iter().map(|(kind, (rates, cpus))| {
                let ratio = median(ratios(&rates, &bare));
                (kind, report::Flow { rate: median(rates), ratio, cpu: median(cpus) })
            });
            self.report.flow(*shape, &cells.collect());
        }
        Ok(())
    }

    fn quiet(&mut self, servers: &[&Server]) -> Result<()> {
        let ids: Vec<u32> = servers.iter().map(|server| server.id()).collect();
        let mut cells = vec![[Vec::new(), Vec::new()]; servers.len()];
        for _ in 0..self.repeats {
            let measured = self.judge.undisturbed("round trips", &ids, || roundtrip::quiet(servers))?;
            for (cell, [p50, p99]) in cells.iter_mut().zip(measured) {
                cell[0].push(p50);
                cell[1].push(p99);
            }
        }
        let cells = servers.iter().zip(cells).map(|(server, cell)| (server.kind(), cell.map(median))).collect();
        self.report.quiet(&cells);
        Ok(())
    }

    fn beside(&mut self, servers: &[&Server]) -> Result<()> {
        let mut cells: BTreeMap<Kind, [Vec<f64>; 3]> = BTreeMap::new();
        for _ in 0..self.repeats {
            for server in servers {
                let what = format!("{} beside talk", server.kind().name());
                let beside = self.judge.undisturbed(&what, &[server.id()], || roundtrip::beside(server))?;
                let cell = cells.entry(server.kind()).or_default();
                for (values, value) in cell.iter_mut().zip([beside.p50, beside.p99, beside.gap]) {
                    values.push(value);
                }
            }
        }
        self.report.beside(&cells.into_iter().map(|(kind, cell)| (kind, cell.map(median))).collect());
        Ok(())
    }

    /// Memory does not depend on the weather, and a crowd takes its time: once is enough.
    fn memory(&mut self) -> Result<()> {
        report::memory_head();
        let crowds = if self.quick { &CROWDS[..1] } else { &CROWDS[..] };
        for &count in crowds {
            for kind in [Kind::Tcp, Kind::Websocket, Kind::Relay, Kind::RelayTls] {
                let burst = kind.is_relay() && (count == CROWDS[1] || self.quick);
                let weight = memory::weigh(kind, self.cores, count, burst)?;
                self.report.memory(kind, count, &weight);
            }
        }
        Ok(())
    }

    fn logins(&mut self) -> Result<()> {
        let server = Server::start(Kind::Relay, self.cores)?;
        let (mut rates, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..self.repeats {
            let (rate, share) = self.judge.undisturbed("logins", &[server.id()], || logins::measure(&server))?;
            rates.push(rate);
            shares.push(share);
        }
        self.report.logins(median(rates), median(shares));
        Ok(())
    }

    fn stuck(&mut self) -> Result<()> {
        let (mut memory, mut others, mut cut) = (Vec::new(), Vec::new(), Vec::new());
        // Each takes the ten seconds until the stuck ones are cut.
        for _ in 0..self.repeats.min(ROUNDS) {
            let cores = self.cores;
            let cost = self.judge.watched("stuck readers", || {
                // A fresh one each time: memory that was used before costs nothing anew.
                let server = Server::start(Kind::Relay, cores)?;
                let watch = Watch::begin(&[server.id()])?;
                Ok((stuck::measure(&server)?, watch.others()?))
            })?;
            memory.push(cost.memory);
            others.push(cost.others);
            cut.push(cost.cut);
        }
        self.report.stuck(median(memory), median(others), median(cut));
        Ok(())
    }

    fn nodes(&mut self) -> Result<()> {
        let nodes = nodes::Nodes::start(self.cores, false)?;
        let raw = Server::start(Kind::Redis, self.cores)?;
        for shape in nodes::SHAPES {
            let mut cells = [const { Vec::new() }; 8];
            for _ in 0..self.repeats {
                let raw_rate =
                    self.judge.undisturbed("Redis", &[raw.id()], || flow::measure(&raw, &raw, &[&raw], shape))?;
                let near = [nodes.one.id()];
                let near_rate = self
                    .judge
                    .undisturbed("one node", &near, || flow::measure(&nodes.one, &nodes.one, &[&nodes.one], shape))?;
                let crossed = self.judge.undisturbed("two nodes", &nodes.ids(), || nodes.cross(shape))?;
                let (near, far) = (near_rate, crossed.passed);
                let (of_raw, of_near) = (far.rate / raw_rate.rate, far.rate / near.rate);
                let values = [raw_rate.rate, near.rate, far.rate, of_raw, of_near, crossed.commands, near.cpu, far.cpu];
                cells.iter_mut().zip(values).for_each(|(cell, value)| cell.push(value));
            }
            self.report.nodes(shape, cells.map(median));
        }
        let echo = self.judge.undisturbed("round trips across", &nodes.ids(), || nodes.echo())?;
        self.report.across(echo, nodes.entry()?);
        Ok(())
    }

    fn direct(&mut self) -> Result<()> {
        let nodes = nodes::Nodes::start(self.cores, true)?;
        for shape in nodes::SHAPES {
            let mut cells = [const { Vec::new() }; 6];
            for _ in 0..self.repeats {
                let near = [nodes.one.id()];
                let near_rate = self
                    .judge
                    .undisturbed("one node", &near, || flow::measure(&nodes.one, &nodes.one, &[&nodes.one], shape))?;
                let crossed = self.judge.undisturbed("two nodes directly", &nodes.ids(), || nodes.cross(shape))?;
                let (near, far) = (near_rate, crossed.passed);
                let values = [near.rate, far.rate, far.rate / near.rate, crossed.commands, near.cpu, far.cpu];
                cells.iter_mut().zip(values).for_each(|(cell, value)| cell.push(value));
            }
            self.report.direct(shape, cells.map(median));
        }
        let mut cells = [const { Vec::new() }; 2];
        for _ in 0..self.repeats {
            let echo = self.judge.undisturbed("round trips directly", &nodes.ids(), || nodes.echo())?;
            cells.iter_mut().zip(echo).for_each(|(cell, value)| cell.push(value));
        }
        self.report.directly_across(cells.map(median));
        Ok(())
    }

    fn loss(&mut self) -> Result<()> {
        let crowd = if self.quick { CROWDS[0] } else { loss::CROWD };
        let (mut cells, mut p99) = ([const { Vec::new() }; 4], [const { Vec::new() }; 4]);
        for _ in 0..self.repeats {
            let mut tries = 0;
            let loss = self.judge.watched("a node dies", || {
                tries += 1;
                loss::measure(self.cores, crowd, tries <= loss::WAITED_FOR)
            })?;
            let cell = [loss.back, loss.died, loss.sent_away, loss.stolen];
            cells.iter_mut().zip(cell).for_each(|(cell, value)| cell.push(value));
            p99.iter_mut().zip([loss.others, loss.bare].concat()).for_each(|(values, value)| values.push(value));
        }
        let [others_before, others, bare_before, bare] = p99.map(median);
        self.report.loss(crowd, cells.map(median), [[others_before, others], [bare_before, bare]]);
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        let (mut sent, mut lost, mut cells) = (0, 0, Vec::new());
        for _ in 0..self.repeats.min(ROUNDS) {
            let drained = self.judge.watched("a node is told to end", || drain::measure(self.cores))?;
            sent += drained.sent;
            // Of what is lost nothing is left out.
            lost += drained.lost;
            cells.push(drained);
        }
        cells.sort_unstable_by(|one, other| one.uneven.total_cmp(&other.uneven));
        if let Some(drained) = cells.get(cells.len() / 2) {
            self.report.drain(sent, lost, drained.uneven, drained.back, &drained.each);
        }
        Ok(())
    }
}
