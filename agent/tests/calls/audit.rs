//! The log of calls, as the person at the machine sees it.

use happy_rpc::{ErrorCode, FileList, FileRead, FileWrite, Over};

use crate::{Desk, base64, with_root};

#[test]
fn what_changes_something_or_is_refused_stands_in_the_log_and_tampering_is_found() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    let path = root.join("file").display().to_string();
    let write = FileWrite { path: path.clone(), bytes: base64(b"top secret"), range: None, over: Over::Nothing };
    desk.call(write.clone()).unwrap();
    desk.refused(write, ErrorCode::Conflict, &[]);
    desk.call(FileRead { path: path.clone(), ..FileRead::default() }).unwrap();
    desk.refused(FileRead { path: "/etc/passwd".into(), ..FileRead::default() }, ErrorCode::NotPermitted, &[]);
    let id = home.run(&["run", "-d", "--", "sh", "-c", "echo hidden-word; sleep 1000"]).ok().trim().to_owned();
    home.run(&["type", &id, "typed-word"]).ok();
    home.run(&["kill", &id]).ok();

    let log = home.json(&["audit"]);
    let lines: Vec<(String, String)> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            assert_eq!((line["who"].as_str(), line["role"].as_str()), (Some("local"), Some("owner")), "{line}");
            (line["method"].as_str().unwrap().to_owned(), line["outcome"].as_str().unwrap().to_owned())
        })
        .collect();
    let wanted = [
        ("file.write", "ok"),
        ("file.write", "conflict"),
        ("file.read", "not_permitted"),
        ("session.create", "ok"),
        ("session.type", "ok"),
        ("session.kill", "ok"),
    ];
    assert_eq!(lines, wanted.map(|(method, outcome)| (method.to_owned(), outcome.to_owned())));
    assert_eq!(log[0]["what"], path.as_str());
    let text = std::fs::read_to_string(home.file("audit.log")).unwrap();
    for word in ["top secret", "hidden-word", "typed-word", &base64(b"top secret")] {
        assert!(!text.contains(word), "{word}");
    }
    let shown = home.run(&["audit", "-n", "2"]).ok();
    assert!(shown.lines().count() == 3 && shown.contains("session.kill"), "{shown}");
    assert_eq!(home.run(&["audit", "-n", "0"]).ok(), "No line was asked for; `-n 1` shows the newest.\n");
    assert!(home.run(&["audit", "--verify"]).ok().contains("whole"));

    let whole: Vec<&str> = text.lines().collect();
    let tamper = |lines: &[&str], words: &[&str]| {
        std::fs::write(home.file("audit.log"), lines.iter().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        let judged = home.run(&["audit", "--verify"]);
        assert_eq!(judged.code, 1, "{}", judged.out);
        words.iter().for_each(|word| assert!(judged.out.contains(word), "{word}: {}", judged.out));
        assert!(!home.json_of_failed(&["audit", "--verify"])["findings"].as_array().unwrap().is_empty());
    };
    tamper(&[&whole[..2], &whole[3..]].concat(), &["1 lines are missing before number 4"]);
    let changed = whole[2].replace("/etc/passwd", "/etc/motd");
    tamper(&[&whole[..2], &[changed.as_str()], &whole[3..]].concat(), &["number 3 was changed"]);
    tamper(&whole[..4], &["missing at the end", "number 6"]);
    tamper(&[&whole[..1], &whole].concat(), &["moved or put in"]);
    tamper(&[], &["missing at the end"]);
    // The daemon goes on behind what was cut, and that stays to be seen.
    std::fs::write(home.file("audit.log"), whole[..4].iter().map(|line| format!("{line}\n")).collect::<String>())
        .unwrap();
    home.run(&["daemon", "stop"]).ok();
    home.start();
    Desk::of(&home).refused(FileList { path: Some("/".into()), after: None }, ErrorCode::NotPermitted, &[]);
    assert!(home.run(&["audit", "--verify"]).out.contains("missing before number"));
}

#[test]
fn a_line_that_a_crash_has_cut_is_repaired_at_the_start() {
    let (home, _folder, _root) = with_root();
    let refuse = || {
        Desk::of(&home).refused(FileList { path: Some("/".into()), after: None }, ErrorCode::NotPermitted, &[]);
    };
    refuse();
    home.kill_daemon();
    let mut text = std::fs::read(home.file("audit.log")).unwrap();
    text.extend_from_slice(b"{\"n\":2,\"at\":17");
    std::fs::write(home.file("audit.log"), text).unwrap();
    home.start();
    refuse();
    assert!(home.run(&["audit", "--verify"]).ok().contains("lines 1 to"));
    let log = home.json(&["audit"]);
    assert!(log.as_array().unwrap().iter().any(|line| line["method"] == "audit.repaired"), "{log}");
}

/// One that asks for what it may not have all day must not push out what others did.
#[test]
fn many_refusals_are_counted_and_not_written() {
    let (home, _folder, root) = with_root();
    let mut desk = Desk::of(&home);
    for _ in 0..100 {
        desk.refused(FileList { path: Some("/".into()), after: None }, ErrorCode::NotPermitted, &[]);
    }
    let path = root.join("x").display().to_string();
    desk.call(FileWrite { path, bytes: base64(b""), range: None, over: Over::Nothing }).unwrap();
    let log = home.json(&["audit", "-n", "1000"]);
    let lines = log.as_array().unwrap();
    // More than one minute may pass on a busy machine.
    let missed: u64 = lines.iter().filter_map(|line| line["missed"].as_u64()).sum();
    let written = lines.iter().filter(|line| line["outcome"] == "not_permitted").count() as u64;
    assert!(written < 100 && written + missed == 100, "{written} and {missed}");
    assert!(home.run(&["audit", "--verify"]).ok().contains("whole"));
}
