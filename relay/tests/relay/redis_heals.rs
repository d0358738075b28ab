//! What was said while Redis was away, or stood where the data was lost, is true again soon after.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use happy_relay::access::enrolment_key;
use happy_relay::{Access, Config, Enrolment, Policy};
use happy_wire::Code;
use happy_wire::enrolment::EnrolmentKey;
use happy_wire::relay::{FromRelay, RecordAnswer, ToRelay, record_kind};

use crate::harness::{Client, Device, Server, soon, until};
use crate::redis::{Servers, device};

fn key() -> EnrolmentKey {
    enrolment_key("correct horse battery staple").unwrap()
}

fn vouched() -> Config {
    let keys = vec![Enrolment { name: "home".into(), key: key().public() }];
    Config { access: Access { policy: Policy::Vouched, keys }, ..Config::default() }
}

async fn enrolled(node: &Server, machine: &Device) -> Client {
    let mut client = node.connect().await;
    let nonce = client.challenge().await;
    client.raw(&machine.enrolled_login(&client.name.clone(), &nonce, &key())).await;
    let frame = client.frame().await;
    assert!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Welcome { .. })));
    client
}

async fn is_refused(node: &Server, phone: &Device) -> bool {
    let mut client = node.connect().await;
    let nonce = client.challenge().await;
    client.raw(&phone.login(&client.name.clone(), &nonce, None)).await;
    let frame = client.frame().await;
    matches!(FromRelay::decode(&frame), Ok(FromRelay::Goaway { code: Code::NOT_PERMITTED, .. }))
}

async fn until_vouched(servers: &Servers, phone: &Device, by: &str) {
    let key = format!("hr:vouch:{}", phone.id());
    until("the vouch in Redis is as it should be", || servers.ask(servers.ports[0], &["ZCARD", &key]) == by).await;
}

