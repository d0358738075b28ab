//! `happy up`: everything in one command.

use std::collections::HashMap;

use happy_rpc::{Event, Session, SessionState};
use uuid::Uuid;

use crate::cli::client::{Client, Happening};
use crate::cli::daemon::{Interrupts, connect};
use crate::cli::invite::{self, Outcome};
use crate::cli::output::{BAD, FAINT, Form, GOOD, STRONG, WARN, aside, complain, paint, say, signal_name, tame};
use crate::cli::{UpArgs, stdin, tty};
use crate::daemon::local::{LocalEvent, RelayStatus};
use crate::daemon::{Daemon, Taken};
use crate::store::Home;
use crate::trouble::Trouble;

/// `happy up`.
pub async fn up(home: Home, form: Form, args: UpArgs) -> Result<u8, Trouble> {
    invite::check(form, &args.invitation)?;
    if let Some(client) = Client::connect(&home.socket(), None).await? {
        return with_running(&client, form, &args).await;
    }
    // Before the daemon exists, so that it never ends without its goodbyes.
    let mut interrupts = Interrupts::new();
    match Daemon::start(home.clone(), args.daemon.options(Taken::Refuse)).await? {
        Some(daemon) => {
            if let Err(trouble) = super::daemon::keep_relay(&home, form, &args.daemon) {
                complain(form, &trouble);
            }
            let outcome = in_foreground(&daemon, form, &args, &mut interrupts).await;
            daemon.shut_down().await;
            if daemon.is_to_start_again() {
                tty::restore();
                return Err(super::daemon::start_again());
            }
            outcome
        }
        // Another one was faster to the lock.
        None => with_running(&super::daemon::wait_for(&home).await?, form, &args).await,
    }
}

async fn with_running(client: &Client, form: Form, args: &UpArgs) -> Result<u8, Trouble> {
    if form == Form::Text {
        aside(&paint(FAINT, "Using the daemon that runs already."));
        super::daemon::warn_of_ignored(&args.daemon);
    }
    invite::pair_with(client, form, &args.invitation).await
}

async fn in_foreground(daemon: &Daemon, form: Form, args: &UpArgs, interrupts: &mut Interrupts) -> Result<u8, Trouble> {
    let client = connect(daemon.home(), None).await?;
    if form == Form::Text {
        aside(&paint(
            FAINT,
            &format!("The daemon of {} runs here. Log: {}", daemon.name(), daemon.home().log().display()),
        ));
        super::daemon::warn_of_no_api(&daemon.status().await);
    }
    let mut lines = stdin::lines();
    loop {
        let outcome = tokio::select! {
            outcome = invite::invite(&client, form, &args.invitation, &mut lines, interrupts) => outcome?,
            () = daemon.stopped() => return Ok(0),
        };
        match outcome {
            Outcome::Interrupted => break,
            Outcome::Paired => {}
            Outcome::Ended(trouble) => complain(form, &trouble),
        }
        if !stay(daemon, &client, form, &mut lines, interrupts).await? {
            break;
        }
    }
    if form == Form::Text {
        aside(&paint(
            FAINT,
            "The daemon ends here; sessions go on. Start it again with `happy up` or `happy daemon start`.",
        ));
    }
    Ok(0)
}

/// Tells what happens until the person wants another invitation (true) or the end (false).
async fn stay(
    daemon: &Daemon,
    client: &Client,
    form: Form,
    lines: &mut tokio::sync::mpsc::Receiver<String>,
    interrupts: &mut Interrupts,
) -> Result<bool, Trouble> {
    let asks = form == Form::Text && tty::is_interactive();
    if asks {
        say(&format!(
            "{} for another device, {} to end the daemon (sessions go on).",
            paint(STRONG, "Enter"),
            paint(STRONG, "Ctrl-C")
        ));
    }
    let mut known: HashMap<Uuid, SessionState> = HashMap::new();
    for session in client.sessions().await? {
        known.insert(session.id, session.state);
    }
    loop {
        tokio::select! {
            line = lines.recv(), if asks => match line {
                Some(_) => return Ok(true),
                None => return Ok(false),
            },
            () = interrupts.next() => return Ok(false),
            () = daemon.stopped() => return Ok(false),
            happening = client.event() => match happening {
                Some(Happening::Event(body)) => tell(form, &body, &mut known),
                Some(Happening::Link(_)) => {}
                None => return Ok(false),
            },
        }
    }
}

fn tell(form: Form, body: &[u8], known: &mut HashMap<Uuid, SessionState>) {
    if form == Form::Json {
        say(&String::from_utf8_lossy(body));
        return;
    }
    match serde_json::from_slice(body) {
        Ok(Event::SessionChanged(session)) => {
            let before = known.insert(session.id, session.state);
            if before != Some(session.state) {
                say(&session_line(&session));
            }
            return;
        }
        Ok(Event::SessionRemoved { session }) => {
            known.remove(&session);
            return;
        }
        Ok(
            Event::ListAgain {}
            | Event::DevicesChanged(_)
            | Event::PromptAppeared(_)
            | Event::PromptEnded { .. }
            | Event::MachineChanged(_),
        ) => return,
        Err(_) => {}
    }
    if let Ok(LocalEvent::RelayChanged(relay)) = serde_json::from_slice(body) {
        say(&relay_line(&relay));
    }
}

fn session_line(session: &Session) -> String {
    let name = tame(&session.name, 40);
    match session.state {
        SessionState::Running => format!("{} {name}", paint(GOOD, "session started")),
        SessionState::Exited { code } => format!("{} {name} (code {code})", paint(FAINT, "session ended")),
        SessionState::Killed { signal } => format!("{} {name} ({})", paint(WARN, "session ended"), signal_name(signal)),
        SessionState::Lost => format!("{} {name}", paint(BAD, "session lost")),
    }
}

fn relay_line(relay: &RelayStatus) -> String {
    match (relay.up, &relay.trouble) {
        (true, _) => format!("{} {}", paint(GOOD, "relay connected"), relay.origin),
        (false, Some(trouble)) => {
            format!("{} {}: {}; trying again", paint(WARN, "relay gone"), relay.origin, tame(trouble, 400))
        }
        (false, None) => format!("{} {}; trying again", paint(WARN, "relay gone"), relay.origin),
    }
}
