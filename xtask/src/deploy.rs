//! `cargo xtask deploy`: every file in `deploy/` goes through the tool of its kind.
//!
//! Each check names the files that it looks at; a file that none names fails the task, unless [`UNCHECKED`] does and
//! `docs/OPERATE.md` says so to the operator. What the tools cannot know, such as whether the metrics of a dashboard exist, is asked
//! by the tests of the relay (`relay/tests/relay/deploy.rs`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::tools::{self, CADDY, NODE, NPM, PROGRAMS, PROMTOOL, SYSTEMD_ANALYZE, quiet};
use crate::{report, root};

/// Where the program is once it is installed, as the unit says.
const INSTALLED: &str = "/usr/local/bin/happy-relay";
/// The most that `systemd-analyze security` may find exposed, in tenths; it says OK up to 4.9.
const EXPOSURE: &str = "20";
/// The oldest version of Kubernetes that the manifests are for, the first one with a preStop that sleeps, and the newest there was when
/// the schemas were kept.
const KUBERNETES: [&str; 2] = ["kubernetes-1.30", "kubernetes-1.37"];
/// Files that no tool checks, by name.
const UNCHECKED: [&str; 1] = ["Dockerfile.dockerignore"];

const MANIFESTS: &[&str] = &[
    "kubernetes/autoscaler.yaml",
    "kubernetes/ingress.yaml",
    "kubernetes/network.yaml",
    "kubernetes/redis.yaml",
    "kubernetes/relay.yaml",
];

/// One tool, and the files that it is for.
struct Check {
    what: &'static str,
    files: &'static [&'static str],
    run: fn(&Bench) -> Result<()>,
}

const CHECKS: &[Check] = &[
    Check { what: "happy-relay check-config", files: &["happy-relay.toml"], run: settings },
    Check { what: "systemd-analyze", files: &["happy-relay.service"], run: unit },
    Check { what: "dockerfile-utils", files: &["Dockerfile"], run: dockerfile },
    Check { what: "the schema of Compose", files: &["docker-compose.yml"], run: compose },
    Check { what: "caddy validate", files: &["Caddyfile"], run: caddy },
    Check { what: "the schemas of Kubernetes", files: MANIFESTS, run: kubernetes },
    Check {
        what: "promtool",
        files: &["prometheus/alerts.yml", "prometheus/alerts_test.yml", "prometheus/prometheus.yml"],
        run: prometheus,
    },
    Check { what: "promtool for the queries of Grafana", files: &["grafana/happy-relay.json"], run: grafana },
];

/// Where the checks work.
struct Bench {
    deploy: PathBuf,
    /// The checks that are our own, and the programs that packages brought them.
    own: PathBuf,
    /// For what is written on the way; inside `target`.
    scratch: PathBuf,
}

/// Installs the tools where it may and runs all checks.
///
/// # Errors
/// When a tool is missing or finds fault, or a file is checked by none.
pub fn run() -> Result<()> {
    tools::require(&[CADDY, NODE, NPM, PROMTOOL, SYSTEMD_ANALYZE])?;
    let own = root().join("tests/deploy");
    tools::npm_ci(&own)?;
    let bench = Bench { deploy: root().join("deploy"), own, scratch: tools::target().join("deploy-scratch") };
    fs::create_dir_all(&bench.scratch)?;
    every_file_is_named(&bench.deploy)?;
    // Whoever leaves a schema out or cuts it too short learns it here: a check that finds nothing is none.
    quiet(Command::new(NODE.program).args(["--test", "schemas.test.mjs"]).current_dir(&bench.own))?;
    let mut failed = 0;
    for check in CHECKS {
        match (check.run)(&bench) {
            Ok(()) => report::step(&format!("{:<36} {}", check.what, check.files.join(", "))),
            Err(error) => {
                failed += 1;
                report::problem(&format!("{}: {error:#}", check.what));
            }
        }
    }
    anstream::println!("deploy: {} passed, {failed} failed", CHECKS.len() - failed);
    ensure!(failed == 0, "the files in deploy/ are not in order");
    Ok(())
}

