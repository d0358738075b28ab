//! The daemon as a service: a harness plays the service manager, and what goes wrong on a machine goes wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use harness::{Home, PATIENCE, machine_name, pair, read};
use rustix::process::{Pid, Signal, kill_process};

const START: &[&str] = &["daemon", "start-sync", "--api-port", "0", "--relay-port", "0"];
/// How long a daemon may be silent here before it is taken for dead.
const WATCHDOG: Duration = Duration::from_secs(2);

/// A service manager as far as one service sees it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// The main process of the service.
struct Service(Child);

impl Manager {
    fn new() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager { socket, path, _folder: folder }
    }

    fn start(&self, mut command: Command) -> Service {
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Service(command.spawn().unwrap())
    }

    /// The next message; none when there is none for so long.
    fn message(&self, wait: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1)))).unwrap();
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8(bytes[..length].to_vec()).unwrap()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with this line.
    #[track_caller]
    fn until(&self, line: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Some(message) = self.message(deadline.saturating_duration_since(Instant::now())) {
            if message.lines().any(|told| told.starts_with(line)) {
                return message;
            }
            seen.push(message);
        }
        panic!("{line} was not told, but {seen:?}");
    }

    fn forget(&self) {
        while self.message(Duration::ZERO).is_some() {}
    }
}

