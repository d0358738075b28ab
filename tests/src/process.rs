//! The real programs, started, spoken to and killed.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::PATIENCE;
use crate::phone::{Guest, Paired, Phone};

/// The path of one of our programs, built before the first use.
///
/// # Errors
/// When the programs cannot be built.
pub fn program(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    match folder {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) => bail!("{error}"),
    }
}

/// Builds the programs into the folder that this very test was built into, and gives that folder.
fn build() -> Result<PathBuf> {
    // Whoever has just built them says so, and does not wait for another look.
    if let Some(folder) = std::env::var_os("HAPPY_TEST_PROGRAMS") {
        return Ok(folder.into());
    }
    let mut folder = std::env::current_exe()?;
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let mut cargo = Command::new("cargo");
    // Build scripts look at what cargo said of the package of this test, and all that depends on them would be built again.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo.args(["build", "--quiet", "--package", "happy", "--package", "happy-relay"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().context("cannot start cargo")?;
    ensure!(built.status.success(), "the programs cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
    Ok(folder)
}

/// A port of 127.0.0.1 that nothing listens on, another one with each call.
///
/// It lies below those that systems give to whoever asks for any: a program that starts a little later would find one of those taken by
/// somebody else.
///
/// # Errors
/// When none is left.
pub fn free_port() -> Result<u16> {
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut ports = (0..COUNT).map(|_| 10_000 + (std::process::id() % COUNT * 64 + NEXT.fetch_add(1, Relaxed)) % COUNT);
    let port = ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port as u16)).is_ok());
    port.map(|port| port as u16).context("every port from 10000 to 19999 is taken")
}

/// A child whose output arrives line by line, and which does not outlive this value.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a program; its standard output and error are both listened to, and it can be spoken to.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command) -> Result<Process> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let input = child.stdin.take();
        let (sender, lines) = channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            // Ends with the child's end of the pipe, or when nobody listens any more.
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(std::result::Result::ok).try_for_each(|line| sender.send(line))
            });
        }
        Ok(Process { child, input, lines, seen: Vec::new() })
    }

    /// Waits for a line that contains the text, and gives it.
    ///
    /// # Errors
    /// With everything seen so far, when the program ends or [`PATIENCE`] does.
    pub fn wait_for(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no line with `{text}` came in time; seen:\n{}", self.seen.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("it ended before a line with `{text}`; seen:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Waits for a line that contains the text, and reads it as JSON.
    ///
    /// # Errors
    /// As [`Process::wait_for`], or when the line is something else.
    pub fn wait_for_json(&mut self, text: &str) -> Result<Value> {
        let line = self.wait_for(text)?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }

    /// Types a line.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("it is not listening")?;
        writeln!(input, "{line}")?;
        Ok(input.flush()?)
    }

    /// Waits for its end, and gives the code it ended with.
    ///
    /// # Errors
    /// When it does not end in time, or a signal ended it.
    pub fn end(&mut self) -> Result<i32> {
        self.input = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return status.code().context("a signal ended it");
            }
            ensure!(Instant::now() < deadline, "it did not end in time; seen:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Everything that has been printed so far.
    pub fn output(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does, and waits for its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.kill();
    }
}

/// A relay process that can be killed and started again on the same port.
pub struct Relay {
    port: u16,
    arguments: Vec<String>,
    process: Process,
}

impl Relay {
    /// Starts one on a free port of 127.0.0.1, without TLS.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Relay> {
        Self::start_with(&[])
    }

    /// The same with more arguments of `happy-relay serve`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(arguments: &[&str]) -> Result<Relay> {
        let port = free_port()?;
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string()).collect();
        Ok(Relay { port, process: Self::spawn(port, &arguments)?, arguments })
    }

    fn spawn(port: u16, arguments: &[String]) -> Result<Process> {
        let mut command = Command::new(program("happy-relay")?);
        command.args(["serve", "--listen", &format!("127.0.0.1:{port}")]).args(arguments);
        let mut process = Process::start(command)?;
        process.wait_for(&port.to_string())?;
        Ok(process)
    }

    /// Its origin, for `--relay`.
    pub fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The id of its process, which changes when it is started again.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it with -9 and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.restart()
    }

    /// Asks it to end, as a service manager does, waits until it has, and starts it again.
    ///
    /// # Errors
    /// When it does not end by itself, ends with a failure, or does not come back.
    pub fn stop_and_restart(&mut self) -> Result<()> {
        let id =
            i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw).context("no process")?;
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let code = self.process.end()?;
        ensure!(code == 0, "it ended with {code}:\n{}", self.process.output());
        self.restart()
    }

    /// Kills it with -9.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(self.port, &self.arguments)?;
        Ok(())
    }

    /// What it answers to a GET, head and body.
    ///
    /// # Errors
    /// When it is not reached.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        write!(socket, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n", self.port)?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Everything that it has printed since it was last started.
    pub fn output(&mut self) -> String {
        self.process.output()
    }
}

/// A home of the agent, with its daemon.
pub struct Home {
    folder: TempDir,
    daemon: Option<Process>,
    relay: String,
    /// Its own copy of the agent; the one that was built when there is none.
    installed: Option<PathBuf>,
}

impl Home {
    /// A fresh home whose daemon uses the relay at this origin.
    ///
    /// # Errors
    /// When the daemon does not come up.
    pub fn start(relay: &str) -> Result<Home> {
        let mut home = Self::prepare(relay)?;
        home.start_daemon()?;
        Ok(home)
    }

    /// The same with an executable of its own, as [`Home::install`] puts it there.
    ///
    /// # Errors
    /// When the daemon does not come up.
    pub fn start_installed(relay: &str, program: &Path) -> Result<Home> {
        let mut home = Self::prepare(relay)?;
        home.install(program)?;
        home.start_daemon()?;
        Ok(home)
    }

