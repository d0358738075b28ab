//! Two nodes over Redis: both on the core of the server, Redis and the load on the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result};
use happy_tests::process::{Process, free_port};

use super::flow::{self, Passed, Shape};
use super::machine::Cores;
use super::memory::Crowd;
use super::roundtrip::{Line, echoes};
use super::server::{Kind, Server};

/// What crosses.
pub const SHAPES: [Shape; 2] =
    [Shape { pairs: 100, payload: 256, window: 32 }, Shape { pairs: 100, payload: 1024, window: 32 }];
/// Devices whose entries in Redis are weighed.
const ENTRIES: usize = 10_000;
/// The publish itself.
const PUBLISH: &str = "spublish";

/// A Redis of its own.
pub struct Redis {
    pub process: Process,
    pub port: u16,
}

impl Redis {
    /// On the core that this thread is on.
    pub fn start() -> Result<Redis> {
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let mut process = Process::start(command).context("redis-server is needed (Debian: redis-server)")?;
        process.wait_for("Ready to accept")?;
        Ok(Redis { process, port })
    }

    fn info(&self, section: &str) -> Result<BTreeMap<String, String>> {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(tcp, "INFO {section}\r\n")?;
        let mut reader = BufReader::new(tcp);
        let mut length = String::new();
        reader.read_line(&mut length)?;
        let mut text = vec![0; length.trim().trim_start_matches('$').parse()?];
        reader.read_exact(&mut text)?;
        let text = String::from_utf8(text)?;
        Ok(text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.into(), v.into())).collect())
    }

    /// Commands so far that are no publishes. This very question is among them.
    fn commands(&self) -> Result<u64> {
        let mut all = 0;
        for (name, stats) in self.info("commandstats")? {
            let calls = stats.strip_prefix("calls=").and_then(|stats| stats.split(',').next()).context("no calls")?;
            all += if name.ends_with(PUBLISH) { 0 } else { calls.parse::<u64>()? };
        }
        Ok(all)
    }

    fn memory(&self) -> Result<f64> {
        Ok(self.info("memory")?.get("used_memory").context("no used_memory")?.trim().parse()?)
    }
}

/// Two nodes and their Redis.
pub struct Nodes {
    pub redis: Redis,
    pub one: Server,
    pub other: Server,
}

/// What crossed, and what it cost Redis.
pub struct Crossed {
    pub passed: Passed,
    /// Commands for each frame beside the publishes.
    pub commands: f64,
}

impl Nodes {
    pub fn start(cores: Cores) -> Result<Nodes> {
        let redis = Redis::start()?;
        let url = format!("redis://127.0.0.1:{}", redis.port);
        let node = || Server::relay(Kind::Relay, cores, &["--redis", &url]);
        let (one, other) = (node()?, node()?);
        one.until_bus()?;
        other.until_bus()?;
        Ok(Nodes { redis, one, other })
    }

    pub fn ids(&self) -> [u32; 3] {
        [self.one.id(), self.other.id(), self.redis.process.id()]
    }

    pub fn cross(&self, shape: Shape) -> Result<Crossed> {
        let (one, other) = (self.one.books()?, self.other.books()?);
        let nodes = [&self.one, &self.other];
        let (passed, [commands, sent]) =
            flow::measure_beside(&self.one, &self.other, &nodes, shape, || self.redis.commands())?;
        self.one.check_crossing(one, &self.other, other, sent)?;
        Ok(Crossed { commands: commands as f64 / passed.frames as f64, passed })
    }

    /// p50 of a round trip within one node and across both, ms.
    pub fn echo(&self) -> Result<[f64; 2]> {
        let mut lines = [Line::new(&self.one, &self.one)?, Line::new(&self.one, &self.other)?];
        let [near, far] = echoes(&mut lines)?[..] else { return Ok([f64::NAN; 2]) };
        Ok([near[0], far[0]])
    }

    /// Bytes of Redis' memory for each device.
    pub fn entry(&self) -> Result<f64> {
        let before = self.redis.memory()?;
        let crowd = Crowd::connect(&self.one, ENTRIES)?;
        let each = (self.redis.memory()? - before) / crowd.devices.len() as f64;
        Ok(each)
    }
}
