//! A session's terminal, from the key to the glass: echo, floods, attaching, memory. Beside a bare PTY, tmux and ssh in the same run.

mod hops;
mod peers;
mod viewers;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use happy_screen::Screen;
use happy_tests::phone::Phone;
use happy_tests::process::{Home, Relay};
use uuid::Uuid;

use self::hops::Hops;
pub use self::hops::hop;
use self::peers::{Pty, Ssh, Tmux};
use self::viewers::{Company, Terminal};
use crate::sample::{Sample, goal, goal_at_least};

/// How much to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Keys typed on each path, without and with a flood beside them.
    #[arg(long, default_value_t = 1_000)]
    keys: usize,
    /// Megabytes that are printed to a lossless viewer.
    #[arg(long, default_value_t = 100)]
    megabytes: usize,
    /// How often a viewer attaches.
    #[arg(long, default_value_t = 200)]
    attachments: usize,
    /// How often a flood is interrupted.
    #[arg(long, default_value_t = 20)]
    interrupts: usize,
    /// Idle sessions at once.
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// Seconds during which idle sessions are watched.
    #[arg(long, default_value_t = 60)]
    watched: u64,
}

/// Between keys, where there are pauses: time enough for every process to fall asleep.
const PAUSE: Duration = Duration::from_millis(5);
/// Keys without pauses on one path, before it is the turn of the next one.
const IN_A_ROW: usize = 50;
/// Keys at the beginning that are not counted: the first ones pay for memory and caches.
const WARM_UP: usize = 50;
/// Lines of history of the sessions that are attached to and weighed.
const LINES: usize = 10_000;

/// Each key follows the echo of the last one: the round whose median is held against a bare PTY.
const ALONE: &str = "alone, one after the other";
/// Its processors fall asleep between keys and while they wait for each other, and what else runs on this computer pushes everything out of their caches.
/// Nothing is held against it but the ways beside it.
const PAUSED: &str = "alone, 5 ms apart";
const PAUSED_AWAKE: &str = "alone, 5 ms apart, on processors that are kept awake";

/// For as long as this lives, no processor goes into a state that it takes time to wake up from (`/dev/cpu_dma_latency`, as cyclictest does it): a key and
/// its echo wake ten threads one after the other, a bare PTY four, and of a processor that sleeps, above all one of a virtual machine, each costs some
/// 30 µs that no program can do anything about.
struct Awake(#[expect(dead_code, reason = "the kernel heeds it while it is open")] fs::File);

impl Awake {
    fn keep() -> Option<Awake> {
        let mut file = fs::File::options().write(true).open("/dev/cpu_dma_latency").ok()?;
        file.write_all(&0_i32.to_ne_bytes()).ok()?;
        Some(Awake(file))
    }
}

pub async fn run(arguments: Arguments) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start()?;
    let home = Home::start(&relay.origin())?;
    let mut phone = home.let_pair("owner", "bench").await?;
    echo(&arguments, &home, &mut phone, folder.path()).await?;
    interrupt(&arguments, &home)?;
    lossless(&arguments, &home, folder.path())?;
    attach(&arguments, &mut phone).await?;
    weigh(&arguments, &home, &phone).await
}

