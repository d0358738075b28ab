//! Figures: what is counted, and that every page of them is one that Prometheus reads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation is how a test speaks, in its helpers too")]

mod harness;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use harness::Home;
use harness::http::Http;
use serde_json::json;

type Labels = Vec<(String, String)>;

/// A page in the text format of Prometheus, read more strictly than Prometheus does: each family once, in one piece and described, and each
/// series once.
struct Page(BTreeMap<(String, Labels), f64>);

impl Page {
    #[track_caller]
    fn read(text: &str) -> Page {
        assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
        let (mut series, mut families, mut family) = (BTreeMap::new(), Vec::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("no words: {line}"));
                assert!(is_name(name) && name.starts_with("happy_") && words.ends_with('.'), "{line}");
                assert!(!families.contains(&name.to_owned()), "{name} comes twice");
                let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
                let is_counter = name.ends_with("_total");
                assert_eq!(kind, Some(if is_counter { "counter" } else { "gauge" }), "{name}");
                families.push(name.to_owned());
                family = name.to_owned();
                continue;
            }
            let (name, labels, value) = sample(line).unwrap_or_else(|| panic!("cannot be read: {line}"));
            assert_eq!(name, family, "a sample outside of its family");
            let before = series.insert((name, labels), value);
            assert_eq!(before, None, "twice: {line}");
        }
        Page(series)
    }

    #[track_caller]
    fn of(http: &Http) -> Page {
        let answer = http.get("/metrics");
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"), "{answer:?}");
        let text = answer.text();
        ask_promtool(&text);
        Page::read(&text)
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        self.0.get(&(name.to_owned(), labels)).copied()
    }
}

fn is_name(text: &str) -> bool {
    let is_begun = text.starts_with(|c: char| c.is_ascii_lowercase());
    is_begun && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// `name{label="value",…} number`
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = Vec::new();
    let rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            let (label, quoted) = rest.split_once("=\"")?;
            let (mut value, mut escaped, mut end) = (String::new(), false, None);
            for (at, c) in quoted.char_indices() {
                match (escaped, c) {
                    (true, '\\' | '"') => value.push(c),
                    (true, 'n') => value.push('\n'),
                    (true, _) => return None,
                    (false, '"') => {
                        end = Some(at + 1);
                        break;
                    }
                    (false, '\\') => {}
                    (false, c) => value.push(c),
                }
                escaped = !escaped && c == '\\';
            }
            labels.push((is_name(label).then(|| label.to_owned())?, value));
            match quoted.get(end?..)?.strip_prefix(',') {
                Some(next) => rest = next,
                None => break quoted.get(end?..)?.strip_prefix('}')?,
            }
        },
    };
    let value: f64 = rest.strip_prefix(' ')?.parse().ok()?;
    (is_name(name) && value.is_finite() && value >= 0.0).then(|| (name.to_owned(), labels, value))
}

/// Where Prometheus is installed its own tool reads the page too.
#[track_caller]
fn ask_promtool(text: &str) {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
}

#[test]
fn sums_and_figures_of_sessions_are_told_and_nothing_that_names_somebody() {
    let home = Home::new();
    home.start();
    let http = Http::of(&home);
    let folder = home.path().join("secret-folder\"\\");
    std::fs::create_dir_all(&folder).unwrap();
    let script = "printf '\\033]9;4;1;42\\007secret-output\\033]0;secret-title\\007'; cat >/dev/null";
    let make = |name: &str, script: &str| {
        let params = json!({ "command": ["sh", "-c", script, "secret-word"], "name": name, "cwd": folder });
        http.post("/sessions", &params).json()["id"].as_str().unwrap().to_owned()
    };
    let id = make("secret-name", script);
    let ended = make("another", "exit 3");
    // One that somebody has ended did not fail, whatever it says to that, and whichever daemon looks.
    let told = ["exec sleep 600", "trap 'exit 9' HUP; while :; do sleep 0.05; done"].map(|script| make("told", script));
    told.iter().for_each(|id| drop(home.run(&["kill", id]).ok()));
    home.until(&["ls"], |list| {
        let of = |id: &String| list.as_array().unwrap().iter().find(|s| s["id"] == id.as_str()).cloned();
        told.iter().all(|id| of(id).is_some_and(|s| s["state"] != "running" && s["told_to_end"] == true))
    });
    home.run(&["type", &id, "hello"]).ok();
    let metrics = home.until(&["metrics"], |metrics| {
        let of = |id: &str| metrics["sessions"].as_array().unwrap().iter().find(|s| s["session"] == id).cloned();
        of(&ended).is_some_and(|s| s["status"] == "error")
            && of(&id).is_some_and(|s| s["bytes_in"].as_u64() >= Some(5) && s["progress"]["percent"] == 42)
    });
    assert_eq!((&metrics["total"]["sessions"], &metrics["total"]["failed"]), (&json!(4), &json!(1)));
    let table = home.run(&["metrics"]).ok();
    let named = |line: &str| line.starts_with(&id[..8]) && line.contains("  secret-name  ");
    assert!(table.lines().any(named), "{table}");
    let typed = metrics["total"]["bytes_in"].as_f64().unwrap();

    let page = Page::of(&http);
    let session = [("session", &*id)];
    assert_eq!(page.get("happy_session_input_bytes", &session), Some(typed));
    assert_eq!(page.get("happy_sessions_input_bytes", &[]), Some(typed));
    assert_eq!(page.get("happy_session_progress_percent", &session), Some(42.0));
    assert_eq!(page.get("happy_sessions", &[("status", "error")]), Some(1.0));
    assert_eq!(page.get("happy_session_status", &[("session", &ended), ("status", "error")]), Some(1.0));
    let running: f64 = ["initializing", "running", "idle"]
        .iter()
        .map(|status| page.get("happy_sessions", &[("status", status)]).unwrap())
        .sum();
    assert_eq!(running, 1.0);
    assert!(page.get("happy_session_output_bytes", &session) > Some(10.0));
    assert_eq!(page.get("happy_prompts", &[]), Some(0.0));
    assert_eq!(page.get("happy_audit_missed_total", &[("why", "not_written")]), Some(0.0));
    assert_eq!(page.get("happy_sessions_left_out", &[]), Some(0.0));
    if cfg!(target_os = "linux") {
        assert!(page.get("happy_sessions_memory_bytes", &[]) > Some(100_000.0));
        assert!(page.get("happy_session_memory_bytes", &session) > Some(100_000.0));
    }
    // By rights labels are ids and fixed words.
    let known = ["version", "status", "session", "relay", "state", "device", "why", "token"];
    for (name, labels) in page.0.keys() {
        assert!(labels.iter().all(|(label, _)| known.contains(&label.as_str())), "{name} {labels:?}");
    }
    let text = http.get("/metrics").text();
    assert!(!text.contains("secret") && !text.contains(home.path().to_str().unwrap()), "{text}");
    // Another daemon knows it too.
    home.run(&["daemon", "stop"]).ok();
    home.start();
    assert_eq!(home.json(&["metrics"])["total"]["failed"], 1);
    let shown = home.run(&["metrics"]).ok();
    assert!(shown.contains("TYPED") && shown.contains(" 42 %") && shown.contains("typed, "), "{shown}");
}

