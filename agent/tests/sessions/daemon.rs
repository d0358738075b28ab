//! Daemons come and go; sessions stay.

use std::process::{Command, Stdio};

use happy::holder::spec::{Description, ExitRecord, SessionDir};
use happy::session::{AttachError, AttachRequest, ControlError, Sessions};
use happy_rpc::{Event, SessionCreate, SessionState};
use happy_wire::terminal::Exit;
use rustix::process::Signal;
use uuid::Uuid;

use crate::support::*;

#[tokio::test]
async fn the_next_daemon_finds_what_the_last_one_has_left() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut create = sh("stty -echo; echo ready; read x; echo \"<$x>\"; read x; exit 7");
    create.name = Some("work \x1b[31m".into());
    let session = sessions.create(create).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    drop((sessions, glass));

    let sessions = home.open().await;
    let found = sessions.list().await;
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].id, found[0].name.as_str(), found[0].state),
        (session.id, "work  [31m", SessionState::Running)
    );
    assert_eq!((found[0].pid, found[0].created_at), (session.pid, session.created_at));
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"still here\n").await;
    glass.until_text("<still here>").await;
    assert_eq!(glass.output, b"ready\r\n<still here>\r\n");

    // It ends while nobody looks.
    drop(sessions);
    glass.type_in(b"\n").await;
    assert_eq!(glass.until_exit().await, Exit::Code(7));
    let holder = home.status(session.id).unwrap().holder;
    let sessions = home.open().await;
    assert_eq!(sessions.session(session.id).unwrap().state, SessionState::Exited { code: 7 });

    // Even the holder may go; the exit status is known.
    let mut events = sessions.subscribe();
    signal(holder, Signal::KILL);
    soon("the news", async {
        while !matches!(sessions.attach(request(&session)).await, Err(AttachError::Ended)) {
            events.next().await;
        }
    })
    .await;
    let sessions = home.open().await;
    assert_eq!(sessions.session(session.id).unwrap().state, SessionState::Exited { code: 7 });
    sessions.kill(session.id).await.unwrap();
    assert!(home.open().await.list().await.is_empty());
}

/// The daemon that is killed by the next test.
#[tokio::test]
#[ignore = "is run by another test, in a process of its own"]
async fn a_daemon_that_will_be_killed() {
    let Some(home) = std::env::var_os("HAPPY_TEST_HOME") else { return };
    let sessions = Sessions::open(config(home.as_ref())).await.unwrap();
    let session = sessions.create(sh("read go; for i in $(seq 1 100000); do echo $i; done; exit 7")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"\n").await;
    glass.until("some output", |glass| glass.output.len() > 10_000).await;
    std::fs::write(SessionDir::new(&home).path().join("killme"), glass.output.len().to_string()).unwrap();
    loop {
        glass.next().await;
    }
}

#[tokio::test]
async fn a_daemon_killed_in_the_middle_of_output_costs_no_byte() {
    let home = Home::new();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["daemon::a_daemon_that_will_be_killed", "--exact", "--ignored", "--nocapture"])
        .env("HAPPY_TEST_HOME", home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seen = soon("the daemon to see output", async {
        loop {
            match std::fs::read_to_string(home.path().join("killme")).ok().and_then(|text| text.parse::<usize>().ok()) {
                Some(seen) => return seen,
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
    })
    .await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let sessions = home.open().await;
    let session = sessions.list().await.remove(0);
    let mut glass = Glass::attach(&sessions, AttachRequest { from: Some(seen as u64), ..request(&session) }).await;
    assert_eq!(glass.until_exit().await, Exit::Code(7));
    let wanted: String = (1..=100_000).map(|n| format!("{n}\r\n")).collect();
    assert!(glass.gaps.is_empty());
    assert!(wanted.as_bytes()[seen - 2..] == glass.output[..], "output is lost or doubled");
}

#[tokio::test]
async fn a_holder_that_is_killed_takes_its_session_only_and_it_says_lost() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut events = sessions.subscribe();
    let doomed = sessions.create(sh("echo ready; sleep 600")).await.unwrap();
    let other = sessions.create(sh("cat")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&doomed)).await;
    glass.until_text("ready").await;
    signal(home.status(doomed.id).unwrap().holder, Signal::KILL);
    assert!(matches!(soon("the cut", glass.receiver.recv()).await, Ok(None) | Err(_)));
    assert_eq!(ended(&sessions, &mut events, doomed.id).await, SessionState::Lost);
    assert!(matches!(sessions.attach(request(&doomed)).await, Err(AttachError::Ended)));
    assert!(matches!(
        sessions.signal(doomed.id, Signal::HUP, std::time::Duration::ZERO).await,
        Err(ControlError::HolderGone)
    ));
    assert_eq!(sessions.session(other.id).unwrap().state, SessionState::Running);

    // The next daemon says so too, until the session is forgotten.
    let next = home.open().await;
    assert_eq!(next.session(doomed.id).unwrap().state, SessionState::Lost);
    assert_eq!(next.session(other.id).unwrap().state, SessionState::Running);
    let mut events = next.subscribe();
    next.kill(doomed.id).await.unwrap();
    assert!(matches!(events.next().await, Some(Event::SessionRemoved { session }) if session == doomed.id));
    assert_eq!(next.list().await.len(), 1);
    assert!(!home.session_dir(doomed.id).path().exists());
}