/// A key and its echo, on all paths in turn so that all meet the same weather; then again while another session floods.
async fn echo(arguments: &Arguments, home: &Home, phone: &mut Phone, folder: &Path) -> Result<()> {
    let session = phone.create(&["cat"]).await?;
    let mut viewer = phone.attach(session.id).await?;
    let (mut pty, mut tmux, mut ssh) = (Pty::open(&["cat"], &[])?, Tmux::open(folder)?, Ssh::open(folder)?);
    let mut hops = Hops::open()?;
    let mut goals = Vec::new();
    for beside in [
        ALONE,
        PAUSED,
        PAUSED_AWAKE,
        "beside a session that floods",
        "beside hostile sessions",
        "beside 20 viewers of different speed",
    ] {
        let awake = if beside == PAUSED_AWAKE { Awake::keep() } else { None };
        if beside == PAUSED_AWAKE && awake.is_none() {
            anstream::println!("\nthe processors cannot be kept awake here, which takes root");
            continue;
        }
        let flood = if beside == "beside a session that floods" { Some(Flood::start(home)?) } else { None };
        let company = match beside {
            "beside hostile sessions" => Some(Company::of_hostile(home)?),
            "beside 20 viewers of different speed" => Some(Company::of_viewers(home)?),
            _ => None,
        };
        let [mut whole, mut bare, mut of_hops, mut of_tmux, mut of_ssh] = <[Sample; 5]>::default();
        let in_a_row = if beside == ALONE { IN_A_ROW } else { 1 };
        for round in 0..(WARM_UP + arguments.keys).div_ceil(in_a_row) {
            let counts = round * in_a_row >= WARM_UP;
            for _ in 0..in_a_row {
                whole.add_if(counts, phone.echo(&mut viewer).await?);
            }
            for (other, sample) in [(&mut pty, &mut bare), (&mut tmux.pty, &mut of_tmux), (&mut ssh.pty, &mut of_ssh)] {
                for _ in 0..in_a_row {
                    sample.add_if(counts, other.echo()?);
                }
            }
            for _ in 0..in_a_row {
                of_hops.add_if(counts, hops.echo()?);
            }
            if beside != ALONE {
                tokio::time::sleep(PAUSE).await;
            }
        }
        drop((flood, company, awake));
        anstream::println!(
            "\necho of one key, {beside}, {} keys\n{:<44}{:>9}{:>9}",
            whole.len(),
            "path",
            "p50 ms",
            "p99 ms"
        );
        for (name, sample) in [
            ("bare PTY", &bare),
            ("relay, daemon, holder that do nothing, PTY", &of_hops),
            ("tmux", &of_tmux),
            ("ssh over loopback", &of_ssh),
            ("phone, relay, daemon, holder, PTY (sealed)", &whole),
        ] {
            anstream::println!("{name:<44}{:>9.3}{:>9.3}", sample.percentile(50), sample.percentile(99));
        }
        goals.push(match beside {
            PAUSED => continue,
            ALONE => ("terminal-echo-p50-over-bare-pty", whole.percentile(50) - bare.percentile(50), 0.3),
            PAUSED_AWAKE => ("terminal-echo-p50-over-bare-pty-awake", whole.percentile(50) - bare.percentile(50), 0.3),
            "beside hostile sessions" => ("terminal-echo-p99-beside-hostile", whole.percentile(99), 10.0),
            "beside a session that floods" => ("terminal-echo-p99-beside-flood", whole.percentile(99), 10.0),
            _ => ("terminal-echo-p99-beside-20-viewers", whole.percentile(99), 10.0),
        });
    }
    goals.into_iter().for_each(|(name, value, bound)| goal(name, value, "ms", bound));
    Ok(())
}

/// `^C` under a flood, at a viewer that draws a megabyte a second: from the key to the prompt.
fn interrupt(arguments: &Arguments, home: &Home) -> Result<()> {
    let session = run_detached(home, &["env", "PS1=ready> ", "sh", "-i"])?;
    let mut terminal = Terminal::open(home, &session, 1e6)?;
    let is_ready = |text: &str| text.trim_end().ends_with("ready>");
    terminal.until("prompt", is_ready)?;
    let mut times = Sample::default();
    for _ in 0..arguments.interrupts {
        terminal.press(b"yes\r")?;
        terminal.until("flood", |text| text.lines().filter(|line| *line == "y").count() > 20)?;
        // What lies between program and glass fills up.
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        terminal.press(b"\x03")?;
        terminal.until("prompt", is_ready)?;
        times.add(began.elapsed());
    }
    drop(terminal);
    home.json(["kill", &session])?;
    let [middle, worst] = [50, 100].map(|percent| times.percentile(percent) / 1e3);
    anstream::println!("\n^C under `yes`, viewer at 1 MB/s: prompt after {middle:.3} s, at worst {worst:.3} s");
    goal("terminal-interrupt-slow-viewer", worst, "s", 0.2);
    Ok(())
}

/// A session that prints as fast as it can, and somebody who looks at it.
struct Flood<'a> {
    home: &'a Home,
    session: String,
    viewer: Child,
}

impl<'a> Flood<'a> {
    fn start(home: &'a Home) -> Result<Flood<'a>> {
        let session = run_detached(home, &["yes"])?;
        let mut viewer = home.command(["attach", "--lossless", "--read-only", &session])?;
        // Exact bytes, as fast as they are taken; nobody keeps them.
        let viewer = viewer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Flood { home, session, viewer })
    }
}

impl Drop for Flood<'_> {
    fn drop(&mut self) {
        let _ = self.viewer.kill();
        let _ = self.viewer.wait();
        let _ = self.home.json(["kill", &self.session]);
    }
}

fn run_detached(home: &Home, words: &[&str]) -> Result<String> {
    let session = home.json(["run", "--detach"].iter().chain(words))?;
    Ok(session["id"].as_str().context("no session")?.to_owned())
}

