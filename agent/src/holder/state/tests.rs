use std::path::Path;

use happy_wire::terminal::{TerminalMessage, WINDOW};

use super::super::blocks::Place;
use super::super::history::EarlyHistory;
use super::super::input::MAX_PENDING;
use super::super::protocol::kind;
use super::super::viewer::MAX_BEHIND;
use super::*;

/// What a viewer was sent.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Output(u64, usize),
    Gap(u64, u64),
    Snapshot(u64),
    Resized(u64, u16, bool),
    Taken(u64),
    Exited(u64),
    /// Offset, base, bytes of its parts.
    Frame(u64, Option<u64>, Vec<u8>),
    /// First row, oldest row, bytes.
    History(u64, u64, usize),
}

fn attach() -> Attach {
    Attach {
        viewer: Uuid::new_v4(),
        writer: Uuid::new_v4(),
        name: "desk".into(),
        from: Some(0),
        scrollback: 1_000,
        lossless: false,
        credit: false,
        cols: 80,
        rows: 24,
        take_control: false,
    }
}

fn session() -> State {
    let older = Blocks::open(Place::Memory, Path::new("/"), Ring::slots(4 << 20)).unwrap();
    State::new(Size::clamped(80, 24), 4 << 20, Some(older), 1_000, 1)
}

/// Everything that the viewer would be sent at `now`, outputs that follow each other as one.
fn look(state: &mut State, key: Key, now: Instant) -> (Vec<Seen>, Next) {
    let (mut all, mut out) = (Vec::new(), BytesMut::new());
    loop {
        match state.fill(key, now, &mut out).unwrap() {
            Next::Write => {}
            wait => return (all, wait),
        }
        while let Some(length) = out.first_chunk::<4>() {
            let frame = out.split_to(4 + u32::from_be_bytes(*length) as usize);
            assert_eq!(frame[4], kind::TERMINAL);
            let seen = match TerminalMessage::decode(&frame[5..]).unwrap() {
                TerminalMessage::Output { offset, bytes } => match all.last_mut() {
                    Some(Seen::Output(first, length)) if *first + *length as u64 == offset => {
                        *length += bytes.len();
                        continue;
                    }
                    _ => Seen::Output(offset, bytes.len()),
                },
                TerminalMessage::Gap { from, to } => Seen::Gap(from, to),
                TerminalMessage::Snapshot { part, .. } if part > 0 => continue,
                TerminalMessage::Snapshot { offset, .. } => Seen::Snapshot(offset),
                TerminalMessage::Resized { offset, cols, you_control, .. } => Seen::Resized(offset, cols, you_control),
                TerminalMessage::InputTaken { offset } => Seen::Taken(offset),
                TerminalMessage::Exited { offset, .. } => Seen::Exited(offset),
                TerminalMessage::Frame { part, bytes, .. } if part > 0 => match all.last_mut() {
                    Some(Seen::Frame(.., whole)) => {
                        whole.extend_from_slice(bytes);
                        continue;
                    }
                    other => panic!("a part of a frame after {other:?}"),
                },
                TerminalMessage::Frame { offset, base, bytes, .. } => Seen::Frame(offset, base, bytes.to_vec()),
                TerminalMessage::History { first, kept_from, bytes } => Seen::History(first, kept_from, bytes.len()),
                TerminalMessage::Input { .. }
                | TerminalMessage::Drawn { .. }
                | TerminalMessage::HistoryWanted { .. } => panic!("a viewer's message for a viewer"),
            };
            all.push(seen);
        }
    }
}

