//! Flags and variables of the program.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use happy_relay::acme::{self, Acme};
use happy_relay::certificates::Files;
use happy_relay::{Access, App, Bus, Config, Direct, Enrolment, Policy, RedisBus, RedisUrl};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::settings::Sources;

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
    /// Checks the settings that `serve` would run with, and shows them and where each comes from.
    CheckConfig(Box<Serve>),
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
    /// A file of settings, TOML: the names below with _ for -. Flags and variables go before it.
    #[arg(long, env = "HAPPY_RELAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
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
    #[arg(long, env = "HAPPY_RELAY_ENROL_KEY", value_name = "NAME:KEY", value_delimiter = ',', hide_env_values = true)]
    pub(crate) enrol_key: Vec<Enrolment>,
    /// The Redis that the nodes of this relay share: redis://, rediss:// (TLS), redis+cluster:// or redis+sentinel://. It may hold a
    /// password, so give it by --redis-file rather than on the command line, which others can see.
    #[arg(long, env = "HAPPY_RELAY_REDIS", value_name = "URL", hide_env_values = true)]
    pub(crate) redis: Option<Zeroizing<String>>,
    /// A file that holds what --redis would say, such as a credential of systemd or a secret of Kubernetes.
    #[arg(long, env = "HAPPY_RELAY_REDIS_FILE", value_name = "FILE")]
    pub(crate) redis_file: Option<PathBuf>,
    /// Where other nodes may reach this one to pass frames on directly: an address of a private network.
    #[arg(long, env = "HAPPY_RELAY_DIRECT", value_name = "ADDR")]
    pub(crate) direct: Option<SocketAddr>,
    /// What they dial, `host:port`, when it is not that address.
    #[arg(long, env = "HAPPY_RELAY_DIRECT_AS", value_name = "HOST:PORT")]
    pub(crate) direct_as: Option<String>,
    /// A file with the secret that the nodes prove to each other, the same for all.
    #[arg(long, env = "HAPPY_RELAY_DIRECT_SECRET_FILE", value_name = "FILE")]
    pub(crate) direct_secret_file: Option<PathBuf>,
    /// The certificate chain, PEM. With it the relay speaks https only. It is read anew when it changes, and on SIGHUP.
    #[arg(long, env = "HAPPY_RELAY_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, env = "HAPPY_RELAY_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Gets certificates for the names from an authority and renews them (ACME). Port 443 of each name must lead here. With it you
    /// agree to the terms of the authority.
    #[arg(long, env = "HAPPY_RELAY_ACME")]
    pub(crate) acme: bool,
    /// Where the authority may write to when something is wrong with the certificates.
    #[arg(long, env = "HAPPY_RELAY_ACME_EMAIL", value_name = "ADDRESS")]
    pub(crate) acme_email: Option<String>,
    /// The folder for the account at the authority and the certificates; for the relay's user only.
    #[arg(long, env = "HAPPY_RELAY_ACME_DIR", value_name = "DIR", default_value = "/var/lib/happy-relay")]
    pub(crate) acme_dir: PathBuf,
    /// The authority, by the address of its directory.
    #[arg(long, env = "HAPPY_RELAY_ACME_DIRECTORY", value_name = "URL", default_value = acme::PRODUCTION)]
    pub(crate) acme_directory: String,
    /// Asks Let's Encrypt's authority for trials, whose certificates nobody trusts and which refuses less.
    #[arg(long, env = "HAPPY_RELAY_ACME_STAGING")]
    pub(crate) acme_staging: bool,
    /// The certificate, PEM, by which the authority itself is known: for one of your own.
    #[arg(long, env = "HAPPY_RELAY_ACME_ROOT", value_name = "FILE")]
    pub(crate) acme_root: Option<PathBuf>,
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
    /// How many of these one address may have, or one IPv6 network of 64 bits; 0 behind a proxy with a public address.
    #[arg(long, env = "HAPPY_RELAY_MAX_UNPROVEN_PER_ADDRESS", value_name = "N", default_value_t = Config::default().max_unproven_per_address)]
    pub(crate) max_unproven_per_address: u32,
    /// How many logins are checked each second; who comes beyond that is told when to come again. 0 for no limit.
    #[arg(long, env = "HAPPY_RELAY_MAX_LOGINS", value_name = "N", default_value_t = Config::default().max_logins)]
    pub(crate) max_logins: u32,
    /// How many bytes a second are read from one connection, after a burst of a megabyte; 0 for no limit.
    #[arg(long, env = "HAPPY_RELAY_MAX_RATE", value_name = "BYTES", default_value_t = Config::default().max_rate)]
    pub(crate) max_rate: u32,
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
            max_unproven_per_address: self.max_unproven_per_address,
            max_logins: self.max_logins,
            max_rate: self.max_rate,
            ..Config::default()
        }
    }

    /// The way to the other nodes, if there are to be any.
    pub(crate) async fn bus(&self) -> anyhow::Result<Option<Arc<dyn Bus>>> {
        let (redis, direct) = (self.redis()?, self.direct()?);
        let Some(url) = redis else { return Ok(None) };
        let direct = match direct {
            Some((address, secret)) => Some(Direct::listen(address, self.direct_as.as_deref(), &secret).await?),
            None => None,
        };
        Ok(Some(Arc::new(RedisBus::start_with(&url, direct)?)))
    }

    /// Where other nodes may reach this one directly, and the secret of all of them.
    pub(crate) fn direct(&self) -> anyhow::Result<Option<(SocketAddr, Zeroizing<Vec<u8>>)>> {
        let (address, file) = match (self.direct, &self.direct_secret_file) {
            (Some(address), Some(file)) => (address, file),
            (Some(_), None) => {
                bail!("--direct needs --direct-secret-file, the file with the secret that all nodes have")
            }
            (None, Some(_)) => {
                bail!("--direct-secret-file needs --direct, the address at which other nodes reach this one")
            }
            (None, None) if self.direct_as.is_some() => bail!("--direct-as needs --direct, the address to listen at"),
            (None, None) => return Ok(None),
        };
        if self.redis.is_none() && self.redis_file.is_none() {
            bail!("--direct needs --redis: nodes find each other there");
        }
        let secret = read_secret("--direct-secret-file", file)?;
        let secret = Zeroizing::new(secret.trim_ascii().to_vec());
        Direct::check(&secret, self.direct_as.as_deref())?;
        Ok(Some((address, secret)))
    }

    /// The Redis, wherever its address stands.
    pub(crate) fn redis(&self) -> anyhow::Result<Option<RedisUrl>> {
        let text = match (&self.redis, &self.redis_file) {
            (Some(_), Some(_)) => bail!("give --redis or --redis-file, not both"),
            (Some(url), None) => url.clone(),
            (None, Some(file)) => {
                Zeroizing::new(String::from_utf8_lossy(&read_secret("--redis-file", file)?).into_owned())
            }
            (None, None) => return Ok(None),
        };
        // The address is not quoted: it may hold a password.
        Ok(Some(text.trim().parse()?))
    }

    /// How TLS is offered.
    pub(crate) fn tls(&self) -> anyhow::Result<Tls> {
        let Self { tls_cert, tls_key, acme, .. } = self;
        match (tls_cert, tls_key, acme) {
            (None, None, false) => Ok(Tls::None),
            (None, None, true) => Ok(Tls::Acme(Box::new(self.authority()?))),
            (Some(chain), Some(key), false) => {
                // Its own reader names the file.
                read_secret("--tls-key", key)?;
                Ok(Tls::Files(Files { chain: chain.clone(), key: key.clone() }))
            }
            (Some(_), None, _) => bail!("--tls-cert needs --tls-key, the file with its key"),
            (None, Some(_), _) => bail!("--tls-key needs --tls-cert, the file with its certificate"),
            (Some(_), Some(_), true) => bail!("give --acme or --tls-cert, not both: which certificate shall be shown?"),
        }
    }

    fn authority(&self) -> anyhow::Result<Acme> {
        let directory = match self.acme_staging {
            true if self.acme_directory != acme::PRODUCTION => {
                bail!("give --acme-staging or --acme-directory, not both")
            }
            true => acme::STAGING.to_owned(),
            false => self.acme_directory.clone(),
        };
        Ok(Acme::new(&self.name, &self.acme_dir, directory, self.acme_email.clone(), self.acme_root.clone())?)
    }
}

