//! Flags and variables of the program.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use happy_relay::{Access, App, Bus, Config, Direct, Door, Enrolment, PlainHttp, Policy, RedisBus, RedisUrl, tls};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// The relay of Happy Remote: forwards sealed frames between devices that named each other.
#[derive(Debug, Parser)]
#[command(name = "happy-relay", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the relay until it is told to stop.
    Serve(Box<Serve>),
    /// Makes an enrolment secret: the machines get the secret, the relay gets the key.
    NewKey(NewKey),
}

#[derive(Debug, Args)]
pub(crate) struct NewKey {
    /// Whom it is for; a name of your own, such as home or alice.
    #[arg(default_value = "home")]
    pub(crate) name: String,
    /// Reads the secret from the standard input instead of making one.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Prints facts as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// The address to listen at.
    #[arg(long, env = "HAPPY_RELAY_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// A name under which devices dial this relay, `host` or `host:port`; give it once for each. Without any, the Host
    /// header of each connection is believed.
    #[arg(long, env = "HAPPY_RELAY_NAME", value_delimiter = ',')]
    pub(crate) name: Vec<String>,
    /// A web origin, besides the relay's own, whose pages may connect, such as https://app.example.
    #[arg(long, env = "HAPPY_RELAY_ORIGIN", value_delimiter = ',')]
    pub(crate) origin: Vec<String>,
    /// Who may use the relay: `open` to everybody, `enrolled` machines only, or these and the devices that they name (`vouched`).
    /// Without it: `vouched` if there is an enrolment key, else `open`.
    #[arg(long, env = "HAPPY_RELAY_ACCESS", value_name = "POLICY")]
    pub(crate) access: Option<Policy>,
    /// An enrolment key as `happy-relay new-key` prints it, `name:key`; give it once for each.
    #[arg(long, env = "HAPPY_RELAY_ENROL_KEY", value_name = "NAME:KEY", value_delimiter = ',')]
    pub(crate) enrol_key: Vec<Enrolment>,
    /// The Redis that the nodes of this relay share: redis://, rediss:// (TLS), redis+cluster:// or redis+sentinel://. It may hold a
    /// password, so give it by the variable rather than on the command line, which others can see.
    #[arg(long, env = "HAPPY_RELAY_REDIS", value_name = "URL", hide_env_values = true)]
    pub(crate) redis: Option<RedisUrl>,
    /// Where other nodes may reach this one to pass frames on directly: an address of a private network.
    #[arg(long, env = "HAPPY_RELAY_DIRECT", value_name = "ADDR", requires_all = ["redis", "direct_secret_file"])]
    pub(crate) direct: Option<SocketAddr>,
    /// What they dial, `host:port`, when it is not that address.
    #[arg(long, env = "HAPPY_RELAY_DIRECT_AS", value_name = "HOST:PORT", requires = "direct")]
    pub(crate) direct_as: Option<String>,
    /// A file with the secret that the nodes prove to each other, the same for all.
    #[arg(long, env = "HAPPY_RELAY_DIRECT_SECRET_FILE", value_name = "FILE", requires = "direct")]
    pub(crate) direct_secret_file: Option<PathBuf>,
    /// The certificate chain, PEM. With it the relay speaks https only.
    #[arg(long, env = "HAPPY_RELAY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, env = "HAPPY_RELAY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Does not serve the phone app.
    #[arg(long, env = "HAPPY_RELAY_NO_APP")]
    pub(crate) no_app: bool,
    /// Serves the phone app from a folder instead of from the binary.
    #[arg(long, env = "HAPPY_WEB_DIR", value_name = "DIR", conflicts_with = "no_app")]
    pub(crate) app_dir: Option<PathBuf>,
    /// Does not answer /metrics.
    #[arg(long, env = "HAPPY_RELAY_NO_METRICS")]
    pub(crate) no_metrics: bool,
    /// How many devices may be connected at once.
    #[arg(long, env = "HAPPY_RELAY_MAX_CONNECTIONS", value_name = "N", default_value_t = Config::default().max_connections)]
    pub(crate) max_connections: u32,
    /// How many sockets may exist that have not proven a device.
    #[arg(long, env = "HAPPY_RELAY_MAX_UNPROVEN", value_name = "N", default_value_t = Config::default().max_unproven)]
    pub(crate) max_unproven: u32,
    /// What is logged to the standard error: error, warn, info, debug, or a tracing filter.
    #[arg(long, env = "HAPPY_RELAY_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// Prints facts as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Serve {
    pub(crate) fn config(&self) -> Config {
        Config {
            names: self.name.clone(),
            origins: self.origin.clone(),
            app: match (&self.app_dir, self.no_app) {
                (_, true) => App::Off,
                (Some(folder), false) => App::Folder(folder.clone()),
                (None, false) => App::Embedded,
            },
            metrics: !self.no_metrics,
            access: Access {
                policy: self.access.unwrap_or(match self.enrol_key.is_empty() {
                    true => Policy::Open,
                    false => Policy::Vouched,
                }),
                keys: self.enrol_key.clone(),
            },
            max_connections: self.max_connections,
            max_unproven: self.max_unproven,
            ..Config::default()
        }
    }

    /// The way to the other nodes, if there are to be any.
    pub(crate) async fn bus(&self) -> anyhow::Result<Option<Arc<dyn Bus>>> {
        let Some(url) = &self.redis else { return Ok(None) };
        let direct = match (self.direct, &self.direct_secret_file) {
            (Some(address), Some(file)) => {
                let read = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
                let secret = Zeroizing::new(read?);
                Some(Direct::listen(address, self.direct_as.as_deref(), secret.trim_ascii()).await?)
            }
            _ => None,
        };
        Ok(Some(Arc::new(RedisBus::start_with(url, direct)?)))
    }

    pub(crate) fn door(&self) -> anyhow::Result<Door> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Door::tls(tls::from_files(certificate, key)?, PlainHttp::Nobody)),
            _ => Ok(Door::plain()),
        }
    }
}

/// Logs to the standard error. The websocket library writes whole messages into its trace; no filter turns that on.
pub(crate) fn start_log(filter: &str) -> anyhow::Result<()> {
    let mut filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}: not a filter"))?;
    for silenced in ["tungstenite=off", "tokio_tungstenite=off", "hyper=info", "rustls=info"] {
        filter = filter.add_directive(silenced.parse().context("a built-in filter")?);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
