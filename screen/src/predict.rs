//! Shows what was typed before the machine has answered: predictive echo, after mosh (Winstein and Balakrishnan, USENIX ATC 2012).
//!
//! A guess stands beside the screen and never in it, so a wrong one leaves nothing behind. Guesses are made in *epochs*. The first guess of an epoch
//! is kept to itself until the machine has confirmed one of its epoch; a key after which nobody can know what happens (Enter, Escape, a control
//! key) begins another one, once its own echo has come. So what a program does not echo, a password among it, is not shown: none of its epoch is ever confirmed.
//!
//! The machine says how much of the input has reached the program (`InputTaken`, PROTOCOL 10.1). A while later its echo has come, if there is one, and
//! each guess is held against the screen. One wrong guess of a confirmed epoch takes all of them away.
//!
//! Guesses are drawn on slow links only. Like the rest of this crate it has no clock: times are given, counted from wherever the viewer likes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::Screen;

/// The round trip above which guesses are drawn, and below which they are not any more once none is left. Mosh has the same numbers for half of it; a
/// phone's own way to the glass takes longer.
const SLOW: Duration = Duration::from_millis(30);
const FAST: Duration = Duration::from_millis(20);
/// The same for marking them, so that people see that the line is slow.
const MARKED: Duration = Duration::from_millis(80);
const UNMARKED: Duration = Duration::from_millis(50);
/// A guess that waits for longer makes guesses drawn whatever the round trip was before; so many that are confirmed sooner end that.
const GLITCH: Duration = Duration::from_millis(250);
const REPAIRS: u32 = 10;
/// One repair is counted in so long.
const REPAIR_PAUSE: Duration = Duration::from_millis(150);
/// A guess that waits for longer is marked.
const LONG: Duration = Duration::from_secs(5);
/// What a program answers has come so long after its input was taken.
const ECHO: Duration = Duration::from_millis(50);
/// More input at once is pasted, and nobody waits for the echo of each character.
const MAX_TYPED: usize = 100;
/// Keys whose round trip is measured at once.
const MAX_TIMED: usize = 64;

/// What to draw instead of what the screen has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Row, column and character, in the order of rows and columns.
    pub cells: Vec<(u16, u16, char)>,
    /// Row and column of the cursor.
    pub cursor: Option<(u16, u16)>,
    /// Whether they shall be told apart from what is certain.
    pub marked: bool,
}

/// Guesses for one viewer.
#[derive(Debug, Default)]
pub struct Predictor {
    size: (u16, u16),
    /// The beginning of a character whose rest is still to be typed.
    held: Vec<u8>,
    epoch: u64,
    /// Guesses of this epoch and of those before it may be drawn.
    confirmed: u64,
    cells: BTreeMap<(u16, u16), Guess>,
    cursor: Option<Place>,
    /// Where the cursor was when it was last where it was expected.
    rest: Option<(u16, u16)>,
    /// Nobody knows where the cursor will be before the echo of this input: nothing is guessed until then.
    lost_until: u64,
    /// Behind all input.
    last: u64,
    /// When each key was typed, by the input offset behind it.
    typed: VecDeque<(u64, Duration)>,
    /// Input that was taken, and when its echo is certain to have come.
    taken: VecDeque<(u64, Duration)>,
    /// The echo of all input before this has come.
    echoed: u64,
    round_trip: Option<Duration>,
    slow: bool,
    marked: bool,
    /// How many quick guesses are wanted before the line counts as quick again.
    glitch: u32,
    repaired_at: Duration,
}

/// A character that is expected.
#[derive(Debug, Clone, Copy)]
struct Guess {
    /// None: something that is not known.
    shows: Option<char>,
    /// What stood there when it was guessed. That it stands there still proves nothing.
    stood: char,
    /// Behind the key.
    offset: u64,
    epoch: u64,
    at: Duration,
}

/// Where the cursor is expected.
#[derive(Debug, Clone, Copy)]
struct Place {
    row: u16,
    col: u16,
    offset: u64,
    epoch: u64,
}

/// A key, as far as it can be guessed what it does.
enum Key {
    Text(char),
    Backspace,
    Left,
    Right,
    Other,
}

impl Predictor {
    /// Guesses nothing any more, and lets nothing unconfirmed be drawn. For a new screen too.
    pub fn reset(&mut self) {
        self.cells.clear();
        self.lose();
        self.begin_epoch();
    }

