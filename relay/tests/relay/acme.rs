//! Certificates from a real authority, which runs here: Pebble, the one that Let's Encrypt tests clients with. It refuses some of the nonces and
//! checks each signature and each proof.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use happy_relay::acme::{Acme, Waits};
use happy_relay::certificates::Certificates;
use happy_relay::{Config, Door, PlainHttp, Timings, tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::harness::{PATIENCE, Server, free_ports, soon, until};

/// Programs that end with the test.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// An authority that looks for every name at one port of this machine.
struct Authority {
    folder: tempfile::TempDir,
    port: u16,
    management: u16,
    names: u16,
    names_management: u16,
    running: Running,
}

impl Authority {
    /// Not started yet.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = tls::self_signed(&["localhost".into(), "127.0.0.1".into()]).unwrap();
        std::fs::write(folder.path().join("root.pem"), certificate).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.as_bytes()).unwrap();
        let [port, management, names, names_management] = free_ports();
        Self { folder, port, management, names, names_management, running: Running(vec![]) }
    }

    /// Gives certificates that are good for some seconds to whoever proves its names at a port.
    async fn start(&mut self, seconds: u64, proofs_at: u16) {
        let path = |name: &str| self.folder.path().join(name);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.port),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": path("root.pem"), "privateKey": path("key.pem"),
            "httpPort": 1, "tlsPort": proofs_at, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": seconds,
        }});
        std::fs::write(path("pebble.json"), config.to_string()).unwrap();
        // Every name leads to this machine.
        let names = format!("127.0.0.1:{}", self.names);
        let mut dns = Command::new("pebble-challtestsrv");
        dns.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &names]);
        let management = format!("127.0.0.1:{}", self.names_management);
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-management", &management]);
        let mut pebble = Command::new("pebble");
        pebble.arg("-config").arg(path("pebble.json")).args(["-strict", "-dnsserver", &names]);
        // It sleeps before each proof, and remembers proofs of half of the names, if it is not told otherwise.
        pebble.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0").env("PEBBLE_WFE_NONCEREJECT", "20");
        for mut command in [dns, pebble] {
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            self.running.0.push(child.expect("Pebble is installed (Debian: pebble)"));
        }
        soon("the authority", async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.port)
    }

    fn acme(&self, names: &[&str]) -> Acme {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let root = self.folder.path().join("root.pem");
        let kept = self.folder.path().join("kept");
        let mut acme =
            Acme::new(&names, &kept, self.directory(), Some("you@relay.example".into()), Some(root)).unwrap();
        let short = Duration::from_millis(300);
        acme.waits = Waits { retry: short, longest_retry: short, renewal: short, ..Waits::default() };
        acme
    }

    /// A client that trusts what the authority gives.
    async fn client(&self) -> TlsConnector {
        let root = CertificateDer::from_pem_file(self.folder.path().join("root.pem")).unwrap();
        let pem = https_get(&connector(root), self.management, "/roots/0").await;
        connector(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
    }
}

fn connector(root: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth()))
}

async fn https_get(client: &TlsConnector, port: u16, path: &str) -> String {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = client.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // Whether the other side says goodbye inside TLS is its own business.
    let _end = stream.read_to_string(&mut answer).await;
    answer
}

/// The certificate that is shown to a client that dials this name, if it accepts it.
async fn shown(client: &TlsConnector, port: u16, name: &'static str) -> Option<Vec<u8>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let stream = client.connect(ServerName::try_from(name).unwrap(), tcp).await.ok()?;
    Some(stream.get_ref().1.peer_certificates()?.first()?.to_vec())
}

async fn server() -> (Server, Arc<Certificates>) {
    let certificates = Certificates::new(None);
    (server_with(certificates.clone()).await, certificates)
}

async fn server_with(certificates: Arc<Certificates>) -> Server {
    let door = Door::certified(certificates, PlainHttp::Nobody).unwrap();
    // A connection that says nothing shall live through a renewal.
    let timings = Timings { handshake: PATIENCE, ..Timings::default() };
    Server::behind(Config { timings, ..Config::default() }, door).await
}

