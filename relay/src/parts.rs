//! What the settings come to: the parts that a relay is made of.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use happy_relay::acme::{self, Acme};
use happy_relay::certificates::Files;
use happy_relay::{Access, App, Bus, Config, Direct, Policy, RedisBus, RedisUrl};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use crate::cli::Serve;
use crate::sources::Sources;

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
            metrics: !self.no_metrics && self.metrics_listen.is_none(),
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
    pub(crate) async fn bus(&self, sources: &Sources) -> anyhow::Result<Option<Arc<dyn Bus>>> {
        let (redis, direct) = (self.redis(sources)?, self.direct(sources)?);
        let Some(url) = redis else { return Ok(None) };
        let direct = match direct {
            Some((address, secret)) => Some(Direct::listen(address, self.direct_as.as_deref(), &secret).await?),
            None => None,
        };
        Ok(Some(Arc::new(RedisBus::start_with(&url, direct)?)))
    }

    /// Where other nodes may reach this one directly, and the secret of all of them.
    pub(crate) fn direct(&self, sources: &Sources) -> anyhow::Result<Option<(SocketAddr, Zeroizing<Vec<u8>>)>> {
        let name = |id| sources.name(id);
        let (direct, file) = (name("direct"), name("direct_secret_file"));
        let (address, path) = match (self.direct, &self.direct_secret_file) {
            (Some(address), Some(path)) => (address, path),
            (Some(_), None) => bail!("{direct} needs {file}, the file with the secret that all nodes have"),
            (None, Some(_)) => bail!("{file} needs {direct}, the address at which other nodes reach this one"),
            (None, None) if self.direct_as.is_some() => {
                bail!("{} needs {direct}, the address to listen at", name("direct_as"))
            }
            (None, None) => return Ok(None),
        };
        // What other nodes find in the lease of this one.
        let dialled = self.direct_as.clone().unwrap_or_else(|| address.to_string());
        if dialled.parse::<SocketAddr>().is_ok_and(|dialled| dialled.ip().is_unspecified()) {
            let direct_as = name("direct_as");
            bail!(
                "{direct}: no other node can dial {dialled}, which stands for all addresses of this machine; give {direct_as}, the `host:port` at which others reach it"
            );
        }
        if self.redis.is_none() && self.redis_file.is_none() {
            bail!("{direct} needs {}: nodes find each other there", name("redis"));
        }
        let secret = read_secret(&file, path)?;
        let secret = Zeroizing::new(secret.trim_ascii().to_vec());
        Direct::check(&secret, self.direct_as.as_deref())?;
        Ok(Some((address, secret)))
    }

    /// The Redis, wherever its address stands.
    pub(crate) fn redis(&self, sources: &Sources) -> anyhow::Result<Option<RedisUrl>> {
        let (redis, file) = (sources.name("redis"), sources.name("redis_file"));
        let text = match (&self.redis, &self.redis_file) {
            (Some(_), Some(_)) => bail!("give {redis} or {file}, not both"),
            (Some(url), None) => url.clone(),
            (None, Some(path)) => Zeroizing::new(String::from_utf8_lossy(&read_secret(&file, path)?).into_owned()),
            (None, None) => return Ok(None),
        };
        // The address is not quoted: it may hold a password.
        Ok(Some(text.trim().parse()?))
    }

    /// How TLS is offered.
    pub(crate) fn tls(&self, sources: &Sources) -> anyhow::Result<Tls> {
        let Self { tls_cert, tls_key, acme, .. } = self;
        let (cert, key) = (sources.name("tls_cert"), sources.name("tls_key"));
        match (tls_cert, tls_key, acme) {
            (None, None, false) => Ok(Tls::None),
            (None, None, true) => Ok(Tls::Acme(Box::new(self.authority(sources)?))),
            (Some(chain), Some(path), false) => {
                // Its own reader names the file.
                read_secret(&key, path)?;
                Ok(Tls::Files(Files { chain: chain.clone(), key: path.clone() }))
            }
            (Some(_), None, _) => bail!("{cert} needs {key}, the file with its key"),
            (None, Some(_), _) => bail!("{key} needs {cert}, the file with its certificate"),
            (Some(_), Some(_), true) => {
                bail!("give {} or {cert}, not both: which certificate shall be shown?", sources.name("acme"))
            }
        }
    }

    fn authority(&self, sources: &Sources) -> anyhow::Result<Acme> {
        if self.name.is_empty() {
            let (acme, name) = (sources.name("acme"), sources.name("name"));
            bail!("{acme} needs {name}: the names that the certificate shall be for");
        }
        let directory = match self.acme_staging {
            true if self.acme_directory != acme::PRODUCTION => {
                bail!("give {} or {}, not both", sources.name("acme_staging"), sources.name("acme_directory"))
            }
            true => acme::STAGING.to_owned(),
            false => self.acme_directory.clone(),
        };
        Ok(Acme::new(&self.name, &self.acme_dir, directory, self.acme_email.clone(), self.acme_root.clone())?)
    }

    /// Where metrics have an address of their own.
    pub(crate) fn metrics(&self, sources: &Sources) -> anyhow::Result<Option<SocketAddr>> {
        let Some(address) = self.metrics_listen else { return Ok(None) };
        let metrics_listen = sources.name("metrics_listen");
        if self.no_metrics {
            bail!("give {metrics_listen} or {}, not both: are there to be metrics?", sources.name("no_metrics"));
        }
        // At port 0 each gets another one.
        if address == self.listen && address.port() != 0 {
            bail!("{metrics_listen} must be another address than {address}, where the relay itself listens");
        }
        Ok(Some(address))
    }

    /// Whether the folder of the app, if it comes from one, can be what is meant.
    pub(crate) fn check_app(&self, sources: &Sources) -> anyhow::Result<()> {
        let Some(folder) = &self.app_dir else { return Ok(()) };
        let app_dir = sources.name("app_dir");
        if self.no_app {
            bail!("give {app_dir} or {}, not both: is there to be an app?", sources.name("no_app"));
        }
        if !folder.join("index.html").is_file() {
            bail!("{app_dir}: {} holds no index.html; `cargo xtask web` builds the app", folder.display());
        }
        Ok(())
    }
}