    fn prepare(relay: &str) -> Result<Home> {
        let folder = tempfile::Builder::new().prefix("happy").tempdir()?;
        Ok(Home { folder, daemon: None, relay: relay.to_owned(), installed: None })
    }

    /// Puts an executable in the place of the one that is used, as an installer does: what runs keeps the old file.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn install(&mut self, program: &Path) -> Result<()> {
        let place = self.path().join("bin");
        std::fs::create_dir_all(&place)?;
        std::fs::copy(program, place.join("new")).with_context(|| format!("cannot copy {}", program.display()))?;
        std::fs::rename(place.join("new"), place.join("happy"))?;
        self.installed = Some(place.join("happy"));
        Ok(())
    }

    /// The folder, `HAPPY_HOME_DIR`.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the agent in this home.
    ///
    /// # Errors
    /// When the program cannot be built.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Command> {
        let program = self.installed.clone().map_or_else(|| program("happy"), Ok)?;
        let mut command = Command::new(program);
        command.args(words).env("HAPPY_HOME_DIR", self.path()).env_remove("HAPPY_SERVER_URL").env("NO_COLOR", "1");
        // The tmux of whoever runs this is none of its business.
        command.env("TMUX_TMPDIR", self.path()).env_remove("TMUX");
        Ok(command)
    }

    /// Runs a command with `--json` and gives what it printed.
    ///
    /// # Errors
    /// With its words, when it ends with another code than 0 or prints something else than JSON.
    pub fn json<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Value> {
        let output = self.command(["--json"])?.args(words).stdin(Stdio::null()).output()?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "it ended with {}:\n{out}\n{err}", output.status);
        serde_json::from_str(&out).with_context(|| format!("not JSON:\n{out}\n{err}"))
    }

    /// Starts the daemon, in the foreground of a child of ours.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.begin_daemon()?;
        wait_until("the daemon to answer", || Ok(self.json(["daemon", "status"]).is_ok()))
    }

    /// Starts `happy pair`, and gives it with the link that it printed.
    ///
    /// # Errors
    /// When there is no invitation.
    pub fn invite(&self, role: &str) -> Result<(Process, String)> {
        let mut pair = Process::start(self.command(["pair", "--role", role, "--json"])?)?;
        let invited = pair.wait_for_json("\"links\"")?;
        let link = invited["links"][0]["link"].as_str().context("no link")?.to_owned();
        Ok((pair, link))
    }

    /// Lets another home join this one.
    ///
    /// # Errors
    /// When they do not come together.
    pub fn let_join(&self, other: &Home) -> Result<()> {
        let (mut pair, link) = self.invite("machine")?;
        let mut join = Process::start(other.command(["join", &link, "--json"])?)?;
        let shown = join.wait_for_json("show_code")?;
        pair.wait_for("code_wanted")?;
        pair.say(shown["code"].as_str().context("no code")?)?;
        pair.wait_for("\"paired\"")?;
        join.wait_for("\"joined\"")?;
        Ok(())
    }

    /// Lets a phone without a browser pair.
    ///
    /// # Errors
    /// When they do not come together.
    pub async fn let_pair(&self, role: &str, name: &str) -> Result<Phone> {
        let (mut pair, link) = self.invite(role)?;
        let mut guest = Guest::scan(&link, name)?;
        let code = guest.code().await?;
        pair.wait_for("code_wanted")?;
        pair.say(&code)?;
        match guest.outcome().await? {
            Paired::Yes(phone) => Ok(*phone),
            Paired::No(why) => bail!("{why}"),
        }
    }

    /// Starts the daemon and does not wait until it answers.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn begin_daemon(&mut self) -> Result<()> {
        let command = self.command(["daemon", "start-sync", "--api-port", "0", "--relay", &self.relay])?;
        self.daemon = Some(Process::start(command)?);
        Ok(())
    }

    /// Ends the daemon as a person does; holders and sessions stay.
    ///
    /// # Errors
    /// With its words, when it does not end well.
    pub fn stop_daemon(&mut self) -> Result<()> {
        self.json(["daemon", "stop"])?;
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        let code = daemon.end()?;
        ensure!(code == 0, "the daemon ended with {code}:\n{}", daemon.output());
        Ok(())
    }

    /// Kills the daemon with -9; holders and sessions stay.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill_daemon(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.kill())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Sessions outlive the daemon by design, so a test has to end them itself.
        if let Ok(sessions) = self.json(["ls"]) {
            for session in sessions.as_array().into_iter().flatten() {
                if let Some(id) = session["id"].as_str() {
                    let _ = self.json(["kill", id]);
                }
            }
        }
        // Those of a daemon that was killed, and those that do not heed.
        for holder in holders_in(self.path()) {
            let _ = rustix::process::kill_process(holder, rustix::process::Signal::KILL);
        }
    }
}

/// The holders whose sessions live below a folder. With a holder its terminal goes, and with that the program in it.
pub fn holders_in(folder: &Path) -> Vec<rustix::process::Pid> {
    let is_ours = |process: &Path| {
        let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<_> = words.split(|byte| *byte == 0).collect();
        words.contains(&&b"holder"[..]) && words.iter().any(|word| word.starts_with(folder.as_os_str().as_bytes()))
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let ours = processes.filter(|process| is_ours(process));
    ours.filter_map(|process| rustix::process::Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?)).collect()
}

/// Asks until the answer is yes.
///
/// # Errors
/// When asking fails, or [`PATIENCE`] ends.
pub fn wait_until(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ask()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
