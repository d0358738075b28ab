//! `happy daemon …` and `happy relay`.

use std::process::Stdio;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::DaemonArgs;
use crate::cli::client::{CallFailure, Client, sentence};
use crate::cli::output::{
    BAD, FAINT, Form, GOOD, STRONG, WARN, ago, aside, aside_sentences, lines, paint, say, say_sentences, tame,
};
use crate::cli::queue::span;
use crate::daemon::local::{DaemonStatus, Machines, RelayStatus, Status, Stop};
use crate::daemon::{Daemon, Taken};
use crate::store::{DaemonLock, Home, unix_ms};
use crate::trouble::Trouble;
use crate::unit::{self, notify};

/// How long a daemon may take from its start to its socket; it makes keys and opens the sessions' files meanwhile.
const START_TIME: Duration = Duration::from_secs(20);
/// How long a daemon may take to end.
const STOP_TIME: Duration = Duration::from_secs(15);

/// A connection to the running daemon.
pub async fn connect(home: &Home, target: Option<&str>) -> Result<Client, Trouble> {
    let client = connect_quietly(home, target).await?;
    if !client.link_up() {
        let name = tame(&client.greeted().name, 64);
        let why = match why_away(home, &client.greeted().device).await {
            Some(why) => {
                let said = format!("{name} cannot be reached now: {}. Trying on for a while.", tame(&why, 400));
                client.is_away(why);
                said
            }
            None => format!("{name} cannot be reached now; trying on for a while."),
        };
        aside_sentences(FAINT, &why);
    }
    Ok(client)
}

/// The same, without a word when there is no link.
pub async fn connect_quietly(home: &Home, target: Option<&str>) -> Result<Client, Trouble> {
    Client::connect(&home.socket(), target).await?.ok_or_else(|| {
        Trouble::new(
            format!("No daemon is running for {}.", home.root().display()),
            "Start it with `happy up`, or in the background with `happy daemon start`.",
        )
        .with_exit(3)
    })
}

/// Why a machine is not reached, if it is the relay's fault.
pub async fn why_away(home: &Home, device: &str) -> Option<String> {
    let daemon = Client::connect(&home.socket(), None).await.ok()??;
    let machines = daemon.local(Machines {}).await.ok()?;
    let relay = machines.into_iter().find(|machine| machine.device == device)?.relay;
    let relays = daemon.local(Status {}).await.ok()?.relays;
    let trouble = relays.into_iter().find(|status| status.origin == relay && !status.up)?.trouble?;
    Some(format!("its relay {relay} is not reached, {trouble}"))
}

/// The running daemon, or one that is started in the background now.
pub async fn connect_or_start(home: &Home, args: &DaemonArgs) -> Result<Client, Trouble> {
    if let Some(client) = Client::connect(&home.socket(), None).await? {
        return Ok(client);
    }
    start_in_background(home, args, false).await
}

/// The same for joining another machine, to which any ports will do.
pub async fn connect_to_join(home: &Home, form: Form, args: &DaemonArgs) -> Result<Client, Trouble> {
    match Client::connect(&home.socket(), None).await? {
        Some(client) => {
            if form == Form::Text {
                warn_of_ignored(args);
            }
            Ok(client)
        }
        None => {
            let client = start_in_background(home, args, true).await?;
            keep_relay(home, form, args)?;
            Ok(client)
        }
    }
}

/// Keeps the relay that somebody typed and a daemon has started with, for the devices that are paired through it look for this
/// machine there after the next start too.
pub fn keep_relay(home: &Home, form: Form, args: &DaemonArgs) -> Result<(), Trouble> {
    let Some(relay) = args.relay.as_deref().filter(|url| !url.is_empty()) else { return Ok(()) };
    let wanted = (relay != crate::daemon::INSIDE).then_some(relay);
    if home.keep_relay(wanted)? && form == Form::Text {
        let told = match wanted {
            Some(_) => "Kept as the relay of this machine, in settings.json.",
            None => "The relay of this machine is the one inside the daemon again; settings.json names none now.",
        };
        aside_sentences(FAINT, told);
    }
    Ok(())
}

