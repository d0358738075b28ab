//! Two nodes that share a Redis, with frames passing through it or directly: both on the core of the server, Redis and the load on the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use anyhow::{Context, Result, ensure};
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

    /// Commands so far, those of one name aside. This very question is among them.
    fn commands(&self, aside: Option<&str>) -> Result<u64> {
        let mut all = 0;
        for (name, stats) in self.info("commandstats")? {
            let calls = stats.strip_prefix("calls=").and_then(|stats| stats.split(',').next()).context("no calls")?;
            all += if aside.is_some_and(|aside| name.ends_with(aside)) { 0 } else { calls.parse::<u64>()? };
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
    /// The secret by which they pass frames directly, if they do.
    secret: Option<tempfile::TempDir>,
}

/// What crossed, and what it cost Redis.
pub struct Crossed {
    pub passed: Passed,
    /// Commands for each frame, beside the publishes where frames go that way.
    pub commands: f64,
}

impl Nodes {
    /// Nodes that pass frames through Redis, or directly.
    pub fn start(cores: Cores, directly: bool) -> Result<Nodes> {
        if !directly {
            return Self::start_with(cores, &[]);
        }
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("secret");
        std::fs::write(&path, "known to these two nodes only\n")?;
        let path = path.to_str().context("a path")?;
        let mut nodes = Self::start_with(cores, &["--direct", "127.0.0.1:0", "--direct-secret-file", path])?;
        nodes.secret = Some(folder);
        Ok(nodes)
    }

    /// With more arguments of the relay.
    pub fn start_with(cores: Cores, more: &[&str]) -> Result<Nodes> {
        let redis = Redis::start()?;
        let url = format!("redis://127.0.0.1:{}", redis.port);
        let node = || Server::relay(Kind::Relay, cores, &[&["--redis", &url], more].concat());
        let (one, other) = (node()?, node()?);
        one.until_bus()?;
        other.until_bus()?;
        Ok(Nodes { redis, one, other, secret: None })
    }

    pub fn ids(&self) -> [u32; 3] {
        [self.one.id(), self.other.id(), self.redis.process.id()]
    }

    pub fn cross(&self, shape: Shape) -> Result<Crossed> {
        let (one, other) = (self.one.books()?, self.other.books()?);
        let nodes = [&self.one, &self.other];
        // On the direct way there is to be nothing, not even a publish.
        let aside = self.secret.is_none().then_some(PUBLISH);
        let (passed, [commands, sent]) =
            flow::measure_beside(&self.one, &self.other, &nodes, shape, || self.redis.commands(aside))?;
        self.one.check_crossing(one, &self.other, other, sent)?;
        ensure!(aside.is_some() || self.one.direct_ways()? == 1, "the nodes do not reach each other directly");
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
