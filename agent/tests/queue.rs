//! Commands for another machine that are given without a connection: kept, shown, done once and in order, or not at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use harness::{Home, PATIENCE, machine_name, pair};
use serde_json::Value;

/// Texts that are sent while the sender dies.
const TEXTS: usize = 60;

/// A relay that is a process of its own (the one inside a daemon that does nothing else), and two machines that meet there.
struct Stage {
    desk: Home,
    host: Home,
    relay: Home,
    port: String,
    /// The name of the host.
    name: String,
}

impl Stage {
    fn new() -> Stage {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port().to_string();
        let stage = Stage { desk: Home::new(), host: Home::new(), relay: Home::new(), port, name: String::new() };
        stage.relay_comes_back();
        stage.start(&stage.host);
        stage.start(&stage.desk);
        pair(&stage.host, &stage.desk, "operator", "the desk");
        let stage = Stage { name: machine_name(&stage.host), ..stage };
        stage.link_is(true);
        stage
    }

    fn start(&self, home: &Home) {
        home.start_with(&["--relay", &format!("http://127.0.0.1:{}", self.port)]);
    }

    /// With SIGKILL.
    fn relay_dies(&self) {
        self.relay.kill_daemon();
        self.link_is(false);
    }

    fn relay_comes_back(&self) {
        self.relay.run(&["daemon", "start", "--api-port", "0", "--relay-port", &self.port]).ok();
    }

    fn link_is(&self, up: bool) {
        self.desk.until(&["devices"], |list| list["machines"][0]["link_up"] == up);
    }

    fn desk_dies_and_comes_back(&self) {
        self.desk.kill_daemon();
        self.start(&self.desk);
    }

    /// A session at the host that writes what is typed into a file.
    fn scribe(&self) -> Scribe {
        let file = self.host.file("typed");
        let script = format!("stty -echo; exec cat >> '{}'", file.display());
        self.host.run(&["run", "-d", "--", "sh", "-c", &script]).ok();
        let id = self.host.json(&["ls"])[0]["id"].as_str().unwrap().to_owned();
        Scribe { id, file }
    }

    #[track_caller]
    fn type_there(&self, id: &str, text: &str, more: &[&str]) -> String {
        let mut all = vec!["type", "--machine", &self.name];
        all.extend(more);
        all.extend([id, text]);
        self.desk.run(&all).ok()
    }

