//! `happy play`: an asciicast in this terminal, or its output in a pipe, at the pace at which it was recorded.
//!
//! A recording may be anybody's. In a terminal it is shown as the screen that our own terminal makes of it, so none of its sequences
//! reaches the terminal, which could be asked to change its keys, its title or the clipboard.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use happy_cast::{Event, ReadError, Reader, Timed};
use happy_screen::{Row, Screen, leave_vt, render_rows};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::cli::daemon::Interrupts;
use crate::cli::view::write;
use crate::cli::{PlayArgs, stdin, tty};
use crate::trouble::Trouble;

/// Frames are drawn at most so often.
const FRAME: Duration = Duration::from_millis(33);
/// Events that are read ahead: each may have 4 MiB.
const AHEAD: usize = 4;
/// Timers are set for no longer than this at once; a recording may wait for years.
const LONG: Duration = Duration::from_secs(3600);
/// What is shown at the bottom while it stands still.
const PAUSED: &str = " paused: space goes on, . is one step, q leaves ";

/// `happy play`.
pub async fn play(args: PlayArgs) -> Result<u8, Trouble> {
    let PlayArgs { file, speed, idle_limit } = args;
    let reader = open(&file)?;
    let (cols, rows) = (reader.header().cols, reader.header().rows);
    let idle_limit = idle_limit.or(reader.header().idle_time_limit);
    let is_shown = std::io::stdout().is_terminal();
    // The keyboard is not the recording's.
    let keys = is_shown && std::io::stdin().is_terminal() && file != Path::new("-");
    let mut player = Player {
        events: read_ahead(reader),
        pace: Pace {
            idle_limit: idle_limit.and_then(|limit| Duration::try_from_secs_f64(limit).ok()),
            speed,
            last: Duration::ZERO,
        },
        glass: is_shown.then(|| Glass::new(cols, rows)),
        keys: None,
    };
    let mut interrupts = Interrupts::new();
    let raw = if keys { Some(tty::Raw::enter()?) } else { None };
    if is_shown {
        tty::make_room(tty::size().map_or(rows, |(_, rows)| rows));
    }
    player.keys = keys.then(stdin::bytes);
    let outcome = player.run(&mut interrupts).await;
    if let Some(glass) = &mut player.glass {
        // What was shown last stays; whatever went wrong, the terminal is given back.
        let drawn = glass.draw(None);
        if raw.is_none() {
            let _ = write(&leave_vt(None));
        }
        drop(raw);
        drawn?;
    }
    outcome.map_err(|why| unreadable(&file, why))
}

/// Opens a recording; `-` is standard input.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn open(path: &Path) -> Result<Reader<Box<dyn std::io::BufRead + Send>>, Trouble> {
    let input: Box<dyn std::io::BufRead + Send> = match path == Path::new("-") {
        true => Box::new(std::io::BufReader::new(std::io::stdin())),
        false => {
            let file = std::fs::File::open(path).map_err(|error| {
                let reason = crate::trouble::reason(&error);
                Trouble::new(format!("Cannot read {}: {reason}.", path.display()), "Give the path of an asciicast.")
            })?;
            Box::new(std::io::BufReader::with_capacity(64 * 1024, file))
        }
    };
    Reader::new(input).map_err(|error| not_a_cast(path, &error))
}

/// What is wrong with a recording.
pub fn not_a_cast(path: &Path, error: &ReadError) -> Trouble {
    Trouble::new(
        format!("{} is not a recording that can be played: {error}.", path.display()),
        "`happy record SESSION` makes recordings, and so does asciinema.",
    )
}

/// What keeps it from being played on.
enum Stuck {
    Read(ReadError),
    Other(Trouble),
}

impl From<Trouble> for Stuck {
    fn from(trouble: Trouble) -> Self {
        Self::Other(trouble)
    }
}

fn unreadable(path: &Path, why: Stuck) -> Trouble {
    match why {
        Stuck::Other(trouble) => trouble,
        Stuck::Read(error) => not_a_cast(path, &error),
    }
}

type Events = mpsc::Receiver<Result<Timed, ReadError>>;

