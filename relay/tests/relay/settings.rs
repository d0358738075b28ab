//! Settings from files, variables and flags, as the program takes them; and certificates that change under it.

use std::path::Path;
use std::sync::Arc;

use happy_relay::tls;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::harness::soon;
use crate::program::command;

struct Checked {
    ok: bool,
    said: Value,
    all: String,
}

impl Checked {
    fn setting(&self, key: &str) -> (&str, &str) {
        let setting = &self.said["settings"][key];
        (setting["value"].as_str().unwrap(), setting["from"].as_str().unwrap())
    }
}

/// `check-config --json` with a file, variables and flags.
async fn check(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    std::fs::write(&path, file).unwrap();
    let args = [&["check-config", "--json", "--config", path.to_str().unwrap()], flags].concat();
    let output = soon("the end", command(&args).envs(variables.iter().copied()).output()).await.unwrap();
    let all = String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Checked { ok: output.status.success(), said, all }
}

#[tokio::test]
async fn a_flag_goes_before_a_variable_a_variable_before_the_file_and_that_before_the_default() {
    let file = "name = [\"file.example\"]\nmax_connections = 7\nlog = \"debug\"\nno_metrics = true\nno_app = true\n";
    let variables =
        [("HAPPY_RELAY_MAX_CONNECTIONS", "8"), ("HAPPY_RELAY_LOG", "warn"), ("HAPPY_RELAY_NO_APP", "false")];
    let checked = check(file, &variables, &["--log", "error"]).await;
    assert!(checked.ok, "{}", checked.all);
    for (key, value, from) in [
        ("name", "file.example", "file"),
        ("max_connections", "8", "variable"),
        ("log", "error", "flag"),
        ("no_metrics", "true", "file"),
        ("no_app", "false", "variable"),
        ("max_unproven", "1024", "default"),
        ("listen", "127.0.0.1:8080", "default"),
    ] {
        assert_eq!(checked.setting(key), (value, from), "{key}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once_and_the_program_fails() {
    let (certificate, _) = tls::self_signed(&["other.example".into()]).unwrap();
    let (_, key) = tls::self_signed(&["other.example".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("chain.pem"), certificate).unwrap();
    std::fs::write(path("key.pem"), key.as_bytes()).unwrap();
    let file = format!(
        "name = [\"https://relay.example\"]\naccess = \"enrolled\"\nmax_connections = 5\nredis = \"http://x\"\nlog = \"==\"\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
        path("chain.pem"),
        path("key.pem")
    );
    let checked = check(&file, &[], &["--app-dir", "/nowhere"]).await;
    assert!(!checked.ok);
    let problems = checked.said["problems"].to_string();
    for wanted in ["is not a relay name", "redis://", "not a filter", "do they belong together", "no index.html"] {
        assert!(problems.contains(wanted), "{wanted}: {problems}");
    }

    // A certificate for another name, and one that has ended, start all the same and are of no use.
    let (certificate, key) = tls::self_signed(&["other.example".into()]).unwrap();
    std::fs::write(path("chain.pem"), certificate).unwrap();
    std::fs::write(path("key.pem"), key.as_bytes()).unwrap();
    let (chain, key) = (path("chain.pem"), path("key.pem"));
    let flags = ["--tls-cert", &chain, "--tls-key", &key, "--name", "relay.example:8443"];
    let checked = check("", &[], &flags).await;
    assert!(!checked.ok && checked.all.contains("not for `relay.example:8443`"), "{}", checked.all);
    assert!(check("", &[], &[&flags[..4], &["--name", "other.example:8443"]].concat()).await.ok);
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_refused_by_its_line() {
    let checked = check("log = \"info\"\nlistne = \"127.0.0.1:1\"\n", &[], &[]).await;
    assert!(!checked.ok);
    assert!(checked.all.contains("relay.toml, line 2") && checked.all.contains("`listne`"), "{}", checked.all);
    assert!(serde_json::from_str::<Value>(&checked.all).is_ok(), "it is JSON as asked for: {}", checked.all);
}

/// Whoever wrote a file has never seen the flags.
#[tokio::test]
async fn what_is_wrong_is_called_as_it_was_given() {
    let redis = "redis = \"redis://127.0.0.1:1\"\n";
    let by_file = check(&format!("{redis}direct = \"10.0.0.2:7000\""), &[], &[]).await;
    assert!(by_file.all.contains("relay.toml, line 2) needs `direct_secret_file`"), "{}", by_file.all);
    let by_variable = check(redis, &[("HAPPY_RELAY_DIRECT", "10.0.0.2:7000")], &[]).await;
    assert!(by_variable.all.contains("HAPPY_RELAY_DIRECT needs"), "{}", by_variable.all);
    let by_flag = check(redis, &[], &["--direct", "10.0.0.2:7000"]).await;
    assert!(by_flag.all.contains("--direct needs"), "{}", by_flag.all);
    for checked in [by_file, by_variable] {
        assert!(!checked.ok && !checked.all.contains("--direct"), "{}", checked.all);
    }
    let both = check("no_app = true\napp_dir = \"/nowhere\"", &[], &[]).await;
    assert!(!both.ok && both.all.contains("`no_app` (") && both.all.contains("not both"), "{}", both.all);

    // What the parser of the flags says of a variable.
    let listen = check("", &[("HAPPY_RELAY_MAX_RATE", "much")], &[]).await;
    assert!(!listen.ok && listen.all.contains("'HAPPY_RELAY_MAX_RATE'"), "{}", listen.all);
    assert!(!listen.all.contains("'--max-rate"), "{}", listen.all);
    let listen = check("", &[("HAPPY_RELAY_MAX_RATE", "much")], &["--max-rate=more"]).await;
    assert!(!listen.ok && listen.all.contains("'--max-rate"), "{}", listen.all);
}

/// The address stands in the node's lease, and others dial it as it stands there.
#[tokio::test]
async fn an_address_that_no_other_node_can_dial_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("nodes");
    std::fs::write(&secret, "a secret of the nodes, long enough for all of them").unwrap();
    let rest = format!("redis = \"redis://127.0.0.1:1\"\ndirect_secret_file = \"{}\"\n", secret.display());
    for (direct, direct_as, ok) in [
        ("0.0.0.0:7000", None, false),
        ("[::]:7000", None, false),
        ("0.0.0.0:7000", Some("0.0.0.0:7000"), false),
        ("0.0.0.0:7000", Some("relay-1.internal:7000"), true),
        ("10.0.0.2:7000", None, true),
    ] {
        let direct_as = direct_as.map_or(String::new(), |dialled| format!("direct_as = \"{dialled}\"\n"));
        let checked = check(&format!("{rest}direct = \"{direct}\"\n{direct_as}"), &[], &[]).await;
        assert_eq!(checked.ok, ok, "{direct} {direct_as}: {}", checked.all);
        assert!(ok || checked.all.contains("no other node can dial") && checked.all.contains("`direct_as`"));
    }
}

/// Wherever the address of Redis comes from, right or wrong, nobody reads the password from what the program says.
#[tokio::test]
async fn a_password_is_in_nothing_that_the_program_says() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("redis").display().to_string();
    for (url, ok) in [("redis://:geheim@127.0.0.1:1", true), ("redis://geheim@127.0.0.1:1", false), ("geheim", false)] {
        std::fs::write(&kept, format!("{url}\n")).unwrap();
        let by_file = check(&format!("redis = \"{url}\""), &[], &[]).await;
        let by_variable = check("", &[("HAPPY_RELAY_REDIS", url)], &[]).await;
        let by_secret = check(&format!("redis_file = \"{kept}\""), &[], &[]).await;
        for checked in [by_file, by_variable, by_secret] {
            assert_eq!(checked.ok, ok, "{}", checked.all);
            assert!(!checked.all.contains("geheim"), "{}", checked.all);
            assert!(ok || checked.all.contains("Redis"), "{}", checked.all);
        }
    }
    let shown = check("redis = \"redis://:geheim@127.0.0.1:1\"", &[], &[]).await;
    assert_eq!(shown.setting("redis"), ("redis://127.0.0.1:1", "file"));
    let both = check(&format!("redis_file = \"{kept}\""), &[("HAPPY_RELAY_REDIS", "redis://x")], &[]).await;
    assert!(!both.ok && both.all.contains("not both"), "{}", both.all);
}

/// A server, or a proxy before it, that does not know the greeting says it back, password and all.
#[tokio::test]
async fn a_password_that_a_redis_quotes_is_not_in_the_log() {
    let redis = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = redis.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        while let Ok((mut client, _)) = redis.accept().await {
            let mut greeting = [0; 1024];
            if client.read(&mut greeting).await.is_ok_and(|read| read > 0) {
                let answer = "-ERR what is HELLO 3 AUTH relay geheim?\r\n+OK\r\n+OK\r\n";
                let _ = client.write_all(answer.as_bytes()).await;
            }
        }
    });
    for kind in ["redis", "redis+cluster"] {
        let url = format!("{kind}://relay:geheim@{address}");
        let serve = ["serve", "--listen", "127.0.0.1:0", "--log", "trace"];
        let mut child = command(&serve).env("HAPPY_RELAY_REDIS", url).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        // The first attempts, with all that is logged of them.
        let said = soon("the log", async {
            let mut said = String::new();
            while !said.contains("Redis is not reached") {
                said += &log.next_line().await.unwrap().expect("it goes on");
            }
            said
        })
        .await;
        assert!(said.contains("what is HELLO") && !said.contains("geheim"), "{said}");
    }
    answering.abort();
}

