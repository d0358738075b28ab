//! Joining through a relay at a bare address, whose certificate is its own: believed once, and then only itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use happy_relay::{Config, Door, PlainHttp, Relay};
use harness::{Home, PATIENCE, Running, code, machine_name};

/// A relay in this process with a certificate that nobody vouches for.
struct OwnRelay {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
}

impl OwnRelay {
    fn start(address: SocketAddr, certificate: &str, key: &str) -> OwnRelay {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tls = happy_relay::tls::from_pem(certificate, key).unwrap();
        let address = runtime.block_on(async {
            let relay = Relay::new(Config::default()).unwrap();
            let listening = relay.listen(address, Door::tls(tls, PlainHttp::Nobody)).await.unwrap();
            let address = listening.address();
            // Until the runtime goes.
            std::mem::forget((relay, listening));
            address
        });
        OwnRelay { runtime, address }
    }

    fn stop(self) -> SocketAddr {
        self.runtime.shutdown_timeout(Duration::from_secs(5));
        self.address
    }

    fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

fn names() -> Vec<String> {
    vec!["127.0.0.1".into()]
}

fn link_at(pair: &mut Running, url: &str) -> String {
    pair.line(|line| line.starts_with(url)).split(' ').next().unwrap().to_owned()
}

#[test]
fn a_relay_with_a_certificate_of_its_own_is_believed_once_and_then_only_itself() {
    let (certificate, key) = happy_relay::tls::self_signed(&names()).unwrap();
    let relay = OwnRelay::start((Ipv4Addr::LOCALHOST, 0).into(), &certificate, &key);
    let url = relay.url();
    let (host, guest) = (Home::new(), Home::new());
    host.start_with(&["--relay", &url]);
    guest.start();

    let joined = |again: bool| {
        let mut pair = host.spawn(&["pair"]);
        let link = link_at(&mut pair, &url);
        let mut join = guest.spawn(&["join", &link]);
        let code = code(&mut join);
        pair.type_line(&code);
        let said = join.finish().ok();
        pair.finish().ok();
        assert!(said.contains("sha256:") && said.contains("no other is believed"), "{said}");
        assert_eq!(said.contains("another key when it was met before"), again, "{said}");
        let sha = said.split("sha256:").nth(1).unwrap().trim().to_owned();
        assert!(harness::read(&guest.file("relay-keys.json")).contains(&sha), "{said}");
        sha
    };
    let first = joined(false);
    let name = machine_name(&host);
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);

    // A new certificate for the same key changes nothing.
    let again = happy_relay::tls::self_signed_with(&names(), &key).unwrap();
    let relay = OwnRelay::start(relay.stop(), &again, &key);
    guest.until(&["relay"], |relays| relays[1]["up"] == true);
    guest.run(&["ls", "--machine", &name]).ok();

    // Another key is refused, by both sides, and each says why and what to do.
    let (certificate, key) = happy_relay::tls::self_signed(&names()).unwrap();
    let relay = OwnRelay::start(relay.stop(), &certificate, &key);
    let refused = |trouble: &serde_json::Value| {
        trouble.as_str().is_some_and(|why| why.contains("not the one that is remembered") && why.contains("join"))
    };
    guest.until(&["relay"], |relays| refused(&relays[1]["trouble"]));
    host.until(&["relay"], |relays| refused(&relays[0]["trouble"]));
    let told = guest.run(&["relay"]).ok();
    assert!(told.contains("relay-keys.json"), "{told}");

    // The host is told by its owner that it is right; the guest by joining again.
    host.run(&["daemon", "stop"]).ok();
    std::fs::remove_file(host.file("relay-keys.json")).unwrap();
    host.start_with(&["--relay", &url]);
    host.until(&["relay"], |relays| relays[0]["up"] == true);
    assert_ne!(joined(true), first);
    guest.until(&["devices"], |list| list["machines"][0]["link_up"] == true);
    drop(relay);
}

#[test]
fn a_name_without_a_certificate_that_counts_is_refused_at_once_with_the_reason() {
    let (certificate, key) = happy_relay::tls::self_signed(&["localhost".into()]).unwrap();
    let relay = OwnRelay::start((Ipv4Addr::LOCALHOST, 0).into(), &certificate, &key);
    // The only authority that the guest believes is another one.
    let believed = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(believed.path(), happy_relay::tls::self_signed(&names()).unwrap().0).unwrap();
    let (host, guest) = (Home::new(), Home::with("SSL_CERT_FILE", believed.path().to_str().unwrap()));
    host.start();
    guest.start();
    let mut pair = host.spawn(&["pair"]);
    let link = harness::link(&mut pair);
    let digits = link.rsplit_once("/#").unwrap().1;
    let link = format!("https://localhost:{}/#{digits}", relay.address.port());
    let start = Instant::now();
    guest.run(&["join", &link]).fails_with(&["is not believed", "no authority", "SSL_CERT_FILE"]);
    // It would wait 30 s for a relay that is only away.
    assert!(start.elapsed() < PATIENCE / 3, "{:?}", start.elapsed());
    assert!(!guest.file("relay-keys.json").exists(), "nothing was believed");
}
