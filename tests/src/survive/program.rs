//! What runs in the sessions: it prints numbered lines with the time, keeps what is typed into it, and ends as it was told.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Between two writes.
const PACE: Duration = Duration::from_millis(4);

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Ending {
    /// As a shell tells it.
    pub fn shell_code(self) -> i32 {
        match self {
            Ending::Code(code) => code,
            Ending::Signal(signal) => 128 + signal,
        }
    }

    /// Whether a session is said to have ended so.
    pub fn is(self, session: &Value) -> bool {
        match self {
            Ending::Code(code) => session["state"] == "exited" && session["code"] == code,
            Ending::Signal(signal) => session["state"] == "killed" && session["signal"] == signal,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Code(code) => write!(f, "code:{code}"),
            Ending::Signal(signal) => write!(f, "signal:{signal}"),
        }
    }
}

impl FromStr for Ending {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Ending> {
        match text.split_once(':').context("code:N or signal:N")? {
            ("code", code) => Ok(Ending::Code(code.parse()?)),
            ("signal", signal) => Ok(Ending::Signal(signal.parse()?)),
            _ => bail!("code:N or signal:N"),
        }
    }
}

/// What it does.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Lines that are printed at once.
    #[arg(long)]
    lines: u32,
    /// The file that gets what is typed.
    #[arg(long)]
    input: PathBuf,
    /// It ends when this file is there.
    #[arg(long)]
    stop: PathBuf,
    /// How it ends.
    #[arg(long)]
    end: Ending,
}

/// Nanoseconds of the clock that all processes of a machine share.
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Runs until it is told to end.
///
/// # Errors
/// When it cannot print or write.
pub fn print(arguments: &Arguments) -> Result<()> {
    // Every byte shall arrive as it was printed, and what is typed as it was typed.
    ensure!(Command::new("stty").args(["raw", "-echo"]).status()?.success(), "this is no terminal");
    let mut typed = OpenOptions::new().append(true).create(true).open(&arguments.input)?;
    std::thread::spawn(move || -> std::io::Result<()> {
        let mut buffer = [0; 1024];
        loop {
            match std::io::stdin().read(&mut buffer)? {
                0 => return typed.write_all(b"<end of input>"),
                count => typed.write_all(&buffer[..count])?,
            }
        }
    });
    let mut out = std::io::stdout().lock();
    let mut number = 0_u64;
    while !arguments.stop.exists() {
        let mut text = String::new();
        for _ in 0..arguments.lines {
            number += 1;
            text.push_str(&format!("{number} {}\r\n", now()));
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        std::thread::sleep(PACE);
    }
    out.write_all(format!("end {number}\r\n").as_bytes())?;
    out.flush()?;
    match arguments.end {
        Ending::Code(code) => std::process::exit(code),
        Ending::Signal(signal) => {
            let signal = rustix::process::Signal::from_named_raw(signal).context("no such signal")?;
            rustix::process::kill_process(rustix::process::getpid(), signal)?;
            bail!("it lives on");
        }
    }
}
