//! Recordings: all that was printed, nothing that was typed, and a whole file whatever happens.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use happy::holder::recording::LIMITS;
use happy::session::{Config, ControlError, Sessions};
use happy_cast::{Event, Reader, Timed};
use happy_rpc::{RecordOptions, Recording, Session, SessionCreate, SessionState};
use happy_screen::Screen;
use happy_wire::terminal::Exit;
use rustix::process::Signal;
use uuid::Uuid;

use crate::support::*;
use crate::upgrade::{count, lossless, this_program, upgrade};

fn events_of(bytes: &[u8]) -> Vec<Timed> {
    let mut reader = Reader::new(bytes).unwrap();
    std::iter::from_fn(|| reader.next_event().unwrap()).collect()
}

fn events(path: &Path) -> Vec<Timed> {
    events_of(&std::fs::read(path).unwrap())
}

fn printed(path: &Path) -> String {
    let text =
        events(path).into_iter().map(|timed| if let Event::Output(text) = timed.event { text } else { "".into() });
    text.collect()
}

/// What a player shows at the end.
fn last_screen(path: &Path) -> Screen {
    let bytes = std::fs::read(path).unwrap();
    let header = Reader::new(&bytes[..]).unwrap().header().clone();
    let mut screen = Screen::new(header.cols, header.rows, 0);
    for timed in events(path) {
        match timed.event {
            Event::Output(text) => drop(screen.feed(text.as_bytes())),
            Event::Resize(cols, rows) => screen.resize(cols, rows),
            Event::Mark(_) | Event::Exit(_) => {}
        }
    }
    screen
}

/// What the session shows.
async fn screen(sessions: &Sessions, session: &Session) -> Screen {
    let mut glass = Glass::attach(sessions, request(session)).await;
    glass.until("a snapshot", |glass| glass.snapshots == 1).await;
    Screen::restore(&glass.snapshot.as_ref().unwrap().1, 1_000).unwrap()
}

#[track_caller]
fn assert_same(one: &Screen, other: &Screen) {
    assert_eq!(one.size(), other.size());
    for row in 0..one.size().1 {
        assert_eq!(one.row(row).runs, other.row(row).runs, "row {row} of\n{}", other.text());
    }
    assert_eq!((one.cursor(), one.modes(), one.title()), (other.cursor(), other.modes(), other.title()));
}

fn to(path: &Path) -> RecordOptions {
    RecordOptions { to: Some(path.to_owned()), limit: None }
}

fn recorded(create: SessionCreate, path: &Path) -> SessionCreate {
    SessionCreate { record: Some(to(path)), ..create }
}

fn recording(sessions: &Sessions, id: Uuid) -> Option<Recording> {
    sessions.session(id).unwrap().recording
}

