//! What machines say of themselves: over their links, and at a relay while they are away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use happy_relay::{Config, Door, Listening, Relay};
use harness::{Home, PATIENCE, machine_name, pair};
use serde_json::Value;

/// A relay of one node with nothing but memory; ended and begun again it has forgotten everything.
struct Memory {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    running: Option<(Relay, Listening)>,
}

impl Memory {
    fn new() -> Memory {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut memory = Memory { runtime, address: "127.0.0.1:0".parse().unwrap(), running: None };
        memory.begin();
        memory
    }

    fn begin(&mut self) {
        let address = self.address;
        let running = self.runtime.block_on(async {
            let relay = Relay::new(Config::default()).unwrap();
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                match relay.listen(address, Door::plain()).await {
                    Ok(listening) => return (relay, listening),
                    // The one before may still have the port.
                    Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        self.address = running.1.address();
        self.running = Some(running);
    }

    fn end(&mut self) {
        if let Some((relay, listening)) = self.running.take() {
            self.runtime.block_on(relay.shutdown(Duration::from_secs(2)));
            drop(listening);
        }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// A machine and one that has joined it, both at this relay.
fn two(memory: &Memory) -> (Home, Home) {
    let (host, guest) = (Home::new(), Home::new());
    for home in [&host, &guest] {
        home.start_with(&["--relay", &memory.origin()]);
    }
    pair(&host, &guest, "operator", "the laptop");
    until(&guest, |machine| machine["link_up"] == true && status(machine) == Some("running"));
    (host, guest)
}

fn machine(list: &Value) -> &Value {
    &list["machines"][0]
}

fn status(machine: &Value) -> Option<&str> {
    machine["state"]["status"].as_str()
}

#[track_caller]
fn until(home: &Home, fits: impl Fn(&Value) -> bool) -> Value {
    machine(&home.until(&["devices"], |list| fits(machine(list)))).clone()
}

fn version(machine: &Value) -> u64 {
    machine["versions"][1].as_u64().unwrap()
}

#[test]
fn a_paired_machine_sees_the_stop_order_state_by_state_whoever_stops_it() {
    let memory = Memory::new();
    let (host, guest) = two(&memory);
    let name = machine_name(&host);
    let by_signal = |host: &Home| {
        let pid = rustix::process::Pid::from_raw(host.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    };
    let by_command = |host: &Home| drop(host.run(&["daemon", "stop"]).ok());
    type Stop<'a> = (&'a str, &'a dyn Fn(&Home));
    let stops: [Stop<'_>; 2] = [("signal", &by_signal), ("cli", &by_command)];
    for (source, stop) in stops {
        let before = until(&guest, |machine| machine["link_up"] == true && status(machine) == Some("running"));
        let mut events = guest.spawn(&["--json", "events", "--machine", &name]);
        // From here on it is told everything.
        events.line(|line| line.contains("\"from\""));
        stop(&host);
        for state in ["shutting-down", "offline"] {
            let line = events.line(|line| line.contains("machine.changed"));
            let told: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(told["data"]["status"], state, "{line}");
            assert_eq!(told["data"]["shutdown_source"], source, "{line}");
        }
        drop(events);
        // And while it is away, from the relay.
        let after = until(&guest, |machine| machine["link_up"] == false && status(machine) == Some("offline"));
        assert!(after["state"]["shutdown_requested_at"].as_u64() >= after["state"]["started_at"].as_u64(), "{after}");
        let after = until(&guest, |machine| version(machine) >= version(&before) + 2);
        assert_eq!(after["metadata"]["platform"], std::env::consts::OS);
        assert_eq!(after["metadata"]["happy_home"].as_str(), host.path().to_str());
        host.start_with(&["--relay", &memory.origin()]);
        let again = until(&guest, |machine| status(machine) == Some("running"));
        assert_eq!(again["state"]["pid"], host.pid());
    }
}

#[test]
fn a_relay_that_has_lost_the_records_has_them_again_and_shows_them_while_the_machine_is_away() {
    let mut memory = Memory::new();
    let (host, guest) = two(&memory);
    let before = version(&until(&guest, |machine| version(machine) > 0));
    memory.end();
    memory.begin();
    until(&guest, |machine| machine["link_up"] == true);
    host.until(&["daemon", "status"], |status| status["relays"][0]["up"] == true);
    guest.run(&["daemon", "stop"]).ok();
    // What it was told over the link is forgotten; only the key and the versions stay, as on a device that was away.
    let path = guest.file("records-seen");
    let mut seen: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let entry = seen.as_object_mut().unwrap().values_mut().next().unwrap();
    (entry["state"], entry["metadata"]) = (Value::Null, Value::Null);
    std::fs::write(&path, seen.to_string()).unwrap();
    host.kill_daemon();
    guest.start_with(&["--relay", &memory.origin()]);
    let shown = until(&guest, |machine| status(machine).is_some());
    // It was killed, so nobody said that it ends: the relay knows when it was there last.
    assert_eq!((status(&shown), &shown["link_up"]), (Some("running"), &Value::Bool(false)), "{shown}");
    assert!(shown["last_seen"].as_u64().is_some_and(|at| at > 0) && version(&shown) >= before, "{shown}");
    assert_eq!(shown["metadata"]["platform"], std::env::consts::OS);
}

#[test]
fn a_removed_machine_has_no_key_for_what_is_said_afterwards() {
    let memory = Memory::new();
    let (host, guest) = two(&memory);
    let key = |home: &Home, file: &str| std::fs::read_to_string(home.file(file)).unwrap();
    let own = |home: &Home| -> Value { serde_json::from_str(&key(home, "records")).unwrap() };
    let before = own(&host)["key"].clone();
    assert!(key(&guest, "records-seen").contains(before[1].as_str().unwrap()), "it was told the key over its link");
    let other = Home::new();
    other.start_with(&["--relay", &memory.origin()]);
    pair(&host, &other, "viewer", "the tablet");
    until(&other, |machine| status(machine) == Some("running"));

    host.run(&["devices", "revoke", "the laptop"]).ok();
    let after = own(&host)["key"].clone();
    assert_ne!(before[1], after[1]);
    assert_eq!(before[0].as_u64().unwrap() + 1, after[0].as_u64().unwrap());
    let deadline = std::time::Instant::now() + PATIENCE;
    while !key(&other, "records-seen").contains(after[1].as_str().unwrap()) {
        assert!(std::time::Instant::now() < deadline, "who stays has the new key");
        std::thread::sleep(Duration::from_millis(20));
    }
    host.run(&["daemon", "stop"]).ok();
    until(&other, |machine| status(machine) == Some("offline"));
    assert!(!key(&guest, "records-seen").contains(after[1].as_str().unwrap()), "who was removed has not");
    // What it sees is what it saw.
    assert_eq!(status(&until(&guest, |_| true)), Some("running"));
    let log = host.log() + &guest.log() + &other.log();
    for secret in [&before[1], &after[1]] {
        assert!(!log.contains(secret.as_str().unwrap()), "a key in a log");
    }
}

#[test]
fn versions_only_grow_over_restarts_and_a_damaged_file_is_told() {
    let memory = Memory::new();
    let (host, guest) = two(&memory);
    let mut last = 0;
    for _ in 0..3 {
        host.run(&["daemon", "stop"]).ok();
        let offline = until(&guest, |machine| status(machine) == Some("offline") && version(machine) > last);
        last = version(&offline);
        host.start_with(&["--relay", &memory.origin()]);
        until(&guest, |machine| status(machine) == Some("running"));
    }
    host.run(&["daemon", "stop"]).ok();
    std::fs::write(host.file("records"), "{").unwrap();
    host.run(&["daemon", "start"]).fails_with(&["records", "damaged", "Move it aside"]);
    std::fs::remove_file(host.file("records")).unwrap();
    // Its versions begin anew, and go on behind the one that the relay has.
    host.start_with(&["--relay", &memory.origin()]);
    until(&guest, |machine| machine["link_up"] == true && status(machine) == Some("running"));
    host.run(&["daemon", "stop"]).ok();
    until(&guest, |machine| status(machine) == Some("offline") && version(machine) > last);
}