/// The daemon that another process is starting just now.
pub async fn wait_for(home: &Home) -> Result<Client, Trouble> {
    let deadline = Instant::now() + START_TIME;
    while Instant::now() < deadline {
        if let Some(client) = Client::connect(&home.socket(), None).await? {
            return Ok(client);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Trouble::new(
        format!("Another process holds the lock {} and does not answer.", home.lock().display()),
        "Look at `happy logs`; end that process if it hangs.",
    ))
}

/// Waits until the daemon has started anew as another machine than it was, and gives its new id.
pub async fn wait_for_another(home: &Home, before: &str) -> Result<String, Trouble> {
    let deadline = Instant::now() + STOP_TIME + START_TIME;
    while Instant::now() < deadline {
        // One that is on its way out may greet nobody any more.
        if let Ok(Some(client)) = Client::connect(&home.socket(), None).await
            && client.greeted().device != before
        {
            return Ok(client.greeted().device.clone());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Trouble::new(
        "The devices were removed, but the daemon has not started anew.",
        "Start it with `happy daemon start`, and look at `happy devices` and `happy logs`.",
    ))
}

/// `happy daemon start`.
pub async fn start(home: &Home, form: Form, args: &DaemonArgs) -> Result<u8, Trouble> {
    let (client, already) = match Client::connect(&home.socket(), None).await? {
        Some(client) => (client, true),
        None => {
            let client = start_in_background(home, args, false).await?;
            keep_relay(home, form, args)?;
            (client, false)
        }
    };
    if already && form == Form::Text {
        warn_of_ignored(args);
    }
    let status = client.local(Status {}).await?;
    form.result(&status, |status| {
        let verb = if already { "already runs" } else { "runs" };
        say(&format!("The daemon {verb} with process id {}.", status.pid));
        warn_of_no_api(status);
    });
    Ok(0)
}

/// Says that the daemon runs without its local API, and why.
pub fn warn_of_no_api(status: &DaemonStatus) {
    if let Some(trouble) = &status.api_trouble {
        aside_sentences(WARN, &format!("{trouble} The daemon goes on without it."));
    }
}

/// Says that what decides how a daemon starts does nothing to one that runs.
pub fn warn_of_ignored(args: &DaemonArgs) {
    // The relay may come from the environment, where it is no wish of this moment, but it is not followed either.
    let given = [
        ("--relay", args.relay().is_some()),
        ("--relay-port", args.relay_port.is_some()),
        ("--api-port", args.api_port.is_some()),
        ("--no-api", args.no_api),
    ];
    let flags: Vec<_> = given.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect();
    if !flags.is_empty() {
        let text = format!(
            "Ignored, because the daemon runs already: {}. `happy daemon stop` first to change that.",
            flags.join(", ")
        );
        aside_sentences(WARN, &text);
    }
}

async fn start_in_background(home: &Home, args: &DaemonArgs, joins: bool) -> Result<Client, Trouble> {
    let program = std::env::current_exe().map_err(|error| {
        Trouble::new(
            format!("The program `happy` cannot find itself: {}.", crate::trouble::reason(&error)),
            "Start it by its full path.",
        )
    })?;
    home.prepare()?;
    let mut child = tokio::process::Command::new(program)
        .args(["daemon", "start-sync", "--detached", "--json"])
        .args(joins.then_some("--joins"))
        .args(args.to_arguments())
        .env(crate::store::HOME_VARIABLE, home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            Trouble::new(
                format!("The daemon cannot be started: {}.", crate::trouble::reason(&error)),
                "Look at `happy logs`.",
            )
        })?;
    let deadline = Instant::now() + START_TIME;
    loop {
        if let Some(client) = Client::connect(&home.socket(), None).await? {
            return Ok(client);
        }
        if let Ok(Some(_)) = child.try_wait() {
            // Another one may have been faster to the lock.
            if let Some(client) = Client::connect(&home.socket(), None).await? {
                return Ok(client);
            }
            return Err(last_words(child).await);
        }
        if Instant::now() > deadline {
            return Err(Trouble::new(
                format!("The daemon was not ready within {} seconds.", START_TIME.as_secs()),
                "Look at `happy logs`.",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a daemon said before it ended.
async fn last_words(mut child: tokio::process::Child) -> Trouble {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 * 1024).read_to_string(&mut text).await;
    }
    let said = text.lines().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let error = value.get("error")?;
        Some(Trouble::new(error.get("message")?.as_str()?, error.get("remedy")?.as_str()?))
    });
    said.unwrap_or_else(|| Trouble::new("The daemon ended before it was ready.", "Look at `happy logs`."))
}

/// `happy daemon start-sync`.
pub async fn start_sync(home: Home, form: Form, args: &DaemonArgs, joins: bool) -> Result<u8, Trouble> {
    let mut interrupts = Interrupts::new();
    let taken = if joins { Taken::Free } else { Taken::FreeForGuest };
    let started = Daemon::start(home.clone(), args.options(taken)).await.and_then(|daemon| {
        daemon.ok_or_else(|| {
            Trouble::new(
                format!("A daemon runs already for {}.", home.root().display()),
                "Use it, or end it with `happy daemon stop`.",
            )
            .with_exit(unit::ALREADY_RUNS)
        })
    });
    // A service manager shows nobody what is said on standard error.
    let daemon = started.inspect_err(|trouble| home.note_in_log(&trouble.to_string()))?;
    notify::ready(&daemon).await;
    if form == Form::Text {
        aside(&format!("The daemon runs; sessions go on when it ends. Its log: {}", daemon.home().log().display()));
    }
    tokio::select! {
        () = interrupts.next() => {}
        () = daemon.stopped() => {}
        () = notify::run(daemon.clone()) => {}
    }
    if !daemon.is_to_start_again() {
        notify::stopping().await;
    }
    daemon.shut_down().await;
    match daemon.is_to_start_again() {
        true => Err(start_again()),
        false => Ok(0),
    }
}

/// Puts a new run of this very command in the place of this process, which a service manager or a terminal does not notice. Returns
/// only when that fails.
pub fn start_again() -> Trouble {
    let started = std::env::current_exe().map(|program| {
        std::os::unix::process::CommandExt::exec(std::process::Command::new(program).args(std::env::args_os().skip(1)))
    });
    let error = match started {
        Ok(error) | Err(error) => error,
    };
    tracing::error!(%error, "the daemon cannot start itself anew");
    Trouble::new(
        format!("The daemon cannot start itself anew: {}.", crate::trouble::reason(&error)),
        "Start it with `happy daemon start`.",
    )
}

/// Ctrl-C, and a service manager's or a closing terminal's wish that we end. From its making on none is missed.
pub struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// Begins to listen.
    pub fn new() -> Interrupts {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        // Without a handler the signal does what it always does: it ends the process.
        Interrupts(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    /// Resolves when one has come. Safe to cancel.
    pub async fn next(&mut self) {
        std::future::poll_fn(|context| match self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
}

/// `happy daemon stop`.
pub async fn stop(home: &Home, form: Form) -> Result<u8, Trouble> {
    let Some(client) = Client::connect(&home.socket(), None).await? else {
        return Err(Trouble::new(
            format!("No daemon is running for {}, so there is none to end.", home.root().display()),
            "Nothing has to be done. One of another home ends with HAPPY_HOME_DIR set to that.",
        )
        .with_exit(3));
    };
    // It may end before its answer is out; what counts is that the lock is free.
    if let Err(failure @ CallFailure::Refused(_)) = client.local(Stop {}).await {
        return Err(failure.into());
    }
    drop(client);
    let deadline = Instant::now() + STOP_TIME;
    while DaemonLock::take(&home.lock())?.is_none() {
        if Instant::now() > deadline {
            return Err(Trouble::new(
                format!("The daemon did not end within {} seconds.", STOP_TIME.as_secs()),
                "End its process by the id in daemon.state.json; sessions go on.",
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    form.result(&Stopped { stopped: true }, |_| say("The daemon has ended; sessions go on."));
    Ok(0)
}

/// `happy daemon status`.
pub async fn status(home: &Home, form: Form) -> Result<u8, Trouble> {
    let status = connect(home, None).await?.local(Status {}).await?;
    form.result(&status, show_status);
    Ok(0)
}

/// The errors and recoveries that are shown to people; `--json` has all.
const SHOWN: usize = 3;

fn show_status(status: &DaemonStatus) {
    let row = |name: &str, value: String| say(&format!("{} {value}", paint(FAINT, &format!("{name:<10}"))));
    row("machine", paint(STRONG, &tame(&status.name, 64)));
    row("id", status.device.clone());
    row("daemon", format!("process {}, version {}, started {}", status.pid, status.version, ago(status.started_at)));
    row("home", status.home.clone());
    match (status.api_port, &status.api_trouble) {
        (Some(port), _) => row("local API", format!("http://127.0.0.1:{port}, the dashboard with `happy dashboard`")),
        (None, None) => row("local API", "switched off".to_owned()),
        (None, Some(trouble)) => {
            row("local API", paint(BAD, "does not run"));
            lines(trouble, 11).iter().for_each(|line| row("", paint(BAD, line)));
        }
    }
    if let (Some(port), Some(listen)) = (status.api_port, status.api_listen) {
        let listens = std::net::SocketAddr::new(listen, port);
        let text =
            format!("It listens at {listens} over https: other machines get in with the password of the dashboard.");
        lines(&text, 11).iter().for_each(|line| row("", paint(WARN, line)));
    }
    for relay in &status.relays {
        row("relay", format!("{} {}", relay.origin, relay_state(relay)));
        for line in trouble_of(relay).iter().flat_map(|trouble| lines(trouble, 11)) {
            row("", paint(BAD, &line));
        }
    }
    row("sessions", format!("{} running", status.sessions_running));
    row("devices", format!("{} paired, {} connected", status.devices, status.links_up));
    for (at, error) in status.errors.iter().rev().take(SHOWN).enumerate() {
        let times = if error.count == 1 { "once".to_owned() } else { format!("{} times", error.count) };
        let text = format!("{} ({times}, last {})", tame(&error.what, 200), ago(error.last_at));
        lines(&text, 11)
            .iter()
            .enumerate()
            .for_each(|(n, line)| row(if at + n == 0 { "errors" } else { "" }, line.clone()));
    }
    for (at, recovery) in status.recoveries.iter().rev().take(SHOWN).enumerate() {
        let text = format!("{} ({})", tame(&recovery.what, 200), ago(recovery.at));
        lines(&text, 11)
            .iter()
            .enumerate()
            .for_each(|(n, line)| row(if at + n == 0 { "recovered" } else { "" }, line.clone()));
    }
}

/// In a few words; what is wrong with it comes below.
fn relay_state(relay: &RelayStatus) -> String {
    let state = if relay.up { paint(GOOD, "connected") } else { paint(BAD, "not connected") };
    let breaker = match relay.breaker {
        _ if relay.up => String::new(),
        happy_rpc::Breaker::Open => ", left alone".to_owned(),
        happy_rpc::Breaker::Closed | happy_rpc::Breaker::HalfOpen if relay.failures > 0 => {
            format!(", tried on after {} failed attempts", relay.failures)
        }
        happy_rpc::Breaker::Closed | happy_rpc::Breaker::HalfOpen => ", tried on".to_owned(),
    };
    let inside = if relay.embedded { "(inside the daemon) " } else { "" };
    format!("{inside}{state}{breaker}")
}

fn trouble_of(relay: &RelayStatus) -> Option<String> {
    let trouble = relay.trouble.as_ref().filter(|_| !relay.up)?;
    Some(format!(
        "{} {}",
        sentence(&tame(trouble, 400)),
        next_attempt(relay.breaker, relay.next_at, relay.pause_ms, relay.failures)
    ))
}

/// When a relay is tried again, as a sentence.
pub fn next_attempt(breaker: happy_rpc::Breaker, next_at: Option<u64>, pause_ms: Option<u64>, failures: u32) -> String {
    let number = failures.saturating_add(1);
    match (next_at, pause_ms) {
        (Some(at), Some(pause)) => {
            let left = span(at.saturating_sub(unix_ms()));
            format!("Attempt {number} follows in {left}, after a pause of {}.", span(pause))
        }
        (Some(at), None) => format!("It is tried again in {}.", span(at.saturating_sub(unix_ms()))),
        (None, _) if breaker == happy_rpc::Breaker::Open => {
            "It is not tried again by itself; start the daemon anew.".to_owned()
        }
        (None, _) => format!("Attempt {number} is under way."),
    }
}

/// `happy relay`.
pub async fn relay(home: &Home, form: Form) -> Result<u8, Trouble> {
    let status = connect(home, None).await?.local(Status {}).await?;
    form.result(&status.relays, |relays| {
        relays.iter().for_each(show_relay);
        if relays.iter().any(|relay| relay.embedded) {
            say_sentences(
                FAINT,
                "Over https with its own certificate it is a trial on this network: whoever controls the network could change \
                 the page. For daily use give a relay with a real certificate: `happy up --relay https://HOST`.",
            );
        }
    });
    Ok(0)
}

fn show_relay(relay: &RelayStatus) {
    say(&format!("{} {}", paint(STRONG, &relay.origin), relay_state(relay)));
    for line in trouble_of(relay).iter().flat_map(|trouble| lines(trouble, 2)) {
        say(&format!("  {}", paint(BAD, &line)));
    }
    for origin in relay.origins.iter().filter(|origin| **origin != relay.origin) {
        say(&format!("  {origin} for this network"));
    }
    if let Some(hash) = relay.key.as_deref().and_then(|key| key.strip_prefix("sha256:")) {
        say(&format!("  its key, SHA-256:\n  {hash}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_is_left_alone_is_told_with_the_reason_and_the_time() {
        let mut relay = RelayStatus {
            origin: "https://relay.example".into(),
            up: false,
            trouble: Some("a newer connection took over".into()),
            retry_at: None,
            failures: 0,
            breaker: happy_rpc::Breaker::HalfOpen,
            next_at: None,
            pause_ms: None,
            embedded: false,
            key: None,
            origins: Vec::new(),
        };
        let told = |relay: &RelayStatus| trouble_of(relay).unwrap();
        assert_eq!(told(&relay), "A newer connection took over. Attempt 1 is under way.");
        (relay.failures, relay.next_at, relay.pause_ms) = (4, Some(unix_ms() + 20_000), Some(28_000));
        assert!(told(&relay).starts_with("A newer connection took over. Attempt 5 follows in "), "{}", told(&relay));
        assert!(told(&relay).ends_with(" s, after a pause of 28 s."), "{}", told(&relay));
        assert!(relay_state(&relay).ends_with(", tried on after 4 failed attempts"));
        relay.breaker = happy_rpc::Breaker::Open;
        (relay.next_at, relay.pause_ms) = (Some(unix_ms() + 600_000), None);
        assert!(told(&relay).ends_with(" It is tried again in 10 min."), "{}", told(&relay));
        // A moment ago.
        relay.next_at = Some(0);
        assert!(told(&relay).ends_with(" It is tried again in 0 s."));
        relay.next_at = None;
        assert!(told(&relay).contains("not tried again by itself"));
        assert!(relay_state(&relay).ends_with(", left alone"));
        relay.up = true;
        assert_eq!(trouble_of(&relay), None);
    }
}
