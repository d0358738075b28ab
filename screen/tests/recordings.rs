//! Recordings of real programs, cut at random places: what a viewer sees who joins there is what one sees who was there from the start.
//!
//! `cut.rs` finds the shortest stream that breaks the property; here are the streams that people look at. Where the screen itself differs from
//! another terminal is the business of `cargo xtask test terminal`.

#[path = "common/cast.rs"]
mod cast;
mod common;

use cast::{Event, Recording, recordings};
use common::{State, restored, state};
use happy_screen::{DEFAULT_SCROLLBACK, Screen};

/// How many recordings there must be at least, lest a folder that was lost makes the tests green.
const RECORDINGS: usize = 60;
const CUTS: usize = 200;
/// The recordings are dealt to so many tests, which run at the same time.
const HANDS: usize = 8;

/// Ends open strings, shows both screens, and uses the pen, the charset, the tabs, the margins and the cursors that are in force.
const UNCOVER: &[u8] = b"\x18p\x1b8q\tr\x1b[?1049ls\x1b[?1047ht\x1b[?1047l\x1b8u\x1b[2b\x1b[<u\x1b[23t\ntail";

/// Feeds a screen and says at which byte of the output it stands.
struct Player<'a> {
    screen: Screen,
    /// What is still to come; the first event without the bytes that are through.
    events: &'a [Event],
    through: usize,
}

impl<'a> Player<'a> {
    fn new(recording: &'a Recording) -> Self {
        let (cols, rows) = recording.size;
        Self { screen: Screen::new(cols, rows, DEFAULT_SCROLLBACK), events: &recording.events, through: 0 }
    }

    /// Plays until `bytes` more have been printed, but not past a mark or a change of size that follows them.
    fn play_bytes(&mut self, mut bytes: usize) {
        while bytes > 0
            && let Some((event, later)) = self.events.split_first()
        {
            if let Event::Output(output) = event {
                let rest = &output[self.through..];
                let now = rest.len().min(bytes);
                self.screen.feed(&rest[..now]);
                bytes -= now;
                self.through += now;
                if self.through < output.len() {
                    return;
                }
                self.through = 0;
                self.events = later;
            } else {
                self.play_event();
            }
        }
    }

    /// Plays one event, or what is left of it. Whether it was a mark; none at the end.
    fn play_event(&mut self) -> Option<bool> {
        let (event, later) = self.events.split_first()?;
        match event {
            Event::Output(output) => drop(self.screen.feed(&output[self.through..])),
            Event::Resize(cols, rows) => self.screen.resize(*cols, *rows),
            Event::Mark => {}
        }
        (self.events, self.through) = (later, 0);
        Some(matches!(event, Event::Mark))
    }

    /// Plays to the next mark, or to the end.
    fn play_to_mark(&mut self) {
        while self.play_event().is_some_and(|mark| !mark) {}
    }
}

/// What shows when all has been played, and what came to light then.
fn ending(mut player: Player<'_>) -> (State, State) {
    while player.play_event().is_some() {}
    let shown = state(&player.screen);
    player.screen.feed(UNCOVER);
    (shown, state(&player.screen))
}

/// 200 places, the same in every run.
fn cuts(recording: &Recording) -> Vec<usize> {
    // FNV-1a of the name, then SplitMix64.
    let mut seed = recording
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let mut next = || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let places = recording.output() as u64 + 1;
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| (next() % places) as usize).collect();
    cuts.sort_unstable();
    cuts
}