/// Somebody gives the relay the secret of the machines in place of its key. `ExecStartPre` writes what is said into the journal.
#[tokio::test]
async fn an_enrolment_secret_is_in_nothing_that_the_program_says() {
    for secret in [
        "geheim-geheim-geheim",
        "home:geheim-geheim",
        "a:b,geheim-geheim",
        "home:Y1NvnklZBrkzR9dqubT4xVVP65nKFVhOIuW1l8piGugeheim",
    ] {
        let by_file = check(&format!("enrol_key = [\"{secret}\"]"), &[], &[]).await;
        let by_variable = check("", &[("HAPPY_RELAY_ENROL_KEY", secret)], &[]).await;
        let by_flag = check("", &[], &["--enrol-key", secret]).await;
        let by_long_flag = check("", &[], &[&format!("--enrol-key={secret}")]).await;
        for checked in [by_file, by_variable, by_flag, by_long_flag] {
            assert!(!checked.ok && !checked.all.contains("geheim"), "{}", checked.all);
            assert!(checked.all.to_lowercase().contains("enrol"), "it says which setting: {}", checked.all);
        }
    }
    let help = command(&["serve", "--help"]).env("HAPPY_RELAY_ENROL_KEY", "geheim").output().await.unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("geheim"));
    let key = "home:Y1NvnklZBrkzR9dqubT4xVVP65nKFVhOIuW1l8piGuU";
    let fine = check("", &[("HAPPY_RELAY_ENROL_KEY", key)], &[]).await;
    assert_eq!(fine.setting("enrol_key"), (key, "variable"), "a key is public");
}

