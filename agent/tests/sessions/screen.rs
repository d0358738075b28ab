//! The parsed screen in the holder: one answerer, and snapshots that go on exactly.

use happy_screen::Screen;

use crate::support::*;

#[tokio::test]
async fn a_query_is_answered_once_however_many_look() {
    let home = Home::new();
    let sessions = home.open().await;
    for viewers in [0, 1, 3] {
        // Asks a hundred times, and counts what was typed into it.
        let session = sessions
            .create(sh(
                "stty raw -echo; for i in $(seq 1 100); do printf '\\033[5n'; done; head -c 400 | tr '\\033' E; \
                        printf '<end>'; dd bs=1 count=1 2>/dev/null",
            ))
            .await
            .unwrap();
        let mut all = Vec::new();
        for _ in 0..viewers {
            all.push(Glass::attach(&sessions, from_start(&session)).await);
        }
        // Questions, answers and the end; without a viewer nobody looks at any of it.
        let printed = 400 + 400 + "<end>".len() as u64;
        soon("the answers", async {
            while home.status(session.id).unwrap().output_offset < printed {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(home.status(session.id).unwrap().viewers, viewers);
        let mut glass = Glass::attach(&sessions, from_start(&session)).await;
        glass.until_text("<end>").await;
        assert!(glass.shows(&"E[0n".repeat(100)), "{viewers} viewers");
        // Nothing more is typed: the next byte is the one from here.
        glass.type_in(b"q").await;
        glass.until_exit().await;
        assert!(glass.output.ends_with(b"<end>q"), "{:?}", String::from_utf8_lossy(&glass.output));
    }
}

#[tokio::test]
async fn a_snapshot_and_what_follows_make_the_same_screen() {
    let home = Home::new();
    let sessions = home.open().await;
    let script = "stty -echo; printf '\\033]2;a title\\007'; seq 1 500; printf '\\033[?1049h\\033[2J\\033[5;7Hfull \\033[31mscreen'; \
                  read x; printf '\\033[?1049l'; printf '\\033['; read x; printf '32mgreen\\n'; read x";
    let session = sessions.create(sh(script)).await.unwrap();
    let mut whole = Glass::attach(&sessions, from_start(&session)).await;
    whole.until_text("screen").await;
    let mut first = Glass::attach(&sessions, request(&session)).await;
    first.until("a snapshot", |glass| glass.snapshots == 1).await;
    whole.type_in(b"\n").await;
    // In the middle of an escape sequence.
    whole.until_text("\x1b[?1049l\x1b[").await;
    let mut second = Glass::attach(&sessions, request(&session)).await;
    second.until("a snapshot", |glass| glass.snapshots == 1).await;
    whole.type_in(b"\n").await;
    whole.until_text("green\r\n").await;
    let end = whole.offset;
    for glass in [&mut first, &mut second] {
        glass.until("the end", |glass| glass.offset == end).await;
        let (_, snapshot) = glass.snapshot.as_ref().unwrap();
        let mut screen = Screen::restore(snapshot, 10_000).unwrap();
        screen.feed(&glass.since_snapshot);
        let mut wanted = Screen::new(80, 24, 10_000);
        wanted.feed(&whole.output);
        assert_eq!(screen.text(), wanted.text());
        assert_eq!(screen.title(), wanted.title());
        assert_eq!(screen.cursor(), wanted.cursor());
    }
    assert_eq!(sessions.list().await[0].title, "a title");
}
