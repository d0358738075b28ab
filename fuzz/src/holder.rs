//! The holder's socket, as the session behind it sees it, and what one program of a holder leaves to the next.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use bytes::BytesMut;
use happy::holder::handover::{HandoverError, Parts, Sections};
use happy::holder::input::MAX_PENDING;
use happy::holder::prompting::Moment;
use happy::holder::protocol::{Attach, MAX_FRAME, Refusal, Request, VERSION, kind, read_first, read_json, take_frame};
use happy::holder::size::Size;
use happy::holder::state::{Key, State};
use happy::holder::viewer::Next;
use happy::prompt::Tty;
use happy_wire::terminal::TerminalMessage;
use tokio::time::Instant;

use crate::{choose, pieces};

/// Frames that no client sends: what the program does. Its body is what it prints.
pub const PRINTS: u8 = 0xF0;
/// It takes as much of what was typed as the first byte of the body says.
pub const READS: u8 = 0xF1;
/// The connection with the number in the first byte is the one that sends from here on.
pub const TURNS_TO: u8 = 0xF2;
/// Another program takes over.
pub const UPGRADES: u8 = 0xF3;

/// Frames of up to four clients, or a handover.
pub fn holder(data: &[u8]) {
    let (what, bytes) = choose(data);
    match what % 3 {
        0 => session(bytes),
        1 => drop(resume(bytes)),
        _ => {
            let mut sections = Sections::default();
            let names = ["state", "screen", "log", "input", "parts/0", "parts/1", "snapshot/0"];
            pieces(bytes).zip(names).for_each(|(bytes, name)| sections.put(name, bytes));
            drop(resume(&sections.into_bytes()));
        }
    }
}

fn session(bytes: &[u8]) {
    let mut state = State::new(Size::clamped(80, 24), 0, None, 100, 1);
    let mut phases = [Phase::Greeting; 4];
    let mut turn = 0;
    let mut inbox = BytesMut::from(bytes);
    while let Ok(Some(frame)) = take_frame(&mut inbox) {
        let (kind, body) = choose(&frame);
        match kind {
            PRINTS => state.on_output(body),
            READS => state.on_typed(usize::from(choose(body).0).min(state.pending_input().len())),
            TURNS_TO => turn = usize::from(choose(body).0) % phases.len(),
            UPGRADES => {
                let before = state.status();
                let Some(again) = again(&state) else { return };
                state = again;
                assert_eq!(state.status(), before, "another session goes on than the one that was left");
            }
            kind => {
                let Some(phase) = phases.get_mut(turn) else { return };
                if let Err(refused) = heed(&mut state, phase, kind, body) {
                    assert!(!refused.message.is_empty());
                    if let Phase::Viewer(key) = *phase {
                        state.detach(key);
                    }
                    *phase = Phase::Greeting;
                }
            }
        }
        // A client is read only while there is room, so one message of it may come on top.
        assert!(state.pending_input().len() <= MAX_PENDING + MAX_FRAME, "what is typed grows without bound");
        look(&mut state, &phases);
    }
}

#[derive(Clone, Copy)]
enum Phase {
    Greeting,
    Control,
    Viewer(Key),
}