#[tokio::test]
async fn what_lies_around_among_sessions_harms_nobody() {
    let home = Home::new();
    let root = home.path().join("sessions");
    let describe = |id: Uuid, name: &str| {
        let dir = home.session_dir(id);
        dir.create().unwrap();
        let socket = dir.path().join("s");
        let description =
            Description { id, name: name.into(), command: vec![], cwd: "/".into(), created_at: 1, socket, tmux: None };
        dir.write_description(&description).unwrap();
        dir
    };
    std::fs::create_dir_all(root.join("not a session")).unwrap();
    std::fs::create_dir_all(root.join(Uuid::new_v4().to_string())).unwrap();
    std::fs::write(root.join("file"), "x").unwrap();
    let garbled = describe(Uuid::new_v4(), "garbled");
    std::fs::write(garbled.path().join("session.json"), "{").unwrap();
    let old = describe(Uuid::new_v4(), "old");
    old.write_exit(&ExitRecord { state: SessionState::Exited { code: 0 }, offset: 1, bytes_in: 0, at: 1 }).unwrap();
    let lost = describe(Uuid::new_v4(), "lost");
    std::fs::write(lost.path().join("exit.json"), "garbage").unwrap();
    // A holder that says nothing.
    let silent = describe(Uuid::new_v4(), "silent");
    let _listener = std::os::unix::net::UnixListener::bind(silent.path().join("s")).unwrap();

    let sessions = home.open().await;
    let mut found: Vec<_> = sessions.list().await.into_iter().map(|session| (session.name, session.state)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [("lost".into(), SessionState::Lost), ("silent".into(), SessionState::Lost)]);
    assert!(!old.path().exists() && !garbled.path().exists() && root.join("not a session").exists());
    sessions.create(sh("true")).await.unwrap();
}

#[tokio::test]
async fn a_home_too_deep_for_a_socket_works() {
    let home = Home::below(&"deep/".repeat(40));
    let sessions = home.open().await;
    let session = sessions.create(SessionCreate { command: vec!["cat".into()], ..Default::default() }).await.unwrap();
    drop(sessions);
    let sessions = home.open().await;
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"\x04").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    let socket = home.socket(session.id);
    assert!(socket.exists());
    sessions.kill(session.id).await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_subscriber_that_does_not_listen_is_told_to_list_again() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut slow = sessions.subscribe();
    let session = sessions.create(sh("cat")).await.unwrap();
    let glass = Glass::attach(&sessions, AttachRequest { take_control: true, ..from_start(&session) }).await;
    for step in 0..300u16 {
        sessions.resize(glass.attached.attachment, 100 + step, 24).await.unwrap();
    }
    assert_eq!(soon("an event", slow.next()).await, Some(Event::ListAgain {}));
    assert!(matches!(soon("an event", slow.next()).await, Some(Event::SessionChanged(_))));
    drop((sessions, glass));
    soon("the end of events", async { while slow.next().await.is_some() {} }).await;
}