    /// Waits until the desk has written down that there is this session.
    #[track_caller]
    fn until_seen(&self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        let is_seen = || {
            let files = std::fs::read_dir(self.desk.file("seen")).unwrap();
            files.map_while(Result::ok).any(|file| harness::read(&file.path()).contains(id))
        };
        while !is_seen() {
            assert!(Instant::now() < deadline, "the session is not noted");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// The states on the list, by number.
    fn states(&self) -> Vec<(u64, String)> {
        states(&self.desk.json(&["queue"]))
    }
}

fn states(list: &Value) -> Vec<(u64, String)> {
    let state = |entry: &Value| (entry["number"].as_u64().unwrap(), entry["state"].as_str().unwrap().to_owned());
    list.as_array().unwrap().iter().map(state).collect()
}

fn expected(states: &[(u64, &str)]) -> Vec<(u64, String)> {
    states.iter().map(|(number, state)| (*number, (*state).to_owned())).collect()
}

struct Scribe {
    id: String,
    file: PathBuf,
}

impl Scribe {
    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.file).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until there are so many lines.
    #[track_caller]
    fn until(&self, lines: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.lines().len() < lines {
            assert!(Instant::now() < deadline, "there are {} lines", self.lines().len());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

#[test]
fn what_is_given_without_a_connection_is_done_once_and_in_order_or_not_at_all() {
    let stage = Stage::new();
    let scribe = stage.scribe();
    let short = &scribe.id[..8];
    // The desk has seen the session, so its short id is enough; with a link it is typed at once.
    stage.desk.until(&["ls", "--machine", &stage.name], |list| list[0]["id"] == scribe.id.as_str());
    stage.until_seen(&scribe.id);
    assert!(stage.type_there(short, "zero", &[]).contains("Typed into"));
    stage.relay_dies();

    for (text, number) in [("one", 2), ("two", 3), ("three", 4)] {
        let out = stage.type_there(short, text, &[]);
        let queued = format!("queued: {number}, for {}; expires in 10 min\n", stage.name);
        assert_eq!(out, queued);
    }
    stage.type_there(short, "taken back", &[]);
    assert!(stage.desk.run(&["queue", "cancel", "5"]).ok().contains("cancelled: 5"));
    stage.desk.run(&["queue", "cancel", "5"]).fails_with(&["too late", "is over"]);
    stage.desk.run(&["queue", "cancel", "1"]).fails_with(&["too late", "is over"]);
    stage.desk.run(&["queue", "cancel", "77"]).fails_with(&["no command of this number"]);
    stage.desk.run(&["queue", "cancel", "x"]).fails_with(&["a number as `happy queue` shows it"]);
    assert!(stage.type_there(short, "late", &["--expires", "1s"]).contains("queued: 6"));
    stage.desk.until(&["queue"], |list| list[5]["state"] == "expired");
    let run = stage.desk.run(&["run", "--machine", &stage.name, "--", "sh", "-c", "read wait"]).ok();
    assert!(run.contains("queued: 7"), "{run}");
    let kill = stage.desk.run(&["kill", "--machine", &stage.name, "00000000-0000-4000-8000-000000000000"]).ok();
    assert!(kill.contains("queued: 8"), "{kill}");

    let waiting = [(2, "queued"), (3, "queued"), (4, "queued"), (5, "cancelled"), (6, "expired"), (7, "queued")];
    let list = stage.desk.json(&["queue"]);
    assert_eq!(states(&list)[1..7], expected(&waiting));
    assert_eq!(list[1]["request"]["params"]["text"], "one");
    let text = stage.desk.run(&["queue"]).ok();
    assert!(!text.contains('\x1b') && text.contains(&format!("type {short}: one⏎")), "{text}");

    stage.desk_dies_and_comes_back();
    assert_eq!(stage.states()[1..7], expected(&waiting));
    stage.desk.run(&["type", "--machine", &stage.name, "nosuch", "x"]).fails_with(&["cannot be reached", "whole id"]);
    // What was seen before the crash is known still.
    assert!(stage.type_there(short, "four", &[]).contains("queued: 9"));
    assert_eq!(scribe.lines(), ["zero"]);

    // One that shall not wait in the queue waits for the link itself.
    let impatient = stage.desk.spawn(&["kill", "--no-queue", "--machine", &stage.name, "nosuch"]);
    stage.relay_comes_back();
    stage.desk.until(&["queue"], |list| list.as_array().unwrap().iter().all(|entry| !entry["ended_at"].is_null()));
    let over = [(2, "done"), (3, "done"), (4, "done"), (5, "cancelled"), (6, "expired"), (7, "done"), (8, "failed")];
    assert_eq!(stage.states()[1..8], expected(&over));
    assert_eq!(stage.desk.json(&["queue"])[7]["error"]["code"], "not_found");
    assert_eq!(stage.host.json(&["ls"]).as_array().unwrap().len(), 2);
    impatient.finish().fails_with(&["no session"]);

    // Whatever was to come is there before what is typed now.
    assert!(stage.type_there(short, "last", &[]).contains("Typed into"));
    scribe.until(6);
    assert_eq!(scribe.lines(), ["zero", "one", "two", "three", "four", "last"]);
    // At this machine it is an ordinary call.
    for (text, more) in [("he", Some("--no-enter")), ("re", None)] {
        let words: Vec<_> = ["type"].into_iter().chain(more).chain([short, text]).collect();
        stage.host.run(&words).ok();
    }
    scribe.until(7);
    assert_eq!(scribe.lines()[6], "here");
    assert!(stage.desk.run(&["queue", "clear"]).ok().contains("10 commands"));
    assert!(stage.desk.run(&["queue"]).ok().contains("Nothing waits"));
}

#[test]
fn what_the_machine_has_and_has_not_done_is_shown_as_delivered() {
    let stage = Stage::new();
    let scribe = stage.scribe();
    let folder = stage.host.file("sessions").join(&scribe.id);
    // Nothing reaches the terminal while its holder stands still, and the daemon there waits for that.
    let stopped = Stopped::new(holder_of(&folder));
    let typing = stage.desk.spawn(&["type", "--machine", &stage.name, &scribe.id, "slow"]);
    let list = stage.desk.until(&["queue"], |list| list[0]["state"] == "delivered");
    assert!(list[0]["ended_at"].is_null());
    assert!(stage.desk.run(&["queue"]).ok().contains("delivered"));
    stage.desk.run(&["queue", "cancel", "1"]).fails_with(&["too late", "was sent"]);
    drop(stopped);
    assert!(typing.finish().ok().contains("Typed into"));
    assert_eq!(stage.states(), expected(&[(1, "done")]));
    scribe.until(1);
    assert_eq!(scribe.lines(), ["slow"]);
}

#[test]
fn a_machine_that_stands_still_is_not_waited_for_and_a_command_counts_its_time_from_when_it_was_given() {
    let stage = Stage::new();
    let host = stage.name.as_str();
    assert!(stage.desk.run(&["ls", "-m", host]).ok().contains(&format!("happy run -m {host} CMD")));
    let scribe = stage.scribe();
    stage.until_seen(&scribe.id);
    stage.desk.run(&["type", "-m", host, "nosuch", "x"]).fails_with(&[&format!("`happy ls -m {host}`")]);
    let long = "x".repeat(64 * 1024 + 1);
    stage.desk.run(&["type", "-m", host, &scribe.id, &long]).fails_with(&["64 KiB", "pieces"]);
    assert_eq!(stage.states(), []);

    let stopped = Stopped::new(rustix::process::Pid::from_raw(stage.host.pid()).unwrap());
    let (clock, before) = (Instant::now(), unix_ms());
    let entry = stage.desk.json(&["type", "-m", host, "--expires", "120s", &scribe.id[..8], "patience"]);
    // The answer to a call would have been waited for so long.
    assert!(clock.elapsed() < Duration::from_secs(25), "it took {:?}", clock.elapsed());
    let (given_at, until) = (entry["given_at"].as_u64().unwrap(), entry["until"].as_u64().unwrap());
    assert_eq!(until - given_at, 120_000);
    // The machine was asked for its sessions for two seconds, and that is not added.
    assert!((before..before + 2000).contains(&given_at), "{given_at}, not {before}");
    assert!(unix_ms() >= before + 2000);
    // With the whole id nothing is asked, and the command is kept at once.
    let typing = stage.desk.spawn(&["type", "-m", host, "--expires", "120s", &scribe.id, "more"]);
    let list = stage.desk.until(&["queue"], |list| list.as_array().unwrap().len() == 2);
    assert_eq!(list[0]["given_at"], given_at);
    drop(stopped);
    typing.finish().ok();
    scribe.until(2);
    assert_eq!(scribe.lines(), ["patience", "more"]);
    let nobody = "00000000-0000-4000-8000-000000000000";
    stage.desk.run(&["type", "-m", host, nobody, "x"]).fails_with(&[&format!("`happy ls -m {host}`")]);
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A process that stands still, until the end of the test at the latest.
struct Stopped(rustix::process::Pid);

impl Stopped {
    fn new(pid: rustix::process::Pid) -> Stopped {
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

/// The process that holds the session of this folder: it was started with the folder's path.
fn holder_of(folder: &std::path::Path) -> rustix::process::Pid {
    let output = std::process::Command::new("ps").args(["-axww", "-o", "pid=,args="]).output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let is_holder = |line: &&str| line.contains(" holder ") && line.contains(&folder.display().to_string());
    let line = list.lines().find(is_holder).unwrap_or_else(|| panic!("no holder in {list}"));
    let pid = line.split_ascii_whitespace().next().unwrap().parse().unwrap();
    rustix::process::Pid::from_raw(pid).unwrap()
}

#[test]
fn a_desk_that_dies_while_it_sends_sends_nothing_twice() {
    let stage = Stage::new();
    let scribe = stage.scribe();
    stage.relay_dies();
    for text in 1..=TEXTS {
        stage.type_there(&scribe.id, &text.to_string(), &[]);
    }
    stage.relay_comes_back();
    for death in 1..=4 {
        scribe.until(death * TEXTS / 6);
        match death {
            3 => {
                stage.relay.kill_daemon();
                stage.relay_comes_back();
            }
            _ => stage.desk_dies_and_comes_back(),
        }
    }
    stage.desk.until(&["queue"], |list| list.as_array().unwrap().iter().all(|entry| entry["state"] == "done"));
    assert!(stage.type_there(&scribe.id, "last", &[]).contains("Typed into"));
    scribe.until(TEXTS + 1);
    let texts: Vec<String> = (1..=TEXTS).map(|text| text.to_string()).chain(["last".to_owned()]).collect();
    assert_eq!(scribe.lines(), texts);
}

#[test]
fn a_list_that_cannot_be_read_is_told_and_left_alone() {
    let stage = Stage::new();
    let scribe = stage.scribe();
    stage.relay_dies();
    stage.type_there(&scribe.id, "one", &[]);
    let folder = stage.desk.file("outbox");
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&file).unwrap();
    let torn = &whole[..whole.len() - 7];
    stage.desk.kill_daemon();
    std::fs::write(&file, torn).unwrap();
    stage.start(&stage.desk);
    let path = file.display().to_string();
    stage.desk.run(&["queue"]).fails_with(&[&path, "aside"]);
    stage.desk.run(&["type", "--machine", &stage.name, &scribe.id, "two"]).fails_with(&[&path, "not taken"]);
    assert_eq!(std::fs::read(&file).unwrap(), torn);

    // As it was told: moved aside, a new list begins.
    stage.desk.kill_daemon();
    std::fs::rename(&file, stage.desk.file("damaged")).unwrap();
    stage.start(&stage.desk);
    stage.type_there(&scribe.id, "three", &[]);
    stage.relay_comes_back();
    scribe.until(1);
    assert_eq!(scribe.lines(), ["three"]);
    // Nothing stays of a machine that is removed.
    let machine = stage.desk.json(&["devices"])["machines"][0]["device"].as_str().unwrap().to_owned();
    stage.desk.run(&["devices", "revoke", &machine]).ok();
    assert!(std::fs::read_dir(&folder).unwrap().next().is_none());
    assert_eq!(stage.states(), []);
}
