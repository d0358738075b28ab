//! The program `happy-relay`, from outside.

use std::net::SocketAddr;
use std::process::Stdio;

use futures_util::SinkExt;
use happy_wire::Code;
use happy_wire::relay::{FromRelay, ToRelay};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Device, get, soon};

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happy-relay"));
    command.args(args).env_remove("HAPPY_RELAY_LISTEN").env_remove("HAPPY_WEB_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

pub struct Program {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    pub address: SocketAddr,
    /// What it said when it was ready.
    ready: serde_json::Value,
}

async fn start(listen: &str) -> Program {
    started(command(&["serve", "--json", "--listen", listen])).await
}

/// With these variables.
pub async fn start_with(environment: &[(&str, &str)]) -> Program {
    let mut command = command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
    command.envs(environment.iter().copied());
    started(command).await
}

async fn started(mut command: Command) -> Program {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon("the ready line", lines.next_line()).await.unwrap().expect("it started");
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["event"], "ready");
    let address = ready["address"].as_str().unwrap().parse().unwrap();
    Program { child, lines, address, ready }
}

/// Runs it to its end and gives what it wrote to the standard error.
async fn fails(args: &[&str]) -> String {
    let output = soon("the end", command(args).output()).await.unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn it_says_where_it_is_ready_on_one_plain_line() {
    let mut child = command(&["serve", "--listen", "127.0.0.1:0", "--name", "relay.example"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = soon("the ready line", lines.next_line()).await.unwrap().unwrap();
    assert!(line.starts_with("ready  http://127.0.0.1:"), "{line}");
    assert!(line.ends_with("names: relay.example"), "{line}");
    assert!(!line.contains('\x1b'), "a pipe gets no colours: {line:?}");
}

#[tokio::test]
async fn a_terminate_signal_ends_it_gracefully() {
    let mut program = start("127.0.0.1:0").await;
    let mut client = Client::dial(program.address, &program.address.to_string()).await;
    client.log_in(&Device::new(1), None).await;
    assert!(get(program.address, "/healthz", "").await.contains("\"connections\":1"));
    let pid = program.child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    assert_eq!(client.goaway().await.0, Code::RESTARTING);
    drop(client);
    assert!(soon("the end", program.child.wait()).await.unwrap().success());
    assert_eq!(program.lines.next_line().await.unwrap(), None);
}

/// While the table of descriptors grows, the thread that needs the next one stands still, and so do all of its devices.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn it_has_room_for_all_of_its_devices_from_the_start() {
    const DEVICES: &str = "3000";
    // Of the few that a shell has at first.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -Sn 1024; exec "$0" "$@""#, env!("CARGO_BIN_EXE_happy-relay")]);
    shell.args(["serve", "--json", "--listen", "127.0.0.1:0", "--max-connections", DEVICES]);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let program = started(shell).await;
    let id = program.child.id().unwrap();
    let number = |file: &str, line: &str, column: usize| -> usize {
        let text = std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap();
        let line = text.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        line.split_whitespace().nth(column).unwrap().parse().unwrap()
    };
    assert!(number("limits", "Max open files", 0) > 3_000);
    assert!(number("status", "FDSize:", 0) > 3_000, "the kernel has a smaller table");
}

#[tokio::test]
async fn after_a_kill_the_same_port_is_free_at_once() {
    let mut program = start("127.0.0.1:0").await;
    for _ in 0..3 {
        let mut client = Client::dial(program.address, &program.address.to_string()).await;
        client.log_in(&Device::new(1), None).await;
        program.child.kill().await.unwrap();
        program = start(&program.address.to_string()).await;
        let mut client = Client::dial(program.address, &program.address.to_string()).await;
        client.log_in(&Device::new(1), None).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let program = start("127.0.0.1:0").await;
    let address = program.address.to_string();
    let error = fails(&["serve", "--listen", &address]).await;
    assert!(error.contains(&address) && error.contains("in use"), "{error}");
    let error = fails(&["serve", "--json", "--listen", &address]).await;
    let error: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("in use"), "{error}");
}

#[tokio::test]
async fn what_cannot_work_is_explained() {
    for (args, wanted) in [
        (&["serve", "--listen", "192.0.2.1:9"][..], "not an address of this machine"),
        (&["serve", "--tls-cert", "/nowhere/cert.pem", "--tls-key", "/dev/null"], "/nowhere/cert.pem"),
        (
            &["serve", "--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"],
            "the file that --tls-key names",
        ),
        (&["serve", "--tls-cert", "/nowhere/cert.pem"], "--tls-key"),
        (&["serve", "--tls-key", "/nowhere/key.pem"], "--tls-cert"),
        (&["serve", "--acme", "--name", "a.example", "--tls-cert", "c", "--tls-key", "k"], "not both"),
        (&["serve", "--acme"], "--name"),
        (&["serve", "--acme", "--name", "10.0.0.1"], "no certificate for `10.0.0.1`"),
        (&["serve", "--acme", "--name", "a.example", "--acme-dir", "/proc/nothing"], "`acme_dir`"),
        (&["serve", "--redis-file", "/nowhere/redis"], "the file that --redis-file names"),
        (&["serve", "--config", "/nowhere/relay.toml"], "/nowhere/relay.toml"),
        (&["serve", "--name", "https://relay.example"], "without https://"),
        (&["serve", "--max-connections", "0"], "at least 1"),
        (&["serve", "--listen", "here"], "--listen"),
        (&["serve", "--log", "=="], "--log"),
        (&["serve", "--log", "verbose"], "error, warn, info, debug"),
        (&["serve", "--metrics-listen", "127.0.0.1:1", "--no-metrics"], "not both"),
        (&["serve", "--metrics-listen", "127.0.0.1:9", "--listen", "127.0.0.1:9"], "another address"),
        (&["new-key", "my home"], "a name has up to 64 letters, digits and -_.@"),
        (&["new-key", "home:key"], "a name has up to 64 letters, digits and -_.@"),
        (&[], "Usage"),
    ] {
        let error = fails(args).await;
        assert!(error.contains(wanted), "{args:?}: {error}");
        assert!(error.matches("No such file").count() <= 1, "it is said once: {error}");
    }
}

/// Beside the relay's address, which strangers reach, operators have one that they do not.
#[tokio::test]
async fn metrics_have_an_address_of_their_own_where_it_is_given() {
    let mut program = start_with(&[("HAPPY_RELAY_METRICS_LISTEN", "127.0.0.1:0")]).await;
    let url = program.ready["metrics"].as_str().unwrap();
    let metrics: SocketAddr =
        url.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/metrics")).unwrap().parse().unwrap();
    assert!(get(metrics, "/metrics", "").await.contains("\nhappy_relay_connections 0\n"));
    assert!(get(metrics, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert!(get(metrics, "/readyz", "").await.starts_with("HTTP/1.1 200"));
    for path in ["/", "/v1/ws", "/v1/updates", "/v1/machines/x"] {
        assert!(get(metrics, path, "").await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let there = get(program.address, "/metrics", "").await;
    assert!(there.starts_with("HTTP/1.1 404") && !there.contains("happy_relay_"), "{there}");
    assert!(get(program.address, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    let pid = program.child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    assert!(soon("the end", program.child.wait()).await.unwrap().success());
}

/// What Docker and Compose run; the settings of the relay say where it is.
#[tokio::test]
async fn health_says_in_one_line_how_a_relay_is() {
    let mut program = start_with(&[("HAPPY_RELAY_MAX_CONNECTIONS", "1")]).await;
    let (address, url) = (program.address.to_string(), format!("http://{}", program.address));
    let health = async |args: &[&str]| {
        let output = command(&[&["health"], args].concat()).env("HAPPY_RELAY_LISTEN", &address).output();
        let output = soon("the answer", output).await.unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        (output.status.code(), said)
    };
    assert_eq!(health(&[]).await, (Some(0), format!("ok  {url}/healthz: ok\n")));
    assert_eq!(health(&[&url, "--ready"]).await, (Some(0), format!("ok  {url}/readyz: ready\n")));

    // A full one is alive, and has no room.
    let mut client = Client::dial(program.address, &address).await;
    client.log_in(&Device::new(1), None).await;
    assert_eq!(health(&[]).await.0, Some(0));
    assert_eq!(health(&["--ready"]).await, (Some(1), format!("not well  {url}/readyz: full\n")));
    let (code, said) = health(&["--ready", "--json"]).await;
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["ok"], &said["status"]), (Some(1), &false.into(), &"full".into()));

    program.child.kill().await.unwrap();
    let (code, said) = health(&[]).await;
    assert!(code == Some(1) && said.contains(&url) && said.contains("not reached"), "{said}");
}

/// Some program that takes connections and says nothing, or another that says something else.
#[tokio::test]
async fn health_does_not_wait_for_ever_nor_believe_anybody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let silent = fails(&["health", &url]).await;
    assert!(silent.contains("no answer within"), "{silent}");
    let other = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = client.read(&mut request).await;
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await;
        }
    });
    let said = fails(&["health", &url]).await;
    assert!(said.contains("no relay"), "{said}");
    other.abort();
}

#[tokio::test]
async fn the_help_is_as_wide_as_the_terminal() {
    // Without a terminal, the width comes from here.
    let output = soon("the end", command(&["serve", "--help"]).env("COLUMNS", "80").output()).await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--max-unproven-per-address"), "{help}");
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

/// Even with everything turned on, the log holds no payload, no key, no ticket and no whole device id.
#[tokio::test]
async fn the_log_gives_nothing_away() {
    const CANARY: &[u8] = b"canary-5f1b";
    let (a, b, guest) = (Device::new(1), Device::new(2), Device::new(3));
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--log", "trace,tungstenite=trace"];
    let mut child = command(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: serde_json::Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    let address: SocketAddr = ready["address"].as_str().unwrap().parse().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let logged = tokio::spawn(async move {
        let mut text = Vec::new();
        log.read_to_end(&mut text).await.map(|_| text)
    });

    let dial = || Client::dial(address, ready["address"].as_str().unwrap());
    let (mut one, mut other, mut third) = (dial().await, dial().await, dial().await);
    one.log_in(&a, None).await;
    other.log_in(&b, None).await;
    one.name(&[b.id()]).await;
    other.tell(ToRelay::Peers(vec![a.id()])).await;
    one.expect(FromRelay::Presence { device: b.id(), here: true }).await;
    one.send(b.id(), 1, CANARY).await;
    other.expect(FromRelay::Presence { device: a.id(), here: true }).await;
    other.expect_payload(a.id(), CANARY).await;
    // A ticket that opens nothing, a frame that is none, and a text.
    let nonce = third.challenge().await;
    third.raw(&guest.login(&third.name.clone(), &nonce, Some([0xca; 32]))).await;
    assert_eq!(third.goaway().await.0, Code::LOGIN_REFUSED);
    one.raw(&[&[0x03][..], CANARY].concat()).await;
    one.socket.send(Message::Text(String::from_utf8_lossy(CANARY).into_owned().into())).await.unwrap();
    drop((one, other, third));
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    assert!(soon("the end", child.wait()).await.unwrap().success());

    let log = String::from_utf8(soon("the log", logged).await.unwrap().unwrap()).unwrap();
    assert!(log.contains("logged in"), "it logs at all: {log}");
    assert!(log.contains(&a.id().short()), "short ids are for the operator");
    let decimal = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for secret in [CANARY, &[0xca; 8][..], &nonce[..], a.id().as_bytes()] {
        assert!(!log.contains(&hex(secret)) && !log.contains(&decimal(secret)), "{log}");
    }
    assert!(!log.contains("canary") && !log.contains(&a.id().to_string()), "{log}");
}
