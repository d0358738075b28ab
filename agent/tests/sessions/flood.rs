//! Programs that print faster than viewers read.

use std::time::{Duration, Instant};

use happy::session::AttachRequest;
use happy_screen::Screen;
use happy_wire::terminal::Exit;

use crate::support::*;

fn numbers(from: u32, to: u32) -> Vec<u8> {
    (from..=to).flat_map(|n| format!("{n}\r\n").into_bytes()).collect()
}

fn restored(glass: &Glass) -> Screen {
    let (_, snapshot) = glass.snapshot.as_ref().unwrap();
    let mut screen = Screen::restore(snapshot, 10_000).unwrap();
    screen.feed(&glass.since_snapshot);
    screen
}

#[tokio::test]
async fn a_viewer_that_does_not_read_stalls_nobody_and_is_given_the_screen_later() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("read go; seq 1 2000000; read go; exit 3")).await.unwrap();
    let mut slow = Glass::attach(&sessions, from_start(&session)).await;
    let mut fast = Glass::attach(&sessions, from_start(&session)).await;
    fast.type_in(b"\n").await;
    let wanted = [b"\r\n", &numbers(1, 2_000_000)[..]].concat();
    let end = wanted.len() as u64;
    // It keeps up or is given the screen; either way it is there at the end.
    fast.until("the last line", |glass| glass.offset == Some(end)).await;

    // Only now the slow one looks: what was in its socket is exact, then the gap is declared, then comes the screen as it is.
    slow.until("the newest screen", |glass| glass.offset == Some(end) && glass.snapshots > 0).await;
    let shown = slow.output.len() as u64;
    assert_eq!(slow.gaps, [(shown, end)]);
    assert!(shown < 1024 * 1024, "{shown} bytes of backlog were sent");
    assert!(wanted.starts_with(&slow.output));

    let mut fresh = Glass::attach(&sessions, request(&session)).await;
    fresh.until("a snapshot", |glass| glass.snapshots == 1).await;
    assert_eq!(restored(&slow).text(), restored(&fresh).text());
    assert!(restored(&slow).text().contains("2000000"));

    // When it is quiet it gets its scrollback as well.
    slow.until("the scrollback", |glass| glass.snapshots == 2).await;
    assert_eq!(restored(&slow).scrollback_len(), restored(&fresh).scrollback_len());
    assert!(restored(&slow).scrollback_len() >= 1_000);
    slow.type_in(b"\n").await;
    assert_eq!(slow.until_exit().await, Exit::Code(3));
}

#[tokio::test]
async fn a_lossless_viewer_gets_every_byte_however_slow_it_is() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("read go; seq 1 3800000")).await.unwrap();
    let request = AttachRequest { lossless: true, ..from_start(&session) };
    let mut glass = Glass::attach(&sessions, request).await;
    glass.type_in(b"\n").await;
    // It does not read: the program must come to wait, long before the ring has turned.
    let stopped = soon("the program to wait", async {
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = sessions.list().await[0].output_offset;
            if now == last && now > 1_000_000 {
                return now;
            }
            last = now;
        }
    })
    .await;
    assert!(stopped < 10 * 1024 * 1024, "{stopped} bytes were printed");
    // And while it waits, others can look.
    assert_eq!(Glass::attach(&sessions, from_start(&session)).await.attached.session.output_offset, stopped);
    let mut messages = 0;
    while glass.exit.is_none() {
        glass.next().await;
        messages += 1;
        if messages % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(glass.gaps.is_empty() && glass.snapshots == 0);
    assert!(glass.output.len() > 30_000_000);
    let wanted = [b"\r\n", &numbers(1, 3_800_000)[..]].concat();
    assert!(glass.output == wanted, "output is lost, doubled or out of order");
}

#[tokio::test]
async fn a_lossless_viewer_that_leaves_holds_up_nobody() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("read go; seq 1 2000000; exit 8")).await.unwrap();
    let mut glass = Glass::attach(&sessions, AttachRequest { lossless: true, ..from_start(&session) }).await;
    glass.type_in(b"\n").await;
    glass.until("some output", |glass| glass.output.len() > 100_000).await;
    drop(glass);
    let mut late = Glass::attach(&sessions, request(&session)).await;
    assert_eq!(late.until_exit().await, Exit::Code(8));
}

#[tokio::test]
async fn keys_get_through_while_output_floods() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions
        .create(sh("trap 'echo; echo caught; exit 2' INT; echo ready; while :; do echo yyyyyyyyyyyyyyy; done"))
        .await
        .unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    let typed_at = Instant::now();
    glass.type_in(b"\x03").await;
    assert_eq!(glass.until_exit().await, Exit::Code(2));
    assert!(typed_at.elapsed() < Duration::from_secs(5), "{:?}", typed_at.elapsed());
    assert!(glass.since_snapshot.windows(6).chain(glass.output.windows(6)).any(|window| window == b"caught"));
}

#[tokio::test]
async fn an_idle_session_is_never_woken() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("echo ready; sleep 600")).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    let holder = home.status(session.id).unwrap().holder;
    let Some(mut before) = wakeups(holder) else { return };
    // What the start has left to do is done when nothing happened for a while.
    soon("the holder to come to rest", async {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = wakeups(holder).unwrap();
            if now == before {
                return;
            }
            before = now;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(wakeups(holder).unwrap(), before);
}

/// How often the process has been put to sleep, hence woken.
fn wakeups(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}