/// Sees that each file is checked or said not to be, and that each name is a file.
fn every_file_is_named(deploy: &Path) -> Result<()> {
    let mut named: Vec<_> = CHECKS.iter().flat_map(|check| check.files).chain(&UNCHECKED).copied().collect();
    named.sort_unstable();
    let mut there = files_below(deploy, deploy)?;
    there.sort_unstable();
    ensure!(there == named, "deploy/ holds {there:?}, and checked are {named:?}");
    let page = fs::read_to_string(root().join("docs/OPERATE.md"))?;
    for name in UNCHECKED {
        ensure!(page.contains(name), "docs/OPERATE.md does not say that no tool checks {name}");
    }
    Ok(())
}

fn files_below(folder: &Path, top: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path, top)?);
        } else {
            found.push(path.strip_prefix(top)?.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(found)
}

fn settings(bench: &Bench) -> Result<()> {
    let from_source = || {
        let mut cargo = tools::cargo();
        cargo.args(["run", "--quiet", "--package", "happy-relay", "--"]);
        cargo
    };
    let built = |folder| Command::new(Path::new(&folder).join("happy-relay"));
    let mut relay = std::env::var_os(PROGRAMS).map_or_else(from_source, built);
    quiet(relay.args(["check-config", "--config"]).arg(bench.deploy.join("happy-relay.toml")).current_dir(root()))
}

/// The unit names a program that is not installed here, so a copy names one that is.
fn unit(bench: &Bench) -> Result<()> {
    let unit = fs::read_to_string(bench.deploy.join("happy-relay.service"))?;
    ensure!(unit.contains(INSTALLED), "the unit does not start {INSTALLED}");
    let copy = bench.scratch.join("happy-relay.service");
    fs::write(&copy, unit.replace(INSTALLED, "/bin/true"))?;
    silent(Command::new(SYSTEMD_ANALYZE.program).args(["verify", "--man=no"]).arg(&copy))?;
    let mut security = Command::new(SYSTEMD_ANALYZE.program);
    quiet(security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]).arg(&copy))
}

fn dockerfile(bench: &Bench) -> Result<()> {
    let linter = bench.own.join("node_modules/.bin/dockerfile-utils");
    silent(Command::new(linter).arg("lint").arg(bench.deploy.join("Dockerfile")))
}

fn compose(bench: &Bench) -> Result<()> {
    follows(bench, "compose", &["docker-compose.yml"])
}

/// Checks files with a schema of `tests/deploy/schemas`.
fn follows(bench: &Bench, schema: &str, files: &[&str]) -> Result<()> {
    let mut check = Command::new(NODE.program);
    check.arg(bench.own.join("schemas.mjs")).arg(schema).args(files).current_dir(&bench.deploy);
    silent(&mut check)
}

/// As it stands, with the variables that Compose sets, and in the form that `caddy fmt` gives it.
fn caddy(bench: &Bench) -> Result<()> {
    let file = bench.deploy.join("Caddyfile");
    for variables in [&[][..], &[("HAPPY_RELAY_NAME", "relay.example"), ("HAPPY_RELAY_UPSTREAM", "a:8080 b:8080")]] {
        let mut validate = Command::new(CADDY.program);
        validate.args(["validate", "--adapter", "caddyfile", "--config"]).arg(&file);
        // Caddy makes folders for certificates even for this.
        validate.env("XDG_DATA_HOME", &bench.scratch).env("XDG_CONFIG_HOME", &bench.scratch);
        quiet(
            validate.env_remove("HAPPY_RELAY_NAME").env_remove("HAPPY_RELAY_UPSTREAM").envs(variables.iter().copied()),
        )?;
    }
    let formatted = Command::new(CADDY.program).arg("fmt").arg(&file).output()?.stdout;
    ensure!(formatted == fs::read(&file)?, "`caddy fmt --overwrite deploy/Caddyfile` would change it");
    Ok(())
}

fn kubernetes(bench: &Bench) -> Result<()> {
    KUBERNETES.iter().try_for_each(|version| follows(bench, version, MANIFESTS))
}

fn prometheus(bench: &Bench) -> Result<()> {
    for arguments in [
        &["check", "config", "prometheus.yml"][..],
        &["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"],
        &["test", "rules", "alerts_test.yml"],
    ] {
        quiet(Command::new(PROMTOOL.program).args(arguments).current_dir(bench.deploy.join("prometheus")))?;
    }
    Ok(())
}