impl Service {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper(home: &Home) -> (String, i64) {
    let id = home.run(&["run", "-d", "sleep", "1000"]).ok().trim().to_owned();
    let session = home.until(&["ls"], |list| list[0]["pid"].is_i64());
    (id, session[0]["pid"].as_i64().unwrap())
}

#[track_caller]
fn still_runs(home: &Home, (id, pid): &(String, i64)) {
    let list = home.json(&["ls"]);
    assert!(list[0]["id"].as_str().unwrap().starts_with(id), "{list}");
    assert_eq!((list[0]["state"].as_str(), list[0]["pid"].as_i64()), (Some("running"), Some(*pid)), "{list}");
}

#[test]
fn a_service_manager_is_told_when_the_daemon_is_ready_lives_and_ends_and_sessions_outlive_it() {
    let (manager, home) = (Manager::new(), Home::new());
    let mut service = manager.start(home.command(START));
    let ready = manager.until("READY=1");
    assert!(ready.contains("STATUS=0 sessions"), "{ready}");
    // Whoever is told that it is ready finds it so.
    assert_eq!(home.json(&["daemon", "status"])["pid"], service.0.id());
    let session = sleeper(&home);
    manager.until("STATUS=1 sessions");
    (0..3).for_each(|_| drop(manager.until("WATCHDOG=1")));

    service.signal(Signal::TERM);
    manager.until("STOPPING=1");
    assert_eq!(service.ended().code(), Some(0), "a stop that was asked for is no failure");
    // KillMode=process: nobody has sent the holder anything.
    rustix::process::test_kill_process(Pid::from_raw(session.1 as i32).unwrap()).unwrap();

    let _next = manager.start(home.command(START));
    manager.until("READY=1");
    still_runs(&home, &session);
    // `happy daemon stop` ends it in the same order.
    home.run(&["daemon", "stop"]).ok();
    manager.until("STOPPING=1");
    home.start();
}

#[test]
fn a_daemon_that_gives_no_sign_of_life_is_killed_and_the_next_one_has_all_its_sessions() {
    let (manager, home) = (Manager::new(), Home::new());
    let mut service = manager.start(home.command(START));
    manager.until("READY=1");
    let session = sleeper(&home);
    manager.until("WATCHDOG=1");
    service.signal(Signal::STOP);
    manager.forget();
    // One was perhaps on its way; then there is silence for longer than the manager bears.
    while manager.message(WATCHDOG).is_some() {}
    service.signal(Signal::KILL);
    assert!(!service.ended().success());
    let _next = manager.start(home.command(START));
    manager.until("READY=1");
    still_runs(&home, &session);
    manager.until("WATCHDOG=1");
    home.run(&["daemon", "stop"]).ok();
    home.start();
}

#[test]
fn a_second_daemon_ends_with_a_code_of_its_own_and_the_first_goes_on() {
    let (manager, home) = (Manager::new(), Home::new());
    let _first = manager.start(home.command(START));
    manager.until("READY=1");
    let session = sleeper(&home);
    let other = Manager::new();
    let mut second = other.start(home.command(START));
    // RestartPreventExitStatus of the unit.
    assert_eq!(second.ended().code(), Some(5));
    let mut said = String::new();
    std::io::Read::read_to_string(second.0.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(said.contains("A daemon runs already") && said.contains("happy daemon stop"), "{said}");
    assert_eq!(other.message(Duration::ZERO), None, "it was never ready");
    assert!(
        home.log().contains("A daemon runs already"),
        "a service's standard error is seen by nobody: {}",
        home.log()
    );
    still_runs(&home, &session);
}

#[test]
fn what_a_killed_daemon_has_left_behind_stops_no_other() {
    let (manager, home) = (Manager::new(), Home::new());
    home.start();
    let session = sleeper(&home);
    let device = home.json(&["daemon", "status"])["device"].clone();
    home.kill_daemon();
    for left in ["daemon.lock", "daemon.sock", "daemon.state.json"] {
        assert!(home.file(left).exists(), "{left}");
    }
    // It was killed in the middle of a write, too.
    std::fs::write(home.file("epoch.new"), "12").unwrap();
    std::fs::write(home.file(".probe"), "").unwrap();
    let mut service = manager.start(home.command(START));
    manager.until("READY=1");
    still_runs(&home, &session);
    assert_eq!(home.json(&["daemon", "status"])["device"], device);
    service.signal(Signal::TERM);
    service.ended();
    // Something else has the socket's name.
    std::fs::write(home.file("daemon.sock"), "no socket").unwrap();
    home.start();
    still_runs(&home, &session);
}

/// Below a mount of its own, which nobody else sees.
fn mounted(home: &Home, script: &str) -> Option<String> {
    let spaces = ["unshare", "--user", "--map-root-user", "--mount"];
    if !Command::new(spaces[0]).args(&spaces[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("this system lets nobody mount a disk for a test");
        return None;
    }
    Some(home.shell(&[&spaces[..], &["--pid", "--fork", "--kill-child"]].concat(), script))
}

#[track_caller]
fn told<'a>(output: &'a str, what: &str) -> &'a str {
    output.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_else(|| panic!("{what} is missing in {output}"))
}

#[test]
fn a_home_that_cannot_be_written_is_told_with_what_to_do_and_is_as_it_was_when_it_can() {
    let home = Home::new();
    let script = r#"
        start() { "$HAPPY" daemon start --api-port 0 --relay-port 0; }
        id() { "$HAPPY" --json daemon status | tr -d '\n ' | sed 's/.*"device":"\([^"]*\)".*/\1/'; }
        mkdir -p "$HAPPY_HOME_DIR" && mount -t tmpfs -o size=4m,mode=700 none "$HAPPY_HOME_DIR" || exit 1
        start >/dev/null || exit 1
        echo "first $(id)"; "$HAPPY" daemon stop >/dev/null
        # Whoever has ended a moment ago may still have a file open.
        for n in $(seq 300); do mount -o remount,ro "$HAPPY_HOME_DIR" 2>/dev/null && break; sleep 0.1; done
        start >said 2>&1; echo "code $?"; echo "refused $(tr '\n' ' ' <said)"
        "$HAPPY" daemon start-sync >said 2>&1; echo "service $?"; echo "says $(tr '\n' ' ' <said)"
        mount -o remount,rw "$HAPPY_HOME_DIR" || exit 1
        start >/dev/null || exit 1
        echo "again $(id)"; "$HAPPY" daemon stop >/dev/null
    "#;
    let Some(output) = mounted(&home, script) else { return };
    for (code, words) in [("code ", "refused "), ("service ", "says ")] {
        assert_eq!(told(&output, code), "1");
        let words = told(&output, words);
        assert!(words.contains("ead-only file system") && words.contains("HAPPY_HOME_DIR"), "{words}");
    }
    assert_eq!(told(&output, "first "), told(&output, "again "), "{output}");
}

#[test]
fn a_daemon_starts_not_at_all_on_a_full_disk_and_loses_nothing() {
    let home = Home::new();
    let script = r#"
        start() { "$HAPPY" daemon start --api-port 0 --relay-port 0; }
        id() { "$HAPPY" --json daemon status | tr -d '\n ' | sed 's/.*"device":"\([^"]*\)".*/\1/'; }
        mkdir -p "$HAPPY_HOME_DIR" && mount -t tmpfs -o size=2m,mode=700 none "$HAPPY_HOME_DIR" || exit 1
        start >/dev/null || exit 1
        session=$("$HAPPY" run --detach cat)
        echo "first $(id)"; "$HAPPY" daemon stop >/dev/null
        (cd "$HAPPY_HOME_DIR"; sha256sum access.key membership.log prekeys >"$OLDPWD/before")
        dd if=/dev/zero of="$HAPPY_HOME_DIR/filler" bs=4096 2>/dev/null; dd if=/dev/zero bs=1 2>/dev/null >>"$HAPPY_HOME_DIR/filler"
        start >said 2>&1; echo "code $?"; echo "refused $(tr '\n' ' ' <said)"
        (cd "$HAPPY_HOME_DIR"; sha256sum --quiet --check "$OLDPWD/before") && echo "keys whole"
        rm "$HAPPY_HOME_DIR/filler"
        start >/dev/null || exit 1
        echo "again $(id)"
        echo "running $("$HAPPY" --json ls | grep -c '"state": *"running"')"
        "$HAPPY" kill $session >/dev/null; "$HAPPY" daemon stop >/dev/null
    "#;
    let Some(output) = mounted(&home, script) else { return };
    assert_eq!(told(&output, "code "), "1");
    let refused = told(&output, "refused ");
    assert!(
        refused.contains("disk") && (refused.contains("make room") || refused.contains("Free some space")),
        "{refused}"
    );
    assert_eq!((told(&output, "keys "), told(&output, "running ")), ("whole", "1"));
    assert_eq!(told(&output, "first "), told(&output, "again "));
}

/// The library that gives a program another time, from the package faketime.
fn faketime() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    let found =
        folders.iter().map(|folder| Path::new(folder).join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    if found.is_none() {
        eprintln!("the package faketime is missing: no clock jumps in this run");
    }
    found
}

#[test]
fn a_clock_that_jumps_by_a_year_and_back_ends_no_session_link_or_pairing() {
    let Some(library) = faketime() else { return };
    let (manager, host, guest) = (Manager::new(), Home::new(), Home::new());
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |offset: &str| std::fs::write(clock.path(), offset).unwrap();
    let start = |port: &str| {
        let mut command = host.command(&[&START[..START.len() - 1], &[port]].concat());
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", clock.path());
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        manager.start(command)
    };
    set("+0d");
    let mut service = start("0");
    manager.until("READY=1");
    guest.start();
    pair(&host, &guest, "operator", "the laptop");
    // The guest looks for it there.
    let relay = guest.json(&["devices"])["machines"][0]["relay"].as_str().unwrap().to_owned();
    let (_, port) = relay.rsplit_once(':').unwrap();
    let name = machine_name(&host);
    let session = sleeper(&host);
    // A command that was given by another clock than the machine has now is refused (PROTOCOL 10.2), until the next link tells the difference.
    let works = |words: &[&str]| {
        still_runs(&host, &session);
        let run = [&["run", "--machine", &name], words, &["-d", "sleep", "1000"]].concat();
        let id = guest.run(&run).ok().trim().to_owned();
        guest.run(&[&["kill", "--machine", &name, &id], words].concat()).ok();
        // Whether it is still on the list then is a matter of clocks: the holder's, which nobody has set, says when the program ended.
        guest.until(&["ls", "--machine", &name], |list| {
            let is_running = |other: &serde_json::Value| {
                other["id"].as_str().unwrap().starts_with(&id) && other["state"] == "running"
            };
            !list.as_array().unwrap().iter().any(is_running)
        });
        guest.run(&[&["kill", "--machine", &name, &id], words].concat());
    };
    let now = || {
        let started = host.json(&["daemon", "status"])["started_at"].as_u64().unwrap();
        started / 1000 / 86_400
    };
    let today = now();
    for (offset, days) in [("+400d", 400), ("-30d", -30), ("+0d", 0)] {
        set(offset);
        works(&["--no-queue"]);
        // And a daemon that finds the clock so when it starts.
        service.signal(Signal::TERM);
        manager.until("STOPPING=1");
        service.ended();
        service = start(port);
        manager.until("READY=1");
        assert!(now().abs_diff(today.saturating_add_signed(days)) <= 1, "the clock did not jump");
        guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
        works(&[]);
        manager.until("WATCHDOG=1");
    }
}

/// A folder with programs that stand for those of the service manager; what they were given is in `calls`.
struct Tools {
    folder: tempfile::TempDir,
}

impl Tools {
    fn new(systemctl_says: &str) -> Tools {
        let folder = tempfile::tempdir().unwrap();
        for (name, ends) in [("systemctl", systemctl_says), ("loginctl", "exit 0"), ("launchctl", "exit 0")] {
            let path = folder.path().join(name);
            std::fs::write(
                &path,
                format!("#!/bin/sh\necho \"{name} $*\" >>'{}/calls'\n{ends}\n", folder.path().display()),
            )
            .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        Tools { folder }
    }

    fn command(&self, home: &Home, args: &[&str]) -> Command {
        let mut command = home.command(args);
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("XDG_CONFIG_HOME", self.folder.path()).env("HOME", self.folder.path());
        command
    }

    fn run(&self, home: &Home, args: &[&str]) -> (i32, String, String) {
        let output = self.command(home, args).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.folder.path().join("calls"));
        calls.lines().map(str::to_owned).collect()
    }

