//! What a person sees: the real binary in a real terminal, its screen read as the phone would read it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use happy_screen::{Cursor, Modes, Row, Screen};
use harness::{Home, PATIENCE, code};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    screen: Screen,
    raw: Vec<u8>,
}

impl Terminal {
    fn open(home: &Home, cols: u16, rows: u16, args: &[&str]) -> Terminal {
        let size = PtySize { cols, rows, pixel_width: 0, pixel_height: 0 };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_happy"));
        command.args(args);
        command.env("HAPPY_HOME_DIR", home.path());
        command.env("TMUX_TMPDIR", home.path());
        command.env("TERM", "xterm-256color");
        command.env_remove("HAPPY_SERVER_URL");
        let child = pty.slave.spawn_command(command).unwrap();
        let mut reader = pty.master.try_clone_reader().unwrap();
        let (give, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n) = reader.read(&mut chunk) {
                if n == 0 || give.send(chunk[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        let keyboard = pty.master.take_writer().unwrap();
        Terminal { child, master: pty.master, keyboard, output, screen: Screen::new(cols, rows, 1000), raw: Vec::new() }
    }

    /// Waits until the screen fits.
    #[track_caller]
    fn until(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.screen.text();
            if fits(&text) {
                return text;
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => {
                    self.screen.feed(&bytes);
                    self.raw.extend_from_slice(&bytes);
                }
                Err(_) => panic!("the screen stays at:\n{text}"),
            }
        }
    }

    /// Waits until every cell, mode and the cursor are as they were.
    #[track_caller]
    fn settle(&mut self, wanted: &Shown) {
        let deadline = Instant::now() + PATIENCE;
        while shown(&self.screen) != *wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                panic!("another screen than before:\n{}", self.screen.text())
            };
            self.screen.feed(&bytes);
            self.raw.extend_from_slice(&bytes);
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
        self.keyboard.flush().unwrap();
    }

    #[track_caller]
    fn code(&mut self) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Ok(bytes) = self.output.try_recv() {
                self.screen.feed(&bytes);
                self.raw.extend_from_slice(&bytes);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                while let Ok(bytes) = self.output.recv_timeout(std::time::Duration::from_millis(500)) {
                    self.screen.feed(&bytes);
                }
                return status.exit_code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.screen.text());
            std::thread::yield_now();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the QR code that stands in half blocks at the left of the screen.
#[track_caller]
fn scan(rows: &[&str]) -> String {
    const SCALE: usize = 4;
    let ink = |x: usize, y: usize| {
        let cell = rows.get(y / 2).and_then(|row| row.chars().nth(x)).unwrap_or(' ');
        // Light is drawn, dark is left as it is; or the other way round.
        cell == '█' || cell == if y.is_multiple_of(2) { '▀' } else { '▄' }
    };
    let light = ink(0, 0);
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(45 * SCALE, 46 * SCALE, |x, y| {
        let (x, y) = (x / SCALE, y / SCALE);
        if y >= 45 || ink(x, y) == light { 255 } else { 0 }
    });
    let grids = image.detect_grids();
    grids.first().unwrap_or_else(|| panic!("no code in:\n{}", rows.join("\n"))).decode().unwrap().1
}

const UP: &[&str] = &["up", "--api-port", "0", "--relay-port", "0"];

#[test]
fn up_fits_eighty_by_twenty_four_and_takes_the_code_beside_the_qr() {
    let home = Home::new();
    let mut terminal = Terminal::open(&home, 80, 24, UP);
    let text = terminal.until(|text| text.contains("Type the code here:") && text.contains("Ends in 1:5"));
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows.len() <= 24, "{text}");
    for words in ["Pair a device with", "Scan the code", "https://", "(owner)", "Waiting for the device"] {
        assert!(text.contains(words), "`{words}` is missing:\n{text}");
    }
    // The whole code is there: half blocks from the top to the bottom, 45 columns and 23 rows with its margin.
    let blocks = rows.iter().filter(|row| row.chars().take(45).any(|c| "█▀▄".contains(c))).count();
    assert!(blocks >= 18, "{blocks} rows of the code:\n{text}");

    // What is scanned has the same digits as the link for this machine.
    let start = text.find("or here: http://127.0.0.1:").unwrap_or_else(|| panic!("no address for here:\n{text}"));
    let origin = text[start + "or here: ".len()..].split_whitespace().next().unwrap();
    let scanned = scan(&rows);
    let link = format!("{origin}/#{}", scanned.split_once("/#").unwrap().1);

    let guest = Home::new();
    guest.start();
    let mut join = guest.spawn(&["join", &link]);
    let code = code(&mut join);
    terminal.until(|text| text.contains("shows a code"));
    let wrong = if code == "000 000" { "000001" } else { "000000" };
    terminal.press(&format!("{wrong}\r"));
    let text = terminal.until(|text| text.contains("Wrong code: 2 tries"));
    assert_eq!(text.matches("Type the code here:").count(), 1, "{text}");
    // A name so long that its echo breaks into the code, which comes back.
    terminal.press(&format!("{code} the tablet in the kitchen\r"));
    let text = terminal.until(|text| text.contains("is paired as owner"));
    for gone in ["Type the code here:", "Wrong code", "Ends in", &code] {
        assert!(!text.contains(gone), "`{gone}` stays:\n{text}");
    }
    assert_eq!(scan(&text.lines().collect::<Vec<_>>()), scanned, "{text}");
    join.finish().ok();

    // It stays, tells what happens, and makes another invitation when asked.
    terminal.until(|text| text.contains("for another device"));
    home.run(&["run", "-d", "--name", "a job", "sleep", "1000"]).ok();
    terminal.until(|text| text.contains("session started a job"));
    terminal.press("\r");
    terminal.until(|text| text.contains("Type the code here:") && text.contains("Ends in"));
    terminal.press("\x03");
    assert_eq!(terminal.code(), 0, "{}", terminal.screen.text());
    assert!(terminal.screen.text().contains("sessions go on"), "{}", terminal.screen.text());
}

#[test]
fn a_terminal_that_is_too_small_is_told_the_size_it_needs() {
    let home = Home::new();
    for (cols, rows) in [(60, 24), (80, 20)] {
        let mut terminal = Terminal::open(&home, cols, rows, UP);
        assert_ne!(terminal.code(), 0);
        let text = terminal.screen.text().replace('\n', " ");
        assert!(text.contains(&format!("{cols}x{rows}")) && text.contains("80x24"), "{text}");
        assert!(text.contains("--no-qr"), "{text}");
    }
    home.run(&["daemon", "status"]).fails_with(&["No daemon"]);
    let mut terminal = Terminal::open(&home, 60, 20, &[UP, &["--no-qr"]].concat());
    terminal.until(|text| text.contains("/#"));
}

#[test]
fn a_session_is_shown_left_and_shown_again_as_it_was() {
    let home = Home::new();
    home.start();
    let mut first = Terminal::open(&home, 80, 24, &["run", "--name", "work", "sh"]);
    first.until(|text| text.contains('$') || text.contains('#'));
    first.press("PS1='> '; clear; printf '\\033[1mbold\\033[0m %s\\n' \"$(stty size)\"\r");
    first.until(|text| text.contains("bold 24 80"));
    // Ctrl-] leaves, says how to come back, and the terminal is as it was.
    first.press("\x1d");
    assert_eq!(first.code(), 0);
    let text = first.screen.text();
    assert!(text.contains("it goes on: happy attach"), "{text}");
    assert!(!first.screen.modes().alternate_screen && first.screen.modes().cursor_visible);
    assert_eq!(home.json(&["ls"])[0]["state"], "running");

    // Nobody decides the size any more, so the next viewer does; the program is told.
    let mut second = Terminal::open(&home, 100, 30, &["attach", "work"]);
    second.until(|text| text.contains("bold 24 80"));
    second.press("echo now $(stty size)\r");
    second.until(|text| text.contains("now 30 100"));

    // Another viewer in a smaller window sees it without changing its size.
    let mut third = Terminal::open(&home, 60, 20, &["attach", "--read-only", "work"]);
    third.until(|text| text.contains("now 30 100"));
    second.press("echo still $(stty size)\r");
    second.until(|text| text.contains("still 30 100"));
    third.until(|text| text.contains("still 30 100"));

    // A window that changes its size changes the session's, if it decides.
    second.master.resize(PtySize { cols: 90, rows: 28, pixel_width: 0, pixel_height: 0 }).unwrap();
    second.screen.resize(90, 28);
    home.until(&["ls"], |list| list[0]["cols"] == 90 && list[0]["rows"] == 28);

    // The program's end ends both, with its code.
    second.press("exit 6\r");
    assert_eq!((second.code(), third.code()), (6, 6));
}

#[test]
fn a_terminal_comes_through_the_death_of_the_daemon() {
    let home = Home::new();
    home.start();
    let mut terminal = Terminal::open(&home, 80, 24, &["run", "sh"]);
    terminal.until(|text| text.contains('$') || text.contains('#'));
    terminal.press("PS1='> '; clear; echo before\r");
    terminal.until(|text| text.contains("before"));
    home.kill_daemon();
    terminal.until(|text| text.contains("the daemon is gone"));
    home.start();
    terminal.until(|text| !text.contains("the daemon is gone"));
    terminal.press("echo after $((40 + 2))\r");
    let text = terminal.until(|text| text.contains("after 42"));
    assert_eq!(text.matches("after 42").count(), 1, "{text}");
    terminal.press("\x1d");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn all_devices_are_removed_only_when_a_person_says_yes() {
    let home = Home::new();
    home.start();
    let device = || home.json(&["daemon", "status"])["device"].clone();
    let before = device();
    let mut terminal = Terminal::open(&home, 80, 24, &["devices", "revoke", "--all"]);
    terminal.until(|text| text.contains("removes all 0 paired devices") && text.contains("Type `yes`"));
    terminal.press("y\r");
    assert_ne!(terminal.code(), 0);
    assert!(terminal.screen.text().contains("Nothing was removed"), "{}", terminal.screen.text());
    assert_eq!(device(), before);
    let mut terminal = Terminal::open(&home, 80, 24, &["devices", "revoke", "--all"]);
    terminal.until(|text| text.contains("Type `yes`"));
    terminal.press("yes\r");
    assert_eq!(terminal.code(), 0, "{}", terminal.screen.text());
    assert_ne!(device(), before);
}

/// Every cell, the modes and the cursor. Not what a program has put aside, as cursors: a desk that is painted anew has no need of that.
type Shown = (Vec<Row>, Modes, Cursor);

fn shown(screen: &Screen) -> Shown {
    ((0..screen.size().1).map(|row| screen.row(row)).collect(), *screen.modes(), screen.cursor())
}

/// A program that draws its whole window whenever that changes, as editors do.
const DRAWS: &str = "draw() { printf '\\033[?1049h\\033[H\\033[2J'; stty size; printf '\\033[3;5H\\033[1;32mgreen\\033[m and \\033[7mreverse\\033[m\\r\\nlast'; }
trap draw WINCH; draw; while :; do sleep 0.05; done";

#[test]
fn a_desk_shows_every_cell_as_before_when_a_phone_has_left() {
    let home = Home::new();
    home.start();
    let id = home.json(&["run", "--detach", "sh", "-c", DRAWS])["id"].as_str().unwrap().to_owned();
    let mut desk = Terminal::open(&home, 100, 30, &["attach", "--take-control", &id]);
    desk.until(|text| text.starts_with("30 100") && text.ends_with("last"));
    let before = shown(&desk.screen);
    for (control, shows) in [(false, "30 100"), (true, "15 40")] {
        let args = ["attach", &id, "--take-control"];
        let mut phone = Terminal::open(&home, 40, 15, if control { &args } else { &args[..2] });
        phone.until(|text| text.contains(shows) && text.contains("last"));
        if control {
            desk.until(|text| text.contains("15 40"));
        }
        phone.press("\x1d");
        assert_eq!(phone.code(), 0);
        home.until(&["ls"], |sessions| sessions[0]["viewers"] == 1 && sessions[0]["cols"] == 100);
        desk.until(|text| text.starts_with("30 100") && text.ends_with("last"));
        // What the desk's terminal was sent besides must come to the same.
        desk.settle(&before);
    }
}

#[test]
fn who_may_not_type_may_leave_and_nothing_of_it_is_typed_elsewhere() {
    let home = Home::new();
    home.start();
    let id = home.json(&["run", "--detach", "sh", "-c", "echo begun; exec cat"])["id"].as_str().unwrap().to_owned();
    for leave in ["\x1d", "\x03"] {
        let mut terminal = Terminal::open(&home, 80, 24, &["attach", "--read-only", &id]);
        terminal.until(|text| text.contains("begun"));
        terminal.press("lost\r");
        terminal.press(leave);
        assert_eq!(terminal.code(), 0, "{}", terminal.screen.text());
    }
    let shown = home.run(&["export", &id]).ok();
    assert!(!shown.contains("lost"), "{shown}");
}

#[test]
fn what_a_short_program_printed_stands_above_the_prompt() {
    let home = Home::new();
    home.start();
    let mut terminal = Terminal::open(&home, 80, 24, &["run", "sh", "-c", "echo only this; exit 3"]);
    assert_eq!(terminal.code(), 3);
    let text = terminal.screen.text();
    let shown: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(shown.first(), Some(&"only this"), "{text}");
    assert!(terminal.screen.cursor().row <= 2, "{text}");
}

#[test]
fn a_session_does_not_show_itself() {
    let home = Home::new();
    home.start();
    let mut terminal = Terminal::open(&home, 80, 24, &["run", "--name", "self", "cat"]);
    home.until(&["ls"], |sessions| sessions[0]["viewers"] == 1);
    let id = home.json(&["ls"])[0]["id"].as_str().unwrap().to_owned();
    let refused = home.command(&["attach", "--lossless", "self"]).env("HAPPY_SESSION", &id).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("itself"), "{refused:?}");
    terminal.press("\x1d");
    assert_eq!(terminal.code(), 0);
}

#[test]
fn a_reader_begins_with_the_oldest_that_a_session_of_any_size_keeps() {
    let home = Home::new();
    home.start();
    let args = ["run", "--detach", "--keep", "64K", "sh", "-c", "seq 1 100000"];
    let id = home.json(&args)["id"].as_str().unwrap().to_owned();
    home.until(&["ls"], |sessions| sessions[0]["state"] != "running");
    let out = home.run(&["attach", "--lossless", "--from-start", &id]).ok();
    assert!(out.trim_end().ends_with("\n100000") && out.len() > 16 * 1024, "{} bytes", out.len());
}
