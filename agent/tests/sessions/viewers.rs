//! Several viewers of one session: offsets, sizes, control.

use happy::holder::protocol::refusal;
use happy::session::{AttachRequest, ControlError, ViewerError};
use happy_wire::terminal::Exit;
use uuid::Uuid;

use crate::support::*;

#[tokio::test]
async fn two_viewers_see_the_same() {
    let home = Home::new();
    let sessions = home.open().await;
    let session =
        sessions.create(sh("stty -echo; echo ready; while read line; do echo \"<$line>\"; done")).await.unwrap();
    let mut desk = Glass::attach(&sessions, from_start(&session)).await;
    let mut phone = Glass::attach(&sessions, from_start(&session)).await;
    desk.until_text("ready").await;
    desk.type_in(b"from the desk\n").await;
    phone.until_text("<from the desk>").await;
    phone.type_in(b"from the phone\n").await;
    desk.until_text("<from the phone>\r\n").await;
    phone.until_text("<from the phone>\r\n").await;
    assert_eq!(desk.output, phone.output);
    assert_eq!(sessions.list().await[0].viewers, 2);
}

#[tokio::test]
async fn a_viewer_that_comes_back_goes_on_at_the_exact_byte() {
    let home = Home::new();
    let sessions = home.open().await;
    let session =
        sessions.create(sh("stty -echo; for i in $(seq 1 20000); do echo $i; done; read x; echo end")).await.unwrap();
    let mut output = Vec::new();
    // Leaves after every few messages, at whatever offset that was.
    while !output.ends_with(b"\n20000\r\n") {
        let request = AttachRequest { from: Some(output.len() as u64), ..request(&session) };
        let mut glass = Glass::attach(&sessions, request).await;
        while glass.output.len() < 9_999 && !(glass.output.ends_with(b"\n20000\r\n")) {
            glass.next().await;
        }
        assert!(glass.gaps.is_empty() && glass.snapshots == 0);
        output.extend_from_slice(&glass.output);
    }
    let wanted: String = (1..=20_000).map(|n| format!("{n}\r\n")).collect();
    assert!(output == wanted.as_bytes(), "output is lost, doubled or out of order");
    // At the very end nothing is missing either.
    let mut glass =
        Glass::attach(&sessions, AttachRequest { from: Some(output.len() as u64), ..request(&session) }).await;
    glass.type_in(b"\n").await;
    assert_eq!(glass.until_exit().await, Exit::Code(0));
    assert_eq!(glass.output, b"end\r\n");
}

#[tokio::test]
async fn an_offset_from_elsewhere_gets_a_snapshot() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("echo ready; cat")).await.unwrap();
    Glass::attach(&sessions, from_start(&session)).await.until_text("ready").await;
    for from in [8, u64::MAX] {
        let mut glass = Glass::attach(&sessions, AttachRequest { from: Some(from), ..request(&session) }).await;
        glass.until("a snapshot", |glass| glass.snapshots == 1).await;
        assert_eq!(glass.offset, Some(7));
        assert!(glass.gaps.is_empty());
    }
}

