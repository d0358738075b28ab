use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use happy_relay::{Config, Door, PlainHttp, tls};
use happy_wire::relay::{FromRelay, MAX_FRAME};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Device, Server, get, request, soon, until};

async fn server(plain: PlainHttp) -> (Server, TlsConnector) {
    let (certificate, key) = tls::self_signed(&["localhost".into(), "127.0.0.1".into()]).unwrap();
    let door = Door::tls(tls::from_pem(&certificate, &key).unwrap(), plain);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Server::behind(Config::default(), door).await, TlsConnector::from(Arc::new(client)))
}

#[tokio::test]
async fn a_device_logs_in_over_tls_with_a_self_signed_certificate() {
    let (server, connector) = server(PlainHttp::Nobody).await;
    for name in ["localhost", "127.0.0.1"] {
        let tcp = TcpStream::connect(server.address()).await.unwrap();
        let tls = connector.connect(ServerName::try_from(name).unwrap(), tcp).await.unwrap();
        let dialled = format!("{name}:{}", server.address().port());
        let (mut socket, _) = tokio_tungstenite::client_async(request(&dialled), tls).await.unwrap();
        let Some(Ok(Message::Binary(frame))) = soon("the challenge", socket.next()).await else { panic!() };
        let Ok(FromRelay::Challenge { nonce }) = FromRelay::decode(&frame) else { panic!() };
        let login = Device::new(1).login(&dialled, &nonce, None);
        socket.send(Message::Binary(login.into())).await.unwrap();
        let Some(Ok(Message::Binary(frame))) = soon("the welcome", socket.next()).await else { panic!() };
        assert!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Welcome { .. })));
        // A close inside TLS is said properly, not by a reset.
        socket.send(Message::Binary(vec![2; MAX_FRAME + 1].into())).await.unwrap();
        let Some(Ok(Message::Binary(frame))) = soon("the goaway", socket.next()).await else { panic!() };
        assert!(matches!(FromRelay::decode(&frame), Ok(FromRelay::Goaway { .. })));
        assert!(matches!(soon("the close", socket.next()).await, Some(Ok(Message::Close(_)))));
    }
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let (server, _) = server(PlainHttp::Nobody).await;
    let answer = get(server.address(), "/?secret=1", "").await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("put https://") && !answer.contains("secret"), "{answer}");
    assert_eq!(server.metric("sockets_refused_total{reason=\"plain_http\"}"), 1);
}

#[tokio::test]
async fn one_port_serves_both_to_this_machine() {
    let (server, connector) = server(PlainHttp::Loopback).await;
    assert!(get(server.address(), "/healthz", "").await.starts_with("HTTP/1.1 200"));
    let mut client = server.join(&Device::new(1)).await;
    client.barrier().await;
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
}

#[tokio::test]
async fn a_broken_tls_handshake_is_counted_and_harms_nobody() {
    use tokio::io::AsyncWriteExt;
    let (server, _) = server(PlainHttp::Loopback).await;
    let mut tcp = TcpStream::connect(server.address()).await.unwrap();
    tcp.write_all(&[0x16, 9, 9, 0xff, 0xff, 0, 0]).await.unwrap();
    until("it is counted", || server.metric("sockets_refused_total{reason=\"tls_handshake\"}") == 1).await;
    assert!(get(server.address(), "/healthz", "").await.starts_with("HTTP/1.1 200"));
}