/// Reads on a thread of its own: a pipe may keep it waiting.
fn read_ahead(mut reader: Reader<Box<dyn std::io::BufRead + Send>>) -> Events {
    let (give, events) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        while let Some(event) = reader.next_event().transpose() {
            let is_last = event.is_err();
            if give.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    events
}

/// How long after the one before an event is shown.
struct Pace {
    idle_limit: Option<Duration>,
    speed: f64,
    last: Duration,
}

impl Pace {
    fn wait(&mut self, at: Duration) -> Duration {
        let passed = at.saturating_sub(self.last);
        self.last = at;
        let passed = self.idle_limit.map_or(passed, |limit| passed.min(limit));
        Duration::try_from_secs_f64(passed.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }
}

struct Player {
    events: Events,
    pace: Pace,
    glass: Option<Glass>,
    keys: Option<mpsc::Receiver<Vec<u8>>>,
}

/// So many bytes are fed at once: three of them can cost a whole screen.
const PIECE: usize = 4096;

/// What somebody wants.
enum Key {
    Pause,
    Step,
    Quit,
    Other,
}

/// When the next event is due.
#[derive(Clone, Copy)]
enum Due {
    At(Instant),
    /// So long after it goes on again.
    Paused(Duration),
}

impl Due {
    /// So much later.
    fn later(self, wait: Duration) -> Self {
        match self {
            // Further off than clocks go.
            Due::At(at) => at.checked_add(wait).map_or(Due::Paused(wait), Due::At),
            Due::Paused(_) => Due::Paused(wait),
        }
    }

    fn toggled(self) -> Self {
        let now = Instant::now();
        match self {
            Due::At(at) => Due::Paused(at.saturating_duration_since(now)),
            Due::Paused(wait) => now.checked_add(wait).map_or(self, Due::At),
        }
    }

    async fn comes(self) {
        match self {
            Due::At(at) => comes(Some(at)).await,
            Due::Paused(_) => comes(None).await,
        }
    }
}

impl Player {
    /// Plays to the end, or until somebody wants no more; gives the exit code of the process.
    async fn run(&mut self, interrupts: &mut Interrupts) -> Result<u8, Stuck> {
        let mut due = Due::At(Instant::now());
        let mut next = None;
        let mut steps = 0u32;
        loop {
            let draw_at = self.glass.as_ref().and_then(Glass::draw_at);
            tokio::select! {
                biased;
                () = interrupts.next() => return Ok(130),
                key = next_key(&mut self.keys) => match key {
                    Key::Quit => return Ok(0),
                    Key::Pause => {
                        due = due.toggled();
                        self.draw(due)?;
                    }
                    Key::Step if matches!(due, Due::Paused(_)) => steps += 1,
                    Key::Step | Key::Other => {}
                },
                // Before what happens next, which in a flood is always due.
                () = comes(draw_at) => self.draw(due)?,
                event = self.events.recv(), if next.is_none() => match event {
                    None => return Ok(0),
                    Some(event) => {
                        let timed = event.map_err(Stuck::Read)?;
                        due = due.later(self.pace.wait(timed.at));
                        next = Some(timed.event);
                    }
                },
                () = async { if steps == 0 { due.comes().await } }, if next.is_some() => {
                    if let Some(event) = next.take() {
                        next = self.show(event)?;
                    }
                    if next.is_none() {
                        steps = steps.saturating_sub(1);
                    }
                }
            }
        }
    }

    /// Shows an event, or as much of it as keys and signals can wait for; gives what is left of it.
    fn show(&mut self, event: Event) -> Result<Option<Event>, Trouble> {
        match (&mut self.glass, event) {
            (Some(glass), Event::Output(mut text)) => {
                let rest = text.split_off(text.floor_char_boundary(PIECE));
                glass.feed(text.as_bytes());
                return Ok((!rest.is_empty()).then_some(Event::Output(rest)));
            }
            (Some(glass), Event::Resize(cols, rows)) => glass.resize(cols, rows),
            (None, Event::Output(text)) => write(text.as_bytes())?,
            (_, Event::Mark(_) | Event::Exit(_)) | (None, Event::Resize(..)) => {}
        }
        Ok(None)
    }

    fn draw(&mut self, due: Due) -> Result<(), Trouble> {
        let note = matches!(due, Due::Paused(_)).then_some(PAUSED);
        self.glass.as_mut().map_or(Ok(()), |glass| glass.draw(note))
    }
}

/// Waits until then, or for ever when there is no time.
async fn comes(at: Option<Instant>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            while Instant::now() < at {
                sleep_until(at.min(Instant::now() + LONG)).await;
            }
        }
    }
}

