//! How sessions begin and end.

use happy::holder::spec::StartError;
use happy::session::{ControlError, CreateError};
use happy_rpc::{CallError, ErrorCode, Event, SessionCreate, SessionState};
use happy_wire::terminal::Exit;
use rustix::process::Signal;
use std::time::Duration;

use crate::support::*;

#[tokio::test]
async fn a_program_runs_in_its_terminal_and_its_exit_code_is_told() {
    let home = Home::new();
    let sessions = home.open().await;
    for (script, exit, state) in [
        ("echo one; exit 0", Exit::Code(0), SessionState::Exited { code: 0 }),
        ("echo one; exit 7", Exit::Code(7), SessionState::Exited { code: 7 }),
        ("echo one; kill -9 $$", Exit::Signal(9), SessionState::Killed { signal: 9 }),
        // A child that stays behind keeps the terminal open, and does not keep the end from being told.
        ("echo one; (trap '' HUP; exec sleep 600) & exit 3", Exit::Code(3), SessionState::Exited { code: 3 }),
        // A program that lets go of its terminal has not ended.
        (
            "echo one; exec </dev/null >/dev/null 2>&1; sleep 0.3; exit 4",
            Exit::Code(4),
            SessionState::Exited { code: 4 },
        ),
    ] {
        let mut events = sessions.subscribe();
        let session = sessions.create(sh(script)).await.unwrap();
        assert!(matches!(events.next().await, Some(Event::SessionChanged(told)) if told.id == session.id));
        let mut glass = Glass::attach(&sessions, from_start(&session)).await;
        assert_eq!(glass.until_exit().await, exit, "{script}");
        assert_eq!(glass.output, b"one\r\n", "{script}");
        assert_eq!(ended(&sessions, &mut events, session.id).await, state, "{script}");
        let record = home.session_dir(session.id).exit().unwrap().unwrap();
        assert_eq!((record.state, record.offset), (state, 5), "{script}");

        // The last screen is there until it is forgotten.
        let mut late = Glass::attach(&sessions, request(&session)).await;
        assert_eq!(late.until_exit().await, exit);
        assert_eq!(late.snapshots, 1);
        sessions.kill(session.id).await.unwrap();
        assert!(sessions.list().await.is_empty());
        assert!(!home.session_dir(session.id).path().exists());
        assert!(matches!(sessions.kill(session.id).await, Err(ControlError::NoSession)));
    }
}

#[tokio::test]
async fn the_default_is_the_login_shell_with_a_terminal_environment() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(SessionCreate { cols: 91, rows: 33, ..Default::default() }).await.unwrap();
    assert_eq!(session.name, "sh");
    assert_eq!((session.cols, session.rows), (91, 33));
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"echo \"<$0|$TERM|$COLORTERM|$HAPPY_SESSION|$(stty size)|$PWD|$LINES>\"\n").await;
    let wanted = format!("<-sh|xterm-256color|truecolor|{}|33 91|/|>", session.id);
    glass.until_text(&wanted).await;
    glass.type_in(b"exit 5\n").await;
    assert_eq!(glass.until_exit().await, Exit::Code(5));
}

#[tokio::test]
async fn the_environment_of_the_creator_is_the_programs_and_stays_nowhere_else() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut create = sh("echo \"$CANARY:$LINES\"; sleep 600");
    let env = [("CANARY", "secret-canary"), ("PATH", "/usr/bin:/bin"), ("LINES", "5")];
    create.env = Some(env.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let session = sessions.create(create).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("secret-canary:\r\n").await;
    let holder = home.status(session.id).unwrap().holder;
    for file in ["cmdline", "environ"] {
        let bytes = std::fs::read(format!("/proc/{holder}/{file}")).unwrap_or_default();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "/proc/…/{file} of the holder tells secrets");
    }
    for entry in std::fs::read_dir(home.session_dir(session.id).path()).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            assert!(!text.contains("secret-canary"), "{} tells secrets", entry.path().display());
        }
    }
}

