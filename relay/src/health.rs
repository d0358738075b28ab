//! `happy-relay health`: asks a relay how it is, for those who look after containers and have no other program to ask with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::cli::{Health, Serve};

/// A relay that takes longer is not well. It is less than Docker and Compose are told to wait in `deploy/`.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// The most that is read of an answer, bytes: a relay's has some 200.
const MAX_ANSWER: u64 = 16 * 1024;

/// Asks, and says in one line what was answered. True when the relay is well.
///
/// # Errors
/// When it is not reached, or what answers is no relay.
pub(crate) fn ask(health: &Health) -> anyhow::Result<bool> {
    let target = match &health.url {
        Some(url) => Target::parse(url)?,
        None => Target::of(&health.serve),
    };
    let path = if health.ready { "/readyz" } else { "/healthz" };
    let url = format!("{}://{}{path}", if target.tls { "https" } else { "http" }, target.authority);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let asked = async { timeout(ANSWER_WITHIN, get(&target, path)).await };
    let answer = match runtime.block_on(asked) {
        Ok(answer) => answer.with_context(|| url.clone())?,
        Err(_) => bail!("{url}: no answer within {} s", ANSWER_WITHIN.as_secs()),
    };
    let (status, word) = read(&answer).with_context(|| format!("{url}: what answers there is no relay"))?;
    let is_well = status == 200;
    let line = match health.serve.json {
        true => json!({ "ok": is_well, "url": url, "status": word }).to_string(),
        false => format!("{}  {url}: {word}", if is_well { "ok" } else { "not well" }),
    };
    crate::print(&line)?;
    Ok(is_well)
}

/// Whom to ask.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    /// Host and port as a URL has them.
    authority: String,
}

impl Target {
    /// The relay that these settings make listen.
    fn of(serve: &Serve) -> Self {
        let ip = match serve.listen.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let address = SocketAddr::new(ip, serve.listen.port());
        let tls = serve.tls_cert.is_some() || serve.acme;
        Self { tls, host: ip.to_string(), port: address.port(), authority: address.to_string() }
    }

    fn parse(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let authority = rest.trim_end_matches('/');
        let (tls, default) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => bail!("`{url}` is no address to ask at; give it like http://127.0.0.1:8080"),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, Some(default)),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c));
        let Some(port) = port.filter(|_| is_plain) else {
            bail!("`{url}` is no address to ask at; give scheme, host and port only, like http://127.0.0.1:8080");
        };
        Ok(Self { tls, host: host.to_owned(), port, authority: authority.to_owned() })
    }
}

async fn get(target: &Target, path: &str) -> anyhow::Result<Vec<u8>> {
    let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.context("it is not reached")?;
    if !target.tls {
        return exchange(tcp, target, path).await;
    }
    let name = ServerName::try_from(target.host.clone()).context("no name for TLS")?;
    let tls = TlsConnector::from(Arc::new(any_certificate()?)).connect(name, tcp).await;
    exchange(tls.context("TLS cannot be opened")?, target, path).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &Target,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.authority);
    stream.write_all(request.as_bytes()).await.context("it takes no request")?;
    let mut answer = Vec::new();
    // A relay ends TLS with the connection.
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    if answer.is_empty() {
        read.context("it gives no answer")?;
    }
    Ok(answer)
}

/// The status and the word in the body that says the same.
fn read(answer: &[u8]) -> Option<(u16, String)> {
    let text = std::str::from_utf8(answer).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let body: Value = serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()?;
    Some((status, body.get("status")?.as_str()?.to_owned()))
}

fn any_certificate() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.context("TLS cannot be used")?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth())
}

/// Believes every certificate. The question is whether a relay answers, not who it is: it is asked at an address of its machine, for which no certificate
/// is made out, and nothing secret is sent to it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_scheme_host_and_port_only() {
        for (url, tls, host, port) in [
            ("http://127.0.0.1:8080", false, "127.0.0.1", 8080),
            ("http://127.0.0.1:8080/", false, "127.0.0.1", 8080),
            ("https://relay.example", true, "relay.example", 443),
            ("http://[::1]:7", false, "::1", 7),
            ("http://[::1]", false, "::1", 80),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.tls, target.host.as_str(), target.port), (tls, host, port), "{url}");
        }
        for url in ["127.0.0.1:8080", "ftp://a", "http://", "http://a:b", "http://a/healthz", "http://a b"] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn only_a_relays_answer_counts() {
        let answer = |text: &str| read(text.as_bytes());
        let well = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"status\":\"ok\"}";
        assert_eq!(answer(well), Some((200, "ok".into())));
        assert_eq!(answer(&well.replace("200 OK", "503 No")), Some((503, "ok".into())));
        for other in ["", "HTTP/1.1 200 OK\r\n\r\n<html>", "HTTP/1.1 200 OK\r\n\r\n{}", "SSH-2.0", "HTTP/1.1 \u{fc}"] {
            assert_eq!(answer(other), None, "{other}");
        }
    }
}