#[tokio::test]
async fn one_viewer_decides_the_size_and_hands_it_over() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions
        .create(sh("stty -echo; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"))
        .await
        .unwrap();
    let named = |name: &str, cols, rows, take_control| AttachRequest {
        name: name.into(),
        cols,
        rows,
        take_control,
        ..from_start(&session)
    };

    Glass::attach(&sessions, from_start(&session)).await.until_text("ready").await;

    // Free control is taken by asking, and its size is taken over at once.
    let mut desk = Glass::attach(&sessions, named("desk", 100, 40, true)).await;
    assert!(desk.attached.you_control);
    assert_eq!((desk.attached.session.cols, desk.attached.session.rows), (100, 40));
    desk.until_text("40 100").await;
    assert_eq!(desk.size, Some((100, 40)));

    // The phone asks too and is not given it; it may not resize.
    let mut phone = Glass::attach(&sessions, named("phone\x1b[2J", 40, 20, true)).await;
    assert!(!phone.attached.you_control);
    assert_eq!(phone.controller, "desk");
    let refused = sessions.resize(phone.attached.attachment, 40, 20).await;
    assert!(matches!(refused, Err(ControlError::Refused(refused)) if refused.code == refusal::CONFLICT));

    // Taking it is an explicit act, and everybody is told.
    sessions.take_control(phone.attached.attachment, 40, 20).await.unwrap();
    phone.until_text("20 40").await;
    phone.until("control", |glass| glass.you_control && glass.size == Some((40, 20))).await;
    desk.until("loss of control", |glass| !glass.you_control && glass.size == Some((40, 20))).await;
    assert_eq!(desk.controller, "phone[2J");
    assert_eq!(sessions.list().await[0].controller.as_deref(), Some("phone[2J"));
    assert!(sessions.resize(desk.attached.attachment, 90, 30).await.is_err());

    // Sizes are clamped.
    sessions.resize(phone.attached.attachment, 0, u16::MAX).await.unwrap();
    phone.until_text("1000 2").await;
    sessions.resize(phone.attached.attachment, 41, 21).await.unwrap();

    // It gives control back and stays: the size is the desk's to change again. Without control that changes nothing.
    sessions.give_control(phone.attached.attachment).await.unwrap();
    desk.until("control", |glass| glass.you_control).await;
    phone.until("loss of control", |glass| !glass.you_control && glass.controller == "desk").await;
    assert_eq!(desk.size, Some((41, 21)));
    assert!(sessions.resize(phone.attached.attachment, 50, 20).await.is_err());
    sessions.give_control(phone.attached.attachment).await.unwrap();
    sessions.resize(desk.attached.attachment, 98, 38).await.unwrap();
    phone.until_text("38 98").await;
    sessions.take_control(phone.attached.attachment, 41, 21).await.unwrap();
    phone.until_text("21 41").await;
    desk.until("loss of control", |glass| !glass.you_control).await;

    // When it leaves the size stays, and control returns to who had it before.
    drop(phone);
    desk.until("control", |glass| glass.you_control).await;
    assert_eq!(desk.size, Some((41, 21)));
    sessions.resize(desk.attached.attachment, 99, 39).await.unwrap();
    desk.until_text("39 99").await;

    // Cut off on request; then nobody has it, and the next one may ask.
    sessions.detach(desk.attached.attachment).await.unwrap();
    assert!(desk.cut_off().await.is_none());
    sessions.detach(desk.attached.attachment).await.unwrap();
    drop(desk);
    let tablet = Glass::attach(&sessions, named("tablet", 60, 25, true)).await;
    assert!(tablet.attached.you_control);
    assert!(matches!(sessions.resize(Uuid::new_v4(), 9, 9).await, Err(ControlError::NoAttachment)));
}

#[tokio::test]
async fn a_late_viewer_learns_each_size_at_its_offset() {
    let home = Home::new();
    let sessions = home.open().await;
    let session =
        sessions.create(sh("stty -echo; echo ready; while read line; do echo \"<$line>\"; done")).await.unwrap();
    let mut desk =
        Glass::attach(&sessions, AttachRequest { take_control: true, cols: 81, ..from_start(&session) }).await;
    desk.until_text("ready").await;
    for cols in [82u16, 83, 84] {
        sessions.resize(desk.attached.attachment, cols, 24).await.unwrap();
        desk.type_in(format!("{cols}\n").as_bytes()).await;
        desk.until_text(&format!("<{cols}>\r\n")).await;
    }
    let mut late = Glass::attach(&sessions, from_start(&session)).await;
    for cols in [82u16, 83, 84] {
        late.until_text(&format!("<{cols}>")).await;
        assert_eq!(late.size.unwrap().0, cols);
    }
    // The first size, and each change; no more.
    assert!(late.resized == 4 || late.resized == 5, "{}", late.resized);
}

#[tokio::test]
async fn a_viewer_that_comes_back_too_early_takes_its_own_place() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let mine = AttachRequest { take_control: true, ..from_start(&session) };
    let mut old = Glass::attach(&sessions, mine.clone()).await;
    old.type_in(b"abc").await;
    old.until("the acknowledgement", |glass| glass.taken == 3).await;
    let new = Glass::attach(&sessions, AttachRequest { take_control: false, ..mine }).await;
    assert!(new.attached.you_control, "control is the person's, not the connection's");
    assert_eq!(new.attached.input_offset, 3);
    assert_eq!(new.attached.session.viewers, 1);
    match old.cut_off().await {
        Some(ViewerError::Refused(refused)) => assert_eq!(refused.code, refusal::DISPLACED),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn there_is_a_bound_on_viewers() {
    let home = Home::new();
    let sessions = home.open().await;
    let session = sessions.create(sh("cat")).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..happy::holder::state::MAX_VIEWERS {
        all.push(Glass::attach(&sessions, from_start(&session)).await);
    }
    let refused = happy_rpc::CallError::from(sessions.attach(from_start(&session)).await.map(drop).unwrap_err());
    assert_eq!(refused.code, happy_rpc::ErrorCode::TooMany, "{refused}");
    all.pop();
    soon("a free place", async { while sessions.attach(from_start(&session)).await.is_err() {} }).await;
}