#[tokio::test]
async fn what_cannot_be_started_says_why_and_leaves_nothing() {
    let home = Home::new();
    let sessions = home.open().await;
    let command = |program: &str| SessionCreate { command: vec![program.into()], ..Default::default() };
    let at = |cwd: &str| SessionCreate { cwd: Some(cwd.into()), ..command("true") };
    for (create, wanted, code) in [
        (command("no-such-command"), "no command `no-such-command`", ErrorCode::NotFound),
        (command("/etc/hostname"), "cannot be run", ErrorCode::NotPermitted),
        (at("/no/such/dir"), "/no/such/dir does not exist", ErrorCode::NotFound),
        (at("/etc/hostname"), "not a directory", ErrorCode::NotPermitted),
        (command(""), "the command is empty", ErrorCode::Malformed),
        (command("a\0b"), "zero byte", ErrorCode::Malformed),
    ] {
        let error = CallError::from(sessions.create(create).await.unwrap_err());
        assert!(error.message.contains(wanted), "{error:?}");
        assert_eq!(error.code, code, "{error:?}");
    }
    assert!(sessions.list().await.is_empty());
    assert_eq!(std::fs::read_dir(home.path().join("sessions")).unwrap().count(), 0);

    let mut config = home.config();
    config.holder = vec!["/bin/true".into()];
    let broken = happy::session::Sessions::open(config.clone()).await.unwrap();
    assert!(matches!(broken.create(command("true")).await, Err(CreateError::Died)));
    config.holder = vec!["/no/such/binary".into()];
    let broken = happy::session::Sessions::open(config).await.unwrap();
    assert!(matches!(broken.create(command("true")).await, Err(CreateError::Spawn(_))));
    let missing = sessions.create(command("no-such-command")).await;
    assert!(matches!(missing, Err(CreateError::Start(StartError::CommandNotFound(_)))));
}

#[tokio::test]
async fn a_kill_reaches_the_whole_foreground_and_does_not_ask_twice() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut events = sessions.subscribe();

    let polite =
        sessions.create(sh("trap 'echo bye; exit 0' HUP; echo ready; while :; do sleep 0.05; done")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&polite)).await;
    glass.until_text("ready").await;
    sessions.kill(polite.id).await.unwrap();
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    assert!(glass.shows("bye"));

    let deaf = sessions.create(sh("trap '' HUP TERM; echo ready; while :; do sleep 0.05; done")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&deaf)).await;
    glass.until_text("ready").await;
    sessions.signal(deaf.id, Signal::HUP, Duration::from_millis(300)).await.unwrap();
    assert_eq!(glass.until_exit().await, Exit::Signal(9));
    assert_eq!(ended(&sessions, &mut events, deaf.id).await, SessionState::Killed { signal: 9 });

    // An interactive shell puts what it runs into a group of its own.
    let shell = sessions
        .create(SessionCreate { command: vec!["/bin/sh".into(), "-i".into()], ..Default::default() })
        .await
        .unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&shell)).await;
    glass
        .type_in(b"sh -c 'trap \"echo child got it; exit\" INT; echo child''ready; while :; do sleep 0.05; done'\n")
        .await;
    glass.until_text("childready").await;
    sessions.signal(shell.id, Signal::INT, Duration::ZERO).await.unwrap();
    glass.until_text("child got it").await;
    glass.type_in(b"exit 9\n").await;
    assert_eq!(glass.until_exit().await, Exit::Code(9));
}

#[tokio::test]
async fn a_running_session_is_not_forgotten() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("sleep 600")).await.unwrap();
    assert!(matches!(sessions.forget(session.id).await, Err(ControlError::Refused(_))));
    assert_eq!(sessions.list().await.len(), 1);
    assert!(home.status(session.id).is_some());
}

#[tokio::test]
async fn a_machine_that_shuts_down_hangs_up_and_records_the_end() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("trap 'exit 6' HUP; echo ready; while :; do sleep 0.05; done")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    signal(home.status(session.id).unwrap().holder, Signal::TERM);
    assert_eq!(glass.until_exit().await, Exit::Code(6));
    let record = home.session_dir(session.id).exit().unwrap().unwrap();
    assert_eq!(record.state, SessionState::Exited { code: 6 });
}