/// Many megabytes to one who must get all of them, beside a bare PTY whose output is only read.
fn lossless(arguments: &Arguments, home: &Home, folder: &Path) -> Result<()> {
    let file = folder.join("log");
    let wanted = arguments.megabytes as u64 * 1_000_000;
    fs::write(&file, coloured_log(wanted as usize))?;
    let file = file.to_str().context("a path")?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let began = Instant::now();
        let got = Pty::open(&["cat", file], &[])?.read_to_end();
        ensure!(got >= wanted, "only {got} bytes came out of the bare PTY");
        bare.push(wanted as f64 / 1e6 / began.elapsed().as_secs_f64());

        let session = run_detached(home, &["sh", "-c", &format!("read go; cat {file}")])?;
        let mut attach = home.command(["attach", "--lossless", &session])?;
        let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = attach.stdout.take().context("no output")?;
        attach.stdin.as_mut().context("no input")?.write_all(b"go\n")?;
        let (mut buffer, mut got) = (vec![0; 256 * 1024], output.read(&mut [0; 4])? as u64);
        let began = Instant::now();
        loop {
            match output.read(&mut buffer)? {
                0 => break,
                count => got += count as u64,
            }
        }
        attach.wait()?;
        ensure!(got >= wanted, "only {got} bytes came");
        ours.push(wanted as f64 / 1e6 / began.elapsed().as_secs_f64());
    }
    let (bare, ours) = (middle(bare), middle(ours));
    anstream::println!(
        "\n{} MB of a coloured log: bare PTY {bare:.0} MB/s, `happy attach --lossless` {ours:.0} MB/s",
        arguments.megabytes
    );
    goal_at_least("terminal-lossless-over-bare-pty", ours / bare, "ratio", 0.8);
    Ok(())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Lines as builds print them.
fn coloured_log(bytes: usize) -> Vec<u8> {
    let mut log = Vec::with_capacity(bytes + 200);
    let mut number = 0_u64;
    while log.len() < bytes {
        number += 1;
        let (color, word) = [(32, "ok"), (33, "warn"), (36, "info"), (31, "error")][(number % 4) as usize];
        let line = format!(
            "\x1b[2m{number:>9}\x1b[0m \x1b[{color};1m{word:<5}\x1b[0m compiled unit {} in {} ms\r\n",
            number * 7919 % 104_729,
            number % 997
        );
        log.extend_from_slice(line.as_bytes());
    }
    log
}

/// Print a whole screen of 200×60: colours that change a little from cell to cell; and a random one for each, which nothing makes small.
const GRADIENT: &str = r#"awk 'BEGIN { for (row = 0; row < 60; row++) {
    for (col = 0; col < 200; col++)
        printf "\033[38;2;%d;%d;%dm#", 128 + 127 * sin(col / 60 + row / 20), 128 + 127 * sin(row / 25 - col / 90), (col + row) % 256
    if (row < 59) printf "\r\n"
} }'; exec cat"#;
const RANDOM: &str = r#"awk 'BEGIN { srand(1); for (row = 0; row < 60; row++) {
    for (col = 0; col < 200; col++) printf "\033[38;2;%d;%d;%dm#", rand() * 256, rand() * 256, rand() * 256
    if (row < 59) printf "\r\n"
} }'; exec cat"#;
/// What a program in 24 bits of colour shows: a listing whose words have colours of their own.
const PROGRAM: &str = r#"awk 'BEGIN { for (row = 0; row < 60; row++) {
    printf "\033[48;2;30;34;42m\033[38;2;99;109;131m%4d ", row + 1
    for (word = 0; word < 24; word++) {
        kind = (row * 7 + word * 5) % 6
        printf "\033[38;2;%d;%d;%dm%s ", 97 + kind * 25, 175 - kind * 9, 239 - kind * 31, substr("function return const variable string number", kind * 7 + 1, 6)
    }
    printf "\033[K"
    if (row < 59) printf "\r\n"
} printf "!" }'; exec cat"#;
/// Rounds of attaching to the large screens.
const LARGE_ROUNDS: usize = 5;

