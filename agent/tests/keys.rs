//! Keys that change: pair secrets, prekeys, and the identity itself; what crashes, old copies and long absences do to them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use harness::{Home, PATIENCE, machine_name, pair, read};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A relay in this process, which outlives the daemons.
struct Relay {
    _runtime: tokio::runtime::Runtime,
    address: SocketAddr,
}

impl Relay {
    fn start() -> Relay {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = runtime.block_on(async {
            let relay = happy_relay::Relay::new(happy_relay::Config::default()).unwrap();
            let any = (Ipv4Addr::LOCALHOST, 0).into();
            let listening = relay.listen(any, happy_relay::Door::plain()).await.unwrap();
            let address = listening.address();
            // Until the runtime goes.
            std::mem::forget((relay, listening));
            address
        });
        Relay { _runtime: runtime, address }
    }

    /// A home whose daemon uses this relay.
    fn home(&self) -> Home {
        let home = Home::new();
        self.start_daemon(&home);
        home
    }

    fn start_daemon(&self, home: &Home) {
        home.start_with(&["--relay", &format!("http://{}", self.address)]);
    }

    fn restart(&self, home: &Home) {
        home.run(&["daemon", "stop"]).ok();
        self.start_daemon(home);
    }
}

/// A host, a guest that has joined it, and a link between them.
fn linked(relay: &Relay) -> (Home, Home) {
    let (host, guest) = (relay.home(), relay.home());
    pair(&host, &guest, "owner", "the laptop");
    until_linked(&guest);
    (host, guest)
}

#[track_caller]
fn until_linked(guest: &Home) {
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
}