    fn unit(&self) -> Option<PathBuf> {
        let mut units = std::fs::read_dir(self.folder.path().join("systemd/user")).ok()?;
        Some(units.next()?.unwrap().path())
    }
}

/// What a unit's line holds, its quotes read as systemd reads them.
fn words(unit: &str, key: &str) -> Vec<String> {
    let line = unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' => word.push(chars.next().unwrap()),
            '%' | '$' if chars.as_str().starts_with(c) => word.push(chars.next().unwrap()),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words
}

#[test]
fn an_installed_service_is_what_the_unit_says_and_can_be_taken_away() {
    let (tools, home, manager) = (Tools::new("exit 0"), Home::new(), Manager::new());
    let args = ["daemon", "install", "--manager", "systemd", "--api-port", "0", "--relay-port", "0"];
    let (code, printed, _) = tools.run(&home, &[&args[..], &["--print"]].concat());
    assert_eq!((code, tools.unit(), tools.calls().len()), (0, None, 0), "to print is to do nothing");

    let (code, said, err) = tools.run(&home, &args);
    assert_eq!(code, 0, "{err}");
    let unit = tools.unit().unwrap();
    let name = unit.file_name().unwrap().to_str().unwrap().to_owned();
    let text = read(&unit);
    assert_eq!(text.trim_end(), printed.trim_end());
    assert!(said.contains(unit.to_str().unwrap()) && said.contains("linger"), "{said}");
    let calls = ["daemon-reload".to_owned(), format!("enable {name}"), format!("start {name}")];
    assert_eq!(tools.calls(), calls.map(|call| format!("systemctl --user {call}")));

    // As systemd would start it: the words of the unit, and nothing else.
    let words = |key: &str| words(&text, key);
    assert_eq!((words("Type="), words("KillMode=")), (vec!["notify".to_owned()], vec!["process".to_owned()]));
    let command = words("ExecStart=");
    let mut service = Command::new(&command[0]);
    service.args(&command[1..]).env_clear().env("PATH", std::env::var("PATH").unwrap());
    service.envs(words("Environment=").iter().map(|word| word.split_once('=').unwrap()));
    let mut service = manager.start(service);
    manager.until("READY=1");
    assert_eq!(home.json(&["daemon", "status"])["pid"], service.0.id());

    // Again, while it runs, and for good.
    let (code, said, _) = tools.run(&home, &[&args[..], &["--linger"]].concat());
    assert!(code == 0 && said.contains("left alone") && said.contains("Lingering"), "{said}");
    assert_eq!(tools.calls().last().unwrap(), "loginctl enable-linger");
    let (code, said, _) = tools.run(&home, &["daemon", "uninstall", "--manager", "systemd"]);
    assert!(code == 0 && said.contains("Removed"), "{said}");
    assert_eq!(
        tools.calls(),
        [format!("systemctl --user disable --now {name}"), "systemctl --user daemon-reload".into()]
    );
    assert_eq!(tools.unit(), None);
    let (code, _, err) = tools.run(&home, &["daemon", "uninstall", "--manager", "systemd"]);
    assert!(code == 1 && err.contains("No service is installed") && err.contains("`happy daemon stop`"), "{err}");
    service.signal(Signal::TERM);
    service.ended();
    let (code, _, err) = tools.run(&home, &["daemon", "stop"]);
    assert!(code == 3 && err.contains("none to end") && !err.contains("Start it"), "{err}");
}

#[test]
fn a_unit_of_somebody_else_is_left_alone_and_a_manager_that_is_not_there_is_told() {
    let (tools, home) = (Tools::new("echo 'Failed to connect to bus: No medium found' >&2; exit 1"), Home::new());
    let args = ["daemon", "install", "--manager", "systemd"];
    let (code, _, err) = tools.run(&home, &args);
    let unit = tools.unit().unwrap();
    for words in ["is written, but", "Failed to connect to bus", "systemctl --user enable --now happy"] {
        assert!(code == 1 && err.replace('\n', " ").contains(words), "{words}: {err}");
    }
    std::fs::write(&unit, "[Service]\nExecStart=/usr/bin/true\n").unwrap();
    for command in [&args[..], &["daemon", "uninstall", "--manager", "systemd"]] {
        let (code, _, err) = tools.run(&home, command);
        assert!(code == 1 && err.contains("not written by happy"), "{err}");
    }
    assert_eq!(read(&unit), "[Service]\nExecStart=/usr/bin/true\n");
}

#[test]
fn who_wants_to_linger_with_launchd_is_told_that_it_cannot() {
    let (tools, home) = (Tools::new("exit 0"), Home::new());
    let args = ["daemon", "install", "--manager", "launchd", "--linger"];
    let (code, said, err) = tools.run(&home, &args);
    assert!(code == 0 && said.contains("`--linger` is for systemd only"), "{said}{err}");
    assert!(!tools.calls().iter().any(|call| call.contains("linger")));
    assert!(!tools.run(&home, &args[..4]).1.contains("linger"));
}

#[test]
fn a_shell_completes_commands_and_each_command_has_its_page() {
    let home = Home::new();
    let script = r#"
        "$HAPPY" completions bash >happy.bash && "$HAPPY" completions zsh >_happy && "$HAPPY" completions fish >happy.fish || exit 1
        bash -c '. ./happy.bash; COMP_WORDS=(happy dae); COMP_CWORD=1; _happy happy dae happy; echo "word ${COMPREPLY[*]}"
                 COMP_WORDS=(happy daemon uni); COMP_CWORD=2; _happy happy uni daemon; echo "below ${COMPREPLY[*]}"'
        "$HAPPY" man --to pages >/dev/null || exit 1
        echo "pages $(ls pages | grep -c '^happy.*\.1$')"
        echo "found $(grep -c 'goes on when|log out' -E pages/happy-daemon-install.1)"
        echo "others $(ls pages | grep -vc '^happy')"
    "#;
    let output = home.shell(&[], script);
    assert_eq!((told(&output, "word "), told(&output, "below ")), ("daemon", "uninstall"));
    assert!(told(&output, "pages ").parse::<u32>().unwrap() > 30, "{output}");
    assert_eq!((told(&output, "found "), told(&output, "others ")), ("1", "0"), "{output}");
    assert!(!home.path().exists(), "neither needs a home");
}

#[test]
fn the_log_is_shown_by_both_names() {
    let home = Home::new();
    home.start();
    let log = home.run(&["daemon", "logs"]).ok();
    assert!(log.contains("the daemon runs"), "{log}");
    assert_eq!(home.run(&["daemon", "logs", "-n", "1"]).ok(), home.run(&["logs", "-n", "1"]).ok());
}

#[test]
fn what_sessions_do_and_use_is_found_out_when_somebody_asks() {
    let home = Home::new();
    home.start();
    // A shell with a child of its own, which has printed something.
    let id = home.run(&["run", "-d", "--", "sh", "-c", "echo hello; sleep 1000; true"]).ok().trim().to_owned();
    home.run(&["run", "-d", "--", "sh", "-c", "exit 3"]).ok();
    let of = |metrics: &serde_json::Value, at: usize| metrics["sessions"][at].clone();
    let metrics = home.until(&["metrics"], |metrics| {
        of(metrics, 0)["bytes_out"].as_u64() >= Some(6)
            && of(metrics, 0)["usage"]["processes"] == 2
            && of(metrics, 1)["status"] == "error"
    });
    assert!(of(&metrics, 0)["session"].as_str().unwrap().starts_with(&id), "{metrics}");
    assert!(of(&metrics, 0)["usage"]["memory"].as_u64() > Some(100_000), "{metrics}");
    assert!(of(&metrics, 1)["usage"].is_null(), "{metrics}");
    let total = &metrics["total"];
    assert_eq!([&total["sessions"], &total["running"], &total["failed"]], [2, 1, 1], "{metrics}");
    home.until(&["metrics"], |metrics| of(metrics, 0)["status"] == "idle");
    let pid = home.json(&["ls"])[0]["pid"].as_i64().unwrap();
    let program = Pid::from_raw(pid as i32).unwrap();
    kill_process(program, Signal::STOP).unwrap();
    home.until(&["metrics"], |metrics| of(metrics, 0)["status"] == "paused");
    kill_process(program, Signal::CONT).unwrap();
    home.until(&["metrics"], |metrics| of(metrics, 0)["status"] == "idle");
    assert!(home.run(&["metrics"]).ok().contains("2 sessions, 1 running, 1 failed"));
}

#[test]
fn a_relay_that_is_away_is_counted_and_not_repeated_in_the_log() {
    let home = Home::new();
    // Nobody listens there.
    home.start_with(&["--relay", "http://127.0.0.1:9"]);
    let status = home.until(&["daemon", "status"], |status| status["errors"][0]["count"].as_u64() >= Some(4));
    assert!(status["relays"][0]["failures"].as_u64() >= Some(4), "{status}");
    assert_eq!(home.log().matches("no connection to the relay").count(), status["errors"].as_array().unwrap().len());
    let shown = home.run(&["daemon", "status"]).ok();
    assert!(shown.contains("failed attempts") && shown.contains("times, last"), "{shown}");
}

#[test]
fn a_project_names_its_sessions_and_nothing_else_of_it_is_heeded() {
    let home = Home::new();
    home.start();
    let project = tempfile::tempdir().unwrap();
    std::fs::create_dir(project.path().join(".happy")).unwrap();
    let text = r#"{"name": "the build", "relay": "https://evil.example", "command": ["touch", "evil"]}"#;
    std::fs::write(project.path().join(".happy/settings.json"), text).unwrap();
    let folder = project.path().to_str().unwrap();
    home.run(&["run", "-d", "--cwd", folder, "sleep", "1000"]).ok();
    home.run(&["run", "-d", "--cwd", folder, "--name", "mine", "sleep", "1000"]).ok();
    let list = home.json(&["ls"]);
    assert_eq!((list[0]["name"].as_str(), list[1]["name"].as_str()), (Some("the build"), Some("mine")), "{list}");
    assert_eq!(list[0]["command"], serde_json::json!(["sleep", "1000"]));
    let log = home.log();
    assert!(log.contains("not for a project to decide") && log.contains("relay"), "{log}");
}