#[tokio::test]
async fn a_relay_gets_a_certificate_although_the_authority_comes_later_and_renews_it() {
    let mut authority = Authority::new();
    let (server, certificates) = server().await;
    let port = server.address().port();
    assert_eq!(server.metric("certificate_expiry_timestamp_seconds"), 0);
    let keeping = tokio::spawn(authority.acme(&["relay.example:8443", "b.example"]).keep(certificates.clone()));
    until("a try has failed", || server.metric("certificate_loads_total{result=\"failed\"}") > 0).await;
    assert!(!certificates.has_any());

    // A third of the time is left after 8 s.
    authority.start(12, port).await;
    until("there is a certificate", || certificates.has_any()).await;
    let client = authority.client().await;
    let first = shown(&client, port, "relay.example").await.expect("clients accept it");
    assert!(shown(&client, port, "b.example").await.is_some(), "for each name");
    assert!(shown(&client, port, "other.example").await.is_none());
    assert!(server.metric("certificate_expiry_timestamp_seconds") > 1_700_000_000);

    // A connection from before the renewal lives on.
    let tcp = TcpStream::connect(server.address()).await.unwrap();
    let mut old = client.connect(ServerName::try_from("relay.example").unwrap(), tcp).await.unwrap();
    until("it is renewed", || server.metric("certificate_loads_total{result=\"taken\"}") > 1).await;
    let second = shown(&client, port, "relay.example").await.expect("clients accept the new one");
    assert_ne!(first, second);
    old.write_all(b"GET /healthz HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 12];
    soon("the answer", old.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
    keeping.abort();
}

#[tokio::test]
async fn what_was_had_is_kept_for_the_next_start_and_from_others() {
    let mut authority = Authority::new();
    let (server, certificates) = server().await;
    authority.start(3600, server.address().port()).await;
    let acme = authority.acme(&["relay.example"]);
    assert!(acme.kept().is_none());
    let keeping = tokio::spawn(acme.clone().keep(certificates.clone()));
    until("there is a certificate", || certificates.has_any()).await;
    keeping.abort();

    let place = format!("kept/127.0.0.1_{}", authority.port);
    let folder = authority.folder.path().join(place);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert_eq!(files, [folder.join("account.json"), folder.join("certificate.pem")]);
    assert!(files.iter().all(|file| mode(file) == 0o600));

    // The next start has it at once, with nobody to ask.
    let account = std::fs::read(&files[0]).unwrap();
    authority.running = Running(vec![]);
    assert!(acme.kept().is_some_and(|found| found.is_for("relay.example")));
    assert!(authority.acme(&["new.example"]).kept().is_none(), "it is not for another name");
    // With a name more it is shown all the same, and one for both is asked for at once.
    let more = authority.acme(&["relay.example", "new.example"]);
    let certificates = Certificates::new(more.kept());
    assert!(certificates.has_any());
    let server = server_with(certificates.clone()).await;
    let keeping = tokio::spawn(more.keep(certificates));
    until("it is asked for", || server.metric("certificate_loads_total{result=\"failed\"}") > 0).await;
    keeping.abort();
    assert_eq!(std::fs::read(&files[0]).unwrap(), account);

    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o750)).unwrap();
    let said = acme.check().unwrap_err().to_string();
    assert!(said.contains("others can read") && said.contains("chmod"), "{said}");
}

/// The program with its flags, from nothing to a certificate; and what it says when the name does not lead to it.
#[tokio::test]
async fn the_program_says_what_is_wrong_and_serves_https_when_nothing_is() {
    let mut authority = Authority::new();
    let [port, elsewhere] = free_ports();
    authority.start(3600, elsewhere).await;
    let path = |name: &str| authority.folder.path().join(name).display().to_string();
    let (kept, root, directory, listen) =
        (path("kept"), path("root.pem"), authority.directory(), format!("127.0.0.1:{port}"));
    let start = || {
        let args = ["serve", "--listen", &listen, "--name", "relay.example", "--acme", "--acme-dir", &kept];
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_happy-relay"));
        command.args(args).args(["--acme-directory", &directory, "--acme-root", &root]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        (child, log)
    };
    let (child, mut log) = start();
    let line = soon("the error", log.next_line()).await.unwrap().unwrap();
    assert!(line.contains("could not see at port 443 of relay.example that it leads here"), "{line}");
    assert!(line.contains("next try in 60 s"), "{line}");
    drop((child, log));

    // An authority that has been started anew has forgotten the account.
    authority.running = Running(vec![]);
    authority.start(3600, port).await;
    let (mut child, mut log) = start();
    let line = soon("the account", log.next_line()).await.unwrap().unwrap();
    assert!(line.contains("no longer knows the account"), "{line}");
    let line = soon("the certificate", log.next_line()).await.unwrap().unwrap();
    assert!(line.contains("a new certificate for relay.example"), "{line}");
    let client = authority.client().await;
    assert!(shown(&client, port, "relay.example").await.is_some());
    assert!(child.try_wait().unwrap().is_none());
    drop(child);

    // Again, and no authority is there.
    authority.running = Running(vec![]);
    let (_child, _log) = start();
    let served = tokio::time::timeout(PATIENCE, async {
        while shown(&client, port, "relay.example").await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    served.await.expect("it shows the certificate that was kept");
}