#[tokio::test]
async fn a_backlog_is_sent_whole_up_to_the_bound_and_not_beyond() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(attach(), now).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, false)]);
    state.on_output(&vec![b'x'; MAX_BEHIND as usize]);
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, MAX_BEHIND as usize)]);

    state.on_output(&vec![b'x'; MAX_BEHIND as usize + 1]);
    let end = 2 * MAX_BEHIND + 1;
    let (seen, next) = look(&mut state, key, now);
    assert_eq!(seen, [Seen::Gap(MAX_BEHIND, end), Seen::Snapshot(end)]);
    // Its scrollback follows when it is quiet, once.
    assert!(matches!(next, Next::WaitUntil(_)));
    state.on_output(b"more");
    let (seen, next) = look(&mut state, key, now + Duration::from_millis(3));
    assert_eq!(seen, [Seen::Output(end, 4)]);
    let Next::WaitUntil(quiet) = next else { panic!("{next:?}") };
    assert_eq!(look(&mut state, key, quiet).0, [Seen::Snapshot(end + 4)]);
    assert_eq!(look(&mut state, key, quiet + Duration::from_secs(9)), (vec![], Next::Wait));
}

#[tokio::test]
async fn who_comes_back_gets_all_that_is_kept_however_much_it_is() {
    let (mut state, now) = (session(), Instant::now());
    state.on_output(&vec![b'x'; 3 << 20]);
    let (key, _) = state.attach(Attach { from: Some(5), ..attach() }, now).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(5, 80, false), Seen::Output(5, (3 << 20) - 5)]);
    // What is no longer kept is a declared gap.
    state.on_output(&vec![b'x'; 3 << 20]);
    let (key, attached) = state.attach(Attach { from: Some(5), ..attach() }, now).unwrap();
    assert!(attached.status.kept_from > 5);
    assert_eq!(look(&mut state, key, now).0, [Seen::Gap(5, 6 << 20), Seen::Snapshot(6 << 20)]);
}

#[tokio::test]
async fn output_is_gathered_under_load_and_an_echo_never() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(attach(), now).unwrap();
    look(&mut state, key, now);
    let mut held = None;
    for offset in (0..).step_by(5_000).take(10) {
        state.on_output(&[b'x'; 5_000]);
        match look(&mut state, key, now) {
            (seen, Next::Wait) => assert_eq!(seen, [Seen::Output(offset, 5_000)]),
            (seen, Next::WaitUntil(time)) => {
                assert!(seen.is_empty() && offset >= 16_384, "{offset} is no load");
                held = held.or(Some((offset, time)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (offset, time) = held.expect("nothing was ever gathered");
    assert!(time - now <= Duration::from_millis(3));
    // A key is typed: its echo does not wait.
    state.on_input(key, 0, b"k").unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(offset, 5_000)]);
    state.on_typed(1);
    let (seen, next) = look(&mut state, key, now);
    assert!(seen.is_empty() && matches!(next, Next::WaitUntil(time) if time - now <= Duration::from_millis(3)));
    state.on_output(b"k");
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(offset + 5_000, 1), Seen::Taken(1)]);
}

#[tokio::test]
async fn that_input_was_taken_is_told_with_its_echo_or_soon() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(attach(), now).unwrap();
    look(&mut state, key, now);
    let mut typed = 0;
    let mut type_in = |state: &mut State| {
        state.on_input(key, typed, b"k").unwrap();
        state.on_typed(1);
        typed += 1;
    };
    type_in(&mut state);
    let (seen, next) = look(&mut state, key, now);
    let Next::WaitUntil(told) = next else { panic!("{next:?}") };
    assert!(seen.is_empty() && told > now && told - now <= Duration::from_millis(3));
    // What is typed meanwhile does not put it off.
    type_in(&mut state);
    let between = told - Duration::from_millis(1);
    assert_eq!(look(&mut state, key, between), (vec![], Next::WaitUntil(told)));
    assert_eq!(look(&mut state, key, told), (vec![Seen::Taken(2)], Next::Wait));
    assert_eq!(look(&mut state, key, told + Duration::from_secs(1)), (vec![], Next::Wait));
    // A flood does not put it off either.
    type_in(&mut state);
    state.on_output(&[b'x'; 500_000]);
    let mut out = BytesMut::new();
    assert_eq!(state.fill(key, told, &mut out), Some(Next::Write));
    assert!(out.len() < 100_000 && out.ends_with(&TerminalMessage::InputTaken { offset: 3 }.to_vec()));
}

