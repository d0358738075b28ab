//! `happy attach` in terminals that draw at a pace of their own, and sessions that do what they can to be in the way.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use happy_screen::Screen;
use happy_tests::PATIENCE;
use happy_tests::process::Home;
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use super::run_detached;
use crate::processor;

const SIZE: PtySize = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };

/// A terminal with `happy attach` in it.
pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keyboard: Box<dyn std::io::Write + Send>,
    master: Box<dyn MasterPty + Send>,
    shown: Arc<(Mutex<Screen>, Condvar)>,
}

impl Terminal {
    /// Opens one that draws so many bytes a second.
    pub fn open(home: &Home, session: &str, bytes_a_second: f64) -> Result<Terminal> {
        let pair = native_pty_system().openpty(SIZE)?;
        let there = home.command(["attach", "--take-control", session])?;
        let mut command = CommandBuilder::new(there.get_program());
        command.args(there.get_args());
        there.get_envs().for_each(|(name, value)| match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        });
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command)?;
        let (mut reader, keyboard) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        let shown = Arc::new((Mutex::new(Screen::new(SIZE.cols, SIZE.rows, 0)), Condvar::new()));
        let drawn = Arc::clone(&shown);
        std::thread::spawn(move || {
            // The glass stands elsewhere, and its drawing is no work of the machine that is measured. `happy attach` itself gives way to nobody. Where
            // this thread may not, it is only in the way.
            let _ = processor::give_way();
            let mut buffer = vec![0; 16 * 1024];
            let mut busy_until = Instant::now();
            // Linux says EIO at the end.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                busy_until = busy_until.max(Instant::now()) + Duration::from_secs_f64(count as f64 / bytes_a_second);
                std::thread::sleep(busy_until.saturating_duration_since(Instant::now()));
                drawn.0.lock().unwrap_or_else(PoisonError::into_inner).feed(&buffer[..count]);
                drawn.1.notify_all();
            }
        });
        Ok(Terminal { child, keyboard, master: pair.master, shown })
    }

    pub fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.keyboard.write_all(keys)?;
        Ok(self.keyboard.flush()?)
    }

    /// Waits until the screen fits.
    pub fn until(&self, what: &str, fits: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut screen = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !fits(&screen.text()) {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no {what}; the screen stays at:\n{}", screen.text());
            screen = self.shown.1.wait_timeout(screen, left).unwrap_or_else(PoisonError::into_inner).0;
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

/// Sessions beside the one that is measured, and who looks at them. All of it ends with this value.
pub struct Company<'a> {
    home: &'a Home,
    sessions: Vec<String>,
    viewers: Vec<Terminal>,
    is_over: Arc<AtomicBool>,
    resizing: Option<JoinHandle<()>>,
}

impl<'a> Company<'a> {
    fn of(home: &'a Home, scripts: &[&str]) -> Result<Company<'a>> {
        let sessions = scripts.iter().map(|script| run_detached(home, &["sh", "-c", script])).collect::<Result<_>>()?;
        Ok(Company { home, sessions, viewers: Vec::new(), is_over: Arc::default(), resizing: None })
    }

    /// One that floods twenty viewers, of whom the slowest draws 60 kB a second and the fastest 30 MB.
    pub fn of_viewers(home: &'a Home) -> Result<Company<'a>> {
        let mut company = Self::of(home, &["yes"])?;
        for n in 0..20 {
            company.viewers.push(Terminal::open(home, &company.sessions[0], 6e4 * 1.39_f64.powi(n))?);
        }
        Ok(company)
    }

    /// Unfinished sequences, lines without an end, pictures, bytes of chance, and a window that changes its size a thousand times a second.
    pub fn of_hostile(home: &'a Home) -> Result<Company<'a>> {
        let mut company = Self::of(
            home,
            &[
                "printf '\\033]2;'; yes | tr -d '\\n'",
                "printf '\\033Pq'; yes '#0!99999~-'",
                "yes 漢字 | tr -d '\\n'",
                "while :; do printf '\\033[?2026h\\033[2Jupdate'; done",
                "cat /dev/urandom",
            ],
        )?;
        for session in &company.sessions {
            company.viewers.push(Terminal::open(home, session, 1e6)?);
        }
        let (is_over, terminal) = (Arc::clone(&company.is_over), Terminal::open(home, &company.sessions[2], 1e7)?);
        company.resizing = Some(std::thread::spawn(move || {
            for step in (0_u16..1_000).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                let _ = terminal.master.resize(PtySize { cols: 1 + step % 200, rows: 1 + step % 60, ..SIZE });
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
        Ok(company)
    }
}

impl Drop for Company<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(resizing) = self.resizing.take() {
            let _ = resizing.join();
        }
        self.viewers.clear();
        for session in &self.sessions {
            let _ = self.home.json(["kill", session]);
        }
    }
}
