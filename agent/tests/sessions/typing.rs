//! From the viewer to the program.

use happy::holder::protocol::refusal;
use happy::session::ViewerError;
use happy_wire::terminal::Exit;
use uuid::Uuid;

use crate::support::*;
use crate::upgrade::{this_program, upgrade};

#[tokio::test]
async fn what_is_typed_is_echoed_and_acknowledged() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"hello\n").await;
    glass.until_text("hello\r\nhello\r\n").await;
    glass.until("the acknowledgement", |glass| glass.taken == 6).await;
    glass.type_in(b"\x04").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    assert_eq!(glass.output, b"hello\r\nhello\r\n");
}

#[tokio::test]
async fn input_is_typed_once_however_often_it_is_sent() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("stty -echo; echo ready; cat")).await.unwrap();
    let writer = Uuid::new_v4();
    let again = || happy::session::AttachRequest { writer, ..from_start(&session) };
    let mut glass = Glass::attach(&sessions, again()).await;
    glass.until_text("ready").await;
    glass.type_at(0, b"one\n").await;
    glass.type_at(0, b"one\n").await;
    glass.type_at(2, b"e\ntwo\n").await;
    glass.until_text("one\r\ntwo\r\n").await;
    glass.until("the acknowledgement", |glass| glass.taken == 8).await;
    drop(glass);

    // Back again, it sends what it does not know to have arrived.
    let mut glass = Glass::attach(&sessions, again()).await;
    assert_eq!(glass.attached.input_offset, 8);
    glass.type_at(4, b"two\nthree\n").await;
    glass.until_text("three\r\n").await;
    assert_eq!(glass.output, b"ready\r\none\r\ntwo\r\nthree\r\n");

    // A gap would be a key that nobody pressed: refused, and nobody else is harmed.
    let mut other = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_at(99, b"x\n").await;
    match glass.cut_off().await {
        Some(ViewerError::Refused(refused)) => assert_eq!(refused.code, refusal::MALFORMED),
        other => panic!("{other:?}"),
    }
    other.type_in(b"four\n").await;
    other.until_text("three\r\nfour\r\n").await;
    assert!(!other.shows("x"));
}

#[tokio::test]
async fn a_large_paste_into_a_program_that_prints_it_back_does_not_lock_up() {
    let home = Home::new();
    let sessions = home.open().await;
    // Both directions are full all the time: the terminal's echo, and the program's own output.
    let session = sessions.create(sh("echo ready; cat | cksum; echo done")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    let line = [&[b'x'; 79][..], b"\n"].concat();
    let paste: Vec<u8> = line.iter().copied().cycle().take(80 * 13_108).collect();
    assert!(paste.len() > 1024 * 1024);
    let mut sent = 0;
    while sent < paste.len() {
        let piece = &paste[sent..(sent + 30_000).min(paste.len())];
        let message = happy_wire::terminal::TerminalMessage::Input { offset: sent as u64, bytes: piece }.to_vec();
        // The viewer does not read meanwhile: what it typed arrives all the same, bounded by the sockets and the program.
        tokio::select! {
            outcome = glass.sender.send(&message) => { outcome.unwrap(); }
            () = async { tokio::time::sleep(DEADLINE).await } => panic!("the paste is stuck at {sent}"),
        }
        sent += piece.len();
    }
    glass.typed = paste.len() as u64;
    glass.type_in(b"\x04").await;
    let output = std::process::Command::new("sh")
        .args(["-c", "cksum"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), &paste)?;
            child.wait_with_output()
        })
        .unwrap();
    let wanted = String::from_utf8(output.stdout).unwrap();
    let mut late = Glass::attach(&sessions, from_start(&session)).await;
    late.until_text("done").await;
    assert!(late.shows(wanted.trim()), "the program was given something else");
    glass.until("the acknowledgement", |glass| glass.taken == glass.typed).await;
}

