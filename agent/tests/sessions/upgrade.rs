//! Another program for a running holder: nothing is lost, and what cannot take over is refused.
//!
//! The other programs are copies of this one that pretend to be others (`happy::holder::pretence`): another version, another executable
//! file, the same code. So the tests show the switch, the descriptors and what happens on failure; that two releases read each
//! other's handovers is shown by the sample in `happy::holder::handover`.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use happy::holder::blocks::Place;
use happy::holder::protocol::{Refusal, Request, Response, Status, VERSION, kind};
use happy::session::{AttachRequest, Sessions};
use happy_rpc::Session;
use happy_wire::terminal::{Exit, MAX_CHUNK};
use rustix::process::Signal;

use crate::support::*;

/// How often what is done many times is done; `HAPPY_TEST_ROUNDS=1000` for a long evening.
fn rounds() -> u32 {
    std::env::var("HAPPY_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50)
}

pub fn this_program() -> PathBuf {
    env!("CARGO_BIN_EXE_happy").into()
}

/// A copy of this program that differs as `pretence` says.
pub fn pretender(home: &Home, name: &str, pretence: &str) -> PathBuf {
    std::fs::create_dir_all(home.path()).unwrap();
    let path = home.path().join(name);
    std::fs::copy(this_program(), &path).unwrap();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    write!(file, "\nhappy-pretence {pretence}\n").unwrap();
    path
}

fn script(home: &Home, name: &str, text: &str) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Asks a holder behind the daemon's back.
fn ask(socket: &Path, request: &Request) -> Result<Status, Refusal> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let json = serde_json::to_vec(request).unwrap();
    let mut bytes = vec![0, 0, 0, 2, kind::CONTROL, VERSION];
    bytes.extend_from_slice(&(json.len() as u32 + 1).to_be_bytes());
    bytes.push(kind::REQUEST);
    bytes.extend_from_slice(&json);
    stream.write_all(&bytes).unwrap();
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        if frame[0] == kind::RESPONSE {
            return match serde_json::from_slice(&frame[1..]).unwrap() {
                Response::Ok(status) => Ok(status),
                Response::Error(refused) => Err(refused),
            };
        }
    }
}

/// Upgrades while the viewer goes on reading.
pub async fn upgrade(home: &Home, session: &Session, glass: &mut Glass, program: &Path) -> Result<Status, Refusal> {
    let (socket, request) = (home.socket(session.id), Request::Upgrade { program: program.to_owned() });
    let mut asked = tokio::task::spawn_blocking(move || ask(&socket, &request));
    loop {
        tokio::select! {
            answer = &mut asked => return answer.unwrap(),
            () = glass.next() => {}
        }
    }
}

pub fn lossless(session: &Session) -> AttachRequest {
    AttachRequest { lossless: true, ..from_start(session) }
}