    /// The person has typed: input that ends at `offset`, seen with this screen.
    pub fn on_input(&mut self, now: Duration, offset: u64, bytes: &[u8], screen: &Screen) {
        if self.size != screen.size() {
            self.size = screen.size();
            self.reset();
        }
        self.last = offset;
        // What was taken back is typed no more.
        while self.typed.pop_back_if(|(typed, _)| *typed >= offset).is_some() {}
        if self.typed.len() < MAX_TIMED {
            self.typed.push_back((offset, now));
        }
        if bytes.len() > MAX_TYPED {
            self.held.clear();
            return self.reset();
        }
        let mut input = std::mem::take(&mut self.held);
        input.extend_from_slice(bytes);
        let mut rest = &input[..];
        while let Some((key, length)) = next_key(rest) {
            rest = rest.get(length..).unwrap_or_default();
            self.guess(now, offset, key, screen);
        }
        self.held = rest.to_vec();
    }

    /// The machine says that all input before `offset` has reached the program.
    pub fn on_taken(&mut self, now: Duration, offset: u64) {
        let mut sample = None;
        while let Some((_, at)) = self.typed.pop_front_if(|(typed, _)| *typed <= offset) {
            sample = Some(now.saturating_sub(at));
        }
        if let Some(sample) = sample {
            // RFC 6298, 2: an eighth of what is new.
            self.round_trip = Some(self.round_trip.map_or(sample, |known| known * 7 / 8 + sample / 8));
        }
        if self.taken.back().is_none_or(|(last, _)| *last < offset) {
            self.taken.push_back((offset, now + ECHO));
        }
        // Who takes input so slowly that this grows has it counted in larger steps.
        if self.taken.len() > MAX_TIMED {
            self.taken.pop_front();
        }
    }

    /// Holds the guesses against the screen: after output, and at [`Predictor::next_look`].
    pub fn look(&mut self, now: Duration, screen: &Screen) {
        if self.size != screen.size() {
            self.size = screen.size();
            self.reset();
        }
        while let Some((offset, _)) = self.taken.pop_front_if(|(_, at)| *at <= now) {
            self.echoed = self.echoed.max(offset);
        }
        self.judge_line();
        self.judge_cells(now, screen);
        self.judge_cursor(screen);
    }

    /// When to look again, if nothing is printed before.
    pub fn next_look(&self) -> Option<Duration> {
        let echo = self.taken.front().map(|(_, at)| *at);
        let oldest = self.cells.values().map(|guess| guess.at).min();
        // A guess is looked at when it becomes a glitch, and when it has been one for long.
        let glitch = oldest.map(|at| if self.glitch == 0 { at + GLITCH } else { at + LONG });
        echo.into_iter().chain(glitch.filter(|_| self.glitch <= REPAIRS)).min()
    }

    /// What to draw over the screen now.
    pub fn overlay(&self, screen: &Screen) -> Overlay {
        if !(self.slow || self.glitch > 0) || self.size != screen.size() {
            return Overlay::default();
        }
        let shown = self.cells.iter().filter(|(_, guess)| guess.epoch <= self.confirmed);
        let cells = shown.filter_map(|((row, col), guess)| Some((*row, *col, guess.shows?))).collect();
        let cursor = self.cursor.filter(|place| place.epoch <= self.confirmed).map(|place| (place.row, place.col));
        Overlay { cells, cursor, marked: self.marked || self.glitch > REPAIRS }
    }

    /// Nobody knows where the cursor will be when the echo of all that was typed has come.
    fn lose(&mut self) {
        self.cursor = None;
        self.lost_until = self.last;
    }

    fn begin_epoch(&mut self) {
        self.epoch = self.epoch.max(self.confirmed) + 1;
    }

