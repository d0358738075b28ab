//! How many sessions there may be, and what is kept of those that have ended.

use std::time::Duration;

use happy::session::{AttachRequest, Config, EndedKept, Sessions};
use happy_rpc::{SessionCreate, SessionState};
use uuid::Uuid;

use crate::support::*;

/// Waits until exactly these are listed, oldest first, and their folders are all there are.
async fn until_listed(home: &Home, sessions: &Sessions, wanted: &[Uuid]) {
    let mut events = sessions.subscribe();
    soon("the others to be forgotten", async {
        while sessions.known().iter().map(|session| session.id).collect::<Vec<_>>() != wanted {
            events.next().await.unwrap();
        }
    })
    .await;
    assert_eq!(std::fs::read_dir(home.path().join("sessions")).unwrap().count(), wanted.len());
}

async fn ended(sessions: &Sessions, create: SessionCreate) -> Uuid {
    let mut events = sessions.subscribe();
    let id = sessions.create(create).await.unwrap().id;
    // It may be off the list before anybody has heard of its end.
    soon("the end", async {
        while sessions.session(id).is_some_and(|session| session.state == SessionState::Running) {
            events.next().await.unwrap();
        }
    })
    .await;
    id
}

#[tokio::test]
async fn of_ended_sessions_the_oldest_go_first_and_running_ones_stay() {
    let home = Home::new();
    let kept = EndedKept { sessions: 3, bytes: 1_000_000, ..Default::default() };
    let sessions = Sessions::open(Config { ended: kept, ..home.config() }).await.unwrap();
    let running = sessions.create(sh("cat")).await.unwrap().id;
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(ended(&sessions, sh("echo done")).await);
    }
    until_listed(&home, &sessions, &[running, all[3], all[4], all[5]]).await;

    // Of what a session keeps its end counts, not what it has printed.
    let large = ended(&sessions, SessionCreate { keep: Some(200_000), ..sh("head -c 3000000 /dev/zero") }).await;
    until_listed(&home, &sessions, &[running, all[4], all[5], large]).await;
    let larger = ended(&sessions, SessionCreate { keep: Some(4_000_000), ..sh("head -c 3000000 /dev/zero") }).await;
    until_listed(&home, &sessions, &[running, larger]).await;
    // The last one is there to be looked at, however much it has.
    let mut glass = Glass::attach(&sessions, AttachRequest { from: Some(0), ..request_for(larger) }).await;
    glass.until_exit().await;
    assert_eq!(glass.output.len(), 3_000_000);

    // The next daemon sees it in the same way.
    drop((sessions, glass));
    let fewer = EndedKept { sessions: 0, ..kept };
    let sessions = Sessions::open(Config { ended: fewer, ..home.config() }).await.unwrap();
    until_listed(&home, &sessions, &[running]).await;
}

#[tokio::test]
async fn an_ended_session_is_forgotten_after_its_time_by_a_daemon_that_runs() {
    let home = Home::new();
    let kept = EndedKept { time: Duration::from_millis(500), ..Default::default() };
    let sessions = Sessions::open(Config { ended: kept, ..home.config() }).await.unwrap();
    let running = sessions.create(sh("cat")).await.unwrap().id;
    ended(&sessions, sh("true")).await;
    until_listed(&home, &sessions, &[running]).await;
}

/// A program may be over before its daemon, which has much to do, hears that it began.
#[tokio::test]
async fn the_end_of_a_program_that_is_over_at_once_is_not_missed() {
    let home = Home::new();
    let kept = EndedKept { sessions: 3, ..Default::default() };
    let sessions = Sessions::open(Config { ended: kept, ..home.config() }).await.unwrap();
    let busy = tokio::spawn(async {
        loop {
            std::thread::sleep(Duration::from_millis(40));
            tokio::task::yield_now().await;
        }
    });
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(ended(&sessions, sh("true")).await);
    }
    busy.abort();
    until_listed(&home, &sessions, &all[3..]).await;
}

fn request_for(session: Uuid) -> AttachRequest {
    AttachRequest {
        session,
        writer: Uuid::new_v4(),
        name: "test".into(),
        from: None,
        scrollback: 0,
        lossless: false,
        credit: false,
        cols: 80,
        rows: 24,
        take_control: false,
    }
}
