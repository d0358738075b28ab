//! Real processes in homes of their own. Everything waits for what it expects, with a deadline, never for time.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod http;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Far longer than anything here takes on a slow machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A home of one machine. Its daemon and sessions end with it.
pub struct Home {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

/// What a command gave.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Output {
    /// Checks that it went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "out: {}\nerr: {}", self.out, self.err);
        self.out
    }

    /// Checks that it failed in words that contain all of these, and without a panic.
    #[track_caller]
    pub fn fails_with(self, words: &[&str]) -> Output {
        assert_ne!(self.code, 0, "it should have failed: {}", self.out);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is missing in: {}", self.err);
        }
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }
}

impl Home {
    pub fn new() -> Home {
        Home { folder: tempfile::Builder::new().prefix("happy").tempdir().unwrap(), env: Vec::new() }
    }

    /// With a variable for its daemon and commands.
    pub fn with(name: &str, value: &str) -> Home {
        let mut home = Self::new();
        home.env.push((name.into(), value.into()));
        home
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("h")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_happy"));
        command.args(args).env("HAPPY_HOME_DIR", self.path()).env_remove("HAPPY_SERVER_URL");
        // The tmux of whoever runs the tests is none of their business: at the end everything on the list is ended.
        command.env("TMUX_TMPDIR", self.folder.path()).env_remove("TMUX");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut running = self.spawn(args);
        drop(running.stdin.take());
        running.finish()
    }

    /// Starts a command.
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    /// Starts the daemon in the background, at any free ports.
    #[track_caller]
    pub fn start(&self) -> &Self {
        self.start_with(&[])
    }

    #[track_caller]
    pub fn start_with(&self, args: &[&str]) -> &Self {
        let mut all = vec!["daemon", "start", "--api-port", "0", "--relay-port", "0"];
        all.extend(args);
        self.run(&all).ok();
        self
    }

    /// Runs a script for `sh`, below another command if one is given, in an empty folder; `$HAPPY` is the program. What it has printed.
    #[track_caller]
    pub fn shell(&self, below: &[&str], script: &str) -> String {
        let words = [below, &["sh", "-c", script]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).env("HAPPY", env!("CARGO_BIN_EXE_happy"));
        command.env("HAPPY_HOME_DIR", self.path()).env_remove("HAPPY_SERVER_URL");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// What a command prints as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(args);
        serde_json::from_str(&self.run(&all).ok()).unwrap()
    }

    /// The same of a command that fails.
    #[track_caller]
    pub fn json_of_failed(&self, args: &[&str]) -> serde_json::Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let output = self.run(&all);
        assert_ne!(output.code, 0, "it should have failed: {}", output.out);
        serde_json::from_str(&output.out).unwrap()
    }

    /// Asks again and again until what a command prints as JSON fits.
    #[track_caller]
    pub fn until(&self, args: &[&str], fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.json(args);
            if fits(&value) {
                return value;
            }
            assert!(Instant::now() < deadline, "{args:?} still gives {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> i32 {
        let state = std::fs::read(self.file("daemon.state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        state["pid"].as_i64().unwrap() as i32
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.file("logs/daemon.log")).unwrap_or_default()
    }

    /// Ends the daemon as the worst crash would.
    pub fn kill_daemon(&self) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let deadline = Instant::now() + PATIENCE;
        // It is a child of a process that is gone; the lock says when it is.
        while self.run(&["daemon", "status"]).code == 0 {
            assert!(Instant::now() < deadline);
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let quietly = |args: &[&str]| {
            let mut command = self.command(args);
            command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok().filter(|output| output.status.success())
        };
        let sessions = || {
            let listed = quietly(&["ls", "--json"])?;
            serde_json::from_slice::<Vec<serde_json::Value>>(&listed.stdout).ok()
        };
        if sessions().is_none() && self.file("sessions").read_dir().is_ok_and(|mut dir| dir.next().is_some()) {
            // The daemon of this test is dead, its sessions are not.
            quietly(&["daemon", "start", "--api-port", "0", "--relay-port", "0"]);
        }
        let deadline = Instant::now() + PATIENCE;
        while let Some(sessions) = sessions().filter(|sessions| !sessions.is_empty()) {
            // The first time it ends the program, later it takes it off the list.
            sessions.iter().filter_map(|session| session["id"].as_str()).for_each(|id| drop(quietly(&["kill", id])));
            if Instant::now() > deadline {
                break;
            }
        }
        quietly(&["daemon", "stop"]);
    }
}

/// A running command. It is killed when it is dropped.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
    err: Option<std::thread::JoinHandle<String>>,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (give, lines) = channel();
        let (stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = give.send(line);
            }
        });
        let err = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        Running { stdin: child.stdin.take(), child, lines, seen: Vec::new(), err: Some(err) }
    }

    #[track_caller]
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        if let Err(error) = writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            let _ = self.child.kill();
            let err = self.err.take().map(|err| err.join().unwrap()).unwrap_or_default();
            panic!("it takes no input: {error}; seen: {:#?}\nerr: {err}", self.seen);
        }
    }

    /// The next line of standard output that fits.
    #[track_caller]
    pub fn line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if fits(&line) => {
                    self.seen.push(line.clone());
                    return line;
                }
                Ok(line) => self.seen.push(line),
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "did not come" } else { "cannot come any more" };
                    let _ = self.child.kill();
                    let err = self.err.take().map(|err| err.join().unwrap()).unwrap_or_default();
                    panic!("the line {why}; seen: {:#?}\nerr: {err}", self.seen);
                }
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Output {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                self.seen.extend(self.lines.try_iter());
                panic!("it does not end; seen: {:#?}", self.seen);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // The readers end with the process, unless a child of it keeps the pipe.
        self.seen.extend(self.lines.iter());
        let out = self.seen.iter().map(|line| format!("{line}\n")).collect();
        let err = self.err.take().map(|err| err.join().unwrap()).unwrap_or_default();
        Output { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The invitation's link for this machine, from lines that `pair` or `up` prints.
#[track_caller]
pub fn link(pair: &mut Running) -> String {
    let line = pair.line(|line| line.starts_with("http://127.0.0.1:"));
    line.split(' ').next().unwrap().to_owned()
}

/// The code that `join` shows.
#[track_caller]
pub fn code(join: &mut Running) -> String {
    let is_code = |line: &str| line.trim().len() == 7 && line.trim().bytes().all(|b| b.is_ascii_digit() || b == b' ');
    join.line(is_code).trim().to_owned()
}

/// Pairs `guest` with `host`: both are running afterwards and know each other.
#[track_caller]
pub fn pair(host: &Home, guest: &Home, role: &str, guest_name: &str) {
    let mut pair = host.spawn(&["pair", "--role", role]);
    let link = link(&mut pair);
    let mut join = guest.spawn(&["join", &link]);
    let code = code(&mut join);
    pair.type_line(&format!("{code} {guest_name}"));
    join.finish().ok();
    pair.finish().ok();
}

/// The name that a machine gives itself.
pub fn machine_name(home: &Home) -> String {
    home.json(&["daemon", "status"])["name"].as_str().unwrap().to_owned()
}

/// Reads a file, with the path in the failure.
#[track_caller]
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
