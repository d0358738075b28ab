//! A tmux in control mode, as a process of ours.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::control::{Answer, Event, Parser};
use super::{DEADLINE, TmuxError};

/// Bytes that are read at once.
const READ: usize = 16 * 1024;

/// The environment that a tmux gets unless it may need more: what it finds programs, homes and characters by.
pub type Env = BTreeMap<String, String>;

/// A client in control mode. It ends when it is dropped.
pub struct Control {
    stdin: ChildStdin,
    stdout: ChildStdout,
    parser: Parser,
    _child: Child,
}

impl Control {
    /// Starts one with a command. Must be called within a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(program: &Path, socket: &Path, env: &Env, words: &[&str]) -> Result<Self, TmuxError> {
        let mut command = command(program, socket, env);
        command.arg("-C").args(words).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(TmuxError::Protocol("it has no input or no output".into()));
        };
        Ok(Self { stdin, stdout, parser: Parser::default(), _child: child })
    }

    /// What tmux says next; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// What the system says, or that it is not understood.
    pub async fn next(&mut self) -> Result<Option<Event>, TmuxError> {
        loop {
            if let Some(event) = self.parser.next_event().map_err(|error| TmuxError::Protocol(error.to_string()))? {
                return Ok(Some(event));
            }
            self.parser.buffer().reserve(READ);
            if self.stdout.read_buf(self.parser.buffer()).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Gives a line of commands; each has an answer.
    ///
    /// # Errors
    /// What the system says.
    pub async fn give(&mut self, line: &str) -> Result<(), TmuxError> {
        let line = format!("{line}\n");
        timeout(DEADLINE, self.stdin.write_all(line.as_bytes())).await.map_err(|_| TmuxError::Late)??;
        Ok(())
    }

    /// The next answer begins with so many rows of a pane.
    pub fn expect_rows(&mut self, rows: usize) {
        self.parser.expect_rows(rows);
    }

    /// The answer to what was given; `meanwhile` is told what else is said.
    ///
    /// # Errors
    /// [`TmuxError::Late`], or the end of the client.
    pub async fn answer(&mut self, mut meanwhile: impl FnMut(Event)) -> Result<Answer, TmuxError> {
        let answered = async {
            loop {
                match self.next().await? {
                    Some(Event::Answer(answer)) if answer.asked => return Ok(answer),
                    Some(event) => meanwhile(event),
                    None => return Err(TmuxError::Protocol("it has ended".into())),
                }
            }
        };
        timeout(DEADLINE, answered).await.unwrap_or(Err(TmuxError::Late))
    }
}

/// Runs one command in control mode and gives what it printed.
///
/// # Errors
/// [`TmuxError`].
pub async fn run(
    program: &Path,
    socket: &Path,
    env: &Env,
    words: &[&str],
    starts_server: bool,
) -> Result<Vec<Vec<u8>>, TmuxError> {
    let mut command = command(program, socket, env);
    if starts_server {
        command = start_of(program, socket, env);
    }
    command.arg("-C").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // At the end of its input a client goes, whether it has been answered or not: so that is kept open.
    let _stdin = child.stdin.take();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        // What stands in one of a few thousand sessions' names is far from these bounds.
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT).read_to_end(&mut out).await?;
        }
        if let Some(stderr) = stderr {
            stderr.take(MAX_ERROR).read_to_end(&mut err).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    timeout(DEADLINE, read).await.map_err(|_| TmuxError::Late)??;
    let mut parser = Parser::default();
    parser.buffer().extend_from_slice(&out);
    loop {
        match parser.next_event().map_err(|error| TmuxError::Protocol(error.to_string()))? {
            Some(Event::Answer(answer)) if answer.ok => return Ok(answer.lines),
            Some(Event::Answer(answer)) => return Err(refused(answer.text(), socket)),
            Some(_) => {}
            None => return Err(refused(String::from_utf8_lossy(&err).into_owned(), socket)),
        }
    }
}

/// The most that one command may print.
const MAX_OUTPUT: u64 = 4 * 1024 * 1024;
const MAX_ERROR: u64 = 16 * 1024;

fn command(program: &Path, socket: &Path, env: &Env) -> Command {
    let mut command = start_of(program, socket, env);
    // No server is started where none is.
    command.arg("-N");
    command
}

fn start_of(program: &Path, socket: &Path, env: &Env) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env).env_remove("TMUX").env_remove("TMUX_PANE").kill_on_drop(true);
    command.current_dir("/").arg("-u").arg("-S").arg(socket);
    command
}

/// An error of tmux's as one of ours.
fn refused(said: String, socket: &Path) -> TmuxError {
    let said: String = said.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    let no_server = ["no server running", "error connecting to", "server exited", "lost server"];
    if no_server.iter().any(|words| said.contains(words)) {
        return TmuxError::NoServer(socket.to_owned());
    }
    if said.starts_with("can't find session") {
        return TmuxError::NoSession;
    }
    if said.is_empty() { TmuxError::NoServer(socket.to_owned()) } else { TmuxError::Refused(said) }
}
