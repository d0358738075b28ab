//! `happy daemon …` and `happy relay`.

use std::process::Stdio;
use std::task::Poll;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::DaemonArgs;
use crate::cli::client::{Client, sentence};
use crate::cli::output::{
    BAD, FAINT, Form, GOOD, STRONG, WARN, ago, aside, aside_sentences, lines, paint, say, say_sentences, tame,
};
use crate::cli::queue::span;
use crate::daemon::local::{DaemonStatus, Machines, RelayStatus, Status, Stop};
use crate::daemon::{Daemon, Taken};
use crate::store::{DaemonLock, Home, unix_ms};
use crate::trouble::Trouble;

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
    });
    Ok(0)
}

/// Says that what decides how a daemon starts does nothing to one that runs.
pub fn warn_of_ignored(args: &DaemonArgs) {
    // The relay may come from the environment, where it is no wish of this moment, but it is not followed either.
    let given = [
        ("--relay", args.relay().is_some()),
        ("--relay-port", args.relay_port.is_some()),
        ("--api-port", args.api_port.is_some()),
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
    let Some(daemon) = Daemon::start(home.clone(), args.options(taken)).await? else {
        return Err(Trouble::new(
            format!("A daemon runs already for {}.", home.root().display()),
            "Use it, or end it with `happy daemon stop`.",
        )
        .with_exit(5));
    };
    if form == Form::Text {
        aside(&format!("The daemon runs; sessions go on when it ends. Its log: {}", daemon.home().log().display()));
    }
    tokio::select! {
        () = interrupts.next() => {}
        () = daemon.stopped() => {}
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
    let client = connect(home, None).await?;
    // It may end before its answer is out; what counts is that the lock is free.
    let _ = client.local(Stop {}).await;
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

fn show_status(status: &DaemonStatus) {
    let row = |name: &str, value: String| say(&format!("{} {value}", paint(FAINT, &format!("{name:<10}"))));
    row("machine", paint(STRONG, &tame(&status.name, 64)));
    row("id", status.device.clone());
    row("daemon", format!("process {}, version {}, started {}", status.pid, status.version, ago(status.started_at)));
    row("home", status.home.clone());
    row("local API", format!("http://127.0.0.1:{}/health", status.api_port));
    for relay in &status.relays {
        row("relay", format!("{} {}", relay.origin, relay_state(relay)));
        for line in trouble_of(relay).iter().flat_map(|trouble| lines(trouble, 11)) {
            row("", paint(BAD, &line));
        }
    }
    row("sessions", format!("{} running", status.sessions_running));
    row("devices", format!("{} paired, {} connected", status.devices, status.links_up));
}

/// In a word or two; what is wrong with it comes below.
fn relay_state(relay: &RelayStatus) -> String {
    let state = if relay.up { paint(GOOD, "connected") } else { paint(BAD, "not connected") };
    let inside = if relay.embedded { "(inside the daemon) " } else { "" };
    format!("{inside}{state}")
}

fn trouble_of(relay: &RelayStatus) -> Option<String> {
    let trouble = relay.trouble.as_ref().filter(|_| !relay.up)?;
    let when = match relay.retry_at {
        Some(at) => format!(" in {}", span(at.saturating_sub(unix_ms()))),
        None => String::new(),
    };
    Some(format!("{} It is tried again{when}.", sentence(&tame(trouble, 400))))
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
            embedded: false,
            key: None,
            origins: Vec::new(),
        };
        assert_eq!(trouble_of(&relay).unwrap(), "A newer connection took over. It is tried again.");
        relay.retry_at = Some(unix_ms() + 600_000);
        assert_eq!(trouble_of(&relay).unwrap(), "A newer connection took over. It is tried again in 10 min.");
        // A moment ago.
        relay.retry_at = Some(0);
        assert_eq!(trouble_of(&relay).unwrap(), "A newer connection took over. It is tried again in 0 s.");
        relay.up = true;
        assert_eq!(trouble_of(&relay), None);
    }
}
