//! What the files for operators say of the relay is true of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use happy_relay::certificates::Certificates;
use happy_relay::{Config, Door, PlainHttp, RedisBus};

use crate::harness::Server;

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// Every `happy_relay_…` in a text.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("happy_relay_")).map(str::to_owned).collect()
}

/// Each kind that a text asks a metric for, as in `happy_relay_logins_total{result=~"full|late"}`.
fn kinds_in(text: &str) -> Vec<(String, String)> {
    let mut kinds = Vec::new();
    for (at, _) in text.match_indices("happy_relay_") {
        let Some((name, rest)) = text[at..].split_once('{') else { continue };
        let Some((labels, _)) = rest.split_once('}') else { continue };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        for label in labels.split(',').map(str::trim) {
            let Some((label, values)) = label.split_once('=') else { continue };
            if !matches!(label.trim_end_matches('!'), "reason" | "result" | "kind") {
                continue;
            }
            let values = values.trim_matches(|c| "~\\\"".contains(c)).split('|');
            let label = label.trim_end_matches('!');
            kinds.extend(values.map(|value| (name.to_owned(), format!("{label}=\"{value}\""))));
        }
    }
    kinds
}

#[tokio::test]
async fn dashboards_alerts_and_the_page_name_metrics_that_exist_and_the_dashboard_shows_all() {
    // Nobody is there, which the metrics show as well.
    let bus = RedisBus::start(&"redis://127.0.0.1:1".parse().unwrap()).unwrap();
    let door = Door::certified(Certificates::new(None), PlainHttp::Everyone).unwrap();
    let server = Server::behind(Config { bus: Some(Arc::new(bus)), ..Config::default() }, door).await;
    let page = server.relay.metrics();
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let exist: BTreeSet<_> = samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect();
    for path in [
        "deploy/grafana/happy-relay.json",
        "deploy/prometheus/alerts.yml",
        "deploy/prometheus/alerts_test.yml",
        "deploy/kubernetes/autoscaler.yaml",
        "docs/OPERATE.md",
    ] {
        let named = metrics_in(&file(path));
        assert!(!named.is_empty(), "{path} names no metric");
        // A histogram may be named as a whole.
        let unknown: Vec<_> =
            named.iter().filter(|name| !exist.contains(*name) && !exist.contains(&format!("{name}_bucket"))).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}, and /metrics has {exist:?}");
        for (name, kind) in kinds_in(&file(path)) {
            let sample = page.lines().find(|line| line.starts_with(&format!("{name}{{")) && line.contains(&kind));
            assert!(sample.is_some(), "{path} asks for {name}{{{kind}}}, which /metrics does not have");
        }
    }
    let (shown, families) = (metrics_in(&file("deploy/grafana/happy-relay.json")), page.lines());
    let families = families.filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<_> =
        families.filter(|name| !shown.contains(*name) && !shown.contains(&format!("{name}_bucket"))).collect();
    assert!(missing.is_empty(), "the dashboard shows nothing of {missing:?}");
    let alerts = kinds_in(&file("deploy/prometheus/alerts.yml"));
    assert!(alerts.contains(&("happy_relay_logins_total".into(), "result=\"bad_enrolment\"".into())), "{alerts:?}");
}

#[test]
fn each_alert_is_explained_to_the_operator_and_tested() {
    let (page, tests) = (file("docs/OPERATE.md"), file("deploy/prometheus/alerts_test.yml"));
    let rules = file("deploy/prometheus/alerts.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    for alert in alerts {
        assert!(page.contains(&format!("| `{alert}` |")), "docs/OPERATE.md does not say what to do when {alert} calls");
        let sounds = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&sounds), "alerts_test.yml never makes {alert} sound");
    }
}

/// Any policy that evicts takes the leases of the nodes, which live shortest.
#[test]
fn the_redis_that_is_shipped_evicts_nothing() {
    for path in ["deploy/docker-compose.yml", "deploy/kubernetes/redis.yaml"] {
        assert!(file(path).contains(r#""--maxmemory", "256mb", "--maxmemory-policy", "noeviction""#), "{path}");
    }
}