#[test]
fn a_relay_that_is_not_reached_is_told_with_its_breaker_its_attempts_and_the_next_one() {
    let home = Home::new();
    // Nobody listens there.
    let origin = "http://127.0.0.1:9";
    home.start_with(&["--relay", origin]);
    let is_waiting = |relay: &serde_json::Value| {
        relay["breaker"] == "half_open" && relay["failures"].as_u64() >= Some(3) && relay["next_at"].is_u64()
    };
    let status = home.until(&["daemon", "status"], |status| is_waiting(&status["relays"][0]));
    assert!(status["relays"][0]["pause_ms"].as_u64().unwrap() <= 30_000, "{status}");
    let metrics = home.until(&["metrics"], |metrics| is_waiting(&metrics["relays"][0]));
    assert!(metrics["relays"][0]["trouble"].as_str().is_some_and(|why| !why.is_empty()), "{metrics}");
    let shown = home.run(&["metrics"]).ok();
    assert!(shown.contains("http://127.0.0.1:9 is not connected."), "{shown}");

    let page = Page::of(&Http::of(&home));
    let of = |name, state| page.get(name, &[&[("relay", origin)][..], state].concat());
    assert_eq!(of("happy_relay_up", &[]), Some(0.0));
    assert_eq!(of("happy_relay_breaker", &[("state", "half_open")]), Some(1.0));
    assert_eq!(of("happy_relay_breaker", &[("state", "open")]), Some(0.0));
    assert_eq!(of("happy_relay_breaker", &[("state", "closed")]), Some(0.0));
    assert!(of("happy_relay_failed_attempts", &[]) >= Some(3.0));
    assert!(page.get("happy_errors_total", &[]) >= Some(3.0));
}

#[test]
fn calls_that_the_audit_log_misses_are_seen_where_errors_are() {
    let home = Home::new();
    home.start();
    let http = Http::of(&home);
    let id = home.run(&["run", "-d", "--", "sleep", "600"]).ok().trim().to_owned();
    assert_eq!(home.json(&["daemon", "status"])["errors"], json!([]));
    // A folder in the place of a file: nothing can be put there, as on a full disk.
    std::fs::remove_file(home.file("audit.end")).unwrap();
    std::fs::create_dir(home.file("audit.end")).unwrap();
    home.run(&["rename", &id, "one"]).ok();
    home.run(&["rename", &id, "two"]).ok();
    let says_so = |value: &serde_json::Value| {
        let errors = value["errors"].as_array().unwrap();
        let error = errors.iter().find(|error| error["what"].as_str().unwrap().contains("audit log")).unwrap();
        assert_eq!(error["count"], 2, "{error}");
    };
    says_so(&home.json(&["daemon", "status"]));
    says_so(&home.json(&["metrics"]));
    for command in [&["daemon", "status"][..], &["metrics"]] {
        let shown = home.run(command).ok();
        assert!(shown.contains("calls are missing in the audit log"), "{shown}");
    }
    assert_eq!(Page::of(&http).get("happy_audit_missed_total", &[("why", "not_written")]), Some(2.0));
}