/// And the same of a secret in place of the file that holds it.
#[tokio::test]
async fn a_secret_in_place_of_a_file_is_in_nothing_that_the_program_says() {
    let rest = "redis = \"redis://127.0.0.1:1\"\ndirect = \"127.0.0.1:1\"\ntls_cert = \"/nowhere\"\n";
    for (key, secret, rest) in [
        ("redis_file", "redis://:geheim@127.0.0.1:1", ""),
        ("direct_secret_file", "geheim-geheim-geheim-geheim-geheim", &rest[..rest.find("tls").unwrap()]),
        ("tls_key", "-----BEGIN PRIVATE KEY----- geheim", &rest[rest.find("tls").unwrap()..]),
    ] {
        let by_file = check(&format!("{rest}{key} = \"{secret}\""), &[], &[]).await;
        let variable = format!("HAPPY_RELAY_{}", key.to_uppercase());
        let by_variable = check(rest, &[(&variable, secret)], &[]).await;
        for (checked, name) in [(by_file, format!("`{key}` (")), (by_variable, variable)] {
            assert!(!checked.ok && !checked.all.contains("geheim"), "{}", checked.all);
            assert!(checked.all.contains(&format!("the file that {name}")), "{}", checked.all);
        }
    }
}

/// A relay that worked goes on working; its operator is told.
#[tokio::test]
async fn files_with_secrets_that_others_can_read_are_warned_of_and_nothing_else_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_certificate(folder.path(), "relay.example");
    let (redis, secret, key, chain) = (path("redis"), path("nodes"), path("key.pem"), path("chain.pem"));
    std::fs::write(&redis, "redis://:geheim@127.0.0.1:1").unwrap();
    std::fs::write(&secret, "a secret of the nodes, long enough for all of them").unwrap();
    let with_password = "redis = \"redis://:geheim@127.0.0.1:1\"\n";
    let without = "redis = \"redis://127.0.0.1:1\"\n";
    let others = format!(
        "name = [\"relay.example\"]\nlisten = \"127.0.0.1:0\"\nredis_file = \"{redis}\"\ndirect = \"127.0.0.1:0\"\ndirect_secret_file = \"{secret}\"\ntls_cert = \"{chain}\"\ntls_key = \"{key}\"\n"
    );
    // What others may of the settings file and of the other files, and which of them are warned of.
    for (settings, own, rest, wanted) in [
        (with_password, 0o600, 0o600, vec![]),
        (with_password, 0o640, 0o600, vec!["relay.toml"]),
        (with_password, 0o604, 0o600, vec!["relay.toml"]),
        (without, 0o644, 0o600, vec![]),
        (&others, 0o644, 0o600, vec![]),
        // As a credential of systemd, or a key for a group.
        (&others, 0o644, 0o440, vec![]),
        (&others, 0o644, 0o444, vec!["redis", "nodes", "key.pem"]),
    ] {
        let file = path("relay.toml");
        std::fs::write(&file, settings).unwrap();
        let set = |file: &str, mode| std::fs::set_permissions(file, PermissionsExt::from_mode(mode)).unwrap();
        set(&file, own);
        [&redis, &secret, &key].into_iter().for_each(|file| set(file, rest));
        let args = ["check-config", "--json", "--config", &file];
        let output = soon("the end", command(&args).output()).await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        let warnings = said["warnings"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let warned: Vec<&str> = warnings.filter(|line| line.contains("others on this machine can read")).collect();
        assert_eq!(warned.len(), wanted.len(), "{settings} {own:o} {rest:o}: {warned:?}");
        assert!(warned.iter().zip(&wanted).all(|(line, name)| line.contains(&path(name))), "{warned:?}");
        // And the relay starts with it, and says the same.
        let mut child = command(&["serve", "--config", &file, "--listen", "127.0.0.1:0"]).spawn().unwrap();
        let mut ready = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(soon("ready", ready.next_line()).await.unwrap().unwrap().contains("ready"));
        child.start_kill().unwrap();
        let mut log = String::new();
        soon("the log", child.stderr.take().unwrap().read_to_string(&mut log)).await.unwrap();
        assert_eq!(log.matches("others on this machine can read").count(), wanted.len(), "{log}");
        assert!(!log.contains("geheim"), "{log}");
    }
}