#[tokio::test]
async fn a_lossless_viewer_stops_the_reading_before_the_ring_turns() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(Attach { lossless: true, ..attach() }, now).unwrap();
    let mut printed = 0;
    while state.may_read() {
        state.on_output(&[b'x'; MAX_READ]);
        printed += MAX_READ;
        assert!(printed <= 4 << 20, "the ring has turned");
    }
    assert!(printed > 1 << 20);
    // One that only looks does not stop it.
    let other = state.attach(attach(), now).unwrap().0;
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, false), Seen::Output(0, printed)]);
    assert!(state.may_read());
    state.on_output(&vec![b'x'; 4 << 20]);
    assert!(!state.may_read());
    state.detach(key);
    assert!(state.may_read());
    state.detach(other);
}

/// The session as the next program has it.
fn resumed(state: &mut State) -> State {
    while !state.load_history() {}
    let mut early = EarlyHistory::new(tempfile::tempfile().unwrap());
    while early.copy(state.screen()).unwrap() {}
    let file = early.descriptor().try_clone_to_owned().unwrap().into();
    let late = LateHistory::new(file, state.history(early.first()));
    let mut sections = Sections::default();
    let saved = state.save(&mut sections).unwrap();
    let (bytes, json) = (sections.into_bytes(), serde_json::to_vec(&saved).unwrap());
    let log = state.log().unwrap().descriptor().try_clone_to_owned().unwrap();
    let saved = serde_json::from_slice(&json).unwrap();
    let mut next = State::resume(saved, &Parts::read(&bytes).unwrap(), Some(log)).unwrap();
    next.on_late_history(late);
    next
}

#[tokio::test]
async fn between_any_two_messages_another_program_goes_on() {
    let now = Instant::now();
    let script = |state: &mut State, between: &mut dyn FnMut(&mut State)| {
        let (desk, _) = state.attach(Attach { take_control: true, ..attach() }, now).unwrap();
        state.on_input(desk, 0, b"typed and not taken").unwrap();
        let (slow, _) = state.attach(Attach { lossless: true, from: None, ..attach() }, now).unwrap();
        let mut all = Vec::new();
        for round in 0..40u64 {
            // Noise does not become small, so the snapshots have several parts.
            let noise: Vec<u8> =
                (0..150_000).map(|at| b'!' + (((round * 150_000 + at) * 2_654_435_761) >> 17) as u8 % 90).collect();
            state.on_output(&noise);
            state.on_typed(3);
            if round % 8 == 0 {
                state.set_size(Size::clamped(100 + round as u16, 24));
            }
            for key in [desk, slow] {
                let mut out = BytesMut::new();
                while state.fill(key, now, &mut out) == Some(Next::Write) && out.len() < 100_000 {
                    between(state);
                }
                all.push(out);
            }
        }
        while !state.load_history() {}
        (all, state.status(), state.scene.screen.snapshot(usize::MAX))
    };
    let plain = script(&mut session(), &mut |_| {});
    let mut switches = 0;
    let switched = script(&mut session(), &mut |state| {
        *state = resumed(state);
        switches += 1;
    });
    assert!(switches > 50, "{switches}");
    assert!(plain == switched, "what was sent differs");
}