    fn guess(&mut self, now: Duration, offset: u64, key: Key, screen: &Screen) {
        if self.lost_until > self.echoed {
            // Nor after this key.
            return self.lose();
        }
        let (cols, _) = self.size;
        let real = screen.cursor();
        if self.cursor.is_none() && self.rest != Some((real.row, real.col)) {
            // Something was printed that nobody typed: a question, maybe, to which the answer is a secret.
            self.rest = Some((real.row, real.col));
            self.begin_epoch();
        }
        let (row, col) = self.cursor.map_or((real.row, real.col), |place| (place.row, place.col));
        let known = self.cursor.is_some() || !real.pending_wrap;
        let make = |shows, stood, epoch| Guess { shows, stood, offset, epoch, at: now };
        match key {
            Key::Text(text) if known && col + 1 < cols => {
                let line = self.line(row, screen);
                let end = line.iter().rposition(|cell| *cell != Some(' ')).map_or(0, |last| last + 1);
                let real = Line::of(screen, row);
                // What stands right of it moves right; what the last column had is not known any more.
                for to in (usize::from(col) + 1..=end.min(usize::from(cols) - 1)).rev() {
                    let shows = line[to - 1].filter(|_| to + 1 < usize::from(cols));
                    self.cells.insert((row, to as u16), make(shows, real.at(to as u16), self.epoch));
                }
                self.cells.insert((row, col), make(Some(text), real.at(col), self.epoch));
                self.move_to(row, col + 1, offset);
            }
            Key::Backspace if known && col > 0 => {
                let line = self.line(row, screen);
                let end = line.iter().rposition(|cell| *cell != Some(' ')).map_or(0, |last| last + 1);
                let real = Line::of(screen, row);
                for to in usize::from(col) - 1..end.max(usize::from(col)) {
                    let shows = line.get(to + 1).copied().unwrap_or(Some(' '));
                    self.cells.insert((row, to as u16), make(shows, real.at(to as u16), self.epoch));
                }
                self.move_to(row, col - 1, offset);
            }
            Key::Left if known && col > 0 => self.move_to(row, col - 1, offset),
            Key::Right if known && col + 1 < cols => self.move_to(row, col + 1, offset),
            _ => {
                self.begin_epoch();
                self.lose();
            }
        }
    }

    fn move_to(&mut self, row: u16, col: u16, offset: u64) {
        self.cursor = Some(Place { row, col, offset, epoch: self.epoch });
    }

    /// A row as it would look with all guesses; None where that is not known.
    fn line(&self, row: u16, screen: &Screen) -> Vec<Option<char>> {
        let real = Line::of(screen, row);
        let shown = |col| self.cells.get(&(row, col)).map_or_else(|| Some(real.at(col)), |guess| guess.shows);
        (0..self.size.0).map(shown).collect()
    }

    fn judge_line(&mut self) {
        let Some(round_trip) = self.round_trip else { return };
        let idle = self.cells.is_empty() && self.cursor.is_none();
        if round_trip > SLOW {
            self.slow = true;
        } else if round_trip <= FAST && idle {
            self.slow = false;
        }
        if round_trip > MARKED {
            self.marked = true;
        } else if round_trip <= UNMARKED {
            self.marked = false;
        }
    }

    fn judge_cells(&mut self, now: Duration, screen: &Screen) {
        let mut line: Option<(u16, Line)> = None;
        let cells: Vec<_> = self.cells.iter().map(|(place, guess)| (*place, *guess)).collect();
        for ((row, col), guess) in cells {
            if !self.cells.contains_key(&(row, col)) {
                // It went with its epoch.
                continue;
            }
            let waited = now.saturating_sub(guess.at);
            if self.echoed < guess.offset {
                if waited >= LONG {
                    self.glitch = 2 * REPAIRS;
                } else if waited >= GLITCH {
                    self.glitch = self.glitch.max(REPAIRS);
                }
                continue;
            }
            if line.as_ref().is_none_or(|(known, _)| *known != row) {
                line = Some((row, Line::of(screen, row)));
            }
            let stands = line.as_ref().map_or(' ', |(_, line)| line.at(col));
            match guess.shows {
                Some(shows) if shows != stands => {
                    if guess.epoch <= self.confirmed {
                        return self.reset();
                    }
                    self.drop_epoch(guess.epoch);
                }
                Some(shows) if shows != ' ' && guess.stood != shows => {
                    self.confirmed = self.confirmed.max(guess.epoch);
                    if waited < GLITCH && self.glitch > 0 && now.saturating_sub(self.repaired_at) >= REPAIR_PAUSE {
                        self.glitch -= 1;
                        self.repaired_at = now;
                    }
                    self.cells.remove(&(row, col));
                }
                // Right, and no proof that the program echoes.
                _ => drop(self.cells.remove(&(row, col))),
            }
        }
    }

    fn judge_cursor(&mut self, screen: &Screen) {
        let Some(place) = self.cursor.filter(|place| self.echoed >= place.offset) else { return };
        let real = screen.cursor();
        self.cursor = None;
        self.rest = Some((real.row, real.col));
        if (real.row, real.col) != (place.row, place.col) {
            match place.epoch <= self.confirmed {
                true => self.reset(),
                false => self.drop_epoch(place.epoch),
            }
        }
    }

