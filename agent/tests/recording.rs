//! `happy record`, `export` and `play`, as a person types them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::os::unix::fs::MetadataExt;

use harness::{Home, machine_name, pair, read};

/// A shell that prints what it is told, in a session called `demo`.
fn demo(home: &Home) {
    let script = "stty -echo; printf 'ready\\r\\n'; while read -r x; do printf \"$x\"; done";
    home.run(&["run", "-d", "--name", "demo", "--", "sh", "-c", script]).ok();
    until_shown(home, "ready");
}

fn until_shown(home: &Home, text: &str) {
    let deadline = std::time::Instant::now() + harness::PATIENCE;
    while !home.run(&["export", "demo"]).ok().contains(text) {
        assert!(std::time::Instant::now() < deadline, "`{text}` does not come");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_session_is_recorded_listed_stopped_and_played() {
    let home = Home::new();
    home.start();
    demo(&home);
    assert!(!home.run(&["ls"]).ok().contains("recorded"));
    home.run(&["record", "--stop", "demo"]).fails_with(&["not recorded"]);
    let session = home.json(&["record", "demo"]);
    let file = session["recording"]["file"].as_str().unwrap().to_owned();
    assert!(file.starts_with(home.file("recordings").to_str().unwrap()), "{file}");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(home.run(&["ls"]).ok().contains("running, recorded"));
    home.run(&["record", "demo"]).fails_with(&["already", &file]);
    home.run(&["type", "demo", "--", "\\033[32mgreen\\033[0m\\r\\n"]).ok();
    until_shown(&home, "green");
    assert_eq!(home.run(&["record", "--stop", "demo"]).ok(), format!("Recorded: {file}\n"));
    assert!(!home.run(&["ls"]).ok().contains("recorded"));

    let played = home.run(&["play", "--speed", "1000", &file]).ok();
    assert!(played.ends_with("\x1b[32mgreen\x1b[0m\r\n") && played.contains("ready"), "{played:?}");
    assert_eq!(home.run(&["export", &file]).ok(), "ready\ngreen\n");
    assert_eq!(home.run(&["export", "demo"]).ok(), "ready\ngreen\n");

    // Another one begins with the program, and ends with it.
    let whole = home.file("whole.cast");
    let whole = whole.to_str().unwrap();
    home.run(&["run", "--record-to", whole, "sh", "-c", "echo all of it; exit 3"]);
    assert!(read(whole.as_ref()).trim_end().ends_with("\"x\", \"3\"]"), "{}", read(whole.as_ref()));
    assert_eq!(home.run(&["export", whole]).ok(), "all of it\n");
    home.run(&["run", "-d", "--record", "sleep", "1000"]).ok();
    assert!(home.run(&["ls"]).ok().contains("running, recorded"));
}

#[test]
fn sessions_and_recordings_are_exported_in_every_form() {
    let home = Home::new();
    home.start();
    demo(&home);
    let line = "0123456789".repeat(20);
    home.run(&["type", "demo", "--", &format!("\\033[1;31m<b>&\\033[0m\\r\\n{line}\\r\\nend")]).ok();
    until_shown(&home, "end");
    let text = home.run(&["export", "demo"]).ok();
    assert_eq!(text, format!("ready\n<b>&\n{line}\nend\n"));
    let screen = home.run(&["export", "demo", "--screen"]).ok();
    assert_eq!(screen.lines().count(), 6, "{screen}");
    let page = home.run(&["export", "demo", "--format", "html"]).ok();
    assert!(page.contains("<span style=\"color:#cd0000;font-weight:bold\">&lt;b&gt;&amp;</span>\n"), "{page}");

    // The log of a session: everything, at once, and it says so.
    let cast = home.file("log.cast");
    let cast = cast.to_str().unwrap();
    let exported = home.run(&["export", "demo", "--to", cast]);
    assert!(exported.err.contains("not known"), "{}", exported.err);
    assert_eq!(exported.ok(), format!("{cast}\n"));
    assert_eq!(std::fs::metadata(cast).unwrap().mode() & 0o777, 0o600);
    assert!(read(cast.as_ref()).lines().skip(1).all(|line| line.starts_with("[0.000, ")));
    assert_eq!(home.run(&["export", cast]).ok(), text);
    assert_eq!(home.run(&["export", cast, "--format", "html"]).ok(), page);
    let raw = home.run(&["export", "demo", "--format", "raw"]).ok();
    assert_eq!(home.run(&["export", cast, "--format", "raw"]).ok(), raw);
    assert_eq!(home.run(&["play", cast]).ok(), raw);
    home.run(&["export", "demo", "--to", cast]).fails_with(&["cannot be made", "file exists"]);

    // Version 2 becomes version 3, and all of a long one is there, not only what a screen keeps.
    let old = home.file("old.cast");
    let lines: String = (1..=30_000).map(|n| format!("[{n}.5, \"o\", \"line {n}\\r\\n\"]\n")).collect();
    std::fs::write(&old, format!("{{\"version\": 2, \"width\": 80, \"height\": 24}}\n{lines}")).unwrap();
    let wanted: String = (1..=30_000).map(|n| format!("line {n}\n")).collect();
    assert!(home.run(&["export", old.to_str().unwrap()]).ok() == wanted);
    let new = home.file("new.cast");
    home.run(&["export", old.to_str().unwrap(), "--format", "cast", "--to", new.to_str().unwrap()]).ok();
    let cast = read(&new);
    assert!(cast.lines().next().unwrap().contains("\"version\":3"), "{cast}");
    assert_eq!(cast.lines().nth(2), Some("[1.000, \"o\", \"line 2\\r\\n\"]"));
    assert!(home.run(&["export", new.to_str().unwrap()]).ok() == wanted);

    // A broken one leaves no half of a file.
    let broken = home.file("broken.cast");
    std::fs::write(&broken, "{\"version\": 2, \"width\": 80, \"height\": 24}\n[1, 2]\n").unwrap();
    let out = home.file("out.txt");
    home.run(&["export", broken.to_str().unwrap(), "--to", out.to_str().unwrap()]).fails_with(&["line 2"]);
    assert!(!out.exists());
    home.run(&["export", "nosuch"]).fails_with(&["no session `nosuch`"]);
}

#[test]
fn a_log_whose_beginning_is_gone_begins_with_a_whole_line() {
    let home = Home::new();
    home.start();
    home.run(&[
        "run",
        "-d",
        "--name",
        "demo",
        "--keep",
        "64K",
        "--",
        "sh",
        "-c",
        "seq -f 'a line in \x1b[31mred\x1b[0m %.0f' 1 100000; cat",
    ])
    .ok();
    until_shown(&home, "red 100000");
    let raw = home.run(&["export", "demo", "--format", "raw"]).ok();
    let first = raw.lines().next().unwrap();
    assert!(first.starts_with("a line in \x1b[31mred\x1b[0m ") && !first.ends_with(" 1"), "{first:?}");
    assert!(raw.trim_end().ends_with(" 100000") && raw.len() > 64 * 1024, "{}", raw.len());
}

#[test]
fn another_machine_records_its_session_and_keeps_the_file() {
    let (host, guest) = (Home::new(), Home::new());
    host.start();
    guest.start();
    pair(&host, &guest, "operator", "laptop");
    demo(&host);
    let machine = machine_name(&host);
    let session = guest.json(&["record", "--machine", &machine, "demo"]);
    let file = session["recording"]["file"].as_str().unwrap().to_owned();
    assert!(file.starts_with(host.file("recordings").to_str().unwrap()), "{file}");
    assert!(host.run(&["ls"]).ok().contains("running, recorded"));
    guest.run(&["record", "--machine", &machine, "demo", "--to", "/tmp/x.cast"]).fails_with(&["cannot be used with"]);
    assert_eq!(guest.run(&["export", "--machine", &machine, "demo"]).ok(), "ready\n");
    assert_eq!(guest.run(&["record", "--machine", &machine, "--stop", "demo"]).ok(), format!("Recorded: {file}\n"));
}