#[tokio::test]
async fn parts_that_do_not_belong_together_are_refused() {
    let mut state = session();
    let (key, _) = state.attach(attach(), Instant::now()).unwrap();
    state.on_output(b"hello");
    state.on_input(key, 0, b"typed").unwrap();
    for (section, wanted) in [("log", "raw log"), ("screen", "snapshot"), ("input", "pending input")] {
        let (mut whole, mut sections) = (Sections::default(), Sections::default());
        let saved = state.save(&mut whole).unwrap();
        let whole = whole.into_bytes();
        let parts = Parts::read(&whole).unwrap();
        for name in ["log", "screen", "input"].into_iter().filter(|name| *name != section) {
            sections.put(name, parts.section(name));
        }
        let bytes = sections.into_bytes();
        let log = state.log().unwrap().descriptor().try_clone_to_owned().unwrap();
        let saved = serde_json::from_value(saved).unwrap();
        let error = State::resume(saved, &Parts::read(&bytes).unwrap(), Some(log)).err().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

const FRAME_PAUSE: Duration = Duration::from_millis(34);
const FULL: usize = WINDOW as usize;

/// A viewer with credit that has seen the first size.
fn drawer(state: &mut State, now: Instant) -> Key {
    let (key, attached) = state.attach(Attach { credit: true, ..attach() }, now).unwrap();
    assert!(attached.credit);
    let seen = look(state, key, now).0;
    assert!(matches!(seen[..], [Seen::Resized(..)]), "{seen:?}");
    key
}

/// What a viewer makes of a frame.
fn shown(base: &[u8], frame: &Seen) -> Vec<u8> {
    let Seen::Frame(_, _, bytes) = frame else { panic!("{frame:?} is no frame") };
    happy_screen::delta::apply(base, bytes).unwrap()
}

#[tokio::test]
async fn a_viewer_that_never_says_what_it_has_drawn_gets_its_window_and_one_screen() {
    let (mut state, mut now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    for _ in 0..100 {
        state.on_output(&[b'x'; 10_000]);
    }
    let (seen, next) = look(&mut state, key, now);
    assert_eq!(seen, [Seen::Output(0, FULL)]);
    let Next::WaitUntil(give_way) = next else { panic!("{next:?}") };
    assert!(give_way - now <= FRAME_PAUSE, "{:?}", give_way - now);
    assert_eq!(look(&mut state, key, give_way - Duration::from_millis(1)), (vec![], next));
    now = give_way;
    let (seen, next) = look(&mut state, key, now);
    assert_eq!(seen[0], Seen::Gap(WINDOW, 1_000_000));
    assert!(matches!(seen[1..], [Seen::Frame(1_000_000, None, _)]), "{seen:?}");
    assert_eq!(shown(&[], &seen[1]), state.scene.screen.snapshot(0));
    assert_eq!(next, Next::Wait);
    for _ in 0..100 {
        now += Duration::from_secs(1);
        state.on_output(&[b'y'; 10_000]);
        assert_eq!(look(&mut state, key, now), (vec![], Next::Wait));
    }
    // The program went on all the time, and who draws is shown all of it.
    assert!(state.may_read() && state.output_offset() == 2_000_000);
    state.on_drawn(key, 1_000_000).unwrap();
    assert!(matches!(look(&mut state, key, now).0[..], [Seen::Frame(2_000_000, Some(1_000_000), _)]));
}

#[tokio::test]
async fn past_its_window_a_viewer_is_shown_thirty_screens_a_second_each_exact_and_each_from_the_last() {
    let (mut state, begin) = (session(), Instant::now());
    let key = drawer(&mut state, begin);
    let (mut drawing, mut frames, mut gaps, mut base) = (None, Vec::new(), 0, Vec::new());
    for millisecond in 0..3_000u64 {
        let now = begin + Duration::from_millis(millisecond);
        // It takes 20 ms for a frame, in which more is printed than fits into its window.
        if let Some((offset, _)) = drawing.take_if(|(_, at)| *at == now) {
            state.on_drawn(key, offset).unwrap();
        }
        state.on_output(format!("{millisecond} and what fills the row\r\n").repeat(400).as_bytes());
        for seen in look(&mut state, key, now).0 {
            match &seen {
                Seen::Output(..) => assert!(frames.is_empty(), "output between frames"),
                Seen::Gap(..) => gaps += 1,
                Seen::Frame(offset, from, _) => {
                    assert_eq!(*from, frames.last().copied());
                    base = shown(&base, &seen);
                    assert_eq!((base == state.scene.screen.snapshot(0), *offset), (true, state.output_offset()));
                    frames.push(*offset);
                    assert_eq!(drawing.replace((*offset, now + Duration::from_millis(20))), None, "not drawn yet");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(gaps, 1);
    assert!((80..=90).contains(&frames.len()), "{} frames in three seconds", frames.len());
}

#[tokio::test]
async fn bytes_go_on_from_a_frame_that_was_drawn() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    state.on_output(&[b'x'; 3 * FULL]);
    look(&mut state, key, now);
    let seen = look(&mut state, key, now + FRAME_PAUSE).0;
    let end = 3 * WINDOW;
    assert!(matches!(seen[..], [Seen::Gap(..), Seen::Frame(at, None, _)] if at == end), "{seen:?}");
    state.on_output(&[b'y'; FULL]);
    assert_eq!(look(&mut state, key, now + 2 * FRAME_PAUSE).0, []);
    state.on_drawn(key, end).unwrap();
    assert_eq!(look(&mut state, key, now + 2 * FRAME_PAUSE), (vec![Seen::Output(end, FULL)], Next::Wait));
    // The next gap is another one, and its first frame a whole one.
    state.on_output(&[b'z'; 1]);
    assert_eq!(look(&mut state, key, now + 3 * FRAME_PAUSE).0, []);
    let seen = look(&mut state, key, now + 4 * FRAME_PAUSE).0;
    assert_eq!(seen[0], Seen::Gap(end + WINDOW, end + WINDOW + 1));
    assert!(matches!(seen[1..], [Seen::Frame(_, None, _)]), "{seen:?}");
}

#[tokio::test]
async fn another_program_keeps_what_a_viewer_has_drawn_and_begins_with_a_whole_frame() {
    let (mut state, mut now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    state.on_output(&b"a row of some length\r\n".repeat(FULL / 4));
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, FULL)]);
    state = resumed(&mut state);
    assert_eq!(look(&mut state, key, now).0, [], "its window is as full as before");
    let mut drawn = WINDOW;
    for round in 0..3 {
        now += FRAME_PAUSE;
        let mut seen = look(&mut state, key, now).0;
        if round == 0 {
            assert_eq!(seen.remove(0), Seen::Gap(WINDOW, state.output_offset()));
        }
        assert!(matches!(seen[..], [Seen::Frame(at, None, _)] if at == state.output_offset()), "{seen:?}");
        assert!(shown(&[], &seen[0]) == state.scene.screen.snapshot(0));
        state.on_output(&b"more\r\n".repeat(FULL / 2));
        state = resumed(&mut state);
        assert_eq!(look(&mut state, key, now + FRAME_PAUSE).0, [], "a frame before the last one was drawn");
        let Seen::Frame(at, ..) = seen[0] else { unreachable!() };
        state.on_drawn(key, at).unwrap();
        drawn = at;
    }
    assert_eq!(state.on_drawn(key, drawn + 1).unwrap_err().code, refusal::MALFORMED);
    // The page that was asked for before the switch comes after it, with the rows of before.
    state.on_history_wanted(key, u64::MAX, 5).unwrap();
    state = resumed(&mut state);
    let (seen, kept) = (look(&mut state, key, now).0, state.history(0));
    let page =
        |seen: &Seen| matches!(seen, Seen::History(first, from, _) if (*first, *from) == (kept.to - 5, kept.from));
    assert!(seen.first().is_some_and(page), "{seen:?}");
}

#[tokio::test]
async fn a_burst_that_is_drawn_in_time_is_sent_whole() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    state.on_output(&[b'x'; 3 * FULL + 5]);
    let mut position = 0;
    for step in 0..4 {
        let seen = look(&mut state, key, now + Duration::from_millis(8 * step)).0;
        let [Seen::Output(at, length)] = seen[..] else { panic!("{seen:?}") };
        assert!(at == position && length <= FULL);
        position += length as u64;
        state.on_drawn(key, position).unwrap();
    }
    assert_eq!(position, 3 * WINDOW + 5);
}

#[tokio::test]
async fn who_lies_about_what_is_drawn_is_refused_and_gains_nothing() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    state.on_output(&[b'x'; 2 * FULL]);
    look(&mut state, key, now);
    let refused = state.on_drawn(key, WINDOW + 1).unwrap_err();
    assert_eq!(refused.code, refusal::MALFORMED);
    state.on_drawn(key, 1_000).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(WINDOW, 1_000)]);
    // Going back changes nothing.
    state.on_drawn(key, 0).unwrap();
    state.on_drawn(key, 1_000).unwrap();
    assert_eq!(look(&mut state, key, now).0, []);
    assert_eq!(state.on_drawn(key, u64::MAX).unwrap_err().code, refusal::MALFORMED);
    // Who has no credit has nothing to say about it.
    for other in [attach(), Attach { lossless: true, credit: true, ..attach() }] {
        let (key, attached) = state.attach(other, now).unwrap();
        assert!(!attached.credit);
        assert_eq!(state.on_drawn(key, 0).unwrap_err().code, refusal::MALFORMED);
        assert_eq!(state.on_history_wanted(key, 0, 1).unwrap_err().code, refusal::MALFORMED);
    }
}

