//! Recordings of real programs: what they print in a terminal whose keyboard follows a script.
//!
//! Each scene runs in namespaces of its own (its processes, its host name), with an environment and files that are the same everywhere, so that
//! a recording says nothing about the machine that made it. The terminal that the program talks to is the product's own screen: it answers
//! the questions that programs ask before they draw.
//!
//! A recording is an asciicast (version 3): output, changes of size, and a mark wherever the program had gone quiet, which is where screens
//! are compared. It is text, so a byte that is no UTF-8 becomes U+FFFD, as every reader would make it.

pub mod cast;
pub mod scenes;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use happy_screen::Screen;
use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};

use cast::Cast;
use scenes::{SCENES, Scene, Step};

/// What to record and where to.
#[derive(Debug)]
pub struct Job {
    /// The folder of the recordings.
    pub to: PathBuf,
    /// Where npm has installed the coding agents.
    pub agents: PathBuf,
    /// A server for node that answers as a language model would.
    pub model: PathBuf,
    /// Print the screen at every mark.
    pub show: bool,
    /// Names of scenes, or their beginnings; empty: all.
    pub names: Vec<String>,
}

/// Where the programs run; made anew for every run. The path is part of what they print.
const STAGE: &str = "/tmp/rec";
/// A program that has printed nothing for so long waits for a key.
const QUIET: Duration = Duration::from_millis(250);
/// And one that never goes quiet is not waited for longer than this.
const RESTLESS: Duration = Duration::from_secs(3);
/// How long a scene may wait for the text that it names.
const PATIENCE: Duration = Duration::from_secs(40);
/// More output than this ends a scene: a recording shows kinds of output, not amounts.
const MAX_OUTPUT: usize = 48 * 1024;
/// Agents draw everything again for every word, and what is asked for comes late.
const MAX_AGENT_OUTPUT: usize = 96 * 1024;

/// Records the scenes.
///
/// # Errors
/// When a program is missing, does not show what its scene waits for, or the files cannot be written.
pub fn run(job: &Job) -> Result<()> {
    let chosen = |scene: &&Scene| job.names.is_empty() || job.names.iter().any(|name| scene.name.starts_with(name));
    let scenes: Vec<&Scene> = SCENES.iter().filter(chosen).collect();
    ensure!(!scenes.is_empty(), "no scene has such a name");
    std::fs::create_dir_all(&job.to)?;
    let mut total = 0;
    let mut failed = Vec::new();
    for scene in &scenes {
        prepare_stage()?;
        match record(scene, job) {
            Ok(cast) => {
                let marks = cast.marks();
                let bytes = cast.into_bytes();
                total += bytes.len();
                std::fs::write(job.to.join(scene.name).with_extension("cast"), &bytes)?;
                anstream::println!("{:<24} {:>6} bytes, {marks:>2} marks", scene.name, bytes.len());
            }
            Err(error) => {
                anstream::println!("{:<24} {error:#}", scene.name);
                failed.push(scene.name);
            }
        }
    }
    std::fs::remove_dir_all(STAGE)?;
    anstream::println!("{} recordings, {} KB", scenes.len() - failed.len(), total / 1024);
    ensure!(failed.is_empty(), "not recorded: {}", failed.join(", "));
    Ok(())
}

fn prepare_stage() -> Result<()> {
    let stage = Path::new(STAGE);
    if stage.exists() {
        std::fs::remove_dir_all(stage)?;
    }
    std::fs::create_dir_all(stage.join("home"))?;
    let mut bash = Command::new("bash")
        .arg("-s")
        .stdin(Stdio::piped())
        .current_dir(stage)
        .env_clear()
        .envs(environment())
        .spawn()?;
    bash.stdin.take().context("it was asked for")?.write_all(include_bytes!("stage.sh"))?;
    ensure!(bash.wait()?.success(), "the stage could not be set");
    Ok(())
}

