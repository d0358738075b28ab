//! `happy dashboard`.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::process::Stdio;

use happy_rpc::ErrorCode;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::api::SET_PASSWORD;
use crate::cli::client::{CallFailure, Client, sentence};
use crate::cli::daemon::{connect, warn_of_no_api};
use crate::cli::output::{FAINT, Form, GOOD, STRONG, WARN, aside, paint, say, say_sentences};
use crate::cli::{DashboardArgs, tty};
use crate::daemon::local::{DashboardOpen, Status};
use crate::store::{Home, Password, file};
use crate::trouble::{Trouble, reason};

/// The longest password, and what a line has beside it.
const MAX_LINE: u64 = 1_100;

/// `happy dashboard`.
pub async fn dashboard(home: &Home, form: Form, args: &DashboardArgs) -> Result<u8, Trouble> {
    if args.set_password {
        return set_password(home, form).await;
    }
    let client = connect(home, None).await?;
    if form == Form::Text {
        warn_of_no_api(&client.local(Status {}).await?);
    }
    let address = client.local(DashboardOpen {}).await.map_err(|failure| match failure {
        CallFailure::Refused(error) if error.code == ErrorCode::Conflict => Trouble::new(
            sentence(&error.message),
            "It serves the dashboard. When that is mended, start the daemon anew: `happy daemon stop`, then `happy daemon start`.",
        ),
        failure => failure.into(),
    })?;
    form.result(&address, |address| {
        say(&paint(STRONG, &address.link));
        let told = format!(
            "Open it in a browser on this machine within {} seconds; it lets one in, once.",
            address.seconds_left
        );
        aside(&paint(FAINT, &told));
    });
    if args.open {
        open(home, &address.link)?;
    }
    Ok(0)
}

/// Opens a page of our own that goes on to the address: arguments of programs can be seen by everybody on this machine, files of ours by nobody.
fn open(home: &Home, link: &str) -> Result<(), Trouble> {
    let page = page(home);
    // The link is digits, letters and marks that HTML has no use for.
    let html = format!(
        "<!doctype html><meta charset=utf-8><meta name=referrer content=no-referrer><title>Happy Remote</title><meta http-equiv=refresh content=\"0; url={link}\">\n"
    );
    file::replace(&page, html.as_bytes(), file::PRIVATE)?;
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let mut command = std::process::Command::new(opener);
    command.arg(&page).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(_) => Ok(()),
        Err(error) => Err(Trouble::new(
            format!("No browser can be opened: `{opener}` does not start: {}.", reason(&error)),
            "Open the address yourself.",
        )),
    }
}

fn page(home: &Home) -> PathBuf {
    home.root().join("dashboard.html")
}

#[derive(Serialize)]
struct Set {
    password_set: bool,
    /// Whether a daemon runs that goes on without its local API, because there was no password when it started.
    restart_needed: bool,
}

async fn set_password(home: &Home, form: Form) -> Result<u8, Trouble> {
    home.prepare()?;
    let password = match std::io::stdin().is_terminal() {
        true => match tty::ask_hidden("Password for the dashboard: ")? {
            Some(password) => password,
            None => return Ok(130),
        },
        false => piped()?,
    };
    Password::set(&home.dashboard_password(), &password)?;
    let set = Set { password_set: true, restart_needed: lacks_api(home).await };
    form.result(&set, |set| {
        if set.restart_needed {
            say(&paint(GOOD, "The password is set."));
            say_sentences(
                WARN,
                "The daemon runs without the local API, since it found no password when it started. Start it anew: \
                 `happy daemon stop`, then `happy daemon start`.",
            );
        } else {
            say(&paint(GOOD, "The dashboard takes this password from now on; nothing needs to be started anew."));
        }
    });
    Ok(0)
}

/// Whether the running daemon went on without its API for want of a password. Each login reads the password, so any other daemon takes
/// it as it is.
async fn lacks_api(home: &Home) -> bool {
    let Ok(Some(client)) = Client::connect(&home.socket(), None).await else { return false };
    let status = client.local(Status {}).await;
    status.is_ok_and(|status| status.api_trouble.is_some_and(|trouble| trouble.contains(SET_PASSWORD)))
}

/// The first line of standard input.
fn piped() -> Result<Zeroizing<String>, Trouble> {
    let mut text = Zeroizing::new(String::new());
    let read = std::io::stdin().lock().take(MAX_LINE).read_to_string(&mut text);
    read.map_err(|error| {
        let what = format!("The password cannot be read: {}.", reason(&error));
        Trouble::new(what, "Give it on the standard input, as text.")
    })?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}
