//! The servers that are measured, each a process of its own on the core of the server.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_tests::process::{Process, free_port, program};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::machine::{Cores, resident};
use super::nodes::Redis;
use crate::processor;

/// The name that devices dial.
pub const NAME: &str = "localhost";
/// How long the books may take to balance once nothing is under way.
const BOOKS: Duration = Duration::from_secs(5);

/// What forwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Frames with a length in front, over TCP.
    Tcp,
    /// Frames in websocket messages, by tokio-tungstenite.
    Websocket,
    /// `happy-relay serve`.
    Relay,
    /// The same with TLS in its process.
    RelayTls,
    /// `redis-server`, each receiver subscribed to a channel of its own.
    Redis,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Tcp => "bare TCP",
            Kind::Websocket => "bare websocket",
            Kind::Relay => "happy-relay",
            Kind::RelayTls => "happy-relay, TLS",
            Kind::Redis => "Redis",
        }
    }

    pub fn is_relay(self) -> bool {
        matches!(self, Kind::Relay | Kind::RelayTls)
    }
}

/// Where a device finds one.
#[derive(Clone)]
pub struct Target {
    pub kind: Kind,
    pub port: u16,
    pub tls: Option<Arc<ClientConfig>>,
}

/// A running one.
pub struct Server {
    pub target: Target,
    process: Process,
    _files: Option<tempfile::TempDir>,
}

impl Server {
    pub fn start(kind: Kind, cores: Cores) -> Result<Server> {
        match kind {
            Kind::Tcp | Kind::Websocket => Self::bare(kind, cores),
            Kind::Relay | Kind::RelayTls => Self::relay(kind, cores, &[]),
            Kind::Redis => {
                let Redis { process, port } = cores.on_server(Redis::start)?;
                Ok(Server { target: Target { kind, port, tls: None }, process, _files: None })
            }
        }
    }

