//! Nodes that share a real Redis, one server or a cluster of three: what crosses, and what happens when Redis is killed, emptied or slow.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use happy_relay::access::enrolment_key;
use happy_relay::{Access, Bus, Config, Enrolment, Policy, RedisBus, RedisUrl, Timings};
use happy_wire::Code;
use happy_wire::relay::{FromRelay, MAX_REQUESTS, RecordAnswer, RendezvousState, ToRelay, Undelivered, record_kind};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::guests::{a_ticket_leads_to_another_node, what_does_not_arrive_ends_the_guest_alone};
use crate::harness::{Client, Device, Server, free_ports, http, soon, until};
use crate::records::{records_cross, rest_crosses};
use crate::rendezvous::{TICKET, guest, hash, open, refused};

/// `redis-server` processes that end with the test.
pub struct Servers {
    folder: tempfile::TempDir,
    pub ports: Vec<u16>,
    pub children: Vec<Child>,
    cluster: bool,
}

impl Servers {
    pub async fn one() -> Self {
        let mut servers = Self {
            folder: tempfile::tempdir().unwrap(),
            ports: free_ports::<1>().to_vec(),
            children: vec![],
            cluster: false,
        };
        servers.start().await;
        servers
    }

    pub async fn cluster() -> Self {
        let mut servers = Self {
            folder: tempfile::tempdir().unwrap(),
            ports: free_ports::<3>().to_vec(),
            children: vec![],
            cluster: true,
        };
        servers.start().await;
        let nodes = servers.ports.iter().map(|port| format!("127.0.0.1:{port}"));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes)
            .arg("--cluster-yes")
            .output()
            .expect("redis-cli is installed with redis-server");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        servers.until_ready().await;
        servers
    }

    /// Starts all servers at their ports; those of a cluster know each other from their files.
    pub async fn start(&mut self) {
        for port in &self.ports {
            let folder = self.folder.path().join(port.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--enable-debug-command", "yes", "--dir"]).arg(&folder);
            if self.cluster {
                command.args(["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]);
            }
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
            self.children.push(child.expect("redis-server is installed (Debian: redis-server)"));
        }
        for port in self.ports.clone() {
            soon("redis-server", async {
                while self.ask(port, &["PING"]) != "PONG" {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await;
        }
        if self.children.len() == self.ports.len() && self.cluster {
            // After a restart; the first time nobody has made the cluster yet.
            if std::fs::read_to_string(self.folder.path().join(format!("{}/nodes.conf", self.ports[0])))
                .is_ok_and(|text| text.lines().count() > 3)
            {
                self.until_ready().await;
            }
        }
    }

    async fn until_ready(&self) {
        soon("the cluster", async {
            while !self.ports.iter().all(|port| self.ask(*port, &["CLUSTER", "INFO"]).contains("cluster_state:ok")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    pub fn ask(&self, port: u16, command: &[&str]) -> String {
        let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub fn all(&self, command: &[&str]) {
        self.ports.iter().for_each(|port| drop(self.ask(*port, command)));
    }

    /// To all of them, by its name: with `STOP` they do nothing any more, and their connections stay.
    pub fn signal(&self, name: &str) {
        for child in &self.children {
            let mut kill = Command::new("kill");
            assert!(kill.args(["-s", name, &child.id().to_string()]).status().unwrap().success());
        }
    }

    /// With SIGKILL.
    pub fn kill(&mut self) {
        for mut child in self.children.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn url(&self) -> RedisUrl {
        let list: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis{}://{}", if self.cluster { "+cluster" } else { "" }, list.join(",")).parse().unwrap()
    }

    pub async fn node(&self) -> Server {
        self.node_with(Config::default()).await
    }

    pub async fn node_with(&self, config: Config) -> Server {
        let bus = Arc::new(RedisBus::start(&self.url()).unwrap());
        assert!(bus.connected(Duration::from_secs(10)).await, "Redis is reached");
        Server::with(Config { bus: Some(bus as Arc<dyn Bus>), ..config }).await
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A device that no other scenario has used: the directory remembers their epochs.
pub fn device() -> Device {
    static SEED: AtomicU64 = AtomicU64::new(1000);
    Device::new(SEED.fetch_add(1, Relaxed))
}

/// The next presence of this device; the same said again is passed over.
pub async fn presence(client: &mut Client, of: &Device, here: bool) {
    loop {
        let frame = client.frame().await;
        match FromRelay::decode(&frame) {
            Ok(FromRelay::Presence { device, here: told }) if device == of.id() => {
                if told == here {
                    return;
                }
            }
            Ok(FromRelay::Ping(n)) => client.tell(ToRelay::Pong(n)).await,
            other => panic!("{other:?}"),
        }
    }
}

pub async fn pair(left: &Server, right: &Server, a: &Device, b: &Device) -> (Client, Client) {
    let (mut one, mut other) = (left.join(a).await, right.join(b).await);
    one.tell(ToRelay::Peers(vec![b.id()])).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, b, true).await;
    presence(&mut other, a, true).await;
    (one, other)
}

/// Sends, and sees it arrive. A scenario may last so long that the relay asks for a sign of life.
pub async fn arrives(from: (&mut Client, &Device), to: (&mut Client, &Device), word: &[u8]) {
    from.0.send(to.1.id(), 1, word).await;
    loop {
        let frame = to.0.frame().await;
        match FromRelay::decode(&frame) {
            Ok(FromRelay::Ping(n)) => to.0.tell(ToRelay::Pong(n)).await,
            other => {
                let wanted = FromRelay::Deliver { from: from.1.id(), rendezvous: false, payload: word };
                return assert_eq!(other, Ok(wanted));
            }
        }
    }
}

async fn every_pair_across(servers: &Servers) {
    let nodes = [servers.node().await, servers.node().await, servers.node().await];
    for (n, left) in nodes.iter().enumerate() {
        for right in &nodes {
            let (a, b) = (device(), device());
            let (mut one, mut other) = pair(left, right, &a, &b).await;
            for word in [&b"over"[..], &[n as u8; 60_000]] {
                arrives((&mut one, &a), (&mut other, &b), word).await;
                arrives((&mut other, &b), (&mut one, &a), word).await;
            }
            drop(other);
            presence(&mut one, &b, false).await;
            one.send(b.id(), 9, b"gone").await;
            one.expect(FromRelay::Undeliverable { to: b.id(), tag: 9, reason: Undelivered::Unreachable }).await;
        }
    }
    for node in &nodes {
        node.balances().await;
    }
}

async fn a_device_that_moves_is_at_one_node_only(servers: &Servers) {
    let (left, right, third) = (servers.node().await, servers.node().await, servers.node().await);
    let (mut a, b) = (device(), device());
    let (mut old, mut other) = pair(&left, &right, &a, &b).await;
    a.epoch = 2;
    let mut new = third.join(&a).await;
    assert_eq!(old.goaway().await.0, Code::DISPLACED);
    // What the older one still says is said by nobody.
    let _ended = futures_util::SinkExt::send(
        &mut old.socket,
        tokio_tungstenite::tungstenite::Message::Binary(
            crate::harness::encode(&ToRelay::Send { to: b.id(), tag: 3, payload: b"injected" }).into(),
        ),
    )
    .await;
    presence(&mut other, &a, false).await;
    new.tell(ToRelay::Peers(vec![b.id()])).await;
    presence(&mut other, &a, true).await;
    presence(&mut new, &b, true).await;
    arrives((&mut other, &b), (&mut new, &a), b"to the new one").await;
    arrives((&mut new, &a), (&mut other, &b), b"from the new one").await;
    // The older epoch is refused wherever it comes.
    a.epoch = 1;
    let mut late = right.connect().await;
    let nonce = late.challenge().await;
    late.raw(&a.login(&late.name.clone(), &nonce, None)).await;
    assert_eq!(late.goaway().await.0, Code::DISPLACED);
}

async fn without_redis_neighbours_notice_nothing(servers: &mut Servers) {
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b, c) = (device(), device(), device());
    let (mut one, mut far) = pair(&left, &right, &a, &b).await;
    let mut near = left.join(&c).await;
    one.tell(ToRelay::Peers(vec![b.id(), c.id()])).await;
    near.tell(ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, &c, true).await;
    presence(&mut near, &a, true).await;

    let began = Instant::now();
    servers.kill();
    presence(&mut one, &b, false).await;
    presence(&mut far, &a, false).await;
    assert!(began.elapsed() < Duration::from_secs(2), "others are told within 2 s, not {:?}", began.elapsed());
    arrives((&mut one, &a), (&mut near, &c), b"next door").await;
    one.send(b.id(), 5, b"far").await;
    one.expect(FromRelay::Undeliverable { to: b.id(), tag: 5, reason: Undelivered::Unreachable }).await;
    // Devices still come and go.
    let d = device();
    soon("a login without Redis", left.join(&d)).await;

    servers.start().await;
    let began = Instant::now();
    presence(&mut one, &b, true).await;
    presence(&mut far, &a, true).await;
    assert!(began.elapsed() < Duration::from_secs(5), "healed within 5 s, not {:?}", began.elapsed());
    arrives((&mut one, &a), (&mut far, &b), b"far again").await;
    arrives((&mut far, &b), (&mut one, &a), b"and back").await;
    one.barrier().await;
    near.barrier().await;
    left.balances().await;
    right.balances().await;
}

async fn an_emptied_redis_is_filled_again(servers: &Servers) {
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b) = (device(), device());
    let (mut one, mut far) = pair(&left, &right, &a, &b).await;
    servers.all(&["FLUSHALL"]);
    let began = Instant::now();
    // A third node knows of them from Redis only.
    let third = servers.node().await;
    let c = device();
    let mut asking = third.join(&c).await;
    one.tell(ToRelay::Peers(vec![b.id(), c.id()])).await;
    asking.tell(ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, &c, true).await;
    presence(&mut asking, &a, true).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    arrives((&mut asking, &c), (&mut one, &a), b"found").await;
    arrives((&mut one, &a), (&mut far, &b), b"still").await;
}

/// Both nodes took the device while they could not ask; when they can, the larger epoch stays.
async fn two_nodes_that_claim_a_device_end_with_one(servers: &mut Servers) {
    let (left, right) = (servers.node().await, servers.node().await);
    servers.kill();
    let mut a = device();
    let mut old = soon("a login without Redis", left.join(&a)).await;
    a.epoch = 2;
    let mut new = soon("a login without Redis", right.join(&a)).await;
    servers.start().await;
    assert_eq!(soon("the end of one", old.goaway()).await.0, Code::DISPLACED);
    new.barrier().await;
    let b = device();
    let mut peer = left.join(&b).await;
    peer.tell(ToRelay::Peers(vec![a.id()])).await;
    new.tell(ToRelay::Peers(vec![b.id()])).await;
    presence(&mut peer, &a, true).await;
    presence(&mut new, &b, true).await;
    arrives((&mut peer, &b), (&mut new, &a), b"to the one").await;
}

async fn a_slow_redis_holds_up_nobody(servers: &Servers) {
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b, c) = (device(), device(), device());
    let (mut one, mut far) = pair(&left, &right, &a, &b).await;
    for port in servers.ports.clone() {
        let slow = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "DEBUG", "SLEEP", "4"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::spawn(move || slow.wait_with_output());
    }
    let began = Instant::now();
    presence(&mut one, &b, false).await;
    presence(&mut far, &a, false).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let came = Instant::now();
    soon("a login beside a slow Redis", left.join(&c)).await;
    assert!(came.elapsed() < Duration::from_secs(3), "{:?}", came.elapsed());
    presence(&mut one, &b, true).await;
    presence(&mut far, &a, true).await;
    arrives((&mut one, &a), (&mut far, &b), b"again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_three_nodes_over_one_redis() {
    every_pair_across(&Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_device_over_one_redis() {
    a_device_that_moves_is_at_one_node_only(&Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_over_one_redis() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    a_ticket_leads_to_another_node(&left, &right).await;
    until("nothing is left of it", || servers.ask(servers.ports[0], &["KEYS", "hr:rdv:*"]).is_empty()).await;
    a_ticket_outlives_an_emptied_redis(&servers, &left, &right).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_arrive_over_one_redis() {
    let servers = Servers::one().await;
    let left = Arc::new(RedisBus::start(&servers.url()).unwrap());
    assert!(left.connected(Duration::from_secs(10)).await, "Redis is reached");
    what_does_not_arrive_ends_the_guest_alone(left, &servers.node().await).await;
}

/// Whoever has seen the hash of a ticket could have its guests led astray.
#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_leads_to_who_opened_it_first_for_as_long_as_that_is_there() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (mut machine, other, phone) = (device(), device(), device());
    let mut host = left.join(&machine).await;
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
    let mut second = right.join(&other).await;
    assert_eq!(open(&mut second, TICKET, 120).await, RendezvousState::Refused);
    second.barrier().await;
    let mut client = right.connect().await;
    assert_eq!(client.log_in(&phone, Some(TICKET)).await, Some(machine.id()));
    // It may come to another node itself.
    machine.epoch = 2;
    let mut host = right.join(&machine).await;
    assert_eq!(open(&mut host, TICKET, 120).await, RendezvousState::Open);
    host.tell(ToRelay::CloseRendezvous { ticket_hash: hash(TICKET) }).await;
    host.expect(FromRelay::Rendezvous { ticket_hash: hash(TICKET), state: RendezvousState::Ended }).await;
    let mut third = left.join(&other).await;
    until("it is free", || servers.ask(servers.ports[0], &["EXISTS", &rendezvous(TICKET)]) == "0").await;
    assert_eq!(open(&mut third, TICKET, 120).await, RendezvousState::Open);
    // What a node left behind that has gone is in nobody's way.
    let dead = "return redis.call('SET', KEYS[1], string.rep('d', 40))";
    assert_eq!(servers.ask(servers.ports[0], &["EVAL", dead, "1", &rendezvous([7; 32])]), "OK");
    assert_eq!(open(&mut third, [7; 32], 120).await, RendezvousState::Open);
    for node in [&left, &right] {
        node.balances().await;
    }
    assert_eq!((left.metric("rendezvous"), right.metric("rendezvous")), (2, 0));
    assert_eq!((right.metric("rendezvous_opened_total"), right.metric("rendezvous_refused_total")), (1, 1));
}

fn rendezvous(ticket: [u8; 32]) -> String {
    format!("hr:rdv:{}", hex(&hash(ticket)))
}

async fn a_ticket_outlives_an_emptied_redis(servers: &Servers, left: &Server, right: &Server) {
    let (machine, phone) = (device(), device());
    let mut host = left.join(&machine).await;
    open(&mut host, TICKET, 120).await;
    servers.all(&["FLUSHALL"]);
    let known = || servers.ask(servers.ports[0], &["EXISTS", &rendezvous(TICKET)]) == "1";
    until("the ticket is known again", known).await;
    let mut client = guest(right, &phone, TICKET).await;
    client.send(machine.id(), 1, b"may I").await;
    host.expect(FromRelay::Deliver { from: phone.id(), rendezvous: true, payload: b"may I" }).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who is told that its invitation is over does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_comes_again_while_an_emptied_redis_is_filled() {
    let servers = Servers::one().await;
    let right = servers.node().await;
    assert_eq!(refused(&right, &device(), TICKET).await, Code::LOGIN_REFUSED);
    let lease = servers.ask(servers.ports[0], &["KEYS", "hr:node:*"]);
    servers.all(&["FLUSHALL"]);
    let begun = Instant::now();
    assert_eq!(refused(&right, &device(), TICKET).await, Code::SILENT);
    // Its own key stands again, and others may still be about to say theirs.
    until("the node has noticed", || servers.ask(servers.ports[0], &["EXISTS", &lease]) == "1").await;
    assert_eq!(refused(&right, &device(), TICKET).await, Code::SILENT);
    soon("an invitation to be over", async {
        while refused(&right, &device(), TICKET).await == Code::SILENT {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_comes_again_while_redis_is_away() {
    let mut servers = Servers::one().await;
    let right = servers.node().await;
    servers.kill();
    until("it is noticed", || right.metric("bus_up") == 0).await;
    assert_eq!(refused(&right, &device(), TICKET).await, Code::SILENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_over_one_redis() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    records_cross(&left, &right).await;
    let named = Config { names: vec!["relay.example".into()], ..Config::default() };
    let (left, right) = (servers.node_with(named.clone()).await, servers.node_with(named).await);
    rest_crosses(&left, &right).await;
    records_come_back_after(&servers, &left, &right).await;
}

/// Records that were lost are asked for again; those of a machine that is away are gone.
async fn records_come_back_after(servers: &Servers, left: &Server, right: &Server) {
    let (machine, phone) = (device(), device());
    let mut desk = Client::dial(left.address(), "relay.example").await;
    desk.log_in(&machine, None).await;
    desk.name(&[phone.id()]).await;
    assert_eq!(desk.put(record_kind::STATE, 4, b"kept").await.answer, RecordAnswer::Stored);
    servers.all(&["FLUSHALL"]);
    let mut hand = Client::dial(right.address(), "relay.example").await;
    hand.log_in(&phone, None).await;
    assert_eq!(hand.get(machine.id(), record_kind::STATE).await.version, 0);
    // Within seconds the node sees that its own lease has gone.
    desk.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b11 }).await;
    assert_eq!(desk.put(record_kind::STATE, 4, b"kept").await.answer, RecordAnswer::Stored);
    assert_eq!(hand.get(machine.id(), record_kind::STATE).await.sealed, b"kept");
}

/// Nobody waits for a Redis that does not answer, and what cannot be kept is said.
#[tokio::test(flavor = "multi_thread")]
async fn records_without_redis_are_refused_and_put_again_later() {
    let mut servers = Servers::one().await;
    let node = servers.node().await;
    let machine = device();
    let mut desk = node.join(&machine).await;
    servers.kill();
    soon("a refusal", async {
        while desk.put(record_kind::STATE, 1, b"x").await.answer != RecordAnswer::Refused {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(desk.get(machine.id(), record_kind::STATE).await.answer, RecordAnswer::Refused);
    servers.start().await;
    desk.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b11 }).await;
    assert_eq!(desk.put(record_kind::STATE, 1, b"x").await.answer, RecordAnswer::Stored);
}

/// While Redis stands still four requests of a connection wait, and more are refused at once.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_are_bounded() {
    let servers = Servers::one().await;
    let node = servers.node().await;
    let machine = device();
    let mut desk = node.join(&machine).await;
    desk.put(record_kind::STATE, 1, b"x").await;
    // Commands wait; the node's own Pings do too, but not for as long as its patience.
    servers.all(&["CLIENT", "PAUSE", "600", "ALL"]);
    for _ in 0..MAX_REQUESTS + 3 {
        desk.tell(ToRelay::GetRecord { machine: machine.id(), kind: record_kind::STATE }).await;
    }
    let mut answers = Vec::new();
    for _ in 0..MAX_REQUESTS + 3 {
        answers.push(desk.record().await.answer);
    }
    // The first may or may not have been taken from the queue when the fifth came.
    let refused = answers.iter().take_while(|answer| **answer == RecordAnswer::Refused).count();
    assert!((3..=4).contains(&refused), "{answers:?}");
    assert!(answers[refused..].iter().all(|answer| *answer == RecordAnswer::Asked), "{answers:?}");
}

/// How many GET commands this Redis has been sent.
fn gets(servers: &Servers) -> u64 {
    let said = servers.ask(servers.ports[0], &["INFO", "commandstats"]);
    let get = said.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    get.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_no_node_costs_redis_next_to_nothing() {
    let servers = Servers::one().await;
    let node = servers.node().await;
    // {"alg":"EdDSA","kid":"00112233445566ff","typ":"JWT"}, {}, and a signature of zeros.
    let token =
        format!("eyJhbGciOiJFZERTQSIsImtpZCI6IjAwMTEyMjMzNDQ1NTY2ZmYiLCJ0eXAiOiJKV1QifQ.e30.{}", "A".repeat(86));
    let head = format!("Host: a\r\nConnection: close\r\nAuthorization: Bearer {token}");
    let request = format!("GET /v1/machines/x HTTP/1.1\r\n{head}\r\n\r\n");
    let (before, begun) = (gets(&servers), Instant::now());
    for _ in 0..10 {
        for answer in join_all((0..20).map(|_| http(node.address(), &request))).await {
            assert!(answer.contains("\"token_invalid\""), "{answer}");
        }
    }
    // One for each three seconds.
    let most = 1 + begun.elapsed().as_secs() / 3;
    let asked = gets(&servers) - before;
    assert!((1..=most).contains(&asked), "{asked} of at most {most}");
}

/// A frame that was being published when Redis stopped answering may have arrived; those behind it certainly have not.
#[tokio::test(flavor = "multi_thread")]
async fn who_sent_what_was_behind_a_batch_that_failed_is_told() {
    const FRAMES: u32 = 80;
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b) = (device(), device());
    let (mut one, mut other) = pair(&left, &right, &a, &b).await;
    arrives((&mut one, &a), (&mut other, &b), b"first").await;
    servers.all(&["CLIENT", "PAUSE", "60000", "ALL"]);
    // The first ones are taken at once, and the others wait together until these have failed.
    for tag in 0..FRAMES {
        one.send(b.id(), tag, &[1; 60_000]).await;
    }
    let mut told = HashSet::new();
    let all_but_some = async {
        // Eight batches at most are under way, of three such frames each; before them, eight more.
        while told.len() < FRAMES as usize - 2 * 8 * 3 {
            match FromRelay::decode(&one.frame().await) {
                Ok(FromRelay::Undeliverable { to, tag, .. }) if to == b.id() => assert!(told.insert(tag)),
                Ok(FromRelay::Presence { here: false, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    soon("word of them", all_but_some).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_back() {
    without_redis_neighbours_notice_nothing(&mut Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_emptied() {
    an_emptied_redis_is_filled_again(&Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_claims_without_redis() {
    two_nodes_that_claim_a_device_end_with_one(&mut Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_slow() {
    a_slow_redis_holds_up_nobody(&Servers::one().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_redis() {
    let mut servers = Servers::cluster().await;
    every_pair_across(&servers).await;
    a_device_that_moves_is_at_one_node_only(&servers).await;
    let (left, right) = (servers.node().await, servers.node().await);
    records_cross(&left, &right).await;
    a_ticket_leads_to_another_node(&left, &right).await;
    an_emptied_redis_is_filled_again(&servers).await;
    without_redis_neighbours_notice_nothing(&mut servers).await;
    two_nodes_that_claim_a_device_end_with_one(&mut servers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_without_redis_and_joins_when_it_comes() {
    let mut servers = Servers::one().await;
    servers.kill();
    let bus = Arc::new(RedisBus::start(&servers.url()).unwrap());
    let left = Server::with(Config { bus: Some(bus.clone() as Arc<dyn Bus>), ..Config::default() }).await;
    let (a, b) = (device(), device());
    let mut one = left.join(&a).await;
    one.tell(ToRelay::Peers(vec![b.id()])).await;
    servers.start().await;
    assert!(bus.connected(Duration::from_secs(10)).await);
    let right = servers.node().await;
    let mut other = right.join(&b).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    presence(&mut one, &b, true).await;
    presence(&mut other, &a, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_speaks_for_its_phones_at_every_node() {
    const VOUCH: Duration = Duration::from_millis(400);
    let mut servers = Servers::one().await;
    let key = enrolment_key("correct horse battery staple").unwrap();
    let config = || {
        let keys = vec![Enrolment { name: "home".into(), key: key.public() }];
        let timings = Timings { vouch: VOUCH, ..Timings::default() };
        Config { access: Access { policy: Policy::Vouched, keys }, timings, ..Config::default() }
    };
    let (left, right) = (servers.node_with(config()).await, servers.node_with(config()).await);
    let (machine, phone) = (device(), device());
    let mut at_machine = left.connect().await;
    let nonce = at_machine.challenge().await;
    at_machine.raw(&machine.enrolled_login(&at_machine.name.clone(), &nonce, &key)).await;
    let welcome = at_machine.frame().await;
    assert!(matches!(FromRelay::decode(&welcome), Ok(FromRelay::Welcome { .. })));
    at_machine.name(&[phone.id()]).await;
    let mut at_phone = let_in(&right, &phone).await;
    // Without Redis nobody here can know whether it is vouched for: it stays, however often that is asked.
    servers.kill();
    tokio::time::sleep(VOUCH * 5).await;
    at_phone.barrier().await;
    servers.start().await;
    tokio::time::sleep(VOUCH * 5).await;
    at_phone.barrier().await;
    // The machine takes it off its list.
    at_machine.tell(ToRelay::Peers(vec![])).await;
    assert_eq!(at_phone.goaway().await.0, Code::NOT_PERMITTED);
}

/// Until a phone is let in: a vouch is written behind the machine's back, and a phone that comes too early is told to come again.
async fn let_in(node: &Server, phone: &Device) -> Client {
    soon("the phone is let in", async {
        loop {
            let mut client = node.connect().await;
            let nonce = client.challenge().await;
            client.raw(&phone.login(&client.name.clone(), &nonce, None)).await;
            let frame = client.frame().await;
            match FromRelay::decode(&frame) {
                Ok(FromRelay::Welcome { .. }) => break client,
                Ok(FromRelay::Goaway { code: Code::NOT_PERMITTED, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    })
    .await
}

/// Redis may throw out what has a time to live when its memory is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_records_redis_threw_out_is_told_once_and_puts_them_again() {
    let servers = Servers::one().await;
    let timings = Timings { alive: Duration::from_millis(100), ..Timings::default() };
    let server = servers.node_with(Config { timings, ..Config::default() }).await;
    let (machine, other) = (device(), device());
    let mut desk = server.join(&machine).await;
    let mut bystander = server.join(&other).await;
    for (version, sealed) in [(5, b"first"), (6, b"again")] {
        assert_eq!(desk.put(1, version, sealed).await.answer, RecordAnswer::Stored);
        assert_eq!(bystander.put(1, 1, b"x").await.answer, RecordAnswer::Stored);
        servers.all(&["DEL", &format!("hr:rec:{}", machine.id())]);
        desk.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b11 }).await;
        // Some signs of life later it has not been told again.
        tokio::time::sleep(timings.alive * 4).await;
        desk.barrier().await;
        bystander.barrier().await;
    }
}

/// Its next record would hide from the next sign of life that the others have gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_records_redis_threw_out_is_told_with_the_next_that_it_puts() {
    let servers = Servers::one().await;
    let server = servers.node().await;
    let (machine, other) = (device(), device());
    let mut desk = server.join(&machine).await;
    let mut bystander = server.join(&other).await;
    for client in [&mut desk, &mut bystander] {
        assert_eq!(client.put(1, 1, b"metadata").await.answer, RecordAnswer::Stored);
        assert_eq!(client.put(2, 1, b"running").await.answer, RecordAnswer::Stored);
    }
    servers.all(&["DEL", &format!("hr:rec:{}", machine.id())]);
    desk.tell(ToRelay::PutRecord { kind: 2, version: 2, sealed: b"stopping" }).await;
    desk.expect(FromRelay::Changed { machine: machine.id(), kinds: 0b11 }).await;
    assert_eq!(desk.record().await.answer, RecordAnswer::Stored);
    assert_eq!(desk.put(2, 2, b"stopping").await.answer, RecordAnswer::Stored);
    assert_eq!(desk.put(1, 1, b"metadata").await.answer, RecordAnswer::Stored);
    assert_eq!(bystander.put(2, 2, b"stopping").await.answer, RecordAnswer::Stored);
    for mut client in [desk, bystander] {
        client.barrier().await;
    }
}

/// The word of a machine that has gone stands for a day, also when Redis is emptied meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn whom_a_machine_spoke_for_before_it_went_is_let_in_after_an_emptied_redis() {
    let servers = Servers::one().await;
    let key = enrolment_key("correct horse battery staple").unwrap();
    let config = || {
        let keys = vec![Enrolment { name: "home".into(), key: key.public() }];
        Config { access: Access { policy: Policy::Vouched, keys }, ..Config::default() }
    };
    let (left, right) = (servers.node_with(config()).await, servers.node_with(config()).await);
    let (machine, phone) = (device(), device());
    let mut at_machine = left.connect().await;
    let nonce = at_machine.challenge().await;
    at_machine.raw(&machine.enrolled_login(&at_machine.name.clone(), &nonce, &key)).await;
    at_machine.frame().await;
    at_machine.name(&[phone.id()]).await;
    drop(at_machine);
    until("the machine has gone", || left.metric("connections") == 0).await;
    servers.all(&["FLUSHALL"]);
    drop(let_in(&right, &phone).await);
}

/// Its devices do not come back elsewhere either: whoever named them must not go on believing that they are here.
#[test]
fn a_node_that_dies_without_a_word() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (alive, dying) = (runtime(), runtime());
    let (a, b, c) = (device(), device(), device());
    let (servers, left) = alive.block_on(async {
        let servers = Servers::one().await;
        let left = servers.node().await;
        (servers, left)
    });
    let right = dying.block_on(servers.node());
    alive.block_on(async {
        let (mut one, mut other) = pair(&left, &right, &a, &b).await;
        // Of two that it names there it names one no longer.
        let mut third = left.join(&c).await;
        third.tell(ToRelay::Peers(vec![b.id()])).await;
        other.tell(ToRelay::Peers(vec![a.id(), c.id()])).await;
        presence(&mut third, &b, true).await;
        presence(&mut other, &c, true).await;
        other.tell(ToRelay::Peers(vec![a.id()])).await;
        presence(&mut third, &b, false).await;
        dying.shutdown_background();
        let began = Instant::now();
        soon("word that it has gone", presence(&mut one, &b, false)).await;
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        let bucket = format!("hr:dir:{}", &hex(&Sha256::digest(b.id().as_bytes()))[..3]);
        let stands = || servers.ask(servers.ports[0], &["EXISTS", &bucket]) == "1";
        assert!(stands(), "the dead node's device is in the directory still");
        one.send(b.id(), 1, b"gone").await;
        one.expect(FromRelay::Undeliverable { to: b.id(), tag: 1, reason: Undelivered::Unreachable }).await;
        until("nobody is led to the dead node any more", || !stands()).await;
    });
    drop(left);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_in_order_says_so_at_once() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (a, b) = (device(), device());
    let (mut one, other) = pair(&left, &right, &a, &b).await;
    // The device goes away with its node and comes back nowhere.
    drop(other);
    let began = Instant::now();
    right.relay.shutdown(Duration::from_secs(5)).await;
    presence(&mut one, &b, false).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(servers.ask(servers.ports[0], &["KEYS", "hr:node:*"]).lines().count(), 1, "its key is gone");
}