/// From asking to a painted screen.
async fn attach(arguments: &Arguments, phone: &mut Phone) -> Result<()> {
    let shell = phone
        .create(&["sh", "-c", &format!("seq 1 {LINES}; ls -l --color=always /usr; printf '$ '; exec cat")])
        .await?;
    let mut sessions = vec![(shell.id, "$")];
    for (picture, end) in [(GRADIENT, "#"), (PROGRAM, "!"), (RANDOM, "#")] {
        sessions.push((phone.create_sized(&["sh", "-c", picture], 200, 60).await?.id, end));
    }
    // All have printed everything when their end is on the screen.
    for (session, end) in &sessions {
        until_painted(phone, *session, end).await?;
    }
    let mut times = Sample::default();
    let mut bytes = BTreeMap::new();
    for round in 0..arguments.attachments {
        for (session, _) in &sessions {
            if *session != shell.id && round >= LARGE_ROUNDS {
                continue;
            }
            let began = Instant::now();
            let (viewer, snapshot) = phone.paint(*session).await?;
            let screen = Screen::restore(&snapshot, 5_000)?;
            if *session == shell.id {
                times.add(began.elapsed());
                ensure!(screen.text().contains('$'), "the screen is {}", screen.text());
            }
            bytes.insert(*session, snapshot.len());
            phone.detach(&viewer).await?;
        }
    }
    let kib: Vec<f64> = sessions
        .iter()
        .map(|(session, _)| bytes.get(session).map_or(f64::NAN, |bytes| *bytes as f64 / 1024.0))
        .collect();
    let [of_shell, of_gradient, of_program, of_random] = kib[..] else { anyhow::bail!("four sessions") };
    anstream::println!(
        "\nattach to a session with {LINES} lines: p50 {:.2} ms, p99 {:.2} ms\nfirst paint, KiB: a shell {of_shell:.1}; 200×60 in full colour: \
         a gradient {of_gradient:.1}, a program {of_program:.1}, a random colour for each cell {of_random:.1}",
        times.percentile(50),
        times.percentile(99),
    );
    goal("terminal-attach-p50", times.percentile(50), "ms", 5.0);
    goal("terminal-attach-p99", times.percentile(99), "ms", 20.0);
    goal("terminal-first-paint-shell", of_shell, "KiB", 4.0);
    goal("terminal-first-paint-colour", of_gradient.max(of_program), "KiB", 16.0);
    Ok(())
}

async fn until_painted(phone: &mut Phone, session: Uuid, text: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let (viewer, snapshot) = phone.paint(session).await?;
        phone.detach(&viewer).await?;
        let seen = Screen::restore(&snapshot, 0)?.text();
        if seen.trim_end().ends_with(text) {
            return Ok(());
        }
        ensure!(began.elapsed() < happy_tests::PATIENCE, "the screen never showed `{text}`: {seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What idle sessions weigh, and that nothing wakes them.
async fn weigh(arguments: &Arguments, home: &Home, phone: &Phone) -> Result<()> {
    let script =
        format!("seq 1 {LINES} | sed 's/$/ lines of an ordinary log are about as long as this one is/'; exec cat");
    for _ in 0..arguments.sessions {
        phone.create(&["sh", "-c", &script]).await?;
    }
    let holders = loop {
        let sessions = home.json(["ls"])?;
        let printed =
            sessions.as_array().into_iter().flatten().filter(|one| one["output_offset"].as_u64() > Some(500_000));
        let programs = printed.filter_map(|session| u32::try_from(session["pid"].as_u64()?).ok());
        let idle = programs.map(parent_of).collect::<Result<Vec<_>>>()?;
        if idle.len() >= arguments.sessions {
            break idle;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = holders.iter().map(|holder| switches(*holder)).sum::<Result<u64>>()?;
    tokio::time::sleep(Duration::from_secs(arguments.watched)).await;
    let woken = holders.iter().map(|holder| switches(*holder)).sum::<Result<u64>>()? - before;
    let weights = holders.iter().map(|holder| proportional(*holder)).collect::<Result<Vec<_>>>()?;
    let (each, all) = (middle(weights.clone()), weights.iter().sum::<f64>());
    anstream::println!(
        "\n{} idle sessions with {LINES} lines: {each:.2} MB each, {all:.0} MB in all (proportional); woken {woken} times in {} s",
        holders.len(),
        arguments.watched
    );
    goal("terminal-idle-session", each, "MB", 4.0);
    goal("terminal-idle-sessions", all, "MB", 400.0);
    goal("terminal-idle-wakeups", woken as f64, "", 0.0);
    Ok(())
}

/// Who started a process: of the program in a session, its holder.
fn parent_of(process: u32) -> Result<u32> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("it has ended")?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no PPid")?;
    Ok(line.trim().parse()?)
}

/// How often the threads of a process have been put onto a processor.
fn switches(process: u32) -> Result<u64> {
    let mut all = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("it has ended")? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).context("no count")?;
        all += line.trim().parse::<u64>()?;
    }
    Ok(all)
}

/// Memory of a process, what it shares divided among those that share it, in MB.
fn proportional(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).context("it has ended")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}
