//! How the daemon starts, and what is said when it cannot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use harness::{Home, Running, link};

fn http(port: u64, host: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port as u16)).unwrap();
    write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn up(home: &Home) -> Running {
    home.spawn(&["up", "--api-port", "0", "--relay-port", "0"])
}

#[test]
fn up_in_a_pipe_prints_links_and_a_second_up_uses_the_first() {
    let home = Home::new();
    let mut first = up(&home);
    let first_link = link(&mut first);
    assert!(first_link.rsplit_once("/#").unwrap().1.len() > 130, "{first_link}");

    let status = home.json(&["daemon", "status"]);
    let port = status["api_port"].as_u64().unwrap();
    let answer = http(port, &format!("127.0.0.1:{port}"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""status":"ok""#), "{answer}");
    assert!(http(port, "evil.example").starts_with("HTTP/1.1 403"));

    let mut second = up(&home);
    let second_link = link(&mut second);
    assert_ne!(first_link, second_link, "each invitation is new");
    assert_eq!(home.json(&["daemon", "status"])["pid"], status["pid"]);

    // Ctrl-C of the first ends the daemon, and says that sessions go on.
    let session = home.run(&["run", "-d", "sleep", "1000"]).ok();
    first.signal(rustix::process::Signal::INT);
    let ended = first.finish();
    assert!(ended.err.contains("sessions go on"), "{ended:?}");
    home.run(&["daemon", "status"]).fails_with(&["No daemon is running", "happy up"]);
    home.start();
    let sessions = home.json(&["ls"]);
    assert!(sessions[0]["id"].as_str().unwrap().starts_with(session.trim()), "{sessions}");
    assert_eq!(sessions[0]["state"], "running");
}

#[test]
fn nothing_secret_stands_in_the_log_or_where_others_can_read_it() {
    let home = Home::new();
    home.start();
    let mut pair = home.spawn(&["pair"]);
    let link = link(&mut pair);
    drop(pair);
    let log = home.log();
    assert!(log.contains("an invitation is open"), "{log}");
    let digits = link.rsplit_once('#').unwrap().1;
    for secret in [&digits[..20], &digits[digits.len() - 20..], "PRIVATE KEY"] {
        assert!(!log.contains(secret), "{log}");
    }
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.path());
    }
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_helps() {
    let home = Home::new();
    home.start();
    home.run(&["daemon", "stop"]).ok();
    let key = home.file("access.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    for command in [&["up"][..], &["daemon", "start"]] {
        home.run(command).fails_with(&["access.key", "can be read by other users", "chmod 600"]);
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    home.start();
}

#[test]
fn a_damaged_key_or_membership_log_stops_the_daemon_and_stays_as_it_is() {
    let home = Home::new();
    home.start();
    home.run(&["daemon", "stop"]).ok();
    let log = home.file("membership.log");
    std::fs::write(&log, [0, 3, 1, 2, 3]).unwrap();
    home.run(&["daemon", "start"]).fails_with(&["membership.log", "damaged", "backup"]);
    assert_eq!(std::fs::read(&log).unwrap(), [0, 3, 1, 2, 3]);
    std::fs::remove_file(&log).unwrap();
    std::fs::write(home.file("access.key"), "nonsense").unwrap();
    home.run(&["daemon", "start"]).fails_with(&["access.key", "damaged"]);
}

#[test]
fn a_home_that_cannot_be_used_is_named_with_what_to_do() {
    let home = Home::new();
    std::fs::write(home.path(), "a file in its place").unwrap();
    for command in [&["up"][..], &["daemon", "start"], &["run", "true"]] {
        home.run(command).fails_with(&[home.path().to_str().unwrap(), "HAPPY_HOME_DIR"]);
    }
    let long = "x".repeat(120);
    let mut command = home.command(&["up"]);
    let output = command.env("HAPPY_HOME_DIR", format!("/tmp/{long}")).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("too long"), "{output:?}");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_flag_that_changes_it() {
    let home = Home::new();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    home.run(&["up", "--api-port", "0", "--relay-port", &port]).fails_with(&[&port, "used by another", "--relay-port"]);
    let failed = home.run(&["daemon", "start", "--api-port", "0", "--relay-port", &port, "--json"]);
    let failed = failed.fails_with(&[&port]);
    let error: serde_json::Value = serde_json::from_str(failed.err.trim()).unwrap();
    assert!(error["error"]["remedy"].as_str().unwrap().contains("--relay-port"), "{error}");
}

/// A joining machine needs no port that anybody knows; one that others shall find does.
#[test]
fn a_machine_that_only_joins_takes_other_ports_when_the_usual_ones_are_taken() {
    // Whoever has them, they are taken.
    let _held = [64875, 64876].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
    let (host, guest) = (Home::new(), Home::new());
    host.start();
    for command in [&["up"][..], &["daemon", "start"], &["run", "true"]] {
        guest.run(command).fails_with(&["used by another", "--relay-port", "settings.json"]);
    }
    let mut pair = host.spawn(&["pair"]);
    let link = link(&mut pair);
    guest.run(&["join", "--relay-port", "64876", &link]).fails_with(&["64876", "used by another"]);
    let mut join = guest.spawn(&["join", &link]);
    let code = harness::code(&mut join);
    pair.type_line(&code);
    join.finish().ok();
    pair.finish().ok();
    // The next start finds them taken as well.
    guest.run(&["daemon", "stop"]).ok();
    guest.run(&["daemon", "start"]).ok();
    assert_ne!(guest.json(&["daemon", "status"])["api_port"], 64875);
    guest.run(&["ls", "--machine", &harness::machine_name(&host)]).ok();
    guest.run(&["daemon", "stop"]).ok();
    guest.run(&["up"]).fails_with(&["used by another"]);
}

#[test]
fn what_cannot_be_run_is_told_with_what_to_do() {
    let home = Home::new();
    home.start();
    std::fs::write(home.file("notes"), "no program").unwrap();
    let notes = home.file("notes");
    home.run(&["run", "nosuchprogram"]).fails_with(&["nosuchprogram", "full path"]);
    home.run(&["run", "--cwd", "/nope", "sh"]).fails_with(&["/nope", "--cwd DIR"]);
    let failed = home.run(&["run", notes.to_str().unwrap()]).fails_with(&["chmod +x"]);
    assert!(!failed.err.contains("os error") && !failed.err.contains("Ask an owner"), "{}", failed.err);
    home.run(&["ls", "-m", "nowhere"]).fails_with(&["`nowhere`", "`happy join LINK` here"]);
    // The session is looked for before the terminal.
    home.run(&["attach", "zzz"]).fails_with(&["no session `zzz`", "happy ls"]);
    home.run(&["run", "-d", "--name", "work", "sh"]).ok();
    home.run(&["attach", "work"]).fails_with(&["no terminal", "--lossless"]);
    home.run(&["kill", "work"]).ok();
    home.until(&["ls"], |list| list[0]["state"] == "killed");
    let listed = home.run(&["ls"]).ok();
    assert!(listed.contains("SIGHUP"), "{listed}");
}

#[test]
fn every_help_page_fits_eighty_columns() {
    let home = Home::new();
    let pages = "|up|dashboard|pair|join|run|ls|attach|kill|devices|devices revoke|daemon|daemon start|daemon start-sync|daemon stop|daemon status|relay|logs|hook|answer|prompts|metrics";
    for page in pages.split('|') {
        for help in ["--help", "-h"] {
            let args: Vec<_> = page.split(' ').filter(|word| !word.is_empty()).chain([help]).collect();
            let text = home.run(&args).ok();
            assert!(text.contains("Usage: happy"), "{text}");
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{args:?}: {line}");
            }
        }
    }
    // What is kept by a command for people is not by the one for service managers.
    let start = home.run(&["daemon", "start", "--help"]).ok();
    let start_sync = home.run(&["daemon", "start-sync", "--help"]).ok();
    assert!(start.contains("kept in\n") && start_sync.contains("not kept in settings.json"), "{start}{start_sync}");
    assert!(home.run(&["hook", "--help"]).ok().contains("~/.claude/settings.json"));
    assert!(home.run(&["answer", "--help"]).ok().contains("by its name"));
}

#[test]
fn settings_and_relay_addresses_that_make_no_sense_are_told() {
    let home = Home::new();
    home.run(&["up", "--relay", "http://relay.example"]).fails_with(&["http://relay.example", "https"]);
    for (text, words) in [
        (r#"{"relai": 1}"#, "relai"),
        ("[]", "it is not an object like"),
        (r#"{"name": ""}"#, "`name` is empty"),
        (r#"{"roots": ["work"]}"#, "begin it with `/` or `~/`"),
        (r#"{"api_names": ["https://box.example"]}"#, "write it as `box.example`"),
        (r#"{"detach_key": "F12"}"#, "write it as `ctrl-]`"),
        (r#"{"relay": "foo"}"#, r#"Write its address there like "https://relay.example""#),
    ] {
        std::fs::write(home.file("settings.json"), text).unwrap();
        home.run(&["up"]).fails_with(&["settings.json", words]);
    }
}

#[test]
fn what_cannot_be_done_is_told_with_what_helps() {
    let home = Home::new();
    home.start();
    home.run(&["run", "-d", "--name", "nap", "sleep", "600"]).ok();
    let refused = home.run(&["rename", "nap", " "]).fails_with(&["at least one character", "it is called nap now"]);
    assert!(!refused.err.contains("report it"), "{refused:?}");
    let refused = home.run(&["man", "--to", "/proc/x"]).fails_with(&["/proc/x", "--to DIR"]);
    assert!(!refused.err.contains("HAPPY_HOME_DIR"), "{refused:?}");
}

#[test]
fn a_relay_that_was_given_is_kept_for_the_next_start_until_the_one_inside_is_wanted_again() {
    let home = Home::new();
    let relay = "http://127.0.0.1:9";
    let origin = || home.json(&["relay"])[0]["origin"].as_str().unwrap().to_owned();
    let settings = || serde_json::from_str::<serde_json::Value>(&harness::read(&home.file("settings.json"))).unwrap();
    std::fs::create_dir(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), r#"{"name": "vm", "api_port": 0, "relay_port": 0}"#).unwrap();
    // The variable is for one start.
    let started = home.command(&["daemon", "start"]).env("HAPPY_SERVER_URL", relay).output().unwrap();
    assert!(started.status.success() && started.stderr.is_empty(), "{started:?}");
    assert_eq!(origin(), relay);
    home.run(&["daemon", "stop"]).ok();
    home.run(&["daemon", "start"]).ok();
    assert_ne!(origin(), relay);
    // What a running daemon ignores is not kept.
    let ignored = home.run(&["daemon", "start", "--relay", relay]);
    assert!(ignored.err.contains("Ignored"), "{ignored:?}");
    home.run(&["daemon", "stop"]).ok();
    assert_eq!(settings()["relay"], serde_json::Value::Null);
    // Nor is what is no relay.
    home.run(&["daemon", "start", "--relay", "nonsense"]).fails_with(&["nonsense", "--relay"]);
    assert_eq!(settings()["relay"], serde_json::Value::Null);

    let kept = home.run(&["daemon", "start", "--relay", relay]);
    assert_eq!(kept.err, "Kept as the relay of this machine, in settings.json.\n");
    assert_eq!(settings(), serde_json::json!({ "name": "vm", "api_port": 0, "relay_port": 0, "relay": relay }));
    home.run(&["daemon", "stop"]).ok();
    home.run(&["daemon", "start"]).ok();
    assert_eq!(origin(), relay);
    home.run(&["daemon", "stop"]).ok();

    let mut inside = home.spawn(&["up", "--relay", "inside"]);
    link(&mut inside);
    assert_ne!(origin(), relay);
    inside.signal(rustix::process::Signal::INT);
    let ended = inside.finish();
    assert!(ended.err.contains("inside the daemon again"), "{ended:?}");
    assert_eq!(settings(), serde_json::json!({ "name": "vm", "api_port": 0, "relay_port": 0 }));
}

#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_printed_is_no_success() {
    let home = Home::new();
    home.start();
    for command in [&["ls"][..], &["queue"], &["--json", "ls"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = home.command(command).stdout(full).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("cannot be written: no space left"), "{err}");
        // A reader that went away wanted no more.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = home.command(command).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_prompt_is_listed_and_answered_by_the_name_of_its_session() {
    let home = Home::new();
    home.start();
    let script = "printf 'Go on? [y/N] '; read x; echo got $x; sleep 600";
    home.run(&["run", "-d", "--name", "build", "--", "sh", "-c", script]).ok();
    home.until(&["prompts"], |list| list.as_array().is_some_and(|list| list.len() == 1));
    let shown = home.run(&["prompts"]).ok();
    assert!(shown.lines().next().unwrap().contains("  build  "), "{shown}");
    home.run(&["answer", "nosuch", "1"]).fails_with(&["Nothing waits as `nosuch`", " of build"]);
    home.run(&["answer", "build", "1"]).ok();
    home.until(&["prompts"], |list| list.as_array().is_some_and(Vec::is_empty));
    // The number that stood there, and not the one on the wire.
    let log = home.json(&["audit"]);
    let answered = log.as_array().unwrap().iter().find(|line| line["method"] == "prompt.answer").unwrap();
    assert!(answered["what"].as_str().unwrap().ends_with(", choice 1"), "{answered}");
}

/// The reader of a pipe that goes away ends what would print for ever, also when there is nothing to print.
#[test]
fn who_prints_for_nobody_ends() {
    use std::io::BufRead;
    let home = Home::new();
    home.start();
    let id = home.run(&["run", "-d", "sh", "-c", "echo ready; exec sleep 600"]).ok().trim().to_owned();
    for (command, code) in [
        (&["--json", "events"][..], 0),
        (&["--json", "attach", "--lossless", &id], 141),
        (&["attach", "--lossless", "--read-only", &id], 141),
        (&["logs", "-f"], 0),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut started = home.command(command);
        started.stdout(writer).stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut running = started.spawn().unwrap();
        // It has the other end of the pipe as well.
        drop(started);
        let mut line = String::new();
        std::io::BufReader::new(reader).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{command:?}");
        let deadline = std::time::Instant::now() + harness::PATIENCE;
        while running.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > deadline {
                running.kill().unwrap();
                panic!("{command:?} does not end");
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{command:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{command:?}: {output:?}");
    }
}

#[test]
fn a_relay_that_cannot_be_reached_is_told_and_tried_on() {
    let home = Home::new();
    // A port that was free a moment ago; nobody listens there.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    home.start_with(&["--relay", &format!("http://127.0.0.1:{port}")]);
    let relays = home.until(&["relay"], |relays| relays[0]["trouble"].is_string());
    assert_eq!(relays[0]["up"], false);
    let mut pair = home.spawn(&["pair"]);
    link(&mut pair);
    pair.signal(rustix::process::Signal::INT);
    let ended = pair.finish();
    assert!(ended.err.contains("not reached"), "{ended:?}");
    // Sessions do not need it.
    assert!(home.run(&["run", "echo", "hello"]).ok().contains("hello"));
    // The end of a pipe is the end of the program's input.
    let mut wc = home.spawn(&["run", "sh", "-c", "stty -echo; cat; exit 3"]);
    wc.type_line("a line");
    drop(wc.stdin.take());
    assert_eq!(wc.finish().code, 3);
}

#[test]
fn a_client_that_sends_nonsense_harms_nobody_else() {
    let home = Home::new();
    home.start();
    let socket = home.file("daemon.sock");
    let hello = br#"{"happy":1,"target":null}"#;
    let frame = |channel: u32, message: &[u8]| {
        let mut frame = (message.len() as u32 + 4).to_be_bytes().to_vec();
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(message);
        frame
    };
    let nonsense: [Vec<u8>; 7] = [
        vec![0xff; 64],
        vec![0, 0, 0, 2, 1, 1],
        frame(0, b"not json"),
        frame(0, br#"{"happy":9}"#),
        [frame(0, hello), frame(0, &[9; 20])].concat(),
        [frame(0, hello), frame(u32::MAX, &[77])].concat(),
        [frame(0, hello), 0x7fff_ffff_u32.to_be_bytes().to_vec()].concat(),
    ];
    for bytes in nonsense {
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(&bytes).unwrap();
        client.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        // The daemon ends this connection by itself, after at most one answer.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert!(rest.len() < 4096);
    }
    // Messages for channels that are not open are dropped, requests with strange parameters refused.
    let mut client = UnixStream::connect(&socket).unwrap();
    client.write_all(&frame(0, hello)).unwrap();
    client.write_all(&frame(77, b"x")).unwrap();
    client
        .write_all(&frame(0, &[&[1][..], &7u64.to_be_bytes(), br#"{"method":"session.kill","params":{}}"#].concat()))
        .unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("malformed") {
        let mut chunk = [0; 4096];
        let n = client.read(&mut chunk).unwrap();
        assert_ne!(n, 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..n]);
    }
    assert_eq!(home.json(&["ls"]), serde_json::json!([]));
    home.run(&["kill", "nosuch"]).fails_with(&["no session", "happy ls"]);
}