/// What every program finds in its environment, and nothing else.
fn environment() -> Vec<(String, String)> {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/games";
    let mut environment: Vec<(String, String)> = [
        ("PATH", path),
        ("HOME", "/tmp/rec/home"),
        ("TERM", "xterm-256color"),
        ("COLORTERM", "truecolor"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
        ("USER", "user"),
        ("SHELL", "/bin/bash"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    environment.push(("GIT_CONFIG_NOSYSTEM".into(), "1".into()));
    environment
}

/// The variables through which the cargo of a scene finds its toolchain. They lead to folders of this machine and are never printed.
fn toolchain() -> impl Iterator<Item = (String, String)> {
    let home = std::env::var("HOME").unwrap_or_default();
    let folder = move |name: &str, default: &str| {
        (name.to_owned(), std::env::var(name).unwrap_or_else(|_| format!("{home}/{default}")))
    };
    [folder("CARGO_HOME", ".cargo"), folder("RUSTUP_HOME", ".rustup")].into_iter()
}

/// A scene while it is played.
struct Stage<'a> {
    scene: &'a Scene,
    master: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    screen: Screen,
    cast: Cast,
    ended: bool,
    show: bool,
}

fn record(scene: &Scene, job: &Job) -> Result<Cast> {
    let (cols, rows) = scene.size;
    let pty = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })?;
    let mut child = pty.slave.spawn_command(command(scene, job)?)?;
    drop(pty.slave);
    let mut reader = pty.master.try_clone_reader()?;
    let (tell, output) = channel();
    let reading = std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        // A PTY whose program has ended gives an error.
        while let Ok(read @ 1..) = reader.read(&mut buffer) {
            if tell.send(buffer[..read].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut stage = Stage {
        scene,
        keyboard: pty.master.take_writer()?,
        master: pty.master,
        output,
        screen: Screen::new(cols, rows, 10_000),
        cast: Cast::new(scene.name, scene.command, cols, rows),
        ended: false,
        show: job.show,
    };
    let played = stage.play();
    // The scene is over; a program that has ended by itself cannot be killed, and that is well.
    let _gone = child.kill();
    child.wait()?;
    let Stage { cast, keyboard, master, output, .. } = stage;
    drop((keyboard, master, output));
    reading.join().ok().context("the reader has panicked")?;
    played?;
    ensure!(!cast.is_empty(), "it has printed nothing");
    Ok(cast)
}

fn command(scene: &Scene, job: &Job) -> Result<CommandBuilder> {
    // Without network namespace: the agents talk to the stand-in for a model on loopback, and there is nothing else to talk to.
    let mut command = CommandBuilder::new("unshare");
    command.args(["--user", "--map-root-user", "--uts", "--pid", "--fork", "--mount", "--mount-proc", "--kill-child"]);
    command.args(["--", "bash", "-c", &format!("hostname machine\n{}", scene.command)]);
    command.cwd(format!("{STAGE}/project"));
    command.env_clear();
    for (name, value) in environment() {
        command.env(name, value);
    }
    if scene.command.contains("cargo ") {
        let cargo = toolchain().collect::<Vec<_>>();
        command.env("PATH", format!("{}/bin:/usr/bin:/bin", cargo[0].1));
        cargo.iter().for_each(|(name, value)| command.env(name, value));
    }
    if scene.command.contains("$AGENTS") {
        // Not where they are: what they print of their own place must not be of this machine.
        std::os::unix::fs::symlink(job.agents.canonicalize()?, format!("{STAGE}/agents"))?;
        std::fs::copy(&job.model, format!("{STAGE}/model.mjs"))?;
        command.env("AGENTS", format!("{STAGE}/agents/node_modules/.bin"));
    }
    Ok(command)
}

impl Stage<'_> {
    fn play(&mut self) -> Result<()> {
        self.first_output()?;
        self.quiet(RESTLESS)?;
        self.mark();
        for step in self.scene.steps {
            if self.ended || self.full() {
                break;
            }
            match *step {
                Step::Keys(keys) => {
                    self.keyboard.write_all(keys.as_bytes())?;
                    self.quiet(RESTLESS)?;
                }
                Step::Until(text) => self.until(text)?,
                Step::Resize(cols, rows) => {
                    self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 })?;
                    self.screen.resize(cols, rows);
                    self.cast.resize(cols, rows);
                    self.quiet(RESTLESS)?;
                }
                Step::Run(milliseconds) => {
                    let end = Instant::now() + Duration::from_millis(milliseconds);
                    while Instant::now() < end && !self.full() && self.take(end)? {}
                }
            }
            self.mark();
        }
        Ok(())
    }

    fn full(&self) -> bool {
        let limit = if self.scene.command.contains("$AGENTS") { MAX_AGENT_OUTPUT } else { MAX_OUTPUT };
        self.cast.output() >= limit
    }

    fn mark(&mut self) {
        self.cast.mark();
        if self.show {
            anstream::println!("── {} {:?}", self.scene.name, self.screen.size());
            anstream::println!("{}", self.screen.text());
        }
    }

    fn first_output(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        ensure!(self.take(deadline)?, "it has printed nothing");
        Ok(())
    }

    /// Waits until nothing has come for a while, but not longer than `limit`.
    fn quiet(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        while Instant::now() < end && !self.full() && self.take(Instant::now() + QUIET)? {}
        Ok(())
    }

    /// Waits until the screen shows a text, and then until nothing more comes.
    fn until(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.screen.text().contains(text) {
            if !self.take(deadline)? {
                bail!("it does not show {text:?} but:\n{}", self.screen.text());
            }
        }
        self.quiet(RESTLESS)
    }

    /// Takes what comes next. `false`: nothing came until `deadline`, or the program has ended.
    fn take(&mut self, deadline: Instant) -> Result<bool> {
        let bytes = match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => bytes,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                return Ok(false);
            }
        };
        self.cast.output_bytes(&bytes);
        let feed = self.screen.feed(&bytes);
        if !feed.replies.is_empty() {
            self.keyboard.write_all(&feed.replies)?;
        }
        Ok(true)
    }
}