/// Reads a file that holds a secret. What cannot be read is not quoted: it may be the secret itself, given in place of a file.
fn read_secret(flag: &str, file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let read = std::fs::read(file).map(Zeroizing::new);
    read.with_context(|| format!("cannot read the file that {flag} names"))
}

/// How TLS is offered.
pub(crate) enum Tls {
    /// It is not.
    None,
    /// With the certificate in files.
    Files(Files),
    /// With one that an authority gives.
    Acme(Box<Acme>),
}

/// Reads the command line, the variables and the file that they name.
pub(crate) fn parse() -> Result<(Cli, Sources), FileError> {
    parse_from(std::env::args_os().collect())
}

/// What the parser says of a value that cannot be, without the value where it may be secret: journals keep what a program says.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    // As in `--redis <URL>`.
    let long = named.trim_start_matches('-').split([' ', '=']).next().unwrap_or_default().to_owned();
    let serve = Cli::command().find_subcommand("serve").cloned().unwrap_or_default();
    let hidden = |argument: &clap::Arg| argument.get_long() == Some(&long) && argument.is_hide_env_values_set();
    if error.get(ContextKind::InvalidValue).is_some() && serve.get_arguments().any(hidden) {
        error.insert(ContextKind::InvalidValue, ContextValue::String(file::NOT_SHOWN.into()));
    }
    error
}

fn matches_of(command: clap::Command, typed: &[OsString]) -> clap::ArgMatches {
    command.try_get_matches_from(typed).unwrap_or_else(|error| without_secrets(error).exit())
}

fn parse_from(mut typed: Vec<OsString>) -> Result<(Cli, Sources), FileError> {
    let command = Cli::command();
    let mut matches = matches_of(command.clone(), &typed);
    let mut sources = Sources::default();
    if let Some((name, given)) = matches.subcommand()
        && let Some(command) =
            command.find_subcommand(name).filter(|command| command.get_arguments().any(file::is_setting))
    {
        let entries = match given.get_one::<PathBuf>("config") {
            Some(path) => file::read(path, command)?,
            None => Vec::new(),
        };
        sources = Sources::of(given, command);
        for entry in entries {
            if sources.take(&entry.id) {
                typed.extend(entry.arguments);
            }
        }
        matches = matches_of(Cli::command(), &typed);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, sources.with(matches)))
}

/// What is logged. The websocket library writes whole messages into its trace; no filter turns that on.
pub(crate) fn log_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    let mut filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter}: not a filter"))?;
    for silenced in ["tungstenite=off", "tokio_tungstenite=off", "hyper=info", "rustls=info"] {
        filter = filter.add_directive(silenced.parse().context("a built-in filter")?);
    }
    Ok(filter)
}

/// Logs to the standard error.
pub(crate) fn start_log(filter: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