fn check(recording: &Recording) {
    let name = &recording.name;
    let (end, uncovered) = ending(Player::new(recording));
    let mut original = Player::new(recording);
    let mut at = 0;
    // Two cuts before the same mark are compared with one original.
    let mut next_mark: Option<(usize, State)> = None;
    for cut in cuts(recording) {
        original.play_bytes(cut - at);
        at = cut;
        let mut viewer = Player { screen: restored(&original.screen), ..original };
        assert!(state(&viewer.screen) == state(&original.screen), "{name}: cut at byte {cut}: not the same at once");

        viewer.play_to_mark();
        let left = viewer.events.len();
        if next_mark.as_ref().is_none_or(|(length, _)| *length != left) {
            let mut onlooker = Player::new(recording);
            while onlooker.events.len() > left && onlooker.play_event().is_some() {}
            next_mark = Some((left, state(&onlooker.screen)));
        }
        let (_, expected) = next_mark.as_ref().expect("just made");
        assert_eq!(&state(&viewer.screen), expected, "{name}: cut at byte {cut}: another screen at the next mark");

        let (viewer_end, viewer_uncovered) = ending(viewer);
        assert_eq!(viewer_end, end, "{name}: cut at byte {cut}: another screen at the end");
        assert_eq!(viewer_uncovered, uncovered, "{name}: cut at byte {cut}: something else came to light");
    }
}

fn check_hand(hand: usize) {
    let recordings = recordings();
    assert!(recordings.len() >= RECORDINGS, "only {} recordings", recordings.len());
    recordings.iter().skip(hand).step_by(HANDS).for_each(check);
}

macro_rules! hands {
    ($($name:ident = $hand:literal),*) => {
        $(#[test]
        fn $name() {
            check_hand($hand);
        })*
    };
}

hands!(
    cut_anywhere_recordings_continue_1 = 0,
    cut_anywhere_recordings_continue_2 = 1,
    cut_anywhere_recordings_continue_3 = 2,
    cut_anywhere_recordings_continue_4 = 3,
    cut_anywhere_recordings_continue_5 = 4,
    cut_anywhere_recordings_continue_6 = 5,
    cut_anywhere_recordings_continue_7 = 6,
    cut_anywhere_recordings_continue_8 = 7
);

/// They are kept in the repository, so they are kept small, and say nothing of the machine that made them.
#[test]
fn the_recordings_are_small_and_tell_no_secrets() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut total = 0;
    for file in std::fs::read_dir(folder).expect("the folder") {
        let file = file.expect("a file").path();
        let text = std::fs::read_to_string(&file).expect("text");
        assert!(text.len() <= 200_000, "{}: {} bytes", file.display(), text.len());
        total += text.len();
        for told in ["/root/", "/work/", "/home/", "/Users/"] {
            let stage = text.replace("/tmp/rec/home/", "");
            assert!(!stage.contains(told), "{}: {told}", file.display());
        }
    }
    assert!(total <= 2 << 20, "{total} bytes");
}

/// A cut test over recordings that never leave the ground would prove little.
#[test]
fn the_recordings_use_what_terminals_can_do() {
    let recordings = recordings();
    let all: Vec<u8> = recordings
        .iter()
        .flat_map(|recording| &recording.events)
        .filter_map(|event| if let Event::Output(bytes) = event { Some(bytes.as_slice()) } else { None })
        .collect::<Vec<_>>()
        .concat();
    for sequence in [
        "\x1b[?1049h",
        "\x1b[?1h",
        "\x1b[?25l",
        "\x1b[?1000h",
        "\x1b[?1002h",
        "\x1b[?1006h",
        "\x1b[?1004h",
        "\x1b[?2004h",
        "\x1b[?2026h",
        "\x1b]0;",
        "\x1b]2;",
        "\x1b]8;",
        "\x1b(0",
        "\x1b[4h",
        "\x1b[?6h",
        "\x1b[38;2;",
        "\x1b[48;5;",
        "\x1b[4:3m",
        "\x1bM",
        "\x1b7",
        "\x1b[>4;2m",
        "\x1b#8",
        "世",
        "😀",
        "e\u{301}",
        "\x1b[6n",
    ] {
        let found = all.windows(sequence.len()).any(|window| window == sequence.as_bytes());
        assert!(found, "no recording prints {sequence:?}");
    }
    let resized =
        recordings.iter().filter(|recording| recording.events.iter().any(|event| matches!(event, Event::Resize(..))));
    assert!(resized.count() >= 6, "too few recordings change the size");
    let sizes: std::collections::BTreeSet<_> = recordings.iter().map(|recording| recording.size).collect();
    assert!([(80, 24), (40, 20), (200, 60)].iter().all(|size| sizes.contains(size)), "{sizes:?}");
}
