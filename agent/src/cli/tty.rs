//! The terminal that the command line runs in.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::termios::{self, OptionalActions, Termios};

use zeroize::Zeroizing;

use crate::trouble::Trouble;

/// Columns and rows of the terminal at standard output; none when it is not one.
pub fn size() -> Option<(u16, u16)> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = termios::tcgetwinsize(stdout.as_fd()).ok()?;
    // A serial line says 0 × 0 and means that it does not know.
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// Columns of the terminal at standard error; none when it is not one.
pub fn error_columns() -> Option<u16> {
    let stderr = io::stderr();
    if !stderr.is_terminal() {
        return None;
    }
    let size = termios::tcgetwinsize(stderr.as_fd()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Whether both ends of the conversation are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// What the terminal was like before it was made raw; kept outside the guard so that a panic or a signal can restore it too.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal is raw while this lives, and as it was before afterwards, whatever happens.
pub struct Raw(());

impl Raw {
    /// Makes the terminal at standard input raw.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn enter() -> Result<Raw, Trouble> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).map_err(not_raw)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        termios::tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).map_err(not_raw)?;
        Ok(Raw(()))
    }
}

/// The terminal shows nothing of what is typed while this lives.
struct Hidden(Termios);

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nothing left to try when this fails.
        let _ = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}

/// Asks for a line that is not shown while it is typed. None after Ctrl-C.
///
/// # Errors
/// When the terminal cannot hide it.
pub fn ask_hidden(question: &str) -> Result<Option<Zeroizing<String>>, Trouble> {
    use io::{Read, Write};
    // Longer than any secret of ours; what is typed beyond it is not taken.
    const MAX_LINE: usize = 1024;
    let before = termios::tcgetattr(io::stdin().as_fd()).map_err(not_raw)?;
    let mut hidden = before.clone();
    // Keys come one by one, Ctrl-C among them: a signal would leave the terminal silent.
    hidden.local_modes &= !(termios::LocalModes::ECHO | termios::LocalModes::ICANON | termios::LocalModes::ISIG);
    let guard = Hidden(before);
    termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &hidden).map_err(not_raw)?;
    let mut stderr = io::stderr();
    // Who does not see the question may still answer it.
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut line = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut key = [0];
    let typed = loop {
        match io::stdin().lock().read(&mut key) {
            Ok(0) | Err(_) => break true,
            Ok(_) => {}
        }
        match key[0] {
            b'\r' | b'\n' | 0x04 => break true,
            0x03 => break false,
            0x08 | 0x7f => drop(line.pop()),
            byte if line.len() < MAX_LINE => line.push(byte),
            _ => {}
        }
    };
    drop(guard);
    let _ = writeln!(stderr);
    Ok(typed.then(|| Zeroizing::new(String::from_utf8_lossy(&line).into_owned())))
}

fn not_raw(error: rustix::io::Errno) -> Trouble {
    Trouble::new(
        format!("The terminal cannot be made raw: {}.", crate::trouble::reason(&error.into())),
        "Run it in a terminal, or use `--lossless` in a pipe.",
    )
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// What [`restore`] writes, if it is not what leaves any screen.
static FAREWELL: Mutex<Option<Vec<u8>>> = Mutex::new(None);

/// The terminal is given back below what this screen shows.
pub fn leave_below(screen: &happy_screen::Screen) {
    *FAREWELL.lock().unwrap_or_else(PoisonError::into_inner) = Some(happy_screen::leave_vt(Some(screen)));
}

/// Gives the terminal back as it was.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        use io::Write;
        let mut out = io::stdout().lock();
        let farewell = FAREWELL.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = out.write_all(&farewell.unwrap_or_else(|| happy_screen::leave_vt(None)));
        let _ = out.flush();
        let _ = termios::tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &before);
    }
}

/// Forgets what was typed and not read.
pub fn forget_typed() {
    let _ = termios::tcflush(io::stdin().as_fd(), termios::QueueSelector::IFlush);
}

/// Moves what stands on the terminal into its history, so that painting a session does not erase it.
pub fn make_room(rows: u16) {
    use io::Write;
    let mut out = io::stdout().lock();
    let _ = out.write_all("\r\n".repeat(rows.into()).as_bytes());
    let _ = out.flush();
}

/// The byte of a detach key written as `ctrl-]` or `^]`.
///
/// # Errors
/// When it is not a control key.
pub fn parse_key(text: &str) -> Result<u8, Trouble> {
    crate::store::detach_key(text).ok_or_else(|| {
        Trouble::new(
            format!("`{text}` is not a key that can detach."),
            "Use a control key, written as `ctrl-]` or `^]`.",
        )
    })
}
