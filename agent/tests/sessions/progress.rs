//! How far programs say they are: told to everybody, at a pace, and never of a program that has ended.

use std::time::{Duration, Instant};

use happy::holder::progress::PACE;
use happy::session::Events;
use happy_rpc::{Event, Progress, ProgressState, SessionState};
use uuid::Uuid;

use crate::support::*;
use crate::upgrade::{this_program, upgrade};

fn progress(state: ProgressState, percent: impl Into<Option<u8>>) -> Option<Progress> {
    Some(Progress { state, percent: percent.into() })
}

/// Waits until a session shows this.
async fn shown(events: &mut Events, id: Uuid, wanted: Option<Progress>) {
    soon(&format!("{wanted:?}"), async {
        loop {
            match events.next().await.unwrap() {
                Event::SessionChanged(session) if session.id == id && session.progress == wanted => return,
                _ => {}
            }
        }
    })
    .await
}

/// Says for each line that it reads what stands in it.
const SAYS: &str = "stty -echo; echo ready; while read x; do printf '\\033]9;4;%s\\007' \"$x\"; done";

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_kept_over_upgrades_and_daemons_and_gone_with_the_program() {
    use ProgressState::{Error, Indeterminate, Normal, Paused};
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh(&format!("{SAYS}; exec sleep 60"))).await.unwrap();
    let mut events = sessions.subscribe();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    glass.until_text("ready").await;
    assert_eq!(sessions.session(session.id).unwrap().progress, None);
    for (line, wanted) in [
        ("1;40", progress(Normal, 40)),
        ("2", progress(Error, 40)),
        ("3", progress(Indeterminate, None)),
        ("0", None),
        ("4;700", progress(Paused, 100)),
    ] {
        glass.type_in(format!("{line}\n").as_bytes()).await;
        shown(&mut events, session.id, wanted).await;
    }
    let status = upgrade(&home, &session, &mut glass, &this_program()).await.unwrap();
    assert_eq!((status.upgrades, status.progress), (1, progress(Paused, 100)));
    // The new program goes on from there, and another daemon hears of it.
    glass.type_in(b"2;\n").await;
    shown(&mut events, session.id, progress(Error, 100)).await;
    drop((sessions, events));
    let sessions = home.open().await;
    assert_eq!(sessions.session(session.id).unwrap().progress, progress(Error, 100));

    let mut events = sessions.subscribe();
    sessions.kill(session.id).await.unwrap();
    assert!(matches!(ended(&sessions, &mut events, session.id).await, SessionState::Killed { .. }));
    assert_eq!(sessions.session(session.id).unwrap().progress, None);
    assert_eq!(home.status(session.id).unwrap().progress, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_progress_is_told_at_a_pace_and_the_last_one_always() {
    let home = Home::new();
    let sessions = home.open().await;
    let mut events = sessions.subscribe();
    let stop = home.path().join("stop");
    let script = format!(
        "read go; i=0; while [ ! -e {} ]; do i=$(((i + 1) % 100)); printf '\\033]9;4;1;%d\\007' $i; done; \
         printf '\\033]9;4;1;99\\007\\033]9;4;4\\007'; exec sleep 60",
        stop.display()
    );
    let session = sessions.create(sh(&script)).await.unwrap();
    let mut glass = Glass::attach(&sessions, from_start(&session)).await;
    let began = Instant::now();
    glass.type_in(b"go\n").await;
    let reading = tokio::spawn(async move {
        loop {
            glass.next().await;
        }
    });
    let (mut told, mut before) = (0u32, None);
    let last = progress(ProgressState::Paused, 99);
    soon("the last one", async {
        while before != last {
            let Event::SessionChanged(changed) = events.next().await.unwrap() else { continue };
            if changed.progress != before {
                (told, before) = (told + 1, changed.progress);
            }
            if told == 6 {
                std::fs::write(&stop, "").unwrap();
            }
        }
    })
    .await;
    reading.abort();
    // The first and the last one, and in between one for each time that has passed.
    let most = began.elapsed().div_duration_f64(PACE) + 2.0;
    assert!(f64::from(told) <= most, "told {told} times, and {most} are allowed");
    assert!(PACE >= Duration::from_millis(250), "more than a few changes a second");
}
