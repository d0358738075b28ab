//! Events are followed through the death of a relay and of daemons: each once and in order, or an explicit gap (`PROTOCOL 10.3`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::net::{Ipv4Addr, TcpListener};

use harness::{Home, Running, machine_name, pair};
use serde_json::Value;

/// Sessions that are started and taken off the list: each is three changes or more.
const SESSIONS: usize = 84;
/// Changes of sessions that have to be seen.
const CHANGES: usize = 200;

/// A relay that is a process of its own: the one inside a daemon that does nothing else.
struct Relay {
    home: Home,
    port: String,
}

impl Relay {
    fn start() -> Relay {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
        let relay = Relay { home: Home::new(), port };
        relay.come_back();
        relay
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// With SIGKILL.
    fn die(&self) {
        self.home.kill_daemon();
    }

    fn come_back(&self) {
        self.home.run(&["daemon", "start", "--api-port", "0", "--relay-port", &self.port]).ok();
    }
}

/// Somebody who runs `happy events --json`.
struct Watcher {
    running: Running,
    log: String,
    number: u64,
}

impl Watcher {
    fn start(home: &Home, args: &[&str]) -> Watcher {
        let mut all = vec!["events", "--json"];
        all.extend(args);
        let mut watcher = Watcher { running: home.spawn(&all), log: String::new(), number: 0 };
        watcher.begins("from");
        watcher
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.running.line(|_| true)).unwrap()
    }

    /// A new beginning, and how it is told.
    fn begins(&mut self, how: &str) {
        let mut line = self.next();
        while line.get("event").is_some() {
            self.check(&line);
            line = self.next();
        }
        self.log = line[how]["log"].as_str().unwrap_or_else(|| panic!("`{how}` was expected: {line}")).to_owned();
        self.number = line[how]["number"].as_u64().unwrap();
    }

    /// It is the next event of the log, and no other.
    #[track_caller]
    fn check(&mut self, event: &Value) {
        assert_eq!(event["at"]["log"], self.log.as_str(), "{event}");
        assert_eq!(event["at"]["number"], self.number + 1, "{event}");
        self.number += 1;
    }

    /// The events up to one that fits, each checked to be the next one.
    fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let mut event = self.next();
            self.check(&event);
            let fitting = fits(&event);
            if let Some(devices) = event["data"].as_array_mut() {
                // In this alone what two are told differs.
                devices.iter_mut().for_each(|device| device["you"] = Value::Null);
            }
            events.push(event);
            if fitting {
                return events;
            }
        }
    }

    /// The events until a session of this name has ended.
    fn until_ended(&mut self, session: &str) -> Vec<Value> {
        self.until(|event| event["data"]["name"] == session && event["data"]["state"] == "exited")
    }
}

/// A session that begins, ends and is taken off the list.
fn session(host: &Home, name: &str) {
    let id = host.run(&["run", "-d", "--name", name, "--", "true"]).ok().trim().to_owned();
    host.run(&["kill", &id]).ok();
}

fn ends(host: &Home, name: &str) {
    host.run(&["run", "-d", "--name", name, "--", "true"]).ok();
}

fn two(relay: &Relay) -> (Home, Home, String) {
    let (host, guest) = (Home::new(), Home::new());
    host.start_with(&["--relay", &relay.url()]);
    guest.start_with(&["--relay", &relay.url()]);
    pair(&host, &guest, "viewer", "the phone");
    let name = machine_name(&host);
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    (host, guest, name)
}

#[test]
fn every_event_comes_once_and_in_order_over_a_relay_that_is_killed() {
    let relay = Relay::start();
    let (host, guest, name) = two(&relay);
    // One beside the daemon, whose connection never breaks, is the measure.
    let mut near = Watcher::start(&host, &[]);
    let mut far = Watcher::start(&guest, &["--machine", &name]);
    let mut seen = Vec::new();
    for n in 0..SESSIONS {
        match n % 14 {
            // Six sessions come and go while there is no relay, the others while there is one.
            4 => relay.die(),
            10 => {
                relay.come_back();
                ends(&host, &format!("back at {n}"));
                // The link is up again, so that the next death is one more.
                seen.extend(far.until_ended(&format!("back at {n}")));
            }
            _ => {}
        }
        session(&host, &format!("session {n}"));
    }
    // The follower's own daemon dies too; the log is the other machine's, so nothing is lost.
    guest.kill_daemon();
    session(&host, "behind its back");
    guest.start_with(&["--relay", &relay.url()]);
    ends(&host, "the last");

    seen.extend(far.until_ended("the last"));
    let (near, far) = (near.until_ended("the last"), seen);
    let changes = far.iter().filter(|event| event["event"].as_str().unwrap().starts_with("session.")).count();
    assert!(changes >= CHANGES, "{changes} changes");
    // They began one after the other.
    let from = near.iter().position(|event| event["at"] == far[0]["at"]).unwrap();
    for (near, far) in near[from..].iter().zip(&far) {
        assert_eq!(near, far);
    }
    assert_eq!(near.len() - from, far.len());
}

#[test]
fn a_daemon_that_was_killed_is_an_explicit_gap() {
    let relay = Relay::start();
    let (host, guest, name) = two(&relay);
    let mut watchers = [Watcher::start(&host, &[]), Watcher::start(&guest, &["--machine", &name])];
    ends(&host, "before");
    for watcher in &mut watchers {
        watcher.until_ended("before");
    }
    let logs = watchers.each_ref().map(|watcher| watcher.log.clone());
    assert_eq!(logs[0], logs[1]);
    host.kill_daemon();
    host.start_with(&["--relay", &relay.url()]);
    for watcher in &mut watchers {
        watcher.begins("gap");
        assert_ne!(watcher.log, logs[0]);
    }
    ends(&host, "after");
    for watcher in &mut watchers {
        watcher.until_ended("after");
    }
}