/// The next key; of several at once the last one that means something.
async fn next_key(keys: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Key {
    let Some(receiver) = keys else { return std::future::pending().await };
    let Some(typed) = receiver.recv().await else {
        *keys = None;
        return Key::Other;
    };
    let mut found = Key::Other;
    for byte in typed {
        found = match byte {
            b'q' | b'Q' | 0x03 => return Key::Quit,
            b' ' => Key::Pause,
            b'.' => Key::Step,
            // The rest is an arrow or the like.
            0x1b => return found,
            _ => continue,
        };
    }
    found
}

/// The terminal that it is shown in.
struct Glass {
    screen: Screen,
    /// What the terminal shows, and in which size of its own; none before the first frame.
    shown: Option<(Vec<Row>, (u16, u16))>,
    is_dirty: bool,
    drawn_at: Option<Instant>,
}

impl Glass {
    fn new(cols: u16, rows: u16) -> Self {
        Self { screen: Screen::new(cols, rows, 0), shown: None, is_dirty: true, drawn_at: None }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.screen.feed(bytes);
        self.is_dirty = true;
    }

    fn resize(&mut self, cols: u16, rows: u16) {
        self.screen.resize(cols, rows);
        self.is_dirty = true;
    }

    fn draw_at(&self) -> Option<Instant> {
        self.is_dirty.then(|| self.drawn_at.map_or_else(Instant::now, |at| at + FRAME))
    }

    /// Draws what differs from what is shown, and a note over the last row.
    fn draw(&mut self, note: Option<&str>) -> Result<(), Trouble> {
        (self.is_dirty, self.drawn_at) = (false, Some(Instant::now()));
        let own = tty::size().unwrap_or(self.screen.size());
        let (cols, rows) = self.screen.size();
        let small = (cols > own.0 || rows > own.1).then(|| {
            // What does not fit is wrapped anew, as in `happy attach`.
            Screen::restore(&self.screen.snapshot(0), 0).map(|mut small| {
                small.resize(cols.min(own.0), rows.min(own.1));
                small
            })
        });
        let screen = match &small {
            Some(Ok(small)) => small,
            _ => &self.screen,
        };
        let (_, rows) = screen.size();
        let now: Vec<Row> = (0..rows).map(|row| screen.row(row)).collect();
        let mut out = b"\x1b[?2026h".to_vec();
        let before = match &self.shown {
            Some((before, size)) if *size == own && before.len() == now.len() => Some(before),
            _ => {
                out.extend_from_slice(b"\x1b[0m\x1b[H\x1b[J");
                None
            }
        };
        let differs =
            |row: &u16| before.is_none_or(|before| before.get(usize::from(*row)) != now.get(usize::from(*row)));
        out.extend_from_slice(&render_rows(screen, (0..rows).filter(differs)));
        if let Some(note) = note {
            let text: String = note.chars().take(own.0.into()).collect();
            let cursor = screen.cursor();
            let _ = write!(out, "\x1b[{};1H\x1b[0;7m{text}\x1b[0m\x1b[{};{}H", own.1, cursor.row + 1, cursor.col + 1);
        }
        out.extend_from_slice(b"\x1b[?2026l");
        // A note is gone in the next frame.
        self.shown = note.is_none().then_some((now, own));
        write(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_heeds_limit_and_speed() {
        let mut pace = Pace { idle_limit: Some(Duration::from_secs(2)), speed: 4.0, last: Duration::ZERO };
        let seconds = Duration::from_secs_f64;
        assert_eq!(pace.wait(seconds(1.0)), seconds(0.25));
        assert_eq!(pace.wait(seconds(100.0)), seconds(0.5));
        assert_eq!(pace.wait(seconds(100.0)), Duration::ZERO);
        let mut slow = Pace { idle_limit: None, speed: 0.01, last: Duration::ZERO };
        assert_eq!(slow.wait(Duration::MAX), Duration::MAX);
        // Further off than clocks go: it stands still, and can be left.
        let due = Due::At(Instant::now()).later(Duration::MAX);
        assert!(matches!(due, Due::Paused(_)) && matches!(due.toggled(), Due::Paused(_)));
    }

    #[tokio::test]
    async fn keys_are_what_they_say() {
        let mean = async |typed: &[u8]| {
            let (give, keys) = mpsc::channel(1);
            give.send(typed.to_vec()).await.unwrap();
            next_key(&mut Some(keys)).await
        };
        assert!(matches!(mean(b"q").await, Key::Quit));
        assert!(matches!(mean(b"  \x03").await, Key::Quit));
        assert!(matches!(mean(b"x ").await, Key::Pause));
        assert!(matches!(mean(b".").await, Key::Step));
        assert!(matches!(mean(b"\x1b[1;5q").await, Key::Other));
    }
}
