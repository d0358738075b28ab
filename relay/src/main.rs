//! `happy-relay`: the relay as a program of its own.

mod cli;
mod descriptors;
mod file;
mod health;
mod parts;
mod settings;
mod sources;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use happy_relay::certificates::Certificates;
use happy_relay::{Config, Door, Enrolment, Listening, PlainHttp, Policy, Relay, access};
use serde_json::json;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::cli::{Cli, Command, NewKey, Serve};
use crate::parts::Tls;
use crate::sources::Sources;

/// Gives memory back after a burst. The buffers of TLS grow and shrink with what passes, and in the heap of the C library the holes between those that
/// stay cost more than an idle connection does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a shutdown may take. Devices are told at once; this is for those that read slowly.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (json, result) = match cli::parse() {
        Ok((Cli { command }, sources)) => match command {
            Command::Serve(serve) => (serve.json, run(*serve, &sources).map(|()| true)),
            Command::CheckConfig(serve) => (serve.json, settings::check(&serve, &sources)),
            Command::Health(health) => (health.serve.json, health::ask(&health)),
            Command::NewKey(new_key) => (new_key.json, make_key(&new_key).map(|()| true)),
        },
        Err(error) => (std::env::args_os().any(|argument| argument == "--json"), Err(error.into())),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let message = format!("{error:#}");
            let line = if json {
                json!({ "error": { "message": message } }).to_string()
            } else {
                format!("happy-relay: {message}")
            };
            // Nobody is left to be told when even this cannot be written.
            let _ = writeln!(anstream::stderr(), "{line}");
            ExitCode::FAILURE
        }
    }
}

fn run(serve: Serve, sources: &Sources) -> anyhow::Result<()> {
    parts::start_log(&serve.log, &sources.name("log"))?;
    serve.check_app(sources)?;
    let metrics = serve.metrics(sources)?;
    for warning in settings::warnings(&serve, sources) {
        tracing::warn!("{warning}");
    }
    descriptors::make_room(descriptors::wanted(&serve));
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let relay = Relay::new(Config { bus: serve.bus(sources).await?, ..serve.config() })?;
        let mut stop = Stop::new()?;
        let listening = relay.listen(serve.listen, door(&serve, sources, hang_ups()?)?).await?;
        let metrics = match metrics {
            Some(address) => Some(relay.listen_for_metrics(address).await?),
            None => None,
        };
        announce(&serve, sources, &listening, metrics.as_ref())?;
        stop.asked().await;
        tracing::info!(connections = relay.connections(), "stopping");
        tokio::select! {
            () = relay.shutdown(GRACE) => {}
            () = stop.asked() => tracing::warn!("stopped at once"),
        }
        Ok(())
    })
}

/// How the relay may be entered; a task keeps its certificate up to date until the runtime ends.
fn door(serve: &Serve, sources: &Sources, asked: Arc<Notify>) -> anyhow::Result<Door> {
    let certificates = match serve.tls(sources)? {
        Tls::None => return Ok(Door::plain()),
        Tls::Files(files) => {
            let (certificates, following) = files.show()?;
            tokio::spawn(following.keep(asked));
            certificates
        }
        Tls::Acme(acme) => {
            acme.check()?;
            let certificates = Certificates::new(acme.kept());
            tokio::spawn(acme.keep(certificates.clone()));
            certificates
        }
    };
    Ok(Door::certified(certificates, PlainHttp::Nobody)?)
}

/// Prints a secret for machines and its key for the relay.
fn make_key(new_key: &NewKey) -> anyhow::Result<()> {
    let secret = match new_key.stdin {
        true => {
            let mut typed = Zeroizing::new(String::new());
            // One byte more than fits, so that too long a secret is seen to be too long.
            let most = access::MAX_SECRET as u64 + 3;
            std::io::stdin().lock().take(most).read_to_string(&mut typed).context("cannot read the secret")?;
            Zeroizing::new(typed.trim().to_owned())
        }
        false => access::new_secret().context("the system has no randomness")?,
    };
    let key = access::enrolment_key(&secret)?.public();
    let enrolment: Enrolment = format!("{}:{key}", new_key.name).parse()?;
    let shown = if new_key.stdin { None } else { Some(secret.as_str()) };
    let text = if new_key.json {
        json!({ "key": enrolment.to_string(), "secret": shown }).to_string()
    } else {
        let (bold, dim) = (anstyle::Style::new().bold(), anstyle::Style::new().dimmed());
        let secret = shown.map_or(String::new(), |secret| {
            format!(
                "secret  {bold}{secret}{bold:#}\n        {dim}for the machines: `happy relay enroll` asks for it. It is shown once.{dim:#}\n"
            )
        });
        format!(
            "{secret}key     {bold}{enrolment}{bold:#}\n        {dim}for the relay: `enrol_key` in its settings file, --enrol-key, or HAPPY_RELAY_ENROL_KEY.{dim:#}"
        )
    };
    print(&text)
}

/// Prints a line.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to the standard output")
}

/// Says where the relay can be reached, once it can.
fn announce(
    serve: &Serve,
    sources: &Sources,
    listening: &Listening,
    metrics: Option<&Listening>,
) -> anyhow::Result<()> {
    let scheme = if serve.tls_cert.is_some() || serve.acme { "https" } else { "http" };
    let address = listening.address();
    let url = format!("{scheme}://{address}");
    let metrics = metrics.map(|metrics| format!("http://{}/metrics", metrics.address()));
    if let Some(url) = &metrics {
        tracing::info!("metrics are at {url}");
    }
    let line = if serve.json {
        json!({ "event": "ready", "address": address.to_string(), "url": url, "metrics": metrics, "names": serve.name,
            "access": serve.config().access.policy.name() })
        .to_string()
    } else {
        let names = if serve.name.is_empty() { "as dialled".to_owned() } else { serve.name.join(", ") };
        let (green, dim) = (anstyle::AnsiColor::Green.on_default().bold(), anstyle::Style::new().dimmed());
        format!("{green}ready{green:#}  {url}  {dim}names: {names}{dim:#}")
    };
    if serve.config().access.policy == Policy::Open && !address.ip().is_loopback() {
        tracing::warn!(
            "everybody who reaches this relay may use it; `happy-relay new-key` makes a key that keeps strangers out"
        );
    }
    if serve.name.is_empty() && !address.ip().is_loopback() {
        let name = sources.name("name");
        tracing::warn!("the relay has no {name}, so it believes the Host header; name it if strangers can reach it");
    }
    print(&line)
}

/// Tells of SIGHUP, by which operators ask for files to be read anew. Heard even where there are none: unheard, it would end the program.
fn hang_ups() -> anyhow::Result<Arc<Notify>> {
    let asked = Arc::new(Notify::new());
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut hang_up, asked) = (signal(SignalKind::hangup()).context("cannot listen for signals")?, asked.clone());
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                asked.notify_one();
            }
        });
    }
    Ok(asked)
}

/// The signals that end the program.
struct Stop {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .context("cannot listen for signals")?,
        })
    }

    async fn asked(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
