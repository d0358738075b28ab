//! `happy daemon install` and `uninstall`.

use serde::Serialize;

use crate::cli::client::Client;
use crate::cli::daemon::keep_relay;
use crate::cli::output::{FAINT, Form, aside_sentences, say};
use crate::cli::{InstallArgs, ManagerArg};
use crate::store::Home;
use crate::trouble::{Trouble, reason};
use crate::unit::Service;
use crate::unit::install::{self, Manager, Report};

impl From<ManagerArg> for Manager {
    fn from(manager: ManagerArg) -> Manager {
        match manager {
            ManagerArg::Systemd => Manager::Systemd,
            ManagerArg::Launchd => Manager::Launchd,
        }
    }
}

#[derive(Serialize)]
struct Printed {
    path: std::path::PathBuf,
    text: String,
}

/// `happy daemon install`.
pub async fn install(home: &Home, form: Form, args: InstallArgs) -> Result<u8, Trouble> {
    let manager = manager(args.manager)?;
    // The relay is a setting and not the service's, so that it can be changed without installing again.
    let service = service(home, args.daemon.ports())?;
    if args.print {
        let printed = Printed { path: manager.path(&service)?, text: manager.text(&service)? };
        form.result(&printed, |printed| say(printed.text.trim_end()));
        return Ok(0);
    }
    home.prepare()?;
    keep_relay(home, form, &args.daemon)?;
    let runs = Client::connect(&home.socket(), None).await?.is_some();
    let report = install::install(manager, &service, runs, args.linger).await?;
    if form == Form::Text && args.daemon.relay.is_none() && std::env::var_os("HAPPY_SERVER_URL").is_some() {
        aside_sentences(
            FAINT,
            "HAPPY_SERVER_URL is not the service's; give the relay with --relay, and it is kept in settings.json.",
        );
    }
    show(form, &report);
    Ok(0)
}

/// `happy daemon uninstall`.
pub async fn uninstall(home: &Home, form: Form, which: Option<ManagerArg>) -> Result<u8, Trouble> {
    let report = install::uninstall(manager(which)?, &service(home, Vec::new())?).await?;
    show(form, &report);
    Ok(0)
}

fn manager(given: Option<ManagerArg>) -> Result<Manager, Trouble> {
    given.map_or_else(Manager::of_this_system, |manager| Ok(manager.into()))
}

fn service(home: &Home, arguments: Vec<std::ffi::OsString>) -> Result<Service, Trouble> {
    let program = std::env::current_exe().map_err(|error| {
        Trouble::new(
            format!("The program `happy` cannot find itself: {}.", reason(&error)),
            "Start it by its full path.",
        )
    })?;
    Service::new(program, home, arguments)
}

fn show(form: Form, report: &Report) {
    form.result(report, |report| report.done.iter().chain(&report.left).for_each(|line| say(line)));
}