async fn until_recorded(path: &Path, text: &str) {
    soon(&format!("{text:?} in the recording"), async {
        while !printed(path).contains(text) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Waits until the recording of a session has ended, and says why.
async fn until_not_recorded(sessions: &Sessions, id: Uuid) -> String {
    soon("the end of the recording", async {
        loop {
            sessions.list().await;
            if let Some(why) = recording(sessions, id).and_then(|recording| recording.ended) {
                return why;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_plays_to_the_same_screen_and_says_how_it_ended() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let script = "printf 'plain \\033[1;31mred\\033[0m 界 \\351 gr\\303'; sleep 0.3; printf '\\274n\\n\\033]2;title\\007'; exit 7";
    let session = sessions.create(recorded(sh(script), &path)).await.unwrap();
    assert_eq!(session.recording.as_ref().map(|recording| &recording.file), Some(&path));
    assert!(session.recording.as_ref().is_some_and(Recording::is_on));
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    assert_eq!(glass.until_exit().await, Exit::Code(7));
    assert_eq!(until_not_recorded(&sessions, session.id).await, "the program has ended");

    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(printed(&path), "plain \x1b[1;31mred\x1b[0m 界 \u{fffd} grün\r\n\x1b]2;title\x07");
    assert_same(&last_screen(&path), &screen(&sessions, &session).await);
    let events = events(&path);
    assert_eq!(events.last().unwrap().event, Event::Exit("7".into()));
    assert!(events.last().unwrap().at >= Duration::from_millis(300), "the times are not those of the program");
    assert!(matches!(sessions.record(session.id, to(&home.path().join("b"))).await, Err(ControlError::Refused(_))));
    assert!(!home.path().join("b").exists());

    // In a session of its own, the program itself is what plays it; the shell says that it left the terminal as it was.
    let play = format!(
        "before=$(stty -g); {} play --speed 1000 {}; [ \"$before\" = \"$(stty -g)\" ] && echo the same",
        this_program().display(),
        path.display()
    );
    let player = sessions.create(sh(&play)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&player)).await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    let shown = screen(&sessions, &player).await;
    // Where it was as large as the terminal, its first rows go up with the next prompt.
    let history = (0..shown.scrollback_len()).filter_map(|row| shown.scrollback_row(row));
    let row = history.chain((0..24).map(|row| shown.row(row))).find(|row| row.text().contains("red")).unwrap();
    assert_eq!(row.runs, last_screen(&path).row(0).runs);
    assert!(shown.text().contains("the same") && shown.title().is_empty(), "{}", shown.text());
    assert_eq!(*shown.modes(), happy_screen::Modes::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_begins_with_the_screen_as_it_is_in_the_middle_of_whatever() {
    let home = Home::new();
    let sessions = home.open().await;
    for (index, (before, after, alternate)) in [
        ("one\\r\\ntwo \\033[31mred", " more\\r\\n", false),
        ("gone\\033[2J\\033[3;7Hx\\033[3", "2mgreen\\033[K\\r\\n", false),
        ("shell\\033[?1049h\\033[2;5r\\033[H\\033[44mfull gr\\303", "\\274n\\033[5;1H\\n\\033[0mend", true),
        ("a\\033]2;ti", "tle\\007b", false),
    ]
    .into_iter()
    .enumerate()
    {
        let script = format!("stty -echo -opost; printf '{before}'; read x; printf '{after}'; read x; exit 0");
        let session = sessions.create(sh(&script)).await.unwrap();
        let mut glass = Glass::attach(&sessions, from_start(&session)).await;
        let length = Command::new("printf").arg(before).output().unwrap().stdout.len() as u64;
        glass.until("all of it", |glass| glass.offset == Some(length)).await;
        let path = home.path().join(format!("{index}.cast"));
        let begun = sessions.record(session.id, to(&path)).await.unwrap();
        assert!(begun.recording.unwrap().is_on());
        glass.type_in(b"\n").await;
        let length = length + Command::new("printf").arg(after).output().unwrap().stdout.len() as u64;
        glass.until("the rest", |glass| glass.offset == Some(length)).await;
        let now = screen(&sessions, &session).await;
        assert_eq!(now.modes().alternate_screen, alternate);
        let stopped = sessions.stop_recording(session.id).await.unwrap();
        assert_eq!(stopped.recording, None);
        assert_same(&last_screen(&path), &now);
        // It may be recorded again, and once only at a time.
        let again = home.path().join(format!("{index}-again.cast"));
        sessions.record(session.id, to(&again)).await.unwrap();
        let refused = sessions.record(session.id, to(&home.path().join("third.cast"))).await.unwrap_err();
        assert!(refused.to_string().contains("already"), "{refused}");
        glass.type_in(b"\n").await;
        assert_eq!(glass.until_exit().await, Exit::Code(0));
        assert_same(&last_screen(&again), &now);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_recorded_where_they_change() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let script = "stty -echo; echo ready; while read x; do stty size; done";
    let session = sessions.create(recorded(sh(script), &path)).await.unwrap();
    let mut glass =
        Glass::attach(&sessions, happy::session::AttachRequest { take_control: true, ..from_start(&session) }).await;
    glass.until_text("ready").await;
    for (cols, rows) in [(100, 30), (40, 10), (90, 25)] {
        sessions.resize(glass.attached.attachment, cols, rows).await.unwrap();
        glass.type_in(b"\n").await;
        glass.until_text(&format!("{rows} {cols}")).await;
    }
    let now = screen(&sessions, &session).await;
    sessions.stop_recording(session.id).await.unwrap();
    assert_same(&last_screen(&path), &now);
    let all: Vec<Event> = events(&path).into_iter().map(|timed| timed.event).collect();
    let output = |text: &str| Event::Output(text.into());
    let wanted = [
        output("ready\r\n"),
        Event::Resize(100, 30),
        output("30 100\r\n"),
        Event::Resize(40, 10),
        output("10 40\r\n"),
        Event::Resize(90, 25),
        output("25 90\r\n"),
    ];
    assert_eq!(all, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_is_never_recorded() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let script = "stty -echo; printf 'Password: '; read secret; stty echo; echo; echo ${#secret}; read shown; exit 0";
    let session = sessions.create(recorded(sh(script), &path)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("Password: ").await;
    glass.type_in(b"correct horse battery\n").await;
    glass.until_text("21").await;
    glass.type_in(b"what is echoed\n").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains("horse") && !text.contains("\"i\""), "{text}");
    assert_eq!(printed(&path), "Password: \r\n21\r\nwhat is echoed\r\n");
}

/// Every line is an event, or a comment, which may be cut off where the file ends.
#[track_caller]
fn check_lines(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut lines = text.split_inclusive('\n').skip(1);
    assert!(lines.all(|line| line.starts_with('#') || (line.starts_with('[') && line.ends_with("]\n"))), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_in_a_flood_leaves_a_whole_recording() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut lines = Vec::new();
    for round in 0..12u64 {
        let path = home.path().join(format!("{round}.cast"));
        let script = "stty raw -echo; i=0; while :; do i=$((i+1)); printf 'out %d\\r\\n' $i; done";
        let session = sessions.create(recorded(sh(script), &path)).await.unwrap();
        let holder = home.status(session.id).unwrap().holder;
        // Somewhere after some has been written.
        until_recorded(&path, "out ").await;
        tokio::time::sleep(Duration::from_micros(round * 17_301 % 100_000)).await;
        signal(holder, Signal::KILL);
        soon("the end", async {
            while sessions.session(session.id).unwrap().state == SessionState::Running {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        let why = recording(&sessions, session.id).and_then(|recording| recording.ended);
        assert_eq!(why.as_deref(), Some("the session's process has ended"));
        check_lines(&std::fs::read(&path).unwrap());
        let text = printed(&path);
        let whole = text.rfind('\n').unwrap();
        lines.push(count(&text.as_bytes()[..whole], "out "));
    }
    assert!(lines.iter().all(|lines| *lines > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_goes_on_as_another_program_goes_on_with_its_recording() {
    let home = Home::new();
    let sessions = home.open().await;
    let (path, stop) = (home.path().join("a.cast"), home.path().join("stop"));
    // Characters of two and three bytes, so that the switch comes within some.
    let script = format!(
        "stty -echo; echo ready; i=0; while [ ! -e {} ]; do i=$((i+1)); echo \"out $i\"; echo 'ü界ü界ü界ü界'; done; exit 3",
        stop.display()
    );
    let session = sessions.create(recorded(sh(&script), &path)).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until_text("ready").await;
    for round in 1..=20u64 {
        let status = upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
        assert_eq!((status.upgrades, status.recording.unwrap().ended), (round, None));
    }
    std::fs::write(&stop, "").unwrap();
    assert_eq!(glass.until_exit().await, Exit::Code(3));
    assert!(printed(&path).as_bytes() == glass.output, "something is lost, doubled or out of order");
    assert!(count(&glass.output, "out ") > 500);
    check_lines(&std::fs::read(&path).unwrap());
    let events = events(&path);
    assert_eq!(events.last().unwrap().event, Event::Exit("3".into()));
    assert_eq!(std::fs::read_to_string(&path).unwrap().matches("\"version\"").count(), 1);

    // A recording that has ended is still told of afterwards.
    let session = sessions.create(sh("echo ready; cat")).await.unwrap();
    let path = home.path().join("b.cast");
    sessions.record(session.id, to(&path)).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until_text("ready").await;
    until_recorded(&path, "ready").await;
    std::fs::remove_file(&path).unwrap();
    glass.type_in(b"x\n").await;
    let why = until_not_recorded(&sessions, session.id).await;
    let status = upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
    assert_eq!((status.recording.unwrap().ended, status.upgrades), (Some(why), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_on_without_a_daemon_and_the_next_one_knows_of_it() {
    let home = Home::new();
    let sessions = home.open().await;
    let flag = home.path().join("flag");
    let script = format!("echo one; while [ ! -e {0} ]; do sleep 0.01; done; echo two; cat", flag.display());
    let session = sessions.create(SessionCreate { name: Some("my/work".into()), ..sh(&script) }).await.unwrap();
    let recorded = sessions.record(session.id, RecordOptions::default()).await.unwrap().recording.unwrap();
    let folder = home.path().join("recordings");
    assert_eq!(recorded.file.parent(), Some(&*folder));
    assert_eq!(folder.metadata().unwrap().mode() & 0o777, 0o700);
    let name = recorded.file.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("my-work-2") && name.ends_with(&format!("-{}.cast", &session.id.to_string()[..8])),
        "{name}"
    );
    drop(sessions);
    std::fs::write(&flag, "").unwrap();
    until_recorded(&recorded.file, "two").await;
    let sessions = home.open().await;
    assert_eq!(recording(&sessions, session.id), Some(recorded));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_overwritten_no_link_is_followed_and_the_session_goes_on() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("stty -echo; echo ready; cat")).await.unwrap();
    let (file, link) = (home.path().join("file"), home.path().join("link"));
    std::fs::write(&file, "mine").unwrap();
    std::os::unix::fs::symlink(home.path().join("nowhere"), &link).unwrap();
    let missing = home.path().join("no/such/folder.cast");
    for (path, why) in [
        (&file, "nothing is overwritten"),
        (&link, "nothing is overwritten"),
        (&missing, "no such file"),
        (&PathBuf::from("relative"), "whole path"),
        (&PathBuf::from("/proc/self/x"), "cannot be made"),
    ] {
        let refused = sessions.record(session.id, to(path)).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        assert_eq!(recording(&sessions, session.id), None);
        let refused = sessions.create(recorded(sh("touch /tmp/never"), path)).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
    assert!(!home.path().join("nowhere").exists());
    assert_eq!(sessions.list().await.len(), 1);
    // No recording stays of a program that could not be started.
    let none = home.path().join("none.cast");
    let create = SessionCreate { command: vec!["/no/such/program".into()], ..sh("") };
    assert!(sessions.create(recorded(create, &none)).await.is_err() && !none.exists());
    let refused = sessions.stop_recording(session.id).await.unwrap_err();
    assert!(refused.to_string().contains("not recorded"), "{refused}");
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    glass.type_in(b"still there\n").await;
    glass.until_text("still there").await;
}

/// Fills the recording's disk, and looks how that ends.
async fn fill(sessions: &Sessions, path: &Path, why: &str) {
    let script = "stty -echo; seq 1 400000; echo done; read x; echo \"<$x>\"; cat";
    let session = sessions.create(recorded(sh(script), path)).await.unwrap();
    let mut glass = Glass::attach(sessions, lossless(&session)).await;
    assert_eq!(
        until_not_recorded_while(sessions, &mut glass, session.id).await,
        format!("its file cannot be written: {why}")
    );
    glass.until("all of it", |glass| glass.output.ends_with(b"done\r\n")).await;
    glass.type_in(b"typed\n").await;
    glass.until("an answer", |glass| glass.output.ends_with(b"<typed>\r\n")).await;
    check_lines(&std::fs::read(path).unwrap());
    let text = printed(path);
    let whole = text.rfind('\n').unwrap();
    let lines =
        text[..whole].lines().enumerate().map(|(n, line)| assert_eq!(line.trim_end(), (n + 1).to_string())).count();
    assert!(lines > 10_000, "{lines}");
    assert!(text.len() < glass.output.len());
    sessions.kill(session.id).await.unwrap();
}

async fn until_not_recorded_while(sessions: &Sessions, glass: &mut Glass, id: Uuid) -> String {
    let ended = until_not_recorded(sessions, id);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            why = &mut ended => return why,
            () = glass.next() => {}
        }
    }
}

/// A file system of its own, as long as it lives.
struct Disk(PathBuf);

impl Disk {
    /// `None` when that is not permitted.
    fn mount(path: &Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output().ok()?;
        mounted.status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a holder may still have a file in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_recording_ends_with_a_reason_and_the_session_goes_on() {
    let home = Home::new();
    let sessions = home.open().await;
    let Some(disk) = Disk::mount(&home.path().join("disk"), "size=1m") else {
        println!("not permitted to mount a small disk; the limit on the size of files stands in for it");
        return;
    };
    fill(&sessions, &disk.0.join("a.cast"), "no space left on device").await;
    // Nor does one begin there.
    let session = sessions.create(sh("cat")).await.unwrap();
    std::fs::write(disk.0.join("rest"), vec![0; 1 << 20]).unwrap_err();
    let refused = sessions.record(session.id, to(&disk.0.join("b.cast"))).await.unwrap_err().to_string();
    assert!(refused.contains("no space left"), "{refused}");
    assert!(!disk.0.join("b.cast").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_limit_on_the_size_of_files_the_recording_ends_with_a_reason_and_the_session_goes_on() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_happy");
    // Blocks of 512 bytes.
    let holder = ["/bin/sh", "-c", "ulimit -f 2000; exec \"$0\" holder \"$@\"", program];
    let sessions = Sessions::open(Config { holder: holder.map(Into::into).into(), ..home.config() }).await.unwrap();
    fill(&sessions, &home.path().join("a.cast"), "file too large").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_own_limit_a_recording_ends_and_says_so_in_the_file_too() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let limit = *LIMITS.start();
    let record = Some(RecordOptions { to: Some(path.clone()), limit: Some(limit) });
    let session =
        sessions.create(SessionCreate { record, ..sh("yes | head -c 3000000; echo done; cat") }).await.unwrap();
    let mut glass = Glass::attach(&sessions, lossless(&session)).await;
    glass.until("all of it", |glass| glass.output.ends_with(b"done\r\n")).await;
    assert!(until_not_recorded(&sessions, session.id).await.contains("its limit of 1048576 bytes is reached"));
    assert!(path.metadata().unwrap().len() <= limit);
    assert!(matches!(&events(&path).last().unwrap().event, Event::Mark(why) if why.contains("limit")));
    // It can be begun anew.
    let again = home.path().join("b.cast");
    assert!(sessions.record(session.id, to(&again)).await.unwrap().recording.unwrap().is_on());
}

/// How often a process has waited.
fn waits(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_that_prints_nothing_wakes_nobody() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let session = sessions.create(recorded(sh("echo ready; exec sleep 1000"), &path)).await.unwrap();
    let holder = home.status(session.id).unwrap().holder;
    until_recorded(&path, "ready").await;
    let mut before = waits(holder);
    // What is still going on from the beginning is over some time; a timer would go on.
    soon("a holder that sleeps", async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = waits(holder);
            if now == before {
                return;
            }
            before = now;
        }
    })
    .await;
}

/// Runs the player without a terminal.
fn play(args: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happy"));
    command.arg("play").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writing = std::thread::spawn(move || {
        // It may have refused by then.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    (output.status.code().unwrap_or(-1), output.stdout, String::from_utf8(output.stderr).unwrap())
}

const HEAD: &str = "{\"version\": 3, \"term\": {\"cols\": 80, \"rows\": 24}}\n";

#[test]
fn in_a_pipe_the_player_writes_what_was_printed_and_refuses_what_is_broken_with_its_line() {
    let cast =
        format!("{HEAD}[0.01, \"o\", \"\\u001b[31mred\\r\\n\"]\n# no\n[9999, \"o\", \"end\"]\n[0, \"x\", \"0\"]\n");
    let (code, out, err) = play(&["--idle-limit", "0.01", "-"], cast.as_bytes());
    assert_eq!((code, &out[..], err.as_str()), (0, &b"\x1b[31mred\r\nend"[..], ""));
    for (broken, why) in [
        ("".to_owned(), "line 1 is not"),
        ("not json\n".to_owned(), "line 1 is not"),
        (format!("{HEAD}[0, \"o\", \"a\"]\n[0, \"o\"\n"), "line 3 is no event"),
        (format!("{HEAD}[0, \"o\", \"a\"]\n\n[0, \"o\", \"a"), "line 4 is cut off"),
        (format!("{HEAD}[0, \"o\", \"{}\"]\n", "x".repeat(5 << 20)), "line 2 has more than 4 MiB"),
        (format!("{HEAD}[0, {}", "[".repeat(100_000)), "line 2"),
    ] {
        let (code, _, err) = play(&["-"], broken.as_bytes());
        assert_eq!(code, 1, "{err}");
        assert!(err.contains(why) && !err.contains("panicked"), "{err}");
    }
    let (code, _, err) = play(&["/no/such.cast"], b"");
    assert!(code == 1 && err.contains("no such file"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_recording_reaches_neither_clipboard_nor_keyboard_and_can_be_left() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("hostile.cast");
    // A clipboard, a title, questions, mouse, all keys as sequences, no cursor, a scrolling region, a wait for years; and larger than the terminal.
    let hostile = "\\u001b]52;c;cm0gLXJm\\u0007\\u001b]2;gotcha\\u0007\\u001b[6n\\u001b[c\\u001b[?1003h\\u001b[?1006h\\u001b[>31u\\u001b[=31u\\u001b[?2004h\\u001b[?25l\\u001b[2;3r\\u001b[?1049h\\u001b[8;900;900t\\u001bP+q544e\\u001b\\\\ shown\\u001b(0";
    let cast = format!("{HEAD}[0, \"r\", \"1000x1000\"]\n[0, \"o\", \"{hostile}\"]\n[1e9, \"o\", \"never\"]\n")
        .replace("\"cols\": 80", "\"cols\": 65535");
    std::fs::write(&path, cast).unwrap();
    for key in [&b"q"[..], b"\x03"] {
        let script =
            format!("{} play {}; echo code $?; stty -a | grep -o ' echo '", this_program().display(), path.display());
        let player = sessions.create(sh(&script)).await.unwrap();
        let mut glass = Glass::attach(&sessions, from_start(&player)).await;
        glass.until_text("hown").await;
        glass.type_in(key).await;
        assert_eq!(glass.until_exit().await, Exit::Code(0));
        let output = String::from_utf8_lossy(&glass.output).into_owned();
        assert!(output.contains("code 0\r\n echo "), "{output}");
        for sequence in
            ["]52;", "gotcha", "[6n", "[c", "1003h", "1006h", "[>31u", "[=31u", "2004h", "[8;900", "P+q", "1049h"]
        {
            assert!(!output.contains(sequence), "{sequence} in {output:?}");
        }
        assert_eq!(*screen(&sessions, &player).await.modes(), happy_screen::Modes::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_stands_still_goes_step_by_step_and_on() {
    let home = Home::new();
    let sessions = home.open().await;
    let path = home.path().join("a.cast");
    let lines: String = (1..=5).map(|n| format!("[1000, \"o\", \"event {n}\\r\\n\"]\n")).collect();
    std::fs::write(&path, format!("{HEAD}[0, \"o\", \"begin\\r\\n\"]\n{lines}[0.1, \"o\", \"last\\r\\n\"]\n")).unwrap();
    let script = format!("{} play {}", this_program().display(), path.display());
    let player = sessions.create(sh(&script)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&player)).await;
    glass.until_text("begin").await;
    glass.type_in(b" ").await;
    glass.until_text("paused").await;
    for n in 1..=5 {
        assert!(!glass.shows(&format!("event {n}")));
        glass.type_in(b".").await;
        glass.until_text(&format!("event {n}")).await;
    }
    assert!(!glass.shows("last"));
    glass.type_in(b" ").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    let shown = screen(&sessions, &player).await;
    assert!(shown.text().contains("last") && !shown.text().contains("paused"), "{}", shown.text());
}