#[tokio::test]
async fn a_setting_that_changes_nothing_is_warned_of() {
    let key = "home:Y1NvnklZBrkzR9dqubT4xVVP65nKFVhOIuW1l8piGuU";
    for (file, flags, wanted) in [
        ("acme_email = \"you@relay.example\"", vec![], "relay.toml, line 1) has no effect without `acme`"),
        ("", vec!["--acme-staging"], "--acme-staging has no effect without `acme`"),
        (
            "access = \"open\"",
            vec!["--enrol-key", key],
            "everybody may use the relay, and --enrol-key keeps nobody out",
        ),
        // As the unit for systemd has it.
        ("acme_dir = \"/var/lib/happy-relay\"\nacme_staging = false", vec![], ""),
        ("", vec!["--enrol-key", key], ""),
    ] {
        let checked = check(file, &[], &flags).await;
        let warnings = checked.said["warnings"].to_string();
        assert!(checked.ok, "{}", checked.all);
        let said = warnings.contains("has no effect") || warnings.contains("keeps nobody out");
        assert!(warnings.contains(wanted) && said != wanted.is_empty(), "{file} {flags:?}: {warnings}");
    }
}

/// Who checks may be another user than the one that the relay runs as.
#[tokio::test]
async fn a_check_touches_nothing_of_the_authoritys_folder() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("acme");
    let listed = || std::fs::read_dir(folder.path()).unwrap().count();
    let flags = ["--acme", "--name", "relay.example", "--listen", "0.0.0.0:443", "--acme-dir", dir.to_str().unwrap()];
    let checked = check("", &[], &flags).await;
    assert!(checked.ok && checked.all.contains("the relay makes it"), "{}", checked.all);
    assert_eq!(listed(), 0, "nothing was made");
    std::fs::create_dir(&dir).unwrap();
    let place = dir.join("acme-v02.api.letsencrypt.org");
    std::fs::write(&place, "").unwrap();
    assert!(!check("", &[], &flags).await.ok, "a file is no folder");
    std::fs::remove_file(&place).unwrap();
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt};
    std::fs::DirBuilder::new().mode(0o700).create(&place).unwrap();
    let checked = check("", &[], &flags).await;
    assert!(checked.ok && !checked.said["warnings"].to_string().contains("acme-v02"), "{}", checked.all);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "nothing was written");
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(!check("", &[], &flags).await.ok, "others can read it");
}

