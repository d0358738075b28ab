//! What is typed into a session of a machine far away is seen before its echo can have come, unless it is a secret, and what was guessed wrong is gone
//! when the echo has. The line is held up while somebody types, so nothing but a guess can be on the screen.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_screen::Screen;
use happy_tests::PATIENCE;
use happy_tests::chaos::{Chaos, Weather};
use happy_tests::process::{Home, Relay};
use portable_pty::{CommandBuilder, PtySize, native_pty_system};

/// Each way between a machine and the relay; there and back between two machines it is four times that.
const LINE: Weather = Weather {
    latency: Duration::from_millis(40),
    jitter: Duration::ZERO,
    rate: 0,
    slice: 0,
    stalled_up: false,
    stalled_down: false,
};
const HELD_UP: Weather = Weather { stalled_up: true, ..LINE };

struct Terminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    keyboard: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    screen: Screen,
    raw: Vec<u8>,
    _master: Box<dyn portable_pty::MasterPty + Send>,
}

impl Terminal {
    fn open(command: std::process::Command) -> Result<Terminal> {
        let pair = native_pty_system().openpty(PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 })?;
        let mut there = CommandBuilder::new(command.get_program());
        there.args(command.get_args());
        command.get_envs().for_each(|(name, value)| match value {
            Some(value) => there.env(name, value),
            None => there.env_remove(name),
        });
        there.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(there)?;
        let (mut reader, keyboard) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        let (give, output) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                if give.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let screen = Screen::new(80, 24, 0);
        Ok(Terminal { child, keyboard, output, screen, raw: Vec::new(), _master: pair.master })
    }

    /// Waits until the screen fits.
    fn until(&mut self, what: &str, fits: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !fits(&self.screen.text()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.output.recv_timeout(left);
            let bytes = bytes.with_context(|| format!("no {what}; the screen stays at:\n{}", self.screen.text()))?;
            self.screen.feed(&bytes);
            self.raw.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn press(&mut self, keys: &str) -> Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// Types as a person does, one key at a time.
    fn type_in(&mut self, text: &str) -> Result<()> {
        for key in text.chars() {
            self.press(key.encode_utf8(&mut [0; 4]))?;
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Echoes a line; asks for a secret; echoes five keys, says so in its title, and after that prints another character for each.
const PROGRAM: &str = "printf 'one> '; read x; printf \"<$x>\\r\\n\"
stty -echo; printf 'Password: '; read y; printf '%s characters\\r\\n' ${#y}
stty raw echo; printf 'raw> '; dd bs=1 count=5 >/dev/null 2>&1; stty -echo; printf '\\033]2;stars\\007'
while [ \"$(dd bs=1 count=1 2>/dev/null)\" != q ]; do printf '*'; done; exit 4";

#[test]
fn keys_are_seen_before_their_echo_and_secrets_are_not_and_wrong_guesses_go() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let relay = Relay::start()?;
    let chaos = runtime.block_on(Chaos::start(None, relay.address(), LINE))?;
    let (machine, desk) = (Home::start(&chaos.origin())?, Home::start(&chaos.origin())?);
    machine.let_join(&desk)?;
    let name = machine.json(["daemon", "status"])?["name"].as_str().context("no name")?.to_owned();
    let session = machine.json(["run", "--detach", "sh", "-c", PROGRAM])?;
    let id = session["id"].as_str().context("no session")?;
    let mut terminal = Terminal::open(desk.command(["attach", "--machine", &name, id])?)?;
    terminal.until("prompt", |text| text.contains("one>"))?;

    // The first keys show that this is a program that echoes, and how far away it is.
    terminal.type_in("echo")?;
    terminal.until("echo", |text| text.contains("one> echo"))?;
    chaos.set(HELD_UP);
    terminal.type_in("-guessed")?;
    terminal.until("guess", |text| text.contains("one> echo-guessed"))?;
    terminal.press("\x7f")?;
    terminal.until("erased guess", |text| text.lines().any(|line| line.trim_end().ends_with("one> echo-guesse")))?;
    chaos.set(LINE);
    terminal.press("\r")?;
    terminal.until("answer", |text| text.contains("<echo-guesse>") && text.contains("Password:"))?;

    // Held up as well, so that the echo of a key that ought to have none would not be noticed in time.
    chaos.set(HELD_UP);
    terminal.type_in("ZQ#ZQ#")?;
    chaos.set(LINE);
    terminal.press("\r")?;
    terminal.until("length", |text| text.contains("6 characters") && text.contains("raw>"))?;
    let shown = String::from_utf8_lossy(&terminal.raw).into_owned();
    ensure!(!shown.contains('Z') && !shown.contains('Q'), "a secret was drawn: {shown:?}");

    terminal.type_in("ab")?;
    terminal.until("echo", |text| text.contains("raw> ab"))?;
    // Whoever pauses lets the echo of everything come, so that it is known where the next keys will stand.
    std::thread::sleep(Duration::from_millis(500));
    terminal.type_in("cde")?;
    terminal.until("echo", |text| text.contains("raw> abcde"))?;
    happy_tests::process::wait_until("the end of echoes", || Ok(machine.json(["ls"])?[0]["title"] == "stars"))?;
    chaos.set(HELD_UP);
    terminal.type_in("fgh")?;
    terminal.until("guess", |text| text.contains("raw> abcdefgh"))?;
    chaos.set(LINE);
    let is_right = |text: &str| text.lines().any(|line| line.trim_end().ends_with("raw> abcde***"));
    terminal.until("what the program shows", is_right)?;
    terminal.press("q")?;
    happy_tests::process::wait_until("the end", || Ok(terminal.child.try_wait()?.is_some()))?;
    let code = terminal.child.wait()?.exit_code();
    ensure!(code == 4, "attach ended with {code}");
    terminal.until("last screen", |text| is_right(text) && !text.contains("abcdef"))
}
