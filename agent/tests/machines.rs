//! Two machines: pairing, each other's sessions, revocation, and what survives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use harness::{Home, code, link, machine_name, pair};

fn two() -> (Home, Home) {
    let (host, guest) = (Home::new(), Home::new());
    host.start();
    guest.start();
    (host, guest)
}

#[test]
fn many_machines_join_one_right_after_the_other() {
    let host = Home::new();
    host.start();
    for number in 0..6 {
        let guest = Home::new();
        guest.start();
        pair(&host, &guest, "viewer", &format!("machine {number}"));
    }
    assert_eq!(host.json(&["devices"])["devices"].as_array().unwrap().len(), 6);
}

#[test]
fn a_machine_joins_another_and_works_there() {
    let (host, guest) = two();
    pair(&host, &guest, "operator", "the laptop");
    let name = machine_name(&host);
    host.until(&["devices"], |list| list["devices"][0]["presence"] == "here");
    let devices = host.json(&["devices"]);
    assert_eq!(devices["devices"][0]["name"], "the laptop");
    assert_eq!(devices["devices"][0]["role"], "operator");
    let there = guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    assert_eq!(devices["devices"][0]["safety_number"], there["devices"][0]["safety_number"]);

    // The program waits for its reader, so that not a byte is printed before somebody counts.
    let id =
        guest.run(&["run", "--machine", &name, "-d", "--", "sh", "-c", "stty -onlcr; read go; seq 1 200000; exit 7"]);
    let id = id.ok().trim().to_owned();
    assert_eq!(host.json(&["ls"])[0]["id"], guest.json(&["ls", "--machine", &name])[0]["id"]);
    let mut attach = guest.spawn(&["attach", "--machine", &name, "--lossless", &id]);
    attach.type_line("go");
    let output = attach.finish();
    assert_eq!(output.code, 7, "{}", output.err);
    let printed = output.out.split_once("1\n").unwrap().1;
    let expected: String = (2..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(printed == expected, "{} bytes instead of {}", printed.len(), expected.len());

    guest.run(&["devices", "revoke", "the laptop", "--machine", &name]).fails_with(&["operator", "owner"]);
    guest.run(&["ls", "--machine", "nowhere"]).fails_with(&["nowhere"]);
    // The invitation and what was typed leave no trace in the logs.
    let joined = guest.log();
    for told in ["an invitation is taken up", "it waits for the code", "joined a machine", "role=\"operator\""] {
        assert!(joined.contains(told), "{told}: {joined}");
    }
    for home in [&host, &guest] {
        assert!(!home.log().contains("seq 1 200000") && !home.log().contains("/#"), "{}", home.log());
    }
}

/// Taking up an invitation is asking for a shell over there, not giving one away here.
#[test]
fn a_machine_that_was_joined_may_do_nothing_at_the_one_that_joined_it() {
    let (host, guest) = two();
    pair(&host, &guest, "machine", "laptop");
    let name = machine_name(&host);
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    guest.run(&["ls", "--machine", &name]).ok();
    host.until(&["devices"], |list| list["devices"][0]["presence"] == "here");
    host.run(&["ls", "--machine", "laptop"]).fails_with(&["ask for an invitation"]);
    host.run(&["run", "--machine", "laptop", "-d", "true"]).fails_with(&["ask for an invitation"]);
    host.run(&["events", "--machine", "laptop"]).fails_with(&["ask for an invitation"]);
    assert_eq!(guest.json(&["ls"]).as_array().map(Vec::len), Some(0));
}

#[test]
fn a_viewer_may_look_and_nothing_else() {
    let (host, guest) = two();
    pair(&host, &guest, "viewer", "watcher");
    let name = machine_name(&host);
    let id = host.run(&["run", "-d", "--", "sh", "-c", "echo visible; read wait"]).ok().trim().to_owned();
    guest.run(&["run", "--machine", &name, "-d", "true"]).fails_with(&["viewer", "owner"]);
    guest.run(&["kill", "--machine", &name, &id]).fails_with(&["viewer"]);
    guest.run(&["attach", "--machine", &name, "--lossless", &id]).fails_with(&["viewer"]);
    let mut attach = guest.spawn(&["attach", "--machine", &name, "--lossless", "--read-only", &id]);
    attach.line(|line| line.starts_with("visible"));
    assert_eq!(host.json(&["ls"])[0]["state"], "running");
}

#[test]
fn three_wrong_codes_end_the_invitation() {
    let (host, guest) = two();
    let mut pair = host.spawn(&["pair"]);
    let link = link(&mut pair);
    pair.type_line("123456");
    pair.line(|line| line.contains("No device shows a code"));
    let mut join = guest.spawn(&["join", &link]);
    let code = code(&mut join);
    pair.line(|line| line.contains("shows a code"));
    let wrong = if code == "000 000" { "000 001" } else { "000 000" };
    pair.type_line("12");
    pair.line(|line| line.contains("six digits"));
    for left in ["2 tries left", "1 try left"] {
        pair.type_line(wrong);
        pair.line(|line| line.contains(left));
    }
    pair.type_line(wrong);
    pair.finish().fails_with(&["Three wrong codes", "happy pair"]);
    join.finish().fails_with(&["wrong codes", "happy pair"]);
    let log = guest.log();
    assert!(log.contains("joining a machine failed") && log.contains("Three wrong codes"), "{log}");
    assert!(!log.contains(&code) && !log.contains(&code.replace(' ', "")), "the code is a secret: {log}");
    assert_eq!(host.json(&["devices"])["devices"], serde_json::json!([]));
    assert_eq!(guest.json(&["devices"])["devices"], serde_json::json!([]));
}

#[test]
fn invitations_that_are_used_expired_or_damaged_are_told_apart() {
    let (host, guest) = two();
    let mut first = host.spawn(&["pair"]);
    let used = link(&mut first);
    let mut join = guest.spawn(&["join", &used]);
    let code = code(&mut join);
    first.type_line(&code);
    first.finish().ok();
    join.finish().ok();
    let third = Home::new();
    third.start();
    third.run(&["join", &used]).fails_with(&["invitation"]);

    let mut damaged = used.clone();
    let digit = damaged.pop().unwrap();
    damaged.push(if digit == '1' { '2' } else { '1' });
    third.run(&["join", &damaged]).fails_with(&["incomplete or damaged", "Copy it again"]);
    third.run(&["join", "https://relay.example/#12"]).fails_with(&["incomplete or damaged"]);
    third.run(&["join", "notalink"]).fails_with(&["not the link of an invitation", "`happy pair` prints"]);

    // Cancelled by its owner: the scanner is told, and a new one works.
    let mut cancelled = host.spawn(&["pair"]);
    let gone = link(&mut cancelled);
    cancelled.signal(rustix::process::Signal::INT);
    assert_eq!(cancelled.finish().code, 130);
    third.run(&["join", &gone]).fails_with(&["invitation"]);
    pair(&host, &third, "machine", "third");
}

#[test]
fn an_invitation_expires() {
    // Its clock runs forty times as fast.
    let host = Home::with("HAPPY_TEST_INVITATION_SECONDS", "3");
    host.start();
    let mut pair = host.spawn(&["pair"]);
    let link = link(&mut pair);
    pair.finish().fails_with(&["expired", "happy pair"]);
    let guest = Home::new();
    guest.start();
    guest.run(&["join", &link]).fails_with(&["invitation"]);
}

#[test]
fn a_revoked_machine_is_told_and_stays_out() {
    let (host, guest) = two();
    pair(&host, &guest, "owner", "the laptop");
    let name = machine_name(&host);
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    let id = host.run(&["run", "-d", "--", "sh", "-c", "echo visible; read wait"]).ok().trim().to_owned();
    let mut attach = guest.spawn(&["attach", "--machine", &name, "--lossless", &id]);
    attach.line(|line| line.starts_with("visible"));

    host.run(&["devices", "revoke", "the laptop"]).ok();
    guest.until(&["devices"], |list| list["machines"][0]["removed_us"] == true);
    assert_ne!(attach.finish().code, 0);
    guest.run(&["ls", "--machine", &name]).fails_with(&["removed this machine", "access.key and membership.log"]);
    assert!(host.json(&["devices"])["devices"][0]["removed_at"].is_u64());

    // It survives both daemons, and the key never comes back.
    for home in [&host, &guest] {
        home.run(&["daemon", "stop"]).ok();
    }
    host.start();
    guest.start();
    guest.run(&["ls", "--machine", &name]).fails_with(&["removed this machine"]);
    let mut again = host.spawn(&["pair"]);
    let link = link(&mut again);
    // Nobody has to type a code for it. Both sides are told what to do.
    let told = guest.run(&["join", &link]).fails_with(&["removed this one for good", "access.key and membership.log"]);
    assert!(!told.err.contains("new invitation"), "{}", told.err);
    again.finish().fails_with(&["removed from here for good", "Start anew"]);
    assert!(host.json(&["devices"])["devices"][0]["removed_at"].is_u64());
    assert!(guest.run(&["devices"]).ok().contains("has removed this machine for good"));

    // As it was told: with new keys it is a new machine.
    guest.run(&["daemon", "stop"]).ok();
    for file in ["access.key", "membership.log"] {
        std::fs::rename(guest.file(file), guest.path().with_extension(file)).unwrap();
    }
    guest.start();
    pair(&host, &guest, "owner", "the new laptop");
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    guest.run(&["ls", "--machine", &name]).ok();
}

#[test]
fn a_revoked_machine_that_was_away_is_told_when_it_comes_back() {
    let (host, guest) = two();
    pair(&host, &guest, "owner", "the laptop");
    guest.run(&["daemon", "stop"]).ok();
    host.run(&["devices", "revoke", "the laptop"]).ok();
    host.run(&["daemon", "stop"]).ok();
    let port = relay_port_of(&guest);
    host.run(&["daemon", "start", "--api-port", "0", "--relay-port", &port]).ok();
    guest.start();
    guest.until(&["devices"], |list| list["machines"][0]["removed_us"] == true);
}

/// The port through which a guest knows its host.
fn relay_port_of(guest: &Home) -> String {
    let peers: serde_json::Value = serde_json::from_str(&harness::read(&guest.file("peers.json"))).unwrap();
    peers[0]["relays"][0].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned()
}

#[test]
fn sessions_survive_the_death_of_the_daemon_and_their_readers_do_not_notice() {
    let home = Home::new();
    home.start();
    let script = "stty -onlcr; echo begin; read go; seq 1 1000; read end; exit 5";
    let id = home.run(&["run", "-d", "--", "sh", "-c", script]).ok().trim().to_owned();
    let mut attach = home.spawn(&["attach", "--lossless", &id]);
    attach.line(|line| line.starts_with("begin"));
    home.kill_daemon();
    home.start();
    assert_eq!(home.json(&["ls"])[0]["state"], "running");
    attach.type_line("go");
    attach.line(|line| line == "1000");
    home.kill_daemon();
    home.start();
    attach.type_line("end");
    let output = attach.finish();
    assert_eq!(output.code, 5, "{}", output.err);
    let numbers: Vec<_> = output.out.lines().filter_map(|line| line.parse::<u32>().ok()).collect();
    assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
}

#[test]
fn exact_output_crosses_a_relay_that_dies_and_comes_back() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut relay = Relay::start(port);
    let url = format!("http://{port}");
    let (host, guest) = (Home::new(), Home::new());
    host.start_with(&["--relay", &url]);
    guest.start_with(&["--relay", &url]);
    pair(&host, &guest, "owner", "the laptop");
    let name = machine_name(&host);
    let script = "stty -onlcr -echo; echo begin; read go; seq 1 2000000; exit 9";
    let id = host.run(&["run", "-d", "--", "sh", "-c", script]).ok().trim().to_owned();
    let mut command = guest.command(&["attach", "--machine", &name, "--lossless", &id]);
    let mut attach = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = attach.stdout.take().unwrap();
    let mut printed = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    let expected: String = std::iter::once("begin\n".into()).chain((1..=2_000_000).map(|n| format!("{n}\n"))).collect();
    let mut deaths = [0.0, 0.1, 0.4, 0.7].iter().map(|part| (expected.len() as f64 * part) as usize + 6).peekable();
    let mut go = attach.stdin.take();
    loop {
        if deaths.peek().is_some_and(|at| printed.len() >= *at) {
            deaths.next();
            relay = relay.die_and_come_back();
            if let Some(mut go) = go.take() {
                std::io::Write::write_all(&mut go, b"go\n").unwrap();
            }
        }
        match out.read(&mut chunk).unwrap() {
            0 => break,
            n => printed.extend_from_slice(&chunk[..n]),
        }
    }
    assert_eq!(attach.wait().unwrap().code(), Some(9));
    assert!(deaths.next().is_none(), "the relay died too seldom");
    assert!(printed == expected.as_bytes(), "{} bytes instead of {}", printed.len(), expected.len());
}

/// A relay in this process, so that it can die at a moment of our choosing.
struct Relay {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
}

impl Relay {
    fn start(address: SocketAddr) -> Relay {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let relay = happy_relay::Relay::new(happy_relay::Config::default()).unwrap();
            let listening = relay.listen(address, happy_relay::Door::plain()).await.unwrap();
            // Until the runtime goes.
            std::mem::forget((relay, listening));
        });
        Relay { runtime, address }
    }

    /// Every socket and task of it goes at once, without a goodbye.
    fn die_and_come_back(self) -> Relay {
        let Relay { runtime, address } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        Relay::start(address)
    }
}