#[tokio::test]
async fn a_heredoc_pasted_into_a_shell_arrives_whole() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("echo ready; exec sh -i")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    let body: String = (0..20_000).map(|n| format!("line {n} {}\n", "=".repeat(40))).collect();
    assert!(body.len() > 1024 * 1024 - 100_000);
    let paste = format!("cat <<'END' | cksum | tr ' ' '_'\n{body}END\n");
    for piece in paste.as_bytes().chunks(8_000) {
        glass.type_in(piece).await;
    }
    let output = std::process::Command::new("cksum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), body.as_bytes())?;
            child.wait_with_output()
        })
        .unwrap();
    let wanted = String::from_utf8(output.stdout).unwrap().trim().replace(' ', "_");
    soon("the checksum", async {
        // The viewer may have been given the screen instead of the echo: look at the end of the log.
        loop {
            let mut late = Glass::attach(&sessions, from_start(&session)).await;
            late.until("all output so far", |glass| glass.offset >= Some(glass.attached.session.output_offset)).await;
            if late.shows(&wanted) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_does_not_read_holds_up_the_typist_and_nobody_else() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("stty -icanon -echo; echo ready; sleep 600")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    // Far more than all buffers together.
    let flood = async {
        for offset in 0..2_000u64 {
            glass.type_at(offset * 10_000, &[b'x'; 10_000]).await;
        }
    };
    assert!(
        tokio::time::timeout(std::time::Duration::from_secs(2), flood).await.is_err(),
        "20 MB were taken by nobody"
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", home.status(session.id).unwrap().holder))
        .unwrap_or_default();
    let resident = status
        .lines()
        // Without the pages of the program itself, which are as many as it was built with.
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    assert!(resident.is_none_or(|kib| kib < 10_000), "the holder has grown to {resident:?} KiB");
    // Another viewer attaches at once.
    let other = Glass::attach(&sessions, from_start(&session)).await;
    assert_eq!(other.attached.session.viewers, 2);
}

#[tokio::test]
async fn a_text_is_typed_as_one_paste_by_nobody_who_looks() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("stty -echo; echo ready; cat")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    sessions.type_text(session.id, "one\ntwo", true).await.unwrap();
    glass.until_text("one\r\ntwo\r\n").await;

    // A program that knows pastes gets all of it between the marks, and Enter after them.
    let script =
        "stty -echo -icrnl raw; printf '\\033[?2004hready'; dd bs=1 count=16 2>/dev/null | od -An -c -w64; printf done";
    let session = sessions.create(sh(script)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    sessions.type_text(session.id, "a\nb\x1b[201~", true).await.unwrap();
    glass.until_exit().await;
    let shown: String = String::from_utf8_lossy(&glass.output).split_whitespace().collect();
    assert!(shown.contains(r"033[200~a\rb033[201~\r"), "{shown}");
}

#[tokio::test]
async fn a_text_for_a_session_that_is_gone_is_refused() {
    let home = Home::new();
    let sessions = home.open().await;
    let gone = sessions.type_text(Uuid::new_v4(), "x", true).await;
    assert!(matches!(gone, Err(happy::session::TypeError::Attach(happy::session::AttachError::NoSession))), "{gone:?}");
    let session = sessions.create(sh("exit 0")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_exit().await;
    assert!(sessions.type_text(session.id, "x", true).await.is_err());
    assert!(sessions.type_text(session.id, &"x".repeat(happy_rpc::MAX_TEXT + 1), true).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_is_counted_through_upgrades_daemons_and_the_end() {
    let home = Home::new();
    let sessions = home.open().await;
    // It asks its terminal, whose answer nobody has typed.
    let script =
        "stty -echo -icanon min 4; printf '\\033[5n'; dd bs=1 count=4 >/dev/null 2>&1; stty icanon; echo ready; cat";
    let session = sessions.create(sh(script)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    assert_eq!(home.status(session.id).unwrap().bytes_in, 0);
    glass.type_at(0, b"hello\n").await;
    glass.type_at(3, b"lo\nyou\n").await;
    glass.until_text("you").await;
    assert_eq!(home.status(session.id).unwrap().bytes_in, 10);
    let status = upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
    assert_eq!(status.bytes_in, 10);
    glass.typed = 10;
    glass.type_in(b"\x04").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    sessions.list().await;
    assert_eq!(sessions.bytes_in()[&session.id], 11);
    drop((sessions, glass));
    // Nobody but the record of its end knows it any more.
    signal(home.status(session.id).unwrap().holder, rustix::process::Signal::KILL);
    let sessions = soon("a daemon without the holder", async {
        loop {
            if home.status(session.id).is_none() {
                return home.open().await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(sessions.bytes_in()[&session.id], 11);
}
