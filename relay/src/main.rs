//! `happy-relay`: the relay as a program of its own.

mod cli;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use happy_relay::{Listening, Relay};
use serde_json::json;

use crate::cli::{Cli, Command, Serve};

/// How long a shutdown may take. Devices are told at once; this is for those that read slowly.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let Command::Serve(serve) = Cli::parse().command;
    let json = serve.json;
    match run(serve) {
        Ok(()) => ExitCode::SUCCESS,
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

fn run(serve: Serve) -> anyhow::Result<()> {
    cli::start_log(&serve.log)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let relay = Relay::new(serve.config())?;
        let mut stop = Stop::new()?;
        let listening = relay.listen(serve.listen, serve.door()?).await?;
        announce(&serve, &listening)?;
        stop.asked().await;
        tracing::info!(connections = relay.connections(), "stopping");
        tokio::select! {
            () = relay.shutdown(GRACE) => {}
            () = stop.asked() => tracing::warn!("stopped at once"),
        }
        Ok(())
    })
}

/// Says where the relay can be reached, once it can.
fn announce(serve: &Serve, listening: &Listening) -> anyhow::Result<()> {
    let scheme = if serve.tls_cert.is_some() { "https" } else { "http" };
    let address = listening.address();
    let url = format!("{scheme}://{address}");
    let line = if serve.json {
        json!({ "event": "ready", "address": address.to_string(), "url": url, "names": serve.name }).to_string()
    } else {
        let names = if serve.name.is_empty() { "as dialled".to_owned() } else { serve.name.join(", ") };
        let (green, dim) = (anstyle::AnsiColor::Green.on_default().bold(), anstyle::Style::new().dimmed());
        format!("{green}ready{green:#}  {url}  {dim}names: {names}{dim:#}")
    };
    if serve.name.is_empty() && !address.ip().is_loopback() {
        tracing::warn!("the relay has no --name, so it believes the Host header; name it if strangers can reach it");
    }
    let mut out = anstream::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to the standard output")
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