/// Grafana comes with no tool for its files. Each query is made a rule, which promtool reads; the rest is looked at here: numbers of panels
/// that are theirs alone, and panels that do not lie on each other.
fn grafana(bench: &Bench) -> Result<()> {
    let text = fs::read_to_string(bench.deploy.join("grafana/happy-relay.json"))?;
    let rules = rules_of(&serde_json::from_str(&text)?)?;
    let file = bench.scratch.join("dashboard.yml");
    // JSON is YAML.
    fs::write(&file, rules.to_string())?;
    quiet(Command::new(PROMTOOL.program).args(["check", "rules"]).arg(file))
}

/// The queries of a dashboard as the rules of a Prometheus.
fn rules_of(dashboard: &Value) -> Result<Value> {
    for field in ["title", "uid"] {
        ensure!(dashboard[field].as_str().is_some_and(|text| !text.is_empty()), "the dashboard has no {field}");
    }
    ensure!(dashboard["schemaVersion"].is_u64(), "the dashboard has no schemaVersion");
    let panels = dashboard["panels"].as_array().context("the dashboard has no panels")?;
    let (mut ids, mut places, mut rules) = (Vec::new(), Vec::<[u64; 4]>::new(), Vec::new());
    for panel in panels {
        let title = panel["title"].as_str().context("a panel has no title")?;
        let id = panel["id"].as_u64().with_context(|| format!("{title} has no id"))?;
        ensure!(!ids.contains(&id), "{title} has the id {id} of another panel");
        ids.push(id);
        let place = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap_or(u64::MAX / 2));
        ensure!(place[0] + place[2] <= 24, "{title} is wider than the page");
        ensure!(!places.iter().any(|other| overlap(&place, other)), "{title} lies on another panel");
        places.push(place);
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().filter(|targets| !targets.is_empty());
        for target in targets.with_context(|| format!("{title} asks for nothing"))? {
            let query = target["expr"].as_str().with_context(|| format!("a query of {title} is none"))?;
            let query = query.replace("$__rate_interval", "5m").replace("$node", ".*");
            ensure!(!query.contains('$'), "{title} uses a variable that the dashboard does not have: {query}");
            rules.push(serde_json::json!({ "record": format!("panel:{id}:query{}", rules.len()), "expr": query }));
        }
    }
    if rules.is_empty() {
        bail!("the dashboard asks for nothing");
    }
    Ok(serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }))
}

fn overlap(a: &[u64; 4], b: &[u64; 4]) -> bool {
    let apart = |start: usize, size: usize| a[start] + a[size] <= b[start] || b[start] + b[size] <= a[start];
    !apart(0, 2) && !apart(1, 3)
}

/// Runs a checker that says nothing when all is well, and ends with 0 although it warns.
fn silent(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "{name} ended with {}:\n{said}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashboard(second: Value) -> Result<Value> {
        let first = serde_json::json!({ "id": 1, "title": "first", "gridPos": { "x": 0, "y": 0, "w": 12, "h": 8 },
            "targets": [{ "expr": "rate(a{instance=~\"$node\"}[$__rate_interval])" }] });
        rules_of(&serde_json::json!({ "title": "t", "uid": "u", "schemaVersion": 39, "panels": [first, second] }))
    }

    #[test]
    fn queries_become_rules_and_faults_of_panels_are_named() {
        let panel = |id: u64, x: u64, query: &str| serde_json::json!({ "id": id, "title": "second", "gridPos": { "x": x, "y": 4, "w": 12, "h": 8 }, "targets": [{ "expr": query }] });
        let rules = dashboard(panel(2, 12, "b")).unwrap();
        assert_eq!(rules["groups"][0]["rules"][0]["expr"], "rate(a{instance=~\".*\"}[5m])");
        assert_eq!(rules["groups"][0]["rules"][1]["expr"], "b");
        for (fault, wanted) in [
            (panel(1, 12, "b"), "the id 1 of another"),
            (panel(2, 11, "b"), "lies on another"),
            (panel(2, 13, "b"), "wider than the page"),
            (panel(2, 12, "b{x=\"$y\"}"), "a variable"),
            (
                serde_json::json!({ "id": 2, "title": "second", "gridPos": { "x": 12, "y": 0, "w": 12, "h": 8 } }),
                "asks for nothing",
            ),
        ] {
            let error = dashboard(fault).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