/// Reads the file of a setting that holds a secret. What cannot be read is not quoted: it may be the secret itself, given in place of a file.
fn read_secret(name: &str, file: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let read = std::fs::read(file).map(Zeroizing::new);
    read.with_context(|| format!("cannot read the file that {name} names"))
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

/// What may be logged.
const LEVELS: &str = "give error, warn, info, debug, trace or off, or levels of modules such as info,happy_relay=debug";

/// What is logged. The websocket library writes whole messages into its trace, and that of Redis what a server says to a login, which may be the
/// password; no filter turns that on. What becomes of Redis the bus says itself.
pub(crate) fn log_filter(filter: &str, name: &str) -> anyhow::Result<EnvFilter> {
    // A filter takes a word that is no level for the name of a module, and then logs that module only: nothing, most often.
    let is_level = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    if let Some(odd) = filter.split(',').find(|part| !part.is_empty() && !is_level(part)) {
        bail!("{name} is `{filter}`: there is no level `{odd}`; {LEVELS}");
    }
    let mut filter =
        EnvFilter::try_new(filter).with_context(|| format!("{name} is `{filter}`, which is not a filter; {LEVELS}"))?;
    for silenced in ["tungstenite=off", "tokio_tungstenite=off", "redis=off", "hyper=info", "rustls=info"] {
        filter = filter.add_directive(silenced.parse().context("a built-in filter")?);
    }
    Ok(filter)
}

/// Logs to the standard error.
pub(crate) fn start_log(filter: &str, name: &str) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter(filter, name)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused_and_the_levels_are_named() {
        for fine in
            ["error", "warn", "INFO", "debug", "trace", "off", "3", "info,happy_relay=debug", "[login]=trace,warn", ""]
        {
            assert!(log_filter(fine, "--log").is_ok(), "{fine}");
        }
        for odd in ["verbose", "warning", "info,verbose", "happy_relay", "info, loud", "happy_relay=loud", "=="] {
            let said = format!("{:#}", log_filter(odd, "`log` (f.toml, line 2)").unwrap_err());
            assert!(said.contains("`log` (f.toml, line 2) is") && said.contains("error, warn, info, debug"), "{said}");
        }
    }
}
