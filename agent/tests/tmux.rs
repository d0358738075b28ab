//! Sessions of the user's tmux by the command line: listed, made, attached to and ended, while the daemon is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::process::Command;

use harness::Home;

/// The tmux that this home's daemon sees.
fn tmux(home: &Home, args: &[&str]) -> String {
    let mut command = Command::new("tmux");
    command
        .env("TMUX_TMPDIR", home.path().parent().unwrap())
        .env_remove("TMUX")
        .args(["-u", "-f", "/dev/null"])
        .args(args);
    let output = command.output().expect("these tests need tmux: apt-get install tmux");
    assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

struct Server<'a>(&'a Home);

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let folder = self.0.path();
        let _ = Command::new("tmux").env("TMUX_TMPDIR", folder.parent().unwrap()).arg("kill-server").output();
    }
}

#[test]
fn a_session_of_tmux_is_one_among_others() {
    let home = Home::new();
    tmux(
        &home,
        &[
            "new-session",
            "-d",
            "-s",
            "work",
            "-x",
            "80",
            "-y",
            "24",
            "read a; echo \"<$a>\"; read b; echo \"<$b>\"; exec cat",
        ],
    );
    let _server = Server(&home);
    home.start();
    let listed = home.run(&["ls"]).ok();
    assert!(listed.contains("work") && listed.contains("running in tmux"), "{listed}");
    let sessions = home.json(&["ls"]);
    assert_eq!((&sessions[0]["name"], &sessions[0]["kind"]), (&"work".into(), &"tmux".into()));

    home.run(&["type", "work", "first"]).ok();
    let mut reader = home.spawn(&["attach", "--lossless", "--from-start", "work"]);
    reader.line(|line| line.contains("<first>"));
    home.kill_daemon();
    home.start();
    home.run(&["type", "work", "second"]).ok();
    reader.line(|line| line.contains("<second>"));

    home.run(&["run", "--tmux", "--detach", "--name", "made here", "sh", "-c", "echo $((6*7)); exec cat"]).ok();
    assert!(tmux(&home, &["list-sessions", "-F", "#{session_name}"]).contains("made here"));
    home.run(&["run", "--tmux", "--detach", "--name", "made here", "cat"]).fails_with(&["duplicate session"]);
    home.run(&["run", "--tmux", "--keep", "1M", "cat"]).fails_with(&["--keep"]);
    let killed = home.run(&["kill", "made here"]).ok();
    assert!(killed.contains("tmux session made here was ended"), "{killed}");
    home.until(&["ls"], |sessions| sessions.as_array().unwrap().len() == 1);

    tmux(&home, &["kill-session", "-t", "=work"]);
    assert_eq!(reader.finish().code, 0);
    home.until(&["ls"], |sessions| sessions.as_array().unwrap().is_empty());
}
