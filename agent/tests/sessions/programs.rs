//! What programs may print and how windows may change, and must not hurt: the session goes on, within its memory, and shows what it should.

use happy::session::{AttachRequest, Sessions};
use happy_screen::Screen;
use happy_wire::terminal::Exit;
use rustix::process::Signal;

use crate::support::*;

/// The most that a holder may ever have had in memory, in KiB. An idle one has 5 MB, its screen and history have bounds of 16 MiB and more.
const MOST_MEMORY: u64 = 64 * 1024;

/// The most that a process has had in memory, KiB.
fn peak(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

async fn screen_of(sessions: &Sessions, session: &happy_rpc::Session) -> Screen {
    let mut glass = Glass::attach(sessions, request(session)).await;
    glass.until("a snapshot", |glass| glass.snapshots > 0).await;
    Screen::restore(&glass.snapshot.unwrap().1, 10_000).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_printed_the_session_goes_on_and_its_memory_has_a_bound() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut all = Vec::new();
    for (what, script) in [
        ("a line of 64 MB", "head -c 64000000 /dev/zero | tr '\\0' x"),
        ("a line of 64 MB of two columns", "yes 漢 | head -c 64000000 | tr -d '\\n'"),
        ("combining marks without an end", "printf a; yes ́ | head -c 8000000 | tr -d '\\n'"),
        ("an OSC without an end", "printf '\\033]2;'; head -c 20000000 /dev/zero | tr '\\0' x"),
        ("a DCS without an end", "printf '\\033P'; head -c 20000000 /dev/zero | tr '\\0' x"),
        ("a sixel without an end", "printf '\\033Pq\"1;1;99999;99999'; yes '#0!99999~-' | head -c 20000000"),
        ("a picture", "printf '\\033_Gf=32,s=9999,v=9999;'; head -c 20000000 /dev/zero | tr '\\0' A"),
        ("a CSI without an end", "printf '\\033['; yes '9;:' | head -c 8000000 | tr -d '\\n'"),
        ("updates without an end", "for i in $(seq 1 3000); do printf '\\033[?2026h%s\\r\\n' $i; done"),
        (
            "numbers of any size",
            "for i in $(seq 1 300); do printf '\\033[99999999999;0H\\033[65535L\\033[65535@\\033[65535S\\033[65535b'; done",
        ),
        ("titles without an end", "for i in $(seq 1 3000); do printf '\\033]0;%s\\007\\033[22t' $i$i$i$i; done"),
        ("keyboards without an end", "for i in $(seq 1 3000); do printf '\\033[>31u\\033[?1049h\\033[>1u'; done"),
        ("bytes of chance", "dd if=/dev/urandom bs=65536 count=128 2>/dev/null"),
    ] {
        // String terminator, end of an update, main screen, keys as ever.
        let script = format!(
            "stty -echo; {script}; printf '\\033\\\\\\033[?2026l\\033[?1049l\\033[!p\\033[H\\033[2Jstill '; read x; echo \"here: $x\"; read x"
        );
        all.push((what, sessions.create(sh(&script)).await.unwrap()));
    }
    for (what, session) in &all {
        // Without a viewer it runs as fast as it can; then somebody looks, and types.
        soon(what, async { while !screen_of(&sessions, session).await.text().starts_with("still") {} }).await;
        let mut glass = Glass::attach(&sessions, request(session)).await;
        glass.type_in(b"you\n").await;
        soon(what, async { while !screen_of(&sessions, session).await.text().starts_with("still here: you") {} }).await;
        let holder = home.status(session.id).unwrap().holder;
        assert!(peak(holder).is_none_or(|kib| kib < MOST_MEMORY), "{what}: {:?} KiB", peak(holder));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn characters_that_come_in_pieces_or_are_none_are_the_same_however_they_are_cut() {
    const TEXT: &str = "héllo 漢字 \\360\\237\\230\\200 \\377\\376 \\300\\200 \\355\\240\\200 \\360\\237\\230 \\364\\220\\200\\200 \\200\\200 end";
    let home = Home::new();
    let sessions = home.open().await;
    // Each byte by itself, far enough apart that none comes with another; at a width where characters of two columns wrap.
    let script = format!(
        "stty raw -echo; read x; for b in $(printf '{TEXT}' | od -An -v -to1); do printf \"\\\\$b\"; sleep 0.005; done; printf '|'; read x"
    );
    let session = sessions.create(happy_rpc::SessionCreate { cols: 11, rows: 8, ..sh(&script) }).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.type_in(b"\n").await;
    // Whoever joins in between goes on as the one who was there.
    let mut late = Vec::new();
    while !glass.shows("|") {
        let before = glass.output.len();
        glass.next().await;
        if glass.output.len() > before && late.len() < 40 {
            late.push(Glass::attach(&sessions, request(&session)).await);
        }
    }
    let mut whole = Screen::new(11, 8, 0);
    whole.feed(&glass.output);
    assert!(late.len() > 10, "all of it came at once");
    for mut viewer in late {
        viewer.until("the end", |viewer| viewer.snapshots > 0 && viewer.offset == glass.offset).await;
        let mut screen = Screen::restore(&viewer.snapshot.as_ref().unwrap().1, 0).unwrap();
        screen.feed(&viewer.since_snapshot);
        assert_eq!(screen.text(), whole.text());
        assert_eq!(screen.cursor(), whole.cursor());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sizes_a_second_and_impossible_ones_end_with_the_last() {
    let home = Home::new();
    let sessions = home.open().await;
    let script = "stty -echo; echo ready; (yes 漢字漢字漢字漢字漢字漢字 | head -c 20000000) &
        while read x; do stty size; done; exit 6";
    let session = sessions.create(sh(script)).await.unwrap();
    let request = AttachRequest { take_control: true, ..from_start(&session) };
    let mut glass = Glass::attach(&sessions, request).await;
    glass.until_text("ready").await;
    let attachment = glass.attached.attachment;
    let reading = async {
        while glass.size != Some((77, 33)) {
            glass.next().await;
        }
        glass
    };
    let resizing = async {
        for (cols, rows) in [(0, 0), (1, 1), (65_535, 65_535), (0, 65_535), (65_535, 1), (2, 1_000), (1_000, 2)] {
            sessions.resize(attachment, cols, rows).await.unwrap();
            let status = home.status(session.id).unwrap();
            assert!((2..=1_000).contains(&status.cols) && (1..=1_000).contains(&status.rows), "{status:?}");
        }
        for step in 0..1_000u16 {
            sessions.resize(attachment, 2 + step % 199, 1 + step % 61).await.unwrap();
        }
        sessions.resize(attachment, 77, 33).await.unwrap();
    };
    let (mut glass, ()) = tokio::join!(reading, resizing);
    soon("the program's size", async {
        // While the other program prints, the answer does not stay on the screen.
        while !screen_of(&sessions, &session).await.text().contains("33 77") {
            glass.type_in(b"\n").await;
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
    assert!(peak(home.status(session.id).unwrap().holder).is_none_or(|kib| kib < MOST_MEMORY));
    glass.type_in(b"\x04").await;
    assert_eq!(glass.until_exit().await, Exit::Code(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_killed_in_the_middle_of_anything() {
    let home = Home::new();
    let sessions = home.open().await;
    for script in ["yes", "printf '\\033]2;'; yes", "printf '\\033[?2026h'; yes 漢"] {
        let session = sessions.create(sh(script)).await.unwrap();
        let mut glass = Glass::attach(&sessions, request(&session)).await;
        glass.until("output", |glass| glass.output.len() > 100_000 || glass.snapshots > 1).await;
        sessions.signal(session.id, Signal::KILL, std::time::Duration::ZERO).await.unwrap();
        assert_eq!(glass.until_exit().await, Exit::Signal(9));
    }
}