/// As `happy::holder::server` does.
fn heed(state: &mut State, phase: &mut Phase, kind: u8, body: &[u8]) -> Result<(), Refusal> {
    match (*phase, kind) {
        (Phase::Greeting, kind::ATTACH) => {
            let attach: Attach = read_first(body)?;
            let (key, _) = state.attach(attach, Instant::now())?;
            *phase = Phase::Viewer(key);
        }
        (Phase::Greeting, kind::CONTROL) if body.first() == Some(&VERSION) => *phase = Phase::Control,
        (Phase::Viewer(key), kind::TERMINAL) if state.has_input_room() => match TerminalMessage::decode(body) {
            Ok(TerminalMessage::Input { offset, bytes }) => state.on_input(key, offset, bytes)?,
            Ok(TerminalMessage::Drawn { offset }) => state.on_drawn(key, offset)?,
            Ok(TerminalMessage::HistoryWanted { before, rows }) => state.on_history_wanted(key, before, rows)?,
            Ok(_) | Err(_) => {}
        },
        (Phase::Control, kind::REQUEST) => match read_json(body)? {
            Request::Resize { viewer, cols, rows } => state.resize(viewer, cols, rows)?,
            Request::TakeControl { viewer, cols, rows } => state.take_control(viewer, cols, rows)?,
            Request::GiveControl { viewer } => state.give_control(viewer)?,
            Request::Detach { viewer } => state.detach_by_id(viewer)?,
            Request::StopRecording => state.stop_recording()?,
            Request::Call { text } => state.on_called(&text),
            Request::Answer(answer) => {
                let tty = Tty { canonical: true, echo: true };
                state.answer(&answer, Moment { tty, is_unread: false, now: 0 })?;
            }
            // Files and processes are not for a search.
            Request::Record(_)
            | Request::Status
            | Request::Watch { .. }
            | Request::Kill { .. }
            | Request::Pause
            | Request::Resume
            | Request::Upgrade { .. }
            | Request::Forget => {}
        },
        _ => {}
    }
    Ok(())
}

/// What each viewer is sent now; every frame of it can be read.
fn look(state: &mut State, phases: &[Phase]) {
    let keys: BTreeSet<Key> =
        phases.iter().filter_map(|phase| if let Phase::Viewer(key) = phase { Some(*key) } else { None }).collect();
    for key in keys {
        let mut out = BytesMut::new();
        while let Some(Next::Write) = state.fill(key, Instant::now(), &mut out) {
            while let Some(frame) = take_frame(&mut out).expect("a frame that no viewer may be sent") {
                let (kind, body) = choose(&frame);
                let message = (kind == kind::TERMINAL).then(|| TerminalMessage::decode(body));
                assert!(!matches!(message, Some(Err(_))), "{message:?}: {body:02x?}");
            }
            assert!(out.is_empty(), "half a frame");
        }
    }
}

/// The same session in another program.
fn again(state: &State) -> Option<State> {
    let mut sections = Sections::default();
    let saved = state.save(&mut sections)?;
    let rows = happy::holder::handover::HistoryRange { in_file: 0, from: 0, to: 0 };
    let descriptors = serde_json::json!({"master": 0, "slave": null, "listener": 0, "log": null, "history": 0});
    let json = serde_json::json!({"dir": "/", "socket": "/s", "descriptors": descriptors, "state": saved, "history": rows,
        "connections": {}, "stopped_at": 0});
    sections.put("state", json.to_string().as_bytes());
    Some(resume(&sections.into_bytes()).expect("what was just left can be read"))
}

/// Goes on with what a program left, and has it used.
fn resume(bytes: &[u8]) -> Result<State, HandoverError> {
    let parts = Parts::read(bytes)?;
    let mut handover = parts.handover()?;
    let saved = handover.state.take().ok_or(HandoverError::Cut)?;
    // Blocks that cannot be read, and take everything.
    let log =
        handover.descriptors.log.and_then(|_| std::fs::File::options().read(true).write(true).open("/dev/null").ok());
    let mut state = State::resume(saved, &parts, log.map(OwnedFd::from))?;
    let known: Vec<Phase> = (0..4).map(Phase::Viewer).collect();
    look(&mut state, &known);
    let attach = br#"{"viewer": "00000000-0000-4000-8000-000000000001", "writer": "00000000-0000-4000-8000-000000000002", "name": "x",
        "from": 0, "scrollback": 5, "cols": 80, "rows": 24}"#;
    if let Ok(attach) = read_json::<Attach>(attach)
        && let Ok((key, _)) = state.attach(attach, Instant::now())
    {
        look(&mut state, &[Phase::Viewer(key)]);
        state.detach(key);
    }
    Ok(state)
}