#[tokio::test]
async fn who_comes_back_with_credit_is_shown_the_present_at_once() {
    let (mut state, now) = (session(), Instant::now());
    state.on_output(&[b'x'; 6 << 20]);
    let back = |from| Attach { from: Some(from), credit: true, ..attach() };
    for from in [5, 5 << 20] {
        let (key, _) = state.attach(back(from), now).unwrap();
        let seen = look(&mut state, key, now).0;
        assert!(matches!(seen[..], [Seen::Gap(at, _), Seen::Frame(_, None, _)] if at == from), "{seen:?}");
    }
    let little = (6 << 20) - WINDOW;
    let (key, _) = state.attach(back(little), now).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(little, 80, false), Seen::Output(little, FULL)]);
    // What is from another session is not gone on from.
    let (key, _) = state.attach(back(7 << 20), now).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Snapshot(6 << 20)]);
}

#[tokio::test]
async fn a_first_look_brings_a_screen_of_history_and_pages_bring_the_rest() {
    let (mut state, now) = (session(), Instant::now());
    (0..500).for_each(|n| state.on_output(format!("row {n}\r\n").as_bytes()));
    let (key, _) = state.attach(Attach { from: None, credit: true, ..attach() }, now).unwrap();
    assert!(matches!(look(&mut state, key, now).0[..], [Seen::Snapshot(_)]));
    assert_eq!(state.scene.screen.scrollback_total(), 477);
    for (before, rows) in [(453, 100), (353, 0), (u64::MAX, 1), (0, 9)] {
        state.on_history_wanted(key, before, rows).unwrap();
    }
    let refused = state.on_history_wanted(key, 9, 9).unwrap_err();
    assert_eq!(refused.code, refusal::TOO_MANY);
    let seen = look(&mut state, key, now).0;
    let firsts: Vec<_> = seen
        .iter()
        .map(|seen| if let Seen::History(first, 0, _) = seen { *first } else { panic!("{seen:?}") })
        .collect();
    assert_eq!(firsts, [353, 353, 476, 0]);
    // Their turn over, four more may be asked for.
    state.on_history_wanted(key, 9, 9).unwrap();
}

