//! Promises P2 and P3 with three relay processes that share a real Redis: nodes are replaced and killed under load, and no call fails.

#![allow(clippy::print_stdout, reason = "the figures are what a reader of the log wants")]

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_crypto::handshake::PairSecret;
use happy_crypto::{Bundle, DeviceId, Identity, SignedPrekey};
use happy_link::driver::tokio::{ByteStream, Config, Connect, Connecting, EVENTS, Handle, Trust, spawn_over};
use happy_link::driver::{RelayUrl, rng};
use happy_link::{Answer, Event, Login, PairSecrets, Peer, Side};
use happy_tests::PATIENCE;
use happy_tests::process::{Process, Relay, free_port, wait_until};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The name of the relay, whichever node answers.
const NAME: &str = "localhost:7777";
const PAIRS: u8 = 12;

/// Three nodes and what they share.
struct Cluster {
    redis: Redis,
    nodes: Vec<Relay>,
}

/// One `redis-server`, or three of them that are one Redis Cluster.
struct Redis {
    ports: Vec<u16>,
    processes: Vec<Process>,
    folder: TempDir,
}

impl Redis {
    fn one() -> Result<Redis> {
        Self::of(1)
    }

    fn cluster() -> Result<Redis> {
        let redis = Self::of(3)?;
        let nodes = redis.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let mut command = Command::new("redis-cli");
        command.args(["--cluster", "create"]).args(nodes).arg("--cluster-yes");
        let made = command.output().context("redis-cli comes with redis-server")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        redis.until_one()?;
        Ok(redis)
    }

    fn of(count: usize) -> Result<Redis> {
        let ports = (0..count).map(|_| free_port()).collect::<Result<_>>()?;
        let mut redis = Redis { ports, processes: Vec::new(), folder: tempfile::tempdir()? };
        redis.start()?;
        Ok(redis)
    }

    fn is_cluster(&self) -> bool {
        self.ports.len() > 1
    }

    /// Those of a cluster know each other from their files once it was made.
    fn start(&mut self) -> Result<()> {
        for port in &self.ports {
            let folder = self.folder.path().join(port.to_string());
            std::fs::create_dir_all(&folder)?;
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.arg("--dir").arg(folder);
            if self.is_cluster() {
                command.args(["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
            }
            let mut process = Process::start(command).context("redis-server is needed (Debian: redis-server)")?;
            process.wait_for("Ready to accept connections")?;
            self.processes.push(process);
        }
        Ok(())
    }

    fn until_one(&self) -> Result<()> {
        wait_until("the cluster to be one", || {
            self.ports.iter().try_fold(true, |all, port| {
                let asked = Command::new("redis-cli").args(["-p", &port.to_string(), "CLUSTER", "INFO"]).output()?;
                Ok(all && String::from_utf8_lossy(&asked.stdout).contains("cluster_state:ok"))
            })
        })
    }

    fn kill(&mut self) -> Result<()> {
        self.processes.drain(..).try_for_each(|mut process| process.kill())
    }

    fn url(&self) -> String {
        let list: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis{}://{}", if self.is_cluster() { "+cluster" } else { "" }, list.join(","))
    }
}

impl Cluster {
    fn start(redis: Redis, flags: &[&str]) -> Result<Cluster> {
        let url = redis.url();
        let node = || Relay::start_with(&[&["--name", NAME, "--no-app", "--redis", &url], flags].concat());
        let nodes = vec![node()?, node()?, node()?];
        let cluster = Cluster { redis, nodes };
        cluster.nodes.iter().try_for_each(Self::joined)?;
        Ok(cluster)
    }

    /// The node has found the others.
    fn joined(node: &Relay) -> Result<()> {
        wait_until("a node to join", || Ok(node.get("/metrics")?.contains("happy_relay_bus_up 1")))
    }

    fn doors(&self) -> Arc<Doors> {
        Arc::new(Doors { ports: self.nodes.iter().map(Relay::port).collect(), next: AtomicUsize::new(0) })
    }
}

/// What a balancer does: the next node that answers.
struct Doors {
    ports: Vec<u16>,
    next: AtomicUsize,
}

impl Connect for Doors {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let first = self.next.fetch_add(1, Relaxed);
            for n in 0..self.ports.len() {
                let port = self.ports[(first + n) % self.ports.len()];
                if let Ok(stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    stream.set_nodelay(true)?;
                    return Ok(Box::new(stream) as Box<dyn ByteStream>);
                }
            }
            Err(io::ErrorKind::ConnectionRefused.into())
        })
    }
}

/// A phone that calls its machine without a pause.
struct Pair {
    phone: Handle,
    machine: DeviceId,
    tasks: [JoinHandle<()>; 3],
    _machine: Handle,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What became of the calls of all pairs.
#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
    slowest_ms: AtomicU64,
    stop: AtomicBool,
}

