//! Sessions that outlive their daemon: real programs print under real viewers while the daemon is killed, upgraded and stopped again and again. Every
//! byte is checked by each viewer, and how long each was without news is measured. `cargo xtask survive` runs it at length, a test in short.

pub mod crowd;
pub mod program;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use happy_link::Event;
use happy_wire::terminal::TerminalMessage;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use serde_json::Value;
use uuid::Uuid;

use crate::PATIENCE;
use crate::goal::goal;
use crate::phone::Phone;
use crate::process::{Home, Relay, wait_until};
use program::{Ending, now};
use watch::Watch;

/// What is done, and with which programs.
pub struct Plan {
    /// The agent.
    pub program: PathBuf,
    /// Another build of it, which says that it has another version.
    pub other: PathBuf,
    /// What runs in the sessions: `PROGRAM print …`, see [`program`].
    pub printer: PathBuf,
    /// How often the daemon is killed, how often upgraded, and how often stopped and started.
    pub rounds: u32,
    /// How many sessions there are at once afterwards; none for 0.
    pub crowd: usize,
}

/// The most sessions that a machine runs (`happy::session::MAX_SESSIONS`).
pub const MAX_SESSIONS: usize = 1_000;

/// What came of it.
pub struct Report {
    /// Bytes that viewers have checked.
    pub bytes: u64,
    /// For each kind of round, the longest time until a viewer of that kind saw something that was printed after the blow.
    pub live: BTreeMap<(&'static str, &'static str), Duration>,
    /// For how long a holder served nobody, for each of its upgrades.
    pub blackouts: Vec<Duration>,
    /// Sessions that ended while there was no daemon, and whose ending was told all the same.
    pub endings: u32,
    /// What became of many sessions at once.
    pub crowd: Option<crowd::Crowd>,
}

impl Report {
    /// The longest time that any viewer was without news.
    pub fn longest(&self) -> Duration {
        self.live.values().max().copied().unwrap_or_default()
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.blackouts.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    }

    /// Prints a table, and a line for each goal.
    pub fn show(&self) {
        anstream::println!("\n{:<34}{:<34}{:>10}", "after", "viewer", "live in ms");
        for ((blow, viewer), time) in &self.live {
            anstream::println!("{blow:<34}{viewer:<34}{:>10.0}", time.as_secs_f64() * 1e3);
        }
        anstream::println!(
            "\n{:.1} MB checked; {} endings told that happened without a daemon; {} holders upgraded, blackout p50 {:.2} ms, worst {:.2} ms",
            self.bytes as f64 / 1e6,
            self.endings,
            self.blackouts.len(),
            self.percentile(50),
            self.percentile(100)
        );
        // A byte that is missing or doubled, or typed into a session, ends the run before this line.
        goal("survive-bytes-lost-or-doubled", 0.0, "bytes", 0.0);
        goal("survive-viewer-live-again", self.longest().as_secs_f64(), "s", 1.0);
        goal("survive-holder-blackout", self.percentile(100), "ms", 5.0);
        if let Some(crowd) = &self.crowd {
            crowd.show();
        }
    }
}

/// A session that prints, and who looks at it.
struct Printing {
    id: String,
    name: &'static str,
    ending: Ending,
    watch: Arc<Watch>,
    input: PathBuf,
    stop: PathBuf,
}