/// Redis stands still with all its data until the nodes have noticed, and for what happens then.
async fn while_redis_stands_still(servers: &Servers, nodes: &[&Server], happens: impl Future<Output = ()>) {
    servers.signal("STOP");
    until("Redis is missed", || nodes.iter().all(|node| node.metric("bus_up") == 0)).await;
    happens.await;
    servers.signal("CONT");
    until("Redis is back", || nodes.iter().all(|node| node.metric("bus_up") == 1)).await;
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Until a machine is not shown as being here: its last sign of life stays behind.
async fn until_away(reader: &mut Client, machine: &Device) {
    soon("the machine to be shown as away", async {
        loop {
            let seen = reader.get(machine.id(), record_kind::METADATA).await;
            assert_eq!(seen.answer, RecordAnswer::Asked);
            if now() - seen.last_seen > 1_000 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_removed_stays_out_at_the_node_that_the_machine_left() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node_with(vouched()).await, servers.node_with(vouched()).await);
    let (mut machine, other, phone, others) = (device(), device(), device(), device());
    let mut first = enrolled(&left, &machine).await;
    first.name(&[phone.id()]).await;
    let mut stays = enrolled(&left, &other).await;
    stays.name(&[others.id()]).await;
    until_vouched(&servers, &phone, "1").await;
    machine.epoch = 2;
    let mut second = enrolled(&right, &machine).await;
    assert_eq!(first.goaway().await.0, Code::DISPLACED);
    // Until it says whom it names, what it said before stands.
    assert!(!is_refused(&right, &phone).await);
    second.name(&[phone.id()]).await;
    second.name(&[]).await;
    until_vouched(&servers, &phone, "0").await;
    assert!(is_refused(&left, &phone).await && is_refused(&right, &phone).await);
    // Both nodes enter again what they know.
    servers.all(&["FLUSHALL"]);
    until_vouched(&servers, &others, "1").await;
    until_vouched(&servers, &phone, "0").await;
    assert!(is_refused(&left, &phone).await && is_refused(&right, &phone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_removed_while_redis_was_away_is_out_when_it_is_back() {
    let servers = Servers::one().await;
    let node = servers.node_with(vouched()).await;
    let (machine, phone, stays) = (device(), device(), device());
    let mut desk = enrolled(&node, &machine).await;
    desk.name(&[phone.id(), stays.id()]).await;
    until_vouched(&servers, &phone, "1").await;
    while_redis_stands_still(&servers, &[&node], async {
        desk.tell(ToRelay::Peers(vec![stays.id()])).await;
        // It goes away, too, so that nobody says it again.
        drop(desk);
        until("the machine has gone", || node.metric("connections") == 0).await;
    })
    .await;
    until_vouched(&servers, &phone, "0").await;
    until_vouched(&servers, &stays, "1").await;
    assert!(is_refused(&node, &phone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_removed_while_its_machine_was_away_is_out_when_that_names_the_others() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node_with(vouched()).await, servers.node_with(vouched()).await);
    let (mut machine, phone, stays) = (device(), device(), device());
    let mut desk = enrolled(&left, &machine).await;
    desk.name(&[phone.id(), stays.id()]).await;
    until_vouched(&servers, &phone, "1").await;
    drop(desk);
    until("the machine has gone", || left.metric("connections") == 0).await;
    machine.epoch = 2;
    let mut desk = enrolled(&right, &machine).await;
    desk.name(&[stays.id()]).await;
    until_vouched(&servers, &phone, "0").await;
    // What the node that it left remembers counts no longer.
    until_refused(&left, &phone).await;
    until_vouched(&servers, &phone, "0").await;
    until_vouched(&servers, &stays, "1").await;
}

async fn until_refused(node: &Server, phone: &Device) {
    soon("the phone to be refused", async {
        while !is_refused(node, phone).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Without Redis a machine leaves, and is gone when Redis is back with all that it had.
#[tokio::test(flavor = "multi_thread")]
async fn who_left_while_redis_was_away_has_left() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (mut machine, phone) = (device(), device());
    machine.epoch = 5;
    let mut desk = left.join(&machine).await;
    desk.name(&[phone.id()]).await;
    assert_eq!(desk.put(record_kind::METADATA, 1, b"x").await.answer, RecordAnswer::Stored);
    let mut hand = right.join(&phone).await;
    while_redis_stands_still(&servers, &[&left, &right], async {
        drop(desk);
        until("the machine has gone", || left.metric("connections") == 0).await;
    })
    .await;
    until_away(&mut hand, &machine).await;
    // Nothing of it is live, so that no login is too old.
    machine.epoch = 4;
    right.join(&machine).await;
}

#[test]
fn a_machine_of_a_node_that_died_is_shown_as_away() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (alive, dying) = (runtime(), runtime());
    let (mut machine, phone) = (device(), device());
    machine.epoch = 5;
    let (servers, left) = alive.block_on(async {
        let servers = Servers::one().await;
        let left = servers.node().await;
        (servers, left)
    });
    let right = dying.block_on(servers.node());
    alive.block_on(async {
        let mut desk = right.join(&machine).await;
        desk.name(&[phone.id()]).await;
        assert_eq!(desk.put(record_kind::METADATA, 1, b"x").await.answer, RecordAnswer::Stored);
        dying.shutdown_background();
        let mut hand = left.join(&phone).await;
        until_away(&mut hand, &machine).await;
        machine.epoch = 4;
        left.join(&machine).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_taken_off_the_list_while_redis_was_away_reads_no_longer() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (machine, phone) = (device(), device());
    let mut desk = left.join(&machine).await;
    desk.name(&[phone.id()]).await;
    assert_eq!(desk.put(record_kind::METADATA, 1, b"x").await.answer, RecordAnswer::Stored);
    let mut hand = right.join(&phone).await;
    assert_eq!(hand.get(machine.id(), record_kind::METADATA).await.sealed, b"x");
    while_redis_stands_still(&servers, &[&left, &right], async {
        desk.name(&[]).await;
    })
    .await;
    soon("the phone to read nothing", async {
        while !hand.get(machine.id(), record_kind::METADATA).await.sealed.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// One of three servers is emptied: none that holds the lease of the node, which would notice that anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_cluster_that_is_emptied_is_filled_again() {
    let servers = Servers::cluster().await;
    let node = servers.node().await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(node.join(&device()).await);
    }
    let entries = |port: u16| -> usize {
        let buckets = servers.ask(port, &["KEYS", "hr:dir:*"]);
        buckets.lines().map(|bucket| servers.ask(port, &["HLEN", bucket]).parse::<usize>().unwrap()).sum()
    };
    let all = || servers.ports.iter().map(|port| entries(*port)).sum::<usize>();
    assert_eq!(all(), 30);
    let lost = servers.ports.iter().find(|port| servers.ask(**port, &["KEYS", "hr:node:*"]).is_empty());
    servers.ask(*lost.unwrap(), &["FLUSHALL"]);
    until("all are entered again", || all() == 30).await;
}

/// Neither the device nor the lease of the node stands in it, but whom the machine speaks for: phones would be shut out.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_cluster_in_which_no_device_stands_is_filled_again() {
    let servers = Servers::cluster().await;
    let node = servers.node_with(vouched()).await;
    let mut desk = enrolled(&node, &device()).await;
    let phones: Vec<_> = (0..30).map(|_| device().id()).collect();
    desk.name(&phones).await;
    let count = |port: u16| servers.ask(port, &["KEYS", "hr:vouch:*"]).lines().filter(|key| !key.is_empty()).count();
    let all = || servers.ports.iter().map(|port| count(*port)).sum::<usize>();
    until("all vouches are said", || all() == phones.len()).await;
    let holds = |port: u16, keys: &str| !servers.ask(port, &["KEYS", keys]).is_empty();
    let lost = servers.ports.iter().find(|port| !holds(**port, "hr:node:*") && !holds(**port, "hr:dir:*"));
    let lost = *lost.expect("the lease and the device stand in two parts of three at most");
    assert!(count(lost) > 0);
    servers.ask(lost, &["FLUSHALL"]);
    until("all are said again", || all() == phones.len()).await;
}

/// With three quarters of its memory in use Redis gets nothing new that it would keep for long, and all else.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_nearly_full_keeps_what_it_has() {
    let servers = Servers::one().await;
    let (left, right) = (servers.node().await, servers.node().await);
    let (known, new, phone) = (device(), device(), device());
    let mut desk = left.join(&known).await;
    assert_eq!(desk.put(record_kind::STATE, 1, b"four").await.answer, RecordAnswer::Stored);
    servers.all(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let memory = servers.ask(servers.ports[0], &["INFO", "memory"]);
    let used = memory.lines().find_map(|line| line.trim().strip_prefix("used_memory:")).unwrap();
    // Between three quarters and all of it, with room on both sides: what serves a connection comes and goes.
    let most = used.parse::<u64>().unwrap() * 7 / 6;
    servers.all(&["CONFIG", "SET", "maxmemory", &most.to_string()]);
    let mut crowd = left.join(&new).await;
    assert_eq!(crowd.put(record_kind::STATE, 1, b"x").await.answer, RecordAnswer::Refused);
    assert_eq!(servers.ask(servers.ports[0], &["EXISTS", &format!("hr:rec:{}", new.id())]), "0");
    assert_eq!(desk.put(record_kind::STATE, 2, b"more than before").await.answer, RecordAnswer::Refused);
    assert_eq!(desk.put(record_kind::STATE, 2, b"five").await.answer, RecordAnswer::Stored);
    // Who may read takes room as well.
    desk.name(&[phone.id()]).await;
    let mut hand = right.join(&phone).await;
    assert_eq!(hand.get(known.id(), record_kind::STATE).await.sealed, b"");
    assert!(left.metric("bus_full_total") >= 2);
    servers.all(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(crowd.put(record_kind::STATE, 1, b"x").await.answer, RecordAnswer::Stored);
    assert_eq!((left.metric("bus_up"), left.metric("bus_lost_total")), (1, 0));
}