#[tokio::test]
async fn what_holds_is_shown_in_columns_without_colours_in_a_pipe() {
    let output = soon("the end", command(&["check-config", "--name", "relay.example"]).output()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && !text.contains('\x1b'), "{text}");
    let column = |key: &str, value: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_else(|| panic!("{text}"));
        line.find(value).unwrap_or_else(|| panic!("{line}"))
    };
    assert_eq!(column("name", "relay.example"), column("listen", "127.0.0.1:8080"));
    assert!(text.trim_end().ends_with("ok  the relay can start with this"), "{text}");
}

fn write_certificate(folder: &Path, name: &str) -> CertificateDer<'static> {
    let (certificate, key) = tls::self_signed(&[name.into()]).unwrap();
    std::fs::write(folder.join("key.pem"), key.as_bytes()).unwrap();
    std::fs::write(folder.join("chain.pem"), &certificate).unwrap();
    CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()
}

#[tokio::test]
async fn a_signal_makes_it_show_the_new_certificate_and_no_connection_ends() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_certificate(folder.path(), "localhost");
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let args = ["serve", "--json", "--listen", "127.0.0.1:0", "--tls-cert", chain.to_str().unwrap(), "--tls-key"];
    let mut child = command(&[&args[..], &[key.to_str().unwrap()]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&soon("ready", lines.next_line()).await.unwrap().unwrap()).unwrap();
    let address = ready["address"].as_str().unwrap().to_owned();
    assert_eq!(ready["url"], format!("https://{address}"));
    let health = ["health", "--listen", &address, "--tls-cert", chain.to_str().unwrap(), "--tls-key"];
    let asked = soon("health", command(&[&health[..], &[key.to_str().unwrap()]].concat()).output()).await.unwrap();
    assert!(asked.status.success() && asked.stdout.starts_with(b"ok  https://"), "{asked:?}");
    let dial = async |trusted: &CertificateDer<'static>| {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let connector = TlsConnector::from(Arc::new(client.with_root_certificates(roots).with_no_client_auth()));
        let tcp = TcpStream::connect(&address).await.unwrap();
        connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await
    };
    let mut old = dial(&first).await.unwrap();

    let second = write_certificate(folder.path(), "localhost");
    let pid = child.id().unwrap().to_string();
    assert!(tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await.unwrap().success());
    soon("the log", async {
        while !log.next_line().await.unwrap().expect("it goes on").contains("showing the certificate") {}
    })
    .await;
    assert!(dial(&second).await.is_ok(), "the new one is shown");
    assert!(dial(&first).await.is_err(), "and the old one is not");
    old.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    soon("the answer", old.read_to_string(&mut answer)).await.unwrap();
    let taken =
        answer.lines().find_map(|line| line.strip_prefix("happy_relay_certificate_loads_total{result=\"taken\"} "));
    assert!(taken.is_some_and(|taken| taken != "1"), "{answer}");
}
