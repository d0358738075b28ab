//! The other ways to a Redis: a Sentinel group whose master dies, and TLS with a password.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use happy_relay::{Bus, Config, RedisBus, RedisUrl};
use happy_wire::relay::ToRelay;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::{Client, Device, Server, free_ports, get, soon};
use crate::program;
use crate::redis::{arrives, pair, presence};

/// Ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn redis(arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new("redis-server");
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("redis-server is installed (Debian: redis-server)"))
    }
}

fn ask(arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn until_says(port: u16, question: &[&str], answer: &str) {
    let port = port.to_string();
    let question = [&["-p", &port], question].concat();
    soon(&format!("{answer} of {question:?}"), async {
        while !ask(&question).contains(answer) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A master, its replica, and three who watch them.
struct Group {
    folder: TempDir,
    servers: [(u16, Option<Process>); 2],
    sentinels: Vec<(u16, Process)>,
}

impl Group {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = free_ports::<2>();
        let master = ports[0].to_string();
        let mut group = Self { folder, servers: [(ports[0], None), (ports[1], None)], sentinels: Vec::new() };
        for (n, port) in ports.iter().enumerate() {
            let port = port.to_string();
            let mut arguments = vec!["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
            if n == 1 {
                arguments.extend(["--replicaof", "127.0.0.1", &master, "--repl-diskless-sync-delay", "0"]);
            }
            group.servers[n].1 = Some(Process::redis(&arguments, group.folder.path()));
        }
        until_says(ports[1], &["INFO", "replication"], "master_link_status:up").await;
        for _ in 0..3 {
            let [port] = free_ports();
            let file = group.folder.path().join(format!("sentinel-{port}.conf"));
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n"
            );
            std::fs::write(&file, settings).unwrap();
            let process = Process::redis(&[file.to_str().unwrap(), "--sentinel"], group.folder.path());
            group.sentinels.push((port, process));
        }
        for (port, _) in &group.sentinels {
            until_says(*port, &["SENTINEL", "MASTER", "main"], "num-other-sentinels\n2").await;
            until_says(*port, &["SENTINEL", "MASTER", "main"], "num-slaves\n1").await;
        }
        group
    }

    fn url(&self) -> RedisUrl {
        let list: Vec<String> = self.sentinels.iter().map(|(port, _)| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", list.join(",")).parse().unwrap()
    }

    async fn node(&self) -> Server {
        let bus = Arc::new(RedisBus::start(&self.url()).unwrap());
        assert!(bus.connected(Duration::from_secs(15)).await, "the master is found");
        Server::with(Config { bus: Some(bus as Arc<dyn Bus>), ..Config::default() }).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_of_a_sentinel_group_takes_over() {
    let mut group = Group::start().await;
    let (left, right) = (group.node().await, group.node().await);
    let (a, b, c) = (Device::new(81), Device::new(82), Device::new(83));
    let (mut one, mut far) = pair(&left, &right, &a, &b).await;
    let mut near = left.join(&c).await;
    near.tell(ToRelay::Peers(vec![a.id()])).await;
    one.tell(ToRelay::Peers(vec![b.id(), c.id()])).await;
    presence(&mut one, &c, true).await;
    presence(&mut near, &a, true).await;

    drop(group.servers[0].1.take());
    presence(&mut one, &b, false).await;
    arrives((&mut near, &c), (&mut one, &a), b"neighbours notice nothing").await;
    // Half a second to notice, an election, and the nodes find the new master by themselves.
    presence(&mut one, &b, true).await;
    presence(&mut far, &a, false).await;
    presence(&mut far, &a, true).await;
    arrives((&mut one, &a), (&mut far, &b), b"through the other").await;
    assert!(ask(&["-p", &group.servers[1].0.to_string(), "INFO", "replication"]).contains("role:master"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_reach_a_redis_with_tls_and_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &authority).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let [port] = free_ports();
    let port = port.to_string();
    let (cert, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let mut arguments = vec!["--port", "0", "--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
    arguments.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--requirepass", "sesame"]);
    arguments.extend(["--bind", "127.0.0.1", "--save", ""]);
    let _redis = Process::redis(&arguments, folder.path());

    let url = format!("rediss://:sesame@localhost:{port}");
    let trusts = [("HAPPY_RELAY_REDIS", url.as_str()), ("SSL_CERT_FILE", ca.as_str())];
    let (left, right) = (program::start_with(&trusts).await, program::start_with(&trusts).await);
    for node in [&left, &right] {
        soon("the way to Redis", async {
            while !get(node.address, "/metrics", "").await.contains("happy_relay_bus_up 1") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let (a, b) = (Device::new(1), Device::new(2));
    let mut one = Client::dial(left.address, &left.address.to_string()).await;
    one.log_in(&a, None).await;
    let mut other = Client::dial(right.address, &right.address.to_string()).await;
    other.log_in(&b, None).await;
    one.tell(ToRelay::Peers(vec![b.id()])).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, &b, true).await;
    presence(&mut other, &a, true).await;
    arrives((&mut one, &a), (&mut other, &b), b"sealed twice").await;

    // Whose certificate is not trusted is not talked to; the relay goes on alone.
    let mut alone = program::start_with(&[("HAPPY_RELAY_REDIS", url.as_str()), ("SSL_CERT_FILE", cert.as_str())]).await;
    let mut said = BufReader::new(alone.child.stderr.take().unwrap()).lines();
    soon("a word about it", async {
        while !said.next_line().await.unwrap().expect("it goes on").contains("Redis is not reached") {}
    })
    .await;
    assert!(get(alone.address, "/metrics", "").await.contains("happy_relay_bus_up 0"));
}