    fn bare(kind: Kind, cores: Cores) -> Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare", if kind == Kind::Tcp { "tcp" } else { "websocket" }]);
        let mut process = cores.on_server(|| Process::start(command))?;
        let ready = process.wait_for("ready")?;
        let port = ready.rsplit(' ').next().context("no port")?.parse()?;
        Ok(Server { target: Target { kind, port, tls: None }, process, _files: None })
    }

    /// With more arguments, such as a Redis.
    pub fn relay(kind: Kind, cores: Cores, more: &[&str]) -> Result<Server> {
        let port = free_port()?;
        let mut command = Command::new(program("happy-relay")?);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--name", NAME, "--no-app"]);
        // More than the default, which the largest cell reaches exactly.
        command.args(["--max-connections", "20000", "--max-unproven", "4096"]).args(more);
        // A crowd that is weighed comes as fast as it can, unless a cell says otherwise.
        command.env("HAPPY_RELAY_MAX_LOGINS", "0");
        let mut files = None;
        let mut tls = None;
        if kind == Kind::RelayTls {
            let folder = tempfile::tempdir()?;
            let (certificate, key) = happy_relay::tls::self_signed(&[NAME.to_owned()])?;
            let (certificate_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
            std::fs::write(&certificate_file, &certificate)?;
            std::fs::write(&key_file, key.as_bytes())?;
            command.arg("--tls-cert").arg(certificate_file).arg("--tls-key").arg(key_file);
            tls = Some(trusting(&certificate)?);
            files = Some(folder);
        }
        let mut process = cores.on_server(|| Process::start(command))?;
        process.wait_for(&port.to_string())?;
        Ok(Server { target: Target { kind, port, tls }, process, _files: files })
    }

    pub fn kind(&self) -> Kind {
        self.target.kind
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn processor_time(&self) -> Result<Duration> {
        processor::time_of(self.id())
    }

    pub fn resident(&self) -> Result<f64> {
        resident(self.id())
    }

    /// What `/metrics` says.
    fn metrics(&self) -> Result<BTreeMap<String, u64>> {
        let mut page = String::new();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        let mut tcp = TcpStream::connect(("127.0.0.1", self.target.port))?;
        match &self.target.tls {
            None => {
                tcp.write_all(request.as_bytes())?;
                tcp.read_to_string(&mut page)?;
            }
            Some(tls) => {
                let mut session = rustls::ClientConnection::new(tls.clone(), NAME.try_into()?)?;
                let mut stream = rustls::Stream::new(&mut session, &mut tcp);
                stream.write_all(request.as_bytes())?;
                stream.read_to_string(&mut page)?;
            }
        }
        let samples = page.lines().filter_map(|line| line.strip_prefix("happy_relay_"));
        samples
            .map(|line| line.rsplit_once(' ').context("no sample"))
            .map(|sample| sample.and_then(|(name, value)| Ok((name.to_owned(), value.parse::<f64>()? as u64))))
            .collect()
    }

    /// The books of a relay; nothing for the others.
    pub fn books(&self) -> Result<Books> {
        if !self.kind().is_relay() {
            return Ok(Books::default());
        }
        let metrics = self.metrics()?;
        let of = |name: &str| metrics.get(&format!("frames_{name}_total")).copied().unwrap_or(0);
        let dropped = metrics.iter().filter(|(name, _)| name.starts_with("frames_dropped_total"));
        Ok(Books {
            received: of("received"),
            delivered: of("delivered"),
            to_bus: of("to_bus"),
            from_bus: of("from_bus"),
            dropped: dropped.map(|(_, frames)| frames).sum(),
        })
    }

    /// Devices that are connected.
    pub fn connections(&self) -> Result<u64> {
        self.metrics()?.get("connections").copied().context("no such metric")
    }

    /// Direct connections to other nodes.
    pub fn direct_ways(&self) -> Result<u64> {
        self.metrics()?.get("bus_direct").copied().context("no such metric")
    }

    /// Sends it a signal, and does not wait for what comes of it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("no process")?;
        Ok(kill_process(id, signal)?)
    }

    /// Whether one that was killed has given back all that it had, its sockets among that.
    pub fn has_ended(&self) -> Result<bool> {
        let id = Pid::from_raw(self.id().cast_signed()).context("no process has this id")?;
        // It can be waited for when the last of its threads is gone (`waitid(2)`); that of `main` alone may be earlier. Who waits is `buried`.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(id), look)?.is_some())
    }

    /// Waits for the end of one that was killed.
    pub fn buried(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Waits until it has ended by itself, in order.
    pub fn ended(&mut self) -> Result<()> {
        let code = self.process.end()?;
        ensure!(code == 0, "it ended with {code}:\n{}", self.process.output());
        Ok(())
    }

    /// Fails unless each frame that came since the start went somewhere or was dropped for a reason.
    pub fn balances(&self) -> Result<()> {
        let deadline = Instant::now() + BOOKS;
        loop {
            let now = self.books()?;
            if now.received + now.from_bus == now.delivered + now.to_bus + now.dropped {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the books do not balance: {now:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the node has its way to the others.
    pub fn until_bus(&self) -> Result<()> {
        let began = Instant::now();
        while self.metrics()?.get("bus_up") != Some(&1) {
            ensure!(began.elapsed() < BOOKS, "the node does not reach Redis");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The same for frames that crossed from this node to another: nothing may be lost between them either.
    pub fn check_crossing(&self, before: Books, other: &Server, other_before: Books, sent: u64) -> Result<()> {
        let deadline = Instant::now() + BOOKS;
        loop {
            let (here, there) = (self.books()?.since(before), other.books()?.since(other_before));
            if [here.received, here.to_bus, there.from_bus, there.delivered] == [sent; 4] {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the books do not balance: sent {sent}, {here:?}, {there:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Fails unless what was received since `before` is what the load sent, and was delivered or dropped to the last frame.
    pub fn check(&self, before: Books, sent: u64, arrived: u64) -> Result<()> {
        if !self.kind().is_relay() {
            ensure!(sent == arrived, "{}: of {sent} frames {arrived} arrived", self.kind().name());
            return Ok(());
        }
        let deadline = Instant::now() + BOOKS;
        loop {
            let now = self.books()?.since(before);
            let balanced = now.received + now.from_bus == now.delivered + now.to_bus + now.dropped;
            if balanced && now.received == sent && now.delivered == arrived {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the books do not balance: sent {sent}, arrived {arrived}, {now:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Frames that went in and came out.
#[derive(Clone, Copy, Default, Debug)]
pub struct Books {
    pub received: u64,
    pub delivered: u64,
    pub to_bus: u64,
    pub from_bus: u64,
    pub dropped: u64,
}

impl Books {
    pub fn since(self, before: Books) -> Books {
        Books {
            received: self.received - before.received,
            delivered: self.delivered - before.delivered,
            to_bus: self.to_bus - before.to_bus,
            from_bus: self.from_bus - before.from_bus,
            dropped: self.dropped - before.dropped,
        }
    }
}

/// A client that trusts one certificate.
fn trusting(certificate: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