/// The numbers after `word` in lines of their own, which must count from 1; how many.
pub fn count(output: &[u8], word: &str) -> usize {
    let text = String::from_utf8_lossy(output);
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word)).map(|number| number.trim().parse().unwrap());
    numbers.enumerate().map(|(index, number): (usize, usize)| assert_eq!(number, index + 1, "after {word}")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_is_upgraded_again_and_again_under_output_and_input_and_loses_nothing() {
    for place in [Place::Memory, Place::Sealed] {
        let home = Home::new();
        let sessions = Sessions::open(happy::session::Config { log: Some(place), ..home.config() }).await.unwrap();
        let stop = home.path().join("stop");
        let stop = stop.display();
        let session = sessions
            .create(sh(&format!(
                "stty -echo; echo ready
                (i=0; while [ ! -e {stop} ]; do i=$((i+1)); echo \"out $i\"; done) &
                while read x; do [ \"$x\" = stop ] && touch {stop} && wait && exit 7; echo \"in $x\"; done"
            )))
            .await
            .unwrap();
        let mut glass = Glass::attach(&sessions, lossless(&session)).await;
        glass.until_text("ready").await;
        let before = home.status(session.id).unwrap();
        let rounds = if place == Place::Memory { rounds() } else { rounds() / 5 };
        for round in 1..=rounds {
            glass.type_in(format!("{round}\n").as_bytes()).await;
            let status = upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
            assert_eq!((status.holder, status.pid), (before.holder, before.pid));
            assert_eq!(status.upgrades, u64::from(round));
        }
        let blackout = home.status(session.id).unwrap().blackout_us.unwrap();
        glass.type_in(b"stop\n").await;
        assert_eq!(glass.until_exit().await, Exit::Code(7));
        assert!(glass.gaps.is_empty() && glass.snapshots == 0);
        let (printed, echoed) = (count(&glass.output, "out "), count(&glass.output, "in "));
        assert_eq!(echoed, rounds as usize);
        println!("{place:?}: {rounds} upgrades, {printed} lines, last blackout {blackout} us");
        assert!(printed > 1_000, "there was no load: {printed} lines");
        assert_eq!(home.session_dir(session.id).exit().unwrap().unwrap().offset, glass.output.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgraded_holder_still_knows_how_the_program_ended() {
    let home = Home::new();
    let sessions = home.open().await;
    for (end, exit) in [("exit 0", Exit::Code(0)), ("exit 7", Exit::Code(7)), ("kill -9 $$", Exit::Signal(9))] {
        let session = sessions.create(sh(&format!("echo ready; read x; {end}"))).await.unwrap();
        let mut glass = Glass::attach(&sessions, from_start(&session)).await;
        glass.until_text("ready").await;
        upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
        glass.type_in(b"\n").await;
        assert_eq!(glass.until_exit().await, exit);
        assert!(home.session_dir(session.id).exit().unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn screen_history_sizes_titles_control_and_writers_are_as_before() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions
        .create(sh("stty -echo; for i in $(seq 1 3000); do echo line $i; done; printf '\\033]2;work\\007\\033[31mred'; read x; printf '<%s>' \"$x\"; read x"))
        .await
        .unwrap();
    let named = AttachRequest { name: "desk".into(), take_control: true, cols: 90, rows: 30, ..from_start(&session) };
    let mut glass = Glass::attach(&sessions, named.clone()).await;
    glass.until_text("red").await;
    let all = AttachRequest { scrollback: 100_000, ..request(&session) };
    let snapshot = |glass: &Glass| glass.snapshot.clone().unwrap().1;
    let mut before = Glass::attach(&sessions, all.clone()).await;
    before.until("a snapshot", |glass| glass.snapshots == 1).await;
    drop(before);

    let other = pretender(&home, "other", r#"{"version": "9.9.9"}"#);
    let status = upgrade(&home, &session, &mut glass, &other).await.unwrap();
    assert_eq!(status.build.version, "9.9.9");
    assert_eq!((status.title.as_str(), status.cols, status.rows), ("work", 90, 30));
    assert_eq!(status.controller.as_deref(), Some("desk"));
    // At once, so that the history is needed before it was loaded.
    let mut first = Glass::attach(&sessions, all.clone()).await;
    first.until("a snapshot", |glass| glass.snapshots == 1).await;
    let screen = happy_screen::Screen::restore(&snapshot(&first), 100_000).unwrap();
    let history = screen.scrollback_len();
    assert!(screen.scrollback_row(0).unwrap().text() == "line 1" && history > 2_900, "{history} rows");
    let texts: Vec<_> = (0..history).map(|row| screen.scrollback_row(row).unwrap().text()).collect();
    assert!(texts.iter().enumerate().all(|(row, text)| *text == format!("line {}", row + 1)));
    assert!(screen.text().ends_with("red"));

    sessions.resize(glass.attached.attachment, 70, 20).await.unwrap();
    glass.until("the size", |glass| glass.size == Some((70, 20))).await;
    glass.type_in(b"typed\n").await;
    glass.until_text("<typed>").await;
    // The writer is known by its offset.
    let again = Glass::attach(&sessions, named).await;
    assert_eq!(again.attached.input_offset, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_take_over_is_refused_and_the_session_is_untouched() {
    let home = Home::new();
    let sessions = home.open().await;
    let session =
        sessions.create(sh("stty -echo; echo ready; while read x; do echo \"<$x>\"; done; exit 5")).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until_text("ready").await;
    let before = home.status(session.id).unwrap();
    let (gone, plain) = (home.path().join("gone"), home.path().join("plain"));
    std::fs::write(&plain, "text").unwrap();
    for (program, why) in [
        (gone, "No such file"),
        (PathBuf::from("/"), "not a file"),
        (plain, "Permission denied"),
        (PathBuf::from("/bin/true"), "not a program that can take over"),
        (PathBuf::from("/usr/bin/yes"), "not a program that can take over"),
        (script(&home, "exits", "#!/bin/sh\nexit 1\n"), "not a program that can take over"),
        (script(&home, "hangs", "#!/bin/sh\nexec sleep 60\n"), "within 5 seconds"),
        (script(&home, "later", "#!/bin/sh\necho happy-handover 2 3\n"), "cannot read what this one would leave"),
        // It says that it can, and cannot be executed: scripts need their descriptor, which is closed by then.
        (pretender(&home, "other", r#"{"reads": "77"}"#), "cannot read what this one would leave"),
        (pretender(&home, "refuses", r#"{"resume": "refuse"}"#), "gave it back"),
        (pretender(&home, "panics", r#"{"resume": "panic"}"#), "gave it back"),
    ] {
        let refused = upgrade(&home, &session, &mut glass, &program).await.unwrap_err();
        assert!(refused.message.contains(why), "{}: {refused}", program.display());
        assert!(refused.message.starts_with("the session stays with its program"), "{refused}");
        let status = home.status(session.id).unwrap();
        assert_eq!((&status.build, status.pid, status.holder), (&before.build, before.pid, before.holder));
        assert_eq!(status.upgrades, 0);
        let name = program.display().to_string();
        glass.type_in(format!("{name}\n").as_bytes()).await;
        glass.until_text(&format!("<{name}>")).await;
    }
    glass.type_in(b"\x04").await;
    assert_eq!(glass.until_exit().await, Exit::Code(5));
    assert!(glass.gaps.is_empty() && glass.snapshots == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paste_goes_on_in_the_next_program() {
    const LENGTH: usize = 5_000_000;
    let home = Home::new();
    let sessions = home.open().await;
    let file = home.path().join("pasted");
    let script = format!("stty raw -echo; echo ready; head -c {LENGTH} > {}; exit 3", file.display());
    let session = sessions.create(sh(&script)).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until_text("ready").await;
    let text: Vec<u8> = (0..LENGTH as u64).map(|at| b'a' + (at.wrapping_mul(2_654_435_761) >> 20) as u8 % 26).collect();
    let Glass { mut sender, mut receiver, .. } = glass;
    let typed = text.clone();
    let typing = tokio::spawn(async move {
        for (index, chunk) in typed.chunks(MAX_CHUNK).enumerate() {
            let offset = (index * MAX_CHUNK) as u64;
            let message = happy_wire::terminal::TerminalMessage::Input { offset, bytes: chunk }.to_vec();
            soon("typing", sender.send(&message)).await.unwrap();
        }
        sender
    });
    let reading = tokio::spawn(async move {
        loop {
            let message = soon("a message", receiver.recv()).await.unwrap().expect("cut off");
            if let Ok(happy_wire::terminal::TerminalMessage::Exited { exit, .. }) =
                happy_wire::terminal::TerminalMessage::decode(&message)
            {
                return exit;
            }
        }
    });
    let mut upgrades = 0;
    while !typing.is_finished() {
        let (socket, request) = (home.socket(session.id), Request::Upgrade { program: this_program() });
        let answer = tokio::task::spawn_blocking(move || ask(&socket, &request)).await.unwrap();
        // It may have ended just now.
        match answer {
            Ok(_) => upgrades += 1,
            Err(refused) => assert!(refused.message.contains("ended"), "{refused}"),
        }
    }
    let _sender = typing.await.unwrap();
    assert_eq!(reading.await.unwrap(), Exit::Code(3));
    assert!(std::fs::read(&file).unwrap() == text, "what was pasted is not what arrived");
    println!("{upgrades} upgrades while {LENGTH} bytes were pasted");
    assert!(upgrades > 0);
}

/// Waits until the holder runs this program and has not taken over yet.
async fn until_executed(holder: u32, program: &Path) {
    let program = program.canonicalize().unwrap();
    soon("the execution", async {
        while std::fs::read_link(format!("/proc/{holder}/exe")).ok().as_ref() != Some(&program) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_in_the_moment_of_the_switch_is_noticed_after_it() {
    let home = Home::new();
    let sessions = home.open().await;
    let slow = pretender(&home, "slow", r#"{"delay_ms": 400}"#);
    for (to_holder, signal_sent, exit) in [
        (false, Signal::KILL, Exit::Signal(9)),
        (false, Signal::USR1, Exit::Code(7)),
        // A termination of the holder hangs the program up.
        (true, Signal::TERM, Exit::Code(6)),
    ] {
        let session = sessions
            .create(sh("trap 'exit 7' USR1; trap 'exit 6' HUP; echo ready; while :; do sleep 0.02; done"))
            .await
            .unwrap();
        let mut glass = Glass::attach(&sessions, lossless(&session)).await;
        glass.until_text("ready").await;
        let status = home.status(session.id).unwrap();
        let (socket, request) = (home.socket(session.id), Request::Upgrade { program: slow.clone() });
        let asked = tokio::task::spawn_blocking(move || ask(&socket, &request));
        until_executed(status.holder, &slow).await;
        signal(if to_holder { status.holder } else { status.pid.unwrap() }, signal_sent);
        assert!(!asked.is_finished(), "the moment is over");
        assert_eq!(glass.until_exit().await, exit);
        assert_eq!(asked.await.unwrap().unwrap().upgrades, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_that_is_due_is_still_due_after_the_switch() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("trap '' HUP TERM; echo ready; while :; do sleep 0.05; done")).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until_text("ready").await;
    sessions.signal(session.id, Signal::HUP, Duration::from_secs(2)).await.unwrap();
    upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
    assert_eq!(glass.until_exit().await, Exit::Signal(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_another_build_upgrades_the_sessions_it_finds_unless_told_not_to() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(sessions.create(sh("cat")).await.unwrap().id);
    }
    drop(sessions);
    let newer = pretender(&home, "newer", r#"{"version": "9.9.9"}"#);
    let mut config = home.config();
    config.holder = vec![newer.into(), "holder".into()];
    let upgrades = || -> Vec<u64> { ids.iter().map(|id| home.status(*id).unwrap().upgrades).collect() };

    let cautious = Sessions::open(config.clone()).await.unwrap();
    assert_eq!(cautious.list().await.len(), 3);
    drop(cautious);
    assert_eq!(upgrades(), [0, 0, 0]);

    config.upgrade = true;
    for _ in 0..2 {
        // The second one finds nothing to do.
        let sessions = Sessions::open(config.clone()).await.unwrap();
        soon("the upgrades", async {
            while upgrades() != [1, 1, 1] {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let created = sessions.create(sh("cat")).await.unwrap();
        assert_eq!(home.status(created.id).unwrap().build.version, "9.9.9");
        sessions.kill(created.id).await.unwrap();
    }
    assert_eq!(upgrades(), [1, 1, 1]);
    assert!(ids.iter().all(|id| home.status(*id).unwrap().build.version == "9.9.9"));
}

/// The daemon that is killed by the next test: it writes what it sees to a file, from where the one before has stopped.
#[tokio::test]
#[ignore = "is run by another test, in a process of its own"]
async fn a_daemon_that_is_killed_again_and_again() {
    let Some(home) = std::env::var_os("HAPPY_TEST_HOME").map(PathBuf::from) else { return };
    let sessions = Sessions::open(config(&home)).await.unwrap();
    let session = sessions.list().await.remove(0);
    let mut seen = std::fs::OpenOptions::new().append(true).open(home.join("seen")).unwrap();
    let from = seen.metadata().unwrap().len();
    let (_, _sender, mut receiver) =
        sessions.attach(AttachRequest { from: Some(from), ..lossless(&session) }).await.unwrap().split();
    while let Some(message) = receiver.recv().await.unwrap() {
        if let happy_wire::terminal::TerminalMessage::Output { bytes, .. } =
            happy_wire::terminal::TerminalMessage::decode(&message).unwrap()
        {
            seen.write_all(bytes).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_are_killed_or_stopped_again_and_again_cost_no_byte_and_type_none() {
    let home = Home::new();
    let sessions = home.open().await;
    let typed = home.path().join("typed");
    let script = format!(
        "stty raw -echo; (i=0; while :; do i=$((i+1)); printf 'out %s\\r\\n' $i; sleep 0.002; done) & cat > {}",
        typed.display()
    );
    let session = sessions.create(sh(&script)).await.unwrap();
    let seen = home.path().join("seen");
    std::fs::write(&seen, "").unwrap();
    drop(sessions);
    let length = || std::fs::metadata(&seen).unwrap().len();

    let mut slowest = Duration::ZERO;
    for _ in 0..rounds() {
        let before = length();
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["upgrade::a_daemon_that_is_killed_again_and_again", "--exact", "--ignored", "--nocapture"])
            .env("HAPPY_TEST_HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        soon("output", async {
            while length() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        slowest = slowest.max(begin.elapsed());
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
    // And in peace.
    for _ in 0..rounds() {
        let begin = Instant::now();
        let sessions = home.open().await;
        let mut glass = Glass::attach(&sessions, AttachRequest { from: Some(length()), ..lossless(&session) }).await;
        glass.until("output", |glass| !glass.output.is_empty()).await;
        slowest = slowest.max(begin.elapsed());
        std::fs::OpenOptions::new().append(true).open(&seen).unwrap().write_all(&glass.output).unwrap();
    }
    println!("{} kills and as many stops; a viewer saw output after {slowest:?} at most", rounds());
    let lines = std::fs::read(&seen).unwrap();
    let whole = lines.iter().rposition(|byte| *byte == b'\n').unwrap();
    assert!(count(&lines[..whole], "out ") > rounds() as usize);

    let sessions = home.open().await;
    let mut glass = Glass::attach(&sessions, request(&session)).await;
    assert_eq!(std::fs::read(&typed).unwrap(), b"", "something was typed into the shell");
    glass.type_in(b"all of it").await;
    soon("what was typed", async {
        while std::fs::read(&typed).unwrap() != b"all of it" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and says something only in a release build"]
async fn how_long_nobody_is_served() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions
        .create(sh("stty -echo; seq -f 'a line of some length that is like others %.0f' 1 250000; echo ready; cat"))
        .await
        .unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until("all of it", |glass| glass.output.ends_with(b"ready\r\n")).await;
    let mut all = Vec::new();
    for _ in 0..rounds() {
        upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
        let status = home.status(session.id).unwrap();
        assert!(status.output_offset - status.kept_from >= 10 << 20);
        all.push(status.blackout_us.unwrap());
    }
    all.sort_unstable();
    println!("blackout in microseconds: median {}, worst {}", all[all.len() / 2], all[all.len() - 1]);
}