#[tokio::test]
async fn a_first_snapshot_has_no_more_rows_than_a_screen() {
    let (mut state, now) = (session(), Instant::now());
    (0..500).for_each(|n| state.on_output(format!("row {n}\r\n").as_bytes()));
    let (key, _) = state.attach(Attach { from: None, credit: true, ..attach() }, now).unwrap();
    let mut out = BytesMut::new();
    state.fill(key, now, &mut out);
    let TerminalMessage::Snapshot { bytes, parts: 1, .. } = TerminalMessage::decode(&out[5..]).unwrap() else {
        panic!("no snapshot")
    };
    assert_eq!(Screen::restore(bytes, 1_000).unwrap().scrollback_len(), 24);
}

#[tokio::test]
async fn while_nobody_hears_a_viewer_nothing_waits_for_it() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    // The program does not read, so the holder does not read from viewers either.
    state.on_input(key, 0, &vec![b'i'; MAX_PENDING]).unwrap();
    assert!(!state.has_input_room());
    for n in 0..3 {
        state.on_output(&[b'x'; FULL]);
        assert_eq!(look(&mut state, key, now).0, [Seen::Output(n * WINDOW, FULL)]);
    }
}

#[tokio::test]
async fn the_end_comes_after_all_that_was_printed_for_who_draws_slowly_too() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    state.on_output(&[b'x'; FULL + 9]);
    state.on_reaped();
    state.on_exit(ExitRecord { state: SessionState::Exited { code: 0 }, offset: WINDOW + 9, bytes_in: 0, at: 1 });
    assert_eq!(look(&mut state, key, now).0, [Seen::Output(0, FULL)]);
    let seen = look(&mut state, key, now + FRAME_PAUSE).0;
    assert!(matches!(seen[..], [Seen::Gap(..), Seen::Frame(..)]), "{seen:?}");
    state.on_drawn(key, WINDOW + 9).unwrap();
    assert_eq!(look(&mut state, key, now + FRAME_PAUSE), (vec![Seen::Exited(WINDOW + 9)], Next::Wait));
}