    /// Guesses of this epoch were wrong before anybody has seen them.
    fn drop_epoch(&mut self, epoch: u64) {
        self.cells.retain(|_, guess| guess.epoch < epoch);
        self.lose();
        self.begin_epoch();
    }
}

/// What stands in a row of the screen, by column.
struct Line(Vec<char>);

impl Line {
    fn of(screen: &Screen, row: u16) -> Self {
        let mut line = Vec::new();
        for run in screen.row(row).runs {
            let begin = line.len();
            for text in run.text.chars() {
                line.push(text);
                if run.wide {
                    line.push(WIDE);
                }
            }
            // Characters with marks are more than one, and never what is guessed.
            if line.len() - begin != usize::from(run.columns) {
                line.truncate(begin);
                line.resize(begin + usize::from(run.columns), WIDE);
            }
        }
        Self(line)
    }

    fn at(&self, col: u16) -> char {
        self.0.get(usize::from(col)).copied().unwrap_or(' ')
    }
}

/// Stands where something is that is never guessed.
const WIDE: char = '\0';

/// The first key of the input and its length in bytes. None when it is a character that is not complete.
fn next_key(input: &[u8]) -> Option<(Key, usize)> {
    let first = *input.first()?;
    match first {
        0x7f | 0x08 => Some((Key::Backspace, 1)),
        0x1b => Some(escape(input)),
        0..=0x1f => Some((Key::Other, 1)),
        _ => {
            let text = match std::str::from_utf8(input) {
                Ok(text) => text.chars().next(),
                Err(error) if error.valid_up_to() > 0 => {
                    std::str::from_utf8(&input[..error.valid_up_to()]).ok().and_then(|text| text.chars().next())
                }
                Err(error) if error.error_len().is_none() => return None,
                Err(_) => return Some((Key::Other, 1)),
            };
            let text = text?;
            Some((if is_narrow(text) { Key::Text(text) } else { Key::Other }, text.len_utf8()))
        }
    }
}

/// Arrows, as they are sent with and without application cursor keys. What else begins with Escape is not guessed, to its end.
fn escape(input: &[u8]) -> (Key, usize) {
    match input {
        [_, b'[' | b'O', b'C', ..] => (Key::Right, 3),
        [_, b'[' | b'O', b'D', ..] => (Key::Left, 3),
        [_, b'[', rest @ ..] => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
            (Key::Other, end.map_or(input.len(), |end| 2 + end + 1))
        }
        [_, b'O', ..] => (Key::Other, input.len().min(3)),
        _ => (Key::Other, input.len().min(2)),
    }
}

