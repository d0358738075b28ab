//! Who may call what, over real links and from inside of sessions.

use happy_rpc::{CALLS, Grant, Role, Standing};
use serde_json::{Value, json};

use crate::Desk;
use crate::harness::{Home, machine_name, pair, read};

/// Parameters that can be read, and that mean nothing that is there.
fn params(method: &str) -> Value {
    let id = "00000000-0000-4000-8000-000000000000";
    match method {
        "device.revoke" => json!({ "device": "x" }),
        "device.rename" => json!({ "device": "x", "name": "" }),
        "file.read" => json!({ "path": "x" }),
        "file.write" => json!({ "path": "x", "bytes": "", "over": "nothing" }),
        "git.commit" => json!({ "path": "x", "message": "" }),
        "git.status" | "git.diff" | "git.log" | "git.push" => json!({ "path": "x" }),
        "session.create" => json!({ "command": [""] }),
        "session.attach" => json!({ "session": id, "channel": 1, "writer": id, "name": "", "cols": 80, "rows": 24 }),
        "session.detach" | "session.give_control" => json!({ "attachment": id }),
        "session.take_control" | "terminal.resize" => json!({ "attachment": id, "cols": 80, "rows": 24 }),
        "session.type" => json!({ "session": id, "text": "x" }),
        "prompt.answer" => json!({ "prompt": id, "choice": 0 }),
        "session.rename" => json!({ "session": id, "name": "x" }),
        method if method.starts_with("session.") && method != "session.list" => json!({ "session": id }),
        _ => json!({}),
    }
}

/// Whether a call was refused for who called, and not for anything else.
fn is_refused(desk: &mut Desk, method: &str) -> bool {
    let body = json!({ "method": method, "params": params(method) }).to_string();
    let answer: Value = serde_json::from_slice(&desk.exchange(body.as_bytes())).unwrap();
    assert_ne!(answer["error"]["code"], "unknown_method", "{method}");
    let message = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(!message.contains("request cannot be read"), "{method}: {message}");
    answer["error"]["code"] == "not_permitted" && message.contains("may not")
}

/// Each call by each role over a link: exactly what the table says.
#[test]
fn every_role_may_what_the_table_says_and_nothing_else() {
    let host = Home::new();
    host.start();
    let name = machine_name(&host);
    for (role, standing) in
        [("owner", Role::Owner), ("operator", Role::Operator), ("viewer", Role::Viewer), ("machine", Role::Machine)]
    {
        let guest = Home::new();
        guest.start();
        pair(&host, &guest, role, role);
        guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
        let mut desk = Desk::to(&guest, Some(&name)).unwrap();
        for call in CALLS {
            // It would end the host, and attaching waits for a channel.
            let is_allowed = call.capability.grant(standing) == Grant::Yes;
            if is_allowed && matches!(call.method, "machine.stop" | "session.attach") {
                continue;
            }
            assert_eq!(is_refused(&mut desk, call.method), !is_allowed, "{} as {role}", call.method);
        }
    }
    let log = host.json(&["audit", "-n", "1000"]);
    let viewer = log.as_array().unwrap().iter().filter(|line| line["role"] == "viewer").count();
    assert!(viewer > 10, "{viewer} lines of the viewer: {log}");
}

/// Runs a script inside of a session of the home, and gives what it wrote.
#[track_caller]
fn inside(home: &Home, folder: &std::path::Path, script: &str) -> String {
    let out = folder.join("said");
    let _ = std::fs::remove_file(&out);
    let whole = format!("exec > '{0}.new' 2>&1; {script}\nmv '{0}.new' '{0}'; sleep 1000", out.display());
    let mut command = home.command(&["run", "-d", "--name", "agent", "--", "sh", "-c", &whole]);
    command.env("HAPPY", env!("CARGO_BIN_EXE_happy"));
    let started = command.output().unwrap();
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while !out.exists() {
        assert!(std::time::Instant::now() < deadline, "{}", read(&folder.join("said.new")));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id =
        home.json(&["ls"]).as_array().unwrap().iter().find(|it| it["name"] == "agent" || it["name"] == "mine").unwrap()
            ["id"]
            .clone();
    home.run(&["kill", id.as_str().unwrap()]).ok();
    home.until(&["ls"], |list| list.as_array().unwrap().iter().all(|it| it["id"] != id || it["state"] != "running"));
    home.run(&["kill", id.as_str().unwrap()]).ok();
    read(&out)
}

#[test]
fn a_program_inside_of_a_session_looks_and_touches_its_own_and_nothing_else() {
    let home = Home::new();
    home.start();
    let folder = tempfile::tempdir().unwrap();
    let other = home.run(&["run", "-d", "--name", "other", "--", "cat"]).ok().trim().to_owned();
    let said = inside(
        &home,
        folder.path(),
        "\"$HAPPY\" ls --json; \"$HAPPY\" daemon status >/dev/null && echo seen; \"$HAPPY\" rename agent mine",
    );
    assert!(said.contains(&other) && said.contains("seen") && said.contains("is called mine"), "{said}");

    for command in [
        format!("kill {other}"),
        format!("type {other} hello"),
        // What it asks is for others to approve.
        "type agent y".into(),
        format!("pause {other}"),
        format!("rename {other} x"),
        format!("record {other}"),
        "run -d true".into(),
        "pair --no-qr".into(),
        "daemon stop".into(),
        "dashboard".into(),
        "devices revoke x".into(),
        "devices revoke --all --yes".into(),
        "join http://127.0.0.1:1/#x".into(),
        "ls --machine x".into(),
        "queue clear".into(),
    ] {
        // With and without the variable, out of its process group, and as a child of something that goes.
        for before in ["", "env -u HAPPY_SESSION", "setsid -w", "sh -c '\"$@\"; exit $?' -"] {
            let said = inside(&home, folder.path(), &format!("{before} \"$HAPPY\" {command}; echo code $?"));
            let is_refused = said.contains("inside of a session") && !said.contains("code 0");
            // The name is looked for before anything is asked for.
            let is_nothing = command.starts_with("devices revoke x") && said.contains("no device");
            // It reads what it was given before it asks.
            let is_no_link = command.starts_with("join") && said.contains("not the link of an invitation");
            assert!(is_refused || is_nothing || is_no_link, "{before} {command}: {said}");
            let is_told = said.contains("This terminal is a session of happy: leave it first");
            assert!(is_told || !is_refused, "{before} {command}: {said}");
        }
    }
    // What a session leaves behind when it ends is no owner either.
    let (go, left) = (folder.path().join("go"), folder.path().join("left"));
    let script = format!(
        "setsid sh -c '{{ while [ ! -e {0} ]; do sleep 0.05; done; \"$HAPPY\" kill {other}; echo code $?; }} > {1}.new 2>&1; mv {1}.new {1}' &",
        go.display(),
        left.display()
    );
    inside(&home, folder.path(), &script);
    std::fs::write(&go, "").unwrap();
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    while !left.exists() {
        assert!(std::time::Instant::now() < deadline, "{}", read(&folder.path().join("left.new")));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let said = read(&left);
    assert!(said.contains("inside of a session") && !said.contains("code 0"), "{said}");
    assert!(home.json(&["ls"])[0]["id"].as_str().is_some_and(|id| id.starts_with(&other)));
    let log = home.json(&["audit", "-n", "1000"]);
    assert!(
        log.as_array().unwrap().iter().any(|line| line["role"] == "inside"
            && line["method"] == "session.kill"
            && line["outcome"] == "not_permitted"),
        "{log}"
    );
    assert_eq!(Standing::Inside.name(), "inside");
}
