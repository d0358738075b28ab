//! What runs out on a machine: room in the log of a session, descriptors, the disk. It is told in words, and everything else goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::process::Command;

use harness::Home;

#[test]
fn how_much_a_session_keeps_is_said_by_the_command_or_the_settings() {
    let home = Home::new();
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.file("settings.json"), r#"{"keep": "256K"}"#).unwrap();
    home.start();
    // More than both are told to keep, and less than what is usual.
    let print = |args: &[&str]| {
        let all = [&["run", "--detach"], args, &["sh", "-c", "seq 1 300000; exec sleep 600"]].concat();
        let id = home.json(&all)["id"].as_str().unwrap().to_owned();
        home.until(&["ls"], |all| {
            all.as_array().unwrap().iter().any(|one| one["id"] == id.as_str() && one["output_offset"] == 2_288_895)
        });
        id
    };
    for args in [&[][..], &["--keep", "1M"]] {
        let id = print(args);
        home.run(&["attach", "--lossless", "--read-only", &id]).fails_with(&["no longer kept", "2288895"]);
    }
    let all = print(&["--keep", "4M"]);
    let mut reader = home.spawn(&["attach", "--lossless", "--read-only", &all]);
    reader.line(|line| line == "1");
    reader.line(|line| line == "300000");
    for wrong in ["10", "2G", "much"] {
        home.run(&["run", "--detach", "--keep", wrong, "true"]).fails_with(&["64K", "1G"]);
    }
}

/// The line of a script's output that begins with this word.
fn told<'a>(out: &'a str, word: &str) -> &'a str {
    out.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no `{word}` in:\n{out}"))
}

#[test]
fn without_descriptors_no_session_is_begun_and_the_others_go_on() {
    let home = Home::new();
    // A daemon may raise its limit up to the hard one.
    let script = r#"
        ulimit -n 90
        "$HAPPY" daemon start --api-port 0 --relay-port 0 >/dev/null || exit 1
        first=$("$HAPPY" --json run --detach cat | tr -d '\n ' | sed 's/.*"id":"\([^"]*\)".*/\1/')
        for n in $(seq 1 90); do
            "$HAPPY" run --detach cat >/dev/null 2>said || { echo "refused $n: $(tr '\n' ' ' <said)"; break; }
        done
        echo "listed $("$HAPPY" --json ls | grep -o '"state": *"running"' | wc -l)"
        echo "typed $(echo hello | timeout 60 "$HAPPY" attach --lossless "$first" | head -n 2 | tr -d '\r' | tr '\n' ' ')"
        # One that has ended still shows its screen, until it is taken off the list.
        for id in $("$HAPPY" ls | awk '$3 == "running" { print $1 }' | head -n 4); do
            until "$HAPPY" kill "$id" | grep -q "off the list"; do sleep 0.1; done
        done
        "$HAPPY" run --detach cat >/dev/null && echo "again yes"
    "#;
    let output = home.shell(&[], script);
    let refused = told(&output, "refused ");
    assert!(refused.contains("files to open") && refused.contains("ulimit -n"), "{refused}");
    let count: usize = refused.split(':').next().unwrap().parse().unwrap();
    assert_eq!(told(&output, "listed ").trim(), count.to_string());
    assert_eq!(told(&output, "typed ").trim(), "hello hello");
    assert_eq!(told(&output, "again "), "yes");
}

#[test]
fn on_a_full_disk_no_session_is_begun_and_the_others_go_on() {
    // A disk of a megabyte, which nobody else sees.
    let spaces = ["unshare", "--user", "--map-root-user", "--mount"];
    if !Command::new(spaces[0]).args(&spaces[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("this system lets nobody mount a disk for a test");
        return;
    }
    let home = Home::new();
    let script = r#"
        mkdir -p "$HAPPY_HOME_DIR" && mount -t tmpfs -o size=2m,mode=700 none "$HAPPY_HOME_DIR" || exit 1
        "$HAPPY" daemon start --api-port 0 --relay-port 0 >/dev/null || exit 1
        first=$("$HAPPY" --json run --detach cat | tr -d '\n ' | sed 's/.*"id":"\([^"]*\)".*/\1/')
        dd if=/dev/zero of="$HAPPY_HOME_DIR/filler" bs=4096 2>/dev/null
        "$HAPPY" run --detach cat >said 2>&1; echo "code $?"; echo "refused $(tr '\n' ' ' <said)"
        echo "listed $("$HAPPY" --json ls | grep -o '"state": *"running"' | wc -l)"
        echo "left $(ls "$HAPPY_HOME_DIR/sessions" | wc -l)"
        (echo hello; sleep 1) | timeout 60 "$HAPPY" attach --lossless "$first" >typed & attach=$!
        while [ "$(grep -c hello typed)" != 2 ]; do sleep 0.1; done; kill $attach; echo "typed yes"
        # The end of a program is told although it cannot be written down.
        "$HAPPY" kill "$first" >/dev/null
        while "$HAPPY" --json ls | grep -q '"state": *"running"'; do sleep 0.1; done
        echo "ended $("$HAPPY" ls | grep -c HUP)"
        rm "$HAPPY_HOME_DIR/filler"
        "$HAPPY" run --detach cat >/dev/null && echo "again yes"
    "#;
    let output = home.shell(&[&spaces[..], &["--pid", "--fork", "--kill-child"]].concat(), script);
    assert_ne!(told(&output, "code "), "0");
    let refused = told(&output, "refused ");
    assert!(refused.contains("No space left") && refused.contains("sessions"), "{refused}");
    assert_eq!((told(&output, "listed ").trim(), told(&output, "left ").trim()), ("1", "1"));
    assert_eq!((told(&output, "typed "), told(&output, "ended ").trim(), told(&output, "again ")), ("yes", "1", "yes"));
}
