//! Flags and variables of the program.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use happy_relay::{Config, Enrolment, Policy, acme};
use zeroize::Zeroizing;

use crate::file::{self, FileError};
use crate::sources::Sources;

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
    /// Asks a running relay whether it is well, says so in one line and ends with 0, or with 1: for health checks of containers.
    Health(Health),
    /// Makes an enrolment secret: the machines get the secret, the relay gets the key.
    NewKey(NewKey),
}

#[derive(Debug, Args)]
pub(crate) struct NewKey {
    /// Whom it is for; a name of your own, such as home or alice.
    #[arg(default_value = "home", value_parser = key_name)]
    pub(crate) name: String,
    /// Reads the secret from the standard input instead of making one.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Prints facts as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Where to ask, such as http://127.0.0.1:8080. Without it: where the settings let the relay listen. Of https, the certificate is not looked at.
    pub(crate) url: Option<String>,
    /// Asks whether new devices should be sent there (/readyz), which those of a full relay should not, and not only whether it is alive (/healthz).
    #[arg(long)]
    pub(crate) ready: bool,
    #[command(flatten)]
    pub(crate) serve: Box<Serve>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A file of settings, TOML: the names below with _ for -. Flags and variables go before it.
    #[arg(long, env = "HAPPY_RELAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The address to listen at.
    #[arg(long, env = "HAPPY_RELAY_LISTEN", value_name = "ADDR", value_parser = address, default_value = "127.0.0.1:8080")]
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
    #[arg(long, env = "HAPPY_RELAY_DIRECT", value_name = "ADDR", value_parser = address)]
    pub(crate) direct: Option<SocketAddr>,
    /// What they dial, `host:port`, when it is not that address; 0.0.0.0 and [::] cannot be dialled.
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
    #[arg(long, env = "HAPPY_WEB_DIR", value_name = "DIR")]
    pub(crate) app_dir: Option<PathBuf>,
    /// Does not answer /metrics.
    #[arg(long, env = "HAPPY_RELAY_NO_METRICS")]
    pub(crate) no_metrics: bool,
    /// Answers /metrics at this address instead, over plain HTTP, and /healthz and /readyz as well; nothing else is there.
    #[arg(long, env = "HAPPY_RELAY_METRICS_LISTEN", value_name = "ADDR", value_parser = address)]
    pub(crate) metrics_listen: Option<SocketAddr>,
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
    /// What is logged to the standard error: error, warn, info, debug, trace, off, or levels of modules such as info,happy_relay=debug.
    #[arg(long, env = "HAPPY_RELAY_LOG", value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
    /// Prints facts as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

fn key_name(text: &str) -> Result<String, &'static str> {
    match Enrolment::is_name(text) {
        true => Ok(text.to_owned()),
        false => Err("a name has up to 64 letters, digits and -_.@, such as home or alice"),
    }
}

/// An address to listen at. What is no address is not quoted: in a file it may be a secret on the wrong line.
fn address(text: &str) -> Result<SocketAddr, String> {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    text.parse().map_err(|_| {
        let wrong = match text.rsplit_once(':') {
            _ if text.parse::<IpAddr>().is_ok() => "the port is missing",
            _ if is_port(text.trim_start_matches(':')) => "the address is missing",
            Some((host, port)) if is_port(port) && host.parse::<IpAddr>().is_err() => "it is a name",
            _ => "it is no address",
        };
        format!(
            "{wrong}; give an IP address and a port, such as 127.0.0.1:8080, or 0.0.0.0:443 and [::]:443 for all addresses of this machine"
        )
    })
}

/// Reads the command line, the variables and the file that they name.
pub(crate) fn parse() -> Result<(Cli, Sources), FileError> {
    parse_from(std::env::args_os().collect())
}

/// What the parser says of a value that cannot be: without the value where it may be secret, for journals keep what a program says, and with
/// the variable's name where the value stands in one.
fn told(mut error: clap::Error, typed: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    // As in `--redis <URL>`.
    let flag = named.split([' ', '=']).next().unwrap_or_default().to_owned();
    let serve = Cli::command().find_subcommand("serve").cloned().unwrap_or_default();
    let is_named = |argument: &&clap::Arg| argument.get_long().is_some_and(|long| flag == format!("--{long}"));
    let Some(argument) = serve.get_arguments().find(is_named) else { return error };
    if argument.is_hide_env_values_set() && error.get(ContextKind::InvalidValue).is_some() {
        error.insert(ContextKind::InvalidValue, ContextValue::String(file::NOT_SHOWN.into()));
    }
    let is_typed = typed.iter().any(|word| word.to_string_lossy().split('=').next() == Some(&*flag));
    if let Some(variable) = argument.get_env().filter(|variable| !is_typed && std::env::var_os(variable).is_some()) {
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable.to_string_lossy().into_owned()));
    }
    error
}

fn matches_of(command: clap::Command, typed: &[OsString]) -> clap::ArgMatches {
    command.try_get_matches_from(typed).unwrap_or_else(|error| told(error, typed).exit())
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
            if sources.take(&entry.id, &entry.place) {
                typed.extend(entry.arguments);
            }
        }
        matches = matches_of(Cli::command(), &typed);
    }
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Ok((cli, sources.with(matches)))
}