impl Pair {
    fn start(n: u8, doors: &Arc<Doors>, counts: &Arc<Counts>) -> Result<Pair> {
        let mut random = rng();
        let (phone, machine) = (Identity::generate(&mut random), Identity::generate(&mut random));
        let prekey = SignedPrekey::generate(&mut random, &machine, 1, 1_700_000_000);
        let bundle = Bundle::new(&machine, &prekey, None);
        let secret = PairSecret::from_bytes(&[n + 1; 40]).context("a secret")?;
        let secrets = PairSecrets { current: secret, previous: None };
        let (phone_record, machine_record) = (phone.record().clone(), machine.record().clone());
        let device = |identity, prekeys| {
            let relay = RelayUrl::parse(&format!("ws://{NAME}"))?;
            let login = Login::Device { epoch: 1 };
            let config = Config { identity, prekeys, login, relay, trust: Trust::System, events: EVENTS };
            Ok::<_, anyhow::Error>(spawn_over(config, doors.clone())?)
        };
        let (phone, mut heard) = device(phone, vec![])?;
        let (machine, mut asked) = device(machine, vec![prekey])?;
        let id = machine.device();
        phone.add_peer(Peer { record: machine_record, side: Side::Initiator(bundle), secrets: secrets.clone() })?;
        machine.add_peer(Peer { record: phone_record, side: Side::Responder, secrets })?;
        let answering = machine.clone();
        let echo = tokio::spawn(async move {
            while let Some(event) = asked.recv().await {
                if let Event::Request { peer, id, body } = event {
                    // Whoever asked may be gone for good by now.
                    let _gone = answering.respond(&peer, id, &body).await;
                }
            }
        });
        let listen = tokio::spawn(async move { while heard.recv().await.is_some() {} });
        let (calling, counts) = (phone.clone(), counts.clone());
        let call = tokio::spawn(async move {
            for number in 0_u64.. {
                if counts.stop.load(Relaxed) {
                    break;
                }
                let (body, began) = (number.to_be_bytes().to_vec(), Instant::now());
                match calling.call(&id, body.clone(), None).await {
                    Ok(Answer::Body(answer)) if answer == body => counts.answered.fetch_add(1, Relaxed),
                    _ => counts.failed.fetch_add(1, Relaxed),
                };
                counts.slowest_ms.fetch_max(began.elapsed().as_millis() as u64, Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Ok(Pair { phone, machine: id, tasks: [echo, listen, call], _machine: machine })
    }
}

/// Waits until every pair has had this many more answers in sum.
fn more_answers(counts: &Counts, more: u64) -> Result<()> {
    let before = counts.answered.load(Relaxed);
    wait_until("calls to be answered", || Ok(counts.answered.load(Relaxed) >= before + more))
}

fn finish(runtime: &tokio::runtime::Runtime, pairs: &mut [Pair], counts: &Counts) -> Result<()> {
    counts.stop.store(true, Relaxed);
    for pair in pairs {
        // The call that is under way is answered too.
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, &mut pair.tasks[2]).await })
            .context("a call hangs")??;
        let alive = runtime.block_on(async {
            tokio::time::timeout(PATIENCE, pair.phone.call(&pair.machine, b"still there".to_vec(), None)).await
        });
        ensure!(matches!(alive, Ok(Ok(Answer::Body(_)))), "a pair is lost: {alive:?}");
    }
    let (answered, failed) = (counts.answered.load(Relaxed), counts.failed.load(Relaxed));
    println!("{answered} calls answered, {failed} failed, the slowest took {} ms", counts.slowest_ms.load(Relaxed));
    ensure!(failed == 0, "{failed} calls failed");
    Ok(())
}

#[test]
fn nodes_are_replaced_and_killed_and_redis_dies_under_load_and_no_call_fails() -> Result<()> {
    no_call_fails(Redis::one()?)
}

#[test]
fn the_same_over_a_cluster_of_redis() -> Result<()> {
    no_call_fails(Redis::cluster()?)
}

#[test]
fn the_same_with_direct_connections_between_the_nodes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "known to the three nodes only\n")?;
    let secret = secret.to_str().context("a path")?;
    no_call_fails_with(Redis::one()?, &["--direct", "127.0.0.1:0", "--direct-secret-file", secret])
}

fn no_call_fails(redis: Redis) -> Result<()> {
    no_call_fails_with(redis, &[])
}

fn no_call_fails_with(redis: Redis, flags: &[&str]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut cluster = Cluster::start(redis, flags)?;
    let doors = cluster.doors();
    let counts = Arc::new(Counts::default());
    let mut pairs =
        runtime.block_on(async { (0..PAIRS).map(|n| Pair::start(n, &doors, &counts)).collect::<Result<Vec<_>>>() })?;
    more_answers(&counts, 500)?;
    if !flags.is_empty() {
        let direct = cluster.nodes.iter().map(|node| node.get("/metrics")).collect::<Result<String>>()?;
        ensure!(direct.lines().any(|line| line == "happy_relay_bus_direct 2"), "no node passes frames to both others");
    }
    for node in &mut cluster.nodes {
        node.stop_and_restart()?;
        Cluster::joined(node)?;
        more_answers(&counts, 200)?;
    }
    println!("after the rolling restart: the slowest call took {} ms", counts.slowest_ms.load(Relaxed));
    for node in &mut cluster.nodes {
        node.kill_and_restart()?;
        Cluster::joined(node)?;
        more_answers(&counts, 200)?;
    }
    cluster.redis.kill()?;
    // Those at one node go on meanwhile; all do when it is back.
    wait_until("the nodes to notice", || {
        cluster
            .nodes
            .iter()
            .try_fold(true, |all, node| Ok(all && node.get("/metrics")?.contains("happy_relay_bus_up 0")))
    })?;
    cluster.redis.start()?;
    if cluster.redis.is_cluster() {
        cluster.redis.until_one()?;
    }
    cluster.nodes.iter().try_for_each(Cluster::joined)?;
    more_answers(&counts, 500)?;
    finish(&runtime, &mut pairs, &counts)
}