#[tokio::test]
async fn a_size_that_changes_between_frames_is_in_the_next_one() {
    let (mut state, now) = (session(), Instant::now());
    let key = drawer(&mut state, now);
    let id = state.viewers[&key].0.id;
    state.take_control(id, 80, 24).unwrap();
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 80, true)]);
    state.on_output(&[b'x'; 3 * FULL]);
    look(&mut state, key, now);
    let seen = look(&mut state, key, now + FRAME_PAUSE).0;
    let base = shown(&[], &seen[1]);
    // At the offset of the frame itself it is told; later it is part of the next.
    state.resize(id, 100, 24).unwrap();
    assert_eq!(look(&mut state, key, now + FRAME_PAUSE).0, [Seen::Resized(3 * WINDOW, 100, true)]);
    state.on_output(&[b'x'; 2 * FULL]);
    state.resize(id, 90, 24).unwrap();
    state.on_drawn(key, 3 * WINDOW).unwrap();
    let seen = look(&mut state, key, now + 2 * FRAME_PAUSE).0;
    assert_eq!(seen.len(), 1, "{seen:?}");
    let screen = Screen::restore(&shown(&base, &seen[0]), 0).unwrap();
    assert_eq!(screen.size(), (90, 24));
    state.on_drawn(key, 5 * WINDOW).unwrap();
    assert_eq!(look(&mut state, key, now + 3 * FRAME_PAUSE), (vec![], Next::Wait));
}