/// Runs the plan.
///
/// # Errors
/// What did not survive.
pub fn run(plan: &Plan) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let relay = Relay::start()?;
    let mut home = Home::start_installed(&relay.origin(), &plan.program)?;
    let phone = runtime.block_on(home.let_pair("owner", "phone"))?;
    let versions = [&plan.program, &plan.other].map(|program| version(program));
    let [own, other] = versions;
    let (own, other) = (own?, other?);
    ensure!(own != other, "both programs have version {own}");

    let print = |name, ending, lines| printing(&home, plan, name, ending, lines);
    // The fast one prints more in the time that a daemon needs than an ordinary session keeps.
    let sessions = [
        print("happy attach --lossless", Ending::Code(0), 8)?,
        print("happy attach in a terminal", Ending::Signal(15), 8)?,
        print("a phone through a relay", Ending::Code(7), 8)?,
        print("happy attach --lossless, 2 MB/s", Ending::Code(3), 400)?,
        print("of a holder that is killed", Ending::Code(0), 8)?,
    ];
    let [plain, drawn, far, fast, doomed] = &sessions;
    let shell = home.json(["run", "--detach", "--name", "shell", "env", "PS1=$ ", "sh", "-i"])?;
    let mut readers = Vec::new();
    for session in [plain, fast, doomed] {
        readers.push((session, read_exactly(&home, session)?));
    }
    let screen = draw(&home, drawn)?;
    let far_id: Uuid = far.id.parse()?;
    let phone = runtime.spawn(follow(phone, far_id, Arc::clone(&far.watch)));
    for session in &sessions {
        session.watch.news_after(now(), PATIENCE).with_context(|| format!("the start of {}", session.name))?;
    }

    let mut report = Report { bytes: 0, live: BTreeMap::new(), blackouts: Vec::new(), endings: 0, crowd: None };
    for round in 0..plan.rounds {
        let ending = Endings::begin(&home, round)?;
        let began = now();
        home.kill_daemon()?;
        let dead = now();
        ending.go()?;
        home.begin_daemon()?;
        report.wait(&sessions, "kill -9", began, dead).with_context(|| format!("after kill {round}"))?;
        ending.told(&home)?;
        report.endings += 3;
    }
    for round in 0..plan.rounds {
        let (program, version) = if round % 2 == 0 { (&plan.other, &other) } else { (&plan.program, &own) };
        home.install(program)?;
        let began = now();
        // Half of them as an administrator would, half in haste.
        if round % 4 < 2 {
            home.stop_daemon()?
        } else {
            home.kill_daemon()?
        }
        let dead = now();
        home.begin_daemon()?;
        report
            .wait(&sessions, "upgrade to another version", began, dead)
            .with_context(|| format!("upgrade {round}"))?;
        let daemon = home.json(["daemon", "status"])?;
        ensure!(daemon["version"] == version.as_str(), "the daemon has version {}", daemon["version"]);
        for session in &sessions {
            let upgraded = || Ok(holder(&home, &session.id)?["build"]["version"] == version.as_str());
            wait_until("a holder to be upgraded", upgraded).with_context(|| format!("upgrade {round} to {version}"))?;
            let status = holder(&home, &session.id)?;
            ensure!(status["upgrades"] == u64::from(round + 1), "{} upgrades after {}", status["upgrades"], round + 1);
            report.blackouts.push(Duration::from_micros(status["blackout_us"].as_u64().context("no blackout")?));
        }
        // The switch itself was under these eyes, and they see on.
        let upgraded = now();
        report.wait(&sessions, "upgrade of the holders", upgraded, upgraded)?;
    }
    for round in 0..plan.rounds {
        let began = now();
        home.stop_daemon()?;
        let dead = now();
        home.begin_daemon()?;
        report.wait(&sessions, "stop and start", began, dead).with_context(|| format!("after stop {round}"))?;
    }
    wait_until("the daemon to answer", || Ok(home.json(["daemon", "status"]).is_ok()))?;
    for session in &sessions {
        let typed = fs::read(&session.input)?;
        ensure!(typed.is_empty(), "{} was typed into {}", String::from_utf8_lossy(&typed), session.name);
    }
    shell_is_untouched(&home, &shell)?;

    // The death of one is the death of one.
    let pid = holder(&home, &doomed.id)?["holder"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw).context("no holder")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    let (_, reader) = readers.pop().context("no reader")?;
    let (code, words) = reader.end()?;
    ensure!(code != Some(0) && !words.trim().is_empty(), "its viewer ended with {code:?} and said `{words}`");
    wait_until("one session to be lost", || Ok(state(&home, &doomed.id)?["state"] == "lost"))?;
    let dead = now();
    report.wait(&sessions[..4], "death of another's holder", dead, dead)?;

    for session in &sessions[..4] {
        fs::write(&session.stop, "")?;
    }
    for (session, reader) in readers {
        let (code, words) = reader.end()?;
        ensure!(code == Some(session.ending.shell_code()), "{}: {code:?} {words}", session.name);
        session.watch.ended()?;
    }
    let code = screen.end()?;
    ensure!(code == drawn.ending.shell_code(), "the viewer in a terminal ended with {code}");
    let exit = runtime.block_on(async { tokio::time::timeout(PATIENCE, phone).await })???;
    ensure!(exit == happy_wire::terminal::Exit::Code(7), "the phone was told {exit:?}");
    far.watch.ended()?;
    for session in &sessions[..4] {
        let told = state(&home, &session.id)?;
        ensure!(session.ending.is(&told), "{}: {told}", session.name);
    }
    report.bytes = sessions.iter().map(|session| session.watch.bytes()).sum();
    if plan.crowd > 0 {
        report.crowd = Some(crowd::run(&runtime, plan.crowd, plan.crowd >= MAX_SESSIONS)?);
    }
    Ok(report)
}

impl Report {
    /// Waits until each viewer has seen something that was printed when the daemon was `dead`; counted from when the blow `began`.
    fn wait(&mut self, sessions: &[Printing], blow: &'static str, began: u64, dead: u64) -> Result<()> {
        for session in sessions {
            let seen = session.watch.news_after(dead, PATIENCE).with_context(|| session.name.to_owned())?;
            let took = Duration::from_nanos(seen.saturating_sub(began));
            let longest = self.live.entry((blow, session.name)).or_default();
            *longest = took.max(*longest);
        }
        Ok(())
    }
}