#[track_caller]
fn until_file(path: &Path, fits: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = read(path);
        if fits(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "{} stays:\n{text}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn device_id(home: &Home) -> String {
    home.json(&["daemon", "status"])["device"].as_str().unwrap().to_owned()
}

/// The secrets that stand in a home for its only device, the current one first.
fn secrets(home: &Home) -> Vec<String> {
    let text = read(&home.file("pair.secrets"));
    let line = text.lines().nth(2).filter(|line| !line.starts_with("sum ")).unwrap_or_default();
    line.split(' ').skip(1).map(str::to_owned).collect()
}

/// Both sides have stored what the last handshake left, and say so: one secret at the host, the same at the guest.
#[track_caller]
fn settled(host: &Home, guest: &Home) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (theirs, ours) = (secrets(host), secrets(guest));
        if theirs.len() == 1 && ours.first() == theirs.first() {
            return theirs[0].clone();
        }
        assert!(Instant::now() < deadline, "they do not agree: {} and {}", theirs.len(), ours.len());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn prekey_ids(home: &Home) -> Vec<u32> {
    let text = read(&home.file("prekeys"));
    let hex = text.lines().filter_map(|line| line.strip_prefix("prekey "));
    hex.map(|hex| u32::from_str_radix(&hex[64..72], 16).unwrap()).collect()
}

/// Makes the prekeys of a home older, as if it had been away.
fn age_prekeys(home: &Home, seconds: u64) {
    let path = home.file("prekeys");
    let mut aged = String::new();
    for line in read(&path).lines().filter(|line| !line.starts_with("sum ")) {
        match line.strip_prefix("prekey ") {
            Some(hex) => {
                let made_at = u64::from_str_radix(&hex[72..], 16).unwrap() - seconds;
                writeln!(aged, "prekey {}{made_at:016x}", &hex[..72]).unwrap();
            }
            None => writeln!(aged, "{line}").unwrap(),
        }
    }
    let sum = Sha256::digest(aged.as_bytes()).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    writeln!(aged, "sum {sum}").unwrap();
    std::fs::write(path, aged).unwrap();
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const MONTH: u64 = 30 * 24 * 3600;

/// A20 and A19: what was copied before the last handshake opens nothing, and both sides are told.
#[test]
fn an_old_copy_of_a_home_cannot_connect_and_both_sides_are_told() {
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let name = machine_name(&host);
    let copied = settled(&host, &guest);
    guest.run(&["daemon", "stop"]).ok();
    let files = ["access.key", "pair.secrets", "prekeys", "membership.log", "peers.json"];
    let copy: Vec<_> = files.iter().map(|file| std::fs::read(guest.file(file)).unwrap()).collect();

    // One handshake later…
    relay.start_daemon(&guest);
    until_linked(&guest);
    assert_ne!(settled(&host, &guest), copied);
    guest.run(&["daemon", "stop"]).ok();
    // …somebody comes with the copy.
    for (file, bytes) in files.iter().zip(&copy) {
        std::fs::write(guest.file(file), bytes).unwrap();
    }
    relay.start_daemon(&guest);
    guest.until(&["devices"], |list| list["machines"][0]["pair_again"] == "not_believed");
    let told = guest.run(&["devices"]).ok();
    assert!(told.contains("restored from an old copy") && told.contains("Join it again"), "{told}");
    guest.run(&["ls", "--machine", &name]).fails_with(&["old copy", "paired again", "happy join"]);
    assert!(guest.log().contains("does not know the keys of this one"), "{}", guest.log());

    let list = host.until(&["devices"], |list| list["devices"][0]["stranger_at"].is_u64());
    assert_ne!(list["devices"][0]["presence"], "here");
    let told = host.run(&["devices"]).ok();
    assert!(told.contains("old keys") && told.contains("Somebody came as the laptop"), "{told}");
    assert_eq!(host.log().matches("somebody came as this device").count(), 1, "{}", host.log());

    // Paired again, the same keys are good again.
    pair(&host, &guest, "owner", "the laptop");
    until_linked(&guest);
    guest.run(&["ls", "--machine", &name]).ok();
    assert!(guest.json(&["devices"])["machines"][0]["pair_again"].is_null());
    assert!(host.json(&["devices"])["devices"][0]["stranger_at"].is_null());
}

/// PROTOCOL 5: whatever is lost and whoever crashes, the initiator has a secret that the responder accepts.
#[test]
fn no_death_of_a_daemon_makes_a_new_pairing_necessary() {
    const DEATHS: usize = 30;
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let name = machine_name(&host);
    let begin = Instant::now();
    for death in 0..DEATHS {
        let random = uuid::Uuid::new_v4().into_bytes();
        let victim = if random[0] & 1 == 0 { &host } else { &guest };
        victim.kill_daemon();
        relay.start_daemon(victim);
        // The handshake begins with the start and takes some tens of milliseconds: the next death comes anywhere around it.
        std::thread::sleep(Duration::from_millis(u64::from(random[2]) * 2 / 3));
        if death % 10 == 9 {
            until_linked(&guest);
            guest.run(&["ls", "--machine", &name]).ok();
        }
    }
    let took = begin.elapsed();
    until_linked(&guest);
    settled(&host, &guest);
    for home in [&host, &guest] {
        let list = home.json(&["devices"]);
        let doubts = [&list["machines"][0]["pair_again"], &list["devices"][0]["stranger_at"]];
        assert!(doubts.iter().all(|doubt| doubt.is_null()), "after {took:?}: {list}");
        assert!(!home.log().contains("not stored"), "{}", home.log());
    }
}

#[test]
fn a_machine_that_was_away_for_long_is_given_the_new_prekey() {
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let name = machine_name(&host);
    let first = prekey_ids(&host);
    assert_eq!(first.len(), 1);
    guest.run(&["daemon", "stop"]).ok();
    let bundle = |home: &Home| {
        let peers: Value = serde_json::from_str(&read(&home.file("peers.json"))).unwrap();
        peers[0]["bundle"].as_str().unwrap().to_owned()
    };
    let before = bundle(&guest);
    let since = unix_seconds();

    // A month goes by: there is a new one, and the old one answers still. Another month, and it is gone.
    for kept in [vec![first[0], first[0] + 1], vec![first[0] + 1, first[0] + 2]] {
        host.run(&["daemon", "stop"]).ok();
        age_prekeys(&host, MONTH);
        while unix_seconds() <= since {
            std::thread::sleep(Duration::from_millis(20));
        }
        relay.start_daemon(&host);
        assert_eq!(prekey_ids(&host), kept);
        relay.restart(&host);
        assert_eq!(prekey_ids(&host), kept, "once is enough");
    }
    relay.start_daemon(&guest);
    until_linked(&guest);
    guest.run(&["ls", "--machine", &name]).ok();
    until_file(&guest.file("peers.json"), |text| !text.contains(&before));
    assert!(guest.log().contains("a machine has a new prekey"), "{}", guest.log());
    relay.restart(&guest);
    until_linked(&guest);
    assert_eq!(guest.log().matches("a machine has a new prekey").count(), 1, "it was stored");
}

#[test]
fn a_removal_deletes_the_secret_and_replaces_the_prekeys_also_when_it_was_interrupted() {
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let device = device_id(&guest);
    settled(&host, &guest);
    let files = ["pair.secrets", "prekeys"];
    let before: Vec<_> = files.iter().map(|file| std::fs::read(host.file(file)).unwrap()).collect();
    let first = prekey_ids(&host);
    host.run(&["devices", "revoke", "the laptop"]).ok();
    // When it is said to be done, it is.
    assert!(!read(&host.file("pair.secrets")).contains(&device));
    assert_eq!(prekey_ids(&host), [first[0] + 1]);
    guest.until(&["devices"], |list| list["machines"][0]["removed_us"] == true);
    assert!(!read(&guest.file("pair.secrets")).contains(&device_id(&host)));

    // The daemon died with nothing but the statement on the disk.
    host.run(&["daemon", "stop"]).ok();
    for (file, bytes) in files.iter().zip(&before) {
        std::fs::write(host.file(file), bytes).unwrap();
    }
    relay.start_daemon(&host);
    assert!(!read(&host.file("pair.secrets")).contains(&device));
    assert_eq!(prekey_ids(&host), [first[0] + 1]);
    assert!(host.json(&["devices"])["devices"][0]["removed_at"].is_u64());
}

#[test]
fn a_daemon_that_dies_while_it_removes_a_device_finishes_when_it_starts() {
    let relay = Relay::start();
    for _ in 0..3 {
        let (host, guest) = linked(&relay);
        let device = device_id(&guest);
        let first = prekey_ids(&host);
        let log = host.file("membership.log");
        let len = std::fs::metadata(&log).unwrap().len();
        let revoking = host.spawn(&["devices", "revoke", "the laptop"]);
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(&log).unwrap().len() == len {
            assert!(Instant::now() < deadline);
            std::hint::spin_loop();
        }
        host.kill_daemon();
        drop(revoking);
        relay.start_daemon(&host);
        assert!(host.json(&["devices"])["devices"][0]["removed_at"].is_u64());
        assert!(!read(&host.file("pair.secrets")).contains(&device));
        assert_eq!(prekey_ids(&host), [first[0] + 1]);
        guest.until(&["devices"], |list| list["machines"][0]["removed_us"] == true);
    }
}

#[test]
fn all_devices_are_removed_and_the_machine_is_another_one_while_its_sessions_go_on() {
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let away = relay.home();
    pair(&host, &away, "operator", "the desk");
    away.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    away.run(&["daemon", "stop"]).ok();
    let (before, key) = (device_id(&host), std::fs::read(host.file("access.key")).unwrap());
    let id = host.run(&["run", "-d", "--", "sh", "-c", "read wait; exit 5"]).ok().trim().to_owned();

    // Nobody can be asked in a pipe.
    host.run(&["devices", "revoke", "--all"]).fails_with(&["removes every device", "--yes"]);
    assert_eq!(device_id(&host), before);
    let told = host.run(&["devices", "revoke", "--all", "--yes"]).ok();
    let after = device_id(&host);
    assert_ne!(after, before);
    assert!(told.contains(&after) && told.contains("happy pair"), "{told}");
    assert_eq!(host.json(&["devices"])["devices"], serde_json::json!([]));
    assert_ne!(std::fs::read(host.file("access.key")).unwrap(), key);
    let of_all = |name: &str| std::fs::read_to_string(host.file(name)).unwrap_or_default();
    for file in ["pair.secrets", "peers.json"] {
        assert!(!of_all(file).contains(&device_id(&guest)), "{file}: {}", of_all(file));
    }
    assert!(host.file(&format!("membership.{}.log", &before[..8])).exists());

    // Who was connected knows; who was away finds nobody; the sessions have not noticed.
    guest.until(&["devices"], |list| list["machines"][0]["removed_us"] == true);
    relay.start_daemon(&away);
    away.until(&["relay"], |relays| relays[0]["up"] == true);
    assert_eq!(away.json(&["devices"])["machines"][0]["link_up"], false);
    let mut attach = host.spawn(&["attach", "--lossless", &id]);
    attach.type_line("go");
    assert_eq!(attach.finish().code, 5);

    // Each can be paired anew, and its name means the machine as it is now.
    pair(&host, &guest, "owner", "the laptop");
    guest.until(&["devices"], |list| {
        let machines = list["machines"].as_array().unwrap();
        machines.iter().any(|machine| machine["device"] == after && machine["link_up"] == true)
    });
    guest.run(&["ls", "--machine", &machine_name(&host)]).ok();
    assert_eq!(away.json(&["devices"])["machines"][0]["link_up"], false);
}

#[test]
fn devices_of_an_older_version_have_to_be_paired_again_and_stop_nothing() {
    let relay = Relay::start();
    let (host, guest) = linked(&relay);
    let name = machine_name(&host);
    for home in [&host, &guest] {
        home.run(&["daemon", "stop"]).ok();
        std::fs::remove_file(home.file("pair.secrets")).unwrap();
    }
    // With the bundle of another suite.
    let peers = read(&guest.file("peers.json"));
    let (start, rest) = peers.split_once(r#""bundle": "0102"#).unwrap();
    std::fs::write(guest.file("peers.json"), format!(r#"{start}"bundle": "0101{rest}"#)).unwrap();
    relay.start_daemon(&host);
    relay.start_daemon(&guest);
    assert_eq!(host.json(&["devices"])["devices"][0]["pair_again"], true);
    let told = host.run(&["devices"]).ok();
    assert!(told.contains("pair again") && told.contains("pair it again"), "{told}");
    assert_eq!(guest.json(&["devices"])["machines"][0]["pair_again"], "no_keys");
    guest.run(&["ls", "--machine", &name]).fails_with(&["older version", "paired again", "happy join"]);
    assert!(guest.log().contains("it has to be paired again"), "{}", guest.log());

    pair(&host, &guest, "owner", "the laptop");
    until_linked(&guest);
    guest.run(&["ls", "--machine", &name]).ok();
    assert_eq!(host.json(&["devices"])["devices"][0]["pair_again"], false);
}

#[test]
fn files_of_keys_that_others_can_read_or_that_are_damaged_are_told() {
    use std::os::unix::fs::PermissionsExt;
    let relay = Relay::start();
    let (host, _guest) = linked(&relay);
    host.run(&["daemon", "stop"]).ok();
    for name in ["pair.secrets", "prekeys"] {
        let path = host.file(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        host.run(&["daemon", "start"]).fails_with(&[name, "can be read by other users", "chmod 600"]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        host.run(&["daemon", "start"]).fails_with(&[name, "damaged", "Move it aside"]);
        std::fs::write(&path, &whole).unwrap();
    }
    relay.start_daemon(&host);
}
