//! Reaching Redis: one server, a Sentinel group, or a cluster, with or without TLS.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, ProtocolVersion,
    RedisError, RedisResult, TlsMode,
};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::causes::whole;

/// From the first packet to an answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// For one command. A server that takes longer is as good as away.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Where Redis is. It may contain a password, so it prints without one.
#[derive(Clone)]
pub struct RedisUrl {
    kind: Kind,
    secure: bool,
    user: Option<(String, Zeroizing<String>)>,
    /// `host:port` each.
    servers: Vec<(String, u16)>,
    database: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
    Sentinel { group: String },
}

/// Why a text is not the address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// There is another scheme, or none.
    #[error(
        "the address of Redis begins with redis:// or rediss:// (TLS), redis+cluster://, rediss+cluster://, redis+sentinel:// or rediss+sentinel://"
    )]
    Scheme,
    /// A host or port cannot be read, or there is none.
    #[error("the address of Redis needs a host, and a port from 1 to 65535 if it has one")]
    Server,
    /// The user and password cannot be read.
    #[error(
        "before the @ of Redis' address stands `user:password` or `:password`, with % and @ and : written as %25, %40 and %3A"
    )]
    User,
    /// What stands behind the slash cannot be used.
    #[error(
        "behind the servers of Redis' address stands the number of a database, for a Sentinel group its name, and for a cluster nothing"
    )]
    Path,
}

impl RedisUrl {
    /// Whether it holds a password, or a user.
    pub fn has_password(&self) -> bool {
        self.user.is_some()
    }

    /// An error of the way there with all that is behind it, and without the password: a server may quote what it was sent.
    pub(super) fn told(&self, error: &RedisError) -> String {
        let text = whole(error);
        match &self.user {
            Some((_, password)) if !password.is_empty() => text.replace(password.as_str(), "…"),
            _ => text,
        }
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.trim().split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (secure, kind) = match scheme {
            "redis" => (false, "single"),
            "rediss" => (true, "single"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            _ => return Err(RedisUrlError::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, servers) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, servers)) => {
                let (name, password) = user.split_once(':').ok_or(RedisUrlError::User)?;
                let name = unescape(name).ok_or(RedisUrlError::User)?;
                let password = unescape(password).ok_or(RedisUrlError::User)?;
                (Some((name, Zeroizing::new(password))), servers)
            }
        };
        let default = if kind == "sentinel" { 26_379 } else { 6_379 };
        let servers = servers.split(',').map(|server| host_and_port(server, default)).collect::<Option<Vec<_>>>();
        let servers = servers.filter(|servers| !servers.is_empty()).ok_or(RedisUrlError::Server)?;
        let (kind, database) = match (kind, path) {
            ("single", "") => (Kind::Single, 0),
            ("single", number) => {
                (Kind::Single, number.parse().ok().filter(|number| *number >= 0).ok_or(RedisUrlError::Path)?)
            }
            ("cluster", "") => (Kind::Cluster, 0),
            ("sentinel", group) if !group.is_empty() && !group.contains('/') => {
                (Kind::Sentinel { group: group.to_owned() }, 0)
            }
            _ => return Err(RedisUrlError::Path),
        };
        if kind == Kind::Single && servers.len() > 1 {
            return Err(RedisUrlError::Server);
        }
        Ok(Self { kind, secure, user, servers, database })
    }
}

fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(default), |port| port.parse().ok().filter(|port| *port > 0))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Without user and password.
impl std::fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Single => "",
            Kind::Cluster => "+cluster",
            Kind::Sentinel { .. } => "+sentinel",
        };
        write!(f, "redis{}{kind}://", if self.secure { "s" } else { "" })?;
        for (n, (host, port)) in self.servers.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        match &self.kind {
            Kind::Sentinel { group } => write!(f, "/{group}"),
            Kind::Single if self.database != 0 => write!(f, "/{}", self.database),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What connects.
pub(crate) enum Way {
    Single(Box<Client>),
    Sentinel(Box<Mutex<SentinelClient>>),
    Cluster(RedisUrl),
}

/// A connection. Clones are the same one, and what several tasks ask at once goes out together.
#[derive(Clone)]
pub(crate) enum Conn {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl RedisUrl {
    fn address(&self, (host, port): &(String, u16)) -> ConnectionAddr {
        match self.secure {
            false => ConnectionAddr::Tcp(host.clone(), *port),
            true => ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None },
        }
    }

    /// Prepares to connect; nothing is dialled yet.
    ///
    /// # Errors
    /// When the library refuses what it is told.
    pub(crate) fn way(&self) -> RedisResult<Way> {
        match &self.kind {
            Kind::Single => {
                let mut settings =
                    redis::RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(self.database);
                if let Some((user, password)) = &self.user {
                    settings = settings.set_password(password.as_str());
                    if !user.is_empty() {
                        settings = settings.set_username(user);
                    }
                }
                let address = self.servers.first().map(|server| self.address(server));
                let address =
                    address.ok_or_else(|| RedisError::from((redis::ErrorKind::InvalidClientConfig, "no server")))?;
                let info = address.into_connection_info()?.set_redis_settings(settings);
                Ok(Way::Single(Box::new(Client::open(info)?)))
            }
            Kind::Sentinel { group } => {
                let sentinels = self.servers.iter().map(|(host, port)| ConnectionAddr::Tcp(host.clone(), *port));
                let mut builder = SentinelClientBuilder::new(sentinels, group, SentinelServerType::Master)?
                    .set_client_to_redis_protocol(ProtocolVersion::RESP3);
                if self.secure {
                    builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
                }
                if let Some((user, password)) = &self.user {
                    builder = builder.set_client_to_redis_password(password.as_str());
                    if !user.is_empty() {
                        builder = builder.set_client_to_redis_username(user);
                    }
                }
                Ok(Way::Sentinel(Box::new(Mutex::new(builder.build()?))))
            }
            Kind::Cluster => Ok(Way::Cluster(self.clone())),
        }
    }

    fn cluster(&self, push: Option<Arc<dyn AsyncPushSender>>) -> RedisResult<ClusterClient> {
        let scheme = if self.secure { "rediss" } else { "redis" };
        let nodes = self.servers.iter().map(|(host, port)| match host.contains(':') {
            true => format!("{scheme}://[{host}]:{port}"),
            false => format!("{scheme}://{host}:{port}"),
        });
        let mut builder = ClusterClientBuilder::new(nodes.collect::<Vec<_>>())
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(CONNECT_WITHIN)
            .response_timeout(ANSWER_WITHIN)
            // What could not be done at once is told as not done; the bus knows better what to do then.
            .retries(2);
        if let Some((user, password)) = &self.user {
            builder = builder.password(password.as_str());
            if !user.is_empty() {
                builder = builder.username(user.clone());
            }
        }
        if let Some(push) = push {
            builder = builder.push_sender(push);
        }
        builder.build()
    }
}

impl Way {
    /// Connects. What the server pushes goes to `push`.
    ///
    /// # Errors
    /// When the server is not reached in time, or refuses.
    pub(crate) async fn connect(&self, push: Option<Arc<dyn AsyncPushSender>>) -> RedisResult<Conn> {
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN));
        if let Some(push) = &push {
            config = config.set_push_sender(push.clone());
        }
        let connecting = async {
            match self {
                Way::Single(client) => {
                    client.get_multiplexed_async_connection_with_config(&config).await.map(Conn::Single)
                }
                Way::Sentinel(client) => {
                    client.lock().await.get_async_connection_with_config(&config).await.map(Conn::Single)
                }
                Way::Cluster(url) => url.cluster(push)?.get_async_connection().await.map(Conn::Cluster),
            }
        };
        match tokio::time::timeout(2 * CONNECT_WITHIN, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err((redis::ErrorKind::Io, "Redis did not answer in time").into()),
        }
    }
}

impl Conn {
    /// Runs one command.
    ///
    /// # Errors
    /// When it was not answered in time, or refused. It may have been done nevertheless.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Conn::Single(conn) => command.query_async(&mut conn.clone()).await,
            Conn::Cluster(conn) => command.query_async(&mut conn.clone()).await,
        }
    }

    /// Runs a script that touches one key, sending its text only to a server that does not know it.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        script: &redis::Script,
        key: &[u8],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let mut call = script.key(key);
        arguments.iter().for_each(|argument| {
            call.arg(*argument);
        });
        match self {
            Conn::Single(conn) => call.invoke_async(&mut conn.clone()).await,
            Conn::Cluster(conn) => call.invoke_async(&mut conn.clone()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("rediss://:secret@redis.example:6380/3", "rediss://redis.example:6380/3"),
            ("redis://relay:a%40b%3Ac@[::1]:7", "redis://[::1]:7"),
            ("redis+cluster://a:1,b:2,c", "redis+cluster://a:1,b:2,c:6379"),
            ("redis+sentinel://a,b:5/main", "redis+sentinel://a:26379,b:5/main"),
        ] {
            let url: RedisUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown, "{text}");
            assert!(!format!("{url:?}").contains("secret"));
            assert!(url.way().is_ok(), "{text}");
        }
        let url: RedisUrl = "redis://relay:a%40b%3Ac@h".parse().unwrap();
        assert_eq!(
            url.user.map(|(user, password)| (user, password.to_string())),
            Some(("relay".into(), "a@b:c".into()))
        );
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        for (text, error) in [
            ("localhost:6379", RedisUrlError::Scheme),
            ("http://localhost", RedisUrlError::Scheme),
            ("redis://", RedisUrlError::Server),
            ("redis://a:0", RedisUrlError::Server),
            ("redis://a,b", RedisUrlError::Server),
            ("redis://secret@a", RedisUrlError::User),
            ("redis://u:%4@a", RedisUrlError::User),
            ("redis://a/x", RedisUrlError::Path),
            ("redis+cluster://a/1", RedisUrlError::Path),
            ("redis+sentinel://a", RedisUrlError::Path),
        ] {
            assert_eq!(text.parse::<RedisUrl>().err(), Some(error), "{text}");
        }
    }
}