fn version(program: &Path) -> Result<String> {
    // A copy of a debug build that pretends only to be another one says so at its end (`happy::holder::pretence`).
    let bytes = fs::read(program)?;
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(512)..]).into_owned();
    if let Some((_, json)) = tail.rsplit_once("\nhappy-pretence ") {
        let value: Value = serde_json::from_str(json.trim())?;
        return Ok(value["version"].as_str().context("no version")?.to_owned());
    }
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().rsplit(' ').next().unwrap_or_default().to_owned())
}

fn printing(home: &Home, plan: &Plan, name: &'static str, ending: Ending, lines: u32) -> Result<Printing> {
    let folder = home.path().join("printing").join(Uuid::new_v4().to_string());
    fs::create_dir_all(&folder)?;
    let (input, stop) = (folder.join("typed"), folder.join("stop"));
    fs::write(&input, "")?;
    let printer = plan.printer.to_str().context("a path")?;
    let [input_path, stop_path] = [&input, &stop].map(|path| path.to_string_lossy().into_owned());
    let session = home.json([
        "run",
        "--detach",
        "--keep",
        "256M",
        "--name",
        name,
        printer,
        "print",
        "--lines",
        &lines.to_string(),
        "--input",
        &input_path,
        "--stop",
        &stop_path,
        "--end",
        &ending.to_string(),
    ])?;
    let id = session["id"].as_str().context("no session")?.to_owned();
    Ok(Printing { id, name, ending, watch: Arc::new(Watch::new(name)), input, stop })
}

/// What `happy ls` says of a session.
fn state(home: &Home, id: &str) -> Result<Value> {
    let all = home.json(["ls"])?;
    let found = all.as_array().into_iter().flatten().find(|session| session["id"] == id);
    Ok(found.context("the session is not listed")?.clone())
}

/// What a holder says of itself, asked on its own socket (`docs/LOCAL.md`).
fn holder(home: &Home, id: &str) -> Result<Value> {
    let description = fs::read(home.path().join("sessions").join(id).join("session.json"))?;
    let description: Value = serde_json::from_slice(&description)?;
    let mut stream = UnixStream::connect(description["socket"].as_str().context("no socket")?)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[0, 0, 0, 2, 0x02, 1])?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    let json = frame.strip_prefix(&[0x82, 1]).context("not the answer of a holder")?;
    Ok(serde_json::from_slice(json)?)
}

/// Three sessions that end while there is no daemon.
struct Endings {
    ids: Vec<(String, Ending)>,
    go: PathBuf,
}

impl Endings {
    fn begin(home: &Home, round: u32) -> Result<Endings> {
        let go = home.path().join(format!("go-{round}"));
        let mut ids = Vec::new();
        for (ending, end) in [
            (Ending::Code(0), "exit 0"),
            (Ending::Code(7), "exit 7"),
            // By a signal that no daemon of ours would send.
            (Ending::Signal(10), "kill -USR1 $$; sleep 60"),
        ] {
            let script = format!("while [ ! -e {} ]; do sleep 0.01; done; {end}", go.display());
            let session = home.json(["run", "--detach", "sh", "-c", &script])?;
            ids.push((session["id"].as_str().context("no session")?.to_owned(), ending));
        }
        Ok(Endings { ids, go })
    }

    fn go(&self) -> Result<()> {
        Ok(fs::write(&self.go, "")?)
    }

    /// Waits until each is told as it was; they are forgotten then.
    fn told(self, home: &Home) -> Result<()> {
        for (id, ending) in &self.ids {
            wait_until("the daemon to answer", || Ok(home.json(["ls"]).is_ok()))?;
            wait_until("the end of a session", || Ok(state(home, id)?["state"] != "running"))?;
            let told = state(home, id)?;
            ensure!(ending.is(&told), "it ended with {ending} and is told as {told}");
            home.json(["kill", id])?;
        }
        Ok(())
    }
}

/// `happy attach --lossless` into a pipe, every byte of which is checked.
struct Reader {
    child: Child,
    thread: JoinHandle<Result<()>>,
}

fn read_exactly(home: &Home, session: &Printing) -> Result<Reader> {
    let mut command = home.command(["attach", "--lossless", &session.id])?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("no output")?;
    let watch = Arc::clone(&session.watch);
    let thread = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match output.read(&mut buffer)? {
                0 => return Ok(()),
                count => watch.take(&buffer[..count])?,
            }
        }
    });
    Ok(Reader { child, thread })
}

