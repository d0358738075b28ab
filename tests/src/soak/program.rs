//! What runs in the sessions besides shells.

use std::fs::OpenOptions;
use std::io::{BufRead as _, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// More rows than a session keeps, so that what has a bound has reached it before anybody measures. They are like those that follow: rows
/// that are kept take less room the more they repeat.
const FILL: u64 = 12_000;
/// What rows begin with that fill the scrollback of a session that is typed into.
pub const FILLING: &[u8] = b"was ";
/// Lines of a burst.
const BURST: u64 = 300;
/// Between two bursts.
const BETWEEN_BURSTS: Duration = Duration::from_secs(10);

/// What it does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which part it plays.
    kind: Kind,
    /// The file that gets what it has read, line by line.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Seconds between an answer and the next question.
    #[arg(long, default_value_t = 20)]
    pause: u64,
}

/// The parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Prints a line each second.
    Slow,
    /// Prints many lines at once, again and again.
    Burst,
    /// Asks yes or no, and records the answer.
    Dialog,
    /// Records each line that is typed and prints it.
    Echo,
}

/// Plays it until the terminal is gone.
///
/// # Errors
/// When it cannot print or write.
pub fn act(arguments: &Arguments) -> Result<()> {
    match arguments.kind {
        Kind::Slow => print(1, FILL, Duration::from_secs(1)),
        Kind::Burst => print(BURST, FILL / BURST, BETWEEN_BURSTS),
        Kind::Dialog => ask(arguments),
        Kind::Echo => echo(arguments),
    }
}

/// So many lines at once and a pause, again and again; the first `full` times without a pause.
fn print(lines: u64, full: u64, pause: Duration) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for number in 0_u64.. {
        for line in 0..lines {
            writeln!(
                out,
                "\x1b[3{}m{number:>8}\x1b[m {line:>6} step of something that goes on and on and says so",
                line % 8
            )?;
        }
        out.flush()?;
        if number >= full {
            std::thread::sleep(pause);
        }
    }
    Ok(())
}

fn ask(arguments: &Arguments) -> Result<()> {
    let mut record = record(arguments)?;
    let mut input = std::io::stdin().lock();
    let mut out = std::io::stdout().lock();
    for number in 0_u64.. {
        write!(out, "\x1b[2J\x1b[HDo you want to apply step {number} now? [y/n] ")?;
        out.flush()?;
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            break;
        }
        writeln!(record, "{number} {}", line.trim())?;
        writeln!(out, "\r\nthe answer was: {}", line.trim())?;
        std::thread::sleep(Duration::from_secs(arguments.pause));
    }
    Ok(())
}

fn echo(arguments: &Arguments) -> Result<()> {
    // What is seen is what was read, not what the terminal echoes.
    ensure!(Command::new("stty").args(["raw", "-echo"]).status()?.success(), "this is no terminal");
    let mut record = record(arguments)?;
    let mut input = std::io::stdin().lock();
    let mut out = std::io::stdout().lock();
    for number in 0..FILL {
        out.write_all(FILLING)?;
        write!(out, "p{}s0.{}\r\n", number % 6, number / 6)?;
    }
    out.flush()?;
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        record.write_all(&line)?;
        out.write_all(&[b"got ", line.trim_ascii_end(), b"\r\n"].concat())?;
        out.flush()?;
        line.clear();
    }
    Ok(())
}

fn record(arguments: &Arguments) -> Result<std::fs::File> {
    let path = arguments.record.as_ref().context("no file to record in")?;
    Ok(OpenOptions::new().append(true).create(true).open(path)?)
}