#[tokio::test]
async fn a_history_of_somebody_elses_is_told_with_a_frame_to_who_asks_for_history() {
    let (mut state, now) = (session(), Instant::now());
    let (asks, other) = (drawer(&mut state, now), drawer(&mut state, now));
    state.on_history_wanted(asks, 0, 0).unwrap();
    assert!(state.asks_history());
    look(&mut state, asks, now);
    look(&mut state, other, now);
    let rows = |count| {
        let mut screen = Screen::new(80, 1, count);
        (0..count).for_each(|n| drop(screen.feed(format!("{n}\r\n").as_bytes())));
        let mut rows = OlderRows::default();
        screen.history_from(0).for_each(|row| rows.push(row).unwrap());
        vec![rows]
    };
    state.on_output(b"abc");
    state.on_other_history(false, rows(7));
    // First it draws what it was sent.
    assert_eq!(look(&mut state, asks, now), (vec![Seen::Output(0, 3)], Next::Wait));
    state.on_drawn(asks, 3).unwrap();
    let (seen, next) = look(&mut state, asks, now);
    assert!(matches!(seen[..], [Seen::Frame(3, None, _)]), "{seen:?}");
    assert_eq!(Screen::restore(&shown(&[], &seen[0]), 0).unwrap().scrollback_total(), 7);
    assert_eq!(next, Next::Wait);
    assert_eq!(look(&mut state, other, now).0, [Seen::Output(0, 3)]);
    // Anew: the old rows are gone, and numbers go on.
    state.on_drawn(asks, 3).unwrap();
    state.on_other_history(true, rows(2));
    let (seen, _) = look(&mut state, asks, now);
    assert!(matches!(seen[..], [Seen::Frame(3, ..)]), "{seen:?}");
    assert_eq!((state.scene.screen.scrollback_start(), state.scene.screen.scrollback_total()), (7, 9));
    state.on_output(b"d");
    state.on_drawn(asks, 3).unwrap();
    assert_eq!(look(&mut state, asks, now).0, [Seen::Output(3, 1)]);
}

#[tokio::test]
async fn a_size_that_others_decide_is_followed_until_a_viewer_takes_it() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(attach(), now).unwrap();
    look(&mut state, key, now);
    state.on_outside(Some("tmux"));
    assert!(state.follow_size(Size::clamped(120, 40)));
    assert!(!state.follow_size(Size::clamped(120, 40)));
    assert_eq!(look(&mut state, key, now).0, [Seen::Resized(0, 120, false)]);
    assert_eq!(state.status().controller.as_deref(), Some("tmux"));
    let (late, attached) = state.attach(Attach { take_control: true, ..attach() }, now).unwrap();
    assert!(!attached.you_control, "somebody decides already");
    let id = state.viewers[&late].0.id;
    state.take_control(id, 50, 20).unwrap();
    assert!(!state.follow_size(Size::clamped(120, 40)) && state.is_controlled());
    assert_eq!((state.status().cols, state.status().controller.as_deref()), (50, Some("desk")));
    state.detach(late);
    assert!(state.follow_size(Size::clamped(120, 40)));
    state.on_outside(None);
    assert_eq!(state.status().controller, None);
}

#[tokio::test]
async fn who_has_ended_the_client_has_left_and_the_others_are_cut_off_without_fault() {
    let (mut state, now) = (session(), Instant::now());
    let (typist, _) = state.attach(attach(), now).unwrap();
    let (other, _) = state.attach(attach(), now).unwrap();
    state.on_input(typist, 0, b"\x02d").unwrap();
    state.on_output(b"[detached]");
    state.on_client_left();
    let seen = look(&mut state, typist, now).0;
    assert_eq!(seen, [Seen::Resized(0, 80, false), Seen::Output(0, 10), Seen::Exited(10)]);
    assert_eq!(state.take_end(other).unwrap_err().code, refusal::DETACHED);
    assert_eq!((state.viewer_count(), state.status().state), (1, SessionState::Running));
    assert_eq!(
        state.attach(attach(), now).map(drop).unwrap_err().code,
        refusal::CONFLICT,
        "nothing comes here any more"
    );
}

#[tokio::test]
async fn the_end_comes_last_and_once() {
    let (mut state, now) = (session(), Instant::now());
    let (key, _) = state.attach(attach(), now).unwrap();
    state.on_output(b"last words");
    state.on_reaped();
    state.on_exit(ExitRecord { state: SessionState::Exited { code: 0 }, offset: 10, bytes_in: 0, at: 1 });
    let wanted = [Seen::Resized(0, 80, false), Seen::Output(0, 10), Seen::Exited(10)];
    assert_eq!(look(&mut state, key, now), (wanted.into(), Next::Wait));
    assert_eq!(look(&mut state, key, now), (vec![], Next::Wait));
    // Typing into what has ended is no fault, and changes nothing.
    state.on_input(key, 0, b"x").unwrap();
    assert!(state.pending_input().is_empty());
}