impl Reader {
    /// Waits for its end: its exit code, and what it said.
    fn end(mut self) -> Result<(Option<i32>, String)> {
        wait_until("a viewer to end", || Ok(self.child.try_wait()?.is_some()))?;
        let mut words = String::new();
        self.child.stderr.take().context("no words")?.read_to_string(&mut words)?;
        self.thread.join().map_err(|_| anyhow!("the thread of a viewer"))??;
        Ok((self.child.wait()?.code(), words))
    }
}

impl Drop for Endings {
    fn drop(&mut self) {
        // Those that still wait shall not wait for ever.
        let _ = fs::write(&self.go, "");
    }
}

/// `happy attach` in a terminal, whose screen must show consecutive lines at every moment.
struct Drawn {
    child: Box<dyn portable_pty::Child + Send + Sync>,
    thread: JoinHandle<Result<()>>,
    _master: Box<dyn portable_pty::MasterPty + Send>,
}

fn draw(home: &Home, session: &Printing) -> Result<Drawn> {
    const SIZE: (u16, u16) = (80, 24);
    let pair = native_pty_system().openpty(PtySize { cols: SIZE.0, rows: SIZE.1, pixel_width: 0, pixel_height: 0 })?;
    let std = home.command(["attach", "--read-only", &session.id])?;
    let mut command = CommandBuilder::new(std.get_program());
    command.args(std.get_args());
    std.get_envs().for_each(|(name, value)| match value {
        Some(value) => command.env(name, value),
        None => command.env_remove(name),
    });
    command.env("TERM", "xterm-256color");
    let child = pair.slave.spawn_command(command)?;
    let mut reader = pair.master.try_clone_reader()?;
    let watch = Arc::clone(&session.watch);
    let thread = std::thread::spawn(move || {
        let mut screen = happy_screen::Screen::new(SIZE.0, SIZE.1, 0);
        let mut buffer = vec![0; 64 * 1024];
        // Linux says EIO at the end.
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            screen.feed(&buffer[..count]);
            watch.look(&screen.text(), count)?;
        }
        Ok(())
    });
    Ok(Drawn { child, thread, _master: pair.master })
}

impl Drawn {
    fn end(mut self) -> Result<i32> {
        wait_until("the viewer in a terminal to end", || Ok(self.child.try_wait()?.is_some()))?;
        let code = self.child.wait()?.exit_code();
        self.thread.join().map_err(|_| anyhow!("the thread of a viewer"))??;
        Ok(i32::try_from(code)?)
    }
}

/// A phone that goes on at the offset where it stands, whenever its link is back.
async fn follow(mut phone: Phone, session: Uuid, watch: Arc<Watch>) -> Result<happy_wire::terminal::Exit> {
    let writer = Uuid::new_v4();
    let mut offset = 0;
    let is_up = |event: &Event| matches!(event, Event::LinkUp { .. }).then_some(());
    loop {
        let Ok(viewer) = phone.attach_from(session, writer, Some(offset)).await else {
            phone.wait_for("the link to be back", is_up).await?;
            continue;
        };
        loop {
            match phone.event().await? {
                Event::Message { channel, bytes, .. } if channel == viewer.channel => {
                    phone.handle().consumed(&phone.machine, channel, bytes.len());
                    match TerminalMessage::decode(&bytes)? {
                        TerminalMessage::Output { offset: at, bytes } => {
                            ensure!(at == offset, "output at {at} instead of {offset}");
                            offset += bytes.len() as u64;
                            watch.take(bytes)?;
                        }
                        TerminalMessage::Exited { offset: at, exit } => {
                            ensure!(at == offset, "it ended at {at}, and {offset} was seen");
                            return Ok(exit);
                        }
                        TerminalMessage::Resized { .. } | TerminalMessage::InputTaken { .. } => {}
                        other => bail!("{other:?} to one that asked for bytes that are kept"),
                    }
                }
                Event::Closed { channel, .. } if channel == viewer.channel => break,
                // Channels went with the session before.
                Event::LinkUp { resumed: false, .. } => break,
                _ => {}
            }
        }
    }
}

/// Whoever sits in that shell has seen one prompt, and its first command is the first thing that was typed.
fn shell_is_untouched(home: &Home, shell: &Value) -> Result<()> {
    let id = shell["id"].as_str().context("no session")?;
    let mut command = home.command(["attach", "--lossless", id])?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    child.stdin.as_mut().context("no input")?.write_all(b"echo $((6 * 7)); exit 5\n")?;
    let mut seen = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut seen)?;
    let code = child.wait()?.code();
    ensure!(code == Some(5), "the shell ended with {code:?}: {seen:?}");
    ensure!(seen == "$ echo $((6 * 7)); exit 5\r\n42\r\n", "somebody else was in the shell: {seen:?}");
    Ok(())
}
