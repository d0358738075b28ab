//! Pausing, renaming, stopping, and the environment of sessions from elsewhere.

use std::os::unix::fs::PermissionsExt;

use happy_rpc::{
    DeviceList, DeviceRename, ErrorCode, MachineInfo, MachineStop, SessionCreate, SessionPause, SessionRename,
    SessionResume,
};
use uuid::Uuid;

use crate::Desk;
use crate::harness::{Home, machine_name, pair};

fn run(home: &Home, script: &str) -> Uuid {
    let id = home.json(&["run", "-d", "--", "bash", "-c", script])["id"].as_str().unwrap().to_owned();
    id.parse().unwrap()
}

/// Counts, by lines in a file, in the program itself, in a job in the background that has a process group of its own, and in one in the
/// foreground of a shell with job control.
const COUNTING: &str =
    "set -m; count() { while :; do echo x >> \"$1\" || exit; sleep 0.02; done; }; count back & count front";

#[test]
fn a_paused_session_stands_still_with_all_that_it_has_started_says_so_and_goes_on() {
    let home = Home::new();
    home.start();
    let folder = tempfile::tempdir().unwrap();
    let script = format!("cd '{}'; {COUNTING}", folder.path().display());
    let id = run(&home, &script);
    let short = id.to_string();
    let length = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |facts| facts.len());
    let lengths = || [length("back"), length("front")];
    let grows = |from: [u64; 2]| {
        let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
        while lengths()[0] <= from[0] || lengths()[1] <= from[1] {
            assert!(std::time::Instant::now() < deadline, "it stands still at {from:?}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    grows([0, 0]);

    assert!(home.run(&["pause", &short]).ok().contains("stands still"));
    let listed = home.json(&["ls"]);
    assert_eq!((listed[0]["paused"].as_bool(), listed[0]["state"].as_str()), (Some(true), Some("running")));
    assert!(home.run(&["ls"]).ok().contains("paused"));
    let still = lengths();
    // Not the time, but what others do meanwhile: twenty commands take far longer than one count.
    (0..20).for_each(|_| drop(home.run(&["ls"]).ok()));
    assert_eq!(lengths(), still);
    assert_eq!(home.json(&["pause", &short])["paused"], true, "again is no error");

    assert!(home.run(&["resume", &short]).ok().contains("goes on"));
    assert!(home.json(&["ls"])[0]["paused"].is_null());
    grows(still);
    home.run(&["resume", &short]).ok();

    // It is paused through a death of the daemon, and can be ended as it stands.
    home.run(&["pause", &short]).ok();
    home.kill_daemon();
    home.start();
    assert_eq!(home.json(&["ls"])[0]["paused"], true);
    home.run(&["kill", &short]).ok();
    home.until(&["ls"], |list| list[0]["state"] != "running" && list[0]["paused"].is_null());
    home.run(&["pause", &short]).fails_with(&["has ended"]);
    let mut desk = Desk::of(&home);
    desk.refused(SessionPause { session: id }, ErrorCode::Conflict, &["ended"]);
    desk.refused(SessionResume { session: Uuid::new_v4() }, ErrorCode::NotFound, &["no such session"]);
}

#[test]
fn one_that_heeds_no_hangup_is_killed_while_it_is_paused() {
    let home = Home::new();
    home.start();
    let id = run(&home, "trap '' HUP; echo ready; while :; do sleep 0.05; done").to_string();
    home.until(&["ls"], |list| list[0]["output_offset"].as_u64() > Some(0));
    home.run(&["pause", &id]).ok();
    home.run(&["kill", &id]).ok();
    home.run(&["pause", &id]).fails_with(&["told to end"]);
    home.until(&["ls"], |list| list[0]["signal"] == 9);
}

#[test]
fn somebody_else_may_let_a_paused_program_go_on_and_the_list_says_what_is_true() {
    let home = Home::new();
    home.start();
    let id = run(&home, "while :; do sleep 0.05; done").to_string();
    home.run(&["pause", &id]).ok();
    let pid = home.json(&["ls"])[0]["pid"].as_i64().unwrap() as i32;
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process_group(pid, rustix::process::Signal::CONT).unwrap();
    home.until(&["ls"], |list| list[0]["paused"].is_null());
}

#[test]
fn a_session_keeps_the_name_it_is_given() {
    let home = Home::new();
    home.start();
    let id = run(&home, "sleep 1000");
    assert!(home.run(&["rename", &id.to_string(), "the build"]).ok().contains("the build"));
    home.kill_daemon();
    home.start();
    assert_eq!(home.json(&["ls"])[0]["name"], "the build");
    home.run(&["rename", "the build", "b\u{1b}[2J"]).ok();
    assert_eq!(home.json(&["ls"])[0]["name"], "b [2J");
    let mut desk = Desk::of(&home);
    let rename = |session, name: &str| SessionRename { session, name: name.into() };
    desk.refused(rename(id, " \u{7}"), ErrorCode::Malformed, &["at least one"]);
    desk.refused(rename(Uuid::new_v4(), "x"), ErrorCode::NotFound, &["no such session"]);
    let long = desk.call(rename(id, &"ä".repeat(500))).unwrap();
    assert_eq!(long.name.len(), 120);
}

#[test]
fn an_owner_elsewhere_renames_devices_and_stops_the_machine_and_sessions_go_on() {
    let (host, guest, operator) = (Home::new(), Home::new(), Home::new());
    for home in [&host, &guest, &operator] {
        home.start();
    }
    pair(&host, &guest, "owner", "laptop");
    pair(&host, &operator, "operator", "desk");
    let name = machine_name(&host);
    let session = run(&host, "sleep 1000").to_string();
    for home in [&guest, &operator] {
        home.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    }

    let mut far = Desk::to(&operator, Some(&name)).unwrap();
    assert_eq!(far.call(MachineInfo {}).unwrap().name, name);
    far.refused(MachineStop {}, ErrorCode::NotPermitted, &["operator may not stop"]);
    let device = far.call(DeviceList {}).unwrap().into_iter().find(|device| device.name == "laptop").unwrap();
    let rename = |name: &str| DeviceRename { device: device.device.clone(), name: name.into() };
    far.refused(rename("mine"), ErrorCode::NotPermitted, &["rename"]);

    guest.run(&["devices", "rename", "laptop", "the old laptop", "--machine", &name]).ok();
    let listed = host.json(&["devices"]);
    let renamed = listed["devices"].as_array().unwrap().iter().find(|it| it["name"] == "the old laptop").unwrap();
    assert_eq!((renamed["role"].as_str(), renamed["device"].as_str()), (Some("owner"), Some(device.device.as_str())));
    let mut near = Desk::of(&host);
    for (name, words) in [("", "1 to 64"), ("a\u{1b}b", "1 to 64"), (&*"x".repeat(65), "1 to 64")] {
        near.refused(rename(name), ErrorCode::Malformed, &[words]);
    }
    let nobody = DeviceRename { device: "A".repeat(43), name: "x".into() };
    near.refused(nobody, ErrorCode::NotFound, &["no such device"]);

    // The name and the role are kept.
    let mut owner = Desk::to(&guest, Some(&name)).unwrap();
    owner.call(MachineStop {}).unwrap();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while host.run(&["daemon", "status"]).code == 0 {
        assert!(std::time::Instant::now() < deadline, "it does not stop");
    }
    host.start();
    assert_eq!(host.json(&["ls"])[0]["id"], session.as_str());
    let kept = host.json(&["devices"]);
    assert!(
        kept["devices"].as_array().unwrap().iter().any(|it| it["name"] == "the old laptop" && it["role"] == "owner")
    );
    let log = host.json(&["audit"]);
    let stopped = log.as_array().unwrap().iter().any(|line| {
        line["method"] == "machine.stop" && line["outcome"] == "ok" && line["who"] == device.device.as_str()
    });
    assert!(stopped, "{log}");
}

/// A shell whose login says more than the daemon knows.
fn login_shell(folder: &std::path::Path, script: &str) -> String {
    let shell = folder.join("shell");
    std::fs::write(&shell, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755)).unwrap();
    shell.display().to_string()
}

/// What a session that a device asks for has in its environment.
fn environment(home: &Home, folder: &std::path::Path) -> String {
    let out = folder.join("environment");
    let script = format!("env > '{0}.new'; mv '{0}.new' '{0}'", out.display());
    let command = ["sh".to_owned(), "-c".into(), script];
    Desk::of(home).call(SessionCreate { command: command.into(), ..SessionCreate::default() }).unwrap();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while !out.exists() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::read_to_string(out).unwrap()
}

#[test]
fn sessions_of_a_daemon_without_a_login_have_the_environment_of_one() {
    let folder = tempfile::tempdir().unwrap();
    // It is noisy, as some are, and counts how often it is asked.
    let script = format!(
        "echo welcome; echo x >> '{}'; export LOGIN_WORD='of the login' NOTIFY_SOCKET=/x; shift; exec sh -c \"$1\"",
        folder.path().join("asked").display()
    );
    let home = Home::with("SHELL", &login_shell(folder.path(), &script));
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), r#"{"login_environment": true}"#).unwrap();
    home.start();
    for _ in 0..2 {
        let found = environment(&home, folder.path());
        assert!(found.contains("LOGIN_WORD=of the login\n"), "{found}");
        assert!(!found.contains("HAPPY_LOGIN") && !found.contains("NOTIFY_SOCKET"), "{found}");
        std::fs::remove_file(folder.path().join("environment")).unwrap();
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("asked")).unwrap(), "x\n", "it is asked once");
}

#[test]
fn a_login_that_hangs_or_fails_costs_seconds_and_no_session() {
    let folder = tempfile::tempdir().unwrap();
    for script in ["sleep 1000 & sleep 1000", "exit 3"] {
        let home = Home::with("SHELL", &login_shell(folder.path(), script));
        std::fs::create_dir_all(home.path()).unwrap();
        std::fs::write(home.file("settings.json"), r#"{"login_environment": true}"#).unwrap();
        home.start();
        assert!(environment(&home, folder.path()).contains("HAPPY_SESSION="));
        assert!(home.log().contains("did not tell its environment"), "{}", home.log());
        std::fs::remove_file(folder.path().join("environment")).unwrap();
    }
}
