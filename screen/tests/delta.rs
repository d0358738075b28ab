//! What is sent to a viewer that falls behind: differences between the screens of real programs, and of anything.

#[allow(dead_code, reason = "each test takes what it needs")]
#[path = "common/cast.rs"]
mod cast;

use cast::{Event, recordings};
use happy_screen::delta::{apply, diff};
use happy_screen::{DEFAULT_SCROLLBACK, Screen};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Output between two screens: what a program prints in a thirtieth of a second, more or less.
const STEP: usize = 2_000;

/// Strings that share much: a few lines and escapes, in any order.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => select(vec!["one line of text\r\n", "another line\r\n", "\x1b[31mred and long", "\x1b[m", "x", "\r\n", "\n\x1b"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..20),
    ];
    vec(line, 0..30).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn anything_comes_back(old in vec(any::<u8>(), 0..400), new in vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(apply(&old, &diff(&old, &new)), Ok(new));
    }

    #[test]
    fn what_is_alike_comes_back_and_is_never_much_longer(old in lines(), new in lines()) {
        let delta = diff(&old, &new);
        prop_assert!(delta.len() <= new.len() + new.len() / 2 + 8);
        prop_assert_eq!(apply(&old, &delta), Ok(new));
    }

    #[test]
    fn a_difference_from_anybody_does_no_harm(old in lines(), delta in vec(prop_oneof![0..20_u8, any::<u8>()], 0..60)) {
        let _ = apply(&old, &delta);
    }
}

#[test]
fn the_screens_of_programs_come_back_and_cost_a_part_of_themselves() {
    let (mut whole, mut differences, mut steps) = (0, 0, 0);
    for recording in recordings() {
        let (cols, rows) = recording.size;
        let mut screen = Screen::new(cols, rows, DEFAULT_SCROLLBACK);
        let mut shown = screen.snapshot(0);
        for event in &recording.events {
            let pieces = match event {
                Event::Output(bytes) => bytes.chunks(STEP).collect(),
                Event::Resize(cols, rows) => {
                    screen.resize(*cols, *rows);
                    vec![&[][..]]
                }
                Event::Mark => continue,
            };
            for piece in pieces {
                screen.feed(piece);
                let now = screen.snapshot(0);
                let delta = diff(&shown, &now);
                let made = apply(&shown, &delta).unwrap_or_else(|error| panic!("{}: {error}", recording.name));
                assert!(made == now, "{}: another screen", recording.name);
                whole += now.len();
                differences += delta.len();
                steps += 1;
                shown = now;
            }
        }
    }
    println!("{steps} screens of {} bytes, differences of {}", whole / steps, differences / steps);
    assert!(
        steps > 1_000 && differences * 3 < whole && differences < 300 * steps,
        "{steps} screens, {differences} of {whole} bytes"
    );
}