/// Letters that certainly take one column: what scripts write that are neither wide nor made of marks.
fn is_narrow(text: char) -> bool {
    matches!(text, ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{2ff}' | '\u{370}'..='\u{482}' | '\u{48a}'..='\u{52f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A viewer at the end of a slow line, and a program that answers each key.
    struct World {
        one_way: Duration,
        now: Duration,
        program: Screen,
        seen: Screen,
        predictor: Predictor,
        typed: u64,
        /// Keys and output on their way, with the time at which they arrive.
        keys: VecDeque<(Duration, u64, Vec<u8>)>,
        output: VecDeque<(Duration, u64, Vec<u8>)>,
        /// What each look has shown that the screen had not.
        shown: Vec<String>,
        answer: fn(&[u8]) -> Vec<u8>,
    }

    fn echo(key: &[u8]) -> Vec<u8> {
        match key {
            b"\r" => b"\r\n$ ".to_vec(),
            b"\x7f" => b"\x08 \x08".to_vec(),
            _ => key.to_vec(),
        }
    }

    fn silence(key: &[u8]) -> Vec<u8> {
        if key == b"\r" { b"\r\nPassword: ".to_vec() } else { Vec::new() }
    }

    const STEP: Duration = Duration::from_millis(5);

    impl World {
        fn new(round_trip_ms: u64, answer: fn(&[u8]) -> Vec<u8>) -> Self {
            let screen = || {
                let mut screen = Screen::new(40, 6, 100);
                screen.feed(b"$ ");
                screen
            };
            Self {
                one_way: Duration::from_millis(round_trip_ms) / 2,
                now: Duration::ZERO,
                program: screen(),
                seen: screen(),
                predictor: Predictor::default(),
                typed: 0,
                keys: VecDeque::new(),
                output: VecDeque::new(),
                shown: Vec::new(),
                answer,
            }
        }

        fn press(&mut self, key: &[u8]) {
            self.typed += key.len() as u64;
            self.predictor.on_input(self.now, self.typed, key, &self.seen);
            self.keys.push_back((self.now + self.one_way, self.typed, key.to_vec()));
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += STEP;
                while let Some((_, offset, key)) = self.keys.pop_front_if(|(at, ..)| *at <= self.now) {
                    let output = (self.answer)(&key);
                    self.program.feed(&output);
                    self.output.push_back((self.now + self.one_way, offset, output));
                }
                while let Some((_, offset, output)) = self.output.pop_front_if(|(at, ..)| *at <= self.now) {
                    self.predictor.on_taken(self.now, offset);
                    self.seen.feed(&output);
                }
                self.predictor.look(self.now, &self.seen);
            }
        }

        /// Types at a person's pace, and notes what was drawn at once.
        fn type_in(&mut self, text: &str) {
            for key in text.chars() {
                self.press(key.to_string().as_bytes());
                let overlay = self.overlay();
                self.shown.push(overlay.cells.iter().map(|(.., text)| *text).collect());
                self.run(Duration::from_millis(40));
            }
        }

        fn overlay(&self) -> Overlay {
            self.predictor.overlay(&self.seen)
        }

        /// Long enough for everything to be answered.
        fn settle(&mut self) {
            self.run(4 * self.one_way + 2 * ECHO);
            assert_eq!(self.overlay().cells, [], "nothing is left of what was guessed");
            assert_eq!(self.overlay().cursor, None);
            assert_eq!(self.seen.text(), self.program.text());
        }
    }

    fn drawn(overlay: &Overlay) -> String {
        overlay.cells.iter().map(|(.., text)| *text).collect()
    }

    #[test]
    fn on_a_slow_line_what_is_typed_is_seen_at_once_from_the_first_confirmation_on() {
        let mut world = World::new(200, echo);
        world.type_in("git status --short");
        let at_once = world.shown.iter().filter(|shown| !shown.is_empty()).count();
        // The first keys wait for the first answer: a round trip and the time for an echo.
        assert!(at_once * 10 >= world.shown.len() * 6, "{:?}", world.shown);
        assert!(world.overlay().cursor.is_some());
        world.settle();
        world.type_in("\r");
        world.settle();
        world.type_in("ls -la /usr/share");
        assert!(drawn(&world.overlay()).ends_with("are"), "{:?}", world.overlay());
        world.settle();
    }

    #[test]
    fn on_a_fast_line_nothing_is_drawn_and_a_line_that_stalls_is_made_good_by_guesses() {
        let mut world = World::new(20, echo);
        world.type_in("git status");
        assert!(world.shown.iter().all(String::is_empty), "{:?}", world.shown);
        world.settle();
        world.one_way = Duration::from_millis(400);
        world.type_in("abcdefgh");
        assert_eq!(drawn(&world.overlay()), "abcdefgh", "they have waited for longer than a glitch");
        world.settle();
    }

    #[test]
    fn a_password_is_never_drawn() {
        let mut world = World::new(300, echo);
        world.type_in("sudo true");
        world.settle();
        world.answer = silence;
        world.type_in("\rhunter2");
        world.run(Duration::from_secs(1));
        world.type_in("\r");
        world.run(Duration::from_secs(1));
        world.type_in("correct horse");
        let after = &world.shown["sudo true".len() + 1..];
        assert!(after.iter().all(String::is_empty), "{after:?}");
        world.run(Duration::from_secs(1));
        world.settle();
    }

    #[test]
    fn nothing_is_guessed_while_keys_are_on_their_way_that_nobody_has_guessed() {
        let mut world = World::new(200, echo);
        world.type_in("make");
        world.settle();
        // The same letter again and again: one that is guessed at the wrong place would seem to be right.
        world.type_in("\rllllllllllllllllllll");
        let after = world.shown["make".len()..].iter();
        assert!(after.clone().all(String::is_empty), "{:?}", after.collect::<Vec<_>>());
        world.settle();
        world.type_in("ls");
        world.settle();
        world.type_in("x");
        assert_eq!(drawn(&world.overlay()), "x");
        world.settle();
    }

    #[test]
    fn who_asks_without_being_asked_is_not_answered_in_public() {
        let mut world = World::new(300, echo);
        world.type_in("sleep 9; su");
        world.settle();
        let before = world.shown.len();
        // The program of before asks now; the line was confirmed, and what is typed next is none of its echo.
        world.answer = silence;
        for screen in [&mut world.program, &mut world.seen] {
            screen.feed(b"\r\nPassword: ");
        }
        world.run(Duration::from_millis(100));
        world.type_in("hunter2");
        assert!(world.shown[before..].iter().all(String::is_empty), "{:?}", world.shown);
        world.run(Duration::from_secs(1));
        world.settle();
    }

    #[test]
    fn a_wrong_guess_goes_with_all_others_and_the_next_ones_wait_to_be_confirmed() {
        fn stars(key: &[u8]) -> Vec<u8> {
            vec![b'*'; key.len()]
        }
        let mut world = World::new(200, echo);
        world.type_in("abcdef");
        world.run(Duration::from_millis(300));
        world.answer = stars;
        world.type_in("ghi");
        assert_eq!(drawn(&world.overlay()), "ghi", "nobody could know");
        world.run(Duration::from_millis(260));
        assert_eq!(drawn(&world.overlay()), "", "the screen says otherwise");
        world.type_in("jkl");
        assert_eq!(drawn(&world.overlay()), "", "not before one of them was confirmed");
        world.settle();
    }

    #[test]
    fn keys_that_move_and_delete_are_guessed_too() {
        let mut world = World::new(200, echo);
        world.type_in("echo helo");
        world.run(Duration::from_millis(300));
        world.press(b"\x7f");
        let overlay = world.overlay();
        assert_eq!((&overlay.cells[..], overlay.cursor), (&[(0, 10, ' ')][..], Some((0, 10))));
        world.type_in("lo");
        assert_eq!(drawn(&world.overlay()), "lo");
        world.settle();
        assert_eq!(world.seen.text(), "$ echo hello");
        // The program here only moves; a shell would insert, and either is seen in the end.
        world.press(b"\x1b[D");
        world.press(b"\x1b[D");
        assert_eq!(world.overlay().cursor, Some((0, 10)));
        world.press(b"X");
        assert_eq!(drawn(&world.overlay()), "Xlo");
        world.settle();
    }

    #[test]
    fn the_edge_of_the_screen_and_what_is_pasted_are_not_guessed() {
        let mut world = World::new(200, echo);
        world.type_in(&"0123456789".repeat(5));
        world.settle();
        world.press(&[b'x'; MAX_TYPED + 1]);
        assert_eq!(world.overlay().cells, []);
        world.settle();
    }

    #[test]
    fn characters_come_in_pieces_and_wide_ones_are_not_guessed() {
        let mut world = World::new(200, echo);
        world.type_in("abc");
        world.run(Duration::from_millis(300));
        for byte in "é".bytes() {
            world.typed += 1;
            world.predictor.on_input(world.now, world.typed, &[byte], &world.seen);
        }
        assert_eq!(drawn(&world.overlay()), "é");
        world.typed += 4;
        world.predictor.on_input(world.now, world.typed, "漢x".as_bytes(), &world.seen);
        assert_eq!(drawn(&world.overlay()), "é", "nobody knows where x will stand");
        world.predictor.on_input(world.now, world.typed, b"\xff\xfe\x1b[1;5Z\x1b", &world.seen);
    }

    proptest::proptest! {
        /// Whatever is typed and whatever the program does with it: in the end there is what the program shows, and no more.
        #[test]
        fn nothing_stays_of_any_guess(
            keys in proptest::collection::vec((0usize..12, 0u64..300), 1..40),
            round_trip in 0u64..400,
            answer in proptest::sample::select(&[echo as fn(&[u8]) -> Vec<u8>, silence, |_| b"\x1b[3;7H#\r\n".to_vec(), |key| [key, key].concat()]),
        ) {
            const KEYS: [&[u8]; 12] = [b"a", b"b", b" ", b"\x7f", b"\r", b"\x1b[C", b"\x1b[D", b"\x1b", b"\x03", "é".as_bytes(), "漢".as_bytes(), b"z"];
            let mut world = World::new(round_trip, answer);
            for (key, pause) in keys {
                world.press(KEYS[key]);
                world.run(Duration::from_millis(pause));
            }
            world.settle();
        }
    }
}
