//! A relay that admits enrolled machines and the devices that they name: nobody else gets in, and everything works for those who do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};

use happy_relay::access::{enrolment_key, new_secret};
use happy_relay::{Access, App, Config, Door, Enrolment, Policy, Relay};
use harness::{Home, machine_name, pair};

/// A relay in this process, which outlives the daemons.
struct Stage {
    _runtime: tokio::runtime::Runtime,
    _relay: Relay,
    origin: String,
    secret: String,
}

impl Stage {
    fn new() -> Stage {
        let secret = new_secret().unwrap().to_string();
        let keys = vec![Enrolment { name: "home".into(), key: enrolment_key(&secret).unwrap().public() }];
        let access = Access { policy: Policy::Vouched, keys };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let relay = Relay::new(Config { access, app: App::Off, ..Config::default() }).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        let listening = runtime.block_on(relay.listen(address, Door::plain())).unwrap();
        // It is served until the runtime ends.
        std::mem::forget(listening);
        Stage { _runtime: runtime, _relay: relay, origin: format!("http://127.0.0.1:{port}"), secret }
    }

    fn enrol(&self, home: &Home, secret: &str) -> Output {
        with_secret(home.command(&["relay", "enroll", &self.origin]), secret)
    }

    fn start(&self, home: &Home) {
        home.start_with(&["--relay", &self.origin]);
    }
}

/// Runs a command that reads a secret.
fn with_secret(mut command: Command, secret: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{secret}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn is_connected(home: &Home, up: bool) -> serde_json::Value {
    home.until(&["relay"], |relays| relays[0]["up"] == up && (up || relays[0]["trouble"].is_string()))
}

#[test]
fn an_enrolled_machine_brings_its_devices_in() {
    let stage = Stage::new();
    let (machine, desk) = (Home::new(), Home::new());
    stage.start(&machine);
    let told = is_connected(&machine, false);
    assert!(told[0]["trouble"].as_str().unwrap().contains("happy relay enroll"), "{told}");

    // While the daemon runs: it goes there at once.
    let output = stage.enrol(&machine, &stage.secret);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains(&stage.secret) && said.contains("admits this machine"), "{said}");
    is_connected(&machine, true);

    // The other one was given nothing. It comes in as a guest, and then because the first one names it.
    stage.start(&desk);
    is_connected(&desk, false);
    pair(&machine, &desk, "operator", "the desk");
    let name = machine_name(&machine);
    desk.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    is_connected(&desk, true);
    desk.until(&["ls", "--machine", &name], serde_json::Value::is_array);

    // Both come back by themselves.
    machine.kill_daemon();
    desk.kill_daemon();
    stage.start(&desk);
    stage.start(&machine);
    desk.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
}

#[test]
fn a_secret_that_the_relay_does_not_know_is_refused_and_changes_nothing() {
    let stage = Stage::new();
    let home = Home::new();
    let refused = |secret: &str, wanted: &str| {
        let output = stage.enrol(&home, secret);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{said}");
        assert!(!said.contains(secret), "{said}");
    };
    refused("short", "bytes");
    refused("not the secret of this relay", "refuses the key");
    assert!(!home.file("enrolments").exists(), "nothing is kept");
    // Before the daemon runs: it reads the key when it starts.
    assert!(stage.enrol(&home, &stage.secret).status.success());
    refused("not the secret of this relay", "refuses the key");
    stage.start(&home);
    is_connected(&home, true);
}

/// The relay is asked by a device of its own: the daemon's connection stays, and is not told that a newer one took over.
#[test]
fn asking_the_relay_does_not_disturb_the_daemon() {
    let stage = Stage::new();
    let home = Home::new();
    assert!(stage.enrol(&home, &stage.secret).status.success());
    stage.start(&home);
    is_connected(&home, true);
    let told = home.command(&["--json", "relay", "enrol", &stage.origin]);
    let told: serde_json::Value = serde_json::from_slice(&with_secret(told, &stage.secret).stdout).unwrap();
    assert_eq!((&told["answer"], &told["why"]), (&"accepted".into(), &serde_json::Value::Null), "{told}");
    is_connected(&home, true);
    assert!(!home.log().contains("took over"), "{}", home.log());
}

#[test]
fn a_relay_that_is_not_reached_is_said_and_the_key_is_kept() {
    let home = Home::new();
    // Nobody listens there any more.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let origin = format!("http://127.0.0.1:{port}");
    let output = with_secret(home.command(&["relay", "enroll", &origin]), "a secret that is long enough");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("not tested") && !said.contains("admits"), "{said}");
    assert!(home.file("enrolments").exists());
    let output = with_secret(home.command(&["--json", "relay", "enroll", &origin]), "a secret that is long enough");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["answer"], "unknown");
    assert!(told["why"].as_str().unwrap().contains("cannot be reached"), "{told}");
}

#[test]
fn the_log_says_in_words_why_there_is_no_connection() {
    let stage = Stage::new();
    let home = Home::new();
    stage.start(&home);
    is_connected(&home, false);
    let log = home.log();
    let line = log.lines().find(|line| line.contains("no connection to the relay")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("does not admit this machine") && !line.contains("Told("), "{line}");
}
