//! Dialling a relay: TCP, TLS and the upgrade to a websocket, within one bound of time.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::tokio::io::{AsyncRead, AsyncWrite, BufReader};
use ::tokio::net::{TcpSocket, TcpStream, lookup_host};
use ::tokio::time::timeout;
use happy_wire::Code;
use happy_wire::relay::{MAX_FRAME, SUBPROTOCOL};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config, tungstenite};

use super::GATHER;
use crate::driver::RelayUrl;

/// From the first lookup to the open websocket.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// For one address when there are others to try.
const ADDRESS_WITHIN: Duration = Duration::from_millis(1500);
/// What the kernel may hold of ours. More would put urgent frames behind bulk ones again, in a place where nobody can reorder them.
const SEND_BUFFER: u32 = 128 * 1024;
/// What is read from the network at once.
const READ_BUFFER: usize = 16 * 1024;
/// What the websocket takes of it at once. It writes zeros over that much room each time it looks for a frame, also when there is none: with the whole
/// buffer some 50 KiB for a key and its echo, which have two hundred bytes each.
const READ_PIECE: usize = 1024;

/// Whose certificates are believed.
#[derive(Clone, Default)]
pub enum Trust {
    /// Those of the operating system, or of `SSL_CERT_FILE`.
    #[default]
    System,
    /// These, and those in a PEM file.
    SystemAnd(PathBuf),
    /// Whatever this decides, for instance one pinned certificate.
    Verifier(Arc<dyn ServerCertVerifier>),
}

/// Why the certificates to be trusted cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system has none.
    #[error(
        "no trusted certificates were found on this system; install its package of CA certificates or set SSL_CERT_FILE"
    )]
    NoRoots,
    /// The file cannot be read.
    #[error("the certificates in {path} cannot be used: {why}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refused its configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why the relay was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody listens there, or the name is not known.
    #[error("the relay cannot be reached: {0}")]
    Network(io::Error),
    /// It took too long.
    #[error("the relay did not answer within {} s", DIAL_WITHIN.as_secs())]
    TimedOut,
    /// Its certificate is not trusted, or it does not speak TLS.
    #[error("the relay's TLS is not accepted: {0}")]
    Tls(io::Error),
    /// The server is no relay, or refuses now.
    #[error("the server did not open a relay connection: {0}")]
    Upgrade(Box<tungstenite::Error>),
}

impl DialError {
    /// The code that says the same (`PROTOCOL 13`), if there is one.
    pub(super) fn code(&self) -> Option<Code> {
        let Self::Upgrade(error) = self else { return None };
        let tungstenite::Error::Http(response) = &**error else { return None };
        match response.status() {
            StatusCode::FORBIDDEN => Some(Code::NOT_PERMITTED),
            StatusCode::TOO_MANY_REQUESTS => Some(Code::TOO_MANY),
            StatusCode::SERVICE_UNAVAILABLE => Some(Code::RESTARTING),
            _ => None,
        }
    }
}

/// A stream of bytes that a websocket can stand on.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// What [`Connect::connect`] promises.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send + 'a>>;

/// A way to a relay's host and port. TLS and the websocket stand on what it opens, so it need not be trusted.
pub trait Connect: Send + Sync {
    /// Opens a connection. It is dropped when the whole of dialling takes more than five seconds.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a>;
}

/// TCP of the operating system, to the first address of the name that answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move { Ok(Box::new(connect_tcp(host, port).await?) as Box<dyn ByteStream>) })
    }
}

/// A connection with or without TLS.
type Stream = Box<dyn ByteStream>;

pub(super) type WebSocket = WebSocketStream<BufReader<Stream>>;

pub(super) struct Dialer {
    url: RelayUrl,
    connect: Arc<dyn Connect>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialer {
    pub(super) fn new(url: RelayUrl, trust: &Trust, connect: Arc<dyn Connect>) -> Result<Self, TrustError> {
        let tls = match url.is_secure() {
            true => Some((TlsConnector::from(Arc::new(tls_config(trust)?)), server_name(&url)?)),
            false => None,
        };
        Ok(Self { url, connect, tls })
    }

    pub(super) fn url(&self) -> &RelayUrl {
        &self.url
    }

    pub(super) async fn dial(&self) -> Result<WebSocket, DialError> {
        timeout(DIAL_WITHIN, self.dial_unbounded()).await.map_err(|_| DialError::TimedOut)?
    }

    async fn dial_unbounded(&self) -> Result<WebSocket, DialError> {
        let connecting = self.connect.connect(self.url.host(), self.url.port());
        let stream = connecting.await.map_err(DialError::Network)?;
        let stream: Stream = match &self.tls {
            None => stream,
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await.map_err(DialError::Tls)?),
        };
        let upgrade = |error| DialError::Upgrade(Box::new(error));
        let mut request = self.url.to_string().into_client_request().map_err(upgrade)?;
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_PIECE)
            .write_buffer_size(GATHER)
            .max_write_buffer_size(4 * GATHER)
            .max_message_size(Some(MAX_FRAME))
            .max_frame_size(Some(MAX_FRAME));
        let stream = BufReader::with_capacity(READ_BUFFER, stream);
        let (socket, _) = client_async_with_config(request, stream, Some(config)).await.map_err(upgrade)?;
        Ok(socket)
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut addresses = lookup_host((host, port)).await?.peekable();
    while let Some(address) = addresses.next() {
        let attempt = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_send_buffer_size(SEND_BUFFER)?;
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let within = if addresses.peek().is_some() { ADDRESS_WITHIN } else { DIAL_WITHIN };
        match timeout(within, attempt).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn server_name(url: &RelayUrl) -> Result<ServerName<'static>, TrustError> {
    ServerName::try_from(url.host().to_owned())
        .map_err(|error| TrustError::Tls(rustls::Error::General(error.to_string())))
}

fn tls_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Verifier(verifier) => {
            return Ok(builder.dangerous().with_custom_certificate_verifier(verifier.clone()).with_no_client_auth());
        }
        Trust::System => {}
        Trust::SystemAnd(path) => {
            let refused = |why: String| TrustError::File { path: path.clone(), why };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))? {
                let certificate = certificate.map_err(|error| refused(error.to_string()))?;
                roots.add(certificate).map_err(|error| refused(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(refused("there are none in it".to_owned()));
            }
        }
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "some certificates of the system were not read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        return Err(TrustError::NoRoots);
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
